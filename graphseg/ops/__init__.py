"""Pure tensor functions on images, label maps and points: any device, batched, in a defined order."""

from graphseg.ops.color import rgb_to_lab
from graphseg.ops.grid import affinity_offsets, connectivity_offsets, grid_edges, offset_edges
from graphseg.ops.instance_map import (
    Instances,
    block_nodes,
    collect_instances,
    flip_affinities,
    instance_confidence,
    super_class_probability,
)
from graphseg.ops.knn import knn_edges, radius_edges
from graphseg.ops.merge import Agglomeration, agglomerate
from graphseg.ops.pooling import pool, project
from graphseg.ops.rag import boundary_statistics, edge_angle, edge_distance, rag_edges, relabel
from graphseg.ops.region import region_statistics
from graphseg.ops.roi import Rois, find_rois
from graphseg.ops.soft_superpixel import SoftSuperpixels, soft_slic
from graphseg.ops.superpixel import multiscale_slic, regular_grid, slic

__all__ = [
    "Agglomeration",
    "Instances",
    "Rois",
    "SoftSuperpixels",
    "affinity_offsets",
    "agglomerate",
    "block_nodes",
    "boundary_statistics",
    "collect_instances",
    "connectivity_offsets",
    "edge_angle",
    "edge_distance",
    "find_rois",
    "flip_affinities",
    "grid_edges",
    "instance_confidence",
    "knn_edges",
    "multiscale_slic",
    "offset_edges",
    "pool",
    "project",
    "radius_edges",
    "rag_edges",
    "region_statistics",
    "regular_grid",
    "relabel",
    "rgb_to_lab",
    "slic",
    "soft_slic",
    "super_class_probability",
]
