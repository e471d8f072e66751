"""The largest of what a node's edges bring, without a tensor of edges x channels: `max_over_edges`.

An edge brings its target's own values and multiples of the differences between the two ends. The maximum has a
backward of its own: for each node and channel it visits the one edge that won, whatever the number of edges.

On CPU a compiled kernel goes through the edges of each node; other devices take the tensor form at the end of this
file, a chunk of edges at a time. Both make the same values, and settle ties by the same edge.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from graphseg._checks import check_same_device, check_shape, check_tensor
from graphseg.ops.pooling import pool

__all__ = ["edge_values", "max_over_edges"]

# Bytes of rows made at a time: they stay in cache on a CPU, and need few launches on a GPU.
_CHUNK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}


def edge_values(target: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    """What each edge brings: `z[e] = target[e, 0] + sum_k weight[e, k] (target[e, 1 + k] - source[e, 1 + k])`.

    Args:
        target: `[E, 1 + K, C]`, the values of each edge's target.
        source: `[E, 1 + K, C]`, the values of each edge's source; `source[:, 0]` is not read.
        weight: `[E, K]`.

    Returns:
        `[E, C]`, the sum taken in the order of k.
    """
    z = target[:, 0]
    for k in range(weight.size(1)):
        z = z + weight[:, k, None] * (target[:, k + 1] - source[:, k + 1])  # [E, C]
    return z


def max_over_edges(values: Tensor, weight: Tensor, edge_index: Tensor) -> Tensor:
    """The largest, channel by channel, of what the edges of each node bring.

        out[i, c] = max over edges e = (j, i) of
            values[i, 0, c] + sum_k weight[e, k] (values[i, 1 + k, c] - values[j, 1 + k, c])

    A node without edges gives 0 and has no gradient. Of tied edges the first one gets the gradient. NaN wins.
    Differentiable once, in values and weight; memory is linear in nodes x channels and in edges.

    Args:
        values: `[N, 1 + K, C]` floating-point, K >= 0.
        weight: `[E, K]` floating-point.
        edge_index: `[2, E]` int64, row 0 the source j, row 1 the target i; in any order.

    Returns:
        `[N, C]`, of the dtype of values (float16 and bfloat16 are computed in float32).

    Raises:
        TypeError: on a dtype other than these.
        ValueError: on sizes or devices that do not fit, or ids outside [0, N).
    """
    for name, given in (("values", values), ("weight", weight)):
        if not check_tensor(name, given).is_floating_point():
            raise TypeError(f"got dtype {given.dtype} for {name}, expected a floating-point dtype")
    check_shape("values", values, (None, None, None))
    if values.size(1) == 0:
        raise ValueError("got shape [*, 0, *] for values, expected [*, 1 + K, *]")
    check_edge_index(edge_index, values.size(0))
    check_shape("weight", weight, (edge_index.size(1), values.size(1) - 1))
    check_same_device(values=values, weight=weight, edge_index=edge_index)
    dtype = torch.promote_types(values.dtype, torch.float32)
    return _Max.apply(values.to(dtype), weight.to(dtype), edge_index).to(values.dtype)


def check_edge_index(edge_index: object, num_nodes: int) -> None:
    """Raises TypeError or ValueError unless `edge_index` is int64 `[2, E]` with ids in [0, num_nodes)."""
    given = check_tensor("edge_index", edge_index)
    if given.layout != torch.strided or given.dtype != torch.int64:
        raise TypeError(f"got {given.layout} {given.dtype} for edge_index, expected a dense tensor of torch.int64")
    check_shape("edge_index", given, (2, None))
    if given.numel():
        low, high = (int(bound) for bound in torch.aminmax(given))
        if low < 0 or high >= num_nodes:
            raise ValueError(
                f"got node id {low if low < 0 else high} in edge_index, expected ids in [0, {num_nodes}) "
                f"for {num_nodes} nodes"
            )


class _Max(Function):
    """`max_over_edges`, with the winning edge of each node and channel kept for the backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, edge_index: Tensor) -> Tensor:
        forward = _forward_compiled if values.device.type == "cpu" else _forward_tensor
        out, winner = forward(values, weight, edge_index)
        ctx.save_for_backward(winner, weight, edge_index, values if ctx.needs_input_grad[1] else None)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        winner, weight, edge_index, values = ctx.saved_tensors
        compiled = winner.device.type == "cpu"
        for_values = _values_compiled if compiled else _values_tensor
        for_weight = _weight_compiled if compiled else _weight_tensor
        return (
            for_values(grads[0], winner, weight, edge_index) if ctx.needs_input_grad[0] else None,
            for_weight(grads[0], winner, values, edge_index) if ctx.needs_input_grad[1] else None,
            None,
        )


def _forward_compiled(values: Tensor, weight: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum [N, C] and winning edge [N, C], -1 where there is none."""
    from graphseg.ops.kernels import edge_max as kernels

    N, _, C = values.shape
    out, winner = values.new_empty(N, C), edge_index.new_empty(N, C)
    kernels.find_winners(*_arrays(values, weight, edge_index, out, winner))
    return out, winner


def _values_compiled(grad: Tensor, winner: Tensor, weight: Tensor, edge_index: Tensor) -> Tensor:
    """The gradient of the values, [N, 1 + K, C]."""
    from graphseg.ops.kernels import edge_max as kernels

    N, C = winner.shape
    total = grad.new_zeros(N, 1 + weight.size(1), C)
    kernels.add_to_values(*_arrays(grad, winner, weight, edge_index, total))
    return total


def _weight_compiled(grad: Tensor, winner: Tensor, values: Tensor, edge_index: Tensor) -> Tensor:
    """The gradient of the weights, [E, K]."""
    from graphseg.ops.kernels import edge_max as kernels

    total = grad.new_zeros(edge_index.size(1), values.size(1) - 1)
    kernels.add_to_weight(*_arrays(grad, winner, values, edge_index, total))
    return total


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    """Arrays for a kernel; those it fills are contiguous, and share the memory of their tensors."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


# The tensor form


def _forward_tensor(values: Tensor, weight: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """`_forward_compiled` on any device."""
    N, _, C = values.shape
    E = edge_index.size(1)
    best = values.new_full((N, C), -math.inf)
    winner = edge_index.new_full((N, C), E)
    step = max(1, _CHUNK_BYTES.get(values.device.type, 1 << 22) // max(1, C * values.element_size()))
    parts = [slice(start, start + step) for start in range(0, E, step)]
    for part in parts:
        z, target = _brought(values, weight, edge_index, part)
        best.scatter_reduce_(0, target, z, "amax")
    for part in parts:
        z, target = _brought(values, weight, edge_index, part)
        wins = (z == best.gather(0, target)) | z.isnan()
        edge = torch.arange(E, device=z.device)[part, None]  # [e, 1]
        winner.scatter_reduce_(0, target, torch.where(wins, edge, E), "amin")
    none = winner == E
    return best.masked_fill_(none, 0), winner.masked_fill_(none, -1)


def _brought(values: Tensor, weight: Tensor, edge_index: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """What a chunk of edges brings, and the index of their targets for a scatter, [e, C] both."""
    source, target = edge_index[:, part]
    z = edge_values(values.index_select(0, target), values.index_select(0, source), weight[part])
    return z, target.unsqueeze(1).expand_as(z)


def _won(grad: Tensor, winner: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the cells (node, channel) that have a winner: their ids [W], those of the same channel of the winning edge's
    source [W], that edge [W], and the gradient [W, 1]."""
    C = winner.size(1)
    own = (winner.flatten() >= 0).nonzero().squeeze(1)
    edge = winner.flatten()[own]
    return own, edge_index[0, edge] * C + own % max(1, C), edge, grad.flatten()[own, None]


def _values_tensor(grad: Tensor, winner: Tensor, weight: Tensor, edge_index: Tensor) -> Tensor:
    """`_values_compiled` on any device; the order of sums is that of `pool`."""
    N, C = winner.shape
    own, other, edge, g = _won(grad, winner, edge_index)
    flow = weight[edge] * g  # [W, K]
    total = grad.new_zeros(N * C, 1 + weight.size(1))
    total[own] = torch.cat([g, flow], 1)
    total[:, 1:] -= pool(flow, other, N * C, "sum")
    return total.view(N, C, total.size(1)).transpose(1, 2)


def _weight_tensor(grad: Tensor, winner: Tensor, values: Tensor, edge_index: Tensor) -> Tensor:
    """`_weight_compiled` on any device; the order of sums is that of `pool`."""
    own, other, edge, g = _won(grad, winner, edge_index)
    cells = values[:, 1:].transpose(1, 2).flatten(0, 1)  # [N * C, K]
    return pool(g * (cells[own] - cells[other]), edge, edge_index.size(1), "sum")
