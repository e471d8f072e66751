"""None of the papers' equations is missing: a module promises each, and so has it on a line of code."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

EQUATIONS = {
    "MSP: Refine Boundary Segmentation via Multiscale Superpixel": {*range(1, 8)},
    # 9 to 15 are an argument about gradients, which tests/nn/test_superpixel_crf.py follows.
    "ES-CRF: Embedded Superpixel CRF for Semantic Segmentation": {*range(1, 9)},
    "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural Networks": {*range(1, 23)},
    "Affinity Derivation and Graph Merge for Instance Segmentation": {*range(1, 7)},
    "Class-wise Dynamic Graph Convolution for Semantic Segmentation": {*range(1, 6)},
}  # fmt: skip


@pytest.mark.parametrize("paper", EQUATIONS)
def test_no_equation_of_the_paper_is_missing(paper):
    promised = set()
    for path in (ROOT / "graphseg").rglob("*.py"):
        text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
        if paper in text:
            promised |= {int(number) for number in re.findall(r"Eq\. ?\((\d+)\)", text)}
    assert EQUATIONS[paper] - promised == set()
