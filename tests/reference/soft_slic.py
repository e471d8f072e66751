"""Soft SLIC as loops over pixels and the superpixels around them, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import exp
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def soft_slic(
    features: Array,
    dims: int,
    cells: tuple[int, ...],
    step: float,
    compactness: float,
    iterations: int,
    temperature: float,
    mask: Array,
    spacing: Sequence[float],
) -> tuple[Array, Array]:
    """Probabilities `[P, N]` (0 for superpixels that are not around a pixel) and centres `[N, F]`.

    `features [C, D, H, W]`; the superpixels are the `cells` of a grid that have pixels in `mask [D, H, W]`.
    """
    cell = {}
    value = {}
    for place in product(*map(range, mask.shape)):
        if mask[place]:
            cell[place] = tuple(p * n // length for p, n, length in zip(place, cells, mask.shape, strict=True))
            at = [compactness / step * p * s for p, s in zip(place, spacing, strict=True)][3 - dims :]
            value[place] = [*(float(row[place]) for row in features), *at]
    nodes = sorted(set(cell.values()))
    centres = {k: weighted_mean([(1.0, value[p]) for p in value if cell[p] == k]) for k in nodes}
    shares: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
    for _ in range(iterations):
        for place, v in value.items():
            around = [k for k in nodes if all(abs(i - j) <= 1 for i, j in zip(k, cell[place], strict=True))]
            distance = [sum((a - b) ** 2 for a, b in zip(v, centres[k], strict=True)) for k in around]
            power = [exp(-(d - min(distance)) / temperature) for d in distance]
            shares[place] = {k: p / sum(power) for k, p in zip(around, power, strict=True)}
        given = {k: [(shares[p][k], value[p]) for p in value if k in shares[p]] for k in nodes}
        centres |= {k: weighted_mean(rows) for k, rows in given.items() if sum(w for w, _ in rows) > 0}
    found = np.zeros((mask.size, len(nodes)))
    for row, place in enumerate(product(*map(range, mask.shape))):
        for k, share in shares.get(place, {}).items():
            found[row, nodes.index(k)] = share
    return found, np.array([centres[k] for k in nodes]).reshape(len(nodes), len(features) + dims)


def weighted_mean(rows: list[tuple[float, list[float]]]) -> list[float]:
    total = sum(weight for weight, _ in rows)
    return [sum(weight * v[f] for weight, v in rows) / total for f in range(len(rows[0][1]))]
