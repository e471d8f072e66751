"""One run of any task."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks.reproduce.schedule import Job


def execute(job: Job, root: Path, device: torch.device) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Trains and judges one row with one seed; returns its metrics by variant, and details.

    Args:
        job: the row and seed.
        root: folder of the sets.
        device: to train on.

    Raises:
        ValueError: for another task.
    """
    task = job.protocol.task
    if task == "semantic":
        from benchmarks.reproduce.semantic import run_semantic as run
    elif task == "unsupervised":
        from benchmarks.reproduce.unsupervised import run_unsupervised as run
    elif task == "instances":
        from benchmarks.reproduce.instances import run_instances as run
    else:
        raise ValueError(f"got task={task!r}, expected semantic, unsupervised or instances")
    values, details = run(job, root, device)
    details |= {"device": device.type, "processor": platform.machine(), "torch": torch.__version__}
    return values, details
