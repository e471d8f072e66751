"""One picture of one graph of a dataset: its nodes and edges, their borders, their classes and how pure they are."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from graphseg.data import ImageGraph
from graphseg.datasets.image_file import read_image
from graphseg.datasets.image_graph_dataset import ImageGraphDataset

__all__ = ["draw_graph"]

MOST_NODES = 20_000  # of more only a part in the middle can be told apart
SIDE = 48  # of that part, in pixels


def draw_graph(dataset: ImageGraphDataset, index: int, picture: str | Path) -> None:
    """Draws graph `index` over its image, which is read again from its file; on a plain ground if that is gone.

    Args:
        dataset: of the graph.
        index: of the graph.
        picture: file to write; its suffix chooses the format.

    Raises:
        ImportError: without matplotlib.
        ValueError: for a suffix that matplotlib does not know.
    """
    from graphseg.plot import plot_borders, plot_graph, plot_labels, plot_purity

    graph = dataset[index]
    image = _image(dataset, index, graph)
    H, W = (int(s) for s in graph.image_size[0])
    small = graph.num_nodes <= MOST_NODES
    height, width = min(H, SIDE), min(W, SIDE)
    window = None if small else ((H - height) // 2, (W - width) // 2, height, width)
    plot_borders(graph, image, window=window)  # names the extra, where matplotlib is missing

    from matplotlib import pyplot as plt

    plt.close()
    labelled = graph.get("label_counts") is not None
    rows = 2 if labelled else 1
    shape = height / width if window else H / W
    figure, grid = plt.subplots(rows, 2, figsize=(11, rows * (4.8 * shape + 0.4)), layout="constrained", squeeze=False)
    axes = grid.flatten()
    plot_borders(graph, image, axes[0], window=window).set_title(f"{graph.num_nodes:,} nodes")
    plot_graph(graph, image, axes[1], window=window, max_edges=200_000).set_title(f"{graph.num_edges:,} edges")
    if labelled:
        names = dataset.class_names or None
        classes = plot_labels(
            graph, "y", image, axes[2], class_names=names, ignore_index=None, borders=small, window=window
        )
        classes.set_title("majority classes")
        plot_purity(graph, image, axes[3], borders=small, window=window).set_title("purity")
    figure.suptitle(graph.source)
    try:
        figure.savefig(picture, dpi=120)
    finally:
        plt.close(figure)


def _image(dataset: ImageGraphDataset, index: int, graph: ImageGraph) -> Tensor | None:
    """The image's first file, where it still is and has the graph's size."""
    if "pixel_x" in graph:
        return None  # the graph has it
    try:
        found = read_image(dataset.files(index)["image"], window=dataset.window(index)).image
    except (OSError, ValueError, KeyError):
        return None
    return found if list(found.shape[1:]) == graph.image_size[0].tolist() else None
