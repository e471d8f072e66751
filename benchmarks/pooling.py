"""Pixels to nodes and back, against torch-scatter, torch's own products, and a copy of the features.

python -m benchmarks.pooling [--out FILE] [--repeats N]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch

from benchmarks.common import OURS, Row, finish, parse, race
from graphseg.ops import pool, project

SHAPES = [(65_536, 256, 800), (262_144, 3, 300)]  # pixels, channels, nodes


def by_scatter() -> Callable[..., Any] | None:
    try:
        scatter: Callable[..., Any] = import_module("torch_scatter").scatter
    except ImportError:
        return None
    return scatter


def compete(work: str, ours: Callable[[], Any], peer: Callable[[], Any] | str, name: str, repeats: int) -> list[Row]:
    """The two, results compared first."""
    if not isinstance(peer, str):
        torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-3)
    return race(work, {OURS: ours, name: peer}, repeats)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(__doc__, argv)
    scatter = by_scatter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    rows: list[Row] = []
    for P, C, N in SHAPES:
        x = torch.randn(P, C, generator=generator).to(device)
        assignment = torch.randint(0, N, (P,), generator=generator).to(device)
        size = f"{P} pixels x {C} channels, {N} nodes"
        for reduce in ("mean", "sum", "max"):
            peer = "not installed" if scatter is None else partial(scatter, x, assignment, 0, None, N, reduce)
            ours = partial(pool, x, assignment, N, reduce)
            rows += compete(f"pool {reduce}, {size}", ours, peer, "torch-scatter", options.repeats)
        values = pool(x, assignment, N)
        gather = partial(values.index_select, 0, assignment)
        rows += compete(
            f"project, {size}", partial(project, values, assignment), gather, "index_select", options.repeats
        )
        rows += race(f"copy of the features, {size}", {"torch clone": x.clone}, options.repeats)

        # Nine nodes per pixel, as soft superpixels have; the peer is torch's product of a sparse and a dense matrix.
        pixel = torch.arange(P, device=device).repeat_interleave(9)
        node = (assignment.repeat_interleave(9) + torch.arange(9, device=device).repeat(P)) % N
        weight = torch.rand(9 * P, generator=generator).to(device)
        soft = torch.sparse_coo_tensor(torch.stack([pixel, node]), weight, (P, N), check_invariants=True).coalesce()
        product = partial(torch.sparse.mm, soft.t().coalesce(), x)
        ours = partial(pool, x, soft, reduce="sum")
        rows += compete(f"pool sum, nine nodes a pixel, {size}", ours, product, "torch.sparse.mm", options.repeats)
    finish(rows, options)


if __name__ == "__main__":
    main()
