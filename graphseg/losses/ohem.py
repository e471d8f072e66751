"""Cross entropy of the hardest pixels, and the loss of CDGCNet.

Paper: Hu et al., "Class-wise Dynamic Graph Convolution for Semantic Segmentation".
Equations: Eq. (5) weighted sum of the coarse, refined and auxiliary losses.
Differs from the paper: nothing; it names the selection of hard pixels but does not define it. As in Shrivastava, Gupta
and Girshick, "Training Region-based Object Detectors with Online Hard Example Mining", and as is usual for pixels:
those whose class has a probability of at most `threshold`, and never fewer than `min_kept` while there are as many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from graphseg._checks import check_integer, check_positive_int, check_same_device, check_shape, check_tensor
from graphseg.losses._reduction import in_full_precision, mean_over, reduce_loss

__all__ = ["CDGCLoss", "cross_entropy", "ohem_cross_entropy"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    return_count: bool = False,
) -> Tensor:
    """Cross entropy that is 0, not NaN, where every pixel is ignored, and that says how many were not.

    Args:
        logits: `[P, K]` of pixels or nodes, or `[B, K, *]`.
        target: integers `[P]` or `[B, *]`: classes in [0, K) or ignore_index.
        weight: `[K]`, of the classes. Default: 1.
        ignore_index: target that counts for no class.
        reduction: "mean" over the labelled pixels (weighted, as torch does), or "sum".
        return_count: return `[2]`: the value and what the mean divides by, to add up over processes.

    Returns:
        A scalar, or `[2]`.

    Raises:
        TypeError, ValueError: for another dtype or shape than these, or a target outside [0, K).
    """
    loss, share = _pixel_losses(logits, target, weight, ignore_index)
    return reduce_loss((loss * share).sum(), share.sum(), reduction, return_count)


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    return_count: bool = False,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Cross entropy of the hard pixels: probability of their class at most `threshold`, or among the `min_kept` lowest.

    All pixels that tie with the last one kept are kept too. `weight` does not change which are hard.

    Args:
        logits, target, weight, ignore_index: as for `cross_entropy`.
        threshold: in (0, 1]; with 1 all pixels are hard.
        min_kept: of all pixels of the batch together.
        reduction: "mean" over the hard pixels, or "sum".
        return_count: return `[2]`: the value and what the mean divides by.
        reduce: adds a tensor over processes, of whose pixels together the hardest are chosen; the value is still that
            of one's own. Default: there is one process.

    Returns:
        A scalar, or `[2]`; 0 where every pixel is ignored.

    Raises:
        TypeError, ValueError: as `cross_entropy`; also for a threshold or `min_kept` outside their range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"got threshold={threshold}, expected a probability in (0, 1]")
    check_positive_int("min_kept", min_kept, minimum=0)
    loss, share = _pixel_losses(logits, target, weight, ignore_index)
    hardness = loss.detach().where(target.flatten() != ignore_index, -1.0)  # -log of the probability
    least = hardness.new_tensor(-math.log(threshold))
    if min_kept:
        least = torch.minimum(least, _kth_hardest(hardness, min_kept, reduce))
    share = share * (hardness >= least)
    return reduce_loss((loss * share).sum(), share.sum(), reduction, return_count)


class CDGCLoss(Module):
    """`alpha l_c + beta l_f + gamma l_a`: cross entropy of the coarse and auxiliary predictions, OHEM of the refined.

    Args:
        alpha, beta, gamma: weights of the coarse, refined and auxiliary loss.
        threshold, min_kept: of the hard pixels, see `ohem_cross_entropy`.
        weight: `[K]`, of the classes. Default: 1.
        ignore_index: target that counts for no class.
    """

    weight: Tensor | None

    def __init__(
        self,
        alpha: float = 0.6,
        beta: float = 0.7,
        gamma: float = 0.4,
        *,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        weight: Tensor | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.threshold, self.min_kept, self.ignore_index = threshold, min_kept, ignore_index
        self.register_buffer("weight", weight)

    def forward(
        self,
        coarse: Tensor,
        refined: Tensor,
        auxiliary: Tensor | None,
        target: Tensor,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Returns a scalar.

        Args:
            coarse, refined, auxiliary: logits `[P, K]` or `[B, K, *]`; without an auxiliary prediction its term is 0.
            target: integers `[P]` or `[B, *]`.
            reduce: adds a tensor over processes, whose pixels then share one mean and one choice of the hardest.
                Default: there is one process.
        """
        known: dict[str, Any] = {
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": "sum",
            "return_count": True,
        }
        hard: dict[str, Any] = {"threshold": self.threshold, "min_kept": self.min_kept}
        loss_c = mean_over(cross_entropy(coarse, target, **known), reduce)
        loss_f = mean_over(ohem_cross_entropy(refined, target, reduce=reduce, **hard, **known), reduce)
        loss_a = torch.zeros_like(loss_c)
        if auxiliary is not None:
            loss_a = mean_over(cross_entropy(auxiliary, target, **known), reduce)
        return self.alpha * loss_c + self.beta * loss_f + self.gamma * loss_a  # Eq. (5)

    def extra_repr(self) -> str:
        return (
            f"alpha={self.alpha}, beta={self.beta}, gamma={self.gamma}, "
            f"threshold={self.threshold}, min_kept={self.min_kept}"
        )


def _kth_hardest(hardness: Tensor, k: int, reduce: Callable[[Tensor], Tensor] | None) -> Tensor:
    """The k-th largest `[]` of the hardnesses of all processes; 0 where fewer pixels count."""
    if reduce is None:
        if k > len(hardness):
            return hardness.new_zeros(())
        return hardness.kthvalue(len(hardness) - k + 1).values.clamp(min=0)
    # The largest number that k of them reach, bit by bit: floats from 0 are in the order of their bits. Nothing but
    # counts is sent, and the answer is exact.
    bits = (hardness + 0.0).view(torch.int64 if hardness.dtype == torch.float64 else torch.int32)  # no -0.0
    found = bits.new_zeros(())
    for bit in reversed(range(8 * hardness.element_size() - 1)):
        trial = found | (1 << bit)
        found = trial.where(reduce((bits >= trial).sum()) >= k, found)
    return found.view(hardness.dtype)


def _pixel_losses(logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """`[P]` cross entropies, and what each counts for: the weight of its class, 0 where it is ignored."""
    if not check_tensor("logits", logits).is_floating_point():
        raise TypeError(f"got dtype {logits.dtype} for logits, expected a floating-point dtype")
    if logits.dim() < 2:
        raise ValueError(f"got shape {list(logits.shape)} for logits, expected [P, K] or [B, K, *]")
    K = logits.shape[1]
    check_integer("target", check_tensor("target", target))
    check_shape("target", target, (logits.shape[0], *logits.shape[2:]))
    if weight is not None:
        check_shape("weight", check_tensor("weight", weight), (K,))
    check_same_device(logits=logits, target=target, weight=weight)
    target = target.long()
    labelled = target != ignore_index
    low, high = (int(bound) for bound in torch.aminmax(target.where(labelled, 0))) if target.numel() else (0, 0)
    if low < 0 or high >= K:
        bad = low if low < 0 else high
        raise ValueError(f"got class {bad} in target, expected classes in [0, {K}) or ignore_index={ignore_index}")
    logits = in_full_precision(logits)
    loss = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")  # 0 where ignored
    share = labelled.to(loss.dtype)
    if weight is not None:
        share = share * weight.to(loss.dtype)[target.where(labelled, 0)]
    return loss.flatten(), share.flatten()
