"""The sets of the tables in memory: decoded once, brought to one size, with their superpixels; and batches of them.

What a batch holds follows from the seed and the step alone, so that every row sees the same images in the same order,
mirrored alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from graphseg.datasets import MSRC21, CamVid, ImageReader, Sentinel2
from graphseg.ops import multiscale_slic
from graphseg.ops.resize import resize_nearest

NO_CLASS = 255
CHUNK = 32  # images at once
HELD_OUT = 5  # the last fifth of every sequence of the training images; to choose learning rates on
# MSRC-21's classes as five kinds of ground and thing. Body and face are living, as the animals are.
MSRC_KINDS = {
    "vegetation": ("grass", "tree", "flower"),
    "sky": ("sky",),
    "ground and water": ("water", "road"),
    "building": ("building",),
    "living": ("cow", "sheep", "bird", "cat", "dog", "face", "body"),
    "thing": ("aeroplane", "car", "bicycle", "sign", "book", "chair", "boat"),
}
READERS = {"camvid": CamVid, "sentinel2_rgbnir": Sentinel2, "msrc21": MSRC21}


class Pictures(NamedTuple):
    """Images uint8 `[N, C, H, W]`, their masks int64 `[N, H, W]` (255: no class) and the names of the classes."""

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]


@lru_cache(maxsize=8)
def read_pictures(root: Path, dataset: str, split: str, size: tuple[int, int], tiles: int = 1) -> Pictures:
    """One part of a set, resized: images by area, masks by the nearest pixel.

    Args:
        root: folder of the sets.
        dataset: its folder.
        split: "train", "val", "test_dev"; or "fit" and "held_out", two parts of train.
        size: (height, width), of a tile if images are cut.
        tiles: along each side, into which images are cut.
    """
    reader = READERS[dataset](root / dataset)
    assert isinstance(reader, ImageReader)
    part = reader.split("train" if split in ("fit", "held_out") else split)
    chosen = list(part.indices())
    if split in ("fit", "held_out"):
        chosen = [i for i in chosen if (i in _held_out(reader, chosen)) == (split == "held_out")]
    ignored, images, masks = reader.ignore_index, [], []
    size = (size[0] * tiles, size[1] * tiles)
    for i in chosen:
        data = reader.get(i)
        images.append(interpolate(data.image[None].float(), size, mode="area")[0].round().byte())
        mask = resize_nearest(data.mask.long(), size)
        masks.append(mask.masked_fill(mask == ignored, NO_CLASS) if ignored is not None else mask)
    stack, names = torch.stack(masks), tuple(reader.class_names)
    if dataset == "msrc21":
        stack, names = _coarse(stack, names)
    return Pictures(_cut(torch.stack(images), tiles), _cut(stack, tiles), names)


@lru_cache(maxsize=16)
def read_superpixels(
    root: Path, dataset: str, split: str, size: tuple[int, int], counts: tuple[int, ...], compactness: float
) -> Tensor:
    """SLIC of the resized images at every count, int16 `[N, S, H, W]`.

    Args:
        root, dataset, split, size: as for `read_pictures`.
        counts: about how many, coarse to fine.
        compactness: of SLIC.
    """
    images = read_pictures(root, dataset, split, size).images
    scales = [torch.stack(multiscale_slic(part, counts, compactness), 1).short() for part in images.split(CHUNK)]
    return torch.cat(scales)


class Batches:
    """Batch number `step` of a training: the same for every network that is given the same seed.

    Images are drawn without replacement, epoch after epoch; each is mirrored with probability 1/2, its maps alike.

    Args:
        fields: "image" uint8 `[N, C, H, W]` and maps `[N, *, H, W]` of the same images, all of which are in a batch.
        batch: images in each; at most N.
        seed: of order and mirrors.
        flip: whether to mirror.
    """

    def __init__(self, fields: Mapping[str, Tensor], batch: int, seed: int, flip: bool = True) -> None:
        self.fields, self.batch, self.seed, self.flip = fields, batch, seed, flip
        self.count = len(fields["image"])
        if batch > self.count:
            raise ValueError(f"got batch={batch}, expected at most the {self.count} images")

    def __call__(self, step: int) -> dict[str, Tensor]:
        """ "image" float in [0, 1], the other fields int64.

        Args:
            step: from 0.
        """
        epoch, place = divmod(step, self.count // self.batch)
        order = torch.randperm(self.count, generator=generator(self.seed, 0, epoch))
        ids = order[place * self.batch : (place + 1) * self.batch]
        mirrored = torch.rand(self.batch, generator=generator(self.seed, 1, step)) < 0.5
        found = {}
        for name, values in self.fields.items():
            x = values[ids]
            if self.flip:
                x = torch.where(mirrored.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
            found[name] = x.float() / 255 if name == "image" else x.long()
        return found


def generator(*numbers: int) -> torch.Generator:
    """A stream of random numbers of its own for these numbers.

    Args:
        numbers: seed, purpose, step.
    """
    state = 0
    for number in numbers:
        state = (state * 1_000_003 + number + 1) % 2**61
    return torch.Generator().manual_seed(state)


def _held_out(reader: ImageReader, train: Sequence[int]) -> set[int]:
    """Ids of the last fifth of each sequence; the sequence is the name up to the first underscore."""
    sequences: dict[str, list[int]] = {}
    for i in train:
        sequences.setdefault(reader.samples[i].source.split("_")[0], []).append(i)
    return {i for ids in sequences.values() for i in ids[len(ids) - len(ids) // HELD_OUT :]}


def _cut(x: Tensor, tiles: int) -> Tensor:
    """`[N, *, H, W]` in tiles x tiles parts each, `[N tiles^2, *, H / tiles, W / tiles]`, row by row."""
    parts = [part for row in x.chunk(tiles, -2) for part in row.chunk(tiles, -1)]
    return torch.stack(parts, 1).flatten(0, 1)


def _coarse(masks: Tensor, names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Masks of 21 classes in the kinds of `MSRC_KINDS`."""
    kinds = tuple(MSRC_KINDS)
    kind_of = torch.full((NO_CLASS + 1,), NO_CLASS)
    for k, members in enumerate(MSRC_KINDS.values()):
        kind_of[[names.index(name) for name in members]] = k
    return kind_of[masks], kinds
