"""Agglomerative merge in rounds of tensor operations, on any device: many pairs at a time, with the same result.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation", Algorithm 1.
Equations: Eq. (3) nodes after a merge; Eq. (4) edges after a merge.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphseg.ops._merge_graph import Job, MergeGraph, Merges, hashed_rank, merge_stages

_LAST = 2**31  # after all ranks


def run_rounds(
    edge_index: Tensor,
    affinity: Tensor,
    stage: Tensor | None,
    node_start: Tensor,
    edge_start: Tensor,
    thresholds: Sequence[float],
    linkage: str,
    strict: bool,
) -> Merges:
    """Merges all images at once.

    Args:
        edge_index, affinity, stage: the graph, edges grouped by image.
        node_start, edge_start: `[B + 1]`, the first node and edge of each image.
        thresholds, linkage, strict: as for `graphseg.ops.agglomerate`.
    """
    E = len(affinity)
    position = torch.arange(E, device=affinity.device)
    position -= edge_start[:-1].repeat_interleave(edge_start.diff(), output_size=E)
    source, target = edge_index.long()
    nodes = int(node_start[-1])
    job = Job(source, target, affinity.double(), hashed_rank(position), stage, nodes, thresholds, linkage, strict)
    return merge_stages(merge_rounds, job)


def merge_rounds(job: Job, stage: int, before: Merges | None) -> Merges:
    """Joins the edges of a stage, and merges pairs of clusters that merge whatever else does, until there are none.

    An edge made of two is never stronger than the stronger one. So two clusters that are each other's best merge at
    that weight sooner or later; and a sum, a maximum or a minimum over the edges between two sets of nodes does not
    depend on the order of merges. A plain average does: there a pair must also come before all edges of its neighbours.
    """
    num_nodes, linkage, threshold = job.num_nodes, job.linkage, job.thresholds[stage]
    graph = job.edges(stage, None if before is None else before.label)
    graph.count = torch.ones_like(graph.source)
    graph = _combined(graph, num_nodes, linkage)
    if before is not None:
        graph = _combined(_concatenated(before.graph, graph), num_nodes, linkage)
    nodes = torch.arange(num_nodes, device=graph.source.device)
    label = nodes
    done: list[tuple[Tensor, Tensor, Tensor]] = []
    while True:
        weight = graph.weight
        chosen = _first_of_all(graph, weight, num_nodes, hops=2 if linkage == "plain" else 1)
        chosen &= weight > threshold if job.strict else weight >= threshold
        at = chosen.nonzero().squeeze(1)
        source, target = graph.source[at], graph.target[at]
        done.append((torch.stack([source, target], 1), weight[at], graph.rank[at]))
        if not len(at):
            break
        onto = nodes.clone()
        onto[target] = source
        label = onto[label]  # Eq. (3): v is known as u
        moved = torch.zeros(num_nodes, dtype=torch.bool, device=nodes.device)
        moved[source] = moved[target] = True
        touched = moved[graph.source] | moved[graph.target]
        changed = _combined(graph.select(touched).relabel(onto), num_nodes, linkage)
        graph = _concatenated(graph.select(~touched), changed)  # Eq. (4)
    pairs, height, rank = (torch.cat(parts) for parts in zip(*done, strict=True))
    order = rank.argsort()
    order = order[height[order].argsort(descending=True, stable=True)]
    return Merges(pairs[order], height[order], label, graph)


def _first_of_all(graph: MergeGraph, weight: Tensor, num_nodes: int, hops: int) -> Tensor:
    """Where an edge comes before all others at its ends; with two hops, before those at their neighbours as well."""
    ends, others = torch.cat([graph.source, graph.target]), torch.cat([graph.target, graph.source])
    best, first = _first(ends, weight.repeat(2), graph.rank.repeat(2), num_nodes)
    if hops == 2:
        nodes = torch.arange(num_nodes, device=ends.device)
        at, of = torch.cat([ends, nodes]), torch.cat([others, nodes])
        best, first = _first(at, best[of], first[of], num_nodes)
    won = [(weight == best[end]) & (graph.rank == first[end]) for end in (graph.source, graph.target)]
    return won[0] & won[1]


def _first(index: Tensor, weight: Tensor, rank: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """The largest weight at each node, and the smallest rank with it."""
    best = weight.new_full((num_nodes,), -1.0).scatter_reduce_(0, index, weight, "amax")
    rank = rank.where(weight == best[index], _LAST)
    return best, rank.new_full((num_nodes,), _LAST).scatter_reduce_(0, index, rank, "amin")


def _concatenated(graph: MergeGraph, other: MergeGraph) -> MergeGraph:
    return MergeGraph(*(torch.cat(parts) for parts in zip(graph.parts(), other.parts(), strict=True)))


def _combined(graph: MergeGraph, num_nodes: int, linkage: str) -> MergeGraph:
    """One edge for each pair, without loops: its value by the rule from all parallel ones, its rank their latest."""
    low, high = torch.minimum(graph.source, graph.target), torch.maximum(graph.source, graph.target)
    key, order = torch.where(low < high, low * num_nodes + high, -1).sort(stable=True)
    loops = torch.searchsorted(key, 0, side="left") if len(key) else 0
    key, order = key[loops:], order[loops:]
    graph = graph.select(order)
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] > key[:-1]
    group, start = first.cumsum(0) - 1, first.nonzero().squeeze(1)

    def reduced(x: Tensor, how: str) -> Tensor:
        return x.new_zeros(len(start)).scatter_reduce_(0, group, x, how, include_self=False)

    if linkage == "counted":
        value, count = (torch.zeros_like(start).index_add_(0, group, x) for x in (graph.value, graph.count))
    else:
        value = _mean(graph.value, group, start) if linkage == "plain" else reduced(graph.value, f"a{linkage}")
        count = graph.count[start]
    key = key[start]
    source = key.div(max(num_nodes, 1), rounding_mode="floor")
    return MergeGraph(source, key - source * num_nodes, value, count, reduced(graph.rank, "amax"))


def _mean(value: Tensor, group: Tensor, start: Tensor) -> Tensor:
    """The mean of each group, whatever the order of its values: sums in whole units of 2^-31 and 2^-62."""
    scaled = value * 2.0**31
    whole = scaled.floor()
    high, low = (
        torch.zeros_like(start).index_add_(0, group, part.long()).double()
        for part in (whole, ((scaled - whole) * 2.0**31).round())
    )
    size = torch.zeros_like(start).index_add_(0, group, torch.ones_like(group))
    two = (value[start] + value[(start + 1).clamp(max=len(value) - 1)]) / 2
    many = (high * 2.0**-31 + low * 2.0**-62) / size
    return torch.where(size == 1, value[start], torch.where(size == 2, two, many))
