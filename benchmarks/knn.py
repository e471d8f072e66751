"""Nearest neighbours against scipy's cKDTree, batched `cdist` + `topk`, and torch-cluster, on a grid of sizes.

    python -m benchmarks.knn [--out FILE] [--repeats N]

The results of every peer are compared with ours first: the distances must be close, neighbour by neighbour.
torch-cluster and cKDTree get one call per batch and per cloud, as their interfaces ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.common import OURS, Row, finish, parse, race
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
CDIST_ROWS = 2048  # rows at once in a large cloud
PAIRS = 5e8  # more pairs than this are too slow, or too large, for brute force on CPU
TREE_WORK = 2e9  # pairs x dimensions from which a tree in many dimensions takes tens of seconds


def as_edges(index: Tensor) -> Tensor:
    """`edge_index` of neighbours [B, n, k], numbered within their clouds; every contender ends with it."""
    clouds, n, k = index.shape
    start = torch.arange(clouds, device=index.device).view(-1, 1, 1) * n
    centre = torch.arange(clouds * n, device=index.device).repeat_interleave(k)
    return torch.stack([(index + start).view(-1), centre])


def by_cdist(x: Tensor, k: int) -> Tensor:
    parts = [torch.cdist(rows, x).topk(k + 1, largest=False).indices for rows in x.split(CDIST_ROWS, dim=1)]
    return as_edges(torch.cat(parts, dim=1)[..., 1:])


def by_scipy(x: Tensor, k: int, workers: int) -> Tensor:
    found = [cKDTree(c).query(c, k + 1, workers=workers)[1] for c in x.numpy()]
    return as_edges(torch.from_numpy(np.stack(found))[..., 1:])


def contenders(x: Tensor, k: int) -> dict[str, Callable[[], Tensor] | str]:
    """Calls that return `edge_index`, or why there is none."""
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
        lengths = (flat[found[0]] - flat[found[1]]).square().sum(1).sqrt()
        return lengths.view(*x.shape[:2], k).sort(dim=-1).values

    wanted = distances(calls[OURS]())
    for call in calls.values():
        if not isinstance(call, str):
            torch.testing.assert_close(distances(call()), wanted, rtol=1e-3, atol=2e-2)


def neighbours(repeats: int, sizes: Sequence[tuple[int, int, int, int]] = tuple(SIZES)) -> list[Row]:
    """All contenders at every size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    for clouds, n, dims, k in sizes:
        x = torch.randn(clouds, n, dims, generator=generator).to(device)
        calls = contenders(x, k)
        check(x, k, calls)
        rows += race(f"kNN, {clouds} x {n} points x {dims} dimensions, k = {k}", calls, repeats, budget=15.0)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(__doc__, argv)
    finish(neighbours(options.repeats), options)


if __name__ == "__main__":
    main()
