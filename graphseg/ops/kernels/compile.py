"""`@njit` as every kernel has it: without the interpreter lock, kept on disk, and out of sight of torch.compile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numba
import torch


def njit(function: Callable[..., Any]) -> Any:
    """Compiles `function` at its first call for each set of argument types.

    torch.compile looks into whatever Python runs inside the code it compiles, and fails in numba's compiler
    (tests/ops/test_kernels.py): that much is done with it switched off.
    """
    kernel: Any = numba.njit(nogil=True, cache=True)(function)
    compile_for = kernel._compile_for_args

    def untraced(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" in sys.modules:
            return torch.compiler.disable(compile_for)(*args, **kwargs)
        return compile_for(*args, **kwargs)

    kernel._compile_for_args = untraced
    return kernel
