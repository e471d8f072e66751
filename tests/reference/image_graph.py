"""What an ImageGraph promises, as plain loops over pixels, nodes and edges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def label_counts(assignment: Array, valid: Array, mask: Array, n: int, k: int, ignore: int | None) -> Array:
    """`[N, K]`: labelled pixels of each class in each node."""
    counts = np.zeros((n, k), np.int64)
    for node, inside, label in zip(assignment.ravel(), valid.ravel(), mask.ravel(), strict=True):
        if inside and (ignore is None or label != ignore):
            counts[node, label] += 1
    return counts


def majority(counts: Array, unlabelled: int) -> list[int]:
    """The class with the most pixels, the smaller of equals."""
    labels = []
    for row in counts.tolist():
        best = max(range(len(row)), key=lambda c: (row[c], -c))
        labels.append(best if row[best] else unlabelled)
    return labels


def purity(counts: Array) -> list[float]:
    """Share of the majority class, 0 without labels."""
    return [max(row) / sum(row) if sum(row) else 0.0 for row in counts.tolist()]


def scores(predicted: Array, mask: Array, counted: Array) -> dict[str, float]:
    """Pixel accuracy and mean IoU over the classes of `mask`, on the counted pixels of two label maps."""
    p, t = predicted[counted].tolist(), mask[counted].tolist()
    if not t:
        return {"pixel_accuracy": math.nan, "mean_iou": math.nan}
    ious = []
    for c in sorted(set(t)):
        both = sum(a == c and b == c for a, b in zip(p, t, strict=True))
        either = sum(a == c or b == c for a, b in zip(p, t, strict=True))
        ious.append(both / either)
    hits = sum(a == b for a, b in zip(p, t, strict=True))
    return {"pixel_accuracy": hits / len(t), "mean_iou": sum(ious) / len(ious)}


def all_labellings(n: int, k: int) -> Iterable[tuple[int, ...]]:
    """Every way to give one of k classes to each of n nodes."""
    return product(range(k), repeat=n)


def pool(values: Array, assignment: Array, valid: Array, n: int, reduce: str) -> Array:
    """`[N, *]` from `[P, *]`; 0 for nodes without pixels."""
    rows = []
    for node in range(n):
        mine = values[(assignment == node) & valid].astype(np.float64)
        rows.append(getattr(mine, reduce)(0) if len(mine) else np.zeros(values.shape[1:]))
    return np.array(rows).reshape(n, *values.shape[1:])


def project(values: Array, assignment: Array, valid: Array, height: int, width: int, fill: float) -> Array:
    """`[*, H, W]` from `[N, *]`."""
    out = np.full((*values.shape[1:], height, width), fill, values.dtype)
    for y in range(height):
        for x in range(width):
            if valid[y * width + x]:
                out[..., y, x] = values[assignment[y * width + x]]
    return out


def subgraph(
    kept: Sequence[int], edges: Array, assignment: Array, valid: Array
) -> tuple[list[tuple[int, int]], list[int], list[bool]]:
    """Edges among the kept nodes, and the assignment and validity of pixels, all in the new numbering."""
    new = {old: i for i, old in enumerate(kept)}
    pairs = [(new[i], new[j]) for i, j in edges.T.tolist() if i in new and j in new]
    here = [bool(v) and a in new for a, v in zip(assignment.tolist(), valid.tolist(), strict=True)]
    return pairs, [new[a] if h else 0 for a, h in zip(assignment.tolist(), here, strict=True)], here


def both_directions(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every pair in both directions, sorted."""
    return sorted({edge for i, j in pairs for edge in ((i, j), (j, i))})


def offset_pairs(height: int, width: int, offsets: Iterable[Sequence[int]], valid: Array) -> set[tuple[int, int]]:
    """Pixels at one of the offsets from each other."""
    found = set()
    for y, x, (dy, dx) in product(range(height), range(width), offsets):
        v, u = y + dy, x + dx
        if 0 <= v < height and 0 <= u < width and valid[y, x] and valid[v, u]:
            found.add((y * width + x, v * width + u))
    return found


def nearest_pairs(points: Array, k: int) -> set[tuple[int, int]]:
    """(centre, neighbour) for the k nearest of every point, ties to the smaller index."""
    pairs = set()
    for i, p in enumerate(points.astype(np.float64)):
        others = [(float(((q - p) ** 2).sum()), j) for j, q in enumerate(points.astype(np.float64)) if j != i]
        pairs |= {(i, j) for _, j in sorted(others)[:k]}
    return pairs


def majority_parent(fine: Array, coarse: Array, valid: Array) -> list[int]:
    """For every fine region the coarse one with most of its pixels, the smaller of equals."""
    parents = []
    for region in sorted(set(fine[valid].tolist())):
        inside = coarse[valid & (fine == region)].tolist()
        parents.append(max(sorted(set(inside)), key=inside.count))
    return parents
