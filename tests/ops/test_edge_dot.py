"""Inner products along edges against plain loops, and the compiled form against the tensor form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from graphseg.ops import edge_dot
from graphseg.ops.edge_dot import inner_products


def problem(nodes=7, channels=4, edges=30, seed=0, device="cpu", dtype=torch.float64):
    """Node values and edges, among them self-loops and the same edge more than once."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, channels, generator=generator, dtype=torch.float64)
    return x.to(device, dtype), torch.randint(0, max(nodes, 1), (2, edges), generator=generator).to(device)


def test_three_nodes_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [-1.0, 0.0]], requires_grad=True)
    found = inner_products(x, torch.tensor([[0, 1, 2], [1, 2, 2]]))
    assert found.tolist() == [11, -3, 1]
    (grad,) = torch.autograd.grad(found @ torch.tensor([1.0, 10.0, 100.0]), x)
    assert grad.tolist() == [[3, 4], [1 - 10, 2], [30 - 200, 40]]


def test_is_the_loop(device, dtype, tolerance):
    x, edge_index = problem(device=device, dtype=dtype)
    expected = [sum(a * b for a, b in zip(x[i].tolist(), x[j].tolist(), strict=True)) for i, j in edge_index.T.tolist()]
    found = inner_products(x, edge_index)
    assert found.dtype == dtype
    assert_close(found.cpu().double(), torch.tensor(expected, dtype=torch.float64), **tolerance)


@given(seed=st.integers(0, 1000), nodes=st.integers(1, 9), channels=st.integers(0, 5), edges=st.integers(0, 30))
def test_compiled_form_is_the_tensor_form(seed, nodes, channels, edges):
    x, edge_index = problem(nodes, channels, edges, seed)
    x.requires_grad_()
    found, expected = inner_products(x, edge_index), edge_dot._by_tensors(x, *edge_index)
    assert_close(found, expected)
    upstream = torch.randn_like(found)
    gradients = [torch.autograd.grad(out, x, upstream)[0] for out in (found, expected)]
    assert_close(gradients[0], gradients[1])


def test_gradients():
    x, edge_index = problem(3, 2, 6)
    assert gradcheck(lambda x: inner_products(x, edge_index), (x.requires_grad_(),))


def test_order_of_nodes_and_edges_does_not_matter():
    x, edge_index = problem()
    found = inner_products(x, edge_index)
    nodes, edges = torch.randperm(7), torch.randperm(30)
    assert torch.equal(inner_products(x[nodes], nodes.argsort()[edge_index][:, edges]), found[edges])
    assert torch.equal(inner_products(x, edge_index.flip(0)), found)
    assert torch.equal(inner_products(x.T.contiguous().T, edge_index), found)  # rows that do not lie together


def test_no_edges_no_nodes():
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert inner_products(torch.zeros(0, 3), none).shape == inner_products(torch.ones(4, 3), none).shape == (0,)


def test_half_precision_gives_float32():
    x, edge_index = problem(dtype=torch.bfloat16)
    assert torch.equal(inner_products(x, edge_index), inner_products(x.float(), edge_index))


def test_bad_input_is_refused_by_name():
    x, edge_index = problem()
    with pytest.raises(TypeError, match=r"got dtype torch\.int64 for x"):
        inner_products(x.long(), edge_index)
    with pytest.raises(ValueError, match=r"for x, expected \[\*, \*\]"):
        inner_products(x[0], edge_index)
    with pytest.raises(ValueError, match=r"for edge_index, expected \[2, \*\]"):
        inner_products(x, edge_index[0])
    with pytest.raises(ValueError, match=r"got node id 7 in edge_index, expected ids in \[0, 7\)"):
        inner_products(x, edge_index.clamp(max=6) + 1)
