"""PyG layers trained on batches of region adjacency graphs of a real image, judged in pixels on held-out parts.

The image is scikit-image's photograph of coins, cut into tiles; the classes are coin and background (a watershed of the
clean photograph), the input is the photograph with noise over it. Plain `torch_geometric.nn` layers do the rest.

    python -m examples.train_on_rags [--out FOLDER] [--quick]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from skimage.data import coins
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import SAGEConv

from examples.overview import coin_instances
from graphseg import ImageGraph
from graphseg.plot import plot_labels
from graphseg.transforms import ToSuperpixelRAG


class Net(nn.Module):
    """Two rounds of message passing, then a class for each node."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.first = SAGEConv(in_channels, 32)
        self.second = SAGEConv(32, 32)
        self.out = nn.Linear(32, num_classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        x = self.second(x, edge_index).relu()
        return self.out(x)


def tiles(noise: float) -> list[Data]:
    """Six parts of the photograph, each with noise and the clean photograph's mask."""
    photograph = torch.from_numpy(coins())
    clean = photograph[None] / 255  # [1, 303, 384]
    mask = (coin_instances(photograph) > 0).long()
    image = clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    parts = []
    for row, rows in enumerate(torch.arange(303).split(152)):
        for column, columns in enumerate(torch.arange(384).split(128)):
            window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
            parts.append(Data(image=image[:, *window], mask=mask[window], source=f"coins_{row}{column}"))
    return parts


def mean_iou(graphs: Sequence[ImageGraph], model: nn.Module) -> float:
    """Mean IoU of both classes over the pixels of all graphs."""
    model.eval()
    batch = Batch.from_data_list(list(graphs))
    with torch.no_grad():
        label = model(batch.x, batch.edge_index).argmax(1)
    predicted = torch.cat([m.flatten() for m in batch.project(label)])
    confusion = torch.bincount(batch.pixel_y * 2 + predicted, minlength=4).view(2, 2)
    overlap = confusion.diagonal()
    return float((overlap / (confusion.sum(0) + confusion.sum(1) - overlap)).mean())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder for picture and scores")
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    transform = ToSuperpixelRAG(150, node_features=("mean", "std", "area"), num_classes=2, keep_pixels=True)
    graphs = [transform(part) for part in tiles(noise=0.1)]
    train, test = graphs[:4], graphs[4:]
    model = Net(graphs[0].num_node_features, num_classes=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    untrained = mean_iou(test, model)

    for epoch in range(30 if options.quick else 150):
        model.train()
        for batch in DataLoader(train, batch_size=2, shuffle=True):
            optimizer.zero_grad()
            loss = cross_entropy(model(batch.x, batch.edge_index), batch.y)
            loss.backward()
            optimizer.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  loss {loss.item():.3f}")

    scores = {
        "untrained": untrained,
        "trained": mean_iou(test, model),
        "oracle": Batch.from_data_list(test).oracle()["mean_iou"],
    }
    print("mean IoU on held-out tiles, in pixels: " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
    (options.out / "train_on_rags.json").write_text(json.dumps(scores))
    with torch.no_grad():
        label = model(test[0].x, test[0].edge_index).argmax(1)
    figure, axis = plt.subplots()
    plot_labels(test[0], label, ax=axis, class_names=("background", "coin"))
    figure.savefig(options.out / "train_on_rags.png", dpi=150)
    print(f"written {options.out / 'train_on_rags.png'}")


if __name__ == "__main__":
    main()
