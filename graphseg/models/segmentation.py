"""A network for semantic segmentation: backbone, head, features that may be refined, classifier, auxiliary classifier.

    image [B, C, H, W] --backbone--> maps --head--> X [B, D, h, w] --refine--> X* --classifier--> logits [B, K, H, W]

The papers' networks are this one with a `refine` of their own, so that the network without it is their base. Images are
in [0, 1]; the network normalises them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import Conv2d, Dropout2d, Module, Parameter
from torch.nn.init import normal_, zeros_

from graphseg._checks import check_choice, check_positive_int, check_shape, check_tensor
from graphseg.losses import cross_entropy, mean_over
from graphseg.models.heads import AuxiliaryHead, DeepLabV3Head, DeepLabV3PlusHead, PSPHead
from graphseg.models.pixels import resize
from graphseg.models.resnet import backbone_channels, backbone_maps, make_backbone, scaled_width
from graphseg.ops import multiscale_slic

__all__ = ["Reduce", "Segmentation", "SegmentationNetwork", "normalize_image"]

Reduce = Callable[[Tensor], Tensor]

HEADS: dict[str, Any] = {"deeplabv3plus": DeepLabV3PlusHead, "deeplabv3": DeepLabV3Head, "pspnet": PSPHead}
RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # of ASPP, by output stride
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images


class Segmentation(NamedTuple):
    """What a network says of a batch of images."""

    logits: Tensor  # [B, K, H, W], at the images' size
    coarse: Tensor | None = None  # [B, K, H, W], before the refinement of CDGCNet
    auxiliary: Tensor | None = None  # [B, K, H, W], while training


class SegmentationNetwork(Module):
    """Backbone, head and classifier; the base of MSP's, ES-CRF's and CDGCNet's networks, and a network of its own.

    Args:
        num_classes: K.
        backbone: "resnet18", "resnet34", "resnet50" or "resnet101", or a module that returns a feature map or a list
            of them and has their `out_channels`.
        head: "deeplabv3plus", "deeplabv3" or "pspnet".
        output_stride: of the ResNet: 8, 16 or 32.
        width: scales all channels of ResNet and head.
        in_channels: of the image.
        multi_grid: of the ResNet's last stage, as (1, 2, 4).
        channels: D of the features at full width.
        auxiliary: whether an auxiliary classifier learns on the last map but one; for backbones with several maps.
        auxiliary_weight: of its loss.
        dropout: share of the features' channels that are left out while training.
        ignore_index: of the masks.

    Attributes:
        options: the keyword arguments that make this network again, as plain values.
        num_superpixels: the counts of superpixels that the network wants, coarse to fine; none here.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str | Module = "resnet50",
        head: str = "deeplabv3plus",
        output_stride: int = 8,
        width: float = 1.0,
        in_channels: int = 3,
        multi_grid: Sequence[int] | None = None,
        channels: int = 512,
        auxiliary: bool = True,
        auxiliary_weight: float = 0.4,
        dropout: float = 0.1,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        check_positive_int("num_classes", num_classes)
        check_choice("head", head, tuple(HEADS))
        self.options: dict[str, Any] = {
            "num_classes": num_classes,
            "backbone": backbone if isinstance(backbone, str) else type(backbone).__name__,
            "head": head,
            "output_stride": output_stride,
            "width": width,
            "in_channels": in_channels,
            "multi_grid": None if multi_grid is None else list(multi_grid),
            "channels": channels,
            "auxiliary": auxiliary,
            "auxiliary_weight": auxiliary_weight,
            "dropout": dropout,
            "ignore_index": ignore_index,
        }
        self.num_classes, self.in_channels, self.ignore_index = num_classes, in_channels, ignore_index
        self.auxiliary_weight = auxiliary_weight
        self.num_superpixels: tuple[int, ...] = ()
        self.backbone = make_backbone(backbone, output_stride, width, in_channels, multi_grid)
        maps = backbone_channels(self.backbone)
        needed = max(HEADS[head].num_maps, 1 + auxiliary)
        if len(maps) < needed:
            raise ValueError(
                f"got a backbone with {len(maps)} feature map, expected {needed} for head={head!r} and "
                f"auxiliary={auxiliary}"
            )
        size = scaled_width(channels, width)
        more: dict[str, Any] = {} if head == "pspnet" else {"rates": RATES[output_stride]}
        if head == "deeplabv3plus":
            more["low_channels"] = scaled_width(48, width)
        self.head = HEADS[head](maps, size, **more)
        self.dropout = Dropout2d(dropout)
        self.classifier = Conv2d(size, num_classes, 1)
        self.auxiliary: Module | None = None
        if auxiliary:
            self.auxiliary = AuxiliaryHead(maps[-2], num_classes, scaled_width(256, width), dropout)
        reset_classifier(self.classifier)
        register_normalization(self, in_channels)

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
            superpixels: label maps `[B, S, h, w]`, or a list of S `[B, h, w]`, one for each of `num_superpixels`,
                coarse to fine. Default: cut by SLIC here, on the image's device.
            target: `[B, H, W]` classes, for networks that sample by them while training.
            generator: of what they draw.

        Returns:
            `Segmentation`, with the auxiliary scores while training.
        """
        size = image.shape[-2:]
        maps = self.maps(image)
        x = self.refine(self.head(maps), image, superpixels)
        logits = self.refine_scores(self.classifier(self.dropout(x)), image)
        return Segmentation(resize(logits, size), auxiliary=self.auxiliary_scores(maps, size))

    def refine(self, x: Tensor, image: Tensor, superpixels: Tensor | Sequence[Tensor] | None) -> Tensor:
        """What the papers put between head and classifier; here nothing.

        Args:
            x: `[B, D, h, w]`.
            image, superpixels: as for `forward`.
        """
        return x

    def refine_scores(self, logits: Tensor, image: Tensor) -> Tensor:
        """What the papers put behind the classifier; here nothing.

        Args:
            logits: `[B, K, h, w]`.
            image: as for `forward`.
        """
        return logits

    def maps(self, image: Tensor) -> list[Tensor]:
        """The backbone's maps of images in [0, 1].

        Args:
            image: as for `forward`.
        """
        check_image(image, self.in_channels)
        return backbone_maps(self.backbone, normalize_image(self, image))

    def auxiliary_scores(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor | None:
        """`[B, K, H, W]` while training, if there is an auxiliary classifier.

        Args:
            maps: of the backbone.
            size: (H, W).
        """
        if self.auxiliary is None or not self.training:
            return None
        return resize(self.auxiliary(maps[-2]), size)

    def losses(
        self, batch: Mapping[str, Tensor], *, reduce: Reduce | None = None, generator: Generator | None = None
    ) -> dict[str, Tensor]:
        """The losses of one training step: "loss", the sum that is minimised, and its terms.

        Args:
            batch: "image" `[B, in_channels, H, W]`, "mask" `[B, H, W]` and, if they are made already, "superpixels".
            reduce: adds a tensor over processes. Default: there is one.
            generator: of what is drawn.
        """
        out = self(batch["image"], batch.get("superpixels"), batch["mask"], generator=generator)
        return self.loss_terms(out, batch["mask"], reduce)

    def loss_terms(self, out: Segmentation, mask: Tensor, reduce: Reduce | None) -> dict[str, Tensor]:
        """Cross entropy of the scores, and of the auxiliary ones.

        Args:
            out: of `forward`.
            mask: `[B, H, W]`.
            reduce: as for `losses`.
        """
        terms = {"cross_entropy": self.cross_entropy(out.logits, mask, reduce)}
        total = terms["cross_entropy"]
        if out.auxiliary is not None:
            terms["auxiliary"] = self.cross_entropy(out.auxiliary, mask, reduce)
            total = total + self.auxiliary_weight * terms["auxiliary"]
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

    def cross_entropy(self, logits: Tensor, mask: Tensor, reduce: Reduce | None) -> Tensor:
        """The mean over the labelled pixels of all processes.

        Args:
            logits: `[B, K, H, W]`.
            mask: `[B, H, W]`.
            reduce: as for `losses`.
        """
        pair = cross_entropy(logits, mask, ignore_index=self.ignore_index, reduction="sum", return_count=True)
        return mean_over(pair, reduce)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """All parameters under one name."""
        return {"all": list(self.parameters())}


def reset_classifier(layer: Conv2d) -> None:
    """Small weights and no bias, so that a classifier starts undecided."""
    normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        zeros_(layer.bias)


def superpixel_scales(
    image: Tensor, superpixels: Tensor | Sequence[Tensor] | None, counts: Sequence[int]
) -> list[Tensor]:
    """Label maps `[B, h, w]`, one for each of `counts`; by SLIC if there are none yet."""
    if superpixels is None:
        return cut_images(image, counts)
    scales = list(superpixels.unbind(1)) if isinstance(superpixels, Tensor) else list(superpixels)
    if len(scales) != len(counts):
        raise ValueError(f"got {len(scales)} scales of superpixels, expected {len(counts)}: {tuple(counts)}")
    return scales


@torch.compiler.disable
def cut_images(image: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """SLIC of images `[B, C, H, W]` at every count."""
    return multiscale_slic(image.detach().float().clamp(0, 1), list(counts)) if counts else []


def register_normalization(network: Module, in_channels: int) -> None:
    """Gives a network the mean and spread of its images: ImageNet's for three channels, else 1/2 and 1/4."""
    known = in_channels == len(_MEAN)
    mean, std = (_MEAN, _STD) if known else ((0.5,) * in_channels, (0.25,) * in_channels)
    network.register_buffer("image_mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
    network.register_buffer("image_std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)


def normalize_image(network: Module, image: Tensor) -> Tensor:
    """`(image - mean) / std` with the buffers of `network`.

    Args:
        network: that has them.
        image: `[B, C, H, W]` in [0, 1].
    """
    mean, std = network.image_mean, network.image_std
    return (image - mean) / std  # type: ignore[operator]


def check_image(image: Tensor, in_channels: int) -> None:
    """Raises unless `image` is floating-point `[B, in_channels, H, W]`."""
    check_shape("image", check_tensor("image", image), (None, in_channels, None, None))
    if not image.is_floating_point():
        raise TypeError(f"got dtype {image.dtype} for image, expected floating-point values in [0, 1]")
