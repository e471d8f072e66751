"""The file of a dataset: nothing in it is executed, other files are refused, damage is named."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
import torch

from graphseg.datasets import ImageGraphDataset
from graphseg.datasets.packing import Layout
from graphseg.datasets.store import APPLICATION, FILE, Entry, Store, StoreError, explained, table_of
from graphseg.transforms import ToSuperpixelRAG
from tests.datasets.small_trees import Noted, contents, read_tree, write_tree

RECIPE = "ab" * 32


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tree of four images, and the folder of its dataset."""
    root = write_tree(tmp_path_factory.mktemp("store"), 4)
    ImageGraphDataset.build(read_tree(root), root / "graphs", Noted())
    return root


@pytest.fixture
def copied(built, tmp_path):
    """A copy of the dataset, to be damaged."""
    shutil.copytree(built / "graphs", tmp_path / "copy")
    return tmp_path / "copy"


def change(folder, statement, *values):
    """One statement on the dataset's file."""
    connection = sqlite3.connect(folder / FILE)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def read_all(folder):
    dataset = ImageGraphDataset(folder)
    found = contents(dataset)
    dataset.stats()
    dataset.close()
    return found


# Nothing is executed


def test_reading_unpickles_nothing(built, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    dataset = ImageGraphDataset(built / "graphs")
    assert len(contents(dataset)) == 4
    dataset.stats(), dataset.class_weights(), dataset.files(0), dataset[1:3][0]


def test_the_file_holds_no_pickles(built):
    """Columns are whole numbers, text, and bytes of tensors that start as `pack_tensor` writes them."""
    connection = sqlite3.connect(built / "graphs" / FILE)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    blobs = 0
    for table in tables:
        for row in connection.execute(f"SELECT * FROM {table}"):
            for value in row:
                assert value is None or isinstance(value, int | float | str | bytes)
                if isinstance(value, bytes):
                    blobs += 1
                    assert value[0] < 4 and value[1] < 10  # pickles start with 0x80, files of torch.save with "PK"
    connection.close()
    assert blobs > 4 * 8


@pytest.mark.parametrize(
    "key, value",
    [
        ("recipe", '"x; DROP TABLE meta"'),
        ("recipe", "5"),
        ("recipe", '{"a": 1}'),
        ("recipe", "null"),
        ("recipe", "nonsense"),
        ("about", "[]"),
        ("about", "5"),
        ("about", "{"),
        ("layout", "5"),
        ("layout", '"5"'),
        ("layout", json.dumps('{"graph": "ImageGraph", "fields": {"x": ["object", []]}}')),
        ("layout", json.dumps('{"graph": "ImageGraph", "fields": {"x) FROM meta; --": ["str", []]}}')),
        ("layout", json.dumps('{"graph": "ImageGraph", "fields": {"nowhere": ["str", []]}}')),
        ("layout", json.dumps('{"graph": "ImageGraph", "fields": {"x": ["float64", [-1, 9]]}}')),
        ("layout", json.dumps('{"graph": "ImageGraph", "fields": {"x": ["float32", [-1, 10]]}}')),
    ],
)
def test_values_made_by_hand_are_refused(copied, key, value):
    change(copied, "UPDATE meta SET value = ? WHERE key = ? OR key LIKE ?", value, key, key + " %")
    with pytest.raises(ValueError, match="got "):
        read_all(copied)


@pytest.mark.parametrize("value", ["text", b"", b"\x80\x04.", pickle.dumps(torch.nn.Linear), 5, 0.5])
def test_values_of_other_types_are_refused(copied, value):
    (table,) = [
        name
        for (name,) in sqlite3.connect(copied / FILE).execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if name.startswith("graphs_")
    ]
    change(copied, f"UPDATE {table} SET COL_x = ?", value)
    with pytest.raises(ValueError, match="damaged"):
        read_all(copied)


def test_ids_that_are_no_numbers_are_refused(copied):
    change(copied, "UPDATE built SET graph = 'zero'")
    with pytest.raises(ValueError, match="damaged"):
        ImageGraphDataset(copied)


# Other files


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"without graphs.sqlite, expected a folder that graphseg build"):
        ImageGraphDataset(tmp_path)
    assert list(tmp_path.iterdir()) == []  # looking makes nothing


def test_a_file_that_is_still_empty(built, tmp_path):
    """As a build leaves it that was killed at its first step."""
    (tmp_path / FILE).touch()
    with pytest.raises(FileNotFoundError, match=r"with an empty graphs.sqlite, expected a folder that graphseg build"):
        ImageGraphDataset(tmp_path)
    assert len(ImageGraphDataset.build(read_tree(built), tmp_path, Noted())) == 4


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one" * 50, b"short"])
def test_not_a_database(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"graphs.sqlite.*expected a dataset of graphseg"):
        ImageGraphDataset(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_files_of_other_applications_are_left_alone(built, tmp_path):
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    connection.execute("PRAGMA application_id = 7")
    connection.commit()
    connection.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match="expected a dataset of graphseg"):
        ImageGraphDataset(tmp_path)
    with pytest.raises(ValueError, match="expected a dataset of graphseg"):
        ImageGraphDataset.build(read_tree(built), tmp_path, Noted())
    assert (tmp_path / FILE).read_bytes() == before


def test_newer_formats_are_refused(built, copied):
    change(copied, "PRAGMA user_version = 99")
    for action in (ImageGraphDataset, lambda folder: ImageGraphDataset.build(read_tree(built), folder, Noted())):
        with pytest.raises(ValueError, match="of format 99, expected at most 1: update graphseg"):
            action(copied)


def test_damage_gives_the_right_graphs_or_an_error_that_names_the_file(built, copied):
    """Cut anywhere, or with bytes of any value anywhere."""
    whole = (built / "graphs" / FILE).read_bytes()
    known = contents(ImageGraphDataset(built / "graphs"))
    generator = random.Random(0)
    refused = 0
    for trial in range(80):
        data = bytearray(whole)
        if trial % 2:
            data = data[: generator.randrange(len(data))]
        else:
            for _ in range(20):
                data[generator.randrange(100, len(data))] = generator.randrange(256)
        (copied / FILE).write_bytes(data)
        try:
            read_all(copied)
        except (ValueError, LookupError, StoreError):
            refused += 1
    assert refused > 60
    assert contents(ImageGraphDataset(built / "graphs")) == known


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.99])
def test_cut_files_are_refused(built, copied, share):
    whole = (built / "graphs" / FILE).read_bytes()
    (copied / FILE).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"graphs.sqlite(, which|: graph of 00\d) is damaged"):
        read_all(copied)


def test_damaged_graphs_are_named(copied):
    (table,) = [
        name
        for (name,) in sqlite3.connect(copied / FILE).execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if name.startswith("graphs_")
    ]
    change(copied, f"UPDATE {table} SET COL_x = substr(COL_x, 1, 40) WHERE id = 2")
    dataset = ImageGraphDataset(copied)
    assert dataset[1].num_nodes > 0
    with pytest.raises(ValueError, match=r"graphs.sqlite: graph of 002 is damaged: got 40 bytes that are no tensor"):
        dataset[2]


# The store itself


def row_of(k=0):
    from tests.datasets.test_packing import rag

    graph = rag(k)
    layout = Layout.of(graph)
    return layout, layout.pack(graph)


def test_all_of_a_transaction_or_nothing(tmp_path):
    layout, row = row_of()
    store = Store(tmp_path, readonly=False)
    store.begin(RECIPE, {"about": {}}, [Entry(str(i), "", {}) for i in range(4)])
    store.add(RECIPE, layout, [(0, "key 0", row, "{}")])
    broken = dict(row)
    del broken["x"]
    with pytest.raises(KeyError):
        store.add(RECIPE, layout, [(1, "key 1", row, "{}"), (2, "key 2", broken, "{}")])
    assert store.keys(RECIPE) == {"key 0"}
    assert store.rows("e.position, b.graph", RECIPE) == [(0, 0)]
    store.add(RECIPE, layout, [(3, "key 3", row, "{}"), (1, "key 0", row, "{}")])
    assert store.rows("e.position, b.graph", RECIPE) == [(0, 0), (1, 0), (3, 1)]  # one graph of the same content
    store.finish(RECIPE)
    store.close()


def test_ids_are_never_used_twice(tmp_path):
    layout, row = row_of()
    store = Store(tmp_path, readonly=False)
    seen = set()
    for turn in range(4):
        recipe = ("ab", "cd")[turn % 2] * 32
        store.begin(recipe, {"about": {}}, [Entry("a", "", {})])
        store.forget(recipe)
        store.add(recipe, layout, [(0, "key", row, "{}")])
        store.finish(recipe)
        ((graph,),) = store.rows("b.graph", recipe)
        assert graph not in seen
        seen.add(graph)
        tables = [n for (n,) in store.connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'graphs%'")]
        assert tables == [table_of(recipe)]
    store.close()


def test_space_is_given_back(tmp_path):
    layout, row = row_of()
    store = Store(tmp_path, readonly=False)
    store.begin(RECIPE, {"about": {}}, [Entry(str(i), "", {}) for i in range(200)])
    store.add(RECIPE, layout, [(i, f"key {i}", row, "{}") for i in range(200)])
    store.finish(RECIPE)
    full = (tmp_path / FILE).stat().st_size
    store.begin(RECIPE, {"about": {}}, [Entry("0", "", {}, key="key 0")])
    store.finish(RECIPE)
    store.close()
    assert (tmp_path / FILE).stat().st_size < full / 3


def test_readers_never_write(built):
    store = Store(built / "graphs")
    with pytest.raises(StoreError, match="cannot be written"):
        store.set_meta({"a": 1})
    store.close()


def test_the_header_says_whose_file_it_is(built):
    header = (built / "graphs" / FILE).read_bytes()[:100]
    assert int.from_bytes(header[68:72], "big") == APPLICATION and header[60:64] == bytes([0, 0, 0, 1])


@pytest.mark.parametrize(
    "code, kind, message",
    [
        (sqlite3.SQLITE_FULL, StoreError, "the disk is full: make room and start again; what was built before is kept"),
        (sqlite3.SQLITE_READONLY, StoreError, "check the folder and its permissions"),
        (sqlite3.SQLITE_BUSY, StoreError, "another process holds it"),
        (sqlite3.SQLITE_IOERR, StoreError, "is the disk full"),
        (sqlite3.SQLITE_CORRUPT, ValueError, "is damaged"),
    ],
)
def test_errors_say_what_to_do(tmp_path, code, kind, message):
    names = {getattr(sqlite3, n): n for n in ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_BUSY", "SQLITE_IOERR")}
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode, error.sqlite_errorname = code, names.get(code, "SQLITE_CORRUPT")
    with pytest.raises(kind, match=rf"file.db.*{message}"), explained(tmp_path / "file.db"):
        raise error


def test_sqlite_reports_a_full_disk(tmp_path):
    """A limit on pages is what SQLite can be asked for; the same error as without room."""
    store = Store(tmp_path, readonly=False)
    store.begin(RECIPE, {"about": {}}, [Entry("0", "", {})])
    store.connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreError, match="the disk is full"):
        store.set_meta({str(i): "x" * 10_000 for i in range(50)})
    assert store.meta("recipe") == RECIPE and store.meta("0") is None
    store.close()


def test_other_recipes_stay_until_the_build_has_ended(built, copied):
    old = ImageGraphDataset(copied)
    known = contents(old)
    with pytest.raises(KeyboardInterrupt):
        ImageGraphDataset.build(read_tree(built), copied, Noted(trouble={2: "interrupt"}, num_segments=30))
    assert contents(old) == known  # read under another recipe: its graphs are still there
    with pytest.warns(UserWarning, match="has not ended: 2 of 4"):
        ImageGraphDataset(copied)
    new = ImageGraphDataset.build(read_tree(built), copied, ToSuperpixelRAG(30, num_classes=3, ignore_index=255))
    assert len(new) == 4
    for action in (lambda: old[0], lambda: old.stats(), lambda: ImageGraphDataset.files(old, 0)):
        with pytest.raises(LookupError, match="built anew since it was opened; open it again"):
            action()


KILLED = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # pages go to the file before the transaction ends
connection.execute("BEGIN IMMEDIATE")
for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'graphs%'").fetchall():
    connection.execute(f"UPDATE {table} SET COL_x = zeroblob(100000)")
connection.execute("UPDATE built SET graph = graph + 1000, info = '{}'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_transaction_that_was_killed_halfway_is_not_read(built, copied):
    """Its journal is still there, and reading rolls it back."""
    whole = contents(ImageGraphDataset(built / "graphs"))
    before = (copied / FILE).read_bytes()
    done = subprocess.run([sys.executable, "-c", KILLED, copied / FILE], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (copied / FILE).read_bytes() != before and (copied / f"{FILE}-journal").stat().st_size > 0
    assert contents(ImageGraphDataset(copied)) == whole
    assert (copied / FILE).read_bytes() == before
