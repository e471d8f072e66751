"""CDGCNet on PASCAL VOC 2012.

Paper: Hu, Ji, Gan, Bai, Wu, Yan, "Class-wise Dynamic Graph Convolution for Semantic Segmentation".
As on Cityscapes, but learning rate 0.001, weight decay 1e-4, crops of 513 x 513, batches of 16 (section 4.2). The paper
trains on the 10,582 images of the split "trainaug" (section 4.1). `SMALL` starts from no trained weights and learns at
the rate of Cityscapes.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.cdgcnet_cityscapes import RECIPE as CITYSCAPES

RECIPE = CITYSCAPES.but(
    name="cdgcnet_pascal_voc",
    dataset="pascal_voc",
    crop=(513, 513),
    batch_size=16,
    lr=0.001,
    weight_decay=1e-4,
    source="CDGCNet, sections 4.1 and 4.2",
)
SMALL = small(RECIPE, {**RESNET, "min_kept": 1000}, lr=CITYSCAPES.lr)
