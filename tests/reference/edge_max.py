"""The largest of what a node's edges bring, as plain loops in float64."""

from __future__ import annotations

import numpy as np


def max_over_edges(values, weight, edge_index):
    """Maxima [N, C] and the first edge that attains each, -1 (and 0) for a node without edges."""
    values, weight = np.asarray(values, np.float64), np.asarray(weight, np.float64)
    N, parts, C = values.shape
    out, winner = np.zeros((N, C)), np.full((N, C), -1)
    for i in range(N):
        for c in range(C):
            for e, (j, target) in enumerate(np.asarray(edge_index).T.tolist()):
                if target != i:
                    continue
                z = values[i, 0, c]
                for k in range(parts - 1):
                    z = z + weight[e, k] * (values[i, k + 1, c] - values[j, k + 1, c])
                if winner[i, c] < 0 or z > out[i, c]:
                    out[i, c], winner[i, c] = z, e
    return out, winner


def gradients(values, weight, edge_index, grad):
    """Gradients of the values and the weights, given that of the maxima: along the winners."""
    values, weight = np.asarray(values, np.float64), np.asarray(weight, np.float64)
    _, winner = max_over_edges(values, weight, edge_index)
    for_values, for_weight = np.zeros_like(values), np.zeros_like(weight)
    for i, c in np.argwhere(winner >= 0).tolist():
        e, g = winner[i, c], float(grad[i, c])
        j = int(edge_index[0, e])
        for_values[i, 0, c] += g
        for k in range(weight.shape[1]):
            for_values[i, k + 1, c] += weight[e, k] * g
            for_values[j, k + 1, c] -= weight[e, k] * g
            for_weight[e, k] += g * (values[i, k + 1, c] - values[j, k + 1, c])
    return for_values, for_weight
