"""The probe: what it can learn and what it cannot, the pixels it counts, and that nothing else decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch_geometric.data import Data

from graphseg.compare import _probe_network as network
from graphseg.compare import probing as module
from graphseg.compare._probe_network import ProbeNetwork
from graphseg.compare.probing import ProbeResult, probe, probe_splits
from graphseg.data import Hierarchy, ImageGraph
from graphseg.transforms import ToHierarchy, ToKNNGraph, ToPixelGrid, ToSuperpixelRAG
from tests.conftest import TOLERANCES
from tests.transforms.photos import read_image, read_rows, to_tensor

SIZE = 4  # pixels of a planted node
FLOAT32: dict[str, Any] = {**TOLERANCES[torch.float32]}


def planted(nodes, seed, label, edges=True, noise=0.0):
    """Pairs of nodes with a random number each; `label` makes the class of every node from x and its partner's x."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, 1, generator=generator)
    partner = torch.arange(nodes) ^ 1
    y = label(x[:, 0], x[partner, 0]).long()
    pixel_y = y.repeat_interleave(SIZE)
    flipped = torch.rand(len(pixel_y), generator=generator) < noise
    edge_index = torch.stack([torch.arange(nodes), partner])
    return ImageGraph(
        x=x,
        edge_index=edge_index if edges else edge_index[:, :0],
        assignment=torch.arange(nodes).repeat_interleave(SIZE),
        pixel_y=pixel_y ^ flipped.long(),
        image_size=torch.tensor([[nodes, SIZE]]),
    )


def own(x, other):
    return x > 0


def others(x, other):
    return other > 0


def run(graphs, splits=None, **options):
    options = {"num_classes": 2, "seeds": (0,), "steps": 60, **options}
    return probe(graphs, splits or [(range(4), range(4, len(graphs)))], **options)


def accuracy(result):
    return result.scores()["probe_accuracy"].mean().item()


def photographs(count=3, size=(40, 56)):
    """Small images with masks that their colours tell about."""
    generator = torch.Generator().manual_seed(7)
    for k in range(count):
        H, W = size[0] + 3 * k, size[1] - 5 * k
        smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 6, generator=generator), (H, W), mode="bicubic")[0]
        image = (smooth + 0.05 * torch.randn(3, H, W, generator=generator)).clamp(0, 1)
        mask = smooth.argmax(0)
        mask[:2] = 9
        valid = torch.ones(H, W, dtype=torch.bool)
        valid[-3:, :7] = False
        yield Data(image=image, mask=mask, valid=valid)


CONSTRUCTIONS = {
    "grid": ToPixelGrid(num_classes=3, ignore_index=9),
    "superpixels": ToSuperpixelRAG(40, num_classes=3, ignore_index=9),
    "neighbours": ToKNNGraph(4, "features", superpixels="pixels", weighted=True, num_classes=3, ignore_index=9),
    "hierarchy": ToHierarchy((5, 20, 60), num_classes=3, ignore_index=9),
}
OPTIONS = module._Options(num_classes=3, ignore_index=9, layers=3, edges=True)


@pytest.fixture(scope="module")
def graphs():
    """Construction -> the graphs of three images."""
    images = list(photographs())
    return {name: [transform(data) for data in images] for name, transform in CONSTRUCTIONS.items()}


def new_network(features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean, scale = torch.rand(2, features, generator=generator, dtype=torch.float64)
    return ProbeNetwork(mean, scale + 0.5, 8, 3, 3, generator)


def logits(net, part):
    return net(part, network.neighbour_mean(part))


# What can be learnt


def test_features_that_carry_all_are_learnt_with_and_without_messages():
    data = [planted(200, seed, own) for seed in range(6)]
    assert accuracy(run(data)) > 0.97
    assert accuracy(run(data, edges=False)) > 0.97


def test_what_only_neighbours_know_needs_messages():
    data = [planted(200, seed, others) for seed in range(6)]
    alone = run(data, edges=False)
    assert accuracy(run(data)) > 0.97
    assert abs(accuracy(alone) - 0.5) < 0.1
    assert abs(accuracy(alone.floor()) - 0.5) < 0.1


def test_a_construction_without_edges_is_the_probe_without_messages():
    with_edges = [planted(100, seed, own) for seed in range(6)]
    without = [planted(100, seed, own, edges=False) for seed in range(6)]
    assert torch.equal(run(with_edges, edges=False).correct, run(without).correct)


def test_noise_of_labels_is_not_learnt():
    data = [planted(300, seed, own, noise=0.2) for seed in range(8)]
    assert accuracy(run(data)) == pytest.approx(0.8, abs=0.03)


def test_what_parents_know_reaches_their_children():
    def family(seed):
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 2, (10,), generator=generator)
        parent = torch.arange(10).repeat_interleave(5)
        level = torch.arange(2).repeat_interleave(torch.tensor([10, 50]))
        fine = 10 + torch.arange(50).repeat_interleave(3)  # [P]
        return Hierarchy(
            x=torch.cat([label.float(), torch.zeros(50)])[:, None],
            edge_index=torch.empty(2, 0, dtype=torch.int64),
            level=level,
            parent=torch.cat([torch.arange(10), parent]),
            level_sizes=torch.tensor([[10, 50]]),
            scale_assignment=torch.stack([parent.repeat_interleave(3), fine], 1),
            assignment=fine,
            valid=torch.ones(150, dtype=torch.bool),
            pixel_y=label[parent].repeat_interleave(3),
            image_size=torch.tensor([[10, 15]]),
            num_nodes=60,
        )

    data = [family(seed) for seed in range(8)]
    assert all(graph.validate() for graph in data)
    result = run(data)
    assert accuracy(result) == 1
    assert result.true.sum(1).tolist() == [150] * 4  # and not 300
    assert accuracy(run(data, edges=False)) < 0.75


def test_a_weight_of_zero_is_no_edge():
    data = [planted(100, seed, others) for seed in range(6)]
    for graph in data:
        graph.edge_weight = torch.zeros(graph.num_edges)
    assert torch.equal(run(data).correct, run(data, edges=False).correct)


def test_on_this_device(device):
    data = [planted(100, seed, others).to(device) for seed in range(6)]
    result = run(data, pixels=256)
    assert accuracy(result) > 0.95
    assert {value.device.type for value in (result.correct, result.true, result.majority)} == {"cpu"}


# What is computed


def test_the_loss_is_that_of_a_loop_over_pixels():
    generator = np.random.default_rng(0)
    nodes, K, P = 7, 3, 60
    scores = generator.normal(size=(nodes, K)) * 3
    assignment, label = generator.integers(0, nodes - 1, P), generator.integers(0, K, P)
    total = 0.0
    for node, k in zip(assignment, label, strict=True):
        total -= scores[node, k] - np.log(np.exp(scores[node]).sum())
    counts = torch.zeros(nodes, K, dtype=torch.int64)
    counts.index_put_((torch.tensor(assignment), torch.tensor(label)), torch.tensor(1), accumulate=True)
    found = network.pixel_loss(torch.from_numpy(scores), counts)
    assert found.item() == pytest.approx(total / P, rel=1e-12)


def test_counts_of_a_part_are_those_of_its_pixels(graphs):
    for name, data in graphs.items():
        graph = data[0]
        pixels = torch.arange(100, graph.num_pixels, 7)
        part = module._part(graph, pixels, OPTIONS)
        expected: dict[tuple[int, int], int] = {}
        for p in pixels.tolist():
            if graph.valid[p] and graph.pixel_y[p] != 9:
                key = int(graph.assignment[p]), int(graph.pixel_y[p])
                expected[key] = expected.get(key, 0) + 1
        assert sorted(part.counts[part.counts > 0].tolist()) == sorted(expected.values()), name
        assert part.counts.sum(0).tolist() == [sum(n for (_, k), n in expected.items() if k == c) for c in range(3)]


def test_the_network_is_that_of_a_loop_over_edges(graphs):
    graph = graphs["neighbours"][1]
    part = module._part(graph, torch.arange(30, 300), OPTIONS)
    net = new_network(graph.num_features)
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}

    def linear(name, values):
        return values @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    def normalised(h):
        return (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)

    h = np.maximum(linear("first", (part.x.double().numpy() - w["mean"]) / w["scale"]), 0)
    for layer in range(3):
        g = normalised(h)
        near, total = np.zeros_like(g), np.zeros((len(g), 1))
        for (source, target), weight in zip(part.edge_index.T.tolist(), part.edge_weight.tolist(), strict=True):
            near[target] += weight * g[source]
            total[target] += weight
        near /= np.where(total > 0, total, 1)
        h = h + np.maximum(linear(f"own.{layer}", g) + linear(f"near.{layer}", near), 0)
    expected = linear("last", np.maximum(linear("middle", normalised(h)), 0))
    torch.testing.assert_close(logits(net, part).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_a_dense_product():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(0, 9, (2, 30), generator=generator)
    edge_index = edge_index[:, edge_index[0].argsort(stable=True)]
    weight = torch.rand(30, generator=generator)
    part = network.GraphPart(torch.rand(9, 2), edge_index, weight, torch.zeros(9, 3, dtype=torch.int64))
    mean = network.neighbour_mean(part)
    assert mean is not None
    matrix, transposed = mean
    h, upper = torch.rand(2, 9, 4, generator=generator)
    h.requires_grad_()
    (network._Product.apply(h, matrix, transposed) * upper).sum().backward()
    dense = torch.zeros(9, 9).index_put((edge_index[1], edge_index[0]), weight, accumulate=True)
    dense /= dense.sum(1, keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(h.grad, dense.T @ upper, **FLOAT32)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_a_part_has_the_logits_of_the_whole(name, graphs):
    graph = graphs[name][0]
    net = new_network(graph.num_features)
    source, target, weight = module._edges(graph, OPTIONS)
    counts = torch.zeros(graph.num_nodes, 3, dtype=torch.int64)
    whole = logits(net, network.GraphPart(graph.x, torch.stack([source, target]), weight, counts))
    pixels = module._patches(graph, 600, torch.Generator().manual_seed(1))
    assert pixels is not None and 0 < len(pixels) < graph.num_pixels
    part = module._part(graph, pixels, OPTIONS)
    counted = pixels[graph.valid[pixels] & (graph.pixel_y[pixels] != 9)]
    held = graph.assignment[counted].unique()
    torch.testing.assert_close(logits(net, part)[part.counts.sum(1) > 0], whole[held], **FLOAT32)
    if name == "grid":
        assert len(part.x) < graph.num_nodes


def test_images_of_different_sizes_side_by_side_are_as_each_alone(graphs):
    for data in graphs.values():
        net = new_network(data[0].num_features)
        parts = [module._part(graph, None, OPTIONS) for graph in data]
        joined = logits(net, network.join_parts(parts))
        torch.testing.assert_close(joined, torch.cat([logits(net, part) for part in parts]), **FLOAT32)


def test_the_order_of_nodes_does_not_matter(graphs):
    def shuffled(graph):
        order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(3))
        number = order.argsort()
        other = graph.clone()
        other.x = graph.x[order]
        other.edge_index = number[graph.edge_index]
        other.assignment = number[graph.assignment].where(graph.valid, 0)
        return other

    options = {"num_classes": 3, "ignore_index": 9, "steps": 10}
    first = run(graphs["superpixels"], [((0, 1), (2,))], **options)
    other = run([shuffled(graph) for graph in graphs["superpixels"]], [((0, 1), (2,))], **options)
    assert abs(accuracy(first) - accuracy(other)) < 0.01
    assert torch.equal(first.true, other.true)


def test_scores_are_those_of_label_maps():
    generator = np.random.default_rng(2)
    S, M, K, P = 2, 3, 4, 50
    truth = generator.integers(0, K - 1, (M, P))  # the last class does not occur
    truth[2] = 1
    found = generator.integers(0, K, (S, M, P))
    result = ProbeResult(
        images=(0, 3, 5),
        seeds=(0, 1),
        correct=torch.tensor(
            [[[((t == k) & (f == k)).sum() for k in range(K)] for t, f in zip(truth, fs, strict=True)] for fs in found]
        ),
        predicted=torch.tensor([[[(f == k).sum() for k in range(K)] for f in fs] for fs in found]),
        true=torch.tensor([[(t == k).sum() for k in range(K)] for t in truth]),
        labelled=torch.full((M,), 2 * P),
        majority=torch.tensor([1, 1, 0]),
        epoch_seconds=torch.tensor([[1.0, 3.0], [2.0, 2.0]], dtype=torch.float64),
    )

    def miou(t, f):
        return np.mean([((t == k) & (f == k)).sum() / ((t == k) | (f == k)).sum() for k in np.unique(t)])

    scores, of_images = result.scores(), result.image_scores()
    for s in range(S):
        assert scores["probe_miou"][s].item() == pytest.approx(miou(truth.ravel(), found[s].ravel()))
        assert scores["probe_accuracy"][s].item() == pytest.approx((truth == found[s]).mean())
        for m in range(M):
            assert of_images["probe_image_miou"][s, m].item() == pytest.approx(miou(truth[m], found[s, m]))
            assert of_images["probe_image_accuracy"][s, m].item() == pytest.approx((truth[m] == found[s, m]).mean())
    assert scores["probe_epoch_seconds"].tolist() == [2, 2]
    assert result.coverage().tolist() == [0.5] * M
    rows = result.rows()
    assert [row["image"] for row in rows] == [0, 3, 5]
    assert rows[1]["probe_image_accuracy"] == pytest.approx((truth[1] == found[:, 1]).mean())
    constant = np.repeat([[1], [1], [0]], P, 1)
    floor = result.floor()
    assert floor.scores()["probe_miou"].item() == pytest.approx(miou(truth.ravel(), constant.ravel()))
    assert floor.scores()["probe_accuracy"].item() == pytest.approx((truth == constant).mean())


# What decides, and what does not


def same(a, b):
    fields = ("correct", "predicted", "true", "labelled", "majority")
    return all(torch.equal(getattr(a, key), getattr(b, key)) for key in fields)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_results_repeat_whatever_the_number_of_threads(name, graphs):
    options = {"num_classes": 3, "ignore_index": 9, "steps": 8, "pixels": 500, "seeds": (0, 5)}
    splits = [((0, 1), (2,)), ((1, 2), (0,))]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first = run(graphs[name], splits, **options)
        assert torch.equal(state, torch.get_rng_state())
        run(graphs["superpixels"], splits, **options)
        torch.set_num_threads(3)
        torch.manual_seed(1)
        assert same(first, run(graphs[name], splits, **options))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert first.images == (0, 2)
    assert not torch.equal(first.predicted[0], first.predicted[1])


def test_every_construction_sees_the_same_pixels_from_the_same_start(graphs):
    drawn = {
        name: [
            [(data.index(graph), pixels.tolist()) for graph, pixels in step if pixels is not None]
            for step in module._draws(data, (0, 1, 2), 5, 2, 500, module._generator(0, 2, 0))
        ]
        for name, data in ((name, Identity(data)) for name, data in graphs.items())
    }
    assert drawn["grid"] == drawn["superpixels"] == drawn["neighbours"] == drawn["hierarchy"]
    assert [len(step) for step in drawn["grid"]] == [2, 1, 2, 1, 2]
    assert sorted(image for step in drawn["grid"][:2] for image, _ in step) == [0, 1, 2]
    few, many = (
        dict(ProbeNetwork(torch.zeros(n), torch.ones(n), 8, 2, 3, module._generator(0, 1, 0)).named_parameters())
        for n in (2, 9)
    )
    assert [name for name in few if not torch.equal(few[name], many[name])] == ["first.weight", "first.bias"]


class Identity(Sequence[ImageGraph]):
    """A list that finds its graphs by identity."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]

    def index(self, value, *_):
        return next(i for i, item in enumerate(self.items) if item is value)


def test_graphs_may_be_read_when_asked_for_and_all_runs_on_one_thread(graphs):
    seen = set()

    class Read(Identity):
        def __getitem__(self, i):
            seen.add(torch.get_num_threads())
            return self.items[i].clone()

    options = {"num_classes": 3, "ignore_index": 9, "steps": 5}
    data = graphs["superpixels"]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert same(run(data, [((0,), (1, 2))], **options), run(Read(data), [((0,), (1, 2))], **options))
        assert seen == {1}
        with pytest.raises(ValueError, match="expected 0 to 1"):
            run(data, [((0,), (1, 2))])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_held_out_images_decide_nothing_but_their_own_scores(graphs):
    options = {"num_classes": 3, "ignore_index": 9, "steps": 10}
    data = graphs["superpixels"]
    other = data[2].clone()
    other.x = 50 - 100 * other.x
    other.pixel_y = other.pixel_y.where(other.pixel_y == 9, 2)
    first, changed = (run([data[0], data[1], last], [((0,), (1, 2))], **options) for last in (data[2], other))
    assert torch.equal(first.predicted[:, 0], changed.predicted[:, 0])
    assert first.majority.tolist() == changed.majority.tolist()
    assert not torch.equal(first.predicted[:, 1], changed.predicted[:, 1])


def test_scale_and_offset_of_features_do_not_matter(graphs):
    options = {"num_classes": 3, "ignore_index": 9, "steps": 10}
    changed = [graph.clone() for graph in graphs["grid"]]
    for graph in changed:
        graph.x = graph.x.double() * 1024 + 1e5
    first, other = (run(data, [((0, 1), (2,))], **options) for data in (graphs["grid"], changed))
    assert abs(accuracy(first) - accuracy(other)) < 0.01


def test_pixels_that_do_not_count_decide_nothing(graphs):
    options = {"num_classes": 3, "ignore_index": 9, "steps": 8}
    for data in graphs.values():
        changed = [graph.clone() for graph in data]
        for graph in changed:
            graph.pixel_y = graph.pixel_y.where(graph.valid, 1)
            if graph.num_nodes == graph.num_pixels:
                graph.x = torch.where(graph.valid[:, None], graph.x, -77.0)  # nodes of no pixel
        first, other = (run(graphs, [((0, 1), (2,))], **options) for graphs in (data, changed))
        assert same(first, other)
        counted = [graph.valid & (graph.pixel_y != 9) for graph in data]
        assert first.true.sum(1).tolist() == [int(counted[2].sum())]
        assert first.labelled.tolist() == [int((data[2].pixel_y != 9).sum())]
        assert 0.9 < first.coverage().item() < 1


# Splits


@given(st.integers(2, 40), st.integers(2, 9), st.integers(0, 3))
def test_folds_judge_every_image_once(count, folds, seed):
    splits = probe_splits([""] * count, folds, seed)
    assert len(splits) == min(folds, count)
    assert sorted(i for _, held in splits for i in held) == list(range(count))
    assert all(sorted([*train, *held]) == list(range(count)) for train, held in splits)
    assert max(len(held) for _, held in splits) - min(len(held) for _, held in splits) <= 1
    assert splits == probe_splits([""] * count, folds, seed)


def test_folds_are_shuffled_by_the_seed():
    held = [probe_splits([""] * 30, seed=seed)[0][1] for seed in (0, 1)]
    assert held[0] != held[1]
    assert held[0] != list(range(0, 30, 5))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train", "val", "train", "test"], [([0, 2], [1])]),
        (["test", "train"], [([1], [0])]),
        (["train", "train"], [([0], [1]), ([1], [0])]),
        (["val", "val"], [([0], [1]), ([1], [0])]),
    ],
)
def test_splits_that_the_images_have_are_taken(names, splits):
    assert sorted(probe_splits(names)) == splits


# Corners


def empty(features=1):
    return ImageGraph(
        x=torch.empty(0, features),
        edge_index=torch.empty(2, 0, dtype=torch.int64),
        assignment=torch.zeros(12, dtype=torch.int64),
        valid=torch.zeros(12, dtype=torch.bool),
        pixel_y=torch.zeros(12, dtype=torch.int64),
        image_size=torch.tensor([[3, 4]]),
        num_nodes=0,
    )


@pytest.mark.parametrize("batch_size", [1, 4])
def test_images_without_nodes_or_labels(batch_size):
    unlabelled = planted(6, 9, own)
    unlabelled.pixel_y[:] = 255
    data = [planted(40, 0, own), empty(), unlabelled, planted(40, 1, own), empty(), unlabelled]
    result = run(data, [((0, 1, 2), (3, 4, 5))], ignore_index=255, batch_size=batch_size, steps=12)
    miou = result.image_scores()["probe_image_miou"][0]
    assert miou.isnan().tolist() == [False, True, True]
    assert result.coverage().nan_to_num(-1).tolist() == [1, 0, -1]
    assert result.scores()["probe_miou"].isfinite().all()
    assert np.isnan([row["probe_image_accuracy"] for row in result.rows()]).tolist() == [False, True, True]


def test_one_node_one_class_and_features_that_do_not_vary():
    data = [planted(2, seed, lambda x, other: x > 99) for seed in range(3)]
    for graph in data:
        graph.x = torch.full((2, 3), 0.1)
    one = data[0].subgraph(torch.tensor([0]))
    result = run([one, data[1], data[2]], [((0,), (1, 2))], steps=20)
    assert accuracy(result) == 1 and result.scores()["probe_miou"].item() == 1
    assert accuracy(result.floor()) == 1


def changed(**fields):
    graph = planted(8, 3, own)
    for key, value in fields.items():
        graph[key] = value
    return graph


def without(key):
    graph = planted(8, 3, own)
    del graph[key]
    return graph


@pytest.mark.parametrize(
    ("graph", "error", "match"),
    [
        (without("pixel_y"), ValueError, r"got no pixel_y of graph 1, expected one \(labels\)"),
        (without("x"), ValueError, "got no x of graph 1"),
        (without("assignment"), ValueError, "got no assignment of graph 1"),
        (changed(x=torch.ones(8, 0)), ValueError, r"got shape \[8, 0\] for x of graph 1"),
        (changed(x=torch.ones(8, 2)), ValueError, "got 2 node features in graph 1, expected 1 as in graph 0"),
        (changed(x=torch.ones(8, 1, dtype=torch.int64)), TypeError, "got dtype torch.int64 for x of graph 1"),
        (changed(x=torch.full((8, 1), torch.nan)), ValueError, "got 8 NaN or infinite values in x of graph 1"),
        (changed(pixel_y=torch.full((32,), 2)), ValueError, "got label 2 in pixel_y of graph 1, expected 0 to 1"),
        (changed(pixel_y=torch.full((32,), -1)), ValueError, "got label -1 in pixel_y of graph 1"),
        (changed(pixel_y=torch.zeros(32)), TypeError, "got dtype torch.float32 for pixel_y of graph 1"),
        (changed(edge_weight=-torch.ones(8)), ValueError, "got -1 in edge_weight of graph 1"),
        (changed(edge_weight=torch.ones(3)), ValueError, r"got shape \[3\] for edge_weight of graph 1, expected \[8\]"),
    ],
)
def test_graphs_that_do_not_fit_are_refused(graph, error, match):
    with pytest.raises(error, match=match):
        run([planted(8, 0, own), graph], [((0,), (1,))])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_classes": 1}, ValueError, "got num_classes=1, expected at least 2"),
        ({"steps": 0}, ValueError, "got steps=0"),
        ({"hidden": 1.5}, TypeError, "got float for hidden"),
        ({"layers": 0}, ValueError, "got layers=0"),
        ({"pixels": 0}, ValueError, "got pixels=0"),
        ({"batch_size": 0}, ValueError, "got batch_size=0"),
        ({"lr": 0.0}, ValueError, "got lr=0.0, expected a positive number"),
        ({"seeds": ()}, ValueError, "got seeds=\\(\\), expected at least one"),
        ({"seeds": (1, 1)}, ValueError, "expected at least one, and each once"),
        ({"seeds": (-1,)}, ValueError, "got seeds=-1"),
        ({"splits": [((0,), ())]}, ValueError, "got 1 images to train on and 0 to judge"),
        ({"splits": [((0,), (2,))]}, ValueError, "got image 2 in splits, expected places in 2 graphs"),
        ({"splits": [((0, 1), (1,))]}, ValueError, "got image 1 to train on and to judge"),
        ({"splits": [((0,), (1, 1))]}, ValueError, "got an image to judge twice"),
        ({"splits": [((0,), (1,))] * 2}, ValueError, "got image 1 to judge in two splits"),
        ({"ignore_index": 0}, ValueError, "got no labelled pixel in the 1 images to train on"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, error, match):
    data = [planted(8, 0, lambda x, other: x > 99), planted(8, 1, own)]
    with pytest.raises(error, match=match):
        run(data, **{"splits": [((0,), (1,))], **options})


def test_no_splits_and_too_few_images_are_refused():
    with pytest.raises(ValueError, match="got no splits"):
        probe([planted(8, 0, own)], [], num_classes=2)
    with pytest.raises(ValueError, match="got 1 images, expected at least 2"):
        probe_splits(["train"])
    with pytest.raises(ValueError, match="got folds=1"):
        probe_splits(["", ""], folds=1)


# Street scenes


def test_street_scenes_beat_the_most_frequent_class(shared_data):
    images = []
    for image_path, label_path, *_ in read_rows(shared_data, "camvid", 8):
        image = np.array(Image.fromarray(read_image(image_path)).resize((80, 60), Image.Resampling.BILINEAR))
        mask = np.array(Image.fromarray(read_image(label_path)).resize((80, 60), Image.Resampling.NEAREST))
        images.append(Data(image=to_tensor(image), mask=torch.from_numpy(mask.astype(np.int64))))
    splits = probe_splits([""] * len(images), folds=2)
    labels: dict[str, Any] = {"num_classes": 11, "ignore_index": 11}
    found = {}
    for name, transform in {"superpixels": ToSuperpixelRAG(80, **labels), "grid": ToPixelGrid(**labels)}.items():
        found[name] = run([transform(data) for data in images], splits, steps=30, pixels=1024, **labels)
        scores, floor = found[name].scores(), found[name].floor().scores()
        assert scores["probe_accuracy"] > floor["probe_accuracy"] + 0.1
        assert scores["probe_miou"] > 2 * floor["probe_miou"]
        assert found[name].images == tuple(range(8))
        assert (found[name].epoch_seconds > 0).all()
    assert torch.equal(found["superpixels"].true, found["grid"].true)
