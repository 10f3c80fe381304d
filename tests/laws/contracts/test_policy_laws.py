"""The policy that devices read puts the same devices into the cohort as the rollout that the server steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewise.contracts.policy import Image, choose, decode_policy, encode_policy, policy_of
from edgewise.contracts.rollout import GatePolicy, RateGate, Release, Rollout, Stage, State, in_cohort

LABELS = ("canary", "site=berlin", "site=rome")


def image(version: str, letter: str) -> Image:
    release = Release(product="kws", version=version, digest=letter * 64)
    return Image(release=release, target=f"kws/kws-{version}.edgewise", length=1, sha256=letter * 64)


BEFORE, AFTER = image("1.2.0", "a"), image("1.3.0", "b")


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    shares = sorted(draw(st.sets(st.floats(0.01, 1), max_size=4)))
    labels = draw(st.lists(st.sampled_from(LABELS), max_size=2, unique=True))
    if not shares and not labels:
        labels = ["canary"]
    kinds: list[tuple[float | None, str | None]] = [
        *((None, each) for each in labels),
        *((each, None) for each in shares),
    ]
    stages = tuple(Stage(name=f"s{n}", share=share, label=label, bake_s=1) for n, (share, label) in enumerate(kinds))
    state, stage = draw(st.sampled_from(State)), draw(st.integers(0, len(stages) - 1))
    return Rollout(
        id="r",
        salt=draw(st.text("abcdef", min_size=16, max_size=20)),
        from_release=BEFORE.release,
        to_release=AFTER.release,
        stages=stages,
        policy=GatePolicy(rates=(RateGate(events="crashes", trials="requests", margin=0.1),), report_s=10),
        holdback=draw(st.floats(0.01, 0.5)),
        state=state,
        stage=stage,
        promoted=stage,
        stage_start_s=draw(st.sampled_from((None, 1.0))),
        paused_at_s=1.0 if state is State.PAUSED else None,
    )


@given(rollouts(), st.text("abcdefgh0123", min_size=1, max_size=8), st.frozensets(st.sampled_from(LABELS)))
def test_policy_and_rollout_choose_the_same_devices(rollout: Rollout, device: str, labels: frozenset[str]) -> None:
    policy = decode_policy(encode_policy(policy_of(rollout, before=BEFORE, after=AFTER)))
    assert choose(policy, device, labels) == (AFTER if in_cohort(rollout, device, labels) else BEFORE)
