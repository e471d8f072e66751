"""Agglomerative merge one by one: edges sorted and made distinct, merged strongest first; the tree; mutex watershed.

An edge is a record of 24 bytes, so that one access fetches all of it. The graph is kept twice: each node lists its
edges, and a cluster its nodes; and a hash table leads from a pair of clusters to their edge. Of two that merge the one
with fewer edges gives them up; those of the other are never visited. What is out of date in lists and table stays there
until it is met.

The queue relies on the rules being reducible: an edge made of two is never stronger than the stronger one. It lives on
in that one's record, so a record never waits behind its turn; one that comes up too early is put back. Edges wait in
buckets of similar weight; only the bucket in turn is sorted.
"""

from __future__ import annotations

import numpy as np

from graphseg.ops.kernels.compile import njit

U, V, COUNT, RANK = 0, 1, 4, 5  # columns of a record as int32
PAIR, VALUE = 0, 1  # as int64: V above U; as float64 or int64: the weight, or the sum of a counted edge
PLAIN, COUNTED, MAX, MIN = range(4)

UNIT = 2.0**24  # sums of counted edges are whole numbers of 1 / UNIT
BUCKETS = 1 << 16
WAITING, CHANGED = -2, -3  # in `after`, of an edge in the run or the heap: as it was put there, or weaker since
FULL = 0.75  # share of the table that may be taken


@njit
def hashed_ranks(image_start):
    """The rank, less 2^31, of each edge: a fixed bijection of its place among those of its image."""
    rank = np.empty(image_start[-1], np.int32)
    for b in range(len(image_start) - 1):
        for e in range(image_start[b], image_start[b + 1]):
            h = np.uint64(e - image_start[b])
            h ^= h >> np.uint64(16)
            h = h * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF)
            h ^= h >> np.uint64(13)
            h = h * np.uint64(0xC2B2AE35) & np.uint64(0xFFFFFFFF)
            h ^= h >> np.uint64(16)
            rank[e] = np.int64(h) - 2**31
    return rank


@njit
def order_edges(source, target, num_nodes):
    """Positions of the edges (not loops) by the smaller end, then the larger, then position."""
    start = np.zeros(num_nodes + 1, np.int64)
    for e in range(len(source)):
        if source[e] != target[e]:
            start[min(source[e], target[e]) + 1] += 1
    for n in range(num_nodes):
        start[n + 1] += start[n]
    order = np.empty(start[num_nodes], np.int32)
    place = start[:-1].copy()
    for e in range(len(source)):
        if source[e] != target[e]:
            n = min(source[e], target[e])
            order[place[n]] = e
            place[n] += 1
    key = np.empty(64, np.int64)
    for n in range(num_nodes):
        first, size = start[n], start[n + 1] - start[n]
        if size > len(key):
            key = np.empty(2 * size, np.int64)
        rising = True
        for j in range(size):
            e = order[first + j]
            key[j] = np.int64(max(source[e], target[e])) << 32 | e
            rising = rising and (j == 0 or key[j] > key[j - 1])
        if rising:
            continue
        if size > 64:
            key[:size].sort()
        else:
            for j in range(1, size):
                k, i = key[j], j
                while i > 0 and key[i - 1] > k:
                    key[i] = key[i - 1]
                    i -= 1
                key[i] = k
        for j in range(size):
            order[first + j] = key[j] & 0xFFFFFFFF
    return order


@njit
def count_pairs(source, target, order):
    """The number of distinct pairs among ordered edges."""
    pairs = 0
    for j in range(len(order)):
        pairs += j == 0 or not _same_pair(source, target, order[j - 1], order[j])
    return pairs


@njit
def _same_pair(source, target, e, f):
    return min(source[e], target[e]) == min(source[f], target[f]) and max(source[e], target[e]) == max(
        source[f], target[f]
    )


@njit
def write_records(records, floats, integers, source, target, value, count, rank, order, linkage):
    """One record for each pair: the value of parallel edges is combined, their rank is the latest.

    value: weights, or int64 sums of counted edges; of the latter count [E], empty if it is 1 for all.
    """
    r = -1
    j = 0
    while j < len(order):
        end = j + 1
        while end < len(order) and _same_pair(source, target, order[j], order[end]):
            end += 1
        e = order[j]
        r += 1
        records[r, U], records[r, V] = min(source[e], target[e]), max(source[e], target[e])
        records[r, RANK] = rank[e]
        records[r, COUNT] = 1
        for i in range(j + 1, end):
            records[r, RANK] = max(records[r, RANK], rank[order[i]])
        if linkage == COUNTED:
            total, number = np.int64(0), np.int64(0)
            for i in range(j, end):
                total += np.int64(value[order[i]])
                number += count[order[i]] if len(count) else 1
            integers[r, VALUE], records[r, COUNT] = total, number
        else:
            floats[r, VALUE] = _combined(value, order, j, end, linkage)
        j = end


@njit
def _combined(value, order, first, end, linkage):
    a = np.float64(value[order[first]])
    if linkage != PLAIN:
        for i in range(first + 1, end):
            b = np.float64(value[order[i]])
            a = max(a, b) if linkage == MAX else min(a, b)
        return a
    if end - first == 1:
        return a
    if end - first == 2:
        return (a + np.float64(value[order[first + 1]])) / 2
    high, low = np.int64(0), np.int64(0)  # the sum in units of 2^-31 and 2^-62, whatever its order
    for i in range(first, end):
        scaled = np.float64(value[order[i]]) * 2.0**31
        whole = np.floor(scaled)
        high += np.int64(whole)
        low += np.int64(np.rint((scaled - whole) * 2.0**31))
    return (float(high) * 2.0**-31 + float(low) * 2.0**-62) / (end - first)


@njit
def _weight(records, floats, integers, e, linkage):
    if linkage == COUNTED:
        return integers[e, VALUE] / records[e, COUNT] * (1 / UNIT)
    return floats[e, VALUE]


@njit
def _bucket(weight):
    return int(weight * BUCKETS)


@njit
def _mixed(a, b):
    """64 well mixed bits of a pair, whichever way round."""
    key = np.uint64(min(a, b)) << np.uint64(32) | np.uint64(max(a, b))
    key *= np.uint64(0x9E3779B97F4A7C15)
    key ^= key >> np.uint64(32)
    key *= np.uint64(0xD6E8FEB86659FD93)
    return key ^ (key >> np.uint64(32))


@njit
def _home(mixed, size):
    return np.int64(((mixed & np.uint64(0xFFFFFFFF)) * np.uint64(size)) >> np.uint64(32))


@njit
def _tag(mixed, bits):
    return np.int32(np.int64(mixed >> np.uint64(33)) >> bits << bits)


@njit
def _fill(table, records, bits):
    """Enters all living edges; returns their number."""
    table[:] = -1
    taken = 0
    for e in range(len(records)):
        if records[e, U] >= 0:
            mixed = _mixed(records[e, U], records[e, V])
            slot = _home(mixed, len(table))
            while table[slot] >= 0:
                slot += 1
                if slot == len(table):
                    slot = 0
            table[slot] = _tag(mixed, bits) | e
            taken += 1
    return taken


@njit
def _before(w, r, x, s):
    """Whether weight w and rank r come before x and s."""
    return w > x or (w == x and r < s)


@njit
def _sort(weight, rank, edge, first, end):
    """Sorts the three arrays by falling weight, then rising rank."""
    stack = [(first, end)]
    while len(stack):
        first, end = stack.pop()
        while end - first > 24:
            m = (first + end) // 2
            for i, j in ((first, m), (m, end - 1), (first, m)):  # median of three in the middle
                if _before(weight[j], rank[j], weight[i], rank[i]):
                    _swap(weight, rank, edge, i, j)
            w, r = weight[m], rank[m]
            i, j = first, end - 1
            while i <= j:
                while _before(weight[i], rank[i], w, r):
                    i += 1
                while _before(w, r, weight[j], rank[j]):
                    j -= 1
                if i <= j:
                    _swap(weight, rank, edge, i, j)
                    i += 1
                    j -= 1
            if j + 1 - first < end - i:
                stack.append((i, end))
                end = j + 1
            else:
                stack.append((first, j + 1))
                first = i
        for k in range(first + 1, end):
            w, r, e = weight[k], rank[k], edge[k]
            i = k
            while i > first and _before(w, r, weight[i - 1], rank[i - 1]):
                weight[i], rank[i], edge[i] = weight[i - 1], rank[i - 1], edge[i - 1]
                i -= 1
            weight[i], rank[i], edge[i] = w, r, e


@njit
def _swap(weight, rank, edge, i, j):
    weight[i], weight[j] = weight[j], weight[i]
    rank[i], rank[j] = rank[j], rank[i]
    edge[i], edge[j] = edge[j], edge[i]


@njit
def _push(heap_weight, heap_rank, heap_edge, size, w, r, e):
    i = size
    while i > 0:
        above = (i - 1) >> 1
        if not _before(w, r, heap_weight[above], heap_rank[above]):
            break
        heap_weight[i], heap_rank[i], heap_edge[i] = heap_weight[above], heap_rank[above], heap_edge[above]
        i = above
    heap_weight[i], heap_rank[i], heap_edge[i] = w, r, e


@njit
def _pop(heap_weight, heap_rank, heap_edge, size):
    """Takes the first from a heap of `size`."""
    top = heap_edge[0]
    w, r, e = heap_weight[size - 1], heap_rank[size - 1], heap_edge[size - 1]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= size - 1:
            break
        if below + 1 < size - 1 and _before(
            heap_weight[below + 1], heap_rank[below + 1], heap_weight[below], heap_rank[below]
        ):
            below += 1
        if not _before(heap_weight[below], heap_rank[below], w, r):
            break
        heap_weight[i], heap_rank[i], heap_edge[i] = heap_weight[below], heap_rank[below], heap_edge[below]
        i = below
    heap_weight[i], heap_rank[i], heap_edge[i] = w, r, e
    return top


@njit
def incident_edges(records, num_nodes, edges):
    """Lists the edges at each node: those of n are `edges[start[n] : start[n + 1]]`. Returns `start`."""
    start = np.zeros(num_nodes + 1, np.int32)
    for e in range(len(records)):
        start[records[e, U] + 1] += 1
        start[records[e, V] + 1] += 1
    for n in range(num_nodes):
        start[n + 1] += start[n]
    place = start[:-1].copy()
    for e in range(len(records)):
        for side in range(2):
            n = records[e, side]
            edges[place[n]] = e
            place[n] += 1
    return start


@njit
def merge(records, floats, integers, num_nodes, linkage, threshold, strict, table, after, incident):
    """Merges the strongest edge, again and again, while it reaches the threshold.

    Returns the clusters merged, each by the node that stands for it, `[M, 2]`, and the heights `[M]`, in order; and the
    node that stands for the cluster of each node. Of the records, those with U = -1 are gone; the others are the edges
    left.
    """
    E = len(records)
    start = incident_edges(records, num_nodes, incident)
    size = start[1:] - start[:-1]  # of the edges at each node, those that may be alive
    degree = size.copy()  # of each cluster
    member = np.arange(num_nodes, dtype=np.int32)  # the next node of the same cluster, in a ring
    bits = 1
    while E >> bits:
        bits += 1
    taken = _fill(table, records, bits)

    bucket = np.full(BUCKETS + 1, -1, np.int32)
    for e in range(E):
        w = _weight(records, floats, integers, e, linkage)
        if w > threshold or (w == threshold and not strict):
            b = _bucket(w)
            after[e] = bucket[b]
            bucket[b] = e

    pairs, heights = np.empty((64, 2), np.int32), np.empty(64)
    merges, parent = 0, member.copy()
    run, run_weight, run_rank = np.empty(64, np.int32), np.empty(64), np.empty(64, np.int32)
    near, other, slots = np.empty(64, np.int32), np.empty(64, np.int32), np.empty(64, np.int32)
    hashed = np.empty(64, np.uint64)
    touched, mask = np.int32(0), (1 << bits) - 1
    heap_weight, heap_rank, heap_edge = np.empty(64), np.empty(64, np.int32), np.empty(64, np.int32)
    for b in range(BUCKETS, -1, -1):
        if bucket[b] < 0:
            continue
        length, e = 0, bucket[b]
        while e >= 0:
            following = after[e]
            if records[e, U] >= 0:
                w = _weight(records, floats, integers, e, linkage)
                if _bucket(w) == b:
                    if w > threshold or (w == threshold and not strict):
                        if length == len(run):
                            run, run_rank = np.concatenate((run, run)), np.concatenate((run_rank, run_rank))
                            run_weight = np.concatenate((run_weight, run_weight))
                        run[length], run_weight[length], run_rank[length] = e, w, records[e, RANK]
                        after[e] = WAITING
                        length += 1
                elif w >= threshold:
                    after[e] = bucket[_bucket(w)]
                    bucket[_bucket(w)] = e
            e = following
        _sort(run_weight, run_rank, run, 0, length)

        at, heap_size = 0, 0
        while at < length or heap_size > 0:
            from_run = False
            if at < length:
                e = run[at]
                if records[e, U] < 0:
                    at += 1
                    continue
                from_run = (
                    heap_size == 0
                    or after[e] == CHANGED
                    or _before(
                        _weight(records, floats, integers, e, linkage), records[e, RANK], heap_weight[0], heap_rank[0]
                    )
                )
            if from_run:
                at += 1
            else:
                e = _pop(heap_weight, heap_rank, heap_edge, heap_size)
                heap_size -= 1
                if records[e, U] < 0:
                    continue
            w = _weight(records, floats, integers, e, linkage)
            if after[e] == CHANGED:
                if w > threshold or (w == threshold and not strict):
                    if _bucket(w) == b:
                        if heap_size == len(heap_weight):
                            heap_weight = np.concatenate((heap_weight, heap_weight))
                            heap_rank = np.concatenate((heap_rank, heap_rank))
                            heap_edge = np.concatenate((heap_edge, heap_edge))
                        after[e] = WAITING
                        _push(heap_weight, heap_rank, heap_edge, heap_size, w, records[e, RANK], e)
                        heap_size += 1
                    else:
                        after[e] = bucket[_bucket(w)]
                        bucket[_bucket(w)] = e
                continue

            # Merge the cluster with fewer edges into the other.
            small, large = records[e, U], records[e, V]
            if degree[small] > degree[large]:
                small, large = large, small
            if merges == len(pairs):
                pairs, heights = np.concatenate((pairs, pairs)), np.concatenate((heights, heights))
            parent[small] = large
            pairs[merges, 0], pairs[merges, 1], heights[merges] = small, large, w
            merges += 1
            records[e, U] = -1
            degree[large] -= 1
            if taken + degree[small] > FULL * len(table):
                taken = _fill(table, records, bits)
            if degree[small] >= len(near):
                near = np.empty(2 * degree[small], np.int32)
                other, hashed = np.empty(len(near), np.int32), np.empty(len(near), np.uint64)
                slots = np.empty(len(near), np.int32)
            # Loops with few branches before the one with many: memory then serves many edges at a time.
            edges, n = 0, small
            while True:
                first, last = start[n], start[n]
                for i in range(first, first + size[n]):
                    e = incident[i]
                    incident[last] = near[edges] = e
                    alive = records[e, U] >= 0
                    last += alive
                    edges += alive
                size[n] = last - first
                n = member[n]
                if n == small:
                    break
            member[small], member[large] = member[large], member[small]
            for i in range(edges):
                e = near[i]
                other[i] = records[e, U] ^ records[e, V] ^ small
                hashed[i] = _mixed(large, other[i])
                slots[i] = table[_home(hashed[i], len(table))]
            for i in range(edges):  # nothing comes of this but that memory begins to fetch
                touched ^= records[max(slots[i], 0) & mask, U]
            for i in range(edges):
                e, k, mixed = near[i], other[i], hashed[i]
                pair = np.int64(max(large, k)) << 32 | min(large, k)
                slot, tag = _home(mixed, len(table)), _tag(mixed, bits)
                f = -1
                while table[slot] >= 0:
                    if table[slot] >> bits << bits == tag:
                        f = table[slot] ^ tag
                        if integers[f, PAIR] == pair:
                            break
                        f = -1
                    slot += 1
                    if slot == len(table):
                        slot = 0
                if f < 0:
                    table[slot] = tag | e
                    taken += 1
                    degree[large] += 1
                else:
                    degree[k] -= 1
                    weight_e = _weight(records, floats, integers, e, linkage)
                    weight_f = _weight(records, floats, integers, f, linkage)
                    second = _before(weight_f, records[f, RANK], weight_e, records[e, RANK])
                    kept, gone = (f, e) if second else (e, f)
                    if linkage == PLAIN:
                        floats[kept, VALUE] = (weight_e + weight_f) / 2
                    elif linkage == COUNTED:
                        integers[kept, VALUE] += integers[gone, VALUE]
                        records[kept, COUNT] += records[gone, COUNT]
                    elif linkage == MAX:
                        floats[kept, VALUE] = max(weight_e, weight_f)
                    else:
                        floats[kept, VALUE] = min(weight_e, weight_f)
                    records[kept, RANK] = max(records[e, RANK], records[f, RANK])
                    records[gone, U] = -1
                    if after[kept] == WAITING:
                        after[kept] = CHANGED
                    if kept == f:
                        continue
                    table[slot] = tag | e
                integers[e, PAIR] = pair
    if E:
        after[0] = touched  # so that it is not left out as of no use
    for n in range(num_nodes):
        parent[n] = _root(parent, n)
    return pairs[:merges].copy(), heights[:merges].copy(), parent


@njit
def _root(parent, n):
    root = n
    while parent[root] != root:
        root = parent[root]
    while parent[n] != root:
        parent[n], n = root, parent[n]
    return root


@njit
def tree(first, second, num_nodes):
    """The clusters that each merge takes, `[M, 2]`: nodes by their ids, `num_nodes + m` for that of merge m."""
    parent, name = np.arange(num_nodes), np.arange(num_nodes)
    children = np.empty((len(first), 2), np.int64)
    for m in range(len(first)):
        a, b = _root(parent, first[m]), _root(parent, second[m])
        children[m, 0], children[m, 1] = min(name[a], name[b]), max(name[a], name[b])
        parent[b] = a
        name[a] = num_nodes + m
    return children


@njit
def sort_edges(affinity, rank):
    """Places by falling absolute affinity, then rank."""
    weight, by, order = np.empty(len(rank)), rank.copy(), np.empty(len(rank), np.int32)
    for e in range(len(rank)):
        weight[e], order[e] = abs(affinity[e]), e
    _sort(weight, by, order, 0, len(order))
    return order


@njit
def merge_unless_forbidden(source, target, affinity, order, stage, num_nodes, threshold, strict):
    """Mutex watershed over edges in this order, with a threshold for each stage; returns what `merge` does."""
    room = 0
    for e in range(len(affinity)):
        room += affinity[e] < 0
    # Pairs that are forbidden, as edges at clusters: in lists and in a table, as those of `merge`.
    ends, following = np.empty((room, 2), np.int32), np.empty((room, 2), np.int32)
    head, degree = np.full(num_nodes, -1, np.int32), np.zeros(num_nodes, np.int32)
    table = np.full(4 * room + 8, -1, np.int32)
    parent = np.arange(num_nodes, dtype=np.int32)
    pairs, heights = np.empty((64, 2), np.int32), np.empty(64)
    merges = known = taken = 0
    for e in order:
        a, b = _root(parent, source[e]), _root(parent, target[e])
        if a == b:
            continue
        slot = _slot(table, ends, a, b)
        if table[slot] >= 0:
            continue
        w = np.float64(affinity[e])
        if w < 0:
            if 2 * (taken + 1) > len(table):
                taken = _enter(table, ends, known)
                slot = _slot(table, ends, a, b)
            table[slot] = known
            for side, n in ((0, a), (1, b)):
                ends[known, side], following[known, side] = n, head[n]
                head[n] = 2 * known + side
                degree[n] += 1
            known += 1
            taken += 1
            continue
        if w < threshold[stage[e]] or (w == threshold[stage[e]] and strict):
            continue
        small, large = (a, b) if degree[a] <= degree[b] else (b, a)
        if merges == len(pairs):
            pairs, heights = np.concatenate((pairs, pairs)), np.concatenate((heights, heights))
        pairs[merges, 0], pairs[merges, 1], heights[merges] = small, large, w
        merges += 1
        parent[small] = large
        if 2 * (taken + degree[small]) > len(table):
            taken = _enter(table, ends, known)
        h = head[small]
        while h >= 0:
            f, side = h >> 1, h & 1
            h = following[f, side]
            if ends[f, 0] < 0:
                continue
            k = ends[f, 1 - side]
            slot = _slot(table, ends, large, k)
            if table[slot] >= 0:  # forbidden by another edge, too
                ends[f, 0] = ends[f, 1] = -1
                degree[k] -= 1
                continue
            ends[f, side], following[f, side] = large, head[large]
            head[large] = 2 * f + side
            degree[large] += 1
            table[slot] = f
            taken += 1
    for n in range(num_nodes):
        parent[n] = _root(parent, n)
    return pairs[:merges].copy(), heights[:merges].copy(), parent


@njit
def _slot(table, ends, a, b):
    """Where the pair stands in the table, or the free place for it."""
    slot = _home(_mixed(a, b), len(table))
    while table[slot] >= 0:
        f = table[slot]
        if (ends[f, 0] == a and ends[f, 1] == b) or (ends[f, 0] == b and ends[f, 1] == a):
            break
        slot += 1
        if slot == len(table):
            slot = 0
    return slot


@njit
def _enter(table, ends, known):
    """Enters all pairs that stand; returns their number."""
    table[:] = -1
    taken = 0
    for f in range(known):
        if ends[f, 0] >= 0:
            table[_slot(table, ends, ends[f, 0], ends[f, 1])] = f
            taken += 1
    return taken
