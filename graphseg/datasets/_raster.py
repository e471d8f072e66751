"""Files of pixels, opened but not interpreted: what `read_image` and `read_labels` have in common.

A file is told by its first bytes, not by its name. Its size is checked before anything is decoded. Whatever is wrong
with it ends in a ValueError.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import (
    BmpImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from graphseg.datasets.geotiff import MATRIX, SCALE, TIEPOINTS, find_nodata, read_geo

__all__ = ["Raster", "open_raster"]

MAX_BYTES_PER_PIXEL = 64  # of an image with `max_pixels` pixels; smaller images may have more channels
NPY = b"\x93NUMPY"
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PLUGINS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\x89P": PngImagePlugin.PngImageFile,
    b"\xff\xd8": JpegImagePlugin.JpegImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
}

Array = np.ndarray[Any, np.dtype[Any]]
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Raster:
    """The pixels of a file as they are stored, upright, alpha apart.

    Args:
        values: `[C, H, W]`, any kind of number; may lie on disk.
        alpha: `[H, W]`, 0 where a pixel is not there; None if there is none.
        mask: `[H, W]` bool, False where a pixel is not there; None if there is none.
        palette: `[K, 4]` uint8, red, green, blue and alpha, if `values` are its rows; None if they are not.
        key: the value of each channel of pixels that are not there; None if there is none.
        nodata: a pixel with this value in all channels is not there; None if there is none.
        top: the largest value of a grey image of 1, 2 or 4 bits; 0 for others.
        is_negative: whether 0 is white.
        geo: where a GeoTIFF lies, see `read_geo`.
    """

    values: Array
    alpha: Array | None = None
    mask: Array | None = None
    palette: Array | None = None
    key: tuple[int, ...] | None = None
    nodata: float | None = None
    top: int = 0
    is_negative: bool = False
    geo: str = ""

    def cut(self, window: Window) -> Raster:
        """The part in the window (y0, x0, height, width), in memory of its own."""
        y, x, height, width = window
        return self._map(lambda values: _native(values[..., y : y + height, x : x + width]))

    def turned(self, orientation: int) -> Raster:
        """Upright, where `orientation` (EXIF, 1 to 8) says how it was held."""
        return self._map(lambda values: _turn(values, orientation))

    def _map(self, change: Callable[[Array], Array]) -> Raster:
        alpha = None if self.alpha is None else change(self.alpha)
        mask = None if self.mask is None else change(self.mask)
        return dataclasses.replace(self, values=change(self.values), alpha=alpha, mask=mask)


def _native(values: Array) -> Array:
    """A copy, row by row, in the byte order of this machine."""
    return np.array(values, dtype=values.dtype.newbyteorder("="), order="C")


def open_raster(path: str | Path, max_pixels: int, window: Window | None = None) -> Raster:
    """The pixels of a file, or of a part of it, in memory.

    Args:
        path: a PNG, JPEG, BMP, WebP, TIFF or `.npy` file.
        max_pixels: larger images are refused.
        window: (y0, x0, height, width); None for all. Compressed files stay decoded until others are read by windows.

    Raises:
        ValueError: for a file that is damaged, too large, or no image; the message begins with the path.
        OSError: for one that cannot be opened.
    """
    info = os.stat(path)
    try:
        if not stat.S_ISREG(info.st_mode):
            raise ValueError("got a folder or a device, expected an image file")
        if info.st_size == 0:
            raise ValueError("got an empty file, expected an image")
        if window is None:
            return _in_memory(_open(os.fspath(path), max_pixels))
        mapped = _open_mapped(os.fspath(path), max_pixels)
        whole = mapped or _open_cached(os.path.abspath(path), info.st_size, info.st_mtime_ns, max_pixels)
        _check_window(window, whole.values.shape[1:])
        return whole.cut(window)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_window(window: Window, size: tuple[int, ...]) -> None:
    y, x, height, width = window
    if min(y, x) < 0 or min(height, width) < 1 or y + height > size[0] or x + width > size[1]:
        raise ValueError(
            f"got window {tuple(window)}, expected (y0, x0, height, width) inside {size[0]} rows and {size[1]} columns"
        )


def _in_memory(raster: Raster) -> Raster:
    return raster.cut((0, 0, *raster.values.shape[1:]))


@functools.lru_cache(maxsize=2)  # an image and its mask, each read by hundreds of windows
def _open_cached(path: str, size: int, mtime_ns: int, max_pixels: int) -> Raster:
    return _open(path, max_pixels)


def _open(path: str, max_pixels: int) -> Raster:
    head = _head(path)
    if head.startswith(NPY):
        return _open_npy(path, max_pixels)
    if head.startswith(TIFFS):
        raster = _open_tiff(path, max_pixels)
        assert raster is not None
        return raster
    is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    plugin = WebPImagePlugin.WebPImageFile if is_webp else PLUGINS.get(head[:2])
    if plugin is None:
        raise ValueError(f"got a file that begins with {head[:8]!r}, expected PNG, JPEG, TIFF, BMP, WebP or .npy")
    data = Path(path).read_bytes()
    if plugin is PngImagePlugin.PngImageFile:
        return _open_png(data, max_pixels)
    return _open_pillow(plugin, data, max_pixels)


def _open_mapped(path: str, max_pixels: int) -> Raster | None:
    """What can be read from disk part by part: `.npy`, and TIFF that is not compressed; None for others."""
    head = _head(path)
    if head.startswith(NPY):
        return _open_npy(path, max_pixels)
    return _open_tiff(path, max_pixels, only_mapped=True) if head.startswith(TIFFS) else None


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)


def _check_size(height: int, width: int, num_bytes: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise _Refused(f"got an image of {height} x {width} pixels, expected at least 1 x 1")
    if height * width > max_pixels:
        raise _Refused(
            f"got an image of {height} x {width} = {height * width} pixels, expected at most max_pixels={max_pixels}"
        )
    if num_bytes > MAX_BYTES_PER_PIXEL * max_pixels:
        raise _Refused(
            f"got an image of {num_bytes} bytes, expected at most {MAX_BYTES_PER_PIXEL} * max_pixels={max_pixels}"
        )


class _Refused(ValueError):
    """A file that is what it says, but not what is read here."""


@contextmanager
def _decoding(kind: str) -> Iterator[None]:
    """Decoders raise anything at all on damaged files: here it becomes a ValueError."""
    try:
        yield
    except _Refused:
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL, errno.EOVERFLOW):  # of the disk, not of what is on it
            raise
        raise ValueError(f"got a damaged {kind} file ({error}), expected a whole one") from error
    except Exception as error:
        raise ValueError(f"got a damaged {kind} file ({error!r}), expected a whole one") from error


# Turned by EXIF's rule: what the first row and the first column of the file are to a viewer.
def _turn(values: Array, orientation: int) -> Array:
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(-1, -2)
    if orientation in (3, 4, 7, 8):
        values = values[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        values = values[..., ::-1]
    return values


def _exif_orientation(exif: bytes) -> int:
    """The tag Orientation of an EXIF block; 1 where there is none, or the block is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for i in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, start + 2 + 12 * i)
            if tag == 274 and kind == 3:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _png_header(data: bytes) -> tuple[int, int, int, int]:
    """Width, height, bits and colour type, once all chunks were found whole."""
    view = memoryview(data)
    start, kind = 8, b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise ValueError("got a truncated PNG file, expected one that ends with IEND")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise ValueError(f"got a truncated PNG file, expected {end - len(data)} bytes more in chunk {kind!r}")
        is_critical = not kind[0] & 32
        # Pillow does not look at the sums of the pixels' own chunks.
        if (is_critical or kind == b"tRNS") and zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(
            view[end - 4 : end], "big"
        ):
            raise ValueError(f"got a damaged PNG file: the sum of chunk {kind!r} is wrong, expected a whole file")
        if start == 8 and (kind != b"IHDR" or length != 13):
            raise ValueError(f"got a damaged PNG file that begins with chunk {kind!r}, expected b'IHDR'")
        start = end
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    return width, height, bits, color


def _open_png(data: bytes, max_pixels: int) -> Raster:
    width, height = struct.unpack_from(">II", data.ljust(24, b"\0"), 16)
    _check_size(height, width, 8 * height * width, max_pixels)
    _, _, bits, color = _png_header(data)
    if bits < 16 or color == 0:
        return _open_pillow(PngImagePlugin.PngImageFile, data, max_pixels, bits=bits)
    with _decoding("PNG"):
        file, values = _decode_png16(data, color)
        key = file.info.get("transparency")
        raster = _from_channels(np.moveaxis(values, -1, 0), color in (4, 6))
        return dataclasses.replace(raster, key=key).turned(_exif_orientation(file.info.get("exif", b"")))


def _decode_png16(data: bytes, color: int) -> tuple[ImageFile.ImageFile, Array]:
    """`[H, W, C]` uint16 of a PNG with several channels of 16 bits, of which Pillow would drop half.

    Pillow reads two bytes and keeps the first or, told that the order is the other one, the second. Grey with alpha is
    read as four channels of 8 bits, which take the same place and the same filters.
    """
    if color == 4:
        header = b"IHDR" + data[16:24] + bytes([8, 6]) + data[26:29]
        data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
        file = PngImagePlugin.PngImageFile(io.BytesIO(data))
        return file, np.ascontiguousarray(np.asarray(file)).view(">u2").astype(np.uint16)
    halves = []
    for order in "BL":
        file = PngImagePlugin.PngImageFile(io.BytesIO(data))
        file.tile = [tile._replace(args=f"{file.mode};16{order}") for tile in file.tile]
        halves.append(np.asarray(file).astype(np.uint16))
    return file, halves[0] << 8 | halves[1]


def _from_channels(values: Array, has_alpha: bool) -> Raster:
    return Raster(values[:-1], alpha=values[-1]) if has_alpha else Raster(values)


def _open_pillow(plugin: type[ImageFile.ImageFile], data: bytes, max_pixels: int, bits: int = 8) -> Raster:
    """An image of Pillow's; `bits` of each number in the file."""
    kind = str(plugin.format)
    with _decoding(kind):
        # Not by Image.open, which would hold the image against a limit for the whole process.
        file = plugin(io.BytesIO(data))
    _check_size(file.height, file.width, 8 * file.height * file.width, max_pixels)
    with _decoding(kind):
        file.load()
        return _from_pillow(file, bits).turned(_exif_orientation(file.info.get("exif", b"")))


def _from_pillow(file: Image.Image, bits: int = 8) -> Raster:
    transparency = file.info.get("transparency")
    image = file
    if image.mode in ("CMYK", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        assert converted is not None
        image = converted
    values = np.asarray(image)
    values = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    if image.mode == "1":
        key = None if transparency is None else (int(transparency > 0),)
        return Raster(values.astype(np.uint8), top=1, key=key)
    if image.mode in ("P", "PA"):
        raster = _from_channels(values, image.mode == "PA")
        return dataclasses.replace(raster, palette=_palette(image, transparency))
    if image.mode in ("LA", "La", "RGBA", "RGBa"):
        return _from_channels(values, True)
    top = {2: 3, 4: 15}.get(bits, 0) if image.mode == "L" else 0
    if top:
        values = values // (255 // top)
    key = transparency if isinstance(transparency, tuple) else None if transparency is None else (transparency,)
    return Raster(values, top=top, key=key)


def _palette(image: Image.Image, transparency: int | bytes | None) -> Array:
    """`[256, 4]` uint8; colours that the file does not name are black."""
    table = np.zeros((256, 4), dtype=np.uint8)
    table[:, 3] = 255
    colors = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)[:256]
    table[: len(colors), :3] = colors
    if isinstance(transparency, int):
        table[transparency, 3] = 0
    elif transparency is not None:
        alpha = np.frombuffer(transparency, dtype=np.uint8)[:256]
        table[: len(alpha), 3] = alpha
    return table


def _open_npy(path: str, max_pixels: int) -> Raster:
    with _decoding(".npy"), open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"got version {version}, expected 1.0 or 2.0")
        shape, _, dtype = readers[version](file)
    if dtype.hasobject or dtype.kind not in "buif" or dtype.itemsize > 8:
        raise ValueError(f"got an array of dtype {dtype}, expected bool, integers or floating-point numbers")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"got an array of shape {list(shape)}, expected [H, W], [C, H, W] or [H, W, C]")
    axis = channel_axis(shape) if len(shape) == 3 else 0
    if axis is None:
        raise ValueError(
            f"got an array of shape {list(shape)}, which may be [C, H, W] or [H, W, C]; expected a channel axis of at "
            "most 4, or at most half as long as both others (a TIFF with one page a channel says which it is)"
        )
    H, W = shape[-2:] if axis == 0 else shape[:2]
    _check_size(H, W, int(np.prod(shape, dtype=object)) * dtype.itemsize, max_pixels)
    with _decoding(".npy"):
        values: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(shape) == 2:
        values = values[None]
    elif axis == 2:
        values = np.moveaxis(values, -1, 0)
    return Raster(values.view(np.uint8), top=1) if dtype.kind == "b" else Raster(values)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Which axis of `[A, B, C]` counts the channels, 0 or 2; None if it may be either.

    One that is at most 4 long, where the other is not; else one that is at most half as long as both others.
    """
    first, middle, last = shape
    if (first <= 4) != (last <= 4):
        return 0 if first <= 4 else 2
    if first <= 4:
        return None
    if 2 * first <= min(middle, last):
        return 0
    return 2 if 2 * last <= min(first, middle) else None


def _open_tiff(path: str, max_pixels: int, only_mapped: bool = False) -> Raster | None:
    """The first image of a TIFF; None for one that cannot be read from disk part by part, if `only_mapped`."""
    with _decoding("TIFF"):
        _check_directories(path)
    with _decoding("TIFF"), tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        page = series.keyframe
        axes, shape = _pixel_axes(series)
        H, W = shape[axes.index("Y")], shape[axes.index("X")]
        _check_size(H, W, series.nbytes, max_pixels)
        is_known = _is_known(page)
        offset = series.dataoffset if is_known and page.compression == page.predictor == 1 else None
        if only_mapped and offset is None:
            return None
        if is_known:
            _check_segments(series, max_pixels)
            values = series.asarray(maxworkers=1) if offset is None else _mapped(tif, series, offset)
            raster = _from_tiff(page, _channels_first(values.reshape(shape), axes))
        else:
            raster = _open_tiff_by_pillow(path, series)
        geo = read_geo(page)
        raster = dataclasses.replace(raster, geo=geo, nodata=find_nodata(geo), mask=_read_mask(tif, series))
        is_placed = any(code in page.tags for code in (SCALE, TIEPOINTS, MATRIX))
        orientation = page.tags.get(274)
        if orientation is None or not is_known or is_placed:  # Pillow turns it; what lies on a map is not turned
            return raster
        return raster.turned(orientation.value)


def _check_directories(path: str) -> None:
    """A TIFF is a chain of pages; tifffile would follow one that bites its own tail for ever."""
    with open(path, "rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        is_big = head[2] == 43 or head[3] == 43
        place_format, count_format, entry_size = ("Q", "Q", 20) if is_big else ("I", "H", 12)
        (place,) = struct.unpack_from(order + place_format, head, 8 if is_big else 4)
        seen: set[int] = set()
        while place:
            if place in seen:
                raise _Refused(f"got a damaged TIFF file whose page {len(seen)} comes before, expected a last page")
            seen.add(place)
            file.seek(place)
            (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))
            file.seek(count * entry_size, os.SEEK_CUR)
            (place,) = struct.unpack(order + place_format, file.read(struct.calcsize(place_format)))


def _pixel_axes(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Axes and sizes without those of size 1: Y, X, and at most one more, which counts the channels."""
    kept = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if a in "YX" or n != 1]
    axes, shape = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    if axes == "QYX" and series.kind == "shaped" and channel_axis(shape) == 2:
        return "YXQ", shape  # a NumPy array [H, W, C], written as H pages
    if sorted(set(axes) & {"Y", "X"}) != ["X", "Y"] or len(axes) > 3:
        raise _Refused(f"got a TIFF of axes {series.axes} {list(series.shape)}, expected Y, X and one for the channels")
    return axes, shape


def _channels_first(values: Array, axes: str) -> Array:
    values = values if len(axes) == 3 else values[None]
    axes = axes if len(axes) == 3 else "C" + axes
    other = next(a for a in axes if a not in "YX")
    return values.transpose(axes.index(other), axes.index("Y"), axes.index("X"))


def _is_known(page: tifffile.TiffPage) -> bool:
    """Whether tifffile can decode it, with the packages that are there, to what a viewer shows."""
    if page.dtype is None or page.photometric in (5, 6, 8) or page.is_subsampled:  # CMYK, YCbCr, Lab
        return False
    if page.bitspersample not in (1, 8 * page.dtype.itemsize):
        return False
    try:
        tifffile.TIFF.DECOMPRESSORS[page.compression], tifffile.TIFF.UNPREDICTORS[page.predictor]
    except KeyError:
        return False
    return True


def _check_segments(series: tifffile.TiffPageSeries, max_pixels: int) -> None:
    """Strips and tiles lie inside the file and are not far larger than what they are to hold."""
    page = series.keyframe
    tile_size = math.prod(page.chunks) * series.dtype.itemsize
    if tile_size > max(series.nbytes, 2**28):
        raise _Refused(f"got tiles of {list(page.chunks)} for an image of {list(series.shape)}, expected smaller ones")
    size = page.parent.filehandle.size
    for other in series.pages:
        if other is None or not len(other.dataoffsets) == len(other.databytecounts) == math.prod(page.chunked):
            raise _Refused(f"got a damaged TIFF file, expected {math.prod(page.chunked)} strips or tiles")
        starts, lengths = np.array(other.dataoffsets, dtype=np.uint64), np.array(other.databytecounts, dtype=np.uint64)
        is_empty = (starts == 0) & (lengths == 0)  # GDAL leaves out tiles without data
        if (starts + lengths > size).any() or ((starts == 0) != (lengths == 0)).any():
            raise _Refused("got a truncated TIFF file, expected one that holds all its strips or tiles")
        if page.compression == 1 and not is_empty.any() and 8 * int(lengths.sum()) < page.size * page.bitspersample:
            raise _Refused(f"got a damaged TIFF file of {int(lengths.sum())} bytes of pixels, expected {page.nbytes}")
        if (lengths > 2 * tile_size + 1024).any():
            raise _Refused(f"got strips or tiles of {int(lengths.max())} bytes, expected about {tile_size}")


def _mapped(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, offset: int) -> Array:
    dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    if offset + series.nbytes > tif.filehandle.size:
        raise _Refused(f"got a truncated TIFF file, expected {series.nbytes} bytes of pixels")
    return np.memmap(tif.filehandle.path, dtype, "r", offset=offset, shape=series.shape)


def _from_tiff(page: tifffile.TiffPage, values: Array) -> Raster:
    top = 0
    if values.dtype.kind == "b":
        values, top = values.view(np.uint8), 1
    elif values.dtype.kind not in "uif":
        raise _Refused(f"got a TIFF of {values.dtype}, expected integers or floating-point numbers")
    raster = Raster(values, top=top, is_negative=page.photometric == 0)
    S, extra = page.samplesperpixel, page.extrasamples
    alphas = [S - len(extra) + i for i, kind in enumerate(extra) if kind in (1, 2)]
    if alphas and len(values) == S and S > 1:
        others = [c for c in range(S) if c != alphas[0]]
        # A slice, as it nearly always can be: the pixels may still lie on disk.
        colors = values[: S - 1] if alphas[0] == S - 1 else values[others]
        raster = dataclasses.replace(raster, values=colors, alpha=values[alphas[0]])
    if page.photometric != 3 or page.colormap is None:
        return raster
    table = page.colormap.T  # [K, 3], 16 bits, or 8 by mistake
    table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
    palette = np.zeros((np.iinfo(values.dtype).max + 1, 4), dtype=np.uint8)
    palette[: len(table), :3] = table[: len(palette)]
    palette[:, 3] = 255
    return dataclasses.replace(raster, palette=palette, top=0)


def _open_tiff_by_pillow(path: str, series: tifffile.TiffPageSeries) -> Raster:
    """What tifffile alone does not decode: LZW, JPEG, fax, 2 and 4 bits, CMYK, YCbCr, Lab."""
    page = series.keyframe
    H, W = page.imagelength, page.imagewidth
    name = getattr(page.compression, "name", page.compression)
    mend = (
        f"got a TIFF of {page.samplesperpixel} channels of {page.bitspersample} bits with {name} compression, "
        "expected one that Pillow reads (pip install imagecodecs, or write it with deflate)"
    )
    if Image.MAX_IMAGE_PIXELS is not None and H * W > Image.MAX_IMAGE_PIXELS:
        raise _Refused(mend)
    rasters = []
    with open(path, "rb") as stream:
        try:
            file = TiffImagePlugin.TiffImageFile(stream)
            for other in series.pages:
                file.seek(0 if other is None else other.index)
                tiles = file.tile
                rasters.append(_from_pillow(file, page.bitspersample))
            if page.samplesperpixel == 4 and len(rasters) == 1 and len(rasters[0].values) == 3:
                rasters = [_add_fourth(stream, tiles, rasters[0])]
        except SyntaxError as error:  # in Pillow: a kind of image that it does not know
            raise _Refused(mend) from error
    if any(r.values.shape[1] * r.values.shape[2] != H * W for r in rasters):
        raise _Refused(mend)
    if 8 * rasters[0].values.dtype.itemsize < page.bitspersample:  # Pillow would drop half of each number
        raise _Refused(mend)
    raster = rasters[0]
    if page.photometric == 0 and raster.values.dtype == np.uint8:  # which Pillow has turned
        raster = dataclasses.replace(raster, values=(raster.top or 255) - raster.values, is_negative=True)
    if len(rasters) > 1:
        raster = dataclasses.replace(raster, values=np.concatenate([r.values for r in rasters]))
    if len(raster.values) * H * W != math.prod(series.shape) and page.photometric < 3 and raster.alpha is None:
        raise _Refused(mend)
    return raster


def _add_fourth(stream: BinaryIO, tiles: list[Any], raster: Raster) -> Raster:
    """With the fourth channel, if it is not alpha.

    Pillow drops it. Told that the first one is to be dropped, it gives the fourth.
    """
    if any(not isinstance(tile.args, tuple) or tile.args[0] != "RGBX" for tile in tiles):
        return raster
    stream.seek(0)
    file = TiffImagePlugin.TiffImageFile(stream)
    file.tile = [tile._replace(args=("XRGB", *tile.args[1:])) for tile in tiles]
    return dataclasses.replace(raster, values=np.concatenate([raster.values, _from_pillow(file).values[2:]]))


def _read_mask(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Array | None:
    """GDAL's mask of valid pixels, a page of its own behind those of the image."""
    size = (series.keyframe.imagelength, series.keyframe.imagewidth)
    for i in range(len(series.pages), len(tif.pages)):
        page = tif.pages[i].aspage()
        is_mask = page.subfiletype & 4 and not page.subfiletype & 1  # and not of an overview
        if is_mask and (page.imagelength, page.imagewidth) == size:
            return page.asarray(maxworkers=1).reshape(size) != 0
    return None
