"""Messages between pairs of nodes: against plain loops, dense N x N tensors, and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from graphseg.ops import pairwise
from graphseg.ops.pairwise import EdgeGroups, all_pairs_sum, edge_dot, edge_sum


def graph(nodes=9, edges=40, channels=5, seed=0, dtype=torch.float64, device="cpu"):
    """Two sets of node values, edge weights, and edges with repeats and loops; the last node has none."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(nodes, channels, generator=generator, dtype=torch.float64).to(device, dtype) for _ in "ab")
    weight = torch.randn(edges, generator=generator, dtype=torch.float64).to(device, dtype)
    edge_index = torch.randint(0, max(nodes - 1, 1), (2, edges), generator=generator).to(device)
    return a, b, weight, edge_index


def pixels(sizes=(13,), channels=4, tokens=3, seed=0, dtype=torch.float64, device="cpu"):
    """x, token, left, right and batch of images of these sizes."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((sum(sizes), channels), (sum(sizes), tokens), (sum(sizes),), (sum(sizes),))
    values = [torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in shapes]
    return *values, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device)


def dense(x, token, left, right, batch=None, softmax=False, exclude_self=True):
    """The formula of `all_pairs_sum` with N x N tensors."""
    gate = right.expand(len(x), -1) if left is None else left[:, None] + right
    psi = gate.sigmoid() * (token @ token.t())
    hidden = torch.zeros_like(psi, dtype=torch.bool) if batch is None else batch[:, None] != batch
    if exclude_self:
        hidden = hidden | torch.eye(len(x), dtype=torch.bool, device=x.device)
    if softmax:
        weight = psi.masked_fill(hidden, -torch.inf).softmax(1)
        return weight.masked_fill(hidden.all(1, keepdim=True), 0) @ x
    return psi.masked_fill(hidden, 0) @ x


FORMS = [(pair, softmax, exclude) for pair in (True, False) for softmax in (True, False) for exclude in (True, False)]
SIZES = [(13,), (1,), (3, 1, 9, 0, 2, 2), (0, 5), (2, 11, 4)]


@pytest.fixture
def small_tiles(monkeypatch):
    """Images of a few nodes need several tiles, and the smallest share one."""
    monkeypatch.setattr(pairwise, "_TILE", {"cpu": 4, "cuda": 4})


# Along edges


def test_edges_of_three_nodes():
    edges = EdgeGroups(torch.tensor([[0, 2, 1], [1, 1, 0]]), 3)  # 0 -> 1, 2 -> 1, 1 -> 0
    a = torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert edge_dot(a, b, edges).tolist() == [3, 8, 2]
    assert edge_sum(torch.tensor([2.0, 3.0, 10.0]), a, edges).tolist() == [[30, 50], [23, 37], [0, 0]]


@pytest.mark.parametrize(
    ("nodes", "edges", "channels"), [(9, 40, 5), (9, 40, 1), (4, 0, 3), (0, 0, 3), (1, 3, 8), (5, 7, 0)]
)
def test_edges_are_the_loop(nodes, edges, channels, device, dtype, tolerance):
    a, b, weight, edge_index = graph(nodes, edges, channels, dtype=dtype, device=device)
    A, B, w = (v.double().cpu().numpy() for v in (a, b, weight))
    dots, total = np.zeros(edges), np.zeros((nodes, channels))
    for e, (j, i) in enumerate(edge_index.t().tolist()):
        dots[e] = sum(A[i, c] * B[j, c] for c in range(channels))
        total[i] += w[e] * B[j]
    groups = EdgeGroups(edge_index, nodes)
    found = edge_dot(a, b, groups)
    assert found.dtype == dtype and found.device.type == device.type
    assert_close(found.double().cpu().numpy(), dots, **tolerance)
    assert_close(edge_sum(weight, b, groups).double().cpu().numpy(), total, **tolerance)


@given(nodes=st.integers(1, 12), edges=st.integers(0, 30), channels=st.integers(0, 9), seed=st.integers(0, 999))
def test_kernels_are_the_tensor_form(nodes, edges, channels, seed):
    a, b, weight, edge_index = graph(nodes, edges, channels, seed)
    groups = EdgeGroups(edge_index, nodes)
    for end in (0, 1):
        start, order = groups.of(end)
        expected = pairwise._group_tensor(edge_index[end], nodes)
        assert torch.equal(start, expected[0]) and torch.equal(order, expected[1])
        assert_close(pairwise._sum_compiled(weight, a, groups, end), pairwise._sum_tensor(weight, a, groups, end))
        ends = edge_index[end], edge_index[1 - end]
        assert_close(pairwise._dot_compiled(a, b, *ends), pairwise._dot_tensor(a, b, *ends))


def test_tensor_form_in_chunks(monkeypatch):
    a, b, weight, edge_index = graph(channels=7)
    groups = EdgeGroups(edge_index, 9)
    whole = pairwise._sum_tensor(weight, a, groups, 1), pairwise._dot_tensor(a, b, *edge_index)
    monkeypatch.setattr(pairwise, "_CHUNK_BYTES", {"cpu": 700})
    assert_close(pairwise._sum_tensor(weight, a, groups, 1), whole[0])
    assert torch.equal(pairwise._dot_tensor(a, b, *edge_index), whole[1])


def test_edge_gradients():
    a, b, weight, edge_index = graph(5, 9, 3)
    groups = EdgeGroups(edge_index, 5)
    for v in (a, b, weight):
        v.requires_grad_()
    for function, inputs in ((edge_dot, (a, b)), (edge_sum, (weight, a))):
        assert gradcheck(lambda *v, f=function: f(*v, groups), inputs)
        assert gradgradcheck(lambda *v, f=function: f(*v, groups), inputs)


def test_edge_sum_and_edge_dot_are_adjoint(device):
    a, b, weight, edge_index = graph(device=device)
    groups = EdgeGroups(edge_index, 9)
    assert_close((edge_dot(a, b, groups) * weight).sum(), (a * edge_sum(weight, b, groups)).sum())


def test_number_of_threads_changes_nothing(monkeypatch):
    monkeypatch.setattr(pairwise, "_SHARE", 1)
    a, b, weight, edge_index = graph(300, 3000, 7, dtype=torch.float32)
    found = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            groups = EdgeGroups(edge_index, 300)
            found.append((edge_dot(a, b, groups), edge_sum(weight, a, groups)))
    finally:
        torch.set_num_threads(threads)
    for dots, total in found[1:]:
        assert torch.equal(dots, found[0][0]) and torch.equal(total, found[0][1])


def test_any_layout_of_memory():
    a, b, weight, edge_index = graph(channels=6)
    groups, transposed = EdgeGroups(edge_index, 9), EdgeGroups(edge_index.t().contiguous().t(), 9)
    assert torch.equal(edge_dot(a.t().contiguous().t(), b, transposed), edge_dot(a, b, groups))
    wide = torch.stack([weight, weight], 1)[:, 0]
    assert torch.equal(edge_sum(wide, a[:, ::2], transposed), edge_sum(weight, a[:, ::2].contiguous(), groups))


# Between all pairs


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("pair", "softmax", "exclude_self"), FORMS)
def test_all_pairs_are_the_dense_formula(sizes, pair, softmax, exclude_self, small_tiles, device, dtype, tolerance):
    *values, batch = pixels(sizes, dtype=dtype, device=device)
    x, token, left, right = (v.requires_grad_() for v in values)
    left = left if pair else None
    inputs = [v for v in (x, token, left, right) if v is not None]
    grad = torch.randn_like(x)
    out = all_pairs_sum(x, token, left, right, batch, softmax=softmax, exclude_self=exclude_self)
    expected = dense(x, token, left, right, batch, softmax, exclude_self)
    assert out.dtype == dtype
    assert_close(out, expected, **tolerance)
    found = torch.autograd.grad(out, inputs, grad)
    for a, b in zip(found, torch.autograd.grad(expected, inputs, grad), strict=True):
        assert_close(a, b, **tolerance)


@pytest.mark.parametrize("side", [1, 3, 100])
@pytest.mark.parametrize("softmax", [True, False])
def test_size_of_tiles_changes_nothing(side, softmax, monkeypatch):
    x, token, left, right, batch = pixels((7, 2, 5))
    expected = dense(x, token, left, right, batch, softmax)
    monkeypatch.setattr(pairwise, "_TILE", {"cpu": side})
    assert_close(all_pairs_sum(x, token, left, right, batch, softmax=softmax), expected)


@pytest.mark.parametrize(("pair", "softmax", "exclude_self"), FORMS)
def test_all_pairs_gradients(pair, softmax, exclude_self, small_tiles):
    *values, batch = pixels((5, 1, 2), 2, 2)
    x, token, left, right = (v.requires_grad_() for v in values)

    def run(x, token, right, left=None):
        return all_pairs_sum(x, token, left, right, batch, softmax=softmax, exclude_self=exclude_self)

    assert gradcheck(run, (x, token, right, left) if pair else (x, token, right))


def test_no_gradient_for_frozen_values(small_tiles):
    x, token, left, right, _ = pixels()
    token.requires_grad_()
    all_pairs_sum(x, token, left, right).sum().backward()
    assert token.grad is not None and x.grad is None


@given(sizes=st.lists(st.integers(0, 9), max_size=8), side=st.integers(1, 7))
def test_tiles_cover_each_pair_once(sizes, side):
    total = sum(sizes)
    image = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
    covered = torch.zeros(total, total, dtype=torch.int64)
    for tile in pairwise._tiles(torch.tensor(sizes, dtype=torch.int64), side):
        part = covered[tile.rows, tile.cols]
        assert 0 < part.size(0) <= side and 0 < part.size(1) <= side
        part += 1 if tile.image is None else (tile.image[:, None] == tile.image).long()
    assert torch.equal(covered, (image[:, None] == image).long())


@pytest.mark.parametrize(("pair", "softmax"), [(True, False), (True, True), (False, False)])
def test_images_in_any_order(pair, softmax, small_tiles):
    x, token, left, right, batch = pixels((5, 2, 6))
    order = torch.randperm(13)
    a, b, c, d, e = (v[order] for v in (x, token, left, right, batch))
    out = all_pairs_sum(x, token, left if pair else None, right, batch, softmax=softmax)
    assert_close(all_pairs_sum(a, b, c if pair else None, d, e, softmax=softmax), out[order])


def test_without_left_is_a_left_of_zero():
    x, token, _, right, batch = pixels((30, 4, 1))
    for exclude_self in (True, False):
        out = all_pairs_sum(x, token, None, right, batch, exclude_self=exclude_self)
        zero = torch.zeros_like(right)
        assert_close(out, all_pairs_sum(x, token, zero, right, batch, exclude_self=exclude_self))


@pytest.mark.parametrize(("pair", "softmax"), [(True, False), (True, True), (False, False), (False, True)])
def test_a_node_alone_gets_nothing(pair, softmax):
    x, token, left, right, batch = pixels((1, 3, 1), dtype=torch.float32)
    x.requires_grad_()
    out = all_pairs_sum(100 * x, token, left if pair else None, right, batch, softmax=softmax)
    assert not out[[0, 4]].any() and out[1:4].any()
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("softmax", [True, False])
def test_large_values_stay_finite(softmax):
    x, token, left, right, _ = pixels((20,), dtype=torch.float32)
    inputs = [v.requires_grad_() for v in (x, token * 100, left * 1000, right * 1000)]
    out = all_pairs_sum(*inputs, softmax=softmax)
    assert out.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


class Largest(TorchDispatchMode):
    """The largest number of elements of any tensor made inside."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize(("pair", "softmax"), [(True, False), (True, True), (False, False)])
def test_nothing_of_all_pairs_is_in_memory(pair, softmax, monkeypatch):
    monkeypatch.setattr(pairwise, "_TILE", {"cpu": 32})
    x, token, left, right, _ = pixels((400,), 3, 2, dtype=torch.float32)
    inputs = [v.requires_grad_() for v in (x, token, right, left)]
    with Largest() as largest:
        out = all_pairs_sum(x, token, left if pair else None, right, softmax=softmax)
        torch.autograd.grad(out.sum(), inputs[: 3 + pair])
    assert largest.elements == 400 * 3  # x itself; tiles are smaller
    with Largest() as largest:
        dense(x, token, left, right)
    assert largest.elements == 400 * 400


def test_nothing_of_edges_times_channels_is_in_memory():
    a, _, weight, edge_index = graph(50, 2000, 8)
    inputs = [a.requires_grad_(), weight.requires_grad_()]
    with Largest() as largest:
        groups = EdgeGroups(edge_index, 50)
        out = edge_sum(weight * edge_dot(a, a, groups), a, groups)
        torch.autograd.grad(out.sum(), inputs)
    assert largest.elements == 2000  # a number for each edge


# Types and errors


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(low):
    a, b, weight, edge_index = graph(dtype=low)
    groups = EdgeGroups(edge_index, 9)
    assert torch.equal(edge_dot(a, b, groups), edge_dot(a.float(), b.float(), groups))
    assert torch.equal(edge_sum(weight, a, groups), edge_sum(weight.float(), a.float(), groups))
    x, token, left, right, _ = pixels(dtype=low)
    out = all_pairs_sum(x, token, left, right)
    assert torch.equal(out, all_pairs_sum(x.float(), token.float(), left.float(), right.float()))


def test_autocast_changes_nothing():
    x, token, left, right, _ = pixels(dtype=torch.float32)
    token.requires_grad_()
    for terms in ((left, right), (None, right)):
        out = all_pairs_sum(x, token, *terms)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(all_pairs_sum(x, token, *terms), out)


def test_bad_edges():
    with pytest.raises(TypeError, match="int32 for edge_index"):
        EdgeGroups(torch.zeros(2, 3, dtype=torch.int32), 4)
    with pytest.raises(ValueError, match=r"\[3, 2\] for edge_index, expected \[2, \*\]"):
        EdgeGroups(torch.zeros(3, 2, dtype=torch.int64), 4)
    for bad in (-1, 4):
        with pytest.raises(ValueError, match=rf"node id {bad} in edge_index, expected ids in \[0, 4\)"):
            EdgeGroups(torch.tensor([[0], [bad]]), 4)
    a, b, weight, edge_index = graph()
    groups = EdgeGroups(edge_index, 9)
    with pytest.raises(ValueError, match=r"\[8, 5\] for a, expected \[9, \*\]"):
        edge_dot(a[1:], b, groups)
    with pytest.raises(ValueError, match=r"\[9, 4\] for b, expected \[9, 5\]"):
        edge_dot(a, b[:, 1:], groups)
    with pytest.raises(ValueError, match=r"\[39\] for weight, expected \[40\]"):
        edge_sum(weight[1:], a, groups)
    with pytest.raises(ValueError, match=r"\[8, 5\] for x, expected \[9, \*\]"):
        edge_sum(weight, a[1:], groups)


def test_bad_pixels():
    x, token, left, right, batch = pixels((4, 3))
    with pytest.raises(ValueError, match=r"\[6, 3\] for token, expected \[7, \*\]"):
        all_pairs_sum(x, token[1:], left, right)
    with pytest.raises(ValueError, match=r"\[6\] for left, expected \[7\]"):
        all_pairs_sum(x, token, left[1:], right)
    with pytest.raises(ValueError, match=r"\[7, 1\] for right, expected \[7\]"):
        all_pairs_sum(x, token, left, right[:, None])
    with pytest.raises(TypeError, match=r"float64 for batch, expected torch\.int64"):
        all_pairs_sum(x, token, left, right, batch.double())
    with pytest.raises(ValueError, match="batch=-1, expected ids of at least 0"):
        all_pairs_sum(x, token, left, right, batch - 1)
    with pytest.raises(ValueError, match=r"\[6\] for batch, expected \[7\]"):
        all_pairs_sum(x, token, left, right, batch[1:])
