"""`main`: one command of `graphseg`, from its words to the exit status."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from graphseg import __version__
from graphseg.cli.answer import EXIT, FAILED, INTERRUPTED, WRONG_USE, say
from graphseg.cli.comparing import add_compare
from graphseg.cli.evaluating import add_evaluate
from graphseg.cli.graphs import add_build, add_inspect, add_plot
from graphseg.cli.segmenting import add_segment
from graphseg.cli.training import add_train

__all__ = ["main", "make_parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: its words; default those of the command line.

    Returns:
        The exit status.
    """
    try:
        options = make_parser().parse_args(argv)
        options.command_line = shlex.join(["graphseg", *(sys.argv[1:] if argv is None else argv)])
    finally:
        say("", end="")  # the help goes out now
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        print("graphseg: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ImportError, LookupError) as error:
        print(f"graphseg: {error}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError) as error:
        print(f"graphseg: {error}", file=sys.stderr)
        return WRONG_USE
    return status


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        "graphseg",
        description="Images become graphs, graphs become segmentations.",
        epilog=EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (add_build, add_inspect, add_plot, add_compare, add_train, add_evaluate, add_segment):
        add(commands)
    return parser
