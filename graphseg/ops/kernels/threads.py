"""Runs one function over many items in threads; the results come in the items' order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

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


def map_threads(function: Callable[[Item], Result], items: Sequence[Item], most: int | None = None) -> list[Result]:
    """`[function(item) for item in items]` on `torch.get_num_threads()` threads (one in a DataLoader worker).

    Only worth it for functions that release the interpreter lock, as `nogil` kernels do. `most` limits the threads.
    torch.compile, which looks into whatever Python runs inside the code it compiles, does not look in here: it cannot
    take the items of arrays.
    """
    workers = min(torch.get_num_threads() if most is None else most, len(items))
    global _run
    if _run is _map and "torch._dynamo" in sys.modules:
        _run = torch.compiler.disable(_map)
    return _run(function, items, workers)


def _map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    if workers <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


_run: Any = _map  # as torch.compile may see it: only its own module knows how, and that takes seconds to import
