"""Instance metrics against plain loops and scikit-image, values by hand, and what must hold of them."""

from __future__ import annotations

from math import log2, nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, label
from skimage.metrics import adapted_rand_error as skimage_adapted_rand_error
from skimage.metrics import variation_of_information as skimage_variation_of_information
from torch.testing import assert_close

from graphseg.metrics.instance import (
    InstanceOverlaps,
    adapted_rand_error,
    average_precision,
    instance_overlaps,
    panoptic_quality,
    variation_of_information,
)
from tests.label_maps import DEGENERATE, label_maps, photographs
from tests.reference import instance_metrics as reference
from tests.transforms.photos import read_image, read_rows

VOID = 99
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}  # of float64, sums in another order
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0, "equal_nan": True}
PHOTOGRAPHS = ["astronaut, SLIC", "coffee, Felzenszwalb", "chelsea, SLIC"]


BESIDE_TARGET: dict[str, Any] = {
    "adapted_rand_error": adapted_rand_error,
    "variation_of_information": variation_of_information,
}
HALF: Any = 0.5


def noise(seed=0):
    return np.random.default_rng(seed)


def as_tensor(array, device="cpu"):
    return torch.from_numpy(np.array(array)).to(device)


def scene(source, *, layers=1, num_classes=3, largest=12):
    """Name -> array: cells as ground truth, with gaps and void; predictions that follow it more or less."""
    H, W = source.integers(1, largest + 1, 2)
    y, x = np.indices((H, W))
    cells = (y // source.integers(2, 6)) * W + x // source.integers(2, 6)
    K = int(cells.max()) + 1
    target = np.where(source.random(K) < 0.2, 0, 1 + source.permutation(K))[cells]
    wrong = source.random((H, W)) < source.choice([0, 0.05, 0.2])
    instances = np.where(wrong, source.integers(0, K + 1, (H, W)), target)
    merged = np.where(source.random(K + 1) < 0.15, source.integers(0, K + 1, K + 1), np.arange(K + 1))
    merged[0] = 0
    maps = [merged[instances]]
    for _ in range(layers - 1):
        maps.append(np.where((source.random((H, W)) < 0.9) & (maps[-1] > 0), maps[-1] + K, 0))
    target = np.where(source.random((H, W)) < source.choice([0, 0.1, 0.4]), VOID, target)
    target_classes = source.integers(0, num_classes, max(K, VOID))
    same = source.random(K * layers) < 0.85
    classes = np.where(same, np.tile(target_classes[:K], layers), source.integers(0, num_classes, K * layers))
    return {
        "instances": np.stack(maps) if layers > 1 else maps[0],
        "target": target,
        "classes": classes * 7 - 5,
        "scores": source.integers(0, 6, K * layers) / 5,
        "target_classes": target_classes * 7 - 5,
        "target_groups": source.random(len(target_classes)) < 0.15,
    }


def overlaps(scenes, device="cpu"):
    lists = {name: [as_tensor(s[name], device) for s in scenes] for name in scenes[0]}
    return instance_overlaps(**lists, ignore_index=VOID)


def as_reference(s):
    """The same for the loops."""
    layers = s["instances"].reshape(-1, *s["target"].shape)
    predictions = [
        reference.Instance((layers == k + 1).any(0), int(c), float(v))
        for k, (c, v) in enumerate(zip(s["classes"], s["scores"], strict=True))
    ]
    truth = [
        reference.Instance(s["target"] == k, int(s["target_classes"][k - 1]), group=bool(s["target_groups"][k - 1]))
        for k in np.unique(s["target"])
        if k not in (0, VOID)
    ]
    return reference.Image(predictions, truth, s["target"] == VOID)


def assert_rows(out, expected, **tolerance):
    """A result's classes and rows beside a dict, and its means."""
    assert out.classes.dtype == torch.int64
    assert out.classes.tolist() == list(expected)
    rows = torch.tensor(list(expected.values()), dtype=torch.float64).view(out.per_class.shape)
    assert_close(out.per_class.cpu(), rows, **(tolerance or ROUNDING))
    if hasattr(out, "ap"):
        means = [(out.ap, rows.mean()), (out.ap50, rows[:, 0].mean())]
    else:
        means = list(zip((out.pq, out.sq, out.rq), rows.mean(0), strict=True))
    for got, mean in means:
        assert got.shape == ()
        assert_close(got.cpu(), mean, **(tolerance or ROUNDING), equal_nan=True)


def assert_same(out, expected, **tolerance):
    for got, want in zip(out, expected, strict=True):
        assert_close(got.cpu(), want.cpu(), **(tolerance or EXACT))


# Against the loops


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 3),
    layers=st.integers(1, 3),
    min_area=st.sampled_from([0, 1, 4, 9, 100]),
)
def test_average_precision_is_the_loop(seed, count, layers, min_area):
    source = noise(seed)
    scenes = [scene(source, layers=layers) for _ in range(count)]
    expected = reference.average_precision([as_reference(s) for s in scenes], min_area)
    assert_rows(average_precision(overlaps(scenes), min_area), expected)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 3), num_classes=st.integers(1, 4))
def test_panoptic_quality_is_the_loop(seed, count, num_classes):
    source = noise(seed)
    scenes = [scene(source, num_classes=num_classes) for _ in range(count)]
    expected = reference.panoptic_quality([as_reference(s) for s in scenes])
    assert_rows(panoptic_quality(overlaps(scenes)), expected)


@settings(max_examples=60)
@given(
    labels=label_maps(largest=8),
    seed=st.integers(0, 10**6),
    ignored=st.sampled_from([(), (0,), (3,), (0, -4, 2**40), (0, 3, -4, 2**40)]),
)
def test_partitions_are_the_loop(labels, seed, ignored):
    source = noise(seed)
    coarse = source.choice((-4, 0, 3, 2**40), labels.max() + 1)[labels]
    target = np.where(source.random(labels.shape) < 0.2, source.choice((-4, 0, 3, 2**40), labels.shape), coarse)
    pair = as_tensor(labels), as_tensor(target)
    for name, metric in BESIDE_TARGET.items():
        out = metric(*pair, ignored)
        expected = getattr(reference, name)(labels, target, ignored)
        assert_close(torch.stack(out), torch.tensor(expected, dtype=torch.float64), **ROUNDING, equal_nan=True)


@pytest.mark.parametrize("seed", range(3))
def test_devices_give_the_loop(seed, device):
    source = noise(seed)
    scenes = [scene(source, layers=1 + seed, largest=20) for _ in range(4)]
    images = [as_reference(s) for s in scenes]
    table = overlaps(scenes, device)
    assert {field.device.type for field in table} == {device.type}
    assert_rows(average_precision(table, 3), reference.average_precision(images, 3))
    if seed == 0:
        assert_rows(panoptic_quality(table), reference.panoptic_quality(images))
    labels, target = ([as_tensor(s[name], device) for s in scenes] for name in ("instances", "target"))
    if seed == 0:
        for name, metric in BESIDE_TARGET.items():
            loop = getattr(reference, name)
            expected = [loop(s["instances"], s["target"], (0, VOID)) for s in scenes]
            out = torch.stack(metric(labels, target, (0, VOID)), 1)
            assert out.device.type == device.type
            assert_close(out.cpu(), torch.tensor(expected, dtype=torch.float64), **ROUNDING)


# Against scikit-image


def check_by_skimage(labels, target, ignored):
    """Its precision is divided by the pairs of the true image, its recall by those of the tested one."""
    error, recall, precision = skimage_adapted_rand_error(target, labels, ignore_labels=ignored)
    pair = as_tensor(labels), as_tensor(target)
    out = adapted_rand_error(*pair, ignored)
    assert_close(torch.stack(out), torch.tensor([error, precision, recall], dtype=torch.float64), **ROUNDING)
    expected = skimage_variation_of_information(target, labels, ignore_labels=ignored)
    assert_close(torch.stack(variation_of_information(*pair, ignored)), torch.from_numpy(expected), **ROUNDING)
    return out


@pytest.mark.parametrize("ignored", [(), (0,), (2, 5, 7)])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_what_skimage_counts(name, ignored):
    photo, labels = photographs()[name]
    target = photo.mean(2).astype(np.int64) // 32
    out = check_by_skimage(labels, target, ignored)
    assert out.recall < out.precision  # superpixels split
    check_by_skimage(target, labels, ignored)


def nuclei(shared_data, count):
    """Ground truth of real images, and the connected components of its dilated foreground."""
    for _, path, *_ in read_rows(shared_data, "dsb2018", count):
        target = read_image(path).astype(np.int64)
        yield target, label(binary_dilation(target > 0))[0].astype(np.int64)


def test_nuclei(shared_data):
    """Touching nuclei are one component, and none is cut."""
    pairs = list(nuclei(shared_data, 6))
    targets, found = ([as_tensor(a) for a in side] for side in zip(*pairs, strict=True))
    for target, labels in pairs:
        out = check_by_skimage(labels, target, (0,))
        assert out.precision <= out.recall == 1
    table = instance_overlaps(found, targets)
    ap, quality = average_precision(table), panoptic_quality(table)
    images = [
        reference.Image(
            [reference.Instance(labels == k) for k in range(1, labels.max() + 1)],
            [reference.Instance(target == k) for k in range(1, target.max() + 1)],
            np.zeros(target.shape, bool),
        )
        for target, labels in pairs[:2]
    ]
    two = instance_overlaps(found[:2], targets[:2])
    assert_rows(average_precision(two, 50), reference.average_precision(images, 50))
    assert_rows(panoptic_quality(two), reference.panoptic_quality(images))
    assert 0.3 < ap.ap < ap.ap50 < 1
    assert 0.5 < quality.rq < 1
    perfect = instance_overlaps(targets, targets)
    assert average_precision(perfect).ap == panoptic_quality(perfect).pq == 1
    assert int(perfect.shared.sum()) == sum(int((t > 0).sum()) for t in targets)


# By hand: one row of pixels, a run (id, length) after another


def row(*runs, device="cpu"):
    return torch.tensor([[k for k, length in runs for _ in range(length)]], device=device)


def test_three_predictions_of_two_instances(device):
    """By falling score right, wrong, right: (R, P) = (1/2, 1), (1/2, 1/2), (1, 2/3)."""
    target = row((1, 5), (0, 5), (2, 5), device=device)
    found = row((3, 5), (1, 5), (2, 5), device=device)
    scores = torch.tensor([0.8, 0.7, 0.9], device=device)
    out = average_precision(instance_overlaps(found, target, scores=scores))
    assert out.ap.item() == pytest.approx(1 / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2, rel=1e-15)
    assert out.ap50 == out.ap
    assert out.per_class.shape == (1, 10)
    # With one score there is one step, from (0, 1) to (1, 2/3).
    out = average_precision(instance_overlaps(found, target))
    assert out.ap.item() == pytest.approx((1 + 2 / 3) / 2, rel=1e-15)
    # A tie of the wrong one with the first: (1/2, 1/2), (1, 2/3); with the last: (1/2, 1), (1, 2/3).
    for tied, expected in [
        ([0.9, 0.7, 0.9], 1 / 2 * (1 + 1 / 2) / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2),
        ([0.7, 0.7, 0.9], 1 / 2 + 1 / 2 * (1 + 2 / 3) / 2),
    ]:
        scores = torch.tensor(tied, device=device)
        assert average_precision(instance_overlaps(found, target, scores=scores)).ap.item() == pytest.approx(expected)


@pytest.mark.parametrize("inside", range(1, 21))
def test_thresholds_are_strict(inside):
    """IoU is inside / 20, and matches at the thresholds under it: 0.55 of them not at 0.55."""
    out = average_precision(instance_overlaps(row((1, inside), (0, 20 - inside)), row((1, 20))))
    assert (out.per_class[0] == 1).sum() == max(inside - 10, 0)
    assert (out.per_class[0] == 0).sum() == min(20 - inside, 10)
    quality = panoptic_quality(instance_overlaps(row((1, inside), (0, 20 - inside)), row((1, 20))))
    assert quality.pq.item() == pytest.approx(inside / 20 if inside > 10 else 0)


def test_instances_under_min_area_are_ignored():
    """Of 100 and 99 pixels, both found, and a wrong prediction of a higher score."""
    target = row((1, 100), (2, 99), (0, 50))
    found = row((1, 100), (2, 99), (3, 50))
    table = instance_overlaps(found, target, scores=torch.tensor([0.5, 0.4, 0.9]))
    # All: (0, 0), (1/2, 1/2), (1, 2/3).
    assert average_precision(table).ap.item() == pytest.approx(1 / 2 * 1 / 4 + 1 / 2 * (1 / 2 + 2 / 3) / 2)
    assert average_precision(table, 99).ap == average_precision(table).ap
    # The small one gone with its prediction: (0, 0), (1, 1/2).
    assert average_precision(table, 100).ap.item() == 1 / 4
    nothing = average_precision(table, 101)
    assert nothing.ap.isnan()
    assert nothing.classes.numel() == 0


@pytest.mark.parametrize("ignored", range(21))
@pytest.mark.parametrize("kind", ["void", "group", "small", "small group", "group of another class"])
def test_predictions_on_ignored_pixels_are_dropped(kind, ignored):
    """A prediction of 20 pixels, some of them ignored; with the higher score it costs (0, 0), (1, 1/2)."""
    target = row((1, 60), (0, 20 - ignored), (2, ignored), (2, 90 if "small" not in kind else 20))
    found = row((1, 60), (2, 20), (0, target.shape[1] - 80))
    group = "group" in kind
    table = instance_overlaps(
        found,
        target,
        classes=torch.tensor([4, 4]),
        scores=torch.tensor([0.5, 0.9]),
        target_classes=torch.tensor([4, 5 if "class" in kind else 4]),
        target_groups=torch.tensor([False, group]),
        ignore_index=2 if kind == "void" else None,
    )
    out = average_precision(table, 50 if "small" in kind else 0)
    share = ignored / 20 * {"small group": 2, "group of another class": 0}.get(kind, 1)
    expected = [1 if share > k / 20 else 1 / 4 for k in range(10, 20)]
    assert out.per_class[0].tolist() == expected


def test_a_match_of_an_ignored_instance_is_dropped():
    """IoU 3/5 with a group: dropped at 0.5 and 0.55, beyond since 3/5 of its pixels lie on it, up to 0.55 only."""
    target, found = row((1, 10), (0, 2), (2, 5)), row((1, 10), (2, 5), (0, 2))
    table = instance_overlaps(found, target, scores=torch.tensor([0.5, 0.9]), target_groups=torch.tensor([False, True]))
    assert average_precision(table).per_class[0].tolist() == [1, 1] + [1 / 4] * 8
    # Void does not count as a match, whatever was predicted there.
    table = instance_overlaps(found, target, scores=torch.tensor([0.5, 0.9]), ignore_index=2)
    assert average_precision(table).per_class[0].tolist() == [1, 1] + [1 / 4] * 8


def test_duplicates_are_false_positives():
    """Three predictions over one instance, IoU 1, 0.8 and 0.6; the surest counts as found, the others as wrong."""
    target = row((1, 10), (0, 2))
    maps = torch.stack([row((1, 10), (0, 2)), row((2, 8), (0, 4)), row((3, 6), (0, 6))])

    def precision(*scores):
        table = instance_overlaps([maps], [target], scores=[torch.tensor(scores)])
        return average_precision(table).per_class[0].tolist()

    # The best first: (1, 1) and then no more recall, at every threshold.
    assert precision(0.9, 0.8, 0.7) == [1] * 10
    # At 0.5 and 0.55 the worst is the one found. Up to 0.75 it is wrong by its own, and the second found:
    # (0, 0), (1, 1/2). Then both are wrong: (0, 0), (0, 0), (1, 1/3).
    assert precision(0.7, 0.8, 0.9) == pytest.approx([1] * 2 + [1 / 4] * 4 + [1 / 6] * 4)
    # A tie of all: (1, 1/3).
    assert precision(0.5, 0.5, 0.5) == pytest.approx([2 / 3] * 10)
    with pytest.raises(ValueError, match="3 predictions that match one instance"):
        panoptic_quality(instance_overlaps([maps], [target]))


def test_duplicates_are_not_forgiven_for_void():
    """Both match with most of their pixels; the second is wrong though 2 of its 8 lie on void."""
    target = row((1, 6), (9, 2))
    maps = torch.stack([row((1, 6), (0, 2)), row((2, 8))])
    table = instance_overlaps([maps], [target], scores=[torch.tensor([0.8, 0.9])], ignore_index=9)
    assert average_precision(table).per_class[0].tolist() == pytest.approx([1] * 5 + [1 / 4] * 5)


def test_images_are_pooled():
    """Found in the first image with 0.3, wrong in the second with 0.6: the order is that of the set."""
    target = [row((1, 5), (0, 5)), row((0, 3))]
    found = [row((1, 5), (0, 5)), row((0, 1), (1, 2))]
    scores = [torch.tensor([0.3]), torch.tensor([0.6])]
    assert average_precision(instance_overlaps(found, target, scores=scores)).ap == 1 / 4
    assert average_precision(instance_overlaps(found[:1], target[:1], scores=scores[:1])).ap == 1


def test_classes_are_apart():
    target = row((1, 5), (2, 5), (3, 5))
    found = row((1, 5), (2, 5), (3, 5))
    table = instance_overlaps(
        found, target, classes=torch.tensor([2, 2, 9]), target_classes=torch.tensor([2, 7, 7], dtype=torch.uint8)
    )
    out = average_precision(table)
    assert out.classes.tolist() == [2, 7]  # 9 does not occur
    assert out.per_class[:, 0].tolist() == [(1 + 1 / 2) / 2, 0]
    assert out.ap.item() == pytest.approx(3 / 8)
    quality = panoptic_quality(table)
    assert quality.classes.tolist() == [2, 7, 9]  # of 9 there is a false positive
    assert quality.per_class.tolist() == [[1 / 1.5, 1, 1 / 1.5], [0, 0, 0], [0, 0, 0]]


def test_panoptic_quality_by_hand(device):
    """IoU 4/5 and 3/5, one missed, and one prediction of six pixels of which three or four are void."""
    target = row((1, 5), (2, 5), (3, 4), (9, 4), (0, 3), device=device)
    for void, rq in [(3, 2 / 3), (4, 2 / 2.5)]:
        found = row((1, 4), (0, 3), (2, 3), (0, 8 - void), (3, 6), (0, void - 3), device=device)
        out = panoptic_quality(instance_overlaps(found, target, ignore_index=9))
        assert out.sq.item() == pytest.approx((4 / 5 + 3 / 5) / 2)
        assert out.rq.item() == pytest.approx(rq)
        assert out.pq.item() == pytest.approx(out.sq.item() * rq)


def test_void_leaves_the_union_of_panoptic_quality_but_not_of_cityscapes():
    target, found = row((1, 6), (9, 4)), row((1, 10))
    table = instance_overlaps(found, target, ignore_index=9)
    assert panoptic_quality(table).pq == 1
    assert (average_precision(table).per_class == 1).sum() == 2  # 6/10


def test_groups_in_panoptic_quality():
    """A group is neither matched nor missed; what lies on it by more than half is dropped."""
    target, groups = row((1, 6), (2, 10), (0, 4)), torch.tensor([False, True])
    for inside, rq in [(3, 1), (2, 1 / 1.5)]:
        found = row((1, 6), (0, 10 - inside), (2, inside), (2, 2), (0, 2))
        assert panoptic_quality(instance_overlaps(found, target, target_groups=groups)).rq.item() == pytest.approx(rq)
    whole = panoptic_quality(instance_overlaps(target, target, target_groups=groups))
    assert whole.pq == 1
    only = panoptic_quality(instance_overlaps(row((1, 5)), row((1, 5)), target_groups=torch.tensor([True])))
    assert only.pq.isnan()


def test_partitions_by_hand(device):
    halves, whole = row((4, 2), (7, 2), device=device), row((1, 4), device=device)
    error, precision, recall = adapted_rand_error(halves, whole)  # 2 pairs, of 6
    assert (precision.item(), recall.item()) == (1, 1 / 3)
    assert error.item() == pytest.approx(1 - 2 * 2 / (2 + 6))
    assert adapted_rand_error(whole, halves).precision == 1 / 3
    assert [v.item() for v in variation_of_information(halves, whole)] == [1, 0]
    assert [v.item() for v in variation_of_information(whole, halves)] == [0, 1]
    thirds = row((5, 1), (6, 3), device=device)
    entropy = 1 / 4 * log2(4) + 3 / 4 * log2(4 / 3)
    assert variation_of_information(thirds, whole).split.item() == pytest.approx(entropy)
    # Pixels of 0 do not count, but for the labels 0 is a segment.
    split, merge = variation_of_information(row((0, 2), (1, 2)), row((0, 1), (1, 3)), (0,))
    assert split.item() == pytest.approx(1 / 3 * log2(3) + 2 / 3 * log2(3 / 2))
    assert merge == 0
    assert adapted_rand_error(row((0, 2), (1, 2)), row((0, 1), (1, 3))).recall.item() == pytest.approx(1 / 3)


# Laws


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), min_area=st.integers(0, 9))
def test_numbers_of_instances_mean_nothing(seed, min_area):
    source = noise(seed)
    scenes = [scene(source) for _ in range(2)]
    renamed = []
    for s in scenes:
        K, M = len(s["classes"]), len(s["target_classes"])
        mine = 1 + source.permutation(3 * K)[:K]
        theirs = 1 + source.permutation(VOID - 1)[: M - 1]
        other = {"instances": np.r_[0, mine][s["instances"]]}
        other["target"] = np.where(s["target"] == VOID, VOID, np.r_[0, theirs, 0][np.minimum(s["target"], M)])
        for name, ids, size in [
            ("classes", mine, 3 * K),
            ("scores", mine, 3 * K),
            ("target_classes", theirs, VOID),
            ("target_groups", theirs, VOID),
        ]:
            other[name] = np.zeros(size, s[name].dtype)
            other[name][ids - 1] = s[name][: len(ids)]
        renamed.append(other)
    assert_same(average_precision(overlaps(renamed), min_area), average_precision(overlaps(scenes), min_area))
    assert_same(panoptic_quality(overlaps(renamed)), panoptic_quality(overlaps(scenes)), **ROUNDING, equal_nan=True)
    pairs = [[as_tensor(s[name]) for s in which] for which in (scenes, renamed) for name in ("instances", "target")]
    for metric in BESIDE_TARGET.values():
        assert_same(metric(*pairs[2:], (0,)), metric(*pairs[:2], (0,)), **ROUNDING, equal_nan=True)
    # Nor has the order of images a meaning.
    assert_same(average_precision(overlaps(scenes[::-1]), min_area), average_precision(overlaps(scenes), min_area))


@settings(max_examples=25)
@given(labels=label_maps(), seed=st.integers(0, 999))
def test_laws_of_partitions(labels, seed):
    source = noise(seed)
    target = np.where(source.random(labels.shape) < 0.3, source.integers(0, 4, labels.shape), labels)
    a, b = as_tensor(labels), as_tensor(target)
    split, merge = variation_of_information(a, b)
    assert min(split, merge) >= 0
    # Each is the other with the maps in each other's place.
    assert_same(variation_of_information(b, a), (merge, split), **ROUNDING)
    error, precision, recall = adapted_rand_error(a, b, ())
    assert_same(adapted_rand_error(b, a, ()), (error, recall, precision))
    assert 0 <= min(error, precision, recall) <= max(error, precision, recall) <= 1
    # The same partition has neither.
    for ignored in ((), (int(labels.max()) + 9,)):
        assert_same(variation_of_information(a, 50 - 3 * a, ignored), torch.zeros(2, dtype=torch.float64))
        assert_same(adapted_rand_error(a, 50 - 3 * a, ignored), torch.tensor([0.0, 1, 1], dtype=torch.float64))
    # To cut further splits only.
    finer = a * 4 + as_tensor(source.integers(0, 4, labels.shape))
    assert variation_of_information(finer, a).merge == 0
    assert adapted_rand_error(finer, a, ()).precision == 1
    # A metric: the way over a third map is no shorter.
    c = as_tensor(source.integers(0, 3, labels.shape))
    distances = [sum(variation_of_information(*pair)) for pair in ((a, b), (a, c), (c, b))]
    assert distances[0] <= distances[1] + distances[2] + 1e-12


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_more_right_predictions_never_cost(seed):
    """A perfect set of predictions has 1; to take its surest ones away lowers recall and nothing else."""
    source = noise(seed)
    s = scene(source, num_classes=1) | {"target_groups": np.zeros(VOID, bool)}
    K = int(np.where(s["target"] == VOID, 0, s["target"]).max())
    right = np.where(s["target"] == VOID, 0, s["target"])
    s |= {"instances": right, "classes": s["target_classes"][:K], "scores": source.random(K)}
    count = len(np.unique(right[right > 0]))
    if not count:
        assert average_precision(overlaps([s])).ap.isnan()
        return
    assert average_precision(overlaps([s])).ap == panoptic_quality(overlaps([s])).pq == 1
    kept = np.unique(right[right > 0])[: count // 2]
    s["instances"] = np.where(np.isin(right, kept), right, 0)
    share = len(kept) / count
    assert average_precision(overlaps([s])).ap.item() == pytest.approx(share)
    quality = panoptic_quality(overlaps([s]))
    assert quality.rq.item() == pytest.approx(share / (share + (1 - share) / 2))
    assert quality.sq == (1 if len(kept) else 0)


@pytest.mark.parametrize("layers", [1, 2])
def test_tables_after_each_other_are_the_whole_set(layers, device):
    source = noise()
    scenes = [scene(source, layers=layers, largest=20) for _ in range(7)]
    whole = overlaps(scenes, device)
    singles = [overlaps([s], device) for s in scenes]
    assert_same(InstanceOverlaps.cat(singles), whole)
    assert_same(InstanceOverlaps.cat([overlaps(scenes[:3], device), overlaps(scenes[3:], device)]), whole)
    assert_same(InstanceOverlaps.cat([whole]), whole)
    assert len(whole.area) == sum(len(o.area) for o in singles)


def test_batch_is_its_singles(device):
    """As tensors, as lists, and one by one; bit for bit."""
    source = noise()
    labels = as_tensor(source.integers(0, 9, (5, 14, 11)) * source.integers(0, 2, (5, 14, 11)), device)
    target = torch.where(as_tensor(source.random((5, 14, 11)) < 0.8, device), labels, 3)
    labels[1], target[2] = 0, 0
    K = 8
    values = {
        "classes": as_tensor(source.integers(0, 2, (5, K)), device),
        "scores": as_tensor(source.random((5, K)).astype(np.float32), device),
        "target_classes": as_tensor(source.integers(0, 2, (5, K)), device),
        "target_groups": as_tensor(source.random((5, K)) < 0.2, device),
    }
    batch = instance_overlaps(labels, target, **values, ignore_index=5)
    lists = instance_overlaps(list(labels), list(target), **{n: list(v) for n, v in values.items()}, ignore_index=5)
    assert_same(lists, batch)
    singles = [
        instance_overlaps(labels[b], target[b], **{n: v[b] for n, v in values.items()}, ignore_index=5)
        for b in range(5)
    ]
    assert_same(InstanceOverlaps.cat(singles), batch)
    layered = instance_overlaps([m[None] for m in labels], list(target), **values, ignore_index=5)
    assert_same(layered, batch)
    for metric in BESIDE_TARGET.values():
        out = metric(labels, target)
        assert {tuple(v.shape) for v in out} == {(5,)}
        assert_same(metric(list(labels), list(target)), out)
        for b in range(5):
            single = metric(labels[b], target[b])
            assert {tuple(v.shape) for v in single} == {()}
            assert_same(single, [v[b] for v in out])


def test_images_of_different_sizes_are_their_singles():
    maps = [DEGENERATE[name] for name in ("1x1", "1xW", "spiral", "rings", "star", "region per pixel")]
    maps += [photographs()[name][1] for name in PHOTOGRAPHS]
    labels = [as_tensor(m) for m in maps]
    target = [torch.div(m, 2, rounding_mode="floor") for m in labels]
    for metric in BESIDE_TARGET.values():
        out = metric(labels, target)
        singles = [metric(a, b) for a, b in zip(labels, target, strict=True)]
        assert_same(out, [torch.stack(field) for field in zip(*singles, strict=True)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_integer_types_of_maps_do_not_matter(dtype):
    source = noise(3)
    s = scene(source)
    expected = overlaps([s])
    narrow = {name: [as_tensor(value)] for name, value in s.items()}
    narrow |= {name: [narrow[name][0].to(dtype)] for name in ("instances", "target")}
    assert_same(instance_overlaps(**narrow, ignore_index=VOID), expected)


@pytest.mark.parametrize("far", [1000, 2**40])
def test_ids_may_lie_far_apart(far):
    source = noise(4)
    labels = as_tensor(source.integers(0, 6, (20, 30)))
    target = torch.where(as_tensor(source.random((20, 30)) < 0.8), labels, 0)
    expected = instance_overlaps(labels, target)
    assert_same(instance_overlaps(labels * far, target * far), expected)
    assert_same(instance_overlaps(labels * far, target), expected)
    each = torch.arange(600).view(20, 30)  # more pairs than a table should hold
    table = instance_overlaps(each * far, each.flip(0) * far)
    assert table.area.unique().tolist() == table.target_area.unique().tolist() == [1]
    assert len(table.area) == len(table.shared) + 1 == 599


def test_inputs_keep_their_values():
    s = {name: [as_tensor(value)] for name, value in scene(noise(5), layers=2).items()}
    before = {name: value[0].clone() for name, value in s.items()}
    table = instance_overlaps(**s, ignore_index=VOID)
    fields = [field.clone() for field in table]
    average_precision(table, 3)
    assert all(torch.equal(before[name], value[0]) for name, value in s.items())
    assert_same(table, fields)


# Degenerate inputs

NONE, ONE = torch.zeros(3, 4, dtype=torch.int64), torch.ones(3, 4, dtype=torch.int64)
VOID_MAP = torch.full((3, 4), VOID)
PIXEL, EMPTY = torch.ones(1, 1, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("found", "target", "ap", "pq"),
    [
        pytest.param([], [], nan, nan, id="no images"),
        pytest.param([NONE], [NONE], nan, nan, id="nothing at all"),
        pytest.param([NONE], [ONE], 0, 0, id="no prediction"),
        pytest.param([NONE.expand(0, 3, 4)], [ONE], 0, 0, id="no layer"),
        pytest.param([ONE], [NONE], nan, 0, id="no ground truth"),
        pytest.param([ONE], [ONE], 1, 1, id="one instance"),
        pytest.param([ONE], [VOID_MAP], nan, nan, id="all void"),
        pytest.param([NONE], [VOID_MAP], nan, nan, id="all void, no prediction"),
        pytest.param([ONE, NONE], [VOID_MAP, ONE], 0, 0, id="only a dropped prediction"),
        pytest.param([PIXEL], [PIXEL], 1, 1, id="one pixel"),
        pytest.param([0 * PIXEL], [PIXEL], 0, 0, id="one pixel, not found"),
        pytest.param([EMPTY], [EMPTY], nan, nan, id="no pixel"),
        pytest.param([EMPTY, ONE, PIXEL], [EMPTY, ONE, PIXEL], 1, 1, id="no pixel among others"),
    ],
)
def test_degenerate_sets(found, target, ap, pq, device):
    found, target = ([m.to(device) for m in maps] for maps in (found, target))
    table = instance_overlaps(found, target, ignore_index=VOID)
    quality = panoptic_quality(table)
    out = average_precision(table)
    for got, expected in [(out.ap, ap), (out.ap50, ap), (quality.pq, pq), (quality.sq, pq), (quality.rq, pq)]:
        assert got.item() == pytest.approx(expected, nan_ok=True)
    assert len(out.classes) == len(out.per_class) == (0 if np.isnan(ap) else 1)
    assert InstanceOverlaps.cat([]).area.numel() == 0


@pytest.mark.parametrize(
    ("labels", "target", "rand", "information"),
    [
        pytest.param(PIXEL, PIXEL, (0, 1, 1), (0, 0), id="one pixel"),
        pytest.param(PIXEL, 0 * PIXEL, (nan,) * 3, (nan,) * 2, id="one pixel, ignored"),
        pytest.param(ONE, NONE, (nan,) * 3, (nan,) * 2, id="all ignored"),
        pytest.param(EMPTY, EMPTY, (nan,) * 3, (nan,) * 2, id="no pixel"),
        pytest.param(ONE, ONE, (0, 1, 1), (0, 0), id="one segment"),
        pytest.param(NONE, ONE, (0, 1, 1), (0, 0), id="no label"),
        pytest.param(torch.arange(12).view(3, 4), ONE, (1, 1, 0), (log2(12), 0), id="a segment for each pixel"),
        pytest.param(ONE, torch.arange(1, 13).view(3, 4), (1, 0, 1), (0, log2(12)), id="a true segment for each pixel"),
        pytest.param(
            torch.arange(12).view(3, 4), torch.arange(1, 13).view(3, 4), (0, 1, 1), (0, 0), id="no pair in either"
        ),
    ],
)
def test_degenerate_partitions(labels, target, rand, information, device):
    labels, target = labels.to(device), target.to(device)
    rands = [v.item() for v in adapted_rand_error(labels, target)]
    assert rands == pytest.approx(rand, nan_ok=True)
    bits = [v.item() for v in variation_of_information(labels, target, (0,))]
    assert bits == pytest.approx(information, nan_ok=True)
    for metric in BESIDE_TARGET.values():
        assert {tuple(v.shape) for v in metric([], [])} == {(0,)}
        assert {tuple(v.shape) for v in metric(labels[None], target[None])} == {(1,)}


# Errors


@pytest.mark.parametrize(
    ("metric", "name"),
    [(instance_overlaps, "instances"), (adapted_rand_error, "labels"), (variation_of_information, "labels")],
)
def test_bad_maps_are_refused(metric, name):
    with pytest.raises(TypeError, match=f"int for {name}, expected a torch.Tensor or a list"):
        metric(3, ONE)
    with pytest.raises(TypeError, match=f"list for {name} of image 0, expected a torch.Tensor"):
        metric([[[1]]], [ONE])
    with pytest.raises(TypeError, match=f"float32 for {name}, expected an integer"):
        metric(ONE.float(), ONE)
    with pytest.raises(TypeError, match="bool for target of image 1, expected an integer"):
        metric([ONE, ONE], [ONE, ONE.bool()])
    with pytest.raises(ValueError, match=rf"shape \[12\] for {name}, expected \[H, W\] or \[B, H, W\]"):
        metric(ONE.view(-1), ONE.view(-1))
    with pytest.raises(ValueError, match=rf"shape \[1, 2, 3, 4\] for {name} of image 0, expected \[H, W\]"):
        metric([ONE.expand(1, 2, 3, 4)], [ONE])
    with pytest.raises(ValueError, match=r"shape \[4, 3\] for target, expected \[3, 4\]"):
        metric(ONE, ONE.T)
    with pytest.raises(ValueError, match=r"shape \[1, 3, 4\] for target, expected \[3, 4\]"):
        metric(ONE, ONE[None])
    with pytest.raises(ValueError, match=r"shape \[4, 3\] for target of image 1, expected \[3, 4\]"):
        metric([ONE, ONE], [ONE, ONE.T])
    with pytest.raises(ValueError, match=rf"1 images for target, expected 2 as for {name}"):
        metric([ONE, ONE], [ONE])
    with pytest.raises(ValueError, match=f"{name} on cpu, .*target of image 0 on meta"):
        metric(ONE, ONE.to("meta"))


def test_bad_instances_are_refused():
    two = [ONE, ONE]
    with pytest.raises(ValueError, match="negative id in instances of image 1"):
        instance_overlaps([ONE, ONE - 2], two)
    with pytest.raises(ValueError, match="negative id in target of image 1"):
        instance_overlaps(two, [ONE, ONE - 2], ignore_index=-2)
    assert len(instance_overlaps(two, [ONE, ONE - 2], ignore_index=-1).target_area) == 1
    with pytest.raises(ValueError, match="instance 1 in two maps of image 1"):
        instance_overlaps([ONE, torch.stack([ONE, ONE])], two)
    with pytest.raises(TypeError, match="float for ignore_index"):
        instance_overlaps(ONE, ONE, ignore_index=HALF)
    with pytest.raises(ValueError, match="got classes without target_classes, expected both or neither"):
        instance_overlaps(ONE, ONE, classes=torch.tensor([1]))
    with pytest.raises(ValueError, match="got target_classes without classes"):
        instance_overlaps(ONE, ONE, target_classes=torch.tensor([1]))


def test_bad_values_of_instances_are_refused():
    two, score = [ONE, 2 * ONE], torch.tensor([0.5])
    with pytest.raises(ValueError, match="instance 2 in image 1, expected at most 1, its number of scores"):
        instance_overlaps(two, two, scores=[score, score])
    with pytest.raises(ValueError, match="instance 2 in image 1, expected at most 1, its number of target_groups"):
        instance_overlaps(two, two, target_groups=torch.tensor([[True], [False]]))
    with pytest.raises(ValueError, match="scores of 1 images, expected 2"):
        instance_overlaps(two, two, scores=[score])
    with pytest.raises(TypeError, match="list for scores, expected a"):
        instance_overlaps(ONE, ONE, scores=[score])
    with pytest.raises(TypeError, match="float for scores of image 0, expected a"):
        instance_overlaps([ONE], [ONE], scores=[HALF])
    with pytest.raises(ValueError, match=r"shape \[1, 1\] for scores, expected \[\*\]"):
        instance_overlaps(ONE, ONE, scores=score[None])
    with pytest.raises(ValueError, match="1 NaN or infinite values in scores"):
        instance_overlaps(ONE, ONE, scores=torch.tensor([nan]))
    with pytest.raises(TypeError, match="bool for scores, expected a floating-point or integer"):
        instance_overlaps(ONE, ONE, scores=torch.tensor([True]))
    with pytest.raises(TypeError, match="float32 for classes, expected an integer"):
        instance_overlaps(ONE, ONE, classes=score, target_classes=torch.tensor([1]))
    with pytest.raises(TypeError, match=r"int64 for target_groups, expected torch\.bool"):
        instance_overlaps(ONE, ONE, target_groups=torch.tensor([1]))
    with pytest.raises(ValueError, match="scores on meta, maps on cpu"):
        instance_overlaps(ONE, ONE, scores=score.to("meta"))


def test_other_bad_arguments_are_refused():
    table = instance_overlaps(ONE, ONE)
    with pytest.raises(ValueError, match="min_area=-1, expected at least 0"):
        average_precision(table, -1)
    with pytest.raises(TypeError, match="float for min_area"):
        average_precision(table, HALF)
    for metric in BESIDE_TARGET.values():
        with pytest.raises(TypeError, match=r"\[0.5\] for ignore_labels, expected ints"):
            metric(ONE, ONE, [HALF])
