"""The file of an `ImageGraphDataset`: one SQLite database, every change of it a transaction.

Tables: `meta` (key, value); `entries`, the images in order, each with the key of its content; `built`, which graph has
been made of which content by which recipe; and the rows of PyG's `SQLiteDatabase`, a table for each recipe.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch_geometric.data import SQLiteDatabase

from graphseg.datasets.content import FORMAT
from graphseg.datasets.packing import Layout

__all__ = ["Entry", "GraphDatabase", "Store", "StoreError"]

FILE = "graphs.sqlite"
APPLICATION = 0x67736567  # "gseg", in the file's header
WAIT = 120.0  # seconds for another process to finish its transaction

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, source TEXT NOT NULL, split TEXT NOT NULL, files TEXT NOT NULL, key TEXT, area TEXT);
CREATE TABLE IF NOT EXISTS built (
    recipe TEXT NOT NULL, key TEXT NOT NULL, graph INTEGER NOT NULL, info TEXT NOT NULL, PRIMARY KEY (recipe, key));
"""


class StoreError(OSError):
    """The file cannot be read or written: the disk is full, the folder may not be written, the file is damaged."""


@dataclass(frozen=True)
class Entry:
    """One image of a dataset.

    Args:
        source: its name.
        split: "train", "val", ...; empty where there is none.
        files: role to path.
        window: (y0, x0, height, width), the part of the files; None for all.
        key: hash of content and recipe; None while it is not known.
    """

    source: str
    split: str
    files: dict[str, str]
    window: tuple[int, int, int, int] | None = None
    key: str | None = None


class GraphDatabase(SQLiteDatabase):
    """PyG's database of graphs, which waits for other processes and may be opened for reading only.

    Args:
        path: of the file.
        name: of the table.
        layout: of its graphs.
        readonly: never write.
    """

    def __init__(self, path: Path, name: str, layout: Layout, readonly: bool = True) -> None:
        self.readonly = readonly
        try:
            super().__init__(str(path), name, layout.schema())
        except sqlite3.OperationalError as error:
            self.close()
            if readonly and getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):  # the table is gone
                raise self._changed() from error
            raise

    def get(self, index: int) -> dict[str, Any]:
        """The row of a graph.

        Args:
            index: its id.

        Raises:
            LookupError: if it is not there any more.
            ValueError: for a row that is damaged.
        """
        query = f"SELECT {self._joined_col_names} FROM {self.name} WHERE id = ?"
        try:
            row = self.cursor.execute(query, (index,)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                raise self._changed() from error
            raise
        if row is None:
            raise self._changed()
        try:
            found: dict[str, Any] = self._deserialize(row)
        except (TypeError, ValueError) as error:
            raise ValueError(f"got {self.path}, which is damaged ({error}), expected a dataset of graphseg") from error
        return found

    def _changed(self) -> LookupError:
        return LookupError(f"got {self.path}, which was built anew since it was opened; open it again")

    def connect(self) -> None:
        self._connection = _connect(Path(self.path), self.readonly)
        self._cursor = self._connection.cursor()


class Store:
    """Reads and writes the file of a dataset.

    Args:
        root: the dataset's folder.
        readonly: the file must be there, and is not changed.

    Raises:
        FileNotFoundError: for reading what is not there.
        ValueError: for a file that is not of graphseg, or of a newer version of it.
        StoreError: for a file that cannot be opened or written.
    """

    def __init__(self, root: Path, readonly: bool = True) -> None:
        self.path = Path(root) / FILE
        if readonly and not self.path.is_file():
            raise FileNotFoundError(f"got {root} without {FILE}, expected a folder that graphseg build has written")
        self._graphs: GraphDatabase | None = None
        with explained(self.path):
            self.connection = _connect(self.path, readonly)
            with self.snapshot():
                own, version = self._pragma("application_id"), self._pragma("user_version")
                empty = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if readonly and empty and own == 0:  # a build that has only just begun
                raise FileNotFoundError(
                    f"got {root} with an empty {FILE}, expected a folder that graphseg build has written"
                )
            if own != APPLICATION and not (empty and not readonly):
                raise ValueError(f"got {self.path}, expected a dataset of graphseg")
            if version > FORMAT:
                raise ValueError(f"got {self.path} of format {version}, expected at most {FORMAT}: update graphseg")
            if not readonly:
                self._create()

    def _create(self) -> None:
        execute = self.connection.execute
        if self._pragma("application_id") != APPLICATION:  # an empty file: these must come before the first table
            execute("PRAGMA page_size = 16384")
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        with self._transaction():
            for statement in filter(str.strip, _TABLES.split(";")):
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION}")
            execute(f"PRAGMA user_version = {FORMAT}")

    # reading

    def meta(self, key: str, default: Any = None) -> Any:
        """A JSON value of the dataset."""
        with explained(self.path):
            found = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return default if found is None else json.loads(found[0])

    def layout(self, recipe: str) -> Layout | None:
        """The layout of a recipe's graphs; None while there is none."""
        found = self.meta(f"layout {recipe}")
        return None if found is None else Layout.from_json(found)

    def keys(self, recipe: str) -> set[str]:
        """Keys of all graphs that a recipe has made."""
        return {key for (key,) in self.connection.execute("SELECT key FROM built WHERE recipe = ?", (recipe,))}

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside belongs together, whoever writes meanwhile."""
        with explained(self.path):
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.execute("ROLLBACK")

    def rows(self, columns: str, recipe: str) -> list[tuple[Any, ...]]:
        """Of every built entry, in order, these columns of `entries` (e) and `built` (b)."""
        query = f"SELECT {columns} FROM entries e JOIN built b ON b.key = e.key AND b.recipe = ? ORDER BY e.position"
        with explained(self.path):
            return self.connection.execute(query, (recipe,)).fetchall()

    # writing

    def begin(self, recipe: str, about: dict[str, Any], entries: Sequence[Entry]) -> None:
        """Makes `recipe` the dataset's, with these entries; graphs of other recipes stay until `finish`."""
        with self._transaction():
            self._set_meta({**about, "recipe": recipe, "complete": False})
            self.connection.execute("DELETE FROM entries")
            self.connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (i, e.source, e.split, json.dumps(e.files), e.key, json.dumps(e.window))
                    for i, e in enumerate(entries)
                ],
            )

    def forget(self, recipe: str) -> None:
        """Drops all graphs of a recipe and their layout, which other images may not share."""
        with self._transaction():
            self.connection.execute("DELETE FROM built WHERE recipe = ?", (recipe,))
            self.connection.execute("DELETE FROM meta WHERE key = ?", (f"layout {recipe}",))
            self.connection.execute(f"DROP TABLE IF EXISTS {table_of(recipe)}")

    def set_meta(self, values: dict[str, Any]) -> None:
        """Writes JSON values of the dataset."""
        with self._transaction():
            self._set_meta(values)

    def add(self, recipe: str, layout: Layout, results: Iterable[tuple[int, str, dict[str, Any], str]]) -> None:
        """Stores graphs, all of them or, if anything goes wrong, none.

        Args:
            recipe: that made them.
            layout: that packed them.
            results: position, key, row and information (JSON) of each.
        """
        with explained(self.path):
            if self._graphs is None:
                self._graphs = GraphDatabase(self.path, table_of(recipe), layout, readonly=False)
            connection = self._graphs.connection
            with _transaction_of(connection):
                execute = connection.execute
                text = json.dumps(layout.to_json())
                execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (f"layout {recipe}", text))
                # Never used twice: who has the dataset open finds its own graphs, or none.
                found = execute("SELECT value FROM meta WHERE key = 'next_id'").fetchone()
                free = 0 if found is None else int(found[0])
                ids, rows = [], []
                for position, key, row, info in results:
                    execute("UPDATE entries SET key = ? WHERE position = ?", (key, position))
                    if execute("SELECT 1 FROM built WHERE recipe = ? AND key = ?", (recipe, key)).fetchone():
                        continue  # two files with the same content
                    execute("INSERT INTO built VALUES (?, ?, ?, ?)", (recipe, key, free, info))
                    ids.append(free)
                    rows.append(row)
                    free += 1
                execute("INSERT OR REPLACE INTO meta VALUES ('next_id', ?)", (str(free),))
                if ids:
                    self._graphs.multi_insert(ids, rows)  # commits everything above with it

    def finish(self, recipe: str) -> None:
        """Marks the dataset complete, and drops what no entry leads to."""
        if self._graphs is not None:
            self._graphs.close()
            self._graphs = None
        with self._transaction():
            execute = self.connection.execute
            tables = [
                name for (name,) in execute("SELECT name FROM sqlite_master WHERE name LIKE 'graphs\\_%' ESCAPE '\\'")
            ]
            for name in tables:
                if name != table_of(recipe):
                    execute(f"DROP TABLE {name}")
            execute("DELETE FROM meta WHERE key LIKE 'layout %' AND key != ?", (f"layout {recipe}",))
            execute(
                "DELETE FROM built WHERE recipe != ? OR key NOT IN (SELECT key FROM entries WHERE key IS NOT NULL)",
                (recipe,),
            )
            if table_of(recipe) in tables:
                execute(f"DELETE FROM {table_of(recipe)} WHERE id NOT IN (SELECT graph FROM built)")
            self._set_meta({"complete": True})
        with explained(self.path):
            self.connection.executescript("PRAGMA incremental_vacuum")  # execute would give back one page

    def close(self) -> None:
        """Closes the file."""
        if self._graphs is not None:
            self._graphs.close()
        self.connection.close()

    def _set_meta(self, values: dict[str, Any]) -> None:
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        self.connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def _pragma(self, name: str) -> int:
        return int(self.connection.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path), _transaction_of(self.connection):
            yield


def table_of(recipe: str) -> str:
    """The name of a recipe's table of graphs."""
    return f"graphs_{recipe[:32]}"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite into what a user can mend."""
    damaged = f"got {path}, which is damaged ({{}}), expected a dataset of graphseg"
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(damaged.format(error)) from error
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL"):
            what = "the disk is full: make room and start again"
        elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            what = "it cannot be written: check the folder and its permissions"
        elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            what = "another process holds it: wait for it to end and start again"
        elif name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")) or not name:
            raise ValueError(damaged.format(error)) from error
        elif name.startswith("SQLITE_IOERR"):
            what = "reading or writing failed (is the disk full?): mend it and start again"
        else:
            raise
        raise StoreError(f"{path}: {what}; what was built before is kept ({error})") from error


def _connect(path: Path, readonly: bool) -> sqlite3.Connection:
    # What a killed process left half-written is rolled back by the next that opens the file, which mode "ro" could not.
    mode = "rw" if readonly else "rwc"
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}", timeout=WAIT, uri=True, isolation_level=None
    )
    if readonly:
        connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def _transaction_of(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
