"""The same build on a Dask cluster: two worker processes, one of which is killed midway."""

from __future__ import annotations

import pytest

from graphseg.datasets import ImageGraphDataset
from tests.datasets.small_trees import Noted, contents, read_tree, write_damaged, write_tree

pytest.importorskip("distributed", reason="the extra cluster (dask[distributed]) is not installed")

COUNT = 40

# A worker is killed as soon as some graphs are kept; a nanny, Dask's own, starts another in its place, or none does.
BUILD = """
import os, signal, sqlite3, sys, threading, time
from pathlib import Path

from distributed import LocalCluster

from graphseg.datasets import ImageGraphDataset
from tests.datasets.small_trees import Noted, read_tree


class Slow(Noted):
    def forward(self, data):
        time.sleep(0.05)  # long enough to be killed midway
        return super().forward(data)


def kill_one(cluster, out, killed):
    while True:
        try:
            connection = sqlite3.connect(f"file:{out}/graphs.sqlite?mode=ro", uri=True)
            kept = connection.execute("SELECT count(*) FROM built").fetchone()[0]
            connection.close()
        except sqlite3.Error:
            kept = 0
        if kept >= 2:
            break
        time.sleep(0.02)
    victim = next(iter(cluster.workers.values())).process.pid
    os.kill(victim, signal.SIGKILL)
    killed.append((victim, kept))


def main():
    tree, out = Path(sys.argv[1]), Path(sys.argv[2])
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        killed = []
        killer = threading.Thread(target=kill_one, args=(cluster, out, killed), daemon=True)
        killer.start()
        dataset = ImageGraphDataset.build(read_tree(tree), out, Slow(), scheduler=cluster.scheduler_address)
        killer.join(10)
        print("killed", len(killed), "at", killed[0][1], "of", len(dataset))


if __name__ == "__main__":
    main()
"""


def test_a_cluster_that_loses_a_worker_builds_the_same(tmp_path, run_python):
    tree, out = write_tree(tmp_path / "tree", COUNT), tmp_path / "out"
    write_damaged(tree, 4)
    script = tmp_path / "script.py"
    script.write_text(BUILD)
    done = run_python(str(script), str(tree), str(out), timeout=240)
    words = done.stdout.split()
    assert words[:2] == ["killed", "1"] and 2 <= int(words[3]) < COUNT and int(words[5]) == COUNT
    found = ImageGraphDataset(out)
    assert found.complete and len(found) == COUNT
    serial = ImageGraphDataset.build(read_tree(tree), tmp_path / "serial", Noted())
    theirs = contents(found)
    for source, ours in contents(serial).items():
        assert {k: v for k, v in theirs[source].items() if k not in ("recipe", "recipe_hash")} == {
            k: v for k, v in ours.items() if k not in ("recipe", "recipe_hash")
        }
    assert found.errors == serial.errors and len(found.errors) == 4


def test_a_scheduler_that_is_not_there(tmp_path):
    import dask

    tree = write_tree(tmp_path / "tree", 3)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(OSError, match=r"127\.0\.0\.1:9"):
        ImageGraphDataset.build(read_tree(tree), tmp_path / "out", Noted(), scheduler="tcp://127.0.0.1:9")
    assert len(ImageGraphDataset.build(read_tree(tree), tmp_path / "out", Noted())) == 3


def test_an_address_that_is_none(tmp_path):
    tree = write_tree(tmp_path / "tree", 3)
    with pytest.raises((OSError, ValueError), match="nonsense"):
        ImageGraphDataset.build(read_tree(tree), tmp_path / "out", Noted(), scheduler="nonsense://here")
