"""SSP and MSP in three networks: the base, the layer by hand, and no parameter between them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from skimage.segmentation import slic
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.models import MSPNet, SegmentationNetwork
from graphseg.nn import MultiscaleSuperpixelMean
from graphseg.ops import multiscale_slic
from tests.models.small_networks import (
    EXACT,
    SMALL,
    check_batch_is_singles,
    check_two_processes,
    enlarged,
    frozen_norms,
    photographs,
    segments,
    trained,
)
from tests.reference.superpixel_mean import msp_maps

HEADS = ["deeplabv3plus", "deeplabv3", "pspnet"]
SCALES = {"SSP": (9,), "MSP": (6, 12, 20)}


def network(counts=(6, 12, 20), **options):
    return MSPNet(4, counts, **{**SMALL, **options})


def by_hand(made, image, label_maps, alpha):
    """Logits `[B, K, H, W]` by the features of the base, the printed formula and the classifier."""
    features = made.head(made.maps(image))
    refined = torch.from_numpy(msp_maps(features.detach(), label_maps, alpha))
    scores = F.conv2d(refined, made.classifier.weight, made.classifier.bias)
    return enlarged(scores, image.shape[2:])


# Values


@pytest.mark.parametrize("counts", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("head", HEADS)
def test_logits_are_those_of_the_formula_with_superpixels_of_scikit_image(head, counts):
    images = photographs(33, 45)
    maps = [
        torch.from_numpy(
            np.stack([slic(image.permute(1, 2, 0).numpy(), count, start_label=0) for image in images])
        ).long()
        for count in counts
    ]
    made = trained(network(counts, head=head, alpha=0.3))
    expected = by_hand(made, images.double(), maps, 0.3)
    assert expected.detach().std() > 1e-3
    for given in (maps, torch.stack(maps, 1), torch.stack(maps, 1).int()):
        assert_close(made(images.double(), given).logits, expected, **EXACT)


@pytest.mark.parametrize("counts", SCALES.values(), ids=SCALES)
def test_superpixels_made_are_those_of_slic(counts):
    images = photographs()
    made = trained(network(counts))
    maps = multiscale_slic(images, list(counts))
    found = made(images.double()).logits
    assert torch.equal(found, made(images.double(), maps).logits)
    assert_close(found, by_hand(made, images.double(), maps, 0.1), **EXACT)


def test_the_means_change_the_result():
    images = photographs().double()
    base, ssp = trained(network(())), trained(network((9,)))
    assert not torch.allclose(base(images).logits, ssp(images).logits, atol=1e-3)
    assert torch.equal(trained(network((9,), alpha=0))(images).logits, base(images).logits)


def test_means_are_taken_at_the_size_of_the_features():
    """A superpixel per pixel leaves single pixels, whose means are they themselves."""
    images = photographs(32, 32, 1).double()
    made, base = trained(network((9,), alpha=0.25)), trained(network(()))
    each = torch.arange(32 * 32).view(1, 1, 32, 32)
    features = base.head(base.maps(images))
    scores = F.conv2d(1.25 * features, base.classifier.weight, base.classifier.bias)
    assert_close(made(images, each).logits, enlarged(scores, (32, 32)), **EXACT)


# No parameters


@pytest.mark.parametrize("head", HEADS)
def test_weights_of_the_base_load_and_go_back(head):
    base = SegmentationNetwork(4, **{**SMALL, "head": head})
    none, ssp, msp = (network(counts, head=head) for counts in ((), (9,), (6, 12)))
    images = photographs(33, 45)
    expected = base.eval()(images).logits
    for other in (none, ssp, msp):
        other.load_state_dict(base.state_dict(), strict=True)
    base.load_state_dict(msp.state_dict(), strict=True)
    assert torch.equal(none.eval()(images).logits, expected)
    assert torch.equal(base.eval()(images).logits, expected)
    assert not list(msp.superpixel_mean.state_dict())


@pytest.mark.parametrize("head", HEADS)
def test_no_parameter_and_no_buffer_is_added_at_full_width(head):
    with torch.device("meta"):
        base = SegmentationNetwork(150, backbone="resnet101", head=head)
        msp = MSPNet(150, backbone="resnet101", head=head)
    assert {k: v.shape for k, v in base.state_dict().items()} == {k: v.shape for k, v in msp.state_dict().items()}
    assert len(list(base.parameters())) == len(list(msp.parameters()))


# Laws


@pytest.mark.parametrize("head", HEADS)
def test_batch_is_singles(head):
    check_batch_is_singles(trained(network(head=head)))


@pytest.mark.parametrize("head", HEADS)
def test_two_processes_have_the_gradients_of_one(head):
    images = photographs(24, 32, count=3)
    batch = {"image": images.double(), "mask": segments(images)}
    made = frozen_norms(trained(network((4, 8), head=head)))
    check_two_processes(made, batch)
    check_two_processes(made, {**batch, "superpixels": torch.stack(multiscale_slic(images, [4, 8]), 1)}, first=2)


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns(head):
    images = photographs()
    made = network(head=head).train()
    found = made.losses({"image": images, "mask": segments(images)})
    found["loss"].backward()
    assert not [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert found.keys() == {"loss", "cross_entropy", "auxiliary"}


def test_the_gradient_of_the_features_is_the_layer_again():
    images = photographs().double()
    made = trained(network((6, 12)))
    features = made.head(made.maps(images)).detach().requires_grad_()
    maps = multiscale_slic(images.float(), [6, 12])
    g = torch.randn(features.shape, dtype=features.dtype)
    (grad,) = torch.autograd.grad(made.refine(features, images, maps), features, g)
    assert_close(grad.numpy(), msp_maps(g, maps[::-1], 0.1), **EXACT)


def test_superpixels_pass_no_gradient_to_the_image():
    images = photographs().double().requires_grad_()
    made = trained(network((9,)))
    (grad,) = torch.autograd.grad(made(images).logits.sum(), images)
    maps = multiscale_slic(images.detach().float(), [9])
    (given,) = torch.autograd.grad(made(images, maps).logits.sum(), images)
    assert torch.equal(grad, given) and bool(grad.any())


def test_training_on_photographs_lowers_the_loss():
    images = photographs(48, 64)
    batch = {"image": images, "mask": segments(images), "superpixels": torch.stack(multiscale_slic(images, [9, 16]), 1)}
    made = network((9, 16)).train()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.05, momentum=0.9)
    history = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = made.losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-3:]) < 0.9 * sum(history[:3])


# Looking inside


def test_hooks_see_the_layer_and_its_messages():
    images = photographs(33, 45).double()
    made = trained(network((6, 12)))
    expected = made(images).logits
    calls, messages = [], []
    handles = [
        made.superpixel_mean.register_forward_hook(lambda *given: calls.append(given[2].shape)),
        made.superpixel_mean.register_message_forward_hook(lambda *given: messages.append(given[2].shape)),
    ]
    found = made(images).logits
    for handle in handles:
        handle.remove()
    features = made.head(made.maps(images)).shape
    assert calls == [features]
    assert messages == [(2 * features[2] * features[3], features[1])] * 2  # a message per pixel, at both scales
    assert_close(found, expected, **EXACT)
    assert isinstance(made.superpixel_mean, MultiscaleSuperpixelMean)


# Arguments


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((12, 6), r"got num_superpixels=\(12, 6\), expected counts that do not fall"),
        ((6, 0), "num_superpixels"),
        ((-1,), "num_superpixels"),
    ],
)
def test_bad_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        network(counts)


def test_equal_counts_are_allowed():
    assert network((6, 6)).num_superpixels == (6, 6)
    assert MSPNet(4, **SMALL).num_superpixels == (200, 300, 400)


def test_maps_of_a_crop_may_get_fewer():
    images = photographs(33, 45, 1).double()
    made = trained(network((6, 12)))
    fine = torch.arange(33 * 45).view(1, 33, 45)
    maps = [fine, torch.zeros_like(fine)]
    assert_close(made(images, maps).logits, by_hand(made, images, maps, 0.1), **EXACT)


def test_bad_superpixels_are_refused():
    images = photographs(33, 45).double()
    made = trained(network((6, 12)))
    good = torch.zeros(2, 2, 33, 45, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"got 3 scales of superpixels, expected 2: \(6, 12\)"):
        made(images, good[:, [0, 0, 0]])
    with pytest.raises(ValueError, match="assignment"):
        made(images, good[:1])
    with pytest.raises(TypeError, match="assignment"):
        made(images, good.double())
    with pytest.raises(ValueError, match="got assignment id -1"):
        made(images, good - 1)
    with pytest.raises(ValueError, match="finite"):
        network((6,), alpha=float("inf"))


def test_options_make_the_network_again():
    made = network((6, 12), alpha=0.2, head="pspnet")
    again = MSPNet(**json.loads(json.dumps(made.options)))
    again.load_state_dict(made.state_dict())
    images = photographs(33, 45)
    assert again.options == made.options
    assert torch.equal(again.eval()(images).logits, made.eval()(images).logits)
