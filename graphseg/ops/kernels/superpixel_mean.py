"""Adds to every pixel a multiple of its region's mean, and counts regions.

Sums run in pixel order and in float64, whatever the layout.
"""

from __future__ import annotations

import numpy as np

from graphseg.ops.kernels.compile import njit

# Channels summed side by side: pixels that follow each other mostly add to the same region, and each addition would
# wait for the one before it.
GROUP = 8


@njit
def add_means_columns(x, labels, num_regions, alpha, begin, end, out):
    """out = x + alpha * mean for channels `begin` to `end` of `x [C, P]`, one label map of `[S, P]` after another."""
    S, P = labels.shape
    count = np.zeros((S, num_regions), np.int64)
    for s in range(S):
        for p in range(P):
            count[s, labels[s, p]] += 1
    total = np.empty((num_regions, GROUP), np.float64)
    step = np.empty((GROUP, num_regions), x.dtype)
    for c in range(begin, end, GROUP):
        width = min(GROUP, end - c)
        for s in range(S):
            source = x if s == 0 else out
            region = labels[s]
            total[:] = 0
            if width == GROUP:
                rows = source[c : c + GROUP]
                for p in range(P):
                    into = total[region[p]]
                    for k in range(GROUP):
                        into[k] += rows[k, p]
            else:
                for k in range(width):
                    row = source[c + k]
                    for p in range(P):
                        total[region[p], k] += row[p]
            for a in range(num_regions):
                if count[s, a]:
                    for k in range(width):
                        step[k, a] = alpha * (total[a, k] / count[s, a])
            for k in range(width):
                row, result, mean = source[c + k], out[c + k], step[k]
                for p in range(P):
                    result[p] = row[p] + mean[region[p]]


@njit
def add_means_rows(x, labels, first, last, alpha, out):
    """out = x + alpha * mean for the pixels of regions `first` to `last` in channels-last `x [P, C]`, labels `[P]`.

    Other pixels are not read: regions lie together, so that threads with regions of their own read rows of their own.
    """
    P, C = x.shape
    N = last - first
    count = np.zeros(N, np.int64)
    total = np.zeros((N, C), np.float64)
    for p in range(P):
        a = labels[p] - first
        if 0 <= a < N:
            count[a] += 1
            into, row = total[a], x[p]
            for c in range(C):
                into[c] += row[c]
    step = np.empty((N, C), x.dtype)
    for a in range(N):
        if count[a]:
            for c in range(C):
                step[a, c] = alpha * (total[a, c] / count[a])
    for p in range(P):
        a = labels[p] - first
        if 0 <= a < N:
            mean, row, result = step[a], x[p], out[p]
            for c in range(C):
                result[c] = row[c] + mean[c]


@njit
def count_ids(labels):
    """How many different ids there are in `[P]`, all of them 0 or more."""
    top = np.int64(-1)
    for p in range(labels.size):
        top = max(top, labels[p])
    seen = np.zeros(top + 1, np.uint8)
    for p in range(labels.size):
        seen[labels[p]] = 1
    return seen.sum()
