"""Every example is one short file with `main(argv)`, and runs."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("_"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_one_short_guarded_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    assert len(text.splitlines()) <= 150
    assert ast.get_docstring(ast.parse(text))
    assert [node.name for node in body if isinstance(node, ast.FunctionDef)].count("main") == 1
    assert isinstance(body[-1], ast.If)
    assert ast.unparse(body[-1].test) == "__name__ == '__main__'"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--out", str(tmp_path / "out")]
    if '"--quick"' in path.read_text(encoding="utf-8"):
        arguments.append("--quick")
    example = importlib.import_module(f"examples.{path.stem}")
    assert not example.main(arguments)
    assert any((tmp_path / "out").iterdir())
