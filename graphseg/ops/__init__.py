"""Pure tensor functions on images, label maps and points: any device, batched, in a defined order."""

from graphseg.ops.grid import affinity_offsets, connectivity_offsets, grid_edges, offset_edges
from graphseg.ops.knn import knn_edges, radius_edges
from graphseg.ops.pooling import pool, project
from graphseg.ops.rag import boundary_statistics, edge_angle, edge_distance, rag_edges, relabel
from graphseg.ops.region import region_statistics

__all__ = [
    "affinity_offsets",
    "boundary_statistics",
    "connectivity_offsets",
    "edge_angle",
    "edge_distance",
    "grid_edges",
    "knn_edges",
    "offset_edges",
    "pool",
    "project",
    "radius_edges",
    "rag_edges",
    "region_statistics",
    "relabel",
]
