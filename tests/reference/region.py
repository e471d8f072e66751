"""Statistics of regions as loops over regions, from the list of each region's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def shape_statistics(
    labels: Array, spacing: Sequence[float], num_regions: int, valid: Array | None = None
) -> dict[str, Array]:
    """Shape of regions of a map `[H, W]` or `[D, H, W]`; `spacing` as (y, x) or (z, y, x), results from x on.

    `direction [N, 2]` is the unit vector (x, y) of the major axis, `elongation [N]` its variance minus that
    of the minor one; Hu's invariants are the products of complex moments that do not change under rotation.
    """
    rows: dict[str, list[Any]] = {}
    ndim = labels.ndim
    for region in range(num_regions):
        inside = labels == region if valid is None else (labels == region) & valid
        places = np.argwhere(inside)[:, ::-1]  # [n, ndim]: x, y(, z)
        points = places * np.array(spacing[::-1], float)
        centroid = points.mean(0)
        d = points - centroid
        values, vectors = np.linalg.eigh(d.T @ d / len(d))  # rising
        # Variance of a uniform disc of semi-axis a is a^2 / 4, of a ball a^2 / 5, along each axis.
        axes = 2 * np.sqrt({2: 4, 3: 5}[ndim] * np.clip(values[[-1, 0]], 0, None))
        row = {
            "area": len(d) * np.prod(spacing),
            "centroid": centroid,
            "bounding_box": [*places.min(0), *places.max(0) + 1],
            "axis_lengths": axes,
        }
        if ndim == 2:
            row["direction"] = vectors[:, -1]
            row["elongation"] = values[1] - values[0]
            row["eccentricity"] = np.sqrt(1 - max(values[0], 0) / values[1]) if values[1] > 1e-12 else 0.0
            row["hu"] = hu(d, float(np.prod(spacing)))
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(values, float) for name, values in rows.items()}


def hu(d: Array, pixel: float) -> list[float]:
    """Seven invariants of points d `[n, 2]` (x, y) about their mean, each of area `pixel`."""
    w = d[:, 1] + 1j * d[:, 0]  # y first: the sign of the seventh follows

    def c(p: int, q: int) -> complex:
        return complex((w**p * w.conj() ** q).sum() * pixel / (len(d) * pixel) ** ((p + q) / 2 + 1))

    return [
        c(1, 1).real,
        abs(c(2, 0)) ** 2,
        abs(c(3, 0)) ** 2,
        abs(c(2, 1)) ** 2,
        (c(3, 0) * c(1, 2) ** 3).real,
        (c(2, 0) * c(1, 2) ** 2).real,
        (c(3, 0) * c(1, 2) ** 3).imag,
    ]


def value_statistics(labels: Array, image: Array, num_regions: int, valid: Array | None = None) -> dict[str, Array]:
    """mean, population std, min and max `[N, C]` of an image `[C, *labels.shape]`."""
    rows: dict[str, list[Array]] = {name: [] for name in ("mean", "std", "min", "max")}
    for region in range(num_regions):
        inside = labels == region if valid is None else (labels == region) & valid
        values = image[:, inside].astype(np.float64)  # [C, n]
        mean = values.mean(1)
        rows["mean"].append(mean)
        rows["std"].append(np.sqrt(((values - mean[:, None]) ** 2).mean(1)))
        rows["min"].append(values.min(1))
        rows["max"].append(values.max(1))
    return {name: np.array(values).reshape(num_regions, len(image)) for name, values in rows.items()}


def histograms(
    labels: Array,
    image: Array,
    num_regions: int,
    bins: int,
    value_range: tuple[float, float],
    valid: Array | None = None,
) -> Array:
    """Counts `[N, C, bins]`; values outside the range fall into the end bins."""
    counts = np.zeros((num_regions, len(image), bins), np.int64)
    for region in range(num_regions):
        inside = labels == region if valid is None else (labels == region) & valid
        for channel, values in enumerate(image):
            clipped = np.clip(values[inside].astype(np.float64), *value_range)
            counts[region, channel] = np.histogram(clipped, bins, value_range)[0]
    return counts


def label_counts(labels: Array, target: Array, num_regions: int, num_classes: int, ignored: set[int]) -> Array:
    """Pixels `[N, K]` of each class in each region."""
    counts = np.zeros((num_regions, num_classes), np.int64)
    for region, t in zip(labels.ravel().tolist(), target.ravel().tolist(), strict=True):
        if t not in ignored:
            counts[region, t] += 1
    return counts
