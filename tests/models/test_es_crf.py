"""ES-CRF and its rivals in DeepLabV3+: the formulas in loops behind the base's features, and laws."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.models import ESCRFNet, SegmentationNetwork
from graphseg.models.es_crf import NonLocalBlock
from graphseg.models.pixels import pixel_images, pixel_maps, pixel_positions, pixel_rows, window_edges
from graphseg.ops import multiscale_slic
from tests.models.small_networks import (
    EXACT,
    SMALL,
    area_means,
    check_batch_is_singles,
    check_two_processes,
    enlarged,
    frozen_norms,
    photographs,
    segments,
    trained,
)
from tests.reference import superpixel_crf as reference
from tests.reference.superpixel_mean import nearest_exact

VARIANTS = ["es_crf", "vanilla_crf", "joint_crf", "non_local", "base"]
SIZE = (21, 29)  # features of 6 x 8


def network(variant="es_crf", **options):
    return ESCRFNet(4, variant, **{**SMALL, "num_superpixels": 8, **options})


def base_of(made):
    """The network without its module, with the same weights."""
    base = SegmentationNetwork(4, **SMALL).to(made.classifier.weight.dtype)
    weights = {name: x for name, x in made.state_dict().items() if not name.startswith("crf.")}
    base.load_state_dict(weights, strict=True)
    return base.train(made.training)


def with_scores(variant, **options):
    """A network with scores that tell pixels apart, and the mean field as it starts."""
    made = network(variant, **options)
    kept = {name: x.clone() for name, x in made.crf.state_dict().items()}
    trained(made).crf.load_state_dict(kept)
    return made


def loop_window(h, w, offsets):
    """(sender, receiver) of one image."""
    pairs = []
    for y in range(h):
        for x in range(w):
            for dy, dx in offsets:
                if 0 <= y + dy < h and 0 <= x + dx < w:
                    pairs.append((y * w + x, (y + dy) * w + x + dx))
    return pairs


def ring(distance):
    return [(dy, dx) for dy in (-distance, 0, distance) for dx in (-distance, 0, distance) if (dy, dx) != (0, 0)]


def disk(radius):
    reach = range(-math.ceil(radius), math.ceil(radius) + 1)
    return [(dy, dx) for dy in reach for dx in reach if 0 < math.hypot(dy, dx) <= radius]


def places(h, w):
    return [(float(x), float(y)) for y in range(h) for x in range(w)]


# The graph


@pytest.mark.parametrize("size", [(5, 7), (1, 6), (2, 2), (1, 1)])
@pytest.mark.parametrize(("distances", "radius"), [((2,), 0), ((1, 3), 0), (None, 2.5), (None, 1.0)])
def test_window_edges_are_the_loop(size, distances, radius, device):
    h, w = size
    offsets = disk(radius) if distances is None else [step for d in distances for step in ring(d)]
    expected = sorted((j + b * h * w, i + b * h * w) for b in range(3) for j, i in loop_window(h, w, offsets))
    edges = window_edges(torch.empty(3, 2, h, w, device=device), distances, radius)
    assert edges.device.type == device.type and edges.dtype == torch.int64
    assert sorted(map(tuple, edges.t().tolist())) == expected
    assert len(set(expected)) == len(expected)


def test_pixels_as_rows_with_positions():
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    pos, batch = pixel_positions(x), pixel_images(x)
    rows = pixel_rows(x)
    assert torch.equal(pixel_maps(rows, x), x)
    for row, (column, line), image in zip(rows, pos.long().tolist(), batch.tolist(), strict=True):
        assert torch.equal(row, x[image, :, line, column])


# Values


@pytest.mark.parametrize(
    ("options", "crf"),
    [
        ({}, {}),
        ({"window": (1, 2)}, {"norm": "none"}),
        ({"graph": "all"}, {"norm": "softmax", "token_channels": 6}),
        ({"superpixel": False}, {"mu": "neighbour"}),
        ({"pairwise": False}, {}),
    ],
    ids=str,
)
def test_es_crf_is_the_loop_on_the_features(options, crf):
    images = photographs(*SIZE)
    made = trained(network(**options, crf={"position_channels": 8, **crf}))
    assert made.crf is not None
    features = made.head(made.maps(images.double())).detach()
    B, D, h, w = features.shape
    assert (B, h, w) == (2, 6, 8)
    small = area_means(images.double(), (h, w))
    labels = multiscale_slic(images, [8])[0]
    state = {name: x.numpy() for name, x in made.crf.state_dict().items()}
    edges = np.array(loop_window(h, w, [s for d in options.get("window", (2,)) for s in ring(d)])).T
    expected = np.empty((B, h * w, D))
    for b in range(B):
        expected[b] = reference.es_crf(
            pixel_rows(features[b : b + 1]).numpy(),
            pixel_rows(small[b : b + 1]).numpy(),
            places(h, w),
            None if options.get("graph") == "all" else edges,
            nearest_exact(labels[b].tolist(), h, w).ravel(),
            None,
            lambda pair: float(state["compatibility.weight"][0] @ pair + state["compatibility.bias"][0]),
            lambda color, place: state["token.weight"] @ np.concatenate([color, place]) + state["token.bias"],
            position_channels=8,
            norm=crf.get("norm", "degree"),
            mu=crf.get("mu", "pair"),
            pairwise_weight=float(options.get("pairwise", True)),
            superpixel_weight=float(options.get("superpixel", True)),
        )
    refined = torch.from_numpy(expected).view(B, h, w, D).permute(0, 3, 1, 2)
    scores = enlarged(F.conv2d(refined, made.classifier.weight, made.classifier.bias), SIZE).detach()
    # Positions are given in float32, and so are their sines.
    assert_close(made(images.double()).logits, scores, rtol=1e-5, atol=1e-6 * float(scores.abs().max()))
    assert not torch.allclose(base_of(made)(images.double()).logits, scores, rtol=1e-2)


@pytest.mark.parametrize("variant", ["vanilla_crf", "joint_crf"])
@pytest.mark.parametrize("update", ["sum", "exp"])
def test_mean_field_is_the_loop_on_the_scores(variant, update):
    images = photographs(9, 12).double()
    crf = {"num_steps": 2, "radius": 2.0, "theta": (2.0, 0.3, 1.0), "update": update}
    made = with_scores(variant, crf=crf)
    scores = base_of(made)(images).logits.detach()
    edges = np.array(loop_window(9, 12, disk(2.0))).T
    found = made(images).logits
    for b in range(2):
        expected = reference.mean_field(
            pixel_rows(scores[b : b + 1]).numpy(),
            pixel_rows(images[b : b + 1]).numpy(),
            places(9, 12),
            edges,
            (0.3, 0.1),
            (2.0, 0.3, 1.0),
            np.eye(4),
            2,
            update,
        )
        # The parameters were rounded to float32.
        assert_close(pixel_rows(found[b : b + 1]).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, scores.log_softmax(1), atol=1e-3)


def test_non_local_is_the_loop():
    block = trained(NonLocalBlock(6))
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64) / 2
    state = {name: value.numpy() for name, value in block.state_dict().items()}
    maps = {
        name: state[f"{name}.weight"][:, :, 0, 0] @ x.flatten(2).numpy() + state[f"{name}.bias"][:, None]
        for name in ("theta", "phi", "g")
    }  # [B, 3, P]
    mixed = np.zeros((2, 3, 12))
    for b in range(2):
        for i in range(12):
            weights = reference.softmax([float(maps["theta"][b, :, i] @ maps["phi"][b, :, j]) for j in range(12)])
            mixed[b, :, i] = sum(weight * maps["g"][b, :, j] for j, weight in enumerate(weights))
    out = state["out.0.weight"][:, :, 0, 0] @ mixed + state["out.0.bias"][:, None]
    mean, var, scale, shift = (
        state[f"out.1.{part}"][:, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    expected = x.numpy() + ((out - mean) / np.sqrt(var + 1e-5) * scale + shift).reshape(2, 6, 3, 4)
    assert_close(block(x).detach().numpy(), expected, **EXACT)


@pytest.mark.parametrize("training", [False, True])
def test_non_local_starts_as_the_identity(training):
    block = NonLocalBlock(6).train(training)
    x = torch.randn(2, 6, 3, 4)
    assert torch.equal(block(x), x)
    made = network("non_local").train(training)
    images = photographs(*SIZE)
    assert torch.equal(made(images).logits, base_of(made)(images).logits)


# What leaves the base as it is


def test_without_its_terms_es_crf_is_the_base():
    images = photographs(*SIZE).double()
    for norm in ("none", "degree"):
        made = trained(network(pairwise=False, superpixel=False, crf={"norm": norm}))
        assert made.num_superpixels == ()
        assert_close(made(images).logits, base_of(made)(images).logits, **EXACT)
    base = trained(network("base"))
    assert base.crf is None
    assert base.state_dict().keys() == SegmentationNetwork(4, **SMALL).state_dict().keys()
    assert torch.equal(base(images).logits, base_of(base)(images).logits)


def test_vanilla_takes_no_part_in_training():
    images = photographs(*SIZE)
    batch = {"image": images, "mask": segments(images)}
    made = network("vanilla_crf").train()
    base = base_of(made)
    assert torch.equal(made(images).logits, base(images).logits)
    made.losses(batch)["loss"].backward()
    before = {name: x.clone() for name, x in made.crf.state_dict().items()}
    assert all(p.grad is None and not p.requires_grad for p in made.crf.parameters())
    optimizer = torch.optim.SGD(made.parameter_groups()["all"], lr=0.1, weight_decay=0.1)
    optimizer.step()
    assert all(torch.equal(x, before[name]) for name, x in made.crf.state_dict().items())


def test_vanilla_changes_the_result():
    images = photographs(*SIZE).double()
    vanilla, joint = with_scores("vanilla_crf"), with_scores("joint_crf")
    scores = base_of(vanilla)(images).logits
    assert not torch.allclose(vanilla(images).logits.softmax(1), scores.softmax(1), atol=1e-3)
    assert torch.equal(vanilla(images).logits, joint(images).logits)  # the same until it is trained


def test_joint_is_trained_with_the_network():
    images = photographs(*SIZE)
    made = network("joint_crf").train()
    base = base_of(made)
    assert not torch.allclose(made(images).logits.softmax(1), base(images).logits.softmax(1), atol=1e-4)
    made.losses({"image": images, "mask": segments(images)})["loss"].backward()
    for name in ("weight", "log_theta", "compatibility"):
        gradient = getattr(made.crf, name).grad
        assert bool(gradient.isfinite().all()) and bool(gradient.any()), name
    assert bool(made.backbone.conv1.weight.grad.any())


def test_mean_field_gives_probabilities_at_the_size_of_the_image():
    images = photographs(*SIZE)
    for variant in ("vanilla_crf", "joint_crf"):
        logits = network(variant).eval()(images).logits
        assert logits.shape == (2, 4, *SIZE)
        assert_close(logits.exp().sum(1), torch.ones(2, *SIZE))


@pytest.mark.parametrize("variant", ["es_crf", "joint_crf", "non_local"])
def test_every_parameter_learns(variant):
    images = photographs(*SIZE)
    made = network(variant).train()
    if variant == "non_local":  # its last norm starts at 0, which lets nothing through at first
        torch.nn.init.ones_(made.crf.out[1].weight)
    made.losses({"image": images, "mask": segments(images)})["loss"].backward()
    silent = [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.any())]
    # A softmax does not change when all of its terms do, nor a norm in training when its input is shifted.
    assert set(silent) <= {"crf.phi.bias", "crf.out.0.bias"}


# Laws


@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_is_singles(variant):
    check_batch_is_singles(trained(network(variant)), ((21, 29), (18, 16), (3, 4)))


def test_all_pixels_stay_in_their_image():
    check_batch_is_singles(trained(network(graph="all")), ((21, 29), (18, 16)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_have_the_gradients_of_one(variant):
    images = photographs(20, 24, count=3)
    batch = {"image": images.double(), "mask": segments(images)}
    made = frozen_norms(network(variant, crf={"num_steps": 2} if variant == "joint_crf" else None).double())
    check_two_processes(made, batch)
    batch["superpixels"] = torch.stack(multiscale_slic(images, [8]), 1)
    check_two_processes(made, batch, first=2)


def test_superpixels_of_one_number_in_two_images_are_two():
    images = photographs(*SIZE).double()
    made = trained(network(pairwise=False))
    labels = torch.stack(multiscale_slic(images.float(), [8]), 1)  # both from 0
    shifted = labels + torch.tensor([0, 1000]).view(2, 1, 1, 1)
    expected = made(images, labels).logits
    assert torch.equal(made(images, shifted).logits, expected)
    assert torch.equal(made(images, [labels[:, 0]]).logits, expected)
    assert torch.equal(made(images).logits, expected)
    one = torch.zeros_like(labels)
    assert_close(made(images, one).logits, torch.cat([made(i[None], one[:1]).logits for i in images]), **EXACT)


def test_variants_share_the_initial_weights_of_the_base():
    """The module is made last, so that from one seed all have one base."""
    made = []
    for variant in VARIANTS:
        torch.manual_seed(3)
        made.append(network(variant))
    weights = base_of(made[-1]).state_dict()
    for other in made:
        assert all(torch.equal(x, weights[name]) for name, x in base_of(other).state_dict().items())


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "dense_crf"}, "got variant='dense_crf'"),
        ({"graph": "knn"}, "got graph='knn'"),
        ({"num_superpixels": 0}, "num_superpixels"),
        ({"crf": {"norm": "max"}}, "got norm='max'"),
        ({"crf": {"position_channels": 6}}, "position_channels=6"),
        ({"variant": "joint_crf", "crf": {"radius": 0}}, "got radius=0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_bad_superpixels_are_refused():
    images = photographs(*SIZE)
    made = network().eval()
    good = torch.zeros(2, 1, *SIZE, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"got 2 scales of superpixels, expected 1: \(8,\)"):
        made(images, good[:, [0, 0]])
    with pytest.raises(ValueError, match="assignment"):
        made(images, good[:1])
    with pytest.raises(TypeError, match="assignment"):
        made(images, good.float())
    with pytest.raises(ValueError, match="got assignment id -1"):
        made(images, good - 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_options_make_the_network_again(variant):
    crf = {"token_channels": 8} if variant == "es_crf" else None
    made = network(variant, window=(1, 2), pairwise=True, crf=crf)
    again = ESCRFNet(**json.loads(json.dumps(made.options)))
    again.load_state_dict(made.state_dict())
    images = photographs(*SIZE)
    assert again.options == made.options
    assert torch.equal(again.eval()(images).logits, made.eval()(images).logits)
