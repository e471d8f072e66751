"""Node and edge features, chosen by name.

Node features (columns in the order of the names; C channels):

| name         | columns | what                                                                             |
|--------------|---------|----------------------------------------------------------------------------------|
| mean, std    | C       | of the node's pixels; images of uint8 and uint16 are scaled to [0, 1]            |
| min, max     | C       | likewise                                                                         |
| histogram    | 8 C     | share of the node's pixels in 8 equal bins of [0, 1], channel by channel         |
| centroid     | 2       | (x, y) / (width, height), pixel centres at half: (0, 1) however large the image  |
| area         | 1       | share of the image's pixels                                                      |
| bounding_box | 4       | (x, y) of its first corner and of the opposite one / (width, height)             |
| perimeter    | 1       | in pixels / (2 (width + height))                                                 |
| axis_lengths | 2       | major and minor axis in pixels / image diagonal                                  |
| orientation  | 1       | radians, from the row axis to the major axis                                     |
| eccentricity | 1       | of the ellipse with the same second moments                                      |
| hu           | 7       | Hu's moment invariants                                                           |

Pixels as nodes have `mean` (their value) and `centroid` only.

Edge features (one row per directed edge, source to target):

| name               | columns | what                                                                       |
|--------------------|---------|----------------------------------------------------------------------------|
| color_distance     | 1       | Euclidean distance of mean values, each scaled as above                    |
| centroid_distance  | 1       | in pixels                                                                  |
| centroid_angle     | 1       | radians, from source to target; 0 points right, pi / 2 down                |
| length             | 1       | adjacent pixel pairs                                                       |
| boundary_mean      | 1       | of the boundary strength along the edge                                    |
| boundary_std       | 1       | likewise                                                                   |
| boundary_percentiles | 3     | 10, 50 and 90 %                                                            |

The last four belong to region adjacency graphs. Boundary strength is the input's `boundary` map or, without one, the
Sobel gradient of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from graphseg._checks import check_choice
from graphseg.ops.rag import boundary_statistics, edge_angle, edge_distance
from graphseg.ops.region import region_statistics
from graphseg.transforms._base import ImageInput

__all__ = ["EDGE_FEATURES", "NODE_FEATURES", "RAG_EDGE_FEATURES", "gradient_magnitude"]

NODE_FEATURES = (
    "mean",
    "std",
    "min",
    "max",
    "histogram",
    "centroid",
    "area",
    "bounding_box",
    "perimeter",
    "axis_lengths",
    "orientation",
    "eccentricity",
    "hu",
)
PIXEL_FEATURES = ("mean", "centroid")
EDGE_FEATURES = ("color_distance", "centroid_distance", "centroid_angle")
RAG_EDGE_FEATURES = (*EDGE_FEATURES, "length", "boundary_mean", "boundary_std", "boundary_percentiles")


def check_features(name: str, features: Sequence[str], known: Sequence[str]) -> None:
    """Raises TypeError for a string in place of names, ValueError for an unknown name."""
    if isinstance(features, str):
        raise TypeError(f"got the string {features!r} for {name}, expected a sequence of names")
    for feature in features:
        check_choice(name, feature, known)


def region_nodes(
    inputs: ImageInput, labels: Tensor, valid: Tensor | None, features: Sequence[str]
) -> dict[str, Tensor]:
    """`x`, `pos` and `color` (mean values, [N, C]) of the regions of one image."""
    H, W = inputs.size
    if "histogram" in features and inputs.image.is_floating_point():
        low, high = (float(bound) for bound in torch.aminmax(inputs.image.detach()))
        if low < 0 or high > 1:
            raise ValueError(f"got values from {low:g} to {high:g} in image, expected [0, 1] for the histogram feature")
    wanted = {*features, "mean", "centroid"} | ({"area"} if "histogram" in features else set())
    found = region_statistics(labels, inputs.image, statistics=sorted(wanted), valid=valid)
    pos, color = found["centroid"], found["mean"] * inputs.scale
    size = torch.tensor([W, H], dtype=torch.float64, device=pos.device)
    columns = {"centroid": (pos + 0.5) / size, "mean": color}
    columns |= {name: found[name] * inputs.scale for name in ("std", "min", "max") if name in found}
    if "histogram" in found:
        columns["histogram"] = found["histogram"].flatten(1) / found["area"][:, None]
    if "area" in found:
        columns["area"] = found["area"] / (H * W)
    if "bounding_box" in found:
        columns["bounding_box"] = found["bounding_box"] / size.repeat(2)
    if "perimeter" in found:
        columns["perimeter"] = found["perimeter"] / (2 * (H + W))
    if "axis_lengths" in found:
        columns["axis_lengths"] = found["axis_lengths"] / math.hypot(H, W)
    columns |= {name: found[name] for name in ("orientation", "eccentricity", "hu") if name in found}
    return {"x": _stack(columns, features, pos), "pos": pos.to(torch.float32), "color": color}


def pixel_nodes(inputs: ImageInput, features: Sequence[str]) -> dict[str, Tensor]:
    """`x`, `pos` and `color` of the pixels of one image, row by row."""
    H, W = inputs.size
    y, x = torch.meshgrid(torch.arange(H, dtype=torch.float32), torch.arange(W, dtype=torch.float32), indexing="ij")
    pos = torch.stack([x, y], -1).view(-1, 2).to(inputs.image.device)  # [P, 2]
    color = inputs.unit_image().flatten(1).T  # [P, C]
    columns = {"mean": color, "centroid": (pos + 0.5) / torch.tensor([W, H], device=pos.device)}
    return {"x": _stack(columns, features, pos), "pos": pos, "color": color}


def edge_features(
    edge_index: Tensor, nodes: dict[str, Tensor], features: Sequence[str], boundary: dict[str, Tensor] | None = None
) -> Tensor:
    """`edge_attr [E, D]` of the named features; those of the boundary come ready, one row per edge."""
    columns = {}
    if "color_distance" in features:
        columns["color_distance"] = edge_distance(nodes["color"], edge_index)
    if "centroid_distance" in features:
        columns["centroid_distance"] = edge_distance(nodes["pos"], edge_index)
    if "centroid_angle" in features:
        columns["centroid_angle"] = edge_angle(nodes["pos"], edge_index)
    for name in ("length", "boundary_mean", "boundary_std", "boundary_percentiles"):
        if name in features:
            columns[name] = (boundary or {})[name]
    return _stack(columns, features, edge_index[0])


def rag(
    inputs: ImageInput,
    labels: Tensor,
    valid: Tensor | None,
    nodes: dict[str, Tensor],
    connectivity: int,
    features: Sequence[str],
) -> tuple[Tensor, Tensor | None]:
    """The region adjacency graph of one image, both directions in lexicographic order, and its features if any."""
    strength = None
    if any(name.startswith("boundary") for name in features):
        strength = inputs.boundary
        if strength is None:
            strength = gradient_magnitude(inputs.unit_image(), valid)
    found = boundary_statistics(
        labels, strength, percentiles=(10.0, 50.0, 90.0), connectivity=connectivity, valid=valid
    )
    boundary = {"length": found["length"]}
    if strength is not None:
        boundary |= {f"boundary_{name}": found[name] for name in ("mean", "std", "percentiles")}
    edge_index, order = both_directions(found["edge_index"], nodes["pos"].shape[0])
    if not features:
        return edge_index, None
    boundary = {name: torch.cat([value, value])[order] for name, value in boundary.items()}
    return edge_index, edge_features(edge_index, nodes, features, boundary)


def both_directions(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Every pair in both directions, in lexicographic order, and the place of each in `[pairs, pairs reversed]`."""
    doubled = torch.cat([edge_index, edge_index.flip(0)], 1)
    order = (doubled[0] * num_nodes + doubled[1]).argsort()
    return doubled[:, order], order


def gradient_magnitude(image: Tensor, valid: Tensor | None = None) -> Tensor:
    """Sobel gradient of the luminance (three channels) or of the mean over channels.

    `sqrt((g_x^2 + g_y^2) / 2)` with kernels of total weight 1 and mirrored borders: scikit-image's `sobel` of
    `rgb2gray`. A neighbour that is not valid counts as the pixel itself, so that nodata has no border.

    Args:
        image: `[C, H, W]`, floating-point.
        valid: bool `[H, W]`; default: all pixels.

    Returns:
        `[H, W]`.
    """
    C = image.shape[0]
    weight = [0.2125, 0.7154, 0.0721] if C == 3 else [1.0 / C] * C
    gray = torch.einsum("c,chw->hw", torch.tensor(weight, dtype=image.dtype, device=image.device), image.detach())
    near = _neighbours(gray)
    if valid is not None:
        inside = _neighbours(valid.to(gray.dtype))
        near = [value.where(is_valid > 0, gray) for value, is_valid in zip(near, inside, strict=True)]
    a, b, c, d, _, f, g, h, i = near  # row by row
    vertical = ((g - a) + 2 * (h - b) + (i - c)) / 4
    horizontal = ((c - a) + 2 * (f - d) + (i - g)) / 4
    return ((vertical.square() + horizontal.square()) / 2).sqrt()


def _neighbours(values: Tensor) -> list[Tensor]:
    """The 3 x 3 neighbourhood of every pixel of a map `[H, W]`, row by row; the border is mirrored."""
    H, W = values.shape
    padded = torch.nn.functional.pad(values[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    return [padded[dy : dy + H, dx : dx + W] for dy in range(3) for dx in range(3)]


def _stack(columns: dict[str, Tensor], names: Sequence[str], rows: Tensor) -> Tensor:
    parts = [columns[name].to(torch.float32) for name in names]
    parts = [part[:, None] if part.dim() == 1 else part.flatten(1) for part in parts]  # rows may be none
    return torch.cat(parts, 1) if parts else rows.new_zeros(rows.shape[0], 0, dtype=torch.float32)
