"""The network of affinities and instances: against hand-counted sizes, plain loops, and instances that come back."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.datasets import DSB2018
from graphseg.models.affinity_instances import AffinityInstances
from graphseg.models.resnet import resnet18
from graphseg.models.segmentation import SegmentationNetwork
from graphseg.nn import InstanceSegmenter, segment_instances
from graphseg.ops import affinity_offsets
from tests.reference import affinity as reference

TINY: dict[str, Any] = {"backbone": "resnet18", "width": 0.125, "distances": (1, 2, 4, 8)}


def tiny(num_classes=2, **options):
    return AffinityInstances(num_classes, **TINY | options)


class Channels(nn.Module):
    """A network that finds its logits among the channels of the image."""

    def __init__(self, first, count):
        super().__init__()
        self.first, self.count = first, count
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return self.scale * image[:, self.first : self.first + self.count]


def reader(num_classes=2, distances=(1, 2), **options):
    """Both branches read the image's channels, the classes' first."""
    K = 8 * len(distances)
    parts: dict[str, Any] = {"semantic": Channels(0, num_classes), "instance": Channels(num_classes, K)}
    return AffinityInstances(num_classes, distances=distances, **parts, **options)


def problem(size=(4, 5), images=2, classes=2, distances=(1, 2), dtype=torch.float64):
    """Logits as an image, instances with the background 0 and unknown pixels -1, classes with unknown pixels 255."""
    image = torch.randn(images, classes + 8 * len(distances), *size, dtype=dtype)
    instances = torch.randint(0, 4, (images, *size))
    mask = instances % classes
    instances = instances.masked_fill(torch.rand(images, *size) < 0.1, -1)
    mask = mask.masked_fill(torch.rand(images, *size) < 0.1, 255)
    return image, instances, mask


# What it is made of


def test_channels_and_parameters_counted_by_hand():
    network = AffinityInstances(backbone="resnet18")
    resnet = 11_689_512 - 513 * 1000  # torchvision's, without its classifier
    norm = 2 * 256
    aspp = 2 * (512 * 256 + norm) + 3 * (9 * 512 * 256 + norm) + 5 * 256 * 256 + norm
    for branch, channels in ((network.semantic, 9), (network.instance, 56)):
        assert sum(p.numel() for p in branch.parameters()) == resnet + aspp + 257 * channels
    assert network.offsets == reference.neighbourhood((1, 2, 4, 8, 16, 32, 64))
    assert not {id(p) for p in network.semantic.parameters()} & {id(p) for p in network.instance.parameters()}
    groups = network.parameter_groups()
    assert list(groups) == ["all"] and len({id(p) for p in groups["all"]}) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("options", "strides", "rates"),
    [
        ({}, (16, 16), (6, 12, 18)),
        ({"output_stride": 8}, (8, 8), (12, 24, 36)),
        ({"semantic_stride": 8}, (8, 16), (12, 24, 36)),
        ({"instance_stride": 8}, (16, 8), (6, 12, 18)),
        ({"head": "deeplabv3plus"}, (4, 4), (6, 12, 18)),
        ({"head": "pspnet", "output_stride": 8}, (8, 8), None),
    ],
)
def test_strides_of_either_branch(options, strides, rates):
    network = tiny(**options).eval()
    sizes = []
    for branch in (network.semantic, network.instance):
        branch.classifier.register_forward_hook(lambda _, inputs, out: sizes.append(inputs[0].shape[2:]))
    with torch.no_grad():
        out = network(torch.rand(1, 3, 64, 96))
    assert sizes == [(64 // s, 96 // s) for s in strides]
    assert out.logits.shape == (1, 2, 64, 96) and out.affinities.shape == (1, 32, 64, 96)
    if rates is not None:
        dilations = {m.dilation[0] for m in network.semantic.head.aspp.modules() if isinstance(m, nn.Conv2d)}
        assert dilations == {1, *rates}


def test_only_the_papers_head_joins_its_branches_by_one_pixel():
    kernels = [tiny(head=head).semantic.head.aspp.fuse[0].kernel_size for head in ("deeplabv3", "deeplabv3plus")]
    assert kernels[0] == (1, 1)


def test_a_backbone_serves_one_branch_and_its_copy_the_other():
    backbone = resnet18(output_stride=16, width=0.125)
    network = AffinityInstances(2, backbone=backbone, width=0.125, distances=(1,))
    semantic, instance = network.semantic.get_submodule("backbone"), network.instance.get_submodule("backbone")
    assert semantic is backbone and instance is not backbone
    for a, b in zip(semantic.parameters(), instance.parameters(), strict=True):
        assert a is not b and torch.equal(a, b)


def test_any_two_networks_can_be_the_branches():
    semantic = SegmentationNetwork(3, backbone="resnet18", width=0.125, head="pspnet")
    network = AffinityInstances(3, semantic=semantic, instance=nn.Conv2d(3, 8, 3, stride=4), distances=(2,)).eval()
    image = torch.rand(2, 3, 40, 48)
    out = network(image)
    assert torch.equal(out.logits, semantic(image).logits)
    expected = F.interpolate(network.instance(image), (40, 48), mode="bilinear", align_corners=False)
    assert torch.equal(out.affinities, expected)
    assert network.offsets == reference.neighbourhood((2,))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": "deeplabv3plus", "balance": "channel", "calibrate": True, "merge": {"stages": [(1, 2, 4), (8,)]}},
    ],
)
def test_options_and_state_make_the_network_again(options):
    network = tiny(**options)
    network.losses({"image": torch.rand(2, 3, 40, 40), "instances": torch.randint(0, 3, (2, 40, 40))})
    again = AffinityInstances(**json.loads(json.dumps(network.options)))
    again.load_state_dict(network.state_dict())
    assert again.options == network.options
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        for a, b in zip(network.eval()(image), again.eval()(image), strict=True):
            assert torch.equal(a, b)


# The forward pass


@pytest.mark.parametrize("head", ["deeplabv3", "deeplabv3plus"])
def test_batch_is_its_images(head, device):
    network = tiny(head=head).to(device).eval()
    images = torch.rand(3, 3, 33, 50, device=device)
    with torch.no_grad():
        together, singles = network(images), [network(image[None]) for image in images]
    for field in ("logits", "affinities"):
        assert_close(getattr(together, field), torch.cat([getattr(one, field) for one in singles]))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 2), (31, 33)])
@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_any_size_and_channels(size, channels):
    network = tiny(in_channels=channels, output_stride=8).eval()
    image = torch.rand(2, channels, *size)
    with torch.no_grad():
        out = network(image)
    assert out.logits.shape == (2, 2, *size) and out.affinities.shape == (2, 32, *size)
    assert out.logits.isfinite().all() and out.affinities.isfinite().all()
    for found in network.segment(image):
        assert found.labels.shape == size


# The losses


def loop_losses(image, instances, mask, classes, distances, background, balance):
    """Semantic and affinity loss, pixel by pixel and pair by pair."""
    offsets = reference.neighbourhood(distances)
    semantic: list[float] = []
    pairs: list[tuple[list[float], list[float]]] = [([], []) for _ in offsets]
    for x, ids, labels in zip(image.tolist(), instances.tolist(), mask.tolist(), strict=True):
        H, W = len(ids), len(ids[0])
        for i in range(H):
            for j in range(W):
                if labels[i][j] == 255:
                    ids[i][j] = -1
                    continue
                scores = [math.exp(x[c][i][j]) for c in range(classes)]
                semantic.append(-math.log(scores[labels[i][j]] / sum(scores)))
        target = reference.targets(ids, offsets, None if background == "same" else 0, -1)
        for k, (dy, dx) in enumerate(offsets):
            for i in range(H):
                for j in range(W):
                    t = target[k][i][j]
                    if t == -100 or (background == "ignore" and ids[i][j] == ids[i + dy][j + dx] == 0):
                        continue
                    p = 1 / (1 + math.exp(-x[classes + k][i][j]))
                    pairs[k][t].append(-math.log(p if t else 1 - p))
    if balance == "none":
        losses = [loss for channel in pairs for kind in channel for loss in kind]
        return np.mean(semantic), np.mean(losses)
    total = sum(len(kind) for channel in pairs for kind in channel)
    weighted: Any = 0.0
    for channel in pairs:
        kinds = [kind for kind in channel if kind]
        weighted += sum(len(channel[0] + channel[1]) * np.mean(kind) / len(kinds) for kind in kinds)
    return np.mean(semantic), weighted / total


@pytest.mark.parametrize("background", ["different", "same", "ignore"])
@pytest.mark.parametrize("balance", ["none", "channel"])
@pytest.mark.parametrize("classes", [2, 3])
def test_losses_are_the_loops(background, balance, classes, device):
    image, instances, mask = problem(classes=classes)
    network = reader(classes, background=background, balance=balance).to(device)
    batch = {"image": image.to(device), "instances": instances.to(device), "mask": mask.to(device)}
    found = network.losses(batch)
    semantic, affinity = loop_losses(image, instances, mask, classes, (1, 2), background, balance)
    assert float(found["semantic"]) == pytest.approx(semantic, rel=1e-9)
    assert float(found["affinity"]) == pytest.approx(affinity, rel=1e-9)
    assert float(found["loss"].detach()) == pytest.approx(semantic + affinity, rel=1e-9)
    assert found["loss"].requires_grad and not found["semantic"].requires_grad and not found["affinity"].requires_grad


def test_what_a_batch_lacks_has_no_loss():
    image, instances, mask = problem(classes=3)
    network = reader(3)
    both = network.losses({"image": image, "instances": instances, "mask": mask})
    only = network.losses({"image": image, "mask": mask})
    assert set(only) == {"loss", "semantic"} and torch.equal(only["semantic"], both["semantic"])
    assert set(network.losses({"image": image, "instances": instances})) == {"loss", "affinity"}
    image, instances, _ = problem()
    known = reader().losses({"image": image, "instances": instances, "mask": (instances > 0).long()})
    assert float(known["affinity"]) > 0
    foreground = (instances > 0).long().masked_fill(instances < 0, 255)
    found = reader().losses({"image": image, "instances": instances})
    expected = reader().losses({"image": image, "instances": instances, "mask": foreground})
    assert {k: float(v.detach()) for k, v in found.items()} == {k: float(v.detach()) for k, v in expected.items()}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.uint16])
def test_instances_of_any_integer_dtype(dtype):
    image, instances, mask = problem()
    instances = instances.clamp(min=0)
    losses = [
        reader().losses({"image": image, "instances": ids, "mask": mask}) for ids in (instances, instances.to(dtype))
    ]
    assert torch.equal(losses[0]["loss"], losses[1]["loss"])


def test_nothing_known_is_no_loss():
    image, instances, mask = problem()
    for balance in ("none", "channel"):
        network = reader(balance=balance)
        found = network.losses({"image": image, "instances": instances.fill_(-1), "mask": mask.fill_(255)})
        found["loss"].backward()
        assert float(found["loss"].detach()) == 0.0
        assert all(float(p.grad) == 0.0 for p in network.parameters())


def test_every_parameter_learns():
    network = tiny(3, head="deeplabv3plus", background="ignore", balance="channel")
    mask = torch.randint(0, 3, (2, 40, 40))
    found = network.losses({"image": torch.rand(2, 3, 40, 40), "instances": mask, "mask": mask})
    found["loss"].backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []
    assert [name for name, g in gradients.items() if not g.any()] == []


class Meeting:
    """Sums over two threads that stand for processes: the value is everybody's, the gradient one's own."""

    def __init__(self):
        self.barrier, self.shared = threading.Barrier(2, timeout=60), {}

    def reduce_of(self, rank):
        def reduce(x):
            self.shared[rank] = x.detach().clone()
            self.barrier.wait()
            total = x + self.shared[1 - rank]
            self.barrier.wait()
            return total

        return reduce


@pytest.mark.parametrize("balance", ["none", "channel"])
@pytest.mark.parametrize("background", ["different", "ignore"])
def test_two_processes_have_the_gradient_of_one(balance, background):
    """Shares of one and of two images, of which as many pixels are unknown as happens."""
    image, instances, mask = problem(images=3)
    batch = {"image": image, "instances": instances, "mask": mask}
    whole = reader(balance=balance, background=background)
    expected = whole.losses(batch)
    expected["loss"].backward()
    networks = [reader(balance=balance, background=background) for _ in range(2)]
    meeting, found = Meeting(), {}

    def work(rank):
        share = {name: value[rank : 2 * rank + 1] for name, value in batch.items()}
        found[rank] = networks[rank].losses(share, reduce=meeting.reduce_of(rank))
        found[rank]["loss"].backward()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(2):
        for name, value in expected.items():
            assert_close(found[rank][name].detach(), value.detach())
        assert torch.equal(networks[rank].pair_counts, whole.pair_counts)
    shares = zip(*(network.parameters() for network in networks), strict=True)
    for p, (a, b) in zip(whole.parameters(), shares, strict=True):
        assert_close(a.grad + b.grad, p.grad)


def test_half_precision_adds_up_in_full():
    network = tiny()
    batch = {"image": torch.rand(2, 3, 40, 40), "instances": torch.randint(0, 3, (2, 40, 40))}
    with torch.autocast("cpu", torch.bfloat16):
        found = network.losses(batch)
    assert found["loss"].dtype == torch.float32 and found["loss"].isfinite()


# Balanced training and its correction


@pytest.mark.parametrize("background", ["different", "same", "ignore"])
def test_calibrated_affinities_are_frequencies(background):
    """The best balanced logits that know nothing are 0; corrected they are the share of pairs that are the same."""
    image, instances, mask = problem((9, 11), images=4)
    network = reader(balance="channel", background=background, calibrate=True)
    logits = torch.zeros_like(image).requires_grad_()
    for part in range(2):  # two steps of two images
        part_of = slice(2 * part, 2 * part + 2)
        batch = {"image": logits[part_of], "instances": instances[part_of], "mask": mask[part_of]}
        network.losses(batch)["affinity"]
    whole = reader(balance="channel", background=background)
    whole.losses({"image": logits, "instances": instances, "mask": mask})["loss"].backward()
    assert logits.grad is not None
    gradient = logits.grad[:, 2:].sum((0, 2, 3))
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)

    same, count = np.zeros(16), np.zeros(16)
    for ids, labels in zip(instances, mask, strict=True):
        ids = ids.masked_fill(labels == 255, -1).tolist()
        target = reference.targets(ids, network.offsets, None if background == "same" else 0, -1)
        for k, (dy, dx) in enumerate(network.offsets):
            for i, row in enumerate(target[k]):
                for j, t in enumerate(row):
                    if t != -100 and not (background == "ignore" and ids[i][j] == ids[i + dy][j + dx] == 0):
                        same[k], count[k] = same[k] + t, count[k] + 1
    assert network.pair_counts.tolist() == [(count - same).tolist(), same.tolist()]
    assert torch.equal(network.affinity_logits(image), image[:, 2:])  # in training as it is
    affinity = network.eval().affinity_logits(torch.zeros_like(image)).sigmoid()
    assert_close(affinity, torch.from_numpy(same / count).view(1, -1, 1, 1).expand_as(affinity))


def test_counts_are_of_balanced_training_only():
    image, instances, mask = problem()
    batch = {"image": image, "instances": instances, "mask": mask}
    for network, counted in ((reader(), 0), (reader(balance="channel").eval(), 0), (reader(balance="channel"), 1)):
        network.losses(batch)
        assert int(network.pair_counts.any()) == counted
    # The loss of validation is that of training, corrected or not.
    plain, corrected = (reader(balance="channel", calibrate=flag) for flag in (False, True))
    for network in (plain, corrected):
        network.losses(batch)
        network.eval()
    assert torch.equal(plain.losses(batch)["loss"], corrected.losses(batch)["loss"])
    assert torch.equal(plain.affinity_logits(image), image[:, 2:])
    assert not torch.equal(corrected.affinity_logits(image), image[:, 2:])


def test_a_class_of_pairs_that_never_occurred_is_not_corrected():
    image, _, mask = problem()
    network = reader(balance="channel", calibrate=True)
    network.losses({"image": image, "instances": torch.ones_like(mask), "mask": torch.ones_like(mask)})
    assert network.log_odds().tolist() == [0.0] * 16
    assert torch.equal(network.eval().affinity_logits(image), image[:, 2:])


# Instances


DISTANCES = (1, 2, 4, 8)
PAPER: dict[str, dict[str, Any]] = {  # rows of Tables 2 and 3
    "baseline": {"refine": False, "roi_size": None, "window": 1},
    "PAR": {"roi_size": None, "window": 1},
    "PAR, RR": {"roi_size": 150, "window": 1},
    "PAR, RR, FLM 2": {"roi_size": 150},
    "PAR, RR, FLM 4": {"roi_size": 150, "window": 4},
    "PAR, RR, FLM, SCP": {"roi_size": 150, "super_classes": [(1,), (2,)], "partition": True},
    "SHF, IHF": {"roi_size": 150, "flip_semantic": True, "flip_affinity": True},
    "SCR": {"roi_size": 150, "class_refinement": (1, 2)},
}


class DiscSemantic(nn.Module):
    """Classes 1 and 2 in turn, from an image with a channel for each disc."""

    def forward(self, image):
        odd, even = image[:, ::2].sum(1), image[:, 1::2].sum(1)
        return torch.stack([0.5 - odd - even, odd - 0.5, even - 0.5], 1) * 100


class DiscAffinity(nn.Module):
    """Whether the neighbour belongs to the same disc; the background to none."""

    def forward(self, image):
        H, W = image.shape[2:]
        channel, planes = image.argmax(1), []
        for dy, dx in affinity_offsets(DISTANCES):
            rows, columns = (torch.arange(n).add(d).clamp(0, n - 1) for n, d in ((H, dy), (W, dx)))
            planes.append(torch.where(channel[:, rows][..., columns] == channel, 9.0, -9.0))
        return torch.stack(planes, 1)


def discs():
    """Four instances of two classes, of which two touch; and their image."""
    y, x = np.indices((120, 160))
    instances = np.zeros((120, 160), np.int64)
    for n, (v, u, r) in enumerate([(40, 40, 18), (40, 74, 18), (90, 130, 14), (100, 20, 6)]):
        instances[(y - v) ** 2 + (x - u) ** 2 <= r * r] = n + 1
    return instances, F.one_hot(torch.from_numpy(instances), 5).movedim(2, 0)[None, 1:].float()


def disc_network():
    return AffinityInstances(3, semantic=DiscSemantic(), instance=DiscAffinity(), distances=DISTANCES).eval()


@pytest.mark.parametrize("row", PAPER)
def test_instances_come_back_with_every_switch(row):
    instances, image = discs()
    (found,) = disc_network().segment(image, min_size=30, **PAPER[row])
    least = {1: 0.98, 2: 0.88, 4: 0.8}[PAPER[row].get("window", 2)]  # blocks on borders are lost
    assert len(found.areas) == 4
    for n in range(1, 5):
        labels = found.labels.numpy()
        best = int(np.bincount(labels[instances == n]).argmax())
        assert ((labels == best) & (instances == n)).sum() / ((labels == best) | (instances == n)).sum() > least
        assert found.classes[best - 1] == 1 + (n - 1) % 2


def test_segment_is_the_merge_of_the_networks_maps():
    network = tiny(3, head="deeplabv3plus", balance="channel", calibrate=True)
    mask = torch.randint(0, 3, (2, 40, 56))
    network.losses({"image": torch.rand(2, 3, 40, 56), "instances": mask, "mask": mask})
    image = torch.rand(2, 3, 40, 56)
    with torch.no_grad():
        logits, affinities = network.eval()(image)
    stages: dict[str, Any] = {"stages": [(1, 2, 4), (8,)], "thresholds": [0.97, 0.7]}
    options: dict[str, Any] = {"cell_size": None, "window": 1}
    expected = segment_instances(affinities.sigmoid(), logits.softmax(1), network.offsets, **stages, **options)
    for found, same in zip(network.segment(image, roi_size=None, **options), expected, strict=True):
        assert torch.equal(found.labels, same.labels) and torch.equal(found.scores, same.scores)
    chosen: dict[str, Any] = {"stages": [DISTANCES], "thresholds": [0.5], "linkage": "counted", "roi_size": 60}
    segmenter = InstanceSegmenter(network.semantic_logits, network.affinity_logits, network.offsets, **chosen)
    given = tiny(3, head="deeplabv3plus", balance="channel", calibrate=True, merge=chosen | {"roi_size": 20})
    given.load_state_dict(network.state_dict())
    results = network.segment(image, **chosen), given.eval().segment(image, roi_size=60), segmenter(image)
    for found, by_default, same in zip(*results, strict=True):
        assert torch.equal(found.labels, same.labels) and torch.equal(found.scores, same.scores)
        assert torch.equal(by_default.labels, same.labels) and torch.equal(by_default.scores, same.scores)


@pytest.mark.parametrize(
    ("distances", "stages", "thresholds"),
    [
        ((1, 2, 4, 8, 16, 32, 64), [[1, 2, 4], [8, 16], [32, 64]], [0.97, 0.7, 0.3]),
        ((8, 2, 1, 4), [[1, 2, 4], [8]], [0.97, 0.7]),
        ((1, 24), [[1], [24]], [0.97, 0.3]),
        ((9,), [[9]], [0.7]),
    ],
)
def test_stages_are_of_the_distances_that_there_are(distances, stages, thresholds, monkeypatch):
    import graphseg.models.affinity_instances as module

    seen: dict[str, Any] = {}

    def segmenter(*networks, **options):
        seen.update(options)
        return InstanceSegmenter(*networks, **options)

    monkeypatch.setattr(module, "InstanceSegmenter", segmenter)
    network = reader(distances=distances).eval()
    assert network.offsets == reference.neighbourhood(sorted(distances))
    (found,) = network.segment(torch.zeros(1, 2 + len(network.offsets), 5, 6))
    assert seen == {"stages": stages, "thresholds": thresholds}
    assert found.labels.eq(0).all()


def test_nuclei_are_learnt(shared_data):
    """A few steps on nuclei, then the network tells foreground from background and near pairs from far ones."""
    samples = [DSB2018(shared_data / "dsb2018", "train")[n] for n in (0, 5, 9, 14)]
    image = torch.stack([data.image[:, 64:160, 64:160] for data in samples]).float() / 255
    batch = {"image": image, "instances": torch.stack([data.instances[64:160, 64:160] for data in samples])}
    network = tiny(head="deeplabv3plus", output_stride=8, width=0.25, background="ignore", balance="channel")
    optimizer = torch.optim.Adam(network.parameter_groups()["all"], 3e-3)
    terms = []
    for _ in range(12):
        found = network.losses(batch)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        terms.append([float(found[name]) for name in ("semantic", "affinity")])
    first, last = terms[0], np.mean(terms[-3:], axis=0)
    assert last[0] < 0.6 * first[0] and last[1] < 0.95 * first[1]


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, "num_classes=1, expected at least 2"),
        ({"backbone": "vgg"}, ValueError, "backbone='vgg'"),
        ({"backbone": nn.Conv2d}, TypeError, "for backbone, expected a name or a Module"),
        ({"head": "unet"}, ValueError, "head='unet'"),
        ({"output_stride": 4}, ValueError, "got output_stride=4"),
        ({"instance_stride": 5}, ValueError, "got output_stride=5"),
        ({"distances": (0, 1)}, ValueError, "distance=0"),
        ({"distances": (1, 1)}, ValueError, "twice"),
        ({"background": "foreground"}, ValueError, "background='foreground'"),
        ({"balance": "all"}, ValueError, "balance='all'"),
        ({"semantic": "resnet18"}, TypeError, "got str for semantic, expected a Module"),
        ({"merge": {"windows": 2}}, TypeError, "windows"),
        ({"merge": {"thresholds": [0.5]}}, ValueError, "1 thresholds, expected one for each of 2 stages"),
        ({"calibrate": True}, ValueError, "calibrate=True with balance='none'"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        tiny(**options)


def test_bad_input_is_refused():
    image, instances, mask = problem()
    network = reader()
    with pytest.raises(ValueError, match="got a batch of image, expected mask or instances"):
        network.losses({"image": image})
    with pytest.raises(ValueError, match=r"for mask, expected \[2, 4, 5\]"):
        network.losses({"image": image, "instances": instances, "mask": mask[:, :3]})
    with pytest.raises(ValueError, match="for target"):
        network.losses({"image": image, "instances": instances[:, :3], "mask": mask[:, :3]})
    with pytest.raises(ValueError, match=r"for the instance branch's logits, expected \[2, 16, \*, \*\]"):
        network(image[:, :9])
    with pytest.raises(ValueError, match=r"for the semantic branch's logits, expected \[2, 2, \*, \*\]"):
        network(image[:, :1])
    with pytest.raises(ValueError, match="in training mode, expected one in eval mode"):
        network.segment(image)
    with pytest.raises(ValueError, match=r"for image, expected \[\*, 3, \*, \*\]"):
        tiny()(torch.rand(1, 1, 8, 8))
