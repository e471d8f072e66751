"""What a trained network is worth on images with ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict
from torch.nn.functional import one_hot
from tqdm import tqdm

from graphseg._checks import check_choice, check_positive_int
from graphseg.datasets import ImageReader
from graphseg.metrics.multiscale import multiscale_probabilities
from graphseg.metrics.streaming import BoundaryMetric, InstanceMetric, SemanticMetric
from graphseg.training.data import IGNORE, TrainingData, batch_on
from graphseg.training.recipe import KINDS, Recipe

__all__ = ["Judge", "evaluate", "make_judge"]

VOID = -1  # in maps of instances


class Judge(Module):
    """Figures of a network, gathered batch by batch and over processes.

    "semantic": mean IoU, pixel accuracy and boundary F-score. "unsupervised": the accuracy of clusters that were
    matched to classes over all images (Hungarian). "instances": Cityscapes' AP and AP50.

    Args:
        kind: as above.
        num_classes: of the ground truth; for "instances" two where only the objects are told from the background.
        num_clusters: of an unsupervised network, if other than the classes.
        scales, flip: of multi-scale testing; of class maps only.
        boundary_radius: of the boundary F-score, in pixels, or a fraction of the diagonal if under 1.
        min_area: of instances that count, in pixels.
        options: of `AffinityInstances.segment`.
    """

    def __init__(
        self,
        kind: str,
        num_classes: int,
        *,
        num_clusters: int | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        boundary_radius: float = 1,
        min_area: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice("kind", kind, KINDS)
        check_positive_int("num_classes", num_classes)
        self.kind, self.num_classes, self.scales, self.flip = kind, num_classes, tuple(scales), flip
        self.options = dict(options or {})
        metrics: dict[str, Module] = {}
        if kind == "instances":
            metrics["instances"] = InstanceMetric(min_area, VOID)
        elif kind == "unsupervised":
            metrics["classes"] = SemanticMetric(num_classes, IGNORE, num_clusters=num_clusters or num_classes)
        else:
            metrics["classes"] = SemanticMetric(num_classes, IGNORE)
            metrics["boundary"] = BoundaryMetric(num_classes, boundary_radius, IGNORE)
        self.metrics = ModuleDict(metrics)

    @torch.no_grad()
    def update(self, network: Module, batch: Mapping[str, Any]) -> None:
        """Adds the images of a batch.

        Args:
            network: in evaluation mode.
            batch: with "image" and the ground truth of the kind.
        """
        image = batch["image"]
        if self.kind == "instances":
            found = network.segment(image, **self.options)  # type: ignore[operator]
            classes: dict[str, Any] = {}
            if self.num_classes > 2:
                classes["classes"] = [one.classes for one in found]
                pairs = zip(batch["instances"], batch["mask"], strict=True)
                classes["target_classes"] = [instance_classes(i, m, self.num_classes) for i, m in pairs]
            labels, scores = [one.labels for one in found], [one.scores for one in found]
            target = batch["instances"]
            if "mask" in batch:  # of no instance, but not background: nothing is known there
                target = target.masked_fill((batch["mask"] == IGNORE) & (target == 0), VOID)
            self.metrics["instances"].update(  # type: ignore[operator]
                labels, list(target), scores=scores, **classes
            )
            return
        prediction = self.predict(network, image, batch.get("superpixels"))
        for metric in self.metrics.values():
            metric.update(prediction, batch["mask"])  # type: ignore[operator]

    def predict(self, network: Module, image: Tensor, superpixels: Tensor | None = None) -> Tensor:
        """Class maps `[B, H, W]`.

        Args:
            network: in evaluation mode.
            image: `[B, C, H, W]` in [0, 1].
            superpixels: `[B, S, H, W]`, if there are any.
        """
        if self.scales == (1.0,) and not self.flip:
            return network(image, superpixels).logits.argmax(1)
        return multiscale_probabilities(network, image, self.scales, self.flip, superpixels=superpixels).argmax(1)

    def compute(self) -> dict[str, float]:
        """The figures of all images of all processes."""
        found: dict[str, float] = {}
        for metric in self.metrics.values():
            found |= {name: float(value) for name, value in metric.compute().items()}  # type: ignore[operator]
        return found

    def reset(self) -> None:
        """Forgets all images."""
        for metric in self.metrics.values():
            metric.reset()  # type: ignore[operator]


def evaluate(
    network: Module,
    reader: ImageReader,
    recipe: Recipe,
    *,
    device: str | torch.device = "cpu",
    num_workers: int = 0,
    progress: bool = False,
    judge: Judge | None = None,
    **judging: Any,
) -> dict[str, float]:
    """The figures of a network on the images of a reader.

    Args:
        network: of `graphseg.models`.
        reader: of images with ground truth.
        recipe: says how images are resized and classes mapped, and the kind.
        device: to work on.
        num_workers: processes that load images.
        progress: whether to show a bar.
        judge: one of `make_judge`, of which more can be read afterwards. Default: made of `judging`.
        judging: keyword arguments of `Judge`: `scales`, `flip`, `boundary_radius`, `min_area`, `options`.

    Returns:
        Names and figures.

    Raises:
        ValueError: for a reader without the ground truth that the kind needs.
    """
    judge = make_judge(network, recipe, reader, **judging) if judge is None else judge
    judge = judge.to(device)
    data = TrainingData(recipe, reader, reader, num_workers=num_workers)
    network = network.to(device).eval()
    for batch in tqdm(data.val_dataloader(), unit="image", disable=not progress):
        judge.update(network, batch_on(batch, torch.device(device)))
    return judge.compute()


def make_judge(network: Module, recipe: Recipe, reader: ImageReader, **judging: Any) -> Judge:
    """The judge of a recipe's kind.

    Args:
        network: to be judged.
        recipe: which says the kind, and maps classes.
        reader: of images with ground truth.
        judging: keyword arguments of `Judge`.

    Raises:
        ValueError: for a reader without the classes that the kind needs.
    """
    if recipe.kind == "instances":
        return Judge("instances", recipe.count_classes(reader.num_classes) or 2, **judging)
    classes = recipe.count_classes(reader.num_classes)
    if classes is None:
        raise ValueError(f"got {reader!r} without classes, expected masks to judge by")
    if recipe.kind == "unsupervised":
        judging = {"num_clusters": network.num_classes, **judging}
    return Judge(recipe.kind, classes, **judging)


def instance_classes(instances: Tensor, mask: Tensor, num_classes: int) -> Tensor:
    """int64 `[K]`: the class of instances 1 to K, that of most of their pixels; background where none is labelled."""
    count = int(instances.max()) if instances.numel() else 0
    known = (mask != IGNORE) & (instances > 0) & (instances <= count)
    votes = torch.zeros(count + 1, num_classes, dtype=torch.int64, device=instances.device)
    votes.index_add_(0, instances[known], one_hot(mask[known], num_classes))
    return votes[1:].argmax(1)
