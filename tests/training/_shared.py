"""Trains in one process and in two that share each batch, in forks as Lightning makes them, and keeps the gradients.

    python -m tests.training._shared FOLDER

A process of its own, since Lightning's process group and a fork of one that runs threads do not belong into the tests'.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from graphseg.training import TrainingTask, train
from tests.training._small import Scenes, tiny

# Nothing is drawn per process: no dropout, all of the easy positives. Batch norms keep the statistics they have.
QUIET: dict[str, Any] = {"freeze_norm": True, "batch_size": 4, "max_steps": 3}
STEP = TrainingTask.training_step
CASES: dict[str, dict[str, Any]] = {
    "msp": {"network": "MSPNet", "options": {"dropout": 0.0}},
    "es_crf": {"network": "ESCRFNet", "options": {"dropout": 0.0}},
    "cdgc": {"network": "CDGCNet", "options": {"dropout": 0.0, "ratio": 1.0, "min_kept": 300, "threshold": 0.05}},
    "sgseg": {"network": "SGSeg", "stages": (("spnn", 1), ("joint", 1), ("segment", 1))},
    "affinity": {"network": "AffinityInstances"},
}


def keep_gradients(folder: Path) -> None:
    """Every process writes its gradients of every step, and what its share of the batch was."""

    share: dict[str, Any] = {}

    def watched(self: TrainingTask, batch: Mapping[str, Any], batch_idx: int) -> torch.Tensor:
        share.update(sources=batch["source"], labelled=int((batch["mask"] != 255).sum()))
        return STEP(self, batch, batch_idx)

    def kept(self: TrainingTask, optimizer: Any) -> None:
        gradients = {name: p.grad.clone() for name, p in self.network.named_parameters() if p.grad is not None}
        content = {"gradients": gradients, "share": share}
        torch.save(content, folder / f"step{self.global_step}_rank{self.global_rank}.pt")

    TrainingTask.training_step = watched  # type: ignore[method-assign]
    TrainingTask.on_before_optimizer_step = kept  # type: ignore[method-assign, assignment]


def main(root: Path) -> None:
    torch.set_num_threads(1)
    for name, recipe in CASES.items():
        for processes in (1, 2):
            folder = root / name / str(processes)
            folder.mkdir(parents=True)
            keep_gradients(folder)
            shared = "ddp_fork_find_unused_parameters_true" if name == "sgseg" else "ddp_fork"
            train(
                tiny(**{**QUIET, **recipe}),
                Scenes(6, sparse=2),
                Scenes(3),
                out=folder,
                num_pictures=0,
                progress=False,
                trainer={
                    "accelerator": "cpu",
                    "devices": processes,
                    "strategy": shared if processes == 2 else "auto",
                    "precision": "64-true",
                },
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
