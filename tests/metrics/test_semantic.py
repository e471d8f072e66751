"""Class metrics against plain loops, values by hand, and what must hold of them."""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from graphseg.metrics.semantic import (
    class_adjacency,
    class_iou,
    class_weight_similarity,
    confusion_matrix,
    frequency_weighted_iou,
    hungarian_accuracy,
    mean_iou,
    pixel_accuracy,
)
from tests.label_maps import DEGENERATE
from tests.reference import semantic_metrics as reference
from tests.transforms.photos import read_image, read_rows

VOID = 255
FIGURES: dict[str, Any] = {
    "class_iou": class_iou,
    "mean_iou": mean_iou,
    "frequency_weighted_iou": frequency_weighted_iou,
    "pixel_accuracy": pixel_accuracy,
}
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13, "equal_nan": True}
HALF: Any = 0.5


def noise(seed=0):
    return np.random.default_rng(seed)


def as_tensor(array, device="cpu"):
    return torch.from_numpy(np.array(array)).to(device)


def image(source, rows, columns, largest=9):
    """A map of clusters and of classes, that agree more or less; where void is, anything may be predicted."""
    H, W = source.integers(1, largest + 1, 2)
    target = source.integers(0, rows, (H, W))
    prediction = np.where(source.random((H, W)) < 0.5, target % columns, source.integers(0, columns, (H, W)))
    void = source.random((H, W)) < source.choice([0, 0.3, 1], p=[0.4, 0.5, 0.1])
    return np.where(void & (source.random((H, W)) < 0.5), -7, prediction), np.where(void, VOID, target)


def as_reference(images, rows, columns, ignore=VOID):
    return np.sum([reference.confusion(p, t, rows, columns, ignore) for p, t in images], 0).tolist()


def matrix_of(pair, *options, **more):
    return confusion_matrix(*pair, *options, **more)


def check_figures(matrix, table):
    for name, expected in reference.figures(table).items():
        got = FIGURES[name](matrix)
        assert_close(got, torch.tensor(expected, dtype=torch.float64, device=got.device), **ROUNDING)


def check_similarity(out, expected):
    for name, value in expected.items():
        got = getattr(out, name)
        assert_close(got.cpu(), torch.tensor(value, dtype=got.dtype), **ROUNDING)


# Against the loops


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 3), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_matrices_and_figures_are_the_loop(seed, count, rows, columns):
    source = noise(seed)
    images = [image(source, rows, columns) for _ in range(count)]
    table = as_reference(images, rows, columns)
    lists = [[as_tensor(pair[side]) for pair in images] for side in (0, 1)]
    matrix = matrix_of(lists, rows, num_predicted=columns)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == table
    if rows == columns:
        assert torch.equal(matrix_of(lists, rows), matrix)
        check_figures(matrix, table)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6), rows=st.integers(1, 5), columns=st.integers(1, 5), top=st.sampled_from([0, 1, 3, 99])
)
def test_matches_are_the_best_of_all_and_the_first_of_these(seed, rows, columns, top):
    table = noise(seed).integers(0, top + 1, (rows, columns))
    out = hungarian_accuracy(as_tensor(table))
    accuracy, assignment = reference.hungarian(table.tolist())
    assert out.assignment.tolist() == assignment
    assert_close(out.accuracy, torch.tensor(accuracy, dtype=torch.float64), **ROUNDING)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 3), classes=st.integers(1, 6))
def test_adjacency_and_similarity_are_the_loop(seed, count, classes):
    source = noise(seed)
    maps = [image(source, classes, 1)[1] for _ in range(count)]
    table = np.sum([reference.adjacency(target, classes, VOID) for target in maps], 0)
    adjacency = class_adjacency([as_tensor(target) for target in maps], classes)
    assert adjacency.dtype == torch.int64
    assert adjacency.tolist() == table.tolist()
    weight = source.standard_normal((classes, 3, 1, 1))
    weight[source.random(classes) < 0.2] = 0
    expected = reference.similarity(weight, table.tolist())
    check_similarity(class_weight_similarity(as_tensor(weight), adjacency), expected)


def test_devices_give_the_loop(device):
    source = noise()
    images = [image(source, 4, 4, largest=20) for _ in range(3)]
    table = as_reference(images, 4, 4)
    lists = [[as_tensor(pair[side], device) for pair in images] for side in (0, 1)]
    matrix = matrix_of(lists, 4)
    assert matrix.device.type == device.type
    assert matrix.tolist() == table
    check_figures(matrix, table)
    out = hungarian_accuracy(matrix)
    assert out.assignment.device.type == out.accuracy.device.type == device.type
    assert out.assignment.tolist() == reference.hungarian(table)[1]
    adjacency = class_adjacency(lists[1], 4)
    assert adjacency.tolist() == np.sum([reference.adjacency(t, 4, VOID) for _, t in images], 0).tolist()
    weight = source.standard_normal((4, 5))
    expected = reference.similarity(weight, adjacency.tolist())
    check_similarity(class_weight_similarity(as_tensor(weight, device), adjacency), expected)


@pytest.mark.parametrize("name", DEGENERATE)
def test_odd_images_are_the_loop(name):
    target = DEGENERATE[name]
    prediction = target[::-1, ::-1].copy()
    K = int(target.max()) + 1
    table = reference.confusion(prediction, target, K, K, None)
    matrix = confusion_matrix(as_tensor(prediction), as_tensor(target), K, None)
    assert matrix.tolist() == table
    check_figures(matrix, table)
    assert class_adjacency(as_tensor(target), K, None).tolist() == reference.adjacency(target, K, None)


# By hand


def test_figures_by_hand():
    matrix = torch.tensor([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    matrix[1, 3] = 2  # class 3 is predicted and never true; class 2 is neither
    assert_close(class_iou(matrix), torch.tensor([1 / 2, 4 / 9, nan, 0], dtype=torch.float64), **ROUNDING)
    assert float(mean_iou(matrix)) == pytest.approx((1 / 2 + 4 / 9) / 3)
    assert float(frequency_weighted_iou(matrix)) == pytest.approx((4 / 2 + 8 * 4 / 9) / 12)
    assert float(pixel_accuracy(matrix)) == 7 / 12


def test_nothing_is_nan():
    nothing = torch.full((2, 3), VOID)
    cases: list[Any] = [(nothing, nothing), ([], []), (nothing[:0], nothing[:0])]
    for maps in cases:
        matrix = matrix_of(maps, 3)
        assert matrix.tolist() == [[0] * 3] * 3
        for figure in FIGURES.values():
            assert figure(matrix).isnan().all()
        assert hungarian_accuracy(matrix).accuracy.isnan()
        assert hungarian_accuracy(matrix).assignment.tolist() == [0, 1, 2]
        out = class_weight_similarity(torch.eye(3), class_adjacency(maps[1], 3))
        assert out.mean.isnan() and out.weighted.isnan() and out.neighbour.tolist() == [-1] * 3
        assert float(out.overall) == 0


def test_neighbours_by_hand():
    target = torch.tensor([[0, 0, 1], [0, 2, 1], [VOID, 2, 3]])
    adjacency = class_adjacency(target, 4)
    assert adjacency.tolist() == [[0, 1, 2, 0], [1, 0, 1, 1], [2, 1, 0, 1], [0, 1, 1, 0]]
    weight = torch.tensor([[1.0, 0], [0, 2], [3, 3], [-1, 0]])
    out = class_weight_similarity(weight, adjacency)
    assert out.neighbour.tolist() == [2, 0, 0, 1]  # of equals the first
    assert out.shared.tolist() == [2, 1, 2, 1]
    half = 0.5**0.5
    assert_close(out.similarity, torch.tensor([half, 0, half, 0], dtype=torch.float64))
    assert float(out.mean) == pytest.approx(half / 2)
    assert float(out.weighted) == pytest.approx(4 * half / 6)
    assert float(out.overall) == pytest.approx((half + half - 1 - half) / 6)


# Laws


def test_batches_and_lists_add_up_bit_for_bit():
    source = noise()
    target, prediction = (as_tensor(source.integers(0, 5, (4, 6, 7))) for _ in range(2))
    whole = confusion_matrix(prediction, target, 5)
    assert torch.equal(whole, torch.stack(list(map(confusion_matrix, prediction, target, [5] * 4))).sum(0))
    assert torch.equal(whole, confusion_matrix(list(prediction), list(target), 5))
    assert torch.equal(whole, confusion_matrix(prediction.to(torch.uint8), target.to(torch.int32), 5))
    edges = class_adjacency(target, 5)
    assert torch.equal(edges, torch.stack([class_adjacency(t, 5) for t in target]).sum(0))
    cut = [target[0, :3], target[0, 3:], *target[1:]]
    assert int(edges.sum() - class_adjacency(cut, 5).sum()) == 2 * int((target[0, 2] != target[0, 3]).sum())


def test_names_of_clusters_do_not_matter():
    source = noise()
    target = source.integers(0, 6, (30, 40))
    clusters = np.where(source.random(target.shape) < 0.3, source.integers(0, 9, target.shape), target)
    names = source.permutation(9)
    found, renamed = (
        hungarian_accuracy(confusion_matrix(as_tensor(c), as_tensor(target), 6, num_predicted=9))
        for c in (clusters, names[clusters])
    )
    assert found.accuracy == renamed.accuracy
    assert torch.equal(found.assignment, renamed.assignment[as_tensor(names)])
    matched = found.assignment[as_tensor(clusters)]
    assert float(found.accuracy) == int((matched == as_tensor(target)).sum()) / target.size
    assert sorted(found.assignment.tolist()) == [-1, -1, -1, 0, 1, 2, 3, 4, 5]


def test_large_matches_are_those_of_scipy():
    table = noise().integers(0, 10**9, (150, 150))
    out = hungarian_accuracy(as_tensor(table))
    rows, columns = linear_sum_assignment(table, maximize=True)
    assert float(out.accuracy) == pytest.approx(table[rows, columns].sum() / table.sum(), rel=1e-14)
    assert out.assignment[as_tensor(columns)].tolist() == rows.tolist()


def test_scale_of_weights_does_not_matter():
    adjacency = torch.tensor([[0, 3, 1], [3, 0, 2], [1, 2, 0]])
    weight = torch.randn(3, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    out = class_weight_similarity(weight, adjacency)
    scaled = class_weight_similarity(weight * torch.tensor([0.5, 3, 100]).view(3, 1, 1, 1), adjacency)
    assert_close(scaled.similarity, out.similarity)
    assert not out.mean.requires_grad
    same = class_weight_similarity(torch.ones(3, 4), adjacency)
    assert_close(torch.stack([same.mean, same.weighted, same.overall]), torch.ones(3, dtype=torch.float64))


def test_street_scenes(shared_data):
    pairs = [read_image(path)[::8, ::8].astype(np.int64) for _, path in read_rows(shared_data, "camvid", 4)]
    images = [(np.roll(target, 2, 1) % 11, target) for target in pairs]
    lists = [[as_tensor(pair[side]) for pair in images] for side in (0, 1)]
    table = as_reference(images, 11, 11, 11)
    matrix = matrix_of(lists, 11, 11)
    assert matrix.tolist() == table
    check_figures(matrix, table)
    adjacency = class_adjacency(lists[1], 11, 11)
    assert adjacency.tolist() == np.sum([reference.adjacency(t, 11, 11) for t in pairs], 0).tolist()


# Refused


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prediction": torch.zeros(2, 2)}, TypeError, "got dtype torch.float32 for prediction"),
        ({"target": torch.zeros(2, 3, dtype=torch.int64)}, ValueError, r"got shape \[2, 3\] for target"),
        ({"prediction": torch.full((2, 2), 3)}, ValueError, "got class 3 in prediction, expected 0 to 2"),
        ({"prediction": torch.full((2, 2), -1)}, ValueError, "got class -1 in prediction, expected 0 to 2"),
        ({"target": torch.full((2, 2), 3)}, ValueError, "got class 3 in target, expected 0 to 2 or ignore_index=255"),
        ({"target": torch.full((2, 2), -1)}, ValueError, "got class -1 in target"),
        (
            {"target": torch.full((2, 2), 255), "ignore_index": None},
            ValueError,
            "got class 255 in target, expected 0 to 2$",
        ),
        ({"num_classes": 0}, ValueError, "got num_classes=0"),
        ({"num_predicted": 0}, ValueError, "got num_predicted=0"),
        ({"ignore_index": HALF}, TypeError, "got float for ignore_index"),
    ],
)
def test_matrices_refuse(change, error, message):
    arguments: dict[str, Any] = {
        "prediction": torch.zeros(2, 2, dtype=torch.int64),
        "target": torch.zeros(2, 2, dtype=torch.int64),
        "num_classes": 3,
    }
    with pytest.raises(error, match=message):
        confusion_matrix(**(arguments | change))


def test_others_refuse():
    with pytest.raises(TypeError, match=r"got dtype torch\.float32 for "):
        class_adjacency(torch.zeros(2, 2), 3)
    with pytest.raises(ValueError, match=r"got shape \[2, 3\] for matrix, expected \[2, 2\]"):
        mean_iou(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"got dtype torch\.float32 for "):
        pixel_accuracy(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="got -1 in matrix, expected counts from 0"):
        hungarian_accuracy(torch.tensor([[-1]]))
    counts = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=r"got shape \[2, 2\] for adjacency, expected \[3, 3\]"):
        class_weight_similarity(torch.ones(3, 4), counts)
    with pytest.raises(ValueError, match="not symmetric"):
        class_weight_similarity(torch.ones(2, 4), torch.tensor([[0, 1], [2, 0]]))
    with pytest.raises(TypeError, match=r"got dtype torch\.int64 for "):
        class_weight_similarity(counts, counts)
    with pytest.raises(ValueError, match=r"got shape \[2\] for weight"):
        class_weight_similarity(torch.ones(2), counts)
    with pytest.raises(ValueError, match="got 1 NaN or infinite values in weight"):
        class_weight_similarity(torch.tensor([[1.0], [nan]]), counts)
