"""Training steps and inference of the papers' networks with and without their graph modules, as ratios in one run.

    python -m benchmarks.networks [--out FILE] [--repeats N] [--only NAME ...] [--quick]
                                  [--backbone NAME] [--width W] [--size PIXELS] [--batch N]

The first of a group is its base; ratios are to it. All of a group have the base's weights. A training step is losses,
gradients and the step of SGD; inference is the forward pass in evaluation mode. Superpixels are given, as from a cached
dataset, or made on the fly. Images are photographs of scikit-image, classes follow their brightness.

Time depends on what networks say in two places, and there they are told: CDGCNet's classes come from a classifier
that is fitted to its random features, and AffinityInstances merges affinities of superpixels as instances, with noise,
after its branches have done their work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from skimage import data
from torch import Tensor
from torch.nn import BatchNorm2d, Module
from torch.nn.functional import interpolate, one_hot

from benchmarks.common import Row, race, save
from graphseg.models import AffinityInstances, CDGCNet, ESCRFNet, MSPNet, SGSeg
from graphseg.nn import affinity_targets
from graphseg.ops import multiscale_slic

CLASSES = 19
STEP, INFERENCE = "training step", "inference"
BUDGET = 15.0  # seconds for a contender in a race


@dataclass(frozen=True)
class Setting:
    """How large networks and images are."""

    backbone: str = "resnet18"
    width: float = 0.25
    size: int = 256
    batch: int = 2
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def options(self) -> dict[str, Any]:
        return {"backbone": self.backbone, "width": self.width}

    def words(self, group: str) -> str:
        backbone = "" if group == "SGSeg" else f"{self.backbone}, "
        return f"{group}, {self.batch} x {self.size} x {self.size}, {backbone}width {self.width:g}"


@dataclass(frozen=True)
class Contender:
    """A network, what it learns from, and how it is used where that is not its forward pass."""

    name: str
    network: Any
    batch: dict[str, Tensor]
    infer: Callable[[Tensor], Any] | None = None
    ways: Sequence[str] = (STEP, INFERENCE)

    def step(self, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.network.losses(self.batch, generator=generator)["loss"].backward()
        optimizer.step()

    @torch.no_grad()
    def use(self) -> Any:
        if self.infer is not None:
            return self.infer(self.batch["image"])
        return self.network(self.batch["image"], self.batch.get("superpixels")).logits

    def call(self, way: str) -> Callable[[], Any]:
        if way == INFERENCE:
            return self.use
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        generator = torch.Generator(parameters[0].device).manual_seed(0)
        return partial(self.step, torch.optim.SGD(parameters, lr=0.0, momentum=0.9), generator)


@dataclass(frozen=True)
class Measured(Row):
    """A row with its group and use, the ratio to the base, millions of parameters and MiB at the peak (GPU only)."""

    group: str = ""
    way: str = ""
    ratio: float | None = None
    parameters: float = 0.0
    peak: float | None = None


# What networks are given


def photographs(setting: Setting) -> Tensor:
    """`[B, 3, H, W]` in [0, 1]."""
    pictures = [data.astronaut(), data.coffee(), data.chelsea()[:, 40:340], data.rocket()[:400, 120:520]]
    images = []
    for number in range(setting.batch):
        picture = torch.from_numpy(pictures[number % len(pictures)].copy()).permute(2, 0, 1).unsqueeze(0).float() / 255
        images.append(interpolate(picture, (setting.size, setting.size), mode="area"))
    return torch.cat(images).to(setting.device)


def labelled(setting: Setting) -> dict[str, Tensor]:
    """Images and masks, whose classes are even ranges of brightness."""
    image = photographs(setting)
    ranks = image.mean(1).flatten(1).argsort(1).argsort(1)
    return {"image": image, "mask": (ranks * CLASSES // ranks.size(1)).view(-1, *image.shape[2:])}


def with_weights(network: Any, base: Any, setting: Setting) -> Any:
    """The network on its device, with what weights it has in common with the base."""
    if base is not None:
        own = network.state_dict()
        same = {k: v for k, v in base.state_dict().items() if k in own and own[k].shape == v.shape}
        network.load_state_dict(same, strict=False)
    return network.to(setting.device)


@torch.no_grad()
def fit_classifier(network: CDGCNet, batch: dict[str, Tensor]) -> None:
    """Statistics of the images for the norms, and the coarse classifier of least squares on the features."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    x = network.train().head(network.maps(batch["image"])[-1])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    rows = x.permute(0, 2, 3, 1).reshape(-1, x.size(1)).double()
    mask = interpolate(batch["mask"].unsqueeze(1).float(), x.shape[2:], mode="nearest-exact").long().flatten()
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    gram = rows.t() @ rows + 1e-3 * len(rows) * torch.eye(rows.size(1), dtype=rows.dtype, device=rows.device)
    found = torch.linalg.solve(gram, rows.t() @ one_hot(mask, CLASSES).double()).t().float()  # [K, C + 1]
    network.classifier.weight.copy_(found[:, :-1, None, None])
    network.classifier.bias.copy_(found[:, -1])  # type: ignore[union-attr]


class ToldInstances(AffinityInstances):
    """Runs both branches, and answers with what it was told."""

    told: tuple[Tensor, Tensor]

    def semantic_logits(self, image: Tensor) -> Tensor:
        super().semantic_logits(image)
        return self.told[0]

    def affinity_logits(self, image: Tensor) -> Tensor:
        super().affinity_logits(image)
        return self.told[1]


# Groups


def msp(setting: Setting, head: str) -> list[Contender]:
    batch = labelled(setting)
    base = MSPNet(CLASSES, (), head=head, **setting.options).to(setting.device)
    found = [Contender("base", base, batch)]
    for name, counts in (("SSP", (200,)), ("MSP", (200, 300, 400))):
        network = with_weights(MSPNet(CLASSES, counts, head=head, **setting.options), base, setting)
        maps = torch.stack(multiscale_slic(batch["image"], list(counts)), 1)
        found.append(Contender(f"{name}, superpixels given", network, {**batch, "superpixels": maps}))
        found.append(Contender(f"{name}, made on the fly", network, batch))
    return found


def es_crf(setting: Setting) -> list[Contender]:
    batch = labelled(setting)
    base = ESCRFNet(CLASSES, "base", **setting.options).to(setting.device)
    made: list[tuple[str, str, dict[str, Any]]] = [
        ("ES-CRF", "es_crf", {}),
        ("ES-CRF, all pixels send", "es_crf", {"graph": "all"}),
        ("ES-CRF, pairwise only", "es_crf", {"superpixel": False}),
        ("ES-CRF, superpixel only", "es_crf", {"pairwise": False}),
        ("Non-local", "non_local", {}),
        ("Vanilla-CRF", "vanilla_crf", {}),
        ("Joint-CRF", "joint_crf", {}),
    ]
    given = {**batch, "superpixels": torch.stack(multiscale_slic(batch["image"], [200]), 1)}
    found = [Contender("base", base, batch)]
    for name, variant, options in made:
        network = with_weights(ESCRFNet(CLASSES, variant, **options, **setting.options), base, setting)
        found.append(Contender(name, network, given if network.num_superpixels else batch))
        if name == "ES-CRF":
            found.append(Contender(f"{name}, made on the fly", network, batch))
    return found


def cdgcnet(setting: Setting) -> list[Contender]:
    batch, base, found = labelled(setting), None, []
    for name, graph in (
        ("base", "none"),
        ("plain graph", "plain"),
        ("similarity", "similarity"),
        ("dynamic", "dynamic"),
    ):
        network = with_weights(CDGCNet(CLASSES, graph, **setting.options), base, setting)
        if base is None:
            base = network
            fit_classifier(network, batch)
        found.append(Contender(name, network, batch))
    return found


def sgseg(setting: Setting) -> list[Contender]:
    batch, base, found = {"image": photographs(setting)}, None, []
    made: list[tuple[str, dict[str, Any]]] = [("CNN alone", {"spnn": False}), ("SPNN and CNN", {"gnn": None})]
    made += [(f"SGSeg, {gnn}", {"gnn": gnn}) for gnn in ("pointnet", "dgcnn", "diff_gcn")]
    for name, options in made:
        network = with_weights(SGSeg(3, 15, 200, width=setting.width, **options), base, setting)
        base = base or network
        found.append(Contender(name, network, batch))
    return found


def instances(setting: Setting) -> list[Contender]:
    image = photographs(setting)
    segments = multiscale_slic(image, [60])[0] + 1
    segments = segments.masked_fill(segments % 3 == 0, 0)  # a third is background
    batch = {"image": image, "instances": segments, "mask": (segments % 3).long()}
    network = ToldInstances(3, backbone=setting.backbone, width=setting.width).to(setting.device)
    target = affinity_targets(segments, network.offsets).float()
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0)).to(target)
    semantic = 8.0 * one_hot(batch["mask"], 3).permute(0, 3, 1, 2)
    network.told = semantic, torch.where(target == 1, 4.0, -4.0) + noise
    found = [Contender("branches alone", network, batch, network)]
    for name, window in (("and merge", 1), ("and merge, windows of 2", 2)):
        merge = partial(network.segment, roi_size=None, cell_size=None, window=window)
        found.append(Contender(name, network, batch, merge, (INFERENCE,)))
    return found


GROUPS: dict[str, Callable[[Setting], list[Contender]]] = {
    "MSP in DeepLabV3+": partial(msp, head="deeplabv3plus"),
    "MSP in DeepLabV3": partial(msp, head="deeplabv3"),
    "MSP in PSPNet": partial(msp, head="pspnet"),
    "ES-CRF": es_crf,
    "CDGCNet": cdgcnet,
    "SGSeg": sgseg,
    "AffinityInstances": instances,
}


# Measuring


def check(contenders: Sequence[Contender]) -> None:
    """AssertionError unless superpixels that are given and those made on the fly give the same scores."""
    by_network: dict[int, list[Contender]] = {}
    for one in contenders:
        if one.infer is None:
            by_network.setdefault(id(one.network), []).append(one)
    for same in by_network.values():
        results = [one.use() for one in same]
        for other in results[1:]:
            torch.testing.assert_close(other, results[0])


def peak(call: Callable[[], Any], device: torch.device) -> float | None:
    """MiB on a GPU that a call takes beyond what there is before it."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def set_modes(contenders: Sequence[Contender], training: bool) -> None:
    for one in contenders:
        one.network.train(training)


def measure(name: str, setting: Setting, repeats: int) -> list[Measured]:
    """All contenders of a group: training steps, then inference."""
    torch.manual_seed(0)
    contenders = GROUPS[name](setting)
    set_modes(contenders, False)
    check(contenders)
    rows = []
    for way in (STEP, INFERENCE):
        set_modes(contenders, way == STEP)
        calls = {one.name: one.call(way) for one in contenders if way in one.ways}
        found = race(f"{setting.words(name)}: {way}", calls, repeats, budget=BUDGET)
        for row, one in zip(found, (one for one in contenders if way in one.ways), strict=True):
            rows.append(
                Measured(
                    **asdict(row),
                    group=name,
                    way=way,
                    ratio=row.median / found[0].median if row.median and found[0].median else None,
                    parameters=count(one.network),
                    peak=peak(calls[one.name], setting.device),
                )
            )
    return rows


def count(network: Module) -> float:
    """Millions of parameters."""
    return sum(p.numel() for p in network.parameters()) / 1e6


def show(rows: Sequence[Measured]) -> None:
    """A line for each contender, a column for each use."""
    print(f"\n{rows[0].work.rsplit(': ', 1)[0]}")
    print(f"  {'':<30}{'parameters':>12}{STEP:>26}{INFERENCE:>26}")
    for name in dict.fromkeys(row.name for row in rows):
        found = {row.way: row for row in rows if row.name == name}
        line = f"  {name:<30}{next(iter(found.values())).parameters:>10.3f} M"
        for way in (STEP, INFERENCE):
            row = found.get(way)
            line += f"{row.median:15.1f} ms{row.ratio:6.2f} x" if row and row.median and row.ratio else f"{'-':>26}"
            line += f" {row.peak:.0f} MiB" if row and row.peak is not None else ""
        print(line, flush=True)


def options_from(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Setting]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results as JSON to this file")
    parser.add_argument("--repeats", type=int, default=7, help="calls of each contender (default 7)")
    parser.add_argument("--only", nargs="+", choices=tuple(GROUPS), help="only these groups")
    parser.add_argument("--quick", action="store_true", help="small images, three repeats: does it all run?")
    parser.add_argument("--backbone", help="resnet18, 34, 50 or 101 (default 18; on a GPU 101)")
    parser.add_argument("--width", type=float, help="of the networks (default 0.25; on a GPU 1)")
    parser.add_argument("--size", type=int, help="pixels along each side (default 256; on a GPU 512)")
    parser.add_argument("--batch", type=int, help="images (default 2; on a GPU 8)")
    options = parser.parse_args(argv)
    setting = Setting()
    if torch.cuda.is_available():
        setting = Setting("resnet101", 1.0, 512, 8, torch.device("cuda"))
    if options.quick:
        options.repeats = 3
        setting = replace(setting, backbone="resnet18", width=0.125, size=64, batch=2)
    given = {name: getattr(options, name) for name in ("backbone", "width", "size", "batch")}
    return options, replace(setting, **{name: value for name, value in given.items() if value is not None})


def main(argv: Sequence[str] | None = None) -> None:
    options, setting = options_from(argv)
    rows: list[Measured] = []
    for name in options.only or GROUPS:
        found = measure(name, setting, options.repeats)
        show(found)
        rows += found
        if options.out is not None:
            save(options.out, rows)  # group by group: a long run that is cut short is not lost
    if options.out is not None:
        print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
