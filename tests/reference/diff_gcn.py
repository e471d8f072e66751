"""PointNet, DGCNN and DiffGCN of SGSeg, edge by edge as printed, in float64.

h(g) = ReLU(W g + b). A derivative across no distance is 0, and so is a node without edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def h(g: Array, weight: Array, bias: Array) -> Array:
    out = []
    for row, b in zip(weight, bias, strict=True):
        total = float(b)
        for w, value in zip(row, g, strict=True):
            total += float(w) * float(value)
        out.append(max(total, 0.0))
    return np.array(out)


def pointnet(x: Array, weight: Array, bias: Array) -> Array:
    """Eq. 14."""
    return np.array([h(row, weight, bias) for row in x]).reshape(len(x), len(bias))


def reduce_edges(
    g: Callable[[int, int], Array], nodes: int, edges: list[tuple[int, int]], weight: Array, bias: Array, aggr: str
) -> Array:
    """Eq. 15 with any g; edges are (neighbour j, node i)."""
    out = np.zeros((nodes, len(bias)))
    for i in range(nodes):
        found = [h(g(i, j), weight, bias) for j, target in edges if target == i]
        if found:
            out[i] = np.max(found, axis=0) if aggr == "max" else sum(found[1:], found[0]) / len(found)
    return out


def dgcnn(x: Array, edges: list[tuple[int, int]], weight: Array, bias: Array, aggr: str = "max") -> Array:
    """Eq. 15."""

    def g(i: int, j: int) -> Array:
        return np.concatenate([x[i], x[i] - x[j]])

    return reduce_edges(g, len(x), edges, weight, bias, aggr)


def diff_gcn(
    x: Array, edges: list[tuple[int, int]], pos: Array, weight: Array, bias: Array, aggr: str = "max"
) -> Array:
    """Eq. 15 with the g of Eq. 16."""

    def g(i: int, j: int) -> Array:
        along = []
        delta = math.sqrt((pos[i][0] - pos[j][0]) ** 2 + (pos[i][1] - pos[j][1]) ** 2)
        for axis in (0, 1):
            along.append((x[i] - x[j]) / delta * (pos[i][axis] - pos[j][axis]) if delta > 0 else 0 * x[i])
        return np.concatenate([x[i], *along])

    return reduce_edges(g, len(x), edges, weight, bias, aggr)
