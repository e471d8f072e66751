"""Which construction when: the default constructions on photographs, street scenes, objects, scenes from above, nuclei.

    python -m benchmarks.constructions --data FOLDER_OF_SETS [--sets camvid ...] [--reports FOLDER] [--workers 2]

For each set results go to benchmarks/constructions/SET (JSON, CSV, plots), the tables to tables.md; reports, which
show images, to the folder of reports. What was measured before is not measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphseg.compare import ProbeOptions, compare
from graphseg.compare.run import versions
from graphseg.compare.table import column_scale, find_measure
from graphseg.datasets import BSDS500, DSB2018, MSRC21, CamVid, ImageReader, Sentinel2

HERE = Path(__file__).parent
SETS: dict[str, tuple[str, Any, str | None]] = {
    "bsds500": ("bsds500", BSDS500, "val"),
    "camvid": ("camvid", CamVid, None),
    "msrc21": ("msrc21", MSRC21, None),
    "sentinel2": ("sentinel2_rgbnir", Sentinel2, None),
    "dsb2018": ("dsb2018", DSB2018, "val"),
}
SHOWN = (
    *("nodes", "edges", "seconds", "bytes_disk", "explained_variation", "compactness"),
    *("oracle_accuracy", "oracle_miou", "boundary_recall", "boundary_precision", "undersegmentation_error"),
    *("adjusted_homophily", "path_length", "reach_3", "probe_miou", "probe_accuracy", "probe_epoch_seconds"),
)


def read(name: str, data: Path, count: int) -> ImageReader:
    """`count` images of a set, taken evenly; of sets with splits half of train and half of val."""
    folder, kind, split = SETS[name]
    reader: ImageReader = kind(data / folder, split)
    parts = [reader] if split is not None else [reader.split("train"), reader.split("val")]
    ids = []
    for part in parts:
        own = list(part.indices())
        share = min(len(own), count // len(parts))
        ids += [own[k * len(own) // share] for k in range(share)]
    return kind(data / folder, split).index_select(ids)


def table(records: Sequence[dict[str, Any]]) -> str:
    """Means of the main measures as a Markdown table; of probe_miou with its interval."""
    found = {(r["construction"], r["measure"]): r for r in records}
    names = list(dict.fromkeys(r["construction"] for r in records))
    shown = [m for m in SHOWN if any((name, m) in found for name in names)]
    scales = {m: column_scale(m, [found[n, m]["mean"] if (n, m) in found else None for n in names]) for m in shown}
    head = [f"{find_measure(m).label}" + (f" [{scales[m].unit}]" if scales[m].unit else "") for m in shown]
    lines = ["| construction | " + " | ".join(head) + " |", "|---" * (len(shown) + 1) + "|"]
    for name in names:
        cells = []
        for m in shown:
            record = found.get((name, m))
            text = scales[m].write(None if record is None else record["mean"])
            if record is not None and m == "probe_miou" and record.get("low") is not None:
                text += f" ({scales[m].write(record['low'])} to {scales[m].write(record['high'])})"
            cells.append(text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--images", type=int, default=60, help="of each set; of bsds500 all 100 of val")
    parser.add_argument("--no-probe", action="store_true", help="do not train the probe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reports", type=Path, default=Path("constructions-output"), help="folder for the reports")
    options = parser.parse_args(argv)
    for name in options.sets:
        count = 100 if name == "bsds500" else options.images
        reader = read(name, options.data, count)
        begin = time.perf_counter()
        out = options.reports / name
        result = compare(
            reader,
            out=out,
            probing=not options.no_probe and ProbeOptions(images=count),
            workers=options.workers,
            command=f"python -m benchmarks.constructions --data FOLDER_OF_SETS --sets {name} --images {count}",
        )
        own = HERE / name
        own.mkdir(exist_ok=True)
        for file in ("results.json", "results.csv"):
            shutil.copyfile(out / file, own / file)
        for plot in out.glob("plot_*.png"):
            shutil.copyfile(plot, own / plot.name)
        sentences = [pair["sentence"] for pair in result.comparisons]
        about = {
            "images": len(reader),
            "seconds": round(time.perf_counter() - begin, 1),
            "workers": options.workers,
            "failed": sum("error" in row for row in result.rows),
            "versions": versions(),
            "notes": [note for note in result.notes if not note.startswith(str(options.data))],
            "comparisons": sentences,
        }
        (own / "about.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
        print(f"{name}: {len(reader)} images, {about['seconds']} s")
    write_tables()


def write_tables() -> None:
    """Writes tables.md from the results of all sets that are there."""
    parts = [
        "# The default constructions on five sets",
        "Means over images; `python -m benchmarks.constructions` makes this.",
    ]
    for name in SETS:
        own = HERE / name
        if (own / "results.json").is_file():
            about = json.loads((own / "about.json").read_text("utf-8"))
            records = json.loads((own / "results.json").read_text("utf-8"))
            parts += [f"## {name}", f"{about['images']} images.", table(records)]
    (HERE / "tables.md").write_text("\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
