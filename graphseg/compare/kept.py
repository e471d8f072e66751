"""Results that are kept as they come, a line of JSON each, so that a comparison goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from graphseg.datasets import ImageReader
from graphseg.datasets.content import content_key

__all__ = ["ResultLog", "read_results", "result_key"]

VERSION = 1  # of the measures and the probe: others are made again

Row = dict[str, Any]


def result_key(one: ImageReader, recipe: str, options: Any) -> str | None:
    """A hash of what decides over a result of one image; None where the image is not a file.

    Args:
        one: a reader of that image.
        recipe: of the graph.
        options: whatever else counts, as JSON values.
    """
    sample = one.samples[0]
    if not sample.files:
        return None
    try:
        return content_key(sample, json.dumps([recipe, options, VERSION], sort_keys=True))
    except OSError:
        return None


def read_results(path: Path | None) -> Iterator[tuple[str, Row]]:
    """Key and result of what was kept before; a line that was not written to its end is passed over.

    Args:
        path: the file, which need not be there; None for nothing.
    """
    if path is None or not path.is_file():
        return
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
            yield str(found["key"]), dict(found["row"])
        except (ValueError, KeyError, TypeError):
            continue


class ResultLog:
    """Appends results as they come.

    Args:
        path: the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.path is not None:
            self.file = self.path.open("ab")
            if self.file.tell():
                self.file.write(b"\n")  # the last line may be half of one
        return self

    def write(self, key: str | None, row: Row) -> None:
        """Keeps one result, unless it has no key or is an error."""
        if self.file is not None and key is not None and "error" not in row:
            self.file.write(json.dumps({"key": key, "row": row}).encode() + b"\n")
            self.file.flush()

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
