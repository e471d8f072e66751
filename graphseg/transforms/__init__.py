"""Image to graph: transforms that turn `Data(image=, mask=)` into an `ImageGraph`, and augmentation before them."""

from graphseg.transforms._base import ImageInput, ImageTransform
from graphseg.transforms.augment import (
    ColorJitter,
    ImageAugmentation,
    RandomImageCrop,
    RandomImageFlip,
    RandomImageScale,
    RandomQuarterTurn,
    ResizeImage,
)
from graphseg.transforms.interop import from_networkx, from_skimage_rag, to_networkx, to_skimage_rag
from graphseg.transforms.lrgb import ToPascalVOCSP
from graphseg.transforms.superpixels import cut
from graphseg.transforms.to_affinity_graph import ToAffinityGraph
from graphseg.transforms.to_hierarchy import ToHierarchy
from graphseg.transforms.to_instance_graph import ToInstanceGraph
from graphseg.transforms.to_knn_graph import ToKNNGraph
from graphseg.transforms.to_pixel_grid import ToPixelGrid
from graphseg.transforms.to_superpixel_rag import ToSuperpixelRAG

__all__ = [
    "ColorJitter",
    "ImageAugmentation",
    "ImageInput",
    "ImageTransform",
    "RandomImageCrop",
    "RandomImageFlip",
    "RandomImageScale",
    "RandomQuarterTurn",
    "ResizeImage",
    "ToAffinityGraph",
    "ToHierarchy",
    "ToInstanceGraph",
    "ToKNNGraph",
    "ToPascalVOCSP",
    "ToPixelGrid",
    "ToSuperpixelRAG",
    "cut",
    "from_networkx",
    "from_skimage_rag",
    "to_networkx",
    "to_skimage_rag",
]
