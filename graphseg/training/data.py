"""Images of a reader as batches for training and for judging: augmented, cut to one size, stacked.

reader --resize, cached superpixels, augmentation--> Data --stack_images--> {"image", "mask", "instances", ...}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from graphseg.datasets import ImageReader
from graphseg.datasets.whole_file import whole_file
from graphseg.ops import multiscale_slic
from graphseg.training.recipe import Recipe
from graphseg.training.sampling import AugmentedImages, StepSampler
from graphseg.transforms import (
    ColorJitter,
    RandomImageCrop,
    RandomImageFlip,
    RandomImageScale,
    ResizeImage,
)

__all__ = ["IGNORE", "CachedSuperpixels", "TrainingData", "image_in_unit_range", "stack_images"]

IGNORE = 255  # class of pixels that count nowhere, in all batches
_CACHE_VERSION = 1


class CachedSuperpixels:
    """Gives every image its superpixels `[S, H, W]`, from a file if they were made before.

    Args:
        folder: of the files, named by the image and the counts; made if it is not there.
        counts: about how many superpixels at each scale, coarse to fine.
    """

    def __init__(self, folder: str | Path, counts: Sequence[int]) -> None:
        self.folder, self.counts = Path(folder), tuple(counts)

    def __call__(self, data: Data) -> Data:
        image = data.image.contiguous()
        key = hashlib.sha256(repr((_CACHE_VERSION, self.counts, tuple(image.shape), str(image.dtype))).encode())
        key.update(image.numpy().tobytes())
        path = self.folder / f"{key.hexdigest()[:32]}.npy"
        if path.is_file():
            try:
                labels = np.load(path, allow_pickle=False)
            except (ValueError, EOFError):  # cut off
                labels = self._make(image, path)
        else:
            labels = self._make(image, path)
        data.superpixels = torch.from_numpy(labels)
        return data

    def _make(self, image: Tensor, path: Path) -> np.ndarray[Any, Any]:
        found = multiscale_slic(image.unsqueeze(0), self.counts)
        labels: np.ndarray[Any, Any] = torch.cat(found).int().numpy()
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.save(file, labels, allow_pickle=False)
        return labels


def image_in_unit_range(image: Tensor) -> Tensor:
    """Integers of 8 or 16 bits as float32 in [0, 1]; floating-point values as they are.

    Args:
        image: `[*, C, H, W]`.

    Raises:
        TypeError: for another dtype.
    """
    if image.is_floating_point():
        return image
    if image.dtype not in (torch.uint8, torch.uint16):
        raise TypeError(f"got dtype {image.dtype} for image, expected uint8, uint16 or floating-point values in [0, 1]")
    return image.float() / torch.iinfo(image.dtype).max


def stack_images(
    items: Sequence[Data], ignore_index: int | None = None, class_map: Sequence[int] = ()
) -> dict[str, Any]:
    """Images of one size, and their maps, as a batch.

    Args:
        items: each with `image`, and `mask`, `instances`, `superpixels` as there are.
        ignore_index: of the masks; in the batch it is 255, as are pixels that are not `valid`.
        class_map: the class that each class becomes; (): they stay.

    Returns:
        "image" `[B, C, H, W]`, "mask" `[B, H, W]` int64, "instances" `[B, H, W]` int64, "superpixels" `[B, S, H, W]`
        and "source", a list of names.

    Raises:
        ValueError: for images of different sizes.
    """
    sizes = {tuple(data.image.shape) for data in items}
    if len(sizes) > 1:
        raise ValueError(
            f"got images of shapes {sorted(sizes)} in one batch, expected one shape: give the recipe a crop"
        )
    batch: dict[str, Any] = {"image": torch.stack([image_in_unit_range(data.image) for data in items])}
    for name in ("mask", "instances"):
        if items[0].get(name) is not None:
            batch[name] = torch.stack([data[name].long() for data in items])
    if "mask" in batch:
        ignored = torch.stack([~_valid(data) for data in items])
        if ignore_index is not None:
            ignored |= batch["mask"] == ignore_index
        ignored |= batch["mask"] == IGNORE  # where a crop was padded
        if class_map:
            batch["mask"] = torch.tensor(class_map)[batch["mask"].masked_fill(ignored, 0)]
        batch["mask"] = batch["mask"].masked_fill(ignored, IGNORE)
    if items[0].get("superpixels") is not None:
        batch["superpixels"] = torch.stack([data.superpixels for data in items])
    batch["source"] = [str(data.get("source", "")) for data in items]
    return batch


class Stack:
    """`stack_images` for a `DataLoader`, which sends it to other processes.

    Args:
        ignore_index, class_map: as for `stack_images`.
    """

    def __init__(self, ignore_index: int | None, class_map: Sequence[int] = ()) -> None:
        self.ignore_index, self.class_map = ignore_index, tuple(class_map)

    def __call__(self, items: Sequence[Data]) -> dict[str, Any]:
        return stack_images(items, self.ignore_index, self.class_map)


class StepLoader(DataLoader[Any]):
    """A loader whose place is the trainer's step: there is nothing to keep of it in a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing.

        Args:
            state: of `state_dict`.
        """


class TrainingData(lightning.LightningDataModule):
    """Batches of a recipe.

    Args:
        recipe: which says how images are treated.
        train: images to learn from.
        val: images to judge by, one in a batch; None: none.
        seed: of orders and augmentation.
        cache: folder of cached superpixels, for `superpixels="cached"`.
        num_superpixels: of the network.
        num_workers: processes that load images.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: ImageReader,
        val: ImageReader | None = None,
        *,
        seed: int = 0,
        cache: str | Path | None = None,
        num_superpixels: Sequence[int] = (),
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.recipe, self.seed, self.num_workers = recipe, seed, num_workers
        self.train, self.val = train, val
        steps: list[Callable[[Data], Data]] = [] if recipe.resize is None else [ResizeImage(recipe.resize)]
        self.resize = Compose(list(steps)) if steps else None
        if recipe.superpixels == "cached" and num_superpixels:
            if cache is None:
                raise ValueError("got superpixels='cached' without cache, expected a folder to keep them in")
            steps.append(CachedSuperpixels(cache, num_superpixels))
        prepare = Compose(steps) if steps else None
        self.images = AugmentedImages(train, augmentation(recipe), prepare, seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches from the trainer's step on, without end."""
        trainer = self.trainer
        sampler = StepSampler(
            len(self.images),
            self.recipe.batch_size,
            self.seed,
            0 if trainer is None else trainer.global_step,
            0 if trainer is None else trainer.global_rank,
            1 if trainer is None else trainer.world_size,
        )
        return StepLoader(
            self.images,
            batch_sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=Stack(self.train.ignore_index, self.recipe.class_map),
            multiprocessing_context="spawn" if self.num_workers else None,
        )

    def val_dataloader(self) -> Any:
        """One image in a batch, in the reader's order; nothing without images to judge by."""
        if self.val is None:
            return []
        trainer = self.trainer
        rank, world = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return DataLoader(
            AugmentedImages(self.val, None, self.resize),
            batch_size=1,
            sampler=range(rank, len(self.val), world),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,  # they take seconds to start
            collate_fn=Stack(self.val.ignore_index, self.recipe.class_map),
            multiprocessing_context="spawn" if self.num_workers else None,
        )


def augmentation(recipe: Recipe) -> Compose | None:
    """The recipe's random transforms, in the order scale, crop, flip, colours."""
    found: list[Callable[[Data], Data]] = []
    if recipe.scale is not None:
        found.append(RandomImageScale(*recipe.scale))
    if recipe.crop is not None:
        found.append(RandomImageCrop(recipe.crop, ignore_index=IGNORE))
    if recipe.flip:
        found.append(RandomImageFlip(recipe.flip))
    if recipe.jitter:
        found.append(ColorJitter(recipe.jitter, recipe.jitter))
    return Compose(found) if found else None


def _valid(data: Data) -> Tensor:
    valid = data.get("valid")
    return torch.ones(data.image.shape[1:], dtype=torch.bool) if valid is None else valid


def batch_on(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
