"""The report: one HTML page with pictures, tables, plots and comparisons, which needs nothing beside itself.

Style and script stand in the page, pictures are data in it, and its content policy forbids every request. What comes
from outside (names of files and constructions, reasons of failures) is escaped by the template, or goes as JSON to the
script, which puts it into the page as text. Equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

from graphseg.compare.table import (
    Record,
    Scale,
    best_of,
    column_scale,
    columns,
    dump_json,
    failures,
    find_measure,
)
from graphseg.datasets.whole_file import write_text

__all__ = ["PHOTOGRAPH", "write_report"]

PHOTOGRAPH = ""  # the key of the photograph itself among an image's pictures

_GROUP_TITLES = {
    "summary": ("Summary", "The main measures of each kind."),
    "cost": ("Cost", "What a graph takes to make and to keep."),
    "image": ("Image", "What the nodes keep of the image."),
    "labels": ("Labels", "What the nodes can express of the labels."),
    "structure": ("Structure", "How the edges run."),
    "probe": ("Probe", "What a small GNN learns from the graphs, on images held out."),
    "other": ("Other", "Measures of your own."),
}
_SUMMARY = (
    *("nodes", "edges", "seconds", "explained_variation", "oracle_miou", "boundary_recall", "homophily"),
    *("probe_miou", "probe_epoch_seconds"),
)
_PICTURE_FACTS = ("nodes", "edges", "seconds", "oracle_miou", "explained_variation")
_PLOTS = (  # the first of each row that was measured
    (("nodes", "oracle_miou"), ("nodes", "explained_variation"), ("nodes", "seconds")),
    (
        ("probe_epoch_seconds", "probe_miou"),
        *(("seconds", y) for y in ("probe_miou", "oracle_miou", "explained_variation", "edges")),
    ),
)
_IMAGE_KEYS = ("name", "width", "height", "facts", "short", "drawn")  # what the script reads of an image
_KINDS = (  # how files begin
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
)


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    records: Sequence[Record],
    rows: Sequence[Record] = (),
    comparisons: Sequence[str | Record] = (),
    pictures: Mapping[str, Mapping[str, bytes]] | None = None,
    command: str = "",
    versions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Writes the page.

    Args:
        path: the file; it is replaced whole.
        title: of the page.
        records: dicts of `construction, measure, mean, std, low, high, count`; None or NaN for what is not known.
        rows: dicts of one image and construction each: `construction, image`, and measures or an `error`. They tell how
            many images there were, what failed and why, and what stands under each picture.
        comparisons: sentences, or dicts with a `sentence`, its `measure`, the two constructions `a` and `b`, and
            whether the difference is `significant`.
        pictures: image -> construction -> the bytes of a PNG, JPEG or WebP file, transparent, to be laid over the
            photograph, which stands under the key `PHOTOGRAPH`. See `overlay_picture` and `photograph_picture`.
        command: what made this.
        versions: package -> version.
        notes: sentences that stand under the title.

    Raises:
        KeyError: for a record without `construction`, `measure` or `mean`.
        ValueError: for a picture of another format.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    parts = {name: _source(f"report.{name}") for name in ("css", "js", "html.jinja")}
    names = _constructions(records, rows, pictures or {})
    view = _View(names, records, rows)
    shown = _pictures(pictures or {}, view)
    sentences = _comparisons(comparisons, names)
    style = parts["css"] + _colours(len(names))
    payload = {
        "constructions": names,
        "measures": [view.plotted(measure) for measure in view.measures],
        "images": [
            {key: image[key] for key in ("name", "width", "height", "facts", "short", "drawn")} for image in shown
        ],
    }
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = page.from_string(parts["html.jinja"]).render(
        title=title,
        style=Markup(style),
        script=Markup(parts["js"]),
        style_hash=_hash(style),
        script_hash=_hash(parts["js"]),
        payload=Markup(_script_json(payload)),
        names=names,
        markers=[marker(k) for k in range(len(names))],
        num_images=len({str(row["image"]) for row in rows if "image" in row}) or _largest_count(records),
        tables=view.tables(),
        failures=view.failures(),
        images=shown,
        plots=_plots(view.measures),
        comparisons=sentences,
        command=command,
        versions=versions or {},
        notes=notes,
    )
    write_text(path, text)


class _View:
    """Means of every construction and measure, as they are written."""

    def __init__(self, names: Sequence[str], records: Sequence[Record], rows: Sequence[Record]) -> None:
        self.names = names
        self.rows = rows
        self.grouped = columns(records)
        self.measures = [name for group in self.grouped.values() for name in group]
        self.found = {(str(r["construction"]), str(r["measure"])): {**r, "mean": r["mean"]} for r in records}
        self.scales = {name: column_scale(name, self.means(name)) for name in self.measures}
        self.counts = {name: max(self._count(c, name) for c in names) for name in self.measures}
        self.failed = failures(rows)

    def means(self, measure: str) -> list[float | None]:
        return [self._number(name, measure, "mean") for name in self.names]

    def _number(self, construction: str, measure: str, key: str) -> float | None:
        value = self.found.get((construction, measure), {}).get(key)
        return float(value) if value is not None and math.isfinite(value) else None

    def _count(self, construction: str, measure: str) -> int:
        return int(self.found.get((construction, measure), {}).get("count") or 0)

    def tables(self) -> list[dict[str, Any]]:
        """A summary of all groups, and a table for each; each row of cells is a construction's."""
        if not self.measures:
            return []
        whole = self.measures if len(self.measures) <= len(_SUMMARY) else [m for m in self.measures if m in _SUMMARY]
        if len(self.grouped) == 1 or not whole:
            return [self._table(group, measures) for group, measures in self.grouped.items()]
        summary = self._table("summary", whole)
        rest = [] if whole == self.measures else [self._table(group, found) for group, found in self.grouped.items()]
        return [summary, *rest]

    def _table(self, group: str, measures: Sequence[str]) -> dict[str, Any]:
        title, about = _GROUP_TITLES[group]
        heads = [{"name": name, **find_measure(name)._asdict(), "scale": self.scales[name]} for name in measures]
        best = {name: best_of(find_measure(name).better, self.means(name)) for name in measures}
        cells = [[self._cell(construction, name, best[name]) for name in measures] for construction in self.names]
        spans = [(_GROUP_TITLES[g][0], len(list(found))) for g, found in groupby(heads, lambda head: head["group"])]
        above = spans if group == "summary" else []
        return {"id": group, "title": title, "about": about, "above": above, "columns": heads, "rows": cells}

    def _cell(self, construction: str, measure: str, best: float | None) -> dict[str, Any]:
        scale = self.scales[measure]
        mean, std, low, high = (self._number(construction, measure, key) for key in ("mean", "std", "low", "high"))
        count = self._count(construction, measure)
        unit = f" {scale.unit}" if scale.unit else ""
        over = f"{count} {find_measure(measure).over}" + "s" * (count != 1)
        about = [f"mean over {over}"] if count else []
        if std is not None:
            about.append(f"standard deviation {scale.write(std)}{unit}")
        return {
            "mean": scale.write(mean),
            "range": _range(scale, low, high),
            "fewer": over if 0 < count < self.counts[measure] else "",
            "best": best is not None and scale.write(mean) == scale.write(best),
            "about": ", ".join(about),
        }

    def failures(self) -> dict[str, dict[str, Any]]:
        """Construction -> how many of its images failed, and each reason with its images."""
        result = {}
        for name, reasons in self.failed.items():
            total = sum(str(row["construction"]) == name for row in self.rows)
            failed = sum(map(len, reasons.values()))
            result[name] = {"failed": failed, "total": total, "reasons": list(reasons.items())}
        return result

    def plotted(self, measure: str) -> dict[str, Any]:
        """What the script needs of a measure."""
        scale, entry = self.scales[measure], find_measure(measure)
        keys = ("mean", "low", "high")
        values = [[self._number(construction, measure, key) for key in keys] for construction in self.names]
        about = {"label": entry.label, "group": _GROUP_TITLES[entry.group][0], "better": entry.better}
        return {"name": measure, **about, **scale._asdict(), "values": values}


def _range(scale: Scale, low: float | None, high: float | None) -> str:
    """An interval; nothing where it is not known or no wider than a digit."""
    ends = scale.write(low), scale.write(high)
    if low is None or high is None or ends[0] == ends[1]:
        return ""
    return (" to " if low < 0 else "–").join(ends)


def _source(name: str) -> str:
    return resources.files("graphseg.compare").joinpath(name).read_text(encoding="utf-8")


def _constructions(
    records: Sequence[Record], rows: Sequence[Record], pictures: Mapping[str, Mapping[str, bytes]]
) -> list[str]:
    """Every name once, rows first: they have the order in which constructions were given."""
    drawn = [name for picture in pictures.values() for name in picture if name != PHOTOGRAPH]
    return list(dict.fromkeys([*(str(r["construction"]) for r in (*rows, *records)), *drawn]))


def _largest_count(records: Sequence[Record]) -> int:
    return max((int(record.get("count") or 0) for record in records), default=0)


def _pictures(pictures: Mapping[str, Mapping[str, bytes]], view: _View) -> list[dict[str, Any]]:
    """Per image: its size, the photograph and overlays as data, and facts for each construction."""
    rows = {(str(row["image"]), str(row["construction"])): row for row in view.rows if "image" in row}
    scales = {
        name: view.scales.get(name) or column_scale(name, [row.get(name) for row in rows.values()])
        for name in _PICTURE_FACTS
    }
    found = []
    for image, files in pictures.items():
        files = {name: data for name, data in files.items() if data}
        if not files:
            continue
        first = files.get(PHOTOGRAPH, next(iter(files.values())))
        width, height = _size(first)
        facts = [_facts(rows.get((str(image), name)), scales) for name in view.names]
        short = [" · ".join(found[:2]) for found in facts]
        found.append(
            {
                "name": str(image),
                "width": width,
                "height": height,
                "photograph": _data_uri(files[PHOTOGRAPH]) if PHOTOGRAPH in files else None,
                "overlays": [_data_uri(files[name]) if name in files else None for name in view.names],
                "drawn": [name in files for name in view.names],
                "facts": [" · ".join(found) for found in facts],
                "short": short,
            }
        )
    return found


def _facts(row: Record | None, scales: Mapping[str, Scale]) -> list[str]:
    if row is None:
        return []
    if row.get("error") is not None:
        return [f"failed: {row['error']}"]
    found = []
    for name, scale in scales.items():
        value = row.get(name)
        if value is not None and math.isfinite(value):
            label, unit = find_measure(name).label, f" {scale.unit}" if scale.unit else ""
            after = name in ("nodes", "edges")
            text = scale.write(value)
            found.append(f"{text} {label}" if after else f"{text}{unit}" if unit else f"{label} {text}")
    return found


def _size(data: bytes) -> tuple[int, int]:
    from PIL import Image

    _data_kind(data)
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def _data_kind(data: bytes) -> str:
    for begin, kind in _KINDS:
        if data.startswith(begin):
            return kind
    raise ValueError(f"got a picture that begins with {data[:8]!r}, expected a PNG, JPEG or WebP file")


def _data_uri(data: bytes) -> str:
    return f"data:{_data_kind(data)};base64,{base64.b64encode(data).decode()}"


def _plots(measures: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of measures that are plotted at first."""
    found = [next(((x, y) for x, y in choice if x in measures and y in measures), None) for choice in _PLOTS]
    shown = [pair for pair in found if pair is not None]
    return shown or ([(measures[0], measures[-1])] if len(measures) > 1 else [])


def _comparisons(comparisons: Sequence[str | Record], names: Sequence[str]) -> list[dict[str, Any]]:
    """By measure: sentences, significant ones first, each with the places of its two constructions."""
    place = {name: k for k, name in enumerate(names)}
    grouped: dict[str, list[dict[str, Any]]] = {}
    for entry in comparisons:
        record: Record = {"sentence": entry} if isinstance(entry, str) else entry
        grouped.setdefault(str(record.get("measure", "")), []).append(
            {
                "sentence": str(record["sentence"]),
                "ends": [place[str(record[end])] for end in ("a", "b") if str(record.get(end)) in place],
                "significant": record.get("significant"),
            }
        )
    result = []
    for measure, sentences in grouped.items():
        sentences.sort(key=lambda sentence: not sentence["significant"])
        judged = [sentence["significant"] for sentence in sentences if sentence["significant"] is not None]
        result.append(
            {
                "title": find_measure(measure).label if measure else "",
                "sentences": sentences,
                "judged": len(judged),
                "significant": sum(map(bool, judged)),
            }
        )
    return result


def marker(k: int) -> int:
    """The shape of construction k, of four: another one each time the colours start again."""
    from graphseg.plot import PALETTE

    return (k + k // len(PALETTE)) % 4


def _colours(count: int) -> str:
    from graphseg.plot import PALETTE

    return "".join(f".c{k}{{--c:{PALETTE[k % len(PALETTE)]}}}\n" for k in range(count))


def _script_json(value: Any) -> str:
    """JSON that may stand in a script element: no `<` ends it, no line separator breaks it."""
    text = dump_json(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
