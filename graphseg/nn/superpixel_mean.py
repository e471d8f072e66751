"""SSP and MSP: every pixel gets a share of its superpixel's mean, at one scale or from coarse to fine.

Paper: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel".
Equations: Eq. (1) the mean over each superpixel; Eq. (2) its sum S(P_i, X); Eq. (3) X* = X + alpha * mean; Eq. (4) one
scale, X* = F(X, lambda, I); Eq. (5) F at the first scale; Eq. (6) F at the next; Eq. (7) and so on to the last.
The paper leaves open: label maps of another size than the features are resized by nearest-exact; a superpixel that
vanishes there, or has no pixel at all, takes no part.
Differs from the paper: superpixels may be as many as at the scale before (the paper: more); fewer are refused.

Messages go from pixels to superpixels and back. The mean is symmetric in the pixels, so the gradient of the layer is
the layer itself, and `graphseg.ops.superpixel_mean` computes both without a message per pixel. Messages are made where
a hook wants to see them, or after `layer.fuse = False`, with the same values and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from graphseg._checks import check_integer, check_positive_int, check_same_device, check_shape, check_tensor
from graphseg.nn._watched import is_watched
from graphseg.ops import pool, project
from graphseg.ops.resize import resize_nearest
from graphseg.ops.superpixel_mean import add_region_means, count_regions, label_bounds

__all__ = ["MultiscaleSuperpixelMean", "SuperpixelMean"]


def check_labels(x: Tensor, assignment: Tensor, num_nodes: int | None = None) -> Tensor:
    """Returns the assignment as int64 [B, ...], one label map per image: B is 1 for nodes x [P, C]."""
    check_tensor("x", x)
    if x.dim() not in (2, 4):
        raise ValueError(f"got shape {list(x.shape)} for x, expected [P, C] or [B, C, H, W]")
    if not x.is_floating_point():
        raise TypeError(f"got dtype {x.dtype} for x, expected a floating-point dtype")
    check_integer("assignment", check_tensor("assignment", assignment))
    check_shape("assignment", assignment, [x.size(0)] if x.dim() == 2 else [x.size(0), None, None])
    check_same_device(x=x, assignment=assignment)
    if x.numel() and not assignment.numel():
        raise ValueError(f"got shape {list(assignment.shape)} for assignment, expected at least one pixel")
    if num_nodes is not None:
        check_positive_int("num_nodes", num_nodes, minimum=0)
    low, high = label_bounds(assignment)
    if low < 0 or (num_nodes is not None and high >= num_nodes):
        expected = "ids from 0" if num_nodes is None else f"ids in [0, {num_nodes})"
        raise ValueError(f"got assignment id {low if low < 0 else high}, expected {expected}")
    return assignment.long() if x.dim() == 4 else assignment.long().unsqueeze(0)


class _SuperpixelMessages(MessagePassing):
    """What both layers share: messages from pixels to superpixels and back, over one label map after another."""

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__(aggr="mean")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise TypeError(f"got {type(alpha).__name__} for alpha, expected a number")
        if not math.isfinite(alpha):
            raise ValueError(f"got alpha={alpha}, expected a finite number")
        self.alpha = alpha
        self.fuse = True
        # The masks of explainers are for the edges of a graph, and there are none here.
        self.explain = False

    def pass_messages(self, x: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """Eq. (3) for one label map after another."""
        if x.dim() == 4:
            labels = [resize_nearest(scale, x.shape[2:]).flatten(1) for scale in labels]  # S times [B, P]
            out = x.flatten(2)  # [B, C, P]
        else:
            out = x.t().unsqueeze(0)  # [1, C, P]
        if self.fuse and not is_watched(self, _SuperpixelMessages):
            out = add_region_means(out, torch.stack(list(labels), 1), self.alpha)  # Eq. (1), Eq. (2), Eq. (3)
        else:
            for scale in labels:
                out = self._add_mean(out, scale)
        return out.view(x.shape) if x.dim() == 4 else out.squeeze(0).t()

    def _add_mean(self, x: Tensor, labels: Tensor) -> Tensor:
        """X + alpha * mean of x [B, C, P] over the superpixels of labels [B, P], by messages."""
        B, C, P = x.shape
        N = label_bounds(labels)[1] + 1
        rows = x.transpose(1, 2).reshape(B * P, C)
        ids = (labels + N * torch.arange(B, device=x.device).unsqueeze(1)).flatten()  # [B * P]
        edge_index = torch.stack([torch.arange(B * P, device=x.device), ids])  # [2, B * P], pixel to superpixel
        # propagate_type: (x: Tensor)
        mean = self.propagate(edge_index, x=rows, size=(B * P, B * N))  # [B * N, C]
        out = rows + self.alpha * project(mean, ids)  # [B * P, C], Eq. (3)
        return out.view(B, P, C).transpose(1, 2)

    def message(self, x_j: Tensor) -> Tensor:
        return x_j  # the terms of S(P_i, X), Eq. (2)

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return pool(inputs, index, dim_size)  # S(P_i, X) / N(P_i), Eq. (1), summed in a defined order

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.alpha})"


class SuperpixelMean(_SuperpixelMessages):
    """SSP: adds to every pixel the mean of its superpixel, times `alpha`; no parameters.

        X* = X + alpha * mean of X over the superpixel

    Args:
        alpha: weight of the mean (0.1 in the paper).
    """

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__(alpha)

    def forward(self, x: Tensor, assignment: Tensor, num_nodes: int | None = None) -> Tensor:
        """Runs the layer.

        Args:
            x: pixel features, nodes `[P, C]` or a feature map `[B, C, H, W]` in any memory format; floating-point.
            assignment: integers from 0: the superpixel of every node `[P]`, over all images of a batch; or label
                maps `[B, h, w]`, usually at image size, numbered in each image. Pixels of no superpixel get one of
                their own.
            num_nodes: number of superpixels (in each image, for label maps). Default: the largest id + 1.

        Returns:
            The shape, dtype and memory format of `x`.

        Raises:
            TypeError: on `x` that is not floating-point, or `assignment` that is not integers.
            ValueError: on sizes or devices that do not fit, or ids outside [0, num_nodes).
        """
        return self.pass_messages(x, [check_labels(x, assignment, num_nodes)])  # Eq. (4)


class MultiscaleSuperpixelMean(_SuperpixelMessages):
    """MSP: `SuperpixelMean` at one scale after another, from few, large superpixels to many, small ones.

    Args:
        alpha: weight of the mean at every scale (0.1 in the paper).
    """

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__(alpha)

    def forward(self, x: Tensor, assignments: Sequence[Tensor]) -> Tensor:
        """Runs the layer.

        Args:
            x: pixel features, nodes `[P, C]` or a feature map `[B, C, H, W]`, as in `SuperpixelMean`.
            assignments: one assignment `[P]`, or label maps `[B, h, w]`, per scale, coarse to fine: the number of
                superpixels of no image may fall (for nodes: that of the whole batch). The paper has 200, 300 and
                400, or 100 and 200.

        Returns:
            The shape, dtype and memory format of `x`.

        Raises:
            TypeError: as `SuperpixelMean`, or if `assignments` is not a list or tuple.
            ValueError: as `SuperpixelMean`, or if there is no assignment, or superpixels get fewer.
        """
        if not isinstance(assignments, list | tuple):
            raise TypeError(f"got {type(assignments).__name__} for assignments, expected a list of tensors")
        if not assignments:
            raise ValueError("got no tensor in assignments, expected one per scale")
        scales = [check_labels(x, assignment) for assignment in assignments]
        counts = torch.stack([count_regions(scale.flatten(1)) for scale in scales])  # [S, B]
        if bool((counts.diff(dim=0) < 0).any()):
            raise ValueError(
                f"got {counts.t().tolist()} superpixels at the scales of each image, expected numbers that do not fall "
                "(coarse to fine)"
            )
        return self.pass_messages(x, scales)  # Eq. (5), Eq. (6), Eq. (7): the output of each scale enters the next
