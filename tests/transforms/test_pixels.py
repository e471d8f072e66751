"""Graphs whose nodes are pixels: the grid and the affinity graph."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Data

from graphseg.ops import affinity_offsets
from graphseg.transforms import ToAffinityGraph, ToPixelGrid
from tests.reference import image_graph as reference
from tests.transforms.photos import photograph, sample


def pairs_of(graph):
    return list(zip(*graph.edge_index.tolist(), strict=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (2, 2), (4, 7)], ids=str)
def test_four_neighbours_are_networkx_grid(size):
    graph = ToPixelGrid()(sample(*size))
    H, W = size
    want = nx.grid_2d_graph(H, W)
    assert pairs_of(graph) == reference.both_directions((a * W + b, c * W + d) for (a, b), (c, d) in want.edges)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_grid_edges_are_the_loop_with_and_without_nodata(connectivity):
    offsets = [(0, 1), (1, 0)] if connectivity == 4 else [(0, 1), (1, 0), (1, 1), (1, -1)]
    for valid in (None, "some", "one", "none"):
        data = sample(6, 9, valid=valid)
        inside = np.ones((6, 9), bool) if valid is None else data.valid.numpy()
        graph = ToPixelGrid(connectivity)(data)
        assert pairs_of(graph) == reference.both_directions(reference.offset_pairs(6, 9, offsets, inside))
        assert graph.num_nodes == 54
        assert torch.equal(graph.assignment, torch.arange(54).where(graph.valid, 0))


def test_nodes_are_the_pixels_in_order():
    data = photograph()
    H, W = data.mask.shape
    graph = ToPixelGrid()(data)
    assert_close(graph.x[:, :3].T.reshape(3, H, W), data.image / 255)
    assert graph.pos.tolist() == [[x, y] for y in range(H) for x in range(W)]
    assert_close(graph.x[:, 3:], (graph.pos + 0.5) / torch.tensor([W, H]))
    assert torch.equal(graph.project(graph.x[:, :3]), graph.x[:, :3].T.reshape(3, H, W))
    assert graph.oracle() == {"pixel_accuracy": 1.0, "mean_iou": 1.0}
    assert ToPixelGrid(node_features=["centroid"])(data).x.shape == (H * W, 2)
    assert ToPixelGrid(node_features=[])(data).x.shape == (H * W, 0)


def test_nodata_nodes_have_neither_edges_nor_labels_nor_values():
    data = sample(6, 9, valid="some")
    graph = ToPixelGrid()(data)
    outside = ~graph.valid
    assert not outside[graph.edge_index].any()
    assert graph.y[outside].eq(-100).all() and graph.label_counts[outside].eq(0).all()
    assert graph.x[outside, :3].eq(0).all()


def test_edge_features_are_the_loop():
    data = photograph()
    graph = ToPixelGrid(8, edge_features=("color_distance", "centroid_distance", "centroid_angle"))(data)
    color = (data.image.double() / 255).flatten(1).T
    for e in range(0, graph.num_edges, 97):
        i, j = graph.edge_index[:, e].tolist()
        step = (graph.pos[j] - graph.pos[i]).tolist()
        want = [math.dist(color[i].tolist(), color[j].tolist()), math.hypot(*step), math.atan2(step[1], step[0])]
        assert graph.edge_attr[e].tolist() == pytest.approx(want, abs=1e-5)


OFFSETS = {
    "one": [(0, 1)],
    "both signs": [(0, 2), (0, -2), (1, 0)],
    "far": [(3, -4), (7, 0)],
    "beyond the image": [(50, 0), (1, 1)],
    "none": [],
    "default": None,
}


@pytest.mark.parametrize("name", OFFSETS)
@pytest.mark.parametrize("valid", [None, "some", "none"])
def test_affinity_edges_and_targets_are_the_loop(name, valid):
    data = sample(9, 12, valid=valid)
    inside = np.ones((9, 12), bool) if valid is None else data.valid.numpy()
    graph = ToAffinityGraph(OFFSETS[name])(data)
    offsets = OFFSETS[name] or (affinity_offsets((1, 2, 4)) if name == "default" else [])
    pairs = reference.both_directions(reference.offset_pairs(9, 12, offsets, inside))
    assert pairs_of(graph) == pairs
    instance = data.instances.flatten().tolist()
    assert graph.edge_y.tolist() == [float(instance[i] == instance[j] != 0) for i, j in pairs]
    assert graph.edge_y.dtype == torch.float32


def test_affinities_of_a_photograph():
    graph = ToAffinityGraph(affinity_offsets((1, 2, 4, 8, 16)))(photograph())
    assert 0 < graph.edge_y.mean() < 1
    near = (graph.pos[graph.edge_index[0]] - graph.pos[graph.edge_index[1]]).abs().amax(1) == 1
    assert graph.edge_y[near].mean() > graph.edge_y[~near].mean()  # neighbours lie in one object more often


def test_without_instances_there_are_no_targets():
    assert "edge_y" not in ToAffinityGraph([(0, 1)])(Data(image=torch.zeros(1, 3, 3)))


def test_offsets_may_come_from_an_iterator():
    transform = ToAffinityGraph(iter([(0, 1), (1, 0)]))
    assert transform(sample(3, 4)).num_edges == transform(sample(3, 4)).num_edges == 34
