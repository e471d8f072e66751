"""Every example is one short file with `main(argv)`, and runs."""

from __future__ import annotations

import ast
import importlib
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.io import imread

from examples import folder_to_classifier, layers_in_a_cnn, layers_on_rags
from examples._images import read_images
from graphseg import cli
from graphseg.cli.answer import WITH_ERRORS
from graphseg.transforms import ToSuperpixelRAG
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


RUN_BELOW = "folder_to_classifier"


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem != RUN_BELOW], ids=lambda path: path.stem)
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


def test_a_folder_becomes_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maps that are written have the scores that are said; the command that is printed builds the same."""
    folder_to_classifier.main(["--out", str(tmp_path), "--quick"])
    command, left_out = capsys.readouterr().out.splitlines()[:2]
    assert "007.png" in left_out and "without its mask" in left_out
    written = sorted((tmp_path / "predictions").iterdir())
    assert len(written) == 16
    found = np.concatenate([imread(path).ravel() for path in written])
    true = np.concatenate([imread(tmp_path / "photographs/masks" / path.name).ravel() for path in written])

    def mean_iou(found: np.ndarray) -> float:
        pairs = [(found == k, true == k) for k in range(4)]
        return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))

    scores = json.loads((tmp_path / "folder_to_classifier.json").read_text(encoding="utf-8"))
    assert scores["mean_iou"] == pytest.approx(mean_iou(found), abs=1e-6)
    assert 1.5 * max(mean_iou(np.full_like(true, k)) for k in range(4)) < scores["mean_iou"] < scores["oracle"] < 1
    assert (tmp_path / "folder_to_classifier.png").stat().st_size > 10_000

    monkeypatch.setattr(ToSuperpixelRAG, "forward", lambda *_: pytest.fail("built again"))
    assert cli.main(shlex.split(command)[1:]) == WITH_ERRORS
