"""Pool and project on CPU or GPU, against torch-scatter (where installed) and against copying the features.

Run: python benchmarks/pooling.py [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Measurement, Timer

from graphseg.ops.pooling import pool, project

Run = Callable[[], Any]


def time(run: Run, seconds: float) -> Measurement:
    """Median and IQR of a call, on all the threads torch has."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds)


def peers(x: Tensor, a: Tensor, nodes: int) -> dict[str, tuple[Run, Run | None]]:
    """Name -> (ours, peer or None)."""
    try:
        scatter = import_module("torch_scatter").scatter
    except ImportError:
        scatter = None
    cases: dict[str, tuple[Run, Run | None]] = {}
    for name, values, reduce in [
        ("pool mean", x, "mean"),
        ("pool sum", x, "sum"),
        ("pool max", x, "max"),
        ("pool mean, channels first", x.t().contiguous().t(), "mean"),
    ]:
        ours = partial(pool, values, a, nodes, reduce)
        cases[name] = ours, scatter and partial(scatter, values, a, 0, dim_size=nodes, reduce=reduce)
    v = pool(x, a, nodes)
    cases["project"] = (partial(project, v, a), partial(v.index_select, 0, a))
    # Nine nodes per pixel, as in soft superpixels; the peer is torch's own product of sparse and dense.
    pixel = torch.arange(len(x), device=x.device).repeat_interleave(9)
    node = (a.repeat_interleave(9) + torch.arange(9, device=x.device).repeat(len(x))) % nodes
    weight = torch.rand(len(node), device=x.device)
    soft = torch.sparse_coo_tensor(torch.stack([pixel, node]), weight, (len(x), nodes), check_invariants=True)
    soft = soft.coalesce()
    turned = soft.t().coalesce()
    cases["pool sum, sparse soft"] = partial(pool, x, soft, reduce="sum"), partial(torch.sparse.mm, turned, x)
    cases["project, sparse soft"] = partial(project, v, soft), partial(torch.sparse.mm, soft, v)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, a moment each")
    quick = parser.parse_args().quick
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads; median ms (IQR)")
    shapes = [(4_096, 16, 50)] if quick else [(65_536, 256, 800), (262_144, 3, 300)]
    for pixels, channels, nodes in shapes:
        x = torch.randn(pixels, channels, device=device)
        a = torch.randint(0, nodes, (pixels,), device=device)
        copy = time(x.clone, 0.02 if quick else 1.0)
        print(f"\n{pixels} pixels x {channels} channels, {nodes} nodes; a copy takes {copy.median * 1e3:.2f}")
        print(f"{'':28}{'graphseg':>16}{'peer':>16}{'ratio':>8}")
        for name, (ours, peer) in peers(x, a, nodes).items():
            if peer is not None:
                torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-3)
            times = [time(run, 0.02 if quick else 1.0) for run in (ours, peer) if run is not None]
            cells = [f"{t.median * 1e3:.2f} ({t.iqr * 1e3:.2f})" for t in times] + ["-"] * (2 - len(times))
            ratio = f"{times[0].median / times[1].median:.2f}" if len(times) == 2 else "-"
            print(f"{name:28}{cells[0]:>16}{cells[1]:>16}{ratio:>8}")


if __name__ == "__main__":
    main()
