"""ADE20K: the scene parsing challenge, in the layout of its download.

Source: Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017.
"""

from __future__ import annotations

from pathlib import Path

from graphseg.datasets.folder import list_images
from graphseg.datasets.image_file import MAX_PIXELS
from graphseg.datasets.layouts import IGNORE, OfficialSet, Transform, choose_splits, find_folder, pair_files
from graphseg.datasets.reader import BadFile, Sample

__all__ = ["ADE20K"]

LAYOUT = "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png"
FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
LABELLED = ("train", "val")
NUM_CLASSES = 150
NAMES = "objectInfo150.txt"


class ADE20K(OfficialSet):
    """Scenes of all kinds: 20210 images for training and 2000 for validation, 150 classes.

    The layout is that of the challenge's download, ADEChallengeData2016: `images/training/*.jpg` beside
    `annotations/training/*.png`, and `validation` likewise. The files' 0 ("other objects") is 255 in the masks, their 1
    to 150 are 0 to 149. `class_names` are the first name of each class in `objectInfo150.txt`, where that is there.

    Args:
        root: the folder with `images` and `annotations`, or the one around `ADEChallengeData2016`.
        split: "train" or "val"; None: both, if they are there. "test" (`images/testing`) has no masks.
        transform: applied to every `Data`.
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
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        root = Path(root)
        images = find_folder(root, ["images", "ADEChallengeData2016/images"], LAYOUT)
        root = images.parent
        folders = {name: images / folder for name, folder in FOLDERS.items()}
        bad: list[BadFile] = []
        samples: list[Sample] = []
        for name in choose_splits(split, folders, LABELLED, LAYOUT):
            found = {"image": list_images(folders[name], "", bad)}
            if name in LABELLED:
                labels = find_folder(root, [f"annotations/{FOLDERS[name]}"], LAYOUT)
                found["mask"] = list_images(labels, "", bad)
            samples += pair_files(found, name, bad)
        super().__init__(
            samples,
            transform,
            [IGNORE, *range(NUM_CLASSES)],
            LAYOUT,
            num_classes=NUM_CLASSES,
            ignore_index=IGNORE,
            class_names=read_class_names(root / NAMES) if (root / NAMES).is_file() else (),
            max_pixels=max_pixels,
            bad_files=bad,
        )


def read_class_names(file: Path) -> list[str]:
    """The first name of every class: the last column of a table whose first line is a heading.

    Raises:
        ValueError: for other than 150 classes.
    """
    rows = [line.split("\t") for line in file.read_text("utf-8").splitlines() if line.strip()]
    names = [row[-1].split(",")[0].strip() for row in rows if row[0].strip().isdigit()]
    if len(names) != NUM_CLASSES:
        raise ValueError(f"got {len(names)} classes in {file}, expected {NUM_CLASSES}")
    return names
