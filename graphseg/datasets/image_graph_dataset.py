"""ImageGraphDataset: graphs of many images in one file, built once, read at random."""

from __future__ import annotations

import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import OnDiskDataset

from graphseg._checks import check_choice
from graphseg.data import ImageGraph
from graphseg.datasets.builder import ERRORS, build_graphs
from graphseg.datasets.reader import BadFile, ImageReader
from graphseg.datasets.statistics import DatasetStatistics, class_weights, summarize
from graphseg.datasets.store import FILE, GraphDatabase, Store, explained, table_of

__all__ = ["ImageGraphDataset"]


class ImageGraphDataset(OnDiskDataset):
    """Graphs of images, kept in one SQLite file and read one by one; a PyG dataset.

        reader = ImageFolder("images", "masks", num_classes=3)
        dataset = ImageGraphDataset.build(reader, "graphs", ToSuperpixelRAG(200, num_classes=3), workers=2)
        dataset = ImageGraphDataset("graphs")  # later, and in other programs

    `dataset[i]` is an `ImageGraph`, `dataset[:10]`, `dataset[mask]` and `dataset.split("train")` are parts of it;
    `DataLoader` takes it, with any number of workers. The graphs stand in the order of the reader's images, those
    left out that could not be built. Reading never executes code from the file.

    Args:
        root: the folder that was built.
        transform: applied to every graph that is read.
        in_memory: read each graph once and keep it. `False` reads it from the file each time.

    Raises:
        FileNotFoundError: if nothing was built there.
        ValueError: for a file that graphseg has not written, or that is damaged.

    Warns:
        UserWarning: if the build has not ended; what is there so far is read.
    """

    def __init__(
        self, root: str | Path, transform: Callable[[ImageGraph], Any] | None = None, *, in_memory: bool = False
    ) -> None:
        super().__init__(str(root), transform, log=False)
        self._local = _Connections()
        self._kept: dict[int, ImageGraph] | None = {} if in_memory else None
        store = Store(Path(root))
        damaged = f"got {store.path}, which is damaged, expected a dataset of graphseg"
        try:
            with store.snapshot():
                self._recipe: str = store.meta("recipe", "")
                self.about: dict[str, Any] = store.meta("about", {})
                self.complete: bool = store.meta("complete", False)
                if not re.fullmatch("([0-9a-f]{64})?", str(self._recipe)) or not isinstance(self.about, dict):
                    raise ValueError(damaged)
                self._layout = store.layout(self._recipe)
                rows = store.rows("b.graph, e.source, e.split", self._recipe)
                self._expected = store.connection.execute("SELECT count(*) FROM entries").fetchone()[0]
        finally:
            store.close()
        if not all(isinstance(row[0], int) for row in rows) or (rows and self._layout is None):
            raise ValueError(damaged)
        self._rows = np.array([row[0] for row in rows], np.int64)
        self.sources: list[str] = [row[1] for row in rows]
        self._splits: list[str] = [row[2] for row in rows]
        if not self.complete:
            warnings.warn(
                f"the build of {root} has not ended: {len(rows)} of {self._expected} graphs are there; "
                "start it again to finish it",
                UserWarning,
                stacklevel=2,
            )

    @classmethod
    def build(
        cls,
        reader: ImageReader,
        root: str | Path,
        transform: Any,
        *,
        workers: int = 1,
        scheduler: str | None = None,
        progress: bool | None = None,
    ) -> Self:
        """Makes the graphs of all images, or those that are not there yet.

        A graph is kept under a hash of its image's files and of the recipe (the reader's options and the transform's
        parameters): what has changed is built anew, what has not is not. It may be killed at any moment, and started
        again. Two builds of one folder wait for each other.

        Args:
            reader: of the images.
            root: the folder to write; made if it is not there.
            transform: an `ImageTransform`, or a `Compose` that ends with one. Augmentation belongs to the reader's own
                `transform`, on the fly.
            workers: processes; results do not depend on it.
            scheduler: address of a Dask scheduler, whose workers make the graphs instead; they must see the images
                under the same paths. Needs the extra `cluster`.
            progress: show a bar; None: where standard error is a terminal.

        Returns:
            The dataset. Images without a graph are in `errors`, and in the folder's `errors.jsonl`.

        Raises:
            ValueError, TypeError: for arguments that do not fit together.
            OSError: for a folder that cannot be written or a full disk; what was built stays.
        """
        build_graphs(reader, Path(root), transform, workers=workers, scheduler=scheduler, progress=progress)
        return cls(root)

    # PyG's

    @property
    def processed_dir(self) -> str:
        return str(self.root)

    @property
    def processed_file_names(self) -> str:
        return FILE

    @property
    def db(self) -> GraphDatabase:
        """This thread's own connection to the file: none may be shared with a forked process or another thread."""
        found = getattr(self._local, "database", None)
        if found is None or self._local.process != os.getpid():
            if self._layout is None:
                raise IndexError("got an index, expected none: the dataset is empty")
            with explained(Path(self.processed_paths[0])):
                found = GraphDatabase(Path(self.processed_paths[0]), table_of(self._recipe), self._layout)
            self._local.database, self._local.process = found, os.getpid()
        return found

    def close(self) -> None:
        """Closes this thread's connection; reading opens it again."""
        if getattr(self._local, "process", None) == os.getpid():
            self._local.database.close()
        self._local = _Connections()

    def len(self) -> int:
        return len(self._rows)

    def get(self, idx: int) -> ImageGraph:
        if self._kept is not None:
            if idx not in self._kept:
                self._kept[idx] = self._read(idx)
            return self._kept[idx].clone()  # whoever writes into it leaves ours as it is
        return self._read(idx)

    def multi_get(self, indices: Iterable[int] | Tensor | slice, batch_size: int | None = None) -> list[Any]:
        if isinstance(indices, slice):
            indices = range(*indices.indices(self.len()))
        graphs = [self.get(int(i)) for i in indices]
        return graphs if self.transform is None else [self.transform(graph) for graph in graphs]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        # Of a part of the dataset: PyG's own takes them for those of the whole.
        own = self.indices()
        return self.multi_get([own[i] for i in indices])

    def _read(self, idx: int) -> ImageGraph:
        assert self._layout is not None or not len(self._rows)
        with explained(Path(self.processed_paths[0])):
            row = self.db.get(int(self._rows[idx]))
        assert self._layout is not None
        try:
            graph = self._layout.unpack(row)
        except ValueError as error:
            raise ValueError(f"{self.processed_paths[0]}: graph of {self.sources[idx]} is damaged: {error}") from error
        graph.source = self.sources[idx]
        for key in ("recipe", "recipe_hash"):
            if key in self.about:
                graph[key] = self.about[key]
        return graph

    @property
    def num_classes(self) -> int:
        """K of the labels; 0 without labels."""
        field = None if self._layout is None else self._layout.fields.get("label_counts")
        return 0 if field is None else field[1][1]

    # ours

    @property
    def class_names(self) -> list[str]:
        """K names; empty where nobody gave them."""
        return list(self.about.get("class_names", []))

    @property
    def splits(self) -> list[str]:
        """The splits that its graphs belong to."""
        return sorted({self._splits[i] for i in self.indices()} - {""})

    @property
    def errors(self) -> list[BadFile]:
        """What could not be built in the last build, from `errors.jsonl`."""
        path = Path(str(self.root)) / ERRORS
        if not path.is_file():
            return []
        return [BadFile(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]

    def split(self, name: str) -> Self:
        """The graphs of one split.

        Raises:
            ValueError: for a split that no graph belongs to.
        """
        ids = [n for n, i in enumerate(self.indices()) if self._splits[i] == name]
        if not ids:
            there = self.splits
            raise ValueError(f"got split {name!r}, expected {'one of ' + ', '.join(there) if there else 'none at all'}")
        return self.index_select(ids)

    def random_split(self, *shares: float, seed: int = 0) -> list[Self]:
        """Parts of these shares, drawn at random; every graph is in exactly one.

        Args:
            *shares: positive numbers that add up to 1.
            seed: the same seed gives the same parts.

        Raises:
            ValueError: for shares that do not add up to 1.
        """
        if not shares or not min(shares) > 0 or not abs(sum(shares) - 1) < 1e-6:
            raise ValueError(f"got shares {shares}, expected positive numbers that add up to 1")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        ends = [round(len(self) * sum(shares[: k + 1])) for k in range(len(shares))]
        return [self.index_select(sorted(order[a:b])) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    def class_weights(self, method: str = "inverse") -> Tensor:
        """A weight for every class, `[K]` float, from the labelled pixels of these graphs; 0 for classes without any.

        Args:
            method: "inverse": labelled pixels / (classes that occur * pixels of the class), so that weighted classes
                count alike. "median_frequency": median of the frequencies / frequency, a class's frequency being its
                share of the labelled pixels of the images where it occurs (Eigen and Fergus, 2015).

        Raises:
            ValueError: for graphs without labels, or another method.
        """
        check_choice("method", method, ("inverse", "median_frequency"))
        return class_weights(self._information("b.info"), self.num_classes, method)

    def stats(self) -> DatasetStatistics:
        """Nodes, edges, pixels, bytes and seconds, purity, oracle and classes, over these graphs."""
        return summarize(self._information("b.info"), self.num_classes, self.class_names)

    def files(self, index: int) -> dict[str, str]:
        """Role ("image", "mask", ...) to path: the files that graph `index` was made of."""
        found: dict[str, str] = json.loads(self._information("e.files")[index])
        return found

    def window(self, index: int) -> tuple[int, int, int, int] | None:
        """(y0, x0, height, width), the part of its files that graph `index` was made of; None for all."""
        found = json.loads(self._information("e.area")[index])
        return None if found is None else (found[0], found[1], found[2], found[3])

    def export(self, folder: str | Path) -> Path:
        """Writes every graph into a file of its own that PyG reads without graphseg.

        `Data.from_dict(torch.load("folder/000000.pt", weights_only=True))` is a graph of plain PyG. Fields that hold
        ids of nodes are called `assignment_index`, `parent_index` and `scale_assignment_index` (`[L, P]`) there: so
        PyG shifts them when it makes batches. `graphs.json` lists file, source and split.

        Args:
            folder: must not be there yet, or be empty.

        Returns:
            The folder.

        Raises:
            FileExistsError: for a folder with files in it.
        """
        from graphseg.datasets.export import export_graphs

        names = [(self.sources[i], self._splits[i]) for i in self.indices()]
        return export_graphs((self.get(i) for i in self.indices()), names, self.about, Path(folder))

    def _information(self, column: str) -> list[str]:
        store = Store(Path(str(self.root)))
        try:
            rows = store.rows(f"b.graph, {column}", self._recipe)
        finally:
            store.close()
        if [row[0] for row in rows] != self._rows.tolist():
            raise LookupError(f"got {self.root}, which was built anew since it was opened; open it again")
        return [rows[i][1] for i in self.indices()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {len(self)} graphs)"


class _Connections(threading.local):
    """What a thread has open; a copy, another process's too, starts with nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Connections, ()

    def __copy__(self) -> _Connections:
        return _Connections()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Connections:
        return _Connections()
