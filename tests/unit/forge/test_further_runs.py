"""Runs on two runtimes whose times are made up: what is chosen, and where its evidence comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import edgewise.forge.job as jobs
from edgewise.bundle.read import Bundle
from edgewise.cli.main import run as command
from edgewise.contracts.evidence import Candidate, EnergyProvenance, Status
from edgewise.contracts.project import Effort
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.run import Run
from edgewise.contracts.target import PowerModel, RuntimeName
from edgewise.errors import ExecutionError
from edgewise.forge.costs import profiled
from edgewise.forge.judge import Comparison, compare
from edgewise.forge.measure.energy import Energy
from edgewise.forge.measure.lab import Feeds, Here, Model, Timed
from edgewise.forge.optimize import optimize
from edgewise.forge.seal import drift
from edgewise.forge.seal.sources import open_run
from edgewise.forge.search.plan import PLANS
from edgewise.forge.verify.given import given_by_run
from edgewise.keys.files import save_pair
from edgewise.keys.pair import generate
from edgewise.runtimes.base import Session
from edgewise.runtimes.onnxruntime_ import OnnxRuntimeSession
from edgewise.runtimes.openvino_ import OpenVino, OpenVinoSession
from edgewise.runtimes.timing import Timings
from tests.unit.forge.children import on_both, quick_plan, small_demo

FIRST, OTHER = RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO
OWN = "fp32 on openvino"
Better = Callable[[str, RuntimeName], bool]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("demo"))


class Seen(msgspec.Struct):
    """A run's folder, and what its final evidence was taken on."""

    output: Path
    tested: list[tuple[type[Session], type[Session]]] = []
    profiled: list[str] = []
    energy: list[type[Session]] = []
    peaks: list[tuple[str, str]] = []

    @property
    def run(self) -> Run:
        return msgspec.json.decode((self.output / "evidence.json").read_bytes(), type=Run)

    def named(self, name: str) -> Candidate:
        return next(each for each in self.run.candidates if each.name == name)


def forced(place: Path, output: Path, *, effort: Effort, better: Better) -> Seen:
    """Optimize on both runtimes as if those that are `better` were ten times as fast as fp32, all others slower."""
    seen = Seen(output=output / "run")
    real_time, real_peak = Here.time, Here.peak_mib

    def time(self: Here, models: Mapping[str, Model], feeds: Sequence[Feeds], **options: Any) -> Timed:
        found = real_time(self, models, feeds, **options)
        if len({where for where, _ in models.values()}) == 1:
            return found  # what corrects the cost model of the search
        whole = found.times["fp32"].rounds_ms
        by = {name: 0.1 if better(name, where) else 2.0 for name, (where, _) in models.items()} | {"fp32": 1.0}
        return Timed({name: Timings(tuple(each * by[name] for each in whole)) for name in found.times}, found.failures)

    def peak(self: Here, model: Model, feeds: Sequence[Feeds], *, threads: int) -> float:
        seen.peaks.append((model[0], str(model[1])))
        return real_peak(self, model, feeds, threads=threads)

    def energy(_: Here, session: Session, feeds: Sequence[Feeds], *, power: PowerModel | None) -> Energy:
        assert feeds
        assert power is None
        seen.energy.append(type(session))
        return Energy(energy_mj=None, provenance=EnergyProvenance.UNAVAILABLE)

    def comparing(task: Any, fp32: Session, variant: Session, *arguments: Any, **options: Any) -> Comparison:
        seen.tested.append((type(fp32), type(variant)))
        return compare(task, fp32, variant, *arguments, **options)

    def profiling(runtime: Any, *arguments: Any, **options: Any) -> Any:
        seen.profiled.append(runtime.name)
        return profiled(runtime, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(output / "cache"))  # times are kept there
        patch.setitem(PLANS, Effort.DEFAULT, quick_plan())
        for where, name, fake in (
            (Here, "time", time),
            (Here, "peak_mib", peak),
            (Here, "energy", energy),
            (jobs, "compare", comparing),
            (jobs, "profiled", profiling),
        ):
            patch.setattr(where, name, fake)
        optimize(on_both(effort), base=place, output=seen.output)
    return seen


@pytest.fixture(scope="module")
def elsewhere(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A run whose quantized variants are fast on the second runtime only."""
    output = tmp_path_factory.mktemp("elsewhere")
    return forced(
        place, output, effort=Effort.DEFAULT, better=lambda name, where: where is OTHER and "fp32" not in name
    )


@pytest.mark.slow
def test_both_runtimes_have_candidates_of_their_own(elsewhere: Seen) -> None:
    run = elsewhere.run
    measured = [each for each in run.candidates if each.status is Status.MEASURED]
    here = {each.name: each for each in measured if each.runtime == FIRST}
    there = {each.name: each for each in measured if each.runtime == OTHER}
    assert len(here) > 2
    assert there.keys() == {f"{name} on openvino" for name in here}
    for name, each in here.items():
        other = there[f"{name} on openvino"]
        assert (other.recipe, other.size_mib) == (each.recipe, each.size_mib)
        assert other.speedup is not None
        assert other.divergence != each.divergence
        assert other.peak_memory_mib != each.peak_memory_mib
    # fp32 on the first is the reference of them all.
    assert 0 < (elsewhere.named(OWN).divergence or 0) < 1e-3
    assert (run.reference.runtime, run.reference.speedup, elsewhere.named("fp32").divergence) == (FIRST, 1.0, 0.0)


@pytest.mark.slow
def test_the_evidence_is_of_the_runtime_that_was_chosen(elsewhere: Seen) -> None:
    run, chosen = elsewhere.run, elsewhere.run.chosen
    assert chosen is not None
    assert (chosen.runtime, chosen.recipe.regions != ()) == (OTHER, True)
    assert elsewhere.tested == [(OnnxRuntimeSession, OpenVinoSession)]
    assert elsewhere.profiled == [OTHER]
    assert set(elsewhere.energy) == {OnnxRuntimeSession, OpenVinoSession}
    peak = elsewhere.named(chosen.name)
    assert chosen.peak_memory_mib == peak.peak_memory_mib is not None
    assert {where for where, _ in elsewhere.peaks} == {FIRST, OTHER}
    assert [each.runtime for each in run.agreement] == [FIRST]
    assert run.agreement[0].sqnr_db is not None
    assert run.agreement[0].speedup is not None
    assert (
        Path(chosen.path or "").read_bytes()
        == (elsewhere.output / "variants" / f"{chosen.name.replace(' ', '-')}.onnx").read_bytes()
    )
    assert given_by_run(elsewhere.output).runtime is OTHER


@pytest.mark.slow
def test_a_bundle_is_for_the_runtime_that_was_chosen(
    elsewhere: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "_REFERENCES", 20)
    monkeypatch.setattr(drift, "_DRAWS", 50)
    save_pair(generate(), tmp_path / "seal.pem", passphrase=None)
    file = tmp_path / "demo-1.0.0.edgewise"
    key = ["--key", str(tmp_path / "seal.pem"), "--no-model-signature"]
    assert command(["seal", str(elsewhere.output), "-o", str(file), *key]) == 0
    with Bundle.open(file) as opened:
        variants = opened.manifest.variants
    assert {each.runtime for each in variants} == {OTHER}
    fp32 = variants[-1]
    own = elsewhere.named(OWN)
    assert (fp32.name, fp32.figures.runtime) == ("fp32", OTHER)
    assert (fp32.figures.speedup, fp32.figures.latency_p50_ms) == (own.speedup, own.latency_p50_ms)
    # Of the test split, not of the select split that candidates are judged on.
    assert fp32.figures.score == elsewhere.run.reference.score != own.score


@pytest.mark.slow
def test_the_first_runtime_is_chosen_where_it_is_faster(place: Path, tmp_path: Path) -> None:
    seen = forced(place, tmp_path, effort=Effort.FAST, better=lambda _, where: where is FIRST)
    assert seen.run.chosen is not None
    assert seen.run.chosen.runtime == FIRST
    assert seen.run.chosen.name != "fp32"
    assert seen.tested == [(OnnxRuntimeSession, OnnxRuntimeSession)]
    assert seen.profiled == [FIRST]
    assert any(each.status is Status.MEASURED and each.runtime == OTHER for each in seen.run.candidates)
    assert seen.named(OWN).size_mib == seen.run.reference.size_mib is not None  # a limit on size is judged by it
    sources = open_run(seen.output, work=tmp_path / "work")
    assert {each.figures.runtime for each in sources.variants} == {FIRST}


@pytest.mark.slow
def test_fp32_on_another_runtime_may_be_chosen(place: Path, tmp_path: Path) -> None:
    seen = forced(place, tmp_path, effort=Effort.FAST, better=lambda name, _: name == OWN)
    chosen = seen.run.chosen
    assert chosen is not None
    assert (chosen.name, chosen.runtime, chosen.recipe) == (OWN, OTHER, Recipe(name="fp32", regions=()))
    shipped = seen.output / "variants" / "fp32-on-openvino.onnx"
    assert shipped.read_bytes() == (place / "model.onnx").read_bytes()
    assert seen.tested == [(OnnxRuntimeSession, OpenVinoSession)]
    assert chosen.score == seen.run.reference.score
    sources = open_run(seen.output, work=tmp_path / "work")
    assert [each.name for each in sources.variants].count("fp32") == 1  # not sealed twice
    assert (sources.variants[0].name, sources.variants[0].figures.runtime) == ("fp32", OTHER)
    assert sources.variants[0].figures.speedup == chosen.speedup


@pytest.mark.slow
def test_what_the_second_runtime_refuses_fails_and_the_others_go_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (place / "model.onnx").read_bytes()
    real = OpenVino.load

    def load(self: OpenVino, model: Path | bytes, **options: Any) -> OpenVinoSession:
        if (model if isinstance(model, bytes) else model.read_bytes()) != own:
            raise ExecutionError("injected: no such kernel")
        return real(self, model, **options)

    monkeypatch.setattr(OpenVino, "load", load)
    seen = forced(place, tmp_path, effort=Effort.FAST, better=lambda _, where: where is OTHER)
    there = {each.name: each for each in seen.run.candidates if each.runtime == OTHER}
    assert there[OWN].status is Status.MEASURED
    refused = [each for name, each in there.items() if name != OWN]
    assert refused
    assert {each.status for each in refused} == {Status.FAILED}
    assert all("injected: no such kernel" in each.reason and each.speedup is None for each in refused)
    assert seen.run.chosen is not None
    assert seen.run.chosen.name == OWN
