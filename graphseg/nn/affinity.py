"""Affinities of pixels: predicted, averaged over both directions, refined by semantics; and their targets.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation".
Equations: Eq. (1), Eq. (2) neighbourhood, the channels of the head; Eq. (5) refinement; Eq. (6) modified sigmoid.
The paper leaves open: which channel is which neighbour (here by rising distance, then (dy, dx) row-major). To refine
with super-classes the probabilities of each are added, and the inner product is 0 between pixels whose most probable
super-classes differ; a class in none of them, and the background, is one of its own.
Differs from the paper: a pair of which one direction has no channel takes the other's affinity.

Everything ends on the edges of a graph of pixels, in the order of its `edge_index`: that of
`graphseg.ops.offset_edges` and of the affinity graph among the transforms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F
from torch_geometric.nn import Linear, MessagePassing
from torch_geometric.typing import OptTensor

from graphseg._checks import check_integer, check_positive_int, check_same_device, check_shape, check_tensor
from graphseg.ops import affinity_offsets, offset_edges
from graphseg.ops.edge_dot import inner_products
from graphseg.ops.edge_max import check_edge_index

__all__ = [
    "AffinityHead",
    "SemanticRefinement",
    "affinity_edges",
    "affinity_targets",
    "edge_affinity",
    "edge_targets",
    "modified_sigmoid",
]

Offsets = Iterable[Sequence[int]]
_ROW = 1 << 32  # (dy, dx) as one number


def modified_sigmoid(x: Tensor, alpha: float = 5.0) -> Tensor:
    """`2 (1 / (1 + exp(-alpha x)) - 1 / 2)`: 0 at 0, rising to 1.

    Args:
        x: any shape.
        alpha: twice the slope at 0.
    """
    return torch.tanh(alpha / 2 * x)  # Eq. (6), without the cancellation near 0


def affinity_targets(
    instances: Tensor, offsets: Offsets, *, background: int | None = 0, ignore_index: int = -100
) -> Tensor:
    """1 where the pixel and its neighbour lie in the same instance, 0 where not, -100 where there is nothing to learn.

    Args:
        instances: integers `[H, W]` or `[B, H, W]`, the instance of each pixel.
        offsets: K pairs (dy, dx).
        background: value of pixels of no instance, whose pairs are 0 among themselves too; None if there is none.
        ignore_index: value of pixels whose pairs are -100. So are pairs that leave the image.

    Returns:
        int8 `[K, H, W]` or `[B, K, H, W]`.

    Raises:
        TypeError, ValueError: if instances are not integers of this shape, or for bad offsets.
    """
    check_integer("instances", check_tensor("instances", instances))
    if instances.dim() not in (2, 3):
        raise ValueError(f"got shape {list(instances.shape)} for instances, expected [H, W] or [B, H, W]")
    offsets = _checked(offsets)
    H, W = instances.shape[-2:]
    out = instances.new_full((*instances.shape[:-2], len(offsets), H, W), -100, dtype=torch.int8)
    for k, (dy, dx) in enumerate(offsets):
        rows, columns = _shifted(H, dy), _shifted(W, dx)
        here, there = (instances[..., rows[side], columns[side]] for side in (0, 1))
        out[..., k, rows[0], columns[0]] = _same(here, there, background, ignore_index)
    return out


def edge_targets(
    instances: Tensor, edge_index: Tensor, *, background: int | None = 0, ignore_index: int = -100
) -> Tensor:
    """`affinity_targets` of the edges of a graph.

    Args:
        instances: integers `[N]`, the instance of each node; of a batch, the images' after each other.
        edge_index: `[2, E]`.
        background, ignore_index: as for `affinity_targets`.

    Returns:
        int8 `[E]`.

    Raises:
        TypeError, ValueError: if instances are not integers of this shape.
    """
    check_integer("instances", check_tensor("instances", instances))
    check_shape("instances", instances, (None,))
    check_edge_index(edge_index, len(instances))
    here, there = instances[edge_index]
    return _same(here, there, background, ignore_index)


def affinity_edges(
    affinity: Tensor, offsets: Offsets, *, directed: bool = False, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The affinity graph of maps: the edges of all images, and the affinity of each.

    Args:
        affinity: `[B, K, H, W]`, channel k at p for the pixel at p + offsets[k].
        offsets: K pairs (dy, dx), none twice.
        directed: both directions of every pair instead of the pair once.
        valid: bool `[B, H, W]`; pixels where it is False have no edges. Default: all have.

    Returns:
        `edge_index [2, E]`, image by image as `graphseg.ops.offset_edges`, pixels numbered through the batch; and
        `edge_attr [E]`, at least float32, the mean of both directions (see `edge_affinity`).

    Raises:
        TypeError, ValueError: for another dtype or shape than these.
    """
    offsets = _checked(offsets)
    check_shape("affinity", check_tensor("affinity", affinity), (None, len(offsets), None, None))
    B, _, H, W = affinity.shape
    affinity = affinity.to(torch.promote_types(affinity.dtype, torch.float32))
    if valid is None:
        valid = affinity.new_ones(1, H, W, dtype=torch.bool)
    else:
        if check_tensor("valid", valid).dtype != torch.bool:
            raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
        check_shape("valid", valid, (B, H, W))
        check_same_device(affinity=affinity, valid=valid)
    channel = {offset: k for k, offset in enumerate(offsets)}
    steps = sorted({sign for o in offsets for sign in (o, (-o[0], -o[1])) if directed or sign > (0, 0)})
    values, inside = [], []
    for dy, dx in steps:
        rows, columns = _shifted(H, dy), _shifted(W, dx)
        # What each pixel says of its neighbour, and the neighbour of it.
        said = [
            affinity[:, channel[offset], rows[side], columns[side]]
            for side, offset in enumerate([(dy, dx), (-dy, -dx)])
            if offset in channel
        ]
        border = (columns[0].start, W - columns[0].stop, rows[0].start, H - rows[0].stop)
        values.append(F.pad(said[0] if len(said) == 1 else (said[0] + said[1]) / 2, border))
        inside.append(F.pad(valid[:, rows[0], columns[0]] & valid[:, rows[1], columns[1]], border))
    if not steps:
        return affinity.new_zeros(2, 0, dtype=torch.int64), affinity.new_zeros(0)
    M = len(steps)
    kept = torch.stack(inside, 3).expand(B, -1, -1, -1).reshape(-1).nonzero().squeeze(1)  # [E], of pixels times steps
    source = kept.div(M, rounding_mode="floor")
    along = torch.tensor([dy * W + dx for dy, dx in steps], device=affinity.device)
    edge_index = torch.stack([source, source + along[kept - source * M]])
    return edge_index, torch.stack(values, 3).reshape(-1)[kept]


def edge_affinity(x: Tensor, pos: Tensor, edge_index: Tensor, offsets: Offsets) -> Tensor:
    """The affinity of each edge (i, j): the mean of what i says of j and j of i.

    Args:
        x: `[N, K]` affinities of pixels, channel k for the neighbour at `offsets[k]`.
        pos: `[N, 2]`, (x, y) in pixels.
        edge_index: `[2, E]`, one or both directions of pairs, each at one of the offsets or its negative.
        offsets: K pairs (dy, dx), none twice.

    Returns:
        `[E]`, at least float32, the same for (i, j) and (j, i). A direction without a channel is left out of the mean.

    Raises:
        TypeError, ValueError: for another dtype or shape, or an edge at none of the offsets.
    """
    offsets = _checked(offsets)
    K = len(offsets)
    check_shape("x", check_tensor("x", x), (None, K))
    check_shape("pos", check_tensor("pos", pos), (len(x), 2))
    check_edge_index(edge_index, len(x))
    check_same_device(x=x, pos=pos, edge_index=edge_index)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    i, j = edge_index
    found = sorted((dy * _ROW + dx, k) for k, (dy, dx) in enumerate(offsets) if max(abs(dy), abs(dx)) < _ROW >> 2)
    keys, order = torch.tensor(found, dtype=torch.int64, device=x.device).view(-1, 2).T.contiguous()
    step = (pos.index_select(0, j) - pos.index_select(0, i)).round().long()  # [E, 2], (dx, dy)
    key = step[:, 1] * _ROW + step[:, 0]
    there, back = (_channel(k, keys, order) for k in (key, -key))  # [E], -1 for none
    if bool(((there < 0) & (back < 0)).any()):
        e = int(((there < 0) & (back < 0)).nonzero()[0])
        dx, dy = step[e].tolist()
        raise ValueError(f"got edge {e} at (dy, dx) = ({dy}, {dx}), expected one of the {K} offsets or its negative")
    flat = x.reshape(-1)
    both = [
        flat[node * K + channel.clamp(min=0)].masked_fill(channel < 0, 0) for node, channel in ((i, there), (j, back))
    ]
    return (both[0] + both[1]) / ((there >= 0).to(x.dtype) + (back >= 0).to(x.dtype))


class AffinityHead(Module):
    """One logit for each neighbour of each pixel: a linear map of its features; the sigmoid of it is the affinity.

    Args:
        in_channels: C.
        offsets: (dy, dx) of the neighbour that each channel stands for, none twice. Default: the paper's 56, see
            `graphseg.ops.affinity_offsets`.
    """

    def __init__(self, in_channels: int, offsets: Offsets | None = None) -> None:
        super().__init__()
        check_positive_int("in_channels", in_channels)
        self.in_channels = in_channels
        self.offsets = _checked(affinity_offsets() if offsets is None else offsets)  # Eq. (1), Eq. (2)
        self.lin = Linear(in_channels, len(self.offsets))

    def reset_parameters(self) -> None:
        """Draws the weights anew."""
        self.lin.reset_parameters()

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Returns logits `[P, K]` or `[B, K, H, W]`.

        Args:
            x: features of pixels `[P, C]`, or maps `[B, C, h, w]`.
            size: (H, W), to which the logits of maps are resized (bilinear). Default: theirs.
        """
        C = self.in_channels
        if check_tensor("x", x).dim() == 2:
            check_shape("x", x, (None, C))
            return self.lin(x)
        check_shape("x", x, (None, C, None, None))
        logits = F.conv2d(x, self.lin.weight.view(-1, C, 1, 1), self.lin.bias)  # [B, K, h, w]
        return logits if size is None else F.interpolate(logits, size, mode="bilinear")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {len(self.offsets)} offsets)"


class SemanticRefinement(MessagePassing):
    """`sigma(sum_c p_i(c) p_j(c)) * affinity_ij` on every edge, over classes c other than the background.

    Args:
        alpha: slope of `sigma(s) = 2 / (1 + exp(-alpha s)) - 1`.
        super_classes: sets of classes that are told apart badly: within one their probabilities are added, between
            two the affinity becomes 0. Default: none, Eq. (5) as printed.
        background: the class to leave out; None if there is none.

    Raises:
        ValueError: for a class in two sets, or the background in one.
    """

    def __init__(
        self, alpha: float = 5.0, super_classes: Iterable[Iterable[int]] | None = None, background: int | None = 0
    ) -> None:
        super().__init__(node_dim=0)
        self.alpha = alpha
        self.super_classes = None if super_classes is None else [sorted(s) for s in super_classes]
        self.background = background
        named = [c for s in self.super_classes or () for c in s]
        if len(set(named)) < len(named) or background in named:
            raise ValueError(
                f"got super_classes={self.super_classes}, expected disjoint sets without background={background}"
            )

    def forward(self, affinity: Tensor, probability: Tensor, edge_index: Tensor) -> Tensor:
        """Returns `[E]`, refined affinities.

        Args:
            affinity: `[E]`.
            probability: `[N, M]`, of the classes of each pixel.
            edge_index: `[2, E]`.

        Raises:
            TypeError, ValueError: for another shape, ids outside [0, N), or classes outside [0, M).
        """
        check_shape("probability", check_tensor("probability", probability), (None, None))
        check_edge_index(edge_index, len(probability))
        check_shape("affinity", check_tensor("affinity", affinity), (edge_index.shape[1],))
        check_same_device(affinity=affinity, probability=probability, edge_index=edge_index)
        p, kind = self._grouped(probability)
        return self.edge_updater(edge_index, affinity=affinity, p=p, kind=kind)

    def edge_update(
        self, affinity: Tensor, p: Tensor, kind_i: OptTensor, kind_j: OptTensor, edge_index: Tensor
    ) -> Tensor:
        """The refined affinities `[E]`."""
        similarity = inner_products(p, edge_index)
        if kind_i is not None and kind_j is not None:
            similarity = similarity.masked_fill(kind_i != kind_j, 0)
        return modified_sigmoid(similarity, self.alpha) * affinity  # Eq. (5)

    def _grouped(self, probability: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities `[N, S]` of all super-classes but the background, and the most probable one of each pixel."""
        M, background = probability.shape[1], self.background
        group = list(range(M))
        for c in [c for s in self.super_classes or () for c in s] + [background or 0]:
            if not 0 <= c < M:
                raise ValueError(f"got class {c}, expected one of the {M} classes in probability")
        for members in self.super_classes or ():
            for c in members:
                group[c] = members[0]  # the super-class goes by the name of its first class
        kept = [c for c in range(M) if group[c] == c and c != background]
        probability = probability.to(torch.promote_types(probability.dtype, torch.float32))
        if self.super_classes is None:
            return probability[:, kept], None
        names = [*kept, *([] if background is None else [background])]
        member = torch.tensor([[g == c for c in names] for g in group], dtype=probability.dtype)  # [M, S + 1]
        with torch.autocast(probability.device.type, enabled=False):
            grouped = probability @ member.to(probability.device)
        return grouped[:, : len(kept)], grouped.argmax(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.alpha}, super_classes={self.super_classes})"


def _same(here: Tensor, there: Tensor, background: int | None, ignore_index: int) -> Tensor:
    same = here == there
    if background is not None:
        same &= here != background
    return same.to(torch.int8).masked_fill((here == ignore_index) | (there == ignore_index), -100)


def _channel(key: Tensor, keys: Tensor, order: Tensor) -> Tensor:
    """The channel of each key, or -1."""
    if not keys.numel():
        return torch.full_like(key, -1)
    place = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
    return order[place].where(keys[place] == key, -1)


def _shifted(length: int, step: int) -> tuple[slice, slice]:
    """Where a pixel and its neighbour `step` further on are both inside: the pixels, and the neighbours."""
    room = max(length - abs(step), 0)
    first = min(max(-step, 0), length)
    return slice(first, first + room), slice(max(step, 0), max(step, 0) + room)


def _checked(offsets: Offsets) -> list[tuple[int, int]]:
    listed = [tuple(o) for o in offsets]
    offset_edges(1, 1, listed)  # refuses what is not two ints
    if len(set(listed)) < len(listed):
        twice = next(o for o in listed if listed.count(o) > 1)
        raise ValueError(f"got offset {twice} twice, expected every channel to have a neighbour of its own")
    return [(int(dy), int(dx)) for dy, dx in listed]
