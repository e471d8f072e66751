"""Judging: the figures of stub networks are those that loops and hands find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphseg.ops.instance_map import Instances
from graphseg.training import Judge, evaluate, stack_images
from graphseg.training.evaluation import instance_classes, make_judge
from tests.reference import instance_metrics as loops
from tests.reference import semantic_metrics as reference
from tests.training._small import Scenes, tiny


class Stub(nn.Module):
    """Says of a pixel what a table says of the sum of its channels: K classes, none of them the truth."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor, superpixels: Tensor | None = None) -> Any:
        assert not self.training
        self.sizes.append(tuple(image.shape))
        bins = (image.sum(1) * 2).long() % self.num_classes  # [B, H, W]
        logits = nn.functional.one_hot(bins, self.num_classes).movedim(3, 1).double()
        return type("Out", (tuple,), {"logits": logits})((logits,))


def answers(network, reader, recipe):
    """Pairs (prediction, target) as arrays."""
    found = []
    for i in range(len(reader)):
        batch = stack_images([reader[i]], reader.ignore_index, recipe.class_map)
        prediction = network.eval()(batch["image"]).logits.argmax(1)[0]
        found.append((prediction.numpy(), batch["mask"][0].numpy()))
    return found


@pytest.mark.parametrize("void", [255, 0])
@pytest.mark.parametrize("class_map", [(), (1, 0, 1)])
def test_class_maps_are_judged_as_by_loops(void, class_map):
    reader, recipe = Scenes(3, growth=1, void=void), tiny(class_map=class_map)
    K = 2 if class_map else 3
    network = Stub(K)
    got = evaluate(network, reader, recipe, boundary_radius=2)
    table = np.zeros((K, K), int)
    scores = []
    for prediction, target in answers(network, reader, recipe):
        table += np.array(reference.confusion(prediction, target, K, K, 255))
        scores.append(reference.boundary_f(prediction, target, K, 2, 255))
    expected = reference.figures(table.tolist())
    assert got["miou"] == pytest.approx(expected["mean_iou"])
    assert got["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"])
    assert got["frequency_weighted_iou"] == pytest.approx(expected["frequency_weighted_iou"])
    assert got["boundary_f"] == pytest.approx(np.nanmean(np.nanmean(np.array(scores), axis=0)))
    assert set(got) == {"miou", "pixel_accuracy", "frequency_weighted_iou", "boundary_f"}
    assert 0 < got["miou"] < 1


class Permuted(nn.Module):
    """Knows the truth, but calls class k `order[k]`; so many pixels in `wrong` are off by one."""

    def __init__(self, reader: Scenes, order: list[int], wrong: int = 0) -> None:
        super().__init__()
        self.num_classes, self.order, self.wrong, self.reader, self.calls = len(order), order, wrong, reader, 0

    def forward(self, image: Tensor, superpixels: Tensor | None = None) -> Any:
        mask = self.reader[self.calls].mask
        self.calls += 1
        cluster = torch.tensor(self.order)[mask.where(mask != 255, 0)]
        if self.wrong:
            cluster[-1, : self.wrong] = (cluster[-1, : self.wrong] + 1) % self.num_classes
        logits = nn.functional.one_hot(cluster, self.num_classes).movedim(2, 0).unsqueeze(0).float()
        return type("Out", (tuple,), {"logits": logits})((logits,))


def test_clusters_are_matched_over_all_images():
    reader, recipe = Scenes(4), tiny("SGSeg")
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        assert evaluate(Permuted(reader, order), reader, recipe) == {"hungarian_accuracy": 1.0}
    pixels = 4 * 23 * 32  # without the void row
    got = evaluate(Permuted(reader, [2, 0, 1], wrong=8), reader, recipe)
    assert got == {"hungarian_accuracy": pytest.approx(1 - 4 * 8 / pixels)}


def test_more_clusters_than_classes_are_matched_too():
    reader = Scenes(2)
    judge = make_judge(Permuted(reader, [4, 0, 3, 1, 2]), tiny("SGSeg"), reader)
    assert judge.metrics["classes"].matrix.shape == (3, 5)
    assert evaluate(Permuted(reader, [4, 0, 3, 1, 2]), reader, tiny("SGSeg")) == {"hungarian_accuracy": 1.0}


class Finder(nn.Module):
    """Finds the true instances of even number, with their classes."""

    def __init__(self, reader: Scenes, recipe: Any, every: int = 1) -> None:
        super().__init__()
        self.reader, self.recipe, self.every, self.calls = reader, recipe, every, 0
        self.options: list[dict[str, Any]] = []

    def segment(self, image: Tensor, **options: Any) -> list[Instances]:
        self.options.append(options)
        data = self.reader[self.calls]
        self.calls += 1
        kept = data.instances.where(data.instances % self.every == 0, 0)
        labels = torch.unique(kept, return_inverse=True)[1]
        if not (kept == 0).any():
            labels = labels + 1
        n = int(labels.max())
        classes = torch.stack([data.mask[(labels == k) & (data.mask != 255)].mode().values for k in range(1, n + 1)])
        votes = torch.zeros(n, 3, dtype=torch.int64)
        areas = torch.stack([(labels == k).sum() for k in range(1, n + 1)])
        return [Instances(labels, classes, torch.linspace(1, 0.5, n, dtype=torch.float64), areas, votes)]


def test_all_instances_found_are_a_precision_of_one():
    for classes in (2, 3):
        reader, recipe = Scenes(3, num_classes=classes), tiny("AffinityInstances")
        network = Finder(reader, recipe)
        got = evaluate(network, reader, recipe, options={"window": 1})
        assert got == {"ap": pytest.approx(1.0), "ap50": pytest.approx(1.0)}
        assert network.options == [{"window": 1}] * 3


@pytest.mark.parametrize("classes", [2, 3])
def test_instances_that_are_missed_lower_the_precision_as_in_loops(classes):
    reader, recipe = Scenes(3, num_classes=classes), tiny("AffinityInstances")
    got = evaluate(Finder(reader, recipe, every=2), reader, recipe)
    finder, images = Finder(reader, recipe, every=2), []
    for i in range(3):
        data = reader[i]
        (found,) = finder.segment(data.image)
        several = classes > 2  # else the classes are not told apart
        predictions = [
            loops.Instance((found.labels == k + 1).numpy(), int(label) if several else 0, float(score))
            for k, (label, score) in enumerate(zip(found.classes, found.scores, strict=True))
        ]
        numbers = range(1, int(data.instances.max()) + 1)
        labels = instance_classes(data.instances, data.mask, classes) if several else torch.zeros(9).long()
        truth = [loops.Instance((data.instances == k).numpy(), int(labels[k - 1])) for k in numbers]
        void = ((data.mask == 255) & (data.instances == 0)).numpy()
        images.append(loops.Image(predictions, [one for one in truth if one.area], void))
    expected = loops.average_precision(images)
    assert got["ap"] == pytest.approx(np.mean([np.mean(row) for row in expected.values()]))
    assert got["ap50"] == pytest.approx(np.mean([row[0] for row in expected.values()]))
    assert 0.2 < got["ap"] < 0.8


class Given(nn.Module):
    """Finds what it is given."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels = labels

    def segment(self, image: Tensor) -> list[Instances]:
        n = int(self.labels.max())
        ones = torch.ones(n, dtype=torch.int64)
        return [Instances(self.labels, ones, ones.double(), ones, torch.zeros(n, 2, dtype=torch.int64))]


@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_found_where_nothing_is_known_is_no_mistake(classes):
    truth = torch.zeros(1, 6, 8, dtype=torch.int64)
    truth[0, :2, :4] = 255  # a number like any other
    mask = (truth > 0).long()
    found = torch.zeros(6, 8, dtype=torch.int64)
    found[:2, :4], found[4:, 4:] = 1, 2
    image = torch.zeros(1, 3, 6, 8)
    values = []
    for void in (False, True):
        judge = Judge("instances", classes)
        mask[0, 4:] = 255 if void else 0
        judge.update(Given(found), {"image": image, "mask": mask, "instances": truth})
        values.append(judge.compute()["ap"])
    assert values[1] == 1 and values[0] < 1
    judge = Judge("instances", 2)
    judge.update(Given(found), {"image": image, "instances": truth})
    assert judge.compute()["ap"] == values[0]


def test_small_instances_count_on_request():
    reader, recipe = Scenes(2, num_classes=2), tiny("AffinityInstances")
    found = evaluate(Finder(reader, recipe), reader, recipe, min_area=10**6)
    assert np.isnan(found["ap"])


def test_classes_of_instances_are_votes_of_labelled_pixels():
    instances = torch.tensor([[1, 1, 1, 2], [2, 2, 4, 4], [0, 0, 5, 5]])
    mask = torch.tensor([[1, 2, 2, 255], [1, 255, 2, 0], [1, 1, 255, 255]])
    # 1: one of class 1, two of 2. 2: one of 1. 3 is not there. 4: a tie, the lower one. 5: no label.
    assert instance_classes(instances, mask, 3).tolist() == [2, 1, 0, 0, 0]
    assert instance_classes(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2).long(), 3).tolist() == []


def test_scales_and_flips_are_those_of_the_multiscale_test():
    from graphseg.metrics import multiscale_probabilities

    reader = Scenes(1)
    judge = Judge("semantic", 3, scales=(0.5, 1.0), flip=True)
    network = Stub().eval()
    image = stack_images([reader[0]], 255)["image"]
    expected = multiscale_probabilities(network, image, (0.5, 1.0), True).argmax(1)
    assert torch.equal(judge.predict(network, image), expected)
    assert {size[2:] for size in network.sizes} == {(12, 16), (24, 32)}
    assert torch.equal(Judge("semantic", 3).predict(network, image), network(image).logits.argmax(1))


def test_images_are_resized_as_the_recipe_says():
    network = Stub()
    evaluate(network, Scenes(2, growth=3), tiny(resize=(10, 12)))
    assert network.sizes == [(1, 3, 10, 12)] * 2


def test_figures_are_forgotten_on_request():
    reader, judge, network = Scenes(2), Judge("semantic", 3), Stub().eval()
    batches = [stack_images([reader[i]], 255) for i in range(2)]
    judge.update(network, batches[0])
    first = judge.compute()
    judge.reset()
    judge.update(network, batches[1])
    second = judge.compute()
    assert first != second
    judge.reset()
    judge.update(network, batches[0])
    assert judge.compute() == first


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match=r"got Scenes\(2\) without classes, expected masks to judge by"):
        evaluate(Stub(), Scenes(2, num_classes=None), tiny())
    with pytest.raises(ValueError, match="got kind='panoptic', expected one of"):
        Judge("panoptic", 3)
    with pytest.raises(ValueError, match="got a class_map of 2 classes, expected 3 as in the masks"):
        evaluate(Stub(), Scenes(2), tiny(class_map=(0, 1)))
