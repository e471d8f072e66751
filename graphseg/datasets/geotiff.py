"""Where an image lies on the globe: read from a GeoTIFF, and written back with what was made of the image.

Source: OGC 19-008r4, GeoTIFF 1.1: tags of section 7, keys of annex B. The nodata tag is GDAL's.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from torch import Tensor

from graphseg._checks import check_shape, check_tensor
from graphseg.datasets.whole_file import whole_file

__all__ = ["read_geo", "write_geotiff"]

SCALE, TIEPOINTS, MATRIX, KEYS, DOUBLES, TEXTS, NODATA = 33550, 33922, 34264, 34735, 34736, 34737, 42113
# The type that each tag has in a sound file: 2 for text, 3 for 16-bit integers, 12 for float64.
TAG_TYPES = {SCALE: 12, TIEPOINTS: 12, MATRIX: 12, KEYS: 3, DOUBLES: 12, TEXTS: 2, NODATA: 2}
MODEL_TYPE, RASTER_TYPE, GEOGRAPHIC, PROJECTED = 1024, 1025, 2048, 3072
CITATIONS = (3073, 2049, 1026)
PIXEL_IS_POINT = 2
USER_DEFINED = 32767  # codes from here on are not EPSG's
IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]

Tags = dict[int, list[float] | list[int] | str]


def read_geo(page: tifffile.TiffPage | str | Path) -> str:
    """What a GeoTIFF says about its place, as JSON.

    Args:
        page: the file, or a page of one that is open in tifffile.

    Returns:
        "" where nothing is said, else JSON with
        `transform`: a, b, c, d, e, f of x = a * column + b * row + c, y = d * column + e * row + f; whole numbers are
        corners of pixels, whichever convention the file has; [1, 0, 0, 0, 1, 0] if it does not say;
        `crs`: "EPSG:32633", say, else the file's own words for it, or "";
        `nodata`: a number, "nan", "inf", "-inf", or null;
        `tags`: the file's tags, by number, for `write_geotiff`.
    """
    if not isinstance(page, tifffile.TiffPage):
        with tifffile.TiffFile(page) as tif:
            return read_geo(tif.pages.first)
    tags = _read_tags(page)
    if not tags:
        return ""
    keys = _geo_keys(tags)
    found = {
        "transform": _transform(tags, keys.get(RASTER_TYPE) == PIXEL_IS_POINT),
        "crs": _crs(keys),
        "nodata": _parse_nodata(tags.get(NODATA)),
        "tags": {str(code): value for code, value in sorted(tags.items())},
    }
    return json.dumps(found)


def find_nodata(geo: str) -> float | None:
    """The nodata value of what `read_geo` gives; None if there is none.

    Args:
        geo: the JSON, or "".
    """
    nodata = json.loads(geo)["nodata"] if geo else None
    return float(nodata) if isinstance(nodata, str) else nodata


def move_geo(geo: str, row: int, column: int) -> str:
    """The place of a part of a file, whose first pixel is (row, column) of the whole.

    Args:
        geo: the JSON of the whole, or "".
        row: from the top.
        column: from the left.
    """
    if not geo or not (row or column):
        return geo
    found = json.loads(geo)
    a, b, c, d, e, f = found["transform"]
    found["transform"] = [a, b, c + a * column + b * row, d, e, f + d * column + e * row]
    tags = found["tags"]
    points = tags.get(str(TIEPOINTS), [])
    points[0::6] = [x - column for x in points[0::6]]
    points[1::6] = [y - row for y in points[1::6]]
    if matrix := tags.get(str(MATRIX)):
        matrix[3] += matrix[0] * column + matrix[1] * row
        matrix[7] += matrix[4] * column + matrix[5] * row
    return json.dumps(found)


def write_geotiff(
    path: str | Path, values: Tensor, geo: str = "", *, nodata: float | None = None, valid: Tensor | None = None
) -> None:
    """Writes an image, or predictions, as a GeoTIFF (deflate) in the place that `geo` says.

    The file appears whole or not at all, and replaces one that is there. bool is written as uint8, int64 as int32 where
    it fits, float16 and bfloat16 as float32.

    Args:
        path: the file.
        values: `[H, W]` or `[C, H, W]`.
        geo: of `read_geo`, or of `read_image`; "" for none.
        nodata: the value of pixels without data; None: that of `geo`.
        valid: `[H, W]` bool, False for pixels that are set to nodata in all channels.

    Raises:
        ValueError: for a shape, `geo` or nodata that will not do, or valid pixels that would be read as nodata.
        TypeError: if values or valid is not a tensor of the right kind.
        OSError: if the file cannot be written.
    """
    array = _to_array(values)
    tags = _parse_geo(geo)
    if nodata is None:
        nodata = find_nodata(geo)
    else:
        tags[NODATA] = f"{nodata}\0"
    if nodata is not None:
        if array.dtype == np.int32 and not _fits(nodata, array.dtype):
            array = array.astype(np.int64)
        if not _fits(nodata, array.dtype):
            raise ValueError(f"got nodata={nodata}, expected a value of {array.dtype}, the type of values")
    if valid is not None:
        array = _fill(array, valid, nodata)
    _write(Path(path), array, tags)


def _to_array(values: Tensor) -> np.ndarray[Any, Any]:
    """`[C, H, W]` of a type that readers of TIFF know."""
    check_tensor("values", values)
    if values.dim() not in (2, 3) or 0 in values.shape:
        raise ValueError(f"got shape {list(values.shape)} for values, expected [H, W] or [C, H, W]")
    if values.is_complex():
        raise TypeError(f"got dtype {values.dtype} for values, expected bool, integers or floating-point")
    values = values.detach().cpu()
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    elif values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    elif values.dtype == torch.int64 and int(values.min()) >= -(2**31) and int(values.max()) < 2**31:
        values = values.to(torch.int32)
    return values.numpy().reshape(-1, *values.shape[-2:])


def _fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return True
    bounds = np.iinfo(dtype)
    return math.isfinite(nodata) and nodata == int(nodata) and bounds.min <= nodata <= bounds.max


def _fill(array: np.ndarray[Any, Any], valid: Tensor, nodata: float | None) -> np.ndarray[Any, Any]:
    """A copy with nodata where valid is False."""
    check_shape("valid", check_tensor("valid", valid), array.shape[1:])
    if valid.dtype != torch.bool:
        raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
    keep = valid.detach().cpu().numpy()
    if keep.all() and nodata is None:
        return array
    if nodata is None:
        raise ValueError(f"got {int((~keep).sum())} pixels that are not valid and no nodata, expected a value for them")
    hidden = is_nodata(array, nodata) & keep
    if hidden.any():
        raise ValueError(
            f"got {int(hidden.sum())} valid pixels that hold nodata={nodata}, expected another nodata, which none holds"
        )
    with np.errstate(over="ignore"):
        return np.where(keep, array, np.array(nodata).astype(array.dtype))


def is_nodata(values: np.ndarray[Any, Any], nodata: float) -> np.ndarray[Any, Any]:
    """`[H, W]` bool: where all channels hold nodata, or one is NaN or infinite and nodata is NaN.

    Args:
        values: `[C, H, W]`.
        nodata: the value.
    """
    is_float = values.dtype.kind == "f"
    if math.isnan(nodata):
        return (~np.isfinite(values)).any(0) if is_float else np.zeros(values.shape[1:], dtype=bool)
    if not is_float and not _fits(nodata, values.dtype):
        return np.zeros(values.shape[1:], dtype=bool)
    with np.errstate(over="ignore"):  # written with more digits than float32 holds
        return (values == np.array(nodata).astype(values.dtype)).all(0)


def _write(path: Path, array: np.ndarray[Any, Any], tags: Tags) -> None:
    C = array.shape[0]
    is_color = C == 3 and array.dtype in (np.uint8, np.uint16)
    extra = [
        (code, TAG_TYPES[code], len(value), value.encode("latin-1") if isinstance(value, str) else tuple(value), True)
        for code, value in sorted(tags.items())
    ]
    with whole_file(path) as file:
        tifffile.imwrite(
            file,
            array[0] if C == 1 else np.ascontiguousarray(np.moveaxis(array, 0, -1)),  # [H, W, C]
            photometric="rgb" if is_color else "minisblack",
            planarconfig=None if C == 1 else "contig",
            compression="zlib",
            metadata=None,
            extratags=extra,
        )


def _read_tags(page: tifffile.TiffPage) -> Tags:
    """The tags of a sound file; those of other types are passed over."""
    tags: Tags = {}
    file = page.parent.filehandle
    for code, kind in TAG_TYPES.items():
        tag = page.tags.get(code)
        if tag is None or tag.dtype != kind:
            continue
        if kind == 2:  # as it lies in the file: tifffile strips it
            file.seek(tag.valueoffset)
            tags[code] = file.read(tag.count).decode("latin-1")
        else:
            tags[code] = list(tag.value) if isinstance(tag.value, tuple) else [tag.value]
    return tags


def _parse_geo(geo: str) -> Tags:
    """The tags in what `read_geo` gave."""
    if not geo:
        return {}
    try:
        tags = {int(code): value for code, value in json.loads(geo)["tags"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"got geo={geo[:80]!r}, expected what read_geo or read_image gave") from error
    for code, value in tags.items():
        if code not in TAG_TYPES or isinstance(value, str) != (TAG_TYPES[code] == 2):
            raise ValueError(f"got tag {code} in geo, expected those of read_geo, {sorted(TAG_TYPES)}")
    return tags


def _geo_keys(tags: Tags) -> dict[int, Any]:
    """Key to number, numbers or text; keys that point outside the file's lists are passed over."""
    directory = tags.get(KEYS, [])
    found: dict[int, Any] = {}
    for i in range(4, len(directory) - 3, 4):
        key, place, count, value = (int(n) for n in directory[i : i + 4])
        if place == 0:
            found[key] = value
        elif place in (DOUBLES, TEXTS) and value + count <= len(tags.get(place, "")):
            found[key] = tags[place][value : value + count]
    return found


def _crs(keys: dict[int, Any]) -> str:
    order = (GEOGRAPHIC,) if keys.get(MODEL_TYPE) == 2 else (PROJECTED, GEOGRAPHIC)
    code = next((keys[key] for key in order if key in keys), USER_DEFINED)
    if isinstance(code, int) and 0 < code < USER_DEFINED:
        return f"EPSG:{code}"
    texts = [keys[key] for key in CITATIONS if isinstance(keys.get(key), str)]
    return next((text.strip("|\0 ") for text in texts if text.strip("|\0 ")), "")


def _transform(tags: Tags, is_point: bool) -> list[float]:
    matrix, scale, points = (list(map(float, tags.get(code, []))) for code in (MATRIX, SCALE, TIEPOINTS))
    if len(matrix) == 16:
        a, b, c, d, e, f = (matrix[i] for i in (0, 1, 3, 4, 5, 7))
    elif len(scale) >= 2 and len(points) >= 6:
        column, row, _, x, y, _ = points[:6]
        a, b, d, e = scale[0], 0.0, 0.0, -abs(scale[1])
        c, f = x - a * column, y - e * row
    else:
        return IDENTITY
    if is_point:  # whole numbers are centres: half a pixel back
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return [a, b, c, d, e, f]


def _parse_nodata(text: Any) -> float | str | None:
    """An int where it is one, a float where JSON has it, else a word that float() reads."""
    text = str(text or "").strip("\0 ")
    try:
        value = float(text)
        return int(text) if text.lstrip("+-").isdecimal() else value if math.isfinite(value) else str(value)
    except ValueError:
        return None
