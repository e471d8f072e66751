"""Other libraries merge affinity graphs: a problem goes in, the cluster of each pixel and milliseconds come out.

bioimage-cpp, higra and scikit-image run in this process, from the edges of the graph; what building their own graph
takes is counted, and shown apart. mwatershed and waterz take maps; their environment is made by

    python3.11 -m venv peers
    peers/bin/python -m pip install mwatershed waterz

and run by `Peers("peers/bin/python")`: that interpreter runs this file as a script, which therefore needs nothing but
numpy. Maps and labels pass through pipes as raw bytes; the times are taken inside, around the call alone.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

AVERAGE, MUTEX = "average linkage", "mutex watershed"

# What each is given, and what it does with it.
GIVEN = {
    "graphseg": "engine='sequential', linkage='counted' or 'mutex': edge_index int64 [2, E], affinity float32 [E]",
    "bioimage-cpp GASP mean": "UndirectedGraph.from_unique_edges and GaspClusterPolicy(linkage='mean') on affinity "
    "less threshold, float32 (faster than float64)",
    "bioimage-cpp mutex watershed": "mutex_watershed_clustering: the graph of the attracting edges (built) and the "
    "list of the repelling ones",
    "bioimage-cpp mutex watershed, grid": "segmentation.mutex_watershed on maps",
    "higra average linkage": "UndirectedGraph.add_edges and binary_partition_tree_average_linkage on 1 - affinity: "
    "always the whole tree, so that ours with the whole tree is the row to set beside it; cutting it is not counted",
    "scikit-image merge_hierarchical": "a RAG of single pixels, weights 1 - affinity, mean weighted by edge counts",
    "mwatershed": "agglom on maps, float64",
    "waterz": "agglomerate with OneMinus<MeanAffinity>, every pixel a fragment; knows 4-connected neighbours alone",
}


def timed(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """What a call returns, and the milliseconds it took."""
    begin = time.perf_counter()
    found = call(*args)
    return found, (time.perf_counter() - begin) * 1e3


def status(key: str) -> int:
    """Bytes in the kernel's books on this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def books() -> bool:
    """Whether the kernel keeps books on the high-water mark (Linux)."""
    return Path("/proc/self/clear_refs").exists()


def peak(call: Callable[..., Any], *args: Any) -> int:
    """Bytes that a call takes beyond what there is before it."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    call(*args)
    return status("VmHWM") - before


def give_back() -> None:
    """Freed blocks go back at once from now on, instead of leaving holes that would count."""
    ctypes.CDLL("libc.so.6").mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD


# ---------------------------------------------------------------------------------------------------------------------
# Of maps: float32 [K, H, W], channel k at p for the edge from p to p + offsets[k], each pair once.


def mwatershed(maps: np.ndarray, offsets: Sequence[Sequence[int]], threshold: float) -> tuple[np.ndarray, float]:
    signed = maps.astype(np.float64)
    return timed(import_module("mwatershed").agglom, signed, offsets)


def waterz(maps: np.ndarray, offsets: Sequence[Sequence[int]], threshold: float) -> tuple[np.ndarray, float]:
    _, height, width = maps.shape
    given = np.zeros((3, 1, height, width), np.float32)  # of each pixel and the one before it
    given[1, 0, 1:] = maps[offsets.index([1, 0]), :-1]
    given[2, 0, :, 1:] = maps[offsets.index([0, 1]), :, :-1]
    pixels = np.arange(1, height * width + 1, dtype=np.uint64).reshape(1, height, width)
    agglomerate = import_module("waterz").agglomerate
    labels, spent = timed(lambda: next(iter(agglomerate(given, [1 - threshold], fragments=pixels))))
    return labels[0], spent


OUTSIDE: dict[str, Callable[..., tuple[np.ndarray, float]]] = {"mwatershed": mwatershed, "waterz": waterz}


def serve() -> None:
    """Answers on the pipes: first what is here, then for each problem sent labels and milliseconds, or peak bytes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # waterz talks
    found: dict[str, Any] = {"python": platform.python_version(), "versions": {}, "missing": {}}
    for name in OUTSIDE:
        try:
            import_module(name)
            found["versions"][name] = importlib.metadata.version(name)
        except ImportError as error:
            found["missing"][name] = f"not there: {error}"
    answers.write(json.dumps(found).encode() + b"\n")
    answers.flush()
    for line in iter(sys.stdin.buffer.readline, b""):
        asked = json.loads(line)
        data = bytearray(sys.stdin.buffer.read(4 * int(np.prod(asked["shape"]))))
        maps = np.frombuffer(data, np.float32).reshape(asked["shape"])
        call, given = OUTSIDE[asked["name"]], (asked["offsets"], asked["threshold"])
        if asked["peak"]:
            give_back()
            near = [k for k, offset in enumerate(asked["offsets"]) if max(map(abs, offset)) < 8]
            call(maps[near, :8, :8], [asked["offsets"][k] for k in near], asked["threshold"])  # to have its threads
            answers.write(json.dumps({"bytes": peak(call, maps, *given)}).encode() + b"\n")
        else:
            labels, spent = call(maps, *given)
            answers.write(json.dumps({"milliseconds": spent, "shape": labels.shape}).encode() + b"\n")
            answers.write(np.ascontiguousarray(labels, dtype=np.int64).tobytes())
        answers.flush()


class Peers:
    """The peers of another environment; `found` tells Python and versions, and by name why which ones are "missing"."""

    def __init__(self, python: str | None) -> None:
        self.python = python
        self.found: dict[str, Any] = {"missing": dict.fromkeys(OUTSIDE, "no --peers given")}
        self._process = None
        if python is not None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen([python, __file__], stdin=pipe, stdout=pipe)
            self.found = self._answer()

    def _answer(self, size: int | None = None) -> Any:
        """The next line as JSON, or the next `size` bytes."""
        assert self._process is not None and self._process.stdout is not None
        data = self._process.stdout.readline() if size is None else self._process.stdout.read(size)
        if not data:
            raise RuntimeError("the interpreter of the peers ended; what it said stands above")
        return json.loads(data) if size is None else data

    def _ask(self, name: str, maps: np.ndarray, offsets: Sequence[Sequence[int]], threshold: float, **more: Any) -> Any:
        assert self._process is not None and self._process.stdin is not None
        asked = {"name": name, "offsets": offsets, "threshold": threshold, "shape": maps.shape} | more
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.write(np.ascontiguousarray(maps, np.float32).tobytes())
        self._process.stdin.flush()
        return self._answer()

    def merge(
        self, name: str, maps: np.ndarray, offsets: Sequence[Sequence[int]], threshold: float
    ) -> tuple[np.ndarray, float]:
        """Labels [H * W] and milliseconds."""
        answer = self._ask(name, maps, offsets, threshold, peak=False)
        labels = np.frombuffer(self._answer(8 * int(np.prod(answer["shape"]))), np.int64)
        return labels, answer["milliseconds"]

    def peak(self, name: str, maps: np.ndarray, offsets: Sequence[Sequence[int]], threshold: float) -> int:
        """Bytes that the call takes, in a process of its own."""
        fresh = Peers(self.python)
        try:
            return int(fresh._ask(name, maps, offsets, threshold, peak=True)["bytes"])
        finally:
            fresh.close()

    def close(self) -> None:
        if self._process is not None:
            with suppress(BrokenPipeError):
                self._process.communicate()


# ---------------------------------------------------------------------------------------------------------------------
# Of edges: edge_index int64 [2, E] in lexicographic order, affinity float32 [E].


@dataclass(frozen=True)
class Edges:
    """A graph of pixels; affinities are in [0, 1], those of mutex watershed in [-1, 1]."""

    edge_index: np.ndarray
    affinity: np.ndarray
    number: int  # of pixels
    threshold: float


def bioimage_graph(edge_index: np.ndarray, number: int) -> Any:
    graph = import_module("bioimage_cpp.graph").UndirectedGraph
    return graph.from_unique_edges(number, np.ascontiguousarray(edge_index.T.astype(np.uint64)))


def bioimage_graph_alone(given: Edges) -> None:
    # Its adjacency is built on the first call that reads it.
    bioimage_graph(given.edge_index, given.number).freeze()


def gasp(given: Edges) -> np.ndarray:
    graph = bioimage_graph(given.edge_index, given.number)
    policy = import_module("bioimage_cpp.graph.agglomeration").GaspClusterPolicy(linkage="mean")
    labels: np.ndarray = policy.optimize(graph, given.affinity - np.float32(given.threshold))
    return labels


def bioimage_mutex(given: Edges) -> np.ndarray:
    cluster = import_module("bioimage_cpp.graph.mutex_watershed").mutex_watershed_clustering
    attracts = given.affinity > 0
    graph = bioimage_graph(given.edge_index[:, attracts], given.number)
    apart = np.ascontiguousarray(given.edge_index[:, ~attracts].T.astype(np.uint64))
    labels: np.ndarray = cluster(graph, given.affinity[attracts], apart, -given.affinity[~attracts])
    return labels


def higra_tree(given: Edges) -> tuple[Any, np.ndarray]:
    hg = import_module("higra")
    graph = hg.UndirectedGraph(given.number)
    graph.add_edges(*given.edge_index)
    tree, altitudes = hg.binary_partition_tree_average_linkage(graph, 1 - given.affinity.astype(np.float64))
    return tree, altitudes


def higra_cut(found: tuple[Any, np.ndarray], given: Edges) -> np.ndarray:
    cut = import_module("higra").labelisation_horizontal_cut_from_threshold
    labels: np.ndarray = cut(*found, 1 - given.threshold)
    return labels


def skimage_merge(given: Edges) -> np.ndarray:
    from skimage.graph import RAG, merge_hierarchical

    rag = RAG()
    rag.add_nodes_from((i, {"labels": [i]}) for i in range(given.number))
    weights = (1 - given.affinity.astype(np.float64)).tolist()
    rag.add_edges_from((i, j, {"weight": w, "count": 1}) for (i, j), w in zip(given.edge_index.T, weights, strict=True))
    none = {"weight": 0.0, "count": 0}

    def mean(graph: Any, one: int, other: int, neighbour: int) -> dict[str, float]:
        a, b = graph[one].get(neighbour, none), graph[other].get(neighbour, none)
        count = a["count"] + b["count"]
        return {"weight": (a["weight"] * a["count"] + b["weight"] * b["count"]) / count, "count": count}

    pixels = np.arange(given.number)
    labels: np.ndarray = merge_hierarchical(
        *(pixels, rag, 1 - given.threshold),
        rag_copy=False,
        in_place_merge=True,
        merge_func=lambda graph, one, other: None,
        weight_func=mean,
    )
    return labels


def components(given: Edges) -> np.ndarray:
    """Connected by edges of at least the threshold: what `max` finds."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    strong = given.edge_index[:, given.affinity >= given.threshold]
    graph = coo_array((np.ones(strong.shape[1], np.int8), tuple(strong)), shape=(given.number, given.number))
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels


if __name__ == "__main__":
    serve()
