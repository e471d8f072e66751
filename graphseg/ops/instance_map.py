"""Maps of instances: their affinities mirrored, their classes grouped, their pixels made nodes, and what was found.

Source: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation", sections 3.4, 4 and 5.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from graphseg._checks import check_integer, check_positive_int, check_shape, check_tensor
from graphseg.ops.pooling import pool

__all__ = [
    "Instances",
    "block_nodes",
    "collect_instances",
    "flip_affinities",
    "instance_confidence",
    "super_class_probability",
    "super_class_sets",
]


@dataclass(frozen=True)
class Instances:
    """The n instances of one image, numbered from 1 by their first pixel, row by row.

    Args:
        labels: int64 `[H, W]`, the instance of each pixel, 0 for none.
        classes: int64 `[n]`, the class with the most votes.
        scores: float64 `[n]`, confidence in [0, 1].
        areas: int64 `[n]`, in pixels.
        votes: int64 `[n, M]`, the instance's pixels of each class.
    """

    labels: Tensor
    classes: Tensor
    scores: Tensor
    areas: Tensor
    votes: Tensor

    def predictions(self, max_classes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Each instance once for each of its most frequent classes, the background left out.

        Args:
            max_classes: at most so many for one instance; public code has been seen with 4.

        Returns:
            `instance [m]` (from 1), `classes [m]` and `scores [m]`: by instance, then votes falling, then class.
        """
        check_positive_int("max_classes", max_classes)
        votes, order = self.votes[:, 1:].sort(dim=1, descending=True, stable=True)
        n, place = (votes[:, :max_classes] > 0).nonzero().unbind(1)
        return n + 1, order[n, place] + 1, self.scores[n]


def flip_affinities(affinity: Tensor, offsets: Iterable[Sequence[int]]) -> Tensor:
    """The affinities of an image from those of its mirror image (left and right swapped), and the other way round.

    Pixels change places, and the channel of (dy, dx) speaks of the neighbour at (dy, -dx): that of (-dy, dx) says the
    same, read at the neighbour, where the channel itself is missing.

    Args:
        affinity: `[B, K, H, W]`.
        offsets: K pairs (dy, dx).

    Returns:
        `[B, K, H, W]`; values of pairs that leave the image are not to be read.

    Raises:
        ValueError: if an offset has neither (dy, -dx) nor (-dy, dx) among the others.
    """
    listed = [(dy, dx) for dy, dx in offsets]
    check_shape("affinity", check_tensor("affinity", affinity), (None, len(listed), None, None))
    flipped, channels = affinity.flip(3), []
    for dy, dx in listed:
        if (dy, -dx) in listed:
            channels.append(flipped[:, listed.index((dy, -dx))])
        elif (-dy, dx) in listed:
            channels.append(flipped[:, listed.index((-dy, dx))].roll((-dy, -dx), (1, 2)))
        else:
            raise ValueError(f"got offset {(dy, dx)} without {(dy, -dx)} or {(-dy, dx)}, expected one of them too")
    return torch.stack(channels, 1) if channels else flipped


def super_class_sets(super_classes: Iterable[Iterable[int]], num_classes: int) -> list[list[int]]:
    """The background, the given sets, then each class that is in none of them, as lists.

    Args:
        super_classes: disjoint sets of classes.
        num_classes: M.

    Raises:
        ValueError: for a class twice, or outside [1, M).
    """
    sets = [sorted(members) for members in super_classes]
    named = [c for members in sets for c in members]
    if len(set(named)) < len(named) or not all(members and 1 <= c < num_classes for members in sets for c in members):
        raise ValueError(f"got super_classes={sets}, expected disjoint sets of the classes 1 to {num_classes - 1}")
    return [[0], *sets, *([c] for c in range(1, num_classes) if c not in named)]


def super_class_probability(semantic: Tensor, super_classes: Iterable[Iterable[int]]) -> Tensor:
    """The probabilities of the classes in each super-class added.

    Args:
        semantic: `[B, M, H, W]`, class 0 the background.
        super_classes: disjoint sets of classes.

    Returns:
        `[B, 1 + S, H, W]`: the background, the sets in their order, then each class that is in none of them.

    Raises:
        ValueError: for a class twice, or outside [1, M).
    """
    check_shape("semantic", check_tensor("semantic", semantic), (None, None, None, None))
    channels = []
    for members in super_class_sets(super_classes, semantic.shape[1]):
        total = semantic[:, members[0]]
        for c in members[1:]:  # one by one: the order of the sum is defined
            total = total + semantic[:, c]
        channels.append(total)
    return torch.stack(channels, 1)


def block_nodes(group: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """The node of each pixel when the pixels of one window x window block are merged from the start.

    With their ends replaced by nodes the edges of pixels are those of Fig. 5: `agglomerate` averages all that run
    between the same two blocks ("counted": with their number kept), and distances shrink by the window. All pixels of a
    block take part, background ones too: without the low affinities of these a block on the border of two instances
    may be joined to both through a single pair of pixels.

    Args:
        group: integers `[B, H, W]`, region of each pixel; 0 for those of none.
        window: m; 1 leaves every pixel a node. Blocks begin at the image's corner; at the right and lower border they
            are smaller.

    Returns:
        int64 `[B, H, W]`, the node of each pixel: blocks with any pixel of a region, numbered through the batch, -1 in
        others; int64 `[N]`, the image of each node; and `[N]`, its region (the last of several).

    Raises:
        TypeError, ValueError: for another dtype, shape or window than these.
    """
    check_integer("group", check_tensor("group", group))
    check_shape("group", group, (None, None, None))
    check_positive_int("window", window)
    H, W = group.shape[1:]
    region = F.max_pool2d(group.double(), window, ceil_mode=True).long()  # [B, h, w], exact up to 2^53
    node = (region.flatten() > 0).cumsum(0).view(region.shape).sub(1).where(region > 0, -1)
    node = node.repeat_interleave(window, 1).repeat_interleave(window, 2)[:, :H, :W].contiguous()
    return node, region.nonzero()[:, 0], region[region > 0]


def instance_confidence(affinity: Tensor, edge_index: Tensor, cluster: Tensor, num_clusters: int) -> Tensor:
    """The mean affinity of the edges inside each cluster, float64 `[num_clusters]`; 0 for one without edges.

    Args:
        affinity: `[E]`.
        edge_index: `[2, E]`, of pixels.
        cluster: int64 `[P]`, the cluster of each pixel, -1 for none.
        num_clusters: how many there are.
    """
    here, there = cluster[edge_index]
    inside = (here == there) & (here >= 0)
    return pool(affinity[inside].to(torch.float64), here[inside], num_clusters)


def collect_instances(
    cluster: Tensor, pixel_class: Tensor, scores: Tensor, num_classes: int, min_size: int = 0
) -> list[Instances]:
    """What is large enough and not background among clusters of pixels.

    Args:
        cluster: int64 `[B, H, W]`, cluster of each pixel, none in two images; -1 for none.
        pixel_class: integers `[B, H, W]` in [0, M): each pixel votes for its class.
        scores: `[n]`, of the clusters.
        num_classes: M.
        min_size: clusters of more pixels than that are kept.

    Returns:
        The `Instances` of each image.
    """
    check_integer("cluster", check_tensor("cluster", cluster))
    check_shape("cluster", cluster, (None, None, None))
    check_integer("pixel_class", check_tensor("pixel_class", pixel_class))
    check_shape("pixel_class", pixel_class, tuple(cluster.shape))
    check_positive_int("num_classes", num_classes)
    check_positive_int("min_size", min_size, minimum=0)
    n, flat = len(scores), cluster.flatten()
    p = (flat >= 0).nonzero().squeeze(1)
    of = flat[p]
    votes = torch.bincount(of * num_classes + pixel_class.flatten()[p], minlength=n * num_classes).view(n, num_classes)
    areas, classes = votes.sum(1), votes.argmax(1)  # the first of tied classes
    first = flat.new_full((n,), flat.numel()).scatter_reduce(0, of, p, "amin")  # [n], their first pixels
    kept = ((areas > min_size) & (classes > 0)).nonzero().squeeze(1)
    kept = kept[first[kept].argsort()]
    per_image = torch.bincount(first[kept] // max(1, cluster[:1].numel()), minlength=len(cluster))
    start = (per_image.cumsum(0) - per_image).repeat_interleave(per_image)
    number = torch.zeros_like(areas)
    number[kept] = torch.arange(1, len(kept) + 1, device=kept.device) - start
    labels = torch.zeros_like(flat)
    labels[p] = number[of]
    parts = (t[kept].split(per_image.tolist()) for t in (classes, scores.to(torch.float64), areas, votes))
    return [Instances(*found) for found in zip(labels.view(cluster.shape), *parts, strict=True)]
