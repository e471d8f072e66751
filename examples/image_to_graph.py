"""One photograph to a graph and back: nodes, edges, features, and pixels again.

python -m examples.image_to_graph [--out FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from skimage.data import coffee
from torch_geometric.data import Batch, Data

from graphseg.plot import plot_borders, plot_graph
from graphseg.transforms import ToPixelGrid, ToSuperpixelRAG


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder for the pictures")
    out = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)

    image = torch.from_numpy(coffee()).permute(2, 0, 1)  # [3, 400, 600], uint8
    data = Data(image=image, source="coffee")

    # Superpixels become nodes, touching ones are joined. Features are chosen by name.
    transform = ToSuperpixelRAG(200, node_features=("mean", "std", "centroid", "area"), edge_features=("length",))
    graph = transform(data)
    print(graph)
    print(f"{graph.num_nodes} nodes, {graph.num_edges} edges (both directions), {graph.num_node_features} features")

    # From nodes to pixels and back: the assignment of every pixel is kept.
    mean_color = graph.project(graph.x[:, :3])  # [3, 400, 600]
    error = (mean_color - image / 255).abs().mean()
    print(f"painted with {graph.num_nodes} mean colours, the image is off by {error:.3f} of its range")
    again = graph.pool(mean_color)  # [N, 3]
    print(f"pooled again, the colours return to within {(again - graph.x[:, :3]).abs().max():.1e}")

    # Every construction gives the same kind of graph; images of different sizes go into one batch.
    small = ToSuperpixelRAG(50, edge_features=("length",))(Data(image=image[:, :200, :300]))
    batch = Batch.from_data_list([graph, small])
    maps = batch.project(torch.arange(batch.num_nodes))
    print(f"a batch of {batch.num_graphs}: {batch.num_nodes} nodes, maps of {[tuple(m.shape) for m in maps]}")
    grid = ToPixelGrid(connectivity=8)(data)
    print(f"as a pixel grid: {grid.num_nodes} nodes, {grid.num_edges} edges")

    for name, plot in (("borders", plot_borders), ("graph", plot_graph)):
        path = out / f"image_to_graph_{name}.png"
        figure, axis = plt.subplots()
        plot(graph, image, ax=axis)
        figure.savefig(path, dpi=150)
        print(f"written {path}")


if __name__ == "__main__":
    main()
