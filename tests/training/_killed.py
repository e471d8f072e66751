"""Trains in forks of one process, kills them with SIGKILL at chosen moments, and lets others go on.

    python -m tests.training._killed FOLDER

A process of its own, since a fork of one that runs threads may hang, and a fresh one for every run would spend the test
importing Lightning.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from graphseg.training import TrainingTask, data, train
from tests.training._small import Scenes, tiny


class Kill(NamedTuple):
    """A moment, and how often it is lived through before it kills."""

    moment: str
    times: int


class Case(NamedTuple):
    """What is trained, and where the runs of it are killed, one after the other."""

    recipe: dict[str, Any]
    kills: tuple[Kill, ...]
    checkpoint_every: int = 1
    workers: int = 0
    random_kills: int = 0
    val: bool = False


# Moments: before a step's gradients; after its update; half a checkpoint written; all of it, not yet in its place; in
# its place; the one before not yet deleted.
CASES = {
    "msp": Case(
        {"network": "MSPNet", "superpixels": "cached"},
        (
            Kill("step", 0),
            Kill("written half", 0),
            Kill("updated", 1),
            Kill("in place", 1),
            Kill("written", 1),
            Kill("deleting", 0),
            Kill("network written half", 0),
        ),
        random_kills=2,
        val=True,
    ),
    "cdgc": Case(
        {"network": "CDGCNet", "options": {"dropout": 0.3}},
        (Kill("step", 3), Kill("updated", 2), Kill("written half", 0)),
        checkpoint_every=2,
        random_kills=1,
    ),
    "sgseg": Case(
        {"network": "SGSeg"}, (Kill("updated", 0), Kill("step", 3), Kill("updated", 2)), checkpoint_every=1, val=True
    ),
    "workers": Case({"network": "CDGCNet"}, (Kill("step", 4),), checkpoint_every=3, workers=2),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(kill: Kill) -> None:
    """This process will kill itself at that moment."""
    left = kill.times

    def now() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def before(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if now():
                die()
            return real(*arguments, **options)

        setattr(owner, name, call)

    def after_update(self: TrainingTask, *arguments: Any, **options: Any) -> None:
        update(self, *arguments, **options)
        if now():
            die()

    def half(content: Any, file: Any) -> None:
        save(content, file)
        if "optimizer_states" not in content if kill.moment.startswith("network") else now():
            file.flush()
            file.truncate(file.tell() // 2)
            die()

    def replacing(source: Any, target: Any) -> None:
        due = str(target).endswith(".ckpt") and now()
        if due and kill.moment == "written":
            die()
        replace(source, target)
        if due:
            die()

    update, save, replace = TrainingTask.optimizer_step, torch.save, os.replace
    if kill.moment == "step":
        before(TrainingTask, "training_step")
    elif kill.moment == "updated":
        TrainingTask.optimizer_step = after_update  # type: ignore[method-assign, assignment]
    elif kill.moment in ("written", "in place"):
        os.replace = replacing  # type: ignore[assignment]
    elif kill.moment == "deleting":
        before(TorchCheckpointIO, "remove_checkpoint")
    else:
        torch.save = half  # type: ignore[assignment]


class ForkedLoader(data.StepLoader):
    """Its workers are forks of this process, in which no thread runs; fresh ones take seconds to start."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "multiprocessing_context": "fork"})


def undisturbed(case: Case, out: Path, workers: int = 0) -> None:
    train(
        tiny(**case.recipe),
        Scenes(5),
        Scenes(2) if case.val else None,
        out=out,
        seed=3,
        checkpoint_every=case.checkpoint_every,
        val_every=2,
        num_workers=workers,
        num_pictures=0,
        progress=False,
    )


def run(case: Case, out: Path, kill: Kill | None = None, seconds: float | None = None) -> bool:
    """One run in a fork; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            if kill is not None:
                arm(kill)
            if case.workers:
                data.StepLoader = ForkedLoader  # type: ignore[misc]
            undisturbed(case, out, case.workers)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a run failed")
    return os.WIFEXITED(status)


def main(root: Path) -> None:
    torch.set_num_threads(1)
    chance, durations = random.Random(0), {}
    for name, case in CASES.items():
        start = time.monotonic()
        undisturbed(case, root / name / "undisturbed")
        durations[name] = time.monotonic() - start
    for name, case in CASES.items():
        out = root / name / "killed"
        for kill in case.kills:
            assert not run(case, out, kill), f"{kill} of {name} did not kill"
        for _ in range(case.random_kills):
            run(case, out, seconds=chance.uniform(0.1, 0.9) * durations[name])
        assert run(case, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
