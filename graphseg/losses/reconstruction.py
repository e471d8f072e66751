"""Squared error of reconstructed images.

Paper: Eliasof, Ben Zikri and Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Equations: Eq. (20) reconstruction by the segmentation CNN under two rasterisations.
Differs from the paper: the mean over pixels and channels by default, as in its loss of the superpixel network;
`reduction="sum"` is Eq. (20) as printed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphseg.losses._reduction import check_maps, check_valid, in_full_precision, reduce_loss

__all__ = ["reconstruction_loss"]


def reconstruction_loss(
    image: Tensor,
    *reconstructed: Tensor,
    valid: Tensor | None = None,
    reduction: str = "mean",
    return_count: bool = False,
) -> Tensor:
    """`sum over r of |I_r - I|^2`, by default divided by the number of pixels times channels.

    Args:
        image: `[B, C, H, W]`, I.
        *reconstructed: one or more images I_r, each shaped as `image`.
        valid: bool `[B, H, W]`; other pixels are not read. Default: all.
        reduction: "mean" over the valid pixels and channels (not over r), or "sum".
        return_count: return `[2]`: the value and the number of values in the valid pixels of `image`.

    Returns:
        A scalar, or `[2]`; 0 where nothing is valid.

    Raises:
        TypeError, ValueError: for another dtype or shape than these, or no reconstruction.
    """
    total = squared_errors(image, reconstructed, valid).sum()  # Eq. (20)
    count = torch.tensor(image.numel(), device=image.device) if valid is None else valid.sum() * image.shape[1]
    return reduce_loss(total, count, reduction, return_count)


def squared_errors(image: Tensor, reconstructed: tuple[Tensor, ...], valid: Tensor | None) -> Tensor:
    """`[B]`: of each image the squared error, summed over pixels, channels and reconstructions."""
    if not reconstructed:
        raise ValueError("got no reconstructed image, expected at least one")
    check_maps(image=image)
    check_valid(valid, image)
    total = in_full_precision(image).new_zeros(len(image))
    for other in reconstructed:
        check_maps(image=image, reconstructed=other)
        if other.shape != image.shape:
            raise ValueError(f"got {other.shape[1]} channels in reconstructed, expected {image.shape[1]} as in image")
        error = in_full_precision(other) - in_full_precision(image)
        if valid is not None:
            error = error.masked_fill(~valid.unsqueeze(1), 0)
        total = total + error.square().sum((1, 2, 3))
    return total
