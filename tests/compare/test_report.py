"""The report: what stands in the page, that nothing from outside gets out of its place, and the page in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from torch_geometric.data import Data

from graphseg.compare.overlay import overlay_picture, photograph_picture
from graphseg.compare.report import PHOTOGRAPH, write_report
from graphseg.compare.table import MEASURES
from graphseg.transforms import ToKNNGraph, ToPixelGrid, ToSuperpixelRAG
from tests.compare.browser import Browser, browser, find_browser

HOSTILE = (
    "<img src=x onerror=document.title='owned'>",
    '"></script><script>document.title="owned"</script>',
    "'--><!-- {{ 7 * 7 }} &amp; \u2028\u2029 </style>",
    "图\u0301ß \U0001f600 \u202eabc",
)
NAMES = ("grid", "SLIC 20", "SLIC 60", "kNN", "broken")
IMAGES = ("astronaut.png", "coffee.png")
VOID = {"meta", "link", "img", "input", "br", "hr"}


# Results to be shown.


def measured(names: tuple[str, ...] = NAMES, leave_out: tuple[str, ...] = (), count: int = 6) -> list[dict[str, Any]]:
    """Plausible means: construction k costs more and scores higher than those before it, but for the last one."""
    records = []
    for k, name in enumerate(names):
        for n, (measure, entry) in enumerate(MEASURES.items()):
            if entry.group in leave_out or name == "broken":
                continue
            rank = k if k < 3 else 0.5
            mean = {"share": 0.5 + 0.1 * rank + 0.001 * n, "count": 10.0 ** (1 + rank), "s": 0.01 * 2**rank}
            value = mean.get(entry.unit, 100.0 * (1 + rank))
            records.append(
                {"construction": name, "measure": measure, "mean": value, "std": value / 10, "count": count}
                | {"low": value * 0.95, "high": value * 1.05}
            )
    return records


def rows_of(names: tuple[str, ...] = NAMES, images: tuple[str, ...] = IMAGES) -> list[dict[str, Any]]:
    """Nodes and edges of each; "broken" fails everywhere and "kNN" on the last image."""
    rows: list[dict[str, Any]] = []
    for k, name in enumerate(names):
        for image in images:
            row: dict[str, Any] = {"construction": name, "image": image}
            if name == "broken" or (name == "kNN" and image == images[-1]):
                row["error"] = f"got <b>{name}</b>, expected 3"
            else:
                row |= {"nodes": 10.0 * (k + 1), "edges": 40.0, "seconds": 0.01, "oracle_miou": math.nan}
            rows.append(row)
    return rows


def drawn(names: tuple[str, ...] = NAMES, images: tuple[str, ...] = IMAGES) -> dict[str, dict[str, bytes]]:
    """Pictures of crops of two photographs, of two sizes."""
    transforms = (ToPixelGrid(), ToSuperpixelRAG(20), ToSuperpixelRAG(60), ToKNNGraph(4, num_segments=30))
    crops = (photographs.astronaut()[20:84, 150:230], photographs.coffee()[50:150, 100:180])
    found: dict[str, dict[str, bytes]] = {}
    for image, crop in zip(images, crops, strict=False):
        data = Data(image=torch.from_numpy(crop.copy()).movedim(-1, 0))
        found[image] = {PHOTOGRAPH: photograph_picture(data.image)}
        found[image] |= {name: overlay_picture(t(data)) for name, t in zip(names, transforms, strict=False)}
    found[images[-1]].pop("kNN", None)
    return found


def compared(names: tuple[str, ...] = NAMES) -> list[dict[str, Any]]:
    """A sentence for each pair."""
    pairs = [(a, b, (i + j) % 2 == 1) for i, a in enumerate(names) for j, b in enumerate(names[:i])]
    return [
        {"measure": "probe_miou", "a": a, "b": b, "significant": found, "sentence": f"{a} beside {b}: p = 0.02."}
        for a, b, found in pairs
    ]


FULL: dict[str, Any] = {
    "title": "Two photographs",
    "records": measured(),
    "rows": rows_of(),
    "comparisons": compared(),
    "command": "graphseg compare <images> --out here",
    "versions": {"graphseg": "0.1.0", "torch": "2.13.0"},
    "notes": ["Judged on 2 images."],
}


@pytest.fixture(scope="module")
def pictures() -> dict[str, dict[str, bytes]]:
    """Drawn once."""
    return drawn()


# The page as text.


class Page(HTMLParser):
    """Elements with their attributes and all text, in order; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._inside: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(tag)
            self._inside.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._inside.pop()

    def handle_data(self, data: str) -> None:
        for place in self._inside:
            self.elements[place][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        """Attributes and text of elements."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [
            (attrs, re.sub(r"\s+", " ", "".join(text)).strip())
            for name, attrs, text in self.elements
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]

    def data(self) -> Any:
        """What the script reads."""
        return json.loads(self.all("script", id="data")[0][1])


def page_of(folder: Path, **changes: Any) -> Page:
    path = folder / "report.html"
    write_report(path, **{**FULL, **changes})
    return Page(path.read_text("utf-8"))


def links(page: Page) -> list[str]:
    """Everything that could make a browser fetch something."""
    names = ("src", "href", "srcset", "data", "action", "formaction", "poster", "background", "ping", "xlink:href")
    return [str(attrs[name]) for _, attrs, _ in page.elements for name in names if name in attrs]


def test_everything_stands_in_the_page(tmp_path: Path, pictures: Mapping[str, Mapping[str, bytes]]) -> None:
    page = page_of(tmp_path, pictures=pictures)
    assert page.all("title")[0][1] == page.all("h1")[0][1] == "Two photographs"
    assert "5 constructions, 2 images; 2 constructions with failures." in page.all("header")[0][1]
    assert page.all("pre")[0][1] == "graphseg compare <images> --out here"
    assert [text for _, text in page.all("dd")[:2]] == ["0.1.0", "2.13.0"]
    assert page.all("p")[1][1] == "Judged on 2 images."
    data = page.data()
    assert data["constructions"] == list(NAMES)
    assert [image["name"] for image in data["images"]] == list(IMAGES)
    assert [(image["width"], image["height"]) for image in data["images"]] == [(80, 64), (80, 100)]
    assert [image["drawn"] for image in data["images"]] == [[True] * 4 + [False], [True] * 3 + [False] * 2]
    assert data["images"][0]["facts"][1] == "20 nodes · 40 edges · 10.0 ms"
    assert data["images"][1]["facts"][3] == "failed: got <b>kNN</b>, expected 3"
    assert {measure["name"] for measure in data["measures"]} == set(MEASURES)
    means = {(r["construction"], r["measure"]): [r["mean"], r["low"], r["high"]] for r in FULL["records"]}
    for measure in data["measures"]:
        expected = [means.get((name, measure["name"]), [None] * 3) for name in NAMES]
        assert measure["values"] == expected
    sentences = [text for attrs, text in page.all("li") if "data-ends" in attrs]
    assert sorted(sentences) == sorted(record["sentence"] for record in FULL["comparisons"])
    assert "6 of 10 pairs differ significantly." in page.all("section", id="comparisons")[0][1]


def test_pictures_are_stored_once_each(tmp_path: Path, pictures: Mapping[str, Mapping[str, bytes]]) -> None:
    page = page_of(tmp_path, pictures=pictures)
    stored = {attrs["id"]: str(attrs["href"]) for attrs, _ in page.all("image")}
    assert len(stored) == sum(map(len, pictures.values()))
    for i, image in enumerate(IMAGES):
        for name, data in pictures[image].items():
            key = f"photo-{i}" if name == PHOTOGRAPH else f"overlay-{i}-{NAMES.index(name)}"
            kind, text = stored[key].split(";base64,")
            assert base64.b64decode(text) == data
            assert kind == f"data:image/{(Image.open(io.BytesIO(data)).format or '').lower()}"
    size = (tmp_path / "report.html").stat().st_size
    assert size < 1.4 * sum(len(data) for files in pictures.values() for data in files.values()) + 200_000


def test_tables_hold_the_numbers_units_and_groups(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    tables = [attrs["data-table"] for attrs, _ in page.all("div", class_="table")]
    assert tables == ["summary", "cost", "image", "labels", "structure", "probe"]
    assert [text for _, text in page.all("th", scope="colgroup")] == ["Cost", "Image", "Labels", "Structure", "Probe"]
    heads = {str(attrs["data-measure"]): text for attrs, text in page.all("th", scope="col")}
    assert set(heads) == {"", *MEASURES}
    assert heads["seconds"] == "build time ↓ms" and heads["oracle_miou"] == "oracle mIoU ↑"
    texts = [text for _, text in page.all("td")]
    assert "10.09.5–10.5" in texts  # milliseconds, with their interval
    titles = {text: attrs.get("title") for attrs, text in page.all("td")}
    for record in FULL["records"]:
        if record["measure"] in ("probe_miou", "purity"):
            low, mean, high = (f"{record[key]:.3f}" for key in ("low", "mean", "high"))
            over = "seeds" if record["measure"] == "probe_miou" else "images"
            assert titles[f"{mean}{low}–{high}"] == f"mean over 6 {over}, standard deviation {record['std']:.3f}"


def test_the_best_means_are_marked(tmp_path: Path) -> None:
    records = [
        {"construction": name, "measure": measure, "mean": mean, "std": None, "low": None, "high": None, "count": 1}
        for name, nodes, score in (("a", 10, 0.5), ("b", 20, 0.7), ("c", 30, 0.70001))
        for measure, mean in (("nodes", nodes), ("oracle_miou", score), ("mean_degree", nodes))
    ]
    page = page_of(tmp_path, records=records, rows=[], comparisons=[])
    assert [text for _, text in page.all("td", class_="best")] == ["10", "0.700", "0.700"]


def test_failures_are_told_in_their_rows_and_listed(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    heads = [text for _, text in page.all("th", scope="row")][: len(NAMES)]
    assert heads == ["grid", "SLIC 20", "SLIC 60", "kNNfailed on 1 of 2 images: got <b>kNN</b>, expected 3", "broken"]
    assert page.all("td", class_="gone")[0][1] == "failed on 2 of 2 images: got <b>broken</b>, expected 3"
    section = page.all("section", id="failures")[0][1]
    assert "kNN: 1 of 2 images got <b>kNN</b>, expected 3 coffee.png" in section
    assert "broken: 2 of 2 images got <b>broken</b>, expected 3 astronaut.png, coffee.png" in section


def test_nothing_is_fetched_and_only_this_script_runs(
    tmp_path: Path, pictures: Mapping[str, Mapping[str, bytes]]
) -> None:
    page = page_of(tmp_path, pictures=pictures)
    assert all(link.startswith(("#", "data:")) for link in links(page))
    assert not [
        attrs for _, attrs, _ in page.elements if any(name.startswith("on") or name == "style" for name in attrs)
    ]
    policy = next(str(a["content"]) for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    text = (tmp_path / "report.html").read_text("utf-8")
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(inside) == 1
        found = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{found}'" in policy
    style, script = (page.all(tag)[-1][1] for tag in ("style", "script"))
    assert "url(" not in style and "@import" not in style
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttp|import\(", script
    )
    assert re.findall(r"https?://[^\"']+", script) == ["http://www.w3.org/2000/svg"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    names = HOSTILE
    files = drawn(names, HOSTILE[:2])
    rows = [{"construction": name, "image": image, "nodes": 3.0} for name in names for image in HOSTILE[:2]]
    rows[0] = {"construction": names[0], "image": HOSTILE[0], "error": HOSTILE[1]}
    page = page_of(
        tmp_path,
        title=HOSTILE[1],
        records=measured(names),
        rows=rows,
        comparisons=[*compared(names), HOSTILE[0]],
        pictures=files,
        command=HOSTILE[1],
        versions={HOSTILE[0]: HOSTILE[2]},
        notes=HOSTILE,
    )
    calm = page_of(tmp_path, records=measured(names), rows=rows, comparisons=[*compared(names), "x"], pictures=files)
    added = [tag for tag, _, _ in page.elements].count
    for tag in ("script", "img", "style", "b"):
        assert added(tag) == [t for t, _, _ in calm.elements].count(tag)
    assert page.data()["constructions"] == list(names)
    assert [image["name"] for image in page.data()["images"]] == list(HOSTILE[:2])
    assert page.all("title")[0][1] == HOSTILE[1]
    assert [text for attrs, text in page.all("button", class_="pick")] == [re.sub(r"\s+", " ", n) for n in names]
    raw = (tmp_path / "report.html").read_text("utf-8")
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', raw, re.DOTALL)
    assert inside is not None and not set("<>&\u2028\u2029") & set(inside[1])


def test_equal_input_gives_equal_bytes(tmp_path: Path, pictures: Mapping[str, Mapping[str, bytes]]) -> None:
    files = []
    for k in range(2):
        write_report(tmp_path / f"{k}.html", **FULL, pictures=pictures)
        files.append((tmp_path / f"{k}.html").read_bytes())
    assert files[0] == files[1]


def test_pages_with_parts_missing(tmp_path: Path, pictures: Mapping[str, Mapping[str, bytes]]) -> None:
    def ids(page: Page) -> set[str]:
        return {str(attrs["id"]) for attrs, _ in page.all("section")}

    everything = {"pictures", "results", "plots", "comparisons", "failures"}
    assert ids(page_of(tmp_path, pictures=pictures)) == everything
    page = page_of(tmp_path, records=measured(leave_out=("labels", "probe")), comparisons=[], pictures=pictures)
    assert ids(page) == everything - {"comparisons"}
    plots = [(attrs["data-x"], attrs["data-y"]) for attrs, _ in page.all("figure", class_="plot")]
    assert plots == [("nodes", "explained_variation"), ("seconds", "explained_variation")]
    plots = [(a["data-x"], a["data-y"]) for a, _ in page_of(tmp_path).all("figure", class_="plot")]
    assert plots == [("nodes", "oracle_miou"), ("probe_epoch_seconds", "probe_miou")]
    one = ("grid",)
    page = page_of(tmp_path, records=measured(one, count=1), rows=rows_of(one, IMAGES[:1]), comparisons=[], pictures={})
    assert "1 construction, 1 image." in page.all("header")[0][1]
    assert ids(page) == {"results", "plots"}
    assert page.all("td", class_="best") == []  # alone there is no best
    page = page_of(tmp_path, records=[], rows=[r for r in rows_of() if "error" in r], comparisons=[])
    assert ids(page) == {"failures"}
    page = page_of(tmp_path, records=[], rows=[], comparisons=[], command="", versions=None, notes=())
    assert ids(page) == set() and "0 constructions." in page.all("header")[0][1]
    few = [record for record in measured() if record["measure"] in ("nodes", "purity")]
    page = page_of(tmp_path, records=few)
    assert [attrs["data-table"] for attrs, _ in page.all("div", class_="table")] == ["summary"]


def test_unknown_numbers_are_dashes(tmp_path: Path) -> None:
    record = {"construction": "a", "measure": "purity", "mean": math.nan, "std": None, "low": math.nan, "high": None}
    other = {
        "construction": "a",
        "measure": "my_own",
        "mean": 1.5,
        "std": math.inf,
        "low": -1.0,
        "high": 4.0,
        "count": 3,
    }
    page = page_of(tmp_path, records=[record, other], rows=[], comparisons=["All is well."])
    assert sorted(text for _, text in page.all("td") if text) == ["1.50-1.00 to 4.00", "–"]
    values = {measure["name"]: measure["values"] for measure in page.data()["measures"]}
    assert values == {"purity": [[None, None, None]], "my_own": [[1.5, -1.0, 4.0]]}
    assert "All is well." in page.all("section", id="comparisons")[0][1]


def test_pictures_of_other_kinds(tmp_path: Path) -> None:
    webp, png = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (9, 7)).save(webp, "WEBP")
    Image.new("RGBA", (18, 14)).save(png, "PNG")
    page = page_of(tmp_path, pictures={"a": {PHOTOGRAPH: webp.getvalue()}, "b": {"grid": png.getvalue()}, "c": {}})
    assert [(image["width"], image["height"]) for image in page.data()["images"]] == [(9, 7), (18, 14)]
    assert [attrs["id"] for attrs, _ in page.all("rect") if "width" in attrs][-1] == "photo-1"  # no photograph
    with pytest.raises(ValueError, match=r"got a picture that begins with b'<svg>', expected a PNG, JPEG or WebP file"):
        page_of(tmp_path, pictures={"a": {PHOTOGRAPH: b"<svg>"}})
    with pytest.raises(KeyError, match="mean"):
        page_of(tmp_path, records=[{"construction": "a", "measure": "nodes"}])


# The page in a browser.


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all tests."""
    path = find_browser()
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    with browser(path) as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, pictures: Mapping[str, Mapping[str, bytes]]) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, **FULL, pictures=pictures)
    return path


def outside(found: Browser) -> list[str]:
    """Requests beyond the page itself and the data in it."""
    return [url for url in found.requests[1:] if not url.startswith("data:")]


def view(found: Browser) -> list[float]:
    """x, y, width and height of what the large picture shows."""
    return [float(v) for v in found.run("document.querySelector('#viewer').getAttribute('viewBox')").split()]


def overlays(found: Browser, selector: str = "#viewer") -> list[str]:
    """What lies in a picture, bottom to top."""
    script = f"[...document.querySelectorAll({json.dumps(selector + ' use')})].map(e => e.getAttribute('href'))"
    return [str(href) for href in found.run(script)]


def order(found: Browser) -> list[list[int]]:
    """Constructions of every table, top to bottom."""
    script = "[...document.querySelectorAll('#results tbody')].map(b => [...b.rows].map(r => +r.dataset.k))"
    rows: list[list[int]] = found.run(script)
    return rows


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_complaints_and_no_requests(chromium: Browser, report: Path, dark: bool) -> None:
    chromium.open(report, dark=dark)
    assert chromium.problems == []
    assert outside(chromium) == []
    assert chromium.run("document.title") == "Two photographs"


def test_the_switches_switch(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    assert overlays(chromium) == ["#photo-0", "#overlay-0-0"]
    chromium.choose("#construction", 2)
    assert overlays(chromium) == ["#photo-0", "#overlay-0-2"]
    assert chromium.run("document.querySelector('#shown').textContent") == "SLIC 60"
    chromium.choose("#image", 1)
    assert overlays(chromium) == ["#photo-1", "#overlay-1-2"]
    assert view(chromium) == [0, 0, 80, 100]
    assert overlays(chromium, '.thumb[data-k="1"]') == ["#photo-1", "#overlay-1-1"]
    caption = chromium.run("document.querySelector('.stage figcaption').textContent")
    assert " ".join(caption.split()) == "SLIC 60 30 nodes · 40 edges · 10.0 ms"
    chromium.click('.pick[data-k="3"]')  # failed on this image
    assert overlays(chromium) == ["#photo-1", "None"]
    assert "failed: got <b>kNN</b>" in chromium.run("document.querySelector('#facts').textContent")
    assert chromium.run("document.querySelector('#construction').value") == "3"
    chromium.click('.thumb[data-k="1"]')
    assert overlays(chromium) == ["#photo-1", "#overlay-1-1"]
    chromium.click("#graph")
    assert overlays(chromium) == ["#photo-1", "None"]
    pressed = "[...document.querySelectorAll('.pick')].map(e => e.getAttribute('aria-pressed'))"
    assert chromium.run(pressed) == ["false", "true", "false", "false", "false"]
    assert chromium.problems == []


def test_the_picture_zooms_and_moves(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    assert view(chromium) == [0, 0, 80, 64]
    chromium.click("#zoom-in")
    assert view(chromium) == pytest.approx([80 / 6, 64 / 6, 80 / 1.5, 64 / 1.5], abs=1e-3)
    assert chromium.run("document.querySelector('#zoom').textContent") == "1.5×"
    thumb = chromium.run("document.querySelector('.thumb').getAttribute('viewBox')")
    assert [float(v) for v in thumb.split()] == view(chromium)  # the small ones follow
    chromium.click("#zoom-all")
    assert view(chromium) == [0, 0, 80, 64]
    x, y = chromium.place("#viewer")
    chromium.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    assert view(chromium) == [0, 0, 80, 64]  # not before a click: the page would scroll
    chromium.click("#viewer")
    x, y = chromium.place("#viewer")
    chromium.mouse("mouseWheel", x, y, deltaX=0, deltaY=-200)
    chromium.run("new Promise(requestAnimationFrame)")
    zoomed = view(chromium)
    assert zoomed[2] < 60
    chromium.mouse("mousePressed", x, y)
    chromium.mouse("mouseMoved", x - 60, y - 30, buttons=1)
    chromium.mouse("mouseReleased", x - 60, y - 30)
    moved = view(chromium)
    assert moved[0] > zoomed[0] and moved[1] > zoomed[1] and moved[2:] == zoomed[2:]
    for key in ("+", "ArrowLeft", "ArrowDown"):
        before = view(chromium)
        chromium.key(key)
        assert view(chromium) != before
    for _ in range(20):
        chromium.key("+")
    assert view(chromium)[2] == pytest.approx(80 / 32, abs=1e-3)
    assert chromium.run("getComputedStyle(document.querySelector('#viewer use')).imageRendering") == "pixelated"
    for _ in range(120):
        chromium.key("ArrowLeft")
    assert view(chromium)[0] == 0
    chromium.key("0")
    assert view(chromium) == [0, 0, 80, 64]
    assert chromium.problems == []


def test_pinching_zooms(chromium: Browser, report: Path) -> None:
    chromium.open(report, 390, 800, touch=True)
    x, y = chromium.place("#viewer")

    def touch(kind: str, *away: float) -> None:
        points = [{"x": x + d, "y": y, "id": i} for i, d in enumerate(away)]
        chromium.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    touch("touchStart", -20, 20)
    touch("touchMove", -60, 60)
    touch("touchEnd")
    assert view(chromium)[2] == pytest.approx(80 / 3, rel=0.1)
    assert view(chromium)[0] == pytest.approx((80 - 80 / 3) / 2, abs=4)


def test_sorting_sorts_numbers_and_names(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    head = '[data-table="summary"] th[data-measure="{}"] button'
    state = "document.querySelector('[data-table=summary] th[data-measure={}]').getAttribute('aria-sort')"
    every = len(order(chromium))
    assert every == 6 and order(chromium) == [[0, 1, 2, 3, 4]] * every
    chromium.click(head.format("nodes"))  # 10, 100, 1000, 32, none: the best first
    assert order(chromium) == [[0, 3, 1, 2, 4]] * every
    assert chromium.run(state.format("nodes")) == "ascending"
    chromium.click(head.format("nodes"))
    assert order(chromium) == [[2, 1, 3, 0, 4]] * every  # what failed stays last
    assert chromium.run(state.format("nodes")) == "descending"
    chromium.click(head.format("nodes"))
    assert order(chromium) == [[0, 1, 2, 3, 4]] * every
    assert chromium.run(state.format("nodes")) is None
    chromium.click(head.format("oracle_miou"))
    assert order(chromium) == [[2, 1, 3, 0, 4]] * every
    chromium.click('[data-table="summary"] th.name button')  # names, as people sort them
    assert order(chromium) == [[4, 0, 3, 1, 2]] * every
    chromium.run("document.querySelector('[data-table=summary] th[data-measure=edges] button').focus()")
    chromium.key("Enter")
    assert order(chromium) == [[0, 3, 1, 2, 4]] * every
    assert chromium.problems == []


def test_tables_are_shown_one_by_one_or_all(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    shown = "[...document.querySelectorAll('.table')].filter(e => e.offsetParent).map(e => e.dataset.table)"
    assert chromium.run(shown) == ["summary"]
    chromium.click('.tabs [data-table="structure"]')
    assert chromium.run(shown) == ["structure"]
    chromium.click('.tabs [data-table=""]')
    assert chromium.run(shown) == ["summary", "cost", "image", "labels", "structure", "probe"]


def test_plots_show_points_fronts_and_what_is_chosen(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    points = (
        "[...document.querySelectorAll('.plot')[{}].querySelectorAll('.point')].map(e => e.getAttribute('aria-label'))"
    )
    found = chromium.run(points.format(0))
    assert found[1] == "SLIC 20, nodes: 100, oracle mIoU: 0.611, on the Pareto front"
    assert len(found) == 4
    caption = "document.querySelectorAll('.plot')[{}].querySelector('figcaption').textContent"
    assert chromium.run(caption.format(0)) == "On the front: grid, SLIC 20, SLIC 60, kNN."
    labels = "[...document.querySelectorAll('.plot')[{}].querySelectorAll('.label')].map(e => e.textContent)"
    assert sorted(chromium.run(labels.format(0))) == sorted(NAMES[:4])
    title = "[...document.querySelectorAll('.plot')[{}].querySelectorAll('.title')].map(e => e.textContent)"
    assert chromium.run(title.format(0)) == ["nodes, log scale", "oracle mIoU"]
    chromium.choose(".plot select.y", "undersegmentation_error")  # grows here: the smallest costs least, too
    assert chromium.run(caption.format(0)) == "On the front: grid."
    chromium.choose(".plot select.x", "mean_degree")
    assert chromium.run(caption.format(0)).startswith("No front")
    assert chromium.run("document.querySelectorAll('.plot')[0].querySelectorAll('.front').length") == 0
    chromium.run("document.querySelector('.plot .point').focus()")
    assert chromium.run("document.querySelector('#tip').textContent").startswith("grid\nmean degree: ")
    assert chromium.run("document.querySelector('#tip').hidden") is False
    chromium.key("Escape")
    assert chromium.run("document.querySelector('#tip').hidden") is True
    options = "[...document.querySelector('.plot select.x').options].map(e => e.value)"
    assert chromium.run(options) == list(MEASURES)
    assert chromium.problems == []


def test_points_lie_where_their_values_are(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    chromium.choose(".plot select.x", "edges")
    chromium.choose(".plot select.y", "purity")
    script = """[...document.querySelector('.plot').querySelectorAll('.point')].map(e => {
        const m = e.transform.baseVal[0].matrix; return [m.e, m.f]; })"""
    places = chromium.run(script)
    means = {(r["construction"], r["measure"]): r["mean"] for r in FULL["records"]}
    values = [(math.log10(means[name, "edges"]), -means[name, "purity"]) for name in NAMES[:4]]
    for axis in (0, 1):
        a, b = (places[2][axis] - places[0][axis]), (values[2][axis] - values[0][axis])
        for place, value in zip(places, values, strict=True):
            assert place[axis] - places[0][axis] == pytest.approx(a / b * (value[axis] - values[0][axis]), abs=0.2)


def test_pairs_can_be_chosen(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    shown = "[...document.querySelectorAll('.compared li')].filter(e => e.offsetParent).map(e => e.textContent)"
    assert len(chromium.run(shown)) == 4
    chromium.choose(".compared select", 1)
    assert all("SLIC 20" in text for text in chromium.run(shown))
    chromium.choose(".compared select", "")
    assert len(chromium.run(shown)) == 10


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(chromium: Browser, report: Path, width: int) -> None:
    chromium.open(report, width, 800, touch=True)
    assert chromium.run("document.documentElement.scrollWidth") == width
    chromium.click('.tabs [data-table=""]')
    assert chromium.run("document.documentElement.scrollWidth") == width
    box = "['clientWidth', 'scrollWidth'].map(key => document.querySelector('.scroll')[key])"
    inside, whole = chromium.run(box)
    assert inside < width < whole  # the table scrolls in its own box
    beyond = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .store, svg') &&
        e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className)"""
    assert chromium.run(beyond) == []


def test_dark_mode_changes_colours_and_both_are_readable(chromium: Browser, report: Path) -> None:
    grounds = []
    for dark in (False, True):
        chromium.open(report, dark=dark)
        colours = "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
        text, ground = (luminance(colour) for colour in chromium.run(colours))
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) > 7
        quiet = luminance(chromium.run("getComputedStyle(document.querySelector('.range')).color"))
        assert (max(quiet, ground) + 0.05) / (min(quiet, ground) + 0.05) > 4.5
        grounds.append(ground)
        corner = np.asarray(Image.open(io.BytesIO(chromium.screenshot())).convert("L"))[3, 3]
        assert bool(corner < 60) == dark
    assert grounds[0] > 0.9 and grounds[1] < 0.1


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(...)"."""
    parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_print_shows_everything_and_no_controls(chromium: Browser, report: Path) -> None:
    chromium.open(report, 718, 1000)
    chromium.set_media(kind="print")
    hidden = "['.bar', '.tabs', '.stage', 'nav', '.hint'].filter(s => document.querySelector(s).offsetParent)"
    assert chromium.run(hidden) == []
    assert chromium.run("[...document.querySelectorAll('.table')].every(e => e.offsetParent)") is True
    assert chromium.run("[...document.querySelectorAll('.thumb')].filter(e => e.clientWidth > 100).length") == len(
        NAMES
    )
    rows = "new Set([...document.querySelectorAll('.thumb')].map(e => Math.round(e.getBoundingClientRect().top))).size"
    assert chromium.run(rows) == 2  # side by side
    assert chromium.run("document.querySelector('.of-image').textContent") == "All constructions on astronaut.png"
    assert chromium.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert chromium.run("document.documentElement.scrollWidth") <= 718
    assert chromium.pdf().startswith(b"%PDF")


def test_hostile_names_do_nothing_in_a_browser(chromium: Browser, tmp_path: Path) -> None:
    rows = [{"construction": name, "image": image, "nodes": 3.0} for name in HOSTILE for image in HOSTILE[:2]]
    path = tmp_path / f"{HOSTILE[0].replace('/', '_')} #%20?.html"
    write_report(
        path,
        title="safe",
        records=measured(HOSTILE),
        rows=rows,
        comparisons=compared((*HOSTILE, *NAMES)),
        pictures=drawn(HOSTILE, HOSTILE[:2]),
        notes=HOSTILE,
    )
    chromium.open(path, 390, 800, touch=True)
    chromium.choose("#construction", 1)
    chromium.choose("#image", 1)
    chromium.run("document.querySelector('.plot .point').focus()")
    chromium.run("new Promise(done => setTimeout(done, 100))")
    assert chromium.run("document.title") == "safe"
    assert chromium.run("document.querySelectorAll('img').length") == 0
    assert chromium.run("document.querySelector('#shown').textContent") == HOSTILE[1]
    assert chromium.run("document.documentElement.scrollWidth") == 390
    assert chromium.problems == [] and outside(chromium) == []


@pytest.mark.parametrize("what", ["no labels", "one", "failed only", "nothing", "one measure", "single values"])
def test_sparse_pages_work(chromium: Browser, tmp_path: Path, what: str) -> None:
    plain = {**FULL, "rows": rows_of(), "comparisons": [], "pictures": {}}
    changes: dict[str, dict[str, Any]] = {
        "no labels": {"records": measured(leave_out=("labels", "probe"))},
        "one": {
            "records": measured(("grid",), count=1),
            "rows": rows_of(("grid",), IMAGES[:1]),
            "pictures": drawn(("grid",)),
        },
        "failed only": {"records": [], "rows": [row for row in rows_of() if "error" in row]},
        "nothing": {"records": [], "rows": []},
        "one measure": {"records": [record for record in measured() if record["measure"] == "nodes"]},
        "single values": {"records": [{**r, "mean": 0.0, "low": None, "high": None, "std": None} for r in measured()]},
    }
    path = tmp_path / "report.html"
    write_report(path, **{**plain, **changes[what]})
    chromium.open(path, 390, 800, touch=True)
    assert chromium.problems == []
    assert chromium.run("document.documentElement.scrollWidth") == 390
    assert (
        chromium.run("document.body.textContent.includes('NaN') || document.body.innerHTML.includes('\"NaN')") is False
    )


def test_the_browser_reports_what_goes_wrong(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<link rel=icon href='data:,'><img src='other.png'><script>console.error('oh'); nowhere()</script>")
    chromium.open(path)
    assert any("oh" in problem for problem in chromium.problems)
    assert any("nowhere is not defined" in problem for problem in chromium.problems)
    assert [url.rsplit("/", 1)[1] for url in outside(chromium)] == ["other.png"]
