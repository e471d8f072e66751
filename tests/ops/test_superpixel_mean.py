"""`add_region_means`: kernels and tensor form, layouts, and bad input; the layers' tests hold both to the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from graphseg.ops import superpixel_mean
from graphseg.ops.superpixel_mean import add_region_means, count_regions, label_bounds

FORMS = [superpixel_mean._add_compiled, superpixel_mean._add_tensors]


def problem(batch=2, channels=9, pixels=30, scales=2, regions=5, seed=0, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, pixels, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, regions, (batch, scales, pixels), generator=generator)
    return x.to(device, dtype), labels.to(device)


@settings(max_examples=60)
@given(
    batch=st.integers(0, 3),
    channels=st.integers(0, 20),
    pixels=st.integers(0, 12),
    scales=st.integers(1, 3),
    regions=st.integers(1, 6),
    by_rows=st.booleans(),
    threads=st.integers(1, 3),
)
def test_kernels_are_the_tensor_form(batch, channels, pixels, scales, regions, by_rows, threads):
    x, labels = problem(batch, channels, pixels, scales, regions)
    x = x.transpose(1, 2).contiguous().transpose(1, 2) if by_rows else x
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    compiled, tensors = (form(x, labels, regions, 0.3) for form in FORMS)
    torch.set_num_threads(before)
    assert_close(compiled, tensors)
    assert compiled.shape == x.shape
    if x.numel() > 0:
        assert compiled.stride() == x.stride()


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 63, 64, 65, 130])
def test_channels_are_cut_without_a_trace(channels):
    x, labels = problem(batch=1, channels=channels, dtype=torch.float32)
    out = add_region_means(x, labels)
    rows = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(add_region_means(rows, labels), out)
    for c in range(channels):
        assert torch.equal(add_region_means(x[:, c : c + 1], labels)[:, 0], out[:, c])


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_keep_the_input(form):
    x, labels = problem()
    before = x.clone()
    form(x, labels, 5, 0.1)
    assert torch.equal(x, before)


def test_gradients_of_every_order(device):
    x, labels = problem(batch=1, channels=2, pixels=6, device=device)
    x.requires_grad_()
    assert gradcheck(lambda v: add_region_means(v, labels), x)
    assert gradgradcheck(lambda v: add_region_means(v, labels), x)


def test_devices_agree(device, dtype, tolerance):
    x, labels = problem(channels=20, pixels=300, dtype=dtype)
    assert_close(add_region_means(x.to(device), labels.to(device)).cpu(), add_region_means(x, labels), **tolerance)


def test_runs_repeat_bit_for_bit(device):
    x, labels = problem(pixels=5000, dtype=torch.float32, device=device)
    assert torch.equal(add_region_means(x, labels), add_region_means(x, labels))


def test_regions_are_counted(device):
    labels = torch.tensor([[0, 0, 4, 4], [0, 1, 2, 3], [7, 7, 7, 7]], device=device)
    assert count_regions(labels).tolist() == [2, 4, 1]
    assert count_regions(labels[:, :0]).tolist() == [0, 0, 0] and count_regions(labels[:0]).tolist() == []
    assert count_regions(labels.to(torch.uint8)).tolist() == [2, 4, 1]
    assert count_regions(labels.t()).tolist() == [2, 3, 3, 3]
    random = torch.randint(0, 50, (4, 60), device=device)
    assert count_regions(random).tolist() == [len(np.unique(row)) for row in random.cpu().numpy()]
    assert label_bounds(labels) == (0, 7) and label_bounds(labels[:0]) == (0, -1)
    assert label_bounds(labels.to(torch.int16) - 3) == (-3, 4)


X, L = torch.randn(2, 3, 4), torch.zeros(2, 1, 4).long()
LIST: Any = [0]
BAD = [
    (lambda: add_region_means(LIST, L), TypeError, "got list for x"),
    (lambda: add_region_means(X[0], L), ValueError, r"got shape \[3, 4\] for x, expected \[\*, \*, \*\]"),
    (lambda: add_region_means(X.int(), L), TypeError, "got dtype torch.int32 for x"),
    (lambda: add_region_means(X, X), TypeError, "got dtype torch.float32 for labels"),
    (lambda: add_region_means(X, L[0]), ValueError, r"got shape \[1, 4\] for labels, expected \[2, \*, 4\]"),
    (lambda: add_region_means(X, L[:, :0]), ValueError, "expected at least one label map"),
    (lambda: add_region_means(X, L - 2), ValueError, "got -2 in labels, expected ids from 0"),
    (lambda: add_region_means(X, L.to("meta")), ValueError, "x on cpu, labels on meta"),
    (lambda: count_regions(X), TypeError, "got dtype torch.float32 for labels"),
    (lambda: count_regions(L), ValueError, r"got shape \[2, 1, 4\] for labels"),
    (lambda: count_regions(L[0] - 1), ValueError, "got -1 in labels"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_refused_by_name(number):
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()
