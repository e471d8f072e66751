"""graphseg: images become graphs, graphs become segmentations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphseg.data.image_graph import ImageGraph

__version__ = "0.1.0"
__all__ = ["ImageGraph", "__version__"]


def __getattr__(name: str) -> Any:
    # Lazy: PyG takes seconds to import, and `graphseg.ops` does not need it.
    if name == "ImageGraph":
        from graphseg.data.image_graph import ImageGraph

        return ImageGraph
    raise AttributeError(f"module 'graphseg' has no attribute {name!r}")
