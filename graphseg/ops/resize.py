"""Maps in another size by the nearest pixel, in whole numbers: no rounding decides which pixel that is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["resize_nearest"]


def resize_nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes `[*, H, W]` to `[*, *size]`, as torch's "nearest-exact" does, for any dtype.

    Every new pixel takes what lies under its centre: row i that of floor((i + 1/2) H / size[0]), columns likewise.

    Args:
        x: maps.
        size: the new height and width.
    """
    for dim, new in zip((-2, -1), size, strict=True):
        old = x.size(dim)
        if old != new:
            x = x.index_select(dim, (2 * torch.arange(new, device=x.device) + 1) * old // (2 * new))
    return x
