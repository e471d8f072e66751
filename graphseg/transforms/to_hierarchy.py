"""Superpixels at several scales, and the maps between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_choice, check_positive_int
from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph
from graphseg.ops.superpixel import multiscale_slic
from graphseg.transforms._base import ImageInput, ImageTransform
from graphseg.transforms.features import NODE_FEATURES, RAG_EDGE_FEATURES, check_features, rag, region_nodes
from graphseg.transforms.superpixels import COUNTED, check_superpixels, cut_input, relabel_valid, slic_image

__all__ = ["ToHierarchy"]


class ToHierarchy(ImageTransform):
    """A `Hierarchy` of region adjacency graphs, coarse to fine.

    `Hierarchy.to_hetero()` gives it as PyG `HeteroData` with pixel and region nodes.

    Args:
        num_segments: about how many superpixels at each scale, coarse to fine; must not fall.
        nested: make every coarser region a union of finer ones. With "slic", neighbours merge, cheapest first, down
            to exactly the coarser count (`multiscale_slic`); otherwise each fine superpixel goes to the coarse one that
            holds most of it (the smaller id of two). False: every scale as it was cut.
        superpixels: "slic", "grid", "slic_skimage" or "watershed", or a function from the image `[H, W, C]` and a
            number of segments to labels `[H, W]`.
        node_features, edge_features, connectivity, num_classes, ignore_index, keep_pixels, parameters: as for
            `ToSuperpixelRAG`.

    Labels are counted at every level, so `purity` has all nodes.

    Raises:
        ValueError, TypeError: for unknown names, falling counts, or an input that does not fit (see `ImageTransform`).
    """

    def __init__(
        self,
        num_segments: Sequence[int] = (100, 200, 400),
        superpixels: str | Callable[[np.ndarray, int], np.ndarray] = "slic",
        node_features: Sequence[str] = ("mean", "std", "centroid", "area"),
        edge_features: Sequence[str] = ("color_distance", "length"),
        *,
        nested: bool = True,
        connectivity: int = 4,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        keep_pixels: bool = False,
        **parameters: Any,
    ) -> None:
        if not callable(superpixels):
            check_choice("superpixels", superpixels, COUNTED)
            check_superpixels(superpixels, None, parameters)
        elif parameters:
            raise TypeError(f"got unexpected arguments {sorted(parameters)}, expected none for a function")
        for count in num_segments:
            check_positive_int("num_segments", count)
        if not num_segments or list(num_segments) != sorted(num_segments):
            raise ValueError(f"got num_segments={tuple(num_segments)}, expected one count or more that do not fall")
        check_choice("connectivity", connectivity, (4, 8))
        check_features("node_features", node_features, NODE_FEATURES)
        check_features("edge_features", edge_features, RAG_EDGE_FEATURES)
        super().__init__(node_features, edge_features, num_classes, ignore_index, keep_pixels)
        self.num_segments = tuple(num_segments)
        self.superpixels = superpixels
        self.nested = nested
        self.connectivity = connectivity
        self.parameters = parameters

    def convert(self, inputs: ImageInput) -> ImageGraph:
        scales = self._scales(inputs)  # coarse to fine
        parents: list[Tensor] = []
        for level in range(len(scales) - 1, 0, -1):
            parent = majority_parent(scales[level], scales[level - 1], inputs.valid)
            if self.nested:
                union = parent[scales[level]] if parent.numel() else scales[level]  # no valid pixel, no region
                scales[level - 1] = relabel_valid(union, inputs.valid)
                parent = torch.unique(parent, return_inverse=True)[1]
            parents.insert(0, parent)
        return self._stack(inputs, scales, parents)

    def _scales(self, inputs: ImageInput) -> list[Tensor]:
        if self.superpixels == "slic":
            found = multiscale_slic(
                slic_image(inputs), self.num_segments, mask=inputs.valid, nested=self.nested, **self.parameters
            )
            return [labels.clamp_(min=0) for labels in found]
        return [self._cut(inputs, count) for count in self.num_segments]

    def _cut(self, inputs: ImageInput, count: int) -> Tensor:
        if not callable(self.superpixels):
            return cut_input(inputs, self.superpixels, count, self.parameters)
        method = self.superpixels
        return cut_input(inputs, lambda image: method(image, count), None, self.parameters)

    def _stack(self, inputs: ImageInput, scales: list[Tensor], parents: list[Tensor]) -> Hierarchy:
        nodes, edges, features = [], [], []
        for labels in scales:
            found = region_nodes(inputs, labels, inputs.valid, self.node_features)
            edge_index, edge_attr = rag(inputs, labels, inputs.valid, found, self.connectivity, self.edge_features)
            nodes.append(found)
            edges.append(edge_index)
            features.append(edge_attr)
        sizes = [found["pos"].shape[0] for found in nodes]
        starts = [sum(sizes[:level]) for level in range(len(sizes))]
        device = inputs.image.device
        graph = Hierarchy(
            x=torch.cat([found["x"] for found in nodes]),
            pos=torch.cat([found["pos"] for found in nodes]),
            edge_index=torch.cat([e + start for e, start in zip(edges, starts, strict=True)], 1),
            num_nodes=sum(sizes),
        )
        if self.edge_features:
            graph.edge_attr = torch.cat([f for f in features if f is not None])
        graph.level = torch.arange(len(sizes), device=device).repeat_interleave(torch.tensor(sizes, device=device))
        up = [torch.arange(sizes[0], device=device)]
        up += [parent + start for parent, start in zip(parents, starts[:-1], strict=True)]
        graph.parent = torch.cat(up)
        columns = [labels.reshape(-1) + start for labels, start in zip(scales, starts, strict=True)]
        graph.scale_assignment = torch.stack(columns, 1)  # [P, L]
        graph.level_sizes = torch.tensor([sizes], device=device)
        graph.valid = torch.ones_like(columns[0], dtype=torch.bool)
        if inputs.valid is not None:
            graph.valid = inputs.valid.reshape(-1)
            graph.scale_assignment = graph.scale_assignment.where(graph.valid[:, None], 0)
        graph.assignment = graph.scale_assignment[:, -1].contiguous()
        return graph


def majority_parent(fine: Tensor, coarse: Tensor, valid: Tensor | None) -> Tensor:
    """`[N]`: for each region of `fine` the region of `coarse` that holds most of its pixels; of equals the first."""
    a, b = (fine.reshape(-1), coarse.reshape(-1)) if valid is None else (fine[valid], coarse[valid])
    if a.numel() == 0:
        return a.new_zeros(0)
    M = int(b.max()) + 1
    pair, count = torch.unique(a * M + b, return_counts=True)
    order = torch.argsort(count, descending=True, stable=True)  # equal counts stay in the order of coarse ids
    order = order[torch.argsort(pair[order] // M, stable=True)]
    child = pair[order] // M
    first = torch.ones_like(child, dtype=torch.bool)
    first[1:] = child[1:] != child[:-1]
    return pair[order][first] % M
