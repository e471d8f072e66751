"""Which images a command reads, and their labels: a plain folder, or a set of known layout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphseg.cli.answer import option

if TYPE_CHECKING:
    from graphseg.datasets import ImageReader

__all__ = ["DATASETS", "FOLDER", "add_data", "make_reader", "read_folder", "read_set"]

# Sets of known layout, and their classes in graphseg.datasets.
DATASETS = {
    "ade20k": "ADE20K",
    "bsds500": "BSDS500",
    "camvid": "CamVid",
    "cityscapes": "Cityscapes",
    "coco_stuff": "CocoStuff",
    "dsb2018": "DSB2018",
    "isbi2012": "ISBI2012",
    "msrc21": "MSRC21",
    "pascal_context": "PascalContext",
    "pascal_voc": "PascalVOC",
    "penn_fudan": "PennFudan",
    "potsdam": "Potsdam",
    "sentinel2": "Sentinel2",
}
FOLDER = "folder"  # the plain folder, where a set is what comes without a word
# Which options only a plain folder has, and which of them need another.
_NEEDED = {
    "labels": ("mask_suffix", "num_classes", "ignore_index", "class_names"),
    "instances": ("instance_suffix",),
}
_OF_FOLDER = ("instances", "channels", *_NEEDED["labels"], *_NEEDED["instances"])


def add_data(
    command: argparse.ArgumentParser, *, flag: bool = False, split: str = "only this one (default: all)"
) -> None:
    """Adds the options of images and labels.

    Args:
        command: which reads them.
        flag: the folder is `--data`, and a plain folder has a name among the sets; else it is the first word.
        split: what the help says of `--split`.
    """
    about = "folder of images, or of the set that --dataset names"
    if flag:
        command.add_argument("--data", dest="images", type=Path, metavar="FOLDER", help=about)
    else:
        command.add_argument("images", type=Path, metavar="IMAGES", help=about)
    data = command.add_argument_group("images and labels")
    source = data.add_mutually_exclusive_group()
    source.add_argument("--labels", type=Path, metavar="MASKS", help="folder of masks: the class of each pixel")
    names = (*DATASETS, FOLDER) if flag else tuple(DATASETS)
    default = f" (default that of the recipe; {FOLDER}: any images, also without labels)" if flag else ""
    source.add_argument(
        "--dataset", choices=names, metavar="NAME", help=f"a set of known layout: {', '.join(names)}{default}"
    )
    data.add_argument("--instances", type=Path, metavar="MAPS", help="folder of instance maps, 0 for background")
    data.add_argument("--mask-suffix", metavar="TEXT", help="what masks' names have more than images', _mask say")
    data.add_argument("--instance-suffix", metavar="TEXT", help="likewise, of --instances")
    data.add_argument(
        "--num-classes", type=int, metavar="K", help="default: the largest label + 1, found by reading all masks"
    )
    data.add_argument("--ignore-index", type=int, metavar="N", help="label of no class")
    data.add_argument("--class-names", type=Path, metavar="FILE", help="one name a line")
    data.add_argument("--channels", type=int, choices=(1, 3), help="make all images grey, or colour")
    data.add_argument("--split", help=f"of --dataset: {split}")
    data.add_argument("--classes", type=int, metavar="K", help="of --dataset, where it has several ways to count them")
    data.add_argument("--max-pixels", type=int, metavar="N", help="refuse larger images (default 178,956,970)")


def make_reader(options: argparse.Namespace) -> ImageReader:
    """The reader that the options of `add_data` ask for.

    Args:
        options: of the command.
    """
    if options.dataset is not None:
        return read_set(options, options.dataset, options.split)
    return read_folder(options)


def read_set(
    options: argparse.Namespace, name: str, split: str | None, chosen: Mapping[str, Any] | None = None
) -> ImageReader:
    """A set of known layout.

    Args:
        options: of the command.
        name: of the set.
        split: the part to read; None for all.
        chosen: further arguments of its reader.
    """
    from graphseg import datasets

    given = [n for n in _OF_FOLDER if getattr(options, n) is not None]
    if given:
        options.error(f"got {option(given[0])} with --dataset {name}, which brings its own")
    words = {} if options.classes is None else {"classes": options.classes}
    try:
        reader: ImageReader = getattr(datasets, DATASETS[name])(options.images, split, **{**(chosen or {}), **words})
    except TypeError as error:
        if words and "unexpected keyword" in str(error):
            options.error(f"got --classes {options.classes}, expected none: {name} counts them one way")
        raise
    reader.max_pixels = max_pixels_of(options)
    return reader


def read_folder(options: argparse.Namespace, num_classes: int | None = None) -> ImageReader:
    """A plain folder.

    Args:
        options: of the command.
        num_classes: of its masks. Default: what the options say, or else the masks.
    """
    from graphseg import datasets

    most = max_pixels_of(options)
    for name in ("split", "classes"):
        if getattr(options, name) is not None:
            options.error(f"got --{name} without --dataset, expected both")
    for needed, names in _NEEDED.items():
        for name in names:
            if getattr(options, needed) is None and getattr(options, name) is not None:
                options.error(f"got {option(name)} without {option(needed)}, expected both")
    lines = options.class_names.read_text("utf-8").split("\n") if options.class_names is not None else []
    class_names = [line.strip() for line in lines if line.strip()]

    def folder(num_classes: int | None) -> ImageReader:
        return datasets.ImageFolder(
            options.images,
            options.labels,
            options.instances,
            mask_suffix=options.mask_suffix or "",
            instance_suffix=options.instance_suffix or "",
            channels=options.channels,
            num_classes=num_classes,
            ignore_index=options.ignore_index,
            class_names=class_names,
            max_pixels=most,
        )

    if options.labels is None:
        return folder(None)
    K = options.num_classes if options.num_classes is not None else len(class_names) or num_classes
    if K is None:
        K = datasets.count_classes(folder(None))
        print(f"{K} classes in {options.labels}", file=sys.stderr)
    return folder(K)


def max_pixels_of(options: argparse.Namespace) -> int:
    from graphseg._checks import check_positive_int
    from graphseg.datasets.image_file import MAX_PIXELS

    most: int = MAX_PIXELS if options.max_pixels is None else options.max_pixels
    check_positive_int("--max-pixels", most)
    return most
