"""Plots of a comparison: what is gained, against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graphseg.compare.table import find_measure, printable

__all__ = ["pareto_front", "write_plots"]

PAIRS = (
    ("nodes", "oracle_miou"),
    ("nodes", "explained_variation"),
    ("nodes", "boundary_recall"),
    ("seconds", "oracle_miou"),
    ("seconds", "probe_miou"),
    ("probe_epoch_seconds", "probe_miou"),
)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other beats, by rising x: none has a smaller or equal x and a larger or equal y.

    Args:
        points: (x, y), smaller x and larger y being better. Of equal ones the first counts.
    """
    best, front = float("-inf"), []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return front


def write_plots(records: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Scatter plots with Pareto fronts, `plot_X_Y.png`, for the pairs that were measured.

    Those of other pairs, which an earlier comparison may have left there, are removed.

    Args:
        records: dicts of `construction, measure, mean, low, high`.
        folder: where to.

    Returns:
        The files; none without matplotlib, which comes with the extra `viz`.
    """
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        return []
    from graphseg.plot import PALETTE

    table: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        table.setdefault(str(record["measure"]), {})[str(record["construction"])] = record
    written = []
    for x, y in PAIRS:
        names = [name for name in table.get(x, ()) if name in table.get(y, ())]
        points = [(float(table[x][name]["mean"]), float(table[y][name]["mean"])) for name in names]
        path = folder / f"plot_{x}_{y}.png"
        path.unlink(missing_ok=True)
        if len(points) < 2:
            continue
        figure, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
        front = pareto_front(points)
        ax.plot(*zip(*[points[i] for i in front], strict=True), color="#999999", lw=1, zorder=1)
        for i, (name, point) in enumerate(zip(names, points, strict=True)):
            low, high = table[y][name].get("low"), table[y][name].get("high")
            if low is not None and high is not None:
                ax.plot([point[0]] * 2, [low, high], color=PALETTE[i % len(PALETTE)], lw=1, zorder=2)
            marker = "os^Dv"[i // len(PALETTE) % 5]
            ax.plot(*point, marker, color=PALETTE[i % len(PALETTE)], ms=7, mec="white", mew=0.7, label=str(i), zorder=3)
        if min(p[0] for p in points) > 0 and max(p[0] for p in points) > 20 * min(p[0] for p in points):
            ax.set_xscale("log")
        ax.set(xlabel=_label(x), ylabel=_label(y))
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        legend = ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
        for text, name in zip(legend.get_texts(), names, strict=True):  # whatever it begins with, and no formulas
            text.set_parse_math(False)
            text.set_text(printable(name))
        written.append(path)
        try:
            figure.savefig(path, dpi=130)
        finally:
            plt.close(figure)
    return written


def _label(name: str) -> str:
    measure = find_measure(name)
    return f"{measure.label} [{measure.unit}]" if measure.unit in ("s", "px", "hops", "B") else measure.label
