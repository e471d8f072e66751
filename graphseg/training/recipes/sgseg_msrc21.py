"""SGSeg on MSRC-21 with the classes sky, plants, ground and other, which the paper does not use, without labels.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
The numbers of COCO-Stuff3, and its classes: grass, trees and flowers are plants, roads are ground. Fitted to 274
images: 1,000 steps of the superpixel network, then 4,000.
"""

from __future__ import annotations

from graphseg.training.recipes._small import small_sgseg
from graphseg.training.recipes.sgseg_coco_stuff3 import RECIPE as COCO_STUFF3

RECIPE = COCO_STUFF3.but(
    name="sgseg_msrc21",
    dataset="msrc21",
    dataset_options={"classes": 21},
    # building, grass, tree, cow, sheep, sky, aeroplane | water, face, car, bicycle, flower, sign, bird | book, chair,
    # road, cat, dog, body, boat
    class_map=(3, 1, 1, 3, 3, 0, 3, 3, 3, 3, 3, 1, 3, 3, 3, 3, 2, 3, 3, 3, 3),
    max_steps=5_000,
    stages=(("spnn", 1_000), ("joint", 4_000)),
    source="SGSeg, section 4.1, appendix A.2 and Table 12, fitted to the set",
)
SMALL = small_sgseg(RECIPE)
