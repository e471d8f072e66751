"""Every example is one short file with `main(argv)`, and runs."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import pytest
import torch

from examples import layers_in_a_cnn, layers_on_rags
from examples._images import read_images
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


@pytest.mark.parametrize("name", ["layers_on_rags", "layers_in_a_cnn"])
def test_networks_with_layers_learn_from_photographs(name: str, tmp_path: Path) -> None:
    """Without data sets the examples take scikit-image's photographs."""
    importlib.import_module(f"examples.{name}").main(["--data", str(tmp_path), "--out", str(tmp_path), "--quick"])
    results = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    majority = results["majority class"][0]["accuracy"]
    trained = [runs[0] for runs in results.values() if "last_loss" in runs[0]]
    assert len(trained) == 4
    for run in trained:
        assert run["last_loss"] < 0.95 * run["first_loss"]
        assert run["accuracy"] > majority + 0.02
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_networks_with_layers_learn_under_autocast(tmp_path: Path) -> None:
    images, _, names = read_images(tmp_path)
    graphs = layers_on_rags.to_graphs(images[:8], len(names))
    stack = layers_in_a_cnn.stack(images[:8])
    losses = {}
    for bf16 in (False, True):
        torch.manual_seed(0)
        nodes = layers_on_rags.Net(graphs[0].num_node_features, len(names))
        pixels = layers_in_a_cnn.Net(stack[0].size(1), len(names))
        losses[bf16] = [layers_on_rags.train(nodes, graphs, 8, bf16), layers_in_a_cnn.train(pixels, stack, 8, bf16)]
    for full, half in zip(losses[False], losses[True], strict=True):
        assert half[0] == pytest.approx(full[0], rel=0.01) and half[0] != full[0]
        assert half[-1] < 0.95 * half[0]
