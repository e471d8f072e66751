"""Numbers about the graphs of a dataset, summed from what was noted when each was built."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from graphseg.data import Hierarchy, ImageGraph

__all__ = ["DatasetStatistics", "Spread", "class_weights", "graph_information", "summarize"]


@dataclass(frozen=True)
class Spread:
    """Of one number over graphs.

    Args:
        mean: NaN where there are no graphs.
        low: the least value.
        high: the largest.
        total: the sum.
    """

    mean: float
    low: float
    high: float
    total: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of values; NaN and 0 where there are none."""
        if not values:
            return cls(math.nan, math.nan, math.nan, 0)
        return cls(sum(values) / len(values), min(values), max(values), sum(values))


@dataclass(frozen=True)
class DatasetStatistics:
    """What a dataset holds.

    Args:
        graphs: how many.
        nodes, edges, pixels: of a graph.
        bytes: that a graph takes in the file.
        seconds: that a graph took to build: of "read", "convert" and "pack".
        purity: mean over nodes with a labelled pixel of the share of the majority class; NaN without labels.
        oracle: `pixel_accuracy` and `mean_iou` over all pixels of all graphs when every node has its majority class;
            `mean_iou` over the classes that occur.
        classes: for each class its name, labelled pixels and nodes (of that majority).
    """

    graphs: int
    nodes: Spread
    edges: Spread
    pixels: Spread
    bytes: Spread
    seconds: dict[str, Spread]
    purity: float
    oracle: dict[str, float]
    classes: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; numbers that are not there (NaN) are None."""
        return _without_nan(asdict(self))


def graph_information(graph: ImageGraph) -> dict[str, Any]:
    """What is noted of one graph: sizes; of labels, class by class, pixels, right ones, predicted ones and nodes.

    Args:
        graph: with `label_counts` or without.
    """
    info: dict[str, Any] = {"nodes": graph.num_nodes, "edges": graph.num_edges, "pixels": graph.num_pixels}
    counts = graph.get("label_counts")
    if counts is None:
        return info
    if isinstance(graph, Hierarchy):
        counts = counts[graph.level == graph.num_levels - 1]
    counts = counts.to(torch.int64) if counts.size(0) < 1 << 16 else counts
    sums = counts.sum(1, dtype=torch.int64)
    labelled = sums > 0
    best, majority = counts.max(1) if counts.numel() else (sums, sums)
    best, majority, sums = best[labelled].to(torch.int64), majority[labelled], sums[labelled]
    K = counts.size(1)
    return info | {
        "classes": {
            "pixels": counts.sum(0, dtype=torch.int64).tolist(),
            "correct": torch.zeros(K, dtype=torch.int64).index_add_(0, majority, best).tolist(),
            "predicted": torch.zeros(K, dtype=torch.int64).index_add_(0, majority, sums).tolist(),
            "nodes": torch.bincount(majority, minlength=K).tolist(),
        },
        "labelled_nodes": int(labelled.sum()),
        "purity": float((best.double() / sums).sum()),  # over labelled nodes
    }


def summarize(found: Sequence[str], num_classes: int, class_names: Sequence[str]) -> DatasetStatistics:
    """The statistics of graphs.

    Args:
        found: what `graph_information` said of each, as JSON.
        num_classes: K.
        class_names: K names, or none.
    """
    notes = [json.loads(text) for text in found]
    columns = {key: Spread.of([note[key] for note in notes]) for key in ("nodes", "edges", "pixels", "bytes")}
    seconds = {key: Spread.of([note["seconds"][key] for note in notes]) for key in ("read", "convert", "pack")}
    sums = _class_sums(notes, num_classes)
    true, correct, predicted, nodes = (sums[key] for key in ("pixels", "correct", "predicted", "nodes"))
    occurs = true > 0
    oracle = {"pixel_accuracy": math.nan, "mean_iou": math.nan}
    if bool(occurs.any()):
        iou = correct[occurs].double() / (true + predicted - correct)[occurs]
        oracle = {"pixel_accuracy": int(correct.sum()) / int(true.sum()), "mean_iou": float(iou.mean())}
    labelled = sum(note.get("labelled_nodes", 0) for note in notes)
    names = list(class_names) or [str(k) for k in range(num_classes)]
    return DatasetStatistics(
        graphs=len(notes),
        seconds=seconds,
        purity=sum(note.get("purity", 0.0) for note in notes) / labelled if labelled else math.nan,
        oracle=oracle,
        classes=[
            {"name": name, "pixels": int(p), "nodes": int(n)} for name, p, n in zip(names, true, nodes, strict=True)
        ],
        **columns,
    )


def class_weights(found: Sequence[str], num_classes: int, method: str) -> Tensor:
    """`[K]`, as `ImageGraphDataset.class_weights` says.

    Args:
        found: what `graph_information` said of each graph, as JSON.
        num_classes: K.
        method: "inverse" or "median_frequency".
    """
    notes = [json.loads(text) for text in found]
    if num_classes == 0:
        raise ValueError("got graphs without labels, expected label_counts in each")
    pixels = _class_sums(notes, num_classes)["pixels"].double()
    occurs = pixels > 0
    if not bool(occurs.any()):
        return torch.zeros(num_classes)
    if method == "inverse":
        weight = pixels.sum() / (occurs.sum() * pixels)
    else:
        counts = torch.tensor([note["classes"]["pixels"] for note in notes], dtype=torch.float64)  # [images, K]
        seen = ((counts > 0) * counts.sum(1, keepdim=True)).sum(0)  # labelled pixels of images where a class occurs
        frequency = pixels / seen
        weight = frequency[occurs].quantile(0.5) / frequency
    return weight.where(occurs, 0).float()


def _class_sums(notes: Sequence[dict[str, Any]], num_classes: int) -> dict[str, Tensor]:
    sums = {}
    for key in ("pixels", "correct", "predicted", "nodes"):
        rows = [note["classes"][key] for note in notes if "classes" in note]
        sums[key] = torch.tensor(rows, dtype=torch.int64).view(len(rows), num_classes).sum(0)
    return sums


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
