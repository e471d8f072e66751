"""Inner products of the two ends of edges, without a tensor of edges x channels: `inner_products`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from graphseg._checks import check_same_device, check_shape, check_tensor
from graphseg.ops.edge_max import check_edge_index
from graphseg.ops.pooling import _accumulate_dtype, _PairProduct

__all__ = ["inner_products"]


def inner_products(x: Tensor, edge_index: Tensor) -> Tensor:
    """`out[e] = sum_c x[i, c] x[j, c]` for every edge e = (i, j).

    Differentiable once; gradients are added in the order of edges.

    Args:
        x: `[N, C]` floating-point node values; float16 and bfloat16 are multiplied in float32.
        edge_index: `[2, E]`.

    Returns:
        `[E]`, at least float32.

    Raises:
        TypeError, ValueError: for another dtype or shape, or ids outside [0, N).
    """
    if not check_tensor("x", x).is_floating_point():
        raise TypeError(f"got dtype {x.dtype} for x, expected a floating-point dtype")
    check_shape("x", x, (None, None))
    check_edge_index(edge_index, len(x))
    check_same_device(x=x, edge_index=edge_index)
    first, second = edge_index
    x = x.to(_accumulate_dtype(x))
    return _InnerProducts.apply(x, first, second) if x.device.type == "cpu" else _by_tensors(x, first, second)


def _by_tensors(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The same on any device, a chunk of edges at a time."""
    return _PairProduct.apply(x, x, first, second)


class _InnerProducts(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        from graphseg.ops.kernels.edge_dot import dot_rows

        ctx.save_for_backward(x, first, second)
        out = x.new_empty(len(first))
        dot_rows(x.detach().contiguous().numpy(), first.numpy(), second.numpy(), out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        from graphseg.ops.kernels.edge_dot import add_dot_gradients

        x, first, second = ctx.saved_tensors
        total = torch.zeros(x.shape, dtype=torch.float64)
        grad = grads[0].contiguous().numpy()
        add_dot_gradients(x.detach().contiguous().numpy(), first.numpy(), second.numpy(), grad, total.numpy())
        return total.to(x.dtype), None, None
