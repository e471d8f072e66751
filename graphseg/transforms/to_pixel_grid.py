"""Every pixel a node, joined to its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphseg._checks import check_choice
from graphseg.data.image_graph import ImageGraph
from graphseg.ops.grid import grid_edges
from graphseg.transforms._base import ImageInput, ImageTransform
from graphseg.transforms.features import EDGE_FEATURES, PIXEL_FEATURES, check_features, edge_features, pixel_nodes

__all__ = ["ToPixelGrid"]


class ToPixelGrid(ImageTransform):
    """The pixel grid: node p is pixel p, edges join 4- or 8-neighbours in both directions.

    Args:
        connectivity: 4 or 8.
        node_features: of "mean" (the pixel's value) and "centroid"; see `graphseg.transforms.features`.
        edge_features: of "color_distance", "centroid_distance", "centroid_angle".
        num_classes: K of the mask. Default: its largest label + 1, which differs between images; give it to batch.
        ignore_index: mask value that counts for no class; None if there is none.
        keep_pixels: keep the image as `pixel_x`.

    Invalid pixels stay nodes without edges or labels, and `valid` is False for them.

    Raises:
        ValueError, TypeError: for unknown names, or an input that does not fit (see `ImageTransform`).
    """

    _over_pixels = True

    def __init__(
        self,
        connectivity: int = 4,
        node_features: Sequence[str] = ("mean", "centroid"),
        edge_features: Sequence[str] = (),
        *,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        keep_pixels: bool = False,
    ) -> None:
        check_choice("connectivity", connectivity, (4, 8))
        check_features("node_features", node_features, PIXEL_FEATURES)
        check_features("edge_features", edge_features, EDGE_FEATURES)
        super().__init__(node_features, edge_features, num_classes, ignore_index, keep_pixels)
        self.connectivity = connectivity

    def convert(self, inputs: ImageInput) -> ImageGraph:
        H, W = inputs.size
        edge_index = grid_edges(H, W, self.connectivity, directed=True, device=inputs.image.device)
        return pixel_graph(inputs, edge_index, self.node_features, self.edge_features)


def pixel_graph(
    inputs: ImageInput, edge_index: torch.Tensor, node_names: Sequence[str], edge_names: Sequence[str]
) -> ImageGraph:
    """The graph of all pixels with the given edges; those at invalid pixels are left out."""
    P = inputs.size[0] * inputs.size[1]
    valid = inputs.valid
    if valid is not None:
        valid = valid.flatten()
        edge_index = edge_index[:, valid[edge_index[0]] & valid[edge_index[1]]]
    nodes = pixel_nodes(inputs, node_names)
    graph = ImageGraph(x=nodes["x"], edge_index=edge_index, pos=nodes["pos"], num_nodes=P)
    if edge_names:
        graph.edge_attr = edge_features(edge_index, nodes, edge_names)
    assignment = torch.arange(P, device=inputs.image.device)
    if valid is not None:
        graph.valid = valid
        assignment = assignment.where(valid, 0)
    graph.assignment = assignment
    return graph
