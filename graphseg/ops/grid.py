"""Edges of regular pixel and voxel grids, at unit distance or at any set of offsets.

Pixel (y, x) has id `y * width + x`, voxel (z, y, x) has id `(z * height + y) * width + x`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import Tensor

from graphseg._checks import check_choice, check_positive_int, is_integer

__all__ = ["affinity_offsets", "connectivity_offsets", "grid_edges", "offset_edges"]


def connectivity_offsets(connectivity: int) -> list[tuple[int, ...]]:
    """The offsets from a pixel to its neighbours that come after it in row-major order.

    Args:
        connectivity: 4 or 8 for images, 6, 18 or 26 for volumes.

    Returns:
        (dy, dx) or (dz, dy, dx), in lexicographic order; half of the neighbourhood, so each pair occurs once.

    Raises:
        ValueError: if `connectivity` is none of the five.
    """
    check_choice("connectivity", connectivity, (4, 8, 6, 18, 26))
    ndim = 2 if connectivity in (4, 8) else 3
    reach = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}[connectivity]  # how many coordinates may differ
    window = product((-1, 0, 1), repeat=ndim)
    return [o for o in window if o > (0,) * ndim and sum(map(abs, o)) <= reach]


def affinity_offsets(distances: Iterable[int] = (1, 2, 4, 8, 16, 32, 64)) -> list[tuple[int, int]]:
    """The eight neighbours at each distance d: the neighbourhoods N_d of the affinity graph.

    Args:
        distances: in pixels, each at least 1. The default gives 56 offsets.

    Returns:
        (dy, dx) by rising position in `distances`, then row-major: the channel order of an affinity head.

    Source: "Affinity Derivation and Graph Merge for Instance Segmentation", Eq. (1)-(2).
    """
    offsets = []
    for distance in distances:
        check_positive_int("distance", distance)
        offsets += [(dy * distance, dx * distance) for dy, dx in product((-1, 0, 1), repeat=2) if (dy, dx) != (0, 0)]
    return offsets


def grid_edges(
    height: int,
    width: int,
    connectivity: int = 4,
    *,
    depth: int | None = None,
    directed: bool = False,
    device: torch.device | str | None = None,
) -> Tensor:
    """Edges between neighbouring pixels of an image, or voxels of a volume.

    Args:
        height, width: size of the grid, each at least 1.
        connectivity: 4 or 8; with `depth` 6, 18 or 26.
        depth: number of slices of a volume; None for an image.
        directed: both directions of every pair instead of the pair once.
        device: where the result lies (default: CPU).

    Returns:
        `edge_index [2, E]`, int64, in lexicographic order; undirected pairs have the smaller id first.

    Raises:
        ValueError: for sizes under 1, or a connectivity that does not fit the number of dimensions.
    """
    check_choice("connectivity", connectivity, (4, 8) if depth is None else (6, 18, 26))
    offsets = connectivity_offsets(connectivity)
    return offset_edges(height, width, offsets, depth=depth, directed=directed, device=device)


def offset_edges(
    height: int,
    width: int,
    offsets: Iterable[Sequence[int]],
    *,
    depth: int | None = None,
    directed: bool = False,
    device: torch.device | str | None = None,
) -> Tensor:
    """Edges from every pixel p to p + offset, for each offset that stays on the grid.

    An offset and its negative name the same pairs; every pair occurs once, however often it was named.

    Args:
        height, width: size of the grid, each at least 1.
        offsets: (dy, dx) in pixels; with `depth` (dz, dy, dx). At least one coordinate is not 0.
        depth: number of slices of a volume; None for an image.
        directed: both directions of every pair instead of the pair once.
        device: where the result lies (default: CPU).

    Returns:
        `edge_index [2, E]`, int64, in lexicographic order; undirected pairs have the smaller id first.

    Raises:
        TypeError: if a coordinate is not an int.
        ValueError: for sizes under 1, an offset of another length, or one of zeros only.
    """
    check_positive_int("height", height)
    check_positive_int("width", width)
    if depth is not None:
        check_positive_int("depth", depth)
    size = (depth or 1, height, width)
    steps = _canonical(offsets, 2 if depth is None else 3)
    if directed:
        steps |= {tuple(-o for o in step) for step in steps}
    table = torch.tensor(sorted(steps), dtype=torch.int64).view(-1, 3)  # [K, 3]
    if torch.device(device or "cpu").type == "cpu":
        return _offset_edges_kernel(size, table)
    return _offset_edges_tensor(size, table.to(device))


def _canonical(offsets: Iterable[Sequence[int]], ndim: int) -> set[tuple[int, ...]]:
    """Offsets as (dz, dy, dx) that point forward, each once."""
    steps = set()
    for offset in offsets:
        if not all(map(is_integer, offset)):
            raise TypeError(f"got offset {tuple(offset)!r}, expected {ndim} ints")
        step = tuple(int(o) for o in offset)
        if len(step) != ndim or not any(step):
            raise ValueError(f"got offset {step!r}, expected {ndim} ints that are not all 0")
        step = (0,) * (3 - ndim) + step
        steps.add(step if step > (0, 0, 0) else tuple(-o for o in step))
    return steps


def _offset_edges_kernel(size: tuple[int, int, int], table: Tensor) -> Tensor:
    from graphseg.ops.kernels.grid import fill_offset_edges

    room = (torch.tensor(size) - table.abs()).clamp_(min=0)  # [K, 3]: positions where the offset stays inside
    edge_index = torch.empty(2, int(room.prod(1).sum()), dtype=torch.int64)
    fill_offset_edges(*size, table.numpy(), edge_index.numpy())
    return edge_index


def _offset_edges_tensor(size: tuple[int, int, int], table: Tensor) -> Tensor:
    _, H, W = size
    K = table.shape[0]
    inside = []
    for length, along in zip(size, table.unbind(1), strict=True):
        target = torch.arange(length, device=table.device)[:, None] + along  # [length, K]
        inside.append((target >= 0) & (target < length))
    z, y, x = inside
    keep = z[:, None, None] & y[None, :, None] & x[None, None]  # [D, H, W, K]
    flat = keep.view(-1).nonzero().squeeze(1)  # [E], pixel-major: lexicographic, since the offsets are sorted
    step = (table[:, 0] * H + table[:, 1]) * W + table[:, 2]  # [K]
    source = flat.div(max(K, 1), rounding_mode="floor")
    return torch.stack([source, source + step[flat - source * K]])
