"""What instance metrics count from: pairs of maps, and the sparse table of the pairs of values that occur in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphseg._checks import check_integer, check_same_device, check_shape, check_tensor
from graphseg.ops.pooling import pool

Tensors = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Maps:
    """Pairs of maps, pixel after pixel; a plane is one map of an image, and all but layered images have one."""

    labels: Tensor  # int64 [P]
    target: Tensor  # int64 [P]
    sizes: Tensor  # int64 [planes], in pixels
    image: Tensor  # int64 [planes]
    is_first: Tensor  # bool [planes], whether it is the first of its image
    num_images: int
    single: bool


@dataclass(frozen=True)
class Contingency:
    """Pairs of values that occur in a plane, `[K]`, by rising plane, label and target, and their pixels."""

    plane: Tensor
    label: Tensor
    target: Tensor
    count: Tensor
    label_rank: Tensor  # among all labels of all planes
    target_rank: Tensor


def read_maps(name: str, labels: Tensors, target: Tensors, *, layers: bool = False) -> Maps:
    """Checks pairs of maps, and puts them after each other; with `layers` a first map may have several planes.

    Raises:
        TypeError: if they are not integers.
        ValueError: for shapes, numbers of images or devices that do not fit.
    """
    mine, single = _as_images(name, labels, layers)
    theirs, _ = _as_images("target", target, False)
    if isinstance(labels, Tensor) and isinstance(target, Tensor):
        check_shape("target", target, labels.shape)
    elif len(mine) != len(theirs):
        raise ValueError(f"got {len(theirs)} images for target, expected {len(mine)} as for {name}")
    for b, (here, there) in enumerate(zip(mine, theirs, strict=True)):
        check_shape(f"target of image {b}", there, here.shape[-2:])
        check_same_device(**{name: mine[0], f"{name} of image {b}": here, f"target of image {b}": there})
    stacks = [here if here.dim() == 3 else here[None] for here in mine]  # [L, H, W]
    stacks = [here if len(here) else here.new_zeros(1, *here.shape[1:]) for here in stacks]  # no layer: no instance
    device = mine[0].device if mine else torch.device("cpu")
    counts = torch.tensor([len(here) for here in stacks], dtype=torch.int64, device=device)
    area = torch.tensor([there.numel() for there in theirs], dtype=torch.int64, device=device)
    first = torch.zeros(int(counts.sum()), dtype=torch.bool, device=device)
    first[counts.cumsum(0) - counts] = True
    return Maps(
        _flat(stacks, device),
        _flat([there.expand(here.shape) for here, there in zip(stacks, theirs, strict=True)], device),
        area.repeat_interleave(counts),
        torch.arange(len(mine), device=device).repeat_interleave(counts),
        first,
        len(mine),
        single,
    )


def _as_images(name: str, maps: Tensors, layers: bool) -> tuple[list[Tensor], bool]:
    """A list of maps `[H, W]` (with `layers` `[L, H, W]` too), and whether one image was given."""
    if isinstance(maps, Tensor):
        check_integer(name, maps)
        if maps.dim() not in (2, 3):
            raise ValueError(f"got shape {list(maps.shape)} for {name}, expected [H, W] or [B, H, W]")
        return ([maps] if maps.dim() == 2 else list(maps)), maps.dim() == 2
    if not isinstance(maps, Sequence):
        raise TypeError(f"got {type(maps).__name__} for {name}, expected a torch.Tensor or a list of them")
    for b, values in enumerate(maps):
        each = f"{name} of image {b}"
        check_integer(each, check_tensor(each, values))
        if values.dim() != 2 and not (layers and values.dim() == 3):
            want = "[H, W] or [L, H, W]" if layers else "[H, W]"
            raise ValueError(f"got shape {list(values.shape)} for {each}, expected {want}")
    return list(maps), False


def _flat(maps: list[Tensor], device: torch.device) -> Tensor:
    """`[P]` int64: all values after each other; may share memory with them."""
    if not maps:
        return torch.empty(0, dtype=torch.int64, device=device)
    flat = [values.reshape(-1).to(torch.int64) for values in maps]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def contingency(maps: Maps) -> Contingency:
    """Counts the pixels of every pair of values of every plane."""
    planes, P = len(maps.sizes), maps.labels.numel()
    limit = 4 * P + 1024
    extents = [_extent(values) for values in (maps.labels, maps.target)]
    gaps = planes * extents[0][1] * extents[1][1] > limit
    labels, label = _ranks(maps.labels, *extents[0], gaps)
    targets, target = _ranks(maps.target, *extents[1], gaps)
    L, M = max(len(labels), 1), max(len(targets), 1)
    key = label.mul_(M).add_(target)  # [P]
    if planes > 1:
        key += (torch.arange(planes, device=key.device) * (L * M)).repeat_interleave(maps.sizes, output_size=P)
    if planes * L * M <= limit:
        table = torch.bincount(key, minlength=planes * L * M)
        pair = table.nonzero().view(-1)
        count = table[pair]
    else:  # more pairs than pixels: sorting costs less than a table of all
        pair, count = torch.unique(key, return_counts=True)
    label, target = pair // M % L, pair % M
    return Contingency(pair // (L * M), labels[label], targets[target], count, label, target)


def _extent(values: Tensor) -> tuple[int, int]:
    """The smallest value, and how many there are from it to the largest."""
    if not values.numel():
        return 0, 0
    low, high = (int(v) for v in values.aminmax())
    return low, high - low + 1


def _ranks(values: Tensor, low: int, size: int, gaps: bool) -> tuple[Tensor, Tensor]:
    """Values that rise, and the place of each pixel's among them: all from `low` on, with `gaps` those that occur."""
    if not gaps:
        return torch.arange(low, low + size, device=values.device), values - low
    if size > 4 * values.numel() + 1024:
        found: tuple[Tensor, Tensor] = torch.unique(values, return_inverse=True)
        return found
    present = torch.bincount(values - low, minlength=size) > 0
    return present.nonzero().view(-1) + low, (present.cumsum(0) - 1)[values - low]


def number_rows(image: Tensor, rank: Tensor, mask: Tensor) -> tuple[int, Tensor, Tensor]:
    """Numbers the different (image, rank) among the rows of a mask, by rising image and rank.

    Returns:
        How many there are, the number of every row (-1 outside the mask), and the first row of each.
    """
    rows = mask.nonzero().view(-1)
    width = int(rank.max()) + 1 if rank.numel() else 1
    found, number = torch.unique((image * width + rank)[rows], return_inverse=True)
    first = pool(rows, number, len(found), "min")
    all_rows = torch.full_like(rank, -1)
    all_rows[rows] = number
    return len(found), all_rows, first
