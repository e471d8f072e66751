"""The probe in a comparison: which images take part, a task for each construction, and what it adds to the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data
from tqdm import tqdm

from graphseg._checks import check_positive_int
from graphseg.compare.kept import VERSION, ResultLog, read_results, result_key
from graphseg.compare.probing import probe, probe_splits
from graphseg.compare.statistics import summarize
from graphseg.data import ImageGraph
from graphseg.datasets import ImageReader
from graphseg.datasets.builder import reason_of
from graphseg.datasets.content import recipe_of

__all__ = ["ProbeOptions"]

_MEMORY = 2 << 30  # bytes of graphs that a probe keeps; of others it makes some again

Construction = Callable[[Data], ImageGraph]
Row = dict[str, Any]


@dataclass(frozen=True)
class ProbeOptions:
    """The probe's budget, the same for every construction; see `graphseg.compare.probing`.

    Args:
        images: at most so many take part, drawn with the seed.
        steps: of training.
        seeds: how many networks.
        folds: of the cross-validation, where images have no splits.
        pixels: that a step reads of each image.
        edges: constructions whose graphs have more on average, both directions counted, are not probed: their training
            would take hours. The default leaves out the affinity graph of images beyond 300 x 300.

    Raises:
        ValueError, TypeError: for fewer than two images or folds, or none of the others.
    """

    images: int = 60
    steps: int = 200
    seeds: int = 3
    folds: int = 3
    pixels: int = 4096
    edges: int = 2_000_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_positive_int(name, value, minimum=2 if name in ("images", "folds") else 1)


class _Graphs(Sequence[ImageGraph]):
    """The graphs of one construction, made when they are asked for, and kept while there is room."""

    def __init__(self, reader: ImageReader, transform: Construction) -> None:
        self.reader = reader
        self.transform = transform
        self.kept: dict[int, ImageGraph] = {}
        self.room = _MEMORY

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: Any) -> Any:
        if index in self.kept:
            return self.kept[index]
        graph = self.transform(self.reader[index])
        for key in ("edge_attr", "pixel_x", "annotations"):  # the probe does not read them
            if key in graph:
                del graph[key]
        self.room -= sum(value.nbytes for _, value in graph if torch.is_tensor(value))
        if self.room > 0:
            self.kept[index] = graph
        return graph


def probe_images(
    reader: ImageReader, rows: Sequence[Row], budget: ProbeOptions, seed: int
) -> tuple[list[int], str | None]:
    """The images that take part, or why there is no probe: those on which every construction worked at all."""
    if reader.num_classes is None:
        return [], "the images have no labels of classes"
    if reader.num_classes < 2:
        return [], f"got {reader.num_classes} class, expected at least 2"
    all_failed = {row["construction"] for row in rows} - {row["construction"] for row in rows if "error" not in row}
    failed = {row["image"] for row in rows if "error" in row and row["construction"] not in all_failed}
    sources = [reader.samples[i].source for i in reader.indices()]
    labelled = {row["image"] for row in rows if row.get("purity") is not None}
    ids = [i for i, name in enumerate(sources) if name not in failed and name in labelled]
    splits = [reader.samples[i].split for i in reader.indices()]
    held = next((name for name in ("val", "test") if any(splits[i] == name for i in ids)), None)
    parts = [ids]
    if held is not None and any(splits[i] == "train" for i in ids):  # as `probe_splits` will use them
        parts = [[i for i in ids if splits[i] == name] for name in ("train", held)]
    draw = np.random.default_rng(seed)
    left = budget.images
    drawn: list[tuple[int, list[int]]] = []
    for k, part in sorted(
        enumerate(parts), key=lambda entry: len(entry[1])
    ):  # what the smaller leaves goes to the other
        count = min(len(part), left // (len(parts) - len(drawn)))
        drawn.append((k, sorted(draw.choice(part, count, replace=False).tolist())))
        left -= count
    ids = sorted(i for _, part in drawn for i in part)
    return (ids, None) if len(ids) >= 2 else (ids, f"got {len(ids)} images with labels and graphs, expected at least 2")


def _probe_notes(
    samples: Sequence[tuple[str, str]], results: Sequence[Row], budget: ProbeOptions, seed: int
) -> list[str]:
    """What was trained on and judged, and what no learning at all would have scored."""
    splits = probe_splits([split for _, split in samples], budget.folds, seed)
    if len(splits) == 1:
        how = f"trained on {len(splits[0][0])} images (train) and judged on {len(splits[0][1])}"
    else:
        how = f"{len(splits)}-fold cross-validation over {len(samples)} images"
    notes = [f"The probe: {how}, {budget.steps} steps, {budget.seeds} seeds. What it says holds at this budget."]
    floors = [result["floor"] for result in results if "floor" in result]
    if floors:
        miou, accuracy = floors[0]["probe_miou"], floors[0]["probe_accuracy"]
        notes.append(f"The most frequent class everywhere would score mIoU {miou:.3f}, accuracy {accuracy:.3f}.")
    return notes


def with_probe(
    pool: Any,
    reader: ImageReader,
    constructions: Mapping[str, Construction],
    ids: Sequence[int],
    budget: ProbeOptions,
    seed: int,
    rows: list[Row],
    notes: list[str],
    folder: Path | None,
    silent: bool | None,
) -> list[Row]:
    """Adds the probe's scores to rows, and gives the records of all."""
    part = reader.index_select(list(ids))
    samples = [(part.samples[i].source, part.samples[i].split) for i in part.indices()]
    images = [result_key(part.single(i), recipe_of(part, None), None) for i in range(len(part))]
    path = None if folder is None else folder / "probes.jsonl"
    known = dict(read_results(path))
    worked = {row["construction"] for row in rows if "error" not in row}
    tasks: list[tuple[Any, ...]] = []
    found: dict[str, Row] = {}
    for name, transform in constructions.items():
        if name not in worked:
            continue
        edges = np.mean([row["edges"] for row in rows if row["construction"] == name and "error" not in row])
        if edges > budget.edges:
            found[name] = {
                "error": f"got {edges:,.0f} edges an image, expected at most {budget.edges:,} (ProbeOptions.edges)"
            }
            continue
        labels = [reader.num_classes, reader.ignore_index]
        spent = {key: value for key, value in asdict(budget).items() if key != "edges"}
        words = [VERSION, recipe_of(reader, transform), images, samples, spent, seed, labels]
        key = None if None in images else hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
        if key in known:
            found[name] = known[key]
        else:
            tasks.append((part, name, transform, budget, seed, key))
    with (
        tqdm(total=len(tasks) + len(found), initial=len(found), unit=" probes", desc="probing", disable=silent) as bar,
        ResultLog(path) as log,
    ):
        for task, result in pool.run(_probe, tasks):
            found[task[1]] = {"error": result} if isinstance(result, str) else result
            log.write(task[5], found[task[1]])
            bar.update()
    notes += _probe_notes(samples, list(found.values()), budget, seed)
    by_name = {(row["construction"], row["image"]): row for row in rows}
    of_seeds = []
    for name in constructions:
        result = found.get(name, {})
        if "error" in result:
            notes.append(f"No probe of {name}: {result['error']}")
        for row in result.get("rows", ()):
            by_name[name, row["image"]] |= {k: v for k, v in row.items() if k != "image"}
        for measure, values in result.get("scores", {}).items():
            of_seeds += [{"construction": name, "image": f"seed {s}", measure: v} for s, v in enumerate(values)]
    records = summarize(rows) + summarize(of_seeds)
    order = {name: k for k, name in enumerate(constructions)}
    return sorted(records, key=lambda record: order[record["construction"]])


def _probe(part: ImageReader, name: str, transform: Construction, budget: ProbeOptions, seed: int, _: Any) -> Row:
    """The probe's scores: of every seed, and of every held-out image."""
    try:
        samples = [part.samples[i] for i in part.indices()]
        splits = probe_splits([sample.split for sample in samples], budget.folds, seed)
        result = probe(
            _Graphs(part, transform),
            splits,
            num_classes=int(part.num_classes or 0),
            ignore_index=part.ignore_index,
            seeds=[seed + s for s in range(budget.seeds)],
            steps=budget.steps,
            pixels=budget.pixels,
        )
        rows = [{**row, "image": samples[row["image"]].source} for row in result.rows()]
        floor = result.floor().scores()
        return {
            "rows": rows,
            "scores": {key: values.tolist() for key, values in result.scores().items()},
            "floor": {key: float(values[0]) for key, values in floor.items() if key != "probe_epoch_seconds"},
        }
    except Exception as error:
        return {"error": reason_of(error)}
