"""What every file keeps to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "edgewise"
OURS = sorted(
    path
    for folder in ("src", "tests", "scripts", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
MOST_LINES = 400
NAMELESS = {"utils", "util", "common", "helpers", "helper", "misc"}


def called(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_there_is_something_to_look_at() -> None:
    assert len(OURS) > 20
    assert PACKAGE / "errors.py" in OURS


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_over_400_lines_is_two_files(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_every_file_and_folder_has_a_name_of_its_own() -> None:
    named = {part for path in OURS for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not named & NAMELESS


def test_only_the_command_line_prints() -> None:
    quiet = [path for path in OURS if PACKAGE in path.parents and PACKAGE / "cli" not in path.parents]
    assert [str(path.relative_to(ROOT)) for path in quiet if "print" in called(path)] == []
