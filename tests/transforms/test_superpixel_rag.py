"""Superpixels as nodes: their features, their adjacency, and the ways to cut an image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.filters import sobel
from skimage.measure import regionprops
from skimage.segmentation import felzenszwalb, quickshift, slic
from torch.testing import assert_close
from torch_geometric.data import Data

from graphseg.ops import regular_grid
from graphseg.ops import slic as graphseg_slic
from graphseg.transforms import ToHierarchy, ToKNNGraph, ToSuperpixelRAG, cut
from graphseg.transforms.features import NODE_FEATURES, RAG_EDGE_FEATURES, gradient_magnitude
from tests.label_maps import DEGENERATE, consecutive
from tests.reference import image_graph as loops
from tests.reference import rag as reference
from tests.transforms.photos import photograph, photographs, read_image, sample, three_by_three, to_tensor


def convert(segments, image=None, valid=None, **kwargs):
    """The graph of a label map, of a random image unless one is given."""
    segments = torch.from_numpy(np.ascontiguousarray(segments))
    if image is None:
        image = torch.rand(3, *segments.shape, generator=torch.Generator().manual_seed(0))
    data = Data(image=image, segments=segments)
    if valid is not None:
        data.valid = torch.from_numpy(valid)
    return ToSuperpixelRAG(superpixels="segments", **kwargs)(data)


# Nodes


@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
def test_node_features_are_those_of_regionprops(photo):
    image = photographs()[photo]
    H, W = image.shape[:2]
    labels = consecutive(slic(image, 30, compactness=5))
    rows = []
    for region in regionprops(labels + 1, image / 255):
        values = (image / 255)[labels == region.label - 1]  # [n, 3]
        hist = [np.histogram(v * 255, 8, (0, 256))[0] / len(v) for v in values.T]
        top, left, bottom, right = region.bbox
        rows.append(
            [
                *values.mean(0), *values.std(0), *values.min(0), *values.max(0), *np.concatenate(hist),
                (region.centroid[1] + 0.5) / W, (region.centroid[0] + 0.5) / H, region.area / (H * W),
                left / W, top / H, right / W, bottom / H, region.perimeter / (2 * (H + W)),
                region.axis_major_length / math.hypot(H, W), region.axis_minor_length / math.hypot(H, W),
                region.orientation, region.eccentricity, *region.moments_hu,
            ]
        )  # fmt: skip
    graph = convert(labels, to_tensor(image), node_features=NODE_FEATURES)
    assert_close(graph.x, torch.tensor(rows, dtype=torch.float32), rtol=1e-4, atol=1e-4)
    centroids = [r.centroid[::-1] for r in regionprops(labels + 1)]
    assert_close(graph.pos, torch.tensor(centroids, dtype=torch.float32), rtol=1e-6, atol=1e-4)


def test_columns_come_in_the_order_of_the_names():
    data = photograph()
    widths = {"mean": 3, "std": 3, "min": 3, "max": 3, "histogram": 24, "bounding_box": 4, "axis_lengths": 2}
    widths |= {"hu": 7, "centroid": 2}
    alone = {name: ToSuperpixelRAG(20, node_features=[name])(data).x for name in NODE_FEATURES}
    for name, x in alone.items():
        assert x.shape[1] == widths.get(name, 1), name
    names = NODE_FEATURES[::-2]
    assert_close(ToSuperpixelRAG(20, node_features=names)(data).x, torch.cat([alone[n] for n in names], 1))
    assert ToSuperpixelRAG(20, node_features=())(data).x.shape[1] == 0
    edges = {name: ToSuperpixelRAG(20, edge_features=[name])(data).edge_attr for name in RAG_EDGE_FEATURES}
    order = RAG_EDGE_FEATURES[::-2]
    assert_close(ToSuperpixelRAG(20, edge_features=order)(data).edge_attr, torch.cat([edges[n] for n in order], 1))
    assert "edge_attr" not in ToSuperpixelRAG(20, edge_features=())(data)


def test_histograms_are_shares():
    for channels, dtype in ((1, torch.uint8), (4, torch.uint16), (3, torch.float32)):
        graph = ToSuperpixelRAG(9, node_features=["histogram"])(sample(20, 21, channels, dtype))
        assert_close(graph.x.view(graph.num_nodes, channels, 8).sum(2), torch.ones(graph.num_nodes, channels))


# Edges


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", DEGENERATE)
def test_edges_are_the_loop(name, connectivity):
    labels = DEGENERATE[name]
    for valid in (None, np.indices(labels.shape).sum(0) % 4 != 1):
        relabelled = labels if valid is None else labels.copy()
        if valid is not None and valid.any():
            relabelled[valid] = consecutive(labels[valid])
        graph = convert(labels, valid=valid, connectivity=connectivity, edge_features=["length"])
        want = reference.adjacency(relabelled, connectivity, valid=valid)
        pairs = list(zip(*graph.edge_index.tolist(), strict=True))
        assert pairs == loops.both_directions(want)
        assert graph.edge_attr[:, 0].tolist() == [len(want[min(p), max(p)]) for p in pairs]


@pytest.mark.parametrize("own", [False, True], ids=["sobel", "own map"])
def test_edge_features_are_the_loop(own):
    data = photograph("coffee")
    image = photographs()["coffee"]
    labels = consecutive(felzenszwalb(image, 30, min_size=10))
    data.segments = torch.from_numpy(labels)
    strength = sobel(rgb2gray(image))
    if own:
        strength = np.random.default_rng(0).random(labels.shape)
        data.boundary = torch.from_numpy(strength)
    graph = ToSuperpixelRAG(superpixels="segments", edge_features=RAG_EDGE_FEATURES)(data)
    found = reference.adjacency(labels, 4, strength)
    means = np.array([(image / 255)[labels == n].mean(0) for n in range(labels.max() + 1)])
    centroids = np.array([np.argwhere(labels == n).mean(0)[::-1] for n in range(labels.max() + 1)])
    rows = []
    for i, j in graph.edge_index.T.tolist():
        step = centroids[j] - centroids[i]
        values = found[min(i, j), max(i, j)]
        rows.append(
            [
                math.dist(means[i], means[j]), math.hypot(*step), math.atan2(step[1], step[0]), len(values),
                np.mean(values), np.std(values), *np.percentile(values, [10, 50, 90]),
            ]
        )  # fmt: skip
    assert_close(graph.edge_attr, torch.tensor(np.array(rows), dtype=torch.float32), rtol=1e-4, atol=1e-4)


def test_gradient_is_scikit_images_sobel():
    for photo in ("astronaut", "coffee", "coins"):
        image = photographs()[photo] / 255.0
        gray = rgb2gray(image) if image.ndim == 3 else image
        found = gradient_magnitude(to_tensor(image))
        assert_close(found, torch.from_numpy(sobel(gray)), rtol=1e-9, atol=1e-10)
    four = torch.rand(4, 9, 7, dtype=torch.float64)
    assert_close(gradient_magnitude(four), torch.from_numpy(sobel(four.mean(0).numpy())))
    for size in ((1, 1), (1, 5), (5, 1), (2, 2)):
        assert gradient_magnitude(torch.rand(3, *size)).shape == size


def test_nodata_has_no_gradient_of_its_own():
    image = torch.full((1, 6, 7), 0.5, dtype=torch.float64)
    valid = torch.rand(6, 7) < 0.6
    assert gradient_magnitude(image.where(valid, 0), valid)[valid].eq(0).all()
    ramp = torch.arange(7, dtype=torch.float64).expand(1, 6, 7)
    whole = gradient_magnitude(ramp)
    assert torch.equal(gradient_magnitude(ramp, torch.ones(6, 7, dtype=torch.bool)), whole)
    left = torch.arange(7).expand(6, 7) < 4
    assert torch.equal(gradient_magnitude(ramp.where(left, -99), left)[:, :3], whole[:, :3])
    assert (gradient_magnitude(ramp.where(left, -99), left)[:, 3] <= whole[:, 3]).all()


# Ways to cut


def test_the_methods_are_scikit_images():
    image = photographs()["astronaut"] / np.float32(255)
    found = {
        "slic_skimage": slic(image, 25, start_label=0),
        "felzenszwalb": felzenszwalb(image, scale=100, sigma=0.8, min_size=50),
        "quickshift": quickshift(image, kernel_size=3, max_dist=6, ratio=0.5, rng=0),
    }
    for name, labels in found.items():
        graph = ToSuperpixelRAG(25 if name == "slic_skimage" else None, name)(photograph())
        assert torch.equal(graph.assignment, torch.from_numpy(consecutive(labels)).flatten()), name


def test_slic_is_graphsegs_by_default():
    data = photograph()
    for parameters in ({}, {"exact": True}, {"adaptive": True, "compactness": 20.0}):
        graph = ToSuperpixelRAG(25, **parameters)(photograph())
        assert torch.equal(graph.assignment, graphseg_slic(data.image, 25, **parameters).flatten())
    assert ToSuperpixelRAG(25, exact=True)(photograph()).num_nodes == 25
    assert torch.equal(ToSuperpixelRAG(25, "grid")(photograph()).assignment, regular_grid(data.image, 25).flatten())


def test_floats_beyond_one_are_brought_to_the_unit_interval_as_a_whole():
    data = photograph()
    other = Data(image=data.image.double() * 3 - 100)
    low, high = data.image.min(), data.image.max()
    expected = graphseg_slic((data.image - low).double() / (high - low), 25)
    assert torch.equal(ToSuperpixelRAG(25)(other).assignment, expected.flatten())


CUTS = ["slic", "grid", "slic_skimage", "felzenszwalb", "quickshift", "watershed"]


@pytest.mark.parametrize("method", CUTS)
def test_cut_gives_what_the_transform_gives_in_the_form_of_the_images(method):
    image = photograph().image
    mask = torch.ones(image.shape[1:], dtype=torch.bool)
    mask[:4] = False
    one = cut(image, method=method)
    assert one.dtype == torch.int64 and one.shape == image.shape[1:]
    assert torch.equal(one.flatten(), ToSuperpixelRAG(None, method)(Data(image=image)).assignment)
    batch = cut(torch.stack([image, image.flip(1)]), method=method)
    assert torch.equal(batch[0], one) and torch.equal(batch[1], cut(image.flip(1), method=method))
    small = image[:, ::2, ::2].contiguous()
    listed = cut([image, small], method=method, mask=[mask, None])
    assert torch.equal(listed[0] < 0, ~mask) and torch.equal(listed[1], cut(small, method=method))
    found = torch.unique(listed[0][mask])
    assert torch.equal(found, torch.arange(len(found)))


def test_cut_refuses_what_a_method_does_not_take():
    image = photograph().image
    with pytest.raises(ValueError, match="method='seeds', expected one of 'slic'"):
        cut(image, method="seeds")
    with pytest.raises(ValueError, match="num_segments=9 for 'quickshift', expected None"):
        cut(image, 9, "quickshift")
    with pytest.raises(TypeError, match="unexpected arguments \\['scale'\\] for superpixels='slic'"):
        cut(image, scale=3)
    with pytest.raises(ValueError, match="volumes for method='watershed'"):
        cut(image[None, :, None], 9, "watershed")
    counts = cut(torch.stack([image, image]), [9, 30], exact=True)
    assert counts.amax((1, 2)).tolist() == [8, 29]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("slic", {"compactness": 1.0}),
        ("slic_skimage", {"compactness": 1.0}),
        ("felzenszwalb", {"scale": 10.0}),
        ("quickshift", {"max_dist": 2.0}),
        ("watershed", {"compactness": 0.1}),
    ],
)
def test_parameters_go_to_the_method(method, parameters):
    plain = ToSuperpixelRAG(None, method)(photograph())
    other = ToSuperpixelRAG(None, method, **parameters)(photograph())
    assert not torch.equal(plain.assignment, other.assignment)
    with pytest.raises(TypeError, match="compactnes_"):
        ToSuperpixelRAG(None, method, compactnes_=3)(photograph())


@pytest.mark.parametrize("method", ["slic", "grid", "slic_skimage", "watershed"])
def test_the_number_of_superpixels_is_about_what_was_asked_for(method):
    for count in (4, 20, 60):
        found = ToSuperpixelRAG(count, method)(photograph()).num_nodes
        assert count / 2 <= found <= 2 * count


@pytest.mark.parametrize("method", ["slic", "slic_skimage", "felzenszwalb", "quickshift", "watershed"])
def test_superpixels_are_better_than_one_and_follow_the_image(method):
    graph = ToSuperpixelRAG(None, method)(photograph())
    pixels = to_tensor(photographs()["astronaut"]).double() / 255
    left = (pixels - graph.project(graph.x[:, :3].double())).square().mean()
    assert left < 0.35 * (pixels - pixels.mean((1, 2), keepdim=True)).square().mean()


@pytest.mark.parametrize("method", ["slic", "slic_skimage", "watershed"])
def test_masked_superpixels_reach_every_valid_pixel_and_none_else(method):
    data = photograph()
    y, x = np.indices(data.mask.shape)
    islands = (y // 6 + x // 6) % 2 == 0  # squares that touch at corners only
    data.valid = torch.from_numpy(islands)
    graph = ToSuperpixelRAG(5, method)(data)
    assert graph.validate() and torch.equal(graph.valid, data.valid.flatten())
    if method == "watershed":  # an island without a marker is a superpixel of its own
        corner = graph.assignment.view(data.mask.shape)
        assert graph.num_nodes >= islands[::6, ::6].sum()
        for top in range(0, 36, 6):
            for left in range(0, 42, 6):
                if islands[top, left]:
                    ids = set(corner[top : top + 6, left : left + 6].flatten().tolist())
                    outside = graph.valid.view(data.mask.shape).clone()
                    outside[top : top + 6, left : left + 6] = False
                    assert not ids & set(corner[outside].tolist())


def test_a_label_map_of_ones_own_with_any_ids():
    labels = np.array([[7, 7, -3], [7, 10**12, -3], [0, 10**12, 10**12]])
    graph = convert(labels)
    assert graph.assignment.view(3, 3).tolist() == [[2, 2, 0], [2, 3, 0], [1, 3, 3]]  # in the order of the ids
    for dtype in (np.uint8, np.int8, np.int16, np.int32):
        other = convert(labels.clip(-100, 100).astype(dtype)) if dtype != np.uint8 else None
        assert other is None or torch.equal(other.assignment, graph.assignment)
    pieces = convert(np.array([[4, 9, 4]]))
    assert pieces.num_nodes == 2  # a value is one region, in however many pieces


def test_labels_come_from_a_function():
    seen = []

    def cut(image):
        seen.append(image)
        return three_by_three(image).astype(np.uint16) + 40

    data = sample(9, 12, 4, torch.uint16)
    graph = ToSuperpixelRAG(superpixels=cut)(data)
    assert seen[0].shape == (9, 12, 4) and seen[0].dtype == np.float32 and seen[0].max() <= 1
    assert graph.num_nodes == 9
    assert torch.equal(graph.assignment, torch.from_numpy(three_by_three(seen[0])).flatten())
    same = ToKNNGraph(2, superpixels=three_by_three)(data)
    assert torch.equal(same.x, graph.x)
    levels = ToHierarchy((2, 3), lambda image, count: np.indices(image.shape[:2])[1] % count)(data)
    assert levels.level_sizes.tolist()[0][1] == 3


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros((3, 3), int), ValueError, r"\[3, 3\] for labels of superpixels, expected \[36, 44\]"),
        (np.zeros((36, 44, 1), int), ValueError, "labels of superpixels"),
        (np.zeros((36, 44)), TypeError, "float64 for labels of superpixels"),
        (np.zeros((36, 44), bool), TypeError, "bool for labels of superpixels"),
        (None, TypeError, "labels of superpixels"),
    ],
)
def test_wrong_labels_of_a_function_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        ToSuperpixelRAG(superpixels=lambda image: labels)(photograph())


def test_segments_read_from_an_indexed_picture(tmp_path):
    from PIL import Image

    Image.fromarray(three_by_three(photographs()["coins"]).astype(np.uint8)).save(tmp_path / "map.png")
    segments = read_image(tmp_path / "map.png")
    assert convert(segments, to_tensor(photographs()["coins"])).num_nodes == 9
