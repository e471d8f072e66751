"""The class-wise graph convolution against loops over the printed formula, and its laws."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch.autograd import gradcheck
from torch.testing import assert_close
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer, GNNExplainer

from graphseg.nn.class_wise_gcn import ClassWiseGraphConv, class_linear, sample_share
from graphseg.transforms import ToSuperpixelRAG
from tests.reference import class_wise_gcn as reference

M, C = 4, 3


def problem(nodes=40, images=3, dtype=torch.float64, device="cpu", seed=0):
    """x, coarse, y (some without a label) and batch."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, C, generator=generator, dtype=torch.float64)
    coarse = torch.randn(nodes, M, generator=generator, dtype=torch.float64)
    y = coarse.argmax(1) if nodes else torch.zeros(0, dtype=torch.int64)
    other = torch.randint(0, M, (nodes,), generator=generator)
    y = torch.where(torch.rand(nodes, generator=generator) < 0.5, other, y)
    y[torch.rand(nodes, generator=generator) < 0.1] = -100
    batch = torch.randint(0, images, (nodes,), generator=generator).sort().values
    return x.to(device, dtype), coarse.to(device, dtype), y.to(device), batch.to(device)


def layer(dtype=torch.float64, device="cpu", **options):
    """A layer with a bias that is not zero."""
    made = ClassWiseGraphConv(C, M, **options).to(device, dtype)
    if made.bias is not None:
        torch.nn.init.normal_(made.bias)
    return made


def expected_of(made, x, coarse, y=None, batch=None, **options):
    """The reference with the layer's parameters."""
    arrays = {name: p.detach().cpu().double().numpy() for name, p in made.named_parameters()}
    return reference.class_wise(
        x.detach().cpu().double().numpy(),
        coarse.argmax(1).tolist() if len(coarse) else [],
        arrays["phi.weight"],
        arrays["phi_prime.weight"],
        arrays["weight"],
        arrays["combine"],
        arrays.get("bias", 0.0),
        made.fusion,
        None if y is None else y.tolist(),
        None if batch is None else batch.tolist(),
        k=made.top_k,
        binary=made.binary,
        **options,
    )


# Values


def test_three_nodes_by_hand():
    """Nodes 0 and 1 are of class 0, node 2 of class 1. phi is 0 for node 0, so its neighbours weigh the same."""
    made = ClassWiseGraphConv(1, 2, fusion="sum").double()
    with torch.no_grad():
        made.phi.weight.fill_(math.log(3))
        made.phi_prime.weight.fill_(1)
        made.weight.copy_(torch.tensor([2.0, -1]).view(2, 1, 1))
        made.combine.copy_(torch.tensor([10.0, 10]).view(2, 1, 1))
        made.bias.fill_(0.5)
    x = torch.tensor([[0.0], [1], [5]], dtype=torch.float64)
    coarse = torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1]])
    # Node 0: mean of 0 and 1. Node 1: weights 1 : 3, so 3/4. Node 2: 5, and ReLU(-5) = 0.
    expected = torch.tensor([[0 + 10 * 2 * 0.5 + 0.5], [1 + 10 * 2 * 0.75 + 0.5], [5 + 0.5]], dtype=torch.float64)
    assert_close(made.eval()(x, coarse), expected)
    # In training node 2, of class 0 in truth, is a node of both classes. Node 0: (0 + 1 + 5) / 3; node 1: weights
    # 3^0, 3^1, 3^5; node 2: 5 of class 1 still gives 0, and in class 0 weights 3^0, 3^5, 3^25.
    mixed = [2.0, (3 + 5 * 3**5) / (1 + 3 + 3**5), (3**5 + 5 * 3.0**25) / (1 + 3**5 + 3.0**25)]
    expected = x + 20 * torch.tensor(mixed, dtype=torch.float64).view(3, 1) + 0.5
    assert_close(made.train()(x, coarse, torch.tensor([0, 0, 0])), expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "sum"},
        {"shared": True},
        {"bias": False},
        {"top_k": 3},
        {"top_k": 2, "binary": True},
        {"top_k": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["similarity", "sampling", "inference"])
def test_layer_is_the_loop(mode, options, device, dtype, tolerance):
    x, coarse, y, batch = problem(dtype=dtype, device=device)
    made = layer(dtype, device, **options).train(mode != "inference")
    out = made(x, coarse, None if mode == "similarity" else y, batch)
    assert out.dtype == dtype and out.device.type == device.type
    expected = expected_of(made, x, coarse, y if mode == "sampling" else None, batch)
    assert_close(out.detach().cpu().double().numpy(), expected, **tolerance)


@pytest.mark.parametrize("positives", [True, False])
@pytest.mark.parametrize("negatives", [True, False])
def test_hard_nodes_are_switched(positives, negatives):
    x, coarse, y, batch = problem()
    made = layer(hard_positives=positives, hard_negatives=negatives)
    expected = expected_of(made, x, coarse, y, batch, hard_positives=positives, hard_negatives=negatives)
    assert_close(made(x, coarse, y, batch).detach().numpy(), expected)


def test_one_class_is_the_plain_graph_convolution():
    x, _, _, batch = problem()
    made = ClassWiseGraphConv(C, 1, fusion="sum", bias=False).double()
    query, key = x @ made.phi.weight.T, x @ made.phi_prime.weight.T
    score = (query @ key.T).masked_fill(batch[:, None] != batch, -math.inf)
    expected = x + (score.softmax(1) @ x @ made.weight[0]).relu() @ made.combine[0]
    assert_close(made(x, torch.zeros(len(x), 1), None, batch), expected)


@settings(max_examples=40)
@given(
    nodes=st.integers(0, 25),
    images=st.integers(1, 4),
    options=st.fixed_dictionaries(
        {"fusion": st.sampled_from(["concat", "sum"]), "shared": st.booleans(), "top_k": st.sampled_from([None, 1, 4])}
    ),
    labelled=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_graph(nodes, images, options, labelled, seed):
    x, coarse, y, batch = problem(nodes, images, seed=seed)
    made = layer(**options)
    out = made(x, coarse, y if labelled else None, batch)
    assert_close(out.detach().numpy(), expected_of(made, x, coarse, y if labelled else None, batch))


# Sampling


def test_easy_positives_are_sampled_in_their_share():
    group = torch.tensor([0, 1, 2, 3, 5]).repeat_interleave(torch.tensor([10, 5, 2, 1, 400]))
    chosen = torch.ones(len(group), dtype=torch.bool)
    chosen[:2] = False
    for ratio, wanted in ((0.0, [0] * 5), (0.2, [2, 1, 0, 0, 80]), (0.5, [4, 3, 1, 1, 200]), (1.0, [8, 5, 2, 1, 400])):
        kept = sample_share(chosen, group, ratio)
        assert not (kept & ~chosen).any()
        assert torch.bincount(group[kept], minlength=6)[[0, 1, 2, 3, 5]].tolist() == wanted


def test_every_easy_positive_is_as_likely():
    chosen, group = torch.ones(20, dtype=torch.bool), torch.arange(20) % 2
    generator = torch.Generator().manual_seed(3)
    times = sum(sample_share(chosen, group, 0.3, generator).double() for _ in range(4000)) / 4000
    assert_close(times, torch.full((20,), 0.3).double(), atol=0.03, rtol=0)


def test_generator_makes_the_sample():
    x, coarse, y, batch = problem(200)
    made = layer(ratio=0.5)
    state = torch.get_rng_state()
    out = made(x, coarse, y, batch, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(out, made(x, coarse, y, batch, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(out, made(x, coarse, y, batch, generator=torch.Generator().manual_seed(2)))
    assert not torch.equal(out, made(x, coarse, y, batch))
    layer(ratio=1.0)(x, coarse, y, batch)
    made.eval()(x, coarse, y, batch)


def test_no_random_numbers_without_need():
    x, coarse, y, batch = problem(200)
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    layer(ratio=1.0)(x, coarse, y, batch, generator)
    layer(ratio=0.5)(x, coarse, None, batch, generator)
    layer(ratio=0.5).eval()(x, coarse, y, batch, generator)
    assert torch.equal(generator.get_state(), state)


def test_ratio_0_samples_hard_nodes_only():
    """Easy positives get nothing but the bias."""
    x, coarse, y, batch = problem()
    made = layer(ratio=0.0, fusion="sum")
    refined = (made(x, coarse, y, batch) - x).detach()
    easy = coarse.argmax(1) == y
    assert_close(refined[easy], made.bias.detach().expand(int(easy.sum()), -1))
    assert (refined[~easy & (y >= 0)] != made.bias.detach()).any(1).sum() > 5


def test_nodes_without_a_label_are_not_sampled():
    x, coarse, y, batch = problem()
    for ignore_index in (-100, 255, 2):
        named = torch.where(y == -100, ignore_index, y.where(y != 2, 3))
        made = layer(ignore_index=ignore_index, fusion="sum")
        moved = torch.where(named[:, None] == ignore_index, 7.0, x)
        out, again = made(x, coarse, named, batch), made(moved, coarse, named, batch)
        rest = named != ignore_index
        assert_close(out[rest], again[rest])
        assert_close(out[~rest], (x + made.bias)[~rest])
    assert_close(made.eval()(x, coarse, named, batch), made(x, coarse, None, batch))


# Gradients


@pytest.mark.parametrize("options", [{}, {"fusion": "sum", "shared": True}, {"top_k": 2}], ids=str)
def test_gradcheck(options):
    x, coarse, y, batch = problem(12, 2)
    made = layer(**options)
    names = [name for name, _ in made.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(made, dict(zip(names, parameters, strict=True)), (x, coarse, y, batch))

    inputs = [x, *(p.detach() for p in made.parameters())]
    assert gradcheck(run, [t.requires_grad_() for t in inputs])


@pytest.mark.parametrize("mode", ["fuse", "hook"])
def test_streamed_is_by_messages(mode, device, dtype, tolerance):
    x, coarse, y, batch = problem(dtype=dtype, device=device)
    made = layer(dtype, device)
    inputs = [x.requires_grad_(), *made.parameters()]
    out = made(x, coarse, y, batch)
    grads = torch.autograd.grad(out.square().sum(), inputs)
    seen = []
    if mode == "fuse":
        made.fuse = False
    else:
        handle = made.register_message_forward_hook(lambda module, given, out: seen.append(out.shape))
    plain = made(x, coarse, y, batch)
    assert bool(seen) == (mode == "hook")
    assert_close(plain, out, **tolerance)
    for a, b in zip(torch.autograd.grad(plain.square().sum(), inputs), grads, strict=True):
        assert_close(a, b, **tolerance)
    if mode == "hook":
        handle.remove()
        assert torch.equal(made(x, coarse, y, batch), out)


def test_messages_of_a_subclass_are_used():
    class Doubled(ClassWiseGraphConv):
        def message(self, value_j, weight):
            return 2 * super().message(value_j, weight)

    x, coarse, y, batch = problem()
    made = layer()
    doubled = Doubled(C, M).double()
    doubled.load_state_dict(made.state_dict())
    with torch.no_grad():
        made.weight.mul_(2)  # ReLU(2 A X W)
    assert_close(doubled(x, coarse, y, batch), made(x, coarse, y, batch))


def test_not_a_number_stays_in_its_class_and_image():
    """And is seen by all nodes there, whichever way the messages go."""
    x, coarse, _, batch = problem()
    x[7] = math.nan
    same = (coarse.argmax(1) == coarse[7].argmax()) & (batch == batch[7])
    assert 1 < same.sum() < 40
    made = layer()
    for made.fuse in (True, False):
        assert torch.equal(made(x, coarse, None, batch).isnan().any(1), same)
    assert torch.equal(layer(top_k=2)(x, coarse, None, batch).isnan().any(1), same)


def test_coarse_has_no_gradient_and_binary_none_for_phi():
    x, coarse, y, batch = problem()
    coarse.requires_grad_()
    made = layer(top_k=2, binary=True)
    made(x, coarse, y, batch).sum().backward()
    assert coarse.grad is None
    assert made.phi.weight.grad is None
    assert made.weight.grad.abs().sum() > 0


def test_gradients_are_finite_where_similarities_are_huge_or_equal():
    _, coarse, y, batch = problem()
    for x in (torch.zeros(40, C), torch.full((40, C), 1e6)):
        made = layer(torch.float32)
        out = made(x.requires_grad_(), coarse, y, batch)
        out.mean().backward()
        assert torch.isfinite(out).all()
        assert all(torch.isfinite(p.grad).all() for p in [x, *made.parameters()])


# Laws


@pytest.mark.parametrize("options", [{}, {"top_k": 3}], ids=str)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_batch_is_its_images(labelled, options, dtype, tolerance):
    x, coarse, y, _ = problem(60, dtype=dtype)
    batch = torch.tensor([0, 2, 3, 7]).repeat_interleave(torch.tensor([13, 1, 40, 6]))
    made = layer(dtype, **options)
    out = made(x, coarse, y if labelled else None, batch)
    for image in batch.unique():
        part = batch == image
        single = made(x[part], coarse[part], y[part] if labelled else None)
        assert_close(single, out[part], **tolerance)


def test_order_of_nodes_does_not_matter():
    x, coarse, y, batch = problem()
    made, order = layer(), torch.randperm(40)
    out = made(x, coarse, y, batch)
    assert_close(made(x[order], coarse[order], y[order], batch[order]), out[order])


def test_order_of_classes_does_not_matter():
    x, coarse, y, batch = problem()
    y = y.clamp(min=0)
    made, order = layer(), torch.tensor([2, 0, 3, 1])
    other = copy.deepcopy(made)
    with torch.no_grad():
        other.weight.copy_(made.weight[order])
        other.combine.copy_(made.combine[order])
    assert_close(other(x, coarse[:, order], order.argsort()[y], batch), made(x, coarse, y, batch))


def test_classes_do_not_touch():
    x, coarse, _, batch = problem()
    made = layer(fusion="sum")
    of_0 = coarse.argmax(1) == 0
    moved = torch.where(of_0[:, None], x + 3, x)
    out, again = made(x, coarse, None, batch), made(moved, coarse, None, batch)
    assert_close(out[~of_0], again[~of_0])
    assert (out[of_0] != again[of_0]).all()


def test_class_linear_is_one_product_for_each_row():
    for counts in ([3, 0, 130, 1], [0, 0, 0, 0], [64, 64, 0, 1]):
        count = torch.tensor(counts)
        category = torch.arange(4).repeat_interleave(count)
        x, W, U = torch.randn(len(category), C), torch.randn(4, C, C), torch.randn(4, C, C)
        expected = torch.stack(
            [(row @ W[m]).relu() @ U[m] for row, m in zip(x, category, strict=True)] or [x[:0].sum(0)]
        )
        assert_close(class_linear(x, [W, U], count), expected[: len(x)])


DEGENERATE = {
    "no nodes": ([], []),
    "one node": ([0], [0]),
    "one node of each class": ([0, 0, 0, 0], [0, 1, 2, 3]),
    "one class": ([0] * 9, [2] * 9),
    "an image without nodes": ([0, 0, 2, 2], [0, 0, 1, 1]),
    "one node in each image": ([0, 1, 2], [1, 1, 1]),
}


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_graphs(name, top_k, device):
    images, classes = (torch.tensor(ids, dtype=torch.int64, device=device) for ids in DEGENERATE[name])
    x = torch.randn(len(images), C, dtype=torch.float64, device=device, requires_grad=True)
    coarse = torch.nn.functional.one_hot(classes, M).double()
    made = layer(device=device, top_k=top_k)
    for y in (None, classes, (classes + 1) % M, torch.full_like(classes, -100)):
        out = made(x, coarse, y, images)
        assert_close(out.detach().cpu().numpy(), expected_of(made, x, coarse, y, images))
        out.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in [x, *made.parameters()] if p.grad is not None)


# As a module


def test_autocast():
    x, coarse, y, batch = problem(dtype=torch.float32)
    for options in ({}, {"top_k": 3}, {"fusion": "sum"}):
        made = layer(torch.float32, **options)
        out = made(x, coarse, y, batch)
        with torch.autocast("cpu", torch.bfloat16):
            half = made(x, coarse, y, batch)
        assert half.dtype == torch.float32
        assert (half - out).abs().max() < 0.1 * out.abs().max()
        half.sum().backward()
        assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in made.parameters())


def test_bfloat16():
    x, coarse, y, batch = problem(dtype=torch.bfloat16)
    for options in ({}, {"top_k": 3}):
        out = layer(torch.bfloat16, **options)(x, coarse, y, batch)
        assert out.dtype == torch.bfloat16 and torch.isfinite(out).all()


def test_state_dict_round_trip():
    x, coarse, y, batch = problem()
    made, other = layer(), layer()
    assert not torch.equal(made(x, coarse, y, batch), other(x, coarse, y, batch))
    other.load_state_dict(made.state_dict())
    assert torch.equal(made(x, coarse, y, batch), other(x, coarse, y, batch))
    assert sorted(made.state_dict()) == ["bias", "combine", "phi.weight", "phi_prime.weight", "weight"]


def test_reset_parameters_and_repr():
    made = layer(shared=True)
    before = copy.deepcopy(made.state_dict())
    made.reset_parameters()
    assert all((made.state_dict()[name] != before[name]).any() for name in before)
    assert made.weight.shape == (1, C, C)
    assert repr(made) == "ClassWiseGraphConv(3, num_classes=4, ratio=1.0, fusion='concat')"


# What torch.compile itself does where it breaks a graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compile():
    torch._dynamo.reset()
    x, coarse, y, batch = problem(12, 2)
    made = layer()
    inputs = [x.requires_grad_(), *made.parameters()]
    out = made(x, coarse, y, batch)
    compiled = torch.compile(made, backend="aot_eager")(x, coarse, y, batch)
    assert_close(compiled, out)
    found = torch.autograd.grad(compiled.square().sum(), inputs)
    for a, b in zip(found, torch.autograd.grad(out.square().sum(), inputs), strict=True):
        assert_close(a, b)


def test_feature_masks_of_explainers():
    """The refined features of node 0 depend on the nodes of its class alone, and the explainer finds that."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = layer(torch.float32, fusion="sum")

        def forward(self, x, edge_index, coarse):
            return self.conv(x, coarse)

    x, coarse, _, _ = problem(dtype=torch.float32)
    explainer = Explainer(
        Model().eval(),
        GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    mask = explainer(x, torch.zeros(2, 0, dtype=torch.int64), coarse=coarse, index=0).node_mask
    of_0 = coarse.argmax(1) == coarse[0].argmax()
    assert mask[~of_0].abs().max() == 0
    assert mask[of_0].max() > 0


def test_real_photographs():
    """Superpixels of two photographs, with colours as coarse classes: the layer learns what the colours do not say."""
    transform = ToSuperpixelRAG(60, num_classes=2)
    graphs = []
    for photo in (data.astronaut()[:200, 100:300], data.chelsea()[:180, 60:260]):
        image = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)
        rows = torch.arange(image.size(1)).view(-1, 1).expand(image.shape[1:])
        graphs.append(transform(Data(image=image, mask=(rows > 90).long())))
    batch = Batch.from_data_list(graphs)
    made = ClassWiseGraphConv(batch.num_node_features, 2)
    head = torch.nn.Linear(2 * batch.num_node_features, 2)
    coarse = torch.stack([batch.x[:, 0], batch.x[:, 0].mean().expand(len(batch.x))], 1)
    optimizer = torch.optim.Adam([*made.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(made(batch.x, coarse, batch.y, batch.batch)), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    made.eval()
    with torch.no_grad():
        whole = made(batch.x, coarse, batch=batch.batch)
        parts = [made(g.x, coarse[batch.batch == i]) for i, g in enumerate(graphs)]
    assert_close(whole, torch.cat(parts))
    assert [p.shape for p in batch.project(whole)] == [(2 * len(batch.x[0]), 200, 200), (2 * len(batch.x[0]), 180, 200)]


# Bad input


def test_bad_options_are_named():
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"channels": 0}, r"got channels=0, expected at least 1"),
        ({"num_classes": 0}, r"got num_classes=0"),
        ({"ratio": 1.5}, r"got ratio=1.5, expected a share in \[0, 1\]"),
        ({"ratio": math.nan}, r"got ratio=nan"),
        ({"fusion": "product"}, r"got fusion='product', expected one of 'concat', 'sum'"),
        ({"top_k": 0}, r"got top_k=0"),
        ({"binary": True}, r"got binary=True without top_k"),
    )
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            ClassWiseGraphConv(**{"channels": C, "num_classes": M, **options})


def test_bad_input_is_named():
    x, coarse, y, batch = problem()
    made = layer()
    for given_input, error, message in (
        ((x.long(), coarse), TypeError, r"got dtype torch.int64 for x"),
        ((x[:, :2], coarse), ValueError, r"got 2 channels in x, expected channels=3"),
        ((x, coarse[:, :2]), ValueError, r"got 2 classes in coarse, expected num_classes=4"),
        ((x, coarse[:9]), ValueError, r"got shape \[9, 4\] for coarse, expected \[40, \*\]"),
        ((x, coarse, y.int()), TypeError, r"got dtype torch.int32 for y, expected torch.int64"),
        ((x, coarse, y[:9]), ValueError, r"got shape \[9\] for y, expected \[40\]"),
        (
            (x, coarse, y.clamp(max=2) + 2),
            ValueError,
            r"got label .* in y, expected labels in \[0, 4\) or ignore_index",
        ),
        ((x, coarse, y, batch.float()), TypeError, r"got dtype torch.float32 for batch"),
    ):
        with pytest.raises(error, match=message):
            made(*given_input)
    with pytest.raises(ValueError, match=r"got label -100 in y, expected labels in \[0, 4\)$"):
        layer(ignore_index=None)(x, coarse, y)
    layer(ignore_index=None).eval()(x, coarse, y)
