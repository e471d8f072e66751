"""What a result is worth: classes, instances and superpixels beside ground truth; superpixels by themselves.

`graphseg.metrics.streaming`, which needs torchmetrics, gathers them over batches and processes.
"""

from graphseg.metrics.boundary import BoundaryFScore, boundary_f_score
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
from graphseg.metrics.multiscale import multiscale_probabilities
from graphseg.metrics.semantic import (
    ClassWeightSimilarity,
    HungarianAccuracy,
    class_adjacency,
    class_iou,
    class_weight_similarity,
    confusion_matrix,
    frequency_weighted_iou,
    hungarian_accuracy,
    mean_iou,
    pixel_accuracy,
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
    "BoundaryFScore",
    "ClassWeightSimilarity",
    "HungarianAccuracy",
    "InstanceOverlaps",
    "PanopticQuality",
    "VariationOfInformation",
    "achievable_segmentation_accuracy",
    "adapted_rand_error",
    "average_precision",
    "boundary_f_score",
    "boundary_precision",
    "boundary_recall",
    "class_adjacency",
    "class_iou",
    "class_weight_similarity",
    "compactness",
    "confusion_matrix",
    "count_error",
    "explained_variation",
    "frequency_weighted_iou",
    "hungarian_accuracy",
    "instance_overlaps",
    "mean_iou",
    "multiscale_probabilities",
    "num_superpixels",
    "panoptic_quality",
    "pixel_accuracy",
    "size_regularity",
    "undersegmentation_error",
    "variation_of_information",
]
