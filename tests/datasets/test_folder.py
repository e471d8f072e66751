"""ImageFolder and what all readers share: pairs by name, what is left over, parts, copies, and loading on the fly."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data as photographs
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from graphseg.datasets.folder import ImageFolder, find_labels
from graphseg.datasets.reader import BadFile, ImageReader, Sample
from graphseg.transforms import RandomImageFlip, ToSuperpixelRAG

ASTRONAUT = photographs.astronaut()
NAMES = ("a", "b", "deep/a", "deep/er/c.d")


def picture(k=0, size=(30, 40)):
    """A part of a photograph, another for every k."""
    return ASTRONAUT[20 * k : 20 * k + size[0], 30 * k : 30 * k + size[1]]


def brightness(k=0, size=(30, 40)):
    """A mask of two classes that fits picture k."""
    return (picture(k, size).mean(2) > 128).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.fixture
def tree(tmp_path):
    """Four images in nested folders, with masks and instances."""
    for k, name in enumerate(NAMES):
        save(tmp_path / "images" / f"{name}.png", picture(k))
        save(tmp_path / "masks" / f"{name}.png", brightness(k))
        save(tmp_path / "instances" / f"{name}.png", brightness(k) * np.uint16(300))
    return tmp_path


# Pairs


def test_files_pair_by_their_path(tree):
    reader = ImageFolder(tree / "images", tree / "masks", tree / "instances")
    assert reader.bad_files == [] and [s.source for s in reader.samples] == list(NAMES)
    for k, data in enumerate(reader):
        assert set(data.keys()) == {"image", "mask", "instances", "source"} and data.source == NAMES[k]
        assert data.image.dtype == torch.uint8 and np.array_equal(data.image.permute(1, 2, 0), picture(k))
        assert data.mask.dtype == data.instances.dtype == torch.int64
        assert np.array_equal(data.mask, brightness(k)) and np.array_equal(data.instances, brightness(k) * 300.0)


def test_masks_and_instances_are_optional(tree):
    assert set(ImageFolder(tree / "images")[0].keys()) == {"image", "source"}
    assert set(ImageFolder(str(tree / "images"), str(tree / "masks"))[0].keys()) == {"image", "mask", "source"}
    found = ImageFolder(tree / "images", instances=tree / "instances")
    assert set(found[0].keys()) == {"image", "instances", "source"} and not found.bad_files


def test_formats_pair_with_each_other(tmp_path):
    for k, suffix in enumerate((".PNG", ".jpg", ".tif", ".bmp", ".npy")):
        save(tmp_path / "images" / f"{k}{suffix.lower()}", picture(k)).rename(tmp_path / "images" / f"{k}{suffix}")
        save(tmp_path / "masks" / (f"{k}.npy" if k % 2 else f"{k}.png"), brightness(k))
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "folder.png").mkdir()
    reader = ImageFolder(tmp_path / "images", tmp_path / "masks")
    assert [s.source for s in reader.samples] == list("01234") and not reader.bad_files
    for k, data in enumerate(reader):
        assert data.image.shape == (3, 30, 40) and np.array_equal(data.mask, brightness(k))
        if k != 1:  # JPEG
            assert np.array_equal(data.image.permute(1, 2, 0), picture(k))


def test_suffixes_of_names(tree):
    for k, name in enumerate(NAMES):
        save(tree / "labels" / f"{name}_mask.png", brightness(k))
        save(tree / "labels" / f"{name}_inst.png", brightness(k) + 1)
        save(tree / "labels" / f"{name}_other.png", brightness(k))
    save(tree / "labels" / "_mask.png", brightness())  # a suffix of nothing
    reader = ImageFolder(
        tree / "images", tree / "labels", tree / "labels", mask_suffix="_mask", instance_suffix="_inst"
    )
    assert len(reader) == 4 and reader.bad_files == []
    for k, data in enumerate(reader):
        assert np.array_equal(data.mask, brightness(k)) and np.array_equal(data.instances, brightness(k) + 1)


def test_hidden_files_are_passed_over(tree):
    for name in (".hidden", ".thumbnails/a", "deep/._a", ".git/objects/b"):
        save(tree / "images" / f"{name}.png", picture())
        save(tree / "masks" / f"{name}.png", brightness())
    reader = ImageFolder(tree / "images", tree / "masks")
    assert [s.source for s in reader.samples] == list(NAMES) and not reader.bad_files


def test_hidden_folders_above_do_not_hide(tmp_path):
    save(tmp_path / ".cache" / "images" / "a.png", picture())
    assert len(ImageFolder(tmp_path / ".cache" / "images")) == 1


def test_what_has_no_partner_is_a_bad_file(tree):
    (tree / "masks" / "b.png").unlink()
    (tree / "instances" / "a.png").unlink()
    save(tree / "masks" / "extra.png", brightness())
    reader = ImageFolder(tree / "images", tree / "masks", tree / "instances")
    assert [s.source for s in reader.samples] == list(NAMES[2:])
    assert {bad.file: bad.reason for bad in reader.bad_files} == {
        str(tree / "images" / "a.png"): "got an image without its instances, expected one named a",
        str(tree / "images" / "b.png"): "got an image without its mask, expected one named b",
        str(tree / "masks" / "extra.png"): "got mask without an image, expected one named extra",
    }


def test_names_that_occur_twice_are_bad_files(tree):
    save(tree / "images" / "a.bmp", picture())
    save(tree / "masks" / "deep" / "a.npy", brightness())
    reader = ImageFolder(tree / "images", tree / "masks")
    assert [s.source for s in reader.samples] == list(NAMES)  # one file of each name is read
    assert reader.samples[0].files["image"].name == "a.bmp" and reader.samples[2].files["mask"].name == "a.npy"
    assert {bad.file: bad.reason for bad in reader.bad_files} == {
        str(tree / "images" / "a.png"): "got a.png beside a.bmp, expected one file of a name",
        str(tree / "masks" / "deep" / "a.png"): "got a.png beside a.npy, expected one file of a name",
    }


def test_one_image(tree):
    reader = ImageFolder(tree / "images" / "a.png", tree / "masks" / "a.png")
    assert [s.source for s in reader.samples] == ["a"] and not reader.bad_files
    assert np.array_equal(reader[0].mask, brightness())


# What is read


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_channels(tmp_path, channels):
    grey = photographs.coins()[30:60, 40:80]
    save(tmp_path / "colour.png", picture())
    save(tmp_path / "grey.png", grey)
    colour, plain = ImageFolder(tmp_path, channels=channels)
    assert colour.image.shape[0] == (channels or 3) and plain.image.shape[0] == (channels or 1)
    assert np.array_equal(plain.image, np.broadcast_to(grey, plain.image.shape))
    if channels == 1:
        luma = picture() @ np.array([0.299, 0.587, 0.114])
        assert np.abs(colour.image[0].numpy() - luma).max() <= 0.5 + 1e-9
    else:
        assert np.array_equal(colour.image.permute(1, 2, 0), picture())


def test_many_channels_of_16_bits(tmp_path):
    image = np.random.default_rng(0).integers(0, 65536, (7, 30, 40)).astype(np.uint16)
    save(tmp_path / "a.npy", image)
    (data,) = ImageFolder(tmp_path)
    assert data.image.dtype == torch.uint16 and np.array_equal(data.image.numpy(), image)


def write_place(path, array, x, y, nodata=None):
    """A GeoTIFF of 10 m pixels in UTM zone 33 whose upper left corner is at (x, y)."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
    tags: list[tuple] = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, x, y, 0.0), True),
        (34735, 3, len(keys), keys, True),
    ]
    if nodata is not None:
        tags.append((42113, 2, len(str(nodata)) + 1, f"{nodata}\0".encode(), True))
    tifffile.imwrite(path, array, extratags=tags, metadata=None)


def test_georeferences(tmp_path):
    image = np.ascontiguousarray(picture())
    image[:5] = 0
    write_place(tmp_path / "b.tif", image, 300.0, 700.0)
    write_place(tmp_path / "c.tif", np.maximum(picture(), 1), 300.0, 700.0)
    write_place(tmp_path / "d.tif", image, 340.0, 900.0, nodata=0)
    save(tmp_path / "a.png", picture())
    plain, b, c, d = ImageFolder(tmp_path)
    assert plain.geo == ""  # the same fields for all
    for data, place in ((b, (300.0, 700.0)), (c, (300.0, 700.0)), (d, (340.0, 900.0))):
        geo = json.loads(data.geo)
        assert geo["transform"] == [10.0, 0.0, place[0], 0.0, -10.0, place[1]] and geo["crs"] == "EPSG:32633"
    assert "valid" not in b and "valid" not in c
    assert np.array_equal(d.valid, (image != 0).any(2)) and not d.valid[:5].any()
    loader = DataLoader(ImageFolder(tmp_path, transform=ToSuperpixelRAG(20)), batch_size=4)
    (batch,) = list(loader)
    assert batch.validate() and batch.geo == [plain.geo, b.geo, c.geo, d.geo]
    assert torch.equal(batch.get_example(3).valid.view(30, 40), d.valid)
    flipped = ImageFolder(tmp_path, transform=RandomImageFlip(1.0))
    assert [data.geo for data in flipped] == [""] * 4


def test_without_a_tiff_nothing_says_where(tree):
    assert "geo" not in ImageFolder(tree / "images")[0]


def test_single_samples_say_what_their_folder_says(tmp_path):
    write_place(tmp_path / "b.tif", picture(), 0.0, 0.0)
    save(tmp_path / "a.png", picture())
    reader = ImageFolder(tmp_path)
    assert reader.single(0)[0].geo == "" and reader.single(1)[0].geo == reader[1].geo != ""


def test_labels_that_occur(tree):
    save(tree / "masks" / "b.png", np.full((30, 40), 7, np.uint8))
    (tree / "masks" / "a.png").write_bytes(b"no image")
    assert find_labels(ImageFolder(tree / "images", tree / "masks")) == [0, 1, 7]
    assert find_labels(ImageFolder(tree / "images", tree / "masks")[1:2]) == [7]


# Files that do not open are found when they are asked for, and named


@pytest.mark.parametrize("role", ["images", "masks"])
@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_damaged_files(tree, role, content):
    path = tree / role / "b.png"
    path.write_bytes(path.read_bytes()[:-200] if content == "truncated" else content)
    reader = ImageFolder(tree / "images", tree / "masks")
    assert len(reader) == 4
    with pytest.raises((ValueError, OSError), match=r"b\.png"):
        reader[1]
    assert np.array_equal(reader[0].mask, brightness())


def test_images_that_are_too_large(tree):
    reader = ImageFolder(tree / "images", max_pixels=1199)
    with pytest.raises(ValueError, match=r"a\.png.*1199"):
        reader[0]
    assert ImageFolder(tree / "images", max_pixels=1200)[0].image.shape == (3, 30, 40)


# Parts and copies


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert set(a.keys()) == set(b.keys())
        for key, value in b:
            assert torch.equal(a[key], value) if isinstance(value, torch.Tensor) else a[key] == value, key


def test_slices(tree):
    reader = ImageFolder(tree / "images", tree / "masks")
    whole = list(reader)
    assert_same(reader[1:3], whole[1:3])
    assert_same(reader[[3, 0]], [whole[3], whole[0]])
    assert_same(reader[torch.tensor([False, True, False, True])], whole[1::2])
    assert_same(reader[1:][1:], whole[2:])
    assert reader[-1].source == NAMES[-1] and repr(reader[:2]) == "ImageFolder(2)"


def test_single_samples(tree):
    save(tree / "masks" / "spare.png", brightness())
    reader = ImageFolder(tree / "images", tree / "masks", transform=RandomImageFlip(1.0))
    assert len(reader.bad_files) == 1
    for part in (reader, reader[2:]):
        for i in range(len(part)):
            one = pickle.loads(pickle.dumps(part.single(i)))
            assert len(one) == 1 and one.transform is None and one.bad_files == []
            assert one[0].source == part[i].source
            assert torch.equal(one[0].image.flip(-1), part[i].image)
    assert len(pickle.dumps(reader.single(0))) < 3000


def test_copies(tree):
    reader = ImageFolder(tree / "images", tree / "masks", num_classes=2, class_names=("dark", "bright"))
    other = pickle.loads(pickle.dumps(reader[1:]))
    assert_same(other, list(reader)[1:])
    assert other.num_classes == 2 and other.class_names == ("dark", "bright") and other.ignore_index is None


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_that_augments_and_converts(tree, workers):
    transform = Compose([RandomImageFlip(), ToSuperpixelRAG(30, num_classes=2)])
    reader = ImageFolder(tree / "images", tree / "masks", transform=transform, num_classes=2)
    flips = set()
    for _ in range(4):
        sources = []
        for batch in DataLoader(reader, batch_size=3, shuffle=True, num_workers=workers):
            assert batch.validate() and batch.num_classes == 2
            for graph in batch.to_data_list():
                mask = brightness(NAMES.index(graph.source))
                found = graph.pixel_y.view(30, 40).numpy()
                flipped = not np.array_equal(found, mask)
                assert np.array_equal(found, mask[:, ::-1] if flipped else mask)
                assert graph.label_counts.sum(0).tolist() == [(mask == 0).sum(), (mask == 1).sum()]
                flips.add((graph.source, flipped))
                sources.append(graph.source)
        assert sorted(sources) == sorted(NAMES)
    assert {flipped for _, flipped in flips} == {False, True}


# A reader of one's own


class Parts(ImageReader):
    """Windows of one image, in two splits."""

    def __init__(self, path, **known):
        samples = [
            Sample(f"part {k}", {"image": path}, split="train" if k < 2 else "val", window=(0, 10 * k, 30, 10))
            for k in range(4)
        ]
        super().__init__(samples, **known)

    def read(self, sample):
        with Image.open(sample.files["image"]) as image:
            y, x, height, width = sample.window
            part = np.array(image)[y : y + height, x : x + width]
        return Data(image=torch.from_numpy(part.transpose(2, 0, 1).copy()))


def test_a_reader_of_ones_own(tmp_path):
    reader = Parts(save(tmp_path / "a.png", picture()), options={"height": 30})
    assert np.array_equal(torch.cat([data.image for data in reader], 2).permute(1, 2, 0), picture())
    assert reader.recipe() == {"reader": "Parts", "height": 30} and repr(reader) == "Parts(4)"
    assert reader.num_classes is None and reader.class_names == () and reader.bad_files == []
    train, val = reader.split("train"), reader.split("val")
    assert [data.source for data in train] == ["part 0", "part 1"] and next(iter(val)).source == "part 2"
    assert [data.source for data in reader[1:].split("train")] == ["part 1"]
    assert [data.source for data in val[1:]] == ["part 3"] and val.single(1)[0].source == "part 3"
    assert len(reader) == 4  # as it was
    with pytest.raises(ValueError, match="got split 'test', expected one of train, val"):
        reader.split("test")
    with pytest.raises(ValueError, match=r"got split 'val', expected one of train$"):
        train.split("val")


# Refusals


def test_missing_folders(tmp_path, tree):
    for arguments in (["nowhere"], ["images", "nowhere"], ["images", None, "nowhere"]):
        paths: list = [path and tree / path for path in arguments]
        with pytest.raises(FileNotFoundError, match=r"got .*nowhere, expected a folder that is there"):
            ImageFolder(*paths)
    (tree / "empty").mkdir()
    (tree / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match=r"got no image in .*empty, expected files of \.png, \.jpg"):
        ImageFolder(tree / "empty")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"channels": 2}, ValueError, "got channels=2, expected one of None, 1, 3"),
        ({"max_pixels": 0}, ValueError, "got max_pixels=0, expected at least 1"),
        ({"max_pixels": 1e6}, TypeError, "got float for max_pixels"),
        (
            {"num_classes": 3, "class_names": ("dark", "bright")},
            ValueError,
            "got 2 class_names, expected num_classes=3",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(tree, arguments, error, message):
    with pytest.raises(error, match=message):
        ImageFolder(tree / "images", tree / "masks", **arguments)


def test_bad_samples_are_refused(tree):
    class Two(Parts):
        def __init__(self, samples):
            ImageReader.__init__(self, samples)

    with pytest.raises(ValueError, match="got two images named 'a', expected each name once"):
        Two([Sample("a", {}), Sample("b", {}), Sample("a", {})])
    with pytest.raises(ValueError, match="got split 'train', expected none at all"):
        ImageFolder(tree / "images").split("train")
    assert BadFile("a.png", "damaged") == BadFile("a.png", "damaged")
    assert len({Sample("a", {"image": tree}), Sample("a", {"image": tree}), Sample("b", {"image": tree})}) == 2
