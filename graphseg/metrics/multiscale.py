"""Testing at several scales, and mirrored.

Paper: Hu et al., "Class-wise Dynamic Graph Convolution for Semantic Segmentation", section 4.3 and Table 4: scales 0.75
to 2.0 and left-right flips.
The paper leaves open: what is averaged (the probabilities here), how sizes are rounded (half up), and the interpolation
(bilinear here, with antialiasing where something shrinks, as in the training augmentation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from graphseg._checks import check_positive_int, check_shape, check_tensor

__all__ = ["multiscale_probabilities"]


@torch.no_grad()
def multiscale_probabilities(
    network: Callable[..., Any],
    image: Tensor,
    scales: Sequence[float] = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
    flip: bool = True,
    *,
    superpixels: Tensor | Sequence[Tensor] | None = None,
    divisor: int = 1,
) -> Tensor:
    """The mean of the class probabilities of an image in several sizes, and of its mirror images.

        1 / |S| * sum_s softmax(resize(network(resize(image, s))))

    and with flips, in place of every term, the mean of it and of the mirrored image's, mirrored back. At scale s the
    network sees floor(s H / divisor + 1/2) divisor times floor(s W / divisor + 1/2) divisor pixels, at least `divisor`
    each, and its logits are resized to `[H, W]`. One pass runs at a time, without gradients.

    Args:
        network: called with images `[B, C, h, w]` (and `superpixels`), returns logits `[B, K, *, *]`, or a tuple with
            logits first. It runs in the mode that it is in: call `eval()` on modules.
        image: floating-point `[B, C, H, W]`.
        scales: S, one or more factors of the image's size.
        flip: mirror left and right too.
        superpixels: second argument of the network, label maps `[B, S, H, W]` or a list of `[B, H, W]`: mirrored with
            the image, but not resized, which the layers do. Default: none is passed.
        divisor: of the sizes that the network takes.

    Returns:
        `[B, K, H, W]`, float32, or float64 of such logits. With scales=(1,), flip=False and divisor=1 these are the
        network's own probabilities.

    Raises:
        TypeError: for an image or logits that are not floating-point.
        ValueError: for other shapes, no scale, or one that is not above 0.
    """
    check_shape("image", check_tensor("image", image), (None, None, None, None))
    if not image.is_floating_point():
        raise TypeError(f"got dtype {image.dtype} for image, expected a floating-point dtype")
    check_positive_int("divisor", divisor)
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"got scales={tuple(scales)}, expected one or more factors above 0")
    size = (int(image.shape[2]), int(image.shape[3]))

    def at_scale(scale: float) -> Tensor:
        scaled = _resize(image, [max(math.floor(n * scale / divisor + 0.5), 1) * divisor for n in size])
        mean = _probabilities(network, scaled, superpixels, size)
        if not flip:
            return mean
        return (mean + _probabilities(network, scaled.flip(-1), _flip_maps(superpixels), size).flip(-1)) / 2

    return reduce(torch.add, map(at_scale, scales)) / len(scales)


def _probabilities(
    network: Callable[..., Any], image: Tensor, superpixels: Tensor | Sequence[Tensor] | None, size: Sequence[int]
) -> Tensor:
    out = network(image) if superpixels is None else network(image, superpixels)
    logits = check_tensor("logits", out if isinstance(out, Tensor) else out[0])
    check_shape("logits", logits, (image.shape[0], None, None, None))
    if not logits.is_floating_point():
        raise TypeError(f"got dtype {logits.dtype} for logits, expected a floating-point dtype")
    return _resize(logits if logits.dtype == torch.float64 else logits.float(), size).softmax(1)


def _flip_maps(superpixels: Tensor | Sequence[Tensor] | None) -> Tensor | Sequence[Tensor] | None:
    if superpixels is None or isinstance(superpixels, Tensor):
        return None if superpixels is None else superpixels.flip(-1)
    return [labels.flip(-1) for labels in superpixels]


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """`[B, C, h, w]` in another size."""
    if list(x.shape[-2:]) == list(size):
        return x
    return interpolate(x, list(size), mode="bilinear", align_corners=False, antialias=True)
