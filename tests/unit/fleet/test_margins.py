from __future__ import annotations

import pytest

from edgewise.contracts.budget import Budget
from edgewise.errors import RolloutError
from edgewise.fleet.margins import policy_of

BUDGET = Budget(latency_p50_ms=5.0, latency_p99_ms=9.0, energy_mj=2.0, flip_rate=0.02, size_mib=4.0)
NOW = {"latency_p50_ms": 4.8, "latency_p99_ms": 5.0, "energy_mj": 2.5}


def test_the_margin_is_the_headroom_within_its_bounds() -> None:
    margins = {each.name: each.margin for each in policy_of(BUDGET, NOW, report_s=600).metrics}
    assert margins == {
        "latency_ms.p50": pytest.approx(5.0 / 4.8 - 1),
        "latency_ms.p99": 0.10,
        "energy_mj.mean": 0.0,
    }


def test_the_flip_rate_limits_the_shadow_alone() -> None:
    assert [each.name for each in policy_of(BUDGET, NOW, report_s=600).rates] == ["crashes/requests"]
    crashes, shadow = policy_of(BUDGET, NOW, report_s=600, shadow=True).rates
    assert crashes.against_controls
    assert not shadow.against_controls
    assert (shadow.name, shadow.margin) == ("shadow_disagreed/shadow_compared", 0.02)


@pytest.mark.parametrize("current", [{}, {**NOW, "energy_mj": 0.0}])
def test_a_headroom_that_is_unknown_is_refused(current: dict[str, float]) -> None:
    with pytest.raises(RolloutError, match="reports no"):
        policy_of(BUDGET, current, report_s=600)
