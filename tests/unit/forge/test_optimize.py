from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest

import edgewise.forge.job
import edgewise.forge.prepare as preparation
import edgewise.forge.search.bench as workbench
from edgewise.contracts.budget import Budget
from edgewise.contracts.evidence import Status
from edgewise.contracts.project import Effort
from edgewise.contracts.recipe import Format, Recipe
from edgewise.contracts.run import Run
from edgewise.errors import ModelError
from edgewise.forge.data.open import TEST, open_split
from edgewise.forge.judge import Judgement
from edgewise.forge.judges import Failure, LocalJudges
from edgewise.forge.lower.lowering import lower
from edgewise.forge.optimize import optimize
from edgewise.forge.progress import Silent
from edgewise.forge.search.plan import PLANS
from edgewise.runtimes import available
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.forge.children import ROOT, demo_project, quick_plan, small_demo

pytestmark = pytest.mark.slow


ROOMY = Budget(size_mib=64.0)
"""A limit on size has the fast effort look at all formats."""


class Spy:
    """A test split that notes the phase in which each of its samples is read."""

    def __init__(self, split: Any, phases: list[str]) -> None:
        self._split = split
        self._phases = phases
        self.read_in: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._split, name)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int, /) -> Any:
        self.read_in.append(self._phases[-1])
        return self._split[index]


class Phases(Silent):
    """Notes the phases of a run."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self, phase: str, total: int | None) -> None:
        self.names.append(phase)
        super().start(phase, total)


class Finished(msgspec.Struct):
    """A run, where it was written, its phases and the test splits it opened."""

    run: Run
    output: Path
    phases: Phases
    tests: list[Spy]

    @property
    def recipe(self) -> Recipe:
        assert self.run.chosen is not None
        return self.run.chosen.recipe


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data, a quick plan, and one empty cache of measured costs for all runs of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(PLANS, Effort.DEFAULT, quick_plan())
        yield small_demo(tmp_path_factory.mktemp("demo"))


def spied(effort: Effort, place: Path, output: Path) -> Finished:
    phases, tests = Phases(), []

    def spying(split: str, **options: Any) -> Any:
        found = open_split(split, **options)
        if split != TEST:
            return found
        tests.append(Spy(found, phases.names))
        return tests[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "open_split", spying)
        run = optimize(demo_project(effort), base=place, output=output, progress=phases)
    return Finished(run, output, phases, tests)


@pytest.fixture(scope="module")
def thorough(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The demo at default effort."""
    return spied(Effort.DEFAULT, place, tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="module")
def quick(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The demo at the fast effort."""
    return spied(Effort.FAST, place, tmp_path_factory.mktemp("fast"))


def fast(place: Path, output: Path, *, budget: Budget | None = None) -> Run:
    return optimize(demo_project(Effort.FAST, budget), base=place, output=output)


def shipped(output: Path) -> bytes:
    """Return the chosen file's bytes."""
    run = msgspec.json.decode((output / "evidence.json").read_bytes(), type=Run)
    assert run.chosen is not None
    return (output / "variants" / Path(run.chosen.path or "").name).read_bytes()


def judged(output: Path) -> dict[Path, int]:
    return {each: each.stat().st_mtime_ns for each in (output / ".edgewise" / "found").glob("*.json")}


def test_the_evidence_is_the_run_and_the_chosen_file_runs(thorough: Finished) -> None:
    run, output = thorough.run, thorough.output
    assert msgspec.json.decode((output / "evidence.json").read_bytes(), type=Run, strict=True) == run
    assert run.chosen is not None
    assert run.chosen.path is not None
    assert (run.chosen.speedup or 0) >= 1.0
    assert run.chosen.flip_rate is not None
    assert run.data.test == 120
    assert run.budget.fits
    assert {"import", "search", "measure", "final evidence", "total"} <= run.seconds.keys()
    file = Path(run.chosen.path)
    assert file.read_bytes() == shipped(output)
    assert OnnxRuntime().load(file).outputs
    kept = {Path(each.path): each for each in run.candidates if each.path is not None} | {file: run.chosen}
    assert set((output / "variants").iterdir()) == kept.keys()
    for each in kept:
        assert OnnxRuntime().load(each).outputs
    assert not (output / ".edgewise" / "shortlist").exists()
    assert any(each.status is Status.MEASURED and each.name == "fp32" for each in run.candidates)
    assert len({each.name for each in run.candidates}) == len(run.candidates)


def test_every_region_and_other_runtime_is_in_the_evidence(thorough: Finished) -> None:
    run = thorough.run
    assert run.regions
    assert run.chosen is not None
    if run.chosen.recipe.regions or run.chosen.name != "fp32":
        assert [each.runtime for each in run.agreement] == [name for name in available() if name != "onnxruntime"]


def test_the_same_seed_and_costs_give_the_same_bytes(thorough: Finished, place: Path, tmp_path: Path) -> None:
    run, output = thorough.run, thorough.output
    again = optimize(demo_project(Effort.DEFAULT), base=place, output=tmp_path)
    assert shipped(tmp_path) == shipped(output)
    assert again.chosen is not None
    assert again.chosen.recipe == thorough.recipe
    assert {each.name: each.divergence for each in again.candidates} == {
        each.name: each.divergence for each in run.candidates
    }


def test_a_killed_run_goes_on_and_ends_the_same(
    thorough: Finished, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = thorough.output
    command = [sys.executable, "-m", "tests.unit.forge.children", "optimize", str(place), str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT)
    limit = time.monotonic() + 60
    while len(judged(tmp_path)) < len(judged(finished)) // 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "evidence.json").exists()
    assert not (tmp_path / "variants").exists()
    before = judged(tmp_path)
    assert 0 < len(before) < len(judged(finished))

    counts: list[int] = []

    class Counting(LocalJudges):
        def judge(self, models: Sequence[bytes], **options: Any) -> list[Judgement | Failure]:
            counts.append(len(models))
            return super().judge(models, **options)

    monkeypatch.setattr(edgewise.forge.job, "LocalJudges", Counting)
    again = optimize(demo_project(Effort.DEFAULT), base=place, output=tmp_path)
    assert shipped(tmp_path) == shipped(finished)
    assert again.chosen is not None
    assert again.chosen.recipe == thorough.recipe
    after = judged(tmp_path)
    assert {file: after[file] for file in before} == before
    assert sum(counts) == len(after) - len(before)
    assert len(after) == len(judged(finished))


@pytest.mark.parametrize("effort", ["thorough", "quick"])
def test_what_is_chosen_has_its_size_and_its_peak_memory(effort: str, request: pytest.FixtureRequest) -> None:
    done: Finished = request.getfixturevalue(effort)
    chosen = done.run.chosen
    assert chosen is not None
    assert chosen.size_mib is not None
    assert chosen.peak_memory_mib is not None
    assert chosen.peak_memory_mib > 0


@pytest.mark.parametrize(("effort", "samples"), [("thorough", 120), ("quick", 64)])
def test_the_test_split_is_read_once_and_not_before_the_choice(
    effort: str, samples: int, request: pytest.FixtureRequest
) -> None:
    done: Finished = request.getfixturevalue(effort)
    (spy,) = done.tests
    final = "final evidence on the test split"
    assert spy.read_in.count(final) == done.run.data.test == samples
    # The chosen variant on other runtimes is evidence of the same phase.
    assert all(each == final or each.startswith("the same variant on") for each in spy.read_in)
    assert done.phases.names.count(final) == 1


def test_nothing_fits_an_impossible_budget(place: Path, tmp_path: Path) -> None:
    run = fast(place, tmp_path, budget=Budget(size_mib=0.0001, flip_rate=0.5))
    assert run.chosen is None
    assert not run.budget.fits
    assert run.closest["size_mib"] in {each.name for each in run.candidates}
    assert len(run.advice) == 1
    assert run.advice[0].startswith("size_mib <= 0.0001: the best is 0.")
    assert not (tmp_path / "variants").exists()
    assert msgspec.json.decode((tmp_path / "evidence.json").read_bytes(), type=Run).closest == run.closest


def test_limits_that_all_fail_are_all_answered(place: Path, tmp_path: Path) -> None:
    run = fast(place, tmp_path, budget=Budget(size_mib=0.0001, latency_p50_ms=1e-6, peak_memory_mib=1.0))
    assert run.chosen is None
    assert run.closest.keys() == {"size_mib", "latency_p50_ms", "peak_memory_mib"}
    assert len(run.advice) == 3


def test_a_candidate_that_fails_appears_with_its_reason(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def broken(graph: Any, regions: Any, recipe: Recipe, parameters: Any) -> onnx.ModelProto:
        if any(each.format is Format.INT8_DYNAMIC for each in recipe.regions):
            raise ModelError("injected: no such kernel", next_step="none")
        return lower(graph, regions, recipe, parameters)

    monkeypatch.setattr(workbench, "lower", broken)
    run = fast(place, tmp_path, budget=ROOMY)
    failed = [each for each in run.candidates if each.status is Status.FAILED]
    assert failed
    assert {each.reason for each in failed} == {"injected: no such kernel"}
    assert all(each.divergence is None and each.speedup is None for each in failed)
    assert run.chosen is not None


def test_a_static_format_that_fails_leaves_the_others(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def broken(graph: Any, regions: Any, recipe: Recipe, parameters: Any) -> onnx.ModelProto:
        if recipe.regions:
            raise ModelError("injected: nothing lowers")
        return lower(graph, regions, recipe, parameters)

    monkeypatch.setattr(workbench, "lower", broken)
    run = fast(place, tmp_path, budget=ROOMY)
    assert run.chosen is not None
    assert not run.chosen.recipe.regions
    assert sum(each.status is Status.FAILED for each in run.candidates) >= 3


def test_calibration_memory_does_not_grow_with_samples() -> None:
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-m", "tests.unit.forge.children", "calibrate", count],
                cwd=ROOT,
                check=True,
                capture_output=True,
            ).stdout
        )
        for count in ("100", "1000")
    ]
    assert peaks[1] < 1.1 * peaks[0]
