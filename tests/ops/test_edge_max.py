"""`max_over_edges`: compiled and tensor form against plain loops and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from graphseg.ops import edge_max
from graphseg.ops.edge_max import edge_values, max_over_edges
from tests.reference import edge_max as reference

FORMS = ("compiled", "tensor")


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Both forms, on CPU."""
    use_form(request.param, monkeypatch)
    return request.param


def use_form(form, monkeypatch):
    if form == "tensor":
        for name in ("forward", "values", "weight"):
            monkeypatch.setattr(edge_max, f"_{name}_compiled", getattr(edge_max, f"_{name}_tensor"))


def problem(nodes=9, differences=2, channels=5, edges=30, seed=0, dtype=torch.float64, whole=False, device="cpu"):
    """Values, weights and edges in no order, with self-loops and repeated pairs; whole numbers make ties."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        if whole:
            return torch.randint(-2, 3, shape, generator=generator).to(device, dtype)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    index = torch.randint(0, max(nodes, 1), (2, edges if nodes else 0), generator=generator)
    return draw(nodes, 1 + differences, channels), draw(index.size(1), differences), index.to(device)


def gradients(grad, values, weight, index):
    values, weight = values.clone().requires_grad_(), weight.clone().requires_grad_()
    return torch.autograd.grad(max_over_edges(values, weight, index), [values, weight], grad, allow_unused=True)


# Values and gradients


def test_three_nodes_by_hand(form):
    # One channel, one difference. Node 0 hears 1 and 2: 10 + 2 (1 - 4) = 4 and 10 - 1 (1 - 9) = 18; node 2 hears 0:
    # -5 + 3 (9 - 1) = 19; node 1 hears nobody.
    values = torch.tensor([[[10.0], [1.0]], [[7.0], [4.0]], [[-5.0], [9.0]]], requires_grad=True)
    weight = torch.tensor([[2.0], [3.0], [-1.0]], requires_grad=True)
    index = torch.tensor([[1, 0, 2], [0, 2, 0]])
    out = max_over_edges(values, weight, index)
    assert out.tolist() == [[18.0], [0.0], [19.0]]
    out.backward(torch.tensor([[1.0], [5.0], [10.0]]))
    assert values.grad is not None and weight.grad is not None
    assert values.grad.squeeze(2).tolist() == [[1.0, -1.0 - 30.0], [0.0, 0.0], [10.0, 30.0 + 1.0]]
    assert weight.grad.tolist() == [[0.0], [80.0], [-8.0]]


@pytest.mark.parametrize("differences", [0, 1, 2, 3])
@pytest.mark.parametrize("whole", [False, True])
def test_the_loop(form, differences, whole, dtype, tolerance):
    values, weight, index = problem(differences=differences, whole=whole, dtype=dtype)
    expected, _ = reference.max_over_edges(values, weight, index)
    out = max_over_edges(values, weight, index)
    assert out.dtype == dtype
    assert_close(out.double().numpy(), expected, **tolerance)
    grad = torch.randn(out.shape, dtype=dtype)
    for got, want in zip(
        gradients(grad, values, weight, index), reference.gradients(values, weight, index, grad), strict=True
    ):
        assert_close(got.double().numpy(), want, **tolerance)


def test_devices(device, dtype, tolerance):
    given_here = problem(nodes=300, edges=3000, channels=20, dtype=dtype, device=device)
    there = [tensor.cpu() for tensor in given_here]
    out, wanted = max_over_edges(*given_here), max_over_edges(*there)
    assert out.device.type == device.type
    assert_close(out.cpu(), wanted, **tolerance)
    grad = torch.randn(out.shape, dtype=dtype)
    for a, b in zip(gradients(grad.to(device), *given_here), gradients(grad, *there), strict=True):
        assert_close(a.cpu(), b, **tolerance)


@given(
    nodes=st.integers(0, 7),
    differences=st.integers(0, 3),
    channels=st.integers(0, 4),
    edges=st.integers(0, 25),
    whole=st.booleans(),
    chunk=st.sampled_from([1, 100, 1 << 22]),
    seed=st.integers(0, 999),
)
def test_both_forms_agree_on_any_shape(nodes, differences, channels, edges, whole, chunk, seed):
    values, weight, index = problem(nodes, differences, channels, edges, seed, whole=whole)
    out, winner = edge_max._forward_compiled(values, weight, index)
    expected, first = reference.max_over_edges(values, weight, index)
    assert_close(out.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert winner.tolist() == first.tolist()
    grad = torch.randn(out.shape, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(edge_max._CHUNK_BYTES, "cpu", chunk)
        same = edge_max._forward_tensor(values, weight, index)
    assert torch.equal(same[0], out) and torch.equal(same[1], winner)
    for name, other in (("values", weight), ("weight", values)):
        compiled = getattr(edge_max, f"_{name}_compiled")(grad, winner, other, index)
        tensor = getattr(edge_max, f"_{name}_tensor")(grad, winner, other, index)
        assert_close(compiled, tensor, rtol=1e-12, atol=1e-12)


def test_gradcheck(form):
    values, weight, index = problem()
    assert gradcheck(max_over_edges, (values.requires_grad_(), weight.requires_grad_(), index))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_gradient_of_one_argument(form, wanted):
    values, weight, index = problem()
    grad = torch.randn(9, 5, dtype=torch.float64)
    both = gradients(grad, values, weight, index)
    values.requires_grad_(wanted[0]), weight.requires_grad_(wanted[1])
    max_over_edges(values, weight, index).backward(grad)
    for tensor, expected, want in zip((values, weight), both, wanted, strict=True):
        assert torch.equal(tensor.grad, expected) if want else tensor.grad is None


# Laws


def test_maximum_of_edge_values(form):
    values, weight, index = problem(nodes=50, edges=400, dtype=torch.float32)
    z = edge_values(values[index[1]], values[index[0]], weight)
    best = torch.full((50, 5), -math.inf).scatter_reduce(0, index[1, :, None].expand_as(z), z, "amax")
    assert torch.equal(max_over_edges(values, weight, index), best.masked_fill(best.isinf(), 0))


def test_order_of_edges_and_nodes(form):
    values, weight, index = problem(nodes=40, edges=300)
    out = max_over_edges(values, weight, index)
    shuffle = torch.randperm(300)
    assert torch.equal(max_over_edges(values, weight[shuffle], index[:, shuffle]), out)
    renamed = torch.randperm(40)
    moved = torch.empty_like(values)
    moved[renamed] = values
    assert torch.equal(max_over_edges(moved, weight, renamed[index])[renamed], out)


def test_graphs_side_by_side_are_single_graphs(form):
    parts = [problem(nodes=n, edges=e, seed=n, dtype=torch.float32) for n, e in ((6, 20), (0, 0), (1, 0), (9, 40))]
    offsets = [0, 6, 6, 7]
    values, weight = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    index = torch.cat([p[2] + offset for p, offset in zip(parts, offsets, strict=True)], 1)
    assert torch.equal(max_over_edges(values, weight, index), torch.cat([max_over_edges(*p) for p in parts]))
    grad = torch.randn(16, 5)
    singles = [gradients(g, *p) for p, g in zip(parts, grad.split([6, 0, 1, 9]), strict=True)]
    for got, want in zip(gradients(grad, values, weight, index), zip(*singles, strict=True), strict=True):
        assert torch.equal(got, torch.cat(want))


def test_the_first_of_tied_edges_gets_the_gradient(form):
    values = torch.tensor([[[0.0], [0.0]], [[0.0], [5.0]], [[0.0], [5.0]]], dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[2, 1, 2], [0, 0, 0]])
    max_over_edges(values, torch.ones(3, 1, dtype=torch.float64), index).sum().backward()
    assert values.grad is not None
    assert values.grad[1:, 1, 0].tolist() == [0.0, -1.0]


def test_nan_wins_and_infinity_is_a_value(form):
    base = torch.tensor([0.0, 0.0, 0.0])
    other = torch.tensor([0.0, math.nan, math.inf])
    values = torch.stack([base, other], 1)[:, :, None]
    index = torch.tensor([[0, 1, 2, 2], [0, 0, 0, 1]])
    out = max_over_edges(values, torch.ones(4, 1), index)
    assert out[0].isnan() and out[1].isnan() and out[2] == 0
    only = max_over_edges(values, torch.ones(1, 1), torch.tensor([[2], [0]]))
    assert only.flatten().tolist() == [-math.inf, 0, 0]


def test_threads_do_not_change_results():
    values, weight, index = problem(nodes=2000, edges=30_000, channels=70, dtype=torch.float32)
    grad = torch.randn(2000, 70)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append([max_over_edges(values, weight, index), *gradients(grad, values, weight, index)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_runs_on_a_gpu_are_equal():
    values, weight, index = problem(nodes=500, edges=100_000, channels=64, dtype=torch.float32, device="cuda")
    grad = torch.randn(500, 64, device="cuda")
    for a, b in zip(gradients(grad, values, weight, index), gradients(grad, values, weight, index), strict=True):
        assert torch.equal(a, b)


def test_nothing_of_edges_times_channels_is_kept():
    values, weight, index = problem(nodes=10, edges=1000, channels=64)
    kept = []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        max_over_edges(values.requires_grad_(), weight.requires_grad_(), index)
    assert kept and max(kept) == 2 * 1000


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(form, half):
    values, weight, index = problem(dtype=half)
    out = max_over_edges(values, weight, index)
    assert out.dtype == half
    assert torch.equal(out, max_over_edges(values.float(), weight.float(), index).to(half))
    assert gradients(out, values, weight, index)[0].dtype == half


def test_degenerate_graphs(form):
    for nodes, edges, channels in ((0, 0, 3), (1, 0, 3), (4, 0, 3), (1, 3, 3), (4, 5, 0)):
        values, weight, index = problem(nodes=nodes, edges=edges, channels=channels)
        out = max_over_edges(values, weight, index)
        assert_close(out.numpy(), reference.max_over_edges(values, weight, index)[0])
        for_values, for_weight = gradients(torch.ones_like(out), values, weight, index)
        assert for_values.shape == values.shape and for_weight.shape == weight.shape
    assert not gradients(torch.ones(4, 5, dtype=torch.float64), *problem(nodes=4, edges=0))[0].any()


def test_arguments_in_any_layout(form):
    values, weight, index = problem()
    grad = torch.randn(9, 5, dtype=torch.float64)
    strided = values.transpose(0, 2).contiguous().transpose(0, 2), weight.T.contiguous().T, index.T.contiguous().T
    assert torch.equal(max_over_edges(*strided), max_over_edges(values, weight, index))
    for a, b in zip(gradients(grad.T.contiguous().T, *strided), gradients(grad, values, weight, index), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"values": torch.zeros(3, 2)}, ValueError, r"got shape \[3, 2\] for values"),
        ({"values": torch.zeros(3, 0, 2)}, ValueError, "expected .*1 . K"),
        ({"values": torch.zeros(3, 2, 4, dtype=torch.int64)}, TypeError, "int64 for values"),
        ({"values": np.zeros((3, 2, 4))}, TypeError, "ndarray for values"),
        ({"weight": torch.zeros(2, 2)}, ValueError, r"got shape \[2, 2\] for weight, expected \[2, 1\]"),
        ({"weight": torch.zeros(3, 1)}, ValueError, r"got shape \[3, 1\] for weight, expected \[2, 1\]"),
        ({"weight": torch.zeros(2, 1, dtype=torch.bool)}, TypeError, "bool for weight"),
        ({"edge_index": torch.tensor([[0, 1], [1, 3]])}, ValueError, r"got node id 3 in edge_index.* \[0, 3\)"),
        ({"edge_index": torch.tensor([[0, -1], [1, 2]])}, ValueError, "got node id -1 in edge_index"),
        ({"edge_index": torch.zeros(2, 2)}, TypeError, "float32 for edge_index"),
        ({"edge_index": torch.zeros(2, 2, dtype=torch.int32)}, TypeError, "int32 for edge_index"),
        ({"edge_index": torch.zeros(3, 2, dtype=torch.int64)}, ValueError, "for edge_index"),
        ({"edge_index": torch.zeros(2, 2, dtype=torch.int64).to_sparse()}, TypeError, "sparse_coo .*edge_index"),
        ({"weight": torch.zeros(2, 1, device="meta")}, ValueError, "weight on meta"),
    ],
)
def test_bad_input_is_refused(change, error, words):
    good = {"values": torch.zeros(3, 2, 4), "weight": torch.zeros(2, 1), "edge_index": torch.tensor([[0, 1], [1, 2]])}
    max_over_edges(**good)
    with pytest.raises(error, match=words):
        max_over_edges(**{**good, **change})
