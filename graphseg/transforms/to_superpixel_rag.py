"""Superpixels as nodes, joined where they touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from graphseg._checks import check_choice
from graphseg.data.image_graph import ImageGraph
from graphseg.transforms._base import ImageInput, ImageTransform
from graphseg.transforms.features import NODE_FEATURES, RAG_EDGE_FEATURES, check_features, rag, region_nodes
from graphseg.transforms.superpixels import Cut, check_superpixels, cut_input

__all__ = ["ToSuperpixelRAG"]


class ToSuperpixelRAG(ImageTransform):
    """The region adjacency graph of superpixels.

    Args:
        num_segments: about how many superpixels, for "slic", "grid", "slic_skimage" and "watershed" (default 200;
            exactly so many with `exact=True` for "slic"); None for the others.
        superpixels: "slic" (`graphseg.ops.slic`) or "grid" (`graphseg.ops.regular_grid`); scikit-image's
            "slic_skimage", "felzenszwalb", "quickshift" or "watershed"; "segments" for the input's own label map (any
            integers; each value is one region); or a function from the image `[H, W, C]` (floating-point numpy) to
            labels `[H, W]`.
        node_features: see `graphseg.transforms.features`.
        edge_features: likewise.
        connectivity: 4 or 8, of the adjacency.
        num_classes: K of the mask. Default: its largest label + 1, which differs between images; give it to batch.
        ignore_index: mask value that counts for no class; None if there is none.
        keep_pixels: keep the image as `pixel_x`.
        **parameters: of the superpixel method, by its own names (`compactness`, `exact`, `scale`, ...).

    Raises:
        ValueError, TypeError: for unknown names, or an input that does not fit (see `ImageTransform`).
    """

    def __init__(
        self,
        num_segments: int | None = None,
        superpixels: str | Cut = "slic",
        node_features: Sequence[str] = ("mean", "std", "centroid", "area"),
        edge_features: Sequence[str] = ("color_distance", "length"),
        *,
        connectivity: int = 4,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        keep_pixels: bool = False,
        **parameters: Any,
    ) -> None:
        check_superpixels(superpixels, num_segments, parameters)
        check_choice("connectivity", connectivity, (4, 8))
        check_features("node_features", node_features, NODE_FEATURES)
        check_features("edge_features", edge_features, RAG_EDGE_FEATURES)
        super().__init__(node_features, edge_features, num_classes, ignore_index, keep_pixels)
        self.num_segments = num_segments
        self.superpixels = superpixels
        self.connectivity = connectivity
        self.parameters = parameters

    def cut(self, inputs: ImageInput) -> Tensor:
        """The regions of one image: labels `[H, W]`, consecutive from 0 over valid pixels."""
        return cut_input(inputs, self.superpixels, self.num_segments, self.parameters)

    def convert(self, inputs: ImageInput) -> ImageGraph:
        labels = self.cut(inputs)
        graph, nodes = region_graph(inputs, labels, inputs.valid, self.node_features)
        graph.edge_index, edge_attr = rag(inputs, labels, inputs.valid, nodes, self.connectivity, self.edge_features)
        if edge_attr is not None:
            graph.edge_attr = edge_attr
        return graph


def region_graph(
    inputs: ImageInput, labels: Tensor, valid: Tensor | None, node_names: Sequence[str]
) -> tuple[ImageGraph, dict[str, Tensor]]:
    """A graph of regions, still without edges, and what `region_nodes` found."""
    nodes = region_nodes(inputs, labels, valid, node_names)
    graph = ImageGraph(x=nodes["x"], pos=nodes["pos"], num_nodes=nodes["pos"].shape[0])
    graph.assignment = labels.reshape(-1)
    if valid is not None:
        graph.valid = valid.reshape(-1)
        graph.assignment = graph.assignment.where(graph.valid, 0)
    return graph, nodes
