"""SGSeg on COCO-Stuff with its 15 coarse classes of stuff, without labels.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Section 4.1: images resized to 128 x 128. Appendix A.2 and Table 12: Adam without weight decay, a learning rate for each
part, batches of 64, alpha, beta and eta (its gamma) 2, 5, 1; 200 superpixels, k = 20; 10 epochs of the superpixel
network alone, 18,480 steps of 118,287 images, then all together.
The paper leaves open: how long that lasts (20 epochs here), the schedule (none here), and the augmentation, that of
earlier work (flips and changes of colour here).
"""

from __future__ import annotations

from graphseg.training.recipe import Recipe
from graphseg.training.recipes._small import small_sgseg

RECIPE = Recipe(
    name="sgseg_coco_stuff",
    kind="unsupervised",
    network="SGSeg",
    dataset="coco_stuff",
    dataset_options={"classes": 15},
    options={"num_superpixels": 200, "gnn": "diff_gcn", "k": 20, "alpha": 2.0, "beta": 5.0, "eta": 1.0},
    resize=(128, 128),
    flip=0.5,
    jitter=0.2,
    batch_size=64,
    max_steps=55_440,
    optimizer="adam",
    lr={"spnn": 1e-5, "gnn": 5e-4, "cnn": 5e-6},
    weight_decay=0.0,
    schedule="constant",
    stages=(("spnn", 18_480), ("joint", 36_960)),
    source="SGSeg, section 4.1, appendix A.2 and Table 12",
)
SMALL = small_sgseg(RECIPE)
