"""ImageGraph: a PyG `Data` with the way back from its nodes to the pixels of its image."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.storage import GlobalStorage

from graphseg._checks import check_integer, check_shape, check_tensor
from graphseg.ops.pooling import pool, project

__all__ = ["ImageGraph"]


class _ImageStorage(GlobalStorage):
    """Never takes a pixel attribute for one of nodes or edges, whatever their numbers happen to be."""

    def is_node_attr(self, key: str) -> bool:
        return key not in self._parent()._not_nodes and super().is_node_attr(key)

    def is_edge_attr(self, key: str) -> bool:
        return key not in self._parent()._not_nodes and super().is_edge_attr(key)

    def __getstate__(self) -> dict[str, Any]:
        # Without PyG's cache: it would not load with `weights_only=True`.
        return {key: value for key, value in super().__getstate__().items() if key != "_cached_attr"}


class ImageGraph(Data):
    """A graph made from an image.

    Pixels are numbered row by row, P = height * width of them. Positions are (x, y) in pixels, y pointing down, pixel
    centres at integers.

    Args:
        x: `[N, F]`, node features.
        edge_index: `[2, E]`.
        edge_attr: `[E, D]`, edge features; `edge_weight [E]` may stand beside it.
        y: `[N]`, the majority class of each node's labelled pixels; where there are none -100, which torch's losses
            leave out.
        pos: `[N, 2]`, the centroid of each node.
        **kwargs: the fields below, and any others that `torch_geometric.data.Data` would take.

    Fields of its own:
        assignment: `[P]` int64, the node of each pixel.
        valid: `[P]` bool, False for pixels of no node (nodata, background); their assignment is 0 and never read.
        image_size: `[1, 2]` int64, height and width.
        label_counts: `[N, K]` integers, labelled pixels of each class in each node, where the image had a mask.
        pixel_y: `[P]` int64, the mask, ignored pixels included.
        pixel_x: `[P, C]` float, the image, where the transform was told to keep it.
        annotations: `[P, A]` int32, the segmentations of A annotators, -1 where there is none.
        geo: str, the JSON of a GeoTIFF's georeference; empty where there is none.
        source, recipe, recipe_hash: which image this is, and how the graph was made (JSON and its hash).

    Graphs of images of different sizes go into one `Batch` (PyG's `DataLoader` makes them) and come back unchanged.
    """

    # Sized by pixels or by image. PyG guesses what an attribute belongs to from its length, and P may equal N or E.
    _not_nodes = frozenset(
        {"assignment", "valid", "image_size", "pixel_y", "pixel_x", "scale_assignment", "level_sizes"}
        | {"annotations", "geo", "source", "recipe", "recipe_hash"}
    )
    _node_ids = frozenset({"assignment"})  # shifted by the number of nodes when graphs are batched

    def __init__(
        self,
        x: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        y: Tensor | None = None,
        pos: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.__dict__["_store"] = _ImageStorage(_parent=self)
        fields = {"x": x, "edge_index": edge_index, "edge_attr": edge_attr, "y": y, "pos": pos}
        for key, value in fields.items():
            if value is not None:
                self[key] = value
        for key, value in kwargs.items():
            setattr(self, key, value)

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0 if key in self._not_nodes else super().__cat_dim__(key, value, *args, **kwargs)

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key in self._node_ids:
            return self.num_nodes
        return 0 if key in self._not_nodes else super().__inc__(key, value, *args, **kwargs)

    def is_node_attr(self, key: str) -> bool:
        """Whether `key` holds one row per node; never so for the fields of pixels, even where P = N."""
        return self._store.is_node_attr(key)

    def is_edge_attr(self, key: str) -> bool:
        """Whether `key` holds one row per edge; never so for the fields of pixels, even where P = E."""
        return self._store.is_edge_attr(key)

    def __repr__(self) -> str:
        shown = copy.copy(self)
        shown.__dict__["_store"] = copy.copy(self._store)
        shown._store.pop("recipe", None)  # long; print(graph.recipe) shows it
        return super(ImageGraph, shown).__repr__()

    @property
    def num_pixels(self) -> int:
        """P, over all images of a batch."""
        return int(self.image_size.prod(1).sum())

    @property
    def num_classes(self) -> int:
        """K, the number of classes that labels were counted for; 0 without labels."""
        return 0 if self.get("label_counts") is None else self.label_counts.size(1)

    def project(self, values: Tensor, fill: float = 0.0) -> Tensor | list[Tensor]:
        """Gives every pixel the value of its node: `out[:, p] = values[assignment[p]]`.

        Args:
            values: `[N, *]`. Integers stay integers, so labels project to label maps.
            fill: for pixels of no node (an `ignore_index`, say).

        Returns:
            `[*, H, W]`; of a batch a list with one such map per image. Gradients flow to `values`.

        Raises:
            ValueError: if values do not have one row per node.
        """
        check_tensor("values", values)
        if values.dim() == 0 or values.size(0) != self.num_nodes:
            raise ValueError(f"got shape {list(values.shape)} for values, expected {self.num_nodes} rows, one per node")
        pixels = project(values, self.assignment, valid=self.get("valid"), fill=fill)  # [P, *]
        sizes = [(int(h), int(w)) for h, w in self.image_size.tolist()]
        maps = [
            part.movedim(0, -1).reshape(*part.shape[1:], h, w)
            for part, (h, w) in zip(pixels.split([h * w for h, w in sizes]), sizes, strict=True)
        ]
        return maps if isinstance(self, Batch) else maps[0]

    def pool(self, values: Tensor, reduce: str = "mean") -> Tensor:
        """Reduces pixel values to node values: `out[n] = reduce of values[p] over assignment[p] = n`.

        Args:
            values: `[P, *]`; or, of one image, `[*, H, W]`, which is taken where the last two sizes fit (`[H, W]`
                itself only where H is not P).
            reduce: "mean", "sum", "max" or "min"; a node without pixels gives 0.

        Returns:
            `[N, *]`. Gradients flow to `values`.

        Raises:
            ValueError: if values have neither shape.
        """
        check_tensor("values", values)
        pixels = self._pixel_rows(values)
        return pool(pixels, self.assignment, self.num_nodes, reduce, valid=self.get("valid"))

    def _pixel_rows(self, values: Tensor) -> Tensor:
        P = self.num_pixels
        if not isinstance(self, Batch):
            H, W = (int(s) for s in self.image_size[0])
            is_map = tuple(values.shape[-2:]) == (H, W)
            if is_map and (values.dim() > 2 or H != P):
                return values.reshape(*values.shape[:-2], P).movedim(-1, 0)
            want = f"[{P}, *] or [*, {H}, {W}]"
        else:
            want = f"[{P}, *], the pixels of all images"
        if values.dim() == 0 or values.size(0) != P:
            raise ValueError(f"got shape {list(values.shape)} for values, expected {want}")
        return values

    def purity(self) -> Tensor:
        """`[N]` float: the share of a node's labelled pixels that have its majority class (0 where none has a label).

        Raises:
            ValueError: if the graph was made without labels.
        """
        counts = self._label_counts()
        if counts.size(0) == 0:
            return counts.new_zeros(0, dtype=torch.float32)
        return counts.amax(1) / counts.sum(1).clamp(min=1)

    def oracle(self) -> dict[str, float]:
        """The scores of labelling every node with its majority class: the ceiling of what these nodes can express.

        No classifier of the nodes has a higher pixel accuracy. Mean IoU it may pass by a little, by giving nodes of
        mixed pixels to a rare class.

        Returns:
            `pixel_accuracy`, over labelled pixels that belong to a node; `mean_iou`, over the classes that occur
            there. Of a batch, over all its pixels together. NaN if no pixel has a label.

        Raises:
            ValueError: if the graph was made without labels.
        """
        return oracle_scores(self._label_counts())

    def _label_counts(self) -> Tensor:
        if self.get("label_counts") is None:
            raise ValueError("got a graph without label_counts, expected one made from an image with a mask")
        return self.label_counts

    def subgraph(self, subset: Tensor) -> Self:
        """The graph of the nodes in `subset` (bool `[N]` or ids); pixels of the others belong to no node afterwards."""
        N = self.num_nodes
        ids = subset.nonzero().squeeze(1) if subset.dtype == torch.bool else subset.to(torch.int64)
        if ids.unique().numel() != ids.numel():
            raise ValueError("got the same node twice in subset, expected each once: a pixel has one node")
        renumbered = ids.new_full((N,), -1)
        renumbered[ids] = torch.arange(ids.numel(), device=ids.device)
        graph = super().subgraph(subset if subset.dtype == torch.bool else ids)
        if N and "assignment" in self:
            assignment = renumbered[self.assignment]
            valid = self.get("valid")
            graph.valid = assignment >= 0 if valid is None else valid & (assignment >= 0)
            graph.assignment = assignment.where(graph.valid, 0)
        if "num_nodes" in self._store:
            graph.num_nodes = ids.numel()
        return graph

    def validate(self, raise_on_error: bool = True) -> bool:
        """Checks that all fields fit together; also on a batch.

        Returns:
            Whether they do.

        Raises:
            ValueError, TypeError: naming the first field that does not, unless `raise_on_error` is False.
        """
        try:
            super().validate(raise_on_error=True)
            self._check_fields()
            self._check_counts()
        except (ValueError, TypeError):
            if raise_on_error:
                raise
            return False
        return True

    def _check_fields(self) -> None:
        N, images = self.num_nodes, self.num_graphs if isinstance(self, Batch) else 1
        for key in ("assignment", "image_size"):
            if self.get(key) is None:
                raise ValueError(f"got no {key}, expected one in every ImageGraph")
        check_integer("image_size", check_tensor("image_size", self.image_size))
        check_shape("image_size", self.image_size, (images, 2))
        if bool((self.image_size < 1).any()):
            raise ValueError(f"got image_size {self.image_size.tolist()}, expected heights and widths of at least 1")
        P = self.num_pixels
        self._check_rows("pixel", P, ("assignment", "valid", "pixel_y", "pixel_x", "annotations"))
        if self.get("annotations") is not None:
            check_integer("annotations", self.annotations)
            check_shape("annotations", self.annotations, (P, None))
        self._check_rows("node", N, ("x", "pos", "label_counts"))
        self._check_rows("edge", self.num_edges, ("edge_attr", "edge_weight", "edge_y"))
        if self.get("y") is not None and check_tensor("y", self.y).shape[:1] != (images,):  # or one label per image
            self._check_rows("node", N, ("y",))
        if self.assignment.dtype != torch.int64:
            raise TypeError(f"got dtype {self.assignment.dtype} for assignment, expected torch.int64")
        valid = self.get("valid")
        if valid is not None and valid.dtype != torch.bool:
            raise TypeError(f"got dtype {valid.dtype} for valid, expected torch.bool")
        if self.get("pos") is not None:
            check_shape("pos", self.pos, (N, 2))
        read = self.assignment if valid is None else self.assignment[valid]
        if read.numel() and (int(read.min()) < 0 or int(read.max()) >= N):
            raise ValueError(f"got assignment from {int(read.min())} to {int(read.max())}, expected ids of {N} nodes")
        if isinstance(self, Batch) and self.get("batch") is not None:
            image = torch.arange(images, device=read.device).repeat_interleave(self.image_size.prod(1))  # [P]
            if not torch.equal(self.batch[read], image if valid is None else image[valid]):
                raise ValueError("got assignment to nodes of another image, expected nodes of the pixel's own image")

    def _check_rows(self, kind: str, count: int, keys: Sequence[str]) -> None:
        for key in keys:
            value = self.get(key)
            if value is not None and (check_tensor(key, value).dim() == 0 or value.size(0) != count):
                raise ValueError(f"got shape {list(value.shape)} for {key}, expected {count} rows, one per {kind}")

    def _nodes_of_pixels(self) -> Tensor:
        """The node of every pixel that has one."""
        return self.assignment if self.get("valid") is None else self.assignment[self.valid]

    def _check_counts(self) -> None:
        counts = self.get("label_counts")
        if counts is None:
            return
        check_integer("label_counts", counts)
        check_shape("label_counts", counts, (self.num_nodes, None))
        if counts.numel() and int(counts.min()) < 0:
            raise ValueError(f"got {int(counts.min())} in label_counts, expected counts from 0")
        area = torch.bincount(self._nodes_of_pixels(), minlength=self.num_nodes)
        over = (counts.to(torch.int64).sum(1) > area).nonzero()
        if over.numel():
            n = int(over[0])
            raise ValueError(
                f"got {int(counts[n].sum())} labels in label_counts of node {n}, expected at most its {int(area[n])} "
                "pixels in assignment (were nodes dropped without it? subgraph takes it along)"
            )


def oracle_scores(counts: Tensor) -> dict[str, float]:
    """Pixel accuracy and mean IoU when every node of `label_counts [N, K]` takes its majority class."""
    K = counts.size(1)
    confusion = counts.new_zeros(K, K, dtype=torch.int64)  # [predicted, true]
    for part in counts.split(1 << 16) if counts.size(0) else ():  # pixels as nodes are many, and counted in bytes
        confusion.index_add_(0, part.argmax(1), part.to(torch.int64))
    correct = confusion.diagonal()
    true = confusion.sum(0)
    union = true + confusion.sum(1) - correct
    occurs = true > 0
    if not bool(occurs.any()):
        return {"pixel_accuracy": math.nan, "mean_iou": math.nan}
    return {
        "pixel_accuracy": int(correct.sum()) / int(true.sum()),
        "mean_iou": float((correct[occurs].to(torch.float64) / union[occurs]).mean()),
    }
