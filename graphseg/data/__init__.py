"""Graphs that know their pixels."""

import torch

from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph

# As PyG does with its own: a dataset of these loads with `weights_only=True`.
torch.serialization.add_safe_globals([ImageGraph, Hierarchy])

__all__ = ["Hierarchy", "ImageGraph"]
