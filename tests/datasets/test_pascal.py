"""PASCAL VOC 2012 and PASCAL Context: where the root may be, lists, augmented labels, .mat files, classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from graphseg.datasets.pascal import CONTEXT_59, PascalContext, PascalVOC, read_label_map
from tests.datasets import official_trees as trees

VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
# The numbers of the 59 classes among the 459, as the toolkit of the PASCAL in Detail challenge lists them.
DETAIL_59 = [
    *(2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296),
    *(427, 44, 45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220),
    *(349, 360, 98, 187, 104, 105, 366, 189, 368, 113, 115),
]
# What three of the 59 are called among the 459.
OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_opens_at_every_level(tmp_path: Path, inside: str) -> None:
    written = trees.write_voc(tmp_path)
    reader = PascalVOC(tmp_path / inside)
    assert [(s.source, s.split) for s in reader.samples] == [(w.source, w.split) for w in written]
    assert reader.class_names == tuple(VOC_NAMES.split())


def test_voc_trainval_is_a_list_of_its_own(tmp_path: Path) -> None:
    written = trees.write_voc(tmp_path)
    reader = PascalVOC(tmp_path, split="trainval")
    assert [(s.source, s.split) for s in reader.samples] == [(s, "trainval") for s in sorted(w.source for w in written)]


@pytest.mark.parametrize("name", ["trainaug", "train_aug"])
def test_voc_augmented_labels_have_a_folder_and_a_list_of_their_own(tmp_path: Path, name: str) -> None:
    trees.write_voc(tmp_path)
    voc = tmp_path / "VOCdevkit/VOC2012"
    labels = trees.numbers(21)
    trees.write_map(voc / "SegmentationClassAug/2008_000001.png", labels)
    lines = ["/JPEGImages/2008_000001.jpg /SegmentationClassAug/2008_000001.png", "2007_000032"]
    trees.write_lines(voc / f"ImageSets/Segmentation/{name}.txt", lines)
    reader = PascalVOC(tmp_path, split="trainaug")
    assert [(s.source, s.split) for s in reader.samples] == [("2008_000001", "trainaug")]
    assert np.array_equal(reader[0].mask.numpy(), labels)
    assert "instances" not in reader[0]
    assert [bad.file for bad in reader.bad_files] == [str(voc / "SegmentationClassAug/2007_000032.png")]


def test_voc_without_objects_has_no_instances(tmp_path: Path) -> None:
    trees.write_voc(tmp_path)
    recipe = PascalVOC(tmp_path).recipe()
    (tmp_path / "VOCdevkit/VOC2012/SegmentationObject").rename(tmp_path / "elsewhere")
    reader = PascalVOC(tmp_path)
    assert "instances" not in reader[0]
    assert reader.recipe() != recipe


def test_voc_test_images_have_no_masks(tmp_path: Path) -> None:
    trees.write_voc(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"test\.txt, expected a list of images"):
        PascalVOC(tmp_path, split="test")
    trees.write_lines(tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt", ["2008_000001"])
    assert sorted(PascalVOC(tmp_path, split="test")[0].keys()) == ["image", "source"]


def test_voc_numbers_of_no_class_are_refused(tmp_path: Path) -> None:
    trees.write_voc(tmp_path)
    trees.write_map(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png", trees.numbers(22))
    with pytest.raises(ValueError, match=r"got label 21 in .*2007_000033\.png .*expected 0 to 20, 255"):
        PascalVOC(tmp_path, split="val")[0]


def test_context_numbers_are_those_of_the_detail_toolkit_and_alphabetical() -> None:
    assert sorted(CONTEXT_59.values()) == sorted(DETAIL_59)
    by_name = sorted(CONTEXT_59, key=lambda name: OTHER_NAMES.get(name, name))
    assert [CONTEXT_59[name] for name in by_name] == sorted(DETAIL_59)
    # The order of 59_labels.txt: the twenty of VOC, then the others.
    assert list(CONTEXT_59)[:20] == VOC_NAMES.split()[1:]
    assert [list(CONTEXT_59).index(name) + 1 for name in ("bag", "curtain", "bedcloth", "wood")] == [21, 42, 52, 59]


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2010"])
def test_context_opens_at_every_level(tmp_path: Path, inside: str) -> None:
    written = trees.write_context(tmp_path)
    (tmp_path / "59_context_labels").rename(tmp_path / inside / "59_context_labels")
    reader = PascalContext(tmp_path / inside)
    assert [(s.source, s.split) for s in reader.samples] == [(w.source, w.split) for w in written]
    assert np.array_equal(reader[0].mask.numpy(), written[0].mask)


def test_context_background_may_count_as_a_class(tmp_path: Path) -> None:
    written = trees.write_context(tmp_path)
    reader = PascalContext(tmp_path, classes=60)
    assert reader.class_names[:3] == ("background", "aeroplane", "bicycle")
    assert np.array_equal(reader[0].mask.numpy(), np.where(written[0].mask == 255, 0, written[0].mask + 1))
    recipes = [PascalContext(tmp_path, classes=classes).recipe() for classes in (59, 60)]
    assert recipes[0] != recipes[1]
    with pytest.raises(ValueError, match="classes=33, expected one of 59, 60, 459"):
        PascalContext(tmp_path, classes=33)
    with pytest.raises(FileNotFoundError, match=r"expected .*trainval/\*\.mat"):
        PascalContext(tmp_path, classes=459)


def test_context_matrices_give_459_60_and_59_classes(tmp_path: Path) -> None:
    written = trees.write_context(tmp_path, "trainval")
    names = [f"class {n}" for n in range(1, 460)]
    every = PascalContext(tmp_path, classes=459)
    assert (every.num_classes, every.ignore_index, every.class_names) == (459, 65535, ())
    trees.write_lines(tmp_path / "labels.txt", [f"{n}: {name}" for n, name in enumerate(names, 1)])
    every = PascalContext(tmp_path, classes=459)
    assert every.class_names == tuple(names)
    for i, w in enumerate(written):
        assert np.array_equal(every[i].mask.numpy(), w.mask)
        for classes, first, other in ((59, 0, 255), (60, 1, 0)):
            expected = np.full_like(w.mask, other)
            for k, number in enumerate(CONTEXT_59.values()):
                expected[w.mask == number - 1] = first + k
            assert np.array_equal(PascalContext(tmp_path, classes=classes)[i].mask.numpy(), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"Other": np.ones((2, 2))}, r"LabelMap of kind missing"),
        ({"LabelMap": np.ones((2, 2, 2))}, r"size \[2, 2, 2\]"),
        ({"LabelMap": np.array([["a", 1]], dtype=object)}, r"kind cell"),
        ({"LabelMap": "text"}, r"kind char"),
        ({"LabelMap": {"a": 1}}, r"kind struct"),
        ({"LabelMap": np.array([[0.5, 1.0]])}, r"fractions"),
        ({"LabelMap": np.array([[np.nan, 1.0]])}, r"fractions"),
        ({"LabelMap": np.ones((11, 10), dtype=np.uint16)}, r"got 110 pixels .* max_pixels=100"),
    ],
)
def test_context_matrices_of_other_kinds_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=message):
        read_label_map(tmp_path / "a.mat", 100)


def test_context_damaged_matrices_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    savemat(file, {"LabelMap": np.arange(10_000, dtype=np.uint16).reshape(100, 100)}, do_compression=True)
    whole = file.read_bytes()
    assert read_label_map(file, 10_000).flatten().tolist() == list(range(10_000))
    for size in (0, 3, 100, 130, 140, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.mat"):
            read_label_map(file, 10_000)
    with pytest.raises(FileNotFoundError):
        read_label_map(tmp_path / "b.mat", 10_000)


def test_context_matrices_of_floating_point_numbers_are_read(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"LabelMap": np.array([[0.0, 459.0]])})
    assert read_label_map(tmp_path / "a.mat", 10).tolist() == [[0, 459]]


def test_context_numbers_of_no_class_are_refused(tmp_path: Path) -> None:
    trees.write_context(tmp_path, "trainval")
    savemat(tmp_path / "trainval/2008_000003.mat", {"LabelMap": np.full((trees.HEIGHT, trees.WIDTH), 460)})
    with pytest.raises(ValueError, match=r"got label 460 in .*2008_000003\.mat .*expected 0 to 459"):
        PascalContext(tmp_path, split="val")[0]
