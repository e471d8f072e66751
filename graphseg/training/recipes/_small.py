"""Sizes for a machine without a GPU: the same training on small images, with a narrow network and few steps."""

from __future__ import annotations

from typing import Any

from graphseg.training.recipe import Recipe

SIZE, CROP = (96, 128), (96, 96)  # (height, width)
RESNET: dict[str, Any] = {"backbone": "resnet18", "width": 0.25}


def small(recipe: Recipe, options: dict[str, Any], **changes: Any) -> Recipe:
    """A recipe's variant that takes a few minutes on one core, with the images of any set.

    Args:
        recipe: with the paper's numbers.
        options: of the network that change.
        changes: other fields that change.
    """
    sizes = {"resize": SIZE, "crop": CROP, "batch_size": 4, "max_steps": 300}
    return recipe.but(options=options, **{**sizes, **changes})


def small_sgseg(recipe: Recipe) -> Recipe:
    """The same for SGSeg, which starts from nothing and learns faster here.

    Args:
        recipe: with the paper's numbers.
    """
    return small(
        recipe,
        {"width": 0.125, "num_superpixels": 50, "k": 10},
        resize=(64, 64),
        crop=None,
        lr={"spnn": 1e-3, "gnn": 1e-3, "cnn": 1e-3},
        stages=(("spnn", 100), ("joint", 200)),
    )
