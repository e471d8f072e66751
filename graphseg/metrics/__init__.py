"""What a result is worth: instances and superpixels beside ground truth; superpixels by themselves."""

from graphseg.metrics.instance import (
    AdaptedRandError,
    AveragePrecision,
    InstanceOverlaps,
    PanopticQuality,
    VariationOfInformation,
    adapted_rand_error,
    average_precision,
    instance_overlaps,
    panoptic_quality,
    variation_of_information,
)
from graphseg.metrics.superpixel import (
    achievable_segmentation_accuracy,
    boundary_precision,
    boundary_recall,
    compactness,
    count_error,
    explained_variation,
    num_superpixels,
    size_regularity,
    undersegmentation_error,
)

__all__ = [
    "AdaptedRandError",
    "AveragePrecision",
    "InstanceOverlaps",
    "PanopticQuality",
    "VariationOfInformation",
    "achievable_segmentation_accuracy",
    "adapted_rand_error",
    "average_precision",
    "boundary_precision",
    "boundary_recall",
    "compactness",
    "count_error",
    "explained_variation",
    "instance_overlaps",
    "num_superpixels",
    "panoptic_quality",
    "size_regularity",
    "undersegmentation_error",
    "variation_of_information",
]
