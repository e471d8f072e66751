"""The comparison: what it finds is what its parts find, it goes on where it stopped, and nothing spoils the rest."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch_geometric.data import Data

from graphseg.compare import (
    ProbeOptions,
    compare,
    compare_all,
    measure_graph,
    probe,
    probe_splits,
    summarize,
)
from graphseg.compare.table import MEASURES
from graphseg.data import ImageGraph
from graphseg.datasets import ImageFolder, ImageGraphDataset, ImageReader
from graphseg.transforms import RandomImageFlip, ToKNNGraph, ToPixelGrid, ToSuperpixelRAG
from tests.conftest import ROOT
from tests.datasets.small_trees import (
    DAMAGE,
    HEIGHT,
    IGNORE,
    NUM_CLASSES,
    WIDTH,
    Noted,
    classes,
    numbers,
    photo,
    read_tree,
    write_image,
    write_pair,
    write_tree,
)

LABELS: dict[str, Any] = {"num_classes": NUM_CLASSES, "ignore_index": IGNORE}
RAG = ToSuperpixelRAG(20, **LABELS)
KNN = ToKNNGraph(3, "position", 12, **LABELS)
GRID = ToPixelGrid(4, **LABELS)
TINY = ProbeOptions(steps=3, seeds=2, folds=2, pixels=256)
TIMES = {"seconds", "probe_epoch_seconds"}
OF_LABELS = {name for name, entry in MEASURES.items() if entry.group in ("labels", "probe")}
OF_LABELS |= {"homophily", "adjusted_homophily", "boundary_edges"}
KEYS = ["construction", "measure", "mean", "std", "low", "high", "count"]

Row = dict[str, Any]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four images with masks."""
    return write_tree(tmp_path / "tree", 4)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots, which take most of the time."""
    monkeypatch.setattr("graphseg.compare.plots.write_plots", lambda *_: [])


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page."""
    monkeypatch.setattr("graphseg.compare.run.write_report", lambda *_, **__: None)


def timeless(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Rows or records without times; as text, in which NaN is like NaN, and the order of keys counts."""
    kept = [row for row in found if row.get("measure") not in TIMES]
    return [json.dumps({key: value for key, value in row.items() if key not in TIMES}) for row in kept]


def texts(found: Iterable[Mapping[str, Any]]) -> list[str]:
    return [json.dumps(row) for row in found]


def given(count: int = 2, mask: bool = True) -> list[Data]:
    """Images in memory."""
    found = []
    for k in range(count):
        image = photo(k)
        data = Data(image=torch.from_numpy(image).movedim(-1, 0), source=f"photo {k}")
        if mask:
            data.mask = torch.from_numpy(classes(image)).long()
        found.append(data)
    return found


def only_rag(images: Any, folder: Path | None, transform: Any = RAG, **options: Any) -> Any:
    """A comparison of one construction, without what is drawn."""
    options = {"probing": False, "num_pictures": 0, **options}
    return compare(images, {"rag": transform}, out=folder, **options)


# What is found


def test_rows_are_the_measures_of_each_graph_and_records_their_summary(tree: Path, tmp_path: Path) -> None:
    reader = read_tree(tree)
    constructions = {"grid": GRID, "rag": RAG}
    found = compare(reader, constructions, probing=False, seed=3)
    rows = []
    for name, transform in constructions.items():
        for data in reader:
            measures = measure_graph(transform(data), data, ignore_index=IGNORE, seed=3)
            rows.append({"construction": name, "image": data.source, **measures})
    assert timeless({k: v for k, v in row.items() if k not in ("split", "bytes_disk")} for row in found.rows) == texts(
        rows
    )
    assert texts(found.records) == texts(summarize(found.rows))
    by_name = {(record["construction"], record["measure"]): record for record in found.records}
    nodes = [row["nodes"] for row in rows[4:]]
    assert by_name["grid", "nodes"]["mean"] == HEIGHT * WIDTH and by_name["grid", "purity"]["mean"] == 1
    assert by_name["rag", "nodes"]["mean"] == np.mean(nodes)
    assert by_name["rag", "nodes"]["std"] == pytest.approx(np.std(nodes, ddof=1))
    assert all(row["seconds"] > 0 for row in found.rows)
    assert {record["count"] for record in found.records} == {4}
    # On disk a graph takes what a dataset of graphs says that it takes, but for strings.
    dataset = ImageGraphDataset.build(reader, tmp_path / "built", RAG, progress=False)
    assert by_name["rag", "bytes_disk"]["mean"] == pytest.approx(dataset.stats().bytes.mean, rel=0.1)
    assert found.comparisons == [
        pair
        for name in ("oracle_miou", "boundary_recall", "explained_variation")
        for pair in compare_all(found.rows, name)
    ]
    assert all("rag" in pair["sentence"] and "grid" in pair["sentence"] for pair in found.comparisons)


def test_pandas_takes_the_records() -> None:
    pandas = pytest.importorskip("pandas")
    found = compare(given(), {"rag": RAG}, probing=False, ignore_index=IGNORE)
    frame = pandas.DataFrame(found.records)
    assert list(frame.columns) == KEYS and len(frame) == len(found.records)
    assert all(frame[key].dtype.kind == "f" for key in ("mean", "std", "low", "high"))
    wide = frame.pivot(index="construction", columns="measure", values="mean")
    assert wide.loc["rag", "nodes"] == np.mean([row["nodes"] for row in found.rows])


def test_a_list_a_folder_and_a_reader_of_the_same_images_give_the_same(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, 2)
    bare = {"rag": ToSuperpixelRAG(20), "grid": ToPixelGrid()}
    options: Row = {"probing": TINY, "ignore_index": IGNORE}
    names = [f"{k:03d}" for k in range(2)]
    listed = given()
    for data, name in zip(listed, names, strict=True):
        data.source = name
    found = [
        compare(listed, bare, **options),
        compare(tree / "images", bare, labels=tree / "masks", **options),
        compare(str(tree / "images"), bare, labels=str(tree / "masks"), num_classes=NUM_CLASSES, **options),
        compare(read_tree(tree), {"rag": RAG, "grid": GRID}, **options),
    ]
    for one in found[1:]:
        assert timeless(one.rows) == timeless(found[0].rows)
        assert timeless(one.records) == timeless(found[0].records)
    assert {"probe_miou", "oracle_miou"} <= {record["measure"] for record in found[0].records}
    assert [set(data.keys()) for data in listed] == [{"image", "source", "mask"}] * 2  # nothing was added


def test_images_in_memory_without_names_are_numbered() -> None:
    images = given(3)
    for data in images:
        del data.source
    found = compare(images, {"rag": RAG}, probing=False, ignore_index=IGNORE)
    assert [row["image"] for row in found.rows] == ["0", "1", "2"]


class Recipes:
    """A construction that notes the labels it was told of."""

    def __init__(self) -> None:
        self.seen: list[tuple[int | None, int | None]] = []

    def wrap(self, transform: ToSuperpixelRAG) -> ToSuperpixelRAG:
        notes = self.seen

        class Told(ToSuperpixelRAG):
            def forward(self, data: Data) -> ImageGraph:
                notes.append((self.num_classes, self.ignore_index))
                return super().forward(data)

        return Told(20, num_classes=transform.num_classes, ignore_index=transform.ignore_index)


@pytest.mark.parametrize(
    ("own", "images", "want"),
    [
        ({}, {"num_classes": 3, "ignore_index": IGNORE}, (3, IGNORE)),
        ({}, {"ignore_index": IGNORE}, (3, IGNORE)),
        ({}, {"num_classes": 300}, (300, None)),
        ({"num_classes": 9}, {"ignore_index": IGNORE}, (9, IGNORE)),
        ({"ignore_index": IGNORE}, {}, (256, IGNORE)),
        ({"num_classes": 9, "ignore_index": 255}, {"num_classes": 3, "ignore_index": IGNORE}, (9, 255)),
    ],
)
def test_transforms_get_the_labels_they_were_not_given(own: Row, images: Row, want: tuple[int, int | None]) -> None:
    notes = Recipes()
    transform = notes.wrap(ToSuperpixelRAG(20, **own))
    found = compare(given(1), {"rag": transform}, probing=False, **images)
    assert set(notes.seen) == {want} and "error" not in found.rows[0]
    assert (transform.num_classes, transform.ignore_index) == (own.get("num_classes"), own.get("ignore_index"))


def test_an_image_of_ignored_pixels_only_counts_for_nothing() -> None:
    images = given(3)
    images[1].mask[:] = IGNORE
    found = compare(images, {"rag": ToSuperpixelRAG(20)}, probing=TINY, ignore_index=IGNORE)
    counts = {record["measure"]: record["count"] for record in found.records}
    assert (counts["nodes"], counts["purity"], counts["oracle_miou"]) == (3, 2, 2)
    assert not any("error" in row for row in found.rows)
    assert np.isnan(found.rows[1]["purity"])


def test_without_labels_their_measures_fall_away(tmp_path: Path) -> None:
    found = compare(given(mask=False), {"rag": RAG}, out=tmp_path / "out", num_pictures=1)
    measures = {record["measure"] for record in found.records}
    assert not measures & OF_LABELS
    assert {"seconds", "nodes", "bytes_disk", "explained_variation", "components", "path_length", "reach_3"} <= measures
    assert found.notes == ["No probe: the images have no labels of classes."]
    assert found.notes[0] in (tmp_path / "out" / "report.html").read_text()
    labelled = compare(given(), {"rag": RAG}, probing=False, ignore_index=IGNORE)
    size = {"bytes_memory", "bytes_disk"}  # labels take room
    for a, b in zip(found.rows, labelled.rows, strict=True):
        assert {k: a[k] for k in measures - TIMES - size} == {k: b[k] for k in measures - TIMES - size}
        assert all(a[k] < b[k] for k in size)


# The probe


def by_hand(images: Sequence[Data], transform: Any, splits: Any, budget: ProbeOptions, seed: int) -> Any:
    return probe(
        [transform(data) for data in images],
        splits,
        **LABELS,
        seeds=[seed + s for s in range(budget.seeds)],
        steps=budget.steps,
        pixels=budget.pixels,
    )


def assert_probed(found: Any, name: str, images: Sequence[Data], result: Any) -> None:
    """A comparison's rows and records of one construction are those of a probe."""
    rows = {row["image"]: row for row in found.rows if row["construction"] == name}
    expected = {images[row["image"]].source: row for row in result.rows()}
    assert {image for image, row in rows.items() if "probe_image_miou" in row} == set(expected)
    for image, row in expected.items():
        for measure in ("probe_image_miou", "probe_image_accuracy"):
            assert rows[image][measure] == row[measure]
    records = {r["measure"]: r for r in found.records if r["construction"] == name}
    for measure in ("probe_miou", "probe_accuracy"):
        values = result.scores()[measure].numpy()
        assert records[measure]["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert records[measure]["std"] == pytest.approx(values.std(ddof=1), rel=1e-9, abs=1e-15)
        assert records[measure]["count"] == len(values)
    assert records["probe_image_miou"]["count"] == len(expected)
    assert records["probe_epoch_seconds"]["mean"] > 0


def test_the_probe_is_that_of_the_graphs(tree: Path) -> None:
    images = list(read_tree(tree))
    found = compare(read_tree(tree), {"rag": RAG, "knn": KNN}, probing=TINY, seed=5)
    splits = probe_splits([""] * 4, TINY.folds, 5)
    for name, transform in {"rag": RAG, "knn": KNN}.items():
        assert_probed(found, name, images, by_hand(images, transform, splits, TINY, 5))
    how, floor = found.notes
    assert how.startswith(f"The probe: {len(splits)}-fold cross-validation over 4 images, {TINY.steps} steps")
    assert floor.startswith("The most frequent class everywhere would score mIoU ")
    tested = {pair["measure"] for pair in found.comparisons}
    assert "probe_image_miou" in tested
    (pair,) = (pair for pair in found.comparisons if pair["measure"] == "probe_image_miou")
    assert (pair["a"], pair["b"], pair["count"]) == ("rag", "knn", 4)


def test_the_probe_heeds_splits(tree: Path) -> None:
    reader = read_tree(tree)
    splits = ["val", "train", "train", "val"]
    reader.samples = [dataclasses.replace(s, split=split) for s, split in zip(reader.samples, splits, strict=True)]
    found = compare(reader, {"rag": RAG}, probing=TINY)
    assert [row["split"] for row in found.rows] == splits
    assert_probed(found, "rag", list(reader), by_hand(list(reader), RAG, [([1, 2], [0, 3])], TINY, 0))


def test_the_probe_takes_so_many_images_the_same_for_all(tree: Path) -> None:
    budget = dataclasses.replace(TINY, images=2)
    found = compare(read_tree(tree), {"rag": RAG, "knn": KNN}, probing=budget, seed=1)
    part = {
        name: [row["image"] for row in found.rows if row["construction"] == name and "probe_image_miou" in row]
        for name in ("rag", "knn")
    }
    assert part["rag"] == part["knn"] and len(part["rag"]) == 2
    images = [data for data in read_tree(tree) if data.source in part["rag"]]
    assert_probed(found, "rag", images, by_hand(images, RAG, probe_splits(["", ""], 2, 1), budget, 1))


@pytest.mark.parametrize(
    ("images", "options", "note"),
    [
        (given(1), {"ignore_index": IGNORE}, "got 1 images with labels and graphs, expected at least 2"),
        (given(2, mask=False), {"num_classes": 3}, "got 0 images with labels"),
        (given(2, mask=False), {}, "the images have no labels of classes"),
    ],
)
def test_why_there_is_no_probe(images: list[Data], options: Row, note: str) -> None:
    found = compare(images, {"rag": RAG}, **options)
    assert len(found.notes) == 1 and note in found.notes[0]
    assert not any(record["measure"].startswith("probe") for record in found.records)


def test_one_class_is_nothing_to_learn() -> None:
    images = given()
    for data in images:
        data.mask[:] = 0
    assert compare(images, {"rag": RAG}).notes == ["No probe: got 1 class, expected at least 2."]


def test_a_probe_that_fails_is_noted_and_the_others_go_on(tree: Path) -> None:
    found = compare(read_tree(tree), {"rag": RAG, "no features": without_features, "knn": KNN}, probing=TINY)
    (note,) = (note for note in found.notes if note.startswith("No probe of"))
    assert note.startswith("No probe of no features: got ")
    probed = {r["construction"] for r in found.records if r["measure"] == "probe_miou"}
    assert probed == {"rag", "knn"}
    alone = compare(read_tree(tree), {"rag": RAG, "knn": KNN}, probing=TINY)
    assert timeless(r for r in found.rows if r["construction"] != "no features") == timeless(alone.rows)


def without_features(data: Data) -> ImageGraph:
    graph = RAG(data)
    del graph["x"]
    return graph


# Going on


@pytest.mark.usefixtures("unreported")
def test_an_interrupted_comparison_goes_on_where_it_stopped(tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    undisturbed = only_rag(read_tree(tree), tmp_path / "undisturbed", probing=TINY)
    with pytest.raises(KeyboardInterrupt):
        only_rag(read_tree(tree), out, Noted(log, {2: "interrupt"}), probing=TINY)
    assert set(numbers(log)) == {0, 1, 2}
    assert not (out / "results.json").exists()
    found = only_rag(read_tree(tree), out, Noted(log))
    calls = numbers(log)
    assert set(calls) == {2, 3} and len(calls) <= 3  # one call more, at most, compiles
    assert timeless(found.rows) == timeless(only_rag(read_tree(tree), None, Noted()).rows)
    assert timeless(only_rag(read_tree(tree), out, Noted(log), probing=TINY).records) == timeless(undisturbed.records)
    assert set(numbers(log)) == {0, 1, 2, 3}  # the probe, which had not been
    again = only_rag(read_tree(tree), out, Noted(log), probing=TINY)
    assert numbers(log) == []
    assert timeless(again.records) == timeless(undisturbed.records)
    assert timeless(again.rows) == timeless(undisturbed.rows)


def test_a_killed_comparison_goes_on_where_it_stopped(tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    script = f"""
from pathlib import Path
from graphseg.compare import compare
from tests.datasets.small_trees import Noted, read_tree
rag = Noted(Path({str(log)!r}), {{3: "kill"}})
compare(read_tree(Path({str(tree)!r})), {{"rag": rag}}, out={str(out)!r}, probing=False)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert set(numbers(log)) == {0, 1, 2, 3}
    found = only_rag(read_tree(tree), out, Noted(log))
    assert set(numbers(log)) == {3}
    assert timeless(found.records) == timeless(only_rag(read_tree(tree), None, Noted()).records)


def test_what_is_kept_is_kept_whole(tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    first = only_rag(read_tree(tree), out, Noted(log))
    numbers(log)
    again = only_rag(read_tree(tree), out, Noted(log))
    assert numbers(log) == []
    assert texts(again.rows) == texts(first.rows)  # times as well
    assert texts(again.records) == texts(first.records)


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("torn", ["half", "no newline", "rubbish", "other json"])
def test_a_torn_last_line_is_measured_again(torn: str, tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    first = only_rag(read_tree(tree), out, Noted(log))
    numbers(log)
    kept = out / "measures.jsonl"
    whole = kept.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    end = {
        "half": whole[last : last + 90],
        "no newline": whole[last:-1],
        "rubbish": b"\xff\x00{",
        "other json": b"[1]\n",
    }
    kept.write_bytes(whole[:last] + end[torn])
    for _ in range(2):
        found = only_rag(read_tree(tree), out, Noted(log))
        assert timeless(found.rows) == timeless(first.rows)
    assert set(numbers(log)) == (set() if torn == "no newline" else {3})


def write_other(tree: Path, part: str) -> None:
    pixels = photo(2)
    if part == "images":
        pixels[20:, 20:] = 9
        write_image(tree / "images" / "002.png", pixels)
    else:
        write_image(tree / "masks" / "002.png", np.roll(classes(pixels), 5, 0))


CHANGES: dict[str, tuple[Callable[[Path], None], Row, Row, set[int]]] = {
    "nothing": (lambda tree: None, {}, {}, set()),
    "an image": (lambda tree: write_other(tree, "images"), {}, {}, {2}),
    "a mask": (lambda tree: write_other(tree, "masks"), {}, {}, {2}),
    "another image": (lambda tree: write_pair(tree, "004", 4), {}, {}, {4}),
    "a parameter": (lambda tree: None, {"num_segments": 12}, {}, {0, 1, 2, 3}),
    "the seed": (lambda tree: None, {}, {"seed": 1}, {0, 1, 2, 3}),
    "the name": (lambda tree: (tree / "images" / "001.png").touch(), {}, {}, set()),
}


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_measured_again(change: str, tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    only_rag(read_tree(tree), out, Noted(log))
    numbers(log)
    alter, parameters, options, missing = CHANGES[change]
    alter(tree)
    found = only_rag(read_tree(tree), out, Noted(log, **parameters), **options)
    assert set(numbers(log)) == missing
    anew = only_rag(read_tree(tree), tmp_path / "anew", Noted(**parameters), **options)
    assert timeless(found.rows) == timeless(anew.rows)


@pytest.mark.usefixtures("undrawn")
def test_another_construction_is_measured_alone(tree: Path, tmp_path: Path) -> None:
    logs, out = [tmp_path / "one", tmp_path / "two"], tmp_path / "out"
    one, two = Noted(logs[0]), Noted(logs[1], num_segments=8)
    options: Row = {"out": out, "probing": TINY, "num_pictures": 0}
    compare(read_tree(tree), {"one": one}, **options)
    numbers(logs[0])
    found = compare(read_tree(tree), {"two": two, "one": one}, **options)
    assert numbers(logs[0]) == [] and set(numbers(logs[1])) == {0, 1, 2, 3}
    anew = compare(read_tree(tree), {"two": two, "one": one}, probing=TINY)
    assert timeless(found.rows) == timeless(anew.rows)
    assert timeless(found.records) == timeless(anew.records)
    numbers(logs[0])
    fewer = compare(read_tree(tree), {"one": one}, **options)
    assert numbers(logs[0]) == [] and {row["construction"] for row in fewer.rows} == {"one"}
    assert {r["construction"] for r in json.loads((out / "results.json").read_text())} == {"one"}


@pytest.mark.usefixtures("unreported")
def test_images_and_constructions_under_other_names(tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    before = only_rag(read_tree(tree), out, Noted(log), probing=TINY)
    numbers(log)
    for part in ("images", "masks"):
        (tree / part / "000.png").rename(tree / part / "900.png")
    after = compare(read_tree(tree), {"other": Noted(log)}, out=out, probing=TINY, num_pictures=0)
    assert [row["image"] for row in after.rows] == ["001", "002", "003", "900"]
    assert all("probe_image_miou" in row for row in after.rows)
    nodes = {row["image"]: row["nodes"] for row in before.rows}
    assert [row["nodes"] for row in after.rows] == [nodes[name] for name in ("001", "002", "003", "000")]


@pytest.mark.usefixtures("unreported")
def test_the_probe_is_kept_for_its_own_options_only(tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    only_rag(read_tree(tree), out, Noted(log), probing=TINY)
    numbers(log)
    for budget in (TINY, dataclasses.replace(TINY, images=2)):
        found = only_rag(read_tree(tree), out, Noted(log), probing=budget)
        assert bool(numbers(log)) == (budget != TINY)
        assert timeless(found.records) == timeless(only_rag(read_tree(tree), None, Noted(), probing=budget).records)
    reader = read_tree(tree)
    reader.samples = [dataclasses.replace(s, split="train" if k else "val") for k, s in enumerate(reader.samples)]
    found = only_rag(reader, out, Noted(log), probing=TINY)
    assert numbers(log) and [("probe_image_miou" in row) for row in found.rows] == [True, False, False, False]


def test_one_process_at_a_time_in_a_folder(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    out.mkdir()
    found = []
    lock = FileLock(out / "build.lock")
    with lock:
        thread = threading.Thread(target=lambda: found.append(only_rag(read_tree(tree), out, Noted(log))))
        thread.start()
        said, patience = "", time.monotonic() + 120
        while "waiting for another process" not in said and time.monotonic() < patience:
            time.sleep(0.02)
            said += capsys.readouterr().out
        assert str(out) in said
        assert not log.exists() and not (out / "measures.jsonl").exists()
    thread.join(120)
    assert set(numbers(log)) == {0, 1, 2, 3} and len(found[0].rows) == 4


# What goes wrong


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("raise", "RuntimeError: no luck today"),
        ("other", "got Data from the construction, expected an ImageGraph"),
    ],
)
def test_a_construction_that_fails_on_one_image(trouble: str, reason: str, tree: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    failing = Noted(log, {1: trouble})
    found = compare(read_tree(tree), {"bad": failing, "grid": GRID}, out=out, probing=TINY, num_pictures=4)
    errors = [row for row in found.rows if "error" in row]
    assert errors == [{"construction": "bad", "image": "001", "split": "", "error": reason}]
    page = html.unescape((out / "report.html").read_text())
    assert reason in page
    counts = {(r["construction"], r["measure"]): r["count"] for r in found.records}
    assert counts["bad", "nodes"] == 3 and counts["grid", "nodes"] == 4
    probed = [row["image"] for row in found.rows if "probe_image_miou" in row]
    assert probed == ["000", "002", "003"] * 2  # the same for both
    # What failed is tried again, and nothing else.
    numbers(log)
    mended = compare(read_tree(tree), {"bad": Noted(log), "grid": GRID}, out=out, probing=False, num_pictures=0)
    assert set(numbers(log)) == {1}
    anew = compare(read_tree(tree), {"bad": Noted(), "grid": GRID}, probing=False)
    assert timeless(mended.rows) == timeless(anew.rows)


@pytest.mark.usefixtures("undrawn")
def test_a_construction_that_fails_everywhere(tree: Path, tmp_path: Path) -> None:
    failing = Noted(trouble=dict.fromkeys(range(4), "raise"))
    out = tmp_path / "out"
    found = compare(read_tree(tree), {"bad": failing, "rag": RAG}, out=out, probing=TINY, num_pictures=2)
    assert [row.get("error") for row in found.rows] == ["RuntimeError: no luck today"] * 4 + [None] * 4
    alone = compare(read_tree(tree), {"rag": RAG}, probing=TINY)
    assert timeless(found.rows[4:]) == timeless(alone.rows)
    assert timeless(found.records) == timeless(alone.records)
    assert "no luck today" in (out / "report.html").read_text()
    with open(out / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == ["RuntimeError: no luck today"] * 4 + [""] * 4


def test_when_everything_fails(tree: Path, tmp_path: Path) -> None:
    failing = Noted(trouble=dict.fromkeys(range(4), "raise"))
    found = compare(read_tree(tree), {"bad": failing}, out=tmp_path / "out", probing=TINY)
    assert found.records == [] and found.comparisons == [] and len(found.rows) == 4
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == []
    assert "no luck today" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["text", "mask of another size", "no mask"])
def test_files_that_do_not_open(kind: str, tree: Path, tmp_path: Path) -> None:
    DAMAGE[kind](tree, "002", np.random.default_rng(0))
    found = compare(read_tree(tree), {"rag": RAG, "knn": KNN}, out=tmp_path / "out", probing=TINY, num_pictures=4)
    if kind == "no mask":
        note = found.notes[0]
        assert "002.png: got an image without its mask" in note and len(found.rows) == 6
    else:
        errors = [row for row in found.rows if "error" in row]
        assert [(row["construction"], row["image"]) for row in errors] == [("rag", "002"), ("knn", "002")]
        assert all("002.png" in row["error"] for row in errors)
    assert {record["count"] for record in found.records if record["measure"] == "probe_image_miou"} == {3}
    assert "002.png" in (tmp_path / "out" / "report.html").read_text()


# Refused before any work


class Flipped(ImageReader):
    """A reader that never opens a file."""

    def __init__(self, **options: Any) -> None:
        super().__init__([], **options)

    def read(self, sample: Any) -> Data:
        raise AssertionError("work has begun")


def never(data: Data) -> ImageGraph:
    raise AssertionError("work has begun")


REFUSED: dict[str, tuple[Any, Any, Row, type[Exception], str]] = {
    "no constructions": (given(), {}, {}, ValueError, "got no constructions, expected at least one"),
    "a list of them": (given(), [RAG], {}, TypeError, "got list for constructions, expected names"),
    "a number": (given(), {"a": 3}, {}, TypeError, "got int for construction 'a', expected a transform"),
    "a class": (given(), {"a": ToPixelGrid}, {}, TypeError, "got the class ToPixelGrid for construction 'a'"),
    "random": (
        given(),
        {"a": RandomImageFlip()},
        {},
        TypeError,
        "got RandomImageFlip for construction 'a', expected",
    ),
    "no name": (given(), {"": RAG}, {}, TypeError, "got '' for the name of a construction"),
    "a number as name": (given(), {4: RAG}, {}, TypeError, "got 4 for the name of a construction"),
    "labels beside a list": (given(), {"a": never}, {"labels": "masks"}, ValueError, "got labels='masks' beside list"),
    "other classes": (
        Flipped(num_classes=3),
        {"a": never},
        {"num_classes": 4},
        ValueError,
        "num_classes=4, expected 3",
    ),
    "a transform": (Flipped(transform=RAG), {"a": never}, {}, ValueError, "got a reader with a transform, expected"),
    "no images": ([], {"a": never}, {}, ValueError, "got no images, expected at least one"),
    "tensors": ([torch.zeros(3, 4, 4)], {"a": never}, {}, TypeError, "got Tensor among the images, expected Data"),
    "no workers": (given(), {"a": never}, {"workers": 0}, ValueError, "workers"),
    "half a worker": (given(), {"a": never}, {"workers": 0.5}, TypeError, "workers"),
    "a seed below 0": (given(), {"a": never}, {"seed": -1}, ValueError, "seed"),
    "pictures below 0": (given(), {"a": never}, {"num_pictures": -1}, ValueError, "num_pictures"),
    "no classes": (given(), {"a": never}, {"num_classes": 0}, ValueError, "num_classes"),
    "ignored words": (given(), {"a": never}, {"ignore_index": "255"}, TypeError, "got str for ignore_index"),
    "another probe": (
        given(),
        {"a": never},
        {"probing": 3},
        TypeError,
        "got int for probing, expected a bool or Probe",
    ),
    "a lambda": (given(), {"a": lambda d: RAG(d)}, {"workers": 2}, TypeError, "got construction 'a', which cannot be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_work(case: str, tmp_path: Path) -> None:
    images, constructions, options, error, message = REFUSED[case]
    with pytest.raises(error, match=re.escape(message)):
        compare(images, constructions, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_images_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        compare(tmp_path / "nowhere", {"rag": RAG}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["images", "steps", "seeds", "folds", "pixels"])
def test_a_probe_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ProbeOptions(**{name: 0})
    with pytest.raises(TypeError, match=name):
        ProbeOptions(**dict[str, Any]({name: 2.5}))
    if name in ("images", "folds"):
        with pytest.raises(ValueError, match=f"{name}.*at least 2|at least 2.*{name}"):
            ProbeOptions(**{name: 1})


# Repeating


def test_results_repeat_with_the_seed(tree: Path) -> None:
    first, again, other = (
        compare(read_tree(tree), {"rag": RAG, "grid": GRID}, probing=TINY, seed=seed) for seed in (7, 7, 8)
    )
    assert timeless(first.rows) == timeless(again.rows)
    assert timeless(first.records) == timeless(again.records)
    assert texts(first.comparisons) == texts(again.comparisons)
    assert timeless(first.rows) != timeless(other.rows)
    drawn = {"path_length", "reach_1", "reach_2", "reach_3", "probe_image_miou", "probe_image_accuracy"}
    for a, b in zip(first.rows, other.rows, strict=True):
        assert {key for key in a if a[key] != b[key] and key not in TIMES} <= drawn


@pytest.mark.usefixtures("undrawn")
def test_results_do_not_depend_on_the_number_of_workers(tree: Path, tmp_path: Path) -> None:
    constructions = {
        "bad": Noted(trouble={1: "raise"}),
        "rag": RAG,
        "none": Noted(trouble=dict.fromkeys(range(4), "raise")),
    }
    one, two = (
        compare(read_tree(tree), constructions, out=tmp_path / str(n), probing=TINY, workers=n, num_pictures=2)
        for n in (1, 2)
    )
    assert timeless(one.rows) == timeless(two.rows)
    assert timeless(one.records) == timeless(two.records)
    assert one.notes == two.notes and texts(one.comparisons) == texts(two.comparisons)
    pages = [(tmp_path / str(n) / "report.html").read_text() for n in (1, 2)]
    pictures = [re.findall(r"data:image/\w+;base64,[\w+/=]+", page) for page in pages]
    assert pictures[0] == pictures[1] and len(pictures[0]) >= 2 * 2


# Files


def test_files(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    constructions = {"rag": RAG, "knn": KNN, "grid": GRID}
    command = "graphseg compare photos --out 'my report'"
    found = compare(read_tree(tree), constructions, out=out, probing=TINY, num_pictures=3, command=command)
    records = json.loads((out / "results.json").read_text())
    assert [list(record) for record in records] == [KEYS] * len(records)
    assert records == found.records
    with open(out / "results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [list(line) for line in table] == [KEYS] * len(records)
    for line, record in zip(table, records, strict=True):
        assert (line["construction"], line["measure"]) == (record["construction"], record["measure"])
        for key in KEYS[2:]:
            assert (float(line[key]) if line[key] else None) == record[key]
    with open(out / "images.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["construction"], line["image"]) for line in lines] == [
        (name, f"{k:03d}") for name in constructions for k in range(4)
    ]
    for line, row in zip(lines, found.rows, strict=True):
        numbers = {key: value for key, value in row.items() if isinstance(value, float)}
        assert {key: float(line[key] or "nan") for key in numbers} == pytest.approx(numbers, rel=0, abs=0, nan_ok=True)
    assert json.loads((out / "comparisons.json").read_text()) == found.comparisons
    page = (out / "report.html").read_text()
    text = html.unescape(page)
    assert all(name in text for name in constructions) and command in text and "torch" in text
    assert page.count("data:image/") == 3 * 4  # a photograph and three overlays of each
    written = {path.name for path in out.iterdir() if not path.name.startswith("plot_")}
    assert written == {
        *("results.json", "results.csv", "images.csv", "comparisons.json", "report.html"),
        *("measures.jsonl", "probes.jsonl", "build.lock"),
    }
    assert (out / "plot_nodes_oracle_miou.png").exists() and (out / "plot_seconds_probe_miou.png").exists()


def test_without_a_folder_nothing_is_written(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    before = sorted(tree.rglob("*"))
    assert compare(read_tree(tree), {"rag": RAG}, probing=False).records
    assert sorted(tree.rglob("*")) == before and not list(empty.iterdir())


HOSTILE = (
    "<b>bold</b>",
    "two\nlines",
    "a/b",
    "../../up",
    "$\\frac$",
    "_hidden",
    '"></script><script>alert(1)</script>',
)


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    image = "<i>&amp;" if os.name == "posix" else "&amp;"
    tree = tmp_path / "tree"
    for k, stem in enumerate((image, "b")):
        write_pair(tree, stem, k)
    out = tmp_path / "out" / "in"
    found = compare(read_tree(tree), dict.fromkeys(HOSTILE, RAG), out=out, probing=TINY, num_pictures=2)
    assert tuple(dict.fromkeys(record["construction"] for record in found.records)) == HOSTILE
    assert {row["image"] for row in found.rows} == {image, "b"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tree"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in"]
    assert all(path.is_file() for path in out.iterdir()) and (out / "plot_nodes_oracle_miou.png").exists()
    page = (out / "report.html").read_text()
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert all(name in html.unescape(outside) for name in (*HOSTILE, image))
    assert page.count("</script>") == page.count("<script")
    assert not any(tag in page for tag in ("<i>", "<b>bold", "<script>alert"))
    with open(out / "results.csv", newline="") as file:
        assert {line["construction"] for line in csv.DictReader(file)} == set(HOSTILE)


def test_a_reader_says_its_own(tree: Path) -> None:
    reader = ImageFolder(tree / "images", tree / "masks", num_classes=5, ignore_index=IGNORE)
    part = reader.index_select([2, 0])
    found = compare(part, {"rag": ToSuperpixelRAG(20)}, probing=False)
    assert [row["image"] for row in found.rows] == ["002", "000"]
    same = compare(part, {"rag": ToSuperpixelRAG(20)}, probing=False, num_classes=5, ignore_index=IGNORE)
    assert timeless(found.rows) == timeless(same.rows)
