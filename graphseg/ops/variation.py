"""How far every pixel is from its right-hand and its lower neighbour: `neighbour_distances`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from graphseg._checks import check_shape, check_tensor

__all__ = ["neighbour_distances"]

_ROWS = 32  # of one image, for one thread at a time


def neighbour_distances(x: Tensor) -> tuple[Tensor, Tensor]:
    """`|x_p - x_q|_1` over the channels, for neighbours p and q; no differences are kept for the gradient.

    Differentiable once; the slope at a difference of 0 is 0.

    Args:
        x: `[B, C, H, W]` floating-point.

    Returns:
        `[B, H, W - 1]`, from every pixel to the one on its right, and `[B, H - 1, W]`, to the one below; float16 and
        bfloat16 give float32.

    Raises:
        TypeError, ValueError: for another dtype or shape.
    """
    if not check_tensor("x", x).is_floating_point():
        raise TypeError(f"got dtype {x.dtype} for x, expected a floating-point dtype")
    check_shape("x", x, (None,) * 4)
    return _Distances.apply(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)


class _Distances(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        return _by_kernel(x) if x.device.type == "cpu" else _by_tensors(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient = _gradient_by_kernel if x.device.type == "cpu" else _gradient_by_tensors
        return gradient(x, grads[0], grads[1])


def _by_kernel(x: Tensor) -> tuple[Tensor, Tensor]:
    from graphseg.ops.kernels.variation import add_steps

    B, _, H, W = x.shape
    right, below = x.new_zeros(B, H, max(W - 1, 0)), x.new_zeros(B, max(H - 1, 0), W)
    source, along, down = (t.detach().contiguous().numpy() for t in (x, right, below))
    _over_rows(lambda b, first, last: add_steps(source[b], along[b], down[b], first, last), B, H)
    return right, below


def _gradient_by_kernel(x: Tensor, right: Tensor, below: Tensor) -> Tensor:
    from graphseg.ops.kernels.variation import fill_step_gradients

    grad = torch.empty_like(x, memory_format=torch.contiguous_format)
    source, along, down, out = (t.contiguous().numpy() for t in (x, right, below, grad))
    _over_rows(
        lambda b, first, last: fill_step_gradients(source[b], along[b], down[b], out[b], first, last),
        len(x),
        x.shape[2],
    )
    return grad


def _over_rows(call: Callable[[int, int, int], None], images: int, height: int) -> None:
    from graphseg.ops.kernels.threads import map_threads

    parts = [(b, y, min(y + _ROWS, height)) for b in range(images) for y in range(0, height, _ROWS)]
    map_threads(lambda part: call(*part), parts)


def _by_tensors(x: Tensor) -> tuple[Tensor, Tensor]:
    return _step(x, 3).abs_().sum(1), _step(x, 2).abs_().sum(1)


def _gradient_by_tensors(x: Tensor, right: Tensor, below: Tensor) -> Tensor:
    grad = torch.zeros_like(x)
    for along, upstream in ((3, right), (2, below)):
        step = _step(x, along).sign_().mul_(upstream.unsqueeze(1))
        length = step.shape[along]
        grad.narrow(along, min(1, x.shape[along]), length).add_(step)
        grad.narrow(along, 0, length).sub_(step)
    return grad


def _step(x: Tensor, along: int) -> Tensor:
    length = max(x.shape[along] - 1, 0)
    return x.narrow(along, min(1, x.shape[along]), length) - x.narrow(along, 0, length)
