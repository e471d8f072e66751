"""Nearest neighbours inside clouds of points: `knn_edges` and `radius_edges`, exact, with ties settled.

The squared distance of two points is the number defined here, on every device: both are taken to float64, their
differences squared, and the squares, padded with zeros to a power of two, summed by repeated halving
(s <- s[:h] + s[h:] until one is left). Neighbours are ordered by (squared distance, index). An order of additions
that is part of the definition makes results equal bit for bit, whichever engine finds them:

- few dimensions, on CPU: one kd-tree per cloud (a single leaf for small clouds), compiled;
- many dimensions, on CPU: matrix products of the centred points give approximate distances, with a bound on their
  error by which most neighbours are already in order; the rest are compared by the exact distance, compiled;
- other devices: the tensor form at the end of this file, in blocks.

The bound. Let z be the points less about their mean, u the unit roundoff of z's dtype, N = |z|, D the dimensions.
With a = N_i^2 + N_j^2, the roundings of z change the squared distance by at most 4ua, the product <z_i, z_j> is wrong
by at most D u N_i N_j / (1 - D u) whatever its order of additions (D u a / 2 at most), and the few operations after it
by less than 10ua. Hence |error| <= beta a with beta = 2u (0.52 D + log2 D + 10), which covers the roundings of the
defined float64 distance too; where z is float64 the norms, sums of D squares themselves, take as much again as the
products. Distances that differ by more than their errors are in order.

torch-cluster is not used: `benchmarks/knn.py` finds it slower than these engines at every size of its table on CPU.
(Below a thousand points in two dimensions it is ahead by the fraction of a millisecond that a call costs here.)
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import (
    INTEGER_DTYPES,
    check_finite,
    check_positive_int,
    check_same_device,
    check_shape,
    check_tensor,
)

__all__ = ["knn_edges", "radius_edges"]

BLOCK = 1 << 22  # pairs of points worked on at once: memory is this, and what is linear in the points
LEAF, LEAF_PER_DIM = 100, 24  # points in a leaf of a tree, at most: in all, and for each dimension
FUSED_DIMS, FUSED_POINTS = 64, 2048  # up to here the kernel makes the products itself: no matrix library to wait for
TREE_DIMS, TREE_POINTS = 5, 400  # up to here trees are the faster engine on CPU; in smaller clouds one dimension less
PROBES = 32  # queries tried on a tree
SINGLE_LEAF = 64  # clouds up to this size are one leaf


@overload
def knn_edges(
    x: Tensor, k: int, batch: Tensor | None = ..., *, loop: bool = ..., return_distance: Literal[False] = ...
) -> Tensor: ...


@overload
def knn_edges(
    x: Tensor, k: int, batch: Tensor | None = ..., *, loop: bool = ..., return_distance: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def knn_edges(
    x: Tensor, k: int, batch: Tensor | None = None, *, loop: bool = False, return_distance: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """The k nearest neighbours of every point inside its cloud.

    d2(i, j) = sum_d (x_id - x_jd)^2, in float64 and in the order of additions that this module defines. Exact; ties
    go to the smaller index. Memory is linear in points and edges.

    Args:
        x: `[P, D]`, floating-point or integer, finite. Indices have no gradient: x may require one, it is not used.
        k: neighbours per point, at least 1. A cloud of n points has min(k, n - 1), with `loop` min(k, n).
        batch: `[P]` int64, not negative, sorted: the cloud of each point. Ids without points are allowed. Default:
            one cloud.
        loop: whether a point is a candidate of its own, at distance 0 (points equal to it with a smaller index still
            come first).
        return_distance: also return the squared distances.

    Returns:
        `edge_index [2, E]` int64: row 0 the neighbour, row 1 the centre, ordered by (centre, squared distance,
        neighbour). With `return_distance` a pair of it and the squared distances `[E]`, float64, in the unit of x
        squared.

    Raises:
        TypeError: if x is not a real tensor, k not an int, or batch not int64.
        ValueError: for a wrong shape, NaN or infinity in x, k < 1, or a batch that is negative or not sorted.
    """
    x, clouds = _check(x, batch)
    check_positive_int("k", k)
    room = (clouds.sizes - (0 if loop else 1)).clamp(max=k)
    start = _starts(_repeat(room, clouds.sizes))
    if x.device.type == "cpu":
        edges, dist = _knn_compiled(x, clouds, start, loop, return_distance)
    else:
        edges, dist = _knn_tensor(x, clouds, start, loop)
    return (edges, dist) if return_distance else edges


@overload
def radius_edges(
    x: Tensor,
    r: float,
    batch: Tensor | None = ...,
    *,
    loop: bool = ...,
    max_num_neighbors: int | None = ...,
    return_distance: Literal[False] = ...,
) -> Tensor: ...


@overload
def radius_edges(
    x: Tensor,
    r: float,
    batch: Tensor | None = ...,
    *,
    loop: bool = ...,
    max_num_neighbors: int | None = ...,
    return_distance: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def radius_edges(
    x: Tensor,
    r: float,
    batch: Tensor | None = None,
    *,
    loop: bool = False,
    max_num_neighbors: int | None = None,
    return_distance: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """All pairs of points of a cloud with d2(i, j) <= r * r, the closed ball, compared in float64.

    d2 is the squared distance of `knn_edges`. Memory is linear in points and edges.

    Args:
        x: `[P, D]`, floating-point or integer, finite.
        r: radius, in the unit of x; not negative.
        batch: `[P]` int64, not negative, sorted: the cloud of each point. Default: one cloud.
        loop: whether a point is a neighbour of its own.
        max_num_neighbors: keep only so many neighbours per point, the first in the order below. Default: all.
        return_distance: also return the squared distances.

    Returns:
        `edge_index [2, E]` int64: row 0 the neighbour, row 1 the centre, ordered by (centre, squared distance,
        neighbour). With `return_distance` a pair of it and the squared distances `[E]`, float64.

    Raises:
        TypeError: if x is not a real tensor, r not a number, max_num_neighbors not an int, or batch not int64.
        ValueError: for a wrong shape, NaN or infinity in x, a negative or NaN r, max_num_neighbors < 1, or a batch
            that is negative or not sorted.
    """
    x, clouds = _check(x, batch)
    if isinstance(r, bool) or not isinstance(r, int | float):
        raise TypeError(f"got {type(r).__name__} for r, expected a number")
    if not r >= 0:
        raise ValueError(f"got r={r}, expected at least 0")
    if max_num_neighbors is not None:
        check_positive_int("max_num_neighbors", max_num_neighbors)
    cap = float(r) * float(r)
    most = x.shape[0] if max_num_neighbors is None else min(max_num_neighbors, x.shape[0])
    if x.device.type == "cpu":
        edges, dist = _radius_trees(x, clouds, cap, loop, most, return_distance)
    else:
        edges, dist = _radius_tensor(x, clouds, cap, loop, most)
    return (edges, dist) if return_distance else edges


class _Clouds(NamedTuple):
    """Clouds with points: cloud c holds the points ptr[c] .. ptr[c + 1]."""

    ptr: Tensor  # [C + 1]
    sizes: Tensor  # [C]


def _check(x: Tensor, batch: Tensor | None) -> tuple[Tensor, _Clouds]:
    check_tensor("x", x)
    if not (x.is_floating_point() or x.dtype in INTEGER_DTYPES):
        raise TypeError(f"got dtype {x.dtype} for x, expected a floating-point or integer dtype")
    check_shape("x", x, (None, None))
    if x.shape[1] == 0:
        raise ValueError("got shape [*, 0] for x, expected at least one dimension")
    check_finite("x", x.detach())
    points = x.shape[0]
    if batch is None:
        sizes = torch.tensor([points] if points else [], dtype=torch.int64, device=x.device)
    else:
        check_tensor("batch", batch)
        if batch.dtype != torch.int64:
            raise TypeError(f"got dtype {batch.dtype} for batch, expected torch.int64")
        check_same_device(x=x, batch=batch)
        if tuple(batch.shape) != (points,):
            raise ValueError(f"got shape {list(batch.shape)} for batch and {points} points in x, expected [{points}]")
        if not _is_sorted(batch):
            at = int((batch[1:] < batch[:-1]).nonzero()[0])
            raise ValueError(f"got batch={int(batch[at + 1])} after {int(batch[at])}, expected sorted ids")
        if points and int(batch[0]) < 0:
            raise ValueError(f"got batch={int(batch[0])}, expected ids of at least 0")
        sizes = torch.unique_consecutive(batch, return_counts=True)[1]
    return x.detach(), _Clouds(_starts(sizes), sizes)


def _starts(counts: Tensor) -> Tensor:
    """[C + 1] where each of C consecutive runs begins, and the end."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


# On CPU the next few go through numpy: torch's own threads, once woken, spin for some milliseconds beside ours.


def _is_sorted(batch: Tensor) -> bool:
    if batch.device.type != "cpu":
        return bool((batch[1:] >= batch[:-1]).all())
    ids = batch.numpy()
    return bool((ids[1:] >= ids[:-1]).all())


def _repeat(values: Tensor, counts: Tensor) -> Tensor:
    """`values.repeat_interleave(counts)`."""
    if values.device.type != "cpu":
        return values.repeat_interleave(counts)
    return torch.from_numpy(np.repeat(values.numpy(), counts.numpy()))


def _outputs(x: Tensor, start: Tensor, want: bool) -> tuple[Tensor, Tensor]:
    total = int(start[-1])
    edges = torch.empty((2, total), dtype=torch.int64, device=x.device)
    return edges, torch.empty(total if want else 0, dtype=torch.float64, device=x.device)


def _plant(x: Tensor, clouds: _Clouds) -> Any:
    from graphseg.ops.kernels import knn as kernels

    leaf = min(LEAF, LEAF_PER_DIM * x.shape[1])
    rows = (x.float() if x.dtype == torch.bfloat16 else x).numpy()  # numpy has no bfloat16
    return kernels.plant(np.ascontiguousarray(rows, np.float64), clouds.ptr.numpy(), leaf, max(leaf, SINGLE_LEAF))


def _knn_compiled(
    x: Tensor, clouds: _Clouds, start: Tensor, loop: bool, want: bool, engine: str = "auto"
) -> tuple[Tensor, Tensor]:
    """`knn_edges` on CPU. `engine` names the one to use ("trees", "products"), for tests.

    Few dimensions are for trees. Above, estimated times decide (nanoseconds of one core, fitted to
    `benchmarks/knn.py`): products cost the same whatever the points, trees depend on how the points lie, so a few
    queries are tried where products would take many times as long as that.
    """
    edges, dist = _outputs(x, start, want)
    points, dims = x.shape
    if edges.shape[1] == 0:
        return edges, dist
    from graphseg.ops.kernels import knn as kernels

    arrays = (start.numpy(), loop, edges.numpy(), dist.numpy())
    largest = int(clouds.sizes.max())
    forest = None
    if engine == "auto":
        engine = "trees" if dims <= TREE_DIMS - (largest < TREE_POINTS) else "products"
        products = float((clouds.sizes.double() ** 2).sum()) * (2.0 + 0.03 * dims)
        leaf = 100.0 + 0.55 * LEAF * dims
        if engine == "products" and products > 20 * (PROBES * largest / LEAF * leaf + 20.0 * points * dims):
            forest = _plant(x, clouds)
            engine = "trees" if points * leaf * kernels.probe(forest, *arrays, 8, PROBES // 8) < products else engine
    if engine == "products" and _knn_products(x, clouds, start, loop, edges, dist):
        return edges, dist
    forest = _plant(x, clouds) if forest is None else forest
    kernels.query(forest, arrays[0], math.inf, *arrays[1:])
    return edges, dist


def _radius_trees(x: Tensor, clouds: _Clouds, cap: float, loop: bool, most: int, want: bool) -> tuple[Tensor, Tensor]:
    if x.shape[0] == 0:
        return _outputs(x, clouds.ptr, want)
    from graphseg.ops.kernels import knn as kernels

    forest = _plant(x, clouds)
    start = _starts(torch.from_numpy(kernels.count(forest, cap, loop, most)))
    edges, dist = _outputs(x, start, want)
    kernels.query(forest, start.numpy(), cap, loop, edges.numpy(), dist.numpy())
    return edges, dist


def _products_are_float32() -> bool:
    """Whether torch's settings leave float32 matrix products in float32 (they may allow bfloat16 inside)."""
    backends = (torch.backends, torch.backends.mkldnn, getattr(torch.backends.mkldnn, "matmul", None))
    if {getattr(backend, "fp32_precision", "none") for backend in backends} - {"none", "ieee"}:
        return False
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # raised where the older and the newer of torch's settings were both changed
        return False


def _knn_products(x: Tensor, clouds: _Clouds, start: Tensor, loop: bool, edges: Tensor, dist: Tensor) -> bool:
    """Fills edges and dist by matrix products; False, and nothing done, if x is too large or small for their bound."""
    from graphseg.ops.kernels import knn as kernels

    points, dims = x.shape
    if x.dtype not in (torch.float32, torch.float64):
        x = x.to(torch.float32 if x.is_floating_point() else torch.float64)
    x = x.contiguous()
    longest = int(clouds.sizes.max())
    fused = longest <= SINGLE_LEAF or (dims <= FUSED_DIMS and longest <= FUSED_POINTS)
    for dtype in (torch.float32, torch.float64):
        if dtype == torch.float32 and not (fused or _products_are_float32()):
            continue
        z = torch.empty((points, dims), dtype=dtype)
        norm = torch.from_numpy(kernels.centre(x.numpy(), clouds.ptr.numpy(), z.numpy()))
        limits = torch.finfo(dtype)
        largest = float(norm.max())
        if math.sqrt(limits.tiny) < largest < limits.max / 1e4 and dims * limits.eps < 0.01:
            break
    else:
        return False
    beta = limits.eps * ((0.52 if dtype == torch.float32 else 1.04) * dims + math.log2(dims) + 10)
    beta += 3 * 2.0 ** (longest.bit_length() - 52)  # the kernel keeps indices in the last bits of a mantissa
    given = kernels.Certain(
        x.numpy(),
        (norm * (1 + beta)).to(dtype).numpy(),
        (norm * (2 * beta)).to(dtype).numpy(),
        np.ascontiguousarray(z.numpy().T if fused else z.numpy()[:0]),
        32 * (dims + 4) * limits.tiny * (1 + math.sqrt(largest)) + 1e-289,  # what underflow may have lost
        _repeat(clouds.ptr[:-1], clouds.sizes).numpy(),
        start.numpy(),
        loop,
        edges.numpy(),
        dist.numpy(),
    )
    sizes = _repeat(clouds.sizes, clouds.sizes)  # [P]
    block = torch.empty(0, dtype=dtype)
    if fused:
        kernels.certify(given, _starts(sizes).numpy(), block.numpy(), 0)
        return True
    with torch.autocast("cpu", enabled=False):
        for begin, end, whole in _blocks(clouds.ptr.tolist()):
            row_ptr = _starts(sizes[begin:end])
            if block.numel() < int(row_ptr[-1]):
                block = torch.empty(int(row_ptr[-1]), dtype=dtype)
            at = 0
            for (low, high), clouds_of_size in whole:
                size = high - low
                rows = z[max(low, begin) : min(low + clouds_of_size * size, end)]
                out = block[at : at + rows.shape[0] * size]
                if clouds_of_size > 1:
                    cube = rows.view(-1, size, dims)  # [B, n, D]
                    torch.bmm(cube, cube.mT, out=out.view(-1, size, size))
                else:
                    torch.mm(rows, z[low:high].T, out=out.view(-1, size))
                at += out.numel()
            kernels.certify(given, row_ptr.numpy(), block.numpy(), begin)
    return True


def _blocks(ptr: list[int]) -> list[tuple[int, int, list[tuple[tuple[int, int], int]]]]:
    """Rows begin .. end of at most BLOCK pairs, and their clouds: ((low, high), how many of that size follow)."""
    blocks = []
    c, clouds = 0, len(ptr) - 1
    while c < clouds:
        begin, size = ptr[c], ptr[c + 1] - ptr[c]
        if size * size > BLOCK:
            rows = max(1, BLOCK // size)
            blocks += [
                (b, min(b + rows, ptr[c + 1]), [((begin, ptr[c + 1]), 1)]) for b in range(begin, ptr[c + 1], rows)
            ]
            c += 1
            continue
        runs: list[tuple[tuple[int, int], int]] = []
        pairs = 0
        while c < clouds and pairs + (ptr[c + 1] - ptr[c]) ** 2 <= BLOCK:
            size = ptr[c + 1] - ptr[c]
            pairs += size**2
            if runs and runs[-1][0][1] - runs[-1][0][0] == size:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append(((ptr[c], ptr[c + 1]), 1))
            c += 1
        blocks.append((begin, ptr[c], runs))
    return blocks


# The tensor form


def _pairs(q: Tensor, p: Tensor, first: int = 0, stride: int = 1) -> Tensor:
    """Squared distances of q [B, m, D] and p [B, n, D], one dimension at a time: [B, m, n].

    Halving adds the dimensions equal to `first` modulo `stride` as those equal to `first` and to `first + stride`
    modulo 2 * `stride`; nothing of size D is made.
    """
    dims = q.shape[-1]
    if first + stride >= dims:
        t = q[:, :, None, first] - p[:, None, :, first]
        return t * t
    return _pairs(q, p, first, 2 * stride) + _pairs(q, p, first + stride, 2 * stride)


def _padded(clouds: _Clouds) -> list[tuple[Tensor, int, int, int]]:
    """Blocks of clouds of about one size: their ids [B], the size of the largest, and a range of rows."""
    sizes, ids = clouds.sizes.sort(stable=True)
    listed = sizes.tolist()
    blocks: list[tuple[Tensor, int, int, int]] = []
    end = len(listed)
    while end > 0:
        size = listed[end - 1]
        begin = end - 1
        while begin > 0 and (end - begin + 1) * size * size <= BLOCK and 2 * listed[begin - 1] >= size:
            begin -= 1
        rows = max(1, BLOCK // size)
        blocks += [(ids[begin:end], size, r, min(r + rows, size)) for r in range(0, size, rows)]
        end = begin
    return blocks


def _block_distances(
    x: Tensor, clouds: _Clouds, ids: Tensor, size: int, low: int, high: int, loop: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres [B, m], first points of their clouds [B], squared distances [B, m, n]; NaN where there is no pair."""
    first, sizes = clouds.ptr[ids], clouds.sizes[ids]
    ranks = torch.arange(size, device=x.device)
    inside = ranks < sizes[:, None]  # [B, n]
    points = first[:, None] + torch.where(inside, ranks, 0)  # [B, n]
    p = x[points].to(torch.float64)  # [B, n, D]
    pairs = _pairs(p[:, low:high], p)
    wrong = ~(inside[:, low:high, None] & inside[:, None, :])
    if not loop:
        wrong |= ranks[low:high, None] == ranks
    centres = torch.where(inside, points, -1)[:, low:high]
    return centres, first, pairs.masked_fill_(wrong, math.nan)


def _knn_tensor(x: Tensor, clouds: _Clouds, start: Tensor, loop: bool) -> tuple[Tensor, Tensor]:
    """`knn_edges` on any device: exact distances in blocks; a stable sort where `topk` may have cut through a tie."""
    edges, dist = _outputs(x, start, True)
    if edges.shape[1] == 0:
        return edges, dist
    most = int((start[1:] - start[:-1]).max())
    for ids, size, low, high in _padded(clouds):
        centres, first, pairs = _block_distances(x, clouds, ids, size, low, high, loop)
        keep = min(most, size)
        flat = pairs.flatten(0, 1)  # [R, n]; a NaN comes after every number
        values, index = _first(flat, keep)
        centres = centres.flatten()
        index = index + first.repeat_interleave(high - low)[:, None]  # [R, keep]
        rank = torch.arange(keep, device=x.device)
        room = torch.where(centres >= 0, start[centres + 1] - start[centres], 0)
        row, column = (rank < room[:, None]).nonzero().unbind(1)
        at = start[centres[row]] + column
        edges[0, at] = index[row, column]
        edges[1, at] = centres[row]
        dist[at] = values[row, column]
    return edges, dist


def _first(values: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The first `keep` of each row by (value, index): [R, n] -> [R, keep] twice."""
    wide = min(keep + 8, values.shape[1])
    top, index = values.topk(wide, dim=1, largest=False)
    index, by_index = index.sort(dim=1)
    top, by_value = top.gather(1, by_index).sort(dim=1, stable=True)
    index = index.gather(1, by_value)
    if wide < values.shape[1]:
        cut = (top[:, keep - 1] == top[:, -1]).nonzero()[:, 0]
        for rows in cut.split(max(1, BLOCK // values.shape[1])):
            whole, order = values[rows].sort(dim=1, stable=True)
            top[rows], index[rows] = whole[:, :wide], order[:, :wide]
    return top[:, :keep], index[:, :keep]


def _radius_tensor(x: Tensor, clouds: _Clouds, cap: float, loop: bool, most: int) -> tuple[Tensor, Tensor]:
    """`radius_edges` on any device."""
    parts = []
    for ids, size, low, high in _padded(clouds):
        centres, first, pairs = _block_distances(x, clouds, ids, size, low, high, loop)
        cloud, row, column = (pairs <= cap).nonzero().unbind(1)
        values = pairs[cloud, row, column]
        centre, index = centres[cloud, row], first[cloud] + column
        order = values.argsort(stable=True)
        order = order[centre[order].argsort(stable=True)]
        centre, index, values = centre[order], index[order], values[order]
        counts = torch.unique_consecutive(centre, return_counts=True)[1]
        rank = torch.arange(centre.numel(), device=x.device) - _starts(counts)[:-1].repeat_interleave(counts)
        kept = rank < most
        parts.append((centre[kept], index[kept], values[kept]))
    if not parts:
        return _outputs(x, clouds.ptr, True)
    centre, index, values = (torch.cat(part) for part in zip(*parts, strict=True))
    order = centre.argsort(stable=True)
    return torch.stack([index[order], centre[order]]), values[order]
