"""CDGCNet: a coarse segmentation, class-wise dynamic graph convolution, and a refined segmentation.

Paper: Hu, Ji, Gan, Bai, Wu, Yan, "Class-wise Dynamic Graph Convolution for Semantic Segmentation", Figures 2 and 3 and
Tables 1 to 5. The equations are in `graphseg.nn.class_wise_gcn`, the loss, its Eq. 5, in `graphseg.losses.ohem`.

    image --ResNet, ASPP, 3 x 3--> X [B, C, h, w] --1 x 1--> coarse;   CDGC(X, coarse) --1 x 1--> refined

The paper leaves open: C, 256 here; the convolution that reduces to it, 3 x 3 with batch norm and ReLU; without ASPP it
stands on the backbone's last map. Ground truth is resized to the features by the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor
from torch.nn import Conv2d, Identity, Module

from graphseg._checks import check_choice
from graphseg.losses import CDGCLoss
from graphseg.models.heads import ASPP, ConvNormReLU
from graphseg.models.pixels import pixel_images, pixel_maps, pixel_rows, resize
from graphseg.models.resnet import backbone_channels, scaled_width
from graphseg.models.segmentation import (
    RATES,
    Reduce,
    Segmentation,
    SegmentationNetwork,
    reset_classifier,
)
from graphseg.nn import ClassWiseGraphConv
from graphseg.ops.resize import resize_nearest

__all__ = ["CDGCNet"]

GRAPHS = ("dynamic", "similarity", "plain", "none")


class ContextHead(Module):
    """ASPP, or nothing, and a 3 x 3 convolution to C channels."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, rates: Sequence[int], aspp: bool) -> None:
        super().__init__()
        self.aspp = ASPP(in_channels, channels, rates) if aspp else Identity()
        self.reduce = ConvNormReLU(channels if aspp else in_channels, out_channels, 3)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.aspp(x))


class CDGCNet(SegmentationNetwork):
    """ResNet, ASPP and class-wise graph convolution.

    Args:
        num_classes: K.
        graph: "dynamic": the nodes of a class are sampled by the ground truth while training (Eq. 4); "similarity":
            by the coarse prediction alone; "plain": one graph of all pixels (Table 1); "none": the base, whose coarse
            scores are its result.
        ratio: share of the easy positives that is sampled.
        fusion: "concat" or "sum", of X and the refined features.
        aspp: whether the base has ASPP (Table 2).
        hard_positives, hard_negatives: whether they are sampled (Table 5).
        reduced_channels: C at full width.
        threshold, min_kept: of the hard pixels of the refined scores' loss.
        graph_options: more keyword arguments of `ClassWiseGraphConv`: `shared`, `top_k`, `binary`, `bias`.
        options: as for `SegmentationNetwork`; there is no `head`.
    """

    def __init__(
        self,
        num_classes: int,
        graph: str = "dynamic",
        *,
        ratio: float = 1.0,
        fusion: str = "concat",
        aspp: bool = True,
        hard_positives: bool = True,
        hard_negatives: bool = True,
        reduced_channels: int = 256,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        graph_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_choice("graph", graph, GRAPHS)
        if "head" in options:
            raise TypeError(f"got head={options['head']!r}, expected none: aspp says what CDGCNet has")
        options = {"backbone": "resnet101", **options}
        super().__init__(num_classes, head="deeplabv3", **options)
        own = self.options
        del own["head"]
        own |= {"graph": graph, "ratio": ratio, "fusion": fusion, "aspp": aspp, "hard_positives": hard_positives}
        own |= {"hard_negatives": hard_negatives, "reduced_channels": reduced_channels, "threshold": threshold}
        own |= {"min_kept": min_kept, "graph_options": dict(graph_options or {})}
        self.graph, width = graph, own["width"]
        C = scaled_width(reduced_channels, width)
        last, rates = backbone_channels(self.backbone)[-1], RATES[own["output_stride"]]
        self.head = ContextHead(last, scaled_width(own["channels"], width), C, rates, aspp)
        self.classifier = Conv2d(C, num_classes, 1)
        layers = [self.classifier]
        if graph != "none":
            self.graph_conv = ClassWiseGraphConv(
                C,
                1 if graph == "plain" else num_classes,
                ratio,
                fusion,
                hard_positives=hard_positives,
                hard_negatives=hard_negatives,
                ignore_index=self.ignore_index,
                **(graph_options or {}),
            )
            self.refined = Conv2d(2 * C if fusion == "concat" else C, num_classes, 1)
            layers.append(self.refined)
        for layer in layers:
            reset_classifier(layer)
        self.loss = CDGCLoss(
            gamma=self.auxiliary_weight, threshold=threshold, min_kept=min_kept, ignore_index=self.ignore_index
        )

    def forward(
        self,
        image: Tensor,
        superpixels: Tensor | Sequence[Tensor] | None = None,
        target: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Segmentation:
        """The scores of every pixel.

        Args:
            image: `[B, in_channels, H, W]` in [0, 1].
            superpixels: not used; here so that the networks can take each other's place.
            target: `[B, H, W]` classes, which the dynamic graph needs while training.
            generator: of the samples.

        Returns:
            `Segmentation` with `coarse` scores; without a graph these are `logits`.

        Raises:
            ValueError: while training the dynamic graph without `target`.
        """
        size = image.shape[-2:]
        maps = self.maps(image)
        x = self.head(maps[-1])
        coarse = self.classifier(self.dropout(x))
        auxiliary = self.auxiliary_scores(maps, size)
        if self.graph == "none":
            return Segmentation(resize(coarse, size), auxiliary=auxiliary)
        refined = self.refined(self.dropout(self._refine(x, coarse.detach(), target, generator)))
        return Segmentation(resize(refined, size), resize(coarse, size), auxiliary)

    def _refine(self, x: Tensor, coarse: Tensor, target: Tensor | None, generator: Generator | None) -> Tensor:
        """CDGC of features `[B, C, h, w]` and coarse scores `[B, K, h, w]`: `[B, C or 2C, h, w]`."""
        y = None
        if self.graph == "dynamic" and self.training:
            if target is None:
                raise ValueError("got no target, expected one while training with graph='dynamic'")
            y = resize_nearest(target.long(), x.shape[2:]).flatten()
        elif self.graph == "plain":
            coarse = coarse[:, :1]  # one class, to which every pixel belongs
        out = self.graph_conv(pixel_rows(x), pixel_rows(coarse), y, pixel_images(x), generator=generator)
        return pixel_maps(out, x)

    def loss_terms(self, out: Segmentation, mask: Tensor, reduce: Reduce | None) -> dict[str, Tensor]:
        if out.coarse is None:
            return super().loss_terms(out, mask, reduce)
        return {"loss": self.loss(out.coarse, out.logits, out.auxiliary, mask, reduce)}
