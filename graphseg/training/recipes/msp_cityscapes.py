"""MSP on Cityscapes.

Paper: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel".
As on ADE20K, but crops of 769 x 769 and batches of 8 ("Implementation Details"); 100 and 200 superpixels (Table 7).
The paper leaves open: of what image the superpixels are cut while training; here of the augmented crop.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.msp_ade20k import RECIPE as ADE20K

RECIPE = ADE20K.but(
    name="msp_cityscapes",
    dataset="cityscapes",
    options={"num_superpixels": (100, 200)},
    crop=(769, 769),
    batch_size=8,
    source='MSP, "Implementation Details" and Table 7',
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": (50, 100)})
