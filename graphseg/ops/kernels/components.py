"""Regions made connected, absorbed, merged and split: the graph of one image's components, on whole numbers.

`sums [N, 1 + F]` (int64) hold for every region its number of pixels and the sums of their features, of which the first
`dims` are positions and the rest colours.
"""

from __future__ import annotations

import heapq

import numpy as np

from graphseg.ops.kernels.compile import njit


@njit
def _root(parent, a):
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@njit
def _join(parent, a, b):
    """Joins two sets; the smaller id is the root."""
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@njit
def connected_components(labels, components):
    """Parts of equal labels of `[D, H, W]` that hang together (4-connected, in depth 6), numbered by their first pixel.

    Pixels with a label under 0 stay -1. Returns the number of components.
    """
    D, H, W = labels.shape
    parent = np.empty(labels.size, np.int32)
    N = 0
    for z in range(D):
        for y in range(H):
            for x in range(W):
                k = labels[z, y, x]
                if k < 0:
                    components[z, y, x] = -1
                    continue
                at = np.int32(-1)
                if x > 0 and labels[z, y, x - 1] == k:
                    at = components[z, y, x - 1]
                if y > 0 and labels[z, y - 1, x] == k:
                    above = components[z, y - 1, x]
                    # Where the pixel before is joined with the one above it already, these two are as well.
                    if at < 0:
                        at = above
                    elif at != above and labels[z, y - 1, x - 1] != k:
                        _join(parent, at, above)
                if z > 0 and labels[z - 1, y, x] == k:
                    behind = components[z - 1, y, x]
                    if at < 0:
                        at = behind
                    elif at != behind:
                        _join(parent, at, behind)
                if at < 0:
                    parent[N] = N
                    at = np.int32(N)
                    N += 1
                components[z, y, x] = at
    number = np.empty(N, np.int32)
    count = 0
    for a in range(N):
        root = _root(parent, a)
        if root == a:
            number[a] = count
            count += 1
        else:
            number[a] = number[root]
    if count < N:
        for z in range(D):
            for y in range(H):
                row = components[z, y]
                for x in range(W):
                    if row[x] >= 0:
                        row[x] = number[row[x]]
    return count


@njit
def component_sums(components, order, features, sums):
    """Adds every pixel to the sums of its component. `features [F, P]` are of the places `order [P]`."""
    for i in range(order.size):
        total = sums[components[order[i]]]
        total[0] += 1
        for f in range(features.shape[0]):
            total[1 + f] += features[f, i]


@njit
def renumber(components, number, out):
    """`out[p] = number[components[p]]`, -1 for -1."""
    for p in range(components.size):
        a = components[p]
        out[p] = number[a] if a >= 0 else -1


@njit
def _colour_distance(a, b, dims):
    """Squared distance of the rounded mean colours of two regions."""
    n, m = a[0], b[0]
    distance = np.int64(0)
    for f in range(1 + dims, a.size):
        d = (2 * a[f] + n) // (2 * n) - (2 * b[f] + m) // (2 * m)
        distance += d * d
    return distance


@njit
def _energy(a, b):
    """By how much the squared error of positions and colours grows if two regions become one."""
    n, m = np.float64(a[0]), np.float64(b[0])
    square = 0.0
    for f in range(1, a.size):
        d = a[f] / n - b[f] / m
        square += d * d
    return n * m / (n + m) * square


@njit
def _unite(a, b, parent, sums, follower, last):
    """Makes one region of two; returns its id, the smaller one."""
    a, b = min(a, b), max(a, b)
    parent[b] = a
    sums[a] += sums[b]
    follower[last[a]] = b
    last[a] = last[b]
    return a


@njit
def _neighbours(a, parent, follower, ends, near, seen, out):
    """Writes the regions around region `a`, each once, to `out`; returns their number."""
    seen[a] = a
    count = 0
    member = a
    while member >= 0:
        for e in range(ends[member], ends[member + 1]):
            b = _root(parent, near[e])
            if seen[b] != a:
                seen[b] = a
                out[count] = b
                count += 1
        member = follower[member]
    for i in range(count):
        seen[out[i]] = -1
    seen[a] = -1
    return count


@njit
def merge_regions(sums, dims, lower, upper, smallest, floor, ceiling):
    """Absorbs and merges the regions of one image along the edges (`lower`, `upper`); `sums` is used up.

    1. As long as there are more than `floor` regions, the smallest one of under `smallest` pixels (of equals the first)
       becomes part of its neighbour of most similar mean colour (of equals the first).
    2. As long as there are more than `ceiling`, the two neighbours become one whose union has the least more error.

    Returns the new id of every region, numbered by their first, and how many are left: more than `ceiling` only where
    no two are neighbours.
    """
    N = sums.shape[0]
    parent = np.arange(N).astype(np.int32)
    follower = np.full(N, -1, np.int32)
    last = parent.copy()
    seen = np.full(N, -1, np.int32)
    around = np.empty(N, np.int32)
    ends = np.zeros(N + 2, np.int64)
    for e in range(lower.size):
        ends[lower[e] + 2] += 1
        ends[upper[e] + 2] += 1
    for a in range(N):
        ends[a + 2] += ends[a + 1]
    near = np.empty(2 * lower.size, np.int32)
    for e in range(lower.size):
        near[ends[lower[e] + 1]] = upper[e]
        ends[lower[e] + 1] += 1
        near[ends[upper[e] + 1]] = lower[e]
        ends[upper[e] + 1] += 1

    count = N
    small = [(0, 0) for _ in range(0)]  # numba has to see what the list will hold
    for a in range(N):
        if sums[a, 0] < smallest:
            small.append((sums[a, 0], a))
    heapq.heapify(small)
    while count > floor and len(small) > 0:
        size, a = heapq.heappop(small)
        if parent[a] != a or sums[a, 0] != size:
            continue
        best, least = -1, np.int64(0)
        for i in range(_neighbours(a, parent, follower, ends, near, seen, around)):
            b = around[i]
            distance = _colour_distance(sums[a], sums[b], dims)
            if best < 0 or distance < least or (distance == least and b < best):
                best, least = b, distance
        if best < 0:
            continue
        whole = 0 + _unite(a, best, parent, sums, follower, last)
        count -= 1
        if sums[whole, 0] < smallest:
            heapq.heappush(small, (sums[whole, 0], whole))

    if count > ceiling:
        version = np.zeros(N, np.int64)
        pairs = [(0.0, 0, 0, 0) for _ in range(0)]
        for e in range(lower.size):
            one, other = _root(parent, lower[e]), _root(parent, upper[e])
            if one != other:
                first, second = 0 + min(one, other), 0 + max(one, other)
                pairs.append((_energy(sums[first], sums[second]), first, second, 0))
        heapq.heapify(pairs)
        while count > ceiling and len(pairs) > 0:
            _, a, b, stamp = heapq.heappop(pairs)
            if parent[a] != a or parent[b] != b or stamp != version[a] + version[b]:
                continue
            version[a] += version[b] + 1
            _unite(a, b, parent, sums, follower, last)  # a is the smaller
            count -= 1
            for i in range(_neighbours(a, parent, follower, ends, near, seen, around)):
                c = around[i]
                first, second = 0 + min(a, c), 0 + max(a, c)
                pair = (_energy(sums[first], sums[second]), first, second, version[a] + version[c])
                heapq.heappush(pairs, pair)

    number = np.empty(N, np.int32)
    left = 0
    for a in range(N):
        root = _root(parent, a)
        if root == a:
            number[a] = left
            left += 1
        else:
            number[a] = number[root]
    return number, left


@njit
def _best_cut(places, shape, labels, features, dims, local, inside):
    """The cut into two connected parts that lowers the error of the region `places` the most.

    Cuts are those of one edge of the tree that joins neighbours of likest colour first (ties: along the shorter side).
    Marks one of the parts in `inside [n]`; returns the gain, -1 for a single pixel.
    """
    n = places.size
    F = features.shape[0]
    step = (shape[1] * shape[2], shape[2], 1)
    low = np.full(3, 2147483647, np.int64)
    high = np.zeros(3, np.int64)
    for i in range(n):
        p = places[i]
        local[p] = i
        for d in range(3):
            at = p // step[d] % shape[d]
            low[d] = min(low[d], at)
            high[d] = max(high[d], at)
    inside[:n] = False
    if n < 2:
        return -1.0
    source = np.empty(3 * n, np.int32)
    target = np.empty(3 * n, np.int32)
    weight = np.empty(3 * n, np.int64)
    M = 0
    for d in np.argsort(high - low, kind="mergesort"):
        for i in range(n):
            p = places[i]
            if p // step[d] % shape[d] + 1 < shape[d] and labels[p + step[d]] == labels[p]:
                source[M], target[M], weight[M] = i, local[p + step[d]], 0
                for f in range(dims, F):
                    e = np.int64(features[f, p]) - features[f, p + step[d]]
                    weight[M] += e * e
                M += 1
    # The tree (Kruskal), as lists of neighbours.
    parent = np.arange(n).astype(np.int32)
    kept = np.empty(n - 1, np.int64)
    ends = np.zeros(n + 2, np.int64)
    T = 0
    for m in np.argsort(weight[:M], kind="mergesort"):
        if _root(parent, source[m]) != _root(parent, target[m]):
            _join(parent, source[m], target[m])
            kept[T] = m
            T += 1
            ends[source[m] + 2] += 1
            ends[target[m] + 2] += 1
    for i in range(n):
        ends[i + 2] += ends[i + 1]
    near = np.empty(2 * T, np.int32)
    for t in range(T):
        a, b = source[kept[t]], target[kept[t]]
        near[ends[a + 1]] = b
        ends[a + 1] += 1
        near[ends[b + 1]] = a
        ends[b + 1] += 1
    # From the first pixel outwards, then the sums of every branch back inwards.
    queue = np.zeros(n, np.int32)
    parent[0] = -1
    filled = 1
    branch = np.empty((n, 1 + F), np.int64)
    for i in range(n):
        a = queue[i]
        branch[a, 0] = 1
        for f in range(F):
            branch[a, 1 + f] = features[f, places[a]]
        for e in range(ends[a], ends[a + 1]):
            if near[e] != parent[a]:
                parent[near[e]] = a
                queue[filled] = near[e]
                filled += 1
    for i in range(n - 1, 0, -1):
        branch[parent[queue[i]]] += branch[queue[i]]
    best, cut = -1.0, 0
    for a in range(1, n):
        gain = _energy(branch[a], branch[0] - branch[a])
        if gain > best:
            best, cut = gain, a
    for i in range(n):
        a = queue[i]
        inside[a] = a == cut or (parent[a] >= 0 and inside[parent[a]])
    return best


@njit
def split_regions(labels, shape, features, dims, sizes, count):
    """Splits connected regions until there are `count`: always the one whose best cut lowers its error the most.

    `labels [P]` (flat of `shape` (D, H, W), ids from 0 by `sizes`, -1 outside) are changed in place; the part that was
    cut off gets the next id. `features [F, P]` are those of every place. There are at least `count` pixels.
    """
    N = sizes.size
    begin = np.zeros(count + 1, np.int64)
    stop = np.zeros(count + 1, np.int64)
    for a in range(1, N):
        begin[a] = begin[a - 1] + sizes[a - 1]
    stop[:N] = begin[:N]
    places = np.empty(labels.size, np.int64)
    for p in range(labels.size):
        a = labels[p]
        if a >= 0:
            places[stop[a]] = p
            stop[a] += 1
    local = np.empty(labels.size, np.int32)
    inside = np.empty(labels.size, np.bool_)
    gains = [(0.0, 0) for _ in range(0)]
    for a in range(N):
        gains.append((-_best_cut(places[begin[a] : stop[a]], shape, labels, features, dims, local, inside), a))
    heapq.heapify(gains)
    for N in range(sizes.size, count):
        _, a = heapq.heappop(gains)
        region = places[begin[a] : stop[a]].copy()
        _best_cut(region, shape, labels, features, dims, local, inside)
        i, j = begin[a], stop[a]
        for m in range(region.size):
            if not inside[m]:
                places[i] = region[m]
                i += 1
        begin[N], stop[N] = i, j
        stop[a] = i
        for m in range(region.size):
            if inside[m]:
                places[i] = region[m]
                labels[region[m]] = N
                i += 1
        for b in (a, N):
            gain = _best_cut(places[begin[b] : stop[b]], shape, labels, features, dims, local, inside)
            heapq.heappush(gains, (-gain, b))
