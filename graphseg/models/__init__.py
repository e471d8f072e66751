"""The papers' networks, one paper per file, and the parts that they are made of."""

from graphseg.models.cdgcnet import CDGCNet
from graphseg.models.es_crf import ESCRFNet
from graphseg.models.heads import ASPP, AuxiliaryHead, DeepLabV3Head, DeepLabV3PlusHead, PSPHead
from graphseg.models.msp import MSPNet
from graphseg.models.resnet import ResNet, load_backbone_weights, resnet18, resnet34, resnet50, resnet101
from graphseg.models.segmentation import Segmentation, SegmentationNetwork

__all__ = [
    "ASPP",
    "AuxiliaryHead",
    "CDGCNet",
    "DeepLabV3Head",
    "DeepLabV3PlusHead",
    "ESCRFNet",
    "MSPNet",
    "PSPHead",
    "ResNet",
    "Segmentation",
    "SegmentationNetwork",
    "load_backbone_weights",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
]
