"""Argument checks. Every error names both sides: what came, and what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

INTEGER_DTYPES = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8, torch.uint16)


def check_tensor(name: str, value: object) -> Tensor:
    """Returns `value` as it is, or raises TypeError if it is not a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"got {type(value).__name__} for {name}, expected a torch.Tensor")
    return value


def check_shape(name: str, value: Tensor, shape: Sequence[int | None]) -> None:
    """Raises ValueError unless `value` has the sizes `shape`; None stands for any size."""
    got = tuple(value.shape)
    if len(got) != len(shape) or any(w is not None and g != w for g, w in zip(got, shape, strict=True)):
        want = ", ".join("*" if w is None else str(w) for w in shape)
        raise ValueError(f"got shape {list(got)} for {name}, expected [{want}]")


def check_integer(name: str, value: Tensor) -> None:
    """Raises TypeError unless `value` holds integers (bool does not count)."""
    if value.dtype not in INTEGER_DTYPES:
        raise TypeError(f"got dtype {value.dtype} for {name}, expected an integer dtype such as torch.int64")


def check_finite(name: str, value: Tensor) -> None:
    """Raises ValueError if a floating-point `value` holds NaN or infinity."""
    if value.is_floating_point() and not _has_finite_sum(value) and not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"got {bad} NaN or infinite values in {name}, expected finite values")


def _has_finite_sum(value: Tensor) -> bool:
    """One pass that settles nearly every case; the sum of large finite numbers may overflow, too."""
    if value.device.type != "cpu" or value.dtype not in (torch.float32, torch.float64):
        return bool(torch.isfinite(value.detach().sum()))
    # By numpy: after a sum by torch its threads would go on spinning beside those of the kernels (benchmarks/knn.py).
    with np.errstate(all="ignore"):
        return math.isfinite(np.sum(value.detach().numpy()))


def check_same_device(**tensors: Tensor | None) -> None:
    """Raises ValueError unless all given tensors (by name) lie on one device."""
    devices = {name: t.device for name, t in tensors.items() if t is not None}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"got {listed}; expected all on one device")


def is_integer(value: object) -> bool:
    """Whether `value` is an int, Python's or numpy's; bool does not count."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_positive_int(name: str, value: int, minimum: int = 1) -> None:
    """Raises TypeError unless `value` is an int, ValueError unless it is at least `minimum`."""
    if not is_integer(value):
        raise TypeError(f"got {type(value).__name__} for {name}, expected an int")
    if value < minimum:
        raise ValueError(f"got {name}={value}, expected at least {minimum}")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"got {name}={value!r}, expected one of {', '.join(repr(c) for c in choices)}")
