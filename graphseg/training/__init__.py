"""Training with Lightning, judging, and the papers' recipes. Needs the extra `train`."""

from graphseg.training.checkpoint import NetworkInfo, load_network, read_checkpoint, save_network
from graphseg.training.data import CachedSuperpixels, TrainingData, image_in_unit_range, stack_images
from graphseg.training.evaluation import Judge, evaluate, make_judge
from graphseg.training.pictures import instance_overlay, label_overlay
from graphseg.training.recipe import Recipe, load_recipe, recipe_names
from graphseg.training.run import network_of, train
from graphseg.training.segmenting import Segmented, segment, segment_image
from graphseg.training.task import TrainingTask

__all__ = [
    "CachedSuperpixels",
    "Judge",
    "NetworkInfo",
    "Recipe",
    "Segmented",
    "TrainingData",
    "TrainingTask",
    "evaluate",
    "image_in_unit_range",
    "instance_overlay",
    "label_overlay",
    "load_network",
    "load_recipe",
    "make_judge",
    "network_of",
    "read_checkpoint",
    "recipe_names",
    "save_network",
    "segment",
    "segment_image",
    "stack_images",
    "train",
]
