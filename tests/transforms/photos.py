"""Inputs for the tests of transforms: photographs, odd images, real data sets, and one of every transform."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor
from torch_geometric.data import Data

from graphseg.transforms import (
    ImageTransform,
    ToAffinityGraph,
    ToHierarchy,
    ToInstanceGraph,
    ToKNNGraph,
    ToPascalVOCSP,
    ToPixelGrid,
    ToSuperpixelRAG,
)
from graphseg.transforms.features import NODE_FEATURES, RAG_EDGE_FEATURES

Array = np.ndarray[Any, Any]

ANGLES = ("color_distance", "centroid_distance", "centroid_angle")
K = 5  # classes of the masks here


def blocks(image: Array, cells: int) -> Array:
    """A label map by hand: square cells."""
    height, width = image.shape[:2]
    y, x = np.indices((height, width))
    return (y * cells // height) * cells + x * cells // width


TRANSFORMS: dict[str, Callable[..., ImageTransform]] = {
    "grid": lambda **kw: ToPixelGrid(edge_features=ANGLES, **kw),
    "grid, 8": lambda **kw: ToPixelGrid(8, edge_features=ANGLES, **kw),
    "affinity": lambda **kw: ToAffinityGraph([(0, 1), (1, 0), (2, -1)], edge_features=ANGLES, **kw),
    "slic": lambda **kw: ToSuperpixelRAG(12, edge_features=ANGLES, **kw),
    "everything": lambda **kw: ToSuperpixelRAG(
        12, node_features=NODE_FEATURES, edge_features=RAG_EDGE_FEATURES, connectivity=8, **kw
    ),
    "felzenszwalb": lambda **kw: ToSuperpixelRAG(None, "felzenszwalb", min_size=5, edge_features=ANGLES, **kw),
    "quickshift": lambda **kw: ToSuperpixelRAG(None, "quickshift", edge_features=ANGLES, **kw),
    "watershed": lambda **kw: ToSuperpixelRAG(12, "watershed", edge_features=ANGLES, **kw),
    "segments": lambda **kw: ToSuperpixelRAG(None, "segments", edge_features=ANGLES, **kw),
    "function": lambda **kw: ToSuperpixelRAG(None, three_by_three, edge_features=ANGLES, **kw),
    "knn": lambda **kw: ToKNNGraph(3, "features", 12, weighted=True, edge_features=ANGLES, **kw),
    "knn, pixels": lambda **kw: ToKNNGraph(3, "both", superpixels="pixels", weighted=True, edge_features=ANGLES, **kw),
    "instances": lambda **kw: ToInstanceGraph(edge_features=ANGLES, **kw),
    "instances, knn": lambda **kw: ToInstanceGraph("knn", 2, edge_features=ANGLES, **kw),
    "instances, radius": lambda **kw: ToInstanceGraph("radius", max_distance=14.0, edge_features=ANGLES, **kw),
    "hierarchy": lambda **kw: ToHierarchy((3, 6, 12), edge_features=ANGLES, **kw),
    "hierarchy, not nested": lambda **kw: ToHierarchy(
        (3, 6, 12), "watershed", nested=False, edge_features=ANGLES, **kw
    ),
    "PascalVOC-SP": lambda **kw: ToPascalVOCSP(20, **kw),
}


def three_by_three(image: Array) -> Array:
    """Nine superpixels; a function that worker processes can import."""
    return blocks(image, 3)


class Cells:
    """The same as an object with a parameter."""

    def __init__(self, cells: int) -> None:
        self.cells = cells

    def __call__(self, image: Array) -> Array:
        return blocks(image, self.cells)


def to_tensor(image: Array) -> Tensor:
    """`[H, W]` or `[H, W, C]` to `[C, H, W]`, its own memory."""
    image = image[..., None] if image.ndim == 2 else image
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@cache
def photographs() -> dict[str, Array]:
    """Crops of real photographs: two in colour, one grey."""
    return {
        "astronaut": data.astronaut()[60:96, 200:244],
        "coffee": data.coffee()[170:210, 260:310],
        "coins": data.coins()[30:72, 40:90],
    }


def convert_dtype(unit: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in [0, 1] as an image of this dtype."""
    scale = {torch.uint8: 255, torch.uint16: 65535}.get(dtype)
    return unit.to(dtype) if scale is None else (unit * scale).round().to(torch.int64).to(dtype)


def sample(
    height: int,
    width: int,
    channels: int = 3,
    dtype: torch.dtype = torch.float32,
    valid: str | None = None,
    constant: bool = False,
) -> Data:
    """A real image cut to size (its pixels repeated where it is too small), with every map a transform may read.

    Args:
        valid: "all", "none", "one" or "some"; nodata pixels hold NaN in floating-point images.
        constant: one value everywhere.
    """
    photo = torch.from_numpy(data.astronaut()[100 : 100 + height, 200 : 200 + width]).permute(2, 0, 1) / 255
    image = convert_dtype(photo.repeat(math.ceil(channels / 3), 1, 1)[:channels].to(torch.float64), dtype)
    if constant:
        image = image[:, :1, :1].expand(channels, height, width)
    y, x = np.indices((height, width))
    found = Data(
        image=image,
        mask=torch.from_numpy((y + 2 * x) // 3 % K),
        segments=torch.from_numpy((y // 3) * 1000 - 500 + x // 2),
        instances=torch.from_numpy(np.where((y % 4 < 3) & (x % 4 < 3), 1 + (y // 4) * width + x // 4, 0)),
    )
    if valid is not None:
        inside = {"all": y >= 0, "none": y < 0, "one": (y == height // 2) & (x == width // 2), "some": x % 5 != 3}
        found.valid = torch.from_numpy(inside[valid])
        if image.is_floating_point():
            found.image = image.where(found.valid, math.nan)
    return found


def photograph(name: str = "astronaut") -> Data:
    """A crop of a photograph with a mask (its brightness in classes, some pixels ignored), segments and instances."""
    image = photographs()[name]
    gray = image if image.ndim == 2 else image.mean(2)
    mask = np.minimum(gray // 52, K - 1).astype(np.int64)
    mask[:3] = 255
    return Data(
        image=to_tensor(image),
        mask=torch.from_numpy(mask),
        segments=torch.from_numpy(blocks(image, 7)),
        instances=torch.from_numpy(np.where(blocks(image, 6) % 3 == 0, blocks(image, 6) + 1, 0)),
        source=name,
    )


def read_rows(folder: Path, name: str, count: int) -> Iterator[list[Path]]:
    """The first files of a data set's training part: [image, labels, ...]. Skips the test without it."""
    if not (folder / name / "splits.txt").is_file():
        pytest.skip(f"no data set {name} in {folder}")
    rows = [line.split("\t") for line in (folder / name / "splits.txt").read_text().splitlines()]
    for row in [row for row in rows if row[0] == "train"][:count]:
        yield [folder / name / column for column in row[1:]]


def read_image(path: Path) -> Array:
    """`[H, W]` or `[H, W, C]`, as stored."""
    with Image.open(path) as image:
        return np.array(image)
