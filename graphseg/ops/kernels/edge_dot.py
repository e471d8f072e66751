"""Inner products along edges and their gradient, one edge after the other; sums in float64."""

from __future__ import annotations

from graphseg.ops.kernels.compile import njit


@njit
def dot_rows(x, first, second, out):
    """out[e] = <x[first[e]], x[second[e]]> for `x [N, C]`."""
    for e in range(first.shape[0]):
        i, j = first[e], second[e]
        total = 0.0
        for c in range(x.shape[1]):
            total += x[i, c] * x[j, c]
        out[e] = total


@njit
def add_dot_gradients(x, first, second, grad, total):
    """Adds the gradient of every product to its two rows of `total [N, C]`, given the one of the product."""
    for e in range(first.shape[0]):
        i, j, g = first[e], second[e], grad[e]
        for c in range(x.shape[1]):
            total[i, c] += g * x[j, c]
            total[j, c] += g * x[i, c]
