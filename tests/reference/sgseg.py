"""SGSeg as Tables 7 to 10 print it, for one image in float64: loops, and sums over the channels of single pixels.

`state` holds arrays by name. Convolutions keep the size; batch norms use their running mean and variance.
"""

from __future__ import annotations

import numpy as np

from tests.reference import diff_gcn, knn, pooling, raster_conv


def spnn(state, image, num_superpixels):
    """Assignment [N, H, W], reconstruction and the features before them."""
    x = image
    for i in range(4):
        x = convolve_norm_relu(x, state, f"spnn.encoder.{i}")
    maps: list[np.ndarray] = []
    for i, rate in enumerate((1, 2, 4)):
        weight, bias = state[f"spnn.dilated.{i}.weight"], state[f"spnn.dilated.{i}.bias"]
        maps += [convolve(x[c : c + 1], weight[c : c + 1], bias[c : c + 1], rate) for c in range(len(x))]
    features = convolve_norm_relu(np.concatenate(maps), state, "spnn.fuse")
    out = convolve(features, state["spnn.head.weight"], state["spnn.head.bias"])
    scores = np.exp(out[:num_superpixels])
    return scores / scores.sum(0), out[num_superpixels:], features


def superpixel_nodes(assignment, image, features):
    """Eq. 3: x and y, color, features of each superpixel [N, 2 + C + c], x and y in pixels."""
    N, H, W = assignment.shape
    P = assignment.reshape(N, -1).T  # [HW, N]
    rows = []
    for y in range(H):
        for x in range(W):
            rows.append(np.concatenate([[x, y], image[:, y, x], features[:, y, x]]))
    return pooling.pool_soft(np.array(rows), P, "mean")


def gnn(state, nodes, size, k, block, dynamic=False):
    """Eq. 5, and the edges {(neighbour, node)} that the first block used."""
    pos = nodes[:, :2]
    nodes = np.concatenate([pos / np.array([size[1], size[0]]), nodes[:, 2:]], 1)
    edges = nearest(nodes, k)
    first = set(edges)
    h = linear_norm_relu(nodes, state, "gnn.lift")
    found: list[np.ndarray] = []
    for i in range(4):
        weight, bias = state[f"gnn.blocks.{i}.lin.weight"], state[f"gnn.blocks.{i}.lin.bias"]
        if dynamic and found:
            edges = nearest(h, k)
        if block == "pointnet":
            h = diff_gcn.pointnet(h, weight, bias)
        elif block == "dgcnn":
            h = diff_gcn.dgcnn(h, edges, weight, bias)
        else:
            h = diff_gcn.diff_gcn(h, edges, pos, weight, bias)
        found.append(h)
    h = np.concatenate(found, 1)
    h = linear_norm_relu(linear_norm_relu(h, state, "gnn.head.0"), state, "gnn.head.1")
    return h @ state["gnn.head.2.weight"].T + state["gnn.head.2.bias"], first


def project(nodes, assignment):
    """Eq. 6: [c, H, W]."""
    N, H, W = assignment.shape
    return pooling.project_soft(nodes, assignment.reshape(N, -1).T).T.reshape(-1, H, W)


def cnn(state, x, num_classes, ordering=None):
    """Logits [K, H, W] and reconstruction [C, H, W]."""
    _, H, W = x.shape
    h = halve(convolve_norm_relu(x, state, "cnn.stem.0"))
    for i in range(4):
        h = residual_block(h, state, f"cnn.blocks.{i}", ordering)
    for i in range(2):
        h = convolve(h, state[f"cnn.head.{i}.weight"], state[f"cnn.head.{i}.bias"])
    h = double(h)[:, :H, :W]
    return h[:num_classes], convolve(h, state["cnn.reconstruct.weight"], state["cnn.reconstruct.bias"])


def residual_block(x, state, name, ordering):
    weights = [(None, None)]
    for i in range(1, 6):
        weights.append((state[f"{name}.conv{i}.weight"][:, :, 0, 0], state.get(f"{name}.conv{i}.bias")))
    scales = [scale_and_shift(state, f"{name}.norm{i}") for i in (0, 1, 2, 4)]
    kernel = state[f"{name}.raster.weight"]

    def convolution(image):
        if ordering is None:
            return raster_conv.ordinary(image, kernel, None)
        return raster_conv.convolve_turned(image, kernel, None, ordering)

    return raster_conv.block(x, weights, scales, convolution)


def convolve(x, weight, bias=None, dilation=1):
    _, H, W = x.shape
    size = weight.shape[-1]
    out = np.zeros((len(weight), H, W))
    for y in range(H):
        for z in range(W):
            total = np.zeros(len(weight)) if bias is None else np.array(bias, np.float64)
            for r in range(size):
                for c in range(size):
                    a, b = y + dilation * (r - size // 2), z + dilation * (c - size // 2)
                    if 0 <= a < H and 0 <= b < W:
                        total = total + weight[:, :, r, c] @ x[:, a, b]
            out[:, y, z] = total
    return out


def convolve_norm_relu(x, state, name):
    scale, shift = scale_and_shift(state, f"{name}.1")
    h = convolve(x, state[f"{name}.0.weight"])
    return np.maximum(h * scale[:, None, None] + shift[:, None, None], 0)


def linear_norm_relu(x, state, name):
    scale, shift = scale_and_shift(state, f"{name}.1")
    return np.maximum(x @ state[f"{name}.0.weight"].T * scale + shift, 0)


def scale_and_shift(state, name):
    scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
    return scale, state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale


def halve(x):
    """The largest of each 2 x 2 pixels; those at an odd end stand alone."""
    C, H, W = x.shape
    out = np.zeros((C, (H + 1) // 2, (W + 1) // 2))
    for y in range(out.shape[1]):
        for z in range(out.shape[2]):
            out[:, y, z] = x[:, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2].max((1, 2))
    return out


def double(x):
    """Bilinear: the pixel centre at y lies at (y + 1/2) / 2 - 1/2 of the small map, whose border goes on outside."""
    for axis in (1, 2):
        n = x.shape[axis]
        lines = []
        for y in range(2 * n):
            at = min(max((y + 0.5) / 2 - 0.5, 0), n - 1)
            low = int(at)
            high = min(low + 1, n - 1)
            lines.append((1 - (at - low)) * x.take(low, axis) + (at - low) * x.take(high, axis))
        x = np.stack(lines, axis)
    return x


def nearest(x, k):
    return [(j, i) for j, i, _ in knn.neighbours(x.tolist(), [0] * len(x), k=k)]
