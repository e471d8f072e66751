"""Readers of small public sets of one layout: BSDS500, CamVid, DSB2018, ISBI2012, MSRC21, PennFudan and Sentinel2.

The folder of a set holds its files and `splits.txt`: one image a line, its split and its files, relative to the folder,
separated by tabs. Lines that start with # are passed over. `classes.txt` has a number and a name a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphseg._checks import check_choice
from graphseg.datasets.image_file import read_image, read_labels
from graphseg.datasets.reader import BadFile, ImageReader, Sample, check_size
from graphseg.transforms._base import NO_ANNOTATION

__all__ = ["BSDS500", "DSB2018", "ISBI2012", "MSRC21", "CamVid", "PennFudan", "Sentinel2"]

NO_CLASS = 255

Transform = Callable[[Data], Any] | None


class Row(NamedTuple):
    """One line of splits.txt: its number, the split, and role to file as they are written."""

    number: int
    split: str
    files: dict[str, str]


class _ListedSet(ImageReader):
    """Reads what splits.txt lists: an image, and the label maps that come with it."""

    layout: str  # the files of the set, in words
    channels = 3

    def __init__(self, root: Path, rows: Sequence[Row], split: str | None, transform: Transform, **known: Any) -> None:
        splits = {row.split for row in rows}
        if split is not None and split not in splits:
            raise ValueError(f"got split {split!r}, expected one of {', '.join(sorted(splits))}")
        samples, bad = [], []
        for row in rows:
            if split not in (None, row.split):
                continue
            wrong = {role: reason for role, name in row.files.items() if (reason := why_not(root, role, name))}
            for role, reason in wrong.items():
                path = root / (row.files[role] or row.files["image"])
                bad.append(BadFile(str(path), f"{reason} (splits.txt, line {row.number})"))
            if not wrong:
                files = {role: root / name for role, name in row.files.items()}
                samples.append(Sample(files["image"].stem, files, row.split))
        if not samples:
            reason = f"{bad[0].file}: {bad[0].reason}" if bad else "splits.txt is empty"
            raise FileNotFoundError(f"got no image in {root}, expected {self.layout}; {reason}")
        super().__init__(samples, transform, bad_files=bad, **known)

    def read(self, sample: Sample) -> Data:
        image = read_image(sample.files["image"], channels=self.channels, max_pixels=self.max_pixels).image
        data = Data(image=image)
        for role in ("mask", "instances", "segments"):
            if role in sample.files:
                data[role] = self._read_map(sample.files[role], image)
        return data

    def _read_map(self, path: Path, image: Tensor) -> Tensor:
        return check_size(path, read_labels(path, max_pixels=self.max_pixels), image)


class BSDS500(_ListedSet):
    """Photographs, each segmented by four to nine people (Arbelaez et al., 2011). There are no classes.

    Every image has `annotations [A, H, W]` int64 for the same A, the most annotators that any image of the set has.
    Those that an image lacks are -1.

    Args:
        root: the folder with splits.txt, images/ and labels/.
        split: "train", "val" or "test_dev"; None: all.
        transform: as for `ImageReader`.
        annotator: read this annotator's map only, counted from 0, as `segments`. Images that have fewer annotators are
            in `bad_files`.

    Raises:
        FileNotFoundError: without the set's files.
        ValueError: for a split or an annotator that the set does not have.
    """

    layout = "splits.txt (split, image, labels joined by ';'), images/ and labels/"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        transform: Transform = None,
        *,
        annotator: int | None = None,
    ) -> None:
        rows = read_rows(root, ("image", "annotations"), self.layout)
        maps = [row.files.pop("annotations").split(";") for row in rows]
        self.num_annotators = max((len(found) for found in maps), default=0)
        if annotator is not None:
            check_choice("annotator", annotator, range(self.num_annotators))
        for row, found in zip(rows, maps, strict=True):
            if annotator is None:
                row.files.update({f"annotations_{k}": path for k, path in enumerate(found)})
            else:
                row.files["segments"] = found[annotator] if annotator < len(found) else ""
        options = {"annotator": annotator, "annotators": self.num_annotators}
        super().__init__(Path(root), rows, split, transform, options=options)

    def read(self, sample: Sample) -> Data:
        data = super().read(sample)
        if "segments" not in sample.files:
            data.annotations = torch.full((self.num_annotators, *data.image.shape[1:]), NO_ANNOTATION)
            for k, path in enumerate(sample.files[f"annotations_{k}"] for k in range(len(sample.files) - 1)):
                data.annotations[k] = self._read_map(path, data.image)
        return data


class CamVid(_ListedSet):
    """Video frames of streets in 11 classes, in the version of SegNet (Brostow et al., 2008). `mask` is void at 11.

    Args:
        root: the folder with splits.txt, classes.txt, images/ and labels/.
        split: "train", "val" or "test_dev"; None: all.
        transform: as for `ImageReader`.

    Raises:
        FileNotFoundError: without the set's files.
        ValueError: for a split that the set does not have.
    """

    layout = "splits.txt (split, image, labels), classes.txt, images/ and labels/"

    def __init__(self, root: str | Path, split: str | None = None, transform: Transform = None) -> None:
        rows = read_rows(root, ("image", "mask"), self.layout)
        codes = read_classes(root, self.layout)
        super().__init__(Path(root), rows, split, transform, **labels_as_they_are(codes, "void"))


class MSRC21(_ListedSet):
    """Everyday photographs in 21 classes (Shotton et al., 2006), with the masks of Malisiewicz and Efros.

    Classes are numbered from 0 in the order of classes.txt; void is 255 in `mask`.

    Args:
        root: the folder with splits.txt, classes.txt, images/, labels/ and regions/.
        split: "train", "val" or "test_dev"; None: all.
        transform: as for `ImageReader`.
        classes: 21, as is usual: horse and mountain are so rare that they count as void; or all 23.
        regions: read the objects, too, as `segments`; 0 is void.

    Raises:
        FileNotFoundError: without the set's files.
        ValueError: for a split or a number of classes that the set does not have.
    """

    layout = "splits.txt (split, image, labels, regions), classes.txt, images/, labels/ and regions/"

    def __init__(
        self,
        root: str | Path,
        split: str | None = None,
        transform: Transform = None,
        *,
        classes: int = 21,
        regions: bool = False,
    ) -> None:
        check_choice("classes", classes, (21, 23))
        rows = read_rows(root, ("image", "mask", "segments") if regions else ("image", "mask"), self.layout)
        codes = read_classes(root, self.layout)
        left_out = ("void", "horse", "mountain") if classes == 21 else ("void",)
        kept = [code for code, name in codes.items() if name not in left_out]
        self._class_of = torch.full((max(codes) + 1,), NO_CLASS)
        self._class_of[kept] = torch.arange(len(kept))
        super().__init__(
            Path(root),
            rows,
            split,
            transform,
            num_classes=len(kept),
            ignore_index=NO_CLASS,
            class_names=[codes[code] for code in kept],
            options={"codes": kept, "regions": regions},
        )

    def read(self, sample: Sample) -> Data:
        data = super().read(sample)
        largest = int(data.mask.max())
        if largest >= len(self._class_of):
            raise ValueError(f"{sample.files['mask']}: got label {largest}, expected 0 to {len(self._class_of) - 1}")
        data.mask = self._class_of[data.mask]
        return data


class DSB2018(_ListedSet):
    """Microscope images of nuclei, grey and in colour, all read in colour (Data Science Bowl 2018, BBBC038).

    `instances` are the nuclei; `mask` is 0 for background, 1 for nucleus.

    Args:
        root: the folder with splits.txt, images/ and labels/.
        split: "train", "val" or "test_dev"; None: all.
        transform: as for `ImageReader`.

    Raises:
        FileNotFoundError: without the set's files.
        ValueError: for a split that the set does not have.
    """

    layout = "splits.txt (split, image, instance labels), images/ and labels/"
    names = ("background", "nucleus")

    def __init__(self, root: str | Path, split: str | None = None, transform: Transform = None) -> None:
        rows = read_rows(root, ("image", "instances"), self.layout)
        super().__init__(Path(root), rows, split, transform, num_classes=2, class_names=self.names)

    def read(self, sample: Sample) -> Data:
        data = super().read(sample)
        data.mask = (data.instances > 0).to(torch.int64)
        return data


class PennFudan(DSB2018):
    """Photographs of streets: `instances` are persons, `mask` is 0 for background, 1 for person (Wang et al., 2007).

    Args:
        root: the folder with splits.txt, images/ and labels/.
        split: "train", "val" or "test_dev"; None: all.
        transform: as for `ImageReader`.

    Raises:
        FileNotFoundError: without the set's files.
        ValueError: for a split that the set does not have.
    """

    names = ("background", "person")


class ISBI2012(_ListedSet):
    """Electron micrographs of neurons in one channel (Arganda-Carreras et al., 2015).

    `mask` is 0 for cell, 1 for membrane; `instances` are the cells, 0 for membrane.

    Args:
        root: the folder with splits.txt, images/, membrane/ and labels/.
        split: "train" or "val"; None: all.
        transform: as for `ImageReader`.

    Raises:
        FileNotFoundError: without the set's files.
        ValueError: for a split that the set does not have.
    """

    layout = "splits.txt (split, image, membrane, labels), images/, membrane/ and labels/"
    channels = 1

    def __init__(self, root: str | Path, split: str | None = None, transform: Transform = None) -> None:
        rows = read_rows(root, ("image", "mask", "instances"), self.layout)
        super().__init__(Path(root), rows, split, transform, num_classes=2, class_names=("cell", "membrane"))

    def read(self, sample: Sample) -> Data:
        data = super().read(sample)
        data.mask = (data.mask > 0).to(torch.int64)
        return data


class Sentinel2(_ListedSet):
    """Satellite images of red, green, blue and near infrared, in 3 classes of land. `mask` is undefined at 255.

    Args:
        root: the folder with splits.txt, classes.txt, rgb/, nir/ and labels/.
        split: "train", "val" or "test_dev"; None: all.
        transform: as for `ImageReader`.

    Raises:
        FileNotFoundError: without the set's files.
        ValueError: for a split that the set does not have.
    """

    layout = "splits.txt (split, rgb, nir, labels), classes.txt, rgb/, nir/ and labels/"

    def __init__(self, root: str | Path, split: str | None = None, transform: Transform = None) -> None:
        rows = read_rows(root, ("image", "nir", "mask"), self.layout)
        codes = read_classes(root, self.layout)
        super().__init__(Path(root), rows, split, transform, **labels_as_they_are(codes, "undefined"))

    def read(self, sample: Sample) -> Data:
        data = super().read(sample)
        path = sample.files["nir"]
        nir = read_image(path, channels=1, max_pixels=self.max_pixels).image
        data.image = torch.cat([data.image, check_size(path, nir, data.image)])
        return data


def read_rows(root: str | Path, columns: Sequence[str], layout: str) -> list[Row]:
    """All images that splits.txt lists.

    Args:
        root: the set's folder.
        columns: the roles of the files, in the order of the columns after the split; others are not read.
        layout: the files of the set, in words.
    """
    rows = []
    for number, line in enumerate(read_lines(Path(root) / "splits.txt", layout), 1):
        if line.strip() and not line.startswith("#"):
            split, *cells = line.split("\t")
            cells += [""] * len(columns)
            rows.append(Row(number, split, dict(zip(columns, cells, strict=False))))
    return rows


def read_classes(root: str | Path, layout: str) -> dict[int, str]:
    """Number to name of the classes, in the order of the numbers."""
    path = Path(root) / "classes.txt"
    try:
        pairs = [line.split(maxsplit=1) for line in read_lines(path, layout) if line.strip()]
        return dict(sorted((int(number), name.strip()) for number, name in pairs))
    except ValueError:
        raise ValueError(f"{path}: got lines of another kind, expected a number and a name in each") from None


def read_lines(path: Path, layout: str) -> list[str]:
    """The lines of a set's own text file; FileNotFoundError with the layout if it is not there."""
    if not path.is_file():
        missing = path if path.parent.is_dir() else path.parent
        raise FileNotFoundError(f"got no {missing}, expected a folder with {layout}")
    return path.read_text("utf-8").splitlines()


def why_not(root: Path, role: str, name: str) -> str:
    """Why a file of splits.txt cannot be read; empty if nothing speaks against it."""
    path = Path(name)
    if not name:
        return f"got no {role}, expected a file"
    if path.is_absolute() or path.drive or ".." in path.parts:
        return f"got {name!r} for {role}, expected a path inside the folder"
    return "" if (root / path).is_file() else f"got no such file for {role}, expected one"


def labels_as_they_are(codes: dict[int, str], unknown: str) -> dict[str, Any]:
    """What `ImageReader` is told of masks that hold classes 0 to K - 1, and one number for no class."""
    ignored = [code for code, name in codes.items() if name == unknown]
    names = [name for name in codes.values() if name != unknown]
    return {"num_classes": len(names), "class_names": names, "ignore_index": ignored[0] if ignored else None}
