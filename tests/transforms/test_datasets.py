"""Every construction on images of public data sets, where they are at hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from graphseg.transforms import ToAffinityGraph, ToHierarchy, ToKNNGraph, ToPixelGrid, ToSuperpixelRAG
from tests.transforms.photos import read_image, read_rows, to_tensor

SETS = {"camvid": (12, 11), "msrc21": (24, 0), "sentinel2_rgbnir": (4, 255), "isbi2012_em": (2, None)}
IMAGES = 2

CONVERSIONS = {
    "superpixels": lambda **kw: ToSuperpixelRAG(150, keep_pixels=True, **kw),
    "superpixels, watershed": lambda **kw: ToSuperpixelRAG(150, "watershed", **kw),
    "pixels": lambda **kw: ToPixelGrid(**kw),
    "neighbours": lambda **kw: ToKNNGraph(6, "both", 150, weighted=True, **kw),
    "hierarchy": lambda **kw: ToHierarchy((20, 80), **kw),
}


def read(folder, name):
    """Images of one data set with their masks."""
    for row in read_rows(folder, name, IMAGES):
        image = read_image(row[0])
        if name == "sentinel2_rgbnir":
            image, mask = np.dstack([image, read_image(row[1])]), read_image(row[2])
        elif name == "isbi2012_em":
            mask = read_image(row[1]) // 255
        else:
            mask = read_image(row[1])
        yield Data(image=to_tensor(image), mask=torch.from_numpy(mask.astype(np.int64)), source=row[0].stem)


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_real_images(name, conversion, shared_data):
    num_classes, ignore_index = SETS[name]
    transform = CONVERSIONS[conversion](num_classes=num_classes, ignore_index=ignore_index)
    graphs = []
    for data in read(shared_data, name):
        graph = transform(data)
        assert graph.validate() and graph.num_nodes > 20
        assert all(graph[key].isfinite().all() for key in ("x", "pos", "edge_attr") if key in graph)
        labels = data.mask.flatten() if ignore_index is None else data.mask[data.mask != ignore_index]
        majority = torch.bincount(labels).max().item() / labels.numel()
        scores = graph.oracle()
        assert majority <= scores["pixel_accuracy"] <= 1 and 0 < scores["mean_iou"] <= 1
        if conversion.startswith("superpixels") and name != "isbi2012_em":  # its membranes are thinner than they
            assert scores["pixel_accuracy"] > 0.85
        shown = graph.project(graph.y, fill=-1).flatten()
        counted = (
            torch.ones_like(shown, dtype=torch.bool) if ignore_index is None else data.mask.flatten() != ignore_index
        )
        hits = (shown == data.mask.flatten())[counted]
        assert hits.double().mean().item() == pytest.approx(scores["pixel_accuracy"])
        graphs.append(graph)
    batch = Batch.from_data_list(graphs)
    assert batch.validate() and len(batch.project(batch.pos)) == IMAGES


def test_cells_of_electron_microscopy_as_an_affinity_graph(shared_data):
    for image_path, _, label_path, *_ in read_rows(shared_data, "isbi2012_em", 1):
        crop = slice(100, 228)
        data = Data(
            image=to_tensor(read_image(image_path)[crop, crop]),
            instances=torch.from_numpy(read_image(label_path)[crop, crop].astype(np.int64)),
        )
        graph = ToAffinityGraph()(data)
        assert graph.validate() and 0.5 < graph.edge_y.mean() < 1
        cells = data.instances.flatten() != 0
        inside = cells[graph.edge_index].all(0)
        assert graph.edge_y[~inside].eq(0).all()
        darker = graph.x[graph.edge_index, 0].amin(0)  # membranes are dark, and cut
        assert darker[graph.edge_y == 0].mean() < darker[graph.edge_y == 1].mean()
