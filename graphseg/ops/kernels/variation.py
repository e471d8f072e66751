"""Differences between neighbouring pixels, row by row; the channels of a row are in cache together."""

from __future__ import annotations

import numpy as np

from graphseg.ops.kernels.compile import njit


@njit
def add_steps(x, right, below, first, last):
    """right[y, u] += |x[:, y, u + 1] - x[:, y, u]|_1, below likewise, for rows first <= y < last of `x [C, H, W]`."""
    C, H, W = x.shape
    for y in range(first, last):
        for c in range(C):
            row = x[c, y]
            for u in range(W - 1):
                right[y, u] += np.abs(row[u + 1] - row[u])
            if y + 1 < H:
                lower = x[c, y + 1]
                for u in range(W):
                    below[y, u] += np.abs(lower[u] - row[u])


@njit
def fill_step_gradients(x, right, below, grad, first, last):
    """The gradient of x in `grad [C, H, W]`, rows first to last, given those of the two results of `add_steps`."""
    C, H, W = x.shape
    for y in range(first, last):
        for c in range(C):
            row, out = x[c, y], grad[c, y]
            for u in range(W):
                out[u] = 0
            for u in range(W - 1):
                step = row[u + 1] - row[u]
                out[u] -= right[y, u] * (np.int8(step > 0) - np.int8(step < 0))
            for u in range(1, W):
                step = row[u] - row[u - 1]
                out[u] += right[y, u - 1] * (np.int8(step > 0) - np.int8(step < 0))
            if y + 1 < H:
                lower = x[c, y + 1]
                for u in range(W):
                    step = lower[u] - row[u]
                    out[u] -= below[y, u] * (np.int8(step > 0) - np.int8(step < 0))
            if y > 0:
                upper = x[c, y - 1]
                for u in range(W):
                    step = row[u] - upper[u]
                    out[u] += below[y - 1, u] * (np.int8(step > 0) - np.int8(step < 0))
