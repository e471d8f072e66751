"""The papers' networks, one paper per file, and the parts that they are made of."""

from graphseg.models.affinity_instances import AffinityInstances, AffinityOutput
from graphseg.models.cdgcnet import CDGCNet
from graphseg.models.es_crf import ESCRFNet, NonLocalBlock
from graphseg.models.heads import ASPP, AuxiliaryHead, DeepLabV3Head, DeepLabV3PlusHead, PSPHead
from graphseg.models.msp import MSPNet
from graphseg.models.resnet import ResNet, load_backbone_weights, resnet18, resnet34, resnet50, resnet101
from graphseg.models.segmentation import Segmentation, SegmentationNetwork
from graphseg.models.sgseg import SPNN, SegmentationCNN, SGSeg, SGSegOutput, SuperpixelGNN

__all__ = [
    "ASPP",
    "SPNN",
    "AffinityInstances",
    "AffinityOutput",
    "AuxiliaryHead",
    "CDGCNet",
    "DeepLabV3Head",
    "DeepLabV3PlusHead",
    "ESCRFNet",
    "MSPNet",
    "NonLocalBlock",
    "PSPHead",
    "ResNet",
    "SGSeg",
    "SGSegOutput",
    "Segmentation",
    "SegmentationCNN",
    "SegmentationNetwork",
    "SuperpixelGNN",
    "load_backbone_weights",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
]
