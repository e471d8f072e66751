"""Batches: one range of images, one number for what counts nowhere, superpixels that follow, one size."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from skimage import data as photographs
from torch_geometric.data import Data

from graphseg.ops import multiscale_slic
from graphseg.training import CachedSuperpixels, TrainingData, image_in_unit_range, stack_images
from graphseg.training import data as module
from tests.training._small import Scenes, tiny

# Images


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_integers_fill_the_unit_range(dtype):
    top = torch.iinfo(dtype).max
    image = torch.tensor([0, 1, top // 3, top]).to(dtype).view(1, 2, 2)
    expected = image.numpy().astype(np.float64) / top
    out = image_in_unit_range(image)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-7)


def test_floating_point_values_stay_and_others_are_refused():
    image = torch.tensor([[[-1.0, 3.0]]], dtype=torch.float64)
    assert image_in_unit_range(image) is image
    with pytest.raises(TypeError, match=r"got dtype torch.int64 for image, expected uint8, uint16 or floating-point"):
        image_in_unit_range(torch.zeros(1, 2, 2, dtype=torch.int64))


# Batches


def items(count=2, **options):
    return [Scenes(count, **options)[i] for i in range(count)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_a_batch_is_its_images(dtype):
    found = items(dtype=dtype)
    batch = stack_images(found, 255)
    assert batch.keys() == {"image", "mask", "instances", "source"}
    assert batch["source"] == ["scene000", "scene001"]
    assert batch["mask"].dtype == batch["instances"].dtype == torch.int64
    for i, data in enumerate(found):
        assert torch.equal(batch["image"][i], image_in_unit_range(data.image))
        assert torch.equal(batch["mask"][i], data.mask) and torch.equal(batch["instances"][i], data.instances)


def expected_mask(mask, valid, ignore, class_map):
    """By pixel."""
    out = np.full(mask.shape, 255)
    for place, value in np.ndenumerate(mask):
        if value not in (ignore, 255) and valid[place]:
            out[place] = class_map[value] if class_map else value
    return out


@pytest.mark.parametrize("void", [255, 0, 2, None])
@pytest.mark.parametrize("class_map", [(), (1, 255, 0), (0, 0, 0)])
def test_what_counts_nowhere_is_255(void, class_map):
    found = items(void=void, valid=True)
    batch = stack_images(found, void, class_map)
    for i, data in enumerate(found):
        expected = expected_mask(data.mask.numpy(), data.valid.numpy(), void, class_map)
        assert np.array_equal(batch["mask"][i].numpy(), expected)
    assert (batch["mask"][..., -1] == 255).all()  # not valid


def test_padding_counts_nowhere_whatever_the_ignore_index():
    reader = Scenes(3, void=0)
    data = TrainingData(tiny(crop=(40, 40), scale=None), reader)
    batch = next(iter(data.train_dataloader()))
    assert batch["mask"].shape == (2, 40, 40)
    for mask, source in zip(batch["mask"], batch["source"], strict=True):
        own = reader[int(source.removeprefix("scene"))].mask
        assert [int((mask == k).sum()) for k in (0, 1, 2)] == [0, *(int((own == k).sum()) for k in (1, 2))]
        assert (mask == 255).sum() == 1600 - (own != 0).sum()


def test_images_without_maps_make_batches_of_images():
    batch = stack_images([Data(image=torch.rand(3, 4, 5)), Data(image=torch.rand(3, 4, 5))])
    assert batch.keys() == {"image", "source"} and batch["source"] == ["", ""]


def test_images_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"got images of shapes \[\(3, 24, 32\), \(3, 25, 33\)\].*give the recipe"):
        stack_images(items(growth=1))
    loader = TrainingData(tiny(crop=None, scale=None), Scenes(3, growth=1)).train_dataloader()
    with pytest.raises(ValueError, match="expected one shape"):
        next(iter(loader))
    for fits in ({"crop": (16, 16)}, {"crop": None, "scale": None, "resize": (20, 24)}):
        batch = next(iter(TrainingData(tiny(**fits), Scenes(3, growth=1)).train_dataloader()))
        assert batch["image"].shape[2:] == (fits["crop"] or fits["resize"])


# Cached superpixels


def cut(image, counts):
    return torch.cat(multiscale_slic(image.unsqueeze(0), counts))


def photograph(height=40, width=52):
    return torch.from_numpy(photographs.coffee()[200 : 200 + height, 200 : 200 + width].copy()).permute(2, 0, 1)


def test_cached_superpixels_are_those_that_are_cut(tmp_path, monkeypatch):
    image = photograph()
    make = CachedSuperpixels(tmp_path / "cache", (6, 20))
    first = make(Data(image=image)).superpixels
    assert first.shape == (2, 40, 52) and torch.equal(first.long(), cut(image, (6, 20)).long())
    monkeypatch.setattr(module, "multiscale_slic", None)  # not cut again
    assert torch.equal(CachedSuperpixels(tmp_path / "cache", [6, 20])(Data(image=image)).superpixels, first)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]


def test_caches_tell_images_sizes_dtypes_and_counts_apart(tmp_path):
    image = photograph()
    others = [image.flip(2), image.reshape(3, 52, 40), image.float() / 255, photograph(20, 52)]
    for x in (image, *others):
        found = CachedSuperpixels(tmp_path, (6,))(Data(image=x)).superpixels
        assert torch.equal(found.long(), cut(x.contiguous(), (6,)).long())
    CachedSuperpixels(tmp_path, (6, 9))(Data(image=image))
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("left", [0, 10, 0.5, -1])
def test_a_file_that_is_cut_off_is_made_anew(tmp_path, left):
    image = photograph()
    make = CachedSuperpixels(tmp_path, (6, 20))
    expected = make(Data(image=image)).superpixels
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    keep = int(left * len(whole)) if isinstance(left, float) else left
    path.write_bytes(whole[:keep])
    assert torch.equal(make(Data(image=image)).superpixels, expected)
    assert path.read_bytes() == whole


def test_a_cache_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def stop(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        CachedSuperpixels(tmp_path, (6,))(Data(image=photograph()))
    assert not list(tmp_path.glob("*.npy"))


# What a recipe makes of a reader


def test_superpixels_are_augmented_with_their_image(tmp_path):
    recipe = tiny(superpixels="cached", crop=(40, 40), scale=(1.0, 1.0), flip=1.0)
    reader = Scenes(3)
    data = TrainingData(recipe, reader, cache=tmp_path, num_superpixels=(3, 6))
    batch = next(iter(data.train_dataloader()))
    assert batch["superpixels"].shape == (2, 2, 40, 40)
    for i, source in enumerate(batch["source"]):
        image = reader[int(source.removeprefix("scene"))].image
        expected = cut(image, (3, 6)).flip(2)
        rows, columns = (batch["image"][i].sum(0) > 0).nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        inside = batch["superpixels"][i][:, top : top + 24, left : left + 32]
        assert torch.equal(inside.long(), expected.long())
        for scale in range(2):  # the padding is one more
            outside = batch["superpixels"][i, scale].clone()
            outside[top : top + 24, left : left + 32] = expected[scale].max() + 1
            assert (outside == expected[scale].max() + 1).all()


def test_the_cache_is_of_the_resized_image(tmp_path):
    recipe = tiny(superpixels="cached", resize=(12, 16), crop=None, scale=None, flip=0.0)
    data = TrainingData(recipe, Scenes(1), cache=tmp_path, num_superpixels=(4,))
    one = data.images[0]
    assert one.image.shape == (3, 12, 16) and torch.equal(one.superpixels.long(), cut(one.image, (4,)).long())


def test_a_cache_needs_a_folder_and_a_network_that_wants_it(tmp_path):
    recipe = tiny(superpixels="cached")
    with pytest.raises(ValueError, match="got superpixels='cached' without cache, expected a folder"):
        TrainingData(recipe, Scenes(2), num_superpixels=(3,))
    assert "superpixels" not in TrainingData(recipe, Scenes(2), cache=tmp_path).images[0]
    assert not list(tmp_path.iterdir())


def test_images_to_judge_by_come_once_in_order_as_they_are():
    data = TrainingData(tiny(resize=(12, 16)), Scenes(2), Scenes(5, growth=2))
    batches = list(data.val_dataloader())
    assert [batch["source"] for batch in batches] == [[f"scene{i:03d}"] for i in range(5)]
    assert all(batch["image"].shape == (1, 3, 12, 16) for batch in batches)
    plain = list(TrainingData(tiny(), Scenes(2), Scenes(2, growth=2)).val_dataloader())
    assert [tuple(batch["mask"].shape[1:]) for batch in plain] == [(24, 32), (26, 34)]
    assert not TrainingData(tiny(), Scenes(2)).val_dataloader()


def test_workers_load_what_one_process_loads():
    """A fresh process: that it can be sent everything, and draws the same."""

    def batches(num_workers):
        data = TrainingData(tiny(jitter=0.2), Scenes(3), seed=5, num_workers=num_workers)
        return list(islice(data.train_dataloader(), 3))

    for one, other in zip(batches(0), batches(1), strict=True):
        assert one["source"] == other["source"]
        assert all(torch.equal(one[name], other[name]) for name in ("image", "mask", "instances"))
