"""MSP on CamVid, which the paper does not use.

Paper: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel".
The numbers of Cityscapes, also streets, where they carry over. Fitted to 367 images of 360 x 480: crops of 360 x 360,
and 10,000 steps, about as many passes over the images (218) as 80,000 steps are on Cityscapes (215).
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.msp_ade20k import RECIPE as ADE20K

RECIPE = ADE20K.but(
    name="msp_camvid",
    dataset="camvid",
    options={"num_superpixels": (100, 200)},
    crop=(360, 360),
    batch_size=8,
    max_steps=10_000,
    source='MSP, "Implementation Details" and Table 7, fitted to CamVid',
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": (50, 100)})
