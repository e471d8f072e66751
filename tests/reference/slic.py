"""SLIC as loops over pixels, candidates and regions, on whole numbers.

A place is a tuple (z, y, x), in an image with z = 0. `features [F, D, H, W]` hold the positions, the first `dims` of
them, and then the colours. Labels are dicts from place to id; a place outside the mask is in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil, sqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Place = tuple[int, ...]
Labels = dict[Place, int]
STEPS = ((0, 0, 1), (0, 1, 0), (1, 0, 0))


# Features


def positions(shape: Place, dims: int, step: float, unit: float, spacing: Sequence[float]) -> Array:
    """Places `[dims, D, H, W]` in whole numbers, `unit` to a length of `step`."""
    found = np.zeros((3, *shape), np.int64)
    for place in product(*map(range, shape)):
        for axis in range(3):
            found[(axis, *place)] = round(place[axis] * (spacing[axis] * unit / step))
    return found[3 - dims :]


def plain_colours(levels: Array, scale: float) -> Array:
    """Channels `[C, D, H, W]` in 0 ... 65535 as they are: 0 to 100 / sqrt(C), in units of 1 / `scale`."""
    found = np.zeros(levels.shape, np.int64)
    for at in np.ndindex(levels.shape):
        found[at] = round(int(levels[at]) * (100 * scale / (65535 * sqrt(len(levels)))))
    return found


def lab_colours(levels: Array, gamma: Array, matrix: Array, root: Array, zero: int) -> Array:
    """CIELAB in fixed point of red, green, blue `[3, D, H, W]` in 0 ... 65535, by look-up."""
    found = np.zeros(levels.shape, np.int64)
    for place in np.ndindex(levels.shape[1:]):
        light = [int(gamma[levels[(c, *place)]]) for c in range(3)]
        x, y, z = (int(root[sum(int(m) * v for m, v in zip(row, light, strict=True)) >> 16]) for row in matrix)
        for c, value in enumerate((116 * y - zero, 500 * (x - y), 200 * (y - z))):
            found[(c, *place)] = (value + 128) >> 8
    return found


# Clusters


def cells_of(mask: Array, cells: Place) -> Labels:
    """The cell of every place of a grid of `cells`."""
    found = {}
    for place in product(*map(range, mask.shape)):
        if mask[place]:
            z, y, x = (p * n // length for p, n, length in zip(place, cells, mask.shape, strict=True))
            found[place] = (z * cells[1] + y) * cells[2] + x
    return found


def cluster(
    features: Array, dims: int, cells: Place, iterations: int, mask: Array, unit: float, adaptive: bool, start: int
) -> Labels:
    """Every pixel to the nearest of the centres that began in its own cell or in one of those around it."""
    own = cells_of(mask, cells)
    began = set(own.values())
    around = {}
    for z, y, x in product(*map(range, cells)):
        found = []
        for c in product(range(z - 1, z + 2), range(y - 1, y + 2), range(x - 1, x + 2)):
            number = (c[0] * cells[1] + c[1]) * cells[2] + c[2]
            if all(0 <= i < n for i, n in zip(c, cells, strict=True)) and number in began:
                found.append(number)
        around[(z * cells[1] + y) * cells[2] + x] = found
    value = {place: [int(row[place]) for row in features] for place in own}
    labels = dict(own)
    centres: dict[int, list[int]] = {}
    for turn in range(iterations):
        for k, places in members(labels).items():
            total = [sum(column) for column in zip(*(value[p] for p in places), strict=True)]
            centres[k] = [rounded(t, len(places)) for t in total]
        farthest = dict.fromkeys(began, start if turn == 0 else 1)
        if turn > 0:
            for place, k in labels.items():
                farthest[k] = max(farthest[k], squared(value[place][dims:], centres[k][dims:]))
        moved = {}
        for place, v in value.items():
            choices: list[tuple[float, int]] = []
            for k in around[own[place]]:
                apart, colour = squared(v[:dims], centres[k][:dims]), squared(v[dims:], centres[k][dims:])
                scaled = apart * (1 / unit**2) + colour * (1 / farthest[k]) if adaptive else apart + colour
                choices.append((scaled, k))
            moved[place] = min(choices)[1]
        if moved == labels and not adaptive:
            break
        labels = moved
    return labels


def rounded(total: int, count: int) -> int:
    """A mean, halves upwards."""
    return (2 * total + count) // (2 * count)


def squared(a: Sequence[int], b: Sequence[int]) -> int:
    return sum((v - w) ** 2 for v, w in zip(a, b, strict=True))


# Regions


def members(labels: Labels) -> dict[int, list[Place]]:
    """The places of every label, in scan order."""
    found: dict[int, list[Place]] = {}
    for place in sorted(labels):
        found.setdefault(labels[place], []).append(place)
    return found


def beside(place: Place) -> list[Place]:
    """The six places around one (four in an image, where no other z exists)."""
    z, y, x = place
    return [(z + s * dz, y + s * dy, x + s * dx) for dz, dy, dx in STEPS for s in (-1, 1)]


def parts(labels: Labels) -> Labels:
    """The connected parts of every label by flood fill, numbered by their first place."""
    found: Labels = {}
    count = 0
    for place in sorted(labels):
        if place in found:
            continue
        found[place] = count
        open_places = [place]
        while open_places:
            here = open_places.pop()
            for other in beside(here):
                if other not in found and labels.get(other) == labels[here]:
                    found[other] = count
                    open_places.append(other)
        count += 1
    return found


def adjacent(labels: Labels) -> set[tuple[int, int]]:
    """Pairs of labels that touch, the smaller first."""
    found = set()
    for place, a in labels.items():
        for other in beside(place):
            b = labels.get(other, a)
            if a < b:
                found.add((a, b))
    return found


def sums(places: Sequence[Place], features: Array) -> list[int]:
    """The number of places, and the sum of each feature."""
    return [len(places), *(sum(int(row[place]) for place in places) for row in features)]


def energy(a: Sequence[int], b: Sequence[int]) -> float:
    """By how much the squared error grows if regions of these sums become one."""
    n, m = float(a[0]), float(b[0])
    square = 0.0
    for v, w in zip(a[1:], b[1:], strict=True):
        d = v / n - w / m
        square += d * d
    return n * m / (n + m) * square


def absorb(labels: Labels, features: Array, dims: int, smallest: int, floor: int) -> Labels:
    """While there are more than `floor`, the smallest region of under `smallest` pixels becomes part of its neighbour
    of most similar mean colour."""
    labels = dict(labels)
    while True:
        regions = members(labels)
        pairs = adjacent(labels)
        touching = {a for pair in pairs for a in pair}
        small = [(len(places), a) for a, places in regions.items() if len(places) < smallest and a in touching]
        if len(regions) <= floor or not small:
            return labels
        a = min(small)[1]
        choices = []
        for b in {other for pair in pairs if a in pair for other in pair} - {a}:
            colours = [[rounded(t, n) for t in c] for n, *c in (sums(regions[k], features[dims:]) for k in (a, b))]
            choices.append((squared(*colours), b))
        unite(labels, a, min(choices)[1])


def merge(labels: Labels, features: Array, ceiling: int) -> Labels:
    """While there are more than `ceiling`, the two neighbours become one whose union has the least more error."""
    labels = dict(labels)
    while True:
        regions = members(labels)
        pairs = adjacent(labels)
        if len(regions) <= ceiling or not pairs:
            return labels
        total = {a: sums(places, features) for a, places in regions.items()}
        _, a, b = min((energy(total[a], total[b]), a, b) for a, b in pairs)
        unite(labels, a, b)


def unite(labels: Labels, a: int, b: int) -> None:
    for place, k in labels.items():
        if k == max(a, b):
            labels[place] = min(a, b)


def split(labels: Labels, features: Array, dims: int, count: int) -> Labels:
    """Cuts regions in two until there are `count`: always the one whose best cut lowers its error the most."""
    labels = parts(labels)
    cuts = {a: best_cut(places, features, dims) for a, places in members(labels).items()}
    while len(cuts) < count:
        a = min(cuts, key=lambda k: (-cuts[k][0], k))
        for place in cuts[a][1]:
            labels[place] = len(cuts)
        regions = members(labels)
        for b in (a, len(cuts)):
            cuts[b] = best_cut(regions[b], features, dims)
    return labels


def best_cut(places: list[Place], features: Array, dims: int) -> tuple[float, list[Place]]:
    """By how much the best cut of a region lowers its error, and the part without the first place.

    Cuts are those of one edge of the tree that joins neighbours of likest colour first; of equals along the shorter
    side.
    """
    if len(places) == 1:
        return -1.0, []
    extent = [max(p[axis] for p in places) - min(p[axis] for p in places) for axis in range(3)]
    edges = []
    for turn, axis in enumerate(sorted(range(3), key=lambda axis: (extent[axis], axis))):
        for place in places:
            other = tuple(p + s for p, s in zip(place, STEPS[2 - axis], strict=True))
            if other in places:
                weight = squared(*([int(row[p]) for row in features[dims:]] for p in (place, other)))
                edges.append((weight, turn, place, other))
    group = {place: i for i, place in enumerate(places)}
    tree = []
    for _, _, place, other in sorted(edges):
        if group[place] != group[other]:
            tree.append((place, other))
            old, new = group[place], group[other]
            group = {p: new if g == old else g for p, g in group.items()}
    best: tuple[float, Place, list[Place]] = (-1.0, places[0], [])
    whole = sums(places, features)
    for edge in tree:
        kept = [e for e in tree if e != edge]
        near = {places[0]}
        while any((a in near) != (b in near) for a, b in kept):
            near |= {p for a, b in kept if a in near or b in near for p in (a, b)}
        far = [p for p in places if p not in near]
        part = sums(far, features)
        gain = energy(part, [w - p for w, p in zip(whole, part, strict=True)])
        end = edge[0] if edge[1] in near else edge[1]
        if gain > best[0] or (gain == best[0] and end < best[1]):
            best = (gain, end, far)
    return best[0], best[2]


# All of it


def slic(
    features: Array,
    dims: int,
    cells: Place,
    num_segments: int,
    iterations: int,
    mask: Array,
    min_size: float,
    exact: bool,
    unit: float = 1.0,
    adaptive: bool = False,
    start: int = 1,
) -> Array:
    """Labels `[D, H, W]`, numbered by their first pixel; -1 outside the mask."""
    labels = parts(cluster(features, dims, cells, iterations, mask, unit, adaptive, start))
    labels = absorb(labels, features, dims, ceil(min_size * len(labels) / num_segments), num_segments if exact else 1)
    if exact:
        labels = split(merge(labels, features, num_segments), features, dims, num_segments)
    return as_map(labels, mask.shape)


def as_map(labels: Labels, shape: tuple[int, ...]) -> Array:
    """Labels `[D, H, W]` by their first place, -1 where there are none."""
    found = np.full(shape, -1, np.int64)
    number: dict[int, int] = {}
    for place in sorted(labels):
        found[place] = number.setdefault(labels[place], len(number))
    return found
