"""Edges of a regular grid, written in one pass."""

from __future__ import annotations

import numpy as np

from graphseg.ops.kernels.compile import njit


@njit
def fill_offset_edges(depth, height, width, offsets, edge_index):
    """Writes the edges (p, p + offset) of every pixel p to `edge_index`; offsets [K, 3] rise lexicographically."""
    e = 0
    p = 0
    source, target = edge_index[0], edge_index[1]
    K = offsets.shape[0]
    step = np.empty(K, np.int64)  # how far the id moves along each offset that stays on the grid in z and y
    shift = np.empty(K, np.int64)
    for z in range(depth):
        for y in range(height):
            M = 0
            for k in range(K):
                zz, yy = z + offsets[k, 0], y + offsets[k, 1]
                if 0 <= zz < depth and 0 <= yy < height:
                    step[M] = (offsets[k, 0] * height + offsets[k, 1]) * width + offsets[k, 2]
                    shift[M] = offsets[k, 2]
                    M += 1
            for x in range(width):
                for m in range(M):
                    xx = x + shift[m]
                    if 0 <= xx < width:
                        source[e] = p
                        target[e] = p + step[m]
                        e += 1
                p += 1
    return e
