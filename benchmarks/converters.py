"""Images to graphs: region adjacency, region and boundary statistics, grids, whole conversions; peers in the same run.

    python -m benchmarks.converters [--out FILE] [--repeats N]

The image is scikit-image's astronaut (512 x 512), its regions SLIC's for 400 segments. kNN is `benchmarks.knn`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.common import OURS, Row, finish, parse, race
from benchmarks.knn import neighbours
from graphseg.ops import boundary_statistics, edge_distance, grid_edges, rag_edges, region_statistics
from graphseg.transforms import ToPixelGrid, ToSuperpixelRAG
from graphseg.transforms.features import gradient_magnitude

try:
    import bioimage_cpp.graph as bioimage
except ImportError:
    bioimage = None
try:
    import higra
except ImportError:
    higra = None

MISSING = "not installed"
SHAPE = (
    *("area", "mean", "std", "min", "max", "centroid", "bounding_box"),
    *("perimeter", "axis_lengths", "orientation", "eccentricity", "hu"),
)
PROPERTIES = (
    *("area", "mean_intensity", "intensity_std", "intensity_min", "intensity_max", "centroid", "bbox"),
    *("perimeter", "axis_major_length", "axis_minor_length", "orientation", "eccentricity", "moments_hu"),
)


def photograph() -> tuple[np.ndarray, np.ndarray]:
    """The image [512, 512, 3] and its SLIC regions [512, 512], int64 from 0."""
    from skimage.data import astronaut
    from skimage.segmentation import slic

    image = astronaut()
    return image, slic(image, n_segments=400, start_label=0).astype(np.int64)


def rag_by_unique(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The short tensor form that one writes first."""
    N = int(labels.max()) + 1
    keys = []
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        apart = a != b
        keys.append(torch.minimum(a[apart], b[apart]) * N + torch.maximum(a[apart], b[apart]))
    pair, length = torch.unique(torch.cat(keys), return_counts=True)
    return torch.stack([pair // N, pair % N]), length


def peers(found: object, contenders: dict[str, Callable[[], Any]]) -> dict[str, Callable[[], Any] | str]:
    """The contenders of a package, or a word in place of each where it is not installed."""
    return {name: call if found is not None else MISSING for name, call in contenders.items()}


def check_equal(name: str, ours: Tensor, theirs: Any) -> None:
    """Results are compared before anything is timed."""
    expected = torch.from_numpy(np.asarray(theirs).astype(np.float64))
    torch.testing.assert_close(ours.to(torch.float64), expected, rtol=1e-6, atol=1e-6, msg=lambda m: f"{name}: {m}")


def adjacency(repeats: int) -> list[Row]:
    from skimage.graph import RAG

    _, regions = photograph()
    labels = torch.from_numpy(regions)
    edge_index, _ = rag_edges(labels)
    check_equal("torch unique", edge_index, rag_by_unique(labels)[0])
    check_equal("scikit-image", edge_index, np.array(sorted(tuple(sorted(e)) for e in RAG(regions).edges)).T)
    if bioimage is not None:
        check_equal("bioimage-cpp", edge_index, bioimage.region_adjacency_graph(regions).uv_ids().T)
    one = {
        OURS: lambda: rag_edges(labels),
        **peers(
            bioimage,
            {
                "bioimage-cpp": lambda: bioimage.region_adjacency_graph(regions).uv_ids(),
                "bioimage-cpp, one thread": lambda: bioimage.region_adjacency_graph(
                    regions, number_of_threads=1
                ).uv_ids(),
            },
        ),
        **peers(
            higra,
            {
                "higra": lambda: higra.make_region_adjacency_graph_from_labelisation(
                    higra.get_4_adjacency_graph(regions.shape), regions
                )
            },
        ),
        "torch unique": lambda: rag_by_unique(labels),
        "scikit-image RAG": lambda: RAG(regions),
    }
    rows = race("RAG, one image, 512 x 512, 291 regions, 4-connected", one, repeats)

    batch = torch.stack([labels.roll(shift, 1) for shift in range(0, 512, 32)])  # [16, 512, 512]
    stack = [np.ascontiguousarray(b) for b in batch.numpy()]
    many = {
        OURS: lambda: rag_edges(batch),
        **peers(bioimage, {"bioimage-cpp": lambda: [bioimage.region_adjacency_graph(b).uv_ids() for b in stack]}),
        "torch unique": lambda: [rag_by_unique(b) for b in batch],
    }
    return rows + race("RAG, batch of 16, per image", many, repeats, per=16)


def boundaries(repeats: int) -> list[Row]:
    image, regions = photograph()
    labels = torch.from_numpy(regions)
    strength = gradient_magnitude(torch.from_numpy(image).movedim(-1, 0).float() / 255)
    edge_map = strength.numpy()
    found = boundary_statistics(labels, strength, percentiles=())
    if bioimage is not None:
        rag = bioimage.region_adjacency_graph(regions)
        theirs = bioimage.features.edge_map_features(rag, regions, edge_map)
        check_equal("boundary mean", found["mean"], theirs[:, 0])
        check_equal("boundary length", found["length"], theirs[:, 1])

    def edge_map_features(name: str) -> Any:
        graph = bioimage.region_adjacency_graph(regions)
        return graph.uv_ids(), getattr(bioimage.features, name)(graph, regions, edge_map)

    two = {
        OURS: lambda: boundary_statistics(labels, strength, percentiles=()),
        **peers(bioimage, {"bioimage-cpp": lambda: edge_map_features("edge_map_features")}),
    }
    rows = race("RAG with mean and length (ours: and std) of each boundary", two, repeats)
    levels = (5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0)
    many = {
        OURS: lambda: boundary_statistics(labels, strength, percentiles=levels),
        **peers(bioimage, {"bioimage-cpp": lambda: edge_map_features("edge_map_features_complex")}),
    }
    return rows + race("RAG with 12 (ours: 10) statistics of each boundary, percentiles among them", many, repeats)


def statistics(repeats: int) -> list[Row]:
    from skimage.graph import rag_mean_color
    from skimage.measure import regionprops_table

    image, regions = photograph()
    labels, pixels = torch.from_numpy(regions), torch.from_numpy(image).movedim(-1, 0).contiguous()

    def mean_color_rag() -> tuple[Tensor, Tensor]:
        edge_index, _ = rag_edges(labels)
        mean = region_statistics(labels, pixels, statistics=["mean"])["mean"]
        return edge_index, edge_distance(mean, edge_index)

    theirs = rag_mean_color(image, regions, connectivity=1)
    edge_index, distance = mean_color_rag()
    weights = [theirs.edges[i, j]["weight"] for i, j in edge_index.T.tolist()]
    check_equal("rag_mean_color", distance, weights)
    contenders = {OURS: mean_color_rag, "scikit-image": lambda: rag_mean_color(image, regions, connectivity=1)}
    rows = race("RAG with mean colours and their distances", contenders, repeats)

    table = regionprops_table(regions + 1, image, properties=PROPERTIES)
    found = region_statistics(labels, pixels, statistics=SHAPE)
    for name, column, key in (("area", ..., "area"), ("perimeter", ..., "perimeter"), ("hu", (..., 6), "moments_hu-6")):
        check_equal(name, found[name][column], table[key])
    contenders = {
        OURS: lambda: region_statistics(labels, pixels, statistics=SHAPE),
        "scikit-image": lambda: regionprops_table(regions + 1, image, properties=PROPERTIES),
    }
    return rows + race("region statistics, 12 kinds, 3 channels", contenders, repeats)


def grids(repeats: int) -> list[Row]:
    from torch_geometric.utils import grid

    H = W = 512
    edge_index = grid_edges(H, W, 8, directed=True)
    theirs, _ = grid(H, W)
    theirs = theirs[:, theirs[0] != theirs[1]]
    assert edge_index.shape == theirs.shape, (edge_index.shape, theirs.shape)
    both = {OURS: lambda: grid_edges(H, W, 8, directed=True), "PyG utils.grid": lambda: grid(H, W)}
    rows = race("pixel grid 512 x 512, 8-connected, both directions (PyG: with self-loops)", both, repeats)
    once = {
        OURS: lambda: grid_edges(H, W, 4),
        **peers(bioimage, {"bioimage-cpp": lambda: bioimage.grid_graph((H, W)).uv_ids()}),
        **peers(higra, {"higra": lambda: higra.get_4_adjacency_graph((H, W)).edge_list()}),
    }
    return rows + race("pixel grid 512 x 512, 4-connected, each pair once", once, repeats)


def conversions(repeats: int) -> list[Row]:
    from skimage.graph import rag_mean_color
    from skimage.measure import regionprops_table
    from skimage.segmentation import slic

    image, regions = photograph()
    pixels = torch.from_numpy(image).movedim(-1, 0).contiguous()
    mask = (pixels[0] > 128).to(torch.int64)
    given = Data(image=pixels, mask=mask, segments=torch.from_numpy(regions))
    convert = ToSuperpixelRAG(superpixels="segments", num_classes=2)

    def by_hand() -> Data:
        graph = rag_mean_color(image, regions, connectivity=1)
        table = regionprops_table(
            regions + 1, image, properties=("area", "centroid", "mean_intensity", "intensity_std")
        )
        edge_index = torch.tensor(list(graph.to_directed().edges)).T
        return Data(x=torch.tensor(np.stack(list(table.values()), 1)), edge_index=edge_index)

    assert convert(given).num_edges == by_hand().num_edges
    contenders = {OURS: lambda: convert(given), "scikit-image and PyG by hand": by_hand}
    rows = race("given regions to a graph with features and labels", contenders, repeats)
    whole = ToSuperpixelRAG(400, num_classes=2)
    contenders = {
        OURS: lambda: whole(Data(image=pixels, mask=mask)),
        "scikit-image SLIC alone": lambda: slic(image, n_segments=400, start_label=0),
    }
    rows += race("whole conversion, SLIC included", contenders, repeats)
    grid = ToPixelGrid(4)
    return rows + race("image to pixel grid with features", {OURS: lambda: grid(Data(image=pixels))}, repeats)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(__doc__, argv)
    rows: list[Row] = []
    for part in (adjacency, boundaries, statistics, grids, conversions, neighbours):
        rows += part(options.repeats)
    finish(rows, options)


if __name__ == "__main__":
    main()
