"""Doing what is missing: one run at a time, the same seed of all rows before the next seed, within a budget of time."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.reproduce.setups import Protocol, Setup
from benchmarks.reproduce.store import Record, Runs


@dataclass(frozen=True)
class Job:
    """One run to do: a row of a data set, and a seed."""

    protocol: Protocol
    setup: Setup
    base: Setup | None
    seed: int

    @property
    def key(self) -> str:
        """Of the run, without its seed."""
        return self.setup.key(self.protocol, self.base)

    @property
    def place(self) -> tuple[str, str, int, str]:
        """What the results know it by."""
        return self.protocol.dataset, self.setup.name, self.seed, self.key


Execute = Callable[[Job], tuple[Mapping[str, Mapping[str, float]], Mapping[str, Any]]]


def plan(
    protocols: Sequence[Protocol],
    setups: Mapping[str, Sequence[Setup]],
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Job]:
    """All runs in their order: seed by seed, so that tables are balanced at every moment; extra rows come last.

    Args:
        protocols: of the data sets.
        setups: by the name of the data set.
        rows: only these. Default: all.
        seeds: exactly these. Default: as many as each row wants.

    Raises:
        ValueError: for a row that no data set has.
    """
    known = {setup.name for protocol in protocols for setup in setups[protocol.dataset]}
    if rows is not None and (unknown := [row for row in rows if row not in known]):
        raise ValueError(f"got rows {', '.join(unknown)}, expected some of {', '.join(sorted(known))}")
    jobs = []
    for protocol in protocols:
        by_name = {setup.name: setup for setup in setups[protocol.dataset]}
        for setup in by_name.values():
            if rows is None or setup.name in rows:
                base = by_name[setup.base] if setup.base is not None else None
                wanted = range(setup.seeds) if seeds is None else seeds
                jobs += [Job(protocol, setup, base, seed) for seed in wanted]
    return sorted(jobs, key=lambda job: (job.setup.extra, job.seed))


def run_missing(
    jobs: Sequence[Job],
    execute: Execute,
    runs: Runs,
    *,
    budget: float | None = None,
    retry: bool = False,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Does the runs that have no result yet, until all are there or the budget would be exceeded.

    Processes that do the same jobs at once share them out. A run that fails is recorded as such, and is not tried again
    without `retry`.

    Args:
        jobs: in their order.
        execute: does one; returns metrics by variant, and details.
        runs: where results are.
        budget: in seconds; a run that would not end in time, as its like took before, is not begun. Default: none.
        retry: try failed runs again.
        say: gets a line on each run.

    Returns:
        The records that were added.
    """
    begin, added = time.monotonic(), []
    for job in jobs:
        with runs.claim(*job.place) as ours:
            found = runs.find(*job.place)
            if not ours or (found is not None and ("values" in found or not retry)):
                continue
            spent = time.monotonic() - begin
            if budget is not None and spent + expected_seconds(job, runs) > budget:
                say(f"{_name(job)}: left for later, {max(budget - spent, 0) / 60:.1f} minutes are left")
                continue
            record = _do(job, execute)
            runs.add(record)
            added.append(record)
            say(f"{_name(job)}: {record['seconds']:.0f} s  {_summary(record)}")
    return added


def expected_seconds(job: Job, runs: Runs) -> float:
    """The median of this row's finished runs, else the longest of its data set; 0 where nothing is known."""
    done = [r for r in runs.read(job.protocol.dataset) if "values" in r]
    own = [r["seconds"] for r in done if r["key"] == job.key]
    return statistics.median(own) if own else max((r["seconds"] for r in done), default=0.0)


def _do(job: Job, execute: Execute) -> Record:
    dataset, name, seed, key = job.place
    record: Record = {"dataset": dataset, "name": name, "seed": seed, "key": key}
    begin = time.perf_counter()
    try:
        values, details = execute(job)
        record |= {"values": {v: dict(found) for v, found in values.items()}, "details": dict(details)}
    except Exception as error:  # one row that fails must not keep the others from running
        record["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return {**record, "seconds": round(time.perf_counter() - begin, 1)}


def _name(job: Job) -> str:
    return f"{job.protocol.dataset} {job.setup.name} seed {job.seed}"


def _summary(record: Record) -> str:
    if "error" in record:
        return f"FAILED: {record['error']}"
    parts = []
    for variant, metrics in record["values"].items():
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        parts.append(f"[{variant}] {shown}" if variant else shown)
    return "  ".join(parts)
