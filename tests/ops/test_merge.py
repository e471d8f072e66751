"""Agglomeration: both engines against the algorithm as printed, SciPy, bioimage-cpp, higra, networkx, and laws."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import squareform
from skimage import data
from skimage.graph import RAG, merge_hierarchical

from graphseg.ops import Agglomeration, agglomerate
from tests.reference import merge as reference

Array = np.ndarray[Any, Any]

ENGINES = ("sequential", "rounds")
LINKAGES = ("plain", "counted", "max", "min")
FIELDS = ("assignment", "children", "height", "edge_index", "edge_weight")
GRID = 2**24


@dataclass
class Graph:
    """One image: `pairs` [E, 2] and `affinity` [E] of edges in their order, `stage` [E]."""

    nodes: int
    pairs: Any
    affinity: Any
    stage: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        self.pairs = np.asarray(self.pairs, np.int64).reshape(-1, 2)
        self.affinity = np.asarray(self.affinity, np.float64)
        if not len(self.stage):
            self.stage = np.zeros(len(self.pairs), np.int64)


def merge(graph, threshold, linkage="plain", engine="auto", *, staged=False, strict=False, device="cpu", **given):
    """`agglomerate` on one image."""
    stage = torch.from_numpy(graph.stage).to(device) if staged else None
    return agglomerate(
        torch.from_numpy(graph.pairs.T.copy()).to(device),
        torch.from_numpy(graph.affinity).to(device),
        graph.nodes,
        threshold,
        linkage,
        stage=stage,
        engine=engine,
        strict=strict,
        **given,
    )


def merge_all(graphs, threshold, linkage, engine="auto", *, staged=False, strict=False, device="cpu"):
    """`agglomerate` on a batch."""
    first = np.cumsum([0] + [g.nodes for g in graphs])
    whole = Graph(
        int(first[-1]),
        np.concatenate([g.pairs + f for g, f in zip(graphs, first[:-1], strict=True)]),
        np.concatenate([g.affinity for g in graphs]),
        np.concatenate([g.stage for g in graphs]),
    )
    batch = torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor([g.nodes for g in graphs])).to(device)
    return merge(whole, threshold, linkage, engine, staged=staged, strict=strict, device=device, batch=batch)


def batched(sizes, results):
    """The results of images by themselves as that of their batch: every id is moved."""
    nodes, clusters, merges, total = 0, 0, 0, sum(sizes)
    parts: dict[str, list[Any]] = {name: [] for name in FIELDS}
    for size, out in zip(sizes, results, strict=True):
        parts["assignment"].append(out.assignment + clusters)
        ids = out.children
        parts["children"].append(torch.where(ids < size, ids + nodes, ids - size + total + merges))
        parts["height"].append(out.height)
        parts["edge_index"].append(out.edge_index + clusters)
        parts["edge_weight"].append(out.edge_weight)
        nodes, merges = nodes + size, merges + out.children.shape[0]
        clusters += size - out.children.shape[0]
    return Agglomeration(**{name: torch.cat(part, int(name == "edge_index")) for name, part in parts.items()})


def as_tensors(merged):
    """A result of the reference."""
    return Agglomeration(
        assignment=torch.tensor(merged.assignment, dtype=torch.int64),
        children=torch.tensor(merged.children, dtype=torch.int64).reshape(-1, 2),
        height=torch.tensor(merged.height, dtype=torch.float64),
        edge_index=torch.tensor(list(merged.edges), dtype=torch.int64).reshape(-1, 2).T,
        edge_weight=torch.tensor(list(merged.edges.values()), dtype=torch.float64),
    )


def assert_same(out, expected, fields=FIELDS):
    """Bit for bit."""
    for name in fields:
        got, want = getattr(out, name).cpu(), getattr(expected, name).cpu()
        assert got.dtype == want.dtype and got.shape == want.shape, (name, got.dtype, got.shape, want.dtype, want.shape)
        assert torch.equal(got, want), (name, got, want)


def clusters_of(labels):
    """A partition as the set of its clusters."""
    found: dict[int, list[int]] = {}
    for node, label in enumerate(np.asarray(labels).tolist()):
        found.setdefault(label, []).append(node)
    return {tuple(nodes) for nodes in found.values()}


def complete(nodes, seed=0):
    """Every pair once; affinities are distinct multiples of 1 / GRID."""
    rng = np.random.default_rng(seed)
    pairs = np.stack(np.triu_indices(nodes, 1), 1)
    return Graph(nodes, pairs, rng.choice(GRID, len(pairs), replace=False) / GRID)


def grid(height, width, distances=(1,)):
    """Pairs (smaller, larger) of pixels: eight neighbours at every distance; a stage for each distance."""
    ids = np.arange(height * width).reshape(height, width)
    found, stage = [], []
    for s, d in enumerate(distances):
        for dy, dx in ((0, d), (d, -d), (d, 0), (d, d)):
            y, x = np.mgrid[0 : height - dy, max(0, -dx) : width - max(0, dx)]
            found.append(np.stack([ids[y, x].ravel(), ids[y + dy, x + dx].ravel()], 1))
            stage.append(np.full(y.size, s))
    return np.concatenate(found), np.concatenate(stage)


def pixels(kind, side=48, distances=(1, 2, 4), seed=0):
    """A grid of pixels whose affinities are noise, smooth, or saturated at 0 and 1."""
    rng = np.random.default_rng(seed)
    pairs, stage = grid(side, side, distances)
    if kind == "random":
        return Graph(side * side, pairs, rng.choice(GRID, len(pairs), replace=False) / GRID, stage)
    image = gaussian_filter(rng.standard_normal((side, side)), 3).ravel()
    affinity = np.exp(-8 * np.abs(image[pairs[:, 0]] - image[pairs[:, 1]]))
    if kind == "saturated":
        affinity = np.clip(np.round(10 * affinity - 7) / 2, 0, 1)
    return Graph(side * side, pairs, affinity, stage)


def photograph(name, side=30, distances=(1, 2, 4)):
    """A shrunken photograph: affinities by the colour difference of two pixels, in float32."""
    image = getattr(data, name)()[40:340, 60:360] / 255
    step = image.shape[0] // side
    colour = image[: side * step, : side * step].reshape(side, step, side, step, 3).mean((1, 3)).reshape(-1, 3)
    pairs, stage = grid(side, side, distances)
    away = np.linalg.norm(colour[pairs[:, 0]] - colour[pairs[:, 1]], axis=1)
    return Graph(side * side, pairs, np.exp(-5 * away).astype(np.float32), stage)


def without_ties(graph):
    return len(np.unique(graph.affinity)) == len(graph.affinity)


# Random graphs against the algorithm as printed


def some_pairs(rng, nodes, edges):
    """Pairs in both directions, some of them several times; no loops."""
    if nodes < 2:
        return np.zeros((0, 2), np.int64)
    first = rng.integers(0, nodes, edges)
    return np.stack([first, (first + rng.integers(1, nodes, edges)) % nodes], 1)


def sparse(rng):
    n = int(rng.integers(2, 16))
    pairs = some_pairs(rng, n, n + 2)
    return n, pairs, rng.random(len(pairs))


def dense(rng):
    n = int(rng.integers(3, 10))
    pairs = np.stack(np.triu_indices(n, 1), 1)[rng.permutation(n * (n - 1) // 2)]
    return n, pairs, rng.random(len(pairs), np.float32)


def tied(rng):
    n = int(rng.integers(2, 14))
    pairs = some_pairs(rng, n, int(rng.integers(n, 3 * n)))
    return n, pairs, rng.choice([0, 0.5, 1], len(pairs))


def saturated(rng):
    n = int(rng.integers(2, 18))
    pairs = some_pairs(rng, n, 2 * n)
    return n, pairs, np.where(rng.random(len(pairs)) < 0.85, 1.0, rng.random(len(pairs)))


def disconnected(rng):
    n = int(rng.integers(4, 12))
    here, there = some_pairs(rng, n // 2, n), some_pairs(rng, n // 2, n) + n // 2
    pairs = np.concatenate([here, there])
    return n + 2, pairs, rng.choice(16, len(pairs)) / 16


def parallel(rng):
    n = int(rng.integers(2, 6))
    pairs = some_pairs(rng, n, 8 * n)
    return n, pairs, rng.random(len(pairs)) ** rng.choice([1, 40])  # or all of them tiny


def loops(rng):
    n = int(rng.integers(1, 9))
    pairs = rng.integers(0, n, (3 * n, 2))
    return n, pairs, rng.choice([0.25, 0.5, 0.75, 1], len(pairs))


def halfway(rng):
    """Affinities on and beside the middle of two multiples of 1 / GRID."""
    n = int(rng.integers(2, 9))
    pairs = some_pairs(rng, n, 3 * n)
    return n, pairs, (GRID + rng.integers(-9, 9, len(pairs))) / (2 * GRID) + rng.choice([0, 1e-12], len(pairs))


def star(rng):
    n = int(rng.integers(3, 16))
    pairs = np.stack([np.zeros(n - 1, np.int64), np.arange(1, n)], 1)
    pairs = np.concatenate([pairs, some_pairs(rng, n, n // 2)])
    return n, pairs, rng.choice(8, len(pairs)) / 8


def path(rng):
    n = int(rng.integers(2, 24))
    order = rng.permutation(n)
    pairs = np.stack([order[:-1], order[1:]], 1)
    return n, pairs, rng.choice([0.5, 0.75, 1], len(pairs))


def tiny(rng):
    n = int(rng.integers(0, 4))
    pairs = some_pairs(rng, n, int(rng.integers(0, 4)))
    return n, pairs, rng.choice([0, 1e-300, 1e-9, 0.5, 1], len(pairs))


FAMILIES = (sparse, dense, tied, saturated, disconnected, parallel, loops, halfway, star, path, tiny)
# threshold, strict, staged
CASES = (
    (0.5, False, False),
    (0.5, True, False),
    (0.0, False, False),
    ([0.75, 0.5, 0.25], False, True),
    ([0.25, 0.75, 0.5], True, True),
)
SEEDS = 24


@cache
def random_graphs(family, case, seeds=SEEDS):
    rng = np.random.default_rng([FAMILIES.index(family), case])
    found = []
    for _ in range(seeds):
        nodes, pairs, affinity = family(rng)
        found.append(Graph(nodes, pairs, affinity, rng.integers(0, 3, len(pairs))))
    return found


def printed(graph, threshold, linkage, staged=False, strict=False):
    """The reference on one image."""
    thresholds = threshold if isinstance(threshold, list) else [threshold]
    call = reference.mutex_watershed if linkage == "mutex" else reference.agglomerate
    rule = {} if linkage == "mutex" else {"linkage": linkage}
    return call(
        [(int(a), int(b)) for a, b in graph.pairs],
        graph.affinity.tolist(),
        graph.nodes,
        thresholds,
        stage=graph.stage.tolist() if staged else None,
        strict=strict,
        **rule,
    )


@cache
def printed_singles(family, case, linkage):
    threshold, strict, staged = CASES[case]
    return [as_tensors(printed(g, threshold, linkage, staged, strict)) for g in random_graphs(family, case)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_random_graphs_are_the_algorithm_as_printed(family, linkage, engine):
    for case, (threshold, strict, staged) in enumerate(CASES):
        graphs = random_graphs(family, case)
        out = merge_all(graphs, threshold, linkage, engine, staged=staged, strict=strict)
        assert_same(out, batched([g.nodes for g in graphs], printed_singles(family, case, linkage)))


@pytest.mark.parametrize("linkage", LINKAGES)
def test_every_device_gives_the_same(linkage, device):
    for case, (threshold, strict, staged) in enumerate(CASES):
        for family in (sparse, tied, tiny):
            graphs = random_graphs(family, case)
            out = merge_all(graphs, threshold, linkage, staged=staged, strict=strict, device=device)
            assert all(getattr(out, name).device.type == device.type for name in FIELDS)
            assert_same(out, batched([g.nodes for g in graphs], printed_singles(family, case, linkage)))
    graph = pixels("saturated", 32)
    assert_same(
        merge(graph, 0.5, linkage, "rounds" if device.type == "cuda" else "auto", device=device),
        merge(graph, 0.5, linkage, "sequential"),
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_batch_is_its_images(linkage, engine):
    for family in (tied, tiny):
        for case, (threshold, strict, staged) in enumerate(CASES):
            graphs = random_graphs(family, case)[:4]
            singles = [merge(g, threshold, linkage, engine, staged=staged, strict=strict) for g in graphs]
            out = merge_all(graphs, threshold, linkage, engine, staged=staged, strict=strict)
            assert_same(out, batched([g.nodes for g in graphs], singles))


@pytest.mark.parametrize("engine", ENGINES)
def test_edges_of_images_may_lie_between_each_other(engine):
    graphs = random_graphs(tied, 0)
    first = np.cumsum([0] + [g.nodes for g in graphs])
    image = np.concatenate([np.full(len(g.pairs), i) for i, g in enumerate(graphs)])
    # A random order of the images' turns, in which each image's own edges keep their order.
    turns = np.random.default_rng(0).permutation(image)
    mix = np.empty_like(image)
    mix[np.argsort(turns, kind="stable")] = np.arange(len(image))
    pairs = np.concatenate([g.pairs + f for g, f in zip(graphs, first[:-1], strict=True)])
    mixed = Graph(int(first[-1]), pairs[mix], np.concatenate([g.affinity for g in graphs])[mix])
    batch = torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor([g.nodes for g in graphs]))
    for linkage in LINKAGES:
        assert_same(merge(mixed, 0.5, linkage, engine, batch=batch), merge_all(graphs, 0.5, linkage, engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_images_without_nodes(engine):
    graphs = [
        Graph(0, [], []),
        Graph(3, [(2, 0)], [1.0]),
        Graph(0, [], []),
        Graph(1, [], []),
        Graph(2, [(0, 1)], [0.5]),
    ]
    for linkage in LINKAGES:
        out = merge_all(graphs, 0.5, linkage, engine)
        assert out.assignment.tolist() == [0, 1, 0, 2, 3, 3]
        assert out.children.tolist() == [[0, 2], [4, 5]]
        assert out.height.tolist() == [1.0, 0.5]
        assert out.edge_index.shape == (2, 0) and out.edge_weight.shape == (0,)


@st.composite
def graphs_of_any_kind(draw):
    nodes = draw(st.integers(0, 9))
    node = st.integers(0, max(nodes - 1, 0))
    values = st.one_of(
        st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=16), st.floats(0, 1, allow_subnormal=False)
    )
    edges = draw(st.lists(st.tuples(node, node, values, st.integers(0, 2)), max_size=24 if nodes else 0))
    columns = list(zip(*edges, strict=True)) if edges else [()] * 4
    pairs = np.array([columns[0], columns[1]], np.int64).T
    return Graph(nodes, pairs, columns[2], np.array(columns[3], np.int64))


@settings(max_examples=100)
@given(
    graph=graphs_of_any_kind(),
    thresholds=st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.6, 1.0, 1.5]), min_size=3, max_size=3),
    linkage=st.sampled_from(LINKAGES),
    strict=st.booleans(),
)
def test_any_graph_is_the_algorithm_as_printed(graph, thresholds, linkage, strict):
    expected = as_tensors(printed(graph, thresholds, linkage, True, strict))
    for engine in ENGINES:
        out = merge(graph, thresholds, linkage, engine, staged=True, strict=strict)
        assert_same(out, expected)


# Known answers

SIXTEENTHS = Graph(4, [(0, 1), (1, 2), (2, 0), (2, 3), (1, 3), (0, 2)], np.array([15, 12, 4, 9, 2, 2]) / 16)
KNOWN = {
    # (0, 2) is (4 + 2) / 2 = 3; after 0 + 1: (12 + 3) / 2 = 7.5 to node 2, 2 to node 3; after 2 + 3: (7.5 + 2) / 2.
    "plain": ([0, 0, 1, 1], [[0, 1], [2, 3]], [15, 9], [[0], [1]], [4.75]),
    # After 0 + 1: (12 + 4 + 2) / 3 = 6 to node 2; after 2 + 3: (18 + 2) / 4 = 5, which is the threshold.
    "counted": ([0, 0, 0, 0], [[0, 1], [2, 3], [4, 5]], [15, 9, 5], [[], []], []),
    # After 0 + 1: 12 to node 2, which goes before 9.
    "max": ([0, 0, 0, 0], [[0, 1], [2, 4], [3, 5]], [15, 12, 9], [[], []], []),
    "min": ([0, 0, 1, 1], [[0, 1], [2, 3]], [15, 9], [[0], [1]], [2]),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_four_nodes_by_hand(linkage, engine, device):
    if engine == "sequential" and device.type == "cuda":
        pytest.skip("the sequential engine runs on the CPU")
    assignment, children, height, edge_index, edge_weight = KNOWN[linkage]
    out = merge(SIXTEENTHS, 5 / 16, linkage, engine, device=device)
    assert out.assignment.tolist() == assignment
    assert out.children.tolist() == children
    assert (out.height * 16).tolist() == height
    assert out.edge_index.tolist() == edge_index
    assert (out.edge_weight * 16).tolist() == edge_weight


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_of_equal_edges_the_smaller_hash_of_the_position_goes_first(linkage, engine):
    # Positions 0 to 3 have the ranks 0x00000000, 0x514e28b7, 0x30f4c306, 0x85f0b427: the order is 0, 2, 1, 3.
    chain = Graph(5, [(0, 1), (1, 2), (2, 3), (3, 4)], np.ones(4))
    out = merge(chain, 1, linkage, engine)
    assert out.children.tolist() == [[0, 1], [2, 3], [5, 6], [4, 7]]
    # A loop takes a position, too: the chain's ranks are now 0x514e28b7, 0x30f4c306, 0x85f0b427, 0x249cb285.
    looped = Graph(5, [(2, 2), *chain.pairs.tolist()], np.ones(5))
    assert merge(looped, 1, linkage, engine).children.tolist() == [[3, 4], [1, 2], [0, 6], [5, 7]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_merged_edge_takes_the_later_rank(linkage, engine):
    # By rank, positions 0 to 3 are 0, 2, 1, 3. After 0 + 1 the edge to node 2 is of positions 2 and 3: later than 1.
    graph = Graph(5, [(0, 1), (3, 4), (0, 2), (1, 2)], [1, 0.5, 0.5, 0.5])
    assert merge(graph, 0.5, linkage, engine).children.tolist() == [[0, 1], [3, 4], [2, 5]]
    # So do parallel edges.
    graph = Graph(4, [(0, 0), (2, 3), (0, 1), (1, 0)], [0, 0.5, 0.5, 0.5])
    assert merge(graph, 0.5, linkage, engine).children.tolist() == [[2, 3], [0, 1]]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_two_directions_are_averaged(engine):
    both = Graph(2, [(0, 1), (1, 0)], [0.25, 0.75])
    for linkage, height in (("plain", 0.5), ("counted", 0.5), ("max", 0.75), ("min", 0.25)):
        assert merge(both, height, linkage, engine).height.tolist() == [height]
        assert merge(both, height, linkage, engine, strict=True).edge_weight.tolist() == [height]


@pytest.mark.parametrize("engine", ENGINES)
def test_edges_of_a_later_stage_are_averaged_before_they_join(engine):
    # Nodes 0 + 1 stand as one; the old edge to node 2 is 0.5, and two new ones of 0.25 and 0 come.
    graph = Graph(3, [(0, 1), (0, 2), (2, 0), (1, 2)], [1, 0.5, 0.25, 0], np.array([0, 0, 1, 1]))
    for linkage, weight in (("plain", 0.3125), ("counted", 0.25), ("max", 0.5), ("min", 0)):
        out = merge(graph, [0.9, 0.8], linkage, engine, staged=True)
        assert out.assignment.tolist() == [0, 0, 1]
        assert out.edge_weight.tolist() == [weight]
        out = merge(graph, [0.9, weight], linkage, engine, staged=True)
        assert out.height.tolist() == [1, weight]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_stages(linkage, engine):
    graph = pixels("random", 10)
    several = merge(graph, [0.5, 0.5, 0.5], linkage, engine, staged=True)
    assert not torch.equal(merge(graph, 0.5, linkage, engine).children, several.children)
    # A stage without edges goes on with those that are left, under its own threshold.
    graph.stage[:] = 0
    once = merge(graph, 0.4, linkage, engine)
    assert_same(merge(graph, [0.9, 0.4], linkage, engine, staged=True), once)
    assert_same(merge(graph, [0.4, 0.9], linkage, engine, staged=True), once)
    assert_same(merge(graph, 0.4, linkage, engine, staged=True), once)
    assert_same(merge(graph, [0.4], linkage, engine), once)
    graph.stage[:] = 1
    assert_same(merge(graph, [0.9, 0.4], linkage, engine, staged=True), once)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_thresholds_at_a_weight(linkage, engine):
    pair = Graph(2, [(0, 1)], [0.5])
    above = float(np.nextafter(0.5, 1))
    for threshold, strict, merges in (
        (0.5, False, 1),
        (0.5, True, 0),
        (above, False, 0),
        (float(np.nextafter(0.5, 0)), True, 1),
        (0, False, 1),
        (0, True, 1),
        (-0.25, True, 1),
        (1, False, 0),
        (1.5, False, 0),
        (float("inf"), False, 0),
        (float("-inf"), False, 1),
    ):
        assert len(merge(pair, threshold, linkage, engine, strict=strict).height) == merges, (threshold, strict)
    nothing = Graph(2, [(0, 1)], [0.0])
    assert len(merge(nothing, 0, linkage, engine).height) == 1
    assert len(merge(nothing, -0.0, linkage, engine).height) == 1
    assert len(merge(nothing, 0, linkage, engine, strict=True).height) == 0
    full = Graph(2, [(0, 1)], [1.0])
    assert len(merge(full, 1, linkage, engine).height) == 1
    assert len(merge(full, 1, linkage, engine, strict=True).height) == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_extreme_thresholds_of_a_graph(linkage, engine):
    graph = pixels("saturated", 10)
    for threshold in (1.01, 7):
        out = merge(graph, threshold, linkage, engine)
        assert torch.equal(out.assignment, torch.arange(100))
        assert out.children.shape == (0, 2) and out.edge_index.T.tolist() == sorted(graph.pairs.tolist())
    for threshold in (0, -3):
        out = merge(graph, threshold, linkage, engine)
        assert not out.assignment.any() and out.height.shape == (99,) and out.edge_index.shape == (2, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_counted_rounds_every_affinity_once(engine):
    third = round(GRID / 3) / GRID
    assert merge(Graph(2, [(0, 1)], [1 / 3]), 0, "counted", engine).height.tolist() == [third]
    assert merge(Graph(2, [(0, 1)] * 3, [1 / 3] * 3), 0, "counted", engine).height.tolist() == [third]
    # Half to even: 1.5 is 2, 2.5 is 2.
    for steps, rounded in ((0.5, 0), (1.5, 2), (2.5, 2), (3.5, 4), (0.5 + 1e-9, 1)):
        assert merge(Graph(2, [(1, 0)], [steps / GRID]), -1, "counted", engine).height.tolist() == [rounded / GRID]
    # The other rules keep the bits.
    for linkage in ("plain", "max", "min"):
        assert merge(Graph(2, [(0, 1)], [1 / 3]), 0, linkage, engine).height.tolist() == [1 / 3]


# Empty and small


@pytest.mark.parametrize("engine", ("auto", *ENGINES))
@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_no_edges(nodes, linkage, engine, device):
    if engine == "sequential" and device.type == "cuda":
        pytest.skip("the sequential engine runs on the CPU")
    for batch in (None, torch.arange(nodes, device=device)):
        for pairs in ([], [(0, 0), (0, 0)] if nodes else []):
            out = merge(Graph(nodes, pairs, [1.0] * len(pairs)), 0.5, linkage, engine, device=device, batch=batch)
            assert torch.equal(out.assignment, torch.arange(nodes, device=device))
            assert out.children.shape == (0, 2) and out.children.dtype == torch.int64
            assert out.height.shape == (0,) and out.height.dtype == torch.float64
            assert out.edge_index.shape == (2, 0) and out.edge_index.dtype == torch.int64
            assert out.edge_weight.shape == (0,) and out.edge_weight.dtype == torch.float64


# Laws


@pytest.fixture(scope="module", params=["random", "smoothed", "saturated"])
def image(request):
    return pixels(request.param, 14)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_the_tree_and_what_is_left(image, linkage, engine):
    for threshold, strict in ((0.4, False), (0.5, True), (0.5, False)):
        out = merge(image, threshold, linkage, engine, strict=strict)
        nodes, merges = image.nodes, len(out.height)
        # Heights fall, down to the threshold; what is left does not reach it.
        assert bool((out.height.diff() <= 0).all())
        assert bool((out.height > threshold).all() if strict else (out.height >= threshold).all())
        assert bool((out.edge_weight <= threshold).all() if strict else (out.edge_weight < threshold).all())
        # Every cluster is the child of one merge at most, after it was made; the tree's roots are the clusters.
        assert bool((out.children[:, 0] < out.children[:, 1]).all())
        assert bool((out.children[:, 1] < nodes + torch.arange(merges)).all())
        assert len(out.children.unique()) == 2 * merges
        assert int(out.assignment.max()) + 1 == nodes - merges
        tree = nx.Graph()
        tree.add_nodes_from(range(nodes))
        for m, (a, b) in enumerate(out.children.tolist()):
            tree.add_edges_from([(nodes + m, a), (nodes + m, b)])
        roots = [sorted(i for i in part if i < nodes) for part in nx.connected_components(tree)]
        assert {tuple(part) for part in roots} == clusters_of(out.assignment)
        # Clusters are numbered by their smallest node.
        firsts = np.unique(out.assignment.numpy(), return_index=True)[1]
        assert (np.diff(firsts) > 0).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", ["counted", "max", "min"])
def test_what_is_left_is_the_summary_of_the_edges_between(image, linkage, engine):
    for threshold in (0.97, [0.99, 0.98, 0.97]) if linkage == "max" else (0.6, [0.8, 0.75, 0.6]):
        out = merge(image, threshold, linkage, engine, staged=isinstance(threshold, list))
        between = np.sort(out.assignment.numpy()[image.pairs], 1)
        kept = between[:, 0] != between[:, 1]
        pairs, which = np.unique(between[kept], axis=0, return_inverse=True)
        assert len(pairs) > 1
        np.testing.assert_array_equal(out.edge_index.T.numpy(), pairs)
        rounded = np.round(image.affinity[kept] * GRID).astype(np.int64)
        if linkage == "counted":
            total, count = np.zeros(len(pairs), np.int64), np.bincount(which)
            np.add.at(total, which, rounded)
            weight = total / count / GRID
        else:
            reduce, start = (np.maximum, 0.0) if linkage == "max" else (np.minimum, 1.0)
            weight = np.full(len(pairs), start)
            reduce.at(weight, which, image.affinity[kept])
        np.testing.assert_array_equal(out.edge_weight.numpy(), weight)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_names_of_nodes_do_not_matter(image, linkage, engine):
    order = np.random.default_rng(1).permutation(image.nodes)
    moved = Graph(image.nodes, order[image.pairs], image.affinity)
    out, other = merge(image, 0.5, linkage, engine), merge(moved, 0.5, linkage, engine)
    assert clusters_of(other.assignment.numpy()[order]) == clusters_of(out.assignment)
    assert torch.equal(other.height, out.height)
    assert torch.equal(other.edge_weight.sort().values, out.edge_weight.sort().values)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_the_direction_of_an_edge_does_not_matter(image, linkage, engine):
    flip = np.random.default_rng(2).random(len(image.pairs)) < 0.5
    flipped = Graph(image.nodes, np.where(flip[:, None], image.pairs[:, ::-1], image.pairs), image.affinity)
    assert_same(merge(flipped, 0.5, linkage, engine), merge(image, 0.5, linkage, engine))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_without_ties_the_order_of_edges_does_not_matter(linkage, engine):
    image = pixels("random", 14)
    assert without_ties(image)
    order = np.random.default_rng(3).permutation(len(image.pairs))
    shuffled = Graph(image.nodes, image.pairs[order], image.affinity[order])
    out = merge(image, 0.45, linkage, engine)
    assert_same(merge(shuffled, 0.45, linkage, engine), out)
    # Nor do further copies of all edges.
    doubled = Graph(
        image.nodes,
        np.concatenate([image.pairs, image.pairs[order, ::-1]]),
        np.r_[image.affinity, image.affinity[order]],
    )
    assert_same(merge(doubled, 0.45, linkage, engine), out)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_lower_threshold_goes_on_with_the_same_tree(image, linkage):
    above = 0.99 if linkage == "max" else 0.7
    high, low = merge(image, above, linkage), merge(image, 0.3, linkage)
    merges = len(high.height)
    assert merges < len(low.height)
    assert torch.equal(low.children[:merges], high.children) and torch.equal(low.height[:merges], high.height)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_do_not_matter(engine):
    graphs = [pixels("saturated", side, seed=side) for side in (12, 7, 9, 5)]
    before = torch.get_num_threads()
    try:
        for linkage in LINKAGES:
            torch.set_num_threads(1)
            expected = merge_all(graphs, 0.5, linkage, engine)
            for threads in (2, 3, 5):
                torch.set_num_threads(threads)
                assert_same(merge_all(graphs, 0.5, linkage, engine), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_types_of_ids_and_affinities(linkage, engine):
    graph = pixels("smoothed", 12)
    edge_index = torch.from_numpy(graph.pairs.T.copy())
    stage, batch = torch.from_numpy(graph.stage), torch.zeros(graph.nodes, dtype=torch.int64)
    thresholds = [0.75, 0.5, 0.25]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        affinity = torch.from_numpy(graph.affinity).to(dtype)
        expected = merge(
            Graph(graph.nodes, graph.pairs, affinity.double().numpy(), graph.stage),
            thresholds,
            linkage,
            engine,
            staged=True,
        )
        for ids in (torch.int64, torch.int32):
            given = {"stage": stage.to(ids), "batch": batch, "engine": engine}
            assert_same(agglomerate(edge_index.to(ids), affinity, graph.nodes, thresholds, linkage, **given), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_are_read_in_place_and_kept(engine):
    graph = pixels("saturated", 10)
    pairs, affinity = torch.from_numpy(graph.pairs), torch.from_numpy(graph.affinity)
    expected = merge(graph, 0.5, "plain", engine)
    assert_same(agglomerate(pairs.T, affinity, 100, 0.5, engine=engine), expected)  # not contiguous
    spread = torch.stack([affinity, torch.full_like(affinity, 2)], 1)[:, 0]
    kept = pairs.clone(), spread.clone()
    assert_same(agglomerate(pairs.T, spread, 100, 0.5, engine=engine), expected)
    assert torch.equal(pairs, kept[0]) and torch.equal(spread, kept[1])
    # Gradients stop here.
    out = agglomerate(pairs.T, affinity.clone().requires_grad_(), 100, 0.5, engine=engine)
    assert_same(out, expected)
    assert not out.height.requires_grad and not out.edge_weight.requires_grad
    # numpy's numbers.
    size: Any = np.int64(100)
    for threshold in (np.float32(0.5), np.float64(0.5), (np.float64(0.5),)):
        given: Any = threshold
        assert_same(agglomerate(pairs.T, affinity, size, given, engine=engine), expected)


# Larger graphs: the engines against each other


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("kind", ["random", "smoothed", "saturated"])
def test_engines_agree_on_pixels(kind, linkage, device):
    # "plain" and "max" take hundreds of rounds: the full size once.
    graph = pixels(kind, 24 if linkage in ("plain", "max") and kind != "saturated" else 48)
    out = merge(graph, 0.5, linkage, "rounds", device=device)
    assert 100 < len(out.height) < graph.nodes
    assert_same(out, merge(graph, 0.5, linkage, "sequential"))


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_engines_agree_on_photographs(name, linkage, device):
    graph = photograph(name)
    for threshold, staged in ((0.8, False), ([0.97, 0.9, 0.8], True)):
        out = merge(graph, threshold, linkage, "rounds", staged=staged, device=device)
        assert 100 < len(out.height) < graph.nodes
        assert_same(out, merge(graph, threshold, linkage, "sequential", staged=staged))


@pytest.mark.parametrize("linkage", LINKAGES)
def test_pixels_are_the_algorithm_as_printed(linkage):
    for graph in (pixels("saturated", 12), pixels("smoothed", 12)):
        expected = as_tensors(printed(graph, 0.5, linkage))
        for engine in ENGINES:
            assert_same(merge(graph, 0.5, linkage, engine), expected)


# Other libraries

SCIPY = {"counted": "average", "plain": "weighted", "max": "single", "min": "complete"}


def cuts(height, count=4):
    """Thresholds in the widest gaps of `height`: rounding does not reach them."""
    values = np.sort(np.unique(height))[::-1]
    widest = np.argsort(np.diff(values))[:count]
    return [float(values[i] + values[i + 1]) / 2 for i in widest]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", LINKAGES)
def test_complete_graphs_are_scipy(linkage, engine):
    for nodes, seed in ((2, 0), (3, 1), (7, 2), (20, 3), (20, 4), (45, 5)):
        graph = complete(nodes, seed)
        distance = np.zeros((nodes, nodes))
        distance[tuple(graph.pairs.T)] = 1 - graph.affinity
        tree = hierarchy.linkage(squareform(distance + distance.T), SCIPY[linkage])
        out = merge(graph, 0, linkage, engine)
        np.testing.assert_array_equal(out.children.numpy(), tree[:, :2])
        np.testing.assert_allclose(1 - out.height.numpy(), tree[:, 2], rtol=1e-12, atol=1e-14)
        for threshold in cuts(out.height.numpy()):
            cut = hierarchy.fcluster(tree, 1 - threshold, "distance")
            assert clusters_of(merge(graph, threshold, linkage, engine).assignment) == clusters_of(cut)


@pytest.mark.parametrize("engine", ENGINES)
def test_max_linkage_is_the_components_of_strong_edges(image, engine):
    for threshold in (0.5, 0.8, 0.99, 1.0):
        for strict in (False, True):
            strong = image.affinity > threshold if strict else image.affinity >= threshold
            graph = nx.Graph()
            graph.add_nodes_from(range(image.nodes))
            graph.add_edges_from(image.pairs[strong].tolist())
            out = merge(image, threshold, "max", engine, strict=strict)
            assert clusters_of(out.assignment) == {tuple(sorted(part)) for part in nx.connected_components(graph)}


@pytest.mark.parametrize("linkage", ["plain", "counted", "min"])
def test_threshold_zero_leaves_the_connected_components(linkage):
    for graph in random_graphs(disconnected, 0):
        joined = nx.Graph(graph.pairs.tolist())
        joined.add_nodes_from(range(graph.nodes))
        out = merge(graph, 0, linkage)
        assert clusters_of(out.assignment) == {tuple(sorted(part)) for part in nx.connected_components(joined)}
        assert out.edge_index.shape == (2, 0)


SPARSE = {
    "noise": lambda: pixels("random", 16),
    "near and far": lambda: pixels("random", 14, (1, 3), seed=4),
    "photo": lambda: photograph("coffee", 20, (1, 2)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", ["counted", "max", "min"])
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_graphs_are_bioimage_cpp(name, linkage, engine):
    bioimage = pytest.importorskip("bioimage_cpp").graph
    graph = SPARSE[name]()
    edges = bioimage.UndirectedGraph(graph.nodes)
    edges.insert_edges(graph.pairs.astype(np.uint64))
    policy = {"counted": "mean", "max": "max", "min": "min"}[linkage]
    for threshold in (0.9, 0.7, 0.5):
        out = merge(graph, threshold, linkage, engine)
        clusters = graph.nodes - len(out.height)
        rule = bioimage.agglomeration.GaspClusterPolicy(num_clusters_stop=clusters, linkage=policy)
        assert clusters_of(rule.optimize(edges, graph.affinity)) == clusters_of(out.assignment)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", ["counted", "max", "min"])
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_graphs_are_higra(name, linkage, engine):
    hg = pytest.importorskip("higra")
    build = {
        "counted": hg.binary_partition_tree_average_linkage,
        "max": hg.binary_partition_tree_single_linkage,
        "min": hg.binary_partition_tree_complete_linkage,
    }[linkage]
    graph = SPARSE[name]()
    edges = hg.UndirectedGraph(graph.nodes)
    edges.add_edges(graph.pairs[:, 0], graph.pairs[:, 1])
    tree, altitude = build(edges, 1 - graph.affinity)
    whole = merge(graph, 0, linkage, engine)
    np.testing.assert_allclose(np.sort(altitude[graph.nodes :]), 1 - whole.height.numpy(), atol=1e-7)
    for threshold in cuts(whole.height.numpy()):
        cut = hg.labelisation_horizontal_cut_from_threshold(tree, altitude, 1 - threshold)
        assert clusters_of(cut) == clusters_of(merge(graph, threshold, linkage, engine).assignment)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_graphs_are_the_queue_of_scikit_image(name, engine):
    graph = SPARSE[name]()
    threshold = cuts(merge(graph, 0.4, "plain", engine).height.numpy(), 1)[0]

    def rule(rag, u, v, k):
        edges = [rag[i][k]["weight"] for i in (u, v) if rag.has_edge(i, k)]
        return {"weight": sum(edges) / len(edges)}

    rag = RAG()
    rag.add_nodes_from((i, {"labels": [i]}) for i in range(graph.nodes))
    rag.add_weighted_edges_from(zip(*graph.pairs.T.tolist(), (1 - graph.affinity).tolist(), strict=True))
    cut = merge_hierarchical(np.arange(graph.nodes), rag, 1 - threshold, False, True, lambda *_: None, rule)
    out = merge(graph, threshold, "plain", engine)
    assert 10 < len(out.height) < graph.nodes - 1
    assert clusters_of(out.assignment) == clusters_of(cut)


# Mutex watershed


def signed(graph, seed=0):
    """Affinities from -1 to 1, no two of the same size, none of them 0."""
    rng = np.random.default_rng(seed)
    size = (1 + rng.choice(GRID - 1, len(graph.pairs), replace=False)) / GRID
    return Graph(graph.nodes, graph.pairs, size * rng.choice([-1, 1], len(size)), graph.stage)


def test_mutex_by_hand():
    # 15 merges 0 + 1, -12 forbids them to meet 2, so 9 does nothing; 8 merges 2 + 3, so 4 does nothing.
    graph = Graph(4, [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3)], np.array([15, -12, 9, 8, 4]) / 16)
    out = merge(graph, 0, "mutex")
    assert out.assignment.tolist() == [0, 0, 1, 1]
    assert out.children.tolist() == [[0, 1], [2, 3]]
    assert (out.height * 16).tolist() == [15, 8]
    # At a threshold of 9 node 3 stands alone; strictly above 15 all do.
    assert merge(graph, 9 / 16, "mutex").assignment.tolist() == [0, 0, 1, 2]
    assert merge(graph, 15 / 16, "mutex", strict=True).assignment.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_random_graphs_are_the_mutex_watershed_as_printed(family):
    for case, (threshold, strict, staged) in enumerate(CASES):
        graphs = []
        for i, g in enumerate(random_graphs(family, case)):
            sign = np.random.default_rng(i).choice([-1.0, 1.0], len(g.affinity))
            graphs.append(Graph(g.nodes, g.pairs, g.affinity * sign, g.stage))
        expected = [as_tensors(printed(g, threshold, "mutex", staged, strict)) for g in graphs]
        for engine in ("auto", "sequential"):
            out = merge_all(graphs, threshold, "mutex", engine, staged=staged, strict=strict)
            assert_same(out, batched([g.nodes for g in graphs], expected))


@pytest.mark.parametrize("distances", [(1,), (1, 3)])
def test_mutex_is_bioimage_cpp(distances):
    bioimage = pytest.importorskip("bioimage_cpp").graph
    for seed in range(4):
        graph = signed(pixels("random", 24, distances), seed)
        positive = graph.affinity > 0
        pairs = graph.pairs.astype(np.uint64)
        edges = bioimage.UndirectedGraph(graph.nodes)
        edges.insert_edges(pairs[positive])
        expected = bioimage.mutex_watershed.mutex_watershed_clustering(
            edges, graph.affinity[positive], pairs[~positive], -graph.affinity[~positive]
        )
        out = merge(graph, 0, "mutex")
        assert 10 < len(out.height) < graph.nodes - 10
        assert clusters_of(out.assignment) == clusters_of(expected)


def test_mutex_without_negative_edges_is_max_linkage(image):
    for threshold in (0.3, 0.8):
        out, single = merge(image, threshold, "mutex"), merge(image, threshold, "max")
        assert torch.equal(out.assignment, single.assignment)
        assert torch.equal(out.height, single.height)


# Refusals

EDGES = torch.tensor([[0, 1, 2], [1, 2, 3]])
AFFINITY = torch.tensor([0.5, 0.25, 1.0])


def refused(error, match, **changed):
    given: dict[str, Any] = {"edge_index": EDGES, "affinity": AFFINITY, "num_nodes": 4, "threshold": 0.5}
    agglomerate(**given)
    with pytest.raises(error, match=match):
        agglomerate(**given | changed)


@pytest.mark.parametrize("engine", ("auto", *ENGINES))
@pytest.mark.parametrize("linkage", LINKAGES)
def test_affinities_out_of_range_are_refused(linkage, engine):
    rule = {"linkage": linkage, "engine": engine}
    for bad in (float("nan"), float("inf"), float("-inf")):
        refused(ValueError, "in affinity", affinity=torch.tensor([0.5, bad, 1.0]), **rule)
    for bad in (-0.125, 1.125, -1e-9, float(np.nextafter(1, 2))):
        affinity = torch.tensor([0.5, bad, 1.0], dtype=torch.float64)
        refused(ValueError, r"affinity.*\[0, 1\]", affinity=affinity, **rule)


def test_affinities_of_mutex_out_of_range_are_refused():
    agglomerate(EDGES, torch.tensor([-1.0, 1.0, -0.5]), 4, 0.0, "mutex")
    for bad in (float("nan"), float("inf"), float("-inf")):
        refused(ValueError, "in affinity", affinity=torch.tensor([0.5, bad, 1]), linkage="mutex")
    for bad in (-1.125, 1.125):
        refused(ValueError, r"affinity.*\[-1, 1\]", affinity=torch.tensor([0.5, bad, 1]), linkage="mutex")


@pytest.mark.parametrize("engine", ("auto", *ENGINES))
def test_bad_ids_are_refused(engine):
    refused(ValueError, "edge_index.*4", edge_index=EDGES + 1, engine=engine)
    refused(ValueError, "-1 .*edge_index", edge_index=EDGES - 1, engine=engine)
    refused(ValueError, "edge_index", num_nodes=0, engine=engine)
    refused(ValueError, "num_nodes=-1", num_nodes=-1, engine=engine)
    refused(ValueError, r"1073741825 nodes and 3 edges, expected at most 2\^30", num_nodes=2**30 + 1, engine=engine)
    refused(TypeError, "num_nodes", num_nodes=4.0, engine=engine)


def test_too_many_edges_are_refused():
    many = torch.zeros(1, dtype=torch.int64).expand(2, 2**30 + 1)
    refused(ValueError, r"1073741825 edges.*2\^30", edge_index=many, affinity=torch.zeros(1).expand(2**30 + 1))


def test_bad_shapes_and_types_are_refused():
    refused(ValueError, r"shape \[3, 2\] for edge_index", edge_index=EDGES.T)
    refused(ValueError, r"shape \[3\] for edge_index", edge_index=EDGES[0])
    refused(ValueError, r"shape \[2\] for affinity, expected \[3\]", affinity=AFFINITY[:2])
    refused(ValueError, r"shape \[3, 1\] for affinity", affinity=AFFINITY[:, None])
    refused(ValueError, r"shape \[3\] for batch, expected \[4\]", batch=torch.zeros(3, dtype=torch.int64))
    refused(ValueError, r"shape \[2\] for stage, expected \[3\]", stage=torch.zeros(2, dtype=torch.int64))
    for dtype in (torch.float32, torch.int16, torch.uint8, torch.bool):
        refused(TypeError, "edge_index", edge_index=EDGES.to(dtype))
    for dtype in (torch.int64, torch.bool, torch.complex64):
        refused(TypeError, "affinity", affinity=AFFINITY.to(dtype))
    refused(TypeError, "batch", batch=torch.zeros(4))
    refused(TypeError, "stage", stage=torch.zeros(3))
    refused(TypeError, "edge_index", edge_index=EDGES.tolist())
    refused(TypeError, "affinity", affinity=AFFINITY.tolist())
    refused(TypeError, "batch", batch=[0, 0, 0, 0])
    refused(TypeError, "stage", stage=[0, 0, 0])
    refused(ValueError, "expected all on one device", affinity=AFFINITY.to("meta"))


def test_bad_batches_and_stages_are_refused():
    refused(ValueError, "batch", batch=torch.tensor([0, 1, 0, 1]))
    refused(ValueError, "batch", batch=torch.tensor([-1, 0, 0, 0]))
    refused(ValueError, "edge_index.*batch|batch.*edge_index|images", batch=torch.tensor([0, 0, 1, 1]))
    refused(ValueError, "stage", stage=torch.tensor([0, -1, 0]))
    refused(ValueError, "stage", stage=torch.tensor([0, 1, 2]), threshold=[0.5, 0.25])
    refused(ValueError, "stage", stage=torch.tensor([0, 1, 0]), threshold=0.5)
    refused(ValueError, "2 thresholds but no stage", threshold=[0.5, 0.25])


def test_bad_choices_are_refused():
    refused(ValueError, "linkage='median'.*'plain'", linkage="median")
    refused(ValueError, "engine='gpu'.*'rounds'", engine="gpu")
    refused(ValueError, "mutex.*rounds|rounds.*mutex", linkage="mutex", engine="rounds")
    for bad in (float("nan"), [0.5, float("nan")]):
        refused(ValueError, "threshold", threshold=bad)
    refused(ValueError, "threshold", threshold=[])


def test_numbers_of_images_may_have_gaps():
    batch = torch.tensor([0, 0, 2**40, 2**40])
    edges, affinity = torch.tensor([[0, 2], [1, 3]]), torch.tensor([0.9, 0.4])
    out = agglomerate(edges, affinity, 4, 0.5, batch=batch)
    assert out.assignment.tolist() == [0, 0, 1, 2] and out.edge_index.tolist() == [[1], [2]]


@pytest.mark.parametrize("threshold", (None, "0.5", [0.5, "0.3"], torch.tensor([0.5, 0.3])))
def test_thresholds_that_are_no_numbers_are_refused(threshold):
    refused(TypeError, "threshold", threshold=threshold)
