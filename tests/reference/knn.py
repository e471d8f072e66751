"""Nearest neighbours as plain loops over Python floats."""

from __future__ import annotations

from collections.abc import Sequence


def squared_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Differences squared, padded with zeros to a power of two, summed by repeated halving."""
    s = [(p - q) * (p - q) for p, q in zip(a, b, strict=True)]
    while len(s) & (len(s) - 1):
        s.append(0.0)
    while len(s) > 1:
        h = len(s) // 2
        s = [s[i] + s[h + i] for i in range(h)]
    return s[0]


def neighbours(
    points: Sequence[Sequence[float]],
    clouds: Sequence[int],
    *,
    k: int | None = None,
    r: float | None = None,
    loop: bool = False,
) -> list[tuple[int, int, float]]:
    """(neighbour, centre, squared distance) by centre, then (squared distance, neighbour); the first k, within r."""
    edges = []
    for i, centre in enumerate(points):
        found = [
            (squared_distance(p, centre), j)
            for j, p in enumerate(points)
            if clouds[j] == clouds[i] and (loop or j != i)
        ]
        if r is not None:
            found = [(d, j) for d, j in found if d <= r * r]
        edges += [(j, i, d) for d, j in sorted(found)[:k]]
    return edges
