"""Agglomerative merge of a graph: the strongest edge first; one rule, two engines, one answer.

The rules: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation", Algorithm 1 (`plain`); average
linkage over edge counts, as public code and GASP have it (`counted`); single and complete linkage (`max`, `min`); and
Wolf et al., "The Mutex Watershed" (`mutex`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from graphseg._checks import (
    check_choice,
    check_integer,
    check_positive_int,
    check_same_device,
    check_shape,
    check_tensor,
)
from graphseg.ops._merge_graph import LINKAGES, Merges
from graphseg.ops._merge_rounds import run_rounds
from graphseg.ops._merge_sequential import run_sequential

__all__ = ["Agglomeration", "agglomerate"]

_MOST = 2**30  # nodes, and edges: the kernels count both ends of an edge in 32 bits


@dataclass(frozen=True)
class Agglomeration:
    """What `agglomerate` makes of a graph of N nodes: K clusters by M merges.

    Args:
        assignment: int64 `[N]`, the cluster of each node; clusters are numbered from 0 by their smallest node.
        children: int64 `[M, 2]`, what each merge took, the smaller id first: 0 to N - 1 are nodes, N + m is what merge
            m made. Merges are ordered by image, stage, and as they happened: by falling height within a stage.
        height: float64 `[M]`, the weight of the edge between the two when they merged.
        edge_index: int64 `[2, E]`, pairs of clusters with an edge left, smaller id first, in lexicographic order.
        edge_weight: float64 `[E]`, the weights of those edges.
    """

    assignment: Tensor
    children: Tensor
    height: Tensor
    edge_index: Tensor
    edge_weight: Tensor


def agglomerate(
    edge_index: Tensor,
    affinity: Tensor,
    num_nodes: int,
    threshold: float | Sequence[float],
    linkage: str = "plain",
    batch: Tensor | None = None,
    *,
    stage: Tensor | None = None,
    engine: str = "auto",
    strict: bool = False,
) -> Agglomeration:
    """Merges the two clusters with the strongest edge between them, again and again, while it reaches the threshold.

    At first every node is a cluster. Edges (i, j) and (j, i) are the same, loops are ignored. When clusters u and v
    have merged, the edge to a neighbour k follows from those of u and v to k by the rule; if only one of them has an
    edge to k, it is taken over. Of equally strong edges the one with the smaller rank comes first: a fixed hash of its
    position among the edges of its image, and for an edge made of several the largest of theirs. So there is one
    answer, to the bit, whatever the engine, the device, the number of threads and the rest of the batch.

    Args:
        edge_index: `[2, E]`, int64 or int32.
        affinity: `[E]` in [0, 1], how likely the two ends lie in the same object; for `mutex` in [-1, 1].
        num_nodes: N.
        threshold: edges weaker than this are not merged; with stages, a number for each.
        linkage: `plain`, the mean of the two edges (Algorithm 1); `counted`, the mean of all edges between two clusters
            (of affinities rounded to 2^-24); `max`; `min`; or `mutex`: by falling absolute affinity, every edge merges
            its clusters (affinity >= 0) unless that is forbidden, or forbids it for good (affinity < 0).
        batch: int64 `[N]`, the image of each node, not falling. No edge may lead from one to another. Default: one.
        stage: integers `[E]`, 0 to S - 1: edges of a stage join the clusters that the stages before have made. Those
            between the same two clusters are combined first (`plain`: their mean), then with the edge that is there by
            the rule. Default: all in one stage.
        engine: "sequential": one by one, on CPU. "rounds": many pairs at a time by tensor operations, on any device;
            few rounds for `counted`, `max` and `min`, many for `plain`. "auto": the first on CPU, the second elsewhere.
        strict: merge above the threshold only, not at it.

    Returns:
        An `Agglomeration`. Edges left by `mutex` have the affinity of the first edge between the two clusters.

    Raises:
        TypeError, ValueError: for other dtypes and shapes, ids outside [0, N), affinities that are NaN or out of range,
            an edge between two images, more than 2^30 nodes or edges, or `mutex` in rounds.
    """
    check_choice("linkage", linkage, (*LINKAGES, "mutex"))
    check_choice("engine", engine, ("auto", "sequential", "rounds"))
    given = {"edge_index": edge_index, "affinity": affinity, "batch": batch, "stage": stage}
    tensors = {n: check_tensor(n, t) for n, t in given.items() if t is not None or n in ("edge_index", "affinity")}
    check_same_device(**tensors)
    _check_graph(edge_index, affinity, num_nodes, -1 if linkage == "mutex" else 0)
    thresholds = _checked_thresholds(threshold, stage, edge_index)
    device = edge_index.device
    if engine == "auto":
        engine = "sequential" if device.type == "cpu" or linkage == "mutex" else "rounds"
    if engine == "rounds" and linkage == "mutex":
        raise ValueError("got linkage='mutex' with engine='rounds', expected engine='sequential' or 'auto'")

    affinity = affinity.detach().to(torch.promote_types(affinity.dtype, torch.float32))
    if batch is None:
        node_start = torch.tensor([0, num_nodes], device=device)
        edge_start = torch.tensor([0, len(affinity)], device=device)
    else:
        batch, image = _checked_images(batch, edge_index, num_nodes)
        if bool((image[1:] < image[:-1]).any()):
            image, order = image.sort(stable=True)
            edge_index, affinity = edge_index[:, order], affinity[order]
            stage = None if stage is None else stage[order]
        images = torch.arange(int(batch[-1]) + 2 if num_nodes else 2, device=device)
        node_start, edge_start = torch.searchsorted(batch, images), torch.searchsorted(image, images)
    run = run_sequential if engine == "sequential" else run_rounds
    merges = run(edge_index, affinity, stage, node_start, edge_start, thresholds, linkage, strict)
    return _assembled(merges, num_nodes, batch)


def _assembled(merges: Merges, num_nodes: int, batch: Tensor | None) -> Agglomeration:
    """Numbers clusters and merges."""
    from graphseg.ops.kernels import merge as kernels

    label, pairs, height, graph = merges.label, merges.pairs, merges.height, merges.graph
    device = label.device
    if batch is not None:
        order = batch[pairs[:, 0]].argsort(stable=True)
        pairs, height = pairs[order], height[order]
    node = torch.arange(num_nodes, device=device)
    smallest = torch.full_like(node, num_nodes).scatter_reduce_(0, label, node, "amin")[label]
    assignment = ((smallest == node).cumsum(0) - 1)[smallest]
    first, second = pairs.T.cpu().contiguous().numpy()
    children = torch.from_numpy(kernels.tree(first, second, num_nodes)).to(device)
    ends = torch.stack([assignment[graph.source], assignment[graph.target]])
    low, high = ends.amin(0), ends.amax(0)
    order = (low * num_nodes + high).argsort()
    return Agglomeration(assignment, children, height, torch.stack([low, high])[:, order], graph.weight[order])


def _check_graph(edge_index: Tensor, affinity: Tensor, num_nodes: int, lowest: int) -> None:
    check_positive_int("num_nodes", num_nodes, 0)
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"got dtype {edge_index.dtype} for edge_index, expected torch.int64 or torch.int32")
    check_shape("edge_index", edge_index, (2, None))
    E = edge_index.shape[1]
    if num_nodes > _MOST or E > _MOST:
        raise ValueError(f"got {num_nodes} nodes and {E} edges, expected at most 2^30 of each")
    if not affinity.is_floating_point():
        raise TypeError(f"got dtype {affinity.dtype} for affinity, expected a floating-point dtype")
    check_shape("affinity", affinity, (E,))
    if not E:
        return
    low, high = (int(bound) for bound in edge_index.aminmax())
    if low < 0 or high >= num_nodes:
        raise ValueError(
            f"got ids {low} to {high} in edge_index, expected 0 to {num_nodes - 1} for num_nodes={num_nodes}"
        )
    least, most = (float(bound) for bound in affinity.detach().aminmax())
    if not (least >= lowest and most <= 1):  # NaN among them makes both NaN
        raise ValueError(f"got values from {least} to {most} in affinity, expected [{lowest}, 1]")


def _checked_thresholds(threshold: float | Sequence[float], stage: Tensor | None, edge_index: Tensor) -> list[float]:
    given = list(threshold) if isinstance(threshold, Sequence) else [threshold]
    if not all(isinstance(t, Real) for t in given):  # the letters of a string are none either
        raise TypeError(f"got threshold={threshold!r}, expected a number, or a list of one for each stage")
    thresholds = [float(t) for t in given]
    if not thresholds or any(t != t for t in thresholds):
        raise ValueError(f"got threshold={threshold}, expected a number, or one for each stage")
    if stage is None:
        if len(thresholds) > 1:
            raise ValueError(f"got {len(thresholds)} thresholds but no stage, expected one threshold")
        return thresholds
    check_integer("stage", stage)
    check_shape("stage", stage, (edge_index.shape[1],))
    if stage.numel():
        low, high = (int(bound) for bound in stage.aminmax())
        if low < 0 or high >= len(thresholds):
            raise ValueError(f"got stages {low} to {high}, expected 0 to {len(thresholds) - 1}, one for each threshold")
    return thresholds


def _checked_images(batch: Tensor, edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """The image of each node and of each edge, numbered without gaps."""
    if batch.dtype != torch.int64:
        raise TypeError(f"got dtype {batch.dtype} for batch, expected torch.int64")
    check_shape("batch", batch, (num_nodes,))
    if num_nodes and (int(batch[0]) < 0 or bool((batch[1:] < batch[:-1]).any())):
        raise ValueError("got a batch that is negative or falls, expected the image of each node, in rising order")
    batch = torch.unique_consecutive(batch, return_inverse=True)[1]
    image, other = batch[edge_index[0]], batch[edge_index[1]]
    if not torch.equal(image, other):
        e = int((image != other).nonzero()[0])
        raise ValueError(f"got edge {e} from one image to another, expected edges within images")
    return batch, image
