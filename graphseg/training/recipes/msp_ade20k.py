"""MSP on ADE20K: DeepLabV3+ with superpixel means of three scales.

Paper: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel".
Figures from the section "Implementation Details": ResNet-101 with output stride 8 and multi-grid, SGD with momentum 0.9
and weight decay 5e-4, learning rate 0.01 with poly 0.9, scales 0.5 to 2, flips; synchronised batch norm, which several
GPUs have on their own. Crops of 512 x 512, batches of 16, 80,000 steps. Counts
of superpixels from Table 1: 200 (SSP), and 200, 300, 400 (MSP).
The paper leaves open: the grid (1, 2, 4, as DeepLabV3), and where superpixels are cut; here from the augmented image.
"""

from __future__ import annotations

from graphseg.training.recipe import Recipe
from graphseg.training.recipes._small import RESNET, small

RECIPE = Recipe(
    name="msp_ade20k",
    network="MSPNet",
    dataset="ade20k",
    options={"backbone": "resnet101", "multi_grid": (1, 2, 4), "num_superpixels": (200, 300, 400)},
    crop=(512, 512),
    scale=(0.5, 2.0),
    batch_size=16,
    max_steps=80_000,
    optimizer="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="poly",
    power=0.9,
    source='MSP, "Implementation Details" and Table 1',
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": (40, 60, 80)})
