"""How sums over pixels, pairs or images become a loss, and which of them count."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce as fold

import torch
from torch import Tensor

from graphseg._checks import check_choice, check_same_device, check_shape, check_tensor


def reduce_loss(total: Tensor, count: Tensor, reduction: str, return_count: bool) -> Tensor:
    """`total / count` ("mean"; 0 where nothing counted) or `total` ("sum"); `[2]` with the count behind it if asked."""
    check_choice("reduction", reduction, ("mean", "sum"))
    count = count.to(total.dtype)
    value = total / count.masked_fill(count == 0, 1) if reduction == "mean" else total
    return torch.stack([value, count]) if return_count else value


def mean_over(pair: Tensor, reduce: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """`total / count` of a loss with its count, `[2]`, added over processes; 0 where nothing counts.

    Args:
        pair: what a loss gives for `reduction="sum", return_count=True`.
        reduce: adds a tensor over processes. Default: there is one process.
    """
    total, count = (pair if reduce is None else reduce(pair)).unbind()
    count = count.detach()
    return total / count.masked_fill(count == 0, 1)


def in_full_precision(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, in which every loss adds up at least."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def in_one_precision(*maps: Tensor) -> list[Tensor]:
    """All in the widest of their dtypes, at least float32: products take one dtype only."""
    dtype = fold(torch.promote_types, [x.dtype for x in maps], torch.float32)
    return [x.to(dtype) for x in maps]


def check_maps(**maps: Tensor) -> None:
    """Raises unless all are floating-point `[B, C, H, W]` on one device, with the B, H and W of the first."""
    (first, x), *_ = maps.items()
    for name, value in maps.items():
        if not check_tensor(name, value).is_floating_point():
            raise TypeError(f"got dtype {value.dtype} for {name}, expected a floating-point dtype")
        check_shape(name, value, (None,) * 4)
        if (len(value), *value.shape[2:]) != (len(x), *x.shape[2:]):
            want = f"{len(x)} maps of size {list(x.shape[2:])} as {first}"
            raise ValueError(f"got shape {list(value.shape)} for {name}, expected {want}")
    check_same_device(**maps)


def check_valid(valid: Tensor | None, x: Tensor) -> None:
    """Raises unless `valid` is None or bool `[B, H, W]`, one for each pixel of the maps `x`."""
    if valid is None:
        return
    if check_tensor("valid", valid).dtype != torch.bool:
        raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
    check_shape("valid", valid, (x.shape[0], *x.shape[2:]))
    check_same_device(x=x, valid=valid)
