"""A trained network on images of any kind: label maps, pictures of them, instances, as files.

    images --read, resized as in training--> network --back to the image's size--> OUT/labels, OUT/overlays, ...

One image is worked on at a time, whole: what a network holds of it is what memory is needed for.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import interpolate
from torch_geometric.data import Data
from tqdm import tqdm

from graphseg.datasets import BadFile, read_image
from graphseg.datasets.builder import reason_of
from graphseg.datasets.content import file_stamps
from graphseg.datasets.image_file import MAX_PIXELS, ImageFile
from graphseg.datasets.whole_file import write_text
from graphseg.metrics.multiscale import multiscale_probabilities
from graphseg.ops.resize import resize_nearest
from graphseg.training.data import image_in_unit_range
from graphseg.training.segment_files import Found, find_images, is_done, write_results
from graphseg.transforms import ResizeImage

__all__ = ["Segmented", "segment", "segment_image"]

ERRORS = "errors.jsonl"
_VERSION = 1  # raised when files of the same network would be others


class Segmented(NamedTuple):
    """How a call of `segment` went.

    Args:
        images: how many images have results.
        made: how many of them this call has made.
        errors: images that have none, and why.
    """

    images: int
    made: int
    errors: list[BadFile]


def segment(
    network: Module,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    class_names: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    options: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> Segmented:
    """Writes what a network finds in images.

    For `a/1.jpg` below the folder of images there are, all in the image's size and written whole or not at all,

        out/labels/a/1.png      the class of each pixel, of 8 bits, or of 16 for more than 255 classes
        out/overlays/a/1.png    to look at
        out/instances/a/1.png   of networks that find instances: the number of each pixel's instance, 16 bits, 0: none
        out/records/a/1.json    pixels of each class; class, score and area of each instance

    Labels and instances of a GeoTIFF are GeoTIFFs in its place. Pixels without data have the largest label, 255 or
    65535. Images whose names differ only in what is behind the dot keep that: `1.jpg.png` and `1.tif.png`. Images that
    cannot be read, and those that the network refuses, are listed in `out/errors.jsonl`.

    The records say of which file, weights and arguments they are: the same call again does only what is missing or has
    changed.

    Args:
        network: of `graphseg.models`, in whatever mode; it is left in evaluation mode on `device`.
        images: a folder, which is searched with the folders in it, a file, or several of them.
        out: folder to write, or to go on with.
        class_names: for the records, or none.
        size: (height, width) of what the network sees; None: the image's own.
        scales, flip: of multi-scale testing, see `multiscale_probabilities`; networks that find instances take only
            `flip`, for both branches.
        options: of `AffinityInstances.segment`.
        device: to work on.
        max_pixels: larger images are refused before they are decoded.
        progress: whether to show a bar.

    Returns:
        `Segmented`: images, made, errors.

    Raises:
        OSError: if there are no images, or `out` cannot be written.
        ValueError: for arguments that do not fit the network, or `out` among the images.
    """
    out = Path(out)
    names = find_images(images, out)
    kind = type(network).__name__
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"got scales={tuple(scales)}, expected one or more factors above 0")
    if hasattr(network, "segment") and tuple(scales) != (1.0,):
        raise ValueError(f"got scales={tuple(scales)} for {kind}, expected 1: only class maps are averaged")
    if options and not hasattr(network, "segment"):
        raise ValueError(f"got options {', '.join(options)} for {kind}, expected none: it finds no instances")
    chosen = {"size": size, "scales": list(scales), "flip": flip, "options": dict(options or {})}
    key = _key(network, {**chosen, "class_names": list(class_names)})
    model: Any = network.to(device).eval()
    made, errors = 0, []
    for name, path in tqdm(names.items(), unit="image", disable=not progress):
        try:
            stamp = list(file_stamps({"image": path})["image"])
            if is_done(out, name, {"image": str(path), "stamp": stamp, "key": key}):
                continue
            file = _read(path, model.options["in_channels"], max_pixels)
            found = segment_image(model, file, size=size, scales=scales, flip=flip, options=options, device=device)
            if found.classes is not None and len(found.classes) > 65535:
                raise ValueError(f"{path}: got {len(found.classes)} instances, expected at most 65535, as 16 bits hold")
        except (OSError, ValueError, RuntimeError) as error:  # of torch: no room, too small, ...
            errors.append(BadFile(str(path), reason_of(error)))
            continue
        record = {"image": str(path), "stamp": stamp, "key": key}
        write_results(out, name, file, found, model.num_classes, class_names, record)
        made += 1
    if errors:
        write_text(out / ERRORS, "".join(json.dumps({"file": e.file, "reason": e.reason}) + "\n" for e in errors))
    else:
        (out / ERRORS).unlink(missing_ok=True)
    return Segmented(len(names) - len(errors), made, errors)


@torch.no_grad()
def segment_image(
    network: Any,
    file: ImageFile,
    *,
    size: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    options: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> Found:
    """What a network finds in one image, on the CPU.

    Args:
        network: of `graphseg.models`, in evaluation mode on `device`.
        file: of `read_image`; values that are not finite count as 0.
        size, scales, flip, options, device: as for `segment`.
    """
    own = file.image.shape[1:]
    seen = file.image.nan_to_num(0, 0, 0) if file.image.is_floating_point() else file.image
    if size is not None:
        seen = ResizeImage(size)(Data(image=seen)).image  # before it is scaled to [0, 1], as in training
    image = image_in_unit_range(seen).float().unsqueeze(0).to(device)
    if hasattr(network, "segment"):
        mirrored = {"flip_semantic": True, "flip_affinity": True} if flip else {}
        (found,) = network.segment(image, **mirrored, **(options or {}))
        instances = resize_nearest(found.labels.cpu(), own)
        if file.valid is not None:
            instances = instances.masked_fill(~file.valid, 0)
        classes = found.classes.cpu()
        labels = torch.cat([classes.new_zeros(1), classes])[instances]
        return Found(_hidden(labels, file.valid), instances, classes, found.scores.cpu())
    if tuple(scales) == (1.0,) and not flip:
        values = network(image).logits
        values = values if size is None else values.softmax(1)
    else:
        values = multiscale_probabilities(network, image, scales, flip)
    if values.shape[2:] != own:
        values = interpolate(values, tuple(own), mode="bilinear", align_corners=False, antialias=True)
    return Found(_hidden(values.argmax(1)[0].cpu(), file.valid))


def _read(path: Path, in_channels: int, max_pixels: int) -> ImageFile:
    """An image with the network's channels; alpha is one of them where there is room for it, as for infrared."""
    channels = in_channels if in_channels in (1, 3) else None
    file = read_image(path, channels=channels, keep_alpha=in_channels in (2, 4), max_pixels=max_pixels)
    if len(file.image) != in_channels:
        raise ValueError(f"{path}: got {len(file.image)} channels, expected {in_channels} as the network")
    return file


def _hidden(labels: Tensor, valid: Tensor | None) -> Tensor:
    return labels if valid is None else labels.masked_fill(~valid, -1)


def _key(network: Module, chosen: Mapping[str, Any]) -> str:
    """A hash of all that decides over the results but the image: weights, kind of network, arguments."""
    about = [_VERSION, type(network).__name__, network.options, chosen]
    key = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, value in sorted(network.state_dict().items()):
        key.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        key.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return key.hexdigest()
