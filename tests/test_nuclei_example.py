"""The nuclei example's data, network and baseline; that it runs is tested with all the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.io import imsave
from skimage.measure import label, regionprops
from torch import Tensor
from torch.nn.functional import one_hot

from examples._nuclei import random_crops, read_nuclei
from examples.nuclei_instances import MIN_SIZE, OFFSETS, Net, components, main, segment, train
from graphseg.nn import affinity_targets


@pytest.fixture
def touching() -> Tensor:
    """Two discs that share a border, one on its own, and a speck; `[40, 60]`."""
    y, x = np.mgrid[:40, :60]
    discs = [((y - 15) ** 2 + (x - cx) ** 2 <= 64) * k for k, cx in ((1, 15), (2, 30), (3, 50))]
    instances = np.maximum.reduce(discs)
    instances[36:38, 5:8] = 4
    return torch.from_numpy(instances)


def maps(instances: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities that know everything."""
    affinity = affinity_targets(instances[None], OFFSETS).clamp(min=0).float()
    return affinity, one_hot((instances > 0).long(), 2).movedim(2, 0)[None].float()


def test_read_nuclei_finds_images_of_a_split(tmp_path: Path) -> None:
    root = tmp_path / "dsb2018"
    root.mkdir()
    random = np.random.default_rng(0)
    grey = random.integers(0, 60, (20, 30), dtype=np.uint8)
    colour = random.integers(190, 255, (20, 30, 3), dtype=np.uint8)
    grey[5:9, 5:9], colour[5:9, 5:9] = 250, 5
    labels = np.zeros((20, 30), dtype=np.uint16)
    labels[5:9, 5:9] = 700
    for name, picture in (("a.png", grey), ("b.png", colour), ("l.png", labels)):
        imsave(root / name, picture, check_contrast=False)
    table = ["# split\timage\tlabels\tkind", "train\ta.png\tl.png\tx", "val\tb.png\tl.png\tx", "val\ta.png\tl.png\tx"]
    (root / "splits.txt").write_text("\n".join(table), "utf-8")
    (first, instances), (second, _) = read_nuclei(tmp_path, "val")
    assert torch.equal(instances, torch.from_numpy(labels.astype(np.int64)))
    for image in (first, second):  # both on a dark ground
        assert image.shape == (3, 20, 30)
        assert image[:, instances == 700].min() > 0.9 > 0.5 > image[:, instances == 0].median()
    assert torch.equal(read_nuclei(tmp_path, "val", 2)[0][0], first)
    assert torch.equal(read_nuclei(tmp_path, "train")[0][0], second)


def test_without_data_there_are_coins(tmp_path: Path) -> None:
    pairs = read_nuclei(tmp_path, "train") + read_nuclei(tmp_path, "val")
    assert [list(image.shape) for image, _ in pairs] == [[3, 303, 240], [3, 303, 144]]
    for image, instances in pairs:
        assert len(instances.unique()) > 8
        assert image[0][instances > 0].mean() > image[0][instances == 0].mean() + 0.2


def test_crops_move_images_with_their_instances() -> None:
    instances = torch.arange(1, 50 * 60 + 1).view(50, 60)
    image = (instances / instances.max()).expand(3, -1, -1)
    x, y = random_crops([(image, instances)], 6, 17)
    for crop, ids in zip(x, y, strict=True):
        order = ids.flatten().argsort()
        values = crop[0].flatten()[order]
        assert (values[1:] >= values[:-1]).all()  # brightness changed, but not which pixel is which
        steps = [ids.diff(dim=dim).unique().tolist() for dim in (0, 1)]  # along rows and columns of the whole
        assert sorted(abs(step) for (step,) in steps) == [1, 60]
    assert len({tuple(ids.flatten().tolist()) for ids in y}) == 6


def test_network_takes_any_size_and_batches_are_singles() -> None:
    network = Net().eval()
    x = torch.rand(2, 3, 45, 38)
    with torch.no_grad():
        both = network(x)
        for n, one in enumerate(x):
            for together, alone in zip(both, network(one[None]), strict=True):
                assert together.shape[2:] == (45, 38)
                torch.testing.assert_close(together[n], alone[0], rtol=1e-4, atol=1e-5)
    assert both[0].shape[1] == len(OFFSETS)


def test_training_is_repeatable(tmp_path: Path) -> None:
    data = read_nuclei(tmp_path, "train")
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(Net())
        before = [weight.clone() for weight in networks[-1].parameters()]
        train(networks[-1], data, 2)
        assert all(not torch.equal(a, b) for a, b in zip(before, networks[-1].parameters(), strict=True))
    for a, b in zip(*(network.state_dict().values() for network in networks), strict=True):
        assert torch.equal(a, b)


def test_components_are_those_of_scikit_image() -> None:
    foreground = torch.rand(40, 50)
    found, scores = components(foreground)
    mask = (foreground > 0.5).numpy()
    large = [r for r in regionprops(label(mask, connectivity=1), foreground.numpy()) if r.area > MIN_SIZE]
    assert len(large) == len(scores) == int(found.max()) > 3
    for k, region in enumerate(large):
        assert torch.equal((found == k + 1).nonzero(), torch.from_numpy(region.coords))
        assert float(scores[k]) == pytest.approx(region.intensity_mean, rel=1e-5)


@pytest.mark.parametrize(("foreground", "expected"), [(0.0, []), (1.0, [1.0])])
def test_components_of_all_or_nothing(foreground: float, expected: list[float]) -> None:
    found, scores = components(torch.full((9, 9), foreground))
    assert found.unique().tolist() == [foreground]
    assert scores.tolist() == expected


def test_merge_of_perfect_maps_tells_nuclei_apart_that_touch(touching: Tensor) -> None:
    found = segment(*maps(touching))
    kept = touching.where(touching < 4, 0)  # the speck is too small
    assert list(found) == ["components", "merge, plain", "merge, counted"]
    assert torch.equal(found["merge, counted"][0], kept)
    labels, scores = found["merge, plain"]  # of blocks of 2 x 2 pixels, some of which lie across the border
    wrong = (labels != kept).nonzero()[:, 1]
    assert len(scores) == int(labels.max()) == 3
    assert ((wrong >= 21) & (wrong <= 24)).all()
    assert torch.equal(found["components"][0], (kept > 0).long() + (kept == 3))


def test_example_runs_without_data(tmp_path: Path) -> None:
    main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--quick"])
    results = json.loads((tmp_path / "out" / "nuclei_instances.json").read_text("utf-8"))
    assert list(results) == ["components", "merge, plain", "merge, counted"]
    for scores in results.values():
        assert list(scores) == ["AP", "AP50", "adapted_rand_error"]
        assert 0 <= scores["AP"] <= scores["AP50"] <= 1
        assert 0 <= scores["adapted_rand_error"] <= 1
    assert (tmp_path / "out" / "nuclei_instances.png").is_file()
