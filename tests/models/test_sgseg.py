"""SGSeg: its tables row by row, the forward pass and the losses against loops, and what training may and may not do."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch.nn import Conv2d, Linear, Module
from torch.testing import assert_close

from graphseg.models._sgseg_parts import pool_superpixels, project_superpixels
from graphseg.models.sgseg import SPNN, SegmentationCNN, SGSeg, SuperpixelGNN
from graphseg.nn import RasterConv2d, draw_orderings
from graphseg.ops import knn_edges, pool, project
from tests.reference import losses as loss_reference
from tests.reference import sgseg as reference

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
BACKBONES = ["diff_gcn", "dgcnn", "pointnet", None]


def network(in_channels=3, num_classes=3, num_superpixels=6, *args, **options) -> Any:
    """A small `SGSeg` in float64 and evaluation mode, with random norms and biases."""
    module = SGSeg(in_channels, num_classes, num_superpixels, *args, **({"width": 1 / 16, "k": 3} | options))
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith(("running_mean", "bias")):
            torch.nn.init.normal_(tensor, std=0.3)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return module.double().eval()


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64)


def state_of(module: Module) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}


def photographs(size: int = 24) -> torch.Tensor:
    """Four crops of one photograph, [4, 3, size, size]."""
    picture = torch.from_numpy(data.astronaut()[::2, ::2].copy()).movedim(2, 0).float() / 255
    return torch.stack([picture[:, y : y + size, x : x + size] for y, x in ((0, 80), (30, 100), (100, 50), (150, 150))])


# The tables


def rows_of(module: Module, *inputs: Any) -> list[tuple[str, tuple[int, ...], int]]:
    """Name, shape of the output and number of parameters of each layer that has parameters, in the order it runs."""
    rows: list[tuple[str, tuple[int, ...], int]] = []

    def note(name: str) -> Any:
        def hook(layer: Module, _: Any, out: torch.Tensor) -> None:
            rows.append((name, tuple(out.shape), sum(p.numel() for p in layer.parameters())))

        return hook

    for layer in module.modules():
        if list(layer.parameters(recurse=False)):
            layer.register_forward_hook(note(type(layer).__name__))
    module(*inputs)
    return rows


@pytest.mark.parametrize("channels", [3, 4])
def test_spnn_is_table_7(channels):
    H, W, N = 6, 8, 200
    rows = rows_of(SPNN(channels, N), torch.rand(2, channels, H, W))

    def norm(count: int) -> tuple[str, tuple[int, ...], int]:
        return "BatchNorm2d", (2, count, H, W), 2 * count

    assert rows == [
        ("Conv2d", (2, 64, H, W), 5 * 5 * channels * 64),
        norm(64),
        ("Conv2d", (2, 128, H, W), 3 * 3 * 64 * 128),
        norm(128),
        ("Conv2d", (2, 256, H, W), 3 * 3 * 128 * 256),
        norm(256),
        ("Conv2d", (2, 512, H, W), 3 * 3 * 256 * 512),
        norm(512),
        *[("Conv2d", (2, 512, H, W), 512 * 3 * 3 + 512)] * 3,  # one 3 x 3 kernel and one bias for each channel
        ("Conv2d", (2, 512, H, W), 3 * 3 * 1536 * 512),
        norm(512),
        ("Conv2d", (2, N + channels, H, W), 512 * (N + channels) + (N + channels)),
    ]


def test_the_dilated_convolutions_of_table_7():
    module: Any = SPNN(3, 5)
    found = [(conv.kernel_size, conv.dilation, conv.groups) for conv in module.dilated]
    assert found == [((3, 3), (rate, rate), 512) for rate in (1, 2, 4)]


@pytest.mark.parametrize(("block", "inputs"), [("diff_gcn", 3 * 64), ("dgcnn", 2 * 64), ("pointnet", 64)])
@pytest.mark.parametrize("channels", [517, 518])
def test_the_gnn_is_table_8(block, inputs, channels):
    B, N = 2, 9
    module = SuperpixelGNN(channels, block, k=4)
    # The blocks are missing from the rows: they never call their linear map, but take its weight to the nodes.
    rows = rows_of(module, torch.rand(B, N, channels), torch.rand(B, N, 2))
    assert rows == [
        ("Linear", (B * N, 64), channels * 64),
        ("BatchNorm1d", (B * N, 64), 128),
        ("Linear", (B * N, 256), 4 * 64 * 256),
        ("BatchNorm1d", (B * N, 256), 512),
        ("Linear", (B * N, 128), 256 * 128),
        ("BatchNorm1d", (B * N, 128), 256),
        ("Linear", (B * N, 64), 128 * 64 + 64),
    ]
    assert [sum(p.numel() for p in part.parameters()) for part in module.blocks] == [inputs * 64 + 64] * 4
    assert module(torch.rand(B, N, channels), torch.rand(B, N, 2)).shape == (B, N, 64)


@pytest.mark.parametrize("channels", [3, 4])
def test_the_cnn_is_tables_9_and_10(channels):
    H, W, K = 8, 12, 15
    h, w, out = H // 2, W // 2, K + channels

    def block(c: int, d: int) -> list[tuple[str, tuple[int, ...], int]]:
        norm = ("BatchNorm2d", (2, d, h, w), 2 * d)
        one, last = ("Conv2d", (2, d, h, w), d * d), ("Conv2d", (2, d, h, w), d * d + d)
        raster = ("RasterConv2d", (2, d, h, w), 3 * 3 * c * d)
        return [raster, norm, one, norm, one, norm, last, one, norm, last]

    rows = rows_of(SegmentationCNN(64 + channels, K, channels), torch.rand(2, 64 + channels, H, W), 3)
    assert rows == [
        ("Conv2d", (2, 64, H, W), 3 * 3 * (64 + channels) * 64),
        ("BatchNorm2d", (2, 64, H, W), 128),
        *block(64, 128),
        *block(128, 128),
        *block(128, 256),
        *block(256, 512),
        ("Conv2d", (2, out, h, w), 512 * out + out),
        ("Conv2d", (2, out, h, w), out * out + out),
        ("Conv2d", (2, channels, H, W), 3 * 3 * out * channels + channels),
    ]


def test_the_whole_network_by_hand():
    counts = {name: sum(p.numel() for p in group) for name, group in SGSeg(3, 15).parameter_groups().items()}
    spnn = 4928 + 73984 + 295424 + 1180672 + 15360 + 7078912 + 104139
    gnn = (517 * 64 + 128) + 4 * (192 * 64 + 64) + 66048 + 33024 + 8256
    cnn = (9 * 67 * 64 + 128) + sum(9 * c * d + 5 * d * d + 10 * d for c, d in ((64, 128), (128, 128), (128, 256)))
    cnn += 9 * 256 * 512 + 5 * 512**2 + 10 * 512 + (512 * 18 + 18) + (18 * 18 + 18) + (9 * 18 * 3 + 3)
    assert counts == {"spnn": spnn, "gnn": gnn, "cnn": cnn}
    assert SGSeg(4, 6).cnn.in_channels == 68 and SGSeg(4, 6, spnn=False).cnn.in_channels == 4
    assert SGSeg(3, 15, gnn=None, width=0.25).cnn.in_channels == 3 + 2 + 3 + 128


def test_weights_start_as_xavier_says():
    torch.manual_seed(3)
    module = SGSeg(3, 4, width=0.25)
    seen = 0
    for layer in module.modules():
        if not isinstance(layer, Conv2d | Linear):
            continue
        assert layer.bias is None or not layer.bias.any()
        weight = layer.weight
        window = weight[0, 0].numel()
        bound = (6 / (window * (weight.shape[0] + weight.shape[1]))) ** 0.5
        # The largest of n draws lies within a share 20 / n of the bound, nearly always.
        assert bound * max(0.5, 1 - 20 / weight.numel()) < weight.abs().max() <= bound
        if isinstance(layer, RasterConv2d):
            assert not weight[:, :, 2, 2].any()  # no ordering sees it
        seen += 1
    assert seen == 4 + 3 + 2 + 4 + 1 + 4 * 6 + 3


# The forward pass


@pytest.mark.parametrize("gnn", BACKBONES)
@pytest.mark.parametrize("channels", [3, 4])
def test_forward_is_the_loop(gnn, channels, device):
    H, W, N = 5, 4, 6
    module = network(channels, 3, N, gnn).to(device)
    batch = images(2, channels, H, W)
    state = state_of(module)
    for ordering in (None, 6):
        out = module(batch.to(device), ordering=ordering)
        for b, image in enumerate(normalized(batch)):
            P, _, features = reference.spnn(state, image, N)
            nodes = reference.superpixel_nodes(P, image, features)
            if gnn is None:
                assert out.edge_index is None
                nodes = np.concatenate([nodes[:, :2] / [W, H], nodes[:, 2:]], 1)
            else:
                nodes, edges = reference.gnn(state, nodes, (H, W), 3, gnn)
                inside = out.edge_index.cpu()[:, out.edge_index[1].cpu() // N == b] - b * N
                assert set(map(tuple, inside.t().tolist())) == (edges if gnn != "pointnet" else set())
            beside = reference.project(nodes, P)
            logits, picture = reference.cnn(state, np.concatenate([image, beside]), 3, ordering)
            scores = np.exp(logits)
            mean, std = (x.numpy()[0] for x in statistics(channels))
            expected = (logits, scores / scores.sum(0), picture * std + mean, P, beside)
            for got, want in zip(out[:5], expected, strict=True):
                assert_close(got[b].detach().cpu().numpy(), want, **EXACT)


def test_graphs_of_the_blocks_own_are_the_loop():
    H, W, N = 5, 6, 7
    module = network(3, 3, N, dynamic=True)
    batch = images(1, 3, H, W)
    image = normalized(batch)[0]
    state = state_of(module)
    P, _, features = reference.spnn(state, image, N)
    pooled = reference.superpixel_nodes(P, image, features)
    found = {}
    for dynamic in (False, True):
        nodes, _ = reference.gnn(state, pooled, (H, W), 3, "diff_gcn", dynamic)
        found[dynamic] = reference.project(nodes, P)
    assert np.abs(found[True] - found[False]).max() > 1e-6
    assert_close(module(batch).features[0].detach().numpy(), found[True], **EXACT)


def test_the_cnn_alone_is_the_loop():
    module = network(3, 4, spnn=False)
    batch = images(1, 3, 5, 4)
    out = module(batch)
    logits, _ = reference.cnn(state_of(module), normalized(batch)[0], 4)
    assert_close(out.logits[0].detach().numpy(), logits, **EXACT)
    assert out.assignment is None and out.features is None and out.edge_index is None


def statistics(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ImageNet's mean and spread for RGB, 1/2 and 1/4 for others, `[1, C, 1, 1]`, as float32 holds them."""
    mean, std = (
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if channels == 3 else ([0.5] * channels, [0.25] * channels)
    )
    return torch.tensor(mean).double().view(1, -1, 1, 1), torch.tensor(std).double().view(1, -1, 1, 1)


def normalized(batch: torch.Tensor) -> np.ndarray:
    mean, std = statistics(batch.shape[1])
    return ((batch - mean) / std).numpy()


@given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 5))
@settings(max_examples=30)
def test_pooling_and_projection_are_those_of_single_images(B, N, H, W, seed):
    torch.manual_seed(seed)
    P = (4 * torch.randn(B, N, H, W, dtype=torch.float64)).softmax(1)
    shared, own, nodes = images(1, 2, H, W), images(B, 3, H, W), images(B, N, 4)
    pooled, projected = pool_superpixels(P, shared, own), project_superpixels(nodes, P)
    for b in range(B):
        rows = P[b].flatten(1).t()  # [HW, N]
        values = torch.cat([shared[0], own[b]]).flatten(1).t()
        assert_close(pooled[b], pool(values, rows), **EXACT)
        assert_close(projected[b].flatten(1).t(), project(nodes[b], rows), **EXACT)


@pytest.mark.parametrize("gnn", BACKBONES)
def test_a_batch_is_its_images(gnn):
    module = network(3, 4, 8, gnn)
    batch = images(3, 3, 9, 12)
    whole = module(batch)
    for b in range(3):
        single = module(batch[b : b + 1])
        for one, of in zip(single[:5], whole[:5], strict=True):
            assert_close(one[0], of[b], **EXACT)


def test_the_order_of_superpixels_is_of_no_account():
    module, other = network(3, 4, 9), network(3, 4, 9)
    order = torch.randperm(9)
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        for tensor in (other.spnn.head.weight, other.spnn.head.bias):
            tensor[:9] = tensor[:9][order]
    batch = images(2, 3, 8, 8)
    out, turned = module(batch), other(batch)
    assert_close(turned.assignment, out.assignment[:, order], **EXACT)
    assert_close(turned.logits, out.logits, **EXACT)


def test_there_is_no_ordering_at_inference():
    module = network()
    batch = images(1, 3, 8, 8)
    state = torch.get_rng_state()
    first = module(batch).logits
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(module(batch).logits, first)
    assert not torch.allclose(module(batch, ordering=0).logits, first)
    assert torch.equal(module(batch, torch.zeros(1, 1, 8, 8, dtype=torch.int64)).logits, first)


@pytest.mark.parametrize("k", [5, 6, 100])
def test_more_neighbours_than_there_are(k):
    batch = images(2, 3, 8, 8)
    torch.manual_seed(1)
    complete = network(3, 3, 6, k=5)(batch)
    torch.manual_seed(1)
    out = network(3, 3, 6, k=k)(batch)
    assert out.edge_index.shape == (2, 2 * 6 * 5)
    assert_close(out.logits, complete.logits, **EXACT)


@pytest.mark.parametrize("share", [0.0, 1e-42, 1e-35, 1e-20])
def test_superpixels_without_mass(share):
    module = network(3, 3, 5).train()
    with torch.no_grad():
        module.spnn.head.weight[2] = 0
        module.spnn.head.bias[2] = -1e4 if share == 0 else np.log(share)
    module.float()
    out = module(images(2, 3, 8, 8).float())
    assert out.assignment[:, 2].max() <= 10 * share + 1e-44 and out.logits.isfinite().all()
    module.losses({"image": images(2, 3, 8, 8).float()})["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    if share < 1e-30:
        nodes = pool_superpixels(out.assignment, torch.ones(1, 1, 8, 8))
        assert not nodes[:, 2].any()
        assert_close(nodes[:, [0, 1, 3, 4]], torch.ones(2, 4, 1))


@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (1, 2, 1, 9), (2, 1, 2, 2), (3, 5, 3, 1)])
def test_images_of_few_pixels_and_channels(shape):
    module = network(shape[1], 2, 4).float().train()
    image = torch.rand(shape)
    for stage in ("spnn", "joint", "segment"):
        module.losses({"image": image}, stage=stage)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    out = module.eval()(image)
    assert out.logits.shape == (shape[0], 2, *shape[2:]) and out.reconstruction.shape == shape


def test_superpixelated_images_are_the_loop():
    module = network(3, 3, 4)
    batch = images(2, 3, 6, 5)
    P = module(batch).assignment.detach().numpy()
    for hard in (False, True):
        out = module.superpixelated(batch, hard=hard).detach().numpy()
        for b in range(2):
            assert_close(out[b], loss_reference.superpixelate(batch[b].numpy(), P[b], hard), **EXACT)


def test_autocast_keeps_assignments_and_graph_features_exact():
    module = network(3, 4, 8).float()
    batch = images(2, 3, 16, 16).float()
    exact = module(batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(batch)
        loss = module.train().losses({"image": batch})["loss"]
    loss.backward()
    assert out.assignment.dtype == out.features.dtype == out.probability.dtype == torch.float32
    assert_close(out.assignment.sum(1), torch.ones(2, 16, 16))
    assert_close(out.assignment, exact.assignment, rtol=0.1, atol=0.02)
    assert loss.dtype == torch.float32 and all(p.grad.isfinite().all() for p in module.parameters())


# The losses


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_the_printed_formulas(masked, reduction):
    options = {"alpha": 1.5, "beta": 4.0, "eta": 0.5, "lam": 1.7, "sigma": 8.0, "displacement": 1}
    module = network(4, 3, 5, reconstruction_reduction=reduction, **options)
    batch = images(2, 4, 6, 7)
    valid = torch.rand(2, 6, 7) < 0.7 if masked else None
    got = module.losses({"image": batch} | ({} if valid is None else {"valid": valid}), generator=seeded(5))
    x, inside = normalized(batch), [None, None] if valid is None else [*valid.numpy()]
    with torch.no_grad():
        maps = module.spnn(torch.from_numpy(x))
        M = module(batch).features.numpy()
        both = torch.cat([torch.from_numpy(x), torch.from_numpy(M)], 1)
        (first, I1), (second, I2) = module.cnn(both, *draw_orderings(2, seeded(5)))
    P, rebuilt = maps.assignment.numpy(), maps.reconstruction.numpy()
    counts = [42 if mask is None else int(mask.sum()) for mask in inside]
    soft = [loss_reference.superpixelate(x[b], P[b], valid=inside[b]) for b in range(2)]

    def error(b: int, *others: np.ndarray) -> float:
        mask = np.ones((6, 7), bool) if inside[b] is None else inside[b]
        return sum(float((((other - x[b]) ** 2) * mask).sum()) for other in others)

    terms = {
        "clustering": [loss_reference.clustering(P[b], 1.7, inside[b]) for b in range(2)],
        "smoothness": [loss_reference.smoothness(P[b], x[b], 8.0, inside[b]) for b in range(2)],
        "recon": [error(b, rebuilt[b], soft[b]) / (4 * counts[b]) for b in range(2)],
        "edge": [
            sum(loss_reference.edge_divergence(x[b], other, valid=inside[b]) for other in (rebuilt[b], soft[b]))
            for b in range(2)
        ],
    }
    expected = {name: float(np.mean(values)) for name, values in terms.items()}
    expected["spnn"] = expected["clustering"] + 1.5 * expected["smoothness"]
    expected["spnn"] += 4.0 * expected["recon"] + 0.5 * expected["edge"]
    expected["tv"] = sum(loss_reference.total_variation(M[b], inside[b])[0] for b in range(2)) / sum(counts)
    one, two = first.softmax(1).numpy(), second.softmax(1).numpy()
    information = []
    for dy, dx in [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
        together = loss_reference.joint(one, two, dy, dx, None if valid is None else valid.numpy())
        information.append(loss_reference.mutual_information(together))
    expected["mi"] = -float(np.mean(information))
    divisor = 2 if reduction == "sum" else 4 * sum(counts)
    expected["recon_cnn"] = sum(error(b, I1[b].numpy(), I2[b].numpy()) for b in range(2)) / divisor
    expected["cnn"] = expected["mi"] + expected["recon_cnn"]
    expected["loss"] = expected["spnn"] + expected["tv"] + expected["cnn"]
    assert {name: pytest.approx(value, rel=1e-7) for name, value in expected.items()} == {
        name: value.item() for name, value in got.items()
    }
    assert [name for name, value in got.items() if value.requires_grad] == ["loss"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_orderings_are_drawn_from_the_generator():
    module = network()
    batch = {"image": images(2, 3, 8, 8)}
    values = [module.losses(batch, generator=seeded(seed))["loss"].item() for seed in (0, 0, *range(1, 8))]
    assert values[0] == values[1] and len(set(values)) > 3  # of 28 pairs
    alone = network(spnn=False)
    first, second = draw_orderings(2, seeded(0))
    assert first != second
    found = alone.losses(batch, generator=seeded(0))
    x = torch.from_numpy(normalized(batch["image"]))
    (logits, _), (other, _) = alone.cnn(x, first, second)
    assert not torch.allclose(logits, other)
    one, two = (scores.detach().softmax(1).numpy() for scores in (logits, other))
    expected = loss_reference.mutual_information(loss_reference.joint(one, two))
    assert found["mi"].item() == pytest.approx(-expected, rel=1e-8)


def test_gradients_reach_what_a_stage_trains():
    module = network(3, 3, 8).train()
    batch = {"image": images(2, 3, 12, 12)}
    parts = {"spnn": {"spnn"}, "joint": {"spnn", "gnn", "cnn"}, "segment": {"gnn", "cnn"}}
    terms = {
        "spnn": {"loss", "spnn", "clustering", "smoothness", "recon", "edge"},
        "segment": {"loss", "tv", "cnn", "mi", "recon_cnn"},
    }
    terms["joint"] = terms["spnn"] | terms["segment"]
    for stage, trained in parts.items():
        module.zero_grad(set_to_none=True)
        found = module.losses(batch, stage=stage)
        assert found.keys() == terms[stage]
        found["loss"].backward()
        for name, group in module.parameter_groups().items():
            if name in trained:
                assert all(p.grad is not None and p.grad.any() for p in group), (stage, name)
            else:
                assert all(p.grad is None for p in group), (stage, name)


def test_the_frozen_superpixel_network_stays_as_it_is():
    module = network(3, 3, 6).train()
    module.spnn.fuse[1].eval()  # someone's own choice, to be left alone
    before = {name: tensor.clone() for name, tensor in module.spnn.state_dict().items()}
    modes = [layer.training for layer in module.modules()]
    batch = {"image": images(2, 3, 8, 8)}
    module.losses(batch, stage="segment")["loss"].backward()
    assert [layer.training for layer in module.modules()] == modes
    for name, tensor in module.spnn.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    # In evaluation mode: other images of the batch do not change an image's superpixels.
    evaluated = module.eval()(batch["image"]).assignment
    module.train()
    seen = []
    handle = module.spnn.register_forward_hook(lambda _, __, out: seen.append(out.assignment))
    module.losses(batch, stage="segment")
    handle.remove()
    assert_close(seen[0], evaluated, **EXACT)


@pytest.mark.parametrize("spnn", [True, False])
def test_sums_over_two_processes_give_the_whole_batch(spnn):
    """Batch norm is frozen. Each process keeps the gradient of its own share only; the shares add up."""
    module = network(3, 3, 6, spnn=spnn, displacement=1, reconstruction_reduction="sum")
    batch = images(5, 3, 8, 8)
    valid = torch.rand(5, 8, 8) < 0.8
    valid[1] = False
    parameters = list(module.parameters())
    whole = module.losses({"image": batch, "valid": valid}, generator=seeded(1))
    expected = torch.autograd.grad(whole["loss"], parameters)
    shares = [slice(0, 2), slice(2, 5)]
    sent: list[list[torch.Tensor]] = [[], []]
    for process, share in enumerate(shares):

        def keep(x: torch.Tensor, process: int = process) -> torch.Tensor:
            sent[process].append(x.detach())
            return x

        module.losses({"image": batch[share], "valid": valid[share]}, reduce=keep, generator=seeded(1))
    total = [torch.zeros_like(p) for p in parameters]
    for process, share in enumerate(shares):
        others = iter(sent[1 - process])

        def add(x: torch.Tensor, others: Any = others) -> torch.Tensor:
            return x + next(others)

        found = module.losses({"image": batch[share], "valid": valid[share]}, reduce=add, generator=seeded(1))
        for name, value in found.items():
            assert_close(value, whole[name], **EXACT)
        for t, g in zip(total, torch.autograd.grad(found["loss"], parameters), strict=True):
            t += g
        assert next(others, None) is None
    for got, want in zip(total, expected, strict=True):
        assert_close(got, want, rtol=1e-7, atol=1e-9)


def test_nothing_valid_is_no_loss():
    module = network().train()
    batch = {"image": images(2, 3, 8, 8), "valid": torch.zeros(2, 8, 8, dtype=torch.bool)}
    found = module.losses(batch)
    assert all(value == 0 for value in found.values())
    found["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_training_lowers_every_loss_on_photographs():
    """The superpixel network alone, all together, and the others on frozen superpixels."""
    module = SGSeg(3, 3, 12, k=5, width=1 / 16)
    batch = {"image": photographs()}
    generator = seeded(0)
    history: dict[str, list[float]] = {}
    for stage, steps in (("spnn", 15), ("joint", 30), ("segment", 20)):
        optimizer = torch.optim.Adam([{"params": group} for group in module.parameter_groups().values()], lr=4e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            found = module.losses(batch, stage=stage, generator=generator)
            found["loss"].backward()
            optimizer.step()
            for name, value in found.items():
                history.setdefault(f"loss of {stage}" if name == "loss" else name, []).append(value.item())
    assert len(history) == 12
    for name, values in history.items():
        assert np.mean(values[-3:]) < np.mean(values[:3]), name
    assert module.eval()(batch["image"]).logits.argmax(1).unique().numel() > 1


# The network as a thing


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gnn": "dgcnn", "k": 2, "num_blocks": 2, "dynamic": True},
        {"gnn": None, "turn": False},
        {"spnn": False, "reconstruction_reduction": "sum"},
    ],
)
def test_options_make_the_network_again(options):
    module = network(4, 3, 5, **options)
    assert list(module.options) == list(inspect.signature(SGSeg).parameters)
    again = SGSeg(**json.loads(json.dumps(module.options))).double().eval()
    again.load_state_dict(module.state_dict())
    batch = images(1, 4, 6, 6)
    assert torch.equal(again(batch).logits, module(batch).logits)
    values = [net.losses({"image": batch}, generator=seeded(0))["loss"].item() for net in (module, again)]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["spnn", "gnn", "cnn"]),
        ({"gnn": None}, ["spnn", "cnn"]),
        ({"spnn": False}, ["cnn"]),
        ({"spnn": False, "gnn": None}, ["cnn"]),
    ],
)
def test_parameter_groups_are_all_parameters(options, names):
    module = network(3, 3, 5, **options)
    groups = module.parameter_groups()
    assert list(groups) == names and module.num_superpixels == ()
    assert [p for group in groups.values() for p in group] == list(module.parameters())
    found = module.losses({"image": images(1, 3, 6, 6)})
    assert ("tv" in found) == ("gnn" in names) and ("spnn" in found) == ("spnn" in names)


def test_the_parts_stand_alone():
    maps = SPNN(2, 5, 1 / 16).eval()(torch.rand(2, 2, 6, 7))
    assert maps.assignment.shape == (2, 5, 6, 7) and maps.reconstruction.shape == (2, 2, 6, 7)
    gnn = SuperpixelGNN(3, "dgcnn", k=2, num_blocks=1, width=1 / 16).eval()
    x, pos = torch.rand(2, 5, 3), torch.rand(2, 5, 2)
    edge_index = knn_edges(x.flatten(0, 1), 2, torch.arange(2).repeat_interleave(5))
    assert torch.equal(gnn.graph(x), edge_index)
    assert torch.equal(gnn(x, pos), gnn(x, pos, edge_index))


def test_wrong_input_is_refused_by_name():
    module = network()
    with pytest.raises(ValueError, match=r"got shape \[1, 4, 8, 8\] for image, expected \[\*, 3, \*, \*\]"):
        module(torch.rand(1, 4, 8, 8))
    with pytest.raises(TypeError, match=r"got dtype torch.uint8 for image"):
        module.losses({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="got ordering=8, expected 0 to 7"):
        module(images(1, 3, 8, 8), ordering=8)
    with pytest.raises(ValueError, match="got stage='all', expected one of 'spnn', 'joint', 'segment'"):
        module.losses({"image": images(1, 3, 8, 8)}, stage="all")
    alone = network(spnn=False)
    with pytest.raises(ValueError, match="got stage='spnn' in a network with spnn=False"):
        alone.losses({"image": images(1, 3, 8, 8)}, stage="spnn")
    with pytest.raises(ValueError, match="got a network with spnn=False"):
        alone.superpixelated(images(1, 3, 8, 8))
    with pytest.raises(ValueError, match="got block='gat', expected one of 'diff_gcn', 'dgcnn', 'pointnet'"):
        SuperpixelGNN(3, "gat")
    for name, value in (("num_superpixels", 1), ("num_classes", 0), ("k", 0), ("num_blocks", 0), ("displacement", -1)):
        with pytest.raises(ValueError, match=f"got {name}={value}, expected at least"):
            network(**{name: value})
    with pytest.raises(ValueError, match="got reconstruction_reduction='max'"):
        SGSeg(3, 2, reconstruction_reduction="max", width=1 / 16)
    with pytest.raises(ValueError, match="got width=0, expected a number above 0"):
        SGSeg(3, 2, width=0)
    gnn = SuperpixelGNN(3, width=1 / 16)
    with pytest.raises(ValueError, match=r"got shape \[1, 5, 2\] for x, expected \[\*, \*, 3\]"):
        gnn(torch.rand(1, 5, 2), torch.rand(1, 5, 2))
    with pytest.raises(ValueError, match=r"got shape \[1, 4, 2\] for pos, expected \[1, 5, 2\]"):
        gnn(torch.rand(1, 5, 3), torch.rand(1, 4, 2))
