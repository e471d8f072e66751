"""Affinities and instances on Cityscapes: 8 classes of objects and background.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation".
Section 5.1: two ResNet-101 pretrained on ImageNet, output stride 16, crops of 513 x 513, SGD, learning rate 0.02, times
0.7 every 15,000 steps, batches of 16 on each of 4 GPUs, 120,000 steps of the instance branch. Section 3.3: 56 channels.
The paper leaves open: momentum and weight decay (0.9 and 1e-4 here), flips (here), and by how much areas are enlarged
(up to twice here).
Differs from the paper: both branches learn at once, on the finely labelled images, and from the start with 9 classes.
The paper trains the semantic branch in three steps of 100,000, first with 19 classes and coarse labels too, and leaves
out the unlabelled top and bottom of most images.
"""

from __future__ import annotations

from graphseg.training.recipe import Recipe
from graphseg.training.recipes._small import RESNET, small

RECIPE = Recipe(
    name="affinity_cityscapes",
    kind="instances",
    network="AffinityInstances",
    dataset="cityscapes",
    class_map=(*[0] * 11, 1, 2, 3, 4, 5, 6, 7, 8),  # person, rider, car, truck, bus, train, motorcycle, bicycle
    options={"backbone": "resnet101", "output_stride": 16, "distances": (1, 2, 4, 8, 16, 32, 64)},
    crop=(513, 513),
    scale=(1.0, 2.0),
    batch_size=64,
    max_steps=120_000,
    optimizer="sgd",
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="step",
    step_size=15_000,
    gamma=0.7,
    source="Affinity derivation and graph merge, sections 3.3 and 5.1",
)
SMALL = small(RECIPE, {**RESNET, "output_stride": 8, "distances": (1, 2, 4, 8)}, step_size=40)
