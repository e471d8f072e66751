"""SLIC at one scale and several, and the regular grid: against plain loops, scipy, scikit-image, and what must hold."""

from __future__ import annotations

import contextlib
import itertools
import math
import tracemalloc
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import data
from skimage.color import rgb2lab
from skimage.segmentation import slic as scikit_slic
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from graphseg.ops import multiscale_slic, regular_grid, slic, superpixel
from graphseg.ops._regions import merge
from graphseg.ops._slic import SlicOptions, split
from graphseg.ops._slic_tensor import find_regions_tensor
from graphseg.ops._stack import ImageStack, grid_of, read_spacing
from graphseg.ops.color import LabTables
from tests.reference import slic as reference

Array = np.ndarray[Any, Any]

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "coins")


@cache
def photograph(name: str = "astronaut", step: int = 4) -> Tensor:
    """Every `step`-th pixel of a photograph, uint8 `[3, H, W]` (coins: `[1, H, W]`)."""
    pixels = getattr(data, name)()[::step, ::step]
    return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)))


@cache
def volume() -> Tensor:
    """A photograph that slides as it gets darker, `[3, 6, 24, 30]`."""
    photo = photograph("coffee", 2)
    return torch.stack([photo[:, 20 + 3 * z : 44 + 3 * z, 60:90] // (1 + z % 2) for z in range(6)], 1)


@contextlib.contextmanager
def tensor_form() -> Iterator[None]:
    """What serves a GPU, on any device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(superpixel, "find_regions", find_regions_tensor)
        yield


@pytest.fixture(params=["kernels", "tensors"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both implementations, on the CPU."""
    with tensor_form() if request.param == "tensors" else contextlib.nullcontext():
        yield request.param


def assert_superpixels(labels: Tensor, mask: Tensor | None = None) -> None:
    """Each superpixel hangs together; labels run from 0 by the first pixel of each, -1 exactly outside the mask."""
    assert labels.dtype == torch.int64
    found = labels.cpu().numpy()
    inside = np.ones(found.shape, bool) if mask is None else mask.cpu().numpy()
    assert np.array_equal(found >= 0, inside)
    assert np.array_equal(found[~inside], np.full((~inside).sum(), -1))
    ids, first = np.unique(found[inside], return_index=True)
    assert np.array_equal(ids, np.arange(ids.size))
    assert np.array_equal(first, np.sort(first))
    assert count_parts(found) == ids.size


def count_parts(labels: Array) -> int:
    """Connected parts, by scipy (its default joins what shares a side)."""
    boxes = ndimage.find_objects(labels + 1)
    return sum(ndimage.label(labels[box] == k)[1] for k, box in enumerate(boxes) if box is not None)


def sizes(labels: Tensor) -> Tensor:
    return torch.bincount(labels[labels >= 0])


def count(labels: Tensor) -> int:
    return int(labels.max()) + 1


def disc(height: int, width: int) -> Tensor:
    """An ellipse that touches all sides, with a hole."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    radius = x.square() + y.square()
    return (radius <= 1) & (radius > 0.02)


def islands(height: int, width: int, every: int = 3) -> Tensor:
    """Single pixels that do not touch."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[::every, ::every] = True
    return mask


# Against the loop

STEP = {torch.uint8: 257, torch.uint16: 1}  # of 65,536 levels


def expected(
    image: Tensor,
    num_segments: int,
    mask: Tensor | None = None,
    *,
    compactness: float = 10.0,
    iterations: int = 10,
    exact: bool = False,
    adaptive: bool = False,
    color: str | None = None,
    spacing: tuple[float, ...] | None = None,
    min_size: float = 0.3,
) -> Array:
    """`slic` of one image by loops, on the same grid, units and tables."""
    dims = image.dim() - 1
    lab = color == "lab" or (color is None and len(image) == 3)
    stack = ImageStack([image], [mask])
    size = read_spacing(spacing, dims)
    options = SlicOptions.of(lab, dims, compactness, iterations, adaptive, min_size, size)
    grid = grid_of(stack, 0, num_segments, size, exact)
    levels = image.double().numpy().reshape(len(image), *grid.shape)
    levels = np.floor(levels * STEP.get(image.dtype, 65535) + 0.5).astype(np.int64)
    tables = options.tables(len(image), torch.uint16)
    colours = (
        reference.lab_colours(levels, *tables)
        if isinstance(tables, LabTables)
        else reference.plain_colours(levels, options.scale)
    )
    positions = reference.positions(grid.shape, dims, grid.step, options.unit, options.spacing)
    inside = np.ones(grid.shape, bool) if mask is None else mask.numpy().reshape(grid.shape)
    found = reference.slic(
        np.concatenate([positions, colours]),
        dims,
        grid.cells,
        num_segments,
        iterations,
        inside,
        min_size,
        exact,
        options.unit,
        adaptive,
        options.start,
    )
    return found.reshape(image.shape[1:])


@st.composite
def problems(draw: st.DrawFn, dims: int, largest: int) -> tuple[Tensor, int, Tensor | None, dict[str, Any]]:
    """An image (of few colours or many, bright or faint), a count, perhaps a mask, and options."""
    shape = draw(hnp.array_shapes(min_dims=dims, max_dims=dims, min_side=1, max_side=largest))
    C = draw(st.sampled_from([1, 2, 3, 3, 7]))
    noise = np.random.default_rng(draw(st.integers(0, 999)))
    values = noise.integers(0, 256, (C, *shape)) if draw(st.booleans()) else 127 * noise.integers(0, 3, (C, *shape))
    kind, scale = draw(st.sampled_from([("u1", 1), ("u2", 257), ("f4", 1 / 255), ("f8", 1 / 255)]))
    faint = draw(st.sampled_from([1.0, 1.0, 1e-3]))
    image = torch.from_numpy((values * scale * faint).astype(kind))
    mask = torch.from_numpy(noise.random(shape) < 0.8) if draw(st.booleans()) else None
    pixels = math.prod(shape) if mask is None else int(mask.sum())
    options = {
        "compactness": draw(st.sampled_from([0.1, 1.0, 10.0, 40.0, 1e3, 1e6])),
        "iterations": draw(st.integers(1, 8)),
        "adaptive": draw(st.booleans()),
        "min_size": draw(st.sampled_from([0.0, 0.3, 1.0, 3.0])),
        "color": draw(st.sampled_from([None, "none"])),
        "spacing": draw(st.none() | st.tuples(*[st.floats(0.3, 4)] * dims)),
    }
    return image, draw(st.integers(1, max(pixels, 1))), mask, options


def check_against_loop(problem: tuple[Tensor, int, Tensor | None, dict[str, Any]], exact: bool) -> None:
    image, K, mask, options = problem
    if exact:
        inside = torch.ones(image.shape[1:], dtype=torch.bool) if mask is None else mask
        K = max(K, ndimage.label(inside.numpy())[1])
        if K == 0 or int(inside.sum()) < K:
            return
    found = slic([image], K, mask=[mask], exact=exact, **options)[0]
    assert np.array_equal(found.numpy(), expected(image, K, mask, exact=exact, **options))
    assert_superpixels(found, mask)
    assert not exact or count(found) == K
    with tensor_form():
        assert torch.equal(slic([image], K, mask=[mask], exact=exact, **options)[0], found)


@settings(max_examples=40)
@given(problem=problems(2, 11), exact=st.booleans())
def test_any_image_is_the_loop(problem, exact):
    check_against_loop(problem, exact)


@settings(max_examples=20)
@given(problem=problems(3, 5), exact=st.booleans())
def test_any_volume_is_the_loop(problem, exact):
    check_against_loop(problem, exact)


@pytest.mark.parametrize("C", [1, 3, 7])
@pytest.mark.parametrize("compactness", [0.0, 1e-3, 12.0, 1e6, 1e100])
def test_no_distance_is_too_large_for_its_integer(compactness, C):
    # Black and white side by side, in the longest cells there are.
    for shape in ((1, 40), (2, 23), (40, 1)):
        image = torch.randint(0, 2, (C, *shape)).double()
        for K in (1, 2, 7):
            assert np.array_equal(slic(image, K, compactness).numpy(), expected(image, K, compactness=compactness))


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1)], ids=str)
def test_no_place_is_too_far_for_its_integer(shape):
    image = torch.randint(0, 2, (1, *shape)).double()  # cells of 667 pixels in a row
    labels = slic(image, 3, 1e6, iterations=3)
    assert np.array_equal(labels.numpy(), expected(image, 3, compactness=1e6, iterations=3))


def test_the_adaptive_variant_of_a_nearly_flat_image():
    # Levels 0 and 1, so that no colour of a superpixel is farther away than that.
    image = (torch.rand(1, 20, 24) < 0.5).int().mul(10).to(torch.uint16)
    wanted = expected(image, 20, adaptive=True, min_size=0.0)
    assert np.array_equal(slic(image, 20, adaptive=True, min_size=0.0).numpy(), wanted)
    with tensor_form():
        assert np.array_equal(slic(image, 20, adaptive=True, min_size=0.0).numpy(), wanted)


# Kernels and tensors, batches and singles, threads

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "exact": {"exact": True},
    "adaptive": {"adaptive": True},
    "adaptive, exact": {"adaptive": True, "exact": True, "compactness": 3.0},
    "channels as they are": {"color": "none"},
    "no place": {"compactness": 0.0},
    "compact": {"compactness": 200.0},
    "every part": {"min_size": 0.0},
    "one round": {"iterations": 1},
    "long": {"iterations": 30, "compactness": 1.0},
    "spacing": {"spacing": (2.0, 0.7)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_forms_agree_on_photographs_of_all_sizes(options):
    images = [photograph(name, 6) for name in ("astronaut", "coffee", "chelsea")] + [photograph()[:, 40:41, 3:60]]
    masks = [disc(*images[0].shape[1:]), None, images[2].sum(0) > 200, None]
    if options.get("exact"):
        masks[2] = None  # it has many parts
    counts = [60, 90, 30, 7]
    found = slic(images, counts, mask=masks, **options)
    with tensor_form():
        tensors = slic(images, counts, mask=masks, **options)
    singles = [slic(i, K, mask=m, **options) for i, K, m in zip(images, counts, masks, strict=True)]
    for labels, other, single, mask, K in zip(found, tensors, singles, masks, counts, strict=True):
        assert_superpixels(labels, mask)
        assert torch.equal(labels, other) and torch.equal(labels, single)
        assert count(labels) == K if options.get("exact") else count(labels) > K / 3


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"adaptive": True}, {"spacing": (3.0, 1.0, 0.5)}], ids=str)
def test_forms_agree_on_volumes(options):
    images = torch.stack([volume(), volume().flip(3)])
    mask = torch.stack([images[0].sum(0) > -1, disc(24, 30).expand(6, 24, 30)])
    found = slic(images, 30, mask=mask, **options)
    with tensor_form():
        assert torch.equal(slic(images, 30, mask=mask, **options), found)
    for b in range(2):
        assert_superpixels(found[b], mask[b])
        assert torch.equal(slic([images[b]], 30, mask=[mask[b]], **options)[0], found[b])
        assert not options.get("exact") or count(found[b]) == 30
    # Cells of 24 x 30 x 6 pixels are near to cubes of about 5: superpixels reach over several z.
    assert all(len(torch.unique(z)) < 30 for z in found[0])


@pytest.mark.parametrize("C", [1, 2, 4, 7])
def test_forms_agree_for_any_number_of_channels(C):
    stripes = photograph("coffee").flatten(0, 1)
    image = torch.stack([stripes[c * 30 : c * 30 + 90] for c in range(C)])
    found = slic(image, 60)
    with tensor_form():
        assert torch.equal(slic(image, 60), found)
    assert_superpixels(found)
    assert torch.equal(slic(image.flip(0), 60), found)  # channels count alike


def test_batch_is_singles(form, device):
    photos = torch.stack([photograph()[:, i : i + 64, i : i + 50] for i in (0, 30, 60)]).to(device)
    counts = torch.tensor([20, 50, 90])
    each: list[dict[str, Any]] = [{}, {"exact": True}]
    for options in each:
        found = slic(photos, counts, **options)
        assert found.shape == (3, 64, 50) and found.device.type == device.type
        for photo, K, labels in zip(photos, counts.tolist(), found, strict=True):
            assert torch.equal(slic(photo, K, **options), labels)
            assert torch.equal(slic(photo.cpu(), K, **options), labels.cpu())
        assert all(
            torch.equal(a, b) for a, b in zip(slic(list(photos), counts.tolist(), **options), found, strict=True)
        )
    assert torch.equal(slic(photos, 50), slic(photos, [50, 50, 50]))
    assert torch.equal(slic(photos, list(np.array([20, 50, 90]))), slic(photos, counts))


def test_results_do_not_depend_on_threads_nor_on_the_run():
    images = [photograph(), photograph("coffee"), photograph("chelsea", 3)]
    calls = [
        lambda: slic(images, 80),
        lambda: slic(images, 80, adaptive=True, exact=True),
        lambda: [slic(images[0], 300, mask=disc(128, 128))],
        lambda: multiscale_slic(images[1], (20, 60), nested=True),
        lambda: [regular_grid(images[0], 50)],
    ]
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 3, 2):
            torch.set_num_threads(number)
            results.append([labels for call in calls for labels in call()])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


# Images: values and memory


def test_dtypes_hold_the_same_image(form):
    photo = photograph("chelsea", 6)
    found = slic(photo, 70)
    images = [(photo.int() * 257).to(torch.uint16), photo.float() / 255, photo.double() / 255]
    assert all(torch.equal(slic(image, 70), found) for image in images)
    grey = photograph("coins", 6)
    for image in ((grey.int() * 257).to(torch.uint16), grey.float() / 255, grey.double() / 255):
        assert torch.equal(slic(image, 70), slic(grey, 70))
    for half in (torch.float16, torch.bfloat16):
        assert torch.equal(slic((photo / 255).to(half), 70), slic((photo / 255).to(half).float(), 70))


def test_uint16_has_more_levels_than_uint8():
    image = torch.zeros(1, 12, 12, dtype=torch.uint16)
    image[:, :, 5:] = 200  # less than one level of uint8
    labels = slic(image, 2, compactness=1e-3, exact=True)
    assert torch.equal(labels, (torch.arange(12) >= 5).long().expand(12, 12))


def test_memory_layout_and_gradients_do_not_matter(form):
    photo = photograph("coffee", 5)
    found = slic(photo, 50)
    last = photo.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(slic(last, 50), found)
    assert torch.equal(slic(photo.repeat_interleave(2, 2)[:, :, ::2], 50), found)
    leaf = (photo / 255).requires_grad_()
    labels = slic(leaf * 1, 50, mask=torch.ones(photo.shape[1:]).bool())
    assert torch.equal(labels, found) and not labels.requires_grad


def test_input_is_left_as_it_was(form):
    photo, mask = photograph("coffee", 5).clone(), disc(80, 120)
    before, mask_before = photo.clone(), mask.clone()
    multiscale_slic(photo, (10, 30), mask=mask, exact=True, nested=True)
    assert torch.equal(photo, before) and torch.equal(mask, mask_before)


# What must hold


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("K", [1, 30, 400])
def test_superpixels_of_photographs(name, K, device):
    photo = photograph(name).to(device)
    labels = slic(photo, K)
    assert_superpixels(labels)
    assert labels.device.type == device.type
    assert 0.75 * K <= count(labels) <= 1.35 * K
    assert int(sizes(labels).min()) >= math.ceil(0.3 * labels.numel() / K)


@pytest.mark.parametrize("min_size", [0.0, 0.1, 0.6, 1.0, 50.0])
@pytest.mark.parametrize("options", [{}, {"adaptive": True}, {"compactness": 0.5}], ids=str)
def test_no_superpixel_is_smaller_than_min_size(min_size, options):
    noise = torch.rand(3, 60, 70)
    for image in (photograph("coffee", 5), noise):
        labels = slic(image, 40, min_size=min_size, **options)
        assert_superpixels(labels)
        assert int(sizes(labels).min()) >= min(math.ceil(min_size * labels.numel() / 40), labels.numel())
    assert min_size < 1 or count(labels) <= 40


def test_small_parts_go_to_the_neighbour_of_the_most_similar_colour():
    # Between dark and light a dot: dark grey, then light grey.
    for dot, side in ((60, 0), (200, 1)):
        image = torch.zeros(1, 20, 20, dtype=torch.uint8)
        image[..., 10:] = 255
        image[..., 8:10, 9:11] = dot
        labels = slic(image, 2, compactness=0.01)
        wanted = (torch.arange(20) >= 10).long().repeat(20, 1)
        wanted[8:10, 9:11] = side
        assert torch.equal(labels, wanted)


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"adaptive": True}], ids=str)
def test_borders_follow_colour(options):
    y, x = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    regions = (x + 0.4 * y > 37).long() + 2 * (y - 0.3 * x > 11).long()
    image = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9], [0.9, 0.9, 0.3]])[regions].permute(2, 0, 1)
    labels = slic(image, 24, **options)
    crossed = torch.unique(torch.stack([labels.flatten(), regions.flatten()]), dim=1)[0]
    assert torch.equal(crossed, torch.arange(count(labels)))


@pytest.mark.parametrize("compactness, image", [(10.0, "constant"), (1e6, "noise")])
@pytest.mark.parametrize("shape, K", [((30, 40), 12), ((50, 50), 25), ((64, 32), 8)])
def test_without_colour_the_grid_stays(shape, K, compactness, image, form):
    images = torch.rand(3, *shape) if image == "noise" else torch.full((3, *shape), 0.3)
    labels = slic(images, K, compactness)
    assert count(labels) == K and torch.equal(labels, regular_grid(images, K))


def test_spacing_stretches_superpixels():
    flat = torch.zeros(1, 60, 60)
    assert torch.equal(slic(flat, 36, spacing=(2.0, 2.0)), slic(flat, 36))
    labels = slic(flat, 36, spacing=(2.0, 0.5))  # rows four times as far apart as columns
    heights, widths = np.array([[s.stop - s.start for s in box] for box in ndimage.find_objects(labels.numpy() + 1)]).T
    assert widths.mean() == pytest.approx(4 * heights.mean(), rel=0.1)
    assert torch.equal(slic(flat.mT, 36, spacing=(0.5, 2.0)).T.unique(return_counts=True)[1], sizes(labels))


def test_it_ends_when_no_pixel_moves(form):
    photo = photograph("chelsea", 10)
    settled = slic(photo, 15, iterations=1000)
    assert torch.equal(slic(photo, 15, iterations=10**9), settled)
    assert not torch.equal(slic(photo, 15, iterations=1), settled)


def test_the_first_round_of_the_adaptive_variant_is_plain():
    photo = photograph("coffee", 5)
    for compactness in (1.0, 10.0, 80.0):
        plain = slic(photo, 50, compactness, iterations=1)
        assert torch.equal(slic(photo, 50, compactness, iterations=1, adaptive=True), plain)


@pytest.mark.parametrize("adaptive", [False, True])
def test_superpixels_explain_colours_better_than_those_of_scikit_image(adaptive):
    explained = []
    for name in ("astronaut", "coffee", "chelsea"):
        photo = photograph(name)
        pixels = photo.permute(1, 2, 0).numpy()
        lab = rgb2lab(pixels)
        theirs = scikit_slic(pixels, 120, start_label=0, slic_zero=adaptive)
        ours = slic(photo, int(theirs.max()) + 1, exact=True, adaptive=adaptive).numpy()
        assert ours.max() == theirs.max()
        explained.append([explained_variation(lab, labels) for labels in (theirs, ours)])
    theirs_mean, ours_mean = np.mean(explained, 0)
    assert ours_mean > theirs_mean + 0.01


def explained_variation(values: Array, labels: Array) -> float:
    means = [ndimage.mean(channel, labels, range(labels.max() + 1))[labels] for channel in np.moveaxis(values, -1, 0)]
    return float(np.var(means, axis=(1, 2)).sum() / values.var(axis=(0, 1)).sum())


# Exact counts

SHAPES = {"1x1": (1, 1), "1xW": (1, 13), "Hx1": (17, 1), "2x2": (2, 2), "2x9": (2, 9), "7x8": (7, 8)}


@pytest.mark.parametrize("compactness", [0.0, 10.0, 1e6])
@pytest.mark.parametrize("content", ["constant", "noise", "two colours"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_exact_counts(shape, content, compactness):
    P = math.prod(shape)
    image = {
        "constant": torch.full((3, *shape), 0.5),
        "noise": torch.rand(3, *shape),
        "two colours": torch.rand(1, *shape).round().expand(3, *shape),
    }[content]
    for K in sorted({1, 2, 3, P // 2, P - 1, P} & set(range(1, P + 1))):
        labels = slic(image, K, compactness, exact=True)
        assert_superpixels(labels)
        assert count(labels) == K
        with tensor_form():
            assert torch.equal(slic(image, K, compactness, exact=True), labels)
    assert torch.equal(slic(image, P, compactness, exact=True).flatten(), torch.arange(P))
    assert not slic(image, 1, compactness, exact=True).any()


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("K", [1, 2, 37, 200, 999])
def test_exact_counts_of_photographs(K, adaptive):
    photos = [photograph(name) for name in ("astronaut", "coffee")]
    for labels in slic(photos, K, exact=True, adaptive=adaptive):
        assert_superpixels(labels)
        assert count(labels) == K


def test_exact_counts_in_every_pixel_of_a_larger_image():
    photo = photograph("chelsea", 9)
    P = photo[0].numel()
    for K in (P, P - 1, P - 100):
        labels = slic(photo, K, exact=True)
        assert count(labels) == K and count_parts(labels.numpy()) == K


def test_exact_counts_of_volumes():
    for K in (1, 2, 50, 1000):
        labels = slic(volume()[None], K, exact=True)[0]
        assert_superpixels(labels)
        assert count(labels) == K


def test_merging_takes_the_cheapest_pair():
    # By the squared error itself, from the definition, in Lab and places as floating-point numbers.
    photo = photograph("coffee", 8)
    fine, coarse = (labels.numpy() for labels in multiscale_slic(photo, (39, 40), nested=True, exact=True)[::-1])
    S = math.sqrt(fine.size / 40)
    places = np.moveaxis(np.indices(fine.shape), 0, -1) * 10 / S
    values = np.concatenate([rgb2lab(photo.permute(1, 2, 0).numpy()), places], 2)

    def error(*labels: int) -> float:
        inside = values[np.isin(fine, labels)]
        return float(((inside - inside.mean(0)) ** 2).sum())

    sides = [np.stack([fine[:-1].ravel(), fine[1:].ravel()]), np.stack([fine[:, :-1].ravel(), fine[:, 1:].ravel()])]
    pairs = {(min(a, b), max(a, b)) for a, b in np.concatenate(sides, 1).T.tolist() if a != b}
    cost = {pair: error(*pair) - error(pair[0]) - error(pair[1]) for pair in pairs}
    (merged,) = [pair for pair in pairs if len(np.unique(coarse[np.isin(fine, pair)])) == 1]
    assert cost[merged] <= min(cost.values()) * (1 + 1e-2)  # fixed point colours


def split_whole(image: Tensor, K: int, compactness: float = 10.0) -> Tensor:
    """All of an image as one region, cut into K: by places in the unit of four superpixels."""
    stack = ImageStack([image], None)
    options = SlicOptions.of(len(image) == 3, 2, compactness, 10, False, 0.3, (1.0, 1.0, 1.0))
    images = superpixel._images(stack, [4], options, True)
    whole = merge(superpixel.find_regions(images, options)[0], 0, 1, 1)
    assert whole.count == 1
    return split(images[0], whole, K, options).labels()[0]


def test_splitting_follows_the_edges_of_regions_of_any_form():
    snake = torch.zeros(9, 12, dtype=torch.int64)  # two combs, one inside the other
    snake[1::4, 1:] = snake[2::4, 1:] = snake[:, -1] = 1
    assert_superpixels(snake)
    for image in (snake[None] * 0.2 + 0.4, torch.stack([snake * 0.1, 1.0 - snake, snake * 0.3])):
        assert torch.equal(split_whole(image, 2), snake)


def test_splitting_gives_connected_parts_of_one_region_each():
    photo = photograph("coffee", 8)
    coarse = split_whole(photo, 1)
    for K in (2, 3, 4, 20, 300):
        fine = split_whole(photo, K)
        assert_superpixels(fine)
        assert count(fine) == K
        assert len(torch.unique(torch.stack([coarse.flatten(), fine.flatten()]), dim=1).T) == K
        lab = rgb2lab(photo.permute(1, 2, 0).numpy())
        assert explained_variation(lab, fine.numpy()) > explained_variation(lab, coarse.numpy())
        coarse = fine


def test_flat_regions_are_cut_across_their_longer_side():
    for shape in ((6, 20), (20, 6)):
        boxes = ndimage.find_objects(split_whole(torch.zeros(1, *shape), 2).numpy() + 1)
        assert sorted(max(s.stop - s.start for s in box) for box in boxes) == [10, 10]


# Masks


def test_a_full_mask_is_no_mask(form):
    photo = photograph("coffee", 5)
    full = torch.ones(photo.shape[1:], dtype=torch.bool)
    assert torch.equal(slic(photo, 50, mask=full), slic(photo, 50))
    assert torch.equal(slic([photo, photo], 50, mask=[None, full])[1], slic(photo, 50))


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"adaptive": True}], ids=str)
def test_pixels_outside_the_mask_have_no_influence(options, form):
    photo = photograph("coffee", 5)
    mask = disc(*photo.shape[1:])
    found = slic(photo, 50, mask=mask, **options)
    assert_superpixels(found, mask)
    assert torch.equal(slic(torch.where(mask, photo, 255 - photo), 50, mask=mask, **options), found)


@pytest.mark.parametrize("kind", ["disc", "ring", "one", "row", "column", "half", "corner"])
@pytest.mark.parametrize("exact", [False, True])
def test_counts_are_of_the_mask(kind, exact):
    photo = photograph()
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    mask = {
        "disc": disc(128, 128),
        "ring": (y - 64).square() + (x - 64).square() - 3000 < 600,
        "one": (y == 17) & (x == 90),
        "row": y == 127,
        "column": x == 0,
        "half": x + y > 130,
        "corner": (x > 120) & (y > 120),
    }[kind]
    mask &= (y - 64).square() + (x - 64).square() > (2400 if kind == "ring" else -1)
    K = min(40, int(mask.sum()))
    labels = slic(photo, K, mask=mask, exact=exact)
    assert_superpixels(labels, mask)
    assert count(labels) == K if exact else K / 2 <= count(labels) <= 2 * K


def test_islands_stay_apart():
    photo = photograph()[:, :20, :20]
    mask = islands(20, 20)
    labels = slic(photo, 10, mask=mask, min_size=1.0)
    assert_superpixels(labels, mask)
    assert count(labels) == int(mask.sum()) == 49
    assert count(slic(photo, 49, mask=mask, exact=True)) == 49
    with pytest.raises(ValueError, match="mask of 49 unconnected parts in image 1, expected at most num_segments=48"):
        slic([photo, photo], 48, mask=[None, mask], exact=True)
    with pytest.raises(ValueError, match="mask of 49 unconnected parts in image 0, expected at most num_segments=48"):
        multiscale_slic(photo, (48, 49), mask=mask, exact=True, nested=True)


def test_masks_smaller_than_the_count():
    photo = photograph()[:, :20, :20]
    few = torch.zeros(20, 20, dtype=torch.bool)
    few[3:5, 4:7] = True
    assert_superpixels(slic(photo, 100, mask=few), few)
    assert count(slic(photo, 100, mask=few, min_size=0.0)) <= 6
    with pytest.raises(ValueError, match="got 6 pixels in image 1, expected at least num_segments=7 with exact=True"):
        slic(torch.stack([photo, photo]), 7, mask=torch.stack([~few, few]), exact=True)


def test_empty_masks(form, device):
    photo = photograph()[:, :9, :7].to(device)
    none = torch.zeros(9, 7, dtype=torch.bool, device=device)
    nothing = torch.full((9, 7), -1, device=device)
    assert torch.equal(slic(photo, 5, mask=none), nothing)
    assert torch.equal(regular_grid(photo, 5, mask=none), nothing)
    assert all(torch.equal(labels, nothing) for labels in multiscale_slic(photo, (2, 5), mask=none, nested=True))
    both = slic([photo, photo], 5, mask=[none, None], adaptive=True)
    assert torch.equal(both[0], nothing) and torch.equal(both[1], slic(photo, 5, adaptive=True))
    with pytest.raises(ValueError, match="got 0 pixels in image 0, expected at least num_segments=5"):
        slic(photo, 5, mask=none, exact=True)


# Several scales


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"adaptive": True}, {"min_size": 0.0}], ids=str)
def test_scales_that_are_not_nested_are_single_calls(options):
    images = [photograph(), photograph("coffee")]
    masks = [None, disc(100, 150)]
    scales = multiscale_slic(images, (20, 60, 60, 90), mask=masks, **options)
    for K, scale in zip((20, 60, 60, 90), scales, strict=True):
        single = slic(images, K, mask=masks, **options)
        assert all(torch.equal(a, b) for a, b in zip(scale, single, strict=True))


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"adaptive": True, "exact": True}], ids=str)
def test_nested_scales(options, form):
    images = torch.stack([photograph()[:, 20:80, 40:110], photograph("coffee")[:, :60, 20:90]])
    counts = (1, 10, 50, 50, 120)
    scales = multiscale_slic(images, counts, nested=True, **options)
    assert torch.equal(scales[-1], slic(images, 120, **options))
    for K, scale in zip(counts[:-1], scales, strict=False):
        for labels in scale:
            assert_superpixels(labels)
            assert count(labels) == K
    assert torch.equal(scales[2], scales[3])
    for coarse, fine in itertools.pairwise(scales):
        for a, b in zip(coarse, fine, strict=True):
            parents = torch.unique(torch.stack([b.flatten(), a.flatten()]), dim=1)[0]
            assert torch.equal(parents, torch.arange(count(b)))
    # A scale does not depend on those between it and the finest.
    assert torch.equal(multiscale_slic(images, (10, 120), nested=True, **options)[0], scales[1])


def test_nested_scales_of_volumes_and_masks():
    mask = disc(24, 30).expand(6, 24, 30)
    scales = multiscale_slic(volume()[None], (5, 20, 45), mask=mask[None], nested=True, exact=True)
    for K, labels in zip((5, 20, 45), scales, strict=True):
        assert_superpixels(labels[0], mask)
        assert count(labels) == K
    assert len(torch.unique(torch.stack([s.flatten() for s in scales]), dim=1).T) == 45 + 1
    # Islands stay apart whatever the count.
    photo = photograph()[:, :20, :20]
    assert [count(s) for s in multiscale_slic(photo, (3, 60), mask=islands(20, 20), nested=True)] == [49, 49]


def test_one_scale():
    photo = photograph("coffee", 5)
    for nested in (False, True):
        (labels,) = multiscale_slic(photo, [50], nested=nested)
        assert torch.equal(labels, slic(photo, 50))


# Regular grid

GRIDS = [
    ((30, 40), 12),
    ((40, 30), 12),
    ((37, 53), 100),
    ((1, 128), 8),
    ((128, 1), 8),
    ((2, 92), 10),
    ((92, 2), 10),
    ((20, 600), 5),
    ((600, 20), 5),
    ((5, 4), 20),
    ((5, 4), 500),
    ((90, 91), 1),
    ((1, 1), 3),
    ((4, 30, 30), 36),
    ((30, 4, 30), 36),
    ((30, 30, 4), 36),
    ((1, 60, 2), 10),
    ((60, 2, 1), 10),
]


@pytest.mark.parametrize("shape, K", GRIDS, ids=str)
def test_the_regular_grid(shape, K, device):
    image = torch.zeros(2, *shape, device=device)
    labels = regular_grid([image], K)[0]
    assert labels.device.type == device.type
    assert_superpixels(labels)
    assert abs(count(labels) - min(K, labels.numel())) <= max(1, 0.2 * K)
    # Each cell is a box; all sides along an axis differ by one pixel at most.
    boxes = ndimage.find_objects(labels.cpu().numpy() + 1)
    sides = np.array([[s.stop - s.start for s in box] for box in boxes])
    assert torch.equal(sizes(labels).cpu(), torch.from_numpy(sides.prod(1)))
    assert (np.ptp(sides, axis=0) <= 1).all()


@pytest.mark.parametrize("shape, K", GRIDS, ids=str)
def test_flat_images_have_about_the_count_whichever_way_they_are_turned(shape, K):
    wanted = min(K, math.prod(shape))
    assert abs(count(slic([torch.full((1, *shape), 0.5)], K)[0]) - wanted) <= max(1, 0.2 * wanted)


def test_regular_grids_are_near_to_squares_of_equal_size():
    for shape, K in (((100, 100), 50), ((321, 481), 200), ((480, 360), 300), ((64, 64), 16)):
        labels = regular_grid(torch.zeros(1, *shape), K)
        boxes = ndimage.find_objects(labels.numpy() + 1)
        height, width = np.array([[s.stop - s.start for s in box] for box in boxes]).mean(0)
        assert 0.75 < height / width < 1.34
        assert abs(count(labels) - K) <= 0.1 * K
    assert count(labels) == 16


def test_regular_grids_of_batches_lists_and_volumes():
    images = [torch.zeros(3, 20, 30), torch.zeros(3, 9, 9), torch.zeros(3, 1, 50)]
    found = regular_grid(images, [6, 4, 5])
    for labels, image, K in zip(found, images, (6, 4, 5), strict=True):
        assert torch.equal(labels, regular_grid(image, K))
        assert count(labels) == K
    assert torch.equal(regular_grid(torch.zeros(2, 3, 20, 30), 6), torch.stack([found[0]] * 2))
    cube = regular_grid(torch.zeros(1, 1, 8, 8, 8), 8)[0]
    assert torch.equal(cube, (torch.arange(8) // 4)[:, None, None] * 4 + regular_grid(torch.zeros(1, 8, 8), 4))
    assert torch.equal(regular_grid(torch.zeros(1, 8, 8, dtype=torch.int64), 4), cube[0])


def test_regular_grids_with_masks():
    mask = disc(30, 40)
    labels = regular_grid(torch.zeros(1, 30, 40), 30, mask=mask)
    whole = regular_grid(torch.zeros(1, 30, 40), count(regular_grid(torch.zeros(1, 30, 40), 30)))
    assert torch.equal(labels >= 0, mask)
    assert torch.equal(torch.unique(labels[mask]), torch.arange(count(labels)))
    assert 24 <= count(labels) <= 40
    boxes = ndimage.find_objects(labels.numpy() + 1)
    for k, (a, b) in enumerate(boxes):  # a cell holds all pixels of the mask in its box
        inside = labels[a, b][mask[a, b]]
        assert bool((inside == k).all())
    assert torch.equal(whole, regular_grid(torch.zeros(1, 30, 40), count(whole), mask=torch.ones(30, 40).bool()))


def test_masked_cells_are_numbered_by_their_first_pixel():
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[0, :2] = False  # the second cell begins one row before the first
    labels = regular_grid(torch.zeros(1, 4, 4), 4, mask=mask)
    assert_superpixels(labels, mask)


# Memory


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return out


def test_nothing_of_the_size_of_pixels_times_segments():
    image = torch.rand(3, 200, 200)
    P, K = 40_000, 10_000
    tracemalloc.start()
    try:
        labels = slic(image, K, exact=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count(labels) == K
    assert peak < 500 * P  # bytes
    with tensor_form(), Largest() as largest:
        assert torch.equal(slic(image, K, exact=True), labels)
    assert 9 * P <= largest.numel <= 2 * 9 * 5 * P  # nine candidates, blocks padded up to twice, five features
    assert_superpixels(labels)


# Empty batches and bad input


def test_empty_batches():
    assert slic([]) == [] and regular_grid([]) == [] and multiscale_slic([], (2, 3), nested=True) == [[], []]
    for found in (
        slic(torch.rand(0, 3, 4, 5), exact=True),
        regular_grid(torch.rand(0, 3, 4, 5)),
        *multiscale_slic(torch.rand(0, 2, 4, 5), (2, 3)),
    ):
        assert found.shape == (0, 4, 5) and found.dtype == torch.int64
    assert slic(torch.rand(0, 1, 4, 5, 6), spacing=(1.0, 1.0, 1.0)).shape == (0, 4, 5, 6)


IMAGE = torch.full((3, 4, 5), 0.5)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "dtype": ({"images": IMAGE.long()}, TypeError, r"dtype torch.int64 for images, expected uint8, uint16 or floating"),
    "bool": ({"images": IMAGE > 0}, TypeError, r"dtype torch.bool for images"),
    "array": ({"images": IMAGE.numpy()}, TypeError, r"got ndarray for images, expected a torch.Tensor"),
    "nothing": ({"images": None}, TypeError, r"NoneType for images"),
    "two axes": ({"images": IMAGE[0]}, ValueError, r"shape \[4, 5\] for images, expected \[B, C, H, W\]"),
    "six axes": ({"images": IMAGE[None, None, None]}, ValueError, r"for images, expected \[B, C, H, W\]"),
    "list of planes": ({"images": [IMAGE[0]]}, ValueError, r"shape \[4, 5\] in images, expected \[C, H, W\]"),
    "kinds": ({"images": [IMAGE, IMAGE[:1]]}, ValueError, r"images of 2 kinds, expected one number of channels"),
    "dtypes": ({"images": [IMAGE, IMAGE.double()]}, ValueError, r"images of 2 kinds"),
    "axes": ({"images": [IMAGE, IMAGE[:, None]]}, ValueError, r"images of 2 kinds"),
    "no pixels": ({"images": IMAGE[:, :0]}, ValueError, r"for an image, expected at least one pixel and channel"),
    "no channels": ({"images": IMAGE[:0]}, ValueError, r"for an image, expected at least one pixel and channel"),
    "over 1": ({"images": IMAGE * 3}, ValueError, r"values from 1.5 to 1.5 in images, expected .* in \[0, 1\]"),
    "under 0": ({"images": -IMAGE}, ValueError, r"values from -0.5 to -0.5 in images"),
    "NaN": ({"images": IMAGE * math.nan}, ValueError, r"60 NaN or infinite values in images"),
    "infinite": ({"images": IMAGE * math.inf}, ValueError, r"60 NaN or infinite values in images"),
    "no segments": ({"num_segments": 0}, ValueError, r"num_segments=0, expected at least 1"),
    "float": ({"num_segments": 2.5}, TypeError, r"num_segments"),
    "true": ({"num_segments": True}, TypeError, r"num_segments"),
    "floats": ({"num_segments": [2.5]}, TypeError, r"got float for num_segments, expected an int"),
    "counts": ({"num_segments": [2, 3]}, ValueError, r"for num_segments, expected one number or one for each of 1 im"),
    "no segments in one": ({"num_segments": [-1]}, ValueError, r"num_segments=-1, expected at least 1"),
    "compactness": ({"compactness": -1.0}, ValueError, r"compactness=-1.0, expected a finite number that is not neg"),
    "NaN compactness": ({"compactness": math.nan}, ValueError, r"compactness=nan, expected a finite number"),
    "endless": ({"compactness": math.inf}, ValueError, r"compactness=inf, expected a finite number"),
    "iterations": ({"iterations": 0}, ValueError, r"iterations=0, expected at least 1"),
    "half a round": ({"iterations": 1.5}, TypeError, r"got float for iterations, expected an int"),
    "min_size": ({"min_size": -0.1}, ValueError, r"min_size=-0.1, expected a finite number that is not negative"),
    "adaptive": ({"adaptive": True, "compactness": 0.0}, ValueError, r"compactness=0 with adaptive=True, expected a p"),
    "color": ({"color": "rgb"}, ValueError, r"color='rgb', expected one of 'lab', 'none'"),
    "Lab of two": ({"images": IMAGE[:2], "color": "lab"}, ValueError, r"2 channels in images, expected 3 .*'lab'"),
    "spacing": ({"spacing": (1.0,)}, ValueError, r"spacing=\(1.0,\), expected 2 positive numbers, one for each axis"),
    "no spacing": ({"spacing": (1.0, 0.0)}, ValueError, r"expected 2 positive numbers"),
    "NaN spacing": ({"spacing": (1.0, math.nan)}, ValueError, r"expected 2 positive numbers"),
    "mask dtype": ({"mask": torch.ones(4, 5)}, TypeError, r"dtype torch.float32 for mask, expected torch.bool"),
    "mask shape": ({"mask": torch.ones(5, 4).bool()}, ValueError, r"shape \[5, 4\] for mask, expected \[4, 5\]"),
    "mask list": ({"mask": [None]}, TypeError, r"got list for mask, expected a torch.Tensor"),
    "masks": ({"images": [IMAGE], "mask": []}, ValueError, r"0 masks, expected a list with .* each of 1 images"),
    "one mask": (
        {"images": [IMAGE], "mask": torch.ones(1, 4, 5).bool()},
        ValueError,
        r"expected a list with one or None for each of 1 images",
    ),
    "no mask": ({"images": [IMAGE], "mask": [3]}, TypeError, r"got int for mask, expected a torch.Tensor"),
    "mask in list": (
        {"images": [IMAGE], "mask": [torch.ones(4, 4).bool()]},
        ValueError,
        r"shape \[4, 4\] for mask, expected \[4, 5\]",
    ),
    "too many": ({"num_segments": 21, "exact": True}, ValueError, r"20 pixels in image 0, expected at least num_seg"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    given, error, message = BAD[name]
    arguments = {"images": IMAGE, "num_segments": 4, **given}
    with pytest.raises(error, match=message):
        slic(**arguments)
    if "num_segments" not in given:
        with pytest.raises(error, match=message):
            multiscale_slic(**{**arguments, "num_segments": [4]})
    if set(given) <= {"num_segments", "mask"}:
        with pytest.raises(error, match=message):
            regular_grid(**arguments)


def test_bad_scales_are_refused():
    for counts in ((), (5, 3)):
        with pytest.raises(ValueError, match="expected one count or more that do not fall"):
            multiscale_slic(IMAGE, counts)
    with pytest.raises(TypeError, match="got float for num_segments, expected an int"):
        multiscale_slic(IMAGE, [*torch.tensor([2.5, 3]).tolist()])
    with pytest.raises(ValueError, match="num_segments=0, expected at least 1"):
        multiscale_slic(IMAGE, (0, 3))


@pytest.mark.parametrize("compactness", [1e-200, 1e-9, 1e200, 1e300])
@pytest.mark.parametrize("adaptive", [False, True])
def test_any_finite_compactness_is_taken(compactness, adaptive):
    photo = photograph("coffee", 10)
    labels = slic(photo, 12, compactness, adaptive=adaptive)
    assert_superpixels(labels)
    assert 4 <= count(labels) <= 24


def test_compactness_only_begins_the_adaptive_variant():
    # As many places as pixels can be told apart, however small it is.
    photo = photograph("coffee", 5)
    plenty, little = (slic(photo, 40, c, iterations=30, adaptive=True, min_size=0.0) for c in (10.0, 1e-3))
    assert count(little) < 2 * count(plenty)
