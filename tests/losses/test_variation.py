"""Total variation of maps and graphs against plain loops, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from torch.autograd import gradcheck
from torch.testing import assert_close

from graphseg.losses.variation import graph_total_variation, total_variation
from graphseg.ops import grid_edges, rag_edges, relabel
from graphseg.transforms import ToSuperpixelRAG
from tests.reference import losses as reference
from tests.transforms.photos import photograph

SIZES = [(1, 1), (1, 6), (5, 1), (2, 2), (4, 7)]


def maps(size=(4, 7), images=2, channels=3, seed=0, **kw):
    return torch.randn(images, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        **kw
    )


def test_three_nodes_by_hand():
    x = torch.tensor([[1.0, 0.0], [3.0, 1.0], [2.0, 5.0]])
    edges = torch.tensor([[0, 1], [1, 2]])
    assert graph_total_variation(x, edges) == (3 + 5) / 3
    assert graph_total_variation(x, edges, torch.tensor([2.0, 0.5])) == (6 + 2.5) / 3
    assert graph_total_variation(x, torch.cat([edges, edges.flip(0)], 1), directed=True) == (3 + 5) / 3
    assert graph_total_variation(x, edges, num_pixels=16, return_count=True).tolist() == [0.5, 16]
    assert total_variation(x.T.reshape(1, 2, 1, 3)) == (3 + 5) / 3
    assert total_variation(x.T.reshape(1, 2, 1, 3), reduction="sum", return_count=True).tolist() == [8, 3]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_maps_are_the_loop(size, masked, device, dtype, tolerance):
    x = maps(size, dtype=dtype, device=device)
    valid = torch.rand(2, *size, generator=torch.Generator().manual_seed(1)) < 0.7 if masked else None
    found = total_variation(x, valid=None if valid is None else valid.to(device), reduction="sum", return_count=True)
    parts = [
        reference.total_variation(x[b].cpu().double().numpy(), None if valid is None else valid[b].numpy())
        for b in range(2)
    ]
    total, count = np.sum(parts, axis=0)
    assert_close(found.cpu().double(), torch.tensor([total, count]), **tolerance)
    mean = total_variation(x, valid=None if valid is None else valid.to(device))
    assert_close(mean.cpu().double(), torch.tensor(total / max(count, 1)), **tolerance)


def test_gradients():
    x = maps((3, 4)).requires_grad_()
    valid = torch.rand(2, 3, 4) < 0.8
    assert gradcheck(total_variation, (x,))
    assert gradcheck(lambda x: total_variation(x, valid=valid), (x,))
    nodes, weight = torch.randn(5, 3).double().requires_grad_(), torch.rand(7).double().requires_grad_()
    edges = torch.tensor([[0, 1, 2, 3, 0, 0, 1], [1, 2, 3, 0, 2, 0, 4]])
    assert gradcheck(lambda x, w: graph_total_variation(x, edges, w), (nodes, weight))


def test_constant_maps_have_no_gradient():
    x = torch.ones(1, 2, 3, 3, requires_grad=True)
    assert (torch.autograd.grad(total_variation(x), x)[0] == 0).all()
    nodes = torch.ones(3, 2, requires_grad=True)
    assert (torch.autograd.grad(graph_total_variation(nodes, torch.tensor([[0, 1], [1, 2]])), nodes)[0] == 0).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_pixel_grid_is_the_image(size):
    x = maps(size, images=1)
    nodes = x[0].flatten(1).T
    assert_close(graph_total_variation(nodes, grid_edges(*size)), total_variation(x))
    assert_close(graph_total_variation(nodes, grid_edges(*size, directed=True), directed=True), total_variation(x))


@given(seed=st.integers(0, 1000), height=st.integers(1, 7), width=st.integers(1, 7), regions=st.integers(1, 6))
def test_a_region_graph_is_the_projection(seed, height, width, regions):
    generator = torch.Generator().manual_seed(seed)
    labels = relabel(torch.randint(0, regions, (height, width), generator=generator))
    x = torch.randn(int(labels.max()) + 1, 2, generator=generator, dtype=torch.float64)
    edge_index, length = rag_edges(labels)
    found = graph_total_variation(x, edge_index, length, num_pixels=labels.numel())
    assert_close(found, total_variation(x[labels].movedim(2, 0).unsqueeze(0)))


def test_a_photograph_and_its_superpixels():
    graph = ToSuperpixelRAG(50)(photograph())
    edge_index, length = rag_edges(graph.project(torch.arange(graph.num_nodes)))
    projected = graph.project(graph.x).unsqueeze(0)
    assert_close(
        graph_total_variation(graph.x, edge_index, length, num_pixels=graph.num_pixels), total_variation(projected)
    )
    image = torch.from_numpy(data.astronaut()[::8, ::8].copy()).movedim(2, 0)[None].double() / 255
    smooth = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    assert 0 < total_variation(smooth) < total_variation(image)


def test_a_graph_is_the_loop_whatever_its_order(device, dtype, tolerance):
    x = torch.randn(6, 3).to(device, dtype)
    edges = torch.randint(0, 6, (2, 20)).to(device)
    weight = torch.rand(20).to(device, dtype)
    expected = reference.graph_variation(x.tolist(), edges.T.tolist(), weight.tolist())
    for order in (torch.arange(6), torch.randperm(6)):
        place = order.argsort().to(device)  # node n of x is node place[n] of the permuted graph
        found = graph_total_variation(x[order.to(device)], place[edges], weight, reduction="sum")
        assert found.item() == pytest.approx(expected, rel=tolerance["rtol"])


def test_batch_is_the_mean_of_singles():
    x = maps(images=3)
    assert_close(total_variation(x), torch.stack([total_variation(one[None]) for one in x]).mean())
    # Halves of a batch, added up as processes would.
    parts = total_variation(x[:1], reduction="sum", return_count=True)
    parts = parts + total_variation(x[1:], reduction="sum", return_count=True)
    assert_close(parts[0] / parts[1], total_variation(x))


def test_nothing_left_is_zero_and_pixels_that_are_not_valid_are_not_read():
    x = maps().requires_grad_()
    loss = total_variation(x, valid=torch.zeros(2, 4, 7, dtype=torch.bool), return_count=True)
    assert loss.tolist() == [0, 0]
    loss[0].backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    for empty in (x[:0], x[:, :, :0], x[..., :0], x[:, :0]):
        assert total_variation(empty) == 0
    assert graph_total_variation(torch.zeros(0, 3), torch.zeros(2, 0, dtype=torch.int64)) == 0
    assert graph_total_variation(torch.ones(4, 3), torch.zeros(2, 0, dtype=torch.int64)) == 0

    valid = torch.ones(2, 4, 7, dtype=torch.bool)
    valid[0, 2, 3] = False
    hole = x.detach().clone()
    hole[0, :, 2, 3] = torch.nan
    hole.requires_grad_()
    loss = total_variation(hole, valid=valid)
    loss.backward()
    assert loss.isfinite() and hole.grad.isfinite().all() and (hole.grad[0, :, 2, 3] == 0).all()


def test_autocast_adds_up_in_float32(device):
    x = torch.rand(1, 3, 64, 64, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        assert_close(total_variation(x), total_variation(x.double()).float())
        assert total_variation(x.bfloat16()).dtype == torch.float32
        nodes, edges = x[0].flatten(1).T, grid_edges(64, 64, device=device)
        assert_close(graph_total_variation(nodes, edges), total_variation(x))


# What torch.compile itself does where it breaks a graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles():
    x = maps(images=3).requires_grad_()
    torch._dynamo.reset()
    found, expected = (f(x) for f in (torch.compile(total_variation, backend="eager"), total_variation))
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, x)[0], torch.autograd.grad(expected, x)[0])


def test_bad_input_is_refused_by_name():
    x, edges = maps(), torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"got dtype torch\.int64 for x, expected a floating-point"):
        total_variation(x.long())
    with pytest.raises(ValueError, match=r"for x, expected \[\*, \*, \*, \*\]"):
        total_variation(x[0])
    with pytest.raises(ValueError, match=r"for valid, expected \[2, 4, 7\]"):
        total_variation(x, valid=torch.ones(2, 7, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"for valid, expected torch\.bool"):
        total_variation(x, valid=torch.ones(2, 4, 7))
    with pytest.raises(ValueError, match="got reduction='none', expected one of 'mean', 'sum'"):
        total_variation(x, reduction="none")
    with pytest.raises(ValueError, match=r"for edge_weight, expected \[3\]"):
        graph_total_variation(x[0, 0], edges, torch.ones(2))
    with pytest.raises(ValueError, match=r"in edge_index, expected ids in \[0, 4\)"):
        graph_total_variation(x[0, 0], edges + 4)
