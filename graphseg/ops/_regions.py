"""The connected regions of one image as a graph: found in a label map, absorbed, merged."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Regions:
    """Connected regions of one image, numbered by their first pixel.

    Args:
        components: `[D, H, W]` int32, the connected parts that were found at first; -1 outside the mask.
        number: `[M]` int32, the region of every part.
        sums: `[N, 1 + F]` int64: pixels, sums of places and colours.
        lower, upper: `[E]` int32, adjacent regions; a pair may come more than once.
        dims: how many of the features are places.
    """

    components: Tensor
    number: np.ndarray
    sums: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    dims: int

    @property
    def count(self) -> int:
        return self.sums.shape[0]

    def labels(self) -> Tensor:
        """The region of every pixel, `[D, H, W]` int64; -1 outside the mask."""
        if self.components.device.type != "cpu":
            number = torch.from_numpy(np.append(self.number, np.int32(-1))).to(self.components.device, torch.int64)
            return number[self.components.long()]
        from graphseg.ops.kernels.components import renumber

        out = np.empty(self.components.shape, np.int64)
        renumber(self.components.numpy().reshape(-1), self.number, out.reshape(-1))
        return torch.from_numpy(out)


def region_graph(
    labels: np.ndarray, order: np.ndarray, features: np.ndarray, dims: int, pool: ThreadPoolExecutor | None = None
) -> Regions:
    """The connected parts of `labels [D, H, W]` (int32, under 0: none); `features [F, P]` are of places `order [P]`."""
    from graphseg.ops.kernels.components import component_sums, connected_components
    from graphseg.ops.kernels.rag import region_adjacency
    from graphseg.ops.kernels.threads import share

    components = np.empty_like(labels)
    count = connected_components(labels, components)
    sums = np.zeros((count, 1 + features.shape[0]), np.int64)
    offsets = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.int64)
    steps = (
        lambda: region_adjacency(components, count, offsets, np.empty((0, 0, 0)), np.empty(0))[:2],
        lambda: component_sums(components.reshape(-1), order, features, sums),
    )
    (lower, upper), _ = share(pool, lambda step: step(), steps)
    number = np.arange(count, dtype=np.int32)
    return Regions(torch.from_numpy(components), number, sums, lower.astype(np.int32), upper.astype(np.int32), dims)


def merge(regions: Regions, smallest: int, floor: int, ceiling: int) -> Regions:
    """Absorbs regions of under `smallest` pixels while there are more than `floor`, merges down to `ceiling`."""
    from graphseg.ops.kernels.components import merge_regions

    sums = regions.sums.copy()
    number, left = merge_regions(sums, regions.dims, regions.lower, regions.upper, smallest, floor, ceiling)
    if left == regions.count:
        return regions
    first = np.unique(number, return_index=True)[1]  # a region's sums stand with its first part
    lower, upper = number[regions.lower], number[regions.upper]
    apart = lower != upper
    return Regions(regions.components, number[regions.number], sums[first], lower[apart], upper[apart], regions.dims)
