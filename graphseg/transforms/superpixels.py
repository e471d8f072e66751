"""Ways to cut an image into superpixels, through scikit-image."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphseg._checks import check_choice, check_positive_int, check_shape
from graphseg.ops.rag import relabel
from graphseg.transforms._base import ImageInput
from graphseg.transforms.features import gradient_magnitude

__all__ = ["SUPERPIXELS", "cut"]

SUPERPIXELS = ("slic", "felzenszwalb", "quickshift", "watershed")
COUNTED = ("slic", "watershed")  # these take a number of segments

Cut = Callable[[np.ndarray], np.ndarray]


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
    if parameters and superpixels not in SUPERPIXELS:
        raise TypeError(f"got unexpected arguments {sorted(parameters)}, expected none for superpixels={name}")
    if num_segments is None:
        return
    if superpixels not in COUNTED:
        raise ValueError(f"got num_segments={num_segments} for {name}, expected None: it sets its own number")
    check_positive_int("num_segments", num_segments)


def cut(inputs: ImageInput, superpixels: str | Cut, num_segments: int | None, parameters: dict[str, Any]) -> Tensor:
    """Superpixels of one image: labels `[H, W]`, consecutive from 0 over valid pixels.

    Args:
        inputs: the image, and its `valid` and `segments`.
        superpixels: one of `SUPERPIXELS`; "segments" for the input's own map; or a function from the image
            `[H, W, C]`, floating-point numpy, to labels `[H, W]`.
        num_segments: for "slic" and "watershed", about how many; default 200.
        parameters: passed on to scikit-image.

    Raises:
        ValueError: if "segments" is asked for and the input has none, or the labels do not fit the image.
    """
    if superpixels == "segments":
        if inputs.segments is None:
            raise ValueError("got no segments in the input, expected a map [H, W] for superpixels='segments'")
        labels = inputs.segments
    else:
        image = inputs.unit_image().detach().movedim(0, -1).cpu().numpy()  # [H, W, C]
        valid = None if inputs.valid is None else inputs.valid.cpu().numpy()
        found = (
            superpixels(image)
            if callable(superpixels)
            else _METHODS[superpixels](image, num_segments or 200, valid, parameters)
        )
        found = np.asarray(found)
        if found.dtype.kind not in "iu":
            raise TypeError(f"got dtype {found.dtype} for labels of superpixels, expected an integer dtype")
        labels = torch.as_tensor(np.ascontiguousarray(found, np.int64), device=inputs.image.device)
        check_shape("labels of superpixels", labels, inputs.size)
    return relabel_valid(labels, inputs.valid)


def relabel_valid(labels: Tensor, valid: Tensor | None) -> Tensor:
    """Labels consecutive from 0 over valid pixels, 0 elsewhere."""
    if valid is None or bool(valid.all()):
        return relabel(labels)
    if not bool(valid.any()):
        return torch.zeros_like(labels)
    outside = labels[valid].min() - 1  # comes first, so that the regions keep their order after it
    return (relabel(labels.where(valid, outside)) - 1).clamp(min=0)


def _slic(image: np.ndarray, num_segments: int, valid: np.ndarray | None, parameters: dict[str, Any]) -> np.ndarray:
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


_METHODS = {"slic": _slic, "felzenszwalb": _felzenszwalb, "quickshift": _quickshift, "watershed": _watershed}
