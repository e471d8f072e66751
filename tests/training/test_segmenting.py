"""Segmenting images: files hold what the network says, in the image's size; names never meet; what is there stays."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import Module, Parameter

from graphseg.datasets import read_geo, read_image, write_geotiff
from graphseg.metrics import multiscale_probabilities
from graphseg.models import SegmentationNetwork
from graphseg.ops.instance_map import Instances
from graphseg.training.segment_files import _names, find_images
from graphseg.training.segmenting import ERRORS, Segmented, segment, segment_image
from tests.datasets.small_trees import photo, write_image


class Brightness(Module):
    """Class k where the first channel is nearest to k / (K - 1); counts its images."""

    def __init__(self, num_classes: int = 3, in_channels: int = 3) -> None:
        super().__init__()
        self.options = {"num_classes": num_classes, "in_channels": in_channels}
        self.num_classes, self.seen = num_classes, 0
        self.level = Parameter(torch.linspace(0, 1, num_classes))

    def forward(self, image: Tensor, superpixels: Tensor | None = None) -> Any:
        self.seen += 1
        assert not self.training and image.dtype == torch.float32 and bool(image.isfinite().all())
        if image.shape[2] < 3:
            raise RuntimeError("no room for a kernel")
        logits = -9 * (image[:, :1] - self.level.view(1, -1, 1, 1)).abs()
        return type("Out", (tuple,), {"logits": logits})((logits,))


class Halves(Module):
    """Two instances, the left half of class 2 and the lower right quarter of class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.options, self.num_classes = {"in_channels": 1}, 3
        self.asked: list[dict[str, Any]] = []

    def segment(self, image: Tensor, **options: Any) -> list[Instances]:
        self.asked.append(options)
        _, _, H, W = image.shape
        labels = torch.zeros(H, W, dtype=torch.int64)
        labels[:, : W // 2], labels[H // 2 :, W // 2 :] = 1, 2
        areas = labels.flatten().bincount()[1:]
        votes = torch.tensor([[0, 0, 1], [0, 1, 0]]) * areas[:, None]
        return [Instances(labels, torch.tensor([2, 1]), torch.tensor([0.75, 0.5]).double(), areas, votes)]


def levels(first: np.ndarray, K: int = 3) -> np.ndarray:
    """The class of values in [0, 1], by numpy."""
    return np.abs(first[..., None] - np.linspace(0, 1, K)).argmin(-1)


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def record(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / "records" / f"{name}.json").read_text())


def all_files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, two of one name."""
    for k, name in enumerate(("1.png", "a/1.png", "a/2.png")):
        write_image(tmp_path / "photos" / name, photo(k))
    return tmp_path / "photos"


# What is in the files


def test_labels_overlay_and_record(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(Brightness(), photos, out, class_names=["dark", "half", "light"]) == Segmented(3, 3, [])
    for k, name in enumerate(("1", "a/1", "a/2")):
        image = photo(k)
        want = levels(image[..., 0] / 255)
        labels, overlay = opened(out / f"labels/{name}.png"), opened(out / f"overlays/{name}.png")
        assert labels.dtype == np.uint8 and np.array_equal(labels, want)
        assert overlay.shape == image.shape and overlay.dtype == np.uint8
        about = record(out, name)
        assert (about["height"], about["width"]) == image.shape[:2]
        counts = {row["name"]: row["pixels"] for row in about["classes"]}
        assert counts == {["dark", "half", "light"][c]: int((want == c).sum()) for c in np.unique(want)}
        assert set(about["files"].values()) == {f"labels/{name}.png", f"overlays/{name}.png"}
    # Pixels of one class and brightness look the same, of two classes they do not.
    grey = overlay.reshape(-1, 3)[(image.reshape(-1, 3) == image[20, 20]).all(1)]
    assert len(np.unique(grey, axis=0)) == 1
    assert len(all_files(out)) == 9


def test_kinds_of_images(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    grey = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
    write_image(images / "grey.png", grey)
    write_image(images / "deep.png", grey.astype(np.uint16) * 257)
    np.save(images / "real.npy", np.stack([grey / 255.0] * 3).astype(np.float32))
    hidden = np.full((48, 64), 255, np.uint8)
    hidden[:10] = 0
    write_image(images / "hidden.png", np.dstack([grey, grey, grey, hidden]))
    hole = np.zeros((48, 64), bool)
    hole[5, 7] = True
    gaps = torch.from_numpy(np.where(hole, np.nan, np.stack([grey / 255.0] * 3)))
    write_geotiff(images / "gaps.tif", gaps, nodata=float("nan"))
    assert segment(Brightness(), images, out) == Segmented(5, 5, [])
    want = levels(grey / 255)
    for name in ("grey", "deep", "real"):
        assert np.array_equal(opened(out / f"labels/{name}.png"), want), name
    assert np.array_equal(opened(out / "labels/hidden.png"), np.where(hidden > 0, want, 255))
    assert sum(row["pixels"] for row in record(out, "hidden")["classes"]) == 38 * 64
    assert np.array_equal(tifffile.imread(out / "labels/gaps.tif"), np.where(hole, 255, want))


def test_more_classes_than_8_bits_hold(photos: Path, tmp_path: Path) -> None:
    segment(Brightness(300), photos / "1.png", tmp_path / "out")
    labels = opened(tmp_path / "out/labels/1.png")
    assert labels.dtype == np.uint16 and labels.max() > 255
    assert np.array_equal(labels, levels(photo(0)[..., 0].astype(np.float32) / np.float32(255), 300))


def test_a_geotiff_stays_in_its_place(tmp_path: Path) -> None:
    place = {"transform": [10.0, 0, 500, 0, -10.0, 900], "crs": "EPSG:32633", "nodata": 0}
    keys = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633]
    tags = {"33550": [10.0, 10.0, 0.0], "33922": [0.0, 0.0, 0.0, 500.0, 900.0, 0.0], "34735": keys, "42113": "0\0"}
    image = torch.from_numpy(photo(4)).movedim(2, 0).clamp(min=1).contiguous()
    image[:, :5, :6] = 0
    path = tmp_path / "scenes/scene.tif"
    path.parent.mkdir()
    write_geotiff(path, image, json.dumps(place | {"tags": tags}))
    want = levels(image[0].numpy() / 255)
    want[:5, :6] = 255
    segment(Brightness(), path.parent, tmp_path / "out")
    labels = tmp_path / "out/labels/scene.tif"
    assert np.array_equal(tifffile.imread(labels), want) and tifffile.imread(labels).dtype == np.uint8
    found = json.loads(read_geo(labels))
    assert (found["transform"], found["crs"], found["nodata"]) == (place["transform"], place["crs"], 255)
    valid = read_image(labels).valid
    assert valid is not None and not valid[:5, :6].any() and valid[5:].all()  # class 0 is data

    segment(Halves(), path.parent, tmp_path / "instances")
    assert read_geo(tmp_path / "instances/instances/scene.tif")
    numbers = tifffile.imread(tmp_path / "instances/instances/scene.tif")
    assert numbers.dtype == np.uint16 and not numbers[:5, :6].any() and (numbers[5:, :32] == 1).all()
    assert (tifffile.imread(tmp_path / "instances/labels/scene.tif")[:5, :6] == 255).all()


def test_instances(tmp_path: Path) -> None:
    write_image(tmp_path / "cells/x.png", photo(1, 20, 30))
    network, out = Halves(), tmp_path / "out"
    segment(network, tmp_path / "cells", out, class_names=["", "rider", "person"], flip=True, options={"window": 1})
    assert network.asked == [{"flip_semantic": True, "flip_affinity": True, "window": 1}]
    numbers = np.zeros((20, 30), int)
    numbers[:, :15], numbers[10:, 15:] = 1, 2
    found = opened(out / "instances/x.png")
    assert found.dtype in (np.uint16, np.int32) and np.array_equal(found, numbers)
    assert np.array_equal(opened(out / "labels/x.png"), np.array([0, 2, 1])[numbers])
    assert record(out, "x")["instances"] == [
        {"id": 1, "class": 2, "name": "person", "score": 0.75, "area": 300},
        {"id": 2, "class": 1, "name": "rider", "score": 0.5, "area": 150},
    ]
    segment(network, tmp_path / "cells", tmp_path / "larger", size=(40, 60))
    assert np.array_equal(opened(tmp_path / "larger/instances/x.png"), numbers)
    assert network.asked[1:] == [{}]
    segment(network, tmp_path / "cells", tmp_path / "smaller", size=(2, 2))
    small = opened(tmp_path / "smaller/instances/x.png")
    assert np.array_equal(small, numbers)


def test_more_instances_than_16_bits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def many(self: Halves, image: Tensor, **options: Any) -> list[Instances]:
        n = 70_000
        zeros = torch.zeros(n, dtype=torch.int64)
        return [Instances(torch.arange(n).view(250, 280), zeros, zeros.double(), zeros + 1, zeros[:, None])]

    monkeypatch.setattr(Halves, "segment", many)
    write_image(tmp_path / "cells/x.png", photo(1, 250, 280))
    done = segment(Halves(), tmp_path / "cells", tmp_path / "out")
    assert done.images == 0 and "got 70000 instances, expected at most 65535" in done.errors[0].reason


def test_the_size_of_training(tmp_path: Path) -> None:
    """The network sees that size, the files have the image's own."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 255
    image[20:, :30] = 128
    write_image(tmp_path / "images/x.png", image)
    sizes = []

    class Noted(Brightness):
        def forward(self, image: Tensor, superpixels: Tensor | None = None) -> Any:
            sizes.append(tuple(image.shape[2:]))
            return super().forward(image)

    for size in (None, (20, 30), (80, 120)):
        segment(Noted(), tmp_path / "images", tmp_path / str(size), size=size)
        labels = opened(tmp_path / str(size) / "labels/x.png")
        away = np.ones_like(labels, bool)  # of the borders, where colours mix
        away[18:22], away[:, 28:32] = False, False
        assert np.array_equal(labels[away], levels(image[..., 0] / 255)[away])
    assert sizes == [(40, 60), (20, 30), (80, 120)]


def test_scales_and_flips_are_those_of_testing(tmp_path: Path) -> None:
    write_image(tmp_path / "x.png", photo(2, 40, 56))
    network = SegmentationNetwork(3, backbone="resnet18", width=0.0625, auxiliary=False, channels=64).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(50)
    file = read_image(tmp_path / "x.png")
    image = file.image[None] / 255
    with torch.no_grad():
        plain = network(image).logits.argmax(1)[0]
    averaged = multiscale_probabilities(network, image, (0.75, 1.25), True).argmax(1)[0]
    assert not torch.equal(plain, averaged)
    assert torch.equal(segment_image(network, file).labels, plain)
    assert torch.equal(segment_image(network, file, scales=(0.75, 1.25), flip=True).labels, averaged)
    segment(network.train(), tmp_path / "x.png", tmp_path / "out", scales=(0.75, 1.25), flip=True)
    assert np.array_equal(opened(tmp_path / "out/labels/x.png"), averaged.numpy())
    assert not network.training


# Names


def test_names_that_differ_behind_the_dot(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for k, name in enumerate(("1.png", "1.bmp", "1.png.tif", "2.v1.png", ".hidden.png", ".folder/3.png")):
        write_image(images / name, photo(k))
    segment(Brightness(), images, out)
    names = {path.relative_to(out / "labels").as_posix() for path in (out / "labels").rglob("*.png")}
    assert names == {"1.png.png", "1.bmp.png", "1.png.tif.png", "2.v1.png"}
    for k, name in enumerate(("1.png", "1.bmp", "1.png.tif", "2.v1")):
        assert np.array_equal(opened(out / f"labels/{name}.png"), levels(photo(k)[..., 0] / 255))


@given(st.lists(st.text("ab.", min_size=1, max_size=5).filter(lambda t: set(t) != {"."}), unique=True, max_size=12))
def test_names_never_meet(stems: list[str]) -> None:
    paths = [Path("d", stem + suffix) for stem in stems for suffix in (".png", ".jpg")[: 1 + len(stem) % 2]]
    names = _names(paths, Path("top"))
    assert sorted(names.values()) == sorted(Path("top") / path for path in paths)
    for name, path in names.items():
        assert name in (path.relative_to("top").as_posix(), path.relative_to("top").with_suffix("").as_posix())


def test_files_and_folders_together(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "more/1.png", photo(7))
    out = tmp_path / "out"
    assert list(find_images(photos / "a/1.png", out)) == ["1"]
    assert list(find_images([photos / "1.png", photos / "a/1.png"], out)) == ["1", "a/1"]
    assert list(find_images([photos, tmp_path / "more"], out)) == ["more/1", "photos/1", "photos/a/1", "photos/a/2"]
    assert list(find_images([photos, photos / "a/1.png"], out)) == ["1", "a/1", "a/2"]
    monkeypatch.chdir(photos)
    assert list(find_images([".", "a"], out)) == ["1", "a/1", "a/2"]
    assert list(find_images("a/../1.png", out)) == ["1"]


def test_places_that_will_not_do(photos: Path, tmp_path: Path) -> None:
    network = Brightness()
    for out in (photos, photos / "out", photos / "a/../out"):
        with pytest.raises(ValueError, match=r"inside .*photos, expected another place"):
            segment(network, photos, out)
    with pytest.raises(FileNotFoundError, match=r"nobody, expected images"):
        segment(network, [photos, tmp_path / "nobody"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image in .*empty, expected files of \.png"):
        segment(network, tmp_path / "empty", tmp_path / "out")
    assert network.seen == 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Brightness, {"scales": ()}, r"scales=\(\), expected one or more"),
        (Brightness, {"scales": (1, 0)}, r"scales=\(1, 0\), expected one or more"),
        (Brightness, {"options": {"window": 1}}, "got options window for Brightness, expected none"),
        (Halves, {"scales": (0.5, 1)}, r"scales=\(0.5, 1\) for Halves, expected 1"),
    ],
)
def test_arguments_that_do_not_fit(
    kind: type, options: dict[str, Any], message: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        segment(kind(), photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# Images that will not do


def test_bad_images_are_listed_and_the_rest_is_done(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = (photos / "1.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("this is no image")
    write_image(photos / "flat.png", photo(0, 2, 9))
    np.save(photos / "five.npy", np.zeros((5, 20, 30), np.float32))
    done = segment(Brightness(), photos, out)
    assert (done.images, done.made) == (3, 3)
    reasons = {Path(bad.file).name: bad.reason for bad in done.errors}
    assert set(reasons) == {"cut.png", "text.jpg", "flat.png", "five.npy"}
    assert "got 5 channels, expected" in reasons["five.npy"]
    assert reasons["flat.png"] == "RuntimeError: no room for a kernel"
    lines = [json.loads(line) for line in (out / ERRORS).read_text().splitlines()]
    assert lines == [{"file": bad.file, "reason": bad.reason} for bad in done.errors]
    assert len(all_files(out)) == 10

    for name in reasons:
        (photos / name).unlink()
    assert segment(Brightness(), photos, out) == Segmented(3, 0, [])
    assert not (out / ERRORS).exists()


def test_channels_are_those_of_the_network(photos: Path, tmp_path: Path) -> None:
    segment(Brightness(in_channels=1), photos / "1.png", tmp_path / "grey")
    luma = np.rint(photo(0) @ [0.299, 0.587, 0.114])
    assert np.array_equal(opened(tmp_path / "grey/labels/1.png"), levels(luma / 255))
    infrared = np.dstack([photo(0), np.zeros((48, 64), np.uint8)])
    write_image(tmp_path / "four.png", infrared)  # alpha, where nothing else takes it
    segment(Brightness(in_channels=4), tmp_path / "four.png", tmp_path / "out")
    assert np.array_equal(opened(tmp_path / "out/labels/four.png"), levels(photo(0)[..., 0] / 255))
    done = segment(Brightness(in_channels=4), photos / "1.png", tmp_path / "none")
    assert done.images == 0 and "got 3 channels, expected 4 as the network" in done.errors[0].reason


# Again


def test_only_what_is_missing_or_has_changed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    network = Brightness()
    assert segment(network, photos, out).made == 3
    before = all_files(out)
    assert segment(network, photos, out) == Segmented(3, 0, []) and network.seen == 3
    (out / "labels/a/1.png").unlink()
    assert segment(network, photos, out).made == 1 and all_files(out) == before
    (out / "records/a/2.json").write_text("{")
    assert segment(network, photos, out).made == 1 and all_files(out) == before
    write_image(photos / "a/2.png", photo(9))
    assert segment(network, photos, out).made == 1
    assert np.array_equal(opened(out / "labels/a/2.png"), levels(photo(9)[..., 0] / 255))
    assert segment(network, photos, out, flip=True).made == 3
    assert segment(network, photos, out, flip=True).made == 0
    with torch.no_grad():
        network.level[1] = 0.9
    assert segment(network, photos, out, flip=True).made == 3
    write_image(photos / "a/3.png", photo(3))
    assert segment(network, photos, out, flip=True) == Segmented(4, 1, [])


@pytest.mark.parametrize("writes", range(6))
def test_stopped_in_the_middle(writes: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are whole or not there, and the same call goes on."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    segment(Brightness(), photos, whole)
    replace, left = os.replace, [writes]

    def stop(a: Any, b: Any) -> None:
        if not left[0]:
            raise OSError("no room on the disk")
        left[0] -= 1
        replace(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(OSError, match="no room"):
            segment(Brightness(), photos, out)
    want = all_files(whole)
    there = all_files(out)
    assert len(there) < len(want) and there.items() <= want.items()
    done = segment(Brightness(), photos, out)
    assert done.images == 3 and done.made == 3 - writes // 3 and all_files(out) == want
