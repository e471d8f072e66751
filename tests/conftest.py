"""Fixtures for every test: device, dtype, tolerances, seeds, shared data, and a fresh interpreter."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SEED = 0

# Keyword arguments of torch.testing.assert_close, per dtype.
TOLERANCES = {
    torch.float16: {"rtol": 1e-2, "atol": 1e-3},
    torch.bfloat16: {"rtol": 3e-2, "atol": 1e-2},
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float64: {"rtol": 1e-9, "atol": 1e-10},
}

# The same examples in every run; no deadline, since the first call of a kernel compiles it.
settings.register_profile("graphseg", derandomize=True, deadline=None)
settings.load_profile("graphseg")

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The workers share the cores already; tests of several threads set their number themselves.
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random state."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and a CUDA device where there is one."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="session", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The floating-point types that every differentiable operation takes."""
    return request.param


@pytest.fixture(scope="session")
def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """`torch.testing.assert_close(a, b, **tolerance)` for the test's dtype."""
    return dict(TOLERANCES[dtype])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public data sets: GRAPHSEG_DATA, or shared/data beside the project."""
    folder = Path(os.environ.get("GRAPHSEG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}: set GRAPHSEG_DATA to their folder")
    return folder


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """`run_python("-c", source)`: a fresh interpreter in an empty folder; its failure fails the test."""

    def run(*arguments: str, cwd: Path = tmp_path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
        return done

    return run
