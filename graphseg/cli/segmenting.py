"""`graphseg segment`: label maps, pictures and instances of images, by a trained network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from graphseg.cli.answer import DONE, EXIT, FAILED, WITH_ERRORS, named_values, say, say_left_out
from graphseg.cli.images import max_pixels_of
from graphseg.cli.networks import add_network, check_training, open_network

__all__ = ["add_segment"]

_SEGMENT = """examples:
  graphseg segment photos --checkpoint run/network.ckpt --out found
  graphseg segment photos/1.jpg more/2.tif --checkpoint run/network.ckpt --out found --scales 0.75 1 1.25 --flip
  graphseg segment cells --checkpoint nuclei/network.ckpt --out found -p roi_size=null -p window=1

OUT gets labels/ (the class of each pixel; a GeoTIFF for a GeoTIFF, else PNG, of 8 bits, or 16 for more than 255
classes; the largest value means no data), overlays/ (to look at), of networks that find instances instances/ (the
number of each pixel's instance, PNG of 16 bits, 0 for none), and records/ (JSON: pixels of each class; class, score and
area of each instance). Folders below IMAGES are kept. The same command again does only what is missing or has changed.

"""


def add_segment(commands: Any) -> None:
    """Adds the command segment.

    Args:
        commands: of the parser.
    """
    segment = commands.add_parser(
        "segment",
        help="segment images with a trained network",
        description="Segment images with a trained network; needs the extra train (lightning, torchmetrics).",
        epilog=_SEGMENT + EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    segment.set_defaults(run=_segment, error=segment.error)
    segment.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="folders of images, or images")
    segment.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write, or to go on with")
    add_network(segment)
    segment.add_argument("--own-size", action="store_true", help="do not resize images as the training did")
    segment.add_argument("--max-pixels", type=int, metavar="N", help="refuse larger images (default 178,956,970)")
    segment.add_argument("--quiet", action="store_true", help="no progress bar")


def _segment(options: argparse.Namespace) -> int:
    check_training("segment")
    from graphseg.training.segment_files import find_images
    from graphseg.training.segmenting import ERRORS, segment

    most = max_pixels_of(options)
    if options.out.exists() and not options.out.is_dir():
        raise NotADirectoryError(f"got --out {options.out}, which is a file, expected a folder or a new name")
    find_images(options.images, options.out)  # before the network is read
    network, info, recipe, device = open_network(options)
    told = recipe.kind != "unsupervised" and len(info.class_names) == network.num_classes
    done = segment(
        network,
        options.images,
        options.out,
        class_names=info.class_names if told else (),
        size=None if options.own_size else recipe.resize,
        scales=options.scales,
        flip=options.flip,
        options=named_values(options, "parameter", options.parameter),
        device=device,
        max_pixels=most,
        progress=not options.quiet and sys.stderr.isatty(),
    )
    left_out = f"; left out ({len(done.errors)}):" if done.errors else ""
    say(f"{done.images} images in {options.out} ({done.made} new){left_out}")
    say_left_out(done.errors, str(options.out / ERRORS))
    if not done.images:
        print("graphseg: no image could be segmented", file=sys.stderr)
        return FAILED
    return WITH_ERRORS if done.errors else DONE
