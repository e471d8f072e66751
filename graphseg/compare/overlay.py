"""Pictures of graphs for the report: the photograph once, and what each construction lays over it, transparent.

Regions show their borders exactly between pixels; levels of a hierarchy have bolder borders the coarser they are. Where
edges join more than touching regions, they are drawn too, with a dot for each node. Of a graph whose nodes are pixels,
where that would cover everything, a corner shows one pixel with its neighbours, magnified. Pillow draws.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from graphseg._checks import check_positive_int, check_shape, check_tensor
from graphseg.data.image_graph import ImageGraph

__all__ = ["overlay_picture", "photograph_picture"]

Array = np.ndarray[Any, Any]

_DARK, _FAINT, _LINE = (16, 16, 16), (255, 255, 255), (255, 217, 47)
_MOST_LINES = 2500  # pairs of joined nodes drawn; beyond, those of evenly spread nodes
_FEW_PIXELS = 64  # up to so many single pixels are drawn as regions
_FARTHEST = 6  # pixels to each side that the magnified corner shows

# A picture's pixel is a number: ground + 4 * (rim + 4 * (line + 4 * dot)), drawn in this order, each of four strengths.
_SHADE, _THIN, _BOLD = 1, 2, 3  # grounds: pixels of no node, faint borders, borders
_RIM, _EDGE, _DOT = 4, 16, 64


def photograph_picture(image: Tensor, size: int = 1100) -> bytes:
    """The photograph as a file: PNG where it is small, else JPEG.

    Integers of 8 bits, and grey or colour values in [0, 1], are drawn as they are; all else is stretched from the 2nd
    to the 98th percentile of each channel. Of more than three channels the first three are drawn, of two the first.

    Args:
        image: `[C, H, W]`.
        size: pixels of the longest side; a larger image shrinks.

    Returns:
        The file's bytes.

    Raises:
        ValueError: for another shape, or no channel.
    """
    from PIL import Image

    check_shape("image", check_tensor("image", image), (None, None, None))
    check_positive_int("size", size)
    if image.numel() == 0:
        raise ValueError(f"got shape {list(image.shape)} for image, expected one channel and one pixel or more")
    picture = Image.fromarray(_colours(image))
    if max(picture.size) > size:
        height, width = _fitted(picture.height, picture.width, size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if picture.width * picture.height <= 40_000:
        picture.save(file, "PNG")
    else:
        picture.save(file, "JPEG", quality=88)
    return file.getvalue()


def overlay_picture(graph: ImageGraph, size: int = 1100) -> bytes:
    """What a graph lays over its image, as a transparent PNG.

    Args:
        graph: one graph with `assignment`; its edges are drawn if it has `pos`.
        size: pixels of the longest side, at most. A smaller image is drawn at the largest whole multiple that fits (up
            to 8), so that every pixel of the image has as many in the picture.

    Returns:
        The file's bytes.

    Raises:
        TypeError: for anything but an `ImageGraph`.
        ValueError: for a batch.
    """
    if not isinstance(graph, ImageGraph):
        raise TypeError(f"got {type(graph).__name__} for graph, expected an ImageGraph")
    if isinstance(graph, Batch):
        raise ValueError(f"got a batch of {graph.num_graphs} graphs, expected one: take it out by get_example(i)")
    check_positive_int("size", size)
    node = _node_map(graph)
    H, W = node.shape
    shape = _fitted(H, W, size)
    if graph.get("scale_assignment") is not None:
        return _encoded(_hierarchy(graph, node, shape))
    pixels = np.bincount(node[node >= 0], minlength=graph.num_nodes)  # of each node
    over_pixels = len(pixels) > _FEW_PIXELS and bool(pixels.max() == 1)
    if over_pixels and (reach := _reach(graph, node)) <= _FARTHEST < min(node.shape) // 4:
        return _encoded(_magnified(graph, node, shape, reach))
    pair = _pairs(graph, pixels > 0)
    if graph.get("pos") is None or (not over_pixels and _all_touch(node, pair)):
        return _encoded(_borders(_resampled(node, shape), _BOLD))
    ground = _shaded(_resampled(node, shape)) if over_pixels else _borders(_resampled(node, shape), _THIN)
    return _encoded(ground + _graph_lines(graph, shape, shape[1] / node.shape[1], pair, np.flatnonzero(pixels)))


def _colours(image: Tensor) -> Array:
    """`[H, W, 3]` uint8."""
    values = image.detach()[: 3 if image.shape[0] >= 3 else 1].cpu()
    if image.dtype == torch.uint8:
        array = values.numpy()
    else:
        unit = values.to(torch.float64).numpy()
        finite = np.isfinite(unit)
        unit = np.where(finite, unit, 0)
        within = image.is_floating_point() and unit.min() >= -1e-3 and unit.max() <= 1.001
        if image.dtype != torch.bool and not (within and image.shape[0] in (1, 3)):
            unit = np.stack([_stretched(v, f) for v, f in zip(unit, finite, strict=True)])
        array = np.round(np.clip(unit, 0, 1) * 255).astype(np.uint8)
    H, W = image.shape[1:]
    return np.ascontiguousarray(np.broadcast_to(array.transpose(1, 2, 0), (H, W, 3)))


def _stretched(values: Array, finite: Array) -> Array:
    if not finite.any():
        return values
    low, high = np.percentile(values[finite], [2, 98])
    return (values - low) / max(high - low, 1e-12)


def _fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """The picture's height and width: a whole multiple, or smaller."""
    longest = max(height, width)
    if longest <= size:
        times = min(size // longest, 8)
        return height * times, width * times
    return max(1, round(height * size / longest)), max(1, round(width * size / longest))


def _node_map(graph: ImageGraph) -> Array:
    """`[H, W]`: the node of each pixel, -1 for none."""
    H, W = graph.image_size[0].tolist()
    node = graph.assignment.detach().cpu()
    if graph.get("valid") is not None:
        node = node.where(graph.valid.cpu(), -1)
    return node.view(H, W).numpy()


def _resampled(values: Array, shape: tuple[int, int]) -> Array:
    """Each pixel of the picture takes the value of the image's pixel under its centre."""
    rows, columns = (((2 * np.arange(n) + 1) * m) // (2 * n) for n, m in zip(shape, values.shape, strict=True))
    return values[rows[:, None], columns]


def _shaded(node: Array) -> Array:
    return np.where(node < 0, _SHADE, 0).astype(np.uint8)


def _edge_pixels(node: Array, width: int = 1) -> Array:
    """Pixels within `width` of a border: a line of twice that width, its middle exactly between pixels."""
    beside, below = node[:, 1:] != node[:, :-1], node[1:] != node[:-1]
    on = np.zeros(node.shape, bool)
    on[:, 1:] |= beside
    on[:, :-1] |= beside
    on[1:] |= below
    on[:-1] |= below
    return _grown(on, width - 1)


def _grown(on: Array, steps: int = 1) -> Array:
    """Spread to the four neighbours, so many times."""
    for _ in range(steps):
        before, on = on, on.copy()
        on[:, 1:] |= before[:, :-1]
        on[:, :-1] |= before[:, 1:]
        on[1:] |= before[:-1]
        on[:-1] |= before[1:]
    return on


def _borders(node: Array, ground: int) -> Array:
    """Borders of a map at the picture's resolution, with a dark rim where they are bold."""
    codes = _shaded(node)
    line = _edge_pixels(node)
    if ground == _BOLD:
        codes[_grown(line) & ~line] += 2 * _RIM
    codes[line] = ground
    return codes


def _hierarchy(graph: ImageGraph, node: Array, shape: tuple[int, int]) -> Array:
    """Faint borders at the finest level, then bold ones that widen towards the coarsest."""
    L = graph.scale_assignment.shape[1]
    codes = _borders(_resampled(node, shape), _THIN if L > 1 else _BOLD)
    for level in range(L - 2, -1, -1):
        nodes = np.where(node < 0, -1, graph.scale_assignment[:, level].detach().cpu().numpy().reshape(node.shape))
        line = _edge_pixels(_resampled(nodes, shape), 1 + (level == 0 and L > 2))
        codes[_grown(line) & (codes != _BOLD)] = 2 * _RIM
        codes[line] = _BOLD
    return codes


def _pairs(graph: ImageGraph, has_pixels: Array) -> Array:
    """`[M, 2]`: joined nodes that have pixels, the smaller first, each pair once."""
    N = max(graph.num_nodes, 1)
    source, target = graph.edge_index.detach().cpu().numpy()
    kept = (source != target) & has_pixels[source] & has_pixels[target]
    key = np.unique(np.minimum(source, target)[kept] * N + np.maximum(source, target)[kept])
    return np.stack([key // N, key % N], 1)


def _all_touch(node: Array, pair: Array) -> bool:
    """Whether every pair of nodes has pixels side by side or corner to corner."""
    N = int(node.max(initial=0)) + 1
    found = []
    for here, there in (
        (node[:, :-1], node[:, 1:]),
        (node[:-1], node[1:]),
        (node[:-1, :-1], node[1:, 1:]),
        (node[:-1, 1:], node[1:, :-1]),
    ):
        a, b = here[here != there], there[here != there]
        inside = (a >= 0) & (b >= 0)
        a, b = a[inside], b[inside]
        found.append(np.minimum(a, b) * N + np.maximum(a, b))
    return bool(np.isin(pair[:, 0] * N + pair[:, 1], np.concatenate(found)).all())


def _few(pair: Array, nodes: Array) -> Array:
    """At most `_MOST_LINES` pairs: those of evenly spread nodes."""
    if len(pair) <= _MOST_LINES:
        return pair
    step = -(-2 * len(pair) // _MOST_LINES)  # a pair is kept for either end
    chosen = nodes[step // 2 :: step]
    found = pair[np.isin(pair, chosen).any(1)]
    return found[:: max(1, -(-len(found) // _MOST_LINES))]


def _graph_lines(graph: ImageGraph, shape: tuple[int, int], scale: float, pair: Array, nodes: Array) -> Array:
    """Lines between joined nodes and dots on them, as codes to be added to a ground."""
    pos = (graph.pos.detach().cpu().to(torch.float64).numpy() + 0.5) * scale  # pixel centres lie at integers
    lines = _few(pair, nodes)
    dots = nodes if len(nodes) <= _MOST_LINES else np.unique(lines)
    room = float(np.sqrt(shape[0] * shape[1] / max(len(dots), 1)))
    return _drawn(shape, pos[lines], pos[dots], 1 if room < 80 else 2, float(np.clip(room / 14, 1.5, 4)))


def _drawn(shape: tuple[int, int], lines: Array, dots: Array, width: float, radius: float) -> Array:
    """Codes of lines `[M, 2, (x, y)]` and discs `[D, (x, y)]` with dark rims, their rounded edges smoothed."""
    from PIL import Image, ImageDraw

    masks = [Image.new("L", (shape[1] * 2, shape[0] * 2)) for _ in range(3)]
    rim, edge, dot = (ImageDraw.Draw(mask) for mask in masks)
    for line in (lines * 2 - 0.5).reshape(-1, 4).tolist():
        rim.line(line, 170, round(2 * width) + 2)
        edge.line(line, 255, round(2 * width))
    for x, y in (dots * 2 - 0.5).tolist():
        for draw, r, value in ((rim, 2 * radius + 2, 170), (dot, 2 * radius, 255)):
            draw.ellipse((x - r, y - r, x + r, y + r), value)
    strengths = [(np.asarray(mask.reduce(2)).astype(np.int16) + 42) // 85 for mask in masks]  # 0 to 3
    rims, edges, discs = (strength.astype(np.uint8) for strength in strengths)
    return rims * _RIM + edges * _EDGE + discs * _DOT


def _pixel_of_node(graph: ImageGraph, node: Array) -> Array:
    """`[N, 2]`: x and y of a pixel of each node, NaN without."""
    place = np.full((graph.num_nodes, 2), np.nan)
    y, x = np.nonzero(node >= 0)
    place[node[y, x]] = np.stack([x, y], 1)
    return place


def _central_node(node: Array) -> int:
    """The node of the pixel nearest to the middle."""
    y, x = np.nonzero(node >= 0)
    nearest = np.argmin((y - node.shape[0] // 2) ** 2 + (x - node.shape[1] // 2) ** 2)
    return int(node[y[nearest], x[nearest]])


def _reach(graph: ImageGraph, node: Array) -> int:
    """How many pixels to the side the neighbours of the central node lie; at least 2."""
    source, target = graph.edge_index.detach().cpu().numpy()
    centre = _central_node(node)
    own = np.flatnonzero((source == centre) | (target == centre))
    place = _pixel_of_node(graph, node)
    apart = np.abs(place[source[own]] - place[target[own]])
    return int(max(2, np.nan_to_num(apart, nan=0).max(initial=0)))


def _magnified(graph: ImageGraph, node: Array, shape: tuple[int, int], reach: int) -> Array:
    """The pixels up to `reach` around the central one, their edges, and its own, in the lower left corner."""
    codes = _shaded(_resampled(node, shape))
    place, centre = _pixel_of_node(graph, node), _central_node(node)
    middle = place[centre].copy()
    place -= middle
    near: Array = np.all(np.abs(place) <= reach, axis=1)  # [N]
    source, target = graph.edge_index.detach().cpu().numpy()
    inside = np.flatnonzero(near[source])
    inside = inside[near[target[inside]]]
    ends = np.stack([source[inside], target[inside]], 1)

    side = round(0.45 * min(shape))
    cell = side / (2 * reach + 1)
    lines = (place[ends] + reach + 0.5) * cell  # [M, 2, (x, y)]
    own: Array = np.any(ends == centre, axis=1)
    faint = _drawn((side, side), lines[~own], np.empty((0, 2)), 1, 0)
    dots = (place[near] + reach + 0.5) * cell
    bold = _drawn((side, side), lines[own], dots, 2, max(2.0, cell / 12))
    box = np.where(faint // _EDGE % 4 > 1, _THIN, _SHADE)
    codes[shape[0] - side :, :side] = bold + box.astype(np.uint8)

    (x0, y0), (x1, y1) = np.round(np.stack([middle - reach, middle + reach + 1]) * (shape[1] / node.shape[1])).astype(
        int
    )
    marked = np.zeros(shape, bool)  # where it lies
    marked[max(y0, 0) : y1, max(x0, 0) : x1] = True
    line: Array = _grown(marked, 2) & ~marked
    codes[_grown(line) & ~line] = 2 * _RIM
    codes[line] = _BOLD
    return codes


def _palette() -> Array:
    """`[256, 4]`: red, green, blue and opacity of every code."""
    code = np.arange(256)
    colour, opacity = np.zeros((256, 3)), np.zeros((256, 1))
    ground = np.array([0, 0.55, 0.4, 1])[code % 4]
    layers = (
        (ground, np.array([_DARK, _DARK, _FAINT, _LINE])[code % 4]),
        (0.75 * (code // _RIM % 4) / 3, _DARK),
        ((code // _EDGE % 4) / 3, _LINE),
        ((code // _DOT % 4) / 3, _FAINT),
    )
    for strength, top in layers:
        alpha = np.asarray(strength)[:, None]
        colour = np.asarray(top) * alpha + colour * (1 - alpha)  # with opacity multiplied in
        opacity = alpha + opacity * (1 - alpha)
    return np.round(np.concatenate([colour / np.maximum(opacity, 1e-9), 255 * opacity], 1)).astype(np.uint8)


def _encoded(codes: Array) -> bytes:
    """PNG with a palette of the codes that occur."""
    from PIL import Image

    used = np.flatnonzero(np.bincount(codes.reshape(-1), minlength=256))
    place = np.zeros(256, np.uint8)
    place[used] = np.arange(len(used))
    colours = _palette()[used]
    picture = Image.fromarray(place[codes], "P")
    picture.putpalette(colours[:, :3].tobytes())
    bits = next(bits for bits in (1, 2, 4, 8) if len(used) <= 2**bits)
    file = io.BytesIO()
    picture.save(file, "PNG", bits=bits, transparency=colours[:, 3].tobytes())
    return file.getvalue()
