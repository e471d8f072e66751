"""The boundary F-score against a loop over classes with scikit-image's disk, values by hand, and its laws."""

from __future__ import annotations

from math import ceil, hypot, nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from graphseg.metrics import boundary
from graphseg.metrics.boundary import BoundaryFScore, boundary_f_score
from tests.label_maps import DEGENERATE, photographs
from tests.reference import semantic_metrics as reference
from tests.transforms.photos import read_image, read_rows

VOID = 255
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13, "equal_nan": True}
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0, "equal_nan": True}
HALF: Any = "half"


def noise(seed=0):
    return np.random.default_rng(seed)


def as_tensor(array, device="cpu"):
    return torch.from_numpy(np.array(array)).to(device)


def image(source, classes, largest=14):
    """Cells as ground truth, void in it, and a prediction that is shifted and disturbed; any value where void is."""
    H, W = source.integers(1, largest + 1, 2)
    y, x = np.indices((H, W))
    cells = (y // source.integers(2, 7)) * W + x // source.integers(2, 7)
    target = source.integers(0, classes, int(cells.max()) + 1)[cells]
    prediction = np.roll(target, source.integers(0, 2, 2), (0, 1))
    wrong = source.random((H, W)) < source.choice([0, 0.03, 0.3, 1])
    prediction = np.where(wrong, source.integers(0, classes, (H, W)), prediction)
    void = source.random((H, W)) < source.choice([0, 0.1, 0.5])
    return np.where(void & (source.random((H, W)) < 0.5), -7, prediction), np.where(void, VOID, target)


def lists(images, device="cpu"):
    return [[as_tensor(pair[side], device) for pair in images] for side in (0, 1)]


def tensors(pair):
    return [as_tensor(values) for values in pair]


def score(pair, *options):
    return boundary_f_score(*pair, *options)


def check(out, images, classes, radius, absent="skip", ignore=VOID):
    f = np.array([reference.boundary_f(p, t, classes, radius, ignore) for p, t in images])
    f = f.reshape(len(images), classes)
    f = np.where(np.isnan(f), 1.0, f) if absent == "one" else f
    assert_close(out.per_image.cpu(), as_tensor(f), **ROUNDING)
    assert out.images.tolist() == (~np.isnan(f)).sum(0).tolist()
    assert_close(out.total.cpu(), as_tensor(np.nansum(f, 0)), **ROUNDING)
    known = [column[~np.isnan(column)] for column in f.T]
    per_class = [column.mean() if len(column) else nan for column in known]
    assert_close(out.per_class.cpu(), torch.tensor(per_class, dtype=torch.float64), **ROUNDING)
    score = np.mean([v for v in per_class if v == v]) if any(len(column) for column in known) else nan
    assert_close(out.score.cpu(), torch.tensor(score, dtype=torch.float64), **ROUNDING)


def assert_same(out, expected):
    for got, want in zip(out, expected, strict=True):
        assert_close(got, want, **EXACT)


# Against the loop


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 4),
    classes=st.sampled_from([1, 2, 5, 31, 32, 70]),
    radius=st.sampled_from([0, 0.01, 0.2, 1, 2, 3.0, 5, 30]),
    absent=st.sampled_from(["skip", "one"]),
)
def test_images_of_any_sizes_are_the_loop(seed, count, classes, radius, absent):
    source = noise(seed)
    images = [image(source, classes) for _ in range(count)]
    check(score(lists(images), classes, radius, VOID, absent), images, classes, radius, absent)


@pytest.mark.parametrize("name", DEGENERATE)
def test_odd_images_are_the_loop(name):
    target = DEGENERATE[name]
    pair = target[::-1].copy(), target
    K = int(target.max()) + 1
    check(score(tensors(pair), K, 1, None), [pair], K, 1, ignore=None)


@pytest.mark.parametrize("radius", [1, 0.02])
def test_photographs_are_the_loop(radius, device):
    images = []
    for photo, labels in photographs().values():
        photo, labels = photo[::2, ::2], labels[::2, ::2]
        target = (photo.mean(2) // 64).astype(np.int64)
        size = np.bincount(labels.ravel()).clip(1)
        prediction = (np.bincount(labels.ravel(), photo.mean(2).ravel()) / size // 64).astype(np.int64)[labels]
        images.append((prediction, target))
    out = score(lists(images, device), 4, radius)
    assert {field.device.type for field in out} == {device.type}
    assert 0.05 < float(out.score) < 0.95
    check(out, images, 4, radius)


def test_street_scenes_are_the_loop(shared_data):
    images = []
    for _, path in read_rows(shared_data, "camvid", 3):
        target = read_image(path)[::6, ::6].astype(np.int64)
        images.append((np.roll(target, (1, 2), (0, 1)) % 11, target))
    check(score(lists(images), 11, 1, 11), images, 11, 1, ignore=11)


# By hand


def test_scores_by_hand():
    target = torch.zeros(6, 9, dtype=torch.int64)
    target[:, 4:] = 1  # its boundary is the column of 3
    prediction = torch.zeros_like(target)
    prediction[:, 6:] = 1  # of 5
    for radius, score in ((0, 0), (1, 0), (2, 1)):
        out = boundary_f_score(prediction, target, 2, radius)
        assert out.per_image.tolist() == [[score, score]]
    prediction[0, 4:] = 1  # now (0, 3), (0, 4), (0, 5), and 5 in the other rows
    out = boundary_f_score(prediction, target, 2, 0)
    assert out.per_image.tolist() == [[1 / 7, 1 / 7]]  # precision 1 / 8, recall 1 / 6


def test_absent_classes_are_skipped_or_one():
    target = torch.zeros(2, 4, 6, dtype=torch.int64)
    target[0, :, 3:] = 2
    prediction = target.clone()
    prediction[1, 0, 0] = 1
    skip, one = (boundary_f_score(prediction, target, 4, absent=absent) for absent in ("skip", "one"))
    assert_close(skip.per_image, torch.tensor([[1, nan, 1, nan], [0, 0, nan, nan]], dtype=torch.float64), **EXACT)
    assert one.per_image.tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert skip.images.tolist() == [2, 1, 1, 0]
    assert float(skip.score) == (0.5 + 0 + 1) / 3
    assert float(one.score) == (0.5 + 0.5 + 1 + 1) / 4


def test_nothing_is_nan():
    flat, void = torch.zeros(2, 0, 5, dtype=torch.int64), torch.full((3, 4), VOID)
    cases: list[Any] = [([], []), (flat, flat), (void, void)]
    for maps in cases:
        out = score(maps, 3)
        assert out.score.isnan() and out.per_class.isnan().all()
        assert out.total.tolist() == [0] * 3 and out.images.tolist() == [0] * 3


def test_a_fraction_is_of_the_diagonal_and_rounded_up():
    source = noise()
    images = [image(source, 3, largest=40) for _ in range(6)]
    out = score(lists(images), 3, 0.04)
    for b, pair in enumerate(images):
        radius = ceil(0.04 * hypot(*pair[1].shape))
        assert_close(out.per_image[b : b + 1], score(tensors(pair), 3, radius).per_image, **EXACT)


# Laws


def test_images_alone_are_those_of_a_list_in_any_order(monkeypatch):
    source = noise()
    images = [image(source, 5, largest=30) for _ in range(7)]
    whole = score(lists(images), 5, 0.03)
    alone = [score(tensors(pair), 5, 0.03) for pair in images]
    assert_close(torch.cat([out.per_image for out in alone]), whole.per_image, **EXACT)
    assert torch.equal(torch.stack([out.images for out in alone]).sum(0), whole.images)
    total = torch.stack([out.total for out in alone]).sum(0)
    assert_close(total, whole.total, **ROUNDING)
    assert_same(BoundaryFScore.mean(whole.total, whole.images), whole[:2])
    for pixels in (1, 700, 2000):
        monkeypatch.setattr(boundary, "PIXELS", pixels)
        assert_same(score(lists(images), 5, 0.03), whole)
    H, W = 12, 15
    batch = [as_tensor(source.integers(0, 5, (4, H, W))) for _ in range(2)]
    assert_same(score(batch, 5), boundary_f_score(list(batch[0]), list(batch[1]), 5))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), radius=st.integers(0, 4))
def test_laws(seed, radius):
    source = noise(seed)
    prediction, target = (as_tensor(m) for m in image(source, 4))
    prediction = prediction.where(target != VOID, VOID)
    out = boundary_f_score(prediction, target, 4, radius).per_image
    # Itself.
    own = boundary_f_score(target, target, 4, radius).per_image
    assert bool(((own == 1) | own.isnan()).all())
    # Both ways the same where nothing is ignored.
    free = [as_tensor(source.integers(0, 4, (7, 9))) for _ in range(2)]
    forth, back = (score(pair, 4, radius).per_image for pair in (free, free[::-1]))
    assert_close(forth, back, **ROUNDING)
    # Wider disks meet more; classes are names.
    wider = boundary_f_score(prediction, target, 4, radius + 1).per_image
    assert bool(((wider >= out - 1e-12) | out.isnan()).all())
    names = torch.arange(VOID + 1)
    names[:4] = torch.randperm(4)
    renamed = boundary_f_score(names[prediction], names[target], 4, radius).per_image
    assert_close(renamed[:, names[:4]], out, **EXACT)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"radius": 1.5}, ValueError, "got radius=1.5, expected whole pixels, or a fraction"),
        ({"radius": -1}, ValueError, "got radius=-1"),
        ({"radius": nan}, ValueError, "got radius=nan"),
        ({"radius": HALF}, TypeError, "got str for radius, expected a number"),
        ({"absent": "zero"}, ValueError, "got absent='zero', expected one of 'skip', 'one'"),
        ({"prediction": torch.full((2, 2), 3)}, ValueError, "got class 3 in prediction"),
        ({"target": torch.zeros(2, 3, dtype=torch.int64)}, ValueError, r"got shape \[2, 3\] for target"),
        ({"target": torch.zeros(2, 2)}, TypeError, "got dtype torch.float32 for target"),
        ({"num_classes": 0}, ValueError, "got num_classes=0"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    zeros = torch.zeros(2, 2, dtype=torch.int64)
    arguments: dict[str, Any] = {"prediction": zeros, "target": zeros, "num_classes": 3}
    with pytest.raises(error, match=message):
        boundary_f_score(**(arguments | change))
