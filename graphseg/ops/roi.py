"""Regions of interest: where an image has foreground, found through coarse cells."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from graphseg._checks import check_positive_int, check_shape, check_tensor
from graphseg.ops.grid import offset_edges
from graphseg.ops.merge import agglomerate
from graphseg.ops.pooling import pool

__all__ = ["Rois", "find_rois"]


class Rois(NamedTuple):
    """Regions of interest of a batch, image by image, in the order of their first cells.

    Attributes:
        image: `[R]`, the image of each.
        box: `[R, 4]`, (x, y) of its first and one past its last pixel.
        area: `[B, H, W]`, r + 1 at the pixels of region r, 0 at those of none.
    """

    image: Tensor
    box: Tensor
    area: Tensor


def find_rois(foreground: Tensor, cell_size: int = 32, margin: int = 16) -> Rois:
    """Connected cells with foreground in them, grown by a margin; and the boxes around them.

    A cell of `cell_size` x `cell_size` pixels (at the right and lower border what is left of one) counts if any of its
    pixels is foreground. Cells that touch, at a corner too, are one region: with a margin of at most half a cell no two
    regions then share a pixel. With a wider one a pixel stays with its own cell, else goes to the later region.

    Args:
        foreground: bool `[B, H, W]`.
        cell_size: in pixels.
        margin: in pixels, to all sides.

    Returns:
        `Rois`, all int64.

    Raises:
        TypeError, ValueError: for another dtype, shape, cell size or margin than these.

    Source: "Affinity Derivation and Graph Merge for Instance Segmentation", section 4.1.
    """
    if check_tensor("foreground", foreground).dtype != torch.bool:
        raise TypeError(f"got dtype {foreground.dtype} for foreground, expected torch.bool")
    check_shape("foreground", foreground, (None, None, None))
    check_positive_int("cell_size", cell_size)
    check_positive_int("margin", margin, minimum=0)
    H, W = foreground.shape[1:]
    if not foreground.any():
        none = foreground.new_zeros(0, 4, dtype=torch.int64)
        return Rois(none[:, 0], none, torch.zeros_like(foreground, dtype=torch.int64))
    cells = F.max_pool2d(foreground.float(), cell_size, ceil_mode=True) > 0  # [B, h, w]
    number = _components(cells)
    place = cells.nonzero()  # [n, 3]
    image, y, x = place.unbind(1)
    corner = torch.stack([x, y], 1)
    first = pool(corner, number, reduce="min") * cell_size - margin  # [R, 2]
    last = (pool(corner, number, reduce="max") + 1) * cell_size + margin
    limit = torch.tensor([W, H], device=foreground.device)
    box = torch.cat([first.clamp(min=0), last.minimum(limit)], 1)
    area = torch.zeros_like(cells, dtype=torch.int64)
    area[cells] = number + 1
    area = area.repeat_interleave(cell_size, 1).repeat_interleave(cell_size, 2)[:, :H, :W]
    return Rois(pool(image, number, reduce="min"), box, _grown(area, margin) if margin else area.contiguous())


def _components(cells: Tensor) -> Tensor:
    """The component `[n]` of each true cell of `[B, h, w]`, numbered through the batch by their first cells."""
    B, h, w = cells.shape
    around = [(0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1)]
    edge_index = offset_edges(h, w, around, depth=B, device=cells.device)
    edge_index = edge_index[:, cells.flatten()[edge_index].all(0)]
    linked = torch.ones(edge_index.shape[1], device=cells.device)
    found = agglomerate(edge_index, linked, cells.numel(), 0.5, "max").assignment
    return torch.unique(found[cells.flatten()], return_inverse=True)[1]


def _grown(area: Tensor, margin: int) -> Tensor:
    around = area.double()
    for kernel in ((2 * margin + 1, 1), (1, 2 * margin + 1)):
        around = F.max_pool2d(around, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
    return area.where(area > 0, around.long())
