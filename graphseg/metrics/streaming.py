"""The metrics of a data set that comes in batches and to several processes, as torchmetrics' `Metric`.

    metric.update(prediction, target)   in every step, of every process
    metric.compute()                    name -> figure of everything that all processes saw

What is kept adds up: the counts are those of the whole data set at once, bit for bit, in whatever batches, order and
processes it comes; so are figures made of counts. Every image must come once: a sampler that repeats images to
make processes equally busy counts them twice.

Needs torchmetrics (the extra `train`); nothing else in graphseg.metrics imports it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from graphseg._checks import check_choice, check_positive_int
from graphseg.metrics._contingency import Tensors
from graphseg.metrics.boundary import BoundaryFScore, boundary_f_score
from graphseg.metrics.instance import InstanceOverlaps, average_precision, instance_overlaps
from graphseg.metrics.semantic import (
    confusion_matrix,
    frequency_weighted_iou,
    hungarian_accuracy,
    mean_iou,
    pixel_accuracy,
)

__all__ = ["BoundaryMetric", "InstanceMetric", "SemanticMetric"]


class SemanticMetric(Metric):
    """Intersection over union and accuracy; of clusters, the accuracy after they were matched to classes.

    `compute` returns "miou", "pixel_accuracy" and "frequency_weighted_iou", or with `num_clusters` only
    "hungarian_accuracy". The state `matrix` is the confusion matrix `[K, M]`.

    Args:
        num_classes: K.
        ignore_index: value of pixels in the target that count nowhere; None: there are none.
        num_clusters: M, if predictions are clusters whose numbers mean nothing.
        options: of torchmetrics' `Metric`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    matrix: Tensor

    def __init__(
        self, num_classes: int, ignore_index: int | None = 255, *, num_clusters: int | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        check_positive_int("num_classes", num_classes)
        self.clusters = num_clusters is not None
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.num_predicted = num_classes if num_clusters is None else num_clusters
        check_positive_int("num_clusters", self.num_predicted)
        zeros = torch.zeros(num_classes, self.num_predicted, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensors, target: Tensors) -> None:
        """Adds images.

        Args:
            prediction, target: as for `graphseg.metrics.confusion_matrix`.
        """
        self.matrix = self.matrix + confusion_matrix(
            prediction, target, self.num_classes, self.ignore_index, num_predicted=self.num_predicted
        )

    def compute(self) -> dict[str, Tensor]:
        """The figures, float64 `[]`."""
        if self.clusters:
            return {"hungarian_accuracy": hungarian_accuracy(self.matrix).accuracy}
        return {
            "miou": mean_iou(self.matrix),
            "pixel_accuracy": pixel_accuracy(self.matrix),
            "frequency_weighted_iou": frequency_weighted_iou(self.matrix),
        }


class BoundaryMetric(Metric):
    """Boundary F-score; `compute` returns "boundary_f".

    Its states are the sums over images of F-scores, `total [K]` in float64, and their numbers, `images [K]`: in another
    order of images the last digits of a sum may be others.

    Args:
        num_classes: K.
        radius, ignore_index, absent: as for `graphseg.metrics.boundary_f_score`.
        options: of torchmetrics' `Metric`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    total: Tensor
    images: Tensor

    def __init__(
        self,
        num_classes: int,
        radius: float = 1,
        ignore_index: int | None = 255,
        absent: str = "skip",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_positive_int("num_classes", num_classes)
        check_choice("absent", absent, ("skip", "one"))
        self.num_classes, self.radius, self.ignore_index, self.absent = num_classes, radius, ignore_index, absent
        self.add_state("total", torch.zeros(num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensors, target: Tensors) -> None:
        """Adds images.

        Args:
            prediction, target: as for `graphseg.metrics.boundary_f_score`.
        """
        out = boundary_f_score(prediction, target, self.num_classes, self.radius, self.ignore_index, self.absent)
        self.total, self.images = self.total + out.total, self.images + out.images

    def compute(self) -> dict[str, Tensor]:
        """The figure, float64 `[]`."""
        return {"boundary_f": BoundaryFScore.mean(self.total, self.images)[0]}


class InstanceMetric(Metric):
    """Cityscapes' average precision of instances; `compute` returns "ap" and "ap50".

    Its state `tables` is a list of int64 rows, one for each update: `InstanceOverlaps` put into one tensor. They grow
    with the number of instances, not of pixels.

    Args:
        min_area: in pixels; smaller ground truth is ignored. Cityscapes takes 100.
        ignore_index: value of void pixels in the target, as for `graphseg.metrics.instance_overlaps`.
        options: of torchmetrics' `Metric`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    tables: list[Tensor] | Tensor

    def __init__(self, min_area: int = 0, ignore_index: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        check_positive_int("min_area", min_area, minimum=0)
        self.min_area, self.ignore_index = min_area, ignore_index
        self.add_state("tables", [], dist_reduce_fx="cat")
        self._append(InstanceOverlaps.cat([]))

    def update(
        self,
        instances: Tensors,
        target: Tensors,
        *,
        classes: Tensors | None = None,
        scores: Tensors | None = None,
        target_classes: Tensors | None = None,
        target_groups: Tensors | None = None,
    ) -> None:
        """Adds images.

        Args:
            instances, target, classes, scores, target_classes, target_groups: as for
                `graphseg.metrics.instance_overlaps`.
        """
        self._append(
            instance_overlaps(
                instances,
                target,
                classes=classes,
                scores=scores,
                target_classes=target_classes,
                target_groups=target_groups,
                ignore_index=self.ignore_index,
            )
        )

    def compute(self) -> dict[str, Tensor]:
        """The figures, float64 `[]`."""
        tables = self.tables if isinstance(self.tables, Tensor) else torch.cat(self.tables)
        out = average_precision(_unpack(tables), self.min_area)
        return {"ap": out.ap, "ap50": out.ap50}

    def reset(self) -> None:
        """Forgets all images. What is left has no instances, so that a process without images has a table too."""
        super().reset()
        self._append(InstanceOverlaps.cat([]))

    def _append(self, overlaps: InstanceOverlaps) -> None:
        assert isinstance(self.tables, list)
        self.tables.append(_pack(overlaps).to(self.device))


def _pack(overlaps: InstanceOverlaps) -> Tensor:
    """int64 `[3 + ...]`: how many predictions, true instances and pairs, then the fields; scores bit by bit."""
    o = overlaps._replace(scores=overlaps.scores.view(torch.int64), target_groups=overlaps.target_groups.long())
    sizes = o.area.new_tensor([len(o.area), len(o.target_area), len(o.shared)])
    return torch.cat([sizes, *o])


def _unpack(tables: Tensor) -> InstanceOverlaps:
    """All tables that `_pack` made, after each other."""
    found, start = [], 0
    while start < len(tables):
        N, M, K = tables[start : start + 3].tolist()
        sizes = [N] * 4 + [M] * 3 + [K] * 3
        fields = InstanceOverlaps(*tables[start + 3 : start + 3 + sum(sizes)].split(sizes))
        scores, groups = fields.scores.view(torch.float64), fields.target_groups.bool()
        found.append(fields._replace(scores=scores, target_groups=groups))
        start += 3 + sum(sizes)
    return InstanceOverlaps.cat(found)
