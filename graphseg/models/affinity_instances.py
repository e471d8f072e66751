"""Instances by two networks and a graph merge: one branch says what a pixel is, one which pixels belong together.

Paper: Liu et al., "Affinity Derivation and Graph Merge for Instance Segmentation", sections 3.1 to 3.3, 4 and 5.
Both branches are a dilated ResNet with DeepLabV3's ASPP (Fig. 3); they share no weights. `segment` merges (3.4). The
switches of Table 2 are options of `segment`, as are those of Table 3 but for the strides:

    baseline     refine=False, roi_size=None, window=1
    PAR          refine=True, with super_classes=[(1, 2), (3, 4, 5, 6), (7, 8)] as in section 4.2
    RR           roi_size=513
    FLM          window=2 or 4
    SCP          partition=True, with the same super_classes
    Semantic OS  semantic_stride=8, of the network
    Instance OS  instance_stride=8, of the network
    SHF, IHF     flip_semantic=True, flip_affinity=True
    SCR          class_refinement=(7, 8)

(classes in the order of Table 1: 1 person, 2 rider, 3 car, 4 truck, 5 bus, 6 train, 7 motorcycle, 8 bicycle). What is
not said otherwise is PAR without super-classes, RR and FLM with window 2.

The paper leaves open: how both losses are weighed (they are added; no weight is in both); what unlabelled pixels are
(pairs with one of them do not count). It trains the branches one after the other on sets of their own: with batches
that lack `mask` or `instances` only one has a loss where there are more than two classes.
Differs from the paper: on request classes of pairs are balanced and pairs inside the background left out, as few
images and steps need it; a network so trained thinks same and different equally frequent, which `calibrate` corrects.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Conv2d, Module, Parameter
from torch.nn.functional import interpolate

from graphseg._checks import check_choice, check_positive_int, check_shape, check_tensor
from graphseg.losses import affinity_counts, affinity_cross_entropy, cross_entropy
from graphseg.models.heads import ASPP, DeepLabV3PlusHead
from graphseg.models.resnet import backbone_channels, backbone_maps, make_backbone, scaled_width
from graphseg.nn import AffinityHead, InstanceSegmenter, affinity_targets
from graphseg.ops import affinity_offsets
from graphseg.ops.instance_map import Instances

__all__ = ["AffinityBranch", "AffinityInstances", "AffinityOutput"]

STAGES = ((4, 0.97), (16, 0.7), (None, 0.3))  # section 3.4: distances up to, threshold


class AffinityOutput(NamedTuple):
    """What the network says of images `[B, C, H, W]`.

    Attributes:
        logits: `[B, M, H, W]`, of the classes; class 0 is the background.
        affinities: logits `[B, K, H, W]`: channel k at p, that p and p + offsets[k] lie in one instance.
    """

    logits: Tensor
    affinities: Tensor


class AffinityBranch(Module):
    """One branch: backbone, head and a linear map to the channels (Fig. 3). Its logits are smaller than the image.

    Args:
        classifier: makes a module from the number of channels before it.
        backbone: a name such as "resnet101", or a module with `out_channels`.
        head: "deeplabv3" (ASPP on the last map, the paper's) or "deeplabv3plus" (joined with the map of stride 4, for
            small objects).
        output_stride: image pixels per pixel of the last map: 8, 16 or 32.
        width: scales all channels.
        in_channels: of images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classifier: Callable[[int], Module],
        backbone: str | Module = "resnet101",
        head: str = "deeplabv3",
        output_stride: int = 16,
        width: float = 1.0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_choice("head", head, ("deeplabv3", "deeplabv3plus"))
        self.backbone = make_backbone(backbone, output_stride, width, in_channels)
        channels, features = backbone_channels(self.backbone), scaled_width(256, width)
        rates = [rate * 16 // output_stride for rate in (6, 12, 18)]
        self.head: Module
        if head == "deeplabv3":
            self.head = ASPP(channels[-1], features, rates)
        else:
            self.head = DeepLabV3PlusHead(channels, features, rates, scaled_width(48, width))
        self.plus = head == "deeplabv3plus"
        self.classifier = classifier(features)
        self.register_buffer("mean", torch.full((in_channels, 1, 1), 0.5), persistent=False)
        self.register_buffer("std", torch.full((in_channels, 1, 1), 0.25), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits `[B, *, h, w]`.

        Args:
            image: `[B, in_channels, H, W]`, in [0, 1].
        """
        maps = backbone_maps(self.backbone, (image - self.mean) / self.std)
        return self.classifier(self.head(maps if self.plus else maps[-1]))


class AffinityInstances(Module):
    """A semantic branch, an instance branch, and instances from both by the graph merge.

    Args:
        num_classes: M, with the background, class 0.
        backbone: a name such as "resnet101", or a module with `out_channels`; of the latter the instance branch takes
            a copy.
        semantic: a network that takes the place of the semantic branch: from images in [0, 1] to logits
            `[B, M, *, *]`, or to a tuple whose first entry they are. Smaller logits are resized (bilinear).
        instance: likewise of the instance branch, to logits `[B, K, *, *]`.
        head: "deeplabv3" or "deeplabv3plus", see `AffinityBranch`.
        output_stride: image pixels per pixel of the backbones' last maps: 8, 16 or 32.
        semantic_stride: that of the semantic branch, if it is another.
        instance_stride: that of the instance branch, if it is another.
        distances: of the eight neighbours, K = 8 times as many channels, see `graphseg.ops.affinity_offsets`.
        width: scales all channels.
        in_channels: of images.
        background: of two background pixels: "different" instances (the paper's), the "same", or to "ignore": they
            are not learnt, for what is background the semantic branch knows.
        balance: "none", or "channel": same and different weigh the same in every channel, see
            `affinity_cross_entropy`.
        calibrate: with "channel", in eval mode: add the log odds of same to different in training to each channel, so
            that affinities are probabilities again. They are counted in the buffer `pair_counts`.
        ignore_index: of `mask`: pixels without a label.
        ignore_instance: of `instances`: pixels of which no instance is known.

    Attributes:
        offsets: K pairs (dy, dx), of the channels.
        options: the arguments by name.
    """

    pair_counts: Tensor

    def __init__(
        self,
        num_classes: int = 9,
        *,
        backbone: str | Module = "resnet101",
        semantic: Module | None = None,
        instance: Module | None = None,
        head: str = "deeplabv3",
        output_stride: int = 16,
        semantic_stride: int | None = None,
        instance_stride: int | None = None,
        distances: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
        width: float = 1.0,
        in_channels: int = 3,
        background: str = "different",
        balance: str = "none",
        calibrate: bool = False,
        ignore_index: int = 255,
        ignore_instance: int = -1,
    ) -> None:
        super().__init__()
        check_positive_int("num_classes", num_classes, minimum=2)
        check_choice("background", background, ("different", "same", "ignore"))
        check_choice("balance", balance, ("none", "channel"))
        if calibrate and balance == "none":
            raise ValueError("got calibrate=True with balance='none', expected balance='channel': nothing else to undo")
        distances = sorted(distances)
        self.options: dict[str, Any] = {
            "num_classes": num_classes,
            "backbone": backbone,
            "semantic": semantic,
            "instance": instance,
            "head": head,
            "output_stride": output_stride,
            "semantic_stride": semantic_stride,
            "instance_stride": instance_stride,
            "distances": distances,
            "width": width,
            "in_channels": in_channels,
            "background": background,
            "balance": balance,
            "calibrate": calibrate,
            "ignore_index": ignore_index,
            "ignore_instance": ignore_instance,
        }
        self.num_classes, self.distances, self.offsets = num_classes, distances, affinity_offsets(distances)
        self.background, self.balance, self.calibrate = background, balance, calibrate
        self.ignore_index, self.ignore_instance = ignore_index, ignore_instance
        self.register_buffer("pair_counts", torch.zeros(2, len(self.offsets), dtype=torch.int64))

        def branch(classifier: Callable[[int], Module], stride: int | None, copied: bool) -> Module:
            own = copy.deepcopy(backbone) if copied else backbone
            return AffinityBranch(classifier, own, head, stride or output_stride, width, in_channels)

        self.semantic = semantic or branch(lambda c: Conv2d(c, num_classes, 1), semantic_stride, False)
        self.instance = instance or branch(lambda c: AffinityHead(c, self.offsets), instance_stride, semantic is None)

    def forward(self, image: Tensor, superpixels: Tensor | None = None) -> AffinityOutput:
        """Runs both branches.

        Args:
            image: `[B, in_channels, H, W]`, in [0, 1].
            superpixels: not read; networks of other papers do.
        """
        return AffinityOutput(self.semantic_logits(image), self.affinity_logits(image))

    def semantic_logits(self, image: Tensor) -> Tensor:
        """Logits `[B, M, H, W]` of the classes.

        Args:
            image: `[B, in_channels, H, W]`, in [0, 1].
        """
        return _at_size("semantic", self.semantic(image), image, self.num_classes)

    def affinity_logits(self, image: Tensor) -> Tensor:
        """Logits `[B, K, H, W]` of the affinities.

        Args:
            image: `[B, in_channels, H, W]`, in [0, 1].
        """
        logits = _at_size("instance", self.instance(image), image, len(self.offsets))
        if self.calibrate and not self.training:
            logits = logits + self.log_odds().to(logits.dtype).view(-1, 1, 1)
        return logits

    def log_odds(self) -> Tensor:
        """float64 `[K]`: log of same to different pairs in training; 0 where one of the two never occurred."""
        different, same = self.pair_counts.double()
        return (same / different).log().where((different > 0) & (same > 0), 0)

    def losses(
        self,
        batch: Mapping[str, Tensor],
        *,
        reduce: Callable[[Tensor], Tensor] = lambda x: x,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The loss of a batch, and its terms by name.

        Args:
            batch: "image" `[B, C, H, W]`; "instances" `[B, H, W]`, 0 the background, and "mask" `[B, H, W]`, classes,
                or one of them. Without "mask" two classes follow from "instances". Pixels that "mask" ignores have no
                pairs either.
            reduce: adds sums over processes.
            generator: not read; nothing is drawn.

        Returns:
            "loss" with its gradient; "semantic" and "affinity" without.

        Raises:
            ValueError: if the batch has neither, or maps of other shapes.
        """
        image, mask, instances = batch["image"], batch.get("mask"), batch.get("instances")
        if instances is not None:
            instances = instances.long()  # of unsigned dtypes no value is free for what is ignored
            if mask is not None:
                check_shape("mask", mask, tuple(instances.shape))
                instances = instances.masked_fill(mask == self.ignore_index, self.ignore_instance)
            elif self.num_classes == 2:
                mask = (instances > 0).long().masked_fill(instances == self.ignore_instance, self.ignore_index)
        elif mask is None:
            raise ValueError(f"got a batch of {', '.join(batch)}, expected mask or instances in it")
        terms = {}
        if mask is not None:
            logits = self.semantic_logits(image)
            terms["semantic"] = _mean(
                cross_entropy(logits, mask, ignore_index=self.ignore_index, reduction="sum", return_count=True), reduce
            )
        if instances is not None:
            terms["affinity"] = self._affinity_loss(image, instances, reduce)
        total = torch.stack(list(terms.values())).sum()
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

    def segment(self, image: Tensor, **options: Any) -> list[Instances]:
        """The instances of each image; in eval mode.

        Args:
            image: `[B, in_channels, H, W]`, in [0, 1].
            options: of `graphseg.nn.InstanceSegmenter`. Distances up to 4, up to 16 and above join the merge in
                stages with the paper's thresholds 0.97, 0.7 and 0.3, unless `stages` and `thresholds` are given.

        Raises:
            ValueError: in training mode, or for options that do not fit.
        """
        if self.training:
            raise ValueError("got a network in training mode, expected one in eval mode: call eval()")
        networks = self.semantic_logits, self.affinity_logits
        return InstanceSegmenter(*networks, self.offsets, **self._stages() | options)(image)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """All parameters, in one group."""
        return {"all": list(self.parameters())}

    def _affinity_loss(self, image: Tensor, instances: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        target, counts = self._targets(instances), None
        logits = _at_size("instance", self.instance(image), image, len(self.offsets))
        if self.balance == "channel":
            counts = reduce(affinity_counts(target, "channel"))  # [2, K]
            if self.training:
                self.pair_counts += counts.long()
        loss = affinity_cross_entropy(
            logits, target, balance=self.balance, counts=counts, reduction="sum", return_count=True
        )
        return _mean(loss, reduce)

    def _targets(self, instances: Tensor) -> Tensor:
        """int8 `[B, K, H, W]`: 1 for the same, 0 for different instances, -100 for pairs that do not count."""
        of = {"different": 0, "same": None, "ignore": 0}[self.background]
        target = affinity_targets(instances, self.offsets, background=of, ignore_index=self.ignore_instance)
        if self.background == "ignore":  # where it matters what the background is
            other = affinity_targets(instances, self.offsets, background=None, ignore_index=self.ignore_instance)
            target = target.masked_fill(target != other, -100)
        return target

    def _stages(self) -> dict[str, Any]:
        stages, thresholds, below = [], [], 0
        for last, threshold in STAGES:
            distances = [d for d in self.distances if d > below and (last is None or d <= last)]
            if distances:
                stages.append(distances)
                thresholds.append(threshold)
            below = last or below
        return {"stages": stages, "thresholds": thresholds}


def _at_size(name: str, logits: Tensor | Sequence[Tensor], image: Tensor, channels: int) -> Tensor:
    """A branch's logits in the image's size."""
    logits = logits if isinstance(logits, Tensor) else logits[0]
    check_shape(f"the logits of {name}", check_tensor(f"the logits of {name}", logits), (len(image), channels, None, None))
    size = image.shape[2:]
    return logits if logits.shape[2:] == size else interpolate(logits, size, mode="bilinear", align_corners=False)


def _mean(loss: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    total, count = reduce(loss)
    return total / count.clamp(min=1)
