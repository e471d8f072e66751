"""Distances between neighbouring pixels against plain loops, and the compiled form against the tensor form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from graphseg.ops import variation
from graphseg.ops.variation import neighbour_distances

SHAPES = [
    (2, 3, 4, 7),
    (1, 1, 1, 1),
    (1, 2, 1, 6),
    (1, 2, 5, 1),
    (0, 2, 3, 3),
    (2, 0, 3, 3),
    (1, 2, 0, 3),
    (1, 2, 3, 0),
]


def maps(shape, seed=0, dtype=torch.float64, device="cpu"):
    """With many equal neighbours."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def by_loop(x):
    x = x.double().cpu().numpy()
    B, _, H, W = x.shape
    right, below = np.zeros((B, H, max(W - 1, 0))), np.zeros((B, max(H - 1, 0), W))
    for b in range(B):
        for i in range(H):
            for j in range(W):
                if j + 1 < W:
                    right[b, i, j] = sum(abs(v - u) for u, v in zip(x[b, :, i, j], x[b, :, i, j + 1], strict=True))
                if i + 1 < H:
                    below[b, i, j] = sum(abs(v - u) for u, v in zip(x[b, :, i, j], x[b, :, i + 1, j], strict=True))
    return torch.from_numpy(right), torch.from_numpy(below)


def test_three_pixels_by_hand():
    x = torch.tensor([[1.0, 0.0], [3.0, 1.0], [2.0, 5.0]]).T.reshape(1, 2, 1, 3).requires_grad_()
    right, below = neighbour_distances(x)
    assert right.tolist() == [[[3, 5]]] and below.shape == (1, 0, 3)
    (grad,) = torch.autograd.grad(right @ torch.tensor([1.0, 10.0]), x)
    assert grad.tolist() == [[[[-1, 11, -10]], [[-1, -9, 10]]]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_loop(shape, device, dtype, tolerance):
    x = maps(shape, dtype=dtype, device=device)
    for found, expected in zip(neighbour_distances(x), by_loop(x), strict=True):
        assert found.dtype == dtype and found.device.type == device.type
        assert_close(found.cpu().double(), expected, **tolerance)


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 70), st.integers(0, 9)),
    channels_last=st.booleans(),
)
def test_kernel_is_the_tensor_form(seed, shape, channels_last):
    x = maps(shape, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    compiled, plain = variation._by_kernel(x), variation._by_tensors(x)
    for a, b in zip(compiled, plain, strict=True):
        assert torch.equal(a, b)
    upstream = [torch.randint(-5, 6, t.shape).double() for t in plain]
    assert torch.equal(variation._gradient_by_kernel(x, *upstream), variation._gradient_by_tensors(x, *upstream))


def test_gradients_are_those_of_plain_differences():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64).requires_grad_()
    assert gradcheck(neighbour_distances, (x[:1, :, :3, :3].detach().requires_grad_(),))
    plain = [x.diff(dim=3).abs().sum(1), x.diff(dim=2).abs().sum(1)]
    upstream = [torch.randn_like(t) for t in plain]
    found = torch.autograd.grad(neighbour_distances(x), x, upstream)
    assert_close(found, torch.autograd.grad(plain, x, upstream))
    # One of the two alone.
    (one,) = torch.autograd.grad(neighbour_distances(x)[1].sum(), x)
    assert_close(one, torch.autograd.grad(x.diff(dim=2).abs().sum(), x)[0])


def test_equal_neighbours_have_no_gradient():
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    right, below = neighbour_distances(x)
    assert (torch.autograd.grad(right.sum() + below.sum(), x)[0] == 0).all()


def test_number_of_threads_does_not_matter():
    x = torch.randn(2, 5, 100, 20)
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 3):
            torch.set_num_threads(n)
            right, below = neighbour_distances(x)
            results.append((right, below, variation._gradient_by_kernel(x, right, below)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_half_precision_gives_float32():
    x = torch.rand(1, 3, 4, 5)
    for dtype in (torch.float16, torch.bfloat16):
        right, below = neighbour_distances(x.to(dtype))
        expected = neighbour_distances(x.to(dtype).float())
        assert right.dtype == torch.float32
        assert torch.equal(right, expected[0]) and torch.equal(below, expected[1])


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match=r"got dtype torch\.int64 for x"):
        neighbour_distances(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got shape \[2, 2\] for x, expected \[\*, \*, \*, \*\]"):
        neighbour_distances(torch.zeros(2, 2))
