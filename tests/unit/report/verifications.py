"""Verifications that never happened, for tests of what shows them."""

from __future__ import annotations

from typing import Any

import msgspec

from edgewise.contracts.budget import Budget, Verdict, judge
from edgewise.contracts.verification import (
    Change,
    Chart,
    Depth,
    Finding,
    Grade,
    Line,
    ScoreCutoff,
    Section,
    Table,
    VariantCalibration,
    Verification,
)
from tests.unit.report import runs

HOSTILE = "<script>alert(1)</script>"


def section() -> Section:
    """A section with one finding of each grade, a table and charts."""
    return Section(
        suite="agreement",
        title="Agreement with fp32",
        findings=tuple(
            Finding(
                name=f"agreement.{grade.name.lower()}",
                grade=grade,
                detail=f"what was found, {grade}",
                subject=HOSTILE,
                value=0.25,
                reference=0.5,
                limit=0.3,
                advice="something to try",
            )
            for grade in Grade
        ),
        tables=(
            Table(
                title="Flips by class",
                columns=("class", "flips", "share", "is worse", "p"),
                rows=(("cat", 3, 0.25, True, None), (HOSTILE, 0, 0.0, False, 0.5)),
                note="as counted",
            ),
        ),
        charts=(
            Chart(
                title="Reliability",
                x_label="confidence",
                y_label="share correct",
                lines=(
                    Line(name="fp32", x=(0.1, 0.9), y=(0.2, 0.8), low=(0.1, 0.7), high=(0.3, 0.9)),
                    Line(name=HOSTILE, x=(0.1, 0.9), y=(0.1, 0.7)),
                ),
            ),
            Chart(title="Nothing", x_label="x", y_label="y", lines=()),
        ),
        seconds=1.5,
        seed=7,
    )


def verification(**changes: Any) -> Verification:
    """A verification with something in every part."""
    budget, reference = Budget(flip_rate=0.02, energy_mj=1.0), runs.figures()
    found = runs.figures(speedup=1.8, divergence=0.005, energy_mj=None)
    whole = Verification(
        verdict=Verdict.FAIL,
        variant="runs/model/variants/placed-2.onnx",
        variant_digest="ab" * 32,
        reference="model.onnx",
        reference_digest="cd" * 32,
        runtime="onnxruntime",
        runtime_version="1.22",
        task="classification",
        metric="top1",
        suite=Depth.QUICK,
        seed=7,
        samples=1000,
        data_digest="ef" * 32,
        figures=found,
        reference_figures=reference,
        limits=judge(budget, found, reference),
        sections=(section(),),
        calibration=VariantCalibration(
            temperature=1.2, conformal={"0.9": 0.4}, cutoffs=(ScoreCutoff(score="energy", cutoff=-3.0),)
        ),
        baseline="runs/old",
        changes=(
            Change(name="agreement.flips", subject="", before=Grade.PASS, after=Grade.FAIL, value_after=0.1),
            Change(name="agreement.score", subject="", before=None, after=Grade.PASS),
        ),
        seconds={"open": 1.0, "total": 2.0},
        warnings=("the test split has no labels",),
        environment=runs.run().environment,
    )
    return msgspec.structs.replace(whole, **changes)
