"""ES-CRF and the mean-field CRF against hand-made numbers, loops over the printed formulas, and their laws."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy, logsigmoid, one_hot
from torch.testing import assert_close
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.loader import DataLoader

from graphseg.nn.superpixel_crf import EmbeddedSuperpixelCRF, MeanFieldCRF, position_embedding
from graphseg.ops import affinity_offsets, offset_edges, pairwise
from graphseg.transforms import ToPixelGrid, ToSuperpixelRAG
from tests.ops.test_pairwise import Largest
from tests.reference import superpixel_crf as reference

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}
CHOICES = list(itertools.product(("degree", "none", "softmax"), ("pair", "neighbour")))
GRAPHS = ("window", "any", "all")


def complete(sizes, loops=False):
    """All pairs (j, i) of each image."""
    start = np.cumsum([0, *sizes])
    pairs = [
        (j, i)
        for s, n in zip(start, sizes, strict=False)
        for i in range(s, s + n)
        for j in range(s, s + n)
        if loops or i != j
    ]
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()


def problem(graph="window", height=3, width=4, channels=5, seed=0, dtype=torch.float64, device="cpu"):
    """x, image, pos, edge_index and assignment of one image; superpixels 1, 3 and 4 of 0 to 4 have pixels."""
    generator = torch.Generator().manual_seed(seed)
    P = height * width
    x = torch.randn(P, channels, generator=generator, dtype=torch.float64)
    image = torch.rand(P, 3, generator=generator, dtype=torch.float64)
    pos = torch.stack([torch.arange(P) % width, torch.arange(P) // width], 1).double()
    assignment = torch.tensor([1, 3, 4])[torch.randint(0, 3, (P,), generator=generator)]
    if graph == "window":
        edge_index = offset_edges(height, width, affinity_offsets([1, 2]), directed=True)
    elif graph == "any":  # with repeats and loops; the last pixel neither sends nor receives
        edge_index = torch.randint(0, P - 1, (2, 3 * P), generator=generator)
    else:
        edge_index = None
    values = [v.to(device, dtype) for v in (x, image, pos)]
    return (*values, None if edge_index is None else edge_index.to(device), assignment.to(device))


def layer(*args, seed=0, dtype=torch.float64, **kwargs):
    torch.manual_seed(seed)
    return EmbeddedSuperpixelCRF(*(args or (5, 3, 6)), **{"position_channels": 8, **kwargs}).to(dtype)


def mean_field(*args, dtype=torch.float64, **kwargs):
    made = MeanFieldCRF(*(args or (5,)), **{"theta": (2.0, 0.5, 1.0), **kwargs}).to(dtype)
    made.reset_parameters()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(made.compatibility.shape, generator=generator, dtype=torch.float64)
        made.compatibility += 0.3 * noise.to(dtype)
    return made


def by_loops(made, x, image, pos, edge_index, assignment, batch=None):
    """The reference with the layer's own convolutions."""

    def convolution(conv):
        weight, bias = conv.weight.detach().double().cpu().numpy(), conv.bias.detach().double().cpu().numpy()
        return lambda v: weight @ v + bias

    parts = [made.token] if made.tokens == "joint" else [made.color_token, made.position_token]
    convolutions = [convolution(part) for part in parts]

    def token(color, position):
        if len(convolutions) == 1:
            return convolutions[0](np.concatenate([color, position]))
        return np.concatenate([convolve(v) for convolve, v in zip(convolutions, (color, position), strict=True)])

    compatibility = convolution(made.compatibility)
    return reference.es_crf(
        x.detach().cpu().numpy(),
        image.cpu().numpy(),
        pos.cpu().numpy(),
        None if edge_index is None else edge_index.cpu(),
        assignment.tolist(),
        None if batch is None else batch.tolist(),
        lambda pair: float(compatibility(pair)[0]),
        token,
        position_channels=made.position_channels,
        norm=made.norm,
        mu=made.mu,
        exclude_self=made.exclude_self,
        pairwise_weight=made.pairwise_weight,
        superpixel_weight=made.superpixel_weight,
    )


def derivatives(run, inputs):
    """The output, and its gradients in the inputs for a fixed random direction."""
    inputs = [v for v in inputs if v is not None and v.is_floating_point()]
    for v in inputs:
        v.requires_grad_()
    out = run()
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return out, torch.autograd.grad(out, inputs, grad.to(out), allow_unused=True)


def assert_all_close(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert_close(a, b, **tolerance)


# Three pixels, by hand


def three_pixels():
    """Tokens are the image, 1, 2, 3, and the compatibility is 3/4 everywhere."""
    made = EmbeddedSuperpixelCRF(1, image_channels=1, token_channels=1, position_channels=4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.token.weight[0, 0] = 1
        made.compatibility.bias.fill_(math.log(3))
    x = torch.tensor([[1.0], [2.0], [4.0]])
    image = torch.tensor([[1.0], [2.0], [3.0]])
    return made, (x, image, torch.zeros(3, 2)), torch.tensor([0, 0, 1])


def test_es_crf_of_three_pixels():
    made, given, assignment = three_pixels()
    # psi(0, 1) = 1.5, psi(0, 2) = 2.25, psi(1, 2) = 4.5; superpixel means 1.5, 1.5, 4; Z = 4
    expected = [(1 + 12 + 1.5) / 4, (2 + 19.5 + 1.5) / 4, (4 + 11.25 + 4) / 4]
    assert_close(made(*given, None, assignment).squeeze(1), torch.tensor(expected))
    line = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2, Z = 3, 4, 3
    expected = [(1 + 3 + 1.5) / 3, (2 + 19.5 + 1.5) / 4, (4 + 9 + 4) / 3]
    assert_close(made(*given, line, assignment).squeeze(1), torch.tensor(expected))


def test_mean_field_of_three_pixels():
    gamma = math.sqrt(0.5 / math.log(2))  # the kernel is 1/2 at distance 1 and 1/16 at distance 2
    made = MeanFieldCRF(2, 1, weight=(0, 1), theta=(1, 1, gamma))
    scores = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]).log()
    pos = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    sums = torch.tensor([[0.890625, 0.671875], [1.125, 0.875], [0.65625, 0.90625]])
    out = made(scores, torch.zeros(3, 3), pos)
    assert_close(out.exp(), sums / torch.tensor([[1.5625], [2.0], [1.5625]]))
    # The appearance kernel falls with the color: 1/2 at distance 1 in space and 1 in color.
    made = MeanFieldCRF(2, 1, weight=(1, 0), theta=(math.sqrt(2) * gamma, math.sqrt(2) * gamma, 1))
    line = torch.tensor([[0, 1], [1, 0]])
    out = made(scores, torch.tensor([[0.0], [1.0], [0.0]]), pos, line)
    assert_close(out.exp(), torch.tensor([[0.875, 0.625], [1, 0.5], [0.375, 1.125]]) / 1.5)


def test_mean_field_of_three_pixels_by_exponentials():
    made = MeanFieldCRF(2, 1, weight=(0, 1), theta=(1, 1, math.sqrt(0.5 / math.log(2))), update="exp")
    scores = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
    pos = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    messages = torch.tensor([[0.390625, 0.171875], [0.375, 0.625], [0.40625, 0.15625]])
    assert_close(made(scores, torch.zeros(3, 3), pos), (scores + messages).log_softmax(1))


def test_position_embedding_is_the_printed_one():
    pos = torch.tensor([[0.0, 0.0], [3.0, 5.0], [96.0, 1.5]], dtype=torch.float64)
    expected = np.stack([reference.position_embedding(p.tolist(), 12) for p in pos])
    assert_close(position_embedding(pos, 12).numpy(), expected, **EXACT)
    # Shifted together, two positions keep their dot product.
    a, b = position_embedding(pos, 32), position_embedding(pos + 7, 32)
    assert_close(a @ a.t(), b @ b.t())


# Against the printed formulas


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("norm", "mu"), CHOICES)
@pytest.mark.parametrize("exclude_self", [True, False])
def test_es_crf_is_the_loop(norm, mu, graph, exclude_self, device):
    given = problem(graph, device=device)
    made = layer(norm=norm, mu=mu, exclude_self=exclude_self).to(device)
    assert_close(made(*given).detach().cpu().numpy(), by_loops(made, *given), **EXACT)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(
    "options",
    [
        {"tokens": "split"},
        {"pairwise_weight": 0.2, "superpixel_weight": 0.1},
        {"superpixel_weight": 0.0},
        {"pairwise_weight": 0.0},
        {"norm": "none", "mu": "neighbour", "tokens": "split", "exclude_self": False, "pairwise_weight": 0.2},
    ],
)
def test_es_crf_with_options_is_the_loop(graph, options):
    given = problem(graph)
    made = layer(**options)
    assert_close(made(*given).detach().numpy(), by_loops(made, *given), **EXACT)


@settings(max_examples=40)
@given(
    height=st.integers(1, 4), width=st.integers(1, 4), channels=st.integers(1, 3), graph=st.sampled_from(GRAPHS),
    choice=st.sampled_from(CHOICES), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_size(height, width, channels, graph, choice, seed):
    if height * width == 1 and graph == "any":
        graph = "window"
    given = problem(graph, height, width, channels, seed)
    made = layer(channels, 3, 2, *choice, seed=seed)
    assert_close(made(*given).detach().numpy(), by_loops(made, *given), **EXACT)


@pytest.mark.parametrize("graph", ["window", "any"])
@pytest.mark.parametrize("update", ["sum", "exp"])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_mean_field_is_the_loop(update, num_steps, graph, device):
    x, image, pos, edge_index, _ = problem(graph, device=device)
    made = mean_field(5, num_steps, update=update).to(device)
    out = made(x, image, pos, edge_index)
    theta = made.log_theta.exp().tolist()
    mu = made.compatibility.tolist()
    x, image, pos, edge_index = (v.cpu() for v in (x, image, pos, edge_index))
    expected = reference.mean_field(x, image, pos, edge_index, made.weight.tolist(), theta, mu, num_steps, update)
    assert_close(out.detach().cpu().numpy(), expected, **EXACT)
    assert_close(out.exp().sum(1), torch.ones(12, dtype=torch.float64, device=device))


def test_window_of_the_mean_field():
    """Without edges: all pixels within the radius, of one image."""
    x, image, pos, _, _ = problem(height=5, width=6)
    made = mean_field(radius=2)
    near = [(j, i) for i in range(30) for j in range(30) if i != j and ((pos[i] - pos[j]) ** 2).sum() <= 4]
    assert_close(made(x, image, pos), made(x, image, pos, torch.tensor(near).t()), **EXACT)
    batch = torch.arange(30) // 12
    same = [(j, i) for j, i in near if batch[i] == batch[j]]
    assert_close(made(x, image, pos, batch=batch), made(x, image, pos, torch.tensor(same).t()), **EXACT)


# Ways to the same result


@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize(("norm", "mu"), CHOICES)
def test_all_pairs_are_the_complete_graph(norm, mu, exclude_self, monkeypatch):
    monkeypatch.setattr(pairwise, "_TILE", {"cpu": 5})
    x, image, pos, _, assignment = problem("all")
    made = layer(norm=norm, mu=mu, exclude_self=exclude_self)
    inputs = [x, image, pos, *made.parameters()]
    streamed = derivatives(lambda: made(x, image, pos, None, assignment), inputs)
    edges = derivatives(lambda: made(x, image, pos, complete([12], loops=True), assignment), inputs)
    assert_close(streamed[0], edges[0], **EXACT)
    assert_all_close(streamed[1], edges[1], **EXACT)


@pytest.mark.parametrize("graph", ["window", "any"])
@pytest.mark.parametrize(("norm", "mu"), CHOICES)
def test_fused_es_crf_is_the_plain_one(norm, mu, graph, device, dtype, tolerance):
    given = problem(graph, dtype=dtype, device=device)
    fused = layer(norm=norm, mu=mu, dtype=dtype).to(device)
    plain = copy.deepcopy(fused)
    plain.fuse = False
    found = derivatives(lambda: fused(*given), [*given, *fused.parameters()])
    expected = derivatives(lambda: plain(*given), [*given, *plain.parameters()])
    assert_close(found[0], expected[0], **tolerance)
    assert_all_close(found[1], expected[1], **tolerance)


@pytest.mark.parametrize("update", ["sum", "exp"])
def test_fused_mean_field_is_the_plain_one(update, device, dtype, tolerance):
    given = problem("any", dtype=dtype, device=device)[:4]
    fused = mean_field(update=update, dtype=dtype).to(device)
    plain = copy.deepcopy(fused)
    plain.fuse = False
    found = derivatives(lambda: fused(*given), [*given, *fused.parameters()])
    expected = derivatives(lambda: plain(*given), [*given, *plain.parameters()])
    assert_close(found[0], expected[0], **tolerance)
    assert_all_close(found[1], expected[1], **tolerance)


def test_hooks_and_subclasses_see_messages():
    class Doubled(EmbeddedSuperpixelCRF):
        def message(self, x_j, weight):
            return 2 * super().message(x_j, weight)

    given = problem("any")
    made = layer()
    out = made(*given)
    doubled = Doubled(5, 3, 6, position_channels=8, pairwise_weight=0.5).double()
    doubled.load_state_dict(made.state_dict())
    made.norm = doubled.norm = "none"
    assert_close(doubled(*given), made(*given))
    made.norm = "degree"
    seen = []
    handle = made.register_message_forward_hook(lambda module, inputs, message: seen.append(message.shape))
    assert_close(made(*given), out)
    handle.remove()
    assert made(*given).equal(out) and seen == [(36, 5)]


@pytest.mark.parametrize("graph", ["window", "all"])
@pytest.mark.parametrize(("norm", "mu"), CHOICES)
def test_es_crf_gradients(norm, mu, graph, monkeypatch):
    monkeypatch.setattr(pairwise, "_TILE", {"cpu": 4})
    x, image, pos, edge_index, assignment = problem(graph, 2, 3, 2)
    made = layer(2, 3, 2, norm, mu, position_channels=4)
    inputs = [v.requires_grad_() for v in (x, image, pos)]
    weights = dict(made.named_parameters())

    def run(x, image, pos, *values):
        given = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(made, given, (x, image, pos, edge_index, assignment))

    assert gradcheck(run, (*inputs, *weights.values()))


@pytest.mark.parametrize("update", ["sum", "exp"])
def test_mean_field_gradients(update):
    x, image, pos, edge_index, _ = problem("window", 2, 3, 3)
    made = mean_field(3, 2, update=update)
    weights = dict(made.named_parameters())

    def run(x, image, pos, *values):
        return torch.func.functional_call(made, dict(zip(weights, values, strict=True)), (x, image, pos, edge_index))

    assert gradcheck(run, (*(v.requires_grad_() for v in (x, image, pos)), *weights.values()))


# Laws


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("norm", "mu"), CHOICES)
def test_a_batch_is_its_images(norm, mu, graph, monkeypatch):
    """Images of different sizes, superpixel ids that all start from 0, and an image without pixels between them."""
    monkeypatch.setattr(pairwise, "_TILE", {"cpu": 10})
    images = [problem(graph, height, 4, seed=height) for height in (3, 1, 2)]
    made = layer(norm=norm, mu=mu)
    alone = [made(*image) for image in images]
    x, image, pos, edges, assignment = zip(*images, strict=True)
    start = [0, 12, 16]
    edge_index = None if graph == "all" else torch.cat([e + s for e, s in zip(edges, start, strict=True)], 1)
    batch = torch.tensor([0, 2, 3]).repeat_interleave(torch.tensor([12, 4, 8]))
    inputs = (torch.cat(x), torch.cat(image), torch.cat(pos), edge_index)
    out = made(*inputs, torch.cat(assignment), batch)
    assert_close(out, torch.cat(alone), **EXACT)
    # Ids shifted image by image, as collation does, say the same.
    assert torch.equal(made(*inputs, torch.cat([a + 24 * k for k, a in enumerate(assignment)]), batch), out)


@pytest.mark.parametrize("update", ["sum", "exp"])
def test_a_batch_of_mean_fields_is_its_images(update):
    images = [problem("window", height, 4, seed=height)[:3] for height in (3, 1, 2)]
    made = mean_field(update=update)
    batch = torch.tensor([0, 2, 3]).repeat_interleave(torch.tensor([12, 4, 8]))
    out = made(*map(torch.cat, zip(*images, strict=True)), batch=batch)
    assert torch.equal(out, torch.cat([made(*image) for image in images]))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("norm", "mu"), CHOICES)
def test_order_of_pixels_edges_and_superpixels_does_not_matter(norm, mu, graph):
    x, image, pos, edge_index, assignment = problem(graph)
    batch = torch.arange(12) // 7
    if edge_index is not None:
        edge_index = edge_index[:, batch[edge_index[0]] == batch[edge_index[1]]]
    made = layer(norm=norm, mu=mu)
    out = made(x, image, pos, edge_index, assignment, batch)
    order = torch.randperm(12)
    if edge_index is not None:
        edge_index = order.argsort()[edge_index][:, torch.randperm(edge_index.size(1))]
    renamed = torch.tensor([9, 5, 9, 0, 2])[assignment]
    found = made(x[order], image[order], pos[order], edge_index, renamed[order], batch[order])
    assert_close(found, out[order], **EXACT)


@pytest.mark.parametrize("update", ["sum", "exp"])
def test_order_of_pixels_and_classes_does_not_matter_to_the_mean_field(update):
    x, image, pos, edge_index, _ = problem("any")
    made = MeanFieldCRF(5, update=update).double()
    out = made(x, image, pos, edge_index)
    order, classes = torch.randperm(12), torch.randperm(5)
    found = made(x[order][:, classes], image[order], pos[order], order.argsort()[edge_index])
    assert_close(found, out[order][:, classes], **EXACT)


def test_terms_of_the_ablation():
    """Without messages F* is (F + F^S) / 2, and without superpixels a pixel that gets no message stays as it is."""
    x, image, pos, edge_index, assignment = problem("any")
    out = layer(pairwise_weight=0.0)(x, image, pos, edge_index, assignment)
    blocks = one_hot(assignment, 5).double()
    mean = (blocks.t() @ x / blocks.sum(0).clamp(min=1)[:, None])[assignment]
    assert_close(out, (x + mean) / 2)
    out = layer(superpixel_weight=0.0)(x, image, pos, edge_index, None)
    assert torch.equal(out[-1], x[-1]) and not torch.equal(out[:-1], x[:-1])


@pytest.mark.parametrize("mu", ["pair", "neighbour"])
def test_softmax_weights_sum_to_one(mu):
    """Messages of equal features are these features, whatever the weights."""
    for graph in GRAPHS:
        x, image, pos, edge_index, assignment = problem(graph)
        made = layer(norm="softmax", mu=mu, superpixel_weight=0.0)
        out = made(torch.ones_like(x), image, pos, edge_index, assignment)
        assert_close(out[:-1], torch.full_like(x, 2.0)[:-1])
        assert_close(out[-1], torch.full_like(x[-1], 1.0 if graph == "any" else 2.0))


def test_exclude_self_drops_loops():
    x, image, pos, edge_index, assignment = problem("window")
    loops = torch.cat([edge_index, torch.arange(12).expand(2, -1)], 1)
    for norm in ("degree", "none", "softmax"):
        made = layer(norm=norm)
        assert_close(made(x, image, pos, loops, assignment), made(x, image, pos, edge_index, assignment))
    made = mean_field()
    assert_close(made(x, image, pos, loops), made(x, image, pos, edge_index))


def test_repeated_edges_count_twice():
    x, image, pos, edge_index, assignment = problem("window")
    made, twice = layer(norm="none"), layer(norm="none", pairwise_weight=2.0)
    doubled = torch.cat([edge_index, edge_index], 1)
    assert_close(made(x, image, pos, doubled, assignment), twice(x, image, pos, edge_index, assignment))


def test_number_of_steps_composes():
    """A step of `exp` starts from the probabilities of the one before, and keeps the first scores."""
    x, image, pos, edge_index, _ = problem("any")
    one, two = mean_field(5, 1), mean_field(5, 2)
    first = one(x, image, pos, edge_index)
    near = two(x, image, pos, edge_index)
    assert not torch.allclose(first, near)
    assert_close(mean_field(5, 60)(x, image, pos, edge_index), mean_field(5, 61)(x, image, pos, edge_index))


# Corners


@pytest.mark.parametrize(("norm", "mu"), CHOICES)
def test_no_pixels_no_edges_one_pixel(norm, mu):
    made = layer(norm=norm, mu=mu)
    x, image, pos, _, assignment = problem()
    none = torch.zeros(2, 0, dtype=torch.int64)
    for edge_index in (none, None):
        for batch in (None, torch.zeros(0, dtype=torch.int64)):
            empty = made(x[:0], image[:0], pos[:0], edge_index, assignment[:0], batch)
            assert empty.shape == (0, 5)
        one = made(x[:1], image[:1], pos[:1], edge_index, assignment[:1])
        assert_close(one, x[:1] * (1 if norm == "degree" else 2))
    lonely = made(x, image, pos, none, torch.arange(12), torch.zeros(12, dtype=torch.int64))
    assert_close(lonely, x * (1 if norm == "degree" else 2))


@pytest.mark.parametrize("update", ["sum", "exp"])
def test_mean_field_of_no_pixels_no_edges_one_pixel(update):
    made = mean_field(update=update)
    x, image, pos, _, _ = problem()
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert made(x[:0], image[:0], pos[:0]).shape == (0, 5)
    assert_close(made(x[:1], image[:1], pos[:1]), x[:1].log_softmax(1))
    assert_close(made(x, image, pos, none), x.log_softmax(1))


@pytest.mark.parametrize("graph", GRAPHS)
def test_equal_pixels_have_finite_gradients(graph):
    """All at one place, in one color, with one feature; a constant image."""
    x, image, pos, edge_index, assignment = problem(graph)
    same = [torch.full_like(v, 0.5).requires_grad_() for v in (x, image, pos)]
    for norm, mu in CHOICES:
        made = layer(norm=norm, mu=mu)
        _, grads = derivatives(lambda made=made: made(*same, edge_index, assignment), [*same, *made.parameters()])
        assert all(g is None or g.isfinite().all() for g in grads)
    for update in ("sum", "exp"):
        crf = mean_field(update=update)
        _, grads = derivatives(lambda crf=crf: crf(*same, edge_index), [*same, *crf.parameters()])
        assert all(g.isfinite().all() for g in grads)
        out = MeanFieldCRF(5, update=update).double()(*same, edge_index)
        assert_close(out.exp(), torch.full_like(out, 0.2))


@pytest.mark.parametrize("update", ["sum", "exp"])
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_certain_scores_have_finite_gradients(update, scale):
    x, image, pos, edge_index, _ = problem("window", dtype=torch.float32)
    made = mean_field(update=update, dtype=torch.float32)
    x = x * scale
    out, grads = derivatives(lambda: made(x, image, pos, edge_index), [x, image, pos, *made.parameters()])
    assert out.isfinite().all() and all(g.isfinite().all() for g in grads)


def test_negative_compatibilities_leave_probabilities():
    x, image, pos, edge_index, _ = problem("window")
    made = MeanFieldCRF(5).double()
    with torch.no_grad():
        made.compatibility.fill_(-10)
    out, grads = derivatives(lambda: made(x, image, pos, edge_index), [x, *made.parameters()])
    assert_close(out.exp().sum(1), torch.ones(12, dtype=torch.float64))
    assert out.isfinite().all() and all(g.isfinite().all() for g in grads)


# Training, and why it helps


def test_gradients_of_class_weights():
    """Equations 9 to 15: a pixel pushes its class weights along F_k; ES-CRF pushes them along F*_k."""
    x, image, pos, edge_index, assignment = problem("window")
    W = torch.randn(5, dtype=torch.float64, requires_grad=True)
    k = 6
    # Baseline, Equations 9 to 12
    (grad,) = torch.autograd.grad(-logsigmoid(x[k] @ W), W)
    assert_close(-grad, (1 - (x[k] @ W).sigmoid().detach()) * x[k])
    # Joint-CRF, Equation 13: the messages of the others change the size, not the direction
    crf = mean_field(2, 1, update="exp")
    score = x @ W
    score = torch.where(torch.arange(12) == k, score, score.detach())
    log_probability = crf(torch.stack([score, torch.zeros_like(score)], 1), image, pos, edge_index)[k, 0]
    (grad,) = torch.autograd.grad(-log_probability, W)
    assert_close(-grad, (1 - log_probability.exp().detach()) * x[k])
    # ES-CRF, Equations 14 and 15: F* takes the place of F
    made = layer(superpixel_weight=0.0)
    refined = made(x, image, pos, edge_index, assignment).detach()
    (grad,) = torch.autograd.grad(-logsigmoid(refined[k] @ W), W)
    weights = torch.zeros(12, dtype=torch.float64)
    for j in range(12):  # F*_k is linear in each F_j where the compatibility does not move
        weights[j] = _weight(made, x, image, pos, edge_index, k, j)
    total = (weights[:, None] * x).sum(0) + x[k]
    degree = int((edge_index[1] == k).sum())
    assert_close(refined[k], total / (1 + degree))
    assert_close(-grad, (1 - (refined[k] @ W).sigmoid().detach()) * total / (1 + degree))
    cosine = torch.nn.functional.cosine_similarity(-grad, x[k], dim=0)
    assert cosine < 0.999


def _weight(made, x, image, pos, edge_index, i, j):
    """psi(i, j), 0 where there is no edge."""
    if not ((edge_index[0] == j) & (edge_index[1] == i)).any():
        return 0.0
    f = made.token(torch.cat([image, position_embedding(pos, made.position_channels)], 1))
    mu = made.compatibility(torch.cat([x[i], x[j]])).sigmoid()
    return float(mu.detach() * (f[i] @ f[j]).detach())


def test_vanilla_is_offline_and_joint_is_trained():
    x, image, pos, edge_index, _ = problem("window")
    x.requires_grad_()
    offline, joint = MeanFieldCRF(5, trained=False).double(), MeanFieldCRF(5).double()
    out = offline(x, image, pos, edge_index)
    assert not out.requires_grad and not any(p.requires_grad for p in offline.parameters())
    assert_close(joint(x, image, pos, edge_index), out)
    assert list(offline.state_dict()) == list(joint.state_dict()) == ["weight", "log_theta", "compatibility"]


@pytest.mark.parametrize("update", ["sum", "exp"])
def test_joint_crf_learns(update):
    """Noisy scores of two halves of an image: every parameter moves, and the loss falls."""
    x, image, pos, _, _ = problem(height=8, width=8, channels=2)
    y = (pos[:, 0] > 3).long()
    x = x + 1.5 * one_hot(y, 2)
    made = MeanFieldCRF(2, 3, update=update).double()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    before = [p.detach().clone() for p in made.parameters()]
    losses = []
    for _ in range(15):
        loss = cross_entropy(made(x, image, pos), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02
    assert all(not torch.equal(p, b) for p, b in zip(made.parameters(), before, strict=True))


# Memory


@pytest.mark.parametrize(("graph", "limit"), [("window", 97 * 97 * 40), ("all", 97 * 97 * 200)])
def test_nothing_quadratic_is_in_memory(graph, limit):
    """Forward and backward at 97 x 97: nothing of N x N, and along edges nothing of edges x channels."""
    x, image, pos, _, assignment = problem("all", 97, 97, 16, dtype=torch.float32)
    edge_index = offset_edges(97, 97, affinity_offsets([2]), directed=True) if graph == "window" else None
    made = layer(16, 3, 4, dtype=torch.float32)
    with Largest() as largest:
        made(x.requires_grad_(), image, pos, edge_index, assignment).sum().backward()
    assert x.grad is not None and largest.elements < limit
    if edge_index is not None:
        made.fuse = False
        with Largest() as largest:
            made(x, image, pos, edge_index, assignment).sum().backward()
        assert largest.elements >= edge_index.size(1) * 16 > limit


# A module among others


@pytest.mark.parametrize("graph", ["window", "all"])
@pytest.mark.parametrize("norm", ["degree", "softmax"])
def test_autocast(graph, norm, device):
    given = problem(graph, dtype=torch.float32, device=device)
    made = layer(norm=norm, dtype=torch.float32).to(device)
    expected = made(*given)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = made(*given)
        assert out.dtype == torch.float32
        assert_close(out, expected, rtol=0.05, atol=0.05)
        assert made(given[0].bfloat16(), *given[1:]).dtype == torch.bfloat16
        out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_autocast_of_the_mean_field(device):
    x, image, pos, edge_index, _ = problem("window", dtype=torch.float32, device=device)
    made = mean_field(dtype=torch.float32).to(device)
    expected = made(x, image, pos, edge_index)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(made(x, image, pos, edge_index), expected)
        out = made(x.bfloat16(), image, pos, edge_index)
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), expected, rtol=0.05, atol=0.05)


def test_half_precision_parameters():
    given = problem("window", dtype=torch.bfloat16)
    out = layer(dtype=torch.bfloat16)(*given)
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), layer()(*problem("window")), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("tokens", ["joint", "split"])
def test_features_of_any_precision(tokens):
    """As they come out of a network under autocast, or in double precision."""
    x, *rest = problem("window", dtype=torch.float32)
    made = layer(tokens=tokens, dtype=torch.float32)
    expected = made(x, *rest)
    for other in (torch.float16, torch.bfloat16, torch.float64):
        assert made(x.to(other), *rest).dtype == other
        assert_close(made(x.to(other), *rest).float(), expected, rtol=0.05, atol=0.05)
    assert_close(made(x.double(), *rest).float(), expected)


def test_state_dict_copies_and_reset():
    given = problem("window")
    for made, other, inputs in (
        (layer(tokens="split"), layer(tokens="split", seed=1), given),
        (mean_field(), MeanFieldCRF(5).double(), given[:4]),
    ):
        out = made(*inputs)
        assert not torch.equal(other(*inputs), out)
        other.load_state_dict(made.state_dict())
        for same in (other, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert torch.equal(same(*inputs), out)
        made.reset_parameters()
        assert not torch.equal(made(*inputs), out)


def test_repr():
    assert repr(EmbeddedSuperpixelCRF(5)) == "EmbeddedSuperpixelCRF(5, norm='degree', mu='pair')"
    assert repr(MeanFieldCRF(3)) == "MeanFieldCRF(3, num_steps=5, update='sum', trained=True)"


# What torch.compile itself does where it breaks a graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("graph", "norm", "backend"), [("window", "degree", "aot_eager"), ("all", "softmax", "eager"), (None, "", "eager")]
)
def test_compile(graph, norm, backend):
    torch._dynamo.reset()
    given = problem(graph or "window") if graph else problem("window")[:4]
    made = layer(norm=norm) if graph else mean_field()
    compiled = torch.compile(made, backend=backend)
    inputs = [given[0], *made.parameters()]
    found = derivatives(lambda: compiled(*given), inputs)
    expected = derivatives(lambda: made(*given), inputs)
    assert_close(found[0], expected[0], **EXACT)
    assert_all_close(found[1], expected[1], **EXACT)


def test_explainer():
    x, image, pos, edge_index, assignment = problem("any")
    made = layer()
    before = made(x, image, pos, edge_index, assignment)

    # The layer takes edges as its fourth argument, an explainer's model as its second.
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = made

        def forward(self, x, edge_index):
            return self.layer(x, image, pos, edge_index, assignment)

    explainer = Explainer(
        Model(),
        GNNExplainer(epochs=20),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    explanation = explainer(x, edge_index)
    assert explanation.edge_mask.shape == (36,) and explanation.edge_mask.any()
    assert explanation.node_mask.shape == x.shape
    assert torch.equal(made(x, image, pos, edge_index, assignment), before)


def test_explainers_pass_through_graphs_made_here():
    """The mask is for the edges that are given, and these layers are given none."""
    x, image, pos, edge_index, assignment = problem("any", dtype=torch.float32)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.field, self.layer = mean_field(dtype=torch.float32), layer(dtype=torch.float32)

        def forward(self, x, edge_index):
            x = self.layer(self.field(x, image, pos), image, pos, None, assignment)
            return self.layer(x, image, pos, edge_index, assignment)

    model = Model()
    before = model(x, edge_index)
    explainer = Explainer(
        model,
        GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    assert explainer(x, edge_index).edge_mask.shape == (36,)
    assert torch.equal(model(x, edge_index), before)


# Photographs


def test_photographs_through_transforms():
    """Pixels of two photographs in one batch, with SLIC superpixels: both layers, and the images one by one."""
    torch.manual_seed(0)
    made = EmbeddedSuperpixelCRF(3)
    graphs = []
    for photo in (data.astronaut()[:160:8, 100:260:8], data.chelsea()[:180:10, 60:260:10]):
        image = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)
        grid = ToPixelGrid(8, ("mean",))(Data(image=image))
        grid.segment = ToSuperpixelRAG(12)(Data(image=image)).assignment
        graphs.append(grid)
    graph = next(iter(DataLoader(graphs, batch_size=2)))
    for edges in (True, False):
        out = made(graph.x, graph.x, graph.pos, graph.edge_index if edges else None, graph.segment, graph.batch)
        alone = [made(g.x, g.x, g.pos, g.edge_index if edges else None, g.segment) for g in graphs]
        assert_close(out, torch.cat(alone), rtol=1e-4, atol=1e-4)
    x, pos, segment = (v[:60] for v in (graph.x, graph.pos, graph.segment))
    found, out = by_loops(made, x, x, pos, complete([60]), segment), made(x, x, pos, None, segment)
    assert_close(out.detach().double().numpy(), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("update", ["sum", "exp"])
@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
def test_mean_field_cleans_noisy_scores(photo, update):
    """Three classes by brightness; a third of the pixels is wrong before, and less than a tenth after."""
    image = torch.from_numpy(getattr(data, photo)()[:384:4, :384:4] / 255.0).float()  # [96, 96, 3]
    smooth = torch.nn.functional.avg_pool2d(image.mean(2)[None, None], 5, 1, 2).flatten()
    y = torch.bucketize(smooth, smooth.quantile(torch.tensor([1 / 3, 2 / 3])))
    generator = torch.Generator().manual_seed(0)
    scores = 2 * one_hot(y, 3) + 1.5 * torch.randn(96 * 96, 3, generator=generator)
    graph = ToPixelGrid()(Data(image=(image * 255).byte().permute(2, 0, 1)))
    refined = MeanFieldCRF(3, update=update, trained=False)(scores, image.flatten(0, 1), graph.pos)
    assert (scores.argmax(1) != y).float().mean() > 0.25
    assert (refined.argmax(1) != y).float().mean() < 0.15


# Errors


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "channels=0, expected at least 1"),
        ((5, 0), {}, "image_channels=0"),
        ((5, 3, 0), {}, "token_channels=0"),
        ((5, 3, 4, "sum"), {}, "norm='sum', expected one of 'degree', 'none', 'softmax'"),
        ((5, 3, 4, "none", "both"), {}, "mu='both', expected one of 'pair', 'neighbour'"),
        ((5,), {"tokens": "two"}, "tokens='two', expected one of 'joint', 'split'"),
        ((5,), {"position_channels": 6}, "position_channels=6, expected a multiple of 4"),
        ((5, 3, 7), {"tokens": "split"}, "token_channels=7 with tokens='split', expected an even number"),
        ((5,), {"pairwise_weight": -1.0}, "pairwise_weight=-1.0, expected a finite number of at least 0"),
        ((5,), {"superpixel_weight": math.nan}, "superpixel_weight=nan, expected a finite number"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        EmbeddedSuperpixelCRF(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes=0, expected at least 1"),
        ({"num_steps": 0}, "num_steps=0, expected at least 1"),
        ({"weight": (1.0,)}, r"weight=\(1.0,\), expected 2 finite numbers"),
        ({"weight": (1.0, math.inf)}, "expected 2 finite numbers"),
        ({"theta": (1.0, 2.0)}, r"theta=\(1.0, 2.0\), expected 3 finite numbers above 0"),
        ({"theta": (1.0, 0.0, 1.0)}, "expected 3 finite numbers above 0"),
        ({"update": "product"}, "update='product', expected one of 'sum', 'exp'"),
        ({"radius": 0}, "radius=0, expected a number above 0"),
    ],
)
def test_bad_arguments_of_the_mean_field(options, message):
    with pytest.raises(ValueError, match=message):
        MeanFieldCRF(**{"num_classes": 3, **options})


def test_bad_inputs():
    x, image, pos, edge_index, assignment = problem()
    made, crf = layer(), mean_field()
    batch = torch.zeros(12, dtype=torch.int64)
    with pytest.raises(ValueError, match="got 4 channels in x, expected channels=5"):
        made(x[:, 1:], image, pos, edge_index, assignment)
    with pytest.raises(ValueError, match="got 2 channels in image, expected image_channels=3"):
        made(x, image[:, 1:], pos, edge_index, assignment)
    with pytest.raises(ValueError, match="got 4 classes in x, expected num_classes=5"):
        crf(x[:, 1:], image, pos, edge_index)
    with pytest.raises(ValueError, match="got no assignment, expected one with superpixel_weight=1"):
        made(x, image, pos, edge_index, None)
    with pytest.raises(ValueError, match=r"\[11\] for assignment, expected \[12\]"):
        made(x, image, pos, edge_index, assignment[1:])
    with pytest.raises(TypeError, match="float64 for assignment"):
        made(x, image, pos, edge_index, assignment.double())
    for given_batch in (None, batch):
        with pytest.raises(ValueError, match="assignment id -3"):
            made(x, image, pos, edge_index, assignment - 4, given_batch)
    for module, rest in ((made, (edge_index, assignment)), (crf, (edge_index,))):
        with pytest.raises(TypeError, match="int64 for x, expected a floating-point dtype"):
            module(x.long(), image, pos, *rest)
        with pytest.raises(TypeError, match="uint8 for image, expected a floating-point dtype"):
            module(x, image.byte(), pos, *rest)
        with pytest.raises(TypeError, match="int64 for pos, expected a floating-point dtype"):
            module(x, image, pos.long(), *rest)
        with pytest.raises(ValueError, match=r"\[11, 3\] for image, expected \[12, \*\]"):
            module(x, image[1:], pos, *rest)
        with pytest.raises(ValueError, match=r"\[12, 1\] for pos, expected \[12, 2\]"):
            module(x, image, pos[:, 1:], *rest)
        with pytest.raises(ValueError, match=r"node id 99 in edge_index, expected ids in \[0, 12\)"):
            module(x, image, pos, edge_index.clamp(max=0) + 99, *rest[1:])
        with pytest.raises(TypeError, match="int32 for edge_index"):
            module(x, image, pos, edge_index.int(), *rest[1:])
        with pytest.raises(TypeError, match="float64 for batch"):
            module(x, image, pos, *rest, batch=batch.double())
        with pytest.raises(ValueError, match=r"\[11\] for batch, expected \[12\]"):
            module(x, image, pos, *rest, batch=batch[1:])
        with pytest.raises(ValueError, match="batch=-1, expected ids of at least 0"):
            module(x, image, pos, *rest, batch=batch - 1)
