"""SGSeg on Potsdam with its 6 classes, in red, green, blue and infrared, without labels.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Section 4.1: images of 6000 x 6000 pixels are cut into tiles of 200 x 200. Appendix A.2 and Table 12: learning rates,
batches of 32, alpha, beta and eta 1, 5, 0.5; 100 superpixels. 10 epochs of the superpixel network are 6,750 steps of
the 21,600 tiles of the 24 labelled images.
The paper leaves open: what is open on COCO-Stuff too, and whether the 14 images of the test are learnt from.
"""

from __future__ import annotations

from graphseg.training.recipes._small import small_sgseg
from graphseg.training.recipes.sgseg_coco_stuff import RECIPE as COCO_STUFF

RECIPE = COCO_STUFF.but(
    name="sgseg_potsdam",
    dataset="potsdam",
    dataset_options={"classes": 6, "tile": 200},
    options={"num_superpixels": 100, "alpha": 1.0, "beta": 5.0, "eta": 0.5},
    resize=None,
    batch_size=32,
    max_steps=20_250,
    lr={"spnn": 5e-5, "gnn": 1e-4, "cnn": 1e-6},
    stages=(("spnn", 6_750), ("joint", 13_500)),
)
SMALL = small_sgseg(RECIPE)
