"""`pool` (pixels to nodes) and `project` (nodes to pixels): a symmetric pair, hard and soft.

With A [P, N] the probability of node n given pixel p (one-hot when the assignment is hard):

    pool, mean:  out[n] = sum_p A[p, n] values[p] / sum_p A[p, n]
    pool, sum:   out[n] = sum_p A[p, n] values[p]
    project:     out[p] = sum_n A[p, n] values[n]

The soft forms are Eq. (3) and Eq. (6) of Eliasof, Ben Zikri and Treister, "Unsupervised Image Semantic
Segmentation through Superpixels and Graph Neural Networks". Pool by sum and project are each other's adjoint,
and each is the other's gradient.

Hard and sparse sums run in pixel order, so that results depend neither on the run nor on the number of
threads. A CPU adds element by element; a GPU sorts the pixels by node first, because its atomic additions
have no order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from graphseg._checks import (
    INTEGER_DTYPES,
    check_choice,
    check_positive_int,
    check_same_device,
    check_shape,
    check_tensor,
)

__all__ = ["pool", "project"]

_SPARSE_LAYOUTS = (torch.sparse_coo, torch.sparse_csr)
# Bytes of rows gathered at a time: they stay in cache on a CPU, and need few launches on a GPU.
_CHUNK_BYTES = {"cpu": 1 << 22, "cuda": 1 << 28}


def pool(
    values: Tensor,
    assignment: Tensor,
    num_nodes: int | None = None,
    reduce: str = "mean",
    *,
    valid: Tensor | None = None,
) -> Tensor:
    """Reduces pixel values to node values; the counterpart of `project`.

        hard:  out[n] = reduce of values[p] over the pixels p with assignment[p] = n
        soft:  out[n] = sum_p A[p, n] values[p] / sum_p A[p, n]   (mean),   sum_p A[p, n] values[p]   (sum)

    A node without pixels (soft: without probability) gives 0 for every `reduce`, and no gradient. Of tied
    extremes the first pixel gets the gradient. No [P, N] tensor is made for a hard or a sparse assignment.

    Args:
        values: `[P, *]`, one row per pixel. Integers count as numbers, not as classes.
        assignment: hard, int64 or int32 `[P]`, the node of each pixel; or soft, floating-point `[P, N]`,
            dense or sparse (COO or CSR), the probability of the node given the pixel (its sign is not
            checked).
        num_nodes: N. Default: largest assignment + 1 over valid pixels (0 if there are none); soft: its
            second size.
        reduce: "mean", "sum", "max" or "min"; the last two only for a hard assignment.
        valid: bool `[P]`; pixels where it is False are skipped: their value, assignment and probabilities are
            never read, and their gradient is 0. Default: all pixels count.

    Returns:
        `[N, *]`. Floating-point values keep their dtype (float16 and bfloat16 are summed in float32).
        Integers: "mean" gives the default float dtype, "sum" int64, "max" and "min" their own; soft always
        the default float dtype.

    Raises:
        TypeError: on bool or complex values, or dtypes of `assignment` and `valid` other than these.
        ValueError: on sizes or devices that do not fit, assignments outside [0, num_nodes), or a `reduce`
            that the assignment does not allow.
    """
    _check_rows(values)
    _check_numbers(values)
    check_choice("reduce", reduce, ("mean", "sum", "max", "min"))
    if num_nodes is not None:
        check_positive_int("num_nodes", num_nodes, minimum=0)
    soft = _check_assignment(assignment, valid, values)
    if values.size(0) != assignment.size(0):
        raise ValueError(f"got {values.size(0)} pixels in values, expected {assignment.size(0)} as in assignment")
    x = values.flatten(1) if values.dim() > 1 else values.unsqueeze(1)  # [P, C]
    if soft:
        if reduce in ("max", "min"):
            raise ValueError(f"got reduce={reduce!r} with a soft assignment, expected 'mean' or 'sum'")
        if num_nodes is not None and num_nodes != assignment.size(1):
            raise ValueError(f"got num_nodes={num_nodes}, expected {assignment.size(1)}, the second size of assignment")
        out = _pool_soft(x, assignment, reduce, valid)
    else:
        ids, n = _node_ids(assignment, num_nodes, valid)
        out = _pool_hard(x, ids, n, reduce, skip=valid is not None)
    return out.reshape(out.size(0), *values.shape[1:])


def project(values: Tensor, assignment: Tensor, *, valid: Tensor | None = None, fill: float = 0.0) -> Tensor:
    """Gives every pixel the value of its node; the counterpart of `pool`.

        hard:  out[p] = values[assignment[p]]
        soft:  out[p] = sum_n A[p, n] values[n]

    Args:
        values: `[N, *]`, one row per node. Any dtype for a hard assignment; numbers for a soft one.
        assignment: hard `[P]` or soft `[P, N]`, as in `pool`.
        valid: bool `[P]`; pixels where it is False get `fill`: their assignment and probabilities are never
            read.
        fill: value of the pixels that are not valid.

    Returns:
        `[P, *]`, of the dtype of `values` (soft: the default float dtype if these are integers).

    Raises:
        TypeError: on bool values under a soft assignment, or dtypes of `assignment` and `valid` other than
            these.
        ValueError: on sizes or devices that do not fit, assignments outside [0, N), or a `fill` that integer
            values cannot hold.
    """
    _check_rows(values)
    soft = _check_assignment(assignment, valid, values)
    x = values.flatten(1) if values.dim() > 1 else values.unsqueeze(1)  # [N, C]
    if soft:
        _check_numbers(values)
        if x.size(0) != assignment.size(1):
            raise ValueError(f"got {x.size(0)} nodes in values, expected {assignment.size(1)} as in assignment")
        out = _project_soft(x, assignment, valid, fill)
    else:
        ids, _ = _node_ids(assignment, x.size(0), valid)
        if valid is not None:
            # One more row holds the fill, and pixels that are not valid point to it.
            x = torch.cat([x, _fill_row(x, fill)])  # [N + 1, C]
        out = _Gather.apply(x, ids)
    return out.reshape(assignment.size(0), *values.shape[1:])


def _check_rows(values: object) -> None:
    value = check_tensor("values", values)
    if value.layout != torch.strided:
        raise TypeError(f"got layout {value.layout} for values, expected a dense tensor")
    if value.dim() == 0:
        raise ValueError("got shape [] for values, expected one row per pixel or node")


def _check_numbers(values: Tensor) -> None:
    if not values.is_floating_point() and values.dtype not in INTEGER_DTYPES:
        raise TypeError(f"got dtype {values.dtype} for values, expected a floating-point or integer dtype")


def _check_assignment(assignment: object, valid: Tensor | None, values: Tensor) -> bool:
    """Returns whether the assignment is soft."""
    given = check_tensor("assignment", assignment)
    if given.layout not in (torch.strided, *_SPARSE_LAYOUTS):
        raise TypeError(f"got layout {given.layout} for assignment, expected strided, sparse_coo or sparse_csr")
    soft = given.is_floating_point()
    if soft:
        check_shape("assignment", given, [None, None])
    elif given.layout != torch.strided or given.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"got dtype {given.dtype} for assignment, expected int64 or int32 [P] or floating-point [P, N]")
    else:
        check_shape("assignment", given, [None])
    if valid is not None:
        if check_tensor("valid", valid).dtype != torch.bool:
            raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
        check_shape("valid", valid, [given.size(0)])
    check_same_device(values=values, assignment=given, valid=valid)
    return soft


def _node_ids(assignment: Tensor, num_nodes: int | None, valid: Tensor | None) -> tuple[Tensor, int]:
    """Returns int64 ids [P], where pixels that are not valid have id N, and N."""
    ids = assignment.long()
    read = ids if valid is None else ids[valid]
    low, high = (int(b) for b in torch.aminmax(read)) if read.numel() else (0, -1)
    n = high + 1 if num_nodes is None else num_nodes
    if low < 0 or high >= n:
        raise ValueError(f"got assignment id {low if low < 0 else high}, expected ids in [0, {max(n, 0)})")
    return (ids if valid is None else ids.masked_fill(~valid, n)), n


def _fill_row(values: Tensor, fill: float) -> Tensor:
    """Returns [1, *], full of `fill`, or raises ValueError where the dtype of `values` cannot hold it."""
    if not values.is_floating_point() and not values.is_complex():
        low, high = (0, 1) if values.dtype == torch.bool else _bounds(values.dtype)
        if not float(fill).is_integer() or not low <= fill <= high:
            raise ValueError(f"got fill={fill}, expected a whole number in [{low}, {high}] for {values.dtype}")
        fill = int(fill)
    return torch.full((1, *values.shape[1:]), fill, dtype=values.dtype, device=values.device)


def _bounds(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return info.min, info.max


def _accumulate_dtype(*tensors: Tensor) -> torch.dtype:
    """Returns the widest floating-point dtype among the tensors, at least float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype if tensor.is_floating_point() else torch.float32)
    return dtype


def _result_dtype(x: Tensor) -> torch.dtype:
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


# Hard assignment


def _pool_hard(x: Tensor, ids: Tensor, n: int, reduce: str, skip: bool) -> Tensor:
    """Reduces x [P, C] to [N, C]. With `skip`, id N means: no node."""
    size = n + 1 if skip else n
    if reduce in ("max", "min"):
        return _extreme(x, ids, size, reduce)[:n]
    acc = x.to(_accumulate_dtype(x) if x.is_floating_point() else torch.int64)
    total = _SegmentSum.apply(acc, ids, size)[:n]  # [N, C]
    if reduce == "sum":
        return total.to(x.dtype) if x.is_floating_point() else total
    count = torch.bincount(ids, minlength=size)[:n].clamp(min=1).unsqueeze(1)  # [N, 1]
    if x.is_floating_point():
        return (total / count.to(total.dtype)).to(x.dtype)
    return (total.double() / count).to(_result_dtype(x))


def _sequential_sum(x: Tensor, ids: Tensor, n: int) -> Tensor:
    """out[i] = sum of x[e] over ids[e] = i, in the order of e on a CPU. x [E, C] to [N, C].

    Floating-point sums run in float64 and are rounded once: in float32 the mean of a region of 300,000 equal pixels
    would be off in the fourth digit.
    """
    if x.dtype not in (torch.float32, torch.float64) or x.device.type != "cpu":
        return x.new_zeros(n, x.size(1)).index_add_(0, ids, x)
    from graphseg.ops.kernels.pooling import sum_columns, sum_rows

    x, ids = x.detach(), ids.contiguous()
    if x.size(1) > 1 and x.stride(0) == 1:  # channels-first: along the channels' own rows, not across them
        total = torch.zeros(x.size(1), n, dtype=torch.float64)
        sum_columns(x.t().contiguous().numpy(), ids.numpy(), total.numpy())
        return total.t().to(x.dtype, memory_format=torch.contiguous_format)
    total = torch.zeros(n, x.size(1), dtype=torch.float64)
    sum_rows(x.contiguous().numpy(), ids.numpy(), total.numpy())
    return total.to(x.dtype)


def _sorted_sum(x: Tensor, ids: Tensor, n: int) -> Tensor:
    """`_sequential_sum` with a defined order where additions run side by side."""
    order = torch.argsort(ids, stable=True)
    length = torch.bincount(ids, minlength=n)  # [N]
    return torch.segment_reduce(x.index_select(0, order), "sum", lengths=length, axis=0, unsafe=True)


def _ordered_sum(x: Tensor, ids: Tensor, n: int) -> Tensor:
    # Integer sums do not depend on the order.
    in_order = x.device.type == "cpu" or not x.is_floating_point()
    return _sequential_sum(x, ids, n) if in_order else _sorted_sum(x, ids, n)


class _SegmentSum(Function):
    """out[i] = sum of x[e] over ids[e] = i; its gradient is `_Gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ids: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(ids)
        return _ordered_sum(x, ids, n)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        return _Gather.apply(grads[0], ids), None, None


class _Gather(Function):
    """out[e] = x[ids[e]]; its gradient is `_SegmentSum`.

    That of `index_select` would have no order on a GPU, and would add up in float16 where x is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.n = x.size(0)
        return x.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        total = _SegmentSum.apply(grads[0].to(_accumulate_dtype(grads[0])), ids, ctx.n)
        return total.to(grads[0].dtype), None


def _extreme(x: Tensor, ids: Tensor, n: int, reduce: str) -> Tensor:
    """Max or min of x [P, C] over each id [N, C]; 0 where there is none."""
    if x.dtype == torch.uint16:  # torch has no scatter_reduce for it
        return _extreme(x.int(), ids, n, reduce).to(torch.uint16)
    P = x.size(0)
    if P == 0:
        return _SegmentSum.apply(x, ids, n)
    needs_grad = torch.is_grad_enabled() and x.requires_grad
    with torch.no_grad():
        best = _scatter_extreme(x, ids, n, reduce)  # [N, C]
        if not needs_grad:
            return best
        # The first pixel that attains it; NaN attains itself. In chunks: at once it takes twice as long.
        first = torch.full_like(best, P, dtype=torch.int64)  # [N, C]
        pixel = torch.arange(P, device=x.device).unsqueeze(1)  # [P, 1]
        for part in _chunks(P, x):
            rows, nodes = x[part], ids[part]  # [p, C], [p]
            wins = (rows == best.index_select(0, nodes)) | rows.isnan()
            first.scatter_reduce_(0, nodes.unsqueeze(1).expand_as(rows), torch.where(wins, pixel[part], P), "amin")
        empty = first == P
        first.masked_fill_(empty, 0)
    # Every pixel wins at most once per channel, so the gradient of this gather has no order to settle.
    return x.gather(0, first).masked_fill(empty, 0)


def _scatter_extreme(x: Tensor, ids: Tensor, n: int, reduce: str) -> Tensor:
    # The order does not matter to an extreme, hence no sorting on any device.
    how = {"max": "amax", "min": "amin"}[reduce]
    if x.size(1) > 1 and x.stride(0) == 1:
        index = ids.expand(x.size(1), -1)  # [C, P]
        out = x.new_zeros(x.size(1), n).scatter_reduce(1, index, x.t(), how, include_self=False)
        return out.t().contiguous()
    index = ids.unsqueeze(1).expand(-1, x.size(1))  # [P, C]
    return x.new_zeros(n, x.size(1)).scatter_reduce(0, index, x, how, include_self=False)


# Soft assignment


def _pool_soft(x: Tensor, assignment: Tensor, reduce: str, valid: Tensor | None) -> Tensor:
    """Reduces x [P, C] to [N, C] with probabilities [P, N]."""
    dtype = _accumulate_dtype(x, assignment)
    N = assignment.size(1)
    if assignment.layout == torch.strided:
        if valid is not None:
            rows = valid.nonzero().squeeze(1)  # [V]
            x, assignment = x.index_select(0, rows), assignment.index_select(0, rows)
        weight = assignment.to(dtype)  # [P, N]
        with torch.autocast(x.device.type, enabled=False):
            total = weight.t() @ x.to(dtype)  # numerator of Eq. (3)
        mass = weight.sum(0)  # [N], denominator of Eq. (3)
    else:
        pixel, node, weight = _triples(assignment, valid)
        weight = weight.to(dtype)  # [E]
        total = _SparseProduct.apply(weight, x.to(dtype), node, pixel, N)
        mass = _SegmentSum.apply(weight.unsqueeze(1), node, N).squeeze(1)
    if reduce == "mean":
        empty = (mass == 0).unsqueeze(1)  # [N, 1]
        total = (total / mass.unsqueeze(1).masked_fill(empty, 1)).masked_fill(empty, 0)  # Eq. (3)
    return total.to(_result_dtype(x))


def _project_soft(x: Tensor, assignment: Tensor, valid: Tensor | None, fill: float) -> Tensor:
    """Spreads x [N, C] to [P, C] with probabilities [P, N], Eq. (6)."""
    dtype = _accumulate_dtype(x, assignment)
    P = assignment.size(0)
    rows = None if valid is None else valid.nonzero().squeeze(1)  # [V]
    if assignment.layout == torch.strided:
        weight = assignment if rows is None else assignment.index_select(0, rows)
        with torch.autocast(x.device.type, enabled=False):
            out = weight.to(dtype) @ x.to(dtype)  # Eq. (6)
        if rows is not None:
            out = out.new_full((P, x.size(1)), fill).index_copy(0, rows, out)
    else:
        pixel, node, weight = _triples(assignment, valid)
        out = _SparseProduct.apply(weight.to(dtype), x.to(dtype), pixel, node, P)  # Eq. (6)
        if valid is not None:
            out = torch.where(valid.unsqueeze(1), out, fill)
    return out.to(_result_dtype(x))


def _triples(assignment: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Returns pixel, node and probability [E] of a sparse assignment; gradients flow through the last."""
    if assignment.layout == torch.sparse_coo:
        assignment = assignment.coalesce()
        pixel, node = assignment.indices()
    else:
        length = assignment.crow_indices().diff()  # [P]
        pixel = torch.arange(assignment.size(0), device=assignment.device).repeat_interleave(length)
        node = assignment.col_indices().long()
    weight = assignment.values()
    if valid is not None:
        keep = valid.index_select(0, pixel).nonzero().squeeze(1)
        pixel, node, weight = pixel[keep], node[keep], weight.index_select(0, keep)
    return pixel, node, weight


def _chunks(num_entries: int, x: Tensor) -> list[slice]:
    step = max(1, _CHUNK_BYTES.get(x.device.type, 1 << 22) // max(1, x.size(1) * x.element_size()))
    return [slice(start, start + step) for start in range(0, num_entries, step)]


def _sequential_product(weight: Tensor, x: Tensor, into: Tensor, source: Tensor, n: int) -> Tensor:
    """out[into[e]] += weight[e] x[source[e]], in the order of e on a CPU."""
    index = torch.stack([into, source])  # [2, E]
    matrix = torch.sparse_coo_tensor(index, weight, (n, len(x)), check_invariants=False)
    return torch.sparse.mm(matrix, x)


def _sorted_product(weight: Tensor, x: Tensor, into: Tensor, source: Tensor, n: int) -> Tensor:
    """`_sequential_product` with a defined order on any device, with one chunk of products at a time."""
    out = x.new_zeros(n, x.size(1))
    for part in _chunks(len(weight), x):
        rows = x.index_select(0, source[part]).mul_(weight[part].unsqueeze(1))  # [e, C]
        out += _sorted_sum(rows, into[part], n)
    return out


class _SparseProduct(Function):
    """out[i] = sum of weight[e] x[source[e]] over into[e] = i: sparse times dense."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, into: Tensor, source: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(weight, x, into, source)
        product = _sequential_product if x.device.type == "cpu" else _sorted_product
        return product(weight, x, into, source, n)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        weight, x, into, source = ctx.saved_tensors
        grad_weight = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_weight = _PairProduct.apply(grads[0], x, into, source)
        if ctx.needs_input_grad[1]:
            grad_x = _SparseProduct.apply(weight, grads[0], source, into, x.size(0))
        return grad_weight, grad_x, None, None, None


class _PairProduct(Function):
    """out[e] = sum_c a[left[e], c] b[right[e], c]: the gradient of `_SparseProduct` in its weights."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, left, right)
        out = a.new_empty(len(left))
        for part in _chunks(len(left), a):
            out[part] = a.index_select(0, left[part]).mul_(b.index_select(0, right[part])).sum(1)  # [e]
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        a, b, left, right = ctx.saved_tensors
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = _SparseProduct.apply(grads[0], b, left, right, a.size(0))
        if ctx.needs_input_grad[1]:
            grad_b = _SparseProduct.apply(grads[0], a, right, left, b.size(0))
        return grad_a, grad_b, None, None
