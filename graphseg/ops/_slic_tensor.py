"""SLIC in tensor operations, for all images of a call at once: what serves a GPU. The same labels as the kernels give.

Everything is in whole numbers: products of matrices of them are exact in float64, in whatever order they are summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from graphseg.ops._cell_blocks import CellBlock, CellPixels, cell_blocks, cell_pixels, positions
from graphseg.ops._regions import Regions
from graphseg.ops._slic import SlicImage, SlicOptions
from graphseg.ops.color import LabTables


def find_regions_tensor(images: Sequence[SlicImage], options: SlicOptions) -> list[Regions]:
    """`find_regions_kernel` for images on any device."""
    grids = [image.grid for image in images]
    pixels = cell_pixels(grids, [image.mask for image in images], images[0].levels.device)
    C = images[0].levels.shape[0]
    levels = torch.cat([image.levels.reshape(C, -1) for image in images], 1).to(torch.int64)  # [C, P]
    colours = _colours(levels, options.tables(C, images[0].levels.dtype))
    features = torch.cat([positions(pixels, grids, options.unit), colours.T], 1)  # [P, F]
    labels = _cluster(pixels, features, grids[0].dims, options)
    return _region_graphs(images, pixels, features, labels)


def _colours(levels: Tensor, tables: LabTables | np.ndarray) -> Tensor:
    """Colours in whole numbers, `[C, P]`."""
    if not isinstance(tables, LabTables):
        return torch.from_numpy(tables).to(levels)[levels]
    linear = torch.from_numpy(tables.gamma).to(levels)[levels]
    matrix = torch.from_numpy(tables.matrix).to(levels)
    t = (matrix[:, :, None] * linear).sum(1) >> 16
    x, y, z = torch.from_numpy(tables.root).to(levels)[t]
    colours = torch.stack([116 * y - tables.zero, 500 * (x - y), 200 * (y - z)])
    return (colours + 128) >> 8


def _cluster(pixels: CellPixels, features: Tensor, dims: int, options: SlicOptions) -> Tensor:
    """The centre of every pixel `[P]`, -1 outside the masks."""
    G, F = pixels.neighbours.shape[0], features.shape[1]
    labels = pixels.cell.where(pixels.inside, -1)
    at = torch.nonzero(pixels.inside)[:, 0]
    rows = torch.cat([torch.ones_like(at)[:, None], features[at]], 1)  # [p, 1 + F]
    sums = rows.new_zeros(G, 1 + F).index_add_(0, pixels.cell[at], rows)
    blocks = []
    for block in cell_blocks(pixels):
        origin = features[block.pixels[:, 0]]  # [g, F]
        blocks.append((block, origin, (features[block.pixels.clamp(min=0)] - origin[:, None]).double()))
    centres = sums.new_zeros(G, F)
    farthest = torch.full((G,), options.start, device=at.device)
    for turn in range(options.iterations):
        count = sums[:, :1]
        mean = torch.div(2 * sums[:, 1:] + count, 2 * count.clamp(min=1), rounding_mode="floor")
        centres = torch.where(count > 0, mean, centres)  # one that lost all its pixels stays where it was
        scale = None
        if options.adaptive:
            if turn > 0:
                owner = labels[at]
                colour = (features[at, dims:] - centres[owner, dims:]).square().sum(1)
                farthest = torch.ones_like(farthest).scatter_reduce_(0, owner, colour, "amax")
            scale = torch.stack(
                [torch.full((G,), 1 / options.unit**2, device=at.device).double(), 1 / farthest.double()], 1
            )
        before = labels.clone()
        sums = torch.zeros_like(sums)
        for block, origin, values in blocks:
            _assign(block, origin, values, centres, scale, dims, labels, sums)
        if scale is None and bool((labels == before).all()):
            break
    return labels


def _assign(
    block: CellBlock,
    origin: Tensor,
    values: Tensor,
    centres: Tensor,
    scale: Tensor | None,
    dims: int,
    labels: Tensor,
    sums: Tensor,
) -> None:
    """Gives the pixels of a block, `values [g, S, F]` from `origin [g, F]`, their nearest centre, of equals the first,
    and adds them to its sums."""
    near = (centres[block.near] - origin[:, None]).double()  # [g, J, F]
    if scale is None:
        distance = _square_distance(values, near)  # [g, S, J]
    else:
        s = scale[block.near][:, None]  # [g, 1, J, 2]
        place = _square_distance(values[..., :dims], near[..., :dims]) * s[..., 0]
        distance = place + _square_distance(values[..., dims:], near[..., dims:]) * s[..., 1]
    distance = distance.masked_fill(block.missing[:, None], torch.inf)
    J = near.shape[1]
    ids = torch.arange(J, device=near.device)
    nearest = torch.where(distance == distance.amin(2, keepdim=True), ids, J).amin(2)  # [g, S]
    inside = block.pixels >= 0
    labels[block.pixels[inside]] = block.near.gather(1, nearest)[inside]
    # Sums of the pixels that each candidate gained: every one at most once, so that these are whole numbers, too.
    chosen = ((nearest[..., None] == ids) & inside[..., None]).double().transpose(1, 2)  # [g, J, S]
    count = chosen.sum(2, keepdim=True).long()  # [g, J, 1]
    total = torch.bmm(chosen, values).long() + count * origin[:, None]
    sums.index_add_(0, block.near.reshape(-1), torch.cat([count, total], 2).reshape(-1, sums.shape[1]))


def _square_distance(a: Tensor, b: Tensor) -> Tensor:
    """`[g, S, J]`: squared distances of whole numbers `a [g, S, F]`, `b [g, J, F]`, exact."""
    square = a.square().sum(2)[:, :, None] + b.square().sum(2)[:, None]
    return square - 2 * torch.bmm(a, b.transpose(1, 2))


def _region_graphs(images: Sequence[SlicImage], pixels: CellPixels, features: Tensor, labels: Tensor) -> list[Regions]:
    """The connected parts of the clusters, image by image."""
    dims = images[0].grid.dims
    P = labels.numel()
    at = torch.arange(P, device=labels.device)
    strides = {2: torch.ones_like(at), 1: pixels.size[:, 2], 0: pixels.size[:, 1] * pixels.size[:, 2]}
    sources, targets = [], []
    for axis in (2, 1, 0)[:dims]:
        source = at[pixels.place[:, axis] + 1 < pixels.size[:, axis]]
        sources.append(source)
        targets.append(source + strides[axis][source])
    source, target = torch.cat(sources), torch.cat(targets)
    both = pixels.inside[source] & pixels.inside[target]
    source, target = source[both], target[both]
    same = labels[source] == labels[target]
    root = _connect(source[same], target[same], P)
    is_root = (root == at) & pixels.inside
    number = is_root.long().cumsum(0) - 1
    components = number[root].where(pixels.inside, -1)  # over all images

    lengths = pixels.lengths
    ends = np.cumsum([0, *(int(part.sum()) for part in is_root.split(lengths))])
    kept = at[pixels.inside]
    rows = torch.cat([torch.ones_like(kept)[:, None], features[kept]], 1)
    N = int(ends[-1])
    sums = rows.new_zeros(N, rows.shape[1]).index_add_(0, components[kept], rows).cpu().numpy()
    a, b = components[source[~same]], components[target[~same]]
    pairs = torch.unique(torch.minimum(a, b) * max(N, 1) + torch.maximum(a, b)).cpu().numpy()
    lower, upper = pairs // max(N, 1), pairs % max(N, 1)
    bounds = np.searchsorted(lower, ends)
    found = []
    for i, (image, part) in enumerate(zip(images, components.split(lengths), strict=True)):
        edges = slice(bounds[i], bounds[i + 1])
        local = torch.where(part >= 0, part - int(ends[i]), -1).to(torch.int32).view(image.grid.shape)
        own = np.ascontiguousarray(sums[ends[i] : ends[i + 1]])
        ids = np.arange(own.shape[0], dtype=np.int32)
        pair = [(side[edges] - ends[i]).astype(np.int32) for side in (lower, upper)]
        found.append(Regions(local, ids, own, pair[0], pair[1], dims))
    return found


def _connect(source: Tensor, target: Tensor, size: int) -> Tensor:
    """`[size]`: the smallest member of the connected component of every node."""
    root = torch.arange(size, device=source.device)
    while source.numel():
        a, b = root[source], root[target]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        root = root.scatter_reduce(0, high, low, "amin")
        while True:  # every node straight to its root
            further = root[root]
            if bool((further == root).all()):
                break
            root = further
        apart = root[source] != root[target]
        source, target = source[apart], target[apart]
    return root
