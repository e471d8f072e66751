"""Datasets of graphs: building them, their size, reading them at random; the usual ways beside ours in the same run.

    python -m benchmarks.datasets [--data DIR] [--out FILE] [--repeats N] [--images N] [--quick]

The sets are BSDS500 (with all its annotations) and CamVid (with its classes), their images cut by SLIC into 200
superpixels, the graphs region adjacency graphs with all default features.

Each build is a process of its own, on files that were read before. "start-up" is what a build of two images takes, the
rate is that of the others. Memory is the high-water mark of resident pages, of the process that builds and of the
largest of its workers (Linux). The share outside superpixels is of reading (with hashing), converting and packing, as a
worker does it, on one thread; and of the whole build with one thread.

The usual ways to keep graphs, all with the fields of ours: a file of `torch.save` for each graph; one file for all that
is loaded whole (`InMemoryDataset`); PyG's `OnDiskDataset` as it comes, which pickles every graph. Files are in the
system's cache.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset, OnDiskDataset
from torch_geometric.data.collate import collate
from torch_geometric.loader import DataLoader

from benchmarks.common import OURS, Row, finish, race
from benchmarks.superpixels import extend
from graphseg.datasets import BSDS500, CamVid, ImageGraphDataset, ImageReader
from graphseg.datasets.packing import Layout
from graphseg.ops import slic
from graphseg.transforms import ToSuperpixelRAG
from graphseg.transforms.superpixels import cut

SETS: dict[str, Callable[[Path], ImageReader]] = {"bsds500": BSDS500, "camvid": CamVid}
SEGMENTS = 200
BY_HAND, FILES, LOADED, PICKLED, KEPT = (
    *("scikit-image and PyG by hand", "a file for each graph", "one file, loaded whole"),
    *("PyG's OnDiskDataset, pickled", f"{OURS}, in_memory=True"),
)


def open_set(name: str, root: Path, number: int | None = None) -> ImageReader:
    """A set, or so many of its images, evenly spread."""
    reader = SETS[name](root / name)
    count = min(number or len(reader), len(reader))
    return reader if count == len(reader) else reader.index_select([k * len(reader) // count for k in range(count)])


def converter(reader: ImageReader, superpixels: str = "slic") -> ToSuperpixelRAG:
    return ToSuperpixelRAG(SEGMENTS, superpixels, num_classes=reader.num_classes, ignore_index=reader.ignore_index)


# Building


def build_here(name: str, root: str, number: int, out: str, workers: int) -> None:
    """What a process of `build_apart` does: prints the seconds of one build."""
    reader = open_set(name, Path(root), number)
    transform = converter(reader)
    begin = time.perf_counter()
    dataset = ImageGraphDataset.build(reader, out, transform, workers=workers, progress=False)
    seconds = time.perf_counter() - begin
    assert len(dataset) == number and not dataset.errors, dataset.errors[:3]
    print(json.dumps({"seconds": seconds, "threads": torch.get_num_threads()}))


def build_apart(name: str, root: Path, number: int, out: Path, workers: int, threads: int | None) -> dict[str, float]:
    """One build in a fresh process: its seconds, and the most memory (MB) that it and its workers took."""
    words = f"{name!r}, {str(root)!r}, {number}, {str(out)!r}, {workers}"
    call = f"from benchmarks.datasets import build_here; build_here({words})"
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    with subprocess.Popen([sys.executable, "-c", call], env=environment, stdout=subprocess.PIPE, text=True) as process:
        peaks: dict[int, float] = {}
        while process.poll() is None:
            for pid in family(process.pid):
                peaks[pid] = max(peaks.get(pid, 0.0), high_water(pid))
            time.sleep(0.05)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, f"a build of {name} failed"
    own = peaks.pop(process.pid, 0.0)
    return json.loads(said) | {"memory": own, "memory of a worker": max(peaks.values(), default=0.0)}


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = [
            int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()
        ]
    except OSError:
        children = []
    return [pid, *(other for child in children for other in family(child))]


def high_water(pid: int) -> float:
    """The most resident memory, in MB, that a process has had (Linux)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def builds(name: str, options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """The whole set with one and two workers, and with one thread."""
    n = len(open_set(name, options.data, options.images))
    for sample in open_set(name, options.data).samples:
        for path in sample.files.values():
            path.read_bytes()  # from here on in the cache of the system
    rows, found = [], []
    ways = {"1 worker": (1, None), "1 worker, one thread": (1, 1), "2 workers": (2, None)}
    taken: dict[tuple[str, int], list[dict[str, float]]] = {}
    build_apart(name, options.data, 2, folder / "warm", 1, None)  # kernels are compiled once
    for turn in range(max(options.repeats // 5, 1)):
        for way, (workers, threads) in ways.items():
            for number in (2, n):
                out = folder / f"{way} {number} {turn}"
                taken.setdefault((way, number), []).append(
                    build_apart(name, options.data, number, out, workers, threads)
                )
    for way in ways:
        first, whole = ([run["seconds"] for run in taken[way, number]] for number in (2, n))
        start = statistics.median(first)
        rates = [(n - 2) / (seconds - start) for seconds in whole]
        rows.append(row(f"{name}: building, per image after the first two", way, [1e3 / rate for rate in rates]))
        memory = {
            f"{key} (MB), {number} images": round(max(run[key] for run in taken[way, number]))
            for key in ("memory", "memory of a worker")
            for number in (2, n)
        }
        found.append(
            {"set": name, "way": way, "images": n, "images per second": round(statistics.median(rates), 2)}
            | {"start-up (s)": round(start, 2), "whole (s)": round(statistics.median(whole), 2), "runs": len(whole)}
            | memory
        )
    file = folder / "1 worker 2 0" if n == 2 else folder / f"1 worker {n} 0"
    found[0]["file (MB)"] = round((file / "graphs.sqlite").stat().st_size / 1e6, 2)
    return rows, found


def row(work: str, name: str, times: Sequence[float], note: str = "") -> Row:
    """Median and quartiles of times in milliseconds."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3
    return Row(work, name, median, (low, high), note)


def shares(name: str, superpixels: str, reader: ImageReader, repeats: int) -> tuple[list[Row], dict[str, Any]]:
    """The steps of a conversion beside its superpixels alone, on one thread as in a worker."""
    transform = converter(reader, superpixels)
    alone: Callable[[Tensor], Tensor] = partial(slic, num_segments=SEGMENTS)
    if superpixels != "slic":
        alone = partial(cut, num_segments=SEGMENTS, method=superpixels)
    images = [reader[i].image for i in range(len(reader))]
    assert torch.equal(transform(reader[0]).assignment, alone(images[0]).flatten()), "other superpixels"
    layout = Layout.of(transform(reader[0]))
    steps: dict[str, list[float]] = {"read": [], "convert": [], "pack": [], "superpixels alone": []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(repeats + 1):  # the first is not counted
        spent = dict.fromkeys(steps, 0.0)
        for i, image in enumerate(images):
            times = [time.perf_counter()]
            for path in reader.samples[reader.indices()[i]].files.values():
                hashlib.file_digest(path.open("rb"), "sha256")
            data = reader[i]
            times.append(time.perf_counter())
            graph = transform(data)
            times.append(time.perf_counter())
            layout.pack(graph)
            times.append(time.perf_counter())
            alone(image)
            times.append(time.perf_counter())
            for step, (before, after) in zip(steps, itertools.pairwise(times), strict=True):
                spent[step] += (after - before) * 1e3 / len(images)
        for step, value in spent.items():
            steps[step].append(value)
    torch.set_num_threads(threads)
    steps = {step: values[1:] for step, values in steps.items()}
    work = f"{name}: one image to a row of the file, {superpixels}, one thread"
    whole = [sum(parts) for parts in zip(*(steps[s] for s in ("read", "convert", "pack")), strict=True)]
    outside = [1 - a / w for a, w in zip(steps["superpixels alone"], whole, strict=True)]
    rows = [row(work, step, values) for step, values in (steps | {"read, convert and pack": whole}).items()]
    found = {"set": name, "superpixels": superpixels, "images": len(images)}
    return rows, found | {"share outside superpixels": round(statistics.median(outside), 4)}


def graph_by_hand(image: np.ndarray, labels: np.ndarray) -> Data:
    """What people write: scikit-image's RAG and region properties, the edges one by one."""
    from skimage.graph import rag_mean_color
    from skimage.measure import regionprops_table

    edges = list(rag_mean_color(image, labels, connectivity=1).to_directed().edges(data="weight"))
    table = regionprops_table(labels + 1, image, properties=("area", "centroid", "mean_intensity", "intensity_std"))
    x = torch.tensor(np.stack(list(table.values()), 1), dtype=torch.float32)
    edge_index, weight = torch.tensor([e[:2] for e in edges]).T, torch.tensor([[e[2]] for e in edges])
    return Data(x=x, edge_index=edge_index, edge_attr=weight, assignment=torch.from_numpy(labels))


def by_hand(reader: ImageReader, out: Path) -> None:
    from skimage.io import imread
    from skimage.segmentation import slic as cut_by_skimage

    out.mkdir(parents=True)
    for i in reader.indices():
        image = imread(reader.samples[i].files["image"])
        labels = cut_by_skimage(image, n_segments=SEGMENTS, start_label=0)
        torch.save(graph_by_hand(image, labels), out / f"{i}.pt")


def beside_by_hand(name: str, reader: ImageReader, repeats: int, folder: Path) -> list[Row]:
    data = reader[0]
    ours = converter(reader, "slic_skimage")(data)
    H, W = ours.image_size[0].tolist()
    theirs = graph_by_hand(data.image.movedim(0, -1).numpy(), ours.assignment.view(H, W).numpy())
    assert {tuple(e) for e in ours.edge_index.T.tolist()} == {tuple(e) for e in theirs.edge_index.T.tolist()}
    torch.testing.assert_close(ours.x[:, :3], theirs.x[:, 3:6] / 255, rtol=1e-4, atol=1e-4)

    count = iter(range(10**6))

    def build(superpixels: str) -> None:
        out = folder / f"{name} {next(count)}"
        ImageGraphDataset.build(reader, out, converter(reader, superpixels), progress=False)

    contenders = {
        OURS: lambda: build("slic"),
        f"{OURS}, scikit-image's SLIC": lambda: build("slic_skimage"),
        BY_HAND: lambda: by_hand(reader, folder / f"{name} {next(count)}"),
    }
    work = f"{name}: files to files, {len(reader)} images, one process, per image (by hand: no labels)"
    return race(work, contenders, repeats, len(reader), budget=120)


# Keeping and reading


class Loaded(InMemoryDataset):
    """All graphs of one file, opened without unpickling; `dataset[i]` cuts one out."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        fields, self.slices = torch.load(file, weights_only=True)
        self._data = Data.from_dict(fields)


class Files(torch.utils.data.Dataset[Data]):
    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Data:
        return Data.from_dict(torch.load(self.files[index], weights_only=True))


def keep(dataset: ImageGraphDataset, folder: Path) -> dict[str, Path]:
    """The graphs in the three usual ways; where each lies."""
    dataset.export(folder / "files")
    files = Files(sorted((folder / "files").glob("*.pt")))
    graphs = [files[i] for i in range(len(files))]
    data, slices, _ = collate(Data, graphs, increment=False, add_batch=False)
    torch.save((data.to_dict(), dict(slices)), folder / "all.pt")
    (folder / "pickled" / "processed").mkdir(parents=True)
    pickled = OnDiskDataset(str(folder / "pickled"), log=False)
    pickled.extend(graphs)
    pickled.close()
    return {FILES: folder / "files", LOADED: folder / "all.pt", PICKLED: folder / "pickled" / "processed"}


def size(path: Path) -> int:
    """Bytes of a file, or of the graphs' files in a folder."""
    files = [path] if path.is_file() else [f for f in path.iterdir() if f.suffix in (".pt", ".db", ".sqlite")]
    return sum(f.stat().st_size for f in files)


def check_same(name: str, ours: Data, theirs: Data) -> None:
    """The fields that all keep are the same; `assignment` is called `assignment_index` by the others."""
    mine, other = ours.to_dict(), theirs.to_dict()
    mine["assignment_index"] = mine.pop("assignment")
    assert set(mine) == set(other), f"{name}: {sorted(set(mine) ^ set(other))}"
    for key, value in mine.items():
        assert torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key], f"{name}: {key}"


def reading(name: str, root: Path, options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Bytes, single graphs at random, the first graph, and epochs of a `DataLoader`."""
    dataset = ImageGraphDataset(root)
    n = len(dataset)
    places = {OURS: root} | keep(dataset, folder)
    total = {way: size(path) for way, path in places.items()}
    found = [{"set": name, "way": way, "graphs": n, "bytes per graph": total[way] // n} for way in places]

    kept = ImageGraphDataset(root, in_memory=True)
    files = Files(sorted(places[FILES].glob("*.pt")))
    pickled = OnDiskDataset(str(folder / "pickled"), log=False)
    ways: dict[str, Any] = {OURS: dataset, KEPT: kept, FILES: files, LOADED: Loaded(places[LOADED]), PICKLED: pickled}
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()
    for way in (FILES, LOADED, PICKLED):
        for i in order[:5]:
            check_same(way, dataset[i], ways[way][i])
    for i in range(n):
        kept[i]

    def read(graphs: Any) -> None:
        for i in order:
            graphs[i]

    rows = race(
        f"{name}: one graph of {n} at random",
        {way: partial(read, g) for way, g in ways.items()},
        options.repeats,
        n,
        60,
    )
    first: dict[str, Callable[[], Any]] = {
        OURS: lambda: ImageGraphDataset(root)[order[0]],
        FILES: lambda: Files(sorted(places[FILES].glob("*.pt")))[order[0]],
        LOADED: lambda: Loaded(places[LOADED])[order[0]],
        PICKLED: lambda: OnDiskDataset(str(folder / "pickled"), log=False)[order[0]],
    }
    rows += race(f"{name}: opening, and the first graph of {n}", first, options.repeats, budget=60)

    def epoch(way: str, workers: int) -> None:
        for batch in DataLoader(ways[way], batch_size=8, shuffle=True, num_workers=workers):
            assert batch.num_nodes

    for workers in (0, 2):
        work = f"{name}: an epoch of batches of 8, shuffled, {workers} workers, per graph"
        rows += race(work, {way: partial(epoch, way, workers) for way in ways}, max(options.repeats // 3, 3), n, 60)
    dataset.close()
    pickled.close()
    return rows, found


def show(title: str, lines: Sequence[Mapping[str, Any]]) -> None:
    print(f"\n{title}")
    for line in lines:
        print("  " + ", ".join(f"{key} {value}" for key, value in line.items()))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file")
    parser.add_argument(
        "--repeats", type=int, default=15, help="calls of each contender (default 15; of builds a fifth)"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of bsds500 and camvid")
    parser.add_argument("--images", type=int, help="build at most so many of each set (default: all 400 and 601)")
    parser.add_argument("--graphs", type=int, default=120, help="to keep in every way and to read (default 120)")
    parser.add_argument("--quick", action="store_true", help="six images, few repeats: does it all run?")
    options = parser.parse_args(argv)
    if options.quick:
        options.images, options.graphs, options.repeats = 6, 6, 3
    rows: list[Row] = []
    more: dict[str, list[dict[str, Any]]] = {"builds": [], "shares": [], "bytes": []}
    for name in SETS:
        if not (options.data / name).is_dir():
            print(f"{name}: not found in {options.data}, left out (--data DIR names the folder of the sets)")
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            print(f"{name} ...", flush=True)
            built, lines = builds(name, options, folder / "builds")
            rows += built
            more["builds"] += lines
            alone = next(r.median for r in built if r.name == "1 worker, one thread")
            for superpixels, number in (("slic", options.graphs), ("slic_skimage", 20)):
                part = open_set(name, options.data, min(number, options.graphs))
                found, share = shares(name, superpixels, part, max(options.repeats // 3, 2))
                rows += found
                if superpixels == "slic" and alone is not None and found[3].median is not None:
                    share["of the whole build"] = round(1 - found[3].median / alone, 4)
                more["shares"].append(share)
            part = open_set(name, options.data, min(20, options.graphs))
            rows += beside_by_hand(name, part, max(options.repeats // 3, 3), folder / "by hand")
            part = open_set(name, options.data, options.graphs)
            ImageGraphDataset.build(part, folder / "graphs", converter(part), progress=False)
            found, lines = reading(name, folder / "graphs", options, folder)
            rows += found
            more["bytes"] += lines
    finish(rows, options)
    for title, listed in more.items():
        show(title, listed)
    if options.out is not None:
        extend(options.out, more)


if __name__ == "__main__":
    main()
