"""The graph of pixels of affinity maps: which pixels are in it, its edges refined, and its merge into clusters.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation", sections 3.4, 4 and 5.3.
Equations: Eq. (6) modified sigmoid, here of affinities themselves (semantic class refinement).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
from graphseg.nn.affinity import SemanticRefinement, affinity_edges, modified_sigmoid
from graphseg.ops import affinity_offsets, offset_edges
from graphseg.ops.edge_max import check_edge_index
from graphseg.ops.instance_map import block_nodes, instance_confidence, super_class_probability, super_class_sets
from graphseg.ops.merge import agglomerate
from graphseg.ops.roi import find_rois

__all__ = ["InstanceMerge", "PixelGraph", "refine_classes"]

LINKAGES = ("plain", "counted", "max", "min")


class PixelGraph(NamedTuple):
    """Affinities of pixel pairs in maps of one size.

    Attributes:
        edge_index: `[2, E]`, of pixels numbered through the batch.
        affinity: `[E]`.
        stage: `[E]`, the stage of the merge in which each joins.
        node: `[B, H, W]`, of each pixel, -1 for none; N of them, numbered through the batch.
        image: `[N]`, of each node.
        foreground: bool `[B, H, W]`, pixels that clusters consist of.
    """

    edge_index: Tensor
    affinity: Tensor
    stage: Tensor
    node: Tensor
    image: Tensor
    foreground: Tensor


def refine_classes(
    affinity: Tensor, edge_index: Tensor, pixel_class: Tensor, classes: Iterable[int], alpha: float = 5.0
) -> Tensor:
    """`sigma(affinity)` where both ends are of the given classes, which raises all but high ones; the others as given.

    Args:
        affinity: `[E]`; in the paper those at the largest distance.
        edge_index: `[2, E]`.
        pixel_class: integers `[N]`.
        classes: that are confused and fall apart; in the paper bicycle and motorcycle.
        alpha: of `modified_sigmoid`.

    Returns:
        `[E]`.
    """
    check_integer("pixel_class", check_tensor("pixel_class", pixel_class))
    check_shape("pixel_class", pixel_class, (None,))
    check_edge_index(edge_index, len(pixel_class))
    check_shape("affinity", check_tensor("affinity", affinity), (edge_index.shape[1],))
    named = torch.zeros_like(pixel_class, dtype=torch.bool)
    for c in classes:
        named |= pixel_class == c
    return torch.where(named[edge_index].all(0), modified_sigmoid(affinity, alpha), affinity)  # Eq. (6)


@dataclass
class InstanceMerge:
    """The steps from maps to clusters of pixels.

    Args:
        offsets, stages, thresholds, linkage, strict, window, exclude_background, cell_size, refine, alpha,
            super_classes, partition, class_refinement, min_size, engine: as for `segment_instances`.
    """

    offsets: Iterable[Sequence[int]] | None = None
    stages: Sequence[Sequence[int]] = ((1, 2, 4), (8, 16), (32, 64))
    thresholds: Sequence[float] = (0.97, 0.7, 0.3)
    linkage: str = "plain"
    strict: bool = False
    window: int = 2
    exclude_background: bool = True
    cell_size: int | None = 32
    refine: bool = True
    alpha: float = 5.0
    super_classes: Iterable[Iterable[int]] | None = None
    partition: bool = False
    class_refinement: Iterable[int] | None = None
    min_size: int = 0
    engine: str = "auto"

    def __post_init__(self) -> None:
        given = affinity_offsets() if self.offsets is None else [tuple(o) for o in self.offsets]
        offset_edges(1, 1, given)  # refuses what is not two ints
        self.steps = [(o[0], o[1]) for o in given]
        self.sets = None if self.super_classes is None else [list(members) for members in self.super_classes]
        self.confused = None if self.class_refinement is None else list(self.class_refinement)
        check_choice("linkage", self.linkage, LINKAGES)
        check_positive_int("window", self.window)
        check_positive_int("min_size", self.min_size, minimum=0)
        if self.cell_size is not None:
            check_positive_int("cell_size", self.cell_size)
        if self.partition and (self.sets is None or not self.exclude_background):
            raise ValueError("got partition=True, expected super_classes with it and exclude_background=True")
        if len(self.thresholds) != len(self.stages):
            raise ValueError(
                f"got {len(self.thresholds)} thresholds, expected one for each of {len(self.stages)} stages"
            )
        self.staged = sorted((d, s) for s, distances in enumerate(self.stages) for d in distances)
        known = [d for d, _ in self.staged]
        if len(set(known)) < len(known):
            raise ValueError(f"got stages={self.stages}, expected no distance twice")
        for dy, dx in self.steps:
            if max(abs(dy), abs(dx)) not in known:
                raise ValueError(f"got offset {(dy, dx)}, expected a distance max(|dy|, |dx|) in stages={self.stages}")

    def check(self, affinity: Tensor, semantic: Tensor) -> None:
        """Raises TypeError or ValueError unless these are maps of probabilities of one size."""
        K = len(self.steps)
        check_shape("affinities", check_tensor("affinities", affinity), (None, K, None, None))
        B, _, H, W = affinity.shape
        check_shape("semantic", check_tensor("semantic", semantic), (B, None, H, W))
        check_same_device(affinities=affinity, semantic=semantic)
        for name, maps in (("affinities", affinity), ("semantic", semantic)):
            if not maps.is_floating_point():
                raise TypeError(f"got dtype {maps.dtype} for {name}, expected a floating-point dtype")
        if semantic.shape[1] < 2:
            raise ValueError(f"got {semantic.shape[1]} classes in semantic, expected background and at least one other")
        if min(B, H, W) < 1:
            raise ValueError(f"got shape {list(affinity.shape)} for affinities, expected at least one pixel")
        low, high = (float(bound) for bound in semantic.aminmax())
        if not (low >= 0 and high <= 1.001):  # NaN too; sums of half precision may pass 1
            raise ValueError(f"got values from {low:g} to {high:g} in semantic, expected probabilities")

    def kinds(self, semantic: Tensor) -> Tensor:
        """int64 `[B, H, W]`: 0 where a pixel is no node, else 1, or with `partition` its super-class from 1."""
        if self.partition:
            return super_class_probability(semantic, self.sets or ()).argmax(1)
        foreground = semantic.argmax(1) > 0
        return foreground.long() if self.exclude_background else torch.ones_like(foreground, dtype=torch.int64)

    def masks(self, kinds: Tensor, num_classes: int) -> Tensor:
        """bool `[B, S, H, W]`: the pixels of each kind."""
        S = len(super_class_sets(self.sets or (), num_classes)) - 1 if self.partition else 1
        return kinds.unsqueeze(1) == torch.arange(1, S + 1, device=kinds.device).view(1, S, 1, 1)

    def groups(self, kinds: Tensor, num_classes: int) -> Tensor:
        """int64 `[B, H, W]`: the region of each pixel from 1, 0 where it is no node."""
        if self.cell_size is None or not self.exclude_background:
            return kinds
        masks = self.masks(kinds, num_classes)
        area = find_rois(masks.flatten(0, 1), self.cell_size, 0).area.view(masks.shape)
        return area.gather(1, (kinds - 1).clamp(min=0).unsqueeze(1)).squeeze(1).where(kinds > 0, 0)

    def pixel_classes(self, semantic: Tensor, kinds: Tensor) -> Tensor:
        """int64 `[B, H, W]`: the most probable class of each pixel, with `partition` among those of its super-class."""
        if not self.partition:
            return semantic.argmax(1)
        M = semantic.shape[1]
        sets = super_class_sets(self.sets or (), M)
        member = torch.tensor([[c in members for c in range(M)] for members in sets], device=kinds.device)  # [1 + S, M]
        return semantic.masked_fill(~member[kinds].movedim(3, 1), -1).argmax(1)

    def graph(self, affinity: Tensor, semantic: Tensor, group: Tensor, pixel_class: Tensor) -> PixelGraph:
        """The edges within groups of blocks: the mean of both directions, refined."""
        node, image, region = block_nodes(group, self.window)
        edge_index, weight = affinity_edges(affinity, self.steps, valid=node >= 0)
        ends = region[node.flatten()[edge_index]]
        kept = (ends[0] == ends[1]).nonzero().squeeze(1)
        if len(kept) < len(weight):
            edge_index, weight = edge_index[:, kept], weight[kept]
        distance = _distances(edge_index, group.shape[2])
        known, stage = torch.tensor(self.staged, dtype=torch.int64, device=group.device).view(-1, 2).T.contiguous()
        if self.refine:
            weight = self._refined(weight, semantic, edge_index)
        if self.confused is not None and len(weight):
            farthest = max(max(abs(dy), abs(dx)) for dy, dx in self.steps)
            far = (distance == farthest).nonzero().squeeze(1)
            raised = refine_classes(weight[far], edge_index[:, far], pixel_class.flatten(), self.confused, self.alpha)
            weight = weight.index_copy(0, far, raised)
        return PixelGraph(edge_index, weight, stage[torch.searchsorted(known, distance)], node, image, group > 0)

    def clusters(self, graphs: Sequence[PixelGraph]) -> tuple[list[Tensor], Tensor]:
        """The merge of all graphs at once.

        Returns:
            For each graph int64 `[B, H, W]`, the cluster of every pixel, numbered through all of them, -1 for none;
            and float64 `[n]`, the confidence of each cluster.
        """
        node, image, edge_index = [], [], []
        pixels = images = nodes = 0
        for graph in graphs:
            node.append(graph.node.add(nodes).where(graph.node >= 0, -1).flatten())
            image.append(graph.image + images)
            edge_index.append(graph.edge_index + pixels)
            pixels, images, nodes = pixels + graph.node.numel(), images + len(graph.node), nodes + len(graph.image)
        edges, of = torch.cat(edge_index, 1), torch.cat(node)  # [2, E], [P]
        affinity, stage = torch.cat([g.affinity for g in graphs]), torch.cat([g.stage for g in graphs])
        merged = agglomerate(
            of[edges],
            affinity,
            nodes,
            self.thresholds,
            self.linkage,
            torch.cat(image),
            stage=stage,
            engine=self.engine,
            strict=self.strict,
        )
        inside = torch.cat([g.foreground.flatten() for g in graphs])
        cluster = torch.full_like(of, -1)
        cluster[inside] = merged.assignment[of[inside]]
        sizes = [g.node.numel() for g in graphs]
        maps = [c.view(g.node.shape) for c, g in zip(cluster.split(sizes), graphs, strict=True)]
        return maps, instance_confidence(affinity, edges, cluster, int(cluster.max()) + 1)

    def _refined(self, affinity: Tensor, semantic: Tensor, edge_index: Tensor) -> Tensor:
        alone = None
        if self.sets is not None:  # added here, in a defined order, so that each set is one class below
            semantic = super_class_probability(semantic, self.sets)
            alone = [(c,) for c in range(1, semantic.shape[1])]
        rows = semantic.movedim(1, 3).flatten(0, 2)  # [P, M] or [P, 1 + S]
        return SemanticRefinement(self.alpha, alone)(affinity, rows, edge_index)


def _distances(edge_index: Tensor, width: int) -> Tensor:
    """`max(|dy|, |dx|)` of edges of pixels that are numbered row by row."""
    y, x = edge_index.div(width, rounding_mode="floor"), edge_index % width
    return torch.maximum((y[1] - y[0]).abs(), (x[1] - x[0]).abs())
