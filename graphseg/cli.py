"""The command line: `graphseg build | inspect | plot`.

Exit status: 0 all is done; 1 done, except for files that are listed; 2 wrong use; 3 it could not be done;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphseg.datasets import DatasetStatistics, ImageGraphDataset, ImageReader

__all__ = ["main"]

DONE, WITH_ERRORS, WRONG_USE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130

_EXIT = """exit status:
  0    all is done
  1    done, except for files that OUT/errors.jsonl lists, one JSON object a line: file, reason
  2    wrong use: the message says what was expected
  3    it could not be done: no such folder, no room on the disk, ...; what was built before is kept
  130  interrupted; the same command goes on where it stopped
"""

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
# Sets of known layout, and their classes in graphseg.datasets.
_DATASETS = {
    "ade20k": "ADE20K",
    "bsds500": "BSDS500",
    "camvid": "CamVid",
    "cityscapes": "Cityscapes",
    "coco_stuff": "CocoStuff",
    "dsb2018": "DSB2018",
    "isbi2012": "ISBI2012",
    "msrc21": "MSRC21",
    "pascal_context": "PascalContext",
    "pascal_voc": "PascalVOC",
    "penn_fudan": "PennFudan",
    "potsdam": "Potsdam",
    "sentinel2": "Sentinel2",
}
_SUPERPIXELS = ("slic", "grid", "slic_skimage", "felzenszwalb", "quickshift", "watershed")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: its words; default those of the command line.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        print("graphseg: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads the answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (OSError, ImportError, LookupError) as error:
        print(f"graphseg: {error}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError) as error:
        print(f"graphseg: {error}", file=sys.stderr)
        return WRONG_USE
    return status


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "graphseg", description="Images become graphs, graphs become segmentations.", epilog=_EXIT, formatter_class=raw
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build = commands.add_parser(
        "build",
        help="make a dataset of graphs from a folder of images",
        description="Make a dataset of graphs from a folder of images.",
        epilog=_BUILD + _EXIT,
        formatter_class=raw,
    )
    build.set_defaults(run=_build, error=build.error)
    _add_data(build)
    _add_graph(build)
    work = build.add_argument_group("work")
    work.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    work.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, whose workers make the graphs")
    work.add_argument("--quiet", action="store_true", help="no progress bar")

    inspect = commands.add_parser(
        "inspect",
        help="say what a dataset holds",
        description="Say what a dataset holds: graphs, nodes, edges, classes, purity, oracle, seconds.",
        epilog=_EXIT,
        formatter_class=raw,
    )
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("out", type=Path, metavar="OUT", help="a folder that graphseg build has written")
    inspect.add_argument("--split", help="only this split")
    inspect.add_argument("--json", action="store_true", help="as JSON")

    plot = commands.add_parser(
        "plot",
        help="draw one graph over its image",
        description="Draw one graph over its image; needs the extra viz (matplotlib).",
        epilog=_EXIT,
        formatter_class=raw,
    )
    plot.set_defaults(run=_plot)
    plot.add_argument("out", type=Path, metavar="OUT", help="a folder that graphseg build has written")
    plot.add_argument("index", metavar="INDEX", help="number of the graph, from 0, or the name of its image")
    plot.add_argument("picture", type=Path, metavar="PICTURE", help="file to write: .png, .svg, .pdf, ...")
    return parser


def _add_data(build: argparse.ArgumentParser) -> None:
    build.add_argument(
        "images", type=Path, metavar="IMAGES", help="folder of images, or of the set that --dataset names"
    )
    build.add_argument("out", type=Path, metavar="OUT", help="folder to write, or to go on with")
    data = build.add_argument_group("images and labels")
    source = data.add_mutually_exclusive_group()
    source.add_argument("--labels", type=Path, metavar="MASKS", help="folder of masks: the class of each pixel")
    source.add_argument(
        "--dataset", choices=_DATASETS, metavar="NAME", help=f"a set of known layout: {', '.join(_DATASETS)}"
    )
    data.add_argument("--instances", type=Path, metavar="MAPS", help="folder of instance maps, 0 for background")
    data.add_argument(
        "--mask-suffix", default="", metavar="TEXT", help="what masks' names have more than images', _mask say"
    )
    data.add_argument(
        "--num-classes", type=int, metavar="K", help="default: the largest label + 1, found by reading all masks"
    )
    data.add_argument("--ignore-index", type=int, metavar="N", help="label of no class")
    data.add_argument("--class-names", type=Path, metavar="FILE", help="one name a line")
    data.add_argument("--channels", type=int, choices=(1, 3), help="make all images grey, or colour")
    data.add_argument("--split", help="of --dataset: only this one (default: all)")
    data.add_argument("--classes", type=int, metavar="K", help="of --dataset, where it has several ways to count them")
    data.add_argument("--max-pixels", type=int, metavar="N", help="refuse larger images (default 178,956,970)")


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
        names = ", ".join("--" + n.replace("_", "-") for n in unheeded)
        options.error(f"got {names} with --graph {options.graph}, which heeds {_options_of(options.graph)}")

    from graphseg.datasets import ImageGraphDataset

    reader = _reader(options)
    transform = _transform(options, reader)
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
    print(f"{len(dataset)} graphs in {options.out} ({size:.1f} MB){left_out}", flush=True)
    for bad in errors[:5]:
        print(f"  {bad.file}: {bad.reason}", file=sys.stderr)
    if errors:
        print(f"  all of them: {options.out / 'errors.jsonl'}", file=sys.stderr)
    if not len(dataset):
        print("graphseg: no graph could be built", file=sys.stderr)
        return FAILED
    return WITH_ERRORS if errors else DONE


def _options_of(graph: str) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in _GRAPHS[graph])


def _reader(options: argparse.Namespace) -> ImageReader:
    from graphseg import datasets
    from graphseg.datasets.image_file import MAX_PIXELS

    most = MAX_PIXELS if options.max_pixels is None else options.max_pixels
    if options.dataset is not None:
        of_folder = ("instances", "num_classes", "ignore_index", "class_names", "channels")
        given = [n for n in of_folder if getattr(options, n) is not None]
        if given:
            options.error(f"got --{given[0].replace('_', '-')} with --dataset, which brings its own")
        chosen = {} if options.classes is None else {"classes": options.classes}
        try:
            reader: ImageReader = getattr(datasets, _DATASETS[options.dataset])(options.images, options.split, **chosen)
        except TypeError as error:
            if chosen and "unexpected keyword" in str(error):
                options.error(f"got --classes {options.classes}, expected none: {options.dataset} counts them one way")
            raise
        reader.max_pixels = most
        return reader
    for name in ("split", "classes"):
        if getattr(options, name) is not None:
            options.error(f"got --{name} without --dataset, expected both")
    if options.labels is None:
        for name in ("num_classes", "ignore_index", "class_names"):
            if getattr(options, name) is not None:
                options.error(f"got --{name.replace('_', '-')} without --labels, expected both")
    names = options.class_names.read_text("utf-8").split("\n") if options.class_names is not None else []
    names = [name.strip() for name in names if name.strip()]

    def folder(num_classes: int | None) -> ImageReader:
        return datasets.ImageFolder(
            options.images,
            options.labels,
            options.instances,
            mask_suffix=options.mask_suffix,
            channels=options.channels,
            num_classes=num_classes,
            ignore_index=options.ignore_index,
            class_names=names,
            max_pixels=most,
        )

    K = options.num_classes if options.num_classes is not None else len(names) or None
    if K is None and options.labels is not None:
        K = datasets.count_classes(folder(None))
        print(f"{K} classes in {options.labels}", file=sys.stderr)
    return folder(K)


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
    found = {}
    for text in options.parameter or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            options.error(f"got --parameter {text}, expected NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _inspect(options: argparse.Namespace) -> int:
    dataset = _open(options.out)
    part = dataset if options.split is None else dataset.split(options.split)
    stats = part.stats()
    if options.json:
        about = {"splits": part.splits, "complete": dataset.complete, "errors": len(dataset.errors)}
        print(json.dumps(about | stats.to_dict() | {"pipeline": dataset.about.get("pipeline")}, indent=2), flush=True)
    else:
        print(_described(part, stats), flush=True)
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
    if options.index.lstrip("-").isdigit():
        index = int(options.index)
        if not 0 <= index < len(dataset):
            raise ValueError(f"got INDEX {index}, expected 0 to {len(dataset) - 1}")
    elif options.index in dataset.sources:
        index = dataset.sources.index(options.index)
    else:
        raise ValueError(f"got INDEX {options.index!r}, expected a number or a name such as {dataset.sources[:3]}")

    from graphseg.datasets.picture import draw_graph

    draw_graph(dataset, index, options.picture)
    return DONE


def _open(root: Path) -> ImageGraphDataset:
    import warnings

    from graphseg.datasets import ImageGraphDataset

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the build of", UserWarning)  # said in the answer
        return ImageGraphDataset(root)


if __name__ == "__main__":
    sys.exit(main())
