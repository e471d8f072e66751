"""Results of runs on disk: one JSON line for each, appended whole; killed at any moment, no finished run is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from filelock import FileLock, Timeout

from graphseg.datasets.whole_file import write_text

Record = dict[str, Any]


class Runs:
    """The runs of all data sets, in a folder with a file `<dataset>.jsonl` for each.

    A record has `dataset`, `name`, `seed`, `key`, and either `values` (variant to metric to number) or `error`.
    Several processes may read and add at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, dataset: str) -> Path:
        return self.folder / f"{dataset}.jsonl"

    def read(self, dataset: str) -> list[Record]:
        """All records, in the order they came. A line that a kill left unfinished is passed over."""
        try:
            text = self.path(dataset).read_text("utf-8")
        except FileNotFoundError:
            return []
        found = []
        for line in text.split("\n"):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return [record for record in found if isinstance(record, dict)]

    def find(self, dataset: str, name: str, seed: int, key: str) -> Record | None:
        """The record of a run: the first that succeeded, else the last that failed."""
        ours = [r for r in self.read(dataset) if (r.get("name"), r.get("seed"), r.get("key")) == (name, seed, key)]
        done = [r for r in ours if "values" in r]
        return done[0] if done else (ours[-1] if ours else None)

    def add(self, record: Record) -> None:
        """Appends one record, on a line of its own, and waits until it is on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(record["dataset"])
        with FileLock(self._lock(f"{path.name} append")), path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def prune(self, keep: set[tuple[str, str]], dataset: str) -> int:
        """Drops records of runs whose (name, key) is not among `keep`; returns how many."""
        path = self.path(dataset)
        with FileLock(self._lock(f"{path.name} append")):
            found = self.read(dataset)
            kept = [record for record in found if (record["name"], record["key"]) in keep]
            if len(kept) < len(found):
                write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        return len(found) - len(kept)

    @contextmanager
    def claim(self, dataset: str, name: str, seed: int, key: str) -> Iterator[bool]:
        """True for the one process that may do this run now. The claim ends with the process, however it ends."""
        lock = FileLock(self._lock(f"{dataset} {name} {seed} {key}"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, what: str) -> str:
        """A file beside no result, so that the folder holds results only."""
        folder = Path(gettempdir()) / "graphseg-reproduce"
        folder.mkdir(exist_ok=True)
        return str(folder / (sha256(f"{self.folder.resolve()} {what}".encode()).hexdigest()[:24] + ".lock"))
