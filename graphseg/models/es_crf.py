"""ES-CRF in DeepLabV3+, and what its paper compares it with on the same base.

Paper: Zhu, Huang, Li, Wang, "ES-CRF: Embedded Superpixel CRF for Semantic Segmentation", Figure 2 and Tables 1 and 2.
The equations are in `graphseg.nn.superpixel_crf`.
The paper leaves open: which pixels send to which (a 3 x 3 window of dilation 2, or all pixels); the pixels are those of
the features, the image resized to them, and their positions count in these pixels. The CRFs on scores take windows too,
at the image's size; the one that is trained with the network also takes part in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Module, Sequential
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.nn.init import zeros_

from graphseg._checks import check_choice, check_positive_int
from graphseg.models.segmentation import SegmentationNetwork, resize
from graphseg.nn import EmbeddedSuperpixelCRF, MeanFieldCRF
from graphseg.nn.superpixel_mean import check_labels, resize_labels
from graphseg.ops import affinity_offsets, offset_edges

__all__ = ["ESCRFNet", "NonLocalBlock"]

VARIANTS = ("es_crf", "vanilla_crf", "joint_crf", "non_local", "base")


class NonLocalBlock(Module):
    """Attention of every pixel to all pixels, added to its features: the "Non-local" of the paper's Table 2.

        out = x + BN(W softmax(theta(x)^T phi(x)) g(x))

    Args:
        channels: D.

    Source: Wang, Girshick, Gupta, He, "Non-local Neural Networks", the embedded Gaussian form.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_positive_int("channels", channels)
        inner = max(1, channels // 2)
        self.theta, self.phi, self.g = (Conv2d(channels, inner, 1) for _ in range(3))
        norm = BatchNorm2d(channels)
        zeros_(norm.weight)  # the block starts as the identity
        self.out = Sequential(Conv2d(inner, channels, 1), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `[B, D, h, w]`.

        Args:
            x: `[B, D, h, w]`.
        """
        query, key, value = (conv(x).flatten(2).transpose(1, 2) for conv in (self.theta, self.phi, self.g))
        mixed = scaled_dot_product_attention(query, key, value, scale=1.0)  # [B, P, D / 2]
        return x + self.out(mixed.transpose(1, 2).reshape(x.size(0), -1, *x.shape[2:]))


class ESCRFNet(SegmentationNetwork):
    """DeepLabV3+ with the embedded superpixel CRF in front of its classifier, or with another of the paper's modules.

    Args:
        num_classes: K.
        variant: "es_crf"; "vanilla_crf" (a mean field on the scores of the trained network), "joint_crf" (one that is
            trained with it), "non_local", or "base".
        num_superpixels: about how many: 200 on ADE20K, 600 on Cityscapes.
        graph: "window" or "all", the pixels that send to one.
        window: distances of the eight neighbours that a window has; (2,) is 3 x 3 with dilation 2.
        pairwise, superpixel: whether ES-CRF has its two terms (Table 2).
        crf: keyword arguments of `EmbeddedSuperpixelCRF`, or of `MeanFieldCRF` for the CRFs on scores.
        options: as for `SegmentationNetwork`.
    """

    def __init__(
        self,
        num_classes: int,
        variant: str = "es_crf",
        *,
        num_superpixels: int = 200,
        graph: str = "window",
        window: Sequence[int] = (2,),
        pairwise: bool = True,
        superpixel: bool = True,
        crf: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_choice("variant", variant, VARIANTS)
        check_choice("graph", graph, ("window", "all"))
        check_positive_int("num_superpixels", num_superpixels)
        super().__init__(num_classes, **options)
        self.variant, self.graph, self.window = variant, graph, tuple(window)
        self.options |= {
            "variant": variant,
            "num_superpixels": num_superpixels,
            "graph": graph,
            "window": list(window),
            "pairwise": pairwise,
            "superpixel": superpixel,
            "crf": dict(crf or {}),
        }
        given = dict(crf or {})
        channels = self.head.out_channels
        self.crf: Module | None = None
        if variant == "es_crf":
            for name, wanted in (("pairwise_weight", pairwise), ("superpixel_weight", superpixel)):
                if not wanted:
                    given[name] = 0.0
            self.crf = EmbeddedSuperpixelCRF(channels, self.in_channels, **given)
            self.num_superpixels = (num_superpixels,) if superpixel else ()
        elif variant in ("vanilla_crf", "joint_crf"):
            self.crf = MeanFieldCRF(num_classes, trained=variant == "joint_crf", **given)
        elif variant == "non_local":
            self.crf = NonLocalBlock(channels)

    def refine(self, x: Tensor, image: Tensor, superpixels: Tensor | Sequence[Tensor] | None) -> Tensor:
        if isinstance(self.crf, NonLocalBlock):
            return self.crf(x)
        if not isinstance(self.crf, EmbeddedSuperpixelCRF):
            return x
        B, _, h, w = x.shape
        small = image if image.shape[-2:] == x.shape[-2:] else interpolate(image, (h, w), mode="area")
        assignment = None
        if self.num_superpixels:
            (labels,) = self.scales(image, superpixels)
            # Numbered in each image; `batch` parts them.
            assignment = resize_labels(check_labels(x, labels), h, w).flatten()
        pos, batch = pixel_positions(B, h, w, x.device)
        edge_index = None if self.graph == "all" else window_edges(B, h, w, self.window, x.device)
        refined = self.crf(pixel_rows(x), pixel_rows(small), pos, edge_index, assignment, batch)
        return refined.view(B, h, w, -1).permute(0, 3, 1, 2)

    def refine_scores(self, logits: Tensor, image: Tensor) -> Tensor:
        if not isinstance(self.crf, MeanFieldCRF) or (self.training and not self.crf.trained):
            return logits
        logits = resize(logits, image.shape[-2:])
        B, K, H, W = logits.shape
        pos, batch = pixel_positions(B, H, W, logits.device)
        edges = window_edges(B, H, W, None, logits.device, self.crf.radius)
        scores = self.crf(pixel_rows(logits), pixel_rows(image), pos, edges, batch)
        return scores.view(B, H, W, K).permute(0, 3, 1, 2)


def pixel_rows(x: Tensor) -> Tensor:
    """Maps `[B, C, h, w]` as rows of pixels `[B h w, C]`."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.size(1))


def pixel_positions(B: int, h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(x, y) of the pixels of B images `[B h w, 2]`, and the image of each."""
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    pos = torch.stack([x, y], -1).view(-1, 2).float()
    return pos.repeat(B, 1), torch.arange(B, device=device).repeat_interleave(h * w)


def window_edges(
    B: int, h: int, w: int, distances: Sequence[int] | None, device: torch.device, radius: float = 0.0
) -> Tensor:
    """Edges both ways between the pixels of B images: eight neighbours at each distance, or all within a radius."""
    if distances is not None:
        offsets = affinity_offsets(distances)
    else:
        reach = int(radius)
        steps = range(-reach, reach + 1)
        offsets = [(dy, dx) for dy in steps for dx in steps if 0 < dy * dy + dx * dx <= radius * radius]
    one = offset_edges(h, w, offsets, directed=True, device=device)  # [2, E]
    shift = h * w * torch.arange(B, device=device)
    return (one.unsqueeze(1) + shift.view(1, B, 1)).reshape(2, -1)
