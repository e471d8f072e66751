"""One run for instances: one training of both branches, judged with every switch of the graph merge."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor
from torch.nn.functional import interpolate, pad

from benchmarks.reproduce.data import generator
from benchmarks.reproduce.loop import build, train
from benchmarks.reproduce.schedule import Job
from graphseg.datasets import DSB2018, PennFudan
from graphseg.metrics import adapted_rand_error, average_precision, instance_overlaps
from graphseg.ops import pool
from graphseg.ops.resize import resize_nearest

Pair = tuple[Tensor, Tensor]  # image float [3, H, W], instances int64 [H, W]

READERS = {"dsb2018": DSB2018, "penn_fudan": PennFudan}
UNKNOWN = -1  # of pixels outside the image
COMPONENTS = "components"
CROPS = 3  # the purpose of the streams that crops are drawn from


def run_instances(
    job: Job, root: Path, device: torch.device, *, learn: str = "train", judge: str | None = None
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Trains one network and judges it with every variant of the merge; returns their metrics and details.

    Args:
        job: the row and seed. The protocol's `variants` are options of `AffinityInstances.segment` by name, added to
            its `merge`; "components", without options, is the connected foreground.
        root: folder of the sets.
        device: to train on.
        learn: the split to learn from.
        judge: the split to be judged on. Default: the protocol's.
    """
    protocol, setup = job.protocol, job.setup
    options = {**protocol.options, **setup.changes}
    place = (root, protocol.dataset)
    learnt = read_pairs(*place, learn, options.get("longest"), None)
    judged = read_pairs(*place, judge or protocol.judged_on, options.get("longest"), options.get("middle"))
    network = build(setup, job.base, job.seed, num_classes=2, **options["network"]).to(device)
    crops = Crops(learnt, protocol.size, protocol.batch, job.seed, options["turn"])
    details: dict[str, Any] = train(network, crops, protocol, job.seed, device)
    details["parameters"] = sum(p.numel() for p in network.parameters())
    values, seconds = {}, {}
    for name, more in options["variants"].items():
        begin = time.perf_counter()
        values[name] = judge_variant(network, judged, None if name == COMPONENTS else {**options["merge"], **more})
        seconds[name] = round(time.perf_counter() - begin, 1)
    return values, {**details, "judging_seconds": seconds}


@torch.no_grad()
def judge_variant(network: Any, judged: Sequence[Pair], options: Mapping[str, Any] | None) -> dict[str, float]:
    """Average precision over the set, and the mean adapted Rand error of its images.

    Args:
        network: in evaluation mode.
        judged: images and their instances.
        options: of `segment`; None: connected components of the foreground.
    """
    device = next(network.parameters()).device
    labels, scores = [], []
    for image, _ in judged:
        image = image[None].to(device)
        if options is None:
            found, score = components(network(image).logits.softmax(1)[0, 1].cpu())
        else:
            (one,) = network.segment(image, **options)
            found, score = one.labels.cpu(), one.scores.cpu()
        labels.append(found)
        scores.append(score)
    target = [instances for _, instances in judged]
    precision = average_precision(instance_overlaps(labels, target, scores=scores))
    rand = adapted_rand_error(labels, target).error
    return {"ap": float(precision.ap), "ap50": float(precision.ap50), "rand_error": float(rand.nanmean())}


def components(foreground: Tensor, min_size: int = 10) -> Pair:
    """Connected parts of more than `min_size` pixels, and their mean probability.

    Args:
        foreground: probability `[H, W]`.
        min_size: in pixels.
    """
    part = torch.from_numpy(label((foreground > 0.5).numpy())[0]).long()
    kept = torch.bincount(part.flatten()) > min_size
    kept[0] = False
    part = kept.cumsum(0).where(kept, 0)[part]
    return part, pool(foreground.flatten(), part.flatten(), int(part.max()) + 1)[1:].double()


@lru_cache(maxsize=8)
def read_pairs(root: Path, dataset: str, split: str, longest: int | None, middle: int | None) -> tuple[Pair, ...]:
    """One part of a set: images in [0, 1] and their instances.

    Args:
        root: folder of the sets.
        dataset: its folder.
        split: "train", "val", "test_dev"; or "fit" and "held_out": train without every fifth image, and these.
        longest: images are made smaller until no side is longer. None: they are left.
        middle: of larger images only the middle of this side is taken. None: all of it.
    """
    reader = READERS[dataset](root / dataset)
    part = reader.split("train" if split in ("fit", "held_out") else split)
    found = []
    for place, i in enumerate(part.indices()):
        if split in ("fit", "held_out") and (place % 5 == 4) != (split == "held_out"):
            continue
        data = reader.get(i)
        image, instances = data.image.float() / 255, data.instances
        if dataset == "dsb2018":
            image = stretched(image)
        if longest is not None and max(instances.shape) > longest:
            size = tuple(round(side * longest / max(instances.shape)) for side in instances.shape)
            image = interpolate(image[None], size, mode="area")[0]
            instances = resize_nearest(instances.long(), size)
        if middle is not None:
            cut = tuple(slice(max(0, s - middle) // 2, max(0, s - middle) // 2 + middle) for s in instances.shape)
            image, instances = image[:, cut[0], cut[1]], instances[cut]
        found.append((image.contiguous(), instances.contiguous()))
    return tuple(found)


def stretched(image: Tensor) -> Tensor:
    """From 0 to 1 up to half a per cent at either end, on a dark ground.

    Args:
        image: `[3, H, W]`.
    """
    low, high = np.quantile(image.numpy(), (0.005, 0.995))
    image = ((image - low) / max(high - low, 1 / 255)).clamp(0, 1)
    return (1 - image if image.mean() > 0.5 else image).float()


class Crops:
    """Batch number `step` of a training: crops at random places, mirrored and, if asked for, turned.

    Args:
        pairs: images and instances, of any sizes. What a crop has beyond its image is black, its instances unknown.
        size: (height, width) of crops; equal if they are turned.
        batch: crops in each.
        seed: of images, places, mirrors and turns.
        turn: whether to turn by quarters.
    """

    def __init__(self, pairs: Sequence[Pair], size: tuple[int, int], batch: int, seed: int, turn: bool) -> None:
        self.pairs, self.size, self.batch, self.seed, self.turn = pairs, size, batch, seed, turn

    def __call__(self, step: int) -> dict[str, Tensor]:
        """ "image" and "instances".

        Args:
            step: from 0.
        """
        draws = generator(self.seed, CROPS, step)
        ids = torch.randint(len(self.pairs), (self.batch,), generator=draws).tolist()
        chance = torch.rand(self.batch, 4, generator=draws).tolist()
        crops = [self._crop(self.pairs[i], *numbers) for i, numbers in zip(ids, chance, strict=True)]
        images, instances = (torch.stack(parts) for parts in zip(*crops, strict=True))
        return {"image": images, "instances": instances}

    def _crop(self, pair: Pair, y: float, x: float, mirror: float, turns: float) -> Pair:
        H, W = pair[1].shape
        h, w = self.size
        below, right = max(0, h - H), max(0, w - W)
        top, left = int(y * (H + below - h + 1)), int(x * (W + right - w + 1))
        found = []
        for part, fill in zip(pair, (0.0, UNKNOWN), strict=True):
            part = pad(part, (0, right, 0, below), value=fill)[..., top : top + h, left : left + w]
            part = part.flip(-1) if mirror < 0.5 else part
            found.append(part.rot90(int(4 * turns), (-2, -1)) if self.turn else part)
        return found[0], found[1]
