"""The small network of a probe, and the parts of graphs that it reads."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


@dataclass(frozen=True)
class GraphPart:
    """Nodes that some pixels need, renumbered: those that hold them, and all that messages reach them from."""

    x: Tensor  # [n, F]
    edge_index: Tensor  # [2, e], sources rise
    edge_weight: Tensor  # [e]
    counts: Tensor  # int64 [n, K], the pixels


def join_parts(parts: Sequence[GraphPart]) -> GraphPart:
    """Several images side by side."""
    sizes = torch.tensor([len(part.x) for part in parts])
    starts = (sizes.cumsum(0) - sizes).tolist()
    return GraphPart(
        torch.cat([part.x for part in parts]),
        torch.cat([part.edge_index + start for part, start in zip(parts, starts, strict=True)], 1),
        torch.cat([part.edge_weight for part in parts]),
        torch.cat([part.counts for part in parts]),
    )


class ProbeNetwork(nn.Module):
    """The same small network for every construction; only its first map depends on the number of features."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self, mean: Tensor, scale: Tensor, hidden: int, layers: int, num_classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        # The first map comes last: all others then start from the same random numbers, whatever its size.
        self.own = nn.ModuleList(_linear(hidden, hidden, generator) for _ in range(layers))
        self.near = nn.ModuleList(_linear(hidden, hidden, generator, bias=False) for _ in range(layers))
        self.middle = _linear(hidden, hidden, generator)
        self.last = _linear(hidden, num_classes, generator)
        self.first = _linear(len(mean), hidden, generator)

    def forward(self, part: GraphPart, mean: tuple[Tensor, Tensor] | None) -> Tensor:
        x = ((part.x - self.mean) / self.scale).to(torch.float32)  # [n, F]
        h = self.first(x).relu()  # [n, hidden]
        for own, near in zip(self.own, self.near, strict=True):
            g = _normalised(h)
            message = own(g) if mean is None else own(g) + near(_Product.apply(g, *mean))
            h = h + message.relu()
        logits: Tensor = self.last(self.middle(_normalised(h)).relu())  # [n, K]
        return logits


def _normalised(h: Tensor) -> Tensor:
    return nn.functional.layer_norm(h, h.shape[1:])


def _linear(inputs: int, outputs: int, generator: torch.Generator, bias: bool = True) -> nn.Linear:
    """As torch starts it, from random numbers of its own."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


class _Product(Function):
    """A h, with A and its transpose given: both are read row by row."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return torch.sparse.mm(matrix, h)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return torch.sparse.mm(ctx.transposed, grads[0]), None, None


def neighbour_mean(part: GraphPart) -> tuple[Tensor, Tensor] | None:
    """The matrix that takes the weighted mean over the sources of each node's edges, and its transpose."""
    n, (source, target) = len(part.x), part.edge_index
    if not source.numel():
        return None
    total = torch.bincount(target, weights=part.edge_weight.to(torch.float64), minlength=n)[target]
    weight = (part.edge_weight / total.where(total > 0, 1.0)).to(torch.float32)
    order = target.argsort(stable=True)
    return _rows(target[order], source[order], weight[order], n), _rows(source, target, weight, n)


def _rows(row: Tensor, column: Tensor, values: Tensor, n: int) -> Tensor:
    """A sparse n x n matrix; its rows rise."""
    _quiet()
    start = torch.zeros(n + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=n), 0, out=start[1:])
    return torch.sparse_csr_tensor(start, column, values, (n, n), check_invariants=False)


@functools.cache
def _quiet() -> None:
    """Lets torch say once, unheard, that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()


def pixel_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean cross-entropy over pixels: `- sum counts * log_softmax(logits) / sum counts`, both `[n, K]`."""
    return -(counts * logits.log_softmax(1)).sum() / counts.sum().clamp(min=1)
