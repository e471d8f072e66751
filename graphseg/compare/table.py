"""Results as text: the table in a terminal, CSV and JSON; and what each measure is called, its unit and its best end.

A record is a dict with `construction, measure, mean, std, low, high, count` (`low` and `high` bound the 95 % confidence
interval of the mean over images). Files are written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graphseg._checks import check_positive_int
from graphseg.datasets.whole_file import write_text

__all__ = [
    "GROUPS",
    "MEASURES",
    "Measure",
    "Scale",
    "column_scale",
    "find_measure",
    "format_table",
    "write_csv",
    "write_json",
]

Record = Mapping[str, Any]

GROUPS = ("cost", "image", "labels", "structure", "probe", "other")


class Measure(NamedTuple):
    """What a measure is called and how it reads.

    Fields:
        label: for people.
        group: one of `GROUPS`.
        unit: "s", "B", "px", "hops", "share" (a number of about 0 to 1), "count", or "" for a plain number.
        better: "low", "high", or None where neither end is.
        about: one sentence.
        over: what means are taken over.
    """

    label: str
    group: str
    unit: str = ""
    better: str | None = None
    about: str = ""
    over: str = "image"


MEASURES: dict[str, Measure] = {
    "seconds": Measure("build time", "cost", "s", "low", "Time to make the graph of one image."),
    "nodes": Measure("nodes", "cost", "count", "low", "Nodes of the graph."),
    "edges": Measure("edges", "cost", "count", "low", "Directed edges of the graph."),
    "mean_degree": Measure("mean degree", "cost", "", None, "Edges per node."),
    "bytes_memory": Measure("in memory", "cost", "B", "low", "Size of all tensors of the graph."),
    "bytes_disk": Measure("on disk", "cost", "B", "low", "Size of the graph as a file."),
    "explained_variation": Measure(
        "explained variation", "image", "share", "high", "Share of the colour variance that node means keep."
    ),
    "compactness": Measure(
        "compactness", "image", "share", "high", "How round the regions are; 1 is a disc of the same area."
    ),
    "components": Measure("components", "image", "count", None, "Connected components of the graph."),
    "purity": Measure(
        "purity", "labels", "share", "high", "Share of a node's labelled pixels of its majority class, mean over nodes."
    ),
    "oracle_accuracy": Measure(
        "oracle accuracy", "labels", "share", "high", "Pixel accuracy if every node had its majority class: a ceiling."
    ),
    "oracle_miou": Measure(
        "oracle mIoU", "labels", "share", "high", "Mean IoU if every node had its majority class: a ceiling."
    ),
    "boundary_recall": Measure(
        "boundary recall", "labels", "share", "high", "Share of label boundaries that lie near a border of nodes."
    ),
    "boundary_precision": Measure(
        "boundary precision", "labels", "share", "high", "Share of borders of nodes that lie near a label boundary."
    ),
    "undersegmentation_error": Measure(
        "underseg. error", "labels", "share", "low", "Share of pixels in nodes that leak over a label boundary."
    ),
    "homophily": Measure(
        "homophily", "structure", "share", "high", "Share of edges that join nodes of the same majority class."
    ),
    "adjusted_homophily": Measure(
        "adjusted homophily", "structure", "share", "high", "Homophily above chance for these class frequencies."
    ),
    "boundary_edges": Measure(
        "boundary edges", "structure", "share", "low", "Share of edges that join nodes of different classes."
    ),
    "path_length": Measure(
        "path length", "structure", "hops", None, "Mean number of edges on the shortest path between two nodes."
    ),
    "spectral_gap": Measure(
        "spectral gap", "structure", "", None, "How well the graph mixes; near 0 it has bottlenecks."
    ),
    "reach_1": Measure("reach, 1 layer", "structure", "px", None, "How far a GNN of one layer sees."),
    "reach_2": Measure("reach, 2 layers", "structure", "px", None, "How far a GNN of two layers sees."),
    "reach_3": Measure("reach, 3 layers", "structure", "px", None, "How far a GNN of three layers sees."),
    "probe_miou": Measure(
        "probe mIoU", "probe", "share", "high", "Mean IoU of a small GNN, pixels of held-out images together.", "seed"
    ),
    "probe_accuracy": Measure(
        "probe accuracy", "probe", "share", "high", "Pixel accuracy of a small GNN on held-out images.", "seed"
    ),
    "probe_image_miou": Measure(
        "probe mIoU per image", "probe", "share", "high", "Mean IoU of a small GNN on a held-out image."
    ),
    "probe_image_accuracy": Measure(
        "probe accuracy per image", "probe", "share", "high", "Pixel accuracy of a small GNN on a held-out image."
    ),
    "probe_coverage": Measure("coverage", "probe", "share", "high", "Share of labelled pixels that belong to a node."),
    "probe_epoch_seconds": Measure(
        "time per epoch", "probe", "s", "low", "Time to train on every training image once.", "seed"
    ),
}

_STEPS = {
    "s": ((1.0, "s"), (1e3, "ms"), (1e6, "µs")),
    "B": ((1e-9, "GB"), (1e-6, "MB"), (1e-3, "kB"), (1.0, "B")),
}


class Scale(NamedTuple):
    """How the numbers of one column are written: times `factor`, with `decimals`, in `unit`.

    A number that these decimals make 0 is written as a power of ten if the column has such `tiny` ones.
    """

    factor: float
    unit: str
    decimals: int
    tiny: bool = False

    def write(self, value: float | None) -> str:
        """The number without its unit; "–" for none, NaN and infinity."""
        if value is None or not math.isfinite(value):
            return "–"
        scaled = value * self.factor
        text = f"{scaled:,.{self.decimals}f}"
        if text.strip("-0.,"):
            return text
        return text.lstrip("-") if scaled == 0 or not self.tiny else f"{scaled:.1e}".replace("e-0", "e-")


def find_measure(name: str) -> Measure:
    """The entry of a measure; one that is not known is called after its name and stands in the group "other".

    Args:
        name: such as "oracle_miou".
    """
    return MEASURES.get(name) or Measure(name.replace("_", " "), "other")


def column_scale(name: str, values: Iterable[float | None]) -> Scale:
    """One unit and one number of decimals for all `values` of a measure, so that they line up.

    Times and sizes take the largest unit in which the smallest value is at least 1; decimals give the median three
    digits.

    Args:
        name: of the measure.
        values: its means; None, NaN and infinity do not count.
    """
    unit = find_measure(name).unit
    sizes = sorted(abs(float(v)) for v in values if v is not None and math.isfinite(v) and v != 0)
    if unit == "share":
        return Scale(1.0, "", 3)
    if unit == "count" and all(size == round(size) for size in sizes):
        return Scale(1.0, "", 0)
    shown = "" if unit == "count" else unit
    factor = 1.0
    if unit in _STEPS:
        steps = _STEPS[unit]
        factor, shown = next(((f, u) for f, u in steps if sizes and sizes[0] * f >= 1), steps[-1 if sizes else 0])
    if unit == "B" and factor == 1:
        return Scale(1.0, shown, 0)
    median = sizes[len(sizes) // 2] * factor if sizes else 1.0
    most = 1 if unit in ("count", "px") else 4
    decimals = min(most, max(0, 2 - math.floor(math.log10(median))))
    return Scale(factor, shown, decimals, tiny=unit == "")


def columns(records: Iterable[Record]) -> dict[str, list[str]]:
    """The measures that occur: group -> names, both in their order of display."""
    names = list(dict.fromkeys(str(record["measure"]) for record in records))
    order = {name: position for position, name in enumerate(MEASURES)}
    names.sort(key=lambda name: order.get(name, len(order)))
    found = {group: [name for name in names if find_measure(name).group == group] for group in GROUPS}
    return {group: names for group, names in found.items() if names}


def failures(rows: Iterable[Record]) -> dict[str, dict[str, list[str]]]:
    """Rows with an error: construction -> reason -> images, the most frequent reason first."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.get("error") is not None:
            reasons = found.setdefault(str(row["construction"]), {})
            reasons.setdefault(str(row["error"]), []).append(str(row.get("image", "")))
    return {name: dict(sorted(reasons.items(), key=lambda item: -len(item[1]))) for name, reasons in found.items()}


def format_table(records: Sequence[Record], rows: Iterable[Record] = (), *, width: int = 100) -> str:
    """The results as text for a terminal: means with the half-width of their 95 % confidence interval.

    One block for each group of measures, broken where it grows wider than `width`. A star marks the best mean of a
    column, and those that are written the same.

    Args:
        records: see the module.
        rows: one for each image and construction; those with an `error` are counted and named below.
        width: columns of the terminal.

    Returns:
        Lines without a newline at the end; nothing for no records and no errors.

    Raises:
        KeyError: for a record without `construction`, `measure` or `mean`.
    """
    check_positive_int("width", width)
    rows = list(rows)
    constructions = list(dict.fromkeys(str(r["construction"]) for r in (*records, *rows)))
    cells = {(str(r["construction"]), str(r["measure"])): r for r in records}
    names = [printable(name) for name in constructions]
    lines: list[str] = []
    for group, measures in columns(records).items():
        texts = [_column(name, [cells.get((c, name)) for c in constructions]) for name in measures]
        for block in _blocks(texts, max([len(group), *map(_wide, names)]), width):
            lines += ["", *_block_lines(group, names, block)]
    for name, reasons in failures(rows).items():
        total = sum(str(row["construction"]) == name for row in rows)
        failed = sum(map(len, reasons.values()))
        lines += ["", f"{printable(name)} failed on {failed} of {total} images:"]
        lines += [f"  {len(images)} x {printable(reason)}" for reason, images in reasons.items()]
    return "\n".join(lines[1:])


def _column(name: str, found: Sequence[Record | None]) -> list[str]:
    """Head, unit and one text for each construction."""
    measure = find_measure(name)
    means = [None if record is None else record["mean"] for record in found]
    scale = column_scale(name, means)
    best = best_of(measure.better, means)
    texts = []
    for record, mean in zip(found, means, strict=True):
        text = scale.write(mean)
        half = _half_width(record)
        if text != "–" and half is not None:
            text += f" ±{scale.write(half)}"
        is_best = best is not None and scale.write(mean) == scale.write(best)
        texts.append(text + ("*" if is_best else " "))
    return [printable(measure.label) + " ", f"[{scale.unit}] " if scale.unit else "", *texts]


def best_of(better: str | None, means: Sequence[float | None]) -> float | None:
    """The best of several means; None where no end is better, or for fewer than two.

    Args:
        better: "low", "high" or None.
        means: None and NaN do not count.
    """
    known = [mean for mean in means if mean is not None and math.isfinite(mean)]
    if better is None or len(known) < 2:
        return None
    return max(known) if better == "high" else min(known)


def _half_width(record: Record | None) -> float | None:
    low, high = (None, None) if record is None else (record.get("low"), record.get("high"))
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return float(high - low) / 2


def _blocks(texts: list[list[str]], first: int, width: int) -> list[list[list[str]]]:
    blocks: list[list[list[str]]] = []
    used = width
    for column in texts:
        needed = 2 + max(map(_wide, column))
        if used + needed > width or not blocks:
            blocks.append([])
            used = first
        blocks[-1].append(column)
        used += needed
    return blocks


def _block_lines(group: str, names: Sequence[str], block: list[list[str]]) -> list[str]:
    left = [group, "", *names]
    wide = [max(map(_wide, column)) for column in (left, *block)]
    lines = []
    for k in range(len(left)):
        parts = [left[k] + " " * (wide[0] - _wide(left[k]))]
        parts += [" " * (w - _wide(column[k])) + column[k] for column, w in zip(block, wide[1:], strict=True)]
        lines.append("  ".join(parts).rstrip())
    lines = [line for k, line in enumerate(lines) if line or k != 1]  # no line of units where there are none
    lines.insert(len(lines) - len(names), "-" * (sum(wide) + 2 * len(block) - 1))
    return lines


def printable(text: str) -> str:
    """`text` on one line, without characters that steer a terminal.

    Args:
        text: any string; what cannot be printed becomes its escape.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _wide(text: str) -> int:
    """Columns of a terminal that `text` fills."""
    marks = ("Mn", "Me", "Cf")
    return sum(
        0 if unicodedata.category(c) in marks else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def write_csv(path: str | os.PathLike[str], records: Sequence[Record]) -> None:
    """Writes dicts as CSV, one line each; the columns are all keys in the order they appear.

    Args:
        path: the file; it is replaced whole.
        records: any dicts. NaN and None are empty cells; numbers keep all their digits.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for record in records for key in record)), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: "" if _is_nan(value) else value for key, value in record.items()})
    write_text(path, text.getvalue())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes standard JSON, NaN and infinities as null; of a list each element stands on a line of its own.

    Args:
        path: the file; it is replaced whole.
        value: lists, dicts, strings and numbers, numpy's and torch's single values too.
    """
    if isinstance(value, (list, tuple)):
        text = "[\n" + ",\n".join(dump_json(element) for element in value) + "\n]\n" if value else "[]\n"
    else:
        text = dump_json(value, indent=2) + "\n"
    write_text(path, text)


def dump_json(value: Any, indent: int | None = None) -> str:
    """Standard JSON: what JSON has no number for is null.

    Args:
        value: as for `write_json`.
        indent: spaces for each level; None for one line.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element) for element in value]
    if not isinstance(value, (str, int, float)) and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
