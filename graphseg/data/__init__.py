"""Graphs that know their pixels."""

from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph

__all__ = ["Hierarchy", "ImageGraph"]
