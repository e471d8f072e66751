"""SLIC by kernels, on the CPU: image by image in threads, or one image in threads by its cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from graphseg.ops._cells import CellGrid
from graphseg.ops._regions import Regions, region_graph
from graphseg.ops.color import LabTables, lab_tables

_LARGEST = 2**30  # no squared distance is larger: it fits into 32 bits
_REACH = 12  # steps between a pixel and a centre it is compared with, at most, along each axis (see `cell_grid`)
_LAB_EXTENT = 100**2 + 185**2 + 203**2  # squared, of sRGB
_MOST_LEVELS = 64  # to a unit of Lab


@dataclass(frozen=True)
class SlicImage:
    """One image to cut.

    Args:
        levels: `[C, D, H, W]`, uint8, or uint16 (on a GPU int32) in 0 ... 65535.
        mask: `[D, H, W]` bool, or None.
        num_segments: how many superpixels to ask for.
        num_pixels: pixels in the mask.
        grid: the cells to begin with.
    """

    levels: Tensor
    mask: Tensor | None
    num_segments: int
    num_pixels: int
    grid: CellGrid


@dataclass(frozen=True)
class SlicOptions:
    """What holds for all images of a call.

    `scale` levels are a unit of colour, `unit` levels a step in place; `start` is the squared distance in colour that
    the adaptive variant begins with.
    """

    lab: bool
    iterations: int
    adaptive: bool
    min_size: float
    spacing: tuple[float, float, float]
    scale: float
    unit: float
    start: int

    @classmethod
    def of(
        cls,
        lab: bool,
        dims: int,
        compactness: float,
        iterations: int,
        adaptive: bool,
        min_size: float,
        spacing: tuple[float, float, float],
    ) -> SlicOptions:
        """As many levels as squared distances in 32 bits allow. They depend on nothing that an image could change."""
        colours = math.sqrt(_LAB_EXTENT if lab else 100**2)
        places = math.sqrt(dims) * _REACH
        # The adaptive variant only begins with the compactness, and tells places and colours apart whatever it is.
        weight = min(max(compactness, 1.0), 100.0) if adaptive else compactness
        scale = min(_MOST_LEVELS, math.sqrt(_LARGEST) / math.hypot(colours, places * weight))
        # In this form because `weight` may be as large as a float can be.
        unit = min(_MOST_LEVELS * weight, math.sqrt(_LARGEST) / math.hypot(colours / weight, places)) if weight else 0.0
        start = max(round(min(scale * compactness, 2.0**31) ** 2), 1)
        return cls(lab, iterations, adaptive, min_size, spacing, scale, unit, start)

    def tables(self, channels: int, dtype: torch.dtype) -> LabTables | np.ndarray:
        """CIELAB's tables; or of channels as they are, the level of every value: 0 to 100 / sqrt(C), so that black is
        100 from white. For uint8 every 257th entry."""
        every = 257 if dtype == torch.uint8 else 1
        if self.lab:
            tables = lab_tables(self.scale)
            return tables._replace(gamma=np.ascontiguousarray(tables.gamma[::every]))
        values = np.arange(0, 65536, every) * (100 * self.scale / (65535 * math.sqrt(channels)))
        return np.round(values).astype(np.int32)


def find_regions_kernel(images: Sequence[SlicImage], options: SlicOptions) -> list[Regions]:
    """The connected parts of the clusters that SLIC finds in every image, by kernels on the CPU."""
    threads = min(torch.get_num_threads(), 8)
    if len(images) == 1 or threads == 1:
        with ThreadPoolExecutor(threads) as pool:
            return [_find_regions(image, options, pool, threads) for image in images]
    with ThreadPoolExecutor(min(threads, len(images))) as pool:
        return list(pool.map(lambda image: _find_regions(image, options, None, 1), images))


def split(image: SlicImage, regions: Regions, count: int, options: SlicOptions) -> Regions:
    """Cuts regions in two until there are `count`. On the CPU, whatever the device: it is rarely needed."""
    from graphseg.ops.kernels.components import split_regions

    listed = _listed(image, options)
    flat = np.zeros((listed.features.shape[0], regions.components.numel()), np.int32)
    flat[:, listed.order] = listed.features
    labels = regions.labels().cpu().numpy().astype(np.int32).ravel()
    split_regions(labels, image.grid.shape, flat, image.grid.dims, np.ascontiguousarray(regions.sums[:, 0]), count)
    found = region_graph(labels.reshape(image.grid.shape), listed.order, listed.features, image.grid.dims)
    return replace(found, components=found.components.to(image.levels.device))


@dataclass(frozen=True)
class _Listed:
    """The pixels of an image cell by cell: places `order [P]`, `starts [G + 1]` of the cells, `features [F, P]`."""

    order: np.ndarray
    starts: np.ndarray
    features: np.ndarray


def _listed(
    image: SlicImage, options: SlicOptions, pool: ThreadPoolExecutor | None = None, threads: int = 1
) -> _Listed:
    from graphseg.ops.kernels.slic import lab_levels, order_cells, table_levels
    from graphseg.ops.kernels.threads import share

    grid, dims = image.grid, image.grid.dims
    levels = image.levels.cpu().numpy()
    C, P = levels.shape[0], image.num_pixels
    mask = np.empty((0, 0, 0), np.bool_) if image.mask is None else image.mask.cpu().contiguous().numpy()
    order = np.empty(P, np.int32)
    starts = np.empty(grid.num_cells + 1, np.int64)
    features = np.empty((dims + C, P), np.int32)
    order_cells(grid.shape, grid.cells, mask, tuple(grid.positions(options.unit)), order, starts, features)
    tables = options.tables(C, image.levels.dtype)
    flat = levels.reshape(C, -1)  # a view of channels-last images, too

    def colour(part: slice) -> None:
        if isinstance(tables, LabTables):
            gamma, matrix, root, zero = tables
            lab_levels(flat, order[part], gamma, matrix, root, zero, features[dims:, part])
        else:
            table_levels(flat, order[part], tables, features[dims:, part])

    bounds = np.linspace(0, P, threads + 1).astype(int).tolist()
    parts = [slice(begin, stop) for begin, stop in itertools.pairwise(bounds)]
    share(pool, colour, parts)
    return _Listed(order, starts, features)


def _find_regions(image: SlicImage, options: SlicOptions, pool: ThreadPoolExecutor | None, threads: int) -> Regions:
    from graphseg.ops.kernels.slic import scatter

    listed = _listed(image, options, pool, threads)
    clusters = _cluster(image.grid, listed, options, pool, threads)
    labels = np.full(image.grid.shape, -1, np.int32)
    scatter(listed.order, clusters, labels.reshape(-1))
    return region_graph(labels, listed.order, listed.features, image.grid.dims, pool)


def _cluster(
    grid: CellGrid, listed: _Listed, options: SlicOptions, pool: ThreadPoolExecutor | None, threads: int
) -> np.ndarray:
    """The centre of every pixel, in the order of `listed`."""
    from graphseg.ops.kernels.slic import assign, farthest_colour, sum_cells
    from graphseg.ops.kernels.threads import share

    starts, features = listed.starts, listed.features
    G, F, dims = grid.num_cells, features.shape[0], grid.dims
    neighbours = grid.neighbours()
    labels = np.empty(features.shape[1], np.int32)
    sums = np.zeros((G, 1 + F), np.int64)
    sum_cells(features, starts, labels, sums)
    centres = np.zeros((G, F), np.int32)
    farthest = np.full(G, options.start, np.int64)
    scale = np.empty((0, 2), np.float64)
    bounds = np.searchsorted(starts, np.linspace(0, starts[-1], threads + 1)[1:-1])
    parts = list(zip([0, *bounds.tolist()], [*bounds.tolist(), G], strict=True))

    def move(part: tuple[int, int]) -> tuple[int, np.ndarray]:
        change = np.zeros_like(sums)
        moved = assign(features, starts, neighbours, centres, scale, dims, part[0], part[1], labels, change)
        return moved, change

    for turn in range(options.iterations):
        filled = sums[:, 0] > 0  # a centre that lost all its pixels stays where it was
        centres[filled] = rounded_means(sums[filled])
        if options.adaptive:
            if turn > 0:
                farthest[:] = 1
                farthest_colour(features, dims, labels, centres, farthest)
            scale = np.stack([np.full(G, 1 / options.unit**2), 1 / farthest], 1)
        changes = share(pool, move, parts)
        for _, change in changes:
            sums += change
        if not options.adaptive and not any(moved for moved, _ in changes):
            break
    return labels


def rounded_means(sums: np.ndarray) -> np.ndarray:
    """`[N, F]` int32: means of `sums [N, 1 + F]`, halves upwards."""
    count = sums[:, :1]
    return ((2 * sums[:, 1:] + count) // (2 * count)).astype(np.int32)
