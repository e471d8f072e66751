"""Graphs as rows of a table: which column holds which field, and tensors as bytes.

Integers are what fills a graph of an image: the node of each pixel, its class, the ends of edges. They are stored in
the fewest bytes that hold their range, and deflated; edges as steps from one source to the next and from source to
target, counted ranges as their start. A row holds numbers, text and bytes only: reading it executes nothing.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from graphseg.data import Hierarchy, ImageGraph

__all__ = ["Layout", "pack_tensor", "row_bytes", "unpack_tensor"]

_GRAPHS: dict[str, type[ImageGraph]] = {"ImageGraph": ImageGraph, "Hierarchy": Hierarchy}
_SCALARS: dict[str, type] = {"str": str, "int": int, "float": float}
_OF_DATASET = ("source", "recipe", "recipe_hash")  # kept once, or beside the graph

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.float32, torch.float64),
    )
}
_STORED = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64, np.float16, np.float32, np.float64)
_RAW, _DEFLATED, _RANGE, _EDGES = range(4)
LARGEST = 999_999_000  # bytes of a value, and of a row, in SQLite: 10^9
_HEAD = struct.Struct("<BBB")


@dataclass(frozen=True)
class Layout:
    """The fields that all graphs of one dataset share.

    Args:
        graph: "ImageGraph" or "Hierarchy".
        fields: name to type: a tensor's dtype with its sizes (-1 for the one that differs between graphs), or "str",
            "int" or "float" without sizes.
    """

    graph: str
    fields: dict[str, tuple[str, tuple[int, ...]]]

    @classmethod
    def of(cls, graph: ImageGraph) -> Self:
        """The layout of a graph.

        Raises:
            TypeError: for a field that is neither a tensor nor text nor a number.
        """
        name = next(name for name, kind in reversed(_GRAPHS.items()) if isinstance(graph, kind))
        fields = {}
        for key, value in sorted(graph.to_dict().items()):
            if key in _OF_DATASET:
                continue
            if isinstance(value, Tensor):
                dtype = str(value.dtype).removeprefix("torch.")
                if dtype not in _DTYPES:
                    raise TypeError(f"got dtype {value.dtype} for {key}, expected one of {', '.join(_DTYPES)}")
                fields[key] = dtype, _sizes(graph, key, value)
            elif type(value) in _SCALARS.values():
                fields[key] = type(value).__name__, ()
            else:
                raise TypeError(f"got {type(value).__name__} for {key}, expected a tensor, text or a number")
        _check_names(fields)
        return cls(name, fields)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises:
            ValueError: for other text.
        """
        try:
            found = json.loads(text)
            fields = {
                str(k): (str(dtype), tuple(int(s) for s in sizes)) for k, (dtype, sizes) in found["fields"].items()
            }
            name = found["graph"]
            _check_names(fields)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"got a layout that does not read ({error}), expected one of graphseg") from error
        unknown = [dtype for dtype, _ in fields.values() if dtype not in _DTYPES and dtype not in _SCALARS]
        if not isinstance(name, str) or name not in _GRAPHS or unknown or not fields:
            raise ValueError(
                f"got a layout of {name} with {unknown or list(fields)}, expected graphs and types of graphseg"
            )
        return cls(name, fields)

    def to_json(self) -> str:
        """As text, for `from_json`."""
        return json.dumps({"graph": self.graph, "fields": self.fields}, sort_keys=True)

    def schema(self) -> dict[str, Any]:
        """As a schema of PyG's `Database`: every tensor a column of bytes."""
        tensor = {"dtype": torch.uint8, "size": (-1,)}
        return {key: _SCALARS.get(dtype, tensor) for key, (dtype, _) in self.fields.items()}

    def pack(self, graph: ImageGraph) -> dict[str, Any]:
        """One row, by column.

        Raises:
            ValueError: for a graph of another layout, naming the first field that differs.
        """
        own = type(self).of(graph)
        if own.graph != self.graph:
            raise ValueError(f"got a {own.graph}, expected a {self.graph} as the dataset's other graphs are")
        for key in sorted({*own.fields, *self.fields}):
            got, want = own.fields.get(key), self.fields.get(key)
            if got != want:
                raise ValueError(
                    f"got {_described(key, got)}, expected {_described(key, want)} as in the dataset's other graphs"
                )
        row = {}
        for key, (dtype, _) in self.fields.items():
            value = graph[key] if dtype in _SCALARS else pack_tensor(graph[key])
            _check_value(key, value)
            row[key] = torch.frombuffer(value, dtype=torch.uint8) if isinstance(value, bytearray) else value
        return row

    def unpack(self, row: dict[str, Any]) -> ImageGraph:
        """The graph of one row.

        Raises:
            ValueError: for bytes that are damaged.
        """
        graph = _GRAPHS[self.graph]()
        for key, (dtype, sizes) in self.fields.items():
            value = row[key]
            if dtype not in _SCALARS:
                value = unpack_tensor(value.numpy().tobytes(), _DTYPES[dtype])
                if len(value.shape) != len(sizes) or any(
                    w >= 0 and w != s for s, w in zip(value.shape, sizes, strict=True)
                ):
                    raise ValueError(
                        f"got {_described(key, (dtype, tuple(value.shape)))}, expected sizes {list(sizes)}"
                    )
            graph[key] = value
        return graph


def row_bytes(row: dict[str, Any]) -> int:
    """What a row of `Layout.pack` takes in the file, numbers at eight bytes.

    Args:
        row: by column.
    """
    return sum(len(value) if isinstance(value, str) else getattr(value, "nbytes", 8) for value in row.values())


def pack_tensor(value: Tensor) -> bytearray:
    """A tensor as bytes that `unpack_tensor` reads: method, stored type, sizes, then the numbers.

    Args:
        value: of any shape; no unsigned integers of 32 bits or more.
    """
    array = np.asarray(value.detach().cpu().numpy(), order="C")  # ascontiguousarray gives one of no dimensions one
    method, numbers = _RAW, array
    if array.dtype.kind in "biu" and array.size:
        method, numbers = _DEFLATED, array.view(np.uint8) if array.dtype == bool else array
        if _is_range(numbers):
            method, numbers = _RANGE, numbers[[0, -1]]  # its end too: damaged sizes are told by it
        elif numbers.ndim == 2 and numbers.shape[0] == 2 and numbers.dtype == np.int64:
            method, numbers = _EDGES, np.stack([np.diff(numbers[0], prepend=0), numbers[1] - numbers[0]])
        numbers = _narrow(numbers)
    stored = [np.dtype(t) for t in _STORED].index(numbers.dtype if numbers.dtype != bool else np.dtype(np.uint8))
    payload = numbers.tobytes()
    head = _HEAD.pack(method, stored, array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape)
    return bytearray(head + (zlib.compress(payload, 1) if method in (_DEFLATED, _EDGES) else payload))


def unpack_tensor(data: bytes, dtype: torch.dtype) -> Tensor:
    """The tensor of `pack_tensor`'s bytes.

    Args:
        data: the bytes.
        dtype: of the tensor.

    Raises:
        ValueError: for bytes that are damaged.
    """
    try:
        method, stored, dims = _HEAD.unpack_from(data)
        shape = struct.unpack_from(f"<{dims}q", data, _HEAD.size)
        kind = np.dtype(_STORED[stored])
        start, count = _HEAD.size + 8 * dims, math.prod(shape)
        payload: bytes | memoryview = memoryview(data)[start:]
        if min(shape, default=0) < 0 or method not in (_RAW, _DEFLATED, _RANGE, _EDGES):
            raise ValueError(f"sizes {shape}, method {method}")
        if method in (_DEFLATED, _EDGES):
            payload = _inflated(payload, count * kind.itemsize)
        numbers = np.frombuffer(payload, kind)
        if method == _RANGE:
            first, last = (int(n) for n in numbers)
            if last - first != count - 1:
                raise ValueError(f"{count} numbers from {first} to {last}")
            numbers = first + np.arange(count)
        numbers = numbers.reshape(shape)
        if method == _EDGES:
            if shape[0] != 2:
                raise ValueError(f"sizes {shape}")
            source = np.cumsum(numbers[0], dtype=np.int64)
            numbers = np.stack([source, source + numbers[1]])
        wanted = torch.empty(0, dtype=dtype).numpy().dtype
        if numbers.dtype.kind == "f" and numbers.dtype != wanted:
            raise ValueError(f"{numbers.dtype}")
    except (struct.error, ValueError, IndexError, OverflowError, MemoryError, zlib.error) as error:
        raise ValueError(
            f"got {len(data)} bytes that are no tensor ({error}), expected those that were stored"
        ) from error
    return torch.from_numpy(numbers.astype(wanted))  # a copy: bytes are read-only


def _sizes(graph: ImageGraph, key: str, value: Tensor) -> tuple[int, ...]:
    """Sizes that all graphs share, and -1 where they grow with nodes, edges or pixels."""
    if value.dim() == 0:
        return ()
    free = int(graph.__cat_dim__(key, value) or 0) % value.dim()
    return tuple(-1 if dim == free else size for dim, size in enumerate(value.shape))


def _check_names(fields: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Columns are called after fields, and SQLite does not tell `Y` from `y`."""
    for key in fields:
        if not key.isidentifier() or key.startswith("_"):
            raise ValueError(f"got field {key!r}, expected a name of letters, digits and underscores")
    if len({key.lower() for key in fields}) < len(fields):
        raise ValueError(f"got fields {sorted(fields)}, expected names that differ by more than capitals")


def _check_value(key: str, value: Any) -> None:
    """Refuses what SQLite cannot hold."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"got {value} for {key}, expected 64 bits")
    size = len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytearray) else 0
    if size > LARGEST:
        raise ValueError(f"got {size} bytes of {key}, expected at most {LARGEST}: cut the image into tiles")


def _described(key: str, field: tuple[str, tuple[int, ...]] | None) -> str:
    if field is None:
        return f"no {key}"
    dtype, sizes = field
    return f"{key} of {dtype}" + (f" [{', '.join('*' if s < 0 else str(s) for s in sizes)}]" if sizes else "")


def _is_range(numbers: np.ndarray) -> bool:
    if numbers.ndim != 1 or len(numbers) < 2 or int(numbers[-1]) - int(numbers[0]) != len(numbers) - 1:
        return False
    return bool((np.diff(numbers.astype(np.int64)) == 1).all())


def _narrow(numbers: np.ndarray) -> np.ndarray:
    """In the first of the stored types that holds the range."""
    low, high = int(numbers.min()), int(numbers.max())
    for kind in _STORED[:7]:
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return numbers.astype(kind)
    raise OverflowError(f"got numbers from {low} to {high}, expected 64 bits")  # unsigned 64-bit is no type of ours


def _inflated(payload: bytes | memoryview, size: int) -> bytes:
    """Never more than `size` bytes, whatever the payload says."""
    inflater = zlib.decompressobj()
    found = inflater.decompress(payload, size + 1)  # one more, for the check sum at the end; 0 would be no limit
    if len(found) != size or not inflater.eof or inflater.unused_data:
        raise ValueError(f"expected {size} bytes")
    return found
