"""What a result is worth: superpixels beside ground truth, beside the image, and by their own shape."""

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
    "achievable_segmentation_accuracy",
    "boundary_precision",
    "boundary_recall",
    "compactness",
    "count_error",
    "explained_variation",
    "num_superpixels",
    "size_regularity",
    "undersegmentation_error",
]
