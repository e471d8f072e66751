"""What the tests of training share: made-up scenes, and trainings that take a second."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from graphseg.datasets import ImageReader, Sample
from graphseg.training import Recipe

# Lightning's own: how it calls torch; what it thinks of machines with more cores; that a folder is gone on with.
OWN_WARNINGS = [
    pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec, LeafSpec\). is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
TINY: dict[str, Any] = {"backbone": "resnet18", "width": 0.0625}


class Scenes(ImageReader):
    """Bright rectangles on a dark ground, drawn from the number of the image: classes, instances, and a void rim.

    Args:
        count: how many images.
        size: (height, width); image i is i * `growth` larger.
        growth: see `size`.
        num_classes: of the rectangles and the ground, which is 0; None: there are no masks.
        channels: of the image.
        dtype: of the image: uint8, uint16, or floating-point in [0, 1].
        void: value of pixels of no class.
        sparse: images from this number on have one labelled pixel in ten.
        valid: whether there is a map of valid pixels, which leaves out the last column.
    """

    def __init__(
        self,
        count: int,
        size: tuple[int, int] = (24, 32),
        *,
        growth: int = 0,
        num_classes: int | None = 3,
        channels: int = 3,
        dtype: torch.dtype = torch.uint8,
        void: int | None = 255,
        sparse: int | None = None,
        valid: bool = False,
    ) -> None:
        names = [f"class {k}" for k in range(num_classes or 0)]
        samples = [Sample(f"scene{i:03d}", {}, "train") for i in range(count)]
        super().__init__(samples, num_classes=num_classes, ignore_index=void, class_names=names)
        self.size, self.growth, self.channels, self.dtype = size, growth, channels, dtype
        self.sparse, self.with_valid = sparse, valid

    def read(self, sample: Sample) -> Data:
        number = int(sample.source.removeprefix("scene"))
        generator = torch.Generator().manual_seed(number)
        H, W = (side + number * self.growth for side in self.size)
        image = 0.2 * torch.rand(self.channels, H, W, generator=generator)
        mask, instances = torch.zeros(2, H, W, dtype=torch.int64)
        K = self.num_classes or 2
        for k in range(1, 5):
            top, left = (int(torch.randint(side // 2, (), generator=generator)) for side in (H, W))
            window = slice(top, top + H // 3), slice(left, left + W // 3)
            mask[window], instances[window] = 1 + k % (K - 1), k
            tint = 0.3 + 0.5 * torch.rand(self.channels, 1, 1, generator=generator)
            image[:, window[0], window[1]] += tint
        data = Data(image=_as(image, self.dtype), instances=instances)
        if self.num_classes is not None:
            if self.ignore_index is not None:
                mask[0] = self.ignore_index
                if self.sparse is not None and number >= self.sparse:
                    kept = torch.rand(H, W, generator=generator) < 0.1
                    mask = mask.where(kept, self.ignore_index)
            data.mask = mask
        if self.with_valid:
            data.valid = torch.ones(H, W, dtype=torch.bool)
            data.valid[:, -1] = False
        return data


def _as(image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return image.to(dtype) if dtype.is_floating_point else (image * torch.iinfo(dtype).max).to(dtype)


def tiny(network: str = "MSPNet", **changes: Any) -> Recipe:
    """A recipe of six steps.

    Args:
        network: of `graphseg.models`.
        changes: other fields.
    """
    options: dict[str, Any] = {
        "MSPNet": {**TINY, "num_superpixels": [3, 6]},
        "ESCRFNet": {**TINY, "num_superpixels": 6},
        "CDGCNet": {**TINY, "ratio": 0.5, "min_kept": 20},
        "SGSeg": {"num_superpixels": 5, "k": 3, "num_blocks": 2, "width": 0.0625},
        "AffinityInstances": {**TINY, "distances": [1, 2], "balance": "channel"},
    }[network]
    kind = {"SGSeg": "unsupervised", "AffinityInstances": "instances"}.get(network, "semantic")
    known: dict[str, Any] = {
        "name": "tiny",
        "network": network,
        "dataset": "camvid",
        "kind": kind,
        "options": options,
        "crop": (16, 20),
        "scale": (0.75, 1.25),
        "batch_size": 2,
        "max_steps": 6,
        "source": "made up",
    }
    if network == "SGSeg":
        known |= {
            "optimizer": "adam",
            "lr": {"spnn": 1e-3, "gnn": 1e-3, "cnn": 1e-3},
            "weight_decay": 0.0,
            "stages": (("spnn", 2), ("joint", 2), ("segment", 2)),
        }
    return Recipe(**known).but(**changes)
