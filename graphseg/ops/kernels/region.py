"""Sums over the regions of one label map: by horizontal runs for shape, along each run for values."""

from __future__ import annotations

import numpy as np

from graphseg.ops.kernels.compile import njit


@njit
def find_runs(labels):
    """Maximal horizontal runs of one label in `[D, H, W]`: rows (z, y, begin, end, label) of `[R, 5]`, int32.

    Pixels of no region (label under 0) are left out.
    """
    D, H, W = labels.shape
    runs = np.empty((labels.size, 5), np.int32)
    R = 0
    for z in range(D):
        for y in range(H):
            row = labels[z, y]
            x = 0
            while x < W:
                a = row[x]
                begin = x
                x += 1
                while x < W and row[x] == a:
                    x += 1
                if a >= 0:
                    runs[R, 0], runs[R, 1], runs[R, 2], runs[R, 3], runs[R, 4] = z, y, begin, x, a
                    R += 1
    return runs[:R].copy()


@njit
def region_extents(runs, num_regions):
    """area [N], coordinate sums [N, 3] (x, y, z) and bounding boxes [N, 6] (x, y, z from; x, y, z to, exclusive)."""
    N = num_regions
    area = np.zeros(N, np.int64)
    total = np.zeros((N, 3), np.int64)
    box = np.empty((N, 6), np.int64)
    box[:, :3] = np.iinfo(np.int64).max
    box[:, 3:] = 0
    for r in range(runs.shape[0]):
        z, y, begin, end, a = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        n = np.int64(end - begin)
        area[a] += n
        total[a, 0] += n * (begin + end - 1) // 2
        total[a, 1] += n * y
        total[a, 2] += n * z
        box[a, 0] = min(box[a, 0], begin)
        box[a, 1] = min(box[a, 1], y)
        box[a, 2] = min(box[a, 2], z)
        box[a, 3] = max(box[a, 3], end)
        box[a, 4] = max(box[a, 4], y + 1)
        box[a, 5] = max(box[a, 5], z + 1)
    return area, total, box


@njit
def region_moments(runs, centroid):
    """Central moments [N, 10]: xx, xy, yy, xz, yz, zz, xxx, xxy, xyy, yyy, sums over pixels of products of x - mean."""
    moments = np.zeros((centroid.shape[0], 10), np.float64)
    for r in range(runs.shape[0]):
        a = runs[r, 4]
        n = float(runs[r, 3] - runs[r, 2])
        m = 0.5 * (runs[r, 2] + runs[r, 3] - 1) - centroid[a, 0]  # the run's own centre
        y = runs[r, 1] - centroid[a, 1]
        z = runs[r, 0] - centroid[a, 2]
        own = n * (n * n - 1.0) / 12.0  # second moment of n unit steps about their centre; the third is 0
        x1 = n * m
        x2 = own + n * m * m
        x3 = 3.0 * m * own + n * m * m * m
        mu = moments[a]
        mu[0] += x2
        mu[1] += x1 * y
        mu[2] += n * y * y
        mu[3] += x1 * z
        mu[4] += n * y * z
        mu[5] += n * z * z
        mu[6] += x3
        mu[7] += x2 * y
        mu[8] += x1 * y * y
        mu[9] += n * y * y * y
    return moments


@njit
def region_values(runs, image, num_regions):
    """mean, std, min, max [N, C] of a floating-point `image [C, D, H, W]`, in float64; std is the population's.

    Sums run over differences to the region's first pixel, so that neither a large offset nor a constant region
    loses digits.
    """
    N, C = num_regions, image.shape[0]
    area = np.zeros(N, np.int64)
    table = np.zeros((N, C, 5), np.float64)  # first value; sums of v - first and of its square; least and greatest v
    for r in range(runs.shape[0]):
        z, y, begin, end, a = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        for c in range(C):
            if area[a] == 0:
                table[a, c, 0] = table[a, c, 3] = table[a, c, 4] = image[c, z, y, begin]
            base, low, high = table[a, c, 0], table[a, c, 3], table[a, c, 4]
            s, q = 0.0, 0.0
            for value in image[c, z, y, begin:end]:
                v = float(value)
                low = min(low, v)
                high = max(high, v)
                d = v - base
                s += d
                q += d * d
            table[a, c, 1] += s
            table[a, c, 2] += q
            table[a, c, 3] = low
            table[a, c, 4] = high
        area[a] += end - begin
    mean = np.empty((N, C), np.float64)
    std = np.empty((N, C), np.float64)
    for a in range(N):
        for c in range(C):
            m = table[a, c, 1] / area[a]
            mean[a, c] = table[a, c, 0] + m
            std[a, c] = np.sqrt(max(table[a, c, 2] / area[a] - m * m, 0.0))
    return mean, std, table[:, :, 3].copy(), table[:, :, 4].copy()


@njit
def region_integer_values(runs, image, num_regions):
    """As `region_values` for an image of uint8 or uint16, by sums of integers, which are exact."""
    N, C = num_regions, image.shape[0]
    area = np.zeros(N, np.int64)
    table = np.zeros((N, C, 4), np.int64)  # sum, sum of squares, least, greatest
    table[:, :, 2] = np.iinfo(np.int64).max
    for r in range(runs.shape[0]):
        z, y, begin, end, a = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        area[a] += end - begin
        for c in range(C):
            s, q = np.int64(0), np.int64(0)
            low, high = table[a, c, 2], table[a, c, 3]
            for value in image[c, z, y, begin:end]:
                v = np.int64(value)
                low = min(low, v)
                high = max(high, v)
                s += v
                q += v * v
            table[a, c, 0] += s
            table[a, c, 1] += q
            table[a, c, 2] = low
            table[a, c, 3] = high
    mean = np.empty((N, C), np.float64)
    std = np.empty((N, C), np.float64)
    for a in range(N):
        n = area[a]
        for c in range(C):
            s, q = table[a, c, 0], table[a, c, 1]
            whole = s // n  # sum of (v - whole)^2 is an integer too: a constant region has exactly 0
            rest = s / n - whole
            mean[a, c] = s / n
            std[a, c] = np.sqrt(max((q - 2 * whole * s + n * whole * whole) / n - rest * rest, 0.0))
    return mean, std, table[:, :, 2].astype(np.float64), table[:, :, 3].astype(np.float64)


@njit
def region_histogram(runs, image, num_regions, bins, low, high):
    """Counts [N, C, bins] over equal bins of [low, high]; values outside fall into the end bins."""
    C = image.shape[0]
    counts = np.zeros((num_regions, C, bins), np.int64)
    for r in range(runs.shape[0]):
        z, y, begin, end, a = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        for c in range(C):
            row = image[c, z, y]
            for x in range(begin, end):
                at = (float(row[x]) - low) * bins / (high - low)
                counts[a, c, int(min(max(at, 0.0), bins - 1.0))] += 1
    return counts


@njit
def region_label_counts(runs, target, num_regions, num_classes, ignore_index):
    """Counts [N, K] of each class, and the first label that is neither a class nor `ignore_index` (else -1)."""
    counts = np.zeros((num_regions, num_classes), np.int64)
    for r in range(runs.shape[0]):
        z, y, begin, end, a = runs[r, 0], runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        row = target[z, y]
        for x in range(begin, end):
            t = row[x]
            if 0 <= t < num_classes and t != ignore_index:
                counts[a, t] += 1
    return counts


@njit
def region_perimeter(labels, num_regions):
    """Border pixels [N, 3] of one map `[H, W]`, by the length they stand for: 1, sqrt(2), (1 + sqrt(2)) / 2.

    A border pixel has a 4-neighbour outside its region; its kind follows from how many of its 4-neighbours (2 each)
    and diagonal neighbours (10 each) are border pixels of the same region, itself counting 1.
    """
    H, W = labels.shape
    kind = np.full(50, -1, np.int8)
    for code in (5, 7, 15, 17, 25, 27):
        kind[code] = 0
    for code in (21, 33):
        kind[code] = 1
    for code in (13, 23):
        kind[code] = 2
    border = np.zeros((H, W), np.uint8)
    for y in range(H):
        row = labels[y]
        for x in range(W):
            a = row[x]
            inside = 0 < y < H - 1 and 0 < x < W - 1
            if inside:
                inside = row[x - 1] == a and row[x + 1] == a and labels[y - 1, x] == a and labels[y + 1, x] == a
            if not inside and a >= 0:
                border[y, x] = 1
    counts = np.zeros((num_regions, 3), np.int64)
    for y in range(H):
        for x in range(W):
            if border[y, x] == 0:
                continue
            a = labels[y, x]
            code = 1
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    yy, xx = y + dy, x + dx
                    inside = (dy != 0 or dx != 0) and 0 <= yy < H and 0 <= xx < W
                    if inside and border[yy, xx] == 1 and labels[yy, xx] == a:
                        code += 10 if dy != 0 and dx != 0 else 2
            if kind[code] >= 0:
                counts[a, kind[code]] += 1
    return counts


@njit
def arctan2(y, x, out):
    """out[i] = atan2(y[i], x[i]), one by one."""
    for i in range(y.size):
        out[i] = np.arctan2(y[i], x[i])
