"""What all kernels share: they may meet torch.compile before they were ever called."""

from __future__ import annotations

from tests.conftest import RunPython

PROGRAM = """
import torch
from graphseg.ops import pool, rag_edges

def model(x, labels):
    return pool(x, labels).relu().sum() + rag_edges(labels.view(8, 8))[0].sum()

x, labels = torch.rand(64, 3), torch.arange(64) // 16
assert torch.equal(torch.compile(model, backend="eager")(x, labels), model(x, labels))
print("same")
"""


def test_the_first_call_of_a_kernel_may_be_inside_compiled_code(run_python: RunPython) -> None:
    assert run_python("-c", PROGRAM).stdout.split()[-1] == "same"
