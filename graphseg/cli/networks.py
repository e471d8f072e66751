"""What the commands around trained networks share: what they need, and the network that a file holds."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from graphseg.training import NetworkInfo, Recipe

__all__ = ["add_network", "check_training", "open_network"]


def add_network(command: argparse.ArgumentParser) -> None:
    """Adds the options of a trained network and how it is used.

    Args:
        command: which uses it.
    """
    network = command.add_argument_group("network")
    network.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="of graphseg train")
    network.add_argument(
        "--scales", type=float, nargs="+", default=[1.0], metavar="S", help="sizes to average over (default 1)"
    )
    network.add_argument("--flip", action="store_true", help="and over left and right")
    network.add_argument(
        "-p",
        "--parameter",
        action="append",
        metavar="NAME=VALUE",
        help="of finding instances: window=1, roi_size=null, refine=false, ...",
    )
    network.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, ... (default cuda where it is there)")


def check_training(command: str) -> None:
    """ImportError that says what to install, unless training can be imported.

    Args:
        command: which needs it.

    Raises:
        ImportError: without lightning or torchmetrics.
    """
    try:
        importlib.import_module("graphseg.training")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("lightning", "lightning_utilities", "torchmetrics"):
            raise ImportError(f'graphseg {command} needs {error.name}: pip install "graphseg[train]"') from error
        raise


def open_network(options: argparse.Namespace) -> tuple[Any, NetworkInfo, Recipe, torch.device]:
    """The network that `--checkpoint` names, what its file says of it, its recipe, and `--device`.

    Args:
        options: of `add_network`.

    Raises:
        OSError: for a file that is no checkpoint.
        ValueError: for a device that is not there.
    """
    import torch

    from graphseg.training import Recipe, load_network

    try:
        device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # of torch: no such device, no such kind
        reason = str(error).splitlines()[0]
        raise ValueError(f"got --device {options.device}, expected one that is there: {reason}") from error
    try:
        network, info = load_network(options.checkpoint)
        recipe = Recipe(**info.recipe)
    except (ValueError, TypeError, LookupError) as error:  # the file is to blame, not the words
        raise OSError(str(error)) from error
    return network, info, recipe, device
