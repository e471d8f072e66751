"""Mutual information against plain loops, closed forms and torch's convolution."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.losses.information import joint_counts, mutual_information, mutual_information_loss
from graphseg.transforms import ToPixelGrid
from tests.reference import losses as reference
from tests.transforms.photos import photograph


def predictions(size=(4, 5), images=2, classes=3, sharp=2.0, seed=0, device="cpu", dtype=torch.float64):
    """Two maps of class probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, images, classes, *size, generator=generator, dtype=torch.float64)
    return (sharp * logits).softmax(2).to(device, dtype).unbind()


def mask(size=(4, 5), images=2, share=0.7, seed=1):
    return torch.rand(images, *size, generator=torch.Generator().manual_seed(seed)) < share


def by_loop(first, second, reach, valid=None, **kw):
    """The mean over displacements at which any pair is left."""
    values = []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            joint = reference.joint(first.numpy(), second.numpy(), dy, dx, None if valid is None else valid.numpy())
            if joint.sum() > 0:
                values.append(reference.mutual_information(joint, **kw))
    return sum(values) / len(values)


def test_three_nodes_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    # Both say the same: the information is the entropy of (2/3, 1/3).
    entropy = -2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3)
    assert_close(mutual_information_loss(first, first).item(), -entropy)
    # The same everywhere says nothing.
    second = torch.tensor([[2 / 3, 1 / 3]], dtype=torch.float64).expand(3, 2)
    assert mutual_information_loss(first, second).item() == pytest.approx(0, abs=1e-15)
    second = torch.tensor([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    assert_close(joint_counts(first, second), torch.tensor([[[1.5, 0.5], [0.0, 1.0]]], dtype=torch.float64))
    # Symmetric part over 3: [[1/2, 1/12], [1/12, 1/3]], margins (7/12, 5/12).
    joint, margin = [[1 / 2, 1 / 12], [1 / 12, 1 / 3]], [7 / 12, 5 / 12]
    by_hand = sum(joint[i][j] * math.log(joint[i][j] / margin[i] / margin[j]) for i in range(2) for j in range(2))
    assert_close(mutual_information_loss(first, second).item(), -by_hand)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reach", [0, 1, 3])
def test_is_the_loop(reach, masked, device):
    first, second = predictions()
    valid = mask() if masked else None
    moved = None if valid is None else valid.to(device)
    for weight in (1.0, 1.5):
        found = mutual_information_loss(
            first.to(device), second.to(device), reach, valid=moved, entropy_weight=weight
        ).item()
        assert found == pytest.approx(-by_loop(first, second, reach, valid, entropy_weight=weight), abs=1e-10)


@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    reach=st.integers(0, 5),
    share=st.sampled_from([0.2, 1.0]),
)
def test_any_size_and_displacement(seed, size, reach, share):
    first, second = predictions(size, images=1, classes=2, seed=seed)
    valid = mask(size, 1, share, seed)
    found = mutual_information_loss(first, second, reach, valid=valid).item()
    expected = by_loop(first, second, reach, valid) if valid.any() else 0.0
    assert found == pytest.approx(-expected, abs=1e-10)


@pytest.mark.parametrize("reach", [1, 4])
def test_all_displacements_are_torchs_convolution_in_values_and_gradients(reach, device, dtype):
    first, second = (x.requires_grad_() for x in predictions((9, 12), classes=4, device=device, dtype=dtype))
    found = joint_counts(first, second, reach)
    # A convolution with `first` as the kernel, as invariant information clustering has it: [K, K, 2T + 1, 2T + 1].
    kernel, padded = first.transpose(0, 1), second.transpose(0, 1)
    expected = F.conv2d(padded, kernel, padding=reach).permute(2, 3, 1, 0).flatten(0, 1)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert_close(found, expected, rtol=tolerance, atol=tolerance)
    upstream = torch.rand_like(found)
    gradients = [torch.autograd.grad(value, (first, second), upstream) for value in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_no_displacement_is_the_middle_of_all():
    first, second = predictions()
    assert_close(joint_counts(first, second, 2)[12], joint_counts(first, second)[0])
    assert_close(joint_counts(first, second, 2, valid=mask())[12], joint_counts(first, second, valid=mask())[0])


def test_is_the_difference_of_entropies():
    """H(first) - H(first | second), from the joint distribution alone."""
    joint = torch.rand(1, 4, 4, dtype=torch.float64)
    joint = joint + joint.transpose(1, 2)
    p = joint[0] / joint.sum()
    entropy = torch.special.entr(p.sum(1)).sum()
    conditional = torch.special.entr(p).sum() - torch.special.entr(p.sum(0)).sum()
    assert_close(mutual_information(joint), entropy - conditional)
    assert_close(mutual_information(torch.cat([joint, 0 * joint])), entropy - conditional)  # that one does not occur


def test_gradients_point_to_agreement():
    first, second = (x.requires_grad_() for x in predictions((3, 3), images=1, classes=2))
    assert gradcheck(mutual_information_loss, (first, second))
    assert gradcheck(lambda a, b: mutual_information_loss(a, b, 1, valid=mask((3, 3), 1)), (first, second))
    logits = torch.randn(2, 60, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = mutual_information_loss(*logits.softmax(2))
        loss.backward()
        optimizer.step()
    assert -math.log(4) < loss < -0.9 * math.log(4)  # the most there is
    # Each class of one goes with one class of the other.
    pairs = set(zip(*logits.argmax(2).tolist(), strict=True))
    assert len(pairs) == 4


def test_certain_predictions_have_finite_gradients(dtype):
    labels = torch.arange(12) % 3
    for second in (labels, (labels + 1) % 3, torch.zeros(12, dtype=torch.int64)):
        logits = torch.stack([F.one_hot(x, 4) * 1e4 for x in (labels, second)]).to(dtype).requires_grad_()
        loss = mutual_information_loss(*logits.softmax(2))
        assert loss.isfinite() and torch.autograd.grad(loss, logits)[0].isfinite().all()
    # Two classes swapped throughout tell as much as equal ones.
    same, swapped = (F.one_hot((torch.arange(12) + shift) % 2, 2).to(dtype) for shift in (0, 1))
    for second in (same, swapped):
        assert mutual_information_loss(same, second).item() == pytest.approx(-math.log(2), rel=1e-6)


def test_batch_is_the_sum_of_joint_counts():
    first, second = predictions(images=3)
    for reach in (0, 2):
        whole = joint_counts(first, second, reach)
        singles = torch.stack([joint_counts(first[i : i + 1], second[i : i + 1], reach) for i in range(3)]).sum(0)
        assert_close(whole, singles)
        assert_close(-mutual_information(singles), mutual_information_loss(first, second, reach))


def test_order_of_pixels_classes_and_views_does_not_matter():
    first, second = (torch.rand(2, 30, 4, dtype=torch.float64) ** 3).unbind()
    first, second = first / first.sum(1, keepdim=True), second / second.sum(1, keepdim=True)
    loss = mutual_information_loss(first, second)
    rows, columns = torch.randperm(30), torch.randperm(4)
    assert_close(mutual_information_loss(first[rows], second[rows]), loss)
    assert_close(mutual_information_loss(first[:, columns], second[:, columns]), loss)
    assert_close(mutual_information_loss(second, first), loss)


def test_rows_are_maps():
    first, second = predictions()
    rows = [x.movedim(1, 3).reshape(-1, 3) for x in (first, second)]
    assert_close(mutual_information_loss(*rows), mutual_information_loss(first, second))
    valid = mask()
    assert_close(
        mutual_information_loss(*rows, valid=valid.flatten()), mutual_information_loss(first, second, valid=valid)
    )


def test_nothing_left_is_zero_and_pixels_that_are_not_valid_are_not_read():
    first, second = (x.requires_grad_() for x in predictions())
    for reach in (0, 1):
        loss = mutual_information_loss(first, second, reach, valid=torch.zeros(2, 4, 5, dtype=torch.bool))
        loss.backward()
        assert loss == 0 and (first.grad == 0).all()
        for part in (slice(0), (slice(None), slice(None), slice(0))):
            assert mutual_information_loss(first[part], second[part], reach) == 0
    assert mutual_information_loss(torch.zeros(0, 3), torch.zeros(0, 3)) == 0
    valid = mask()
    holes = [x.detach().masked_fill(~valid.unsqueeze(1), torch.nan) for x in (first, second)]
    for reach in (0, 2):
        found = mutual_information_loss(holes[0], holes[1], reach, valid=valid)
        assert_close(found, mutual_information_loss(first, second, reach, valid=valid))


def test_pixels_of_a_photograph():
    """Neighbouring pixels tell more of each other than pixels at random."""
    graph = ToPixelGrid()(photograph())
    H, W = (int(s) for s in graph.image_size[0])
    classes = (graph.x[:, :3] * 8).softmax(1)
    image = classes.T.reshape(1, 3, H, W)
    near = mutual_information_loss(image, image, 1)
    shuffled = mutual_information_loss(classes, classes[torch.randperm(H * W)])
    assert near < 10 * shuffled < 0


def test_autocast_multiplies_in_float32(device):
    first, second = predictions((64, 64), device=device, dtype=torch.float32)
    with torch.autocast(device.type, torch.bfloat16):
        for reach in (0, 2):
            expected = mutual_information_loss(first.double(), second.double(), reach).float()
            assert_close(mutual_information_loss(first, second, reach), expected, rtol=1e-4, atol=1e-6)
            assert mutual_information_loss(first.bfloat16(), second.bfloat16(), reach).dtype == torch.float32


@pytest.mark.parametrize("reach", [0, 2])
def test_views_of_two_precisions(reach):
    first, second = predictions()
    for other in (torch.float32, torch.bfloat16):
        second = second.to(other)
        expected = mutual_information_loss(first, second.double(), reach)
        assert_close(mutual_information_loss(first, second, reach), expected)
        assert_close(mutual_information_loss(second, first, reach), expected)


def test_bad_input_is_refused_by_name():
    first, second = predictions()
    with pytest.raises(ValueError, match=r"for second, expected \[2, 3, 4, 5\]"):
        mutual_information_loss(first, second[:1])
    with pytest.raises(ValueError, match=r"for first, expected \[P, K\] or \[B, K, H, W\]"):
        mutual_information_loss(first[0], second[0])
    with pytest.raises(ValueError, match="got displacement=1 for rows"):
        mutual_information_loss(first[0, 0], second[0, 0], 1)
    with pytest.raises(ValueError, match="got displacement=-1, expected at least 0"):
        mutual_information_loss(first, second, -1)
    with pytest.raises(TypeError, match="for first, expected a floating-point"):
        mutual_information_loss(first.long(), second)
    with pytest.raises(TypeError, match=r"for valid, expected torch\.bool"):
        mutual_information_loss(first, second, valid=torch.ones(2, 4, 5))
    with pytest.raises(ValueError, match="for counts, expected"):
        mutual_information(torch.zeros(2, 3, 4))
