"""The rasterised convolution as plain loops, in float64: an explicit walk through the pixels, and what comes before."""

from __future__ import annotations

import numpy as np


def walk(ordering, height, width):
    """All pixels (y, x) in the order of the walk."""
    ys = list(range(height))
    xs = list(range(width))
    if ordering % 2 == 1:
        xs.reverse()
    if ordering // 2 % 2 == 1:
        ys.reverse()
    if ordering >= 4:
        return [(y, x) for x in xs for y in ys]
    return [(y, x) for y in ys for x in xs]


def window(ordering, size=3):
    """First and last offset (dy, dx) of the kernel's window: the current line and `size - 1` earlier ones."""
    half = size // 2
    if ordering >= 4:
        dx = (0, size - 1) if ordering % 2 == 1 else (1 - size, 0)
        return (-half, dx[0]), (half, dx[1])
    dy = (0, size - 1) if ordering // 2 % 2 == 1 else (1 - size, 0)
    return (dy[0], -half), (dy[1], half)


def convolve(x, weight, bias, ordering):
    """The kernel lies in the window as it is; pixels that come later in the walk are not seen. x [C, H, W]."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    _, H, W = x.shape
    size = weight.shape[-1]
    step = {pixel: number for number, pixel in enumerate(walk(ordering, H, W))}
    (top, left), _ = window(ordering, size)
    out = np.zeros((len(weight), H, W))
    for y, z in step:
        for o in range(len(weight)):
            total = 0.0 if bias is None else float(bias[o])
            for r in range(size):
                for c in range(size):
                    seen = (y + top + r, z + left + c)
                    if seen in step and step[seen] <= step[y, z]:
                        total += float(weight[o, :, r, c] @ x[:, seen[0], seen[1]])
            out[o, y, z] = total
    return out


def mirror(x, ordering):
    """The image [*, H, W] in which the walk of ordering 0 meets the pixels in this ordering's turn."""
    x = np.asarray(x)
    if ordering % 2 == 1:
        x = x[..., ::-1]
    if ordering // 2 % 2 == 1:
        x = x[..., ::-1, :]
    return np.swapaxes(x, -1, -2) if ordering >= 4 else x


def mirror_back(x, ordering):
    """Undoes `mirror`."""
    x = np.asarray(x)
    if ordering >= 4:
        x = np.swapaxes(x, -1, -2)
    if ordering // 2 % 2 == 1:
        x = x[..., ::-1, :]
    return (x[..., ::-1] if ordering % 2 == 1 else x).copy()


def convolve_turned(x, weight, bias, ordering):
    """Ordering 0 on the mirrored image, mirrored back."""
    return mirror_back(convolve(mirror(x, ordering), weight, bias, 0), ordering)


def ordinary(x, weight, bias):
    """The centred convolution without a mask."""
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    _, H, W = x.shape
    size = weight.shape[-1]
    out = np.zeros((len(weight), H, W))
    for o in range(len(weight)):
        for y in range(H):
            for z in range(W):
                total = 0.0 if bias is None else float(bias[o])
                for r in range(size):
                    for c in range(size):
                        a, b = y + r - size // 2, z + c - size // 2
                        if 0 <= a < H and 0 <= b < W:
                            total += float(weight[o, :, r, c] @ x[:, a, b])
                out[o, y, z] = total
    return out


def block(x, weights, scales, convolution):
    """Table 9 for x [C, H, W], batch norms given as (scale, shift) per channel.

    `weights`: raster, conv1 to conv5 as (matrix, bias); `scales`: the four norms, in the order they are met.
    """

    def norm(h, number):
        scale, shift = scales[number]
        return np.maximum(h * np.asarray(scale)[:, None, None] + np.asarray(shift)[:, None, None], 0)

    def one(h, number):
        matrix, bias = weights[number]
        out = np.einsum("oc,chw->ohw", np.asarray(matrix, np.float64), h)
        return out if bias is None else out + np.asarray(bias)[:, None, None]

    x = np.asarray(x, np.float64)
    h = norm(convolution(x), 0)
    h = norm(one(h, 1), 1)
    padded = np.zeros_like(h)
    padded[: len(x)] = x
    h = h + padded
    h = h + one(norm(one(h, 2), 2), 3)
    return h + one(norm(one(h, 4), 3), 5)
