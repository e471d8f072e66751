"""Pixels by the cells of their grid, as tensors, for all images of a call at once.

Pixels stand in blocks, one row for each cell, padded to the longest of the cells of like sizes: what every pixel has to
do with the centres around its cell is then one product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphseg.ops._cells import CellGrid


@dataclass(frozen=True)
class CellPixels:
    """All pixels of a call, image after image, and all cells likewise.

    Args:
        image: `[P]`, the image of every pixel.
        place: `[P, 3]`, its z, y, x.
        size: `[P, 3]`, the sides of its image.
        inside: `[P]` bool, whether the mask has it.
        cell: `[P]`, its cell.
        neighbours: `[G, J]`, the cells around every cell and itself, -1 for none.
        filled: `[G]` bool, whether the cell has pixels inside the mask.
        first_cell: `[B]`, the first cell of every image.
        lengths: pixels of every image.
    """

    image: Tensor
    place: Tensor
    size: Tensor
    inside: Tensor
    cell: Tensor
    neighbours: Tensor
    filled: Tensor
    first_cell: Tensor
    lengths: list[int]

    def cell_nodes(self) -> Tensor:
        """`[G]`: cells with pixels, numbered over the batch; for others the number of the next one that has."""
        return self.filled.long().cumsum(0) - self.filled.long()


@dataclass(frozen=True)
class CellBlock:
    """Cells of like sizes.

    Args:
        cells: `[g]`.
        pixels: `[g, S]`, the pixels of each, -1 for padding.
        near: `[g, J]`, candidates; 0 where `missing [g, J]`.
    """

    cells: Tensor
    pixels: Tensor
    near: Tensor
    missing: Tensor


def cell_pixels(grids: Sequence[CellGrid], masks: Sequence[Tensor | None], device: torch.device) -> CellPixels:
    """The pixels of images with these grids; `masks [D, H, W]` or None."""
    shapes = torch.tensor([grid.shape for grid in grids], device=device)  # [B, 3]
    cells = torch.tensor([grid.cells for grid in grids], device=device)
    lengths = shapes.prod(1)
    image = torch.repeat_interleave(torch.arange(len(grids), device=device), lengths)  # [P]
    within = torch.arange(image.numel(), device=device) - (lengths.cumsum(0) - lengths)[image]
    size = shapes[image]
    place = torch.stack(
        [within // (size[:, 1] * size[:, 2]), within // size[:, 2] % size[:, 1], within % size[:, 2]], 1
    )
    inside = torch.ones(image.numel(), dtype=torch.bool, device=device)
    if any(mask is not None for mask in masks):
        full = [inside.new_ones(g.shape) if mask is None else mask for g, mask in zip(grids, masks, strict=True)]
        inside = torch.cat([mask.reshape(-1) for mask in full])

    at = place * cells[image] // size  # [P, 3]
    num_cells = cells.prod(1)
    first = num_cells.cumsum(0) - num_cells
    cell = (at[:, 0] * cells[image, 1] + at[:, 1]) * cells[image, 2] + at[:, 2] + first[image]
    around = torch.from_numpy(np.concatenate([grid.neighbours() for grid in grids])).to(device, torch.int64)
    shift = torch.repeat_interleave(first, num_cells)[:, None]
    filled = torch.bincount(cell[inside], minlength=around.shape[0]) > 0
    around = torch.where(around >= 0, around + shift, -1)
    return CellPixels(image, place, size, inside, cell, around, filled, first, lengths.tolist())


def positions(pixels: CellPixels, grids: Sequence[CellGrid], unit: float) -> Tensor:
    """`[P, dims]` int64: places in whole numbers, `unit` to a step of each grid."""
    tables = [grid.positions(unit) for grid in grids]
    shapes = torch.tensor([grid.shape for grid in grids], device=pixels.place.device)
    columns = []
    for axis in range(3 - grids[0].dims, 3):
        table = torch.from_numpy(np.concatenate([t[axis] for t in tables])).to(pixels.place.device, torch.int64)
        start = shapes[:, axis].cumsum(0) - shapes[:, axis]
        columns.append(table[start[pixels.image] + pixels.place[:, axis]])
    return torch.stack(columns, 1)


def cell_blocks(pixels: CellPixels) -> list[CellBlock]:
    """The cells that have pixels, in blocks of those whose sizes have the same next power of two."""
    G = pixels.neighbours.shape[0]
    order = torch.argsort(pixels.cell.where(pixels.inside, G), stable=True)
    sizes = torch.bincount(pixels.cell[pixels.inside], minlength=G)  # [G]
    starts = sizes.cumsum(0) - sizes
    bucket = torch.ceil(torch.log2(sizes.clamp(min=1).double())).long().where(pixels.filled, -1)
    found = []
    for b in torch.unique(bucket[pixels.filled]).tolist():
        cells = torch.nonzero(bucket == b)[:, 0]
        within = torch.arange(int(sizes[cells].max()), device=order.device)
        listed = order[(starts[cells][:, None] + within).clamp(max=order.numel() - 1)]  # [g, S]
        near = pixels.neighbours[cells]
        missing = (near < 0) | ~pixels.filled[near.clamp(min=0)]
        inside = within < sizes[cells][:, None]
        found.append(CellBlock(cells, listed.where(inside, -1), near.clamp(min=0), missing))
    return found
