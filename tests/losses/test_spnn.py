"""The losses of the superpixel network against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from torch.autograd import gradcheck
from torch.testing import assert_close

from graphseg.losses.spnn import SPNNLoss, clustering_loss, edge_loss, smoothness_loss, superpixelate
from graphseg.losses.variation import total_variation
from graphseg.transforms import ToSuperpixelRAG
from tests.reference import losses as reference
from tests.transforms.photos import photograph

SIZES = [(1, 1), (1, 6), (5, 1), (2, 2), (4, 5)]


def problem(size=(4, 5), images=2, superpixels=3, channels=3, seed=0, device="cpu", dtype=torch.float64):
    """Probabilities, an image, and a reconstruction of it."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(images, c, *size, generator=generator).double() for c in (superpixels, channels, channels)]
    return [x.to(device, dtype) for x in (draw[0].softmax(1), draw[1], draw[2])]


def mask(size=(4, 5), images=2, seed=1):
    """The first image has at least one valid pixel; the last has none where there are several."""
    valid = torch.rand(images, *size, generator=torch.Generator().manual_seed(seed)) < 0.7
    valid[0, 0, 0] = True
    valid[1:] &= images < 3
    return valid


def by_loop(P, image, reconstructed, valid, lam=2.0, sigma=10.0):
    """The terms of each image."""
    terms = []
    for b in range(len(P)):
        v = None if valid is None else valid[b].cpu().numpy()
        p, i, r = (x[b].cpu().double().numpy() for x in (P, image, reconstructed))
        if v is not None and not v.any():
            terms.append([0.0] * 4)
            continue
        soft = reference.superpixelate(i, p, valid=v)
        keep = slice(None) if v is None else v
        error = sum(((i - other)[:, keep] ** 2).sum() / i[:, keep].size for other in (r, soft))
        edges = sum(reference.edge_divergence(i, other, valid=v) for other in (r, soft))
        terms.append([reference.clustering(p, lam, v), reference.smoothness(p, i, sigma, v), error, edges])
    return torch.tensor(terms, dtype=torch.float64).T


def test_three_pixels_by_hand():
    P = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]], dtype=torch.float64)
    image = torch.tensor([[[[1.0, 3.0, 5.0]]]], dtype=torch.float64)
    assert superpixelate(image, P).tolist() == superpixelate(image, P, hard=True).tolist() == [[[[2, 2, 5]]]]
    size = 2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)
    assert_close(clustering_loss(P, 2.0).item(), 2 * size)  # certain pixels: no entropy of theirs
    assert_close(smoothness_loss(P, image, 10.0).item(), 2 * math.exp(-4 / 10) / 3)
    # Laplacians (-2, 0, 2) and, of the superpixelated image (2, 2, 5), (0, -3, 3).
    maps = [[math.exp(v) / sum(map(math.exp, row)) for v in row] for row in ([-2, 0, 2], [0, -3, 3])]
    divergence = sum(a * math.log(a / b) for a, b in zip(*maps, strict=True))
    assert_close(edge_loss(image, superpixelate(image, P)).item(), divergence)
    # Soft: superpixels of means (1 + 3/2) / (3/2) = 5/3 and (3/2 + 5) / (3/2) = 13/3.
    half = torch.tensor([[[[1.0, 0.5, 0.0]], [[0.0, 0.5, 1.0]]]], dtype=torch.float64)
    assert_close(superpixelate(image, half).flatten(), torch.tensor([5 / 3, 3, 13 / 3], dtype=torch.float64))
    loss = SPNNLoss(2.0, 5.0, 1.0)(P, image, image)
    assert_close(loss.item(), 2 * size + 2 * 2 * math.exp(-0.4) / 3 + 5 * 2 / 3 + divergence)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_terms_are_the_loop(size, masked, device, dtype, tolerance):
    P, image, reconstructed = problem(size, device=device, dtype=dtype)
    valid = mask(size).to(device) if masked else None
    criterion = SPNNLoss(alpha=1.5, beta=3.0, eta=0.5)
    terms = criterion.terms(P, image, reconstructed, valid=valid)
    expected = by_loop(P, image, reconstructed, valid)
    assert_close(torch.stack(list(terms.values())).cpu().double(), expected, **tolerance)
    total = torch.tensor([1, 1.5, 3, 0.5], dtype=torch.float64) @ expected
    count = 2 if valid is None else int(valid.flatten(1).any(1).sum())
    found = criterion(P, image, reconstructed, valid=valid, reduction="sum", return_count=True)
    assert_close(found.cpu().double(), torch.tensor([total.sum(), count], dtype=torch.float64), **tolerance)
    assert_close(criterion(P, image, reconstructed, valid=valid).cpu().double(), total.sum() / count, **tolerance)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_edges_are_the_loop(connectivity, masked):
    _, image, other = problem()
    valid = mask() if masked else None
    found = edge_loss(image, other, connectivity=connectivity, valid=valid)
    for b in range(2):
        v = None if valid is None else valid[b].numpy()
        expected = reference.edge_divergence(image[b].numpy(), other[b].numpy(), connectivity, v)
        assert found[b].item() == pytest.approx(expected, abs=1e-10)
    assert (edge_loss(image, image) == 0).all() and (found > 0).all()
    # Edges do not see a constant; the border is no edge.
    assert_close(edge_loss(image + 7, other - 3), edge_loss(image, other))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_superpixelated_images_are_the_loop(hard, masked, device, dtype, tolerance):
    P, image, _ = problem(superpixels=5, device=device, dtype=dtype)
    P[:, 2] = 0  # a superpixel without pixels
    valid = mask() if masked else None
    found = superpixelate(image, P, hard=hard, valid=None if valid is None else valid.to(device))
    for b in range(2):
        v = None if valid is None else valid[b].numpy()
        expected = reference.superpixelate(image[b].cpu().double().numpy(), P[b].cpu().double().numpy(), hard, v)
        assert_close(found[b].cpu().double(), torch.from_numpy(expected), **tolerance)


def test_hard_is_soft_for_certain_probabilities_and_both_keep_the_mean():
    P, image, _ = problem((6, 7))
    certain = torch.nn.functional.one_hot(P.argmax(1), 3).movedim(3, 1).double()
    assert_close(superpixelate(image, certain), superpixelate(image, P, hard=True))
    assert_close(superpixelate(image, P).mean((2, 3)), image.mean((2, 3)))
    assert_close(superpixelate(image, P, hard=True).mean((2, 3)), image.mean((2, 3)))
    assert_close(superpixelate(image, torch.full_like(P, 1 / 3)), image.mean((2, 3), keepdim=True).expand_as(image))


def test_smoothness_without_contrast_is_total_variation():
    P, image, _ = problem()
    assert_close(smoothness_loss(P, torch.zeros_like(image)).mean(), total_variation(P))
    assert (smoothness_loss(P, image, 0.1) < smoothness_loss(P, image, 10.0)).all()


def test_clustering_is_lowest_for_certain_pixels_in_superpixels_of_equal_size():
    labels = torch.arange(12).view(1, 3, 4) % 4
    best = clustering_loss(torch.nn.functional.one_hot(labels, 4).movedim(3, 1).double())
    assert_close(best.item(), -2 * math.log(4))
    for seed in range(5):
        assert clustering_loss(problem((3, 4), 1, 4, seed=seed)[0]) > best


def test_gradients():
    P, image, reconstructed = (x.requires_grad_() for x in problem((3, 3)))
    valid = mask((3, 3))
    for v in (None, valid):
        assert gradcheck(lambda *x, v=v: SPNNLoss()(*x, valid=v), (P, image, reconstructed))
    assert gradcheck(lambda i: superpixelate(i, P.detach(), hard=True), (image,))


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_certain_and_constant_inputs_have_finite_gradients(scale, dtype):
    logits = (torch.randn(1, 4, 5, 5).to(dtype) * scale).requires_grad_()  # at 1e4 the others' probability is 0
    image = torch.ones(1, 3, 5, 5, dtype=dtype)
    loss = SPNNLoss()(logits.softmax(1), image, torch.zeros_like(image))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    superpixels=st.integers(1, 4),
    channels=st.integers(1, 4),
)
def test_any_size(seed, size, superpixels, channels):
    P, image, reconstructed = problem(size, 3, superpixels, channels, seed)
    valid = mask(size, 3, seed)
    terms = SPNNLoss().terms(P, image, reconstructed, valid=valid)
    assert_close(torch.stack(list(terms.values())), by_loop(P, image, reconstructed, valid), rtol=1e-10, atol=1e-10)


def test_batch_is_singles():
    P, image, reconstructed = problem(images=3)
    for valid in (None, torch.rand(3, 4, 5) < 0.8):
        whole = SPNNLoss().terms(P, image, reconstructed, valid=valid)
        for b in range(3):
            part = slice(b, b + 1)
            one = SPNNLoss().terms(
                P[part], image[part], reconstructed[part], valid=None if valid is None else valid[part]
            )
            for name, value in one.items():
                assert_close(whole[name][part], value, rtol=0, atol=1e-14)


def test_order_of_superpixels_does_not_matter():
    P, image, reconstructed = problem(superpixels=5)
    order = torch.randperm(5)
    assert_close(SPNNLoss()(P[:, order], image, reconstructed), SPNNLoss()(P, image, reconstructed))


def test_nothing_left_is_zero_and_pixels_that_are_not_valid_are_not_read():
    P, image, reconstructed = (x.requires_grad_() for x in problem())
    loss = SPNNLoss()(P, image, reconstructed, valid=torch.zeros(2, 4, 5, dtype=torch.bool), return_count=True)
    assert loss.tolist() == [0, 0]
    loss[0].backward()
    assert (P.grad == 0).all() and (reconstructed.grad == 0).all()
    assert SPNNLoss()(P[:0], image[:0], reconstructed[:0]) == 0
    valid = mask()
    holes = [x.detach().masked_fill(~valid.unsqueeze(1), torch.nan).requires_grad_() for x in (P, image, reconstructed)]
    loss = SPNNLoss()(*holes, valid=valid)
    loss.backward()
    assert_close(loss, SPNNLoss()(P, image, reconstructed, valid=valid))
    assert all(x.grad.isfinite().all() for x in holes)
    soft = superpixelate(holes[1], holes[0], valid=valid)
    hard = superpixelate(holes[1], holes[0], hard=True, valid=valid)
    outside = (~valid.unsqueeze(1)).expand_as(image)
    assert (soft[outside] == 0).all() and (hard[outside] == 0).all()


def test_a_photograph_and_its_superpixels():
    """The nodes of a graph of regions are the hard superpixelated image."""
    photo = photograph()
    graph = ToSuperpixelRAG(20, node_features=("mean",))(photo)
    image = photo.image.double().unsqueeze(0) / 255
    certain = torch.nn.functional.one_hot(graph.project(torch.arange(graph.num_nodes)), graph.num_nodes)
    P = certain.movedim(2, 0).unsqueeze(0).double()
    assert_close(superpixelate(image, P)[0].float(), graph.project(graph.x))
    assert_close(superpixelate(image, P, hard=True)[0].float(), graph.project(graph.x))


def test_training_on_a_photograph_finds_regions():
    image = torch.from_numpy(data.coffee()[::10, ::10].copy()).movedim(2, 0)[None].float() / 255
    logits = torch.randn(1, 6, *image.shape[2:], generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    criterion = SPNNLoss()
    first = criterion.terms(logits.softmax(1), image, image)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(logits.softmax(1), image, image).backward()
        optimizer.step()
    last = criterion.terms(logits.softmax(1), image, image)
    assert all(last[name] < first[name] for name in ("clustering", "smoothness", "recon"))


def test_autocast_multiplies_in_float32(device):
    P, image, reconstructed = problem((32, 32), device=device, dtype=torch.float32)
    with torch.autocast(device.type, torch.bfloat16):
        found = SPNNLoss()(P, image, reconstructed)
        assert_close(found.double(), SPNNLoss()(P.double(), image.double(), reconstructed.double()), rtol=1e-4, atol=0)
        assert SPNNLoss()(P.bfloat16(), image.bfloat16(), reconstructed.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("hard", [False, True])
def test_inputs_of_two_precisions(hard):
    """Probabilities of a network in float32, an image in float64."""
    P, image, reconstructed = problem()
    for other in (torch.float32, torch.bfloat16):
        expected = superpixelate(image, P.to(other).double(), hard=hard)
        assert_close(superpixelate(image, P.to(other), hard=hard), expected)
        assert SPNNLoss()(P.to(other), image, reconstructed).dtype == torch.float64
        assert SPNNLoss()(P, image.to(other), reconstructed).dtype == torch.float64


def test_module_says_what_it_is():
    assert repr(SPNNLoss(1, 5, 0.5)) == "SPNNLoss(alpha=1, beta=5, eta=0.5, lam=2.0, sigma=10.0)"
    assert not SPNNLoss().state_dict()


def test_bad_input_is_refused_by_name():
    P, image, reconstructed = problem()
    with pytest.raises(ValueError, match="got 2 channels in reconstructed, expected 3 as in image"):
        SPNNLoss()(P, image, reconstructed[:, :2])
    with pytest.raises(ValueError, match=r"for probability, expected 2 maps of size \[4, 5\] as image"):
        superpixelate(image, P[..., 1:])
    with pytest.raises(ValueError, match="for probability, expected"):
        clustering_loss(P[0])
    with pytest.raises(ValueError, match="got sigma=0, expected a positive number"):
        smoothness_loss(P, image, 0)
    with pytest.raises(ValueError, match="got connectivity=6"):
        edge_loss(image, reconstructed, connectivity=6)
    with pytest.raises(ValueError, match="got 1 channels in other, expected 3"):
        edge_loss(image, reconstructed[:, :1])
    with pytest.raises(TypeError, match=r"got dtype torch\.uint8 for image"):
        superpixelate(image.to(torch.uint8), P)
    with pytest.raises(ValueError, match="for valid, expected"):
        clustering_loss(P, valid=torch.ones(2, 5, 4, dtype=torch.bool))
