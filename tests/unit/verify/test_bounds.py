"""How much is looked at follows from the time of one sample, in steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewise.forge.verify.bounds import affordable

SECONDS = st.floats(1e-6, 100)


def test_all_where_all_fit_and_a_step_where_not() -> None:
    assert affordable(16, 0.01, have=600, least=64) == 600
    assert affordable(16, 0.03, have=600, least=64) == 512
    assert affordable(16, 0.04, have=600, least=64) == 384
    assert affordable(16, 0.0401, have=600, least=64) == 384
    assert affordable(16, 10.0, have=600, least=64) == 64
    assert affordable(16, 10.0, have=6, least=64) == 6


@given(seconds=SECONDS, each=SECONDS, have=st.integers(1, 5000), least=st.integers(1, 64))
def test_never_more_than_there_are_or_than_fit(seconds: float, each: float, have: int, least: int) -> None:
    found = affordable(seconds, each, have=have, least=least)
    assert min(least, have) <= found <= have
    assert found <= max(seconds / each, least)
    assert found in (have, least) or found * 2 > min(seconds / each - 1, have)
