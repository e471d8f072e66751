"""The losses of SPNN, the superpixel network of SGSeg, and the superpixelated image that they compare with the image.

Paper: Eliasof, Ben Zikri and Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Equations: Eq. (1) hard superpixelated image; Eq. (2) soft superpixelated image; Eq. (8) total; Eq. (9) clustering;
Eq. (10) smoothness; Eq. (11), Eq. (12) reconstruction; Eq. (13) edges.
The paper leaves open: the Laplacian is that of the 8 neighbours, without those off the image, so that the border is no
edge; every channel has an edge map of its own, and their divergences are averaged; the 3 of Eq. (11) and Eq. (12) is
the number of channels.
Differs from the paper: nothing.

Every term is that of one image, hence `[B]`; an image without a valid pixel has 0. The loss of a batch is their mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from graphseg._checks import check_choice
from graphseg.losses._reduction import check_maps, check_valid, in_full_precision, in_one_precision, reduce_loss
from graphseg.losses.reconstruction import squared_errors
from graphseg.losses.variation import pair_weights, weighted_variation
from graphseg.ops.grid import connectivity_offsets
from graphseg.ops.pooling import pool, project

__all__ = ["SPNNLoss", "clustering_loss", "edge_loss", "smoothness_loss", "superpixelate"]


def superpixelate(image: Tensor, probability: Tensor, *, hard: bool = False, valid: Tensor | None = None) -> Tensor:
    """The image with every pixel replaced by the mean of its superpixel.

        soft:  out_p = sum_s P_ps (sum_q P_qs I_q / sum_q P_qs)
        hard:  the same with P one at the most probable superpixel (the first of equals), zero elsewhere

    Args:
        image: `[B, C, H, W]`, I.
        probability: `[B, N, H, W]`, P, of the superpixel given the pixel.
        hard: which of the two; the hard one has no gradient to P.
        valid: bool `[B, H, W]`; other pixels belong to no superpixel and give 0. Default: all are valid.

    Returns:
        `[B, C, H, W]`, at least float32. A superpixel without pixels has no part in it.

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    check_maps(image=image, probability=probability)
    check_valid(valid, image)
    B, C, H, W = image.shape
    image, P = in_one_precision(image, probability)
    if hard:
        first = torch.arange(B, device=image.device).view(-1, 1, 1) * P.shape[1]
        assignment = (P.argmax(1) + first).flatten()  # [B * H * W]
        kept = None if valid is None else valid.flatten()
        mean = pool(image.movedim(1, 3).reshape(-1, C), assignment, B * P.shape[1], valid=kept)  # [B * N, C]
        return project(mean, assignment, valid=kept).view(B, H, W, C).movedim(3, 1)  # Eq. (1)
    image, P = (_without_invalid(x, valid).flatten(2) for x in (image, P))  # [B, C, HW], [B, N, HW]
    mass = P.sum(2, keepdim=True)  # [B, N, 1]
    mass = mass.masked_fill(mass < 1e-30, torch.inf)  # the gradient of the mean divides by its square
    with torch.autocast(image.device.type, enabled=False):
        mean = P @ image.transpose(1, 2) / mass  # [B, N, C]
        out = mean.transpose(1, 2) @ P  # Eq. (2)
    return out.view(B, C, H, W)


def clustering_loss(probability: Tensor, lam: float = 2.0, *, valid: Tensor | None = None) -> Tensor:
    """Entropy of the pixels' superpixels, to be small, minus `lam` times that of the superpixels' sizes, to be large.

    Args:
        probability: `[B, N, H, W]`, P.
        lam: the paper's lambda.
        valid: bool `[B, H, W]`; other pixels do not count. Default: all are valid.

    Returns:
        `[B]`.

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    check_maps(probability=probability)
    check_valid(valid, probability)
    P = _without_invalid(in_full_precision(probability), valid)  # 0 log 0 = 0: such pixels add nothing below
    HW = _num_valid(P, valid)  # [B]
    weight = P.sum((2, 3)) / HW[:, None]  # [B, N]
    return lam * _x_log_x(weight).sum(1) - _x_log_x(P).sum((1, 2, 3)) / HW  # Eq. (9)


def smoothness_loss(probability: Tensor, image: Tensor, sigma: float = 10.0, *, valid: Tensor | None = None) -> Tensor:
    """`1 / HW sum over neighbours p, q of |P_p - P_q|_1 exp(-|I_p - I_q|_2^2 / sigma)`.

    Args:
        probability: `[B, N, H, W]`, P.
        image: `[B, C, H, W]`, I, as the network sees it.
        sigma: the squared contrast that counts as an edge, in the units of the image.
        valid: bool `[B, H, W]`; a pair counts where both its pixels are valid. Default: all are.

    Returns:
        `[B]`.

    Raises:
        TypeError, ValueError: for another dtype or shape than these, or sigma <= 0.
    """
    check_maps(probability=probability, image=image)
    check_valid(valid, image)
    if not sigma > 0:
        raise ValueError(f"got sigma={sigma}, expected a positive number")
    P, image = in_full_precision(probability), _without_invalid(in_full_precision(image), valid)
    right, below = pair_weights(image, valid)
    right = right * torch.exp(-image.diff(dim=3).square().sum(1) / sigma)  # [B, H, W - 1]
    below = below * torch.exp(-image.diff(dim=2).square().sum(1) / sigma)  # [B, H - 1, W]
    return weighted_variation(P, right, below, valid) / _num_valid(P, valid)  # Eq. (10)


def edge_loss(image: Tensor, *others: Tensor, connectivity: int = 8, valid: Tensor | None = None) -> Tensor:
    """`sum over others of KL(E(image), E(other))`, E the softmax over the pixels of the Laplacian, channel by channel.

    Args:
        image: `[B, C, H, W]`.
        *others: one or more images to compare with it, shaped alike.
        connectivity: 8 or 4, the neighbours of the Laplacian.
        valid: bool `[B, H, W]`; other pixels are in no edge map and no one's neighbours. Default: all are valid.

    Returns:
        `[B]`, the mean over channels.

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    check_maps(image=image)
    check_valid(valid, image)
    check_choice("connectivity", connectivity, (4, 8))
    E_image = _log_edge_map(image, connectivity, valid)  # [B, C, HW]
    loss = E_image.new_zeros(len(image))
    for other in others:
        check_maps(image=image, other=other)
        if other.shape != image.shape:
            raise ValueError(f"got {other.shape[1]} channels in other, expected {image.shape[1]} as in image")
        log_ratio = E_image - _log_edge_map(other, connectivity, valid)
        loss = loss + (E_image.exp() * log_ratio).sum(2).mean(1)  # Eq. (13)
    return loss


class SPNNLoss(Module):
    """`clustering + alpha smoothness + beta recon + eta edge`.

    Args:
        alpha, beta, eta: weights; the defaults are those for COCO-Stuff (1, 5, 0.5 for Potsdam).
        lam: see `clustering_loss`.
        sigma: see `smoothness_loss`.
    """

    def __init__(
        self, alpha: float = 2.0, beta: float = 5.0, eta: float = 1.0, *, lam: float = 2.0, sigma: float = 10.0
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.eta, self.lam, self.sigma = alpha, beta, eta, lam, sigma

    def forward(
        self,
        probability: Tensor,
        image: Tensor,
        reconstructed: Tensor,
        *,
        valid: Tensor | None = None,
        reduction: str = "mean",
        return_count: bool = False,
    ) -> Tensor:
        """Returns a scalar, or `[2]`; 0 where nothing is valid.

        Args:
            probability: `[B, N, H, W]`, P.
            image: `[B, C, H, W]`, I.
            reconstructed: `[B, C, H, W]`, the network's own reconstruction of it.
            valid: bool `[B, H, W]`. Default: all pixels are valid.
            reduction: "mean" over the images that have a valid pixel, or "sum".
            return_count: return `[2]`: the value and the number of these images, to add up over processes.
        """
        terms = self.terms(probability, image, reconstructed, valid=valid)
        return reduce_loss(self.weigh(terms).sum(), count_images(image, valid), reduction, return_count)

    def weigh(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The sum of the terms with their weights."""
        loss = terms["clustering"] + self.alpha * terms["smoothness"]
        return loss + self.beta * terms["recon"] + self.eta * terms["edge"]  # Eq. (8)

    def terms(
        self, probability: Tensor, image: Tensor, reconstructed: Tensor, *, valid: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms before they are weighted, `[B]` each: "clustering", "smoothness", "recon" and "edge"."""
        soft = superpixelate(image, probability, valid=valid)
        error = squared_errors(image, (reconstructed, soft), valid)
        return {
            "clustering": clustering_loss(probability, self.lam, valid=valid),
            "smoothness": smoothness_loss(probability, image, self.sigma, valid=valid),
            "recon": error / (_num_valid(image, valid) * image.shape[1]),  # Eq. (11), Eq. (12)
            "edge": edge_loss(image, reconstructed, soft, valid=valid),
        }

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in ("alpha", "beta", "eta", "lam", "sigma"))


def _log_edge_map(image: Tensor, connectivity: int, valid: Tensor | None) -> Tensor:
    """`[B, C, HW]`: log of the softmax over valid pixels of the Laplacian."""
    image = _without_invalid(in_full_precision(image), valid)
    H, W = image.shape[2:]
    inside = image.new_ones(1, 1, H, W) if valid is None else valid.unsqueeze(1).to(image.dtype)
    wide, wide_inside = F.pad(image, (1, 1, 1, 1)), F.pad(inside, (1, 1, 1, 1))
    response = torch.zeros_like(image)
    for dy, dx in [sign for o in connectivity_offsets(connectivity) for sign in (o, (-o[0], -o[1]))]:
        rows, columns = slice(1 + dy, 1 + dy + H), slice(1 + dx, 1 + dx + W)
        response = response + (image - wide[..., rows, columns]) * wide_inside[..., rows, columns]
    if valid is not None:
        response = response.masked_fill(~valid.unsqueeze(1), torch.finfo(image.dtype).min / 4)
    return response.flatten(2).log_softmax(2)


def _x_log_x(x: Tensor) -> Tensor:
    """x log x, 0 at 0, with a finite slope there."""
    return x * x.clamp(min=torch.finfo(x.dtype).tiny).log()


def _without_invalid(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x.masked_fill(~valid.unsqueeze(1), 0)


def count_images(image: Tensor, valid: Tensor | None) -> Tensor:
    """How many images of a batch have a valid pixel."""
    return torch.tensor(len(image), device=image.device) if valid is None else valid.flatten(1).any(1).sum()


def _num_valid(maps: Tensor, valid: Tensor | None) -> Tensor:
    """`[B]`: the paper's HW of each image, at least 1."""
    B, _, H, W = maps.shape
    return torch.full((B,), max(1, H * W), device=maps.device) if valid is None else valid.sum((1, 2)).clamp(min=1)
