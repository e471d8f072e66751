"""SSP and MSP against the printed formula, messages, torch's resizing, and their own laws."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch.autograd import gradcheck
from torch.nn.functional import interpolate
from torch.testing import assert_close
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, MessagePassing

from graphseg.nn.superpixel_mean import MultiscaleSuperpixelMean, SuperpixelMean
from graphseg.ops.resize import resize_nearest
from graphseg.transforms import ToSuperpixelRAG
from tests.label_maps import DEGENERATE, label_maps, photographs
from tests.reference import superpixel_mean as reference

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}
LAYERS = [SuperpixelMean, MultiscaleSuperpixelMean]


def nodes(pixels=40, channels=3, regions=6, scales=3, seed=0, dtype=torch.float64, device="cpu"):
    """x [P, C] and assignments with more and more superpixels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(pixels, channels, generator=generator, dtype=torch.float64)
    fine = torch.arange(pixels) % (regions * 2**scales)
    fine = fine[torch.randperm(pixels, generator=generator)]
    assignments = [fine // 2 ** (scales - 1 - s) for s in range(scales)]
    return x.to(device, dtype), [a.to(device) for a in assignments]


def maps(batch=2, channels=9, size=(6, 8), image=(13, 17), scales=2, seed=0, dtype=torch.float64, device="cpu"):
    """x [B, C, H, W] and label maps [B, h, w]: blocks of shrinking size, shifted from image to image."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    y, z = torch.meshgrid(torch.arange(image[0]), torch.arange(image[1]), indexing="ij")
    labels = []
    for scale in range(scales):
        cell = 2 ** (3 - scale)
        labels.append(torch.stack([((y + b) // cell) * 100 + (z + 2 * b) // cell for b in range(batch)]).to(device))
    return x.to(device, dtype), labels


def by_messages(layer):
    layer.fuse = False
    return layer


def layer_and_input(layer, x, assignments):
    """MSP takes all assignments, SSP the first."""
    return (x, assignments) if layer is MultiscaleSuperpixelMean else (x, assignments[0])


# Values


@pytest.mark.parametrize("fuse", [True, False])
def test_three_pixels_by_hand(fuse):
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 0.0]])
    layer = SuperpixelMean(alpha=0.5)
    layer.fuse = fuse
    # Means (2, 4) and (5, 0).
    assert layer(x, torch.tensor([0, 0, 1])).tolist() == [[2.0, 4.0], [4.0, 8.0], [7.5, 0.0]]
    cascade = MultiscaleSuperpixelMean(alpha=0.5)
    cascade.fuse = fuse
    # Mean 4: 3, 5, 10. Then means 4 and 10.
    out = cascade(torch.tensor([[1.0], [3.0], [8.0]]), [torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1])])
    assert out.tolist() == [[5.0], [7.0], [15.0]]


def test_the_default_weight_is_a_tenth():
    x = torch.full((4, 2), 10.0)
    for layer in LAYERS:
        assert_close(layer()(*layer_and_input(layer, x, [torch.zeros(4).long()])), torch.full((4, 2), 11.0))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 8, 17])
def test_nodes_are_the_loop(channels, fuse, device):
    x, assignments = nodes(channels=channels, device=device)
    for layer in (SuperpixelMean(0.3), MultiscaleSuperpixelMean(0.3)):
        layer.fuse = fuse
        used = assignments[:1] if isinstance(layer, SuperpixelMean) else assignments
        out = layer(x, used[0] if isinstance(layer, SuperpixelMean) else used)
        expected = reference.msp(x.cpu(), [a.tolist() for a in used], 0.3)
        assert_close(out.cpu().numpy(), expected, **EXACT)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_maps_are_the_loop(form, fuse, device):
    x, labels = maps(device=device)
    x = x.to(memory_format=form)
    single, cascade = SuperpixelMean(0.3), MultiscaleSuperpixelMean(0.3)
    single.fuse = cascade.fuse = fuse
    assert_close(single(x, labels[0]).cpu().numpy(), reference.msp_maps(x.cpu(), labels[:1], 0.3), **EXACT)
    assert_close(cascade(x, labels).cpu().numpy(), reference.msp_maps(x.cpu(), labels, 0.3), **EXACT)


def test_single_precision(device, dtype, tolerance):
    x, labels = maps(dtype=dtype, device=device)
    out = MultiscaleSuperpixelMean()(x, labels)
    assert out.dtype == dtype
    assert_close(out.cpu().double().numpy(), reference.msp_maps(x.cpu(), labels, 0.1), **tolerance)


@settings(max_examples=40)
@given(labels=label_maps(), channels=st.integers(0, 10), size=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_any_shape(labels, channels, size):
    x = torch.randn(1, channels, *size, dtype=torch.float64)
    grown = np.arange(labels.size).reshape(labels.shape)
    scales = [torch.from_numpy(scale)[None] for scale in (labels, grown)]
    expected = reference.msp_maps(x, scales, 0.1)
    assert_close(MultiscaleSuperpixelMean()(x, scales).numpy(), expected, **EXACT)
    rows = x[0].flatten(1).t()
    flat = [resize_nearest(scale, size).flatten() for scale in scales]
    assert_close(SuperpixelMean()(rows, flat[0]).numpy(), reference.ssp(rows, flat[0].tolist(), 0.1), **EXACT)


@pytest.mark.parametrize("labels", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_maps(labels):
    x = torch.randn(1, 2, *labels.shape, dtype=torch.float64)
    scales = [torch.from_numpy(labels)[None]]
    expected = reference.msp_maps(x, scales, 0.1)
    assert_close(SuperpixelMean()(x, scales[0]).numpy(), expected, **EXACT)
    assert_close(by_messages(SuperpixelMean())(x, scales[0]).numpy(), expected, **EXACT)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "shape", [(0, 3), (4, 0), (0, 0), (1, 1), (0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (1, 1, 1, 1)]
)
def test_empty_and_smallest_inputs(shape, fuse):
    x = torch.ones(shape, requires_grad=True)
    labels = torch.zeros((shape[0],) if len(shape) == 2 else (shape[0], *shape[2:]), dtype=torch.int64)
    for layer, assignment in ((SuperpixelMean(1.0), labels), (MultiscaleSuperpixelMean(1.0), [labels])):
        layer.fuse = fuse
        out = layer(x, assignment)
        assert torch.equal(out, torch.full(shape, 2.0))
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert torch.equal(grad, torch.full(shape, 2.0))


def test_superpixels_that_vanish_do_no_harm():
    image = torch.arange(32 * 32).view(1, 32, 32)  # at 4 x 4 all but 16 of the superpixels vanish
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    out = SuperpixelMean(0.1)(x, image)
    assert_close(out, 1.1 * x)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert_close(grad, torch.full_like(x, 1.1))


def test_not_a_number_stays_in_its_superpixel():
    x, a = torch.ones(6, 2), torch.tensor([0, 0, 1, 1, 2, 2])
    x[2, 0] = torch.nan
    assert SuperpixelMean()(x, a).isnan().nonzero().tolist() == [[2, 0], [3, 0]]


@pytest.mark.parametrize("fuse", [True, False])
def test_nothing_is_made_of_pixels_times_superpixels(fuse):
    x = torch.ones(200_000, 1)  # as a matrix, 160 GB
    layer = SuperpixelMean(1.0)
    layer.fuse = fuse
    assert torch.equal(layer(x, torch.arange(200_000)), 2 * x)


def test_large_superpixels_lose_no_digits():
    x = torch.full((1, 1, 600, 600), 0.1)
    labels = torch.zeros(1, 600, 600, dtype=torch.int64)
    assert_close(SuperpixelMean(1.0)(x, labels), 2 * x, rtol=1e-6, atol=0)


# Gradients


@pytest.mark.parametrize("layer", LAYERS)
def test_gradcheck(layer, device):
    x, assignments = nodes(pixels=9, channels=2, device=device)
    assert gradcheck(lambda v: layer()(*layer_and_input(layer, v, assignments)), x.requires_grad_())
    x, labels = maps(channels=2, size=(2, 3), image=(7, 9), device=device)
    x = x.to(memory_format=torch.channels_last)
    assert gradcheck(lambda v: layer()(*layer_and_input(layer, v, labels)), x.requires_grad_())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("problem", [nodes, maps])
def test_fused_is_plain_in_values_and_gradients(problem, layer, device, dtype, tolerance):
    x, assignments = problem(dtype=dtype, device=device)
    weight = torch.randn(x.shape, dtype=dtype).to(device)
    results = []
    for module in (layer(), by_messages(layer())):
        v = x.clone().requires_grad_()
        out = module(*layer_and_input(layer, v, assignments))
        results.append((out, *torch.autograd.grad(out, v, weight)))
    for fused, plain in zip(*results, strict=True):
        assert_close(fused, plain, **tolerance)


def test_the_layer_is_its_own_gradient():
    x, labels = maps(dtype=torch.float32)
    x.requires_grad_()
    g = torch.randn(x.shape)
    (grad,) = torch.autograd.grad(SuperpixelMean()(x, labels[0]), x, g)
    assert torch.equal(grad, SuperpixelMean()(g, labels[0]))
    (grad,) = torch.autograd.grad(MultiscaleSuperpixelMean()(x, labels), x, g)
    assert torch.equal(grad, SuperpixelMean()(SuperpixelMean()(g, labels[1]), labels[0]))


def test_gradients_of_any_layout():
    x, labels = maps()
    v = x.clone(memory_format=torch.channels_last).requires_grad_()
    g = torch.randn(x.shape, dtype=x.dtype)
    out = SuperpixelMean()(v, labels[0])
    expected = SuperpixelMean()(g, labels[0])
    for grad in (g, g.to(memory_format=torch.channels_last), g.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(torch.autograd.grad(out, v, grad, retain_graph=True)[0], expected)
    (grad,) = torch.autograd.grad(out.sum(), v)
    assert_close(grad, torch.full_like(x, 1.1))


# Laws


def test_a_cascade_is_one_scale_after_another():
    for x, assignments in (nodes(dtype=torch.float32), maps(dtype=torch.float32)):
        out = x
        for assignment in assignments:
            out = SuperpixelMean()(out, assignment)
        assert torch.equal(MultiscaleSuperpixelMean()(x, assignments), out)


def test_layouts_agree_and_are_kept():
    x, labels = maps(channels=70, dtype=torch.float32)
    for layer in LAYERS:
        first = layer()(*layer_and_input(layer, x, labels))
        last = layer()(*layer_and_input(layer, x.to(memory_format=torch.channels_last), labels))
        other = layer()(*layer_and_input(layer, x.transpose(2, 3).contiguous().transpose(2, 3), labels))
        assert first.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(first, last) and torch.equal(first, other)
    x, assignments = nodes(channels=70, dtype=torch.float32)
    out = SuperpixelMean()(x, assignments[0])
    turned = SuperpixelMean()(x.t().contiguous().t(), assignments[0])
    assert out.is_contiguous() and turned.t().is_contiguous() and torch.equal(out, turned)


def test_maps_are_nodes():
    x, labels = maps(image=(6, 8), dtype=torch.float32)
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.size(1))
    start = (labels[0].max() + 1) * torch.arange(len(x)).view(-1, 1, 1)
    out = SuperpixelMean()(rows, (labels[0] + start).flatten())
    assert torch.equal(out.view(2, 6, 8, -1).permute(0, 3, 1, 2), SuperpixelMean()(x, labels[0]))


@pytest.mark.parametrize("layer", LAYERS)
def test_batch_is_singles(layer):
    x, labels = maps(batch=3, dtype=torch.float32)
    out = layer()(*layer_and_input(layer, x, labels))
    for b in range(3):
        single = layer()(*layer_and_input(layer, x[b : b + 1], [scale[b : b + 1] for scale in labels]))
        assert torch.equal(out[b : b + 1], single)
    problems = [nodes(pixels=p, regions=2, dtype=torch.float32, seed=p) for p in (40, 1, 13)]
    start, whole = 0, []
    for s in range(3):
        start, shifted = 0, []
        for _, assignments in problems:
            shifted.append(assignments[s] + start)
            start += 50
        whole.append(torch.cat(shifted))
    out = layer()(*layer_and_input(layer, torch.cat([x for x, _ in problems]), whole))
    singles = [layer()(*layer_and_input(layer, x, assignments)) for x, assignments in problems]
    assert torch.equal(out, torch.cat(singles))


def test_an_image_without_pixels_in_a_batch():
    x, labels = maps(batch=2, dtype=torch.float32)
    rows, flat = x[0].flatten(1).t(), resize_nearest(labels[0], (6, 8))[0].flatten()
    batch = torch.cat([rows, rows[:0], rows])
    ids = torch.cat([flat, flat[:0], flat + 1000])
    assert torch.equal(SuperpixelMean()(batch, ids), torch.cat([SuperpixelMean()(rows, flat)] * 2))


def test_permutations():
    x, assignments = nodes()
    order, names = torch.randperm(len(x)), torch.randperm(200)
    layer = SuperpixelMean()
    out = layer(x, assignments[0])
    assert_close(layer(x[order], assignments[0][order]), out[order])
    assert torch.equal(layer(x, names[assignments[0]]), out)


def test_constant_and_single_pixel_superpixels():
    x = torch.randn(5, 3)
    assert_close(SuperpixelMean(0.1)(x, torch.arange(5)), 1.1 * x)
    assert_close(SuperpixelMean(0.1)(x, torch.zeros(5).long()), x + 0.1 * x.mean(0))
    assert torch.equal(SuperpixelMean(0)(x, torch.zeros(5).long()), x)


def test_the_number_of_threads_does_not_matter():
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        for batch in (1, 3):
            x, labels = maps(batch=batch, channels=70, dtype=torch.float32)
            first = MultiscaleSuperpixelMean()(x, labels)
            last = MultiscaleSuperpixelMean()(x.to(memory_format=torch.channels_last), labels)
            results += [first, last]
    torch.set_num_threads(before)
    assert all(torch.equal(a, results[0]) for a in results[0::4] + results[1::4])
    assert all(torch.equal(a, results[2]) for a in results[2::4] + results[3::4])


def test_integers_of_any_width_and_num_nodes():
    x, assignments = nodes()
    out = SuperpixelMean()(x, assignments[0])
    for integer in (torch.int32, torch.uint8, torch.int16):
        assert torch.equal(SuperpixelMean()(x, assignments[0].to(integer)), out)
    assert torch.equal(SuperpixelMean()(x, assignments[0], num_nodes=500), out)


# Coarse to fine


def test_superpixels_may_not_get_fewer():
    x = torch.randn(4, 2)
    coarse, fine, gaps = torch.tensor([0, 0, 1, 1]), torch.arange(4), torch.tensor([0, 0, 7, 7])
    layer = MultiscaleSuperpixelMean()
    with pytest.raises(ValueError, match=r"got \[\[4, 2\]\] superpixels .* do not fall"):
        layer(x, [fine, coarse])
    with pytest.raises(ValueError, match=r"got \[\[2, 4, 2\]\] superpixels"):
        layer(x, [coarse, fine, gaps])  # eight ids, two superpixels
    same = layer(x, [coarse, gaps, fine])
    assert torch.equal(same, layer(x, [coarse, coarse, fine]))


def test_every_image_goes_from_coarse_to_fine():
    x = torch.randn(2, 1, 2, 2)
    one, four = torch.zeros(2, 2).long(), torch.arange(4).view(2, 2)
    with pytest.raises(ValueError, match=r"got \[\[1, 4\], \[4, 1\]\] superpixels"):
        MultiscaleSuperpixelMean()(x, [torch.stack([one, four]), torch.stack([four, one])])


def test_counts_are_those_of_the_image():
    # The fine map has more superpixels than the coarse one, but fewer that survive.
    features = torch.randn(1, 2, 4, 4)
    coarse = torch.arange(16).view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1)
    fine = torch.zeros(16, 16, dtype=torch.int64)
    fine[0] = 1 + torch.arange(16)
    fine[1] = 17 + torch.arange(16)
    assert resize_nearest(fine[None], (4, 4)).unique().tolist() == [0]
    expected = SuperpixelMean()(SuperpixelMean()(features, coarse[None]), torch.zeros(1, 4, 4).long())
    assert torch.equal(MultiscaleSuperpixelMean()(features, [coarse[None], fine[None]]), expected)


# As PyG layers


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_message_passing_without_parameters(layer):
    module = layer(0.2)
    assert isinstance(module, MessagePassing)
    assert repr(module) == f"{layer.__name__}(alpha=0.2)"
    module.reset_parameters()
    module.load_state_dict(copy.deepcopy(module).state_dict())
    assert not list(module.parameters()) and not module.state_dict()


@pytest.mark.parametrize("layer", LAYERS)
def test_hooks_see_the_messages(layer):
    x, assignments = nodes()
    seen = []
    module = layer()
    out = module(*layer_and_input(layer, x, assignments))
    handle = module.register_message_forward_hook(lambda module, inputs, messages: seen.append(messages))
    assert_close(module(*layer_and_input(layer, x, assignments)), out)
    assert torch.equal(seen[0], x)
    handle.remove()
    seen.clear()
    assert torch.equal(module(*layer_and_input(layer, x, assignments)), out) and not seen


@pytest.mark.parametrize("layer", LAYERS)
def test_messages_of_a_subclass_are_used(layer):
    base: Any = layer

    class Doubled(base):
        def message(self, x_j):
            return 2 * x_j

    x, assignments = nodes()
    given_input = layer_and_input(layer, x, assignments)
    assert_close(Doubled(0.1)(*given_input), layer(0.2)(*given_input))


def test_explainers_pass_through():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.conv = SuperpixelMean(1.0), GCNConv(3, 2)

        def forward(self, x, edge_index, assignment):
            return self.conv(self.mean(x, assignment), edge_index)

    x, assignments = nodes(dtype=torch.float32)
    edge_index = torch.randint(0, 40, (2, 90))
    explainer = Explainer(
        Network(),
        GNNExplainer(epochs=3),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "node", "return_type": "raw"},
    )
    explanation = explainer(x, edge_index, assignment=assignments[0])
    assert explanation.edge_mask.shape == (90,) and explanation.edge_mask.any()
    assert explanation.node_mask.any()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_is_summed_in_high(low, fuse, layer, device):
    x, labels = maps(size=(64, 64), image=(64, 64), device=device)
    labels = [scale * 0 for scale in labels]
    x = (x + 3).to(low).requires_grad_()
    module = layer()
    module.fuse = fuse
    out = module(*layer_and_input(layer, x, labels))
    expected = layer()(*layer_and_input(layer, x.detach().double(), labels))
    assert out.dtype == low
    assert_close(out.double(), expected, rtol=0.02, atol=0.02)
    (grad,) = torch.autograd.grad(out.sum(), x)
    factor = 1.1 if layer is SuperpixelMean else 1.21
    assert grad.dtype == low
    assert_close(grad.double(), torch.full_like(expected, factor), rtol=0.02, atol=0)


@pytest.mark.parametrize("fuse", [True, False])
def test_autocast(fuse, device):
    x, labels = maps(dtype=torch.float32, device=device)
    conv = torch.nn.Conv2d(9, 4, 1).to(device)
    layer = SuperpixelMean()
    layer.fuse = fuse
    expected = layer(conv(x), labels[0])
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = layer(conv(x), labels[0])
        assert layer(x, labels[0]).dtype == torch.float32
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), expected, rtol=0.03, atol=0.03)
    out.float().sum().backward()
    assert all(bool(torch.as_tensor(p.grad).isfinite().all()) for p in conv.parameters())


# What torch.compile itself does where it breaks a graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend, layer):
    x, assignments = nodes(dtype=torch.float32)
    module = layer()
    torch._dynamo.reset()
    run = torch.compile(lambda v: module(*layer_and_input(layer, v * 2, assignments)) + 1, backend=backend)
    results = []
    for function in (run, lambda v: module(*layer_and_input(layer, v * 2, assignments)) + 1):
        v = x.clone().requires_grad_()
        out = function(v)
        results.append((out, *torch.autograd.grad(out, v, x)))
    for compiled, plain in zip(*results, strict=True):
        assert_close(compiled, plain)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compile_in_a_network_of_images():
    """Kernels take image after image, which torch.compile must not try to follow."""
    x, labels = maps(batch=3, dtype=torch.float32)
    conv, layer = torch.nn.Conv2d(9, 4, 1), MultiscaleSuperpixelMean()
    torch._dynamo.reset()
    run = torch.compile(lambda v: layer(conv(v), labels), backend="eager")
    results = []
    for out in (run(x.requires_grad_()), layer(conv(x), labels)):
        results.append((out, *torch.autograd.grad(out.square().sum(), [x, *conv.parameters()])))
    for compiled, plain in zip(*results, strict=True):
        assert_close(compiled, plain)


# Real images


def test_graphs_of_photographs():
    transform = ToSuperpixelRAG(60)
    images = [data.astronaut()[:96, :120], data.chelsea()[:80, 50:150]]
    graphs = [transform(Data(image=torch.from_numpy(image.copy()).permute(2, 0, 1))) for image in images]
    batch = next(iter(DataLoader(graphs, batch_size=2)))
    pixels = torch.cat([torch.from_numpy(image.reshape(-1, 3) / 255.0) for image in images])
    out = SuperpixelMean(1.0)(pixels, batch.assignment, batch.num_nodes)
    total = torch.zeros(batch.num_nodes, 3, dtype=pixels.dtype).index_add_(0, batch.assignment, pixels)
    mean = total / torch.bincount(batch.assignment).unsqueeze(1)
    assert_close(out - pixels, mean[batch.assignment])


@pytest.mark.parametrize("name", photographs())
def test_superpixels_of_photographs_at_feature_size(name):
    image, labels = photographs()[name]
    x = torch.from_numpy(image / 255.0).permute(2, 0, 1)[None]
    small = interpolate(x, size=(17, 20), mode="bilinear", align_corners=False)
    scales = [torch.from_numpy(labels // 4)[None], torch.from_numpy(labels)[None]]
    assert_close(MultiscaleSuperpixelMean()(small, scales).numpy(), reference.msp_maps(small, scales, 0.1), **EXACT)


# Bad input

X, A = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
F, L = torch.randn(2, 3, 4, 4), torch.zeros(2, 8, 8).long()
LIST: Any = [0, 1, 1, 0]
TEXT: Any = "0.1"
BAD = [
    (lambda: SuperpixelMean(TEXT), TypeError, "got str for alpha"),
    (lambda: SuperpixelMean(True), TypeError, "got bool for alpha"),
    (lambda: MultiscaleSuperpixelMean(float("nan")), ValueError, "got alpha=nan"),
    (lambda: SuperpixelMean()(LIST, A), TypeError, "got list for x"),
    (lambda: SuperpixelMean()(X, LIST), TypeError, "got list for assignment"),
    (lambda: SuperpixelMean()(X.long(), A), TypeError, "got dtype torch.int64 for x, expected a floating-point"),
    (lambda: SuperpixelMean()(X, A.float()), TypeError, "got dtype torch.float32 for assignment"),
    (lambda: SuperpixelMean()(X[0], A), ValueError, r"got shape \[2\] for x, expected \[P, C\] or \[B, C, H, W\]"),
    (lambda: SuperpixelMean()(F[0], L[0]), ValueError, r"got shape \[3, 4, 4\] for x"),
    (lambda: SuperpixelMean()(X, A[:3]), ValueError, r"got shape \[3\] for assignment, expected \[4\]"),
    (lambda: SuperpixelMean()(F, L[:1]), ValueError, r"got shape \[1, 8, 8\] for assignment, expected \[2, \*, \*\]"),
    (lambda: SuperpixelMean()(F, L.flatten()), ValueError, r"got shape \[128\] for assignment"),
    (lambda: SuperpixelMean()(F, L[:, :0]), ValueError, r"got shape \[2, 0, 8\] for assignment, expected at least one"),
    (lambda: SuperpixelMean()(X, A - 1), ValueError, "got assignment id -1, expected ids from 0"),
    (lambda: SuperpixelMean()(X, A, 1), ValueError, r"got assignment id 1, expected ids in \[0, 1\)"),
    (lambda: SuperpixelMean()(X, A, -1), ValueError, "got num_nodes=-1"),
    (lambda: SuperpixelMean()(X, A.to("meta")), ValueError, "x on cpu, assignment on meta"),
    (lambda: MultiscaleSuperpixelMean()(X, A), TypeError, "got Tensor for assignments, expected a list"),
    (lambda: MultiscaleSuperpixelMean()(X, []), ValueError, "got no tensor in assignments"),
    (lambda: MultiscaleSuperpixelMean()(X, [A, A - 1]), ValueError, "got assignment id -1"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_refused_by_name(number):
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()
