"""The grid of cells in which superpixels begin: one centre in each cell, and the cells around every cell."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CellGrid:
    """Cells of an image or volume `shape` (D, H, W); cell i of n along a side of L pixels holds x with x n // L = i.

    Args:
        shape: D, H, W; D = 1 for images.
        cells: cells along each.
        dims: 2 for images, 3 for volumes.
        step: S, the side of a superpixel, in the unit of `spacing`.
        spacing: size of a pixel along z, y, x.
    """

    shape: tuple[int, int, int]
    cells: tuple[int, int, int]
    dims: int
    step: float
    spacing: tuple[float, float, float]

    @property
    def num_cells(self) -> int:
        return math.prod(self.cells)

    def positions(self, unit: float) -> list[np.ndarray]:
        """Place of every z, y, x in whole numbers, `unit` to a step; of no z in an image."""
        found = []
        for length, size in zip(self.shape, self.spacing, strict=True):
            found.append(np.round(np.arange(length) * (size * unit / self.step)).astype(np.int32))
        if self.dims == 2:
            found[0] = found[0][:0]
        return found

    def neighbours(self) -> np.ndarray:
        """`[G, 3 ** dims]` int32: the cells around every cell and itself, rising; -1 for those outside."""
        return _neighbours(self.cells, self.dims)


@functools.lru_cache(maxsize=32)
def _neighbours(cells: tuple[int, int, int], dims: int) -> np.ndarray:
    Z, Y, X = cells
    z, y, x = (a.ravel()[:, None] for a in np.meshgrid(np.arange(Z), np.arange(Y), np.arange(X), indexing="ij"))
    moves = np.array(list(itertools.product((-1, 0, 1) if dims == 3 else (0,), (-1, 0, 1), (-1, 0, 1))))
    nz, ny, nx = z + moves[:, 0], y + moves[:, 1], x + moves[:, 2]  # [G, J]
    inside = (nz >= 0) & (nz < Z) & (ny >= 0) & (ny < Y) & (nx >= 0) & (nx < X)
    found = np.where(inside, (nz * Y + ny) * X + nx, -1).astype(np.int32)
    found.flags.writeable = False
    return found


def cell_grid(
    shape: tuple[int, int, int],
    dims: int,
    num_segments: int,
    num_pixels: int,
    spacing: tuple[float, float, float],
    at_least: bool = False,
) -> CellGrid:
    """The grid with about `num_segments` cells (with `at_least`, if possible not fewer) that are nearest to cubes.

    Where a mask leaves `num_pixels` of the image, the whole grid has accordingly more cells.
    """
    axes = range(3 - dims, 3)
    sizes = {a: shape[a] * spacing[a] for a in axes}
    wanted = min(num_segments * math.prod(shape) / max(num_pixels, 1), float(math.prod(shape)))
    order = sorted(axes, key=lambda a: (sizes[a], -a))  # the longest axis makes up for the rounding of the others

    def fit(count: float, axis: int) -> int:
        return min(max(int(count), 1), shape[axis])

    choices = []
    for i, axis in enumerate(order[:-1]):
        rest = order[i:]
        step = (math.prod(sizes[a] for a in rest) / wanted) ** (1 / len(rest))  # axes thinner than a step fell away
        choices.append(sorted({fit(math.floor(sizes[axis] / step), axis), fit(math.ceil(sizes[axis] / step), axis)}))
    found = []
    for counts in itertools.product(*choices):
        last = wanted / math.prod(counts)
        full = dict.fromkeys(range(3), 1) | dict(zip(order, counts, strict=False))
        full[order[-1]] = fit(math.ceil(last - 1e-9) if at_least else round(last), order[-1])
        sides = [math.log(sizes[a] / full[a]) for a in axes]
        form = sum(abs(side - sum(sides) / dims) for side in sides)
        found.append((4 * abs(math.log(math.prod(full.values()) / wanted)) + form, full[0], full[1], full[2]))
    Z, Y, X = min(found)[1:]
    step = (math.prod(sizes.values()) / wanted) ** (1 / dims)
    longest = max(sizes[a] / n for a, n in enumerate((Z, Y, X)) if a in sizes)
    # A step is at least half the longest side of a cell, also in images of one row: distances stay bounded.
    return CellGrid(shape, (Z, Y, X), dims, max(step, longest / 2), spacing)
