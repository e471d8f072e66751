"""Augmentations: image and maps stay aligned, draws are reproducible, every kind of image works."""

from __future__ import annotations

import colorsys
import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs
from skimage.transform import resize
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from graphseg.transforms import ToSuperpixelRAG
from graphseg.transforms.augment import (
    ColorJitter,
    RandomImageCrop,
    RandomImageFlip,
    RandomImageScale,
    RandomQuarterTurn,
    ResizeImage,
)

DTYPES = (torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64)


def derive_mask(image):
    """A label map that depends on the image pixel by pixel."""
    return image.to(torch.int64).sum(0) % 200


def derive_annotations(mask):
    """Three segmentations that depend on the mask, with pixels of no region; the last is all of them."""
    return torch.stack([mask % 7 - 1, mask + 300, mask * 0 - 1]).to(torch.int32)


def sample(height=7, width=9, channels=3, dtype=torch.uint8, seed=0):
    """An image of random whole numbers with maps that are computed from it."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (channels, height, width), generator=generator)
    mask = derive_mask(image)
    return Data(
        image=image.to(dtype),
        mask=mask,
        valid=mask % 5 != 0,
        segments=torch.unique(mask, return_inverse=True)[1].to(torch.int32),
        instances=(mask % 3).to(torch.uint16),
        boundary=mask.float() / 200,
        annotations=derive_annotations(mask),
    )


def photograph():
    image = torch.from_numpy(photographs.chelsea()).permute(2, 0, 1)
    return Data(image=image, mask=derive_mask(image), source="chelsea")


def transforms(seed=None):
    return [
        RandomImageFlip(0.5, 0.5, seed=seed),
        RandomQuarterTurn(seed=seed),
        RandomImageScale(0.5, 2.0, seed=seed),
        RandomImageCrop(5, seed=seed),
        ColorJitter(0.3, 0.3, 0.3, 0.1, seed=seed),
    ]


NAMES = [type(t).__name__ for t in transforms()]
moving = pytest.mark.parametrize("name", ["RandomImageFlip", "RandomQuarterTurn", "RandomImageCrop"])


def by_name(name, seed=None):
    return transforms(seed)[NAMES.index(name)]


# Aligned


@moving
@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_follow_the_image(name, dtype):
    transform = by_name(name, seed=1)
    before = sample(dtype=dtype)
    for _ in range(8):
        after = transform(before)
        assert after.image.dtype == dtype and after.image.is_contiguous()
        mask = derive_mask(after.image)
        assert torch.equal(after.mask, mask)
        assert torch.equal(after.valid, mask % 5 != 0)
        assert torch.equal(after.instances.long(), mask % 3) and after.instances.dtype == torch.uint16
        assert torch.equal(after.boundary, mask.float() / 200)
        assert torch.equal(after.annotations, derive_annotations(mask)) and after.annotations.dtype == torch.int32
        assert after.segments.dtype == torch.int32
        # The same partition, numbered from 0 without gaps, in the old order.
        assert torch.equal(after.segments.long(), torch.unique(mask, return_inverse=True)[1])


@moving
def test_maps_follow_a_photograph(name):
    transform = RandomImageCrop((200, 250), seed=3) if name == "RandomImageCrop" else by_name(name, seed=3)
    before = photograph()
    for _ in range(4):
        after = transform(before)
        assert torch.equal(after.mask, derive_mask(after.image)) and after.source == "chelsea"


@pytest.mark.parametrize(
    "transform",
    [
        *[RandomImageFlip(h, v) for h, v in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]],
        RandomQuarterTurn(),
        *[RandomImageScale(factor, factor) for factor in (0.4, 0.75, 1.6)],
        RandomImageCrop((4, 5), ignore_index=-1),
        RandomImageCrop((20, 23), ignore_index=-1),
        RandomImageCrop((3, 23), ignore_index=-1),
        ColorJitter(0.3, 0.3, 0.3, 0.1),
    ],
    ids=repr,
)
def test_annotations_go_where_each_would_go_as_a_mask(transform):
    generator = torch.Generator().manual_seed(1)
    before = Data(
        image=torch.rand(3, 11, 14, generator=generator),
        annotations=torch.randint(-1, 5, (4, 11, 14), generator=generator),
    )
    for _ in range(4):
        draws = torch.rand(transform.num_draws, dtype=torch.float64, generator=generator).tolist()
        after = transform.apply(copy.copy(before), draws)
        alone = [transform.apply(Data(image=before.image, mask=m), draws).mask for m in before.annotations]
        assert torch.equal(after.annotations, torch.stack(alone))
        assert after.annotations.dtype == torch.int64 and after.annotations.is_contiguous()


def test_annotations_are_the_regions_that_segments_are():
    image = torch.from_numpy(photographs.chelsea()[:60, :80]).permute(2, 0, 1)
    regions = (image[0] // 40 * 10).long()
    for transform in (RandomImageFlip(1.0), RandomQuarterTurn(seed=2), RandomImageCrop((30, 20), seed=2)):
        after = transform(Data(image=image, segments=regions, annotations=regions[None]))
        ids, numbered = torch.unique(after.annotations[0], return_inverse=True)
        assert set(ids.tolist()) <= set(regions.unique().tolist())  # these keep their ids
        assert torch.equal(numbered, torch.unique(after.segments, return_inverse=True)[1])


# Superpixels of several scales


@pytest.mark.parametrize(
    "transform",
    [
        *[RandomImageFlip(h, v) for h, v in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]],
        RandomQuarterTurn(),
        *[RandomImageScale(factor, factor) for factor in (0.4, 0.75, 1.6)],
        ResizeImage((5, 20)),
        RandomImageCrop((4, 5)),
        ColorJitter(0.3, 0.3, 0.3, 0.1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_superpixels_go_where_each_scale_would_go_as_a_mask_and_keep_their_ids(transform, dtype):
    generator = torch.Generator().manual_seed(1)
    scales = torch.randint(0, 9, (3, 11, 14), generator=generator).to(dtype)
    before = Data(image=torch.rand(3, 11, 14, generator=generator), superpixels=scales)
    for _ in range(4):
        draws = torch.rand(transform.num_draws, dtype=torch.float64, generator=generator).tolist()
        after = transform.apply(copy.copy(before), draws)
        alone = [transform.apply(Data(image=before.image, mask=m), draws).mask for m in scales]
        assert torch.equal(after.superpixels, torch.stack(alone)) and after.superpixels.dtype == dtype
        assert after.superpixels.is_contiguous() and torch.equal(before.superpixels, scales)


@pytest.mark.parametrize("size", [(20, 23), (3, 23), (20, 5)])
def test_padding_is_one_more_superpixel_at_every_scale(size):
    scales = torch.stack([torch.arange(77).view(7, 11) // 30, torch.arange(77).view(7, 11)]).int()
    before = Data(image=torch.ones(1, 7, 11), superpixels=scales)
    for seed in range(5):
        after = RandomImageCrop(size, seed=seed)(before)
        inside = after.image[0] > 0
        for old, new in zip(scales, after.superpixels, strict=True):
            kept = new[inside]
            assert new.shape == size and set(kept.tolist()) <= set(old.flatten().tolist())
            assert (new[~inside] == kept.max() + 1).all()


@pytest.mark.parametrize(
    ("superpixels", "error", "message"),
    [
        (torch.zeros(4, 5).long(), ValueError, r"got shape \[4, 5\] for superpixels, expected \[\*, 4, 5\]"),
        (torch.zeros(2, 5, 4).long(), ValueError, r"got shape \[2, 5, 4\] for superpixels"),
        (torch.zeros(2, 4, 5), TypeError, "got dtype torch.float32 for superpixels"),
        ([[0]], TypeError, "got list for superpixels"),
    ],
)
def test_other_superpixels_are_refused(superpixels, error, message):
    for transform in [*transforms(), ResizeImage((3, 3))]:
        with pytest.raises(error, match=message):
            transform(Data(image=torch.zeros(3, 4, 5), superpixels=superpixels))


# One size


@pytest.mark.parametrize("size", [(7, 9), (14, 18), (3, 20), (1, 1), (40, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_resized_is_scaled_to_that_size(size, dtype):
    before = sample(dtype=dtype)
    kept = before.clone()
    after = ResizeImage(size)(before)
    assert_same(before, kept)
    for key in ("mask", "valid", "segments", "instances", "boundary"):
        assert after[key].shape == size and after[key].dtype == before[key].dtype
    assert after.image.shape == (3, *size) and after.annotations.shape == (3, *size) and after.image.dtype == dtype
    if size == (7, 9):
        assert_same(after, before)
    if size == (14, 18):
        assert_same(after, RandomImageScale(2.0, 2.0)(before))
    # Labels come from the pixel under the centre of the new one.
    y, x = ((torch.arange(new) + 0.5) * old / new for new, old in zip(size, before.mask.shape, strict=True))
    assert torch.equal(after.mask, before.mask[y.floor().long()][:, x.floor().long()])


def test_resizing_draws_nothing_and_refuses_other_sizes():
    state = torch.random.get_rng_state()
    data = Data(image=torch.rand(3, 4, 6), geo=GEO)
    state = torch.random.get_rng_state()
    assert ResizeImage((2, 3))(data).geo == "" and ResizeImage((4, 6))(data).geo == GEO
    assert torch.equal(state, torch.random.get_rng_state())
    assert repr(ResizeImage((2, 3))) == "ResizeImage(seed=None, size=(2, 3))"
    for size, message in (((0, 3), "got height=0"), ((3, -1), "got width=-1")):
        with pytest.raises(ValueError, match=message):
            ResizeImage(size)


GEO = '{"transform": [10.0, 0.0, 300.0, 0.0, -10.0, 700.0]}'


@pytest.mark.parametrize(
    ("transform", "kept"),
    [
        (RandomImageFlip(0.0, 0.0), True),
        (RandomImageFlip(1.0, 0.0), False),
        (RandomImageFlip(0.0, 1.0), False),
        (RandomImageScale(1.0, 1.0), True),
        (RandomImageScale(2.0, 2.0, p=0.0), True),
        (RandomImageScale(0.5, 0.5), False),
        (RandomImageCrop((6, 8)), True),
        (RandomImageCrop((6, 7)), False),
        (RandomImageCrop((7, 8)), False),
        (ColorJitter(0.5, 0.5, 0.5, 0.5), True),
    ],
    ids=repr,
)
def test_a_georeference_lasts_until_pixels_move(transform, kept):
    before = Data(image=torch.rand(3, 6, 8), geo=GEO)
    assert transform(before).geo == (GEO if kept else "") and before.geo == GEO
    assert "geo" not in transform(Data(image=before.image))  # none is made up
    assert transform(Data(image=before.image, geo="")).geo == ""


@pytest.mark.parametrize("turns", range(4))
def test_a_georeference_lasts_until_the_image_turns(turns):
    data = RandomQuarterTurn().apply(Data(image=torch.rand(3, 6, 6), geo=GEO), [turns / 4])
    assert data.geo == ("" if turns else GEO)


def test_flips_are_numpys_and_undo_themselves():
    before = sample()
    for transform, axis in [(RandomImageFlip(1.0), 2), (RandomImageFlip(0.0, 1.0), 1)]:
        once = transform(before)
        assert np.array_equal(once.image.numpy(), np.flip(before.image.numpy(), axis))
        assert_same(transform(once), before)


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_are_numpys_and_four_are_none(turns):
    before, transform = sample(), RandomQuarterTurn()
    once = transform.apply(copy.copy(before), [turns / 4])
    assert np.array_equal(once.image.numpy(), np.rot90(before.image.numpy(), turns, (1, 2)))
    assert np.array_equal(once.mask.numpy(), np.rot90(before.mask.numpy(), turns))
    data = before
    for _ in range(4):
        data = transform.apply(copy.copy(data), [turns / 4])
    assert_same(data, before)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in sorted(a.keys()):
        assert torch.equal(a[key], b[key]) if torch.is_tensor(a[key]) else a[key] == b[key], key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_input_is_never_changed(name, dtype):
    before = sample(dtype=dtype)
    kept = before.clone()
    transform = by_name(name, seed=0)
    for _ in range(6):
        after = transform(before)
        assert after is not before and after.image.dtype == dtype
        assert_same(before, kept)


# Scale


@pytest.mark.parametrize("factor", [0.37, 0.5, 1.0, 1.6, 3.0])
def test_scale_of_a_photograph(factor):
    before = photograph()
    after = RandomImageScale(factor, factor)(before)
    size = tuple(max(1, round(s * factor)) for s in before.image.shape[1:])
    assert after.image.shape == (3, *size) and after.image.dtype == torch.uint8 and after.mask.shape == size
    # The same filter in scikit-image, but for its borders and its Gaussian antialiasing.
    expected = resize(photographs.chelsea(), size, order=1, anti_aliasing=factor < 1, preserve_range=True)
    difference = np.abs(after.image.permute(1, 2, 0).numpy() - expected)[8:-8, 8:-8]
    assert difference.mean() < (3 if factor < 1 else 0.6)
    # Every label comes from the pixel under the centre of the new one.
    y, x = ((torch.arange(new) + 0.5) * old / new for new, old in zip(size, before.mask.shape, strict=True))
    assert torch.equal(after.mask, before.mask[y.floor().long()][:, x.floor().long()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_images_stay_constant(dtype):
    image = torch.full((2, 6, 5), 200.0).to(dtype)
    for factor in (0.4, 1.7):
        after = RandomImageScale(factor, factor)(Data(image=image))
        assert_close(after.image, torch.full(after.image.shape, 200.0).to(dtype), rtol=1e-6, atol=0)


def test_scale_averages_valid_pixels_only():
    valid = torch.ones(8, 8, dtype=torch.bool)
    valid[:, 5:] = False
    image = torch.full((1, 8, 8), 3.0).masked_fill(~valid, float("nan"))
    for factor in (0.5, 0.8, 2.5):
        after = RandomImageScale(factor, factor)(Data(image=image, valid=valid, boundary=image[0]))
        expected = torch.where(after.valid, 3.0, 0.0)
        assert after.valid.any() and not after.valid.all()
        assert_close(after.image[0], expected)
        assert_close(after.boundary, expected)


def test_segments_are_numbered_again_when_some_vanish():
    segments = torch.arange(64).view(8, 8)
    after = RandomImageScale(0.5, 0.5)(Data(image=torch.zeros(1, 8, 8), segments=segments))
    assert torch.equal(after.segments, torch.arange(16).view(4, 4))


# Crop


def test_crop_reaches_every_place():
    image = torch.arange(12).view(1, 3, 4).float()
    transform = RandomImageCrop((2, 3), seed=0)
    corners = {int(transform(Data(image=image)).image[0, 0, 0]) for _ in range(60)}
    assert corners == {0, 1, 4, 5}


def test_crop_pads_smaller_images():
    before = sample(3, 4)
    del before.segments
    transform = RandomImageCrop((6, 4), pad_value=9, ignore_index=250, seed=0)
    for _ in range(5):
        after = transform(before)
        top = int((after.mask != 250).any(1).int().argmax())
        inside = torch.zeros(6, 4, dtype=torch.bool)
        inside[top : top + 3] = True
        for key, padding in [
            ("image", 9),
            ("mask", 250),
            ("instances", 0),
            ("valid", False),
            ("boundary", 0),
            ("annotations", -1),
        ]:
            assert (after[key][..., ~inside] == padding).all()
            assert torch.equal(after[key][..., inside].flatten(), before[key].flatten())


def test_crop_of_one_side_and_padding_of_the_other():
    after = RandomImageCrop((2, 6), seed=0)(Data(image=torch.ones(1, 5, 3)))
    assert after.image.shape == (1, 2, 6) and after.image.sum() == 6


def test_crop_refuses_what_cannot_be_padded():
    with pytest.raises(ValueError, match="got segments of 7 x 9, expected at least the crop's 8 x 8"):
        RandomImageCrop(8)(sample())
    small = Data(image=torch.zeros(1, 2, 2, dtype=torch.uint8), mask=torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got padding -1 for mask"):
        RandomImageCrop(3, ignore_index=-1)(small)
    annotated = Data(image=torch.zeros(1, 2, 2), annotations=torch.zeros(1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got padding -1 for annotations, expected a whole number from 0"):
        RandomImageCrop(3)(annotated)
    with pytest.raises(ValueError, match=r"got padding 0\.5 for image"):
        RandomImageCrop(3, pad_value=0.5)(small)


# Colours


def test_hue_is_the_hsv_hue():
    image = torch.rand(3, 6, 7, dtype=torch.float64)
    image[:, 0, 0], image[:, 0, 1] = 0.4, torch.tensor([1.0, 0.0, 0.0])  # grey, red
    for turns in (-0.5, -0.2, 0.1, 1 / 3, 0.5):
        out = ColorJitter(hue=(turns, turns))(Data(image=image)).image
        for y in range(6):
            for x in range(7):
                h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
                assert_close(out[:, y, x].tolist(), list(colorsys.hsv_to_rgb((h + turns) % 1, s, v)))


@pytest.mark.parametrize("channels", [1, 3, 4, 200])
def test_brightness_and_contrast(channels):
    image = torch.randn(channels, 5, 6, dtype=torch.float64)
    assert_close(ColorJitter(brightness=(1.5, 1.5))(Data(image=image)).image, 1.5 * image)
    out = ColorJitter(contrast=(0.5, 0.5))(Data(image=image)).image
    assert_close(out.mean((1, 2)), image.mean((1, 2)))
    assert_close(out.std((1, 2)), 0.5 * image.std((1, 2)))
    valid = torch.rand(5, 6) < 0.5
    spoilt = image.masked_fill(~valid, float("nan"))
    out = ColorJitter(contrast=(0.5, 0.5))(Data(image=spoilt, valid=valid)).image[:, valid]
    assert_close(out, (image[:, valid] + image[:, valid].mean(1, keepdim=True)) / 2)


def test_saturation():
    image = torch.rand(3, 5, 6)
    grey = ColorJitter(saturation=(0.0, 0.0))(Data(image=image)).image
    luma = torch.tensor([0.299, 0.587, 0.114]) @ image.flatten(1)
    assert_close(grey.flatten(1), luma.expand(3, -1))
    more = ColorJitter(saturation=(2.0, 2.0))(Data(image=image)).image
    assert_close((more + grey) / 2, image)


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integer_images_are_rounded_and_clamped(dtype, top):
    image = torch.tensor([0, 1, 3, top // 2, top]).to(dtype).view(1, 1, 5)
    out = ColorJitter(brightness=(1.5, 1.5))(Data(image=image)).image
    assert out.dtype == dtype
    assert out.long().tolist() == [[[0, 2, 4, round(top // 2 * 1.5), top]]]  # half to even


def test_no_jitter_is_identity():
    before = sample()
    assert_same(ColorJitter()(before), before)
    assert_same(ColorJitter(0.5, 0.5, 0.5, 0.5, p=0.0)(before), before)


def test_jitter_leaves_maps_alone_and_stays_in_its_ranges():
    before = photograph()
    transform = ColorJitter(brightness=0.2, seed=0)
    ratios = []
    for _ in range(20):
        after = transform(before)
        assert torch.equal(after.mask, before.mask)
        ratios.append(float(after.image.float().sum() / before.image.float().sum()))
    assert 0.79 < min(ratios) < 0.9 and 1.1 < max(ratios) < 1.21


# Draws


def draws(transform, calls=6):
    image = torch.arange(60.0).view(3, 4, 5)
    return [transform(Data(image=image)).image for _ in range(calls)]


def same(a, b):
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name):
    # Twelve calls: two streams of quarter turns agree by chance in 4 ** -12 of all cases.
    first = draws(by_name(name, seed=5), 12)
    state = torch.random.get_rng_state()
    assert same(first, draws(by_name(name, seed=5), 12))
    assert torch.equal(state, torch.random.get_rng_state())  # the global stream is not touched
    assert not same(first, draws(by_name(name, seed=6), 12))
    torch.manual_seed(0)
    unseeded = draws(by_name(name), 12)
    torch.manual_seed(0)
    assert same(unseeded, draws(by_name(name), 12))
    transform = by_name(name, seed=5)
    draws(transform, 2)
    for copied in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert same(first, draws(copied, 12))
    assert repr(transform).startswith(f"{name}(") and "_generator" not in repr(transform)


def test_one_seed_gives_different_classes_different_draws():
    streams = [torch.rand(4, generator=t._stream()).tolist() for t in transforms(seed=0)]
    assert len({tuple(s) for s in streams}) == len(streams)


@pytest.mark.parametrize(
    ("transform", "frequency", "changed"),
    [
        (RandomImageFlip(0.25, seed=0), 0.25, lambda before, after: not torch.equal(before, after)),
        (RandomQuarterTurn(seed=0), 0.75, lambda before, after: not torch.equal(before, after)),
        (RandomImageScale(2, 2, p=0.6, seed=0), 0.6, lambda before, after: before.shape != after.shape),
    ],
)
def test_probabilities(transform, frequency, changed):
    image = torch.rand(1, 4, 4)
    hits = sum(changed(image, transform(Data(image=image)).image) for _ in range(600))
    assert abs(hits / 600 - frequency) < 0.08  # 4 standard deviations


class Photographs(Dataset):
    """Sixteen times the same numbers, so that only the draws differ."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 16

    def __getitem__(self, index):
        out = self.transform(Data(image=torch.arange(64 * 64).view(1, 64, 64).float()))
        return index, out.image.flatten()[0].item()


def epochs(seed, count, **kwargs):
    torch.manual_seed(7)
    loader = DataLoader(Photographs(RandomImageCrop(8, seed=seed)), batch_size=4, num_workers=2, **kwargs)
    return [[value for _, values in loader for value in values.tolist()] for _ in range(count)]


@pytest.mark.parametrize("seed", [None, 3])
def test_loader_workers(seed):
    if sys.platform != "linux":
        pytest.skip("starts workers by fork")
    first, second = epochs(seed, 2)
    assert epochs(seed, 2) == [first, second]  # reproducible
    assert first != second  # another epoch, other draws
    assert len(set(first)) >= 14  # batches go to the workers in turn: these do not repeat each other
    if seed is not None:
        assert epochs(seed + 1, 1) != [first]


def test_persistent_workers_go_on():
    first, second = epochs(3, 2, persistent_workers=True)
    assert first != second


# Kinds of input


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_any_image(height, width, channels, dtype, seed):
    before = sample(height, width, channels, dtype, seed)
    jitter = ColorJitter(0.2, 0.2, seed=seed)
    crop = RandomImageCrop((min(height, 3), min(width, 3)), seed=seed)
    every = [*transforms(seed)[:3], RandomImageCrop(1, seed=seed), jitter]
    for transform in [*every, crop, Compose(every)]:
        after = transform(before)
        assert after.image.dtype == dtype and after.image.size(0) == channels
        size = after.image.shape[1:]
        for key in ("mask", "valid", "segments", "instances", "boundary"):
            assert after[key].shape == size and after[key].dtype == before[key].dtype
        assert after.annotations.shape == (3, *size) and after.annotations.dtype == torch.int32
        ids = after.segments.unique()
        assert torch.equal(ids, torch.arange(len(ids), dtype=torch.int32))


def test_image_alone_and_gradients():
    image = torch.rand(3, 6, 6, dtype=torch.float64, requires_grad=True)
    for transform in transforms(seed=0):
        out = transform(Data(image=image)).image
        assert set(transform(Data(image=image)).keys()) == {"image"}
        assert torch.isfinite(torch.autograd.grad(out.sum(), image)[0]).all()


def test_names_are_not_pygs():
    import torch_geometric.transforms

    assert not set(NAMES) & set(torch_geometric.transforms.__all__)
    for transform in transforms():
        assert not hasattr(Data, type(transform).__name__)


def good(**changes):
    return Data(**{"image": torch.zeros(3, 4, 5), "mask": torch.zeros(4, 5, dtype=torch.int64), **changes})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Data(x=torch.zeros(2)), ValueError, r"got Data with \['x'\], expected a field image"),
        (good(image=[[0.0]]), TypeError, "got list for image"),
        (good(image=torch.zeros(4, 5)), ValueError, r"got shape \[4, 5\] for image, expected \[C, H, W\]"),
        (good(image=torch.zeros(3, 0, 5)), ValueError, r"got shape \[3, 0, 5\] for image"),
        (good(image=torch.zeros(3, 4, 5).bool()), TypeError, "got dtype torch.bool for image"),
        (good(mask=torch.zeros(5, 4).long()), ValueError, r"got shape \[5, 4\] for mask, expected \[4, 5\]"),
        (good(mask=torch.zeros(4, 5)), TypeError, "got dtype torch.float32 for mask"),
        (good(segments=torch.zeros(4).long()), ValueError, r"got shape \[4\] for segments"),
        (good(instances=torch.zeros(4, 5)), TypeError, "got dtype torch.float32 for instances"),
        (good(valid=torch.zeros(4, 5)), TypeError, "got dtype torch.float32 for valid"),
        (good(annotations=torch.zeros(4, 5).long()), ValueError, r"\[4, 5\] for annotations, expected \[\*, 4, 5\]"),
        (good(annotations=torch.zeros(2, 5, 4).long()), ValueError, r"got shape \[2, 5, 4\] for annotations"),
        (good(annotations=torch.zeros(2, 4, 5)), TypeError, "got dtype torch.float32 for annotations"),
    ],
)
def test_bad_data_is_refused_by_name(name, data, error, message):
    with pytest.raises(error, match=message):
        by_name(name)(data)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomImageFlip(1.5), ValueError, "got horizontal=1.5, expected a probability"),
        (lambda: RandomImageFlip(0.5, -0.1), ValueError, "got vertical=-0.1"),
        (lambda: RandomImageScale(0, 1), ValueError, "got low=0, high=1, expected 0 < low <= high"),
        (lambda: RandomImageScale(2, 1), ValueError, "got low=2, high=1"),
        (lambda: RandomImageScale(1, 2, p=2), ValueError, "got p=2"),
        (lambda: RandomImageCrop(0), ValueError, "got height=0, expected at least 1"),
        (lambda: RandomImageCrop((3, -1)), ValueError, "got width=-1"),
        (lambda: RandomQuarterTurn(seed=-1), ValueError, "got seed=-1, expected at least 0"),
        (lambda: ColorJitter(brightness=-1), ValueError, "got brightness=-1"),
        (lambda: ColorJitter(contrast=(2, 1)), ValueError, r"got contrast=\(2, 1\), expected low <= high"),
        (lambda: ColorJitter(hue=0.6), ValueError, r"within \[-0.5, 0.5\]"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_jitter_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="got 4 channels in image, expected 3 for saturation and hue"):
        ColorJitter(hue=0.1)(Data(image=torch.zeros(4, 2, 2)))
    with pytest.raises(TypeError, match=r"got dtype torch\.int64 for image"):
        ColorJitter(0.1)(Data(image=torch.zeros(3, 2, 2).long()))


def test_bool_masks_go_through_to_the_graph():
    image = torch.from_numpy(photographs.coffee()).permute(2, 0, 1)[:, :60, :80]
    data = Data(image=image, mask=image[0] > 128)
    flipped = RandomImageFlip(horizontal=1.0)(data)
    assert data.mask.dtype == torch.bool  # the input is as it was
    assert torch.equal(flipped.mask.bool(), flipped.image[0] > 128)
    padded = RandomImageCrop(90, ignore_index=255, seed=0)(data)
    graph = ToSuperpixelRAG(10, num_classes=2, ignore_index=255)(padded)
    assert graph.label_counts.sum() == data.mask.numel() and graph.label_counts[:, 1].sum() == data.mask.sum()
