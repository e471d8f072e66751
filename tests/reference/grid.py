"""Edges of regular grids as plain loops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product


def offset_edges(
    size: Sequence[int], offsets: Iterable[Sequence[int]], directed: bool = False
) -> list[tuple[int, int]]:
    """Sorted pairs (p, q), p < q, where q = p + offset or p = q + offset; both orders with `directed`."""
    number = {place: i for i, place in enumerate(product(*(range(n) for n in size)))}
    pairs = set()
    for place, p in number.items():
        for offset in offsets:
            q = number.get(tuple(a + b for a, b in zip(place, offset, strict=True)))
            if q is not None:
                pairs.add((min(p, q), max(p, q)))
                if directed:
                    pairs.add((max(p, q), min(p, q)))
    return sorted(pairs)


def neighbourhood(ndim: int, reach: int) -> list[tuple[int, ...]]:
    """All offsets to neighbours that differ by 1 in at most `reach` coordinates, and in at least one."""
    return [o for o in product((-1, 0, 1), repeat=ndim) if 1 <= sum(c != 0 for c in o) <= reach]
