"""One run of a semantic row: a network is trained on labelled images and judged on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.reproduce.data import NO_CLASS, Batches, Pictures, read_pictures, read_superpixels
from benchmarks.reproduce.loop import build, train
from benchmarks.reproduce.schedule import Job
from graphseg.metrics.boundary import boundary_f_score
from graphseg.metrics.semantic import (
    class_adjacency,
    class_weight_similarity,
    confusion_matrix,
    mean_iou,
    pixel_accuracy,
)

CHUNK = 16  # images at once


def run_semantic(
    job: Job, root: Path, device: torch.device, *, learn: str = "train", judge: str | None = None
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Trains and judges one network; returns its metrics and details.

    Args:
        job: the row and seed.
        root: folder of the sets.
        device: to train on.
        learn: the split to learn from.
        judge: the split to be judged on. Default: the protocol's.
    """
    protocol, setup = job.protocol, job.setup
    options = {**protocol.options, **setup.changes}
    place = (root, protocol.dataset)
    learnt = read_pictures(*place, learn, protocol.size)
    judged = read_pictures(*place, judge or protocol.judged_on, protocol.size)
    network = build(setup, job.base, job.seed, num_classes=len(learnt.names), **options["network"]).to(device)
    counts = tuple(network.num_superpixels)
    maps = [
        read_superpixels(*place, split, protocol.size, counts, options["compactness"]) if counts else None
        for split in (learn, judge or protocol.judged_on)
    ]
    fields = {"image": learnt.images, "mask": learnt.masks}
    if maps[0] is not None:
        fields["superpixels"] = maps[0]
    batches = Batches(fields, protocol.batch, job.seed)
    details = train(network, batches, protocol, job.seed, device, slower=options.get("slower", {}))
    found = predict(network, judged.images, maps[1], device)
    details["parameters"] = sum(p.numel() for p in network.parameters())
    return {"": judge_maps(found, judged) | weight_similarity(network, judged)}, details


@torch.no_grad()
def predict(network: Any, images: Tensor, superpixels: Tensor | None, device: torch.device) -> Tensor:
    """Label maps `[N, H, W]` of uint8 images.

    Args:
        network: in evaluation mode.
        images: `[N, C, H, W]`.
        superpixels: `[N, S, H, W]`, if the network takes them.
        device: of the network.
    """
    found = []
    for begin in range(0, len(images), CHUNK):
        part = slice(begin, begin + CHUNK)
        image = images[part].to(device).float() / 255
        maps = None if superpixels is None else superpixels[part].to(device).long()
        found.append(network(image, maps).logits.argmax(1).cpu())
    return torch.cat(found)


def judge_maps(found: Tensor, judged: Pictures) -> dict[str, float]:
    """mIoU, pixel accuracy and the boundary F-score at one pixel.

    Args:
        found: label maps `[N, H, W]`.
        judged: the images they are of.
    """
    K = len(judged.names)
    matrix = confusion_matrix(found, judged.masks, K, NO_CLASS)
    boundary = boundary_f_score(found, judged.masks, K, radius=1, ignore_index=NO_CLASS)
    return {
        "miou": float(mean_iou(matrix)),
        "pixel_accuracy": float(pixel_accuracy(matrix)),
        "boundary_f": float(boundary.score),
    }


def weight_similarity(network: Any, judged: Pictures) -> dict[str, float]:
    """How alike the class weights of classes are that share boundaries (ES-CRF, Fig. 1a).

    Args:
        network: whose last layer is `refined`, or else `classifier`.
        judged: images whose masks say which classes do.
    """
    weight = getattr(network, "refined", network.classifier).weight.detach().cpu().flatten(1)
    adjacency = class_adjacency(judged.masks, len(judged.names), NO_CLASS)
    return {"weight_similarity": float(class_weight_similarity(weight, adjacency).mean)}
