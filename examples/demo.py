"""Every construction on real photographs: a table of what each costs, pictures of the graphs, and a report.

The photographs come with scikit-image. `make demo` runs this.

    python -m examples.demo [--out FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from torch_geometric.data import Data

from examples.overview import coin_instances
from graphseg import ImageGraph
from graphseg.compare import choose, compare, default_constructions
from graphseg.plot import plot_borders, plot_graph
from graphseg.transforms import (
    ImageTransform,
    ToAffinityGraph,
    ToHierarchy,
    ToInstanceGraph,
    ToKNNGraph,
    ToPascalVOCSP,
    ToPixelGrid,
    ToSuperpixelRAG,
)

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "coins")
CONSTRUCTIONS: dict[str, ImageTransform] = {
    "pixel grid, 4 neighbours": ToPixelGrid(4),
    "pixel grid, 8 neighbours": ToPixelGrid(8),
    "affinity graph, distances 1 2 4": ToAffinityGraph(),
    "pixels, 8 nearest by both": ToKNNGraph(8, by="both", superpixels="pixels"),
    "SLIC 200, touching": ToSuperpixelRAG(200),
    "SLIC 800, touching": ToSuperpixelRAG(800),
    "Felzenszwalb, touching": ToSuperpixelRAG(superpixels="felzenszwalb"),
    "QuickShift, touching": ToSuperpixelRAG(superpixels="quickshift"),
    "watershed 200, touching": ToSuperpixelRAG(200, "watershed"),
    "SLIC 200, 8 nearest by position": ToKNNGraph(8, num_segments=200),
    "SLIC 200, 8 nearest by features": ToKNNGraph(8, by="features", num_segments=200, weighted=True),
    "instances, Delaunay": ToInstanceGraph(max_distance=120.0),
    "hierarchy 50 200 800": ToHierarchy((50, 200, 800)),
    "PascalVOC-SP": ToPascalVOCSP(),
}
REPORTED = "pixel grid 8, slic 100 rag, slic 400 rag, slic 400 feature knn, felzenszwalb rag, slic hierarchy"
PANELS = (  # what is drawn: construction, how
    ("SLIC 200, touching", "borders"),
    ("SLIC 200, touching", "graph"),
    ("SLIC 200, 8 nearest by features", "graph"),
    ("Felzenszwalb, touching", "borders"),
    ("QuickShift, touching", "borders"),
    ("watershed 200, touching", "borders"),
    ("hierarchy 50 200 800", "mean colours"),
    ("PascalVOC-SP", "mean colours"),
    ("SLIC 200, 8 nearest by position", "graph"),
    ("instances, Delaunay", "graph"),
)


def read(name: str) -> Data:
    """A photograph as `Data`, with the coins as instances where there are some."""
    photograph = getattr(skimage.data, name)()
    image = torch.from_numpy(np.atleast_3d(photograph)).permute(2, 0, 1).contiguous()
    data = Data(image=image, source=name)
    if name == "coins":
        data.instances = coin_instances(image[0])
    return data


def fits(transform: ImageTransform, data: Data) -> bool:
    """Whether the construction is meant for this photograph."""
    if isinstance(transform, ToInstanceGraph):
        return "instances" in data
    return not isinstance(transform, ToPascalVOCSP) or data.image.shape[0] == 3


def draw(data: Data, graphs: dict[str, ImageGraph], path: Path) -> None:
    """The panels of one photograph on one page."""
    panels = [(name, how) for name, how in PANELS if name in graphs][-9:]
    rows = -(-len(panels) // 3)
    H, W = data.image.shape[1:]
    figure, axes = plt.subplots(rows, 3, figsize=(13.5, rows * (4.4 * H / W + 0.35)), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, how) in zip(axes.flat, panels, strict=False):
        graph = graphs[name]
        if how == "mean colours":
            painted = graph.project(graph.pool(data.image / 255))
            assert isinstance(painted, torch.Tensor)  # of a batch it would be a list
            plot_borders(graph, painted, ax=axis, linewidth=0.3)
        else:
            (plot_borders if how == "borders" else plot_graph)(graph, data.image, ax=axis)
        axis.set_title(f"{name}: {graph.num_nodes} nodes", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the pictures")
    parser.add_argument("--quick", action="store_true", help="one photograph only")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)

    print("compiling the CPU kernels (kept for the next time) ...", flush=True)
    costs: dict[str, list[tuple[float, ...]]] = {name: [] for name in CONSTRUCTIONS}
    tiny = Data(image=read("astronaut").image[:, :64, :64].clone(), instances=torch.eye(64, dtype=torch.int64))
    for transform in CONSTRUCTIONS.values():
        transform(tiny)
    for source in PHOTOGRAPHS[-1:] if options.quick else PHOTOGRAPHS:
        data = read(source)
        graphs = {}
        for name, transform in CONSTRUCTIONS.items():
            if not fits(transform, data):
                continue
            begin = time.perf_counter()
            graph = graphs[name] = transform(data)
            milliseconds = (time.perf_counter() - begin) * 1e3
            size = sum(value.nbytes for _, value in graph if isinstance(value, torch.Tensor))
            costs[name].append((graph.num_nodes, graph.num_edges, graph.num_node_features, size, milliseconds))
        draw(data, graphs, options.out / f"{source}.png")
        print(f"{source}: {data.image.shape[2]} x {data.image.shape[1]}, {len(graphs)} graphs", flush=True)

    print(f"\n{'mean over the photographs':<32} {'nodes':>8} {'edges':>9} {'features':>8} {'bytes':>12} {'ms':>8}")
    for name, rows in costs.items():
        if rows:
            nodes, edges, _, size, milliseconds = (mean(column) for column in zip(*rows, strict=True))
            features = max(row[2] for row in rows)
            print(f"{name:<32} {nodes:>8.0f} {edges:>9.0f} {features:>8.0f} {size:>12.0f} {milliseconds:>8.1f}")
    print(f"edges count both directions; ms include the superpixels. Pictures are in {options.out.resolve()}\n")
    images = [read(source) for source in PHOTOGRAPHS[-1 if options.quick else -3 :]]
    compare(images, choose(REPORTED, default_constructions()), out=options.out / "report", command="make demo")
    print(f"The report, for a browser: {(options.out / 'report' / 'report.html').resolve()}")


if __name__ == "__main__":
    main()
