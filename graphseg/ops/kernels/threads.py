"""Runs one function over many items in threads; the results come in the items' order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def share(pool: ThreadPoolExecutor | None, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`[function(item) for item in items]`, the first in this thread and the others in those of `pool`.

    A thread takes a good part of a millisecond to wake; this one is awake.
    """
    if pool is None:
        return [function(item) for item in items]
    others = [pool.submit(function, item) for item in items[1:]]
    return [*(function(item) for item in items[:1]), *(other.result() for other in others)]


def map_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`[function(item) for item in items]` on `torch.get_num_threads()` threads (one in a DataLoader worker).

    Only worth it for functions that release the interpreter lock, as `nogil` kernels do.
    """
    workers = min(torch.get_num_threads(), len(items))
    if workers <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))
