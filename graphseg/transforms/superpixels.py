"""Ways to cut images into superpixels: graphseg's SLIC and grid, and scikit-image's methods, behind one signature."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_choice, check_positive_int, check_shape
from graphseg.ops._stack import ImageStack, segment_counts
from graphseg.ops.rag import relabel
from graphseg.ops.superpixel import regular_grid, slic
from graphseg.transforms._base import ImageInput, unit_scale
from graphseg.transforms.features import gradient_magnitude

__all__ = ["SUPERPIXELS", "cut"]

SUPERPIXELS = ("slic", "grid", "slic_skimage", "felzenszwalb", "quickshift", "watershed")
COUNTED = ("slic", "grid", "slic_skimage", "watershed")  # these take a number of segments
SLIC_ARGUMENTS = ("compactness", "iterations", "exact", "adaptive", "color", "min_size")

Cut = Callable[[np.ndarray], np.ndarray]


def cut(
    images: Tensor | Sequence[Tensor],
    num_segments: int | Sequence[int] | Tensor | None = None,
    method: str = "slic",
    mask: Tensor | Sequence[Tensor | None] | None = None,
    **parameters: Any,
) -> Any:
    """Superpixels of images by a method of one's choice, with the signature of `graphseg.ops.slic`.

    Args:
        images: `[B, C, H, W]`, one image `[C, H, W]`, or a list of images of different sizes; uint8, uint16 or
            floating-point in [0, 1].
        num_segments: about how many superpixels (default 200); one number, or one for each image. None for
            "felzenszwalb" and "quickshift", which find their own.
        method: "slic" (`graphseg.ops.slic`), "grid" (`graphseg.ops.regular_grid`), or scikit-image's, one image at a
            time on the CPU: "slic_skimage", "felzenszwalb", "quickshift", "watershed" (of the gradient magnitude).
        mask: bool, like the labels; pixels where it is False belong to no superpixel.
        **parameters: of the method, by its own names (`compactness`, `exact`, `scale`, ...).

    Returns:
        int64 labels `[B, H, W]`, `[H, W]` or a list, as the images came; in each image from 0 without gaps, -1 where
        `mask` is False. Superpixels of "felzenszwalb" and "quickshift" need not be connected.

    Raises:
        TypeError: for images or parameters that the method does not take.
        ValueError: for an unknown method, wrong shapes or ranges.
    """
    check_choice("method", method, SUPERPIXELS)
    counted = isinstance(num_segments, int) or num_segments is None
    check_superpixels(method, num_segments if counted else 1, parameters)  # type: ignore[arg-type]
    if method == "slic":
        return slic(images, 200 if num_segments is None else num_segments, mask=mask, **parameters)
    if method == "grid":
        return regular_grid(images, 200 if num_segments is None else num_segments, mask)
    stack = ImageStack(images, mask)
    if stack.dims == 3:
        raise ValueError(f"got volumes for method={method!r}, expected images (volumes: 'slic' and 'grid')")
    counts = segment_counts(200 if num_segments is None else num_segments, len(stack.images))
    found = []
    for image, valid, count in zip(stack.images, stack.masks, counts, strict=True):
        unit = image[:, 0].to(torch.float32) * unit_scale(image.dtype) if not image.is_floating_point() else image[:, 0]
        inside = None if valid is None else valid[0]
        labels = _by_skimage(unit, count, method, inside, parameters)
        found.append((labels if inside is None else labels.where(inside, -1))[None])
    return stack.pack(found)


def check_superpixels(
    superpixels: str | Cut,
    num_segments: int | None,
    parameters: dict[str, Any],
    own: tuple[str, ...] = ("segments",),
) -> None:
    """Raises ValueError for an unknown method, TypeError or ValueError for arguments that it would not heed."""
    if not callable(superpixels):
        check_choice("superpixels", superpixels, (*SUPERPIXELS, *own))
    name = "a function" if callable(superpixels) else repr(superpixels)
    if superpixels == "slic":
        unknown = sorted(set(parameters) - set(SLIC_ARGUMENTS))
        if unknown:
            known = ", ".join(SLIC_ARGUMENTS)
            raise TypeError(f"got unexpected arguments {unknown} for superpixels='slic', expected some of {known}")
    elif parameters and (superpixels == "grid" or superpixels not in SUPERPIXELS):
        raise TypeError(f"got unexpected arguments {sorted(parameters)}, expected none for superpixels={name}")
    if num_segments is None:
        return
    if superpixels not in COUNTED:
        raise ValueError(f"got num_segments={num_segments} for {name}, expected None: it sets its own number")
    check_positive_int("num_segments", num_segments)


def cut_input(
    inputs: ImageInput, superpixels: str | Cut, num_segments: int | None, parameters: dict[str, Any]
) -> Tensor:
    """Superpixels of a transform's input: labels `[H, W]`, consecutive from 0 over valid pixels, 0 elsewhere.

    Args:
        inputs: the image, and its `valid` and `segments`.
        superpixels: one of `SUPERPIXELS`; "segments" for the input's own map; or a function from the image
            `[H, W, C]`, floating-point numpy, to labels `[H, W]`.
        num_segments: for methods that take one, about how many; default 200.
        parameters: of the method.

    Raises:
        ValueError: if "segments" is asked for and the input has none, or the labels do not fit the image.
    """
    if superpixels in ("slic", "grid"):
        mask = None if inputs.valid is None else inputs.valid
        return cut(slic_image(inputs), num_segments, str(superpixels), mask, **parameters).clamp_(min=0)
    if superpixels == "segments":
        if inputs.segments is None:
            raise ValueError("got no segments in the input, expected a map [H, W] for superpixels='segments'")
        labels = inputs.segments
    elif callable(superpixels):
        image = inputs.unit_image().detach().movedim(0, -1).cpu().numpy()  # [H, W, C]
        labels = _as_labels(superpixels(image), inputs.image)
    else:
        return _by_skimage(inputs.unit_image(), num_segments or 200, superpixels, inputs.valid, parameters)
    return relabel_valid(labels, inputs.valid)


def slic_image(inputs: ImageInput) -> Tensor:
    """The image `[C, H, W]` as `slic` takes it: floating-point ones beyond [0, 1] are brought there, as a whole."""
    image = inputs.image
    if not image.is_floating_point():
        return image
    inside = image if inputs.valid is None else image[:, inputs.valid]
    if inside.numel() == 0:
        return torch.zeros_like(image)
    low, high = (float(v) for v in torch.aminmax(inside.detach()))
    if low >= 0 and high <= 1:
        return image
    scaled = (image.double() - low) / max(high - low, 1e-300)
    return scaled.clamp(0, 1)


def relabel_valid(labels: Tensor, valid: Tensor | None) -> Tensor:
    """Labels consecutive from 0 over valid pixels, 0 elsewhere."""
    if valid is None or bool(valid.all()):
        return relabel(labels)
    if not bool(valid.any()):
        return torch.zeros_like(labels)
    outside = labels[valid].min() - 1  # comes first, so that the regions keep their order after it
    return (relabel(labels.where(valid, outside)) - 1).clamp(min=0)


def _by_skimage(
    image: Tensor, num_segments: int, method: str, valid: Tensor | None, parameters: dict[str, Any]
) -> Tensor:
    """Labels `[H, W]` of an image `[C, H, W]` in [0, 1], from 0 over valid pixels, 0 elsewhere."""
    array = image.detach().movedim(0, -1).cpu().numpy()  # [H, W, C]
    mask = None if valid is None else valid.cpu().numpy()
    return relabel_valid(_as_labels(_METHODS[method](array, num_segments, mask, parameters), image), valid)


def _as_labels(found: object, image: Tensor) -> Tensor:
    """What a function gave as labels `[H, W]` of an image `[C, H, W]`, checked."""
    array = np.asarray(found)
    if array.dtype.kind not in "iu":
        raise TypeError(f"got dtype {array.dtype} for labels of superpixels, expected an integer dtype")
    labels = torch.as_tensor(np.ascontiguousarray(array, np.int64), device=image.device)
    check_shape("labels of superpixels", labels, image.shape[1:])
    return labels


def _slic_skimage(
    image: np.ndarray, num_segments: int, valid: np.ndarray | None, parameters: dict[str, Any]
) -> np.ndarray:
    from skimage.segmentation import slic

    # The compactness of 10 is meant for Lab colours, which scikit-image makes of three channels only. Others stay in
    # [0, 1], where distances grow with the root of the number of channels.
    compactness = {"compactness": 10.0 if image.shape[2] == 3 else 0.1 * image.shape[2] ** 0.5}
    if valid is not None and not valid.any():
        return np.zeros(image.shape[:2], np.int64)
    return slic(
        image, n_segments=num_segments, start_label=0, channel_axis=-1, mask=valid, **(compactness | parameters)
    )


def _felzenszwalb(
    image: np.ndarray, num_segments: int, valid: np.ndarray | None, parameters: dict[str, Any]
) -> np.ndarray:
    from skimage.segmentation import felzenszwalb

    defaults = {"scale": 100.0, "sigma": 0.8, "min_size": 50}
    with warnings.catch_warnings():  # more than three channels are what was meant
        warnings.filterwarnings("ignore", message="Got image with third dimension", category=RuntimeWarning)
        return felzenszwalb(image, channel_axis=-1, **(defaults | parameters))


def _quickshift(
    image: np.ndarray, num_segments: int, valid: np.ndarray | None, parameters: dict[str, Any]
) -> np.ndarray:
    from skimage.segmentation import quickshift

    defaults = {"kernel_size": 3, "max_dist": 6.0, "ratio": 0.5, "rng": 0, "convert2lab": image.shape[2] == 3}
    return quickshift(image, channel_axis=-1, **(defaults | parameters))


def _watershed(
    image: np.ndarray, num_segments: int, valid: np.ndarray | None, parameters: dict[str, Any]
) -> np.ndarray:
    from skimage.measure import label
    from skimage.segmentation import watershed

    if valid is not None and not valid.any():
        return np.zeros(image.shape[:2], np.int64)
    inside = None if valid is None else torch.from_numpy(valid)
    gradient = gradient_magnitude(torch.from_numpy(image).movedim(-1, 0), inside).numpy()
    labels = watershed(gradient, markers=num_segments, mask=valid, **({"compactness": 0.001} | parameters))
    missed = labels == 0 if valid is None else (labels == 0) & valid  # islands of valid pixels without a marker
    return np.where(missed, label(missed, connectivity=1) + labels.max(), labels)


_METHODS = {
    "slic_skimage": _slic_skimage,
    "felzenszwalb": _felzenszwalb,
    "quickshift": _quickshift,
    "watershed": _watershed,
}
