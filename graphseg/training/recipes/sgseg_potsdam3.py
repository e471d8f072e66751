"""SGSeg on Potsdam with 3 classes, in red, green, blue and infrared, without labels.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
As on Potsdam, with two other learning rates (Table 12).
"""

from __future__ import annotations

from graphseg.training.recipes._small import small_sgseg
from graphseg.training.recipes.sgseg_potsdam import RECIPE as POTSDAM

RECIPE = POTSDAM.but(
    name="sgseg_potsdam3",
    dataset_options={"classes": 3, "tile": 200},
    lr={"spnn": 5e-5, "gnn": 5e-4, "cnn": 5e-6},
)
SMALL = small_sgseg(RECIPE)
