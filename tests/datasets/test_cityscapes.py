"""Cityscapes: coarse annotations, train ids, instances, images without annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphseg.datasets.cityscapes import Cityscapes
from tests.datasets import official_trees as trees

NAMES = (
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, "
    "rider, car, truck, bus, train, motorcycle, bicycle"
)


def test_classes_are_those_of_the_benchmark(tmp_path: Path) -> None:
    trees.write_cityscapes(tmp_path)
    reader = Cityscapes(tmp_path)
    assert reader.class_names == tuple(NAMES.split(", "))
    assert (reader.num_classes, reader.ignore_index) == (19, 255)


def test_coarse_annotations_have_a_split_of_their_own(tmp_path: Path) -> None:
    written = trees.write_cityscapes(tmp_path, "gtCoarse")
    reader = Cityscapes(tmp_path, annotations="gtCoarse")
    assert [(s.source, s.split) for s in reader.samples] == [(w.source, w.split) for w in written]
    for data, w in zip(reader, written, strict=True):
        assert np.array_equal(data.mask.numpy(), w.mask)
        assert w.instances is not None
        assert np.array_equal(data.instances.numpy(), w.instances)
    trees.write_cityscapes(tmp_path / "fine")
    assert reader.recipe() != Cityscapes(tmp_path / "fine").recipe()
    with pytest.raises(ValueError, match="annotations='gtBoth'"):
        Cityscapes(tmp_path, annotations="gtBoth")


def test_train_ids_are_read_where_there_are_no_label_ids(tmp_path: Path) -> None:
    written = trees.write_cityscapes(tmp_path)
    for path, w in zip(sorted(tmp_path.glob("gtFine/[tv]*/[!b]*/*_labelIds.png")), written[::2], strict=True):
        trees.write_map(path.with_name(path.name.replace("labelIds", "labelTrainIds")), w.mask)
        path.unlink()
    reader = Cityscapes(tmp_path)
    assert len({s.files["mask"].stem.split("_")[-1] for s in reader.samples}) == 2
    for data, w in zip(reader, written, strict=True):
        assert np.array_equal(data.mask.numpy(), w.mask)


def test_instances_are_left_out_where_the_folder_has_none(tmp_path: Path) -> None:
    trees.write_cityscapes(tmp_path)
    with_instances = Cityscapes(tmp_path).recipe()
    for path in tmp_path.rglob("*_instanceIds.png"):
        path.unlink()
    reader = Cityscapes(tmp_path)
    assert len(reader) == 3
    assert "instances" not in reader[0]
    assert reader.recipe() != with_instances


def test_images_without_public_annotations_are_read_when_asked_for(tmp_path: Path) -> None:
    trees.write_cityscapes(tmp_path)
    reader = Cityscapes(tmp_path, split="test")
    assert [(s.source, s.split) for s in reader.samples] == [("berlin/berlin_000000_000019", "test")]
    assert sorted(reader[0].keys()) == ["image", "source"]
    with pytest.raises(FileNotFoundError, match=r"demoVideo, expected leftImg8bit"):
        Cityscapes(tmp_path, split="demoVideo")


@pytest.mark.parametrize(("kind", "number"), [("labelIds", 34), ("labelTrainIds", 19), ("labelTrainIds", 254)])
def test_numbers_of_no_label_are_refused(tmp_path: Path, kind: str, number: int) -> None:
    trees.write_cityscapes(tmp_path)
    path = next(tmp_path.glob("gtFine/val/*/*_labelIds.png"))
    path.unlink()
    trees.write_map(path.with_name(path.name.replace("labelIds", kind)), np.full((trees.HEIGHT, trees.WIDTH), number))
    reader = Cityscapes(tmp_path, split="val")
    with pytest.raises(ValueError, match=rf"got label {number} in .*{kind}\.png \(864 pixels.*expected 0 to"):
        reader[0]
