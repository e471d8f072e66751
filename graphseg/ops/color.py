"""Colours as superpixels see them: CIELAB, in floating-point with gradients and in fixed point for exact sums.

Source: IEC 61966-2-1 (sRGB) and CIE 15 (CIELAB), white point D65 of the 2 degree observer.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_tensor

_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float64
)
_WHITE = np.array([0.95047, 1.0, 1.08883], np.float64)
_KNEE = 0.008856  # below it CIELAB's root is a line


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIELAB of sRGB images, with gradients.

    Args:
        images: `[..., 3, H, W]` or, with depth, `[..., 3, D, H, W]`: the third dimension from the end, or the fourth if
            the third is not 3, holds red, green, blue in [0, 1].

    Returns:
        The same shape: L in [0, 100], a and b about [-110, 110].

    Raises:
        TypeError: if images are not floating-point.
        ValueError: if there is no dimension of three channels.
    """
    given = check_tensor("images", images)
    if not given.is_floating_point():
        raise TypeError(f"got dtype {given.dtype} for images, expected floating-point in [0, 1] (uint8: / 255)")
    at = next((d for d in (-3, -4) if given.dim() >= -d and given.shape[d] == 3), None)
    if at is None:
        raise ValueError(f"got shape {list(given.shape)} for images, expected [..., 3, H, W]")
    rgb = given.movedim(at, -1)
    with torch.autocast(given.device.type, enabled=False):
        return _to_lab(rgb).movedim(-1, at)


def _to_lab(rgb: Tensor) -> Tensor:
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ torch.as_tensor((_XYZ / _WHITE[:, None]).T, dtype=rgb.dtype, device=rgb.device)
    root = torch.where(xyz > _KNEE, xyz.clamp(min=_KNEE) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


class LabTables(NamedTuple):
    """CIELAB by look-up, so that every device finds the same whole numbers.

    For channels r, g, b in 0 ... 65535:  t = (matrix @ gamma[r, g, b]) >> 16,  f = root[t], and in units of 1 / `scale`
    L = (116 f_y - zero + 128) >> 8,  a = (500 (f_x - f_y) + 128) >> 8,  b = (200 (f_y - f_z) + 128) >> 8.
    """

    gamma: np.ndarray  # [65536] linear light, 16 bits
    matrix: np.ndarray  # [3, 3] to XYZ over white, 14 bits
    root: np.ndarray  # [16385] 256 * scale * f
    zero: int


@functools.lru_cache(maxsize=16)
def lab_tables(scale: float) -> LabTables:
    """The tables for `scale` levels to a unit of Lab, up to 64."""
    level = np.arange(65536) / 65535
    linear = np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)
    gamma = np.round(65535 * linear).astype(np.int32)
    matrix = np.round(_XYZ / _XYZ.sum(1, keepdims=True) * 16384).astype(np.int32)
    matrix[:, 1] += 16384 - matrix.sum(1, dtype=np.int32)  # white stays white: no row over 1, no t over 16384
    t = np.arange(16385) / 16384
    root = np.where(t > _KNEE, np.cbrt(t), 7.787 * t + 16 / 116)
    return LabTables(gamma, matrix, np.round(256 * scale * root).astype(np.int32), round(16 * 256 * scale))
