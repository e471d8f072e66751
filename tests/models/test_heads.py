"""Heads and the network they are part of: the papers' formulas in plain calls, sizes, counts, and laws."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from graphseg.models import (
    ASPP,
    AuxiliaryHead,
    DeepLabV3Head,
    DeepLabV3PlusHead,
    PSPHead,
    Segmentation,
    SegmentationNetwork,
)
from graphseg.models.segmentation import superpixel_scales
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
from tests.reference.losses import cross_entropies

HEADS = {"deeplabv3": DeepLabV3Head, "deeplabv3plus": DeepLabV3PlusHead, "pspnet": PSPHead}
CHANNELS = [6, 8, 10, 12]


def some_maps(sizes=((15, 19), (8, 10), (8, 10), (8, 10)), batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, *size, generator=generator, dtype=torch.float64)
        for c, size in zip(CHANNELS, sizes, strict=True)
    ]


def block(state, name, x, dilation=1, groups=1):
    """Convolution, norm and ReLU in plain calls."""
    weight = state[f"{name}.0.weight"]
    x = F.conv2d(x, weight, padding=dilation * (weight.shape[-1] // 2), dilation=dilation, groups=groups)
    mean, var, scale, shift = (
        state[f"{name}.1.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.relu((x - mean) / (var + 1e-5).sqrt() * scale + shift)


def separable(state, name, x, dilation=1):
    return block(state, f"{name}.1", block(state, f"{name}.0", x, dilation, x.shape[1]))


def aspp(state, x, rates, separably=False, name=""):
    found = [block(state, f"{name}branches.0", x)]
    for i, rate in enumerate(rates, 1):
        found.append((separable if separably else block)(state, f"{name}branches.{i}", x, rate))
    mean = block(state, f"{name}pooling.1", x.mean((2, 3), keepdim=True))
    return block(state, f"{name}fuse", torch.cat([*found, mean.expand(-1, -1, *x.shape[2:])], 1))


# Values


@pytest.mark.parametrize("separably", [False, True])
@pytest.mark.parametrize("fuse_size", [1, 3])
def test_aspp_by_plain_calls(separably, fuse_size):
    module = trained(ASPP(12, 5, (2, 4), separably, fuse_size))
    x = some_maps()[-1]
    assert_close(module(x), aspp(module.state_dict(), x, (2, 4), separably), **EXACT)


def test_deeplabv3_by_plain_calls():
    module = trained(DeepLabV3Head(CHANNELS, 5, (2, 4, 6)))
    maps = some_maps()
    assert_close(module(maps), aspp(module.state_dict(), maps[-1], (2, 4, 6), name="aspp."), **EXACT)


def test_deeplabv3plus_by_plain_calls():
    module = trained(DeepLabV3PlusHead(CHANNELS, 5, (2, 4, 6), low_channels=3))
    maps, state = some_maps(), module.state_dict()
    deep = enlarged(aspp(state, maps[-1], (2, 4, 6), True, "aspp."), (15, 19))
    joined = torch.cat([deep, block(state, "low", maps[0])], 1)
    expected = separable(state, "decoder.1", separable(state, "decoder.0", joined))
    assert_close(module(maps), expected, **EXACT)


def test_pspnet_by_plain_calls():
    module = trained(PSPHead(CHANNELS, 5, (1, 2, 3, 6)))
    maps, state = some_maps(), module.state_dict()
    x = maps[-1]  # [B, 12, 8, 10]
    found = [x]
    for number, cells in enumerate((1, 2, 3, 6)):
        means = block(state, f"grids.{number}.1", area_means(x, (cells, cells)))
        found.append(enlarged(means, x.shape[2:]))
    assert_close(module(maps), block(state, "fuse", torch.cat(found, 1)), **EXACT)


def test_auxiliary_head_by_plain_calls():
    module = trained(AuxiliaryHead(10, 4, 6))
    x, state = some_maps()[2], module.state_dict()
    expected = F.conv2d(block(state, "0", x), state["2.weight"], state["2.bias"])
    assert_close(module(x), expected, **EXACT)


# Sizes and counts


def conv_norm(inputs, outputs, size=1, groups=1):
    return inputs // groups * outputs * size * size + 2 * outputs


def separable_count(inputs, outputs):
    return conv_norm(inputs, inputs, 3, inputs) + conv_norm(inputs, outputs)


def test_parameters_by_hand():
    maps, D = [256, 512, 1024, 2048], 512
    last = maps[-1]
    wanted = {
        "deeplabv3": 2 * conv_norm(last, D) + 3 * conv_norm(last, D, 3) + conv_norm(5 * D, D, 3),
        "deeplabv3plus": 2 * conv_norm(last, D)
        + 3 * separable_count(last, D)
        + conv_norm(5 * D, D, 3)
        + conv_norm(256, 48)
        + separable_count(D + 48, D)
        + separable_count(D, D),
        "pspnet": 4 * conv_norm(last, D) + conv_norm(last + 4 * D, D, 3),
    }
    with torch.device("meta"):
        for name, head in HEADS.items():
            made = head(maps)
            assert made.out_channels == D
            assert sum(p.numel() for p in made.parameters()) == wanted[name], name
        auxiliary = AuxiliaryHead(1024, 21)
    assert sum(p.numel() for p in auxiliary.parameters()) == conv_norm(1024, 256, 3) + 256 * 21 + 21


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("sizes", [((15, 19), (8, 10)), ((16, 8), (4, 2)), ((1, 7), (1, 4)), ((3, 3), (1, 1))])
def test_sizes(name, sizes):
    first, last = sizes
    head = trained(HEADS[name](CHANNELS, 5))
    out = head(some_maps((first, last, last, last)))
    assert out.shape == (2, 5, *(first if name == "deeplabv3plus" else last))
    assert head.out_channels == 5
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("name", HEADS)
def test_batch_is_singles(name):
    head = trained(HEADS[name](CHANNELS, 5))
    maps = some_maps(batch=3)
    whole = head(maps)
    singles = [head([x[b : b + 1] for x in maps]) for b in range(3)]
    assert_close(whole, torch.cat(singles), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["deeplabv3", "pspnet"])
def test_heads_of_one_map_read_the_last(name):
    head = trained(HEADS[name](CHANNELS, 5))
    maps = some_maps()
    assert torch.equal(head(maps), head(maps[-1:]))
    assert torch.equal(head(maps), trained(HEADS[name](CHANNELS[-1:], 5))(maps[-1:]))


# The network


def small_network(**options):
    return SegmentationNetwork(4, **{**SMALL, **options})


class Pyramid(nn.Module):
    """Two maps, of strides 2 and 4."""

    def __init__(self, channels=(6, 10)):
        super().__init__()
        self.out_channels = list(channels)
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 10, 3, stride=2, padding=1)

    def forward(self, image):
        first = self.first(image).relu()
        return [first, self.second(first).relu()]


@pytest.mark.parametrize("head", HEADS)
def test_a_network_is_backbone_head_and_classifier(head):
    network = trained(small_network(head=head))
    image = photographs().double()
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    features = network.head(network.backbone((image - mean) / std))
    classifier = network.classifier
    scores = F.conv2d(features, classifier.weight, classifier.bias)
    out = network(image)
    assert isinstance(out, Segmentation) and out._fields[0] == "logits"
    assert_close(out.logits, enlarged(scores, image.shape[2:]), **EXACT)
    assert out.auxiliary is None and out.coarse is None
    assert out.logits.detach().std() > 1e-3


def test_features_at_an_eighth_and_a_quarter_of_the_image():
    image = photographs()
    for head, size in (("deeplabv3", (6, 8)), ("pspnet", (6, 8)), ("deeplabv3plus", (12, 16))):
        network = small_network(head=head).eval()
        assert network.head(network.maps(image)).shape[2:] == size
        assert network(image).logits.shape == (2, 4, 45, 61)


@pytest.mark.parametrize("head", HEADS)
def test_images_of_a_batch_do_not_meet(head):
    check_batch_is_singles(trained(small_network(head=head)))


@pytest.mark.parametrize("head", HEADS)
def test_two_processes_have_the_gradients_of_one(head):
    images = photographs(24, 32, count=3)
    network = frozen_norms(trained(small_network(head=head)))
    check_two_processes(network, {"image": images.double(), "mask": segments(images)})


@pytest.mark.parametrize("head", ["deeplabv3", "pspnet"])
def test_any_module_as_backbone(head):
    single = nn.Conv2d(3, 7, 3, stride=8, padding=1)  # one map, as a tensor
    network = SegmentationNetwork(4, backbone=single, head=head, auxiliary=False, width=0.125).train()
    assert network.backbone is single
    assert network.options["backbone"] == "Conv2d"
    found = network.losses({"image": photographs(), "mask": torch.randint(0, 4, (2, 45, 61))})
    found["loss"].backward()
    assert single.weight.grad is not None and bool(single.weight.grad.any())
    assert "auxiliary" not in found


@pytest.mark.parametrize("head", HEADS)
def test_a_backbone_of_two_maps_has_an_auxiliary_classifier(head):
    network = SegmentationNetwork(4, backbone=Pyramid(), head=head, width=0.125, dropout=0.0).train()
    out = network(photographs())
    assert out.auxiliary is not None and out.auxiliary.shape == out.logits.shape == (2, 4, 45, 61)
    assert network.eval()(photographs()).auxiliary is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": nn.Conv2d(3, 7, 3), "head": "deeplabv3plus", "auxiliary": False},
            "with 1 feature map, expected 2",
        ),
        ({"backbone": nn.Conv2d(3, 7, 3), "head": "pspnet"}, "with 1 feature map, expected 2 .*auxiliary=True"),
        ({"backbone": nn.ReLU()}, "got ReLU without out_channels"),
        ({"backbone": "vgg16"}, "got backbone='vgg16'"),
        ({"head": "unet"}, "got head='unet'"),
        ({"output_stride": 4}, "got output_stride=4"),
        ({"width": -1}, "got width=-1"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentationNetwork(**{"num_classes": 4, "width": 0.125, **options})


def test_bad_images_are_refused():
    network = small_network().eval()
    with pytest.raises(TypeError, match=r"got dtype torch.uint8 for image, expected floating-point values in \[0, 1\]"):
        network((photographs() * 255).byte())
    with pytest.raises(ValueError, match="image"):
        network(photographs()[:, :2])
    with pytest.raises(ValueError, match="image"):
        network(photographs()[0])


def test_options_make_the_network_again():
    given = {"head": "pspnet", "multi_grid": (1, 2), "output_stride": 16, "auxiliary_weight": 0.2, "channels": 256}
    network = small_network(**given)
    again = SegmentationNetwork(**json.loads(json.dumps(network.options)))
    again.load_state_dict(network.state_dict())
    assert again.options == network.options
    image = photographs()
    assert torch.equal(again.eval()(image).logits, network.eval()(image).logits)
    assert not any("image_" in name for name in network.state_dict())  # what images are like is no weight


def test_four_channels():
    network = small_network(in_channels=4).eval()
    image = torch.cat([photographs(), photographs()[:, :1]], 1)
    assert network(image).logits.shape == (2, 4, 45, 61)
    assert network.image_mean.flatten().tolist() == [0.5] * 4 and network.image_std.flatten().tolist() == [0.25] * 4


def test_the_loss_is_cross_entropy_and_a_share_of_the_auxiliary_one():
    network = small_network(auxiliary_weight=0.3).double().train()
    images = photographs(17, 21).double()
    mask = torch.randint(0, 4, (2, 17, 21))
    mask[:, 3:9] = 255
    out = network(images)
    found = network.losses({"image": images, "mask": mask})
    means = []
    for logits in (out.logits, out.auxiliary):
        losses = cross_entropies(logits.permute(0, 2, 3, 1).reshape(-1, 4).tolist(), mask.flatten().tolist(), 255)
        means.append(sum(losses) / len(losses))
    assert float(found["cross_entropy"]) == pytest.approx(means[0])
    assert float(found["auxiliary"]) == pytest.approx(means[1])
    assert float(found["loss"].detach()) == pytest.approx(means[0] + 0.3 * means[1])
    assert found["loss"].requires_grad and not found["cross_entropy"].requires_grad


def test_the_auxiliary_classifier_reads_and_teaches_the_last_map_but_one():
    network = frozen_norms(trained(small_network()))
    image = photographs(17, 21).double()
    maps = network.maps(image)
    state = {name: value.detach() for name, value in network.auxiliary.state_dict().items()}
    scores = F.conv2d(block(state, "0", maps[2]), state["2.weight"], state["2.bias"])
    found = network(image).auxiliary
    assert_close(found, enlarged(scores, (17, 21)), **EXACT)
    found.square().sum().backward()
    backbone = network.backbone
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3):
        assert all(bool(p.grad.any()) for p in stage.parameters())
    assert all(p.grad is None for p in backbone.layer4.parameters())


def test_a_batch_without_labels_teaches_nothing():
    network = small_network().train()
    found = network.losses({"image": photographs(17, 21), "mask": torch.full((2, 17, 21), 255)})
    found["loss"].backward()
    assert float(found["loss"].detach()) == 0
    assert not any(p.grad.any() for p in network.parameters() if p.grad is not None)


def test_every_parameter_learns():
    network = small_network().train()
    groups = network.parameter_groups()
    assert list(groups) == ["all"] and len(groups["all"]) == len(list(network.parameters()))
    network.losses({"image": photographs(), "mask": torch.randint(0, 4, (2, 45, 61))})["loss"].backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]


def test_scales_of_superpixels():
    maps = torch.arange(12).view(1, 3, 2, 2)
    found = superpixel_scales(torch.rand(1, 3, 2, 2), maps, (2, 3, 4))
    assert [scale.tolist() for scale in found] == maps.unbind(1)[0].new_tensor(maps[0].tolist()).unsqueeze(1).tolist()
    with pytest.raises(ValueError, match=r"got 3 scales of superpixels, expected 2: \(5, 6\)"):
        superpixel_scales(torch.rand(1, 3, 2, 2), maps, (5, 6))
    assert superpixel_scales(torch.rand(1, 3, 2, 2), None, ()) == []
