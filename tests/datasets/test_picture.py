"""The picture of a graph: what it shows is the image that the graph was made of, and the graph's own numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from graphseg.datasets import ImageFolder, ImageGraphDataset, Potsdam
from graphseg.datasets.picture import MOST_NODES, SIDE, draw_graph
from graphseg.transforms import (
    ToAffinityGraph,
    ToHierarchy,
    ToInstanceGraph,
    ToKNNGraph,
    ToPixelGrid,
    ToSuperpixelRAG,
)
from tests.datasets.official_trees import write_potsdam
from tests.datasets.small_trees import HEIGHT, IGNORE, NUM_CLASSES, WIDTH, photo, read_tree, write_image, write_tree

LABELS: dict[str, Any] = {"num_classes": NUM_CLASSES, "ignore_index": IGNORE}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that were written; none is left open."""
    figures: list[Figure] = []
    save = Figure.savefig

    def note(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", note)
    yield figures
    assert not plt.get_fignums()


def panels(figure: Figure) -> list[Any]:
    """The axes with an image, without colour bars."""
    return [ax for ax in figure.axes if ax.images]


def shown(ax: Any) -> np.ndarray:
    """The picture on which a panel is drawn, `[H, W, 3]` as uint8."""
    return np.round(np.asarray(ax.images[0].get_array())[..., :3] * 255).astype(np.uint8)


def ends(ax: Any) -> np.ndarray:
    """The ends of the edges that a panel draws, `[E, 2, 2]`."""
    return np.array([c for c in ax.collections if isinstance(c, LineCollection)][-1].get_segments())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", 2)


def test_panels_of_a_labelled_graph(tree: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    reader = read_tree(tree, class_names=["dark", "half dark", "bright"])
    dataset = ImageGraphDataset.build(reader, tmp_path / "out", ToSuperpixelRAG(20, **LABELS))
    draw_graph(dataset, 1, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 20
    graph, (figure,) = dataset[1], drawn
    titles = [ax.get_title() for ax in panels(figure)]
    assert titles == [f"{graph.num_nodes} nodes", f"{graph.num_edges} edges", "majority classes", "purity"]
    assert figure.get_suptitle() == "001"
    borders, edges, classes, _ = panels(figure)
    assert np.array_equal(shown(borders), photo(1)) and np.array_equal(shown(edges), photo(1))
    pairs = {frozenset(pair) for pair in graph.edge_index.T.tolist()}
    want = {tuple(sorted(map(tuple, graph.pos[list(pair)].tolist()))) for pair in pairs}
    got = {tuple(sorted(map(tuple, segment.tolist()))) for segment in ends(edges).astype(np.float32)}
    assert got == want
    labels = graph.y.unique()
    names = [text.get_text() for text in classes.get_legend().get_texts()]
    assert names == [reader.class_names[k] for k in labels if k >= 0] + ["no label"] * bool((labels < 0).any())


def test_panels_without_labels(tree: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    dataset = ImageGraphDataset.build(ImageFolder(tree / "images"), tmp_path / "out", ToSuperpixelRAG(20))
    for suffix in (".png", ".svg", ".pdf"):
        draw_graph(dataset, 0, tmp_path / f"zero{suffix}")
        assert (tmp_path / f"zero{suffix}").stat().st_size > 5000
    assert all(len(panels(figure)) == 2 for figure in drawn)
    assert np.array_equal(shown(panels(drawn[0])[0]), photo(0))


@pytest.mark.parametrize("part", [slice(1, None), [1], slice(-1, None)])
def test_part_of_a_dataset(part: Any, tree: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    dataset = ImageGraphDataset.build(ImageFolder(tree / "images"), tmp_path / "out", ToSuperpixelRAG(20))
    draw_graph(dataset[part], 0, tmp_path / "one.png")
    assert drawn[0].get_suptitle() == "001" and np.array_equal(shown(panels(drawn[0])[0]), photo(1))


@pytest.mark.parametrize(
    "transform",
    [
        ToPixelGrid(8, **LABELS),
        ToKNNGraph(3, num_segments=20, weighted=True, **LABELS),
        ToKNNGraph(3, superpixels="pixels", **LABELS),
        ToAffinityGraph([(0, 1), (1, 0), (0, 3)], **LABELS),
        ToHierarchy([5, 10, 20], **LABELS),
        ToSuperpixelRAG(20, edge_features=(), **LABELS),
        ToSuperpixelRAG(1, **LABELS),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_every_kind_of_graph(transform: Any, tree: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    dataset = ImageGraphDataset.build(read_tree(tree), tmp_path / "out", transform)
    draw_graph(dataset, 0, tmp_path / "p.png")
    assert len(panels(drawn[0])) == 4
    assert panels(drawn[0])[0].get_title() == f"{dataset[0].num_nodes:,} nodes"


def test_instances(tree: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    cells = np.zeros((HEIGHT, WIDTH), np.uint8)
    cells[4:20, 4:20], cells[25:40, 30:60] = 1, 2
    for name in ("000", "001"):
        write_image(tree / "cells" / f"{name}.png", cells)
    reader = ImageFolder(tree / "images", tree / "masks", tree / "cells", num_classes=3, ignore_index=IGNORE)
    dataset = ImageGraphDataset.build(reader, tmp_path / "out", ToInstanceGraph(**LABELS))
    draw_graph(dataset, 0, tmp_path / "p.png")
    assert panels(drawn[0])[0].get_title() == "2 nodes"


def test_large_grids_show_their_middle(tmp_path: Path, drawn: list[Figure]) -> None:
    write_image(tmp_path / "images/large.png", photo(5, 150, 170))
    dataset = ImageGraphDataset.build(ImageFolder(tmp_path / "images"), tmp_path / "out", ToPixelGrid())
    assert dataset[0].num_nodes > MOST_NODES
    draw_graph(dataset, 0, tmp_path / "p.png")
    y0, x0 = (150 - SIDE) // 2, (170 - SIDE) // 2
    for ax in panels(drawn[0]):
        assert ax.get_xlim() == (x0 - 0.5, x0 + SIDE - 0.5) and ax.get_ylim() == (y0 + SIDE - 0.5, y0 - 0.5)
    x, y = ends(panels(drawn[0])[1]).reshape(-1, 2).T
    assert x0 - 1 <= x.min() and x.max() <= x0 + SIDE and y0 - 1 <= y.min() and y.max() <= y0 + SIDE


def test_tiles_are_drawn_over_their_part_of_the_image(tmp_path: Path, drawn: list[Figure]) -> None:
    written = write_potsdam(tmp_path / "potsdam")
    reader = Potsdam(tmp_path / "potsdam", tile=12)
    dataset = ImageGraphDataset.build(reader, tmp_path / "out", ToSuperpixelRAG(6, num_classes=6, ignore_index=255))
    tile = next(tile for tile in written if tile.source == dataset.sources[4])
    draw_graph(dataset, 4, tmp_path / "p.png")
    assert drawn[0].get_suptitle() == tile.source
    assert np.array_equal(shown(panels(drawn[0])[0]), tile.image[..., :3])


def test_images_that_are_gone_or_have_changed(tree: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    dataset = ImageGraphDataset.build(ImageFolder(tree / "images"), tmp_path / "out", ToSuperpixelRAG(20))
    kept = ToSuperpixelRAG(20, keep_pixels=True)
    with_pixels = ImageGraphDataset.build(ImageFolder(tree / "images"), tmp_path / "kept", kept)
    (tree / "images/000.png").unlink()
    write_image(tree / "images/001.png", photo(1, 20, 20))
    for index in (0, 1):
        draw_graph(dataset, index, tmp_path / "p.png")
        ground = shown(panels(drawn[-1])[0])
        assert ground.shape == (HEIGHT, WIDTH, 3) and (ground == ground[0, 0]).all()
        draw_graph(with_pixels, index, tmp_path / "p.png")
        assert np.array_equal(shown(panels(drawn[-1])[0]), photo(index))


def test_pictures_that_cannot_be_written(tree: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    dataset = ImageGraphDataset.build(ImageFolder(tree / "images"), tmp_path / "out", ToSuperpixelRAG(20))
    with pytest.raises(ValueError, match="xyz"):
        draw_graph(dataset, 0, tmp_path / "p.xyz")
    with pytest.raises(FileNotFoundError, match="nobody"):
        draw_graph(dataset, 0, tmp_path / "nobody/p.png")
    with pytest.raises(IndexError):
        draw_graph(dataset, 2, tmp_path / "p.png")
    assert not (tmp_path / "p.xyz").exists() and not (tmp_path / "p.png").exists()


def test_matplotlib_is_asked_for(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ImageGraphDataset.build(ImageFolder(tree / "images"), tmp_path / "out", ToSuperpixelRAG(20))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"graphseg\[viz\]"):
        draw_graph(dataset, 0, tmp_path / "p.png")
