"""SGSeg: segmentation without labels, by a superpixel network, a graph network and a CNN, trained together.

Paper: Eliasof, Ben Zikri, Treister, "Unsupervised Image Semantic Segmentation through Superpixels and Graph Neural
Networks".
Equations: Eq. (1), Eq. (2) superpixelated image; Eq. (5) graph network; Eq. (7) class probabilities; Eq. (8) loss of
the superpixel network; Eq. (17) total variation, the loss of the graph network; Eq. (18), Eq. (19) mutual information;
Eq. (20) reconstruction; Eq. (21) loss of the CNN; Eq. (22) loss. The parts and their equations are beside this file,
the terms of the losses in `graphseg.losses`.
The paper leaves open: images are normalised, as in all networks here, so that sigma = 10 is of the order of an edge,
and losses and nodes see them so; x and y of a node are divided by the image's width and height, and DiffGCN takes them
in pixels; without a graph network there is no total variation; the loss of a batch is the mean over its images.
Differs from the paper: the signs of Eq. (19), Eq. (21) and Eq. (22), which as printed would minimise the mutual
information; a mean in Eq. (20) (`reconstruction_reduction="sum"`: as printed, of each image).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import Module, Parameter

from graphseg._checks import check_choice, check_positive_int
from graphseg.losses import (
    SPNNLoss,
    joint_counts,
    mean_over,
    mutual_information,
    reconstruction_loss,
    superpixelate,
    total_variation,
)
from graphseg.losses.spnn import count_images
from graphseg.models._sgseg_parts import (
    SPNN,
    SegmentationCNN,
    SuperpixelGNN,
    SuperpixelMaps,
    pool_superpixels,
    project_superpixels,
    softmax,
)
from graphseg.models.segmentation import Reduce, check_image, normalize_image, register_normalization
from graphseg.nn import draw_orderings

__all__ = ["SPNN", "SGSeg", "SGSegOutput", "SegmentationCNN", "SuperpixelGNN"]

STAGES = ("spnn", "joint", "segment")


class SGSegOutput(NamedTuple):
    """What `SGSeg` makes of images; None where a part is left out."""

    logits: Tensor  # [B, K, H, W]
    probability: Tensor  # [B, K, H, W], of the classes
    reconstruction: Tensor  # [B, C, H, W], by the CNN, as the image
    assignment: Tensor | None  # [B, N, H, W], P
    features: Tensor | None  # [B, c, H, W], the nodes' features, projected
    edge_index: Tensor | None  # [2, E], of superpixels counted through the batch


class SGSeg(Module):
    """SGSeg; its parts are `spnn`, `gnn` and `cnn`.

    Args:
        in_channels: C of the image: 3 for RGB, 4 for RGBIR.
        num_classes: K.
        num_superpixels: N.
        gnn: "diff_gcn", "dgcnn", "pointnet", or None: the CNN gets the pooled features as they are.
        k: neighbours of a superpixel.
        num_blocks: blocks of the graph network.
        dynamic: whether each block has a graph of its own, see `SuperpixelGNN`.
        spnn: False for the CNN alone, on the image; `gnn` is then not used. Untrained, it is the random CNN of Table 1.
        width: scales the channels.
        turn: whether kernels turn with the ordering, see `graphseg.nn.RasterConv2d`.
        alpha, beta, eta, lam, sigma: see `graphseg.losses.SPNNLoss`.
        displacement: of the mutual information, see `graphseg.losses.joint_counts`.
        reconstruction_reduction: "mean" over pixels and channels, or "sum", in the CNN's reconstruction loss.

    Attributes:
        options: the keyword arguments that make this network again, as plain values.
        num_superpixels: the counts of superpixels that it wants to be given; none, it makes its own.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_superpixels: int = 200,
        gnn: str | None = "diff_gcn",
        *,
        k: int = 20,
        num_blocks: int = 4,
        dynamic: bool = False,
        spnn: bool = True,
        width: float = 1.0,
        turn: bool = True,
        alpha: float = 2.0,
        beta: float = 5.0,
        eta: float = 1.0,
        lam: float = 2.0,
        sigma: float = 10.0,
        displacement: int = 0,
        reconstruction_reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_positive_int("displacement", displacement, minimum=0)
        check_choice("reconstruction_reduction", reconstruction_reduction, ("mean", "sum"))
        self.options: dict[str, Any] = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "num_superpixels": num_superpixels,
            "gnn": gnn,
            "k": k,
            "num_blocks": num_blocks,
            "dynamic": dynamic,
            "spnn": spnn,
            "width": width,
            "turn": turn,
            "alpha": alpha,
            "beta": beta,
            "eta": eta,
            "lam": lam,
            "sigma": sigma,
            "displacement": displacement,
            "reconstruction_reduction": reconstruction_reduction,
        }
        self.in_channels, self.num_classes = in_channels, num_classes
        self.num_superpixels: tuple[int, ...] = ()
        self.displacement, self.reconstruction_reduction = displacement, reconstruction_reduction
        self.spnn_loss = SPNNLoss(alpha, beta, eta, lam=lam, sigma=sigma)
        self.spnn: SPNN | None = None
        self.gnn: SuperpixelGNN | None = None
        beside = 0
        if spnn:
            self.spnn = SPNN(in_channels, num_superpixels, width)
            beside = 2 + in_channels + self.spnn.feature_channels
            if gnn is not None:
                self.gnn = SuperpixelGNN(beside, gnn, k=k, num_blocks=num_blocks, dynamic=dynamic, width=width)
                beside = self.gnn.out_channels
        self.cnn = SegmentationCNN(in_channels + beside, num_classes, in_channels, width=width, turn=turn)
        register_normalization(self, in_channels)

    def forward(self, image: Tensor, superpixels: Tensor | None = None, ordering: int | None = None) -> SGSegOutput:
        """The segmentation of images.

        Args:
            image: `[B, in_channels, H, W]` in [0, 1].
            superpixels: not used, the network makes its own; here so that networks can take each other's place.
            ordering: of the CNN, see `graphseg.nn.raster_conv`. Default: none, as at inference.

        Returns:
            `SGSegOutput`, whose first field is the logits.

        Raises:
            TypeError, ValueError: for another dtype or shape than these, or no such ordering.
        """
        x = self._normalize(image)
        maps = None if self.spnn is None else self.spnn(x)
        beside, edge_index = self._beside(x, maps)
        ((logits, reconstruction),) = self._segment(x, beside, ordering)
        assignment = None if maps is None else maps.assignment
        reconstruction = reconstruction * self.image_std + self.image_mean
        return SGSegOutput(logits, softmax(logits), reconstruction, assignment, beside, edge_index)  # Eq. (7)

    def superpixelated(self, image: Tensor, *, hard: bool = False) -> Tensor:
        """The image with every pixel replaced by the mean of its superpixel, to look at: `[B, in_channels, H, W]`.

        Args:
            image: `[B, in_channels, H, W]` in [0, 1].
            hard: by the most probable superpixel; default: by their probabilities.

        Raises:
            ValueError: for another shape, or a network without superpixels.
        """
        if self.spnn is None:
            raise ValueError("got a network with spnn=False, expected one with superpixels")
        return superpixelate(image, self.spnn(self._normalize(image)).assignment, hard=hard)  # Eq. (1), Eq. (2)

    def losses(
        self,
        batch: Mapping[str, Tensor],
        *,
        stage: str = "joint",
        reduce: Reduce | None = None,
        generator: Generator | None = None,
    ) -> dict[str, Tensor]:
        """The loss of a batch under "loss", and its terms by name, detached.

        The terms are "spnn" with its own "clustering", "smoothness", "recon" and "edge" (not yet weighted), "tv", and
        "cnn" with its own "mi" (the negative of the mutual information) and "recon_cnn". Table 2's schemes are
        "joint"; some epochs of "spnn", then "joint"; "spnn", then "segment".

        Args:
            batch: "image" as for `forward`; optionally "valid", bool `[B, H, W]`: other pixels are in no loss.
            stage: "spnn" (the superpixel network alone), "joint" (all), or "segment": the superpixel network in
                evaluation mode and without gradient, the losses of the others.
            reduce: adds a tensor over processes. Default: there is one.
            generator: of the two orderings.

        Raises:
            TypeError, ValueError: as `forward`; for another stage, or "spnn" in a network without superpixels.
        """
        check_choice("stage", stage, STAGES)
        if stage == "spnn" and self.spnn is None:
            raise ValueError("got stage='spnn' in a network with spnn=False, expected 'joint' or 'segment'")
        x, valid = self._normalize(batch["image"]), batch.get("valid")
        maps = self._superpixels(x, frozen=stage == "segment")
        terms: dict[str, Tensor] = {}
        loss = x.new_zeros(())
        if maps is not None and stage != "segment":
            loss = self._spnn_loss(x, maps, valid, reduce, terms)
        if stage != "spnn":
            beside, _ = self._beside(x, maps)
            if beside is not None and self.gnn is not None:
                variation = total_variation(beside, valid=valid, reduction="sum", return_count=True)
                terms["tv"] = mean_over(variation, reduce)  # Eq. (17)
                loss = loss + terms["tv"]
            loss = loss + self._cnn_loss(x, beside, valid, reduce, generator, terms)  # Eq. (22)
        return {"loss": loss} | {name: value.detach() for name, value in terms.items()}

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """The parameters of the parts that there are, for a learning rate of each: "spnn", "gnn" and "cnn"."""
        parts = {"spnn": self.spnn, "gnn": self.gnn, "cnn": self.cnn}
        return {name: list(part.parameters()) for name, part in parts.items() if part is not None}

    def _normalize(self, image: Tensor) -> Tensor:
        check_image(image, self.in_channels)
        return normalize_image(self, image)

    def _superpixels(self, x: Tensor, frozen: bool) -> SuperpixelMaps | None:
        if self.spnn is None:
            return None
        if not frozen:
            return self.spnn(x)
        modes = [(module, module.training) for module in self.spnn.modules()]
        self.spnn.eval()
        try:
            with torch.no_grad():
                return self.spnn(x)
        finally:
            for module, training in modes:
                module.training = training

    def _beside(self, x: Tensor, maps: SuperpixelMaps | None) -> tuple[Tensor | None, Tensor | None]:
        """What the CNN reads beside the image, and the graph."""
        if maps is None:
            return None, None
        H, W = x.shape[2:]
        P = maps.assignment
        ys, xs = (torch.arange(length, device=x.device, dtype=P.dtype) for length in (H, W))
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy")).unsqueeze(0)  # [1, 2, H, W], (x, y)
        nodes = pool_superpixels(P, grid, x, maps.features)  # [B, N, 2 + C + c]
        pos = nodes[..., :2]
        nodes = torch.cat([pos / pos.new_tensor([W, H]), nodes[..., 2:]], 2)
        edge_index = None
        if self.gnn is not None:
            edge_index = self.gnn.graph(nodes)
            nodes = self.gnn(nodes, pos, edge_index)  # Eq. (5)
        return project_superpixels(nodes, P), edge_index

    def _segment(self, x: Tensor, beside: Tensor | None, *orderings: int | None) -> list[tuple[Tensor, Tensor]]:
        return self.cnn(x if beside is None else torch.cat([x, beside], 1), *orderings)

    def _spnn_loss(
        self, x: Tensor, maps: SuperpixelMaps, valid: Tensor | None, reduce: Reduce | None, terms: dict[str, Tensor]
    ) -> Tensor:
        found = self.spnn_loss.terms(maps.assignment, x, maps.reconstruction, valid=valid)  # [B] each
        count = count_images(x, valid)
        terms |= {name: mean_over(torch.stack([value.sum(), count]), reduce) for name, value in found.items()}
        terms["spnn"] = self.spnn_loss.weigh(terms)  # Eq. (8)
        return terms["spnn"]

    def _cnn_loss(
        self,
        x: Tensor,
        beside: Tensor | None,
        valid: Tensor | None,
        reduce: Reduce | None,
        generator: Generator | None,
        terms: dict[str, Tensor],
    ) -> Tensor:
        (first, I1), (second, I2) = self._segment(x, beside, *draw_orderings(2, generator))
        counts = joint_counts(softmax(first), softmax(second), self.displacement, valid=valid)
        terms["mi"] = -mutual_information(counts if reduce is None else reduce(counts))  # Eq. (18), Eq. (19)
        error = reconstruction_loss(x, I1, I2, valid=valid, reduction="sum", return_count=True)
        if self.reconstruction_reduction == "sum":
            error = torch.stack([error[0], error.new_tensor(len(x))])
        terms["recon_cnn"] = mean_over(error, reduce)  # Eq. (20)
        terms["cnn"] = terms["mi"] + terms["recon_cnn"]  # Eq. (21)
        return terms["cnn"]
