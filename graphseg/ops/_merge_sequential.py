"""Agglomerative merge one by one, on CPU: images are shared out to threads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphseg.ops._merge_graph import LINKAGES, Job, MergeGraph, Merges, merge_stages

_SLOTS = 3  # of the hash table, for each edge


def run_sequential(
    edge_index: Tensor,
    affinity: Tensor,
    stage: Tensor | None,
    node_start: Tensor,
    edge_start: Tensor,
    thresholds: Sequence[float],
    linkage: str,
    strict: bool,
) -> Merges:
    """Merges images one by one, or in as many parts as there are threads; arguments as `run_rounds`."""
    from graphseg.ops.kernels import merge as kernels
    from graphseg.ops.kernels.threads import map_threads

    device = edge_index.device
    edge_index, affinity = edge_index.cpu(), affinity.cpu()
    stage = None if stage is None else stage.cpu()
    node_start, edge_start = node_start.cpu(), edge_start.cpu()
    rank = torch.from_numpy(kernels.hashed_ranks(edge_start.numpy()))

    def run(images: slice) -> Merges:
        start = slice(images.start, images.stop + 1)
        first, last = node_start[start][[0, -1]].tolist()
        part = slice(*edge_start[start][[0, -1]].tolist())
        source, target = (end[part] - first if first else end[part] for end in edge_index)
        stages, nodes = None if stage is None else stage[part], last - first
        job = Job(source, target, affinity[part], rank[part], stages, nodes, thresholds, linkage, strict)
        merges = _watershed(job) if linkage == "mutex" else merge_stages(merge_sequential, job)
        graph = merges.graph
        graph.source, graph.target = graph.source + first, graph.target + first
        return Merges(merges.pairs + first, merges.height, merges.label + first, graph)

    parts = map_threads(run, _shares(edge_start))
    graphs = zip(*(part.graph.parts() for part in parts), strict=True)
    whole = [torch.cat(tensors).to(device) for tensors in graphs]
    pairs, height, label = (torch.cat([getattr(p, n) for p in parts]).to(device) for n in ("pairs", "height", "label"))
    return Merges(pairs, height, label, MergeGraph(*whole))


def _shares(edge_start: Tensor) -> list[slice]:
    """Consecutive images for each thread, with about equally many edges."""
    images, threads = len(edge_start) - 1, torch.get_num_threads()
    goals = torch.arange(1, threads) * int(edge_start[-1]) // threads
    cuts = sorted({0, images, *torch.searchsorted(edge_start, goals).clamp(max=images).tolist()})
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def merge_sequential(job: Job, stage: int, before: Merges | None) -> Merges:
    """Joins the edges of a stage, and merges the strongest pair while it reaches the threshold."""
    from graphseg.ops.kernels import merge as kernels

    N, code = job.num_nodes, LINKAGES.index(job.linkage)
    records = _records(job.edges(stage, None if before is None else before.label), N, code)
    if before is not None and len(before.graph.rank):
        parts = zip(before.graph.parts(), _left(records, code).parts(), strict=True)
        records = _records(MergeGraph(*(torch.cat(pair) for pair in parts)), N, code)
    E = len(records)
    # Room for the table, the queue and the lists: numpy asks for large pages, a kernel does not.
    room = [np.empty(size, np.int32) for size in (_SLOTS * E + 8, E, 2 * E)]
    merged = kernels.merge(*_views(records), N, code, job.thresholds[stage], job.strict, *room)
    pairs, height, label = (torch.from_numpy(part) for part in merged)
    return Merges(pairs.long(), height, label.long(), _left(records[records[:, 0] >= 0], code))


def _watershed(job: Job) -> Merges:
    """Mutex watershed: the edges of each stage in order; what one forbids stays so in the next."""
    from graphseg.ops.kernels import merge as kernels

    source, target, affinity, rank = (part.numpy() for part in (job.source, job.target, job.affinity, job.rank))
    stage = np.zeros(len(rank), np.int64) if job.stage is None else job.stage.numpy().astype(np.int64)
    order = kernels.sort_edges(affinity, rank)
    if len(job.thresholds) > 1:
        order = order[np.argsort(stage[order], kind="stable")]
    thresholds = np.array(job.thresholds, np.float64)
    merged = kernels.merge_unless_forbidden(
        source, target, affinity, order, stage, job.num_nodes, thresholds, job.strict
    )
    pairs, height, label = (torch.from_numpy(part) for part in merged)
    label = label.long()
    # Of the edges between two clusters the first that came.
    between = (label[job.source] != label[job.target])[torch.from_numpy(order)].nonzero().squeeze(1)
    at = torch.from_numpy(order)[between].long()
    ends = torch.stack([label[job.source[at]], label[job.target[at]]])
    low, high = ends.amin(0), ends.amax(0)
    key, by = (low * job.num_nodes + high).sort(stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] > key[:-1]
    kept = by[first]
    value = job.affinity[at[kept]].double()
    return Merges(pairs.long(), height, label, MergeGraph(low[kept], high[kept], value, torch.ones_like(kept), kept))


def _records(graph: MergeGraph, num_nodes: int, code: int) -> NDArray[np.int32]:
    from graphseg.ops.kernels import merge as kernels

    source, target, value, count, rank = (part.contiguous().numpy() for part in graph.parts())
    order = kernels.order_edges(source, target, num_nodes)
    records = np.empty((kernels.count_pairs(source, target, order), 6), np.int32)
    kernels.write_records(*_views(records), source, target, value, count, rank, order, code)
    return records


def _views(records: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
    return records, records.view(np.float64), records.view(np.int64)


def _left(records: NDArray[np.int32], code: int) -> MergeGraph:
    _, floats, integers = _views(records)
    value = torch.from_numpy((integers if LINKAGES[code] == "counted" else floats)[:, 1].copy())
    source, target, count, rank = (torch.from_numpy(records[:, c].copy()) for c in (0, 1, 4, 5))
    return MergeGraph(source, target, value, count, rank)
