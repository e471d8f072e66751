"""Superpixels: batched SLIC on any device, at one scale or several, with exact counts; and the regular grid.

Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI 2012; the
zero-parameter variant is that paper's SLICO.

Differs from the paper:
- A pixel is compared with the centres of its own cell of the first grid and of those around it (nine in an image), not
  with all centres in a window that moves with them: the candidates of all pixels of a cell are the same.
- Colours and places are whole numbers (64 levels to a unit of Lab, fewer for a high compactness). Distances and sums
  are exact, so labels depend on neither device nor number of threads nor batch.
- First centres are the means of their cells, not the pixel of lowest gradient near their middle.
- Parts that are not connected, or too small, go to the neighbour of most similar mean colour, smallest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_choice, check_finite, check_positive_int
from graphseg.ops._cell_blocks import cell_pixels
from graphseg.ops._regions import Regions, merge
from graphseg.ops._slic import SlicImage, SlicOptions, find_regions_kernel, split
from graphseg.ops._slic_tensor import find_regions_tensor
from graphseg.ops._stack import ImageStack, grid_of, read_spacing, segment_counts


def slic(
    images: Tensor | Sequence[Tensor],
    num_segments: int | Sequence[int] | Tensor = 200,
    compactness: float = 10.0,
    iterations: int = 10,
    mask: Tensor | Sequence[Tensor | None] | None = None,
    exact: bool = False,
    *,
    adaptive: bool = False,
    color: str | None = None,
    spacing: Sequence[float] | None = None,
    min_size: float = 0.3,
) -> Any:
    """Superpixels by SLIC: k-means over colour and place, with the nine centres around each pixel as candidates.

        d(p, k)^2 = |colour(p) - colour(k)|^2 + (compactness / S)^2 |place(p) - place(k)|^2
        S = sqrt(H W / num_segments), in volumes the third root

    Every superpixel is connected (4-connected, in volumes 6-connected). The same labels on every device.

    Args:
        images: `[B, C, H, W]`, one image `[C, H, W]`, volumes `[B, C, D, H, W]`, or a list of images `[C, H, W]` or of
            volumes `[C, D, H, W]` of different sizes. uint8, uint16, or floating-point in [0, 1].
        num_segments: about how many superpixels; one number, or one for each image.
        compactness: weight of place against colour; one step S counts as much as this many units of Lab.
        iterations: rounds of assignment and new centres, at most; it ends when no pixel moves any more.
        mask: bool, like the labels (for a list, a list with None where there is none); pixels where it is False
            belong to no superpixel.
        exact: give exactly `num_segments` in every image. Parts are absorbed, neighbours merged or regions cut in two
            where that changes the squared error the least (or lowers it the most).
        adaptive: the zero-parameter variant (SLICO): colours count relative to the largest distance within each
            superpixel in the round before; `compactness` only begins it.
        color: "lab" takes channels as sRGB and compares in CIELAB; "none" takes them as they are, [0, 1] as
            [0, 100 / sqrt(C)]. Default: "lab" for three channels.
        spacing: size of a pixel along each axis, (y, x) or (z, y, x). Default: 1.
        min_size: parts of fewer pixels than this share of the mean (pixels / num_segments) are absorbed.

    Returns:
        int64 labels `[B, H, W]`, `[H, W]`, `[B, D, H, W]` or a list, as the images came. In each image they run from 0
        without gaps, by the first pixel of each superpixel in scan order; -1 where `mask` is False.

    Raises:
        TypeError: for images, a mask or counts of the wrong dtype.
        ValueError: for wrong shapes or ranges; with `exact`, if an image has fewer pixels in its mask than
            `num_segments`, or more unconnected parts.
    """
    stack = ImageStack(images, mask)
    options = _options(stack, compactness, iterations, adaptive, color, spacing, min_size)
    images_found = _images(stack, segment_counts(num_segments, len(stack.images)), options, exact)
    return stack.pack([found.labels() for found in _cut(images_found, options, exact)])


def multiscale_slic(
    images: Tensor | Sequence[Tensor],
    num_segments: Sequence[int] = (200, 300, 400),
    compactness: float = 10.0,
    iterations: int = 10,
    mask: Tensor | Sequence[Tensor | None] | None = None,
    exact: bool = False,
    *,
    nested: bool = False,
    adaptive: bool = False,
    color: str | None = None,
    spacing: Sequence[float] | None = None,
    min_size: float = 0.3,
) -> list[Any]:
    """Superpixels at several scales, coarse to fine, as `MultiscaleSuperpixelMean` takes them.

    Args:
        images: as for `slic`.
        num_segments: about how many at each scale, for all images; must not fall.
        compactness, iterations, mask, adaptive, color, spacing, min_size: as for `slic`.
        exact: exactly `num_segments` at every scale.
        nested: make every superpixel a part of one at the coarser scale. The finest scale is cut by SLIC; coarser ones
            come from it by merging the neighbours whose union adds the least squared error, down to exactly the count.

    Returns:
        A list with the labels of each scale, each as `slic` gives them.

    Raises:
        TypeError, ValueError: as for `slic`, and for counts that fall.
    """
    counts = list(num_segments)
    for count in counts:
        check_positive_int("num_segments", count)
    if not counts or counts != sorted(counts):
        raise ValueError(f"got num_segments={tuple(counts)}, expected one count or more that do not fall")
    stack = ImageStack(images, mask)
    options = _options(stack, compactness, iterations, adaptive, color, spacing, min_size)
    B = len(stack.images)
    if not nested:
        scales = [_cut(_images(stack, [count] * B, options, exact), options, exact) for count in counts]
    else:
        scales = [_cut(_images(stack, counts[-1:] * B, options, exact), options, exact)]
        for count in reversed(counts[:-1]):
            scales.insert(0, [merge(found, 0, count, count) for found in scales[0]])
            if exact:
                _check_connected(scales[0], [count] * B)
    return [stack.pack([found.labels() for found in scale]) for scale in scales]


def regular_grid(
    images: Tensor | Sequence[Tensor],
    num_segments: int | Sequence[int] | Tensor = 200,
    mask: Tensor | Sequence[Tensor | None] | None = None,
) -> Any:
    """Superpixels that are the cells of a grid, near to squares or cubes; what SLIC begins with.

    Args:
        images: as for `slic`; only their sizes count.
        num_segments: about how many cells; one number, or one for each image.
        mask: as for `slic`. Cells without a pixel in it fall away; one that it cuts in two stays one superpixel.

    Returns:
        int64 labels as those of `slic`, -1 where `mask` is False.

    Raises:
        TypeError, ValueError: as for `slic`.
    """
    stack = ImageStack(images, mask)
    counts = segment_counts(num_segments, len(stack.images))
    if not stack.images:
        return stack.pack([])
    grids = [grid_of(stack, b, count) for b, count in enumerate(counts)]
    pixels = cell_pixels(grids, stack.masks, stack.images[0].device)
    at = torch.nonzero(pixels.inside)[:, 0]
    first = at.new_full((len(pixels.filled),), len(pixels.inside))
    first = first.scatter_reduce(0, pixels.cell[at], at, "amin")  # the first pixel of every cell
    node = torch.empty_like(first)
    node[first.argsort(stable=True)] = torch.arange(len(first), device=first.device)
    start = at.new_full((len(grids),), len(first)).scatter_reduce(0, pixels.image[at], node[pixels.cell[at]], "amin")
    labels = torch.where(pixels.inside, node[pixels.cell] - start[pixels.image], -1)
    return stack.pack([part.view(grid.shape) for part, grid in zip(labels.split(pixels.lengths), grids, strict=True)])


def _levels(image: Tensor) -> Tensor:
    """An image `[C, D, H, W]` as uint8, or in 0 ... 65535 as uint16 (int32 where there are no operations on that)."""
    image = image.detach()
    cpu = image.device.type == "cpu"
    if image.dtype in (torch.uint8, torch.uint16):
        return image if cpu or image.dtype == torch.uint8 else image.to(torch.int32)
    if not image.is_floating_point():
        raise TypeError(f"got dtype {image.dtype} for images, expected uint8, uint16 or floating-point in [0, 1]")
    if image.dtype not in (torch.float32, torch.float64):
        image = image.float()
    if cpu:
        from graphseg.ops.kernels.slic import to_levels

        values = np.ascontiguousarray(image.numpy())
        found = np.empty(values.shape, np.uint16)
        levels, outside = torch.from_numpy(found), to_levels(values.reshape(-1), found.reshape(-1))
    else:
        levels = torch.floor(image.double() * 65535 + 0.5).to(torch.int32)
        outside = int((~((image >= 0) & (image <= 1))).sum())
    if outside:
        check_finite("images", image)
        low, high = float(image.min()), float(image.max())
        raise ValueError(f"got values from {low:g} to {high:g} in images, expected floating-point values in [0, 1]")
    return levels


def _options(
    stack: ImageStack,
    compactness: float,
    iterations: int,
    adaptive: bool,
    color: str | None,
    spacing: Sequence[float] | None,
    min_size: float,
) -> SlicOptions:
    check_positive_int("iterations", iterations)
    for name, value in (("compactness", compactness), ("min_size", min_size)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"got {name}={value}, expected a finite number that is not negative")
    if adaptive and compactness == 0:
        raise ValueError("got compactness=0 with adaptive=True, expected a positive number to begin with")
    if color is None:
        color = "lab" if stack.channels == 3 else "none"
    check_choice("color", color, ("lab", "none"))
    if color == "lab" and stack.channels != 3:
        raise ValueError(f"got {stack.channels} channels in images, expected 3 (red, green, blue) for color='lab'")
    size = read_spacing(spacing, stack.dims)
    return SlicOptions.of(color == "lab", stack.dims, compactness, iterations, adaptive, min_size, size)


def _images(stack: ImageStack, counts: list[int], options: SlicOptions, exact: bool) -> list[SlicImage]:
    return [
        SlicImage(
            _levels(image),
            stack.masks[b],
            counts[b],
            stack.num_pixels(b),
            grid_of(stack, b, counts[b], options.spacing, exact),
        )
        for b, image in enumerate(stack.images)
    ]


def find_regions(images: Sequence[SlicImage], options: SlicOptions) -> list[Regions]:
    """The connected parts of the clusters that SLIC finds in every image."""
    if not images:
        return []
    on_cpu = images[0].levels.device.type == "cpu"
    return find_regions_kernel(images, options) if on_cpu else find_regions_tensor(images, options)


def _cut(images: Sequence[SlicImage], options: SlicOptions, exact: bool) -> list[Regions]:
    """The superpixels of every image."""
    from graphseg.ops.kernels.threads import map_threads

    for b, image in enumerate(images):
        if exact and image.num_pixels < image.num_segments:
            raise ValueError(
                f"got {image.num_pixels} pixels in image {b}, expected at least num_segments={image.num_segments} "
                "with exact=True"
            )

    def settle(item: tuple[SlicImage, Regions]) -> Regions:
        image, regions = item
        count = image.num_segments
        smallest = math.ceil(options.min_size * image.num_pixels / count)
        if not exact:
            return merge(regions, smallest, 1, regions.count)
        regions = merge(regions, smallest, count, count)
        return split(image, regions, count, options) if regions.count < count else regions

    found = map_threads(settle, list(zip(images, find_regions(images, options), strict=True)))
    if exact:
        _check_connected(found, [image.num_segments for image in images])
    return found


def _check_connected(found: Sequence[Regions], counts: Sequence[int]) -> None:
    for b, (regions, count) in enumerate(zip(found, counts, strict=True)):
        if regions.count > count:
            raise ValueError(
                f"got a mask of {regions.count} unconnected parts in image {b}, expected at most num_segments={count} "
                "with exact=True"
            )
