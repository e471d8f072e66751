"""What is in a region: its shape, the values of an image inside it, and the labels of its pixels.

On CPU numba kernels walk each label map by horizontal runs; elsewhere, and where the image needs a gradient, the same
sums are pooled from tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from graphseg._checks import (
    check_choice,
    check_finite,
    check_integer,
    check_positive_int,
    check_same_device,
    check_shape,
    check_tensor,
)
from graphseg.ops._angle import angle
from graphseg.ops._labels import LabelStack, stack_labels
from graphseg.ops.pooling import pool

__all__ = ["region_statistics"]

SHAPE = ("area", "centroid", "bounding_box", "axis_lengths")
PLANAR = ("orientation", "eccentricity", "hu", "perimeter")  # of images, not of volumes
VALUES = ("mean", "std", "min", "max", "histogram")


def region_statistics(
    labels: Tensor,
    image: Tensor | None = None,
    *,
    target: Tensor | None = None,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    statistics: Sequence[str] | None = None,
    bins: int = 8,
    value_range: tuple[float, float] | None = None,
    spacing: float | Sequence[float] = 1.0,
    volume: bool = False,
    valid: Tensor | None = None,
) -> dict[str, Tensor]:
    """Statistics of every region of one label map or a batch of them.

    Args:
        labels: `[H, W]`, `[B, H, W]`, or with `volume` `[D, H, W]`, `[B, D, H, W]`; integers, consecutive from 0 in
            each image. Nodes of image b follow those of image b - 1.
        image: `[C, H, W]` (`[B, C, H, W]`, `[C, D, H, W]`, `[B, C, D, H, W]`), any number of channels, integer or
            floating-point. `mean`, `std`, `min` and `max` carry gradients to it.
        target: class of each pixel, shaped as `labels`, for `label_counts`.
        num_classes: K; classes are 0 to K - 1. Required with `target`.
        ignore_index: pixels of this `target` value are not counted.
        statistics: names from the list below. Default: all that the given inputs allow.
        bins: of `histogram`, equal in width.
        value_range: of `histogram`; values outside fall into the end bins. Default: the range of an integer dtype
            (0 to 256 for uint8, so that the bins hold equally many values), [0, 1] for floating-point images.
        spacing: size of a pixel, one number or (y, x), (z, y, x), for lengths and areas in those units.
        volume: whether the maps are three-dimensional.
        valid: bool, as `labels`; pixels where it is False belong to no region and are not read.

    Returns:
        A dict of tensors with N rows, in float64 where not stated otherwise:
            area `[N]`: pixels, times the area (volume) of a pixel.
            centroid `[N, 2]`: (x, y); volumes `[N, 3]`: (x, y, z).
            bounding_box `[N, 4]` int64: (x, y) of the first and one past the last pixel; volumes `[N, 6]`.
            axis_lengths `[N, 2]`: major and minor axis of the ellipse (ellipsoid) of equal second moments.
            orientation `[N]`: radians in [-pi/2, pi/2], from the row axis to the major axis, counter-clockwise.
            eccentricity `[N]`: of that ellipse, in [0, 1].
            hu `[N, 7]`: Hu's moment invariants.
            perimeter `[N]`: of the 4-connected border, diagonal steps counted as such (Benkrid and Crookes, 2000).
                Needs equal spacing in x and y.
            mean, std (population), min, max `[N, C]`; histogram `[N, C, bins]` int64 counts.
            label_counts `[N, K]` int64: pixels of each class.
        Orientation, eccentricity, hu and perimeter are those of images only. The definitions are scikit-image's
        `regionprops`, except that coordinates are (x, y).

    Raises:
        TypeError: if labels or target are not integers.
        ValueError: for wrong shapes, labels not consecutive from 0, classes outside [0, K), NaN in the image, or a
            statistic whose input is missing.
    """
    stack = stack_labels(labels, volume, valid)
    wanted = _wanted(stack.ndim, statistics, image, target, spacing)
    found: dict[str, Tensor] = {}
    runs = _find_runs(stack)
    if any(name in (*SHAPE, *PLANAR) for name in wanted):
        found |= _shape_statistics(stack, runs, wanted, _per_axis(spacing, stack.ndim))
    if image is not None and any(name in VALUES for name in wanted):
        found |= _value_statistics(stack, runs, wanted, _image_stack(labels, image, stack), bins, value_range)
    if target is not None and "label_counts" in wanted:
        found["label_counts"] = _label_counts(stack, runs, labels, target, num_classes, ignore_index)
    return {name: found[name] for name in wanted}


def _wanted(
    ndim: int,
    statistics: Sequence[str] | None,
    image: Tensor | None,
    target: Tensor | None,
    spacing: float | Sequence[float],
) -> list[str]:
    steps = _per_axis(spacing, ndim)
    possible = list(SHAPE)
    if ndim == 2:
        possible += [name for name in PLANAR if name != "perimeter" or steps[0] == steps[1]]
    if image is not None:
        possible += VALUES
    if target is not None:
        possible.append("label_counts")
    if statistics is None:
        return possible
    if isinstance(statistics, str):
        raise TypeError(f"got the string {statistics!r} for statistics, expected a sequence of names")
    for name in statistics:
        check_choice("statistic", name, (*SHAPE, *PLANAR, *VALUES, "label_counts"))
        if name not in possible:
            why = "an image" if name in VALUES else "a target" if name == "label_counts" else "another input"
            if name in PLANAR:
                why = "an image, not a volume" if ndim == 3 else f"equal spacing in y and x, got {steps}"
            raise ValueError(f"statistic {name!r} needs {why}")
    return list(statistics)


def _per_axis(spacing: float | Sequence[float], ndim: int) -> tuple[float, ...]:
    """Spacing as (y, x) or (z, y, x)."""
    given: Any = spacing  # numpy's numbers count too
    steps = (float(given),) * ndim if isinstance(given, Real) else tuple(float(s) for s in given)
    if len(steps) != ndim or not all(0 < s < math.inf for s in steps):
        raise ValueError(f"got spacing {spacing}, expected one positive number or {ndim}")
    return steps


def _find_runs(stack: LabelStack) -> list[Any] | None:
    """The horizontal runs of each label map; None where the tensor form is to be used."""
    if stack.labels.device.type != "cpu" or not stack.counts:
        return None
    from graphseg.ops.kernels.region import find_runs
    from graphseg.ops.kernels.threads import map_threads

    return map_threads(find_runs, list(stack.labels.numpy()))


def _each(stack: LabelStack, kernel: Callable[..., Any], *columns: Sequence[Any]) -> list[tuple[Tensor, ...]]:
    """`kernel` on every image in threads, its arrays as tensors; row b of each column is its argument."""
    from graphseg.ops.kernels.threads import map_threads

    def one(b: int) -> tuple[Tensor, ...]:
        found = kernel(*(column[b] for column in columns))
        return tuple(torch.from_numpy(f) for f in (found if isinstance(found, tuple) else (found,)))

    return map_threads(one, range(len(stack.counts)))


def _join(parts: list[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _shape_statistics(
    stack: LabelStack, runs: list[Any] | None, wanted: list[str], spacing: tuple[float, ...]
) -> dict[str, Tensor]:
    ndim = stack.ndim
    area, total, box = _extents(stack, runs)
    step = torch.tensor(spacing[::-1], dtype=torch.float64, device=area.device)  # x, y(, z)
    centroid = total.to(torch.float64) / area[:, None]  # [N, 3], in pixels
    corners = [0, 1, 3, 4] if ndim == 2 else [0, 1, 2, 3, 4, 5]
    found = {
        "area": area.to(torch.float64) * step.prod(),
        "centroid": centroid[:, :ndim] * step,
        "bounding_box": box[:, corners],
    }
    if any(name in wanted for name in ("axis_lengths", "orientation", "eccentricity", "hu")):
        moments = _moments(stack, runs, centroid)
        found |= _ellipse(moments, area, step)
        if "hu" in wanted:
            found["hu"] = _hu(moments, area, step)
    if "perimeter" in wanted:
        length = torch.tensor([1.0, math.sqrt(2), (1 + math.sqrt(2)) / 2], dtype=torch.float64, device=area.device)
        found["perimeter"] = (_perimeter_counts(stack) * length).sum(1) * step[0]
    return found


def _extents(stack: LabelStack, runs: list[Any] | None) -> list[Tensor]:
    """area [N], coordinate sums [N, 3] and boxes [N, 6], all int64, x before y before z."""
    if runs is not None:
        from graphseg.ops.kernels.region import region_extents

        return _join(_each(stack, region_extents, runs, stack.counts))
    node, where = _pixels(stack)
    N = stack.num_nodes
    coordinates = torch.stack(where[::-1], 1)  # [P, 3]: x, y, z
    low = pool(coordinates, node, N, "min")
    high = pool(coordinates, node, N, "max") + 1
    area = torch.bincount(node, minlength=N)
    return [area, pool(coordinates, node, N, "sum"), torch.cat([low, high], 1)]


def _pixels(stack: LabelStack) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Node [P] and coordinates (z, y, x), each [P], of the pixels that belong to a region."""
    labels = stack.node_labels()
    _, *where = (labels >= 0).nonzero(as_tuple=True)
    return labels[labels >= 0], tuple(where)


def _moments(stack: LabelStack, runs: list[Any] | None, centroid: Tensor) -> Tensor:
    """Central moments [N, 10]: xx, xy, yy, xz, yz, zz, xxx, xxy, xyy, yyy."""
    if runs is not None:
        from graphseg.ops.kernels.region import region_moments

        return _join(_each(stack, region_moments, runs, [c.numpy() for c in centroid.split(stack.counts)]))[0]
    node, where = _pixels(stack)
    x, y, z = (w - centroid[node, axis] for axis, w in enumerate(where[::-1]))
    products = [x * x, x * y, y * y, x * z, y * z, z * z, x * x * x, x * x * y, x * y * y, y * y * y]
    return pool(torch.stack(products, 1), node, stack.num_nodes, "sum")


def _ellipse(moments: Tensor, area: Tensor, step: Tensor) -> dict[str, Tensor]:
    variance = moments[:, :6] / area[:, None]
    if step.numel() == 3:
        x, y, z = step
        xx, xy, yy, xz, yz, zz = (variance * torch.stack([x * x, x * y, y * y, x * z, y * z, z * z])).unbind(1)
        inertia = torch.stack([yy + zz, -xy, -xz, -xy, xx + zz, -yz, -xz, -yz, xx + yy], 1).view(-1, 3, 3)
        low, middle, high = torch.linalg.eigvalsh(inertia).clamp(min=0).unbind(1)
        major = (10 * (high + middle - low)).clamp(min=0).sqrt()
        minor = (10 * (low + middle - high)).clamp(min=0).sqrt()
        return {"axis_lengths": torch.stack([major, minor], 1)}
    x, y = step
    xx, xy, yy = (variance[:, :3] * torch.stack([x * x, x * y, y * y])).unbind(1)
    middle, half = (xx + yy) / 2, (((xx - yy) / 2).square() + xy.square()).sqrt()
    large, small = middle + half, (middle - half).clamp(min=0)
    half_angle = 0.5 * angle(2 * xy, yy - xx)
    round_or_falling = (xx == yy) & (xy <= 0)  # atan2(0, 0) is 0; scikit-image has -pi/4 here
    return {
        "axis_lengths": 4 * torch.stack([large, small], 1).sqrt(),
        "orientation": torch.where(round_or_falling, -math.pi / 4, half_angle),
        "eccentricity": (1 - small / torch.where(large > 0, large, 1.0)).sqrt().where(large > 0, 0.0),
    }


def _hu(moments: Tensor, area: Tensor, step: Tensor) -> Tensor:
    """Hu's invariants [N, 7] of n_pq = mu_pq / mu_00^(1 + (p + q) / 2), p along y (it sets the last one's sign)."""
    x, y = step
    size = area * x * y
    powers = torch.stack([x * x, x * y, y * y, x * x * x, x * x * y, x * y * y, y * y * y]) * x * y
    mu = moments[:, [0, 1, 2, 6, 7, 8, 9]] * powers
    n02, n11, n20 = (mu[:, :3] / size[:, None] ** 2).unbind(1)
    # Not size ** 2.5: a power's last digit depends on the place in the vector, hence on the rest of the batch.
    n03, n12, n21, n30 = (mu[:, 3:] / (size * size * size.sqrt())[:, None]).unbind(1)
    s, d = n30 + n12, n21 + n03
    u, v = n30 - 3 * n12, 3 * n21 - n03
    ss, dd = s * s, d * d
    return torch.stack(
        [
            n20 + n02,
            (n20 - n02) ** 2 + 4 * n11**2,
            u**2 + v**2,
            ss + dd,
            u * s * (ss - 3 * dd) + v * d * (3 * ss - dd),
            (n20 - n02) * (ss - dd) + 4 * n11 * s * d,
            v * s * (ss - 3 * dd) - u * d * (3 * ss - dd),
        ],
        1,
    )


def _perimeter_counts(stack: LabelStack) -> Tensor:
    """Border pixels [N, 3] that stand for a length of 1, sqrt(2) and (1 + sqrt(2)) / 2."""
    if stack.labels.device.type == "cpu" and stack.counts:
        from graphseg.ops.kernels.region import region_perimeter

        return _join(_each(stack, region_perimeter, list(stack.labels[:, 0].numpy()), stack.counts))[0]
    return _perimeter_counts_tensor(stack)


def _perimeter_counts_tensor(stack: LabelStack) -> Tensor:
    labels = torch.nn.functional.pad(stack.node_labels()[:, 0], (1, 1, 1, 1), value=-1)  # [B, H + 2, W + 2]
    H, W = labels.shape[1] - 2, labels.shape[2] - 2

    def moved(values: Tensor, dy: int, dx: int) -> Tensor:
        return values[:, 1 + dy : 1 + dy + H, 1 + dx : 1 + dx + W]

    own = moved(labels, 0, 0)
    cross = ((-1, 0), (1, 0), (0, -1), (0, 1))
    diagonal = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    border = own >= 0
    border &= torch.stack([moved(labels, *o) != own for o in cross]).any(0)
    bordered = torch.nn.functional.pad(border, (1, 1, 1, 1))
    code = torch.ones_like(own)
    for weight, offsets in ((2, cross), (10, diagonal)):
        for o in offsets:
            code += weight * (moved(bordered, *o) & (moved(labels, *o) == own))
    kind = torch.full((50,), -1, device=own.device)
    kind[[5, 7, 15, 17, 25, 27]] = 0
    kind[[21, 33]] = 1
    kind[[13, 23]] = 2
    known = border & (kind[code] >= 0)
    slot = own[known] * 3 + kind[code[known]]
    return torch.bincount(slot, minlength=stack.num_nodes * 3).view(-1, 3)


def _image_stack(labels: Tensor, image: Tensor, stack: LabelStack) -> Tensor:
    """The image as `[B, C, D, H, W]`."""
    check_tensor("image", image)
    check_same_device(labels=labels, image=image)
    batched = labels.dim() > stack.ndim
    size = list(labels.shape[1:] if batched else labels.shape)
    check_shape("image", image, [labels.shape[0], None, *size] if batched else [None, *size])
    if image.dtype == torch.bool or image.is_complex():
        raise TypeError(f"got dtype {image.dtype} for image, expected an integer or floating-point dtype")
    B, D, H, W = stack.labels.shape
    image = image.reshape(B, image.shape[-stack.ndim - 1], D, H, W)
    if image.is_floating_point():
        inside = (stack.labels >= 0)[:, None]
        check_finite("image", image.detach() if bool(inside.all()) else image.detach().where(inside, 0.0))
    return image


def _value_statistics(
    stack: LabelStack,
    runs: list[Any] | None,
    wanted: list[str],
    image: Tensor,
    bins: int,
    value_range: tuple[float, float] | None,
) -> dict[str, Tensor]:
    found = {}
    by_kernel = runs is not None and not image.requires_grad
    if any(name in wanted for name in ("mean", "std", "min", "max")):
        found = _values_kernel(stack, runs, image) if by_kernel else _values_tensor(stack, image)
    if "histogram" in wanted:
        check_positive_int("bins", bins)
        low, high = _value_range(image.dtype) if value_range is None else value_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"got value_range ({low}, {high}), expected finite values, the first smaller")
        found["histogram"] = _histogram(stack, runs, image.detach(), bins, float(low), float(high))
    return found


def _value_range(dtype: torch.dtype) -> tuple[float, float]:
    if dtype.is_floating_point:
        return 0.0, 1.0
    info = torch.iinfo(dtype)
    return float(info.min), float(info.max) + 1


def _for_kernel(image: Tensor) -> list[Any]:
    """Arrays of one of four dtypes, so that no more kernels are compiled; only integers beyond 2^53 lose digits."""
    if image.dtype in (torch.float16, torch.bfloat16, torch.int8, torch.int16):
        image = image.to(torch.float32)
    elif image.dtype not in (torch.uint8, torch.uint16, torch.float32):
        image = image.to(torch.float64)
    return list(image.contiguous().numpy())


def _values_kernel(stack: LabelStack, runs: list[Any] | None, image: Tensor) -> dict[str, Tensor]:
    from graphseg.ops.kernels.region import region_integer_values, region_values

    kernel = region_integer_values if image.dtype in (torch.uint8, torch.uint16) else region_values
    joined = _join(_each(stack, kernel, runs or [], _for_kernel(image), stack.counts))
    return dict(zip(("mean", "std", "min", "max"), joined, strict=True))


def _values_tensor(stack: LabelStack, image: Tensor) -> dict[str, Tensor]:
    node = stack.node_labels().view(-1)  # [B * P]
    inside = node >= 0
    N = stack.num_nodes
    values = image.movedim(1, -1).flatten(0, 3).to(torch.float64)[inside]  # [P, C]
    node = node[inside]
    low, high = pool(values, node, N, "min"), pool(values, node, N, "max")
    base = low.detach()
    above = values - base[node]  # the mean of a constant region is then exact, and its std 0
    mean = pool(above, node, N)  # [N, C]
    variance = pool((above - mean[node]).square(), node, N)
    spread = variance > 0
    std = torch.where(spread, torch.where(spread, variance, 1.0).sqrt(), 0.0)  # sqrt never sees 0
    return {"mean": base + mean, "std": std, "min": low, "max": high}


def _histogram(stack: LabelStack, runs: list[Any] | None, image: Tensor, bins: int, low: float, high: float) -> Tensor:
    if runs is not None:
        from graphseg.ops.kernels.region import region_histogram

        B = len(stack.counts)
        limits = ([bins] * B, [low] * B, [high] * B)
        return _join(_each(stack, region_histogram, runs, _for_kernel(image), stack.counts, *limits))[0]
    node = stack.node_labels().view(-1)
    C = image.shape[1]
    values = image.movedim(1, -1).flatten(0, 3).to(torch.float64)[node >= 0]
    node = node[node >= 0]
    at = ((values - low) * bins / (high - low)).clamp(0, bins - 1).to(torch.int64)  # [P, C]
    slot = (node[:, None] * C + torch.arange(C, device=node.device)) * bins + at
    N = stack.num_nodes
    return torch.bincount(slot.view(-1), minlength=N * C * bins).view(N, C, bins)


def _label_counts(
    stack: LabelStack,
    runs: list[Any] | None,
    labels: Tensor,
    target: Tensor,
    num_classes: int | None,
    ignore_index: int | None,
) -> Tensor:
    check_integer("target", check_tensor("target", target))
    check_shape("target", target, labels.shape)
    check_same_device(labels=labels, target=target)
    if num_classes is None:
        raise ValueError("got a target but num_classes=None, expected the number of classes")
    check_positive_int("num_classes", num_classes)
    target = target.reshape(stack.labels.shape).to(torch.int64)
    ignored = -1 if ignore_index is None else ignore_index
    if target.numel() and (int(target.min()) < 0 or int(target.max()) >= num_classes):
        strange = ((target < 0) | (target >= num_classes)) & (stack.labels >= 0)
        if ignore_index is not None:
            strange &= target != ignore_index
        if bool(strange.any()):
            extra = "" if ignore_index is None else f" or ignore_index={ignore_index}"
            raise ValueError(f"got label {int(target[strange][0])} in target, expected 0 to {num_classes - 1}{extra}")
    if runs is not None:
        from graphseg.ops.kernels.region import region_label_counts

        B = len(stack.counts)
        maps = list(target.contiguous().numpy())
        return _join(_each(stack, region_label_counts, runs, maps, stack.counts, [num_classes] * B, [ignored] * B))[0]
    counted = (stack.labels >= 0) & (target != ignored) & (target >= 0) & (target < num_classes)
    slot = stack.node_labels()[counted] * num_classes + target[counted]
    return torch.bincount(slot, minlength=stack.num_nodes * num_classes).view(-1, num_classes)
