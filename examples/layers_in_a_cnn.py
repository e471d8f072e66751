"""MultiscaleSuperpixelMean and EmbeddedSuperpixelCRF dropped into a plain CNN, in front of its classifier.

The CNN is trained without them, with either and with both, from the same start and for as many steps, and judged on
held-out images, their class boundaries too. The images are those of `examples.layers_on_rags`, at 64 x 64 pixels.
Printed are means over trainings from several seeds.

    python -m examples.layers_in_a_cnn [--data FOLDER] [--out FOLDER] [--seeds 2] [--bf16] [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch_geometric.data import Data

from examples._images import DATA, NO_CLASS, map_scores, read_images
from graphseg.losses import cross_entropy
from graphseg.nn import EmbeddedSuperpixelCRF, MultiscaleSuperpixelMean
from graphseg.ops import affinity_offsets, multiscale_slic, offset_edges

SIZE = (64, 64)
NETWORKS = {"CNN": (), "+ MSP": ("msp",), "+ ES-CRF": ("crf",), "+ MSP + ES-CRF": ("msp", "crf")}


class PixelCRF(nn.Module):
    """EmbeddedSuperpixelCRF on feature maps: every pixel hears of its superpixel, and of eight pixels two away."""

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__()
        self.crf = EmbeddedSuperpixelCRF(channels, image_channels, token_channels=32)

    def forward(self, x: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        B, C, H, W = x.shape
        image = interpolate(image, (H, W), mode="area")
        labels = interpolate(labels[:, None].float(), (H, W), mode="nearest-exact").long()
        window = offset_edges(H, W, affinity_offsets([2]), directed=True)  # [2, E]
        edge_index = torch.cat([window + H * W * b for b in range(B)], 1)  # [2, B * E]
        pos = torch.cartesian_prod(torch.arange(H), torch.arange(W)).flip(1).float().repeat(B, 1)  # (x, y), [P, 2]
        batch = torch.arange(B).repeat_interleave(H * W)  # [P]
        pixels, colors = (part.permute(0, 2, 3, 1).flatten(0, 2) for part in (x, image))  # [P, C], [P, 3]
        return self.crf(pixels, colors, pos, edge_index, labels.flatten(), batch).view(B, H, W, C).permute(0, 3, 1, 2)


class Net(nn.Module):
    """Convolutions at a quarter of the size, what `layers` names at half of it, and a classifier."""

    def __init__(self, image_channels: int, num_classes: int, layers: Sequence[str] = ("msp", "crf")) -> None:
        super().__init__()
        C, self.body = 32, nn.Sequential()
        for number, (stride, dilation) in enumerate(((2, 1), (2, 1), (1, 1), (1, 2), (1, 4))):
            inputs = C if number else image_channels
            self.body.append(nn.Conv2d(inputs, C, 3, stride, padding=dilation, dilation=dilation, bias=False))
            self.body.extend([nn.BatchNorm2d(C), nn.ReLU()])
        self.classifier = nn.Conv2d(C, num_classes, 1)
        self.msp = MultiscaleSuperpixelMean() if "msp" in layers else None
        self.crf = PixelCRF(C, image_channels) if "crf" in layers else None

    def forward(self, image: Tensor, labels: Tensor) -> Tensor:
        """Scores `[B, K, H, W]` of images `[B, C, H, W]` and their superpixels at S scales `[B, S, H, W]`."""
        x = interpolate(self.body(image), scale_factor=2, mode="bilinear")  # [B, 32, H / 2, W / 2]
        if self.msp is not None:
            x = self.msp(x, labels.unbind(1))
        if self.crf is not None:
            x = self.crf(x, image, labels[:, -1])
        return interpolate(self.classifier(x), image.shape[-2:], mode="bilinear")


def stack(images: list[Data]) -> tuple[Tensor, Tensor, Tensor]:
    """Images `[B, C, H, W]`, in [0, 1], of one size, their masks `[B, H, W]` and superpixels at 3 scales."""
    x = torch.cat([interpolate(data.image[None] / 255, SIZE, mode="area") for data in images])
    masks = torch.cat([interpolate(data.mask[None, None].float(), SIZE, mode="nearest-exact")[0] for data in images])
    return x, masks.long(), torch.stack(multiscale_slic(x, (20, 50, 120)), 1)


def train(model: nn.Module, data: tuple[Tensor, Tensor, Tensor], steps: int, bf16: bool) -> list[float]:
    """Returns the loss of every step."""
    images, masks, labels = data
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    losses = []
    for _ in range(steps):
        ids = torch.randperm(len(images))[:16]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images[ids], labels[ids])
        loss = cross_entropy(logits, masks[ids], ignore_index=NO_CLASS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder for the picture and scores")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network")
    parser.add_argument("--bf16", action="store_true", help="train under torch.autocast")
    parser.add_argument("--quick", action="store_true", help="one training of few images and steps")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)

    *parts, names = read_images(options.data, options.quick)
    learn, (images, masks, labels) = (stack(part) for part in parts)
    print(f"{len(learn[0])} images to train on, {len(images)} held out")
    known = masks != NO_CLASS
    maps = {"ground truth": masks, "majority class": masks[known].mode().values.expand(masks.shape)}
    results = {"majority class": [map_scores(maps["majority class"], masks, len(names))]}
    for name, layers in NETWORKS.items():
        results[name] = []
        for seed in range(1 if options.quick else options.seeds):
            torch.manual_seed(seed)
            model = Net(images.shape[1], len(names), layers)
            begin = time.perf_counter()
            losses = train(model, learn, 16 if options.quick else 200, options.bf16)
            run = {"first_loss": losses[0], "last_loss": losses[-1], "seconds": time.perf_counter() - begin}
            with torch.no_grad():
                batches = zip(images.split(16), labels.split(16), strict=True)
                maps[name] = torch.cat([model.eval()(*batch).argmax(1) for batch in batches])
            results[name].append(map_scores(maps[name], masks, len(names)) | run)
    for name, runs in results.items():
        print(f"{name:<16}" + "  ".join(f"{key} {sum(run[key] for run in runs) / len(runs):.3f}" for key in runs[0]))
    (options.out / "layers_in_a_cnn.json").write_text(json.dumps(results, indent=1))

    figure, axes = plt.subplots(4, 4, figsize=(9, 9), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
    for row, index in zip(axes, torch.linspace(0, len(images) - 1, 4).long().tolist(), strict=True):
        row[0].imshow(images[index].movedim(0, -1).numpy(), cmap="gray")
        for axis, name in zip(row[1:], ("ground truth", "CNN", "+ MSP + ES-CRF"), strict=True):
            shown = maps[name][index].double().where(known[index], torch.nan).numpy()
            axis.imshow(shown, cmap="nipy_spectral", vmin=0, vmax=len(names) - 1, interpolation="nearest")
            axis.set_title(name)
    figure.savefig(options.out / "layers_in_a_cnn.png", dpi=80)
    plt.close(figure)
    print(f"written {options.out / 'layers_in_a_cnn.png'}")


if __name__ == "__main__":
    main()
