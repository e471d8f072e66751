"""read_image, read_labels, read_colors: against arrays that were written by Pillow, tifffile, NumPy and by hand."""

from __future__ import annotations

import functools
import io
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage.color import rgb2lab

from graphseg.datasets.image_file import IMAGE_SUFFIXES, MAX_PIXELS, read_colors, read_image, read_labels

H, W = 23, 31


def noise(*shape: int, dtype: str = "u1", seed: int = 0) -> np.ndarray:
    """Numbers over the whole range of an integer type, or around 0."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    bounds, native = np.iinfo(dtype), np.dtype(dtype).newbyteorder("=")
    return rng.integers(bounds.min, bounds.max, shape, dtype=native, endpoint=True).astype(dtype)


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: bytes, width: int, height: int, bits: int, color: int, *more: bytes) -> bytes:
    """A PNG file by the letter of its specification; `more` stands before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png16(values: np.ndarray, *more: bytes) -> bytes:
    """`[H, W, C]` uint16 as PNG, every filter in turn."""
    height, width, C = values.shape
    raw = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(height, width * C * 2).astype(int)
    step, above, rows = 2 * C, np.zeros(width * C * 2, dtype=int), b""
    for y, row in enumerate(raw):
        left = np.concatenate([np.zeros(step, dtype=int), row[:-step]])
        corner = np.concatenate([np.zeros(step, dtype=int), above[:-step]])
        p = left + above - corner
        near = np.stack([abs(p - left), abs(p - above), abs(p - corner)]).argmin(0)  # ties: left, above, corner
        paeth = np.choose(near, [left, above, corner])
        guess = [np.zeros_like(row), left, above, (left + above) // 2, paeth][y % 5]
        rows += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return png(rows, width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[C], *more)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def same(image: torch.Tensor | None, expected: np.ndarray) -> None:
    """Equal in shape, type and every pixel."""
    assert image is not None
    torch.testing.assert_close(image, torch.from_numpy(np.array(expected, order="C")), rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------- PNG and Pillow


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("picture", ["astronaut", "coffee", "chelsea", "coins"])
def test_photographs_come_back(tmp_path: Path, picture: str, suffix: str) -> None:
    values = getattr(skimage.data, picture)()
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(values), lossless=True)
    found = read_image(path)
    expected = values if values.ndim == 3 else values[..., None]
    if suffix == "webp" and values.ndim == 2:
        expected = np.repeat(expected, 3, axis=2)  # the format knows colour only
    same(found.image, np.moveaxis(expected, -1, 0))
    assert found.valid is None and found.geo == ""


def test_jpeg_is_what_pillow_shows(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(skimage.data.chelsea()), quality=80)
    same(read_image(path).image, np.moveaxis(np.asarray(Image.open(path)), -1, 0))
    path = saved(tmp_path / "b.jpg", Image.fromarray(skimage.data.coins()))
    same(read_image(path).image, np.asarray(Image.open(path))[None])


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    picture = Image.fromarray(skimage.data.astronaut())
    path = saved(tmp_path / "a.jpg", picture.convert("CMYK"), quality=95)
    difference = read_image(path).image.permute(1, 2, 0).numpy().astype(int) - skimage.data.astronaut()
    assert read_image(path).image.dtype == torch.uint8 and abs(difference).mean() < 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_modes_of_png(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        values = noise(H, W, dtype="u2")
        picture, expected = Image.fromarray(values), values[None]
    else:
        picture = Image.fromarray(noise(H, W, 4)).convert("RGB" if mode == "P" else mode)
        picture = picture.quantize(7) if mode == "P" else picture
        shown = picture.convert({"1": "L", "LA": "L", "P": "RGB", "RGBA": "RGB"}.get(mode, mode))
        expected = np.atleast_3d(np.asarray(shown))
        expected = np.moveaxis(expected, -1, 0)
    found = read_image(saved(tmp_path / "a.png", picture))
    same(found.image, expected)
    if mode in ("LA", "RGBA"):
        alpha = np.asarray(picture)[..., -1]
        assert (alpha == 0).any()
        same(found.valid, alpha > 0)
    else:
        assert found.valid is None


@pytest.mark.parametrize("C", [1, 2, 3, 4])
def test_png_of_16_bits(tmp_path: Path, C: int) -> None:
    values = noise(H, W, C, dtype="u2")
    values[3:5, 4:9, -1] = 0
    path = tmp_path / "a.png"
    path.write_bytes(png16(values))
    found = read_image(path)
    if C in (2, 4):
        same(found.image, np.moveaxis(values[..., :-1], -1, 0))
        same(found.valid, values[..., -1] > 0)
    else:
        same(found.image, np.moveaxis(values, -1, 0))
        assert found.valid is None
    same(read_image(path, window=(2, 3, 5, 7)).image, found.image[:, 2:7, 3:10].numpy())
    same(read_image(path, keep_alpha=True).image, np.moveaxis(values, -1, 0))


def test_png_of_16_bits_as_pypng_writes_it(tmp_path: Path) -> None:
    pypng = pytest.importorskip("png")
    values = noise(H, W, 3, dtype="u2")
    for interlace in (False, True):
        with open(tmp_path / "a.png", "wb") as file:
            writer = pypng.Writer(W, H, greyscale=False, bitdepth=16, interlace=interlace)
            writer.write(file, values.reshape(H, -1).tolist())
        same(read_image(tmp_path / "a.png").image, np.moveaxis(values, -1, 0))


def test_colour_that_is_transparent(tmp_path: Path) -> None:
    values = noise(H, W, 3, dtype="u2")
    values[:4] = (1, 2, 515)
    values[4:8] = (1, 2, 3)  # the same first and other second byte
    path = tmp_path / "a.png"
    path.write_bytes(png16(values, chunk(b"tRNS", struct.pack(">HHH", 1, 2, 515))))
    same(read_image(path).valid, np.arange(H)[:, None].repeat(W, 1) >= 4)
    grey = noise(H, W)
    same(read_image(saved(path, Image.fromarray(grey), transparency=7)).valid, grey != 7)
    color = noise(H, W, 3) // 64
    same(read_image(saved(path, Image.fromarray(color), transparency=(1, 2, 3))).valid, (color != (1, 2, 3)).any(-1))


@pytest.mark.parametrize("transparency", [3, bytes([255, 0, 9, 0])])
def test_palette(tmp_path: Path, transparency: int | bytes) -> None:
    indices = noise(H, W) % 6
    picture = Image.fromarray(indices).convert("P")
    colors = noise(6, 3)
    picture.putpalette(colors.tobytes())
    path = saved(tmp_path / "a.png", picture, transparency=transparency)
    found = read_image(path)
    same(found.image, np.moveaxis(colors[indices], -1, 0))
    hidden = [3] if transparency == 3 else [1, 3]
    same(found.valid, ~np.isin(indices, hidden))
    same(read_labels(path), indices.astype(np.int64))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits(tmp_path: Path, bits: int) -> None:
    values = noise(H, W) % (1 << bits)
    spread = ((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(H, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in spread)
    path = tmp_path / "a.png"
    path.write_bytes(png(rows, W, H, bits, 0))
    same(read_labels(path), values.astype(np.int64))
    same(read_image(path).image, (values * (255 // ((1 << bits) - 1)))[None].astype(np.uint8))
    path.write_bytes(png(rows, W, H, bits, 0, chunk(b"tRNS", struct.pack(">H", 1))))
    same(read_image(path).valid, values != 1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    picture = Image.fromarray(skimage.data.coffee()[:40, :60])
    exif = Image.Exif()
    exif[274] = orientation
    path = saved(tmp_path / f"a.{suffix}", picture, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    found = read_image(path).image
    same(found, np.moveaxis(shown, -1, 0))
    height, width = shown.shape[:2]
    assert (height, width) == ((60, 40) if orientation > 4 else (40, 60))
    part = read_image(path, window=(height - 20, 3, 20, 30)).image
    same(part, found[:, height - 20 :, 3:33].numpy())


def test_png_of_16_bits_is_turned(tmp_path: Path) -> None:
    values = noise(H, W, 3, dtype="u2")
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "a.png"
    path.write_bytes(png16(values, chunk(b"eXIf", exif.tobytes()[6:])))
    same(read_image(path).image, np.moveaxis(np.rot90(values, -1), -1, 0))


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(noise(H, W, 3, seed=seed)) for seed in range(3)]
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(path) as written:
        written.seek(2)  # there are three
    same(read_image(path).image, np.moveaxis(np.asarray(frames[0]), -1, 0))


# ------------------------------------------------------------------------------------------------------ channels


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_channels(tmp_path: Path, dtype: str) -> None:
    color, grey = noise(H, W, 3, dtype=dtype), noise(H, W, dtype=dtype)
    np.save(tmp_path / "color.npy", color)
    np.save(tmp_path / "grey.npy", grey)
    same(read_image(tmp_path / "color.npy", channels=3).image, np.moveaxis(color, -1, 0))
    same(read_image(tmp_path / "grey.npy", channels=1).image, grey[None])
    same(read_image(tmp_path / "grey.npy", channels=3).image, np.stack([grey] * 3))
    luma = color.astype(np.float64) @ [0.299, 0.587, 0.114]
    found = read_image(tmp_path / "color.npy", channels=1).image
    assert found.shape == (1, H, W)
    # Half an integer off by rounding, and no more; floating-point to its last digits.
    limit = 0.5 + 1e-6 if dtype[0] == "u" else float(4 * np.finfo(dtype).eps * abs(color).max())
    assert abs(found[0].numpy().astype(np.float64) - luma).max() <= limit


def test_grey_of_grey_is_itself(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    path = saved(tmp_path / "a.png", Image.fromarray(grey))
    same(read_image(path, channels=1).image, grey[None, ..., 0])


@pytest.mark.parametrize("C", [2, 4, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_cannot_be(tmp_path: Path, C: int, channels: int) -> None:
    np.save(tmp_path / "a.npy", noise(C, H, W))
    with pytest.raises(ValueError, match=rf"a.npy: got {C} channels, expected 1 or 3"):
        read_image(tmp_path / "a.npy", channels=channels)
    assert read_image(tmp_path / "a.npy").image.shape == (C, H, W)


# ---------------------------------------------------------------------------------------------------------- NumPy


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i1", "i2", ">i4", "u4", "i8", "u8", "f2", "f4", ">f4", "f8"])
def test_types_of_npy(tmp_path: Path, dtype: str) -> None:
    values = noise(H, W, dtype=dtype)
    np.save(tmp_path / "a.npy", values)
    kept = np.dtype(dtype).newbyteorder("=")
    kept = kept if kept in (np.uint8, np.uint16, np.float32, np.float64) else np.dtype(np.float32)
    for window, part in ((None, np.s_[:]), ((1, 2, 3, 4), np.s_[1:4, 2:6])):
        same(read_image(tmp_path / "a.npy", window=window).image, values[part][None].astype(kept))


def test_bool_npy(tmp_path: Path) -> None:
    values = noise(H, W) > 99
    np.save(tmp_path / "a.npy", values)
    same(read_image(tmp_path / "a.npy").image, values[None].astype(np.uint8) * 255)
    same(read_labels(tmp_path / "a.npy"), values.astype(np.int64))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((H, W), None),
        ((1, H, W), 0),
        ((4, H, W), 0),
        ((H, W, 1), 2),
        ((H, W, 4), 2),
        ((4, 5, 5), 0),
        ((5, 3, 4), 2),
        ((11, H, W), 0),
        ((H, W, 11), 2),
        ((103, 340, 210), 0),
        ((2, 5, 1), "both"),
        ((20, H, W), "both"),
        ((30, 30, 40), "both"),
        ((40, 30, 30), "both"),
        ((5, 1, 5), "both"),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_of_npy(tmp_path: Path, shape: tuple[int, ...], axis: int | str | None, order: Literal["C", "F"]) -> None:
    values = np.asarray(noise(*shape), order=order)
    np.save(tmp_path / "a.npy", values)
    if axis == "both":
        with pytest.raises(ValueError, match=r"a.npy: got an array of shape .* may be \[C, H, W\] or \[H, W, C\]"):
            read_image(tmp_path / "a.npy")
        return
    found = read_image(tmp_path / "a.npy").image
    same(found, np.moveaxis(values, axis, 0) if isinstance(axis, int) else values[None])


# ----------------------------------------------------------------------------------------------------------- TIFF

LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {"photometric": "minisblack", "planarconfig": "contig"},
    "separate": {"photometric": "minisblack", "planarconfig": "separate"},
    "strips": {"photometric": "minisblack", "planarconfig": "contig", "rowsperstrip": 5},
    "tiles": {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16)},
    "separate tiles": {"photometric": "minisblack", "planarconfig": "separate", "tile": (16, 32)},
    "deflate": {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib", "rowsperstrip": 4},
    "deflate tiles": {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib", "tile": (16, 16)},
    "lzma": {"photometric": "minisblack", "planarconfig": "separate", "compression": "lzma"},
    "big endian": {"photometric": "minisblack", "planarconfig": "contig", "byteorder": ">"},
    "BigTIFF": {"photometric": "minisblack", "planarconfig": "contig", "bigtiff": True},
    "no description": {"photometric": "minisblack", "planarconfig": "contig", "metadata": None},
    "pages": {"photometric": "minisblack"},
    "plain pages": {"photometric": "minisblack", "metadata": None},
    "deflated pages": {"photometric": "minisblack", "compression": "zlib"},
}


@pytest.mark.parametrize(
    ("C", "dtype"),
    [(1, "u1"), (1, "f8"), (2, "i2"), (3, "u1"), (3, "u2"), (4, "u2"), (9, "u4"), (13, "u2"), (200, "f4")],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_tiff(tmp_path: Path, layout: str, C: int, dtype: str) -> None:
    values = noise(C, H, W, dtype=dtype)
    options = LAYOUTS[layout]
    if options.get("planarconfig") == "contig":
        tifffile.imwrite(tmp_path / "a.tif", values[0] if C == 1 else np.moveaxis(values, 0, -1), **options)
    else:
        tifffile.imwrite(tmp_path / "a.tif", values[0] if C == 1 else values, **options)
    found = read_image(tmp_path / "a.tif")
    same(found.image, values if dtype in ("u1", "u2", "f4", "f8") else values.astype(np.float32))
    part = read_image(tmp_path / "a.tif", window=(4, 9, 13, 20)).image
    same(part, found.image[:, 4:17, 9:29].numpy())


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (1, 7, 3), (7, 1, 3), (1, 1, 5)])
def test_thin_tiff(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = noise(*shape)
    planar = "contig" if len(shape) == 3 else None
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig=planar, metadata=None)
    same(read_image(tmp_path / "a.tif").image, np.moveaxis(values.reshape(*shape[:2], -1), -1, 0))


def test_array_of_many_channels_last_written_as_pages(tmp_path: Path) -> None:
    values = noise(H, W, 9)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    same(read_image(tmp_path / "a.tif").image, np.moveaxis(values, -1, 0))


@pytest.mark.parametrize("axes", ["CYX", "TYX", "ZYX"])
def test_stack_with_named_axes(tmp_path: Path, axes: str) -> None:
    values = noise(5, H, W, dtype="u2")
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata={"axes": axes})
    same(read_image(tmp_path / "a.tif").image, values)
    tifffile.imwrite(tmp_path / "a.ome.tif", values, metadata={"axes": axes})
    same(read_image(tmp_path / "a.ome.tif").image, values)


def test_stack_of_stacks_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(2, 5, H, W), photometric="minisblack", metadata={"axes": "TCYX"})
    with pytest.raises(ValueError, match=r"a.tif: got a TIFF of axes TCYX .* expected Y, X and one for the channels"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero(tmp_path: Path, compression: str | None) -> None:
    for values in (noise(H, W), noise(H, W, dtype="u2")):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", compression=compression)
        same(read_image(tmp_path / "a.tif").image, ~values[None])
        same(read_labels(tmp_path / "a.tif"), values.astype(np.int64))


def test_tiff_of_one_bit(tmp_path: Path) -> None:
    values = noise(H, W) > 99
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    same(read_image(tmp_path / "a.tif").image, values[None].astype(np.uint8) * 255)
    same(read_labels(tmp_path / "a.tif"), values.astype(np.int64))
    for compression in ("group4", "packbits", "tiff_lzw"):
        saved(tmp_path / "b.tif", Image.fromarray(values), compression=compression)
        same(read_image(tmp_path / "b.tif").image, values[None].astype(np.uint8) * 255)


def test_palette_of_tiff(tmp_path: Path) -> None:
    indices, colors = noise(H, W), noise(3, 256)
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=colors.astype(np.uint16) * 257)
    same(read_image(tmp_path / "a.tif").image, colors[:, indices])
    same(read_labels(tmp_path / "a.tif"), indices.astype(np.int64))


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_alpha_of_tiff(tmp_path: Path, planarconfig: str) -> None:
    values = noise(H, W, 4, dtype="u2")
    values[2:4, :, 3] = 0
    stored = values if planarconfig == "contig" else np.moveaxis(values, -1, 0)
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planarconfig}
    tifffile.imwrite(tmp_path / "a.tif", stored, extrasamples=["unassalpha"], **options)
    for window, part in ((None, np.s_[:, :]), ((1, 2, 8, 9), np.s_[1:9, 2:11])):
        found = read_image(tmp_path / "a.tif", window=window)
        same(found.image, np.moveaxis(values[part][..., :3], -1, 0))
        same(found.valid, values[part][..., 3] > 0)
        kept = read_image(tmp_path / "a.tif", window=window, keep_alpha=True)
        same(kept.image, np.moveaxis(values[part], -1, 0))
        assert kept.valid is None
    tifffile.imwrite(tmp_path / "b.tif", stored, extrasamples=["unspecified"], **options)
    same(read_image(tmp_path / "b.tif").image, np.moveaxis(values, -1, 0))
    assert read_image(tmp_path / "b.tif").valid is None


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16", "F", "P", "CMYK", "YCbCr"])
@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_tiff_that_pillow_writes(tmp_path: Path, mode: str, compression: str) -> None:
    if mode in ("I;16", "F"):
        picture = Image.fromarray(noise(H, W, dtype="u2" if mode == "I;16" else "f4"))
        expected = np.asarray(picture)[None]
    else:
        picture = Image.fromarray(skimage.data.astronaut()[100:140, 200:260]).convert(mode)
        if mode in ("RGBA", "LA"):
            picture.putalpha(Image.fromarray(noise(40, 60) // 99 * 9))
        shown = picture.convert({"LA": "L", "L": "L"}.get(mode, "RGB"))
        expected = np.moveaxis(np.atleast_3d(np.asarray(shown)), -1, 0)
    found = read_image(saved(tmp_path / "a.tif", picture, compression=compression))
    if mode == "YCbCr":  # of which Pillow and libtiff round the last digit each in its own way
        assert abs(found.image.numpy().astype(int) - expected).max() <= 1
    else:
        same(found.image, expected)
    assert (found.valid is not None) == (mode in ("LA", "RGBA"))


def test_jpeg_in_tiff(tmp_path: Path) -> None:
    values = skimage.data.astronaut()
    path = saved(tmp_path / "a.tif", Image.fromarray(values), compression="jpeg", quality=95)
    assert abs(read_image(path).image.permute(1, 2, 0).numpy().astype(int) - values).mean() < 3


def test_lab_tiff_becomes_rgb(tmp_path: Path) -> None:
    values = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((32, 32)))
    L, a, b = np.moveaxis(rgb2lab(values), -1, 0)
    stored = np.stack([L * 2.55, a % 256, b % 256], -1).round().astype(np.uint8)  # two's complement
    path = saved(tmp_path / "a.tif", Image.frombytes("LAB", (32, 32), stored.tobytes()))
    difference = read_image(path).image.permute(1, 2, 0).numpy().astype(int) - values
    assert abs(difference).mean() < 3


def test_pages_with_lzw(tmp_path: Path) -> None:
    values = noise(5, H, W)
    frames = [Image.fromarray(page) for page in values]
    saved(tmp_path / "a.tif", frames[0], save_all=True, append_images=frames[1:], compression="tiff_lzw")
    same(read_image(tmp_path / "a.tif").image, values)


def test_overviews_and_other_pages_are_left_out(tmp_path: Path) -> None:
    values = noise(32, 64, dtype="u2")
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values, subifds=1, tile=(16, 16))
        writer.write(values[::2, ::2], subfiletype=1, tile=(16, 16))
    same(read_image(tmp_path / "a.tif").image, values[None])
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(values, metadata=None, tile=(16, 16), compression="zlib")
        writer.write(values[::2, ::2], subfiletype=1, metadata=None, tile=(16, 16), compression="zlib")
    same(read_image(tmp_path / "b.tif").image, values[None])


def test_mask_page(tmp_path: Path) -> None:
    values, mask = noise(H, W), noise(H, W, seed=1) > 99
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values, metadata=None)
        writer.write(mask, subfiletype=4, photometric="mask", metadata=None)
    found = read_image(tmp_path / "a.tif")
    same(found.image, values[None])
    same(found.valid, mask)
    same(read_image(tmp_path / "a.tif", window=(3, 4, 5, 6)).valid, mask[3:8, 4:10])


def lzw(data: bytes) -> bytes:
    """TIFF's LZW in its plainest form: single bytes in 9 bits, the table cleared before it would need more."""
    codes = [code for i in range(0, len(data), 200) for code in (256, *data[i : i + 200])] + [257]
    return np.packbits(np.array([code >> np.arange(9)[::-1] & 1 for code in codes], dtype=np.uint8)).tobytes()


@pytest.mark.parametrize(
    ("C", "dtype"), [(1, "u1"), (3, "u1"), (4, "u1"), (1, "u2"), (1, "f4"), (3, "u2"), (4, "u2"), (5, "u1")]
)
def test_lzw(tmp_path: Path, C: int, dtype: str) -> None:
    """The commonest compression of GeoTIFF: what Pillow reads in full, and what it does not."""
    values = noise(H, W, C, dtype=dtype)
    bits, kind = 8 * values.itemsize, 3 if dtype[0] == "f" else 1
    strip, extra = lzw(values.tobytes()), max(C - 3, 0)
    tags = [(256, 4, [W]), (257, 4, [H]), (258, 3, [bits] * C), (259, 3, [5]), (262, 3, [2 if C > 1 else 1])]
    tags += [(273, 4, [1000]), (277, 3, [C]), (278, 4, [H]), (279, 4, [len(strip)])]
    tags += [(338, 3, [0] * extra)] * bool(extra) + [(339, 3, [kind] * C)]
    entries, lists = b"", b""
    for tag, code, numbers in tags:
        body = struct.pack(f"<{len(numbers)}{'H' if code == 3 else 'I'}", *numbers)
        if len(body) > 4:
            lists, body = lists + body, struct.pack("<I", 500 + len(lists))
        entries += struct.pack("<HHI", tag, code, len(numbers)) + body.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    path = tmp_path / "a.tif"
    path.write_bytes((head.ljust(500, b"\0") + lists).ljust(1000, b"\0") + strip)
    if C <= 4 and (C == 1 or dtype == "u1"):
        same(read_image(path).image, np.moveaxis(values, -1, 0))
        return
    with pytest.raises(ValueError, match=f"a.tif: got a TIFF of {C} channels of {bits} bits with LZW .*imagecodecs"):
        read_image(path)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [2, 4])
def test_tiff_of_few_bits(tmp_path: Path, bits: int, photometric: int) -> None:
    values = noise(H, W) % (1 << bits)
    spread = ((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(H, -1)
    strip = b"".join(np.packbits(row).tobytes() for row in spread)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(H, W, strip, bits=bits, compression=1, photometric=photometric))
    same(read_labels(path), values.astype(np.int64))
    shown = (values * (255 // ((1 << bits) - 1)))[None].astype(np.uint8)
    same(read_image(path).image, shown if photometric else 255 - shown)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4"])
def test_predictor(tmp_path: Path, dtype: str) -> None:
    values = noise(H, W, 3, dtype=dtype)
    options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "predictor": True, "tile": (16, 16)}
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    same(read_image(tmp_path / "a.tif").image, np.moveaxis(values.astype("f4" if dtype == "i4" else dtype), -1, 0))


def test_pages_in_a_ring(tmp_path: Path) -> None:
    """The second page says that the first one follows it."""
    tifffile.imwrite(tmp_path / "a.tif", noise(2, H, W), photometric="minisblack", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        (first, second), count = (page.offset for page in tif.pages), len(tif.pages[1].aspage().tags)
    place = second + 2 + 12 * count
    assert data[place : place + 4] == bytes(4)
    data[place : place + 4] = struct.pack("<I", first)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.tif: got a damaged TIFF file whose page 2 comes before"):
        read_image(tmp_path / "a.tif")


def test_compression_that_nobody_decodes(tmp_path: Path) -> None:
    values = noise(H, W, 5, dtype="u2")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    entry = data.index(struct.pack("<HHI", 259, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack("<H", 34887)  # LERC
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.tif: got a TIFF of 5 channels of 16 bits with LERC .*imagecodecs"):
        read_image(tmp_path / "a.tif")


# --------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "u4", "i8"])
def test_labels(tmp_path: Path, dtype: str) -> None:
    values = noise(H, W, dtype=dtype)
    np.save(tmp_path / "a.npy", values)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib")
    for path in (tmp_path / "a.npy", tmp_path / "a.tif"):
        same(read_labels(path), values.astype(np.int64))
        same(read_labels(path, window=(3, 4, 5, 6)), values[3:8, 4:10].astype(np.int64))


def test_labels_of_three_equal_channels_and_alpha(tmp_path: Path) -> None:
    values = noise(H, W)
    same(read_labels(saved(tmp_path / "a.png", Image.fromarray(np.stack([values] * 3, -1)))), values.astype(np.int64))
    picture = Image.fromarray(np.stack([values] * 3 + [~values], -1))
    same(read_labels(saved(tmp_path / "a.png", picture)), values.astype(np.int64))


def test_labels_in_floating_point(tmp_path: Path) -> None:
    values = noise(H, W).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    same(read_labels(tmp_path / "a.npy"), values.astype(np.int64))
    for wrong in (0.5, np.nan, np.inf, 1e19):
        values[2, 3] = wrong
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(ValueError, match=r"a.npy: got 1 labels that are not whole numbers, .* expected integers"):
            read_labels(tmp_path / "a.npy")


def test_labels_past_int64(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 2), 2**63, dtype=np.uint64))
    with pytest.raises(ValueError, match=rf"got label {2**63}, expected less"):
        read_labels(tmp_path / "a.npy")


def test_colours_are_no_labels(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", Image.fromarray(noise(H, W, 3)))
    with pytest.raises(ValueError, match=r"a.png: got 3 channels for labels, expected one number a pixel.*read_colors"):
        read_labels(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", noise(H, W, 2))
    with pytest.raises(ValueError, match=r"a.npy: got 2 channels for labels, expected one"):
        read_labels(tmp_path / "a.npy")


POTSDAM = {(255, 255, 255): 0, (0, 0, 255): 1, (0, 255, 255): 2, (0, 255, 0): 3, (255, 255, 0): 4, (255, 0, 0): 5}


def test_colours(tmp_path: Path) -> None:
    classes = noise(H, W).astype(np.int64) % 6
    colors = np.array(list(POTSDAM), dtype=np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(colors[classes]))
    same(read_colors(path, POTSDAM), classes)
    same(read_colors(path, POTSDAM, window=(3, 4, 5, 6)), classes[3:8, 4:10])
    same(read_colors(saved(path, Image.fromarray(colors[classes]).quantize(6)), POTSDAM), classes)
    saved(path, Image.fromarray(classes.astype(np.uint8)))
    same(read_colors(path, {(i, i, i): -i for i in range(6)}), -classes)


def test_colours_that_are_unknown(tmp_path: Path) -> None:
    values = np.zeros((H, W, 3), dtype=np.uint8)
    values[:2, :5] = (1, 2, 3)
    values[9, 9] = (255, 255, 254)
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    with pytest.raises(ValueError, match=r"a.png: got colour \(1, 2, 3\) in 10 pixels and 1 other colours, expected"):
        read_colors(path, {(0, 0, 0): 0, (1, 2, 4): 2})
    path.write_bytes(png16(noise(H, W, 3, dtype="u2")))
    with pytest.raises(ValueError, match=r"a.png: got uint16 for colours, expected 8 bits"):
        read_colors(path, POTSDAM)


@pytest.mark.parametrize("colors", [{}, {(0, 0): 1}, {(0, 0, 256): 1}, {(0, 0, 0.5): 1}, {(0, 0, 0): 1.5}])
def test_colours_that_are_none(tmp_path: Path, colors: dict) -> None:
    with pytest.raises(ValueError, match=r"colors, expected"):
        read_colors(tmp_path / "a.png", colors)


# -------------------------------------------------------------------------------------------------------- windows


def files(folder: Path) -> Iterator[Path]:
    """The same photograph in every format, compressed and not."""
    values = skimage.data.coffee()[:60, :80]
    for suffix in ("png", "jpg", "bmp", "webp"):
        yield saved(folder / f"a.{suffix}", Image.fromarray(values))
    np.save(folder / "a.npy", values)
    yield folder / "a.npy"
    layouts: dict[str, Any] = {"a": {}, "b": {"compression": "zlib"}, "c": {"tile": (16, 16)}}
    for name, options in layouts.items():
        tifffile.imwrite(folder / f"{name}.tif", values, photometric="rgb", **options)
        yield folder / f"{name}.tif"
    yield saved(folder / "d.tif", Image.fromarray(values), compression="tiff_lzw")
    path = folder / "16.png"
    path.write_bytes(png16(values.astype(np.uint16) * 201))
    yield path


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_windows_are_parts_of_the_whole(tmp_path: Path, data: st.DataObject) -> None:
    if not list(tmp_path.iterdir()):
        list(files(tmp_path))
    y, x = data.draw(st.integers(0, 59)), data.draw(st.integers(0, 79))
    height, width = data.draw(st.integers(1, 60 - y)), data.draw(st.integers(1, 80 - x))
    for path in sorted(tmp_path.iterdir()):
        part = read_image(path, window=(y, x, height, width)).image
        same(part, read_image(path).image[:, y : y + height, x : x + width].numpy())


OUTSIDE = [(-1, 0, 2, 2), (0, 79, 1, 2), (59, 0, 2, 1), (0, 0, 0, 1), (0, 0, 61, 80), (60, 80, 1, 1)]


@pytest.mark.parametrize("window", OUTSIDE)
def test_window_outside(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    for path in files(tmp_path):
        with pytest.raises(ValueError, match=rf"{path.name}: got window .* inside 60 rows and 80 columns"):
            read_image(path, window=window)


@pytest.mark.parametrize("window", [(0, 0, 1), (0, 0, 1, 1.5)])
def test_window_of_another_kind(tmp_path: Path, window: tuple) -> None:
    with pytest.raises(ValueError, match=r"got window .* expected four integers"):
        read_image(tmp_path / "a.png", window=window)


def test_windows_follow_the_file(tmp_path: Path) -> None:
    """What is kept of a file is not taken for what was written to its place."""
    first, second = noise(H, W), noise(H, W, seed=1)
    path = saved(tmp_path / "a.png", Image.fromarray(first))
    part = read_image(path, window=(0, 0, 5, 5)).image
    same(part, first[None, :5, :5])
    part.zero_()  # the caller's own
    same(read_image(path, window=(0, 0, 5, 5)).image, first[None, :5, :5])
    path.unlink()
    saved(path, Image.fromarray(second))
    same(read_image(path, window=(0, 0, 5, 5)).image, second[None, :5, :5])


def test_windows_decode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphseg.datasets import _raster

    decoded: list[str] = []
    plain = _raster._open

    def counted(path: str, max_pixels: int) -> _raster.Raster:
        decoded.append(path)
        return plain(path, max_pixels)

    monkeypatch.setattr(_raster, "_open", counted)
    image = saved(tmp_path / "a.png", Image.fromarray(noise(H, W, 3)))
    mask = saved(tmp_path / "b.png", Image.fromarray(noise(H, W)))
    for y in range(H):
        read_image(image, window=(y, 0, 1, W))
        read_labels(mask, window=(y, 0, 1, W))
    assert len(decoded) == 2


# ---------------------------------------------------------------------------------------- damaged files and bombs


def valid_files() -> dict[str, bytes]:
    """Small files of every format, by name."""
    color, grey = noise(9, 7, 3), noise(9, 7, dtype="u2")
    made: dict[str, bytes] = {}

    def keep(name: str, write: Callable[[io.BytesIO], object]) -> None:
        stream = io.BytesIO()
        write(stream)
        made[name] = stream.getvalue()

    for kind in ("png", "jpeg", "bmp", "webp"):
        keep(f"a.{kind}", functools.partial(Image.fromarray(color).save, format=kind))
    keep("p.png", lambda s: Image.fromarray(color).quantize(9).save(s, "png", transparency=1))
    keep("lzw.tif", lambda s: Image.fromarray(color).save(s, "tiff", compression="tiff_lzw"))
    keep("jpeg.tif", lambda s: Image.fromarray(color).save(s, "tiff", compression="jpeg"))
    keep("plain.tif", lambda s: tifffile.imwrite(s, grey))
    keep("zlib.tif", lambda s: tifffile.imwrite(s, color, photometric="rgb", compression="zlib"))
    keep("tile.tif", lambda s: tifffile.imwrite(s, color, photometric="rgb", tile=(16, 16), bigtiff=True))
    geo = [(33550, 12, 3, (1.0, 1.0, 0.0), True), (33922, 12, 6, (0.0,) * 6, True), (42113, 2, 2, b"7\0", True)]
    pages: dict[str, Any] = {"metadata": None, "photometric": "minisblack", "extratags": geo}
    keep("geo.tif", lambda s: tifffile.imwrite(s, noise(3, 9, 7), **pages))
    keep("a.npy", lambda s: np.save(s, color))
    made["16.png"] = png16(noise(9, 7, 3, dtype="u2"))
    made["16a.png"] = png16(noise(9, 7, 2, dtype="u2"))
    return made


VALID = valid_files()


def read_or_refuse(path: Path) -> None:
    """Anything but an image or a ValueError that names the file fails the test."""
    for window in (None, (0, 0, 1, 1)):
        try:
            image = read_image(path, window=window, max_pixels=10_000).image
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert image.dim() == 3 and image.numel() > 0


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then refuses
@pytest.mark.parametrize("name", VALID)
def test_fuzz(tmp_path: Path, name: str) -> None:
    """Bytes changed, cut off and put in: an image or a ValueError, at once."""
    rng = np.random.default_rng(0)
    path = tmp_path / name
    for _ in range(100):
        data = bytearray(VALID[name])
        kind = rng.integers(4)
        place = int(rng.integers(len(data)))
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data[place] = rng.integers(256)
        elif kind == 2:
            for i in rng.integers(min(len(data), 400), size=4):
                data[i] = rng.choice([0, 1, 127, 128, 255])
        else:
            data[place:place] = rng.bytes(int(rng.integers(1, 9)))
        path.write_bytes(data)
        read_or_refuse(path)


@pytest.mark.parametrize("name", [n for n in VALID if not n.endswith((".jpeg", ".webp", ".tif"))])
def test_every_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for length in range(0, len(VALID[name]) - (1 if name != "a.bmp" else 3), 3):
        path.write_bytes(VALID[name][:length])
        with pytest.raises(ValueError, match=rf"{name}: got"):
            read_image(path)


def broken_png(kind: bytes) -> bytes:
    """One with a wrong sum in a chunk."""
    data = bytearray(VALID["a.png"])
    place = data.index(kind)
    end = place + 4 + int.from_bytes(data[place - 4 : place], "big")
    data[end] ^= 1
    return bytes(data)


class Loud:
    """Unpickling it would be noticed."""

    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('a pickle was loaded')",))


def pickled_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([[Loud(), Loud()]], dtype=object), allow_pickle=True)
    return stream.getvalue()


def npy_header(descr: str, shape: str) -> bytes:
    """The header of a `.npy` file, and nothing after it."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


DAMAGED = {
    "empty.png": (b"", "got an empty file, expected an image"),
    "text.png": (b"Not an image at all.\n", "got a file that begins with b'Not an i', expected PNG, JPEG"),
    "gif.png": (b"GIF89a" + bytes(50), "got a file that begins with b'GIF89a"),
    "half.png": (VALID["a.png"][:120], "truncated PNG"),
    "no_end.png": (VALID["a.png"][:-12], "truncated PNG"),
    "signature.png": (VALID["a.png"][:8], "expected at least 1 x 1"),
    "sum_of_header.png": (broken_png(b"IHDR"), "sum of chunk b'IHDR' is wrong"),
    "sum_of_pixels.png": (broken_png(b"IDAT"), "sum of chunk b'IDAT' is wrong"),
    "sum_of_end.png": (broken_png(b"IEND"), "sum of chunk b'IEND' is wrong"),
    "no_pixels.png": (png(b"", 5, 4, 8, 0), "damaged PNG"),
    "few_pixels.png": (png(bytes(10), 50, 40, 8, 0), "damaged PNG"),
    "few_pixels_16.png": (png(bytes(10), 50, 40, 16, 2), "damaged PNG"),
    "bits.png": (png(bytes(100), 5, 4, 7, 0), "damaged PNG"),
    "width.png": (png(bytes(100), 0, 4, 8, 0), "got an image of 4 x 0 pixels, expected at least 1 x 1"),
    "half.jpg": (VALID["a.jpeg"][:400], "damaged JPEG"),
    "header.jpg": (VALID["a.jpeg"][:20], "damaged JPEG"),
    "half.bmp": (VALID["a.bmp"][:100], "damaged BMP"),
    "half.webp": (VALID["a.webp"][:60], "damaged WEBP"),
    "header.tif": (VALID["plain.tif"][:8], "damaged TIFF"),
    "half.tif": (VALID["plain.tif"][:300], "TIFF"),
    "half_zlib.tif": (VALID["zlib.tif"][:-100], "TIFF"),
    "half_lzw.tif": (VALID["lzw.tif"][:60], "TIFF"),
    "half.npy": (VALID["a.npy"][:-1], "damaged .npy"),
    "header.npy": (VALID["a.npy"][:20], "damaged .npy"),
    "version.npy": (b"\x93NUMPY\x09\x00" + bytes(100), "damaged .npy"),
    "pickle.npy": (pickled_npy(), "got an array of dtype object, expected bool, integers"),
    "bare_pickle.npy": (pickle.dumps(Loud()), "got a file that begins with"),
    "code.npy": (
        npy_header("__import__('os').abort()", "(2, 2)"),
        "damaged .npy",
    ),
    "record.npy": (
        npy_header("[('a', '<u1')]", "(2, 2)"),
        "got an array of dtype",
    ),
    "complex.npy": (
        npy_header("'<c8'", "(2, 2)"),
        "got an array of dtype complex64",
    ),
    "negative.npy": (
        npy_header("'|u1'", "(-2, 2)"),
        r"got an array of shape \[-2, 2\]",
    ),
    "zero.npy": (
        npy_header("'|u1'", "(0, 2)"),
        r"got an array of shape \[0, 2\]",
    ),
    "line.npy": (npy_header("'|u1'", "(9,)"), r"got an array of shape \[9\]"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(tmp_path: Path, name: str) -> None:
    data, reason = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(data)
    for read in (read_image, read_labels, lambda p: read_image(p, window=(0, 0, 1, 1))):
        with pytest.raises(ValueError, match=rf"{name}: .*{reason}"):
            read(path)


def test_no_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.png"):
        read_image(tmp_path / "none.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder.png: got a folder"):
        read_image(tmp_path / "folder.png")


def tiff(height: int, width: int, strip: bytes, bits: int = 8, compression: int = 8, photometric: int = 1) -> bytes:
    """A grey TIFF of one strip, deflate."""
    tags = {
        256: width,
        257: height,
        258: bits,
        259: compression,
        262: photometric,
        273: 200,
        277: 1,
        278: height,
        279: len(strip),
    }
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags.items())
    return (b"II*\0" + struct.pack("<I", 8) + body + bytes(4)).ljust(200, b"\0") + strip


BOMBS = {
    "a.png": png(zlib.compress(bytes(100)), 60000, 60000, 8, 2),
    "16.png": png(zlib.compress(bytes(100)), 60000, 60000, 16, 2),
    "a.tif": tiff(60000, 60000, zlib.compress(bytes(10**6))),
    "a.npy": npy_header("'|u1'", "(60000, 60000)"),
    "a.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[name])
    for window in (None, (0, 0, 1, 1)):
        with pytest.raises(ValueError, match=rf"{name}: got an image of 60000 x 60000 = .* max_pixels={MAX_PIXELS}"):
            read_image(path, window=window)


@pytest.mark.parametrize("name", VALID)
def test_max_pixels(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(VALID[name])
    assert read_image(path, max_pixels=63).image.shape[1:] == (9, 7)
    with pytest.raises(ValueError, match=rf"{name}: got an image of 9 x 7 = 63 pixels, expected at most max_pixels=62"):
        read_image(path, max_pixels=62)


def test_max_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 8, 8)))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 8, 8)), photometric="minisblack")
    assert read_image(tmp_path / "a.npy", max_pixels=64).image.shape == (4, 8, 8)
    with pytest.raises(ValueError, match=r"a.tif: got an image of 4608 bytes, expected at most 64 . max_pixels=64"):
        read_image(tmp_path / "a.tif", max_pixels=64)


def test_small_image_in_a_huge_strip(tmp_path: Path) -> None:
    """Few pixels, and a strip that would unpack to ten megabytes."""
    (tmp_path / "a.tif").write_bytes(tiff(4, 4, zlib.compress(bytes(10**7))))
    with pytest.raises(ValueError, match=r"a.tif: got strips or tiles of .* expected about 16"):
        read_image(tmp_path / "a.tif")


def test_large_images_do_not_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit, lowered here, is not asked."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("a.png", "a.jpeg", "a.bmp", "16.png", "zlib.tif", "a.npy"):
        (tmp_path / name).write_bytes(VALID[name])
        assert read_image(tmp_path / name).image.shape[1:] == (9, 7)
    (tmp_path / "lzw.tif").write_bytes(VALID["lzw.tif"])
    with pytest.raises(ValueError, match=r"lzw.tif: got a TIFF .*imagecodecs"):
        read_image(tmp_path / "lzw.tif")


@pytest.mark.parametrize("max_pixels", [0, -1])
def test_max_pixels_that_cannot_be(tmp_path: Path, max_pixels: int) -> None:
    with pytest.raises(ValueError, match=rf"got max_pixels={max_pixels}, expected at least 1"):
        read_image(tmp_path / "a.png", max_pixels=max_pixels)


def test_channels_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got channels=2, expected one of None, 1, 3"):
        read_image(tmp_path / "a.png", channels=2)


# ------------------------------------------------------------------------------------------------------ real data


@pytest.mark.parametrize("folder", ["bsds500", "dsb2018", "sentinel2_rgbnir", "camvid"])
def test_public_sets(shared_data: Path, folder: str) -> None:
    """Files of each set, as Pillow reads them; none has several channels of 16 bits."""
    found = sorted(p for p in (shared_data / folder).rglob("*") if p.suffix in IMAGE_SUFFIXES)[::97][:40]
    assert found
    for path in found:
        picture = Image.open(path)
        assert picture.mode in ("1", "L", "P", "RGB", "I;16")
        expected = np.asarray(picture)
        if expected.ndim == 2 and picture.mode != "1":
            same(read_labels(path), expected.astype(np.int64))
        if picture.mode == "P":
            expected = np.asarray(picture.convert("RGB"))
        if picture.mode != "1":
            same(read_image(path).image, np.moveaxis(np.atleast_3d(expected), -1, 0))
