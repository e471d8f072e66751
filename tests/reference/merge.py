"""Agglomerative merging as its sources print it: Algorithm 1 of the paper, and the mutex watershed.

Papers: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation" (line numbers beside the code);
Wolf et al., "The Mutex Watershed and its Objective: Efficient, Parameter-Free Graph Partitioning".
One image, dictionaries of dictionaries, no queue: every step looks at every edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

Value = Any  # a float, or (sum, count) of "counted"
Pairs = Sequence[tuple[int, int]]

GRID = 2**24  # "counted" rounds every affinity to a multiple of 1 / GRID
FINE = 2**62  # the mean of three and more parallel edges ("plain") adds multiples of 1 / FINE


class Rule(NamedTuple):
    """What the edge between two clusters is."""

    first: Callable[[list[float]], Value]  # of parallel edges that come at once
    join: Callable[[Value, Value], Value]  # of e(u, k) and e(v, k)
    weight: Callable[[Value], float]


def mean(values: list[float]) -> float:
    """Does not depend on the order; of two values it is the rule for e(u, k) and e(v, k)."""
    if len(values) < 3:
        return sum(values) / len(values)
    return float(sum(Fraction(round(Fraction(v) * FINE), FINE) for v in values)) / len(values)


RULES = {
    "plain": Rule(mean, lambda a, b: (a + b) / 2, lambda a: a),
    "counted": Rule(
        lambda values: (sum(round(Fraction(v) * GRID) for v in values), len(values)),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        lambda a: a[0] / a[1] / GRID,
    ),
    "max": Rule(max, max, lambda a: a),
    "min": Rule(min, min, lambda a: a),
}


@dataclass
class Merged:
    """The fields of an `Agglomeration`, as lists."""

    assignment: list[int]
    children: list[tuple[int, int]]
    height: list[float]
    edges: dict[tuple[int, int], float]


def rank(position: int) -> int:
    """A bijection of 32-bit integers: which of two equal edges comes first."""
    h = position
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


def agglomerate(
    pairs: Pairs,
    affinity: Sequence[float],
    num_nodes: int,
    thresholds: Sequence[float],
    linkage: str = "plain",
    stage: Sequence[int] | None = None,
    strict: bool = False,
) -> Merged:
    """Algorithm 1 once for each stage, on the graph that the stage before has left."""
    rule = RULES[linkage]
    children: list[tuple[int, int]] = []
    height: list[float] = []
    V = {i: [i] for i in range(num_nodes)}  # cluster -> its nodes
    E: dict[int, dict[int, tuple[Value, int]]] = {i: {} for i in V}  # cluster -> neighbour -> value, rank

    def order(edge: tuple[int, int]) -> tuple[float, int]:
        value, position = E[edge[0]][edge[1]]
        return -rule.weight(value), position

    for s, threshold in enumerate(thresholds):
        chosen = [p for p in range(len(pairs)) if (stage[p] if stage else 0) == s]
        for (u, v), (value, r) in bundle(V, pairs, affinity, chosen, rule).items():  # line 1
            if v in E[u]:
                value, r = rule.join(E[u][v][0], value), max(E[u][v][1], r)
            E[u][v] = E[v][u] = (value, r)
        while edges := [(u, v) for u in E for v in E[u] if u < v]:
            u, v = min(edges, key=order)
            w = rule.weight(E[u][v][0])
            if not (w > threshold if strict else w >= threshold):  # line 2
                break
            uv = num_nodes + len(children)  # line 3
            children.append((u, v))
            height.append(w)
            V[uv] = V.pop(u) + V.pop(v)  # line 4
            K = (E[u].keys() | E[v].keys()) - {u, v}  # line 5
            new = {}
            for k in K:  # line 6
                if k in E[u] and k in E[v]:  # line 7
                    new[k] = rule.join(E[u][k][0], E[v][k][0]), max(E[u][k][1], E[v][k][1])  # line 8
                else:  # line 9
                    new[k] = E[u][k] if k in E[u] else E[v][k]  # line 10
                # lines 11-12: end if, end for
            for k in K:  # line 13
                E[k].pop(u, None)
                E[k].pop(v, None)
                E[k][uv] = new[k]
            del E[u], E[v]
            E[uv] = new
            # line 14: end while

    name, assignment = number(V, num_nodes)
    left = {tuple(sorted((name[u], name[v]))): rule.weight(value) for u in E for v, (value, _) in E[u].items()}
    return Merged(assignment, children, height, {(a, b): left[a, b] for a, b in sorted(left)})


def bundle(
    V: dict[int, list[int]], pairs: Pairs, affinity: Sequence[float], chosen: Sequence[int], rule: Rule
) -> dict[tuple[int, int], tuple[Value, int]]:
    """The chosen edges between the clusters that stand now: those of the same two clusters are one."""
    cluster = {node: u for u, nodes in V.items() for node in nodes}
    found: dict[tuple[int, int], list[int]] = {}
    for p in chosen:
        u, v = sorted(cluster[node] for node in pairs[p])
        if u != v:
            found.setdefault((u, v), []).append(p)
    return {uv: (rule.first([affinity[p] for p in ps]), max(map(rank, ps))) for uv, ps in found.items()}


def number(V: dict[int, list[int]], num_nodes: int) -> tuple[dict[int, int], list[int]]:
    """Clusters from 0 by their smallest node, and the cluster of every node."""
    name = {u: i for i, u in enumerate(sorted(V, key=lambda u: min(V[u])))}
    assignment = [0] * num_nodes
    for u, nodes in V.items():
        for node in nodes:
            assignment[node] = name[u]
    return name, assignment


def mutex_watershed(
    pairs: Pairs,
    affinity: Sequence[float],
    num_nodes: int,
    thresholds: Sequence[float],
    stage: Sequence[int] | None = None,
    strict: bool = False,
) -> Merged:
    """Kruskal's algorithm with cannot-link: a negative edge forbids, another one merges. An edge left is the first."""
    children: list[tuple[int, int]] = []
    height: list[float] = []
    V = {i: [i] for i in range(num_nodes)}
    came: list[int] = []
    mutex: set[frozenset[int]] = set()  # pairs of nodes that were forbidden to be of one cluster
    for s, threshold in enumerate(thresholds):
        chosen = [p for p in range(len(pairs)) if (stage[p] if stage else 0) == s]
        for p in sorted(chosen, key=lambda p: (-abs(affinity[p]), rank(p))):
            came.append(p)
            a = affinity[p]
            u, v = sorted(next(u for u in V if node in V[u]) for node in pairs[p])
            if u == v:
                continue
            if a < 0:
                mutex.add(frozenset(pairs[p]))
                continue
            reached = a > threshold if strict else a >= threshold
            if reached and not any(frozenset((i, j)) in mutex for i in V[u] for j in V[v]):
                V[num_nodes + len(children)] = V.pop(u) + V.pop(v)
                children.append((u, v))
                height.append(a)
    assignment = number(V, num_nodes)[1]
    left: dict[tuple[int, int], float] = {}
    for p in came:
        u, v = sorted(assignment[node] for node in pairs[p])
        if u != v:
            left.setdefault((u, v), affinity[p])
    return Merged(assignment, children, height, dict(sorted(left.items())))
