"""The command line: `graphseg build | inspect | plot | compare`.

Exit status: 0 all is done; 1 done, except for files that are listed; 2 wrong use; 3 it could not be done;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphseg import __version__

if TYPE_CHECKING:
    from graphseg.datasets import DatasetStatistics, ImageGraphDataset, ImageReader

__all__ = ["main"]

DONE, WITH_ERRORS, WRONG_USE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130

_USAGE = "%(prog)s IMAGES OUT [--labels MASKS | --dataset NAME] [--graph KIND] [option ...]"
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

_COMPARE = """examples:
  graphseg compare photos --out report
  graphseg compare photos --labels masks --ignore-index 255 --out report --workers 2
  graphseg compare photos --labels masks --num-classes 3 --constructions "slic * rag" hierarchy --out report
  graphseg compare camvid --dataset camvid --max-images 60 --out report

OUT gets report.html (one page, for any browser, that needs no network), results.json and results.csv (a record for each
construction and measure), images.csv (a line for each construction and image), comparisons.json and plots. The same
command again does only what is missing or has changed, also after it was killed.

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
# Which options only a plain folder has, and which of them need another.
_NEEDED = {
    "labels": ("mask_suffix", "num_classes", "ignore_index", "class_names"),
    "instances": ("instance_suffix",),
}
_OF_FOLDER = ("instances", "channels", *_NEEDED["labels"], *_NEEDED["instances"])
_SUPERPIXELS = ("slic", "grid", "slic_skimage", "felzenszwalb", "quickshift", "watershed")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: its words; default those of the command line.

    Returns:
        The exit status.
    """
    try:
        options = _parser().parse_args(argv)
        options.command_line = shlex.join(["graphseg", *(sys.argv[1:] if argv is None else argv)])
    finally:
        _say("", end="")  # the help goes out now
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        print("graphseg: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ImportError, LookupError) as error:
        print(f"graphseg: {error}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError) as error:
        print(f"graphseg: {error}", file=sys.stderr)
        return WRONG_USE
    return status


def _say(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:  # whoever reads the answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "graphseg", description="Images become graphs, graphs become segmentations.", epilog=_EXIT, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build = commands.add_parser(
        "build",
        help="make a dataset of graphs from a folder of images",
        description="Make a dataset of graphs from a folder of images.",
        usage=_USAGE,
        epilog=_BUILD + _EXIT,
        formatter_class=raw,
    )
    build.set_defaults(run=_build, error=build.error)
    _add_data(build)
    build.add_argument("out", type=Path, metavar="OUT", help="folder to write, or to go on with")
    _add_graph(build)
    work = build.add_argument_group("work")
    work.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    work.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, whose workers make the graphs")
    work.add_argument("--quiet", action="store_true", help="no progress bar")

    _add_compare(commands)
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
    data = build.add_argument_group("images and labels")
    source = data.add_mutually_exclusive_group()
    source.add_argument("--labels", type=Path, metavar="MASKS", help="folder of masks: the class of each pixel")
    source.add_argument(
        "--dataset", choices=_DATASETS, metavar="NAME", help=f"a set of known layout: {', '.join(_DATASETS)}"
    )
    data.add_argument("--instances", type=Path, metavar="MAPS", help="folder of instance maps, 0 for background")
    data.add_argument("--mask-suffix", metavar="TEXT", help="what masks' names have more than images', _mask say")
    data.add_argument("--instance-suffix", metavar="TEXT", help="likewise, of --instances")
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


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="measure graph constructions on a folder of images",
        description="Measure graph constructions on a folder of images, side by side.",
        epilog=_COMPARE + _EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.set_defaults(run=_compare, error=compare.error)
    _add_data(compare)
    compare.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder to write, or to go on with")
    what = compare.add_argument_group("what is compared")
    what.add_argument(
        "--constructions",
        nargs="+",
        metavar="NAME",
        help="names, patterns (slic * rag) or words (knn) of the default set; a wrong name lists them (default: all)",
    )
    what.add_argument("--max-images", type=int, metavar="N", help="only so many images, taken evenly")
    what.add_argument(
        "--no-probe", action="store_true", help="do not train the probe (a small GNN; it takes the most time)"
    )
    what.add_argument("--probe-images", type=int, metavar="N", help="that take part in the probe (default 60)")
    what.add_argument("--probe-steps", type=int, metavar="N", help="of training (default 200)")
    what.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default 0)")
    what.add_argument("--pictures", type=int, default=4, metavar="N", help="images that the report shows (default 4)")
    work = compare.add_argument_group("work")
    work.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    work.add_argument("--quiet", action="store_true", help="no progress bar and no table")


def _compare(options: argparse.Namespace) -> int:
    from graphseg.compare import ProbeOptions, choose, compare, default_constructions, format_table

    if options.out.resolve().is_relative_to(options.images.resolve()):
        options.error(f"got --out {options.out} inside {options.images}, expected another place: it gets pictures")
    reader = _reader(options)
    constructions = default_constructions(reader.num_classes, reader.ignore_index)
    if options.constructions is not None:
        constructions = choose(options.constructions, constructions)
    if options.max_images is not None:
        if options.max_images < 1:
            options.error(f"got --max-images {options.max_images}, expected at least 1")
        count = min(options.max_images, len(reader))
        reader = reader.index_select([k * len(reader) // count for k in range(count)])
    budget = {"images": options.probe_images, "steps": options.probe_steps}
    given = {name: value for name, value in budget.items() if value is not None}
    result = compare(
        reader,
        constructions,
        out=options.out,
        probing=not options.no_probe and ProbeOptions(**given),
        workers=options.workers,
        seed=options.seed,
        num_pictures=options.pictures,
        progress=False if options.quiet else None,
        command=options.command_line,
    )
    if not options.quiet:
        _say(format_table(result.records, result.rows, width=shutil.get_terminal_size((120, 24)).columns))
        for note in result.notes:
            print(f"note: {note}", file=sys.stderr)
    _say(f"the report: {options.out / 'report.html'}")
    if not result.records:
        return FAILED
    return WITH_ERRORS if any("error" in row for row in result.rows) or reader.bad_files else DONE


def _build(options: argparse.Namespace) -> int:
    unheeded = [n for n in _OF_SOME if getattr(options, n) is not None and n not in _GRAPHS[options.graph]]
    if unheeded:
        heeded = ", ".join(map(_option, _GRAPHS[options.graph]))
        options.error(f"got {', '.join(map(_option, unheeded))} with --graph {options.graph}, which heeds {heeded}")
    if options.graph == "instance" and options.dataset is None and options.instances is None:
        options.error("got --graph instance without --instances, expected both")

    from graphseg.datasets import ImageGraphDataset

    reader = _reader(options)
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
    _say(f"{len(dataset)} graphs in {options.out} ({size:.1f} MB){left_out}")
    for bad in errors[:5]:
        print(f"  {bad.file}: {bad.reason}", file=sys.stderr)
    if errors:
        print(f"  all of them: {options.out / 'errors.jsonl'}", file=sys.stderr)
    if not len(dataset):
        print("graphseg: no graph could be built", file=sys.stderr)
        return FAILED
    return WITH_ERRORS if errors else DONE


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _reader(options: argparse.Namespace) -> ImageReader:
    from graphseg import datasets
    from graphseg._checks import check_positive_int
    from graphseg.datasets.image_file import MAX_PIXELS

    most = MAX_PIXELS if options.max_pixels is None else options.max_pixels
    check_positive_int("--max-pixels", most)
    if options.dataset is not None:
        given = [n for n in _OF_FOLDER if getattr(options, n) is not None]
        if given:
            options.error(f"got {_option(given[0])} with --dataset {options.dataset}, which brings its own")
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
    for needed, names in _NEEDED.items():
        for name in names:
            if getattr(options, needed) is None and getattr(options, name) is not None:
                options.error(f"got {_option(name)} without {_option(needed)}, expected both")
    lines = options.class_names.read_text("utf-8").split("\n") if options.class_names is not None else []
    class_names = [line.strip() for line in lines if line.strip()]

    def folder(num_classes: int | None) -> ImageReader:
        return datasets.ImageFolder(
            options.images,
            options.labels,
            options.instances,
            mask_suffix=options.mask_suffix or "",
            instance_suffix=options.instance_suffix or "",
            channels=options.channels,
            num_classes=num_classes,
            ignore_index=options.ignore_index,
            class_names=class_names,
            max_pixels=most,
        )

    K = options.num_classes if options.num_classes is not None else len(class_names) or None
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
        if name in options:
            options.error(f"got --parameter {text}, expected {_option(name)} for that")
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
        _say(json.dumps(about | stats.to_dict() | {"pipeline": dataset.about.get("pipeline")}, indent=2))
    else:
        _say(_described(part, stats))
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


if __name__ == "__main__":
    sys.exit(main())
