"""One training as Lightning runs it: losses, optimiser, schedule, validation, and what a checkpoint says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from graphseg._checks import check_choice
from graphseg.training.checkpoint import KEY, NetworkInfo
from graphseg.training.evaluation import Judge
from graphseg.training.processes import num_processes, sum_over_processes
from graphseg.training.recipe import Recipe
from graphseg.training.sampling import mixed_seed

__all__ = ["TrainingTask"]


class TrainingTask(lightning.LightningModule):
    """Trains a network of `graphseg.models` by a recipe.

    What a step draws depends on the seed and the step alone (that of dropout on the process too), so that a training
    that was killed goes on as if it had not been, and processes that share a batch read it in the same orderings.

    Args:
        network: with `losses` and `parameter_groups`.
        recipe: which says how.
        seed: of all that is drawn.
        class_names: of the data, for the checkpoints.
        judge: of the validation; None: there is none.
    """

    def __init__(
        self,
        network: Module,
        recipe: Recipe,
        seed: int = 0,
        class_names: tuple[str, ...] = (),
        judge: Judge | None = None,
    ) -> None:
        super().__init__()
        self.network, self.recipe, self.seed = network, recipe, seed
        self.judge = judge
        self.info = NetworkInfo(
            network=type(network).__name__,
            options=network.options,  # type: ignore[arg-type]
            kind=recipe.kind,
            recipe=recipe.values(),
            class_names=class_names,
            seed=seed,
        )

    def on_train_batch_start(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Sets the state that this step draws from."""
        torch.manual_seed(self._seed(0, self.global_rank))
        if self.recipe.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The loss of one step, times the number of processes, whose gradients DDP averages."""
        generator = torch.Generator().manual_seed(self._seed(1))
        stage = self.recipe.stage(self.global_step)
        more = {} if stage is None else {"stage": stage}
        losses: dict[str, Tensor] = self.network.losses(  # type: ignore[operator]
            batch, reduce=sum_over_processes, generator=generator, **more
        )
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss", batch_size=len(batch["image"]))
        return losses["loss"] * num_processes()

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Judges one batch."""
        if self.judge is not None:
            self.judge.update(self.network, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs what the judge found in all batches of all processes."""
        if self.judge is not None:
            for name, value in self.judge.compute().items():
                self.log(f"val/{name}", value, prog_bar=name in ("miou", "ap"), sync_dist=True)
            self.judge.reset()

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser and schedule, step by step."""
        recipe = self.recipe
        optimizer = make_optimizer(self.network, recipe)
        schedule = LambdaLR(optimizer, learning_rate_factor(recipe))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the network is."""
        checkpoint[KEY] = self.info.values()

    def _seed(self, use: int, *more: int) -> int:
        return mixed_seed(self.seed, 2 + use, self.global_step, *more)


def make_optimizer(network: Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser on the network's parameter groups."""
    groups: dict[str, list[torch.nn.Parameter]] = network.parameter_groups()  # type: ignore[operator]
    if isinstance(recipe.lr, Mapping):
        for name in groups:
            check_choice("parameter group", name, tuple(recipe.lr))
        rates = {name: float(recipe.lr[name]) for name in groups}
    else:
        rates = dict.fromkeys(groups, float(recipe.lr))
    listed = [{"params": group, "lr": rates[name]} for name, group in groups.items() if group]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(listed, lr=0.0, weight_decay=recipe.weight_decay)


def learning_rate_factor(recipe: Recipe) -> Callable[[int], float]:
    """By what the learning rate is multiplied at a step."""

    def factor(step: int) -> float:
        if recipe.schedule == "poly":
            return max(0.0, 1 - step / recipe.max_steps) ** recipe.power
        return recipe.gamma ** (step // recipe.step_size) if recipe.schedule == "step" else 1.0

    return factor
