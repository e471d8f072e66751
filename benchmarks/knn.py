"""Nearest neighbours against scipy's cKDTree, batched `cdist` + `topk`, and torch-cluster, on a grid of sizes.

Run: python -m benchmarks.knn [--quick] [--repeats N] [--out FILE]

The results of every peer are compared with ours first: the distances must be close, neighbour by neighbour.
torch-cluster and cKDTree get one call per batch and per cloud, as their interfaces ask.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.common import OURS, Row, finish, race
from graphseg.ops import knn_edges

# clouds, points in each, dimensions, neighbours
SIZES = [
    (64, 200, 2, 20),
    (64, 200, 5, 20),
    (64, 200, 16, 20),
    (64, 200, 64, 20),
    (64, 200, 517, 20),
    (1, 50_000, 2, 8),
    (1, 50_000, 5, 8),
    (1, 20_000, 8, 8),
    (1, 10_000, 16, 8),
    (1, 10_000, 64, 8),
    (1, 262_144, 2, 8),
]
QUICK = [(8, 50, 2, 5), (8, 100, 40, 5), (1, 2_000, 5, 5)]
CDIST_ROWS = 2048  # rows at once in a large cloud
PAIRS = 5e8  # more pairs than this are too slow, or too large, for brute force on CPU
TREE_WORK = 2e9  # pairs x dimensions from which a tree in many dimensions takes tens of seconds


def by_cdist(x: Tensor, k: int) -> Tensor:
    """Distances [B, n, k] to the nearest other points, of x [B, n, D]."""
    parts = [torch.cdist(rows, x).topk(k + 1, largest=False).values for rows in x.split(CDIST_ROWS, dim=1)]
    return torch.cat(parts, dim=1)[..., 1:]


def by_scipy(x: Tensor, k: int, workers: int) -> Tensor:
    return torch.from_numpy(np.stack([cKDTree(c).query(c, k + 1, workers=workers)[0] for c in x.numpy()]))[..., 1:]


def contenders(x: Tensor, k: int) -> dict[str, Callable[[], Tensor] | str]:
    """Calls that return the distances [B, n, k], or why there is none. For a clock, the work is the same."""
    clouds, n, dims = x.shape
    flat, batch = x.flatten(0, 1), torch.arange(clouds, device=x.device).repeat_interleave(n)
    pairs = clouds * n * n
    calls: dict[str, Callable[[], Any] | str] = {OURS: lambda: knn_edges(flat, k, batch)}
    calls["cdist + topk"] = (lambda: by_cdist(x, k)) if pairs <= PAIRS else "brute force: left out at this size"
    if x.device.type != "cpu":
        calls["scipy cKDTree"] = "CPU only"
    elif dims > 8 and pairs * dims > TREE_WORK:
        calls["scipy cKDTree"] = "a tree in many dimensions: left out at this size"
    else:
        calls["scipy cKDTree, workers=1"] = lambda: by_scipy(x, k, 1)
        calls["scipy cKDTree, workers=-1"] = lambda: by_scipy(x, k, -1)
    try:
        cluster = import_module("torch_cluster")
    except ImportError:
        calls["torch-cluster"] = "not installed"
        return calls
    if dims > 8 and pairs * dims > TREE_WORK and x.device.type == "cpu":
        calls["torch-cluster"] = "a tree in many dimensions: left out at this size"
    else:
        calls["torch-cluster"] = lambda: cluster.knn_graph(flat, k, batch)
    return calls


def check(x: Tensor, k: int, calls: dict[str, Any]) -> None:
    """Raises AssertionError unless all find neighbours as near as ours."""
    flat = x.flatten(0, 1).double()

    def distances(found: Tensor) -> Tensor:
        if found.dtype != torch.int64:
            return found.double()
        lengths = (flat[found[0]] - flat[found[1]]).square().sum(1).sqrt()
        return lengths.view(*x.shape[:2], k).sort(dim=-1).values

    wanted = distances(calls[OURS]())
    for call in calls.values():
        if not isinstance(call, str):
            torch.testing.assert_close(distances(call()), wanted, rtol=1e-3, atol=2e-2)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark, prints the table, and writes it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file")
    parser.add_argument("--repeats", type=int, default=9, help="calls of each contender (default 9)")
    parser.add_argument("--quick", action="store_true", help="small sizes, a moment each")
    options = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    for clouds, n, dims, k in QUICK if options.quick else SIZES:
        x = torch.randn(clouds, n, dims, generator=generator).to(device)
        calls = contenders(x, k)
        check(x, k, calls)
        rows += race(f"{clouds} x {n} points x {dims} dimensions, k = {k}", calls, options.repeats, budget=15.0)
    finish(rows, options)


if __name__ == "__main__":
    main()
