"""Instances from given maps and from networks, against plain loops and against the instances the maps were made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage import data as photographs
from skimage.filters import threshold_otsu
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.nn.affinity import affinity_targets, modified_sigmoid
from graphseg.nn.instances import InstanceSegmenter, refine_classes, segment_instances
from graphseg.ops import affinity_offsets, offset_edges
from graphseg.ops.instance_map import flip_affinities
from tests.reference import instances as reference
from tests.transforms.photos import read_image, read_rows

NEAR = affinity_offsets((1, 2))
STAGES: dict[str, Any] = {"stages": [(1,), (2,)], "thresholds": [0.55, 0.35]}
PLAIN: dict[str, Any] = {"window": 1, "cell_size": None, "refine": False}
SWITCHES: dict[str, dict[str, Any]] = {
    "baseline": {**PLAIN, "exclude_background": False},
    "foreground": PLAIN,
    "cells": PLAIN | {"cell_size": 2},
    "refined": PLAIN | {"refine": True, "alpha": 8.0},
    "super-classes": PLAIN | {"refine": True, "super_classes": [(3, 1)]},
    "partition": PLAIN | {"cell_size": 2, "super_classes": [(1, 3)], "partition": True},
    "classes": PLAIN | {"class_refinement": (2, 3), "alpha": 3.0},
    "blocks": PLAIN | {"window": 2},
    "large blocks": PLAIN | {"window": 3, "min_size": 4},
    "strict": PLAIN | {"strict": True, "min_size": 1},
    "everything": {
        "window": 2,
        "cell_size": 2,
        "super_classes": [(1, 3)],
        "partition": True,
        "class_refinement": (1, 3),
        "min_size": 2,
    },
}


def random_maps(size=(6, 7), images=1, classes=4, offsets=NEAR, seed=0, device="cpu"):
    """Affinities and class probabilities, float64."""
    generator = torch.Generator().manual_seed(seed)
    affinity = torch.rand(images, len(offsets), *size, generator=generator, dtype=torch.float64)
    semantic = torch.randn(images, classes, *size, generator=generator, dtype=torch.float64).softmax(1)
    return affinity.to(device), semantic.to(device)


def true_maps(instances, classes=None, offsets=None, num_classes=2):
    """The maps of instances `[B, H, W]`; `classes [B, H, W]` is 1 inside unless given."""
    offsets = affinity_offsets() if offsets is None else offsets
    classes = (instances > 0).long() if classes is None else classes
    affinity = (affinity_targets(instances, offsets) == 1).float()
    return affinity, F.one_hot(classes, num_classes).movedim(3, 1).float()


def by_first_pixel(instances):
    """The same map, numbered from 1 by the first pixels; 0 stays."""
    values, first, inverse = np.unique(instances, return_index=True, return_inverse=True)
    number = np.zeros(len(values), np.int64)
    inside = np.flatnonzero(values > 0)
    number[inside[np.argsort(first[inside])]] = np.arange(1, len(inside) + 1)
    return number[inverse].reshape(instances.shape)


def reachable_parts(instances, offsets):
    """Instances cut where no chain of offsets inside them leads from part to part."""
    H, W = instances.shape
    flat = instances.ravel()
    i, j = offset_edges(H, W, offsets).numpy()
    kept = (flat[i] == flat[j]) & (flat[i] > 0)
    graph = coo_array((np.ones(kept.sum()), (i[kept], j[kept])), shape=(H * W, H * W))
    parts = connected_components(graph, directed=False)[1].reshape(H, W) + 1
    return np.where(instances > 0, parts, 0)


def assert_same(a, b):
    for name in ("labels", "classes", "scores", "areas", "votes"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


# By hand


def test_five_pixels_by_hand():
    offsets = [(0, 1), (0, -1)]
    right = [0.9, 0.2, 0.8, 0.6, 0.5]
    left = [0.0, 0.7, 0.4, 1.0, 0.6]
    affinity = torch.tensor([right, left], dtype=torch.float64).view(1, 2, 1, 5)
    p = [[0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]]
    semantic = torch.tensor(p, dtype=torch.float64).T.reshape(1, 3, 1, 5)
    # Means of both directions: 0.8, 0.3, 0.9, 0.6; the last pixel is background.
    options: dict[str, Any] = {"stages": [(1,)], "thresholds": [0.5], "window": 1}
    (found,) = segment_instances(affinity, semantic, offsets, refine=False, **options)
    assert found.labels.tolist() == [[1, 1, 2, 2, 0]]
    assert found.classes.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.8, 0.9])
    assert found.areas.tolist() == [2, 2]
    # Inner products without background: 0.8 * 0.5 + 0.1 * 0.3 = 0.43, 0.4 * 0.2 + 0.6 * 0.7 = 0.5.
    (found,) = segment_instances(affinity, semantic, offsets, **options)
    sigma = [2 / (1 + np.exp(-5 * s)) - 1 for s in (0.43, 0.5)]
    assert found.scores.tolist() == pytest.approx([0.8 * sigma[0], 0.9 * sigma[1]])
    (found,) = segment_instances(affinity, semantic, offsets, exclude_background=False, refine=False, **options)
    assert found.labels.tolist() == [[1, 1, 2, 2, 2]]
    assert found.scores.tolist() == pytest.approx([0.8, 0.75])
    # The blocks 0 and 1 have the one edge 0.3 between them, block 1 and the last pixel 0.6, which is background.
    (found,) = segment_instances(affinity, semantic, offsets, refine=False, **options | {"window": 2})
    assert found.labels.tolist() == [[1, 1, 2, 2, 0]]
    (found,) = segment_instances(affinity, semantic, offsets, refine=False, **options | {"thresholds": [0.3 - 1e-9]})
    assert found.labels.tolist() == [[1, 1, 1, 1, 0]]
    assert found.classes.tolist() == [1]  # two votes each


def test_class_refinement_by_hand():
    affinity = torch.tensor([0.3, 0.3, 0.3, 0.3])
    edge_index = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 3]])
    found = refine_classes(affinity, edge_index, torch.tensor([7, 8, 7, 1]), (7, 8))
    assert_close(found, torch.tensor([*[float(modified_sigmoid(torch.tensor(0.3)))] * 3, 0.3]))
    assert float(found[0]) == pytest.approx(0.635, abs=1e-3)
    assert torch.equal(refine_classes(affinity, edge_index, torch.tensor([7, 8, 7, 1]), ()), affinity)


def test_class_refinement_is_at_the_largest_distance_only():
    instances = torch.zeros(1, 1, 9, dtype=torch.int64)
    instances[..., :3] = instances[..., 6:] = 1
    offsets = [(0, 1), (0, 2), (0, 6)]
    affinity, semantic = true_maps(instances, instances, offsets)
    affinity[:, 2] *= 0.2
    options: dict[str, Any] = {"stages": [(1, 2), (6,)], "thresholds": [0.9, 0.3], "refine": False}
    (found,) = segment_instances(affinity, semantic, offsets, **options)
    assert found.labels.tolist() == [[1, 1, 1, 0, 0, 0, 2, 2, 2]]
    (found,) = segment_instances(affinity, semantic, offsets, class_refinement=[1], **options)
    assert torch.equal(found.labels, instances[0])
    affinity[:, :2] *= 0.25  # the sigmoid would bring these above 0.3 as well
    (found,) = segment_instances(affinity, semantic, offsets, class_refinement=[1], window=1, **options)
    assert found.labels.tolist() == [[1, 2, 3, 0, 0, 0, 1, 2, 3]]


# Against plain loops


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_plain_loops(switches, seed, device):
    size = [(6, 7), (1, 9), (8, 5)][seed]
    affinity, semantic = random_maps(size, images=2, seed=seed, device=device)
    found = segment_instances(affinity, semantic, NEAR, **STAGES, **switches)
    for image, p, instances in zip(affinity.tolist(), semantic.tolist(), found, strict=True):
        labels, classes, scores, areas = reference.segment(image, p, NEAR, **STAGES, **switches)
        assert instances.labels.tolist() == labels
        assert instances.classes.tolist() == classes
        assert instances.areas.tolist() == areas
        assert instances.scores.tolist() == pytest.approx(scores, abs=1e-12)
        assert instances.votes.sum(1).tolist() == areas


def test_ties_are_settled_as_in_the_loops():
    affinity, semantic = random_maps((7, 8), seed=5)
    affinity = (affinity * 3).round() / 3
    options = STAGES | {"thresholds": [0.6, 0.4]}
    for switches in (PLAIN, PLAIN | {"window": 2}, PLAIN | {"exclude_background": False, "strict": True}):
        (found,) = segment_instances(affinity, semantic, NEAR, **options, **switches)
        expected = reference.segment(affinity[0].tolist(), semantic[0].tolist(), NEAR, **options, **switches)
        assert found.labels.tolist() == expected[0]


@pytest.mark.parametrize("linkage", ["plain", "counted", "max", "min"])
def test_batch_is_its_images(linkage, device):
    affinity, semantic = random_maps((40, 35), images=3, seed=2, device=device)
    semantic[1, 0] = 1.0  # background only
    affinity, semantic = affinity.float(), semantic.float()
    for switches in (SWITCHES["everything"], SWITCHES["super-classes"], SWITCHES["baseline"]):
        together = segment_instances(affinity, semantic, NEAR, linkage=linkage, **STAGES, **switches)
        for b in range(3):
            (alone,) = segment_instances(
                affinity[b : b + 1], semantic[b : b + 1], NEAR, linkage=linkage, **STAGES, **switches
            )
            assert_same(together[b], alone)


def test_mirror_image_gives_mirrored_instances():
    affinity, semantic = random_maps((12, 13), seed=3)
    (found,) = segment_instances(affinity, semantic, NEAR, **STAGES, window=1)
    (mirrored,) = segment_instances(flip_affinities(affinity, NEAR), semantic.flip(3), NEAR, **STAGES, window=1)
    assert np.array_equal(by_first_pixel(mirrored.labels.flip(1).numpy()), found.labels.numpy())


# Ground truth comes back


def coins():
    image = photographs.coins()[:200, :250]
    return ndimage.label(ndimage.binary_opening(image > threshold_otsu(image), iterations=2))[0]


def nuclei(folder):
    paths = list(read_rows(folder, "dsb2018", 2))
    return [read_image(row[1])[:256, :256].astype(np.int64) for row in paths]


def check_true_instances(instances, **options):
    """The maps of instances give them back, cut only where offsets do not reach."""
    expected = reachable_parts(instances, affinity_offsets())
    (found,) = segment_instances(*true_maps(torch.from_numpy(instances)[None]), window=1, **options)
    assert np.array_equal(found.labels.numpy(), by_first_pixel(expected))
    assert found.areas.tolist() == np.bincount(found.labels.numpy().ravel())[1:].tolist()
    assert found.classes.eq(1).all()
    # Every edge inside is 1, but an instance of one pixel has none.
    assert found.scores[found.areas > 1].min() >= 0.98
    return found


def test_coins_come_back():
    found = check_true_instances(coins())
    assert len(found.areas) > 8


@pytest.mark.parametrize("refine", [True, False])
def test_nuclei_come_back(refine, shared_data):
    for instances in nuclei(shared_data):
        found = check_true_instances(instances, refine=refine)
        assert len(found.areas) == len(np.unique(instances)) - 1 > 3


def best_overlaps(found, instances):
    """The IoU of each instance with the one found that covers most of it."""
    ious = []
    for n in np.unique(instances[instances > 0]):
        numbers, counts = np.unique(found[instances == n], return_counts=True)
        best = numbers[counts.argmax()]
        ious.append(counts.max() / ((found == best) | (instances == n)).sum() if best else 0.0)
    return np.array(ious)


@pytest.mark.parametrize("linkage", ["plain", "counted"])
def test_nuclei_come_back_from_blocks_but_for_their_borders(linkage, shared_data):
    for instances in nuclei(shared_data):
        (found,) = segment_instances(*true_maps(torch.from_numpy(instances)[None]), linkage=linkage, min_size=4)
        ious = best_overlaps(found.labels.numpy(), instances)
        large = np.bincount(instances.ravel())[np.unique(instances)][1:] >= 50
        assert ious[large].min() > 0.8 and ious[large].mean() > 0.94
        assert len(found.areas) <= len(ious) * 1.1


def fragments(*columns, height=4, width=200):
    """One instance in several stretches of columns."""
    instances = np.zeros((height, width), np.int64)
    for first, end in columns:
        instances[:, first:end] = 1
    return instances


def test_fragments_come_back_as_far_as_the_offsets_reach():
    # Column 20 reaches 84, which is in a cell next but one: only without cells.
    for columns, parts_with_cells, parts_without in [
        (((0, 10), (40, 50)), 1, 1),
        (((0, 10), (58, 68)), 1, 1),
        (((20, 32), (84, 96)), 2, 1),
        (((0, 10), (75, 90)), 2, 2),
        (((0, 6), (38, 40)), 2, 2),  # 33 to 39 apart
        (((0, 7), (38, 39), (100, 110)), 2, 1),
    ]:
        instances = fragments(*columns)
        for cell_size, parts in ((32, parts_with_cells), (None, parts_without)):
            (found,) = segment_instances(*true_maps(torch.from_numpy(instances)[None]), cell_size=cell_size)
            assert len(found.areas) == parts, (columns, cell_size)


def test_a_fragmented_instance_behind_another():
    instances = fragments((0, 60))
    instances[:, 20:45] = 2
    found = check_true_instances(instances)
    assert found.areas.tolist() == [35 * 4, 25 * 4]


def test_super_classes_have_regions_of_their_own():
    # A person behind a bus: the semantics confuse person and rider, and the affinities know nothing.
    classes = torch.zeros(1, 40, 90, dtype=torch.int64)
    classes[:, 5:30, 10:70] = 3
    classes[:, 10:25, 20:30], classes[:, 10:25, 30:40] = 1, 2
    affinity = torch.ones(1, 56, 40, 90)
    semantic = F.one_hot(classes, 4).movedim(3, 1).float()
    for window in (1, 2, 4):
        (found,) = segment_instances(
            affinity, semantic, super_classes=[(1, 2)], partition=True, refine=False, window=window
        )
        assert torch.equal(found.labels, torch.where(classes[0] == 3, 1, torch.where(classes[0] > 0, 2, 0)))
        assert found.classes.tolist() == [3, 1]
        assert found.votes.tolist() == [[0, 0, 0, 25 * 60 - 300], [0, 150, 150, 0]]


def test_a_pixel_may_be_foreground_by_its_super_class_alone():
    semantic = torch.tensor([0.4, 0.25, 0.35]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    affinity = torch.ones(1, 8, 2, 2)
    offsets = affinity_offsets((1,))
    assert segment_instances(affinity, semantic, offsets, refine=False)[0].labels.eq(0).all()
    (found,) = segment_instances(affinity, semantic, offsets, refine=False, super_classes=[(1, 2)], partition=True)
    assert found.labels.eq(1).all() and found.classes.tolist() == [2]


# With networks


def pointwise(first, count):
    """A network that reads its logits from the image's own channels."""
    return lambda image: image[:, first : first + count]


def random_image(size=(40, 90), images=1, seed=0):
    """Channels are logits: 4 classes, then affinities; foreground in two corners."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(images, 4 + len(NEAR), *size, generator=generator)
    image[:, 0] += 30
    image[:, 0, :9, :11] -= 30
    image[:, 0, -7:, -30:] -= 30
    image[:, 0, 22:26, 40:44] -= 30
    return image


NETWORKS = (pointwise(0, 4), pointwise(4, len(NEAR)))
SMALL: dict[str, Any] = {"cell_size": 8, "margin": 4}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_regions_that_are_not_enlarged_change_nothing(switches):
    """A network that sees one pixel says the same of a region as of the image."""
    image = random_image(images=3)
    image[1, 0] += 50
    options = STAGES | switches | {"min_size": 1, "margin": 4 if switches.get("window", 1) < 3 else 6}
    if switches.get("cell_size"):
        options["cell_size"] = 8
    segmenter = InstanceSegmenter(*NETWORKS, NEAR, roi_size=None, **options)
    del options["margin"]
    expected = segment_instances(image[:, 4:].sigmoid(), image[:, :4].softmax(1), NEAR, **options)
    for found, same in zip(segmenter(image), expected, strict=True):
        assert torch.equal(found.labels, same.labels) and torch.equal(found.votes, same.votes)
        assert_close(found.scores, same.scores)  # a sigmoid may end otherwise at another place in memory
    assert len(expected[0].areas) > 1 or switches.get("exclude_background") is False


def test_regions_are_enlarged_to_the_size_networks_know():
    seen: list[tuple[int, ...]] = []

    def semantic(image):
        seen.append(tuple(image.shape))
        return image[:, :4]

    image = random_image((60, 100))
    InstanceSegmenter(semantic, NETWORKS[1], NEAR, **STAGES, **SMALL, roi_size=None)(image)
    whole, *regions = [shape[2:] for shape in seen]
    assert whole == (60, 100)
    assert regions == [(20, 20), (24, 16), (16, 40)]
    cases: list[tuple[dict, list]] = [
        ({"roi_size": 30}, [(30, 30), (45, 30), (30, 75)]),
        ({"roi_size": 18}, [(20, 20), (27, 18), (18, 45)]),
        ({"roi_size": 513}, [(80, 80), (96, 64), (64, 160)]),
        ({"roi_size": 513, "max_scale": 1.5}, [(30, 30), (36, 24), (24, 60)]),
    ]
    for options, expected in cases:
        seen.clear()
        InstanceSegmenter(semantic, NETWORKS[1], NEAR, **STAGES, **SMALL, **options)(image)
        assert [shape[2:] for shape in seen] == [(60, 100), *expected]
    seen.clear()
    InstanceSegmenter(semantic, NETWORKS[1], NEAR, **STAGES, **SMALL, roi_size=30, roi_edge="height")(image.mT)
    assert [shape[2:] for shape in seen] == [(100, 60), (30, 30), (30, 45), (40, 16)]


def discs():
    """Instances, of which two touch and one is 5 pixels wide; and their image, a channel for each."""
    y, x = np.indices((120, 160))
    instances = np.zeros((120, 160), np.int64)
    for n, (v, u, r) in enumerate([(40, 40, 18), (40, 74, 18), (90, 130, 14), (100, 20, 2)]):
        instances[(y - v) ** 2 + (x - u) ** 2 <= r * r] = n + 1
    return instances, F.one_hot(torch.from_numpy(instances), 5).movedim(2, 0)[None, 1:].float()


DISC_OFFSETS = affinity_offsets((1, 2, 4, 8))
DISC_OPTIONS: dict[str, Any] = {"roi_size": 150, "min_size": 5}


def disc_semantic(image):
    inside = image.sum(1) - 0.5
    return torch.stack([-inside, inside], 1) * 100


def disc_affinity(image):
    H, W = image.shape[2:]
    channel, planes = image.argmax(1), []
    for dy, dx in DISC_OFFSETS:
        rows, columns = (torch.arange(n).add(d).clamp(0, n - 1) for n, d in ((H, dy), (W, dx)))
        planes.append(torch.where(channel[:, rows][..., columns] == channel, 9.0, -9.0))
    return torch.stack(planes, 1)


@pytest.mark.parametrize("options", [{}, {"window": 1}, {"linkage": "counted"}])
def test_enlarged_regions_give_the_instances_back(options):
    instances, image = discs()
    (found,) = InstanceSegmenter(disc_semantic, disc_affinity, DISC_OFFSETS, **DISC_OPTIONS, **options)(image)
    assert len(found.areas) == 4
    assert best_overlaps(found.labels.numpy(), instances).min() > 0.9
    # Networks that see the mirror image as they see the image: flips change nothing.
    flips: dict = {"flip_semantic": True, "flip_affinity": True}
    (flipped,) = InstanceSegmenter(disc_semantic, disc_affinity, DISC_OFFSETS, **DISC_OPTIONS, **flips, **options)(
        image
    )
    assert torch.equal(found.labels, flipped.labels)
    assert_close(found.scores, flipped.scores)


def test_flips_average_both_views():
    """Networks that depend on the column: the mean of both views is symmetric."""
    image = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    image = (image + image.flip(3)) / 2
    ramp = torch.linspace(-2, 2, 16)
    segmenter = InstanceSegmenter(
        lambda x: x[:, :2] + ramp,
        lambda x: x[:, :1] + ramp + torch.zeros(1, 16, 1, 1),
        NEAR,
        **STAGES,
        flip_semantic=True,
        flip_affinity=True,
    )
    semantic, affinity = segmenter.semantic(image), segmenter.affinities(image)
    assert_close(semantic, semantic.flip(3))
    assert_close(flip_affinities(affinity, NEAR), affinity)
    one = (image[:, :1] + ramp).sigmoid()
    assert_close(affinity, ((one + one.flip(3)) / 2).expand(-1, 16, -1, -1))


def test_maps_of_networks_with_a_stride_are_resized():
    image = torch.zeros(1, 3, 32, 48)
    image[..., 8:24, 8:40] = 1

    def semantic(image):
        low = F.avg_pool2d(image[:, :1], 4) * 20 - 10
        return torch.cat([-low, low], 1)

    segmenter = InstanceSegmenter(
        semantic, lambda x: torch.full((len(x), 16, 3, 3), 9.0), NEAR, **STAGES, roi_size=None
    )
    (found,) = segmenter(image)
    assert found.labels.shape == (32, 48)
    assert found.areas.tolist() == [int(found.labels.sum())]
    assert abs(int(found.areas[0]) - 16 * 32) < 60


def test_two_super_classes_that_claim_a_pixel():
    """Each region sees the other class less clearly: the pixel goes to where it is more probable."""
    calls = iter([0.0, 2.0, 3.0])  # image, region of class 1, region of class 2

    def semantic(image):
        n = next(calls)
        logits = torch.zeros(1, 3, 8, 8)
        logits[:, 1, :, :4], logits[:, 2, :, 4:] = 5, 5
        if n:
            logits[:, 1 if n == 2 else 2] += 4 * n
        return logits

    segmenter = InstanceSegmenter(
        semantic,
        lambda x: torch.full((1, 16, 8, 8), 9.0),
        NEAR,
        **STAGES,
        super_classes=[(1,), (2,)],
        partition=True,
        roi_size=None,
        refine=False,
    )
    (found,) = segmenter(torch.zeros(1, 3, 8, 8))
    assert found.labels[:, 4:].eq(found.labels[0, 7]).all()
    assert found.classes[found.labels[0, 7] - 1] == 2


def test_an_image_without_foreground():
    image = random_image(images=2)
    image[:, 0] += 50
    for found in InstanceSegmenter(*NETWORKS, NEAR, **STAGES)(image):
        assert found.labels.eq(0).all()
        assert found.labels.shape == (40, 90)
        assert found.votes.shape == (0, 4)


def test_a_segmenter_is_a_module_of_its_networks():
    segmenter = InstanceSegmenter(torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(3, 56, 1))
    assert len(list(segmenter.parameters())) == 4
    image = torch.rand(1, 3, 20, 20)
    (found,) = segmenter(image)
    assert not found.scores.requires_grad and found.labels.shape == (20, 20)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"roi_size": 0}, ValueError, "roi_size=0"),
        ({"roi_edge": "longer"}, ValueError, "roi_edge='longer'"),
        ({"max_scale": 0.5}, ValueError, "max_scale=0.5, expected at least 1"),
        ({"margin": -1}, ValueError, "margin=-1"),
        ({"windows": 2}, TypeError, "windows"),
        ({"window": 0}, ValueError, "window=0"),
    ],
)
def test_bad_options_of_a_segmenter_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        InstanceSegmenter(*NETWORKS, **options)


def test_bad_networks_are_refused():
    image = random_image()
    with pytest.raises(ValueError, match=r"for affinities, expected \[\*, 16, \*, \*\]"):
        InstanceSegmenter(NETWORKS[0], pointwise(0, 3), NEAR, **STAGES)(image)
    with pytest.raises(ValueError, match=r"for a network's output, expected \[1, \*, \*, \*\]"):
        InstanceSegmenter(lambda x: x[0], NETWORKS[1], NEAR, **STAGES)(image)
    with pytest.raises(ValueError, match="for image"):
        InstanceSegmenter(*NETWORKS, NEAR, **STAGES)(image[0])


# Corners


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 3), (33, 31)])
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_degenerate_images(size, switches):
    affinity, semantic = random_maps(size)
    affinity, everywhere = torch.ones_like(affinity), torch.zeros_like(semantic)
    everywhere[:, 1] = 1
    (found,) = segment_instances(affinity, everywhere, NEAR, **STAGES, **switches)
    large = size[0] * size[1] > switches.get("min_size", 0)
    assert found.labels.eq(int(large)).all() and len(found.areas) == large
    nowhere = everywhere.roll(-1, 1)
    (found,) = segment_instances(affinity, nowhere, NEAR, **STAGES, **switches)
    assert found.labels.eq(0).all() and found.votes.shape == (0, 4)
    (found,) = segment_instances(affinity * 0, everywhere, NEAR, **STAGES, **switches)
    window = switches.get("window", 1)
    assert len(found.areas) <= -(-size[0] // window) * -(-size[1] // window)


def test_no_offsets():
    _, semantic = random_maps((2, 2))
    semantic = torch.zeros_like(semantic)
    semantic[:, 2] = 1
    (found,) = segment_instances(torch.zeros(1, 0, 2, 2), semantic, [], window=1)
    assert found.labels.tolist() == [[1, 2], [3, 4]]
    assert found.scores.tolist() == [0.0] * 4


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_half_precision(low):
    affinity, semantic = random_maps((9, 9))
    affinity, semantic = affinity.to(low), semantic.to(low)
    (found,) = segment_instances(affinity, semantic, NEAR, **STAGES, **SWITCHES["everything"])
    (same,) = segment_instances(affinity.float(), semantic.float(), NEAR, **STAGES, **SWITCHES["foreground"])
    (half,) = segment_instances(affinity, semantic, NEAR, **STAGES, **SWITCHES["foreground"])
    assert found.scores.isfinite().all()
    assert_same(same, half)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"affinities": torch.rand(1, 15, 6, 7)}, ValueError, r"for affinities, expected \[\*, 16, \*, \*\]"),
        ({"semantic": torch.rand(1, 4, 6, 6)}, ValueError, r"for semantic, expected \[1, \*, 6, 7\]"),
        ({"semantic": torch.ones(1, 1, 6, 7)}, ValueError, "1 classes in semantic"),
        ({"semantic": torch.randn(1, 4, 6, 7) * 9}, ValueError, "in semantic, expected probabilities"),
        ({"semantic": torch.full((1, 4, 6, 7), torch.nan)}, ValueError, "nan in semantic, expected probabilities"),
        ({"semantic": torch.ones(1, 4, 6, 7, dtype=torch.int64)}, TypeError, "int64 for semantic"),
        ({"affinities": torch.ones(1, 16, 6, 7, dtype=torch.bool)}, TypeError, "bool for affinities"),
        ({"affinities": torch.rand(0, 16, 6, 7), "semantic": torch.rand(0, 4, 6, 7)}, ValueError, "at least one pixel"),
        ({"affinities": torch.full((1, 16, 6, 7), torch.nan)}, ValueError, "affinity"),
        ({"affinities": torch.full((1, 16, 6, 7), 1.5)}, ValueError, "affinity"),
        ({"thresholds": [0.5]}, ValueError, "1 thresholds, expected one for each of 2 stages"),
        ({"stages": [(1,), (4,)]}, ValueError, r"offset \(-2, -2\), expected a distance"),
        ({"stages": [(1, 2), (2,)]}, ValueError, "expected no distance twice"),
        ({"linkage": "mutex"}, ValueError, "linkage='mutex'"),
        ({"window": 0}, ValueError, "window=0"),
        ({"window": 2.0}, TypeError, "float for window"),
        ({"cell_size": 0}, ValueError, "cell_size=0"),
        ({"min_size": -1}, ValueError, "min_size=-1"),
        ({"partition": True}, ValueError, "expected super_classes with it"),
        ({"super_classes": [(1, 9)]}, ValueError, "expected disjoint sets of the classes 1 to 3"),
        ({"offsets": [(0, 1, 2)] * 16}, ValueError, r"offset \(0, 1, 2\)"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    affinity, semantic = random_maps()
    semantic[:, 1] += 1
    semantic /= 2
    given = {"affinities": affinity, "semantic": semantic, "offsets": NEAR, **STAGES, **change}
    with pytest.raises(error, match=message):
        segment_instances(**given)
