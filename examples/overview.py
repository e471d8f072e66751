"""The picture on the README's first page: one photograph cut, joined and coarsened, and coins as instances.

python -m examples.overview --out examples/pictures
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from scipy.ndimage import binary_fill_holes, binary_opening
from skimage.data import coffee, coins
from skimage.filters import sobel
from skimage.measure import label
from skimage.segmentation import watershed
from torch_geometric.data import Data

from graphseg.plot import plot_borders, plot_graph
from graphseg.transforms import ToInstanceGraph, ToSuperpixelRAG


def coin_instances(photograph: torch.Tensor) -> torch.Tensor:
    """One id for each coin `[H, W]`, 0 elsewhere: watershed from what is surely dark and surely bright."""
    markers = (photograph < 30) * 1 + (photograph > 150) * 2
    bright = watershed(sobel(photograph.numpy()), markers.numpy()) == 2
    return torch.from_numpy(label(binary_opening(binary_fill_holes(bright), iterations=2)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder for the picture")
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)

    cup = torch.from_numpy(coffee()[:, 50:550]).permute(2, 0, 1)  # [3, 400, 500]
    graph = ToSuperpixelRAG(200)(Data(image=cup))
    fine = ToSuperpixelRAG(800, compactness=20.0)(Data(image=cup))
    money = torch.from_numpy(coins())  # [303, 384]
    instances = ToInstanceGraph(max_distance=110.0)(Data(image=money[None], instances=coin_instances(money)))

    figure, axes = plt.subplots(1, 4, figsize=(16, 3.55), layout="constrained")
    plot_borders(graph, cup, ax=axes[0])
    axes[0].set_title(f"{graph.num_nodes} superpixels")
    plot_graph(graph, cup, ax=axes[1], edge_values=0, colorbar=False)
    axes[1].set_title("their adjacency, coloured by colour distance")
    plot_borders(fine, fine.project(fine.x[:, :3]), ax=axes[2], linewidth=0.3)
    axes[2].set_title(f"{fine.num_nodes} node values back on the pixels")
    plot_graph(instances, money[None], ax=axes[3], borders=True)
    axes[3].set_title(f"{instances.num_nodes} instances, Delaunay")
    path = out / "overview.jpg"
    figure.savefig(path, dpi=90, pil_kwargs={"quality": 88})
    plt.close(figure)
    print(f"written {path}")


if __name__ == "__main__":
    main()
