"""Pixels or superpixels as nodes, joined to their nearest neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphseg._checks import check_choice, check_positive_int
from graphseg.data.image_graph import ImageGraph
from graphseg.ops.knn import knn_edges
from graphseg.ops.rag import edge_distance
from graphseg.transforms._base import ImageInput, ImageTransform
from graphseg.transforms.features import EDGE_FEATURES, NODE_FEATURES, PIXEL_FEATURES, check_features, edge_features
from graphseg.transforms.superpixels import Cut, check_superpixels, cut_input
from graphseg.transforms.to_pixel_grid import pixel_graph
from graphseg.transforms.to_superpixel_rag import region_graph

__all__ = ["ToKNNGraph"]


class ToKNNGraph(ImageTransform):
    """The k-nearest-neighbour graph of superpixels or pixels, in both directions.

    An edge joins two nodes if either is among the other's k nearest (ties go to the smaller id). Distances are
    Euclidean, over one of
        "position": centroids, in pixels;
        "features": the node features `x`;
        "both": `[position_weight * centroid / image diagonal, x]`.

    Args:
        k: neighbours of each node.
        by: "position", "features" or "both".
        num_segments, superpixels, parameters: as for `ToSuperpixelRAG`; `superpixels="pixels"` makes every pixel a
            node.
        position_weight: for "both".
        weighted: give each edge `edge_weight = exp(-d^2 / (2 sigma^2))`, d its distance.
        sigma: in units of d; default: the root mean square of d over the graph's edges.
        node_features, edge_features: see `graphseg.transforms.features`; no boundary features.
        num_classes, ignore_index, keep_pixels: as for `ToSuperpixelRAG`.

    Raises:
        ValueError, TypeError: for unknown names, or an input that does not fit (see `ImageTransform`).
    """

    def __init__(
        self,
        k: int = 8,
        by: str = "position",
        num_segments: int | None = None,
        superpixels: str | Cut = "slic",
        node_features: Sequence[str] | None = None,
        edge_features: Sequence[str] = ("color_distance", "centroid_distance"),
        *,
        position_weight: float = 1.0,
        weighted: bool = False,
        sigma: float | None = None,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        keep_pixels: bool = False,
        **parameters: Any,
    ) -> None:
        check_positive_int("k", k)
        check_choice("by", by, ("position", "features", "both"))
        check_superpixels(superpixels, num_segments, parameters, ("segments", "pixels"))
        over_pixels = superpixels == "pixels"
        if node_features is None:
            node_features = ("mean", "centroid") if over_pixels else ("mean", "std", "centroid", "area")
        check_features("node_features", node_features, PIXEL_FEATURES if over_pixels else NODE_FEATURES)
        check_features("edge_features", edge_features, EDGE_FEATURES)
        if by != "position" and not node_features:
            raise ValueError(f"got by={by!r} without node_features, expected at least one")
        if sigma is not None and not sigma > 0:
            raise ValueError(f"got sigma={sigma}, expected a positive number")
        super().__init__(node_features, edge_features, num_classes, ignore_index, keep_pixels)
        self._over_pixels = over_pixels
        self.k = k
        self.by = by
        self.num_segments = num_segments
        self.superpixels = superpixels
        self.position_weight = position_weight
        self.weighted = weighted
        self.sigma = sigma
        self.parameters = parameters

    def convert(self, inputs: ImageInput) -> ImageGraph:
        if self._over_pixels:
            no_edges = torch.empty(2, 0, dtype=torch.int64, device=inputs.image.device)
            graph = pixel_graph(inputs, no_edges, self.node_features, ())
            nodes = {"color": inputs.unit_image().flatten(1).T, "pos": graph.pos}
        else:
            labels = cut_input(inputs, self.superpixels, self.num_segments, self.parameters)
            graph, nodes = region_graph(inputs, labels, inputs.valid, self.node_features)
        points = self._points(graph, inputs)
        graph.edge_index = self._neighbours(graph, points)
        if self.edge_features:
            graph.edge_attr = edge_features(graph.edge_index, nodes, self.edge_features)
        if self.weighted:
            graph.edge_weight = self._weights(points, graph.edge_index)
        return graph

    def _points(self, graph: ImageGraph, inputs: ImageInput) -> Tensor:
        if self.by == "position":
            return graph.pos
        if self.by == "features":
            return graph.x
        return torch.cat([graph.pos * (self.position_weight / math.hypot(*inputs.size)), graph.x], 1)

    def _neighbours(self, graph: ImageGraph, points: Tensor) -> Tensor:
        if not self._over_pixels or graph.get("valid") is None:
            return undirected(knn_edges(points, self.k), points.shape[0])
        ids = graph.valid.nonzero().squeeze(1)  # invalid pixels are nobody's neighbours
        return undirected(ids[knn_edges(points[ids], self.k)], points.shape[0])

    def _weights(self, points: Tensor, edge_index: Tensor) -> Tensor:
        square = edge_distance(points, edge_index).square()
        variance = self.sigma**2 if self.sigma is not None else (square.mean() if square.numel() else 1.0)
        variance = torch.as_tensor(variance, dtype=square.dtype, device=square.device)
        return torch.exp(-square / (2 * torch.where(variance > 0, variance, 1.0))).to(torch.float32)


def undirected(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Both directions of every pair that occurs, each once, in lexicographic order."""
    doubled = torch.cat([edge_index, edge_index.flip(0)], 1)
    key = torch.unique(doubled[0] * num_nodes + doubled[1])
    return torch.stack([key // max(num_nodes, 1), key % max(num_nodes, 1)])
