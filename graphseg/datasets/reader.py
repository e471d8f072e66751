"""ImageReader: what every reader of a data set shares. A reader is a dataset of images, one `Data(image=, mask=)` each.

A reader lists its files when it is made and opens them when one is asked for. It takes a `transform`, so that
augmentation and conversion can happen on the fly, in a `DataLoader` as well; `ImageGraphDataset.build` makes the graphs
once and keeps them.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from torch_geometric.data import Data, Dataset

from graphseg._checks import check_positive_int
from graphseg.datasets.image_file import MAX_PIXELS

__all__ = ["BadFile", "ImageReader", "Sample"]


@dataclass(frozen=True)
class Sample:
    """One image of a reader: its name, its files, and what to read of them.

    Args:
        source: the image's name, unlike all others of the reader.
        files: role ("image", "mask", "instances", ...) to file.
        split: "train", "val", "test", ...; empty where the set has none.
        window: (y0, x0, height, width), the part of the files that is this image; None for all.
    """

    source: str
    files: Mapping[str, Path] = field(hash=False)
    split: str = ""
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class BadFile:
    """A file that no graph can be made of, and why.

    Args:
        file: its path.
        reason: what is wrong, and what would mend it.
    """

    file: str
    reason: str


class ImageReader(Dataset):
    """The base of all readers. `reader[i]` is `Data(image=[C, H, W], mask=[H, W], ..., source=)`; `reader[:10]` a part.

    A reader of your own lists its samples, hands them to this constructor, and has a method `read`.

    Args:
        samples: what there is, in the order of the dataset.
        transform: applied to every `Data`, for augmentation or conversion on the fly.
        num_classes: K of the masks; None where there are none or nobody said.
        ignore_index: mask value of no class; None where there is none.
        class_names: K names, or none.
        max_pixels: images with more pixels are refused before they are decoded.
        bad_files: files that were found and belong to no sample.
        options: by name, whatever else changes what `read` gives; plain JSON values. Graphs that were built with other
            options are built again.

    Raises:
        ValueError: for two samples of one name, or names that are not `num_classes` many.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        transform: Callable[[Data], Any] | None = None,
        *,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        class_names: Sequence[str] = (),
        max_pixels: int = MAX_PIXELS,
        bad_files: Sequence[BadFile] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(transform=transform)
        check_positive_int("max_pixels", max_pixels)
        if class_names and num_classes is not None and len(class_names) != num_classes:
            raise ValueError(f"got {len(class_names)} class_names, expected num_classes={num_classes}")
        self.samples = list(samples)
        self.ignore_index = ignore_index
        self.class_names = tuple(class_names)
        self.max_pixels = max_pixels
        self.bad_files = list(bad_files)
        self.options = dict(options or {})
        self._num_classes = num_classes
        seen: set[str] = set()
        for sample in self.samples:
            if sample.source in seen:
                raise ValueError(f"got two images named {sample.source!r}, expected each name once")
            seen.add(sample.source)

    @property
    def num_classes(self) -> int | None:
        """K of the masks; None where there are none or nobody said."""
        return self._num_classes

    def set_num_classes(self, num_classes: int | None) -> None:
        """Says how many classes the masks have, where the reader did not know."""
        self._num_classes = num_classes

    @abstractmethod
    def read(self, sample: Sample) -> Data:
        """Opens the files of one sample: `Data(image=[C, H, W])`, with `mask`, `instances`, `valid` as there are."""

    def recipe(self) -> dict[str, Any]:
        """What, beside the files, decides over what is read: this class and its options, as JSON values."""
        return {"reader": type(self).__name__, **self.options}

    def split(self, name: str) -> Self:
        """The part of one split.

        Raises:
            ValueError: for a split that no sample has.
        """
        ids = [i for i in self.indices() if self.samples[i].split == name]
        if not ids:
            there = sorted({self.samples[i].split for i in self.indices()} - {""})
            raise ValueError(f"got split {name!r}, expected {'one of ' + ', '.join(there) if there else 'none at all'}")
        part = copy.copy(self)
        part._indices = ids
        return part

    def single(self, index: int) -> Self:
        """A reader of one sample, small enough to be sent to another process, without `transform`."""
        one = copy.copy(self)
        one.samples = [self.samples[self.indices()[index]]]
        one.bad_files = []
        one._indices = None
        one.transform = None
        return one

    def len(self) -> int:
        return len(self.samples)

    def get(self, idx: int) -> Data:
        data = self.read(self.samples[idx])
        data.source = self.samples[idx].source
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)})"


def check_size(path: Path, found: Tensor, image: Tensor) -> Tensor:
    """`found`, a map or an image; ValueError if its size is not that of the image it belongs to."""
    got, want = list(found.shape[-2:]), list(image.shape[-2:])
    if got != want:
        raise ValueError(f"{path}: got {got[0]} x {got[1]} pixels, expected its image's {want[0]} x {want[1]}")
    return found
