"""Measures of one graph, beside plain loops, networkx, SciPy and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphseg.compare import measures
from graphseg.compare.constructions import choose, default_constructions
from graphseg.compare.measures import measure_graph, message_edges
from graphseg.compare.table import MEASURES
from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph
from graphseg.transforms import ToAffinityGraph, ToHierarchy, ToKNNGraph, ToPixelGrid, ToSuperpixelRAG
from tests.reference import graph_measures as reference
from tests.reference import superpixel_metrics as reference_metrics
from tests.transforms.photos import TRANSFORMS, K, photograph, sample

STRUCTURE = ("components", "path_length", "spectral_gap", "reach_1", "reach_2", "reach_3")
LABELS = (
    "purity",
    "oracle_accuracy",
    "oracle_miou",
    "boundary_recall",
    "boundary_precision",
    "undersegmentation_error",
    "homophily",
    "adjusted_homophily",
    "boundary_edges",
)
EVERYTHING = 10**9  # as num_sources: all nodes, all pixels


def pixels_with(edges: Any, count: int, **fields: Any) -> tuple[ImageGraph, Data]:
    """A graph of the pixels of an image `1 x count` with any edges."""
    edge_index = torch.tensor(np.array(edges, np.int64).reshape(-1, 2).T.copy())
    pos = torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.int64)], 1).float()
    size = torch.tensor([[1, count]])
    graph = ImageGraph(edge_index=edge_index, pos=pos, num_nodes=count, image_size=size)
    graph.assignment = torch.arange(count)
    for key, value in fields.items():
        graph[key] = value
    return graph, Data(image=torch.arange(count).float().view(1, 1, count))


def network(graph: nx.Graph) -> tuple[ImageGraph, Data]:
    """The same of a networkx graph."""
    return pixels_with([(a, b) for a, b in graph.edges], len(graph))


def all_measures(graph: ImageGraph, data: Data, **arguments: Any) -> dict[str, float]:
    return measure_graph(graph, data, num_sources=EVERYTHING, **arguments)


def equal(a: dict[str, float], b: dict[str, float]) -> bool:
    """To the last bit; NaN equals NaN."""
    return list(a) == list(b) and np.array_equal(list(a.values()), list(b.values()), equal_nan=True)


def permuted(graph: ImageGraph, order: Tensor) -> ImageGraph:
    """The same graph, its node n now called `order[n]`."""
    place = order.argsort()
    other = ImageGraph(num_nodes=graph.num_nodes, edge_index=order[graph.edge_index].flip(1))
    for key in ("x", "pos", "y", "label_counts"):
        other[key] = graph[key][place]
    other.assignment = order[graph.assignment].where(graph.valid, 0)
    for key in ("image_size", "valid", "pixel_y"):
        other[key] = graph[key]
    return other


# All measures together.


@pytest.mark.parametrize("name", list(default_constructions()))
def test_every_construction_has_every_measure(name: str) -> None:
    data = photograph()
    found = measure_graph(default_constructions(K, 255)[name](data), data, ignore_index=255)
    known = {name for name, measure in MEASURES.items() if measure.group != "probe"}
    assert set(found) == known - {"seconds", "bytes_disk"}
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    shares = [key for key in found if MEASURES[key].unit == "share" and key != "adjusted_homophily"]
    assert all(0 <= found[key] <= 1 for key in shares)


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "PascalVOC-SP"])
@pytest.mark.parametrize("valid", [None, "none", "one", "some"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (8, 9)])
def test_degenerate_images(name: str, valid: str | None, size: tuple[int, int]) -> None:
    data = sample(*size, valid=valid)
    graph = TRANSFORMS[name](num_classes=K)(data)
    found = measure_graph(graph, data)
    assert all(key in found for key in (*STRUCTURE, *LABELS))
    assert not any(math.isinf(value) for value in found.values())
    pixels = int(graph.valid.sum())
    defined = ("explained_variation", "compactness", "purity", "oracle_miou", "boundary_recall", "reach_1")
    assert all(math.isnan(found[key]) == (pixels == 0) for key in defined)
    if graph.num_edges == 0 and not isinstance(graph, Hierarchy):
        assert all(math.isnan(found[key]) for key in ("path_length", "spectral_gap", "homophily"))
        assert found["components"] == graph.assignment[graph.valid].unique().numel()


def test_a_graph_without_nodes() -> None:
    data = sample(4, 5, valid="none")
    found = measure_graph(ToSuperpixelRAG(3)(data), data)
    zero = {"nodes", "edges", "components"}
    assert {key for key, value in found.items() if value == 0} == zero
    assert all(math.isnan(found[key]) for key in found if key not in {*zero, "bytes_memory"})


def test_a_single_node() -> None:
    data = sample(4, 5)
    found = measure_graph(ToSuperpixelRAG(1, num_classes=K)(data), data)
    assert (found["nodes"], found["edges"], found["mean_degree"], found["components"]) == (1, 0, 0, 1)
    assert math.isnan(found["path_length"])
    assert math.isnan(found["spectral_gap"])
    spread = 2 * (np.var(np.arange(4)) + np.var(np.arange(5)))
    assert [found[f"reach_{k}"] for k in (1, 2, 3)] == pytest.approx([math.sqrt(spread)] * 3)
    assert found["explained_variation"] == 0


@pytest.mark.parametrize("name", ["slic", "grid", "felzenszwalb", "knn", "instances"])
def test_the_numbering_of_nodes_does_not_matter(name: str) -> None:
    data = photograph("coffee")
    graph = TRANSFORMS[name](num_classes=K, ignore_index=255)(data)
    found = measure_graph(graph, data, ignore_index=255)
    for seed in range(2):
        order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(seed))
        other = measure_graph(permuted(graph, order), data, ignore_index=255)
        assert equal({k: found[k] for k in STRUCTURE}, {k: other[k] for k in STRUCTURE})
        others = [key for key in found if key not in STRUCTURE and key != "bytes_memory"]
        assert [found[key] for key in others] == pytest.approx([other[key] for key in others], rel=1e-12)


def test_a_graph_out_of_a_batch_measures_the_same() -> None:
    images = [photograph(name) for name in ("astronaut", "coffee")]
    for transform in (ToSuperpixelRAG(30, num_classes=K, ignore_index=255), ToHierarchy((5, 20), num_classes=K + 251)):
        graphs = [transform(data) for data in images]
        batch = Batch.from_data_list(graphs)
        for i, data in enumerate(images):
            assert equal(measure_graph(batch.get_example(i), data), measure_graph(graphs[i], data))


def test_results_repeat_and_change_with_the_seed() -> None:
    data = photograph()
    graph = ToSuperpixelRAG(100)(data)
    first = measure_graph(graph, data, num_sources=5)
    assert equal(first, measure_graph(graph, data, num_sources=5))
    other = measure_graph(graph, data, num_sources=5, seed=1)
    changed = {key for key in first if first[key] != other[key]}
    assert changed == {"path_length", "reach_1", "reach_2", "reach_3"}


def test_random_sources_are_near_all_of_them() -> None:
    data = photograph()
    graph = ToSuperpixelRAG(100)(data)
    exact = all_measures(graph, data)
    drawn = [measure_graph(graph, data, num_sources=8, seed=seed) for seed in range(60)]
    for key in ("path_length", "reach_1", "reach_2", "reach_3"):
        values = np.array([found[key] for found in drawn])
        assert abs(values.mean() - exact[key]) < 5 * values.std() / math.sqrt(60)
        assert values.std() < 0.3 * exact[key]


def test_the_graph_is_left_as_it_was(device: torch.device) -> None:
    data = photograph().to(str(device))
    graph = ToSuperpixelRAG(20, num_classes=K, ignore_index=255, keep_pixels=True)(data)
    before = {key: value.clone() if isinstance(value, Tensor) else value for key, value in graph}
    found = measure_graph(graph, data, ignore_index=255)
    assert set(before) == set(graph.keys())
    for key, value in graph:
        assert torch.equal(value, before[key]) if isinstance(value, Tensor) else value == before[key]
    assert equal(found, measure_graph(graph.cpu(), data.cpu(), ignore_index=255))


# Cost.


def test_cost_counts_nodes_edges_and_bytes() -> None:
    data = photograph()
    H, W = data.image.shape[1:]
    data.extra = torch.zeros(1000)  # passed on to the graph, and no part of its cost
    for connectivity, pairs in ((4, 2 * H * W - H - W), (8, 4 * H * W - 3 * (H + W) + 2)):
        found = measure_graph(ToPixelGrid(connectivity)(data), data)
        assert (found["nodes"], found["edges"]) == (H * W, 2 * pairs)
        assert found["mean_degree"] == 2 * pairs / (H * W)
        # x [P, 5] and pos [P, 2] float32; y, pixel_y and assignment int64; valid bool; label_counts uint8 [P, 256]
        assert found["bytes_memory"] == H * W * (7 * 4 + 3 * 8 + 1 + 256) + 2 * pairs * 16 + 16


def test_edges_between_the_levels_of_a_hierarchy_count() -> None:
    data = photograph()
    graph = ToHierarchy((3, 8, 20))(data)
    edges = message_edges(graph)
    up = set(map(tuple, graph.vertical_edges().T.tolist()))
    assert measure_graph(graph, data)["edges"] == edges.shape[1] == graph.num_edges + 2 * len(up)
    assert {(a, b) for a, b in edges.T.tolist() if graph.level[a] != graph.level[b]} == up | {(b, a) for a, b in up}
    flat = ToSuperpixelRAG(9)(data)
    assert message_edges(flat) is flat.edge_index


# Image.


@pytest.mark.parametrize("name", ["slic", "grid", "quickshift", "hierarchy", "instances"])
@pytest.mark.parametrize("valid", [None, "some"])
def test_fidelity_to_the_image_is_that_of_the_map_of_nodes(name: str, valid: str | None) -> None:
    data = sample(9, 11, valid=valid)
    graph = TRANSFORMS[name](num_classes=K)(data)
    found = measure_graph(graph, data)
    labels, inside = graph.assignment.view(9, 11).numpy(), graph.valid.view(9, 11).numpy()
    image = data.image.where(graph.valid.view(9, 11), 0).numpy()
    explained = reference_metrics.explained_variation(labels, image, inside)
    assert found["explained_variation"] == pytest.approx(explained, rel=1e-6)
    compact = reference_metrics.shape_metrics(labels, inside)["compactness"]
    assert found["compactness"] == pytest.approx(compact, rel=1e-12)


def test_single_pixels_keep_everything() -> None:
    data = photograph()
    found = measure_graph(ToPixelGrid(num_classes=K, ignore_index=255)(data), data, ignore_index=255)
    ones = ("explained_variation", "purity", "oracle_accuracy", "oracle_miou", "boundary_recall", "components")
    assert [found[key] for key in ones] == [1.0] * len(ones)
    assert found["undersegmentation_error"] == 0
    assert found["compactness"] == pytest.approx(math.pi / 4)


# Labels.


@pytest.mark.parametrize(
    "name", ["grid", "slic", "felzenszwalb", "knn", "hierarchy", "hierarchy, not nested", "instances"]
)
def test_label_measures_are_those_of_plain_loops(name: str) -> None:
    data = sample(10, 12, valid="some")
    data.mask[2:4] = 255
    graph = TRANSFORMS[name](num_classes=K, ignore_index=255)(data)
    found = all_measures(graph, data, ignore_index=255)
    N, target = graph.num_nodes, data.mask.reshape(-1).numpy()
    counted = graph.valid.numpy() & (target != 255)
    own = reference.majority(graph.assignment.numpy(), target, counted, N)
    for key, value in reference.oracle(own).items():
        assert found[key] == pytest.approx(value, rel=1e-12), key
    columns = measures._node_columns(graph).numpy()
    counts = [reference.majority(column, target, counted, N) for column in columns]
    labels = [next((reference.best_label(c[n]) for c in counts if c[n]), None) for n in range(N)]
    pairs = reference.undirected(message_edges(graph).numpy())
    expected = reference.homophily(pairs, labels)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-12, nan_ok=True), key
    shaped = (graph.assignment.view(10, 12).numpy(), data.mask.numpy())
    metrics = reference_metrics.ground_truth_metrics(*shaped, valid=counted.reshape(10, 12))
    names = {"boundary_recall": "recall", "boundary_precision": "precision", "undersegmentation_error": "np"}
    for key, name_there in names.items():
        assert found[key] == pytest.approx(metrics[name_there], rel=1e-12), key


@pytest.mark.parametrize("name", ["slic 100 rag", "slic hierarchy", "quickshift rag"])
def test_oracle_and_purity_are_those_of_the_graph(name: str) -> None:
    data = photograph("coffee")
    graph = default_constructions(K, 255)[name](data)
    found = measure_graph(graph, data, ignore_index=255)
    assert found["oracle_accuracy"] == graph.oracle()["pixel_accuracy"]
    assert found["oracle_miou"] == pytest.approx(graph.oracle()["mean_iou"], rel=1e-12)
    finest = graph.label_counts.sum(1) > 0
    if isinstance(graph, Hierarchy):
        finest &= graph.level == graph.num_levels - 1
    assert found["purity"] == pytest.approx(float(graph.purity()[finest].double().mean()), rel=1e-6)


def test_adjusted_homophily_is_assortativity() -> None:
    """Of an undirected graph, Newman's coefficient of mixing by attribute is the same formula."""
    rng = np.random.default_rng(3)
    for seed in range(5):
        graph = nx.gnm_random_graph(30, 70, seed=seed)
        labels = rng.integers(0, 4, 30)
        nx.set_node_attributes(graph, dict(enumerate(labels.tolist())), "label")
        made, data = network(graph)
        data.mask = torch.from_numpy(labels)[None]
        found = measure_graph(made, data)
        assert found["adjusted_homophily"] == pytest.approx(nx.attribute_assortativity_coefficient(graph, "label"))


def test_homophily_of_all_and_of_no_equal_neighbours() -> None:
    graph, data = pixels_with([(0, 1), (1, 2), (2, 3)], 4)
    data.mask = torch.tensor([[0, 1, 0, 1]])
    found = measure_graph(graph, data)
    assert (found["homophily"], found["adjusted_homophily"], found["boundary_edges"]) == (0, -1, 1)
    data.mask = torch.tensor([[3, 3, 3, 3]])
    found = measure_graph(graph, data)
    assert (found["homophily"], found["boundary_edges"]) == (1, 0)
    assert math.isnan(found["adjusted_homophily"])  # there is nothing to be homophilous about


def test_annotations_are_the_mean_over_people() -> None:
    data = photograph()
    graph = ToSuperpixelRAG(40)(Data(image=data.image))
    maps = torch.stack([data.mask, data.mask // 2, torch.full_like(data.mask, -1), (data.mask > 1).long()])
    maps[:3, 10:14] = -1
    several = measure_graph(graph, Data(image=data.image, annotations=maps))
    singles = [
        measure_graph(graph, Data(image=data.image, mask=one), ignore_index=-1) for one in (maps[0], maps[1], maps[3])
    ]
    for key in LABELS:
        assert several[key] == pytest.approx(np.mean([one[key] for one in singles]), rel=1e-12), key
    both = measure_graph(graph, Data(image=data.image, mask=data.mask, annotations=maps))
    assert equal(both, several)
    swapped = measure_graph(graph, Data(image=data.image, annotations=maps.flip(0).to(torch.int16)))
    assert [swapped[key] for key in LABELS] == pytest.approx([several[key] for key in LABELS], rel=1e-12)


def test_labels_come_from_the_graph_where_the_data_has_none() -> None:
    data = photograph()
    graph = ToSuperpixelRAG(40, num_classes=K, ignore_index=255)(data)
    found = measure_graph(graph, data, ignore_index=255)
    bare = Data(image=data.image)
    assert equal({**measure_graph(graph, bare, ignore_index=255), "bytes_memory": found["bytes_memory"]}, found)
    del graph.pixel_y
    counts_only = measure_graph(graph, bare, ignore_index=255)
    missing = {"boundary_recall", "boundary_precision", "undersegmentation_error"}
    assert set(found) - set(counts_only) == missing
    assert all(counts_only[key] == pytest.approx(found[key], rel=1e-12) for key in LABELS if key not in missing)
    del graph.label_counts
    assert set(measure_graph(graph, bare)) == set(found) - set(LABELS)


def test_labels_that_count_nowhere_leave_nothing_defined() -> None:
    data = photograph()
    graph = ToSuperpixelRAG(10)(Data(image=data.image))
    nowhere = torch.full_like(data.mask, 255)
    for labels in (
        Data(image=data.image, mask=nowhere),
        Data(image=data.image, annotations=torch.full_like(nowhere, -1)[None].repeat(2, 1, 1)),
        Data(image=data.image, annotations=nowhere.new_zeros(0, *nowhere.shape)),
    ):
        found = measure_graph(graph, labels, ignore_index=255)
        assert all(math.isnan(found[key]) for key in LABELS)
    counts = ImageGraph(num_nodes=10, **{key: graph[key] for key in ("edge_index", "assignment", "image_size")})
    counts.label_counts = torch.zeros(10, 3, dtype=torch.int64)
    found = measure_graph(counts, Data(image=data.image))
    assert all(math.isnan(found[key]) for key in LABELS if key in found)


def test_a_mask_of_bool_has_two_classes() -> None:
    data = photograph()
    graph = ToSuperpixelRAG(10)(Data(image=data.image))
    bright = data.mask > 2
    as_bool = measure_graph(graph, Data(image=data.image, mask=bright))
    assert equal(as_bool, measure_graph(graph, Data(image=data.image, mask=bright.long())))
    turned = bright.long().T.contiguous().T  # another layout in memory
    assert equal(as_bool, measure_graph(graph, Data(image=data.image, mask=turned)))


# Structure.


@pytest.mark.parametrize("n", [2, 3, 10, 64, 65, 200])
def test_closed_forms(n: int) -> None:
    line = all_measures(*network(nx.path_graph(n)))
    assert line["path_length"] == pytest.approx((n + 1) / 3)
    assert line["spectral_gap"] == pytest.approx(1 - math.cos(math.pi / (n - 1)), rel=1e-9)
    complete = all_measures(*network(nx.complete_graph(n)))
    assert complete["path_length"] == 1
    assert complete["spectral_gap"] == pytest.approx(n / (n - 1))
    if n > 2:
        cycle = all_measures(*network(nx.cycle_graph(n)))
        assert cycle["path_length"] == pytest.approx(n * n // 4 / (n - 1))
        assert cycle["spectral_gap"] == pytest.approx(1 - math.cos(2 * math.pi / n), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("nodes", "edges"), [(12, 9), (40, 45), (120, 150), (90, 800)])
def test_random_graphs_beside_networkx(nodes: int, edges: int, seed: int) -> None:
    graph = nx.gnm_random_graph(nodes, edges, seed=seed)
    made, data = network(graph)
    found = all_measures(made, data)
    parts = list(nx.connected_components(graph))
    assert found["components"] == len(parts)
    hops = [h for _, row in nx.all_pairs_shortest_path_length(graph) for h in row.values() if h]
    assert found["path_length"] == pytest.approx(np.mean(hops), rel=1e-12)
    largest = max(parts, key=lambda part: (len(part), -min(part)))
    spectrum = np.sort(nx.normalized_laplacian_spectrum(graph.subgraph(largest)))
    assert found["spectral_gap"] == pytest.approx(spectrum[1], rel=1e-8, abs=1e-10)


@settings(max_examples=60)
@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=14),
            st.integers(1, 3),
        )
    )
)
def test_any_edges_beside_plain_loops(drawn: tuple[int, list[tuple[int, int]], int]) -> None:
    """Directed, repeated, loops: structure takes them undirected, each once; several pixels to a node."""
    n, edges, width = drawn
    graph, _ = pixels_with(edges, n)
    graph.assignment = torch.arange(n * width) // width
    graph.image_size = torch.tensor([[1, n * width]])
    data = Data(image=torch.zeros(1, 1, n * width))
    found = all_measures(graph, data)
    pairs = reference.undirected(graph.edge_index.numpy())
    nodes = list(range(n))
    assert found["edges"] == len(edges)
    assert found["components"] == len(reference.components(nodes, pairs))
    assert found["path_length"] == pytest.approx(reference.path_length(nodes, pairs), nan_ok=True)
    assert found["spectral_gap"] == pytest.approx(reference.spectral_gap(nodes, pairs), abs=1e-9, nan_ok=True)
    columns, valid = graph.assignment[None].numpy(), np.ones(n * width, bool)
    for k in (1, 2, 3):
        each = [reference.reach(a, k, pairs, columns, valid, n * width) for a in graph.assignment.tolist()]
        assert found[f"reach_{k}"] == pytest.approx(np.mean(each), rel=1e-9)


@pytest.mark.parametrize("name", ["slic", "hierarchy", "hierarchy, not nested", "knn", "instances", "affinity"])
@pytest.mark.parametrize("valid", [None, "some"])
def test_structure_of_images_beside_plain_loops(name: str, valid: str | None) -> None:
    data = sample(8, 9, valid=valid)
    graph = TRANSFORMS[name](num_classes=K)(data)
    found = all_measures(graph, data)
    pairs = reference.undirected(message_edges(graph).numpy())
    columns, inside = measures._node_columns(graph).numpy(), graph.valid.numpy()
    nodes = sorted(set(columns[:, inside].ravel().tolist()))
    assert found["components"] == len(reference.components(nodes, pairs))
    assert found["path_length"] == pytest.approx(reference.path_length(nodes, pairs), rel=1e-12, nan_ok=True)
    by_pixel = sorted(nodes, key=lambda a: (columns == a).any(0).argmax())
    assert found["spectral_gap"] == pytest.approx(reference.spectral_gap(by_pixel, pairs), abs=1e-9, nan_ok=True)
    sources = graph.assignment[graph.valid].tolist()
    for k in (1, 2, 3):
        each = {a: reference.reach(a, k, pairs, columns, inside, 9) for a in set(sources)}
        assert found[f"reach_{k}"] == pytest.approx(np.mean([each[a] for a in sources]), rel=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_reach_on_a_grid_has_a_closed_form(k: int) -> None:
    data = Data(image=torch.zeros(1, 9, 11))
    centre = np.array([4 * 11 + 5])
    four = replace(measures._network(ToPixelGrid(4)(data)), sources=centre)
    eight = replace(measures._network(ToPixelGrid(8)(data)), sources=centre)
    diamond = 4 / 3 * k * (k + 1) * (k * k + k + 1) / (2 * k * k + 2 * k + 1)
    assert measures._reach(four, 1, 0)[f"reach_{k}"] == pytest.approx(math.sqrt(diamond), rel=1e-12)
    assert measures._reach(eight, 1, 0)[f"reach_{k}"] == pytest.approx(math.sqrt(4 / 3 * k * (k + 1)), rel=1e-12)


def test_reach_of_a_disc_is_its_radius() -> None:
    y, x = np.indices((81, 81)) - 40
    graph = ImageGraph(
        num_nodes=1, edge_index=torch.empty(2, 0, dtype=torch.int64), image_size=torch.tensor([[81, 81]])
    )
    graph.valid = torch.from_numpy(x * x + y * y <= 35 * 35).view(-1)
    graph.assignment = torch.zeros(81 * 81, dtype=torch.int64)
    found = measure_graph(graph, Data(image=torch.zeros(1, 81, 81)))
    assert [found[f"reach_{k}"] for k in (1, 2, 3)] == pytest.approx([35] * 3, rel=0.01)


def test_neighbours_by_colour_lie_farther_than_those_by_place() -> None:
    data = photograph("coffee")
    near = all_measures(ToKNNGraph(8, "position", 100)(data), data)
    alike = all_measures(ToKNNGraph(8, "features", 100, node_features=("mean",))(data), data)
    assert alike["reach_1"] > 1.5 * near["reach_1"]
    assert all(near[f"reach_{k}"] < near[f"reach_{k + 1}"] for k in (1, 2))


def test_a_node_without_pixels_that_joins_others_counts() -> None:
    """A virtual node in the middle: every pixel is two hops from every other."""
    graph, data = pixels_with([(0, 4), (1, 4), (2, 4), (3, 4)], 4)
    graph.num_nodes = 6  # node 5 has neither pixels nor edges
    del graph.pos
    found = all_measures(graph, data)
    assert found["nodes"] == 6
    assert found["components"] == 1
    assert found["path_length"] == pytest.approx(8 / 5)
    assert found["spectral_gap"] == pytest.approx(1)
    assert found["reach_1"] == 0
    assert found["reach_2"] == pytest.approx(np.mean([math.sqrt(2 * (1 + 4 + 9) / 4), math.sqrt(2 * (1 + 1 + 4) / 4)]))


def test_of_equally_large_components_the_first_counts() -> None:
    line, square = [(0, 1), (1, 2), (2, 3)], [(4, 5), (5, 6), (6, 7), (7, 4)]
    graph, data = pixels_with([*square, *line], 8)
    assert all_measures(graph, data)["spectral_gap"] == pytest.approx(1 - math.cos(math.pi / 3))
    graph.assignment = (graph.assignment + 4) % 8
    assert all_measures(graph, data)["spectral_gap"] == pytest.approx(1 - math.cos(2 * math.pi / 4))


# The spectral gap of large graphs is a bound.


def torus(height: int, width: int) -> tuple[ImageGraph, Data]:
    ids = torch.arange(height * width).view(height, width)
    pairs = [torch.stack([ids.view(-1), ids.roll(-1, dim).reshape(-1)]) for dim in (0, 1)]
    graph = ImageGraph(num_nodes=ids.numel(), edge_index=torch.cat(pairs, 1))
    graph.assignment = ids.view(-1)
    graph.image_size = torch.tensor([[height, width]])
    return graph, Data(image=torch.zeros(1, height, width))


def test_the_gap_of_a_large_torus() -> None:
    graph, data = torus(140, 200)
    assert 2 * graph.num_edges > measures.EXACT_EDGES
    true = (1 - math.cos(2 * math.pi / 200)) / 2
    found = measure_graph(graph, data, num_sources=1)["spectral_gap"]
    assert true * (1 - 1e-9) <= found <= 1.01 * true


@pytest.mark.parametrize(
    ("transform", "within"),
    [
        (ToPixelGrid(4), 1e-3),
        (ToPixelGrid(8), 1e-3),
        (ToAffinityGraph(), 1e-2),
        (ToSuperpixelRAG(300), 0.2),
        (ToKNNGraph(8, "position", 300), 0.2),
        (ToKNNGraph(8, "features", 300), 1.0),
    ],
    ids=["grid 4", "grid 8", "affinity", "rag", "spatial knn", "feature knn"],
)
def test_the_bound_is_above_and_near_the_gap(transform: Any, within: float, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sample(24, 30)
    made = measures._network(transform(data))
    exact = measures._spectral_gap(made)
    assert exact == pytest.approx(dense_gap(made.adjacency.toarray()), rel=1e-6)
    monkeypatch.setattr(measures, "EXACT_EDGES", 0)
    assert exact * (1 - 1e-9) <= measures._spectral_gap(made) <= exact * (1 + within)


def dense_gap(adjacency: np.ndarray) -> float:
    root = np.sqrt(adjacency.sum(1))
    return float(np.linalg.eigvalsh(np.eye(len(root)) - adjacency / root[:, None] / root)[1])


def test_the_bound_of_graphs_that_look_the_same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waves of one position, or of distances that are all 1, span nothing: no error, and still a bound."""
    monkeypatch.setattr(measures, "EXACT_EDGES", 0)
    found = measure_graph(*network(nx.complete_graph(100)))
    assert found["spectral_gap"] == pytest.approx(100 / 99)
    graph, data = network(nx.star_graph(99))
    assert measure_graph(graph, data)["spectral_gap"] == pytest.approx(1)


# Errors.


def test_bad_arguments_are_refused() -> None:
    data = photograph()
    graph = ToSuperpixelRAG(5)(Data(image=data.image))
    H, W = data.image.shape[1:]
    with pytest.raises(TypeError, match="got Data for graph, expected an ImageGraph"):
        measure_graph(Data(), data)
    with pytest.raises(ValueError, match="got a batch of graphs, expected one"):
        measure_graph(Batch.from_data_list([graph]), data)
    with pytest.raises(ValueError, match=rf"got shape \[3, 4, 4\] for image, expected \[\*, {H}, {W}\]"):
        measure_graph(graph, Data(image=torch.zeros(3, 4, 4)))
    with pytest.raises(TypeError, match=r"got NoneType for image, expected a torch\.Tensor"):
        measure_graph(graph, Data())
    with pytest.raises(ValueError, match=rf"got shape \[2, 2\] for mask, expected \[{H}, {W}\]"):
        measure_graph(graph, Data(image=data.image, mask=torch.zeros(2, 2, dtype=torch.int64)))
    with pytest.raises(ValueError, match=rf"for annotations, expected \[\*, {H}, {W}\]"):
        measure_graph(graph, Data(image=data.image, annotations=data.mask))
    with pytest.raises(TypeError, match=r"got dtype torch\.float32 for mask, expected an integer dtype"):
        measure_graph(graph, Data(image=data.image, mask=data.mask.float()))
    with pytest.raises(ValueError, match="got num_sources=0, expected at least 1"):
        measure_graph(graph, data, num_sources=0)
    with pytest.raises(TypeError, match="got str for ignore_index, expected an int or None"):
        measure_graph(graph, data, ignore_index="255")  # type: ignore[arg-type]


def test_constructions_of_a_photograph_are_ordered_as_they_should_be() -> None:
    """More superpixels keep more, reach less and take more hops; more neighbours do the opposite of the last two."""
    data = photograph("coffee")
    made = choose("slic", default_constructions(K, 255))
    found = {name: measure_graph(transform(data), data, ignore_index=255) for name, transform in made.items()}
    for kind in ("rag", "spatial knn", "feature knn"):
        rows = [found[f"slic {n} {kind}"] for n in (100, 200, 400, 800)]
        for key in ("nodes", "explained_variation", "oracle_accuracy", "boundary_recall"):
            assert [row[key] for row in rows] == sorted(row[key] for row in rows), key
        assert [row["reach_1"] for row in rows] == sorted((row["reach_1"] for row in rows), reverse=True)
    assert found["slic 400 rag"]["path_length"] > found["slic 400 feature knn"]["path_length"]


@pytest.mark.parametrize("far", [1, 10**6, 10**12])
def test_labels_may_be_any_numbers(far: int) -> None:
    """Small ranges are counted in tables, others are sorted; the answer is one."""
    data = photograph()
    for transform in (ToSuperpixelRAG(40), ToPixelGrid(), ToHierarchy((5, 40))):
        graph = transform(Data(image=data.image))
        plain = measure_graph(graph, Data(image=data.image, annotations=data.mask[None]))
        spread = measure_graph(graph, Data(image=data.image, annotations=far * data.mask[None]))
        assert equal(plain, spread)
