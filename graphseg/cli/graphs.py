"""`graphseg build | inspect | plot`: folders of images to datasets of graphs, and a look at them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphseg.cli.answer import DONE, EXIT, FAILED, WITH_ERRORS, named_values, option, say, say_left_out
from graphseg.cli.images import add_data, make_reader

if TYPE_CHECKING:
    from graphseg.datasets import DatasetStatistics, ImageGraphDataset, ImageReader

__all__ = ["add_build", "add_inspect", "add_plot"]

_USAGE = "%(prog)s IMAGES OUT [--labels MASKS | --dataset NAME] [--graph KIND] [option ...]"

_BUILD = """examples:
  graphseg build photos out --graph rag --num-segments 200
  graphseg build photos out --labels masks --num-classes 3 --ignore-index 255 --graph rag --workers 4
  graphseg build photos out --graph rag --superpixels slic -p compactness=20 -p exact=true
  graphseg build photos out --graph knn --k 8 --by features --num-segments 400
  graphseg build photos out --graph grid --connectivity 8
  graphseg build photos out --graph affinity --distances 1 2 4
  graphseg build photos out --graph hierarchy --num-segments 100 200 400
  graphseg build camvid out --dataset camvid --graph rag
  graphseg build /shared/photos out --graph rag --scheduler tcp://10.0.0.1:8786

Images and masks pair by name: photos/a/1.jpg with masks/a/1.png. What is built is kept under a hash of the files and of
these options: the same command again does only what is missing or has changed, also after it was killed.

"""

# Which options a graph heeds.
_GRAPHS: dict[str, tuple[str, ...]] = {
    "grid": ("connectivity",),
    "rag": ("connectivity", "superpixels", "num_segments", "parameter"),
    "knn": ("superpixels", "num_segments", "parameter", "k", "by", "weighted"),
    "affinity": ("distances",),
    "hierarchy": ("connectivity", "superpixels", "num_segments", "parameter"),
    "instance": ("k", "edges", "max_distance"),
}
_OF_SOME = sorted({name for names in _GRAPHS.values() for name in names})
_SUPERPIXELS = ("slic", "grid", "slic_skimage", "felzenszwalb", "quickshift", "watershed")


def add_build(commands: Any) -> None:
    """Adds the command build.

    Args:
        commands: of the parser.
    """
    build = commands.add_parser(
        "build",
        help="make a dataset of graphs from a folder of images",
        description="Make a dataset of graphs from a folder of images.",
        usage=_USAGE,
        epilog=_BUILD + EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.set_defaults(run=_build, error=build.error)
    add_data(build)
    build.add_argument("out", type=Path, metavar="OUT", help="folder to write, or to go on with")
    _add_graph(build)
    work = build.add_argument_group("work")
    work.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    work.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, whose workers make the graphs")
    work.add_argument("--quiet", action="store_true", help="no progress bar")


def add_inspect(commands: Any) -> None:
    """Adds the command inspect.

    Args:
        commands: of the parser.
    """
    inspect = commands.add_parser(
        "inspect",
        help="say what a dataset holds",
        description="Say what a dataset holds: graphs, nodes, edges, classes, purity, oracle, seconds.",
        epilog=EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("out", type=Path, metavar="OUT", help="a folder that graphseg build has written")
    inspect.add_argument("--split", help="only this split")
    inspect.add_argument("--json", action="store_true", help="as JSON")


def add_plot(commands: Any) -> None:
    """Adds the command plot.

    Args:
        commands: of the parser.
    """
    plot = commands.add_parser(
        "plot",
        help="draw one graph over its image",
        description="Draw one graph over its image; needs the extra viz (matplotlib).",
        epilog=EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plot.set_defaults(run=_plot)
    plot.add_argument("out", type=Path, metavar="OUT", help="a folder that graphseg build has written")
    plot.add_argument("index", metavar="INDEX", help="number of the graph, from 0, or the name of its image")
    plot.add_argument("picture", type=Path, metavar="PICTURE", help="file to write: .png, .svg, .pdf, ...")


def _add_graph(build: argparse.ArgumentParser) -> None:
    graph = build.add_argument_group("graph")
    graph.add_argument("--graph", choices=list(_GRAPHS), default="rag", help="default rag")
    graph.add_argument("--connectivity", type=int, choices=(4, 8), help="of grid, rag, hierarchy (default 4)")
    graph.add_argument(
        "--superpixels",
        choices=(*_SUPERPIXELS, "pixels"),
        metavar="NAME",
        help=f"of rag, knn, hierarchy: {', '.join(_SUPERPIXELS)}, and pixels for knn (default slic)",
    )
    graph.add_argument(
        "--num-segments",
        type=int,
        nargs="+",
        metavar="N",
        help="superpixels (default 200); of hierarchy several, coarse to fine",
    )
    graph.add_argument(
        "-p",
        "--parameter",
        action="append",
        metavar="NAME=VALUE",
        help="of the superpixel method: compactness=20, exact=true, scale=100, ...",
    )
    graph.add_argument("--k", type=int, help="of knn and instance: neighbours (default 8 and 5)")
    graph.add_argument("--by", choices=("position", "features", "both"), help="of knn: what is near (default position)")
    graph.add_argument(
        "--weighted", action="store_true", default=None, help="of knn: edge weights exp(-d^2 / (2 sigma^2))"
    )
    graph.add_argument(
        "--distances", type=int, nargs="+", metavar="D", help="of affinity: of the eight neighbours (default 1 2 4)"
    )
    graph.add_argument("--edges", choices=("delaunay", "knn", "radius"), help="of instance (default delaunay)")
    graph.add_argument("--max-distance", type=float, metavar="PIXELS", help="of instance: the longest edge")
    graph.add_argument(
        "--node-features",
        nargs="*",
        metavar="NAME",
        help="mean, std, centroid, area, ...; graphseg.transforms.features lists them",
    )
    graph.add_argument(
        "--edge-features", nargs="*", metavar="NAME", help="color_distance, length, boundary_mean, ...; likewise"
    )
    graph.add_argument("--keep-pixels", action="store_true", help="keep the images with the graphs")


def _build(options: argparse.Namespace) -> int:
    unheeded = [n for n in _OF_SOME if getattr(options, n) is not None and n not in _GRAPHS[options.graph]]
    if unheeded:
        heeded = ", ".join(map(option, _GRAPHS[options.graph]))
        options.error(f"got {', '.join(map(option, unheeded))} with --graph {options.graph}, which heeds {heeded}")
    if options.graph == "instance" and options.dataset is None and options.instances is None:
        options.error("got --graph instance without --instances, expected both")

    from graphseg.datasets import ImageGraphDataset

    reader = make_reader(options)
    transform = _transform(options, reader)
    if options.out.exists() and not options.out.is_dir():
        raise NotADirectoryError(f"got OUT {options.out}, which is a file, expected a folder or a new name")
    dataset = ImageGraphDataset.build(
        reader,
        options.out,
        transform,
        workers=options.workers,
        scheduler=options.scheduler,
        progress=False if options.quiet else None,
    )
    errors = dataset.errors
    size = dataset.stats().bytes.total / 1e6
    left_out = f"; left out ({len(errors)}):" if errors else ""
    say(f"{len(dataset)} graphs in {options.out} ({size:.1f} MB){left_out}")
    say_left_out(errors, str(options.out / "errors.jsonl"))
    if not len(dataset):
        print("graphseg: no graph could be built", file=sys.stderr)
        return FAILED
    return WITH_ERRORS if errors else DONE


def _transform(options: argparse.Namespace, reader: ImageReader) -> Any:
    from graphseg.ops import affinity_offsets
    from graphseg.transforms import (
        ToAffinityGraph,
        ToHierarchy,
        ToInstanceGraph,
        ToKNNGraph,
        ToPixelGrid,
        ToSuperpixelRAG,
    )

    shared: dict[str, Any] = {
        "num_classes": reader.num_classes,
        "ignore_index": reader.ignore_index,
        "keep_pixels": options.keep_pixels,
    }
    for name in (
        "connectivity",
        "superpixels",
        "k",
        "by",
        "weighted",
        "edges",
        "max_distance",
        "node_features",
        "edge_features",
    ):
        if getattr(options, name) is not None:
            shared[name] = getattr(options, name)
    shared |= _parameters(options)
    counts = options.num_segments
    if options.graph == "hierarchy":
        return ToHierarchy(**shared, **({} if counts is None else {"num_segments": counts}))
    if counts is not None:
        if len(counts) > 1:
            options.error(
                f"got --num-segments {' '.join(map(str, counts))}, expected one number for --graph {options.graph}"
            )
        shared["num_segments"] = counts[0]
    if options.graph == "affinity":
        return ToAffinityGraph(None if options.distances is None else affinity_offsets(options.distances), **shared)
    kind: Any = {"grid": ToPixelGrid, "rag": ToSuperpixelRAG, "knn": ToKNNGraph, "instance": ToInstanceGraph}[
        options.graph
    ]
    return kind(**shared)


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    found = named_values(options, "parameter", options.parameter)
    for name in found:
        if name in options:
            options.error(f"got --parameter {name}, expected {option(name)} for that")
    return found


def _inspect(options: argparse.Namespace) -> int:
    dataset = _open(options.out)
    part = dataset if options.split is None else dataset.split(options.split)
    stats = part.stats()
    if options.json:
        about = {"splits": part.splits, "complete": dataset.complete, "errors": len(dataset.errors)}
        say(json.dumps(about | stats.to_dict() | {"pipeline": dataset.about.get("pipeline")}, indent=2))
    else:
        say(_described(part, stats))
    return DONE


def _described(dataset: ImageGraphDataset, stats: DatasetStatistics) -> str:
    lines = [f"{stats.graphs} graphs" + (f", splits {', '.join(dataset.splits)}" if dataset.splits else "")]
    if not dataset.complete:
        lines.append("the build has not ended: start it again to finish it")
    if dataset.errors:
        lines.append(f"left out ({len(dataset.errors)}): see errors.jsonl")
    lines.append(f"{'':<10}{'mean':>12}{'least':>12}{'most':>12}{'all':>16}")
    for name in ("nodes", "edges", "pixels", "bytes"):
        spread = getattr(stats, name)
        lines.append(f"{name:<10}{spread.mean:>12,.1f}{spread.low:>12,.0f}{spread.high:>12,.0f}{spread.total:>16,.0f}")
    for name, spread in stats.seconds.items():
        lines.append(
            f"{name + ' s':<10}{spread.mean:>12.4f}{spread.low:>12.4f}{spread.high:>12.4f}{spread.total:>16.1f}"
        )
    if stats.classes:
        accuracy, iou = stats.oracle["pixel_accuracy"], stats.oracle["mean_iou"]
        lines.append(f"purity {stats.purity:.4f}, oracle: pixel accuracy {accuracy:.4f}, mean IoU {iou:.4f}")
        labelled = max(sum(k["pixels"] for k in stats.classes), 1)
        width = max(10, *(len(k["name"]) + 2 for k in stats.classes))
        lines.append(f"{'class':<{width}}{'pixels':>14}{'share':>9}{'nodes':>10}")
        for k in stats.classes:
            lines.append(f"{k['name']:<{width}}{k['pixels']:>14,}{k['pixels'] / labelled:>9.4f}{k['nodes']:>10,}")
    return "\n".join(lines)


def _plot(options: argparse.Namespace) -> int:
    dataset = _open(options.out)
    index = _find(dataset.sources, options.index)

    from graphseg.datasets.picture import draw_graph

    draw_graph(dataset, index, options.picture)
    return DONE


def _find(sources: Sequence[str], text: str) -> int:
    """The graph that a number means, or else the name of an image: there are images whose names are numbers."""
    if text.isdecimal() and int(text) < len(sources) and text == str(int(text)):
        return int(text)
    if text in sources:
        return sources.index(text)
    if not sources:
        raise ValueError(f"got INDEX {text}, expected none: the dataset is empty")
    raise ValueError(f"got INDEX {text}, expected 0 to {len(sources) - 1}, or a name such as {', '.join(sources[:3])}")


def _open(root: Path) -> ImageGraphDataset:
    import warnings

    from graphseg.datasets import ImageGraphDataset

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the build of", UserWarning)  # said in the answer
        try:
            return ImageGraphDataset(root)
        except ValueError as error:  # the file is to blame, not the words
            raise OSError(str(error)) from error
