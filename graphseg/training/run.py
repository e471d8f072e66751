"""Trains a network by a recipe with Lightning, from images to a file; a training that was killed goes on.

The folder of a training holds `checkpoints/` (the last state, and the best by validation), `network.ckpt` (the trained
network alone), `logs/` (CSV, and TensorBoard where it is installed), `pictures/` (of the validation) and `superpixels/`
(if they are cached).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.imports import RequirementCache
from torch.nn import Module

from graphseg._checks import check_positive_int
from graphseg.datasets import ImageReader
from graphseg.models import load_backbone_weights
from graphseg.models.tensor_file import read_tensors
from graphseg.training.checkpoint import (
    KEY,
    make_network,
    read_checkpoint,
    save_network,
    write_checkpoint,
)
from graphseg.training.data import TrainingData
from graphseg.training.evaluation import make_judge
from graphseg.training.recipe import Recipe
from graphseg.training.sampling import mixed_seed
from graphseg.training.task import TrainingTask
from graphseg.training.validation_pictures import ValidationPictures

__all__ = ["network_of", "train"]

# Warnings of Lightning's: of its own code, of what is meant so (no workers), and of going on in a folder.
_NOT_OURS = (r".isinstance\(treespec", ".*does not have many workers", ".*exists and is not empty")
_BEST = {"semantic": "val/miou", "unsupervised": "val/hungarian_accuracy", "instances": "val/ap"}


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all, and read without running code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: what to write.
            path: of the file.
            storage_options: not used.
        """
        write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Reads a checkpoint, or the weights that processes of Lightning's hand to the first one.

        Args:
            path: of the file.
            map_location: where its tensors go.
            weights_only: not used: no code is run in any case.
        """
        found: dict[str, Any] = read_tensors(path, "a checkpoint", map_location or "cpu")
        return found


class FinishedNetwork(Callback):
    """Writes the network when its training is done, in the process that trained it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Writes it.

        Args:
            trainer, pl_module: as Lightning gives them.
        """
        if trainer.is_global_zero and trainer.global_step >= trainer.max_steps:
            save_network(pl_module.network, pl_module.info, self.path)


def network_of(recipe: Recipe, reader: ImageReader, seed: int = 0) -> Module:
    """A new network of a recipe, for the classes and channels of a reader's images.

    Args:
        recipe: which names it.
        reader: of the images.
        seed: of its weights.

    Raises:
        ValueError: if neither the recipe nor the reader says how many classes there are.
    """
    options = dict(recipe.options)
    if "in_channels" not in options:
        options["in_channels"] = int(reader[0].image.size(0))
    if "num_classes" not in options:
        classes = recipe.count_classes(reader.num_classes)
        if classes is None and recipe.kind == "instances":
            classes = 2
        if classes is None:
            raise ValueError(f"got {reader!r} without classes, expected masks, or num_classes in the recipe's options")
        options["num_classes"] = classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, 4))
        return make_network(recipe.network, options)


def train(
    recipe: Recipe,
    reader: ImageReader,
    val: ImageReader | None = None,
    *,
    out: str | Path,
    seed: int = 0,
    network: Module | None = None,
    weights: str | Path | None = None,
    checkpoint_every: int = 1000,
    val_every: int | None = None,
    num_workers: int = 0,
    num_pictures: int = 4,
    progress: bool = True,
    trainer: Mapping[str, Any] | None = None,
) -> Module:
    """Trains, or goes on where a training in `out` was stopped.

    Args:
        recipe: how.
        reader: images to learn from.
        val: images to judge by.
        out: folder of the training.
        seed: of weights, order, augmentation and all else that is drawn.
        network: one to train, instead of the recipe's.
        weights: file of the backbone's weights to start from, see `load_backbone_weights`.
        checkpoint_every: steps between checkpoints.
        val_every: steps between validations. Default: none but at the end.
        num_workers: processes that load images.
        num_pictures: images that are drawn at each validation.
        progress: whether to show a bar.
        trainer: keyword arguments of Lightning's `Trainer`: `accelerator`, `devices`, `num_nodes`, `strategy`,
            `precision`, ...

    Returns:
        The trained network, on the CPU, in evaluation mode; it is in `out/network.ckpt` too.

    Raises:
        ValueError: if `out` holds another training, or the data does not fit the recipe.
    """
    out = Path(out)
    check_positive_int("checkpoint_every", checkpoint_every)
    network = network_of(recipe, reader, seed) if network is None else network
    start = latest_checkpoint(out)
    if weights is not None and start is None:
        for module in network.modules():
            if isinstance(getattr(module, "backbone", None), Module):
                load_backbone_weights(module.backbone, weights)  # type: ignore[arg-type]
    judge = None if val is None else make_judge(network, recipe, val)
    task = TrainingTask(network, recipe, seed, tuple(reader.class_names), judge)
    if start is not None:
        check_same_training(start, task)
    remove_leftovers(out, start)
    data = TrainingData(
        recipe,
        reader,
        val,
        seed=seed,
        cache=out / "superpixels",
        num_superpixels=network.num_superpixels,  # type: ignore[arg-type]
        num_workers=num_workers,
    )
    options: dict[str, Any] = {"devices": 1, "num_nodes": 1, **(trainer or {})}
    several = options["devices"] != 1 or options["num_nodes"] != 1
    options.setdefault("sync_batchnorm", several and torch.cuda.is_available())  # there is none on CPUs
    if several and recipe.stages and options.get("strategy", "auto") in ("auto", "ddp"):
        options["strategy"] = "ddp_find_unused_parameters_true"  # some stages train a part of the network
    # Validation at the end too: where the interval is longer than the training.
    interval = min(val_every or recipe.max_steps, recipe.max_steps)
    runner = lightning.Trainer(
        max_steps=recipe.max_steps,
        max_epochs=-1,
        val_check_interval=interval if val is not None else None,
        limit_val_batches=None if val is not None else 0,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=out,
        callbacks=_callbacks(out, recipe, val, checkpoint_every, num_pictures),
        logger=_loggers(out),
        plugins=[WholeFiles()],
        enable_progress_bar=progress,
        enable_model_summary=False,
        log_every_n_steps=min(50, recipe.max_steps),
        **options,
    )
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advert)
    with warnings.catch_warnings():
        for text in _NOT_OURS:
            warnings.filterwarnings("ignore", text)
        runner.fit(task, datamodule=data, ckpt_path=start, weights_only=True)
    network = task.network.cpu().eval()
    path = out / "network.ckpt"
    if runner.is_global_zero and runner.global_step >= recipe.max_steps and not path.exists():  # none left to train
        save_network(network, task.info, path)
    return network


def _is_no_advert(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()


def latest_checkpoint(out: Path) -> Path | None:
    """The checkpoint of the last step in a training's folder; None for a new one."""
    found = {int(path.stem.split("=")[1]): path for path in (out / "checkpoints").glob("step=*.ckpt")}
    return found[max(found)] if found else None


def remove_leftovers(out: Path, start: Path | None) -> None:
    """Removes what a training leaves that is killed while it writes: parts of files, and the checkpoint before."""
    for left in (
        *out.glob("*.part"),
        *(out / "checkpoints").glob("*.part"),
        *(out / "checkpoints").glob("step=*.ckpt"),
    ):
        if left != start:
            left.unlink(missing_ok=True)


def check_same_training(path: Path, task: TrainingTask) -> None:
    """Raises ValueError unless a checkpoint is of this training."""
    known, own = read_checkpoint(path)[KEY], task.info.values()
    for name, value in own.items():
        if known.get(name) != value:
            raise ValueError(
                f"got {path.parent.parent} with a training of another {name}: {known.get(name)}, expected {value}; "
                "take another folder"
            )


def _callbacks(
    out: Path, recipe: Recipe, val: ImageReader | None, checkpoint_every: int, num_pictures: int
) -> list[Callback]:
    folder = out / "checkpoints"
    found: list[Callback] = [
        ModelCheckpoint(
            folder,
            filename="{step}",
            every_n_train_steps=min(checkpoint_every, recipe.max_steps),
            save_top_k=1,
            enable_version_counter=False,
        ),
        LearningRateMonitor("step"),
        FinishedNetwork(out / "network.ckpt"),
    ]
    if val is not None:
        best = _BEST[recipe.kind]
        found.append(
            ModelCheckpoint(
                folder, filename="best", monitor=best, mode="max", save_top_k=1, enable_version_counter=False
            )
        )
        if num_pictures:
            found.append(ValidationPictures(out / "pictures", num_pictures))
    return found


def _loggers(out: Path) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(out, name="logs")]
    if RequirementCache("tensorboard"):
        loggers.append(TensorBoardLogger(out, name="tensorboard", default_hp_metric=False))
    return loggers
