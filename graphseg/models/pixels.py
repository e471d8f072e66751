"""Between maps and pixels: rows of pixels and back, their places, the windows around them, maps in another size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from graphseg.ops import affinity_offsets, offset_edges

__all__ = ["pixel_images", "pixel_maps", "pixel_positions", "pixel_rows", "resize", "window_edges"]


def pixel_rows(x: Tensor) -> Tensor:
    """Maps `[B, C, h, w]` as rows of pixels `[B h w, C]`.

    Args:
        x: the maps.
    """
    return x.permute(0, 2, 3, 1).reshape(-1, x.size(1))


def pixel_maps(rows: Tensor, like: Tensor) -> Tensor:
    """Rows of pixels `[B h w, C]` as maps `[B, C, h, w]`.

    Args:
        rows: of `pixel_rows`.
        like: maps `[B, *, h, w]`, of the size that is wanted.
    """
    B, _, h, w = like.shape
    return rows.view(B, h, w, -1).permute(0, 3, 1, 2)


def pixel_images(like: Tensor) -> Tensor:
    """The image of each pixel, int64 `[B h w]`.

    Args:
        like: maps `[B, *, h, w]`.
    """
    B, _, h, w = like.shape
    return torch.arange(B, device=like.device).repeat_interleave(h * w)


def pixel_positions(like: Tensor) -> Tensor:
    """(x, y) of each pixel, float32 `[B h w, 2]`.

    Args:
        like: maps `[B, *, h, w]`.
    """
    B, _, h, w = like.shape
    y, x = torch.meshgrid(torch.arange(h, device=like.device), torch.arange(w, device=like.device), indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2).float().repeat(B, 1)


def window_edges(like: Tensor, distances: Sequence[int] | None, radius: float = 0.0) -> Tensor:
    """Edges both ways between the pixels of B images `[2, E]`: eight neighbours at each distance, or all in a radius.

    Args:
        like: maps `[B, *, h, w]`.
        distances: of the neighbours, in pixels; None: all within `radius`.
        radius: in pixels.
    """
    if distances is not None:
        offsets = affinity_offsets(distances)
    else:
        reach = int(radius)
        steps = range(-reach, reach + 1)
        offsets = [(dy, dx) for dy in steps for dx in steps if 0 < dy * dy + dx * dx <= radius * radius]
    B, _, h, w = like.shape
    one = offset_edges(h, w, offsets, directed=True, device=like.device)  # [2, E]
    shift = h * w * torch.arange(B, device=like.device)
    return (one.unsqueeze(1) + shift.view(1, B, 1)).reshape(2, -1)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation of `[B, C, h, w]` to another size.

    Args:
        x: the maps.
        size: (H, W).
    """
    return x if x.shape[-2:] == tuple(size) else interpolate(x, tuple(size), mode="bilinear", align_corners=False)
