"""What makes two builds the same: the bytes of an image's files, and the recipe of its graph."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_geometric.transforms import Compose

from graphseg.datasets.reader import ImageReader, Sample
from graphseg.transforms._base import describe

__all__ = ["content_key", "file_stamps", "recipe_of"]

FORMAT = 1  # raised when rows are stored otherwise


def recipe_of(reader: ImageReader, transform: Any) -> str:
    """How graphs are made of files, as JSON: the reader's options and the transform's parameters.

    Args:
        reader: of the files.
        transform: image to graph; the steps of a `Compose` each count.
    """
    steps = transform.transforms if isinstance(transform, Compose) else [transform]
    recipe = {"format": FORMAT, "reader": reader.recipe(), "transforms": [describe(step) for step in steps]}
    return json.dumps(recipe, sort_keys=True)


def content_key(sample: Sample, recipe: str) -> str:
    """A hash of the recipe, the bytes of the sample's files, their roles and the window; not of their names.

    Args:
        sample: whose files are read.
        recipe: how a graph is made of them.

    Raises:
        OSError: for files that cannot be read.
    """
    digests = {role: _digest(str(path), *_stamp(path)) for role, path in sample.files.items()}
    text = json.dumps([recipe, digests, sample.window], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_stamps(files: Mapping[str, Path]) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of every file: other ones mean that a file was written meanwhile.

    Args:
        files: role to path.
    """
    return {role: _stamp(path) for role, path in files.items()}


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)  # copying may set the first one back


@functools.lru_cache(maxsize=256)  # many tiles are cut from one file
def _digest(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
