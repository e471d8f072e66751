"""Hierarchy: partitions of one image at several scales, coarse to fine, as one graph."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, HeteroData

from graphseg._checks import check_integer, check_shape, check_tensor
from graphseg.data.image_graph import ImageGraph, oracle_scores
from graphseg.ops.grid import grid_edges
from graphseg.ops.pooling import pool

__all__ = ["Hierarchy"]


class Hierarchy(ImageGraph):
    """An `ImageGraph` whose nodes are the regions of L scales, those of the coarsest scale (level 0) first.

    Edges join neighbours within a level. `assignment` leads to the finest level. Beside `ImageGraph`'s fields:
        level: `[N]` int64, 0 for the coarsest.
        parent: `[N]` int64, the node one level up that holds a node (most of it, where the scales are not nested);
            of level 0 the node itself.
        scale_assignment: `[P, L]` int64, the node of each pixel at every level, coarse to fine.
        level_sizes: `[1, L]` int64, the nodes in each level.
    """

    _node_ids = frozenset({"assignment", "parent", "scale_assignment"})

    @property
    def num_levels(self) -> int:
        """L."""
        return int(self.level_sizes.size(1))

    def pool(self, values: Tensor, reduce: str = "mean") -> Tensor:
        """As `ImageGraph.pool`; the nodes of every level get the value of their own pixels."""
        rows = self._pixel_rows(check_tensor("values", values))
        columns = self.scale_assignment.unbind(1)
        parts = [pool(rows, column, self.num_nodes, reduce, valid=self.valid) for column in columns]
        return torch.stack(parts).sum(0).to(parts[0].dtype)  # 0 for the nodes of other levels

    def oracle(self) -> dict[str, float]:
        """As `ImageGraph.oracle`, of the finest level; for another take `level_graph(l).oracle()`."""
        return oracle_scores(self._label_counts()[self.level == self.num_levels - 1])

    def vertical_edges(self) -> Tensor:
        """`[2, N - N_0]`: from every node below level 0 to its parent."""
        below = (self.level > 0).nonzero().squeeze(1)
        return torch.stack([below, self.parent[below]])

    def level_graph(self, level: int) -> ImageGraph:
        """One scale as a graph of its own, its nodes numbered from 0.

        Raises:
            ValueError: for a level that does not exist, or on a batch (`get_example` takes one image out of it).
        """
        if isinstance(self, Batch):
            raise ValueError("got a batch of hierarchies, expected one (take it out by get_example)")
        if not 0 <= level < self.num_levels:
            raise ValueError(f"got level {level}, expected 0 to {self.num_levels - 1}")
        ids = (self.level == level).nonzero().squeeze(1)
        start = int(self.level_sizes[0, :level].sum())
        own = {"level", "parent", "scale_assignment", "level_sizes", "assignment", "edge_index", "num_nodes"}
        graph = ImageGraph(num_nodes=ids.numel())
        inside = (self.level[self.edge_index[0]] == level).nonzero().squeeze(1)
        for key, value in self:
            if key in own:
                continue
            if self.is_node_attr(key):
                value = value[ids]
            elif self.is_edge_attr(key):
                value = value[inside]
            graph[key] = value
        graph.edge_index = self.edge_index[:, inside] - start
        assignment = self.scale_assignment[:, level] - start
        graph.assignment = assignment.where(self.valid, 0)
        return graph

    def to_hetero(self, connectivity: int = 4) -> HeteroData:
        """The same as PyG `HeteroData`.

        Node types: "pixel" (`x` is `pixel_x` where the transform kept it; `y` the mask, `valid`, `annotations`) and
        "region_0" (coarsest) to "region_{L-1}". Edge types: ("pixel", "adjacent", "pixel"), the grid of valid pixels;
        ("region_l", "adjacent", "region_l"); and containment ("pixel", "in", "region_{L-1}"),
        ("region_l", "in", "region_{l-1}").

        Args:
            connectivity: 4 or 8, of the pixel grid.

        Raises:
            ValueError: on a batch (`HeteroData` batches itself).
        """
        if isinstance(self, Batch):
            raise ValueError("got a batch of hierarchies, expected one: batch the HeteroData instead")
        H, W = (int(s) for s in self.image_size[0])
        L = self.num_levels
        data = HeteroData()
        data["pixel"].num_nodes = H * W
        data["pixel"].valid = self.valid
        for key, name in (("pixel_x", "x"), ("pixel_y", "y"), ("annotations", "annotations")):
            if key in self:
                data["pixel"][name] = self[key]
        grid = grid_edges(H, W, connectivity, directed=True, device=self.assignment.device)
        data["pixel", "adjacent", "pixel"].edge_index = grid[:, self.valid[grid[0]] & self.valid[grid[1]]]
        starts = [0, *self.level_sizes[0].cumsum(0).tolist()]
        for level in range(L):
            graph = self.level_graph(level)
            kind = f"region_{level}"
            data[kind].num_nodes = graph.num_nodes
            for key in graph.node_attrs():
                data[kind][key] = graph[key]
            for key in graph.edge_attrs():
                data[kind, "adjacent", kind][key] = graph[key]
            if level:
                child = torch.arange(starts[level + 1] - starts[level], device=self.parent.device)
                parent = self.parent[starts[level] : starts[level + 1]] - starts[level - 1]
                data[kind, "in", f"region_{level - 1}"].edge_index = torch.stack([child, parent])
        pixels = self.valid.nonzero().squeeze(1)
        node = self.scale_assignment[pixels, L - 1] - starts[L - 1]
        data["pixel", "in", f"region_{L - 1}"].edge_index = torch.stack([pixels, node])
        for key in ("source", "recipe", "recipe_hash", "image_size", "geo"):
            if key in self:
                data[key] = self[key]
        return data

    def subgraph(self, subset: Tensor) -> Hierarchy:
        """Not defined: without some of its nodes a hierarchy is none. Take `level_graph(l).subgraph(...)`."""
        raise TypeError("got a Hierarchy, expected one of its levels: level_graph(l).subgraph(subset)")

    def _nodes_of_pixels(self) -> Tensor:
        return self.scale_assignment[self.valid].flatten()  # at every level

    def _check_fields(self) -> None:
        for key in ("level", "parent", "scale_assignment", "level_sizes"):
            if self.get(key) is None:
                raise ValueError(f"got no {key}, expected one in every Hierarchy")
            check_integer(key, check_tensor(key, self[key]))
        if self.get("valid") is None:
            raise ValueError("got no valid, expected one in every Hierarchy")
        super()._check_fields()
        N, P, L = self.num_nodes, self.num_pixels, self.num_levels
        check_shape("level", self.level, (N,))
        check_shape("parent", self.parent, (N,))
        check_shape("scale_assignment", self.scale_assignment, (P, L))
        check_shape("level_sizes", self.level_sizes, (None, L))
        if int(self.level_sizes.sum()) != N:
            raise ValueError(f"got level_sizes that add up to {int(self.level_sizes.sum())}, expected {N} nodes")
        for key, ids in (("parent", self.parent), ("scale_assignment", self.scale_assignment[self.valid])):
            if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= N):
                raise ValueError(f"got {key} from {int(ids.min())} to {int(ids.max())}, expected ids of {N} nodes")
        read = self.scale_assignment[self.valid]
        if read.numel() and bool((self.level[read] != torch.arange(L, device=read.device)).any()):
            raise ValueError(
                "got a scale_assignment that leads to nodes of another level, expected level l in column l"
            )
        if not torch.equal(read[:, -1], self.assignment[self.valid]):
            raise ValueError("got assignment other than the last column of scale_assignment, expected the finest level")
        up = self.level[self.parent] - self.level
        if bool((up != torch.where(self.level > 0, -1, 0)).any()):
            raise ValueError("got a parent outside the next coarser level, expected level l - 1 for nodes of level l")
