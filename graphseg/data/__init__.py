"""Graphs that know their pixels."""

import torch
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr

from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph, _ImageStorage

# As PyG does with its own: graphs and datasets of them load with `weights_only=True`, which executes no code.
torch.serialization.add_safe_globals([ImageGraph, Hierarchy, _ImageStorage, DataEdgeAttr, DataTensorAttr])

__all__ = ["Hierarchy", "ImageGraph"]
