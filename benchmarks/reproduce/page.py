"""results.json, and one page of tables and pictures from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproduce.results import read_values, result_rows
from benchmarks.reproduce.schedule import plan
from benchmarks.reproduce.setups import Protocol, Setup, Table
from benchmarks.reproduce.store import Runs

METRICS = {
    "miou": "mIoU",
    "boundary_f": "boundary F",
    "pixel_accuracy": "pixel accuracy",
    "weight_similarity": "weight similarity",
    "hungarian_accuracy": "accuracy",
    "matched_miou": "mIoU",
    "ap": "AP",
    "ap50": "AP50",
    "rand_error": "adapted Rand error",
}
NOT_PERCENT = {"weight_similarity"}
HEAD = """# The papers' tables in the small

Every row is trained from scratch on the same images, in the same order, mirrored alike, for the same number of steps
as its base, and starts from the base's weights where it has the same ones. Nothing here can be compared with the
papers' own figures, which stand beside for their order: networks and images are a fraction of theirs, weights are not
pretrained, and training takes minutes. What can be read is whether a method moves its base at equal budget. Written by
`python -m benchmarks.reproduce table`.

- **figures** are in per cent, mean ± standard deviation over seeds; the similarity of weights is a cosine.
- **difference** is the mean of method less base, the table's first line, over the seeds that both have, with its 95 %
  interval (Student's t, of this line alone).
- **p** is of the paired t-test, corrected by Holm's method over all lines and metrics of the table; results.json has it
  for every metric, and the exact sign-flip test, which five seeds cannot bring under 0.0625, and three not under 0.25.
- **could be seen**: the smallest difference that as many seeds would find in four of five cases (two-sided, level 0.05,
  not corrected), given how much differences varied. A smaller true effect would mostly be missed: no significant
  difference does not mean none.
"""


def write(
    folder: Path,
    tables: Sequence[Table],
    protocols: Mapping[str, Protocol],
    setups: Mapping[str, Sequence[Setup]],
    runs: Runs,
    prune: bool = False,
) -> None:
    """Writes results.json, README.md and a picture for each data set that has runs.

    Args:
        folder: to write to.
        tables: of the papers.
        protocols, setups: by data set.
        runs: where results are.
        prune: drop the runs of rows that have changed since.
    """
    for name in protocols if prune else ():
        jobs = plan([protocols[name]], setups, seeds=[0])
        runs.prune({(job.setup.name, job.key) for job in jobs}, name)
    values = {name: read_values(protocols[name], setups[name], runs) for name in protocols}
    rows = result_rows(tables, values)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n ".join(json.dumps(row) for row in rows)
    (folder / "results.json").write_text(f"[\n {lines}\n]\n", "utf-8")
    parts = [HEAD]
    for name, protocol in protocols.items():
        own = [table for table in tables if table.dataset == name]
        parts.append(f"## {name}\n\n{describe(protocol, setups[name], runs)}")
        if draw(folder / f"{name}.png", own, rows):
            parts.append(f"![differences on {name}]({name}.png)")
        for table in own:
            mine = [r for r in rows if (r["paper"], r["table"], r["dataset"]) == (table.paper, table.number, name)]
            parts.append(table_text(table, mine))
    (folder / "README.md").write_text("\n\n".join(part.strip() for part in parts) + "\n", "utf-8")


def describe(protocol: Protocol, setups: Sequence[Setup], runs: Runs) -> str:
    """The protocol in words, and how much of it is done.

    Args:
        protocol: of the data set.
        setups: its rows.
        runs: where results are.
    """
    jobs = plan([protocol], {protocol.dataset: setups})
    found = [runs.find(*job.place) for job in jobs]
    done = [record for record in found if record is not None and "values" in record]
    failed = [record for record in found if record is not None and "error" in record]
    rates = ", ".join(f"{rate:g}" if name == "all" else f"{name} {rate:g}" for name, rate in protocol.rates.items())
    network = protocol.options.get("network", {})
    known = ", ".join(f"{name} {value}" for name, value in network.items() if value is not None)
    text = (
        f"{protocol.size[0]} x {protocol.size[1]} pixels, {protocol.steps} steps of {protocol.batch} images, "
        f"{protocol.optimizer}, learning rate {rates}, weight decay {protocol.weight_decay:g}, poly {protocol.power:g}"
        f"{'; ' + known if known else ''}. Judged on {protocol.judged_on}. {protocol.note} "
        f"Done: {len(done)} of {len(jobs)} runs"
    )
    if done:
        seconds = sum(record["seconds"] for record in done)
        text += f", {seconds / 3600:.1f} hours in all"
    if failed:
        text += "; failed: " + ", ".join(f"{r['name']} seed {r['seed']} ({r['error']})" for r in failed)
    return text + "."


def table_text(table: Table, rows: Sequence[Mapping[str, Any]]) -> str:
    """One table in Markdown.

    Args:
        table: what it holds.
        rows: its results.
    """
    by_place = {(row["row"], row["metric"]): row for row in rows}
    head = ["row", "seeds"]
    for place, metric in enumerate(table.metrics):
        head += [METRICS.get(metric, metric), "difference", "p", "could be seen"][: 2 if place else 4]
    with_paper = any(line.paper is not None for line in table.lines)
    if with_paper:
        head.append(f"paper ({table.paper_set})")
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in table.lines:
        own = [by_place[line.run, metric] for metric in table.metrics]
        cells = [line.label, str(len(own[0]["seeds"])) if own[0]["seeds"] else "-"]
        for place, (metric, row) in enumerate(zip(table.metrics, own, strict=True)):
            cells += _cells(row, 1.0 if metric in NOT_PERCENT else 100.0)[: 2 if place else 4]
        if with_paper:
            cells.append("" if line.paper is None else f"{line.paper:g}")
        text.append("| " + " | ".join(cells) + " |")
    title = f"### {table.paper}, Table {table.number}: {table.title}"
    return "\n\n".join(part for part in (title, "\n".join(text), verdict(table, rows), table.note) if part)


def verdict(table: Table, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table's own metric says of each method, in a sentence each; empty before there are two seeds.

    Args:
        table: what it holds.
        rows: its results.
    """
    labels = {line.run: line.label for line in table.lines}
    metric = table.metrics[0]
    better: list[str] = []
    worse: list[str] = []
    unclear: list[str] = []
    for row in rows:
        difference = row["paired_difference"]
        if row["metric"] != metric or difference is None or difference["p_holm"] is None:
            continue
        sure = difference["p_holm"] < 0.05
        (unclear if not sure else better if difference["mean"] > 0 else worse).append(labels[row["row"]])
    found = {"Significantly above": better, "Significantly below": worse, "Not to be told from": unclear}
    parts = [f"{what} {table.lines[0].label}: {'; '.join(names)}." for what, names in found.items() if names]
    return f"By {METRICS.get(metric, metric)}: " + " ".join(parts) if parts else ""


def draw(path: Path, tables: Sequence[Table], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Differences to the base with their intervals and every seed's; whether there is anything to draw.

    Args:
        path: of the picture.
        tables: of one data set.
        rows: results.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = []
    for table in tables:
        metric = table.metrics[0]
        own = [r for r in rows if (r["paper"], r["table"], r["dataset"]) == (table.paper, table.number, table.dataset)]
        base = next(r for r in own if r["row"] == table.lines[0].run and r["metric"] == metric)
        lines = [r for r in own if r["metric"] == metric and (r["paired_difference"] or {}).get("seeds")]
        if lines:
            shown.append((table, dict(zip(base["seeds"], base["values"], strict=True)), lines))
    if not shown:
        path.unlink(missing_ok=True)
        return False
    heights = [len(lines) + 1 for _, _, lines in shown]
    figure, axes = plt.subplots(
        len(shown),
        1,
        figsize=(7, 0.28 * sum(heights) + 0.55 * len(shown)),
        squeeze=False,
        layout="constrained",
        height_ratios=heights,
    )
    for axis, (table, base, lines) in zip(axes[:, 0], shown, strict=True):
        for place, row in enumerate(reversed(lines)):
            difference = row["paired_difference"]
            values = dict(zip(row["seeds"], row["values"], strict=True))
            points = [100 * (values[seed] - base[seed]) for seed in difference["seeds"]]
            axis.plot(points, [place] * len(points), "o", color="0.65", markersize=3)
            if difference["low"] is not None:
                axis.plot([100 * difference["low"], 100 * difference["high"]], [place, place], color="C0")
            axis.plot(100 * difference["mean"], place, "D", color="C0", markersize=4)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_yticks(range(len(lines)), [row["label"] for row in reversed(lines)], fontsize=7)
        axis.set_ylim(-0.6, len(lines) - 0.4)
        axis.tick_params(axis="x", labelsize=7)
        metric = METRICS.get(table.metrics[0], table.metrics[0])
        axis.set_title(f"{table.paper}, Table {table.number}: {metric} less that of {table.lines[0].label}", fontsize=8)
    axes[-1, 0].set_xlabel("points; diamond and line: mean and 95 % interval; grey: each seed", fontsize=7)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
    return True


def _cells(row: Mapping[str, Any], scale: float) -> list[str]:
    """Mean and spread, difference and interval, corrected p, smallest detectable difference."""
    digits = 1 if scale > 1 else 3

    def number(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{scale * value:{sign}.{digits}f}"

    if row["mean"] is None:
        return ["", "", "", ""]
    mean = number(row["mean"]) + (f" ± {number(row['std'])}" if row["std"] is not None else "")
    d = row["paired_difference"]
    if d is None or d["mean"] is None:
        return [mean, "", "", ""]
    span = "" if d["low"] is None else f" ({number(d['low'], '+')} to {number(d['high'], '+')})"
    p = "" if d["p_holm"] is None else "< 0.001" if d["p_holm"] < 0.001 else f"{d['p_holm']:.3f}"
    return [mean, number(d["mean"], "+") + span, p, number(d["smallest_detectable"])]
