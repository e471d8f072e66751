"""Measures of one graph of one image: what it costs, what it keeps of the image and the labels, how it is built.

All of them are those of the graph as a GNN runs on it: of a `Hierarchy` children and parents are neighbours, too, and
what is measured in pixels is read at the finest level. Pixels as nodes go the same way as regions, as a label map of
single pixels: purity, explained variation and boundary recall are then 1, compactness is pi / 4, by the same functions.

Structure does not depend on how the nodes are numbered, bit for bit: nodes are put in the order of their first pixels
before anything is drawn or summed. For it edges count in both directions, once, and no node is its own neighbour.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphseg._checks import check_integer, check_positive_int, check_shape, check_tensor, is_integer
from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph
from graphseg.metrics import (
    boundary_precision,
    boundary_recall,
    compactness,
    explained_variation,
    undersegmentation_error,
)
from graphseg.ops.pooling import pool

__all__ = ["LAYERS", "measure_graph", "message_edges"]

LAYERS = (1, 2, 3)  # k of reach_k
DENSE_NODES = 64  # up to so many the whole spectrum is computed
EXACT_EDGES = 100_000  # up to so many, both directions counted, the Laplacian is factorised
WAVES = 3  # for larger graphs: cosines along each axis,
PIVOTS = 3  # nodes far from each other,
SMOOTHING = 10  # and rounds of smoothing


def measure_graph(
    graph: ImageGraph,
    data: Data,
    *,
    ignore_index: int | None = None,
    num_sources: int = 16,
    seed: int = 0,
) -> dict[str, float]:
    """All measures of one graph, by name; NaN where one is not defined (a spectral gap of one node, say).

    Cost:
        nodes: N.
        edges: directed edges, those between the levels of a hierarchy included.
        mean_degree: edges / nodes.
        bytes_memory: of all tensors of the graph that it does not share with `data`.
    Image:
        explained_variation, compactness: of the map of nodes, see `graphseg.metrics`.
        components: connected components of the graph; nodes without a pixel and without an edge are none.
    Labels, with a mask or annotations (without them these are left out):
        purity: the share of a node's labelled pixels that have its majority label, mean over nodes that have any.
        oracle_accuracy, oracle_miou: of giving each node its majority label, see `ImageGraph.oracle`.
        boundary_recall, boundary_precision, undersegmentation_error: see `graphseg.metrics`.
        homophily: h, the share of edges between nodes of the same majority label, of edges between labelled nodes.
        adjusted_homophily: (h - s) / (1 - s) with s = sum_k (D_k / 2E)^2, D_k the degrees of label k added up: 0 for
            edges that do not heed the labels, however the labels are shared out (Platonov et al., "Characterizing graph
            datasets for node classification", NeurIPS 2023).
        boundary_edges: 1 - homophily, the share of those edges that join nodes of different labels.
    Structure:
        path_length: mean hops from `num_sources` random nodes to all other nodes that can be reached; over all pairs
            where there are no more nodes than that.
        spectral_gap: the second smallest eigenvalue of I - D^(-1/2) A D^(-1/2) on the largest component (of equals the
            one with the first pixel): near 0 where a few edges hold large parts together. Up to 100,000 edges to the
            precision of float64. On larger graphs an upper bound: the smallest Rayleigh quotient, orthogonal to the
            first eigenvector, over cosines of the nodes' positions and of their distances from three nodes far apart.
            On a pixel grid of 321 x 481 it is 1e-6 above the true value, relatively; where a large graph leaps over
            the image, joining pixels of like colours, say, it may be twice that or more.
        reach_1, reach_2, reach_3: how far, in pixels, a GNN of k layers sees: the radius of the disc whose pixels are
            as far from its centre, in the root mean square, as those of the k-hop neighbourhood of a node are from the
            node's centroid: sqrt(2 * mean |p - c|^2), mean over the nodes of `num_sources` random pixels. So a distant
            neighbour counts for where it is, a large one for its size, and no single far pixel decides. It is
            sqrt(4/3 k (k+1) (k^2+k+1) / (2k^2+2k+1)) on a 4-connected grid, sqrt(4/3 k (k+1)) on an 8-connected one.
            The pixels are the same for all graphs of an image.

    Args:
        graph: what a construction made of `data`.
        data: `image [C, H, W]`, and what labels there are: `mask [H, W]`, or `annotations [A, H, W]`, the maps of
            several people, -1 where somebody drew nothing. Annotations come before a mask: every measure of labels is
            taken for each map, its values as labels, and their mean is given; maps without a pixel of a node are left
            out. Without both, the graph's own `pixel_y` serves as the mask, or else its `label_counts` for what needs
            no map.
        ignore_index: mask value that counts for no class; None if there is none.
        num_sources: random nodes for path_length, and random pixels for reach_k.
        seed: for drawing them.

    Raises:
        TypeError: for a graph that is no ImageGraph, or labels that are not integers.
        ValueError: for a batch, or sizes that do not fit.
    """
    _check_arguments(graph, data, ignore_index, num_sources)
    found = cost_measures(graph, data)
    graph = copy.copy(graph).to("cpu")
    network = _network(graph)
    found |= image_measures(graph, data.image.detach().cpu())
    found["components"] = float(network.component.max(initial=-1) + 1)
    found |= label_measures(graph, data, network, ignore_index)
    found |= structure_measures(network, num_sources, seed)
    return found


def message_edges(graph: ImageGraph) -> Tensor:
    """`[2, E]`: the edges that a GNN sends messages along: `edge_index`, and between the levels of a `Hierarchy`.

    Args:
        graph: of one image or a batch.
    """
    edge_index = graph.get("edge_index")
    if edge_index is None:
        edge_index = torch.empty(2, 0, dtype=torch.int64)
    if isinstance(graph, Hierarchy):
        up = graph.vertical_edges()
        edge_index = torch.cat([edge_index, up, up.flip(0)], 1)
    return edge_index


def cost_measures(graph: ImageGraph, data: Data) -> dict[str, float]:
    """Nodes, edges and bytes; what `data` holds itself is no cost of the graph."""
    nodes, edges = graph.num_nodes, message_edges(graph).size(1)
    tensors = [value for key, value in graph if isinstance(value, Tensor) and value is not data.get(key)]
    return {
        "nodes": float(nodes),
        "edges": float(edges),
        "mean_degree": edges / nodes if nodes else math.nan,
        "bytes_memory": float(sum(value.numel() * value.element_size() for value in tensors)),
    }


def image_measures(graph: ImageGraph, image: Tensor) -> dict[str, float]:
    """Explained variation and compactness of the map of nodes."""
    labels, valid = _node_map(graph)
    if not bool(valid.any()):
        return {"explained_variation": math.nan, "compactness": math.nan}
    return {
        "explained_variation": float(explained_variation(labels, image, valid)),
        "compactness": float(compactness(labels, valid)),
    }


# Labels.


@dataclass(frozen=True)
class _Pairs:
    """Which labels the pixels of which nodes have: `count [K]` pixels for pairs that occur, by node, then label."""

    node: Tensor
    label: Tensor
    count: Tensor
    num_nodes: int

    def total(self) -> Tensor:
        """`[N]`: labelled pixels."""
        return pool(self.count, self.node, self.num_nodes, "sum")

    def largest(self) -> Tensor:
        """`[N]`: those of the majority label."""
        return pool(self.count, self.node, self.num_nodes, "max")

    def majority(self) -> Tensor:
        """`[N]`: the most frequent label, of equals the smallest; -1 where there is none."""
        best = self.count == self.largest()[self.node]
        label = pool(self.label[best], self.node[best], self.num_nodes, "min")
        return label.where(self.total() > 0, -1)


def label_measures(graph: ImageGraph, data: Data, network: _Network, ignore_index: int | None) -> dict[str, float]:
    """What depends on labels; nothing without them."""
    maps = _label_maps(graph, data, ignore_index)
    if maps is None and graph.get("label_counts") is None:
        return {}
    finest = _finest_nodes(graph)
    if maps is None:
        counts = graph.label_counts.to(torch.int64)
        node, label = counts.nonzero().unbind(1)
        pairs = [_Pairs(node, label, counts[node, label], graph.num_nodes)]
    else:
        nodes = _node_columns(graph)
        pairs = [_count_pairs(nodes, *one, graph.num_nodes) for one in zip(*maps, strict=True)]
    found = []
    for one in pairs:
        label = one.majority()
        found.append({**_oracle(one, label, finest), **_homophily(label.numpy()[network.nodes], network)})
    means = {key: _mean([one[key] for one in found]) for key in found[0]} if found else _no_labels()
    return means if maps is None else {**means, **_boundaries(graph, *maps)}


def _label_maps(graph: ImageGraph, data: Data, ignore_index: int | None) -> tuple[Tensor, Tensor] | None:
    """Maps `[A, H, W]` and which of their pixels count; maps of none are left out. None without maps."""
    H, W = (int(s) for s in graph.image_size[0])
    name, value = "annotations", data.get("annotations")
    if value is not None:
        check_shape(name, check_tensor(name, value), (None, H, W))
    elif data.get("mask") is not None:
        name, value = "mask", check_tensor("mask", data.mask)
        check_shape(name, value, (H, W))
    elif graph.get("pixel_y") is not None:
        name, value = "pixel_y", graph.pixel_y.view(H, W)
    if value is None:
        return None
    if value.dtype != torch.bool:
        check_integer(name, value)
    maps = value.detach().cpu().to(torch.int64).reshape(-1, H, W).contiguous()
    counted = _node_map(graph)[1].expand(maps.shape)
    if name == "annotations":
        counted = counted & (maps >= 0)
    elif ignore_index is not None:
        counted = counted & (maps != ignore_index)
    some = counted.flatten(1).any(1)
    return maps[some], counted[some]


def _count_pairs(columns: Tensor, target: Tensor, counted: Tensor, num_nodes: int) -> _Pairs:
    """`columns [L, P]` are the nodes of every pixel."""
    inside = counted.view(-1)
    label = target.view(-1)[inside]  # any whole numbers: nothing but their equality and order is read
    label = label - label.min()
    if int(label.max()) >= label.numel():
        label = torch.unique(label, return_inverse=True)[1]
    K = int(label.max()) + 1
    key = (columns[:, inside] * K + label).view(-1)
    if num_nodes * K <= 4 * key.numel():
        table = torch.bincount(key, minlength=num_nodes * K)
        pair = table.nonzero().view(-1)
        count = table[pair]
    elif bool((key[1:] > key[:-1]).all()):  # pixels as nodes
        pair, count = key, torch.ones_like(key)
    else:
        pair, count = torch.unique(key, return_counts=True)
    return _Pairs(pair.div(K, rounding_mode="floor"), pair % K, count, num_nodes)


def _oracle(pairs: _Pairs, majority: Tensor, finest: Tensor) -> dict[str, float]:
    """Purity, and accuracy and mean IoU of the majority label, over the nodes `finest` (bool `[N]`)."""
    total, largest = pairs.total()[finest], pairs.largest()[finest]
    known = total > 0
    if not bool(known.any()):
        return {"purity": math.nan, "oracle_accuracy": math.nan, "oracle_miou": math.nan}
    own = finest[pairs.node]
    node, true, count = pairs.node[own], pairs.label[own], pairs.count[own]
    given = majority[node]
    K = int(true.max()) + 1
    right = pool(count.where(given == true, 0), true, K, "sum")
    here = pool(count, true, K, "sum")
    union = here + pool(count, given, K, "sum") - right
    occurs = here > 0
    return {
        "purity": float((largest[known].double() / total[known]).mean()),
        "oracle_accuracy": int(largest.sum()) / int(total.sum()),
        "oracle_miou": float((right[occurs].double() / union[occurs]).mean()),
    }


def _homophily(label: np.ndarray, network: _Network) -> dict[str, float]:
    """Plain and adjusted, of the edges between labelled nodes (`label [M]`, -1 for none)."""
    source, target = label[network.pairs[0]], label[network.pairs[1]]
    both = (source >= 0) & (target >= 0)
    E = int(both.sum())
    if E == 0:
        return {"homophily": math.nan, "adjusted_homophily": math.nan, "boundary_edges": math.nan}
    same = int(((source == target) & both).sum()) / E
    if (label >= 0).all():
        degree = np.bincount(label, network.degree)  # of each label
    else:
        degree = np.bincount(np.concatenate([source[both], target[both]]))
    chance = math.fsum((degree / (2 * E)) ** 2)
    return {
        "homophily": same,
        "adjusted_homophily": (same - chance) / (1 - chance) if chance < 1 else math.nan,
        "boundary_edges": 1 - same,
    }


def _boundaries(graph: ImageGraph, maps: Tensor, counted: Tensor) -> dict[str, float]:
    """Means over maps."""
    names = ("boundary_recall", "boundary_precision", "undersegmentation_error")
    if len(maps) == 0:
        return dict.fromkeys(names, math.nan)
    labels = _node_map(graph)[0].expand(maps.shape)
    recall = boundary_recall(labels, maps, valid=counted)
    precision = boundary_precision(labels, maps, valid=counted)
    error = undersegmentation_error(labels, maps, valid=counted)
    values = (recall, precision, error)
    return {name: _mean(value.tolist()) for name, value in zip(names, values, strict=True)}


def _no_labels() -> dict[str, float]:
    names = ("purity", "oracle_accuracy", "oracle_miou", "homophily", "adjusted_homophily", "boundary_edges")
    return dict.fromkeys(names, math.nan)


def _mean(values: list[float]) -> float:
    """Of those that are defined; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


# Structure.


@dataclass(frozen=True)
class _Network:
    """A graph as sparse matrices, its M nodes in the order of their first pixels, coarse before fine.

    Args:
        nodes: `[M]`, the ids of the nodes; those without pixels and edges are left out.
        adjacency: `[M, M]`, symmetric with ones.
        pairs: `[2, E]`, its edges, each once.
        members: `[M, P]`, a one for every pixel of a node.
        sources: the node of every pixel that has one, by rising pixel.
        centre: `[M, 2]`, the centroids (x, y); 0 without pixels.
        component: `[M]`, the number of each node's connected component.
        width: of the image.
    """

    nodes: np.ndarray
    adjacency: Any
    pairs: np.ndarray
    members: Any
    sources: np.ndarray
    centre: np.ndarray
    component: np.ndarray
    width: int

    @property
    def degree(self) -> np.ndarray:
        """`[M]`."""
        return np.diff(self.adjacency.indptr)


def structure_measures(network: _Network, num_sources: int, seed: int) -> dict[str, float]:
    """Path length, spectral gap and reach."""
    found = {
        "path_length": _path_length(network.adjacency, num_sources, seed),
        "spectral_gap": _spectral_gap(network),
    }
    return found | _reach(network, num_sources, seed)


def _network(graph: ImageGraph) -> _Network:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    N, P = graph.num_nodes, graph.num_pixels
    columns = _node_columns(graph).numpy()  # [L, P]
    inside = _node_map(graph)[1].view(-1).numpy().nonzero()[0]
    edges = message_edges(graph).numpy()
    edges = edges[:, edges[0] != edges[1]] if (edges[0] == edges[1]).any() else edges

    # Places (pixel, level) in order, and the first one of each node: of repeated indices the last assignment stays.
    L = len(columns)
    node = columns[:, inside].T.ravel()
    place = (inside[:, None] * L + np.arange(L)).ravel()
    first = np.full(N, P * L)
    first[node[::-1]] = place[::-1]
    linked = np.zeros(N, bool)
    linked[edges] = True
    kept = ((first < P * L) | linked).nonzero()[0]
    kept = kept[np.argsort(first[kept], kind="stable")]
    M = kept.size
    rank = np.zeros(N, np.int32)
    rank[kept] = np.arange(M, dtype=np.int32)

    adjacency = csr_array((np.ones(edges.shape[1]), (rank[edges[0]], rank[edges[1]])), shape=(M, M))
    adjacency = adjacency + adjacency.T
    adjacency.data[:] = 1
    row = np.repeat(np.arange(M, dtype=np.int32), np.diff(adjacency.indptr))
    pairs = np.stack([row, adjacency.indices])[:, row < adjacency.indices]
    pixel = place // L
    members = csr_array((np.ones(node.size), (rank[node], pixel)), shape=(M, P))
    W = int(graph.image_size[0, 1])
    y, x = np.divmod(np.arange(P), W)
    area = np.maximum(np.diff(members.indptr), 1)[:, None]
    centre = (members @ np.stack([x, y], 1).astype(np.float64)) / area
    component = connected_components(adjacency, directed=False)[1] if M else np.empty(0, np.int32)
    return _Network(kept, adjacency, pairs, members, rank[columns[-1, inside]], centre, component, W)


def _path_length(adjacency: Any, num_sources: int, seed: int) -> float:
    """Mean hops between the pairs (source, node within reach)."""
    hops = pairs = 0
    for source in np.random.default_rng(seed).permutation(adjacency.shape[0])[:num_sources]:
        sizes = _rings(adjacency, int(source))[1]
        hops += int(sizes @ np.arange(sizes.size))
        pairs += int(sizes[1:].sum())
    return hops / pairs if pairs else math.nan


def _rings(adjacency: Any, source: int) -> tuple[np.ndarray, np.ndarray]:
    """The nodes within reach of `source`, by rising distance, and how many there are at each distance from 0."""
    from scipy.sparse.csgraph import breadth_first_order

    order, parent = breadth_first_order(adjacency, source)
    place = np.empty(adjacency.shape[0], np.int64)
    place[order] = np.arange(order.size)
    before = place[parent[order[1:]]]  # places of the parents; they never fall
    ends = [0, 1]
    while ends[-1] < order.size:
        ends.append(1 + int(before.searchsorted(ends[-1])))
    return order, np.diff(ends)


def _spectral_gap(network: _Network) -> float:
    """See `measure_graph`."""
    from scipy.sparse import diags_array, eye_array

    if network.component.size == 0:
        return math.nan
    nodes = (network.component == np.bincount(network.component).argmax()).nonzero()[0]
    n = nodes.size
    if n < 2:
        return math.nan
    adjacency = network.adjacency if n == network.component.size else network.adjacency[nodes][:, nodes]
    root = np.sqrt(np.diff(adjacency.indptr))  # the eigenvector of eigenvalue 0, and > 0
    scale = diags_array(1 / root)
    similarity = (scale @ adjacency @ scale).tocsr()
    if n <= DENSE_NODES:
        return max(0.0, 1 - float(np.linalg.eigvalsh(similarity.toarray())[-2]))
    if adjacency.nnz <= EXACT_EDGES:
        return _exact_gap(eye_array(n, format="csc") - similarity.tocsc(), root)
    return _bounded_gap(adjacency, similarity, root, network.centre[nodes])


def _exact_gap(laplacian: Any, root: np.ndarray) -> float:
    """By inverse iteration, for which I - S plus a little is factorised."""
    from scipy.sparse.linalg import eigsh

    start = root + np.cos(np.arange(root.size))  # any fixed vector with a part in every direction
    values = eigsh(laplacian, k=2, sigma=-1e-3, which="LM", v0=start, return_eigenvectors=False)
    return max(0.0, float(values.max()))


def _bounded_gap(adjacency: Any, similarity: Any, root: np.ndarray, centre: np.ndarray) -> float:
    """The smallest Rayleigh quotient of I - S over a small space that is orthogonal to `root`."""
    low, high = centre.min(0), centre.max(0)
    angle = math.pi * (centre - low + 0.5) / (high - low + 1)  # [n, 2]
    along = [np.cos(k * angle) for k in range(WAVES)]
    waves = [along[i][:, 0] * along[j][:, 1] for i in range(WAVES) for j in range(WAVES) if i or j]
    paths = _distance_waves(adjacency) * root[:, None]
    for _ in range(SMOOTHING):
        paths = (paths + similarity @ paths) / 2
    basis = np.concatenate([np.stack(waves, 1) * root[:, None], paths], 1)
    before = np.linalg.norm(basis, axis=0)
    unit = root / np.linalg.norm(root)
    basis -= unit[:, None] * (unit @ basis)
    length = np.linalg.norm(basis, axis=0)
    basis = basis[:, length > 1e-6 * before] / length[length > 1e-6 * before]
    weight, turn = np.linalg.eigh(basis.T @ basis)
    white = turn[:, weight > 1e-8] / np.sqrt(weight[weight > 1e-8])  # basis @ white is orthonormal
    quotients = np.linalg.eigvalsh(white.T @ (basis.T @ (similarity @ basis)) @ white)
    return max(0.0, 1 - float(quotients[-1]))


def _distance_waves(adjacency: Any) -> np.ndarray:
    """`[n, 2 * PIVOTS]`: half a cosine and a whole one of the hops from each of some nodes that lie far apart."""
    n = adjacency.shape[0]
    pivot = int(_rings(adjacency, 0)[0][-1])
    nearest = np.full(n, n)
    columns = []
    for _ in range(PIVOTS):
        order, sizes = _rings(adjacency, pivot)
        hops = np.empty(n, np.int64)
        hops[order] = np.repeat(np.arange(sizes.size), sizes)
        angle = math.pi * (hops + 0.5) / sizes.size
        columns += [np.cos(angle), np.cos(2 * angle)]
        nearest = np.minimum(nearest, hops)
        pivot = int(nearest.argmax())
    return np.stack(columns, 1)


def _reach(network: _Network, num_sources: int, seed: int) -> dict[str, float]:
    """See `measure_graph`."""
    from scipy.sparse import csr_array

    if network.sources.size == 0:
        return {f"reach_{k}": math.nan for k in LAYERS}
    node = network.sources[np.random.default_rng(seed).permutation(network.sources.size)[:num_sources]]
    S, M = node.size, network.adjacency.shape[0]
    near = csr_array((np.ones(S), (np.arange(S), node)), shape=(S, M))
    found = {}
    for k in range(1, max(LAYERS) + 1):
        near = near + near @ network.adjacency
        near.data[:] = 1
        if k in LAYERS:
            seen = (near @ network.members).tocoo()  # a pixel that is seen at several levels is one entry
            y, x = np.divmod(seen.col, network.width)
            square = (x - network.centre[node[seen.row], 0]) ** 2 + (y - network.centre[node[seen.row], 1]) ** 2
            mean = np.bincount(seen.row, square, minlength=S) / np.bincount(seen.row, minlength=S)
            found[f"reach_{k}"] = float(np.sqrt(2 * mean).mean())
    return found


# Reading the graph.


def _check_arguments(graph: ImageGraph, data: Data, ignore_index: int | None, num_sources: int) -> None:
    if not isinstance(graph, ImageGraph):
        raise TypeError(f"got {type(graph).__name__} for graph, expected an ImageGraph")
    if isinstance(graph, Batch):
        raise ValueError("got a batch of graphs, expected one (take it out by get_example)")
    check_positive_int("num_sources", num_sources)
    if ignore_index is not None and not is_integer(ignore_index):
        raise TypeError(f"got {type(ignore_index).__name__} for ignore_index, expected an int or None")
    H, W = (int(s) for s in graph.image_size[0])
    check_shape("image", check_tensor("image", data.get("image")), (None, H, W))


def _node_map(graph: ImageGraph) -> tuple[Tensor, Tensor]:
    """The (finest) node of every pixel `[H, W]`, and which pixels have one."""
    H, W = (int(s) for s in graph.image_size[0])
    valid = graph.get("valid")
    if valid is None:
        valid = torch.ones(H * W, dtype=torch.bool)
    return graph.assignment.view(H, W), valid.view(H, W)


def _node_columns(graph: ImageGraph) -> Tensor:
    """`[L, P]`: the node of every pixel at every level, coarse to fine; read for pixels that have one only."""
    return graph.scale_assignment.T if isinstance(graph, Hierarchy) else graph.assignment[None]


def _finest_nodes(graph: ImageGraph) -> Tensor:
    """bool `[N]`."""
    if isinstance(graph, Hierarchy):
        return graph.level == graph.num_levels - 1
    return torch.ones(graph.num_nodes, dtype=torch.bool)
