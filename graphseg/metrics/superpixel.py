"""How good superpixels are: beside ground truth, beside the image, and by their own shape.

Written with s for the superpixels of an image, g for the segments of its ground truth, |.| for a number of pixels and
N for the number of pixels that count. A superpixel is the set of pixels that carry one id, a segment the set of pixels
that carry one target value, connected or not. Ids may have gaps, and their order changes nothing.

    labels, target `[H, W]` or `[B, H, W]`  ->  float64 `[]` or `[B]`

`valid` marks the pixels that belong to a superpixel, `ignore_index` a target value whose pixels count nowhere: as if
those pixels were cut out of the image, superpixels and segments are what is left of them. Several people's ground truth
of one image is a batch: `labels.expand(A, -1, -1)` beside `target [A, H, W]`.

Counts are exact, and sums of fractions run in float64 in a defined order: a result depends neither on the run, nor on
the other images of its batch. Memory grows with the pixels, never with superpixels times segments.

The definitions are those of Stutz, Hermans and Leibe, "Superpixels: An evaluation of the state-of-the-art", Computer
Vision and Image Understanding 166, 2018, where a function does not say otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from graphseg._checks import (
    check_choice,
    check_finite,
    check_integer,
    check_positive_int,
    check_same_device,
    check_shape,
    check_tensor,
    is_integer,
)
from graphseg.ops.pooling import pool
from graphseg.ops.rag import relabel

__all__ = [
    "achievable_segmentation_accuracy",
    "boundary_precision",
    "boundary_recall",
    "compactness",
    "count_error",
    "explained_variation",
    "num_superpixels",
    "size_regularity",
    "undersegmentation_error",
]


def achievable_segmentation_accuracy(
    labels: Tensor, target: Tensor, ignore_index: int | None = None, valid: Tensor | None = None
) -> Tensor:
    """The accuracy of the best segmentation that superpixels allow: each one takes its most frequent target value.

        ASA = 1 / N * sum_s max_g |s n g|

    In (0, 1], 1 where no superpixel reaches over a border of the ground truth; higher is better.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        target: ground truth, shaped as `labels`, any integers.
        ignore_index: pixels of this target value count nowhere.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch.

    Raises:
        TypeError: for labels or target that are not integers, or a valid that is not bool.
        ValueError: for shapes or devices that do not fit, a negative label, or an image without pixels that count.

    Source: Liu, Tuzel, Ramalingam and Chellappa, "Entropy rate superpixel segmentation", CVPR 2011.
    """
    maps = _check_maps(labels, target, ignore_index, valid)
    table = _overlaps(maps)
    return maps.each(table.largest().sum(1) / table.pixels().double())


def undersegmentation_error(
    labels: Tensor,
    target: Tensor,
    form: str = "np",
    ignore_index: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """How far superpixels leak over the borders of the ground truth; 0 where none does, lower is better.

        "np":     1 / N * sum_g sum_{s n g not empty} min(|s n g|, |s \\ g|)
        "levin":  1 / |G| * sum_g (sum_{s n g not empty} |s| - |g|) / |g|
        "asa":    1 / N * sum_s (|s| - max_g |s n g|) = 1 - ASA

    |G| is the number of segments. "asa" counts the pixels outside the largest part of each superpixel; "np" takes the
    smaller side of a superpixel at every segment that it touches, and so counts both parts of one cut in two; "levin"
    charges a touching superpixel whole, and may well exceed 1.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        target: ground truth, shaped as `labels`, any integers.
        form: "np", "levin" or "asa".
        ignore_index: pixels of this target value count nowhere.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch.

    Raises:
        TypeError, ValueError: as `achievable_segmentation_accuracy`; ValueError for another form.

    Sources: "np", Neubert and Protzel, "Superpixel benchmark and comparison", Forum Bildverarbeitung 2012. "levin",
    Levinshtein et al., "TurboPixels: Fast superpixels using geometric flows", TPAMI 2009. "asa", van den Bergh et al.,
    "SEEDS: Superpixels extracted via energy-driven sampling", ECCV 2012 (there the corrected error).
    """
    check_choice("form", form, ("np", "levin", "asa"))
    maps = _check_maps(labels, target, ignore_index, valid)
    table = _overlaps(maps)
    if form == "levin":
        return maps.each(_levin(table))
    if form == "asa":
        return maps.each((table.pixels() - table.largest().sum(1)) / table.pixels().double())
    outside = table.region_size.view(-1)[table.region] - table.count  # [K], |s \ g|
    leak = pool(torch.minimum(table.count, outside), table.region, table.region_size.numel(), "sum")
    return maps.each(leak.view_as(table.region_size).sum(1) / table.pixels().double())


def boundary_recall(
    labels: Tensor,
    target: Tensor,
    radius: int | None = None,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The share of the ground truth's boundary that superpixels have a boundary near to.

        BR = |{p in B(target): some q in B(labels) with |x_p - x_q| <= radius and |y_p - y_q| <= radius}| / |B(target)|

    B(map), the boundary pixels of a map, are all pixels with another value in one of their four neighbours: both sides
    of a border, two pixels wide. The frame of the image is no boundary, nor is the rim of pixels that do not count.
    1 where the target has no boundary: none was missed. Higher is better.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        target: ground truth, shaped as `labels`, any integers.
        radius: in pixels, half the side of the square that is searched. Default: 0.0025 of the image's diagonal,
            rounded to the nearest integer, halves up.
        ignore_index: pixels of this target value count nowhere.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch.

    Raises:
        TypeError, ValueError: as `achievable_segmentation_accuracy`; also for a radius that is no integer from 0.

    Source: Martin, Fowlkes and Malik, "Learning to detect natural image boundaries using local brightness, color, and
    texture cues", TPAMI 2004; for superpixels, Neubert and Protzel, 2012. Boundary pixels, window and default radius
    are those of Stutz et al., 2018, who give 0, however, where the target has no boundary.
    """
    maps = _check_maps(labels, target, ignore_index, valid)
    return maps.each(_share_near(maps.boundary(maps.target), maps.boundary(maps.labels), radius))


def boundary_precision(
    labels: Tensor,
    target: Tensor,
    radius: int | None = None,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The share of the superpixels' boundary that lies near a boundary of the ground truth.

        BP = |{q in B(labels): some p in B(target) with |x_p - x_q| <= radius and |y_p - y_q| <= radius}| / |B(labels)|

    This is `boundary_recall` with the two maps in each other's place. 1 where the superpixels have no boundary: none
    was wrong. Higher is better, but superpixels cut more than objects do, and it falls with their number.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        target: ground truth, shaped as `labels`, any integers.
        radius: as for `boundary_recall`.
        ignore_index: pixels of this target value count nowhere.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch.

    Raises:
        TypeError, ValueError: as `boundary_recall`.

    Source: Martin, Fowlkes and Malik, TPAMI 2004. Stutz et al., 2018, count the true positives on the boundary of the
    target instead, which gives another number.
    """
    maps = _check_maps(labels, target, ignore_index, valid)
    return maps.each(_share_near(maps.boundary(maps.labels), maps.boundary(maps.target), radius))


def explained_variation(labels: Tensor, image: Tensor, valid: Tensor | None = None) -> Tensor:
    """The share of an image's variance that is left when every superpixel is painted in its mean colour.

        EV = sum_s |s| |mu_s - mu|^2 / sum_p |x_p - mu|^2

    with mu_s the mean of superpixel s, mu that of the image, and squared distances summed over channels. The
    denominator is computed as sum_s |s| |mu_s - mu|^2 + sum_p |x_p - mu_s(p)|^2, its equal. In [0, 1]; 1 for
    superpixels of one colour each, hence for an image of one colour; 0 for a single superpixel. Higher is better.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        image: `[C, H, W]` or `[B, C, H, W]`, any number of channels, integer or floating-point. Channels that are
            scaled differently weigh differently; the scale of the image as a whole does not matter.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and neither labels nor image are read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch. No gradient flows to the image.

    Raises:
        TypeError: for labels that are not integers, an image of bool or complex values, or a valid that is not bool.
        ValueError: for shapes or devices that do not fit, a negative label, NaN or infinity in the image, or an image
            without pixels that count.

    Source: Moore, Prince, Warrell, Mohammed and Jones, "Superpixel lattices", CVPR 2008.
    """
    maps = _check_maps(labels, valid=valid)
    values = _image_rows(labels, image, maps)  # [C, P]
    ids, M = maps.number(maps.labels)
    B, N = ids.shape[0], ids.shape[0] * M
    ids = ids.view(-1) if maps.counted is None else ids[maps.counted]  # [P]
    size = torch.bincount(ids, minlength=N)  # [N]
    owner = torch.arange(B, device=ids.device).repeat_interleave(M)  # [N]
    total = pool(values.t(), ids, N, "sum")  # [N, C]
    mean = total / size.clamp(min=1)[:, None]  # [N, C]
    centre = pool(total, owner, B, "sum") / size.view(B, M).sum(1, keepdim=True)  # [B, C]
    between = size[:, None] * (mean - centre[owner]).square()  # [N, C]
    within = pool(values.sub_(mean.t()[:, ids]).square_().t(), ids, N, "sum")  # [N, C]
    explained, rest = _sum_images(between, B), _sum_images(within, B)  # [B]
    variation = explained + rest
    return maps.each(torch.where(variation > 0, explained / variation, 1.0))


def compactness(labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """How round superpixels are: the area of each over that of the disk with its perimeter.

        CO = sum_s |s| / N * 4 pi |s| / L_s^2

    The perimeter L_s is the number of pixel sides between s and anything else: another superpixel, a pixel that is not
    valid, or the outside of the image. A square of any size has pi / 4, and nothing made of pixels has more. Higher is
    more compact.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch.

    Raises:
        TypeError, ValueError: as `achievable_segmentation_accuracy`.

    Source: Schick, Fischer and Stiefelhagen, "Measuring and evaluating the compactness of superpixels", ICPR 2012; the
    perimeter as Stutz et al., 2018, count it.
    """
    maps = _check_maps(labels, valid=valid)
    ids, M = maps.number(maps.labels)
    B, N = ids.shape[0], ids.shape[0] * M
    size = torch.bincount(ids.view(-1), minlength=N + 1)[:N]
    perimeter = 4 * size  # less both sides of every pair of neighbours inside
    for here, there in _neighbours(ids):
        inside = torch.where(here == there, here, N)
        perimeter -= 2 * torch.bincount(inside.view(-1), minlength=N + 1)[:N]
    roundness = size.double().square() / perimeter.clamp(min=1).double().square()  # [N]
    return maps.each(4 * math.pi * _sum_images(roundness, B) / size.view(B, M).sum(1))


def size_regularity(labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """How unequal superpixels are in size: the coefficient of variation of their numbers of pixels.

        SR = sqrt(1 / K * sum_s (|s| - N / K)^2) / (N / K)     with K the number of superpixels

    0 where all are equal; lower is more regular.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch.

    Raises:
        TypeError, ValueError: as `achievable_segmentation_accuracy`.

    Source: the size variation (population standard deviation of the sizes) in the benchmark of Stutz et al., 2018, here
    over the mean size, so that images and numbers of superpixels compare.
    """
    maps = _check_maps(labels, valid=valid)
    size = _sizes(maps)  # [B, M]
    pixels, square = size.sum(1).double(), size.square().sum(1).double()
    spread = (size > 0).sum(1) * square - pixels.square()  # whole numbers, exact up to 2^53
    return maps.each(spread.clamp(min=0).sqrt() / pixels)


def count_error(labels: Tensor, num_segments: int | Tensor, valid: Tensor | None = None) -> Tensor:
    """How far the number of superpixels is from the number asked for: |got - asked| / asked.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        num_segments: the number asked for, at least 1; an int, or integers `[B]` with one for each image.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        float64, `[]` for one image, `[B]` for a batch.

    Raises:
        TypeError: for labels or num_segments that are not integers, or a valid that is not bool.
        ValueError: for shapes or devices that do not fit, a negative label, or a number under 1.
    """
    got = num_superpixels(labels, valid)
    if not isinstance(num_segments, Tensor):
        check_positive_int("num_segments", num_segments)
        return (got - num_segments).abs().double() / num_segments
    check_integer("num_segments", num_segments)
    check_same_device(labels=labels, num_segments=num_segments)
    asked = num_segments.to(torch.int64)
    check_shape("num_segments", asked, got.shape)
    if bool((asked < 1).any()):
        raise ValueError(f"got num_segments={int(asked.min())}, expected at least 1")
    return (got - asked).abs().double() / asked


def num_superpixels(labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """The number of superpixels in each image: of different ids, connected or not.

    Args:
        labels: superpixels `[H, W]` or `[B, H, W]`, integers from 0, gaps allowed.
        valid: bool, shaped as `labels`; pixels where it is False count nowhere, and their labels are not read.

    Returns:
        int64, `[]` for one image, `[B]` for a batch; 0 for an image without valid pixels.

    Raises:
        TypeError: for labels that are not integers, or a valid that is not bool.
        ValueError: for shapes or devices that do not fit, or a negative label.
    """
    maps = _check_maps(labels, valid=valid, may_be_empty=True)
    return maps.each((_sizes(maps) > 0).sum(1))


@dataclass(frozen=True)
class _Maps:
    """Maps of a batch, `[B, H, W]` int64 each, and which pixels count (None: all)."""

    labels: Tensor
    target: Tensor
    counted: Tensor | None
    single: bool

    def each(self, values: Tensor) -> Tensor:
        """`[B]` as it is, or `[]` where one image was given."""
        return values[0] if self.single else values

    def rank(self, values: Tensor) -> tuple[Tensor, int]:
        """`[B, H, W]`: the rank of a pixel's value among those of its image, and M, the most values of any image.

        Pixels that do not count hold a rank under M, and it means nothing.
        """
        rank = relabel(values if self.counted is None else values.where(self.counted, 0))
        return rank, int(rank.max()) + 1 if rank.numel() else 0

    def number(self, values: Tensor) -> tuple[Tensor, int]:
        """`[B, H, W]`: b * M + rank in image b, B * M where a pixel does not count, and M. An id may have no pixel."""
        rank, M = self.rank(values)
        B = rank.shape[0]
        ids = rank + M * torch.arange(B, device=rank.device).view(B, 1, 1)
        return ids if self.counted is None else ids.where(self.counted, B * M), M

    def boundary(self, values: Tensor) -> Tensor:
        """bool `[B, H, W]`: pixels that count, with a 4-neighbour that counts and has another value."""
        found = torch.zeros_like(values, dtype=torch.bool)
        counted = torch.ones_like(found) if self.counted is None else self.counted
        for (here, there), (a, b), (i, j) in zip(*map(_neighbours, (found, values, counted)), strict=True):
            differ = (a != b) & i & j
            here |= differ
            there |= differ
        return found


@dataclass(frozen=True)
class _Overlaps:
    """The contingency table of superpixels and segments, sparse: `count [K]` pixels in pairs (region, segment)."""

    count: Tensor
    region: Tensor  # [K], rows of region_size, flattened
    segment: Tensor  # [K], of segment_size
    region_size: Tensor  # [B, M]
    segment_size: Tensor  # [B, L]

    def pixels(self) -> Tensor:
        """`[B]`: how many count."""
        return self.region_size.sum(1)

    def largest(self) -> Tensor:
        """`[B, M]`: max_g |s n g|."""
        return pool(self.count, self.region, self.region_size.numel(), "max").view_as(self.region_size)


def _check_maps(
    labels: Tensor,
    target: Tensor | None = None,
    ignore_index: int | None = None,
    valid: Tensor | None = None,
    *,
    may_be_empty: bool = False,
) -> _Maps:
    check_integer("labels", check_tensor("labels", labels))
    if labels.dim() not in (2, 3):
        raise ValueError(f"got shape {list(labels.shape)} for labels, expected [H, W] or [B, H, W]")
    if target is not None:
        check_integer("target", check_tensor("target", target))
        check_shape("target", target, labels.shape)
    if valid is not None:
        if check_tensor("valid", valid).dtype != torch.bool:
            raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
        check_shape("valid", valid, labels.shape)
    if ignore_index is not None and not is_integer(ignore_index):
        raise TypeError(f"got {type(ignore_index).__name__} for ignore_index, expected an int or None")
    check_same_device(labels=labels, target=target, valid=valid)

    shape = (1, *labels.shape) if labels.dim() == 2 else tuple(labels.shape)
    ids = labels.to(torch.int64).reshape(shape).contiguous()
    truth = ids if target is None else target.to(torch.int64).reshape(shape).contiguous()
    counted = None if valid is None else valid.reshape(shape).contiguous()
    if ignore_index is not None:
        kept = truth != ignore_index
        counted = kept if counted is None else counted & kept
    _check_counted(ids, counted, may_be_empty)
    return _Maps(ids, truth, counted, single=labels.dim() == 2)


def _check_counted(labels: Tensor, counted: Tensor | None, may_be_empty: bool) -> None:
    """Raises ValueError for a negative label among the pixels that count, or an image without any such pixel."""
    B = labels.shape[0]
    read = labels if counted is None else labels.where(counted, 0)
    if read.numel() and int(read.min()) < 0:
        b = int((read.view(B, -1) < 0).any(1).to(torch.uint8).argmax())
        raise ValueError(
            f"got a negative label in image {b}, expected ids from 0 (valid marks pixels of no superpixel)"
        )
    if may_be_empty:
        return
    if 0 in labels.shape[1:]:
        raise ValueError(f"got images of {labels.shape[1]} x {labels.shape[2]} pixels, expected at least one pixel")
    if counted is not None and not bool((some := counted.flatten(1).any(1)).all()):
        b = int((~some).to(torch.uint8).argmax())
        raise ValueError(f"got no pixel that counts in image {b}, expected at least one (see valid and ignore_index)")


def _neighbours(values: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Every pixel of `[B, H, W]` that has one above it, and that one; likewise to the left."""
    return (values[:, 1:], values[:, :-1]), (values[:, :, 1:], values[:, :, :-1])


def _image_rows(labels: Tensor, image: Tensor, maps: _Maps) -> Tensor:
    """The image in float64, `[C, P]` and its own memory: the pixels that count, image by image, less the first of each.

    So an image of one colour is exactly 0, and an offset costs no digits.
    """
    check_tensor("image", image)
    if image.dtype == torch.bool or image.is_complex():
        raise TypeError(f"got dtype {image.dtype} for image, expected a floating-point or integer dtype")
    check_shape("image", image, (*labels.shape[:-2], None, *labels.shape[-2:]))
    check_same_device(labels=labels, image=image)
    counted = None if maps.counted is None else maps.counted.flatten(1)  # [B, HW]
    B, H, W = maps.labels.shape
    values = image.detach().to(torch.float64).reshape(B, image.shape[-3], H * W)  # [B, C, HW]
    values = values if counted is None else values.masked_fill(~counted[:, None], 0)
    check_finite("image", values)
    first = values[..., :1]  # [B, C, 1]
    if counted is not None:
        first = values.take_along_dim(counted.to(torch.uint8).argmax(1).view(-1, 1, 1), 2)
    rows = (values - first).movedim(1, 0)  # [C, B, HW]
    return rows.flatten(1) if counted is None else rows[:, counted]


def _sizes(maps: _Maps) -> Tensor:
    """`[B, M]`: pixels of every superpixel, and 0 where an image has fewer of them."""
    ids, M = maps.number(maps.labels)
    B = ids.shape[0]
    return torch.bincount(ids.view(-1), minlength=B * M + 1)[: B * M].view(B, M)


def _overlaps(maps: _Maps) -> _Overlaps:
    region, M = maps.number(maps.labels)
    rank, L = maps.rank(maps.target)
    B = region.shape[0]
    none = B * M * L
    key = (region * L + rank).view(-1).clamp_(max=none)
    if none <= 4 * key.numel() + 1024:
        table = torch.bincount(key, minlength=none + 1)[:none]
        pair = table.nonzero().view(-1)
        count = table[pair]
    else:  # more pairs than pixels: sorting costs less than a table of all
        pair, count = torch.unique(key, return_counts=True)
        pair, count = pair[pair < none], count[pair < none]
    left = pair // max(L, 1)
    right = left // max(M, 1) * L + pair % max(L, 1)
    return _Overlaps(
        count,
        left,
        right,
        pool(count, left, B * M, "sum").view(B, M),
        pool(count, right, B * L, "sum").view(B, L),
    )


def _levin(table: _Overlaps) -> Tensor:
    """`[B]`: Levinshtein's undersegmentation error."""
    touched = table.region_size.view(-1)[table.region]  # [K], |s|
    touched = pool(touched, table.segment, table.segment_size.numel(), "sum").view_as(table.segment_size)
    size = table.segment_size
    excess = (touched - size) / size.clamp(min=1).double()  # [B, L], 0 where there is no segment
    return _sum_images(excess.view(-1), size.shape[0]) / (size > 0).sum(1)


def _sum_images(values: Tensor, B: int) -> Tensor:
    """`[B]`: sums of the rows of `values`, equally many for each image, in their order; of no rows 0."""
    values = values.reshape(-1)
    owner = torch.arange(B, device=values.device).repeat_interleave(values.numel() // max(B, 1))
    return pool(values, owner, B, "sum")


def _share_near(sought: Tensor, found: Tensor, radius: int | None) -> Tensor:
    """`[B]`: the share of the pixels `sought` that have one of `found` in the square around them; 1 of none."""
    H, W = sought.shape[1:]
    if radius is None:
        radius = math.floor(0.0025 * math.hypot(H, W) + 0.5)
    check_positive_int("radius", radius, minimum=0)
    near = _spread(_spread(found, radius).mT, radius).mT
    hits, total = (sought & near).flatten(1).sum(1), sought.flatten(1).sum(1)
    return torch.where(total > 0, hits / total.clamp(min=1).double(), 1.0)


def _spread(mask: Tensor, radius: int) -> Tensor:
    """Whether any of the pixels up to `radius` to the left and right is True; the cost does not depend on `radius`."""
    W = mask.shape[-1]
    radius = min(radius, W - 1)
    count = mask.cumsum(-1, dtype=torch.int32)  # up to and with each pixel
    upto = torch.cat([count[..., radius:], count[..., -1:].expand(*mask.shape[:-1], radius)], -1)
    before = pad(count[..., : W - radius - 1], (radius + 1, 0))
    return upto > before
