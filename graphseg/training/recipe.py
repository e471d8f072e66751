"""What a training needs to know beside its images: a network, its data's treatment, an optimiser and a schedule.

A recipe is plain values, so that a checkpoint can carry it. Those of the papers are the files in
`graphseg/training/recipes`, each with the paper's numbers and a `small` variant for one machine without a GPU.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from graphseg._checks import check_choice, check_positive_int

__all__ = ["Recipe", "load_recipe", "recipe_names"]

KINDS = ("semantic", "unsupervised", "instances")
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("poly", "step", "constant")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training.

    Args:
        name: of the recipe.
        kind: "semantic" (masks), "unsupervised" (no labels but to judge) or "instances".
        network: a class of `graphseg.models`.
        options: its keyword arguments; `num_classes` and `in_channels` come from the data where they are missing.
        dataset: the set that the paper trains on, a name as in `graphseg train --dataset`.
        dataset_options: of its reader.
        class_map: the class that each class of the masks becomes, 255 for none; (): they stay.
        resize: (height, width) of all images before anything else, or None.
        crop: (height, width) of the window cut out of an image in training, or None: images have one size already.
        scale: smallest and largest factor by which an image is scaled before it is cut, or None.
        flip: probability of mirroring left and right.
        jitter: strength of the changes of brightness and contrast.
        batch_size: of all processes together.
        max_steps: of the optimiser.
        optimizer: "sgd", "adam" or "adamw".
        lr: the learning rate, or one for each of the network's parameter groups by name.
        momentum: of "sgd".
        weight_decay: for all parameters.
        schedule: "poly", `lr (1 - step / max_steps)^power`; "step", `lr gamma^(step // step_size)`; or "constant".
        power, step_size, gamma: of the schedule.
        superpixels: "device": cut from the augmented images on their device; "cached": cut once for each image, kept
            in files, and augmented with it.
        stages: of SGSeg, pairs (name, steps): "spnn", "joint" or "segment"; the last one lasts to the end.
        freeze_norm: keep the statistics of batch norms as they are.
        source: where in the paper the numbers stand.
    """

    name: str
    network: str
    dataset: str
    kind: str = "semantic"
    options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    class_map: tuple[int, ...] = ()
    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None
    flip: float = 0.5
    jitter: float = 0.0
    batch_size: int = 16
    max_steps: int = 80_000
    optimizer: str = "sgd"
    lr: float | Mapping[str, float] = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "poly"
    power: float = 0.9
    step_size: int = 15_000
    gamma: float = 0.7
    superpixels: str = "device"
    stages: tuple[tuple[str, int], ...] = ()
    freeze_norm: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("superpixels", self.superpixels, ("device", "cached"))
        check_positive_int("batch_size", self.batch_size)
        check_positive_int("max_steps", self.max_steps)

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with other values; `options` are added to those there are.

        Args:
            changes: fields by name.

        Raises:
            TypeError: for a field that recipes do not have.
        """
        if "options" in changes:
            changes["options"] = {**self.options, **changes["options"]}
        return replace(self, **changes)

    def count_classes(self, num_classes: int | None) -> int | None:
        """How many classes are left of those of the masks; None where there are none.

        Args:
            num_classes: of the masks.

        Raises:
            ValueError: for a map of another number of classes.
        """
        if not self.class_map or num_classes is None:
            return num_classes
        if len(self.class_map) != num_classes:
            raise ValueError(
                f"got a class_map of {len(self.class_map)} classes, expected {num_classes} as in the masks"
            )
        return 1 + max(c for c in self.class_map if c != 255)

    def values(self) -> dict[str, Any]:
        """The fields as plain lists, dicts, numbers and words."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def stage(self, step: int) -> str | None:
        """The stage of a step, from 0; None for recipes without stages.

        Args:
            step: of the optimiser.
        """
        for name, steps in self.stages[:-1]:
            if step < steps:
                return name
            step -= steps
        return self.stages[-1][0] if self.stages else None


def recipe_names() -> list[str]:
    """The names that `load_recipe` knows."""
    from graphseg.training import recipes

    return sorted(found.name for found in pkgutil.iter_modules(recipes.__path__) if not found.name.startswith("_"))


def load_recipe(name: str, small: bool = False) -> Recipe:
    """One of the papers' recipes.

    Args:
        name: of its file, such as "msp_ade20k".
        small: its variant for one machine without a GPU.

    Raises:
        ValueError: for a name that there is not.
    """
    if name not in recipe_names():
        raise ValueError(f"got recipe {name!r}, expected one of {', '.join(recipe_names())}")
    module = importlib.import_module(f"graphseg.training.recipes.{name}")
    found: Recipe = module.SMALL if small else module.RECIPE
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
