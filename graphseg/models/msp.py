"""SSP and MSP in the networks of their paper: DeepLabV3+, DeepLabV3 and PSPNet.

Paper: Zhu, Huang, Li, Liu, Wang, "MSP: Refine Boundary Segmentation via Multiscale Superpixel", Figure 4 and Tables 1
to 10. The equations are in `graphseg.nn.superpixel_mean`.
The module stands in front of the classifier, behind the last convolutions of the head. It adds no parameter: the state
dict is that of the base, and the weights of one load into the other.
The paper leaves open: the losses; as in the code base that it names, cross entropy with 0.4 of an auxiliary one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from graphseg._checks import check_positive_int
from graphseg.models.segmentation import SegmentationNetwork, superpixel_scales
from graphseg.nn import MultiscaleSuperpixelMean
from graphseg.nn.superpixel_mean import check_labels

__all__ = ["MSPNet"]


class SuperpixelCascade(MultiscaleSuperpixelMean):
    """The layer where counts may fall: those asked for do not, but those of a crop may, and training goes on."""

    def forward(self, x: Tensor, assignments: Sequence[Tensor]) -> Tensor:
        return self.pass_messages(x, [check_labels(x, scale) for scale in assignments])


class MSPNet(SegmentationNetwork):
    """A segmentation network with superpixel means before its classifier: one scale is SSP, several are MSP.

    Args:
        num_classes: K.
        num_superpixels: about how many at each scale, coarse to fine: (200, 300, 400) on ADE20K, (100, 200) on
            Cityscapes and PASCAL VOC, (200,) for SSP; () is the base.
        alpha: weight of the means.
        options: as for `SegmentationNetwork`: `backbone`, `head`, `output_stride`, `width`, ...
    """

    def __init__(
        self, num_classes: int, num_superpixels: Sequence[int] = (200, 300, 400), alpha: float = 0.1, **options: Any
    ) -> None:
        super().__init__(num_classes, **options)
        for count in num_superpixels:
            check_positive_int("num_superpixels", count)
        if sorted(num_superpixels) != list(num_superpixels):
            raise ValueError(f"got num_superpixels={tuple(num_superpixels)}, expected counts that do not fall")
        self.num_superpixels = tuple(num_superpixels)
        self.options |= {"num_superpixels": list(num_superpixels), "alpha": alpha}
        self.superpixel_mean = SuperpixelCascade(alpha)

    def refine(self, x: Tensor, image: Tensor, superpixels: Tensor | Sequence[Tensor] | None) -> Tensor:
        if not self.num_superpixels:
            return x
        return self.superpixel_mean(x, superpixel_scales(image, superpixels, self.num_superpixels))
