"""ImageGraphDataset in use: parts, loaders, copies, threads, memory, splits, weights, statistics, export."""

from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import Subset
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from graphseg.data import Hierarchy, ImageGraph
from graphseg.datasets import ImageGraphDataset
from graphseg.datasets.reader import ImageReader, Sample
from graphseg.transforms import ToHierarchy, ToPixelGrid, ToSuperpixelRAG
from tests.datasets.small_trees import (
    HEIGHT,
    IGNORE,
    NUM_CLASSES,
    WIDTH,
    contents,
    fields,
    read_tree,
    write_image,
    write_pair,
    write_tree,
)

COUNT = 10
SIZES = {3: (40, 70), 7: (61, 33)}  # of images that are not like the others


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = write_tree(tmp_path_factory.mktemp("tree"), COUNT)
    for k, size in SIZES.items():
        write_pair(root, f"{k:03d}", k, *size)
    return root


@pytest.fixture(scope="module")
def transform():
    return ToSuperpixelRAG(20, num_classes=NUM_CLASSES, ignore_index=IGNORE)


@pytest.fixture(scope="module")
def root(tree, transform):
    ImageGraphDataset.build(read_tree(tree, class_names=("dark", "middle", "bright")), tree / "graphs", transform)
    return tree / "graphs"


@pytest.fixture
def dataset(root):
    return ImageGraphDataset(root)


class WithSplits(ImageReader):
    """A tree's images, the first six for training, three for validation, one in no split."""

    def __init__(self, tree):
        self._inner = read_tree(tree)
        splits = ["train"] * 6 + ["val"] * 3 + [""]
        samples = [Sample(s.source, s.files, split) for s, split in zip(self._inner.samples, splits, strict=True)]
        super().__init__(samples, num_classes=NUM_CLASSES, ignore_index=IGNORE)

    def read(self, sample):
        return self._inner.read(sample)


@pytest.fixture(scope="module")
def with_splits(tree, transform):
    return ImageGraphDataset.build(WithSplits(tree), tree / "with splits", transform)


def same(a, b):
    return fields(a) == fields(b)


# Parts


def test_length_and_order(dataset):
    assert len(dataset) == COUNT == dataset.len() and dataset.sources == [f"{k:03d}" for k in range(COUNT)]
    assert [graph.source for graph in dataset] == dataset.sources
    assert isinstance(dataset[0], ImageGraph) and dataset[0].validate()
    assert repr(dataset).endswith("graphs', 10 graphs)") and repr(dataset[:3]).endswith("3 graphs)")


@pytest.mark.parametrize(
    "part, ids",
    [
        (slice(2, 5), [2, 3, 4]),
        (slice(None, None, 3), [0, 3, 6, 9]),
        (slice(None, None, -1), [*range(9, -1, -1)]),
        (slice(-2, None), [8, 9]),
        (slice(0.5, None), [5, 6, 7, 8, 9]),
        ([7, 0, 7], [7, 0, 7]),
        ((1, 2), [1, 2]),
        (range(1, 8, 3), [1, 4, 7]),
        (torch.tensor([3, 1]), [3, 1]),
        (torch.arange(COUNT) % 2 == 0, [0, 2, 4, 6, 8]),
        (np.array([9, -1, 0]), [9, 9, 0]),
        (np.arange(COUNT) == 4, [4]),
        ([], []),
    ],
    ids=str,
)
def test_parts_are_the_graphs_they_name(dataset, part, ids):
    found = dataset[part]
    assert isinstance(found, ImageGraphDataset) and len(found) == len(ids)
    assert [graph.source for graph in found] == [f"{i:03d}" for i in ids]
    for n, i in enumerate(ids):
        assert same(found[n], dataset[i])
    loaded = [batch.source[0] for batch in DataLoader(found, batch_size=1)]
    assert loaded == [f"{i:03d}" for i in ids]


def test_parts_of_parts(dataset):
    part = dataset[2:][::2][[1, 0, 3]]
    assert [graph.source for graph in part] == ["004", "002", "008"]
    assert part[-1].source == "008" and len(part[:0]) == 0
    assert len(dataset) == COUNT  # the whole is as it was


def test_indices_outside(dataset):
    for index in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            dataset[index]
    with pytest.raises(IndexError):
        dataset[:3][3]


def test_shuffle_is_a_permutation(dataset):
    shuffled, permutation = dataset.shuffle(return_perm=True)
    assert [graph.source for graph in shuffled] == [f"{i:03d}" for i in permutation.tolist()]


# Loaders


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_read_the_part_they_are_given(dataset, workers):
    """PyG's own OnDiskDataset reads the first graphs of the whole here."""
    part = dataset[[8, 3, 7, 1]]
    options = {"multiprocessing_context": "fork"} if workers else {}
    loader = DataLoader(part, batch_size=3, num_workers=workers, **options)
    batches = list(loader)
    assert [source for batch in batches for source in batch.source] == ["008", "003", "007", "001"]
    found = [graph for batch in batches for graph in batch.to_data_list()]
    for graph, i in zip(found, (8, 3, 7, 1), strict=True):
        expected = dataset[i]
        for key, value in expected:
            if isinstance(value, torch.Tensor):
                assert torch.equal(graph[key], value), key
        assert graph.image_size.tolist() == [list(SIZES.get(i, (HEIGHT, WIDTH)))]
    for batch in batches:
        assert batch.validate()
        maps = batch.project(batch.y)
        assert [list(map_.shape) for map_ in maps] == batch.image_size.tolist()


def test_loaders_of_subsets_and_samplers(dataset):
    part = dataset[5:]
    subset = Subset(part, [4, 0])
    assert [s for batch in DataLoader(subset, batch_size=2) for s in batch.source] == ["009", "005"]
    shuffled = DataLoader(part, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(1))
    assert sorted(s for batch in shuffled for s in batch.source) == part_names(part)


def part_names(part):
    return [graph.source for graph in part]


def test_transforms_are_applied_once_to_each_graph(root):
    calls = []

    def note(graph):
        calls.append(graph.source)
        graph.x = graph.x[:, :3]
        return graph

    dataset = ImageGraphDataset(root, note)
    assert dataset[4].x.size(1) == 3 and calls == ["004"]
    calls.clear()
    batch = next(iter(DataLoader(dataset[6:], batch_size=4)))
    assert batch.x.size(1) == 3 and calls == ["006", "007", "008", "009"]
    calls.clear()
    assert [g.x.size(1) for g in dataset.multi_get(slice(0, 4, 2))] == [3, 3] and calls == ["000", "002"]


# Copies, processes, threads


def test_copies_and_pickles(dataset):
    expected = contents(dataset)
    for other in (copy.copy(dataset), copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert contents(other) == expected
    part = pickle.loads(pickle.dumps(dataset[3:5]))
    assert part_names(part) == ["003", "004"]
    assert len(pickle.dumps(dataset)) < 10_000  # it holds no graphs


def read_in_child(dataset, connection):
    connection.send({source: len(values) for source, values in contents(dataset).items()})
    connection.close()


def test_forked_processes_open_the_file_themselves(dataset):
    expected = {source: len(values) for source, values in contents(dataset).items()}  # it is open here
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(3)]
    processes = [context.Process(target=read_in_child, args=(dataset, write)) for _, write in ends]
    for process in processes:
        process.start()
    for process, (read, _) in zip(processes, ends, strict=True):
        assert read.poll(60) and read.recv() == expected
        process.join()
        assert process.exitcode == 0
    assert contents(dataset).keys() == expected.keys()  # the parent's connection still works


def test_threads_have_connections_of_their_own(dataset):
    expected, problems = contents(dataset), []

    def read(seed):
        try:
            for i in np.random.default_rng(seed).permutation(COUNT).tolist() * 3:
                assert fields(dataset[i]) == expected[f"{i:03d}"]
            dataset.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [] and contents(dataset) == expected


def test_closed_datasets_open_again(dataset):
    first = fields(dataset[0])
    dataset.close()
    dataset.close()
    assert fields(dataset[0]) == first


def test_reading_leaves_no_trace(root):
    before = {path.name: path.stat().st_mtime_ns for path in root.iterdir()}
    contents(ImageGraphDataset(root))
    assert {path.name: path.stat().st_mtime_ns for path in root.iterdir()} == before


# In memory


def test_in_memory_is_the_same(root, dataset):
    kept = ImageGraphDataset(root, in_memory=True)
    expected = contents(dataset)
    for _ in range(2):
        assert contents(kept) == expected
    kept.close()
    os.rename(root / "graphs.sqlite", root / "away")
    try:
        assert contents(kept) == expected  # no file is needed any more
    finally:
        os.rename(root / "away", root / "graphs.sqlite")
    part = kept[[5, 2]]
    assert [g.source for batch in DataLoader(part, batch_size=2) for g in batch.to_data_list()] == ["005", "002"]


@pytest.mark.parametrize("in_memory", [False, True])
def test_transforms_may_write_into_their_input(root, dataset, in_memory):
    def spoil(graph):
        graph.x.mul_(0)
        graph.y = graph.y + 1
        del graph.pos
        graph.edge_index[0] = 0
        return graph

    spoiled = ImageGraphDataset(root, spoil, in_memory=in_memory)
    plain = contents(dataset)
    for _ in range(3):
        graph = spoiled[2]
        assert "pos" not in graph and float(graph.x.abs().sum()) == 0 and torch.equal(graph.y, dataset[2].y + 1)
    spoiled.transform = None
    assert fields(spoiled[2]) == plain["002"]


# Splits


def test_splits(with_splits):
    assert with_splits.splits == ["train", "val"]
    train, val = with_splits.split("train"), with_splits.split("val")
    assert part_names(train) == [f"{k:03d}" for k in range(6)] and part_names(val) == ["006", "007", "008"]
    assert part_names(train[1:].split("train")) == [f"{k:03d}" for k in range(1, 6)] and val.splits == ["val"]
    assert [s for batch in DataLoader(val, batch_size=2) for s in batch.source] == ["006", "007", "008"]
    with pytest.raises(ValueError, match="got split 'test', expected one of train, val"):
        with_splits.split("test")
    with pytest.raises(ValueError, match="got split 'train', expected one of val"):
        val.split("train")


def test_no_splits(dataset):
    assert dataset.splits == []
    with pytest.raises(ValueError, match="got split 'train', expected none at all"):
        dataset.split("train")


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.5, 0.3, 0.2), (1.0,), (0.33, 0.33, 0.34), (0.01, 0.99)])
def test_random_splits_are_partitions(dataset, shares):
    part = dataset[1:]
    found = part.random_split(*shares, seed=3)
    names = [part_names(p) for p in found]
    assert len(found) == len(shares) and sorted(itertools.chain(*names)) == part_names(part)
    for listed, share in zip(names, shares, strict=True):
        assert abs(len(listed) - share * len(part)) <= 1 and listed == sorted(listed)
    assert [part_names(p) for p in part.random_split(*shares, seed=3)] == names
    if len(shares) == 3:
        assert any([part_names(p) for p in part.random_split(*shares, seed=s)] != names for s in range(4, 8))


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.6), (1.5, -0.5), (0.0, 1.0), (float("nan"), 1.0)])
def test_shares_that_do_not_add_up(dataset, shares):
    with pytest.raises(ValueError, match="expected positive numbers that add up to 1"):
        dataset.random_split(*shares)


# Classes and statistics


def loop_counts(part):
    """Labelled pixels of every class, image by image, counted from the masks themselves."""
    rows = []
    for graph in part:
        labels = graph.pixel_y[graph.pixel_y != IGNORE]
        rows.append([int((labels == k).sum()) for k in range(NUM_CLASSES)])
    return rows


@pytest.mark.parametrize("ids", [range(COUNT), [2, 5], [0]])
def test_inverse_weights(dataset, ids):
    part = dataset[list(ids)]
    total = [sum(column) for column in zip(*loop_counts(part), strict=True)]
    occurring = [n for n in total if n]
    expected = [sum(total) / (len(occurring) * n) if n else 0.0 for n in total]
    torch.testing.assert_close(part.class_weights(), torch.tensor(expected))
    weighted = [w * n for w, n in zip(part.class_weights().tolist(), total, strict=True) if n]
    np.testing.assert_allclose(weighted, sum(total) / len(occurring), rtol=1e-5)  # classes count alike


def test_median_frequency_weights(dataset):
    rows = loop_counts(dataset)
    frequency = []
    for k in range(NUM_CLASSES):
        seen = [row for row in rows if row[k]]
        frequency.append(sum(row[k] for row in seen) / sum(sum(row) for row in seen))
    expected = [float(np.median(frequency)) / f for f in frequency]
    torch.testing.assert_close(dataset.class_weights("median_frequency"), torch.tensor(expected))


def test_weights_of_classes_that_are_not_there(tree, tmp_path):
    reader = read_tree(tree, num_classes=NUM_CLASSES + 2)
    transform = ToSuperpixelRAG(20, num_classes=NUM_CLASSES + 2, ignore_index=IGNORE)
    dataset = ImageGraphDataset.build(reader[:3], tmp_path / "out", transform)
    for method in ("inverse", "median_frequency"):
        weights = dataset.class_weights(method)
        assert weights.shape == (5,) and (weights[:3] > 0).all() and weights[3:].tolist() == [0, 0]
        assert weights.isfinite().all()
    with pytest.raises(ValueError, match="method"):
        dataset.class_weights("fair")


def test_num_classes_and_names(dataset):
    assert dataset.num_classes == NUM_CLASSES == dataset[2:4].num_classes
    assert dataset.class_names == ["dark", "middle", "bright"]


def test_without_labels(tree, tmp_path):
    from graphseg.datasets import ImageFolder

    dataset = ImageGraphDataset.build(ImageFolder(tree / "images"), tmp_path / "out", ToSuperpixelRAG(20))
    assert dataset.num_classes == 0 and len(dataset) == COUNT
    stats = dataset.stats()
    assert np.isnan(stats.purity) and np.isnan(stats.oracle["mean_iou"]) and stats.classes == []
    assert stats.to_dict()["purity"] is None and json.dumps(stats.to_dict(), allow_nan=False)
    with pytest.raises(ValueError, match="got graphs without labels, expected label_counts in each"):
        dataset.class_weights()


@pytest.mark.parametrize("ids", [range(COUNT), [7, 1, 3]])
def test_statistics_are_sums_over_graphs(dataset, ids):
    part = dataset[list(ids)]
    stats, graphs = part.stats(), list(part)
    assert stats.graphs == len(graphs)
    for name in ("nodes", "edges", "pixels"):
        values = [getattr(graph, f"num_{name}") for graph in graphs]
        spread = getattr(stats, name)
        assert (spread.low, spread.high, spread.total) == (min(values), max(values), sum(values))
        assert spread.mean == pytest.approx(sum(values) / len(values))
    batch = Batch.from_data_list(graphs)
    for key, value in batch.oracle().items():
        assert stats.oracle[key] == pytest.approx(value)
    counts = batch.label_counts
    labelled = counts.sum(1) > 0
    purity = (counts.max(1).values[labelled] / counts.sum(1)[labelled]).double().mean()
    assert stats.purity == pytest.approx(float(purity))
    assert [c["name"] for c in stats.classes] == ["dark", "middle", "bright"]
    assert [c["pixels"] for c in stats.classes] == counts.sum(0).tolist()
    assert [c["nodes"] for c in stats.classes] == [int((batch.y[labelled] == k).sum()) for k in range(NUM_CLASSES)]
    assert set(stats.seconds) == {"read", "convert", "pack"} and all(s.low > 0 for s in stats.seconds.values())
    assert 0 < stats.bytes.total < (part.root and os.path.getsize(os.path.join(part.root, "graphs.sqlite")))
    assert json.loads(json.dumps(stats.to_dict(), allow_nan=False))["graphs"] == len(graphs)


@pytest.mark.parametrize(
    "transform",
    [
        ToPixelGrid(num_classes=NUM_CLASSES, ignore_index=IGNORE),
        ToHierarchy(num_segments=(5, 20), num_classes=NUM_CLASSES, ignore_index=IGNORE),
    ],
    ids=["grid", "hierarchy"],
)
def test_statistics_of_pixels_and_hierarchies(tree, tmp_path, transform):
    dataset = ImageGraphDataset.build(read_tree(tree)[:3], tmp_path / "out", transform)
    stats = dataset.stats()
    total = [sum(column) for column in zip(*loop_counts(dataset), strict=True)]
    assert [c["pixels"] for c in stats.classes] == total  # each pixel once, whatever the levels
    expected = Batch.from_data_list(list(dataset)).oracle() if not isinstance(dataset[0], Hierarchy) else None
    if expected is None:
        finest = [graph.level_graph(1) for graph in dataset]
        expected = Batch.from_data_list(finest).oracle()
    assert stats.oracle == pytest.approx(expected)
    torch.testing.assert_close(
        dataset.class_weights(), torch.tensor([sum(total) / (3 * n) for n in total], dtype=torch.float32)
    )


def test_files_of_a_graph(dataset, tree):
    part = dataset[[6, 2]]
    assert part.files(0) == {"image": str(tree / "images" / "006.png"), "mask": str(tree / "masks" / "006.png")}
    assert part.files(1)["image"].endswith("002.png") and part.window(1) is None
    assert part.files(-1) == part.files(1)


def test_windows_of_a_graph(tree, tmp_path, transform):
    whole = read_tree(tree)

    class Tiles(ImageReader):
        def read(self, sample):
            data = whole.read(sample)
            y, x, h, w = sample.window
            data.image, data.mask = data.image[:, y : y + h, x : x + w], data.mask[y : y + h, x : x + w]
            return data

    tiles = [Sample(f"tile {i}", whole.samples[0].files, "", (0, 16 * i, 48, 24)) for i in range(3)]
    dataset = ImageGraphDataset.build(Tiles(tiles), tmp_path / "out", transform)
    assert dataset.sources == ["tile 0", "tile 1", "tile 2"]
    assert [dataset.window(i) for i in range(3)] == [(0, 0, 48, 24), (0, 16, 48, 24), (0, 32, 48, 24)]
    assert dataset[::2].window(1) == (0, 32, 48, 24)
    assert len({graph.x.numpy().tobytes() for graph in dataset}) == 3  # one file, three contents


def test_fields_of_ones_own_come_back(tree, tmp_path):
    from tests.datasets.small_trees import Noted

    class Odd(Noted):
        def forward(self, data):
            graph = super().forward(data)
            graph.remark, graph.count, graph.score = "ä\n\0", int(graph.num_nodes) * 2**40, float("nan")
            graph.scalar, graph.nothing = torch.tensor(7), torch.zeros(0, 3)
            graph.flag = torch.tensor([True, False])
            return graph

    dataset = ImageGraphDataset.build(read_tree(tree), tmp_path / "out", Odd())
    assert dataset.errors == []
    graph = dataset[1]
    assert graph.remark == "ä\n\0" and graph.count == graph.num_nodes * 2**40 and np.isnan(graph.score)
    assert graph.scalar.shape == () and int(graph.scalar) == 7 and graph.flag.tolist() == [True, False]


# On the fly


def test_graphs_made_on_the_fly_are_the_built_ones(tree, dataset, transform):
    reader = read_tree(tree, transform=transform)
    found = [graph for batch in DataLoader(reader, batch_size=4) for graph in batch.to_data_list()]
    for graph, built in zip(found, dataset, strict=True):
        for key in ("x", "edge_index", "assignment", "y", "label_counts"):
            assert torch.equal(graph[key], built[key])


# Export

PLAIN = """
import json, sys
sys.modules["graphseg"] = None  # importing it fails
import torch
from pathlib import Path
from torch_geometric.data import Batch, Data


def read(folder):
    listed = json.loads((folder / "graphs.json").read_text("utf-8"))["graphs"]
    graphs = [Data.from_dict(torch.load(folder / one["file"], weights_only=True)) for one in listed]
    batch = Batch.from_data_list(graphs)
    start, P = 0, 0
    for one, graph in zip(listed, graphs):
        assert graph.source == one["source"] and graph.validate()
        n = graph.assignment_index.numel()
        assert torch.equal(batch.assignment_index[P : P + n], graph.assignment_index + start)
        if "parent_index" in graph:
            assert torch.equal(batch.parent_index[start : start + graph.num_nodes], graph.parent_index + start)
            assert torch.equal(batch.scale_assignment_index[:, P : P + n], graph.scale_assignment_index + start)
        start, P = start + graph.num_nodes, P + n
    assert batch.num_nodes == start and batch.y[batch.assignment_index].shape == batch.pixel_y.shape
    return len(graphs), start, P, float(batch.x.double().sum())


print(json.dumps([read(Path(folder)) for folder in sys.argv[1:]]))
"""


def test_exports_are_read_by_plain_pyg(with_splits, tree, tmp_path):
    hierarchies = ImageGraphDataset.build(
        read_tree(tree),
        tmp_path / "hierarchies",
        ToHierarchy(num_segments=(5, 20), num_classes=NUM_CLASSES, ignore_index=IGNORE),
    )
    parts = [with_splits[[3, 0, 7]], hierarchies[[3, 0, 7]]]
    folders = [part.export(tmp_path / "exported" / name) for part, name in zip(parts, ("a", "b"), strict=True)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, *folders], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    for part, folder, found in zip(parts, folders, json.loads(done.stdout), strict=True):
        assert sorted(path.name for path in folder.iterdir()) == [*(f"00000{i}.pt" for i in range(3)), "graphs.json"]
        graphs = list(part)
        assert found[:3] == [3, sum(g.num_nodes for g in graphs), sum(g.num_pixels for g in graphs)]
        assert found[3] == pytest.approx(sum(float(g.x.double().sum()) for g in graphs))
    listed = json.loads((folders[0] / "graphs.json").read_text())
    assert [one["split"] for one in listed["graphs"]] == ["train", "train", "val"]


def test_exports_hold_the_same_fields(dataset, tmp_path):
    folder = dataset.export(tmp_path / "out")
    for i in range(COUNT):
        plain = Data.from_dict(torch.load(folder / f"{i:06d}.pt", weights_only=True))
        expected = fields(dataset[i])
        expected["assignment_index"] = expected.pop("assignment")
        assert fields(plain) == expected


def test_exports_are_whole_or_not_there(dataset, tmp_path, monkeypatch):
    calls = []
    save = torch.save

    def fail_at_fourth(*args, **options):
        calls.append(1)
        if len(calls) == 4:
            raise OSError("no room")
        save(*args, **options)

    monkeypatch.setattr(torch, "save", fail_at_fourth)
    with pytest.raises(OSError, match="no room"):
        dataset.export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "out").mkdir()  # an empty folder will do
    assert len(list(dataset.export(str(tmp_path / "out")).iterdir())) == COUNT + 1


def test_exports_overwrite_nothing(dataset, tmp_path):
    write_image(tmp_path / "out" / "mine.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "file").write_text("mine")
    for name in ("out", "file"):
        with pytest.raises(FileExistsError, match="expected a folder that is empty or not there"):
            dataset.export(tmp_path / name)
    assert (tmp_path / "out" / "mine.png").exists() and (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_transforms_are_not_exported(root, dataset, tmp_path):
    """What is built is exported, as the file holds it."""
    folder = ImageGraphDataset(root, lambda graph: None)[:1].export(tmp_path / "out")
    assert torch.equal(torch.load(folder / "000000.pt", weights_only=True)["x"], dataset[0].x)
