"""Cityscapes: street scenes in the layout of its downloads.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from graphseg._checks import check_choice
from graphseg.datasets.folder import list_images
from graphseg.datasets.image_file import MAX_PIXELS, read_labels
from graphseg.datasets.layouts import (
    IGNORE,
    WRONG,
    OfficialSet,
    Transform,
    choose_splits,
    find_folder,
    pair_files,
    renumber,
)
from graphseg.datasets.reader import BadFile

__all__ = ["Cityscapes"]

LAYOUT = "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png"
SPLITS = ("train", "val", "train_extra", "test", "demoVideo")
LABELLED = {"gtFine": ("train", "val"), "gtCoarse": ("train", "train_extra", "val")}

# Number in *_labelIds.png of each class. 0 to 33 are used there; all others of these count for no class.
CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
OF_LABEL_IDS = [list(CLASSES.values()).index(n) if n in CLASSES.values() else IGNORE for n in range(34)]
OF_TRAIN_IDS = [*range(len(CLASSES)), *[WRONG] * (IGNORE - len(CLASSES)), IGNORE]

FIRST_INSTANCE = 1000  # *_instanceIds.png: class * 1000 + n; below that it is the class of stuff or of a group


class Cityscapes(OfficialSet):
    """Street scenes of 50 cities: 2975 images for training and 500 for validation, 1024 x 2048, 19 classes.

    The layout is that of the downloads: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` beside
    `gtFine/SPLIT/CITY/*_gtFine_labelIds.png` and `*_gtFine_instanceIds.png`; `gtCoarse` likewise. Where there is no
    `labelIds` file, `labelTrainIds` is read. Masks hold the 19 classes of the benchmark, 255 elsewhere. `instances`,
    where the folder has them, holds the numbers of the files from 1000 on (class * 1000 + n), 0 for stuff and groups.

    Args:
        root: the folder with `leftImg8bit` and the annotations.
        split: "train", "val" or, with coarse annotations, "train_extra"; None: all of these that are there. A split
            without public annotations ("test", "demoVideo") is read when asked for, without masks.
        transform: applied to every `Data`.
        annotations: "gtFine" or "gtCoarse".
        max_pixels: images with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: if a folder of the layout is missing.
        ValueError: for another split.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        transform: Transform = None,
        *,
        annotations: str = "gtFine",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_choice("annotations", annotations, tuple(LABELLED))
        root = Path(root)
        folders = {name: root / "leftImg8bit" / name for name in SPLITS}
        bad: list[BadFile] = []
        found: dict[str, dict[str, dict[str, Path]]] = {}
        for name in choose_splits(split, folders, LABELLED[annotations], LAYOUT):
            found[name] = {"image": list_images(folders[name], "_leftImg8bit", bad)}
            if name in LABELLED[annotations]:
                labels = find_folder(root, [f"{annotations}/{name}"], LAYOUT)
                kinds = {
                    kind: list_images(labels, f"_{annotations}_{kind}", bad)
                    for kind in ("labelTrainIds", "labelIds", "instanceIds")
                }
                found[name]["mask"] = kinds["labelTrainIds"] | kinds["labelIds"]
                found[name]["instances"] = kinds["instanceIds"]
        with_instances = any(roles.get("instances") for roles in found.values())
        samples = []
        for name, roles in found.items():
            if not with_instances:
                roles.pop("instances", None)
            samples += pair_files(roles, name, bad)
        super().__init__(
            samples,
            transform,
            OF_LABEL_IDS,
            LAYOUT,
            num_classes=len(CLASSES),
            ignore_index=IGNORE,
            class_names=tuple(CLASSES),
            max_pixels=max_pixels,
            bad_files=bad,
            options={"annotations": annotations, "instances": with_instances},
        )

    def _read_mask(self, file: Path) -> Tensor:
        table = OF_TRAIN_IDS if file.stem.endswith("_labelTrainIds") else OF_LABEL_IDS
        return renumber(read_labels(file, max_pixels=self.max_pixels), table, file)

    def _read_instances(self, file: Path) -> Tensor:
        numbers = read_labels(file, max_pixels=self.max_pixels)
        return numbers.where(numbers >= FIRST_INSTANCE, 0)
