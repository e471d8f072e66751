"""What holds for every reader of an official layout."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from graphseg.datasets.ade20k import ADE20K
from graphseg.datasets.cityscapes import Cityscapes
from graphseg.datasets.coco_stuff import CocoStuff
from graphseg.datasets.pascal import PascalContext, PascalVOC
from graphseg.datasets.potsdam import Potsdam
from graphseg.datasets.reader import ImageReader
from graphseg.transforms import ToSuperpixelRAG
from tests.datasets import official_trees as trees

SETS: dict[str, tuple[trees.Writer, Callable[..., ImageReader], dict[str, Any]]] = {
    "cityscapes": (trees.write_cityscapes, Cityscapes, {}),
    "ade20k": (trees.write_ade20k, ADE20K, {}),
    "voc": (trees.write_voc, PascalVOC, {}),
    "context": (trees.write_context, PascalContext, {}),
    "coco": (trees.write_coco, CocoStuff, {}),
    "potsdam": (trees.write_potsdam, Potsdam, {"tile": 12}),
}


class Case:
    """A tree, what it holds, and its reader."""

    def __init__(self, name: str, root: Path) -> None:
        self.root = root
        write, self.reader_class, self.arguments = SETS[name]
        self.written = write(root)

    def open(self, **more: Any) -> ImageReader:
        return self.reader_class(self.root, **{**self.arguments, **more})


@pytest.fixture(params=list(SETS))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


def same(a: Any, b: Any) -> bool:
    a, b = a.to_dict(), b.to_dict()
    return a.keys() == b.keys() and all(
        torch.equal(value, b[key]) if isinstance(value, torch.Tensor) else value == b[key] for key, value in a.items()
    )


def test_reads_every_pixel_as_it_was_written(case: Case) -> None:
    reader = case.open()
    assert reader.bad_files == []
    assert [(s.source, s.split) for s in reader.samples] == [(w.source, w.split) for w in case.written]
    for data, written in zip(reader, case.written, strict=True):
        assert data.source == written.source
        assert data.image.dtype == torch.uint8
        assert np.array_equal(data.image.permute(1, 2, 0).numpy(), written.image)
        assert data.mask.dtype == torch.int64
        assert np.array_equal(data.mask.numpy(), written.mask)
        assert ("instances" in data) == (written.instances is not None)
        if written.instances is not None:
            assert np.array_equal(data.instances.numpy(), written.instances)


def test_masks_hold_every_class_and_nothing_else(case: Case) -> None:
    reader = case.open()
    found = set(torch.cat([data.mask.flatten() for data in reader]).tolist()) - {reader.ignore_index}
    assert found == set(range(reader.num_classes or 0))
    assert len(reader.class_names) in (0, reader.num_classes)


def test_splits_are_read_apart_and_together(case: Case) -> None:
    whole = case.open()
    for split in {w.split for w in case.written}:
        alone = case.open(split=split)
        assert [s.source for s in alone.samples] == [w.source for w in case.written if w.split == split]
        part = whole.split(split)
        assert all(same(a, b) for a, b in zip(alone, part, strict=True))
    with pytest.raises(ValueError, match="split='dev'"):
        case.open(split="dev")


def test_pickles_and_reads_one_sample_alone(case: Case) -> None:
    reader = case.open()
    again = pickle.loads(pickle.dumps(reader))
    for i in range(len(reader)):
        single = pickle.loads(pickle.dumps(reader.single(i)))
        assert len(single) == 1
        assert same(single[0], reader[i])
        assert same(again[i], reader[i])


def test_becomes_graphs_on_the_fly(case: Case) -> None:
    plain = case.open()
    transform = ToSuperpixelRAG(20, num_classes=plain.num_classes, ignore_index=plain.ignore_index)
    reader = case.open(transform=transform)
    graphs = list(reader)
    Batch.from_data_list(graphs).validate()
    for graph, written in zip(graphs, case.written, strict=True):
        assert graph.source == written.source
        labelled = written.mask[written.mask != plain.ignore_index]
        counts = np.bincount(labelled, minlength=plain.num_classes or 0)
        assert np.array_equal(graph.label_counts.sum(0).numpy(), counts)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        *(("cityscapes", folder) for folder in ("leftImg8bit", "gtFine", "gtFine/val")),
        *(("ade20k", folder) for folder in ("images", "annotations", "annotations/validation")),
        *(("voc", f"VOCdevkit/VOC2012/{folder}") for folder in ("JPEGImages", "SegmentationClass", "ImageSets")),
        *(("context", folder) for folder in ("59_context_labels", "VOCdevkit", "VOCdevkit/VOC2010/ImageSets")),
        *(("coco", folder) for folder in ("images", "stuffthingmaps", "stuffthingmaps/train2017")),
        *(("potsdam", folder) for folder in ("4_Ortho_RGBIR", "5_Labels_*")),
    ],
)
def test_names_what_a_missing_folder_should_hold(name: str, folder: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    for path in tmp_path.glob(folder):
        shutil.rmtree(path)
    with pytest.raises(FileNotFoundError, match=r"^got no .*, expected .*\.(tif|png|txt)"):
        case.open()


def test_folders_without_images_are_not_a_data_set(case: Case) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        case.reader_class(case.root / "nowhere")
    for path in case.root.rglob("*.*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(FileNotFoundError, match=r"^got no "):
        case.open()


def test_a_missing_partner_is_told_and_the_rest_is_read(case: Case) -> None:
    sample = case.open().samples[0]
    lost = sample.files["mask"]
    lost.unlink()
    reader = case.open()
    left = [w for w in case.written if w.source.split("_r")[0] != sample.source.split("_r")[0]]
    assert [s.source for s in reader.samples] == [w.source for w in left]
    assert len(reader.bad_files) == 1
    bad = reader.bad_files[0]
    assert bad.file in {str(lost), str(sample.files["image"])}
    assert "expected" in bad.reason
    assert all(np.array_equal(data.mask.numpy(), w.mask) for data, w in zip(reader, left, strict=True))


def test_images_too_large_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match=r"max_pixels=100"):
        case.open(max_pixels=100, **{key: None for key in case.arguments if key == "tile"})[0]


def test_recipe_is_plain_and_the_same_for_the_same_arguments(case: Case) -> None:
    reader = case.open()
    recipe = reader.recipe()
    assert recipe == case.open().recipe()
    assert recipe["reader"] == type(reader).__name__
    assert all(isinstance(value, str | int | bool | None) for value in recipe.values())
