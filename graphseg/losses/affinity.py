"""Cross entropy of affinities: do two pixels lie in the same instance?

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation", section 3.3, which gives the loss in
words: cross entropy after the sigmoid, target 1 where both pixels lie in the same instance.
Differs from the paper: classes may be balanced (near pairs are nearly all alike, distant ones nearly all different),
and pairs may be left out, such as those that point off the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from graphseg._checks import check_choice, check_same_device, check_shape, check_tensor
from graphseg.losses._reduction import in_full_precision, reduce_loss

__all__ = ["affinity_counts", "affinity_cross_entropy"]


def affinity_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    balance: str = "none",
    counts: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    return_count: bool = False,
) -> Tensor:
    """`-t log s(l) - (1 - t) log(1 - s(l))` with s the sigmoid, over all pairs that are not ignored.

    Args:
        logits: `[B, K, *]` channels of an affinity head, or `[E]` edges.
        target: shaped as `logits`; bool, integers or floats: t in [0, 1], or ignore_index.
        balance: "none"; "all": both classes weigh the same in the whole batch; "channel": in every channel. Weights
            n / (2 n_c) keep the mean over all pairs what it is for equal classes; a class that does not occur has
            no share.
        counts: `[2]` or, for "channel", `[2, K]`: the classes as balanced in place of those of this batch, such as
            `affinity_counts` added up over processes.
        ignore_index: target of pairs that do not count, whose logits are not read.
        reduction: "mean" over the pairs that count, or "sum".
        return_count: return `[2]`: the value and the number of pairs, to add up over processes.

    Returns:
        A scalar, or `[2]`; 0 where every pair is ignored.

    Raises:
        TypeError, ValueError: for another dtype or shape than these, or a target outside [0, 1].
    """
    check_choice("balance", balance, ("none", "all", "channel"))
    if not check_tensor("logits", logits).is_floating_point():
        raise TypeError(f"got dtype {logits.dtype} for logits, expected a floating-point dtype")
    check_shape("target", check_tensor("target", target), logits.shape)
    check_same_device(logits=logits, target=target, counts=counts)
    kept = target != ignore_index
    t = _in_unit_range(target, kept, ignore_index).to(in_full_precision(logits).dtype)
    weight = kept.to(t.dtype)
    if balance != "none":
        counts = _class_counts(t, kept, balance) if counts is None else check_tensor("counts", counts)
        different, same = _class_weights(counts, balance, logits).to(t.dtype)  # [] or [K, 1, ...]
        weight = weight * torch.lerp(different, same, t)
    loss = F.binary_cross_entropy_with_logits(
        in_full_precision(logits).masked_fill(~kept, 0), t, weight, reduction="sum"
    )
    return reduce_loss(loss, kept.sum(), reduction, return_count)


def affinity_counts(target: Tensor, balance: str = "all", *, ignore_index: int = -100) -> Tensor:
    """How many pairs lie in different instances, and how many in the same.

    Args:
        target, ignore_index: as for `affinity_cross_entropy`; a target between 0 and 1 counts in part for both.
        balance: "all" or "channel".

    Returns:
        float64 `[2]`, or `[2, K]` for "channel".

    Raises:
        TypeError, ValueError: as `affinity_cross_entropy`.
    """
    check_choice("balance", balance, ("all", "channel"))
    kept = check_tensor("target", target) != ignore_index
    return _class_counts(_in_unit_range(target, kept, ignore_index), kept, balance)


def _in_unit_range(target: Tensor, kept: Tensor, ignore_index: int) -> Tensor:
    """The target, 0 where it is ignored."""
    if target.dtype == torch.uint16:  # torch has no bounds for it
        target = target.int()
    target = target.where(kept, 0)
    low, high = (float(bound) for bound in torch.aminmax(target)) if target.numel() else (0, 0)
    if not 0 <= low <= high <= 1:
        bad = low if low < 0 else high
        raise ValueError(f"got {bad:g} in target, expected values in [0, 1] or ignore_index={ignore_index}")
    return target


def _class_counts(target: Tensor, kept: Tensor, balance: str) -> Tensor:
    if balance == "channel":
        if target.dim() < 2:
            raise ValueError(f"got balance='channel' for shape {list(target.shape)}, expected channels [B, K, *]")
        target, kept = (x.transpose(0, 1).flatten(1) for x in (target, kept))  # [K, P]
        same = target.sum(1, dtype=torch.float64)
        return torch.stack([kept.sum(1) - same, same])
    same = target.sum(dtype=torch.float64)
    return torch.stack([kept.sum() - same, same])


def _class_weights(counts: Tensor, balance: str, logits: Tensor) -> Tensor:
    """`[2, ...]`: n / (classes that occur * n_c), so that the weights of n pairs add up to n."""
    check_shape("counts", counts, (2, logits.shape[1]) if balance == "channel" else (2,))
    occurs = counts > 0
    weight = counts.sum(0) / (occurs.sum(0) * counts).masked_fill(~occurs, 1)
    weight = weight.masked_fill(~occurs, 0)
    return weight.reshape(2, -1, *[1] * (logits.dim() - 2)) if balance == "channel" else weight
