"""Small folders of images and masks, the same ones for a seed, some with files that are damaged in every way."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as photographs

from graphseg.datasets import ImageFolder

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


def read_tree(root: Path, **options: object) -> ImageFolder:
    """The reader of a tree."""
    known = {"num_classes": NUM_CLASSES, "ignore_index": IGNORE}
    return ImageFolder(root / "images", root / "masks", **(known | options))  # type: ignore[arg-type]


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
