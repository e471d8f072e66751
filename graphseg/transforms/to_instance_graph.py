"""Given instances (nuclei, cells, people) as nodes; the rest of the image belongs to no node."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_choice, check_positive_int
from graphseg.data.image_graph import ImageGraph
from graphseg.ops.knn import knn_edges, radius_edges
from graphseg.transforms._base import ImageInput, ImageTransform
from graphseg.transforms.features import EDGE_FEATURES, NODE_FEATURES, check_features, edge_features
from graphseg.transforms.superpixels import relabel_valid
from graphseg.transforms.to_knn_graph import undirected
from graphseg.transforms.to_superpixel_rag import region_graph

__all__ = ["ToInstanceGraph"]


class ToInstanceGraph(ImageTransform):
    """A graph of the input's `instances [H, W]`: 0 is background, every other value one instance.

    Nodes come in the order of the instance values. An image without instances gives a graph without nodes.

    Args:
        edges: "delaunay" (triangulation of the centroids), "knn" or "radius"; all in both directions.
        k: neighbours, for "knn".
        max_distance: in pixels; the radius for "radius", and the longest edge kept for the other two (None: all).
        node_features, edge_features: see `graphseg.transforms.features`; no boundary features.
        num_classes, ignore_index, keep_pixels: as for `ToSuperpixelRAG`; a node's `y` is its majority class.

    Raises:
        ValueError, TypeError: for unknown names, a missing radius, an input without instances or one that does not fit.
    """

    def __init__(
        self,
        edges: str = "delaunay",
        k: int = 5,
        max_distance: float | None = None,
        node_features: Sequence[str] = ("mean", "std", "area", "axis_lengths", "eccentricity"),
        edge_features: Sequence[str] = ("centroid_distance",),
        *,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        keep_pixels: bool = False,
    ) -> None:
        check_choice("edges", edges, ("delaunay", "knn", "radius"))
        check_positive_int("k", k)
        if edges == "radius" and max_distance is None:
            raise ValueError("got max_distance=None for edges='radius', expected the radius in pixels")
        if max_distance is not None and not max_distance > 0:
            raise ValueError(f"got max_distance={max_distance}, expected a positive number of pixels")
        check_features("node_features", node_features, NODE_FEATURES)
        check_features("edge_features", edge_features, EDGE_FEATURES)
        super().__init__(node_features, edge_features, num_classes, ignore_index, keep_pixels)
        self.edges = edges
        self.k = k
        self.max_distance = max_distance

    def convert(self, inputs: ImageInput) -> ImageGraph:
        if inputs.instances is None:
            raise ValueError("got no instances in the input, expected a map [H, W] with 0 for background")
        inside = inputs.instances != 0
        if inputs.valid is not None:
            inside &= inputs.valid
        labels = relabel_valid(inputs.instances, inside)
        graph, nodes = region_graph(inputs, labels, inside, self.node_features)
        graph.edge_index = self._edge_index(graph.pos)
        if self.edge_features:
            graph.edge_attr = edge_features(graph.edge_index, nodes, self.edge_features)
        return graph

    def _edge_index(self, pos: Tensor) -> Tensor:
        if self.edges == "radius":
            return undirected(radius_edges(pos, float(self.max_distance or 0)), pos.shape[0])
        found = delaunay_edges(pos) if self.edges == "delaunay" else knn_edges(pos, self.k)
        if self.max_distance is not None:
            step = (pos[found[0]] - pos[found[1]]).to(torch.float64)
            found = found[:, step.square().sum(1) <= self.max_distance**2]
        return undirected(found, pos.shape[0])


def delaunay_edges(pos: Tensor) -> Tensor:
    """Edges of the Delaunay triangulation of points `[N, 2]`: `[2, E]`, each pair at least once.

    Points on one line are joined in their order along it; a point that coincides with another is joined to that one.
    """
    from scipy.spatial import Delaunay, QhullError

    N = pos.shape[0]
    points = pos.detach().to(torch.float64).cpu()
    if N < 2:
        return torch.empty(2, 0, dtype=torch.int64, device=pos.device)
    try:
        found = Delaunay(points.numpy()) if N > 2 else None
    except QhullError:
        found = None
    if found is None:
        order = torch.from_numpy(np.lexsort((points[:, 1], points[:, 0])))  # along the line
        return torch.stack([order[:-1], order[1:]]).to(pos.device)
    triangles = torch.from_numpy(found.simplices).to(torch.int64)
    pairs = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    left_out = torch.from_numpy(found.coplanar).to(torch.int64)  # point, triangle, nearest vertex
    return torch.cat([pairs, left_out[:, [0, 2]]]).T.contiguous().to(pos.device)
