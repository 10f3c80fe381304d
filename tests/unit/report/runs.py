"""Runs that never happened, for tests of what shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from edgewise.contracts.budget import Budget, judge
from edgewise.contracts.evidence import (
    Candidate,
    EnergyProvenance,
    Environment,
    Figures,
    FlipEvidence,
    HistogramEvidence,
    Interval,
    RegionEvidence,
    Status,
)
from edgewise.contracts.recipe import Format, Recipe, RegionRecipe
from edgewise.contracts.run import BudgetEvidence, Chosen, Data, Run, RuntimeAgreement

BUDGET = Budget(latency_p99_ms=2.0, size_mib=1.0, energy_mj=3.0, accuracy_drop=0.01, flip_rate=0.02)


def recipe(name: str, form: Format = Format.INT8_STATIC) -> Recipe:
    return Recipe(name=name, regions=(RegionRecipe(region="conv1", format=form),))


def figures(speedup: float = 1.0, divergence: float = 0.0, **changes: Any) -> Figures:
    known = Figures(
        path="model.onnx",
        runtime="onnxruntime",
        score=0.9 - divergence,
        flip_rate=divergence,
        sqnr_db=None if divergence == 0 else 30.0,
        divergence=divergence,
        speedup=speedup,
        speedup_interval=Interval(low=speedup * 0.98, high=speedup * 1.02),
        latency_p50_ms=2.0 / speedup,
        latency_p99_ms=2.5 / speedup,
        peak_memory_mib=12.0,
        size_mib=0.5,
        energy_mj=1.5,
        energy_provenance=EnergyProvenance.MODELLED,
    )
    return msgspec.structs.replace(known, **changes)


def candidate(name: str, *, status: Status = Status.MEASURED, reason: str = "", **changes: Any) -> Candidate:
    form = Format.FP32 if name == "fp32" else Format.INT8_STATIC
    fields = msgspec.structs.asdict(figures(**changes))
    return Candidate(**fields, name=name, recipe=recipe(name, form), status=status, reason=reason)


def run(**changes: Any) -> Run:
    """A run whose variant fits, with something in every section."""
    reference = figures()
    winner = figures(speedup=1.8, divergence=0.005)
    chosen = Chosen(**msgspec.structs.asdict(winner), name="placed 2", recipe=recipe("placed 2"))
    verdicts = judge(BUDGET, chosen, reference)
    found = Run(
        model="nets/model.onnx",
        model_digest="ab" * 32,
        task="classification",
        metric="top1",
        target="local",
        effort="default",
        seconds={"import": 0.5, "total": 12.0},
        data=Data(calibrate=280, select=120, test=1000, digest="cd" * 32, selection="all"),
        reference=reference,
        chosen=chosen,
        candidates=(
            candidate("fp32"),
            candidate("placed 2", speedup=1.8, divergence=0.006),
            candidate("placed 1", speedup=1.5, divergence=0.002),
            candidate("placed 3", speedup=1.2, divergence=0.004),
            _screened(),
            candidate("all int4", status=Status.FAILED, reason="the kernel refuses block 24"),
        ),
        budget=BudgetEvidence(limits=BUDGET, verdicts=verdicts, fits=True),
        regions=(
            RegionEvidence(
                region="conv1",
                kind="Conv",
                format="int8_static",
                cause="rounding",
                sqnr_db=31.0,
                divergence=0.002,
                time_fp32_us=30.0,
                time_variant_us=12.0,
                kernel="QLinearConv",
                runs_quantized=True,
            ),
            RegionEvidence(region="softmax", kind="Softmax", format="fp32"),
        ),
        histograms=(
            HistogramEvidence(tensor="conv1", low=-2, high=6, counts=(1, 40, 900, 30, 2), range_low=-1, range_high=5),
        ),
        flips=(FlipEvidence(index=7, reference_answer="cat", variant_answer="dog", target="cat", margin=0.01),),
        agreement=(
            RuntimeAgreement(runtime="openvino", version="2026", sqnr_db=36.0, flip_rate=0.0, speedup=1.1, reason=""),
        ),
        warnings=("calibrate.npz: nothing reads its array 'z'",),
        environment=Environment(
            machine="x86_64",
            processor="A processor",
            cores=2,
            threads=1,
            memory_mib=24000.0,
            system="Linux 6",
            python="3.11.7",
            versions={"edgewise": "0.1.0"},
            load_average=0.5,
            seed=0,
        ),
    )
    return msgspec.structs.replace(found, **changes)


def bare() -> Run:
    """A run of which hardly anything could be measured."""
    empty = Figures(path=None, runtime="onnxruntime")
    chosen = Chosen(**msgspec.structs.asdict(empty), name="placed 2", recipe=recipe("placed 2"))
    limits = Budget(energy_mj=1.0)
    return run(
        metric="",
        data=Data(calibrate=1, select=1, test=0, digest="", selection="all"),
        reference=empty,
        chosen=chosen,
        candidates=(),
        budget=BudgetEvidence(limits=limits, verdicts=judge(limits, chosen, empty), fits=True),
        regions=(RegionEvidence(region="conv1", kind="Conv", format="int8_static"),),
        histograms=(),
        flips=(),
        agreement=(),
        warnings=(),
        seconds={},
    )


def nothing_fits(*, on_test: bool = False) -> Run:
    """A run in which the fastest variant is too slow; `on_test`: one held on select and broke on test."""
    limits = Budget(latency_p99_ms=0.5, flip_rate=0.02)
    verdicts = judge(limits, figures(1.8, 0.05), figures()) if on_test else ()
    return run(
        chosen=None,
        data=Data(calibrate=280, select=120, test=1000 if on_test else 0, digest="", selection="all"),
        closest={"latency_p99_ms": "placed 2", "flip_rate": "fp32"},
        advice=("latency_p99_ms <= 0.5: the best is 1.39 (placed 2); try a smaller model",),
        budget=BudgetEvidence(limits=limits, verdicts=verdicts, fits=False),
        flips=(),
    )


def _screened() -> Candidate:
    timed = candidate("all int8", status=Status.SCREENED, divergence=0.2)
    return msgspec.structs.replace(
        timed, speedup=None, speedup_interval=None, latency_p50_ms=None, latency_p99_ms=None, size_mib=None
    )
