"""Pool and project as plain loops over pixels and nodes, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

REDUCE: dict[str, Callable[..., Any]] = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}


def pool_hard(values, assignment, num_nodes, reduce, valid=None):
    """Reduces the pixels of each node; 0 where there are none."""
    values = np.asarray(values, dtype=np.float64)
    out = np.zeros((num_nodes, *values.shape[1:]))
    for n in range(num_nodes):
        members = [values[p] for p in range(len(values)) if (valid is None or valid[p]) and int(assignment[p]) == n]
        if members:
            out[n] = REDUCE[reduce](np.stack(members), axis=0)
    return out


def pool_soft(values, probability, reduce, valid=None):
    """Sum, or mean, weighted with the probability of node given pixel; 0 where that sums to 0."""
    values = np.asarray(values, dtype=np.float64)
    pixels, nodes = probability.shape
    out = np.zeros((nodes, *values.shape[1:]))
    for n in range(nodes):
        total, mass = np.zeros(values.shape[1:]), 0.0
        for p in range(pixels):
            if valid is None or valid[p]:
                total = total + float(probability[p, n]) * values[p]
                mass += float(probability[p, n])
        if reduce == "sum":
            out[n] = total
        elif mass != 0:
            out[n] = total / mass
    return out


def project_hard(values, assignment, valid=None, fill=0.0):
    """The value of each pixel's node."""
    values = np.asarray(values, dtype=np.float64)
    out = np.full((len(assignment), *values.shape[1:]), float(fill))
    for p in range(len(assignment)):
        if valid is None or valid[p]:
            out[p] = values[int(assignment[p])]
    return out


def project_soft(values, probability, valid=None, fill=0.0):
    """The values of all nodes, weighted with their probability at each pixel."""
    values = np.asarray(values, dtype=np.float64)
    pixels, nodes = probability.shape
    out = np.full((pixels, *values.shape[1:]), float(fill))
    for p in range(pixels):
        if valid is None or valid[p]:
            out[p] = sum((float(probability[p, n]) * values[n] for n in range(nodes)), np.zeros(values.shape[1:]))
    return out
