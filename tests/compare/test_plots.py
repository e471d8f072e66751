"""Plots: the Pareto front beside trying all pairs, one picture for each pair of measures, and names as they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from graphseg.compare.plots import PAIRS, pareto_front, write_plots
from graphseg.compare.table import MEASURES

VALUES = st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=False, allow_infinity=False))
Points = list[tuple[float, float]]


def records(names: list[str], *measures: str, spread: bool = True) -> list[dict[str, Any]]:
    found = []
    for measure in measures:
        for k, name in enumerate(names):
            mean = 10.0 ** (k + 1) if measure == "nodes" else 0.3 + 0.1 * k
            low, high = (mean * 0.9, mean * 1.1) if spread else (None, None)
            found.append(
                {"construction": name, "measure": measure, "mean": mean, "std": None, "low": low, "high": high}
            )
    return found


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """No worse in both, better in one."""
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(st.lists(st.tuples(VALUES, VALUES), max_size=30))
def test_the_front_is_what_no_other_beats(points: Points) -> None:
    front = pareto_front(points)
    expected = [
        i
        for i, point in enumerate(points)
        if not any(beats(other, point) for other in points) and point not in points[:i]
    ]
    assert sorted(front) == expected
    xs = [points[i][0] for i in front]
    assert xs == sorted(set(xs))


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(points: Points, random: Any) -> None:
    shuffled = random.sample(points, len(points))
    assert [points[i] for i in pareto_front(points)] == [shuffled[i] for i in pareto_front(shuffled)]


def test_a_front_of_nothing_and_of_one() -> None:
    assert pareto_front([]) == []
    assert pareto_front([(3.0, 1.0)]) == [0]
    assert pareto_front([(1.0, 2.0), (1.0, 2.0), (0.0, 2.0), (0.0, 2.0)]) == [2]


def test_pairs_are_of_measures_that_there_are() -> None:
    assert {name for pair in PAIRS for name in pair} <= set(MEASURES)
    assert {("nodes", "oracle_miou"), ("seconds", "probe_miou")} <= set(PAIRS)


@pytest.mark.parametrize(
    ("measures", "want"),
    [
        (("nodes",), set()),
        (("nodes", "seconds"), set()),
        (("nodes", "oracle_miou"), {"plot_nodes_oracle_miou.png"}),
        (
            ("nodes", "seconds", "oracle_miou", "probe_miou"),
            {"plot_nodes_oracle_miou.png", "plot_seconds_oracle_miou.png", "plot_seconds_probe_miou.png"},
        ),
    ],
)
def test_a_picture_for_each_pair_that_was_measured(measures: tuple[str, ...], want: set[str], tmp_path: Path) -> None:
    written = write_plots(records(["a", "b", "c"], *measures), tmp_path)
    assert {path.name for path in written} == want == {path.name for path in tmp_path.iterdir()}
    for path in written:
        with Image.open(path) as picture:
            assert picture.format == "PNG" and len(picture.convert("L").getcolors() or range(999)) > 10


@pytest.mark.parametrize("names", [[], ["a"]])
def test_one_construction_is_no_plot(names: list[str], tmp_path: Path) -> None:
    assert write_plots(records(names, "nodes", "oracle_miou"), tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_only_constructions_that_have_both_measures(tmp_path: Path) -> None:
    some = records(["a", "b"], "nodes") + records(["b", "c"], "oracle_miou")
    assert write_plots(some, tmp_path) == []
    assert len(write_plots([*some, *records(["c"], "nodes")], tmp_path)) == 1


def test_pictures_of_an_earlier_comparison_are_removed(tmp_path: Path) -> None:
    write_plots(records(["a", "b"], "nodes", "seconds", "oracle_miou", "probe_miou"), tmp_path)
    own = tmp_path / "plot_of_mine.png"
    own.write_bytes(b"mine")
    write_plots(records(["a", "b"], "nodes", "oracle_miou"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"plot_nodes_oracle_miou.png", "plot_of_mine.png"}


def test_without_matplotlib_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert write_plots(records(["a", "b"], "nodes", "oracle_miou"), tmp_path) == []
    assert not list(tmp_path.iterdir())


HOSTILE = ["<b>", "two\nlines", "a/b", "$\\frac$", "$x$", "_hidden", "\x07bell", "\udcff", "%s {0}"]


@pytest.mark.parametrize("spread", [True, False])
def test_names_are_names(spread: bool, tmp_path: Path) -> None:
    (path,) = write_plots(records(HOSTILE, "nodes", "oracle_miou", spread=spread), tmp_path)
    assert path.parent == tmp_path and path.stat().st_size > 1000


def test_names_in_the_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    seen: list[list[str]] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *_, **__: seen.append([t.get_text() for t in self.axes[0].get_legend().texts])
    )
    write_plots(records(HOSTILE, "nodes", "oracle_miou"), tmp_path)
    assert seen == [["<b>", "two\\nlines", "a/b", "$\\frac$", "$x$", "_hidden", "\\x07bell", "\\udcff", "%s {0}"]]


def test_many_constructions_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    looks: list[Any] = []

    def look(self: Figure, *_: object, **__: object) -> None:
        points = [line for line in self.axes[0].lines if line.get_marker() not in ("None", "")]
        looks.extend(
            (line.get_marker(), str(line.get_color()), float(np.asarray(line.get_xdata())[0])) for line in points
        )

    monkeypatch.setattr(Figure, "savefig", look)
    write_plots(records([f"construction {k}" for k in range(19)], "nodes", "oracle_miou", spread=False), tmp_path)
    assert len(looks) == 19 == len({look[:2] for look in looks})
    assert [look[2] for look in looks] == [10.0 ** (k + 1) for k in range(19)]
