"""Nearest neighbours on CPU: a kd-tree for few dimensions, a certified selection for many.

Every kernel orders neighbours by (squared distance, index), where the squared distance is the number that
`graphseg.ops.knn` defines: float64 differences, squared, summed by repeated halving. Rounding is monotone, so the
same formula applied to the nearest corner of a box is never above its value at a point of the box. A node is
therefore left out only when no point in it can come before the last neighbour held, ties included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from graphseg.ops.kernels.compile import njit
from graphseg.ops.kernels.threads import map_threads

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SORTED_ROOM = 32  # up to here the neighbours held are a sorted list, above it a heap
SHIFTED_ROOM = 128  # up to here approximate neighbours are inserted by shifting all, above it into a heap
LEAST_KEY = 1e-290
HALVINGS = 6
SCAN = 32  # values compared at once before any is looked at
STACK = 128  # the stack of a descent holds at most one node per level, and one more
PARALLEL_BUILD = 16384  # points from which one tree is built by several threads
LAST = np.iinfo(np.int64).max


@njit
def _after(d: float, i: int, e: float, j: int) -> bool:
    """Whether (d, i) comes after (e, j)."""
    return d > e or (d == e and i > j)


@njit
def _sift(dist: Floats, index: Ints, root: int, size: int) -> None:
    d, i = dist[root], index[root]
    while True:
        child = 2 * root + 1
        if child >= size:
            break
        if child + 1 < size and _after(dist[child + 1], index[child + 1], dist[child], index[child]):
            child += 1
        if not _after(dist[child], index[child], d, i):
            break
        dist[root], index[root] = dist[child], index[child]
        root = child
    dist[root], index[root] = d, i


@njit
def _heapify(dist: Floats, index: Ints, size: int) -> None:
    for root in range(size // 2 - 1, -1, -1):
        _sift(dist, index, root, size)


@njit
def _sort(dist: Floats, index: Ints, size: int) -> None:
    """Sorts the first `size` pairs in place by (distance, index)."""
    if size <= SORTED_ROOM:
        for s in range(1, size):
            d, i = dist[s], index[s]
            p = s
            while p > 0 and _after(dist[p - 1], index[p - 1], d, i):
                dist[p], index[p] = dist[p - 1], index[p - 1]
                p -= 1
            dist[p], index[p] = d, i
        return
    _heapify(dist, index, size)
    for end in range(size - 1, 0, -1):
        dist[0], dist[end] = dist[end], dist[0]
        index[0], index[end] = index[end], index[0]
        _sift(dist, index, 0, end)


@njit
def _offer(dist: Floats, index: Ints, size: int, room: int, d: float, i: int) -> int:
    """Puts (d, i) among the `size` held; a full list drops its last, which must come after (d, i)."""
    if room <= SORTED_ROOM:
        p = size
        if size < room:
            size += 1
        else:
            p = room - 1
        while p > 0 and _after(dist[p - 1], index[p - 1], d, i):
            dist[p], index[p] = dist[p - 1], index[p - 1]
            p -= 1
        dist[p], index[p] = d, i
        return size
    if size < room:
        dist[size], index[size] = d, i
        size += 1
        if size == room:
            _heapify(dist, index, size)
        return size
    dist[0], index[0] = d, i
    _sift(dist, index, 0, size)
    return size


@njit
def _halve(s: Floats, dims: int, half: int) -> float:
    """Sum of s[:dims] by repeated halving, `half` being half the power of two; the padding is never touched."""
    while half > 0:
        for i in range(max(dims - half, 0)):
            s[i] += s[i + half]
        dims = min(dims, half)
        half //= 2
    return s[0]


@njit
def _half_of(dims: int) -> int:
    power = 1
    while power < dims:
        power *= 2
    return power // 2


@njit
def _pair(x: Floats, a: int, b: int, half: int, s: Floats) -> float:
    """The squared distance of rows a and b."""
    dims = x.shape[1]
    for d in range(dims):
        t = np.float64(x[a, d]) - np.float64(x[b, d])
        s[d] = t * t
    return _halve(s, dims, half)


@njit
def _gap(q: float, low: float, high: float) -> float:
    """Square of the distance from q to the interval [low, high]."""
    t = max(low - q, q - high, 0.0)
    return t * t


@njit
def _box(boxes: Floats, node: int, q: Floats, half: int, s: Floats) -> float:
    """Lower bound of the squared distance from q to the points of a node."""
    dims = q.size
    low, high = boxes[node, 0], boxes[node, 1]
    if dims == 2:
        return _gap(q[0], low[0], high[0]) + _gap(q[1], low[1], high[1])
    if dims == 3:
        return (_gap(q[0], low[0], high[0]) + _gap(q[2], low[2], high[2])) + _gap(q[1], low[1], high[1])
    if dims == 5:
        s0 = _gap(q[0], low[0], high[0]) + _gap(q[4], low[4], high[4])
        s1 = _gap(q[1], low[1], high[1]) + _gap(q[3], low[3], high[3])
        return (s0 + _gap(q[2], low[2], high[2])) + s1
    for d in range(dims):
        s[d] = _gap(q[d], low[d], high[d])
    return _halve(s, dims, half)


@njit
def _leaf(xt: Floats, lo: int, hi: int, q: Floats, half: int, rows: Floats) -> None:
    """Squared distances from q to the points lo .. hi, into rows[0]. Rows are sliced so that loops vectorise."""
    dims, n = xt.shape[0], hi - lo
    out = rows[0]
    if dims == 2:
        q0, q1 = q[0], q[1]
        x0, x1 = xt[0][lo:hi], xt[1][lo:hi]
        for j in range(n):
            t0, t1 = x0[j] - q0, x1[j] - q1
            out[j] = t0 * t0 + t1 * t1
        return
    if dims == 3:
        q0, q1, q2 = q[0], q[1], q[2]
        x0, x1, x2 = xt[0][lo:hi], xt[1][lo:hi], xt[2][lo:hi]
        for j in range(n):
            t0, t1, t2 = x0[j] - q0, x1[j] - q1, x2[j] - q2
            out[j] = (t0 * t0 + t2 * t2) + t1 * t1
        return
    if dims == 5:
        q0, q1, q2, q3, q4 = q[0], q[1], q[2], q[3], q[4]
        x0, x1, x2 = xt[0][lo:hi], xt[1][lo:hi], xt[2][lo:hi]
        x3, x4 = xt[3][lo:hi], xt[4][lo:hi]
        for j in range(n):
            t0, t1, t2, t3, t4 = x0[j] - q0, x1[j] - q1, x2[j] - q2, x3[j] - q3, x4[j] - q4
            out[j] = ((t0 * t0 + t4 * t4) + t2 * t2) + (t1 * t1 + t3 * t3)
        return
    for d in range(dims):
        qd, xd, row = q[d], xt[d][lo:hi], rows[d]
        for j in range(n):
            t = xd[j] - qd
            row[j] = t * t
    while half > 0:
        for d in range(max(dims - half, 0)):
            row, other = rows[d], rows[d + half]
            for j in range(n):
                row[j] += other[j]
        dims = min(dims, half)
        half //= 2


@njit
def _select(keys: Floats, order: Ints, lo: int, hi: int, mid: int) -> None:
    """Moves the mid - lo smallest keys of lo .. hi to the front (Hoare's selection); `order` follows."""
    hi -= 1
    while lo < hi:
        a, b, c = keys[lo], keys[(lo + hi) // 2], keys[hi]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = lo, hi
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if mid <= j:
            hi = j
        elif mid >= i:
            lo = i
        else:
            return


@njit
def _build(
    x: Floats,
    xt: Floats,
    order: Ints,
    keys: Floats,
    span: Ints,
    boxes: Floats,
    first: Ints,
    offset: int,
    root: int,
    levels: int,
    leaves: bool,
) -> None:
    """Boxes and splits of `levels` levels under `root`; node r of a tree lies at offset + r, children 2r+1, 2r+2."""
    dims = x.shape[1]
    start, count = root, 1
    for level in range(levels):
        for local in range(start, start + count):
            node = offset + local
            lo, hi = span[node, 0], span[node, 1]
            least = order[lo]
            for t in range(lo, hi):
                least = min(least, order[t])
            first[node] = least
            widest, width = 0, -1.0
            for d in range(dims):
                low = high = x[order[lo], d]
                for t in range(lo, hi):
                    v = x[order[t], d]
                    low = min(low, v)
                    high = max(high, v)
                boxes[node, 0, d] = low
                boxes[node, 1, d] = high
                if high - low > width:
                    widest, width = d, high - low
            if leaves and level == levels - 1:
                for d in range(dims):
                    for t in range(lo, hi):
                        xt[d, t] = x[order[t], d]
                continue
            mid = (lo + hi) // 2
            for t in range(lo, hi):
                keys[t] = x[order[t], widest]
            _select(keys, order, lo, hi, mid)
            left = offset + 2 * local + 1
            span[left, 0], span[left, 1] = lo, mid
            span[left + 1, 0], span[left + 1, 1] = mid, hi
        start, count = 2 * start + 1, 2 * count


@njit
def _build_clouds(
    x: Floats,
    xt: Floats,
    order: Ints,
    keys: Floats,
    span: Ints,
    boxes: Floats,
    first: Ints,
    ptr: Ints,
    offset: Ints,
    depth: Ints,
    done: Flags,
    begin: int,
    end: int,
) -> None:
    for c in range(begin, end):
        if not done[c]:
            span[offset[c], 0], span[offset[c], 1] = ptr[c], ptr[c + 1]
            _build(x, xt, order, keys, span, boxes, first, offset[c], 0, depth[c] + 1, True)


@njit
def _search(
    xt: Floats,
    order: Ints,
    span: Ints,
    boxes: Floats,
    first: Ints,
    offset: int,
    inner: int,
    home: int,
    half: int,
    me: int,
    room: int,
    cap: float,
    q: Floats,
    s: Floats,
    rows: Floats,
    stack: Ints,
    bounds: Floats,
    best_d: Floats,
    best_i: Ints,
) -> int:
    """The first `room` points by (squared distance, index) within squared distance `cap` of q, without `me`.

    From the leaf `home`, where q lies, upwards: at every level down into the sibling, nearer side first. Returns
    how many leaves it went through.
    """
    size, leaves = 0, 0
    worst_d, worst_i = cap, LAST
    last = room - 1 if room <= SORTED_ROOM else 0
    up = home
    stack[0], bounds[0] = home, 0.0
    top = 1
    while True:
        while top > 0:
            top -= 1
            local, bound = stack[top], bounds[top]
            node = offset + local
            if bound > worst_d or (bound == worst_d and first[node] > worst_i):
                continue
            if local < inner:
                near, far = 2 * local + 1, 2 * local + 2
                near_d = _box(boxes, offset + near, q, half, s)
                far_d = _box(boxes, offset + far, q, half, s)
                if _after(near_d, first[offset + near], far_d, first[offset + far]):
                    near, far = far, near
                    near_d, far_d = far_d, near_d
                stack[top], bounds[top] = far, far_d
                stack[top + 1], bounds[top + 1] = near, near_d
                top += 2
                continue
            lo, hi = span[node, 0], span[node, 1]
            leaves += 1
            _leaf(xt, lo, hi, q, half, rows)
            out, index = rows[0], order[lo:hi]
            for j in range(hi - lo):
                d = out[j]
                if d <= worst_d:
                    i = index[j]
                    if i != me and (d < worst_d or i < worst_i):
                        size = _offer(best_d, best_i, size, room, d, i)
                        if size == room:
                            worst_d, worst_i = best_d[last], best_i[last]
        if up == 0:
            break
        stack[0] = up + 1 if up % 2 else up - 1
        bounds[0] = _box(boxes, offset + stack[0], q, half, s)
        top = 1
        up = (up - 1) // 2
    if room > SORTED_ROOM:
        _sort(best_d, best_i, size)
    return leaves


@njit
def _query(
    xt: Floats,
    order: Ints,
    span: Ints,
    boxes: Floats,
    first: Ints,
    ptr: Ints,
    offset: Ints,
    depth: Ints,
    start: Ints,
    cap: float,
    loop: bool,
    width: int,
    begin: int,
    end: int,
    edges: Ints,
    dist: Floats,
) -> int:
    """Neighbours of the points begin .. end (in the order of the trees); point i owns edges start[i] .. start[i+1].

    Returns how many leaves were gone through.
    """
    leaves = 0
    dims = xt.shape[0]
    half = _half_of(dims)
    most = 0
    for t in range(begin, end):
        most = max(most, start[order[t] + 1] - start[order[t]])
    q, s = np.empty(dims), np.empty(dims)
    rows = np.empty((dims, width))
    stack, bounds = np.empty(STACK, np.int64), np.empty(STACK)
    best_d, best_i = np.empty(most), np.empty(most, np.int64)
    c = np.searchsorted(ptr, begin, side="right") - 1
    home = -1
    for t in range(begin, end):
        while t >= ptr[c + 1]:
            c += 1
            home = -1
        i = order[t]
        at, room = start[i], start[i + 1] - start[i]
        if room == 0:
            continue
        for d in range(dims):
            q[d] = xt[d, t]
        me = -1 if loop else i
        inner = (1 << depth[c]) - 1
        if not (home >= 0 and t < span[offset[c] + home, 1]):
            home = 0
            while home < inner:
                home = 2 * home + 1
                home += t >= span[offset[c] + home, 1]
        leaves += _search(
            xt, order, span, boxes, first, offset[c], inner, home, half, me, room, cap,
            q, s, rows, stack, bounds, best_d, best_i,
        )  # fmt: skip
        for j in range(room):
            edges[0, at + j] = best_i[j]
            edges[1, at + j] = i
        if dist.size > 0:
            for j in range(room):
                dist[at + j] = best_d[j]
    return leaves


@njit
def _count(
    xt: Floats,
    order: Ints,
    span: Ints,
    boxes: Floats,
    ptr: Ints,
    offset: Ints,
    depth: Ints,
    cap: float,
    loop: bool,
    most: int,
    width: int,
    begin: int,
    end: int,
    counts: Ints,
) -> None:
    """How many points lie within squared distance `cap` of each point, at most `most`."""
    dims = xt.shape[0]
    half = _half_of(dims)
    q, s = np.empty(dims), np.empty(dims)
    rows = np.empty((dims, width))
    stack = np.empty(STACK, np.int64)
    c = np.searchsorted(ptr, begin, side="right") - 1
    for t in range(begin, end):
        while t >= ptr[c + 1]:
            c += 1
        for d in range(dims):
            q[d] = xt[d, t]
        inner = (1 << depth[c]) - 1
        found = 0 if loop else -1  # the point itself is always within
        top = 1
        stack[0] = 0
        while top > 0 and found < most:
            top -= 1
            local = stack[top]
            node = offset[c] + local
            if _box(boxes, node, q, half, s) > cap:
                continue
            if local < inner:
                stack[top], stack[top + 1] = 2 * local + 1, 2 * local + 2
                top += 2
                continue
            lo, hi = span[node, 0], span[node, 1]
            _leaf(xt, lo, hi, q, half, rows)
            for j in range(hi - lo):
                found += rows[0, j] <= cap
        counts[order[t]] = min(found, most)


@njit
def _centre(x: Floats, ptr: Ints, begin: int, end: int, z: Floats, norm: Floats) -> None:
    dims = x.shape[1]
    mean = np.empty(dims)
    for c in range(begin, end):
        lo, hi = ptr[c], ptr[c + 1]
        mean[:] = 0.0
        for i in range(lo, hi):
            for d in range(dims):
                mean[d] += x[i, d]
        for d in range(dims):
            mean[d] /= hi - lo
        for i in range(lo, hi):
            total = 0.0
            for d in range(dims):
                z[i, d] = x[i, d] - mean[d]
                total += np.float64(z[i, d]) * np.float64(z[i, d])
            norm[i] = total


@njit
def _key(value: float, index: int, mask: int) -> float:
    """`value` with `index` in the last bits of its float64 mantissa: one number to compare and to move.

    No key is subnormal: threads may be set to take those for zero.
    """
    if abs(value) < LEAST_KEY:
        value = LEAST_KEY
    return np.int64((np.float64(value).view(np.int64) & ~mask) | index).view(np.float64)


@njit
def _value(key: float, mask: int) -> float:
    return np.int64(np.float64(key).view(np.int64) & ~mask).view(np.float64)


@njit
def _index(key: float, mask: int) -> int:
    return int(np.float64(key).view(np.int64) & mask)


@njit
def _ceiling(up: Floats, n: int, room: int) -> float:
    """A number above at least `room` of up[:n], and not above many more: those need not be inserted, then shifted out.

    Found by halving the interval of all values; infinity where that does not help.
    """
    low = high = up[0]
    for j in range(n):
        low = up[j] if up[j] < low else low
    for j in range(n):
        high = up[j] if up[j] > high and up[j] < np.inf else high
    ceiling = np.inf
    if not high < np.inf:
        return ceiling
    for _ in range(HALVINGS):
        middle = low + (high - low) * np.float32(0.5)
        count = 0
        for j in range(n):
            count += up[j] < middle
        if count < room:
            low = middle
        else:
            high = middle
            ceiling = middle
            if 2 * count < 3 * room + 4:
                break
    return ceiling


@njit
def _least(up: Floats, n: int, room: int, mask: int, held: Floats, spare: Floats, none: Ints) -> None:
    """The least `room` keys of up[:n], sorted, into held.

    An insertion without branches: every key held becomes the middle one of it, the one before it and the new one.
    """
    held[:room] = np.inf
    worst = _ceiling(up, n, room) if n <= 32 * room else np.inf
    size = 0
    for j in range(0, n, SCAN):
        stop = min(j + SCAN, n)
        hits = 0
        for m in range(j, stop):
            hits += up[m] < worst
        if hits == 0:
            continue
        for m in range(j, stop):
            if not up[m] < worst:
                continue
            key = _key(up[m], m, mask)
            if room > SHIFTED_ROOM:
                if size < room or key < held[0]:
                    size = _offer(held, none, size, room, key, 0)
                if size == room:
                    worst = held[0]
                continue
            for p in range(room - 1):
                before, here = held[p], held[p + 1]
                here = here if here < key else key
                spare[p] = before if before > here else here
            held[0] = held[0] if held[0] < key else key
            for p in range(room - 1):
                held[p + 1] = spare[p]
            worst = min(worst, held[room - 1])
    if room > SHIFTED_ROOM:
        _sort(held, none, room)


@njit
def _products(zt: Floats, i: int, first: int, n: int, out: Floats) -> None:
    """<z_i, z_j> for the n points j from `first`, of zt [D, P]; four dimensions at a time."""
    dims = zt.shape[0]
    out[:n] = 0
    for d in range(0, dims - dims % 4, 4):
        z0, z1, z2, z3 = zt[d, i], zt[d + 1, i], zt[d + 2, i], zt[d + 3, i]
        x0, x1 = zt[d][first : first + n], zt[d + 1][first : first + n]
        x2, x3 = zt[d + 2][first : first + n], zt[d + 3][first : first + n]
        for j in range(n):
            out[j] += (z0 * x0[j] + z1 * x1[j]) + (z2 * x2[j] + z3 * x3[j])
    for d in range(dims - dims % 4, dims):
        z0, x0 = zt[d, i], zt[d][first : first + n]
        for j in range(n):
            out[j] += z0 * x0[j]


class Certain(NamedTuple):
    """What `_certify` needs of all points; see there."""

    x: Floats  # [P, D] as given
    upper: Floats  # [P] norm + slack / 2
    slack: Floats  # [P]
    zt: Floats  # [D, P] the centred points, where the kernel is to make the products; else empty
    tiny: float
    low: Ints  # [P] where the point's cloud begins
    start: Ints  # [P + 1] where the point's edges begin
    loop: bool
    edges: Ints  # [2, E]
    dist: Floats  # [E] or [0]


@njit
def _certify(
    x: Floats,
    upper: Floats,
    slack: Floats,
    zt: Floats,
    tiny: float,
    low: Ints,
    start: Ints,
    loop: bool,
    edges: Ints,
    dist: Floats,
    row_ptr: Ints,
    product: Floats,
    shift: int,
    begin: int,
    end: int,
) -> None:
    """Exact neighbours of points shift + begin .. shift + end from products with a known error.

    Row r, of point i = shift + r, holds <z_i, z_j> for all j of its cloud: product[row_ptr[r] : row_ptr[r + 1]], or
    nothing where zt is given. Up to a constant of the row, the squared distance is at most up_j + slack_i / 2 and at
    least up_j - slack_j - slack_i / 2, with up_j = upper_j - 2 <z_i, z_j> (see `graphseg.ops.knn`). Points that these
    bounds set apart are in order; the others are put in order by the exact distance.
    """
    dims = x.shape[1]
    half = _half_of(dims)
    longest = 0
    for r in range(begin, end):
        longest = max(longest, row_ptr[r + 1] - row_ptr[r])
    mask = 1
    while mask < longest:
        mask *= 2
    mask -= 1
    s = np.empty(dims)
    up, limit = np.empty(longest, product.dtype), np.empty(1, product.dtype)
    held, spare, none = np.empty(longest + 1), np.empty(longest + 1), np.zeros(longest + 1, np.int64)
    row_of = np.full(longest, -1, np.int64)  # the last row that held a point
    values, ids, least = np.empty(longest), np.empty(longest, np.int64), np.empty(longest + 1)
    group_d, group_i = np.empty(longest), np.empty(longest, np.int64)
    for r in range(begin, end):
        i = shift + r
        first, n = low[i], row_ptr[r + 1] - row_ptr[r]
        at, room = start[i], start[i + 1] - start[i]
        if room == 0:
            continue
        high, gap = upper[first : first + n], slack[first : first + n]
        if zt.size > 0:
            _products(zt, i, first, n, up)
        else:
            up[:n] = product[row_ptr[r] : row_ptr[r + 1]]
        for j in range(n):
            up[j] = high[j] - (up[j] + up[j])
        if not loop:
            up[i - first] = np.inf
        _least(up, n, room, mask, held, spare, none)
        reach = slack[i] + tiny
        limit[0] = _value(held[room - 1], mask) + reach
        bound = limit[0]
        for p in range(room):
            row_of[_index(held[p], mask)] = r
        size = room
        for j in range(0, n, SCAN):  # points that may still come before the last one held
            stop = min(j + SCAN, n)
            hits = 0
            for m in range(j, stop):
                hits += up[m] - gap[m] <= bound
            if hits > 0:
                for m in range(j, stop):
                    if up[m] - gap[m] <= bound and row_of[m] != r:
                        held[size] = _key(up[m], m, mask)
                        size += 1
        if size > room:
            held[:size].sort()
        least[size] = np.inf
        for p in range(size - 1, -1, -1):
            values[p], ids[p] = _value(held[p], mask), _index(held[p], mask)
            least[p] = min(least[p + 1], values[p] - gap[ids[p]])
        p = 0
        while p < room:
            e = p + 1
            while e < size and not least[e] > values[e - 1] + reach:
                e += 1
            keep = min(e, room) - p
            if e == p + 1 and dist.size == 0:
                group_i[0] = first + ids[p]
            else:
                tail = keep - 1 if keep <= SORTED_ROOM else 0
                count = 0
                for g in range(p, e):
                    j = first + ids[g]
                    d = _pair(x, i, j, half, s)
                    if count < keep or _after(group_d[tail], group_i[tail], d, j):
                        count = _offer(group_d, group_i, count, keep, d, j)
                if keep > SORTED_ROOM:
                    _sort(group_d, group_i, keep)
            for g in range(keep):
                edges[0, at + p + g] = group_i[g]
                edges[1, at + p + g] = i
                if dist.size > 0:
                    dist[at + p + g] = group_d[g]
            p = e


def _run(task: Callable[[int, int], object], bounds: Sequence[int]) -> None:
    """Runs task(bounds[i], bounds[i + 1]) for every i, in threads."""
    spans = [(a, b) for a, b in pairwise(bounds) if b > a]
    map_threads(lambda span: task(*span), spans)


def _split(total: int, least: int) -> list[int]:
    """Bounds of equal chunks of `total` items: some per thread, none much smaller than `least`."""
    workers = torch.get_num_threads()
    chunks = max(1, min(4 * workers, total // least)) if workers > 1 else 1
    return [total * i // chunks for i in range(chunks + 1)]


class Forest(NamedTuple):
    """One kd-tree per cloud: complete binary trees, split at the median of the widest side of their box."""

    xt: Floats  # [D, P] the points in the order of the trees
    order: Ints  # [P] their indices
    span: Ints  # [nodes, 2] the points of a node
    boxes: Floats  # [nodes, 2, D] lowest and highest corner
    first: Ints  # [nodes] least index
    ptr: Ints  # [C + 1] the points of a cloud
    offset: Ints  # [C] root of a cloud's tree
    depth: Ints  # [C] levels below the root
    width: int  # points in the largest leaf


def plant(x: Floats, ptr: Ints, leaf: int, single: int) -> Forest:
    """Builds the trees of all clouds of x [P, D] float64, leaves of at most `leaf` points, or `single`."""
    points, dims = x.shape
    sizes = np.diff(ptr)
    depth = np.zeros(sizes.size, np.int64)
    while (deeper := (sizes > single) & (-(-sizes // 2**depth) > leaf)).any():
        depth += deeper
    nodes = 2 ** (depth + 1) - 1
    offset = np.cumsum(nodes) - nodes
    total = int(nodes.sum())
    forest = Forest(
        np.empty((dims, points)),
        np.arange(points),
        np.empty((total, 2), np.int64),
        np.empty((total, 2, dims)),
        np.empty(total, np.int64),
        ptr,
        offset,
        depth,
        int((-(-sizes // 2**depth)).max()),
    )
    arrays = (x, forest.xt, forest.order, np.empty(points), forest.span, forest.boxes, forest.first)
    large = (sizes >= PARALLEL_BUILD) & (depth >= 2)
    for c in np.flatnonzero(large):
        root, levels = int(offset[c]), int(depth[c]) - 1
        forest.span[root] = ptr[c : c + 2]
        _build(*arrays, root, 0, 2, False)  # two levels here, the four trees below them in threads
        map_threads(partial(_grow, arrays, root, levels), range(3, 7))
    bounds = np.searchsorted(ptr, _split(points, 4096)).tolist()
    _run(lambda a, b: _build_clouds(*arrays, ptr, offset, depth, large, a, b), bounds)
    return forest


def _grow(arrays: tuple[Any, ...], root: int, levels: int, below: int) -> None:
    _build(*arrays, root, below, levels, True)


def query(forest: Forest, start: Ints, cap: float, loop: bool, edges: Ints, dist: Floats) -> None:
    """Fills edges [2, E] (and dist [E] unless it is empty); point i owns start[i] .. start[i + 1]."""
    trees: tuple[Any, ...] = forest[:-1]
    width = forest.width
    _run(
        lambda a, b: _query(*trees, start, cap, loop, width, a, b, edges, dist),
        _split(forest.order.size, 1024),
    )


def probe(forest: Forest, start: Ints, loop: bool, edges: Ints, dist: Floats, spans: int, length: int) -> float:
    """Leaves that a query goes through, as the mean over spans * length of them. Fills their edges as `query` does."""
    trees: tuple[Any, ...] = forest[:-1]
    width = forest.width
    begins = np.linspace(0, max(forest.order.size - length, 0), spans).astype(np.int64).tolist()
    end = min(length, forest.order.size)
    leaves = [_query(*trees, start, np.inf, loop, width, a, a + end, edges, dist) for a in begins]
    return float(sum(leaves)) / (spans * end)


def count(forest: Forest, cap: float, loop: bool, most: int) -> Ints:
    """Neighbours of each point within squared distance `cap`, at most `most`."""
    counts = np.empty(forest.order.size, np.int64)
    xt, order, span, boxes, _, ptr, offset, depth, width = forest
    _run(
        lambda a, b: _count(xt, order, span, boxes, ptr, offset, depth, cap, loop, most, width, a, b, counts),
        _split(order.size, 1024),
    )
    return counts


def centre(x: Floats, ptr: Ints, z: Floats) -> Floats:
    """Fills z [P, D] with x less about the mean of its cloud; returns the squared norms [P], in float64."""
    norm = np.empty(len(x))
    bounds = np.searchsorted(ptr, _split(len(x), 4096)).tolist()
    _run(lambda a, b: _centre(x, ptr, a, b, z, norm), bounds)
    return norm


def certify(given: Certain, row_ptr: Ints, product: Floats, begin: int) -> None:
    """`_certify` for the rows begin, begin + 1, ... whose products lie at row_ptr."""
    _run(lambda a, b: _certify(*given, row_ptr, product, begin, a, b), _split(row_ptr.size - 1, 512))
