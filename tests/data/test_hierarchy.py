"""Hierarchy: levels, their maps, batches, and the same as HeteroData."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, HeteroConv, SAGEConv, to_hetero

from graphseg.data import Hierarchy, ImageGraph
from graphseg.transforms import ToHierarchy
from tests.reference import image_graph as reference
from tests.transforms.photos import K, photograph, sample

CONVERT = ToHierarchy((4, 9, 25), num_classes=K, ignore_index=255, keep_pixels=True)


def hierarchies():
    return [
        CONVERT(photograph()),
        CONVERT(sample(9, 8, valid="some")),
        CONVERT(sample(3, 4, valid="none")),
        CONVERT(sample(1, 1)),
        CONVERT(photograph("coffee")),
    ]


def assert_same(got, want):
    assert type(got) is type(want) and set(got.keys()) == set(want.keys())
    for key, value in want:
        same = torch.equal(got[key], value) if isinstance(value, torch.Tensor) else got[key] == value
        assert same, key


@pytest.mark.parametrize("first", range(5))
def test_batches_come_back_bit_for_bit(first):
    listed = hierarchies()
    listed = listed[first:] + listed[:first]
    batch = next(iter(DataLoader(listed, batch_size=5, follow_batch=["assignment"])))
    assert isinstance(batch, Hierarchy) and batch.validate() and batch.num_levels == 3
    for got, want in zip(batch.to_data_list(), listed, strict=True):
        assert_same(got, want)
    for graph in listed:
        for other in (graph.clone(), copy.copy(graph), pickle.loads(pickle.dumps(graph)), graph.cpu()):
            assert_same(other, graph)


def test_pool_fills_every_level(dtype, tolerance):
    for graph in hierarchies():
        values = torch.rand(graph.num_pixels, 2, dtype=dtype)
        for reduce in ("mean", "sum", "max", "min"):
            levels = [
                reference.pool(values.numpy() - 3, column.numpy(), graph.valid.numpy(), graph.num_nodes, reduce)
                for column in graph.scale_assignment.T
            ]
            found = graph.pool(values - 3, reduce)
            assert found.dtype == dtype
            assert_close(found, torch.from_numpy(sum(levels)).to(dtype), **tolerance)
    graph = hierarchies()[0]
    H, W = graph.image_size[0].tolist()
    assert_close(graph.pool(graph.pixel_x.T.view(3, H, W)), graph.x[:, :3], rtol=1e-5, atol=1e-5)
    whole = (graph.pixel_x * 255).round()
    for kind in (torch.uint8, torch.uint16, torch.int32):
        assert graph.pool(whole.to(kind), "max").dtype == kind
        assert torch.equal(graph.pool(whole.to(kind), "max").float(), graph.pool(whole, "max"))
    batch = Batch.from_data_list(hierarchies())
    pixels = [torch.rand(g.num_pixels, 2, dtype=dtype) for g in hierarchies()]
    parts = [g.pool(p) for g, p in zip(hierarchies(), pixels, strict=True)]
    assert torch.equal(batch.pool(torch.cat(pixels)), torch.cat(parts))


def test_project_shows_the_finest_level():
    graph = hierarchies()[0]
    assert torch.equal(graph.project(graph.level).unique(), torch.tensor([2]))
    ids = graph.project(torch.arange(graph.num_nodes)).flatten()
    assert torch.equal(ids, graph.scale_assignment[:, 2])
    up = graph.parent[ids]
    assert torch.equal(up, graph.scale_assignment[:, 1])
    assert torch.equal(graph.parent[up], graph.scale_assignment[:, 0])


def test_levels_as_graphs():
    for graph in hierarchies():
        starts = [0, *graph.level_sizes[0].cumsum(0).tolist()]
        edges = 0
        for level in range(3):
            one = graph.level_graph(level)
            assert type(one) is ImageGraph and one.validate()
            ids = slice(starts[level], starts[level + 1])
            for key in ("x", "pos", "y", "label_counts"):
                assert torch.equal(one[key], graph[key][ids])
            assert torch.equal(one.purity(), graph.purity()[ids])
            edges += one.num_edges
            assert not {"level", "parent", "scale_assignment", "level_sizes"} & set(one.keys())
        assert edges == graph.num_edges
        assert graph.level_graph(2).oracle() == pytest.approx(graph.oracle(), nan_ok=True)
    finer = [hierarchies()[0].level_graph(level).oracle()["pixel_accuracy"] for level in range(3)]
    assert finer == sorted(finer)


def test_vertical_edges():
    for graph in hierarchies():
        child, parent = graph.vertical_edges()
        assert child.tolist() == [n for n in range(graph.num_nodes) if graph.level[n] > 0]
        assert torch.equal(graph.level[parent], graph.level[child] - 1)


def test_what_is_not_defined_is_refused():
    graph = hierarchies()[0]
    with pytest.raises(TypeError, match="Hierarchy, expected one of its levels"):
        graph.subgraph(torch.arange(3))
    for level in (-1, 3):
        with pytest.raises(ValueError, match=f"level {level}, expected 0 to 2"):
            graph.level_graph(level)
    batch = Batch.from_data_list([graph])
    for call in (batch.to_hetero, lambda: batch.level_graph(0)):
        with pytest.raises(ValueError, match="batch"):
            call()
    part = graph.level_graph(1).subgraph(torch.arange(3))
    assert part.validate() and part.num_nodes == 3


BREAKS = {
    "no level": (lambda g: g.__delattr__("level"), "no level"),
    "no parent": (lambda g: g.__delattr__("parent"), "no parent"),
    "no scale_assignment": (lambda g: g.__delattr__("scale_assignment"), "no scale_assignment"),
    "no level_sizes": (lambda g: g.__delattr__("level_sizes"), "no level_sizes"),
    "no valid": (lambda g: g.__delattr__("valid"), "no valid"),
    "no assignment": (lambda g: g.__delattr__("assignment"), "no assignment"),
    "short level": (lambda g: g.update({"level": g.level[1:]}), "for level"),
    "short parent": (lambda g: g.update({"parent": g.parent[1:]}), "for parent"),
    "parent beyond": (lambda g: g.parent.fill_(10**6), "parent from 1000000 to 1000000"),
    "parent below": (lambda g: g.parent.fill_(-1), "parent from -1"),
    "parent of another level": (lambda g: g.parent.copy_(torch.arange(g.num_nodes)), "parent outside"),
    "parent in float": (lambda g: g.update({"parent": g.parent.float()}), "float32 for parent"),
    "columns": (lambda g: g.update({"scale_assignment": g.scale_assignment[:, :2]}), "for scale_assignment"),
    "columns turned": (lambda g: g.update({"scale_assignment": g.scale_assignment.flip(1)}), "another level"),
    "nodes beyond": (lambda g: g.scale_assignment.add_(10**6), "scale_assignment from"),
    "level_sizes": (lambda g: g.level_sizes.add_(1), "level_sizes that add up"),
    "another finest": (lambda g: g.assignment.copy_(g.assignment.flip(0)), "last column of scale_assignment"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_validate_names_the_broken_field(name):
    change, message = BREAKS[name]
    graph = CONVERT(photograph())
    assert graph.validate()
    change(graph)
    with pytest.raises((ValueError, TypeError), match=message):
        graph.validate()
    assert graph.validate(raise_on_error=False) is False


# HeteroData


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("case", range(5))
def test_hetero_holds_the_same(case, connectivity):
    graph = hierarchies()[case]
    data = graph.to_hetero(connectivity)
    assert data.validate()
    H, W = graph.image_size[0].tolist()
    assert data["pixel"].num_nodes == H * W
    assert torch.equal(data["pixel"].x, graph.pixel_x) and torch.equal(data["pixel"].y, graph.pixel_y)
    offsets = [(0, 1), (1, 0)] + [(1, 1), (1, -1)] * (connectivity == 8)
    pairs = reference.offset_pairs(H, W, offsets, graph.valid.view(H, W).numpy())
    found = list(zip(*data["pixel", "adjacent", "pixel"].edge_index.tolist(), strict=True))
    assert found == reference.both_directions(pairs)
    for level in range(3):
        one, kind = graph.level_graph(level), f"region_{level}"
        for key in ("x", "pos", "y", "label_counts"):
            assert torch.equal(data[kind][key], one[key])
        assert torch.equal(data[kind, "adjacent", kind].edge_index, one.edge_index)
        assert torch.equal(data[kind, "adjacent", kind].edge_attr, one.edge_attr)
    pixel, region = data["pixel", "in", "region_2"].edge_index
    assert torch.equal(pixel, graph.valid.nonzero().squeeze(1))
    assert torch.equal(region, graph.level_graph(2).assignment[pixel])
    middle = data["region_2", "in", "region_1"].edge_index[1]
    assert torch.equal(middle[region], graph.level_graph(1).assignment[pixel])
    top = data["region_1", "in", "region_0"].edge_index[1]
    assert torch.equal(top[middle[region]], graph.level_graph(0).assignment[pixel])
    assert data.recipe == graph.recipe and data.source == graph.source


def test_hetero_batches():
    listed = [graph.to_hetero() for graph in hierarchies()]
    for turned in (listed, listed[::-1]):
        batch = next(iter(DataLoader(turned, batch_size=5)))
        assert batch.validate()
        assert batch["pixel"].num_nodes == sum(g["pixel"].num_nodes for g in turned)
        for got, want in zip(batch.to_data_list(), turned, strict=True):
            assert got.node_types == want.node_types and got.edge_types == want.edge_types
            for mine, other in zip(got.stores, want.stores, strict=True):
                assert set(mine.keys()) == set(other.keys())
                for key, value in other.items():
                    same = torch.equal(mine[key], value) if isinstance(value, torch.Tensor) else mine[key] == value
                    assert same, key


def test_a_hetero_model_learns():
    convert = ToHierarchy((4, 12), num_classes=K, ignore_index=255, keep_pixels=True)
    data = next(iter(DataLoader([convert(photograph(n)).to_hetero() for n in ("astronaut", "coffee")], 2)))
    conv = HeteroConv(
        {edge: GCNConv(-1, 16) if edge[0] == edge[2] else SAGEConv((-1, -1), 16) for edge in data.edge_types}
    )
    head = torch.nn.Linear(16, K)
    features = {kind: data[kind].x for kind in data.node_types}
    conv(features, data.edge_index_dict)
    optimizer = torch.optim.Adam([*conv.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for _ in range(15):
        hidden = conv(features, data.edge_index_dict)
        logits = head(hidden["region_1"].relu())
        loss = torch.nn.functional.cross_entropy(logits, data["region_1"].y, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


class Plain(torch.nn.Module):
    """Two layers for one kind of nodes."""

    def __init__(self):
        super().__init__()
        self.first = SAGEConv((-1, -1), 8)
        self.second = SAGEConv((-1, -1), K)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


def test_pygs_to_hetero():
    data = CONVERT(photograph()).to_hetero()
    model = to_hetero(Plain(), data.metadata())
    found = model({kind: data[kind].x for kind in data.node_types}, data.edge_index_dict)
    assert {kind: value.shape for kind, value in found.items()} == {
        kind: (data[kind].num_nodes, K) for kind in data.node_types
    }
