"""The parts of SGSeg: superpixel network, graph network, segmentation CNN, and the way from pixels to nodes and back.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks", Tables 7 to 10.
Equations: Eq. (3) features of superpixels; Eq. (4) assignment; Eq. (6) projection.
The paper leaves open: convolutions in front of a batch norm have no bias, all others have one, the dilated ones of
Table 7 too; the last convolution of Table 10 reads all channels of the enlarged map; the graph of the blocks is built
once, and building it anew for each block is an option; a superpixel without mass has the features 0.
Differs from the paper: Table 7 has N + c_in outputs, as the reconstruction of RGBIR needs; the second residual block of
Table 10 takes the 128 channels that the first one leaves (64 are printed); an image of odd size is cut out of the
enlarged map, so that pixels stay at their places. At full width nothing else; `width` scales the channels of all layers
but those that superpixels, classes or the image determine.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import BatchNorm1d, Conv2d, Linear, MaxPool2d, Module, ModuleList, ReLU, Sequential
from torch.nn.functional import interpolate
from torch.nn.init import xavier_uniform_, zeros_

from graphseg._checks import check_choice, check_positive_int, check_shape, check_tensor
from graphseg.models.heads import ConvNormReLU
from graphseg.models.resnet import scaled_width
from graphseg.nn import DGCNNBlock, DiffGCNConv, PointNetBlock, RasterConv2d, RasterResidualBlock
from graphseg.ops import knn_edges

__all__ = ["SPNN", "SegmentationCNN", "SuperpixelGNN", "SuperpixelMaps", "pool_superpixels", "project_superpixels"]

BLOCKS: dict[str, type[DiffGCNConv] | type[DGCNNBlock] | type[PointNetBlock]] = {
    "diff_gcn": DiffGCNConv,
    "dgcnn": DGCNNBlock,
    "pointnet": PointNetBlock,
}


class SuperpixelMaps(NamedTuple):
    """What `SPNN` makes of images."""

    assignment: Tensor  # [B, N, H, W], P, the probability of the superpixel given the pixel
    reconstruction: Tensor  # [B, C, H, W]
    features: Tensor  # [B, c, H, W], of the layer before


def pool_superpixels(assignment: Tensor, *maps: Tensor) -> Tensor:
    """`F_s = sum_p P_ps F_p / sum_p P_ps`, of several maps one after the other.

    Args:
        assignment: `[B, N, H, W]`, P.
        *maps: `[B, c, H, W]` each, or `[1, c, H, W]` for the same in all images.

    Returns:
        `[B, N, sum of c]`, of P's dtype; 0 for a superpixel without mass.
    """
    P = assignment.flatten(2)  # [B, N, HW]
    mass = P.sum(2, keepdim=True)  # [B, N, 1]
    mass = mass.masked_fill(mass < 1e-30, torch.inf)  # the gradient of the mean divides by its square
    with torch.autocast(P.device.type, enabled=False):
        rows = [F.flatten(2).transpose(1, 2).to(P.dtype) for F in maps]  # [B, HW, c]
        return torch.cat([P @ F for F in rows], 2) / mass  # Eq. (3)


def project_superpixels(nodes: Tensor, assignment: Tensor) -> Tensor:
    """`M_p = sum_s P_ps F_s`.

    Args:
        nodes: `[B, N, c]`, F.
        assignment: `[B, N, H, W]`, P.

    Returns:
        `[B, c, H, W]`, of P's dtype.
    """
    with torch.autocast(nodes.device.type, enabled=False):
        out = nodes.to(assignment.dtype).transpose(1, 2) @ assignment.flatten(2)  # Eq. (6)
    return out.unflatten(2, assignment.shape[2:])


class SPNN(Module):
    """The superpixel network of Table 7.

    Args:
        in_channels: C of the image.
        num_superpixels: N, at least 2.
        width: scales the channels.

    Attributes:
        feature_channels: c of the features, 512 at full width.
    """

    def __init__(self, in_channels: int, num_superpixels: int, width: float = 1.0) -> None:
        super().__init__()
        check_positive_int("in_channels", in_channels)
        check_positive_int("num_superpixels", num_superpixels, minimum=2)
        self.in_channels, self.num_superpixels = in_channels, num_superpixels
        c = [in_channels, *(scaled_width(channels, width) for channels in (64, 128, 256, 512))]
        self.feature_channels = c[4]
        sizes = (5, 3, 3, 3)
        self.encoder = Sequential(*(ConvNormReLU(c[i], c[i + 1], size) for i, size in enumerate(sizes)))
        self.dilated = ModuleList(Conv2d(c[4], c[4], 3, padding=rate, dilation=rate, groups=c[4]) for rate in (1, 2, 4))
        self.fuse = ConvNormReLU(3 * c[4], c[4], 3)
        self.head = Conv2d(c[4], num_superpixels + in_channels, 1)
        self.apply(reset)

    def forward(self, image: Tensor) -> SuperpixelMaps:
        """Returns the `SuperpixelMaps` of images.

        Args:
            image: `[B, in_channels, H, W]`.
        """
        check_shape("image", check_tensor("image", image), (None, self.in_channels, None, None))
        x = self.encoder(image)
        features = self.fuse(torch.cat([conv(x) for conv in self.dilated], 1))
        out = self.head(features)
        assignment = softmax(out[:, : self.num_superpixels])  # Eq. (4)
        return SuperpixelMaps(assignment, out[:, self.num_superpixels :], features)


class SuperpixelGNN(Module):
    """The graph network of Table 8, on the graph of the k nearest neighbours among an image's superpixels.

    Args:
        in_channels: of the nodes.
        block: "diff_gcn", "dgcnn" or "pointnet" (which uses no graph).
        k: neighbours of a node; N nodes have at most N - 1.
        num_blocks: L, whose outputs are concatenated.
        dynamic: whether the blocks after the first take the neighbours in their own inputs, as DGCNN does.
        width: scales the channels.

    Attributes:
        out_channels: of the nodes, 64 at full width.
    """

    def __init__(
        self,
        in_channels: int,
        block: str = "diff_gcn",
        *,
        k: int = 20,
        num_blocks: int = 4,
        dynamic: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("block", block, tuple(BLOCKS))
        check_positive_int("in_channels", in_channels)
        check_positive_int("k", k)
        check_positive_int("num_blocks", num_blocks)
        hidden, wide, middle = (scaled_width(channels, width) for channels in (64, 256, 128))
        self.in_channels, self.out_channels = in_channels, hidden
        self.has_graph, self.k, self.dynamic = block != "pointnet", k, dynamic
        self.lift = _linear_norm_relu(in_channels, hidden)
        self.blocks = ModuleList(BLOCKS[block](hidden, hidden) for _ in range(num_blocks))
        self.head = Sequential(
            _linear_norm_relu(num_blocks * hidden, wide), _linear_norm_relu(wide, middle), Linear(middle, hidden)
        )
        self.apply(reset)

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """Returns the nodes `[B, N, out_channels]`.

        Args:
            x: `[B, N, in_channels]`, finite.
            pos: `[B, N, 2]` (x, y), in any unit.
            edge_index: `[2, E]`, of nodes counted through the batch. Default: `graph(x)`.
        """
        check_shape("x", check_tensor("x", x), (None, None, self.in_channels))
        check_shape("pos", check_tensor("pos", pos), (*x.shape[:2], 2))
        edge_index = self.graph(x) if edge_index is None else edge_index
        pos = pos.flatten(0, 1)  # [B * N, 2]
        h = self.lift(x.flatten(0, 1))  # [B * N, 64]
        found: list[Tensor] = []
        for block in self.blocks:
            if self.dynamic and found:
                edge_index = self.graph(h.view(*x.shape[:2], -1))
            h = block(h, edge_index, pos)
            found.append(h)
        return self.head(torch.cat(found, 1)).view(*x.shape[:2], -1)

    def graph(self, x: Tensor) -> Tensor:
        """The edges `[2, E]` between each node and its nearest, (neighbour, node), counted through the batch.

        Args:
            x: `[B, N, c]`.
        """
        if not self.has_graph:
            return torch.empty(2, 0, dtype=torch.int64, device=x.device)
        batch = torch.arange(len(x), device=x.device).repeat_interleave(x.shape[1])
        return knn_edges(x.flatten(0, 1), self.k, batch)


class SegmentationCNN(Module):
    """The segmentation CNN of Tables 9 and 10.

    Args:
        in_channels: of the image and all that is put beside it.
        num_classes: K.
        image_channels: C of the image that is reconstructed.
        width: scales the channels.
        turn: whether kernels turn with the ordering, see `graphseg.nn.RasterConv2d`.
    """

    def __init__(
        self, in_channels: int, num_classes: int, image_channels: int, *, width: float = 1.0, turn: bool = True
    ) -> None:
        super().__init__()
        check_positive_int("in_channels", in_channels)
        check_positive_int("num_classes", num_classes)
        check_positive_int("image_channels", image_channels)
        self.in_channels, self.num_classes = in_channels, num_classes
        c = [scaled_width(channels, width) for channels in (64, 128, 128, 256, 512)]
        outputs = num_classes + image_channels
        self.stem = Sequential(ConvNormReLU(in_channels, c[0], 3), MaxPool2d(2, ceil_mode=True))
        self.blocks = ModuleList(RasterResidualBlock(c[i], c[i + 1], turn) for i in range(4))
        self.head = Sequential(Conv2d(c[4], outputs, 1), Conv2d(outputs, outputs, 1))
        self.reconstruct = Conv2d(outputs, image_channels, 3, padding=1)
        self.apply(reset)

    def forward(self, x: Tensor, *orderings: int | None) -> list[tuple[Tensor, Tensor]]:
        """Returns logits `[B, K, H, W]` and reconstruction `[B, C, H, W]` under each ordering.

        Args:
            x: `[B, in_channels, H, W]`.
            *orderings: 0 to 7, see `graphseg.nn.raster_conv`; None: ordinary convolutions.
        """
        check_shape("x", check_tensor("x", x), (None, self.in_channels, None, None))
        H, W = x.shape[2:]
        start = self.stem(x)  # [B, 64, H / 2, W / 2]
        found = []
        for ordering in orderings:
            h = start
            for block in self.blocks:
                h = block(h, ordering)
            h = interpolate(self.head(h), scale_factor=2.0, mode="bilinear")[..., :H, :W]  # [B, K + C, H, W]
            found.append((h[:, : self.num_classes], self.reconstruct(h)))
        return found


def softmax(x: Tensor) -> Tensor:
    """Over channels, at least in float32."""
    return x.softmax(1, dtype=torch.promote_types(x.dtype, torch.float32))


def reset(layer: Module) -> None:
    """Xavier's initialisation, biases 0. The layers of graphseg.nn have done it themselves."""
    if isinstance(layer, Conv2d | Linear) and not isinstance(layer, RasterConv2d):
        xavier_uniform_(layer.weight)
        if layer.bias is not None:
            zeros_(layer.bias)


def _linear_norm_relu(in_channels: int, out_channels: int) -> Sequential:
    """A 1 x 1 convolution of nodes, batch norm and ReLU."""
    return Sequential(Linear(in_channels, out_channels, bias=False), BatchNorm1d(out_channels), ReLU())
