"""Class maps and instances drawn over their image, as tensors: the same colours for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphseg._checks import check_integer, check_shape, check_tensor
from graphseg.plot import PALETTE

__all__ = ["instance_overlay", "label_overlay"]

_LUMA = (0.299, 0.587, 0.114)


def label_overlay(
    image: Tensor,
    labels: Tensor,
    *,
    palette: Sequence[str] = PALETTE,
    alpha: float = 0.6,
    ignore_index: int = 255,
) -> Tensor:
    """The image in grey, under the colour of each pixel's class; pixels of no class stay grey.

    Args:
        image: `[C, H, W]`, uint8 or floating-point in [0, 1]. Of more than three channels the first three are drawn,
            of two the first.
        labels: integers `[H, W]`, classes; negative ones are none.
        palette: colours "#RRGGBB" of the classes; those beyond it start again.
        alpha: opacity of the colours, in [0, 1].
        ignore_index: a label that is no class.

    Returns:
        uint8 `[3, H, W]`.

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    _check(labels, image, alpha)
    labels = labels.long()
    known = (labels >= 0) & (labels != ignore_index)
    ground = _colours(image)
    luma = ground.new_tensor(_LUMA).view(3, 1, 1)
    grey = (ground * luma).sum(0)  # [H, W]
    return _rounded(torch.where(known, torch.lerp(grey, _painted(labels, palette), alpha), grey))


def instance_overlay(image: Tensor, labels: Tensor, *, palette: Sequence[str] = PALETTE, alpha: float = 0.45) -> Tensor:
    """The image in its colours, each instance tinted and inside a line of one colour; neighbours may share it.

    Args:
        image: as for `label_overlay`.
        labels: integers `[H, W]`, the instance of each pixel, 0 for none.
        palette: colours "#RRGGBB" of the instances, from number 1; those beyond it start again.
        alpha: opacity of the tint, in [0, 1].

    Returns:
        uint8 `[3, H, W]`.

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    _check(labels, image, alpha)
    labels = labels.long()
    line = torch.zeros_like(labels, dtype=torch.bool)
    for dim in (0, 1):
        apart = labels.diff(dim=dim) != 0
        line.narrow(dim, 0, apart.size(dim)).logical_or_(apart)
        line.narrow(dim, 1, apart.size(dim)).logical_or_(apart)
    ground, colour = _colours(image), _painted(labels - 1, palette)
    tinted = torch.lerp(ground, colour, torch.where(line, 1.0, alpha))
    return _rounded(torch.where(labels > 0, tinted, ground))


def _check(labels: Tensor, image: Tensor, alpha: float) -> None:
    check_shape("image", check_tensor("image", image), (None, None, None))
    if image.size(0) < 1:
        raise ValueError(f"got shape {list(image.shape)} for image, expected at least one channel")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"got dtype {image.dtype} for image, expected torch.uint8 or floating-point values in [0, 1]")
    check_integer("labels", check_tensor("labels", labels))
    check_shape("labels", labels, tuple(image.shape[1:]))
    if not 0 <= alpha <= 1:
        raise ValueError(f"got alpha={alpha}, expected an opacity in [0, 1]")


def _colours(image: Tensor) -> Tensor:
    """`[3, H, W]` float32 in [0, 1]."""
    shown = image[:3] if image.size(0) >= 3 else image[:1].expand(3, -1, -1)
    return shown.float() / 255 if image.dtype == torch.uint8 else shown.float().nan_to_num().clamp(0, 1)


def _painted(labels: Tensor, palette: Sequence[str]) -> Tensor:
    """`[3, H, W]`: the colour of each label."""
    table = torch.tensor([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in palette])  # [n, 3]
    return table.to(labels.device)[labels % len(palette)].movedim(2, 0)


def _rounded(picture: Tensor) -> Tensor:
    return (picture * 255).round().to(torch.uint8)
