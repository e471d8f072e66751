"""`add_region_means`: every pixel gets a multiple of the mean of its region, in one pass of sums and one of additions.

With A_s [P, N] the membership of pixels in the regions of label map s, D_s the regions' numbers of pixels, and
M_s = A_s D_s^-1 A_s^T the mean over the region, the operator is the product of I + alpha M_s over the label maps. M_s
is symmetric, so the gradient is the same operator with the label maps in reverse: only they are kept for it.

On CPU, kernels sum in pixel order and float64, image by image and channel by channel: results depend neither on the
layout nor on the number of threads. Other devices take the tensor form, by `pool`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from graphseg._checks import check_integer, check_same_device, check_shape, check_tensor
from graphseg.ops.pooling import pool

__all__ = ["add_region_means", "count_regions", "label_bounds"]

COLUMNS = 64  # channels of one task, at most: few enough for every thread to get some
SMALL = 1 << 16  # up to so many values threads cost more than they save


def add_region_means(x: Tensor, labels: Tensor, alpha: float = 0.1) -> Tensor:
    """Adds to every pixel `alpha` times the mean of its region, for one label map after another.

        x[b, :, p] <- x[b, :, p] + alpha * mean of x[b, :, q] over labels[b, s, q] = labels[b, s, p],   s = 0, 1, ...

    Ids without pixels do no harm. Nothing of size pixels x regions is made. The layout of `x` is kept: both `[B, C, P]`
    in memory and `[B, P, C]` seen through `transpose(1, 2)` are taken as they are.

    Args:
        x: floating-point `[B, C, P]`. float16 and bfloat16 are taken to float32 on the way.
        labels: integers `[B, S, P]`, the region of every pixel in S label maps of its image, from 0.
        alpha: weight of the mean.

    Returns:
        `[B, C, P]`, of the dtype and layout of `x`.

    Raises:
        TypeError: if `x` is not floating-point or `labels` are not integers.
        ValueError: on sizes or devices that do not fit, or negative labels.

    Source: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel", Eqs. 1-7.
    """
    check_shape("x", check_tensor("x", x), [None, None, None])
    if not x.is_floating_point():
        raise TypeError(f"got dtype {x.dtype} for x, expected a floating-point dtype")
    check_integer("labels", check_tensor("labels", labels))
    check_shape("labels", labels, [x.size(0), None, x.size(2)])
    if labels.size(1) == 0:
        raise ValueError(f"got shape {list(labels.shape)} for labels, expected at least one label map")
    check_same_device(x=x, labels=labels)
    low, high = label_bounds(labels)
    if low < 0:
        raise ValueError(f"got {low} in labels, expected ids from 0")
    return _AddRegionMeans.apply(x, labels.long(), high + 1, alpha)


def label_bounds(labels: Tensor) -> tuple[int, int]:
    """The smallest and the largest of integer labels; (0, -1) if there are none.

    Args:
        labels: integers of any shape.

    Returns:
        Two numbers.
    """
    if labels.numel() == 0:
        return 0, -1
    if labels.device.type == "cpu":  # by numpy: torch's threads would go on spinning beside those of the kernels
        return int(labels.numpy().min()), int(labels.numpy().max())
    low, high = torch.aminmax(labels)
    return int(low), int(high)


def count_regions(labels: Tensor) -> Tensor:
    """How many different regions each label map has; ids may have gaps.

    Args:
        labels: integers `[B, P]`, from 0.

    Returns:
        int64 `[B]`.

    Raises:
        TypeError: if `labels` are not integers.
        ValueError: for another shape, or negative labels.
    """
    check_integer("labels", check_tensor("labels", labels))
    check_shape("labels", labels, [None, None])
    low, high = label_bounds(labels)
    if low < 0:
        raise ValueError(f"got {low} in labels, expected ids from 0")
    if labels.device.type == "cpu":
        from graphseg.ops.kernels.superpixel_mean import count_ids
        from graphseg.ops.kernels.threads import map_threads

        return torch.tensor(map_threads(count_ids, list(labels.long().contiguous().numpy())), dtype=torch.int64)
    B, N = labels.size(0), high + 1
    start = N * torch.arange(B, device=labels.device).unsqueeze(1)  # [B, 1]
    return torch.bincount((labels.long() + start).flatten(), minlength=B * N).view(B, N).count_nonzero(1)


class _AddRegionMeans(Function):
    """Its gradient is itself, label maps in reverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, labels: Tensor, num_regions: int, alpha: float) -> Tensor:
        ctx.save_for_backward(labels)
        ctx.num_regions, ctx.alpha = num_regions, alpha
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        add = _add_compiled if x.device.type == "cpu" else _add_tensors
        return add(wide, labels, num_regions, alpha).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (labels,) = ctx.saved_tensors
        return _AddRegionMeans.apply(grads[0], labels.flip(1), ctx.num_regions, ctx.alpha), None, None, None


def _add_tensors(x: Tensor, labels: Tensor, num_regions: int, alpha: float) -> Tensor:
    """Plain tensor form, on any device."""
    B, _, P = x.shape
    N = num_regions
    start = N * torch.arange(B, device=x.device).unsqueeze(1)  # [B, 1]
    for region in labels.unbind(1):
        ids = (region + start).flatten()  # [B * P]
        mean = pool(x.transpose(1, 2).flatten(0, 1), ids, B * N)  # [B * N, C]
        x = torch.add(x, mean.index_select(0, ids).unflatten(0, (B, P)).transpose(1, 2), alpha=alpha)
    return x


def _add_compiled(x: Tensor, labels: Tensor, num_regions: int, alpha: float) -> Tensor:
    """By the kernels for CPU: channels-last as rows, all else as columns."""
    x, labels = x.detach(), labels.contiguous()
    by_rows = not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
    if not by_rows:
        x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel() > 0:
        (_add_rows if by_rows else _add_columns)(x, labels, num_regions, alpha, out)
    return out


def _add_columns(x: Tensor, labels: Tensor, num_regions: int, alpha: float, out: Tensor) -> None:
    """Every task takes some channels of one image through all label maps."""
    from graphseg.ops.kernels.superpixel_mean import GROUP, add_means_columns

    B, C, _ = x.shape
    source, regions, result = x.numpy(), labels.numpy(), out.numpy()
    width = min(COLUMNS, -(-_share(C, B) // GROUP) * GROUP)

    def add(task: tuple[int, int]) -> None:
        b, c = task
        add_means_columns(source[b], regions[b], num_regions, alpha, c, min(c + width, C), result[b])

    _run(add, [(b, c) for b in range(B) for c in range(0, C, width)], x)


def _add_rows(x: Tensor, labels: Tensor, num_regions: int, alpha: float, out: Tensor) -> None:
    """Every task takes some regions of one image; label maps wait for one another."""
    from graphseg.ops.kernels.superpixel_mean import add_means_rows

    B = x.size(0)
    source, regions, result = x.transpose(1, 2).numpy(), labels.numpy(), out.transpose(1, 2).numpy()
    size = _share(num_regions, B)
    for s in range(labels.size(1)):

        def add(task: tuple[int, int], s: int = s) -> None:
            b, first = task
            rows = source[b] if s == 0 else result[b]
            add_means_rows(rows, regions[b, s], first, min(first + size, num_regions), alpha, result[b])

        _run(add, [(b, first) for b in range(B) for first in range(0, num_regions, size)], x)


def _share(size: int, images: int) -> int:
    """The part of `size` that a task takes, so that there is one for every thread."""
    parts = -(-torch.get_num_threads() // images)
    return -(-size // parts)


def _run(function: Callable[[tuple[int, int]], None], tasks: list[tuple[int, int]], x: Tensor) -> None:
    from graphseg.ops.kernels.threads import map_threads

    map_threads(function, tasks, None if x.numel() > SMALL else 1)
