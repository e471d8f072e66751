"""Instances from affinities of one image as plain loops: the steps of the graph merge, one after the other."""

from __future__ import annotations

import math

from tests.reference import affinity as affinities


def regions(foreground, cell_size, margin):
    """[(x0, y0, x1, y1)] and the area map [H][W] (0 for none) of connected cells with foreground, grown."""
    H, W = len(foreground), len(foreground[0])
    cells = sorted({(y // cell_size, x // cell_size) for y in range(H) for x in range(W) if foreground[y][x]})
    number: dict = {}
    for cell in cells:
        if cell in number:
            continue
        n, todo = max(number.values(), default=0) + 1, [cell]
        while todo:
            v, u = todo.pop()
            if (v, u) in cells and (v, u) not in number:
                number[v, u] = n
                todo += [(v + a, u + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    boxes, area = [], [[0] * W for _ in range(H)]
    for n in range(1, max(number.values(), default=0) + 1):
        mine = [cell for cell in cells if number[cell] == n]
        inside = set()
        for v, u in mine:
            for y in range(v * cell_size - margin, (v + 1) * cell_size + margin):
                for x in range(u * cell_size - margin, (u + 1) * cell_size + margin):
                    if 0 <= y < H and 0 <= x < W:
                        inside.add((y, x))
                        area[y][x] = n
        ys, xs = [y for y, _ in inside], [x for _, x in inside]
        boxes.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return boxes, area


def flipped(affinity, offsets):
    """{(p, q): affinity} of the image from the maps [K][H][W] of its mirror image."""
    out = {}
    for k, (dy, dx) in enumerate(offsets):
        H, W = len(affinity[k]), len(affinity[k][0])
        for y in range(H):
            for x in range(W):
                if 0 <= y + dy < H and 0 <= x + dx < W:
                    out[(y, W - 1 - x), (y + dy, W - 1 - x - dx)] = affinity[k][y][x]
    return out


def block_affinities(edges, width, window):
    """{((block), (block)): mean of all edges (p, q, affinity) between them}."""
    found: dict = {}
    for p, q, value in edges:
        ends = [(i // width // window, i % width // window) for i in (p, q)]
        if ends[0] != ends[1]:
            found.setdefault(tuple(sorted(ends)), []).append(value)
    return {pair: math.fsum(values) / len(values) for pair, values in found.items()}


def hashed(position):
    h = position
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


def merge(edges, num_nodes, thresholds, strict=False):
    """The cluster of each node, by its smallest: the strongest edge again and again. edges: [(i, j, affinity, stage)].

    Common neighbours get the plain average, edges of one stage between the same two nodes their mean.
    """
    cluster = list(range(num_nodes))
    standing: dict = {}
    for s, threshold in enumerate(thresholds):
        new: dict = {}
        for position, (i, j, value, stage) in enumerate(edges):
            pair = tuple(sorted((cluster[i], cluster[j])))
            if stage == s and pair[0] != pair[1]:
                new.setdefault(pair, []).append((value, hashed(position)))
        for pair, listed in new.items():
            mean, rank = math.fsum(v for v, _ in listed) / len(listed), max(r for _, r in listed)
            if pair in standing:
                mean, rank = (mean + standing[pair][0]) / 2, max(rank, standing[pair][1])
            standing[pair] = (mean, rank)
        while standing:
            best = min(standing, key=lambda pair: (-standing[pair][0], standing[pair][1]))
            if standing[best][0] < threshold or (strict and standing[best][0] == threshold):
                break
            u, v = best
            del standing[best]
            cluster = [u if c == v else c for c in cluster]
            for pair in [pair for pair in standing if v in pair]:
                k = sum(pair) - v
                value, rank = standing.pop(pair)
                to = tuple(sorted((u, k)))
                if to in standing:
                    value, rank = (value + standing[to][0]) / 2, max(rank, standing[to][1])
                standing[to] = (value, rank)
    return cluster


def segment(
    affinity,
    semantic,
    offsets,
    stages,
    thresholds,
    strict=False,
    window=1,
    exclude_background=True,
    cell_size=None,
    refine=True,
    alpha=5.0,
    super_classes=None,
    partition=False,
    class_refinement=None,
    min_size=0,
):
    """(labels [H][W], classes, scores, areas) of one image, affinity [K][H][W] and semantic [M][H][W]."""
    M, H, W = len(semantic), len(semantic[0]), len(semantic[0][0])
    p = [[semantic[c][i // W][i % W] for c in range(M)] for i in range(H * W)]
    sets = [[0], *(sorted(s) for s in super_classes or ())]
    sets += [[c] for c in range(1, M) if not any(c in s for s in sets)]
    most = [max(range(M), key=lambda c: (q[c], -c)) for q in p]
    if partition:
        totals = [[sum(q[c] for c in s) for s in sets] for q in p]
        kind = [max(range(len(sets)), key=lambda s: (t[s], -s)) for t in totals]
        votes = [max(sets[k], key=lambda c: (q[c], -c)) for q, k in zip(p, kind, strict=True)]
    else:
        kind, votes = [int(c > 0 or not exclude_background) for c in most], most
    group = [(k, 0) for k in kind]
    if cell_size is not None and exclude_background:
        for s in set(kind) - {0}:
            _, area = regions([[kind[y * W + x] == s for x in range(W)] for y in range(H)], cell_size, 0)
            group = [(s, area[i // W][i % W]) if kind[i] == s else g for i, g in enumerate(group)]
    found: dict = {}
    score: dict = {}
    for s in sorted(set(kind) - {0}):
        # All pixels of a block take part that holds one of the region.
        blocks = {}
        for i in range(H * W):
            if kind[i] == s:
                blocks[i // W // window, i % W // window] = group[i]
        block = [(i // W // window, i % W // window) for i in range(H * W)]
        edges = [
            (i, j, a)
            for i, j, a in affinities.edges(affinity, offsets)
            if block[i] in blocks and block[j] in blocks and blocks[block[i]] == blocks[block[j]]
        ]
        if refine:
            pairs = [(i, j) for i, j, _ in edges]
            values = affinities.refine([a for _, _, a in edges], p, pairs, alpha, super_classes)
            edges = [(i, j, a) for (i, j), a in zip(pairs, values, strict=True)]
        distance = [max(abs(i // W - j // W), abs(i % W - j % W)) for i, j, _ in edges]
        if class_refinement is not None:
            last = max(max(abs(dy), abs(dx)) for dy, dx in offsets)
            edges = [
                (i, j, affinities.sigma(a, alpha) if d == last and {votes[i], votes[j]} <= set(class_refinement) else a)
                for (i, j, a), d in zip(edges, distance, strict=True)
            ]
        keys = sorted(blocks)
        staged = [
            (keys.index(block[i]), keys.index(block[j]), a, next(t for t, ds in enumerate(stages) if d in ds))
            for (i, j, a), d in zip(edges, distance, strict=True)
        ]
        cluster = merge(staged, len(keys), thresholds, strict)
        for i in range(H * W):
            if kind[i] == s:
                found.setdefault((s, cluster[keys.index(block[i])]), []).append(i)
        for key in [key for key in found if key[0] == s]:
            inside = [a for i, j, a in edges if i in found[key] and j in found[key]]
            score[key] = math.fsum(inside) / len(inside) if inside else 0.0
    labels, classes, scores, areas = [[0] * W for _ in range(H)], [], [], []
    for key, pixels in sorted(found.items(), key=lambda item: item[1][0]):
        counts = [sum(votes[i] == c for i in pixels) for c in range(M)]
        if len(pixels) <= min_size or counts.index(max(counts)) == 0:
            continue
        classes.append(counts.index(max(counts)))
        scores.append(score[key])
        areas.append(len(pixels))
        for i in pixels:
            labels[i // W][i % W] = len(classes)
    return labels, classes, scores, areas
