"""Residual networks as the official weights have them: names and shapes by rule, and the forward pass, in float64."""

from __future__ import annotations

import torch
from torch.nn import functional as F

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
BOTTLENECK = ("resnet50", "resnet101")


def norm_shapes(name, channels):
    found = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**found, f"{name}.num_batches_tracked": ()}


def state_shapes(kind, in_channels=3, classes=1000):
    """Name -> shape, in the order of the official files."""
    expansion = 4 if kind in BOTTLENECK else 1
    found = {"conv1.weight": (64, in_channels, 7, 7), **norm_shapes("bn1", 64)}
    before = 64
    for stage, count in enumerate(BLOCKS[kind]):
        inner = 64 * 2**stage
        outer = inner * expansion
        for i in range(count):
            name = f"layer{stage + 1}.{i}"
            if kind in BOTTLENECK:
                convs = [(inner, before, 1, 1), (inner, inner, 3, 3), (outer, inner, 1, 1)]
            else:
                convs = [(inner, before, 3, 3), (inner, inner, 3, 3)]
            for number, shape in enumerate(convs, 1):
                found[f"{name}.conv{number}.weight"] = shape
                found |= norm_shapes(f"{name}.bn{number}", shape[0])
            if before != outer:
                found[f"{name}.downsample.0.weight"] = (outer, before, 1, 1)
                found |= norm_shapes(f"{name}.downsample.1", outer)
            before = outer
    return {**found, "fc.weight": (classes, before), "fc.bias": (classes,)}


def steps(kind, output_stride):
    """(stride, dilation of the convolution that has it, dilation behind it) of the first block of each stage."""
    found, reached, dilation = [], 4, 1
    for stage in range(4):
        stride, entering = (1 if stage == 0 else 2), dilation
        if reached * stride > output_stride:
            stride, dilation = 1, 2 * dilation
        reached *= stride
        found.append((stride, entering, dilation))
    return found


def forward(state, image, kind, output_stride=32, multi_grid=None):
    """The maps of the four stages in evaluation mode."""
    state = {name: value.detach().double() for name, value in state.items()}

    def conv(name, x, stride=1, dilation=1):
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, None, stride, padding, dilation)

    def norm(name, x):
        mean, var, weight, bias = (
            state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = F.relu(norm("bn1", conv("conv1", image.double(), 2)))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, ((stride, entering, leaving), count) in enumerate(
        zip(steps(kind, output_stride), BLOCKS[kind], strict=True)
    ):
        for i in range(count):
            name = f"layer{stage + 1}.{i}"
            step = stride if i == 0 else 1
            first, then = (entering if i == 0 else leaving), leaving
            if stage == 3 and multi_grid is not None:
                first = then = leaving * multi_grid[i]
            if kind in BOTTLENECK:
                y = F.relu(norm(f"{name}.bn1", conv(f"{name}.conv1", x)))
                y = F.relu(norm(f"{name}.bn2", conv(f"{name}.conv2", y, step, first)))
                y = norm(f"{name}.bn3", conv(f"{name}.conv3", y))
            else:
                y = F.relu(norm(f"{name}.bn1", conv(f"{name}.conv1", x, step, first)))
                y = norm(f"{name}.bn2", conv(f"{name}.conv2", y, 1, then))
            if f"{name}.downsample.0.weight" in state:
                x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, step))
            x = F.relu(y + x)
        maps.append(x)
    return maps


def unit_state(state, generator):
    """Weights and statistics of a trained look: norms that do something, variances above 0."""
    found = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            found[name] = torch.ones_like(value)
        elif name.endswith("running_var"):
            found[name] = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.dim() == 4:
            found[name] = torch.randn(value.shape, generator=generator) / (value[0].numel() ** 0.5)
        else:
            found[name] = 0.5 + 0.2 * torch.randn(value.shape, generator=generator)
    return found
