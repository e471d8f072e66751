"""Region adjacency graphs: which regions touch, along how many pixel pairs, over which boundary.

Two pixels are adjacent when one is in the other's 4- or 8-neighbourhood (6, 18, 26 in volumes); two regions when
some pixel of one is adjacent to some pixel of the other. On CPU a numba kernel does the work, elsewhere the tensor
form at the end of this file.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphseg._checks import (
    check_choice,
    check_finite,
    check_integer,
    check_same_device,
    check_shape,
    check_tensor,
)
from graphseg.ops._angle import angle
from graphseg.ops._labels import LabelStack, are_consecutive, stack_labels
from graphseg.ops.grid import connectivity_offsets

__all__ = ["boundary_statistics", "edge_angle", "edge_distance", "rag_edges", "relabel"]


def rag_edges(
    labels: Tensor, connectivity: int | None = None, *, volume: bool = False, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The exact region adjacency graph of label maps.

    Args:
        labels: `[H, W]`, `[B, H, W]`, or with `volume` `[D, H, W]`, `[B, D, H, W]`; integers, consecutive from 0 in
            each image (`relabel` makes them so).
        connectivity: 4 (default) or 8; with `volume` 6 (default), 18 or 26.
        volume: whether the map is three-dimensional.
        valid: bool, as `labels`: False where a pixel belongs to no region; its label is not read.

    Returns:
        `edge_index [2, E]`: each pair of adjacent regions once, the smaller id first, in lexicographic order; node
        ids of image b follow those of image b - 1. `length [E]`: the number of adjacent pixel pairs. Both int64.

    Raises:
        TypeError: if labels are not integers.
        ValueError: for a wrong shape, or labels not consecutive from 0.
    """
    found = _adjacency(stack_labels(labels, volume, valid), connectivity, None, ())
    return found["edge_index"], found["length"]


def boundary_statistics(
    labels: Tensor,
    boundary: Tensor | None = None,
    *,
    color: Tensor | None = None,
    centroid: Tensor | None = None,
    percentiles: Sequence[float] = (10.0, 50.0, 90.0),
    connectivity: int | None = None,
    volume: bool = False,
    valid: Tensor | None = None,
) -> dict[str, Tensor]:
    """The region adjacency graph with statistics of each boundary.

    The strength of an adjacent pixel pair is the mean of the two pixels' values in `boundary`; an edge's statistics
    run over its `length` pairs, each pair once.

    Args:
        labels, connectivity, volume, valid: as for `rag_edges`.
        boundary: strength per pixel, shaped as `labels` (a gradient magnitude, a boundary probability); no gradient
            flows back to it, as it does to `color` and `centroid`.
        color: `[N, C]` node values, for `color_distance` (the mean of `region_statistics`).
        centroid: `[N, 2]` (x, y) or `[N, 3]` (x, y, z), for `centroid_distance` and (2-D) `centroid_angle`.
        percentiles: in [0, 100], of the strength; linear between order statistics, as numpy has it.

    Returns:
        A dict of `edge_index [2, E]`, `length [E]` (int64, as `rag_edges`) and, in float64, where their input is
        given: `mean [E]`, `std [E]` (population), `percentiles [E, Q]`, `color_distance [E]` (Euclidean),
        `centroid_distance [E]` (units of `centroid`), `centroid_angle [E]` (radians, see `edge_angle`).

    Raises:
        TypeError, ValueError: as `rag_edges`; also for a `boundary` of another shape or with NaN, `percentiles`
            outside [0, 100], or node values that are not one row per region.
    """
    stack = stack_labels(labels, volume, valid)
    if boundary is not None:
        check_tensor("boundary", boundary)
        check_shape("boundary", boundary, labels.shape)
        check_same_device(labels=labels, boundary=boundary)
        boundary = boundary.detach().to(torch.float64)
        check_finite("boundary", boundary if valid is None else boundary[valid])
        boundary = boundary.reshape(stack.labels.shape).contiguous()
    if not all(0 <= p <= 100 for p in percentiles):
        raise ValueError(f"got percentiles {tuple(percentiles)}, expected values in [0, 100]")
    for name, values, columns in (("color", color, None), ("centroid", centroid, stack.ndim)):
        if values is not None:
            check_shape(name, check_tensor(name, values), (stack.num_nodes, columns))
            check_finite(name, values.detach())
            check_same_device(labels=labels, **{name: values})
    found = _adjacency(stack, connectivity, boundary, [p / 100 for p in percentiles])
    if color is not None:
        found["color_distance"] = edge_distance(color, found["edge_index"])
    if centroid is not None:
        found["centroid_distance"] = edge_distance(centroid, found["edge_index"])
        if centroid.shape[1] == 2:
            found["centroid_angle"] = edge_angle(centroid, found["edge_index"])
    return found


def edge_distance(values: Tensor, edge_index: Tensor) -> Tensor:
    """Euclidean distance `|v_i - v_j|` along each edge, in float64 `[E]`; at distance 0 the gradient is 0.

    Args:
        values: `[N, C]` node values.
        edge_index: `[2, E]`.

    Raises:
        ValueError: for a wrong shape, or ids outside [0, N).
    """
    check_shape("values", check_tensor("values", values), (None, None))
    check_shape("edge_index", check_tensor("edge_index", edge_index), (2, None))
    if edge_index.numel():
        low, high = (int(bound) for bound in torch.aminmax(edge_index))
        if low < 0 or high >= values.shape[0]:
            raise ValueError(f"got ids from {low} to {high} in edge_index, expected ids of {values.shape[0]} nodes")
    values = values.to(torch.float64)
    if values.device.type == "cpu" and not values.requires_grad:
        from graphseg.ops.kernels.rag import edge_lengths

        source, target = edge_index.contiguous().numpy()
        length = torch.empty(edge_index.shape[1], dtype=torch.float64)
        edge_lengths(values.contiguous().numpy(), source, target, length.numpy())
        return length
    square = (values[edge_index[0]] - values[edge_index[1]]).square().sum(1)
    apart = square != 0  # NaN is, and stays NaN
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)  # sqrt never sees 0: its slope is infinite


def edge_angle(pos: Tensor, edge_index: Tensor) -> Tensor:
    """Direction of `pos_j - pos_i` along each edge (i, j), in float64 `[E]`, radians in (-pi, pi].

    0 points right, pi / 2 down (y points down); coincident points give 0.

    Args:
        pos: `[N, 2]`, (x, y).
        edge_index: `[2, E]`.
    """
    step = pos.to(torch.float64)[edge_index[1]] - pos.to(torch.float64)[edge_index[0]]  # [E, 2]
    found = angle(step[:, 1], step[:, 0])
    return torch.where(found <= -torch.pi, torch.pi, found)  # -0.0 in y would give -pi


def relabel(labels: Tensor, *, volume: bool = False) -> Tensor:
    """Renumbers each image's labels consecutively from 0, in the order of their values.

    Args:
        labels: `[H, W]` or `[B, H, W]` (with `volume` `[D, H, W]` or `[B, D, H, W]`), any integers.

    Returns:
        int64, shaped as `labels`.

    Raises:
        TypeError: if labels are not integers.
        ValueError: for a wrong shape.
    """
    check_integer("labels", check_tensor("labels", labels))
    if labels.dim() not in ((3, 4) if volume else (2, 3)):
        want = "[D, H, W] or [B, D, H, W]" if volume else "[H, W] or [B, H, W]"
        raise ValueError(f"got shape {list(labels.shape)} for labels, expected {want}")
    stacked = labels.dim() == (4 if volume else 3)
    B = labels.shape[0] if stacked else 1
    if labels.numel() == 0:
        return labels.to(torch.int64)
    flat = labels.to(torch.int64).reshape(B, -1)  # [B, P]
    if are_consecutive(flat):
        return labels.to(torch.int64, copy=True)
    low = int(flat.min())
    L = int(flat.max()) - low + 1
    image = torch.arange(B, device=labels.device).view(-1, 1)
    if 4 * flat.shape[1] + 1024 < L:  # ids far apart: sorting costs less than a table over their range
        _, dense = torch.unique(flat, return_inverse=True)
        _, rank = torch.unique(dense + image * flat.numel(), return_inverse=True)
        return (rank - rank.amin(1, keepdim=True)).view(labels.shape)
    present = torch.zeros(B * L, dtype=torch.int64, device=labels.device)
    present[(flat - low + image * L).view(-1)] = 1
    rank = present.view(B, L).cumsum(1) - 1  # [B, L]: a value's place among those of its image
    return rank.gather(1, flat - low).view(labels.shape)


def _adjacency(
    stack: LabelStack, connectivity: int | None, boundary: Tensor | None, quantiles: Sequence[float]
) -> dict[str, Tensor]:
    choices = (4, 8) if stack.ndim == 2 else (6, 18, 26)
    connectivity = choices[0] if connectivity is None else connectivity
    check_choice("connectivity", connectivity, choices)
    offsets = [(0,) * (3 - stack.ndim) + o for o in connectivity_offsets(connectivity)]
    table = torch.tensor(offsets, dtype=torch.int64)  # [K, 3]
    levels = torch.tensor(quantiles, dtype=torch.float64)
    if stack.labels.device.type == "cpu":
        return _adjacency_kernel(stack, table, boundary, levels)
    return _adjacency_tensor(stack, table, boundary, levels)


def _adjacency_kernel(
    stack: LabelStack, offsets: Tensor, boundary: Tensor | None, quantiles: Tensor
) -> dict[str, Tensor]:
    from graphseg.ops.kernels.rag import region_adjacency
    from graphseg.ops.kernels.threads import map_threads

    labels, table, levels = stack.labels.numpy(), offsets.numpy(), quantiles.numpy()
    strength = torch.empty(len(labels), 0, 0, 0, dtype=torch.float64) if boundary is None else boundary
    strengths = strength.numpy()

    def one(b: int) -> list[Tensor]:
        found = region_adjacency(labels[b], stack.counts[b], table, strengths[b], levels)
        return [torch.from_numpy(f) for f in found]

    parts = map_threads(one, range(len(labels)))
    for part, start in zip(parts, stack.starts[:-1], strict=True):
        part[0] += start
        part[1] += start
    if not parts:
        return _adjacency_tensor(stack, offsets, boundary, quantiles)
    first, second, length, mean, std, quantile = (torch.cat(column) for column in zip(*parts, strict=True))
    found = {"edge_index": torch.stack([first, second]), "length": length}
    if boundary is not None:
        found |= {"mean": mean, "std": std, "percentiles": quantile}
    return found


def _adjacency_tensor(
    stack: LabelStack, offsets: Tensor, boundary: Tensor | None, quantiles: Tensor
) -> dict[str, Tensor]:
    labels = stack.node_labels()
    N = stack.num_nodes
    keys, values = [], []
    for offset in offsets.tolist():
        here, there = _shifted(labels.shape[1:], offset)
        a, b = labels[here], labels[there]
        pairs = (a != b) & (a >= 0) & (b >= 0)
        a, b = a[pairs], b[pairs]
        keys.append(torch.minimum(a, b) * N + torch.maximum(a, b))
        if boundary is not None:
            values.append(0.5 * (boundary[here][pairs] + boundary[there][pairs]))
    key = torch.cat(keys)
    if boundary is None:
        pair, length = torch.unique(key, return_counts=True)
    else:
        value, order = torch.sort(torch.cat(values), stable=True)  # by (key, value) after the second sort
        key, order = torch.sort(key[order], stable=True)
        value = value[order]
        pair, length = torch.unique_consecutive(key, return_counts=True)
    found = {"edge_index": torch.stack([pair // max(N, 1), pair % max(N, 1)]), "length": length}
    if boundary is None:
        return found
    if pair.numel() == 0:
        mean = std = value.new_zeros(0)
        return found | {"mean": mean, "std": std, "percentiles": value.new_zeros(0, quantiles.numel())}
    mean = torch.segment_reduce(value, "sum", lengths=length) / length
    spread = (value - mean.repeat_interleave(length)).square()
    std = (torch.segment_reduce(spread, "sum", lengths=length) / length).sqrt()
    begin = length.cumsum(0) - length
    where = quantiles.to(value.device) * (length[:, None] - 1)  # [E, Q]
    low = where.floor()
    high = torch.minimum(low + 1, (length[:, None] - 1).to(low.dtype))
    lower, upper = (value[begin[:, None] + at.to(torch.int64)] for at in (low, high))
    return found | {"mean": mean, "std": std, "percentiles": lower + (where - low) * (upper - lower)}


def _shifted(size: Sequence[int], offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of `[B, *size]` that pick every pixel with a neighbour at `offset`, and that neighbour."""
    here, there = [slice(None)], [slice(None)]
    for length, step in zip(size, offset, strict=True):
        room = max(length - abs(step), 0)
        here.append(slice(max(-step, 0), max(-step, 0) + room))
        there.append(slice(max(step, 0), max(step, 0) + room))
    return tuple(here), tuple(there)
