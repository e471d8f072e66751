"""Real images with classes for the examples of layers, and the scores of what they predict."""

from __future__ import annotations

import os
from math import pi
from pathlib import Path

import skimage.data
import torch
from skimage.io import imread
from torch import Tensor
from torch_geometric.data import Data

from graphseg.metrics import boundary_precision, boundary_recall
from graphseg.ops import rgb_to_lab

DATA = Path(os.environ.get("GRAPHSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
NO_CLASS = 255
Parts = tuple[list[Data], list[Data], list[str]]


def read_images(folder: Path, quick: bool = False) -> Parts:
    """MSRC-21 if `folder` has it, else tiles of photographs.

    Args:
        folder: of data sets; MSRC-21 is its folder msrc21, with classes.txt and splits.txt.
        quick: only every 16th image of MSRC-21.

    Returns:
        Images to train on, held-out images, and the names of the classes. Images are uint8 `[C, H, W]`, masks `[H, W]`
        hold NO_CLASS where there is none.
    """
    return msrc21(folder / "msrc21", 16 if quick else 1) if (folder / "msrc21").is_dir() else photographs()


def msrc21(root: Path, step: int = 1) -> Parts:
    """Photographs of 21 classes; horse and mountain are so rare that they are left out, as is usual."""
    codes = [line.split()[1] for line in (root / "classes.txt").read_text("utf-8").splitlines()]
    names = [name for name in codes if name not in ("void", "horse", "mountain")]
    class_of = torch.tensor([names.index(name) if name in names else NO_CLASS for name in codes])
    parts: dict[str, list[Data]] = {"train": [], "val": [], "test_dev": []}
    for line in (root / "splits.txt").read_text("utf-8").splitlines()[1::step]:
        split, *paths = line.split("\t")
        image, code = (torch.from_numpy(imread(root / path)) for path in paths[:2])
        parts[split].append(Data(image=image.permute(2, 0, 1).contiguous(), mask=class_of[code.long()]))
    return parts["train"], parts["test_dev"], names


def photographs() -> Parts:
    """Tiles of scikit-image's photographs in grey, every other one held out; the classes are the hues not seen."""
    tiles = []
    for name in ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry"):
        lab = rgb_to_lab(torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1) / 255)  # [3, H, W]
        hue = torch.bucketize(torch.atan2(lab[2], lab[1]), torch.tensor([-pi / 6, pi / 3])) + 1
        hue = hue.where(lab[1:].norm(dim=0) > 10, 0)
        both = torch.stack([lab[0].mul(2.55).round().clamp(0, 255), hue]).unfold(1, 128, 128).unfold(2, 128, 128)
        for grey, mask in both.flatten(1, 2).unbind(1):
            tiles.append(Data(image=grey[None].byte(), mask=mask.long()))
    return tiles[::2], tiles[1::2], ["colourless", "blue or violet", "red or orange", "yellow or green"]


def pixel_scores(confusion: Tensor) -> dict[str, float]:
    """Accuracy, and mean IoU over the classes that occur, of pixels counted as `[predicted, true]`."""
    hits, found, true = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    iou = hits / (found + true - hits)
    return {"accuracy": float(hits.sum() / true.sum()), "mean_iou": float(iou[true > 0].mean())}


def map_scores(found: Tensor, masks: Tensor, num_classes: int) -> dict[str, float]:
    """`pixel_scores` of label maps `[B, H, W]`, and of the borders between classes: how many are found, and are right.

    A border counts as found within a pixel of where it is.
    """
    known, K = masks != NO_CLASS, num_classes
    scores = pixel_scores(torch.bincount((found * K + masks)[known], minlength=K * K).view(K, K))
    for name, measure in (("border_recall", boundary_recall), ("border_precision", boundary_precision)):
        scores[name] = float(measure(found, masks, 1, NO_CLASS).mean())
    return scores
