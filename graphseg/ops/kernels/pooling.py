"""Sums of rows by node, in pixel order and in float64: a float32 sum over a large region would lose four digits."""

from __future__ import annotations

from graphseg.ops.kernels.compile import njit


@njit
def sum_rows(x, ids, total):
    """total[ids[p]] += x[p], rows of `x [P, C]` to rows of `total [N, C]`."""
    C = x.shape[1]
    for p in range(x.shape[0]):
        a = ids[p]
        for c in range(C):
            total[a, c] += x[p, c]


@njit
def sum_columns(x, ids, total):
    """total[c, ids[p]] += x[c, p], for channels-first `x [C, P]` and `total [C, N]`."""
    for c in range(x.shape[0]):
        for p in range(x.shape[1]):
            total[c, ids[p]] += x[c, p]
