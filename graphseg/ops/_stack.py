"""What superpixel functions share: images of one size or many brought to one layout, and counts for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphseg._checks import check_positive_int, check_shape, check_tensor, is_integer
from graphseg.ops._cells import CellGrid, cell_grid


class ImageStack:
    """Images of any sizes, each `[C, D, H, W]` (D = 1 in images), with masks, and how to hand back maps of them."""

    def __init__(self, images: Tensor | Sequence[Tensor], mask: Tensor | Sequence[Tensor | None] | None) -> None:
        self.form = "list"
        given: list[Any]
        masks: list[Any]
        if isinstance(images, Tensor):
            if images.dim() not in (3, 4, 5):
                raise ValueError(f"got shape {list(images.shape)} for images, expected [B, C, H, W] or [B, C, D, H, W]")
            self.form = "one" if images.dim() == 3 else "batch"
            given = [images] if images.dim() == 3 else list(images)
            self.sizes = tuple(images.shape[2:] if images.dim() > 3 else images.shape[1:])
            self.device = images.device
            if mask is not None:
                want = images.shape[1:] if images.dim() == 3 else (images.shape[0], *images.shape[2:])
                check_shape("mask", check_tensor("mask", mask), want)
            masks = [None] * len(given) if mask is None else [mask] if images.dim() == 3 else list(mask)
            self.dims = 3 if images.dim() == 5 else 2
            self.channels = images.shape[-1 - self.dims]
            dims = [self.dims] * len(given)
        elif not isinstance(images, Sequence):
            raise TypeError(f"got {type(images).__name__} for images, expected a torch.Tensor or a list of them")
        else:
            given = [check_tensor("images", image) for image in images]
            masks = [None] * len(given) if mask is None else list(mask)
            if isinstance(mask, Tensor) or len(masks) != len(given):
                raise ValueError(
                    f"got {len(masks)} masks, expected a list with one or None for each of {len(given)} images"
                )
            for image in given:
                if image.dim() not in (3, 4):
                    raise ValueError(f"got shape {list(image.shape)} in images, expected [C, H, W] or [C, D, H, W]")
            dims = [image.dim() - 1 for image in given]
            self.dims = dims[0] if dims else 2
            self.channels = given[0].shape[0] if given else 3
        kinds = {(image.shape[0], image.dtype, image.device, d) for image, d in zip(given, dims, strict=True)}
        if len(kinds) > 1:
            raise ValueError(
                f"got images of {len(kinds)} kinds, expected one number of channels and of axes, one dtype and device"
            )
        self.images = [image if self.dims == 3 else image[:, None] for image in given]
        for image in self.images:
            if 0 in image.shape:
                raise ValueError(f"got shape {list(image.shape)} for an image, expected at least one pixel and channel")
        self.masks = [_mask(m, image, self.dims) for m, image in zip(masks, self.images, strict=True)]

    def num_pixels(self, b: int) -> int:
        """Pixels of image b inside its mask."""
        mask = self.masks[b]
        return self.images[b][0].numel() if mask is None else int(mask.sum())

    def pack(self, labels: Sequence[Tensor]) -> Any:
        """Labels `[D, H, W]` in the form the images came in."""
        found = [one if self.dims == 3 else one[0] for one in labels]
        if self.form == "list":
            return found
        if self.form == "one":
            return found[0]
        if not found:
            return torch.empty((0, *self.sizes), dtype=torch.int64, device=self.device)
        return torch.stack(found)


def _mask(mask: object, image: Tensor, dims: int) -> Tensor | None:
    if mask is None:
        return None
    found = check_tensor("mask", mask)
    if found.dtype != torch.bool:
        raise TypeError(f"got dtype {found.dtype} for mask, expected torch.bool")
    check_shape("mask", found, image.shape[4 - dims :])
    if found.device != image.device:
        raise ValueError(f"got mask on {found.device}, images on {image.device}; expected one device")
    found = found.reshape(image.shape[1:])
    return None if bool(found.all()) else found


def segment_counts(num_segments: int | Sequence[int] | Tensor, images: int) -> list[int]:
    """The number of superpixels to ask for in each image."""
    if is_integer(num_segments):
        check_positive_int("num_segments", num_segments)  # type: ignore[arg-type]
        return [int(num_segments)] * images  # type: ignore[arg-type]
    if not isinstance(num_segments, Tensor | Sequence):
        raise TypeError(f"got {type(num_segments).__name__} for num_segments, expected an int or one for each image")
    counts = num_segments.tolist() if isinstance(num_segments, Tensor) else list(num_segments)
    if not isinstance(counts, list) or len(counts) != images:
        raise ValueError(f"got {num_segments} for num_segments, expected one number or one for each of {images} images")
    for count in counts:
        check_positive_int("num_segments", count)
    return counts


def read_spacing(spacing: Sequence[float] | None, dims: int) -> tuple[float, float, float]:
    """Sizes of a pixel along z, y, x, of what was given for the axes there are."""
    size = [1.0] * dims if spacing is None else [float(s) for s in spacing]
    if len(size) != dims or not all(math.isfinite(s) and s > 0 for s in size):
        raise ValueError(f"got spacing={spacing}, expected {dims} positive numbers, one for each axis")
    return (size[0], size[1], size[2]) if dims == 3 else (1.0, size[0], size[1])


def grid_of(
    stack: ImageStack,
    b: int,
    num_segments: int,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    at_least: bool = False,
) -> CellGrid:
    """The grid of cells that superpixels of image b begin with."""
    _, D, H, W = stack.images[b].shape
    return cell_grid((D, H, W), stack.dims, num_segments, stack.num_pixels(b), spacing, at_least)
