"""The angle of a vector, equal to the last bit wherever in a tensor it stands."""

from __future__ import annotations

import torch
from torch import Tensor


def angle(y: Tensor, x: Tensor) -> Tensor:
    """`atan2(y, x)` of float64 `[N]`.

    On CPU torch's own has one code for whole vectors and one for the rest of a tensor, which differ in the last digit:
    an image's angles would depend on what else is in the batch.
    """
    if y.device.type != "cpu" or y.requires_grad or x.requires_grad:
        return torch.atan2(y, x)
    from graphseg.ops.kernels.region import arctan2

    out = torch.empty_like(y, memory_format=torch.contiguous_format)
    arctan2(y.contiguous().numpy(), x.contiguous().numpy(), out.numpy())
    return out
