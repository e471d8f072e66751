"""`graphseg train | evaluate | segment`: they do what the library does, go on where they stopped, refuse by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from graphseg.cli import main
from graphseg.datasets import CamVid, read_image
from graphseg.training import Recipe, TrainingTask, evaluate, load_network, load_recipe, recipe_names, train
from graphseg.training.segmenting import segment_image
from tests.conftest import RunPython
from tests.datasets.small_trees import IGNORE, NUM_CLASSES, cut_short, photo, read_tree, write_image, write_tree

Says = Callable[..., tuple[int, str, str]]

RECIPE = """
from graphseg.training import Recipe

OPTIONS = {"backbone": "resnet18", "width": 0.0625, "channels": 64, "auxiliary": False, "num_superpixels": [8]}
RECIPE = Recipe(
    name="mine",
    network="MSPNet",
    dataset="camvid",
    options=OPTIONS,
    resize=(24, 32),
    batch_size=2,
    max_steps=3,
    lr=0.05,
)
SMALL = RECIPE.but(max_steps=1)
"""


def run(*words: object) -> int:
    """The exit status of a command."""
    try:
        return main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """`says(*words)`: the exit status of a command and what it printed on the two streams."""

    def said(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return run(*words), *capsys.readouterr()

    return said


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tree`, six images with masks; `mine.py`, a recipe; `run`, what training by it gives; `camvid`, a small set."""
    root = tmp_path_factory.mktemp("training")
    write_tree(root / "tree", 6)
    (root / "mine.py").write_text(RECIPE)
    assert run(*training(root), "--out", root / "run") == 0
    lines = ["# split, files"]
    for k, split in enumerate(["train", "train", "val", "test_dev"]):
        write_image(root / f"camvid/images/{k}.png", photo(k))
        mask = np.digitize(photo(k)[..., 0], (60, 120, 180)).astype(np.uint8)
        write_image(root / f"camvid/labels/{k}.png", np.where(mask == 3, 11, mask))
        lines.append(f"{split}\timages/{k}.png\tlabels/{k}.png")
    (root / "camvid/splits.txt").write_text("\n".join(lines) + "\n")
    classes = [*(f"class{k}" for k in range(11)), "void"]
    (root / "camvid/classes.txt").write_text("\n".join(f"{k} {name}" for k, name in enumerate(classes)))
    return root


def labelled(root: Path) -> list[Any]:
    tree = root / "tree"
    return [
        "--data",
        tree / "images",
        "--labels",
        tree / "masks",
        "--num-classes",
        NUM_CLASSES,
        "--ignore-index",
        IGNORE,
    ]


def training(root: Path) -> list[Any]:
    """The words that made `run`, but for `--out`."""
    return ["train", root / "mine.py", *labelled(root), "--val-fraction", 0.3, "--seed", 5, "--quiet"]


def recipe_of(root: Path) -> Recipe:
    return Recipe(**load_network(root / "run/network.ckpt")[1].recipe)


def weights(path: Path) -> dict[str, Tensor]:
    return load_network(path)[0].state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def numbers(said: str) -> dict[str, float]:
    """Rows of a name and a figure."""
    rows = [line.split() for line in said.splitlines()]
    return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[1].replace(".", "").isdigit()}


# Train


@pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec:FutureWarning")  # Lightning's own affair
def test_training_is_the_librarys(place: Path, tmp_path: Path) -> None:
    network, info = load_network(place / "run/network.ckpt")
    assert info.network == "MSPNet" and info.kind == "semantic" and info.seed == 5
    assert network.num_classes == NUM_CLASSES and info.options["in_channels"] == 3
    recipe = recipe_of(place)
    assert recipe.dataset == "folder" and (recipe.max_steps, recipe.batch_size) == (3, 2)
    reader = read_tree(place / "tree")
    order = torch.randperm(6, generator=torch.Generator().manual_seed(5)).tolist()
    train(recipe, reader.index_select(sorted(order[2:])), out=tmp_path, seed=5, progress=False)
    assert same(weights(tmp_path / "network.ckpt"), network.state_dict())
    assert not same(weights(tmp_path / "network.ckpt"), weights_of(recipe, reader))


def weights_of(recipe: Recipe, reader: Any) -> dict[str, Tensor]:
    from graphseg.training import network_of

    return network_of(recipe, reader, 5).state_dict()


def test_figures_of_the_validation_are_said(place: Path, says: Says) -> None:
    status, said, err = says(*training(place), "--out", place / "run")  # nothing is left to do
    assert (status, err) == (0, "")
    assert said.splitlines()[-1] == f"the network: {place / 'run/network.ckpt'}"
    order = torch.randperm(6, generator=torch.Generator().manual_seed(5)).tolist()
    reader = read_tree(place / "tree").index_select(sorted(order[:2]))
    want = evaluate(load_network(place / "run/network.ckpt")[0], reader, recipe_of(place))
    assert numbers(said) == pytest.approx(want, abs=6e-5)


def test_interrupted_and_begun_again(place: Path, tmp_path: Path, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*training(place), "--out", tmp_path / "out", "--checkpoint-every", 1]
    step = TrainingTask.training_step

    def stop(self: TrainingTask, batch: Any, batch_idx: int) -> Tensor:
        if self.global_step == 2:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingTask, "training_step", stop)
        status, said, err = says(*words)
    assert (status, said) == (130, "") and "the same command goes on where it stopped" in err
    assert not (tmp_path / "out/network.ckpt").exists()
    seen = []

    def note(self: TrainingTask, batch: Any, batch_idx: int) -> Tensor:
        seen.append(self.global_step)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingTask, "training_step", note)
    assert says(*words)[0] == 0 and seen == [2]
    assert same(weights(tmp_path / "out/network.ckpt"), weights(place / "run/network.ckpt"))


@pytest.mark.parametrize("changed", [["--seed", 6], ["--steps", 4], ["--set", "alpha=0.5"], ["--batch-size", 1]])
def test_another_training_does_not_go_on_there(changed: list[Any], place: Path, says: Says) -> None:
    before = (place / "run/network.ckpt").read_bytes()
    status, said, err = says(*training(place), "--out", place / "run", *changed)
    assert (status, said) == (2, "") and "with a training of another" in err and "take another folder" in err
    assert (place / "run/network.ckpt").read_bytes() == before


def test_a_set_of_known_layout(place: Path, tmp_path: Path, says: Says) -> None:
    out = tmp_path / "out"
    words: list[Any] = ["train", "msp_camvid", "--data", place / "camvid", "--out", out, "--small", "--steps", 1]
    words += ["--batch-size", 2]
    status, _, err = says(*words, "--set", "width=0.0625", "--set", "num_superpixels=[4, 9]", "--set", "head=pspnet")
    assert status == 0, err
    network, info = load_network(out / "network.ckpt")
    assert isinstance(network, Module) and network.num_superpixels == (4, 9)
    assert info.options["head"] == "pspnet" and info.class_names == tuple(f"class{k}" for k in range(11))
    recipe = Recipe(**info.recipe)
    assert (recipe.max_steps, recipe.batch_size, recipe.dataset) == (1, 2, "camvid")
    assert list(recipe.resize or ()) == list(load_recipe("msp_camvid", small=True).resize or ())

    for words, split, count in (
        ([], "val", 1),
        (["--split", "train"], "train", 2),
        (["--split", "test_dev"], "test_dev", 1),
    ):
        status, said, err = says("evaluate", "--checkpoint", out / "network.ckpt", "--data", place / "camvid", *words)
        assert (status, err) == (0, "") and said.splitlines()[0] == f"{count} images of split {split}"
        want = evaluate(network, CamVid(place / "camvid", split), recipe)
        found = numbers(said)
        assert {name: found[name] for name in want} == pytest.approx(want, abs=6e-5)
        shares = [row.split() for row in said.split("IoU of each class\n")[1].splitlines()]
        assert [name for name, _ in shares] == [f"class{k}" for k in range(11)]
        known = [float(value) for _, value in shares if value != "-"]
        assert np.mean(known) == pytest.approx(want["miou"], abs=6e-5)
    assert run("train", "msp_camvid", "--data", place / "camvid", "--out", tmp_path / "x", "--val-split", "nobody") == 2


def test_the_other_kinds_of_networks(place: Path, tmp_path: Path, says: Says) -> None:
    """Without labels, and instances: trained, judged and used."""
    tree, images = place / "tree", place / "tree/images"
    cells = np.zeros((48, 64), np.uint8)
    cells[4:20, 4:30], cells[25:40, 35:60] = 1, 2
    for path in images.iterdir():
        write_image(tmp_path / "cells" / path.name, cells)
    small = ["--small", "--steps", 1, "--batch-size", 2, "--quiet", "--set", "width=0.0625"]
    out = tmp_path / "sgseg"
    words = ["train", "sgseg_msrc21", "--data", images, "--dataset", "folder", "--out", out, *small]
    assert run(*words, "--set", "num_classes=4", "--set", "num_superpixels=9", "--set", "k=3") == 0
    status, said, _ = says("evaluate", "--checkpoint", out / "network.ckpt", *labelled(place))
    assert status == 0 and said.startswith("6 images\n") and list(numbers(said)) == ["hungarian_accuracy"]
    assert 0 < numbers(said)["hungarian_accuracy"] <= 1
    status, _, err = says("evaluate", "--checkpoint", out / "network.ckpt", "--data", images)
    assert status == 2 and "expected masks to judge by" in err

    out = tmp_path / "instances"
    words = ["train", "affinity_dsb2018", "--data", images, "--instances", tmp_path / "cells", "--out", out, *small]
    assert run(*words, "--set", "distances=[1, 2]") == 0
    found = ["--data", images, "--instances", tmp_path / "cells", "-p", "roi_size=null", "-p", "window=1", "--json"]
    status, said, _ = says("evaluate", "--checkpoint", out / "network.ckpt", *found)
    assert status == 0 and set(json.loads(said)["figures"]) == {"ap", "ap50"} and "class_iou" not in json.loads(said)
    words = [images / "000.png", "--checkpoint", out / "network.ckpt", "-p", "roi_size=null", "--flip"]
    assert run("segment", *words, "--out", tmp_path / "found") == 0
    with Image.open(tmp_path / "found/instances/000.png") as numbers_of:
        count = len(set(np.asarray(numbers_of).flatten()) - {0})
    assert len(json.loads((tmp_path / "found/records/000.json").read_text())["instances"]) == count
    assert run("segment", *words, "--out", tmp_path / "none", "--scales", 1, 2) == 2
    assert run("segment", *words, "--out", tmp_path / "none", "-p", "nonsense=1") == 2
    assert tree.is_dir() and not (tmp_path / "none").exists()


def test_recipes_are_listed(says: Says) -> None:
    status, said, err = says("train", "--list")
    assert (status, err) == (0, "")
    _, *rows = said.splitlines()
    assert [row.split()[0] for row in rows] == recipe_names()
    for row in rows:
        recipe = load_recipe(row.split()[0])
        assert row.split()[1:3] == [recipe.network, recipe.dataset] and row.endswith(recipe.source)


def test_images_to_judge_by_in_another_folder(place: Path, tmp_path: Path, says: Says) -> None:
    other = write_tree(tmp_path / "other", 2, first=50)
    words = [*training(place)[:-5], "--small", "--quiet", "--out", tmp_path / "out"]
    of_val = ["--val-data", other / "images", "--val-labels", other / "masks"]
    status, said, err = says(*words, *of_val)
    assert (status, err) == (0, "")
    network, info = load_network(tmp_path / "out/network.ckpt")
    assert numbers(said) == pytest.approx(evaluate(network, read_tree(other), Recipe(**info.recipe)), abs=6e-5)
    for bad, message in (
        (of_val[:2], "only one of --labels and --val-labels"),
        (of_val[2:], "--val-labels without --val-data"),
        ([*of_val, "--val-fraction", 0.5], "--val-fraction and --val-data"),
        (["--val-fraction", 1.5], "--val-fraction 1.5 of 6 images"),
        (["--val-split", "val"], "--val-split without --dataset"),
        (["--split", "train"], "--split without --dataset"),
    ):
        status, said, err = says(*words[:-1], tmp_path / "none", *bad)
        assert (status, said) == (2, "") and message in err
    assert not (tmp_path / "none").exists()


FILES = {
    "no_recipe": ("A = 1", "with NoneType as RECIPE, expected a graphseg.training.Recipe"),
    "other": ("RECIPE = {'name': 'x'}", "with dict as RECIPE"),
    "syntax": ("a = 1\nRECIPE = (", "line 2: SyntaxError"),
    "fails": ("a = 1\n\nRECIPE = a / 0", "line 3: ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("name", FILES)
def test_recipe_files_that_will_not_do(name: str, place: Path, tmp_path: Path, says: Says) -> None:
    text, message = FILES[name]
    file = tmp_path / f"{name}.py"
    file.write_text(text)
    status, said, err = says("train", file, *labelled(place), "--out", tmp_path / "out")
    assert (status, said) == (2, "") and message in err and str(file) in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_training_that_cannot_begin(place: Path, tmp_path: Path, says: Says) -> None:
    out = tmp_path / "out"
    file, camvid = place / "mine.py", ["--data", place / "camvid"]
    refused: list[tuple[list[Any], int, str]] = [
        (["msp_camvid", "--out", out], 2, "are required: --data"),
        ([], 2, "are required: RECIPE, --data, --out"),
        (["msp_kitti", *camvid, "--out", out], 2, "got recipe 'msp_kitti', expected one of affinity_cityscapes"),
        (["nobody.py", *camvid, "--out", out], 3, "got recipe nobody.py, expected a Python file"),
        ([file, *camvid, "--out", place / "camvid/run"], 2, "expected another place"),
        ([file, *camvid, "--out", file], 3, "which is a file, expected a folder"),
        ([file, "--data", place / "nobody", "--out", out], 3, "nobody"),
        ([file, *camvid, "--out", out, "--channels", 3], 2, "--channels with --dataset camvid"),
        ([file, *camvid, "--out", out, "--val-fraction", 0.5], 2, "--val-fraction with --dataset camvid"),
        ([file, *camvid, "--out", out, "--split", "nobody"], 2, "got split 'nobody'"),
        ([file, *camvid, "--out", out, "--set", "width"], 2, "--set width, expected NAME=VALUE"),
        ([file, *camvid, "--out", out, "--set", "height=3"], 2, "'height'"),
        ([file, *camvid, "--out", out, "--steps", 0], 2, "max_steps=0"),
        ([file, *camvid, "--out", out, "--checkpoint-every", 0], 2, "checkpoint_every=0"),
        ([file, *camvid, "--out", out, "--accelerator", "gpu", "--devices", 99], 2, "gpu"),
        ([file, *camvid, "--out", out, "--weights", place / "nobody.pth"], 3, "nobody.pth"),
    ]
    for words, want, message in refused:
        status, said, err = says("train", *words)
        assert (status, said) == (want, "") and message in err, words
    assert not (out / "checkpoints").exists() and not (place / "camvid/run").exists()


def test_a_mask_without_its_image_is_named(place: Path, tmp_path: Path, says: Says) -> None:
    tree = write_tree(tmp_path / "tree", 3)
    (tree / "images/001.png").unlink()
    words = ["--labels", tree / "masks", "--num-classes", NUM_CLASSES, "--ignore-index", IGNORE]
    status, said, err = says(
        "train", place / "mine.py", "--data", tree / "images", *words, "--small", "--out", tmp_path / "o"
    )
    assert status == 1 and "the network: " in said and "001.png: got mask without an image" in err


# Evaluate


def test_the_figures_are_the_librarys(place: Path, says: Says) -> None:
    words = ["evaluate", "--checkpoint", place / "run/network.ckpt", *labelled(place)]
    network, reader, recipe = load_network(place / "run/network.ckpt")[0], read_tree(place / "tree"), recipe_of(place)
    options: list[Any] = ["--scales", 0.75, 1.25, "--flip", "--boundary-radius", 3]
    judging: dict[str, Any] = {"scales": (0.75, 1.25), "flip": True, "boundary_radius": 3}
    for more, given in ((options, judging), ([], {})):
        status, said, err = says(*words, *more, "--json")
        assert (status, err) == (0, "")
        found = json.loads(said, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
        assert found["figures"] == evaluate(network, reader, recipe, **given)
        assert found["images"] == 6 and found["split"] is None
        shares = [value for value in found["class_iou"].values() if value is not None]
        assert np.mean(shares) == pytest.approx(found["figures"]["miou"], abs=1e-12)
    assert list(found["class_iou"]) == ["class 0", "class 1", "class 2"]
    # A training's checkpoint is as good: the last one is the best of one validation.
    best = ["evaluate", "--checkpoint", place / "run/checkpoints/best.ckpt", *labelled(place), "--json"]
    assert json.loads(says(*best)[1])["figures"] == found["figures"]
    # The classes are the network's where nobody says: here no mask has the last one.
    one = ["--data", place / "tree/images/000.png", "--labels", place / "tree/masks/000.png", "--ignore-index", IGNORE]
    status, said, err = says("evaluate", "--checkpoint", place / "run/network.ckpt", *one)
    assert (status, err) == (0, "") and said.startswith("1 images\n")


def test_evaluations_that_cannot_be(place: Path, tmp_path: Path, says: Says) -> None:
    checkpoint, masks = place / "run/network.ckpt", place / "tree/masks"
    images = place / "tree/images"
    refused: list[tuple[list[Any], int, str]] = [
        (["--checkpoint", checkpoint], 2, "are required: --data"),
        (["--data", images], 2, "are required: --checkpoint"),
        (["--data", images, "--checkpoint", checkpoint], 2, "without classes, expected masks to judge by"),
        (
            ["--data", images, "--labels", masks, "--num-classes", 7, "--checkpoint", checkpoint],
            2,
            "7 classes, expected 3",
        ),
        (["--data", place / "camvid", "--dataset", "camvid", "--checkpoint", checkpoint], 2, "11 classes, expected 3"),
        ([*labelled(place), "--checkpoint", checkpoint, "--scales", 0], 2, "expected one or more factors above 0"),
        ([*labelled(place), "--checkpoint", tmp_path / "nobody.ckpt"], 3, "nobody.ckpt"),
        ([*labelled(place), "--checkpoint", checkpoint, "--device", "abacus"], 2, "--device abacus, expected one that"),
        (
            [*labelled(place), "--checkpoint", checkpoint, "--device", "cuda:99"],
            2,
            "--device cuda:99, expected one that",
        ),
    ]
    for words, want, message in refused:
        status, said, err = says("evaluate", *words)
        assert (status, said) == (want, "") and message in err, words


# Segment


def test_files_hold_what_the_network_says(place: Path, tmp_path: Path, says: Says) -> None:
    images, out = place / "tree/images", tmp_path / "out"
    words = ["segment", images, "--checkpoint", place / "run/network.ckpt", "--out", out]
    assert says(*words) == (0, f"6 images in {out} (6 new)\n", "")
    network, recipe = load_network(place / "run/network.ckpt")[0], recipe_of(place)
    assert recipe.resize is not None
    for path in images.iterdir():
        with Image.open(out / "labels" / path.name) as labels:
            found = np.asarray(labels)
        want = segment_image(network, read_image(path), size=(24, 32)).labels
        assert found.shape == (48, 64) and np.array_equal(found, want)
    assert says(*words) == (0, f"6 images in {out} (0 new)\n", "")
    assert says(*words, "--own-size", "--flip")[1] == f"6 images in {out} (6 new)\n"
    with Image.open(out / "labels/003.png") as labels:
        want = segment_image(network, read_image(images / "003.png"), flip=True).labels
        assert np.array_equal(np.asarray(labels), want)
    assert says(*words[:1], images / "001.png", images / "002.png", *words[2:-1], tmp_path / "two")[0] == 0
    assert {path.name for path in (tmp_path / "two/labels").iterdir()} == {"001.png", "002.png"}


def test_images_that_do_not_open(place: Path, tmp_path: Path, says: Says) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for k in range(8):
        cut_short(write_image(images / f"{k}.png", photo(k)), np.random.default_rng(k))
    words = ["segment", images, "--checkpoint", place / "run/network.ckpt", "--out", out]
    status, said, err = says(*words)
    assert (status, said) == (3, f"0 images in {out}; left out (8):\n".replace("out;", "out (0 new);"))
    assert err.endswith("graphseg: no image could be segmented\n")
    write_image(images / "3.png", photo(3))
    status, said, err = says(*words)
    assert (status, said) == (1, f"1 images in {out} (1 new); left out (7):\n")
    assert len(err.splitlines()) == 6 and str(out / "errors.jsonl") in err
    assert len((out / "errors.jsonl").read_text().splitlines()) == 7


def test_segmentations_that_cannot_be(place: Path, tmp_path: Path, says: Says) -> None:
    images, out = place / "tree/images", tmp_path / "out"
    whole = (place / "run/network.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    checkpoint = place / "run/network.ckpt"
    refused: list[tuple[list[Any], int, str]] = [
        ([images, "--checkpoint", tmp_path / "cut.ckpt", "--out", out], 3, "cut.ckpt, expected a checkpoint"),
        ([images, "--checkpoint", tmp_path / "foreign.ckpt", "--out", out], 3, "written by something else"),
        ([images, "--checkpoint", tmp_path / "nobody.ckpt", "--out", out], 3, "nobody.ckpt"),
        ([place / "nobody", "--checkpoint", checkpoint, "--out", out], 3, "nobody, expected images"),
        ([images, "--checkpoint", checkpoint, "--out", images / "out"], 2, "expected another place"),
        ([images, "--checkpoint", checkpoint, "--out", checkpoint], 3, "which is a file, expected a folder"),
        (
            [images, "--checkpoint", checkpoint, "--out", out, "-p", "window=1"],
            2,
            "expected none: it finds no instances",
        ),
        ([images, "--checkpoint", checkpoint, "--out", out, "--scales", -1], 2, "expected one or more factors above 0"),
        ([images, "--checkpoint", checkpoint, "--out", out, "--max-pixels", 0], 2, "--max-pixels=0"),
    ]
    for words, want, message in refused:
        status, said, err = says("segment", *words)
        assert (status, said) == (want, "") and message in err, words
    assert not out.exists()


# Without the extra


def test_the_extra_is_named(run_python: RunPython) -> None:
    source = """
import sys
sys.modules["lightning"] = None
from graphseg.cli import main
for words in ("train --list", "evaluate --checkpoint c --data d", "segment i --checkpoint c --out o"):
    assert main(words.split()) == 3
"""
    assert run_python("-c", source).stderr.splitlines() == [
        f'graphseg: graphseg {command} needs lightning: pip install "graphseg[train]"'
        for command in ("train", "evaluate", "segment")
    ]
