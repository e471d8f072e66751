"""Soft SLIC against plain loops, numerical gradients, hard SLIC, and what must hold of it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import data
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from graphseg.ops import SoftSuperpixels, pool, project, regular_grid, rgb_to_lab, slic, soft_slic
from graphseg.ops._stack import ImageStack, grid_of, read_spacing
from tests.reference import slic as regions
from tests.reference import soft_slic as reference

Array = np.ndarray[Any, Any]
EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}


@cache
def photograph(name: str = "astronaut", step: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    """Every `step`-th pixel of a photograph in CIELAB, `[3, H, W]`."""
    pixels = torch.from_numpy(getattr(data, name)()[::step, ::step].copy()).permute(2, 0, 1)
    return rgb_to_lab(pixels.to(dtype) / 255)


def disc(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return x.square() + y.square() <= 1


def assert_graph(soft: SoftSuperpixels, mask: Tensor, around: int = 9) -> None:
    """Edges sorted and each once, weights of each pixel that sum to 1, none outside the mask, sizes that fit."""
    pixel, node = soft.edge_index
    assert soft.edge_index.dtype == torch.int64 and soft.num_pixels == mask.numel()
    key = pixel * max(soft.num_nodes, 1) + node
    assert bool((key[1:] > key[:-1]).all())
    degree = torch.bincount(pixel, minlength=soft.num_pixels)
    assert torch.equal(degree > 0, mask.flatten()) and int(degree.max()) <= around
    assert torch.equal(torch.unique(node), torch.arange(soft.num_nodes, device=node.device))
    assert bool((soft.weight >= 0).all())
    total = torch.zeros(soft.num_pixels, dtype=torch.float64, device=pixel.device)
    total.index_add_(0, pixel, soft.weight.detach().double())
    assert_close(total, mask.flatten().double(), rtol=0, atol=1e-6)
    assert len(soft.centres) == len(soft.batch) == soft.num_nodes and len(soft.features) == soft.num_pixels
    assert bool((soft.batch[1:] >= soft.batch[:-1]).all())
    assert not soft.features.requires_grad


def assert_connected(labels: Tensor, mask: Tensor) -> None:
    """Each superpixel hangs together; labels run from 0 by the first pixel of each, -1 exactly outside the mask."""
    found = labels.cpu().numpy()
    found = found.reshape((1,) * (3 - found.ndim) + found.shape)
    places = dict(zip(map(tuple, np.argwhere(found >= 0).tolist()), found[found >= 0].tolist(), strict=True))
    assert labels.dtype == torch.int64 and torch.equal(labels >= 0, mask)
    assert np.array_equal(regions.as_map(regions.parts(places), found.shape), found)


# Against the loop


def expected(
    features: Tensor,
    num_segments: int,
    compactness: float,
    iterations: int,
    mask: Tensor | None,
    temperature: float,
    spacing: tuple[float, ...] | None,
) -> tuple[Array, Array]:
    """Probabilities and centres of one image by loops, on the same grid."""
    dims = features.dim() - 1
    size = read_spacing(spacing, dims)
    grid = grid_of(ImageStack([features], [mask]), 0, num_segments, size)
    inside = np.ones(grid.shape, bool) if mask is None else mask.numpy().reshape(grid.shape)
    values = features.detach().double().numpy().reshape(len(features), *grid.shape)
    return reference.soft_slic(
        values, dims, grid.cells, grid.step, compactness, iterations, temperature, inside, grid.spacing
    )


@st.composite
def problems(draw: st.DrawFn, dims: int, largest: int) -> tuple[Tensor, dict[str, Any]]:
    shape = draw(hnp.array_shapes(min_dims=dims, max_dims=dims, min_side=1, max_side=largest))
    noise = np.random.default_rng(draw(st.integers(0, 999)))
    scale, offset = draw(st.sampled_from([(1e-3, 0.0), (1.0, 0.0), (40.0, 50.0), (1e4, 0.0)]))
    features = offset + scale * noise.standard_normal((draw(st.integers(1, 5)), *shape))
    return torch.from_numpy(features), {
        "num_segments": draw(st.integers(1, 25)),
        "compactness": draw(st.sampled_from([0.0, 1.0, 10.0])),
        "iterations": draw(st.integers(1, 6)),
        "mask": torch.from_numpy(noise.random(shape) < 0.7) if draw(st.booleans()) else None,
        "temperature": draw(st.sampled_from([0.1, 15.0, 1e3])),
        "spacing": draw(st.none() | st.tuples(*[st.floats(0.3, 4)] * dims)),
    }


def check_against_loop(features: Tensor, options: dict[str, Any]) -> None:
    soft = soft_slic([features], **{**options, "mask": [options["mask"]]})
    probabilities, centres = expected(features, **options)
    assert_close(soft.assignment().to_dense(), torch.from_numpy(probabilities), **EXACT)
    assert_close(soft.centres, torch.from_numpy(centres), rtol=1e-10, atol=1e-10)
    mask = torch.ones(features.shape[1:], dtype=torch.bool) if options["mask"] is None else options["mask"]
    assert_graph(soft, mask, 9 if features.dim() == 3 else 27)
    hard = np.where(mask.numpy().ravel(), probabilities.argmax(1) if probabilities.size else -1, -1)
    hard[hard >= 0] = np.unique(hard[hard >= 0], return_inverse=True)[1]
    assert np.array_equal(soft.labels(connected=False)[0].numpy().ravel(), hard)
    assert_connected(soft.labels()[0], mask)


@settings(max_examples=25)
@given(problem=problems(2, 8))
def test_any_image_is_the_loop(problem):
    check_against_loop(*problem)


@settings(max_examples=15)
@given(problem=problems(3, 4))
def test_any_volume_is_the_loop(problem):
    check_against_loop(*problem)


def test_edges_are_all_nine_superpixels_around():
    # So warm that no probability is 0.
    features = torch.rand(2, 9, 12, dtype=torch.float64)
    mask = torch.rand(9, 12) < 0.6
    for given_mask in (None, mask):
        soft = soft_slic(features, 12, 1.0, mask=given_mask, temperature=1e3)
        probabilities, _ = expected(features, 12, 1.0, 10, given_mask, 1e3, None)
        assert np.array_equal(soft.edge_index.numpy(), np.array(np.nonzero(probabilities)))


# Batches, devices, runs


def test_batch_is_singles(dtype, tolerance, device):
    features = [photograph(name, 10, dtype).to(device) / 10 for name in ("astronaut", "coffee", "chelsea")]
    masks = [None, disc(40, 60).to(device), None]
    counts = [12, 30, 7]
    soft = soft_slic(features, counts, 1.0, mask=masks, temperature=1.0)
    pixels, nodes, edges = 0, 0, 0
    for b, (image, mask, K) in enumerate(zip(features, masks, counts, strict=True)):
        single = soft_slic(image, K, 1.0, mask=mask, temperature=1.0)
        E, N, P = single.edge_index.shape[1], single.num_nodes, single.num_pixels
        start = torch.tensor([[pixels], [nodes]], device=device)
        assert torch.equal(soft.edge_index[:, edges : edges + E] - start, single.edge_index)
        assert_close(soft.weight[edges : edges + E], single.weight, **tolerance)
        assert_close(soft.centres[nodes : nodes + N], single.centres, **tolerance)
        assert torch.equal(soft.features[pixels : pixels + P], single.features)
        assert bool((soft.batch[nodes : nodes + N] == b).all())
        assert (soft.labels()[b] != single.labels()).double().mean() < 0.01  # where two are nearly as near
        pixels, nodes, edges = pixels + P, nodes + N, edges + E
    assert (pixels, nodes, edges) == (soft.num_pixels, soft.num_nodes, soft.edge_index.shape[1])
    assert soft.weight.dtype == dtype and soft.weight.device.type == device.type


def test_tensors_and_lists_have_one_result():
    images = torch.stack([photograph()[:, :40, :40], photograph()[:, 20:60, 20:60]])
    batch, listed = soft_slic(images, [9, 20]), soft_slic(list(images), torch.tensor([9, 20]))
    assert torch.equal(batch.weight, listed.weight) and torch.equal(batch.edge_index, listed.edge_index)
    assert torch.equal(batch.labels(), torch.stack(listed.labels()))
    single = soft_slic(images[0], 9)
    assert single.labels().shape == (40, 40) and batch.labels().shape == (2, 40, 40)
    volumes = soft_slic(images[:, :, None].expand(2, 3, 4, 40, 40), 30, iterations=2)
    assert volumes.labels().shape == (2, 4, 40, 40)
    assert_graph(volumes, torch.ones(2, 4, 40, 40, dtype=torch.bool), 27)


def test_results_do_not_depend_on_threads_nor_on_the_run():
    features = photograph("coffee", 6).clone().requires_grad_()
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 1):
            torch.set_num_threads(number)
            soft = soft_slic(features, 80, iterations=4)
            (gradient,) = torch.autograd.grad(soft.weight.square().sum(), features)
            results.append((soft.weight.detach(), soft.labels(), gradient))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0][:2], other[:2], strict=True))
        assert_close(other[2], results[0][2], rtol=0, atol=2e-6)  # the gradient of torch.softmax goes by threads
    assert torch.equal(results[0][2], results[2][2])


def test_memory_layout_does_not_matter():
    features = photograph("coffee", 10)
    last = features.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(soft_slic(last, 20).weight, soft_slic(features, 20).weight)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    features = photograph("chelsea", 12).to(half)
    soft, single = soft_slic(features, 20), soft_slic(features.float(), 20)
    assert soft.weight.dtype == torch.float32 and torch.equal(soft.weight, single.weight)


def test_autocast_loses_no_digits():
    features = photograph("chelsea", 12)
    leaf = features.clone().requires_grad_()
    plain = soft_slic(leaf, 20)
    (gradient,) = torch.autograd.grad(plain.weight.square().sum(), leaf)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        soft = soft_slic(leaf, 20)
        labels = soft.labels()
        loss = soft.weight.square().sum()
    assert torch.equal(soft.weight, plain.weight) and torch.equal(labels, plain.labels())
    assert torch.equal(torch.autograd.grad(loss, leaf)[0], gradient)


# Gradients


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 2, 4), (1, 3, 1, 5), (1, 1, 2, 3, 2)], ids=str)
def test_gradients_through_pool_and_project(shape, masked):
    features = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(shape[0], *shape[2:]) < 0.8 if masked else None
    valid = None if mask is None else mask.flatten()
    values = torch.randn(math.prod(shape) // shape[1], 2, dtype=torch.float64, requires_grad=True)

    def reconstruct(features: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        soft = soft_slic(features, 4, 2.0, 2, mask=mask, temperature=3.0)
        assignment = soft.assignment()
        return project(pool(values, assignment, valid=valid), assignment, valid=valid), soft.centres

    assert gradcheck(reconstruct, (features, values))


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_gradients_of_the_temperature(shape):
    features = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    temperature = torch.full(shape, 2.0, dtype=torch.float64, requires_grad=True)

    def weights(features: Tensor, temperature: Tensor) -> Tensor:
        return soft_slic(features, 6, 1.0, 3, temperature=temperature).weight

    assert gradcheck(weights, (features, temperature))
    assert torch.equal(weights(features, temperature), soft_slic(features, 6, 1.0, 3, temperature=2.0).weight)


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_temperatures_of_any_dtype(kind):
    for shape in ((), (1,)):
        temperature = torch.full(shape, 4.0, dtype=kind)
        soft = soft_slic(photograph("coffee", 12), 9, temperature=temperature)
        assert soft.weight.dtype == torch.float32
        assert torch.equal(soft.weight, soft_slic(photograph("coffee", 12), 9, temperature=4.0).weight)


def test_gradients_reach_every_pixel_and_are_finite():
    for features in (photograph("coffee", 10), torch.zeros(3, 20, 20), torch.full((3, 20, 20), 1e4)):
        leaf = features.clone().requires_grad_()
        mask = disc(*features.shape[1:])
        for temperature in (1e-3, 15.0, 1e6):
            soft = soft_slic(leaf, 9, mask=mask, temperature=temperature)
            loss = soft.weight.square().sum() + soft.centres.square().sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
            assert bool(torch.isfinite(gradient).all())
            assert not gradient[:, ~mask].any()
            assert features.abs().max() == 0 or bool((gradient[:, mask] != 0).any(0).all())


def test_descent_along_the_gradient_makes_superpixels_fit_a_target():
    # Features begin as noise; superpixels of what is learnt follow the border between two classes.
    target = torch.zeros(24, 24, dtype=torch.float64)
    target[:, :10] = 1.0  # across the cells of the grid
    features = (0.1 * torch.randn(2, 24, 24, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.Adam([features], lr=0.1)
    losses = []
    for _ in range(25):
        assignment = soft_slic(features, 9, 0.5, 5, temperature=0.1).assignment()
        loss = (project(pool(target.view(-1, 1), assignment), assignment)[:, 0] - target.view(-1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


# With pool and project


def test_the_assignment_is_a_sparse_matrix():
    features = photograph("coffee", 10)
    soft = soft_slic(features, 20, mask=disc(40, 60))
    assignment = soft.assignment()
    assert assignment.layout == torch.sparse_coo and assignment.is_coalesced()
    assert assignment.shape == (2400, soft.num_nodes)
    checked = torch.sparse_coo_tensor(soft.edge_index, soft.weight, assignment.shape, check_invariants=True)
    assert torch.equal(assignment.to_dense(), checked.to_dense())


def test_pool_and_project_are_matrix_products():
    features = photograph("coffee", 10, torch.float64)
    mask = disc(40, 60)
    soft = soft_slic(features, 20, mask=mask)
    assignment, dense, valid = soft.assignment(), soft.assignment().to_dense(), mask.flatten()
    values = torch.randn(2400, 4, dtype=torch.float64)
    pooled = pool(values, assignment, valid=valid)
    assert_close(pooled, dense.T @ values / dense.sum(0)[:, None])
    back = project(pooled, assignment, valid=valid, fill=-3.0)
    assert_close(back[valid], dense[valid] @ pooled)
    assert bool((back[~valid] == -3).all())
    # Centres are the pooled features and places.
    assert_close(pool(soft.features, assignment, valid=valid), soft.centres)
    assert torch.equal(soft.features[:, :3], features.flatten(1).T)


def test_places_are_steps_times_compactness():
    soft = soft_slic(torch.zeros(1, 20, 30, dtype=torch.float64), 6, 7.0, spacing=(2.0, 2.0))
    y, x = torch.meshgrid(torch.arange(20), torch.arange(30), indexing="ij")
    S = math.sqrt(20 * 30 / 6)  # pixels
    assert_close(soft.features[:, 1:], torch.stack([y, x], 2).view(-1, 2).double() * 7 / S)
    assert torch.equal(soft.weight, soft_slic(torch.zeros(1, 20, 30, dtype=torch.float64), 6, 7.0).weight)


# What must hold


def test_low_temperatures_give_hard_slic():
    y, x = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    classes = (x + 0.4 * y > 37).long() + 2 * (y - 0.3 * x > 11).long()
    image = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9], [0.9, 0.9, 0.3]])[classes].permute(2, 0, 1)
    for K in (6, 24, 40):
        hard = slic(image, K, min_size=0.0)
        soft = soft_slic(rgb_to_lab(image), K, temperature=1e-3)
        assert float(((soft.weight > 1e-3) & (soft.weight < 1 - 1e-3)).double().mean()) < 0.01
        assert (soft.labels(min_size=0.0) != hard).double().mean() < 0.005  # 1 / 64 of a unit apart
    flat = torch.full((3, 30, 40), 0.5)
    assert torch.equal(soft_slic(rgb_to_lab(flat), 12, temperature=1e-3).labels(), regular_grid(flat, 12))
    # A photograph's pixels are sorted alike but for a few.
    photo = torch.from_numpy(data.coffee()[::5, ::5].copy()).permute(2, 0, 1) / 255
    clusters = soft_slic(rgb_to_lab(photo), 60, temperature=1e-3).labels(connected=False)
    again = soft_slic(rgb_to_lab(photo), 60, temperature=1e-3, iterations=1).labels(connected=False)
    parts, hard = soft_slic(rgb_to_lab(photo), 60, temperature=1e-3).labels(min_size=0.0), slic(photo, 60, min_size=0.0)
    assert len(torch.unique(torch.stack([parts, clusters]).flatten(1), dim=1).T) == int(parts.max()) + 1
    borders = [(labels[:, 1:] != labels[:, :-1]) for labels in (parts, hard, again)]
    assert (borders[0] != borders[1]).sum() < 0.1 * borders[0].sum() < (borders[0] != borders[2]).sum()


def test_high_temperatures_share_evenly():
    soft = soft_slic(photograph("coffee", 10), 20, temperature=1e9)
    pixel = soft.edge_index[0]
    assert_close(soft.weight, 1 / torch.bincount(pixel)[pixel].float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("temperature", [1e-37, 1e-20, 1e20, 1e38])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_any_positive_temperature(temperature, scale):
    features = photograph("coffee", 12) * scale
    soft = soft_slic(features, 12, temperature=temperature)
    assert_graph(soft, torch.ones(features.shape[1:], dtype=torch.bool))
    assert bool(torch.isfinite(soft.centres).all())


def test_features_with_a_large_offset_lose_no_digits():
    features = torch.randn(2, 16, 16)
    offset = 4096.0  # centres are known to 2 ** -12, shares to several times that; squares would lose all digits
    moved = (features + offset) - offset
    assert_close(
        soft_slic(moved + offset, 9, 1.0, temperature=0.5).weight,
        soft_slic(moved.double(), 9, 1.0, temperature=0.5).weight.float(),
        rtol=0,
        atol=1e-2,
    )


def test_without_compactness_places_do_not_count():
    features = torch.randn(2, 12, 16, dtype=torch.float64)
    soft = soft_slic(features, 12, 0.0, temperature=0.1)
    assert torch.equal(soft.features, torch.cat([features.flatten(1).T, torch.zeros(192, 2, dtype=torch.float64)], 1))
    assert torch.equal(soft.weight, soft_slic(features, 12, 0.0, temperature=0.1, spacing=(3.0, 3.0)).weight)


def test_masks():
    features = photograph("coffee", 10)
    mask = disc(40, 60)
    soft = soft_slic(features, 30, mask=mask)
    assert_graph(soft, mask)
    assert 20 <= soft.num_nodes <= 45
    for connected in (False, True):
        assert torch.equal(soft.labels(connected=connected) >= 0, mask)
    changed = torch.where(mask, features, -features)
    assert torch.equal(soft_slic(changed, 30, mask=mask).weight, soft.weight)
    full = torch.ones(40, 60, dtype=torch.bool)
    assert torch.equal(soft_slic(features, 30, mask=full).weight, soft_slic(features, 30).weight)
    none = soft_slic([features, features], [5, 30], mask=[~full, mask])
    assert torch.equal(none.weight, soft.weight) and bool((none.batch == 1).all())
    assert bool((none.labels()[0] == -1).all()) and torch.equal(none.labels()[1], soft.labels())
    nothing = soft_slic(features, 5, mask=~full)
    assert nothing.num_nodes == 0 and nothing.weight.numel() == 0 and nothing.assignment().shape == (2400, 0)
    assert bool((nothing.labels() == -1).all()) and bool((nothing.labels(connected=False) == -1).all())


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 40)], ids=str)
def test_degenerate_images(shape):
    P = math.prod(shape)
    for features in (torch.zeros(1, *shape), torch.randn(4, *shape), torch.full((2, *shape), 1e6)):
        for K in (1, 2, P, 10 * P):
            soft = soft_slic(features, K)
            assert_graph(soft, torch.ones(shape, dtype=torch.bool))
            assert_connected(soft.labels(), torch.ones(shape, dtype=torch.bool))
        assert soft.num_nodes == P
        assert soft_slic(features, 1).num_nodes == 1 and not soft_slic(features, 1).labels().any()


# Labels


@pytest.mark.parametrize("min_size", [0.0, 0.3, 1.0])
def test_labels_are_connected(min_size):
    features = photograph("coffee", 6)
    mask = disc(*features.shape[1:])
    soft = soft_slic(features, 40, 1.0, mask=mask, temperature=5.0)
    labels = soft.labels(min_size=min_size)
    assert_connected(labels, mask)
    smallest = math.ceil(min_size * int(mask.sum()) / soft.num_nodes)
    assert int(torch.bincount(labels[mask]).min()) >= smallest
    clusters = soft.labels(connected=False)
    assert torch.equal(torch.unique(clusters[mask]), torch.arange(int(clusters.max()) + 1))
    if min_size == 0:  # every part of a cluster is a superpixel
        pairs = torch.unique(torch.stack([labels[mask], clusters[mask]]), dim=1)
        assert torch.equal(pairs[0], torch.arange(int(labels.max()) + 1))
        assert int(labels.max()) > int(clusters.max())


def test_labels_are_the_most_probable_of_equals_the_first():
    soft = soft_slic(photograph("coffee", 10), 20)
    dense = soft.assignment().to_dense().detach()
    found = torch.unique(dense.argmax(1), return_inverse=True)[1]
    assert torch.equal(soft.labels(connected=False).flatten(), found)
    # All features are equal, and so are all nine shares.
    even = soft_slic(torch.zeros(1, 6, 6), 9, 0.0).labels(connected=False)
    assert torch.equal(even, torch.tensor([[0, 0, 0, 0, 1, 1]] * 4 + [[2, 2, 2, 2, 3, 3]] * 2))


def test_labels_have_no_gradient():
    soft = soft_slic(photograph("coffee", 12).clone().requires_grad_(), 9)
    assert soft.weight.requires_grad and soft.centres.requires_grad and soft.assignment().requires_grad
    assert not soft.labels().requires_grad and not soft.labels(connected=False).requires_grad


def test_bad_min_size_is_refused():
    soft = soft_slic(photograph("coffee", 12), 9)
    for value in (-1.0, math.nan):
        with pytest.raises(ValueError, match=f"min_size={value}"):
            soft.labels(min_size=value)


# Memory


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor) and value.layout == torch.strided:
                self.numel = max(self.numel, value.numel())
        return out


def test_nothing_of_the_size_of_pixels_times_superpixels():
    features = torch.randn(3, 200, 200, requires_grad=True)
    P = 40_000
    with Largest() as largest:
        soft = soft_slic(features, 10_000, 1.0, iterations=2)
        back = project(pool(features.flatten(1).T, soft.assignment()), soft.assignment())
        back.square().sum().backward()
    assert soft.num_nodes == 10_000
    assert soft.edge_index.shape[1] <= largest.numel <= 30 * P  # nine around each, three features
    assert features.grad is not None and bool(torch.isfinite(features.grad).all())


# Bad input

IMAGE = torch.full((3, 4, 5), 0.5)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "integers": ({"features": IMAGE.to(torch.uint8)}, TypeError, r"dtype torch\.uint8 for features, expected floating"),
    "array": ({"features": IMAGE.numpy()}, TypeError, r"got ndarray for \w+, expected a torch\.Tensor"),
    "plane": ({"features": IMAGE[0]}, ValueError, r"shape \[4, 5\] for \w+, expected \[B, C, H, W\]"),
    "kinds": ({"features": [IMAGE, IMAGE[:1]]}, ValueError, r"of 2 kinds, expected one number of channels"),
    "no pixels": ({"features": IMAGE[:, :0]}, ValueError, r"expected at least one pixel and channel"),
    "nothing": ({"features": []}, ValueError, r"no images in features, expected at least one"),
    "NaN": ({"features": IMAGE * math.nan}, ValueError, r"60 NaN or infinite values in features"),
    "infinite": ({"features": IMAGE * math.inf}, ValueError, r"60 NaN or infinite values in features"),
    "no segments": ({"num_segments": 0}, ValueError, r"num_segments=0, expected at least 1"),
    "counts": ({"num_segments": [2, 3]}, ValueError, r"for num_segments, expected one number or one for each of 1 im"),
    "floats": ({"num_segments": [2.5]}, TypeError, r"got float for num_segments, expected an int"),
    "compactness": ({"compactness": -1.0}, ValueError, r"compactness=-1\.0, expected a finite number that is not neg"),
    "endless": ({"compactness": math.inf}, ValueError, r"compactness=inf, expected a finite number"),
    "iterations": ({"iterations": 0}, ValueError, r"iterations=0, expected at least 1"),
    "half a round": ({"iterations": 1.5}, TypeError, r"got float for iterations, expected an int"),
    "temperature": ({"temperature": 0.0}, ValueError, r"temperature=0\.0, expected a positive number"),
    "below zero": ({"temperature": torch.tensor(-1.0)}, ValueError, r"temperature=-1\.0, expected a positive number"),
    "NaN temperature": ({"temperature": math.nan}, ValueError, r"temperature=nan, expected a positive number"),
    "temperatures": ({"temperature": torch.ones(2)}, ValueError, r"temperature, expected"),
    "spacing": ({"spacing": (1.0,)}, ValueError, r"spacing=\(1\.0,\), expected 2 positive numbers"),
    "mask dtype": ({"mask": torch.ones(4, 5)}, TypeError, r"dtype torch\.float32 for mask, expected torch\.bool"),
    "mask shape": ({"mask": torch.ones(5, 4).bool()}, ValueError, r"shape \[5, 4\] for mask, expected \[4, 5\]"),
    "masks": ({"features": [IMAGE], "mask": []}, ValueError, r"0 masks, expected a list"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    arguments, error, message = BAD[name]
    with pytest.raises(error, match=message):
        soft_slic(**{"features": IMAGE, "num_segments": 4, **arguments})
