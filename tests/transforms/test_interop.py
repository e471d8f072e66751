"""To and from networkx and scikit-image: nothing is lost, and their algorithms give what they give on their graphs."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from skimage import data as photographs
from skimage import graph as skgraph
from skimage.graph._rag import show_rag
from skimage.segmentation import slic
from torch_geometric.data import Batch, Data

from graphseg import ImageGraph
from graphseg.transforms import (
    ToAffinityGraph,
    ToHierarchy,
    ToInstanceGraph,
    ToKNNGraph,
    ToPixelGrid,
    ToSuperpixelRAG,
)
from graphseg.transforms.interop import from_networkx, from_skimage_rag, to_networkx, to_skimage_rag
from tests.label_maps import DEGENERATE, consecutive, label_maps


def photograph(**fields: Any) -> Data:
    """A crop of the astronaut with a mask that has ignored pixels, and nodata in one corner."""
    image = torch.from_numpy(photographs.astronaut()[20:84, 150:230].copy()).movedim(-1, 0)
    mask = (image[0] > 120).to(torch.int64) + (image[2] > 120)
    mask[:9] = 255
    valid = torch.ones_like(mask, dtype=torch.bool)
    valid[50:, :12] = False
    return Data(image=image, mask=mask, valid=valid, source="astronaut", **fields)


def of_labels(labels: np.ndarray, **options: Any) -> ImageGraph:
    """The region adjacency graph of a label map on random colours."""
    image = torch.rand(2, *labels.shape, generator=torch.Generator().manual_seed(0))
    data = Data(image=image, segments=torch.from_numpy(labels))
    return ToSuperpixelRAG(superpixels="segments", keep_pixels=True, **options)(data)


def projected(graph: ImageGraph, values: torch.Tensor, fill: int = 0) -> torch.Tensor:
    """Node values as a map."""
    found = graph.project(values, fill=fill)
    assert isinstance(found, torch.Tensor)
    return found


def assert_same(one: ImageGraph, other: ImageGraph) -> None:
    """The same fields with the same values, dtypes and shapes, bit for bit."""
    assert sorted(one.keys()) == sorted(other.keys())
    for key, value in one:
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[key].dtype, key
            torch.testing.assert_close(other[key], value, rtol=0, atol=0, equal_nan=True)
        else:
            assert other[key] == value, key


TRANSFORMS = {
    "superpixels": ToSuperpixelRAG(12, num_classes=3, ignore_index=255, keep_pixels=True),
    "superpixels, angles": ToSuperpixelRAG(
        12, edge_features=("centroid_angle", "boundary_percentiles"), num_classes=4, ignore_index=255
    ),
    "no edge features": ToSuperpixelRAG(12, edge_features=()),
    "weighted": ToKNNGraph(4, num_segments=15, weighted=True),
    "grid": ToPixelGrid(8, num_classes=3, ignore_index=255),
    "affinity": ToAffinityGraph([(0, 1), (3, 0)]),
    "instances": ToInstanceGraph(num_classes=3, ignore_index=255),
}


@pytest.fixture(scope="module", params=list(TRANSFORMS))
def converted(request: pytest.FixtureRequest) -> ImageGraph:
    """A graph of a real photograph by every construction."""
    data = photograph(instances=torch.from_numpy(np.indices((64, 80)).sum(0) // 12 % 4), site=7, tags=["a", "b"])
    return TRANSFORMS[request.param](data)


# networkx


def test_networkx_brings_everything_back(converted: ImageGraph) -> None:
    assert_same(converted, from_networkx(to_networkx(converted)))
    assert_same(converted, from_networkx(to_networkx(converted, directed=True)))


def test_networkx_sees_rows_pixels_and_edges(converted: ImageGraph) -> None:
    g = to_networkx(converted, directed=True)
    assert list(g) == list(range(converted.num_nodes))
    assert sorted(g.edges) == list(map(tuple, converted.edge_index.T.tolist()))
    for n in range(0, converted.num_nodes, 97):
        row = g.nodes[n]
        np.testing.assert_array_equal(row["x"], converted.x[n].numpy())
        assert row["pos"] == tuple(converted.pos[n].tolist())
        assert row["y"] == int(converted.y[n])
        own = ((converted.assignment == n) & converted.valid).nonzero().squeeze(1)
        np.testing.assert_array_equal(row["pixels"], own.numpy())
    for e in range(0, converted.num_edges, 997):
        row = g.edges[tuple(converted.edge_index[:, e].tolist())]
        if "edge_weight" in converted:
            assert row["weight"] == float(converted.edge_weight[e])
        if "edge_attr" in converted:
            np.testing.assert_array_equal(row["edge_attr"], converted.edge_attr[e].numpy())
    assert g.graph["source"] == "astronaut" and g.graph["recipe_hash"] == converted.recipe_hash


def test_direction_follows_from_the_edges() -> None:
    plain = of_labels(DEGENERATE["rings"])
    angled = of_labels(DEGENERATE["four corners"], edge_features=("centroid_angle",))
    assert not to_networkx(plain).is_directed()
    assert to_networkx(angled).is_directed()
    assert not to_networkx(angled, edge_attrs=()).is_directed()  # judged by what is carried
    assert to_networkx(plain, directed=True).is_directed()
    one_way = ImageGraph(
        edge_index=torch.tensor([[0], [1]]),
        num_nodes=2,
        assignment=torch.tensor([0, 1]),
        image_size=torch.tensor([[1, 2]]),
    )
    assert to_networkx(one_way).is_directed()
    with pytest.raises(ValueError, match=r"differ from their reverse \(a reverse is missing\)"):
        to_networkx(one_way, directed=False)
    with pytest.raises(ValueError, match=r"differ from their reverse \(edge_attr\)"):
        to_networkx(angled, directed=False)


@pytest.mark.parametrize("name", list(DEGENERATE))
def test_degenerate_maps_come_back(name: str) -> None:
    graph = of_labels(DEGENERATE[name])
    g = to_networkx(graph)
    assert g.number_of_edges() == graph.num_edges // 2
    assert_same(graph, from_networkx(g))


def test_graphs_without_nodes_come_back() -> None:
    data = photograph(instances=torch.zeros(64, 80, dtype=torch.int64))
    graph = ToInstanceGraph(num_classes=3, ignore_index=255)(data)
    assert graph.num_nodes == 0
    assert_same(graph, from_networkx(to_networkx(graph)))


@given(label_maps(), st.data())
def test_random_graphs_come_back(labels: np.ndarray, draw: st.DataObject) -> None:
    # Any directed edges, loops and isolated nodes; any dtype; values that are no numbers.
    N = int(labels.max()) + 1
    pairs = draw.draw(st.sets(st.tuples(st.integers(0, N - 1), st.integers(0, N - 1)), max_size=12))
    dtype = draw.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.bool]))
    graph = ImageGraph(
        edge_index=torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2).T.contiguous(),
        x=torch.randn(N, 2, 3).to(dtype),
        num_nodes=N,
        edge_weight=torch.randn(len(pairs)).to(dtype),
        assignment=torch.from_numpy(labels).reshape(-1),
        valid=torch.ones(labels.size, dtype=torch.bool),
        image_size=torch.tensor([labels.shape]),
    )
    if dtype.is_floating_point:
        graph.x[0, 0, 0] = torch.nan
    assert_same(graph, from_networkx(to_networkx(graph)))


def test_algorithms_of_networkx_run_and_their_results_come_along() -> None:
    graph = ToSuperpixelRAG(20)(photograph())
    g = to_networkx(graph)
    tree = nx.minimum_spanning_tree(g)
    back = from_networkx(tree)
    assert back.num_edges == 2 * (graph.num_nodes - 1)
    assert torch.equal(back.x, graph.x)
    rank = nx.pagerank(g)
    nx.set_node_attributes(g, rank, "rank")
    torch.testing.assert_close(from_networkx(g).rank, torch.tensor([rank[n] for n in g]))


def test_removed_and_renamed_nodes_keep_the_right_pixels() -> None:
    graph = ToSuperpixelRAG(20, keep_pixels=True)(photograph())
    g = to_networkx(graph)
    g.remove_node(3)
    g = nx.relabel_nodes(g, {n: f"region {n}" for n in g})
    kept = torch.arange(graph.num_nodes) != 3
    back = from_networkx(g)
    expected = graph.subgraph(kept)
    assert torch.equal(back.edge_index, expected.edge_index)
    for key in ("x", "edge_attr", "assignment", "valid", "pixel_x"):
        assert torch.equal(back[key], expected[key]), key


def test_changed_values_are_never_squeezed_into_the_old_dtype() -> None:
    graph = of_labels(DEGENERATE["two regions"])
    graph.votes = torch.tensor([[200], [100]], dtype=torch.uint8)
    graph.y = torch.tensor([0, 1])
    g = to_networkx(graph)
    for n in g:
        g.nodes[n]["votes"] = np.array([300 + n])
        g.nodes[n]["y"] = 0.5
    back = from_networkx(g)
    assert back.votes.tolist() == [[300], [301]]
    assert back.y.tolist() == [0.5, 0.5]


def test_a_graph_made_by_hand() -> None:
    g = nx.Graph()
    g.add_node("sky", pos=(1.0, 0.0), x=[0.5, 0.25], name="blue")
    g.add_node("sea", pos=(1.0, 1.0), x=[0.5, 0.75], name="green")
    g.add_node("boat", pos=(0.0, 1.0), x=[1.0, 1.0], name="red")
    g.add_edge("boat", "sea", weight=2.0)
    g.add_edge("sea", "sky", weight=0.5)
    g.add_edge("boat", "boat", weight=1.0)
    back = from_networkx(g, assignment=torch.tensor([[0, 0], [2, 1]]))
    assert back.edge_index.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]
    assert back.edge_weight.tolist() == [0.5, 0.5, 2.0, 2.0, 1.0]
    assert back.x.dtype == back.pos.dtype == torch.float32
    assert back.pos.tolist() == [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    assert back.name == ["blue", "green", "red"]
    assert projected(back, torch.tensor([10, 20, 30])).tolist() == [[10, 10], [30, 20]]
    valid = torch.tensor([[True, False], [True, True]])
    back = from_networkx(g, assignment=torch.tensor([0, -7, 2, 1]), image_size=(2, 2), valid=valid)
    assert back.assignment.tolist() == [0, 0, 2, 1] and back.valid.tolist() == [True, False, True, True]
    g.graph["image_size"] = (2, 2)
    nx.set_node_attributes(g, {"sky": [0], "sea": [3], "boat": []}, "pixels")
    back = from_networkx(g)
    assert projected(back, torch.tensor([10, 20, 30]), -1).tolist() == [[10, -1], [-1, 20]]


def test_fields_are_chosen_by_name() -> None:
    graph = ToSuperpixelRAG(12)(photograph())
    g = to_networkx(graph, node_attrs=("pos",), edge_attrs=())
    assert set(g.nodes[0]) == {"pos", "pixels"}
    assert all(not row for *_, row in g.edges(data=True))
    back = from_networkx(g)
    assert "x" not in back and "edge_attr" not in back
    assert torch.equal(back.edge_index, graph.edge_index)


def test_networkx_refusals() -> None:
    graph = of_labels(DEGENERATE["rings"])
    with pytest.raises(ValueError, match="got a batch of 2 graphs, expected one"):
        to_networkx(Batch.from_data_list([graph, graph]))
    with pytest.raises(ValueError, match="got a Hierarchy, expected one of its levels"):
        to_networkx(ToHierarchy((4, 9))(photograph()))
    with pytest.raises(TypeError, match="got Data for graph, expected an ImageGraph"):
        to_networkx(Data())
    with pytest.raises(ValueError, match=r"got 'colour' in node_attrs, expected some of 'x', 'pos'"):
        to_networkx(graph, node_attrs=("colour",))
    twice = ImageGraph(
        edge_index=torch.tensor([[0, 1, 0], [1, 0, 1]]),
        num_nodes=2,
        assignment=torch.tensor([0, 1]),
        image_size=torch.tensor([[1, 2]]),
    )
    with pytest.raises(ValueError, match=r"got the edge \(0, 1\) twice, expected each edge once"):
        to_networkx(twice)
    with pytest.raises(ValueError, match="got a MultiGraph, expected a Graph or DiGraph"):
        from_networkx(nx.MultiGraph())

    g = nx.path_graph(3)
    with pytest.raises(ValueError, match=r"got no image_size in g.graph, expected"):
        from_networkx(g)
    with pytest.raises(ValueError, match=r"got no pixels on node 0, expected them on every node or the argument"):
        from_networkx(g, image_size=(2, 2))
    with pytest.raises(ValueError, match="got valid without assignment, expected both or neither"):
        from_networkx(g, image_size=(2, 2), valid=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got shape \[5\] for assignment, expected \[2, 2\] or \[4\]"):
        from_networkx(g, image_size=(2, 2), assignment=torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="got assignment from 0 to 3, expected ids of 3 nodes"):
        from_networkx(g, assignment=torch.tensor([[0, 3]]))
    with pytest.raises(ValueError, match=r"got image_size=\[4\], expected \(height, width\)"):
        from_networkx(g, image_size=(4,))
    nx.set_node_attributes(g, {0: [0], 1: [0], 2: [1]}, "pixels")
    with pytest.raises(ValueError, match="got pixel 0 on 2 nodes, expected it on one"):
        from_networkx(g, image_size=(2, 2))
    with pytest.raises(ValueError, match="got pixels from 0 to 1, expected 0 to 0"):
        from_networkx(g, image_size=(1, 1))
    nx.set_node_attributes(g, {0: [0], 1: [1], 2: [2]}, "pixels")
    g.nodes[1]["x"] = 1.0
    with pytest.raises(ValueError, match="got 'x' on 1 of 3 nodes, expected it on all of them or on none"):
        from_networkx(g, image_size=(2, 2))
    g.nodes[0]["x"], g.nodes[2]["x"] = 1.0, [1.0, 2.0]
    with pytest.raises(ValueError, match="got values of different shapes for 'x'"):
        from_networkx(g, image_size=(2, 2))


# scikit-image


@pytest.fixture(scope="module")
def astronaut() -> tuple[np.ndarray, np.ndarray]:
    """A crop of the astronaut and its superpixels."""
    image = photographs.astronaut()[:150, 120:300]
    return image, consecutive(slic(image, 80, start_label=0))


@pytest.fixture(scope="module")
def rags(astronaut: tuple[np.ndarray, np.ndarray]) -> tuple[ImageGraph, Any, Any]:
    """The graph of the crop, its RAG by graphseg, and the RAG by scikit-image."""
    image, labels = astronaut
    data = Data(image=torch.from_numpy(image.copy()).movedim(-1, 0), segments=torch.from_numpy(labels))
    graph = ToSuperpixelRAG(superpixels="segments", connectivity=8)(data)
    return graph, to_skimage_rag(graph, data.image), skgraph.rag_mean_color(image, labels, connectivity=2)


def test_rag_equals_that_of_scikit_image(rags: tuple[ImageGraph, Any, Any]) -> None:
    _, ours, theirs = rags
    assert sorted(ours) == sorted(theirs)
    assert {frozenset(e) for e in ours.edges} == {frozenset(e) for e in theirs.edges}
    assert ours.max_id == theirs.max_id
    for n in theirs:
        assert ours.nodes[n]["labels"] == theirs.nodes[n]["labels"]
        assert ours.nodes[n]["pixel count"] == theirs.nodes[n]["pixel count"]
        np.testing.assert_array_equal(ours.nodes[n]["total color"], theirs.nodes[n]["total color"])
        np.testing.assert_allclose(ours.nodes[n]["mean color"], theirs.nodes[n]["mean color"], rtol=1e-14)
    for i, j, row in theirs.edges(data=True):
        np.testing.assert_allclose(ours.edges[i, j]["weight"], row["weight"], rtol=1e-12)


def merge_means(rag: Any, source: int, target: int) -> None:
    for key in ("total color", "pixel count"):
        rag.nodes[target][key] = rag.nodes[target][key] + rag.nodes[source][key]
    rag.nodes[target]["mean color"] = rag.nodes[target]["total color"] / rag.nodes[target]["pixel count"]


def mean_distance(rag: Any, source: int, target: int, other: int) -> dict[str, float]:
    return {"weight": float(np.linalg.norm(rag.nodes[target]["mean color"] - rag.nodes[other]["mean color"]))}


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two label maps differ in names only."""
    together = len(np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).T)
    return together == len(np.unique(one)) == len(np.unique(other))


def test_cuts_and_merges_equal_those_on_scikit_images_rag(
    astronaut: tuple[np.ndarray, np.ndarray], rags: tuple[ImageGraph, Any, Any]
) -> None:
    labels = astronaut[1]
    graph, ours, theirs = rags
    assert np.array_equal(projected(graph, torch.arange(graph.num_nodes)).numpy(), labels)
    for threshold in (10, 25, 40):
        found, expected = (skgraph.cut_threshold(labels, rag, threshold, in_place=False) for rag in (ours, theirs))
        assert 1 < len(np.unique(found)) < graph.num_nodes
        assert same_partition(found, expected)
    options = {"thresh": 30, "rag_copy": True, "in_place_merge": True}
    found, expected = (
        skgraph.merge_hierarchical(labels, rag, merge_func=merge_means, weight_func=mean_distance, **options)
        for rag in (ours, theirs)
    )
    assert 1 < len(np.unique(found)) < graph.num_nodes
    assert same_partition(found, expected)


def test_normalized_cut_and_picture_of_scikit_image(astronaut: tuple[np.ndarray, np.ndarray]) -> None:
    image, labels = astronaut
    data = Data(image=torch.from_numpy(image.copy()).movedim(-1, 0), segments=torch.from_numpy(labels))
    graph = ToKNNGraph(6, by="features", superpixels="segments", weighted=True)(data)
    rag = to_skimage_rag(graph)
    i, j = graph.edge_index[:, 5].tolist()
    assert rag.edges[i, j]["weight"] == float(graph.edge_weight[5])
    assert rag.number_of_edges() == graph.num_edges // 2
    found = skgraph.cut_normalized(labels, rag, in_place=False, rng=0)
    assert 1 <= len(np.unique(found)) < graph.num_nodes
    _, ax = plt.subplots()
    drawn = show_rag(labels, rag, image, ax=ax)
    assert len(drawn.get_segments()) == rag.number_of_edges()
    plt.close("all")


def test_rag_comes_back() -> None:
    graph = ToSuperpixelRAG(25, edge_features=("color_distance", "boundary_percentiles", "length"), keep_pixels=True)(
        photograph()
    )
    rag = to_skimage_rag(graph)
    labels = projected(graph, torch.arange(graph.num_nodes), -1)
    for array in (labels, labels.numpy(), labels.to(torch.int32)):
        back = from_skimage_rag(rag, array)
        for key in ("edge_index", "assignment", "valid", "image_size"):
            assert torch.equal(back[key], graph[key]), key
        torch.testing.assert_close(back.pos, graph.pos)
        torch.testing.assert_close(back.x, graph.x[:, :3])
        torch.testing.assert_close(back.edge_weight, graph.edge_attr[:, 0])
        assert torch.equal(back.edge_attr, graph.edge_attr[:, 4:])
    again = to_skimage_rag(back)
    assert {frozenset(e): row["count"] for *e, row in again.edges(data=True)} == {
        frozenset(e): row["count"] for *e, row in rag.edges(data=True)
    }
    assert_same(from_networkx(to_networkx(back)), back)


def test_labels_with_gaps_and_merged_nodes() -> None:
    image = photographs.coffee()[100:160, 200:280]
    labels = 3 * consecutive(slic(image, 20, start_label=0)) + 5
    rag = skgraph.rag_mean_color(image, labels)
    names = sorted(rag)
    i, j = next((i, j) for i, j in rag.edges if i != names[0])
    merged = rag.merge_nodes(i, j)
    rag.remove_node(names[0])
    tensor = torch.from_numpy(image.copy()).movedim(-1, 0)
    back = from_skimage_rag(rag, labels, tensor)
    assert back.num_nodes == len(names) - 2
    names = sorted(rag)
    for n, name in enumerate(names):
        inside = np.isin(labels, [i, j] if name == merged else [name])
        assert np.array_equal(((back.assignment == n) & back.valid).view(labels.shape).numpy(), inside)
        np.testing.assert_allclose(back.x[n].numpy(), image[inside].mean(0) / 255, rtol=1e-5)
        y, x = np.nonzero(inside)
        np.testing.assert_allclose(back.pos[n].numpy(), [x.mean(), y.mean()], rtol=1e-5)
    for e in range(back.num_edges):
        a, b = back.edge_index[:, e].tolist()
        assert float(back.edge_weight[e]) == np.float32(rag.edges[names[a], names[b]]["weight"])


def test_rag_of_boundaries_has_counts() -> None:
    image = photographs.coffee()[100:160, 200:280]
    labels = slic(image, 20, start_label=0)
    theirs = skgraph.rag_boundary(labels, image[..., 0] / 255.0)
    back = from_skimage_rag(theirs, labels)
    assert "x" not in back
    for e in range(back.num_edges):
        row = theirs.edges[tuple(back.edge_index[:, e].tolist())]
        assert float(back.edge_attr[e, 0]) == row["count"]
        assert float(back.edge_weight[e]) == np.float32(row["weight"])


def test_rag_without_colours_and_with_one_direction() -> None:
    graph = ImageGraph(
        edge_index=torch.tensor([[2, 0, 1, 1], [0, 2, 0, 1]]),
        num_nodes=4,
        assignment=torch.tensor([0, 1, 2, 2]),
        image_size=torch.tensor([[2, 2]]),
    )
    rag = to_skimage_rag(graph)
    assert sorted(rag.edges(data="weight")) == [(0, 1, 1.0), (0, 2, 1.0)]
    assert [rag.nodes[n]["pixel count"] for n in range(4)] == [1, 1, 2, 0]
    assert "mean color" not in rag.nodes[0]
    back = from_skimage_rag(rag, graph.assignment.view(2, 2))
    assert back.num_nodes == 4 and back.edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    with_none = ToInstanceGraph()(photograph(instances=torch.zeros(64, 80, dtype=torch.int64)))
    empty = to_skimage_rag(with_none)
    assert len(empty) == 0
    assert not bool(from_skimage_rag(empty, np.zeros((64, 80), np.int64)).valid.any())


def test_skimage_refusals() -> None:
    graph = of_labels(DEGENERATE["rings"])
    with pytest.raises(ValueError, match="got a batch of 1 graphs, expected one"):
        to_skimage_rag(Batch.from_data_list([graph]))
    with pytest.raises(ValueError, match=r"got shape \[3, 4, 4\] for image, expected \[\*, 9, 9\]"):
        to_skimage_rag(graph, torch.zeros(3, 4, 4))
    graph.edge_weight = torch.arange(graph.num_edges)
    with pytest.raises(ValueError, match="got two values of edge_weight between nodes 1 and 0, expected one per pair"):
        to_skimage_rag(graph)
    rag = skgraph.RAG(np.array([[0, 1], [2, 2]]))
    with pytest.raises(TypeError, match=r"got dtype torch.float64 for labels, expected an integer"):
        from_skimage_rag(rag, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"got shape \[4\] for labels, expected \[\*, \*\]"):
        from_skimage_rag(rag, np.zeros(4, np.int64))
    nx.set_node_attributes(rag, {0: [0], 1: [1, 2], 2: [2]}, "labels")
    with pytest.raises(ValueError, match="got label 2 on two nodes, expected it on one"):
        from_skimage_rag(rag, np.array([[0, 1], [2, 2]]))
    rag = skgraph.RAG(np.array([[0, 1], [2, 2]]))
    rag.edges[0, 1]["weight"] = 1.0
    with pytest.raises(ValueError, match="got 'weight' on 1 of 3 edges, expected it on all of them or on none"):
        from_skimage_rag(rag, np.array([[0, 1], [2, 2]]))
