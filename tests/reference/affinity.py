"""Affinities of pixels as plain loops."""

from __future__ import annotations

import math


def neighbourhood(distances):
    """(dy, dx) by rising distance, then row-major: the eight neighbours at each."""
    return [(a * d, b * d) for d in distances for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]


def targets(instances, offsets, background=0, ignore_index=-100):
    """[K][H][W] for a map [H][W]."""
    H, W = len(instances), len(instances[0])
    out = []
    for dy, dx in offsets:
        plane = [[-100] * W for _ in range(H)]
        for y in range(H):
            for x in range(W):
                v, u = y + dy, x + dx
                if 0 <= v < H and 0 <= u < W and ignore_index not in (instances[y][x], instances[v][u]):
                    plane[y][x] = int(instances[y][x] == instances[v][u] != background)
        out.append(plane)
    return out


def edges(affinity, offsets, directed=False, valid=None):
    """Sorted [(p, q, mean of both directions)] of one image, affinity [K][H][W]."""
    H, W = len(affinity[0]), len(affinity[0][0])
    said = {}
    for k, (dy, dx) in enumerate(offsets):
        for y in range(H):
            for x in range(W):
                v, u = y + dy, x + dx
                if 0 <= v < H and 0 <= u < W and (valid is None or (valid[y][x] and valid[v][u])):
                    said[y * W + x, v * W + u] = float(affinity[k][y][x])
    out = {}
    for p, q in said:
        both = [said[pair] for pair in ((p, q), (q, p)) if pair in said]
        for pair in ((p, q), (q, p)):
            if directed or pair[0] < pair[1]:
                out[pair] = sum(both) / len(both)
    return [(p, q, out[p, q]) for p, q in sorted(out)]


def sigma(x, alpha):
    return 2 * (1 / (1 + math.exp(-alpha * x)) - 0.5)


def refine(affinity, probability, pairs, alpha=5.0, super_classes=None, background=0):
    """Affinities after refinement, probability [N][M]."""
    M = len(probability[0])
    classes = [[c] for c in range(M) if c != background and not any(c in s for s in super_classes or ())]
    classes += [list(s) for s in super_classes or ()]
    grouped = [[sum(p[c] for c in s) for s in classes] for p in probability]
    out = []
    for a, (i, j) in zip(affinity, pairs, strict=True):
        inner = sum(x * y for x, y in zip(grouped[i], grouped[j], strict=True))
        if super_classes is not None:
            ends = []
            for n in (i, j):
                scores = list(grouped[n]) + ([] if background is None else [probability[n][background]])
                ends.append(scores.index(max(scores)))
            if ends[0] != ends[1]:
                inner = 0.0
        out.append(sigma(inner, alpha) * a)
    return out
