"""A paper's network trained on a folder of images and masks, judged on held-out images, and used.

    python -m examples.train_a_network [--out DIR] [--steps N] [--seed N] [--quick]
    python -m examples.train_a_network --images DIR --labels DIR --num-classes K --ignore-index N [--out DIR]

The network is a small DeepLabV3+ with superpixel means before its classifier (MSP). Without a folder the example writes
one: scikit-image's photographs in grey, whose classes are the hues that are not seen. The same command again goes on
where the training was stopped. Pictures of the validation are in DIR/training/pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from examples.folder_to_classifier import write_folder
from graphseg.datasets import ImageFolder, ImageReader
from graphseg.training import Recipe, evaluate, image_in_unit_range, load_network, train

RECIPE = Recipe(
    name="photographs",
    network="MSPNet",
    dataset="a folder",
    options={"num_superpixels": [50, 100], "backbone": "resnet18", "width": 0.25, "channels": 256},
    crop=(96, 96),
    scale=(0.75, 1.5),
    jitter=0.2,
    batch_size=8,
    max_steps=200,
    lr=0.05,
)


def show(checkpoint: Path, reader: ImageReader, picture: Path) -> None:
    """Images, predictions and ground truth side by side, by the network of a file."""
    network, info = load_network(checkpoint)
    num_classes = info.options["num_classes"]
    figure, axes = plt.subplots(4, 3, figsize=(6.5, 9), layout="constrained", subplot_kw={"xticks": [], "yticks": []})
    for row, index in zip(axes, torch.linspace(0, len(reader) - 1, len(axes)).long().tolist(), strict=True):
        data = reader[index]
        with torch.no_grad():
            found = network(image_in_unit_range(data.image)[None]).logits.argmax(1)[0]
        row[0].imshow(data.image.movedim(0, -1).numpy(), cmap="gray")
        for axis, values, title in ((row[1], found, info.network), (row[2], data.mask, "ground truth")):
            shown = values.double().where(values < num_classes, torch.nan).numpy()
            axis.imshow(shown, cmap="viridis", vmin=0, vmax=num_classes - 1, interpolation="nearest")
            axis.set_title(title)
    figure.savefig(picture, dpi=80)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images")
    parser.add_argument("--labels", type=Path, help="folder of masks")
    parser.add_argument("--num-classes", type=int, help="of the masks")
    parser.add_argument("--ignore-index", type=int, help="mask value of no class")
    parser.add_argument("--out", type=Path, default=Path("example-output"), help="folder to write")
    parser.add_argument("--steps", type=int, default=RECIPE.max_steps, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few steps")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.images is None:
        folder = write_folder(given.out / "photographs")
    else:
        folder = {"images": given.images, "labels": given.labels, "num_classes": given.num_classes}
    reader = ImageFolder(
        folder["images"], folder["labels"], num_classes=folder["num_classes"], ignore_index=given.ignore_index
    )
    learn, held_out = (reader.index_select(range(part, len(reader), 4)) for part in (0, 2))  # neighbours are alike
    print(f"{len(learn)} images to learn from, {len(held_out)} held out")

    recipe = RECIPE.but(max_steps=4 if given.quick else given.steps)
    folder = given.out / "training"
    network = train(
        recipe, learn, held_out, out=folder, seed=given.seed, checkpoint_every=50, val_every=100, progress=False
    )
    figures = {"once": evaluate(network, held_out, recipe)}
    figures["with its mirror image"] = evaluate(network, held_out, recipe, flip=True)
    for name, found in figures.items():
        print(f"{name:<22}" + "  ".join(f"{key} {value:.3f}" for key, value in found.items()))
    (given.out / "train_a_network.json").write_text(json.dumps(figures, indent=1))
    show(folder / "network.ckpt", held_out, given.out / "train_a_network.png")
    print(f"written {given.out / 'train_a_network.png'}")


if __name__ == "__main__":
    main()
