"""PASCAL VOC 2012 and PASCAL Context, in the layouts of their downloads.

Sources: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015; Mottaghi et al.,
"The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_choice
from graphseg.datasets.image_file import MAX_PIXELS
from graphseg.datasets.layouts import (
    IGNORE,
    WRONG,
    OfficialSet,
    Transform,
    find_folder,
    pair_listed,
    read_names,
    renumber,
)
from graphseg.datasets.reader import BadFile, Sample

__all__ = ["PascalContext", "PascalVOC"]

VOC_LAYOUT = "VOCdevkit/VOC2012 with JPEGImages, SegmentationClass and ImageSets/Segmentation/{train,val}.txt"
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOC_TABLE = [*range(21), *[WRONG] * (IGNORE - 21), IGNORE]
VOC_SPLITS = ("train", "val", "trainval", "trainaug", "test")

CONTEXT_LAYOUT = (
    "VOCdevkit/VOC2010 with JPEGImages and ImageSets/Main/{train,val}.txt, beside 59_context_labels/*.png or "
    "trainval/*.mat"
)
CONTEXT_SPLITS = ("train", "val", "trainval")
CONTEXT_ALL = 459
MANY_IGNORE = 65535  # of 459 classes one is number 255
# The classes of 59_labels.txt in its order, 1 to 59, each with its number in the LabelMap of trainval/*.mat.
CONTEXT_NUMBERS = (
    "aeroplane 2, bicycle 23, bird 25, boat 31, bottle 34, bus 45, car 59, cat 65, chair 72, cow 98, diningtable 397, "
    "dog 113, horse 207, motorbike 258, person 284, pottedplant 308, sheep 347, sofa 368, train 416, tvmonitor 427, "
    "bag 9, bed 18, bench 22, book 33, building 44, cabinet 46, ceiling 68, clothes 80, computer 85, cup 104, "
    "door 115, fence 144, floor 158, flower 159, food 162, grass 187, ground 189, keyboard 220, light 232, "
    "mountain 259, mouse 260, curtain 105, platform 296, sign 355, plate 295, road 324, rock 326, shelves 349, "
    "sidewalk 354, sky 360, snow 366, bedcloth 19, track 415, tree 420, truck 424, wall 440, water 445, window 454, "
    "wood 458"
)
CONTEXT_59 = {pair.split()[0]: int(pair.split()[1]) for pair in CONTEXT_NUMBERS.split(", ")}


class PascalVOC(OfficialSet):
    """PASCAL VOC 2012 segmentation: 1464 images for training and 1449 for validation, 20 classes and background.

    The layout is that of the download: `JPEGImages`, `SegmentationClass`, `SegmentationObject` and
    `ImageSets/Segmentation/{train,val,trainval}.txt`. Masks hold 0 (background) to 20, and 255 at the rims of objects.
    `instances`, where `SegmentationObject` is there, holds the objects' numbers, 0 at the rims.

    Args:
        root: `VOC2012`, or the folder around it or around `VOCdevkit`.
        split: "train", "val" or "trainval"; None: train and val. "trainaug" reads `SegmentationClassAug` for the images
            of `ImageSets/Segmentation/trainaug.txt` (or `train_aug.txt`), the set of 10582 that many papers train on;
            it has no instances. "test" has no masks.
        transform: applied to every `Data`.
        max_pixels: images with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: if a folder or list of the layout is missing.
        ValueError: for another split.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        transform: Transform = None,
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_choice("split", split, (None, *VOC_SPLITS))
        images = find_images(root, "VOC2012", VOC_LAYOUT)
        root = images.parent
        lists = root / "ImageSets" / "Segmentation"
        folders = {"image": (images, ".jpg")}
        if split == "trainaug":
            folders["mask"] = (find_folder(root, ["SegmentationClassAug"], VOC_LAYOUT), ".png")
        elif split != "test":
            folders["mask"] = (find_folder(root, ["SegmentationClass"], VOC_LAYOUT), ".png")
            if (root / "SegmentationObject").is_dir():
                folders["instances"] = (root / "SegmentationObject", ".png")
        bad: list[BadFile] = []
        samples: list[Sample] = []
        for name in listed_splits(split, lists, VOC_LAYOUT):
            file = lists / f"{name}.txt"
            if name == "trainaug" and not file.is_file():
                file = lists / "train_aug.txt"
            samples += pair_listed(read_names(file), folders, name, bad)
        super().__init__(
            samples,
            transform,
            VOC_TABLE,
            VOC_LAYOUT,
            num_classes=len(VOC_CLASSES),
            ignore_index=IGNORE,
            class_names=VOC_CLASSES,
            max_pixels=max_pixels,
            bad_files=bad,
            options={"instances": "instances" in folders},
        )

    def _read_instances(self, file: Path) -> Tensor:
        numbers = super()._read_instances(file)
        return numbers.where(numbers != IGNORE, 0)


class PascalContext(OfficialSet):
    """PASCAL Context: 4998 images for training and 5105 for validation, those of PASCAL VOC 2010, labelled everywhere.

    The layout is that of the downloads: `VOCdevkit/VOC2010` with `JPEGImages` and `ImageSets/Main/{train,val}.txt`;
    beside or inside it `59_context_labels/*.png` (0 for none of the classes, 1 to 59) or `trainval/*.mat` (`LabelMap`,
    1 to 459). For 59 and 60 classes the PNG files are read where they are there, else the `.mat` files; for 459 the
    `.mat` files. The classes are in the order of the set's own `59_labels.txt`, which is not that of the alphabet.

    Args:
        root: the folder with `VOCdevkit`, or `VOCdevkit` or `VOC2010` itself.
        split: "train", "val" or "trainval"; None: train and val.
        transform: applied to every `Data`.
        classes: 59: all else is ignored (255). 60: all else is class 0, the background. 459: all that were annotated;
            65535 where there is none. Their names are those of `labels.txt`, where that is there.
        max_pixels: images with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: if a folder or list of the layout is missing.
        ValueError: for another split or number of classes.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        transform: Transform = None,
        *,
        classes: int = 59,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_choice("split", split, (None, *CONTEXT_SPLITS))
        check_choice("classes", classes, (59, 60, CONTEXT_ALL))
        images = find_images(root, "VOC2010", CONTEXT_LAYOUT)
        voc = images.parent
        around = [Path(root), Path(root) / "VOCdevkit", voc]
        kinds = ("trainval",) if classes == CONTEXT_ALL else ("59_context_labels", "trainval")
        labels = find_folder("", [str(folder / kind) for kind in kinds for folder in around], CONTEXT_LAYOUT)
        from_mat = labels.name == "trainval"
        folders = {"image": (images, ".jpg"), "mask": (labels, ".mat" if from_mat else ".png")}
        lists = voc / "ImageSets" / "Main"
        bad: list[BadFile] = []
        samples: list[Sample] = []
        for name in listed_splits(split, lists, CONTEXT_LAYOUT):
            samples += pair_listed(read_names(lists / f"{name}.txt"), folders, name, bad)
        super().__init__(
            samples,
            transform,
            context_table(classes, from_mat),
            CONTEXT_LAYOUT,
            num_classes=classes,
            ignore_index=MANY_IGNORE if classes == CONTEXT_ALL else IGNORE,
            class_names=context_names(classes, [labels.parent / "labels.txt", labels / "labels.txt"]),
            max_pixels=max_pixels,
            bad_files=bad,
            options={"classes": classes},
        )

    def _read_mask(self, file: Path) -> Tensor:
        if file.suffix != ".mat":
            return super()._read_mask(file)
        return renumber(read_label_map(file, self.max_pixels), self._table, file)


def find_images(root: str | Path, year: str, layout: str) -> Path:
    """The folder JPEGImages of a year of PASCAL VOC."""
    return find_folder(root, [f"VOCdevkit/{year}/JPEGImages", f"{year}/JPEGImages", "JPEGImages"], layout)


def listed_splits(split: str | None, lists: Path, layout: str) -> list[str]:
    """The split that was asked for; without one, train and val, as far as they have a list."""
    if split is not None:
        return [split]
    there = [name for name in ("train", "val") if (lists / f"{name}.txt").is_file()]
    if not there:
        raise FileNotFoundError(f"got no file train.txt or val.txt in {lists}, expected {layout}")
    return there


def context_table(classes: int, from_mat: bool) -> list[int]:
    """Number in the files to class.

    Args:
        classes: 59, 60 or 459.
        from_mat: whether the numbers are those of the .mat files.
    """
    if classes == CONTEXT_ALL:
        return [MANY_IGNORE, *range(CONTEXT_ALL)]
    first, other = (0, IGNORE) if classes == 59 else (1, 0)
    if not from_mat:
        return [other, *range(first, first + 59)]
    table = [other] * (CONTEXT_ALL + 1)
    for k, number in enumerate(CONTEXT_59.values()):
        table[number] = first + k
    return table


def context_names(classes: int, files: list[Path]) -> list[str]:
    """Names of the classes; of all 459 those of the first file that is there, lines of "number: name"."""
    if classes != CONTEXT_ALL:
        return [*(["background"] if classes == 60 else []), *CONTEXT_59]
    for file in files:
        if file.is_file():
            lines = [line.partition(":") for line in file.read_text("utf-8").splitlines() if line.strip()]
            return [name.strip() for number, _, name in lines if int(number) > 0]
    return []


def read_label_map(file: Path, max_pixels: int) -> Tensor:
    """The matrix `LabelMap` of a MATLAB file; nothing else in it is read.

    Args:
        file: of MATLAB's versions 4 to 7.2.
        max_pixels: larger matrices are refused before they are decoded.

    Raises:
        ValueError: for other files, and for a `LabelMap` that is not a matrix of whole numbers.
        OSError: for one that cannot be opened.
    """
    from scipy.io import loadmat, whosmat

    data = file.read_bytes()
    sizes = {name: (size, kind) for name, size, kind in _parse(whosmat, data, file)}
    size, kind = sizes.get("LabelMap", ((), "missing"))
    if len(size) != 2 or not ("int" in kind or kind in ("double", "single")):
        raise ValueError(f"got LabelMap of kind {kind}, size {list(size)} in {file}, expected a matrix of numbers")
    if math.prod(size) > max_pixels:
        raise ValueError(f"got {math.prod(size)} pixels in {file}, expected at most max_pixels={max_pixels}")
    found = np.asarray(_parse(loadmat, data, file, variable_names=["LabelMap"])["LabelMap"])
    with np.errstate(invalid="ignore"):  # NaN
        numbers = found.astype(np.int64)
    if not np.array_equal(numbers, found):
        raise ValueError(f"got LabelMap with fractions in {file}, expected whole numbers")
    return torch.from_numpy(numbers)


def _parse(read: Callable[..., Any], data: bytes, file: Path, **options: Any) -> Any:
    """What scipy reads; ValueError for whatever it stumbles on in a damaged file."""
    try:
        return read(io.BytesIO(data), **options)
    except Exception as error:
        raise ValueError(f"got {file}, which is damaged or no MATLAB file ({error}), expected a whole one") from error
