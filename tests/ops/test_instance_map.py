"""Mirrored affinities, super-classes, blocks as nodes, and what is kept of clusters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from graphseg.nn.affinity import affinity_edges, affinity_targets
from graphseg.ops import affinity_offsets, offset_edges
from graphseg.ops.instance_map import (
    block_nodes,
    collect_instances,
    flip_affinities,
    instance_confidence,
    super_class_probability,
    super_class_sets,
)
from graphseg.ops.merge import agglomerate
from tests.reference import affinity as affinities
from tests.reference import instances as reference

OFFSETS = {
    "none": [],
    "the paper's, near": affinity_offsets((1, 2)),
    "half of them": [(0, 1), (1, -1), (1, 0), (1, 1)],
    "up and down": [(2, 0), (-1, 0), (50, 0)],
    "backwards": [(0, -3), (-1, -2), (-1, 2)],
    "opposite": [(1, 2), (-1, 2)],
}


def random_maps(*size, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Flips


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_flipped_affinities_speak_of_the_same_pairs(offsets):
    maps = random_maps(2, len(offsets), 5, 7)
    flipped = flip_affinities(maps, offsets)
    for image, back in zip(maps, flipped, strict=True):
        said = reference.flipped(image.tolist(), offsets)  # of ordered pairs
        for k, (dy, dx) in enumerate(offsets):
            for y in range(5):
                for x in range(7):
                    pair = ((y, x), (y + dy, x + dx))
                    if 0 <= y + dy < 5 and 0 <= x + dx < 7:
                        assert float(back[k, y, x]) == said.get(pair, said.get(pair[::-1]))


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_targets_of_the_mirror_image_flip_to_those_of_the_image(offsets):
    instances = torch.randint(0, 3, (2, 5, 7), generator=torch.Generator().manual_seed(0))
    targets = affinity_targets(instances, offsets)
    flipped = flip_affinities(affinity_targets(instances.flip(2), offsets), offsets)
    assert torch.equal(flipped[targets >= 0], targets[targets >= 0])
    symmetric = torch.maximum(instances, instances.flip(2))
    targets = affinity_targets(symmetric, offsets)
    assert torch.equal(flip_affinities(targets, offsets)[targets >= 0], targets[targets >= 0])


def test_flipping_twice_changes_nothing():
    offsets = affinity_offsets()
    maps = random_maps(1, 56, 4, 9)
    assert torch.equal(flip_affinities(flip_affinities(maps, offsets), offsets), maps)


def test_an_offset_without_its_mirror_image_is_refused():
    with pytest.raises(ValueError, match=r"offset \(1, 2\) without \(1, -2\) or \(-1, 2\)"):
        flip_affinities(random_maps(1, 1, 2, 2), [(1, 2)])
    with pytest.raises(ValueError, match=r"for affinity, expected \[\*, 2, \*, \*\]"):
        flip_affinities(random_maps(1, 1, 2, 2), [(0, 1), (1, 0)])


# Super-classes


def test_super_classes_by_hand():
    semantic = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25]).view(1, 5, 1, 1)
    assert super_class_sets([(4, 1), (3,)], 5) == [[0], [1, 4], [3], [2]]
    assert_close(super_class_probability(semantic, [(4, 1), (3,)]).flatten(), torch.tensor([0.1, 0.45, 0.15, 0.3]))
    assert torch.equal(super_class_probability(semantic, []), semantic)


@pytest.mark.parametrize("sets", [[(1, 2), (2,)], [(0, 1)], [(5,)], [(-1,)], [(1, 1)]])
def test_bad_super_classes_are_refused(sets):
    with pytest.raises(ValueError, match="expected disjoint sets of the classes 1 to 4"):
        super_class_sets(sets, 5)


# Blocks


def block_graph(maps, offsets, window, group):
    """{((block), (block)): affinity} of a map's graph after the forced merge."""
    node, image, _ = block_nodes(group, window)
    edge_index, affinity = affinity_edges(maps, offsets, valid=node >= 0)
    n = len(image)
    found = agglomerate(node.flatten()[edge_index], affinity, n, 2.0)  # nothing is that strong
    assert found.assignment.tolist() == list(range(n))
    place = {int(node[0, y, x]): (y // window, x // window) for y, x in (node[0] >= 0).nonzero().tolist()}
    pairs = ((place[i], place[j]) for i, j in found.edge_index.T.tolist())
    return dict(zip(pairs, found.edge_weight.tolist(), strict=True))


def directed(maps, offsets, k, y, x):
    return float(maps[0, offsets.index(k), y, x])


def test_figure_5():
    offsets = affinity_offsets((1, 2, 4))
    maps = random_maps(1, 24, 2, 6)

    def pair(first, second):
        """The mean of both directions."""
        (y, x), (v, u) = first, second
        there, back = (v - y, u - x), (y - v, x - u)
        return (directed(maps, offsets, there, y, x) + directed(maps, offsets, back, v, u)) / 2

    found = block_graph(maps, offsets, 2, torch.ones(1, 2, 6, dtype=torch.int64))
    # Left: at distance 2 only edges of distance 4, in the same direction.
    far = [pair((y, x), (y, x + 4)) for y in (0, 1) for x in (0, 1)]
    assert_close(found[(0, 0), (0, 2)], sum(far) / 4)
    # Right: at distance 1 those of distance 1, straight and diagonal, and of distance 2.
    one = [pair((0, 1), (0, 2)), pair((1, 1), (1, 2)), pair((0, 1), (1, 2)), pair((1, 1), (0, 2))]
    two = [pair((y, x), (y, x + 2)) for y in (0, 1) for x in (0, 1)]
    assert_close(found[(0, 0), (0, 1)], sum(one + two) / 8)
    assert sorted(found) == [((0, 0), (0, 1)), ((0, 0), (0, 2)), ((0, 1), (0, 2))]


@given(st.data())
def test_blocks_average_all_edges_between_them(data):
    H, W, window = (data.draw(st.integers(1, n)) for n in (7, 7, 4))
    offsets = data.draw(
        st.sampled_from([affinity_offsets((1, 2, 4)), affinity_offsets((1, 3)), OFFSETS["half of them"]])
    )
    maps = random_maps(1, len(offsets), H, W, seed=H * W)
    group = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=H * W, max_size=H * W))).view(1, H, W)
    blocks = {(y // window, x // window) for y, x in group[0].nonzero().tolist()}
    inside = [[(y // window, x // window) in blocks for x in range(W)] for y in range(H)]
    fine = affinities.edges(maps[0].tolist(), offsets, valid=inside)
    expected = reference.block_affinities(fine, W, window)
    found = block_graph(maps, offsets, window, group)
    assert found.keys() == expected.keys()
    for pair, value in expected.items():
        assert found[pair] == pytest.approx(value, abs=1e-14)


def test_distances_halve():
    group = torch.ones(1, 12, 12, dtype=torch.int64)
    node, _, _ = block_nodes(group, 2)
    assert int(node.max()) == 35
    for distance in (2, 4, 8):
        of = node.flatten()[offset_edges(12, 12, affinity_offsets((distance,)))]
        half = offset_edges(6, 6, affinity_offsets((distance // 2,)))
        assert torch.equal(torch.unique(of, dim=1), half)


def test_blocks_by_hand(device):
    group = torch.zeros(2, 3, 4, dtype=torch.int64, device=device)
    group[0, 1, :2], group[0, 2, 3] = torch.tensor([7, 5]), 6
    group[1, 0, 2] = 9
    node, image, region = block_nodes(group, 2)
    assert node.tolist() == [
        [[0, 0, -1, -1], [0, 0, -1, -1], [-1, -1, 1, 1]],
        [[-1, -1, 2, 2], [-1, -1, 2, 2], [-1, -1, -1, -1]],
    ]
    assert image.tolist() == [0, 0, 1]
    assert region.tolist() == [7, 6, 9]
    node, image, region = block_nodes(group, 1)
    assert torch.equal(node >= 0, group > 0)
    assert node[group > 0].tolist() == list(range(4)) == [0, 1, 2, 3]
    assert region.tolist() == [7, 5, 6, 9]
    node, image, region = block_nodes(group * 0, 2)
    assert node.eq(-1).all() and image.shape == region.shape == (0,)


# What is kept


def test_confidence_is_the_mean_of_edges_inside(device):
    edge_index = torch.tensor([[0, 1, 0, 3, 4, 2], [1, 2, 2, 4, 5, 5]]).to(device)
    affinity = torch.tensor([0.5, 0.25, 0.9, 0.4, 0.6, 0.1]).to(device)
    cluster = torch.tensor([0, 0, 0, 2, 2, -1]).to(device)
    found = instance_confidence(affinity, edge_index, cluster, 4)
    assert found.dtype == torch.float64
    assert_close(found.cpu(), torch.tensor([1.65 / 3, 0, 0.4, 0], dtype=torch.float64), atol=1e-7, rtol=0)


CLUSTER = torch.tensor([[[4, 0, 0], [4, 2, 2], [-1, 2, -1]], [[-1, -1, -1], [-1, 1, 1], [3, 1, 1]]])
CLASSES = torch.tensor([[[1, 2, 1], [3, 3, 3], [0, 3, 1]], [[1, 1, 1], [1, 0, 2], [1, 0, 2]]])


def test_instances_by_hand(device):
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    cluster, classes, scores = (t.to(device) for t in (CLUSTER, CLASSES, scores))
    one, two = collect_instances(cluster, classes, scores, 4)
    assert one.labels.tolist() == [[1, 2, 2], [1, 3, 3], [0, 3, 0]]
    assert one.classes.tolist() == [1, 1, 3]  # 1 and 3 have a vote each, 2 and 1 too: the lowest
    assert one.scores.tolist() == [0.5, 0.1, 0.3]
    assert one.areas.tolist() == [2, 2, 3]
    assert one.votes.tolist() == [[0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 3]]
    # The square votes for background as often as for class 2.
    assert two.labels.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert (two.classes.tolist(), two.scores.tolist(), two.areas.tolist()) == ([1], [0.4], [1])
    # More than min_size pixels, not as many.
    one, two = collect_instances(cluster, classes, scores, 4, min_size=2)
    assert one.labels.tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 0]]
    assert two.labels.eq(0).all() and two.votes.shape == (0, 4) and two.scores.shape == (0,)


def test_several_classes_of_one_instance():
    found = collect_instances(CLUSTER, CLASSES, torch.arange(5) / 10, 4)[0]
    instance, classes, scores = found.predictions(4)
    assert instance.tolist() == [1, 1, 2, 2, 3]
    assert classes.tolist() == [1, 3, 1, 2, 3]
    assert scores.tolist() == pytest.approx([0.4, 0.4, 0.0, 0.0, 0.2])
    instance, classes, _ = found.predictions()
    assert instance.tolist() == [1, 2, 3]
    assert torch.equal(classes, found.classes)


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="float32 for cluster"):
        collect_instances(CLUSTER.float(), CLASSES, torch.rand(5), 4)
    with pytest.raises(ValueError, match=r"for pixel_class, expected \[2, 3, 3\]"):
        collect_instances(CLUSTER, CLASSES[:1], torch.rand(5), 4)
    with pytest.raises(ValueError, match="min_size=-1"):
        collect_instances(CLUSTER, CLASSES, torch.rand(5), 4, min_size=-1)
    with pytest.raises(ValueError, match="window=0"):
        block_nodes(CLUSTER, 0)
    with pytest.raises(TypeError, match="bool for group"):
        block_nodes(CLUSTER > 0, 2)
    with pytest.raises(ValueError, match="max_classes=0"):
        collect_instances(CLUSTER, CLASSES, torch.rand(5), 4)[0].predictions(0)
