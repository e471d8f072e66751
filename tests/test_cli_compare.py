"""`graphseg compare`: it finds what the library finds, says how it went, and refuses by name."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_geometric.data import Data

from graphseg.cli import main
from graphseg.compare import ProbeOptions, compare, default_constructions, format_table
from tests.datasets.small_trees import DAMAGE, IGNORE, NUM_CLASSES, read_tree, write_tree

Says = Callable[..., tuple[int, str, str]]
QUICK = ["--constructions", "slic 100 rag", "--no-probe", "--pictures", 0]
TIMES = ("seconds", "probe_epoch_seconds")


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """`says(*words)`: the exit status of `graphseg compare` and what it printed on the two streams."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = main(["compare", *(str(word) for word in words)])
        except SystemExit as left:
            status = int(left.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four images with masks."""
    return write_tree(tmp_path / "tree", 4)


def labelled(tree: Path) -> list[object]:
    return [tree / "images", "--labels", tree / "masks", "--num-classes", NUM_CLASSES, "--ignore-index", IGNORE]


def results(out: Path) -> list[dict]:
    return json.loads((out / "results.json").read_text())


def timeless(records: list[dict]) -> list[dict]:
    return [record for record in records if record["measure"] not in TIMES]


def test_it_finds_what_the_library_finds(tree: Path, tmp_path: Path, says: Says) -> None:
    out = tmp_path / "out"
    words = ["--constructions", "slic 100 rag", "pixel grid 4", "--probe-images", 3, "--probe-steps", 2, "--seed", 5]
    status, said, err = says(*labelled(tree), "--out", out, *words, "--pictures", 1)
    assert status == 0 and err.startswith("note: The probe: 3-fold cross-validation over 3 images, 2 steps, 3 seeds.")
    records = results(out)
    assert [list(record) for record in records] == [
        ["construction", "measure", "mean", "std", "low", "high", "count"]
    ] * len(records)
    chosen = {name: default_constructions(NUM_CLASSES, IGNORE)[name] for name in ("pixel grid 4", "slic 100 rag")}
    found = compare(read_tree(tree), chosen, probing=ProbeOptions(images=3, steps=2), seed=5)
    assert timeless(records) == timeless(found.records)
    assert {"probe_miou", "oracle_miou", "seconds"} <= {record["measure"] for record in records}
    assert next(r["count"] for r in records if r["measure"] == "probe_image_miou") == 3
    # The table, and where the report is, with the command in it.
    *_, last = said.splitlines()
    assert last == f"the report: {out / 'report.html'}"
    for text in ("pixel grid 4", "slic 100 rag", "oracle mIoU", "probe mIoU", "±"):
        assert text in said
    page = html.unescape((out / "report.html").read_text())
    assert f"graphseg compare {tree / 'images'} --labels {tree / 'masks'}" in page and "--probe-steps 2" in page


def test_the_table_is_that_of_the_records(tree: Path, tmp_path: Path, says: Says, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    status, said, _ = says(*labelled(tree), "--out", tmp_path / "out", *QUICK)
    assert status == 0
    assert said == f"{format_table(results(tmp_path / 'out'), width=90)}\nthe report: {tmp_path / 'out/report.html'}\n"


def test_no_probe_and_quiet(tree: Path, tmp_path: Path, says: Says) -> None:
    status, said, err = says(*labelled(tree), "--out", tmp_path / "out", *QUICK, "--quiet")
    assert (status, err) == (0, "") and said == f"the report: {tmp_path / 'out' / 'report.html'}\n"
    assert not any(record["measure"].startswith("probe") for record in results(tmp_path / "out"))
    assert not (tmp_path / "out" / "probes.jsonl").exists()


def test_images_alone(tree: Path, tmp_path: Path, says: Says) -> None:
    status, _, err = says(tree / "images", "--out", tmp_path / "out", "--constructions", "slic 100 rag")
    assert status == 0 and err == "note: No probe: the images have no labels of classes.\n"
    measures = {record["measure"] for record in results(tmp_path / "out")}
    assert "explained_variation" in measures and not measures & {"oracle_miou", "homophily", "probe_miou"}


def test_classes_are_counted(tree: Path, tmp_path: Path, says: Says) -> None:
    images, *_ = labelled(tree)
    words = ["--labels", tree / "masks", "--ignore-index", IGNORE, "--out", tmp_path / "out", *QUICK]
    status, _, err = says(images, *words)
    assert (status, err) == (0, f"3 classes in {tree / 'masks'}\n")


@pytest.mark.parametrize(("most", "images"), [(1, ["000"]), (2, ["000", "002"]), (4, None), (9, None)])
def test_so_many_images_taken_evenly(most: int, images: list[str] | None, tree: Path, tmp_path: Path, says) -> None:
    status, _, _ = says(*labelled(tree), "--out", tmp_path / "out", *QUICK, "--max-images", most)
    assert status == 0
    lines = (tmp_path / "out" / "images.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == (images or ["000", "001", "002", "003"])


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (["slic * rag"], [f"slic {n} rag" for n in (100, 200, 400, 800)]),
        (["hierarchy", "pixel-grid-8"], ["pixel grid 8", "slic hierarchy"]),
        (["slic 100 rag,slic 200 rag"], ["slic 100 rag", "slic 200 rag"]),
    ],
)
def test_constructions_by_name_pattern_and_word(request_, names, tree: Path, tmp_path: Path, says: Says) -> None:
    words = ["--no-probe", "--pictures", 0, "--max-images", 1, "--constructions", *request_]
    assert says(*labelled(tree), "--out", tmp_path / "out", *words)[0] == 0
    assert list(dict.fromkeys(record["construction"] for record in results(tmp_path / "out"))) == names


def test_all_constructions_by_default(tree: Path, tmp_path: Path, says: Says) -> None:
    out = tmp_path / "out"
    status, said, _ = says(*labelled(tree), "--out", out, "--no-probe", "--max-images", 1, "--pictures", 1)
    names = list(default_constructions())
    assert status == 0 and list(dict.fromkeys(record["construction"] for record in results(out))) == names
    page = html.unescape((out / "report.html").read_text())
    assert all(name in said and name in page for name in names)
    assert page.count("data:image/") == 1 + len(names)


def test_the_same_command_goes_on(tree: Path, tmp_path: Path, says: Says) -> None:
    words = [*labelled(tree), "--out", tmp_path / "out", *QUICK]
    assert says(*words)[0] == 0
    first = results(tmp_path / "out")
    assert says(*words)[0] == 0
    assert results(tmp_path / "out") == first  # times as well: nothing was measured again


# How it went


@pytest.mark.parametrize("kind", ["truncated image", "mask of another size", "labels outside", "no mask"])
def test_a_bad_file_is_named_and_the_status_is_1(kind: str, tree: Path, tmp_path: Path, says: Says) -> None:
    DAMAGE[kind](tree, "001", np.random.default_rng(0))
    status, said, err = says(*labelled(tree), "--out", tmp_path / "out", *QUICK)
    assert status == 1
    assert {record["count"] for record in results(tmp_path / "out")} == {3}
    if kind == "no mask":
        assert "001.png: got an image without its mask" in err
    else:
        assert "slic 100 rag failed on 1 of 4 images" in said
        assert "001" in (tmp_path / "out" / "report.html").read_text()


def test_nothing_that_opens_is_status_3(tmp_path: Path, says: Says) -> None:
    tree = write_tree(tmp_path / "tree", 2)
    for name in ("000", "001"):
        DAMAGE["text"](tree, name, np.random.default_rng(0))
    status, said, _ = says(*labelled(tree), "--out", tmp_path / "out", *QUICK)
    assert status == 3 and "failed on 2 of 2 images" in said
    assert results(tmp_path / "out") == []


def test_wrong_names_list_the_right_ones(tree: Path, tmp_path: Path, says: Says) -> None:
    status, said, err = says(*labelled(tree), "--out", tmp_path / "out", "--constructions", "slick 100 rag")
    assert (status, said) == (2, "") and "got construction 'slick 100 rag', expected some of" in err
    assert all(name in err for name in default_constructions()) and "was 'slic 100 rag' meant?" in err
    assert not (tmp_path / "out").exists()


REFUSED: dict[str, tuple[list[Any], str]] = {
    "no out": ([], "--out"),
    "no images": (["--out", "OUT", "--max-images", 0], "got --max-images 0, expected at least 1"),
    "no workers": (["--out", "OUT", "--workers", 0], "workers"),
    "seed below 0": (["--out", "OUT", "--seed", -1], "seed"),
    "pictures below 0": (["--out", "OUT", "--pictures", -1], "num_pictures"),
    "one image for the probe": (["--out", "OUT", "--probe-images", 1], "images"),
    "no steps": (["--out", "OUT", "--probe-steps", 0], "steps"),
    "classes without labels": (["--out", "OUT", "--num-classes", 3], "got --num-classes without --labels"),
    "split without a set": (["--out", "OUT", "--split", "val"], "got --split without --dataset"),
    "a set that is not known": (["--out", "OUT", "--dataset", "imagenet"], "imagenet"),
    "an option of build": (["--out", "OUT", "--graph", "rag"], "--graph"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_use_is_status_2(case: str, tree: Path, tmp_path: Path, says: Says) -> None:
    words, message = REFUSED[case]
    status, said, err = says(tree / "images", *(tmp_path / "out" if word == "OUT" else word for word in words))
    assert (status, said) == (2, "") and message in err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_status_3(tree: Path, tmp_path: Path, says: Says) -> None:
    status, said, err = says(tmp_path / "nowhere", "--out", tmp_path / "out")
    assert (status, said) == (3, "") and str(tmp_path / "nowhere") in err
    assert not (tmp_path / "out").exists()
    status, _, err = says(tree / "images", "--labels", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert status == 3 and "nowhere" in err
    (tmp_path / "file").write_text("mine")
    status, _, err = says(tree / "images", "--out", tmp_path / "file", *QUICK)
    assert status == 3 and "file" in err and (tmp_path / "file").read_text() == "mine"


def test_interrupted_is_status_130(tree: Path, tmp_path: Path, says: Says, monkeypatch) -> None:
    from graphseg.transforms import ToSuperpixelRAG

    convert, calls = ToSuperpixelRAG.forward, []

    def stop(self: ToSuperpixelRAG, data: Data) -> object:
        calls.append(data.source)
        if len(set(calls)) == 3:
            raise KeyboardInterrupt
        return convert(self, data)

    words = [*labelled(tree), "--out", tmp_path / "out", *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr(ToSuperpixelRAG, "forward", stop)
        status, _, err = says(*words)
    assert status == 130 and "goes on where it stopped" in err
    assert not (tmp_path / "out" / "results.json").exists()
    assert says(*words)[0] == 0
    assert {record["count"] for record in results(tmp_path / "out")} == {4}


def test_the_help_says_what_there_is(says: Says) -> None:
    status, said, _ = says("--help")
    assert status == 0
    for word in ("--constructions", "--no-probe", "--max-images", "--labels", "--ignore-index", "--out", "exit status"):
        assert word in said
