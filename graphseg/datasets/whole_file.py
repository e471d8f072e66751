"""Files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["whole_file", "write_text"]


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Gives a file to write into, beside `path`, whose place it takes at the end: no reader ever sees half a file.

    If the writing fails, what was at `path` stays. A process that is killed leaves a hidden file with suffix `.part`.

    Args:
        path: the file, in a folder that is there.
    """
    path = Path(path)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8, whole or not at all.

    Args:
        path: the file; folders above it are made.
        text: its content.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        # Lone surrogates, which stand for the odd bytes of a file's name, have no UTF-8.
        file.write(text.encode("utf-8", errors="backslashreplace"))
