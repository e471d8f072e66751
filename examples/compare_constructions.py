"""Two graphs of one labelled image, compared by hand: what do they cost, and what is the best they allow?

The oracle gives every node its majority class: no classifier of these nodes has a higher pixel accuracy.

    python -m examples.compare_constructions [--out FOLDER]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from skimage.data import coins
from torch_geometric.data import Data
from torch_geometric.utils import homophily

from examples.overview import coin_instances
from graphseg.plot import plot_purity
from graphseg.transforms import ToKNNGraph, ToPixelGrid, ToSuperpixelRAG

CONSTRUCTIONS = {
    "pixel grid": ToPixelGrid(num_classes=2),
    "SLIC 100, touching": ToSuperpixelRAG(100, num_classes=2),
    "SLIC 400, touching": ToSuperpixelRAG(400, num_classes=2),
    "SLIC 400, 8 nearest colours": ToKNNGraph(
        8, by="features", num_segments=400, node_features=("mean",), num_classes=2
    ),
    "Felzenszwalb, touching": ToSuperpixelRAG(superpixels="felzenszwalb", num_classes=2),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder for the pictures")
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)

    image = torch.from_numpy(coins())[None]  # [1, 303, 384]
    mask = (coin_instances(image[0]) > 0).long()  # coin or background
    data = Data(image=image, mask=mask, source="coins")

    print(f"{'construction':<28} {'nodes':>7} {'edges':>7} {'homophily':>9} {'accuracy':>9} {'mIoU':>6} {'ms':>7}")
    for name, transform in CONSTRUCTIONS.items():
        transform(data)  # the first call compiles
        begin = time.perf_counter()
        graph = transform(data)
        milliseconds = (time.perf_counter() - begin) * 1e3
        oracle = graph.oracle()
        same = homophily(graph.edge_index, graph.y)
        print(
            f"{name:<28} {graph.num_nodes:>7} {graph.num_edges:>7} {same:>9.3f} "
            f"{oracle['pixel_accuracy']:>9.3f} {oracle['mean_iou']:>6.3f} {milliseconds:>7.1f}"
        )
        if graph.num_nodes < 10_000:
            path = out / f"compare_{name.replace(' ', '_').replace(',', '').lower()}.png"
            figure, axis = plt.subplots()
            plot_purity(graph, image, ax=axis)
            figure.savefig(path, dpi=120)
    print(f"pictures of purity are in {out}")


if __name__ == "__main__":
    main()
