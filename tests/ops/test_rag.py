"""Region adjacency and boundary statistics against plain loops, scikit-image and networkx."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import graph
from skimage.filters import sobel
from torch.autograd import gradcheck
from torch.testing import assert_close

from graphseg.ops import rag
from graphseg.ops._labels import LabelStack, _count_regions_tensor, stack_labels
from graphseg.ops.grid import connectivity_offsets
from graphseg.ops.kernels.rag import count_regions
from graphseg.ops.rag import boundary_statistics, edge_angle, edge_distance, rag_edges, relabel
from tests.label_maps import DEGENERATE, checkerboard, consecutive, label_maps, photographs, star
from tests.reference import rag as reference

PERCENTILES = (0.0, 7.5, 50.0, 90.0, 100.0)
FORMS = ("kernel", "tensors")
ROUNDING: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}  # of float64, sums in another order


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Both implementations, on the CPU."""
    if request.param == "tensors":
        monkeypatch.setattr(rag, "_adjacency_kernel", rag._adjacency_tensor)
    return request.param


def as_edges(edge_index, length):
    """{pair: length}, after checking order, direction and types."""
    assert edge_index.dtype == length.dtype == torch.int64
    assert edge_index.shape == (2, length.shape[0])
    pairs = list(zip(*edge_index.tolist(), strict=True))
    assert pairs == sorted(set(pairs)) and all(a < b for a, b in pairs)
    return dict(zip(pairs, length.tolist(), strict=True))


def as_lengths(found):
    return {pair: len(values) for pair, values in found.items()}


def as_tensor(labels, device="cpu"):
    return torch.from_numpy(labels.copy()).to(device)


def noise(seed=0):
    return np.random.default_rng(seed)


def skimage_pairs(labels, connectivity):
    """scikit-image's RAG. It looks in one quadrant only, so the map is given to it in every mirror image."""
    pairs = set()
    axes = range(labels.ndim)
    for flips in [()] if connectivity == 1 else [f for n in axes for f in combinations(axes, n)]:
        found = graph.RAG(np.ascontiguousarray(np.flip(labels, flips)), connectivity=connectivity)
        pairs |= {(min(e), max(e)) for e in found.edges}
    return pairs


# Edges


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_maps_are_the_loop(name, connectivity, device):
    labels = DEGENERATE[name]
    out = rag_edges(as_tensor(labels, device), connectivity)
    assert all(t.device.type == device.type for t in out)
    assert as_edges(*out) == as_lengths(reference.adjacency(labels, connectivity))


def test_known_graphs():
    assert as_edges(*rag_edges(as_tensor(DEGENERATE["four corners"]))) == {
        (0, 1): 3,
        (0, 2): 3,
        (1, 3): 3,
        (2, 3): 3,
    }
    eight = as_edges(*rag_edges(as_tensor(DEGENERATE["four corners"]), 8))
    assert eight[0, 3] == eight[1, 2] == 1  # they touch at the corner only
    assert as_edges(*rag_edges(as_tensor(DEGENERATE["rings"]))) == {
        (0, 1): 28,
        (1, 2): 20,
        (2, 3): 12,
        (3, 4): 4,
    }
    assert as_edges(*rag_edges(as_tensor(checkerboard(5, 6)))) == {(0, 1): 4 * 6 + 5 * 5}
    edges, length = rag_edges(as_tensor(star(6, 8)))
    assert edges.tolist() == [[0] * 48, list(range(1, 49))] and length.tolist() == [4] * 48


@pytest.mark.parametrize("connectivity", [4, 8])
def test_region_per_pixel_is_the_grid(connectivity):
    labels = torch.arange(24).view(4, 6)
    one = nx.path_graph(4), nx.path_graph(6)
    grid = nx.cartesian_product(*one) if connectivity == 4 else nx.strong_product(*one)
    pairs = {tuple(sorted((a * 6 + b, c * 6 + d))): 1 for (a, b), (c, d) in grid.edges}
    assert as_edges(*rag_edges(labels, connectivity)) == pairs


@settings(max_examples=80, deadline=None)
@given(labels=label_maps(), connectivity=st.sampled_from([4, 8]), data=st.data())
def test_any_map(labels, connectivity, data):
    expected = as_lengths(reference.adjacency(labels, connectivity))
    assert as_edges(*rag_edges(as_tensor(labels), connectivity)) == expected
    # Other names for the regions give the same graph under other names.
    new = np.array(data.draw(st.permutations(range(labels.max() + 1))))
    renamed = {tuple(sorted((int(new[a]), int(new[b])))): n for (a, b), n in expected.items()}
    assert as_edges(*rag_edges(as_tensor(new[labels]), connectivity)) == renamed
    # Mirror images and the transpose have the same graph.
    for moved in (labels[::-1], labels[:, ::-1], labels.T):
        assert as_edges(*rag_edges(as_tensor(moved), connectivity)) == expected


@settings(max_examples=40, deadline=None)
@given(labels=label_maps(dims=3, largest=5), connectivity=st.sampled_from([6, 18, 26]))
def test_any_volume(labels, connectivity):
    expected = as_lengths(reference.adjacency(labels, connectivity))
    assert as_edges(*rag_edges(as_tensor(labels), connectivity, volume=True)) == expected
    moved = as_edges(*rag_edges(as_tensor(labels.transpose(2, 0, 1)[::-1]), connectivity, volume=True))
    assert moved == expected


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("name", [n for n in DEGENERATE if DEGENERATE[n].size > 1])
def test_edges_are_scikit_images(name, connectivity):
    labels = DEGENERATE[name]
    out = as_edges(*rag_edges(as_tensor(labels), 4 * connectivity))
    assert set(out) == skimage_pairs(labels, connectivity)


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("name", ["astronaut, SLIC", "coffee, Felzenszwalb", "chelsea, SLIC"])
def test_photographs_are_scikit_images(name, connectivity):
    _, labels = photographs()[name]
    out = as_edges(*rag_edges(as_tensor(labels), 4 * connectivity))
    assert len(out) > 20
    assert set(out) == skimage_pairs(labels, connectivity)


@pytest.mark.parametrize("connectivity", [1, 2, 3])
def test_volumes_are_scikit_images(connectivity):
    labels = consecutive(noise().integers(0, 30, (4, 5, 6)).repeat(2, 0))
    out = as_edges(*rag_edges(as_tensor(labels), (6, 18, 26)[connectivity - 1], volume=True))
    assert set(out) == skimage_pairs(labels, connectivity)


@pytest.mark.parametrize("name", ["spiral", "pieces", "star", "two regions", "1xW"])
def test_lengths_are_networkx_quotient(name):
    labels = DEGENERATE[name]
    pixels = nx.grid_2d_graph(*labels.shape)
    regions = [{tuple(p) for p in np.argwhere(labels == a).tolist()} for a in range(labels.max() + 1)]
    quotient = nx.quotient_graph(pixels, regions, relabel=True)
    expected = {(min(a, b), max(a, b)): w for a, b, w in quotient.edges(data="weight")}
    assert as_edges(*rag_edges(as_tensor(labels))) == expected


@pytest.mark.parametrize("connectivity", [4, 8])
def test_lengths_add_up_to_all_pairs_between_regions(connectivity):
    for _, labels in photographs().values():
        y = labels[1:] != labels[:-1]
        x = labels[:, 1:] != labels[:, :-1]
        total = y.sum() + x.sum()
        if connectivity == 8:
            total += (labels[1:, 1:] != labels[:-1, :-1]).sum() + (labels[1:, :-1] != labels[:-1, 1:]).sum()
        assert int(rag_edges(as_tensor(labels), connectivity)[1].sum()) == total


def test_four_connected_edges_are_among_the_eight_connected():
    for _, labels in photographs().values():
        four = as_edges(*rag_edges(as_tensor(labels), 4))
        eight = as_edges(*rag_edges(as_tensor(labels), 8))
        assert all(eight[pair] >= length for pair, length in four.items())


def test_volume_of_one_slice_is_the_image():
    labels = as_tensor(DEGENERATE["spiral"])
    for plane, solid in ((4, 6), (8, 18), (8, 26)):
        image = rag_edges(labels, plane)
        for volume in (labels[None], labels[:, None], labels[:, :, None]):
            out = rag_edges(volume, solid, volume=True)
            assert torch.equal(out[0], image[0]) and torch.equal(out[1], image[1])


# Batches, types, memory layout


def batch_of(maps):
    """Maps cut and tiled to one size `[B, 8, 9]`, each renumbered."""
    tiled = [np.tile(m, (8, 9))[:8, :9] for m in maps]
    return as_tensor(np.stack([consecutive(m) for m in tiled]))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_batch_is_singles_with_shifted_ids(connectivity, form, device):
    batch = batch_of(DEGENERATE.values())
    strength = torch.rand(batch.shape, dtype=torch.float64)
    out = boundary_statistics(batch.to(device), strength.to(device), connectivity=connectivity)
    start, parts = 0, []
    for labels, values in zip(batch, strength, strict=True):
        part = boundary_statistics(labels.to(device), values.to(device), connectivity=connectivity)
        part["edge_index"] = part["edge_index"] + start
        start += int(labels.max()) + 1
        parts.append(part)
    for name, value in out.items():
        joined = torch.cat([p[name] for p in parts], dim=1 if name == "edge_index" else 0)
        assert torch.equal(value, joined), name


def test_batch_of_volumes_is_singles(form):
    batch = torch.stack([as_tensor(consecutive(noise(s).integers(0, 5, (3, 4, 5)))) for s in range(3)])
    edges, length = rag_edges(batch, 18, volume=True)
    starts = [0, *(batch.amax((1, 2, 3)) + 1).cumsum(0).tolist()]
    singles = [rag_edges(v, 18, volume=True) for v in batch]
    assert torch.equal(edges, torch.cat([e + s for (e, _), s in zip(singles, starts[:-1], strict=True)], 1))
    assert torch.equal(length, torch.cat([n for _, n in singles]))


def test_threads_do_not_change_the_result():
    batch = batch_of(DEGENERATE.values())
    strength = torch.rand(batch.shape)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(boundary_statistics(batch, strength))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in other)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64], ids=str
)
def test_dtype_of_labels_does_not_matter(dtype, form, device):
    _, labels = photographs()["chelsea, SLIC"]
    out = rag_edges(as_tensor(labels, device).to(dtype))
    assert as_edges(*out) == as_edges(*rag_edges(as_tensor(labels)))
    assert torch.equal(relabel(as_tensor(labels, device).to(dtype)).cpu(), as_tensor(labels))


def test_memory_layout_does_not_matter(form):
    _, labels = photographs()["chelsea, SLIC"]
    strength = noise().random(labels.shape)
    expected = boundary_statistics(as_tensor(labels), as_tensor(strength))
    wide = torch.zeros(*labels.shape, 3, dtype=torch.int32)
    wide[..., 1] = as_tensor(labels)
    turned = as_tensor(labels.T).T
    for given_labels in (wide[..., 1], turned, as_tensor(labels[:, ::-1]).flip(1)):
        out = boundary_statistics(given_labels, as_tensor(strength.T).T)
        assert all(torch.equal(out[name], expected[name]) for name in expected)


def test_labels_are_not_changed():
    labels = torch.tensor([[0, 1], [7, 2]])
    valid = torch.tensor([[True, True], [False, True]])
    rag_edges(labels, valid=valid)
    assert labels.tolist() == [[0, 1], [7, 2]]


# Pixels of no region


@settings(max_examples=60, deadline=None)
@given(labels=label_maps(), connectivity=st.sampled_from([4, 8]), seed=st.integers(0, 999))
def test_valid_leaves_pixels_out(labels, connectivity, seed):
    generator = noise(seed)
    valid = generator.random(labels.shape) < 0.7
    present = np.unique(labels[valid])
    dense = np.searchsorted(present, labels)  # consecutive where valid
    dirty = np.where(valid, dense, generator.integers(-(2**40), 2**40, labels.shape))
    strength = np.where(valid, generator.random(labels.shape), np.nan)
    loop = reference.adjacency(dense, connectivity, strength, valid)
    out = boundary_statistics(as_tensor(dirty), as_tensor(strength), connectivity=connectivity, valid=as_tensor(valid))
    assert as_edges(out["edge_index"], out["length"]) == as_lengths(loop)
    assert_close(out["mean"].tolist(), [float(np.mean(v)) for v in loop.values()], **ROUNDING)


def test_images_may_have_no_region(form):
    labels = torch.stack([torch.zeros(2, 3), torch.arange(6).view(2, 3)]).long()
    valid = torch.tensor([False, True]).view(2, 1, 1).expand(2, 2, 3)
    out = boundary_statistics(labels, labels.float(), valid=valid)
    single = boundary_statistics(labels[1], labels[1].float())
    assert all(torch.equal(out[name], single[name]) for name in single)
    edges, length = rag_edges(labels, valid=torch.zeros_like(valid))
    assert edges.shape == (2, 0) and length.shape == (0,)


@pytest.mark.parametrize("shape", [(0, 4, 5), (0, 5), (5, 0), (2, 0, 5), (2, 5, 0), (0, 0, 0)])
def test_maps_without_pixels_have_no_edges(shape, form, device):
    labels = torch.zeros(shape, dtype=torch.int64, device=device)
    out = boundary_statistics(
        labels, labels.float(), color=torch.zeros(0, 3), centroid=torch.zeros(0, 2), percentiles=(50,)
    )
    assert out["edge_index"].shape == (2, 0) and out["edge_index"].dtype == torch.int64
    assert out["length"].shape == (0,) and out["length"].dtype == torch.int64
    assert out["percentiles"].shape == (0, 1)
    for name in ("mean", "std", "color_distance", "centroid_distance", "centroid_angle"):
        assert out[name].shape == (0,) and out[name].dtype == torch.float64
    assert relabel(labels).shape == shape


def test_volumes_without_voxels_have_no_edges(form):
    for shape in [(0, 3, 4, 5), (0, 4, 5), (2, 3, 0, 5)]:
        edges, length = rag_edges(torch.zeros(shape, dtype=torch.int32), 6, volume=True)
        assert edges.shape == (2, 0) and length.shape == (0,)


# Boundary statistics


def check_statistics(labels, strength, connectivity, volume=False):
    loop = reference.adjacency(labels, connectivity, strength)
    out = boundary_statistics(
        as_tensor(labels),
        as_tensor(strength),
        percentiles=PERCENTILES,
        connectivity=connectivity,
        volume=volume,
    )
    assert as_edges(out["edge_index"], out["length"]) == as_lengths(loop)
    values = list(loop.values())
    E = len(values)
    assert out["percentiles"].shape == (E, len(PERCENTILES))
    assert all(out[name].dtype == torch.float64 for name in ("mean", "std", "percentiles"))
    expected = {
        "mean": np.array([np.mean(v) for v in values]),
        "std": np.array([np.std(v) for v in values]),
        "percentiles": np.array([np.percentile(v, PERCENTILES) for v in values]).reshape(E, len(PERCENTILES)),
    }
    for name, value in expected.items():
        assert_close(out[name].numpy(), value, **ROUNDING)
    return out


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", DEGENERATE)
def test_statistics_of_degenerate_maps(name, connectivity, form):
    labels = DEGENERATE[name]
    check_statistics(labels, noise().standard_normal(labels.shape), connectivity)


@settings(max_examples=60, deadline=None)
@given(labels=label_maps(), connectivity=st.sampled_from([4, 8]), seed=st.integers(0, 999))
def test_statistics_of_any_map(labels, connectivity, seed):
    strength = noise(seed).integers(0, 4, labels.shape).astype(float)  # with ties
    check_statistics(labels, strength, connectivity)


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_statistics_of_volumes(connectivity, form):
    labels = consecutive(noise().integers(0, 6, (3, 5, 4)))
    check_statistics(labels, noise().standard_normal(labels.shape), connectivity, volume=True)


@pytest.mark.parametrize("name", ["astronaut, SLIC", "coffee, Felzenszwalb"])
def test_statistics_of_photographs(name, form):
    image, labels = photographs()[name]
    strength = sobel(image.mean(-1) / 255)
    out = check_statistics(labels, strength, 4)
    # Its weights are means over pixels rather than over pairs, and it misses some edges at junctions.
    peer = graph.rag_boundary(labels, strength, connectivity=1)
    pairs = set(zip(*out["edge_index"].tolist(), strict=True))
    assert {(min(e), max(e)) for e in peer.edges} <= pairs


def test_kernel_is_the_tensor_form(device):
    for image, labels in photographs().values():
        strength = as_tensor(sobel(image.mean(-1)))
        for connectivity in (4, 8):
            kernel = boundary_statistics(as_tensor(labels), strength, connectivity=connectivity)
            stack = stack_labels(as_tensor(labels, device), False, None)
            offsets = torch.tensor([(0, *o) for o in connectivity_offsets(connectivity)])
            levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
            plain = rag._adjacency_tensor(stack, offsets, strength.to(device)[None, None], levels)
            for name, value in kernel.items():
                exact = {"rtol": 0, "atol": 0} if value.dtype == torch.int64 else ROUNDING
                assert_close(plain[name].cpu(), value, **exact)


def test_constant_strength_has_its_value_and_no_spread(form):
    _, labels = photographs()["coffee, Felzenszwalb"]
    out = boundary_statistics(as_tensor(labels), torch.full(labels.shape, 0.1, dtype=torch.float64))
    assert_close(out["mean"], torch.full_like(out["mean"], 0.1), rtol=1e-14, atol=0)
    assert float(out["std"].max()) < 1e-15
    assert torch.equal(out["percentiles"], torch.full_like(out["percentiles"], 0.1))


def test_large_offset_keeps_the_spread(form):
    _, labels = photographs()["coffee, Felzenszwalb"]
    strength = noise().random(labels.shape)
    small = boundary_statistics(as_tensor(labels), as_tensor(strength))
    large = boundary_statistics(as_tensor(labels), as_tensor(strength + 1e6))
    assert_close(large["std"], small["std"], rtol=1e-6, atol=1e-9)
    assert_close(large["mean"] - 1e6, small["mean"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float32], ids=str)
def test_dtype_of_the_boundary(dtype, form):
    labels = as_tensor(DEGENERATE["four corners"])
    strength = (torch.rand(labels.shape) * 2).to(dtype)
    out = boundary_statistics(labels, strength)
    expected = boundary_statistics(labels, strength.double())
    assert all(torch.equal(out[name], expected[name]) for name in expected)


def test_percentiles_may_be_none_or_unsorted(form):
    labels, strength = as_tensor(DEGENERATE["star"]), torch.rand(DEGENERATE["star"].shape)
    assert boundary_statistics(labels, strength, percentiles=())["percentiles"].shape == (48, 0)
    down = boundary_statistics(labels, strength, percentiles=(90, 10))["percentiles"]
    up = boundary_statistics(labels, strength, percentiles=(10, 90))["percentiles"]
    assert torch.equal(down, up.flip(1))


def test_only_what_was_asked_for():
    labels = as_tensor(DEGENERATE["star"])
    assert set(boundary_statistics(labels)) == {"edge_index", "length"}
    with_color = boundary_statistics(labels, color=torch.rand(49, 3))
    assert set(with_color) == {"edge_index", "length", "color_distance"}
    solid = boundary_statistics(labels[None], centroid=torch.rand(49, 3), connectivity=6, volume=True)
    assert set(solid) == {"edge_index", "length", "centroid_distance"}


# Distances and angles


def test_distances_are_the_loop(device):
    _, labels = photographs()["chelsea, SLIC"]
    N = labels.max() + 1
    color, centroid = noise(0).random((N, 4)), noise(1).random((N, 2)) * 100
    out = boundary_statistics(
        as_tensor(labels, device), color=as_tensor(color, device), centroid=as_tensor(centroid, device)
    )
    i, j = out["edge_index"].cpu().numpy()
    apart = centroid[j] - centroid[i]
    expected = {
        "color_distance": np.linalg.norm(color[i] - color[j], axis=1),
        "centroid_distance": np.hypot(*apart.T),
        "centroid_angle": np.arctan2(apart[:, 1], apart[:, 0]),
    }
    for name, value in expected.items():
        assert_close(out[name].cpu().numpy(), value)


def test_angles_in_closed_form(device):
    pi = np.pi
    steps = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (0, 0)]
    pos = torch.tensor([(0, 0), *steps], dtype=torch.float64, device=device) * 3
    edges = torch.stack([torch.zeros(9, dtype=torch.int64), torch.arange(1, 10)]).to(device)
    expected = [0, pi / 4, pi / 2, 3 * pi / 4, pi, -3 * pi / 4, -pi / 2, -pi / 4, 0]
    assert_close(edge_angle(pos, edges).cpu().numpy(), np.array(expected))
    pos[5, 1] = -0.0  # the step to the left is still pi, not -pi
    assert float(edge_angle(pos, edges)[4]) == pytest.approx(pi)
    root = 3 * np.sqrt(2)
    assert_close(edge_distance(pos, edges).cpu().numpy(), np.array([3, root] * 4 + [0]))


def test_distances_of_integers_do_not_wrap():
    values = torch.tensor([[0, 250], [255, 0]], dtype=torch.uint8)
    edges = torch.tensor([[0, 1], [1, 0]])
    assert edge_distance(values, edges).tolist() == [np.hypot(255, 250)] * 2


def test_gradients_of_distance_and_angle(device):
    edges = torch.tensor([[0, 0, 1, 3], [1, 2, 2, 4]], device=device)
    pos = torch.rand(5, 2, dtype=torch.float64, device=device, requires_grad=True)
    assert gradcheck(lambda p: edge_distance(p, edges), pos)
    assert gradcheck(lambda p: edge_angle(p, edges), pos)


@pytest.mark.parametrize("function", [edge_distance, edge_angle])
def test_gradient_at_distance_zero_is_zero(function, device):
    pos = torch.ones(3, 2, device=device, requires_grad=True)
    function(pos, torch.tensor([[0, 1], [1, 2]], device=device)).sum().backward()
    assert pos.grad is not None and not pos.grad.any()


# Renumbering


@settings(max_examples=60, deadline=None)
@given(labels=label_maps(), batch=st.integers(1, 3), seed=st.integers(0, 999))
def test_relabel_is_unique_per_image(labels, batch, seed):
    generator = noise(seed)
    names = generator.choice(np.arange(-20, 20), (batch, labels.max() + 1)) * 10**10
    maps = np.stack([name[labels] for name in names])
    out = relabel(as_tensor(maps))
    assert out.dtype == torch.int64
    for given_map, numbered in zip(maps, out.numpy(), strict=True):
        assert np.array_equal(numbered, consecutive(given_map))
        assert torch.equal(relabel(as_tensor(given_map)), as_tensor(numbered))
    assert torch.equal(relabel(out), out)
    rag_edges(out)  # consecutive, so accepted


def test_relabel_of_volumes():
    volume = torch.tensor([[[3, 9], [9, -4]], [[-4, 3], [5, 5]]])
    assert relabel(volume, volume=True).tolist() == [[[1, 3], [3, 0]], [[0, 1], [2, 2]]]
    assert relabel(volume).tolist() == [[[1, 2], [2, 0]], [[0, 1], [2, 2]]]  # two images
    batch = torch.stack([volume, volume * 7])
    assert torch.equal(relabel(batch, volume=True)[1], relabel(volume, volume=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool], ids=str)
def test_relabel_takes_integers_only(dtype):
    with pytest.raises(TypeError, match=f"got dtype {dtype} for labels, expected an integer dtype"):
        relabel(torch.zeros(3, 3, dtype=dtype))


def test_relabel_refuses_shapes():
    with pytest.raises(ValueError, match=r"got shape \[4\] for labels, expected \[H, W\] or \[B, H, W\]"):
        relabel(torch.arange(4))
    with pytest.raises(ValueError, match=r"expected \[D, H, W\] or \[B, D, H, W\]"):
        relabel(torch.zeros(2, 2, dtype=torch.int64), volume=True)


# Bad input


@pytest.mark.parametrize(
    "labels, count, missing",
    [
        ([[1, 1]], 1, 0),
        ([[0, 2]], 2, 1),
        ([[0, 0, 1, 3]], 3, 2),
        ([[0, 5]], 5, 1),
        ([[7]], 7, 0),
        ([[0, 2**40]], 2**40, 1),
    ],
)
def test_gaps_are_refused(labels, count, missing, device):
    message = f"got labels up to {count} in image 0 but no pixel of label {missing}, expected ids consecutive"
    labels = torch.tensor(labels, device=device)
    with pytest.raises(ValueError, match=message):
        rag_edges(labels)
    assert _count_regions_tensor(labels.view(1, -1)) == [(count + 1, missing, 0)]


def test_gaps_name_their_image():
    labels = torch.tensor([[[0, 1]], [[1, 0]], [[2, 0]]])
    with pytest.raises(ValueError, match="got labels up to 2 in image 2 but no pixel of label 1"):
        rag_edges(labels)
    assert _count_regions_tensor(labels.view(3, -1)) == [(2, -1, 0), (2, -1, 0), (3, 1, 0)]


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.lists(st.integers(-3, 6), min_size=4, max_size=4), min_size=1, max_size=3))
def test_counting_is_the_same_in_both_forms(labels):
    flat = torch.tensor(labels)
    counted = _count_regions_tensor(flat)
    assert counted == [count_regions(row) for row in flat.numpy()]
    for row, (count, missing, low) in zip(labels, counted, strict=True):
        gaps = sorted(set(range(max(row) + 1)) - set(row))
        assert (count, missing, low) == (max(-1, *row) + 1, gaps[0] if gaps else -1, min(0, *row))


@pytest.mark.parametrize("label", [-1, -2, -3, -(2**62)])
def test_negative_labels_are_refused(label):
    labels = torch.tensor([[[0, 0], [0, 0]], [[0, 1], [label, 1]]])
    with pytest.raises(ValueError, match=r"got a negative label in image 1, expected ids from 0 .*valid"):
        rag_edges(labels)
    some = torch.tensor([[False, True], [True, True]])
    with pytest.raises(ValueError, match=r"got a negative label in image 1, expected ids from 0"):
        rag_edges(labels, valid=torch.stack([some, some]))
    rag_edges(labels, valid=labels >= 0)
    for first in (torch.tensor([[label, 0, 1]]), torch.tensor([[label, label]])):
        with pytest.raises(ValueError, match="got a negative label in image 0, expected ids from 0"):
            rag_edges(first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64], ids=str)
def test_dtype_of_labels_is_refused(dtype):
    with pytest.raises(TypeError, match=f"got dtype {dtype} for labels, expected an integer dtype"):
        rag_edges(torch.zeros(2, 2, dtype=dtype))


def test_arrays_are_refused():
    array: Any = np.zeros((2, 2), int)
    with pytest.raises(TypeError, match=r"got ndarray for labels, expected a torch\.Tensor"):
        rag_edges(array)
    with pytest.raises(TypeError, match=r"got ndarray for boundary, expected a torch\.Tensor"):
        boundary_statistics(torch.zeros(2, 2, dtype=torch.int64), array)


def test_shapes_are_refused():
    for shape in [(), (4,), (1, 2, 3, 4)]:
        with pytest.raises(ValueError, match=r"got shape \[.*\] for labels, expected \[H, W\] or \[B, H, W\]"):
            rag_edges(torch.zeros(shape, dtype=torch.int64))
    for shape in [(3, 4), (1, 1, 2, 3, 4)]:
        with pytest.raises(ValueError, match=r"expected \[D, H, W\] or \[B, D, H, W\] for volumes"):
            rag_edges(torch.zeros(shape, dtype=torch.int64), 6, volume=True)


def test_connectivity_is_refused():
    labels = torch.zeros(2, 2, 2, dtype=torch.int64)
    choices: tuple[Any, ...] = (1, 2, 6, "8")
    for connectivity in choices:
        with pytest.raises(ValueError, match=f"got connectivity={connectivity!r}, expected one of 4, 8"):
            rag_edges(labels, connectivity)
    with pytest.raises(ValueError, match="got connectivity=4, expected one of 6, 18, 26"):
        rag_edges(labels, 4, volume=True)


def test_valid_is_refused():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"got dtype torch\.uint8 for valid, expected torch\.bool"):
        rag_edges(labels, valid=torch.ones(2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"got shape \[3, 2\] for valid, expected \[2, 3\]"):
        rag_edges(labels, valid=torch.ones(3, 2, dtype=torch.bool))


def test_boundary_is_refused():
    labels = torch.tensor([[0, 1, 1]])
    with pytest.raises(ValueError, match=r"got shape \[1, 1, 3\] for boundary, expected \[1, 3\]"):
        boundary_statistics(labels, torch.rand(1, 1, 3))
    with pytest.raises(ValueError, match="got 2 NaN or infinite values in boundary, expected finite values"):
        boundary_statistics(labels, torch.tensor([[np.nan, 1, np.inf]]))
    for percentiles in [(-1,), (50, 100.5), (np.nan,)]:
        with pytest.raises(ValueError, match=r"got percentiles \(.*\), expected values in \[0, 100\]"):
            boundary_statistics(labels, torch.rand(1, 3), percentiles=percentiles)


def test_node_values_are_refused():
    labels = torch.tensor([[0, 1, 2]])
    with pytest.raises(ValueError, match=r"got shape \[2, 3\] for color, expected \[3, \*\]"):
        boundary_statistics(labels, color=torch.rand(2, 3))
    with pytest.raises(ValueError, match=r"got shape \[3\] for color, expected \[3, \*\]"):
        boundary_statistics(labels, color=torch.rand(3))
    with pytest.raises(ValueError, match=r"got shape \[3, 3\] for centroid, expected \[3, 2\]"):
        boundary_statistics(labels, centroid=torch.rand(3, 3))
    with pytest.raises(ValueError, match=r"got shape \[3, 2\] for centroid, expected \[3, 3\]"):
        boundary_statistics(labels[None], centroid=torch.rand(3, 2), connectivity=6, volume=True)


def test_stack_numbers_nodes_across_the_batch():
    stack = LabelStack(torch.tensor([[[[0, -1]]], [[[1, 0]]], [[[-1, -1]]]]), [1, 2, 0], 2)
    assert stack.starts == [0, 1, 3, 3] and stack.num_nodes == 3
    assert stack.node_labels().flatten().tolist() == [0, -1, 2, 1, -1, -1]


def test_edge_distance_refuses_ids_of_no_node():
    for edge_index in (torch.tensor([[0], [2]]), torch.tensor([[-1], [0]])):
        with pytest.raises(ValueError, match="in edge_index, expected ids of 2 nodes"):
            edge_distance(torch.zeros(2, 3), edge_index)


def test_edge_distance_with_and_without_gradient_agree():
    values = torch.randn(50, 7)
    edge_index = torch.randint(0, 50, (2, 400))
    tensor_form = edge_distance(values.clone().requires_grad_(), edge_index)
    torch.testing.assert_close(edge_distance(values, edge_index), tensor_form.detach(), rtol=1e-14, atol=0)


def test_volumes_have_six_neighbours_unless_told():
    labels = torch.arange(8).view(2, 2, 2)
    assert torch.equal(rag_edges(labels, volume=True)[0], rag_edges(labels, 6, volume=True)[0])


@pytest.mark.parametrize("name", ["color", "centroid"])
def test_node_values_that_are_not_finite_are_refused(name):
    with pytest.raises(ValueError, match=f"NaN or infinite values in {name}"):
        values: dict[str, Any] = {name: torch.tensor([[0.0, 0.0], [0.0, float("nan")]])}
        boundary_statistics(torch.tensor([[0, 1]]), **values)


def test_nan_stays_nan_in_both_forms_of_distance():
    values, edge_index = torch.tensor([[0.0], [float("nan")]]), torch.tensor([[0], [1]])
    assert edge_distance(values, edge_index).isnan().all()
    assert edge_distance(values.requires_grad_(), edge_index).isnan().all()


def test_angles_do_not_depend_on_what_else_is_there():
    step = torch.randn(1003, 2)
    pos = torch.cat([torch.zeros(1, 2), step])
    edge_index = torch.stack([torch.zeros(1003, dtype=torch.int64), torch.arange(1, 1004)])
    alone = torch.cat([edge_angle(pos, edge) for edge in edge_index.split(1, 1)])
    assert torch.equal(edge_angle(pos, edge_index), alone)
