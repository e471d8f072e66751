"""ES-CRF on CamVid, which the paper does not use.

Paper: Zhu, Huang, Li, Wang, "ES-CRF: Embedded Superpixel CRF for Semantic Segmentation".
200 superpixels, as on ADE20K, whose images are the nearer in size. Crops, batches and steps as in `msp_camvid`.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.es_crf_ade20k import RECIPE as ADE20K

RECIPE = ADE20K.but(
    name="es_crf_camvid",
    dataset="camvid",
    options={"num_superpixels": 200},
    crop=(360, 360),
    batch_size=8,
    max_steps=10_000,
    source="ES-CRF, section 4.1, fitted to CamVid",
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": 60})
