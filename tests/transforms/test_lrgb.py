"""Graphs in the form of PascalVOC-SP: the benchmark's features, and the labels it should have had."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data as pictures
from skimage.color import rgb2gray
from skimage.filters import sobel
from torch.testing import assert_close
from torch_geometric.data import Data

from graphseg.transforms import ToPascalVOCSP
from tests.reference import lrgb
from tests.reference import rag as loops
from tests.transforms.photos import photographs, read_image, read_rows, to_tensor


def labels_of(graph):
    return graph.assignment.view(graph.image_size[0].tolist()).numpy()


@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
@pytest.mark.parametrize("compactness", [10.0, 30.0])
def test_features_are_the_published_ones(photo, compactness):
    image = photographs()[photo]
    graph = ToPascalVOCSP(40, compactness)(Data(image=to_tensor(image)))
    labels = labels_of(graph)
    assert graph.num_nodes == labels.max() + 1 <= 40
    assert_close(graph.x, torch.tensor(lrgb.node_features(image, labels), dtype=torch.float32), rtol=1e-4, atol=1e-4)
    strength = sobel(rgb2gray(image))
    want = loops.adjacency(labels, 8, strength)
    pairs = list(zip(*graph.edge_index.tolist(), strict=True))
    assert {(i, j) for i, j in pairs if i < j} == set(want)
    rows = [[np.mean(want[min(p), max(p)]), len(want[min(p), max(p)])] for p in pairs]
    assert_close(graph.edge_attr, torch.tensor(rows, dtype=torch.float32), rtol=1e-4, atol=1e-5)


def test_five_hundred_superpixels_at_most():
    image = pictures.coffee()[::2, ::2][:, :300]
    graph = ToPascalVOCSP()(Data(image=to_tensor(image)))
    assert graph.validate() and 300 < graph.num_nodes <= 500
    assert graph.x.shape == (graph.num_nodes, 14)
    small = ToPascalVOCSP(7)(Data(image=to_tensor(image[:60, :60])))
    assert 1 < small.num_nodes <= 7


def test_a_bent_region_gets_its_own_label(monkeypatch):
    image = np.full((40, 40, 3), 30, np.uint8)
    y, x = np.indices((40, 40))
    ring = (np.hypot(y - 19.5, x - 19.5) > 11) & (np.hypot(y - 19.5, x - 19.5) < 17)
    image[ring] = (250, 40, 30)
    data = Data(image=to_tensor(image), mask=torch.from_numpy(ring.astype(np.int64)))
    transform = ToPascalVOCSP(2, 0.01)
    monkeypatch.setattr(transform, "cut", lambda inputs: torch.from_numpy(ring.astype(np.int64)))
    graph = transform(data)
    assert graph.y.tolist() == [0, 1] and graph.purity().tolist() == [1.0, 1.0]
    published = lrgb.centroid_labels(ring.astype(int), labels_of(graph))
    assert published == [0, 0]  # the centre of the ring lies in its hole


def test_real_labels_are_the_majority_where_the_centroid_errs(shared_data):
    changed = 0
    for image_path, label_path, *_ in read_rows(shared_data, "msrc21", 2):
        image, mask = read_image(image_path), read_image(label_path)
        transform = ToPascalVOCSP(150, num_classes=24, ignore_index=0)
        graph = transform(Data(image=to_tensor(image), mask=torch.from_numpy(mask.astype(np.int64))))
        labels = labels_of(graph)
        assert graph.validate()
        assert graph.y.tolist() == lrgb.majority_labels(mask, labels, 0, -100)
        published = np.array(lrgb.centroid_labels(mask, labels))
        changed += int((published != graph.y.numpy()).sum())
        accuracy = graph.oracle()["pixel_accuracy"]
        theirs = (published[labels] == mask)[mask != 0].mean()
        assert theirs < accuracy
    assert changed > 0


def test_invalid_pixels_belong_to_no_node():
    data = Data(image=to_tensor(photographs()["astronaut"]), valid=torch.ones(36, 44, dtype=torch.bool))
    data.valid[:9] = False
    graph = ToPascalVOCSP(30)(data)
    assert graph.validate() and torch.equal(graph.valid, data.valid.flatten()) and graph.pos[:, 1].min() >= 9
