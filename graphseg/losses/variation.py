"""Anisotropic total variation of feature maps, and of node features on a graph.

Paper: Eliasof, Ben Zikri and Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Equations: Eq. (17) total variation of the projected features.
Differs from the paper: it leaves the loss on the superpixel graph open. Here every edge takes the place of a pair of
neighbouring pixels, so that on the 4-connected pixel grid both are the same number, and on a region adjacency graph
weighted with the lengths of the shared boundaries (and divided by the number of pixels) it is Eq. (17) of the
projected node features, without a map of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphseg._checks import check_same_device, check_shape, check_tensor
from graphseg.losses._reduction import check_maps, check_valid, in_full_precision, reduce_loss
from graphseg.ops.edge_max import check_edge_index
from graphseg.ops.pooling import project
from graphseg.ops.variation import neighbour_distances

__all__ = ["graph_total_variation", "total_variation"]


def total_variation(
    x: Tensor, *, valid: Tensor | None = None, reduction: str = "mean", return_count: bool = False
) -> Tensor:
    """`1 / HW sum_p |x_p - x_right(p)|_1 + |x_p - x_below(p)|_1`, over all images of the batch.

    Args:
        x: `[B, C, H, W]` feature maps.
        valid: bool `[B, H, W]`; a pair counts where both its pixels are valid. Default: all.
        reduction: "mean" over the valid pixels, or "sum".
        return_count: return `[2]`: the value and the number of valid pixels, to add up over processes.

    Returns:
        A scalar, or `[2]`; 0 where nothing is valid. The slope at a difference of 0 is 0.

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    check_maps(x=x)
    check_valid(valid, x)
    x = in_full_precision(x)
    right, below = pair_weights(x, valid)
    total = weighted_variation(x, right, below, valid).sum()  # Eq. (17)
    B, _, H, W = x.shape
    count = torch.tensor(B * H * W, device=x.device) if valid is None else valid.sum()
    return reduce_loss(total, count, reduction, return_count)


def graph_total_variation(
    x: Tensor,
    edge_index: Tensor,
    edge_weight: Tensor | None = None,
    *,
    directed: bool = False,
    num_pixels: int | None = None,
    reduction: str = "mean",
    return_count: bool = False,
) -> Tensor:
    """`1 / N sum over edges (i, j) of w_ij |x_i - x_j|_1`.

    Args:
        x: `[N, C]` node features.
        edge_index: `[2, E]`.
        edge_weight: `[E]`. Default: 1 for every edge. With the `length` of `graphseg.ops.rag_edges` and `num_pixels`
            the result is `total_variation` of the projected features.
        directed: edge_index holds both directions of every pair, so each counts half.
        num_pixels: what the mean divides by, in place of N.
        reduction: "mean" over the nodes (or pixels), or "sum".
        return_count: return `[2]`: the value and the number of nodes (or pixels).

    Returns:
        A scalar, or `[2]`; 0 for a graph without nodes or edges.

    Raises:
        TypeError, ValueError: for another dtype or shape than these, or ids outside [0, N).
    """
    if not check_tensor("x", x).is_floating_point():
        raise TypeError(f"got dtype {x.dtype} for x, expected a floating-point dtype")
    check_shape("x", x, (None, None))
    check_edge_index(edge_index, len(x))
    if edge_weight is not None:
        check_shape("edge_weight", check_tensor("edge_weight", edge_weight), (edge_index.shape[1],))
    check_same_device(x=x, edge_index=edge_index, edge_weight=edge_weight)
    x = in_full_precision(x)
    source, target = (project(x, end.contiguous()) for end in edge_index)  # [E, C]; their gradient adds in order
    length = (source - target).abs().sum(1)  # [E]
    total = (length if edge_weight is None else length * edge_weight).sum() * (0.5 if directed else 1.0)
    count = torch.tensor(len(x) if num_pixels is None else num_pixels, device=x.device)
    return reduce_loss(total, count, reduction, return_count)


def pair_weights(x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """1 for every pixel with a right-hand (`[B, H, W - 1]`) and lower (`[B, H - 1, W]`) neighbour; 0 beside invalid."""
    if valid is None:
        valid = x.new_ones((), dtype=torch.bool).expand(x.shape[0], *x.shape[2:])
    return (valid[:, :, 1:] & valid[:, :, :-1]).to(x.dtype), (valid[:, 1:] & valid[:, :-1]).to(x.dtype)


def weighted_variation(x: Tensor, right: Tensor, below: Tensor, valid: Tensor | None) -> Tensor:
    """`[B]`: the sum over an image's neighbouring pixels of their weight times `|x_p - x_q|_1`.

    Args:
        x: `[B, C, H, W]`.
        right, below: `[B, H, W - 1]` and `[B, H - 1, W]`, the weights.
        valid: bool `[B, H, W]`; elsewhere x is not read.
    """
    if valid is not None:
        x = x.masked_fill(~valid.unsqueeze(1), 0)
    along, down = neighbour_distances(x)
    return (along * right).sum((1, 2)) + (down * below).sum((1, 2))
