"""Pictures: what is drawn, and where, against plain loops over pixels and edges; files are written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from skimage import data as photographs
from torch_geometric.data import Batch, Data

from graphseg import ImageGraph
from graphseg.plot import PALETTE, plot_borders, plot_graph, plot_labels, plot_purity
from graphseg.transforms import ToHierarchy, ToInstanceGraph, ToKNNGraph, ToPixelGrid, ToSuperpixelRAG
from tests.label_maps import DEGENERATE, label_maps

EVERY = (plot_borders, plot_graph, plot_labels, plot_purity)


@pytest.fixture(autouse=True)
def figures_closed() -> Iterator[None]:
    """No figure outlives its test, and no global setting is touched."""
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


def photograph() -> Data:
    """A crop of the astronaut with a mask, some of it ignored, and nodata in one corner."""
    image = torch.from_numpy(photographs.astronaut()[20:84, 150:230].copy()).movedim(-1, 0)
    mask = (image[0] > 120).to(torch.int64) + (image[2] > 120)
    mask[:24] = 255
    valid = torch.ones_like(mask, dtype=torch.bool)
    valid[50:, :12] = False
    return Data(image=image, mask=mask, valid=valid)


@pytest.fixture(scope="module")
def graph() -> ImageGraph:
    """Superpixels of the crop that kept its pixels."""
    return ToSuperpixelRAG(30, num_classes=3, ignore_index=255, keep_pixels=True)(photograph())


def projected(graph: ImageGraph, values: torch.Tensor, fill: float = -1) -> np.ndarray:
    """Node values as a map; `fill` where there is no node."""
    found = graph.project(values, fill=fill)
    assert isinstance(found, torch.Tensor)
    return found.numpy()


def of_labels(labels: np.ndarray, valid: np.ndarray | None = None) -> ImageGraph:
    """A label map as a graph without edges."""
    N = int(labels.max()) + 1
    graph = ImageGraph(
        num_nodes=N,
        edge_index=torch.empty(2, 0, dtype=torch.int64),
        pos=torch.zeros(N, 2),
        assignment=torch.from_numpy(labels).reshape(-1),
        image_size=torch.tensor([labels.shape]),
    )
    if valid is not None:
        graph.valid = torch.from_numpy(valid).reshape(-1)
        graph.assignment = graph.assignment.where(graph.valid, 0)
    return graph


def lines(ax: Any, which: int = -1) -> Any:
    """The last (or another) collection of lines on the axes."""
    return [c for c in ax.collections if isinstance(c, LineCollection)][which]


def unit_pieces(collection: Any) -> list[tuple[float, float, float, float]]:
    """Axis-parallel lines cut into pieces of length 1, as (x0, y0, x1, y1), each with its smaller end first."""
    pieces = []
    for (x0, y0), (x1, y1) in collection.get_segments():
        assert x0 == x1 or y0 == y1
        steps = round(abs(x1 - x0) + abs(y1 - y0))
        dx, dy = (x1 - x0) / steps, (y1 - y0) / steps
        assert dx >= 0 and dy >= 0
        pieces += [(x0 + k * dx, y0 + k * dy, x0 + (k + 1) * dx, y0 + (k + 1) * dy) for k in range(steps)]
    return sorted(pieces)


def border_pieces(node: np.ndarray) -> list[tuple[float, float, float, float]]:
    """By a plain loop: the sides that two pixels of different nodes share, pixel centres at integers."""
    H, W = node.shape
    pieces = []
    for y in range(H):
        for x in range(W):
            if x + 1 < W and node[y, x] != node[y, x + 1]:
                pieces.append((x + 0.5, y - 0.5, x + 0.5, y + 0.5))
            if y + 1 < H and node[y, x] != node[y + 1, x]:
                pieces.append((x - 0.5, y + 0.5, x + 0.5, y + 0.5))
    return sorted(pieces)


def ground(ax: Any) -> np.ndarray:
    """`[H, W, 3]`, the image as it was drawn."""
    return np.asarray(ax.images[0].get_array())


def overlay(ax: Any) -> np.ndarray:
    """`[H, W, 4]`, the colours laid over the image."""
    assert len(ax.images) == 2
    return np.asarray(ax.images[1].get_array())


# borders


@pytest.mark.parametrize("name", list(DEGENERATE))
def test_borders_of_degenerate_maps(name: str) -> None:
    found = unit_pieces(lines(plot_borders(of_labels(DEGENERATE[name]))))
    assert found == border_pieces(DEGENERATE[name])


@given(label_maps(), label_maps(regions=2))
def test_borders_of_random_maps(labels: np.ndarray, hidden: np.ndarray) -> None:
    valid = np.ones(labels.shape, bool)
    H, W = np.minimum(labels.shape, hidden.shape)
    valid[:H, :W] = hidden[:H, :W] == 0
    ax = plot_borders(of_labels(labels, valid))
    assert unit_pieces(lines(ax)) == border_pieces(np.where(valid, labels, -1))
    plt.close("all")


def test_borders_of_a_photograph_and_in_a_window(graph: ImageGraph) -> None:
    node = projected(graph, torch.arange(graph.num_nodes))
    assert unit_pieces(lines(plot_borders(graph))) == border_pieces(node)
    y0, x0, height, width = 30, 5, 25, 40
    ax = plot_borders(graph, window=(y0, x0, height, width))
    inside = border_pieces(node[y0 : y0 + height, x0 : x0 + width])
    assert unit_pieces(lines(ax)) == sorted((a + x0, b + y0, c + x0, d + y0) for a, b, c, d in inside)
    assert ax.get_xlim() == (4.5, 44.5) and ax.get_ylim() == (54.5, 29.5)


def test_straight_borders_are_single_lines() -> None:
    ax = plot_borders(of_labels(DEGENERATE["four corners"]))
    assert sorted(map(np.ndarray.tolist, lines(ax).get_segments())) == [
        [[-0.5, 2.5], [5.5, 2.5]],
        [[2.5, -0.5], [2.5, 5.5]],
    ]


def test_pixels_of_no_node_are_shaded(graph: ImageGraph) -> None:
    shade = overlay(plot_borders(graph))
    valid = photograph().valid.numpy()
    assert (shade[valid] == 0).all()
    assert (shade[~valid] == shade[~valid][0]).all() and shade[~valid][0, 3] > 0
    whole = of_labels(DEGENERATE["rings"])
    assert len(plot_borders(whole).images) == 1


# nodes and edges


def joined(ax: Any) -> list[list[list[float]]]:
    """Ends of the lines, the smaller end first, sorted."""
    return sorted(sorted(ends.tolist()) for ends in lines(ax).get_segments())


def expected_lines(graph: ImageGraph) -> list[list[list[float]]]:
    """By a plain loop: the positions of every joined pair, once."""
    pairs = {frozenset(pair) for pair in graph.edge_index.T.tolist()}
    pos = graph.pos.to(torch.float64).tolist()
    return sorted(sorted([pos[i], pos[j]]) for i, j in map(tuple, pairs))


def test_every_pair_is_drawn_once_between_positions(graph: ImageGraph) -> None:
    ax = plot_graph(graph)
    assert joined(ax) == expected_lines(graph)
    assert len(joined(ax)) == graph.num_edges // 2
    (dots,) = ax.lines
    np.testing.assert_array_equal(dots.get_xydata(), graph.pos.numpy())


def test_one_direction_loops_and_doubles_are_one_line_or_none() -> None:
    graph = of_labels(np.array([[0, 1, 2]]))
    graph.pos = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    graph.edge_index = torch.tensor([[2, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
    graph.edge_weight = torch.tensor([5.0, 3.0, 9.0, 4.0, 8.0])
    ax = plot_graph(graph, edge_values="edge_weight")
    assert joined(ax) == [[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [2.0, 0.0]]]
    drawn = zip(lines(ax).get_segments(), lines(ax).get_array(), strict=True)
    assert {(*start, *end): value for (start, end), value in drawn} == {(0, 0, 1, 0): 3, (2, 0, 0, 0): 5}


def test_edges_take_their_values(graph: ImageGraph) -> None:
    weighted = ToKNNGraph(4, num_segments=20, weighted=True)(photograph())
    for g, given_values, values in (
        (graph, 1, graph.edge_attr[:, 1]),
        (weighted, "edge_weight", weighted.edge_weight),
        (weighted, weighted.edge_weight * 2, weighted.edge_weight * 2),
    ):
        ax = plot_graph(g, edge_values=given_values)
        ends = g.pos[g.edge_index.T].flatten(1).tolist()  # (x, y, x, y) of every edge
        at = dict(zip(map(tuple, ends), values.tolist(), strict=True))
        for segment, drawn in zip(lines(ax).get_segments(), lines(ax).get_array(), strict=True):
            assert at[tuple(segment.ravel().tolist())] == drawn
        assert len(ax.figure.axes) == 2  # with its colour bar
        assert len(plot_graph(g, edge_values=given_values, colorbar=False).figure.axes) == 1


def test_windows_draw_what_they_show() -> None:
    grid = ToPixelGrid(4)(photograph())
    ax = plot_graph(grid, window=(40, 8, 12, 10))
    assert ax.get_title() == "rows 40 to 51, columns 8 to 17"
    dots: Any = ax.lines[0]
    valid = photograph().valid
    shown = [[x, y] for y in range(40, 52) for x in range(8, 18) if valid[y, x]]
    assert sorted(dots.get_xydata().tolist()) == sorted(shown)
    ends = {tuple(p) for p in shown}
    expected = [pair for pair in expected_lines(grid) if {tuple(p) for p in pair} & ends]
    assert joined(ax) == expected
    _, own = plt.subplots()
    own.set_title("mine")
    assert plot_graph(grid, ax=own, window=(40, 8, 12, 10)).get_title() == "mine"


def test_large_graphs_are_refused_unless_told() -> None:
    grid = ToPixelGrid(8)(Data(image=torch.zeros(1, 30, 30)))
    number = grid.num_edges // 2
    with pytest.raises(ValueError, match=f"got {number} edges to draw, expected at most max_edges=99: show a part by"):
        plot_graph(grid, max_edges=99)
    assert len(joined(plot_graph(grid, max_edges=number))) == number
    assert 0 < len(joined(plot_graph(grid, max_edges=99, window=(3, 3, 4, 4)))) < 99


def test_nodes_without_pixels_are_left_out() -> None:
    hierarchy = ToHierarchy((4, 12))(photograph())
    finest = hierarchy.level_graph(1)
    ax = plot_graph(hierarchy)
    assert joined(ax) == expected_lines(finest)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), finest.pos.numpy())


def test_graphs_without_edges_or_nodes() -> None:
    data = photograph()
    data.instances = torch.zeros_like(data.mask)
    none = ToInstanceGraph(num_classes=3, ignore_index=255)(data)
    for plot in EVERY:
        ax = plot(none)
        ax.figure.canvas.draw()
    data.instances[:9, :9] = 1
    one = ToInstanceGraph(num_classes=3, ignore_index=255)(data)
    for plot in EVERY:
        ax = plot(one)
        ax.figure.canvas.draw()
    assert joined(plot_graph(one, edge_values=0)) == []
    ax = plot_graph(one, node_size=0, linewidth=0, borders=True)
    assert not ax.lines
    assert unit_pieces(lines(ax, 0)) == border_pieces(projected(one, torch.ones(1)))


# labels and purity


def test_labels_have_the_colours_of_their_classes(graph: ImageGraph) -> None:
    drawn = overlay(plot_labels(graph))
    label = projected(graph, graph.y)
    assert {0, 1, 2, -100, -1} >= set(np.unique(label)) >= {0, 1, -100, -1}
    gray = drawn[label == -100][0, :3]
    assert len(np.unique(gray)) == 1  # a grey
    for k in (0, 1):
        expected = np.array([*to_rgb(PALETTE[k]), 0.6], dtype=np.float32)
        np.testing.assert_allclose(drawn[label == k], np.broadcast_to(expected, drawn[label == k].shape))
    assert (drawn[label == -1] == drawn[label == -1][0]).all()


def test_predictions_palettes_and_plain_ground() -> None:
    labels = DEGENERATE["1xW each"]
    plain = of_labels(labels)
    predicted = torch.tensor([0, 3, -1, 9, 1], dtype=torch.int32)
    drawn = overlay(plot_labels(plain, predicted, palette=["red", "lime", "blue"], ignore_index=9))
    names = ["red", "red", None, None, "lime"]
    for n, name in enumerate(names):
        if name is not None:
            assert drawn[0, n].tolist() == [*to_rgb(name), 1.0]
    assert (drawn[0, 2] == drawn[0, 3]).all()


def test_legend_names_the_classes_that_occur(graph: ImageGraph) -> None:
    names = ["dark", "red", "bright"]
    legend: Any = plot_labels(graph, class_names=names).get_legend()
    present = [names[k] for k in sorted(set(graph.y.tolist()) - {-100})]
    assert [text.get_text() for text in legend.get_texts()] == [*present, "no label"]
    assert plot_labels(graph).get_legend() is None


def test_purity_is_coloured_from_0_to_1(graph: ImageGraph) -> None:
    ax = plot_purity(graph, cmap="viridis")
    drawn = overlay(ax)
    counts = graph.label_counts.numpy()
    node = projected(graph, torch.arange(graph.num_nodes))
    gray = set()
    for n in range(graph.num_nodes):
        color = drawn[node == n][0]
        assert (drawn[node == n] == color).all()
        if counts[n].sum() == 0:
            gray.add(tuple(color.tolist()))
        else:
            purity = counts[n].max() / counts[n].sum()
            np.testing.assert_allclose(color[:3], mpl.colormaps["viridis"](float(np.float32(purity)))[:3], rtol=1e-6)
    assert len(gray) == 1 and len(set(next(iter(gray))[:3])) == 1
    bar = ax.figure.axes[1]
    assert bar.get_ylim() == (0.0, 1.0) and bar.get_ylabel() == "purity"


# the image underneath


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (4, [0, 1, 2]), (200, [0, 1, 2])],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64, torch.int32])
def test_images_of_any_channels_and_dtype(channels: int, expected: list[int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 250, (channels, 6, 7), generator=generator).to(dtype)
    graph = of_labels(np.arange(42).reshape(6, 7))
    drawn = ground(plot_borders(graph, image))
    assert drawn.shape == (6, 7, 3)
    for k, source in enumerate(expected):
        values = image[source].to(torch.float64).numpy()
        if dtype == torch.uint8:
            want = values / 255
        else:
            low, high = np.percentile(values, [2, 98])
            want = np.clip((values - low) / (high - low), 0, 1)
        np.testing.assert_allclose(drawn[..., k], want, atol=1e-5)


def test_colours_in_the_unit_range_are_drawn_as_they_are(graph: ImageGraph) -> None:
    image = photograph().image
    np.testing.assert_allclose(ground(plot_borders(graph, image)), image.movedim(0, -1).numpy() / 255, atol=1e-6)
    kept = graph.pixel_x.view(64, 80, 3).numpy()
    np.testing.assert_allclose(ground(plot_borders(graph)), kept, atol=1e-6)
    mean = projected(graph, graph.x[:, :3], fill=0)
    drawn = ground(plot_graph(graph, torch.from_numpy(mean)))
    np.testing.assert_allclose(drawn, mean.transpose(1, 2, 0), atol=1e-6)


def test_nan_and_constant_images_are_drawn() -> None:
    graph = of_labels(DEGENERATE["rings"])
    for image in (torch.full((5, 9, 9), 3.0), torch.full((3, 9, 9), torch.nan), torch.eye(9)[None] * torch.inf):
        drawn = ground(plot_borders(graph, image))
        assert np.isfinite(drawn).all() and drawn.min() >= 0 and drawn.max() <= 1


def test_positions_lie_on_their_pixels() -> None:
    # Rendered: the dot of the only bright pixel's node covers that pixel, y pointing down.
    image = torch.zeros(3, 5, 8)
    image[:, 1, 6] = 1
    graph = ToPixelGrid()(Data(image=image))
    fig = plt.figure(figsize=(8, 5), dpi=20)
    ax = plot_graph(graph, image, fig.add_axes((0, 0, 1, 1)), linewidth=0, node_size=0)
    canvas: Any = fig.canvas
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., 0]  # [100, 160], 20 by 20 for each pixel
    assert picture.shape == (100, 160)
    assert (picture[20:40, 120:140] == 255).all() and picture.sum() == 255 * 400
    x, y = ax.transData.transform(graph.pos[1 * 8 + 6].numpy())
    assert (x, 100 - y) == pytest.approx((130, 30))


# files, axes, refusals


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.parametrize("plot", EVERY)
def test_files_are_written(plot: Any, suffix: str, graph: ImageGraph, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    plot(graph).figure.savefig(path)
    assert path.stat().st_size > 2000
    if suffix == "png":
        picture = plt.imread(path)
        assert picture[..., :3].std() > 0.05


@pytest.mark.parametrize("plot", EVERY)
def test_given_axes_are_used_and_made_quiet(plot: Any, graph: ImageGraph) -> None:
    fig, axes = plt.subplots(1, 2)
    assert plot(graph, ax=axes[1]) is axes[1]
    assert not axes[0].images
    ax = axes[1]
    assert ax.get_aspect() == 1.0
    assert not len(ax.get_xticks()) and not len(ax.get_yticks())
    assert ax.get_xlim() == (-0.5, 79.5) and ax.get_ylim() == (63.5, -0.5)
    new = plot(graph)
    assert new.figure is not fig


@pytest.mark.parametrize("plot", EVERY)
def test_refusals_of_every_function(plot: Any, graph: ImageGraph) -> None:
    with pytest.raises(ValueError, match="got a batch of 2 graphs, expected one"):
        plot(Batch.from_data_list([graph, graph]))
    with pytest.raises(TypeError, match="got Data for graph, expected an ImageGraph"):
        plot(Data())
    with pytest.raises(ValueError, match=r"got shape \[3, 5, 5\] for image, expected \[\*, 64, 80\]"):
        plot(graph, image=torch.zeros(3, 5, 5))
    with pytest.raises(TypeError, match=r"got ndarray for image, expected a torch.Tensor"):
        plot(graph, image=np.zeros((3, 64, 80)))
    with pytest.raises(ValueError, match=r"got torch.float32 \[0, 64, 80\] for image, expected one real channel"):
        plot(graph, image=torch.zeros(0, 64, 80))
    for window in ((0, 0, 65, 3), (0, -1, 3, 3), (5, 5, 0, 5)):
        with pytest.raises(ValueError, match=r"expected \(y0, x0, height, width\) within 64 x 80 pixels"):
            plot(graph, window=window)


def test_refusals_of_values(graph: ImageGraph) -> None:
    with pytest.raises(ValueError, match=r"got column 7 and edge_attr of shape \[\d+, 2\], expected one of"):
        plot_graph(graph, edge_values=7)
    with pytest.raises(ValueError, match="got edge_values='edge_weight', expected a field of the graph"):
        plot_graph(graph, edge_values="edge_weight")
    with pytest.raises(ValueError, match=r"got shape \[3\] for edge_values, expected \[\d+\]"):
        plot_graph(graph, edge_values=torch.zeros(3))
    plain = of_labels(DEGENERATE["rings"])
    with pytest.raises(ValueError, match="got column 0 and no edge_attr"):
        plot_graph(plain, edge_values=0)
    del plain.pos
    with pytest.raises(ValueError, match="got a graph without pos, expected the position of every node"):
        plot_graph(plain)
    with pytest.raises(ValueError, match="got a graph without y, expected it there, or labels as a tensor"):
        plot_labels(plain)
    with pytest.raises(ValueError, match="got a graph without label_counts"):
        plot_purity(plain)
    with pytest.raises(ValueError, match=r"got shape \[2\] for labels, expected \[\d+\]"):
        plot_labels(graph, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"got dtype torch.float32 for labels, expected an integer"):
        plot_labels(graph, torch.zeros(graph.num_nodes))
    with pytest.raises(ValueError, match="and 1 class_names, expected a name for every label"):
        plot_labels(graph, class_names=["dark"])


@pytest.mark.parametrize("plot", EVERY)
def test_missing_matplotlib_is_named_with_its_extra(
    plot: Any, graph: ImageGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'graphseg.plot needs matplotlib: pip install "graphseg\[viz\]"'):
        plot(graph)
