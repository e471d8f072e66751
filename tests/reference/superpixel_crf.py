"""ES-CRF and its mean-field rivals as plain loops over the printed formulas, in float64."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(value):
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def softmax(values):
    values = [math.exp(v - max(values)) for v in values]
    return [v / sum(values) for v in values]


def position_embedding(point, channels):
    """Sines, then cosines, of x, then of y."""
    out = []
    for coordinate in point:
        angles = [coordinate / 10000 ** (4 * k / channels) for k in range(channels // 4)]
        out += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return np.array(out)


def senders(num_pixels, edge_index, batch, exclude_self):
    """G_i of each pixel as a list, with repeats; without edges all pixels of its image."""
    if edge_index is None:
        found = [[j for j in range(num_pixels) if batch[j] == batch[i]] for i in range(num_pixels)]
    else:
        found = [[] for _ in range(num_pixels)]
        for j, i in zip(*np.asarray(edge_index).tolist(), strict=True):
            found[i].append(j)
    return [[j for j in g if not (exclude_self and j == i)] for i, g in enumerate(found)]


def es_crf(
    x,
    image,
    pos,
    edge_index,
    assignment,
    batch,
    compatibility,
    token,
    *,
    position_channels,
    norm="degree",
    mu="pair",
    exclude_self=True,
    pairwise_weight=1.0,
    superpixel_weight=1.0,
):
    """Eq. (4) to Eq. (8). `compatibility` and `token` are functions of one vector, the two convolutions."""
    P, C = x.shape
    batch = [0] * P if batch is None else batch
    F = np.asarray(x, dtype=np.float64)
    f = []
    for i in range(P):
        embedding = position_embedding([float(c) for c in pos[i]], position_channels)
        f.append(token(np.asarray(image[i], dtype=np.float64), embedding))
    out = np.zeros((P, C))
    for i, G in enumerate(senders(P, edge_index, batch, exclude_self)):
        psi = []
        for j in G:
            k = sum(a * b for a, b in zip(f[i], f[j], strict=True))  # Eq. (6)
            pair = np.concatenate([F[i], F[j]]) if mu == "pair" else F[j]
            psi.append(sigmoid(compatibility(pair)) * k)  # Eq. (5), Eq. (7)
        if norm == "softmax" and psi:
            psi = softmax(psi)
        message = sum((p * F[j] for p, j in zip(psi, G, strict=True)), np.zeros(C))
        block = np.zeros(C)
        if superpixel_weight:
            Q = [q for q in range(P) if assignment[q] == assignment[i] and batch[q] == batch[i]]
            block = sum(F[q] / len(Q) for q in Q)  # Eq. (8)
        Z = 1 + superpixel_weight + pairwise_weight * len(G) if norm == "degree" else 1
        out[i] = (F[i] + pairwise_weight * message + superpixel_weight * block) / Z  # Eq. (4)
    return out


def mean_field(scores, image, pos, edge_index, weight, theta, mu, num_steps, update="sum"):
    """Logarithms of probabilities after `num_steps` of Eq. (1) to Eq. (3)."""
    scores, image, pos = (np.asarray(v, dtype=np.float64) for v in (scores, image, pos))
    P, M = scores.shape
    alpha, beta, gamma = theta
    Y = np.array([softmax(row.tolist()) for row in scores]).reshape(P, M)
    Q = Y.copy()
    G = senders(P, edge_index, [0] * P, True)
    for _ in range(num_steps):
        new = np.zeros((P, M))
        for i in range(P):
            total = Y[i].copy() if update == "sum" else scores[i].copy()
            for j in G[i]:
                near, alike = ((pos[i] - pos[j]) ** 2).sum(), ((image[i] - image[j]) ** 2).sum()
                k = weight[0] * math.exp(-near / (2 * alpha**2) - alike / (2 * beta**2))
                k += weight[1] * math.exp(-near / (2 * gamma**2))  # Eq. (3)
                for a in range(M):
                    total[a] += sum(mu[a][b] * k * Q[j][b] for b in range(M))  # Eq. (1), Eq. (2)
            new[i] = total / total.sum() if update == "sum" else softmax(total.tolist())
        Q = new
    return np.log(Q)
