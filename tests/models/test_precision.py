"""Mixed precision: under autocast every network has about the losses that it has in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from graphseg.models import AffinityInstances, CDGCNet, ESCRFNet, MSPNet, SGSeg
from tests.models.small_networks import photographs, segments

SMALL: dict[str, Any] = {"backbone": "resnet18", "width": 0.0625}
NETWORKS: dict[str, Callable[[], Any]] = {
    "msp": lambda: MSPNet(5, (10, 20), **SMALL),
    "es_crf": lambda: ESCRFNet(5, num_superpixels=20, **SMALL),
    "es_crf, all pixels": lambda: ESCRFNet(5, graph="all", num_superpixels=20, **SMALL),
    "joint_crf": lambda: ESCRFNet(5, "joint_crf", **SMALL),
    "non_local": lambda: ESCRFNet(5, "non_local", **SMALL),
    "cdgcnet": lambda: CDGCNet(5, **SMALL),
    "sgseg": lambda: SGSeg(3, 5, 20, width=0.125),
    "affinity": lambda: AffinityInstances(2, distances=(1, 2, 4), **SMALL),
}


# Only values: CPUs without units for it take seconds for a convolution's gradient in bfloat16.
@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_under_autocast_are_those_of_float32(name: str) -> None:
    image = photographs(32, 40)
    labels = segments(image, 5)
    mask = (labels > 0).long() if name == "affinity" else labels
    batch = {"image": image, "mask": mask, "instances": labels + 1}
    losses = {}
    for half in (False, True):
        torch.manual_seed(0)
        network = NETWORKS[name]()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses[half] = network.losses(batch, generator=torch.Generator().manual_seed(2))["loss"]
    assert losses[True].dtype == torch.float32
    assert losses[True] != losses[False]
    assert_close(losses[True], losses[False], rtol=0.05, atol=0)
