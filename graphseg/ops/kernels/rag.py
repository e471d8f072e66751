"""Region adjacency of one label map: count pairs into buckets by their smaller region, then settle each bucket."""

from __future__ import annotations

import numpy as np

from graphseg.ops.kernels.compile import njit


@njit
def count_regions(labels):
    """Returns (number of regions, first id that is missing or -1, smallest label); labels under 0 are no region."""
    P = labels.size
    seen = np.zeros(P, np.uint8)
    low = np.int64(0)
    top = np.int64(-1)
    for p in range(P):
        a = labels[p]
        if p > 0 and a == labels[p - 1]:
            continue
        if a > top:
            top = a
        if 0 <= a < P:
            seen[a] = 1
        elif a < low:
            low = a
    missing = -1 if top < P else P
    for a in range(min(top + 1, P)):
        if seen[a] == 0:
            missing = a
            break
    return max(top + 1, 0), missing, low


@njit
def _pairs(labels, offsets, strength):
    """All adjacent pixel pairs that lie in two regions, in scan order: smaller id, larger id, mean strength."""
    D, H, W = labels.shape
    room = 0
    for k in range(offsets.shape[0]):
        dz, dy, dx = abs(offsets[k, 0]), abs(offsets[k, 1]), abs(offsets[k, 2])
        room += max(D - dz, 0) * max(H - dy, 0) * max(W - dx, 0)
    with_strength = strength.size > 0
    lower = np.empty(room, np.int32)
    upper = np.empty(room, np.int32)
    value = np.empty(room if with_strength else 0, np.float64)
    M = 0
    for z in range(D):
        for y in range(H):
            for k in range(offsets.shape[0]):
                dx = offsets[k, 2]
                zz, yy = z + offsets[k, 0], y + offsets[k, 1]
                if zz < 0 or zz >= D or yy < 0 or yy >= H:
                    continue
                x, stop = max(0, -dx), min(W, W - dx)
                # Zipped slices, not indices: numba then checks no index for being negative.
                for a, b in zip(labels[z, y, x:stop], labels[zz, yy, x + dx : stop + dx]):
                    if a != b and a >= 0 and b >= 0:
                        lower[M] = min(a, b)
                        upper[M] = max(a, b)
                        if with_strength:
                            value[M] = 0.5 * (strength[z, y, x] + strength[zz, yy, x + dx])
                        M += 1
                    x += 1
    return lower[:M], upper[:M], value[:M]


@njit
def region_adjacency(labels, num_regions, offsets, strength, quantiles):
    """Edges of one label map `[D, H, W]` and statistics of the boundary strength along each.

    Returns lower [E], upper [E], length [E], mean [E], std [E], quantile [E, Q]; the last three are empty without
    `strength`. Edges rise lexicographically. A label under 0 is no region.
    """
    N = num_regions
    lower, upper, value = _pairs(labels, offsets, strength)
    M = lower.size
    with_strength = strength.size > 0
    start = np.zeros(N + 2, np.int64)
    for m in range(M):
        start[lower[m] + 2] += 1
    for a in range(N):
        start[a + 2] += start[a + 1]
    bucket = np.empty(M, np.int32)  # the upper ids, by lower id, in scan order
    bucket_value = np.empty(value.size, np.float64)
    for m in range(M):
        slot = start[lower[m] + 1]
        start[lower[m] + 1] += 1
        bucket[slot] = upper[m]
        if with_strength:
            bucket_value[slot] = value[m]

    Q = quantiles.size
    first = np.empty(M, np.int64)
    second = np.empty(M, np.int64)
    length = np.empty(M, np.int64)
    S = M if with_strength else 0
    mean = np.empty(S, np.float64)
    std = np.empty(S, np.float64)
    quantile = np.empty((S, Q), np.float64)
    ordered = np.empty(S, np.float64)  # the values of one bucket, by upper id, in scan order
    tally = np.zeros(N, np.int64)
    place = np.zeros(N if with_strength else 0, np.int64)
    neighbours = np.empty(N, np.int32)
    E = 0
    for a in range(N):
        begin, end = start[a], start[a + 1]
        K = 0
        for m in range(begin, end):
            b = bucket[m]
            if tally[b] == 0:
                neighbours[K] = b
                K += 1
            tally[b] += 1
        if K <= 32:  # few neighbours, as almost always: insertion sort
            for i in range(1, K):
                b = neighbours[i]
                j = i
                while j > 0 and neighbours[j - 1] > b:
                    neighbours[j] = neighbours[j - 1]
                    j -= 1
                neighbours[j] = b
        else:
            neighbours[:K] = np.sort(neighbours[:K])
        if with_strength:
            at = begin
            for i in range(K):
                place[neighbours[i]] = at
                at += tally[neighbours[i]]
            for m in range(begin, end):
                b = bucket[m]
                ordered[place[b]] = bucket_value[m]
                place[b] += 1
        at = begin
        for i in range(K):
            b = neighbours[i]
            n = tally[b]
            tally[b] = 0
            first[E], second[E], length[E] = a, b, n
            if with_strength:
                values = ordered[at : at + n]
                total = 0.0
                for v in values:
                    total += v
                mean[E] = total / n
                spread = 0.0
                for v in values:
                    spread += (v - mean[E]) ** 2
                std[E] = np.sqrt(spread / n)
                if Q > 0:
                    values = np.sort(values)
                    for q in range(Q):
                        where = quantiles[q] * (n - 1)
                        low = int(np.floor(where))
                        high = min(low + 1, n - 1)
                        quantile[E, q] = values[low] + (where - low) * (values[high] - values[low])
                at += n
            E += 1
    e = min(E, S)
    return first[:E].copy(), second[:E].copy(), length[:E].copy(), mean[:e].copy(), std[:e].copy(), quantile[:e].copy()


@njit
def edge_lengths(values, source, target, length):
    """length[e] = |values[source[e]] - values[target[e]]|, of `values [N, C]`."""
    C = values.shape[1]
    for e in range(source.size):
        i, j = source[e], target[e]
        square = 0.0
        for c in range(C):
            d = values[i, c] - values[j, c]
            square += d * d
        length[e] = np.sqrt(square)
