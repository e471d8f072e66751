"""setup.cfg, constraints.txt, the wheel and the change log agree with each other and the package."""

from __future__ import annotations

import configparser
import re
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import graphseg
from tests.conftest import ROOT, RunPython

EXTRAS = {"ext", "train", "viz", "cluster", "bench", "test"}


def lines(text: str) -> list[str]:
    return [line for line in (part.split("#")[0].strip() for part in text.splitlines()) if line]


def pins(text: str) -> dict[str, Version]:
    """Package name -> exact version; ValueError for a line that does not pin, or pins twice."""
    found: dict[str, Version] = {}
    for line in lines(text):
        requirement = Requirement(line)
        match = re.fullmatch(r"==([^*,]+)", str(requirement.specifier))
        name = canonicalize_name(requirement.name)
        if match is None or name in found:
            raise ValueError(f"got {line!r}, expected one exact pin per package")
        found[name] = Version(match[1])
    return found


def unmet(requirements: list[str], pinned: dict[str, Version]) -> list[str]:
    """What is wrong with each requirement that no pin satisfies."""
    problems = []
    for requirement in map(Requirement, requirements):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None:
            problems.append(f"{requirement}: no pin")
        elif version not in requirement.specifier:
            problems.append(f"{requirement}: pinned to {version}")
    return problems


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def pinned() -> dict[str, Version]:
    return pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))


def test_pins_are_exact_and_single() -> None:
    assert pins("# note\nTorch_Geometric==2.8.1\n") == {"torch-geometric": Version("2.8.1")}
    for bad in ("torch>=2", "torch", "torch==2.*", "torch==2\nTorch==3"):
        with pytest.raises(ValueError, match="one exact pin"):
            pins(bad)


def test_unmet_names_missing_and_too_old_pins() -> None:
    have = {"numpy": Version("2.1")}
    assert unmet(["numpy>=2"], have) == []
    assert unmet(["numpy>=2.2", "scipy>=1"], have) == ["numpy>=2.2: pinned to 2.1", "scipy>=1: no pin"]


def test_every_requirement_is_pinned(config: configparser.ConfigParser, pinned: dict[str, Version]) -> None:
    required = lines(config["options"]["install_requires"])
    for extra in config["options.extras_require"].values():
        required += lines(extra)
    assert unmet(required, pinned) == []
    assert pinned["torch"] == Version("2.13.0")
    assert pinned["torch-geometric"].release[:2] == (2, 8)


def test_required_packages_and_extras(config: configparser.ConfigParser) -> None:
    required = {Requirement(line).name for line in lines(config["options"]["install_requires"])}
    assert {"torch", "torch-geometric", "networkx", "scikit-image", "numba"} <= required
    assert required.isdisjoint({"torch-scatter", "torch-cluster", "torchvision", "matplotlib", "lightning"})
    assert set(config["options.extras_require"]) == EXTRAS


def test_python_versions(config: configparser.ConfigParser) -> None:
    supported = SpecifierSet(config["options"]["python_requires"])
    admitted = [f"3.{minor}" for minor in range(9, 16) if Version(f"3.{minor}.1") in supported]
    assert admitted == ["3.11", "3.12", "3.13"]
    classifiers = lines(config["metadata"]["classifiers"])
    assert [c for c in classifiers if re.search(r":: 3\.\d", c)] == [
        f"Programming Language :: Python :: {version}" for version in admitted
    ]


def test_pyproject_holds_build_system_and_ruff_only() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(settings) == {"build-system", "tool"}
    assert set(settings["tool"]) == {"ruff"}
    # The isolated build environment: torch must not be fetched into it.
    assert [Requirement(r).name for r in settings["build-system"]["requires"]] == ["setuptools"]


def test_changelog_names_the_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == graphseg.__version__


def test_wheel_holds_the_whole_package(tmp_path: Path, run_python: RunPython) -> None:
    """Built where torch cannot be imported: the version is read from the source, not by running it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "graphseg", copy / "graphseg", ignore=shutil.ignore_patterns("__pycache__"))
    build = (
        "import sys; sys.modules['torch'] = None\n"
        "from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    )
    run_python("-c", build, str(tmp_path), cwd=copy)

    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"graphseg-{graphseg.__version__}-py3-none-any.whl"
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "graphseg").rglob("*")
        if path.suffix in (".py", ".jinja", ".css", ".js") or path.name == "py.typed"
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert "graphseg/py.typed" in source
    assert {name for name in packed if ".dist-info/" not in name} == source
    assert any(name.endswith("licenses/LICENSE") for name in packed)
