"""ToHierarchy: scales that nest, parents, and the features of each scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphseg.ops import multiscale_slic
from graphseg.transforms import ToHierarchy, ToSuperpixelRAG
from graphseg.transforms.features import NODE_FEATURES, RAG_EDGE_FEATURES
from graphseg.transforms.to_hierarchy import majority_parent
from tests.label_maps import consecutive, label_maps
from tests.reference import image_graph as reference
from tests.transforms.photos import K, photograph, sample


def columns_of(graph):
    """The label map `[P]` of each level, numbered from 0."""
    starts = [0, *graph.level_sizes[0].cumsum(0).tolist()]
    return [(graph.scale_assignment[:, level] - starts[level])[graph.valid] for level in range(graph.num_levels)]


@pytest.mark.parametrize("method", ["slic", "watershed"])
@pytest.mark.parametrize("photo", ["astronaut", "coffee", "coins"])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_nested_scales_on_photographs(method, photo, connectivity):
    graph = ToHierarchy((4, 12, 40), method, connectivity=connectivity)(photograph(photo))
    assert graph.validate()
    sizes = graph.level_sizes[0].tolist()
    assert sizes == sorted(sizes) and sizes[0] > 1
    columns = columns_of(graph)
    for fine, coarse in zip(columns[1:], columns[:-1], strict=True):
        pairs = torch.unique(torch.stack([fine, coarse]), dim=1)
        assert pairs[0].tolist() == list(range(int(fine.max()) + 1))  # each fine region in exactly one coarse
        assert pairs[1].unique().tolist() == list(range(int(coarse.max()) + 1))


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("valid", [None, "some", "one"])
def test_parents_and_scales(nested, valid):
    graph = ToHierarchy((3, 6, 14), "watershed", nested=nested)(sample(14, 15, valid=valid))
    inside = np.ones(int(graph.valid.sum()), bool)
    columns = [c.numpy() for c in columns_of(graph)]
    starts = [0, *graph.level_sizes[0].cumsum(0).tolist()]
    for level in range(3):
        assert graph.level[starts[level] : starts[level + 1]].eq(level).all()
    assert graph.parent[: starts[1]].tolist() == list(range(starts[1]))
    for level in (1, 2):
        found = (graph.parent[starts[level] : starts[level + 1]] - starts[level - 1]).tolist()
        assert found == reference.majority_parent(columns[level], columns[level - 1], inside)
    for column, size in zip(columns, graph.level_sizes[0].tolist(), strict=True):
        assert sorted(set(column.tolist())) == list(range(size))
    whole = graph.scale_assignment[graph.valid]
    assert torch.equal(graph.assignment[graph.valid], whole[:, -1])
    finest = ToSuperpixelRAG(14, "watershed")(sample(14, 15, valid=valid))
    assert torch.equal(finest.assignment[finest.valid], torch.from_numpy(columns[2]))
    if not nested:
        for count, column in zip((3, 6), columns[:2], strict=True):
            alone = ToSuperpixelRAG(count, "watershed")(sample(14, 15, valid=valid))
            assert torch.equal(alone.assignment[alone.valid], torch.from_numpy(column))


@given(label_maps(largest=8), label_maps(largest=8), st.integers(0, 2**31))
@settings(max_examples=80)
def test_majority_parents_are_the_loop(fine, coarse, seed):
    H, W = min(fine.shape[0], coarse.shape[0]), min(fine.shape[1], coarse.shape[1])
    valid = np.random.default_rng(seed).random((H, W)) < 0.8
    if not valid.any():
        valid[0, 0] = True
    maps = []
    for labels in (fine[:H, :W].copy(), coarse[:H, :W].copy()):
        labels[valid] = consecutive(labels[valid])
        maps.append(labels)
    below, above = map(torch.from_numpy, maps)
    found = majority_parent(below, above, torch.from_numpy(valid))
    assert found.tolist() == reference.majority_parent(maps[0], maps[1], valid)
    if valid.all():
        assert torch.equal(majority_parent(below, above, None), found)


@given(st.lists(label_maps(largest=8), min_size=3, max_size=3), st.booleans())
@settings(max_examples=40)
def test_any_label_maps_nest(maps, nested):
    H, W = (min(m.shape[axis] for m in maps) for axis in (0, 1))
    maps = iter([m[:H, :W] for m in maps])
    graph = ToHierarchy((1, 2, 3), lambda image, count: next(maps), nested=nested)(Data(image=torch.rand(1, H, W)))
    assert graph.validate()
    if nested:
        child, parent = graph.scale_assignment[:, 1:], graph.scale_assignment[:, :-1]
        assert torch.equal(graph.parent[child], parent)


def test_by_hand():
    fine = np.array([[0, 0, 1, 1, 2, 2]])
    coarse = np.array([[0, 1, 1, 1, 1, 0]])  # region 0 and 2 are halved: ties go to the smaller id
    graph = ToHierarchy((2, 3), lambda image, count: {2: coarse, 3: fine}[count])(Data(image=torch.rand(1, 1, 6)))
    assert graph.scale_assignment.tolist() == [[0, 2], [0, 2], [1, 3], [1, 3], [0, 4], [0, 4]]
    assert graph.parent.tolist() == [0, 1, 0, 1, 0]
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2], [3, 4], [4, 3]]
    loose = ToHierarchy((2, 3), lambda image, count: {2: coarse, 3: fine}[count], nested=False)(
        Data(image=torch.rand(1, 1, 6))
    )
    assert loose.scale_assignment[:, 0].tolist() == coarse[0].tolist()
    assert loose.parent.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("valid", [None, "some"])
def test_a_level_is_the_graph_of_the_same_labels(nested, valid):
    data = sample(16, 18, valid=valid)
    options: dict[str, Any] = {"node_features": NODE_FEATURES, "edge_features": RAG_EDGE_FEATURES, "num_classes": K}
    graph = ToHierarchy((3, 6, 12), nested=nested, connectivity=8, **options)(data)
    for level in range(3):
        one = graph.level_graph(level)
        data.segments = one.assignment.view(16, 18)
        alone = ToSuperpixelRAG(None, "segments", connectivity=8, **options)(data)
        for key in ("x", "pos", "edge_index", "edge_attr", "y", "label_counts", "valid", "assignment", "image_size"):
            assert torch.equal(one[key], alone[key]), key


def test_one_scale_is_a_rag():
    data = photograph()
    graph, alone = ToHierarchy((15,))(data), ToSuperpixelRAG(15)(data)
    for key in ("x", "pos", "edge_index", "edge_attr", "y", "label_counts", "assignment"):
        assert torch.equal(graph[key], alone[key])
    assert graph.level.eq(0).all() and graph.vertical_edges().shape == (2, 0)
    assert "edge_attr" not in ToHierarchy((15,), edge_features=())(data)
    assert graph.to_hetero().validate()


def test_as_many_scales_as_wanted():
    graph = ToHierarchy((2, 2, 3, 5, 9, 30))(photograph())
    assert graph.validate() and graph.num_levels == 6
    assert graph.scale_assignment.shape[1] == 6


def test_slic_is_nested_by_merging_down_to_exactly_the_coarser_counts():
    graph = ToHierarchy((5, 11, 23), exact=True)(photograph())
    assert graph.level_sizes.tolist() == [[5, 11, 23]]
    scales = multiscale_slic(photograph().image, (5, 11, 23), exact=True, nested=True)
    starts = torch.tensor([0, 5, 16])
    assert torch.equal(graph.scale_assignment, torch.stack([s.flatten() for s in scales], 1) + starts)
    assert graph.validate()
