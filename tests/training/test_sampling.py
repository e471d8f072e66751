"""What a step sees depends on the seed and the step: not on where one starts, how many load, or how many train."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.transforms import Compose

from graphseg.training.sampling import AugmentedImages, StepSampler, mixed_seed
from graphseg.transforms import ColorJitter, RandomImageCrop, RandomImageFlip, RandomImageScale
from tests.training._small import Scenes


def steps(count, *arguments, **options):
    return list(islice(StepSampler(*arguments, **options), count))


@given(length=st.integers(1, 9), batch=st.integers(1, 12), seed=st.integers(0, 50))
def test_every_image_comes_once_in_every_pass(length, batch, seed):
    row = [place for one in steps(3 * length, length, batch, seed) for place in one]
    assert [place for place, _ in row] == list(range(len(row)))
    for start in range(0, len(row), length):
        part = row[start : start + length]
        assert sorted(index for _, index in part) == list(range(length)) or len(part) < length


@given(
    length=st.integers(1, 9),
    share=st.integers(1, 3),
    world=st.integers(1, 4),
    seed=st.integers(0, 9),
    first=st.integers(0, 9),
)
def test_processes_share_batches_in_order_and_start_anywhere(length, share, world, seed, first):
    whole = steps(first + 5, length, share * world, seed)[first:]
    parts = [steps(5, length, share * world, seed, first, rank, world) for rank in range(world)]
    assert [[place for rank in range(world) for place in parts[rank][step]] for step in range(5)] == whole
    assert all(len(batch) == share for part in parts for batch in part)


def test_passes_and_seeds_have_orders_of_their_own():
    orders = {tuple(index for _, index in batch) for seed in range(20) for batch in steps(5, 8, 8, seed)}
    assert len(orders) == 100
    again = steps(5, 8, 8, 3)
    assert again == steps(5, 8, 8, 3)
    # Every place of a pass is as likely for every image.
    firsts = torch.tensor([steps(1, 4, 1, seed)[0][0][1] for seed in range(400)])
    assert (firsts.bincount(minlength=4) - 100).abs().max() < 45  # 5 standard deviations


def test_iterating_again_starts_again():
    sampler = StepSampler(5, 2, 1, first_step=3)
    assert list(islice(sampler, 4)) == list(islice(sampler, 4)) == steps(7, 5, 2, 1)[3:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), "got length=0, expected at least 1"),
        ((3, 0), "got batch_size=0, expected at least 1"),
        ((3, 5, 0, 0, 0, 2), "got batch_size=5 for 2 processes, expected a multiple of them"),
    ],
)
def test_what_cannot_be_shared_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StepSampler(*arguments)


def test_seeds_are_mixed_of_all_numbers_in_order():
    seeds = [mixed_seed(a, b, c) for a in range(8) for b in range(8) for c in range(8)]
    seeds += [mixed_seed(a, b) for a in range(8) for b in range(8)]
    # Numpy's mixing takes (a, b) and (a, b, 0) for the same words.
    assert len(set(seeds)) == 512 and min(seeds) >= 0 and max(seeds) < 2**63
    torch.Generator().manual_seed(max(seeds))


def augmented(seed=0, prepare=None):
    augment = Compose(
        [RandomImageScale(0.5, 2.0), RandomImageCrop((9, 11)), RandomImageFlip(0.5), ColorJitter(0.2, 0.2)]
    )
    return AugmentedImages(Scenes(4), augment, prepare, seed)


def same(a, b):
    names = sorted(a.keys())
    return names == sorted(b.keys()) and all(torch.equal(a[n], b[n]) for n in names if torch.is_tensor(a[n]))


def test_draws_depend_on_seed_and_place_and_leave_torch_alone():
    images = augmented()
    torch.manual_seed(1)
    first = images[(7, 2)]
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert same(first, images[(7, 2)])
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())  # nothing was drawn from it
    assert not same(first, images[(8, 2)]) and not same(first, augmented(seed=1)[(7, 2)])
    assert not same(images[(7, 1)], first)
    assert len(images) == 4


def test_without_augmentation_images_are_as_they_are():
    images = AugmentedImages(Scenes(3))
    for item in (1, (5, 1)):
        assert same(images[item], Scenes(3)[1]) and images[item].source == "scene001"


def test_preparation_comes_before_and_draws_nothing():
    def brighter(data):
        data.image = data.image + 1
        return data

    plain, prepared = augmented()[(3, 0)], augmented(prepare=RandomImageFlip(1.0))[(3, 0)]
    assert plain.image.shape == prepared.image.shape  # the same draws for scale and crop
    images = AugmentedImages(Scenes(2), None, brighter)
    assert torch.equal(images[0].image, Scenes(2)[0].image + 1)
