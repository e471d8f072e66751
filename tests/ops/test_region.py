"""Region statistics against scikit-image's regionprops, numpy, plain loops and closed forms."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops, regionprops_table
from torch.autograd import gradcheck
from torch.testing import assert_close

from graphseg.ops import region
from graphseg.ops._labels import stack_labels
from graphseg.ops.region import PLANAR, SHAPE, VALUES, region_statistics
from tests.label_maps import DEGENERATE, consecutive, label_maps, photographs
from tests.reference import region as reference

ROUNDING: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}  # of float64, sums in another order
EXACT = ("area", "bounding_box", "min", "max", "histogram", "label_counts")
DTYPES = [torch.uint8, torch.uint16, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64]
PHOTOGRAPHS = ["astronaut, SLIC", "coffee, Felzenszwalb", "chelsea, SLIC"]


@pytest.fixture(params=["kernel", "tensors"])
def form(request, monkeypatch):
    """Both implementations, on the CPU."""
    if request.param == "tensors":
        use_tensors(monkeypatch)
    return request.param


def use_tensors(monkeypatch):
    monkeypatch.setattr(region, "_find_runs", lambda stack: None)
    monkeypatch.setattr(region, "_perimeter_counts", region._perimeter_counts_tensor)


def as_tensor(array, device="cpu"):
    return torch.from_numpy(array.copy()).to(device)


def noise(seed=0):
    return np.random.default_rng(seed)


def picture(labels, channels=3, seed=0, dtype=torch.float64):
    """Random values `[C, *labels.shape]`, whole numbers from 0 to 199 or their fractions of 199."""
    values = torch.from_numpy(noise(seed).integers(0, 200, (channels, *labels.shape)))
    return (values / 199).to(dtype) if dtype.is_floating_point else values.to(dtype)


def assert_same_axis(angle, other, apart):
    """Orientations are equal up to half turns where `apart`; elsewhere the region has no major axis."""
    assert bool((np.abs(angle) <= pi / 2).all())
    assert_close(np.sin(angle - other)[apart], np.zeros(int(apart.sum())), rtol=0, atol=1e-6)


def assert_same(out, expected):
    assert set(out) == set(expected)
    for name, value in expected.items():
        got, want = out[name].cpu(), value.cpu()
        assert got.dtype == want.dtype, name
        if name == "orientation":
            assert_same_axis(got.numpy(), want.numpy(), expected["eccentricity"].cpu().numpy() > 1e-3)
        elif name == "eccentricity":
            assert_close(got.square(), want.square(), **ROUNDING)  # its slope is infinite at 0
        elif name == "axis_lengths":
            assert_close(got.square(), want.square(), **ROUNDING)
        else:
            assert_close(got, want, **ROUNDING)


def assert_joined(out, singles):
    """Bit for bit, but for the last digit of a function whose vector form differs from its scalar form."""
    for name, value in out.items():
        joined = torch.cat([single[name] for single in singles])
        last_digit = 1e-15 if name == "orientation" else 0.0
        assert_close(value, joined, rtol=last_digit, atol=0)


def check_shape(labels, spacing=(1.0, 1.0), valid=None, volume=False, device="cpu"):
    """Everything about shape against the loop."""
    out = region_statistics(
        as_tensor(labels, device),
        spacing=spacing,
        valid=None if valid is None else as_tensor(valid, device),
        volume=volume,
    )
    assert all(v.device.type == torch.device(device).type for v in out.values())
    found = {name: value.cpu().numpy() for name, value in out.items()}
    N = len(found["area"])
    if N == 0:
        return
    expected = reference.shape_statistics(labels, spacing, N, valid)
    assert found["bounding_box"].dtype == np.int64
    for name in SHAPE:
        power = 2 if name == "axis_lengths" else 1
        assert_close(found[name] ** power, expected[name] ** power, check_dtype=False, **ROUNDING)
    if not volume:
        assert_close(found["eccentricity"] ** 2, expected["eccentricity"] ** 2, **ROUNDING)
        # Each invariant beside that power of the first which its moments multiply to: free of scale.
        first = np.where(expected["hu"][:, :1] > 0, expected["hu"][:, :1], 1) ** [1, 2, 3, 3, 6, 4, 6]
        assert_close(found["hu"] / first, expected["hu"] / first, **ROUNDING)
        across = np.arctan2(expected["direction"][:, 0], expected["direction"][:, 1])
        assert_same_axis(found["orientation"], across, expected["elongation"] > 1e-6)


# Shape


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 2.5), (3.0, 0.5)], ids=str)
@pytest.mark.parametrize("name", DEGENERATE)
def test_shape_of_degenerate_maps_is_the_loop(name, spacing, form, device):
    check_shape(DEGENERATE[name], spacing, device=device)


@settings(max_examples=60, deadline=None)
@given(labels=label_maps(), spacing=st.tuples(*[st.floats(0.1, 10)] * 2), seed=st.integers(0, 999))
def test_shape_of_any_map(labels, spacing, seed):
    check_shape(labels)
    valid = noise(seed).random(labels.shape) < 0.7
    present = np.unique(labels[valid])
    check_shape(np.where(valid, np.searchsorted(present, labels), -7), spacing, valid)


@settings(max_examples=30, deadline=None)
@given(labels=label_maps(dims=3, largest=5), spacing=st.tuples(*[st.floats(0.1, 10)] * 3))
def test_shape_of_any_volume(labels, spacing):
    check_shape(labels, spacing, volume=True)


def scikit_shape(labels, spacing=(1.0, 1.0)):
    """regionprops, with coordinates as x before y."""
    names = ["area", "axis_major_length", "axis_minor_length", "bbox", "centroid"]
    if labels.ndim == 2:
        names += ["orientation", "eccentricity"]
        names += ["perimeter"] if len(set(spacing)) == 1 else []
        names += ["moments_hu"] if set(spacing) == {1.0} else []
    rows = regionprops(labels + 1, spacing=spacing)
    found = {name: np.array([row[name] for row in rows], float) for name in names}
    n = labels.ndim
    found["bounding_box"] = np.hstack([found["bbox"][:, :n][:, ::-1], found.pop("bbox")[:, n:][:, ::-1]])
    found["centroid"] = found["centroid"][:, ::-1]
    axes = found.pop("axis_major_length"), found.pop("axis_minor_length")
    found["axis_lengths"] = np.stack(axes, 1)
    return found


def check_scikit_shape(labels, spacing):
    out = region_statistics(as_tensor(labels), spacing=spacing, volume=labels.ndim == 3)
    expected = scikit_shape(labels, spacing)
    if "moments_hu" in expected:
        expected["hu"] = expected.pop("moments_hu")
    if labels.ndim == 2:
        apart = expected["axis_lengths"] @ np.array([1, -1]) > 1e-6
        assert_same_axis(out["orientation"].numpy(), expected.pop("orientation"), apart)
    for name, value in expected.items():
        # Square roots of differences that cancel: compare their squares.
        power = 2 if name in ("axis_lengths", "eccentricity") else 1
        assert_close(out[name].double().numpy() ** power, value**power, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 2.5), (3.0, 0.5)], ids=str)
@pytest.mark.parametrize("name", DEGENERATE)
def test_shape_is_scikit_images(name, spacing, form):
    check_scikit_shape(DEGENERATE[name], spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)], ids=str)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_shape_in_photographs_is_scikit_images(name, spacing, form):
    check_scikit_shape(photographs()[name][1], spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)], ids=str)
def test_shape_in_volumes_is_scikit_images(spacing, form):
    labels = consecutive(noise().integers(0, 9, (3, 4, 5)).repeat(3, 0).repeat(2, 1))
    check_scikit_shape(labels, spacing)


@settings(max_examples=40, deadline=None)
@given(labels=label_maps())
def test_perimeter_of_any_map_is_scikit_images(labels):
    out = region_statistics(as_tensor(labels), statistics=["perimeter"])["perimeter"]
    expected = [row.perimeter for row in regionprops(labels + 1)]
    assert_close(out.tolist(), [float(e) for e in expected])


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (6, 1), (5, 9), (9, 5), (8, 8)])
def test_rectangles_in_closed_form(height, width, form):
    sy, sx = 0.5, 3.0
    labels = np.zeros((height + 6, width + 9), np.int64)
    labels[2 : 2 + height, 4 : 4 + width] = 1
    out: dict[str, Any] = {k: v[1].tolist() for k, v in region_statistics(as_tensor(labels), spacing=(sy, sx)).items()}
    tall, wide = sqrt(height**2 - 1) * sy, sqrt(width**2 - 1) * sx  # 4 sigma of n steps is 4 sqrt((n^2 - 1) / 12)
    assert out["area"] == pytest.approx(height * width * sy * sx)
    assert out["centroid"] == pytest.approx([(4 + (width - 1) / 2) * sx, (2 + (height - 1) / 2) * sy])
    assert out["bounding_box"] == [4, 2, 4 + width, 2 + height]
    assert out["axis_lengths"] == pytest.approx([c * 4 / sqrt(12) for c in sorted((tall, wide), reverse=True)])
    if tall != wide:
        assert abs(out["orientation"]) == pytest.approx(pi / 2 if wide > tall else 0)
        ratio = min(tall, wide) / max(tall, wide)
        assert out["eccentricity"] == pytest.approx(sqrt(1 - ratio**2))
    assert out["hu"][2:] == pytest.approx([0] * 5, abs=1e-12)  # symmetric: no third moments
    if height > 1 and width > 1:
        plain = region_statistics(as_tensor(labels), spacing=2.0, statistics=["perimeter"])["perimeter"][1]
        assert float(plain) == pytest.approx(2 * (2 * (height - 1) + 2 * (width - 1)))


def test_disc_in_closed_form(form):
    radius = 40.3
    y, x = np.indices((100, 110))
    labels = ((y - 48) ** 2 + (x - 55) ** 2 <= radius**2).astype(np.int64)
    out = {k: v[1].numpy() for k, v in region_statistics(as_tensor(labels), spacing=0.5).items()}
    assert out["area"] == pytest.approx(pi * radius**2 / 4, rel=5e-3)
    assert out["centroid"] == pytest.approx([27.5, 24], abs=1e-12)
    assert out["axis_lengths"] == pytest.approx([radius, radius], rel=5e-3)
    assert out["eccentricity"] < 0.05
    assert out["perimeter"] == pytest.approx(pi * radius, rel=0.06)
    assert out["hu"][0] == pytest.approx(1 / (2 * pi), rel=1e-3)  # mu_20 + mu_02 = area^2 / (2 pi)
    assert out["hu"][1:] == pytest.approx([0] * 6, abs=1e-9)


def test_ball_in_closed_form(form):
    z, y, x = np.indices((30, 32, 60))
    labels = ((z - 15) ** 2 / 12**2 + (y - 16) ** 2 / 12**2 + (x - 30) ** 2 / 24**2 <= 1).astype(np.int64)
    out = region_statistics(as_tensor(labels), volume=True)
    assert set(out) == set(SHAPE)
    assert float(out["area"][1]) == pytest.approx(4 / 3 * pi * 12 * 12 * 24, rel=1e-2)
    assert out["axis_lengths"][1].tolist() == pytest.approx([48, 24], rel=5e-3)
    assert out["centroid"][1].tolist() == pytest.approx([30, 16, 15], abs=1e-12)
    round_again = region_statistics(as_tensor(labels), volume=True, spacing=(1, 1, 0.5))
    assert round_again["axis_lengths"][1].tolist() == pytest.approx([24, 24], rel=1e-2)


@pytest.mark.parametrize("angle", [-75, -45, -10, 0, 20, 45, 60, 90])
def test_orientation_turns_with_the_bar(angle, form):
    y, x = np.indices((81, 81)) - 40
    t = np.deg2rad(angle)  # from the row axis (down) towards x
    along, across = y * np.cos(t) + x * np.sin(t), -y * np.sin(t) + x * np.cos(t)
    labels = ((np.abs(along) < 35) & (np.abs(across) < 5)).astype(np.int64)
    found = float(region_statistics(as_tensor(labels), statistics=["orientation"])["orientation"][1])
    assert abs(np.sin(found - t)) < 0.03


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_squares_have_the_orientation_of_scikit_image(size, form):
    labels = np.pad(np.ones((size, size), np.int64), 3)
    found = region_statistics(as_tensor(labels), statistics=["orientation", "eccentricity"])
    assert float(found["orientation"][1]) == regionprops(labels)[0].orientation == -pi / 4
    assert float(found["eccentricity"][1]) == 0


def test_hu_does_not_see_turns_sizes_or_places(form):
    shape = np.zeros((12, 14), np.int64)
    shape[2:10, 3:6] = shape[7:10, 3:12] = 1
    hu = region_statistics(as_tensor(shape), statistics=["hu"])["hu"][1]
    for turns in (1, 2, 3):
        turned = region_statistics(as_tensor(np.rot90(shape, turns)), statistics=["hu"])["hu"][1]
        assert_close(turned, hu, **ROUNDING)
    moved = region_statistics(as_tensor(np.pad(shape, ((0, 50), (90, 0)))), statistics=["hu"])["hu"][1]
    assert_close(moved, hu, **ROUNDING)
    mirrored = region_statistics(as_tensor(shape[:, ::-1]), statistics=["hu"])["hu"][1]
    assert_close(mirrored, hu * torch.tensor([1, 1, 1, 1, 1, 1, -1]), **ROUNDING)
    assert abs(float(hu[6])) > 1e-9
    scaled = region_statistics(as_tensor(shape), statistics=["hu"], spacing=0.37)["hu"][1]
    assert_close(scaled, hu, **ROUNDING)
    # Pixels twice as tall as wide stand for two pixels each; a finer grid shows that in the limit.
    tall = region_statistics(as_tensor(shape.repeat(20, 0).repeat(20, 1)), spacing=(2, 1))["hu"][1]
    square = region_statistics(as_tensor(shape.repeat(40, 0).repeat(20, 1)))["hu"][1]
    assert_close(tall, square, rtol=1e-3, atol=1e-7)


# Values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4, 200])
def test_values_are_the_loop(channels, dtype, form, device):
    for name in ("1x1", "region per pixel", "pieces"):
        labels = DEGENERATE[name]
        image = picture(labels, channels, dtype=dtype)
        out = region_statistics(as_tensor(labels, device), image.to(device), statistics=VALUES, bins=5)
        N = labels.max() + 1
        for key, value in reference.value_statistics(labels, image.numpy(), N).items():
            assert out[key].dtype == torch.float64
            assert_close(out[key].cpu().numpy(), value, **ROUNDING)
        assert out["histogram"].dtype == torch.int64
        assert out["histogram"].sum(2).eq(torch.bincount(as_tensor(labels, device).flatten())[:, None]).all()


@settings(max_examples=60, deadline=None)
@given(labels=label_maps(), channels=st.integers(1, 4), seed=st.integers(0, 999))
def test_values_of_any_map(labels, channels, seed):
    image = picture(labels, channels, seed)
    valid = noise(seed).random(labels.shape) < 0.7
    dense = np.where(valid, np.searchsorted(np.unique(labels[valid]), labels), 2**40)
    image[:, ~torch.from_numpy(valid)] = torch.nan
    out = region_statistics(as_tensor(dense), image, valid=as_tensor(valid), bins=6, value_range=(0.1, 0.85))
    N = len(np.unique(labels[valid]))
    assert all(len(value) == N for value in out.values())
    for key, value in reference.value_statistics(dense, image.numpy(), N, valid).items():
        assert_close(out[key].numpy(), value, **ROUNDING)
    counts = reference.histograms(dense, image.numpy(), N, 6, (0.1, 0.85), valid)
    assert np.array_equal(out["histogram"].numpy(), counts)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_values_in_photographs_are_scikit_images(name, form):
    image, labels = photographs()[name]
    out = region_statistics(as_tensor(labels), as_tensor(image.transpose(2, 0, 1)))
    table = regionprops_table(
        labels + 1,
        image.astype(float),
        properties=("intensity_mean", "intensity_std", "intensity_min", "intensity_max"),
    )
    for key in ("mean", "std", "min", "max"):
        expected = np.stack([table[f"intensity_{key}-{c}"] for c in range(3)], 1)
        assert_close(out[key].numpy(), expected, **ROUNDING)
    counts = reference.histograms(labels, image.transpose(2, 0, 1), labels.max() + 1, 8, (0, 256))
    assert np.array_equal(out["histogram"].numpy(), counts)


def test_values_of_a_hyperspectral_stack(form):
    _, labels = photographs()["chelsea, SLIC"]
    image = picture(labels, 200, dtype=torch.float32)
    out = region_statistics(as_tensor(labels), image, statistics=["mean", "max"])
    for key, value in reference.value_statistics(labels, image.numpy(), labels.max() + 1).items():
        if key in out:
            assert_close(out[key].numpy(), value, **ROUNDING)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16], ids=str)
def test_bright_integers_keep_the_spread(dtype, form):
    _, labels = photographs()["chelsea, SLIC"]
    top = torch.iinfo(dtype).max
    levels = noise().integers(top - 5, top + 1, (2, *labels.shape))
    levels[1] = noise().integers(0, top + 1, labels.shape)
    image = torch.from_numpy(levels).to(dtype)
    out = region_statistics(as_tensor(labels), image, statistics=["mean", "std", "min", "max"])
    for key, value in reference.value_statistics(labels, levels, labels.max() + 1).items():
        assert_close(out[key].numpy(), value, rtol=1e-12, atol=0)
    flat = image.clone()
    flat[:] = top
    assert not region_statistics(as_tensor(labels), flat)["std"].any()


def test_half_precision_and_expanded_images(form):
    labels = as_tensor(DEGENERATE["pieces"])
    image = picture(DEGENERATE["pieces"], 1, dtype=torch.float32).bfloat16()
    assert_same(region_statistics(labels, image), region_statistics(labels, image.double()))
    wide = region_statistics(labels, image.expand(3, -1, -1), statistics=VALUES)
    narrow = region_statistics(labels, image, statistics=VALUES)
    for name, value in narrow.items():
        assert torch.equal(wide[name], value.expand(-1, 3, *value.shape[2:]))


def test_large_offset_keeps_the_spread(form):
    _, labels = photographs()["chelsea, SLIC"]
    image = torch.from_numpy(noise().random((2, *labels.shape)))
    small = region_statistics(as_tensor(labels), image, statistics=["mean", "std"])
    large = region_statistics(as_tensor(labels), image + 1e6, statistics=["mean", "std"])
    assert_close(large["std"], small["std"], rtol=1e-6, atol=0)
    assert_close(large["mean"] - 1e6, small["mean"], rtol=1e-8, atol=0)


def test_large_offset_after_an_odd_first_pixel_keeps_the_spread(form):
    labels = torch.zeros(300, 300, dtype=torch.int64)
    image = 1e6 + torch.from_numpy(noise().random((1, 300, 300)))
    image[0, 0, 0] = 0
    out = region_statistics(labels, image, statistics=["std"])["std"]
    assert float(out) == pytest.approx(float(image.numpy().std()), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_constant_regions_have_no_spread(dtype, form):
    _, labels = photographs()["coffee, Felzenszwalb"]
    levels = torch.from_numpy(noise().random(labels.max() + 1)).to(dtype)
    out = region_statistics(as_tensor(labels), levels[as_tensor(labels)][None], statistics=["mean", "std", "min"])
    assert not out["std"].any()
    assert torch.equal(out["mean"][:, 0], levels.double()) and torch.equal(out["min"][:, 0], levels.double())


@pytest.mark.parametrize(
    "dtype, low, high",
    [
        (torch.uint8, 0, 256),
        (torch.int8, -128, 128),
        (torch.uint16, 0, 65536),
        (torch.int16, -(2**15), 2**15),
        (torch.float32, 0, 1),
    ],
    ids=str,
)
def test_default_range_of_the_histogram(dtype, low, high, form):
    labels = DEGENERATE["four corners"]
    top = high if dtype == torch.float32 else high - 1
    image = torch.from_numpy(noise().uniform(low, top, (2, *labels.shape))).to(dtype)
    image[:, 0, 0], image[:, -1, -1] = low, top  # the ends belong to the end bins
    out = region_statistics(as_tensor(labels), image, statistics=["histogram"], bins=16)["histogram"]
    assert np.array_equal(out.numpy(), reference.histograms(labels, image.numpy(), 4, 16, (low, high)))
    assert int(out[0, 0, 0]) >= 1 and int(out[3, 0, 15]) >= 1


def test_values_outside_the_range_fall_into_the_end_bins(form):
    image = torch.tensor([[[-5.0, 0.0, 0.24, 0.25, 0.999, 1.0, 1e30, -1e30]]])
    out = region_statistics(torch.zeros(1, 8, dtype=torch.int64), image, bins=4, statistics=["histogram"])
    assert out["histogram"].tolist() == [[[4, 1, 0, 3]]]


def test_image_without_channels_is_empty(form):
    out = region_statistics(as_tensor(DEGENERATE["star"]), torch.zeros(0, 13, 17), bins=3)
    assert out["mean"].shape == (49, 0) and out["histogram"].shape == (49, 0, 3)


# Label counts


@settings(max_examples=60, deadline=None)
@given(
    labels=label_maps(),
    classes=st.integers(1, 5),
    ignore=st.sampled_from([None, 0, 255, -1, -100]),
    seed=st.integers(0, 999),
)
def test_label_counts_of_any_map(labels, classes, ignore, seed):
    target = noise(seed).integers(0, classes, labels.shape)
    if ignore is not None:
        target = np.where(noise(seed + 1).random(labels.shape) < 0.3, ignore, target)
    out = region_statistics(
        as_tensor(labels),
        target=as_tensor(target),
        num_classes=classes,
        ignore_index=ignore,
        statistics=["label_counts"],
    )["label_counts"]
    expected = reference.label_counts(
        labels, target, labels.max() + 1, classes, {ignore} if ignore is not None else set()
    )
    assert out.dtype == torch.int64
    assert np.array_equal(out.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64], ids=str)
def test_label_counts_take_any_integers(dtype, form, device):
    labels = DEGENERATE["pieces"]
    target = noise().integers(0, 4, labels.shape)
    target[2] = 255
    given_target = as_tensor(target).to(dtype).to(device)
    out = region_statistics(
        as_tensor(labels, device).to(torch.uint8), target=given_target, num_classes=4, ignore_index=255
    )
    assert np.array_equal(out["label_counts"].cpu().numpy(), reference.label_counts(labels, target, 3, 4, {255}))
    assert "mean" not in out


def test_strange_classes_are_refused(form):
    labels = torch.tensor([[0, 0, 1]])
    message = "got label 9 in target, expected 0 to 2"
    with pytest.raises(ValueError, match=message + "$"):
        region_statistics(labels, target=torch.tensor([[0, 9, 1]]), num_classes=3)
    with pytest.raises(ValueError, match=message + " or ignore_index=255"):
        region_statistics(labels, target=torch.tensor([[255, 9, 1]]), num_classes=3, ignore_index=255)
    with pytest.raises(ValueError, match="got label -1 in target, expected 0 to 2"):
        region_statistics(labels, target=torch.tensor([[0, -1, 1]]), num_classes=3)
    # Where there is no region, nobody looks.
    out = region_statistics(
        labels,
        target=torch.tensor([[0, 9, 1]]),
        num_classes=3,
        valid=torch.tensor([[True, False, True]]),
    )
    assert out["label_counts"].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_purity_adds_up_to_areas():
    for _, labels in photographs().values():
        target = labels[::-1] % 7
        out = region_statistics(as_tensor(labels), target=as_tensor(target), num_classes=7)
        assert torch.equal(out["label_counts"].sum(1).double(), out["area"])
        assert np.array_equal(out["label_counts"].sum(0).numpy(), np.bincount(target.ravel(), minlength=7))


# Both forms, batches, types, memory layout


def everything(labels, image, target, **options):
    return region_statistics(labels, image, target=target, num_classes=5, ignore_index=4, **options)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_kernel_is_the_tensor_form(name, device, monkeypatch):
    image, labels = photographs()[name]
    given_image = as_tensor(image.transpose(2, 0, 1))
    target = as_tensor(labels[:, ::-1] % 5)
    expected = everything(as_tensor(labels), given_image, target, spacing=1.5)
    if device.type == "cpu":
        use_tensors(monkeypatch)
    out = everything(as_tensor(labels, device), given_image.to(device), target.to(device), spacing=1.5)
    assert_same(out, expected)
    for name in EXACT:
        assert torch.equal(out[name].cpu(), expected[name])


@settings(max_examples=40, deadline=None)
@given(labels=label_maps(), seed=st.integers(0, 999))
def test_kernel_is_the_tensor_form_on_any_map(labels, seed):
    image, target = picture(labels, 2, seed), as_tensor(noise(seed).integers(0, 5, labels.shape))
    expected = everything(as_tensor(labels), image, target)
    with pytest.MonkeyPatch.context() as patch:
        use_tensors(patch)
        out = everything(as_tensor(labels), image, target)
    assert_same(out, expected)
    stack = stack_labels(as_tensor(labels), False, None)
    assert torch.equal(region._perimeter_counts(stack), region._perimeter_counts_tensor(stack))


def test_batch_is_singles(form, device):
    maps = [consecutive(np.tile(m, (8, 9))[:8, :9]) for m in DEGENERATE.values()]
    labels = as_tensor(np.stack(maps), device)
    image = torch.stack([picture(m, 2, seed) for seed, m in enumerate(maps)]).to(device)
    target = as_tensor(noise().integers(0, 5, labels.shape), device)
    out = everything(labels, image, target, spacing=2.0)
    singles = [everything(*row, spacing=2.0) for row in zip(labels, image, target, strict=True)]
    assert_joined(out, singles)


def test_batch_of_volumes_is_singles(form):
    maps = [consecutive(noise(seed).integers(0, 5, (3, 4, 5))) for seed in range(3)]
    labels, image = as_tensor(np.stack(maps)), torch.stack([picture(m, 2, seed=4) for m in maps])
    out = region_statistics(labels, image, volume=True, spacing=(3, 2, 1))
    singles = [region_statistics(a, b, volume=True, spacing=(3, 2, 1)) for a, b in zip(labels, image, strict=True)]
    assert set(out) == {*SHAPE, *VALUES}
    assert_joined(out, singles)
    for a, b, single in zip(maps, image, singles, strict=True):
        for name, expected in reference.value_statistics(a, b.numpy(), a.max() + 1).items():
            assert_close(single[name].numpy(), expected, **ROUNDING)


def test_volume_of_one_slice_is_the_image(form):
    labels = DEGENERATE["spiral"]
    image = picture(labels)
    flat = region_statistics(as_tensor(labels), image)
    solid = region_statistics(as_tensor(labels)[None], image[:, None], volume=True)
    for name in ("area", *VALUES):
        assert torch.equal(flat[name], solid[name])
    assert torch.equal(solid["centroid"][:, :2], flat["centroid"]) and not solid["centroid"][:, 2].any()
    assert torch.equal(solid["bounding_box"][:, [0, 1, 3, 4]], flat["bounding_box"])
    assert solid["bounding_box"][:, [2, 5]].tolist() == [[0, 1]] * 2


def test_threads_do_not_change_the_result():
    labels = as_tensor(np.stack([consecutive(noise(s).integers(0, 9, (20, 30))) for s in range(7)]))
    image, target = torch.rand(7, 3, 20, 30), labels % 5
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(everything(labels, image, target))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


def test_memory_layout_does_not_matter(form):
    image, labels = photographs()["chelsea, SLIC"]
    target = labels % 5
    expected = everything(as_tensor(labels), as_tensor(image.transpose(2, 0, 1)), as_tensor(target))
    channels_last = as_tensor(image).permute(2, 0, 1)
    flipped = as_tensor(labels[:, ::-1]).to(torch.uint8).flip(1)
    out = everything(flipped, channels_last, as_tensor(target.T).T)
    assert_same(out, expected)
    batch = everything(flipped[None], channels_last[None], as_tensor(target.T).T[None])
    assert_same(batch, expected)


def test_inputs_are_not_changed():
    labels, image = torch.tensor([[0, 5, 1]]), torch.tensor([[[1.0, torch.nan, 3.0]]])
    region_statistics(labels, image, valid=labels != 5)
    assert labels.tolist() == [[0, 5, 1]] and image[0, 0, 0] == 1 and bool(image[0, 0, 1].isnan())


@pytest.mark.parametrize("shape", [(0, 4, 5), (0, 5), (5, 0), (2, 0, 5), (2, 5, 0), (0, 0, 0)])
def test_maps_without_pixels_have_no_regions(shape, form, device):
    labels = torch.zeros(shape, dtype=torch.int64, device=device)
    image = torch.zeros(*shape[:-2], 3, *shape[-2:], device=device)
    empty = everything(labels, image, labels)
    full = everything(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3, 2, 2), torch.zeros(2, 2).long())
    assert list(empty) == list(full)
    for name, value in full.items():
        assert empty[name].shape == (0, *value.shape[1:]) and empty[name].dtype == value.dtype, name


@pytest.mark.parametrize("shape", [(0, 2, 4, 5), (0, 4, 5), (2, 3, 0, 5)])
def test_volumes_without_voxels_have_no_regions(shape, form):
    out = region_statistics(
        torch.zeros(shape, dtype=torch.int64), torch.zeros(*shape[:-3], 3, *shape[-3:]), volume=True
    )
    assert all(len(value) == 0 for value in out.values())
    assert out["centroid"].shape == (0, 3) and out["axis_lengths"].shape == (0, 2)


def test_images_may_have_no_region(form):
    labels = torch.arange(6).view(1, 2, 3).repeat(3, 1, 1)
    valid = torch.tensor([False, True, False]).view(3, 1, 1).expand(3, 2, 3)
    image = torch.where(valid, 1.0, torch.nan)[:, None]
    out = everything(labels, image, labels % 5, valid=valid)
    assert_same(out, everything(labels[1], image[1], labels[1] % 5))
    nothing = everything(labels, image, labels % 5, valid=torch.zeros_like(valid))
    assert all(len(value) == 0 for value in nothing.values())


# Gradients


def test_gradients_of_the_values(device):
    labels = as_tensor(DEGENERATE["pieces"], device)
    image = torch.rand(2, 7, 9, dtype=torch.float64, device=device, requires_grad=True)
    for name in ("mean", "std", "min", "max"):
        assert gradcheck(lambda x, name=name: region_statistics(labels, x, statistics=[name])[name], image)


def test_image_that_needs_a_gradient_gives_the_same_values(device):
    image, labels = photographs()["coffee, Felzenszwalb"]
    plain = (as_tensor(image.transpose(2, 0, 1), device) / 255).half()
    target = as_tensor(labels % 5, device)
    expected = everything(as_tensor(labels, device), plain, target)
    out = everything(as_tensor(labels, device), plain.clone().requires_grad_(), target)
    assert [name for name, value in out.items() if value.requires_grad] == ["mean", "std", "min", "max"]
    assert_same({k: v.detach() for k, v in out.items()}, expected)


def test_gradient_of_the_mean_in_closed_form(device):
    labels = as_tensor(DEGENERATE["two regions"], device)
    image = torch.rand(1, *labels.shape, device=device, requires_grad=True)
    region_statistics(labels, image, statistics=["mean"])["mean"][1].sum().backward()
    assert image.grad is not None and image.grad.dtype == image.dtype
    assert_close(image.grad[0], (labels == 1) / (labels == 1).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_at_constant_regions_are_finite(dtype, device):
    labels = as_tensor(DEGENERATE["four corners"], device)
    image = torch.full((1, 6, 6), 0.1, dtype=dtype, device=device, requires_grad=True)
    out = region_statistics(labels, image, statistics=["mean", "std", "min", "max"])
    assert not out["std"].any()
    out["std"].sum().backward(retain_graph=True)
    assert image.grad is not None and not image.grad.any()
    torch.cat(list(out.values())).sum().backward()
    assert bool(torch.isfinite(image.grad).all())


def test_gradient_of_left_out_pixels_is_zero(device):
    labels = torch.tensor([[0, 0, 1, 1]], device=device)
    image = torch.tensor([[[1.0, 2.0, torch.nan, 4.0]]], device=device, requires_grad=True)
    out = region_statistics(labels, image, valid=torch.tensor([[True, True, False, True]], device=device))
    (out["mean"].sum() + out["std"].sum() + out["max"].sum()).backward()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad[0, 0, 2] == 0


def test_no_grad_leaves_no_graph():
    image = torch.rand(1, 2, 2, requires_grad=True)
    with torch.no_grad():
        out = region_statistics(torch.zeros(2, 2, dtype=torch.int64), image)
    assert not any(value.requires_grad for value in out.values())


# Asking


def test_default_is_all_that_the_inputs_allow():
    labels, image = torch.zeros(3, 3, dtype=torch.int64), torch.rand(1, 3, 3)
    assert set(region_statistics(labels)) == {*SHAPE, *PLANAR}
    assert set(region_statistics(labels, spacing=(1, 2))) == {*SHAPE, *PLANAR} - {"perimeter"}
    assert set(region_statistics(labels, image)) == {*SHAPE, *PLANAR, *VALUES}
    assert set(region_statistics(labels, target=labels, num_classes=1)) == {*SHAPE, *PLANAR, "label_counts"}
    assert set(region_statistics(image.long(), volume=True)) == set(SHAPE)


@pytest.mark.parametrize("name", [*SHAPE, *PLANAR, *VALUES, "label_counts"])
def test_one_statistic_alone(name, form):
    labels = as_tensor(DEGENERATE["spiral"])
    image = picture(labels)
    out = everything(labels, image, labels, statistics=[name])
    assert list(out) == [name]
    assert torch.equal(out[name], everything(labels, image, labels)[name])


def test_order_is_that_of_the_request():
    names = ["max", "area", "hu"]
    out = region_statistics(torch.zeros(2, 2, dtype=torch.int64), torch.rand(1, 2, 2), statistics=names)
    assert list(out) == names
    assert region_statistics(torch.zeros(2, 2, dtype=torch.int64), statistics=()) == {}


def test_statistics_are_refused():
    labels = torch.zeros(2, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="got statistic='size', expected one of 'area', 'centroid'"):
        region_statistics(labels, statistics=["size"])
    with pytest.raises(ValueError, match="statistic 'mean' needs an image"):
        region_statistics(labels, statistics=["mean"])
    with pytest.raises(ValueError, match="statistic 'label_counts' needs a target"):
        region_statistics(labels, statistics=["label_counts"])
    with pytest.raises(ValueError, match=r"statistic 'perimeter' needs equal spacing .*got \(1\.0, 2\.0\)"):
        region_statistics(labels, statistics=["perimeter"], spacing=(1, 2))
    with pytest.raises(ValueError, match="statistic 'hu' needs an image, not a volume"):
        region_statistics(labels[None], statistics=["hu"], volume=True)


@pytest.mark.parametrize("spacing", [0, -1.0, (1, 2, 3), (1,), (1, 0), (1, float("nan")), float("inf")], ids=str)
def test_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match=r"got spacing .*, expected one positive number or 2"):
        region_statistics(torch.zeros(2, 2, dtype=torch.int64), spacing=spacing)


def test_labels_are_refused():
    with pytest.raises(TypeError, match=r"got dtype torch\.float32 for labels, expected an integer dtype"):
        region_statistics(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="got labels up to 2 in image 0 but no pixel of label 1"):
        region_statistics(torch.tensor([[0, 2]]))
    with pytest.raises(ValueError, match=r"got shape \[4\] for labels, expected \[H, W\] or \[B, H, W\]"):
        region_statistics(torch.zeros(4, dtype=torch.int64))


def test_images_are_refused():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    array: Any = np.zeros((1, 2, 3))
    with pytest.raises(TypeError, match=r"got ndarray for image, expected a torch\.Tensor"):
        region_statistics(labels, array)
    for shape in [(2, 3), (1, 3, 2), (1, 1, 2, 3)]:
        with pytest.raises(ValueError, match=r"got shape \[.*\] for image, expected \[\*, 2, 3\]"):
            region_statistics(labels, torch.rand(shape))
    with pytest.raises(ValueError, match=r"got shape \[1, 2, 3\] for image, expected \[2, \*, 2, 3\]"):
        region_statistics(labels.repeat(2, 1, 1), torch.rand(1, 2, 3))
    for dtype in (torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"got dtype {dtype} for image, expected an integer or floating"):
            region_statistics(labels, torch.zeros(1, 2, 3, dtype=dtype))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("needs_grad", [False, True])
def test_values_that_are_not_finite_are_refused(bad, needs_grad, device):
    image = torch.rand(3, 2, 3, device=device)
    image[1, 0, 2] = bad
    labels = torch.zeros(2, 3, dtype=torch.int64, device=device)
    with pytest.raises(ValueError, match="got 1 NaN or infinite values in image, expected finite values"):
        region_statistics(labels, image.requires_grad_(needs_grad))


def test_options_of_the_histogram_are_refused():
    labels, image = torch.zeros(2, 2, dtype=torch.int64), torch.rand(1, 2, 2)
    with pytest.raises(ValueError, match="got bins=0, expected at least 1"):
        region_statistics(labels, image, bins=0)
    for value_range in [(1.0, 1.0), (2, 1), (0, float("nan")), (-float("inf"), 1)]:
        with pytest.raises(ValueError, match=r"got value_range \(.*\), expected finite values, the first smaller"):
            region_statistics(labels, image, value_range=value_range)


def test_targets_are_refused():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"got dtype torch\.float32 for target, expected an integer dtype"):
        region_statistics(labels, target=labels.float(), num_classes=1)
    with pytest.raises(ValueError, match=r"got shape \[3, 2\] for target, expected \[2, 3\]"):
        region_statistics(labels, target=labels.T, num_classes=1)
    with pytest.raises(ValueError, match="num_classes=None, expected the number of classes"):
        region_statistics(labels, target=labels)
    with pytest.raises(ValueError, match="got num_classes=0, expected at least 1"):
        region_statistics(labels, target=labels, num_classes=0)
