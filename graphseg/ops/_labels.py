"""What the region operators share: label maps brought to one layout, and their checks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphseg._checks import check_integer, check_same_device, check_shape, check_tensor


@dataclass(frozen=True)
class LabelStack:
    """Label maps `[B, D, H, W]` (int64; -1 where a pixel belongs to no region) and the regions in each."""

    labels: Tensor
    counts: list[int]
    ndim: int  # 2 for images, 3 for volumes

    @property
    def starts(self) -> list[int]:
        """The first node id of each image, and the total number of nodes at the end."""
        total, starts = 0, []
        for count in [*self.counts, 0]:
            starts.append(total)
            total += count
        return starts

    @property
    def num_nodes(self) -> int:
        return sum(self.counts)

    def node_labels(self) -> Tensor:
        """`[B, D, H, W]`: the node of every pixel in the whole batch, -1 for none."""
        start = torch.tensor(self.starts[:-1], dtype=torch.int64, device=self.labels.device).view(-1, 1, 1, 1)
        return torch.where(self.labels >= 0, self.labels + start, -1)


def stack_labels(labels: Tensor, volume: bool, valid: Tensor | None) -> LabelStack:
    """Checks label maps `[H, W]`, `[B, H, W]`, or with `volume` `[D, H, W]`, `[B, D, H, W]`, and counts regions.

    Raises:
        TypeError: if labels are not integers or valid is not bool.
        ValueError: for a wrong shape, or labels that are not consecutive from 0 in each image.
    """
    check_tensor("labels", labels)
    check_integer("labels", labels)
    ndim = 3 if volume else 2
    if labels.dim() not in (ndim, ndim + 1):
        want = "[D, H, W] or [B, D, H, W] for volumes" if volume else "[H, W] or [B, H, W]"
        raise ValueError(f"got shape {list(labels.shape)} for labels, expected {want}")
    if valid is not None:
        check_tensor("valid", valid)
        if valid.dtype != torch.bool:
            raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
        check_shape("valid", valid, labels.shape)
        check_same_device(labels=labels, valid=valid)
    labels = labels.detach().to(torch.int64)
    if valid is not None:
        labels = labels.where(labels >= 0, -2).where(valid, -1)  # a negative label that counts is an error
    H, W = labels.shape[-2:]
    D = labels.shape[-3] if volume else 1
    B = labels.shape[0] if labels.dim() > ndim else 1
    stack = labels.reshape(B, D, H, W).contiguous()
    return LabelStack(stack, _count_regions(stack, -1 if valid is None else -2), ndim)


def _count_regions(stack: Tensor, forbidden: int) -> list[int]:
    """The number of regions in each image; labels of `forbidden` and less are an error."""
    if stack.numel() == 0:
        return [0] * stack.shape[0]
    found = _counted(stack.view(stack.shape[0], -1))
    for b, (count, missing, lowest) in enumerate(found):
        if lowest <= forbidden:
            raise ValueError(
                f"got a negative label in image {b}, expected ids from 0 (valid marks pixels of no region)"
            )
        if missing >= 0:
            raise ValueError(
                f"got labels up to {count - 1} in image {b} but no pixel of label {missing}, "
                "expected ids consecutive from 0 in each image (relabel makes them so)"
            )
    return [int(count) for count, _, _ in found]


def are_consecutive(flat: Tensor) -> bool:
    """Whether the labels of every image of `[B, P]` run from 0 without gaps."""
    return all(missing < 0 <= lowest for _, missing, lowest in _counted(flat))


def _counted(flat: Tensor) -> list[tuple[int, int, int]]:
    """Of each image of `[B, P]`: number of regions, first id that is missing or -1, smallest label if under 0."""
    if flat.device.type != "cpu":
        return _count_regions_tensor(flat)
    from graphseg.ops.kernels.rag import count_regions
    from graphseg.ops.kernels.threads import map_threads

    return map_threads(count_regions, list(flat.contiguous().numpy()))


def _count_regions_tensor(flat: Tensor) -> list[tuple[int, int, int]]:
    B, P = flat.shape
    top, low = flat.amax(1), flat.amin(1).clamp(max=0)  # [B]
    seen = torch.zeros(B, P + 2, dtype=torch.bool, device=flat.device)
    # Column 0 takes the pixels of no region, the last one labels that leave out an id under P in any case.
    seen.scatter_(1, flat.clamp(min=-1, max=P) + 1, True)
    ids = torch.arange(P, device=flat.device)
    missing = ~seen[:, 1:-1] & (ids <= top[:, None])  # [B, P]
    first = torch.where(missing.any(1), missing.to(torch.uint8).argmax(1), -1)
    return list(zip((top + 1).clamp(min=0).tolist(), first.tolist(), low.tolist(), strict=True))
