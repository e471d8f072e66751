"""CIELAB against scikit-image, published values, and numerical gradients; the tables of whole numbers likewise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from skimage.color import rgb2lab
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from graphseg.ops import rgb_to_lab
from graphseg.ops._slic import SlicOptions
from graphseg.ops._slic_tensor import _colours
from graphseg.ops.color import LabTables, lab_tables
from graphseg.ops.kernels.slic import lab_levels
from tests.reference import slic as reference

Array = np.ndarray[Any, Any]

# L, a, b of sRGB under D65 (2 degrees), to two decimals, as colour tables print them.
PUBLISHED = {
    (0, 0, 0): (0, 0, 0),
    (1, 1, 1): (100, 0, 0),
    (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18),
    (0, 0, 1): (32.30, 79.19, -107.86),
    (0, 1, 1): (91.11, -48.09, -14.13),
    (1, 0, 1): (60.32, 98.23, -60.82),
    (1, 1, 0): (97.14, -21.55, 94.48),
}


def scikit(images: Tensor) -> Tensor:
    """`[*, 3, H, W]`, in float64."""
    return torch.from_numpy(rgb2lab(images.double().movedim(-3, -1).numpy())).movedim(-1, -3)


def cube(side: int) -> Array:
    """Colours `[3, side ** 3]` that fill the cube of sRGB."""
    return np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * 3, indexing="ij")).reshape(3, -1)


# In floating-point


@pytest.mark.parametrize(
    "shape", [(3, 5, 7), (2, 3, 5, 7), (2, 3, 3, 5, 7), (3, 3, 3), (3, 1, 1), (2, 3, 0, 4)], ids=str
)
def test_lab_is_that_of_scikit_image(shape, device):
    images = torch.rand(shape, dtype=torch.float64)
    found = rgb_to_lab(images.to(device))
    assert found.device.type == device.type and found.dtype == torch.float64
    assert_close(found.cpu(), scikit(images), rtol=1e-9, atol=1e-10)
    assert_close(rgb_to_lab(images.float().to(device)).cpu(), scikit(images.float()).float(), rtol=0, atol=3e-4)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_lab_of_photographs(name):
    photo = torch.from_numpy(getattr(data, name)()[::3, ::3].copy()).permute(2, 0, 1)
    assert_close(rgb_to_lab(photo / 255), scikit(photo / 255).float(), rtol=0, atol=3e-4)


def test_lab_of_volumes_is_that_of_their_slices():
    volume = torch.rand(2, 3, 4, 5, 6)
    found = rgb_to_lab(volume)
    assert found.shape == volume.shape
    for z in range(4):
        assert_close(found[:, :, z], rgb_to_lab(volume[:, :, z]), rtol=0, atol=1e-4)


def test_lab_is_as_published():
    colours = torch.tensor([*PUBLISHED], dtype=torch.float64).T[:, None]
    assert_close(
        rgb_to_lab(colours)[:, 0].T, torch.tensor([*PUBLISHED.values()], dtype=torch.float64), rtol=0, atol=0.02
    )


def test_lab_stays_in_its_range():
    found = rgb_to_lab(torch.from_numpy(cube(33)[:, None]))[:, 0]
    assert float(found[0].min()) >= 0 and float(found[0].max()) <= 100 + 1e-9
    assert float(found[1:].abs().max()) < 110


def test_memory_layout_does_not_matter():
    images = torch.rand(2, 3, 8, 9)
    assert torch.equal(rgb_to_lab(images.contiguous(memory_format=torch.channels_last)), rgb_to_lab(images))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision(half):
    images = torch.rand(3, 40, 40)
    found = rgb_to_lab(images.to(half))
    assert found.dtype == half
    exact = rgb_to_lab(images.to(half).float())
    # Some units of the last of 11 bits in float16, of 8 bits in bfloat16, of numbers about 100.
    assert float((found.float() - exact).abs().max()) < (0.5 if half == torch.float16 else 5)


def test_autocast_loses_no_digits():
    images = torch.rand(3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = rgb_to_lab(images)
    assert_close(inside, rgb_to_lab(images), rtol=0, atol=1e-3)


@pytest.mark.parametrize("colours", ["black", "white", "grey", "random", "dark", "primary"])
def test_gradients(colours):
    images = {
        "black": torch.zeros(3, 1, 2),
        "white": torch.ones(3, 1, 2),
        "grey": torch.full((3, 1, 2), 0.4),
        "random": torch.rand(3, 3, 3),
        "dark": torch.rand(2, 3, 2, 2) * 0.03,  # below both knees
        "primary": torch.eye(3)[:, None],
    }[colours].double()
    assert gradcheck(rgb_to_lab, (images.requires_grad_(),))
    assert gradgradcheck(rgb_to_lab, (images,))


def test_gradients_are_finite_at_every_level():
    levels = torch.cat([torch.arange(256) / 255, torch.tensor([0.04045, 0.0404500001, 0.0404499999])])
    for images in (levels.expand(3, 1, -1), torch.stack([levels, levels * 0, levels * 0])[:, None]):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(rgb_to_lab(leaf).square().sum(), leaf)
        assert bool(torch.isfinite(gradient).all())


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match=r"got dtype torch\.uint8 for images, expected floating-point in \[0, 1\]"):
        rgb_to_lab(torch.zeros(3, 4, 4, dtype=torch.uint8))
    for shape in ((3,), (4, 4), (4, 4, 4), (2, 4, 5, 4, 4)):
        with pytest.raises(ValueError, match=r"for images, expected \[\.\.\., 3, H, W\]"):
            rgb_to_lab(torch.zeros(shape))
    array: Any = np.zeros((3, 4, 4))
    with pytest.raises(TypeError, match=r"got ndarray for images, expected a torch\.Tensor"):
        rgb_to_lab(array)


# In whole numbers


def fixed_point(levels: Array, scale: float) -> Array:
    """Kernel and tensors, which agree, of `levels [3, P]` in 0 ... 65535."""
    tables = lab_tables(scale)
    found = np.empty((3, levels.shape[1]), np.int32)
    places = np.arange(levels.shape[1], dtype=np.int32)
    lab_levels(levels.astype(np.uint16), places, tables.gamma, tables.matrix, tables.root, tables.zero, found)
    assert np.array_equal(_colours(torch.from_numpy(levels.astype(np.int64)), tables).numpy(), found)
    return found


@pytest.mark.parametrize("scale", [64.0, 19.3, 1.0, 1e-3])
def test_kernel_and_tensors_are_the_loop(scale):
    noise = np.random.default_rng(0)
    levels = np.concatenate([noise.integers(0, 65536, (3, 300)), noise.integers(0, 2000, (3, 100))], 1)
    levels = np.concatenate([levels, 65535 * np.array([*PUBLISHED]).T], 1)
    expected = reference.lab_colours(levels[:, None, None], *lab_tables(scale))[:, 0, 0]
    assert np.array_equal(fixed_point(levels, scale), expected)


@pytest.mark.parametrize("scale", [64.0, 19.3])
def test_tables_are_those_of_scikit_image(scale):
    # 14 bits of linear light, where its root is steepest; then roots rounded to 1 / 256 of a level, and levels.
    tolerance = np.array([0.06, 0.25, 0.11]) + np.array([0.75, 2.5, 1.3]) / scale
    levels = np.concatenate([np.round(cube(32) * 65535), np.arange(30**3) // 30 ** np.arange(3)[:, None] % 30 * 257], 1)
    lab = rgb2lab((levels / 65535).T).T
    error = np.abs(fixed_point(levels, scale) / scale - lab)
    assert (error.max(1) < tolerance).all()
    assert (error.mean(1) < tolerance / 3).all()


@pytest.mark.parametrize("scale", [64.0, 19.3, 1.0, 1e-3])
def test_grey_is_exactly_neutral(scale):
    lightness, a, b = fixed_point(np.arange(65536) * np.ones((3, 1), int), scale)
    assert not a.any() and not b.any()
    assert (np.diff(lightness) >= 0).all()
    assert lightness[0] == 0 and lightness[-1] == pytest.approx(100 * scale, abs=1)


def test_distances_of_colours_and_places_fit_into_32_bits():
    corners = 65535 * np.array([*PUBLISHED]).T
    for compactness in (0.0, 0.1, 10.0, 40.0, 100.0, 1e3, 1e9):
        for lab, dims in ((True, 2), (True, 3), (False, 2), (False, 3)):
            options = SlicOptions.of(lab, dims, compactness, 10, False, 0.3, (1.0, 1.0, 1.0))
            tables = options.tables(3, torch.uint16)
            colours = fixed_point(corners, options.scale) if isinstance(tables, LabTables) else tables[corners]
            extent = (np.ptp(colours, axis=1).astype(np.int64) ** 2).sum()
            # Cells next but one reach over six sides of two steps at most; one more level for rounding.
            assert extent + dims * (6 * options.unit + 1) ** 2 < 2**31
            assert options.unit == pytest.approx(options.scale * compactness)
    assert (np.ptp(fixed_point(np.round(cube(24) * 65535), 64.0), axis=1) <= np.array([100, 185, 203]) * 64).all()
