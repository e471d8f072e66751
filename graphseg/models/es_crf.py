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

from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Module, Sequential
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.nn.init import zeros_

from graphseg._checks import check_choice, check_positive_int
from graphseg.models.pixels import pixel_images, pixel_maps, pixel_positions, pixel_rows, resize, window_edges
from graphseg.models.segmentation import SegmentationNetwork, superpixel_scales
from graphseg.nn import EmbeddedSuperpixelCRF, MeanFieldCRF
from graphseg.nn.superpixel_mean import check_labels
from graphseg.ops.resize import resize_nearest

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
        h, w = x.shape[2:]
        small = image if image.shape[-2:] == x.shape[-2:] else interpolate(image, (h, w), mode="area")
        assignment = None
        if self.num_superpixels:
            (labels,) = superpixel_scales(image, superpixels, self.num_superpixels)
            # Numbered in each image; `batch` parts them.
            assignment = resize_nearest(check_labels(x, labels), (h, w)).flatten()
        pos, batch = pixel_positions(x), pixel_images(x)
        edge_index = None if self.graph == "all" else window_edges(x, self.window)
        return pixel_maps(self.crf(pixel_rows(x), pixel_rows(small), pos, edge_index, assignment, batch), x)

    def refine_scores(self, logits: Tensor, image: Tensor) -> Tensor:
        if not isinstance(self.crf, MeanFieldCRF) or (self.training and not self.crf.trained):
            return logits
        logits = resize(logits, image.shape[-2:])
        pos, batch = pixel_positions(logits), pixel_images(logits)
        edges = window_edges(logits, None, self.crf.radius)
        return pixel_maps(self.crf(pixel_rows(logits), pixel_rows(image), pos, edges, batch), logits)
