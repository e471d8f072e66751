"""Superpixels: ways to cut side by side, several scales in one call, and superpixels that learn what to follow.

The last part adds noise to a photograph of coins and trains a small network in front of soft SLIC on its left half, so
that superpixels of its right half follow the coins.

    python -m examples.superpixels [--out FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from skimage.data import coffee, coins
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch_geometric.data import Data

from examples.overview import coin_instances
from graphseg.metrics import (
    achievable_segmentation_accuracy,
    boundary_recall,
    compactness,
    explained_variation,
    num_superpixels,
)
from graphseg.ops import multiscale_slic, pool, project, slic, soft_slic
from graphseg.plot import plot_borders
from graphseg.transforms import ToSuperpixelRAG, cut


def draw(labels: Tensor, image: Tensor, axis: Axes, title: str) -> None:
    """The borders of label map `[H, W]` over its image."""
    plot_borders(ToSuperpixelRAG(superpixels="segments")(Data(image=image, segments=labels)), image, ax=axis)
    axis.set_title(title)


def compare(image: Tensor) -> None:
    """Each method asked for 200 superpixels of one image."""
    print(f"{'method':<14} {'got':>5} {'explained variation':>20} {'compactness':>12} {'ms':>8}")
    for method in ("slic", "slic_skimage", "grid", "watershed"):
        cut(image, 200, method)  # the first call compiles
        begin = time.perf_counter()
        labels = cut(image, 200, method)
        spent = (time.perf_counter() - begin) * 1e3
        explained, compact = explained_variation(labels, image), compactness(labels)
        print(f"{method:<14} {num_superpixels(labels):>5} {explained:>20.3f} {compact:>12.3f} {spent:>8.1f}")


def learn(image: Tensor, mask: Tensor, steps: int) -> nn.Module:
    """A network whose features make superpixels that hold one class each (the task-specific loss of Jampani et al.,
    "Superpixel Sampling Networks"): classes go to superpixels and back, and should come back as they were."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU()),
        *(nn.Conv2d(8, 8, 5, padding=4, dilation=2), nn.ReLU()),
        nn.Conv2d(8, 8, 5, padding=2),
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    classes = one_hot(mask.flatten()).float()  # [P, 2]
    for _ in range(steps):
        assignment = soft_slic(20 * network(image), 50, iterations=3).assignment()
        back = project(pool(classes, assignment), assignment).clamp(min=1e-6)
        loss = cross_entropy(back.log(), mask.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="train for a few steps only")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")

    cup = torch.from_numpy(coffee()).permute(2, 0, 1).contiguous()  # [3, 400, 600]
    compare(cup)
    for axis, labels in zip(axes[0], multiscale_slic(cup, (50, 200, 800), exact=True, nested=True), strict=True):
        draw(labels, cup, axis, f"{num_superpixels(labels)} superpixels, nested")

    photograph = torch.from_numpy(coins())[::2, ::2]  # [152, 192]
    mask = (coin_instances(torch.from_numpy(coins()))[::2, ::2] > 0).long()  # coin or background
    noise = 60 * torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))
    noisy = ((photograph + noise).clamp(0, 255) / 255)[None]  # [1, 152, 192]
    network = learn(noisy[None, ..., :96], mask[:, :96], 3 if options.quick else 60)
    image, mask = noisy[..., 96:].contiguous(), mask[:, 96:]
    with torch.no_grad():
        trained = soft_slic(20 * network(image[None]), 50).labels()[0]
    found = {
        "SLIC": slic(image, 50),
        "soft SLIC, of greys": soft_slic(100 * image, 50).labels(),
        "of trained features": trained,
    }
    for axis, (name, labels) in zip(axes[1], found.items(), strict=True):
        accuracy, recall = achievable_segmentation_accuracy(labels, mask), boundary_recall(labels, mask)
        title = f"{name}: {num_superpixels(labels)}, ASA {accuracy:.3f}, recall {recall:.3f}"
        print(title)
        draw(labels, image, axis, title)
    path = options.out / "superpixels.jpg"
    figure.savefig(path, dpi=80)
    plt.close(figure)
    print(f"written {path}")


if __name__ == "__main__":
    main()
