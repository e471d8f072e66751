"""What a run and a table are: plain data, from which runs are named, hashed and put into tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """What all runs of one data set share: the same images, steps and optimiser, so that budgets are equal.

    Args:
        dataset: the folder of the set.
        task: "semantic", "unsupervised" or "instances".
        size: (height, width) in pixels that images are brought to; of crops, where images keep their size.
        steps: of training.
        batch: images in each.
        optimizer: "sgd" (momentum 0.9) or "adamw".
        rates: learning rate of each group of parameters that the network names.
        weight_decay: of the optimiser.
        power: of the poly schedule, (1 - step / steps) ^ power.
        options: whatever else the task takes.
        judged_on: the split of the figures; no choice was made on it.
        note: how the numbers above were chosen, in words; changes no run.
    """

    dataset: str
    task: str
    size: tuple[int, int]
    steps: int
    batch: int
    optimizer: str
    rates: Mapping[str, float]
    weight_decay: float = 5e-4
    power: float = 0.9
    options: Mapping[str, Any] = field(default_factory=dict)
    judged_on: str = "test_dev"
    note: str = ""


@dataclass(frozen=True)
class Setup:
    """One row's run: a network of `graphseg.models` (or "module:Class"), its options, and what it starts from.

    Args:
        name: of the run, within its data set.
        network: name of the class.
        options: keyword arguments of its constructor.
        base: name of the run whose initial weights and data it shares; None: it is one itself.
        seeds: how many are wanted.
        changes: of the protocol's options, for this run only.
        extra: whether it comes after all others, as it is in none of the main tables.
    """

    name: str
    network: str
    options: Mapping[str, Any]
    base: str | None = None
    seeds: int = 5
    changes: Mapping[str, Any] = field(default_factory=dict)
    extra: bool = False

    def key(self, protocol: Protocol, base: Setup | None = None) -> str:
        """Hash of everything that decides over the run's figures, but the seed; another one is another run.

        Args:
            protocol: of the data set.
            base: the run it starts from.
        """
        shared = {k: v for k, v in asdict(protocol).items() if k != "note"}
        parts = [shared, self.network, self.options, self.changes]
        if base is not None:
            parts += [base.network, base.options]
        text = json.dumps(parts, sort_keys=True, default=dict)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Args:
        run: name of its run; "run/variant" where a run has several results.
        label: as the page shows it.
        paper: the paper's own figure of the first metric, in per cent; None where it has none.
    """

    run: str
    label: str
    paper: float | None = None


@dataclass(frozen=True)
class Table:
    """A paper's table in the small. The first line is what the others are compared with.

    Args:
        paper: its short name.
        number: of the table, as the paper counts; several may be joined.
        dataset: folder of the set.
        title: what it asks.
        lines: of the table.
        metrics: names; the first is the paper's own.
        paper_set: the data of the paper's figures.
        note: what else a reader must know.
    """

    paper: str
    number: str
    dataset: str
    title: str
    lines: Sequence[Line]
    metrics: Sequence[str]
    paper_set: str
    note: str = ""

    @property
    def key(self) -> str:
        """Name of the table."""
        return f"{self.paper} {self.number} {self.dataset}"
