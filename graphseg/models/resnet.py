"""Dilated residual networks as backbones, with the state-dict keys of torchvision's.

Paper: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition"; dilation in place of strides as in Chen,
Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation" (DeepLabV3), whose
multi-grid is here too.

Blocks have their stride in the (first) 3 x 3 convolution. Where a stage gives up its stride, this convolution keeps the
dilation of the stage before and all behind it take twice that, as torchvision does it: where the stride would have left
pixels, the maps do not change. With a multi-grid every block of the last stage takes the dilation of the stage times
its entry, as DeepLabV3 does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Identity, MaxPool2d, Module, Sequential
from torch.nn.init import kaiming_normal_

from graphseg._checks import check_choice, check_positive_int, check_shape, check_tensor
from graphseg.models.tensor_file import read_tensors

__all__ = ["ResNet", "load_backbone_weights", "resnet18", "resnet34", "resnet50", "resnet101", "scaled_width"]

Grid = Sequence[int] | None

_STAGE_CHANNELS = (64, 128, 256, 512)
_WITH_FC = ("fc.weight", "fc.bias")  # of the classifier, which a backbone has not


def scaled_width(channels: int, width: float) -> int:
    """`channels * width`, rounded to a multiple of 4, at least 4.

    Args:
        channels: of the network at full width.
        width: factor, above 0.

    Raises:
        ValueError: for a width that is not above 0.
    """
    if not width > 0:
        raise ValueError(f"got width={width}, expected a number above 0")
    return channels if width == 1 else max(4, 4 * round(channels * width / 4))


class BasicBlock(Module):
    """Two 3 x 3 convolutions beside the identity, of ResNet-18 and -34."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int, then: int) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 3, stride, dilation)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, 1, then)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(out)) + self.downsample(x)).relu()


class Bottleneck(Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside the identity, of ResNet-50 and deeper."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int, then: int) -> None:
        super().__init__()  # `then`, the dilation behind the stride, is for blocks with a second 3 x 3 convolution
        self.conv1 = _conv(in_channels, channels, 1)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride, dilation)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = _conv(channels, 4 * channels, 1)
        self.bn3 = BatchNorm2d(4 * channels)
        self.downsample = _shortcut(in_channels, 4 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        return (self.bn3(self.conv3(out)) + self.downsample(x)).relu()


class ResNet(Module):
    """A residual network without its classifier, which returns the feature maps of its four stages.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: how many blocks each of the four stages has.
        output_stride: image pixels per pixel of the last map along each side: 8, 16 or 32.
        width: scales all channels.
        in_channels: of the image.
        multi_grid: factors of the dilations of the last stage's blocks, as many as it has, or more. Default: none.

    Attributes:
        out_channels: channels of the four maps.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        *,
        output_stride: int = 8,
        width: float = 1.0,
        in_channels: int = 3,
        multi_grid: Grid = None,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"got output_stride={output_stride}, expected 8, 16 or 32")
        check_positive_int("in_channels", in_channels)
        if multi_grid is not None and len(multi_grid) < layers[3]:
            raise ValueError(f"got multi_grid={tuple(multi_grid)}, expected a factor for each of {layers[3]} blocks")
        self.in_channels, self.output_stride = in_channels, output_stride
        stem = scaled_width(64, width)
        self.conv1 = Conv2d(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(stem)
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        self.out_channels: list[int] = []
        before, stride, dilation = stem, 4, 1
        for stage, (channels, count) in enumerate(zip(_STAGE_CHANNELS, layers, strict=True)):
            step, first = (1 if stage == 0 else 2), dilation
            if step * stride > output_stride:
                dilation, step = dilation * step, 1
            stride *= step
            rates = [(first if i == 0 else dilation, dilation) for i in range(count)]
            if stage == 3 and multi_grid is not None:
                rates = [(dilation * factor, dilation * factor) for factor in multi_grid[:count]]
            channels = scaled_width(channels, width)
            blocks = []
            for i, rate in enumerate(rates):
                blocks.append(block(before, channels, step if i == 0 else 1, *rate))
                before = channels * block.expansion
            self.add_module(f"layer{stage + 1}", Sequential(*blocks))
            self.out_channels.append(before)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He's initialisation for convolutions; norms as torch starts them."""
        for module in self.modules():
            if isinstance(module, Conv2d):
                kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BatchNorm2d):
                module.reset_parameters()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Returns the maps of the four stages, at strides 4, then twice that, up to `output_stride`.

        Args:
            image: `[B, in_channels, H, W]`, normalised.
        """
        check_shape("image", check_tensor("image", image), (None, self.in_channels, None, None))
        x = self.maxpool(self.bn1(self.conv1(image)).relu())
        maps = []
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
            maps.append(x)
        return maps


def resnet18(output_stride: int = 8, width: float = 1.0, in_channels: int = 3, multi_grid: Grid = None) -> ResNet:
    """ResNet-18.

    Args:
        output_stride, width, in_channels, multi_grid: as for `ResNet`.
    """
    return _resnet("resnet18", output_stride, width, in_channels, multi_grid)


def resnet34(output_stride: int = 8, width: float = 1.0, in_channels: int = 3, multi_grid: Grid = None) -> ResNet:
    """ResNet-34.

    Args:
        output_stride, width, in_channels, multi_grid: as for `ResNet`.
    """
    return _resnet("resnet34", output_stride, width, in_channels, multi_grid)


def resnet50(output_stride: int = 8, width: float = 1.0, in_channels: int = 3, multi_grid: Grid = None) -> ResNet:
    """ResNet-50.

    Args:
        output_stride, width, in_channels, multi_grid: as for `ResNet`.
    """
    return _resnet("resnet50", output_stride, width, in_channels, multi_grid)


def resnet101(output_stride: int = 8, width: float = 1.0, in_channels: int = 3, multi_grid: Grid = None) -> ResNet:
    """ResNet-101.

    Args:
        output_stride, width, in_channels, multi_grid: as for `ResNet`.
    """
    return _resnet("resnet101", output_stride, width, in_channels, multi_grid)


_KINDS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def _resnet(name: str, output_stride: int, width: float, in_channels: int, multi_grid: Grid) -> ResNet:
    check_choice("backbone", name, tuple(_KINDS))
    block, layers = _KINDS[name]
    return ResNet(
        block, layers, output_stride=output_stride, width=width, in_channels=in_channels, multi_grid=multi_grid
    )


def make_backbone(
    backbone: str | Module, output_stride: int, width: float, in_channels: int, multi_grid: Grid = None
) -> Module:
    """The ResNet of a name, or the module that was given, which has to say its `out_channels`."""
    if isinstance(backbone, str):
        return _resnet(backbone, output_stride, width, in_channels, multi_grid)
    if not isinstance(backbone, Module):
        raise TypeError(f"got {type(backbone).__name__} for backbone, expected a name or a Module")
    if not isinstance(getattr(backbone, "out_channels", None), int | list | tuple):
        raise ValueError(
            f"got {type(backbone).__name__} without out_channels, expected the channels of its feature map or maps"
        )
    return backbone


def backbone_channels(backbone: Module) -> list[int]:
    """Channels of each map of a backbone; one that returns a tensor has one."""
    channels = backbone.out_channels
    return [channels] if isinstance(channels, int) else [int(c) for c in channels]  # type: ignore[union-attr]


def backbone_maps(backbone: Module, image: Tensor) -> list[Tensor]:
    """The maps of a backbone, which may return one tensor."""
    maps = backbone(image)
    return [maps] if isinstance(maps, Tensor) else list(maps)


def load_backbone_weights(backbone: Module, path: str | PathLike[str]) -> None:
    """Loads a state dict from a local file, such as torchvision's ImageNet weights; no code in it is run.

    Args:
        backbone: a `ResNet` of full width, or any module.
        path: of a file that `torch.save` wrote from a state dict. The classifier's weights in it (`fc`) are left out.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it holds no state dict, or one of other names or shapes; the backbone is then unchanged.
    """
    state = read_tensors(path, "a state dict that torch has saved")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"got {path} with something else, expected a state dict: names and tensors")
    state = {name: value for name, value in state.items() if name not in _WITH_FC}
    own = backbone.state_dict()
    for name, value in own.items():
        if name not in state and not name.endswith("num_batches_tracked"):
            raise ValueError(f"got {path} without {name}, expected the weights of this backbone")
        if name in state and state[name].shape != value.shape:
            raise ValueError(f"got shape {list(state[name].shape)} for {name} in {path}, expected {list(value.shape)}")
    if unknown := sorted(state.keys() - own.keys()):
        raise ValueError(f"got {unknown[0]} in {path}, expected the weights of this backbone, which has no such name")
    backbone.load_state_dict(state, strict=False)


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1, dilation: int = 1) -> Conv2d:
    padding = dilation * (size // 2)
    return Conv2d(in_channels, out_channels, size, stride, padding, dilation if size > 1 else 1, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> Module:
    if stride == 1 and in_channels == out_channels:
        return Identity()
    return Sequential(_conv(in_channels, out_channels, 1, stride), BatchNorm2d(out_channels))
