"""SSP and MSP as printed: a binary map for every superpixel, in float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def ssp(x, assignment, alpha):
    """X* = X + alpha * sum over i of S(P_i, X) / N(P_i), on P_i; x [P, C], assignment [P]."""
    x = np.asarray(x, dtype=np.float64)
    average = np.zeros_like(x)
    for i in range(max((int(a) for a in assignment), default=-1) + 1):
        binary = [1.0 if int(a) == i else 0.0 for a in assignment]
        area = sum(binary)
        if area == 0:
            continue
        for c in range(x.shape[1]):
            total = 0.0
            for p in range(len(x)):
                total += binary[p] * x[p, c]
            for p in range(len(x)):
                average[p, c] += binary[p] * total / area
    return x + alpha * average


def msp(x, assignments, alpha):
    """One scale after another."""
    for assignment in assignments:
        x = ssp(x, assignment, alpha)
    return x


def nearest_exact(labels, height, width):
    """The label of the pixel below each new centre; labels [h, w]."""
    h, w = len(labels), len(labels[0])
    rows = [int((Fraction(i) + Fraction(1, 2)) * Fraction(h, height)) for i in range(height)]
    columns = [int((Fraction(j) + Fraction(1, 2)) * Fraction(w, width)) for j in range(width)]
    return np.array([[int(labels[r][c]) for c in columns] for r in rows]).reshape(height, width)


def msp_maps(x, label_maps, alpha):
    """The same for feature maps x [B, C, H, W] and label maps [B, h, w] per scale."""
    x = np.asarray(x, dtype=np.float64)
    out = np.empty_like(x)
    _, C, H, W = x.shape
    for b in range(len(x)):
        scales = [nearest_exact(labels[b].tolist(), H, W).ravel() for labels in label_maps]
        out[b] = msp(x[b].reshape(C, H * W).T, scales, alpha).T.reshape(C, H, W)
    return out
