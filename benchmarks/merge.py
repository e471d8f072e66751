"""Merging affinity graphs of pixels, against bioimage-cpp, higra, mwatershed, waterz and scikit-image.

    python -m benchmarks.merge [--data DIR] [--peers PYTHON] [--out FILE] [--repeats N] [--largest SIZE] [--quick]

Images of 32 to 1024 pixels a side, each pixel joined to its neighbours at distances 1, 2, 4 (12 edges a pixel) or 1 to
64 (28 edges a pixel), or its 4 neighbours, for waterz. Affinities are made up: of warped Voronoi cells, or the ground
truth of a nuclei image or a photograph, blurred, with noise (`benchmarks.affinity_noise`), float32; up to 2^23 edges no
two are equal. Average linkage (our `counted`) merges while an affinity is at least 0.5. Mutex watershed: the edges at
distance 1 attract, all others repel.

Partitions are compared first: a row's "apart" is the adapted Rand error against ours, which stays 0 but for ties: the
means of few saturated affinities still tie, of more than `MOST_DISTINCT` edges many affinities do, and each library
settles that its own way. Contenders take turns; those in
parentheses are yardsticks that compute something else. One that needs more than `SLOW` seconds is timed in the call
that is compared; one that would need more than `--limit` (judged by the size before) is left out. Times are medians.

Peak memory is that of one call beyond what the process holds before it (edges and affinities), its result included: the
kernel's high-water mark of the resident set, in a process of its own that has made a small call before (Linux only).
That of mwatershed and waterz includes the maps in the form that they take.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from benchmarks import merge_peers as peers
from benchmarks.affinity_noise import SETS, noisy_affinities
from benchmarks.common import OURS, Row, save, synchronize
from benchmarks.merge_peers import AVERAGE, GIVEN, MUTEX, Edges, Peers, timed
from benchmarks.superpixels import extend
from graphseg.metrics.instance import adapted_rand_error
from graphseg.nn.affinity import affinity_edges
from graphseg.ops import _merge_rounds, affinity_offsets, agglomerate

SIZES = (32, 64, 128, 256, 512, 1024)
NEAR, ALL = (1, 2, 4), (1, 2, 4, 8, 16, 32, 64)
THRESHOLD = 0.5
NOISE = 3.0  # of the logits, which are 4 and -4 without
SLOW = 10.0  # seconds
BUDGET = 15.0  # seconds for a contender in a race
MOST_DISTINCT = 2**23  # edges; of more, affinities in float32 are not all different, and several answers are right
APART = 5e-3  # adapted Rand error between partitions that should be the same but for ties
WHOLE = f"{OURS}, whole tree"
MEMORY = 12.0  # GB that a call may take
MOST_BYTES = 60.0  # an edge
SMALL = 100_000  # edges under which memory is not measured: what libraries hold anyhow would count


@dataclass(frozen=True)
class Work:
    """A graph to merge: whose instances, the size of the image, distances (0: 4-connected)."""

    instances: str
    size: int
    distances: tuple[int, ...]
    rule: str
    data: Path

    @property
    def reach(self) -> str:
        return "4-connected" if self.distances == (0,) else f"distances {self.distances[0]} to {self.distances[-1]}"

    def offsets(self) -> list[tuple[int, int]]:
        """Each pair once; those that leave the image are left out, since mwatershed fails on them."""
        if self.distances == (0,):
            return [(0, 1), (1, 0)]
        reach = self.size or max(self.distances) + 1
        return [o for o in affinity_offsets(d for d in self.distances if d < reach) if o > (0, 0)]


@dataclass(frozen=True)
class Problem:
    """The same affinities as maps [K, H, W] and as edges."""

    work: Work
    maps: np.ndarray
    edges: Edges

    @property
    def title(self) -> str:
        _, height, width = self.maps.shape
        count = len(self.edges.affinity) / 1e6
        return f"{self.work.instances}, {height} x {width}, {self.work.reach} ({count:.2f} M edges), {self.work.rule}"


def voronoi(size: int, generator: np.random.Generator) -> np.ndarray:
    """Cells about 30 pixels wide whose borders are warped."""
    from scipy.ndimage import gaussian_filter
    from scipy.spatial import cKDTree

    def wave() -> np.ndarray:
        smooth = gaussian_filter(generator.standard_normal((size, size)), 8)
        return 8 * smooth / smooth.std()

    points = generator.random((max(2, size * size // 900), 2)) * size
    rows, columns = np.mgrid[:size, :size]
    places = np.stack([rows + wave(), columns + wave()], 2).reshape(-1, 2)
    cells: np.ndarray = cKDTree(points).query(places)[1].reshape(size, size)
    return cells


def distinct(maps: np.ndarray) -> np.ndarray:
    """Rounded to multiples of 2^-24 of which none occurs twice, where there are enough of them."""
    values = np.rint(maps.ravel().astype(np.float64) * 2**24).astype(np.int64)
    if values.size > MOST_DISTINCT:
        return maps
    order = np.argsort(values, kind="stable")
    steps = np.arange(values.size)
    rising = np.maximum.accumulate(values[order] - steps) + steps
    room = 2**24 - 1 - steps[::-1]  # for those that come after
    values[order] = np.minimum(rising, room)
    return (values * 2.0**-24).astype(np.float32).reshape(maps.shape)


@cache
def problem(work: Work) -> Problem:
    generator = np.random.default_rng(0)
    if work.instances == "made-up":
        instances, background = voronoi(work.size, generator), None
    else:
        chosen = next(replace(chosen, step=1, most=1 << 30) for chosen in SETS if chosen.name == work.instances)
        instances, background = chosen.read(work.data, "val", 1)[0], chosen.background
    offsets = work.offsets()
    maps = noisy_affinities(instances, offsets, NOISE, generator, background, blur=1.0)
    maps = distinct(maps)
    if work.rule == MUTEX:
        near = np.array([max(abs(dy), abs(dx)) <= 1 for dy, dx in offsets])
        maps[~near] -= 1  # these repel, by 1 - affinity
    edge_index, affinity = affinity_edges(torch.from_numpy(maps)[None], offsets)
    threshold = 0.0 if work.rule == MUTEX else THRESHOLD
    edges = Edges(edge_index.numpy(), affinity.numpy(), instances.size, threshold)
    return Problem(work, maps, edges)


def merged(given: Edges, linkage: str, threshold: float, engine: str) -> np.ndarray:
    edge_index, affinity = torch.from_numpy(given.edge_index), torch.from_numpy(given.affinity)
    return agglomerate(edge_index, affinity, given.number, threshold, linkage, engine=engine).assignment.numpy()


def from_edges(call: Callable[[Edges], Any], at: Problem) -> tuple[Any, float]:
    return timed(call, at.edges)


def ours(linkage: str, at: Problem, engine: str = "sequential", threshold: float | None = None) -> tuple[Any, float]:
    return timed(merged, at.edges, linkage, at.edges.threshold if threshold is None else threshold, engine)


def ours_from_maps(at: Problem) -> tuple[Any, float]:
    """The graph is made in the same call."""

    def both() -> np.ndarray:
        edge_index, affinity = affinity_edges(torch.from_numpy(at.maps)[None], at.work.offsets())
        linkage = "mutex" if at.work.rule == MUTEX else "counted"
        found = agglomerate(edge_index, affinity, at.edges.number, at.edges.threshold, linkage, engine="sequential")
        return found.assignment.numpy()

    return timed(both)


def ours_on_gpu(at: Problem) -> tuple[Any, float]:
    """From edges on the GPU to clusters on the GPU."""
    edge_index, affinity = torch.from_numpy(at.edges.edge_index).cuda(), torch.from_numpy(at.edges.affinity).cuda()
    synchronize()
    begin = time.perf_counter()
    found = agglomerate(edge_index, affinity, at.edges.number, at.edges.threshold, "counted", engine="rounds")
    synchronize()
    spent = (time.perf_counter() - begin) * 1e3
    return found.assignment.cpu().numpy(), spent


def higra(at: Problem) -> tuple[Any, float]:
    found, spent = timed(peers.higra_tree, at.edges)
    return peers.higra_cut(found, at.edges), spent


def grid_mutex(at: Problem) -> tuple[Any, float]:
    from bioimage_cpp.segmentation import mutex_watershed

    offsets = at.work.offsets()
    near = sum(max(abs(dy), abs(dx)) <= 1 for dy, dx in offsets)
    strength = np.abs(at.maps)
    labels, spent = timed(mutex_watershed, strength, offsets, near)
    return labels.ravel(), spent


@dataclass(frozen=True)
class Contender:
    """How to merge, and which partitions should be the same; beyond `most` edges it is left out."""

    name: str
    merge: Callable[[Problem], tuple[Any, float]]
    same: str = "counted"
    most: float = float("inf")
    outside: bool = False


def contenders(work: Work, outside: Peers) -> list[Contender]:
    """All that can do it; ours first."""
    if work.rule == MUTEX:
        found = [
            Contender(OURS, partial(ours, "mutex")),
            Contender(f"{OURS}, from maps", ours_from_maps),
            Contender("bioimage-cpp mutex watershed", partial(from_edges, peers.bioimage_mutex)),
            Contender("bioimage-cpp mutex watershed, grid", grid_mutex),
        ]
        return [*found, *of_outside("mwatershed", outside)]
    found = [
        Contender(OURS, partial(ours, "counted")),
        Contender(f"{OURS}, from maps", ours_from_maps),
        Contender(WHOLE, partial(ours, "counted", threshold=0.0), same="whole tree", most=1.5e7),
        Contender(f"{OURS}, plain", partial(ours, "plain"), same="plain"),
        Contender(f"{OURS}, max", partial(ours, "max"), same="max", most=1.5e7),
        Contender(f"{OURS}, min", partial(ours, "min"), same="min", most=1.5e7),
        Contender(f"{OURS}, rounds", partial(ours, "counted", engine="rounds"), most=4e6),
        Contender(f"{OURS}, plain, rounds", partial(ours, "plain", engine="rounds"), same="plain", most=2.5e5),
        Contender("bioimage-cpp GASP mean", partial(from_edges, peers.gasp)),
        Contender("(bioimage-cpp, its graph alone)", partial(from_edges, peers.bioimage_graph_alone), same=""),
        Contender("higra average linkage", higra),
        Contender("scikit-image merge_hierarchical", partial(from_edges, peers.skimage_merge), most=1e5),
        Contender("(scipy connected components)", partial(from_edges, peers.components), same="max"),
    ]
    if torch.cuda.is_available():
        found.append(Contender(f"{OURS}, rounds, GPU", ours_on_gpu))
    return [*found, *(of_outside("waterz", outside) if work.distances == (0,) else [])]


def of_outside(name: str, outside: Peers) -> list[Contender]:
    def merge(at: Problem) -> tuple[Any, float]:
        offsets = [list(offset) for offset in at.work.offsets()]
        return outside.merge(name, at.maps, offsets, at.edges.threshold)

    return [Contender(name, merge, outside=True)]


@dataclass(frozen=True)
class Measured(Row):
    """A row with its work's parts; peak bytes an edge; clusters; adapted Rand error against ours; rounds taken."""

    instances: str = ""
    size: int = 0
    reach: str = ""
    rule: str = ""
    edges: int = 0
    bytes: float | None = None
    clusters: int | None = None
    apart: float | None = None
    rounds: int | None = None


def peak_here(work: Work, name: str) -> int:
    """Bytes that a call takes beyond what there is before it, in this process."""
    peers.give_back()
    small = problem(replace(work, instances="made-up", size=SIZES[0]))
    given = problem(work)
    merge = next(c.merge for c in contenders(work, Peers(None)) if c.name == name)
    merge(small)  # to have threads and kernels
    return peers.peak(merge, given)


def peak(contender: Contender, at: Problem, outside: Peers) -> int | None:
    """The same in a process of its own; None where the kernel keeps no such books."""
    if not peers.books() or "GPU" in contender.name:
        return None
    if contender.outside:
        offsets = [list(offset) for offset in at.work.offsets()]
        return outside.peak(contender.name, at.maps, offsets, at.edges.threshold)
    # Its processes are forked from one that has imported everything and run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.affinity_noise", "benchmarks.superpixels", "numba", "scipy.spatial"])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(peak_here, at.work, contender.name).result()


def apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """Adapted Rand error between partitions of all pixels."""
    one, other = (torch.from_numpy(side.reshape(1, -1).astype(np.int64)) for side in (found, wanted))
    return float(adapted_rand_error(one, other, ignore_labels=()).error)


@dataclass(frozen=True)
class Seen:
    """What a contender took at the size before."""

    edges: int
    milliseconds: float
    bytes: float


def left_out(contender: Contender, at: Problem, seen: Seen | None, options: argparse.Namespace) -> str:
    """The reason, or nothing."""
    count = len(at.edges.affinity)
    if count > contender.most:
        return "left out: too slow for this size"
    if seen is None:
        return ""
    seconds, gigabytes = seen.milliseconds / 1e3 * count / seen.edges, seen.bytes * count / 1e9
    if seconds > options.limit:
        return f"left out: {seconds:.0f} s or more expected"
    return f"left out: {gigabytes:.0f} GB expected" if gigabytes > MEMORY else ""


def compare(
    at: Problem, line: Sequence[Contender], outside: Peers, seen: dict[str, Seen], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """One call of each contender, and one more for its memory: the columns of its row that do not change."""
    found: dict[str, dict[str, Any]] = {}
    wanted: dict[str, np.ndarray] = {}
    count = len(at.edges.affinity)
    small = problem(replace(at.work, instances="made-up", size=SIZES[0]))
    for c in line:
        note = outside.found["missing"].get(c.name, "") or left_out(c, at, seen.get(c.name), options)
        found[c.name] = {"note": note}
        if note:
            continue
        c.merge(small)  # compiles
        with mock.patch.object(_merge_rounds, "_first_of_all", wraps=_merge_rounds._first_of_all) as chosen:
            labels, first = c.merge(at)
        mine = found[c.name] = {"first": first, "rounds": chosen.call_count - 1 if chosen.call_count else None}
        if c.same:
            mine["clusters"] = len(np.unique(labels))
            mine["apart"] = apart(labels, wanted.setdefault(c.same, labels))
            assert count > MOST_DISTINCT or mine["apart"] <= APART, (
                f"{at.title}: {c.name} is {mine['apart']:.2g} apart from ours"
            )
        used = peak(c, at, outside) if count >= SMALL else None
        if used is not None:
            mine["bytes"] = used / count
        seen[c.name] = Seen(count, first, mine.get("bytes", 0.0))
    return found


def race(at: Problem, line: Sequence[Contender], repeats: int) -> dict[str, list[float]]:
    """The milliseconds of contenders called in turn."""
    spent: dict[str, list[float]] = {c.name: [] for c in line}
    for turn in range(repeats):
        for c in line:
            if turn < 3 or sum(spent[c.name]) < BUDGET * 1e3:
                time.sleep(0.02)  # the threads of the contender before go on spinning for a while
                spent[c.name].append(c.merge(at)[1])
    return spent


def measure(at: Problem, outside: Peers, seen: dict[str, Seen], options: argparse.Namespace) -> list[Measured]:
    """A row for each contender; `seen` is brought up to date."""
    line = contenders(at.work, outside)
    columns = compare(at, line, outside, seen, options)
    quick = [c for c in line if columns[c.name].get("first", SLOW * 1e3) < SLOW * 1e3]
    spent = race(at, quick, options.repeats)
    parts = {"instances": at.work.instances, "size": at.work.size, "reach": at.work.reach, "rule": at.work.rule}
    rows = []
    for c in line:
        mine = columns[c.name] | parts | {"edges": len(at.edges.affinity)}
        first = mine.pop("first", None)
        if c.name in spent:
            low, median, high = statistics.quantiles(spent[c.name], n=4, method="inclusive")
            rows.append(Measured(at.title, c.name, median, (low, high), **mine))
        else:
            note = mine.pop("note", "one call")
            rows.append(Measured(at.title, c.name, first, note=note, **mine))
    return rows


def show(rows: Sequence[Measured]) -> None:
    """A line for each contender: time, its ratio to ours, memory."""
    mine = next(row.median for row in rows if row.name == OURS)
    print(f"\n{rows[0].work}")
    for row in rows:
        line = f"  {row.name:<36}"
        if row.median is not None:
            ratio = f"({row.median / mine:.2f} x)" if mine else ""
            line += f"{row.median:12.1f} ms {ratio:>10}"
            line += f"{row.bytes:8.0f} B an edge" if row.bytes is not None else ""
            line += f"{row.clusters:10} clusters" if row.clusters is not None else ""
            line += f", {row.apart:.1g} apart" if row.apart else ""
            line += f", {row.rounds} rounds" if row.rounds else ""
        print(f"{line}   {row.note}".rstrip(), flush=True)


def targets(rows: Sequence[Measured]) -> list[dict[str, Any]]:
    """What was to be reached at 512 x 512 with distances 1, 2, 4, and what was."""
    at = [r for r in rows if (r.instances, r.size, r.reach, r.rule) == ("made-up", 512, "distances 1 to 4", AVERAGE)]
    spent = {row.name: row.median for row in at if row.median is not None}
    plain, gasp, on_gpu = f"{OURS}, plain", "bioimage-cpp GASP mean", f"{OURS}, rounds, GPU"
    found: list[tuple[str, float, float]] = []
    for what, one, other, most in (
        ("counted / bioimage-cpp GASP mean, building included", OURS, gasp, 1.0),
        ("plain / counted", plain, OURS, 1.5),
    ):
        if one in spent and other in spent:
            found.append((what, most, spent[one] / spent[other]))
    found += [
        (f"bytes an edge, {r.name}", 60.0, r.bytes) for r in at if r.name in (OURS, plain) and r.bytes is not None
    ]
    if on_gpu in spent:
        found.append(("counted on a GPU, ms", 200.0, spent[on_gpu]))
    return [{"target": what, "at most": most, "got": got, "met": got <= most} for what, most, got in found]


def draw(path: Path, rows: Sequence[Measured]) -> None:
    """Time, memory and rounds against the number of edges, a column for each graph and rule."""
    from matplotlib import pyplot as plt

    from graphseg.plot import PALETTE

    made_up = [row for row in rows if row.instances == "made-up"]
    columns = list(dict.fromkeys((row.reach, row.rule) for row in made_up))
    names = list(dict.fromkeys(row.name for row in made_up))
    styles = {
        name: {"color": PALETTE[i % len(PALETTE)], "ls": ("-", "--", ":")[i // len(PALETTE)], "marker": "o", "ms": 3}
        for i, name in enumerate(names)
    }
    figure, axes = plt.subplots(3, len(columns), figsize=(4 * len(columns), 10), layout="constrained", squeeze=False)
    for column, key in enumerate(columns):
        for name in names:
            points = [row for row in made_up if (row.reach, row.rule, row.name) == (*key, name) and row.median]
            for ax, field, scale in zip(axes[:, column], ("median", "bytes", "rounds"), (1e-3, 1, 1), strict=True):
                drawn = [(row.edges, scale * value) for row in points if (value := getattr(row, field))]
                if drawn:
                    width = 2.4 if name.startswith(OURS) else 1.2
                    ax.plot(*zip(*drawn, strict=True), lw=width, label=name, **styles[name])
        axes[0, column].set_title(f"{key[0]}, {key[1]}", fontsize=10)
        for ax, label in zip(axes[:, column], ("seconds", "peak bytes an edge", "rounds"), strict=True):
            if not ax.lines:
                ax.set_axis_off()
                continue
            ax.set(xscale="log", yscale="log", xlabel="edges", ylabel=label)
            ax.grid(alpha=0.3)
            if label == "peak bytes an edge":
                ax.axhline(MOST_BYTES, color="k", lw=0.8, ls=":")
    handles: dict[str, Any] = {}
    for ax in axes[0]:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as full:  # a palette takes a third of the bytes
        small = full.convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
    small.save(path, optimize=True)


def works(options: argparse.Namespace) -> list[Work]:
    """What is measured: growing sizes of each graph and rule, then real images."""
    sizes = SIZES[:2] if options.quick else [size for size in SIZES if size <= options.largest]
    graphs = ((NEAR, AVERAGE), (ALL, AVERAGE), ((0,), AVERAGE), (NEAR, MUTEX), (ALL, MUTEX))
    made_up = [Work("made-up", size, at, rule, options.data) for at, rule in graphs for size in sizes]
    there = [name for name in ("dsb2018", "bsds500") if (options.data / name).is_dir()]
    reaches = (NEAR,) if options.quick else (NEAR, ALL)
    return [
        *made_up,
        *(Work(name, 0, at, rule, options.data) for name in there for at in reaches for rule in (AVERAGE,)),
    ]


def options_from(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file, and a figure beside it")
    parser.add_argument("--repeats", type=int, default=5, help="calls of each contender (default 5)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of dsb2018 and bsds500")
    parser.add_argument("--peers", help="Python of the environment with mwatershed and waterz")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="pixels a side (default 1024)")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds that a call may take (default 90)")
    parser.add_argument("--quick", action="store_true", help="small images, three repeats: does it all run?")
    options = parser.parse_args(argv)
    if options.quick:
        options.repeats = 3
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = options_from(argv)
    rows: list[Measured] = []
    seen: dict[tuple[str, ...], dict[str, Seen]] = {}
    with closing(Peers(options.peers)) as outside:
        for work in works(options):
            at = problem(work)
            found = measure(at, outside, seen.setdefault((work.reach, work.rule), {}), options)
            problem.cache_clear()
            show(found)
            rows += found
        about = outside.found
    for line in targets(rows):
        print(f"{line['target']}: {line['got']:.2f}, at most {line['at most']:g}: {'met' if line['met'] else 'MISSED'}")
    if options.out is not None:
        save(options.out, rows)
        extend(options.out, {"given": GIVEN, "targets": targets(rows), "peers": about})
        draw(options.out.with_suffix(".png"), rows)
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
