"""Superpixels of other libraries: an image [H, W, 3] of RGB uint8 goes in, labels [H, W] and milliseconds come out.

scikit-image runs in this process. fast-slic builds only with old Cython, numpy and setuptools (and so on Python 3.11 or
older), OpenCV's ximgproc goes with it; their environment is made by

    python3.11 -m venv peers
    peers/bin/python -m pip install 'numpy<2' 'cython<3' 'setuptools<66' wheel opencv-contrib-python-headless
    peers/bin/python -m pip install --no-build-isolation fast-slic

and run by `Peers("peers/bin/python")`: that interpreter runs this file as a script, which therefore needs nothing but
numpy. Images and labels pass through pipes as raw bytes; the times are taken inside, around the call alone.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

Cut = Callable[[np.ndarray, int], tuple[np.ndarray, float]]

# What each is given. Compactness is 10 wherever there is one, which does not mean the same everywhere.
GIVEN = {
    "graphseg": "compactness 10, 10 iterations",
    "graphseg, exact": "compactness 10, 10 iterations, exact=True",
    "scikit-image SLIC": "n_segments, compactness 10, else defaults (10 iterations, Lab, connectivity enforced)",
    "fast-slic": "SlicAvx2: num_components, compactness 10, as many threads as ours, else defaults (10 iterations, "
    "integer Lab of its own, every third row in turn, parts under a quarter of the mean size merged)",
    "OpenCV SLIC": "region_size = root of pixels / count, ruler 10, 10 iterations, connectivity enforced at 25 %; "
    "on 8-bit Lab (L from 0 to 255) after a 3 x 3 blur, as its documentation recommends",
    "OpenCV SLICO": "as OpenCV SLIC, the compactness found by itself",
    "SEEDS": "num_superpixels, 4 levels, prior 2, 5 bins, 4 iterations, on 8-bit Lab (its documentation's advice)",
    "Felzenszwalb": "scikit-image's, sigma 0.8, min_size 20; scale by search on training images",
    "QuickShift": "scikit-image's, ratio 1, max_dist = 2 kernel_size; kernel_size by search on training images",
    "grid": "rectangles, as square as they come",
}


def timed(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """What a call returns, and the milliseconds it took."""
    begin = time.perf_counter()
    found = call(*args)
    return found, (time.perf_counter() - begin) * 1e3


def fast_slic(image: np.ndarray, count: int, threads: int) -> np.ndarray:
    # A new object each time: a used one goes on from the clusters of the image before.
    slic = import_module("fast_slic.avx2").SlicAvx2(num_components=count, compactness=10, num_threads=threads)
    labels: np.ndarray = slic.iterate(image, 10)
    return labels


def fast_slic_alone(image: np.ndarray, count: int, threads: int) -> np.ndarray:
    return fast_slic(image, count, 1)


def opencv_slic(image: np.ndarray, count: int, threads: int, variant: str = "SLIC") -> np.ndarray:
    cv2 = import_module("cv2")
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (3, 3), 0), cv2.COLOR_RGB2LAB)
    step = max(1, round((image.shape[0] * image.shape[1] / count) ** 0.5))
    slic = cv2.ximgproc.createSuperpixelSLIC(lab, getattr(cv2.ximgproc, variant), step, 10.0)
    slic.iterate(10)
    slic.enforceLabelConnectivity(25)
    labels: np.ndarray = slic.getLabels()
    return labels


def opencv_slico(image: np.ndarray, count: int, threads: int) -> np.ndarray:
    return opencv_slic(image, count, threads, "SLICO")


def opencv_seeds(image: np.ndarray, count: int, threads: int) -> np.ndarray:
    cv2 = import_module("cv2")
    height, width, channels = image.shape
    seeds = cv2.ximgproc.createSuperpixelSEEDS(width, height, channels, count, 4, 2, 5, False)
    seeds.iterate(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), 4)
    labels: np.ndarray = seeds.getLabels()
    return labels


# name: package, module that must import, function
OUTSIDE: dict[str, tuple[str, str, Callable[[np.ndarray, int, int], np.ndarray]]] = {
    "fast-slic": ("fast-slic", "fast_slic.avx2", fast_slic),
    "fast-slic, one thread": ("fast-slic", "fast_slic.avx2", fast_slic_alone),
    "OpenCV SLIC": ("opencv-contrib-python-headless", "cv2.ximgproc", opencv_slic),
    "OpenCV SLICO": ("opencv-contrib-python-headless", "cv2.ximgproc", opencv_slico),
    "SEEDS": ("opencv-contrib-python-headless", "cv2.ximgproc", opencv_seeds),
}


def serve(threads: int) -> None:
    """Answers on the pipes: first what is here, then labels and time for each image sent."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between
    found: dict[str, Any] = {"python": platform.python_version(), "versions": {}, "missing": {}}
    for name, (package, module, _) in OUTSIDE.items():
        try:
            import_module(module)
            found["versions"][package] = importlib.metadata.version(package)
        except ImportError as error:
            found["missing"][name] = f"not there: {error}"
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)
    answers.write(json.dumps(found).encode() + b"\n")
    answers.flush()
    for line in iter(sys.stdin.buffer.readline, b""):
        asked = json.loads(line)
        data = bytearray(sys.stdin.buffer.read(int(np.prod(asked["shape"]))))
        image = np.frombuffer(data, np.uint8).reshape(asked["shape"])
        labels, spent = timed(OUTSIDE[asked["name"]][2], image, asked["count"], threads)
        answers.write(json.dumps({"milliseconds": spent, "shape": labels.shape}).encode() + b"\n")
        answers.write(np.ascontiguousarray(labels, dtype=np.int32).tobytes())
        answers.flush()


class Peers:
    """The peers of another environment; `found` tells Python and versions, and by name why which ones are "missing"."""

    def __init__(self, python: str | None, threads: int) -> None:
        self.found: dict[str, Any] = {"missing": dict.fromkeys(OUTSIDE, "no --peers given")}
        self._turn = threading.Lock()
        self._process = None
        if python is not None:
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            command = [python, __file__, str(threads)]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
            self.found = self._answer()

    def _answer(self, size: int | None = None) -> Any:
        """The next line as JSON, or the next `size` bytes."""
        assert self._process is not None and self._process.stdout is not None
        data = self._process.stdout.readline() if size is None else self._process.stdout.read(size)
        if not data:
            raise RuntimeError("the interpreter of the peers ended; what it said stands above")
        return json.loads(data) if size is None else data

    def cut(self, name: str, image: np.ndarray, count: int) -> tuple[np.ndarray, float]:
        """Labels [H, W] and milliseconds."""
        assert self._process is not None and self._process.stdin is not None
        with self._turn:
            asked = {"name": name, "count": count, "shape": image.shape}
            self._process.stdin.write(json.dumps(asked).encode() + b"\n" + image.tobytes())
            self._process.stdin.flush()
            answer = self._answer()
            labels = np.frombuffer(self._answer(4 * int(np.prod(answer["shape"]))), np.int32)
        return labels.reshape(answer["shape"]).copy(), answer["milliseconds"]

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


def skimage_slic(image: np.ndarray, count: int) -> np.ndarray:
    from skimage.segmentation import slic

    labels: np.ndarray = slic(image, n_segments=count, compactness=10, start_label=0)
    return labels


def felzenszwalb(image: np.ndarray, scale: float) -> np.ndarray:
    from skimage.segmentation import felzenszwalb

    labels: np.ndarray = felzenszwalb(image, scale=scale, sigma=0.8, min_size=20)
    return labels


def quickshift(image: np.ndarray, kernel_size: float) -> np.ndarray:
    from skimage.segmentation import quickshift

    labels: np.ndarray = quickshift(image, ratio=1.0, kernel_size=kernel_size, max_dist=2 * kernel_size)
    return labels


def grid(image: np.ndarray, count: int) -> np.ndarray:
    height, width, _ = image.shape
    step = (height * width / count) ** 0.5
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    down, along = np.arange(height) * rows // height, np.arange(width) * columns // width
    return down[:, None] * columns + along


# These take no count. Function, name of the parameter, its values for the search, training images for it.
SEARCHED: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], str, np.ndarray, int]] = {
    "Felzenszwalb": (felzenszwalb, "scale", np.geomspace(5, 5000, 13), 12),
    "QuickShift": (quickshift, "kernel_size", np.geomspace(2, 8, 6), 4),
}


def search(
    name: str, images: Sequence[np.ndarray], counts: Sequence[int], run: Callable[..., Any] = map
) -> dict[int, float]:
    """For each count the parameter at which the mean count of `images` comes near it; `run` may be a pool's map."""
    cut, _, values, number = SEARCHED[name]
    pairs = [(image, value) for value in values for image in images[:number]]
    found = np.array(list(run(lambda pair: len(np.unique(cut(*pair))), pairs)), dtype=np.float64)
    mean = found.reshape(len(values), -1).mean(1)
    order = np.argsort(mean)
    near = np.interp(np.log(counts), np.log(mean[order]), np.log(values[order]))
    return {count: float(f"{np.exp(parameter):.3g}") for count, parameter in zip(counts, near, strict=True)}


@dataclass(frozen=True)
class Contender:
    """Cuts an image; or `note` says why it is left out.

    The slow ones get every tenth image, and few calls. What differs in time alone is not judged.
    """

    name: str
    cut: Cut | None
    note: str = ""
    slow: bool = False
    judged: bool = True


def line_up(peers: Peers, parameters: Mapping[str, Mapping[int, float]]) -> list[Contender]:
    """All peers; `parameters` by count for those that take no count."""

    def here(function: Callable[[np.ndarray, int], np.ndarray]) -> Cut:
        return lambda image, count: timed(function, image, count)

    def searched(name: str) -> Cut:
        return lambda image, count: timed(SEARCHED[name][0], image, parameters[name][count])

    found = []
    for name in OUTSIDE:
        note = peers.found["missing"].get(name, "")
        cut = None if note else partial(peers.cut, name)
        found.append(Contender(name, cut, note, judged="one thread" not in name))
    found.append(Contender("scikit-image SLIC", here(skimage_slic)))
    for name in SEARCHED:
        if name in parameters:
            found.append(Contender(name, searched(name), slow=name == "QuickShift"))
        else:
            found.append(Contender(name, None, "no images to search its parameter on"))
    return [*found, Contender("grid", here(grid))]


if __name__ == "__main__":
    serve(int(sys.argv[1]))
