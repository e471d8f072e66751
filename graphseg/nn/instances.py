"""Instances from affinities and semantics: the graph of pixels is built, refined and merged.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation", sections 3.4, 4 and 5.3.
In this order: regions without background (4.1), for each super-class on its own (4.5); both directions of a pair
averaged (3.4); refinement by semantics (4.2); semantic class refinement (5.3); blocks of m x m pixels (4.4);
agglomeration in stages, then the size, confidence and class of what came of it (3.4). Resizing regions (4.3) and flips
(5.3) need the networks: `InstanceSegmenter` has them.
The paper leaves open: what is a node (here pixels of the foreground; with edges to those of their own region only, so
that no pixel is in two instances); where blocks come in (after refinement; the average of all edges between two blocks,
those of background pixels in them included); which affinities are "between these two classes" (those with both ends in
either, also in the same); of what the confidence is the mean (refined affinities between pixels; 0 where there are
none); ties of a vote (the lowest class).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from graphseg._checks import check_choice, check_positive_int, check_shape, check_tensor
from graphseg.nn._instance_merge import InstanceMerge, PixelGraph, refine_classes
from graphseg.nn.affinity import Offsets
from graphseg.ops.instance_map import Instances, collect_instances, flip_affinities, super_class_probability
from graphseg.ops.resize import resize_nearest
from graphseg.ops.roi import Rois, find_rois

__all__ = ["InstanceSegmenter", "refine_classes", "segment_instances"]

Network = Callable[[Tensor], Tensor]


def segment_instances(
    affinities: Tensor,
    semantic: Tensor,
    offsets: Offsets | None = None,
    *,
    stages: Sequence[Sequence[int]] = ((1, 2, 4), (8, 16), (32, 64)),
    thresholds: Sequence[float] = (0.97, 0.7, 0.3),
    linkage: str = "plain",
    strict: bool = False,
    window: int = 2,
    exclude_background: bool = True,
    cell_size: int | None = 32,
    refine: bool = True,
    alpha: float = 5.0,
    super_classes: Iterable[Iterable[int]] | None = None,
    partition: bool = False,
    class_refinement: Iterable[int] | None = None,
    min_size: int = 0,
    engine: str = "auto",
) -> list[Instances]:
    """Instances of the images whose affinities and class probabilities are given.

    The maps are merged in the size they come in: channel k of an enlarged map would still speak of the neighbour at
    `offsets[k]` before. To enlarge regions of interest, `InstanceSegmenter` runs the networks on enlarged images.

    Args:
        affinities: probabilities `[B, K, H, W]`, channel k at p that p and p + offsets[k] are in one instance.
        semantic: probabilities `[B, M, H, W]` of the classes, class 0 the background.
        offsets: K pairs (dy, dx). Default: the 56 of `affinity_offsets`.
        stages: distances max(|dy|, |dx|) whose edges join in each stage of the merge.
        thresholds: one for each stage: pairs of at least this affinity are merged.
        linkage: "plain" (the paper's), "counted", "max" or "min", see `graphseg.ops.agglomerate`.
        strict: merge only above the threshold (public code), not at it.
        window: m of the forced local merge of m x m pixels; 1 for none. Blocks at the border of an instance may stay
            alone, as crumbs of less than m x m pixels: `min_size` drops them.
        exclude_background: only pixels of a most probable class other than background are nodes. If False all are, and
            instances whose vote is background are dropped.
        cell_size: pixels in cells of this size that are connected belong together, see `find_rois`; between others
            there are no edges. None: the whole image is one region, as it is with `exclude_background=False`.
        refine: refine affinities by semantics (`SemanticRefinement`).
        alpha: slope of both refinements.
        super_classes: sets of classes, for `refine` and `partition`.
        partition: nodes are the pixels whose most probable super-class is not background, and each super-class has
            regions of its own. They vote for the classes in it.
        class_refinement: classes whose pixels are joined more easily (`refine_classes`) at the largest distance in
            `offsets`; in the paper bicycle and motorcycle. Default: none.
        min_size: r_c; instances of more pixels are kept.
        engine: of `graphseg.ops.agglomerate`.

    Returns:
        The `Instances` of each image; they do not depend on the batch.

    Raises:
        TypeError, ValueError: for another dtype or shape, values that are no probabilities, an offset at a distance in
            no stage, or options that do not fit.

    Source: sections 3.4, 4 and 5.3; every row of Tables 2 and 3 but resizing, flips and output strides.
    """
    merge = InstanceMerge(
        offsets=offsets,
        stages=stages,
        thresholds=thresholds,
        linkage=linkage,
        strict=strict,
        window=window,
        exclude_background=exclude_background,
        cell_size=cell_size,
        refine=refine,
        alpha=alpha,
        super_classes=super_classes,
        partition=partition,
        class_refinement=class_refinement,
        min_size=min_size,
        engine=engine,
    )
    merge.check(affinities, semantic)
    return _segment(merge, affinities, semantic)


class _Look(NamedTuple):
    """One region of interest as the networks see it."""

    place: tuple[int, slice, slice]  # image, rows and columns of its box
    graph: PixelGraph
    pixel_class: Tensor  # [1, h, w]
    chance: Tensor  # [1, h, w], of its super-class


class InstanceSegmenter(Module):
    """Instances of images, by two networks and a graph merge.

    The semantic network finds regions of interest in the image. Both networks see each region again: the image is cut
    to its box, and enlarged if it is small. All regions are merged at once, then put back in place; a pixel that
    regions of two super-classes claim goes to the one that is more probable there.

    Args:
        semantic_network: from images `[1, C, h, w]` of any size to logits `[1, M, *, *]` of the classes, class 0 the
            background; smaller maps are resized (bilinear).
        affinity_network: likewise to logits `[1, K, *, *]` of the affinities.
        offsets: K pairs (dy, dx). Default: the 56 of `affinity_offsets`.
        roi_size: in pixels; regions whose edge is shorter are enlarged to it. None: none is.
        roi_edge: which edge: "shorter" of the two (the paper's general rule) or "height" (its rule for Cityscapes).
        max_scale: regions are enlarged so many times at most.
        margin: in pixels, around the cells of a region.
        flip_semantic: average the semantic probabilities with those of the mirrored image (SHF).
        flip_affinity: average the affinities with those of the mirrored image (IHF).
        options: the keyword arguments of `segment_instances`. `min_size` counts pixels of the image. Without
            `exclude_background` or with `cell_size=None` the networks see the whole image, once.
    """

    def __init__(
        self,
        semantic_network: Network,
        affinity_network: Network,
        offsets: Offsets | None = None,
        *,
        roi_size: int | None = 513,
        roi_edge: str = "shorter",
        max_scale: float = 4.0,
        margin: int = 16,
        flip_semantic: bool = False,
        flip_affinity: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if roi_size is not None:
            check_positive_int("roi_size", roi_size)
        check_choice("roi_edge", roi_edge, ("shorter", "height"))
        check_positive_int("margin", margin, minimum=0)
        if not max_scale >= 1:
            raise ValueError(f"got max_scale={max_scale}, expected at least 1")
        self.semantic_network, self.affinity_network = semantic_network, affinity_network
        self.roi_size, self.roi_edge, self.max_scale, self.margin = roi_size, roi_edge, max_scale, margin
        self.flip_semantic, self.flip_affinity = flip_semantic, flip_affinity
        self.merge = InstanceMerge(offsets, **options)

    @torch.no_grad()
    def forward(self, image: Tensor) -> list[Instances]:
        """Returns the `Instances` of each image.

        Args:
            image: `[B, C, H, W]`.
        """
        check_shape("image", check_tensor("image", image), (None, None, None, None))
        merge, semantic = self.merge, self.semantic(image)
        if not merge.exclude_background or merge.cell_size is None:
            return _segment(merge, self.affinities(image), semantic)
        M = semantic.shape[1]
        masks = merge.masks(merge.kinds(semantic), M)  # [B, S, H, W]
        rois = find_rois(masks.flatten(0, 1), merge.cell_size, self.margin)
        return self._from_rois(image, rois, masks.shape[1], M)

    def semantic(self, image: Tensor) -> Tensor:
        """Class probabilities `[B, M, H, W]`.

        Args:
            image: `[B, C, H, W]`.
        """
        found = _at_size(self.semantic_network(image), image).softmax(1)
        if not self.flip_semantic:
            return found
        return (found + _at_size(self.semantic_network(image.flip(3)), image).softmax(1).flip(3)) / 2

    def affinities(self, image: Tensor) -> Tensor:
        """Affinities `[B, K, H, W]`.

        Args:
            image: `[B, C, H, W]`.
        """
        found = _at_size(self.affinity_network(image), image).sigmoid()
        check_shape("affinities", found, (None, len(self.merge.steps), None, None))
        if not self.flip_affinity:
            return found
        mirrored = _at_size(self.affinity_network(image.flip(3)), image).sigmoid()
        return (found + flip_affinities(mirrored, self.merge.steps)) / 2

    def _from_rois(self, image: Tensor, rois: Rois, num_kinds: int, num_classes: int) -> list[Instances]:
        B, _, H, W = image.shape
        cluster = torch.full((B, H, W), -1, dtype=torch.int64, device=image.device)
        pixel_class, best = torch.zeros_like(cluster), torch.full_like(cluster, -1, dtype=torch.float64)
        scores = best.new_zeros(0)
        looks = [self._look(image, rois, r, num_kinds) for r in range(len(rois.image))]
        if looks:
            maps, scores = self.merge.clusters([look.graph for look in looks])
            for look, found in zip(looks, maps, strict=True):
                at = look.place
                size = cluster[at].shape
                found, classes, chance = (resize_nearest(m[0], size) for m in (found, look.pixel_class, look.chance))
                won = (found >= 0) & (chance > best[at])
                for canvas, values in ((cluster, found), (pixel_class, classes), (best, chance)):
                    canvas[at] = values.where(won, canvas[at])
        return collect_instances(cluster, pixel_class, scores, num_classes, self.merge.min_size)

    def _look(self, image: Tensor, rois: Rois, r: int, num_kinds: int) -> _Look:
        """What the networks say of one region, and its graph."""
        merge = self.merge
        b, kind = divmod(int(rois.image[r]), num_kinds)
        x0, y0, x1, y1 = rois.box[r].tolist()
        ys, xs = slice(y0, y1), slice(x0, x1)
        size = self._enlarged(y1 - y0, x1 - x0)
        cut = image[b : b + 1, :, ys, xs]
        if cut.shape[2:] != size:
            cut = F.interpolate(cut, size, mode="bilinear")
        semantic = self.semantic(cut)
        area = resize_nearest(rois.area[rois.image[r], ys, xs] == r + 1, size)
        kinds = merge.kinds(semantic)
        group = ((kinds == kind + 1) & area).long()
        pixel_class = merge.pixel_classes(semantic, kinds)
        graph = merge.graph(self.affinities(cut), semantic, group, pixel_class)
        chance = (
            super_class_probability(semantic, merge.sets or ())[:, kind + 1] if merge.partition else semantic[:, 0]
        )  # one kind: no two regions meet
        return _Look((b, ys, xs), graph, pixel_class, chance.double())

    def _enlarged(self, height: int, width: int) -> tuple[int, int]:
        if self.roi_size is None:
            return height, width
        edge = height if self.roi_edge == "height" else min(height, width)
        scale = min(max(self.roi_size / edge, 1.0), self.max_scale)
        return round(height * scale), round(width * scale)


def _segment(merge: InstanceMerge, affinity: Tensor, semantic: Tensor) -> list[Instances]:
    M = semantic.shape[1]
    kinds = merge.kinds(semantic)
    pixel_class = merge.pixel_classes(semantic, kinds)
    group, masks = merge.groups(kinds, M), merge.masks(kinds, M)
    graphs = [merge.graph(affinity, semantic, group * mask, pixel_class) for mask in masks.unbind(1)]
    maps, scores = merge.clusters(graphs)
    cluster = torch.stack(maps).amax(0)  # a pixel is of one kind
    return collect_instances(cluster, pixel_class, scores, M, merge.min_size)


def _at_size(logits: Tensor, image: Tensor) -> Tensor:
    check_shape("a network's output", check_tensor("a network's output", logits), (len(image), None, None, None))
    size = image.shape[2:]
    return logits if logits.shape[2:] == size else F.interpolate(logits, size, mode="bilinear")
