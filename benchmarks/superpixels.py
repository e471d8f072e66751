"""Superpixels against fast-slic, scikit-image and OpenCV: time, count and quality on real images with ground truth.

    python -m benchmarks.superpixels [--data DIR] [--peers PYTHON] [--images N] [--out FILE] [--borders DIR] [--quick]

The sets are BSDS500's validation images (a measure of an image is its mean over the annotators) and every fifth of
CamVid's (class maps, void ignored). Times are taken one image at a time, contenders in turn, from the array [H, W, 3]
of RGB uint8 to the labels, colour conversion included; quality is measured apart from them, on every image.

At equal counts: on each image our curve (a measure against the log of the count got) is read at the count that the peer
got there, and the differences are averaged. What peers return is taken as it is: their counts are numbers of labels,
and a region in several 4-connected pieces (the column "pieces" counts these) counts once, which is in their favour.
fast-slic and OpenCV run in an environment of their own; `benchmarks.superpixel_peers` says how to make it.

Time it on a quiet machine: beside other work fast-slic's threads, which wait for each other, get a hundredfold slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import OURS, Row, finish, synchronize
from benchmarks.superpixel_peers import GIVEN, SEARCHED, Contender, Peers, line_up, search, timed
from graphseg.metrics import superpixel as metrics
from graphseg.ops import slic

EXACT = f"{OURS}, exact"
COUNTS = (100, 200, 400, 800)
BEYOND = (50, 1600)  # asked of ours alone, so that its curve reaches past the counts of all peers
MEASURES = ("ASA", "BR", "BP", "UE (NP)", "UE (Levin)", "EV", "compactness")
Files = tuple[Path, list[Path]]  # an image and its label maps
Record = dict[str, float]
Records = dict[tuple[str, int], list[Record]]


@dataclass(frozen=True)
class Set:
    """Images of one folder: split to look at, every how many images, those to time, the label of no class."""

    name: str
    every: int
    timed: int
    ignore_index: int | None

    def files(self, root: Path, split: str, number: int | None = None) -> list[Files]:
        """Image and label maps of `number` images, evenly spread; default: all (of training images too)."""
        lines = [line.split() for line in (root / self.name / "splits.txt").read_text().splitlines()]
        found = [line[1:] for line in lines if line[0] == split][:: self.every]
        chosen = np.linspace(0, len(found) - 1, min(number or len(found), len(found))).round().astype(int)
        at = root / self.name
        return [(at / found[i][0], [at / name for name in found[i][1].split(";")]) for i in chosen]


SETS = (Set("bsds500", every=1, timed=10, ignore_index=None), Set("camvid", every=5, timed=4, ignore_index=11))


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def as_tensor(image: np.ndarray) -> Tensor:
    """[1, 3, H, W], a view: what laying it out anew costs is part of our time."""
    return torch.from_numpy(image).movedim(-1, 0)[None]


def ours(image: np.ndarray, count: int, exact: bool = False) -> tuple[np.ndarray, float]:
    labels, spent = timed(partial(slic, exact=exact), as_tensor(image), count)
    return labels[0].numpy(), spent


def ours_batched(images: Tensor, image: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Cuts `images` in place of `image`; the labels are those of the first, the time is per image."""
    synchronize()
    begin = time.perf_counter()
    labels = slic(images, count)
    synchronize()
    spent = (time.perf_counter() - begin) * 1e3 / len(images)
    return labels[0].cpu().numpy(), spent


OWN = [Contender(OURS, ours), Contender(EXACT, partial(ours, exact=True))]


def check(name: str, labels: np.ndarray, image: np.ndarray, count: int) -> dict[str, float]:
    """Number of labels and of 4-connected pieces; AssertionError where labels do not cover the image.

    Ours must also be connected, consecutive from 0, and as many as asked where exact.
    """
    from skimage.measure import label

    assert labels.shape == image.shape[:2] and labels.min() >= 0, f"{name}: pixels without label"
    number = len(np.unique(labels))
    pieces = int(label(labels + 1, background=0, connectivity=1, return_num=True)[1])
    if name.startswith(OURS):
        assert pieces == number == labels.max() + 1, f"{name}, {count} asked: {number} labels in {pieces} pieces"
    assert name != EXACT or number == count, f"{name}, {count} asked: {number} labels"
    return {"count": float(number), "pieces": float(pieces), "count error": abs(number - count) / count}


def clock(
    work: str, contenders: Sequence[Contender], images: Sequence[np.ndarray], count: int, repeats: int
) -> list[Row]:
    """Contenders in turn, after one checked call of each: the median and quartiles over images of their medians.

    Of one image alone they are those of its calls. The slow ones get two calls: one on each of the first two images.
    """
    spent: dict[str, list[list[float]]] = {c.name: [] for c in contenders}
    for index, image in enumerate(images):
        running = [(c.name, c.cut, c.slow) for c in contenders if c.cut is not None and not (c.slow and index > 1)]
        for name, cut, _ in running:
            spent[name].append([])
            if index == 0:
                check(name, cut(image, count)[0], image, count)
        for turn in range(repeats):
            for name, cut, slow in running:
                if not slow or turn < 2 // len(images[:2]):
                    time.sleep(0.02)  # the threads of the contender before go on spinning for a while
                    spent[name][-1].append(cut(image, count)[1])
    rows = []
    for c in contenders:
        if c.cut is None:
            rows.append(Row(work, c.name, note=c.note))
            continue
        times = spent[c.name][0] if len(images) == 1 else [statistics.median(calls) for calls in spent[c.name]]
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        rows.append(
            Row(work, c.name, median, (low, high), f"of {len(times)} {'calls' if len(images) == 1 else 'images'}")
        )
    return rows


def headline(contenders: Sequence[Contender], repeats: int, batch: int = 16) -> list[Row]:
    """The astronaut, and ours on a batch of it shifted, on a GPU too where there is one."""
    from skimage.data import astronaut

    image = astronaut()
    images = torch.stack([as_tensor(image)[0].roll(shift, 2) for shift in range(0, 512, 512 // batch)])
    more = [Contender(f"{OURS}, batch of {batch}", partial(ours_batched, images))]
    if torch.cuda.is_available():
        on_gpu = images.cuda()
        more += [Contender(f"{OURS}, GPU, batch of {n}", partial(ours_batched, on_gpu[:n])) for n in (1, batch)]
    return clock("astronaut, 512 x 512, 200 asked, per image", [*contenders, *more], [image], 200, repeats)


def measure(labels: Tensor, image: np.ndarray, targets: Tensor, ignore_index: int | None) -> dict[str, float]:
    """`MEASURES` of labels [H, W]; those beside ground truth [A, H, W] are means over the annotators."""
    each = labels.expand_as(targets)
    beside = (
        metrics.achievable_segmentation_accuracy(each, targets, ignore_index=ignore_index),
        metrics.boundary_recall(each, targets, ignore_index=ignore_index),
        metrics.boundary_precision(each, targets, ignore_index=ignore_index),
        metrics.undersegmentation_error(each, targets, form="np", ignore_index=ignore_index),
        metrics.undersegmentation_error(each, targets, form="levin", ignore_index=ignore_index),
    )
    alone = metrics.explained_variation(labels, as_tensor(image)[0]), metrics.compactness(labels)
    return dict(zip(MEASURES, [float(value.mean()) for value in (*beside, *alone)], strict=True))


def judge(
    chosen: Set,
    files: Sequence[Files],
    contenders: Sequence[Contender],
    counts: Sequence[int],
    pool: ThreadPoolExecutor,
) -> Records:
    """By contender and count asked: the counts and measures of each image."""

    def one(index: int) -> list[tuple[tuple[str, int], Record]]:
        image = read(files[index][0])
        targets = torch.from_numpy(np.stack([read(path) for path in files[index][1]]).astype(np.int64))  # [A, H, W]
        found = []
        for c in contenders:
            if c.cut is None or not c.judged or (c.slow and index % 10):
                continue
            for count in (*counts, *BEYOND) if c.name.startswith(OURS) else counts:
                labels, _ = c.cut(image, count)
                counted = check(c.name, labels, image, count)
                measured = measure(torch.from_numpy(labels).to(torch.int64), image, targets, chosen.ignore_index)
                found.append(((c.name, count), {"image": float(index), **counted, **measured}))
        return found

    records: Records = {}
    for found in pool.map(one, range(len(files))):
        for key, record in found:
            records.setdefault(key, []).append(record)
    return records


def mean_and_error(values: Sequence[float]) -> list[float | None]:
    """Mean and its standard error (None where there is no telling)."""
    mean = statistics.fmean(values) if values else None
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return [None if value is None else float(f"{value:.5g}") for value in (mean, error)]


def summarise(chosen: Set, records: Records) -> list[dict[str, Any]]:
    """Means over images with their standard errors, a line for each contender and count asked."""
    names = list(dict.fromkeys(name for name, _ in records))
    return [
        {"set": chosen.name, "name": name, "asked": asked, "images": len(found)}
        | {key: mean_and_error([record[key] for record in found]) for key in found[0] if key != "image"}
        for (name, asked), found in sorted(records.items(), key=lambda item: (names.index(item[0][0]), item[0][1]))
    ]


def differences(chosen: Set, records: Records) -> list[dict[str, Any]]:
    """Ours less each peer's at the peer's count, paired over the images where our curve reaches it."""
    lines = []
    for mine in (OURS, EXACT):
        curve: dict[float, list[Record]] = {}
        for (name, _), found in records.items():
            for record in found if name == mine else ():
                curve.setdefault(record["image"], []).append(record)
        for (name, asked), found in records.items():
            if name.startswith(OURS):
                continue
            apart: dict[str, list[float]] = {key: [] for key in MEASURES}
            for record in found:
                points = sorted(curve[record["image"]], key=lambda point: point["count"])
                at = np.log([point["count"] for point in points])
                if not at[0] <= np.log(record["count"]) <= at[-1]:
                    continue
                for key, values in apart.items():
                    read_off = np.interp(np.log(record["count"]), at, [point[key] for point in points])
                    values.append(float(read_off) - record[key])
            line = {"set": chosen.name, "ours": mine, "name": name, "asked": asked, "images": len(apart["ASA"])}
            lines.append(line | {key: mean_and_error(values) for key, values in apart.items()})
    return lines


def show_quality(lines: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """One table with the means, and the standard errors beside them."""

    def cell(mean: float | None, error: float | None) -> str:
        return "".join(
            f"{sign}{value:.1f}" if max(abs(value), abs(mean or 0)) >= 10 else f"{sign}{value:.4f}"
            for sign, value in (("", mean), (" +-", error))
            if value is not None
        )

    print(f"  {'':<18}{'asked':>6}{'images':>7}" + "".join(f"{column:>19}" for column in columns))
    for line in lines:
        cells = "".join(f"{cell(*line[column]):>19}" for column in columns)
        print(f"  {line['name']:<18}{line['asked']:>6}{line['images']:>7}{cells}")


def draw(path: Path, lines: Sequence[dict[str, Any]], rows: Mapping[int, Sequence[Row]]) -> None:
    """A panel per measure against the count got, a line per contender; `rows` are the times, by count asked."""
    from matplotlib import pyplot as plt

    from graphseg.plot import PALETTE

    times = {(row.name, asked): row.median for asked, group in rows.items() for row in group}
    figure, axes = plt.subplots(3, 3, figsize=(12, 9), layout="constrained")
    for ax, key in zip(axes.flat, [*MEASURES, "got / asked", "ms per image"], strict=True):
        for color, name in zip(PALETTE, dict.fromkeys(line["name"] for line in lines), strict=False):
            points = [line for line in lines if line["name"] == name and line["asked"] in rows]
            got = [point["count"][0] for point in points]
            if key == "ms per image":
                values = [times[name, point["asked"]] for point in points]
            elif key == "got / asked":
                values = [point["count"][0] / point["asked"] for point in points]
            else:
                values = [point[key][0] for point in points]
            dash = ":" if name == "grid" else "--" if name == EXACT else "-"
            width = 2.4 if name.startswith(OURS) else 1.2
            marker = "^" if name in SEARCHED else "o"
            ax.plot(got, values, dash, marker=marker, ms=4, lw=width, color=color, label=name)
        ax.set(title=key, xscale="log", yscale="log" if key == "ms per image" else "linear", xlim=(45, 1800))
        ax.set_xticks(COUNTS, [str(count) for count in COUNTS])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    for ax in axes[-1]:
        ax.set_xlabel("superpixels got")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as drawn:  # a palette takes a third of the bytes
        small = drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    small.save(path, optimize=True)


def draw_borders(folder: Path, files: Sequence[Files], contenders: Sequence[Contender], count: int = 200) -> None:
    """Eight images, each with the borders that ours, fast-slic and scikit-image find."""
    from matplotlib import pyplot as plt

    from graphseg.data import ImageGraph
    from graphseg.plot import plot_borders

    folder.mkdir(parents=True, exist_ok=True)
    shown = [(c.name, c.cut) for c in contenders if c.name in (OURS, "fast-slic", "scikit-image SLIC") and c.cut]
    for path, _ in files[:: max(1, len(files) // 8)][:8]:
        image = read(path)
        height, width, _ = image.shape
        figure, axes = plt.subplots(1, len(shown), figsize=(width / 80 * len(shown), height / 80), layout="constrained")
        for ax, (name, cut) in zip(axes, shown, strict=True):
            labels = torch.from_numpy(cut(image, count)[0]).to(torch.int64).flatten()
            number, size = len(labels.unique()), torch.tensor([[height, width]])
            graph = ImageGraph(assignment=labels, image_size=size, num_nodes=int(labels.max()) + 1)
            plot_borders(graph, as_tensor(image)[0], ax).set_title(f"{name}: {number} of {count}")
        figure.savefig(folder / f"{path.stem}.png", dpi=120)
        plt.close(figure)


def extend(path: Path, more: Mapping[str, Any]) -> None:
    """Adds to the file that `finish` wrote; lists of records one to a line."""
    whole = json.loads(path.read_text()) | more
    parts = []
    for key, value in whole.items():
        if isinstance(value, list):
            parts.append(f"{json.dumps(key)}: [\n " + ",\n ".join(json.dumps(line) for line in value) + "\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, indent=1)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def options_from(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file, and figures beside it")
    parser.add_argument(
        "--repeats", type=int, default=15, help="calls on the astronaut (default 15), a third elsewhere"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of bsds500 and camvid")
    parser.add_argument("--peers", help="Python of the environment with fast-slic and OpenCV")
    parser.add_argument("--images", type=int, help="at most so many of each set (default: all 100 and 21)")
    parser.add_argument("--borders", type=Path, help="draw the borders in eight images into this folder")
    parser.add_argument(
        "--quick", action="store_true", help="two images, 200 superpixels, few repeats: does it all run?"
    )
    options = parser.parse_args(argv)
    if options.quick:
        options.images, options.repeats = 2, 6
    return options


def compete(
    chosen: Set, options: argparse.Namespace, counts: Sequence[int], peers: Peers, pool: ThreadPoolExecutor
) -> tuple[list[Row], dict[str, Any], list[Contender]]:
    """One set: the parameters that fit its training images, times, quality and figures."""
    print(f"{chosen.name} ...", flush=True)
    training = [read(path) for path, _ in chosen.files(options.data, "train", 1 if options.quick else 12)]
    searched = {name: search(name, training, counts, pool.map) for name in SEARCHED}
    contenders = [*OWN, *line_up(peers, searched)]
    files = chosen.files(options.data, "val", options.images)
    images = [read(path) for path, _ in files[:: max(1, len(files) // chosen.timed)][: chosen.timed]]
    rows = {}
    for count in counts:
        work = f"{chosen.name}, {count} asked, per image"
        rows[count] = clock(work, contenders, images, count, max(2, options.repeats // 3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the pool has its own
    records = judge(chosen, files, contenders, counts, pool)
    torch.set_num_threads(threads)
    lines = summarise(chosen, records)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        draw(options.out.with_name(f"{options.out.stem}_{chosen.name}.png"), lines, rows)
    if options.borders is not None and chosen is SETS[0]:
        draw_borders(options.borders, files, contenders)
    found = {"searched": {chosen.name: searched}, "quality": lines, "differences": differences(chosen, records)}
    return [row for group in rows.values() for row in group], found, contenders


def main(argv: Sequence[str] | None = None) -> None:
    options = options_from(argv)
    counts = COUNTS[1:2] if options.quick else COUNTS
    rows: list[Row] = []
    more: dict[str, Any] = {"given": GIVEN, "searched": {}, "quality": [], "differences": []}
    threads = torch.get_num_threads()
    with closing(Peers(options.peers, threads)) as peers, ThreadPoolExecutor(threads) as pool:
        contenders = [*OWN, *line_up(peers, {})]
        for chosen in SETS:
            if not (options.data / chosen.name).is_dir():
                print(f"{chosen.name}: not found, left out")
                continue
            of_set, found, line = compete(chosen, options, counts, peers, pool)
            contenders = contenders if rows else line  # the astronaut takes the parameters of the first set
            rows += of_set
            more["searched"] |= found["searched"]
            for key in ("quality", "differences"):
                more[key] += found[key]
        rows = headline(contenders, options.repeats) + rows
        more["peers"] = peers.found
    finish(rows, options)
    for name in more["searched"]:
        print(f"\n{name}: means over images, with their standard errors")
        show_quality([line for line in more["quality"] if line["set"] == name], ("count", "pieces", *MEASURES))
        print(f"\n{name}: {OURS} less the peer, at the peer's count, paired over images")
        show_quality([d for d in more["differences"] if d["set"] == name and d["ours"] == OURS], MEASURES)
    if options.out is not None:
        extend(options.out, more)


if __name__ == "__main__":
    main()
