"""The five papers' operators as layers, one paper per file; pure tensors, no graph format."""

from graphseg.nn.affinity import (
    AffinityHead,
    SemanticRefinement,
    affinity_edges,
    affinity_targets,
    edge_affinity,
    edge_targets,
    modified_sigmoid,
)
from graphseg.nn.class_wise_gcn import ClassWiseGraphConv
from graphseg.nn.diff_gcn import DGCNNBlock, DiffGCNConv, DynamicDiffGCNConv, PointNetBlock
from graphseg.nn.instances import InstanceSegmenter, refine_classes, segment_instances
from graphseg.nn.raster_conv import NUM_ORDERINGS, RasterConv2d, RasterResidualBlock, draw_orderings
from graphseg.nn.superpixel_crf import EmbeddedSuperpixelCRF, MeanFieldCRF
from graphseg.nn.superpixel_mean import MultiscaleSuperpixelMean, SuperpixelMean

__all__ = [
    "NUM_ORDERINGS",
    "AffinityHead",
    "ClassWiseGraphConv",
    "DGCNNBlock",
    "DiffGCNConv",
    "DynamicDiffGCNConv",
    "EmbeddedSuperpixelCRF",
    "InstanceSegmenter",
    "MeanFieldCRF",
    "MultiscaleSuperpixelMean",
    "PointNetBlock",
    "RasterConv2d",
    "RasterResidualBlock",
    "SemanticRefinement",
    "SuperpixelMean",
    "affinity_edges",
    "affinity_targets",
    "draw_orderings",
    "edge_affinity",
    "edge_targets",
    "modified_sigmoid",
    "refine_classes",
    "segment_instances",
]
