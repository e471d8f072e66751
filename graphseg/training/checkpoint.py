"""Files of trained networks: written whole or not at all, and read without running code from them.

Two kinds of file are read alike: a training's checkpoints, with optimiser and all, and the network alone, as
`save_network` writes it. Each says under "graphseg" which network it is, so that it can be made again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from graphseg.datasets.whole_file import whole_file
from graphseg.models.tensor_file import read_tensors

__all__ = ["NetworkInfo", "load_network", "read_checkpoint", "save_network"]

KEY, PREFIX, VERSION = "graphseg", "network.", 1


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """What a file says of its network beside the weights.

    Args:
        network: its class in `graphseg.models`.
        options: its keyword arguments, plain values.
        kind: "semantic", "unsupervised" or "instances".
        recipe: the recipe's values.
        class_names: of the data it learnt from, or none.
        seed: of the training.
    """

    network: str
    options: Mapping[str, Any]
    kind: str = "semantic"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    seed: int = 0

    def values(self) -> dict[str, Any]:
        """All of it as plain values, for a file."""
        return {**asdict(self), "class_names": list(self.class_names), "version": VERSION}


def write_checkpoint(content: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a file: there is the whole one, or the one before."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        torch.save(dict(content), file)


def read_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a file, of which no code is run.

    Args:
        path: of a training's checkpoint or a saved network.
        map_location: where its tensors go.

    Raises:
        OSError: if it cannot be opened.
        ValueError: for a file that is cut off, or not graphseg's.
    """
    content = read_tensors(path, "a checkpoint", map_location)
    if not isinstance(content, dict) or not isinstance(content.get(KEY), dict) or "state_dict" not in content:
        raise ValueError(f"got {path}, expected a checkpoint of graphseg; this file was written by something else")
    if content[KEY].get("version") != VERSION:
        raise ValueError(f"got version {content[KEY].get('version')} of {path}, expected {VERSION}")
    return content


def save_network(network: Module, info: NetworkInfo, path: str | os.PathLike[str]) -> None:
    """Saves a network alone.

    Args:
        network: of `graphseg.models`.
        info: what it is.
        path: of the file.
    """
    state = {PREFIX + name: value for name, value in network.state_dict().items()}
    write_checkpoint({KEY: info.values(), "state_dict": state}, path)


def load_network(
    path: str | os.PathLike[str], network: Module | None = None, map_location: Any = "cpu"
) -> tuple[Module, NetworkInfo]:
    """The network of a file, in evaluation mode, and what the file says of it.

    Args:
        path: of a training's checkpoint or a saved network.
        network: one to load the weights into, where its backbone is not one of graphseg's. Default: the file's is made.
        map_location: where it goes.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: as for `read_checkpoint`, or if the weights are not those of the network.
    """
    content = read_checkpoint(path, map_location)
    known = content[KEY]
    names = [one.name for one in fields(NetworkInfo)]
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"got {path} without {missing[0]}, expected all that says which network it is")
    info = NetworkInfo(**{name: known[name] for name in names} | {"class_names": tuple(known["class_names"])})
    if network is None:
        network = make_network(info.network, info.options)
    state = {
        name.removeprefix(PREFIX): value for name, value in content["state_dict"].items() if name.startswith(PREFIX)
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"got {path} with weights that do not fit {type(network).__name__}: {reason}") from error
    return network.to(map_location).eval(), info


def make_network(name: str, options: Mapping[str, Any]) -> Module:
    """A network of `graphseg.models` by name."""
    from graphseg import models

    kinds = {one for one in models.__all__ if hasattr(getattr(models, one), "losses")}
    if name not in kinds:
        raise ValueError(f"got network {name!r}, expected one of {', '.join(sorted(kinds))}")
    found: Module = getattr(models, name)(**options)
    return found
