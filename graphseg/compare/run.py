"""The comparison: every construction over every image, measured in parallel; a probe of each; files and a page.

Measures of one image are kept in the folder as they come, under a hash of the image's files, the construction and the
options: a comparison that was interrupted goes on where it stopped, and one with another construction does only that.
"""

from __future__ import annotations

import copy
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data
from tqdm import tqdm

from graphseg._checks import check_positive_int, is_integer
from graphseg.compare.constructions import default_constructions
from graphseg.compare.kept import ResultLog, read_results, result_key
from graphseg.compare.measures import measure_graph
from graphseg.compare.overlay import overlay_picture, photograph_picture
from graphseg.compare.probe_run import ProbeOptions, probe_images, with_probe
from graphseg.compare.report import PHOTOGRAPH, write_report
from graphseg.compare.statistics import compare_all, summarize
from graphseg.compare.table import write_csv, write_json
from graphseg.data import ImageGraph
from graphseg.datasets import ImageFolder, ImageReader, Sample, count_classes
from graphseg.datasets.builder import locked, reason_of
from graphseg.datasets.content import recipe_of
from graphseg.datasets.packing import Layout, row_bytes
from graphseg.datasets.parallel import check_sendable, open_workers
from graphseg.transforms import ImageAugmentation, ImageTransform

__all__ = ["Comparison", "compare"]

KEPT = "measures.jsonl"
COMPARED = ("oracle_miou", "boundary_recall", "explained_variation", "probe_image_miou")
_warm: set[str] = set()  # constructions that have run in this process: the first call compiles, and is not timed

_CORRECTED = "p-values are corrected (Holm) for all pairs of one measure, not for the number of measures."

Construction = Callable[[Data], ImageGraph]
Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        records: dicts of `construction, measure, mean, std, low, high, count`; `pandas.DataFrame(records)` takes them.
            `low` and `high` bound the 95 % confidence interval of the mean, over images; of `probe_miou` and
            `probe_accuracy`, which are of all held-out pixels together, over seeds.
        rows: dicts of one image and construction, with its measures, or an `error`.
        comparisons: dicts of two constructions, tested on the same images, with a `sentence`.
        notes: what a reader should know.
    """

    records: list[Row]
    rows: list[Row]
    comparisons: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Options:
    """What decides over the measures of one image, beside the image and the construction."""

    ignore_index: int | None
    num_sources: int
    seed: int


def compare(
    images: ImageReader | Sequence[Data] | str | Path,
    constructions: Mapping[str, Construction] | None = None,
    *,
    labels: str | Path | None = None,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    out: str | Path | None = None,
    probing: bool | ProbeOptions = True,
    workers: int = 1,
    seed: int = 0,
    num_pictures: int = 4,
    progress: bool | None = None,
    command: str = "",
) -> Comparison:
    """Measures graph constructions on one's own images.

    Args:
        images: a folder, a reader, or a list of `Data(image=, mask=, source=)`.
        constructions: name to transform; default `default_constructions()`. Transforms that were given no
            `num_classes`, or no `ignore_index`, get those of the images.
        labels: the folder of masks that belong to a folder of images.
        num_classes: K of the masks; default: the largest label + 1, or what the reader says.
        ignore_index: mask value of no class; default: what the reader says.
        out: the folder for results.json, results.csv, images.csv, comparisons.json, plots and report.html; made if it
            is not there. None: nothing is written, and nothing can be resumed.
        probing: whether to train the probe, and its budget. It needs labels of at least two classes and two images.
        workers: processes; results do not depend on it, times may.
        seed: of everything that is drawn.
        num_pictures: how many images the report shows.
        progress: show bars; None: where standard error is a terminal.
        command: the words that started this, for the report.

    Returns:
        Records, rows and paired comparisons.

    Raises:
        ValueError, TypeError: for arguments that do not fit together, before any work.
        OSError: for folders that cannot be read or written.
    """
    check_positive_int("workers", workers)
    check_positive_int("seed", seed, minimum=0)
    check_positive_int("num_pictures", num_pictures, minimum=0)
    if num_classes is not None:
        check_positive_int("num_classes", num_classes)
    if ignore_index is not None and not is_integer(ignore_index):
        raise TypeError(f"got {type(ignore_index).__name__} for ignore_index, expected an int or None")
    if not isinstance(probing, bool | ProbeOptions):
        raise TypeError(f"got {type(probing).__name__} for probing, expected a bool or ProbeOptions")
    if constructions is not None:
        _check_constructions(constructions, workers)
    reader = _as_reader(images, labels, num_classes, ignore_index)
    K, ignored = reader.num_classes, reader.ignore_index
    chosen = default_constructions(K, ignored) if constructions is None else dict(constructions)
    chosen = {name: _with_labels(transform, K, ignored) for name, transform in chosen.items()}
    folder = None if out is None else Path(out)
    if folder is not None:
        if isinstance(images, str | Path) and folder.resolve().is_relative_to(Path(images).resolve()):
            raise ValueError(f"got out={folder} inside {images}, expected another place: its pictures would be images")
        folder.mkdir(parents=True, exist_ok=True)
    options = _Options(ignored, 16, seed)
    silent = None if progress is None else not progress
    with nullcontext() if folder is None else locked(folder), open_workers(workers) as pool:
        tasks = _Tasks(reader, chosen, options, folder)
        rows = tasks.run(pool, silent)
        notes = [f"{bad.file}: {bad.reason}" for bad in reader.bad_files]
        records = summarize(rows)
        if probing:
            budget = ProbeOptions() if probing is True else probing
            ids, why_not = probe_images(reader, rows, budget, seed)
            if why_not:
                notes.append(f"No probe: {why_not}.")
            else:
                records = with_probe(pool, reader, chosen, ids, budget, seed, rows, notes, folder, silent)
        comparisons = [pair for name in COMPARED if any(name in r for r in rows) for pair in compare_all(rows, name)]
        result = Comparison(records, rows, comparisons, notes)
        if folder is not None:
            pictures = _pictures(pool, reader, chosen, num_pictures, rows)
            _write(result, folder, pictures, command, len(reader))
    return result


# images


class _GivenImages(ImageReader):
    """Images that are in memory already."""

    def __init__(self, images: Sequence[Data], num_classes: int | None, ignore_index: int | None) -> None:
        names = [str(data.get("source") or i) for i, data in enumerate(images)]
        super().__init__([Sample(name, {}) for name in names], num_classes=num_classes, ignore_index=ignore_index)
        self.given = dict(zip(names, images, strict=True))

    def single(self, index: int) -> _GivenImages:
        one = super().single(index)
        one.given = {name: self.given[name] for name in (s.source for s in one.samples)}
        return one

    def read(self, sample: Sample) -> Data:
        return copy.copy(self.given[sample.source])


def _as_reader(
    images: ImageReader | Sequence[Data] | str | Path,
    labels: str | Path | None,
    num_classes: int | None,
    ignore_index: int | None,
) -> ImageReader:
    if isinstance(images, str | Path):
        reader: ImageReader = ImageFolder(images, labels, num_classes=num_classes, ignore_index=ignore_index)
        if labels is not None and num_classes is None:
            num_classes = count_classes(reader)
            reader = ImageFolder(images, labels, num_classes=num_classes, ignore_index=ignore_index)
        return reader
    if labels is not None:
        raise ValueError(f"got labels={str(labels)!r} beside {type(images).__name__}, expected them only with a folder")
    if isinstance(images, ImageReader):
        if images.transform is not None:
            raise ValueError("got a reader with a transform, expected one that gives images as they are")
        for name, given, own in (
            ("num_classes", num_classes, images.num_classes),
            ("ignore_index", ignore_index, images.ignore_index),
        ):
            if given is not None and own is not None and given != own:
                raise ValueError(f"got {name}={given}, expected {own} as the reader has")
        reader = copy.copy(images)
        reader.ignore_index = images.ignore_index if ignore_index is None else ignore_index
        if reader.num_classes is None and any("mask" in reader.samples[i].files for i in reader.indices()):
            num_classes = count_classes(reader) if num_classes is None else num_classes
        reader.set_num_classes(images.num_classes or num_classes)
        return reader
    images = list(images)
    if not images:
        raise ValueError("got no images, expected at least one")
    for data in images:
        if not isinstance(data, Data):
            raise TypeError(f"got {type(data).__name__} among the images, expected Data(image=, mask=)")
    if num_classes is None:
        masks = [torch.as_tensor(data.mask).to(torch.int64) for data in images if data.get("mask") is not None]
        known = [mask if ignore_index is None else mask[mask != ignore_index] for mask in masks]
        num_classes = max((int(mask.max()) + 1 for mask in known if mask.numel()), default=None)
    return _GivenImages(images, num_classes, ignore_index)


def _check_constructions(constructions: Mapping[str, Construction], workers: int) -> None:
    """What would spoil every image is refused before the first."""
    if not isinstance(constructions, Mapping):
        raise TypeError(f"got {type(constructions).__name__} for constructions, expected names to transforms")
    if not constructions:
        raise ValueError("got no constructions, expected at least one")
    for name, transform in constructions.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"got {name!r} for the name of a construction, expected words")
        if not callable(transform) or isinstance(transform, type):
            got = f"the class {transform.__name__}" if isinstance(transform, type) else type(transform).__name__
            raise TypeError(f"got {got} for construction {name!r}, expected a transform")
        if isinstance(transform, ImageAugmentation):
            raise TypeError(f"got {type(transform).__name__} for construction {name!r}, expected no random steps")
        if workers > 1:
            check_sendable(f"construction {name!r}, which", transform)


def _with_labels(transform: Construction, K: int | None, ignored: int | None) -> Construction:
    if not isinstance(transform, ImageTransform):
        return transform
    transform = copy.copy(transform)
    if transform.num_classes is None:
        transform.num_classes = K
    if transform.ignore_index is None:
        transform.ignore_index = ignored
    return transform


# measures


class _Tasks:
    """All measurements, those that are known already among them."""

    def __init__(
        self, reader: ImageReader, constructions: Mapping[str, Construction], options: _Options, folder: Path | None
    ) -> None:
        self.reader = reader
        self.constructions = dict(constructions)
        self.path = None if folder is None else folder / KEPT
        self.options = options
        self.known = dict(read_results(self.path))

    def run(self, pool: Any, silent: bool | None) -> list[Row]:
        rows: dict[tuple[int, str], Row] = {}
        pending = []
        recipes = {name: recipe_of(self.reader, transform) for name, transform in self.constructions.items()}
        for i in range(len(self.reader)):
            one = self.reader.single(i)
            for name, transform in self.constructions.items():
                key = result_key(one, recipes[name], asdict(self.options))
                row = self.known.get(key) if key is not None else None
                if row is None:
                    pending.append((one, name, transform, self.options, i, key))
                else:
                    rows[i, name] = _about(one, name) | row
        total = len(self.reader) * len(self.constructions)
        with (
            tqdm(total=total, initial=len(rows), unit=" graphs", desc="measuring", disable=silent) as bar,
            ResultLog(self.path) as log,
        ):
            for task, found in pool.run(_measure, pending):
                one, name, _, _, i, key = task
                row = {"error": found} if isinstance(found, str) else found
                rows[i, name] = _about(one, name) | row
                log.write(key, row)
                bar.update()
        return [rows[i, name] for name in self.constructions for i in range(len(self.reader))]


def _about(one: ImageReader, name: str) -> Row:
    sample = one.samples[0]
    return {"construction": name, "image": sample.source, "split": sample.split}


def _measure(one: ImageReader, name: str, transform: Construction, options: _Options, *_: Any) -> Row:
    """All measures of one construction on one image, or what went wrong."""
    try:
        data = one[0]
        if name not in _warm:
            transform(copy.copy(data))
            _warm.add(name)
        start = time.perf_counter()
        graph = transform(copy.copy(data))
        seconds = time.perf_counter() - start
        if not isinstance(graph, ImageGraph):
            raise TypeError(f"got {type(graph).__name__} from the construction, expected an ImageGraph")
        layout = Layout.of(graph)
        stored = row_bytes(layout.pack(graph))
        found = measure_graph(
            graph, data, ignore_index=options.ignore_index, num_sources=options.num_sources, seed=options.seed
        )
        return {"seconds": seconds, "bytes_disk": float(stored), **found}
    except Exception as error:
        return {"error": reason_of(error)}


# pictures and files


def _pictures(
    pool: Any, reader: ImageReader, constructions: Mapping[str, Construction], count: int, rows: Sequence[Row]
) -> dict[str, dict[str, bytes]]:
    """Overlays of every construction over some images, taken evenly."""
    count = min(count, len(reader))
    ids = [round(k * (len(reader) - 1) / max(count - 1, 1)) for k in range(count)]
    failed = {(row["construction"], row["image"]) for row in rows if "error" in row}
    tasks: list[tuple[ImageReader, str, Construction | None]] = []
    for i in ids:
        one = reader.single(i)
        source = one.samples[0].source
        tasks.append((one, PHOTOGRAPH, None))
        tasks += [(one, name, t) for name, t in constructions.items() if (name, source) not in failed]
    drawn = {}
    for (one, name, _), picture in pool.run(_draw, tasks):
        if isinstance(picture, bytes):
            drawn[one.samples[0].source, name] = picture
    found: dict[str, dict[str, bytes]] = {}
    for one, name, _ in tasks:
        source = one.samples[0].source
        if (source, name) in drawn:
            found.setdefault(source, {})[name] = drawn[source, name]
    return {source: pictures for source, pictures in found.items() if PHOTOGRAPH in pictures}


def _draw(one: ImageReader, name: str, transform: Construction | None) -> bytes | None:
    try:
        data = one[0]
        return photograph_picture(data.image) if transform is None else overlay_picture(transform(data))
    except Exception:  # its row says why
        return None


def _write(
    result: Comparison, folder: Path, pictures: Mapping[str, Mapping[str, bytes]], command: str, count: int
) -> None:
    from graphseg.compare.plots import write_plots

    write_json(folder / "results.json", result.records)
    write_csv(folder / "results.csv", result.records)
    write_csv(folder / "images.csv", result.rows)
    write_json(folder / "comparisons.json", result.comparisons)
    write_plots(result.records, folder)
    write_report(
        folder / "report.html",
        title=f"Graph constructions over {count} image{'s' if count != 1 else ''}",
        records=result.records,
        rows=result.rows,
        comparisons=result.comparisons,
        pictures=pictures,
        command=command,
        versions=versions(),
        notes=result.notes + ([_CORRECTED] if result.comparisons else []),
    )


def versions() -> dict[str, str]:
    """What made the results: packages, Python and the machine."""
    found = {"Python": platform.python_version()}
    for package in ("graphseg", "torch", "torch-geometric", "scikit-image", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "from source"
    return {**found, "machine": f"{platform.machine()}, {os.cpu_count()} cores, {sys.platform}"}
