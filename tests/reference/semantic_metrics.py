"""Semantic metrics as plain loops: over pixels, classes, images and assignments."""

from __future__ import annotations

from itertools import permutations
from math import ceil, floor, hypot, nan, sqrt
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.morphology import disk

Array = np.ndarray[Any, Any]


def confusion(prediction: Array, target: Array, rows: int, columns: int, ignore: int | None) -> list[list[int]]:
    """Counts by pixel, true classes in rows."""
    table = [[0] * columns for _ in range(rows)]
    for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
        if ignore is None or t != ignore:
            table[int(t)][int(p)] += 1
    return table


def figures(table: list[list[int]]) -> dict[str, Any]:
    """Name -> figure of a square table; NaN of nothing."""
    K = len(table)
    total = sum(map(sum, table))
    iou = []
    weighted = 0.0
    for k in range(K):
        true = sum(table[k])
        predicted = sum(table[t][k] for t in range(K))
        union = true + predicted - table[k][k]
        iou.append(table[k][k] / union if union else nan)
        weighted += true * table[k][k] / union if union else 0.0
    known = [value for value in iou if value == value]
    return {
        "class_iou": iou,
        "mean_iou": sum(known) / len(known) if known else nan,
        "frequency_weighted_iou": weighted / total if total else nan,
        "pixel_accuracy": sum(table[k][k] for k in range(K)) / total if total else nan,
    }


def hungarian(table: list[list[int]]) -> tuple[float, list[int]]:
    """The best of all assignments of clusters (columns) to classes (rows), of equally good ones the first."""
    K, M = len(table), len(table[0])
    best, chosen = -1, None
    for classes in permutations(range(max(K, M)), M):  # rising, so that the first of the best is kept
        right = sum(table[k][m] for m, k in enumerate(classes) if k < K)
        if right > best:
            best, chosen = right, classes
    assert chosen is not None
    total = sum(map(sum, table))
    return best / total if total else nan, [k if k < K else -1 for k in chosen]


def adjacency(target: Array, num_classes: int, ignore: int | None) -> list[list[int]]:
    """Pairs of 4-neighbours of different classes, by pixel."""
    table = [[0] * num_classes for _ in range(num_classes)]
    H, W = target.shape
    for y, x in np.ndindex(H, W):
        for yy, xx in ((y + 1, x), (y, x + 1)):
            if yy < H and xx < W:
                a, b = int(target[y, x]), int(target[yy, xx])
                if a != b and ignore not in (a, b):
                    table[a][b] += 1
                    table[b][a] += 1
    return table


def similarity(weight: Array, table: list[list[int]]) -> dict[str, Any]:
    """Cosines of every class and the first of those it shares most boundary with."""
    K = len(weight)

    def cosine(a: int, b: int) -> float:
        u, v = (weight[k].ravel().tolist() for k in (a, b))
        sizes = sqrt(sum(value * value for value in u)) * sqrt(sum(value * value for value in v))
        return sum(p * q for p, q in zip(u, v, strict=True)) / sizes if sizes else 0.0

    values, neighbours, shared = [], [], []
    for k in range(K):
        best, length = -1, 0
        for other in range(K):
            if other != k and table[k][other] > length:
                best, length = other, table[k][other]
        neighbours.append(best)
        shared.append(length)
        values.append(cosine(k, best) if best >= 0 else nan)
    known = [value for value in values if value == value]
    pairs = [cosine(a, b) for a in range(K) for b in range(K) if a != b]
    weighted = sum(value * length for value, length in zip(values, shared, strict=True) if length)
    return {
        "mean": sum(known) / len(known) if known else nan,
        "weighted": weighted / sum(shared) if sum(shared) else nan,
        "overall": sum(pairs) / len(pairs) if pairs else nan,
        "similarity": values,
        "neighbour": neighbours,
        "shared": shared,
    }


def mask_boundary(mask: Array) -> Array:
    """Pixels whose value is another to the right, below, or below to the right, where there is such a pixel."""
    H, W = mask.shape
    found = np.zeros((H, W), bool)
    for y, x in np.ndindex(H, W):
        for yy, xx in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
            if yy < H and xx < W and mask[y, x] != mask[yy, xx]:
                found[y, x] = True
    return found


def boundary_f(prediction: Array, target: Array, num_classes: int, radius: float, ignore: int | None) -> list[float]:
    """The F-score of every class of an image, NaN where neither map has a boundary."""
    r = int(radius) if radius >= 1 else ceil(radius * hypot(*target.shape))
    counted = np.ones(target.shape, bool) if ignore is None else target != ignore
    scores = []
    for k in range(num_classes):
        mine, theirs = (mask_boundary((values == k) & counted) for values in (prediction, target))
        if not mine.any() and not theirs.any():
            scores.append(nan)
            continue
        near_mine, near_theirs = (binary_dilation(edge, disk(r)) for edge in (mine, theirs))
        precision = (mine & near_theirs).sum() / mine.sum() if mine.any() else 1.0
        recall = (theirs & near_mine).sum() / theirs.sum() if theirs.any() else 1.0
        both = precision + recall
        scores.append(float(2 * precision * recall / both) if both else 0.0)
    return scores


def scaled_size(size: tuple[int, int], scale: float, divisor: int) -> tuple[int, int]:
    """(height, width), rounded half up to a multiple of `divisor`, at least one."""
    height, width = (max(divisor, divisor * floor(n * scale / divisor + 0.5)) for n in size)
    return height, width
