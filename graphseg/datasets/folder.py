"""ImageFolder: images of a plain folder, with masks and instances paired by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphseg._checks import check_choice
from graphseg.datasets.image_file import IMAGE_SUFFIXES, MAX_PIXELS, read_image, read_labels
from graphseg.datasets.reader import BadFile, ImageReader, Sample, check_size

__all__ = ["ImageFolder", "count_classes", "find_labels"]


class ImageFolder(ImageReader):
    """All images below a folder, in the order of their names.

    Files pair by their path below their folder, without suffix: `images/a/1.jpg` with `masks/a/1.png`. Images are PNG,
    JPEG, TIFF, GeoTIFF, BMP, WebP or NumPy `.npy`, of 8 or 16 bits or floating-point and any number of channels; see
    `read_image` and `read_labels`.

    Args:
        images: the folder of images, or one image.
        masks: the folder of masks, the class of each pixel; None if there are none.
        instances: the folder of instance maps, 0 for background; None if there are none.
        transform: applied to every `Data`, for augmentation or conversion on the fly.
        mask_suffix: what the masks' names have more than the images', `"_mask"` say; files so named are no images.
        instance_suffix: likewise.
        channels: 1 or 3: images are made grey, or grey ones made colour; None: as they are.
        num_classes: K of the masks.
        ignore_index: mask value of no class; None if there is none.
        class_names: K names, or none.
        max_pixels: images with more pixels are refused before they are decoded.

    An image without its mask, a mask without its image and names that occur twice are in `bad_files`.

    Raises:
        FileNotFoundError: for a folder that is not there, or one without images.
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path | None = None,
        instances: str | Path | None = None,
        transform: Callable[[Data], Any] | None = None,
        *,
        mask_suffix: str = "",
        instance_suffix: str = "",
        channels: int | None = None,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        class_names: Sequence[str] = (),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_choice("channels", channels, (None, 1, 3))
        bad: list[BadFile] = []
        found = {"image": list_images(images, "", bad)}
        ends = tuple(end for end in (mask_suffix, instance_suffix) if end)
        found["image"] = {name: path for name, path in found["image"].items() if not (ends and name.endswith(ends))}
        for role, folder, suffix in (("mask", masks, mask_suffix), ("instances", instances, instance_suffix)):
            if folder is not None:
                found[role] = list_images(folder, suffix, bad)
        if not found["image"]:
            raise FileNotFoundError(f"got no image in {images}, expected files of {', '.join(IMAGE_SUFFIXES)}")
        samples = []
        for name, path in sorted(found["image"].items()):
            missing = [role for role in found if name not in found[role]]
            if missing:
                bad.append(BadFile(str(path), f"got an image without its {missing[0]}, expected one named {name}"))
            else:
                samples.append(Sample(name, {role: files[name] for role, files in found.items()}))
        for role in list(found)[1:] if Path(images).is_dir() else ():
            for name in sorted(set(found[role]) - set(found["image"])):
                bad.append(BadFile(str(found[role][name]), f"got {role} without an image, expected one named {name}"))
        # Graphs of one dataset have the same fields: where one image may lie on the globe, all say where they lie.
        self._with_geo = any(path.suffix.lower() in (".tif", ".tiff") for path in found["image"].values())
        super().__init__(
            samples,
            transform,
            num_classes=num_classes,
            ignore_index=ignore_index,
            class_names=class_names,
            max_pixels=max_pixels,
            bad_files=bad,
            options={"channels": channels, "geo": self._with_geo},
        )
        self.channels = channels

    def read(self, sample: Sample) -> Data:
        found = read_image(sample.files["image"], channels=self.channels, max_pixels=self.max_pixels)
        data = Data(image=found.image)
        if found.valid is not None:
            data.valid = found.valid
        if self._with_geo:
            data.geo = found.geo
        for role in ("mask", "instances"):
            if role in sample.files:
                path = sample.files[role]
                data[role] = check_size(path, read_labels(path, max_pixels=self.max_pixels), data.image)
        return data


def list_images(folder: str | Path, suffix: str, bad: list[BadFile]) -> dict[str, Path]:
    """Name, the path below `folder` without suffixes, to file; names that occur twice go to `bad`.

    Args:
        folder: searched with the folders in it; hidden files and folders are passed over. Or one file.
        suffix: the end of the names, to be left out; files without it are passed over.
        bad: where files are added that cannot be told apart.

    Raises:
        FileNotFoundError: if it is not there.
    """
    root = Path(folder)
    if root.is_file():
        return {root.stem.removesuffix(suffix): root}
    if not root.is_dir():
        raise FileNotFoundError(f"got {root}, expected a folder that is there")
    found: dict[str, Path] = {}
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.with_suffix("").as_posix()
        if not name.endswith(suffix) or (suffix and path.stem == suffix):
            continue
        name = name.removesuffix(suffix)
        if name in found:
            bad.append(BadFile(str(path), f"got {path.name} beside {found[name].name}, expected one file of a name"))
        else:
            found[name] = path
    return found


def find_labels(reader: ImageReader) -> list[int]:
    """The labels that occur in the masks of a reader, in order; masks that do not open are passed over.

    Args:
        reader: whose samples have a file "mask".
    """

    def labels(index: int) -> Tensor:
        sample = reader.samples[index]
        try:
            return read_labels(sample.files["mask"], max_pixels=reader.max_pixels).unique()
        except (OSError, ValueError):
            return torch.empty(0, dtype=torch.int64)  # the build will say so

    with ThreadPoolExecutor(4) as pool:  # decoding releases the interpreter
        found: set[int] = set().union(*(part.tolist() for part in pool.map(labels, reader.indices())))
    return sorted(found)


def count_classes(reader: ImageReader) -> int:
    """The number of classes in the masks of a reader: the largest label + 1, its `ignore_index` left out.

    Args:
        reader: whose samples have a file "mask".

    Raises:
        ValueError: for masks without a label, negative labels, or a label that looks as if it meant no class (255 or
            65535, far above the others).
    """
    known = sorted(set(find_labels(reader)) - {reader.ignore_index})
    if not known:
        raise ValueError("got masks without a label, expected classes from 0: give their number")
    last = known[-1]
    if reader.ignore_index is None and last in (255, 65535) and (len(known) == 1 or last - known[-2] > 1):
        others = f"labels {known[0]} to {known[-2]} and {last}" if len(known) > 1 else f"only label {last}"
        raise ValueError(
            f"got {others} in the masks: if {last} means no class, give --ignore-index {last} (ignore_index={last}); "
            f"else give --num-classes {last + 1} (num_classes={last + 1})"
        )
    if known[0] < 0:
        raise ValueError(f"got label {known[0]}, expected classes from 0: is it ignore_index?")
    return last + 1
