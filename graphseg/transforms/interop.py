"""To and from networkx graphs and scikit-image's region adjacency graphs (RAG)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

import graphseg
from graphseg._checks import check_integer, check_shape, check_tensor
from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph
from graphseg.ops.rag import edge_distance
from graphseg.transforms._base import add_provenance, unit_scale

if TYPE_CHECKING:
    import networkx as nx
    from skimage.graph import RAG

__all__ = ["from_networkx", "from_skimage_rag", "to_networkx", "to_skimage_rag"]

_RECORD = "fields"  # in g.graph: what each field was, which its values alone do not tell where there are none
_IMAGE_FIELDS = ("image_size", "pixel_y", "pixel_x", "source", "recipe", "recipe_hash")
_OWN = frozenset({"edge_index", "num_nodes", "assignment", "valid"})  # told by the graph itself and by `pixels`
_EDGE_NAMES = {"edge_weight": "weight"}  # ours: networkx's
_WIDTHS = {"boundary_percentiles": 3}  # columns of an edge feature, where there are several


def to_networkx(
    graph: ImageGraph,
    *,
    node_attrs: Sequence[str] | None = None,
    edge_attrs: Sequence[str] | None = None,
    directed: bool | None = None,
) -> nx.Graph:
    """An `ImageGraph` as a networkx graph that has all of it; `from_networkx` brings it back.

    Nodes are 0 to N - 1. Each has its row of every node field (`pos` as a tuple (x, y), which networkx draws by; rows
    of several values as numpy arrays, single values as Python numbers) and `pixels`, the numbers of its pixels. Edges
    have theirs, `edge_weight` under networkx's own name `weight`. Everything else is in `g.graph`. Nodes can be
    removed and renamed without losing their pixels.

    Args:
        graph: one graph.
        node_attrs: node fields to carry. Default: all.
        edge_attrs: edge fields to carry. Default: all.
        directed: whether to make a `DiGraph`. Default: only if some edge lacks its reverse, or differs from it in a
            carried field (as `centroid_angle` does).

    Returns:
        `networkx.Graph` or `networkx.DiGraph`.

    Raises:
        ValueError: for a batch or a hierarchy, an unknown field, an edge that occurs twice, or `directed=False` where
            the two directions differ.
    """
    import networkx as nx

    _check_single(graph)
    fields = {key: value for key, value in graph if key not in _OWN}
    of_edges = {k: v for k, v in fields.items() if graph.is_edge_attr(k) and graph.__cat_dim__(k, v) == 0}
    of_nodes = {k: v for k, v in fields.items() if graph.is_node_attr(k) and graph.__cat_dim__(k, v) == 0}
    of_image = {k: v for k, v in fields.items() if k not in of_edges and k not in of_nodes}
    of_nodes = _chosen("node_attrs", of_nodes, node_attrs)
    of_edges = _chosen("edge_attrs", of_edges, edge_attrs)
    if {"edge_weight", "weight"} <= of_edges.keys():
        raise ValueError("got both edge_weight and weight on the edges, expected one: networkx calls both weight")

    edge_index, order, reverse = _sorted_edges(graph)
    of_edges = {key: (_take(value, order), _take(value, reverse)) for key, value in of_edges.items()}
    differing = None if directed else _differing(graph, order, reverse, of_edges)
    if directed is False and differing is not None:
        raise ValueError(
            f"got edges that differ from their reverse ({differing}), expected equal ones or directed=True"
        )
    if directed is None:
        directed = differing is not None
    kept = slice(None) if directed else (edge_index[0] <= edge_index[1]).nonzero().squeeze(1)

    g = nx.DiGraph() if directed else nx.Graph()
    nodes = {key: _rows(key, value) for key, value in of_nodes.items()}
    nodes["pixels"] = _pixels(graph)
    g.add_nodes_from(zip(range(graph.num_nodes), _dicts(nodes), strict=True))
    edges = {
        "weight" if key == "edge_weight" else key: _rows(key, _take(value, kept))
        for key, (value, _) in of_edges.items()
    }
    pairs = edge_index[:, kept].T.tolist()
    g.add_edges_from((i, j, row) for (i, j), row in zip(pairs, _dicts(edges, len(pairs)), strict=True))
    for key, value in of_image.items():
        g.graph[key] = value.detach().cpu() if isinstance(value, Tensor) else value
    g.graph[_RECORD] = {
        "node": {key: _empty(value) for key, value in of_nodes.items()},
        "edge": {key: _empty(value) for key, (value, _) in of_edges.items()},
        "graph": tuple(of_image),
    }
    return g


def from_networkx(
    g: nx.Graph,
    *,
    assignment: Tensor | None = None,
    image_size: Sequence[int] | None = None,
    valid: Tensor | None = None,
) -> ImageGraph:
    """An `ImageGraph` of a networkx graph: one from `to_networkx`, changed or not, or any that knows its pixels.

    Nodes are numbered in the order in which `g` has them, whatever their names. An undirected edge gives both
    directions, a self-loop one edge; edges are in lexicographic order. Attributes that all nodes (or all edges) have
    become fields: numbers and arrays tensors (floating-point ones float32 if `to_networkx` did not see them), anything
    else lists; the edges' `weight` becomes `edge_weight`.

    Args:
        g: `Graph` or `DiGraph`. Its pixels are told by `pixels` on each node (their numbers, row by row) and
            `g.graph["image_size"]`, or by the arguments.
        assignment: `[H, W]` or `[P]` integers, the node of each pixel, as its place in the order of nodes.
        image_size: height and width.
        valid: bool, as `assignment`: False for pixels of no node. Only beside `assignment`.

    Returns:
        On the CPU, with `valid`: False for the pixels of no node.

    Raises:
        ValueError: if pixels or the image's size are not told, for an attribute that only some nodes (or edges) have,
            pixels of two nodes or out of range, or a multigraph.
    """
    if g.is_multigraph():
        raise ValueError(f"got a {type(g).__name__}, expected a Graph or DiGraph: an ImageGraph has each edge once")
    if valid is not None and assignment is None:
        raise ValueError(
            "got valid without assignment, expected both or neither: nodes' own pixels tell which are valid"
        )
    record = g.graph.get(_RECORD, {"node": {}, "edge": {}, "graph": ()})
    graph = ImageGraph(num_nodes=g.number_of_nodes())
    nodes = [attributes for _, attributes in g.nodes(data=True)]
    for key, value in _columns("nodes", nodes, record["node"]).items():
        if key != "pixels":
            graph[key] = value

    place = {name: i for i, name in enumerate(g)}
    found = list(g.edges(data=True))
    pairs = torch.tensor([(place[i], place[j]) for i, j, _ in found], dtype=torch.int64).view(-1, 2).T
    graph.edge_index, which = _directed_edges(pairs, len(nodes), both=not g.is_directed())
    for key, value in _columns("edges", [row for *_, row in found], record["edge"]).items():
        graph["edge_weight" if key == "weight" else key] = _take(value, which)

    for key in record["graph"] or _IMAGE_FIELDS:
        if key in g.graph:
            graph[key] = g.graph[key]
    H, W = _size(g, assignment, image_size)
    graph.image_size = torch.tensor([[H, W]])
    if assignment is None:
        graph.assignment, graph.valid = _assigned(list(g), nodes, H * W)
    else:
        graph.assignment = _flat("assignment", assignment, H, W).to(torch.int64)
        inside = torch.ones(H * W, dtype=torch.bool) if valid is None else _flat("valid", valid, H, W)
        graph.valid = inside
        graph.assignment = graph.assignment.where(inside, 0)
    graph.validate()
    return graph


def to_skimage_rag(graph: ImageGraph, image: Tensor | None = None) -> RAG:
    """An `ImageGraph` as scikit-image's `RAG`, for its cuts, merges and `show_rag`.

    Nodes have `labels` ([id]), `pixel count` and, with an image, `total color` and `mean color`. Every pair of nodes is
    one edge, in whichever direction it occurs; self-loops are left out. Edges have `weight`: `edge_weight` where the
    graph has it, else the Euclidean distance of mean colours, else 1; and `count`, where the recipe names `length`.
    The label map that goes with it is `graph.project(torch.arange(graph.num_nodes)).numpy()`.

    Args:
        graph: one graph.
        image: `[C, H, W]`; colours are in its units. Default: `pixel_x` (integer images scaled to [0, 1]), if kept.

    Returns:
        `skimage.graph.RAG` with nodes 0 to N - 1.

    Raises:
        ValueError: for a batch or a hierarchy, an image of another size, or a pair with two weights.
    """
    from skimage.graph import RAG

    _check_single(graph)
    N = graph.num_nodes
    pixels = graph.get("pixel_x") if image is None else _pixel_rows(graph, image)
    ones = torch.ones(graph.num_pixels, dtype=torch.int64, device=graph.assignment.device)
    columns: dict[str, Any] = {"labels": [[n] for n in range(N)], "pixel count": graph.pool(ones, "sum").tolist()}
    color = None
    if pixels is not None:
        total = graph.pool(pixels.detach().to(torch.float64), "sum")  # [N, C]
        count = torch.tensor(columns["pixel count"], dtype=torch.float64, device=total.device)
        color = total / count.clamp(min=1)[:, None]
        columns["total color"] = list(total.cpu().numpy())
        columns["mean color"] = list(color.cpu().numpy())
    pair, first, weight = _pairs(graph)
    if weight is None:
        weight = torch.ones(len(first)) if color is None else edge_distance(color, pair)
    rows = {"weight": weight.tolist()}
    length = _edge_feature(graph, "length")
    if length is not None:
        rows["count"] = length[first].round().to(torch.int64).tolist()

    rag = RAG()
    for n, row in enumerate(_dicts(columns)):
        rag.add_node(n, **row)
    rag.add_edges_from((i, j, row) for (i, j), row in zip(pair.T.tolist(), _dicts(rows), strict=True))
    return rag


def from_skimage_rag(rag: RAG, labels: Tensor | np.ndarray, image: Tensor | None = None) -> ImageGraph:
    """An `ImageGraph` of scikit-image's `RAG` and the label map that it was made from.

    Nodes come in the order of their labels. A node holds the pixels of all its `labels` (several after a merge); pixels
    whose label no node has belong to none. `edge_weight` comes from `weight`, `edge_attr [E, 1]` from `count`; both
    directions of every edge, in lexicographic order.

    Args:
        rag: nodes are named by labels.
        labels: `[H, W]` integers.
        image: `[C, H, W]`. With it `x [N, C]` is the nodes' mean (integer images scaled to [0, 1]). Default: `x` is
            the RAG's `mean color` as it stands, if it has one.

    Returns:
        On the CPU, with `pos`, `assignment` and `valid`.

    Raises:
        TypeError: if labels are not integers.
        ValueError: for labels that are not a map, an image of another size, a label of two nodes, or an attribute that
            only some nodes or edges have.
    """
    labels = check_tensor("labels", torch.as_tensor(labels)).cpu()
    check_integer("labels", labels)
    check_shape("labels", labels, (None, None))
    H, W = labels.shape
    names = sorted(rag)
    place = {name: i for i, name in enumerate(names)}
    assignment, valid = _claimed([rag.nodes[n].get("labels", [n]) for n in names], labels.to(torch.int64))
    graph = ImageGraph(num_nodes=len(names))
    graph.assignment, graph.valid = assignment, valid
    graph.image_size = torch.tensor([[H, W]])
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    centers = torch.stack([x, y], -1).view(-1, 2).to(torch.float64)
    graph.pos = graph.pool(centers).to(torch.float32)
    color = _columns("nodes", [rag.nodes[n] for n in names], {}, ("mean color",)).get("mean color")
    if image is not None:
        color = graph.pool(_pixel_rows(graph, image).to(torch.float64)) * unit_scale(image.dtype)
    if color is not None:
        graph.x = color.to(torch.float32)

    pairs = torch.tensor([(place[i], place[j]) for i, j in rag.edges], dtype=torch.int64).view(-1, 2).T
    graph.edge_index, which = _directed_edges(pairs, len(names), both=True)
    columns = _columns("edges", [row for *_, row in rag.edges(data=True)], {}, ("weight", "count"))
    if "weight" in columns:
        graph.edge_weight = columns["weight"][which].to(torch.float32)
    if "count" in columns:
        graph.edge_attr = columns["count"][which, None].to(torch.float32)
    recipe = {
        "graphseg": graphseg.__version__,
        "transform": "from_skimage_rag",
        "edge_features": ["length"] if "count" in columns else [],
    }
    add_provenance(graph, "", recipe)
    graph.validate()
    return graph


def _check_single(graph: ImageGraph) -> None:
    if not isinstance(graph, ImageGraph):
        raise TypeError(f"got {type(graph).__name__} for graph, expected an ImageGraph")
    if isinstance(graph, Batch):
        raise ValueError(f"got a batch of {graph.num_graphs} graphs, expected one: take it out by get_example(i)")
    if isinstance(graph, Hierarchy):
        raise ValueError("got a Hierarchy, expected one of its levels: level_graph(l)")


def _chosen(name: str, fields: dict[str, Any], wanted: Sequence[str] | None) -> dict[str, Any]:
    if wanted is None:
        return fields
    for key in wanted:
        if key not in fields:
            raise ValueError(f"got {key!r} in {name}, expected some of {', '.join(map(repr, fields)) or 'no field'}")
    return {key: fields[key] for key in wanted}


def _sorted_edges(graph: ImageGraph) -> tuple[Tensor, Tensor, Tensor]:
    """Edges in lexicographic order, where each stood, and where the k-th stood when all are reversed and sorted."""
    N = graph.num_nodes
    if graph.get("edge_index") is None:
        none = torch.empty(0, dtype=torch.int64)
        return none.view(2, 0), none, none
    source, target = graph.edge_index.detach().cpu()
    order = (source * N + target).argsort(stable=True)
    source, target = source[order], target[order]
    twice = ((source[1:] == source[:-1]) & (target[1:] == target[:-1])).nonzero()
    if twice.numel():
        k = int(twice[0])
        raise ValueError(f"got the edge ({int(source[k])}, {int(target[k])}) twice, expected each edge once (coalesce)")
    reverse = order[(target * N + source).argsort(stable=True)]
    return torch.stack([source, target]), order, reverse


def _directed_edges(pairs: Tensor, num_nodes: int, both: bool) -> tuple[Tensor, Tensor]:
    """Edges in lexicographic order, with `both` also reversed (self-loops not), and the pair that each comes from."""
    which = torch.arange(pairs.shape[1])
    if both:
        other = (pairs[0] != pairs[1]).nonzero().squeeze(1)
        pairs, which = torch.cat([pairs, pairs[:, other].flip(0)], 1), torch.cat([which, other])
    order = (pairs[0] * num_nodes + pairs[1]).argsort()
    return pairs[:, order], which[order]


def _differing(graph: ImageGraph, order: Tensor, reverse: Tensor, fields: dict[str, tuple[Any, Any]]) -> str | None:
    """What differs between the two directions of some edge: a missing reverse, or the name of a field."""
    if order.numel() == 0:
        return None
    edge_index = graph.edge_index.cpu()
    if not torch.equal(edge_index[:, order], edge_index.flip(0)[:, reverse]):
        return "a reverse is missing"
    for key, (one, other) in fields.items():
        if isinstance(one, Tensor):
            same = (one == other) | ((one != one) & (other != other))  # NaN equals NaN here
            if not bool(same.all()):
                return key
        elif one != other:
            return key
    return None


def _take(value: Any, ids: Tensor | slice) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()[ids]
    return list(value)[ids] if isinstance(ids, slice) else [value[i] for i in ids.tolist()]


def _empty(value: Any) -> Any:
    return value.detach().cpu()[:0].clone() if isinstance(value, Tensor) else []


def _rows(key: str, value: Any) -> list[Any]:
    if not isinstance(value, Tensor):
        return list(value)
    value = value.detach().cpu()
    if value.dim() == 1:
        return value.tolist()
    if key == "pos":
        return [tuple(point) for point in value.tolist()]
    if value.dtype == torch.bfloat16:  # numpy has none
        value = value.to(torch.float32)
    return list(value.numpy().copy())


def _dicts(columns: dict[str, list[Any]], count: int = 0) -> list[dict[str, Any]]:
    """Columns to rows; `count` empty ones where there are no columns."""
    if not columns:
        return [{} for _ in range(count)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _pixels(graph: ImageGraph) -> list[np.ndarray]:
    """The pixels of each node, in rising order."""
    assignment = graph.assignment.cpu().numpy()
    valid = graph.get("valid")
    inside = np.arange(len(assignment)) if valid is None else np.flatnonzero(valid.cpu().numpy())
    order = inside[np.argsort(assignment[inside], kind="stable")]
    counts = np.bincount(assignment[inside], minlength=graph.num_nodes)
    return [part.copy() for part in np.split(order, np.cumsum(counts)[:-1])] if graph.num_nodes else []


def _columns(
    kind: str, rows: list[dict[str, Any]], record: dict[str, Any], wanted: Sequence[str] | None = None
) -> dict[str, Any]:
    """The attributes of nodes or edges as one value each; ValueError for one that only some of them have."""
    if not rows:
        return dict(record)
    have: dict[str, int] = {}
    for row in rows:
        for key in row:
            have[key] = have.get(key, 0) + 1
    columns = {}
    for key, count in have.items():
        if key == "pixels" or (wanted is not None and key not in wanted):
            continue
        if count != len(rows):
            raise ValueError(f"got {key!r} on {count} of {len(rows)} {kind}, expected it on all of them or on none")
        name = "edge_weight" if key == "weight" else key
        columns[key] = _column(key, [row[key] for row in rows], record.get(name))
    return columns


def _column(key: str, values: list[Any], empty: Any) -> Any:
    if isinstance(empty, list):
        return values
    try:
        stacked = np.array(values)
    except ValueError as error:
        raise ValueError(f"got values of different shapes for {key!r}, expected one shape") from error
    if stacked.dtype.kind not in "biufc":
        return values
    found = torch.from_numpy(stacked)
    if isinstance(empty, Tensor):
        as_it_was = found.to(empty.dtype)
        if empty.is_floating_point() or torch.equal(as_it_was.to(found.dtype), found):  # else it was changed since
            return as_it_was
    return found.to(torch.float32) if found.is_floating_point() else found


def _size(g: nx.Graph, assignment: Tensor | None, image_size: Sequence[int] | None) -> tuple[int, int]:
    size: Any = image_size
    if size is None and assignment is not None and check_tensor("assignment", assignment).dim() == 2:
        size = assignment.shape
    if size is None:
        size = g.graph.get("image_size")
    if size is None:
        raise ValueError("got no image_size in g.graph, expected it there or as an argument image_size=(height, width)")
    values = torch.as_tensor(size).reshape(-1).tolist()
    if len(values) != 2:
        raise ValueError(f"got image_size={values}, expected (height, width)")
    return int(values[0]), int(values[1])


def _flat(name: str, value: Tensor, height: int, width: int) -> Tensor:
    value = check_tensor(name, value).detach().cpu()
    if tuple(value.shape) not in ((height, width), (height * width,)):
        raise ValueError(
            f"got shape {list(value.shape)} for {name}, expected [{height}, {width}] or [{height * width}]"
        )
    if name == "assignment":
        check_integer(name, value)
    return value.reshape(-1)


def _assigned(names: list[Any], nodes: list[dict[str, Any]], num_pixels: int) -> tuple[Tensor, Tensor]:
    """`assignment` and `valid` from the pixels of each node."""
    for name, row in zip(names, nodes, strict=True):
        if "pixels" not in row:
            raise ValueError(f"got no pixels on node {name!r}, expected them on every node or the argument assignment=")
    parts = [np.asarray(row["pixels"], dtype=np.int64).reshape(-1) for row in nodes]
    pixels = torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0, dtype=torch.int64)
    if pixels.numel() and (int(pixels.min()) < 0 or int(pixels.max()) >= num_pixels):
        raise ValueError(f"got pixels from {int(pixels.min())} to {int(pixels.max())}, expected 0 to {num_pixels - 1}")
    owners = torch.bincount(pixels, minlength=num_pixels)
    if pixels.numel() and int(owners.max()) > 1:
        raise ValueError(f"got pixel {int(owners.argmax())} on {int(owners.max())} nodes, expected it on one")
    node = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts], dtype=torch.int64))
    assignment = torch.zeros(num_pixels, dtype=torch.int64)
    assignment[pixels] = node
    return assignment, owners > 0


def _claimed(claims: list[Sequence[int]], labels: Tensor) -> tuple[Tensor, Tensor]:
    """`assignment` and `valid` from the labels that each node claims."""
    label = torch.tensor([int(v) for claim in claims for v in claim], dtype=torch.int64)
    counts = torch.tensor([len(claim) for claim in claims], dtype=torch.int64)
    node = torch.arange(len(claims)).repeat_interleave(counts)
    label, order = label.sort()
    node = node[order]
    twice = (label[1:] == label[:-1]).nonzero()
    if twice.numel():
        raise ValueError(f"got label {int(label[twice[0]])} on two nodes, expected it on one")
    flat = labels.reshape(-1).contiguous()
    if label.numel() == 0:
        return torch.zeros_like(flat), torch.zeros_like(flat, dtype=torch.bool)
    at = torch.searchsorted(label, flat).clamp(max=label.numel() - 1)
    valid = label[at] == flat
    return node[at].where(valid, 0), valid


def _pixel_rows(graph: ImageGraph, image: Tensor) -> Tensor:
    """`[C, H, W]` to `[P, C]`, on the graph's device."""
    H, W = graph.image_size[0].tolist()
    check_shape("image", check_tensor("image", image), (None, H, W))
    return image.detach().to(graph.assignment.device).flatten(1).T


def _pairs(graph: ImageGraph) -> tuple[Tensor, Tensor, Tensor | None]:
    """Each pair of different nodes once `[2, M]`, the edge that stands for it, and its weight."""
    N = graph.num_nodes
    edge_index = graph.edge_index.detach()
    edge = (edge_index[0] != edge_index[1]).nonzero().squeeze(1)
    low, high = edge_index[:, edge].amin(0), edge_index[:, edge].amax(0)
    key, order = torch.sort(low * N + high, stable=True)
    edge = edge[order]
    start = torch.ones_like(key, dtype=torch.bool)
    start[1:] = key[1:] != key[:-1]
    first = edge[start]
    pair = torch.stack([key[start] // max(N, 1), key[start] % max(N, 1)])
    weight = graph.get("edge_weight")
    if weight is None:
        return pair, first, None
    weight = weight.detach()
    differs = (weight[first][start.cumsum(0) - 1] != weight[edge]).nonzero()
    if differs.numel():
        i, j = edge_index[:, edge[differs[0, 0]]].tolist()
        raise ValueError(f"got two values of edge_weight between nodes {i} and {j}, expected one per pair")
    return pair, first, weight[first]


def _edge_feature(graph: ImageGraph, name: str) -> Tensor | None:
    """The column of `edge_attr` that the recipe calls `name`."""
    edge_attr = graph.get("edge_attr")
    names = json.loads(graph.get("recipe") or "{}").get("edge_features", [])
    widths = [_WIDTHS.get(n, 1) for n in names]
    if edge_attr is None or name not in names or edge_attr.dim() != 2 or sum(widths) != edge_attr.shape[1]:
        return None
    return edge_attr.detach()[:, sum(widths[: names.index(name)])]
