"""The rasterised convolution against an explicit walk through the pixels, and the block against Table 9."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch.autograd import gradcheck
from torch.nn.functional import conv2d
from torch.testing import assert_close

from graphseg.nn.raster_conv import NUM_ORDERINGS, RasterConv2d, RasterResidualBlock, draw_orderings
from tests.reference import raster_conv as reference

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}
ORDERINGS = range(NUM_ORDERINGS)


def layer(*args, **kwargs):
    """A layer in float64 with every weight and bias random."""
    module = RasterConv2d(*args, **kwargs).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def block(*args, dtype=torch.float64, **kwargs):
    """A block in evaluation mode with random norms and biases."""
    module = RasterResidualBlock(*args, **kwargs).to(dtype).eval()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.startswith("norm") and tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(tensor)
    return module


# Values


def test_a_kernel_of_ones_by_hand():
    module = RasterConv2d(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    # Two rows above, one to each side, and the row itself up to the pixel.
    assert module(x, 0)[0, 0].tolist() == [[1, 3, 5], [7, 15, 16], [19, 36, 33]]
    # The same from the lower right corner.
    assert module(x, 3)[0, 0].tolist() == [[27, 44, 31], [24, 35, 23], [15, 17, 9]]
    # By columns from the left, each from the top.
    assert module(x, 4)[0, 0].tolist() == [[1, 7, 15], [5, 19, 36], [11, 24, 39]]
    # Without an ordering, the sum over the neighbourhood.
    assert module(x)[0, 0].tolist() == [[12, 21, 16], [27, 45, 33], [24, 39, 28]]


def test_weights_keep_their_place_or_turn():
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    numbers = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    for turn in (True, False):
        module = RasterConv2d(1, 1, bias=False, turn=turn)
        module.load_state_dict({"weight": numbers})
        # The pixel below the impulse sees it through the kernel's middle row, whichever way that lies.
        assert module(x, 0)[0, 0, 3, 2] == 5
    plain, turned = RasterConv2d(1, 1, bias=False, turn=False), RasterConv2d(1, 1, bias=False)
    for module in (plain, turned):
        module.load_state_dict({"weight": numbers})
    # Rows from the bottom: the current pixel is at the centre of the window's first row.
    assert plain(x, 2)[0, 0, 2, 2] == 2 and turned(x, 2)[0, 0, 2, 2] == 8
    # Columns from the left: at the centre of its last column.
    assert plain(x, 4)[0, 0, 2, 2] == 6 and turned(x, 4)[0, 0, 2, 2] == 8


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_orderings_are_the_loop(ordering, size, device):
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    for turn, expected in ((True, reference.convolve_turned), (False, reference.convolve)):
        module = layer(3, 2, size, turn=turn).to(device)
        weight, bias = module.weight.detach().cpu(), module.bias.detach().cpu()
        out = module(x.to(device), ordering).detach().cpu().numpy()
        for b in range(2):
            assert_close(out[b], expected(x[b].numpy(), weight, bias, ordering), **EXACT)


@settings(max_examples=30)
@given(
    batch=st.integers(0, 2),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    ordering=st.sampled_from([None, *ORDERINGS]),
    turn=st.booleans(),
    kernel=st.sampled_from([1, 3, 5]),
)
def test_any_shape(batch, size, ordering, turn, kernel):
    x = torch.randn(batch, 2, *size, dtype=torch.float64)
    module = layer(2, 3, kernel, bias=False, turn=turn)
    out = module(x, ordering).detach().numpy()
    assert out.shape == (batch, 3, *size)
    weight = module.weight.detach()
    for b in range(batch):
        if ordering is None:
            expected = reference.ordinary(x[b].numpy(), weight, None)
        else:
            loop = reference.convolve_turned if turn else reference.convolve
            expected = loop(x[b].numpy(), weight, None, ordering)
        assert_close(out[b], expected, **EXACT)


def test_no_ordering_is_the_ordinary_convolution(device, dtype, tolerance):
    module: Any = RasterConv2d(3, 4).to(device, dtype)
    x = torch.randn(2, 3, 6, 7, dtype=dtype, device=device)
    for mode in (True, False):
        assert torch.equal(module.train(mode)(x), conv2d(x, module.weight, module.bias, padding=1))
    expected = reference.ordinary(x[0].cpu().numpy(), module.weight.detach().cpu(), module.bias.detach().cpu())
    assert_close(module(x)[0].detach().cpu().double().numpy(), expected, **tolerance)


# Laws


@pytest.mark.parametrize("turn", [True, False])
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_no_pixel_sees_a_later_one(ordering, turn):
    H, W = 5, 6
    step = {pixel: number for number, pixel in enumerate(reference.walk(ordering, H, W))}
    module = layer(1, 1, turn=turn)
    x = torch.randn(1, 1, H, W, dtype=torch.float64, requires_grad=True)
    out = module(x, ordering)
    (first_y, first_x), (last_y, last_x) = reference.window(ordering)
    for (y, z), number in step.items():
        (grad,) = torch.autograd.grad(out[0, 0, y, z], x, retain_graph=True)
        seen = {(int(a), int(b)) for a, b in grad[0, 0].nonzero()}
        inside = {(y + a, z + b) for a in range(first_y, last_y + 1) for b in range(first_x, last_x + 1)}
        assert seen == {pixel for pixel in inside if pixel in step and step[pixel] <= number}


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_a_turning_kernel_is_the_mirror_image(ordering):
    module = layer(2, 3)
    x = torch.randn(1, 2, 4, 7, dtype=torch.float64)
    mirrored = torch.from_numpy(reference.mirror(x.numpy(), ordering).copy())
    expected = reference.mirror_back(module(mirrored, 0).detach().numpy(), ordering)
    assert_close(module(x, ordering).detach().numpy(), expected, **EXACT)


def test_the_walks_differ():
    walks = [tuple(reference.walk(ordering, 3, 4)) for ordering in ORDERINGS]
    assert len(set(walks)) == 8 and all(len(set(steps)) == 12 for steps in walks)
    module = layer(1, 1)
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    outputs = [module(x, ordering) for ordering in ORDERINGS]
    assert all(not torch.allclose(outputs[a], outputs[b]) for a in ORDERINGS for b in range(a))


@pytest.mark.parametrize("ordering", [None, 1, 6])
def test_batch_is_singles(ordering):
    x = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    module, residual = layer(2, 4), block(2)
    for function in (module, residual):
        singles = torch.cat([function(x[b : b + 1], ordering) for b in range(3)])
        assert_close(function(x, ordering), singles, **EXACT)


def test_memory_formats_agree(dtype, tolerance):
    x = torch.randn(2, 3, 5, 4, dtype=dtype)
    module = RasterConv2d(3, 4).to(dtype)
    for ordering in (None, 0, 7):
        last = module(x.to(memory_format=torch.channels_last), ordering)
        assert_close(last, module(x, ordering), **tolerance)


# Gradients and weights


@pytest.mark.parametrize("turn", [True, False])
@pytest.mark.parametrize("ordering", [None, 0, 5])
def test_gradcheck(ordering, turn, device):
    module = layer(2, 2, turn=turn).to(device)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, device=device, requires_grad=True)
    parameters = (module.weight, module.bias)

    def run(x, weight, bias):
        values = {"weight": weight, "bias": bias}
        return torch.func.functional_call(module, values, (x, ordering))

    assert gradcheck(run, (x, *parameters))


def test_weights_that_no_ordering_sees():
    x = torch.randn(2, 3, 6, 6)
    for turn, unseen in ((True, 1), (False, 0)):
        module: Any = RasterConv2d(3, 4, turn=turn)
        torch.stack([module(x, ordering) for ordering in ORDERINGS]).square().sum().backward()
        blind = (module.weight.grad == 0).all(0).all(0)
        assert int(blind.sum()) == unseen
        assert not module.weight[:, :, blind].any()
        assert module.weight[:, :, ~blind].all()


def test_xavier_initialisation():
    torch.manual_seed(3)
    module: Any = RasterConv2d(20, 30, turn=False)
    first = module.weight.detach().clone()
    bound = (6 / (9 * 20 + 9 * 30)) ** 0.5
    assert first.abs().max() <= bound and first.abs().max() > 0.99 * bound
    assert_close(first.std(), torch.tensor(bound / 3**0.5), rtol=0.05, atol=0)
    assert not module.bias.any()
    torch.nn.init.ones_(module.bias)
    torch.manual_seed(3)
    module.reset_parameters()
    assert torch.equal(module.weight, first) and not module.bias.any()


# Orderings


def test_draws_are_different_and_reproducible():
    draws = [draw_orderings(generator=torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in draws)
    assert {number for pair in draws for number in pair} == set(ORDERINGS)
    assert len({tuple(pair) for pair in draws}) > 50  # of 56
    assert draws[0] == draw_orderings(generator=torch.Generator().manual_seed(0))
    assert sorted(draw_orderings(8)) == list(ORDERINGS) and len(draw_orderings(1)) == 1


def test_draws_follow_torchs_seed():
    torch.manual_seed(5)
    first = draw_orderings(4)
    torch.manual_seed(5)
    assert draw_orderings(4) == first


# The block


@pytest.mark.parametrize("ordering", [None, 0, 6])
@pytest.mark.parametrize("channels", [(2, None), (3, 3), (2, 5)])
def test_block_is_table_9(channels, ordering, device):
    module = block(*channels)
    x = torch.randn(2, channels[0], 4, 5, dtype=torch.float64)
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    weights = [(None, None)]
    weights += [(state[f"conv{i}.weight"][:, :, 0, 0], state.get(f"conv{i}.bias")) for i in range(1, 6)]
    scales = []
    for i in (0, 1, 2, 4):
        mean, variance, weight, shift = (
            state[f"norm{i}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        scale = weight / np.sqrt(variance + 1e-5)
        scales.append((scale, shift - mean * scale))

    def convolution(image):
        if ordering is None:
            return reference.ordinary(image, state["raster.weight"], None)
        return reference.convolve_turned(image, state["raster.weight"], None, ordering)

    out = module.to(device)(x.to(device), ordering).detach().cpu().numpy()
    assert out.shape == (2, channels[1] or 2 * channels[0], 4, 5)
    for b in range(2):
        assert_close(out[b], reference.block(x[b].numpy(), weights, scales, convolution), **EXACT)


def test_blocks_stack_as_in_table_10():
    blocks = [
        RasterResidualBlock(64),
        RasterResidualBlock(128, 128),
        RasterResidualBlock(128),
        RasterResidualBlock(256),
    ]
    x = torch.randn(2, 64, 4, 4)
    for residual in blocks:
        x = residual(x, 3)
    assert x.shape == (2, 512, 4, 4)


def test_block_trains():
    residual: Any = RasterResidualBlock(3)
    x = torch.randn(4, 3, 6, 6)
    residual(x, 2).square().mean().backward()
    grads = {name: p.grad for name, p in residual.named_parameters()}
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads.values())
    assert all(bool(grad.any()) for name, grad in grads.items() if "weight" in name)
    assert int(residual.norm0.num_batches_tracked) == 1


@pytest.mark.parametrize("turn", [True, False])
def test_reset_state_and_representation(turn):
    torch.manual_seed(1)
    residual = RasterResidualBlock(3, 4, turn=turn)
    before = {name: tensor.clone() for name, tensor in residual.state_dict().items()}
    assert residual.raster.turn == turn and "raster.mask" not in before
    x = torch.randn(2, 3, 5, 5)
    residual(x, 1).sum().backward()
    with torch.no_grad():
        for parameter in residual.parameters():
            parameter.add_(1)
    other = RasterResidualBlock(3, 4, turn=turn)
    other.load_state_dict(residual.state_dict())
    assert torch.equal(other.eval()(x, 4), residual.eval()(x, 4))
    torch.manual_seed(1)
    residual.reset_parameters()
    after = residual.state_dict()
    assert all(torch.isfinite(tensor.double()).all() for tensor in after.values())
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("norm"))
    assert not after["conv3.bias"].any() and not after["conv5.bias"].any()
    expected = "RasterConv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False"
    assert repr(residual.raster) == expected + (")" if turn else ", turn=False)")


# Everywhere else


@pytest.mark.parametrize("ordering", [None, 5])
def test_autocast(ordering, device):
    residual = RasterResidualBlock(3).to(device).eval()
    x = torch.randn(2, 3, 6, 6, device=device)
    expected = residual(x, ordering)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        out = residual(x, ordering)
    assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert all(bool(torch.as_tensor(p.grad).isfinite().all()) for p in residual.parameters())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend):
    residual = block(2)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(residual, backend=backend, fullgraph=True)
    for ordering in (None, 7):
        assert_close(compiled(x, ordering), residual(x, ordering), **EXACT)


def test_photograph():
    image = torch.from_numpy(data.astronaut()[100:124, 200:220] / 255.0).permute(2, 0, 1)[None]
    module = layer(3, 2)
    for ordering in draw_orderings():
        expected = reference.convolve_turned(image[0].numpy(), module.weight.detach(), module.bias.detach(), ordering)
        assert_close(module(image, ordering)[0].detach().numpy(), expected, **EXACT)


# Bad input

X = torch.randn(1, 2, 4, 4)
LIST: Any = [1.0]
TEXT: Any = "rows"
BAD = [
    (lambda: RasterConv2d(0, 2), ValueError, "got in_channels=0"),
    (lambda: RasterConv2d(2, TEXT), TypeError, "got str for out_channels"),
    (lambda: RasterConv2d(2, 2, 4), ValueError, "got kernel_size=4, expected an odd number"),
    (lambda: RasterConv2d(2, 2)(LIST), TypeError, "got list for x"),
    (lambda: RasterConv2d(2, 2)(X[0]), ValueError, r"got shape \[2, 4, 4\] for x"),
    (lambda: RasterConv2d(3, 2)(X, 1), ValueError, r"got shape \[1, 2, 4, 4\] for x, expected \[\*, 3, \*, \*\]"),
    (lambda: RasterConv2d(2, 2)(X, 8), ValueError, "got ordering=8, expected 0 to 7"),
    (lambda: RasterConv2d(2, 2)(X, -1), ValueError, "got ordering=-1"),
    (lambda: RasterConv2d(2, 2)(X, TEXT), TypeError, "got str for ordering"),
    (lambda: RasterConv2d(2, 2)(X, True), TypeError, "got bool for ordering"),
    (lambda: RasterResidualBlock(4, 3), ValueError, "got out_channels=3, expected at least in_channels=4"),
    (lambda: RasterResidualBlock(0), ValueError, "got in_channels=0"),
    (lambda: RasterResidualBlock(2)(X, 9), ValueError, "got ordering=9"),
    (lambda: draw_orderings(0), ValueError, "got count=0, expected at least 1"),
    (lambda: draw_orderings(9), ValueError, "got count=9, expected at most 8"),
    (lambda: draw_orderings(TEXT), TypeError, "got str for count"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_is_refused_by_name(number):
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()
