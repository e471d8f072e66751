"""Attention inside groups, and CDGCNet's class-wise convolution: loops over the printed formulas, in float64."""

from __future__ import annotations

import math

import numpy as np


def attention(query, key, value, sizes, loop=True, k=None):
    """out_t = sum over u of A_tu value_u with A of Eq. (3) over the rows of t's group, and the rows u of each t.

    With k those of the k largest scores only.
    """
    query, key, value = (np.asarray(given, dtype=np.float64) for given in (query, key, value))
    out = np.zeros((len(query), value.shape[1]))
    chosen, start = [], 0
    for size in sizes:
        for t in range(start, start + size):
            members = [u for u in range(start, start + size) if loop or u != t]
            score = {u: sum(query[t, d] * key[u, d] for d in range(query.shape[1])) for u in members}  # Eq. (2)
            if k is not None:
                members = sorted(sorted(members, key=lambda u: (-score[u], u))[:k])
            chosen.append(members)
            top = max((score[u] for u in members), default=0.0)
            total = sum(math.exp(score[u] - top) for u in members)
            for u in members:
                out[t] += math.exp(score[u] - top) / total * value[u]  # Eq. (3)
        start += size
    return out, chosen


def sampled(prediction, y, m, image, b, hard_positives=True, hard_negatives=True):
    """The nodes of image b sampled for class m, Eq. (4) with ratio 1; y None: those of the prediction."""
    P = len(prediction)
    C = {p for p in range(P) if image[p] == b and prediction[p] == m}
    if y is None:
        return sorted(C)
    C -= {p for p in C if y[p] < 0}
    G = {p for p in range(P) if image[p] == b and y[p] == m}
    easy, negative, positive = C & G, C - (C & G), G - (C & G)
    return sorted(easy | (negative if hard_negatives else set()) | (positive if hard_positives else set()))


def class_wise(
    x, prediction, phi, phi_prime, weight, combine, bias, fusion, y=None, image=None, k=None, binary=False, **switches
):
    """The layer: class maps Z_m [P, C] filled up with zeros, combined, and fused with x."""
    x = np.asarray(x, dtype=np.float64)
    P, C = x.shape
    M = len(combine)
    image = [0] * P if image is None else list(image)
    refined = np.zeros((P, C)) + bias
    for m in range(M):
        Z = np.zeros((P, C))
        for b in sorted(set(image)):
            S = sampled(prediction, y, m, image, b, **switches)
            if not S:
                continue
            W = weight[0] if len(weight) == 1 else weight[m]
            X = x[S]
            query, key = X @ phi.T, X @ phi_prime.T
            mixed, chosen = attention(query, key, X, [len(S)], k=k)
            if binary:
                mixed = np.stack([X[members].mean(0) for members in chosen])
            Z[S] = np.maximum(mixed @ W, 0)  # Eq. (1)
        refined = refined + Z @ combine[m]
    return np.concatenate([x, refined], 1) if fusion == "concat" else x + refined
