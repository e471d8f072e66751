"""Files of networks: the same outputs again, no code run, clear words for what is cut off or someone else's."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from graphseg.datasets import ImageReader
from graphseg.models import SegmentationNetwork
from graphseg.training import NetworkInfo, load_network, network_of, read_checkpoint, save_network
from graphseg.training.checkpoint import make_network, write_checkpoint
from tests.training._small import TINY, Scenes, tiny

NETWORKS = ["MSPNet", "ESCRFNet", "CDGCNet", "SGSeg", "AffinityInstances"]


def saved(tmp_path, name="MSPNet"):
    recipe = tiny(name)
    reader: ImageReader = Scenes(1)
    network = network_of(recipe, reader, seed=1)
    info = NetworkInfo(
        network=name,
        options=network.options,  # type: ignore[arg-type]
        kind=recipe.kind,
        recipe=recipe.values(),
        class_names=("ground", "a", "b"),
        seed=1,
    )
    save_network(network, info, tmp_path / "network.ckpt")
    return network.eval(), info, tmp_path / "network.ckpt"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_is_the_same_again(name, tmp_path):
    network, info, path = saved(tmp_path, name)
    again, known = load_network(path)
    assert type(again) is type(network) and not again.training
    assert known == info and json.loads(json.dumps(known.values())) == known.values()
    image = torch.rand(2, 3, 24, 30)
    assert torch.equal(again(image)[0], network(image)[0])
    assert known.values() == read_checkpoint(path)["graphseg"] == torch.load(path, weights_only=True)["graphseg"]


def test_nothing_is_saved_but_the_weights_and_what_they_are(tmp_path):
    network, _, path = saved(tmp_path)
    content = read_checkpoint(path)
    assert content.keys() == {"graphseg", "state_dict"}
    assert content["state_dict"].keys() == {f"network.{key}" for key in network.state_dict()}


def test_weights_go_into_a_network_with_a_backbone_of_ones_own(tmp_path):
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out_channels = [8]
            self.conv = nn.Conv2d(3, 8, 3, 4, 1)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [self.conv(x)]

    def own() -> SegmentationNetwork:
        return SegmentationNetwork(3, backbone=Backbone(), head="deeplabv3", width=0.0625, auxiliary=False)

    network = own().eval()
    info = NetworkInfo(network="SegmentationNetwork", options=network.options)
    save_network(network, info, tmp_path / "a.ckpt")
    again, _ = load_network(tmp_path / "a.ckpt", own())
    image = torch.rand(1, 3, 20, 24)
    assert torch.equal(again(image).logits, network(image).logits)
    with pytest.raises(ValueError, match="got backbone='Backbone', expected one of"):
        load_network(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="weights that do not fit SegmentationNetwork"):
        load_network(tmp_path / "a.ckpt", SegmentationNetwork(3, **TINY))


# Files of another kind


class Code:
    """Unpickled, it would write a file."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, 0.99, -1])
def test_a_file_that_is_cut_off_is_refused(left, tmp_path):
    _, _, path = saved(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    for read in (read_checkpoint, load_network):
        with pytest.raises(ValueError, match=r"network\.ckpt, expected a checkpoint: it is cut off, or another kind"):
            read(path)


def test_no_code_is_run(tmp_path):
    trap = tmp_path / "trap"
    with (tmp_path / "pickle.ckpt").open("wb") as file:
        pickle.dump(Code(trap), file)
    torch.save({"graphseg": {"version": 1}, "state_dict": Code(trap)}, tmp_path / "saved.ckpt")
    torch.save(SegmentationNetwork(2, **TINY), tmp_path / "module.ckpt")
    for name in ("pickle", "saved", "module"):
        with pytest.raises(
            ValueError, match=rf"{name}\.ckpt, expected a checkpoint: it is cut off, or another kind"
        ) as e:
            read_checkpoint(tmp_path / f"{name}.ckpt")
        assert "weights_only" not in str(e.value)  # torch advises to load without
    assert not trap.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"weight": torch.zeros(2)}, "pytorch-lightning_version": "2.6.0", "epoch": 3},
        {"weight": torch.zeros(2)},
        {"graphseg": {"version": 1}},
        {"graphseg": 3, "state_dict": {}},
        [torch.zeros(2)],
        torch.zeros(2),
    ],
    ids=["lightning", "weights", "no weights", "no info", "list", "tensor"],
)
def test_files_of_others_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match=r"foreign\.ckpt, expected a checkpoint of graphseg; this file was written by"):
        load_network(tmp_path / "foreign.ckpt")


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match=r"picture\.png, expected a checkpoint"):
        load_network(path)
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "none.ckpt")
    with pytest.raises(OSError, match=str(tmp_path.name)):
        load_network(tmp_path)


def test_another_version_or_network_is_refused(tmp_path):
    _, info, path = saved(tmp_path)
    content = read_checkpoint(path)
    for change, message in (
        ({"version": 99}, "got version 99 of .*, expected 1"),
        ({"network": "Unheard"}, "got network 'Unheard', expected one of .*MSPNet"),
        ({"network": "ResNet"}, "got network 'ResNet', expected one of"),  # of graphseg.models, but none to train
    ):
        torch.save({**content, "graphseg": {**info.values(), **change}}, tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match=message):
            load_network(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="expected one of"):
        make_network("__builtins__", {})


def test_incomplete_words_on_the_network_are_refused(tmp_path):
    _, info, path = saved(tmp_path)
    content = read_checkpoint(path)
    for name in ("network", "options", "kind", "recipe", "class_names", "seed"):
        known = {key: value for key, value in info.values().items() if key != name}
        torch.save({**content, "graphseg": known}, tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match=rf"other\.ckpt.*{name}"):
            load_network(tmp_path / "other.ckpt")


def test_other_weights_are_refused_by_name(tmp_path):
    _, _, path = saved(tmp_path)
    content = read_checkpoint(path)
    state = content["state_dict"]
    missing = {key: value for key, value in state.items() if key != "network.classifier.bias"}
    narrow = {**state, "network.classifier.bias": torch.zeros(7)}
    for changed in (missing, narrow):
        torch.save({**content, "state_dict": changed}, tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match=r"other\.ckpt with weights that do not fit MSPNet: .*classifier\.bias"):
            load_network(tmp_path / "other.ckpt")
    # Others' entries beside the network's are passed over: metrics of the validation, say.
    torch.save({**content, "state_dict": {**state, "judge.network.x": torch.zeros(2)}}, tmp_path / "more.ckpt")
    load_network(tmp_path / "more.ckpt")


# Writing


def test_writing_makes_folders_and_takes_the_place_of_the_file_before(tmp_path):
    path = tmp_path / "a" / "b" / "x.ckpt"
    for value in (1, 2):
        write_checkpoint({"graphseg": {"version": 1}, "state_dict": {}, "value": value}, path)
        assert read_checkpoint(path)["value"] == value
    assert [found.name for found in path.parent.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("moment", ["save", "fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_file_before(moment, error, tmp_path, monkeypatch):
    _, _, path = saved(tmp_path)
    before = path.read_bytes()

    def fail(*arguments: Any) -> None:
        if moment == "save":
            arguments[1].write(b"some of it")
        raise error("no room")

    monkeypatch.setattr(f"torch.{moment}" if moment == "save" else f"os.{moment}", fail)
    with pytest.raises(error, match="no room"):
        write_checkpoint({"graphseg": {}, "state_dict": {}}, path)
    monkeypatch.undo()
    assert path.read_bytes() == before and [found.name for found in tmp_path.iterdir()] == ["network.ckpt"]
