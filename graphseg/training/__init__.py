"""Training with Lightning, judging, and the papers' recipes. Needs the extra `train`."""

from graphseg.training.checkpoint import NetworkInfo, load_network, read_checkpoint, save_network
from graphseg.training.data import CachedSuperpixels, TrainingData, image_in_unit_range, stack_images
from graphseg.training.evaluation import Judge, evaluate
from graphseg.training.recipe import Recipe, load_recipe, recipe_names
from graphseg.training.run import network_of, train
from graphseg.training.task import TrainingTask

__all__ = [
    "CachedSuperpixels",
    "Judge",
    "NetworkInfo",
    "Recipe",
    "TrainingData",
    "TrainingTask",
    "evaluate",
    "image_in_unit_range",
    "load_network",
    "load_recipe",
    "network_of",
    "read_checkpoint",
    "recipe_names",
    "save_network",
    "stack_images",
    "train",
]
