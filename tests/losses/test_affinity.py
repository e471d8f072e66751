"""Cross entropy of affinities against plain loops and torch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.losses.affinity import affinity_counts, affinity_cross_entropy
from graphseg.transforms import ToAffinityGraph
from tests.reference import losses as reference
from tests.transforms.photos import photograph

BALANCES = ("none", "all", "channel")


def problem(shape=(2, 3, 4, 5), together=0.8, ignored=0.2, seed=0, device="cpu", dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    target = (torch.rand(shape, generator=generator) < together).to(torch.int8)
    target[torch.rand(shape, generator=generator) < ignored] = -100
    return logits.to(device, dtype), target.to(device)


def by_loop(logits, target, balance):
    """Sum and number of pairs; weights n / (classes that occur * n_c)."""
    groups = [(logits, target)]
    if balance == "channel":
        groups = [(logits[:, k], target[:, k]) for k in range(logits.shape[1])]
    total, count = 0.0, 0
    for values, t in groups:
        flat = [v for v in t.flatten().tolist() if v != -100]
        occurs = [flat.count(c) for c in (0, 1)]
        present = sum(n > 0 for n in occurs)
        weights = [1.0, 1.0] if balance == "none" else [len(flat) / (present * n) if n else 0.0 for n in occurs]
        part = reference.affinity_cross_entropy(values.cpu().numpy(), t.cpu().numpy(), weights)
        total, count = total + part[0], count + part[1]
    return total, count


def test_three_pairs_by_hand():
    logits = torch.tensor([0.0, math.log(3), math.log(4)], dtype=torch.float64)  # 1/2, 3/4, 4/5
    target = torch.tensor([0, 1, 1])
    losses = [math.log(2), math.log(4 / 3), math.log(5 / 4)]
    assert_close(affinity_cross_entropy(logits, target).item(), sum(losses) / 3)
    balanced = losses[0] / 2 + (losses[1] + losses[2]) / 4
    assert_close(affinity_cross_entropy(logits, target, balance="all").item(), balanced)
    target[2] = -100
    assert_close(affinity_cross_entropy(logits, target).item(), (losses[0] + losses[1]) / 2)
    assert affinity_counts(target).tolist() == [1, 1]
    assert affinity_counts(torch.tensor([[0, 1, -100], [1, 1, 0]]), "channel").tolist() == [[1, 0, 1], [1, 2, 0]]
    half = torch.tensor([0.5, 0.0, 1.0])
    assert affinity_counts(half).tolist() == [1.5, 1.5]


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("together", [0.0, 0.2, 0.8, 1.0])
def test_is_the_loop(balance, together, device, dtype, tolerance):
    logits, target = problem(together=together, device=device, dtype=dtype)
    total, count = by_loop(logits, target, balance)
    found = affinity_cross_entropy(logits, target, balance=balance, reduction="sum", return_count=True)
    assert_close(found.cpu().double(), torch.tensor([total, count], dtype=torch.float64), **tolerance)
    assert_close(affinity_cross_entropy(logits, target, balance=balance).item(), total / count, **tolerance)


@given(
    seed=st.integers(0, 1000),
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple),
    balance=st.sampled_from(BALANCES),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_shape(seed, shape, balance, ignored):
    logits, target = problem(shape, 0.5, ignored, seed)
    found = affinity_cross_entropy(logits, target, balance=balance, reduction="sum", return_count=True)
    assert_close(found, torch.tensor(by_loop(logits, target, balance), dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_is_torchs_binary_cross_entropy():
    logits, target = problem(ignored=0)
    assert_close(affinity_cross_entropy(logits, target), F.binary_cross_entropy_with_logits(logits, target.double()))
    soft = torch.rand_like(logits)
    assert_close(affinity_cross_entropy(logits, soft), F.binary_cross_entropy_with_logits(logits, soft))


def test_balanced_classes_weigh_the_same():
    logits, target = problem(together=0.95)
    apart = affinity_cross_entropy(logits, target.masked_fill(target == 1, -100))
    together = affinity_cross_entropy(logits, target.masked_fill(target == 0, -100))
    assert_close(affinity_cross_entropy(logits, target, balance="all"), (apart + together) / 2)
    same = torch.zeros_like(logits)  # logits of 0 have one loss, whatever the weights
    for balance in BALANCES:
        assert_close(affinity_cross_entropy(same, target, balance=balance).item(), math.log(2))


def test_targets_of_any_kind():
    logits, target = problem((7, 3), ignored=0)
    expected = affinity_cross_entropy(logits, target)
    for other in (target.bool(), target.long(), target.float(), target.to(torch.uint8), target.to(torch.uint16)):
        assert_close(affinity_cross_entropy(logits, other), expected)
    marked = target.long()
    marked[0] = 255
    ignored = target.clone()
    ignored[0] = -100
    assert_close(affinity_cross_entropy(logits, marked, ignore_index=255), affinity_cross_entropy(logits, ignored))


@pytest.mark.parametrize("balance", BALANCES)
def test_gradients(balance):
    logits, target = problem((2, 2, 2, 3))
    logits.requires_grad_()
    assert gradcheck(lambda x: affinity_cross_entropy(x, target, balance=balance), (logits,))
    affinity_cross_entropy(logits, target, balance=balance).backward()
    assert torch.equal(logits.grad == 0, target == -100)


@pytest.mark.parametrize("balance", BALANCES)
def test_sums_of_processes_are_the_batch(balance):
    logits, target = problem((4, 3, 2, 5))
    expected = affinity_cross_entropy(logits, target, balance=balance)
    halves = (slice(1), slice(1, None))
    counts = None
    if balance != "none":
        counts = torch.stack([affinity_counts(target[half], balance) for half in halves]).sum(0)
    parts = [
        affinity_cross_entropy(
            logits[half], target[half], balance=balance, counts=counts, reduction="sum", return_count=True
        )
        for half in halves
    ]
    total, count = torch.stack(parts).sum(0)
    assert_close(total / count, expected)


def test_order_of_pairs_does_not_matter():
    logits, target = problem((60,))
    order = torch.randperm(60)
    for balance in ("none", "all"):
        assert_close(
            affinity_cross_entropy(logits[order], target[order], balance=balance),
            affinity_cross_entropy(logits, target, balance=balance),
        )


@pytest.mark.parametrize("balance", BALANCES)
def test_nothing_left_is_zero_and_ignored_pairs_are_not_read(balance):
    logits, target = problem()
    logits.requires_grad_()
    loss = affinity_cross_entropy(logits, torch.full_like(target, -100), balance=balance, return_count=True)
    assert loss.tolist() == [0, 0]
    loss[0].backward()
    assert (logits.grad == 0).all()
    for empty in (slice(0), (slice(None), slice(0)), (slice(None), slice(None), slice(0))):
        assert affinity_cross_entropy(logits[empty], target[empty], balance=balance) == 0
    hole = logits.detach().masked_fill(target == -100, torch.nan).requires_grad_()
    loss = affinity_cross_entropy(hole, target, balance=balance)
    loss.backward()
    assert_close(loss, affinity_cross_entropy(logits, target, balance=balance))
    assert hole.grad.isfinite().all()


def test_sure_and_wrong_is_finite(dtype):
    logits = torch.tensor([1e4, -1e4], dtype=dtype, requires_grad=True)
    loss = affinity_cross_entropy(logits, torch.tensor([0, 1]))
    assert loss == 1e4 and torch.autograd.grad(loss, logits)[0].tolist() == [0.5, -0.5]


def test_edges_of_a_photograph():
    graph = ToAffinityGraph([(0, 1), (1, 0), (8, 8)])(photograph())
    logits = torch.randn(graph.num_edges)
    expected = F.binary_cross_entropy_with_logits(logits, graph.edge_y)
    assert_close(affinity_cross_entropy(logits, graph.edge_y), expected)
    assert affinity_counts(graph.edge_y).tolist() == [(graph.edge_y == v).sum() for v in (0, 1)]


def test_autocast_is_float32(device):
    logits, target = problem(device=device, dtype=torch.float32)
    with torch.autocast(device.type, torch.bfloat16):
        for balance in BALANCES:
            expected = affinity_cross_entropy(logits.double(), target, balance=balance).float()
            assert_close(affinity_cross_entropy(logits, target, balance=balance), expected)
            assert affinity_cross_entropy(logits.bfloat16(), target, balance=balance).dtype == torch.float32


def test_bad_input_is_refused_by_name():
    logits, target = problem()
    with pytest.raises(ValueError, match=r"got 255 in target, expected values in \[0, 1\] or ignore_index=-100"):
        affinity_cross_entropy(logits, target.long().masked_fill(target == 0, 255))
    with pytest.raises(ValueError, match=r"got -100 in target, .* or ignore_index=255"):
        affinity_counts(target, ignore_index=255)
    with pytest.raises(ValueError, match=r"for target, expected \[2, 3, 4, 5\]"):
        affinity_cross_entropy(logits, target[0])
    with pytest.raises(ValueError, match="got balance='both', expected one of 'none', 'all', 'channel'"):
        affinity_cross_entropy(logits, target, balance="both")
    with pytest.raises(ValueError, match=r"got balance='channel' for shape \[5\], expected channels"):
        affinity_cross_entropy(logits[0, 0, 0], target[0, 0, 0], balance="channel")
    with pytest.raises(ValueError, match=r"for counts, expected \[2, 3\]"):
        affinity_cross_entropy(logits, target, balance="channel", counts=torch.ones(2))
    with pytest.raises(TypeError, match="for logits, expected a floating-point"):
        affinity_cross_entropy(target, target)
    with pytest.raises(ValueError, match="got reduction='none'"):
        affinity_cross_entropy(logits, target, reduction="none")
