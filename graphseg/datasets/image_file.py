"""Images and label maps from files: `read_image`, `read_labels`, `read_colors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_choice, check_positive_int, is_integer
from graphseg.datasets._raster import Array, Raster, Window, open_raster
from graphseg.datasets.geotiff import is_nodata, move_geo

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "ImageFile", "read_colors", "read_image", "read_labels"]

MAX_PIXELS = 178_956_970  # what Pillow refuses by itself
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npy")

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class ImageFile(NamedTuple):
    """An image as it was read from a file.

    Args:
        image: `[C, H, W]`, uint8, uint16, float32 or float64.
        valid: `[H, W]` bool, False where the file has no data (alpha 0, nodata); None where it has data everywhere.
        geo: where a GeoTIFF lies, JSON for `write_geotiff`; "" where nothing is said.
    """

    image: Tensor
    valid: Tensor | None
    geo: str


def read_image(
    path: str | Path,
    *,
    channels: int | None = None,
    keep_alpha: bool = False,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
) -> ImageFile:
    """Reads an image: PNG, JPEG, BMP, WebP, TIFF, GeoTIFF or NumPy `.npy`, told by the file's first bytes.

    Pixels are what a viewer shows: EXIF orientation is applied, palettes and other colour spaces become RGB, 1 to 4
    bits become 8. Of an animation the first frame is read. Of a TIFF pages of one size are channels. The channels of a
    `.npy` of three axes are the first or the last, the one that is at most 4 long, or else at most half as long as both
    others. Where that does not tell, the file is refused.

    A pixel is not valid where alpha is 0, or where all channels have the colour that a PNG calls transparent, or the
    nodata value of a GeoTIFF. Where that is NaN, one NaN or infinite channel is enough. Alpha itself is dropped.

    Args:
        path: the file.
        channels: 1: colour becomes grey, 0.299 R + 0.587 G + 0.114 B, rounded for integers; 3: grey becomes colour;
            None: as they are.
        keep_alpha: alpha is a channel like the others, and hides nothing; for infrared that a file calls alpha.
        max_pixels: larger images are refused before they are decoded, and those of more than 64 * `max_pixels` bytes.
        window: (y0, x0, height, width), the part to read; None for all.

    Returns:
        `ImageFile`: image, valid, geo. uint8, uint16, float32 and float64 stay; other integers are numbers, as float32.

    Raises:
        ValueError: for a file that is damaged, too large or no image, a window outside, or channels that cannot be.
        OSError: for one that cannot be opened.
    """
    check_choice("channels", channels, (None, 1, 3))
    raster = _open(path, max_pixels, window)
    image = _shown(raster)
    if keep_alpha and raster.alpha is not None:
        image = np.concatenate([image, raster.alpha[None].astype(image.dtype)])
    image = _to_channels(image, channels, path)
    valid = _find_valid(raster, keep_alpha)
    return ImageFile(
        torch.from_numpy(np.ascontiguousarray(image)),
        None if valid is None or valid.all() else torch.from_numpy(valid),
        raster.geo if window is None else move_geo(raster.geo, window[0], window[1]),
    )


def read_labels(path: str | Path, *, max_pixels: int = MAX_PIXELS, window: Window | None = None) -> Tensor:
    """Reads a map of class or instance numbers, as they are in the file.

    A palette image gives its indices, a grey image of 1, 2 or 4 bits its small numbers. Three equal channels count as
    grey, alpha is dropped.

    Args:
        path: the file, of the formats of `read_image`.
        max_pixels: larger maps are refused before they are decoded.
        window: (y0, x0, height, width), the part to read; None for all.

    Returns:
        `[H, W]` int64.

    Raises:
        ValueError: as `read_image`, for a colour image, or for numbers that are not whole.
        OSError: for a file that cannot be opened.
    """
    raster = _open(path, max_pixels, window)
    values = raster.values
    C = values.shape[0]
    if C == 3 and np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2]):
        C = 1
    if C != 1:
        color = " (colours stand for classes? read_colors takes them with their class numbers)" if C == 3 else ""
        raise ValueError(f"{path}: got {C} channels for labels, expected one number a pixel{color}")
    labels = values[0]
    if labels.dtype.kind == "f":
        # The largest float that int64 holds is a little below 2^63.
        whole = np.isfinite(labels) & (np.trunc(labels) == labels) & (np.abs(labels) < 2.0**63)
        if not whole.all():
            first = labels[~whole].flat[0]
            raise ValueError(
                f"{path}: got {int((~whole).sum())} labels that are not whole numbers, {first} first, expected integers"
            )
    elif labels.dtype == np.uint64 and labels.max() >= 2**63:
        raise ValueError(f"{path}: got label {labels.max()}, expected less than 2^63")
    return torch.from_numpy(labels.astype(np.int64))


def read_colors(
    path: str | Path,
    colors: Mapping[tuple[int, int, int], int],
    *,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
) -> Tensor:
    """Reads a map of classes that are given by colours.

    Args:
        path: the file, of the formats of `read_image`, of 8 bits.
        colors: (red, green, blue) to class number; all colours of the file must be there.
        max_pixels: larger maps are refused before they are decoded.
        window: (y0, x0, height, width), the part to read; None for all.

    Returns:
        `[H, W]` int64.

    Raises:
        ValueError: as `read_image`, or for a colour that is not in `colors`.
        OSError: for a file that cannot be opened.
    """
    keys, classes = _color_table(colors)
    image = _to_channels(_shown(_open(path, max_pixels, window)), 3, path)
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: got {image.dtype} for colours, expected 8 bits")
    codes = image[0].astype(np.int32) << 16 | image[1].astype(np.int32) << 8 | image[2]
    rows = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    unknown = keys[rows] != codes
    if unknown.any():
        found, counts = np.unique(codes[unknown], return_counts=True)
        code, count = int(found[counts.argmax()]), int(counts.max())
        color = (code >> 16, code >> 8 & 255, code & 255)
        more = f" and {len(found) - 1} other colours" if len(found) > 1 else ""
        raise ValueError(
            f"{path}: got colour {color} in {count} pixels{more}, expected one of the {len(keys)} in colors"
        )
    return torch.from_numpy(classes[rows])


def _color_table(colors: Mapping[tuple[int, int, int], int]) -> tuple[Array, Array]:
    """Colours as sorted numbers, and the class of each."""
    if not colors:
        raise ValueError("got no colors, expected at least one")
    for color, label in colors.items():
        if len(color) != 3 or not all(is_integer(c) and 0 <= c <= 255 for c in color) or not is_integer(label):
            raise ValueError(f"got {color}: {label} in colors, expected (red, green, blue) of 0 to 255: class number")
    table = sorted((r << 16 | g << 8 | b, label) for (r, g, b), label in colors.items())
    return np.array([k for k, _ in table], dtype=np.int32), np.array([v for _, v in table], dtype=np.int64)


def _open(path: str | Path, max_pixels: int, window: Window | None) -> Raster:
    check_positive_int("max_pixels", max_pixels)
    if window is not None and (len(window) != 4 or not all(is_integer(n) for n in window)):
        raise ValueError(f"got window {window!r}, expected four integers (y0, x0, height, width)")
    return open_raster(path, max_pixels, window)


def _shown(raster: Raster) -> Array:
    """`[C, H, W]` uint8, uint16, float32 or float64: what a viewer shows."""
    values = raster.values
    if raster.palette is not None:
        return np.moveaxis(raster.palette[values[0], :3], -1, 0)
    if raster.top:
        values = values * np.uint8(255 // raster.top)
    if values.dtype.kind == "f":
        return values.astype(np.float64 if values.dtype.itemsize == 8 else np.float32)
    if values.dtype not in (np.uint8, np.uint16):
        return values.astype(np.float32)  # these have no common range: they count as they are
    return ~values if raster.is_negative else values


def _to_channels(image: Array, channels: int | None, path: str | Path) -> Array:
    C = image.shape[0]
    if channels is None or channels == C:
        return image
    if (channels, C) == (3, 1):
        return np.repeat(image, 3, axis=0)
    if (channels, C) == (1, 3):
        grey = sum(weight * channel.astype(np.float64) for weight, channel in zip(LUMA, image, strict=True))[None]
        return (grey if image.dtype.kind == "f" else np.rint(grey)).astype(image.dtype)
    raise ValueError(f"{path}: got {C} channels, expected 1 or 3 to make {channels} of them (channels=None keeps all)")


def _find_valid(raster: Raster, keep_alpha: bool) -> Array | None:
    """`[H, W]` bool, all that hides pixels taken together; None if nothing does."""
    values = raster.values
    missing = None if raster.mask is None else ~raster.mask
    if raster.alpha is not None and not keep_alpha:
        missing = _either(missing, raster.alpha == 0)
    if raster.palette is not None and (raster.palette[:, 3] == 0).any():
        missing = _either(missing, raster.palette[values[0], 3] == 0)
    if raster.key is not None:
        missing = _either(missing, (values == np.array(raster.key)[:, None, None]).all(0))
    if raster.nodata is not None:
        missing = _either(missing, is_nodata(values, raster.nodata))
    return None if missing is None else ~missing


def _either(a: Array | None, b: Array) -> Array:
    return b if a is None else a | b
