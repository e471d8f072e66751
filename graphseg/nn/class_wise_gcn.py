"""The class-wise dynamic graph convolution of CDGCNet.

Paper: Hu, Ji, Gan, Bai, Wu, Yan, "Class-wise Dynamic Graph Convolution for Semantic Segmentation".
Equations: Eq. (1) graph convolution, a W for each class; Eq. (2) similarity of two nodes; Eq. (3) its softmax, the
adjacency matrix; Eq. (4) the nodes sampled for a class while training.
The paper leaves open: a node outside a class's sample adds 0 to that class's map; a node is its own neighbour; phi and
phi' serve all classes; samples and their shares are taken in each image and class, the share of easy positives to the
nearest whole number; nodes without a label are not sampled; the weights start as Xavier's, class by class, and the
combination of the class maps has a bias. A graph of the top k, which the paper names, keeps the k most similar nodes.

The nodes of a class and image are a group, and a node may be a member of two. Attention inside the groups is streamed
(`graphseg.ops.attention`): time is the sum of the squares of their sizes, memory is linear in nodes, and no class map
is filled up with zeros. Messages are made for the top k, where a hook wants to see them, or after `layer.fuse = False`
(the last two for all pairs of a group), with the same values and gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn import Linear, MessagePassing
from torch_geometric.nn.inits import glorot, zeros

from graphseg._checks import check_choice, check_positive_int, check_same_device, check_shape, check_tensor
from graphseg.nn._watched import is_watched
from graphseg.ops import pool, project
from graphseg.ops.attention import segment_attention, segment_softmax, segment_topk

__all__ = ["ClassWiseGraphConv"]

TILE = 64  # rows of one class multiplied at once, at least


def sample_nodes(
    prediction: Tensor,
    y: Tensor,
    easy: Tensor,
    hard_positives: bool = True,
    hard_negatives: bool = True,
) -> tuple[Tensor, Tensor]:
    """The nodes sampled for the classes: node [T] and class [T]; a node that was missed is there twice.

    C is the `prediction` [P], G is `y` [P] (negative: no label), and `easy` [P] says which nodes of C n G are sampled.
    """
    node = torch.arange(len(prediction), device=prediction.device)
    missed = (prediction != y) & (y >= 0)
    in_c = easy | missed if hard_negatives else easy
    in_g = missed if hard_positives else torch.zeros_like(missed)
    # Sampled = (C - C n G) + (G - C n G) + ratio * C n G
    return torch.cat([node[in_c], node[in_g]]), torch.cat([prediction[in_c], y[in_g]])  # Eq. (4)


def sample_share(chosen: Tensor, group: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Of the `chosen` [P] of each group a random share, to the nearest whole number."""
    device = chosen.device if generator is None else generator.device
    luck = torch.rand(len(chosen), generator=generator, device=device, dtype=torch.float64).to(chosen.device)
    node = chosen.nonzero().squeeze(1)
    node = node[luck[node].argsort(stable=True)]
    node = node[group[node].argsort(stable=True)]  # by group, in each at random
    _, inverse, count = group[node].unique_consecutive(return_inverse=True, return_counts=True)
    rank = torch.arange(len(node), device=node.device) - (count.cumsum(0) - count)[inverse]
    kept = node[rank < (ratio * count.double() + 0.5).floor()[inverse]]
    return torch.zeros_like(chosen).index_fill_(0, kept, True)


def class_linear(x: Tensor, weights: list[Tensor], count: Tensor) -> Tensor:
    """ReLU(x W_m) U_m for rows x [T, C] in the order of classes, `count` [M] of each.

    `weights` is [W, U], each [M, C, C]. Rows go in tiles of one class, which take as much memory for copies of the
    weights as for the rows, if they have C rows.
    """
    T, C = x.shape
    size = max(TILE, C)
    tiles = (count + size - 1) // size  # [M]
    category = torch.arange(len(count), device=x.device).repeat_interleave(tiles)  # [B], the class of each tile
    shift = (tiles.cumsum(0) - tiles) * size - (count.cumsum(0) - count)  # [M]
    slot = torch.arange(T, device=x.device) + shift.repeat_interleave(count)  # [T]
    z = x.new_zeros(len(category) * size, C).index_copy(0, slot, x).view(-1, size, C)  # [B, size, C]
    z = torch.bmm(z, project(weights[0], category)).relu()  # Eq. (1): sigma(A X W)
    z = torch.bmm(z, project(weights[1], category))
    return z.view(-1, C).index_select(0, slot)  # [T, C]


class ClassWiseGraphConv(MessagePassing):
    """Graph convolution inside each class of a coarse prediction, combined over classes and fused with the input.

        A_m = softmax over the sample of class m of phi(x_i)^T phi'(x_j)
        Z_m = ReLU(A_m X W_m), 0 for nodes outside the sample
        out = [X, sum over m of Z_m U_m + b]   (concatenation),   X + sum over m of Z_m U_m + b   (sum)

    The sample of a class is what the coarse prediction gives it; in training, with ground truth, that and the ground
    truth's own nodes, so that a node may be in the sample of two classes. Without ground truth it is the similarity
    graph of the paper, in training too. With one class it is the plain graph convolution of the paper's Table 1.

    Args:
        channels: C, of x.
        num_classes: M.
        ratio: share of the easy positives (C n G) that is sampled in training, in [0, 1].
        fusion: "concat" or "sum", of x and the refined features.
        shared: one W for all classes.
        top_k: keep only so many neighbours of each node, the most similar ones (ties go to the earlier node). Default:
            all.
        binary: with `top_k`, weigh the neighbours equally, not by the softmax of their similarity; phi and phi' then
            get no gradient.
        hard_positives: whether to sample nodes of the class that the coarse prediction misses, in training.
        hard_negatives: whether to sample nodes that the coarse prediction wrongly gives the class, in training.
        ignore_index: label of nodes without one; None if all have one.
        bias: whether the combination of the class maps has a bias.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        ratio: float = 1.0,
        fusion: str = "concat",
        *,
        shared: bool = False,
        top_k: int | None = None,
        binary: bool = False,
        hard_positives: bool = True,
        hard_negatives: bool = True,
        ignore_index: int | None = -100,
        bias: bool = True,
    ) -> None:
        check_positive_int("channels", channels)
        check_positive_int("num_classes", num_classes)
        check_choice("fusion", fusion, ("concat", "sum"))
        if not 0 <= ratio <= 1:
            raise ValueError(f"got ratio={ratio}, expected a share in [0, 1]")
        if top_k is not None:
            check_positive_int("top_k", top_k)
        elif binary:
            raise ValueError("got binary=True without top_k, expected a number of neighbours to keep")
        super().__init__(aggr="add")
        self.channels, self.num_classes, self.ratio, self.fusion = channels, num_classes, ratio, fusion
        self.shared, self.top_k, self.binary = shared, top_k, binary
        self.hard_positives, self.hard_negatives, self.ignore_index = hard_positives, hard_negatives, ignore_index
        self.phi = Linear(channels, channels, bias=False, weight_initializer="glorot")
        self.phi_prime = Linear(channels, channels, bias=False, weight_initializer="glorot")
        self.weight = Parameter(torch.empty(1 if shared else num_classes, channels, channels))  # W
        self.combine = Parameter(torch.empty(num_classes, channels, channels))  # U, the 1 x 1 convolution
        self.bias = Parameter(torch.empty(channels)) if bias else None
        self.fuse = True
        # The masks of explainers are for the edges of a graph that is given, and this one is made here.
        self.explain = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.phi.reset_parameters()
        self.phi_prime.reset_parameters()
        glorot(self.weight)
        glorot(self.combine)
        zeros(self.bias)

    def forward(
        self,
        x: Tensor,
        coarse: Tensor,
        y: Tensor | None = None,
        batch: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Runs the layer.

        Args:
            x: `[P, C]` floating-point, features of the nodes.
            coarse: `[P, M]`, scores of the coarse prediction; the largest counts, of equal ones the first. No gradient.
            y: `[P]` int64, the ground truth, read in training only.
            batch: `[P]` int64, the image of each node, in any order. Default: one image.
            generator: of the random share of easy positives; read in training with y and a ratio under 1 only.

        Returns:
            `[P, 2C]` ("concat") or `[P, C]` ("sum").

        Raises:
            TypeError: for dtypes other than these.
            ValueError: for shapes or devices that do not fit, or labels outside [0, M) that are not `ignore_index`.
        """
        self._check(x, coarse, y, batch)
        image, images = _count_images(batch, x)
        node, category = self._sample(coarse.argmax(1), y if self.training else None, image, generator)
        order = ((category * images + image[node]) * len(x) + node).argsort()
        node, category = node[order], category[order]  # [T], by class, then image, then node
        sizes = (category * images + image[node]).unique_consecutive(return_counts=True)[1]  # [G]

        members = project(x, node)  # [T, C]
        mixed = self._mix(members, sizes)
        count = torch.bincount(category, minlength=self.num_classes)  # [M]
        weight = self.weight.expand(self.num_classes, -1, -1)
        maps = class_linear(mixed, [weight, self.combine], count)
        refined = pool(maps, node, len(x), "sum")  # [P, C]
        if self.bias is not None:
            refined = refined + self.bias
        return torch.cat([x, refined], 1) if self.fusion == "concat" else x + refined

    def _sample(
        self, prediction: Tensor, y: Tensor | None, image: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The members of all classes: node [T] and class [T]."""
        if y is None:
            return torch.arange(len(prediction), device=prediction.device), prediction
        if self.ignore_index is not None:
            y = y.masked_fill(y == self.ignore_index, -1)
        easy = prediction == y
        if self.ratio < 1:
            easy = sample_share(easy, image * self.num_classes + prediction, self.ratio, generator)
        return sample_nodes(prediction, y, easy, self.hard_positives, self.hard_negatives)

    def _mix(self, members: Tensor, sizes: Tensor) -> Tensor:
        """A X for members [T, C] in groups of `sizes` [G]."""
        query, key = self.phi(members), self.phi_prime(members)  # [T, C]
        if self.fuse and self.top_k is None and not is_watched(self, ClassWiseGraphConv):
            return segment_attention(query, key, members, sizes)  # Eq. (2), Eq. (3)
        k = max(1, len(members)) if self.top_k is None else self.top_k
        edge_index = segment_topk(query, key, sizes, k)  # [2, E]
        dtype = torch.promote_types(members.dtype, torch.float32)
        if self.binary:
            score = torch.zeros(edge_index.size(1), dtype=dtype, device=members.device)
        else:
            left, right = project(query.to(dtype), edge_index[1]), project(key.to(dtype), edge_index[0])  # [E, C]
            score = (left * right).sum(1)  # Eq. (2)
        weight = segment_softmax(score, edge_index[1], len(members))  # Eq. (3)
        # propagate_type: (value: Tensor, weight: Tensor)
        return self.propagate(edge_index, value=members.to(dtype), weight=weight).to(members.dtype)

    def message(self, value_j: Tensor, weight: Tensor) -> Tensor:
        return weight.unsqueeze(1) * value_j

    def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
        return pool(inputs, index, dim_size, "sum")  # in a defined order

    def _check(self, x: Tensor, coarse: Tensor, y: Tensor | None, batch: Tensor | None) -> None:
        if not check_tensor("x", x).is_floating_point():
            raise TypeError(f"got dtype {x.dtype} for x, expected a floating-point dtype")
        check_shape("x", x, [None, None])
        if x.size(1) != self.channels:
            raise ValueError(f"got {x.size(1)} channels in x, expected channels={self.channels}")
        check_shape("coarse", check_tensor("coarse", coarse), [x.size(0), None])
        if coarse.size(1) != self.num_classes:
            raise ValueError(f"got {coarse.size(1)} classes in coarse, expected num_classes={self.num_classes}")
        for name, ids in (("y", y), ("batch", batch)):
            if ids is not None:
                if check_tensor(name, ids).dtype != torch.int64:
                    raise TypeError(f"got dtype {ids.dtype} for {name}, expected torch.int64")
                check_shape(name, ids, [x.size(0)])
        check_same_device(x=x, coarse=coarse, y=y, batch=batch)
        if y is not None and self.training:
            wrong, unless = y[(y < 0) | (y >= self.num_classes)], ""
            if self.ignore_index is not None:
                wrong, unless = wrong[wrong != self.ignore_index], f" or ignore_index={self.ignore_index}"
            if wrong.numel():
                raise ValueError(f"got label {int(wrong[0])} in y, expected labels in [0, {self.num_classes}){unless}")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, num_classes={self.num_classes}, ratio={self.ratio}, "
            f"fusion={self.fusion!r})"
        )


def _count_images(batch: Tensor | None, x: Tensor) -> tuple[Tensor, int]:
    """The image of each node, numbered without gaps, and how many images there are."""
    if batch is None:
        return torch.zeros(len(x), dtype=torch.int64, device=x.device), 1
    ids, image = batch.unique(return_inverse=True)
    return image, len(ids)
