"""What every transform from images to graphs has in common."""

from __future__ import annotations

import copy
import functools
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose, Constant

import graphseg
from graphseg.data import Hierarchy, ImageGraph
from graphseg.transforms import (
    ToAffinityGraph,
    ToHierarchy,
    ToInstanceGraph,
    ToKNNGraph,
    ToPascalVOCSP,
    ToPixelGrid,
    ToSuperpixelRAG,
)
from tests.reference import image_graph as reference
from tests.transforms.photos import (
    ANGLES,
    TRANSFORMS,
    Cells,
    K,
    blocks,
    convert_dtype,
    photograph,
    photographs,
    sample,
    three_by_three,
)

SIZES = [(1, 1), (1, 7), (6, 1), (2, 2), (9, 8)]
KINDS = [None, "constant", "none", "one", "some"]
DTYPES = [torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64]
OVER_PIXELS = ("grid", "grid, 8", "affinity", "knn, pixels")


def channels_of(name):
    return [3] if name == "PascalVOC-SP" else [1, 3, 4, 200]


def assert_same(got, want, skip=()):
    assert type(got) is type(want) and set(got.keys()) == set(want.keys())
    for key, value in want:
        if key in skip:
            continue
        if isinstance(value, torch.Tensor):
            assert got[key].dtype == value.dtype and torch.equal(got[key], value), key
        else:
            assert got[key] == value, key


def assert_laws(graph):
    """What holds for every graph: fields fit, numbers are finite, edges are symmetric, sorted and no loops."""
    assert isinstance(graph, ImageGraph) and graph.validate()
    assert graph.edge_index.dtype == torch.int64 and graph.x.dtype == graph.pos.dtype == torch.float32
    for key in ("x", "pos", "edge_attr", "edge_weight", "pixel_x"):
        assert key not in graph or graph[key].isfinite().all(), key
    pairs = list(zip(*graph.edge_index.tolist(), strict=True))
    assert pairs == reference.both_directions(pairs)
    assert all(i != j for i, j in pairs)
    place = {pair: e for e, pair in enumerate(pairs)}
    back = torch.tensor([place[j, i] for i, j in pairs], dtype=torch.int64)
    assert graph.edge_attr.shape[0] == len(pairs)
    for key in ("edge_weight", "edge_y"):
        assert key not in graph or torch.equal(graph[key][back], graph[key])
    if "edge_weight" in graph:
        assert (graph.edge_weight > 0).all() and (graph.edge_weight <= 1).all()
    H, W = graph.image_size[0].tolist()
    inside = (graph.pos >= 0) & (graph.pos <= torch.tensor([W - 1, H - 1]))
    assert inside.all()
    assert torch.bincount(graph.assignment[graph.valid], minlength=graph.num_nodes).sum() == graph.valid.sum()
    return back


def assert_edge_attributes_mirror(graph, names, back):
    for name, column in zip(names, graph.edge_attr.T, strict=True):
        if name != "centroid_angle":
            assert torch.equal(column[back], column), name
            continue
        i, j = graph.edge_index
        apart = (graph.pos[i] != graph.pos[j]).any(1)
        turned = (column[back] - column).abs()[apart]
        assert_close(turned, torch.full_like(turned, math.pi))
        assert column[~apart].eq(0).all()


@functools.cache
def columns(name):
    return TRANSFORMS[name]()(sample(9, 8)).x.shape[1]


# Every image


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("photo", ["astronaut", "coffee", "coins"])
def test_photographs(name, photo):
    if name in ("PascalVOC-SP", "everything") and photo == "coins":
        pytest.skip("for colour images" if name == "PascalVOC-SP" else "as the others")
    transform = TRANSFORMS[name](num_classes=K, ignore_index=255, keep_pixels=True)
    graph = transform(photograph(photo))
    back = assert_laws(graph)
    if transform.edge_features == ANGLES:
        assert_edge_attributes_mirror(graph, transform.edge_features, back)
    assert graph.num_nodes > 3 and graph.num_edges > 3
    assert graph.source == photo and graph.label_counts.shape == (graph.num_nodes, K)
    mask = photograph(photo).mask.flatten()
    largest = torch.bincount(mask[graph.valid & (mask != 255)]).max() / (graph.valid & (mask != 255)).sum()
    assert graph.oracle()["pixel_accuracy"] >= largest  # no worse than one class everywhere
    assert graph.project(graph.y, fill=255).shape == photograph(photo).mask.shape


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_degenerate_images(name, size, kind):
    transform = TRANSFORMS[name](num_classes=K, ignore_index=255, keep_pixels=True)
    constant, valid = kind == "constant", None if kind == "constant" else kind
    graph = transform(sample(size[0], size[1], valid=valid, constant=constant))
    back = assert_laws(graph)
    if transform.edge_features == ANGLES:
        assert_edge_attributes_mirror(graph, ANGLES, back)
    assert graph.image_size.tolist() == [list(size)]
    assert graph.x.shape == (graph.num_nodes, columns(name))
    expected = sample(size[0], size[1], valid=valid)
    inside = expected.valid.flatten() if valid else torch.ones(size, dtype=torch.bool).flatten()
    if name.startswith("instances"):
        inside = inside & (expected.instances.flatten() != 0)
    assert torch.equal(graph.valid, inside)
    counts = reference.label_counts(
        graph.assignment.numpy(), inside.numpy(), expected.mask.numpy(), graph.num_nodes, K, 255
    )
    rows = slice(None)
    if isinstance(graph, Hierarchy):
        assert all(graph.level_graph(level).validate() for level in range(graph.num_levels))
        assert graph.to_hetero().validate()
        rows = graph.level == graph.num_levels - 1
    assert graph.label_counts[rows].tolist() == counts[rows].tolist()
    assert graph.y[rows].tolist() == reference.majority(counts[rows], -100)
    if name in OVER_PIXELS:
        assert graph.num_nodes == graph.num_pixels and graph.label_counts.dtype == torch.uint8
    elif not inside.any():
        assert graph.num_nodes == graph.num_edges == 0
    assert_same(Batch.from_data_list([graph, graph])[1], graph)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_channels_and_dtypes(name, dtype):
    for channels in channels_of(name):
        for valid in (None, "some"):
            transform = TRANSFORMS[name](keep_pixels=True)
            data = sample(10, 11, channels, dtype, valid)
            graph = transform(data)
            assert_laws(graph)
            assert graph.pixel_x.shape == (110, channels) and graph.pixel_x.dtype in (torch.float32, torch.float64)
            scale = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
            want = data.image.to(torch.float64).flatten(1).T / scale
            shown = graph.valid
            assert_close(graph.pixel_x[shown].double(), want[shown], rtol=1e-6, atol=1e-6)
            if "mean" in transform.node_features and not isinstance(graph, Hierarchy):
                first = transform.node_features.index("mean")
                assert first == 0
                assert_close(graph.x[:, :channels][graph.assignment[shown]].mean(0), want[shown].float().mean(0))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_integers_are_scaled_as_floats_are_not(name):
    exact = sample(10, 11, 3, torch.uint8)
    unit = exact.clone()
    unit.image = exact.image.to(torch.float32) / 255
    wide = exact.clone()
    wide.image = (exact.image.to(torch.int32) * 257).to(torch.uint16)
    transform = TRANSFORMS[name]()
    graph = transform(exact)
    for other in (transform(unit), transform(wide)):
        assert torch.equal(other.edge_index, graph.edge_index)
        assert torch.equal(other.assignment, graph.assignment)
        if name != "everything":  # the histogram's edges fall between other values
            assert_close(other.x, graph.x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_memory_layout_does_not_matter(name):
    data = photograph()
    want = TRANSFORMS[name]()(data)
    layouts = [
        data.image.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        data.image.transpose(1, 2).contiguous().transpose(1, 2),
        data.image.repeat_interleave(2, 2)[:, :, ::2],
    ]
    for image in layouts:
        assert not image.is_contiguous()
        other = data.clone()
        other.image = image
        for key in ("mask", "segments", "instances"):
            other[key] = data[key].T.contiguous().T
        assert_same(TRANSFORMS[name]()(other), want)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_invalid_pixels_never_matter(name):
    results = []
    for junk in (math.nan, math.inf, -7e5, 0.25):
        data = sample(12, 13, valid="some")
        data.image = data.image.where(data.valid, junk)
        data.boundary = torch.rand(12, 13, generator=torch.Generator().manual_seed(0)).where(data.valid, junk)
        for key, other in (("segments", 3), ("instances", 9), ("mask", 77)):
            data[key] = data[key].where(data.valid, other if junk == 0.25 else -4)
        results.append(TRANSFORMS[name](keep_pixels=True, num_classes=K, ignore_index=255)(data))
    for other in results[1:]:
        assert_same(other, results[0], skip=("pixel_y",))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_map_of_valid_pixels_only_is_none_at_all(name):
    data = photograph()
    want = TRANSFORMS[name]()(data)
    data.valid = torch.ones(data.mask.shape, dtype=torch.bool)
    assert_same(TRANSFORMS[name]()(data), want)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_gradients_reach_the_image(name):
    transform = TRANSFORMS[name]()
    leaf = sample(10, 12).image.clone()
    leaf[:, :4] = 0.5  # constant regions: a standard deviation of 0
    leaf.requires_grad_()
    data = sample(10, 12, valid="some")
    data.image = (leaf * 1.0).where(data.valid, math.nan)  # not a leaf
    graph = transform(data)
    assert graph.x.requires_grad
    loss = graph.x.sum() + (graph.edge_attr.sum() if graph.edge_attr.requires_grad else 0)
    loss.backward()
    assert leaf.grad.isfinite().all()
    used = graph.valid.view(10, 12)
    assert leaf.grad[:, ~used].eq(0).all() and leaf.grad[:, used].ne(0).any()
    plain = sample(10, 12, valid="some")
    plain.image = leaf.detach().where(plain.valid, math.nan)
    assert_close(transform(plain).x, graph.x.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_same_every_time_and_the_input_as_it_was(name):
    for data in (photograph(), sample(9, 8, 3, torch.float32, "some"), sample(9, 8, 3, torch.float64)):
        before = data.clone()
        first = TRANSFORMS[name](keep_pixels=True)(data)
        assert set(data.keys()) == set(before.keys())
        for key, value in before:
            assert torch.equal(data[key].nan_to_num(), value.nan_to_num()) if key != "source" else data[key] == value
        assert_same(TRANSFORMS[name](keep_pixels=True)(data), first)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_on_every_device(name, device):
    data = photograph()
    want = TRANSFORMS[name](keep_pixels=True)(data)
    got = TRANSFORMS[name](keep_pixels=True)(data.clone().to(device))
    assert got.validate()
    assert all(value.device.type == device.type for _, value in got if isinstance(value, torch.Tensor))
    got = got.cpu()
    for key in ("edge_index", "assignment", "valid", "y", "label_counts", "pixel_y"):
        assert torch.equal(got[key], want[key]), key
    for key in ("x", "pos", "edge_attr"):
        assert_close(got[key], want[key], rtol=1e-4, atol=1e-4)


# In PyG's pipelines


class Photographs(InMemoryDataset):
    """Images to graphs once, stored."""

    def __init__(self, root, transform=None, pre_transform=None):
        super().__init__(root, transform, pre_transform)
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self):
        return "photographs.pt"

    def process(self):
        self.save([self.pre_transform(photograph(name)) for name in ("astronaut", "coffee")], self.processed_paths[0])


class Converting(torch.utils.data.Dataset):
    """Images to graphs when asked for."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.transform(photograph("coffee" if index == 1 else "astronaut"))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_compose_and_pre_transform(name, tmp_path):
    transform = TRANSFORMS[name](num_classes=K, ignore_index=255)
    listed = [transform(photograph(photo)) for photo in ("astronaut", "coffee")]
    composed = Compose([transform, Constant()])(photograph())
    assert composed.validate() and composed.x.shape[1] == listed[0].x.shape[1] + 1
    dataset = Photographs(str(tmp_path), pre_transform=transform)
    for got, want in zip(dataset, listed, strict=True):
        got.num_nodes = want.num_nodes  # PyG does not store it
        assert_same(got, want)
    back = next(iter(DataLoader(dataset, batch_size=2)))
    assert back.validate() and back.source == ["astronaut", "coffee"]


@pytest.mark.parametrize("name", ["grid", "slic", "function", "knn", "instances", "hierarchy", "PascalVOC-SP"])
def test_in_workers_of_a_loader(name):
    transform = TRANSFORMS[name](num_classes=K, ignore_index=255)
    listed = [Converting(transform)[i] for i in range(3)]
    found = []
    for batch in DataLoader(Converting(transform), batch_size=2, num_workers=2):
        assert batch.validate()
        found += batch.to_data_list()
    for got, want in zip(found, listed, strict=True):
        assert_same(got, want)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_copy_and_pickle(name):
    transform = TRANSFORMS[name]()
    want = transform(photograph())
    for other in (
        (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform)))
        if "lambda" not in repr(transform)
        else (copy.deepcopy(transform),)
    ):
        assert_same(other(photograph()), want)
        assert repr(other) == repr(transform)


# Labels


def test_labels_that_do_not_count():
    data = photograph()
    graph = ToPixelGrid(num_classes=K, ignore_index=255)(data)
    assert graph.y[: 3 * 44].eq(-100).all() and graph.label_counts[: 3 * 44].eq(0).all()
    assert torch.equal(graph.pixel_y, data.mask.flatten())
    data.mask[:3] = 0
    graph = ToPixelGrid(num_classes=K, ignore_index=0)(data)  # a class among the others, such as void
    assert graph.y.eq(-100).sum() == data.mask.eq(0).sum() and graph.label_counts[:, 0].eq(0).all()
    assert ToPixelGrid(ignore_index=None)(data).num_classes == int(data.mask.max()) + 1
    data.mask[:] = 255
    graph = ToSuperpixelRAG(10, ignore_index=255)(data)
    assert graph.y.eq(-100).all() and graph.num_classes == 1 and math.isnan(graph.oracle()["pixel_accuracy"])


def test_masks_of_any_integer_dtype():
    want = ToSuperpixelRAG(10, num_classes=K, ignore_index=255)(photograph())
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.uint16):
        data = photograph()
        data.mask = data.mask.to(dtype)
        assert_same(ToSuperpixelRAG(10, num_classes=K, ignore_index=255)(data), want)


def test_no_mask_no_labels():
    data = photograph()
    del data.mask
    graph = ToSuperpixelRAG(10)(data)
    assert not {"y", "label_counts", "pixel_y"} & set(graph.keys()) and graph.validate()


# Annotators and georeferences


def annotated(name="astronaut", annotators=3):
    """A photograph with segmentations, none of which is complete, and a georeference."""
    data = photograph(name)
    gray = data.image.to(torch.int64).sum(0)
    data.annotations = torch.stack([gray // (30 * (k + 1)) - 1 for k in range(annotators)])
    data.geo = f'{{"crs": "{name}"}}'
    return data


@pytest.mark.parametrize("name", TRANSFORMS)
def test_annotations_and_georeferences_reach_the_graph(name):
    data = annotated()
    graph = TRANSFORMS[name](num_classes=K, ignore_index=255)(data)
    assert graph.validate() and graph.geo == data.geo
    assert graph.annotations.dtype == torch.int32 and graph.annotations.is_contiguous()
    H, W = data.mask.shape
    assert torch.equal(graph.annotations.view(H, W, 3).permute(2, 0, 1), data.annotations.to(torch.int32))
    want = TRANSFORMS[name](num_classes=K, ignore_index=255)(photograph())
    assert "annotations" not in want and "geo" not in want
    del graph.annotations, graph.geo
    assert_same(graph, want)  # nothing else depends on them


@pytest.mark.parametrize("name", TRANSFORMS)
def test_annotated_images_of_different_sizes_in_a_batch(name):
    transform = TRANSFORMS[name](num_classes=K, ignore_index=255)
    listed = [transform(annotated(photo)) for photo in ("coffee", "astronaut", "coffee")]
    batch = next(iter(DataLoader(listed, batch_size=3)))
    assert batch.validate() and batch.geo == ['{"crs": "coffee"}', '{"crs": "astronaut"}', '{"crs": "coffee"}']
    assert batch.annotations.shape == (batch.num_pixels, 3)
    for i, want in enumerate(listed):
        assert_same(batch.get_example(i), want)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_annotations_of_any_integer_dtype(dtype):
    data = annotated()
    data.annotations = (data.annotations + 1).clamp(max=127).to(dtype)
    graph = ToPixelGrid()(data)
    assert graph.annotations.dtype == torch.int32
    assert torch.equal(graph.annotations.T.reshape(data.annotations.shape), data.annotations.to(torch.int32))


def test_annotations_stay_where_there_is_no_data():
    data = annotated()
    data.valid = torch.rand(data.mask.shape) < 0.5
    graph = ToSuperpixelRAG(10)(data)
    assert torch.equal(graph.annotations, data.annotations.flatten(1).T.to(torch.int32))


def test_annotations_of_a_hierarchy():
    data = annotated()
    graph = ToHierarchy((3, 6, 12), keep_pixels=True)(data)
    hetero = graph.to_hetero()
    assert hetero.validate() and hetero.geo == data.geo
    assert torch.equal(hetero["pixel"].annotations, graph.annotations)
    for level in range(3):
        part = graph.level_graph(level)
        assert part.validate() and part.geo == data.geo and torch.equal(part.annotations, graph.annotations)


# Refusals


def changed(**fields):
    data = photograph()
    for key, value in fields.items():
        data[key] = value
    return data


WRONG = {
    "no image": (lambda: Data(mask=torch.zeros(2, 2)), ValueError, r"\['mask'\], expected a field image"),
    "no data": (lambda: photograph().image, TypeError, "got Tensor, expected .*Data with a field image"),
    "numpy": (lambda: changed(image=photographs()["coffee"]), TypeError, "got ndarray for image"),
    "[H, W]": (lambda: changed(image=torch.zeros(36, 44)), ValueError, r"\[36, 44\] for image.*use image\[None\]"),
    "[1, C, H, W]": (lambda: changed(image=torch.zeros(1, 3, 36, 44)), ValueError, r"\[1, 3, 36, 44\] for image"),
    "empty": (lambda: Data(image=torch.zeros(3, 0, 5)), ValueError, r"\[3, 0, 5\] for image"),
    "no channel": (lambda: Data(image=torch.zeros(0, 4, 5)), ValueError, r"\[0, 4, 5\] for image"),
    "bool": (lambda: changed(image=torch.zeros(3, 36, 44) > 0), TypeError, "torch.bool for image"),
    "complex": (lambda: changed(image=torch.zeros(3, 36, 44) + 1j), TypeError, "complex64 for image"),
    "NaN": (
        lambda: changed(image=torch.full((3, 36, 44), math.nan)),
        ValueError,
        "4752 NaN or infinite values in image",
    ),
    "infinite": (lambda: changed(image=torch.full((3, 36, 44), -math.inf)), ValueError, "in image, expected finite"),
    "mask turned": (
        lambda: changed(mask=torch.zeros(44, 36, dtype=torch.long)),
        ValueError,
        r"\[44, 36\] for mask, expected \[36, 44\]",
    ),
    "mask [1, H, W]": (
        lambda: changed(mask=torch.zeros(1, 36, 44, dtype=torch.long)),
        ValueError,
        r"\[1, 36, 44\] for mask",
    ),
    "annotations [H, W]": (
        lambda: changed(annotations=torch.zeros(36, 44, dtype=torch.long)),
        ValueError,
        r"\[36, 44\] for annotations, expected \[\*, 36, 44\]",
    ),
    "annotations in float": (
        lambda: changed(annotations=torch.zeros(2, 36, 44)),
        TypeError,
        "float32 for annotations, expected an integer",
    ),
    "annotation -2": (
        lambda: changed(annotations=torch.full((2, 36, 44), -2)),
        ValueError,
        r"got id -2 in annotations, expected -1 \(none\) to 2147483647",
    ),
    "annotation too large": (
        lambda: changed(annotations=torch.full((2, 36, 44), 2**31)),
        ValueError,
        "got id 2147483648 in annotations",
    ),
    "mask in float": (lambda: changed(mask=torch.zeros(36, 44)), TypeError, "float32 for mask, expected an integer"),
    "mask in numpy": (lambda: changed(mask=np.zeros((36, 44), int)), TypeError, "ndarray for mask"),
    "label too large": (
        lambda: changed(mask=torch.full((36, 44), 7)),
        ValueError,
        "got label 7 in mask, expected 0 to 4.*ignore_index=255",
    ),
    "label below 0": (
        lambda: changed(mask=torch.full((36, 44), -1)),
        ValueError,
        "got label -1 in mask, expected 0 to 4",
    ),
    "valid in numbers": (
        lambda: changed(valid=torch.ones(36, 44)),
        TypeError,
        "float32 for valid, expected torch.bool",
    ),
    "valid turned": (lambda: changed(valid=torch.ones(44, 36) > 0), ValueError, r"\[44, 36\] for valid"),
    "segments in float": (
        lambda: changed(segments=torch.zeros(36, 44)),
        TypeError,
        "for segments, expected an integer",
    ),
    "instances turned": (
        lambda: changed(instances=torch.zeros(44, 36).long()),
        ValueError,
        r"\[44, 36\] for instances",
    ),
    "boundary turned": (lambda: changed(boundary=torch.zeros(44, 36)), ValueError, r"\[44, 36\] for boundary"),
    "a field of graphs": (lambda: changed(assignment=1), ValueError, "field 'assignment' in the input"),
    "pos": (lambda: changed(pos=torch.zeros(3, 2)), ValueError, "field 'pos' in the input"),
    "y beside a mask": (lambda: changed(y=torch.zeros(1)), ValueError, "field 'y' in the input"),
    "a property": (lambda: changed(num_pixels=3), ValueError, "field 'num_pixels' in the input"),
    "a method": (lambda: changed(purity=3), ValueError, "field 'purity' in the input"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("transform", ["grid", "slic", "knn", "instances", "hierarchy"])
def test_wrong_inputs_are_refused_by_name(transform, name):
    build, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        TRANSFORMS[transform](num_classes=K, ignore_index=255)(build())


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: ToPixelGrid(6), ValueError, "connectivity=6, expected one of 4, 8"),
        (lambda: ToPixelGrid(node_features=["std"]), ValueError, "node_features='std', expected one of 'mean'"),
        (lambda: ToPixelGrid(edge_features=["length"]), ValueError, "edge_features='length'"),
        (lambda: ToPixelGrid(node_features="mean"), TypeError, "the string 'mean' for node_features"),
        (lambda: ToPixelGrid(num_classes=0), ValueError, "num_classes=0"),
        (lambda: ToAffinityGraph([(0, 0)]), ValueError, "offset"),
        (lambda: ToAffinityGraph([(1, 2, 3)]), ValueError, "offset"),
        (lambda: ToAffinityGraph(edge_features=["size"]), ValueError, "edge_features='size'"),
        (lambda: ToSuperpixelRAG(0), ValueError, "num_segments=0"),
        (lambda: ToSuperpixelRAG(True), TypeError, "bool for num_segments"),
        (lambda: ToSuperpixelRAG(superpixels="slick"), ValueError, "superpixels='slick', expected one of 'slic'"),
        (lambda: ToSuperpixelRAG(superpixels="pixels"), ValueError, "superpixels='pixels'"),
        (lambda: ToSuperpixelRAG(9, "quickshift"), ValueError, "num_segments=9 for 'quickshift', expected None"),
        (lambda: ToSuperpixelRAG(9, "segments"), ValueError, "num_segments=9 for 'segments', expected None"),
        (lambda: ToSuperpixelRAG(9, three_by_three), ValueError, "num_segments=9 for a function, expected None"),
        (lambda: ToSuperpixelRAG(None, "segments", conectivity=8), TypeError, "conectivity"),
        (lambda: ToSuperpixelRAG(None, three_by_three, sigma=8), TypeError, "sigma"),
        (lambda: ToSuperpixelRAG(connectivity=6), ValueError, "connectivity=6"),
        (lambda: ToSuperpixelRAG(node_features=["colour"]), ValueError, "node_features='colour'"),
        (lambda: ToSuperpixelRAG(edge_features=["mean"]), ValueError, "edge_features='mean'"),
        (lambda: ToKNNGraph(0), ValueError, "k=0"),
        (lambda: ToKNNGraph(by="colour"), ValueError, "by='colour', expected one of 'position'"),
        (lambda: ToKNNGraph(by="both", node_features=()), ValueError, "by='both' without node_features"),
        (lambda: ToKNNGraph(sigma=0.0), ValueError, "sigma=0.0"),
        (lambda: ToKNNGraph(superpixels="pixels", node_features=["std"]), ValueError, "node_features='std'"),
        (lambda: ToKNNGraph(num_segments=5, superpixels="pixels"), ValueError, "num_segments=5 for 'pixels'"),
        (lambda: ToKNNGraph(edge_features=["length"]), ValueError, "edge_features='length'"),
        (lambda: ToInstanceGraph("voronoi"), ValueError, "edges='voronoi'"),
        (lambda: ToInstanceGraph("radius"), ValueError, "max_distance=None for edges='radius'"),
        (lambda: ToInstanceGraph(max_distance=-1.0), ValueError, "max_distance=-1.0"),
        (lambda: ToInstanceGraph("knn", 0), ValueError, "k=0"),
        (lambda: ToInstanceGraph(edge_features=["boundary_mean"]), ValueError, "edge_features='boundary_mean'"),
        (lambda: ToHierarchy(()), ValueError, "num_segments=()"),
        (lambda: ToHierarchy((5, 4)), ValueError, r"num_segments=\(5, 4\), expected .* do not fall"),
        (lambda: ToHierarchy((0, 4)), ValueError, "num_segments=0"),
        (lambda: ToHierarchy(superpixels="quickshift"), ValueError, "superpixels='quickshift'"),
        (lambda: ToHierarchy((2,), lambda image, count: image, sigma=3), TypeError, "sigma"),
        (lambda: ToPascalVOCSP(0), ValueError, "max_segments=0"),
    ],
)
def test_wrong_arguments_are_refused_at_once(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_map_that_is_asked_for_must_be_there():
    bare = Data(image=photograph().image)
    with pytest.raises(ValueError, match="got no segments in the input"):
        TRANSFORMS["segments"]()(bare)
    with pytest.raises(ValueError, match="got no instances in the input"):
        TRANSFORMS["instances"]()(bare)
    with pytest.raises(ValueError, match="got 1 channels in image, expected 3"):
        ToPascalVOCSP()(photograph("coins"))


# What comes along


@pytest.mark.parametrize("name", TRANSFORMS)
def test_other_fields_are_passed_on(name):
    data = photograph()
    data.weather, data.depth, data.tag = "rain", torch.ones(1, 4), torch.tensor([3])
    graph = TRANSFORMS[name](num_classes=K, ignore_index=255)(data)
    assert graph.weather == "rain" and torch.equal(graph.depth, data.depth) and graph.tag.item() == 3
    assert not {"image", "mask", "segments", "instances", "boundary"} & set(graph.keys())
    batch = Batch.from_data_list([graph, graph])
    assert batch.weather == ["rain", "rain"] and batch.tag.tolist() == [3, 3]


def test_pixels_are_kept_where_asked_for():
    data = photograph()
    assert "pixel_x" not in ToSuperpixelRAG(9)(data)
    graph = ToSuperpixelRAG(9, keep_pixels=True)(data)
    assert_close(graph.pixel_x.T.view(3, 36, 44), data.image / 255)
    assert_close(graph.pool(graph.pixel_x), graph.x[:, :3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_provenance(name):
    graph = TRANSFORMS[name](num_classes=K, ignore_index=255)(photograph())
    recipe = json.loads(graph.recipe)
    assert recipe["transform"] == type(TRANSFORMS[name]()).__name__
    assert recipe["graphseg"] == graphseg.__version__ and recipe["num_classes"] == K
    again = TRANSFORMS[name](num_classes=K, ignore_index=255)(photograph("coffee"))
    assert again.recipe == graph.recipe and again.recipe_hash == graph.recipe_hash
    assert graph.source == "astronaut" and again.source == "coffee"
    other = TRANSFORMS[name](num_classes=K, ignore_index=255, keep_pixels=True)(photograph())
    assert other.recipe_hash != graph.recipe_hash
    assert "0x" not in graph.recipe and "<" not in graph.recipe.replace("<lambda>", "")


CHANGES: dict[Any, list[dict[str, Any]]] = {
    ToPixelGrid: [{}, {"connectivity": 8}, {"node_features": ("mean",)}, {"edge_features": ("color_distance",)},
                  {"num_classes": 3}, {"ignore_index": 255}, {"keep_pixels": True}],
    ToAffinityGraph: [{}, {"offsets": [(0, 1)]}, {"offsets": [(1, 0)]}, {"edge_features": ()}],
    ToSuperpixelRAG: [{}, {"num_segments": 9}, {"superpixels": "watershed"}, {"superpixels": three_by_three},
                      {"superpixels": functools.partial(blocks, cells=3)},
                      {"superpixels": functools.partial(blocks, cells=4)},
                      {"compactness": 3.0}, {"compactness": 4.0}, {"exact": True}, {"connectivity": 8}],
    ToKNNGraph: [{}, {"k": 3}, {"by": "both"}, {"by": "features"}, {"position_weight": 2.0}, {"weighted": True},
                 {"sigma": 1.0}, {"superpixels": "pixels"}, {"num_segments": 7}],
    ToInstanceGraph: [{}, {"edges": "knn"}, {"k": 3}, {"max_distance": 4.0}, {"max_distance": 5.0}],
    ToHierarchy: [{}, {"num_segments": (3, 4)}, {"nested": False}, {"superpixels": "watershed"}, {"exact": True}],
    ToPascalVOCSP: [{}, {"max_segments": 3}, {"compactness": 10.0}, {"num_classes": 5}],
}  # fmt: skip


@pytest.mark.parametrize("cls", CHANGES)
def test_any_other_parameter_is_another_recipe(cls):
    recipes = [json.dumps(cls(**kwargs).recipe(), sort_keys=True) for kwargs in CHANGES[cls]]
    assert len(set(recipes)) == len(recipes)
    assert recipes == [json.dumps(cls(**kwargs).recipe(), sort_keys=True) for kwargs in CHANGES[cls]]
    assert not any("0x" in recipe for recipe in recipes)


def test_recipes_are_the_same_in_another_process(run_python):
    source = """
import functools, json
from graphseg.transforms import ToSuperpixelRAG
from tests.transforms.photos import Cells, blocks
cuts = [functools.partial(blocks, cells=3), Cells(3), Cells(4)]
print(json.dumps([ToSuperpixelRAG(superpixels=cut).recipe() for cut in cuts]))
"""
    cuts: list[Any] = [functools.partial(blocks, cells=3), Cells(3), Cells(4)]
    here = [ToSuperpixelRAG(superpixels=cut).recipe() for cut in cuts]
    assert json.loads(run_python("-c", source).stdout) == here
    assert here[1] != here[2]


def test_convert_dtype_covers_the_range():
    unit = torch.tensor([0.0, 1.0])
    assert convert_dtype(unit, torch.uint16).to(torch.int64).tolist() == [0, 65535]


def test_binary_masks():
    data = photograph()
    data.mask = data.image[0] > 128  # bool: no is 0, yes is 1
    graph = ToSuperpixelRAG(10)(data)
    assert graph.num_classes == 2 and graph.label_counts[:, 1].sum() == data.mask.sum()
    data.mask = data.mask.to(torch.uint8) * 255  # 255 is no class of two, and never left out unasked
    with pytest.raises(ValueError, match="got label 255 in mask, expected 0 to 1; is it ignore_index"):
        ToSuperpixelRAG(10, num_classes=2)(data)


def test_functions_that_hold_other_values_are_other_recipes():
    def cells(n):
        return lambda image: blocks(image, cells=n)

    few, many = ToSuperpixelRAG(superpixels=cells(2)), ToSuperpixelRAG(superpixels=cells(3))
    assert few(photograph()).recipe_hash == ToSuperpixelRAG(superpixels=cells(2))(photograph()).recipe_hash
    assert few(photograph()).recipe_hash != many(photograph()).recipe_hash


def test_channels_last_is_refused():
    with pytest.raises(ValueError, match=r"looks like \[H, W, C\]; expected \[C, H, W\]"):
        ToSuperpixelRAG(10)(Data(image=torch.zeros(30, 40, 3)))


def test_histograms_of_values_outside_their_range_are_refused():
    with pytest.raises(ValueError, match=r"got values from 0 to 255 in image, expected \[0, 1\] for the histogram"):
        image = torch.linspace(0, 255, 400).view(1, 20, 20)
        ToSuperpixelRAG(10, node_features=("histogram",))(Data(image=image))
