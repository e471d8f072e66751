"""What every image-to-graph transform shares: reading the input, describing pixels, labels and provenance."""

from __future__ import annotations

import functools
import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

import graphseg
from graphseg._checks import check_finite, check_integer, check_positive_int, check_shape, check_tensor
from graphseg.data.image_graph import ImageGraph

UNLABELLED = -100  # `y` of a node without labelled pixels: what torch's losses leave out by default

NO_ANNOTATION = -1  # in `annotations`, of a pixel that an annotator gave no region
LABEL_FIELDS = ("mask", "segments", "instances", "annotations")
MAP_FIELDS = (*LABEL_FIELDS, "valid", "boundary")
OWN_CUTS = ("slic", "grid", "segments", "pixels")  # ways to cut an image that are graphseg's, or the user's own
# What a transform reads from its input. Everything else on it is passed on to the graph.
INPUT_FIELDS = ("image", *MAP_FIELDS, "source")


@dataclass(frozen=True)
class ImageInput:
    """One checked image with what came along; what `ImageTransform.convert` is given.

    Args:
        image: `[C, H, W]`, uint8, uint16 or floating-point; 0 in pixels that are not valid.
        mask: `[H, W]` int64, the class of each pixel.
        valid: `[H, W]` bool, False for pixels to leave out; None where there are none.
        segments: `[H, W]` int64, the user's own regions.
        instances: `[H, W]` int64, 0 for background.
        boundary: `[H, W]`, the strength of the boundary at each pixel.
        annotations: `[A, H, W]` int64, the segmentations of A annotators, -1 where there is none.
    """

    image: Tensor
    mask: Tensor | None
    valid: Tensor | None
    segments: Tensor | None
    instances: Tensor | None
    boundary: Tensor | None
    annotations: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def scale(self) -> float:
        """What brings the image's values to [0, 1]: 1 / 255, 1 / 65535, or 1 for floating-point."""
        return unit_scale(self.image.dtype)

    def unit_image(self) -> Tensor:
        """The image in floating-point, values of integer images brought to [0, 1]."""
        if self.image.is_floating_point():
            return self.image.to(torch.promote_types(self.image.dtype, torch.float32))
        return self.image.to(torch.float32) * self.scale


def unit_scale(dtype: torch.dtype) -> float:
    """What brings values of an image of this dtype to [0, 1]."""
    return {torch.uint8: 1 / 255, torch.uint16: 1 / 65535}.get(dtype, 1.0)


def check_image(data: Data) -> Tensor:
    """The input's image `[C, H, W]`; TypeError or ValueError if there is none that will do."""
    if not isinstance(data, Data):
        raise TypeError(f"got {type(data).__name__}, expected torch_geometric.data.Data with a field image [C, H, W]")
    if data.get("image") is None:
        raise ValueError(f"got Data with {sorted(data.keys())}, expected a field image [C, H, W]")
    image = check_tensor("image", data.image)
    if image.dim() != 3 or 0 in image.shape:
        raise ValueError(f"got shape {list(image.shape)} for image, expected [C, H, W] (use image[None] for [H, W])")
    C, H, W = image.shape
    if C >= 16 and H >= 16 and W in (3, 4):
        raise ValueError(
            f"got shape {list(image.shape)} for image, which looks like [H, W, C]; "
            "expected [C, H, W] (image.permute(2, 0, 1))"
        )
    if image.dtype == torch.bool or image.is_complex():
        raise TypeError(f"got dtype {image.dtype} for image, expected uint8, uint16 or floating-point")
    return image


def check_map(name: str, value: object, image: Tensor) -> Tensor:
    """The map `name` of an image, a bool mask as numbers; TypeError or ValueError if it does not fit.

    It is `[H, W]`; `annotations` are `[A, H, W]`.
    """
    found = check_tensor(name, value)
    check_shape(name, found, (None, *image.shape[1:]) if name == "annotations" else image.shape[1:])
    if name == "mask" and found.dtype == torch.bool:
        found = found.to(torch.uint8)
    if name in LABEL_FIELDS:
        check_integer(name, found)
    elif name == "valid" and found.dtype != torch.bool:
        raise TypeError(f"got dtype {found.dtype} for valid, expected torch.bool")
    return found


def read_input(data: Data) -> ImageInput:
    """Checks `Data(image=[C, H, W], mask=[H, W], ...)`.

    Raises:
        ValueError: without an image, for sizes that do not fit it, or for NaN in valid pixels.
        TypeError: for fields that are not tensors of the right kind.
    """
    image = check_image(data)
    if not image.is_floating_point() and image.dtype not in (torch.uint8, torch.uint16):
        image = image.to(torch.float32)  # other integers have no common range: they count as they are
    maps: dict[str, Tensor | None] = dict.fromkeys(MAP_FIELDS)
    for name in MAP_FIELDS:
        if data.get(name) is not None:
            value = check_map(name, data[name], image).to(image.device)
            maps[name] = value.to(torch.int64) if name in LABEL_FIELDS else value
    valid = maps["valid"]
    if valid is not None and bool(valid.all()):
        maps["valid"] = None
    elif valid is not None:
        image = torch.where(valid, image, 0)  # whatever nodata held, it reaches neither nodes nor superpixels
    check_finite("image", image.detach())
    return ImageInput(image=image, **maps)


def annotation_rows(annotations: Tensor) -> Tensor:
    """`[P, A]` int32 of `annotations [A, H, W]`: one dtype for all images, so that their graphs can be joined.

    Raises:
        ValueError: for ids below -1, or too large for int32.
    """
    largest = torch.iinfo(torch.int32).max
    low, high = (int(v) for v in annotations.aminmax()) if annotations.numel() else (0, 0)
    if low < NO_ANNOTATION or high > largest:
        bad = low if low < NO_ANNOTATION else high
        raise ValueError(f"got id {bad} in annotations, expected {NO_ANNOTATION} (none) to {largest}")
    return annotations.flatten(1).T.to(torch.int32).contiguous()  # [P, A]


def add_provenance(graph: ImageGraph, source: str, recipe: dict[str, Any]) -> None:
    """Writes which image a graph is of and how it was made, as JSON with its hash."""
    graph.source = source
    graph.recipe = json.dumps(recipe, sort_keys=True)
    graph.recipe_hash = hashlib.sha256(graph.recipe.encode()).hexdigest()[:16]


class ImageTransform(BaseTransform):
    """A transform from `Data(image=, mask=)` to an `ImageGraph`; composes like any of PyG's.

    The input's fields:
        image: `[C, H, W]`, uint8, uint16 (both scaled to [0, 1]) or floating-point (as it is), any C.
        mask: `[H, W]` integers or bool, optional: the class of each pixel.
        valid: `[H, W]` bool, optional: False for pixels to leave out (nodata).
        segments, instances, boundary: `[H, W]`, optional, read by the transforms that say so.
        annotations: `[A, H, W]` integers, optional: the segmentations of A annotators, -1 where there is none. The
            graph holds them as `[P, A]` int32.
        geo: str, optional, the JSON of a GeoTIFF's georeference; empty where there is none.
        source: str, optional, the image's name.
    All other fields are passed on to the graph.

    A construction of your own needs `convert` only.

    Args:
        node_features: names, for the subclass to read.
        edge_features: likewise.
        num_classes: K of the mask; None: its largest label + 1.
        ignore_index: mask value that counts for no class; None if there is none.
        keep_pixels: keep the image as `pixel_x`.
    """

    _over_pixels = False  # whether every pixel is a node: its counts are 0 or 1, and one byte holds them

    def __init__(
        self,
        node_features: Sequence[str],
        edge_features: Sequence[str],
        num_classes: int | None,
        ignore_index: int | None,
        keep_pixels: bool,
    ) -> None:
        if num_classes is not None:
            check_positive_int("num_classes", num_classes)
        self.node_features = tuple(node_features)
        self.edge_features = tuple(edge_features)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.keep_pixels = keep_pixels

    @abstractmethod
    def convert(self, inputs: ImageInput) -> ImageGraph:
        """Nodes, edges, their features and the assignment of pixels; the rest is the same for every transform."""

    def forward(self, data: Data) -> ImageGraph:
        inputs = read_input(data)
        graph = self.convert(inputs)
        H, W = inputs.size
        device = inputs.image.device
        graph.image_size = torch.tensor([[H, W]], device=device)
        if graph.get("valid") is None:
            # On every graph: collating takes its fields from the first, and would drop the masks of the others.
            graph.valid = torch.ones(H * W, dtype=torch.bool, device=device)
        if inputs.mask is not None:
            self._add_labels(graph, inputs.mask)
        if inputs.annotations is not None:
            graph.annotations = annotation_rows(inputs.annotations)
        if self.keep_pixels:
            graph.pixel_x = inputs.unit_image().flatten(1).T.contiguous()  # [P, C]
        add_provenance(graph, str(data.get("source") or ""), self.recipe())
        for key, value in data:
            if key in INPUT_FIELDS:
                continue
            if key in graph or (hasattr(type(graph), key) and not hasattr(Data, key)):
                raise ValueError(f"got field {key!r} in the input, expected none that the graph defines itself")
            graph[key] = value
        return graph

    def recipe(self) -> dict[str, Any]:
        """What made the graph: the version, this class and its parameters, as JSON values."""
        parameters = {key: describe(value) for key, value in vars(self).items() if not key.startswith("_")}
        versions = {"graphseg": graphseg.__version__}
        if parameters.get("superpixels", "slic") not in OWN_CUTS:  # another release may cut the image otherwise
            versions["scikit-image"] = _version("scikit-image")
        return {**versions, "transform": type(self).__name__, **parameters}

    def __repr__(self) -> str:
        parameters = [f"{k}={_short(v)}" for k, v in vars(self).items() if not k.startswith("_")]
        return f"{type(self).__name__}({', '.join(parameters)})"

    def _add_labels(self, graph: ImageGraph, mask: Tensor) -> None:
        target = mask.reshape(-1)
        counted = graph.valid if self.ignore_index is None else graph.valid & (target != self.ignore_index)
        labels = target.where(counted, 0)  # these go to a slot of their own below
        low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
        K = high + 1 if self.num_classes is None else self.num_classes
        if low < 0 or high >= K:
            other = "; is it ignore_index?" if self.ignore_index is None else f", or ignore_index={self.ignore_index}"
            raise ValueError(f"got label {low if low < 0 else high} in mask, expected 0 to {K - 1}{other}")
        graph.pixel_y = target
        N = graph.num_nodes
        if self._over_pixels:
            counts = torch.zeros(N, K, dtype=torch.uint8, device=target.device)
            graph.label_counts = counts.scatter_(1, labels[:, None], counted[:, None].to(torch.uint8))
            graph.y = target.where(counted, UNLABELLED)
            return
        levels = graph.get("scale_assignment")
        columns = graph.assignment[:, None] if levels is None else levels  # [P, L]: a pixel counts at every level
        slots = (columns * K + labels[:, None]).where(counted[:, None], N * K).view(-1)
        counts = torch.bincount(slots, minlength=N * K + 1)[:-1].view(N, K)
        graph.label_counts = counts
        graph.y = counts.argmax(1).where(counts.sum(1) > 0, UNLABELLED) if N else counts.new_zeros(0)


@functools.cache
def _version(package: str) -> str:
    return version(package)


def _short(value: Any) -> str:
    # A bound method's repr holds that of its transform, which would hold it in turn.
    return str(describe(value)) if hasattr(value, "__qualname__") else repr(value)


def describe(value: Any) -> Any:
    """`value` in JSON's types; functions and classes by their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    if isinstance(value, ImageTransform):
        return value.recipe()
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return value.tolist()
    if isinstance(value, functools.partial):
        return {
            "function": describe(value.func),
            "arguments": describe(value.args),
            "keywords": describe(value.keywords),
        }
    if hasattr(value, "__qualname__"):
        name = f"{value.__module__}.{value.__qualname__}"
        code = getattr(value, "__code__", None)
        if "<" not in name or code is None:
            return name
        # Lambdas and functions inside functions share a name, but not their code and what they hold.
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return {"function": name, "code": _code_digest(code), "holds": describe(held)}
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"class": name, **describe(vars(value))} if hasattr(value, "__dict__") else name  # repr may hold an address


def _code_digest(code: CodeType) -> str:
    """A hash of the instructions, names and constants of a function, of the functions inside it too."""
    constants = [_code_digest(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return hashlib.sha256(code.co_code + repr((code.co_names, constants)).encode()).hexdigest()[:16]
