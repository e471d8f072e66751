"""Files of `torch.save`, read without running code from them."""

from __future__ import annotations

import os
from typing import Any

import torch

__all__ = ["read_tensors"]


def read_tensors(path: str | os.PathLike[str], expected: str, map_location: Any = "cpu") -> Any:
    """What a file holds.

    Args:
        path: the file.
        expected: what it should be, for the error.
        map_location: where its tensors go.

    Raises:
        OSError: if it cannot be opened.
        ValueError: for a file that is cut off, or of another kind.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of many kinds; torch's advice, to load without `weights_only`, is not passed on
        raise ValueError(f"got {path}, expected {expected}: it is cut off, or another kind of file") from error
