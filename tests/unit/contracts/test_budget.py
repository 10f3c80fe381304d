from __future__ import annotations

import pytest

from edgewise.contracts.budget import Budget, LimitVerdict, Verdict, holds, judge
from edgewise.contracts.evidence import Figures

REFERENCE = Figures(path=None, runtime="onnxruntime", score=0.80, latency_p99_ms=9.0, size_mib=8.0)


def figures(**measured: float) -> Figures:
    return Figures(path="v.onnx", runtime="onnxruntime", **measured)  # type: ignore[arg-type]


def only(budget: Budget, found: Figures, reference: Figures = REFERENCE) -> LimitVerdict:
    (verdict,) = judge(budget, found, reference)
    return verdict


def test_no_limit_is_no_verdict_and_holds() -> None:
    assert judge(Budget(), figures(), REFERENCE) == ()
    assert holds(())


@pytest.mark.parametrize("name", ["latency_p50_ms", "latency_p99_ms", "peak_memory_mib", "size_mib", "energy_mj"])
def test_a_limit_is_met_when_reached_and_broken_above(name: str) -> None:
    limit = Budget(**{name: 4.0})
    inside, at, above = (only(limit, figures(**{name: value})) for value in (3.0, 4.0, 5.0))
    assert (inside.verdict, inside.margin) == (Verdict.PASS, 0.25)
    assert (at.verdict, at.margin) == (Verdict.PASS, 0.0)
    assert (above.verdict, above.margin) == (Verdict.FAIL, -0.25)
    assert (above.limit, above.required, above.found) == (name, 4.0, 5.0)


def test_what_was_not_measured_is_unknown_and_does_not_hold() -> None:
    verdict = only(Budget(energy_mj=3.0), figures())
    assert (verdict.verdict, verdict.found, verdict.margin) == (Verdict.UNKNOWN, None, None)
    assert not holds((verdict,))


def test_one_broken_limit_breaks_the_budget() -> None:
    budget = Budget(size_mib=4.0, flip_rate=0.02)
    assert holds(judge(budget, figures(size_mib=2.0, flip_rate=0.01), REFERENCE))
    assert not holds(judge(budget, figures(size_mib=2.0, flip_rate=0.03), REFERENCE))


@pytest.mark.parametrize(
    ("score", "higher_is_better", "verdict"),
    [(0.795, True, Verdict.PASS), (0.78, True, Verdict.FAIL), (0.85, True, Verdict.PASS), (0.82, False, Verdict.FAIL)],
    ids=["small loss", "large loss", "gain", "loss of an error rate"],
)
def test_a_drop_counts_towards_the_worse(score: float, higher_is_better: bool, verdict: Verdict) -> None:  # noqa: FBT001
    found = figures(score=score, higher_is_better=higher_is_better)
    assert only(Budget(accuracy_drop=0.01), found).verdict is verdict


@pytest.mark.parametrize("missing", ["candidate", "reference"])
def test_a_drop_without_a_score_is_unknown(missing: str) -> None:
    found = figures() if missing == "candidate" else figures(score=0.8)
    reference = REFERENCE if missing == "candidate" else figures()
    assert only(Budget(accuracy_drop=0.01), found, reference).verdict is Verdict.UNKNOWN


def test_a_limit_of_zero_has_a_verdict_and_no_margin() -> None:
    assert only(Budget(flip_rate=0.0), figures(flip_rate=0.0)).verdict is Verdict.PASS
    broken = only(Budget(flip_rate=0.0), figures(flip_rate=0.1))
    assert (broken.verdict, broken.margin) == (Verdict.FAIL, None)
