"""The residual networks against the official names and shapes, a plain forward pass, and the law of dilation."""

from __future__ import annotations

import math
import os
import pickle
from typing import Any

import pytest
import torch
from skimage import data
from torch.nn import Conv2d
from torch.testing import assert_close

from graphseg.models import ResNet, load_backbone_weights, resnet18, resnet34, resnet50, resnet101
from graphseg.models.resnet import backbone_channels, backbone_maps, make_backbone, scaled_width
from tests.reference import resnet as reference

MAKE = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50, "resnet101": resnet101}
PARAMETERS = {"resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032, "resnet101": 42_500_160}
SMALL = 0.125


def with_statistics(network, seed=0):
    """The network in evaluation mode, with weights and statistics that a trained one could have."""
    network.load_state_dict(reference.unit_state(network.state_dict(), torch.Generator().manual_seed(seed)))
    return network.eval()


def photograph(height=61, width=75):
    image = torch.from_numpy(data.astronaut()[30 : 30 + height, 160 : 160 + width].copy())
    return image.permute(2, 0, 1).unsqueeze(0).float() / 255


# Names, shapes, sizes


@pytest.mark.parametrize("kind", MAKE)
def test_names_and_shapes_are_the_official_ones(kind):
    with torch.device("meta"):
        networks = [MAKE[kind](output_stride) for output_stride in (8, 16, 32)]
    official = reference.state_shapes(kind)
    assert list(official)[-2:] == ["fc.weight", "fc.bias"]
    for network in networks:
        found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        assert list(found.items()) == list(official.items())[:-2]
        assert sum(p.numel() for p in network.parameters()) == PARAMETERS[kind]


def test_the_list_has_what_every_official_file_has():
    """A few names and shapes that are known by heart keep the rule honest."""
    by_heart = {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.22.conv3.weight": (1024, 256, 1, 1),
        "layer4.0.conv2.weight": (512, 512, 3, 3),
        "fc.weight": (1000, 2048),
    }
    official = reference.state_shapes("resnet101")
    assert {name: official[name] for name in by_heart} == by_heart
    assert "layer1.0.downsample.0.weight" not in reference.state_shapes("resnet18")
    assert [len(reference.state_shapes(kind)) for kind in MAKE] == [122, 218, 320, 626]


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_sizes_of_the_maps(kind, output_stride):
    network = MAKE[kind](output_stride, SMALL).eval()
    for height, width in [(64, 96), (61, 75), (33, 1), (5, 7)]:
        maps = network(torch.rand(2, 3, height, width))
        strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
        sizes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]
        assert [tuple(x.shape) for x in maps] == [
            (2, channels, *size) for channels, size in zip(network.out_channels, sizes, strict=True)
        ]


@pytest.mark.parametrize(("width", "channels"), [(1, 64), (0.25, 16), (0.3, 20), (0.01, 4), (1.5, 96)])
def test_width_scales_to_multiples_of_four(width, channels):
    assert scaled_width(64, width) == channels
    with torch.device("meta"):
        network, deeper = resnet18(width=width), resnet50(width=width)
    assert network.out_channels == [scaled_width(c, width) for c in (64, 128, 256, 512)]
    assert network.conv1.weight.shape[0] == channels
    assert deeper.out_channels == [4 * c for c in network.out_channels]


# Values


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_are_the_plain_forward_pass(kind, output_stride):
    network = with_statistics(MAKE[kind](output_stride, SMALL)).double()
    image = photograph()
    expected = reference.forward(network.state_dict(), image, kind, output_stride)
    for found, wanted in zip(network(image.double()), expected, strict=True):
        assert found.detach().std() > 1e-3  # a network that died would agree with anything
        assert_close(found, wanted, rtol=1e-9, atol=1e-10)


def test_single_precision_and_devices(device):
    network = with_statistics(resnet18(8, SMALL)).to(device)
    expected = reference.forward({k: v.cpu() for k, v in network.state_dict().items()}, photograph(), "resnet18", 8)
    for found, wanted in zip(network(photograph().to(device)), expected, strict=True):
        assert_close(found.cpu().double(), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(("output_stride", "step"), [(8, 4), (16, 2)])
@pytest.mark.parametrize("size", [(64, 96), (61, 75), (33, 47)])
def test_dilation_keeps_the_maps_where_strides_would_have_left_pixels(kind, output_stride, step, size):
    """To the border: zeros are as far away from a pixel in steps of its dilation as in the smaller map."""
    strided = with_statistics(MAKE[kind](32, SMALL)).double()
    dilated = MAKE[kind](output_stride, SMALL).double().eval()
    dilated.load_state_dict(strided.state_dict())
    image = photograph(*size).double()
    last, sparse = dilated(image)[-1], strided(image)[-1]
    assert sparse.detach().std() > 1e-3
    assert_close(last[..., ::step, ::step], sparse, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_multi_grid(kind):
    grid = (1, 2, 4)
    network = with_statistics(MAKE[kind](8, SMALL, multi_grid=grid)).double()
    image = photograph()
    expected = reference.forward(network.state_dict(), image, kind, 8, grid)
    assert_close(network(image.double())[-1], expected[-1], rtol=1e-9, atol=1e-10)
    dilations = [m.dilation[0] for m in network.layer4.modules() if isinstance(m, Conv2d) and m.kernel_size == (3, 3)]
    assert dilations == ([4, 4, 8, 8] if kind == "resnet18" else [4, 8, 16])
    with pytest.raises(ValueError, match=r"got multi_grid=\(1,\), expected a factor for each of"):
        MAKE[kind](multi_grid=(1,))


def test_batch_is_singles():
    network = with_statistics(resnet50(8, SMALL)).double()
    images = torch.cat([photograph(), photograph().flip(3)]).double()
    for whole, *parts in zip(network(images), network(images[:1]), network(images[1:]), strict=True):
        assert_close(whole, torch.cat(parts), rtol=1e-12, atol=1e-12)


def test_images_of_four_channels():
    network = resnet18(8, SMALL, in_channels=4).double()
    with_statistics(network)
    image = torch.cat([photograph(), photograph()[:, :1]], 1)
    expected = reference.forward(network.state_dict(), image, "resnet18", 8)
    assert_close(network(image.double())[-1], expected[-1], rtol=1e-9, atol=1e-10)
    assert reference.state_shapes("resnet18", 4)["conv1.weight"] == tuple(resnet18(in_channels=4).conv1.weight.shape)
    with pytest.raises(ValueError, match="image"):
        network(photograph().double())


def test_starts_as_he_has_it():
    network = resnet18(8)
    for module in network.modules():
        if isinstance(module, Conv2d):
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    assert torch.equal(network.bn1.weight.detach(), torch.ones(64)) and not network.bn1.bias.detach().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_stride": 4}, "got output_stride=4, expected 8, 16 or 32"),
        ({"width": 0}, "got width=0, expected a number above 0"),
        ({"width": float("nan")}, "got width=nan"),
        ({"in_channels": 0}, "in_channels"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        resnet18(**options)


# Weights from files


def file_state(kind="resnet18", width=SMALL):
    """A state dict with the classifier, as the official files have it; narrow, for speed."""
    if width == 1:
        empty = {name: torch.zeros(shape) for name, shape in reference.state_shapes(kind).items()}
    else:
        empty = MAKE[kind](8, width).state_dict()
        empty |= {"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
    return reference.unit_state(empty, torch.Generator().manual_seed(1))


def check_unchanged(backbone, before):
    now = backbone.state_dict()
    assert list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in now)


def copied(backbone):
    return {name: value.clone() for name, value in backbone.state_dict().items()}


@pytest.mark.parametrize("old_format", [False, True])
def test_a_file_with_the_classifier_loads(tmp_path, old_format):
    state = file_state(width=1)
    torch.save(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=not old_format)
    network = resnet18(8).eval()
    load_backbone_weights(network, tmp_path / "weights.pth")
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype)), name
    expected = reference.forward(state, photograph(33, 41), "resnet18", 8)[-1]
    found = network.double()(photograph(33, 41).double())[-1]
    assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_old_files_do_not_count_batches(tmp_path):
    state = {name: value for name, value in file_state().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "weights.pth")
    network = resnet18(8, SMALL)
    load_backbone_weights(network, str(tmp_path / "weights.pth"))
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer3.1.bn2.running_var"), "without layer3.1.bn2.running_var"),
        (lambda state: state.update({"head.weight": torch.zeros(2)}), "got head.weight in"),
        (lambda state: state.update({"conv1.weight": torch.zeros(8, 4, 7, 7)}), r"got shape \[8, 4, 7, 7\] for conv1"),
        (lambda state: state.update({"layer4.1.bn2.bias": torch.zeros(7)}), r"got shape \[7\] for layer4.1.bn2.bias"),
        (lambda state: state.clear(), "without conv1.weight"),
        (lambda state: state.update({"epoch": 3}), "expected a state dict: names and tensors"),
    ],
)
def test_a_foreign_state_dict_is_refused_and_changes_nothing(tmp_path, change, message):
    state = file_state()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    network = resnet18(8, SMALL)
    before = copied(network)
    with pytest.raises(ValueError, match=message):
        load_backbone_weights(network, tmp_path / "weights.pth")
    check_unchanged(network, before)


def test_weights_of_another_depth_are_refused(tmp_path):
    torch.save(file_state("resnet34"), tmp_path / "weights.pth")
    network = resnet18(8, SMALL)
    before = copied(network)
    with pytest.raises(ValueError, match=r"got layer1\.2\.bn1\.bias in .*expected the weights of this backbone"):
        load_backbone_weights(network, tmp_path / "weights.pth")
    check_unchanged(network, before)


@pytest.mark.parametrize("what", ["truncated", "text", "empty", "list", "tensor"])
def test_files_that_are_no_state_dict_are_refused(tmp_path, what):
    path = tmp_path / "weights.pth"
    if what == "truncated":
        torch.save(file_state(), path)
        path.write_bytes(path.read_bytes()[:-5_000])
    elif what in ("text", "empty"):
        path.write_text("not weights" if what == "text" else "")
    else:
        torch.save([torch.zeros(3)] if what == "list" else torch.zeros(3), path)
    network = resnet18(8, SMALL)
    before = copied(network)
    with pytest.raises(ValueError, match=r"weights\.pth.* expected a state dict"):
        load_backbone_weights(network, path)
    check_unchanged(network, before)


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_no_code_in_a_file_is_run(tmp_path, save):
    path, mark = tmp_path / "weights.pth", tmp_path / "mark"
    content = {"conv1.weight": Payload(str(mark))}
    if save == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    network = resnet18(8, SMALL)
    before = copied(network)
    with pytest.raises(ValueError, match="expected a state dict that torch has saved"):
        load_backbone_weights(network, path)
    assert not mark.exists()
    check_unchanged(network, before)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_backbone_weights(resnet18(8, SMALL), tmp_path / "nowhere.pth")


def test_any_module_loads(tmp_path):
    torch.save(Conv2d(3, 5, 1).state_dict(), tmp_path / "weights.pth")
    other = Conv2d(3, 5, 1)
    load_backbone_weights(other, tmp_path / "weights.pth")
    assert torch.equal(other.weight, torch.load(tmp_path / "weights.pth", weights_only=True)["weight"])


# Backbones by name or module


def test_backbones_by_name_or_module():
    number: Any = 18
    assert isinstance(make_backbone("resnet34", 16, SMALL, 3), ResNet)
    single = Conv2d(3, 6, 3)  # has out_channels, and returns one map
    assert make_backbone(single, 8, 1.0, 3) is single
    assert backbone_channels(single) == [6]
    assert [tuple(x.shape) for x in backbone_maps(single, torch.rand(1, 3, 5, 5))] == [(1, 6, 3, 3)]
    assert backbone_channels(resnet18(8, SMALL)) == [8, 16, 32, 64]
    with pytest.raises(ValueError, match="got backbone='resnet12'"):
        make_backbone("resnet12", 8, 1.0, 3)
    with pytest.raises(TypeError, match="got int for backbone, expected a name or a Module"):
        make_backbone(number, 8, 1.0, 3)
    with pytest.raises(ValueError, match="got ReLU without out_channels"):
        make_backbone(torch.nn.ReLU(), 8, 1.0, 3)
