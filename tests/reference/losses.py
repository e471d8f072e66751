"""The losses as plain loops over the printed formulas, in float64."""

from __future__ import annotations

import math

import numpy as np


def superpixelate(image, probability, hard=False, valid=None):
    """[C, H, W] and [N, H, W]: every pixel the mean of its superpixel; pixels that are not valid 0."""
    C, H, W = image.shape
    N = len(probability)
    pixels = [(i, j) for i in range(H) for j in range(W) if valid is None or valid[i, j]]
    P = np.array(probability, dtype=np.float64)
    if hard:
        best = P.argmax(0)
        P = np.array([[[float(best[i, j] == s) for j in range(W)] for i in range(H)] for s in range(N)])
    out = np.zeros((C, H, W))
    for s in range(N):
        mass = sum(P[s, i, j] for i, j in pixels)
        if mass == 0:
            continue
        mean = sum(P[s, i, j] * image[:, i, j] for i, j in pixels) / mass
        for i, j in pixels:
            out[:, i, j] += P[s, i, j] * mean
    return out


def clustering(P, lam, valid=None):
    N, H, W = P.shape
    pixels = [(i, j) for i in range(H) for j in range(W) if valid is None or valid[i, j]]
    entropy = -sum(x_log_x(P[s, i, j]) for i, j in pixels for s in range(N)) / len(pixels)
    weight = [sum(P[s, i, j] for i, j in pixels) / len(pixels) for s in range(N)]
    return entropy + lam * sum(x_log_x(w) for w in weight)


def smoothness(P, image, sigma, valid=None):
    _, H, W = P.shape
    total, count = 0.0, 0
    for i in range(H):
        for j in range(W):
            count += valid is None or bool(valid[i, j])
            for k, m in ((i, j + 1), (i + 1, j)):
                if k < H and m < W and (valid is None or (valid[i, j] and valid[k, m])):
                    contrast = ((image[:, i, j] - image[:, k, m]) ** 2).sum()
                    total += np.abs(P[:, i, j] - P[:, k, m]).sum() * math.exp(-contrast / sigma)
    return total / count if count else 0.0


def total_variation(x, valid=None):
    """The sum and the number of pixels, of one map [C, H, W]."""
    _, H, W = x.shape
    inside = np.ones((H, W), bool) if valid is None else valid
    return smoothness(x, np.zeros((1, H, W)), 1.0, valid) * inside.sum(), int(inside.sum())


def graph_variation(x, pairs, weights=None):
    total = 0.0
    for e, (i, j) in enumerate(pairs):
        total += (1.0 if weights is None else weights[e]) * sum(abs(a - b) for a, b in zip(x[i], x[j], strict=True))
    return total


def laplacian(channel, connectivity, valid):
    """[H, W]: the sum over neighbours on the image of the difference to them."""
    H, W = channel.shape
    steps = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    if connectivity == 8:
        steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    out = np.zeros((H, W))
    for i in range(H):
        for j in range(W):
            for dy, dx in steps:
                k, m = i + dy, j + dx
                if 0 <= k < H and 0 <= m < W and valid[k, m]:
                    out[i, j] += channel[i, j] - channel[k, m]
    return out


def edge_divergence(image, other, connectivity=8, valid=None):
    """KL of the two edge maps, averaged over channels."""
    C, H, W = image.shape
    valid = np.ones((H, W), bool) if valid is None else valid
    total = 0.0
    for c in range(C):
        maps = []
        for picture in (image, other):
            response = laplacian(picture[c], connectivity, valid)[valid]
            power = np.exp(response - response.max())
            maps.append(power / power.sum())
        total += sum(p * math.log(p / q) for p, q in zip(*maps, strict=True))
    return total / C


def joint(first, second, dy=0, dx=0, valid=None):
    """[K, K] for maps [B, K, H, W]: sum of first[p, i] second[p + d, j] over pixels on the image."""
    B, K, H, W = first.shape
    out = np.zeros((K, K))
    for b in range(B):
        for y in range(H):
            for x in range(W):
                v, u = y + dy, x + dx
                if not (0 <= v < H and 0 <= u < W):
                    continue
                if valid is not None and not (valid[b, y, x] and valid[b, v, u]):
                    continue
                for i in range(K):
                    for j in range(K):
                        out[i, j] += first[b, i, y, x] * second[b, j, v, u]
    return out


def mutual_information(joint, entropy_weight=1.0):
    """H(i) - H(i | j) of the symmetric part of one joint distribution; entropies in nats."""
    P = np.array(joint, dtype=np.float64)
    P = (P + P.T) / 2 / P.sum()
    margin = P.sum(0)
    information = 0.0
    for i in range(len(P)):
        for j in range(len(P)):
            if P[i, j] > 0:
                gain = math.log(P[i, j]) - entropy_weight * (math.log(margin[i]) + math.log(margin[j]))
                information += P[i, j] * gain
    return information


def cross_entropies(logits, target, ignore_index):
    """The loss of every labelled row of [P, K], in order."""
    out = []
    for row, label in zip(logits, target, strict=True):
        if label != ignore_index:
            top = max(row)
            out.append(top + math.log(sum(math.exp(v - top) for v in row)) - row[label])
    return out


def ohem(logits, target, threshold, min_kept, ignore_index):
    """Losses of the hard rows."""
    losses = cross_entropies(logits, target, ignore_index)
    probability = [math.exp(-loss) for loss in losses]
    ordered = sorted(probability)
    limit = threshold
    if min_kept > 0 and ordered:
        limit = max(threshold, ordered[min(min_kept, len(ordered)) - 1])
    return [loss for loss, p in zip(losses, probability, strict=True) if p <= limit]


def affinity_cross_entropy(logits, target, weights=(1.0, 1.0), ignore_index=-100):
    """The sum over pairs, with a weight for pairs apart and together, and the number of pairs."""
    total, count = 0.0, 0
    for v, t in zip(np.ravel(logits), np.ravel(target), strict=True):
        if t == ignore_index:
            continue
        s = 1 / (1 + math.exp(-v))
        total += -(weights[1] * t + weights[0] * (1 - t)) * (t * math.log(s) + (1 - t) * math.log(1 - s))
        count += 1
    return total, count


def x_log_x(x):
    return float(x) * math.log(x) if x > 0 else 0.0
