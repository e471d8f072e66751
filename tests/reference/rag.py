"""Region adjacency as plain loops over pixels."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

REACH = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}  # how many coordinates of neighbours may differ


def adjacency(
    labels: Array, connectivity: int, boundary: Array | None = None, valid: Array | None = None
) -> dict[tuple[int, int], list[float]]:
    """(smaller id, larger id) -> strength of every adjacent pixel pair (0.0 without `boundary`), sorted."""
    found: dict[tuple[int, int], list[float]] = {}
    half = [
        o
        for o in product((-1, 0, 1), repeat=labels.ndim)
        if sum(c != 0 for c in o) in range(1, REACH[connectivity] + 1) and o > (0,) * labels.ndim
    ]
    for here in np.ndindex(labels.shape):
        for offset in half:
            there = tuple(a + b for a, b in zip(here, offset, strict=True))
            if any(not 0 <= t < n for t, n in zip(there, labels.shape, strict=True)):
                continue
            if valid is not None and not (valid[here] and valid[there]):
                continue
            a, b = int(labels[here]), int(labels[there])
            if a != b:
                value = 0.0 if boundary is None else (float(boundary[here]) + float(boundary[there])) / 2
                found.setdefault((min(a, b), max(a, b)), []).append(value)
    return dict(sorted(found.items()))
