"""How well the boundaries of classes are met: the boundary F-score.

    prediction, target  --boundary_f_score-->  per image and class, with the sums that add up over a data set

A pixel is on the boundary of a class if it belongs to the class and the pixel to its right, below, or below to the
right does not, or the other way round. Only neighbours inside the image count, so the frame is no boundary. Ignored
pixels belong to no class in either map: where a class ends at them, it has a boundary.

Source: the contour accuracy of Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016, for every class of an image. MSP (Table 4) and ES-CRF (Table 1) use it.
The papers leave open: the radius in MSP, and what classes without a boundary count. Hence `radius` and `absent`.

All classes are computed at once: a pixel holds the set of classes as the bits of an integer, and dilating the sets is
`or`. Images are taken as many at a time as fit into a fixed amount of memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphseg._checks import check_choice, is_integer
from graphseg.metrics._classes import OUTSIDE, read_class_maps
from graphseg.metrics._contingency import Tensors

__all__ = ["BoundaryFScore", "boundary_f_score"]

BITS = 31  # of an int32, without its sign
PIXELS = 1 << 22  # about as many are computed at a time, 31 classes each


class BoundaryFScore(NamedTuple):
    """F-scores of classes; `total` and `images` of parts of a data set add up."""

    score: Tensor  # float64 [], the mean of per_class over the classes that count, NaN if none does
    per_class: Tensor  # float64 [K], total / images, NaN for a class that counts in no image
    total: Tensor  # float64 [K], the sum over images
    images: Tensor  # int64 [K], those in which the class counts
    per_image: Tensor  # float64 [B, K], NaN where the class does not count

    @staticmethod
    def mean(total: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """`score` and `per_class` of sums.

        Args:
            total: `[K]`, as in the fields.
            images: `[K]`, likewise.
        """
        per_class = total / images
        return per_class.nanmean(), per_class


def boundary_f_score(
    prediction: Tensors,
    target: Tensors,
    num_classes: int,
    radius: float = 1,
    ignore_index: int | None = 255,
    absent: str = "skip",
) -> BoundaryFScore:
    """Boundary F-score: of each class in each image, then the mean over images, then over classes.

        P = |B n dilate(G)| / |B|,     R = |G n dilate(B)| / |G|,     F = 2 P R / (P + R)

    with B and G the boundary pixels of the class in prediction and truth, and `dilate` by the disk of all pixels at a
    distance of at most `radius`. F is 0 where only one of them has any.

    Args:
        prediction: classes in [0, num_classes), `[H, W]`, `[B, H, W]` or a list of images; not read where the target
            is ignored.
        target: ground truth, likewise, or ignore_index.
        num_classes: K.
        radius: of the disk: whole pixels, or if under 1 a fraction of the image's diagonal, rounded up to pixels.
        ignore_index: value of pixels in `target` that belong to no class; None: there are none.
        absent: what a class counts that has no boundary in either map of an image, as one that does not occur: "one"
            (F = 1) or "skip" (the image does not count for the class).

    Returns:
        F-scores in [0, 1], higher is better.

    Raises:
        TypeError: for maps that are not integers, or a radius that is no number.
        ValueError: for shapes, numbers of images or devices that do not fit, a class out of range, or a radius that
            is negative or neither whole nor under 1.
    """
    check_choice("absent", absent, ("skip", "one"))
    _check_radius(radius)
    maps = read_class_maps(prediction, target, num_classes, ignore_index)
    words = -(-num_classes // BITS)
    radii = [int(radius) if radius >= 1 else math.ceil(radius * math.hypot(*size)) for size in maps.sizes]
    order, rows = [], []
    for images in _chunks(maps.sizes, radii, PIXELS // words):
        order += images
        rows.append(_matches(*maps.padded(images), num_classes, radii[images[0]]))
    place = torch.tensor(order, dtype=torch.int64, device=maps.target.device)
    counts = torch.cat([*rows, place.new_zeros(0, 4, num_classes)])[place.argsort()]  # [B, 4, K]
    found, there, right, met = counts.unbind(1)
    below = right * there + met * found  # P + R times both
    f = 2 * right * met / below.clamp(min=1).double()
    empty = (found == 0) & (there == 0)
    f = f.masked_fill(empty, 1.0 if absent == "one" else torch.nan)
    total, counted = f.nansum(0), (~f.isnan()).sum(0)
    return BoundaryFScore(*BoundaryFScore.mean(total, counted), total, counted, f)


def _check_radius(radius: Any) -> None:
    if not (isinstance(radius, float) or is_integer(radius)):
        raise TypeError(f"got {type(radius).__name__} for radius, expected a number")
    value = float(radius)
    if not (0 <= value < 1 or (value >= 1 and value.is_integer())):
        raise ValueError(f"got radius={radius}, expected whole pixels, or a fraction of the diagonal under 1")


def _chunks(sizes: Sequence[tuple[int, int]], radii: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Images of one radius that, padded to one size, have at most `limit` pixels together, or one image."""
    chunk: list[int] = []
    H = W = 0
    for b in sorted(range(len(sizes)), key=lambda b: (radii[b], sizes[b])):
        H, W = max(H, sizes[b][0]), max(W, sizes[b][1])
        if chunk and (radii[b] != radii[chunk[0]] or (len(chunk) + 1) * H * W > limit):
            yield chunk
            chunk, (H, W) = [], sizes[b]
        chunk.append(b)
    if chunk:
        yield chunk


def _matches(prediction: Tensor, target: Tensor, num_classes: int, radius: int) -> Tensor:
    """int64 `[b, 4, K]`: boundary pixels in the prediction and in the truth, and those of each near the other's."""
    outside = target == OUTSIDE
    found, there = (_boundary(_class_bits(values, num_classes), outside) for values in (prediction, target))
    right, met = found & _dilate(there, radius), there & _dilate(found, radius)
    return torch.stack([_count(bits, num_classes) for bits in (found, there, right, met)], 1)


def _class_bits(classes: Tensor, num_classes: int) -> Tensor:
    """int32 `[b, words, H, W]`: class k is bit k % BITS of word k // BITS; no bit where there is no class."""
    word = torch.arange(-(-num_classes // BITS), dtype=torch.int32, device=classes.device).view(-1, 1, 1)
    classes = classes.to(torch.int32)[:, None]
    bit = torch.ones_like(classes) << (classes % BITS)
    return bit.where(classes.div(BITS, rounding_mode="floor") == word, 0)


def _boundary(bits: Tensor, outside: Tensor) -> Tensor:
    """The classes whose mask is another to the right, below, or below to the right."""
    H, W = bits.shape[-2:]
    found = torch.zeros_like(bits)
    for dy, dx in ((0, 1), (1, 0), (1, 1)):
        differ = bits[..., : H - dy, : W - dx] ^ bits[..., dy:, dx:]
        found[..., : H - dy, : W - dx] |= differ.masked_fill(outside[:, None, dy:, dx:], 0)
    return found


def _dilate(bits: Tensor, radius: int) -> Tensor:
    """The classes of all pixels at a distance of at most `radius`: row by row of the disk, from its narrow ends."""
    H, W = bits.shape[-2:]
    near, row, reach = torch.zeros_like(bits), bits.clone(), 0
    for dy in range(radius, -1, -1):
        while reach < math.isqrt(radius * radius - dy * dy):  # row: all up to `reach` to the left and right
            reach += 1
            if reach < W:
                row[..., reach:] |= bits[..., : W - reach]
                row[..., : W - reach] |= bits[..., reach:]
        if dy < H:
            near[..., dy:, :] |= row[..., : H - dy, :]
            near[..., : H - dy, :] |= row[..., dy:, :]
    return near


def _count(bits: Tensor, num_classes: int) -> Tensor:
    """int64 `[b, K]`: pixels whose set holds the class."""
    b, words = bits.shape[:2]
    sets = bits.reshape(b * words, -1)
    owner, pixel = sets.nonzero(as_tuple=True)
    left = sets[owner, pixel]
    total = torch.zeros(b * words * BITS, dtype=torch.int64, device=bits.device)
    while left.numel():  # at most four times: a pixel and three neighbours have no more classes
        lowest = left & -left
        bit = torch.frexp(lowest.float()).exponent - 1
        total += torch.bincount(owner * BITS + bit, minlength=total.numel())
        left = left ^ lowest
        some = left != 0
        left, owner = left[some], owner[some]
    return total.view(b, words * BITS)[:, :num_classes]
