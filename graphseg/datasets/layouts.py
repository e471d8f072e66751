"""What the readers of official layouts share: finding folders, pairing files by name, renumbering labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphseg._checks import check_choice
from graphseg.datasets.image_file import read_image, read_labels
from graphseg.datasets.reader import BadFile, ImageReader, Sample

IGNORE = 255
WRONG = -1  # in a table: a number that no mask of the set has

Transform = Callable[[Data], Any] | None


class OfficialSet(ImageReader):
    """Colour images with masks whose numbers `table` turns into classes.

    Args:
        samples: as for `ImageReader`.
        transform: likewise.
        table: number in the files to class, `WRONG` for numbers that cannot be.
        layout: of the files, for the error.
        known: for `ImageReader`.

    Raises:
        FileNotFoundError: if there is no image, not even a bad one.
    """

    def __init__(
        self, samples: Sequence[Sample], transform: Transform, table: Sequence[int], layout: str, **known: Any
    ) -> None:
        check_any(samples, known["bad_files"], layout)
        super().__init__(samples, transform, **known)
        self._table = tuple(table)

    def read(self, sample: Sample) -> Data:
        data = Data(image=read_image(sample.files["image"], channels=3, max_pixels=self.max_pixels).image)
        if "mask" in sample.files:
            data.mask = self._read_mask(sample.files["mask"])
        if "instances" in sample.files:
            data.instances = self._read_instances(sample.files["instances"])
        return data

    def _read_mask(self, file: Path) -> Tensor:
        return renumber(read_labels(file, max_pixels=self.max_pixels), self._table, file)

    def _read_instances(self, file: Path) -> Tensor:
        return read_labels(file, max_pixels=self.max_pixels)


def renumber(labels: Tensor, table: Sequence[int], file: Path) -> Tensor:
    """`table[labels]`; ValueError naming the file for a number that the table does not have.

    Args:
        labels: integers of any shape.
        table: number to class; `WRONG` where there is none.
        file: where the labels are from.
    """
    classes = torch.tensor(table)
    inside = (labels >= 0) & (labels < len(table))
    found = classes[labels] if bool(inside.all()) else classes[labels.where(inside, 0)].where(inside, WRONG)
    wrong = found == WRONG
    if bool(wrong.any()):
        first = int(labels[wrong][0])
        known = ", ".join(_runs(i for i, k in enumerate(table) if k != WRONG))
        raise ValueError(f"got label {first} in {file} ({int(wrong.sum())} pixels of such), expected {known}")
    return found


def _runs(numbers: Iterable[int]) -> list[str]:
    """Ascending numbers as "0 to 20", "255"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{low} to {high}" if high > low else str(low) for low, high in runs]


def check_any(samples: Sequence[Sample], bad: Sequence[BadFile], layout: str) -> None:
    """Raises FileNotFoundError with the layout if nothing was found."""
    if not samples and not bad:
        raise FileNotFoundError(f"got no images, expected {layout}")


def find_folder(root: str | Path, names: Sequence[str], layout: str) -> Path:
    """The first folder of these names below `root`; FileNotFoundError with the layout if there is none."""
    for name in names:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    raise FileNotFoundError(f"got no folder {' or '.join(names)} in {root}, expected {layout}")


def choose_splits(split: str | None, folders: Mapping[str, Path], labelled: Sequence[str], layout: str) -> list[str]:
    """The split that was asked for; without one, all with annotations that are there.

    Args:
        split: one of `folders`, or None.
        folders: split to where its images are.
        labelled: splits with public annotations.
        layout: the layout of the set, for the error.

    Raises:
        ValueError: for a split that the set does not have.
        FileNotFoundError: if none is there.
    """
    check_choice("split", split, (None, *folders))
    wanted = labelled if split is None else (split,)
    there = [name for name in wanted if folders[name].is_dir()]
    if not there:
        listed = " or ".join(str(folders[name]) for name in wanted)
        raise FileNotFoundError(f"got no folder {listed}, expected {layout}")
    return there


def pair_files(found: Mapping[str, Mapping[str, Path]], split: str, bad: list[BadFile]) -> list[Sample]:
    """One sample for every name that has a file of every role; files of the other names go to `bad`.

    Args:
        found: role to name to file.
        split: of these samples.
        bad: where files are added that have no partner.
    """
    samples = []
    for name in sorted(set().union(*found.values())):
        files = {role: paths[name] for role, paths in found.items() if name in paths}
        missing = [role for role in found if role not in files]
        if missing:
            role, file = next(iter(files.items()))
            bad.append(BadFile(str(file), f"got {role} without {missing[0]}, expected a file of both named {name}"))
        else:
            samples.append(Sample(name, files, split))
    return samples


def pair_listed(
    names: Iterable[str], folders: Mapping[str, tuple[Path, str]], split: str, bad: list[BadFile]
) -> list[Sample]:
    """One sample for every name of a list; files that are not there go to `bad`.

    Args:
        names: of images.
        folders: role to folder and suffix of its files.
        split: of these samples.
        bad: where missing files are added.
    """
    samples = []
    for name in names:
        files = {role: folder / f"{name}{suffix}" for role, (folder, suffix) in folders.items()}
        missing = [str(file) for file in files.values() if not file.is_file()]
        if missing:
            bad.append(BadFile(missing[0], f"got no such file, expected one for {name}, which the list of images has"))
        else:
            samples.append(Sample(name, files, split))
    return samples


def read_names(file: str | Path) -> list[str]:
    """The names of images that a text file lists, one a line; of paths the last part, without suffix.

    Raises:
        FileNotFoundError: if it is not there.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"got no file {file}, expected a list of images, one a line")
    lines = Path(file).read_text("utf-8").splitlines()
    return list(dict.fromkeys(Path(line.split()[0]).stem for line in lines if line.strip()))
