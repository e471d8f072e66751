"""CDGCNet: its parts put together by hand, its loss by the formula, and laws."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.models import CDGCNet
from graphseg.models.cdgcnet import ContextHead
from tests.models.small_networks import (
    EXACT,
    SMALL,
    check_batch_is_singles,
    check_two_processes,
    enlarged,
    frozen_norms,
    photographs,
    segments,
    trained,
)
from tests.reference import class_wise_gcn as reference
from tests.reference import losses as loss_reference
from tests.reference.superpixel_mean import nearest_exact

GRAPHS = ["dynamic", "similarity", "plain", "none"]
SIZE = (37, 45)  # features of 5 x 6
K = 4


def network(graph="dynamic", **options):
    return CDGCNet(K, graph, **{**SMALL, "min_kept": 0, "reduced_channels": 64, **options})


def rows(x):
    """Pixels as rows, image after image."""
    return x.detach().permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def by_hand(made, images, target=None, **options):
    """Refined logits: X and coarse scores of the network, the graph as loops, the classifier, resizing."""
    x = made.head(made.maps(images)[-1])
    coarse = F.conv2d(x, made.classifier.weight, made.classifier.bias)
    B, _, h, w = x.shape
    y = None
    if target is not None:
        y = [int(v) for image in target for v in nearest_exact(image.tolist(), h, w).ravel()]
        y = [-100 if label == 255 else label for label in y]
    layer = made.graph_conv
    plain = layer.num_classes == 1
    state = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    refined = reference.class_wise(
        rows(x).numpy(),
        [0] * (B * h * w) if plain else rows(coarse).argmax(1).tolist(),
        state["phi.weight"],
        state["phi_prime.weight"],
        state["weight"],
        state["combine"],
        state["bias"],
        layer.fusion,
        y,
        [b for b in range(B) for _ in range(h * w)],
        **options,
    )
    maps = torch.from_numpy(np.asarray(refined)).view(B, h, w, -1).permute(0, 3, 1, 2)
    scores = F.conv2d(maps, made.refined.weight, made.refined.bias)
    return enlarged(scores.detach(), images.shape[2:]), enlarged(coarse.detach(), images.shape[2:])


# Values


@pytest.mark.parametrize("fusion", ["concat", "sum"])
@pytest.mark.parametrize("graph", ["dynamic", "similarity", "plain"])
def test_refined_scores_by_hand(graph, fusion):
    images = photographs(*SIZE).double()
    made = trained(network(graph, fusion=fusion))
    refined, coarse = by_hand(made, images)
    found = made(images)
    assert refined.std() > 1e-3 and coarse.argmax(1).unique().numel() > 1
    assert_close(found.logits, refined, **EXACT)
    assert found.coarse is not None and found.auxiliary is None
    assert_close(found.coarse, coarse, **EXACT)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"hard_positives": False},
        {"hard_negatives": False},
        {"hard_positives": False, "hard_negatives": False},
    ],
    ids=str,
)
def test_training_samples_by_the_ground_truth(switches):
    images = photographs(*SIZE).double()
    mask = segments(images, K)
    made = frozen_norms(trained(network(**switches)))
    found = made(images, target=mask)
    refined, coarse = by_hand(made, images, mask, **switches)
    assert_close(found.logits, refined, **EXACT)
    assert_close(found.coarse, coarse, **EXACT)
    # Without hard positives the labelled nodes of a class are those of the coarse prediction, as at inference.
    same = switches == {"hard_positives": False}
    assert torch.allclose(found.logits, by_hand(made, images)[0], atol=1e-4) == same


def test_without_a_graph_the_coarse_scores_are_the_result():
    images = photographs(*SIZE).double()
    made = trained(network("none"))
    found = made(images)
    x = made.head(made.maps(images)[-1])
    expected = enlarged(F.conv2d(x, made.classifier.weight, made.classifier.bias), SIZE)
    assert found.coarse is None
    assert_close(found.logits, expected, **EXACT)
    full = trained(network("similarity"))
    full.load_state_dict({**full.state_dict(), **made.state_dict()})
    assert torch.equal(full(images).coarse, found.logits)


@pytest.mark.parametrize("aspp", [True, False])
def test_the_head_with_and_without_aspp(aspp):
    head = trained(ContextHead(12, 8, 6, (2, 4), aspp))
    x = torch.randn(2, 12, 7, 9, dtype=torch.float64)
    assert head(x).shape == (2, 6, 7, 9) and head.out_channels == 6
    context = head.aspp
    if aspp:
        found = [*(branch(x) for branch in context.branches), context.pooling(x).expand(-1, -1, 7, 9)]
        inputs = context.fuse(torch.cat(found, 1))
    else:
        inputs = x
    assert_close(head(x), head.reduce(inputs), **EXACT)
    counted = {12 * 8 * 2 + 2 * 12 * 8 * 9 + 4 * 16 + 4 * 8 * 8 + 16 if aspp else 0}
    assert {sum(p.numel() for p in head.parameters()) - ((8 if aspp else 12) * 6 * 9 + 12)} == counted
    made = network(aspp=aspp)
    assert made(photographs(*SIZE), target=segments(photographs(*SIZE))).logits.shape == (2, K, *SIZE)


# The loss


def mean_of(losses):
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 0), (0.3, 0), (0.3, 1500), (0.7, 100_000)])
def test_the_loss_is_the_printed_sum(threshold, min_kept):
    images = photographs(*SIZE).double()
    mask = segments(images, K)
    made = frozen_norms(trained(network(threshold=threshold, min_kept=min_kept)))
    out = made(images, target=mask)
    y = mask.flatten().tolist()
    coarse, refined, auxiliary = (rows(x).tolist() for x in (out.coarse, out.logits, out.auxiliary))
    hard = loss_reference.ohem(refined, y, threshold, min_kept, 255)
    expected = 0.6 * mean_of(loss_reference.cross_entropies(coarse, y, 255)) + 0.7 * mean_of(hard)
    expected += 0.4 * mean_of(loss_reference.cross_entropies(auxiliary, y, 255))
    if min_kept < 100_000 and threshold == 0.3:
        assert len(hard) < sum(label != 255 for label in y)
    found = made.losses({"image": images, "mask": mask})
    assert float(found["loss"].detach()) == pytest.approx(expected, rel=1e-9)


def test_the_loss_without_auxiliary_scores_or_graph():
    images = photographs(*SIZE).double()
    mask = segments(images, K)
    made = frozen_norms(trained(network(auxiliary=False)))
    out = made(images, target=mask)
    y = mask.flatten().tolist()
    expected = 0.6 * mean_of(loss_reference.cross_entropies(rows(out.coarse).tolist(), y, 255))
    expected += 0.7 * mean_of(loss_reference.ohem(rows(out.logits).tolist(), y, 0.7, 0, 255))
    assert float(made.losses({"image": images, "mask": mask})["loss"].detach()) == pytest.approx(expected)
    base = frozen_norms(trained(network("none", auxiliary_weight=0.3)))
    out = base(images)
    parts = [mean_of(loss_reference.cross_entropies(rows(x).tolist(), y, 255)) for x in (out.logits, out.auxiliary)]
    found = base.losses({"image": images, "mask": mask})
    assert float(found["loss"].detach()) == pytest.approx(parts[0] + 0.3 * parts[1])


# Laws


def test_dynamic_and_similarity_are_one_at_inference():
    images = photographs(*SIZE)
    dynamic, similarity = network("dynamic"), network("similarity")
    similarity.load_state_dict(dynamic.state_dict(), strict=True)
    assert torch.equal(dynamic.eval()(images).logits, similarity.eval()(images).logits)
    mask = segments(images, K)
    assert torch.equal(dynamic(images, target=mask).logits, dynamic(images).logits)  # nobody looks at it


def test_only_the_dynamic_graph_in_training_needs_the_ground_truth():
    images = photographs(*SIZE)
    mask = segments(images, K)
    with pytest.raises(ValueError, match="got no target, expected one while training with graph='dynamic'"):
        network("dynamic").train()(images)
    for graph in ("similarity", "plain", "none"):
        made = frozen_norms(network(graph))
        assert torch.equal(made(images).logits, made(images, target=mask).logits)


def test_the_generator_decides_the_sample():
    images = photographs(*SIZE)
    mask = segments(images, K)
    made = frozen_norms(trained(network(ratio=0.5))).float()

    def drawn(seed):
        return made(images, target=mask, generator=torch.Generator().manual_seed(seed)).logits

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    losses = [
        made.losses({"image": images, "mask": mask}, generator=torch.Generator().manual_seed(seed))["loss"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("graph", GRAPHS)
def test_batch_is_singles(graph):
    check_batch_is_singles(trained(network(graph)))


def test_classes_of_two_images_do_not_meet_in_training():
    images = photographs(*SIZE).double()
    mask = segments(images, K)
    made = frozen_norms(trained(network()))
    whole = made(images, target=mask).logits
    singles = [made(images[b : b + 1], target=mask[b : b + 1]).logits for b in range(2)]
    assert_close(whole, torch.cat(singles), **EXACT)


@pytest.mark.parametrize("graph", GRAPHS)
def test_two_processes_have_the_gradients_of_one(graph):
    images = photographs(24, 32, count=3)
    made = frozen_norms(trained(network(graph, threshold=0.5)))
    batch = {"image": images.double(), "mask": segments(images, K)}
    check_two_processes(made, batch)
    batch["mask"][0] = 255  # a process without a label
    check_two_processes(made, batch)


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_parameter_learns(graph):
    images = photographs()
    made = network(graph).train()
    made.losses({"image": images, "mask": segments(images, K)})["loss"].backward()
    silent = [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not silent


def test_refinement_does_not_reach_the_coarse_scores():
    """Which class a pixel has passes no gradient: without the coarse loss the coarse classifier learns nothing."""
    images = photographs(*SIZE).double()
    made = frozen_norms(trained(network()))
    out = made(images, target=segments(images, K))
    gradients = torch.autograd.grad(out.logits.sum(), list(made.classifier.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_training_on_photographs_lowers_the_loss():
    images = photographs(48, 64)
    batch = {"image": images, "mask": segments(images, K)}
    made = network().train()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.05, momentum=0.9)
    history = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = made.losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-3:]) < 0.9 * sum(history[:3])


# Parameters and arguments


def test_parameters_by_hand():
    with torch.device("meta"):
        base, similarity = CDGCNet(19, "none"), CDGCNet(19, "similarity")
        plain, fused = CDGCNet(19, "plain"), CDGCNet(19, "dynamic", fusion="sum")
    counts = [sum(p.numel() for p in made.parameters()) for made in (base, similarity, plain, fused)]
    C, M = 256, 19
    assert counts[1] - counts[0] == 2 * C * C + 2 * M * C * C + C + 2 * C * M + M
    assert counts[2] - counts[0] == 2 * C * C + 2 * C * C + C + 2 * C * M + M
    assert counts[1] - counts[3] == C * M


def test_options_of_the_graph():
    images = photographs(*SIZE).double()
    made = trained(network("similarity", graph_options={"shared": True, "top_k": 3, "bias": False}))
    layer = made.graph_conv
    assert (layer.shared, layer.top_k, layer.bias) == (True, 3, None)
    assert made.options["graph_options"] == {"shared": True, "top_k": 3, "bias": False}
    assert bool(made(images).logits.isfinite().all())


@pytest.mark.parametrize("graph", GRAPHS)
def test_options_make_the_network_again(graph):
    made = network(
        graph, ratio=0.6, fusion="sum", aspp=False, hard_positives=False, threshold=0.6, auxiliary_weight=0.3
    )
    again = CDGCNet(**json.loads(json.dumps(made.options)))
    again.load_state_dict(made.state_dict())
    images = photographs(*SIZE)
    assert again.options == made.options
    assert again.loss.threshold == 0.6 and again.loss.gamma == 0.3
    assert torch.equal(again.eval()(images).logits, made.eval()(images).logits)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"graph": "knn"}, ValueError, "got graph='knn'"),
        ({"fusion": "max"}, ValueError, "got fusion='max'"),
        ({"ratio": 1.5}, ValueError, "got ratio=1.5"),
        ({"head": "pspnet"}, TypeError, "got head='pspnet', expected none"),
        ({"graph_options": {"binary": True}}, ValueError, "binary=True without top_k"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        network(**options)


def test_labels_outside_the_classes_are_refused():
    images = photographs(*SIZE)
    mask = segments(images, K) + 1
    for graph in GRAPHS:
        with pytest.raises(ValueError, match=r"label|class"):
            network(graph).train().losses({"image": images, "mask": mask})
