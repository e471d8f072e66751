"""The contenders of `benchmarks.layers`: ours, the formula as printed, and the obvious composition of torch and PyG.

One function per layer makes inputs of a size (the side of images, or a number of clouds) and a `Case` of them.
Contenders share the parameters of our layer, so that values and all gradients can be compared.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch_geometric.nn import EdgeConv, MessagePassing

from benchmarks.common import OURS
from graphseg.losses.affinity import affinity_cross_entropy
from graphseg.losses.information import joint_counts
from graphseg.losses.ohem import ohem_cross_entropy
from graphseg.losses.spnn import smoothness_loss, superpixelate
from graphseg.losses.variation import total_variation
from graphseg.nn.affinity import SemanticRefinement, affinity_edges, affinity_targets, edge_affinity
from graphseg.nn.class_wise_gcn import ClassWiseGraphConv
from graphseg.nn.diff_gcn import DGCNNBlock, DiffGCNConv
from graphseg.nn.raster_conv import RasterConv2d
from graphseg.nn.superpixel_crf import EmbeddedSuperpixelCRF, MeanFieldCRF, position_embedding
from graphseg.nn.superpixel_mean import MultiscaleSuperpixelMean, SuperpixelMean
from graphseg.ops import affinity_offsets, knn_edges, offset_edges, radius_edges

PRINTED = "as printed"
ALPHA = 0.1
CLASSES = 19
# Shares of Cityscapes' classes among its labelled pixels, in percent, as usually stated.
CITY = (36.9, 6.1, 22.8, 0.66, 0.88, 1.23, 0.21, 0.55, 15.9, 1.16, 4, 1.22, 0.135, 7, 0.27, 0.235, 0.233, 0.1, 0.41)
LARGEST = min(2 * 2**30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 12)  # bytes in a peer's tensor

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """Contenders that give one tensor, or why one is left out; those in parentheses compute something else.

    It is differentiated by `leaves`, unless there are none, given the gradient `grad` (None for a loss).
    """

    calls: Mapping[str, Call | str]
    leaves: Sequence[Tensor] = ()
    grad: Tensor | None = None


def unless_large(call: Call, *shape: int) -> Call | str:
    """The call, or the reason to leave it out: the size of its largest tensor of float32."""
    size = 4 * math.prod(shape)
    return call if size <= LARGEST else f"a tensor of {size / 2**30:.1f} GiB: left out"


def bind(layer: Any, *given: Any) -> Call:
    return partial(layer, *given)


def pixels(side: int, device: torch.device) -> Tensor:
    """Positions [P, 2] of a square's pixels."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([x, y], 2).view(-1, 2).float().to(device)


def windows(rows: Tensor, side: int, dilation: int) -> Tensor:
    """Rows [P, C] of a square's pixels at their neighbours in a window of 2 * 3 / dilation + 1: [C, n * n, P]."""
    reach = 3 // dilation
    maps = rows.T.reshape(1, -1, side, side)
    found = F.unfold(maps, 2 * reach + 1, dilation=dilation, padding=reach * dilation)
    return found.view(rows.size(1), -1, len(rows))


# Superpixel means


class Copy(Function):
    """The least a layer may cost: one copy there, one back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].clone()


class SuperpixelMessages(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="mean")

    def forward(self, x: Tensor, ids: Tensor, n: int) -> Tensor:
        edge_index = torch.stack([torch.arange(len(ids), device=ids.device), ids])
        return x + ALPHA * self.propagate(edge_index, x=x, size=(len(ids), n))[ids]

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


def mask_by_mask(x: Tensor, labels: Tensor, n: int) -> Tensor:
    mean = torch.zeros_like(x)
    for i in range(n):
        mask = (labels == i).to(x.dtype).unsqueeze(1)  # [B, 1, H, W]
        mean = mean + mask * ((mask * x).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp(min=1))
    return x + ALPHA * mean


def one_hot_einsum(x: Tensor, labels: Tensor, n: int) -> Tensor:
    member = F.one_hot(labels.flatten(1), n).to(x.dtype)  # [B, P, N]
    flat = x.flatten(2)
    mean = torch.einsum("bcp,bpn->bcn", flat, member) / member.sum(1).clamp(min=1).unsqueeze(1)
    return (flat + ALPHA * torch.einsum("bcn,bpn->bcp", mean, member)).view_as(x)


def as_rows(x: Tensor, labels: Tensor, n: int) -> tuple[Tensor, Tensor, int]:
    """x [B * P, C], superpixels numbered through the batch, and how many they are."""
    first = n * torch.arange(len(x), device=x.device).view(-1, 1, 1)
    return x.permute(0, 2, 3, 1).reshape(-1, x.size(1)), (labels + first).flatten(), n * len(x)


def as_maps(rows: Tensor, x: Tensor) -> Tensor:
    B, C, H, W = x.shape
    return rows.view(B, H, W, C).permute(0, 3, 1, 2)


def add_mean(rows: Tensor, ids: Tensor, n: int) -> Tensor:
    count = torch.bincount(ids, minlength=n).clamp(min=1).unsqueeze(1)
    return rows.new_zeros(n, rows.size(1)).index_add(0, ids, rows) / count


def by_index_add(x: Tensor, labels: Tensor, n: int) -> Tensor:
    rows, ids, n = as_rows(x, labels, n)
    return x + ALPHA * as_maps(add_mean(rows, ids, n)[ids], x)


def by_propagate(x: Tensor, labels: Tensor, n: int) -> Tensor:
    return as_maps(SuperpixelMessages()(*as_rows(x, labels, n)), x)


def by_scatter(x: Tensor, labels: Tensor, n: int) -> Tensor:
    B, C, _, _ = x.shape
    flat, ids = x.flatten(2), labels.view(B, 1, -1).expand(-1, C, -1)
    mean = x.new_zeros(B, C, n).scatter_reduce(2, ids, flat, "mean", include_self=False)
    return (flat + ALPHA * mean.gather(2, ids)).view_as(x)


def superpixel_mean(side: int, device: torch.device, scales: int = 1, last: bool = False) -> Case:
    """x [4, 256, side, side] and wavy blocks: 196 superpixels, 289 and 400 at the next scales."""
    x = torch.randn(4, 256, side, side, device=device)
    x = x.to(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    column, row = pixels(side, device).view(side, side, 2).long().unbind(2)
    maps = []
    for blocks in (14, 17, 20)[:scales]:
        i = (row + (3 * torch.sin(column / 5)).long()).clamp(0, side - 1) * blocks // side
        j = (column + (3 * torch.sin(row / 7)).long()).clamp(0, side - 1) * blocks // side
        maps.append((i * blocks + j).expand(4, -1, -1).contiguous())

    def cascade(layer: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
        out = x
        for labels in maps:
            out = layer(out, labels, int(labels.max()) + 1)
        return out

    ours = bind(SuperpixelMean(ALPHA), x, maps[0]) if scales == 1 else bind(MultiscaleSuperpixelMean(ALPHA), x, maps)
    calls: dict[str, Call | str] = {
        OURS: ours,
        "(copy of the features)": lambda: Copy.apply(x),
        f"{PRINTED}, mask by mask": partial(cascade, mask_by_mask),
        "one-hot einsum": partial(cascade, one_hot_einsum),
        "index_add": partial(cascade, by_index_add),
        "scatter_reduce": partial(cascade, by_scatter),
        "PyG propagate": partial(cascade, by_propagate),
    }
    if scales > 1:
        calls = {name: call for name, call in calls.items() if name not in ("one-hot einsum", "scatter_reduce")}
    if last or scales > 1:
        calls[f"{PRINTED}, mask by mask"] = "as at one scale, channels-first, where it is timed"
    return Case(calls, [x], torch.randn_like(x))


# Edge convolutions


class EdgeMLP(MessagePassing):
    """DiffGCN as EdgeConv would have it: h of the concatenation g of every edge, as printed."""

    def __init__(self, lin: torch.nn.Module) -> None:
        super().__init__(aggr="max")
        self.lin = lin

    def forward(self, x: Tensor, edge_index: Tensor, pos: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, pos=pos)

    def message(self, x_i: Tensor, x_j: Tensor, pos_i: Tensor, pos_j: Tensor) -> Tensor:
        d = pos_i - pos_j
        d = d / d.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return self.lin(torch.cat([x_i, (x_i - x_j) * d[:, :1], (x_i - x_j) * d[:, 1:]], 1)).relu()


def edge_conv(clouds: int, device: torch.device, directed: bool = True) -> Case:
    """`clouds` of 200 nodes with 64 channels, each joined to the 20 that are nearest in x."""
    C = 64
    x, pos = torch.randn(200 * clouds, C, device=device), 256 * torch.rand(200 * clouds, 2, device=device)
    edge_index = knn_edges(x, 20, torch.arange(clouds, device=device).repeat_interleave(200))
    x.requires_grad_()
    kind = DiffGCNConv if directed else DGCNNBlock
    ours, plain = kind(C, C).to(device), kind(C, C)
    plain.lin, plain.fuse = ours.lin, False

    def mlp(z: Tensor) -> Tensor:  # PyG has [F_i, F_j - F_i]
        W, V = ours.lin.weight.split(C, 1)
        return F.linear(z, torch.cat([W, -V], 1), ours.lin.bias).relu()

    calls = {OURS: bind(ours, x, edge_index, pos), "graphseg, messages made": bind(plain, x, edge_index, pos)}
    if directed:
        calls[f"{PRINTED}, PyG: h on every edge"] = bind(EdgeMLP(ours.lin), x, edge_index, pos)
    else:
        calls[f"{PRINTED}, PyG EdgeConv"] = bind(EdgeConv(mlp), x, edge_index)
    return Case(calls, [x, *ours.parameters()], torch.randn(len(x), C, device=device))


# Class-wise graph convolution


def class_wise(side: int, device: torch.device, shares: Sequence[float] = (1,) * CLASSES) -> Case:
    """side * side nodes with 64 channels, classes drawn by their shares."""
    P, C, M = side * side, 64, CLASSES
    layer = ClassWiseGraphConv(C, M).to(device)
    x = torch.randn(P, C, device=device).requires_grad_()
    label = torch.multinomial(torch.tensor(shares, dtype=torch.float64), P, replacement=True).to(device)
    member = F.one_hot(label, M).T.bool()  # [M, P]
    coarse = member.T.float()

    def convolve(mixed: Tensor) -> Tensor:  # [M or 1, P, C]
        Z = (mixed @ layer.weight).relu() * member[:, :, None]
        return torch.cat([x, torch.einsum("mpc,mcd->pd", Z, layer.combine) + layer.bias], 1)

    def printed() -> Tensor:
        X = x.expand(M, -1, -1)
        A = layer.phi(X) @ layer.phi_prime(X).transpose(1, 2)  # [M, P, P]
        return convolve(A.masked_fill(~member[:, None], -1e30).softmax(2) @ X)

    def masked() -> Tensor:
        A = layer.phi(x) @ layer.phi_prime(x).T  # [P, P]
        return convolve((A.masked_fill(label[:, None] != label, -torch.inf).softmax(1) @ x)[None])

    def attention() -> Tensor:
        query, key, value = (rows[None, None] for rows in (layer.phi(x), layer.phi_prime(x), x))
        same = label[:, None] == label
        return convolve(F.scaled_dot_product_attention(query, key, value, attn_mask=same, scale=1.0)[0])

    def class_by_class() -> Tensor:
        query, key, refined = layer.phi(x), layer.phi_prime(x), torch.zeros_like(x)
        for m in range(M):
            at = member[m].nonzero().squeeze(1)
            mixed = (query[at] @ key[at].T).softmax(1) @ x[at]
            refined = refined.index_add(0, at, (mixed @ layer.weight[m]).relu() @ layer.combine[m])
        return torch.cat([x, refined + layer.bias], 1)

    even = "as for even classes: the shares make no difference"
    calls: dict[str, Call | str] = {
        OURS: bind(layer, x, coarse),
        f"{PRINTED}, M x N x N": even if shares is CITY else unless_large(printed, M, P, P),
        "one masked N x N": unless_large(masked, P, P),
        "torch attention, masked N x N": unless_large(attention, P, P),
        "one block per class": class_by_class,
    }
    return Case(calls, [x, *layer.parameters()], torch.randn(P, 2 * C, device=device))


# Conditional random fields


class PairMessages(MessagePassing):
    """What G_i sends, along edges, with a tensor of edges x 2 channels."""

    def __init__(self, compatibility: torch.nn.Module) -> None:
        super().__init__(aggr="add")
        self.compatibility = compatibility

    def forward(self, x: Tensor, token: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, token=token)

    def message(self, x_i: Tensor, x_j: Tensor, token_i: Tensor, token_j: Tensor) -> Tensor:
        gate = self.compatibility(torch.cat([x_i, x_j], 1)).sigmoid()
        return gate * (token_i * token_j).sum(1, keepdim=True) * x_j


def embedded_crf(side: int, device: torch.device, channels: int, window: bool) -> Case:
    """Pixels of a square image with 64 superpixels, under a 3 x 3 window of dilation 2 or all pairs."""
    P, C = side * side, channels
    layer = EmbeddedSuperpixelCRF(C).to(device)
    with torch.no_grad():
        layer.token.weight.mul_(0.3)  # similarities of about 1
    x, image, pos = (
        torch.randn(P, C, device=device).requires_grad_(),
        torch.rand(P, 3, device=device),
        pixels(side, device),
    )
    column, row = (pos * 8 / side).long().unbind(1)
    assignment = 8 * row + column
    edge_index = offset_edges(side, side, affinity_offsets([2]), directed=True, device=device) if window else None
    messages: Any = PairMessages(layer.compatibility)

    def refine(send: Callable[[Tensor], Tensor], degree: Tensor | int) -> Tensor:
        token = layer.token(torch.cat([image, position_embedding(pos, layer.position_channels)], 1))
        return (x + send(token) + add_mean(x, assignment, 64)[assignment]) / (2 + degree)

    def along_edges(token: Tensor) -> Tensor:
        return messages(x, token, edge_index)

    def terms() -> tuple[Tensor, Tensor]:  # conv[F_i, F_j] is one of i and one of j
        left, right = (x @ layer.compatibility.weight.view(2, C).T).unbind(1)
        return left, right + layer.compatibility.bias

    def unfolded(token: Tensor) -> Tensor:
        left, right = terms()
        similarity = (windows(token, side, 2) * token.T.unsqueeze(1)).sum(0)  # [9, P], 0 outside the image
        psi = similarity * (left + windows(right.unsqueeze(1), side, 2)[0]).sigmoid()
        psi = psi * (torch.arange(9, device=device) != 4).unsqueeze(1)
        return torch.einsum("cop,op->pc", windows(x, side, 2), psi)

    def every_pair(token: Tensor) -> Tensor:
        pairs = torch.cat([x.unsqueeze(1).expand(P, P, C), x.expand(P, P, C)], 2)  # [P, P, 2 C]
        psi = layer.compatibility(pairs).squeeze(2).sigmoid() * (token @ token.T)
        return psi.fill_diagonal_(0) @ x

    def dense(token: Tensor) -> Tensor:
        left, right = terms()
        gate = (left.unsqueeze(1) + right).sigmoid()
        return ((token @ token.T) * gate).fill_diagonal_(0) @ x

    calls: dict[str, Call | str] = {OURS: bind(layer, x, image, pos, edge_index, assignment)}
    if edge_index is not None:
        degree = torch.bincount(edge_index[1], minlength=P).unsqueeze(1)
        calls[f"{PRINTED}, PyG: [F_i, F_j] on every edge"] = partial(refine, along_edges, degree)
        calls["unfold"] = partial(refine, unfolded, degree)
    else:
        calls[f"{PRINTED}, [F_i, F_j] of all pairs"] = unless_large(partial(refine, every_pair, P - 1), P, P, 2 * C)
        calls["dense N x N"] = unless_large(partial(refine, dense, P - 1), P, P)
    return Case(calls, [x, *layer.parameters()], torch.randn(P, C, device=device))


class WeightedSum(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="add")

    def forward(self, x: Tensor, weight: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight.unsqueeze(1) * x_j


def mean_field(side: int, device: torch.device) -> Case:
    """Scores of 19 classes at the pixels of a square image, the 28 neighbours within 3 pixels, 5 steps."""
    P, M = side * side, CLASSES
    layer = MeanFieldCRF(M).to(device)
    x, image, pos = (
        torch.randn(P, M, device=device).requires_grad_(),
        0.1 * torch.rand(P, 3, device=device),
        pixels(side, device),
    )
    edge_index = radius_edges(pos, 3.0)
    messages: Any = WeightedSum()

    def kernels(near: Tensor, alike: Tensor) -> Tensor:
        alpha, beta, gamma = (2 * layer.log_theta.exp().square()).unbind()
        return layer.weight[0] * (-near / alpha - alike / beta).exp() + layer.weight[1] * (-near / gamma).exp()

    def infer(send: Callable[[Tensor], Tensor]) -> Tensor:
        start = probability = x.softmax(1)
        for _ in range(layer.num_steps):
            total = start + send(probability) @ layer.compatibility.T
            probability = total / total.sum(1, keepdim=True)
        return probability.log()

    def along_edges() -> Tensor:
        near, alike = ((v[edge_index[1]] - v[edge_index[0]]).square().sum(1) for v in (pos, image))
        k = kernels(near, alike)
        return infer(lambda q: messages(q, k, edge_index))

    def dense() -> Tensor:
        near, alike = (torch.cdist(v, v).square() for v in (pos, image))
        k = kernels(near, alike) * ((near > 0.5) & (near < 9.5))
        return infer(lambda q: k @ q)

    def unfolded() -> Tensor:
        near = (pixels(7, device) - 3).square().sum(1, keepdim=True)  # [49, 1]
        alike = (windows(image, side, 1) - image.T.unsqueeze(1)).square().sum(0)  # [49, P]
        inside = windows(torch.ones_like(pos[:, :1]), side, 1)[0] * ((near > 0) & (near <= 9))
        k = kernels(near, alike) * inside
        return infer(lambda q: torch.einsum("cop,op->pc", windows(q, side, 1), k))

    calls: dict[str, Call | str] = {
        OURS: bind(layer, x, image, pos, edge_index),
        f"{PRINTED}, dense N x N": unless_large(dense, P, P),
        "PyG propagate": along_edges,
        "unfold": unfolded,
    }
    return Case(calls, [x, *layer.parameters()], torch.randn(P, M, device=device))


# Maps


def raster(side: int, device: torch.device) -> Case:
    """[4, 64, side, side] in an ordering by columns, from the right."""
    layer = RasterConv2d(64, 64).to(device)
    x = torch.randn(4, 64, side, side, device=device).requires_grad_()

    def mirrored() -> Tensor:  # the image, not the kernel
        turned = F.pad(x.flip(3).transpose(2, 3), (1, 1, 2, 0))
        return F.conv2d(turned, layer.weight * layer.mask, layer.bias).transpose(2, 3).flip(3)

    calls: dict[str, Call | str] = {
        OURS: bind(layer, x, 5),
        "images mirrored": mirrored,
        "(conv2d without mask)": bind(layer, x),
    }
    return Case(calls, [x, *layer.parameters()], torch.randn_like(x))


def affinity_graph(side: int, device: torch.device) -> Case:
    """24 channels (distances 1, 2, 4) of one image to the affinities of its edges."""
    offsets = affinity_offsets((1, 2, 4))
    a = torch.rand(1, len(offsets), side, side, device=device).requires_grad_()
    channel = torch.full((9, 9), -1)
    for k, (dy, dx) in enumerate(offsets):
        channel[dy + 4, dx + 4] = k
    channel = channel.to(device)

    def by_edge() -> Tensor:
        source, target = offset_edges(side, side, offsets, device=device)
        y, x, v, u = source // side, source % side, target // side, target % side
        there, back = channel[v - y + 4, u - x + 4], channel[y - v + 4, x - u + 4]
        return (a[0, there, y, x] + a[0, back, v, u]) / 2

    def by_node() -> Tensor:
        edge_index = offset_edges(side, side, offsets, device=device)
        return edge_affinity(a[0].flatten(1).T, pixels(side, device), edge_index, offsets)

    count = offset_edges(side, side, offsets).size(1)
    calls: dict[str, Call | str] = {
        OURS: lambda: affinity_edges(a, offsets)[1],
        "graphseg, rows of nodes": by_node,
        "gather by edge": by_edge,
    }
    return Case(calls, [a], torch.randn(count, device=device))


class EdgeRefinement(MessagePassing):
    """Eq. (5) of the affinity paper, with a tensor of edges x classes for either end."""

    def forward(self, affinity: Tensor, p: Tensor, edge_index: Tensor) -> Tensor:
        return self.edge_updater(edge_index, affinity=affinity, p=p[:, 1:])

    def edge_update(self, affinity: Tensor, p_i: Tensor, p_j: Tensor) -> Tensor:
        return affinity * (2 * (torch.sigmoid(5 * (p_i * p_j).sum(1)) - 0.5))


def refinement(side: int, device: torch.device) -> Case:
    """The edges of distances 1, 2, 4 and the probabilities of 9 classes."""
    edge_index = offset_edges(side, side, affinity_offsets((1, 2, 4)), device=device)
    affinity = torch.rand(edge_index.size(1), device=device).requires_grad_()
    p = torch.randn(side * side, 9, device=device).softmax(1).requires_grad_()
    models: dict[str, Any] = {OURS: SemanticRefinement(), f"{PRINTED}, PyG edge_updater": EdgeRefinement()}
    calls = {name: bind(model, affinity, p, edge_index) for name, model in models.items()}
    return Case(calls, [affinity, p], torch.randn_like(affinity))


# Targets and losses


def instance_map(side: int, device: torch.device) -> Tensor:
    x, y = pixels(side, device).long().unbind(1)
    return (y // 37 * 20 + x // 29).view(1, side, side)


def targets(side: int, device: torch.device) -> Case:
    """56 channels of one image."""
    offsets, instances = affinity_offsets(), instance_map(side, device)
    x, y = pixels(side, device).long().view(side, side, 2).unbind(2)

    def rolled() -> Tensor:
        out = []
        for dy, dx in offsets:
            there = instances.roll((-dy, -dx), (1, 2))
            inside = (y + dy >= 0) & (y + dy < side) & (x + dx >= 0) & (x + dx < side)
            out.append(((instances == there) & (instances != 0)).to(torch.int8).where(inside, -100))
        return torch.stack(out, 1)

    return Case({OURS: lambda: affinity_targets(instances, offsets), "roll and compare": rolled})


def affinity_loss(side: int, device: torch.device) -> Case:
    """Logits [1, 56, side, side]."""
    logits = torch.randn(1, 56, side, side, device=device).requires_grad_()
    target = affinity_targets(instance_map(side, device), affinity_offsets())

    def selected() -> Tensor:
        kept = target != -100
        return F.binary_cross_entropy_with_logits(logits[kept], target[kept].float())

    return Case({OURS: lambda: affinity_cross_entropy(logits, target), "boolean indexing": selected}, [logits])


def displaced_joint(side: int, device: torch.device, reach: int) -> Case:
    """15 classes, [4, 15, side, side], (2 reach + 1)^2 displacements."""
    first, second = (torch.randn(4, 15, side, side, device=device).softmax(1).requires_grad_() for _ in range(2))

    def convolution() -> Tensor:  # as invariant information clustering has it
        return F.conv2d(second.transpose(0, 1), first.transpose(0, 1), padding=reach).permute(2, 3, 1, 0).flatten(0, 1)

    calls = {OURS: lambda: joint_counts(first, second, reach), "conv2d": convolution}
    return Case(calls, [first, second], torch.randn((2 * reach + 1) ** 2, 15, 15, device=device))


def differences(side: int, device: torch.device, weighted: bool) -> Case:
    """[4, 64, side, side]: total variation, or SPNN's smoothness."""
    x = torch.randn(4, 64, side, side, device=device).softmax(1).requires_grad_()
    image = torch.rand(4, 3, side, side, device=device)

    def plain() -> Tensor:
        total = torch.zeros((), device=device)
        for d in (2, 3):
            step = x.diff(dim=d).abs().sum(1)
            total = total + (step * torch.exp(-image.diff(dim=d).square().sum(1) / 10) if weighted else step).sum()
        return total / (4 * side * side)

    def ours() -> Tensor:
        return smoothness_loss(x, image).mean() if weighted else total_variation(x)

    return Case({OURS: ours, f"{PRINTED}, diff": plain}, [x])


def soft_image(side: int, device: torch.device) -> Case:
    """An image from 200 soft superpixels."""
    P = torch.randn(1, 200, side, side, device=device).softmax(1).requires_grad_()
    image = torch.rand(1, 3, side, side, device=device)

    def printed() -> Tensor:
        weighted = image.unsqueeze(1) * P.unsqueeze(2)  # [1, N, 3, H, W]
        mean = weighted.sum((3, 4), keepdim=True) / P.sum((2, 3), keepdim=True).unsqueeze(2)
        return (mean * P.unsqueeze(2)).sum(1)

    return Case({OURS: lambda: superpixelate(image, P), PRINTED: printed}, [P], torch.randn_like(image))


def hard_pixels(side: int, device: torch.device) -> Case:
    """OHEM of logits [2, 19, side, side]."""
    logits = torch.randn(2, CLASSES, side, side, device=device).mul(3).requires_grad_()
    target = torch.randint(0, CLASSES, (2, side, side), device=device)
    target[:, :20] = 255

    def by_sorting() -> Tensor:
        kept = target.flatten() != 255
        p = logits.softmax(1).gather(1, target.where(target != 255, 0).unsqueeze(1)).flatten()
        ordered = p[kept].sort().values
        limit = ordered[min(100_000, len(ordered)) - 1].clamp(min=0.7)
        loss = F.cross_entropy(logits, target, ignore_index=255, reduction="none").flatten()
        return loss[kept & (p <= limit)].mean()

    calls = {OURS: lambda: ohem_cross_entropy(logits, target, ignore_index=255), "softmax and sort": by_sorting}
    return Case(calls, [logits])
