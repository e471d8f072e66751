"""k-nearest-neighbour graphs of superpixels and pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch.testing import assert_close
from torch_geometric.data import Data

from graphseg.transforms import ToKNNGraph, ToSuperpixelRAG
from tests.reference import image_graph as reference
from tests.transforms.photos import photograph, sample

BY = ["position", "features", "both"]


def points_of(graph, by, weight, size):
    pos = graph.pos.double() * (weight / math.hypot(*size) if by == "both" else 1)
    return {"position": pos, "features": graph.x.double(), "both": torch.cat([pos, graph.x.double()], 1)}[by]


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("k", [1, 4, 1000])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_neighbours_of_superpixels_are_scipys(by, k, weight):
    data = photograph("coffee")
    graph = ToKNNGraph(k, by, 25, position_weight=weight)(data)
    points = points_of(graph, by, weight, data.mask.shape).numpy()
    N = graph.num_nodes
    kept = min(k, N - 1)
    found = cKDTree(points).query(points, kept + 1)[1]  # the point itself comes first
    want = reference.both_directions((i, int(j)) for i in range(N) for j in found[i] if j != i)
    assert list(zip(*graph.edge_index.tolist(), strict=True)) == want
    assert torch.equal(graph.x, ToSuperpixelRAG(25)(data).x)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("valid", [None, "some", "one", "none"])
def test_neighbours_of_pixels_are_the_loop(by, valid):
    data = sample(6, 7, valid=valid)
    graph = ToKNNGraph(3, by, superpixels="pixels")(data)
    ids = graph.valid.nonzero().squeeze(1)
    points = points_of(graph, by, 1.0, (6, 7))
    if by == "both":  # as the graph has it, in float32: grids are full of ties
        points = torch.cat([graph.pos * (1.0 / math.hypot(6, 7)), graph.x], 1)
    near = reference.nearest_pairs(points[ids].numpy(), 3)
    want = reference.both_directions((int(ids[i]), int(ids[j])) for i, j in near)
    assert list(zip(*graph.edge_index.tolist(), strict=True)) == want
    assert graph.num_nodes == 42


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("sigma", [None, 0.7])
def test_weights_are_gaussian(by, sigma):
    data = photograph()
    graph = ToKNNGraph(4, by, 25, weighted=True, sigma=sigma)(data)
    points = points_of(graph, by, 1.0, data.mask.shape)
    i, j = graph.edge_index
    square = (points[i] - points[j]).square().sum(1)
    variance = square.mean() if sigma is None else sigma**2
    assert_close(graph.edge_weight, torch.exp(-square / (2 * variance)).float(), rtol=1e-4, atol=1e-6)
    assert (graph.edge_weight > 0).all() or (sigma is not None and by == "position")
    assert (graph.edge_weight <= 1).all() and graph.edge_weight.dtype == torch.float32
    assert "edge_weight" not in ToKNNGraph(4, by, 25)(data)


def test_weights_of_coincident_points_are_one():
    data = Data(image=torch.full((3, 6, 6), 0.5), segments=torch.arange(36).view(6, 6) // 9)
    graph = ToKNNGraph(2, "features", superpixels="segments", node_features=["mean"], weighted=True)(data)
    assert graph.edge_weight.eq(1).all() and graph.num_edges


def test_weights_carry_gradients():
    image = torch.rand(3, 12, 12, requires_grad=True)
    data = Data(image=image * 1, segments=torch.arange(144).view(12, 12) // 16)
    graph = ToKNNGraph(3, "features", superpixels="segments", weighted=True)(data)
    graph.edge_weight.sum().backward()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.any()


def test_rings_with_one_centroid():
    rings = np.minimum.reduce([*np.indices((9, 9)), *(8 - np.indices((9, 9)))])
    graph = ToKNNGraph(2, superpixels="segments")(Data(image=torch.rand(3, 9, 9), segments=torch.from_numpy(rings)))
    near = reference.nearest_pairs(graph.pos.numpy(), 2)
    assert list(zip(*graph.edge_index.tolist(), strict=True)) == reference.both_directions(near)
    assert graph.pos.eq(4).all()
