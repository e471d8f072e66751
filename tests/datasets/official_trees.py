"""Small trees in the layouts of the official downloads, and what they hold, written without graphseg."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image
from scipy.io import savemat
from skimage import data

HEIGHT, WIDTH = 24, 36
PHOTO = data.astronaut()

Array = np.ndarray[Any, np.dtype[Any]]


class Written(NamedTuple):
    """One image of a tree: what a reader must give for it."""

    source: str
    split: str
    image: Array  # [H, W, C]
    mask: Array
    instances: Array | None = None


def numbers(count: int, start: int = 0) -> Array:
    """[H, W] with every number from 0 to count - 1."""
    return (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) + start) % count


def write_photo(path: Path, seed: int, *, grey: bool = False) -> Array:
    """A part of a photograph as JPEG or PNG; what Pillow reads of it, in colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = 7 * seed % 300, 11 * seed % 300
    picture = Image.fromarray(PHOTO[y : y + HEIGHT, x : x + WIDTH])
    (picture.convert("L") if grey else picture).save(path)
    return np.asarray(Image.open(path).convert("RGB"))


def write_map(path: Path, values: Array, *, palette: bool = False) -> None:
    """A grey or palette PNG of 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values.astype(np.uint8 if values.max() < 256 else np.uint16))
    if palette:
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    picture.save(path)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


# labelIds 0 to 33 to the classes of the benchmark.
CITYSCAPES = np.array(
    [
        *(255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255),
        *(5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255, 16, 17, 18),
    ]
)


def write_cityscapes(root: Path, annotations: str = "gtFine") -> list[Written]:
    written: list[Written] = []
    labelled = {"train": ("aachen", "bremen"), "val": ("lindau",)}
    if annotations == "gtCoarse":
        labelled = {"train": ("aachen",), "train_extra": ("augsburg",), "val": ("lindau",)}
    for split, cities in labelled.items():
        for city in cities:
            name = f"{city}_000000_000019"
            image = write_photo(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", len(written))
            labels = numbers(34, len(written))
            instances = np.where(labels >= 24, labels * 1000 + numbers(3), labels)
            instances[0] = labels[0]  # groups
            stem = f"{annotations}/{split}/{city}/{name}_{annotations}"
            write_map(root / f"{stem}_labelIds.png", labels)
            write_map(root / f"{stem}_instanceIds.png", instances)
            write_map(root / f"{stem}_color.png", numbers(2))
            expected = np.where(instances >= 1000, instances, 0)
            written.append(Written(f"{city}/{name}", split, image, CITYSCAPES[labels], expected))
    write_photo(root / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png", 9)
    write_map(root / "gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png", numbers(4))
    return written


def write_ade20k(root: Path) -> list[Written]:
    written: list[Written] = []
    for split, folder, ids in (("train", "training", (1, 2)), ("val", "validation", (1,))):
        for n in ids:
            name = f"ADE_{split}_{n:08}"
            # A few photographs of the set are grey.
            image = write_photo(root / f"images/{folder}/{name}.jpg", len(written), grey=n == 2)
            labels = numbers(151, n)
            write_map(root / f"annotations/{folder}/{name}.png", labels)
            written.append(Written(name, split, image, np.where(labels == 0, 255, labels - 1)))
    write_photo(root / "images/testing/ADE_test_00000001.jpg", 9)
    return written


def write_voc(root: Path) -> list[Written]:
    written: list[Written] = []
    voc = root / "VOCdevkit/VOC2012"
    lists = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
    for split, names in lists.items():
        for name in names:
            image = write_photo(voc / f"JPEGImages/{name}.jpg", len(written))
            labels = np.where(numbers(22, len(written)) == 21, 255, numbers(22, len(written)))
            objects = np.where(labels == 255, 255, numbers(4))
            write_map(voc / f"SegmentationClass/{name}.png", labels, palette=True)
            write_map(voc / f"SegmentationObject/{name}.png", objects, palette=True)
            written.append(Written(name, split, image, labels, np.where(objects == 255, 0, objects)))
        write_lines(voc / f"ImageSets/Segmentation/{split}.txt", names)
    write_lines(voc / "ImageSets/Segmentation/trainval.txt", sorted(lists["train"] + lists["val"]))
    write_photo(voc / "JPEGImages/2008_000001.jpg", 9)  # of the detection task
    return written


def write_context(root: Path, kind: str = "59_context_labels") -> list[Written]:
    written: list[Written] = []
    voc = root / "VOCdevkit/VOC2010"
    for split, names in (("train", ["2008_000002", "2008_000008"]), ("val", ["2008_000003"])):
        for name in names:
            image = write_photo(voc / f"JPEGImages/{name}.jpg", len(written))
            labels = numbers(60 if kind == "59_context_labels" else 460, len(written))
            if kind == "59_context_labels":
                write_map(root / f"{kind}/{name}.png", labels)
                mask = np.where(labels == 0, 255, labels - 1)
            else:
                (root / kind).mkdir(exist_ok=True)
                savemat(root / kind / f"{name}.mat", {"LabelMap": labels.astype(np.uint16)}, do_compression=True)
                mask = np.where(labels == 0, 65535, labels - 1)
            written.append(Written(name, split, image, mask))
        write_lines(voc / f"ImageSets/Main/{split}.txt", names)
    return written


# Of the stuff 91 to 181 by number: IIC's coarse class. Of the things: (class, how many) from 0 on.
IIC_STUFF = [
    *(17, 17, 22, 20, 20, 22, 15, 25, 16, 13, 12, 12, 17, 17, 23, 15, 15, 17, 15, 21, 15, 25, 13, 13, 13, 13, 13, 22),
    *(26, 14, 14, 15, 22, 21, 21, 24, 20, 22, 15, 17, 16, 15, 22, 24, 21, 17, 25, 16, 21, 17, 22, 16, 21, 21, 25, 21),
    *(26, 21, 24, 20, 17, 14, 21, 26, 15, 23, 20, 21, 24, 15, 24, 22, 25, 15, 20, 17, 17, 22, 14, 18, 18, 18, 18, 18),
    *(18, 18, 26, 26, 19, 19, 24),
]
IIC_THINGS = [(9, 1), (11, 8), (8, 6), (7, 10), (6, 8), (10, 10), (5, 8), (2, 10), (3, 10), (0, 6), (1, 6), (4, 8)]
IIC_COARSE = np.array([k for k, n in IIC_THINGS for _ in range(n)] + IIC_STUFF)


def write_coco(root: Path) -> list[Written]:
    written: list[Written] = []
    for split, names in (("train", ["000000000009", "000000000025"]), ("val", ["000000000139"])):
        for name in names:
            image = write_photo(root / f"images/{split}2017/{name}.jpg", len(written), grey=name.endswith("25"))
            labels = np.where(numbers(183) == 182, 255, numbers(183))
            write_map(root / f"stuffthingmaps/{split}2017/{name}.png", labels)
            mask = np.where(labels == 255, 255, IIC_COARSE[np.minimum(labels, 181)])
            written.append(Written(name, split, image, mask))
    write_photo(root / "images/test2017/000000000001.jpg", 9)
    return written


POTSDAM_COLORS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], dtype=np.uint8
)


def write_tiff(path: Path, values: Array, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="rgb", **options)


def write_potsdam(root: Path) -> list[Written]:
    """Images of 24 x 36, read in tiles of 12."""
    written: list[Written] = []
    for seed, (name, split) in enumerate([("2_10", "train"), ("6_7", "train"), ("2_13", "test")]):
        y = 50 * seed
        image = np.dstack([PHOTO[y : y + HEIGHT, :WIDTH], PHOTO[y : y + HEIGHT, :WIDTH, 0]])
        labels = numbers(6, seed)
        write_tiff(root / f"4_Ortho_RGBIR/top_potsdam_{name}_RGBIR.tif", image, extrasamples=["unspecified"])
        write_tiff(root / f"2_Ortho_RGB/top_potsdam_{name}_RGB.tif", image[..., :3])
        write_tiff(root / f"3_Ortho_IRRG/top_potsdam_{name}_IRRG.tif", image[..., [3, 0, 1]])
        folder = "5_Labels_for_participants" if split == "train" else "5_Labels_all"
        write_tiff(root / f"{folder}/top_potsdam_{name}_label.tif", POTSDAM_COLORS[labels])
        for y0 in (0, 12):
            for x0 in (0, 12, 24):
                part = np.s_[y0 : y0 + 12, x0 : x0 + 12]
                source = f"{name}_r{y0:04}_c{x0:04}"
                written.append(Written(source, split, image[part], labels[part]))
    order = ["2_10", "2_13", "6_7"]
    return sorted(written, key=lambda w: order.index(w.source.split("_r")[0]))


Writer = Callable[[Path], list[Written]]
