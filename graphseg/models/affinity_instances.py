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
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import Module, Parameter

from graphseg._checks import check_choice, check_positive_int, check_shape, check_tensor
from graphseg.losses import affinity_counts, affinity_cross_entropy, cross_entropy, mean_over
from graphseg.models.heads import ASPP
from graphseg.models.pixels import resize
from graphseg.models.resnet import backbone_channels
from graphseg.models.segmentation import RATES, Reduce, SegmentationNetwork
from graphseg.nn import AffinityHead, InstanceSegmenter, affinity_targets
from graphseg.ops import affinity_offsets
from graphseg.ops.instance_map import Instances

__all__ = ["AffinityInstances", "AffinityOutput"]

STAGES = ((4, 0.97), (16, 0.7), (None, 0.3))  # section 3.4: distances up to, threshold


class AffinityOutput(NamedTuple):
    """What the network says of images `[B, C, H, W]`.

    Attributes:
        logits: `[B, M, H, W]`, of the classes; class 0 is the background.
        affinities: logits `[B, K, H, W]`: channel k at p, that p and p + offsets[k] lie in one instance.
    """

    logits: Tensor
    affinities: Tensor


class AffinityInstances(Module):
    """A semantic branch, an instance branch, and instances from both by the graph merge.

    Args:
        num_classes: M, with the background, class 0.
        backbone: as for `SegmentationNetwork`; of a module the instance branch takes a copy.
        semantic: a network that takes the place of the semantic branch: from images in [0, 1] to logits
            `[B, M, *, *]`, or to a tuple whose first entry they are. Smaller logits are resized (bilinear).
        instance: likewise of the instance branch, to logits `[B, K, *, *]`.
        head: "deeplabv3", the paper's; "deeplabv3plus", whose maps of stride 4 show small objects too; or "pspnet".
        output_stride: of the ResNets: 8, 16 or 32.
        semantic_stride: that of the semantic branch, if it is another.
        instance_stride: that of the instance branch, if it is another.
        distances: of the eight neighbours, K = 8 times as many channels, see `graphseg.ops.affinity_offsets`.
        width: scales all channels.
        in_channels: of images.
        multi_grid: of the ResNets' last stages.
        channels: of the features before the channels of either branch, at full width.
        background: of two background pixels: "different" instances (the paper's), the "same", or to "ignore": they
            are not learnt, for what is background the semantic branch knows.
        balance: "none", or "channel": same and different weigh the same in every channel, see
            `affinity_cross_entropy`.
        calibrate: with "channel", in eval mode: add the log odds of same to different in training to each channel, so
            that affinities are probabilities again. They are counted in the buffer `pair_counts`.
        merge: options of `segment`, in place of its defaults: plain values.
        ignore_index: of `mask`: pixels without a label.
        ignore_instance: of `instances`: pixels of which no instance is known.

    Attributes:
        offsets: K pairs (dy, dx), of the channels.
        options: the keyword arguments that make this network again, as plain values.
        num_superpixels: none; networks of other papers want some.

    Raises:
        TypeError, ValueError: for options that do not fit.
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
        multi_grid: Sequence[int] | None = None,
        channels: int = 256,
        background: str = "different",
        balance: str = "none",
        calibrate: bool = False,
        merge: Mapping[str, Any] | None = None,
        ignore_index: int = 255,
        ignore_instance: int = -1,
    ) -> None:
        super().__init__()
        check_positive_int("num_classes", num_classes, minimum=2)
        check_choice("background", background, ("different", "same", "ignore"))
        check_choice("balance", balance, ("none", "channel"))
        if calibrate and balance == "none":
            raise ValueError("got calibrate=True with balance='none', expected balance='channel': nothing else to undo")
        for name, part in (("semantic", semantic), ("instance", instance)):
            if part is not None and not isinstance(part, Module):
                raise TypeError(f"got {type(part).__name__} for {name}, expected a Module")
        distances = sorted(distances)
        named = {"backbone": backbone, "semantic": semantic, "instance": instance}
        self.options: dict[str, Any] = {
            "num_classes": num_classes,
            **{name: _plain(part) for name, part in named.items()},
            "head": head,
            "output_stride": output_stride,
            "semantic_stride": semantic_stride,
            "instance_stride": instance_stride,
            "distances": distances,
            "width": width,
            "in_channels": in_channels,
            "multi_grid": None if multi_grid is None else list(multi_grid),
            "channels": channels,
            "background": background,
            "balance": balance,
            "calibrate": calibrate,
            "merge": json.loads(json.dumps(dict(merge or {}))),
            "ignore_index": ignore_index,
            "ignore_instance": ignore_instance,
        }
        self.num_classes, self.distances, self.offsets = num_classes, distances, affinity_offsets(distances)
        self.background, self.balance, self.calibrate = background, balance, calibrate
        self.ignore_index, self.ignore_instance = ignore_index, ignore_instance
        self.num_superpixels: tuple[int, ...] = ()
        self.register_buffer("pair_counts", torch.zeros(2, len(self.offsets), dtype=torch.int64))

        def branch(count: int, stride: int | None, own: str | Module) -> SegmentationNetwork:
            return affinity_branch(
                count,
                backbone=own,
                head=head,
                output_stride=stride or output_stride,
                width=width,
                in_channels=in_channels,
                multi_grid=multi_grid,
                channels=channels,
            )

        if semantic is None:
            semantic = branch(num_classes, semantic_stride, backbone)
        self.semantic = semantic
        if instance is None:
            own = backbone if isinstance(backbone, str) else copy.deepcopy(backbone)
            instance = branch(len(self.offsets), instance_stride, own)
            instance.add_module("classifier", AffinityHead(instance.classifier.in_channels, self.offsets))
        self.instance = instance
        self._segmenter()  # refuses options that it does not know

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
        return _at_size("the semantic branch's logits", self.semantic(image), image, self.num_classes)

    def affinity_logits(self, image: Tensor) -> Tensor:
        """Logits `[B, K, H, W]` of the affinities.

        Args:
            image: `[B, in_channels, H, W]`, in [0, 1].
        """
        logits = self._raw_affinity_logits(image)
        if self.calibrate and not self.training:
            logits = logits + self.log_odds().to(logits.dtype).view(-1, 1, 1)
        return logits

    def _raw_affinity_logits(self, image: Tensor) -> Tensor:
        return _at_size("the instance branch's logits", self.instance(image), image, len(self.offsets))

    def log_odds(self) -> Tensor:
        """float64 `[K]`: log of same to different pairs in training; 0 where one of the two never occurred."""
        different, same = self.pair_counts.double()
        return (same / different).log().where((different > 0) & (same > 0), 0)

    def losses(
        self,
        batch: Mapping[str, Tensor],
        *,
        reduce: Reduce | None = None,
        generator: Generator | None = None,
    ) -> dict[str, Tensor]:
        """The loss of a batch, and its terms by name.

        Args:
            batch: "image" `[B, C, H, W]`; "instances" `[B, H, W]`, 0 the background, and "mask" `[B, H, W]`, classes,
                or one of them. Without "mask" two classes follow from "instances". Pixels that "mask" ignores have no
                pairs either.
            reduce: adds a tensor over processes. Default: there is one.
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
            pair = cross_entropy(logits, mask, ignore_index=self.ignore_index, reduction="sum", return_count=True)
            terms["semantic"] = mean_over(pair, reduce)
        if instances is not None:
            terms["affinity"] = self._affinity_loss(image, instances, reduce)
        total = torch.stack(list(terms.values())).sum()
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

    def segment(self, image: Tensor, **options: Any) -> list[Instances]:
        """The instances of each image; in eval mode.

        Args:
            image: `[B, in_channels, H, W]`, in [0, 1].
            options: of `graphseg.nn.InstanceSegmenter`, before those of `merge`. Where neither says `stages` and
                `thresholds`, distances up to 4, up to 16 and above join in stages with the paper's 0.97, 0.7 and 0.3.

        Raises:
            ValueError: in training mode, or for options that do not fit.
        """
        if self.training:
            raise ValueError("got a network in training mode, expected one in eval mode: call eval()")
        return self._segmenter(**options)(image)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """All parameters, in one group."""
        return {"all": list(self.parameters())}

    def _affinity_loss(self, image: Tensor, instances: Tensor, reduce: Reduce | None) -> Tensor:
        target, counts = self._targets(instances), None
        logits = self._raw_affinity_logits(image)
        if self.balance == "channel":
            counts = affinity_counts(target, "channel")  # [2, K]
            counts = counts if reduce is None else reduce(counts)
            if self.training:
                self.pair_counts += counts.long()
        pair = affinity_cross_entropy(
            logits, target, balance=self.balance, counts=counts, reduction="sum", return_count=True
        )
        return mean_over(pair, reduce)

    def _targets(self, instances: Tensor) -> Tensor:
        """int8 `[B, K, H, W]`: 1 for the same, 0 for different instances, -100 for pairs that do not count."""
        of = {"different": 0, "same": None, "ignore": 0}[self.background]
        target = affinity_targets(instances, self.offsets, background=of, ignore_index=self.ignore_instance)
        if self.background == "ignore":  # where it matters what the background is
            other = affinity_targets(instances, self.offsets, background=None, ignore_index=self.ignore_instance)
            target = target.masked_fill(target != other, -100)
        return target

    def _segmenter(self, **options: Any) -> InstanceSegmenter:
        networks = self.semantic_logits, self.affinity_logits
        return InstanceSegmenter(*networks, self.offsets, **self._stages() | self.options["merge"] | options)

    def _stages(self) -> dict[str, Any]:
        stages, thresholds, below = [], [], 0
        for last, threshold in STAGES:
            distances = [d for d in self.distances if d > below and (last is None or d <= last)]
            if distances:
                stages.append(distances)
                thresholds.append(threshold)
            below = last or below
        return {"stages": stages, "thresholds": thresholds}


def affinity_branch(count: int, *, head: str, output_stride: int, **options: Any) -> SegmentationNetwork:
    """DeepLabV3 as in Fig. 3, or another network for semantic segmentation, with `count` channels."""
    network = SegmentationNetwork(
        count, head=head, output_stride=output_stride, auxiliary=False, dropout=0.0, **options
    )
    if head == "deeplabv3":  # a 1 x 1 convolution joins what ASPP has found
        maps = backbone_channels(network.backbone)
        network.head.add_module("aspp", ASPP(maps[-1], network.classifier.in_channels, RATES[output_stride]))
    return network


def _at_size(name: str, logits: Tensor | Sequence[Tensor], image: Tensor, channels: int) -> Tensor:
    """A branch's logits in the image's size."""
    logits = check_tensor(name, logits if isinstance(logits, Tensor) else logits[0])
    check_shape(name, logits, (len(image), channels, None, None))
    return resize(logits, image.shape[2:])


def _plain(part: str | Module | None) -> str | None:
    return type(part).__name__ if isinstance(part, Module) else part
