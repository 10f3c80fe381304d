from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgewise.device.governor.decide import ENOUGH, HOUR_S, Level, Reading, State, decide
from edgewise.device.governor.policy import GovernorPolicy

POLICIES = st.builds(
    GovernorPolicy,
    dwell_s=st.floats(0.1, 30),
    calm_s=st.floats(0, 20),
    most_calm_s=st.floats(20, 200),
    most_switches_per_hour=st.integers(2, 30),
    late=st.floats(0.8, 1.0),
    comfortable=st.floats(0.1, 0.8),
    hot_c=st.floats(70, 90),
    cool_c=st.floats(40, 70),
)
LEVELS = st.lists(st.floats(0.1, 100), min_size=1, max_size=4).map(
    lambda times: tuple(Level(variant=f"v{at}", latency_ms=each) for at, each in enumerate(sorted(times, reverse=True)))
)


def maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.none() | values


STEPS = st.lists(
    st.tuples(
        st.floats(0.01, 400),
        st.builds(
            Reading,
            at_s=st.just(0.0),
            lateness=maybe(st.floats(0, 10)),
            items=st.integers(0, 40),
            temperature_c=maybe(st.floats(-20, 120)),
            battery=maybe(st.floats(0, 1)),
            free_memory_mib=maybe(st.floats(0, 500)),
            load=maybe(st.floats(0, 1)),
        ),
    ),
    max_size=60,
)


def moved(reading: Reading, at_s: float) -> Reading:
    fields = {name: getattr(reading, name) for name in Reading.__struct_fields__}
    return Reading(**{**fields, "at_s": at_s})


@given(POLICIES, LEVELS, STEPS)
def test_switches_keep_their_dwell_their_number_and_the_ladder(
    policy: GovernorPolicy, levels: tuple[Level, ...], steps: list[tuple[float, Reading]]
) -> None:
    state, now, switched = State(), 0.0, []
    for passed, reading in steps:
        now += passed
        decision = decide(policy, levels, state, moved(reading, now))
        assert 0 <= decision.state.level < len(levels)
        assert (decision.state.level != state.level) == (decision.cause is not None)
        if decision.cause is not None:
            assert decision.reason
            switched.append(now)
        state = decision.state
    assert all(later - earlier >= policy.dwell_s for earlier, later in pairwise(switched))
    for at in switched:
        assert sum(at - HOUR_S < each <= at for each in switched) <= policy.most_switches_per_hour


@given(POLICIES, LEVELS, STEPS)
def test_it_returns_when_pressure_is_gone(
    policy: GovernorPolicy, levels: tuple[Level, ...], steps: list[tuple[float, Reading]]
) -> None:
    state, now = State(), 0.0
    for passed, reading in steps:
        now += passed
        state = decide(policy, levels, state, moved(reading, now)).state
    at_ease = policy.comfortable * min(each.latency_ms for each in levels) / max(each.latency_ms for each in levels)
    now += HOUR_S
    for _ in range(2 * len(levels) + 2):
        calm = Reading(
            at_s=now, lateness=0.999 * at_ease, items=ENOUGH, temperature_c=policy.cool_c, battery=None, load=0.1
        )
        state = decide(policy, levels, state, calm).state
        now += HOUR_S  # the limit on switches is no reason any more
    assert state.level == 0
    assert state.cause is None


@given(POLICIES, LEVELS, STEPS)
def test_equal_histories_give_equal_decisions(
    policy: GovernorPolicy, levels: tuple[Level, ...], steps: list[tuple[float, Reading]]
) -> None:
    def last() -> State:
        state, now = State(), 0.0
        for passed, reading in steps:
            now += passed
            state = decide(policy, levels, state, moved(reading, now)).state
        return state

    assert last() == last()
