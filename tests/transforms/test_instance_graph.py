"""Graphs of given instances, of photographs and of real nuclei."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import Delaunay
from skimage import data as photographs
from skimage.filters import threshold_otsu
from torch.testing import assert_close
from torch_geometric.data import Batch, Data

from graphseg.transforms import ToInstanceGraph
from tests.reference import image_graph as reference
from tests.transforms.photos import read_image, read_rows, to_tensor

EDGES: dict[str, dict[str, Any]] = {"delaunay": {}, "knn": {"k": 3}, "radius": {"max_distance": 12.0}}


def convert(instances, edges="delaunay", **kwargs):
    """The graph of an instance map, of a random image."""
    instances = torch.as_tensor(np.ascontiguousarray(instances))
    image = torch.rand(3, *instances.shape, generator=torch.Generator().manual_seed(0))
    return ToInstanceGraph(edges, **kwargs)(Data(image=image, instances=instances))


def dots(*places, size=(20, 20)):
    """One instance of a single pixel at each (y, x)."""
    found = np.zeros(size, np.int64)
    for n, (y, x) in enumerate(places):
        found[y, x] = n + 1
    return found


def pairs_of(graph):
    return list(zip(*graph.edge_index.tolist(), strict=True))


def undirected(*pairs):
    return reference.both_directions(pairs)


def coins():
    image = photographs.coins()[:, :200]
    inside = ndimage.binary_opening(image > threshold_otsu(image), iterations=3)
    return image, ndimage.label(inside)[0]


def test_coins_are_nodes():
    image, instances = coins()
    data = Data(image=to_tensor(image), instances=torch.from_numpy(instances), source="coins")
    for edges, kwargs in EDGES.items():
        graph = ToInstanceGraph(edges, **(kwargs | ({"max_distance": 90.0} if edges == "radius" else {})))(data)
        assert graph.validate() and graph.num_nodes == instances.max() > 8
        centres = ndimage.center_of_mass(instances > 0, instances, np.arange(1, instances.max() + 1))
        assert_close(graph.pos, torch.tensor(centres, dtype=torch.float32).flip(1), rtol=1e-5, atol=1e-4)
        assert torch.equal(graph.valid.view(image.shape), torch.from_numpy(instances > 0))
        shown = graph.project(torch.arange(1, graph.num_nodes + 1), fill=0)
        assert torch.equal(shown, torch.from_numpy(instances).to(torch.int64))
        coins_mean = graph.x[:, 0].mean() * 255
        assert coins_mean > image[instances == 0].mean()


def test_delaunay_is_scipys():
    _, instances = coins()
    graph = convert(instances)
    triangles = Delaunay(graph.pos.double().numpy()).simplices.tolist()
    assert pairs_of(graph) == undirected(*((t[a], t[b]) for t in triangles for a, b in ((0, 1), (1, 2), (2, 0))))


def test_knn_is_the_loop_and_radius_too():
    _, instances = coins()
    graph = convert(instances, "knn", k=3)
    assert pairs_of(graph) == undirected(*reference.nearest_pairs(graph.pos.numpy(), 3))
    graph = convert(instances, "radius", max_distance=70.0)
    far = torch.cdist(graph.pos.double(), graph.pos.double())
    near = [(i, j) for i in range(len(far)) for j in range(len(far)) if i != j and far[i, j] <= 70]
    assert pairs_of(graph) == undirected(*near) and near


@pytest.mark.parametrize("edges", ["delaunay", "knn"])
def test_the_longest_edges_are_dropped(edges):
    _, instances = coins()
    whole, short = convert(instances, edges), convert(instances, edges, max_distance=60.0)
    length = (whole.pos[whole.edge_index[0]] - whole.pos[whole.edge_index[1]]).double().norm(dim=1)
    kept = length <= 60
    assert 0 < kept.sum() < len(kept)
    assert torch.equal(short.edge_index, whole.edge_index[:, kept])
    assert short.edge_attr.max() <= 60


@pytest.mark.parametrize("edges", EDGES)
def test_few_instances(edges):
    for places, want in [
        ([], []),
        ([(3, 4)], []),
        ([(3, 4), (9, 5)], [(0, 1)]),
        ([(3, 4), (9, 5), (4, 11)], [(0, 1), (1, 2), (0, 2)]),
    ]:
        graph = convert(dots(*places), edges, **EDGES[edges])
        assert graph.validate() and graph.num_nodes == len(places)
        assert graph.x.shape[1] == convert(dots((0, 0)), edges, **EDGES[edges]).x.shape[1]
        assert pairs_of(graph) == undirected(*want)
        assert graph.valid.sum() == len(places)


def test_an_image_without_instances_in_any_place_of_a_batch():
    empty, full = convert(dots()), convert(dots((1, 2), (5, 9), (17, 3)))
    for listed in ([empty, full], [full, empty], [empty, empty], [full, empty, full]):
        batch = Batch.from_data_list(listed)
        assert batch.validate() and batch.num_nodes == sum(g.num_nodes for g in listed)
        assert [g.num_nodes for g in batch.to_data_list()] == [g.num_nodes for g in listed]


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (1, 2), (-1, 3)])
def test_points_on_a_line_are_joined_along_it(step):
    places = [(8 + step[0] * s, 2 + step[1] * s) for s in (0, 1, 2, 4, 5)]
    order = [3, 0, 4, 2, 1]  # of the instance ids along the line
    instances = np.zeros((20, 20), np.int64)
    for place, n in zip(places, order, strict=True):
        instances[place] = n + 1
    assert pairs_of(convert(instances)) == undirected(*pairwise(order))


def test_concentric_instances_share_a_centroid():
    rings = np.minimum.reduce([*np.indices((9, 9)), *(8 - np.indices((9, 9)))]) + 1
    alone = convert(rings)
    assert alone.pos.eq(4).all() and alone.num_nodes == 5
    assert pairs_of(alone) == undirected(*((n, n + 1) for n in range(4)))
    assert alone.edge_attr.eq(0).all()
    beside = np.zeros((30, 30), np.int64)
    beside[:9, :9] = rings
    for n, place in enumerate([(2, 25), (26, 4), (27, 24)]):
        beside[place] = 6 + n
    graph = convert(beside)
    assert graph.validate() and graph.num_nodes == 8
    assert torch.bincount(graph.edge_index[0], minlength=8).min() >= 1  # nobody is left out
    reached = {0}
    for _ in range(8):
        reached |= {j for i, j in pairs_of(graph) if i in reached}
    assert len(reached) == 8


def test_ids_may_be_anything_but_zero():
    instances = np.array([[7, 0, -2], [0, 0, 0], [10**10, 0, 7]])
    graph = convert(instances)
    assert graph.num_nodes == 3
    assert graph.assignment.view(3, 3)[[0, 0, 2, 2], [0, 2, 0, 2]].tolist() == [1, 0, 2, 1]
    assert convert(instances.clip(-9, 9).astype(np.int16)).num_nodes == 3


def test_instances_where_there_is_no_data():
    instances = torch.from_numpy(dots((2, 2), (9, 9), (15, 4)))
    valid = torch.ones(20, 20, dtype=torch.bool)
    valid[:5] = False
    graph = ToInstanceGraph()(Data(image=torch.rand(1, 20, 20), instances=instances, valid=valid))
    assert graph.num_nodes == 2 and graph.valid.sum() == 2


@pytest.mark.parametrize("edges", EDGES)
def test_real_nuclei(edges, shared_data):
    for image_path, label_path, *_ in read_rows(shared_data, "dsb2018", 4):
        image, instances = read_image(image_path), read_image(label_path)
        ids = np.unique(instances)
        data = Data(
            image=to_tensor(image),
            instances=torch.from_numpy(instances.astype(np.int64)),
            mask=torch.from_numpy((instances > 0).astype(np.int64)),
        )
        graph = ToInstanceGraph(edges, **(EDGES[edges] | ({"max_distance": 40.0} if edges == "radius" else {})))(data)
        assert graph.validate() and graph.x.isfinite().all() and graph.num_nodes == (ids > 0).sum() > 3
        assert graph.y.eq(1).all() and graph.oracle()["pixel_accuracy"] == 1.0
        area = ndimage.sum_labels(instances > 0, instances, ids[ids > 0])
        share = graph.x[:, 2 * data.image.shape[0]] * instances.size
        assert_close(share, torch.tensor(area, dtype=torch.float32), rtol=1e-4, atol=0.01)
        if edges == "delaunay":
            triangles = Delaunay(graph.pos.double().numpy()).simplices.tolist()
            sides = {(t[a], t[b]) for t in triangles for a, b in ((0, 1), (1, 2), (2, 0))}
            assert pairs_of(graph) == undirected(*sides)
