"""Images with instances for the examples: nuclei, or coins; random crops of them, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.color import label2rgb
from skimage.data import coins
from skimage.io import imread
from torch import Tensor

from examples.overview import coin_instances

Pair = tuple[Tensor, Tensor]  # image [3, H, W], instances [H, W]


def read_nuclei(folder: Path, split: str, step: int = 1) -> list[Pair]:
    """The nuclei of the Data Science Bowl 2018 if the folder has them, else a part of a photograph of coins.

    Args:
        folder: of data sets; the nuclei are in its folder dsb2018, with a table splits.txt.
        split: train or val.
        step: only every step-th image.
    """
    root = folder / "dsb2018"
    if not root.is_dir():
        money, part = coins(), np.s_[:, :240] if split == "train" else np.s_[:, 240:]
        return [(stretched(money[part]), coin_instances(torch.from_numpy(money))[part].long())]
    rows = [line.split("\t") for line in (root / "splits.txt").read_text("utf-8").splitlines()]
    pairs = [[imread(root / path) for path in row[1:3]] for row in [r for r in rows if r[0] == split][::step]]
    return [(stretched(image), torch.from_numpy(instances.astype(np.int64))) for image, instances in pairs]


def stretched(image: np.ndarray) -> Tensor:
    """`[3, H, W]` from 0 to 1, on a dark ground."""
    low, high = np.quantile(image, (0.005, 0.995))
    values = torch.from_numpy((image - low) / max(high - low, 1)).float().clamp(0, 1)
    values = values.expand(3, -1, -1) if values.dim() == 2 else values[..., :3].permute(2, 0, 1)
    return 1 - values if values.mean() > 0.5 else values


def random_crops(data: Sequence[Pair], count: int, size: int) -> Pair:
    """A batch of square crops, turned, mirrored, brighter or darker: `[B, 3, size, size]` and `[B, size, size]`."""
    pairs = []
    for image, instances in (data[n] for n in torch.randint(len(data), (count,))):
        y, x, turns, mirror = (int(torch.randint(n, ())) for n in (*(s - size + 1 for s in instances.shape), 4, 2))
        pair = [part[..., y : y + size, x : x + size].rot90(turns, (-2, -1)) for part in (image, instances)]
        pairs.append([part.flip(-1) if mirror else part for part in pair])
    images, instances = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return images ** torch.exp(0.3 * torch.randn(count, 1, 1, 1)), instances


def draw_maps(rows: Sequence[dict[str, Tensor]], path: Path) -> None:
    """One row of pictures for each image; label maps are coloured and say how many labels they have."""
    figure, axes = plt.subplots(len(rows), 6, figsize=(18, 3 * len(rows)), layout="constrained", squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, (name, values) in zip(line, row.items(), strict=True):
            counted = not values.is_floating_point()
            axis.imshow(label2rgb(values.numpy(), bg_label=0) if counted else values.numpy(), cmap="gray")
            axis.set(title=f"{name}: {int(values.max())}" if counted else name, xticks=[], yticks=[])
    figure.savefig(path, dpi=80)
    plt.close(figure)
