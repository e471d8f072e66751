"""read_geo and write_geotiff: against files whose tags are written here by hand, and figures worked out by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphseg.datasets.geotiff import read_geo, write_geotiff
from graphseg.datasets.image_file import read_image, read_labels

H, W = 6, 5
DOUBLE, SHORT, ASCII = 12, 3, 2

# Pixel (10, 20) has its corner at (500000, 4100000); pixels are 2 wide and 4 high; UTM 33 north.
SCALE = (33550, DOUBLE, 3, (2.0, 4.0, 0.0), True)
TIEPOINT = (33922, DOUBLE, 6, (10.0, 20.0, 0.0, 500000.0, 4100000.0, 0.0), True)
MATRIX = (34264, DOUBLE, 16, (2.0, 0.5, 0.0, 100.0, 0.25, -4.0, 0.0, 200.0, *(0.0,) * 7, 1.0), True)


def keys(*entries: tuple[int, int, int, int]) -> tuple:
    """The directory of geo keys: key, where its value lies, how many, value."""
    values = (1, 1, 0, len(entries), *(n for entry in entries for n in entry))
    return (34735, SHORT, len(values), values, True)


def text(code: int, value: str) -> tuple:
    raw = value.encode("latin-1") + b"\0"
    return (code, ASCII, len(raw), raw, True)


UTM33 = keys((1024, 0, 1, 1), (1025, 0, 1, 1), (3072, 0, 1, 32633))


def write(path: Path, *tags: tuple, values: np.ndarray | None = None, **options: Any) -> Path:
    values = np.arange(H * W, dtype=np.uint8).reshape(H, W) if values is None else values
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, extratags=tags, **options)
    return path


def valid_of(path: Path, window: tuple[int, int, int, int] | None = None) -> torch.Tensor:
    """`valid`, which is there."""
    valid = read_image(path, window=window).valid
    assert valid is not None
    return valid


def raw_tags(path: Path) -> dict[int, tuple[int, int, bytes]]:
    """Type, number and bytes of the geo tags, from a little-endian file, without any library."""
    data = path.read_bytes()
    assert data[:4] == b"II*\0"
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    found = {}
    for i in range(count):
        entry = start + 2 + 12 * i
        tag, kind, number = struct.unpack_from("<HHI", data, entry)
        size = number * {ASCII: 1, SHORT: 2, DOUBLE: 8}.get(kind, 0)
        if tag in (33550, 33922, 34264, 34735, 34736, 34737, 42113):
            place = entry + 8 if size <= 4 else struct.unpack_from("<I", data, entry + 8)[0]
            found[tag] = (kind, number, data[place : place + size])
    return found


def test_scale_and_tie_point(tmp_path: Path) -> None:
    geo = json.loads(read_geo(write(tmp_path / "a.tif", SCALE, TIEPOINT, UTM33)))
    # x = 500000 + 2 (column - 10), y = 4100000 - 4 (row - 20)
    assert geo["transform"] == [2.0, 0.0, 499980.0, 0.0, -4.0, 4100080.0]
    assert geo["crs"] == "EPSG:32633"
    assert geo["nodata"] is None


def test_pixel_is_point(tmp_path: Path) -> None:
    """The tie point is the pixel's centre: its corner lies half a pixel to the north-west."""
    point = keys((1024, 0, 1, 1), (1025, 0, 1, 2), (3072, 0, 1, 32633))
    geo = json.loads(read_geo(write(tmp_path / "a.tif", SCALE, TIEPOINT, point)))
    assert geo["transform"] == [2.0, 0.0, 499979.0, 0.0, -4.0, 4100082.0]
    a, b, c, d, e, f = geo["transform"]
    assert (a * 10.5 + b * 20.5 + c, d * 10.5 + e * 20.5 + f) == (500000.0, 4100000.0)
    geo = json.loads(read_geo(write(tmp_path / "a.tif", MATRIX, point)))
    assert geo["transform"] == [2.0, 0.5, 98.75, 0.25, -4.0, 201.875]


def test_matrix(tmp_path: Path) -> None:
    geo = json.loads(read_geo(write(tmp_path / "a.tif", MATRIX)))
    assert geo["transform"] == [2.0, 0.5, 100.0, 0.25, -4.0, 200.0]
    assert geo["crs"] == ""


def test_no_place(tmp_path: Path) -> None:
    assert read_geo(write(tmp_path / "a.tif")) == ""
    assert read_image(tmp_path / "a.tif").geo == ""
    geo = json.loads(read_geo(write(tmp_path / "b.tif", text(42113, "7"))))
    assert geo["transform"] == [1, 0, 0, 0, 1, 0] and geo["nodata"] == 7
    ground_points = (33922, DOUBLE, 12, (0.0, 0.0, 0.0, 5.0, 6.0, 0.0, 9.0, 9.0, 0.0, 7.0, 8.0, 0.0), True)
    assert json.loads(read_geo(write(tmp_path / "c.tif", ground_points)))["transform"] == [1, 0, 0, 0, 1, 0]


CITATION = text(34737, "UTM by hand|WGS by hand|")


@pytest.mark.parametrize(
    ("tags", "crs"),
    [
        ([keys((1024, 0, 1, 1), (3072, 0, 1, 25832))], "EPSG:25832"),
        ([keys((1024, 0, 1, 2), (2048, 0, 1, 4326))], "EPSG:4326"),
        ([keys((1024, 0, 1, 1), (2048, 0, 1, 4326), (3072, 0, 1, 3857))], "EPSG:3857"),
        ([keys((2048, 0, 1, 4258))], "EPSG:4258"),
        ([keys((1024, 0, 1, 1), (1026, 34737, 12, 0), (3072, 0, 1, 32767)), CITATION], "UTM by hand"),
        (
            [keys((1024, 0, 1, 1), (1026, 34737, 12, 12), (3072, 0, 1, 32767), (3073, 34737, 12, 0)), CITATION],
            "UTM by hand",
        ),
        ([keys((1024, 0, 1, 2), (2048, 0, 1, 32767), (2049, 34737, 12, 12)), CITATION], "WGS by hand"),
        ([keys((1024, 0, 1, 1), (3072, 0, 1, 32767))], ""),
        ([keys((1024, 0, 1, 1), (3072, 0, 1, 32767), (3073, 34737, 99, 50)), CITATION], ""),
        ([(34735, SHORT, 3, (1, 1, 0), True)], ""),
        ([keys((3072, 34735, 1, 0))], ""),
    ],
)
def test_crs(tmp_path: Path, tags: list[tuple], crs: str) -> None:
    assert json.loads(read_geo(write(tmp_path / "a.tif", SCALE, TIEPOINT, *tags)))["crs"] == crs


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("255", 255),
        ("-9999", -9999),
        ("-9999.5", -9999.5),
        ("1e3 ", 1000.0),
        ("nan", "nan"),
        ("-inf", "-inf"),
        ("none", None),
        ("", None),
        ("-3.4028234663852886e+38", -3.4028234663852886e38),
    ],
)
def test_nodata(tmp_path: Path, written: str, found: object) -> None:
    geo = read_geo(write(tmp_path / "a.tif", SCALE, TIEPOINT, text(42113, written)))
    assert json.loads(geo)["nodata"] == found
    json.loads(geo, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pixels_of_nodata_are_not_valid(tmp_path: Path, compression: str | None) -> None:
    values = np.full((H, W, 2), 9, dtype=np.int16)
    values[0] = -1
    values[1, :, 0] = -1  # one channel alone has data still
    options: dict[str, Any] = {"planarconfig": "contig", "compression": compression}
    found = read_image(write(tmp_path / "a.tif", SCALE, TIEPOINT, text(42113, "-1"), values=values, **options))
    assert found.image.dtype == torch.float32
    valid = valid_of(tmp_path / "a.tif")
    assert torch.equal(valid, torch.arange(H)[:, None].expand(H, W) > 0)
    assert torch.equal(valid_of(tmp_path / "a.tif", (0, 1, 3, 2)), valid[:3, 1:3])
    assert read_image(tmp_path / "a.tif", window=(1, 1, 3, 2)).valid is None


def test_nan_is_nodata(tmp_path: Path) -> None:
    values = np.ones((H, W, 2), dtype=np.float32)
    values[0, 0], values[1, 1, 0], values[2, 2, 1] = np.nan, np.nan, np.inf
    path = write(tmp_path / "a.tif", text(42113, "nan"), values=values, planarconfig="contig")
    expected = torch.ones(H, W, dtype=torch.bool)
    expected[[0, 1, 2], [0, 1, 2]] = False
    assert torch.equal(valid_of(path), expected)
    # An integer is never NaN, and 300 is no value of 8 bits.
    assert read_image(write(tmp_path / "b.tif", text(42113, "nan"))).valid is None
    assert read_image(write(tmp_path / "b.tif", text(42113, "300"))).valid is None
    assert read_image(write(tmp_path / "b.tif", text(42113, "0.5"))).valid is None


def test_nodata_with_more_digits_than_float32(tmp_path: Path) -> None:
    values = np.ones((H, W), dtype=np.float32)
    values[0], values[1] = np.finfo(np.float32).min, np.float32(0.1)
    path = write(tmp_path / "a.tif", text(42113, "-3.4028234663852886e+38"), values=values)
    assert valid_of(path).sum(1).tolist() == [0, W, W, W, W, W]
    path = write(tmp_path / "a.tif", text(42113, "0.1"), values=values)
    assert valid_of(path).sum(1).tolist() == [W, 0, W, W, W, W]


PLACES = {
    "scale": (SCALE, TIEPOINT, UTM33),
    "point": (SCALE, TIEPOINT, keys((1024, 0, 1, 1), (1025, 0, 1, 2), (3072, 0, 1, 32633))),
    "matrix": (MATRIX, keys((1024, 0, 1, 2), (2048, 0, 1, 4326)), text(42113, "nan")),
    "texts": (
        SCALE,
        TIEPOINT,
        keys((1024, 0, 1, 1), (2057, 34736, 1, 1), (3072, 0, 1, 32767), (3073, 34737, 12, 0)),
        (34736, DOUBLE, 2, (0.1, 6378137.123456789), True),
        text(34737, "UTM b\xe9 hand|\0 more|"),
        text(42113, "-9999"),
    ),
    "nodata": (text(42113, " 7"),),
    "no place": (),
}


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("place", PLACES)
def test_tags_come_back_bit_for_bit(tmp_path: Path, place: str, byteorder: str) -> None:
    """Read, written, read: the same place; and the same bytes in each tag."""
    values = torch.rand(2, H, W)
    source = write(tmp_path / "a.tif", *PLACES[place], byteorder=byteorder)
    geo = read_image(source).geo
    assert geo == read_geo(source)
    write_geotiff(tmp_path / "b.tif", values, geo)
    found = read_image(tmp_path / "b.tif")
    assert found.geo == geo
    assert torch.equal(found.image, values)
    assert raw_tags(tmp_path / "b.tif") == raw_tags(write(tmp_path / "c.tif", *PLACES[place], byteorder="<"))
    assert set(raw_tags(tmp_path / "b.tif")) == {tag[0] for tag in PLACES[place]}


DTYPES = [torch.uint8, torch.uint16, torch.int8, torch.int16, torch.int32, torch.float32, torch.float64]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_values_come_back(tmp_path: Path, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=3))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    low = 0 if dtype in (torch.uint8, torch.uint16) else -100
    values = torch.randint(low, 100, shape, generator=generator).to(dtype)
    write_geotiff(tmp_path / "a.tif", values)
    back = torch.from_numpy(tifffile.imread(tmp_path / "a.tif"))
    assert back.dtype == dtype
    assert torch.equal(read_image(tmp_path / "a.tif").image.double(), values.reshape(-1, *shape[-2:]).double())


def test_types_that_change(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for values, dtype in (
        (torch.eye(4, dtype=torch.bool), np.uint8),
        (torch.tensor([[-(2**31), 2**31 - 1]]), np.int32),
        (torch.tensor([[-(2**31) - 1, 5]]), np.int64),
        (torch.tensor([[0.5, 1.5]], dtype=torch.float16), np.float32),
        (torch.tensor([[0.5, 1.5]], dtype=torch.bfloat16), np.float32),
    ):
        write_geotiff(path, values)
        back = tifffile.imread(path)
        assert back.dtype == dtype
        assert back.tolist() == values.tolist()
    write_geotiff(path, torch.tensor([[1, 2]]), nodata=2**40)
    assert tifffile.imread(path).dtype == np.int64
    write_geotiff(path, torch.ones(2, 2, requires_grad=True))
    assert tifffile.imread(path).sum() == 4


def test_labels_with_nodata(tmp_path: Path) -> None:
    labels = torch.arange(H * W).reshape(H, W) % 5
    valid = torch.arange(H)[:, None].expand(H, W) > 1
    geo = read_geo(write(tmp_path / "a.tif", SCALE, TIEPOINT, UTM33, text(42113, "0")))
    write_geotiff(tmp_path / "b.tif", labels, geo, nodata=255, valid=valid)
    found = read_image(tmp_path / "b.tif")
    assert torch.equal(valid_of(tmp_path / "b.tif"), valid)
    assert torch.equal(read_labels(tmp_path / "b.tif"), labels.where(valid, 255))
    before, after = json.loads(geo), json.loads(found.geo)
    assert after["nodata"] == 255 and after["transform"] == before["transform"] and after["crs"] == before["crs"]
    # Class 0 and nodata 0 could not be told apart.
    with pytest.raises(ValueError, match=r"got 4 valid pixels that hold nodata=0, expected another nodata"):
        write_geotiff(tmp_path / "b.tif", labels, geo, valid=valid)
    assert read_image(tmp_path / "b.tif").geo == found.geo


@pytest.mark.parametrize("nodata", [float("nan"), -1.5, -3.4028234663852886e38, float("inf")])
def test_channels_with_nodata(tmp_path: Path, nodata: float) -> None:
    values, valid = torch.rand(3, H, W), torch.rand(H, W) > 0.3
    kept = values.clone()
    write_geotiff(tmp_path / "a.tif", values, nodata=nodata, valid=valid)
    found = read_image(tmp_path / "a.tif")
    assert torch.equal(valid_of(tmp_path / "a.tif"), valid)
    assert torch.equal(found.image[:, valid], values[:, valid])
    assert torch.equal(values, kept)


def test_photographs_are_colour(tmp_path: Path) -> None:
    """Other programs show it in colour, and as it is."""
    image = pytest.importorskip("PIL.Image")
    values = torch.randint(256, (3, H, W), dtype=torch.uint8)
    write_geotiff(tmp_path / "a.tif", values)
    shown = image.open(tmp_path / "a.tif")
    assert shown.mode == "RGB"
    assert np.array_equal(np.asarray(shown), values.permute(1, 2, 0).numpy())


def test_orientation_does_not_turn_a_map(tmp_path: Path) -> None:
    values = np.arange(H * W, dtype=np.uint8).reshape(H, W)
    turn = (274, SHORT, 1, 3, True)
    assert torch.equal(
        read_labels(write(tmp_path / "a.tif", turn)), torch.from_numpy(values[::-1, ::-1].astype(np.int64))
    )
    placed = write(tmp_path / "a.tif", turn, SCALE, TIEPOINT)
    assert torch.equal(read_labels(placed), torch.from_numpy(values.astype(np.int64)))


def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    write_geotiff(path, torch.ones(H, W))
    before = path.read_bytes()

    def half(file: IO[bytes], *args: object, **options: Any) -> None:
        file.write(before[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", half)
    with pytest.raises(OSError, match=r"No space left"):
        write_geotiff(path, torch.zeros(H, W))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_geotiff(tmp_path / "none" / "a.tif", torch.zeros(H, W))


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (torch.zeros(3), {}, r"got shape \[3\] for values, expected \[H, W\]"),
        (torch.zeros(0, 3), {}, r"got shape \[0, 3\] for values, expected \[H, W\]"),
        (torch.zeros(2, 3), {"geo": "{"}, r"got geo='\{', expected what read_geo"),
        (torch.zeros(2, 3), {"geo": "[1]"}, r"got geo='\[1\]', expected what read_geo"),
        (torch.zeros(2, 3), {"geo": '{"tags": {"5": [1]}, "nodata": null}'}, "got tag 5 in geo, expected those of"),
        (torch.zeros(2, 3), {"geo": '{"tags": {"33550": "a"}, "nodata": null}'}, "got tag 33550 in geo, expected"),
        (torch.zeros(2, 3).byte(), {"nodata": 256}, "got nodata=256, expected a value of uint8"),
        (torch.zeros(2, 3).byte(), {"nodata": 0.5}, r"got nodata=0.5, expected a value of uint8"),
        (torch.zeros(2, 3).int(), {"nodata": float("nan")}, "got nodata=nan, expected a value of int"),
        (torch.zeros(2, 3), {"valid": torch.zeros(2, 3).bool()}, "got 6 pixels that are not valid and no nodata"),
        (torch.zeros(2, 3), {"valid": torch.zeros(3, 2).bool()}, r"got shape \[3, 2\] for valid, expected \[2, 3\]"),
    ],
)
def test_refused(tmp_path: Path, values: torch.Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_geotiff(tmp_path / "a.tif", values, **options)
    assert not list(tmp_path.iterdir())


def test_refused_types(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"got list for values, expected a torch.Tensor"):
        write_geotiff(tmp_path / "a.tif", cast(torch.Tensor, [[1]]))
    with pytest.raises(TypeError, match=r"got dtype torch.complex64 for values"):
        write_geotiff(tmp_path / "a.tif", torch.zeros(2, 3, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"got dtype torch.float32 for valid, expected torch.bool"):
        write_geotiff(tmp_path / "a.tif", torch.zeros(2, 3), nodata=1, valid=torch.zeros(2, 3))


@pytest.mark.parametrize("place", ["scale", "point", "matrix"])
def test_a_window_lies_where_its_pixels_lie(tmp_path: Path, place: str) -> None:
    source = write(tmp_path / "a.tif", *PLACES[place])
    part = read_image(source, window=(2, 1, 3, 4))
    a, b, c, d, e, f = json.loads(read_geo(source))["transform"]
    moved = json.loads(part.geo)["transform"]
    for column, row in ((0, 0), (3, 2)):  # the same pixel, counted from the window's corner and from the file's
        x, y = a * (column + 1) + b * (row + 2) + c, d * (column + 1) + e * (row + 2) + f
        assert (moved[0] * column + moved[1] * row + moved[2], moved[3] * column + moved[4] * row + moved[5]) == (x, y)
    write_geotiff(tmp_path / "b.tif", torch.rand(3, 4), part.geo)  # its tags say the same
    assert json.loads(read_geo(tmp_path / "b.tif"))["transform"] == moved
    assert json.loads(read_geo(tmp_path / "b.tif"))["crs"] == json.loads(part.geo)["crs"]


def test_rasterio_agrees(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    for place in ("scale", "point", "matrix"):
        source = write(tmp_path / "a.tif", *PLACES[place])
        write_geotiff(tmp_path / "b.tif", torch.rand(2, H, W), read_geo(source))
        geo = json.loads(read_geo(source))
        for path in (source, tmp_path / "b.tif"):
            with rasterio.open(path) as file:
                assert list(file.transform)[:6] == geo["transform"]
                assert file.crs.to_string() == geo["crs"]
