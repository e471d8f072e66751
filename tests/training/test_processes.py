"""Two processes that share a batch have the gradients of one with all of it, and judge as one does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from graphseg.training import load_network, read_checkpoint
from graphseg.training.processes import num_processes, sum_over_processes
from tests.conftest import ROOT
from tests.training._shared import CASES, QUIET

EXACT: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-10}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """A folder for each case, with a training of one process, 1, and one of two, 2."""
    if not hasattr(os, "fork"):
        pytest.skip("starts processes by fork")
    folder = tmp_path_factory.mktemp("trainings")
    command = [sys.executable, "-m", "tests.training._shared", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def kept(folder, step, rank):
    return torch.load(folder / f"step{step}_rank{rank}.pt", weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_whole_batch(name, trainings):
    parts: set[frozenset[str]] = set()
    for step in range(QUIET["max_steps"]):
        whole = kept(trainings / name / "1", step, 0)
        shares = [kept(trainings / name / "2", step, rank) for rank in (0, 1)]
        assert shares[0]["share"]["sources"] + shares[1]["share"]["sources"] == whole["share"]["sources"]
        assert sum(one["share"]["labelled"] for one in shares) == whole["share"]["labelled"]
        parts.add(frozenset(key.split(".")[0] for key in whole["gradients"]))
        for share in shares:
            assert share["gradients"].keys() == whole["gradients"].keys()
            for key, gradient in whole["gradients"].items():
                assert_close(share["gradients"][key], gradient, **EXACT)
        assert any(gradient.any() for gradient in whole["gradients"].values())
    if name == "sgseg":  # its stages train other parts
        assert parts == {frozenset({"spnn"}), frozenset({"spnn", "gnn", "cnn"}), frozenset({"gnn", "cnn"})}


def test_shares_have_very_different_numbers_of_labelled_pixels(trainings):
    """Else means of means would pass for the mean."""
    shares = [
        [kept(trainings / name / "2", step, rank)["share"]["labelled"] for rank in (0, 1)]
        for name in CASES
        for step in range(QUIET["max_steps"])
    ]
    assert max(max(pair) / min(pair) for pair in shares) > 3


@pytest.mark.parametrize("name", CASES)
def test_the_trained_networks_and_their_figures_are_the_same(name, trainings):
    alone, shared = (load_network(trainings / name / processes / "network.ckpt")[0] for processes in "12")
    for key, value in alone.state_dict().items():
        assert_close(shared.state_dict()[key], value, **EXACT)
    figures = [judged(trainings / name / processes / "logs" / "version_0" / "metrics.csv") for processes in "12"]
    assert figures[0] and figures[0] == pytest.approx(figures[1], rel=1e-6, nan_ok=True)


def judged(path):
    """What the validation logged."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: float(row[key]) for row in rows for key in row if key.startswith("val/") and row[key]}


def test_the_loss_is_logged_as_that_of_the_whole_batch(trainings):
    for name in CASES:
        kept_ = []
        for processes in "12":
            with (trainings / name / processes / "logs" / "version_0" / "metrics.csv").open() as file:
                kept_.append([float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")])
        assert kept_[0] and kept_[0] == pytest.approx(kept_[1], rel=1e-6), name


def test_checkpoints_of_two_processes_are_of_one_kind(trainings):
    for processes in "12":
        (path,) = (trainings / "msp" / processes / "checkpoints").glob("step=*.ckpt")
        assert read_checkpoint(path)["global_step"] == QUIET["max_steps"]


def test_one_process_sums_nothing():
    x = torch.rand(3, requires_grad=True)
    assert num_processes() == 1 and sum_over_processes(x) is x
