"""ADE20K: the folder around it, names of classes, images for testing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphseg.datasets.ade20k import ADE20K
from tests.datasets import official_trees as trees


def write_info(root: Path, count: int) -> None:
    rows = [f"{i}{' ' * (i % 2)}\t0.1\t7\t3\tname {i}{' ' * (i % 3)}, other name" for i in range(1, count + 1)]
    trees.write_lines(root / "objectInfo150.txt", ["Idx\tRatio\tTrain\tVal\tName", *rows])


def test_opens_the_folder_around_it(tmp_path: Path) -> None:
    written = trees.write_ade20k(tmp_path / "ADEChallengeData2016")
    reader = ADE20K(tmp_path)
    assert [s.source for s in reader.samples] == [w.source for w in written]
    assert np.array_equal(reader[0].mask.numpy(), written[0].mask)


def test_names_are_the_first_of_each_class(tmp_path: Path) -> None:
    trees.write_ade20k(tmp_path)
    assert ADE20K(tmp_path).class_names == ()
    write_info(tmp_path, 150)
    assert ADE20K(tmp_path).class_names == tuple(f"name {i}" for i in range(1, 151))
    write_info(tmp_path, 149)
    with pytest.raises(ValueError, match=r"got 149 classes in .*objectInfo150\.txt, expected 150"):
        ADE20K(tmp_path)


def test_images_for_testing_have_no_masks(tmp_path: Path) -> None:
    trees.write_ade20k(tmp_path)
    reader = ADE20K(tmp_path, split="test")
    assert [s.source for s in reader.samples] == ["ADE_test_00000001"]
    assert sorted(reader[0].keys()) == ["image", "source"]


def test_numbers_of_no_class_are_refused(tmp_path: Path) -> None:
    trees.write_ade20k(tmp_path)
    trees.write_map(tmp_path / "annotations/validation/ADE_val_00000001.png", trees.numbers(152))
    with pytest.raises(ValueError, match=r"got label 151 in .*ADE_val_00000001\.png .*expected 0 to 150"):
        ADE20K(tmp_path, split="val")[0]
