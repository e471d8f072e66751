"""What the tests of the networks share: photographs, weights of a trained look, bilinear resizing, two processes."""

from __future__ import annotations

from typing import Any

import torch
from skimage import data
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from tests.reference.resnet import unit_state

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-10}
SMALL: dict[str, Any] = {"backbone": "resnet18", "width": 0.125, "dropout": 0.0}


def photographs(height: int = 45, width: int = 61, count: int = 2) -> Tensor:
    """`[count, 3, height, width]` in [0, 1]: crops of different photographs."""
    pictures = [data.coffee()[100:, 200:], data.chelsea()[40:, 80:], data.astronaut()[20:, 150:], data.coffee()]
    crops = [torch.from_numpy(picture[:height, :width].copy()) for picture in pictures[:count]]
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 255


def segments(image: Tensor, num_classes: int = 4) -> Tensor:
    """`[B, H, W]` classes that follow the brightness of images, with stripes of no class."""
    gray = image.mean(1)
    ranks = gray.flatten(1).argsort(1).argsort(1).view(gray.shape)
    mask = ranks * num_classes // gray[0].numel()
    mask[:, 5:8] = 255
    return mask


def trained(network: Any, seed: int = 0) -> Any:
    """The module in evaluation mode and float64, with weights and statistics that a trained one could have.

    Norms of a network have the statistics of photographs, so that features tell pixels apart.
    """
    network.load_state_dict(unit_state(network.state_dict(), torch.Generator().manual_seed(seed)))
    network.double().eval()
    if hasattr(network, "backbone"):
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:
            norm.train().momentum = 1.0
        with torch.no_grad():
            maps = network.maps(photographs(64, 96, 4).double())
            network.head(maps if hasattr(network.head, "num_maps") else maps[-1])
            if network.auxiliary is not None:
                network.auxiliary(maps[-2])
        for norm in norms:
            norm.eval().momentum = 0.1
    return network


def frozen_norms(network: Any) -> Any:
    """In training mode, but for the batch norms."""
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return network


def enlarged(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear resizing about half-pixel centres, one axis after the other."""
    for dim, new in zip((2, 3), size, strict=True):
        old = x.shape[dim]
        at = ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new - 0.5).clamp(0, old - 1)
        low = at.floor().long()
        high = (low + 1).clamp(max=old - 1)
        share = (at - low).view([-1 if d == dim else 1 for d in range(4)])
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
    return x


def area_means(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean over the pixels that each cell of a grid touches."""
    (H, W), (h, w) = x.shape[2:], size
    out = x.new_zeros(*x.shape[:2], h, w)
    for i in range(h):
        for j in range(w):
            rows, columns = slice(i * H // h, -(-(i + 1) * H // h)), slice(j * W // w, -(-(j + 1) * W // w))
            out[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    return out


def check_two_processes(network: Any, batch: dict[str, Tensor], first: int = 1) -> None:
    """Two processes that share a batch have its loss, and gradients that add up to its gradients.

    The first has `first` images. What a process sends does not depend on what it gets, so a run alone records it.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    whole = network.losses(batch, reduce=lambda x: x)
    wanted = torch.autograd.grad(whole["loss"], parameters, allow_unused=True)
    shares = [{name: x[part] for name, x in batch.items()} for part in (slice(0, first), slice(first, None))]
    sent: list[list[Tensor]] = [[], []]
    for share, kept in zip(shares, sent, strict=True):

        def keep(x: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(x.detach().clone())
            return x

        network.losses(share, reduce=keep)
    total = [torch.zeros_like(p) for p in parameters]
    for share, received in zip(shares, reversed(sent), strict=True):
        others = iter(received)

        def add(x: Tensor, others: Any = others) -> Tensor:
            return x + next(others)

        found = network.losses(share, reduce=add)
        assert next(others, None) is None
        assert found.keys() == whole.keys()
        for name, value in found.items():
            assert_close(value, whole[name], **EXACT)
        for t, g in zip(total, torch.autograd.grad(found["loss"], parameters, allow_unused=True), strict=True):
            t += 0 if g is None else g
    for got, want in zip(total, wanted, strict=True):
        assert_close(got, torch.zeros_like(got) if want is None else want, rtol=1e-8, atol=1e-9)


def check_batch_is_singles(network: Module, sizes: tuple[tuple[int, int], ...] = ((45, 61), (40, 32))) -> None:
    """In evaluation mode images do not meet, and nothing is kept from one size to the next."""
    for size in sizes:
        images = photographs(*size).to(next(network.parameters()).dtype)
        whole = network(images).logits
        assert_close(whole, torch.cat([network(image[None]).logits for image in images]), **EXACT)
