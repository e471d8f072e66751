"""Timing peers side by side: results checked equal first, runs interleaved, medians and quartiles reported."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

OURS = "graphseg"
PEERS = (
    *("torch", "torch-geometric", "numba", "numpy", "scipy", "scikit-image"),
    *("bioimage-cpp", "higra", "torch-cluster", "torch-scatter"),
)


@dataclass(frozen=True)
class Row:
    """One contender at one piece of work. Times are in milliseconds; without them `note` says why."""

    work: str
    name: str
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    note: str = ""


def race(
    work: str, contenders: Mapping[str, Callable[[], Any] | str], repeats: int = 15, per: int = 1, budget: float = 20.0
) -> list[Row]:
    """Times all contenders in turn, `repeats` times over, after one call of each that is not counted.

    A contender given as a string was left out, and the string says why. `per` divides the times (images in a batch).
    A contender that has spent `budget` seconds is not called again (three calls at least).
    """
    runs = {name: call for name, call in contenders.items() if not isinstance(call, str)}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for call in runs.values():
        call()
    for _ in range(repeats):
        for name, call in runs.items():
            if len(spent[name]) >= 3 and sum(spent[name]) > budget:
                continue
            time.sleep(0.02)  # the threads of the contender before go on spinning for a while
            begin = time.perf_counter()
            call()
            synchronize()
            spent[name].append((time.perf_counter() - begin) * 1e3 / per)
    rows = []
    for name, contender in contenders.items():
        if isinstance(contender, str):
            rows.append(Row(work, name, note=contender))
            continue
        low, median, high = statistics.quantiles(spent[name], n=4)
        rows.append(Row(work, name, median, (low, high)))
    return rows


def synchronize() -> None:
    """Waits for the GPU where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def show(rows: Sequence[Row]) -> None:
    """Prints one table per piece of work, each time with its ratio to ours."""
    for work in dict.fromkeys(row.work for row in rows):
        group = [row for row in rows if row.work == work]
        ours = next((row.median for row in group if row.name == OURS), None)
        print(f"\n{work}")
        for row in group:
            if row.median is None or row.quartiles is None:
                print(f"  {row.name:<34} {'-':>10}   {row.note}")
                continue
            ratio = f"{row.median / ours:8.2f} x" if ours else ""
            print(f"  {row.name:<34} {row.median:10.3f} ms  [{row.quartiles[0]:.3f}, {row.quartiles[1]:.3f}]  {ratio}")


def environment() -> dict[str, Any]:
    """Machine and versions that a result belongs to."""
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": found,
    }


def save(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows and environment as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"environment": environment(), "rows": [asdict(row) for row in rows]}, indent=1)
    path.write_text(text + "\n")


def parse(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """`--out FILE` and `--repeats N`, the same for every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file")
    parser.add_argument("--repeats", type=int, default=15, help="calls of each contender (default 15)")
    return parser.parse_args(argv)


def finish(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Prints the tables and writes the file that was asked for."""
    show(rows)
    if options.out is not None:
        save(options.out, rows)
        print(f"\nwritten to {options.out}")
