"""ES-CRF on ADE20K: DeepLabV3+ with the embedded superpixel CRF in front of its classifier.

Paper: Zhu, Huang, Li, Wang, "ES-CRF: Embedded Superpixel CRF for Semantic Segmentation".
Section 4.1: DeepLabV3+ with a ResNet pretrained on ImageNet, 200 superpixels by SLIC.
The paper leaves the training to an appendix that is not at hand, and says that it follows the usual settings. Here they
are those of the MSP paper on ADE20K: SGD, learning rate 0.01 with poly 0.9, momentum 0.9, weight decay 5e-4, crops of
512 x 512, batches of 16, 80,000 steps, scales 0.5 to 2, flips, output stride 8, multi-grid (1, 2, 4).
"""

from __future__ import annotations

from graphseg.training.recipe import Recipe
from graphseg.training.recipes._small import RESNET, small

RECIPE = Recipe(
    name="es_crf_ade20k",
    network="ESCRFNet",
    dataset="ade20k",
    options={"backbone": "resnet101", "multi_grid": (1, 2, 4), "num_superpixels": 200},
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
    source="ES-CRF, section 4.1; the training as in MSP",
)
SMALL = small(RECIPE, {**RESNET, "num_superpixels": 60})
