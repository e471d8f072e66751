"""SGSeg on COCO-Stuff3: sky, plants, ground and other, without labels.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
As on COCO-Stuff, but another learning rate of the CNN (Table 12), 100 superpixels (appendix A.2) and four classes
(section 4.1).
"""

from __future__ import annotations

from graphseg.training.recipes._small import small_sgseg
from graphseg.training.recipes.sgseg_coco_stuff import RECIPE as COCO_STUFF

RECIPE = COCO_STUFF.but(
    name="sgseg_coco_stuff3",
    dataset_options={"classes": 4},
    options={"num_superpixels": 100},
    lr={"spnn": 1e-5, "gnn": 5e-4, "cnn": 5e-5},
)
SMALL = small_sgseg(RECIPE)
