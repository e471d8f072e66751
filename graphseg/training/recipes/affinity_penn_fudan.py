"""Affinities and instances of pedestrians, which the paper does not use.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation".
As on nuclei, but people are larger: crops of 384 x 384, batches of 8, distances up to 64, as in the paper. There are 96
images: 2,000 steps.
"""

from __future__ import annotations

from graphseg.training.recipes._small import RESNET, small
from graphseg.training.recipes.affinity_dsb2018 import RECIPE as NUCLEI

RECIPE = NUCLEI.but(
    name="affinity_penn_fudan",
    dataset="penn_fudan",
    options={"distances": (1, 2, 4, 8, 16, 32, 64)},
    crop=(384, 384),
    batch_size=8,
    max_steps=2_000,
    step_size=250,
)
SMALL = small(RECIPE, {**RESNET, "distances": (1, 2, 4, 8)}, step_size=40)
