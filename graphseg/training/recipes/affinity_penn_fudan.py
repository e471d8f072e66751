"""Affinities and instances of pedestrians, which the paper does not use.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation".
As on nuclei, but people are larger: crops of 384 x 384, batches of 8, distances up to 64, as in the paper. There are 96
images: 2,000 steps. The thresholds of the merge are those on nuclei, untried here.
"""

from __future__ import annotations

from graphseg.training.recipes._small import small
from graphseg.training.recipes.affinity_dsb2018 import RECIPE as NUCLEI
from graphseg.training.recipes.affinity_dsb2018 import SMALL_OPTIONS

RECIPE = NUCLEI.but(
    name="affinity_penn_fudan",
    dataset="penn_fudan",
    options={
        "distances": (1, 2, 4, 8, 16, 32, 64),
        "merge": {"stages": [[1, 2, 4], [8, 16], [32, 64]], "thresholds": [0.5, 0.2, 0.2], "min_size": 10},
    },
    crop=(384, 384),
    batch_size=8,
    max_steps=2_000,
    step_size=250,
)
SMALL = small(RECIPE, SMALL_OPTIONS, step_size=40)
