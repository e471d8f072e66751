"""A training that is killed at any moment and goes on ends with the weights of one that was left alone, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from graphseg.training import network_of, read_checkpoint
from tests.conftest import ROOT
from tests.training._killed import CASES
from tests.training._small import Scenes, tiny


def same(a: Any, b: Any) -> bool:
    """Whether two nests of plain values and tensors are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def last_checkpoint(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("step=*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """A folder for each case, with the training that was left alone and the one that was not."""
    if not hasattr(os, "fork"):
        pytest.skip("starts processes by fork")
    folder = tmp_path_factory.mktemp("trainings")
    command = [sys.executable, "-m", "tests.training._killed", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", CASES)
def test_killed_and_resumed_is_undisturbed(name, trainings):
    left, killed = trainings / name / "undisturbed", trainings / name / "killed"
    final, resumed = (read_checkpoint(folder / "network.ckpt") for folder in (left, killed))
    assert same(final, resumed)
    last, other = (read_checkpoint(last_checkpoint(folder)) for folder in (left, killed))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "graphseg"):
        assert same(last[part], other[part]), part
    # Nothing is left but the last checkpoint, and the one that the last run went on from, which Lightning keeps.
    names = sorted(path.name for path in (*killed.glob("*.*"), *(killed / "checkpoints").iterdir()))
    assert {name for name in names if not name.startswith("step=")} <= {"network.ckpt", "best.ckpt"}
    assert len([name for name in names if name.startswith("step=")]) <= 2
    start = network_of(tiny(**CASES[name].recipe), Scenes(1), seed=3).state_dict()
    changed = [not torch.equal(final["state_dict"][f"network.{key}"], value) for key, value in start.items()]
    assert any(changed) and final["state_dict"].keys() == {f"network.{key}" for key in start}
