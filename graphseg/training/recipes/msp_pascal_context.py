"""MSP on PASCAL Context.

Paper: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel".
As on ADE20K, but crops of 480 x 480 ("Implementation Details"); 100 and 200 superpixels (Table 10).
The paper leaves open: how many classes; 60 here, with the background, which the base's figure in Table 10 fits.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.msp_ade20k import RECIPE as ADE20K

RECIPE = ADE20K.but(
    name="msp_pascal_context",
    dataset="pascal_context",
    options={"num_superpixels": (100, 200)},
    dataset_options={"classes": 60},
    crop=(480, 480),
    source='MSP, "Implementation Details" and Table 10',
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": (50, 100)})
