"""Soft superpixels: SLIC made differentiable, each pixel shared among the nine centres around it.

Source: Jampani et al., "Superpixel Sampling Networks", ECCV 2018, Algorithm 1.

Differs from the paper: what a pixel gives to its centres sums to 1 (a softmax, as in the paper's published code).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_finite, check_positive_int
from graphseg.ops._cell_blocks import CellBlock, CellPixels, cell_blocks, cell_pixels
from graphseg.ops._regions import merge, region_graph
from graphseg.ops._stack import ImageStack, grid_of, read_spacing, segment_counts

__all__ = ["SoftSuperpixels", "soft_slic"]

_LEVELS = 2**15  # of features, where regions are compared in whole numbers


@dataclass(frozen=True)
class SoftSuperpixels:
    """Pixels and superpixels of a batch as a sparse bipartite graph; what `soft_slic` returns.

    Args:
        edge_index: `[2, E]`, pixel and superpixel of every edge, by pixel and then superpixel. Both are numbered over
            the batch, image after image; pixels in scan order, superpixels by cell of the grid they began in.
        weight: `[E]`, the probability of the superpixel given the pixel; those of a pixel sum to 1. Has gradients.
        num_pixels: P, pixels in the batch, also those outside the mask (which have no edges).
        num_nodes: N, superpixels in the batch.
        batch: `[N]`, the image of every superpixel.
        centres: `[N, F]`, features of every superpixel. Have gradients.
        features: `[P, F]`, what pixels were compared by, without gradients.
        stack: the images, for the form of labels.
    """

    edge_index: Tensor
    weight: Tensor
    num_pixels: int
    num_nodes: int
    batch: Tensor
    centres: Tensor
    features: Tensor
    stack: ImageStack

    def assignment(self) -> Tensor:
        """Sparse `[P, N]`, as `pool` and `project` take it (with the mask as `valid`). Gradients flow through it."""
        size = (self.num_pixels, self.num_nodes)
        return torch.sparse_coo_tensor(self.edge_index, self.weight, size, is_coalesced=True, check_invariants=False)

    def labels(self, connected: bool = True, min_size: float = 0.3) -> Any:
        """Hard labels: of every pixel its most probable superpixel, of equals the first.

        Args:
            connected: make superpixels connected as `slic` does: parts of fewer pixels than `min_size` of the mean
                become part of the neighbour with the most similar mean features, others are superpixels of their own.
            min_size: share of the mean size; not read without `connected`.

        Returns:
            int64 labels in the form of the images, in each from 0 without gaps; -1 outside the mask.

        Raises:
            ValueError: for a negative min_size.
        """
        from graphseg.ops.kernels.threads import map_threads

        if not (math.isfinite(min_size) and min_size >= 0):
            raise ValueError(f"got min_size={min_size}, expected a finite number that is not negative")
        pixel, node = self.edge_index
        weight = self.weight.detach()
        top = weight.new_zeros(self.num_pixels).scatter_reduce(0, pixel, weight, "amax")
        best = torch.where(weight == top[pixel], node, self.num_nodes)
        hard = torch.full_like(top, self.num_nodes, dtype=torch.int64).scatter_reduce(0, pixel, best, "amin")
        lengths = [image[0].numel() for image in self.stack.images]
        parts = [
            torch.where(part == self.num_nodes, -1, part).view(image.shape[1:])
            for part, image in zip(hard.split(lengths), self.stack.images, strict=True)
        ]
        nodes = torch.bincount(self.batch, minlength=len(parts)).tolist()
        if not connected:
            return self.stack.pack([_from_zero(part) for part in parts])
        items = list(zip(parts, self.features.split(lengths), nodes, strict=True))
        return self.stack.pack(map_threads(lambda item: _connected(*item, min_size), items))


def soft_slic(
    features: Tensor | Sequence[Tensor],
    num_segments: int | Sequence[int] | Tensor = 200,
    compactness: float = 10.0,
    iterations: int = 10,
    mask: Tensor | Sequence[Tensor | None] | None = None,
    *,
    temperature: float | Tensor = 15.0,
    spacing: Sequence[float] | None = None,
) -> SoftSuperpixels:
    """SLIC with soft assignments, through which gradients reach the features.

        q(p, k) = softmax over k of -d(p, k)^2 / temperature
        centre(k) = sum_p q(p, k) f(p) / sum_p q(p, k),   f = (features, places)
        d(p, k)^2 = |features(p) - features(k)|^2 + (compactness / S)^2 |place(p) - place(k)|^2

    over the nine superpixels k around the pixel (27 in a volume), `iterations` times, beginning with the means of the
    cells of a regular grid. The defaults are the paper's scales for CIELAB (`rgb_to_lab`): 0.26 for colours, 2.5 for
    places, rounded. Memory is linear in pixels for each iteration.

    Args:
        features: floating-point `[B, C, H, W]`, `[C, H, W]`, `[B, C, D, H, W]`, or a list of different sizes: colours,
            or what a network makes of them. In any range; `temperature` is in their unit, squared.
        num_segments: about how many superpixels; one number, or one for each image.
        compactness: weight of place against features; 0 leaves places out.
        iterations: of soft assignment and new centres.
        mask: as for `slic`.
        temperature: positive; the lower, the harder. A tensor may be learned.
        spacing: as for `slic`.

    Returns:
        The sparse graph, with `assignment()` for `pool` and `project`, and `labels()`.

    Raises:
        TypeError: if features are not floating-point.
        ValueError: for wrong shapes or ranges, NaN in features.
    """
    stack = ImageStack(features, mask)
    counts = segment_counts(num_segments, len(stack.images))
    check_positive_int("iterations", iterations)
    if not (math.isfinite(compactness) and compactness >= 0):
        raise ValueError(f"got compactness={compactness}, expected a finite number that is not negative")
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1:
            raise ValueError(f"got shape {list(temperature.shape)} for temperature, expected a single number")
        temperature = temperature.reshape(())
    value = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
    if not value > 0:
        raise ValueError(f"got temperature={value}, expected a positive number")
    for image in stack.images:
        if not image.is_floating_point():
            raise TypeError(f"got dtype {image.dtype} for features, expected floating-point")
        check_finite("features", image.detach())
    if not stack.images:
        raise ValueError("got no images in features, expected at least one")
    size = read_spacing(spacing, stack.dims)
    grids = [grid_of(stack, b, count, size) for b, count in enumerate(counts)]
    pixels = cell_pixels(grids, stack.masks, stack.images[0].device)
    values = torch.cat([image.flatten(1) for image in stack.images], 1).T  # [P, C]
    dtype = values.dtype if values.dtype == torch.float64 else torch.float32
    step = values.new_tensor([grid.step for grid in grids], dtype=dtype)[pixels.image]  # [P]
    scale = values.new_tensor(size[3 - stack.dims :], dtype=dtype) * compactness
    if isinstance(temperature, Tensor):
        temperature = temperature.to(values.device, dtype)
    places = pixels.place[:, 3 - stack.dims :] * scale / step[:, None]  # [P, dims]
    with torch.autocast(values.device.type, enabled=False):
        full = torch.cat([values.to(dtype), places], 1)  # [P, F]
        return _iterate(full, pixels, stack, iterations, temperature)


def _iterate(
    features: Tensor, pixels: CellPixels, stack: ImageStack, iterations: int, temperature: float | Tensor
) -> SoftSuperpixels:
    P, F = features.shape
    G, J = pixels.neighbours.shape
    blocks = [_Block(block, features) for block in cell_blocks(pixels)]
    centres = features.new_zeros(G, F)
    for block in blocks:
        centres = centres.index_copy(0, block.cells, block.mean())
    shares: list[Tensor] = []
    for _ in range(iterations):
        shares = [block.shares(centres, temperature) for block in blocks]
        total = features.new_zeros(G, F + 1)
        for block, share in zip(blocks, shares, strict=True):
            total = block.add(total, share)
        # A centre to which every pixel gives so little that it is 0 in floating-point stays where it is.
        some = total[:, -1:] > 0
        centres = torch.where(some, total[:, :-1] / torch.where(some, total[:, -1:], 1), centres)
    weight = features.new_zeros(P, J)
    near = torch.full((P, J), -1, device=features.device)
    for block, share in zip(blocks, shares, strict=True):
        weight = weight.index_copy(0, block.pixels, share[block.inside])
        near[block.pixels] = block.candidates()[block.inside]
    node = pixels.cell_nodes()
    pixel, column = torch.nonzero(near >= 0, as_tuple=True)
    image_of = torch.bucketize(torch.nonzero(pixels.filled)[:, 0], pixels.first_cell, right=True) - 1
    return SoftSuperpixels(
        edge_index=torch.stack([pixel, node[near[pixel, column]]]),
        weight=weight[pixel, column],
        num_pixels=P,
        num_nodes=int(pixels.filled.sum()),
        batch=image_of,
        centres=centres[pixels.filled],
        features=features.detach(),
        stack=stack,
    )


class _Block:
    """One block of cells and the features `[g, S, F]` of its pixels, taken from the mean of each cell: differences of
    nearby numbers lose no digits."""

    def __init__(self, block: CellBlock, features: Tensor) -> None:
        self.cells, self.near, self.missing = block.cells, block.near, block.missing
        self.inside = block.pixels >= 0  # [g, S]
        self.pixels = block.pixels[self.inside]
        padded = features[block.pixels.clamp(min=0)] * self.inside[..., None]  # [g, S, F]
        count = self.inside.sum(1)[:, None]  # [g, 1]
        self.first = padded.sum(1) / count  # [g, F]
        self.origin = self.first.detach()
        self.values = (padded - self.origin[:, None]) * self.inside[..., None]

    def mean(self) -> Tensor:
        return self.first

    def candidates(self) -> Tensor:
        """`[g, S, J]`: the cells around every pixel, -1 for none."""
        near = torch.where(self.missing, -1, self.near)
        return near[:, None].expand(-1, self.inside.shape[1], -1)

    def shares(self, centres: Tensor, temperature: float | Tensor) -> Tensor:
        """`[g, S, J]`: what every pixel gives to the centres around it."""
        near = centres[self.near] - self.origin[:, None]  # [g, J, F]
        # |value|^2 is the same for all centres of a pixel and falls out of the softmax, and so does the least distance:
        # without it, the nearest centre keeps its share at the lowest temperatures.
        distance = near.square().sum(2)[:, None] - 2 * torch.bmm(self.values, near.transpose(1, 2))
        missing = self.missing[:, None]
        least = distance.detach().masked_fill(missing, torch.inf).amin(2, keepdim=True)
        return torch.softmax(((least - distance) / temperature).masked_fill(missing, -torch.inf), 2)

    def add(self, total: Tensor, share: Tensor) -> Tensor:
        """`total [G, F + 1]` with the weighted sums of features, and of weights, that this block gives."""
        share = share * self.inside[..., None]
        mass = share.sum(1)[..., None]  # [g, J, 1]
        sums = torch.bmm(share.transpose(1, 2), self.values) + mass * self.origin[:, None]  # [g, J, F]
        rows = torch.cat([sums, mass], 2).flatten(0, 1)
        return total.index_add(0, self.near.flatten(), rows)


def _from_zero(labels: Tensor) -> Tensor:
    """Labels without gaps, in their order; -1 stays."""
    found, number = torch.unique(labels, return_inverse=True)
    return number - 1 if found.numel() and int(found[0]) < 0 else number


def _connected(labels: Tensor, features: Tensor, num_nodes: int, min_size: float) -> Tensor:
    """Labels `[D, H, W]` made connected; `features [P, F]` are compared in whole numbers."""
    values = features.cpu().double().numpy()
    largest = max(float(np.abs(values).max(initial=0)), 1e-30)
    levels = np.ascontiguousarray(np.round(values * (_LEVELS / largest)).astype(np.int32).T)  # [F, P]
    flat = labels.cpu().numpy().astype(np.int32)
    order = np.flatnonzero(flat.reshape(-1) >= 0).astype(np.int32)
    regions = region_graph(flat, order, np.ascontiguousarray(levels[:, order]), 0)
    smallest = math.ceil(min_size * order.size / max(num_nodes, 1))
    return merge(regions, smallest, 1, regions.count).labels().to(labels.device)
