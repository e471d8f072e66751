"""Probe: how much does the same small network learn from a construction? Judged on held-out images, in pixels.

    h_0 = relu(W_0 x),   h_{l+1} = h_l + relu(W_l g_l + V_l mean of g_l over neighbours),   g_l = h_l, normalised
    logits = MLP(g_L)
    loss = - sum_n sum_k counts[n, k] log_softmax(logits)[n, k] / sum of counts

where `counts[n, k]` are the labelled pixels of class k in node n: the cross-entropy of every pixel against the logits
of its node, so that nodes count by their pixels, and mixed nodes have soft labels.

What is the same for every construction, so that the comparison is fair:

- images: the same are trained on and held out; with folds each is judged once, by a network that never saw it;
- pixels: a step draws images, and square patches of them, from the seed and the images' sizes alone. The loss reads
  these pixels. The network reads every node that a message could bring to them, which is the same as to run it on the
  whole image and to read the loss there. Ignored pixels count nowhere;
- budget: optimiser, learning rate and number of steps;
- network: depth and widths. The mean over neighbours does not grow with the degree. Only the first map depends on the
  construction, by its number of features; all other weights start equal for the same seed;
- scale: features are standardised over the pixels of the training images (each node counts by its pixels).

What a construction brings: its nodes, node features `x`, `edge_index` and, where there are, `edge_weight` (weights of
the mean). `edge_attr` is not read. In a `Hierarchy` parents and children are neighbours, too; loss and prediction are
read at the finest level, where every pixel counts once. Pixels of no node are neither trained on nor judged, as in
`ImageGraph.oracle`; `ProbeResult.coverage` says how many there are.

On a CPU everything runs on one thread: results repeat bit for bit with the seed, whatever number the process is set to,
and times of two constructions can be compared. torch's own random state is neither read nor changed.

A step holds about `batch_size * pixels` nodes of a pixel graph, and as many again around the patches; judging holds a
whole image. Large images are better made smaller before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphseg._checks import check_finite, check_integer, check_positive_int, check_tensor, is_integer
from graphseg.compare._probe_network import GraphPart, ProbeNetwork, join_parts, neighbour_mean, pixel_loss
from graphseg.data.hierarchy import Hierarchy
from graphseg.data.image_graph import ImageGraph

__all__ = ["ProbeResult", "probe", "probe_splits"]

Split = tuple[Sequence[int], Sequence[int]]
_PATCH = 16  # side of a patch, in pixels: small ones meet more of the image


@dataclass(frozen=True)
class ProbeResult:
    """What the probe found: pixel counts of M held-out images, S seeds and K classes, from which all scores come.

    Args:
        images: M, places of the held-out images in the list of graphs, rising.
        seeds: S.
        correct: int64 `[S, M, K]`, pixels of each class that were found.
        predicted: int64 `[S, M, K]`, pixels that were given each class.
        true: int64 `[M, K]`, labelled pixels of each class that belong to a node.
        labelled: int64 `[M]`, labelled pixels, of nodes or not.
        majority: int64 `[M]`, the most frequent class of the images that were trained on for this one.
        epoch_seconds: float64 `[S, folds]`, time of training on every training image once, that is on as many of its
            pixels as a step reads: median of the steps, times their number. Without the making or reading of graphs.
    """

    images: tuple[int, ...]
    seeds: tuple[int, ...]
    correct: Tensor
    predicted: Tensor
    true: Tensor
    labelled: Tensor
    majority: Tensor
    epoch_seconds: Tensor

    def scores(self) -> dict[str, Tensor]:
        """Of all held-out images together, float64 `[S]`, one value per seed.

        Returns:
            `probe_miou`: intersection over union of the pixels of all images, mean over the classes that occur in them.
            `probe_accuracy`: share of their pixels. `probe_epoch_seconds`: median over the folds. NaN without labels.
        """
        correct, predicted, true = self.correct.sum(1), self.predicted.sum(1), self.true.sum(0)
        return {
            "probe_miou": _mean_iou(correct, predicted, true),
            "probe_accuracy": correct.sum(1) / true.sum().to(torch.float64),
            "probe_epoch_seconds": self.epoch_seconds.quantile(0.5, dim=1),
        }

    def image_scores(self) -> dict[str, Tensor]:
        """Of every held-out image by itself, float64 `[S, M]`: what pairs with those of another construction.

        Returns:
            `probe_image_miou`, over the classes that occur in the image; `probe_image_accuracy`. NaN for an image
            without labelled pixels.
        """
        return {
            "probe_image_miou": _mean_iou(self.correct, self.predicted, self.true),
            "probe_image_accuracy": self.correct.sum(2) / self.true.sum(1).to(torch.float64),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per held-out image: `image`, its place, and its `image_scores` as means over seeds."""
        columns = {name: values.mean(0).tolist() for name, values in self.image_scores().items()}
        return [
            {"image": image, **{name: column[m] for name, column in columns.items()}}
            for m, image in enumerate(self.images)
        ]

    def coverage(self) -> Tensor:
        """Float64 `[M]`: the share of an image's labelled pixels that belong to a node; NaN without any."""
        return self.true.sum(1) / self.labelled.to(torch.float64)

    def floor(self) -> ProbeResult:
        """The scores of no learning at all: every pixel gets the most frequent class of the training images."""
        chosen = nn.functional.one_hot(self.majority, self.true.size(1))  # [M, K]
        return ProbeResult(
            self.images,
            (0,),
            (self.true * chosen)[None],
            (self.true.sum(1, keepdim=True) * chosen)[None],
            self.true,
            self.labelled,
            self.majority,
            torch.full((1, 1), math.nan, dtype=torch.float64),
        )


def probe_splits(names: Sequence[str], folds: int = 5, seed: int = 0) -> list[Split]:
    """Which images to train on, and which to judge.

    Args:
        names: the split of every image; empty strings where there are none.
        folds: of the cross-validation that is done if no images are named "train", or none "val" or "test": images are
            shuffled and dealt out, so that each is judged once. No more than there are images.
        seed: of the shuffling.

    Returns:
        (train, held out), ascending places in `names`: one pair where there are "train" and "val" (without it "test"),
        else one per fold.

    Raises:
        ValueError: for fewer than two images or folds.
    """
    check_positive_int("folds", folds, minimum=2)
    if len(names) < 2:
        raise ValueError(f"got {len(names)} images, expected at least 2: one to train on and one to judge")
    held = next((held for held in ("val", "test") if held in names), None)
    if held is not None and "train" in names:
        train, judged = ([i for i, name in enumerate(names) if name == part] for part in ("train", held))
        return [(train, judged)]
    order = torch.randperm(len(names), generator=_generator(seed, 0, 0)).tolist()
    dealt = [sorted(order[fold::folds]) for fold in range(min(folds, len(names)))]
    return [(sorted({*order} - {*part}), part) for part in dealt]


def probe(
    graphs: Sequence[ImageGraph],
    splits: Sequence[Split],
    *,
    num_classes: int,
    ignore_index: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 200,
    batch_size: int = 4,
    pixels: int | None = 4096,
    hidden: int = 32,
    layers: int = 3,
    lr: float = 0.01,
    edges: bool = True,
) -> ProbeResult:
    """Trains a small network on the graphs of one construction, and judges it on held-out images in pixels.

    The module's docstring says what is the same for every construction.

    Args:
        graphs: one per image, of one construction, with `x`, `pixel_y` and `assignment`. Any sequence, one that reads
            its graphs from disk too; each step asks for the images it draws.
        splits: (train, held out) places in `graphs`, see `probe_splits`. A network is trained for each.
        num_classes: K.
        ignore_index: mask value that counts for no class; None if there is none.
        seeds: of the initial weights and of the order of images and patches; a network is trained for each.
        steps: of Adam, its learning rate falling linearly to 0.
        batch_size: images per step.
        pixels: how many of an image's pixels a step reads, in patches of 16 x 16 at random places (about so many; all
            of an image with no more); None: all.
        hidden: channels.
        layers: of message passing.
        lr: learning rate at first.
        edges: False: no messages, the same network on nodes alone. What message passing gains is the difference.

    Returns:
        Pixel counts and times; its methods give the scores.

    Raises:
        TypeError: for arguments or fields that are not of their kind.
        ValueError: for splits that overlap, are empty or lead outside the graphs; graphs without labels or features, or
            with different numbers of features; labels outside [0, K); NaN; negative edge weights.
    """
    _check_arguments(num_classes, seeds, steps, batch_size, pixels, hidden, layers, lr)
    used = _check_splits(splits, len(graphs))
    options = _Options(num_classes, ignore_index, layers, edges)
    with _one_thread():
        seen = {i: _survey(graphs[i], i, options) for i in used}
        _check_surveys(seen)
        found: dict[int, Tensor] = {}  # [S, 2, K]
        majority = {}
        seconds = torch.zeros(len(seeds), len(splits), dtype=torch.float64)
        for fold, (train, held) in enumerate(splits):
            mean, scale = _standard([seen[i] for i in train])
            majority.update(dict.fromkeys(held, _most_frequent([seen[i] for i in train])))
            networks = []
            for s, seed in enumerate(seeds):
                network = ProbeNetwork(mean, scale, hidden, layers, num_classes, _generator(seed, 1, fold))
                draws = _draws(graphs, train, steps, batch_size, pixels, _generator(seed, 2, fold))
                seconds[s, fold] = _train(network, draws, steps, lr, options) * math.ceil(len(train) / batch_size)
                networks.append(network)
            for i in held:
                found[i] = _judge(networks, graphs[i], options)
    images = sorted(found)
    counts = torch.stack([found[i] for i in images], 1)  # [S, M, 2, K]
    return ProbeResult(
        images=tuple(int(i) for i in images),
        seeds=tuple(seeds),
        correct=counts[:, :, 0],
        predicted=counts[:, :, 1],
        true=torch.stack([seen[i].true for i in images]),
        labelled=torch.tensor([seen[i].labelled for i in images]),
        majority=torch.tensor([majority[i] for i in images]),
        epoch_seconds=seconds,
    )


@dataclass(frozen=True)
class _Options:
    num_classes: int
    ignore_index: int | None
    layers: int
    edges: bool


@dataclass(frozen=True)
class _Survey:
    """What is to be known of an image before training."""

    area: float  # pixels that belong to a node
    total: Tensor  # float64 [F], sum of x over them
    square: Tensor  # float64 [F], sum of x^2
    true: Tensor  # int64 [K]
    labelled: int


def _check_arguments(
    num_classes: int,
    seeds: Sequence[int],
    steps: int,
    batch_size: int,
    pixels: int | None,
    hidden: int,
    layers: int,
    lr: float,
) -> None:
    check_positive_int("num_classes", num_classes, minimum=2)
    sizes = {"steps": steps, "batch_size": batch_size, "hidden": hidden, "layers": layers}
    for name, value in sizes.items() if pixels is None else {**sizes, "pixels": pixels}.items():
        check_positive_int(name, value)
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"got lr={lr}, expected a positive number")
    for seed in seeds:
        check_positive_int("seeds", seed, minimum=0)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"got seeds={tuple(seeds)}, expected at least one, and each once")


def _check_splits(splits: Sequence[Split], count: int) -> list[int]:
    """The images that occur in splits, ascending."""
    if not splits:
        raise ValueError("got no splits, expected at least one pair (train, held out)")
    judged: set[int] = set()
    used: set[int] = set()
    for train, held in splits:
        if not len(train) or not len(held):
            raise ValueError(f"got {len(train)} images to train on and {len(held)} to judge, expected some of both")
        for i in (*train, *held):
            if not is_integer(i) or not 0 <= i < count:
                raise ValueError(f"got image {i} in splits, expected places in {count} graphs")
        if both := {*train} & {*held}:
            raise ValueError(f"got image {min(both)} to train on and to judge, expected one of the two")
        if twice := judged & {*held}:
            raise ValueError(f"got image {min(twice)} to judge in two splits, expected each once")
        if len({*held}) < len(held):
            raise ValueError("got an image to judge twice in one split, expected each once")
        judged |= {*held}
        used |= {*train, *held}
    return sorted(used)


def _check_surveys(seen: dict[int, _Survey]) -> None:
    widths = {i: len(survey.total) for i, survey in seen.items()}
    first = next(iter(widths))
    for i, width in widths.items():
        if width != widths[first]:
            raise ValueError(f"got {width} node features in graph {i}, expected {widths[first]} as in graph {first}")


def _generator(seed: int, stream: int, fold: int) -> torch.Generator:
    """Random numbers of their own for every seed, purpose and fold."""
    state = np.random.SeedSequence((seed, stream, fold)).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _survey(graph: ImageGraph, place: int, options: _Options) -> _Survey:
    """Checks a graph, and counts its labels and features by pixels."""
    name = f"of graph {place}"
    for key in ("x", "edge_index", "assignment", "pixel_y"):
        if graph.get(key) is None:
            raise ValueError(f"got no {key} {name}, expected one{' (labels)' if key == 'pixel_y' else ''}")
        check_tensor(f"{key} {name}", graph[key])
    x, target = graph.x, graph.pixel_y
    if x.dim() != 2 or x.size(1) == 0:
        raise ValueError(f"got shape {list(x.shape)} for x {name}, expected [N, F] with at least one feature")
    if not x.is_floating_point():
        raise TypeError(f"got dtype {x.dtype} for x {name}, expected a floating-point dtype")
    check_finite(f"x {name}", x)
    check_integer(f"pixel_y {name}", target)
    _check_weights(graph, name)
    known = target if options.ignore_index is None else target[target != options.ignore_index]
    K = options.num_classes
    if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < K:
        bad = int(known.min()) if int(known.min()) < 0 else int(known.max())
        raise ValueError(f"got label {bad} in pixel_y {name}, expected 0 to {K - 1}; is it ignore_index?")
    valid = _valid(graph)
    columns = graph.scale_assignment if isinstance(graph, Hierarchy) else graph.assignment[:, None]
    area = torch.bincount(columns[valid].flatten(), minlength=len(x)).to(torch.float64)  # a pixel counts at every level
    wide = x.to(torch.float64)
    counted = target[valid & _labelled(graph, options)].to(torch.int64)
    return _Survey(
        float(area.sum()),
        (area @ wide).cpu(),
        (area @ wide.square()).cpu(),
        torch.bincount(counted, minlength=K).cpu(),
        known.numel(),
    )


def _check_weights(graph: ImageGraph, name: str) -> None:
    weight = graph.get("edge_weight")
    if weight is None:
        return
    if check_tensor(f"edge_weight {name}", weight).shape != (graph.num_edges,):
        raise ValueError(f"got shape {list(weight.shape)} for edge_weight {name}, expected [{graph.num_edges}]")
    check_finite(f"edge_weight {name}", weight)
    if weight.numel() and float(weight.min()) < 0:
        raise ValueError(f"got {float(weight.min()):g} in edge_weight {name}, expected weights of a mean, at least 0")


def _valid(graph: ImageGraph) -> Tensor:
    valid = graph.get("valid")
    return torch.ones_like(graph.assignment, dtype=torch.bool) if valid is None else valid


def _labelled(graph: ImageGraph, options: _Options) -> Tensor:
    target = graph.pixel_y
    return torch.ones_like(target, dtype=torch.bool) if options.ignore_index is None else target != options.ignore_index


def _standard(surveys: Sequence[_Survey]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the features over the pixels of some images; 1 for what does not vary."""
    area = max(sum(survey.area for survey in surveys), 1.0)
    mean = torch.stack([survey.total for survey in surveys]).sum(0) / area
    square = torch.stack([survey.square for survey in surveys]).sum(0) / area
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return mean, deviation.where(deviation > 1e-6 * square.sqrt(), 1.0)


def _most_frequent(surveys: Sequence[_Survey]) -> int:
    total = torch.stack([survey.true for survey in surveys]).sum(0)
    if not bool(total.any()):
        raise ValueError(f"got no labelled pixel in the {len(surveys)} images to train on, expected some")
    return int(total.argmax())


def _draws(
    graphs: Sequence[ImageGraph],
    train: Sequence[int],
    steps: int,
    batch_size: int,
    pixels: int | None,
    generator: torch.Generator,
) -> Iterator[list[tuple[ImageGraph, Tensor | None]]]:
    """Images and pixels of every step; they depend on the sizes of the images and on nothing else of the graphs."""
    left: list[int] = []
    for _ in range(steps):
        if not left:  # the last step of an epoch may have fewer images
            left = torch.randperm(len(train), generator=generator).tolist()
        drawn, left = left[:batch_size], left[batch_size:]
        chosen = [graphs[train[i]] for i in drawn]
        yield [(graph, _patches(graph, pixels, generator)) for graph in chosen]


def _patches(graph: ImageGraph, pixels: int | None, generator: torch.Generator) -> Tensor | None:
    """Pixels of some patches of a lattice that lies anywhere over the image; None for all pixels."""
    H, W = (int(size) for size in graph.image_size[0])
    if pixels is None or pixels >= H * W:
        return None
    dy, dx = torch.randint(_PATCH, (2,), generator=generator).tolist()
    rows, columns = -(-(H + dy) // _PATCH), -(-(W + dx) // _PATCH)
    chosen = torch.zeros(rows * columns, dtype=torch.bool)
    chosen[torch.randperm(rows * columns, generator=generator)[: max(1, pixels // _PATCH**2)]] = True
    spread = chosen.view(rows, columns).repeat_interleave(_PATCH, 0).repeat_interleave(_PATCH, 1)
    return spread[dy : dy + H, dx : dx + W].reshape(-1).nonzero().view(-1).to(graph.assignment.device)


def _part(graph: ImageGraph, pixels: Tensor | None, options: _Options) -> GraphPart:
    """What the network needs of a graph to give these pixels the logits that the whole graph would give them."""
    counted = _valid(graph) & _labelled(graph, options)
    ids = counted.nonzero().view(-1) if pixels is None else pixels[counted[pixels]]
    holder, label = graph.assignment[ids], graph.pixel_y[ids].to(torch.int64)
    source, target, weight = _edges(graph, options)
    needed = torch.zeros(graph.num_nodes, dtype=torch.bool, device=holder.device)
    needed[holder] = True
    kept = source.new_empty(0)
    for _ in range(options.layers):
        kept = needed.index_select(0, target).nonzero().view(-1)  # edges that lead to what is needed
        needed.index_fill_(0, source[kept], True)
    nodes = needed.nonzero().view(-1)
    number = needed.cumsum(0) - 1
    n, K = len(nodes), options.num_classes
    return GraphPart(
        graph.x[nodes],
        number[torch.stack([source[kept], target[kept]])],
        weight[kept],
        torch.bincount(number[holder] * K + label, minlength=n * K).view(n, K),
    )


def _edges(graph: ImageGraph, options: _Options) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target and weight of all edges, those of a hierarchy to parents and children too; sources rise."""
    edge_index = graph.edge_index if options.edges else graph.edge_index[:, :0]
    weight = graph.get("edge_weight")
    weight = torch.ones_like(edge_index[0], dtype=torch.float32) if weight is None else weight[: edge_index.size(1)]
    if isinstance(graph, Hierarchy) and options.edges:
        up = graph.vertical_edges()
        edge_index = torch.cat([edge_index, up, up.flip(0)], 1)
        weight = torch.cat([weight, weight.new_ones(2 * up.size(1))])
    source, target = edge_index
    if bool((source[1:] < source[:-1]).any()):
        order = source.argsort(stable=True)
        return source[order], target[order], weight[order]
    return source, target, weight


def _train(
    network: ProbeNetwork,
    draws: Iterator[list[tuple[ImageGraph, Tensor | None]]],
    steps: int,
    lr: float,
    options: _Options,
) -> float:
    """Trains, and returns the median seconds of a step (without the reading of graphs)."""
    optimizer = torch.optim.Adam(network.parameters(), lr)
    seconds = []
    for step, drawn in enumerate(draws):
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        with torch.enable_grad():
            part = join_parts([_part(graph, pixels, options) for graph, pixels in drawn])
            network.to(part.x.device)
            loss = pixel_loss(network(part, neighbour_mean(part)), part.counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for an accelerator
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


@torch.no_grad()
def _judge(networks: Sequence[ProbeNetwork], graph: ImageGraph, options: _Options) -> Tensor:
    """`[S, 2, K]`: of each class the pixels that a network found, and those that it gave it to."""
    part = _part(graph, None, options)
    mean = neighbour_mean(part)
    K = options.num_classes
    found = torch.zeros(len(networks), 2, K, dtype=torch.int64)
    area = part.counts.sum(1)  # [n]
    for s, network in enumerate(networks if len(area) else ()):
        given = network(part, mean).argmax(1)  # [n]
        hits = part.counts.gather(1, given[:, None]).squeeze(1)
        for row, pixels in enumerate((hits, area)):
            found[s, row] = torch.bincount(given, weights=pixels.to(torch.float64), minlength=K)
    return found


def _mean_iou(correct: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Over the last dimension, the classes, of those that occur; NaN where none does."""
    occurs = true > 0
    iou = correct / (predicted + true - correct).clamp(min=1).to(torch.float64)
    return (iou * occurs).sum(-1) / occurs.sum(-1).to(torch.float64)
