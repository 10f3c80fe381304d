"""The reference pages are complete and current."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edgewise import __version__, errors
from edgewise.contracts.project import Project
from edgewise.contracts.rules import RULES
from edgewise.contracts.schema import run_schema, verification_schema
from edgewise.contracts.toml_ import parse_project, sections
from edgewise.fleet.api.describe import describe_api

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_schema_of_the_run_document_is_current() -> None:
    assert read("reference/run.schema.json") == run_schema(), "run scripts/write_schema.py"


def test_the_schema_of_the_verification_is_current() -> None:
    assert read("reference/verification.schema.json") == verification_schema(), "run scripts/write_schema.py"


def test_the_page_of_the_fleet_api_is_current() -> None:
    assert read("reference/fleet-api.md") == describe_api(), "run scripts/write_fleet_api.py"


def test_the_reference_names_every_key_with_its_words() -> None:
    page = read("reference/edgewise-toml.md")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", page, re.MULTILINE))
    assert rows == {".".join(path): rule.words for path, rule in RULES.items()}


def test_the_reference_names_every_section() -> None:
    headings = re.findall(r"^## `\[([\w.]+)\]`", read("reference/edgewise-toml.md"), re.MULTILINE)
    assert headings == [".".join(path) for path in sections(Project) if path]


def test_the_reference_names_every_error() -> None:
    kinds = [errors.EdgewiseError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    named = re.findall(r"^\| `(\w+)` \|", read("reference/errors.md"), re.MULTILINE)
    assert sorted(named) == sorted(kind.__name__ for kind in kinds[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_configuration_shown_is_valid(page: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        whole = "" if "[model]" in block else '[model]\npath = "m.onnx"\n'
        whole += block if "[task]" in block else f'{block}\n[task]\ncalibrate = "c.npz"\n'
        parse_project(whole, source=page.name)


def test_the_contracts_of_imports_name_every_place() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = configuration["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = read("architecture.md")
    for place in {name for line in layers for name in re.findall(r"\w+", line)}:
        assert re.search(rf"^ +{place}(/|\.py)", drawn, re.MULTILINE), place


def test_the_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
