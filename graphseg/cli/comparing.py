"""`graphseg compare`: graph constructions side by side."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from graphseg.cli.answer import DONE, EXIT, FAILED, WITH_ERRORS, say
from graphseg.cli.images import add_data, make_reader

__all__ = ["add_compare"]

_COMPARE = """examples:
  graphseg compare photos --out report
  graphseg compare photos --labels masks --ignore-index 255 --out report --workers 2
  graphseg compare photos --labels masks --num-classes 3 --constructions "slic * rag" hierarchy --out report
  graphseg compare camvid --dataset camvid --max-images 60 --out report

OUT gets report.html (one page, for any browser, that needs no network), results.json and results.csv (a record for each
construction and measure), images.csv (a line for each construction and image), comparisons.json and plots. The same
command again does only what is missing or has changed, also after it was killed.

"""


def add_compare(commands: Any) -> None:
    """Adds the command compare.

    Args:
        commands: of the parser.
    """
    compare = commands.add_parser(
        "compare",
        help="measure graph constructions on a folder of images",
        description="Measure graph constructions on a folder of images, side by side.",
        epilog=_COMPARE + EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.set_defaults(run=_compare, error=compare.error)
    add_data(compare)
    compare.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write, or to go on with")
    what = compare.add_argument_group("what is compared")
    what.add_argument(
        "--constructions",
        nargs="+",
        metavar="NAME",
        help="names, patterns (slic * rag) or words (knn) of the default set; a wrong name lists them (default: all)",
    )
    what.add_argument("--max-images", type=int, metavar="N", help="only so many images, taken evenly")
    what.add_argument(
        "--no-probe", action="store_true", help="do not train the probe (a small GNN; it takes the most time)"
    )
    what.add_argument("--probe-images", type=int, metavar="N", help="that take part in the probe (default 60)")
    what.add_argument("--probe-steps", type=int, metavar="N", help="of training (default 200)")
    what.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default 0)")
    what.add_argument("--pictures", type=int, default=4, metavar="N", help="images that the report shows (default 4)")
    work = compare.add_argument_group("work")
    work.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    work.add_argument("--quiet", action="store_true", help="no progress bar and no table")


def _compare(options: argparse.Namespace) -> int:
    from graphseg.compare import ProbeOptions, choose, compare, default_constructions, format_table

    if options.out.resolve().is_relative_to(options.images.resolve()):
        options.error(f"got --out {options.out} inside {options.images}, expected another place: it gets pictures")
    reader = make_reader(options)
    constructions = default_constructions(reader.num_classes, reader.ignore_index)
    if options.constructions is not None:
        constructions = choose(options.constructions, constructions)
    if options.max_images is not None:
        if options.max_images < 1:
            options.error(f"got --max-images {options.max_images}, expected at least 1")
        count = min(options.max_images, len(reader))
        reader = reader.index_select([k * len(reader) // count for k in range(count)])
    budget = {"images": options.probe_images, "steps": options.probe_steps}
    given = {name: value for name, value in budget.items() if value is not None}
    result = compare(
        reader,
        constructions,
        out=options.out,
        probing=not options.no_probe and ProbeOptions(**given),
        workers=options.workers,
        seed=options.seed,
        num_pictures=options.pictures,
        progress=False if options.quiet else None,
        command=options.command_line,
    )
    if not options.quiet:
        say(format_table(result.records, result.rows, width=shutil.get_terminal_size((120, 24)).columns))
        for note in result.notes:
            print(f"note: {note}", file=sys.stderr)
    say(f"the report: {options.out / 'report.html'}")
    if not result.records:
        return FAILED
    return WITH_ERRORS if any("error" in row for row in result.rows) or reader.bad_files else DONE
