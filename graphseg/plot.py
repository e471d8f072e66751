"""Pictures of graphs over their images: region borders, nodes and edges, node labels, purity.

Every function draws on the given matplotlib `Axes`, or on a new figure of one, and returns it. Positions are those of
`ImageGraph`: y points down and pixel centres lie at integers. matplotlib comes with the extra `viz`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from graphseg._checks import check_integer, check_shape, check_tensor
from graphseg.data.image_graph import ImageGraph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PALETTE", "plot_borders", "plot_graph", "plot_labels", "plot_purity"]

# Okabe and Ito's colours and Tol's "muted" scheme: told apart by colour-blind eyes. Classes beyond them start again.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"),
    *("#332288", "#44AA99", "#882255", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#999933", "#AA4499"),
)
_UNKNOWN = "#B8B8B8"  # no label
_PLAIN = "#4A4A4A"  # the ground where there is no image
_NO_NODE = "#202020"  # shade over pixels of no node

_BAR, _LEGEND = 0.16, 0.24  # what they take beside a new figure's axes, as a share of its width

Window = tuple[int, int, int, int]


def plot_borders(
    graph: ImageGraph,
    image: Tensor | None = None,
    ax: Axes | None = None,
    *,
    color: Any = "#FFD92F",
    linewidth: float = 0.9,
    window: Window | None = None,
) -> Axes:
    """Draws the borders between nodes, exactly between their pixels; pixels of no node are shaded.

    Args:
        graph: one graph.
        image: `[C, H, W]`, uint8, uint16 or floating-point. One channel is drawn grey, of two the first, of more the
            first three. Integers of 8 bits, and grey or colour values in [0, 1], are drawn as they are; all else is
            stretched from the 2nd to the 98th percentile of each channel. Default: `pixel_x` if the graph kept it,
            else a plain ground. (`graph.project(graph.x[:, :3])` draws mean colours, where these come first in `x`.)
        ax: where to draw. Default: a new figure in the image's proportions.
        color: of the lines, as matplotlib takes it.
        linewidth: in points.
        window: (y0, x0, height, width), the pixels to show. Default: the whole image.

    Returns:
        The axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: for a batch, an image of another size, or a window outside the image.
    """
    ax, view = _start(graph, image, ax, window)
    _draw_overlay(ax, graph)
    _draw_borders(ax, graph, view, color, linewidth)
    return ax


def plot_graph(
    graph: ImageGraph,
    image: Tensor | None = None,
    ax: Axes | None = None,
    *,
    color: Any = "#FFD92F",
    edge_values: str | int | Tensor | None = None,
    cmap: Any = "YlOrRd",
    colorbar: bool = True,
    linewidth: float | None = None,
    node_color: Any = "white",
    node_size: float | None = None,
    borders: bool = False,
    max_edges: int = 20_000,
    window: Window | None = None,
) -> Axes:
    """Draws nodes as dots and every pair of joined nodes as one line.

    Nodes without pixels are left out (those of a `Hierarchy`'s coarser levels, invalid pixels of a grid).

    Args:
        graph: one graph with `pos`.
        image: as for `plot_borders`.
        ax: likewise.
        color: of the edges, unless they have values.
        edge_values: what colours the edges: "edge_weight", a column of `edge_attr`, or a tensor `[E]`. Where the two
            directions differ, that from the smaller id counts.
        cmap: matplotlib's colour map of these values.
        colorbar: whether to draw one, where edges have values.
        linewidth: of the edges, in points. Default: by the room that a node in view has.
        node_color: of the dots.
        node_size: diameter of the dots in points; 0 for none. Default: by the room that a node in view has.
        borders: whether to draw thin borders between nodes too.
        max_edges: more than this in view are refused.
        window: as for `plot_borders`; the title then names it.

    Returns:
        The axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: as for `plot_borders`; without `pos`; for too many edges; for values that are not there.
    """
    _check_single(graph)
    if graph.get("pos") is None:
        raise ValueError("got a graph without pos, expected the position of every node")
    pair, edge = _pairs_in_view(graph, _view(graph, window))
    if len(edge) > max_edges:
        raise ValueError(
            f"got {len(edge)} edges to draw, expected at most max_edges={max_edges}: "
            "show a part by window=(y0, x0, height, width), or raise max_edges"
        )
    values = _edge_values(graph, edge_values)
    with_bar = values is not None and colorbar and len(edge) > 0
    ax, view = _start(graph, image, ax, window, beside=_BAR if with_bar else 0.0)
    _draw_overlay(ax, graph)
    if borders:
        _draw_borders(ax, graph, view, "white", 0.5)

    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Normal, Stroke

    pos = graph.pos.detach().cpu().to(torch.float64).numpy()
    shown = pos[_nodes_in_view(graph, view)]
    room = _room(ax, len(shown))
    if linewidth is None:
        linewidth = float(np.clip(room / 25, 0.5, 1.2)) * (1.0 if values is None else 1.6)
    lines = LineCollection(list(pos[pair]), linewidths=linewidth, colors=color, capstyle="round", zorder=2)
    if values is not None:
        lines.set(array=values[edge].numpy(), cmap=cmap, color=None)
    if linewidth > 0:  # a dark rim keeps light lines visible on light ground
        lines.set_path_effects([Stroke(linewidth=1.7 * linewidth, foreground="black", alpha=0.4), Normal()])
    ax.add_collection(lines, autolim=False)
    if with_bar:
        _add_colorbar(ax, lines, edge_values if isinstance(edge_values, str) else None)
    size = float(np.clip(room / 5.5, 1.5, 7)) if node_size is None else node_size
    if size > 0:
        rim = min(0.8, size / 6)
        ax.plot(*shown.T, "o", ms=size, mfc=node_color, mec="#222222", mew=rim, ls="none", zorder=3)
    if window is not None and not ax.get_title():
        y0, x0, height, width = window
        ax.set_title(f"rows {y0} to {y0 + height - 1}, columns {x0} to {x0 + width - 1}", fontsize="medium")
    return ax


def plot_labels(
    graph: ImageGraph,
    labels: str | Tensor = "y",
    image: Tensor | None = None,
    ax: Axes | None = None,
    *,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = 255,
    palette: Sequence[Any] = PALETTE,
    alpha: float = 0.6,
    borders: bool = True,
    window: Window | None = None,
) -> Axes:
    """Draws the label of every node over its pixels; nodes without one are grey, pixels of no node shaded.

    Args:
        graph: one graph.
        labels: a field of the graph, or integers `[N]` such as predictions. Negative ones are no labels.
        image: as for `plot_borders`; drawn in grey under the colours.
        ax: as for `plot_borders`.
        class_names: names of the classes, by label; the legend has those that occur.
        ignore_index: a label that is none.
        palette: colours of the classes, by label; classes beyond them start again.
        alpha: opacity of the colours over an image.
        borders: whether to draw thin borders between nodes.
        window: as for `plot_borders`.

    Returns:
        The axes.

    Raises:
        ImportError: without matplotlib.
        TypeError: if labels are not integers.
        ValueError: as for `plot_borders`; without the field, for labels that are not one per node, or too few names.
    """
    _check_single(graph)
    label = _labels(graph, labels)
    unknown = label < 0 if ignore_index is None else (label < 0) | (label == ignore_index)
    present = torch.unique(label[~unknown]).tolist()
    if class_names is not None and present and present[-1] >= len(class_names):
        raise ValueError(f"got label {present[-1]} and {len(class_names)} class_names, expected a name for every label")
    ax, view = _start(graph, image, ax, window, gray=True, beside=_LEGEND if class_names is not None else 0.0)

    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    table = torch.tensor([to_rgb(c) for c in palette], dtype=torch.float32)
    color = torch.where(unknown[:, None], torch.tensor(to_rgb(_UNKNOWN)), table[label.clamp(min=0) % len(table)])
    _draw_overlay(ax, graph, color, alpha if _has_image(graph, image) else 1.0)
    if borders:
        _draw_borders(ax, graph, view, "white", 0.5)
    if class_names is not None:
        patches = [Patch(color=palette[k % len(palette)], label=class_names[k]) for k in present]
        if bool(unknown.any()):
            patches.append(Patch(color=_UNKNOWN, label="no label"))
        ax.legend(
            handles=patches,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0.0,
            frameon=False,
            fontsize="small",
            handlelength=1.0,
            handleheight=1.0,
        )
    return ax


def plot_purity(
    graph: ImageGraph,
    image: Tensor | None = None,
    ax: Axes | None = None,
    *,
    cmap: Any = "viridis",
    colorbar: bool = True,
    alpha: float = 0.85,
    borders: bool = True,
    window: Window | None = None,
) -> Axes:
    """Draws the purity of every node (see `ImageGraph.purity`) from 0 to 1; nodes without labelled pixels are grey.

    Args:
        graph: one graph with `label_counts`.
        image: as for `plot_borders`; drawn in grey under the colours.
        ax: as for `plot_borders`.
        cmap: matplotlib's colour map.
        colorbar: whether to draw one.
        alpha: opacity of the colours over an image.
        borders: whether to draw thin borders between nodes.
        window: as for `plot_borders`.

    Returns:
        The axes.

    Raises:
        ImportError: without matplotlib.
        ValueError: as for `plot_borders`; if the graph was made without labels.
    """
    _check_single(graph)
    purity = graph.purity().cpu()
    labelled = graph.label_counts.cpu().sum(1) > 0
    ax, view = _start(graph, image, ax, window, gray=True, beside=_BAR if colorbar else 0.0)

    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_rgb

    scale = ScalarMappable(Normalize(0, 1), cmap)
    color = torch.from_numpy(scale.to_rgba(purity.numpy())[:, :3].astype(np.float32))  # [N, 3]
    color = torch.where(labelled[:, None], color, torch.tensor(to_rgb(_UNKNOWN)))
    _draw_overlay(ax, graph, color, alpha if _has_image(graph, image) else 1.0)
    if borders:
        _draw_borders(ax, graph, view, "white", 0.5)
    if colorbar:
        _add_colorbar(ax, scale, "purity")
    return ax


def _check_single(graph: ImageGraph) -> None:
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise ImportError('graphseg.plot needs matplotlib: pip install "graphseg[viz]"') from error
    if not isinstance(graph, ImageGraph):
        raise TypeError(f"got {type(graph).__name__} for graph, expected an ImageGraph")
    if isinstance(graph, Batch):
        raise ValueError(f"got a batch of {graph.num_graphs} graphs, expected one: take it out by get_example(i)")


def _view(graph: ImageGraph, window: Window | None) -> Window:
    H, W = graph.image_size[0].tolist()
    if window is None:
        return 0, 0, H, W
    y0, x0, height, width = window
    if not (0 <= y0 < y0 + height <= H and 0 <= x0 < x0 + width <= W):
        raise ValueError(f"got window={tuple(window)}, expected (y0, x0, height, width) within {H} x {W} pixels")
    return window


def _start(
    graph: ImageGraph,
    image: Tensor | None,
    ax: Axes | None,
    window: Window | None,
    gray: bool = False,
    beside: float = 0.0,
) -> tuple[Axes, Window]:
    """The axes with the image on them, and the pixels in view."""
    _check_single(graph)
    view = _view(graph, window)
    ground = _ground(graph, image)
    y0, x0, height, width = view
    if ax is None:
        from matplotlib import pyplot as plt

        inches = float(np.clip(5 * np.sqrt(width / height), 2.5, 12))
        size = inches / (1 - beside), float(np.clip(inches * height / width, 1.0, 12))
        _, ax = plt.subplots(figsize=size, layout="constrained")
    if gray and _has_image(graph, image):
        luma = ground @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        ground = np.repeat(0.3 + 0.7 * luma[..., None], 3, axis=2)  # lifted: on black all colours look alike
    ax.imshow(np.clip(ground, 0, 1), zorder=0)  # sums of rounded weights may leave [0, 1] by a digit
    ax.set(xlim=(x0 - 0.5, x0 + width - 0.5), ylim=(y0 + height - 0.5, y0 - 0.5), xticks=[], yticks=[])
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax, view


def _room(ax: Axes, count: int) -> float:
    """The side of the square, in points, that each of `count` nodes has to itself."""
    area = ax.bbox.width * ax.bbox.height * (72 / ax.figure.dpi) ** 2
    return float(np.sqrt(area / max(count, 1)))


def _has_image(graph: ImageGraph, image: Tensor | None) -> bool:
    return image is not None or graph.get("pixel_x") is not None


def _ground(graph: ImageGraph, image: Tensor | None) -> np.ndarray:
    """`[H, W, 3]` in [0, 1]."""
    from matplotlib.colors import to_rgb

    H, W = graph.image_size[0].tolist()
    if image is None and graph.get("pixel_x") is not None:
        image = graph.pixel_x.T.reshape(-1, H, W)
    if image is None:
        return np.full((H, W, 3), to_rgb(_PLAIN), dtype=np.float32)
    check_shape("image", check_tensor("image", image), (None, H, W))
    if image.shape[0] == 0 or image.is_complex():
        raise ValueError(f"got {image.dtype} {list(image.shape)} for image, expected one real channel or more")
    channels = image.detach()[: 3 if image.shape[0] >= 3 else 1].cpu()
    values = channels.to(torch.float32).numpy()  # [1 or 3, H, W]
    if image.dtype in (torch.uint8, torch.bool):
        values = values / (255 if image.dtype == torch.uint8 else 1)
    else:
        finite = np.isfinite(values)
        values = np.where(finite, values, 0)
        within = values.min() >= -1e-3 and values.max() <= 1.001
        if not (within and image.is_floating_point() and image.shape[0] in (1, 3)):
            values = np.stack([_stretched(v, f) for v, f in zip(values, finite, strict=True)])
    return np.broadcast_to(values.transpose(1, 2, 0), (H, W, 3))


def _stretched(values: np.ndarray, finite: np.ndarray) -> np.ndarray:
    if not finite.any():
        return values
    low, high = np.percentile(values[finite], [2, 98])
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def _node_map(graph: ImageGraph) -> np.ndarray:
    """`[H, W]`: the node of each pixel, -1 for none."""
    node = graph.assignment.cpu()
    if graph.get("valid") is not None:
        node = node.where(graph.valid.cpu(), -1)
    return node.view(*graph.image_size[0].tolist()).numpy()


def _draw_overlay(ax: Axes, graph: ImageGraph, color: Tensor | None = None, alpha: float = 0.0) -> None:
    """Node colours `[N, 3]`, if any, and the shade over pixels of no node."""
    from matplotlib.colors import to_rgba

    node = _node_map(graph)
    if color is None and node.min() >= 0:
        return
    shade = np.array(to_rgba(_NO_NODE, 0.6), dtype=np.float32)
    rows = np.zeros((graph.num_nodes + 1, 4), dtype=np.float32)  # the last one is read by -1
    if color is not None:
        rows[:-1, :3], rows[:-1, 3] = color.numpy(), alpha
    rows[-1] = shade
    ax.imshow(rows[node], interpolation="nearest", zorder=1)


def _draw_borders(ax: Axes, graph: ImageGraph, view: Window, color: Any, linewidth: float) -> None:
    from matplotlib.collections import LineCollection

    y0, x0, height, width = view
    segments = _border_segments(_node_map(graph)[y0 : y0 + height, x0 : x0 + width]) + np.array([x0, y0])
    lines = LineCollection(list(segments), colors=color, linewidths=linewidth, capstyle="round", zorder=2)
    ax.add_collection(lines, autolim=False)


def _border_segments(node: np.ndarray) -> np.ndarray:
    """`[S, 2, 2]`, ends (x, y) of the straight lines between different nodes; collinear runs are one line."""
    beside = _runs(node[:, 1:] != node[:, :-1])  # right of column k: x = k + 0.5
    below = _runs((node[1:] != node[:-1]).T)
    upright = np.stack([beside[:, [0, 0]] + 0.5, beside[:, 1:] - 0.5], axis=2)  # [S, 2 ends, (x, y)]
    level = np.stack([below[:, 1:] - 0.5, below[:, [0, 0]] + 0.5], axis=2)
    return np.concatenate([upright, level])


def _runs(on: np.ndarray) -> np.ndarray:
    """Runs of True down the columns of `[length, lines]`: rows (line, first, last + 1)."""
    padded = np.pad(on.T, ((0, 0), (1, 1))).astype(np.int8)
    step = np.diff(padded, axis=1)  # [lines, length + 1]
    line, first = np.nonzero(step == 1)
    return np.stack([line, first, np.nonzero(step == -1)[1]], axis=1)


def _nodes_in_view(graph: ImageGraph, view: Window) -> np.ndarray:
    """`[N]` bool: nodes with pixels whose position lies in view."""
    node = _node_map(graph)
    has_pixels = np.bincount(node[node >= 0], minlength=graph.num_nodes) > 0
    x, y = graph.pos.detach().cpu().to(torch.float64).numpy().reshape(-1, 2).T
    y0, x0, height, width = view
    return has_pixels & (x >= x0 - 0.5) & (x <= x0 + width - 0.5) & (y >= y0 - 0.5) & (y <= y0 + height - 0.5)


def _pairs_in_view(graph: ImageGraph, view: Window) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of joined nodes once `[M, 2]`, one of them in view, and the edge that stands for it `[M]`."""
    N = graph.num_nodes
    source, target = graph.edge_index.detach().cpu().numpy()
    seen = _nodes_in_view(graph, view)
    node = _node_map(graph)
    has_pixels = np.bincount(node[node >= 0], minlength=N) > 0
    drawn = has_pixels[source] & has_pixels[target] & (seen[source] | seen[target]) & (source != target)
    edge = np.flatnonzero(drawn)
    low, high = np.minimum(source, target)[edge], np.maximum(source, target)[edge]
    order = np.lexsort((edge, source[edge] > target[edge], high, low))  # from the smaller id first
    edge = edge[order]
    _, first = np.unique((low * N + high)[order], return_index=True)
    edge = edge[first]
    return np.stack([source[edge], target[edge]], axis=1), edge


def _edge_values(graph: ImageGraph, values: str | int | Tensor | None) -> Tensor | None:
    if values is None:
        return None
    if isinstance(values, Tensor):
        column = values
    elif isinstance(values, str):
        if graph.get(values) is None:
            raise ValueError(f"got edge_values={values!r}, expected a field of the graph ({', '.join(graph.keys())})")
        column = check_tensor(values, graph[values])
    else:
        table = graph.get("edge_attr")
        if table is None or table.dim() != 2 or not 0 <= values < table.shape[1]:
            have = "no edge_attr" if table is None else f"edge_attr of shape {list(table.shape)}"
            raise ValueError(f"got column {values} and {have}, expected one of the columns of edge_attr")
        column = table[:, values]
    check_shape("edge_values", column, (graph.num_edges,))
    return column.detach().cpu().to(torch.float64)


def _labels(graph: ImageGraph, labels: str | Tensor) -> Tensor:
    if isinstance(labels, str):
        if graph.get(labels) is None:
            raise ValueError(f"got a graph without {labels}, expected it there, or labels as a tensor [N]")
        labels = graph[labels]
    label = check_tensor("labels", labels)
    check_integer("labels", label)
    check_shape("labels", label, (graph.num_nodes,))
    return label.detach().cpu().to(torch.int64)


def _add_colorbar(ax: Axes, mappable: Any, label: str | None) -> None:
    bar = ax.figure.colorbar(mappable, ax=ax, fraction=0.046, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize="small")
    if label is not None:
        bar.set_label(label, fontsize="small")
