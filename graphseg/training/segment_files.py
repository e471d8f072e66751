"""The files of segmentations: names that tell images apart, label maps, pictures, records."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from graphseg.datasets import write_geotiff
from graphseg.datasets.image_file import IMAGE_SUFFIXES, ImageFile
from graphseg.datasets.whole_file import whole_file, write_text
from graphseg.training.data import image_in_unit_range
from graphseg.training.pictures import instance_overlay, label_overlay

__all__ = ["Found", "find_images", "is_done", "write_results"]


class Found(NamedTuple):
    """What a network finds in one image.

    Args:
        labels: int64 `[H, W]`, the class of each pixel; -1 where the file has no data.
        instances: int64 `[H, W]`, the instance of each pixel, from 1, 0 for none; None for networks of classes.
        classes: int64 `[n]`, of the instances.
        scores: float64 `[n]`, of the instances.
    """

    labels: Tensor
    instances: Tensor | None = None
    classes: Tensor | None = None
    scores: Tensor | None = None


def find_images(images: str | Path | Sequence[str | Path], out: Path) -> dict[str, Path]:
    """Names of results to files, in order: paths below the folder that all have in common.

    Args:
        images: a folder, a file, or several of them; hidden files in folders are passed over.
        out: where results go, which must not be in such a folder.

    Raises:
        FileNotFoundError: for what is not there, or no image at all.
        ValueError: for `out` in a folder of images.
    """
    given = [Path(images)] if isinstance(images, str | Path) else [Path(one) for one in images]
    found: set[Path] = set()
    for root in given:
        if root.is_file():
            found.add(Path(os.path.abspath(root)))
            continue
        if not root.is_dir():
            raise FileNotFoundError(f"got {root}, expected images, or folders of them, that are there")
        if out.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"got out {out} inside {root}, expected another place: it gets pictures")
        for path in root.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not hidden:
                found.add(Path(os.path.abspath(path)))
    if not found:
        raise FileNotFoundError(
            f"got no image in {', '.join(map(str, given))}, expected files of {', '.join(IMAGE_SUFFIXES)}"
        )
    top = Path(os.path.commonpath([os.path.abspath(one if one.is_dir() else one.parent) for one in given]))
    return _names([path.relative_to(top) for path in sorted(found)], top)


def _names(paths: Sequence[Path], top: Path) -> dict[str, Path]:
    """Without suffixes where that tells them apart; with them files of one folder always differ."""
    whole = [False] * len(paths)
    while True:
        names = [(path if full else path.with_suffix("")).as_posix() for path, full in zip(paths, whole, strict=True)]
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(name, []).append(place)
        twice = [place for same in places.values() if len(same) > 1 for place in same]
        if not twice:
            return {name: top / path for name, path in zip(names, paths, strict=True)}
        for place in twice:
            whole[place] = True


def is_done(out: Path, name: str, want: Mapping[str, Any]) -> bool:
    """Whether there are the results of an image, and they are what is wanted.

    Args:
        out: folder of results.
        name: of the image.
        want: values of its record.
    """
    try:
        record = json.loads((out / "records" / f"{name}.json").read_text("utf-8"))
        same = all(record[key] == value for key, value in want.items())
        return same and all((out / file).is_file() for file in record["files"].values())
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False


def write_results(
    out: Path,
    name: str,
    file: ImageFile,
    found: Found,
    num_classes: int,
    class_names: Sequence[str],
    record: dict[str, Any],
) -> None:
    """Writes the files of one image; the record comes last, and stands for all.

    Args:
        out: folder of results.
        name: of the image.
        file: the image.
        found: in it.
        num_classes: of the network.
        class_names: or none.
        record: what else the record says.
    """
    suffix = ".tif" if file.geo else ".png"
    nodata = 255 if num_classes <= 255 else 65535
    image = image_in_unit_range(file.image)
    files = {"labels": f"labels/{name}{suffix}", "overlay": f"overlays/{name}.png"}
    labels = found.labels.where(found.labels >= 0, nodata).numpy().astype(np.uint8 if nodata == 255 else np.uint16)
    _write_map(out / files["labels"], labels, file.geo, nodata)
    if found.instances is None:
        picture = label_overlay(image, found.labels, ignore_index=-1)
    else:
        picture = instance_overlay(image, found.instances)
        files["instances"] = f"instances/{name}{suffix}"
        _write_map(out / files["instances"], found.instances.numpy().astype(np.uint16), file.geo, 0)
    _write_png(out / files["overlay"], picture.movedim(0, 2).contiguous().numpy())

    def named(label: int) -> dict[str, Any]:
        return {"class": label, **({"name": class_names[label]} if label < len(class_names) else {})}

    labels_there, pixels = found.labels[found.labels >= 0].unique(return_counts=True)
    record |= {"height": image.size(1), "width": image.size(2), "files": files}
    record["classes"] = [
        {**named(label), "pixels": count} for label, count in zip(labels_there.tolist(), pixels.tolist(), strict=True)
    ]
    if found.instances is not None and found.classes is not None and found.scores is not None:
        areas = found.instances.flatten().bincount(minlength=len(found.classes) + 1)[1:].tolist()
        rows = zip(found.classes.tolist(), found.scores.tolist(), areas, strict=True)
        record["instances"] = [
            {"id": k, **named(label), "score": score, "area": area}
            for k, (label, score, area) in enumerate(rows, 1)
            if area  # small ones may be lost on the way to the image's size
        ]
    write_text(out / "records" / f"{name}.json", json.dumps(record, indent=1))


def _write_map(path: Path, values: np.ndarray[Any, Any], geo: str, nodata: int) -> None:
    if geo:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_geotiff(path, torch.from_numpy(values), geo, nodata=nodata)
    else:
        _write_png(path, values)


def _write_png(path: Path, values: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        Image.fromarray(values).save(file, format="PNG")
