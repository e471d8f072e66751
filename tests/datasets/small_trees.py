"""Small folders of images and masks, the same ones for a seed, some with files that are damaged in every way."""

from __future__ import annotations

import os
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data as photographs
from torch import Tensor
from torch_geometric.data import Data

from graphseg.data import ImageGraph
from graphseg.datasets import ImageFolder, ImageGraphDataset
from graphseg.transforms import ToSuperpixelRAG

HEIGHT, WIDTH = 48, 64
NUM_CLASSES = 3
IGNORE = 255
PHOTO = photographs.astronaut()


def photo(k: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """`[height, width, 3]` uint8: a part of a photograph, another for every k below 1000."""
    generator = np.random.default_rng(k)
    y, x = generator.integers(0, 512 - height), generator.integers(0, 512 - width)
    part = PHOTO[y : y + height, x : x + width].copy()
    part[0, 0] = k % 251, k // 251, 7  # no two alike
    return part


def classes(image: np.ndarray) -> np.ndarray:
    """`[H, W]` uint8: dark, middle and bright pixels are three classes, a stripe has none."""
    mask = np.digitize(image.mean(2), (80, 160)).astype(np.uint8)
    mask[: max(len(mask) // 8, 1)] = IGNORE
    return mask


def write_image(path: Path, array: np.ndarray) -> Path:
    """Writes an image or a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write_pair(root: Path, name: str, k: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Writes photograph k and its mask."""
    image = photo(k, height, width)
    write_image(root / "images" / f"{name}.png", image)
    write_image(root / "masks" / f"{name}.png", classes(image))


def write_tree(root: Path, count: int, first: int = 0) -> Path:
    """Writes `images/000.png`, ... and `masks/000.png`, ...: photographs `first` to `first + count - 1`."""
    for k in range(first, first + count):
        write_pair(root, f"{k:03d}", k)
    return root


def read_tree(root: Path, **options: Any) -> ImageFolder:
    """The reader of a tree."""
    known: dict[str, Any] = {"num_classes": NUM_CLASSES, "ignore_index": IGNORE}
    return ImageFolder(root / "images", root / "masks", **(known | options))


# Damage: each takes the root of a tree and the name of a pair in it.


def cut_short(path: Path, generator: np.random.Generator) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(generator.integers(1, len(whole) - 12))])  # 12 bytes are PNG's end, which none needs


def _truncated_image(root: Path, name: str, generator: np.random.Generator) -> None:
    cut_short(root / "images" / f"{name}.png", generator)


def _truncated_mask(root: Path, name: str, generator: np.random.Generator) -> None:
    cut_short(root / "masks" / f"{name}.png", generator)


def _text(root: Path, name: str, generator: np.random.Generator) -> None:
    (root / "images" / f"{name}.png").write_text("this is no image\n" * 20)


def _empty(root: Path, name: str, generator: np.random.Generator) -> None:
    (root / "images" / f"{name}.png").write_bytes(b"")


def _noise(root: Path, name: str, generator: np.random.Generator) -> None:
    (root / "images" / f"{name}.png").write_bytes(generator.bytes(500))


def _other_size(root: Path, name: str, generator: np.random.Generator) -> None:
    write_image(root / "masks" / f"{name}.png", np.zeros((HEIGHT, WIDTH - 1), np.uint8))


def _labels_outside(root: Path, name: str, generator: np.random.Generator) -> None:
    write_image(root / "masks" / f"{name}.png", np.full((HEIGHT, WIDTH), NUM_CLASSES + 4, np.uint8))


def _colour_mask(root: Path, name: str, generator: np.random.Generator) -> None:
    write_image(root / "masks" / f"{name}.png", photo(int(generator.integers(900))))


def _bomb(root: Path, name: str, generator: np.random.Generator) -> None:
    """A PNG of 40,000 x 40,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    (root / "images" / f"{name}.png").write_bytes(whole)


def _no_mask(root: Path, name: str, generator: np.random.Generator) -> None:
    (root / "masks" / f"{name}.png").unlink()


def _no_image(root: Path, name: str, generator: np.random.Generator) -> None:
    (root / "images" / f"{name}.png").unlink()


def _other_channels(root: Path, name: str, generator: np.random.Generator) -> None:
    write_image(root / "images" / f"{name}.png", photo(1)[:, :, 0])


DAMAGE: dict[str, Callable[[Path, str, np.random.Generator], None]] = {
    "truncated image": _truncated_image,
    "truncated mask": _truncated_mask,
    "text": _text,
    "empty": _empty,
    "noise": _noise,
    "mask of another size": _other_size,
    "labels outside": _labels_outside,
    "colour mask": _colour_mask,
    "bomb": _bomb,
    "no mask": _no_mask,
    "no image": _no_image,
    "other channels": _other_channels,
}


def write_damaged(root: Path, count: int, seed: int = 0, first: int = 500) -> dict[str, str]:
    """Adds damaged pairs, all kinds in turn, to a tree.

    Args:
        root: of the tree.
        count: of pairs.
        seed: of where files are cut.
        first: number of the first.

    Returns:
        name: kind of damage.
    """
    generator = np.random.default_rng(seed)
    made = {}
    for i in range(count):
        name, kind = f"{first + i:03d}", list(DAMAGE)[i % len(DAMAGE)]
        write_pair(root, name, first + i)
        DAMAGE[kind](root, name, generator)
        made[name] = kind
    return made


class Noted(ToSuperpixelRAG):
    """A construction that notes which images it was given, and has trouble with some of them.

    Args:
        log: file where the number of every image is added.
        trouble: number of an image to what happens there: "raise", "kill", "broken", "other", "interrupt", "odd".
        **options: of `ToSuperpixelRAG`.
    """

    def __init__(self, log: Path | None = None, trouble: dict[int, str] | None = None, **options: Any) -> None:
        known = {"num_segments": 20, "num_classes": NUM_CLASSES, "ignore_index": IGNORE}
        super().__init__(**(known | options))
        self._log = log
        self._trouble = trouble or {}

    def forward(self, data: Data) -> ImageGraph:
        number = int(data.image[0, 0, 0]) + 251 * int(data.image[1 % len(data.image), 0, 0])
        if self._log is not None:
            with open(self._log, "a") as file:
                file.write(f"{number}\n")
        trouble = self._trouble.get(number)
        if trouble == "raise":
            raise RuntimeError("no luck today")
        if trouble == "interrupt":
            raise KeyboardInterrupt
        if trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        graph = super().forward(data)
        if trouble == "other":
            return Data(x=graph.x)
        if trouble == "broken":
            graph.edge_index = graph.edge_index + 1000
        if trouble == "odd":
            graph.extra = 2**70
        return graph


def numbers(log: Path) -> list[int]:
    """What `Noted` wrote, in order, and empties it."""
    found = sorted(int(line) for line in log.read_text().split()) if log.exists() else []
    log.unlink(missing_ok=True)
    return found


def fields(graph: Data) -> dict[str, Any]:
    """The fields of a graph, tensors as dtype, shape and bytes: equal ones are the same bit for bit."""
    return {
        key: (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
        if isinstance(value, Tensor)
        else value
        for key, value in graph.to_dict().items()
    }


def contents(dataset: ImageGraphDataset) -> dict[str, dict[str, Any]]:
    """The fields of all graphs, by the name of the image."""
    found = {source: fields(dataset[i]) for i, source in enumerate(dataset.sources)}
    assert len(found) == len(dataset)
    return found
