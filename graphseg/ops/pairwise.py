"""Messages between pairs of nodes, weighted pair by pair: along the edges of a graph, or between all pairs of an image.

Along edges: `edge_dot` (nodes to edges) and `edge_sum` (edges to nodes). Each is the other's gradient, so they
differentiate any number of times, and neither makes a tensor of edges x channels.

Between all pairs: `all_pairs_sum`, in square tiles, forward and backward; memory is linear in nodes.

Sums run in a defined order: by edge, or by tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from graphseg._checks import check_same_device, check_shape, check_tensor

__all__ = ["EdgeGroups", "all_pairs_sum", "edge_dot", "edge_sum"]

# Bytes of rows made at a time where there is no kernel.
_CHUNK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}
# Products of a thread's share, under which a thread does not pay.
_SHARE = 1 << 20
# Nodes along the side of a tile: a few tiles lie in a CPU's cache, or fill a GPU.
_TILE = {"cpu": 1024, "cuda": 4096}


class EdgeGroups:
    """The edges of a graph, grouped by either end when first asked for.

    Args:
        edge_index: `[2, E]` int64, row 0 the source j, row 1 the target i; in any order.
        num_nodes: N.

    Raises:
        TypeError: if edge_index is not int64.
        ValueError: on another shape, or ids outside [0, N).
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        if check_tensor("edge_index", edge_index).dtype != torch.int64:
            raise TypeError(f"got dtype {edge_index.dtype} for edge_index, expected torch.int64")
        check_shape("edge_index", edge_index, (2, None))
        if edge_index.numel():
            low, high = (int(bound) for bound in torch.aminmax(edge_index))
            if low < 0 or high >= num_nodes:
                bad = low if low < 0 else high
                raise ValueError(f"got node id {bad} in edge_index, expected ids in [0, {num_nodes})")
        self.edge_index = edge_index
        self.num_nodes = num_nodes
        self._groups: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, end: int) -> tuple[Tensor, Tensor]:
        """`start [N + 1]` and `order [E]`: order[start[n]:start[n + 1]] are the edges whose `end` is n, in order."""
        if end not in self._groups:
            group = _group_compiled if self.edge_index.device.type == "cpu" else _group_tensor
            self._groups[end] = group(self.edge_index[end], self.num_nodes)
        return self._groups[end]


def edge_dot(a: Tensor, b: Tensor, edges: EdgeGroups) -> Tensor:
    """The dot product of each edge's ends: `out[e] = sum_c a[i, c] b[j, c]` for edge e = (j, i).

    Args:
        a: `[N, C]`, floating-point, read at the target i.
        b: `[N, C]`, floating-point, read at the source j.
        edges: the graph.

    Returns:
        `[E]`, of the wider dtype, at least float32.

    Raises:
        ValueError: on sizes or devices that do not fit.
    """
    check_shape("a", a, (edges.num_nodes, None))
    check_shape("b", b, tuple(a.shape))
    check_same_device(a=a, b=b, edge_index=edges.edge_index)
    dtype = _accumulate_dtype(a, b)
    return _EdgeDot.apply(a.to(dtype), b.to(dtype), edges, 1)


def edge_sum(weight: Tensor, x: Tensor, edges: EdgeGroups) -> Tensor:
    """The weighted sum of what each node's edges bring: `out[i] = sum over edges e = (j, i) of weight[e] x[j]`.

    Args:
        weight: `[E]`, floating-point.
        x: `[N, C]`, floating-point.
        edges: the graph.

    Returns:
        `[N, C]`, of the wider dtype, at least float32; 0 for a node without edges.

    Raises:
        ValueError: on sizes or devices that do not fit.
    """
    check_shape("weight", weight, (edges.edge_index.size(1),))
    check_shape("x", x, (edges.num_nodes, None))
    check_same_device(weight=weight, x=x, edge_index=edges.edge_index)
    dtype = _accumulate_dtype(weight, x)
    return _EdgeSum.apply(weight.to(dtype), x.to(dtype), edges, 1)


def all_pairs_sum(
    x: Tensor,
    token: Tensor,
    left: Tensor | None,
    right: Tensor,
    batch: Tensor | None = None,
    *,
    softmax: bool = False,
    exclude_self: bool = True,
) -> Tensor:
    """What every node of an image sends to every other: gated dot products as weights, none of them kept.

        out[i] = sum_j psi(i, j) x[j]    over the nodes j of the image of i
        psi(i, j) = sigmoid(left[i] + right[j]) (token[i] . token[j])

    Time is quadratic in the nodes of an image, memory linear. Without `left` and softmax the sum factors into
    `token[i] . sum_j token[j] (sigmoid(right[j]) x[j])`, and time is linear, too. Differentiable once (the factored
    form any number of times).

    Args:
        x: `[N, C]`, floating-point.
        token: `[N, T]`, floating-point.
        left: `[N]`, floating-point; None for 0.
        right: `[N]`, floating-point.
        batch: `[N]` int64: the image of each node, in any order. Default: one image.
        softmax: weight with the softmax of psi over the image's j instead of psi.
        exclude_self: leave out j = i.

    Returns:
        `[N, C]`, of the wider dtype, at least float32; 0 for a node that no other sends to.

    Raises:
        TypeError: if batch is not int64.
        ValueError: on sizes or devices that do not fit, or a negative batch.
    """
    N = x.size(0)
    check_shape("x", x, (None, None))
    check_shape("token", token, (N, None))
    check_shape("right", right, (N,))
    if left is not None:
        check_shape("left", left, (N,))
    check_same_device(x=x, token=token, left=left, right=right, batch=batch)
    dtype = _accumulate_dtype(x, token, right)
    x, token, right = x.to(dtype), token.to(dtype), right.to(dtype)
    left = None if left is None else left.to(dtype)
    sizes, order = _images(batch, N, x.device)
    if order is not None:
        x, token, right = x[order], token[order], right[order]
        left = None if left is None else left[order]
    if left is None and not softmax:
        out = _factored_sum(x, token, right.sigmoid(), sizes, exclude_self)
    else:
        tiles = _tiles(sizes, _TILE.get(x.device.type, 1024))
        left = torch.zeros_like(right) if left is None else left
        out = _AllPairs.apply(x, token, left, right, tiles, softmax, exclude_self)
    return out if order is None else torch.empty_like(out).index_copy(0, order, out)


def _accumulate_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest dtype among the tensors, at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


# Along edges


class _EdgeSum(Function):
    """out[n] = sum of weight[e] x[other end of e] over the edges e whose `end` is n."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, edges: EdgeGroups, end: int) -> Tensor:
        ctx.save_for_backward(weight, x)
        ctx.edges, ctx.end = edges, end
        total = _sum_compiled if x.device.type == "cpu" else _sum_tensor
        return total(weight, x, edges, end)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        weight, x = ctx.saved_tensors
        grad_weight = _EdgeDot.apply(grads[0], x, ctx.edges, ctx.end) if ctx.needs_input_grad[0] else None
        grad_x = _EdgeSum.apply(weight, grads[0], ctx.edges, 1 - ctx.end) if ctx.needs_input_grad[1] else None
        return grad_weight, grad_x, None, None


class _EdgeDot(Function):
    """out[e] = a[`end` of e] . b[other end of e]."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, edges: EdgeGroups, end: int) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.edges, ctx.end = edges, end
        dot = _dot_compiled if a.device.type == "cpu" else _dot_tensor
        return dot(a, b, edges.edge_index[end], edges.edge_index[1 - end])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        a, b = ctx.saved_tensors
        grad_a = _EdgeSum.apply(grads[0], b, ctx.edges, ctx.end) if ctx.needs_input_grad[0] else None
        grad_b = _EdgeSum.apply(grads[0], a, ctx.edges, 1 - ctx.end) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b, None, None


def _group_compiled(index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    from graphseg.ops.kernels.pairwise import group_edges

    start, order = index.new_zeros(n + 1), torch.empty_like(index, memory_format=torch.contiguous_format)
    group_edges(index.contiguous().numpy(), start.numpy(), order.numpy())
    return start, order


def _group_tensor(index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    start = torch.bincount(index, minlength=n).cumsum(0)
    return torch.cat([start.new_zeros(1), start]), torch.argsort(index, stable=True)


def _sum_compiled(weight: Tensor, x: Tensor, edges: EdgeGroups, end: int) -> Tensor:
    from graphseg.ops.kernels.pairwise import sum_edges

    out = x.new_zeros(x.shape)
    w, v, other, start, order = _arrays(weight, x, edges.edge_index[1 - end], *edges.of(end))
    total = out.numpy()
    _share_out(lambda a, b: sum_edges(w, v, other, start, order, total, a, b), len(v), len(w) * x.size(1))
    return out


def _sum_tensor(weight: Tensor, x: Tensor, edges: EdgeGroups, end: int) -> Tensor:
    """A few channels at a time: their rows are as many as the edges."""
    start, order = edges.of(end)
    other, weight = edges.edge_index[1 - end][order], weight[order].unsqueeze(1)  # [E], [E, 1]
    length = start.diff()  # [N]
    step = max(1, _CHUNK_BYTES.get(x.device.type, 1 << 22) // max(1, len(other) * x.element_size()))
    parts = [
        torch.segment_reduce(part.index_select(0, other) * weight, "sum", lengths=length, axis=0, unsafe=True)
        for part in x.split(step, 1)
    ]  # [N, c]
    return torch.cat(parts, 1)


def _dot_compiled(a: Tensor, b: Tensor, left: Tensor, right: Tensor) -> Tensor:
    from graphseg.ops.kernels.pairwise import dot_edges

    out = a.new_empty(len(left))
    p, q, i, j = _arrays(a, b, left, right)
    result = out.numpy()
    _share_out(lambda first, last: dot_edges(p, q, i, j, result, first, last), len(i), len(i) * a.size(1))
    return out


def _dot_tensor(a: Tensor, b: Tensor, left: Tensor, right: Tensor) -> Tensor:
    step = max(1, _CHUNK_BYTES.get(a.device.type, 1 << 22) // max(1, a.size(1) * a.element_size()))
    ends = zip(left.split(step), right.split(step), strict=True)
    return torch.cat([(a.index_select(0, i) * b.index_select(0, j)).sum(1) for i, j in ends])  # [E]


def _arrays(*tensors: Tensor) -> list[Any]:
    return [t.detach().contiguous().numpy() for t in tensors]


def _share_out(kernel: Callable[[int, int], None], count: int, work: int) -> None:
    """Runs the kernel over [0, count), cut into ranges for threads where the work is worth it."""
    from graphseg.ops.kernels.threads import map_threads

    shares = max(1, min(4 * torch.get_num_threads(), work // _SHARE))
    cuts = [count * k // shares for k in range(shares + 1)]
    map_threads(lambda k: kernel(cuts[k], cuts[k + 1]), range(shares))


# Between all pairs


class _Tile(NamedTuple):
    rows: slice
    cols: slice
    image: Tensor | None  # of each row and column, where a tile holds several images


def _images(batch: Tensor | None, n: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Sizes [B] of the images, and the order [N] that sorts the nodes by image if they are not."""
    if batch is None:
        return torch.tensor([n], device=device), None
    if check_tensor("batch", batch).dtype != torch.int64:
        raise TypeError(f"got dtype {batch.dtype} for batch, expected torch.int64")
    check_shape("batch", batch, (n,))
    if n and int(batch.min()) < 0:
        raise ValueError(f"got batch={int(batch.min())}, expected ids of at least 0")
    is_sorted = bool((batch[1:] >= batch[:-1]).all())
    return torch.bincount(batch), None if is_sorted else torch.argsort(batch, stable=True)


def _tiles(sizes: Tensor, side: int) -> list[_Tile]:
    """Squares of at most `side` nodes that cover all pairs within images; small images share one."""
    image = torch.repeat_interleave(sizes)  # [N]

    def shared(begin: int, end: int) -> list[_Tile]:
        nodes = slice(begin, end)
        several = begin < end and bool(image[begin] != image[end - 1])
        return [_Tile(nodes, nodes, image[nodes] if several else None)] if begin < end else []

    tiles: list[_Tile] = []
    begin = end = 0  # the nodes of small images that wait for their tile
    for size in sizes.tolist():
        if end + size - begin > side:
            tiles += shared(begin, end)
            begin = end
        end += size
        if size > side:
            cuts = [slice(k, min(k + side, end)) for k in range(begin, end, side)]
            tiles += [_Tile(rows, cols, None) for rows in cuts for cols in cuts]
            begin = end
    return tiles + shared(begin, end)


class _Weights(NamedTuple):
    similarity: Tensor  # [r, c], k(i, j)
    gate: Tensor  # [r, c], mu(i, j)
    weight: Tensor  # [r, c], their product, `hidden` where no message passes


def _tile_weights(
    token: Tensor, left: Tensor, right: Tensor, tile: _Tile, exclude_self: bool, hidden: float
) -> _Weights:
    rows, cols, _ = tile
    similarity = token[rows] @ token[cols].t()
    gate = (left[rows].unsqueeze(1) + right[cols]).sigmoid_()
    return _Weights(similarity, gate, _hide(similarity * gate, tile, exclude_self, hidden))


def _hide(values: Tensor, tile: _Tile, exclude_self: bool, fill: float) -> Tensor:
    """Fills, in place, the pairs of two images and those of a node with itself."""
    if tile.image is not None:
        values.masked_fill_(tile.image.unsqueeze(1) != tile.image, fill)
    if exclude_self and tile.rows == tile.cols:
        values.fill_diagonal_(fill)
    return values


class _AllPairs(Function):
    """`all_pairs_sum` of nodes sorted by image. The backward computes the weights of each tile again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        token: Tensor,
        left: Tensor,
        right: Tensor,
        tiles: list[_Tile],
        softmax: bool,
        exclude_self: bool,
    ) -> Tensor:
        ctx.tiles, ctx.softmax, ctx.exclude_self = tiles, softmax, exclude_self
        with torch.autocast(x.device.type, enabled=False):
            given = (token, left, right)
            forward = _softmax_forward if softmax else _plain_forward
            out, log_total = forward(x, given, tiles, exclude_self)
        ctx.save_for_backward(x, token, left, right, out if softmax else None, log_total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grads[0].device.type, enabled=False):
            to_x, *to_rest = _all_pairs_backward(
                grads[0].contiguous(), ctx.saved_tensors, ctx.tiles, ctx.exclude_self, ctx.needs_input_grad[0]
            )
        return (to_x, *to_rest, None, None, None)


def _plain_forward(
    x: Tensor, given: tuple[Tensor, Tensor, Tensor], tiles: list[_Tile], exclude_self: bool
) -> tuple[Tensor, Tensor | None]:
    out = torch.zeros_like(x, memory_format=torch.contiguous_format)
    for tile in tiles:
        out[tile.rows].addmm_(_tile_weights(*given, tile, exclude_self, 0.0).weight, x[tile.cols])
    return out, None


def _softmax_forward(
    x: Tensor, given: tuple[Tensor, Tensor, Tensor], tiles: list[_Tile], exclude_self: bool
) -> tuple[Tensor, Tensor]:
    """The output and the logarithm [N, 1] of each row's sum of exponentials; scaled to the largest weight so far."""
    out = torch.zeros_like(x, memory_format=torch.contiguous_format)
    top = x.new_full((len(x), 1), torch.finfo(x.dtype).min)  # finite: a hidden weight gives exp(-inf - top) = 0
    total = torch.zeros_like(top)
    for tile in tiles:
        weight = _tile_weights(*given, tile, exclude_self, -torch.inf).weight  # [r, c]
        rows = tile.rows
        highest = torch.maximum(top[rows], weight.amax(1, keepdim=True))  # [r, 1]
        weight.sub_(highest).exp_()
        shrink = (top[rows] - highest).exp_()
        total[rows] = total[rows] * shrink + weight.sum(1, keepdim=True)
        out[rows] = (out[rows] * shrink).addmm_(weight, x[tile.cols])
        top[rows] = highest
    total.masked_fill_(total == 0, 1)  # a node that no other sends to
    return out / total, top + total.log()


def _all_pairs_backward(
    grad: Tensor, saved: tuple[Any, ...], tiles: list[_Tile], exclude_self: bool, for_x: bool
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    x, token, left, right, out, log_total = saved
    softmax = log_total is not None
    to_x = torch.zeros_like(x) if for_x else None
    to_token, to_left, to_right = (torch.zeros_like(v) for v in (token, left, right))
    mean = (grad * out).sum(1, keepdim=True) if softmax else None  # [N, 1], of a row's gradients under its softmax
    for tile in tiles:
        rows, cols, _ = tile
        similarity, gate, weight = _tile_weights(token, left, right, tile, exclude_self, -torch.inf if softmax else 0.0)
        to_weight = grad[rows] @ x[cols].t()  # [r, c]
        if mean is not None:
            weight.sub_(log_total[rows]).exp_()
            to_weight.sub_(mean[rows]).mul_(weight)
        else:
            _hide(to_weight, tile, exclude_self, 0.0)
        if to_x is not None:
            to_x[cols].addmm_(weight.t(), grad[rows])
        to_weight.mul_(gate)  # now of the similarity
        to_token[rows].addmm_(to_weight, token[cols])
        to_token[cols].addmm_(to_weight.t(), token[rows])
        to_weight.mul_(similarity).mul_(gate.neg_().add_(1))  # now of the gate's argument
        to_left[rows] += to_weight.sum(1)
        to_right[cols] += to_weight.sum(0)
    return to_x, to_token, to_left, to_right


def _factored_sum(x: Tensor, token: Tensor, gate: Tensor, sizes: Tensor, exclude_self: bool) -> Tensor:
    """out[i] = token[i] . sum_j token[j] (gate[j] x[j]), linear in nodes; the node's own part is taken off again."""
    sent = gate.unsqueeze(1) * x  # [N, C]
    with torch.autocast(x.device.type, enabled=False):
        if len(sizes) == 1:
            out = token @ (token.t() @ sent)
        else:
            t, s = _padded(token, sizes), _padded(sent, sizes)  # [B, n, T], [B, n, C]
            out = torch.bmm(t, torch.bmm(t.transpose(1, 2), s)).flatten(0, 1).index_select(0, _slots(sizes))
    if not exclude_self:
        return out
    out = out - token.square().sum(1, keepdim=True) * sent
    alone = sizes.repeat_interleave(sizes) == 1
    return out.masked_fill(alone.unsqueeze(1), 0)  # not what rounding leaves


def _padded(values: Tensor, sizes: Tensor) -> Tensor:
    """Values [N, C] as [B, n, C], where every image has room for the largest."""
    B, room = len(sizes), int(sizes.max()) if len(sizes) else 0
    return values.new_zeros(B * room, values.size(1)).index_copy(0, _slots(sizes), values).view(B, room, values.size(1))


def _slots(sizes: Tensor) -> Tensor:
    """The rows [N] of the nodes in `_padded`, flat."""
    skipped = (
        (sizes.amax() - sizes).cumsum(0) - (sizes.amax() - sizes) if len(sizes) else sizes
    )  # [B], before each image
    return torch.arange(int(sizes.sum()), device=sizes.device) + skipped.repeat_interleave(sizes)
