"""How good instances are: average precision and panoptic quality of a data set, and how two partitions differ.

    instances, target  --instance_overlaps-->  InstanceOverlaps  --average_precision, panoptic_quality-->  a data set
    labels, target     --adapted_rand_error, variation_of_information-->  every image

Maps are one image `[H, W]`, a batch `[B, H, W]`, or a list of images of any sizes. The pixels are read once, into a
sparse table of the pairs (predicted id, true id) that occur; everything else works on that table. A data set that does
not fit into memory is read image by image, and the tables put after each other by `InstanceOverlaps.cat`.

Counts are exact, fractions float64 and their sums in a defined order: a result depends neither on the run, nor on the
other images of a list. Ids are names: which number an instance has changes no more than the rounding of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphseg._checks import (
    check_finite,
    check_integer,
    check_positive_int,
    check_same_device,
    check_shape,
    check_tensor,
    is_integer,
)
from graphseg.metrics._contingency import Maps, Tensors, contingency, number_rows, read_maps
from graphseg.ops.pooling import pool

__all__ = [
    "AdaptedRandError",
    "AveragePrecision",
    "InstanceOverlaps",
    "PanopticQuality",
    "VariationOfInformation",
    "adapted_rand_error",
    "average_precision",
    "instance_overlaps",
    "panoptic_quality",
    "variation_of_information",
]

_IOU = tuple(k / 20 for k in range(10, 20))  # 0.50:0.05:0.95


class InstanceOverlaps(NamedTuple):
    """Predicted and true instances of any number of images, and the pixels that each pair shares; `[K]` pairs.

    Instances without pixels are left out; images and ids are forgotten.
    """

    classes: Tensor  # int64 [N], of the predictions
    scores: Tensor  # float64 [N]
    area: Tensor  # int64 [N], in pixels
    void: Tensor  # int64 [N], pixels of each on void
    target_classes: Tensor  # int64 [M], of the ground truth
    target_area: Tensor  # int64 [M]
    target_groups: Tensor  # bool [M], several objects that nobody told apart
    prediction: Tensor  # int64 [K], in [0, N)
    truth: Tensor  # int64 [K], in [0, M)
    shared: Tensor  # int64 [K], pixels, at least 1

    @staticmethod
    def cat(overlaps: Sequence[InstanceOverlaps]) -> InstanceOverlaps:
        """All their images in one: the same, bit for bit, as `instance_overlaps` of all maps at once.

        Args:
            overlaps: any number, none included, on one device.
        """
        if not overlaps:
            return instance_overlaps([], [])
        joined = InstanceOverlaps(*(torch.cat(field) for field in zip(*overlaps, strict=True)))
        pairs = [len(o.shared) for o in overlaps]
        return joined._replace(
            prediction=joined.prediction + _starts([len(o.area) for o in overlaps], pairs, joined.shared),
            truth=joined.truth + _starts([len(o.target_area) for o in overlaps], pairs, joined.shared),
        )


class AveragePrecision(NamedTuple):
    """Means over the classes that occur in the ground truth, NaN if none does; and what they are means of."""

    ap: Tensor  # float64 [], over IoU thresholds 0.50:0.05:0.95 too
    ap50: Tensor  # float64 [], at 0.50
    classes: Tensor  # int64 [C], rising
    per_class: Tensor  # float64 [C, 10], for each class and threshold


class PanopticQuality(NamedTuple):
    """Means over the classes that occur, NaN if none does; and what they are means of."""

    pq: Tensor  # float64 []
    sq: Tensor  # float64 []
    rq: Tensor  # float64 []
    classes: Tensor  # int64 [C], rising
    per_class: Tensor  # float64 [C, 3], pq, sq and rq of each class


class AdaptedRandError(NamedTuple):
    """Of each image; error = 1 - 2 precision recall / (precision + recall)."""

    error: Tensor
    precision: Tensor
    recall: Tensor


class VariationOfInformation(NamedTuple):
    """Of each image, in bits; their sum is the distance."""

    split: Tensor
    merge: Tensor


def instance_overlaps(
    instances: Tensors,
    target: Tensors,
    *,
    classes: Tensors | None = None,
    scores: Tensors | None = None,
    target_classes: Tensors | None = None,
    target_groups: Tensors | None = None,
    ignore_index: int | None = None,
) -> InstanceOverlaps:
    """Counts the pixels that predicted and true instances share, in one pass over the maps.

    Values of instances belong to ids: instance k of an image has `classes[k - 1]`. For a batch or a list they are
    lists as well, one tensor for each image (or a tensor `[B, K]`).

    Args:
        instances: predictions, integers: 0 for no instance, ids from 1, gaps allowed. `[H, W]`, `[B, H, W]`, or a list
            of images. In a list an image may have several maps, `[L, H, W]`, where predictions overlap: each id in one.
        target: ground truth, `[H, W]` for each image; 0 for no instance, ids from 1, gaps allowed.
        classes: integers `[K]`, the class of every predicted instance. Default: there is one class, 0.
        scores: `[K]`, a higher one for a surer instance, float or integer. Default: all the same.
        target_classes: integers `[K]`, of every true instance; needed beside `classes`.
        target_groups: bool `[K]`, True for a group of objects that nobody told apart (crowd). Default: none.
        ignore_index: value of void pixels in `target`, which belong to no instance, and where nothing is known.

    Returns:
        The table for `average_precision` and `panoptic_quality`.

    Raises:
        TypeError: for maps or classes that are not integers, scores of bool or complex values, or groups not bool.
        ValueError: for shapes, numbers of images or devices that do not fit, negative ids, an id beyond its classes,
            scores or groups, one id in two maps of an image, NaN or infinite scores, or classes on one side only.
    """
    if ignore_index is not None and not is_integer(ignore_index):
        raise TypeError(f"got {type(ignore_index).__name__} for ignore_index, expected an int or None")
    if (classes is None) != (target_classes is None):
        given, other = ("classes", "target_classes") if target_classes is None else ("target_classes", "classes")
        raise ValueError(f"got {given} without {other}, expected both or neither")
    maps = read_maps("instances", instances, target, layers=True)
    table = contingency(maps)
    label, true, image = table.label, table.target, maps.image[table.plane]
    void = torch.zeros_like(label, dtype=torch.bool) if ignore_index is None else true == ignore_index
    _check_ids("instances", label, image)
    _check_ids("target", true.where(~void, 0), image)
    mine, theirs = label > 0, (true > 0) & ~void

    N, prediction, first = number_rows(table.plane, table.label_rank, mine)
    ids, of_image = label[first], image[first]  # [N]
    _check_one_map(ids, of_image, table.label_rank[first])
    M, truth, seen = number_rows(image, table.target_rank, theirs)
    true_ids, true_image = true[seen], image[seen]  # [M]
    once = theirs & maps.is_first[table.plane]
    both = mine & theirs

    return InstanceOverlaps(
        classes=_attribute("classes", classes, 0, maps, of_image, ids),
        scores=_attribute("scores", scores, 1.0, maps, of_image, ids),
        target_classes=_attribute("target_classes", target_classes, 0, maps, true_image, true_ids),
        target_groups=_attribute("target_groups", target_groups, False, maps, true_image, true_ids),
        area=pool(table.count[mine], prediction[mine], N, "sum"),
        void=pool((table.count * void)[mine], prediction[mine], N, "sum"),
        target_area=pool(table.count[once], truth[once], M, "sum"),
        prediction=prediction[both],
        truth=truth[both],
        shared=table.count[both],
    )


def average_precision(overlaps: InstanceOverlaps, min_area: int = 0) -> AveragePrecision:
    """Cityscapes' average precision: the predictions of all images in one order by score, for each class.

    At a threshold t of 0.50:0.05:0.95 a prediction matches a true instance of its class if

        IoU = shared / (area + target area - shared) > t

    Ground truth under `min_area` and groups are ignored. Of the other instances, one that several predictions match
    counts as found with the highest score, and its other predictions are false positives. A prediction that matches an
    ignored instance is dropped. So is one that matches nothing if more than t of its pixels are void or lie on ignored
    instances of its class (those of a group under `min_area` count twice); else it is a false positive.
    With P_i and R_i precision and recall of all predictions with at least the i-th highest score,

        AP = sum_i (R_i - R_(i-1)) (P_i + P_(i-1)) / 2,     R_0 = 0, P_0 = 1

    which is what that evaluation's convolution of the recalls with (-1/2, 0, 1/2) amounts to. Predictions of equal
    score are one step: with one score for all, AP = R (1 + P) / 2, which P_0 flatters.

    Args:
        overlaps: the instances of all images.
        min_area: in pixels; smaller ground truth is ignored. Cityscapes takes 100.

    Returns:
        AP in [0, 1], higher is better, with AP50 and the parts of both. A class without any ground truth that counts
        is left out, whatever was predicted for it.

    Raises:
        TypeError, ValueError: if min_area is no integer from 0.

    Source: the instance-level evaluation of Cordts et al., "The Cityscapes dataset for semantic urban scene
    understanding", CVPR 2016. It has no figure for a class whose predictions are all dropped; here it is 0.
    """
    check_positive_int("min_area", min_area, minimum=0)
    o, device = overlaps, overlaps.shared.device
    limit = torch.tensor(_IOU, dtype=torch.float64, device=device)
    small = o.target_area < min_area
    counted = ~(small | o.target_groups)  # [M]
    classes, of_truth = torch.unique(o.target_classes[counted], return_inverse=True)  # [C]
    C, N, M = len(classes), len(o.area), len(o.target_area)
    column, known = _find(o.classes, classes)  # [N]
    order = _by_score(o.scores, column)
    place = torch.empty_like(order)
    place[order] = torch.arange(N, device=device)

    p, t, shared = _same_class(o)
    iou = shared.double() / (o.area[p] + o.target_area[t] - shared)
    hit = iou[:, None] > limit  # [K, 10]
    found = hit & counted[t, None]
    best = pool(torch.where(found, place[p, None], N), t, M, "min")  # [M, 10], the surest of those that match
    won = found & (best[t] == place[p, None])
    matched, taken, positive = (pool(mask.long(), p, N, "sum") > 0 for mask in (hit, found, won))  # [N, 10]
    ignored = o.void + pool(shared * (small.long() + o.target_groups.long())[t], p, N, "sum")
    dropped = ignored[:, None].double() / o.area[:, None] > limit
    negative = torch.where(matched, taken & ~positive, ~dropped)

    order = order[known[order]]  # others have no column
    curve = torch.stack([positive, positive | negative], 1)[order]  # [N', 2, 10]
    per_class = _step_area(curve, column[order], o.scores[order], torch.bincount(of_truth, minlength=C))
    return AveragePrecision(per_class.mean(), per_class[:, 0].mean(), classes, per_class)


def panoptic_quality(overlaps: InstanceOverlaps) -> PanopticQuality:
    """Panoptic quality: recognition times segmentation quality, of each class.

        PQ = sum_TP IoU / (|TP| + |FP| / 2 + |FN| / 2) = SQ * RQ,     SQ = sum_TP IoU / |TP|
        IoU = shared / (area - void + target area - shared)

    A prediction and a true instance of one class with IoU > 1/2 are a true positive (TP); there can be one match at
    most. Void pixels of a prediction count nowhere. Groups match nothing and are not missed, and a prediction without
    a match is dropped if more than half of its pixels are void or lie on groups of its class.

    Args:
        overlaps: the instances of all images; scores are not read. Amorphous regions (stuff) are instances too, one
            for each image and class.

    Returns:
        In [0, 1], higher is better; the mean of each over classes, with the classes' own. A class with neither true
        nor false positives nor false negatives is left out; SQ is 0 for a class without true positives.

    Raises:
        ValueError: if two predictions match one instance, which overlapping ones can.

    Source: Kirillov, He, Girshick, Rother and Dollar, "Panoptic segmentation", CVPR 2019.
    """
    o = overlaps
    N, M = len(o.area), len(o.target_area)
    p, t, shared = _same_class(o)
    group = o.target_groups[t]
    iou = shared.double() / (o.area[p] - o.void[p] + o.target_area[t] - shared)
    hit = (iou > 0.5) & ~group
    matches = pool(hit.long(), t, M, "sum")
    if bool((matches > 1).any()):
        raise ValueError(f"got {int(matches.max())} predictions that match one instance, expected no overlapping ones")
    ignored = o.void + pool(shared * group, p, N, "sum")
    wrong = (pool(hit.long(), p, N, "sum") == 0) & (2 * ignored <= o.area)  # [N]
    missed = (matches == 0) & ~o.target_groups  # [M]

    owner = torch.cat([o.classes[p[hit]], o.classes[wrong], o.target_classes[missed]])
    classes, owner = torch.unique(owner, return_inverse=True)
    C = len(classes)
    right, false, lost = owner.split([int(hit.sum()), int(wrong.sum()), int(missed.sum())])
    tp, fp, fn = (torch.bincount(of, minlength=C) for of in (right, false, lost))
    iou_sum = pool(iou[hit], right, C, "sum")
    whole = tp + (fp + fn).double() / 2
    per_class = torch.stack([iou_sum / whole, iou_sum / tp.clamp(min=1), tp / whole], 1)  # [C, 3]
    pq, sq, rq = per_class.mean(0)
    return PanopticQuality(pq, sq, rq, classes, per_class)


def adapted_rand_error(labels: Tensors, target: Tensors, ignore_labels: Sequence[int] = (0,)) -> AdaptedRandError:
    """One minus the F score of pairs of pixels: which of them lie in one segment, by `labels` and by `target`.

        precision = pairs together in both / pairs together in labels
        recall    = pairs together in both / pairs together in target
        error     = 1 - 2 pairs together in both / (pairs together in labels + pairs together in target)

    Splits cost recall, merges precision. Only the ground truth says which pixels count: 0 among `labels` is a segment
    as any other.

    Args:
        labels: the segmentation, any integers, `[H, W]`, `[B, H, W]` or a list of images.
        target: ground truth, likewise.
        ignore_labels: pixels of these values of `target` count nowhere. Default: 0, as in the SNEMI3D contest.

    Returns:
        float64, `[]` for one image, else `[B]`. Of no pairs, all are right (precision or recall 1; error 0 if neither
        has any). NaN for an image without pixels that count.

    Raises:
        TypeError: for maps or ignore_labels that are not integers.
        ValueError: for shapes, numbers of images or devices that do not fit.

    Source: Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics",
    Frontiers in Neuroanatomy 9, 2015. The error is that of scikit-image, which returns its precision and recall in
    each other's place.
    """
    pairs = _overlapping_segments(labels, target, ignore_labels)
    both, mine, theirs = (pairs.sum(pairs.count * (n - 1)) for n in (pairs.count, pairs.label_size, pairs.target_size))
    ratios = [pairs.ratio(both, mine), pairs.ratio(both, theirs), pairs.ratio(2 * both, mine + theirs)]
    precision, recall, score = (pairs.each(r) for r in ratios)
    return AdaptedRandError(1 - score, precision, recall)


def variation_of_information(
    labels: Tensors, target: Tensors, ignore_labels: Sequence[int] = ()
) -> VariationOfInformation:
    """The information in one partition that the other does not have, in bits.

        split = H(labels | target) = 1 / N * sum_st |s n t| log2(|t| / |s n t|)
        merge = H(target | labels) = 1 / N * sum_st |s n t| log2(|s| / |s n t|)

    with s the segments of `labels`, t those of `target`, and N the number of pixels that count. `split` is 0 where no
    true segment is cut, `merge` where no segment reaches over several; their sum is a metric. Lower is better.

    Args:
        labels: the segmentation, any integers, `[H, W]`, `[B, H, W]` or a list of images.
        target: ground truth, likewise.
        ignore_labels: pixels of these values of `target` count nowhere.

    Returns:
        float64, `[]` for one image, else `[B]`; NaN for an image without pixels that count.

    Raises:
        TypeError, ValueError: as `adapted_rand_error`.

    Source: Meila, "Comparing clusterings - an information based distance", Journal of Multivariate Analysis 98, 2007.
    """
    pairs = _overlapping_segments(labels, target, ignore_labels)
    entropy = [pairs.count * (size / pairs.count.double()).log2() for size in (pairs.target_size, pairs.label_size)]
    return VariationOfInformation(*(pairs.each(pairs.sum(e) / pairs.pixels) for e in entropy))


@dataclass(frozen=True)
class _Pairs:
    """Pairs of overlapping segments of images: `count [K]` pixels of segments of `label_size` and `target_size`."""

    count: Tensor
    label_size: Tensor
    target_size: Tensor
    image: Tensor
    pixels: Tensor  # [B]
    single: bool

    def sum(self, values: Tensor) -> Tensor:
        """`[B]`: sums over the pairs of each image."""
        return pool(values, self.image, len(self.pixels), "sum")

    def ratio(self, part: Tensor, whole: Tensor) -> Tensor:
        """`[B]`: 1 of nothing, NaN where no pixel counts."""
        share = torch.where(whole > 0, part / whole.clamp(min=1).double(), 1.0)
        return torch.where(self.pixels > 0, share, torch.nan)

    def each(self, values: Tensor) -> Tensor:
        """`[B]` as it is, or `[]` where one image was given."""
        return values[0] if self.single else values


def _overlapping_segments(labels: Tensors, target: Tensors, ignore_labels: Sequence[int]) -> _Pairs:
    ignored = list(ignore_labels)
    if not all(is_integer(value) for value in ignored):
        raise TypeError(f"got {ignored} for ignore_labels, expected ints")
    maps = read_maps("labels", labels, target)
    table = contingency(maps)
    counted = ~torch.isin(table.target, torch.tensor(ignored, dtype=torch.int64, device=table.target.device))
    count, image = table.count[counted], table.plane[counted]

    def sizes(rank: Tensor) -> Tensor:
        S, segment, _ = number_rows(table.plane, rank, counted)
        return pool(count, segment[counted], S, "sum")[segment[counted]]

    pixels = pool(count, image, maps.num_images, "sum")
    return _Pairs(count, sizes(table.label_rank), sizes(table.target_rank), image, pixels, maps.single)


def _check_ids(name: str, ids: Tensor, image: Tensor) -> None:
    if bool((bad := ids < 0).any()):
        b = int(image[bad].min())
        raise ValueError(f"got a negative id in {name} of image {b}, expected ids from 1 and 0 for no instance")


def _check_one_map(ids: Tensor, image: Tensor, rank: Tensor) -> None:
    """Raises ValueError where an id occurs in two maps of its image."""
    count, number, first = number_rows(image, rank, ids > 0)
    if count < len(ids):
        row = int((torch.bincount(number, minlength=1) > 1).to(torch.uint8).argmax())
        b, k = int(image[first[row]]), int(ids[first[row]])
        raise ValueError(f"got instance {k} in two maps of image {b}, expected it in one")


def _attribute(name: str, values: Tensors | None, fill: float, maps: Maps, image: Tensor, ids: Tensor) -> Tensor:
    """`[N]`: the value of every instance, int64, float64 or bool as `fill` is."""
    dtype = {bool: torch.bool, int: torch.int64, float: torch.float64}[type(fill)]
    if values is None:
        return torch.full(ids.shape, fill, dtype=dtype, device=ids.device)
    rows = [check_tensor(name, values)] if maps.single else list(values)
    if len(rows) != maps.num_images:
        raise ValueError(f"got {name} of {len(rows)} images, expected {maps.num_images}")
    for b, row in enumerate(rows):
        _check_attribute(name if maps.single else f"{name} of image {b}", row, dtype, ids)
    length = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=ids.device)
    if bool((beyond := ids > length[image]).any()):
        k, b = int(ids[beyond][0]), int(image[beyond][0])
        raise ValueError(f"got instance {k} in image {b}, expected at most {int(length[b])}, its number of {name}")
    if not rows:
        return torch.empty(0, dtype=dtype, device=ids.device)
    return torch.cat([row.to(dtype) for row in rows])[(length.cumsum(0) - length)[image] + ids - 1]


def _check_attribute(name: str, row: Tensor, dtype: torch.dtype, ids: Tensor) -> None:
    check_shape(name, check_tensor(name, row), (None,))
    check_same_device(**{name: row, "maps": ids})
    if dtype == torch.int64:
        check_integer(name, row)
    elif dtype == torch.bool and row.dtype != torch.bool:
        raise TypeError(f"got dtype {row.dtype} for {name}, expected torch.bool")
    elif dtype == torch.float64:
        if row.dtype == torch.bool or row.is_complex():
            raise TypeError(f"got dtype {row.dtype} for {name}, expected a floating-point or integer dtype")
        check_finite(name, row)


def _same_class(overlaps: InstanceOverlaps) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, truth and shared pixels of the pairs of one class."""
    o = overlaps
    same = o.classes[o.prediction] == o.target_classes[o.truth]
    return o.prediction[same], o.truth[same], o.shared[same]


def _starts(sizes: list[int], repeats: list[int], like: Tensor) -> Tensor:
    """Where each of several parts starts that follow each other, repeated."""
    size, repeat = (torch.tensor(n, dtype=torch.int64, device=like.device) for n in (sizes, repeats))
    return (size.cumsum(0) - size).repeat_interleave(repeat)


def _find(values: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each value `among` rising ones, and whether it is there."""
    if not among.numel():
        return torch.zeros_like(values), torch.zeros_like(values, dtype=torch.bool)
    place = torch.searchsorted(among, values).clamp_(max=among.numel() - 1)
    return place, among[place] == values


def _by_score(scores: Tensor, column: Tensor) -> Tensor:
    """The order by rising column, falling score, rising position."""
    order = torch.argsort(scores, descending=True, stable=True)
    return order[torch.argsort(column[order], stable=True)]


def _step_area(curve: Tensor, column: Tensor, scores: Tensor, num_true: Tensor) -> Tensor:
    """`[C, 10]`: average precision of each class.

    Args:
        curve: `[N, 2, 10]`, whether a prediction is a true positive, and whether it counts at all; by class and score.
        column: `[N]`, the class of each.
        scores: `[N]`, falling in a class.
        num_true: `[C]`, the instances to be found.
    """
    N, C = len(scores), len(num_true)
    total = torch.cat([curve.new_zeros(1, *curve.shape[1:], dtype=torch.int64), curve.cumsum(0)])  # [N + 1, 2, 10]
    end = torch.ones(N, dtype=torch.bool, device=curve.device)
    end[:-1] = (column[1:] != column[:-1]) | (scores[1:] != scores[:-1])
    end = end.nonzero().view(-1)  # [G], the last of those with one score
    of = column[end]
    start = torch.searchsorted(column, of)
    upto = total[end + 1] - total[start]
    before = torch.zeros_like(upto)
    before[1:] = torch.where((of[1:] == of[:-1])[:, None, None], upto[:-1], 0)
    (tp, n), (tp_before, n_before) = upto.unbind(1), before.unbind(1)  # [G, 10]
    precision = tp / n.clamp(min=1).double()
    left = torch.where(n_before > 0, tp_before / n_before.clamp(min=1).double(), 1.0)
    return pool((tp - tp_before) * (precision + left) / 2, of, C, "sum") / num_true[:, None]
