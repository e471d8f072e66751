"""Label maps for the tests of region operators: degenerate, random, and superpixels of photographs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import data
from skimage.segmentation import felzenszwalb, slic

Array = np.ndarray[Any, Any]


def consecutive(labels: Array) -> Array:
    """The same regions with ids from 0, by rising label."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)


def checkerboard(height: int, width: int) -> Array:
    """Two regions of single pixels."""
    y, x = np.indices((height, width))
    return (y + x) % 2


def rings(size: int) -> Array:
    """Nested square rings, one pixel wide, the outermost with id 0."""
    y, x = np.indices((size, size))
    return np.minimum(np.minimum(y, x), np.minimum(size - 1 - y, size - 1 - x))


def spiral(size: int) -> Array:
    """A corridor one pixel wide (id 1) winding inwards, and the wall between its turns (id 0)."""
    labels = np.zeros((size, size), np.int64)
    y, x, dy, dx = 0, 0, 0, 1
    labels[0, 0] = 1
    turned = 0
    while turned < 2:
        yy, xx = y + dy, x + dx
        beyond = (yy + dy, xx + dx)
        inside = 0 <= yy < size and 0 <= xx < size
        if not inside or labels[yy, xx] or (min(beyond) >= 0 and max(beyond) < size and labels[beyond]):
            dy, dx = dx, -dy
            turned += 1
        else:
            y, x, turned = yy, xx, 0
            labels[y, x] = 1
    return labels


def star(rows: int, columns: int) -> Array:
    """Single pixels, each an island in region 0, which touches all of them."""
    labels = np.zeros((2 * rows + 1, 2 * columns + 1), np.int64)
    labels[1::2, 1::2] = 1 + np.arange(rows * columns).reshape(rows, columns)
    return labels


def pieces() -> Array:
    """Region 1 lies in three pieces that do not touch."""
    labels = np.zeros((7, 9), np.int64)
    labels[0, :2] = labels[3:5, 4] = labels[6, 7:] = 1
    labels[:, 3] = 2
    return labels


DEGENERATE: dict[str, Array] = {
    "1x1": np.zeros((1, 1), np.int64),
    "1xW constant": np.zeros((1, 6), np.int64),
    "1xW": np.array([[0, 0, 1, 2, 2, 2, 0]]),
    "1xW each": np.arange(5)[None],
    "Hx1": np.array([[1], [1], [0], [2], [2]]),
    "2x2 cross": np.array([[0, 1], [1, 0]]),
    "constant": np.zeros((4, 5), np.int64),
    "region per pixel": np.arange(24).reshape(4, 6)[::-1].copy(),
    "checkerboard": checkerboard(5, 6),
    "two regions": (np.indices((5, 8))[1] > 4).astype(np.int64),
    "four corners": np.kron([[0, 1], [2, 3]], np.ones((3, 3), np.int64)),
    "spiral": spiral(11),
    "rings": rings(9),
    "pieces": pieces(),
    "star": star(6, 8),
    "star, last": star(6, 8).max() - star(6, 8),
    "star, shuffled": np.concatenate([[0], 1 + np.random.default_rng(0).permutation(48)])[star(6, 8)],
}


@st.composite
def label_maps(draw: st.DrawFn, dims: int = 2, largest: int = 12, regions: int = 7) -> Array:
    """Label maps `[H, W]` (or of `dims` dimensions) of any sizes up to `largest`, ids consecutive from 0."""
    shape = draw(hnp.array_shapes(min_dims=dims, max_dims=dims, min_side=1, max_side=largest))
    top = draw(st.integers(0, regions - 1))
    return consecutive(draw(hnp.arrays(np.int64, shape, elements=st.integers(0, top))))


@cache
def photographs() -> dict[str, tuple[Array, Array]]:
    """Name -> (crop `[H, W, 3]` uint8, its superpixels `[H, W]` int64), of real photographs."""
    astronaut = data.astronaut()[20:148, 150:300]
    coffee = data.coffee()[100:220, 200:360]
    cat = data.chelsea()[40:170, 80:250]
    return {
        "astronaut, SLIC": (astronaut, consecutive(slic(astronaut, 90, start_label=0))),
        "coffee, Felzenszwalb": (coffee, consecutive(felzenszwalb(coffee, scale=60, min_size=12))),
        "chelsea, SLIC": (cat, consecutive(slic(cat, 60, compactness=3, start_label=0))),
    }
