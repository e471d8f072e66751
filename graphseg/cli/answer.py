"""What all commands share: exit statuses, what the help says of them, answers on standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphseg.datasets import BadFile

__all__ = ["EXIT", "named_values", "option", "say", "say_left_out"]

DONE, WITH_ERRORS, WRONG_USE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130

EXIT = """exit status:
  0    all is done
  1    done, except for files that are listed; OUT/errors.jsonl has one JSON object a line: file, reason
  2    wrong use: the message says what was expected
  3    it could not be done: no such folder, no room on the disk, ...; what was made before is kept
  130  interrupted; the same command goes on where it stopped
"""


def say(text: str, end: str = "\n") -> None:
    """Prints an answer.

    Args:
        text: the answer.
        end: what follows it.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:  # whoever reads the answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_left_out(errors: Sequence[BadFile], where: str = "") -> None:
    """Names the first few files that were left out, on standard error.

    Args:
        errors: the files.
        where: the place where all of them are listed.
    """
    for bad in errors[:5]:
        print(f"  {bad.file}: {bad.reason}", file=sys.stderr)
    if errors and where:
        print(f"  all of them: {where}", file=sys.stderr)


def option(name: str) -> str:
    """`num_segments` as it is typed.

    Args:
        name: of an argument.
    """
    return "--" + name.replace("_", "-")


def named_values(options: argparse.Namespace, name: str, words: Iterable[str] | None) -> dict[str, Any]:
    """What NAME=VALUE words say; values are JSON, or else text.

    Args:
        options: of the command.
        name: of the argument that took the words.
        words: NAME=VALUE, or None.
    """
    found = {}
    for text in words or ():
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            options.error(f"got {option(name)} {text}, expected NAME=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
