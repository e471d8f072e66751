"""Every pixel a node, joined to pixels at given offsets: the graph of affinity methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from graphseg.data.image_graph import ImageGraph
from graphseg.ops.grid import affinity_offsets, offset_edges
from graphseg.transforms._base import ImageInput, ImageTransform
from graphseg.transforms.features import EDGE_FEATURES, PIXEL_FEATURES, check_features
from graphseg.transforms.to_pixel_grid import pixel_graph

__all__ = ["ToAffinityGraph"]


class ToAffinityGraph(ImageTransform):
    """The affinity graph: node p is pixel p, edges join p and p + offset in both directions.

    With `instances` in the input the graph has `edge_y [E]` (float): 1 where both pixels lie in the same instance, 0
    elsewhere; the target of an affinity.

    Args:
        offsets: (dy, dx) pairs; an offset and its negative name the same edges. Default: the eight neighbours at
            distances 1, 2 and 4 (`graphseg.ops.affinity_offsets`).
        node_features, edge_features, num_classes, ignore_index, keep_pixels: as for `ToPixelGrid`.

    Source: "Affinity Derivation and Graph Merge for Instance Segmentation", Eq. (1)-(2).

    Raises:
        ValueError, TypeError: for offsets that are not two ints, unknown names, or an input that does not fit.
    """

    _over_pixels = True

    def __init__(
        self,
        offsets: Iterable[Sequence[int]] | None = None,
        node_features: Sequence[str] = ("mean", "centroid"),
        edge_features: Sequence[str] = ("color_distance",),
        *,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        keep_pixels: bool = False,
    ) -> None:
        check_features("node_features", node_features, PIXEL_FEATURES)
        check_features("edge_features", edge_features, EDGE_FEATURES)
        super().__init__(node_features, edge_features, num_classes, ignore_index, keep_pixels)
        self.offsets = affinity_offsets((1, 2, 4)) if offsets is None else [tuple(o) for o in offsets]
        offset_edges(1, 1, self.offsets)  # refuses bad offsets now, not at the first image

    def convert(self, inputs: ImageInput) -> ImageGraph:
        H, W = inputs.size
        edge_index = offset_edges(H, W, self.offsets, directed=True, device=inputs.image.device)
        graph = pixel_graph(inputs, edge_index, self.node_features, self.edge_features)
        if inputs.instances is not None:
            instance = inputs.instances.reshape(-1)[graph.edge_index]  # [2, E]
            graph.edge_y = ((instance[0] == instance[1]) & (instance[0] != 0)).to(torch.float32)
        return graph
