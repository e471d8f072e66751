"""Measures of graphs, and tests of differences, as plain loops over Python numbers."""

from __future__ import annotations

from itertools import combinations, product
from math import comb, inf, sqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Pairs = set[tuple[int, int]]


def undirected(edges: Array) -> Pairs:
    """`[2, E]` -> pairs with the smaller id first, each once, without loops."""
    return {(min(a, b), max(a, b)) for a, b in edges.T.tolist() if a != b}


def hops_from(source: int, pairs: Pairs) -> dict[int, int]:
    """Node -> hops, of all nodes within reach."""
    near: dict[int, set[int]] = {}
    for a, b in pairs:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    found = {source: 0}
    ring = [source]
    while ring:
        ring = sorted({b for a in ring for b in near.get(a, ()) if b not in found})
        found |= {b: max(found.values()) + 1 for b in ring} if ring else {}
    return found


def path_length(nodes: list[int], pairs: Pairs) -> float:
    """Mean hops over all ordered pairs of different nodes that reach each other; NaN of none."""
    hops = [h for a in nodes for b, h in hops_from(a, pairs).items() if a != b]
    return sum(hops) / len(hops) if hops else float("nan")


def components(nodes: list[int], pairs: Pairs) -> list[set[int]]:
    """By first node."""
    found: list[set[int]] = []
    for a in nodes:
        if not any(a in part for part in found):
            found.append(set(hops_from(a, pairs)))
    return found


def spectral_gap(nodes: list[int], pairs: Pairs) -> float:
    """Second smallest eigenvalue of the normalised Laplacian of the first largest component; NaN of one node."""
    largest: list[int] = []
    for part in components(nodes, pairs):
        largest = sorted(part) if len(part) > len(largest) else largest
    if len(largest) < 2:
        return float("nan")
    degree = {a: sum(a in pair for pair in pairs) for a in largest}
    laplacian = np.eye(len(largest))
    for i, j in product(range(len(largest)), repeat=2):
        a, b = largest[i], largest[j]
        if (min(a, b), max(a, b)) in pairs:
            laplacian[i, j] = -1 / sqrt(degree[a] * degree[b])
    return float(np.linalg.eigvalsh(laplacian)[1])


def reach(source: int, k: int, pairs: Pairs, columns: Array, valid: Array, width: int) -> float:
    """sqrt(2 * mean |p - c|^2) over the pixels of the nodes within k hops; `columns [L, P]`, nodes at each level."""
    inside = {a for a, h in hops_from(source, pairs).items() if h <= k}
    own = [p for p in range(len(valid)) if valid[p] and source in columns[:, p].tolist()]
    x = sum(p % width for p in own) / len(own)
    y = sum(p // width for p in own) / len(own)
    seen = [p for p in range(len(valid)) if valid[p] and inside & set(columns[:, p].tolist())]
    return sqrt(2 * sum((p % width - x) ** 2 + (p // width - y) ** 2 for p in seen) / len(seen))


def majority(assignment: Array, target: Array, counted: Array, num_nodes: int) -> list[dict[int, int]]:
    """Of each node: label -> pixels."""
    found: list[dict[int, int]] = [{} for _ in range(num_nodes)]
    for node, label, counts in zip(assignment.tolist(), target.tolist(), counted.tolist(), strict=True):
        if counts:
            found[node][label] = found[node].get(label, 0) + 1
    return found


def best_label(counts: dict[int, int]) -> int | None:
    """The most frequent label, of equals the smallest; None without labels."""
    return min(counts, key=lambda label: (-counts[label], label)) if counts else None


def oracle(counts: list[dict[int, int]]) -> dict[str, float]:
    """Purity, accuracy and mean IoU of giving every node its majority label."""
    labelled = [c for c in counts if c]
    labels = sorted({label for c in labelled for label in c})
    total = sum(sum(c.values()) for c in labelled)
    right = dict.fromkeys(labels, 0)
    given = dict(right)
    true = dict(right)
    for c in labelled:
        best = best_label(c)
        assert best is not None
        right[best] += c[best]
        given[best] += sum(c.values())
        for label, n in c.items():
            true[label] += n
    return {
        "purity": sum(max(c.values()) / sum(c.values()) for c in labelled) / len(labelled),
        "oracle_accuracy": sum(right.values()) / total,
        "oracle_miou": sum(right[k] / (given[k] + true[k] - right[k]) for k in labels) / len(labels),
    }


def homophily(pairs: Pairs, labels: list[int | None]) -> dict[str, float]:
    """Of the pairs whose ends both have a label."""
    known = [(labels[a], labels[b]) for a, b in pairs if labels[a] is not None and labels[b] is not None]
    if not known:
        return {"homophily": float("nan"), "adjusted_homophily": float("nan"), "boundary_edges": float("nan")}
    h = sum(a == b for a, b in known) / len(known)
    ends = [label for pair in known for label in pair]
    chance = sum((ends.count(label) / len(ends)) ** 2 for label in set(ends))
    adjusted = (h - chance) / (1 - chance) if len(set(ends)) > 1 else float("nan")
    return {"homophily": h, "adjusted_homophily": adjusted, "boundary_edges": 1 - h}


# Tests of differences, by counting out what could have been.


def ranks(values: list[float]) -> list[float]:
    """From 1, of equals the mean."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def wilcoxon(differences: list[float]) -> float:
    """Two-sided signed-rank test over all signs; zeros are left out."""
    nonzero = [d for d in differences if d]
    rank = ranks([abs(d) for d in nonzero])
    seen = sum(r for r, d in zip(rank, nonzero, strict=True) if d > 0)
    sums = [sum(r for r, s in zip(rank, signs, strict=True) if s) for signs in product((0, 1), repeat=len(rank))]
    below, above = sum(s <= seen for s in sums), sum(s >= seen for s in sums)
    return min(1.0, 2 * min(below, above) / len(sums))


def sign_flips(differences: list[float]) -> float:
    """Two-sided test of the mean over all signs."""
    seen = abs(sum(differences)) - 1e-9
    flips = product((-1, 1), repeat=len(differences))
    hits = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= seen for signs in flips]
    return sum(hits) / len(hits)


def rank_biserial(differences: list[float]) -> float:
    """The favourable less the unfavourable share of the rank sum."""
    nonzero = [d for d in differences if d]
    rank = ranks([abs(d) for d in nonzero])
    good = sum(r for r, d in zip(rank, nonzero, strict=True) if d > 0)
    return 2 * good / comb(len(rank) + 1, 2) - 1


def closed_bonferroni(p_values: list[float]) -> list[float]:
    """Corrected p-values by the closure principle: the worst Bonferroni value of any family that has the hypothesis."""
    found = []
    for i in range(len(p_values)):
        worst = -inf
        others = [j for j in range(len(p_values)) if j != i]
        for size in range(len(p_values)):
            for more in combinations(others, size):
                family = [p_values[j] for j in (i, *more)]
                worst = max(worst, min(1.0, len(family) * min(family)))
        found.append(worst)
    return found
