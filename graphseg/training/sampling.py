"""Which images a step sees and how they are changed: functions of the seed and the step, and of nothing else.

The images of a training stand in one endless row: all of them in a random order, then all in another, and so on. Step
t takes the next `batch_size` of the row; what is drawn for one is drawn from the seed and its place in the row. A
training that goes on at step t sees what it would have seen, whatever process loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from torch_geometric.data import Data

from graphseg._checks import check_positive_int
from graphseg.datasets import ImageReader

__all__ = ["AugmentedImages", "StepSampler", "mixed_seed"]

Place = tuple[int, int]  # in the row, and in the reader


def mixed_seed(*numbers: int) -> int:
    """A seed below 2^63 that depends on all of the numbers.

    Args:
        numbers: integers from 0.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class StepSampler(Sampler[list[Place]]):
    """The batches of the steps from `first_step` on, without end: lists of (place in the row, index of the image).

    Args:
        length: number of images.
        batch_size: of all processes together, a multiple of `world_size`.
        seed: of the orders.
        first_step: where to go on.
        rank, world_size: which of how many processes this is; each takes its part of every batch.

    Raises:
        ValueError: without images, or if the batch cannot be shared evenly.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int = 0, first_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        check_positive_int("length", length)
        check_positive_int("batch_size", batch_size)
        if batch_size % world_size:
            raise ValueError(f"got batch_size={batch_size} for {world_size} processes, expected a multiple of them")
        self.images, self.batch_size, self.seed, self.first_step = length, batch_size, seed, first_step
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[Place]]:
        share, step, row, order = self.batch_size // self.world_size, self.first_step, -1, torch.empty(0)
        while True:
            batch: list[Place] = []
            for place in range(
                step * self.batch_size + self.rank * share, step * self.batch_size + (self.rank + 1) * share
            ):
                if place // self.images != row:
                    row = place // self.images
                    generator = torch.Generator().manual_seed(mixed_seed(self.seed, 0, row))
                    order = torch.randperm(self.images, generator=generator)
                batch.append((place, int(order[place % self.images])))
            yield batch
            step += 1


class AugmentedImages(Dataset[Data]):
    """The images of a reader, each changed by what is drawn for its place in the row.

    Args:
        reader: of the images.
        augment: transforms that draw from torch's own generator; None: nothing is changed.
        prepare: is applied before, and draws nothing.
        seed: of the draws.
    """

    def __init__(
        self,
        reader: ImageReader,
        augment: Callable[[Data], Any] | None = None,
        prepare: Callable[[Data], Data] | None = None,
        seed: int = 0,
    ) -> None:
        self.reader, self.augment, self.prepare, self.seed = reader, augment, prepare, seed

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, item: Place | int) -> Data:
        place, index = (0, item) if isinstance(item, int) else item
        data = self.reader[index]
        if self.prepare is not None:
            data = self.prepare(data)
        if self.augment is None:
            return data
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed_seed(self.seed, 1, place))
            return self.augment(data)
