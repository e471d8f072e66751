"""SuperpixelMean, DiffGCNConv and ClassWiseGraphConv on batches of region graphs: what each adds to a node classifier.

The images are MSRC-21, in the folder msrc21 of `--data` (default: GRAPHSEG_DATA, or shared/data beside the project).
Without it they are tiles of scikit-image's photographs, with a task that needs no labels: which hue has a region that
is only seen in grey? All networks are trained alike, and judged in the pixels of held-out images (or tiles).

ClassWiseGraphConv samples by its coarse prediction here, in training too. Given `y=graph.y` it would sample by the
ground truth, as in the paper: beside a coarse prediction as weak as this that gives labels away, and scores fall.

    python -m examples.layers_on_rags [--data FOLDER] [--out FOLDER] [--seeds 2] [--bf16] [--quick]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import chain, islice, repeat
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from examples._images import DATA, NO_CLASS, pixel_scores, read_images
from graphseg import ImageGraph
from graphseg.losses import CDGCLoss
from graphseg.nn import ClassWiseGraphConv, DiffGCNConv, PointNetBlock, SuperpixelMean
from graphseg.ops import multiscale_slic, pool
from graphseg.plot import PALETTE, plot_labels
from graphseg.transforms import ToSuperpixelRAG

NETWORKS = ("MLP on nodes", "+ SuperpixelMean", "+ DiffGCNConv", "+ ClassWiseGraphConv")


class Net(nn.Module):
    """The three layers in a row, or the first `layers` of them; a coarse prediction of the nodes, and a refined one."""

    def __init__(self, in_channels: int, num_classes: int, layers: int = 3, channels: int = 64) -> None:
        super().__init__()
        C, block = channels, DiffGCNConv if layers > 1 else PointNetBlock  # PointNetBlock: the same without a graph
        self.first = nn.Sequential(nn.BatchNorm1d(in_channels), nn.Linear(in_channels, C), nn.ReLU())
        self.mean = SuperpixelMean(alpha=0.5) if layers > 0 else None
        self.blocks = nn.ModuleList(block(C, C) for _ in range(3))
        self.coarse = nn.Linear(3 * C, num_classes)
        self.reduce = nn.Sequential(nn.Linear(3 * C, C), nn.ReLU())
        self.refined = nn.Linear(C, num_classes)
        self.class_wise = ClassWiseGraphConv(C, num_classes, fusion="sum") if layers > 2 else None

    def forward(self, graph: Batch) -> tuple[Tensor, Tensor]:
        x, outputs = self.first(graph.x), []
        for block in self.blocks:
            if self.mean is not None:
                x = self.mean(x, graph.coarse_index)  # [N, C], a node hears of the larger superpixel around it
            x = block(x, graph.edge_index, graph.pos)  # [N, C], of how its neighbours differ, and in which direction
            outputs.append(x)
        x = dropout(torch.cat(outputs, 1), 0.2, self.training)  # [N, 3C]
        coarse, x = self.coarse(x), self.reduce(x)
        if self.class_wise is not None:
            x = self.class_wise(x, coarse, batch=graph.batch)  # [N, C], of all nodes of its class in the image
        return coarse, self.refined(x)


def to_graphs(images: list[Data], num_classes: int) -> list[ImageGraph]:
    """Graphs of about 100 superpixels; `coarse_index` says in which larger one, of 20, a node lies."""
    features = ("mean", "std", "histogram", "centroid", "area")
    transform = ToSuperpixelRAG(
        None, "segments", features, edge_features=(), num_classes=num_classes, ignore_index=NO_CLASS
    )
    coarse_maps, fine_maps = multiscale_slic([data.image for data in images], (20, 100), nested=True)
    graphs = []
    for data, coarse, fine in zip(images, coarse_maps, fine_maps, strict=True):
        graph = transform(Data(image=data.image, mask=data.mask, segments=fine))
        graph.coarse_index = graph.pool(coarse, "max")  # ids of the coarse map; called index, they differ in a batch
        graphs.append(graph)
    return graphs


def train(model: nn.Module, graphs: list[ImageGraph], steps: int, bf16: bool) -> list[float]:
    """Returns the loss of every step."""
    loader = DataLoader(graphs, batch_size=16, shuffle=True, exclude_keys=["assignment", "pixel_y", "label_counts"])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    loss_of, losses = CDGCLoss(min_kept=1000), []
    for batch in islice(chain.from_iterable(repeat(loader)), steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            coarse, refined = model(batch)
        loss = loss_of(coarse, refined, None, batch.y)
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
    learn, test = (to_graphs(part, len(names)) for part in parts)
    held_out = Batch.from_data_list(test)
    counts = held_out.label_counts.double()  # [N, K], pixels of each class in each node
    print(f"{len(learn)} images to train on, {len(test)} held out, with {held_out.num_nodes} nodes")
    labels = {"majority class": counts.sum(0).argmax().expand(len(counts)), "oracle": held_out.y}
    results = {
        name: [pixel_scores(pool(counts, label.clamp(min=0), len(names), "sum"))] for name, label in labels.items()
    }
    for layers, name in enumerate(NETWORKS):
        results[name] = []
        for seed in range(1 if options.quick else options.seeds):
            torch.manual_seed(seed)
            model = Net(held_out.num_node_features, len(names), layers)
            begin = time.perf_counter()
            losses = train(model, learn, 24 if options.quick else 200, options.bf16)
            spent = time.perf_counter() - begin
            with torch.no_grad():
                labels[name] = model.eval()(held_out)[1].argmax(1)  # [N]
            found = pixel_scores(pool(counts, labels[name], len(names), "sum"))
            results[name].append({**found, "first_loss": losses[0], "last_loss": losses[-1], "seconds": spent})
    for name, runs in results.items():
        print(f"{name:<22}" + "  ".join(f"{key} {sum(r[key] for r in runs) / len(runs):.3f}" for key in runs[0]))
    (options.out / "layers_on_rags.json").write_text(json.dumps(results, indent=1))

    colors = (*PALETTE, *plt.colormaps["Pastel1"](range(9)))
    figure, axes = plt.subplots(4, 3, figsize=(14, 9), layout="constrained")
    for row, index in zip(axes, torch.linspace(0, len(test) - 1, 4).long().tolist(), strict=True):
        for axis, name in zip(row, ("oracle", NETWORKS[0], NETWORKS[-1]), strict=True):
            label, image = labels[name][held_out.batch == index], parts[1][index].image
            plot_labels(test[index], label, image, axis, palette=colors, class_names=names, borders=False)
            axis.set_title(name)
    figure.savefig(options.out / "layers_on_rags.png", dpi=80)
    plt.close(figure)
    print(f"written {options.out / 'layers_on_rags.png'}")


if __name__ == "__main__":
    main()
