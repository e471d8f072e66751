"""CDGCNet on Cityscapes: ResNet-101, ASPP and class-wise dynamic graph convolution.

Paper: Hu, Ji, Gan, Bai, Wu, Yan, "Class-wise Dynamic Graph Convolution for Semantic Segmentation".
Section 4.2: ResNet-101 pretrained on ImageNet, output stride 8; SGD with momentum 0.9, weight decay 5e-4, learning rate
0.01 with poly 0.9; crops of 769 x 769, batches of 8, 30,000 steps; weights of the losses 0.6, 0.7, 0.4. Table 3:
dynamic sampling with ratio 1.0, concatenation.
The paper leaves open: augmentation (scales 0.5 to 2 and flips here, as is usual), the hard pixels of the refined loss.
"""

from __future__ import annotations

from graphseg.training.recipe import Recipe
from graphseg.training.recipes._small import RESNET, small

RECIPE = Recipe(
    name="cdgcnet_cityscapes",
    network="CDGCNet",
    dataset="cityscapes",
    options={"backbone": "resnet101", "graph": "dynamic", "ratio": 1.0, "fusion": "concat"},
    crop=(769, 769),
    scale=(0.5, 2.0),
    batch_size=8,
    max_steps=30_000,
    optimizer="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="poly",
    power=0.9,
    source="CDGCNet, section 4.2 and Table 3",
)
SMALL = small(RECIPE, {**RESNET, "min_kept": 1000})
