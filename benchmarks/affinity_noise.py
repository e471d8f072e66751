"""Instances from the affinities of the ground truth under growing noise: plain and counted merge against others.

    python -m benchmarks.affinity_noise [--data DIR] [--out FILE] [--images N] [--seeds N] [--quick]

Label maps of nuclei (dsb2018), pedestrians (penn_fudan), cells between membranes (isbi2012_em) and segments of
photographs (bsds500, the first annotator) become affinities at all 28 undirected offsets (distances 1 to 64): 1 within
an instance, 0 between two and in the background. Noise of level s: logits 4 and -4 plus s / sqrt(2) times a standard
normal of each edge plus s / 2 times a smooth field at both of its ends, since networks err in patches; level 0 leaves
1 and 0. The true foreground of nuclei and pedestrians is known, as from a semantic branch; membranes are for affinities
to find. Clusters of more than `MINIMUM` pixels are instances, and smaller ones of the ground truth are ignored.

Each method's options (threshold, reach, stages, which edges repel: see `..._options`, 12 to 15 each) are chosen on
training images for every set and level, by AP less adapted Rand error, and judged on validation images: AP over IoU
0.50:0.05:0.95 of the images together, confidence being the mean of the affinities inside; adapted Rand error over the
pixels of instances, mean of the images. The figures are means and standard deviations over the seeds of the noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import environment
from graphseg.metrics.instance import adapted_rand_error, average_precision, instance_overlaps
from graphseg.nn.affinity import affinity_edges, affinity_targets
from graphseg.ops import Agglomeration, affinity_offsets, agglomerate

LOGIT = 4.0
SMOOTH = 3.0  # pixels, of the field
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
MINIMUM = 10  # pixels
THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9)
STAGES = ((0.97, 0.7, 0.3), (0.7, 0.5, 0.3))  # for distances up to 4, up to 16, beyond; the paper's, and lower ones
OFFSETS = [offset for offset in affinity_offsets() if offset > (0, 0)]


@dataclass(frozen=True)
class Set:
    """Label maps of one folder: the label of no instance, whether its place is known, step in pixels, most a side."""

    name: str
    background: int | None
    known: bool
    step: int
    most: int = 256

    def files(self, root: Path, split: str, number: int) -> list[Path]:
        """Label maps of `number` images, evenly spread; of several annotators the first."""
        lines = [line.split("\t") for line in (root / self.name / "splits.txt").read_text().splitlines()]
        column = 3 if self.name == "isbi2012_em" else 2
        found = [line[column].split(";")[0] for line in lines if line[0] == split]
        chosen = np.linspace(0, len(found) - 1, min(number, len(found))).round().astype(int)
        return [root / self.name / found[i] for i in chosen]

    def read(self, root: Path, split: str, number: int) -> list[np.ndarray]:
        """Their middles, int64 [H, W]."""
        return [self.middle(np.array(Image.open(path))) for path in self.files(root, split, number)]

    def middle(self, labels: np.ndarray) -> np.ndarray:
        labels = labels[:: self.step, :: self.step]
        (top, left) = (max(0, side - self.most) // 2 for side in labels.shape)
        return labels[top : top + self.most, left : left + self.most].astype(np.int64)


SETS = (
    Set("dsb2018", 0, known=True, step=1),
    Set("penn_fudan", 0, known=True, step=2),
    Set("isbi2012_em", 0, known=False, step=2),
    Set("bsds500", None, known=False, step=2),
)


def noisy_affinities(
    instances: np.ndarray,
    offsets: Sequence[tuple[int, int]],
    level: float,
    generator: np.random.Generator,
    background: int | None,
    blur: float = 0.0,
) -> np.ndarray:
    """float32 [K, H, W]; `blur`, in pixels, is that of the logits before noise comes upon them."""
    from scipy.ndimage import gaussian_filter

    targets = affinity_targets(torch.from_numpy(instances), offsets, background=background).numpy()
    if level == 0 and blur == 0:
        return np.maximum(targets, 0).astype(np.float32)
    logits = np.where(targets > 0, np.float32(LOGIT), np.float32(-LOGIT))
    if blur:
        logits = np.stack([gaussian_filter(one, blur) for one in logits])
    logits += level * np.float32(0.5**0.5) * generator.standard_normal(logits.shape, np.float32)
    field = gaussian_filter(generator.standard_normal(instances.shape, np.float32), SMOOTH)
    field *= level / 2 / field.std()
    logits += field
    for k, (dy, dx) in enumerate(offsets):  # an edge has the mean of its two ends, times sqrt(2)
        logits[k] += np.roll(field, (-dy, -dx), (0, 1))
    return 1 / (1 + np.exp(-logits))


@dataclass(frozen=True)
class Graph:
    """The edges of an image's pixels at all offsets, in lexicographic order."""

    edge_index: Tensor  # [2, E]
    affinity: Tensor  # [E]
    distance: Tensor  # [E], in pixels
    shape: tuple[int, int]

    @property
    def number(self) -> int:
        return self.shape[0] * self.shape[1]

    def upto(self, reach: int) -> Graph:
        """Without the edges beyond a distance."""
        near = self.distance <= reach
        return Graph(self.edge_index[:, near], self.affinity[near], self.distance[near], self.shape)


def as_graph(truth: Tensor, chosen: Set, level: float, seed: int | Sequence[int]) -> Graph:
    """The affinities of label maps [H, W] under noise."""
    maps = noisy_affinities(truth.numpy(), OFFSETS, level, np.random.default_rng(seed), chosen.background)
    valid = truth.ne(chosen.background)[None] if chosen.known and chosen.background is not None else None
    edge_index, affinity = affinity_edges(torch.from_numpy(maps)[None], OFFSETS, valid=valid)
    width = truth.shape[1]
    rows, columns = edge_index // width, edge_index % width
    distance = torch.maximum(rows[1] - rows[0], (columns[1] - columns[0]).abs())
    return Graph(edge_index, affinity, distance, (len(truth), width))


def joined(pairs: Tensor, number: int) -> Tensor:
    """The connected component of each of `number` nodes, int64."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(pairs.shape[1], np.int8), tuple(pairs.numpy())), shape=(number, number))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).to(torch.int64)


def cut(found: Agglomeration, threshold: float) -> Tensor:
    """The clusters that merging would have ended with at a higher threshold than it did."""
    number, merges = len(found.assignment), len(found.height)
    kept = (found.height >= threshold).nonzero().view(-1)
    made = (kept + number).expand(2, -1)
    pairs = torch.stack([found.children[kept].T.reshape(-1), made.reshape(-1)])
    return joined(pairs, number + merges)[:number]


Options = Iterator[tuple[str, Callable[[], Tensor]]]


def merge_options(linkage: str, at: Graph) -> Options:
    """A threshold on edges up to some distance (the thresholds need one tree between them), or stages."""

    @cache
    def tree(reach: int) -> Agglomeration:
        near = at.upto(reach)
        return agglomerate(near.edge_index, near.affinity, at.number, min(THRESHOLDS), linkage)

    def at_threshold(reach: int, threshold: float) -> Tensor:
        return cut(tree(reach), threshold)

    def in_stages(thresholds: Sequence[float]) -> Tensor:
        stage = (at.distance > 4).long() + (at.distance > 16).long()
        return agglomerate(at.edge_index, at.affinity, at.number, thresholds, linkage, stage=stage).assignment

    for reach, threshold in product((64, 4), THRESHOLDS):
        yield f"threshold {threshold}, distance up to {reach}", partial(at_threshold, reach, threshold)
    for thresholds in STAGES:
        yield f"stages {thresholds}", partial(in_stages, thresholds)


def mutex_options(at: Graph) -> Options:
    """Affinity less a threshold on all edges; or attraction at distance 1 and repulsion beyond, as is most common."""

    def signed(reach: int, threshold: float) -> Tensor:
        near = at.upto(reach)
        return agglomerate(near.edge_index, near.affinity - threshold, at.number, 0.0, "mutex", strict=True).assignment

    def by_distance(reach: int) -> Tensor:
        near = at.upto(reach)
        values = torch.where(near.distance == 1, near.affinity, near.affinity - 1)
        return agglomerate(near.edge_index, values, at.number, 0.0, "mutex", strict=True).assignment

    for reach, threshold in product((64, 4), THRESHOLDS):
        yield f"threshold {threshold}, distance up to {reach}", partial(signed, reach, threshold)
    for reach in (64, 4):
        yield f"by distance up to {reach}", partial(by_distance, reach)


def component_options(at: Graph) -> Options:
    """Of the edges of at least a threshold, up to some distance."""

    def strong(reach: int, threshold: float) -> Tensor:
        near = at.upto(reach)
        return joined(near.edge_index[:, near.affinity >= threshold], at.number)

    for reach, threshold in product((64, 4, 1), THRESHOLDS):
        yield f"threshold {threshold}, distance up to {reach}", partial(strong, reach, threshold)


METHODS: dict[str, Callable[[Graph], Options]] = {
    "plain": partial(merge_options, "plain"),
    "counted": partial(merge_options, "counted"),
    "mutex watershed": mutex_options,
    "connected components": component_options,
}


@dataclass(frozen=True)
class Found:
    """Clusters [H, W], the instances among them from 1, and the confidence of each."""

    clusters: Tensor
    instances: Tensor
    scores: Tensor


def as_instances(clusters: Tensor, at: Graph) -> Found:
    count = int(clusters.max()) + 1
    kept = torch.bincount(clusters, minlength=count) > MINIMUM
    here, there = clusters[at.edge_index]
    inside = here == there
    owner = here[inside]
    total = torch.bincount(owner, at.affinity[inside].double(), minlength=count)
    score = total / torch.bincount(owner, minlength=count).clamp(min=1)
    number = kept.long().cumsum(0) * kept
    return Found(clusters.view(at.shape), number[clusters].view(at.shape), score[kept])


def judge(found: Sequence[Found], truth: Sequence[Tensor]) -> tuple[float, float]:
    """AP of all images together, and the mean of their adapted Rand errors."""
    overlaps = instance_overlaps([f.instances for f in found], list(truth), scores=[f.scores for f in found])
    error = adapted_rand_error([f.clusters for f in found], list(truth)).error
    return float(average_precision(overlaps, min_area=MINIMUM + 1).ap), float(error.nanmean())


def segment(
    truth: Tensor, chosen: Set, level: float, seed: Sequence[int], wanted: dict[str, str] | None
) -> dict[tuple[str, str], Found]:
    """By method and option; `wanted` holds the one option of each method, otherwise all are tried."""
    at = as_graph(truth, chosen, level, seed)
    return {
        (method, option): as_instances(call(), at)
        for method, options in METHODS.items()
        for option, call in options(at)
        if wanted is None or wanted[method] == option
    }


def trial(
    images: Sequence[Tensor],
    chosen: Set,
    level: float,
    seed: int,
    wanted: dict[str, str] | None,
    pool: ThreadPoolExecutor,
) -> dict[tuple[str, str], tuple[float, float]]:
    """AP and adapted Rand error by method and option, under one draw of the noise."""

    def one(index: int) -> dict[tuple[str, str], Found]:
        generator = [seed, index, int(10 * level), int(wanted is None)]
        return segment(images[index], chosen, level, generator, wanted)

    found = list(pool.map(one, range(len(images))))
    return {key: judge([of_image[key] for of_image in found], images) for key in found[0]}


def curve(chosen: Set, options: argparse.Namespace, pool: ThreadPoolExecutor) -> list[dict[str, Any]]:
    """A line for each level and method."""
    train, val = (
        [torch.from_numpy(image) for image in chosen.read(options.data, split, number)]
        for split, number in (("train", options.train), ("val", options.images))
    )
    lines = []
    for level in options.levels:
        begin = time.perf_counter()
        tried = trial(train, chosen, level, 0, None, pool)
        merit = {key: ap - error for key, (ap, error) in tried.items()}
        best = {method: max((key for key in merit if key[0] == method), key=merit.__getitem__) for method in METHODS}
        seeds = range(options.seeds if level > 0 else 1)
        judged = [trial(val, chosen, level, seed, dict(best.values()), pool) for seed in seeds]
        for method, key in best.items():
            line = {"set": chosen.name, "level": level, "method": method, "option": key[1]}
            line |= {"images": len(val), "seeds": len(judged)}
            for place, measure in enumerate(("AP", "adapted Rand error")):
                values = [one[key][place] for one in judged]
                std = statistics.stdev(values) if len(values) > 1 else 0.0
                line[measure] = {"mean": float(f"{statistics.fmean(values):.5g}"), "std": float(f"{std:.3g}")}
            lines.append(line)
            show(line)
        print(f"  ({time.perf_counter() - begin:.0f} s)", flush=True)
    return lines


def show(line: dict[str, Any]) -> None:
    figures = "".join(
        f"  {measure} {line[measure]['mean']:.4f} +- {line[measure]['std']:.4f}"
        for measure in ("AP", "adapted Rand error")
    )
    print(f"{line['set']:<12} {line['level']:4.1f}  {line['method']:<22}{figures}  ({line['option']})", flush=True)


def recovered(chosen: Set, options: argparse.Namespace) -> dict[str, Any]:
    """What the exact affinities give back: instances as far as the offsets reach, one in pieces included."""
    line: dict[str, Any] = {"set": chosen.name, "images": 0, "instances": 0, "in pieces": 0, "beyond reach": 0}
    same = dict.fromkeys(METHODS, 0)
    for image in chosen.read(options.data, "val", options.images):
        truth = torch.from_numpy(image)
        at = as_graph(truth, chosen, 0.0, 0)
        wanted = joined(at.edge_index[:, at.affinity == 1], at.number)
        beside = joined(at.edge_index[:, (at.affinity == 1) & adjacent(at)], at.number)
        for truth_id in truth.unique().tolist():
            if truth_id == chosen.background:
                continue
            inside = (truth == truth_id).view(-1)
            line["instances"] += 1
            line["in pieces"] += len(beside[inside].unique()) > 1
            line["beyond reach"] += len(wanted[inside].unique()) > 1
        line["images"] += 1
        for method, listed in METHODS.items():
            found = next(call() for option, call in listed(at) if option == "threshold 0.5, distance up to 64")
            same[method] += is_same(found, wanted)
    return line | {"images given back exactly": same}


def adjacent(at: Graph) -> Tensor:
    """Edges between 4-connected neighbours."""
    step = at.edge_index[1] - at.edge_index[0]
    return (at.distance == 1) & ((step == 1) | (step == at.shape[1]))


def is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two partitions are the same."""
    pairs = torch.stack([one, other], 1).unique(dim=0)
    return len(pairs) == len(one.unique()) == len(other.unique())


def draw(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """AP above adapted Rand error, a column for each set, a line for each method with a band of one std."""
    from matplotlib import pyplot as plt

    from graphseg.plot import PALETTE

    names = list(dict.fromkeys(line["set"] for line in lines))
    figure, axes = plt.subplots(2, len(names), figsize=(3.4 * len(names), 6), layout="constrained", squeeze=False)
    for column, name in enumerate(names):
        for color, method in zip(PALETTE, METHODS, strict=False):
            points = [line for line in lines if line["set"] == name and line["method"] == method]
            levels = [point["level"] for point in points]
            for ax, measure in zip(axes[:, column], ("AP", "adapted Rand error"), strict=True):
                mean, std = (np.array([point[measure][key] for point in points]) for key in ("mean", "std"))
                ax.plot(levels, mean, color=color, marker="o", ms=3, label=method)
                ax.fill_between(levels, mean - std, mean + std, color=color, alpha=0.2, lw=0)
                ax.set(ylim=(-0.02, 1.02), xlabel="noise of the logits", ylabel=measure)
                ax.grid(alpha=0.3)
        axes[0, column].set_title(name, fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as full:  # a palette takes a third of the bytes
        small = full.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE)
    small.save(path, optimize=True)


def options_from(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file, and a figure beside it")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the sets")
    parser.add_argument("--images", type=int, default=12, help="validation images of each set (default 12)")
    parser.add_argument("--train", type=int, default=4, help="training images of each set (default 4)")
    parser.add_argument("--seeds", type=int, default=3, help="of the noise (default 3)")
    parser.add_argument("--quick", action="store_true", help="two images, three levels, two seeds: does it all run?")
    options = parser.parse_args(argv)
    options.levels = LEVELS
    if options.quick:
        options.images, options.train, options.seeds, options.levels = 2, 1, 2, LEVELS[::3]
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = options_from(argv)
    lines: list[dict[str, Any]] = []
    exact = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the pool has its own
    with ThreadPoolExecutor(threads) as pool:
        for chosen in SETS:
            if not (options.data / chosen.name).is_dir():
                print(f"{chosen.name}: not found, left out")
                continue
            exact.append(recovered(chosen, options))
            print(exact[-1], flush=True)
            lines += curve(chosen, options, pool)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        parts = {"environment": [environment()], "recovered": exact, "rows": lines}
        text = ",\n".join(
            f"{json.dumps(key)}: [\n " + ",\n ".join(map(json.dumps, value)) + "\n]" for key, value in parts.items()
        )
        options.out.write_text("{\n" + text + "\n}\n")
        if lines:
            draw(options.out.with_suffix(".png"), lines)
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
