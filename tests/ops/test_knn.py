"""Nearest neighbours against plain loops, scipy's cKDTree and torch-cluster, ties and all."""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from skimage import data
from torch import Tensor

from graphseg.ops import knn_edges, radius_edges
from tests.reference import knn as reference

knn = importlib.import_module("graphseg.ops.knn")
ENGINES = ("trees", "products", "blocks", "doubles", "tensors")


def assert_same(got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    """Edges and squared distances, bit for bit."""
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1], wanted[1])


def by_loops(x: Tensor, batch: Tensor | None, **options: Any) -> tuple[Tensor, Tensor]:
    clouds = [0] * len(x) if batch is None else batch.tolist()
    edges = reference.neighbours(x.double().tolist(), clouds, **options)
    index = torch.tensor([edge[:2] for edge in edges], dtype=torch.int64).reshape(-1, 2).T
    return index, torch.tensor([edge[2] for edge in edges], dtype=torch.float64)


def by_engine(engine: str, x: Tensor, k: int, batch: Tensor | None = None, loop: bool = False) -> tuple[Tensor, Tensor]:
    """`knn_edges` with distances by one engine: a tree, products (made by the kernel, or by torch), or tensors."""
    with pytest.MonkeyPatch.context() as patch:
        if engine == "tensors":
            patch.setattr(knn, "_knn_compiled", lambda *given: knn._knn_tensor(*given[:4]))
        else:
            kind = engine if engine == "trees" else "products"
            compiled = knn._knn_compiled
            patch.setattr(knn, "_knn_compiled", lambda *given: compiled(*given, engine=kind))
        if engine in ("blocks", "doubles"):
            patch.setattr(knn, "FUSED_DIMS", 0)
            patch.setattr(knn, "SINGLE_LEAF", 0)
            patch.setattr(knn, "BLOCK", 700 if len(x) < 200 else 100_000)
        if engine == "doubles":
            patch.setattr(knn, "_products_are_float32", lambda: False)
        edges, dist = knn_edges(x, k, batch, loop=loop, return_distance=True)
        assert torch.equal(knn_edges(x, k, batch, loop=loop), edges)  # without distances fewer are computed
        return edges, dist


def clouds(sizes: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def points(kind: str, count: int, dims: int) -> Tensor:
    """Clouds of one kind, float32 or float64."""
    x = torch.randn(count, dims)
    if kind == "grid":  # nearly all distances tie
        return torch.randint(0, 3, (count, dims)).float()
    if kind == "offset":
        return x + 1e4
    if kind == "duplicates":
        x = x.double()
        x[count // 4 : count // 2] = x[0]
        return x
    if kind == "equal":
        return x[:1].expand(count, dims).contiguous()
    if kind == "close":  # float32 cannot tell these apart once rounded
        return 1 + x.double() * 1e-12
    if kind == "outlier":
        x[count // 2] *= 1e6
        return x
    if kind == "huge":
        return x.double() * 1e200
    if kind == "tiny":
        return x * 1e-30
    return x


KINDS = ("plain", "grid", "offset", "duplicates", "equal", "close", "outlier", "huge", "tiny")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [1, 2, 3, 5, 8, 37])
def test_engines_give_what_loops_give(kind: str, dims: int) -> None:
    batch = clouds([1, 19, 0, 47, 2])
    x = points(kind, len(batch), dims)
    for k, loop in [(4, False), (9, True), (100, False)]:
        wanted = by_loops(x, batch, k=k, loop=loop)
        for engine in ENGINES:
            assert_same(by_engine(engine, x, k, batch, loop), wanted)


@pytest.mark.parametrize("kind", ("plain", "grid", "offset", "duplicates"))
@pytest.mark.parametrize(("count", "dims", "k"), [(400, 2, 8), (400, 6, 40), (300, 19, 150), (160, 130, 20)])
def test_engines_agree_on_larger_clouds(kind: str, count: int, dims: int, k: int) -> None:
    batch = clouds([count, count // 2, count // 2])
    x = points(kind, len(batch), dims)
    wanted = by_engine("trees", x, k, batch)
    for engine in ENGINES[1:]:
        assert_same(by_engine(engine, x, k, batch), wanted)
    assert_same(knn_edges(x, k, batch, return_distance=True), wanted)


@pytest.mark.parametrize(("count", "dims"), [(3000, 2), (3000, 3), (2000, 5), (400, 64)])
def test_against_scipy(count: int, dims: int) -> None:
    x = torch.randn(count, dims, dtype=torch.float64)
    edges, dist = knn_edges(x, 7, return_distance=True)
    far, near = cKDTree(x.numpy()).query(x.numpy(), 8)  # the point itself comes first
    assert torch.equal(edges[0].view(-1, 7), torch.from_numpy(near[:, 1:]))
    assert torch.equal(edges[1].view(-1, 7), torch.arange(count)[:, None].expand(-1, 7))
    torch.testing.assert_close(dist.view(-1, 7).sqrt(), torch.from_numpy(far[:, 1:]))
    r = float(far[:, -1].mean())
    pairs = cKDTree(x.numpy()).query_pairs(r, output_type="ndarray")
    found = {(int(a), int(b)) for a, b in radius_edges(x, r).T}
    assert found == {(int(a), int(b)) for a, b in pairs} | {(int(b), int(a)) for a, b in pairs}


def test_pixels_of_a_photograph() -> None:
    """Colour and position of real pixels, whole numbers with many ties; distances against scipy's."""
    image = data.coffee()[100:140, 200:240].astype(np.int64)
    rows, columns = np.indices(image.shape[:2])
    pixels = np.concatenate([columns[..., None], rows[..., None], image], axis=-1).reshape(-1, 5)
    x = torch.from_numpy(pixels)
    edges, dist = knn_edges(x, 8, return_distance=True)
    far, _ = cKDTree(pixels).query(pixels, 9)
    assert torch.equal(dist.view(-1, 8), torch.from_numpy(far[:, 1:] ** 2).round())
    for engine in ENGINES:
        assert_same(by_engine(engine, x, 8), (edges, dist))


@pytest.mark.parametrize("kind", ("plain", "grid", "duplicates", "huge"))
@pytest.mark.parametrize("dims", [1, 2, 5, 9])
def test_radius_gives_what_loops_give(kind: str, dims: int) -> None:
    batch = clouds([1, 30, 0, 50, 2])
    x = points(kind, len(batch), dims)
    for r, most, loop in [(1, None, False), (math.sqrt(2), None, True), (2.5, 3, False), (1e9, 50, True), (0, 1, True)]:
        wanted = by_loops(x, batch, r=float(r), k=most, loop=loop)
        given: dict[str, Any] = {"loop": loop, "max_num_neighbors": most, "return_distance": True}
        assert_same(radius_edges(x, r, batch, **given), wanted)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(knn, "_radius_trees", lambda *given: knn._radius_tensor(*given[:5]))
            patch.setattr(knn, "BLOCK", 4000)
            assert_same(radius_edges(x, r, batch, **given), wanted)
        assert torch.equal(radius_edges(x, r, batch, loop=loop, max_num_neighbors=most), wanted[0])


def test_the_ball_is_closed() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0001]])
    assert radius_edges(x, 5).tolist() == [[1, 2, 0, 1], [0, 1, 1, 2]]
    assert radius_edges(x, 0).shape == (2, 0)
    assert radius_edges(x, math.inf).shape == (2, 6)


@pytest.mark.parametrize("engine", ENGINES)
def test_ties_go_to_the_smaller_index(engine: str) -> None:
    """The 4-neighbours of a pixel are all at distance 1: up, left, right, down in the order of indices."""
    grid = torch.cartesian_prod(torch.arange(20), torch.arange(20)).float()
    edges, dist = by_engine(engine, grid, 4)
    centre = 10 * 20 + 10
    assert edges[0].view(-1, 4)[centre].tolist() == [centre - 20, centre - 1, centre + 1, centre + 20]
    assert dist.view(-1, 4)[centre].tolist() == [1, 1, 1, 1]
    assert edges[0].view(-1, 4)[0].tolist() == [1, 20, 21, 2]
    assert by_engine(engine, grid, 2)[0][0].view(-1, 2)[centre].tolist() == [centre - 20, centre - 1]


def test_a_batch_is_its_clouds() -> None:
    for dims in (2, 24):
        parts = [torch.randn(n, dims) for n in (40, 200, 1, 133)]
        batch = torch.repeat_interleave(torch.tensor([0, 3, 4, 10**12]), torch.tensor([40, 200, 1, 133]))
        for edges_of in (knn_edges, radius_edges):
            edges, dist = edges_of(torch.cat(parts), 3, batch, return_distance=True)
            shift, singles = 0, []
            for part in parts:
                index, d = edges_of(part, 3, return_distance=True)
                singles.append((index + shift, d))
                shift += len(part)
            assert_same((edges, dist), (torch.cat([s[0] for s in singles], 1), torch.cat([s[1] for s in singles])))


@pytest.mark.parametrize("dims", [2, 7, 70])
def test_threads_change_nothing(dims: int) -> None:
    before = torch.get_num_threads()
    batch = clouds([18000, 300, 300, 41]) if dims == 2 else clouds([900, 300, 300, 41])
    x = points("grid" if dims == 7 else "plain", len(batch), dims)
    try:
        torch.set_num_threads(1)
        one = knn_edges(x, 5, batch, return_distance=True), radius_edges(x, 0.1, batch, return_distance=True)
        torch.set_num_threads(2)
        two = knn_edges(x, 5, batch, return_distance=True), radius_edges(x, 0.1, batch, return_distance=True)
    finally:
        torch.set_num_threads(before)
    assert_same(one[0], two[0])
    assert_same(one[1], two[1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.uint8, torch.uint16, torch.int64]
)
def test_dtypes(engine: str, dtype: torch.dtype) -> None:
    x = (torch.rand(90, 6) * 200).to(dtype)
    assert_same(by_engine(engine, x, 5), by_loops(x, None, k=5))


def test_float16_in_many_dimensions() -> None:
    x = torch.randn(300, 40).half()
    assert_same(knn_edges(x, 5, return_distance=True), by_engine("trees", x.double(), 5))


def test_reduced_precision_settings_change_nothing() -> None:
    """Autocast, and float32 products that may be rounded to bfloat16, would break the bound on their error."""
    x = torch.randn(300, 100)
    wanted = by_engine("trees", x, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(knn_edges(x, 9, return_distance=True), wanted)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert not knn._products_are_float32()
        assert_same(knn_edges(x, 9, return_distance=True), wanted)
    finally:
        torch.set_float32_matmul_precision(before)
    assert knn._products_are_float32()


def test_the_engine_is_chosen_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points near a line in many dimensions are for trees, points that fill them are not; results are the same."""
    used: list[int] = []
    products = knn._knn_products

    def watched(*arguments: Any) -> bool:
        used.append(1)
        return products(*arguments)

    monkeypatch.setattr(knn, "_knn_products", watched)
    line = torch.linspace(0, 1, 12000)[:, None] * torch.randn(1, 10) + 1e-5 * torch.randn(12000, 10)
    edges = knn_edges(line, 3, return_distance=True)
    assert not used
    assert_same(by_engine("products", line, 3), edges)
    used.clear()
    knn_edges(torch.randn(3000, 30), 3)
    assert used


DEGENERATE = {
    "no points": ([], 0),
    "one point": ([1], 0),
    "clouds of one point": ([1, 1, 1], 0),
    "two points": ([2], 2),
    "fewer points than neighbours": ([3, 1, 2], 8),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("dims", [2, 20])
def test_degenerate_clouds(name: str, dims: int) -> None:
    sizes, count = DEGENERATE[name]
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
    x = torch.randn(len(batch), dims)
    for engine in ENGINES:
        edges, dist = by_engine(engine, x, 4, batch)
        assert edges.shape == (2, count)
        assert dist.shape == (count,)
        assert edges.dtype == torch.int64
        assert_same((edges, dist), by_loops(x, batch, k=4))
        assert_same(by_engine(engine, x, 4, batch, True), by_loops(x, batch, k=4, loop=True))
    assert_same(radius_edges(x, 1e3, batch, return_distance=True), by_loops(x, batch, r=1e3))


def test_indices_have_no_gradient() -> None:
    x = torch.randn(30, 3, requires_grad=True)
    edges, dist = knn_edges(x, 3, return_distance=True)
    assert not dist.requires_grad
    assert torch.equal(edges, knn_edges(x.detach(), 3))
    assert radius_edges(x, 1.0).dtype == torch.int64


def test_rows_that_are_not_contiguous() -> None:
    x = torch.randn(8, 500).T
    assert torch.equal(knn_edges(x, 5), knn_edges(x.contiguous(), 5))
    assert torch.equal(knn_edges(x[:, ::3], 5), knn_edges(x[:, ::3].contiguous(), 5))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_small_clouds(given_data: st.DataObject) -> None:
    """Whole numbers and halves, so that most distances tie, in any number of clouds."""
    dims = given_data.draw(st.integers(1, 9))
    sizes = given_data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    batch = clouds(sizes)
    values = st.integers(-3, 3)
    flat = given_data.draw(st.lists(values, min_size=len(batch) * dims, max_size=len(batch) * dims))
    x = torch.tensor(flat, dtype=torch.float32).view(-1, dims) / 2
    k, loop = given_data.draw(st.integers(1, 14)), given_data.draw(st.booleans())
    wanted = by_loops(x, batch, k=k, loop=loop)
    for engine in ENGINES:
        assert_same(by_engine(engine, x, k, batch, loop), wanted)
    r = given_data.draw(st.integers(0, 8)) / 2
    found = radius_edges(x, r, batch, loop=loop, max_num_neighbors=k, return_distance=True)
    assert_same(found, by_loops(x, batch, r=r, k=k, loop=loop))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(0, 2**31), st.floats(1e-3, 1e6))
def test_moving_whole_steps_changes_nothing(dims: int, seed: int, scale: float) -> None:
    """Points on a lattice stay exact when moved by whole steps and stretched by a power of two."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-50, 50, (80, dims), generator=generator).double()
    power = 2.0 ** round(math.log2(scale))
    edges, dist = knn_edges(x, 6, return_distance=True)
    moved, scaled = knn_edges((x + 4096) * power, 6, return_distance=True)
    assert_same((moved, scaled), (edges, dist * power**2))


def test_torch_cluster_finds_the_same() -> None:
    """Where no distances tie, the sets of neighbours are those of torch-cluster."""
    cluster = pytest.importorskip("torch_cluster")
    for dims in (2, 5, 40):
        x, batch = torch.randn(300, dims, dtype=torch.float64), clouds([100, 50, 150])
        ours = {(int(a), int(b)) for a, b in knn_edges(x, 6, batch).T}
        theirs = cluster.knn_graph(x, 6, batch)
        assert ours == {(int(a), int(b)) for a, b in theirs.T}
        r = 0.3 * dims**0.5
        ours = {(int(a), int(b)) for a, b in radius_edges(x, r, batch).T}
        theirs = cluster.radius_graph(x, r, batch, max_num_neighbors=300)
        assert ours == {(int(a), int(b)) for a, b in theirs.T}


@pytest.mark.gpu
def test_other_devices_give_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for kind in KINDS:
        for dims in (2, 5, 60):
            batch = clouds([400, 1, 0, 90, 300])
            x = points(kind, len(batch), dims)
            edges, dist = knn_edges(x.cuda(), 7, batch.cuda(), return_distance=True)
            assert_same((edges.cpu(), dist.cpu()), knn_edges(x, 7, batch, return_distance=True))
            edges, dist = radius_edges(x.cuda(), 1.0, batch.cuda(), return_distance=True)
            assert_same((edges.cpu(), dist.cpu()), radius_edges(x, 1.0, batch, return_distance=True))


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([[0.0]], 1), TypeError, "got list for x, expected a torch.Tensor"),
        ((torch.zeros(4), 1), ValueError, r"got shape \[4\] for x, expected \[\*, \*\]"),
        ((torch.zeros(4, 0), 1), ValueError, "expected at least one dimension"),
        ((torch.zeros(4, 2, dtype=torch.bool), 1), TypeError, "got dtype torch.bool for x"),
        ((torch.zeros(4, 2, dtype=torch.complex64), 1), TypeError, "got dtype torch.complex64 for x"),
        ((torch.tensor([[0.0, math.nan]]), 1), ValueError, "got 1 NaN or infinite values in x"),
        ((torch.tensor([[math.inf, -math.inf]]), 1), ValueError, "got 2 NaN or infinite values in x"),
        ((X, 1, [0, 0, 0, 0]), TypeError, "got list for batch"),
        ((X, 1, torch.zeros(4)), TypeError, "got dtype torch.float32 for batch, expected torch.int64"),
        ((X, 1, torch.zeros(3, dtype=torch.int64)), ValueError, r"got shape \[3\] for batch and 4 points in x"),
        ((X, 1, torch.tensor([0, 1, 0, 1])), ValueError, "got batch=0 after 1, expected sorted ids"),
        ((X, 1, torch.tensor([-1, 0, 0, 1])), ValueError, "got batch=-1, expected ids of at least 0"),
    ],
)
def test_bad_points_are_refused(arguments: tuple, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        knn_edges(*arguments)
    with pytest.raises(error, match=match):
        radius_edges(*arguments)


@pytest.mark.parametrize(
    ("edges_of", "number", "error", "match"),
    [
        (knn_edges, 0, ValueError, "got k=0, expected at least 1"),
        (knn_edges, 1.0, TypeError, "got float for k, expected an int"),
        (radius_edges, -1, ValueError, "got r=-1, expected at least 0"),
        (radius_edges, math.nan, ValueError, "got r=nan, expected at least 0"),
        (radius_edges, X, TypeError, "got Tensor for r, expected a number"),
        (partial(radius_edges, max_num_neighbors=0), 1, ValueError, "got max_num_neighbors=0, expected at least 1"),
    ],
)
def test_bad_numbers_are_refused(edges_of: Any, number: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        edges_of(X, number)
