"""`graphseg evaluate`: what a trained network is worth on images with ground truth."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from graphseg.cli.answer import DONE, EXIT, WITH_ERRORS, named_values, say, say_left_out
from graphseg.cli.images import add_data
from graphseg.cli.networks import add_network, check_training, open_network
from graphseg.cli.recipes import images_to_judge

__all__ = ["add_evaluate"]

_EVALUATE = """examples:
  graphseg evaluate --checkpoint run/network.ckpt --data camvid --split test_dev
  graphseg evaluate --checkpoint run/network.ckpt --data camvid --scales 0.75 1 1.25 --flip --json
  graphseg evaluate --checkpoint run/network.ckpt --data photos --labels masks --ignore-index 255

Images are resized and classes mapped as in training.

"""


def add_evaluate(commands: Any) -> None:
    """Adds the command evaluate.

    Args:
        commands: of the parser.
    """
    evaluate = commands.add_parser(
        "evaluate",
        help="say what a trained network is worth",
        description="Say what a trained network is worth; needs the extra train (lightning, torchmetrics).",
        epilog=_EVALUATE + EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.set_defaults(run=_evaluate, error=evaluate.error)
    add_data(evaluate, flag=True, split="images to judge by (default val, or all where there is none)")
    add_network(evaluate)
    evaluate.add_argument(
        "--boundary-radius", type=float, default=1, metavar="R", help="in pixels, under 1 of the diagonal (default 1)"
    )
    evaluate.add_argument("--min-area", type=int, default=0, metavar="N", help="of instances that count (default 0)")
    evaluate.add_argument("--workers", type=int, default=0, metavar="N", help="processes that load images (default 0)")
    evaluate.add_argument("--json", action="store_true", help="as JSON")
    evaluate.add_argument("--quiet", action="store_true", help="no progress bar")


def _evaluate(options: argparse.Namespace) -> int:
    check_training("evaluate")
    if options.images is None:
        options.error("the following arguments are required: --data")
    from graphseg.metrics.semantic import class_iou
    from graphseg.training import evaluate, make_judge

    network, info, recipe, device = open_network(options)
    recipe, reader, split = images_to_judge(options, recipe, network.num_classes)
    judging: dict[str, Any] = {"scales": options.scales, "flip": options.flip}
    judging |= {"boundary_radius": options.boundary_radius, "min_area": options.min_area}
    judging["options"] = named_values(options, "parameter", options.parameter)
    judge: Any = make_judge(network, recipe, reader, **judging)
    progress = not (options.quiet or options.json) and sys.stderr.isatty()
    figures = evaluate(
        network, reader, recipe, device=device, num_workers=options.workers, progress=progress, judge=judge
    )
    each: dict[str, float | None] = {}
    if recipe.kind == "semantic":
        values = class_iou(judge.metrics["classes"].matrix).tolist()
        known = reader.class_names or info.class_names
        names = known if len(known) == len(values) else [f"class {k}" for k in range(len(values))]
        each = {name: None if v != v else v for name, v in zip(names, values, strict=True)}
    if options.json:
        about = {"checkpoint": str(options.checkpoint), "images": len(reader), "split": split}
        numbers = {name: None if value != value else value for name, value in figures.items()}
        say(json.dumps(about | {"figures": numbers} | ({"class_iou": each} if each else {}), indent=2))
    else:
        say(f"{len(reader)} images" + (f" of split {split}" if split else ""))
        for name, value in figures.items():
            say(f"{name:<28}{value:.4f}")
        if each:
            say("IoU of each class")
            for name, share in each.items():
                say(f"  {name:<26}" + ("-" if share is None else f"{share:.4f}"))
    say_left_out(reader.bad_files)
    return WITH_ERRORS if reader.bad_files else DONE
