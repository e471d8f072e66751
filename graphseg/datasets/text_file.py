"""Text files that are whole or not there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["write_text"]


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 so that no reader ever sees half a file: into one beside it, which then takes its place.

    Args:
        path: the file; folders above it are made.
        text: its content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        # Lone surrogates, which stand for the odd bytes of a file's name, have no UTF-8.
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
