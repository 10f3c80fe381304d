"""The benchmarks that drive the tests' servers and agents start as their documentation says, from any folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
USERS = sorted(
    path for path in BENCHMARKS.glob("*.py") if re.search(r"^from tests\.", path.read_text(), re.MULTILINE)
)  # fmt: skip


@pytest.mark.parametrize("script", USERS, ids=lambda path: path.stem)
def test_a_script_that_uses_the_tests_makes_them_importable_first(script: Path) -> None:
    before, _, _ = script.read_text().partition("\nfrom tests.")
    assert "\nimport checkout" in before


def test_such_a_script_starts_as_it_is_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "src"))  # no more than an installed package gives
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "fleet_storm.py", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--devices" in done.stdout


def test_the_governor_keeps_its_promises_over_a_recorded_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent / "src"))
    trace = BENCHMARKS.parent / "tests" / "unit" / "device" / "governor" / "traces" / "busy-machine.csv"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "governor.py", "--replay", trace],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "DOES NOT HOLD" not in done.stdout
    # Both pressures, both returns, the dwell time, and fewer misses than without it.
    assert done.stdout.count(": holds") == 6
