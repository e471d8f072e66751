"""The default constructions, and choosing among them."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from graphseg.compare.constructions import choose, default_constructions
from graphseg.data.hierarchy import Hierarchy
from tests.transforms.photos import K, photograph, sample

NAMES = list(default_constructions())


def test_the_names_are_these_and_in_this_order() -> None:
    slic = [f"slic {n} {kind}" for n in (100, 200, 400, 800) for kind in ("rag", "spatial knn", "feature knn")]
    regions = ["felzenszwalb rag", "quickshift rag", "watershed rag", "slic hierarchy"]
    assert ["pixel grid 4", "pixel grid 8", "pixel affinity", *slic, *regions] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_one_makes_a_graph_with_the_same_features(name: str) -> None:
    data = photograph()
    graph = default_constructions(K, 255)[name](data)
    assert graph.validate()
    assert graph.num_classes == K
    assert graph.get("edge_attr") is None
    H, W = data.image.shape[1:]
    mean, centroid = graph.x[:, :3], graph.x[:, 3:5] if name.startswith("pixel") else graph.x[:, 6:8]
    assert graph.x.shape[1] == (5 if name.startswith("pixel") else 9)
    colour = graph.pool(data.image / 255)
    torch.testing.assert_close(mean, colour, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(centroid, (graph.pos + 0.5) / torch.tensor([W, H]), rtol=1e-5, atol=1e-6)
    assert isinstance(graph, Hierarchy) == (name == "slic hierarchy")


def test_slic_constructions_of_one_count_have_the_same_nodes() -> None:
    chosen = choose("slic 100", default_constructions())
    first, *others = [transform(photograph()) for transform in chosen.values()]
    assert len(others) == 2
    for graph in others:
        assert torch.equal(graph.assignment, first.assignment)
        assert torch.equal(graph.x, first.x)
        assert not torch.equal(graph.edge_index, first.edge_index)


def test_they_travel_to_other_processes_and_have_recipes_of_their_own() -> None:
    made = pickle.loads(pickle.dumps(default_constructions(3, 7)))
    recipes = {json.dumps(transform.recipe(), sort_keys=True) for transform in made.values()}
    assert len(recipes) == len(NAMES)
    assert all(transform.num_classes == 3 and transform.ignore_index == 7 for transform in made.values())


@pytest.mark.parametrize("valid", ["none", "one", "some"])
@pytest.mark.parametrize("name", ["pixel grid 4", "slic 100 feature knn", "watershed rag", "slic hierarchy"])
def test_images_with_hardly_a_pixel(name: str, valid: str) -> None:
    graph = default_constructions(K)[name](sample(7, 9, valid=valid))
    assert graph.validate()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="got num_classes=0, expected at least 1"):
        default_constructions(0)
    with pytest.raises(TypeError, match="got str for ignore_index, expected an int or None"):
        default_constructions(2, "255")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "count", "first"),
    [
        ("slic 200 rag", 1, "slic 200 rag"),
        ("SLIC-200_rag", 1, "slic 200 rag"),
        ("slic * rag", 4, "slic 100 rag"),
        ("* rag", 7, "slic 100 rag"),
        ("rag", 7, "slic 100 rag"),
        ("slic 400", 3, "slic 400 rag"),
        ("knn", 8, "slic 100 spatial knn"),
        ("feature knn", 4, "slic 100 feature knn"),
        ("pixel", 3, "pixel grid 4"),
        ("pixel grid ?", 2, "pixel grid 4"),
        ("*", 19, "pixel grid 4"),
        ("watershed,pixel grid 4", 2, "pixel grid 4"),
        (["watershed", "pixel grid 4", "pixel"], 4, "pixel grid 4"),
    ],
)
def test_names_patterns_and_words_pick(request_: str | list[str], count: int, first: str) -> None:
    constructions = default_constructions()
    chosen = choose(request_, constructions)
    assert len(chosen) == count
    assert next(iter(chosen)) == first
    assert list(chosen) == [name for name in constructions if name in chosen]
    assert all(chosen[name] is constructions[name] for name in chosen)


def test_a_name_comes_before_patterns_and_words() -> None:
    mine = {"slic": 1, "slic fine": 2, "slic [a]": 3, "slic a": 4, "a, b": 5, "b": 6}
    assert choose("slic", mine) == {"slic": 1}
    assert choose("slic [a]", mine) == {"slic [a]": 3}
    assert choose("slic [ab]", mine) == {"slic a": 4}
    assert choose("a, b", mine) == {"a, b": 5}
    assert choose("fine", mine) == {"slic fine": 2}


def test_what_nothing_fits_is_refused_by_name() -> None:
    made = default_constructions()
    with pytest.raises(ValueError, match=r"got construction 'slic 20 rag', .* \(was 'slic 200 rag' meant\?\)"):
        choose("slic 20 rag", made)
    with pytest.raises(ValueError, match=r"got construction 'xyz', expected some of pixel grid 4, .*hierarchy$"):
        choose(["rag", "xyz"], made)
    with pytest.raises(ValueError, match="got no names of constructions"):
        choose(" , ", made)
    with pytest.raises(ValueError, match="got no names of constructions"):
        choose([], made)
    with pytest.raises(TypeError, match="got int for the name of a construction, expected a string"):
        choose([3], made)  # type: ignore[list-item]
