"""Superpixel metrics against plain loops, scipy and scikit-image, values by hand, and what must hold of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter
from scipy.stats.contingency import crosstab
from skimage.segmentation import felzenszwalb, find_boundaries, slic
from torch import Tensor
from torch.testing import assert_close

from graphseg.metrics import (
    achievable_segmentation_accuracy,
    boundary_precision,
    boundary_recall,
    compactness,
    count_error,
    explained_variation,
    num_superpixels,
    size_regularity,
    undersegmentation_error,
)
from tests.label_maps import DEGENERATE, consecutive, label_maps, photographs
from tests.reference import superpixel_metrics as reference
from tests.transforms.photos import read_image, read_rows

ROUNDING: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-13}  # of float64, sums in another order
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
PHOTOGRAPHS = ["astronaut, SLIC", "coffee, Felzenszwalb", "chelsea, SLIC"]

BESIDE_TARGET: dict[str, Callable[..., Tensor]] = {
    "asa": achievable_segmentation_accuracy,
    "np": partial(undersegmentation_error, form="np"),
    "levin": partial(undersegmentation_error, form="levin"),
    "ue_asa": partial(undersegmentation_error, form="asa"),
    "recall": boundary_recall,
    "precision": boundary_precision,
}
ALONE: dict[str, Callable[..., Tensor]] = {
    "compactness": compactness,
    "size_regularity": size_regularity,
    "num_superpixels": num_superpixels,
}


def noise(seed=0):
    return np.random.default_rng(seed)


def as_tensor(array, device="cpu"):
    """Strides are kept."""
    if array is None or isinstance(array, Tensor):
        return array
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def picture(labels, channels=3, seed=0):
    """Random values `[C, *labels.shape]` in [0, 1]."""
    return noise(seed).random((channels, *labels.shape))


def other_map(labels, seed=0, values=(-4, 0, 3, 7, 2**40)):
    """A target of few values, neither consecutive nor connected, with the borders of `labels` in part."""
    source = noise(seed)
    coarse = source.choice(values, labels.max() + 1)[labels]
    return np.where(source.random(labels.shape) < 0.2, source.choice(values, labels.shape), coarse)


def everything(labels, target, image, *, ignore_index=None, valid=None, radius=None, device="cpu"):
    """Name -> value of every metric of one image or a batch."""
    labels, target, image, valid = (as_tensor(a, device) for a in (labels, target, image, valid))
    found = {}
    for name, metric in BESIDE_TARGET.items():
        extra = {"radius": radius} if metric in (boundary_recall, boundary_precision) else {}
        found[name] = metric(labels, target, ignore_index=ignore_index, valid=valid, **extra)
    for name, metric in ALONE.items():
        found[name] = metric(labels, valid=valid)
    found["count_error"] = count_error(labels, 3, valid=valid)
    found["explained_variation"] = explained_variation(labels, image, valid=valid)
    return found


def loops(labels, target, image, *, ignore_index=None, valid=None, radius=None):
    """The same by the loops."""
    found = reference.ground_truth_metrics(labels, target, radius, ignore_index, valid)
    found |= reference.shape_metrics(labels, valid)
    found["count_error"] = abs(found["num_superpixels"] - 3) / 3
    found["explained_variation"] = reference.explained_variation(labels, image, valid)
    return found


def assert_same(out, expected, **tolerance):
    assert set(out) == set(expected)
    for name, value in out.items():
        assert value.dtype == (torch.int64 if name == "num_superpixels" else torch.float64), name
        want = torch.as_tensor(expected[name], dtype=value.dtype)
        assert_close(value.cpu(), want.cpu(), **(tolerance or ROUNDING), msg=f"{name}: got {value}, expected {want}")


# Against the loops


@pytest.mark.parametrize("radius", [None, 0, 1, 3])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_maps_are_the_loop(name, radius, device):
    labels = DEGENERATE[name]
    target, image = other_map(labels), picture(labels)
    out = everything(labels, target, image, radius=radius, device=device)
    assert {(v.shape, v.device.type) for v in out.values()} == {(torch.Size([]), device.type)}
    assert_same(out, loops(labels, target, image, radius=radius))


@settings(max_examples=40)
@given(
    labels=label_maps(),
    seed=st.integers(0, 999),
    radius=st.sampled_from([None, 0, 1, 2, 5, 40]),
    ignore=st.sampled_from([None, 0, 5, 2**40]),
    holes=st.booleans(),
)
def test_any_map_is_the_loop(labels, seed, radius, ignore, holes):
    source = noise(seed)
    target, image = other_map(labels, seed), picture(labels, 1 + seed % 4, seed)
    labels = source.permutation(50)[labels]  # gaps
    valid = source.random(labels.shape) < 0.7 if holes else None
    count = reference.counted(labels, target, ignore, valid)
    if not count.any():
        target[0, 0] = 3
        valid = None if valid is None else valid | (np.arange(labels.size).reshape(labels.shape) == 0)
    out = everything(labels, target, image, ignore_index=ignore, valid=valid, radius=radius)
    assert_same(out, loops(labels, target, image, ignore_index=ignore, valid=valid, radius=radius))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_the_loop(name, device):
    photo, labels = (array[:60, 40:120] for array in photographs()[name])
    target = felzenszwalb(photo, scale=400, min_size=60).astype(np.int64) + 1
    image = photo.transpose(2, 0, 1)
    valid = noise().random(labels.shape) < 0.97
    out = everything(labels, target, image, ignore_index=2, valid=valid, device=device)
    assert_same(out, loops(labels, target, image, ignore_index=2, valid=valid))


def test_more_pairs_than_pixels(device):
    """Each pixel its own superpixel and segment: a table of all pairs would hold 2.5 million."""
    labels = noise().permutation(1600).reshape(40, 40)
    target = noise(1).permutation(1600).reshape(40, 40) * 10**12
    pair = np.where(labels < 800, labels // 2, labels)
    image = picture(labels)
    for form, expected in [("np", 400 * 2 / 1600), ("asa", 400 / 1600), ("levin", 800 / 1600)]:
        out = undersegmentation_error(as_tensor(pair, device), as_tensor(target, device), form)
        assert out.item() == pytest.approx(expected, rel=1e-14)
    out = everything(labels, target, image, valid=labels % 5 > 0, device=device)
    assert out["asa"] == out["explained_variation"] == 1
    assert out["np"] == out["levin"] == 0
    assert out["num_superpixels"] == 1280


# Against scipy and scikit-image


def check_by_libraries(labels, target, radius):
    table = crosstab(labels.ravel(), target.ravel()).count
    size, N = table.sum(1, keepdims=True), labels.size
    edges, borders = (find_boundaries(m, connectivity=1, mode="thick") for m in (labels, target))
    reach = 2 * radius + 1
    expected = {
        "asa": table.max(1).sum() / N,
        "np": np.minimum(table, size - table).sum() / N,
        "levin": ((((table > 0) * size).sum(0) - table.sum(0)) / table.sum(0)).mean(),
        "ue_asa": 1 - table.max(1).sum() / N,
        "recall": maximum_filter(edges, reach)[borders].mean(),
        "precision": maximum_filter(borders, reach)[edges].mean(),
    }
    extra = {"recall": {"radius": radius}, "precision": {"radius": radius}}
    out = {name: f(as_tensor(labels), as_tensor(target), **extra.get(name, {})) for name, f in BESIDE_TARGET.items()}
    assert_same(out, expected)
    assert 0.5 < out["asa"] < 1
    assert 0 < out["precision"] < out["recall"] <= 1


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_what_libraries_count(name):
    photo, labels = photographs()[name]
    target = felzenszwalb(photo, scale=400, min_size=60).astype(np.int64)
    check_by_libraries(labels, target, radius=2)


def test_bsds500_is_what_libraries_count(shared_data):
    folder = shared_data / "bsds500"
    ((image_path, target_paths),) = read_rows(shared_data, "bsds500", 1)
    labels = consecutive(slic(read_image(image_path), 200, start_label=0))
    assert sorted(labels.shape) == [321, 481]
    names = str(target_paths.relative_to(folder)).split(";")  # one map for each annotator
    assert len(names) > 3
    for name in names:
        check_by_libraries(labels, read_image(folder / name), radius=1)


# By hand

HALVES = [[0, 0, 5, 5], [0, 0, 5, 5]]  # id 5 after a gap
TARGET = [[1, 1, 1, 9], [1, 1, 9, 9]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("asa", 7 / 8),  # 4 of the left superpixel, 3 of the right
        ("np", 2 / 8),  # the right one: min(1, 3) for segment 1, min(3, 1) for segment 9
        ("levin", ((8 - 5) / 5 + (4 - 3) / 3) / 2),
        ("ue_asa", 1 / 8),
    ],
)
def test_overlaps_by_hand(name, expected, device):
    out = BESIDE_TARGET[name](torch.tensor(HALVES, device=device), torch.tensor(TARGET, device=device))
    assert out.item() == pytest.approx(expected, rel=1e-15)
    ignored = BESIDE_TARGET[name](
        torch.tensor(HALVES, device=device), torch.tensor(TARGET, device=device), ignore_index=9
    )
    assert ignored == (1 if name == "asa" else 0)  # five pixels of one segment are left


def test_boundaries_by_hand(device):
    """B(labels) is columns 1 and 2; B(target) pixels 2 and 3 of the first row, 1 and 2 of the second."""
    labels, target = torch.tensor(HALVES, device=device), torch.tensor(TARGET, device=device)
    for radius, share in [(None, 3 / 4), (0, 3 / 4), (1, 1)]:
        assert boundary_recall(labels, target, radius) == share
        assert boundary_precision(labels, target, radius) == share
    # Of neighbours, (0, 2) and (1, 2) are left: a boundary of the target, in one superpixel.
    kept = torch.tensor([[0, 0, 1, 0], [1, 0, 1, 0]], dtype=torch.bool, device=device)
    assert boundary_recall(labels, target, 0, valid=kept) == 0
    assert boundary_precision(labels, target, 0, valid=kept) == 1  # no boundary that is wrong
    assert boundary_recall(labels, target, ignore_index=9) == 1  # the target has none


def test_boundary_window_is_a_square_with_its_corners():
    labels, target = torch.zeros(9, 9, dtype=torch.int64), torch.zeros(9, 9, dtype=torch.int64)
    labels[0, 0] = 1  # boundary: (0, 0), (0, 1), (1, 0)
    target[4, 4] = 1  # boundary: the pixel and its four neighbours
    hits = {0: 0, 1: 0, 2: 0, 3: 2, 4: 5}  # (3, 4) from (0, 1) and (4, 3) from (1, 0); then (4, 4), (4, 5), (5, 4)
    found = {r: boundary_recall(labels, target, r).item() * 5 for r in hits}
    assert found == pytest.approx(hits)


@pytest.mark.parametrize(
    ("size", "radius"), [((120, 159), 0), ((120, 160), 1), ((321, 481), 1), ((360, 480), 2), ((719, 1279), 4)]
)
def test_default_radius_is_the_rounded_part_of_the_diagonal(size, radius):
    """Diagonals of 199.2, 200 (0.5, up), 578.3, 600 (1.5, up) and 1467.2 pixels."""
    labels, target = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
    target[:, 60:] = 1
    recalls = []
    for shift in (radius + 1, radius + 2):  # beside the nearer of two boundary columns
        labels.zero_()[:, 60 + shift :] = 1
        recalls.append(boundary_recall(labels, target).item())
        assert recalls[-1] == boundary_recall(labels, target, radius).item()
    assert recalls == [0.5, 0]


def test_maps_without_boundary():
    flat, halves = torch.zeros(4, 6, dtype=torch.int64), torch.zeros(4, 6, dtype=torch.int64)
    halves[:, 3:] = 1
    assert boundary_recall(halves, flat, 1) == boundary_precision(flat, halves, 1) == 1
    assert boundary_recall(flat, halves, 99) == boundary_precision(halves, flat, 99) == 0
    assert boundary_recall(flat, flat) == boundary_precision(flat, flat) == 1


def test_explained_variation_by_hand(device):
    labels = torch.tensor([[0, 0, 2, 2]], device=device)
    image = torch.tensor([[[0, 2, 4, 6]], [[1, 1, 5, 5]]], dtype=torch.uint8, device=device)
    # Channel 0: means 1 and 5 about 3, 16 of 20. Channel 1: 16 of 16.
    assert explained_variation(labels, image).item() == pytest.approx(32 / 36, rel=1e-15)
    assert explained_variation(labels, image[:1]).item() == pytest.approx(16 / 20, rel=1e-15)
    kept = torch.tensor([[True, True, True, False]], device=device)
    # 0, 2 | 4 about 2: 2 * 1 + 4 of 8. 1, 1 | 5: all of it, 32 / 3.
    assert explained_variation(labels, image, kept).item() == pytest.approx((6 + 32 / 3) / (8 + 32 / 3), rel=1e-15)


def test_compactness_by_hand(device):
    square = torch.zeros(7, 7, dtype=torch.int64, device=device)
    assert compactness(square).item() == pytest.approx(pi / 4, rel=1e-15)
    bars = torch.tensor([[0, 0, 0], [7, 7, 7]], device=device)  # perimeter 8 each
    assert compactness(bars).item() == pytest.approx(4 * pi * 3 / 64, rel=1e-15)
    ring = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0]], device=device)  # perimeters 12 + 4 and 4
    expected = 8 / 9 * 4 * pi * 8 / 256 + 1 / 9 * 4 * pi / 16
    assert compactness(ring).item() == pytest.approx(expected, rel=1e-15)
    assert compactness(ring, ring == 0).item() == pytest.approx(4 * pi * 8 / 256, rel=1e-15)


def test_sizes_by_hand(device):
    labels = torch.tensor([[[0, 0, 0, 4]], [[1, 1, 8, 8]], [[5, 5, 5, 5]]], device=device)
    assert size_regularity(labels).tolist() == pytest.approx([1 / 2, 0, 0], rel=1e-15)
    assert num_superpixels(labels).tolist() == [2, 2, 1]
    assert count_error(labels, 4).tolist() == [1 / 2, 1 / 2, 3 / 4]
    assert count_error(labels, torch.tensor([1, 2, 3], device=device)).tolist() == [1, 0, 2 / 3]
    assert count_error(labels[0], torch.tensor(3, dtype=torch.int32, device=device)).item() == 1 / 3
    some = torch.tensor([[[1, 0, 0, 1]], [[0, 1, 1, 0]], [[0, 0, 0, 0]]], dtype=torch.bool, device=device)
    assert num_superpixels(labels, some).tolist() == [2, 2, 0]
    assert count_error(labels, 4, some).tolist() == [1 / 2, 1 / 2, 1]
    uneven = torch.tensor([[0, 0, 0, 1, 2, 2]], device=device)  # 3, 1, 2
    assert size_regularity(uneven).item() == pytest.approx(sqrt(2 / 3) / 2, rel=1e-15)


# Laws


@pytest.mark.parametrize("name", [*DEGENERATE, *PHOTOGRAPHS])
def test_a_map_beside_itself_is_perfect(name):
    labels = as_tensor(DEGENERATE[name] if name in DEGENERATE else photographs()[name][1])
    renamed = 1000 - 7 * labels
    for metric in ("asa", "recall", "precision"):
        assert BESIDE_TARGET[metric](labels, renamed) == 1
    for metric in ("np", "levin", "ue_asa"):
        assert BESIDE_TARGET[metric](labels, renamed) == 0


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_ends_of_explained_variation_are_exact(name):
    photo, labels = photographs()[name]
    image = as_tensor(photo.transpose(2, 0, 1))
    one, each = torch.zeros_like(as_tensor(labels)), torch.arange(labels.size).reshape(labels.shape)
    for values in (image, image / 255, image.double() / 3 + 1e6, image.to(torch.uint16) * 200):
        assert explained_variation(each, values) == 1
        assert explained_variation(one, values) == 0
    for constant in (0, 0.1, 1 / 3, 1e9 + 0.1):
        assert explained_variation(as_tensor(labels), torch.full(image.shape, constant, dtype=torch.float64)) == 1
        assert explained_variation(one, torch.full(image.shape, constant)) == 1


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_explained_variation_has_no_offset_and_no_scale(name):
    photo, labels = photographs()[name]
    labels, image = as_tensor(labels), as_tensor(photo.transpose(2, 0, 1)).double()
    expected = explained_variation(labels, image)
    assert 0.4 < expected < 1
    assert_close(explained_variation(labels, image * 1e-6), expected, **ROUNDING)
    assert_close(explained_variation(labels, image / 8 + 2.0**30), expected, **ROUNDING)


def refine(labels, seed):
    """Every superpixel cut further, at random."""
    return consecutive(labels * 4 + noise(seed).integers(0, 4, labels.shape))


@settings(max_examples=25)
@given(labels=label_maps(), seed=st.integers(0, 999), radius=st.integers(0, 4))
def test_refinement_never_does_worse(labels, seed, radius):
    target, image = other_map(labels, seed), picture(labels, seed=seed)
    coarse = everything(labels, target, image, radius=radius)
    fine = everything(refine(labels, seed), target, image, radius=radius)
    for name in ("asa", "recall", "explained_variation"):
        assert fine[name] >= coarse[name] - 1e-13, name
    for name in ("np", "levin", "ue_asa"):
        assert fine[name] <= coarse[name] + 1e-13, name


@settings(max_examples=25)
@given(labels=label_maps(), seed=st.integers(0, 999), radius=st.integers(0, 4))
def test_laws_of_any_map(labels, seed, radius):
    source = noise(seed)
    target, image = other_map(labels, seed), picture(labels, seed=seed)
    out = everything(labels, target, image, radius=radius)
    # One leak, counted in two ways.
    assert_close(out["ue_asa"], 1 - out["asa"], **ROUNDING)
    assert out["np"] >= out["ue_asa"]
    # Ids have no order, and gaps mean nothing.
    renamed = everything(source.permutation(60)[labels], target * 3 - 1, image, radius=radius)
    assert_same(renamed, out)
    # Nor have x and y.
    turned = everything(labels.T, target.T, image.swapaxes(1, 2), radius=radius)
    assert_same(turned, out)
    # Precision is recall with the maps in each other's place.
    swapped = boundary_recall(as_tensor(consecutive(target)), as_tensor(labels), radius)
    assert_close(out["precision"], swapped, **EXACT)
    # A window over the whole image finds any boundary.
    everywhere = boundary_recall(as_tensor(labels), as_tensor(target), 10**9)
    assert everywhere == (1 if labels.max() > 0 or len(np.unique(target)) == 1 else 0)
    assert 0 < out["compactness"] <= pi / 4 + 1e-15
    assert 0 <= out["explained_variation"] <= 1


@settings(max_examples=25)
@given(labels=label_maps(), seed=st.integers(0, 999))
def test_what_does_not_count_is_not_read(labels, seed):
    source = noise(seed)
    target, image = other_map(labels, seed), picture(labels, seed=seed)
    valid = source.random(labels.shape) < 0.6
    valid[0, 0] = True
    expected = everything(labels, target, image, valid=valid, radius=1)
    hidden = np.where(valid, labels, source.integers(-9, 10**6, labels.shape))
    masked = np.where(valid, target, source.integers(-9, 10**6, labels.shape))
    out = everything(hidden, masked, np.where(valid, image, np.nan), valid=valid, radius=1)
    assert_same(out, expected, **EXACT)
    # To ignore pixels is to mask them.
    marked = np.where(valid, target, 255)
    for name, metric in BESIDE_TARGET.items():
        extra = {"radius": 1} if name in ("recall", "precision") else {}
        assert_close(metric(as_tensor(labels), as_tensor(marked), ignore_index=255, **extra), expected[name], **EXACT)
    # To mask nothing changes nothing.
    whole = everything(labels, target, image, radius=1)
    assert_same(everything(labels, target, image, radius=1, valid=valid | True, ignore_index=255), whole, **EXACT)


@pytest.mark.parametrize("masked", [False, True])
def test_batch_is_its_singles(masked, device):
    """Images of one size, from one superpixel to one per pixel; bit for bit."""
    source = noise()
    H, W = 24, 36
    maps = [
        np.zeros((H, W), np.int64),
        np.arange(H * W).reshape(H, W),
        consecutive(source.integers(0, 9, (H, W))),
        photographs()["astronaut, SLIC"][1][:H, :W],
        photographs()["coffee, Felzenszwalb"][1][20 : 20 + H, 30 : 30 + W],
    ]
    labels = np.stack(maps)
    target = np.stack([other_map(m, seed) for seed, m in enumerate(maps)])
    image = source.random((len(maps), 5, H, W))
    options: dict[str, Any] = {"device": device}
    if masked:
        options |= {"ignore_index": 3}
    valid = source.random(labels.shape) < 0.8 if masked else None
    out = everything(labels, target, image, valid=valid, **options)
    assert {tuple(v.shape) for v in out.values()} == {(len(maps),)}
    for b in range(len(maps)):
        single = everything(labels[b], target[b], image[b], valid=None if valid is None else valid[b], **options)
        assert_same({name: value[b] for name, value in out.items()}, single, **EXACT)
    one = everything(labels[2:3], target[2:3], image[2:3], valid=None if valid is None else valid[2:3], **options)
    assert_same(one, {name: value[2:3] for name, value in out.items()}, **EXACT)


def test_batch_of_no_images():
    out = everything(np.zeros((0, 4, 5), np.int64), np.zeros((0, 4, 5), np.int64), np.zeros((0, 3, 4, 5)))
    assert {tuple(v.shape) for v in out.values()} == {(0,)}
    masked = everything(
        np.zeros((0, 4, 5), np.int64),
        np.zeros((0, 4, 5), np.int64),
        np.zeros((0, 3, 4, 5)),
        valid=np.zeros((0, 4, 5), bool),
    )
    assert_same(masked, out)


def test_several_people_mark_one_image():
    _, labels = photographs()["astronaut, SLIC"]
    targets = np.stack([other_map(labels, seed) for seed in range(3)])
    batch = as_tensor(labels).expand(3, -1, -1)
    for metric in BESIDE_TARGET.values():
        singles = [metric(as_tensor(labels), as_tensor(target)) for target in targets]
        assert_close(metric(batch, as_tensor(targets)), torch.stack(singles), **EXACT)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_integer_types_of_maps_do_not_matter(dtype):
    labels = DEGENERATE["four corners"]
    target = other_map(labels, values=(1, 2, 200))
    for name, metric in BESIDE_TARGET.items():
        expected = metric(as_tensor(labels), as_tensor(target), ignore_index=200)
        out = metric(as_tensor(labels).to(dtype), as_tensor(target).to(dtype), ignore_index=200)
        assert_close(out, expected, **EXACT, msg=name)
        nowhere = metric(as_tensor(labels).to(dtype), as_tensor(target).to(dtype), ignore_index=-100)
        assert_close(nowhere, metric(as_tensor(labels), as_tensor(target)), **EXACT)


def test_inputs_keep_their_values_and_get_no_gradient():
    labels, target = as_tensor(DEGENERATE["pieces"]), as_tensor(other_map(DEGENERATE["pieces"]))
    image = as_tensor(picture(labels)).requires_grad_()
    before = [t.clone() for t in (labels, target, image)]
    assert not explained_variation(labels, image).requires_grad
    everything(labels, target, image.detach(), valid=labels > 0)
    assert all(torch.equal(a, b) for a, b in zip(before, (labels, target, image), strict=True))


# Errors

MAP = torch.zeros(3, 4, dtype=torch.int64)


@pytest.mark.parametrize("metric", BESIDE_TARGET.values(), ids=BESIDE_TARGET)
def test_bad_maps_are_refused(metric):
    with pytest.raises(TypeError, match="list for labels"):
        metric([[0]], MAP)
    with pytest.raises(TypeError, match=r"float32 for labels.*integer"):
        metric(MAP.float(), MAP)
    with pytest.raises(TypeError, match=r"bool for target.*integer"):
        metric(MAP, MAP.bool())
    with pytest.raises(ValueError, match=r"shape \[12\] for labels, expected \[H, W\] or \[B, H, W\]"):
        metric(MAP.view(-1), MAP.view(-1))
    with pytest.raises(ValueError, match=r"shape \[4, 3\] for target, expected \[3, 4\]"):
        metric(MAP, MAP.T)
    with pytest.raises(ValueError, match=r"shape \[3, 4\] for target, expected \[1, 3, 4\]"):
        metric(MAP[None], MAP)
    with pytest.raises(TypeError, match=r"int64 for valid, expected torch.bool"):
        metric(MAP, MAP, valid=MAP)
    with pytest.raises(ValueError, match=r"shape \[3\] for valid, expected \[3, 4\]"):
        metric(MAP, MAP, valid=torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match="float for ignore_index"):
        metric(MAP, MAP, ignore_index=0.0)
    with pytest.raises(ValueError, match="negative label in image 1"):
        metric(torch.stack([MAP, MAP - 1]), torch.stack([MAP, MAP]))
    with pytest.raises(ValueError, match="no pixel that counts in image 1"):
        metric(torch.stack([MAP, MAP]), torch.stack([MAP, MAP + 255]), ignore_index=255)
    with pytest.raises(ValueError, match="images of 0 x 4 pixels"):
        metric(MAP[:0], MAP[:0])


@pytest.mark.parametrize(
    "metric", [compactness, size_regularity, lambda labels, valid: explained_variation(labels, MAP[None], valid)]
)
def test_images_without_valid_pixels_are_refused(metric):
    with pytest.raises(ValueError, match="no pixel that counts in image 0"):
        metric(MAP, MAP.bool())


@pytest.mark.parametrize("metric", [boundary_recall, boundary_precision])
def test_bad_radius_is_refused(metric):
    with pytest.raises(TypeError, match="float for radius, expected an int"):
        metric(MAP, MAP, 1.5)
    with pytest.raises(ValueError, match="radius=-1, expected at least 0"):
        metric(MAP, MAP, -1)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="form='boundary', expected one of 'np', 'levin', 'asa'"):
        undersegmentation_error(MAP, MAP, "boundary")
    with pytest.raises(ValueError, match=r"shape \[3, 4\] for image, expected \[\*, 3, 4\]"):
        explained_variation(MAP, MAP)
    with pytest.raises(ValueError, match=r"shape \[2, 3, 4\] for image, expected \[1, \*, 3, 4\]"):
        explained_variation(MAP[None], torch.zeros(2, 3, 4))
    with pytest.raises(TypeError, match="bool for image"):
        explained_variation(MAP, torch.zeros(1, 3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 NaN or infinite values in image"):
        explained_variation(MAP, torch.tensor([float("nan"), float("inf"), *[0.0] * 10]).view(1, 3, 4))
    half: Any = 2.5
    with pytest.raises(TypeError, match="float for num_segments, expected an int"):
        count_error(MAP, half)
    with pytest.raises(TypeError, match="float32 for num_segments"):
        count_error(MAP, torch.tensor(2.0))
    with pytest.raises(ValueError, match="num_segments=0, expected at least 1"):
        count_error(MAP, 0)
    with pytest.raises(ValueError, match="num_segments=0, expected at least 1"):
        count_error(torch.stack([MAP, MAP]), torch.tensor([3, 0]))
    with pytest.raises(ValueError, match=r"shape \[3\] for num_segments, expected \[2\]"):
        count_error(torch.stack([MAP, MAP]), torch.tensor([3, 3, 3]))
    with pytest.raises(ValueError, match="labels on cpu, target on meta"):
        boundary_recall(MAP, MAP.to("meta"))
