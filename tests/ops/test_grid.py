"""Grid and offset edges against plain loops, networkx and counts in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphseg.ops import grid
from graphseg.ops.grid import affinity_offsets, connectivity_offsets, grid_edges, offset_edges
from tests.reference import grid as reference

REACH = {4: (2, 1), 8: (2, 2), 6: (3, 1), 18: (3, 2), 26: (3, 3)}  # dimensions, coordinates that may differ
SIZES = [(1, 1), (1, 6), (5, 1), (2, 2), (4, 7)]
VOLUMES = [(1, 1, 1), (1, 3, 4), (4, 1, 1), (2, 2, 2), (3, 4, 5)]


def as_pairs(edge_index):
    """The columns, after checking that they are int64 and lexicographic, none twice."""
    assert edge_index.dtype == torch.int64 and edge_index.shape[0] == 2
    pairs = list(zip(*edge_index.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    return pairs


def by_tensors(size, offsets, directed=False):
    """The tensor form, whatever the device."""
    steps = grid._canonical(offsets, len(size))
    if directed:
        steps |= {tuple(-o for o in step) for step in steps}
    table = torch.tensor(sorted(steps), dtype=torch.int64).view(-1, 3)
    return grid._offset_edges_tensor((1,) * (3 - len(size)) + tuple(size), table)


# Neighbourhoods


@pytest.mark.parametrize("connectivity", REACH)
def test_connectivity_offsets_are_half_of_the_neighbourhood(connectivity):
    half = connectivity_offsets(connectivity)
    both = half + [tuple(-c for c in o) for o in half]
    assert len(set(both)) == len(both) == connectivity
    assert sorted(both) == reference.neighbourhood(*REACH[connectivity])
    assert half == sorted(half) and all(o > (0,) * len(o) for o in half)


def test_affinity_offsets_are_the_papers_channels():
    offsets = affinity_offsets()
    assert len(offsets) == len(set(offsets)) == 56
    # By distance, then (dy, dx) row-major: sorting by these keys must change nothing.
    assert offsets == sorted(offsets, key=lambda o: (max(map(abs, o)), o))
    for i, distance in enumerate((1, 2, 4, 8, 16, 32, 64)):
        group = offsets[8 * i : 8 * i + 8]
        assert {(dy // distance, dx // distance) for dy, dx in group} == set(reference.neighbourhood(2, 2))
        assert all(abs(c) in (0, distance) for o in group for c in o)
        # Channel c and channel 7 - c are each other's negatives.
        assert [(-dy, -dx) for dy, dx in group] == group[::-1]
    assert offsets[:8] == [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    assert affinity_offsets([4, 1]) == affinity_offsets([4]) + affinity_offsets([1])
    assert affinity_offsets([]) == []


# Edges


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("connectivity", REACH)
def test_grid_edges_are_the_loop(connectivity, directed, device):
    for size in SIZES if connectivity in (4, 8) else VOLUMES:
        *depth, height, width = size
        out = grid_edges(
            height, width, connectivity, depth=depth[0] if depth else None, directed=directed, device=device
        )
        assert out.device.type == device.type
        half = reference.neighbourhood(*REACH[connectivity])
        assert as_pairs(out) == reference.offset_edges(size, half, directed)


@pytest.mark.parametrize("height, width", SIZES)
def test_grid_edges_are_networkx_grid(height, width):
    graph = nx.grid_2d_graph(height, width)
    pairs = {tuple(sorted((a * width + b, c * width + d))) for (a, b), (c, d) in graph.edges}
    assert as_pairs(grid_edges(height, width)) == sorted(pairs)


@pytest.mark.parametrize("depth, height, width", VOLUMES)
def test_volume_edges_are_networkx_grid(depth, height, width):
    graph = nx.grid_graph((width, height, depth))  # networkx takes the sizes backwards
    number = np.arange(depth * height * width).reshape(depth, height, width)
    pairs = {tuple(sorted((int(number[p]), int(number[q])))) for p, q in graph.edges}
    assert as_pairs(grid_edges(height, width, 6, depth=depth)) == sorted(pairs)


def test_eight_connected_grid_is_the_king_s_graph():
    king = nx.strong_product(nx.path_graph(4), nx.path_graph(5))
    pairs = {tuple(sorted((a * 5 + b, c * 5 + d))) for (a, b), (c, d) in king.edges}
    assert as_pairs(grid_edges(4, 5, 8)) == sorted(pairs)


def test_volume_of_one_slice_is_the_image():
    assert torch.equal(grid_edges(4, 5, 6, depth=1), grid_edges(4, 5, 4))
    assert torch.equal(grid_edges(4, 5, 18, depth=1), grid_edges(4, 5, 8))
    assert torch.equal(grid_edges(4, 5, 26, depth=1), grid_edges(4, 5, 8))


def test_edge_counts_of_a_photograph_sized_grid():
    H, W = 321, 481
    assert grid_edges(H, W).shape[1] == (H - 1) * W + H * (W - 1)
    assert grid_edges(H, W, 8).shape[1] == (H - 1) * W + H * (W - 1) + 2 * (H - 1) * (W - 1)
    expected = sum(
        H * (W - d) + (H - d) * W + 2 * (H - d) * (W - d) for d in (1, 2, 4, 8, 16, 32, 64)
    )  # each undirected pair once
    edges = offset_edges(H, W, affinity_offsets())
    assert edges.shape[1] == expected
    assert torch.equal(edges, by_tensors((H, W), affinity_offsets()))
    key = edges[0] * (H * W) + edges[1]
    assert bool((key[1:] > key[:-1]).all()) and bool((edges[0] < edges[1]).all())


OFFSETS: list[list[Sequence[int]]] = [
    [],
    [(0, 3)],
    [(0, -3)],
    [(2, -1), (-2, 1)],  # d and -d
    [(1, 0), (1, 0), (-1, 0)],
    [(9, 0), (0, 50), (-1, 2)],  # two of them leave any small image
    [(10**12, 0), (0, -(10**12))],
    [(1, 1), (1, -1), (0, 1), (3, 2), (-3, 2)],
    [[0, 1], [1, 0]],
]


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("offsets", OFFSETS)
def test_offset_edges_are_the_loop(offsets, directed, device):
    for height, width in SIZES:
        out = offset_edges(height, width, offsets, directed=directed, device=device)
        assert as_pairs(out) == reference.offset_edges((height, width), offsets, directed)
        assert torch.equal(out.cpu(), by_tensors((height, width), offsets, directed))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), size=st.lists(st.integers(1, 6), min_size=2, max_size=3), directed=st.booleans())
def test_any_offsets(data, size, directed):
    coordinate = st.integers(-7, 7)
    offset = st.tuples(*[coordinate] * len(size)).filter(any)
    offsets = data.draw(st.lists(offset, max_size=6))
    *depth, height, width = size
    out = offset_edges(height, width, offsets, depth=depth[0] if depth else None, directed=directed)
    assert as_pairs(out) == reference.offset_edges(size, offsets, directed)
    assert torch.equal(out, by_tensors(size, offsets, directed))


def test_directed_is_both_directions():
    for offsets in OFFSETS:
        once = as_pairs(offset_edges(5, 6, offsets))
        both = as_pairs(offset_edges(5, 6, offsets, directed=True))
        assert both == sorted(once + [(b, a) for a, b in once])


def test_order_and_sign_of_offsets_do_not_matter():
    offsets = [(1, 1), (0, 2), (3, -1)]
    expected = offset_edges(6, 7, offsets)
    assert torch.equal(offset_edges(6, 7, offsets[::-1]), expected)
    assert torch.equal(offset_edges(6, 7, [(-dy, -dx) for dy, dx in offsets]), expected)
    assert torch.equal(offset_edges(6, 7, iter(offsets)), expected)


def test_offsets_of_two_sets_are_the_union():
    near, far = affinity_offsets([1]), affinity_offsets([3])
    union = set(as_pairs(offset_edges(7, 8, near))) | set(as_pairs(offset_edges(7, 8, far)))
    assert as_pairs(offset_edges(7, 8, near + far)) == sorted(union)


# Bad input


@pytest.mark.parametrize("connectivity", [0, 5, 6, 26, "4", None])
def test_connectivity_of_an_image_is_refused(connectivity):
    with pytest.raises(ValueError, match=r"got connectivity=.*, expected one of 4, 8"):
        grid_edges(3, 3, connectivity)


@pytest.mark.parametrize("connectivity", [4, 8, 27])
def test_connectivity_of_a_volume_is_refused(connectivity):
    with pytest.raises(ValueError, match=r"got connectivity=.*, expected one of 6, 18, 26"):
        grid_edges(3, 3, connectivity, depth=2)


def test_unknown_connectivity_is_refused():
    with pytest.raises(ValueError, match=r"got connectivity=5, expected one of 4, 8, 6, 18, 26"):
        connectivity_offsets(5)


@pytest.mark.parametrize("name", ["height", "width", "depth"])
def test_sizes_are_refused_by_name(name):
    sizes: dict[str, Any] = {"height": 3, "width": 3, "depth": 3}
    with pytest.raises(ValueError, match=f"got {name}=0, expected at least 1"):
        grid_edges(**{**sizes, name: 0}, connectivity=6)
    with pytest.raises(TypeError, match=f"got float for {name}, expected an int"):
        grid_edges(**{**sizes, name: 3.0}, connectivity=6)
    with pytest.raises(TypeError, match=f"got bool for {name}, expected an int"):
        grid_edges(**{**sizes, name: True}, connectivity=6)


@pytest.mark.parametrize("offset", [(0, 0), (1,), (1, 0, 0), ()])
def test_offsets_of_wrong_length_or_zero_are_refused(offset):
    with pytest.raises(ValueError, match=r"got offset \(.*\), expected 2 ints that are not all 0"):
        offset_edges(3, 3, [(0, 1), offset])


def test_offsets_of_a_volume_have_three_coordinates():
    with pytest.raises(ValueError, match=r"got offset \(0, 1\), expected 3 ints"):
        offset_edges(3, 3, [(0, 1)], depth=3)


@pytest.mark.parametrize("offset", [(1.0, 0), (True, 0), ("1", 0)])
def test_offsets_that_are_not_ints_are_refused(offset):
    with pytest.raises(TypeError, match=r"got offset \(.*\), expected 2 ints"):
        offset_edges(3, 3, [offset])


def test_distances_are_refused_by_name():
    with pytest.raises(ValueError, match="got distance=0, expected at least 1"):
        affinity_offsets([1, 0])
    half: Any = 1.5
    with pytest.raises(TypeError, match="got float for distance, expected an int"):
        affinity_offsets([half])
