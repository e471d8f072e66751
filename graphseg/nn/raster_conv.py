"""The autoregressive (rasterised) convolution of SGSeg's CNN, and its residual block.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks", section 3.5 and Table 9; the convolution is that of Ouali, Hudelot, Tami, "Autoregressive Unsupervised Image
Segmentation" (AC), whose kernels are transformed in place of the images. No equation is numbered there.

An ordering walks through all pixels, and the convolution sees the current pixel and earlier ones only: in ordering 0
(row by row from the top, each from the left) a 3 x 3 kernel covers two earlier rows and the current one, whose weights
right of the centre are masked. The other orderings are its mirror images:

    ordering = flip_x + 2 * flip_y + 4 * column_major     rows from the right, rows from the bottom, columns for rows

so that ordering 5 walks through columns from the right, each from the top. Two orderings are drawn for each training
step; at inference there is none, and the convolution is the ordinary one, centred and unmasked.

The papers leave open: whether the kernel turns with the ordering (`turn=True`, as the text says: the layer under an
ordering is then the mirror image of the layer under ordering 0) or stays as it is while mask and padding turn
(`turn=False`). A turning kernel has weights that no ordering sees; they start from 0, else inference would add noise.
Convolutions before a batch norm have no bias, the biases of the others start from 0. The table's "1 x 1 residual
connections" are plain sums.
Differs from the paper: the number of output channels is an argument, since the second block of Table 10 keeps its own.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import BatchNorm2d, Conv2d, Module
from torch.nn.functional import conv2d, pad
from torch.nn.init import xavier_uniform_, zeros_

from graphseg._checks import check_positive_int, check_shape, check_tensor, is_integer

__all__ = ["NUM_ORDERINGS", "RasterConv2d", "RasterResidualBlock", "draw_orderings"]

NUM_ORDERINGS = 8


def draw_orderings(count: int = 2, generator: Generator | None = None) -> list[int]:
    """Draws different orderings, for the predictions of one training step.

    Args:
        count: how many, from 1 to 8.
        generator: source of randomness, on the CPU. Default: torch's own.

    Returns:
        `count` numbers from 0 to 7, no two the same.

    Raises:
        TypeError: if `count` is not an int.
        ValueError: if it is not between 1 and 8.
    """
    check_positive_int("count", count)
    if count > NUM_ORDERINGS:
        raise ValueError(f"got count={count}, expected at most {NUM_ORDERINGS}")
    return torch.randperm(NUM_ORDERINGS, generator=generator)[:count].tolist()


def check_ordering(ordering: int | None) -> None:
    """Raises TypeError or ValueError unless `ordering` is None or a number from 0 to 7."""
    if ordering is None:
        return
    if not is_integer(ordering):
        raise TypeError(f"got {type(ordering).__name__} for ordering, expected an int or None")
    if not 0 <= ordering < NUM_ORDERINGS:
        raise ValueError(f"got ordering={ordering}, expected 0 to {NUM_ORDERINGS - 1}")


def raster_mask(size: int) -> Tensor:
    """`[size, size]`, the weights that ordering 0 sees: all but those right of the centre in the last row."""
    mask = torch.ones(size, size)
    mask[-1, size // 2 + 1 :] = 0
    return mask


def turn_kernel(kernel: Tensor, ordering: int) -> Tensor:
    """Brings a kernel `[*, size, size]` from ordering 0 to another."""
    if ordering & 4:
        kernel = kernel.transpose(-1, -2)
    return kernel.flip([dim for dim, bit in ((-1, 1), (-2, 2)) if ordering & bit])


def raster_padding(size: int, ordering: int) -> tuple[int, int, int, int]:
    """Zeros (left, right, top, bottom) that put the current pixel on the centre of the kernel's last row."""
    half = size // 2
    along, across = (half, half), (size - 1, 0)
    x, y = (across, along) if ordering & 4 else (along, across)
    return (*(x[::-1] if ordering & 1 else x), *(y[::-1] if ordering & 2 else y))


class RasterConv2d(Conv2d):
    """Convolution that sees only the pixels up to the current one of an ordering; the size stays as it is.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd; the window under an ordering has `kernel_size - 1` earlier rows and the current one.
        bias: whether to add a learnt bias.
        turn: whether the kernel turns with the ordering, or only mask and padding do.
    """

    mask: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True, turn: bool = True
    ) -> None:
        check_positive_int("in_channels", in_channels)
        check_positive_int("out_channels", out_channels)
        check_positive_int("kernel_size", kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"got kernel_size={kernel_size}, expected an odd number")
        self.turn = turn
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.register_buffer("mask", raster_mask(kernel_size), persistent=False)

    def reset_parameters(self) -> None:
        """Xavier's initialisation; biases, and weights that no ordering sees, are 0."""
        xavier_uniform_(self.weight)
        if self.turn:
            with torch.no_grad():
                self.weight.mul_(raster_mask(self.kernel_size[0]).to(self.weight))
        if self.bias is not None:
            zeros_(self.bias)

    def forward(self, x: Tensor, ordering: int | None = None) -> Tensor:
        """Runs the layer.

        Args:
            x: `[B, in_channels, H, W]`.
            ordering: 0 to 7, see the module; None (inference): the ordinary convolution, unmasked.

        Returns:
            `[B, out_channels, H, W]`.

        Raises:
            TypeError: if `ordering` is neither an int nor None.
            ValueError: for another shape of `x`, or no such ordering.
        """
        check_shape("x", check_tensor("x", x), [None, self.in_channels, None, None])
        check_ordering(ordering)
        if ordering is None:
            return super().forward(x)
        if self.turn:
            weight = turn_kernel(self.weight * self.mask, ordering)
        else:
            weight = self.weight * turn_kernel(self.mask, ordering)
        return conv2d(pad(x, raster_padding(self.kernel_size[0], ordering)), weight, self.bias)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.turn else ", turn=False")


class RasterResidualBlock(Module):
    """The residual block of Table 9: a rasterised convolution and five 1 x 1 ones, in three residual steps.

        h = ReLU(BN(conv1(ReLU(BN(raster(x)))))) + [x, 0]
        h = h + conv3(ReLU(BN(conv2(h))))
        h = h + conv5(ReLU(BN(conv4(h))))

    Args:
        in_channels: channels c of the input.
        out_channels: channels of the output, at least c: the input gets zeros for the missing ones. Default: 2c.
        turn: as in `RasterConv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int | None = None, turn: bool = True) -> None:
        super().__init__()
        check_positive_int("in_channels", in_channels)
        out_channels = 2 * in_channels if out_channels is None else out_channels
        check_positive_int("out_channels", out_channels)
        if out_channels < in_channels:
            raise ValueError(f"got out_channels={out_channels}, expected at least in_channels={in_channels}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.raster = RasterConv2d(in_channels, out_channels, bias=False, turn=turn)
        self.conv1 = Conv2d(out_channels, out_channels, 1, bias=False)
        self.conv2 = Conv2d(out_channels, out_channels, 1, bias=False)
        self.conv3 = Conv2d(out_channels, out_channels, 1)
        self.conv4 = Conv2d(out_channels, out_channels, 1, bias=False)
        self.conv5 = Conv2d(out_channels, out_channels, 1)
        self.norm0 = BatchNorm2d(out_channels)
        self.norm1 = BatchNorm2d(out_channels)
        self.norm2 = BatchNorm2d(out_channels)
        self.norm4 = BatchNorm2d(out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier's initialisation; biases are 0."""
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            xavier_uniform_(conv.weight)
            if conv.bias is not None:
                zeros_(conv.bias)
        for module in (self.raster, self.norm0, self.norm1, self.norm2, self.norm4):
            module.reset_parameters()

    def forward(self, x: Tensor, ordering: int | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: `[B, in_channels, H, W]`.
            ordering: as in `RasterConv2d`.

        Returns:
            `[B, out_channels, H, W]`.

        Raises:
            TypeError: as `RasterConv2d`.
            ValueError: as `RasterConv2d`.
        """
        h = self.norm0(self.raster(x, ordering)).relu()
        h = self.norm1(self.conv1(h)).relu()
        h = h + pad(x, (0, 0, 0, 0, 0, self.out_channels - self.in_channels))  # zeros for the missing channels
        h = h + self.conv3(self.norm2(self.conv2(h)).relu())
        return h + self.conv5(self.norm4(self.conv4(h)).relu())
