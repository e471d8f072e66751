"""Squared errors of reconstructions against torch's own, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.losses.reconstruction import reconstruction_loss


def images(*, images=2, channels=3, size=(4, 5), seed=0):
    return torch.rand(images, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_three_pixels_by_hand():
    image = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    first, second = torch.tensor([[[[1.0, 4.0, 3.0]]]]), torch.tensor([[[[2.0, 2.0, 0.0]]]])
    assert reconstruction_loss(image, first, second, reduction="sum") == 4 + 1 + 9
    assert reconstruction_loss(image, first, second) == 14 / 3
    valid = torch.tensor([[[True, False, True]]])
    assert reconstruction_loss(image, first, second, valid=valid, return_count=True).tolist() == [5, 2]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_is_torchs_mean_squared_error(channels, device, dtype, tolerance):
    a, b, c = (images(channels=channels, seed=s).to(device, dtype) for s in range(3))
    assert_close(reconstruction_loss(a, b), F.mse_loss(b, a), **tolerance)
    assert_close(reconstruction_loss(a, b, c), F.mse_loss(b, a) + F.mse_loss(c, a), **tolerance)
    printed = F.mse_loss(b, a, reduction="sum") + F.mse_loss(c, a, reduction="sum")
    assert_close(reconstruction_loss(a, b, c, reduction="sum"), printed, **tolerance)


def test_gradients_and_batch():
    a, b, c = (images(seed=s, size=(2, 3)).requires_grad_() for s in range(3))
    valid = torch.rand(2, 2, 3) < 0.7
    assert gradcheck(lambda *x: reconstruction_loss(*x, valid=valid), (a, b, c))
    singles = torch.stack([reconstruction_loss(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    assert_close(reconstruction_loss(a, b), singles.mean())


def test_nothing_left_is_zero_and_pixels_that_are_not_valid_are_not_read():
    a, b = images(), images(seed=1).requires_grad_()
    valid = torch.zeros(2, 4, 5, dtype=torch.bool)
    assert reconstruction_loss(a, b, valid=valid, return_count=True).tolist() == [0, 0]
    assert reconstruction_loss(a[:0], b[:0]) == 0
    valid[1] = True
    a[0] = torch.nan
    loss = reconstruction_loss(a, b, valid=valid)
    loss.backward()
    assert_close(loss, F.mse_loss(b[1], a[1]))
    assert (b.grad[0] == 0).all()


def test_autocast_adds_up_in_float32(device):
    a, b = (images(size=(64, 64), seed=s).float().to(device) for s in range(2))
    with torch.autocast(device.type, torch.bfloat16):
        assert_close(reconstruction_loss(a, b), F.mse_loss(b, a))
        assert reconstruction_loss(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_bad_input_is_refused_by_name():
    a = images()
    with pytest.raises(ValueError, match="got no reconstructed image"):
        reconstruction_loss(a)
    with pytest.raises(ValueError, match="got 2 channels in reconstructed, expected 3 as in image"):
        reconstruction_loss(a, a[:, :2])
    with pytest.raises(ValueError, match="for reconstructed, expected 2 maps of size"):
        reconstruction_loss(a, a[..., 1:])
    with pytest.raises(TypeError, match=r"got dtype torch\.uint8 for image"):
        reconstruction_loss(a.to(torch.uint8), a)
    with pytest.raises(ValueError, match="got reduction='total'"):
        reconstruction_loss(a, a, reduction="total")
