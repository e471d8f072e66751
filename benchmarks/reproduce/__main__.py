"""The papers' tables in the small, on real data: the same budget and seeds for base and method.

    python -m benchmarks.reproduce run --data FOLDER_OF_SETS [--tables camvid ...] [--rows msp ...] [--seeds 0 1 ...]
                                       [--budget-minutes N]
    python -m benchmarks.reproduce table

`run` does the runs that have no result yet, seed by seed, and adds each to benchmarks/reproduce/runs/SET.jsonl. It can
be stopped at any moment, killed too, and started again; started twice, the processes share the work. `table` writes
results.json and the page README.md with its pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    from benchmarks.reproduce.tables import PROTOCOLS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="do what is missing")
    run.add_argument("--data", type=Path, required=True, help="folder of the sets")
    run.add_argument("--tables", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="data sets (default: all)")
    run.add_argument("--rows", nargs="+", help="only these (default: all)")
    run.add_argument("--seeds", nargs="+", type=int, help="exactly these (default: as many as each row wants)")
    run.add_argument("--budget-minutes", type=float, help="begin no run that would end later")
    run.add_argument("--threads", type=int, default=1, help="of each run (default 1)")
    run.add_argument("--device", default="cpu", help="to train on (default cpu)")
    run.add_argument("--retry", action="store_true", help="try runs again that failed")
    run.add_argument("--results", type=Path, default=HERE, help="folder of results")
    table = commands.add_parser("table", help="results.json and README.md")
    table.add_argument("--results", type=Path, default=HERE, help="folder of results")
    table.add_argument("--prune", action="store_true", help="drop the runs of rows that have changed since")
    options = parser.parse_args(argv)
    return run_tables(options) if options.command == "run" else write_page(options)


def run_tables(options: argparse.Namespace) -> int:
    """Does what is missing; 1 if a run failed."""
    import torch

    from benchmarks.reproduce.runner import execute
    from benchmarks.reproduce.schedule import plan, run_missing
    from benchmarks.reproduce.store import Runs
    from benchmarks.reproduce.tables import PROTOCOLS, SETUPS

    torch.set_num_threads(options.threads)
    protocols = [PROTOCOLS[name] for name in options.tables]
    added = run_missing(
        plan(protocols, SETUPS, options.rows, options.seeds),
        lambda job: execute(job, options.data, torch.device(options.device)),
        Runs(options.results / "runs"),
        budget=None if options.budget_minutes is None else 60 * options.budget_minutes,
        retry=options.retry,
        say=lambda line: print(line, flush=True),
    )
    return int(any("error" in record for record in added))


def write_page(options: argparse.Namespace) -> int:
    """Writes results.json and the page."""
    from benchmarks.reproduce.page import write
    from benchmarks.reproduce.store import Runs
    from benchmarks.reproduce.tables import PROTOCOLS, SETUPS, TABLES

    write(options.results, TABLES, PROTOCOLS, SETUPS, Runs(options.results / "runs"), prune=options.prune)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
