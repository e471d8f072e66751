"""Augmentation of an image and everything aligned with it, before it becomes a graph.

Each transform takes `Data(image=[C, H, W], ...)` and changes, by one draw, the image and those of these
maps that are there: `mask`, `valid`, `segments`, `instances` and `boundary`, all `[H, W]`, `annotations`,
`[A, H, W]`, and `superpixels`, `[S, H, W]`, whose ids stay as they are. A georeference `geo` holds for the
image as it was read: where the image was flipped, turned, scaled or cut, it becomes "". Other fields stay as
they are. The input is never changed. The image is uint8, uint16 (any integers where no range is needed) or
floating-point, and keeps its dtype.

Random numbers: with `seed=None` they come from torch's global generator, which a `DataLoader` seeds anew
for every worker and epoch. With a seed, the transform owns a generator: the same seed and the same calls in
the same order give the same draws, in a worker together with that worker's own seed, so that no two workers
and no two epochs repeat each other, and `torch.manual_seed` before the epoch repeats all of it. Transforms
of different classes draw differently from one seed. A pickled or copied transform starts from its seed
again.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import get_worker_info
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from graphseg._checks import check_integer, check_positive_int, check_shape, check_tensor
from graphseg.ops.rag import relabel
from graphseg.ops.resize import resize_nearest
from graphseg.transforms._base import MAP_FIELDS, NO_ANNOTATION, check_image, check_map

__all__ = [
    "ColorJitter",
    "ImageAugmentation",
    "RandomImageCrop",
    "RandomImageFlip",
    "RandomImageScale",
    "RandomQuarterTurn",
    "ResizeImage",
]

SCALES = "superpixels"  # the field of label maps at several scales
_UNCHANGED = (1.0, 1.0)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class ImageAugmentation(BaseTransform):
    """The base of all augmentation: checks the input, draws, and hands both on to `apply`.

    Args:
        seed: see the module.
    """

    num_draws: int

    def __init__(self, seed: int | None) -> None:
        if seed is not None:
            check_positive_int("seed", seed, minimum=0)
        self.seed = seed
        self._generator: torch.Generator | None = None
        self._worker_seed: int | None = None

    @abstractmethod
    def apply(self, data: Data, draws: list[float]) -> Data:
        """Changes the fields of `data`, a shallow copy, by `draws`, numbers in [0, 1)."""

    def forward(self, data: Data) -> Data:
        image = check_image(data)
        for name in _fields(data)[1:]:
            data[name] = check_scales(data[name], image) if name == SCALES else check_map(name, data[name], image)
        # As many numbers in every call, used or not: what one call does never shifts the draws of the next.
        draws = torch.rand(self.num_draws, dtype=torch.float64, generator=self._stream()).tolist()
        return self.apply(data, draws)

    def _stream(self) -> torch.Generator | None:
        if self.seed is None:
            return None
        worker = get_worker_info()
        worker_seed = None if worker is None else worker.seed
        if self._generator is None or worker_seed != self._worker_seed:
            words = [self.seed, zlib.crc32(type(self).__name__.encode())]
            words += [] if worker_seed is None else [worker_seed]
            state = np.random.SeedSequence(words).generate_state(1, np.uint64)
            self._generator = torch.Generator().manual_seed(int(state[0]))
            self._worker_seed = worker_seed
        return self._generator

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_generator": None, "_worker_seed": None}

    def __repr__(self) -> str:
        parameters = [f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_")]
        return f"{type(self).__name__}({', '.join(parameters)})"


class RandomImageFlip(ImageAugmentation):
    """Mirrors left-right, upside down, or both.

    Args:
        horizontal: probability of mirroring left-right.
        vertical: probability of mirroring upside down.
        seed: see the module.
    """

    num_draws = 2

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0, *, seed: int | None = None) -> None:
        super().__init__(seed)
        self.horizontal = _probability("horizontal", horizontal)
        self.vertical = _probability("vertical", vertical)

    def apply(self, data: Data, draws: list[float]) -> Data:
        for draw, chance, dim in [(draws[0], self.horizontal, -1), (draws[1], self.vertical, -2)]:
            if draw < chance:
                _drop_geo(data)
                for name in _fields(data):
                    data[name] = _flip(data[name], dim)
        return data


class RandomQuarterTurn(ImageAugmentation):
    """Turns by 0, 90, 180 or 270 degrees counter-clockwise, each with probability 1/4.

    Args:
        seed: see the module.
    """

    num_draws = 1

    def __init__(self, *, seed: int | None = None) -> None:
        super().__init__(seed)

    def apply(self, data: Data, draws: list[float]) -> Data:
        turns = int(draws[0] * 4)
        if turns == 0:
            return data
        _drop_geo(data)
        for name in _fields(data):
            value = data[name]
            if turns == 2:
                data[name] = _flip(_flip(value, -1), -2)
            else:
                data[name] = _flip(value.transpose(-1, -2), -2 if turns == 1 else -1)
        return data


class RandomImageScale(ImageAugmentation):
    """Scales height and width by one factor, drawn evenly from [low, high]. Sides are whole, at least 1.

    The image and `boundary` are interpolated bilinearly, with antialiasing where they shrink; integer
    images are rounded. The other maps take the nearest pixel; `segments` are then numbered from 0 again,
    without gaps. Where there is a `valid` map, only valid pixels enter the interpolation, and pixels that
    are not valid become 0.

    Args:
        low, high: the range of the factor, 0 < low <= high.
        p: probability of scaling at all.
        seed: see the module.
    """

    num_draws = 2

    def __init__(self, low: float, high: float, *, p: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        if not 0 < low <= high < float("inf"):
            raise ValueError(f"got low={low}, high={high}, expected 0 < low <= high")
        self.low, self.high, self.p = low, high, _probability("p", p)

    def apply(self, data: Data, draws: list[float]) -> Data:
        factor = self.low + draws[1] * (self.high - self.low)
        H, W = data.image.shape[1:]
        size = max(1, round(H * factor)), max(1, round(W * factor))
        return data if draws[0] >= self.p else _scaled(data, size)


class ResizeImage(ImageAugmentation):
    """Scales to one size; nothing is drawn. Image and maps are treated as by `RandomImageScale`.

    Args:
        size: (height, width) in pixels.
    """

    num_draws = 0

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(None)
        height, width = size
        check_positive_int("height", height)
        check_positive_int("width", width)
        self.size = height, width

    def apply(self, data: Data, draws: list[float]) -> Data:
        return _scaled(data, self.size)


class RandomImageCrop(ImageAugmentation):
    """Cuts out a window at a random place; a smaller image lies at a random place in it, and is padded.

    Padding is `pad_value` in the image, `ignore_index` in `mask`, 0 (background) in `instances`, False in
    `valid`, 0 in `boundary`, -1 in `annotations`, and one more superpixel at every scale of `superpixels`. No id
    of `segments` means "no region", so they are not padded but refused. Where segments were cut, they are
    numbered from 0 again, without gaps.

    Args:
        size: height and width of the window, or one number for both.
        pad_value: value of padded pixels in the image, in its own units.
        ignore_index: class of padded pixels in `mask`.
        seed: see the module.
    """

    num_draws = 2

    def __init__(
        self,
        size: int | tuple[int, int],
        pad_value: float = 0.0,
        ignore_index: int = 255,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        height, width = (size, size) if isinstance(size, int) else size
        check_positive_int("height", height)
        check_positive_int("width", width)
        self.size = height, width
        self.pad_value = pad_value
        self.ignore_index = ignore_index

    def apply(self, data: Data, draws: list[float]) -> Data:
        H, W = data.image.shape[1:]
        h, w = self.size
        if data.get("segments") is not None and (h > H or w > W):
            raise ValueError(
                f"got segments of {H} x {W}, expected at least the crop's {h} x {w}: they cannot be padded"
            )
        y, x = int(draws[0] * (abs(H - h) + 1)), int(draws[1] * (abs(W - w) + 1))
        source = _span(y, H, h)[0], _span(x, W, w)[0]
        target = _span(y, H, h)[1], _span(x, W, w)[1]
        padding = {"image": self.pad_value, "mask": self.ignore_index, "annotations": NO_ANNOTATION, SCALES: -1}
        if (h, w) != (H, W):
            _drop_geo(data)
        for name in _fields(data):
            part = data[name][..., source[0], source[1]]
            if h <= H and w <= W:
                data[name] = part.contiguous()
                continue
            out = _full(name, data[name], (h, w), padding.get(name, 0))
            out[..., target[0], target[1]] = part
            data[name] = out if name != SCALES else out.where(out >= 0, out.amax((1, 2), keepdim=True) + 1)
        return _relabel_segments(data)


class ColorJitter(ImageAugmentation):
    """Changes hue, saturation, contrast and brightness, in this order, and no other field than the image.

    With x the image in [0, 1] (integers by their dtype's maximum, floating-point values as they are):

        hue:         the angle of the HSV hexcone turns by h, with max(x) and max(x) - min(x) of a pixel
            unchanged
        saturation:  x = g + s (x - g),  g = 0.299 R + 0.587 G + 0.114 B
        contrast:    x = m + c (x - m),  m the mean of each channel over the valid pixels
        brightness:  x = b x

    Integer images are rounded and clamped to their range; floating-point images are not clamped.

    Args:
        brightness, contrast, saturation: the factors b, c, s are drawn evenly from [max(0, 1 - value), 1 +
            value], or from a pair (low, high). 0: no change. The first two take any number of channels,
            `saturation` 3.
        hue: h is drawn evenly from [-value, value], or from a pair, in turns: at most 0.5 either way. 3
            channels.
        p: probability of any change.
        seed: see the module.
    """

    num_draws = 5

    def __init__(
        self,
        brightness: float | tuple[float, float] = 0.0,
        contrast: float | tuple[float, float] = 0.0,
        saturation: float | tuple[float, float] = 0.0,
        hue: float | tuple[float, float] = 0.0,
        *,
        p: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.brightness = _range("brightness", brightness, 1.0, 0.0, float("inf"))
        self.contrast = _range("contrast", contrast, 1.0, 0.0, float("inf"))
        self.saturation = _range("saturation", saturation, 1.0, 0.0, float("inf"))
        self.hue = _range("hue", hue, 0.0, -0.5, 0.5)
        self.p = _probability("p", p)

    def apply(self, data: Data, draws: list[float]) -> Data:
        image = data.image
        colour = any(self.hue) or self.saturation != _UNCHANGED
        if colour and image.size(0) != 3:
            raise ValueError(f"got {image.size(0)} channels in image, expected 3 for saturation and hue")
        if not image.is_floating_point() and image.dtype not in (torch.uint8, torch.uint16):
            raise TypeError(f"got dtype {image.dtype} for image, expected uint8, uint16 or floating-point")
        if draws[0] >= self.p:
            return data
        ranges = (self.hue, self.saturation, self.contrast, self.brightness)
        h, s, c, b = (low + u * (high - low) for u, (low, high) in zip(draws[1:], ranges, strict=True))
        floating = image.is_floating_point()
        x = image.to(torch.promote_types(image.dtype, torch.float32) if floating else torch.float32)
        if h != 0:
            x = _turn_hue(x, h)
        if s != 1:
            grey = sum(weight * channel for weight, channel in zip(_LUMA, x, strict=True))  # [H, W]
            x = grey + s * (x - grey)
        if c != 1:
            counted = x.flatten(1) if data.get("valid") is None else x[:, data.valid]  # [C, P]
            mean = counted.mean(1).view(-1, 1, 1) if counted.numel() else 0.0
            x = mean + c * (x - mean)
        if b != 1:
            x = b * x
        data.image = _restore(x, image.dtype)
        return data


def _scaled(data: Data, size: tuple[int, int]) -> Data:
    """`data`, a shallow copy, in another size."""
    if tuple(data.image.shape[1:]) == size:
        return data
    valid = data.get("valid")
    _drop_geo(data)
    for name in _fields(data):
        if name == "image":
            data.image = _interpolate(data.image, size, valid)
        elif name == "boundary":
            data.boundary = _interpolate(data.boundary.unsqueeze(0), size, valid).squeeze(0)
        else:
            data[name] = resize_nearest(data[name], size)
    return _relabel_segments(data)


def _fields(data: Data) -> list[str]:
    return [name for name in ("image", *MAP_FIELDS, SCALES) if data.get(name) is not None]


def check_scales(value: object, image: Tensor) -> Tensor:
    """Returns superpixels of several scales; raises unless they are integers `[S, H, W]` of the image's size."""
    labels = check_tensor(SCALES, value)
    check_integer(SCALES, labels)
    check_shape(SCALES, labels, (None, *image.shape[1:]))
    return labels


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"got {name}={value}, expected a probability in [0, 1]")
    return value


def _range(name: str, value: float | Sequence[float], centre: float, low: float, high: float) -> tuple[float, float]:
    if isinstance(value, int | float):
        if not 0 <= value < float("inf"):
            raise ValueError(f"got {name}={value}, expected a number of at least 0 or a pair")
        value = max(low, centre - value), centre + value
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f"got {name}={value}, expected low <= high within [{low}, {high}]")
    return float(value[0]), float(value[1])


def _flip(value: Tensor, dim: int) -> Tensor:
    # Not torch.flip, which does not take uint16.
    return value.index_select(dim, torch.arange(value.size(dim) - 1, -1, -1, device=value.device))


def _interpolate(image: Tensor, size: tuple[int, int], valid: Tensor | None) -> Tensor:
    """Resizes [C, H, W] to `size`: sum(w x) / sum(w) over valid pixels, w the bilinear filter."""
    x = image.to(torch.float64 if image.dtype == torch.float64 else torch.float32)
    if valid is None:
        return _restore(_bilinear(x, size), image.dtype)
    weight = _bilinear(valid.to(x.dtype).unsqueeze(0), size)  # [1, h, w]
    x = _bilinear(x.masked_fill(~valid, 0), size) / weight.where(weight > 0, 1)
    # The pixel nearest to a valid one always has a weight.
    return _restore(x.masked_fill(~resize_nearest(valid, size), 0), image.dtype)


def _bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x.unsqueeze(0), size=size, mode="bilinear", align_corners=False, antialias=True).squeeze(0)


def _restore(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounds and clamps where `dtype` is an integer type."""
    if dtype.is_floating_point:
        return x.to(dtype)
    limits = torch.iinfo(dtype)
    return x.round().clamp(limits.min, limits.max).to(dtype)


def _drop_geo(data: Data) -> None:
    if data.get("geo") is not None:
        data.geo = ""  # not deleted: graphs of one dataset have the same fields


def _relabel_segments(data: Data) -> Data:
    """Numbers the segments that are left from 0, in the order of their old ids."""
    segments = data.get("segments")
    if segments is not None:
        data.segments = relabel(segments).to(segments.dtype)
    return data


def _span(offset: int, have: int, want: int) -> tuple[slice, slice]:
    """Where to read and to write along one side: the window lies in the image, or the image in the window."""
    if have >= want:
        return slice(offset, offset + want), slice(0, want)
    return slice(0, have), slice(offset, offset + have)


def _full(name: str, like: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    if not like.is_floating_point() and like.dtype != torch.bool:
        limits = torch.iinfo(like.dtype)
        if not float(fill).is_integer() or not limits.min <= fill <= limits.max:
            raise ValueError(
                f"got padding {fill} for {name}, expected a whole number from {limits.min} to {limits.max}"
            )
        fill = int(fill)
    return torch.full((*like.shape[:-2], *size), fill, dtype=like.dtype, device=like.device)


def _turn_hue(x: Tensor, turns: float) -> Tensor:
    """Turns the hue of x [3, H, W] on the hexcone; V = max and chroma = max - min stay."""
    red, green, blue = x
    value, brightest = x.max(0)
    chroma = value - x.min(0).values
    safe = chroma.where(chroma > 0, 1)
    # Sixths of a turn, from red over green to blue.
    sector = torch.stack([(green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4])  # [3, H, W]
    hue = sector.gather(0, brightest.unsqueeze(0)).squeeze(0) + 6 * turns  # [H, W]
    start = torch.tensor([5, 3, 1], dtype=x.dtype, device=x.device).view(3, 1, 1)
    k = (start + hue) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
