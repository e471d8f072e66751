"""README.md keeps its word: its programs run as printed, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunPython

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.is_file() else ""


def python_blocks(text: str) -> dict[int, str]:
    """Line number of the first line of each ```python block -> the block."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {text[: match.start(1)].count("\n") + 1: match[1] for match in found}


def relative_links(text: str) -> list[str]:
    """Targets of Markdown links and pictures, and of src= and href=, that are paths in the project."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose) + re.findall(r"""(?:src|href)=["']([^"']+)""", prose)
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


def make_commands(text: str) -> set[str]:
    """Targets named as `make target`, in running text or in a block of commands."""
    blocks = re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)
    found = [match for block in blocks for match in re.findall(r"^make ([a-z]+)", block, re.MULTILINE)]
    return {*found, *re.findall(r"(?:^ {4}|`)make ([a-z]+)", text, re.MULTILINE)}


def makefile_targets(text: str) -> set[str]:
    return set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


BLOCKS = python_blocks(TEXT)


def test_readers_of_markdown() -> None:
    links = "a [b](c.md#d) ![e](f.png) [g](https://h.i) [j](#k)\n"
    text = links + "```python\nx[0](1)\n```\n`make l`\n<img src='m.png'>\n"
    assert python_blocks(text) == {3: "x[0](1)\n"}
    assert relative_links(text) == ["c.md", "f.png", "m.png"]
    assert make_commands(text + "```\nmake n\n```\nmake o\n\n    make p\n") == {"l", "n", "p"}
    assert makefile_targets("a: b\n\tc: d\ne:\n.PHONY: f\n") == {"a", "e"}


def test_there_are_programs() -> None:
    assert README.is_file()
    assert BLOCKS


@pytest.mark.parametrize("line", list(BLOCKS))
def test_program_runs_as_printed(line: int, tmp_path: Path, run_python: RunPython) -> None:
    script = tmp_path / f"readme_line_{line}.py"
    script.write_text(BLOCKS[line], encoding="utf-8")
    run_python(str(script))


def test_links_and_pictures_exist() -> None:
    missing = [target for target in relative_links(TEXT) if not (ROOT / target).exists()]
    assert missing == []
    assert any(target.endswith((".png", ".jpg", ".svg")) for target in relative_links(TEXT))


def test_commands_exist() -> None:
    named = make_commands(TEXT)
    assert {"demo", "test"} <= named
    assert named <= makefile_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
