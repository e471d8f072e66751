"""Attention inside groups of rows, and its parts: nothing of size rows x rows is ever held.

The rows of a group (an image of a batch, a class of an image) follow one another: `sizes [G]` cuts T rows into groups.
With S(t) the group of row t and s(t, u) = <query_t, key_u>:

    segment_attention:  out[t] = sum over u in S(t) of softmax_u(s(t, u)) value[u]
    segment_topk:       for every t the k rows u of S(t) of largest s(t, u), as edges
    segment_softmax:    softmax of edge scores over the edges of each target

How. Groups of about the same size are padded to one length and worked on together, so that the number of steps
depends on the sizes and not on the number of groups. A step takes as many rows of scores as fit `BLOCK`, each row
whole: a softmax of whole rows needs no running maximum, and the backward pass makes the scores again. Memory is that of
the rows, and one block. The length a group is padded to depends on its own size alone.

torch's fused attention on the same padded groups takes as long on CPU. It is not used: on a GPU its backward pass adds
in no defined order, and for float64 it falls back to all pairs at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from graphseg._checks import check_positive_int, check_same_device, check_shape, check_tensor
from graphseg.ops.pooling import pool, project

__all__ = ["segment_attention", "segment_softmax", "segment_topk"]

# Scores held at a time. On a CPU they stay in cache; a GPU wants fewer, larger steps.
BLOCK = {"cpu": 1 << 19, "cuda": 1 << 23}
LEAST_ROWS = 16  # of a step, however long they are


def segment_attention(query: Tensor, key: Tensor, value: Tensor, sizes: Tensor, *, loop: bool = True) -> Tensor:
    """Attention of every row to the rows of its group.

        out[t] = sum over u in S(t) of exp(<query_t, key_u>) value[u] / sum over u in S(t) of exp(<query_t, key_u>)

    Differentiable once in query, key and value. Time is the sum of squares of the sizes; memory is linear in rows.

    Args:
        query: `[T, D]`, floating-point. Scale it where scores shall be scaled.
        key: `[T, D]`, likewise.
        value: `[T, C]`, likewise.
        sizes: `[G]` int64, rows of each group, which follow one another; they add up to T, and may be 0.
        loop: whether a row attends to itself. Without it a row that is alone in its group gets 0.

    Returns:
        `[T, C]`, of the dtype of value. Computed in float32, or float64 where an input is; autocast changes nothing.

    Raises:
        TypeError: for dtypes other than these.
        ValueError: for shapes or devices that do not fit, or sizes that are negative or do not add up to T.
    """
    _check(sizes, query=query, key=key, value=value)
    check_shape("value", value, [query.size(0), None])
    dtype = _accumulate_dtype(query, key, value)
    out = _SegmentAttention.apply(query.to(dtype), key.to(dtype), value.to(dtype), sizes, loop)
    return out.to(value.dtype)


def segment_topk(query: Tensor, key: Tensor, sizes: Tensor, k: int, *, loop: bool = True) -> Tensor:
    """For every row the k rows of its group with the largest scores <query_t, key_u>; ties go to the smaller row.

    NaN counts as the largest: it shows in what is made of the edges.

    No gradient: which rows these are has none. Memory is linear in rows and edges.

    Args:
        query: `[T, D]`, floating-point.
        key: `[T, D]`, likewise.
        sizes: `[G]` int64, rows of each group, as in `segment_attention`.
        k: rows to find for each, at least 1; smaller groups give all of theirs.
        loop: whether a row may find itself.

    Returns:
        `edge_index [2, E]` int64: row 0 the row that was found (u), row 1 the one it was found for (t), ordered by
        (t, u).

    Raises:
        TypeError, ValueError: as `segment_attention`, and for k < 1.
    """
    _check(sizes, query=query, key=key)
    check_positive_int("k", k)
    dtype = _accumulate_dtype(query, key)
    query, key = query.detach().to(dtype), key.detach().to(dtype)
    found = [sizes.new_empty(2, 0)]
    for bucket in _buckets(sizes, query.device):
        Q, K = bucket.pad(query), bucket.pad(key)  # [G, L, D]
        for tile in bucket.tiles():
            scores = _scores(Q, K, bucket, tile, loop)  # [g, r, L]
            scores.masked_fill_(scores.isnan(), math.inf)
            taken = _largest(scores, k) & (scores > -math.inf)
            taken &= bucket.real[tile.groups, tile.rows, None]
            group, row, other = taken.nonzero().unbind(1)  # [e]
            start = bucket.start[tile.groups][group]
            found.append(torch.stack([start + other, start + row + tile.rows.start]))
    edges = torch.cat(found, 1)  # [2, E]
    return edges[:, edges[1].argsort(stable=True)]


def segment_softmax(score: Tensor, target: Tensor, num_nodes: int) -> Tensor:
    """Softmax of edge scores over the edges of each target.

        out[e] = exp(score_e) / sum of exp(score_f) over target_f = target_e

    Sums run in the order of edges, on any device.

    Args:
        score: `[E]`, floating-point.
        target: `[E]` int64, in [0, N).
        num_nodes: N.

    Returns:
        `[E]`, of the dtype of score.

    Raises:
        TypeError, ValueError: for dtypes, shapes or targets other than these.
    """
    check_shape("score", check_tensor("score", score), [None])
    check_shape("target", check_tensor("target", target), [score.size(0)])
    if not score.is_floating_point():
        raise TypeError(f"got dtype {score.dtype} for score, expected a floating-point dtype")
    top = pool(score.detach(), target, num_nodes, "max")  # [N]
    weight = (score - project(top, target)).exp()
    return weight / project(pool(weight, target, num_nodes, "sum"), target)


def _check(sizes: Tensor, **rows: Tensor) -> None:
    for name, tensor in rows.items():
        if not check_tensor(name, tensor).is_floating_point():
            raise TypeError(f"got dtype {tensor.dtype} for {name}, expected a floating-point dtype")
    query, key = rows["query"], rows["key"]
    check_shape("query", query, [None, None])
    check_shape("key", key, query.shape)
    if check_tensor("sizes", sizes).dtype != torch.int64:
        raise TypeError(f"got dtype {sizes.dtype} for sizes, expected torch.int64")
    check_shape("sizes", sizes, [None])
    check_same_device(sizes=sizes, **rows)
    low, total = (int(sizes.min()), int(sizes.sum())) if sizes.numel() else (0, 0)
    if low < 0 or total != query.size(0):
        wrong = f"size {low}" if low < 0 else f"{total} rows"
        raise ValueError(f"got {wrong} in sizes, expected no negative size and {query.size(0)} rows as in query")


def _accumulate_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


class _Tile(NamedTuple):
    groups: slice
    rows: slice


class _Bucket(NamedTuple):
    """Groups padded to one length L; a padded slot repeats the last row of its group."""

    start: Tensor  # [G], first row of each group
    source: Tensor  # [G, L], the row in each slot
    real: Tensor  # [G, L], whether a slot is not padded
    slot: Tensor  # [n], the real slots, in all G * L of them
    row: Tensor  # [n], their rows
    least: int  # sizes of the smallest and of the largest group
    most: int

    def pad(self, x: Tensor) -> Tensor:
        """`[T, C]` to `[G, L, C]`."""
        return x.index_select(0, self.source.view(-1)).view(*self.source.shape, -1)

    def unpad(self, padded: Tensor, into: Tensor) -> None:
        """Writes the real slots of `[G, L, C]` to their rows of `into [T, C]`."""
        into.index_copy_(0, self.row, padded.flatten(0, 1).index_select(0, self.slot))

    def tiles(self) -> Iterator[_Tile]:
        """Steps over groups, and over the rows of groups that are too large for a block."""
        G, L = self.source.shape
        block = BLOCK.get(self.source.device.type, BLOCK["cuda"])
        groups = max(1, block // (self.most * L))
        rows = self.most if groups > 1 else min(self.most, max(LEAST_ROWS, block // L))
        for g in range(0, G, groups):
            for r in range(0, self.most, rows):
                yield _Tile(slice(g, min(g + groups, G)), slice(r, min(r + rows, self.most)))


def _buckets(sizes: Tensor, device: torch.device) -> list[_Bucket]:
    """Groups by padded length. Empty ones are in none."""
    size = sizes.cpu()
    start = size.cumsum(0) - size
    length = _padded_length(size)
    buckets = []
    for L in length[size > 0].unique().tolist():
        chosen = (length == L) & (size > 0)
        first, count = start[chosen].to(device), size[chosen].to(device)  # [G]
        place = torch.arange(L, device=device)
        source = first[:, None] + torch.minimum(place, count[:, None] - 1)  # [G, L]
        real = place < count[:, None]  # [G, L]
        slot = real.view(-1).nonzero().squeeze(1)  # [n]
        least, most = (int(n) for n in torch.aminmax(size[chosen]))
        buckets.append(_Bucket(first, source, real, slot, source.view(-1)[slot], least, most))
    return buckets


def _padded_length(size: Tensor) -> Tensor:
    """Multiples of 8, and from 256 on of a sixteenth of the power of two below: at most 1/16 more."""
    # 2^(exponent - 1) < size <= 2^exponent; torch.compile (2.13) makes C++ of torch.frexp that does not compile
    exponent = torch.bucketize((size - 1).clamp(min=1), 2 ** torch.arange(62, device=size.device), right=True)
    step = (2 ** (exponent - 5).clamp(min=3)).clamp(min=8)
    return (size + step - 1) // step * step


def _scores(Q: Tensor, K: Tensor, bucket: _Bucket, tile: _Tile, loop: bool) -> Tensor:
    """[g, r, L], minus infinity at padded slots and, without `loop`, at a row's own."""
    scores = torch.bmm(Q[tile.groups, tile.rows], K[tile.groups].transpose(1, 2))
    if bucket.least < scores.size(2):
        padded = ~bucket.real[tile.groups, None, bucket.least :]
        scores[:, :, bucket.least :].masked_fill_(padded, -math.inf)
    if not loop:
        scores[:, :, tile.rows].diagonal(dim1=1, dim2=2).fill_(-math.inf)
    return scores


def _probabilities(Q: Tensor, K: Tensor, bucket: _Bucket, tile: _Tile, loop: bool) -> Tensor:
    """[g, r, L], the weights of each row; 0 for a row that has none to attend to."""
    found = _scores(Q, K, bucket, tile, loop).softmax(2)
    if not loop and bucket.least == 1:
        alone = bucket.source[tile.groups, 0] == bucket.source[tile.groups, -1]  # [g]
        found.masked_fill_(alone[:, None, None], 0)
    return found


class _SegmentAttention(Function):
    """`segment_attention` in one dtype. The backward pass makes the probabilities again."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, sizes: Tensor, loop: bool) -> Tensor:
        ctx.buckets, ctx.loop = _buckets(sizes, query.device), loop
        out = torch.empty_like(value, memory_format=torch.contiguous_format)
        with torch.autocast(query.device.type, enabled=False):
            for bucket in ctx.buckets:
                Q, K, V = bucket.pad(query), bucket.pad(key), bucket.pad(value)
                mixed = torch.empty_like(V)
                for tile in bucket.tiles():
                    P = _probabilities(Q, K, bucket, tile, loop)  # [g, r, L]
                    torch.bmm(P, V[tile.groups], out=mixed[tile.groups, tile.rows])
                bucket.unpad(mixed, out)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out = ctx.saved_tensors
        grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (query, key, value)]
        shift = (grad * out).sum(1, keepdim=True)  # [T, 1]: of each row, sum over u of P dP
        with torch.autocast(query.device.type, enabled=False):
            for bucket in ctx.buckets:
                Q, K, V = bucket.pad(query), bucket.pad(key), bucket.pad(value)
                # Without gradient padded rows add nothing to those of keys and values.
                dO = bucket.pad(grad).masked_fill_(~bucket.real.unsqueeze(2), 0)
                D = bucket.pad(shift).masked_fill_(~bucket.real.unsqueeze(2), 0)  # [G, L, 1]
                dQ, dK, dV = torch.empty_like(Q), torch.zeros_like(K), torch.zeros_like(V)
                for g, r in bucket.tiles():
                    P = _probabilities(Q, K, bucket, _Tile(g, r), ctx.loop)  # [g, r, L]
                    dV[g].baddbmm_(P.transpose(1, 2), dO[g, r])
                    dS = torch.bmm(dO[g, r], V[g].transpose(1, 2)).sub_(D[g, r]).mul_(P)  # [g, r, L]
                    torch.bmm(dS, K[g], out=dQ[g, r])
                    dK[g].baddbmm_(dS.transpose(1, 2), Q[g, r])
                for padded, into in zip((dQ, dK, dV), grads, strict=True):
                    bucket.unpad(padded, into)
        return grads[0], grads[1], grads[2], None, None


def _largest(scores: Tensor, k: int) -> Tensor:
    """Whether each score of [g, r, L] is among the k largest of its row; of equal ones the first are."""
    k = min(k, scores.size(2))
    least = scores.topk(k, 2).values[..., -1:]  # [g, r, 1]
    above, equal = scores > least, scores == least
    room = k - above.sum(2, keepdim=True)
    return above | (equal & (equal.cumsum(2) <= room))
