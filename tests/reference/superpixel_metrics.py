"""Superpixel metrics as plain loops over the pixels of one image."""

from __future__ import annotations

from math import floor, hypot, pi, sqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pixels = dict[int, set[tuple[int, int]]]

SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def counted(labels: Array, target: Array | None, ignore_index: int | None, valid: Array | None) -> Array:
    """Which pixels count."""
    count = np.ones(labels.shape, bool)
    for at in np.ndindex(labels.shape):
        if valid is not None and not valid[at]:
            count[at] = False
        if target is not None and ignore_index is not None and target[at] == ignore_index:
            count[at] = False
    return count


def pixels_of(values: Array, count: Array) -> Pixels:
    """Value -> the pixels that count and carry it."""
    found: Pixels = {}
    for y, x in np.ndindex(values.shape):
        if count[y, x]:
            found.setdefault(int(values[y, x]), set()).add((y, x))
    return found


def boundary(values: Array, count: Array) -> set[tuple[int, int]]:
    """Pixels that count, with a 4-neighbour that counts and has another value."""
    found = set()
    for y, x in np.ndindex(values.shape):
        for dy, dx in SIDES:
            yy, xx = y + dy, x + dx
            inside = 0 <= yy < values.shape[0] and 0 <= xx < values.shape[1]
            if inside and count[y, x] and count[yy, xx] and values[y, x] != values[yy, xx]:
                found.add((y, x))
    return found


def near(sought: set[tuple[int, int]], found: set[tuple[int, int]], radius: int) -> float:
    """The share of `sought` with one of `found` in the square of `radius` around; 1 of none."""
    hits = 0
    for y, x in sought:
        hits += any(abs(y - yy) <= radius and abs(x - xx) <= radius for yy, xx in found)
    return hits / len(sought) if sought else 1.0


def ground_truth_metrics(
    labels: Array,
    target: Array,
    radius: int | None = None,
    ignore_index: int | None = None,
    valid: Array | None = None,
) -> dict[str, float]:
    """Name -> value of every metric beside ground truth."""
    count = counted(labels, target, ignore_index, valid)
    superpixels, segments = pixels_of(labels, count), pixels_of(target, count)
    N = int(count.sum())
    best = leak = 0
    for s in superpixels.values():
        overlaps = [len(s & g) for g in segments.values()]
        best += max(overlaps)
        leak += sum(min(n, len(s) - n) for n in overlaps if n > 0)
    levin = 0.0
    for g in segments.values():
        touching = sum(len(s) for s in superpixels.values() if s & g)
        levin += (touching - len(g)) / len(g)
    if radius is None:
        radius = floor(0.0025 * hypot(*labels.shape) + 0.5)
    edges, borders = boundary(labels, count), boundary(target, count)
    return {
        "asa": best / N,
        "np": leak / N,
        "levin": levin / len(segments),
        "ue_asa": (N - best) / N,
        "recall": near(borders, edges, radius),
        "precision": near(edges, borders, radius),
    }


def explained_variation(labels: Array, image: Array, valid: Array | None = None) -> float:
    """Of an image `[C, H, W]`; 1 where it is constant."""
    superpixels = pixels_of(labels, counted(labels, None, None, valid))
    everything = sorted(set().union(*superpixels.values()))
    above = below = 0.0
    for channel in image.astype(np.float64):
        values = [float(channel[p]) for p in everything]
        if min(values) == max(values):
            continue
        mu = sum(values) / len(values)
        below += sum((v - mu) ** 2 for v in values)
        for s in superpixels.values():
            above += len(s) * (sum(float(channel[p]) for p in sorted(s)) / len(s) - mu) ** 2
    return above / below if below else 1.0


def shape_metrics(labels: Array, valid: Array | None = None) -> dict[str, float]:
    """Name -> value of compactness, size regularity and the number of superpixels."""
    superpixels = pixels_of(labels, counted(labels, None, None, valid))
    N = sum(len(s) for s in superpixels.values())
    K = len(superpixels)
    compact = spread = 0.0
    for s in superpixels.values():
        perimeter = sum((y + dy, x + dx) not in s for y, x in s for dy, dx in SIDES)
        compact += len(s) / N * 4 * pi * len(s) / perimeter**2
        spread += (len(s) - N / K) ** 2
    return {"compactness": compact, "size_regularity": sqrt(spread / K) / (N / K), "num_superpixels": K}
