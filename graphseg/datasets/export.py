"""Graphs as files that PyG reads without graphseg."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from graphseg.data import ImageGraph

__all__ = ["export_graphs", "plain_fields"]

# PyG shifts what is called "index" when it makes batches, and joins it along the last dimension.
_IDS = {"assignment": "assignment_index", "parent": "parent_index", "scale_assignment": "scale_assignment_index"}


def plain_fields(graph: ImageGraph) -> dict[str, Any]:
    """The fields of a graph for PyG's `Data`; those that hold ids of nodes end in `_index`, `[L, P]` for scales.

    Args:
        graph: any.
    """
    return {
        _IDS.get(key, key): value.T.contiguous() if key == "scale_assignment" else value
        for key, value in graph.to_dict().items()
    }


def export_graphs(
    graphs: Iterable[ImageGraph], names: Sequence[tuple[str, str]], about: dict[str, Any], folder: Path
) -> Path:
    """Writes every graph to `folder`, or, if anything goes wrong, nothing; see `ImageGraphDataset.export`.

    Args:
        graphs: taken one by one.
        names: source and split of each.
        about: of the dataset: class names and pipeline go along.
        folder: must not be there yet, or be empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"got {folder}, expected a folder that is empty or not there")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        listed = []
        for i, (graph, (source, split)) in enumerate(zip(graphs, names, strict=True)):
            torch.save(plain_fields(graph), made / f"{i:06d}.pt")
            listed.append({"file": f"{i:06d}.pt", "source": source, "split": split})
        content = {"graphs": listed, "class_names": about.get("class_names", []), "pipeline": about.get("pipeline")}
        (made / "graphs.json").write_text(json.dumps(content, indent=1), "utf-8")
        made.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return folder
