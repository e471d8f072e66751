"""From runs to the rows of the papers' tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reproduce.paired import compare_seeds, correct, spread
from benchmarks.reproduce.schedule import plan
from benchmarks.reproduce.setups import Protocol, Setup, Table
from benchmarks.reproduce.store import Runs

Values = dict[str, dict[str, dict[int, float]]]  # line -> metric -> seed -> value


def read_values(protocol: Protocol, setups: Sequence[Setup], runs: Runs) -> Values:
    """The figures of all finished runs of a data set. Runs of rows that have changed since do not count.

    Args:
        protocol: of the data set.
        setups: its rows.
        runs: where results are.
    """
    keys = {job.setup.name: job.key for job in plan([protocol], {protocol.dataset: setups}, seeds=[0])}
    found: Values = {}
    for record in runs.read(protocol.dataset):
        if record["key"] != keys.get(record["name"]):
            continue
        for variant, metrics in record.get("values", {}).items():
            line = f"{record['name']}/{variant}" if variant else record["name"]
            for metric, value in metrics.items():
                found.setdefault(line, {}).setdefault(metric, {}).setdefault(record["seed"], value)
    return found


def result_rows(tables: Sequence[Table], values: Mapping[str, Values]) -> list[dict[str, Any]]:
    """One row for every line and metric of every table, those without a run yet included.

    Args:
        tables: the papers' tables.
        values: by data set, as `read_values` gives them.

    Returns:
        Rows of `paper, table, row, label, dataset, metric, seeds, values, mean, std, paired_difference` (None for the
        base), the last with `base` and `p_holm` beside what `compare_seeds` gives. Holm's correction is over all lines
        and metrics of the table.
    """
    rows = []
    for table in tables:
        known = values.get(table.dataset, {})
        base = table.lines[0]
        own = []
        for line in table.lines:
            for metric in table.metrics:
                found = dict(sorted(known.get(line.run, {}).get(metric, {}).items()))
                row: dict[str, Any] = {
                    "paper": table.paper,
                    "table": table.number,
                    "row": line.run,
                    "label": line.label,
                    "dataset": table.dataset,
                    "metric": metric,
                    "seeds": list(found),
                    "values": list(found.values()),
                    **(spread(list(found.values())) if found else {"mean": None, "std": None}),
                    "paired_difference": None,
                }
                if line is not base:
                    other = known.get(base.run, {}).get(metric, {})
                    row["paired_difference"] = {"base": base.run, **compare_seeds(found, other)}
                own.append(row)
        compared = [row["paired_difference"] for row in own if row["paired_difference"] is not None]
        for difference, p in zip(compared, correct([d["p"] for d in compared]), strict=True):
            difference["p_holm"] = p
        rows += own
    return rows
