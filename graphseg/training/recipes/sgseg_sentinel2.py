"""SGSeg on satellite images in red, green, blue and infrared, which the paper does not use, without labels.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
The numbers of Potsdam3, whose images have four channels and three classes too. Fitted to 101 images of 256 x 256: crops
of 200 x 200, the size of the paper's tiles, in place of tiles, and 1,000 steps of the superpixel network, then 4,000.
"""

from __future__ import annotations

from graphseg.training.recipes._small import small_sgseg
from graphseg.training.recipes.sgseg_potsdam3 import RECIPE as POTSDAM3

RECIPE = POTSDAM3.but(
    name="sgseg_sentinel2",
    dataset="sentinel2",
    dataset_options={},
    crop=(200, 200),
    max_steps=5_000,
    stages=(("spnn", 1_000), ("joint", 4_000)),
    source="SGSeg, appendix A.2 and Table 12, fitted to the set",
)
SMALL = small_sgseg(RECIPE)
