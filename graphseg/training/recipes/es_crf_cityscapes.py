"""ES-CRF on Cityscapes.

Paper: Zhu, Huang, Li, Wang, "ES-CRF: Embedded Superpixel CRF for Semantic Segmentation".
600 superpixels (section 4.1). The rest is silent, see `es_crf_ade20k`, and as in the MSP paper on Cityscapes: crops of
769 x 769, batches of 8.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.es_crf_ade20k import RECIPE as ADE20K

RECIPE = ADE20K.but(
    name="es_crf_cityscapes",
    dataset="cityscapes",
    options={"num_superpixels": 600},
    crop=(769, 769),
    batch_size=8,
    source="ES-CRF, section 4.1; the training as in MSP",
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": 60})
