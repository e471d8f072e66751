"""CDGCNet on CamVid, which the paper does not use.

Paper: Hu, Ji, Gan, Bai, Wu, Yan, "Class-wise Dynamic Graph Convolution for Semantic Segmentation".
The numbers of Cityscapes, also streets, where they carry over. Fitted to 367 images of 360 x 480: crops of 360 x 360,
hard pixels in proportion, and 4,000 steps, about as many passes over the images (87) as 30,000 are on Cityscapes (81).
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.cdgcnet_cityscapes import RECIPE as CITYSCAPES

RECIPE = CITYSCAPES.but(
    name="cdgcnet_camvid",
    dataset="camvid",
    options={"min_kept": 20_000},
    crop=(360, 360),
    max_steps=4_000,
    source="CDGCNet, section 4.2, fitted to CamVid",
)
SMALL = small(RECIPE, {**RESNET, "min_kept": 1000})
