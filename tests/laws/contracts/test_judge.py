from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewise.contracts.budget import Budget, Verdict, holds, judge
from edgewise.contracts.evidence import Figures
from tests.laws.contracts.values import NUMBERS, values_of

LIMIT = st.none() | st.floats(1e-6, 1e6)
BUDGETS = st.builds(Budget, **dict.fromkeys(Budget.__struct_fields__, LIMIT))
FIGURES = values_of(Figures)


@given(budget=BUDGETS, figures=FIGURES, reference=FIGURES)
def test_the_sign_of_the_margin_is_the_verdict(budget: Budget, figures: Figures, reference: Figures) -> None:
    for each in judge(budget, figures, reference):
        match each.verdict:
            case Verdict.UNKNOWN:
                assert each.margin is None
                assert each.found is None
            case Verdict.PASS:
                assert each.margin is not None
                assert each.margin >= 0
            case Verdict.FAIL:
                assert each.margin is not None
                assert each.margin < 0


@given(budget=BUDGETS, figures=FIGURES, reference=FIGURES)
def test_every_limit_asked_for_is_judged_once(budget: Budget, figures: Figures, reference: Figures) -> None:
    assert [each.limit for each in judge(budget, figures, reference)] == list(budget.limits())


@given(budget=BUDGETS, figures=FIGURES, reference=FIGURES, factor=st.floats(1, 10))
def test_a_wider_budget_never_breaks(budget: Budget, figures: Figures, reference: Figures, factor: float) -> None:
    wider = Budget(**{name: limit * factor for name, limit in budget.limits().items()})
    before, after = judge(budget, figures, reference), judge(wider, figures, reference)
    for narrow, wide in zip(before, after, strict=True):
        assert wide.verdict is narrow.verdict or (narrow.verdict, wide.verdict) == (Verdict.FAIL, Verdict.PASS)


@given(score=NUMBERS, limit=st.floats(1e-6, 1e6))
def test_fp32_itself_never_drops(score: float, limit: float) -> None:
    fp32 = Figures(path=None, runtime="onnxruntime", score=score)
    assert holds(judge(Budget(accuracy_drop=limit), fp32, fp32))
