"""Metrics over batches and processes: what they give is what the functions give of the whole data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.spawn import spawn
from torch.testing import assert_close

from graphseg.metrics import average_precision, instance_overlaps
from graphseg.metrics.boundary import boundary_f_score
from graphseg.metrics.semantic import (
    confusion_matrix,
    frequency_weighted_iou,
    hungarian_accuracy,
    mean_iou,
    pixel_accuracy,
)
from graphseg.metrics.streaming import BoundaryMetric, InstanceMetric, SemanticMetric
from tests.conftest import RunPython

K, VOID = 5, 255
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0, "equal_nan": True}


def images(seed, count=7):
    """(clusters, classes, predicted instances, true instances, scores, classes of both) of images of odd sizes."""
    source = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        H, W = source.integers(4, 16, 2)
        y, x = np.indices((H, W))
        cells = (y // 4) * 4 + x // 4
        target = source.integers(0, K, 16)[cells]
        prediction = np.where(source.random((H, W)) < 0.3, source.integers(0, K, (H, W)), np.roll(target, 1, 1))
        target = np.where(source.random((H, W)) < 0.1, VOID, target)
        instances = np.where(source.random((H, W)) < 0.15, 0, 1 + cells)
        found.append(
            {
                "prediction": torch.from_numpy(prediction),
                "target": torch.from_numpy(target),
                "instances": torch.from_numpy(instances),
                "target_instances": torch.from_numpy(np.where(source.random(16) < 0.3, 0, 1 + np.arange(16))[cells]),
                "scores": torch.from_numpy(source.integers(0, 4, 16) / 3),
                "classes": torch.from_numpy(source.integers(0, 2, 16)),
                "target_classes": torch.from_numpy(source.integers(0, 2, 16)),
            }
        )
    return found


def metrics():
    return {
        "semantic": SemanticMetric(K),
        "clusters": SemanticMetric(K, num_clusters=K + 2),
        "boundary": BoundaryMetric(K, radius=0.1),
        "instances": InstanceMetric(min_area=2),
    }


def feed(found, batch):
    """Adds some images to every metric."""
    lists = {name: [image[name] for image in batch] for name in (batch[0] if batch else images(0, 1)[0])}
    pair = lists["prediction"], lists["target"]
    for name in ("semantic", "clusters", "boundary"):
        found[name].update(*pair)
    options = {name: lists[name] for name in ("scores", "classes", "target_classes")}
    found["instances"].update(lists["instances"], lists["target_instances"], **options)


def of_the_whole(found):
    """Name -> figures by the functions, of all images at once."""
    lists = {name: [image[name] for image in found] for name in found[0]}
    pair = lists["prediction"], lists["target"]
    matrix = confusion_matrix(*pair, K)
    clusters = confusion_matrix(*pair, K, num_predicted=K + 2)
    options: dict[str, Any] = {name: lists[name] for name in ("scores", "classes", "target_classes")}
    ap = average_precision(instance_overlaps(lists["instances"], lists["target_instances"], **options), 2)
    return {
        "semantic": {
            "miou": mean_iou(matrix),
            "pixel_accuracy": pixel_accuracy(matrix),
            "frequency_weighted_iou": frequency_weighted_iou(matrix),
        },
        "clusters": {"hungarian_accuracy": hungarian_accuracy(clusters).accuracy},
        "boundary": {"boundary_f": boundary_f_score(*pair, K, 0.1).score},
        "instances": {"ap": ap.ap, "ap50": ap.ap50},
    }


def check(found, expected):
    for name, figures in expected.items():
        assert found[name].keys() == figures.keys()
        for key, value in figures.items():
            assert found[name][key].dtype == torch.float64
            assert_close(found[name][key], value, **(ROUNDING if name == "boundary" else EXACT))


def computed(found):
    return {name: metric.compute() for name, metric in found.items()}


# One process


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 7), max_size=3).map(sorted))
def test_batches_of_any_sizes_give_the_whole(seed, cuts):
    data, found = images(seed), metrics()
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        feed(found, data[start:stop])
    check(computed(found), of_the_whole(data))


def test_order_does_not_matter_where_counts_are_whole():
    data = images(3)
    found = metrics()
    for image in data[::-1]:
        feed(found, [image])
    check(computed(found), of_the_whole(data))


def test_calls_give_the_batch_and_keep_the_whole():
    data = images(1)
    metric = SemanticMetric(K)
    instances = InstanceMetric()
    for image in data:
        batch = metric(image["prediction"], image["target"])
        matrix = confusion_matrix(image["prediction"], image["target"], K)
        assert_close(batch["miou"], mean_iou(matrix), **EXACT)
        alone = instances(image["instances"], image["target_instances"])
        table = instance_overlaps(image["instances"], image["target_instances"])
        assert_close(alone["ap"], average_precision(table).ap, **EXACT)
    assert_close(metric.compute()["miou"], of_the_whole(data)["semantic"]["miou"], **EXACT)
    maps = [[image[name] for image in data] for name in ("instances", "target_instances")]
    assert_close(instances.compute()["ap"], average_precision(instance_overlaps(*maps)).ap, **EXACT)


def test_a_reset_forgets():
    data, found = images(2), metrics()
    feed(found, data[:3])
    computed(found)
    for metric in found.values():
        metric.reset()
    feed(found, data[3:])
    check(computed(found), of_the_whole(data[3:]))


def test_copies_keep_what_they_saw():
    data, found = images(4), metrics()
    feed(found, data[:3])
    copies = {name: metric.clone() for name, metric in found.items()}
    feed(copies, data[3:])
    check(computed(copies), of_the_whole(data))
    check(computed(found), of_the_whole(data[:3]))
    other = metrics()
    feed(other, data[3:])
    for name, metric in other.items():
        metric.merge_state(found[name])
    check(computed(other), of_the_whole(data))


def test_devices(device):
    data = images(5)
    found = {name: metric.to(device) for name, metric in metrics().items()}
    feed(found, [{name: value.to(device) for name, value in image.items()} for image in data])
    result = computed(found)
    assert {value.device.type for figures in result.values() for value in figures.values()} == {device.type}
    check({name: {k: v.cpu() for k, v in figures.items()} for name, figures in result.items()}, of_the_whole(data))


def test_street_scenes_image_by_image(shared_data):
    # Here, since the processes below import this file, and PyG takes seconds.
    from tests.transforms.photos import read_image, read_rows

    maps = [read_image(path)[::4, ::4].astype(np.int64) for _, path in read_rows(shared_data, "camvid", 6)]
    target = torch.from_numpy(np.stack(maps))
    prediction = target.roll(2, -1) % 11
    metric, edges = SemanticMetric(11, 11), BoundaryMetric(11, 1, 11)
    for pair in zip(prediction, target, strict=True):
        metric.update(*pair)
        edges.update(*pair)
    matrix = confusion_matrix(prediction, target, 11, 11)
    assert torch.equal(metric.matrix, matrix)
    assert metric.compute()["miou"] == mean_iou(matrix)
    assert_close(edges.compute()["boundary_f"], boundary_f_score(prediction, target, 11, 1, 11).score, **ROUNDING)


# Several processes


def one_of(rank: int, cases: list[list[list[int]]], folder: Path) -> None:
    """What a process does: its share of the images, then the figures of all; and on with its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(cases[0]))
    data, results = images(6), []
    for shares in cases:
        found = metrics()
        for b in shares[rank]:
            feed(found, [data[b]])
        result = computed(found)
        feed(found, [data[0]])
        results.append([result, found["semantic"].matrix, len(found["instances"].tables)])
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_one(tmp_path):
    cases = [[[0, 2, 4, 6], [1, 3, 5]], [list(range(7)), []]]  # unequal shares, and an idle process
    spawn(one_of, (cases, tmp_path), 2)
    data = images(6)
    expected = of_the_whole(data)
    for rank in range(2):
        for shares, (result, matrix, tables) in zip(
            cases, torch.load(tmp_path / f"{rank}.pt", weights_only=True), strict=True
        ):
            check(result, expected)
            own = [data[b] for b in [*shares[rank], 0]]
            maps = ([image[name] for image in own] for name in ("prediction", "target"))
            assert torch.equal(matrix, sum(map(confusion_matrix, *maps, [K] * len(own)), torch.zeros_like(matrix)))
            assert tables == 1 + len(own)


# Imports and refusals


def test_torchmetrics_is_imported_only_here(run_python: RunPython):
    check = "import sys; import graphseg.metrics; print('torchmetrics' in sys.modules, 'scipy.optimize' in sys.modules)"
    assert run_python("-c", check).stdout.split() == ["False", "False"]
    assert "torchmetrics" in sys.modules


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SemanticMetric(0), "got num_classes=0"),
        (lambda: SemanticMetric(3, num_clusters=0), "got num_clusters=0"),
        (lambda: BoundaryMetric(0), "got num_classes=0"),
        (lambda: BoundaryMetric(3, absent="zero"), "got absent='zero'"),
        (lambda: InstanceMetric(-1), "got min_area=-1"),
        (lambda: SemanticMetric(3).update(torch.tensor([[3]]), torch.tensor([[0]])), "got class 3 in prediction"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
