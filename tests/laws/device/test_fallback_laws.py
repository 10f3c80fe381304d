"""What holds for every history of calls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewise.device.fallback import breaker, bucket
from edgewise.device.fallback.breaker import Breaker, BreakerRules, BreakerState
from edgewise.device.fallback.bucket import BucketRules
from edgewise.device.fallback.ladder import Escalation, why_not

RULES = st.builds(
    lambda failures, rest_s, times: BreakerRules(failures=failures, rest_s=rest_s, most_rest_s=rest_s * times),
    st.integers(1, 6),
    st.floats(0.01, 100.0),
    st.floats(1.0, 64.0),
)
WAITS = st.floats(0.0, 500.0)
CALLS = st.lists(st.tuples(WAITS, st.booleans(), st.none() | st.floats(0.0, 1e9)), max_size=60)
"""Time before a call, whether it succeeds, and the Retry-After of one that does not."""


@given(RULES, CALLS)
def test_a_breaker_opens_after_its_failures_and_only_then(
    rules: BreakerRules, calls: list[tuple[float, bool, float | None]]
) -> None:
    state, now, in_a_row, opened_at = Breaker(), 0.0, 0, None
    for wait, succeeds, retry_after in calls:
        now += wait
        if not state.allows(now):
            assert opened_at is not None
            assert now < opened_at + rules.most_rest_s * (1 + 1e-9)  # it is never open for longer
            assert state.state(now) is BreakerState.OPEN
            continue
        if opened_at is not None:
            assert now >= opened_at + rules.rest_s * (1 - 1e-9)  # and never for less
        state = breaker.begun(state, now)
        if opened_at is not None:
            assert not state.allows(now)  # half-open: one call, and no second beside it
        if succeeds:
            state, in_a_row, opened_at = breaker.succeeded(state), 0, None
            assert state.state(now) is BreakerState.CLOSED
            continue
        half_open, in_a_row = opened_at is not None, in_a_row + 1
        state = breaker.failed(state, rules, now, retry_after_s=retry_after)
        due = half_open or in_a_row >= rules.failures or retry_after is not None
        assert (state.state(now) is BreakerState.OPEN) == due
        opened_at = now if due else None


@given(RULES, st.integers(1, 40))
def test_each_opening_in_a_row_lasts_at_least_as_long_as_the_one_before(rules: BreakerRules, openings: int) -> None:
    state, now, before = Breaker(), 0.0, 0.0
    for _ in range(rules.failures):
        state = breaker.failed(state, rules, now)
    for _ in range(openings):
        assert state.until_s is not None
        rest = state.until_s - now
        assert before * (1 - 1e-6) <= rest <= rules.most_rest_s * (1 + 1e-6)
        before, now = rest, state.until_s
        state = breaker.failed(breaker.begun(state, now), rules, now)


@given(RULES)
def test_a_call_that_was_not_made_leaves_the_breaker_half_open(rules: BreakerRules) -> None:
    state = breaker.failed(Breaker(), rules, 0.0, retry_after_s=0.0)
    assert state.until_s is not None
    later = state.until_s + 1
    assert breaker.withdrawn(breaker.begun(state, later)).allows(later)


@given(
    st.builds(BucketRules, burst=st.integers(1, 20), per_s=st.floats(0.0, 10.0)),
    st.lists(st.floats(-5.0, 30.0), max_size=200),
)
def test_no_interval_holds_more_calls_than_the_budget(rules: BucketRules, waits: list[float]) -> None:
    state, now, times = bucket.full(rules, 0.0), 0.0, []
    latest = 0.0
    for wait in waits:
        now += wait  # a clock that goes back gives nothing
        latest = max(latest, now)
        left = bucket.taken(state, rules, now)
        assert (left is not None) == bucket.has_one(state, rules, now)
        if left is not None:
            state = left
            times.append(latest)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= rules.burst + rules.per_s * (times[last] - begin) + 1e-6


@given(st.builds(BucketRules, burst=st.integers(1, 20), per_s=st.floats(0.1, 10.0)))
def test_an_empty_bucket_fills_again(rules: BucketRules) -> None:
    state = bucket.full(rules, 0.0)
    for _ in range(rules.burst):
        taken = bucket.taken(state, rules, 0.0)
        assert taken is not None
        state = taken
    assert not bucket.has_one(state, rules, 0.0)
    assert bucket.has_one(state, rules, 1.01 / rules.per_s)


ESCALATIONS = st.builds(
    Escalation,
    is_sure=st.none() | st.booleans(),
    consent=st.booleans(),
    unsendable=st.sampled_from(["", "no image"]),
    busy=st.booleans(),
    breaker_allows=st.booleans(),
    has_budget=st.booleans(),
    left_ms=st.none() | st.floats(allow_nan=True),
    least_ms=st.floats(0.0, 1e6),
)


@given(ESCALATIONS)
def test_nothing_is_escalated_unless_everything_allows_it(asked: Escalation) -> None:
    allowed = (
        asked.is_sure is False
        and asked.consent
        and not asked.unsendable
        and not asked.busy
        and asked.breaker_allows
        and asked.has_budget
        and (asked.left_ms is None or asked.left_ms >= asked.least_ms)
    )
    assert (why_not(asked) == "") == allowed
