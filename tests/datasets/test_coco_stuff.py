"""COCO-Stuff: where its folders may be, all sets of classes, curated lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphseg.datasets.coco_stuff import CocoStuff
from tests.datasets import official_trees as trees

# labels.txt of the data set, without "unlabeled".
NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign, "
    "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat, "
    "backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, "
    "baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, "
    "spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, "
    "potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, "
    "cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, "
    "hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, bush, cabinet, cage, "
    "cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, "
    "dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, "
    "fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, "
    "mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, "
    "railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, "
    "stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, "
    "wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, "
    "window-other, wood"
)
COARSE = (
    "electronic appliance food furniture indoor kitchen accessory animal outdoor person sports vehicle ceiling floor "
    "food furniture rawmaterial textile wall window building ground plant sky solid structural water"
)
UNUSED = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]  # by number, as COCO leaves them out
SKY, PLANT, GROUND = 23, 22, 21


def expected_mask(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers 0 to 181 and 255, and the class of each."""
    labels = np.array([*range(182), 255])
    coarse = trees.IIC_COARSE
    if classes == 182:
        mask = np.arange(182)
    elif classes == 171:
        used = [n for n in range(182) if n not in UNUSED]
        mask = np.array([used.index(n) if n in used else 255 for n in range(182)])
    elif classes == 27:
        mask = coarse
    elif classes == 15:
        mask = np.where(coarse >= 12, coarse - 12, 255)
    else:
        few = [SKY, PLANT, GROUND]
        other = 3 if classes == 4 else 255
        mask = np.array([few.index(k) if k in few else other for k in coarse])
    return labels, np.append(mask, 255)


@pytest.mark.parametrize("classes", [182, 171, 27, 15, 3, 4])
def test_every_number_becomes_its_class(tmp_path: Path, classes: int) -> None:
    trees.write_coco(tmp_path)
    labels, expected = expected_mask(classes)
    picture = np.resize(labels, (trees.HEIGHT, trees.WIDTH))
    trees.write_map(tmp_path / "stuffthingmaps/val2017/000000000139.png", picture)
    reader = CocoStuff(tmp_path, split="val", classes=classes)
    assert reader.num_classes == classes == len(reader.class_names)
    assert np.array_equal(reader[0].mask.numpy(), np.resize(expected, picture.shape))
    assert set(expected.tolist()) | {255} == {*range(classes), 255}


def test_names_are_those_of_the_data_set_and_of_iic(tmp_path: Path) -> None:
    trees.write_coco(tmp_path)

    def names(classes: int) -> list[str]:
        return list(CocoStuff(tmp_path, classes=classes).class_names)

    assert names(182) == NAMES.split(", ")
    assert names(171) == [name for n, name in enumerate(names(182)) if n not in UNUSED]
    assert names(27) == [f"{name}-{'things' if k < 12 else 'stuff'}" for k, name in enumerate(COARSE.split())]
    assert names(15) == names(27)[12:]
    assert names(3) == ["sky-stuff", "plant-stuff", "ground-stuff"]
    assert names(4) == [*names(3), "other"]
    with pytest.raises(ValueError, match="classes=91, expected one of 182, 171, 27, 15, 3, 4"):
        names(91)


def test_recipes_tell_the_classes_apart(tmp_path: Path) -> None:
    trees.write_coco(tmp_path)
    assert len({str(CocoStuff(tmp_path, classes=k).recipe()) for k in (182, 171, 27, 15, 3, 4)}) == 6


def test_folders_may_be_those_of_the_archives_or_of_the_authors_scripts(tmp_path: Path) -> None:
    written = trees.write_coco(tmp_path)
    for folder in ("train2017", "val2017", "test2017"):
        (tmp_path / "images" / folder).rename(tmp_path / folder)
    (tmp_path / "stuffthingmaps").rename(tmp_path / "annotations")
    trees.write_lines(tmp_path / "annotations/instances_val2017.json", ["{}"])
    reader = CocoStuff(tmp_path)
    assert [s.source for s in reader.samples] == [w.source for w in written]
    assert np.array_equal(reader[0].mask.numpy(), written[0].mask)


def test_a_list_of_names_takes_these_only(tmp_path: Path) -> None:
    trees.write_coco(tmp_path)
    names = tmp_path / "Coco164kFull_Stuff_Coarse_7.txt"
    trees.write_lines(names, ["000000000139", "000000000025", "000000000777"])
    reader = CocoStuff(tmp_path, names=names)
    assert [s.source for s in reader.samples] == ["000000000025", "000000000139"]
    assert [(bad.file, bad.reason.split(",")[0]) for bad in reader.bad_files] == [(str(names), "got name 000000000777")]
    with pytest.raises(FileNotFoundError, match=r"other\.txt, expected a list"):
        CocoStuff(tmp_path, names=tmp_path / "other.txt")


def test_images_for_testing_have_no_masks(tmp_path: Path) -> None:
    trees.write_coco(tmp_path)
    assert sorted(CocoStuff(tmp_path, split="test")[0].keys()) == ["image", "source"]


def test_numbers_of_no_class_are_refused(tmp_path: Path) -> None:
    trees.write_coco(tmp_path)
    trees.write_map(tmp_path / "stuffthingmaps/val2017/000000000139.png", trees.numbers(183))
    with pytest.raises(ValueError, match=r"got label 182 in .*000000000139\.png .*expected 0 to 181, 255"):
        CocoStuff(tmp_path, split="val")[0]
