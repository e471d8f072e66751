"""`pool` and `project` against plain loops, each other, and torch-scatter."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from graphseg.ops import pooling
from graphseg.ops.pooling import pool, project
from tests.reference import pooling as reference

REDUCES = ("mean", "sum", "max", "min")
LAYOUTS = ("dense", "coo", "csr")


def as_layout(probability, layout):
    """The same probabilities in another layout; gradients flow through."""
    if layout == "dense":
        return probability
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls CSR a beta state
        return probability.to_sparse() if layout == "coo" else probability.to_sparse_csr()


def hard_problem(pixels=40, nodes=7, channels=(3,), seed=0, dtype=torch.float64, device="cpu"):
    """Values [P, *] and an assignment [P] in which the last node has no pixel."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(pixels, *channels, generator=generator, dtype=torch.float64)
    assignment = torch.randint(0, nodes - 1, (pixels,), generator=generator)
    return values.to(device, dtype), assignment.to(device)


def soft_problem(pixels=30, nodes=6, channels=(3,), seed=0, dtype=torch.float64, device="cpu"):
    """Values [P, *] and probabilities [P, N] with zeros; the last node has none."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(pixels, *channels, generator=generator, dtype=torch.float64)
    probability = torch.rand(pixels, nodes, generator=generator, dtype=torch.float64)
    probability = probability * (torch.rand(pixels, nodes, generator=generator) < 0.5)
    probability[:, -1] = 0
    return values.to(device, dtype), probability.to(device, dtype)


# Values


@pytest.mark.parametrize("channels", [(), (1,), (3,), (2, 4)])
@pytest.mark.parametrize("reduce", REDUCES)
def test_hard_pool_is_the_loop(reduce, channels, device, dtype, tolerance):
    x, a = hard_problem(channels=channels, dtype=dtype, device=device)
    expected = reference.pool_hard(x.cpu(), a.cpu(), 7, reduce)
    out = pool(x, a, 7, reduce)
    assert out.dtype == dtype and out.device.type == device.type
    assert_close(out.cpu().double().numpy(), expected, **tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [(), (1,), (3,), (2, 4)])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_soft_pool_is_the_loop(reduce, channels, layout, device, dtype, tolerance):
    x, p = soft_problem(channels=channels, dtype=dtype, device=device)
    expected = reference.pool_soft(x.cpu(), p.cpu(), reduce)
    out = pool(x, as_layout(p, layout), reduce=reduce)
    assert out.dtype == dtype
    assert_close(out.cpu().double().numpy(), expected, **tolerance)


@pytest.mark.parametrize("channels", [(), (3,), (2, 4)])
def test_project_is_the_loop(channels, device, dtype, tolerance):
    _, a = hard_problem(device=device)
    _, p = soft_problem(dtype=dtype, device=device)
    v = torch.randn(7, *channels, dtype=dtype, device=device)
    assert_close(project(v, a).cpu().double().numpy(), reference.project_hard(v.cpu(), a.cpu()), **tolerance)
    expected = reference.project_soft(v[:6].cpu(), p.cpu())
    for layout in LAYOUTS:
        out = project(v[:6], as_layout(p, layout))
        assert_close(out.cpu().double().numpy(), expected, **tolerance)


@settings(max_examples=60, deadline=None)
@given(
    pixels=st.integers(0, 30),
    nodes=st.integers(1, 8),
    channels=st.lists(st.integers(0, 3), max_size=2),
    reduce=st.sampled_from(REDUCES),
    seed=st.integers(0, 999),
)
def test_any_shape(pixels, nodes, channels, reduce, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (pixels, *channels), generator=generator).double()  # with ties
    a = torch.randint(0, nodes, (pixels,), generator=generator)
    valid = torch.rand(pixels, generator=generator) < 0.7
    expected = reference.pool_hard(x, a, nodes, reduce, valid)
    assert_close(pool(x, a, nodes, reduce, valid=valid).numpy(), expected)
    v = torch.randn(nodes, *channels, generator=generator, dtype=torch.float64)
    assert_close(project(v, a, valid=valid, fill=2).numpy(), reference.project_hard(v, a, valid, 2))
    if reduce in ("mean", "sum"):
        one_hot = torch.nn.functional.one_hot(a, nodes).double()
        for layout in LAYOUTS:
            soft = as_layout(one_hot, layout)
            assert_close(pool(x, soft, nodes, reduce, valid=valid).numpy(), expected)
            assert_close(project(v, soft, valid=valid, fill=2), project(v, a, valid=valid, fill=2))


def test_real_photograph():
    image = torch.from_numpy(data.astronaut()).flatten(0, 1)  # [P, 3] uint8
    y, x = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    a = ((y // 32) * 16 + x // 32).flatten()
    blocks = data.astronaut().reshape(16, 32, 16, 32, 3).transpose(0, 2, 1, 3, 4).reshape(256, 1024, 3)
    assert_close(pool(image, a).double().numpy(), blocks.mean(1), rtol=1e-6, atol=0)
    assert torch.equal(pool(image, a, reduce="sum"), torch.from_numpy(blocks.sum(1, dtype=np.int64)))
    assert torch.equal(pool(image, a, reduce="max"), torch.from_numpy(blocks.max(1)))
    assert torch.equal(pool(image, a, reduce="min"), torch.from_numpy(blocks.min(1)))


# Laws


@pytest.mark.parametrize("kind", ["hard", *LAYOUTS])
def test_pool_by_sum_and_project_are_adjoint(kind):
    x, a = hard_problem() if kind == "hard" else soft_problem()
    a = a if kind == "hard" else as_layout(a, kind)
    v = torch.randn(7 if kind == "hard" else 6, 3, dtype=torch.float64)
    assert_close((project(v, a) * x).sum(), (v * pool(x, a, len(v), "sum")).sum())


@pytest.mark.parametrize("reduce", ["mean", "max", "min"])
def test_pool_undoes_project(reduce):
    _, a = hard_problem()
    v = torch.randn(7, 3)
    back = pool(project(v, a), a, 7, reduce)
    assert_close(back[:6], v[:6])
    assert not back[6].any()


def test_project_of_constants_is_constant_where_rows_sum_to_one():
    _, p = soft_problem()
    p = p + 0.1
    v = torch.full((6, 2), 3.0, dtype=torch.float64)
    assert_close(project(v, p / p.sum(1, keepdim=True)), torch.full((30, 2), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("reduce", REDUCES)
def test_permutations(reduce):
    x, a = hard_problem()
    nodes, pixels = torch.randperm(7), torch.randperm(40)
    out = pool(x, a, 7, reduce)
    renamed = pool(x, nodes[a], 7, reduce)
    assert torch.equal(renamed[nodes], out)
    assert_close(pool(x[pixels], a[pixels], 7, reduce), out)
    v = torch.randn(7, 2)
    assert torch.equal(project(v, a[pixels]), project(v, a)[pixels])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_permutations_soft(layout):
    x, p = soft_problem()
    nodes, pixels = torch.randperm(6), torch.randperm(30)
    out = pool(x, as_layout(p, layout))
    assert_close(pool(x, as_layout(p[:, nodes].contiguous(), layout)), out[nodes])
    assert_close(pool(x[pixels], as_layout(p[pixels], layout)), out)


@pytest.mark.parametrize("reduce", REDUCES)
def test_batch_is_singles(reduce):
    problems = [hard_problem(pixels=p, nodes=n, seed=p) for p, n in [(40, 7), (1, 2), (13, 5)]]
    start = torch.tensor([0, 7, 9])
    x = torch.cat([x for x, _ in problems])
    a = torch.cat([a + s for (_, a), s in zip(problems, start, strict=True)])
    sizes = [7, 2, 5]
    singles = [pool(x, a, n, reduce) for (x, a), n in zip(problems, sizes, strict=True)]
    assert torch.equal(pool(x, a, 14, reduce), torch.cat(singles))
    assert torch.equal(
        project(torch.cat(singles), a),
        torch.cat([project(v, a) for v, (_, a) in zip(singles, problems, strict=True)]),
    )


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
def test_sparse_products_agree_whatever_the_chunk(chunk, monkeypatch):
    x, p = soft_problem()
    pixel, node = p.nonzero(as_tuple=True)
    weight, v = p[pixel, node], torch.randn(6, 3, dtype=torch.float64)
    monkeypatch.setattr(pooling, "_CHUNK_BYTES", {"cpu": chunk})
    for product in (pooling._sequential_product, pooling._sorted_product):
        assert_close(product(weight, x, node, pixel, 6), p.t() @ x)
        assert_close(product(weight, v, pixel, node, 30), p @ v)
    assert_close(pooling._PairProduct.apply(x, v, pixel, node), (x @ v.t())[pixel, node])


def test_sparse_products_do_not_depend_on_the_number_of_threads():
    node, pixel = torch.randint(0, 50, (90_000,)), torch.arange(10_000).repeat_interleave(9)
    weight, x = torch.rand(90_000), torch.randn(10_000, 16)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            out = pooling._sequential_product(weight, x, node, pixel, 50)
            results.append((out, pooling._sequential_product(weight, out, pixel, node, 10_000)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_the_mean_of_a_large_constant_region_is_that_constant():
    x = torch.full((300_000, 2), 0.1)
    assert torch.equal(pool(x, torch.zeros(300_000, dtype=torch.int64), 1), x[:1])


PATHS = {pooling._sequential_sum: np.float64, pooling._sorted_sum: np.float32}


@pytest.mark.parametrize("channels", [1, 3, 64])
def test_sums_run_in_pixel_order(channels):
    # To the bit, rows and channels-first, one thread or two: in float64 on a CPU, in float32 where pixels are sorted.
    x = torch.randn(5000, channels)
    a = torch.randint(0, 9, (5000,))
    expected = {path: np.zeros((9, channels), dtype) for path, dtype in PATHS.items()}
    for sums in expected.values():
        np.add.at(sums, a.numpy(), x.numpy())
    strided = x.t().contiguous().t()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for path, sums in expected.items():
                assert np.array_equal(path(x, a, 9).numpy(), sums.astype(np.float32))
                assert np.array_equal(path(strided, a, 9).numpy(), sums.astype(np.float32))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("reduce", REDUCES)
def test_channels_first_is_the_same(reduce):
    x, a = hard_problem()
    assert torch.equal(pool(x.t().contiguous().t(), a, 7, reduce), pool(x, a, 7, reduce))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_runs_on_a_gpu_are_equal():
    x, a = hard_problem(pixels=200_000, nodes=50, dtype=torch.float32, device="cuda")
    x.requires_grad_()
    for reduce in REDUCES:
        first, second = pool(x, a, 50, reduce), pool(x, a, 50, reduce)
        assert torch.equal(first, second)
        assert_close(first.cpu(), pool(x.cpu(), a.cpu(), 50, reduce))
    v = torch.randn(50, 3, device="cuda", requires_grad=True)
    grads = [torch.autograd.grad((project(v, a) * x.detach()).sum(), v)[0] for _ in range(2)]
    assert torch.equal(*grads)


# dtypes


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_adds_up_in_float32(half):
    # In its own precision a sum of 4,096 ones would stop at 2,048 (float16) or 256 (bfloat16).
    x = torch.ones(4096, 1, dtype=half, requires_grad=True)
    a = torch.zeros(4096, dtype=torch.int64)
    assert pool(x, a, 1, "sum").item() == 4096
    for reduce in ("mean", "max", "min"):
        out = pool(x, a, 1, reduce)
        assert out.dtype == half and out.item() == 1
    soft = torch.ones(4096, 1, dtype=half)
    for layout in LAYOUTS:
        assert pool(x, as_layout(soft, layout), reduce="sum").item() == 4096
    v = torch.ones(1, 1, dtype=half, requires_grad=True)
    project(v, a).sum().backward()
    assert v.grad is not None and v.grad.item() == 4096


@pytest.mark.parametrize("integer", [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64])
def test_integers(integer):
    x = torch.tensor([[100, 1], [120, 2], [3, 4]]).to(integer)
    a = torch.tensor([1, 1, 0], dtype=torch.int32)
    assert_close(pool(x, a), torch.tensor([[3.0, 4.0], [110.0, 1.5]]))
    total = pool(x, a, reduce="sum")
    assert total.dtype == torch.int64 and total.tolist() == [[3, 4], [220, 3]]
    for reduce, expected in [("max", [[3, 4], [120, 2]]), ("min", [[3, 4], [100, 1]])]:
        out = pool(x, a, reduce=reduce)
        assert out.dtype == integer and out.tolist() == expected
    back = project(x[:2], a, valid=torch.tensor([True, True, False]), fill=7)
    assert back.dtype == integer and back.tolist() == [[120, 2], [120, 2], [7, 7]]
    soft = torch.nn.functional.one_hot(a.long(), 2).float()
    for layout in LAYOUTS:
        assert_close(pool(x, as_layout(soft, layout)), torch.tensor([[3.0, 4.0], [110.0, 1.5]]))
        assert project(x[:2], as_layout(soft, layout)).dtype == torch.float32


def test_integer_mean_is_exact():
    big = torch.tensor([2**24 + 1, 2**24 + 1])
    assert pool(big, torch.zeros(2, dtype=torch.int64), reduce="sum").item() == 2**25 + 2
    torch.set_default_dtype(torch.float64)
    try:
        assert pool(big, torch.zeros(2, dtype=torch.int64)).item() == 2**24 + 1
    finally:
        torch.set_default_dtype(torch.float32)


def test_project_takes_bool():
    out = project(torch.tensor([True, False]), torch.tensor([1, 0, 0]), valid=torch.tensor([True, True, False]))
    assert out.dtype == torch.bool and out.tolist() == [False, True, False]


def test_autocast_keeps_float32():
    x, p = soft_problem(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = pool(x, p), project(pool(x, p), p)
    assert torch.equal(out[0], pool(x, p)) and torch.equal(out[1], project(pool(x, p), p))


# Degenerate inputs

LONG = torch.int64
DEGENERATE = {
    "no pixels": (torch.zeros(0, 2), torch.zeros(0, dtype=LONG), 3, None),
    "no pixels, no nodes": (torch.zeros(0, 2), torch.zeros(0, dtype=LONG), None, None),
    "no channels": (torch.zeros(4, 0), torch.tensor([0, 1, 1, 0]), None, None),
    "one pixel": (torch.tensor([[2.0, 3.0]]), torch.tensor([0]), None, None),
    "empty nodes": (torch.ones(2, 2), torch.tensor([1, 3]), 6, None),
    "none valid": (torch.ones(2, 2), torch.tensor([0, 1]), 2, torch.tensor([False, False])),
    "none valid, no nodes": (torch.ones(2, 2), torch.tensor([0, 0]), None, torch.tensor([False, False])),
    "a node per pixel": (torch.randn(4, 2), torch.arange(4), None, None),
    "all in one node": (torch.randn(4, 2), torch.zeros(4, dtype=LONG), None, None),
    "constant": (torch.ones(4, 2), torch.tensor([0, 1, 1, 0]), None, None),
}


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate(case, reduce):
    x, a, n, valid = DEGENERATE[case]
    x = x.clone().requires_grad_()
    out = pool(x, a, n, reduce, valid=valid)
    size = len(out)
    assert size == (n if n is not None else (int(a.max()) + 1 if len(a) and valid is None else 0))
    expected = reference.pool_hard(x.detach(), a, size, reduce, valid)
    assert_close(out.detach().double().numpy(), expected, rtol=1e-6, atol=1e-7)
    back = project(out, a, valid=valid, fill=-1.0)
    assert_close(back.detach().double().numpy(), reference.project_hard(out.detach(), a, valid, -1.0), rtol=0, atol=0)
    back.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    if reduce in ("mean", "sum"):
        one_hot = (a.unsqueeze(1) == torch.arange(size)).float()
        for layout in LAYOUTS:
            p = as_layout(one_hot, layout)
            assert_close(pool(x, p, n, reduce, valid=valid), out)
            assert_close(project(out, p, valid=valid, fill=-1.0), back)


@pytest.mark.parametrize("reduce", REDUCES)
def test_pixels_that_are_not_valid_are_never_read(reduce):
    x, a = hard_problem()
    valid = torch.rand(40) < 0.6
    spoilt_x, spoilt_a = x.clone(), a.clone()
    spoilt_x[~valid], spoilt_a[~valid] = float("nan"), -7
    spoilt_x.requires_grad_()
    out = pool(spoilt_x, spoilt_a, 7, reduce, valid=valid)
    assert torch.equal(out, pool(x[valid], a[valid], 7, reduce))
    out.pow(2).sum().backward()
    assert torch.isfinite(spoilt_x.grad).all() and not spoilt_x.grad[~valid].any()
    v = torch.randn(7, 3, requires_grad=True)
    back = project(v, spoilt_a, valid=valid, fill=float("nan"))
    assert torch.equal(back[valid], v[a[valid]]) and back[~valid].isnan().all()
    (grad,) = torch.autograd.grad((back * back.detach()).sum(), v)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_soft_pixels_that_are_not_valid_are_never_read(reduce, layout):
    x, p = soft_problem()
    valid = torch.rand(30) < 0.6
    expected = pool(x[valid], p[valid], reduce=reduce)
    spoilt_x, spoilt_p = x.clone(), p.clone()
    spoilt_x[~valid], spoilt_p[~valid] = float("nan"), float("nan")
    spoilt_x.requires_grad_(), spoilt_p.requires_grad_()
    out = pool(spoilt_x, as_layout(spoilt_p, layout), reduce=reduce, valid=valid)
    assert_close(out, expected)
    back = project(out, as_layout(spoilt_p, layout), valid=valid, fill=float("nan"))
    assert_close(back[valid], p[valid] @ expected)
    assert back[~valid].isnan().all()
    grads = torch.autograd.grad(back[valid].pow(2).sum(), (spoilt_x, spoilt_p))
    for grad in grads:
        assert torch.isfinite(grad).all() and not grad[~valid].any()


# Gradients


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("skip", [False, True])
def test_gradients_hard(reduce, skip):
    x, a = hard_problem(pixels=12, nodes=4, channels=(2,))
    valid = torch.rand(12) < 0.7 if skip else None
    x.requires_grad_()
    assert gradcheck(lambda x: pool(x, a, 4, reduce, valid=valid), x)
    assert gradgradcheck(lambda x: pool(x, a, 4, reduce, valid=valid), x)
    v = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: project(v, a, valid=valid), v)
    assert gradgradcheck(lambda v: project(v, a, valid=valid), v)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("skip", [False, True])
def test_gradients_soft(layout, skip):
    x, p = soft_problem(pixels=6, nodes=4, channels=(2,))
    valid = torch.rand(6) < 0.7 if skip else None
    kept = p.nonzero(as_tuple=True)
    weight = p[kept].requires_grad_()
    x.requires_grad_()
    v = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)

    def build(weight):
        if layout == "coo":
            return torch.sparse_coo_tensor(torch.stack(kept), weight, p.shape, check_invariants=True)
        dense = torch.zeros(p.shape, dtype=torch.float64).index_put(kept, weight)
        return as_layout(dense, layout)

    for reduce in ("mean", "sum"):
        assert gradcheck(lambda w, x, r=reduce: pool(x, build(w), reduce=r, valid=valid), (weight, x))
    assert gradcheck(lambda w, v: project(v, build(w), valid=valid), (weight, v))


def test_second_gradients_soft():
    x, p = soft_problem(pixels=6, nodes=4, channels=(2,))
    pixel, node = p.nonzero(as_tuple=True)
    weight = p[pixel, node].requires_grad_()
    x.requires_grad_()

    def product(weight, x):
        return pooling._SparseProduct.apply(weight, x, node, pixel, 4)

    assert gradcheck(product, (weight, x))
    assert gradgradcheck(product, (weight, x))
    assert gradgradcheck(lambda p, x: pool(x, p), ((p + 0.1).requires_grad_(), x))


def test_gradient_reaches_a_sparse_leaf():
    x, p = soft_problem()
    dense = p.clone().requires_grad_()
    expected = torch.autograd.grad(pool(x, dense).pow(2).sum() + project(x[:6], dense).pow(2).sum(), dense)[0]
    for layout in ("coo", "csr"):
        leaf = as_layout(p, layout).requires_grad_()
        (pool(x, leaf).pow(2).sum() + project(x[:6], leaf).pow(2).sum()).backward()
        assert_close(leaf.grad.to_dense(), expected * (p != 0))


def test_repeated_entries_of_a_sparse_assignment_add_up():
    weight = torch.tensor([0.25, 0.5, 1.0], requires_grad=True)
    p = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [1, 1, 0]]), weight, (2, 2), check_invariants=True)
    x = torch.tensor([[2.0], [5.0]])
    out = pool(x, p, reduce="sum")
    assert out.tolist() == [[5.0], [1.5]]
    (grad,) = torch.autograd.grad(out.sum(), weight)
    assert grad.tolist() == [2.0, 2.0, 5.0]


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_the_first_of_tied_pixels_gets_the_gradient(reduce):
    # Zeros too: an extreme of 0 must not be taken for the start value.
    x = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 1.0], requires_grad=True)
    a = torch.tensor([0, 0, 0, 0, 1, 2])
    (grad,) = torch.autograd.grad(pool(x, a, 4, reduce).sum(), x)
    winner = 1 if reduce == "max" else 0
    assert grad.tolist() == [float(i == winner) for i in range(4)] + [1.0, 1.0]


@pytest.mark.parametrize("chunk", [1, 64, 1 << 22])
@pytest.mark.parametrize("reduce", ["max", "min"])
def test_gradient_of_extremes_goes_to_numpys_first(reduce, chunk, monkeypatch):
    monkeypatch.setattr(pooling, "_CHUNK_BYTES", {"cpu": chunk})
    x = torch.randint(-2, 3, (40, 3)).double().requires_grad_()
    a = torch.randint(0, 6, (40,))
    (grad,) = torch.autograd.grad(pool(x, a, 7, reduce).sum(), x)
    expected = np.zeros((40, 3))
    for n in a.unique().tolist():
        members = (a == n).nonzero().squeeze(1).numpy()
        rows = x.detach().numpy()[members]
        first = rows.argmax(0) if reduce == "max" else rows.argmin(0)
        expected[members[first], [0, 1, 2]] = 1
    assert np.array_equal(grad.numpy(), expected)


def test_empty_soft_node_gets_no_gradient():
    x, p = soft_problem()
    p.requires_grad_()
    x.requires_grad_()
    pool(x, p)[-1].sum().backward()
    assert not p.grad.any() and not x.grad.any()


# A peer


@pytest.mark.parametrize("reduce", REDUCES)
def test_torch_scatter_agrees(reduce):
    torch_scatter = pytest.importorskip("torch_scatter")
    x, a = hard_problem(pixels=500, nodes=20, channels=(5,))
    assert_close(pool(x, a, 20, reduce), torch_scatter.scatter(x, a, 0, dim_size=20, reduce=reduce))


# Bad input

X, A, P = torch.randn(4, 2), torch.tensor([0, 1, 1, 0]), torch.rand(4, 3)
LIST: Any = [0, 1, 1, 0]
REAL: Any = 1.5
BAD = [
    (lambda: pool(LIST, A), TypeError, "got list for values"),
    (lambda: pool(X > 0, A), TypeError, "got dtype torch.bool for values"),
    (lambda: pool(torch.tensor(1.0), A), ValueError, r"got shape \[\] for values"),
    (lambda: pool(X.to_sparse(), A), TypeError, "got layout torch.sparse_coo for values"),
    (lambda: pool(X, A, reduce="median"), ValueError, "got reduce='median', expected one of 'mean'"),
    (lambda: pool(X, A, REAL), TypeError, "got float for num_nodes"),
    (lambda: pool(X, A, -1), ValueError, "got num_nodes=-1"),
    (lambda: pool(X, A, 1), ValueError, r"got assignment id 1, expected ids in \[0, 1\)"),
    (lambda: pool(X, A - 1), ValueError, r"got assignment id -1, expected ids in \[0, 1\)"),
    (lambda: pool(X, A[:3]), ValueError, "got 4 pixels in values, expected 3"),
    (lambda: pool(X, A.view(2, 2)), ValueError, r"got shape \[2, 2\] for assignment, expected \[\*\]"),
    (lambda: pool(X, A == 1), TypeError, "got dtype torch.bool for assignment"),
    (lambda: pool(X, A.to(torch.int16)), TypeError, "got dtype torch.int16 for assignment"),
    (lambda: pool(X, LIST), TypeError, "got list for assignment"),
    (lambda: pool(X, P[:, 0]), ValueError, r"got shape \[4\] for assignment, expected \[\*, \*\]"),
    (lambda: pool(X, P, 4), ValueError, "got num_nodes=4, expected 3"),
    (lambda: pool(X, P, reduce="max"), ValueError, "got reduce='max' with a soft assignment"),
    (lambda: pool(X, P.to_sparse_csc()), TypeError, "got layout torch.sparse_csc for assignment"),
    (lambda: pool(X, A, valid=torch.ones(4)), TypeError, "got dtype torch.float32 for valid"),
    (
        lambda: pool(X, A, valid=torch.ones(3).bool()),
        ValueError,
        r"got shape \[3\] for valid, expected \[4\]",
    ),
    (lambda: pool(X, A.to("meta")), ValueError, "values on cpu, assignment on meta; expected all on one"),
    (lambda: project(X, A + 3), ValueError, r"got assignment id 4, expected ids in \[0, 4\)"),
    (lambda: project(X, P), ValueError, "got 4 nodes in values, expected 3"),
    (lambda: project(X > 0, P), TypeError, "got dtype torch.bool for values"),
    (lambda: project(torch.tensor(1.0), A), ValueError, r"got shape \[\] for values"),
    (lambda: project(A, A, valid=A == 1, fill=0.5), ValueError, "got fill=0.5, expected a whole number"),
    (lambda: project(A.byte(), A, valid=A == 1, fill=-1), ValueError, r"whole number in \[0, 255\]"),
    (lambda: project(A, A, valid=A == 1, fill=float("nan")), ValueError, "got fill=nan"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_bad_input_is_refused_by_name(number):
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()
