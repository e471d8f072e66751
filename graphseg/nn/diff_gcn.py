"""DiffGCN, the directional graph convolution of SGSeg, and the two blocks that the paper compares it with.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Equations: Eq. (14) PointNet, h of each node; Eq. (15) DGCNN, h of each edge reduced over the edges of a node, with
g = [F_i, F_i - F_j]; Eq. (16) DiffGCN, Eq. (15) with g = [F_i, directional derivatives along x and y].
The paper leaves open: h is ReLU(norm(lin(g))), `lin` one linear map with Xavier's initialisation and `norm` none; the
reduction of Eq. (16) is the maximum, as in DGCNN.
Differs from the paper: the derivative and its gradient are 0 where two nodes lie at one place (the paper divides by
their distance); a node without edges gives 0.

With W = [W_0, W_x, W_y], Eq. (16) gives lin(g) = W_0 F_i + b + dx/D (W_x F_i - W_x F_j) + dy/D (W_y F_i - W_y F_j): the
map is applied to nodes, k times fewer than edges. ReLU grows, so the largest h is ReLU of the largest lin(g), and that
is found without a tensor of edges x channels (`graphseg.ops.edge_max`). Messages are made where an explainer or a hook
wants to see them, and after `layer.fuse = False`, with the same values and gradients; also for a mean, and for a norm.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import linear
from torch_geometric.nn import Linear, MessagePassing
from torch_geometric.nn.inits import reset

from graphseg._checks import check_choice, check_positive_int, check_same_device, check_shape, check_tensor
from graphseg.nn._watched import is_watched
from graphseg.ops import knn_edges, pool, project
from graphseg.ops.edge_max import check_edge_index, edge_values, max_over_edges

__all__ = ["DGCNNBlock", "DiffGCNConv", "DynamicDiffGCNConv", "PointNetBlock"]


def directions(pos: Tensor, edge_index: Tensor) -> Tensor:
    """(x_i - x_j, y_i - y_j) / Delta(i, j) of each edge (j, i), [E, 2] of at least float32; 0 where Delta is 0."""
    pos = pos.to(torch.promote_types(pos.dtype, torch.float32))
    difference = project(pos, edge_index[1]) - project(pos, edge_index[0])  # [E, 2]
    same = (difference == 0).all(1, keepdim=True)  # [E, 1]
    difference = difference.masked_fill(same, 0)  # no gradient passes here
    # Replaced before the root: masked after it, the gradient would be 0 times infinity.
    dx, dy = difference.masked_fill(same, 1).split(1, dim=1)
    return difference / torch.hypot(dx, dy)  # Eq. (16), Delta(i, j) below the bar


def linear_on_nodes(x: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> Tensor:
    """`[N, parts, out]`: the blocks W_0, W_1, ... of `weight [out, parts * in]` on x [N, in]; the bias goes to W_0 x.

    At least in float32, under autocast too: differences of values rounded to 8 bits would be lost.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    out = weight.size(0)
    blocks = weight.to(dtype).view(out, parts, -1).transpose(0, 1).flatten(0, 1)  # [parts * out, in]
    if bias is not None:
        bias = torch.cat([bias.to(dtype), bias.new_zeros((parts - 1) * out, dtype=dtype)])
    with torch.autocast(x.device.type, enabled=False):
        return linear(x.to(dtype), blocks, bias).view(-1, parts, out)


class _Block(MessagePassing):
    """ReLU(norm(lin(g))) reduced over the edges of a node, g = [F_i, w_1 (F_i - F_j), ..., w_K (F_i - F_j)]."""

    differences: int  # K

    def __init__(
        self, in_channels: int, out_channels: int, aggr: str = "max", *, norm: Module | None = None, bias: bool = True
    ) -> None:
        check_positive_int("in_channels", in_channels)
        check_positive_int("out_channels", out_channels)
        check_choice("aggr", aggr, ("max", "mean"))
        super().__init__(aggr=aggr, node_dim=0)
        self.fuse = True
        self.in_channels, self.out_channels = in_channels, out_channels
        self.lin = Linear(
            (1 + self.differences) * in_channels,
            out_channels,
            bias=bias,
            weight_initializer="glorot",
            bias_initializer="zeros",
        )
        self.norm = norm

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.lin.reset_parameters()
        reset(self.norm)

    def _check(self, x: Tensor, edge_index: Tensor | None = None, pos: Tensor | None = None) -> None:
        for name, given in (("x", x), ("pos", pos)):
            if given is not None and not check_tensor(name, given).is_floating_point():
                raise TypeError(f"got dtype {given.dtype} for {name}, expected a floating-point dtype")
        check_shape("x", x, (None, None))
        if x.size(1) != self.in_channels:
            raise ValueError(f"got {x.size(1)} channels in x, expected in_channels={self.in_channels}")
        if pos is not None:
            check_shape("pos", pos, (x.size(0), 2))
        if edge_index is not None:
            check_edge_index(edge_index, x.size(0))
        check_same_device(x=x, edge_index=edge_index, pos=pos)

    def _run(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        """The block with the multiples `weight [E, K]` of the differences."""
        values = linear_on_nodes(x, self.lin.weight, self.lin.bias, 1 + self.differences)  # [N, 1 + K, C]
        weight = weight.to(values.dtype)
        if self.fuse and self.aggr == "max" and self.norm is None and not is_watched(self, _Block):
            out = max_over_edges(values, weight, edge_index).relu()  # [N, C]
        else:
            # propagate_type: (values: Tensor, weight: Tensor)
            out = self.propagate(edge_index, values=values, weight=weight)
        return out.to(x.dtype)

    def message(self, values_i: Tensor, values_j: Tensor, weight: Tensor) -> Tensor:
        return self._activate(edge_values(values_i, values_j, weight))  # [E, C], of lin(g(F_i, F_j))

    def _activate(self, z: Tensor) -> Tensor:
        """ReLU(norm(z)). A norm takes numbers of its parameters' dtype, and is not asked about no rows."""
        if self.norm is not None and z.size(0) > 0:
            z = self.norm(z.to(self.lin.weight.dtype))
        return z.relu()

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return pool(inputs, index, dim_size, self.aggr)  # Eq. (15), ties as in max_over_edges

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, aggr={self.aggr!r})"


class PointNetBlock(_Block):
    """h(F_i), the block without a graph: `F'_i = ReLU(norm(lin(F_i)))`, Eq. (14).

    Args:
        in_channels: channels of x.
        out_channels: channels of the output.
        aggr: taken as by the other blocks; nothing is reduced.
        norm: module on the `[N, out_channels]` in front of ReLU, such as `torch.nn.BatchNorm1d`. Default: none.
        bias: whether the linear map has one.
    """

    differences = 0

    def forward(self, x: Tensor, edge_index: Tensor | None = None, pos: Tensor | None = None) -> Tensor:
        """The block on x.

        Args:
            x: `[N, in_channels]`, floating-point.
            edge_index: not used; here so that the blocks can take each other's place.
            pos: not used.

        Returns:
            `[N, out_channels]`, of x's dtype (computed at least in float32).

        Raises:
            TypeError: if x is not a floating-point tensor.
            ValueError: if x is not `[N, in_channels]`.
        """
        self._check(x)
        z = linear_on_nodes(x, self.lin.weight, self.lin.bias, 1).squeeze(1)  # [N, C]
        return self._activate(z).to(x.dtype)  # Eq. (14)


class DGCNNBlock(_Block):
    """DGCNN's edge convolution: `F'_i = max_j ReLU(norm(lin([F_i, F_i - F_j])))`, Eq. (15).

    Args:
        in_channels: channels of x.
        out_channels: channels of the output.
        aggr: "max" or "mean", over the edges of a node.
        norm: module on the `[E, out_channels]` in front of ReLU. Default: none; with one, messages of all edges are
            made, as for a mean.
        bias: whether the linear map has one.
    """

    differences = 1

    def forward(self, x: Tensor, edge_index: Tensor, pos: Tensor | None = None) -> Tensor:
        """The block on x.

        Args:
            x: `[N, in_channels]`, floating-point.
            edge_index: `[2, E]` int64, row 0 the neighbour j, row 1 the node i; in any order.
            pos: not used; here so that the blocks can take each other's place.

        Returns:
            `[N, out_channels]`, of x's dtype (computed at least in float32); 0 for a node without edges.

        Raises:
            TypeError: if x is not a floating-point tensor, or edge_index not int64.
            ValueError: on sizes or devices that do not fit, or ids outside [0, N).
        """
        self._check(x, edge_index)
        return self._run(x, edge_index, x.new_ones(edge_index.size(1), 1))


class DiffGCNConv(_Block):
    """The 2-D directional graph convolution `F'_i = max_j ReLU(norm(lin(g(F_i, F_j))))` of Eq. (15) and Eq. (16).

        g(F_i, F_j) = [F_i, (F_i - F_j) (x_i - x_j) / Delta, (F_i - F_j) (y_i - y_j) / Delta]

    Delta is the distance of the two nodes; where it is 0 the derivatives and their gradient are 0. The linear map is
    applied to nodes, and the maximum found and differentiated without messages (see the module). Gradients reach x,
    pos and the parameters; of tied edges the first takes them.

    Args:
        in_channels: channels of x.
        out_channels: channels of the output.
        aggr: "max" or "mean", over the edges of a node.
        norm: module on the `[E, out_channels]` in front of ReLU, such as `torch.nn.BatchNorm1d`. Default: none; with
            one, messages of all edges are made, as for a mean.
        bias: whether the linear map has one.

    Attributes:
        lin: the linear map of Eq. (15)'s h, from g to out_channels: `weight [out_channels, 3 * in_channels]`.
    """

    differences = 2

    def forward(self, x: Tensor, edge_index: Tensor, pos: Tensor) -> Tensor:
        """The convolution on x.

        Args:
            x: `[N, in_channels]`, floating-point.
            edge_index: `[2, E]` int64, row 0 the neighbour j, row 1 the node i; in any order.
            pos: `[N, 2]` (x, y), floating-point, in any unit: the output does not depend on their scale.

        Returns:
            `[N, out_channels]`, of x's dtype (computed at least in float32); 0 for a node without edges.

        Raises:
            TypeError: if x or pos is not a floating-point tensor, or edge_index not int64.
            ValueError: on sizes or devices that do not fit, or ids outside [0, N).
        """
        self._check(x, edge_index, pos)
        return self._run(x, edge_index, directions(pos, edge_index))


class DynamicDiffGCNConv(_Block):
    """`DiffGCNConv` on the graph of the k nearest neighbours in x, built anew in every call.

    The paper builds the graph once, of the pooled features, and keeps it for all blocks: that is `knn_edges` and
    `DiffGCNConv`. Building it for each block is DGCNN's way.

    Args:
        in_channels: channels of x.
        out_channels: channels of the output.
        k: neighbours per node, its own not counted; a graph of n nodes has at most n - 1.
        aggr: "max" or "mean", over the edges of a node.
        norm: module on the `[E, out_channels]` in front of ReLU. Default: none.
        bias: whether the linear map has one.
    """

    differences = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        k: int = 20,
        aggr: str = "max",
        *,
        norm: Module | None = None,
        bias: bool = True,
    ) -> None:
        check_positive_int("k", k)
        super().__init__(in_channels, out_channels, aggr, norm=norm, bias=bias)
        self.k = k
        # The masks of explainers are for the edges of a graph that is given, and this one is made here.
        self.explain = False

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        """The convolution on x.

        Args:
            x: `[N, in_channels]`, floating-point, finite. The choice of neighbours has no gradient.
            pos: `[N, 2]` (x, y), floating-point, in any unit.
            batch: `[N]` int64, sorted: the graph of each node. Default: one graph.

        Returns:
            `[N, out_channels]`, of x's dtype (computed at least in float32); 0 for the only node of a graph.

        Raises:
            TypeError: if x or pos is not a floating-point tensor, or batch not int64.
            ValueError: on sizes or devices that do not fit, NaN or infinity in x, or a batch that is not sorted.
        """
        self._check(x, pos=pos)
        edge_index = knn_edges(x, self.k, batch)
        return self._run(x, edge_index, directions(pos, edge_index))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, k={self.k}, aggr={self.aggr!r})"
