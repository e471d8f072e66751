"""Node features and labels of the Long Range Graph Benchmark's superpixel graphs, region by region.

Written from the description in the benchmark's paper: mean, standard deviation, maximum and minimum of each colour
channel of the image divided by 255, then the centre of mass (row, column); the label of a node is that of the pixel at
its rounded centre of mass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import center_of_mass

Array = np.ndarray[Any, Any]


def node_features(image: Array, labels: Array) -> Array:
    """`[N, 14]` of an image `[H, W, 3]` of uint8 and regions `[H, W]`."""
    rows = []
    for region in np.unique(labels):
        inside = labels == region
        row: list[float] = []
        for statistic in (np.mean, np.std, np.max, np.min):
            for channel in range(3):
                row.append(float(statistic(image[:, :, channel][inside].astype(np.float64) / 255)))
        rows.append([*row, *center_of_mass(inside)])
    return np.array(rows)


def centroid_labels(mask: Array, labels: Array) -> list[int]:
    """The benchmark's label of each region."""
    found = []
    for region in np.unique(labels):
        row, column = center_of_mass(labels == region)
        found.append(int(mask[round(row), round(column)]))
    return found


def majority_labels(mask: Array, labels: Array, ignore: int, unlabelled: int) -> list[int]:
    """The most frequent class of each region, the smaller of equals; `unlabelled` where it has no labelled pixel."""
    found = []
    for region in np.unique(labels):
        inside = mask[labels == region]
        classes, counts = np.unique(inside[inside != ignore], return_counts=True)
        found.append(int(classes[counts.argmax()]) if len(classes) else unlabelled)
    return found
