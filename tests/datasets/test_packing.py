"""Rows of a table: tensors come back bit for bit, damaged bytes are refused, and a row holds plain values only."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch_geometric.data import Data

from graphseg.data import ImageGraph
from graphseg.datasets.packing import Layout, pack_tensor, unpack_tensor
from graphseg.transforms import ToHierarchy, ToPixelGrid, ToSuperpixelRAG
from tests.datasets.small_trees import classes, fields, photo

LOW, HIGH = -(2**63), 2**63 - 1
DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.float32, torch.float64),
]


def same(a, b):
    """Equal bit for bit, NaN as well."""
    assert a.dtype == b.dtype and a.shape == b.shape
    return a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()


def there_and_back(tensor):
    return unpack_tensor(bytes(pack_tensor(tensor)), tensor.dtype)


def image_data(k=0):
    image = photo(k)
    return Data(
        image=torch.from_numpy(image).permute(2, 0, 1), mask=torch.from_numpy(classes(image)), source=f"photo {k}"
    )


def rag(k=0, **options):
    return ToSuperpixelRAG(20, num_classes=3, ignore_index=255, **options)(image_data(k))


# Tensors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (2, 0), (0, 3), (2, 1), (2, 5), (3, 2), (2, 3, 4)], ids=str)
def test_every_dtype_and_shape(dtype, shape):
    values = torch.randint(0, 2, shape) if dtype == torch.bool else torch.randint(0, 120, shape)
    assert same(there_and_back(values.to(dtype)), values.to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64])
def test_extremes_of_integers(dtype):
    low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    for row in ([low, high], [high, low], [high - 1, high], [low, low + 1], [low], [high], [high, high]):
        assert same(there_and_back(torch.tensor(row, dtype=torch.int64).to(dtype)), torch.tensor(row).to(dtype))


@pytest.mark.parametrize(
    "edges",
    [
        [[HIGH, LOW], [LOW, HIGH]],
        [[LOW, HIGH, 0], [HIGH, LOW, -1]],
        [[0, -1, HIGH], [0, 0, LOW]],
        [[5, 3, 4, 0], [1, 1, 9, 7]],  # unsorted
        [[3], [1]],
        [[0, 0, 1, 1], [1, 2, 0, 2]],
    ],
)
def test_edges_wrap_and_come_back(edges):
    assert same(there_and_back(torch.tensor(edges)), torch.tensor(edges))


def test_special_floats_keep_their_bits():
    bits = torch.tensor([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7FA00001, 1], dtype=torch.int64)
    values = bits.to(torch.int32).view(torch.float32)
    assert same(there_and_back(values), values)


@given(
    arrays.arrays(
        st.sampled_from([np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, np.float32]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
    )
)
def test_any_tensor_comes_back(values):
    assert same(there_and_back(torch.from_numpy(values)), torch.from_numpy(values))


@given(st.lists(st.tuples(st.integers(LOW, HIGH), st.integers(LOW, HIGH)), max_size=20))
def test_any_edges_come_back(pairs):
    edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    assert same(there_and_back(edges), edges)


@given(st.integers(LOW, HIGH), st.integers(0, 40))
def test_any_range_comes_back(first, count):
    numbers = torch.tensor([n for n in range(first, first + count) if n <= HIGH], dtype=torch.int64)
    assert same(there_and_back(numbers), numbers)


def test_not_contiguous_and_with_gradient():
    grid = torch.arange(24).view(4, 6)
    for values in (grid.T, grid[:, ::2], grid[1:3, 2:], grid[:2, :3].T, grid.float().T.requires_grad_()):
        assert same(there_and_back(values), values.detach())


def test_integers_take_few_bytes():
    assert len(pack_tensor(torch.arange(1 << 20))) < 40  # a range: its ends
    assert len(pack_tensor(torch.zeros(1 << 20, dtype=torch.int64))) < 1 << 14
    noise = torch.randint(0, 256, (1 << 16,))
    assert len(pack_tensor(noise)) < 1.01 * (1 << 16)  # a byte each, not eight
    assert len(pack_tensor(torch.randn(1000))) == 4000 + 3 + 8


# Damage

WHOLE = {
    "range": torch.arange(5, 300),
    "edges": torch.tensor([[0, 0, 1, 5, 5], [1, 2, 0, 3, 4]]),
    "labels": torch.arange(60).view(6, 10) % 7,
    "bool": torch.arange(50) % 3 == 0,
    "floats": torch.linspace(0, 1, 12).view(3, 4),
    "one": torch.tensor(3),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_flipped_bit_is_refused_or_gives_a_tensor_of_its_kind(name):
    tensor = WHOLE[name]
    whole = bytes(pack_tensor(tensor))
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        try:
            found = unpack_tensor(bytes(data), tensor.dtype)
        except ValueError as error:
            assert f"got {len(whole)} bytes that are no tensor" in str(error)
        else:
            assert found.dtype == tensor.dtype and found.numel() <= 8 * len(whole) + tensor.numel()


@pytest.mark.parametrize("name", WHOLE)
def test_every_cut_is_refused(name):
    whole = bytes(pack_tensor(WHOLE[name]))
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=f"got {end} bytes that are no tensor"):
            unpack_tensor(whole[:end], WHOLE[name].dtype)


@given(st.binary(max_size=80), st.sampled_from(DTYPES))
def test_any_bytes_are_refused_or_a_small_tensor(data, dtype):
    try:
        found = unpack_tensor(data, dtype)
    except ValueError:
        return
    assert found.dtype == dtype and found.numel() <= 1 << 20


@pytest.mark.parametrize("method", range(5))
@pytest.mark.parametrize("stored", [0, 6, 8, 9, 200])
@pytest.mark.parametrize(
    "shape", [(2**60,), (2**62, 2**62), (2, 2**60), (0, 2**60), (2**40,), (-1,), (-1, -1), (2**63 - 1,) * 9], ids=str
)
def test_sizes_beyond_reason_are_refused(method, stored, shape):
    payload = np.array([0, 1, np.inf, np.nan]).tobytes()
    if method in (1, 3):
        payload = zlib.compress(payload)
    data = struct.pack(f"<BBB{len(shape)}q", method, stored, len(shape), *shape) + payload
    with pytest.raises(ValueError, match="bytes that are no tensor"):
        unpack_tensor(data, torch.int64)


def test_deflated_bombs_stop_at_the_size_that_was_said():
    for size in (0, 10):
        data = struct.pack("<BBBq", 1, 0, 1, size) + zlib.compress(bytes(1 << 28))
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"expected {size} bytes"):
            unpack_tensor(data, torch.uint8)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 1 << 22


# Layouts


def test_a_row_holds_plain_values_only():
    graph = rag()
    graph.remark, graph.count, graph.score = "café\0", -(2**63), 0.5
    layout = Layout.of(graph)
    row = layout.pack(graph)
    assert set(row) == set(graph.keys()) - {"source", "recipe", "recipe_hash"}
    for key, value in row.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == torch.uint8 and value.dim() == 1
        else:
            assert type(value) in (str, int, float), key
    assert all(kind in (str, int, float) or kind["dtype"] == torch.uint8 for kind in layout.schema().values())


@pytest.mark.parametrize(
    "transform",
    [
        ToSuperpixelRAG(20, num_classes=3, ignore_index=255, keep_pixels=True),
        ToPixelGrid(num_classes=3, ignore_index=255),
        ToHierarchy(num_segments=(5, 20), num_classes=3, ignore_index=255),
    ],
    ids=["rag", "grid", "hierarchy"],
)
def test_graphs_come_back(transform):
    first, second = transform(image_data(0)), transform(image_data(1))
    layout = Layout.from_json(Layout.of(first).to_json())
    assert layout == Layout.of(second)  # other numbers of nodes and edges are the same layout
    for graph in (first, second):
        found = layout.unpack(layout.pack(graph))
        assert type(found) is type(graph)
        expected = fields(graph)
        for key in ("source", "recipe", "recipe_hash"):
            del expected[key]
        assert fields(found) == expected
        found.validate()


def test_graphs_of_no_nodes_come_back():
    data = image_data()
    data.valid = torch.zeros(48, 64, dtype=torch.bool)
    graph = ToSuperpixelRAG(20, num_classes=3, ignore_index=255)(data)
    layout = Layout.of(rag())
    assert graph.num_nodes == 0 and layout.unpack(layout.pack(graph)).num_nodes == 0


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda g: g.__setitem__("x", g.x[:, :5]), r"got x of float32 \[\*, 5\], expected x of float32 \[\*, 9\]"),
        (lambda g: g.__setitem__("x", g.x.double()), r"got x of float64 .*, expected x of float32"),
        (lambda g: g.__setitem__("y", g.y[:, None]), r"got y of int64 \[\*, 1\], expected y of int64 \[\*\]"),
        (lambda g: g.__delitem__("y"), r"got no y, expected y of int64 \[\*\]"),
        (lambda g: g.__setitem__("more", 1), "got more of int, expected no more"),
        (lambda g: g.__setitem__("num_nodes", "many"), "got num_nodes of str, expected num_nodes of int"),
    ],
)
def test_other_layouts_name_both_sides(change, message):
    layout, graph = Layout.of(rag()), rag(1)
    change(graph)
    with pytest.raises(ValueError, match=message):
        layout.pack(graph)


def test_hierarchies_and_graphs_do_not_mix():
    hierarchy = ToHierarchy(num_segments=(5, 20), num_classes=3, ignore_index=255)(image_data())
    with pytest.raises(ValueError, match="got a ImageGraph, expected a Hierarchy"):
        Layout.of(hierarchy).pack(rag())


@pytest.mark.parametrize(
    "value, message",
    [
        ([1, 2], "got list for extra, expected a tensor"),
        (True, "got bool for extra"),
        (torch.zeros(2, dtype=torch.complex64), "got dtype torch.complex64 for extra"),
        (torch.zeros(2, dtype=torch.bfloat16), "got dtype torch.bfloat16 for extra"),
    ],
)
def test_fields_of_other_types_are_refused(value, message):
    graph = rag()
    graph.extra = value
    with pytest.raises(TypeError, match=message):
        Layout.of(graph)


@pytest.mark.parametrize("key", ["with space", "1st", "x); DROP TABLE meta; --", "Y", "X"])
def test_names_that_are_no_columns_are_refused(key):
    graph = rag()
    graph[key] = 1.0
    with pytest.raises(ValueError, match=r"expected (a name of letters|names that differ)"):
        Layout.of(graph)


def test_words_of_sql_are_names_like_others():
    graph = ImageGraph(x=torch.zeros(1, 1), group=1, order="a", select=0.5, id=7, rowid=8)
    layout = Layout.of(graph)
    assert fields(layout.unpack(layout.pack(graph))) == fields(graph)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "caf\udce9"])
def test_what_sqlite_cannot_hold_is_refused(value):
    graph = rag()
    graph.extra = value
    with pytest.raises(ValueError, match=r"extra, expected 64 bits|surrogates not allowed"):
        Layout.of(graph).pack(graph)


def test_too_many_bytes_are_refused(monkeypatch):
    monkeypatch.setattr("graphseg.datasets.packing.LARGEST", 1000)
    graph = rag()
    graph.pixel_x = torch.rand(48 * 64, 3)
    with pytest.raises(ValueError, match="bytes of pixel_x, expected at most 1000: cut the image into tiles"):
        Layout.of(graph).pack(graph)


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "null", "[]", "{}", '"text"', "[" * 100_000),
        '{"graph": [], "fields": {"x": ["int", []]}}',
        '{"graph": {}, "fields": {"x": ["int", []]}}',
        '{"graph": "Data", "fields": {"x": ["int", []]}}',
        '{"graph": "ImageGraph", "fields": {}}',
        '{"graph": "ImageGraph", "fields": []}',
        '{"graph": "ImageGraph", "fields": {"x": 5}}',
        '{"graph": "ImageGraph", "fields": {"x": ["object", []]}}',
        '{"graph": "ImageGraph", "fields": {"x": [["int"], []]}}',
        '{"graph": "ImageGraph", "fields": {"x": ["float32", [Infinity]]}}',
        '{"graph": "ImageGraph", "fields": {"x": ["float32", ["a"]]}}',
        '{"graph": "ImageGraph", "fields": {"x, y": ["int", []]}}',
        '{"graph": "ImageGraph", "fields": {"__class__": ["str", []]}}',
        '{"graph": "ImageGraph", "fields": {"_store": ["str", []]}}',
        '{"graph": "ImageGraph", "fields": {"y": ["int", []], "Y": ["int", []]}}',
    ],
    ids=lambda text: text[:60],
)
def test_layouts_made_by_hand_are_refused(text):
    with pytest.raises(ValueError, match="got a layout"):
        Layout.from_json(text)


def test_rows_of_other_sizes_are_refused():
    graph = rag()
    layout = Layout.of(graph)
    row = layout.pack(graph)
    row["x"] = torch.frombuffer(pack_tensor(graph.x[:, :4]), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"got x of float32 \[\d+, 4\], expected sizes \[-1, 9\]"):
        layout.unpack(row)


def test_layouts_are_text():
    layout = Layout.of(rag())
    assert json.loads(layout.to_json())["graph"] == "ImageGraph" and Layout.from_json(layout.to_json()) == layout
