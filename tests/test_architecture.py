"""Rules of the source: layers, light imports, documented arguments, equations where promised, no local paths.

Each rule is a function from source to a list of problems; small sources in memory show that it finds them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import pkgutil
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

import graphseg
from tests.conftest import ROOT, RunPython

# Top-level file or folder of graphseg -> its layer. It may import from lower layers only.
LAYERS = {
    "_checks": 0,
    "ops": 1,
    "data": 2,
    "transforms": 3,
    "nn": 3,
    "losses": 3,
    "metrics": 3,
    "plot": 3,
    "datasets": 4,
    "models": 4,
    "training": 5,
    "compare": 5,
    "cli": 6,
    "__main__": 7,
}
# Below their layer's due: layers of networks know tensors, not how graphs are stored or made.
HIGHEST_IMPORT = {"nn": 1}


def module_sources() -> dict[str, str]:
    """Dotted module name -> source text, for every file of graphseg."""
    sources = {}
    for path in sorted((ROOT / "graphseg").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


SOURCES = module_sources()


def imported_modules(name: str, sources: Mapping[str, str]) -> set[str]:
    """Modules of `sources` that module `name` imports, anywhere in it.

    A name that is not a module is looked up in the root's own (lazy) imports: `from graphseg import X` counts
    as an import of the module that defines X.
    """
    root = next(iter(sources)).split(".")[0]
    is_package = any(other.startswith(name + ".") for other in sources)
    lazy = {
        alias.name: node.module
        for node in ast.walk(ast.parse(sources.get(root, "")))
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
    found: set[str] = set()
    for node in ast.walk(ast.parse(sources[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: len(name.split(".")) - node.level + is_package]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                module = f"{base}.{alias.name}"
                if module not in sources:
                    module = lazy.get(alias.name, base) if base == root else base
                found.add(module)
    return {module for module in found if module in sources} - {root}


def layer_problems(sources: Mapping[str, str]) -> list[str]:
    """Imports that do not point to a lower layer."""
    problems = []
    root = next(iter(sources)).split(".")[0]
    for name in sources:
        if name == root:
            continue
        unit = name.split(".")[1]
        if unit not in LAYERS:
            problems.append(f"{name}: {unit} has no layer")
            continue
        for module in sorted(imported_modules(name, sources)):
            other = module.split(".")[1]
            highest = min(LAYERS[unit] - 1, HIGHEST_IMPORT.get(unit, LAYERS[unit]))
            if other != unit and LAYERS.get(other, 99) > highest:
                problems.append(f"{name} imports {module}")
    return problems


def import_circles(sources: Mapping[str, str]) -> list[str]:
    """Circles of imports, functions' own imports included."""
    edges = {name: sorted(imported_modules(name, sources)) for name in sources}
    done: set[str] = set()
    circles = []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for other in edges[name]:
                visit(other, [*path, name])
            done.add(name)

    for name in sources:
        visit(name, [])
    return circles


def undocumented(name: str, thing: object) -> list[str]:
    """What the docstring of a public function or class lacks: itself, an "Args:" part, an argument's name."""
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return []
    own = thing.__doc__ or ""
    if not own.strip():
        return [f"{name}: no docstring"]
    described = inspect.isfunction(thing) or "__init__" in vars(thing)
    named = []
    if described:
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        signature = inspect.signature(thing).parameters.values()
        named = [p.name for p in signature if p.kind not in kinds and p.name != "self"]
    if inspect.isclass(thing) and "__init__" in vars(thing):
        own += "\n" + (vars(thing)["__init__"].__doc__ or "")
    arguments = "\n".join(re.split(r"^\s*Args:\s*$", own, flags=re.MULTILINE)[1:])
    return [f"{name}: argument {a} is not described" for a in named if not re.search(rf"\b{a}\b", arguments)]


def undocumented_methods(name: str, thing: object) -> list[str]:
    """Public methods of a class that have no docstring and override nothing that has one."""
    if not inspect.isclass(thing):
        return []
    return [
        f"{name}.{key}: no docstring"
        for key, value in vars(thing).items()
        if not key.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod)))
        and not value.__doc__
        and not any(hasattr(base, key) for base in thing.__bases__)
        and getattr(value, "__module__", thing.__module__) == thing.__module__  # PyG adds methods to its layers
    ]


def equation_problems(source: str) -> list[str]:
    """Equations in the module docstring that no line of code carries as a comment, and vice versa."""
    pattern = re.compile(r"Eq\. ?\((\w+)\)")
    promised = set(pattern.findall(ast.get_docstring(ast.parse(source)) or ""))
    marked = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip():
            marked |= set(pattern.findall(token.string))
    return [f"Eq. ({n}) is promised and on no line of code" for n in sorted(promised - marked)] + [
        f"Eq. ({n}) is on a line of code and not in the docstring" for n in sorted(marked - promised)
    ]


# Put together here, so that this file does not match itself.
_FOLDERS = "|".join(["work", "tmp", "root", "home", "opt", "mnt", "Users", "private"])
_HOSTS = "|".join(
    rf"{name}\.{domain}"
    for name, domain in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download.pytorch", "org"),
        ("data.pyg", "org"),
        ("anaconda", "(?:org|com)"),
        ("conda", "io"),
        ("npmjs", "(?:org|com)"),
    ]
)
LOCAL = re.compile(rf"(?<![\w.)}}\]/-])/(?:{_FOLDERS})(?=[/\s\"'`):;,]|$)|\b[A-Z]:\\Users|{_HOSTS}", re.MULTILINE)


def local_names(text: str) -> list[str]:
    """Paths of one machine, and hosts of package registries."""
    return [match[0] for match in LOCAL.finditer(text)]


def project_files() -> Iterator[Path]:
    """Files of the project: no environments, caches or output."""
    left_out = re.compile(
        r"\.git|\.venv|\..*cache|\.hypothesis|\.coverage.*|__pycache__|.*\.egg-info|build|dist|.*-output"
    )

    def walk(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if left_out.fullmatch(path.name) or (path / "pyvenv.cfg").is_file():
                continue
            if path.is_dir():
                yield from walk(path)
            else:
                yield path

    return walk(ROOT)


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(graphseg.__path__, "graphseg."):
        yield importlib.import_module(found.name)


# The rules find what they are for.


def test_layer_rule_finds_upward_and_sideways_imports() -> None:
    sources = {
        "p": "def f():\n    from p.data.graph import Graph\n",
        "p._checks": "import p.ops.grid",
        "p.ops": "from p.ops.grid import g",
        "p.ops.grid": "from .. import _checks\nfrom p import Graph",
        "p.data": "from .graph import Graph",
        "p.data.graph": "from p import _checks\nfrom p.ops import g",
        "p.nn": "from p.data import graph\nfrom p import ops",
        "p.losses": "def f():\n    from p import nn",
        "p.extra": "",
    }
    assert layer_problems(sources) == [
        "p._checks imports p.ops.grid",
        "p.ops.grid imports p.data.graph",
        "p.nn imports p.data.graph",
        "p.losses imports p.nn",
        "p.extra: extra has no layer",
    ]


def test_circles_are_found() -> None:
    sources = {
        "p": "",
        "p.ops": "from p.ops.a import x",
        "p.ops.a": "def f():\n    from .b import y",
        "p.ops.b": "",
    }
    assert import_circles(sources) == []
    sources["p.ops.b"] = "from . import x"
    assert import_circles(sources) == ["p.ops -> p.ops.a -> p.ops.b -> p.ops"]


def test_undocumented_arguments_are_found() -> None:
    def no_text(x: int) -> None:
        pass

    def half(x: int, size: int, *more: int) -> None:
        """Size is mentioned here.

        Args:
            x: a number.
        """

    class Whole:
        """One.

        Args:
            x: a number.
        """

        def __init__(self, x: int) -> None:
            pass

        def silent(self) -> None:
            pass

        def keys(self) -> None:
            pass

    class Derived(Whole):
        """Two."""

        def silent(self) -> None:
            pass

    assert undocumented("f", no_text) == ["f: no docstring"]
    assert undocumented("f", half) == ["f: argument size is not described"]
    assert undocumented("C", Whole) == []
    assert undocumented_methods("C", Whole) == ["C.silent: no docstring", "C.keys: no docstring"]
    assert undocumented("D", Derived) == []
    assert undocumented_methods("D", Derived) == []


def test_equations_are_found_both_ways() -> None:
    head = '"""Layer.\n\nEquations: Eq. (5) affinity; Eq. (16a) sum.\n"""\n'
    assert equation_problems(head + "a = 1  # Eq. (5)\nb = 2  # [E], Eq. (16a)\n") == []
    assert equation_problems(head + "# Eq. (5)\na = 1\nb = '# Eq. (16a)'\nc = 3  # Eq. (7)\n") == [
        "Eq. (16a) is promised and on no line of code",
        "Eq. (5) is promised and on no line of code",
        "Eq. (7) is on a line of code and not in the docstring",
    ]


@pytest.mark.parametrize("folder", ["work/a", "tmp", "root/b", "home/c"])
def test_local_paths_are_found(folder: str) -> None:
    for text in (f"at /{folder}", f'"/{folder}"', f"a=/{folder}/", f"/{folder}"):
        assert local_names(text), text
    for text in (f"frame/{folder}", f"../{folder}", f"https://a.b/{folder}"):
        assert not local_names(text), text


def test_registry_hosts_are_found() -> None:
    for host in ("pypi." + "org", "files.pythonhosted." + "org", "download.pytorch." + "org"):
        assert local_names(f"pip install -i https://{host}/simple")
    assert not local_names("https://arxiv.org/abs/1 https://pytorch.org/docs")


# The rules hold.


def test_imports_point_downwards() -> None:
    assert "graphseg._checks" in SOURCES
    assert "graphseg.ops" in SOURCES
    assert layer_problems(SOURCES) == []


def test_imports_have_no_circles() -> None:
    assert import_circles(SOURCES) == []


def test_root_imports_nothing_of_its_own_eagerly() -> None:
    eager = [node for node in ast.parse(SOURCES["graphseg"]).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {getattr(node, "module", None) for node in eager} <= {"__future__", "typing"}


# One after the other in one process, with what none of them may have imported by then.
LIGHT = [
    ("import graphseg", "torch numpy torch_geometric numba skimage matplotlib networkx scipy"),
    ("import graphseg.cli", "torch numpy"),
    ("import graphseg.ops", "torch_geometric numba skimage matplotlib"),
    # Not numba itself: PyG imports it where it is installed.
    ("from graphseg import ImageGraph", "graphseg.ops.kernels skimage matplotlib"),
    ("import graphseg.transforms", "graphseg.ops.kernels skimage matplotlib"),
    ("import graphseg.metrics", "graphseg.ops.kernels torchmetrics lightning skimage matplotlib"),
    ("import graphseg.models", "graphseg.ops.kernels torchmetrics lightning skimage matplotlib"),
    ("import graphseg.datasets", "graphseg.ops.kernels dask lightning skimage matplotlib"),
    ("import graphseg.compare", "graphseg.ops.kernels dask lightning skimage matplotlib"),
]


def test_imports_are_light(run_python: RunPython) -> None:
    lines = ["import sys"]
    for statement, absent in LIGHT:
        found = f"[m for m in {absent.split()} if m in sys.modules]"
        lines += [statement, f"for m in {found}: print({statement!r}, 'brings', m)"]
    assert run_python("-c", "\n".join(lines)).stdout == ""


def test_every_folder_of_graphseg_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "graphseg").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_public_names_are_documented() -> None:
    problems: set[str] = set()
    count = 0
    for module in modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            count += 1
            problems |= {*undocumented(name, thing), *undocumented_methods(name, thing)}
    assert count > 0
    assert sorted(problems) == []


def test_promised_equations_stand_on_their_lines() -> None:
    problems = {name: found for name, source in SOURCES.items() if (found := equation_problems(source))}
    assert problems == {}


def test_no_machine_paths_or_registry_hosts() -> None:
    problems = {}
    count = 0
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        count += 1
        if found := local_names(text):
            problems[path.relative_to(ROOT).as_posix()] = found
    assert count > len(SOURCES)
    assert problems == {}
