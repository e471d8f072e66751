"""The constructions that are compared by default, and how to choose among them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from graphseg._checks import is_integer
from graphseg.transforms import ImageTransform, ToAffinityGraph, ToHierarchy, ToKNNGraph, ToPixelGrid, ToSuperpixelRAG

__all__ = ["choose", "default_constructions"]

SLIC_COUNTS = (100, 200, 400, 800)
SCALES = (100, 200, 400)  # of the hierarchy, coarse to fine
NEIGHBOURS = 8  # of each node in the nearest-neighbour graphs
REGION_FEATURES = ("mean", "std", "centroid", "area")
PIXEL_FEATURES = ("mean", "centroid")  # a single pixel has no spread, and all have one area

Named = TypeVar("Named")


def default_constructions(num_classes: int | None = None, ignore_index: int | None = None) -> dict[str, ImageTransform]:
    """A sensible set of constructions, by name, in the order in which a table shows them.

    | name                       | nodes                                    | edges                            |
    |----------------------------|------------------------------------------|----------------------------------|
    | pixel grid 4, pixel grid 8 | pixels                                   | to the 4 or 8 neighbours         |
    | pixel affinity             | pixels                                   | to the 8 at distances 1, 2 and 4 |
    | slic N rag                 | about N = 100, 200, 400, 800 superpixels | where they touch                 |
    | slic N spatial knn         | the same                                 | to the 8 nearest centroids       |
    | slic N feature knn         | the same                                 | to the 8 nearest in features     |
    | felzenszwalb rag           | as many regions as the method finds      | where they touch                 |
    | quickshift rag             | as many regions as the method finds      | where they touch                 |
    | watershed rag              | about 400 regions                        | where they touch                 |
    | slic hierarchy             | about 100, 200, 400 superpixels, nested  | where they touch, and to parents |

    All see the same of an image, so that only nodes and edges differ: regions have the features mean, std, centroid and
    area, pixels those of them that pixels have (mean and centroid), edges have none.

    Args:
        num_classes: K of the masks, for all of them; None: the largest label + 1 of each image.
        ignore_index: mask value that counts for no class; None if there is none.

    Returns:
        Name to transform.

    Raises:
        TypeError, ValueError: for a number of classes under 1, or an ignore_index that is no int.
    """
    if ignore_index is not None and not is_integer(ignore_index):
        raise TypeError(f"got {type(ignore_index).__name__} for ignore_index, expected an int or None")
    labels: dict[str, Any] = {"num_classes": num_classes, "ignore_index": ignore_index}
    pixels: dict[str, Any] = {"node_features": PIXEL_FEATURES, "edge_features": (), **labels}
    regions: dict[str, Any] = {"node_features": REGION_FEATURES, "edge_features": (), **labels}
    found: dict[str, ImageTransform] = {
        "pixel grid 4": ToPixelGrid(4, **pixels),
        "pixel grid 8": ToPixelGrid(8, **pixels),
        "pixel affinity": ToAffinityGraph(**pixels),
    }
    for count in SLIC_COUNTS:
        found[f"slic {count} rag"] = ToSuperpixelRAG(count, **regions)
        found[f"slic {count} spatial knn"] = ToKNNGraph(NEIGHBOURS, "position", count, **regions)
        found[f"slic {count} feature knn"] = ToKNNGraph(NEIGHBOURS, "features", count, **regions)
    found["felzenszwalb rag"] = ToSuperpixelRAG(None, "felzenszwalb", **regions)
    found["quickshift rag"] = ToSuperpixelRAG(None, "quickshift", **regions)
    found["watershed rag"] = ToSuperpixelRAG(400, "watershed", **regions)
    found["slic hierarchy"] = ToHierarchy(SCALES, **regions)
    return found


def choose(names: str | Iterable[str], constructions: Mapping[str, Named]) -> dict[str, Named]:
    """Those constructions that are named, in their own order.

    A request is a name ("slic 200 rag"); a pattern with `*`, `?` or `[...]` ("slic * rag"); or some words of a name,
    which picks all that have them ("rag", "slic 400", "pixel"). Capitals do not matter, and `-` and `_` stand for
    spaces. A name comes before a pattern, and a pattern before words.

    Args:
        names: one request or several; a string may hold several, with commas between them.
        constructions: name to construction.

    Returns:
        Name to construction: the picked ones, each once, in the order of `constructions`.

    Raises:
        TypeError: for a request that is no string.
        ValueError: for a request that nothing fits, or none at all.
    """
    requests = [names] if isinstance(names, str) else list(names)
    for request in requests:
        if not isinstance(request, str):
            raise TypeError(f"got {type(request).__name__} for the name of a construction, expected a string")
    requests = [part for request in requests for part in _split(request, constructions)]
    if not requests:
        raise ValueError(f"got no names of constructions, expected some of {', '.join(constructions)}")
    picked = {name for request in requests for name in _matches(request, constructions)}
    return {name: construction for name, construction in constructions.items() if name in picked}


def _split(request: str, constructions: Mapping[str, Any]) -> list[str]:
    """The parts between commas, unless the whole is a name that has some."""
    if request in constructions:
        return [request]
    return [part.strip() for part in request.split(",") if part.strip()]


def _matches(request: str, constructions: Mapping[str, Any]) -> list[str]:
    if request in constructions:
        return [request]
    wanted = _plain(request)
    plain = {name: _plain(name) for name in constructions}
    fits = [name for name, text in plain.items() if text == wanted]
    fits = fits or [name for name, text in plain.items() if fnmatchcase(text, wanted)]
    fits = fits or [name for name, text in plain.items() if set(wanted.split()) <= set(text.split())]
    if not fits:
        near = difflib.get_close_matches(wanted, list(plain.values()), n=1)
        meant = [name for name, text in plain.items() if text in near]
        hint = f" (was {meant[0]!r} meant?)" if meant else ""
        raise ValueError(f"got construction {request!r}, expected some of {', '.join(constructions)}{hint}")
    return fits


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("-", " ").replace("_", " ").split())
