"""The graph that merging works on, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LINKAGES = ("plain", "counted", "max", "min")
UNIT = 2.0**24  # sums of the counted rule are whole numbers of 1 / UNIT


@dataclass
class MergeGraph:
    """Edges between nodes that stand for clusters.

    source, target: integers `[E]`. value: floating-point weights, or int64 sums of the counted rule. count: integers,
    how many edges each stands for; empty if each is one. rank: integers in [-2^31, 2^31), what settles ties.
    """

    source: Tensor
    target: Tensor
    value: Tensor
    count: Tensor
    rank: Tensor

    @property
    def weight(self) -> Tensor:
        """float64 `[E]`, by which edges are compared."""
        return self.value if self.value.is_floating_point() else self.value / self.count.double() / UNIT

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of the fields."""
        return self.source, self.target, self.value, self.count, self.rank

    def select(self, kept: Tensor) -> MergeGraph:
        """The edges at these places, or where this mask holds."""
        return MergeGraph(*(part[kept] if len(part) else part for part in self.parts()))

    def relabel(self, label: Tensor) -> MergeGraph:
        """Every node i becomes `label[i]`; pairs need not be distinct after."""
        return MergeGraph(label[self.source], label[self.target], *self.parts()[2:])


@dataclass
class Merges:
    """The pairs of clusters merged, each by a node of theirs, `[M, 2]`, with heights `[M]`, in order; the node that
    stands for the cluster of each node, `[N]`; and the edges left between such nodes, one for each pair.
    """

    pairs: Tensor
    height: Tensor
    label: Tensor
    graph: MergeGraph


@dataclass
class Job:
    """What to merge: edges grouped by image, `rank [E]` and the arguments of `graphseg.ops.agglomerate`."""

    source: Tensor
    target: Tensor
    affinity: Tensor
    rank: Tensor
    stage: Tensor | None
    num_nodes: int
    thresholds: Sequence[float]
    linkage: str
    strict: bool

    def edges(self, stage: int, label: Tensor | None) -> MergeGraph:
        """Those of one stage, between the nodes that stand for clusters by now."""
        value = sums(self.affinity) if self.linkage == "counted" else self.affinity
        graph = MergeGraph(self.source, self.target, value, self.rank.new_zeros(0), self.rank)
        if self.stage is not None:
            graph = graph.select(self.stage == stage)
        return graph if label is None else graph.relabel(label)


Step = Callable[[Job, int, Merges | None], Merges]


def merge_stages(step: Step, job: Job) -> Merges:
    """One stage after the other: `step` joins its edges to the graph that the stages before have left, and merges."""
    done: list[Merges] = []
    for s in range(len(job.thresholds)):
        merges = step(job, s, done[-1] if done else None)
        if done:
            merges.label = merges.label[done[-1].label]
        done.append(merges)
    pairs, height = torch.cat([m.pairs for m in done]), torch.cat([m.height for m in done])
    return Merges(pairs, height, done[-1].label, done[-1].graph)


def sums(affinity: Tensor) -> Tensor:
    """Affinities as whole numbers, int64: sums of them do not depend on the order of addition."""
    return (affinity.double() * UNIT).round().long()


def hashed_rank(position: Tensor) -> Tensor:
    """A fixed bijection of [0, 2^32), less 2^31: ranks as the positions would merge large ties one by one in a row."""
    low = 2**32 - 1
    h = position & low
    h = h ^ (h >> 16)
    h = h * 0x85EBCA6B & low
    h = h ^ (h >> 13)
    h = h * 0xC2B2AE35 & low
    return (h ^ (h >> 16)) - 2**31
