"""Pictures of the first images of every validation, so that one can see what a network learns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from graphseg.training.pictures import instance_overlay, label_overlay

__all__ = ["ValidationPictures"]


class ValidationPictures(Callback):
    """Draws what the network finds in the first images of the validation: `folder/<name>/<step>.png`.

    Args:
        folder: of the pictures.
        count: how many images.
    """

    def __init__(self, folder: str | Path, count: int = 4) -> None:
        self.folder, self.count = Path(folder), count

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the batch's first image, if it is one of the first batches.

        Args:
            trainer, pl_module, outputs, batch, batch_idx, dataloader_idx: as Lightning gives them.
        """
        if batch_idx >= self.count or not trainer.is_global_zero:
            return
        judge, network, image = pl_module.judge, pl_module.network, batch["image"][:1]
        with torch.no_grad():
            if judge.kind == "instances":
                (found,) = network.segment(image, **judge.options)
                picture = instance_overlay(image[0], found.labels)
            else:
                picture = label_overlay(image[0], judge.predict(network, image)[0])
        path = self.folder / Path(batch["source"][0] or str(batch_idx)).name / f"{trainer.global_step:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.movedim(0, 2).cpu().numpy()).save(path)
