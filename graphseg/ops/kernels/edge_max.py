"""The largest of what a node's edges bring, and its backward along the winning edges only."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graphseg.ops.kernels.compile import njit
from graphseg.ops.kernels.threads import map_threads

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

CELLS = 1 << 14  # cells (node, channel) that one thread is worth
LINE = 16  # channels that one thread is worth: a cache line of them


@njit
def _group(target, size):
    """The edges of each target, in their order: those of i are order[ptr[i] : ptr[i + 1]]."""
    ptr = np.zeros(size + 1, np.int64)
    for i in target:
        ptr[i + 1] += 1
    for i in range(size):
        ptr[i + 1] += ptr[i]
    order = np.empty(target.size, np.int64)
    at = ptr[:-1].copy()
    for e in range(target.size):
        i = target[e]
        order[at[i]] = e
        at[i] += 1
    return ptr, order


@njit
def _find_winners(values, weight, source, ptr, order, begin, end, out, winner):
    C, K = values.shape[2], weight.shape[1]
    z, best, rank = np.empty(C, values.dtype), np.empty(C, values.dtype), np.empty(C, np.int32)
    for i in range(begin, end):
        first, edges = ptr[i], ptr[i + 1] - ptr[i]
        if edges == 0:
            out[i] = 0
            winner[i] = -1
            continue
        for r in range(edges):
            e = order[first + r]
            j = source[e]
            for c in range(C):
                z[c] = values[i, 0, c]
            for k in range(K):
                w = weight[e, k]
                for c in range(C):
                    z[c] += w * (values[i, k + 1, c] - values[j, k + 1, c])
            if r == 0:
                for c in range(C):
                    best[c] = z[c]
                    rank[c] = 0
            else:
                here = np.int32(r)
                for c in range(C):
                    wins = (z[c] > best[c]) | ((z[c] != z[c]) & (best[c] == best[c]))
                    best[c] = z[c] if wins else best[c]
                    rank[c] = here if wins else rank[c]
        for c in range(C):
            out[i, c] = best[c]
            winner[i, c] = order[first + rank[c]]


@njit
def _add_to_values(grad, winner, weight, source, begin, end, total):
    """Channels begin .. end; the nodes in their order, so that every sum has one."""
    K = weight.shape[1]
    for i in range(winner.shape[0]):
        for c in range(begin, end):
            e = winner[i, c]
            if e < 0:
                continue
            g, j = grad[i, c], source[e]
            total[i, 0, c] = g
            for k in range(K):
                flow = weight[e, k] * g
                total[i, k + 1, c] += flow
                total[j, k + 1, c] -= flow


@njit
def _add_to_weight(grad, winner, values, source, begin, end, total):
    """Nodes begin .. end; an edge has one target, so that every sum is one node's, in the order of its channels."""
    C, K = winner.shape[1], total.shape[1]
    for i in range(begin, end):
        for c in range(C):
            e = winner[i, c]
            if e < 0:
                continue
            g, j = grad[i, c], source[e]
            for k in range(K):
                total[e, k] += g * (values[i, k + 1, c] - values[j, k + 1, c])


def _run(task: Callable[[int, int], object], total: int, least: int) -> None:
    """task(begin, end) for ranges of about equal size in threads, none much smaller than `least`."""
    chunks = max(1, min(torch.get_num_threads(), total // least))
    bounds = [total * i // chunks for i in range(chunks + 1)]
    map_threads(lambda span: task(*span), list(pairwise(bounds)))


def find_winners(values: Floats, weight: Floats, edges: Ints, out: Floats, winner: Ints) -> None:
    """Fills out [N, C] with the maxima and winner [N, C] with their edges, 0 and -1 for a node without."""
    N, _, C = values.shape
    ptr, order = _group(edges[1], N)
    least = CELLS // max(1, C * (1 + edges.shape[1] // max(1, N)))
    _run(lambda a, b: _find_winners(values, weight, edges[0], ptr, order, a, b, out, winner), N, max(1, least))


def add_to_values(grad: Floats, winner: Ints, weight: Floats, edges: Ints, total: Floats) -> None:
    """Adds to total [N, 1 + K, C] what the gradient [N, C] brings to the values."""
    N, C = winner.shape
    least = LINE * max(1, CELLS // max(1, N * LINE))
    _run(lambda a, b: _add_to_values(grad, winner, weight, edges[0], a, b, total), C, least)


def add_to_weight(grad: Floats, winner: Ints, values: Floats, edges: Ints, total: Floats) -> None:
    """Adds to total [E, K] what the gradient [N, C] brings to the weights."""
    N, C = winner.shape
    least = max(1, CELLS // max(1, C))
    _run(lambda a, b: _add_to_weight(grad, winner, values, edges[0], a, b, total), N, least)
