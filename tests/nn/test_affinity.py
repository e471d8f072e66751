"""Affinities, their graph, targets and refinement against plain loops and the affinity graph of the transforms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close
from torch_geometric.data import Batch

from graphseg.nn.affinity import (
    AffinityHead,
    SemanticRefinement,
    affinity_edges,
    affinity_targets,
    edge_affinity,
    edge_targets,
    modified_sigmoid,
)
from graphseg.ops import affinity_offsets, offset_edges
from graphseg.transforms import ToAffinityGraph
from tests.reference import affinity as reference
from tests.transforms.photos import K, photograph, sample

SIZES = [(1, 1), (1, 6), (5, 1), (2, 2), (4, 7)]
OFFSETS: dict[str, list[tuple[int, int]]] = {
    "none": [],
    "one direction": [(0, 1), (1, 0)],
    "backwards": [(0, -1), (2, -1)],
    "both directions": [(0, 2), (1, 1), (0, -2), (-1, -1)],
    "some of both": [(1, 0), (0, 3), (-1, 0), (-1, 2)],
    "beyond the image": [(50, 0), (0, -60), (0, 1), (10**12, 0)],
    "the paper's, near": affinity_offsets((1, 2)),
}
SETS = [(1, 2), (4, 3)]


def maps(offsets, size=(4, 7), images=2, seed=0, device="cpu", dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(images, len(offsets), *size, generator=generator, dtype=torch.float64).to(device, dtype)


def instance_maps(size=(4, 7), images=2, seed=0):
    """Instances 0 (background) to 3, and -100 for pixels that are ignored."""
    generator = torch.Generator().manual_seed(seed)
    instances = torch.randint(0, 4, (images, *size), generator=generator)
    return instances.masked_fill(torch.rand(images, *size, generator=generator) < 0.1, -100)


def positions(*size):
    """[P, 2], (x, y) row by row."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    return torch.stack([x, y], 2).view(-1, 2).float()


def assert_edges(edge_index, edge_attr, expected):
    """`expected` is a list of (p, q, affinity)."""
    found = torch.cat([edge_index.double(), edge_attr.double()[None]]).T.cpu()  # [E, 3]
    assert_close(found, torch.tensor(expected, dtype=torch.float64).view(-1, 3), rtol=0, atol=1e-12)


def semantic_problem(nodes=12, classes=6, edges=40, seed=0, device="cpu", dtype=torch.float64):
    """Affinities, probabilities and edges."""
    generator = torch.Generator().manual_seed(seed)
    affinity = torch.rand(edges, generator=generator, dtype=torch.float64)
    probability = (torch.randn(nodes, classes, generator=generator, dtype=torch.float64) * 2).softmax(1)
    edge_index = torch.randint(0, nodes, (2, edges), generator=generator)
    return affinity.to(device, dtype), probability.to(device, dtype), edge_index.to(device)


# Three nodes by hand


def test_three_pixels_by_hand():
    offsets = [(0, 1), (0, -1), (0, 2)]
    # What each pixel says of its right, left and next but one neighbour.
    affinity = torch.tensor([[0.2, 0.4, 9.0], [9.0, 0.6, 0.8], [0.5, 9.0, 9.0]]).view(1, 3, 1, 3)
    edge_index, edge_attr = affinity_edges(affinity, offsets)
    assert edge_index.tolist() == [[0, 0, 1], [1, 2, 2]]
    assert_close(edge_attr, torch.tensor([0.4, 0.5, 0.6]))  # (0.2 + 0.6) / 2, only one direction, (0.4 + 0.8) / 2
    instances = torch.tensor([[7, 7, 0]])
    assert affinity_targets(instances, offsets).tolist() == [[[1, 0, -100]], [[-100, 1, 0]], [[0, -100, -100]]]
    assert edge_targets(instances.flatten(), edge_index).tolist() == [1, 0, 0]
    p = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.0, 0.8]])
    refined = SemanticRefinement()(edge_attr, p, edge_index)
    assert_close(refined, torch.tensor([0.4 * (2 / (1 + math.exp(-2.5)) - 1), 0, 0]))
    together = SemanticRefinement(super_classes=[(1, 2)])(edge_attr, p, edge_index)
    # Pixel 1 is background or class 1 alike: the super-class 1, 2 comes first.
    s = [2 / (1 + math.exp(-5 * v)) - 1 for v in (0.5, 0.8, 0.4)]
    assert_close(together, torch.tensor([0.4 * s[0], 0.5 * s[1], 0.6 * s[2]]))


# The head


def test_head_has_the_papers_channels():
    head = AffinityHead(8)
    assert head.offsets == reference.neighbourhood((1, 2, 4, 8, 16, 32, 64))
    assert head(torch.rand(2, 8, 5, 6)).shape == (2, 56, 5, 6)
    assert repr(head) == "AffinityHead(8, 56 offsets)"


def test_head_of_rows_is_the_head_of_maps():
    head = AffinityHead(4, [(0, 1), (3, -2)]).double()
    x = torch.randn(2, 4, 5, 6).double()
    logits = head(x)
    assert_close(logits.movedim(1, 3).reshape(-1, 2), head(x.movedim(1, 3).reshape(-1, 4)))
    weight, bias = (t.detach() for t in (head.lin.weight, head.lin.bias))
    loop = [
        [[[x[b, :, i, j] @ weight[k] + bias[k] for j in range(6)] for i in range(5)] for k in range(2)] for b in (0, 1)
    ]
    assert_close(logits, torch.tensor(loop, dtype=torch.float64))
    resized = head(x, (10, 13))
    assert_close(resized, F.interpolate(logits, (10, 13), mode="bilinear", align_corners=False))
    assert_close(head(x[:1]), logits[:1])
    assert head(x[:0]).shape == (0, 2, 5, 6) and head(x[0, :, 0, :0].T).shape == (0, 2)


def test_head_learns_and_is_kept():
    head = AffinityHead(3, [(0, 1)])
    assert gradcheck(head.double(), (torch.randn(1, 3, 2, 2).double().requires_grad_(),))
    other = AffinityHead(3, [(0, 1)]).double()
    assert not torch.equal(other.lin.weight, head.lin.weight)
    other.load_state_dict(head.state_dict())
    x = torch.randn(5, 3).double()
    assert torch.equal(other(x), head(x))
    other.reset_parameters()
    assert not torch.equal(other.lin.weight, head.lin.weight)


# The graph of maps


@pytest.mark.parametrize("name", OFFSETS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("directed", [False, True])
def test_edges_are_the_loop(name, size, directed, device):
    offsets = OFFSETS[name]
    affinity = maps(offsets, size, device=device)
    valid = torch.rand(2, *size, generator=torch.Generator().manual_seed(2)) < 0.8
    for v in (None, valid):
        edge_index, edge_attr = affinity_edges(
            affinity, offsets, directed=directed, valid=None if v is None else v.to(device)
        )
        P = size[0] * size[1]
        expected = []
        for b in range(2):
            if offsets:
                one = reference.edges(affinity[b].tolist(), offsets, directed, None if v is None else v[b].tolist())
                expected += [(p + b * P, q + b * P, a) for p, q, a in one]
        assert_edges(edge_index, edge_attr, expected)
        assert edge_index.dtype == torch.int64 and edge_attr.dtype == torch.float64
    single = offset_edges(size[0], size[1], offsets, directed=directed, device=device)
    whole = affinity_edges(affinity, offsets, directed=directed)[0]
    assert torch.equal(whole, torch.cat([single, single + P], 1))


@given(data=st.data(), size=st.tuples(st.integers(1, 5), st.integers(1, 5)), directed=st.booleans())
def test_any_offsets(data, size, directed):
    offset = st.tuples(st.integers(-6, 6), st.integers(-6, 6)).filter(any)
    offsets = data.draw(st.lists(offset, unique=True, min_size=1, max_size=6))
    affinity = maps(offsets, size, images=1)
    edge_index, edge_attr = affinity_edges(affinity, offsets, directed=directed)
    assert_edges(edge_index, edge_attr, reference.edges(affinity[0].tolist(), offsets, directed))
    rows = affinity.movedim(1, 3).reshape(-1, len(offsets))
    assert_close(edge_affinity(rows, positions(*size).double(), edge_index, offsets), edge_attr)
    far = torch.cat([rows, rows[:, :1]], 1)  # a neighbour that no image has
    assert_close(edge_affinity(far, positions(*size), edge_index, [*offsets, (10**12, 0)]), edge_attr)


def test_both_directions_have_one_affinity():
    offsets = affinity_offsets((1, 2))
    (source, target), edge_attr = affinity_edges(maps(offsets, images=1), offsets, directed=True)
    said = dict(zip(zip(source.tolist(), target.tolist(), strict=True), edge_attr.tolist(), strict=True))
    assert all(said[q, p] == value for (p, q), value in said.items())
    order = torch.randperm(len(offsets)).tolist()
    shuffled = affinity_edges(maps(offsets, images=1)[:, order], [offsets[k] for k in order], directed=True)
    assert torch.equal(shuffled[1], edge_attr)


@pytest.mark.parametrize("valid", [None, "some", "none"])
def test_order_is_that_of_the_affinity_graph(valid):
    """Images of different sizes, with pixels that are not valid, in one batch."""
    transform = ToAffinityGraph([(0, 1), (1, 0), (2, -1)], num_classes=K, ignore_index=255)
    offsets = [sign for dy, dx in transform.offsets for sign in ((dy, dx), (-dy, -dx))]
    samples = [sample(*size, valid=valid) for size in [(6, 9), (3, 4), (1, 1)]]
    graphs = [transform(data) for data in samples]
    batch = Batch.from_data_list(graphs)
    rows, attributes, targets, start = [], [], [], 0
    for data, graph in zip(samples, graphs, strict=True):
        H, W = data.mask.shape
        affinity = maps(offsets, (H, W), images=1, seed=start)
        keep = None if valid is None else data.valid[None]
        edge_index, edge_attr = affinity_edges(affinity, offsets, directed=True, valid=keep)
        assert torch.equal(edge_index, graph.edge_index)
        rows.append(affinity.movedim(1, 3).reshape(H * W, -1))
        attributes.append(edge_attr)
        targets.append(data.instances.flatten())
        start += H * W
    found = edge_affinity(torch.cat(rows), batch.pos, batch.edge_index, offsets)
    assert torch.equal(found, torch.cat(attributes))
    instances = torch.cat(targets).long()
    assert torch.equal(edge_targets(instances, batch.edge_index).float(), batch.edge_y)


def test_batch_is_singles():
    offsets = OFFSETS["some of both"]
    affinity = maps(offsets, images=3)
    edge_index, edge_attr = affinity_edges(affinity, offsets)
    singles = [affinity_edges(one[None], offsets) for one in affinity]
    assert torch.equal(edge_attr, torch.cat([attr for _, attr in singles]))
    assert torch.equal(edge_index, torch.cat([index + 28 * b for b, (index, _) in enumerate(singles)], 1))
    for empty in (affinity[:0], affinity[:, :, :, :1][:0]):
        assert [x.shape[-1] for x in affinity_edges(empty, offsets)] == [0, 0]


def test_gradients_of_edges():
    offsets = OFFSETS["some of both"]
    affinity = maps(offsets, (2, 4)).requires_grad_()
    valid = torch.rand(2, 2, 4) < 0.8
    assert gradcheck(lambda a: affinity_edges(a, offsets, valid=valid, directed=True)[1], (affinity,))
    edge_index, _ = affinity_edges(affinity[:1], offsets, directed=True)
    rows = torch.rand(8, 4).double().requires_grad_()
    assert gradcheck(lambda x: edge_affinity(x, positions(2, 4), edge_index, offsets), (rows,))


def test_no_nodes_and_no_edges():
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert edge_affinity(torch.zeros(0, 2), torch.zeros(0, 2), none, [(0, 1), (1, 0)]).shape == (0,)
    assert edge_affinity(torch.zeros(4, 2), torch.zeros(4, 2), none, [(0, 1), (1, 0)]).shape == (0,)
    assert edge_targets(torch.zeros(0, dtype=torch.int64), none).shape == (0,)
    for model in (SemanticRefinement(), SemanticRefinement(super_classes=SETS)):
        assert model(torch.zeros(0), torch.zeros(0, 6), none).shape == (0,)
        assert model(torch.zeros(0), torch.rand(1, 6), none).shape == (0,)


# Targets


@pytest.mark.parametrize("name", OFFSETS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_targets_are_the_loop(name, size, device):
    offsets = OFFSETS[name]
    instances = instance_maps(size)
    found = affinity_targets(instances.to(device), offsets)
    assert found.dtype == torch.int8 and found.shape == (2, len(offsets), *size)
    assert found.tolist() == [reference.targets(one.tolist(), offsets) for one in instances]
    assert torch.equal(affinity_targets(instances[1].to(device), offsets), found[1])


@pytest.mark.parametrize("background, ignore_index", [(0, -100), (None, -100), (2, 3), (None, 0)])
def test_background_and_ignored_pixels(background, ignore_index):
    instances, offsets = instance_maps().abs() % 4, affinity_offsets((1,))
    found = affinity_targets(instances, offsets, background=background, ignore_index=ignore_index)
    assert found.tolist() == [reference.targets(one.tolist(), offsets, background, ignore_index) for one in instances]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.uint16])
def test_instances_of_any_integer_dtype(dtype):
    instances = instance_maps().clamp(min=0)
    offsets = affinity_offsets((1, 2))
    assert torch.equal(affinity_targets(instances.to(dtype), offsets), affinity_targets(instances, offsets))


def test_targets_of_maps_are_targets_of_edges():
    """Both directions have the same target, so the mean of the two on an edge is that of the edge."""
    instances, offsets = instance_maps(images=3), affinity_offsets((1, 2))
    edge_index, edge_attr = affinity_edges(affinity_targets(instances, offsets).double(), offsets)
    assert torch.equal(edge_targets(instances.flatten(), edge_index), edge_attr.to(torch.int8))


def test_targets_of_a_photograph():
    photo = photograph()
    offsets = affinity_offsets((1, 4))
    graph = ToAffinityGraph(offsets)(photo)
    target = affinity_targets(photo.instances, offsets)
    edge_index, edge_attr = affinity_edges(target[None].float(), offsets, directed=True)
    assert torch.equal(edge_index, graph.edge_index) and torch.equal(edge_attr, graph.edge_y)


# Refinement


@pytest.mark.parametrize("background", [0, None, 5])
@pytest.mark.parametrize("super_classes", [None, [], SETS])
def test_refinement_is_the_loop(background, super_classes, device, dtype, tolerance):
    affinity, probability, edge_index = semantic_problem(device=device, dtype=dtype)
    model = SemanticRefinement(3.0, super_classes, background).to(device)
    found = model(affinity, probability, edge_index)
    expected = reference.refine(
        affinity.tolist(), probability.tolist(), edge_index.T.tolist(), 3.0, super_classes, background
    )
    assert_close(found.cpu().double(), torch.tensor(expected, dtype=torch.float64), **tolerance)


def test_refinement_is_the_obvious_composition_in_values_and_gradients():
    affinity, probability, edge_index = semantic_problem()
    leaves = [affinity.requires_grad_(), probability.requires_grad_()]
    found = SemanticRefinement()(affinity, probability, edge_index)
    p = probability[:, 1:]
    expected = affinity * (2 * (1 / (1 + torch.exp(-5 * (p[edge_index[0]] * p[edge_index[1]]).sum(1))) - 0.5))
    assert_close(found, expected)
    upstream = torch.randn(40, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        assert_close(a, b)
    affinity, probability, edge_index = semantic_problem(3, 6, 5)
    leaves = [affinity.requires_grad_(), probability.requires_grad_()]
    for model in (SemanticRefinement(), SemanticRefinement(super_classes=SETS)):
        assert gradcheck(lambda a, b, model=model: model(a, b, edge_index), leaves)


def test_modified_sigmoid_is_the_printed_one():
    x = torch.linspace(0, 1, 11, dtype=torch.float64)
    for alpha in (1.0, 5.0):
        printed = [reference.sigma(v, alpha) for v in x.tolist()]
        assert_close(modified_sigmoid(x, alpha), torch.tensor(printed, dtype=torch.float64))


def test_certain_classes_decide():
    classes = torch.tensor([1, 1, 2, 3, 0, 0])
    p = F.one_hot(classes, 6).double()
    edge_index = torch.tensor([[0, 0, 0, 4, 4], [1, 2, 3, 5, 0]])
    one = torch.ones(5, dtype=torch.float64)
    top = math.tanh(2.5)
    assert_close(SemanticRefinement()(one, p, edge_index), torch.tensor([top, 0, 0, 0, 0], dtype=torch.float64))
    joined = SemanticRefinement(super_classes=SETS)(one, p, edge_index)
    assert_close(joined, torch.tensor([top, top, 0, 0, 0], dtype=torch.float64))


def test_refinement_follows_the_nodes():
    affinity, probability, edge_index = semantic_problem()
    order, edges = torch.randperm(12), torch.randperm(40)
    for model in (SemanticRefinement(), SemanticRefinement(super_classes=SETS)):
        found = model(affinity, probability, edge_index)
        moved = model(affinity[edges], probability[order], order.argsort()[edge_index][:, edges])
        assert_close(moved, found[edges])
        assert torch.equal(model(affinity, probability, edge_index.flip(0)), found)
        twice = model(
            torch.cat([affinity] * 2), torch.cat([probability] * 2), torch.cat([edge_index, edge_index + 12], 1)
        )
        assert torch.equal(twice, torch.cat([found] * 2))


def test_head_to_refined_edges_of_photographs():
    """From features to refined affinities on the edges of the transform's graph."""
    photo = photograph()
    H, W = photo.mask.shape
    graph = ToAffinityGraph(affinity_offsets((1, 2)))(photo)
    head = AffinityHead(graph.num_features, affinity_offsets((1, 2)))
    affinity = edge_affinity(head(graph.x).sigmoid(), graph.pos, graph.edge_index, head.offsets)
    semantics = torch.randn(H * W, 4).softmax(1)
    refined = SemanticRefinement()(affinity, semantics, graph.edge_index)
    assert refined.shape == (graph.num_edges,) and bool(((refined >= 0) & (refined <= affinity)).all())
    F.binary_cross_entropy(refined, graph.edge_y).backward()
    assert head.lin.weight.grad.abs().sum() > 0
    image = graph.x.T.reshape(1, -1, H, W)
    assert_close(affinity_edges(head(image).sigmoid(), head.offsets, directed=True)[1], affinity)


# Devices, precision, compilation


def test_autocast(device):
    offsets = affinity_offsets((1,))
    head, x = AffinityHead(4, offsets).to(device), torch.rand(1, 4, 6, 7, device=device)
    affinity, probability, edge_index = semantic_problem(device=device, dtype=torch.float32)
    for model in (SemanticRefinement(), SemanticRefinement(super_classes=SETS)):
        expected = model(affinity, probability, edge_index)
        with torch.autocast(device.type, torch.bfloat16):
            assert_close(model(affinity, probability, edge_index), expected)
            assert model(affinity, probability.bfloat16(), edge_index).dtype == torch.float32
    with torch.autocast(device.type, torch.bfloat16):
        logits = head(x)
        assert logits.dtype == torch.bfloat16
        assert affinity_edges(logits.sigmoid(), offsets)[1].dtype == torch.float32
    assert_close(logits.float(), head(x), rtol=3e-2, atol=1e-2)


# What torch.compile itself does where it breaks a graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")
def test_compiles():
    affinity, probability, edge_index = semantic_problem()
    leaves = [affinity.requires_grad_(), probability.requires_grad_()]
    model = SemanticRefinement(super_classes=SETS)
    found, expected = (m(*leaves, edge_index) for m in (torch.compile(model, backend="eager"), model))
    assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(out.sum(), leaves) for out in (found, expected)), strict=True):
        assert_close(a, b)
    head = AffinityHead(3, [(0, 1), (1, 0)])
    x = torch.rand(1, 3, 4, 5)
    assert_close(torch.compile(head, backend="aot_eager")(x), head(x))


def test_modules_say_what_they_are():
    assert repr(SemanticRefinement()) == "SemanticRefinement(alpha=5.0, super_classes=None)"
    assert repr(SemanticRefinement(2, SETS)) == "SemanticRefinement(alpha=2, super_classes=[[1, 2], [3, 4]])"
    assert not SemanticRefinement(super_classes=SETS).state_dict()


# Bad input


def test_bad_offsets_are_refused():
    for call in (
        lambda o: AffinityHead(3, o),
        lambda o: affinity_targets(torch.zeros(3, 3, dtype=torch.int64), o),
        lambda o: affinity_edges(torch.zeros(1, len(o), 3, 3), o),
    ):
        with pytest.raises(ValueError, match=r"got offset \(0, 1\) twice"):
            call([(0, 1), (1, 0), (0, 1)])
        with pytest.raises(ValueError, match=r"got offset \(0, 0\), expected 2 ints"):
            call([(0, 1), (0, 0)])
        with pytest.raises(TypeError, match=r"got offset \(0.5, 1\), expected 2 ints"):
            call([(0.5, 1)])


def test_bad_input_is_refused_by_name():
    offsets = [(0, 1), (1, 0)]
    affinity, probability, edge_index = semantic_problem()
    with pytest.raises(ValueError, match=r"for affinity, expected \[\*, 2, \*, \*\]"):
        affinity_edges(torch.zeros(1, 3, 4, 4), offsets)
    with pytest.raises(ValueError, match=r"for valid, expected \[1, 4, 5\]"):
        affinity_edges(torch.zeros(1, 2, 4, 5), offsets, valid=torch.ones(1, 5, 4, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"for valid, expected torch\.bool"):
        affinity_edges(torch.zeros(1, 2, 4, 5), offsets, valid=torch.ones(1, 4, 5))
    with pytest.raises(ValueError, match=r"got edge 1 at \(dy, dx\) = \(1, 1\), expected one of the 2 offsets"):
        edge_affinity(torch.zeros(4, 2), positions(2, 2), torch.tensor([[0, 0], [1, 3]]), offsets)
    with pytest.raises(ValueError, match=r"for pos, expected \[4, 2\]"):
        edge_affinity(torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(2, 0, dtype=torch.int64), offsets)
    with pytest.raises(TypeError, match="for instances, expected an integer"):
        affinity_targets(torch.zeros(3, 3), offsets)
    with pytest.raises(ValueError, match=r"for instances, expected \[H, W\] or \[B, H, W\]"):
        affinity_targets(torch.zeros(3, dtype=torch.int64), offsets)
    with pytest.raises(ValueError, match=r"for affinity, expected \[40\]"):
        SemanticRefinement()(affinity[1:], probability, edge_index)
    for model in (SemanticRefinement(), SemanticRefinement(super_classes=SETS)):
        with pytest.raises(ValueError, match=r"in edge_index, expected ids in \[0, 12\)"):
            model(affinity, probability, edge_index + 5)
    with pytest.raises(ValueError, match="got class 6, expected one of the 6 classes in probability"):
        SemanticRefinement(super_classes=[(1, 6)])(affinity, probability, edge_index)
    for sets in ([(1, 2), (2, 3)], [(0, 1)]):
        with pytest.raises(ValueError, match="expected disjoint sets without background=0"):
            SemanticRefinement(super_classes=sets)
    with pytest.raises(ValueError, match=r"for x, expected \[\*, 3\]"):
        AffinityHead(3)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"for x, expected \[\*, 3, \*, \*\]"):
        AffinityHead(3)(torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match="got in_channels=0"):
        AffinityHead(0)


def test_reference_neighbourhood_has_all_channels():
    assert len(reference.neighbourhood((1, 2, 4, 8, 16, 32, 64))) == 56
    assert np.abs(reference.neighbourhood((1,))).max() == 1
