"""Layers and losses, forward and backward, against the formula as printed and the obvious composition of torch and PyG.

    python -m benchmarks.layers [--out FILE] [--repeats N] [--quick]

Values and gradients (of inputs and parameters) of all contenders are compared first. Those in parentheses are
yardsticks that compute something else; one that is left out says why; one that takes longer than `SLOW` is timed in the
call whose result is compared. The contenders are in `benchmarks.layer_peers`.

Peak memory is that of one call, forward and backward, beyond what the process holds before it (the inputs, the gradient
of the result). On a CPU it is the kernel's high-water mark of the resident set (VmHWM, reset by /proc/self/clear_refs;
Linux only), in a process of its own that has made a small call before, so that threads and compiled kernels are there,
and that gives freed blocks back at once: holes in the heap would count too, sixtyfold in a loop over small and large
tensors. On a GPU it is what torch's allocator counts.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks import layer_peers as peers
from benchmarks.common import OURS, Row, race, save, synchronize
from benchmarks.layer_peers import Call, Case

SLOW = 1500.0  # ms
BUDGET = 1.0  # seconds for a contender in a race
FORWARD, BOTH = "forward", "forward and backward"
MMAP_THRESHOLD = -3  # mallopt's name for it
TOLERANCE = 3e-3  # of gradients, as a share of their norm: of maxima that differ by rounding another may win


@dataclass(frozen=True)
class Series:
    """One layer at growing sizes; `work` says what a size means."""

    name: str
    work: str
    sizes: Sequence[int]
    make: Callable[[int, torch.device], Case]

    def case(self, size: int, device: torch.device) -> Case:
        torch.manual_seed(0)
        return self.make(size, device)


SERIES = (
    Series("SSP, channels-first", "4 x 256 x {0} x {0}, 196 superpixels", (32, 64, 128), peers.superpixel_mean),
    Series(
        *("SSP, channels-last", "4 x 256 x {0} x {0}, 196 superpixels", (32, 64, 128)),
        partial(peers.superpixel_mean, last=True),
    ),
    Series(
        *("MSP, channels-first", "4 x 256 x {0} x {0}, 3 scales", (32, 64, 128)),
        partial(peers.superpixel_mean, scales=3),
    ),
    Series(
        *("MSP, channels-last", "4 x 256 x {0} x {0}, 3 scales", (32, 64, 128)),
        partial(peers.superpixel_mean, scales=3, last=True),
    ),
    Series("DiffGCN", "{0} x 200 nodes, k = 20, 64 channels", (4, 16, 64), peers.edge_conv),
    Series("DGCNN", "{0} x 200 nodes, k = 20, 64 channels", (4, 16, 64), partial(peers.edge_conv, directed=False)),
    Series("class-wise, even classes", "{0} x {0}, 19 classes, 64 channels", (17, 33, 65, 97), peers.class_wise),
    Series(
        *("class-wise, Cityscapes' classes", "{0} x {0}, 19 classes, 64 channels", (17, 33, 65, 97)),
        partial(peers.class_wise, shares=peers.CITY),
    ),
    Series(
        *("ES-CRF, window", "{0} x {0}, 256 channels", (33, 65, 97)),
        partial(peers.embedded_crf, channels=256, window=True),
    ),
    Series(
        *("ES-CRF, all pairs", "{0} x {0}, 64 channels", (17, 33, 65, 97)),
        partial(peers.embedded_crf, channels=64, window=False),
    ),
    Series("mean field, window", "{0} x {0}, 19 classes, radius 3, 5 steps", (33, 65, 97), peers.mean_field),
    Series("rasterised convolution", "4 x 64 x {0} x {0}", (32, 64, 128), peers.raster),
    Series("affinity graph", "{0} x {0}, distances 1, 2, 4", (128, 256, 512), peers.affinity_graph),
    Series("affinity refinement", "{0} x {0}, distances 1, 2, 4, 9 classes", (128, 256, 512), peers.refinement),
    Series("affinity targets", "{0} x {0}, 56 channels", (513,), peers.targets),
    Series("affinity loss", "{0} x {0}, 56 channels", (256,), peers.affinity_loss),
    Series(
        *("joint of classes", "4 x 15 x {0} x {0}, 9 displacements", (128,)),
        partial(peers.displaced_joint, reach=1),
    ),
    Series(
        *("joint of classes", "4 x 15 x {0} x {0}, 441 displacements", (128,)),
        partial(peers.displaced_joint, reach=10),
    ),
    Series("total variation", "4 x 64 x {0} x {0}", (128,), partial(peers.differences, weighted=False)),
    Series("smoothness", "4 x 64 x {0} x {0}", (128,), partial(peers.differences, weighted=True)),
    Series("superpixelated image", "{0} x {0}, 200 soft superpixels", (128,), peers.soft_image),
    Series("OHEM", "2 x 19 x {0} x {0}", (256,), peers.hard_pixels),
)


@dataclass(frozen=True)
class Measured(Row):
    """A row with the series and size it belongs to, and the peak memory in MiB."""

    series: str = ""
    size: int = 0
    peak: float | None = None


def forward(call: Call) -> Tensor:
    with torch.no_grad():
        return call()


def now() -> float:
    """Milliseconds."""
    synchronize()
    return time.perf_counter() * 1e3


def backward(call: Call, case: Case) -> tuple[list[Tensor], dict[str, float]]:
    """Forward too: the result and the gradients, and the milliseconds that both ways took."""
    begin = now()
    out = call()
    between = now()
    gradients = torch.autograd.grad(out, case.leaves, case.grad) if case.leaves else ()
    return [out.detach(), *gradients], {FORWARD: between - begin, BOTH: now() - begin}


def check(work: str, case: Case) -> dict[str, dict[str, float]]:
    """AssertionError unless all agree with ours; the milliseconds that each took."""
    spent = {}
    wanted: list[Tensor] = []
    for name, call in case.calls.items():
        if isinstance(call, str):
            continue
        found, spent[name] = backward(call, case)
        wanted = wanted or found  # ours is the first
        if not name.startswith("("):
            compare(f"{work}: {name}", found, wanted)
    return spent


def compare(where: str, found: list[Tensor], wanted: list[Tensor]) -> None:
    near = 1e-5 * float(wanted[0].abs().max())
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=near, msg=lambda text: f"{where}: {text}")
    for mine, other in zip(wanted[1:], found[1:], strict=True):
        off = float((other - mine).norm() / mine.norm().clamp(min=1e-30))
        assert off <= TOLERANCE, f"{where}: the gradient of shape {list(mine.shape)} is off by {off:.2%}"


def trim() -> None:
    """Gives freed memory back."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def status(key: str) -> float:
    """MiB in the kernel's books on this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def peak_here(index: int, size: int, name: str, device: torch.device) -> float:
    """MiB that a call takes beyond what there is before it, in this process."""
    series, peak = SERIES[index], 0.0
    if device.type == "cpu":
        ctypes.CDLL("libc.so.6").mallopt(MMAP_THRESHOLD, 1 << 16)
    for at in (min(series.sizes), size):  # the first is to have threads and kernels
        case = series.case(at, device)
        call = case.calls[name]
        assert not isinstance(call, str)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() / 2**20
        else:
            trim()
            Path("/proc/self/clear_refs").write_text("5")
            before = status("VmRSS")
        backward(call, case)
        peak = (torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else status("VmHWM")) - before
    return peak


def peak(index: int, size: int, name: str, device: torch.device) -> float | None:
    """The same in a process of its own; None where the kernel keeps no such books."""
    if device.type == "cuda":
        return peak_here(index, size, name, device)
    if not Path("/proc/self/clear_refs").exists():
        return None
    # Its processes are forked from one that has imported everything and run nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.layer_peers", "numba"])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(peak_here, index, size, name, device).result()


def measure(index: int, size: int, repeats: int, device: torch.device) -> list[Measured]:
    """All contenders of one series at one size."""
    trim()
    series = SERIES[index]
    case = series.case(size, device)
    work = f"{series.name}, {series.work.format(size)}"
    spent = check(work, case)
    memory = {name: peak(index, size, name, device) for name in spent}
    rows = []
    for way in (FORWARD, BOTH) if case.leaves else (FORWARD,):
        calls: dict[str, Callable[[], Any] | str] = {}
        for name, call in case.calls.items():
            if isinstance(call, str):
                calls[name] = call
            elif spent[name][BOTH] > SLOW:
                calls[name] = "one call"
            else:
                calls[name] = partial(forward, call) if way == FORWARD else partial(backward, call, case)
        for row in race(f"{work}: {way}", calls, repeats, budget=BUDGET):
            median = spent[row.name][way] if row.note == "one call" else row.median
            whole = memory.get(row.name) if way == BOTH or not case.leaves else None
            rows.append(Measured(row.work, row.name, median, row.quartiles, row.note, series.name, size, whole))
    return rows


def show(rows: Sequence[Measured]) -> None:
    """A line for each contender, with ratios to ours."""
    ways = {name: [row for row in rows if row.name == name] for name in dict.fromkeys(row.name for row in rows)}
    ours = ways[OURS]
    print(f"\n{rows[0].work.rsplit(':', 1)[0]}")
    print(f"  {'':<40}" + "".join(f"{row.work.rsplit(': ', 1)[1]:>26}" for row in ours) + f"{'peak memory':>26}")
    for name, found in ways.items():
        line = f"  {name:<40}"
        for row, mine in zip(found, ours, strict=True):
            line += cell(row.median, mine.median, "ms")
        line += cell(found[-1].peak, ours[-1].peak, "MiB")
        print(f"{line}   {found[-1].note}".rstrip(), flush=True)


def cell(value: float | None, ours: float | None, unit: str) -> str:
    if value is None:
        return f"{'-':>26}"
    ratio = f"({value / ours:.2f} x)" if ours else ""
    return f"{value:11.1f} {unit:<3}{ratio:>11}"


def draw(path: Path, rows: Sequence[Measured]) -> None:
    """For each layer time above memory, against size, a line for each contender; forward and backward."""
    from matplotlib import pyplot as plt

    from graphseg.plot import PALETTE

    drawn = [series for series in SERIES if len(series.sizes) > 1]
    columns = 7
    bands = -(-len(drawn) // columns)
    figure, axes = plt.subplots(2 * bands, columns, figsize=(3.2 * columns, 5.2 * bands), layout="constrained")
    for number, series in enumerate(drawn):
        band, column = divmod(number, columns)
        above, below = axes[2 * band : 2 * band + 2, column]
        mine = [row for row in rows if row.series == series.name and row.work.endswith(BOTH)]
        for name, color in zip(dict.fromkeys(row.name for row in mine), PALETTE, strict=False):
            points = [row for row in mine if row.name == name and row.median is not None]
            if not points:
                continue
            style: dict[str, Any] = {"color": color, "marker": "o", "ms": 3, "lw": 2.4 if name == OURS else 1.2}
            style["ls"] = ":" if name.startswith("(") else "-"
            above.plot([row.size for row in points], [row.median for row in points], label=name, **style)
            kept = [row for row in points if row.peak is not None]
            below.plot([row.size for row in kept], [row.peak for row in kept], **style)
        above.set_title(series.name, fontsize=10)
        above.legend(fontsize=6)
        below.set_xlabel(series.work.format("n"), fontsize=7)
        for ax, label in ((above, "ms"), (below, "MiB")):
            ax.set(xscale="log", yscale="log")
            ax.set_ylabel(label, fontsize=8)
            ax.set_xticks(series.sizes, [str(size) for size in series.sizes])
            ax.minorticks_off()
            ax.tick_params(labelsize=7)
            ax.grid(alpha=0.3)
    figure.savefig(path, dpi=85)
    plt.close(figure)
    with Image.open(path) as full:  # a palette takes a third of the bytes
        small = full.convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
    small.save(path, optimize=True)


def options_from(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file, and a figure beside it")
    parser.add_argument("--repeats", type=int, default=9, help="calls of each contender (default 9)")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, three repeats: does it all run?")
    options = parser.parse_args(argv)
    if options.quick:
        options.repeats = 3
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = options_from(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False  # results are compared
    rows: list[Measured] = []
    for index, series in enumerate(SERIES):
        check(series.name, series.case(min(series.sizes), device))  # compiles
        for size in series.sizes[:1] if options.quick else series.sizes:
            found = measure(index, size, options.repeats, device)
            show(found)
            rows += found
    if options.out is not None:
        save(options.out, rows)
        draw(options.out.with_suffix(".png"), rows)
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
