"""Maps in another size: the pixels that torch's "nearest-exact" takes."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from graphseg.ops.resize import resize_nearest


def test_labels_are_resized_as_torch_does():
    generator = torch.Generator().manual_seed(0)
    for old, new in [(512, 64), (769, 97), (480, 60), (5, 17), (1, 4), (33, 1), (97, 97), (10, 15), (15, 10), (14, 5)]:
        labels = torch.randint(0, 999, (2, old, 7), generator=generator)
        expected = interpolate(labels.double().unsqueeze(1), size=(new, 3), mode="nearest-exact").squeeze(1).long()
        assert torch.equal(resize_nearest(labels, (new, 3)), expected)


def test_values_are_resized_as_torch_does():
    value = torch.rand(13, 17)
    for size in [(1, 1), (5, 40), (13, 17), (26, 3)]:
        expected = interpolate(value[None, None], size=size, mode="nearest-exact")[0, 0]
        assert torch.equal(resize_nearest(value, size), expected)
