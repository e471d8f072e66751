"""One run of a row without labels: a network learns from images alone, and its clusters are matched with classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.reproduce.data import NO_CLASS, Batches, Pictures, generator, read_pictures
from benchmarks.reproduce.loop import build, train
from benchmarks.reproduce.schedule import Job
from benchmarks.reproduce.semantic import predict
from graphseg.metrics.semantic import confusion_matrix, hungarian_accuracy, mean_iou

SAMPLED, KMEANS_DRAW = 20_000, 9  # pixels that k-means learns from, and the purpose of their draw
CHUNK = 32  # images at once


def run_unsupervised(
    job: Job, root: Path, device: torch.device, *, learn: str = "train", judge: str | None = None
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Trains and judges one network; returns its metrics and details.

    Args:
        job: the row and seed. Its network may be "k-means"; with the change `untrained` nothing is learnt.
        root: folder of the sets.
        device: to train on.
        learn: the split to learn from.
        judge: the split to be judged on. Default: the protocol's.
    """
    protocol, setup = job.protocol, job.setup
    options = {**protocol.options, **setup.changes}
    place = (root, protocol.dataset)
    learnt = read_pictures(*place, learn, protocol.size, options["tiles"])
    judged = read_pictures(*place, judge or protocol.judged_on, protocol.size, options["tiles"])
    details: dict[str, Any] = {}
    if setup.network == "k-means":
        found = kmeans(learnt.images, judged.images, len(judged.names), job.seed)
    else:
        known = {"num_classes": len(learnt.names), "in_channels": learnt.images.shape[1], **options["network"]}
        network = build(setup, job.base, job.seed, **known).to(device).eval()
        if not options.get("untrained"):
            batches = Batches({"image": learnt.images}, protocol.batch, job.seed)
            details |= train(network, batches, protocol, job.seed, device, stages=options["stages"])
        found = predict(network, judged.images, None, device)
        details["parameters"] = sum(p.numel() for p in network.parameters())
    values, used = judge_clusters(found, judged)
    return {"": values}, {**details, "clusters_used": used}


def judge_clusters(found: Tensor, judged: Pictures) -> tuple[dict[str, float], int]:
    """Accuracy and mIoU after a one-to-one match over the whole set, and how many clusters have 1 % of the pixels.

    Args:
        found: clusters `[N, H, W]`, as many as classes.
        judged: the images they are of.
    """
    K = len(judged.names)
    matrix = confusion_matrix(found, judged.masks, K, NO_CLASS)
    match = hungarian_accuracy(matrix)
    order = torch.empty_like(match.assignment)
    order[match.assignment] = torch.arange(K)  # the cluster of each class
    used = int((matrix.sum(0) >= 0.01 * matrix.sum()).sum())
    return {"hungarian_accuracy": float(match.accuracy), "matched_miou": float(mean_iou(matrix[:, order]))}, used


def kmeans(learn: Tensor, images: Tensor, clusters: int, seed: int) -> Tensor:
    """k-means over the colour of pixels and the mean and spread of those around them; label maps `[N, H, W]`.

    Args:
        learn: uint8 images `[M, C, H, W]`, of whose pixels a sample is clustered.
        images: uint8 images `[N, C, H, W]` to label by the nearest centre.
        clusters: how many.
        seed: of sample and first centres.
    """
    from scipy.cluster.vq import kmeans2, vq

    known, C = _features(learn), 3 * learn.shape[1]
    mean, std = known.mean((0, 2, 3)), known.std((0, 2, 3)) + 1e-6
    rows = known.movedim(1, -1).reshape(-1, C)
    ids = torch.randperm(len(rows), generator=generator(seed, KMEANS_DRAW))[:SAMPLED]
    centres, _ = kmeans2(((rows[ids] - mean) / std).numpy(), clusters, minit="++", rng=np.random.default_rng(seed))
    found = []
    for part in images.split(CHUNK):
        x = (_features(part).movedim(1, -1) - mean) / std
        found.append(torch.from_numpy(vq(x.reshape(-1, C).numpy(), centres)[0]).view(x.shape[:-1]).long())
    return torch.cat(found)


def _features(images: Tensor) -> Tensor:
    """`[N, 3 C, H, W]`: each pixel, and mean and standard deviation of the 5 x 5 around it."""
    x = images.float() / 255
    mean, square = (avg_pool2d(y, 5, 1, 2, count_include_pad=False) for y in (x, x * x))
    return torch.cat([x, mean, (square - mean * mean).clamp(min=0).sqrt()], 1)
