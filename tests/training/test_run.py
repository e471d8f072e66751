"""Training from images to a file: what is left in the folder, and what happens when the same command comes again."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from graphseg.models import SegmentationNetwork, resnet18
from graphseg.training import TrainingTask, evaluate, load_network, network_of, read_checkpoint, train
from tests.training._small import OWN_WARNINGS, TINY, Scenes, tiny

pytestmark = OWN_WARNINGS
QUIET: dict[str, Any] = {"progress": False, "num_pictures": 0}


def weights(network: nn.Module) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def logged(out: Path, name: str) -> list[float]:
    with (out / "logs" / "version_0" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_training_leaves_what_it_promises(tmp_path):
    recipe, reader, val = tiny(max_steps=5), Scenes(5), Scenes(3)
    network = train(recipe, reader, val, out=tmp_path, checkpoint_every=2, val_every=2, num_pictures=2, progress=False)
    assert not network.training
    again, info = load_network(tmp_path / "network.ckpt")
    assert equal(weights(again), weights(network)) and not equal(weights(again), weights(network_of(recipe, reader)))
    assert (info.network, info.kind, info.recipe) == ("MSPNet", "semantic", recipe.values())
    assert info.class_names == ("class 0", "class 1", "class 2")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "step=4.ckpt"]
    assert read_checkpoint(tmp_path / "checkpoints" / "step=4.ckpt")["global_step"] == 4
    # Validation after 2 and 4 steps; the best of them is kept, and is what it was said to be.
    scores = logged(tmp_path, "val/miou")
    assert len(scores) == 2 and len(logged(tmp_path, "val/boundary_f")) == 2
    best, _ = load_network(tmp_path / "checkpoints" / "best.ckpt")
    assert evaluate(best, val, recipe)["miou"] == pytest.approx(max(scores), rel=1e-6)
    pictures = sorted(str(path.relative_to(tmp_path / "pictures")) for path in (tmp_path / "pictures").rglob("*.png"))
    assert pictures == [f"scene00{i}/000000{step}.png" for i in (0, 1) for step in (2, 4)]
    assert np.asarray(Image.open(tmp_path / "pictures" / pictures[0])).shape == (24, 32, 3)
    assert list((tmp_path / "tensorboard").rglob("events.*"))


def test_rates_are_logged_as_the_recipe_has_them(tmp_path):
    # Logged where every step is: the interval is 50 steps, or the training if it is shorter.
    recipe = tiny(max_steps=1, lr=0.25)
    train(recipe, Scenes(3), out=tmp_path, **QUIET)
    assert logged(tmp_path, "lr-SGD") == [0.25]
    assert logged(tmp_path, "train/loss") and not (tmp_path / "pictures").exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step=1.ckpt"]


def test_seeds_decide(tmp_path):
    recipe = tiny(max_steps=2)
    found = []
    for k, seed in enumerate((0, 0, 1)):
        torch.manual_seed(k)
        found.append(weights(train(recipe, Scenes(4), out=tmp_path / str(k), seed=seed, **QUIET)))
    assert equal(found[0], found[1]) and not equal(found[0], found[2])


def test_a_finished_training_is_not_trained_again(tmp_path, monkeypatch):
    recipe = tiny(max_steps=2)
    first = train(recipe, Scenes(3), out=tmp_path, **QUIET)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(TrainingTask, "training_step", refuse)
    for deleted in (False, True):
        if deleted:  # killed before it was written
            (tmp_path / "network.ckpt").unlink()
        again = train(recipe, Scenes(3), out=tmp_path, **QUIET)
        assert equal(weights(first), weights(again))
        assert equal(weights(load_network(tmp_path / "network.ckpt")[0]), weights(first))


def test_another_training_in_the_same_folder_is_refused(tmp_path):
    train(tiny(max_steps=1), Scenes(3), out=tmp_path, **QUIET)
    before = (tmp_path / "network.ckpt").read_bytes()
    for changes, seed, reason in (
        ({"lr": 0.5, "max_steps": 1}, 0, "recipe"),
        ({"max_steps": 1}, 1, "seed"),
        ({"max_steps": 1, "options": {"width": 0.125}}, 0, "options"),
    ):
        with pytest.raises(ValueError, match=f"with a training of another {reason}.*take another folder"):
            train(tiny(**changes), Scenes(3), out=tmp_path, seed=seed, **QUIET)
    with pytest.raises(ValueError, match="another"):
        train(tiny("SGSeg", max_steps=1), Scenes(3), out=tmp_path, **QUIET)
    assert (tmp_path / "network.ckpt").read_bytes() == before


def test_a_checkpoint_that_is_spoilt_is_not_gone_on_with(tmp_path):
    train(tiny(max_steps=1), Scenes(3), out=tmp_path, **QUIET)
    path = tmp_path / "checkpoints" / "step=1.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"step=1\.ckpt, expected a checkpoint: it is cut off"):
        train(tiny(max_steps=1), Scenes(3), out=tmp_path, **QUIET)


class Backbone(nn.Module):
    """One map of stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = [8]
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x).relu()]


def own_network() -> SegmentationNetwork:
    return SegmentationNetwork(3, backbone=Backbone(), head="deeplabv3", width=0.0625, auxiliary=False)


def test_a_network_of_ones_own_is_trained_goes_on_and_loads(tmp_path):
    recipe = tiny(max_steps=2)
    torch.manual_seed(0)
    network = train(recipe, Scenes(3), out=tmp_path, network=own_network(), **QUIET)
    again, info = load_network(tmp_path / "network.ckpt", own_network())
    assert info.network == "SegmentationNetwork" and equal(weights(again), weights(network))
    assert equal(weights(train(recipe, Scenes(3), out=tmp_path, network=own_network(), **QUIET)), weights(network))
    with pytest.raises(ValueError, match="got backbone='Backbone', expected one of"):
        load_network(tmp_path / "network.ckpt")


def test_a_backbone_starts_from_the_weights_of_a_file(tmp_path):
    file = tmp_path / "resnet.pth"
    torch.manual_seed(5)
    trained = resnet18(width=TINY["width"])
    torch.save({**trained.state_dict(), "fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, file)
    still: dict[str, Any] = {"lr": 0.0, "freeze_norm": True, "max_steps": 1}
    network: Any = train(tiny(**still), Scenes(3), out=tmp_path / "a", weights=file, **QUIET)
    assert equal(weights(network.backbone), weights(trained))
    # Both branches of the affinity network have one.
    network = train(tiny("AffinityInstances", **still), Scenes(3), out=tmp_path / "b", weights=file, **QUIET)
    assert all(equal(weights(one.backbone), weights(trained)) for one in (network.semantic, network.instance))
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected a state dict"):
        train(tiny(**still), Scenes(3), out=tmp_path / "c", weights=file, **QUIET)
    train(tiny(**still), Scenes(3), out=tmp_path / "a", weights=file, **QUIET)  # going on, it is not read


@pytest.mark.parametrize(
    ("name", "figure", "changes"),
    [
        ("SGSeg", "val/hungarian_accuracy", {"stages": (("spnn", 1), ("joint", 1))}),
        ("AffinityInstances", "val/ap", {}),
        ("ESCRFNet", "val/miou", {"superpixels": "cached"}),
        ("CDGCNet", "val/miou", {"class_map": (0, 255, 1)}),
    ],
)
def test_every_kind_trains_and_is_judged_at_the_end(name, figure, changes, tmp_path):
    recipe = tiny(name, max_steps=2, **changes)
    train(recipe, Scenes(3), Scenes(2), out=tmp_path, val_every=100, num_pictures=1, progress=False)
    assert len(logged(tmp_path, figure)) == 1 and len(list((tmp_path / "pictures").rglob("*.png"))) == 1
    assert (tmp_path / "superpixels").exists() == (changes.get("superpixels") == "cached")
    assert all(value.isfinite().all() for value in weights(load_network(tmp_path / "network.ckpt")[0]))


def test_mixed_precision_trains(tmp_path):
    network = train(tiny(max_steps=2), Scenes(3), out=tmp_path, trainer={"precision": "bf16-mixed"}, **QUIET)
    assert {value.dtype for value in weights(network)} == {torch.float32, torch.int64}
    assert all(value.isfinite().all() for value in weights(network))


class Asked(Exception):
    pass


@pytest.mark.parametrize(
    ("name", "trainer", "strategy"),
    [
        ("MSPNet", {"devices": 2}, None),
        ("SGSeg", {}, None),
        ("SGSeg", {"devices": 2}, "ddp_find_unused_parameters_true"),
        ("SGSeg", {"devices": 2, "strategy": "auto"}, "ddp_find_unused_parameters_true"),
        ("SGSeg", {"num_nodes": 2, "strategy": "ddp"}, "ddp_find_unused_parameters_true"),
        ("SGSeg", {"devices": 2, "strategy": "fsdp"}, "fsdp"),
    ],
)
def test_processes_may_train_a_part_of_the_network(name, trainer, strategy, tmp_path, monkeypatch):
    def ask(**options: Any) -> None:
        raise Asked(options.get("strategy"), options["sync_batchnorm"])

    monkeypatch.setattr(lightning, "Trainer", ask)
    with pytest.raises(Asked) as asked:
        train(tiny(name), Scenes(2), out=tmp_path, trainer=trainer, **QUIET)
    assert asked.value.args == (strategy, bool(trainer) and torch.cuda.is_available())


def test_bad_arguments_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="got checkpoint_every=0, expected at least 1"):
        train(tiny(), Scenes(2), out=tmp_path, checkpoint_every=0)
    with pytest.raises(ValueError, match=r"got Scenes\(2\) without classes"):
        train(tiny(), Scenes(2, num_classes=None), out=tmp_path)
    with pytest.raises(ValueError, match=r"got shape \[2, 4, 16, 20\] for image, expected \[\*, 3, \*, \*\]"):
        train(tiny(max_steps=1, options={"in_channels": 3}), Scenes(2, channels=4), out=tmp_path, **QUIET)
