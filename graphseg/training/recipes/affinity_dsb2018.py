"""Affinities and instances of nuclei, which the paper does not use.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation".
Optimiser and schedule of Cityscapes; the rate falls as often, 8 times, in 4,000 steps. Fitted to 402 images of
256 x 256 and more with nuclei of some 20 pixels: crops of 256 x 256, batches of 16, the maps of stride 4 of DeepLabV3+,
distances up to 16, balanced classes of pairs, and no pairs inside the background (see `AffinityInstances`).
Affinities of balanced training seldom reach the paper's threshold of 0.97: edges merge from 0.5 and, the long ones,
from 0.2, which was best of ten pairs on held-out training images of the small variant.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.affinity_cityscapes import RECIPE as CITYSCAPES

RECIPE = CITYSCAPES.but(
    name="affinity_dsb2018",
    dataset="dsb2018",
    class_map=(),
    options={
        "backbone": "resnet50",
        "head": "deeplabv3plus",
        "output_stride": 8,
        "distances": (1, 2, 4, 8, 16),
        "background": "ignore",
        "balance": "channel",
        "calibrate": True,
        "merge": {"stages": [[1, 2, 4], [8, 16]], "thresholds": [0.5, 0.2], "roi_size": None, "min_size": 10},
    },
    crop=(256, 256),
    scale=(0.5, 2.0),
    batch_size=16,
    max_steps=4_000,
    step_size=500,
    source="Affinity derivation and graph merge, section 5.1, fitted to the set",
)
SMALL_MERGE = {"stages": [[1, 2, 4], [8]], "thresholds": [0.5, 0.2], "roi_size": None, "min_size": 10}
SMALL_OPTIONS = {**RESNET, "distances": (1, 2, 4, 8), "merge": SMALL_MERGE}
SMALL = small(RECIPE, SMALL_OPTIONS, resize=None, step_size=40)
