"""SLIC on whole numbers: pixels cell by cell, each against the centres of the cells around its own."""

from __future__ import annotations

import numpy as np

from graphseg.ops.kernels.compile import njit


@njit
def order_cells(shape, cells, mask, steps, order, starts, features):
    """Lists the pixels of `shape` (D, H, W) cell by cell, in scan order within each.

    Writes `order [P]` (places in the image), `starts [G + 1]` and the positions, the first rows of `features`: those of
    `steps`, three arrays of which the first is empty in an image. Pixels outside `mask` are left out (none if empty).
    Returns the number of pixels listed.
    """
    D, H, W = shape
    Z, Y, X = cells
    at_z, at_y, at_x = steps
    deep = at_z.size > 0
    masked = mask.size > 0
    i = 0
    g = 0
    for cz in range(Z):
        for cy in range(Y):
            for cx in range(X):
                starts[g] = i
                g += 1
                for z in range((cz * D + Z - 1) // Z, ((cz + 1) * D + Z - 1) // Z):
                    for y in range((cy * H + Y - 1) // Y, ((cy + 1) * H + Y - 1) // Y):
                        for x in range((cx * W + X - 1) // X, ((cx + 1) * W + X - 1) // X):
                            if masked and not mask[z, y, x]:
                                continue
                            order[i] = (z * H + y) * W + x
                            if deep:
                                features[0, i] = at_z[z]
                                features[1, i] = at_y[y]
                                features[2, i] = at_x[x]
                            else:
                                features[0, i] = at_y[y]
                                features[1, i] = at_x[x]
                            i += 1
    starts[g] = i
    return i


@njit
def to_levels(values, out):
    """`out = floor(65535 values + 1 / 2)`. Returns the number of values outside [0, 1], NaN among them."""
    outside = 0
    for i in range(values.size):
        v = np.float64(values[i])
        if not 0.0 <= v <= 1.0:
            outside += 1
        else:
            out[i] = np.uint16(v * 65535.0 + 0.5)
    return outside


@njit
def lab_levels(channels, order, gamma, matrix, root, zero, out):
    """CIELAB in fixed point, `out [3, P]`, of `channels [3, *]` at the places `order`; see `color.lab_tables`."""
    m = matrix
    for i in range(order.size):
        p = order[i]
        r, g, b = gamma[channels[0, p]], gamma[channels[1, p]], gamma[channels[2, p]]
        x = root[(m[0, 0] * r + m[0, 1] * g + m[0, 2] * b) >> 16]
        y = root[(m[1, 0] * r + m[1, 1] * g + m[1, 2] * b) >> 16]
        z = root[(m[2, 0] * r + m[2, 1] * g + m[2, 2] * b) >> 16]
        out[0, i] = (116 * y - zero + 128) >> 8
        out[1, i] = (500 * (x - y) + 128) >> 8
        out[2, i] = (200 * (y - z) + 128) >> 8


@njit
def table_levels(channels, order, table, out):
    """`out[c, i] = table[channels[c, order[i]]]`."""
    for c in range(channels.shape[0]):
        for i in range(order.size):
            out[c, i] = table[channels[c, order[i]]]


@njit
def sum_cells(features, starts, labels, sums):
    """Every pixel to its own cell: fills `labels [P]` and `sums [G, 1 + F]` (count, then the features)."""
    for g in range(starts.size - 1):
        begin, stop = starts[g], starts[g + 1]
        labels[begin:stop] = g
        sums[g, 0] = stop - begin
        for f in range(features.shape[0]):
            total = np.int64(0)
            for v in features[f, begin:stop]:
                total += v
            sums[g, 1 + f] = total


@njit
def _nearest_of_nine(v0, v1, v2, v3, v4, centres, nearest):
    """The first of the nearest centres `[9, 5]` of every pixel: all nine at once, so that a pixel is read once."""
    for i in range(nearest.size):
        a0, a1, a2, a3, a4 = v0[i], v1[i], v2[i], v3[i], v4[i]
        best = np.int32(2147483647)
        found = np.int32(0)
        for j in range(9):
            # Cast at every step: numba widens to 64 bits, which halves the pixels that fit into a register.
            e0 = np.int32(a0 - centres[j, 0])
            e1 = np.int32(a1 - centres[j, 1])
            e2 = np.int32(a2 - centres[j, 2])
            e3 = np.int32(a3 - centres[j, 3])
            e4 = np.int32(a4 - centres[j, 4])
            d = np.int32(np.int32(e0 * e0) + np.int32(e1 * e1))
            d = np.int32(d + np.int32(e2 * e2))
            d = np.int32(d + np.int32(e3 * e3))
            d = np.int32(d + np.int32(e4 * e4))
            closer = d < best
            best = d if closer else best
            found = np.int32(j) if closer else found
        nearest[i] = found


@njit
def _nearest(features, begin, centres, nearest, best, distance):
    """`_nearest_of_nine` for any number of features and centres `[K, F]`."""
    best[:] = 2147483647
    for j in range(centres.shape[0]):
        distance[:] = 0
        for f in range(centres.shape[1]):
            centre = centres[j, f]
            values = features[f, begin : begin + nearest.size]
            for i in range(nearest.size):
                e = np.int32(values[i] - centre)
                distance[i] = np.int32(distance[i] + np.int32(e * e))
        for i in range(nearest.size):
            closer = distance[i] < best[i]
            best[i] = distance[i] if closer else best[i]
            nearest[i] = np.int32(j) if closer else nearest[i]


@njit
def _nearest_adaptive(features, begin, dims, centres, scale, nearest, best, distance, squares):
    """The first of the nearest by `scale[j, 0] * (distance in place)^2 + scale[j, 1] * (distance in colour)^2`."""
    best[:] = np.inf
    for j in range(centres.shape[0]):
        for part in range(2):
            squares[:] = 0
            for f in range(dims if part else 0, centres.shape[1] if part else dims):
                centre = np.int64(centres[j, f])
                values = features[f, begin : begin + nearest.size]
                for i in range(nearest.size):
                    e = values[i] - centre
                    squares[i] += e * e
            if part == 0:
                for i in range(nearest.size):
                    distance[i] = squares[i] * scale[j, 0]
            else:
                for i in range(nearest.size):
                    distance[i] += squares[i] * scale[j, 1]
        for i in range(nearest.size):
            closer = distance[i] < best[i]
            best[i] = distance[i] if closer else best[i]
            nearest[i] = np.int32(j) if closer else nearest[i]


@njit
def assign(features, starts, neighbours, centres, scale, dims, first, stop, labels, change):
    """Moves the pixels of cells `first` to `stop` to the nearest centre around theirs, of equals the first.

    `features [F, P]` and `centres [G, F]` (int32) are cell by cell; `neighbours [G, 9 or 27]` (-1: none) rise. An empty
    `scale` means plain SLIC. Updates `labels [P]`, adds to `change [G, 1 + F]` what the sums of the centres gain and
    lose, and returns the number of pixels that moved.
    """
    F = features.shape[0]
    J = neighbours.shape[1]
    adaptive = scale.size > 0
    longest = 0
    for g in range(first, stop):
        longest = max(longest, starts[g + 1] - starts[g])
    quick = F == 5 and J == 9 and not adaptive
    nearest = np.empty(longest, np.int32)
    best = np.empty(0 if quick or adaptive else longest, np.int32)
    distance = np.empty(best.size, np.int32)
    best_adaptive = np.empty(longest if adaptive else 0, np.float64)
    distance_adaptive = np.empty(best_adaptive.size, np.float64)
    squares = np.empty(best_adaptive.size, np.int64)
    around = np.empty(J, np.int32)
    near = np.empty((J, F), np.int32)
    near_scale = np.empty((J, 2), np.float64)
    moved = 0
    for g in range(first, stop):
        begin, n = starts[g], starts[g + 1] - starts[g]
        if n == 0:
            continue
        K = 0
        for j in range(J):
            k = neighbours[g, j]
            if k >= 0 and starts[k + 1] > starts[k]:  # a cell without pixels never had a centre
                around[K] = k
                near[K] = centres[k]
                if adaptive:
                    near_scale[K] = scale[k]
                K += 1
        end = begin + n
        if quick:
            for j in range(K, J):  # copies of the first: equal, so never closer
                around[j] = around[0]
                near[j] = near[0]
            # One row at a time: of a slice in two dimensions numba would not know that its rows are contiguous.
            _nearest_of_nine(
                features[0, begin:end],
                features[1, begin:end],
                features[2, begin:end],
                features[3, begin:end],
                features[4, begin:end],
                near,
                nearest[:n],
            )
        elif adaptive:
            _nearest_adaptive(
                features,
                begin,
                dims,
                near[:K],
                near_scale,
                nearest[:n],
                best_adaptive[:n],
                distance_adaptive[:n],
                squares[:n],
            )
        else:
            _nearest(features, begin, near[:K], nearest[:n], best[:n], distance[:n])
        for i in range(n):
            old, new = labels[begin + i], around[nearest[i]]
            if old != new:
                moved += 1
                labels[begin + i] = new
                change[old, 0] -= 1
                change[new, 0] += 1
                for f in range(F):
                    v = features[f, begin + i]
                    change[old, 1 + f] -= v
                    change[new, 1 + f] += v
    return moved


@njit
def farthest_colour(features, dims, labels, centres, farthest):
    """`farthest[k]`: the largest squared distance in colour of a pixel of k from its centre."""
    for i in range(labels.size):
        k = labels[i]
        d = np.int64(0)
        for f in range(dims, features.shape[0]):
            e = np.int64(features[f, i]) - centres[k, f]
            d += e * e
        farthest[k] = max(farthest[k], d)


@njit
def scatter(order, values, out):
    """`out[order[i]] = values[i]`."""
    for i in range(order.size):
        out[order[i]] = values[i]
