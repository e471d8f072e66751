"""Heads of published segmentation networks: from a backbone's maps to the features in front of the classifier.

Papers: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (ASPP, DeepLabV3) and
"Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation" (DeepLabV3+); Zhao et al., "Pyramid
Scene Parsing Network" (PSPNet).

A head has `out_channels` and stops before the classifier, where the papers of graphseg put their modules. Convolutions
here are followed by batch norm and ReLU. Maps are resized bilinearly, without aligning their corners.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout2d, Module, ModuleList, ReLU, Sequential

from graphseg._checks import check_positive_int
from graphseg.models.pixels import resize

__all__ = ["ASPP", "AuxiliaryHead", "DeepLabV3Head", "DeepLabV3PlusHead", "PSPHead"]


class ConvNormReLU(Sequential):
    """A convolution that keeps the size, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, size: int = 1, dilation: int = 1, groups: int = 1) -> None:
        padding = dilation * (size // 2)
        conv = Conv2d(in_channels, out_channels, size, 1, padding, dilation, groups=groups, bias=False)
        super().__init__(conv, BatchNorm2d(out_channels), ReLU())


class SeparableConv(Sequential):
    """A 3 x 3 convolution of each channel on its own, then a 1 x 1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(
            ConvNormReLU(in_channels, in_channels, 3, dilation, groups=in_channels),
            ConvNormReLU(in_channels, out_channels),
        )


class ASPP(Module):
    """Atrous spatial pyramid pooling: 1 x 1, dilated 3 x 3 convolutions and the image's mean, side by side.

    Args:
        in_channels: of the map.
        out_channels: of each branch, and of the output, which a convolution makes of all of them.
        rates: dilations of the 3 x 3 convolutions: (6, 12, 18) at output stride 16, (12, 24, 36) at 8.
        separable: whether these are depthwise separable.
        fuse_size: kernel of the convolution that joins the branches.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rates: Sequence[int], separable: bool = False, fuse_size: int = 1
    ) -> None:
        super().__init__()
        check_positive_int("in_channels", in_channels)
        check_positive_int("out_channels", out_channels)
        self.out_channels = out_channels
        dilated = [
            SeparableConv(in_channels, out_channels, rate)
            if separable
            else ConvNormReLU(in_channels, out_channels, 3, rate)
            for rate in rates
        ]
        self.branches = ModuleList([ConvNormReLU(in_channels, out_channels), *dilated])
        self.pooling = Sequential(AdaptiveAvgPool2d(1), ConvNormReLU(in_channels, out_channels))
        self.fuse = ConvNormReLU((len(rates) + 2) * out_channels, out_channels, fuse_size)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `[B, out_channels, h, w]`.

        Args:
            x: `[B, in_channels, h, w]`; in training at least two images, whose means have a norm.
        """
        pooled = resize(self.pooling(x), x.shape[2:])
        return self.fuse(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))


class DeepLabV3Head(Module):
    """DeepLabV3: ASPP on the last map.

    Args:
        in_channels: channels of the backbone's maps.
        out_channels: C of the features.
        rates: as for `ASPP`.
    """

    num_maps = 1

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 512, rates: Sequence[int] = (12, 24, 36)
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.aspp = ASPP(in_channels[-1], out_channels, rates, fuse_size=3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns `[B, C, h, w]` in the size of the last map.

        Args:
            maps: of the backbone.
        """
        return self.aspp(maps[-1])


class DeepLabV3PlusHead(Module):
    """DeepLabV3+: separable ASPP on the last map, enlarged to the first, joined with it, two separable convolutions.

    Args:
        in_channels: channels of the backbone's maps.
        out_channels: C of the features.
        rates: as for `ASPP`.
        low_channels: to which the first map is reduced.
    """

    num_maps = 2

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 512,
        rates: Sequence[int] = (12, 24, 36),
        low_channels: int = 48,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.aspp = ASPP(in_channels[-1], out_channels, rates, separable=True, fuse_size=3)
        self.low = ConvNormReLU(in_channels[0], low_channels)
        self.decoder = Sequential(
            SeparableConv(out_channels + low_channels, out_channels), SeparableConv(out_channels, out_channels)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns `[B, C, h, w]` in the size of the first map.

        Args:
            maps: of the backbone.
        """
        low = self.low(maps[0])
        return self.decoder(torch.cat([resize(self.aspp(maps[-1]), low.shape[2:]), low], 1))


class PSPHead(Module):
    """PSPNet: means of the last map over grids of several sizes, beside the map itself.

    Args:
        in_channels: channels of the backbone's maps.
        out_channels: C of the features, and of each grid.
        grids: cells along each side.
    """

    num_maps = 1

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 512, grids: Sequence[int] = (1, 2, 3, 6)
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.grids = ModuleList(
            Sequential(AdaptiveAvgPool2d(cells), ConvNormReLU(in_channels[-1], out_channels)) for cells in grids
        )
        self.fuse = ConvNormReLU(in_channels[-1] + len(grids) * out_channels, out_channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns `[B, C, h, w]` in the size of the last map.

        Args:
            maps: of the backbone.
        """
        x = maps[-1]
        return self.fuse(torch.cat([x, *(resize(grid(x), x.shape[2:]) for grid in self.grids)], 1))


class AuxiliaryHead(Sequential):
    """A 3 x 3 convolution and a classifier, on a map in the middle of the backbone; for training only.

    Args:
        in_channels: of the map.
        num_classes: K.
        channels: of the convolution.
        dropout: share of its channels that are left out while training.
    """

    def __init__(self, in_channels: int, num_classes: int, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__(ConvNormReLU(in_channels, channels, 3), Dropout2d(dropout), Conv2d(channels, num_classes, 1))
