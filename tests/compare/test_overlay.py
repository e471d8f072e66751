"""Overlays of the report: what is drawn, and where, against plain loops; sizes, files and degenerate graphs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image
from skimage import data as photographs
from torch_geometric.data import Batch, Data

from graphseg import ImageGraph
from graphseg.compare.overlay import overlay_picture, photograph_picture
from graphseg.transforms import ToAffinityGraph, ToHierarchy, ToInstanceGraph, ToKNNGraph, ToPixelGrid, ToSuperpixelRAG
from tests.label_maps import DEGENERATE, Array, label_maps

YELLOW, WHITE = (255, 217, 47), (255, 255, 255)


def photograph() -> Data:
    """A crop of the astronaut with nodata in one corner."""
    image = torch.from_numpy(photographs.astronaut()[20:84, 150:230].copy()).movedim(-1, 0)
    valid = torch.ones(image.shape[1:], dtype=torch.bool)
    valid[50:, :12] = False
    return Data(image=image, valid=valid)


def of_labels(labels: Array, edges: Sequence[tuple[int, int]] = (), valid: Array | None = None) -> ImageGraph:
    """A label map as a graph with the given edges in both directions, nodes at their first pixels."""
    N = int(labels.max()) + 1
    pos = torch.tensor([[float(v[0]) for v in np.nonzero(labels == n)[::-1]] for n in range(N)])
    both = [*edges, *((b, a) for a, b in edges)]
    graph = ImageGraph(
        num_nodes=N,
        edge_index=torch.tensor(both, dtype=torch.int64).reshape(-1, 2).T,
        pos=pos,
        assignment=torch.from_numpy(labels).reshape(-1),
        image_size=torch.tensor([labels.shape]),
    )
    if valid is not None:
        graph.valid = torch.from_numpy(valid).reshape(-1)
        graph.assignment = graph.assignment.where(graph.valid, 0)
    return graph


def drawn(graph: ImageGraph, size: int = 1100) -> Array:
    """`[H, W, 4]`: red, green, blue and opacity."""
    return np.asarray(Image.open(io.BytesIO(overlay_picture(graph, size))).convert("RGBA"))


def is_line(picture: Array) -> Array:
    return (picture == [*YELLOW, 255]).all(2)


def by_loop(node: Array, times: int) -> Array:
    """Pixels of the enlarged map that touch a side between two nodes."""
    H, W = node.shape[0] * times, node.shape[1] * times
    on = np.zeros((H, W), bool)
    for y in range(H):
        for x in range(W):
            for v, u in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
                if 0 <= v < H and 0 <= u < W and node[v // times, u // times] != node[y // times, x // times]:
                    on[y, x] = True
    return on


@pytest.mark.parametrize("name", list(DEGENERATE))
def test_borders_lie_exactly_between_pixels(name: str) -> None:
    labels = DEGENERATE[name]
    times = 4
    picture = drawn(of_labels(labels), size=times * max(labels.shape))
    assert picture.shape[:2] == (labels.shape[0] * times, labels.shape[1] * times)
    assert np.array_equal(is_line(picture), by_loop(labels, times))


@given(label_maps(), label_maps(regions=2))
def test_borders_of_random_maps(labels: Array, hidden: Array) -> None:
    valid = np.ones(labels.shape, bool)
    H, W = np.minimum(labels.shape, hidden.shape)
    valid[:H, :W] = hidden[:H, :W] == 0
    node = np.where(valid, labels, -1)
    picture = drawn(of_labels(labels, valid=valid), size=2 * max(labels.shape))
    line = by_loop(node, 2)
    assert np.array_equal(is_line(picture), line)
    shade = np.kron(node < 0, np.ones((2, 2), bool)) & ~line
    assert (picture[shade][:, 3] > 120).all()
    clear = ~shade & ~line
    assert ((picture[clear][:, 3] == 0) | (picture[clear][:, :3] < 30).all(1)).all()  # nothing, or a line's dark rim


def test_a_large_image_shrinks_and_a_small_one_grows_by_whole_multiples() -> None:
    for shape, size, expected in (
        ((10, 20), 1100, (80, 160)),
        ((10, 20), 65, (30, 60)),
        ((40, 20), 65, (40, 20)),
        ((30, 90), 45, (15, 45)),
        ((1, 90), 45, (1, 45)),
    ):
        assert drawn(of_labels(np.zeros(shape, np.int64)), size).shape[:2] == expected


def test_touching_regions_show_no_lines_and_others_do() -> None:
    labels = np.repeat(np.arange(4), 8)[None].repeat(8, 0)
    labels[4:] += 4
    touching = [(0, 1), (1, 2), (0, 4), (0, 5), (3, 6)]  # corner to corner, too
    assert np.array_equal(drawn(of_labels(labels, touching)), drawn(of_labels(labels)))
    picture = drawn(of_labels(labels, [(0, 3)]), size=64)
    yellow = (picture[..., 3] > 100) & (picture[..., 2] < 130) & (picture[..., 0] > 130)
    free = [x for x in range(6, 46) if min(abs(x - dot) for dot in (1, 17, 33, 49)) > 4]
    assert yellow[:3, free].any(0).all()  # from the pixel (0, 0) to (24, 0), at two pixels each
    assert not yellow[4:].any()


def test_lines_run_between_the_nodes_and_dots_lie_on_them() -> None:
    data = photograph()
    graph = ToKNNGraph(6, by="features", num_segments=30)(data)
    picture = drawn(graph, size=640)
    place = ((graph.pos + 0.5) * 8).long()
    assert (picture[place[:, 1], place[:, 0], :3] > 200).all()
    a, b = place[graph.edge_index]
    for share in (0.25, 0.5, 0.75):
        at = (a + share * (b - a)).round().long()
        window = torch.tensor([-1, 0, 1])
        near = picture[at[:, 1, None, None] + window[:, None], at[:, 0, None, None] + window]  # [E, 3, 3, 4]
        assert (near[..., 3].max((1, 2)) >= 150).all()  # something is drawn all along


def test_many_lines_are_thinned_out() -> None:
    data = Data(image=torch.from_numpy(photographs.astronaut()).movedim(-1, 0))
    graph = ToKNNGraph(16, by="features", num_segments=1500)(data)
    assert graph.num_edges > 20_000
    assert 0.02 < (drawn(graph)[..., 3] > 150).mean() < 0.5


@pytest.mark.parametrize(
    ("transform", "neighbours"),
    [(ToPixelGrid(4), 4), (ToPixelGrid(8), 8), (ToAffinityGraph([(0, 3), (2, 0)]), 4)],
)
def test_a_graph_of_pixels_shows_one_with_its_neighbours(transform: ToPixelGrid, neighbours: int) -> None:
    image = torch.from_numpy(photographs.astronaut()[:60, :80].copy()).movedim(-1, 0)
    picture = drawn(transform(Data(image=image)), size=640)
    H, W = picture.shape[:2]
    side = round(0.45 * min(H, W))
    assert (picture[H - side :, :side, 3] > 100).all()
    rest = picture.copy()
    rest[H - side :, :side] = 0
    y, x = np.nonzero(rest[..., 3])
    assert abs(y.mean() - H / 2) < 10 and abs(x.mean() - W / 2) < 10  # the mark of where it lies
    corner = picture[H - side :, :side]
    middle = side // 2
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = side * 0.11
    ring = corner[(middle + radius * np.sin(angles)).astype(int), (middle + radius * np.cos(angles)).astype(int)]
    yellow = (ring[:, 2] < 130) & (ring[:, 0] > 150)
    assert int((yellow & ~np.roll(yellow, 1)).sum()) == neighbours


def test_far_neighbours_of_pixels_are_lines_over_the_image() -> None:
    image = torch.from_numpy(photographs.astronaut()[:60:2, :80:2].copy()).movedim(-1, 0)
    graph = ToKNNGraph(4, by="features", superpixels="pixels", node_features=("mean",))(Data(image=image))
    picture = drawn(graph)
    assert 0.01 < (picture[..., 3] > 150).mean() < 0.95
    assert picture[:20, 20:].any() and picture[-20:, 20:].any()


def test_coarser_levels_have_bolder_borders() -> None:
    graph = ToHierarchy((4, 16, 60))(photograph())
    picture = drawn(graph, size=320)
    levels = [graph.scale_assignment[:, level].where(graph.valid, -1).view(64, 80).numpy() for level in range(3)]
    lines = [by_loop(level, 4) for level in levels]
    assert is_line(picture)[lines[0] | lines[1]].all()
    finest = lines[2] & ~lines[0] & ~lines[1]
    assert finest.any() and (picture[finest][:, 3] > 0).all()
    assert not is_line(picture)[finest].all()
    assert is_line(picture).sum() > (lines[0] | lines[1]).sum()  # the coarsest are wider


def test_pixels_of_no_node_are_shaded() -> None:
    data = photograph()
    instances = torch.zeros(64, 80, dtype=torch.int64)
    instances[10:30, 10:30], instances[40:60, 40:70] = 1, 2
    for graph in (
        ToSuperpixelRAG(20)(data),
        ToPixelGrid()(data),
        ToInstanceGraph(k=1)(Data(image=data.image, instances=instances)),
    ):
        picture = drawn(graph, size=80)
        outside = ~graph.valid.view(64, 80).numpy()
        outside[64 - 29 :, :29] = False  # the magnified corner
        if outside.any():
            assert (picture[outside][:, 3] > 100).mean() > 0.95


def test_equal_graphs_give_equal_files_that_stay_small() -> None:
    data = Data(image=torch.from_numpy(photographs.astronaut()).movedim(-1, 0))
    for transform in (ToSuperpixelRAG(400), ToKNNGraph(8, num_segments=400), ToPixelGrid()):
        graph = transform(data)
        files = [overlay_picture(graph.clone()) for _ in range(2)]
        assert files[0] == files[1]
        assert len(files[0]) < 250_000


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 2)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    data = Data(image=torch.arange(shape[0] * shape[1], dtype=torch.uint8).view(1, *shape))
    for transform in (ToPixelGrid(8), ToAffinityGraph(), ToKNNGraph(2, superpixels="pixels"), ToHierarchy((1, 2))):
        picture = drawn(transform(data))
        assert picture.shape[:2] == (shape[0] * 8, shape[1] * 8)
    nothing = ToSuperpixelRAG(4)(Data(image=data.image, valid=torch.zeros(shape, dtype=torch.bool)))
    assert (drawn(nothing)[..., 3] > 100).all()


def test_bad_graphs_are_refused() -> None:
    graph = ToSuperpixelRAG(10)(photograph())
    with pytest.raises(TypeError, match="got Data for graph, expected an ImageGraph"):
        overlay_picture(Data())
    with pytest.raises(ValueError, match="got a batch of 2 graphs, expected one"):
        overlay_picture(Batch.from_data_list([graph, graph]))
    with pytest.raises(ValueError, match="got size=0, expected at least 1"):
        overlay_picture(graph, 0)


# photographs


def opened(data: bytes) -> tuple[str | None, Array]:
    picture = Image.open(io.BytesIO(data))
    return picture.format, np.asarray(picture)


def test_small_photographs_are_kept_exactly_and_large_ones_shrink() -> None:
    image = torch.from_numpy(photographs.astronaut()).movedim(-1, 0)
    kind, small = opened(photograph_picture(image[:, :100, :120]))
    assert kind == "PNG" and np.array_equal(small, photographs.astronaut()[:100, :120])
    kind, large = opened(photograph_picture(image))
    assert kind == "JPEG" and large.shape == (512, 512, 3)
    assert np.abs(large.astype(int) - photographs.astronaut()).mean() < 4
    assert opened(photograph_picture(image[:, :256], 300))[1].shape == (150, 300, 3)


def test_channels_and_ranges_of_photographs() -> None:
    gray = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    exact = opened(photograph_picture(gray))[1]
    assert np.array_equal(exact[..., 0], gray[0]) and np.array_equal(exact[..., 1], gray[0])
    assert np.array_equal(opened(photograph_picture(gray.double() / 255))[1], exact)
    assert np.array_equal(opened(photograph_picture(torch.cat([gray, 255 - gray])))[1], exact)
    five = torch.cat([gray, gray // 2, gray // 4, gray, gray]).float() / 255
    stretched = opened(photograph_picture(five))[1].astype(int)
    assert abs(stretched[..., 0] - stretched[..., 2]).max() <= 2  # each channel from its own low to its own high
    wide = gray.to(torch.int32) * 257
    low, high = np.percentile(wide.numpy(), [2, 98])
    expected = np.clip((wide[0].numpy() - low) / (high - low), 0, 1) * 255
    assert np.abs(opened(photograph_picture(wide))[1][..., 0] - expected).max() <= 0.51
    holes = gray.double() * 100
    holes[0, 0] = torch.nan
    assert opened(photograph_picture(holes))[1].shape == (16, 16, 3)
    assert np.array_equal(opened(photograph_picture(gray > 128))[1][..., 0], (gray[0] > 128) * 255)


def test_bad_photographs_are_refused() -> None:
    array: Any = np.zeros((3, 4, 4))
    with pytest.raises(ValueError, match=r"got shape \[3, 4\] for image, expected \[\*, \*, \*\]"):
        photograph_picture(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="expected one channel and one pixel or more"):
        photograph_picture(torch.zeros(0, 3, 4))
    with pytest.raises(TypeError, match="got ndarray for image"):
        photograph_picture(array)
