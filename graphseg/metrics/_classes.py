"""What semantic metrics read: pairs of class maps of any sizes, checked; pixel after pixel, or padded to one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from graphseg._checks import check_positive_int, is_integer
from graphseg.metrics._contingency import Tensors, read_maps

IGNORED, OUTSIDE = -1, -2


@dataclass(frozen=True)
class ClassMaps:
    """Pairs of class maps, pixel after pixel: a class, or IGNORED in both."""

    prediction: Tensor  # int64 [P]
    target: Tensor  # int64 [P]
    sizes: list[tuple[int, int]]  # of each image

    def padded(self, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Predictions and truth of some images, `[b, H, W]` each, OUTSIDE to the right of and below smaller ones.

        Args:
            images: at least one number.
        """
        H, W = (max(self.sizes[b][dim] for b in images) for dim in (0, 1))
        return _pad(self.prediction, self.sizes, images, H, W), _pad(self.target, self.sizes, images, H, W)


def read_class_maps(
    prediction: Tensors,
    target: Tensors,
    num_classes: int,
    ignore_index: int | None,
    num_predicted: int | None = None,
    *,
    name: str = "prediction",
) -> ClassMaps:
    """Checks pairs of class maps `[H, W]`, `[B, H, W]` or lists of them.

    Args:
        prediction: classes in [0, num_predicted), not read where the target is ignored.
        target: classes in [0, num_classes), or ignore_index.
        num_classes: K.
        ignore_index: None: every pixel counts.
        num_predicted: default: K.
        name: of the first, in errors.

    Raises:
        TypeError: for maps, numbers or ignore_index that are not integers.
        ValueError: for shapes, numbers of images or devices that do not fit, or a class out of range.
    """
    num_predicted = num_classes if num_predicted is None else num_predicted
    check_positive_int("num_classes", num_classes)
    check_positive_int("num_predicted", num_predicted)
    if ignore_index is not None and not is_integer(ignore_index):
        raise TypeError(f"got {type(ignore_index).__name__} for ignore_index, expected an int or None")
    maps = read_maps(name, prediction, target)
    images = [target] if isinstance(target, Tensor) and maps.single else target
    sizes = [(int(image.shape[0]), int(image.shape[1])) for image in images]
    other = "" if ignore_index is None else f" or ignore_index={ignore_index}"
    if ignore_index is None:
        _check_range("target", maps.target, num_classes, other)
        _check_range(name, maps.labels, num_predicted)
        return ClassMaps(maps.labels, maps.target, sizes)
    ignored = maps.target == ignore_index
    _check_range("target", maps.target.masked_fill(ignored, 0), num_classes, other)
    _check_range(name, maps.labels.masked_fill(ignored, 0), num_predicted)
    return ClassMaps(maps.labels.masked_fill(ignored, IGNORED), maps.target.masked_fill(ignored, IGNORED), sizes)


def _check_range(name: str, classes: Tensor, count: int, other: str = "") -> None:
    if not classes.numel():
        return
    low, high = (int(value) for value in classes.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"got class {low if low < 0 else high} in {name}, expected 0 to {count - 1}{other}")


def _pad(flat: Tensor, sizes: Sequence[tuple[int, int]], images: Sequence[int], height: int, width: int) -> Tensor:
    """`[b, height, width]`: the maps of some images."""
    if list(images) == list(range(len(sizes))) and len(set(sizes)) == 1:
        return flat.view(len(sizes), height, width)
    maps = flat.split([H * W for H, W in sizes])
    return torch.stack(
        [pad(maps[b].view(sizes[b]), (0, width - sizes[b][1], 0, height - sizes[b][0]), value=OUTSIDE) for b in images]
    )
