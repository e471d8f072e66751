"""Nuclei one by one: a small network learns affinities and foreground, the graph merge makes instances of them.

To be beaten: the connected components of the same network's foreground, where nuclei that touch are one. Trained and
judged on the nuclei of the Data Science Bowl 2018 (BBBC038) if the data folder has them; otherwise on two parts of a
photograph of coins, whose label map was made by a watershed and not by hand.

    python -m examples.nuclei_instances [--data FOLDER] [--out FOLDER] [--steps N] [--seed N] [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from scipy.ndimage import label
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from examples._images import DATA
from examples._nuclei import Pair, draw_maps, random_crops, read_nuclei
from graphseg.losses import affinity_counts, affinity_cross_entropy, cross_entropy
from graphseg.metrics import adapted_rand_error, average_precision, instance_overlaps
from graphseg.nn import AffinityHead, affinity_targets, segment_instances
from graphseg.ops import affinity_offsets, pool

OFFSETS = affinity_offsets((1, 2, 4, 8))
CHANNELS, MIN_SIZE = (16, 32, 64, 128), 10  # of the network; instances have more pixels
MERGES = {  # chosen on images of the training split
    "plain": partial(segment_instances, stages=((1, 2), (4, 8)), thresholds=(0.8, 0.2), window=2, linkage="plain"),
    "counted": partial(segment_instances, stages=((1, 2, 4, 8),), thresholds=(0.5,), window=1, linkage="counted"),
}
Found = tuple[Tensor, Tensor]  # instances [H, W], and the score of each


class Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        convolutions = [nn.Conv2d(channels, outputs, 3, padding=1) for channels in (inputs, outputs)]
        super().__init__(*(part for conv in convolutions for part in (conv, nn.BatchNorm2d(outputs), nn.ReLU())))


class Net(nn.Module):
    """A U-Net of four scales; from its last maps one affinity for each offset, and background and foreground."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(map(Block, (3, *CHANNELS[:-1]), CHANNELS))
        self.up = nn.ModuleList(Block(a + b, a) for a, b in zip(CHANNELS[-2::-1], CHANNELS[:0:-1], strict=True))
        self.affinity, self.semantic = AffinityHead(CHANNELS[0], OFFSETS), nn.Conv2d(CHANNELS[0], 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps: list[Tensor] = []
        for down in self.down:
            maps.append(down(max_pool2d(maps[-1], 2) if maps else x))
        x = maps.pop()
        for up in self.up:
            skip = maps.pop()
            x = up(torch.cat([skip, interpolate(x, skip.shape[-2:])], 1))
        return self.affinity(x), self.semantic(x)  # logits [B, K, H, W], [B, 2, H, W]


def train(network: Net, data: Sequence[Pair], steps: int) -> None:
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    counts = torch.zeros(2, len(OFFSETS), dtype=torch.float64)
    for step in range(steps):
        images, instances = random_crops(data, 8, 128)
        affinity, semantic = network(images)
        # Of two background pixels the foreground knows enough: pairs are left out where these two differ.
        target, other = (affinity_targets(instances, OFFSETS, background=value) for value in (0, None))
        target.masked_fill_(target != other, -100)
        counts += affinity_counts(target, "channel")
        pairs = affinity_cross_entropy(affinity, target, balance="channel")
        pixels = cross_entropy(semantic, (instances > 0).long())
        optimizer.zero_grad()
        (pairs + pixels).backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss of affinities {pairs.item():.3f}, of foreground {pixels.item():.3f}", flush=True)
    network.eval().affinity.lin.bias.data += (counts[1] / counts[0]).log()  # not balanced any more


def components(foreground: Tensor) -> Found:
    """Connected parts of the foreground `[H, W]`, scored by its mean probability."""
    part = torch.from_numpy(label((foreground > 0.5).numpy())[0]).long()
    kept = torch.bincount(part.flatten()) > MIN_SIZE
    kept[0] = False
    part = kept.cumsum(0).where(kept, 0)[part]
    return part, pool(foreground.flatten(), part.flatten())[1:]


def segment(affinity: Tensor, semantic: Tensor) -> dict[str, Found]:
    """Three ways to instances from the same maps of probabilities."""
    found = {"components": components(semantic[0, 1])}
    for linkage, merge in MERGES.items():
        (one,) = merge(affinity, semantic, OFFSETS, min_size=MIN_SIZE)
        found[f"merge, {linkage}"] = one.labels, one.scores
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder for the picture and scores")
    parser.add_argument("--steps", type=int, default=500, help="of training, 8 crops each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few images and steps")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    learn, judged = (read_nuclei(options.data, split, 20 if options.quick else 1) for split in ("train", "val"))

    begin, network = time.perf_counter(), Net()
    train(network, learn, 3 if options.quick else options.steps)
    print(f"trained on {len(learn)} images in {(time.perf_counter() - begin) / 60:.1f} minutes")
    found, pictures = [], []
    for image, instances in judged:
        with torch.no_grad():
            affinity, semantic = network(image[None])
        affinity, semantic = affinity.sigmoid(), semantic.softmax(1)
        found.append(segment(affinity, semantic))
        maps = {name: labels for name, (labels, _) in found[-1].items()}
        first = {"image": image.movedim(0, 2), "near affinity": affinity[0, :8].mean(0) * semantic[0, 1]}
        pictures.append({**first, **maps, "ground truth": instances})

    results = {}
    for name in found[0]:
        labels, scores = ([one[name][part] for one in found] for part in (0, 1))
        precision = average_precision(instance_overlaps(labels, [y for _, y in judged], scores=scores))
        rand = adapted_rand_error(labels, [y for _, y in judged]).error.nanmean()
        results[name] = {"AP": float(precision.ap), "AP50": float(precision.ap50), "adapted_rand_error": float(rand)}
        print(f"{name:<15}" + "  ".join(f"{key} {value:.3f}" for key, value in results[name].items()))
    (options.out / "nuclei_instances.json").write_text(json.dumps(results, indent=1))
    draw_maps(pictures[:: -(-len(pictures) // 4)], options.out / "nuclei_instances.png")


if __name__ == "__main__":
    main()
