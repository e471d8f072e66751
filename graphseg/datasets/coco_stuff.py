"""COCO-Stuff: things and stuff of COCO 2017, with the coarse classes of unsupervised segmentation.

Source: Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018. The 27, 15 and 3 coarse
classes are those of Ji, Henriques, Vedaldi, "Invariant Information Clustering", ICCV 2019, in its order.
"""

from __future__ import annotations

from pathlib import Path

from graphseg._checks import check_choice
from graphseg.datasets.folder import list_images
from graphseg.datasets.image_file import MAX_PIXELS
from graphseg.datasets.layouts import (
    IGNORE,
    WRONG,
    OfficialSet,
    Transform,
    choose_splits,
    find_folder,
    pair_files,
    read_names,
)
from graphseg.datasets.reader import BadFile, Sample

__all__ = ["CocoStuff"]

LAYOUT = "images/{train2017,val2017}/*.jpg and stuffthingmaps/{train2017,val2017}/*.png"
FOLDERS = {"train": "train2017", "val": "val2017", "test": "test2017"}
LABELLED = ("train", "val")
LABEL_FOLDERS = ("stuffthingmaps", "annotations", "stuffthingmaps_trainval2017")

# Super-category to the things in it, which are numbered 0 to 90 as they stand here.
THINGS = {
    "person": "person",
    "vehicle": "bicycle, car, motorcycle, airplane, bus, train, truck, boat",
    "outdoor": "traffic light, fire hydrant, street sign, stop sign, parking meter, bench",
    "animal": "bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe",
    "accessory": "hat, backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase",
    "sports": "frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
    "tennis racket",
    "kitchen": "bottle, plate, wine glass, cup, fork, knife, spoon, bowl",
    "food": "banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake",
    "furniture": "chair, couch, potted plant, bed, mirror, dining table, window, desk, toilet, door",
    "electronic": "tv, laptop, mouse, remote, keyboard, cell phone",
    "appliance": "microwave, oven, toaster, sink, refrigerator, blender",
    "indoor": "book, clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush",
}
# Super-category to the stuff in it, which is numbered 91 to 181 by the alphabet.
STUFF = {
    "ceiling": "ceiling-other, ceiling-tile",
    "floor": "carpet, floor-marble, floor-other, floor-stone, floor-tile, floor-wood",
    "food": "food-other, fruit, salad, vegetable",
    "furniture": "cabinet, counter, cupboard, desk-stuff, door-stuff, furniture-other, light, mirror-stuff, shelf, "
    "stairs, table",
    "rawmaterial": "cardboard, metal, paper, plastic",
    "textile": "banner, blanket, cloth, clothes, curtain, mat, napkin, pillow, rug, textile-other, towel",
    "wall": "wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood",
    "window": "window-blind, window-other",
    "building": "bridge, building-other, house, roof, skyscraper, tent",
    "ground": "dirt, gravel, ground-other, mud, pavement, platform, playingfield, railroad, road, sand, snow",
    "plant": "branch, bush, flower, grass, leaves, moss, plant-other, straw, tree",
    "sky": "clouds, sky-other",
    "solid": "hill, mountain, rock, solid-other, stone, wood",
    "structural": "cage, fence, net, railing, structural-other",
    "water": "fog, river, sea, water-other, waterdrops",
}
# Things of COCO's first list that were never annotated: no mask has them.
UNUSED = (
    "street sign",
    "hat",
    "shoe",
    "eye glasses",
    "plate",
    "mirror",
    "window",
    "desk",
    "door",
    "blender",
    "hair brush",
)

COARSE_THINGS = (
    *("electronic", "appliance", "food", "furniture", "indoor", "kitchen"),
    *("accessory", "animal", "outdoor", "person", "sports", "vehicle"),
)
COARSE = (*(f"{name}-things" for name in COARSE_THINGS), *(f"{name}-stuff" for name in STUFF))
FEW = ("sky-stuff", "plant-stuff", "ground-stuff")

COARSE_OF = {
    fine: f"{name}-{kind}"
    for kind, groups in (("things", THINGS), ("stuff", STUFF))
    for name, members in groups.items()
    for fine in members.split(", ")
}
NAMES = (
    *(fine for members in THINGS.values() for fine in members.split(", ")),
    *sorted(fine for members in STUFF.values() for fine in members.split(", ")),
)


class CocoStuff(OfficialSet):
    """COCO-Stuff, all of COCO 2017: 118287 images for training and 5000 for validation.

    The layout is that of the downloads: `images/{train2017,val2017}/*.jpg`, or these folders without `images`, beside
    `stuffthingmaps/{train2017,val2017}/*.png` (or `annotations/...`), whose numbers are 0 to 181, and 255 where nothing
    is labelled. Images keep their size.

    Args:
        root: the folder with the images' and the annotations' folders.
        split: "train" or "val"; None: both, if they are there. "test" (`test2017`) has no masks.
        transform: applied to every `Data`.
        classes: which classes the masks have; 255 elsewhere.

            - 182: as in the files. Eleven of them, things that were never annotated, have no pixels.
            - 171: these, without the eleven.
            - 27: 12 coarse classes of things, then 15 of stuff, in the order of IIC.
            - 15: those of stuff; things are ignored.
            - 3: sky, plants, ground; all else is ignored, as in IIC's COCO-Stuff-3.
            - 4: sky, plants, ground, and all else that is labelled; SGSeg counts these as the labels of its
              COCO-Stuff3.
        names: a text file that lists images by number, one a line; only these are taken. IIC's curated lists
            (mostly stuff) are such files. Names that are not there are in `bad_files`.
        max_pixels: images with more pixels are refused before they are decoded.

    Raises:
        FileNotFoundError: if a folder of the layout or the list is missing.
        ValueError: for another split or number of classes.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        transform: Transform = None,
        *,
        classes: int = 27,
        names: str | Path | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        class_names = classes_of(classes)
        folders = {name: images_folder(Path(root), folder) for name, folder in FOLDERS.items()}
        wanted = None if names is None else set(read_names(names))
        bad: list[BadFile] = []
        samples: list[Sample] = []
        for name in choose_splits(split, folders, LABELLED, LAYOUT):
            found = {"image": list_images(folders[name], "", bad)}
            if name in LABELLED:
                labels = find_folder(root, [f"{folder}/{FOLDERS[name]}" for folder in LABEL_FOLDERS], LAYOUT)
                found["mask"] = list_images(labels, "", bad)
            if wanted is not None:
                found = {role: {n: file for n, file in files.items() if n in wanted} for role, files in found.items()}
            samples += pair_files(found, name, bad)
        for missing in sorted((wanted or set()) - {sample.source for sample in samples}):
            bad.append(BadFile(str(names), f"got name {missing}, expected one of an image that is there with its mask"))
        super().__init__(
            samples,
            transform,
            [*table_of(classes), *[WRONG] * (IGNORE - len(NAMES)), IGNORE],
            LAYOUT,
            num_classes=classes,
            ignore_index=IGNORE,
            class_names=class_names,
            max_pixels=max_pixels,
            bad_files=bad,
            options={"classes": classes},
        )


def images_folder(root: Path, folder: str) -> Path:
    """Where the images of a split are: `images/FOLDER`, or `FOLDER`."""
    return root / folder if (root / folder).is_dir() else root / "images" / folder


def classes_of(classes: int) -> tuple[str, ...]:
    """The names of the classes; ValueError for another number of them."""
    choices = {
        182: NAMES,
        171: tuple(name for name in NAMES if name not in UNUSED),
        27: COARSE,
        15: COARSE[len(COARSE_THINGS) :],
        3: FEW,
        4: (*FEW, "other"),
    }
    check_choice("classes", classes, tuple(choices))
    return choices[classes]


def table_of(classes: int) -> list[int]:
    """Number 0 to 181 in the files to class."""
    names = classes_of(classes)
    labels = NAMES if classes > len(COARSE) else [COARSE_OF[name] for name in NAMES]
    other = names.index("other") if classes == 4 else IGNORE
    return [names.index(label) if label in names else other for label in labels]
