"""ISPRS Potsdam: aerial images of 6000 x 6000 pixels of 5 cm, cut into tiles.

Source: ISPRS, 2D Semantic Labeling Contest, Potsdam. The 3 classes are those of Ji, Henriques, Vedaldi, "Invariant
Information Clustering", ICCV 2019.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import tifffile
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphseg._checks import check_choice, check_positive_int
from graphseg.datasets.image_file import MAX_PIXELS, read_image
from graphseg.datasets.layouts import IGNORE, WRONG, Transform, check_any, find_folder, pair_files
from graphseg.datasets.reader import BadFile, ImageReader, Sample

__all__ = ["Potsdam"]

LAYOUT = "4_Ortho_RGBIR/top_potsdam_*_RGBIR.tif and 5_Labels_for_participants/top_potsdam_*_label.tif"
Number = tuple[int, int]  # row and column of an image

IMAGES = {"RGBIR": "4_Ortho_RGBIR", "RGB": "2_Ortho_RGB", "IRRG": "3_Ortho_IRRG"}
BANDS = {"RGBIR": 4, "RGB": 3, "IRRG": 3}
LABELS = {  # whether boundaries are labelled: folders, the fullest first, and the end of the files' names
    True: (("5_Labels_all", "5_Labels_for_participants"), "label"),
    False: (("5_Labels_all_noBoundary", "5_Labels_for_participants_no_Boundary"), "label_noBoundary"),
}
# The contest's images by row and column: 24 whose labels it gave to participants, and 14 to test on.
SPLITS = {
    "train": {2: (10, 12), 3: (10, 12), 4: (10, 12), 5: (10, 12), 6: (7, 12), 7: (7, 12)},
    "test": {2: (13, 14), 3: (13, 14), 4: (13, 15), 5: (13, 15), 6: (13, 15), 7: (13, 13)},
}
SPLIT_OF = {
    (row, column): name
    for name, rows in SPLITS.items()
    for row, (first, last) in rows.items()
    for column in range(first, last + 1)
}

CLASSES = {
    6: ("impervious surfaces", "building", "low vegetation", "tree", "car", "clutter"),
    3: ("impervious surfaces and cars", "buildings and clutter", "vegetation and trees"),
}
# Class of black, blue, green, cyan, red, magenta, yellow, white: the number whose bits are red, green, blue.
OF_COLOR = {
    6: torch.tensor([IGNORE, 1, 3, 2, 5, WRONG, 4, 0]),
    3: torch.tensor([IGNORE, 1, 2, 2, 1, WRONG, 0, 0]),
}
UNCLEAR = (96, 159)  # a channel is on above, off below


class Potsdam(ImageReader):
    """ISPRS Potsdam: 24 aerial images for training and 14 for testing, 6000 x 6000 pixels, cut into tiles.

    The layout is that of the downloads: `4_Ortho_RGBIR/top_potsdam_ROW_COLUMN_RGBIR.tif` (or `2_Ortho_RGB`,
    `3_Ortho_IRRG`) beside `5_Labels_for_participants/top_potsdam_ROW_COLUMN_label.tif` and `5_Labels_all`. A tile is
    named after its image and the pixel at its upper left, "2_10_r0000_c0200"; `geo` says where it lies (`read_image`).

    Labels are colours: white for impervious surfaces, blue for buildings, cyan for low vegetation, green for trees,
    yellow for cars, red for clutter, black for none (255 in the masks). Each channel counts as on or off, since the
    labels of 4_12 were stored with losses and the cars of 6_7 are (252, 255, 0); values half way, and magenta, are
    errors.

    Args:
        root: the folder with those of the images and labels.
        split: "train" or "test"; None: train, and test where its labels are there (in `5_Labels_all`). Where they are
            not, "test" has no masks.
        transform: applied to every `Data`.
        bands: "RGBIR" (4 channels), "RGB" or "IRRG".
        classes: 6, or 3 as in IIC: impervious surfaces and cars, buildings and clutter, vegetation and trees.
        tile: side of the square tiles in pixels, left to right, top to bottom; None: whole images. Where it does not
            divide the image's sides (200 does), the last tiles are smaller: no pixel is lost. IIC halves the images
            first; its tiles show what `tile=400` does.
        boundary: False reads labels without the pixels near boundaries (`5_Labels_*no*Boundary`), which the contest
            counts for no class.
        max_pixels: images with more pixels are refused before they are decoded.

    Images of other numbers than the contest's, images without labels and labels without image are in `bad_files`.

    Raises:
        FileNotFoundError: if a folder of the layout is missing.
        ValueError: for another split, `bands` or number of classes.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        transform: Transform = None,
        *,
        bands: str = "RGBIR",
        classes: int = 6,
        tile: int | None = 200,
        boundary: bool = True,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_choice("split", split, (None, *SPLITS))
        check_choice("bands", bands, tuple(IMAGES))
        check_choice("classes", classes, tuple(CLASSES))
        if tile is not None:
            check_positive_int("tile", tile)
        bad: list[BadFile] = []
        images = list_numbered(find_folder(root, [IMAGES[bands]], LAYOUT), bands, bad)
        folders, ending = LABELS[boundary]
        if split != "test":
            find_folder(root, folders, LAYOUT)
        labels: dict[Number, Path] = {}
        for folder in folders:
            if (Path(root) / folder).is_dir():
                labels = list_numbered(Path(root) / folder, ending, bad) | labels
        tests_labelled = any(SPLIT_OF[number] == "test" for number in labels)
        samples: list[Sample] = []
        for name in ("train", "test") if split is None and tests_labelled else (split or "train",):
            found = {"image": of_split(images, name)}
            if name == "train" or tests_labelled:
                found["mask"] = of_split(labels, name)
            samples += pair_files(found, name, bad)
        check_any(samples, bad, LAYOUT)
        samples.sort(key=lambda sample: [int(part) for part in sample.source.split("_")])
        super().__init__(
            [part for sample in samples for part in cut(sample, tile, max_pixels, bad)],
            transform,
            num_classes=classes,
            ignore_index=IGNORE,
            class_names=CLASSES[classes],
            max_pixels=max_pixels,
            bad_files=bad,
            options={"bands": bands, "classes": classes, "tile": tile, "boundary": boundary},
        )

    def read(self, sample: Sample) -> Data:
        file, bands = sample.files["image"], self.options["bands"]
        # Four bands look like red, green, blue and alpha; some writers say that they are.
        found = read_image(file, keep_alpha=bands == "RGBIR", max_pixels=self.max_pixels, window=sample.window)
        if found.image.size(0) != BANDS[bands]:
            raise ValueError(f"got {found.image.size(0)} channels in {file}, expected {BANDS[bands]} ({bands})")
        data = Data(image=found.image, geo=found.geo)
        if found.valid is not None:
            data.valid = found.valid
        if "mask" in sample.files:
            table = OF_COLOR[self.options["classes"]]
            data.mask = read_color_classes(sample.files["mask"], table, sample.window, self.max_pixels)
        return data


def list_numbered(folder: Path, ending: str, bad: list[BadFile]) -> dict[Number, Path]:
    """(row, column) to file `top_potsdam_ROW_COLUMN_ENDING.tif`; numbers that are not the contest's go to `bad`."""
    found = {}
    for file in sorted(folder.rglob(f"top_potsdam_*_{ending}.tif")):
        match = re.fullmatch(rf"top_potsdam_(\d+)_(\d+)_{ending}", file.stem)
        number = (int(match[1]), int(match[2])) if match else None
        if number in SPLIT_OF:
            found[number] = file
        else:
            bad.append(BadFile(str(file), "got an image of another number, expected one of the contest's 38"))
    return found


def of_split(files: dict[Number, Path], split: str) -> dict[str, Path]:
    """Those of one split, by name: "2_10"."""
    return {f"{row}_{column}": file for (row, column), file in files.items() if SPLIT_OF[row, column] == split}


def cut(sample: Sample, tile: int | None, max_pixels: int, bad: list[BadFile]) -> list[Sample]:
    """The tiles of one image, row by row; an image that cannot be opened goes to `bad`."""
    if tile is None:
        return [sample]
    file = sample.files["image"]
    try:
        with tifffile.TiffFile(file) as opened:
            height, width = opened.pages.first.imagelength, opened.pages.first.imagewidth
        if height * width > max_pixels:
            raise ValueError(f"got {height} x {width} pixels, expected at most max_pixels={max_pixels}")
    except Exception as error:  # whatever the parser stumbles on in a damaged file
        bad.append(BadFile(str(file), f"got an image that cannot be cut ({error}), expected a TIFF file"))
        return []
    return [
        replace(
            sample,
            source=f"{sample.source}_r{y:04}_c{x:04}",
            window=(y, x, min(tile, height - y), min(tile, width - x)),
        )
        for y in range(0, height, tile)
        for x in range(0, width, tile)
    ]


def read_color_classes(file: Path, table: Tensor, window: tuple[int, int, int, int] | None, max_pixels: int) -> Tensor:
    """`[H, W]`, the class of each pixel's colour.

    Args:
        file: an image of 8 bits.
        table: the class of every combination of red, green and blue that are on.
        window: the part to read.
        max_pixels: larger files are refused before they are decoded.

    Raises:
        ValueError: for a colour of no class, channels half way between on and off, or a file that is not of 8 bits.
    """
    colors = read_image(file, channels=3, max_pixels=max_pixels, window=window).image
    if colors.dtype != torch.uint8:
        raise ValueError(f"got {colors.dtype} in {file}, expected colours of 8 bits")
    is_on = colors > UNCLEAR[1]
    red, green, blue = is_on.to(torch.uint8)
    found = table[(red << 2 | green << 1 | blue).int()]
    wrong = ((colors >= UNCLEAR[0]) & ~is_on).any(0) | (found == WRONG)
    if bool(wrong.any()):
        color = tuple(colors[:, wrong][:, 0].tolist())
        raise ValueError(f"got colour {color} in {file} ({int(wrong.sum())} pixels of such), expected one of a class")
    return found
