"""Tables, CSV and JSON: what is written reads back as it was, lines up, and is there whole or not at all."""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphseg.compare import table
from graphseg.compare.table import (
    GROUPS,
    MEASURES,
    column_scale,
    columns,
    find_measure,
    format_table,
    printable,
    write_csv,
    write_json,
)
from graphseg.datasets.whole_file import write_text

written = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
finite = st.floats(min_value=-1e12, max_value=1e12)


def record(construction: str, measure: str, mean: float, half: float | None = None, count: int = 5) -> dict[str, Any]:
    low, high = (None, None) if half is None else (mean - half, mean + half)
    names = {"construction": construction, "measure": measure}
    return {**names, "mean": mean, "std": half, "low": low, "high": high, "count": count}


RECORDS = [
    record("grid", "nodes", 154401.0, 0.0),
    record("grid", "seconds", 0.0345, 0.001),
    record("grid", "oracle_miou", 1.0, 0.0),
    record("SLIC", "nodes", 391.0, 4.0),
    record("SLIC", "seconds", 0.1184, 0.002),
    record("SLIC", "oracle_miou", 0.91234, 0.01),
]


# measures


def test_every_measure_has_a_group_a_unit_and_a_sentence() -> None:
    assert len({measure.label for measure in MEASURES.values()}) == len(MEASURES)
    for name, measure in MEASURES.items():
        assert measure.group in GROUPS[:-1], name
        assert measure.better in ("low", "high", None), name
        assert measure.about.endswith("."), name
        assert measure.unit in ("s", "B", "px", "hops", "share", "count", ""), name


def test_measures_stand_in_the_order_of_groups_and_unknown_ones_last() -> None:
    names = ["mine", "probe_miou", "oracle_miou", "nodes", "seconds", "reach_1", "compactness"]
    found = columns([record("a", name, 1.0) for name in names])
    assert found == {
        "cost": ["seconds", "nodes"],
        "image": ["compactness"],
        "labels": ["oracle_miou"],
        "structure": ["reach_1"],
        "probe": ["probe_miou"],
        "other": ["mine"],
    }
    assert find_measure("my_own_one").label == "my own one"


@pytest.mark.parametrize(
    ("name", "values", "written"),
    [
        ("seconds", [0.003, 0.0451, 1.2], ["3.0", "45.1", "1,200.0"]),  # ms
        ("seconds", [2.0, 31.25, 700.0], ["2.0", "31.2", "700.0"]),  # s
        ("bytes_memory", [40_000, 61_000_000], ["40", "61,000"]),  # kB
        ("bytes_disk", [12, 800], ["12", "800"]),
        ("nodes", [391.0, 154401.0], ["391", "154,401"]),
        ("nodes", [391.25, 154401.0], ["391", "154,401"]),
        ("oracle_miou", [1, 0.91234], ["1.000", "0.912"]),
        ("spectral_gap", [1.04e-5, 0.0312, 0.0], ["1.0e-5", "0.0312", "0.0000"]),
        ("adjusted_homophily", [-0.25, -0.0001], ["-0.250", "0.000"]),
        ("components", [math.nan, None, math.inf, 3.0], ["–", "–", "–", "3"]),
        ("mean_degree", [], []),
    ],
)
def test_numbers_of_a_column(name: str, values: list[float | None], written: list[str]) -> None:
    scale = column_scale(name, values)
    assert [scale.write(value) for value in values] == written


@pytest.mark.parametrize(
    ("name", "values", "unit"),
    [
        ("seconds", [0.003, 2.0], "ms"),
        ("seconds", [2e-6], "µs"),
        ("seconds", [0.0], "s"),
        ("seconds", [1e-9], "µs"),
        ("bytes_memory", [2e9], "GB"),
        ("bytes_memory", [1.0], "B"),
        ("nodes", [3], ""),
        ("purity", [0.5], ""),
        ("path_length", [2.0], "hops"),
    ],
)
def test_unit_of_a_column(name: str, values: list[float], unit: str) -> None:
    assert column_scale(name, values).unit == unit


@given(st.sampled_from(sorted(MEASURES)), st.lists(st.floats(min_value=0, max_value=1e12), min_size=1))
def test_what_is_written_is_the_value(name: str, values: list[float]) -> None:
    scale = column_scale(name, values)
    for value in values:
        read = Fraction(scale.write(value).replace(",", ""))
        exact = Fraction(value * scale.factor)
        half = Fraction(1, 2 * 10**scale.decimals)
        assert abs(read - exact) <= max(half, Fraction(51, 1000) * exact if scale.tiny else 0)


# terminal


def test_table_of_a_few_records() -> None:
    assert format_table(RECORDS).split("\n") == [
        "cost  build time        nodes",
        "            [ms]",
        "-----------------------------",
        "grid       34 ±1*  154,401 ±0",
        "SLIC      118 ±2       391 ±4*",
        "",
        "labels   oracle mIoU",
        "--------------------",
        "grid    1.000 ±0.000*",
        "SLIC    0.912 ±0.010",
    ]


def test_table_breaks_where_it_would_be_too_wide() -> None:
    records = [record(name, measure, 0.5, 0.1) for name in ("a", "b") for measure in MEASURES]
    for width in (40, 80, 200):
        lines = format_table(records, width=width).split("\n")
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        assert all(measure.label in text for measure in MEASURES.values())
    assert len(format_table(records, width=200)) < len(format_table(records, width=40))
    with pytest.raises(ValueError, match="got width=0, expected at least 1"):
        format_table(records, width=0)


def test_table_tells_what_failed_and_why() -> None:
    rows = [{"construction": "SLIC", "image": str(i), "error": "got 1, expected 3"} for i in range(3)]
    rows += [{"construction": "SLIC", "image": "3", "error": "no memory"}, {"construction": "grid", "image": "0"}]
    rows += [{"construction": "other", "image": "0", "error": "all wrong"}]
    text = format_table(RECORDS, rows)
    assert "SLIC failed on 4 of 4 images:\n  3 x got 1, expected 3\n  1 x no memory" in text
    assert "other failed on 1 of 1 images:\n  1 x all wrong" in text
    assert "grid failed" not in text
    assert format_table([]) == ""


def test_unknown_values_are_dashes() -> None:
    found = format_table([record("a", "purity", math.nan), record("b", "purity", 0.5)]).split("\n")
    assert found[-2].split() == ["a", "–"] and found[-1].split() == ["b", "0.500"]  # of one mean none is best


def test_names_cannot_steer_the_terminal() -> None:
    text = format_table([record("a\x1b[31m\nb\t\u202e", "nodes", 1.0)])
    assert "a\\x1b[31m\\nb\\t\\u202e" in text
    assert printable("Straße 日本") == "Straße 日本"
    assert printable("\udcff") == "\\udcff"


def test_wide_letters_line_up() -> None:
    lines = format_table(
        [record("日本", "nodes", 12.0), record("abcd", "nodes", 34.0), record("e\u0301abc", "nodes", 5.0)]
    )
    rows = [line for line in lines.split("\n") if line[:1] in "日ae"]
    ends = [table._wide(row.rstrip("*")) for row in rows]
    assert len(rows) == 3 and len(set(ends)) == 1


# files


def test_records_go_to_json_and_back(tmp_path: Path) -> None:
    records = [*RECORDS, record('"</script>\u2028', "nodes", math.nan), record("ü", "nodes", math.inf)]
    path = tmp_path / "deep" / "results.json"
    write_json(path, records)
    found = json.loads(path.read_text("utf-8"), parse_constant=lambda name: pytest.fail(name))
    assert found[:-2] == RECORDS
    assert found[-2] | {"mean": None, "low": None, "high": None, "std": None} == found[-2]
    assert found[-1]["construction"] == "ü"
    assert len(path.read_text("utf-8").splitlines()) >= len(records) + 2


def test_json_of_numpy_torch_and_nested_values(tmp_path: Path) -> None:
    value = {"a": np.float32(0.5), "b": [torch.tensor(3), np.int64(4), True, None], 5: (1.5, np.nan), "c": {}}
    write_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "a": 0.5,
        "b": [3, 4, True, None],
        "5": [1.5, None],
        "c": {},
    }
    write_json(tmp_path / "x.json", [])
    assert json.loads((tmp_path / "x.json").read_text()) == []


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), finite), max_size=5)
)
def test_csv_reads_back(pairs: list[tuple[str, float]]) -> None:
    rows = [{"construction": name, "mean": value} for name, value in pairs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        write_csv(path, rows)
        with path.open(encoding="utf-8", newline="") as file:
            found = [{**row, "mean": float(row["mean"])} for row in csv.DictReader(file)]
    assert found == rows


def test_csv_has_every_column_and_empty_cells_for_the_unknown(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [{"a": 0.1, "b": math.nan}, {"a": None, "c": 'x,"y"\nz'}])
    assert (tmp_path / "x.csv").read_text() == 'a,b,c\n0.1,,\n,,"x,""y""\nz"\n'
    write_csv(tmp_path / "x.csv", RECORDS)
    with (tmp_path / "x.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{key: str(value) for key, value in row.items()} for row in RECORDS]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_text(path, "old\n")
    with pytest.raises(TypeError):
        write_json(path, [object()])

    def broken(source: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "replace", broken)
        write_text(path, "new\n")
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    write_text(path, "line\nü \udcff\n")
    assert path.read_bytes() == "line\nü \\udcff\n".encode()
