"""`graphseg train`: the papers' networks, on their data or on one's own."""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from pathlib import Path
from typing import Any

from graphseg.cli.answer import DONE, EXIT, WITH_ERRORS, say, say_left_out
from graphseg.cli.images import add_data
from graphseg.cli.networks import check_training
from graphseg.cli.recipes import choose_recipe, training_images

__all__ = ["add_train"]

_TRAIN = """examples:
  graphseg train --list
  graphseg train msp_camvid --data camvid --out run --small
  graphseg train msp_camvid --data camvid --out run --weights resnet50.pth --devices 4 --precision 16-mixed
  graphseg train es_crf_camvid --data photos --labels masks --ignore-index 255 --val-fraction 0.2 --out run
  graphseg train sgseg_msrc21 --data photos --dataset folder --set num_classes=4 --out run
  graphseg train mine.py --data camvid --out run --set backbone=resnet18 --set width=0.5 --steps 2000

RECIPE is one of the papers' (--list), or a Python file of your own (NAME.py) that sets RECIPE (and SMALL, for
--small): that is code, and it is run. Options that are not given are the recipe's. OUT gets network.ckpt (the
trained network), checkpoints/, logs/ (CSV, and TensorBoard where it is installed) and pictures/ of the validation. The
same command again goes on at the last checkpoint, also after it was killed; another one with the same OUT is refused.

"""


def add_train(commands: Any) -> None:
    """Adds the command train.

    Args:
        commands: of the parser.
    """
    train = commands.add_parser(
        "train",
        help="train one of the papers' networks",
        description="Train one of the papers' networks; needs the extra train (lightning, torchmetrics).",
        usage="%(prog)s RECIPE --data FOLDER --out OUT [--small] [option ...]",
        epilog=_TRAIN + EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.set_defaults(run=_train, error=train.error)
    train.add_argument("recipe", nargs="?", metavar="RECIPE", help="name of a recipe, or a Python file with one")
    train.add_argument("--list", action="store_true", help="list the recipes, and do nothing else")
    add_data(train, flag=True, split="images to learn from (default train)")
    train.add_argument("--out", type=Path, metavar="OUT", help="folder to write, or to go on with")
    judged = train.add_argument_group("images to judge by")
    judged.add_argument("--val-split", metavar="SPLIT", help="of --dataset (default val, where there is one)")
    judged.add_argument("--val-fraction", type=float, metavar="X", help="of a plain folder: so many, drawn by --seed")
    judged.add_argument("--val-data", type=Path, metavar="FOLDER", help="of a plain folder: another one")
    judged.add_argument("--val-labels", type=Path, metavar="MASKS", help="of --val-data")
    judged.add_argument("--val-instances", type=Path, metavar="MAPS", help="of --val-data")
    judged.add_argument("--val-every", type=int, metavar="STEPS", help="(default: at the end)")
    how = train.add_argument_group("training")
    how.add_argument("--small", action="store_true", help="the recipe's variant for a machine without a GPU")
    how.add_argument("--steps", type=int, metavar="N", help="of the optimiser")
    how.add_argument("--batch-size", type=int, metavar="N", help="of all processes together")
    how.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="argument of the network: width=0.5, gnn=dgcnn, ...",
    )
    how.add_argument("--weights", type=Path, metavar="FILE", help="the backbone's, with torchvision's names")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default 0)")
    work = train.add_argument_group("work")
    work.add_argument("--checkpoint-every", type=int, default=1000, metavar="STEPS", help="(default 1000)")
    work.add_argument("--workers", type=int, default=0, metavar="N", help="processes that load images (default 0)")
    work.add_argument("--accelerator", default="auto", metavar="NAME", help="cpu, gpu, ... (default auto)")
    work.add_argument("--devices", type=int, default=1, metavar="N", help="on each node (default 1)")
    work.add_argument("--nodes", type=int, default=1, metavar="N", help="(default 1)")
    work.add_argument("--strategy", default="auto", metavar="NAME", help="of Lightning: ddp, ... (default auto)")
    work.add_argument("--precision", default="32-true", metavar="NAME", help="16-mixed, bf16-mixed (default 32-true)")
    work.add_argument("--quiet", action="store_true", help="no progress bar")


def _train(options: argparse.Namespace) -> int:
    check_training("train")
    if options.list:
        say(_listed())
        return DONE
    missing = [name for name in ("recipe", "images", "out") if getattr(options, name) is None]
    if missing:
        words = {"recipe": "RECIPE", "images": "--data", "out": "--out"}
        options.error(f"the following arguments are required: {', '.join(words[name] for name in missing)}")
    if options.out.exists() and not options.out.is_dir():
        raise NotADirectoryError(f"got --out {options.out}, which is a file, expected a folder or a new name")
    if options.out.resolve().is_relative_to(options.images.resolve()):
        options.error(f"got --out {options.out} inside {options.images}, expected another place: it gets pictures")

    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities import rank_zero_only

    from graphseg.training import train

    recipe, reader, val = training_images(options, choose_recipe(options))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it tells of devices it has not found, and more
    try:
        train(
            recipe,
            reader,
            val,
            out=options.out,
            seed=options.seed,
            weights=options.weights,
            checkpoint_every=options.checkpoint_every,
            val_every=options.val_every,
            num_workers=options.workers,
            progress=not options.quiet and sys.stdout.isatty(),
            trainer={
                "accelerator": options.accelerator,
                "devices": options.devices,
                "num_nodes": options.nodes,
                "strategy": options.strategy,
                "precision": options.precision,
            },
        )
    except MisconfigurationException as error:  # no such accelerator, and the like
        raise ValueError(str(error)) from error
    except SystemExit as left:  # so Lightning ends when it is interrupted
        if isinstance(left.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from left
        raise
    if getattr(rank_zero_only, "rank", 0) == 0:
        for name, value in _last_figures(options.out).items():
            say(f"{name:<28}{value:.4f}")
        say(f"the network: {options.out / 'network.ckpt'}")
        say_left_out(reader.bad_files)
    return WITH_ERRORS if reader.bad_files else DONE


def _listed() -> str:
    from graphseg.training import load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    lines = [f"{'recipe':<24}{'network':<20}{'dataset':<18}numbers of"]
    return "\n".join([*lines, *(f"{r.name:<24}{r.network:<20}{r.dataset:<18}{r.source}" for r in recipes)])


def _last_figures(out: Path) -> dict[str, float]:
    """What the last validation has found, if there was one."""
    logs = sorted((out / "logs").glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    for path in reversed(logs):
        with path.open(newline="") as file:
            rows = [{k: v for k, v in row.items() if k.startswith("val/") and v} for row in csv.DictReader(file)]
        for row in reversed(rows):
            if row:
                return {name.removeprefix("val/"): float(value) for name, value in row.items()}
    return {}
