"""Cross entropy, its hard pixels and the CDGC loss against plain loops and torch."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.losses.ohem import CDGCLoss, cross_entropy, ohem_cross_entropy
from graphseg.transforms import ToSuperpixelRAG
from tests.reference import losses as reference
from tests.transforms.photos import K, photograph


def problem(pixels=40, classes=5, ignored=0.2, ignore_index=-100, seed=0, device="cpu", dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(pixels, classes, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(0, classes, (pixels,), generator=generator)
    target[torch.rand(pixels, generator=generator) < ignored] = ignore_index
    return logits.to(device, dtype), target.to(device)


def test_three_nodes_by_hand():
    probability = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.9, 0.1]], dtype=torch.float64)
    target = torch.tensor([0, 0, 0])
    losses = [-math.log(p) for p in (0.5, 0.75, 0.9)]
    logits = probability.log()
    assert_close(cross_entropy(logits, target).item(), sum(losses) / 3)
    assert_close(ohem_cross_entropy(logits, target, threshold=0.7, min_kept=0).item(), losses[0])
    assert_close(ohem_cross_entropy(logits, target, threshold=0.7, min_kept=2).item(), (losses[0] + losses[1]) / 2)
    assert_close(ohem_cross_entropy(logits, target, threshold=0.8, min_kept=1).item(), (losses[0] + losses[1]) / 2)
    assert_close(ohem_cross_entropy(logits, target, threshold=1.0, min_kept=0).item(), sum(losses) / 3)
    assert ohem_cross_entropy(logits, target, threshold=0.4, min_kept=0, return_count=True).tolist() == [0, 0]
    criterion = CDGCLoss(threshold=0.7, min_kept=1)
    assert_close(criterion(logits, logits, logits, target).item(), sum(losses) / 3 + 0.7 * losses[0])
    assert_close(criterion(logits, logits, None, target).item(), 0.6 * sum(losses) / 3 + 0.7 * losses[0])


@pytest.mark.parametrize("ignore_index", [-100, 255, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs(ignore_index, weighted, device, dtype, tolerance):
    logits, target = problem(ignore_index=ignore_index, device=device, dtype=dtype)
    weight = torch.rand(5).to(device, dtype) if weighted else None
    expected = F.cross_entropy(logits, target, weight, ignore_index=ignore_index)
    assert_close(cross_entropy(logits, target, weight=weight, ignore_index=ignore_index), expected, **tolerance)
    maps, label_maps = logits.view(2, 4, 5, 5).movedim(3, 1), target.view(2, 4, 5)
    assert_close(cross_entropy(maps, label_maps, weight=weight, ignore_index=ignore_index), expected, **tolerance)
    loss = reference.cross_entropies(logits.tolist(), target.tolist(), ignore_index)
    total = cross_entropy(logits, target, ignore_index=ignore_index, reduction="sum", return_count=True)
    assert_close(total.cpu().double(), torch.tensor([sum(loss), len(loss)], dtype=torch.float64), **tolerance)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("min_kept", [0, 1, 10, 32, 40, 1000])
def test_hard_pixels_are_the_loop(threshold, min_kept, device, dtype, tolerance):
    logits, target = problem(device=device, dtype=dtype)
    found = ohem_cross_entropy(
        logits, target, threshold=threshold, min_kept=min_kept, reduction="sum", return_count=True
    )
    hard = reference.ohem(logits.tolist(), target.tolist(), threshold, min_kept, -100)
    assert_close(found.cpu().double(), torch.tensor([sum(hard), len(hard)], dtype=torch.float64), **tolerance)
    mean = ohem_cross_entropy(logits, target, threshold=threshold, min_kept=min_kept)
    assert_close(mean.item(), sum(hard) / max(len(hard), 1), **tolerance)


@given(
    seed=st.integers(0, 1000),
    pixels=st.integers(1, 30),
    min_kept=st.integers(0, 35),
    threshold=st.floats(0.01, 1.0),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_choice_of_hard_pixels(seed, pixels, min_kept, threshold, ignored):
    logits, target = problem(pixels, 3, ignored, seed=seed)
    hard = reference.ohem(logits.tolist(), target.tolist(), threshold, min_kept, -100)
    found = ohem_cross_entropy(
        logits, target, threshold=threshold, min_kept=min_kept, reduction="sum", return_count=True
    )
    assert_close(found, torch.tensor([sum(hard), len(hard)], dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_ties_are_all_kept():
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    target = torch.zeros(4, dtype=torch.int64)
    kept = [
        ohem_cross_entropy(logits, target, threshold=0.1, min_kept=k, return_count=True)[1].item() for k in range(5)
    ]
    assert kept == [0, 1, 3, 3, 4]


def test_weights_do_not_change_which_pixels_are_hard():
    logits, target = problem(ignored=0)
    weight = torch.tensor([1.0, 0.1, 5.0, 1.0, 1.0], dtype=torch.float64)
    found = ohem_cross_entropy(logits, target, threshold=0.3, min_kept=4, weight=weight)
    hard = logits.softmax(1).gather(1, target[:, None])[:, 0] <= 0.3
    assert 4 < hard.sum() < 40
    assert_close(found, F.cross_entropy(logits[hard], target[hard], weight))
    # Weights under 1 divide by their sum, too.
    alone = cross_entropy(logits[:1], target[:1], weight=torch.full((5,), 0.1).double())
    assert_close(alone, F.cross_entropy(logits[:1], target[:1]))


def test_gradients():
    logits, target = problem(12, 3)
    logits.requires_grad_()
    assert gradcheck(lambda x: cross_entropy(x, target), (logits,))
    assert gradcheck(lambda x: ohem_cross_entropy(x, target, threshold=0.5, min_kept=3), (logits,))
    ohem_cross_entropy(logits, target, threshold=0.5, min_kept=0).backward()
    p = logits.detach().softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    easy = (p > 0.5) | (target == -100)
    assert (logits.grad[easy] == 0).all() and (logits.grad[~easy] != 0).any(1).all()


def test_order_of_pixels_does_not_matter():
    logits, target = problem()
    order = torch.randperm(40)
    for loss in (cross_entropy, lambda a, b: ohem_cross_entropy(a, b, threshold=0.3, min_kept=20)):
        assert_close(loss(logits[order], target[order]), loss(logits, target))


def test_sums_of_processes_are_the_batch():
    logits, target = problem()
    for loss in (cross_entropy, lambda *a, **k: ohem_cross_entropy(*a, threshold=0.6, min_kept=0, **k)):
        parts = [
            loss(logits[half], target[half], reduction="sum", return_count=True) for half in (slice(7), slice(7, None))
        ]
        total, count = torch.stack(parts).sum(0)
        assert_close(total / count, loss(logits, target))


def test_nothing_left_is_zero():
    logits, _ = problem()
    logits.requires_grad_()
    nothing = torch.full((40,), 255)
    criterion = CDGCLoss(ignore_index=255)
    loss = criterion(logits, logits, logits, nothing)
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()
    for min_kept in (0, 5):
        assert ohem_cross_entropy(logits, nothing, min_kept=min_kept, ignore_index=255, return_count=True).tolist() == [
            0,
            0,
        ]
        assert ohem_cross_entropy(logits[:0], nothing[:0], min_kept=min_kept) == 0
    assert cross_entropy(logits[:0], nothing[:0]) == 0
    assert cross_entropy(torch.zeros(2, 3, 0, 4), torch.zeros(2, 0, 4, dtype=torch.int64)) == 0


@pytest.mark.parametrize("label_dtype", [torch.int64, torch.int32, torch.uint8])
def test_labels_of_any_integer_dtype(label_dtype):
    logits, target = problem(ignore_index=255)
    expected = cross_entropy(logits, target, ignore_index=255)
    assert_close(cross_entropy(logits, target.to(label_dtype), ignore_index=255), expected)


def test_cdgc_loss_is_its_terms():
    coarse, target = problem()
    refined, auxiliary = problem(seed=1)[0], problem(seed=2)[0]
    weight = torch.rand(5).double()
    criterion = CDGCLoss(0.5, 1.5, 0.25, threshold=0.4, min_kept=9, weight=weight)
    expected = 0.5 * F.cross_entropy(coarse, target, weight) + 0.25 * F.cross_entropy(auxiliary, target, weight)
    expected = expected + 1.5 * ohem_cross_entropy(refined, target, threshold=0.4, min_kept=9, weight=weight)
    assert_close(criterion(coarse, refined, auxiliary, target), expected)
    assert repr(criterion) == "CDGCLoss(alpha=0.5, beta=1.5, gamma=0.25, threshold=0.4, min_kept=9)"
    other = CDGCLoss(weight=torch.ones(5).double())
    other.load_state_dict(criterion.state_dict())
    assert torch.equal(other.state_dict()["weight"], weight)
    assert not CDGCLoss().state_dict()


def test_nodes_of_a_photograph():
    """Labels of nodes come with -100 where there are none, as the losses expect."""
    photo = photograph()
    photo.mask = photo.mask.clone()
    photo.mask[:20] = 255
    graph = ToSuperpixelRAG(60, num_classes=K, ignore_index=255)(photo)
    assert (graph.y == -100).any()
    logits = torch.randn(graph.num_nodes, K)
    assert_close(cross_entropy(logits, graph.y), F.cross_entropy(logits, graph.y))


def test_autocast_is_float32(device):
    logits, target = problem(device=device, dtype=torch.float32)
    with torch.autocast(device.type, torch.bfloat16):
        assert_close(cross_entropy(logits, target), cross_entropy(logits.double(), target).float())
        assert ohem_cross_entropy(logits.bfloat16(), target).dtype == torch.float32


def test_bad_input_is_refused_by_name():
    logits, target = problem()
    with pytest.raises(ValueError, match=r"got class 255 in target, expected classes in \[0, 5\) or ignore_index=-100"):
        cross_entropy(logits, target.where(target >= 0, 255))
    with pytest.raises(ValueError, match=r"got class -100 in target, .* ignore_index=255"):
        ohem_cross_entropy(logits, target, ignore_index=255)
    with pytest.raises(ValueError, match=r"for target, expected \[40\]"):
        cross_entropy(logits, target[1:])
    with pytest.raises(TypeError, match="for target, expected an integer"):
        cross_entropy(logits, target.float())
    with pytest.raises(TypeError, match="for logits, expected a floating-point"):
        cross_entropy(logits.long(), target)
    with pytest.raises(ValueError, match=r"for logits, expected \[P, K\] or"):
        cross_entropy(logits[:, 0], target)
    with pytest.raises(ValueError, match=r"for weight, expected \[5\]"):
        cross_entropy(logits, target, weight=torch.ones(4))
    with pytest.raises(ValueError, match="got threshold=0, expected a probability"):
        ohem_cross_entropy(logits, target, threshold=0)
    with pytest.raises(ValueError, match="got min_kept=-1, expected at least 0"):
        ohem_cross_entropy(logits, target, min_kept=-1)
    with pytest.raises(ValueError, match="got reduction='none'"):
        cross_entropy(logits, target, reduction="none")


# Several processes


class Together:
    """Threads in the place of processes, each with a `reduce` that adds what all of them give."""

    def __init__(self, count):
        self.barrier, self.given = threading.Barrier(count), [torch.empty(0)] * count

    def reduce(self, rank):
        def add(x):
            self.given[rank] = x.detach()
            self.barrier.wait(60)
            total = torch.stack(self.given).sum(0)
            self.barrier.wait(60)
            return x + (total - x.detach())

        return add


@pytest.mark.parametrize("min_kept", [0, 1, 7, 40, 90, 1000])
@pytest.mark.parametrize("threshold", [0.05, 0.7])
def test_processes_choose_the_hardest_of_all_their_pixels(min_kept, threshold, dtype, tolerance):
    logits = 3 * torch.randn(90, 4, dtype=dtype)
    logits[10:20] = logits[0]  # ties
    logits[40:60] *= 5  # one share is harder than the other
    target = torch.randint(0, 4, (90,))
    target[torch.rand(90) < 0.2] = -100
    known = {"threshold": threshold, "min_kept": min_kept, "reduction": "sum", "return_count": True}
    whole = ohem_cross_entropy(logits, target, **known)
    assert torch.equal(ohem_cross_entropy(logits, target, **known, reduce=lambda x: x), whole)
    shares, together = [slice(0, 0), slice(0, 35), slice(35, 90)], Together(3)
    with ThreadPoolExecutor(3) as pool:
        tasks = [
            pool.submit(ohem_cross_entropy, logits[s], target[s], **known, reduce=together.reduce(rank))
            for rank, s in enumerate(shares)
        ]
        assert_close(torch.stack([task.result() for task in tasks]).sum(0), whole, **tolerance)


def test_one_loss_of_two_processes():
    maps = [torch.randn(40, 3, dtype=torch.float64) for _ in range(3)]
    target = torch.randint(0, 3, (40,))
    criterion, together = CDGCLoss(threshold=0.2, min_kept=12), Together(2)
    whole = criterion(*maps, target)
    with ThreadPoolExecutor(2) as pool:
        shares = [slice(0, 9), slice(9, 40)]
        tasks = [
            pool.submit(criterion, *(x[s] for x in maps), target[s], together.reduce(rank))
            for rank, s in enumerate(shares)
        ]
        for task in tasks:
            assert_close(task.result(), whole)
