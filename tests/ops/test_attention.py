"""Attention inside groups against plain loops, torch's dense attention, and its own laws."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from graphseg.ops import attention
from graphseg.ops.attention import segment_attention, segment_softmax, segment_topk
from tests.reference import class_wise_gcn as reference

# Sizes of groups: the lists that break things, and one of every kind.
SIZES = {
    "no groups": [],
    "no rows": [0, 0],
    "one row": [1],
    "single rows": [1, 1, 1],
    "one group": [11],
    "empty between": [0, 3, 0, 0, 5, 0],
    "mixed": [1, 9, 2, 8, 40, 17, 1, 33],
}


@pytest.fixture(params=[None, 16, 300], ids=["default block", "block 16", "block 300"])
def block(request, monkeypatch):
    """Blocks that cut one group's rows, and that cut groups apart."""
    if request.param is not None:
        monkeypatch.setattr(attention, "BLOCK", {"cpu": request.param, "cuda": request.param})
        monkeypatch.setattr(attention, "LEAST_ROWS", 3)


def problem(sizes, width=5, channels=4, dtype=torch.float64, device="cpu", scale=1.0):
    """Query, key, value and sizes."""
    T = sum(sizes)
    made = [torch.randn(T, n, dtype=torch.float64) for n in (width, width, channels)]
    query, key, value = (t.to(device, dtype) for t in made)
    return query * scale, key, value, torch.tensor(sizes, dtype=torch.int64, device=device)


def leaves(given):
    """The same tensors, those of numbers with gradients."""
    return tuple(t.requires_grad_() if t.is_floating_point() else t for t in given)


def masked(query, key, value, sizes, loop=True):
    """All rows x all rows, and a mask."""
    group = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    allowed = group[:, None] == group[None]
    if not loop:
        allowed = allowed & ~torch.eye(len(group), dtype=torch.bool, device=sizes.device)
    alone = ~allowed.any(1, keepdim=True)
    score = (query @ key.T).masked_fill(~(allowed | alone), -math.inf)
    return (score.softmax(1) @ value).masked_fill(alone, 0)


# Values


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("name", SIZES)
def test_attention_is_the_loop(name, loop, block, device, dtype, tolerance):
    query, key, value, sizes = problem(SIZES[name], dtype=dtype, device=device)
    out = segment_attention(query, key, value, sizes, loop=loop)
    assert out.dtype == dtype and out.device.type == device.type
    expected, _ = reference.attention(query.cpu(), key.cpu(), value.cpu(), SIZES[name], loop)
    assert_close(out.cpu().double().numpy(), expected, **tolerance)


def test_three_rows_by_hand():
    """Scores of row 0 are 0, ln 2 and ln 3, those of the others 0."""
    query = torch.tensor([[1.0], [0], [0]], dtype=torch.float64)
    key = torch.tensor([[0.0], [math.log(2)], [math.log(3)]], dtype=torch.float64)
    value = torch.tensor([[6.0, 0], [0, 6], [12, 12]], dtype=torch.float64)
    whole = segment_attention(query, key, value, torch.tensor([3]))
    assert_close(whole, torch.tensor([[7.0, 8], [6, 6], [6, 6]], dtype=torch.float64))
    parted = segment_attention(query, key, value, torch.tensor([2, 1]))
    assert_close(parted, torch.tensor([[2.0, 4], [3, 3], [12, 12]], dtype=torch.float64))
    others = segment_attention(query, key, value, torch.tensor([2, 1]), loop=False)
    assert_close(others, torch.tensor([[0.0, 6], [6, 0], [0, 0]], dtype=torch.float64))
    assert segment_topk(query, key, torch.tensor([3]), 2).tolist() == [[1, 2, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]]


def test_one_group_is_torchs_attention(device, dtype, tolerance):
    query, key, value, sizes = problem([70], dtype=dtype, device=device)
    expected = scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
    assert_close(segment_attention(query, key, value, sizes), expected, **tolerance)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), max_size=6),
    width=st.integers(0, 4),
    channels=st.integers(0, 4),
    k=st.integers(1, 14),
    loop=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_sizes(sizes, width, channels, k, loop, seed):
    generator = torch.Generator().manual_seed(seed)
    # Whole numbers, so that scores tie.
    query, key = (torch.randint(-2, 3, (sum(sizes), width), generator=generator).double() for _ in range(2))
    value = torch.randn(sum(sizes), channels, generator=generator, dtype=torch.float64)
    given_sizes = torch.tensor(sizes, dtype=torch.int64)
    expected, _ = reference.attention(query, key, value, sizes, loop)
    assert_close(segment_attention(query, key, value, given_sizes, loop=loop).numpy(), expected)
    _, chosen = reference.attention(query, key, value, sizes, loop, k)
    edges = segment_topk(query, key, given_sizes, k, loop=loop)
    assert edges.T.tolist() == [[u, t] for t, members in enumerate(chosen) for u in members]


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("name", SIZES)
def test_topk_is_the_loop(name, loop, block, device):
    query, key, value, sizes = problem(SIZES[name], device=device)
    for k in (1, 3, 50):
        edges = segment_topk(query, key, sizes, k, loop=loop)
        _, chosen = reference.attention(query.cpu(), key.cpu(), value.cpu(), SIZES[name], loop, k)
        assert edges.T.tolist() == [[u, t] for t, members in enumerate(chosen) for u in members]


def test_ties_go_to_the_smaller_row():
    query, key = torch.zeros(6, 2), torch.zeros(6, 2)
    edges = segment_topk(query, key, torch.tensor([4, 2]), 2)
    assert edges[0].view(-1, 2).tolist() == [[0, 1]] * 4 + [[4, 5]] * 2
    assert segment_topk(query, key, torch.tensor([4, 2]), 1, loop=False)[0].tolist() == [1, 0, 0, 0, 5, 4]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lengths_compile():
    """With torch's own backend: what it makes of the operations must be C++ that compiles."""
    sizes = torch.arange(600)
    torch._dynamo.reset()
    found = torch.compile(attention._padded_length)(sizes)
    assert torch.equal(found, attention._padded_length(sizes))
    assert (found >= sizes).all() and (found <= (sizes + 7).clamp(min=sizes * 17 / 16)).all()


def test_topk_takes_what_is_not_a_number():
    query, key = torch.ones(6, 1), torch.tensor([[3.0], [2.0], [torch.nan], [1.0], [3.0], [4.0]])
    edges = segment_topk(query, key, torch.tensor([4, 2]), 2)
    assert edges[0].tolist() == [0, 2] * 4 + [4, 5] * 2
    query[1] = torch.nan
    assert torch.equal(segment_topk(query, key, torch.tensor([4, 2]), 2)[0][2:4], torch.tensor([0, 1]))


def test_all_edges_and_their_softmax_are_the_attention(device, dtype, tolerance):
    query, key, value, sizes = problem(SIZES["mixed"], dtype=dtype, device=device)
    source, target = segment_topk(query, key, sizes, 100)
    weight = segment_softmax((query[target] * key[source]).sum(1), target, len(query))
    out = torch.zeros_like(value).index_add_(0, target, weight[:, None] * value[source])
    assert_close(out, segment_attention(query, key, value, sizes), **tolerance)


def test_softmax_of_edges(device, dtype, tolerance):
    score = torch.tensor([1e4, 1e4, 3, -1e4, 0], dtype=dtype, device=device)
    target = torch.tensor([2, 2, 0, 0, 4], device=device)
    expected = torch.tensor([0.5, 0.5, 1, 0, 1], dtype=dtype, device=device)
    assert_close(segment_softmax(score, target, 5), expected, **tolerance)
    none = segment_softmax(score[:0], target[:0], 3)
    assert none.shape == (0,) and none.dtype == dtype


# Gradients


@pytest.mark.parametrize("loop", [True, False])
def test_gradients_are_those_of_the_mask(loop, block, device, dtype, tolerance):
    query, key, value, sizes = leaves(problem(SIZES["mixed"], dtype=dtype, device=device))
    grad = torch.randn(sum(SIZES["mixed"]), 4, dtype=dtype, device=device)
    results = []
    for function in (segment_attention, masked):
        out = function(query, key, value, sizes, loop=loop)
        results.append(torch.autograd.grad(out, (query, key, value), grad))
    for a, b in zip(*results, strict=True):
        assert_close(a, b, **tolerance)


@pytest.mark.parametrize("loop", [True, False])
def test_gradcheck(loop, block):
    query, key, value, sizes = leaves(problem([1, 0, 5, 2, 9], width=3, channels=2))
    assert gradcheck(lambda q, k, v: segment_attention(q, k, v, sizes, loop=loop), (query, key, value))


def test_gradcheck_of_one_tensor_in_all_places():
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: segment_attention(x, x, x, torch.tensor([3, 4])), (x,))


def test_gradcheck_of_edge_softmax():
    score = torch.randn(9, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([3, 0, 0, 3, 3, 5, 0, 0, 3])
    assert gradcheck(lambda s: segment_softmax(s, target, 6), (score,))


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e3, 1e6])
def test_gradients_are_finite(scale):
    """Equal scores, rows that win by far, and a row that is alone."""
    query, key, value, sizes = leaves(problem([6, 1, 30], dtype=torch.float32, scale=scale))
    for loop in (True, False):
        out = segment_attention(query, key, value, sizes, loop=loop)
        grads = torch.autograd.grad(out.square().sum(), (query, key, value))
        assert all(torch.isfinite(t).all() for t in (out, *grads))


def test_scores_far_below_zero_do_not_vanish():
    query, key, value, sizes = problem([3, 5], width=1)
    query, key = torch.full_like(query, -1e3), torch.full_like(key, 1e3)
    expected = torch.cat([value[:3].mean(0).expand(3, -1), value[3:].mean(0).expand(5, -1)])
    assert_close(segment_attention(query, key, value, sizes), expected)


# Laws


def test_a_batch_is_its_groups(block, dtype, tolerance):
    sizes = [5, 130, 1, 0, 77, 9, 130]
    query, key, value, count = leaves(problem(sizes, dtype=dtype))
    grad = torch.randn(sum(sizes), 4, dtype=dtype)
    out = segment_attention(query, key, value, count)
    grads = torch.autograd.grad(out, (query, key, value), grad)
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        q, k, v = (t.detach()[part].requires_grad_() for t in (query, key, value))
        alone = segment_attention(q, k, v, torch.tensor([size]))
        assert_close(alone, out[part], **tolerance)
        for a, b in zip(torch.autograd.grad(alone, (q, k, v), grad[part]), grads, strict=True):
            assert_close(a, b[part], **tolerance)
        start += size


def test_groups_do_not_touch():
    """What is not finite stays in its group, values and gradients."""
    query, key, value, sizes = problem([6, 7, 6])
    for t in (query, key, value):
        t[7] = math.nan
    query, key, value, _ = leaves((query, key, value, sizes))
    out = segment_attention(query, key, value, sizes)
    assert out[6:13].isnan().all()
    for t in (out, *torch.autograd.grad(out.sum(), (query, key, value))):
        assert torch.isfinite(t[:6]).all() and torch.isfinite(t[13:]).all()


def test_order_inside_a_group_does_not_matter():
    query, key, value, sizes = problem([20, 30])
    order = torch.cat([torch.randperm(20), 20 + torch.randperm(30)])
    out = segment_attention(query, key, value, sizes)
    assert_close(segment_attention(query[order], key[order], value[order], sizes), out[order])


def test_equal_values_come_back():
    query, key, value, sizes = problem([20, 1, 300], scale=5)
    assert_close(segment_attention(query, key, torch.ones_like(value), sizes), torch.ones_like(value))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_adds_in_float32(half):
    query, key, value, sizes = problem([40, 7], dtype=half)
    out = segment_attention(query, key, value, sizes)
    assert out.dtype == half
    assert torch.equal(out, segment_attention(query.float(), key.float(), value.float(), sizes).to(half))
    assert torch.equal(segment_topk(query, key, sizes, 4), segment_topk(query.float(), key.float(), sizes, 4))


def test_autocast_changes_nothing():
    query, key, value, sizes = leaves(problem([30, 8], dtype=torch.float32))
    out = segment_attention(query, key, value, sizes)
    grads = torch.autograd.grad(out.sum(), (query, key, value))
    with torch.autocast("cpu", torch.bfloat16):
        again = segment_attention(query, key, value, sizes)
        grads_again = torch.autograd.grad(again.sum(), (query, key, value))
        edges = segment_topk(query, key, sizes, 3)
    assert torch.equal(out, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, grads_again, strict=True))
    assert torch.equal(edges, segment_topk(query, key, sizes, 3))


def test_two_runs_are_equal(device):
    query, key, value, sizes = leaves(problem([900, 300, 41], 16, 16, device=device))
    runs = []
    for _ in range(2):
        out = segment_attention(query, key, value, sizes)
        runs.append((out, *torch.autograd.grad(out.square().sum(), (query, key, value))))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_memory_is_linear_in_rows():
    """No tensor is larger than a block, or than the padded rows, in either pass."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor):
                    self.size = max(self.size, t.numel())
            return out

    query, key, value, sizes = leaves(problem([2500, 700], width=8, channels=8, dtype=torch.float32))
    with Largest() as largest:
        segment_attention(query, key, value, sizes).sum().backward()
        segment_topk(query, key, sizes, 4)
    assert largest.size <= attention.BLOCK["cpu"] < 2500**2 // 8


def test_padding_is_at_most_a_sixteenth():
    size = torch.arange(0, 20000)
    length = attention._padded_length(size)
    assert (length >= size).all() and (length[1:] >= length[:-1]).all()
    assert (length - size <= torch.maximum(size // 16, torch.tensor(7))).all()
    assert len(length.unique()) < 150


# Bad input


def test_bad_input_is_named():
    query, key, value, sizes = problem([3, 4])
    with pytest.raises(TypeError, match=r"got dtype torch.int64 for query"):
        segment_attention(query.long(), key, value, sizes)
    with pytest.raises(TypeError, match=r"got ndarray for value"):
        segment_attention(query, key, value.numpy(), sizes)
    with pytest.raises(ValueError, match=r"got shape \[7, 4\] for key, expected \[7, 5\]"):
        segment_attention(query, value, value, sizes)
    with pytest.raises(ValueError, match=r"got shape \[6, 4\] for value, expected \[7, \*\]"):
        segment_attention(query, key, value[:6], sizes)
    with pytest.raises(TypeError, match=r"got dtype torch.float32 for sizes, expected torch.int64"):
        segment_attention(query, key, value, sizes.float())
    with pytest.raises(ValueError, match=r"got 6 rows in sizes, expected no negative size and 7 rows"):
        segment_attention(query, key, value, torch.tensor([3, 3]))
    with pytest.raises(ValueError, match=r"got size -1 in sizes"):
        segment_attention(query, key, value, torch.tensor([8, -1]))
    with pytest.raises(ValueError, match=r"got k=0, expected at least 1"):
        segment_topk(query, key, sizes, 0)
    with pytest.raises(ValueError, match=r"got shape \[2\] for target, expected \[3\]"):
        segment_softmax(torch.zeros(3), torch.zeros(2, dtype=torch.int64), 3)
    with pytest.raises(TypeError, match=r"got dtype torch.int64 for score"):
        segment_softmax(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 3)
