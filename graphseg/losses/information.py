"""Mutual information of two predictions for the same pixels, to be maximised.

Paper: Eliasof, Ben Zikri and Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Equations: Eq. (18) objective; Eq. (19) mutual information.
Differs from the paper: the sign. Eq. (19) as printed, minimised, would make the two predictions independent; the loss
is its negative. How the entropies are estimated is not stated: from the joint distribution of the classes, made
symmetric and kept off zero, as in invariant information clustering; with a displacement from pixels that far apart.
"""

from __future__ import annotations

import sys

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from graphseg._checks import check_positive_int, check_same_device, check_shape, check_tensor
from graphseg.losses._reduction import in_one_precision

__all__ = ["joint_counts", "mutual_information", "mutual_information_loss"]


def mutual_information_loss(
    first: Tensor,
    second: Tensor,
    displacement: int = 0,
    *,
    valid: Tensor | None = None,
    entropy_weight: float = 1.0,
    eps: float = sys.float_info.epsilon,
) -> Tensor:
    """The negative of `H(first) - H(first | second)`, averaged over displacements.

    Args:
        first, second: class probabilities of pixels or nodes `[P, K]`, or of images `[B, K, H, W]`, under two views.
        displacement: T; the pixels p of first and p + d of second are compared for every d in [-T, T]^2.
        valid: bool `[P]` or `[B, H, W]`; a pair counts where both its pixels are valid. Default: all.
        entropy_weight: of the entropies of the classes; 1 is the mutual information, more favours equal classes.
        eps: smallest probability that is told from 0, in the joint distribution and its margins.

    Returns:
        A scalar in [-log K, 0] for `entropy_weight=1`; 0 where nothing is valid.

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    counts = joint_counts(first, second, displacement, valid=valid)
    return -mutual_information(counts, entropy_weight=entropy_weight, eps=eps)  # Eq. (18)


def joint_counts(first: Tensor, second: Tensor, displacement: int = 0, *, valid: Tensor | None = None) -> Tensor:
    """How often, in expectation, class i of `first` meets class j of `second`: `sum_p first[p, i] second[p + d, j]`.

    Counts of several processes or batches may be added before `mutual_information` is taken of them.

    Args:
        first, second, displacement, valid: as for `mutual_information_loss`.

    Returns:
        `[D, K, K]` with D = (2 T + 1)^2, d = (dy, dx) row-major from (-T, -T).

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    _check(first, second, displacement, valid)
    first, second = in_one_precision(first, second)
    if valid is not None:
        outside = ~valid.unsqueeze(1)
        first, second = first.masked_fill(outside, 0), second.masked_fill(outside, 0)
    with torch.autocast(first.device.type, enabled=False):
        if displacement:
            meet = first.new_ones(1, 1, *first.shape[2:]) if valid is None else valid.unsqueeze(1)
            meet = _correlate(meet.double(), meet.double(), displacement) > 0.5  # [D, 1, 1]; below lies rounding only
            return _correlate(first, second, displacement).where(meet, 0)
        K = first.shape[1]
        first, second = (x.transpose(0, 1).reshape(K, -1) for x in (first, second))  # [K, P]
        return (first @ second.t()).unsqueeze(0)


def mutual_information(counts: Tensor, *, entropy_weight: float = 1.0, eps: float = sys.float_info.epsilon) -> Tensor:
    """`H(i) - H(i | j) = sum_ij P_ij (log P_ij - log P_i - log P_j)`, averaged over the displacements that occur.

    Args:
        counts: `[D, K, K]`, as `joint_counts` gives them; P is their symmetric part, normalised.
        entropy_weight, eps: as for `mutual_information_loss`.

    Returns:
        A scalar; 0 where all counts are 0.

    Raises:
        ValueError: for another shape.
    """
    check_shape("counts", check_tensor("counts", counts), (None, counts.shape[-1], counts.shape[-1]))
    mass = counts.sum((1, 2))  # [D]
    occurs = mass.detach() > 0
    joint = counts / mass.masked_fill(~occurs, 1).view(-1, 1, 1)
    joint = (joint + joint.transpose(1, 2)) / 2  # [D, K, K]
    margin = joint.sum(2).clamp(min=eps).log()  # [D, K], the same along both axes
    joint = joint.clamp(min=eps)
    gain = joint.log() - entropy_weight * (margin.unsqueeze(1) + margin.unsqueeze(2))
    information = (joint * gain).sum((1, 2))  # [D], Eq. (19)
    return information.masked_fill(~occurs, 0).sum() / occurs.sum().clamp(min=1)


def _correlate(first: Tensor, second: Tensor, reach: int) -> Tensor:
    """`[D, K, K]` for all displacements at once: a correlation, hence a product of spectra (benchmarks/layers.py)."""
    _, K, H, W = first.shape
    if not first.numel():  # not every library takes the spectrum of nothing
        return (first.sum() + second.sum()).expand((2 * reach + 1) ** 2, K, K)
    size = [next_fast_len(length + reach, real=True) for length in (H, W)]  # so far apart that no end meets the other
    spectrum = [torch.fft.rfft2(x, s=size).flatten(2) for x in (first, second)]  # [B, K, F]
    left = spectrum[0].conj().permute(2, 1, 0).contiguous()  # [F, K, B]
    right = spectrum[1].permute(2, 0, 1).contiguous()  # [F, B, K]
    product = (left @ right).permute(1, 2, 0).reshape(K, K, size[0], -1)
    found = torch.fft.irfft2(product, s=size)  # [K, K, *size]
    steps = torch.arange(-reach, reach + 1, device=first.device)
    found = found[:, :, (steps % size[0])[:, None], steps % size[1]]  # [K, K, 2 T + 1, 2 T + 1]
    return found.flatten(2).permute(2, 0, 1)


def _check(first: Tensor, second: Tensor, displacement: int, valid: Tensor | None) -> None:
    for name, x in (("first", first), ("second", second)):
        if not check_tensor(name, x).is_floating_point():
            raise TypeError(f"got dtype {x.dtype} for {name}, expected a floating-point dtype")
    if first.dim() not in (2, 4):
        raise ValueError(f"got shape {list(first.shape)} for first, expected [P, K] or [B, K, H, W]")
    check_shape("second", second, first.shape)
    check_positive_int("displacement", displacement, minimum=0)
    if displacement and first.dim() != 4:
        raise ValueError(f"got displacement={displacement} for rows [P, K], expected maps [B, K, H, W] or 0")
    if valid is not None:
        if check_tensor("valid", valid).dtype != torch.bool:
            raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
        check_shape("valid", valid, (first.shape[0], *first.shape[2:]))
    check_same_device(first=first, second=second, valid=valid)
