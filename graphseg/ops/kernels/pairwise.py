"""Dot products along edges and weighted sums over edges, without a tensor of edges x channels.

A node's edges are summed in their order by one thread, so the number of threads changes nothing.
"""

from __future__ import annotations

from graphseg.ops.kernels.compile import njit


@njit
def group_edges(index, start, order):
    """Stable counting sort: edges of node n become order[start[n]:start[n + 1]]; start [N + 1] comes as zeros."""
    for e in range(index.shape[0]):
        start[index[e] + 1] += 1
    for n in range(start.shape[0] - 1):
        start[n + 1] += start[n]
    for e in range(index.shape[0]):  # start[n] runs through the places of n, up to those of n + 1 ...
        order[start[index[e]]] = e
        start[index[e]] += 1
    for n in range(start.shape[0] - 1, 0, -1):  # ... and is put back
        start[n] = start[n - 1]
    start[0] = 0


@njit
def sum_edges(weight, x, other, start, order, out, first, last):
    """out[n] += weight[e] x[other[e]] over the edges e of each node n in [first, last)."""
    C = x.shape[1]
    for n in range(first, last):
        row = out[n]
        for slot in range(start[n], start[n + 1]):
            e = order[slot]
            w = weight[e]
            values = x[other[e]]
            for c in range(C):
                row[c] += w * values[c]


@njit
def dot_edges(a, b, left, right, out, first, last):
    """out[e] = a[left[e]] . b[right[e]] for e in [first, last); four sums run side by side."""
    C = a.shape[1]
    M = C - C % 4
    zero = a.dtype.type(0)
    for e in range(first, last):
        p, q = a[left[e]], b[right[e]]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for c in range(0, M, 4):
            s0 += p[c] * q[c]
            s1 += p[c + 1] * q[c + 1]
            s2 += p[c + 2] * q[c + 2]
            s3 += p[c + 3] * q[c + 3]
        for c in range(M, C):
            s0 += p[c] * q[c]
        out[e] = (s0 + s1) + (s2 + s3)
