"""The command line: a build, an inspection and a picture hold what the library gives; refusals name the mend."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from graphseg import __version__
from graphseg.cli import main
from graphseg.data import Hierarchy
from graphseg.datasets import ImageFolder, ImageGraphDataset
from graphseg.ops import affinity_offsets
from graphseg.transforms import (
    ToAffinityGraph,
    ToHierarchy,
    ToInstanceGraph,
    ToKNNGraph,
    ToPixelGrid,
    ToSuperpixelRAG,
)
from tests.conftest import ROOT, RunPython
from tests.datasets import official_trees as official
from tests.datasets.small_trees import HEIGHT, IGNORE, NUM_CLASSES, WIDTH, classes, photo, write_image, write_tree

COMMANDS = ("build", "inspect", "plot", "compare", "train", "evaluate", "segment")
Says = Callable[..., tuple[int, str, str]]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """`says(*words)`: the exit status of a command and what it printed on the two streams."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as left:
            status = int(left.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four images with masks."""
    return write_tree(tmp_path / "tree", 4)


def labelled(tree: Path) -> list[Any]:
    """The words for a tree's images and masks."""
    return [tree / "images", "--labels", tree / "masks", "--num-classes", NUM_CLASSES, "--ignore-index", IGNORE]


def build(says: Says, *words: Any) -> ImageGraphDataset:
    """A build of the words IMAGES OUT ... that must do all: its dataset."""
    status, said, err = says("build", *words)
    out = words[1]
    assert (status, err) == (0, "")
    dataset = ImageGraphDataset(out)
    assert said.startswith(f"{len(dataset)} graphs in {out} (") and dataset.complete
    return dataset


def assert_same(got: Any, want: Any) -> None:
    """Two graphs of one image."""
    assert type(got) is type(want)
    assert set(got.to_dict()) == set(want.to_dict())
    for key, value in want.to_dict().items():
        if isinstance(value, torch.Tensor):
            assert got[key].dtype == value.dtype, key
            torch.testing.assert_close(got[key], value, rtol=0, atol=0, msg=key)
        else:
            assert got[key] == value, key


# Graphs and their options

SHARED: dict[str, Any] = {"num_classes": NUM_CLASSES, "ignore_index": IGNORE}
GRAPHS: dict[str, tuple[str, Any]] = {
    "default": ("", ToSuperpixelRAG(**SHARED)),
    "grid": ("--graph grid --connectivity 8", ToPixelGrid(8, **SHARED)),
    "rag": (
        "--graph rag --num-segments 20 --connectivity 8",
        ToSuperpixelRAG(20, connectivity=8, **SHARED),
    ),
    "exact": (
        "--num-segments 12 -p compactness=20 --parameter exact=true -p color=none",
        ToSuperpixelRAG(12, compactness=20, exact=True, color="none", **SHARED),
    ),
    "squares": ("--superpixels grid --num-segments 12", ToSuperpixelRAG(12, "grid", **SHARED)),
    "slic_skimage": ("--superpixels slic_skimage --num-segments 9", ToSuperpixelRAG(9, "slic_skimage", **SHARED)),
    "felzenszwalb": (
        "--superpixels felzenszwalb -p scale=200 -p min_size=30",
        ToSuperpixelRAG(None, "felzenszwalb", scale=200, min_size=30, **SHARED),
    ),
    "quickshift": ("--superpixels quickshift -p max_dist=8", ToSuperpixelRAG(None, "quickshift", max_dist=8, **SHARED)),
    "watershed": ("--superpixels watershed --num-segments 15", ToSuperpixelRAG(15, "watershed", **SHARED)),
    "features": (
        "--num-segments 9 --node-features mean hu perimeter --edge-features length boundary_mean --keep-pixels",
        ToSuperpixelRAG(
            9,
            node_features=("mean", "hu", "perimeter"),
            edge_features=("length", "boundary_mean"),
            keep_pixels=True,
            **SHARED,
        ),
    ),
    "no features": ("--num-segments 9 --edge-features", ToSuperpixelRAG(9, edge_features=(), **SHARED)),
    "knn": (
        "--graph knn --k 3 --by features --num-segments 30 --weighted",
        ToKNNGraph(3, "features", 30, weighted=True, **SHARED),
    ),
    "knn of pixels": ("--graph knn --superpixels pixels", ToKNNGraph(superpixels="pixels", **SHARED)),
    "affinity": ("--graph affinity", ToAffinityGraph(**SHARED)),
    "affinity, far": (
        "--graph affinity --distances 1 3",
        ToAffinityGraph(affinity_offsets([1, 3]), **SHARED),
    ),
    "hierarchy": ("--graph hierarchy --num-segments 5 10 20", ToHierarchy([5, 10, 20], **SHARED)),
    "hierarchy, by default": ("--graph hierarchy", ToHierarchy(**SHARED)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_options_are_those_of_the_transforms(name: str, tmp_path: Path, says: Says) -> None:
    words, transform = GRAPHS[name]
    tree = write_tree(tmp_path, 2)
    dataset = build(says, tree / "images", tmp_path / "out", *labelled(tree)[1:], *words.split())
    reader = ImageFolder(tree / "images", tree / "masks", num_classes=NUM_CLASSES, ignore_index=IGNORE)
    assert dataset.sources == ["000", "001"]
    for got, data in zip(dataset, reader, strict=True):
        assert_same(got, transform(data))
    assert (dataset[0].num_nodes == HEIGHT * WIDTH) == (
        transform.__class__ in (ToPixelGrid, ToAffinityGraph) or "pixels" in words.split()
    )
    assert isinstance(dataset[0], Hierarchy) == words.startswith("--graph hierarchy")


def test_instances(tmp_path: Path, says: Says) -> None:
    tree = write_tree(tmp_path, 2)
    maps = {}
    for name in ("000", "001"):
        cells = np.zeros((HEIGHT, WIDTH), np.uint16)
        for k, (y, x) in enumerate([(4, 4), (4, 30), (24, 8), (30, 40)]):
            cells[y : y + 12, x : x + 15] = 300 + k
        maps[name] = cells
        write_image(tree / "cells" / f"{name}_cells.png", cells)
    words = ["--instances", tree / "cells", "--instance-suffix", "_cells", "--graph", "instance"]
    dataset = build(says, *labelled(tree)[:1], tmp_path / "out", *words, "--edges", "radius", "--max-distance", 27)
    assert [graph.num_nodes for graph in dataset] == [4, 4]
    data = ImageFolder(tree / "images", None, tree / "cells", instance_suffix="_cells")[1]
    assert np.array_equal(data.instances.numpy(), maps["001"])
    assert_same(dataset[1], ToInstanceGraph("radius", max_distance=27.0)(data))
    both = build(says, tree / "images", tmp_path / "knn", *words, "--edges", "knn", "--k", 1, *labelled(tree)[1:])
    data.mask = torch.from_numpy(classes(photo(1))).long()
    assert_same(both[1], ToInstanceGraph("knn", 1, **SHARED)(data))


def test_images_alone(tree: Path, tmp_path: Path, says: Says) -> None:
    dataset = build(says, tree / "images", tmp_path / "out", "--num-segments", 12)
    assert dataset.num_classes == 0 and "label_counts" not in dataset[0]
    one = build(says, tree / "images" / "002.png", tmp_path / "one", "--num-segments", 12)
    assert one.sources == ["002"] and torch.equal(one[0].x, dataset[2].x)
    status, said, _ = says("inspect", tmp_path / "out")
    assert status == 0 and "purity" not in said and "class" not in said


def test_graphs_do_not_depend_on_workers(tree: Path, tmp_path: Path, says: Says) -> None:
    one, two = (
        build(says, *labelled(tree)[:1], tmp_path / str(n), *labelled(tree)[1:], "--workers", n) for n in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert_same(a, b)


def test_a_second_build_does_what_has_changed(tree: Path, tmp_path: Path, says: Says, monkeypatch) -> None:
    converted = []
    convert = ToSuperpixelRAG.forward

    def note(self: ToSuperpixelRAG, data: Any) -> Any:
        converted.append(data.source)
        return convert(self, data)

    monkeypatch.setattr(ToSuperpixelRAG, "forward", note)
    words = [*labelled(tree)[1:], "--num-segments", 9]
    build(says, tree / "images", tmp_path / "out", *words)
    write_image(tree / "images" / "002.png", photo(77))
    assert len(build(says, tree / "images", tmp_path / "out", *words)) == 4
    assert converted == ["000", "001", "002", "003", "002"]
    assert build(says, tree / "images", tmp_path / "out", *words[:-1], 4)[0].num_nodes < 9
    assert len(converted) == 9


# Images and labels


def test_classes_are_counted_where_nobody_says(tree: Path, tmp_path: Path, says: Says) -> None:
    words = ["build", tree / "images", tmp_path / "out", "--labels", tree / "masks", "--num-segments", 9]
    status, said, err = says(*words)
    assert (status, said) == (2, "") and not (tmp_path / "out").exists()
    assert "labels 0 to 2 and 255" in err and "--ignore-index 255" in err and "--num-classes 256" in err
    status, said, err = says(*words, "--ignore-index", 255)
    assert status == 0 and err == f"3 classes in {tree / 'masks'}\n"
    assert ImageGraphDataset(tmp_path / "out").num_classes == 3
    status, _, err = says(*words, "--num-classes", 256)
    assert (status, err) == (0, "")
    dataset = ImageGraphDataset(tmp_path / "out")
    assert dataset.num_classes == 256 and dataset.stats().classes[255]["pixels"] > 0


def test_masks_without_classes(tmp_path: Path, says: Says) -> None:
    tree = write_tree(tmp_path, 2)
    for name in ("000", "001"):
        write_image(tree / "masks" / f"{name}.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    status, _, err = says("build", tree / "images", tmp_path / "out", "--labels", tree / "masks", "--ignore-index", 255)
    assert status == 2 and "got masks without a label" in err
    status, _, err = says("build", tree / "images", tmp_path / "out", "--labels", tree / "masks")
    assert status == 2 and "--ignore-index 255" in err


def test_class_names_give_the_number_of_classes(tree: Path, tmp_path: Path, says: Says) -> None:
    names = tmp_path / "names.txt"
    names.write_text("dark\nhalf dark\n\nbright \n", encoding="utf-8")
    words = ["--labels", tree / "masks", "--ignore-index", IGNORE, "--class-names", names, "--num-segments", 9]
    dataset = build(says, tree / "images", tmp_path / "out", *words)
    assert dataset.num_classes == 3 and dataset.class_names == ["dark", "half dark", "bright"]
    _, said, _ = says("inspect", tmp_path / "out")
    assert [line.split("  ")[0] for line in said.splitlines()[-3:]] == dataset.class_names
    status, _, err = says("build", tree / "images", tmp_path / "out", *words, "--num-classes", 4)
    assert status == 2 and "got 3 class_names, expected num_classes=4" in err
    status, _, err = says("build", tree / "images", tmp_path / "out", *words[:4], "--class-names", "nobody.txt")
    assert status == 3 and "nobody.txt" in err


def test_names_of_masks(tmp_path: Path, says: Says) -> None:
    image = photo(3)
    write_image(tmp_path / "images/a/1.png", image)
    write_image(tmp_path / "masks/a/1_mask.png", classes(image))
    write_image(tmp_path / "masks/a/1.png", image)  # another picture, without the suffix
    words = ["--labels", tmp_path / "masks", "--mask-suffix", "_mask", "--ignore-index", IGNORE, "--num-classes", 3]
    dataset = build(says, tmp_path / "images", tmp_path / "out", *words)
    assert dataset.sources == ["a/1"]
    assert dataset.files(0)["mask"].endswith("1_mask.png")
    assert torch.equal(dataset[0].pixel_y, torch.from_numpy(classes(image)).flatten().long())


def test_channels_and_pixels(tmp_path: Path, says: Says) -> None:
    write_image(tmp_path / "images/colour.png", photo(1))
    write_image(tmp_path / "images/grey.png", photo(2)[..., 0])
    words = ["--node-features", "mean", "--num-segments", 9]
    assert build(says, tmp_path / "images", tmp_path / "1", *words, "--channels", 1)[0].num_node_features == 1
    assert build(says, tmp_path / "images", tmp_path / "3", *words, "--channels", 3)[1].num_node_features == 3
    status, said, err = says("build", tmp_path / "images", tmp_path / "as they are", *words)
    assert status == 1 and said.startswith("1 graphs") and "grey.png" in err and "expected" in err

    write_image(tmp_path / "images/grey.png", photo(2, 100, 100))
    status, said, err = says("build", tmp_path / "images", tmp_path / "small", *words, "--max-pixels", 5000)
    assert status == 1 and said.startswith("1 graphs")
    assert "grey.png" in err and "10000" in err.replace(",", "") and "5000" in err.replace(",", "")


# Sets of known layout


def write_listed(root: Path, columns: dict[str, Callable[[np.ndarray], np.ndarray]], copies: int = 1) -> None:
    """A set with splits.txt: a file for each column and image, made of the image."""
    lines = ["# split, files"]
    for k, split in enumerate(["train", "train", "val", "test_dev"]):
        names = []
        for folder, made in columns.items():
            paths = [f"{folder}/{k}{'abc'[c] if copies > 1 and folder == 'labels' else ''}.png" for c in range(copies)]
            for path in dict.fromkeys(paths):
                write_image(root / path, made(photo(k)))
            names.append(";".join(dict.fromkeys(paths)))
        lines.append("\t".join([split, *names]))
    (root / "splits.txt").write_text("\n".join(lines) + "\n")


def write_small(name: str, root: Path) -> None:
    """A small tree in the layout of a set."""
    writers = {
        "ade20k": official.write_ade20k,
        "cityscapes": official.write_cityscapes,
        "coco_stuff": official.write_coco,
        "pascal_context": official.write_context,
        "pascal_voc": official.write_voc,
        "potsdam": official.write_potsdam,
    }
    if name in writers:
        writers[name](root)
        return
    three = {
        "images": lambda image: image,
        "labels": lambda image: np.digitize(image[..., 0], (80, 160)).astype(np.uint8),
    }
    sets: dict[str, dict[str, Any]] = {
        "bsds500": three,
        "camvid": three,
        "dsb2018": three,
        "penn_fudan": three,
        "isbi2012": three | {"membrane": lambda image: (image[..., 0] > 99).astype(np.uint8) * 255},
        "msrc21": three,
        "sentinel2": {"rgb": three["images"], "nir": lambda image: image[..., 0], "labels": three["labels"]},
    }
    columns = sets[name]
    if name == "isbi2012":
        columns = {key: columns[key] for key in ("images", "membrane", "labels")}
    write_listed(root, columns, copies=2 if name == "bsds500" else 1)
    listed = {
        "camvid": [*(f"class{k}" for k in range(11)), "void"],
        "msrc21": ["void", *(f"class{k}" for k in range(21)), "horse", "mountain"],
        "sentinel2": ["cloud", "land", "water"],
    }
    if name in listed:
        lines = [f"{number} {text}" for number, text in enumerate(listed[name])]
        (root / "classes.txt").write_text("\n".join([*lines, *(["255 undefined"] if name == "sentinel2" else [])]))


# graphs of all splits, of the split "train", and K
SETS = {
    "ade20k": (3, 2, 150),
    "bsds500": (4, 2, 0),
    "camvid": (4, 2, 11),
    "cityscapes": (3, 2, 19),
    "coco_stuff": (3, 2, 27),
    "dsb2018": (4, 2, 2),
    "isbi2012": (4, 2, 2),
    "msrc21": (4, 2, 21),
    "pascal_context": (3, 2, 59),
    "pascal_voc": (3, 2, 21),
    "penn_fudan": (4, 2, 2),
    "potsdam": (3, 2, 6),
    "sentinel2": (4, 2, 3),
}


@pytest.mark.parametrize("name", SETS)
def test_sets_of_known_layout(name: str, tmp_path: Path, says: Says) -> None:
    write_small(name, tmp_path / "set")
    whole, part, K = SETS[name]
    words = [tmp_path / "set", tmp_path / "out", "--dataset", name, "--num-segments", 6]
    dataset = build(says, *words)
    assert (len(dataset), dataset.num_classes) == (whole, K)
    assert len(build(says, *words, "--split", "train")) == part
    status, _, err = says("build", *words, "--split", "nobody")
    assert status == 2 and "nobody" in err and "train" in err
    status, _, err = says("build", tmp_path / "out", tmp_path / "other", "--dataset", name)
    assert status == 3 and "expected" in err and str(tmp_path / "out") in err


@pytest.mark.parametrize(("name", "K"), [("coco_stuff", 15), ("msrc21", 23), ("pascal_context", 60), ("potsdam", 3)])
def test_other_ways_to_count_classes(name: str, K: int, tmp_path: Path, says: Says) -> None:
    write_small(name, tmp_path / "set")
    words = [tmp_path / "set", tmp_path / "out", "--dataset", name, "--graph", "rag", "--num-segments", 6]
    assert build(says, *words, "--classes", K).num_classes == K
    status, _, err = says("build", *words, "--classes", 1)
    assert status == 2 and "classes=1" in err and str(K) in err


def test_parts_of_the_real_sets(shared_data: Path, tmp_path: Path, says: Says) -> None:
    for name, K in (("camvid", 11), ("bsds500", 0)):
        source, part = shared_data / name, tmp_path / name
        if not source.is_dir():
            pytest.skip(f"no {name} in {shared_data}")
        head, *lines = (source / "splits.txt").read_text().splitlines()
        chosen = [next(line for line in lines if line.startswith(split)) for split in ("train", "val")]
        for file in [path for line in chosen for cell in line.split("\t")[1:] for path in cell.split(";")]:
            (part / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, part / file)
        (part / "splits.txt").write_text("\n".join([head, *chosen]))
        if (source / "classes.txt").is_file():
            shutil.copy(source / "classes.txt", part)
        dataset = build(says, part, tmp_path / f"{name} graphs", "--dataset", name, "--num-segments", 50)
        assert dataset.splits == ["train", "val"] and len(dataset) == 2 and dataset.num_classes == K
        _, said, _ = says("inspect", tmp_path / f"{name} graphs")
        assert ("road" in said.lower()) == (K > 0)


# Wrong use: status 2, and nothing is written

REFUSED = {
    "grid has no superpixels": ("--graph grid --superpixels slic", "--superpixels with --graph grid, which heeds --"),
    "nor parameters": ("--graph affinity -p compactness=3 --k 3", "--k, --parameter with --graph affinity"),
    "knn has no connectivity": ("--graph knn --connectivity 8", "--connectivity with --graph knn"),
    "rag has no k": ("--k 4", "--k with --graph rag"),
    "rag has no distances": ("--graph rag --distances 1 2", "--distances with --graph rag"),
    "rag is not weighted": ("--weighted", "--weighted with --graph rag"),
    "rag of pixels": ("--superpixels pixels", "got superpixels='pixels'"),
    "several counts": ("--num-segments 10 20", "--num-segments 10 20, expected one number for --graph rag"),
    "no count": ("--num-segments 0", "num_segments=0"),
    "no count in hierarchies": ("--graph hierarchy --num-segments 10 0", "num_segments=0"),
    "felzenszwalb counts itself": ("--superpixels felzenszwalb --num-segments 10", "'felzenszwalb', expected None"),
    "no instances": ("--graph instance", "--graph instance without --instances"),
    "radius of nothing": ("--graph instance --edges radius --instances images", "max_distance=None"),
    "nonsense parameter": ("-p nonsense=1", "'nonsense'"),
    "parameter without value": ("-p compactness", "--parameter compactness, expected NAME=VALUE"),
    "parameter without name": ("-p =3", "--parameter =3, expected NAME=VALUE"),
    "an option as parameter": ("-p num_segments=3", "expected --num-segments"),
    "node features": ("--node-features mean weight", "node_features='weight'"),
    "edge features": ("--edge-features weight", "edge_features='weight'"),
    "features of pixels": ("--graph grid --node-features area", "node_features='area'"),
    "workers": ("--workers 0", "workers=0"),
    "pixels": ("--max-pixels 0", "--max-pixels=0"),
    "classes": ("--labels masks --num-classes 0", "num_classes=0"),
    "classes without masks": ("--num-classes 3", "--num-classes without --labels"),
    "ignored without masks": ("--ignore-index 0", "--ignore-index without --labels"),
    "names without masks": ("--class-names names", "--class-names without --labels"),
    "suffix without masks": ("--mask-suffix _m", "--mask-suffix without --labels"),
    "suffix without maps": ("--instance-suffix _m", "--instance-suffix without --instances"),
    "a split of a folder": ("--split train", "--split without --dataset"),
    "classes of a folder": ("--classes 3", "--classes without --dataset"),
    "masks of a set": ("--dataset camvid --labels masks", "not allowed with"),
    "classes said twice": ("--dataset camvid --num-classes 3", "--num-classes with --dataset camvid"),
    "channels of a set": ("--dataset camvid --channels 1", "--channels with --dataset camvid"),
    "suffix of a set": ("--dataset camvid --mask-suffix _m", "--mask-suffix with --dataset camvid"),
    "unknown graph": ("--graph tree", "'tree'"),
    "unknown superpixels": ("--superpixels hexagons", "'hexagons'"),
    "unknown set": ("--dataset imagenet", "'imagenet'"),
    "unknown option": ("--segments 3", "--segments"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_use_is_named(case: str, tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    words, message = REFUSED[case]
    write_tree(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    status, said, err = says("build", "images", "out", *words.split())
    assert (status, said) == (2, "") and message in err
    assert len(err.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bsds500", "cityscapes"])
def test_sets_with_one_way_to_count_classes(name: str, tmp_path: Path, says: Says) -> None:
    write_small(name, tmp_path / "set")
    status, _, err = says("build", tmp_path / "set", tmp_path / "out", "--dataset", name, "--classes", 7)
    assert status == 2 and f"--classes 7, expected none: {name}" in err


@pytest.mark.parametrize("words", [[], ["build"], ["build", "images"], ["inspect"], ["plot", "out"], ["segment"]])
def test_missing_words(words: list[str], says: Says) -> None:
    status, said, err = says(*words)
    assert (status, said) == (2, "") and err.startswith("usage: graphseg")


# What cannot be done: status 3, or 1 where a part can


def test_bad_files_are_listed_and_the_rest_is_built(tree: Path, tmp_path: Path, says: Says) -> None:
    (tree / "images/000.png").write_bytes(b"")
    write_image(tree / "masks/001.png", np.zeros((5, 5), np.uint8))
    (tree / "masks/002.png").unlink()
    out = tmp_path / "out"
    status, said, err = says("build", *labelled(tree)[:1], out, *labelled(tree)[1:], "--num-segments", 9)
    assert status == 1 and said.startswith(f"1 graphs in {out}") and "left out (3)" in said
    listed = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert sorted(Path(bad["file"]).name for bad in listed) == ["000.png", "001.png", "002.png"]
    for bad in listed:
        assert bad["file"] in err and bad["reason"] in err and "expected" in bad["reason"]
    assert str(out / "errors.jsonl") in err
    status, said, _ = says("inspect", out)
    assert status == 0 and said.splitlines()[:2] == ["1 graphs", "left out (3): see errors.jsonl"]
    assert json.loads(says("inspect", out, "--json")[1])["errors"] == 3

    write_tree(tree, 4)
    assert len(build(says, *labelled(tree)[:1], out, *labelled(tree)[1:], "--num-segments", 9)) == 4
    assert not (out / "errors.jsonl").exists()


def test_many_bad_files_are_not_all_printed(tmp_path: Path, says: Says) -> None:
    tree = write_tree(tmp_path, 12)
    for k in range(11):
        (tree / f"images/{k:03d}.png").write_bytes(b"no image")
    status, said, err = says("build", tree / "images", tmp_path / "out")
    assert status == 1 and "left out (11)" in said and len(err.splitlines()) == 6


def test_no_graph_at_all(tree: Path, tmp_path: Path, says: Says) -> None:
    for path in (tree / "images").iterdir():
        path.write_bytes(b"no image")
    status, said, err = says("build", tree / "images", tmp_path / "out")
    assert status == 3 and said.startswith("0 graphs") and err.endswith("graphseg: no graph could be built\n")
    status, said, _ = says("inspect", tmp_path / "out")
    assert status == 0 and said.startswith("0 graphs\nleft out (4)")
    assert json.loads(says("inspect", tmp_path / "out", "--json")[1])["nodes"]["mean"] is None
    status, _, err = says("plot", tmp_path / "out", 0, tmp_path / "p.png")
    assert status == 2 and "the dataset is empty" in err


def test_folders_that_will_not_do(tree: Path, tmp_path: Path, says: Says) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tree / "images/000.png"
    before = file.read_bytes()
    refused: list[tuple[list[Any], str]] = [
        ([tmp_path / "nobody", tmp_path / "out"], f"{tmp_path / 'nobody'}, expected a folder"),
        ([empty, tmp_path / "out"], f"no image in {empty}, expected files of .png"),
        ([tree / "images", tmp_path / "out", "--labels", tmp_path / "nobody"], f"{tmp_path / 'nobody'}, expected"),
        ([tree / "images", file], f"{file}, which is a file, expected a folder"),
        ([tree / "images", file / "out"], str(file / "out")),
    ]
    for words, message in refused:
        status, said, err = says("build", *words)
        assert (status, said) == (3, "") and message in err and len(err.splitlines()) == 1
    assert file.read_bytes() == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"], ["plot", "0", "p.png"]])
def test_what_is_no_dataset(command: list[str], tree: Path, tmp_path: Path, says: Says) -> None:
    name, *rest = command
    status, said, err = says(name, tree, *rest)
    assert (status, said) == (3, "") and f"{tree} without graphs.sqlite, expected a folder" in err
    (tree / "graphs.sqlite").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    status, said, err = says(name, tree, *rest)
    assert (status, said) == (3, "") and "graphs.sqlite" in err and "expected a dataset of graphseg" in err


def test_a_scheduler_needs_dask(tree: Path, tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    status, _, err = says("build", tree / "images", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1")
    assert status == 3 and "graphseg[cluster]" in err


def test_a_full_disk_is_said(tree: Path, tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphseg.datasets.store import Store, StoreError

    def full(*_: object) -> None:
        raise StoreError("graphs.sqlite: the disk is full: make room and start again")

    monkeypatch.setattr(Store, "add", full)
    status, said, err = says("build", tree / "images", tmp_path / "out")
    assert (status, said) == (3, "") and "make room and start again" in err


def test_interrupted(tree: Path, tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = ToSuperpixelRAG.forward

    def stop(self: ToSuperpixelRAG, data: Any) -> Any:
        if data.source == "002":
            raise KeyboardInterrupt
        return convert(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(ToSuperpixelRAG, "forward", stop)
        status, said, err = says("build", tree / "images", tmp_path / "out")
    assert (status, said) == (130, "") and "the same command goes on" in err
    status, said, err = says("inspect", tmp_path / "out")
    assert (status, err) == (0, "") and "2 graphs" in said and "the build has not ended: start it again" in said
    assert json.loads(says("inspect", tmp_path / "out", "--json")[1])["complete"] is False
    assert len(build(says, tree / "images", tmp_path / "out")) == 4


def test_interrupted_by_the_keyboard(tmp_path: Path) -> None:
    """Ctrl-C reaches the command and its workers: one line, and the next build ends it."""
    tree = write_tree(tmp_path, 200)
    words = ["build", str(tree / "images"), str(tmp_path / "out"), "--superpixels", "quickshift"]  # a slow one
    running = subprocess.Popen(
        [sys.executable, "-m", "graphseg", *words, "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:  # until some graphs are kept
        kept = f"file:{tmp_path / 'out/graphs.sqlite'}?mode=ro"
        with suppress(sqlite3.Error), closing(sqlite3.connect(kept, uri=True)) as file:
            if file.execute("SELECT count(*) FROM built").fetchone()[0]:
                break
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    said, err = running.communicate(timeout=100)
    # A shell calls both 130. (Python ends by the signal where compiling a kernel was what it interrupted.)
    assert running.returncode in (130, -signal.SIGINT) and said == "", err
    assert err == "graphseg: interrupted; the same command goes on where it stopped\n"
    assert main([*words, "--num-segments", "9"]) == 2
    assert main(words) == 0 and len(ImageGraphDataset(tmp_path / "out")) == 200


# Inspect


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with splits and classes, and its graphs in `out`."""
    root = tmp_path_factory.mktemp("camvid")
    write_small("camvid", root)
    words = ["build", str(root), str(root / "out"), "--dataset", "camvid", "--num-segments", "12", "--quiet"]
    assert main(words) == 0
    return root / "out"


@pytest.mark.parametrize("split", [None, "train", "val"])
def test_inspect_says_what_the_statistics_say(split: str | None, built: Path, says: Says) -> None:
    dataset = ImageGraphDataset(built)
    part = dataset if split is None else dataset.split(split)
    stats = part.stats()
    chosen = [] if split is None else ["--split", split]
    status, said, err = says("inspect", built, "--json", *chosen)
    assert (status, err) == (0, "")
    found = json.loads(said, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert {key: found.pop(key) for key in ("splits", "complete", "errors")} == {
        "splits": part.splits,
        "complete": True,
        "errors": 0,
    }
    assert found.pop("pipeline") == dataset.about["pipeline"]
    assert found == stats.to_dict()

    status, said, err = says("inspect", built, *chosen)
    assert (status, err) == (0, "")
    lines = said.splitlines()
    assert lines[0] == f"{len(part)} graphs, splits {', '.join(part.splits)}"
    rows = {line.split("  ")[0]: line.split() for line in lines}
    for name, values in (
        ("nodes", [graph.num_nodes for graph in part]),
        ("edges", [graph.num_edges for graph in part]),
        ("pixels", [graph.num_pixels for graph in part]),
    ):
        mean, low, high, total = (float(cell.replace(",", "")) for cell in rows[name][1:])
        assert mean == pytest.approx(np.mean(values), abs=0.051)
        assert (low, high, total) == (min(values), max(values), sum(values))
    assert set(rows) >= {"bytes", "read s", "convert s", "pack s"}
    counts = torch.cat([graph.label_counts for graph in part]).sum(0)
    labels = torch.cat([graph.y for graph in part])
    for k, row in enumerate(lines[-11:]):
        name, pixels, share, nodes = row.split()
        assert (name, int(pixels.replace(",", ""))) == (f"class{k}", int(counts[k]))
        assert float(share) == pytest.approx(int(counts[k]) / int(counts.sum()), abs=6e-5)
        assert int(nodes.replace(",", "")) == int((labels == k).sum())
    assert f"mean IoU {stats.oracle['mean_iou']:.4f}" in said and f"purity {stats.purity:.4f}" in said


def test_inspect_of_a_split_that_is_not_there(built: Path, says: Says) -> None:
    status, said, err = says("inspect", built, "--split", "nobody")
    assert (status, said) == (2, "") and "got split 'nobody', expected one of test_dev, train, val" in err


def test_nothing_is_run_by_inspecting(built: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    assert says("inspect", built)[0] == 0


# Plot


def test_plot_by_number_and_by_name(built: Path, tmp_path: Path, says: Says) -> None:
    dataset = ImageGraphDataset(built)
    assert dataset.sources == ["0", "1", "2", "3"]
    for index, picture in (("0", "p.png"), ("3", "p.svg")):
        status, said, err = says("plot", built, index, tmp_path / picture)
        assert (status, said, err) == (0, "", "")
    with Image.open(tmp_path / "p.png") as drawn:
        assert drawn.format == "PNG" and min(drawn.size) > 300
    text = (tmp_path / "p.svg").read_text()
    assert "<svg" in text


def test_names_that_are_numbers(tmp_path: Path, says: Says) -> None:
    for name in ("007", "1", "100", "9"):
        write_image(tmp_path / f"images/{name}.png", photo(int(name)))
    dataset = build(says, tmp_path / "images", tmp_path / "out", "--num-segments", 4)
    assert dataset.sources == ["007", "1", "100", "9"]
    titles = []

    def draw(_: ImageGraphDataset, index: int, picture: Path) -> None:
        titles.append((index, picture.name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphseg.datasets.picture.draw_graph", draw)
        for text in ("007", "1", "100", "9", "0", "3"):
            assert says("plot", tmp_path / "out", text, f"{text}.png")[0] == 0
    assert [index for index, _ in titles] == [0, 1, 2, 3, 0, 3]  # 1 is the second graph, 9 is no number of a graph


@pytest.mark.parametrize("index", ["4", "-1", "0.5", "nobody", "01"])
def test_graphs_that_are_not_there(index: str, built: Path, tmp_path: Path, says: Says) -> None:
    status, said, err = says("plot", built, index, tmp_path / "p.png")
    assert (status, said) == (2, "") and f"got INDEX {index}, expected 0 to 3, or a name such as 0, 1, 2" in err
    assert not (tmp_path / "p.png").exists()


def test_pictures_that_cannot_be_written(built: Path, tmp_path: Path, says: Says) -> None:
    status, _, err = says("plot", built, 0, tmp_path / "p.xyz")
    assert status == 2 and "xyz" in err and "png" in err
    status, _, err = says("plot", built, 0, tmp_path / "nobody/p.png")
    assert status == 3 and "nobody/p.png" in err
    assert not list(tmp_path.iterdir())


def test_a_picture_needs_matplotlib(built: Path, tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    status, _, err = says("plot", built, 0, tmp_path / "p.png")
    assert status == 3 and "graphseg[viz]" in err


# Help


def test_help_teaches(says: Says) -> None:
    for words in ([], *([command] for command in COMMANDS)):
        status, said, err = says(*words, "--help")
        assert (status, err) == (0, "") and said.startswith("usage: graphseg")
        for line in ("exit status:", "0    all is done", "130  interrupted; the same command goes on where it stopped"):
            assert line in said
    assert all(command in says("--help")[1] for command in COMMANDS)
    assert says("--version")[:2] == (0, f"graphseg {__version__}\n")


def test_examples_of_the_help_parse(says: Says) -> None:
    from graphseg.cli.command import make_parser

    lines = [line.strip() for command in COMMANDS for line in says(command, "--help")[1].splitlines()]
    examples = [line for line in lines if line.startswith("graphseg ")]
    assert len(examples) >= 20
    parsed = [make_parser().parse_args(line.replace('"', "").split()[1:]) for line in examples]
    graphs = {options.graph for options in parsed if "graph" in options}
    assert graphs == {"grid", "rag", "knn", "affinity", "hierarchy"}


def test_help_is_quick_and_says_when_the_reader_has_left(run_python: RunPython) -> None:
    source = """
import subprocess, sys
from graphseg.cli import main
for words in ([], ["build"], ["inspect"], ["plot"], ["compare"], ["train"], ["evaluate"], ["segment"]):
    try:
        main([*words, "--help"])
    except SystemExit as left:
        assert not left.code
heavy = {"torch", "numpy", "torch_geometric", "PIL", "scipy", "matplotlib", "tqdm"}
print("heavy:", sorted(heavy & set(sys.modules)))
"""
    assert run_python("-c", source).stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("words", [["build", "--help"], ["inspect", "OUT", "--json"]])
def test_a_reader_that_leaves_is_no_error(words: list[str], built: Path) -> None:
    """As `graphseg ... | head -1`, where head is gone before the first line."""
    words = [str(built) if word == "OUT" else word for word in words]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "graphseg", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_a_command_and_a_module(tree: Path, tmp_path: Path, run_python: RunPython) -> None:
    words = [str(word) for word in ["build", tree / "images", tmp_path / "out", "--num-segments", 9]]
    assert run_python("-m", "graphseg", *words).stdout.startswith("4 graphs")
    assert len(ImageGraphDataset(tmp_path / "out")) == 4
    setup = (ROOT / "setup.cfg").read_text()
    assert "graphseg = graphseg.cli:main" in setup
