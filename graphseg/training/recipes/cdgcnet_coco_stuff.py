"""CDGCNet on COCO-Stuff.

Paper: Hu, Ji, Gan, Bai, Wu, Yan, "Class-wise Dynamic Graph Convolution for Semantic Segmentation".
As on Cityscapes, but learning rate 0.001, weight decay 1e-4, crops of 520 x 520, batches of 16, 60,000 steps (section
4.2). The paper trains on the 9,000 images of COCO-Stuff's first release: the reader takes their names as a list. It
says that there are 59 classes and background, which is PASCAL Context; COCO-Stuff has 171. `SMALL` starts from no
trained weights and learns at the rate of Cityscapes.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.cdgcnet_cityscapes import RECIPE as CITYSCAPES

RECIPE = CITYSCAPES.but(
    name="cdgcnet_coco_stuff",
    dataset="coco_stuff",
    dataset_options={"classes": 171},
    crop=(520, 520),
    batch_size=16,
    max_steps=60_000,
    lr=0.001,
    weight_decay=1e-4,
    source="CDGCNet, sections 4.1 and 4.2",
)
SMALL = small(RECIPE, {**RESNET, "min_kept": 1000}, lr=CITYSCAPES.lr)
