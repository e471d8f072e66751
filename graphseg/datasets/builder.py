"""Building: the images of a reader become the rows of a dataset's file, over processes, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch_geometric.transforms import Compose
from tqdm import tqdm

from graphseg._checks import check_positive_int
from graphseg.data import ImageGraph
from graphseg.datasets.content import content_key, file_stamps, recipe_of
from graphseg.datasets.packing import Layout, row_bytes
from graphseg.datasets.parallel import check_sendable, open_workers
from graphseg.datasets.reader import BadFile, ImageReader
from graphseg.datasets.statistics import graph_information
from graphseg.datasets.store import Entry, Store, StoreError
from graphseg.datasets.whole_file import write_text
from graphseg.transforms import ImageAugmentation, ImageTransform

__all__ = ["ERRORS", "build_graphs"]

ERRORS = "errors.jsonl"
LOCK = "build.lock"
FLUSH_SECONDS, FLUSH_GRAPHS = 1.0, 256  # at most so much is done again after a kill


@dataclass(frozen=True)
class Built:
    """What a worker makes of one image."""

    key: str
    layout: str
    row: dict[str, Any]
    info: str
    about: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """Why there is no graph of one image."""

    file: str
    reason: str


def build_graphs(
    reader: ImageReader,
    root: Path,
    transform: Any,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool | None = None,
) -> None:
    """Builds what is missing of a dataset; `ImageGraphDataset.build` says more.

    Args:
        reader: of the images.
        root: the folder to write.
        transform: image to graph.
        workers: processes.
        scheduler: address of a Dask scheduler; None: processes of this machine.
        progress: show a bar; None: where standard error is a terminal.
    """
    check_positive_int("workers", workers)
    _check_transform(reader, transform, workers if scheduler is None else 1)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        store = Store(root, readonly=False)
        try:
            _build(store, reader, root, transform, workers, scheduler, progress)
        finally:
            store.close()


def _build(
    store: Store,
    reader: ImageReader,
    root: Path,
    transform: Any,
    workers: int,
    scheduler: str | None,
    progress: bool | None,
) -> None:
    text = recipe_of(reader, transform)
    recipe = hashlib.sha256(text.encode()).hexdigest()
    samples = [reader.samples[i] for i in reader.indices()]
    entries = [
        Entry(_as_text(s.source), s.split, {role: str(path.absolute()) for role, path in s.files.items()}, s.window)
        for s in samples
    ]
    known = store.keys(recipe)
    if known:
        entries = [replace(e, key=k if k in known else None) for e, k in zip(entries, _keys(reader, text), strict=True)]
    pending = [i for i, entry in enumerate(entries) if entry.key is None]
    with (
        tqdm(total=len(entries), initial=len(entries) - len(pending), unit=" images", disable=_silent(progress)) as bar,
        open_workers(workers if len(pending) > 1 else 1, scheduler) as pool,
    ):
        about = _begin(store, recipe, text, reader, entries)  # not before there is someone to do the work
        bad = _BadFiles(root / ERRORS, reader.bad_files)
        writer = _Writer(store, recipe, about)
        layout = store.layout(recipe)
        todo = iter(pending)
        try:
            while layout is None and (i := next(todo, None)) is not None:
                # All graphs have the fields of the first: made here, so that it is the same one in every run.
                result = build_graph(reader.single(i), transform, text, None)
                layout = writer.take(i, result, bad)
                bar.update()
            layout_text = None if layout is None else layout.to_json()
            tasks = ((reader.single(i), transform, text, layout_text, i) for i in todo)
            for task, found in pool.run(_task, tasks):
                if isinstance(found, str):
                    found = Failed(_main_file(task[0]), found)
                writer.take(task[4], found, bad)
                bar.update()
        finally:
            writer.flush()
            bad.write()
    store.finish(recipe)


def _begin(store: Store, recipe: str, text: str, reader: ImageReader, entries: Sequence[Entry]) -> dict[str, Any]:
    """Makes the recipe and the images those of the dataset; returns what is noted about it."""
    about = {
        "reader": type(reader).__name__,
        "pipeline": json.loads(text),
        "class_names": list(reader.class_names),
        "ignore_index": reader.ignore_index,
    }
    if any(entry.key for entry in entries):
        before = store.meta("about", {})
        about |= {key: before[key] for key in ("recipe", "recipe_hash") if key in before}
    else:
        store.forget(recipe)
    store.begin(recipe, {"about": about}, entries)
    return about


def _task(reader: ImageReader, transform: Any, recipe: str, layout: str | None, _: int) -> Built | Failed:
    return build_graph(reader, transform, recipe, layout)


def build_graph(reader: ImageReader, transform: Any, recipe: str, layout: str | None) -> Built | Failed:
    """The graph of a reader's only image, packed; or the reason why there is none. Runs in any process.

    Args:
        reader: of one sample.
        transform: image to graph.
        recipe: of both, for the key.
        layout: of the dataset's other graphs, as JSON; None for the first.
    """
    sample = reader.samples[0]
    try:
        stamps = file_stamps(sample.files)
        key = content_key(sample, recipe)
        start = time.perf_counter()
        data = reader[0]
        read = time.perf_counter()
        graph = transform(data)
        if not isinstance(graph, ImageGraph):
            raise TypeError(f"got {type(graph).__name__} from the transform, expected an ImageGraph")
        made = time.perf_counter()
        if not type(transform).__module__.startswith("graphseg."):
            graph.validate()
        form = Layout.of(graph) if layout is None else Layout.from_json(layout)
        row = form.pack(graph)
        packed = time.perf_counter()
        if file_stamps(sample.files) != stamps:
            raise OSError("it was written while it was read: build again")
        info = graph_information(graph) | {
            "bytes": row_bytes(row),
            "seconds": {"read": read - start, "convert": made - read, "pack": packed - made},
        }
        about = {name: graph[name] for name in ("recipe", "recipe_hash") if name in graph}
        return Built(key, form.to_json(), row, json.dumps(info), about)
    except Exception as error:
        file = _main_file(reader)
        return Failed(file, reason_of(error).removeprefix(f"{file}: "))


def reason_of(error: Exception) -> str:
    """What went wrong, in words: errors that are meant for users as they are, others with their kind."""
    own = isinstance(error, ValueError | TypeError | OSError)
    return (str(error) if own else f"{type(error).__name__}: {error}") or type(error).__name__


def _main_file(reader: ImageReader) -> str:
    sample = reader.samples[0]
    part = "" if sample.window is None else f" [{sample.source}]"
    return f"{sample.files.get('image', next(iter(sample.files.values())))}{part}"


class _Writer:
    """Stores results as they come, some at a time."""

    def __init__(self, store: Store, recipe: str, about: dict[str, Any]) -> None:
        self.store = store
        self.recipe = recipe
        self.about = about
        self.layout: Layout | None = None
        self.held: list[tuple[int, str, dict[str, Any], str]] = []
        self.since = time.monotonic()

    def take(self, position: int, result: Built | Failed, bad: _BadFiles) -> Layout | None:
        """Keeps a graph for the next transaction, or the reason why there is none; returns the layout of a graph."""
        if isinstance(result, Failed):
            bad.add(BadFile(result.file, result.reason))
        else:
            if self.layout is None:
                self.layout = Layout.from_json(result.layout)
                self.about |= result.about
                self.store.set_meta({"about": self.about})
            self.held.append((position, result.key, result.row, result.info))
        if len(self.held) >= FLUSH_GRAPHS or time.monotonic() - self.since > FLUSH_SECONDS:
            self.flush()
            bad.write()
        return self.layout

    def flush(self) -> None:
        if self.held and self.layout is not None:
            self.store.add(self.recipe, self.layout, self.held)
        self.held = []
        self.since = time.monotonic()


class _BadFiles:
    """The lines of `errors.jsonl`, which is replaced as a whole; there is none where nothing is wrong."""

    def __init__(self, path: Path, found: Sequence[BadFile]) -> None:
        self.path = path
        self.found = list(found)
        self._written: int | None = None
        self.write()

    def add(self, bad: BadFile) -> None:
        self.found.append(bad)

    def write(self) -> None:
        if self._written == len(self.found):
            return
        try:
            if self.found:
                lines = "".join(json.dumps(asdict(b)) + "\n" for b in sorted(self.found, key=lambda b: b.file))
                write_text(self.path, lines)
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path}: it cannot be written; what was built before is kept ({error})") from error
        self._written = len(self.found)


def _keys(reader: ImageReader, recipe: str) -> Iterator[str | None]:
    """The key of every image; None for files that do not open, which will be said when they are built."""

    def key(index: int) -> str | None:
        try:
            return content_key(reader.samples[index], recipe)
        except OSError:
            return None

    with ThreadPoolExecutor(4) as pool:  # reading and hashing release the interpreter
        yield from pool.map(key, reader.indices())


class locked:
    """One process at a time in a folder; the lock of a process that was killed is free.

    Args:
        root: the folder, which must be there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = FileLock(root / LOCK)

    def __enter__(self) -> None:
        try:
            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                if getattr(multiprocessing.current_process(), "_inheriting", False):  # its parent holds the lock
                    raise RuntimeError(
                        "got a build in a process that is only just starting, expected the build of a script below "
                        "`if __name__ == '__main__':`"
                    ) from None
                tqdm.write(f"waiting for another process that works on {self.root}", end="\n")
                self.lock.acquire()
        except OSError as error:
            raise StoreError(
                f"{self.root}: it cannot be written: check the folder and its permissions ({error})"
            ) from error

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _as_text(name: str) -> str:
    """A file's name, bytes that are no UTF-8 written as `\\udc..`."""
    return name.encode("utf-8", "backslashreplace").decode()


def _silent(progress: bool | None) -> bool | None:
    return None if progress is None else not progress


def _check_transform(reader: ImageReader, transform: Any, workers: int) -> None:
    """What would spoil every image is refused before the first."""
    if not callable(transform):
        raise TypeError(f"got {type(transform).__name__} for transform, expected one from images to graphs")
    for step in transform.transforms if isinstance(transform, Compose) else [transform]:
        if isinstance(step, ImageAugmentation):
            raise ValueError(
                f"got {type(step).__name__} in a build, expected no random steps: "
                "give augmentation to the reader as its transform, and graphs are made on the fly"
            )
        if isinstance(step, ImageTransform) and step.num_classes is None and reader.num_classes is not None:
            raise ValueError(
                f"got num_classes=None in {type(step).__name__}, expected num_classes={reader.num_classes} as the "
                "reader has, so that graphs go into one batch"
            )
    if workers > 1:
        check_sendable("a transform that", transform)
    if reader.transform is not None:
        raise ValueError("got a reader with a transform, expected it without: graphs are built from images as they are")
