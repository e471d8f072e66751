"""Builds: what is done again and what is not, killed at any moment, several at once, and files that give no graph."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import psutil
import pytest
import torch
from torch_geometric.transforms import Compose

from graphseg.datasets import BadFile, ImageGraphDataset
from graphseg.datasets.store import FILE, StoreError
from graphseg.transforms import RandomImageFlip, ToHierarchy, ToPixelGrid, ToSuperpixelRAG
from tests.conftest import ROOT
from tests.datasets.small_trees import (
    DAMAGE,
    Noted,
    classes,
    contents,
    numbers,
    photo,
    read_tree,
    write_damaged,
    write_image,
    write_pair,
    write_tree,
)

COUNT = 6


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", COUNT)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def build(tree, out, transform, workers=1, **options):
    """The dataset of a tree, built."""
    return ImageGraphDataset.build(read_tree(tree, **options), out, transform, workers=workers)


def undisturbed(tree, folder, transform):
    """What a build from nothing gives."""
    return contents(build(tree, folder / f"undisturbed {time.monotonic_ns()}", transform))


def error_lines(out):
    """File name to reason, from `errors.jsonl`, whose form is checked."""
    path = out / "errors.jsonl"
    if not path.exists():
        return {}
    text = path.read_text("utf-8")
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(set(line) == {"file", "reason"} for line in lines)
    assert all(isinstance(value, str) and value for line in lines for value in line.values())
    found = {line["file"]: line["reason"] for line in lines}
    assert len(found) == len(lines)
    return found


# What is done again


def test_graphs_are_those_of_the_transform(tree, tmp_path):
    for transform in (
        ToSuperpixelRAG(20, num_classes=3, ignore_index=255),
        ToPixelGrid(num_classes=3, ignore_index=255),
        ToHierarchy(num_segments=(5, 20), num_classes=3, ignore_index=255),
    ):
        reader = read_tree(tree)
        dataset = ImageGraphDataset.build(reader, tmp_path / type(transform).__name__, transform)
        assert dataset.sources == [s.source for s in reader.samples] and dataset.complete
        for data, graph in zip(reader, dataset, strict=True):
            expected = transform(data)
            assert type(graph) is type(expected) and set(graph.keys()) == set(expected.keys())
            for key, value in expected:
                same = torch.equal(value, graph[key]) if isinstance(value, torch.Tensor) else value == graph[key]
                assert same, key
            graph.validate()


def test_nothing_is_built_twice(tree, tmp_path, log):
    first = contents(build(tree, tmp_path / "out", Noted(log)))
    assert numbers(log) == list(range(COUNT))
    assert contents(build(tree, tmp_path / "out", Noted(log))) == first and numbers(log) == []


def test_what_has_changed_is_built_again(tree, tmp_path, log):
    out = tmp_path / "out"
    build(tree, out, Noted(log))
    numbers(log)
    write_image(tree / "masks" / "002.png", classes(photo(2)) * 0)
    write_image(tree / "images" / "004.png", photo(700))
    found = build(tree, out, Noted(log))
    assert numbers(log) == [2, 700]
    assert contents(found) == undisturbed(tree, tmp_path, Noted())
    assert found[2].y.unique().tolist() == [0]


def test_files_of_the_same_size_and_time_are_told_apart(tree, tmp_path, log):
    """As copying with `-p` leaves them."""
    mask = tree / "masks" / "001.png"
    mask.unlink()  # an uncompressed one, the same size whatever it holds
    flat = torch.zeros(48, 64, dtype=torch.uint8).numpy()
    write_image(tree / "masks" / "001.bmp", flat)
    before = os.stat(tree / "masks" / "001.bmp")
    build(tree, tmp_path / "out", Noted(log))
    numbers(log)
    write_image(tree / "masks" / "001.bmp", flat + 1)
    os.utime(tree / "masks" / "001.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(tree / "masks" / "001.bmp").st_size == before.st_size
    assert build(tree, tmp_path / "out", Noted(log))[1].y.unique().tolist() == [1] and numbers(log) == [1]


def test_renamed_and_removed_images(tree, tmp_path, log):
    out = tmp_path / "out"
    before = contents(build(tree, out, Noted(log)))
    numbers(log)
    for folder in ("images", "masks"):
        (tree / folder / "000.png").rename(tree / folder / "zebra.png")
        (tree / folder / "003.png").unlink()
    found = build(tree, out, Noted(log))
    assert numbers(log) == [] and found.sources == ["001", "002", "004", "005", "zebra"]
    assert contents(found)["zebra"] == before["000"] | {"source": "zebra"}
    assert found.files(4)["image"].endswith("zebra.png")
    write_pair(tree, "003", 3)  # it comes back
    assert contents(build(tree, out, Noted(log)))["003"] == before["003"] and numbers(log) == [3]


def test_a_moved_folder_is_the_same(tree, tmp_path, log):
    build(tree, tmp_path / "out", Noted(log))
    numbers(log)
    moved = shutil.copytree(tree, tmp_path / "moved")
    found = build(moved, tmp_path / "out", Noted(log))
    assert numbers(log) == [] and found.files(0)["image"] == str(moved / "images" / "000.png")


def test_two_images_with_the_same_content(tree, tmp_path, log):
    write_pair(tree, "twin", 2)
    found = build(tree, tmp_path / "out", Noted())
    everything = contents(found)
    assert len(found) == COUNT + 1 and everything["twin"] == everything["002"] | {"source": "twin"}
    for folder in ("images", "masks"):
        (tree / folder / "002.png").unlink()
    found = build(tree, tmp_path / "out", Noted(log))
    assert contents(found) == {k: v for k, v in everything.items() if k != "002"} and numbers(log) == []


@pytest.mark.parametrize("other", [{"num_segments": 12}, {"compactness": 40.0}, {"node_features": ("mean",)}])
def test_a_changed_parameter_and_back(tree, tmp_path, log, other):
    out = tmp_path / "out"
    first = contents(build(tree, out, Noted(log)))
    second = contents(build(tree, out, Noted(log, **other)))
    assert numbers(log) == sorted([*range(COUNT)] * 2) and first != second
    assert second == undisturbed(tree, tmp_path, Noted(**other))
    assert contents(build(tree, out, Noted())) == first


def test_a_changed_option_of_the_reader(tree, tmp_path, log):
    build(tree, tmp_path / "out", Noted(log))
    numbers(log)
    grey = build(tree, tmp_path / "out", Noted(log), channels=1)
    assert len(numbers(log)) == COUNT and grey[0].x.size(1) < 9
    build(tree, tmp_path / "out", Noted(log), channels=1, class_names=("a", "b", "c"))  # names change no graph
    assert numbers(log) == [] and ImageGraphDataset(tmp_path / "out").class_names == ["a", "b", "c"]


def test_all_images_may_become_others(tree, tmp_path):
    """Fields follow the images that are there, not those that were."""
    build(tree, tmp_path / "out", Noted())
    for k in range(COUNT):
        write_image(tree / "images" / f"{k:03d}.png", photo(k)[:, :, 0])
    grey = ToSuperpixelRAG(20, num_classes=3, ignore_index=255)
    found = build(tree, tmp_path / "out", grey)
    assert len(found) == COUNT and found.errors == []
    for k in range(COUNT):
        write_image(tree / "images" / f"{k:03d}.png", photo(k))
    found = build(tree, tmp_path / "out", grey)
    assert contents(found) == undisturbed(tree, tmp_path, grey)


def test_parts_of_a_reader(tree, tmp_path, log):
    reader = read_tree(tree)
    part = ImageGraphDataset.build(reader[[4, 1]], tmp_path / "out", Noted(log))
    assert part.sources == ["004", "001"] and numbers(log) == [1, 4]
    whole = ImageGraphDataset.build(reader, tmp_path / "out", Noted(log))
    assert len(whole) == COUNT and numbers(log) == [0, 2, 3, 5]


def test_names_that_are_no_text(tree, tmp_path):
    for folder in ("images", "masks"):
        os.rename(tree / folder / "001.png", bytes(tree / folder) + b"/caf\xe9.png")
    found = build(tree, tmp_path / "out", Noted())
    assert found.sources[-1] == r"caf\udce9" and found[5].source == r"caf\udce9"
    assert os.path.exists(found.files(5)["image"])


# Interrupted


@pytest.mark.parametrize("at", [0, 1, 3, COUNT - 1])
def test_interrupted_and_started_again(tree, tmp_path, log, at):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(tree, out, Noted(trouble={at: "interrupt"}))
    with pytest.warns(UserWarning, match=f"has not ended: {at} of {COUNT} graphs are there; start it again"):
        half = ImageGraphDataset(out)
    assert half.sources == [f"{k:03d}" for k in range(at)] and not half.complete
    whole = undisturbed(tree, tmp_path, Noted())
    assert contents(half) == {k: whole[k] for k in half.sources}
    found = build(tree, out, Noted(log))
    assert numbers(log) == list(range(at, COUNT)) and contents(found) == whole and found.complete


def children_of(pid):
    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_until_gone(pids, seconds=60.0):
    end = time.monotonic() + seconds
    while left := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        assert time.monotonic() < end, f"processes {left} are left behind"
        time.sleep(0.1)


def start_build(tree, out, workers):
    words = [sys.executable, "-m", "graphseg", "build", tree / "images", out, "--labels", tree / "masks"]
    words += ["--num-classes", 3, "--ignore-index", 255, "--num-segments", 20, "--workers", workers, "--quiet"]
    return subprocess.Popen(
        [str(word) for word in words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_killed_at_any_moment(tmp_path):
    """Three times over the same folder (benchmarks/kill_and_resume.py: more); in the end, the graphs as in one go."""
    tree, out = write_tree(tmp_path / "tree", 60), tmp_path / "out"
    transform = ToSuperpixelRAG(20, num_classes=3, ignore_index=255)
    whole = undisturbed(tree, tmp_path, transform)
    generator = random.Random(0)
    for trial in range(3):
        shutil.rmtree(out, ignore_errors=trial == 0)
        running = start_build(tree, out, 1 + trial % 2)
        while not (out / FILE).exists() and running.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 1.2))
        started = children_of(running.pid)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        wait_until_gone(started)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not ended, or ended before
            try:
                half = contents(ImageGraphDataset(out))
            except (FileNotFoundError, ValueError):  # killed before the first transaction
                half = {}
        assert half == {k: whole[k] for k in half}
    found = build(tree, out, transform)
    assert contents(found) == whole and found.complete
    left = {path.name for path in out.iterdir()} - {"build.lock"}
    assert left == {FILE}  # no journal, no parts of files


# Several at once


def test_two_processes_one_folder(tmp_path):
    tree, out = write_tree(tmp_path / "tree", 30), tmp_path / "out"
    both = [start_build(tree, out, 1) for _ in range(2)]
    for running in both:
        said, _ = running.communicate(timeout=200)
        assert running.returncode == 0, said
        assert f"30 graphs in {out}" in said
    transform = ToSuperpixelRAG(20, num_classes=3, ignore_index=255)
    assert contents(ImageGraphDataset(out)) == undisturbed(tree, tmp_path, transform)
    connection = sqlite3.connect(out / FILE)
    assert connection.execute("SELECT count(*), max(graph) FROM built").fetchone() == (30, 29)  # every graph once
    connection.close()


def test_two_threads_one_folder_two_recipes(tree, tmp_path):
    """The one that comes second stands at the end; whoever reads meanwhile has graphs of one recipe, or none."""
    out, stop = tmp_path / "out", threading.Event()
    transforms = [ToSuperpixelRAG(n, num_classes=3, ignore_index=255) for n in (12, 20)]
    known = [undisturbed(tree, tmp_path, transform) for transform in transforms]
    problems: list[object] = []
    seen = [0, 0]

    def build_all(transform):
        for _ in range(4):
            build(tree, out, transform)

    def read():
        while not stop.is_set():
            try:
                dataset = ImageGraphDataset(out)
                recipe = dataset.about["pipeline"]["transforms"][0]["num_segments"]
                which = (12, 20).index(recipe)
                for source, graph in contents(dataset).items():
                    seen[which] += 1
                    if graph != known[which][source]:
                        problems.append((recipe, source))
                dataset.close()
            except (LookupError, FileNotFoundError):
                pass
            except Exception as error:
                problems.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = threading.Thread(target=read)
        builders = [threading.Thread(target=build_all, args=(transform,)) for transform in transforms]
        for thread in (reader, *builders):
            thread.start()
        for thread in builders:
            thread.join()
        stop.set()
        reader.join()
    assert problems == [] and sum(seen) > 0
    assert contents(build(tree, out, transforms[0])) == known[0]


def test_a_dataset_that_was_opened_before(tree, tmp_path):
    out = tmp_path / "out"
    before = build(tree, out, Noted())
    unread, known = ImageGraphDataset(out), contents(before)
    write_image(tree / "masks" / "002.png", classes(photo(2)) * 0)
    build(tree, out, Noted())  # the same recipe: five graphs are still there
    for dataset in (before, unread):
        for i in range(COUNT):
            try:
                assert dict(contents_of(dataset[i])) == known[f"{i:03d}"]
            except LookupError as error:
                assert i == 2 and "built anew since it was opened" in str(error)
    build(tree, out, Noted(num_segments=9))
    for dataset in (before, unread, ImageGraphDataset(out)[:2] and before[1:3]):
        with pytest.raises(LookupError, match="open it again"):
            dataset[0]
        with pytest.raises(LookupError, match="open it again"):
            dataset.stats()


def contents_of(graph):
    from tests.datasets.small_trees import fields

    return fields(graph)


# Files that no graph is made of


@pytest.mark.parametrize(
    "trouble, reason",
    [
        ("raise", "RuntimeError: no luck today"),
        ("other", "got Data from the transform, expected an ImageGraph"),
        ("broken", "edge_index"),
        ("odd", "got extra of int, expected no extra"),
    ],
)
def test_a_construction_that_fails_for_one_image(tree, tmp_path, trouble, reason):
    out = tmp_path / "out"
    found = build(tree, out, Noted(trouble={3: trouble}))
    lines = error_lines(out)
    assert list(lines) == [str(tree / "images" / "003.png")] and reason in next(iter(lines.values()))
    assert found.complete and contents(found) == {
        k: v for k, v in undisturbed(tree, tmp_path, Noted()).items() if k != "003"
    }
    assert found.errors == [BadFile(*next(iter(lines.items())))]
    again = build(tree, out, Noted())
    assert len(again) == COUNT and error_lines(out) == {} and not (out / "errors.jsonl").exists() and again.errors == []


def test_the_first_image_may_be_bad(tree, tmp_path):
    (tree / "images" / "000.png").write_bytes(b"")
    found = build(tree, tmp_path / "out", Noted())
    assert len(found) == COUNT - 1 and list(error_lines(tmp_path / "out")) == [str(tree / "images" / "000.png")]


def test_all_images_may_be_bad(tree, tmp_path):
    for path in (tree / "images").iterdir():
        path.write_text("nothing")
    found = build(tree, tmp_path / "out", Noted())
    assert len(found) == 0 and len(found.errors) == COUNT and found.complete
    assert found.num_classes == 0 and found.stats().graphs == 0 and list(found) == []
    for k in range(COUNT):
        write_pair(tree, f"{k:03d}", k)
    assert len(build(tree, tmp_path / "out", Noted())) == COUNT


EXPECTED = {
    "truncated image": "images",
    "truncated mask": "masks|images",
    "text": "images",
    "empty": "images",
    "noise": "images",
    "mask of another size": "expected",
    "labels outside": "got label 7 in mask, expected 0 to 2",
    "colour mask": "got 3 channels for labels",
    "bomb": "40,?000|1,?600,?000,?000|pixels",
    "no mask": "got an image without its mask, expected one named",
    "no image": "got mask without an image, expected one named",
    "other channels": r"got x of float32 \[\*, 5\], expected x of float32 \[\*, 9\]",
}


def test_a_hundred_damaged_files_among_good_ones(tree, tmp_path):
    import re

    out = tmp_path / "out"
    whole = undisturbed(tree, tmp_path, Noted())
    damaged = write_damaged(tree, 100)
    assert set(damaged.values()) == set(DAMAGE) == set(EXPECTED)
    found = build(tree, out, Noted())
    assert contents(found) == whole and found.complete
    lines = error_lines(out)
    assert {Path(file).stem: True for file in lines} == dict.fromkeys(damaged, True)
    for file, reason in lines.items():
        kind = damaged[Path(file).stem]
        assert re.search(EXPECTED[kind], f"{file} {reason}"), (kind, reason)
        assert "Traceback" not in reason and Path(file).parent.parent == tree
    assert {bad.file: bad.reason for bad in found.errors} == lines
    # Mended one by one, the list shrinks; what is still wrong stays.
    write_pair(tree, "500", 500)
    found = build(tree, out, Noted())
    assert len(found) == COUNT + 1 and set(error_lines(out)) == set(lines) - {str(tree / "images" / "500.png")}
    for name in list(damaged)[1:]:
        for folder in ("images", "masks"):
            (tree / folder / f"{name}.png").unlink(missing_ok=True)
    assert len(build(tree, out, Noted())) == COUNT + 1 and not (out / "errors.jsonl").exists()


def test_images_of_another_channel_count(tree, tmp_path):
    write_image(tree / "images" / "002.png", photo(2)[:, :, 0])
    found = build(tree, tmp_path / "out", ToSuperpixelRAG(20, num_classes=3, ignore_index=255))
    assert len(found) == COUNT - 1
    (bad,) = found.errors
    assert bad.file.endswith("002.png")
    assert bad.reason.endswith("expected x of float32 [*, 9] as in the dataset's other graphs")
    same = build(tree, tmp_path / "out", ToSuperpixelRAG(20, num_classes=3, ignore_index=255), channels=3)
    assert len(same) == COUNT and same.errors == []


# Folders that cannot be written


def test_a_root_that_is_a_file(tree, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OSError, match="out"):
        build(tree, tmp_path / "out", Noted())
    with pytest.raises(OSError, match="out"):
        build(tree, tmp_path / "out" / "below", Noted())
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_that_is_a_folder(tree, tmp_path):
    (tmp_path / "out" / FILE).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"graphs\.sqlite: it cannot be written: check the folder"):
        build(tree, tmp_path / "out", Noted())


LIMITED = """
import resource, sys
from graphseg.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def test_a_full_disk(tmp_path):
    """No file may grow beyond a limit: what was built is kept, and a second run finishes."""
    tree, out = write_tree(tmp_path / "tree", 120), tmp_path / "out"
    words = ["build", tree / "images", out, "--labels", tree / "masks", "--num-classes", 3, "--ignore-index", 255]
    words += ["--num-segments", 20, "--quiet"]
    command = [sys.executable, "-c", LIMITED, str(200_000), *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 3, done.stderr
    assert "graphs.sqlite: " in done.stderr and "disk" in done.stderr and "what was built before is kept" in done.stderr
    assert "Traceback" not in done.stderr
    transform = ToSuperpixelRAG(20, num_classes=3, ignore_index=255)
    whole = undisturbed(tree, tmp_path, transform)
    with pytest.warns(UserWarning, match="has not ended"):
        half = contents(ImageGraphDataset(out))
    assert half == {k: whole[k] for k in half}
    assert contents(build(tree, out, transform)) == whole
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# Arguments


@pytest.mark.parametrize(
    "transform, message",
    [
        (5, "got int for transform"),
        (ToSuperpixelRAG(20), "got num_classes=None in ToSuperpixelRAG, expected num_classes=3"),
        (Compose([RandomImageFlip(), Noted()]), "got RandomImageFlip in a build, expected no random steps"),
    ],
)
def test_transforms_that_would_spoil_all_images(tree, tmp_path, transform, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build(tree, tmp_path / "out", transform)
    assert not (tmp_path / "out").exists()


def test_readers_with_a_transform_are_refused(tree, tmp_path):
    with pytest.raises(ValueError, match="got a reader with a transform, expected it without"):
        ImageGraphDataset.build(read_tree(tree, transform=RandomImageFlip()), tmp_path / "out", Noted())


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two", True])
def test_workers_are_counted(tree, tmp_path, workers):
    with pytest.raises((TypeError, ValueError), match="workers"):
        build(tree, tmp_path / "out", Noted(), workers=workers)


def test_lambdas_do_not_travel(tree, tmp_path):
    transform = Noted()
    with pytest.raises(TypeError, match=r"cannot be sent to other processes .*, expected importable .* or workers=1"):
        build(tree, tmp_path / "out", lambda data: transform(data), workers=2)
    assert len(build(tree, tmp_path / "out", lambda data: transform(data))) == COUNT


# Worker processes


def test_workers_that_are_killed_lose_one_image(tmp_path):
    """Two workers, one of which ends at once at one image, as when memory runs out; the rest is as with one worker."""
    tree, out = write_tree(tmp_path / "tree", 14), tmp_path / "out"
    write_damaged(tree, 3)
    found = build(tree, out, Noted(trouble={5: "kill"}), workers=2)
    whole = undisturbed(tree, tmp_path, Noted())
    assert contents(found) == {k: v for k, v in whole.items() if k != "005"}
    lines = error_lines(out)
    assert lines.pop(str(tree / "images" / "005.png")) == (
        "the process that worked on it was killed: not enough memory?"
    )
    assert {Path(file).stem for file in lines} == {"500", "501", "502"}
    again = build(tree, out, Noted(), workers=2)  # one image is left: no workers for it
    assert contents(again) == whole


def test_scripts_without_main_are_told(tree, tmp_path):
    """Workers import the script that started them; one that builds in its body would build in each of them."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from graphseg.datasets import ImageGraphDataset\n"
        "from tests.datasets.small_trees import Noted, read_tree\n"
        f"ImageGraphDataset.build(read_tree(Path({str(tree)!r})), {str(tmp_path / 'out')!r}, Noted(), workers=2)\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1
    assert "got worker processes that do not start" in done.stderr and "if __name__ == '__main__'" in done.stderr
    assert len(build(tree, tmp_path / "out", Noted())) == COUNT
