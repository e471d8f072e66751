"""Which recipe a training follows, and on which images."""

from __future__ import annotations

import argparse
import runpy
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphseg.cli.answer import named_values, option
from graphseg.cli.images import FOLDER, read_folder, read_set

if TYPE_CHECKING:
    from graphseg.datasets import ImageReader
    from graphseg.training import Recipe

__all__ = ["choose_recipe", "images_to_judge", "training_images"]


def choose_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that was named, with what is to be other than in it.

    Args:
        options: of train.

    Raises:
        OSError: for a file that is not there.
        ValueError: for a name that there is not, or a file without a recipe.
    """
    from graphseg.training import load_recipe

    if options.recipe.endswith(".py"):
        recipe = _recipe_of_file(Path(options.recipe), "SMALL" if options.small else "RECIPE")
    else:
        recipe = load_recipe(options.recipe, options.small)
    given: dict[str, Any] = {"max_steps": options.steps, "batch_size": options.batch_size}
    given = {name: value for name, value in given.items() if value is not None}
    return recipe.but(options=named_values(options, "set", options.set), **given)


def _recipe_of_file(path: Path, name: str) -> Recipe:
    """What a Python file sets; it is run."""
    from graphseg.training import Recipe

    if not path.is_file():
        raise FileNotFoundError(f"got recipe {path}, expected a Python file that is there")
    try:
        found = runpy.run_path(str(path)).get(name)
    except Exception as error:
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = frames[-1] if frames else getattr(error, "lineno", None)
        raise ValueError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Recipe):
        raise ValueError(f"got {path} with {type(found).__name__} as {name}, expected a graphseg.training.Recipe")
    return found


def _is_folder(options: argparse.Namespace) -> bool:
    return options.dataset == FOLDER or options.labels is not None or options.instances is not None


def _for_images(options: argparse.Namespace, recipe: Recipe) -> Recipe:
    """The recipe for the images that were asked for: other sets have other classes to map, and other readers."""
    name = FOLDER if _is_folder(options) else options.dataset or recipe.dataset
    known = dict(recipe.dataset_options)
    if name != recipe.dataset:
        return recipe.but(dataset=name, dataset_options={}, class_map=())
    if options.classes is not None and options.classes != known.get("classes"):
        return recipe.but(dataset_options=known | {"classes": options.classes}, class_map=())
    return recipe


def training_images(options: argparse.Namespace, recipe: Recipe) -> tuple[Recipe, ImageReader, ImageReader | None]:
    """The recipe for the images that were asked for, the images to learn from, and those to judge by.

    Args:
        options: of train.
        recipe: as it was chosen.
    """
    recipe = _for_images(options, recipe)
    if recipe.dataset == FOLDER:
        if options.val_split is not None:
            options.error("got --val-split without --dataset, expected both: or --val-fraction, or --val-data")
        return recipe, *_parts_of_folder(options)
    for name in ("val_fraction", "val_data", "val_labels", "val_instances"):
        if getattr(options, name) is not None:
            options.error(f"got {option(name)} with --dataset {recipe.dataset}, which has splits: give --val-split")
    known = dict(recipe.dataset_options)
    own = known.pop("split", None)
    split = options.split or own or "train"
    reader = read_set(options, recipe.dataset, split, known)
    val = options.val_split
    if val is None and split != "val":
        val = _val_split(options, recipe.dataset, known)
    return recipe, reader, None if val is None else read_set(options, recipe.dataset, val, known)


def _val_split(options: argparse.Namespace, name: str, known: dict[str, Any]) -> str | None:
    """ "val", if a set has such a split."""
    return "val" if "val" in {sample.split for sample in read_set(options, name, None, known).samples} else None


def _parts_of_folder(options: argparse.Namespace) -> tuple[ImageReader, ImageReader | None]:
    reader = read_folder(options)
    if options.val_data is not None:
        if options.val_fraction is not None:
            options.error("got --val-fraction and --val-data, expected one of them")
        of_val = {"images": options.val_data, "labels": options.val_labels, "instances": options.val_instances}
        for name in ("labels", "instances"):
            if (getattr(options, name) is None) != (of_val[name] is None):
                options.error(f"got only one of --{name} and --val-{name}, expected both")
        return reader, read_folder(argparse.Namespace(**{**vars(options), **of_val}), reader.num_classes)
    for name in ("val_labels", "val_instances"):
        if getattr(options, name) is not None:
            options.error(f"got {option(name)} without --val-data, expected both")
    if options.val_fraction is None:
        return reader, None
    if not 0 < options.val_fraction < 1 or len(reader) < 2:
        options.error(
            f"got --val-fraction {options.val_fraction} of {len(reader)} images, expected a share of two or more"
        )
    import torch

    order = torch.randperm(len(reader), generator=torch.Generator().manual_seed(options.seed)).tolist()
    count = min(max(round(options.val_fraction * len(reader)), 1), len(reader) - 1)
    return reader.index_select(sorted(order[count:])), reader.index_select(sorted(order[:count]))


def images_to_judge(
    options: argparse.Namespace, recipe: Recipe, num_classes: int
) -> tuple[Recipe, ImageReader, str | None]:
    """The recipe for the images that were asked for, the images, and the name of their split.

    Args:
        options: of evaluate.
        recipe: of the training.
        num_classes: of the network.
    """
    recipe = _for_images(options, recipe)
    if recipe.dataset == FOLDER:
        reader, split = read_folder(options, num_classes if recipe.kind == "semantic" else None), None
    else:
        known = dict(recipe.dataset_options)
        known.pop("split", None)
        split = options.split or _val_split(options, recipe.dataset, known)
        reader = read_set(options, recipe.dataset, split, known)
    classes = recipe.count_classes(reader.num_classes)
    if recipe.kind == "semantic" and classes is not None and classes != num_classes:
        raise ValueError(f"got images of {classes} classes, expected {num_classes} as the network")
    return recipe, reader, split
