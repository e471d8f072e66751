"""Instance metrics as plain loops over masks; fractions are compared exactly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from math import log2, nan
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

THRESHOLDS = [Fraction(k, 20) for k in range(10, 20)]


@dataclass
class Instance:
    """A mask `[H, W]` with what is said of it."""

    mask: Array
    label: int = 0
    score: float = 1.0
    group: bool = False

    @cached_property
    def area(self) -> int:
        return int(self.mask.sum())


@dataclass
class Image:
    """Predictions and ground truth of one image, and its void pixels."""

    predictions: list[Instance]
    truth: list[Instance]
    void: Array


def shared(a: Array, b: Array) -> int:
    return int((a & b).sum())


def iou(a: Instance, b: Instance) -> Fraction:
    both = shared(a.mask, b.mask)
    return Fraction(both, a.area + b.area - both)


def examples(image: Image, label: int, threshold: Fraction, min_area: int) -> tuple[list[tuple[float, int]], int, int]:
    """(score, 1 for a true and 0 for a false positive) of one image, true instances that none matches, and all."""
    predictions = [p for p in image.predictions if p.label == label and p.area]
    everything = [g for g in image.truth if g.label == label and g.area]
    truth = [g for g in everything if not g.group and g.area >= min_area]
    found, missed = [], 0
    for g in truth:
        scores = sorted(p.score for p in predictions if iou(p, g) > threshold)
        if not scores:
            missed += 1
            continue
        found.append((scores[-1], 1))
        found += [(score, 0) for score in scores[:-1]]
    for p in predictions:
        if any(iou(p, g) > threshold for g in everything):
            continue
        ignored = shared(p.mask, image.void)
        for g in everything:
            ignored += shared(p.mask, g.mask) if g.group else 0
            ignored += shared(p.mask, g.mask) if g.area < min_area else 0
        if Fraction(ignored, p.area) <= threshold:
            found.append((p.score, 0))
    return found, missed, len(truth)


def step_area(found: list[tuple[float, int]], missed: int) -> float:
    """Precision times step width; the widths by convolution of the recalls with (-1/2, 0, 1/2)."""
    if not found:
        return 0.0
    precision, recall = [], []
    for threshold in sorted({score for score, _ in found}):
        tp = sum(true for score, true in found if score >= threshold)
        fp = sum(1 - true for score, true in found if score >= threshold)
        fn = sum(true for score, true in found if score < threshold) + missed
        precision.append(tp / (tp + fp))
        recall.append(tp / (tp + fn))
    precision.append(1.0)  # an artificial point, as in Cityscapes' own script
    recall.append(0.0)
    padded = [recall[0], *recall, 0.0]
    return sum(p * (padded[i] - padded[i + 2]) / 2 for i, p in enumerate(precision))


def average_precision(images: list[Image], min_area: int = 0) -> dict[int, list[float]]:
    """Class -> AP at each threshold, of classes with ground truth that counts."""
    result = {}
    for label in sorted({g.label for image in images for g in image.truth}):
        row = []
        for threshold in THRESHOLDS:
            parts = [examples(image, label, threshold, min_area) for image in images]
            if sum(total for _, _, total in parts):
                found = [example for part, _, _ in parts for example in part]
                row.append(step_area(found, sum(missed for _, missed, _ in parts)))
        if row:
            result[label] = row
    return result


def panoptic_quality(images: list[Image]) -> dict[int, list[float]]:
    """Class -> [PQ, SQ, RQ], of classes that occur."""
    counts: dict[int, list[float]] = {}  # sum of IoU, TP, FP, FN
    for image in images:
        matched_truth, matched = set(), set()
        for i, p in enumerate(image.predictions):
            for j, g in enumerate(image.truth):
                if not p.area or not g.area or g.group or p.label != g.label:
                    continue
                known = p.mask & ~image.void
                union = int((known | g.mask).sum())
                if Fraction(shared(known, g.mask), union) > Fraction(1, 2):
                    row = counts.setdefault(p.label, [0.0, 0, 0, 0])
                    row[0] += shared(known, g.mask) / union
                    row[1] += 1
                    assert j not in matched_truth
                    matched.add(i)
                    matched_truth.add(j)
        for j, g in enumerate(image.truth):
            if g.area and not g.group and j not in matched_truth:
                counts.setdefault(g.label, [0.0, 0, 0, 0])[3] += 1
        for i, p in enumerate(image.predictions):
            if not p.area or i in matched:
                continue
            ignored = image.void.copy()
            for g in image.truth:
                if g.group and g.label == p.label:
                    ignored |= g.mask
            if Fraction(shared(p.mask, ignored), p.area) <= Fraction(1, 2):
                counts.setdefault(p.label, [0.0, 0, 0, 0])[2] += 1
    result = {}
    for label, (total, tp, fp, fn) in sorted(counts.items()):
        whole = tp + fp / 2 + fn / 2
        result[label] = [total / whole, total / tp if tp else 0.0, tp / whole]
    return result


def adapted_rand_error(labels: Array, target: Array, ignore: tuple[int, ...] = (0,)) -> tuple[float, float, float]:
    """(error, precision, recall) by pairs of pixels."""
    pixels = [(int(s), int(t)) for s, t in zip(labels.ravel(), target.ravel(), strict=True) if t not in ignore]
    if not pixels:
        return nan, nan, nan
    both = mine = theirs = 0
    for (s, t), (other_s, other_t) in combinations(pixels, 2):
        mine += s == other_s
        theirs += t == other_t
        both += s == other_s and t == other_t
    return (
        1 - 2 * both / (mine + theirs) if mine + theirs else 0.0,
        both / mine if mine else 1.0,
        both / theirs if theirs else 1.0,
    )


def variation_of_information(labels: Array, target: Array, ignore: tuple[int, ...] = ()) -> tuple[float, float]:
    """(H(labels | target), H(target | labels)) in bits, by pixel."""
    pixels = [(int(s), int(t)) for s, t in zip(labels.ravel(), target.ravel(), strict=True) if t not in ignore]
    if not pixels:
        return nan, nan
    split = merge = 0.0
    for pixel in pixels:
        both = sum(other == pixel for other in pixels)
        split += log2(sum(t == pixel[1] for _, t in pixels) / both)
        merge += log2(sum(s == pixel[0] for s, _ in pixels) / both)
    return split / len(pixels), merge / len(pixels)
