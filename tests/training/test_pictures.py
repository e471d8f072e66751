"""Overlays against colours that are mixed by hand, pixel by pixel, and on a photograph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data as photographs
from skimage.segmentation import find_boundaries

from graphseg.plot import PALETTE
from graphseg.training.pictures import instance_overlay, label_overlay

COLOURS = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in PALETTE]


def photograph():
    return torch.from_numpy(photographs.astronaut()[:60, :80].copy()).movedim(2, 0)  # [3, 60, 80]


def mixed(ground, colour, alpha):
    return [(1 - alpha) * g + alpha * c for g, c in zip(ground, colour, strict=True)]


def loop_labels(image, labels, alpha):
    out = np.zeros((3, *labels.shape))
    for y, x in np.ndindex(*labels.shape):
        r, g, b = image[:, y, x].tolist()
        grey = [0.299 * r + 0.587 * g + 0.114 * b] * 3
        k = int(labels[y, x])
        out[:, y, x] = grey if k < 0 or k == 255 else mixed(grey, COLOURS[k % len(COLOURS)], alpha)
    return out


def loop_instances(image, labels, alpha):
    line = find_boundaries(labels, connectivity=1, mode="thick")
    out = np.zeros((3, *labels.shape))
    for y, x in np.ndindex(*labels.shape):
        n, ground = int(labels[y, x]), image[:, y, x].tolist()
        colour = COLOURS[(n - 1) % len(COLOURS)]
        out[:, y, x] = ground if n == 0 else mixed(ground, colour, 1 if line[y, x] else alpha)
    return out


@given(
    seed=st.integers(0, 1000), size=st.tuples(st.integers(1, 6), st.integers(1, 6)), alpha=st.sampled_from([0, 0.3, 1])
)
def test_overlays_are_the_loops(seed, size, alpha):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (3, *size), dtype=np.uint8)
    labels = random.choice([-1, 0, 1, 2, 15, 16, 40, 255], size)
    found = label_overlay(torch.from_numpy(image), torch.from_numpy(labels), alpha=alpha)
    assert found.dtype == torch.uint8 and found.shape == (3, *size)
    assert np.abs(found.numpy() - loop_labels(image, labels, alpha)).max() <= 0.501
    labels = random.choice([0, 1, 2, 17], size)
    found = instance_overlay(torch.from_numpy(image), torch.from_numpy(labels), alpha=alpha)
    assert found.dtype == torch.uint8 and found.shape == (3, *size)
    assert np.abs(found.numpy() - loop_instances(image, labels, alpha)).max() <= 0.501


def test_a_photograph_without_instances_is_itself():
    image, nothing = photograph(), torch.zeros(60, 80, dtype=torch.int64)
    assert torch.equal(instance_overlay(image, nothing), image)
    assert torch.equal(instance_overlay(image.float() / 255, nothing), image)
    grey = label_overlay(image, nothing - 1)
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])
    assert torch.equal(label_overlay(image, nothing + 255), grey)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.uint16])
def test_images_and_labels_of_any_dtype(dtype, device):
    image = photograph().to(device)
    labels = (torch.arange(60 * 80) // 400).view(60, 80).to(device)
    for overlay in (label_overlay, instance_overlay):
        expected = overlay(image, labels)
        assert torch.equal(overlay(image, labels.to(dtype)), expected)
        assert torch.equal(overlay(image.double() / 255, labels), expected)
        assert expected.device == image.device


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_that_are_drawn(channels):
    image = torch.cat([photograph(), photograph().flip(1)])[:channels]
    shown = image[:3] if channels > 3 else image[:1].expand(3, -1, -1)
    labels = torch.zeros(60, 80, dtype=torch.int64)
    labels[10:30, 10:30] = 1
    for overlay in (label_overlay, instance_overlay):
        assert torch.equal(overlay(image, labels), overlay(shown, labels))


def test_values_that_are_no_colours_are_cut():
    image = torch.tensor([-1.0, 2.0, torch.nan]).view(1, 1, 3)
    found = instance_overlay(image, torch.zeros(1, 3, dtype=torch.int64))
    assert found.tolist() == [[[0, 255, 0]]] * 3


def test_a_palette_of_ones_own():
    labels = torch.tensor([[0, 1, 2]])
    found = label_overlay(torch.zeros(3, 1, 3), labels, palette=["#FF0000", "#0000ff"], alpha=1)
    assert found[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255], [255, 0, 0]]


@pytest.mark.parametrize("overlay", [label_overlay, instance_overlay])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.zeros(60, 79, dtype=torch.int64)}, ValueError, r"for labels, expected \[60, 80\]"),
        ({"labels": torch.zeros(60, 80)}, TypeError, "float32 for labels"),
        ({"image": torch.zeros(60, 80)}, ValueError, r"for image, expected \[\*, \*, \*\]"),
        ({"image": torch.zeros(0, 60, 80)}, ValueError, "expected at least one channel"),
        ({"image": torch.zeros(3, 60, 80, dtype=torch.int64)}, TypeError, "int64 for image"),
        ({"alpha": 1.5}, ValueError, "alpha=1.5, expected an opacity"),
    ],
)
def test_bad_input_is_refused(overlay, change, error, message):
    given = {"image": photograph(), "labels": torch.zeros(60, 80, dtype=torch.int64), **change}
    with pytest.raises(error, match=message):
        overlay(**given)
