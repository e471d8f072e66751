"""Testing at several scales: against Pillow's resizing, and what must hold for any network."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import BatchNorm2d, Conv2d, ReLU, Sequential
from torch.testing import assert_close

from graphseg.metrics.multiscale import multiscale_probabilities
from tests.reference import semantic_metrics as reference

SCALES = (0.75, 1, 1.25, 1.5, 1.75, 2)
INTEGERS: Any = torch.zeros(1, 3, 4, 4, dtype=torch.int64)


class Output(NamedTuple):
    logits: torch.Tensor
    coarse: None = None


def photo(dtype=torch.float32):
    crop = torch.from_numpy(data.astronaut()[30:61, 180:223].copy())
    return (crop.movedim(2, 0)[None].to(dtype) / 255).repeat(2, 1, 1, 1) * torch.tensor([1, 0.5]).view(2, 1, 1, 1)


def network(dtype=torch.float32, classes=4):
    layers = Sequential(Conv2d(3, 8, 3, padding=1), BatchNorm2d(8), ReLU(), Conv2d(8, classes, 3, padding=1))
    return layers.to(dtype).eval()


def resized(values, size):
    """`[B, C, H, W]` by Pillow's bilinear filter, in float32."""
    planes = values.reshape(-1, *values.shape[-2:]).numpy().astype(np.float32)
    out = [np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR)) for plane in planes]
    return torch.from_numpy(np.stack(out)).view(*values.shape[:2], *size)


def test_one_scale_is_the_softmax(dtype):
    image, net = photo(dtype), network(dtype)
    expected = net(image).softmax(1).detach()
    for scales in ((1,), (1.0,)):
        assert torch.equal(multiscale_probabilities(net, image, scales, False), expected)
    mirrored = net(image.flip(-1)).softmax(1).flip(-1)
    assert torch.equal(multiscale_probabilities(net, image, (1,)), (expected + mirrored) / 2)


@pytest.mark.parametrize("flip", [False, True])
def test_it_is_the_mean_of_what_pillow_resizes(flip):
    image, net = photo(), network()
    size = tuple(image.shape[-2:])
    terms = []
    with torch.no_grad():
        for scale in (0.6, 1.25, 2):
            scaled = resized(image, reference.scaled_size(size, scale, 1))
            terms.append(resized(net(scaled), size).softmax(1))
            if flip:
                terms.append(resized(net(scaled.flip(-1)).flip(-1), size).softmax(1))
    out = multiscale_probabilities(net, image, (0.6, 1.25, 2), flip)
    assert_close(out, torch.stack(terms).mean(0), rtol=1e-5, atol=1e-6)
    assert_close(out.sum(1), torch.ones(2, *size), rtol=1e-6, atol=1e-6)


def test_mirrored_images_have_mirrored_probabilities(dtype, tolerance):
    image, net = photo(dtype), network(dtype)
    out = multiscale_probabilities(net, image)
    assert_close(multiscale_probabilities(net, image.flip(-1)), out.flip(-1), **tolerance)
    only = multiscale_probabilities(net, image, flip=False)
    other = multiscale_probabilities(net, image.flip(-1), flip=False).flip(-1)
    assert_close((only + other) / 2, out, **tolerance)
    assert float((only - other).abs().max()) > 1e-3


def test_constant_networks_give_themselves(dtype, tolerance):
    logits = torch.randn(1, 5, 1, 1, dtype=dtype)

    def constant(image):
        return Output(logits.expand(image.shape[0], 5, image.shape[2] // 2, image.shape[3] // 2))

    out = multiscale_probabilities(constant, photo(dtype))
    assert_close(out, logits.softmax(1).expand_as(out), **tolerance)


def test_images_of_a_batch_do_not_depend_on_each_other():
    image, net = photo(), network()
    both = multiscale_probabilities(net, image, (0.75, 1.5))
    alone = [multiscale_probabilities(net, image[b : b + 1], (0.75, 1.5)) for b in (0, 1)]
    assert_close(both, torch.cat(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("divisor", [1, 8])
def test_sizes_that_the_network_sees(divisor):
    seen = []

    def watched(image):
        seen.append(tuple(image.shape[-2:]))
        return image

    multiscale_probabilities(watched, torch.rand(1, 3, 30, 47), (*SCALES, 0.01), False, divisor=divisor)
    assert seen == [reference.scaled_size((30, 47), scale, divisor) for scale in (*SCALES, 0.01)]
    by_hand = {1: [(23, 35), (30, 47), (38, 59)], 8: [(24, 32), (32, 48), (40, 56)]}
    assert seen[:3] == by_hand[divisor]
    assert seen[-1] == (divisor, divisor)


def test_superpixels_are_mirrored_with_the_image():
    image = photo()
    labels = (torch.arange(43) // 5).expand(2, 2, 31, 43)
    given = []

    def watched(image, superpixels):
        given.append(superpixels)
        return image

    multiscale_probabilities(watched, image, (1, 2), superpixels=labels)
    multiscale_probabilities(watched, image, (1,), superpixels=[labels[:, 0]])
    for superpixels, expected in zip(given[:4], [labels, labels.flip(-1)] * 2, strict=True):
        assert torch.equal(superpixels, expected)
    assert torch.equal(given[4][0], labels[:, 0])
    assert torch.equal(given[5][0], labels[:, 0].flip(-1))


def test_half_precision_is_averaged_in_float():
    def halves(image):
        return torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, *image.shape[-2:]).to(torch.bfloat16)

    out = multiscale_probabilities(halves, torch.rand(1, 3, 4, 4))
    assert out.dtype == torch.float32
    assert_close(out[0, :, 0, 0], torch.tensor([0.0, 1.0]).softmax(0))
    assert not multiscale_probabilities(network(), photo()).requires_grad


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": torch.zeros(3, 4, 4)}, ValueError, r"got shape \[3, 4, 4\] for image, expected \[\*, \*, \*, \*\]"),
        ({"image": INTEGERS}, TypeError, "got dtype torch.int64 for image"),
        ({"scales": ()}, ValueError, r"got scales=\(\), expected one or more"),
        ({"scales": (1, 0)}, ValueError, r"got scales=\(1, 0\)"),
        ({"divisor": 0}, ValueError, "got divisor=0"),
        ({"network": lambda image: image[0]}, ValueError, r"got shape \[3, 4, 4\] for logits"),
        ({"network": lambda image: image[:1]}, ValueError, r"got shape \[1, 3, 4, 4\] for logits, expected \[2"),
        ({"network": lambda image: image > 0}, TypeError, "got dtype torch.bool for logits"),
        ({"network": lambda image: ("logits", image)}, TypeError, "got str for logits, expected a torch.Tensor"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    arguments: dict[str, Any] = {"network": lambda image: image, "image": torch.zeros(2, 3, 4, 4), "scales": (1,)}
    with pytest.raises(error, match=message):
        multiscale_probabilities(**(arguments | change))
