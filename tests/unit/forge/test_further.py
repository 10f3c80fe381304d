"""Several runtimes named: which count, and what a candidate on a further one is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgewise.cli.main import run as command
from edgewise.contracts.evidence import Candidate, EnergyProvenance, Status
from edgewise.contracts.project import Effort, Project
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.target import RuntimeName
from edgewise.errors import MissingExtraError
from edgewise.forge.cache import Cache
from edgewise.forge.further import on_runtime
from edgewise.forge.importing.sandbox import import_model
from edgewise.forge.judge import Judgement
from edgewise.forge.judges import Failure
from edgewise.forge.measure.lab import Feeds, Here, Model, Timed
from edgewise.forge.measured import Peaks, Shortlisted, measure_latency
from edgewise.forge.prepare import Limits, prepare
from edgewise.forge.progress import Silent
from edgewise.forge.seal.sources import alternatives
from edgewise.runtimes.timing import Plan, Timings
from tests.unit.forge.children import demo_project, on_both, small_demo
from tests.unit.report import runs

FIRST, OTHER = RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO
OWN = "fp32 on openvino"
Better = Callable[[str, RuntimeName], bool]


def listed(name: str, **figures: Any) -> Shortlisted:
    candidate = Candidate(
        name=name,
        recipe=Recipe(name=name, regions=()),
        status=figures.pop("status", Status.SCREENED),
        path=None,
        runtime=figures.pop("runtime", FIRST),
        **figures,
    )
    return Shortlisted(candidate=candidate, file=Path(f"{name}.onnx"), digest=name)


JUDGED = Judgement(
    samples=8,
    divergence=0.25,
    sqnr_db=20.0,
    cosine=0.5,
    score=0.75,
    metrics={"top5": 0.875},
    flip_rate=0.125,
    flipped=(3,),
)


def test_a_candidate_of_another_runtime_has_its_own_figures() -> None:
    here = listed(
        "placed 2 gptq",
        status=Status.MEASURED,
        score=0.9,
        higher_is_better=False,
        metrics={"top5": 0.99},
        divergence=0.1,
        flip_rate=0.0,
        cosine=0.99,
        sqnr_db=30.0,
        size_mib=2.0,
        speedup=3.0,
        latency_p50_ms=1.0,
        peak_memory_mib=5.0,
        energy_mj=1.0,
        energy_provenance=EnergyProvenance.COUNTER,
    )
    there = on_runtime(here, OTHER, JUDGED)
    assert (there.file, there.digest) == (here.file, here.digest)
    assert there.candidate == Candidate(
        name="placed 2 gptq on openvino",
        recipe=here.candidate.recipe,
        status=Status.SCREENED,
        path=None,
        runtime=OTHER,
        score=0.75,
        higher_is_better=False,
        metrics={"top5": 0.875},
        flip_rate=0.125,
        sqnr_db=20.0,
        cosine=0.5,
        divergence=0.25,
        size_mib=2.0,
    )


def test_what_another_runtime_refuses_is_a_failure_with_the_reason() -> None:
    there = on_runtime(listed("fp32", divergence=0.0, score=0.9), OTHER, Failure("no such kernel")).candidate
    assert (there.name, there.status, there.reason) == (OWN, Status.FAILED, "no such kernel")
    assert (there.runtime, there.divergence, there.score) == (OTHER, None, None)


class Bench(Here):
    """Times nothing: every model of the first runtime takes 2 ms, of the other 1 ms; memory is by runtime too."""

    def __init__(self) -> None:
        self.timed: dict[str, Model] = {}

    def time(self, models: Mapping[str, Model], feeds: Sequence[Feeds], **_: Any) -> Timed:
        assert feeds
        self.timed = dict(models)
        return Timed(
            {name: Timings((2.0 if where is FIRST else 1.0,) * 3) for name, (where, _) in models.items()}, failures={}
        )

    def peak_mib(self, model: Model, feeds: Sequence[Feeds], *, threads: int) -> float:
        assert (len(feeds), threads) == (1, 1)
        return 10.0 if model[0] is FIRST else 20.0


def prepared_with(lab: Bench) -> Any:
    runtime, imported = SimpleNamespace(name="onnxruntime"), SimpleNamespace(original=Path("fp32.onnx"))
    return SimpleNamespace(lab=lab, runtime=runtime, imported=imported, threads=1)


def test_all_are_timed_in_one_measurement_without_those_that_failed(tmp_path: Path) -> None:
    lab = Bench()
    here = listed("a")
    gone = on_runtime(listed("b"), OTHER, Failure("no such kernel"))
    shortlist = [here, on_runtime(here, OTHER, JUDGED), gone]
    for _ in range(2):  # measured, then kept
        _, found = measure_latency(
            prepared_with(lab),
            shortlist,
            [{}],
            plan=Plan(),
            costs=Cache(tmp_path),
            context="c",
            progress=Silent(),
        )
        assert [each.candidate.status for each in found] == [Status.MEASURED, Status.MEASURED, Status.FAILED]
        assert [each.candidate.speedup for each in found] == [1.0, 2.0, None]
        assert found[2] == gone
    assert {name: where for name, (where, _) in lab.timed.items()} == {
        "fp32": FIRST,
        "a": FIRST,
        "a on openvino": OTHER,
    }


def test_a_file_has_a_peak_per_runtime() -> None:
    file = Path("a.onnx")
    with Peaks(prepared_with(Bench()), [(file, FIRST), (file, OTHER)], [{}]) as peaks:
        assert (peaks.mib(file, FIRST), peaks.mib(file, OTHER)) == (10.0, 20.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_demo(tmp_path_factory.mktemp("demo"))


def prepared_by(project: Project, place: Path, work: Path) -> Any:
    def imported() -> Any:
        return import_model("model.onnx", base=place, inputs={}, work=work)

    return prepare(project, base=place, imported=imported, limits=Limits(8, 8, 8))


def test_only_runtimes_that_are_named_count(place: Path, tmp_path: Path) -> None:
    unnamed = prepared_by(demo_project(Effort.FAST), place, tmp_path)
    assert unnamed.target.runtimes == (FIRST, OTHER)  # what is installed
    assert (unnamed.runtime.name, unnamed.further) == (FIRST, ())
    one = prepared_by(on_both(Effort.FAST, OTHER), place, tmp_path)
    assert (one.runtime.name, one.further) == (OTHER, ())
    two = prepared_by(on_both(Effort.FAST, OTHER, FIRST), place, tmp_path)
    assert (two.runtime.name, [each.name for each in two.further]) == (OTHER, [FIRST])


def test_a_runtime_that_is_not_installed_is_refused_before_the_model_is_read(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"'openvino' is not installed[^$]*edgewise\[openvino\]"):
        prepare(on_both(Effort.FAST), base=place, imported=lambda: pytest.fail("was read"), limits=Limits(8, 8, 8))
    monkeypatch.chdir(tmp_path)
    both = ["--runtime", "onnxruntime", "--runtime", "openvino"]
    assert command(["optimize", str(place / "model.onnx"), "--data", str(place), *both]) == 2
    assert "pip install 'edgewise[openvino]'" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_only_variants_of_the_chosen_runtime_are_offered_beside_it() -> None:
    quick = runs.candidate("placed 4", speedup=8.0)
    there = runs.candidate("placed 4 on openvino", speedup=9.0, runtime=OTHER)
    own = runs.candidate(OWN, speedup=20.0, runtime=OTHER)
    found = runs.run()
    found = msgspec.structs.replace(found, candidates=(*found.candidates, quick, there, own))
    assert alternatives(found) == (quick,)
    assert found.chosen is not None
    chosen = msgspec.structs.replace(found.chosen, runtime=OTHER)
    assert alternatives(msgspec.structs.replace(found, chosen=chosen)) == (there,)  # fp32 is its last resort anyway
