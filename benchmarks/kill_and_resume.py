"""Builds of a graph dataset, killed (kill -9) at random moments and started again: is anything lost, or wrong?

    python -m benchmarks.kill_and_resume [--trials N] [--images N] [--seed N] [--out FILE]

Each trial starts `graphseg build` on an empty folder, with one worker or two in turn, and kills it after a random time,
counted from when the folder appears and at most as long as an undisturbed build takes. Then the dataset is opened as it
was left, the build is done again to its end, and all graphs are compared bit for bit with those of an undisturbed
build. Worker processes must have ended by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data as photographs
from torch import Tensor

from benchmarks.common import environment
from graphseg.datasets import ImageFolder, ImageGraphDataset
from graphseg.transforms import ToSuperpixelRAG

SIZE = (96, 128)
SEGMENTS, CLASSES = 50, 3
LONGEST = 300.0  # seconds that anything may take


@dataclass(frozen=True)
class Trial:
    """One build that was killed.

    Args:
        workers: it had.
        killed_after: seconds since its folder appeared.
        found: graphs that could be read afterwards.
        journal: whether a transaction was half-written.
        ended: whether the build was over before it could be killed.
        done_again: graphs that the second run made.
        same: whether all graphs, those found at once and those in the end, are the undisturbed ones, each once.
        orphans_gone: seconds until no worker process was left.
    """

    workers: int
    killed_after: float
    found: int
    journal: bool
    ended: bool
    done_again: int
    same: bool
    orphans_gone: float


def write_images(root: Path, count: int, seed: int) -> None:
    """Parts of a photograph, and masks of three classes by brightness."""
    generator, photo = np.random.default_rng(seed), photographs.astronaut()
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for k in range(count):
        y, x = generator.integers(0, 512 - SIZE[0]), generator.integers(0, 512 - SIZE[1])
        part = photo[y : y + SIZE[0], x : x + SIZE[1]].copy()
        part[0, 0] = k % 251, k // 251, 0  # no two alike
        Image.fromarray(part).save(root / "images" / f"{k:04d}.png")
        Image.fromarray(np.digitize(part.mean(2), (80, 160)).astype(np.uint8)).save(root / "masks" / f"{k:04d}.png")


def build(root: Path, out: Path) -> ImageGraphDataset:
    """The same build as that of the command line."""
    reader = ImageFolder(root / "images", root / "masks", num_classes=CLASSES)
    return ImageGraphDataset.build(reader, out, ToSuperpixelRAG(SEGMENTS, num_classes=CLASSES), progress=False)


def start(root: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    """`graphseg build` as a process of its own."""
    words = [sys.executable, "-m", "graphseg", "build", root / "images", out, "--labels", root / "masks"]
    words += ["--num-classes", CLASSES, "--num-segments", SEGMENTS, "--workers", workers, "--quiet"]
    silent = subprocess.DEVNULL
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(word) for word in words], stdout=silent, stderr=silent, env=environ)


def contents(dataset: ImageGraphDataset) -> dict[str, dict[str, Any]]:
    """Image to fields, tensors as their bytes."""
    return {
        source: {
            key: (str(value.dtype), tuple(value.shape), value.numpy().tobytes()) if isinstance(value, Tensor) else value
            for key, value in dataset[i].to_dict().items()
        }
        for i, source in enumerate(dataset.sources)
    }


def wait_for(condition: Any) -> float:
    """Seconds until `condition()` holds."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > LONGEST:
            raise TimeoutError(f"got nothing in {LONGEST} seconds, expected {condition}")
        time.sleep(0.002)
    return time.monotonic() - begin


def children(pid: int) -> list[int]:
    """Processes that a process has started; none where the system does not say."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def run_trial(root: Path, out: Path, workers: int, wait: float, whole: dict[str, dict[str, Any]]) -> Trial:
    """Starts, kills after `wait` seconds, opens, starts again, compares."""
    running = start(root, out, workers)
    wait_for(lambda: out.exists() or running.poll() is not None)
    time.sleep(wait)
    ended = running.poll() is not None
    started = children(running.pid)
    running.send_signal(signal.SIGKILL)
    running.wait()
    gone = wait_for(lambda: not any(alive(pid) for pid in started))
    journal = out / "graphs.sqlite-journal"
    half_written = journal.exists() and journal.stat().st_size > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the build has not ended
        try:
            found = contents(ImageGraphDataset(out))
        except FileNotFoundError:
            found = {}
    same = all(whole[source] == graph for source, graph in found.items())
    dataset = build(root, out)
    same = same and contents(dataset) == whole and len(dataset) == len(whole) and dataset.complete
    done_again = len(whole) - len(found)
    return Trial(workers, round(wait, 3), len(found), half_written, ended, done_again, same, round(gone, 2))


def run(trials: int, images: int, seed: int) -> tuple[dict[str, Any], list[Trial]]:
    """All trials, and what they come to."""
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, images, seed)
        whole = contents(build(root, root / "whole"))
        assert len(whole) == images
        lasts = {}
        for workers in (1, 2):
            out = root / f"undisturbed {workers}"
            running = start(root, out, workers)
            wait_for(out.exists)
            begin = time.monotonic()
            running.wait(LONGEST)
            lasts[workers] = time.monotonic() - begin
            assert running.returncode == 0
            assert contents(ImageGraphDataset(out)) == whole, "one worker and two give the same"
        done = []
        for i in range(trials):
            workers = 1 + i % 2
            trial = run_trial(root, root / f"trial {i}", workers, generator.uniform(0, lasts[workers]), whole)
            done.append(trial)
            print(f"{i + 1:3d}/{trials} {trial}", flush=True)
    found = [trial.found for trial in done]
    return {
        "images": images,
        "size": SIZE,
        "seed": seed,
        "seconds of an undisturbed build": {str(k): round(v, 2) for k, v in lasts.items()},
        "trials": trials,
        "same in the end": sum(trial.same for trial in done),
        "killed before any graph was kept": sum(count == 0 for count in found),
        "killed with some graphs kept": sum(0 < count < images for count in found),
        "killed after the last graph": sum(count == images for count in found),
        "ended before the kill": sum(trial.ended for trial in done),
        "killed inside a transaction": sum(trial.journal for trial in done),
        "median of graphs kept": statistics.median(found),
        "most seconds until all workers had ended": max(trial.orphans_gone for trial in done),
    }, done


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file")
    parser.add_argument("--trials", type=int, default=50, help="builds to kill (default 50)")
    parser.add_argument("--images", type=int, default=150, help="in each (default 150)")
    parser.add_argument("--seed", type=int, default=0, help="of images and moments (default 0)")
    options = parser.parse_args(argv)
    summary, done = run(options.trials, options.images, options.seed)
    for key, value in summary.items():
        print(f"{key:<42} {value}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        head = json.dumps({"environment": environment(), "summary": summary}, indent=1).removesuffix("\n}")
        rows = ",\n  ".join(json.dumps(asdict(trial)) for trial in done)
        options.out.write_text(f'{head},\n "rows": [\n  {rows}\n ]\n}}\n')
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
