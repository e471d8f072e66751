"""MSP on PASCAL VOC 2012.

Paper: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel".
As on ADE20K, but 40,000 steps ("Implementation Details"); 100 and 200 superpixels (Table 9).
The paper leaves open: which images; others of this kind train on the 10,582 of the split "trainaug".
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.msp_ade20k import RECIPE as ADE20K

RECIPE = ADE20K.but(
    name="msp_pascal_voc",
    dataset="pascal_voc",
    options={"num_superpixels": (100, 200)},
    max_steps=40_000,
    source='MSP, "Implementation Details" and Table 9',
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": (50, 100)})
