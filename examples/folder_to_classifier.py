"""From a folder of images and masks to a trained node classifier, and back to pictures.

    python -m examples.folder_to_classifier [--out DIR] [--quick]
    python -m examples.folder_to_classifier --images DIR --labels DIR --num-classes K --ignore-index N [--out DIR]

Without a folder it writes one: scikit-image's photographs in grey, whose classes are the hues that are not seen.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from skimage.io import imsave
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.loader import DataLoader
from torch_geometric.nn import BatchNorm, GraphSAGE, Sequential

from examples._images import photographs, pixel_scores
from graphseg.datasets import ImageFolder, ImageGraphDataset, read_image, write_geotiff
from graphseg.plot import PALETTE, plot_borders
from graphseg.transforms import ToSuperpixelRAG

NO_CLASS = 255  # in the predictions: pixels of no node


def write_folder(root: Path) -> dict[str, Any]:
    """images/ and masks/ of photographs, one of them without its mask."""
    first, second, names = photographs()
    for i, tile in enumerate([*first, *second]):
        for folder, picture in (("images", tile.image[0].byte()), ("masks", tile.mask.byte())):
            (root / folder).mkdir(parents=True, exist_ok=True)
            imsave(root / folder / f"{i:03d}.png", picture.numpy(), check_contrast=False)
    (root / "masks" / "007.png").unlink()
    return {"images": root / "images", "labels": root / "masks", "num_classes": len(names)}


def build(given: argparse.Namespace, out: Path, num_segments: int) -> ImageGraphDataset:
    """The graphs of a folder; the same as by the command that is printed."""
    K, ignored = given.num_classes, given.ignore_index
    words = ["graphseg", "build", given.images, out, "--labels", given.labels, "--num-classes", K]
    words += [*([] if ignored is None else ["--ignore-index", ignored]), "--num-segments", num_segments, "--workers", 2]
    print(shlex.join(map(str, words)))
    reader = ImageFolder(given.images, given.labels, num_classes=K, ignore_index=ignored)
    transform = ToSuperpixelRAG(num_segments, num_classes=K, ignore_index=ignored)
    for bad in ImageGraphDataset.build(reader, out, transform, workers=2).errors:
        print(f"left out: {bad.file}: {bad.reason}")
    return ImageGraphDataset(out, in_memory=True)


def train(model: nn.Module, dataset: ImageGraphDataset, epochs: int) -> None:
    """Classes count by the root of their weights: rare ones more than their pixels, but not like the large ones."""
    weight = dataset.class_weights().sqrt()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for epoch in range(epochs):
        for batch in DataLoader(dataset, batch_size=8, shuffle=True):
            optimizer.zero_grad()
            loss = cross_entropy(model(batch.x, batch.edge_index), batch.y, weight)
            loss.backward()
            optimizer.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  loss {loss.item():.3f}")


def predict(model: nn.Module, dataset: ImageGraphDataset) -> tuple[list[Tensor], float]:
    """A map of classes for every image, and the mean IoU over the labelled pixels of all."""
    K, ignored = dataset.num_classes, dataset.about["ignore_index"]
    confusion = torch.zeros(K * K, dtype=torch.int64)
    maps = []
    model.eval()
    for batch in DataLoader(dataset, batch_size=8):
        with torch.no_grad():
            maps += batch.project(model(batch.x, batch.edge_index).argmax(1), fill=NO_CLASS)
        found = torch.cat([m.flatten() for m in maps[-batch.num_graphs :]])
        known = batch.valid if ignored is None else batch.valid & (batch.pixel_y != ignored)
        confusion += torch.bincount((found * K + batch.pixel_y)[known], minlength=K * K)
    return maps, pixel_scores(confusion.view(K, K))["mean_iou"]


def write(path: Path, classes: Tensor, geo: str) -> None:
    """A GeoTIFF in the image's place where it has one, else a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if geo:
        write_geotiff(f"{path}.tif", classes.byte(), geo, nodata=NO_CLASS)
    else:
        imsave(f"{path}.png", classes.byte().numpy(), check_contrast=False)


def draw(path: Path, dataset: ImageGraphDataset, maps: Sequence[Tensor], rows: int = 4) -> None:
    """Image, truth and prediction, side by side; white where nothing is known."""
    chosen = torch.linspace(0, len(dataset) - 1, min(rows, len(dataset))).round().int().tolist()
    height = 3 * maps[chosen[0]].size(0) / maps[chosen[0]].size(1) + 0.2
    figure, axes = plt.subplots(len(chosen), 3, figsize=(9, height * len(chosen)), squeeze=False, layout="constrained")
    known = ListedColormap([PALETTE[k % len(PALETTE)] for k in range(dataset.num_classes)])
    colors = known.with_extremes(under="white", over="white")
    for i, row in zip(chosen, axes, strict=True):
        plot_borders(dataset[i], read_image(dataset.files(i)["image"]).image, row[0], linewidth=0.4)
        for axis, classes in zip(row[1:], (dataset[i].pixel_y.view_as(maps[i]), maps[i]), strict=True):
            axis.imshow(classes.numpy(), cmap=colors, vmin=-0.5, vmax=dataset.num_classes - 0.5, interpolation="none")
        for axis, title in zip(row, (dataset[i].source, "truth", "prediction"), strict=True):
            axis.set_title(title, fontsize="small")
            axis.set_axis_off()
    patches = [Patch(color=colors(k), label=f"class {k}") for k in range(dataset.num_classes)]
    figure.legend(handles=patches, loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images (default: photographs, written to OUT)")
    parser.add_argument("--labels", type=Path, help="folder of masks, paired by name")
    parser.add_argument("--num-classes", type=int, help="up to 255")
    parser.add_argument("--ignore-index", type=int, help="mask value of no class")
    parser.add_argument("--num-segments", type=int, default=200, help="superpixels (default 200)")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="graphs, predictions and picture")
    parser.add_argument("--quick", action="store_true", help="fewer superpixels and epochs")
    options = parser.parse_args(argv)
    if options.images is None:
        vars(options).update(write_folder(options.out / "photographs"))
    torch.manual_seed(0)
    dataset = build(options, options.out / "graphs", 80 if options.quick else options.num_segments)
    known, held_out = dataset.random_split(0.75, 0.25, seed=0)
    F, K = dataset.num_features, dataset.num_classes
    gnn = GraphSAGE(F, 64, num_layers=3, out_channels=K)
    model = Sequential("x, edge_index", [(BatchNorm(F), "x -> x"), (gnn, "x, edge_index -> x")])
    train(model, known, 15 if options.quick else options.epochs)

    maps, score = predict(model, held_out)
    scores = {"mean_iou": score, "oracle": held_out.stats().oracle["mean_iou"]}
    print(f"{len(maps)} held-out images, in pixels: mean IoU {score:.3f}, of the oracle {scores['oracle']:.3f}")
    for graph, classes in zip(held_out, maps, strict=True):
        write(options.out / "predictions" / graph.source, classes, graph.get("geo", ""))
    draw(options.out / "folder_to_classifier.png", held_out, maps)
    (options.out / "folder_to_classifier.json").write_text(json.dumps(scores))
    print(f"written {options.out}: predictions, folder_to_classifier.png")


if __name__ == "__main__":
    main()
