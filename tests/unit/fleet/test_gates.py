from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.rollout import Answer, Decision, GatePolicy, Stage
from edgewise.contracts.telemetry import Envelope
from edgewise.fleet.evidence import DeviceEvidence, Window, table, window_of
from edgewise.fleet.gates import decide, hard_stop
from tests.unit.fleet.devices import CRASH_RATE, LAST, MEAN_ENERGY, P50, POLICY, SHADOW, STAGE, fleet, window

replace = msgspec.structs.replace


def judged(
    devices: list[DeviceEvidence],
    policy: GatePolicy = POLICY,
    stage: Stage = STAGE,
    fractions: tuple[float, ...] = LAST,
    now_s: float = 1200.0,
) -> Decision:
    return decide(policy, stage, table(policy, devices, now_s=now_s), fractions)


def changed(devices: list[DeviceEvidence], numbers: range, **fields: Any) -> list[DeviceEvidence]:
    return [replace(each, **fields) if place in numbers else each for place, each in enumerate(devices)]


def test_a_harmless_release_is_promoted_at_the_last_look() -> None:
    decision = judged(fleet())
    assert decision.answer is Answer.PROMOTE, decision.reason
    assert (decision.canaries, decision.reported, decision.silent, decision.controls) == (10, 10, 0, 40)


def test_a_harmless_release_is_held_before_it_has_baked() -> None:
    decision = judged(fleet(), fractions=LAST[:2])
    assert decision.answer is Answer.HOLD
    assert "600 s of 1200 s are over" in decision.reason


def test_a_stage_may_promote_after_its_bake_time_and_before_its_horizon() -> None:
    stage = replace(STAGE, bake_s=600, decide_s=1200)
    assert judged(fleet(), stage=stage, fractions=LAST[:3]).answer is Answer.PROMOTE


def test_a_slower_release_is_rolled_back_with_the_figure() -> None:
    decision = judged(fleet(slower=1.25))
    assert decision.answer is Answer.ROLLBACK
    (figure,) = [each for each in decision.figures if each.gate == "latency_ms.p50"]
    assert figure.harmed
    assert figure.effect == pytest.approx(0.25, abs=0.06)
    assert "latency_ms.p50 of all is worse" in decision.reason


def test_a_weak_class_cannot_hide_in_the_average() -> None:
    devices = fleet(20, 80, classes=("rpi4", "jetson", "nuc", "imx8", "x86"))
    generator = np.random.default_rng(5)
    slow = [
        replace(each, current=window(generator, ms=9.0), baseline=window(generator, ms=6.0))
        if each.canary and each.device_class == "imx8"
        else each
        for each in devices
    ]
    decision = judged(slow)
    assert decision.answer is Answer.ROLLBACK
    harmed = {each.group for each in decision.figures if each.harmed}
    assert "imx8" in harmed
    assert not harmed & {"rpi4", "jetson", "nuc", "x86"}


def test_a_small_class_needs_an_estimate_within_the_margin_and_a_large_one_a_proof() -> None:
    devices = fleet(6, 80, classes=("rpi4", "jetson"), seed=2)
    generator = np.random.default_rng(8)
    doubtful = [
        replace(each, current=window(generator, ms=5.6), baseline=window(generator, ms=5.0))
        if each.canary and each.device_class == "jetson"
        else each
        for each in devices
    ]
    lenient, strict = (judged(doubtful, replace(POLICY, class_devices=count)) for count in (8, 2))
    for decision in (lenient, strict):
        (figure,) = [each for each in decision.figures if (each.gate, each.group) == ("latency_ms.p50", "jetson")]
        assert figure.effect is not None
        assert not figure.within or figure.effect <= 0.1
        assert decision.answer is not Answer.PROMOTE
    levels = {each.level_within for each in strict.figures if each.group != "all" and each.gate == "latency_ms.p50"}
    assert levels == {next(each.level_within for each in strict.figures if each.group == "all")}
    assert {each.level_within for each in lenient.figures if each.group == "jetson"} == {0.5, None}


def test_what_happened_to_everybody_is_not_the_releases_fault() -> None:
    generator = np.random.default_rng(6)
    rush = [replace(each, current=window(generator, ms=8.0), baseline=window(generator, ms=5.0)) for each in fleet()]
    assert judged(rush).answer is not Answer.ROLLBACK


def test_a_difference_proven_to_be_within_the_margin_is_let_through() -> None:
    devices = fleet(400, 400, slower=1.03)
    figure = next(each for each in judged(devices).figures if each.gate == "latency_ms.p50")
    assert figure.harmed
    assert figure.within
    assert judged(devices).answer is Answer.PROMOTE


def test_crashes_roll_back() -> None:
    decision = judged(fleet(crashes=4))
    assert decision.answer is Answer.ROLLBACK
    assert "crashes/requests" in decision.reason


def test_crashes_of_one_device_of_a_class_hold_and_prove_nothing() -> None:
    devices = fleet(6, 60, classes=("rpi4", "jetson", "nuc", "imx8", "x86", "panel"))
    broken = changed(devices, range(1), current=Window(counters={"requests": 200, "crashes": 100}))
    decision = judged(broken, GatePolicy(rates=(CRASH_RATE,), report_s=600))
    assert decision.answer is Answer.HOLD
    assert "crashes/requests of rpi4 is not proven" in decision.reason


@pytest.mark.parametrize("silent", [range(1), range(5), range(10)], ids=len)
def test_silent_canaries_are_never_promoted(silent: range) -> None:
    devices = changed(fleet(), silent, last_report_s=None, current=None)
    decision = judged(devices)
    assert decision.answer is not Answer.PROMOTE
    assert decision.silent == len(silent)


def test_a_canary_that_falls_silent_after_a_report_is_silent_too() -> None:
    assert judged(changed(fleet(), range(1), last_report_s=500.0)).silent == 1


def test_half_of_the_canaries_silent_is_a_failure() -> None:
    decision = judged(changed(fleet(), range(5), last_report_s=None, current=None))
    assert decision.answer is Answer.ROLLBACK
    assert "reporting of all is worse" in decision.reason


def test_silence_everywhere_is_nobodys_fault_and_no_pass() -> None:
    assert judged(changed(fleet(), range(50), last_report_s=None, current=None)).answer is Answer.HOLD


def test_late_joiners_have_their_own_deadline() -> None:
    decision = judged(changed(fleet(), range(1), last_report_s=None, current=None, since_s=900.0))
    assert decision.silent == 0
    assert decision.answer is Answer.PROMOTE


def test_a_figure_that_one_canary_owes_holds() -> None:
    policy = replace(POLICY, metrics=(P50, MEAN_ENERGY))
    generator = np.random.default_rng(7)
    devices = [
        replace(
            each,
            baseline=window(generator, ms=5, energy=2.0),
            current=window(generator, ms=5, energy=None if place == 0 else 2.0),
        )
        for place, each in enumerate(fleet())
    ]
    decision = judged(devices, policy)
    assert decision.answer is Answer.HOLD
    assert "energy_mj.mean of all is 1 canaries report without this figure" in decision.reason
    whole = changed(devices, range(1), current=window(generator, ms=5, energy=2.0))
    assert judged(whole, policy).answer is Answer.PROMOTE


@pytest.mark.parametrize("devices", [[], fleet(10, 0), fleet(0, 40), fleet(2, 40), fleet(1, 1)], ids=len)
def test_too_few_devices_hold(devices: list[DeviceEvidence]) -> None:
    assert judged(devices).answer is Answer.HOLD


def test_devices_without_a_baseline_prove_nothing() -> None:
    decision = judged(changed(fleet(), range(10), baseline=None))
    assert decision.answer is Answer.HOLD
    assert "0 canaries can be compared" in decision.reason


def test_more_events_than_trials_are_owed_not_believed() -> None:
    devices = changed(fleet(), range(1), current=Window(counters={"requests": 1, "crashes": 2}))
    assert "1 canaries report without this figure" in judged(devices).reason


@pytest.mark.parametrize(("disagreed", "answer"), [(2, Answer.PROMOTE), (20, Answer.HOLD), (60, Answer.ROLLBACK)])
def test_shadow_disagreement_is_judged_against_its_limit(disagreed: int, answer: Answer) -> None:
    policy = GatePolicy(rates=(SHADOW,), report_s=600)
    counters = {"shadow_compared": 1000, "shadow_disagreed": disagreed}
    devices = [replace(each, current=Window(counters=counters)) if each.canary else each for each in fleet()]
    assert judged(devices, policy).answer is answer


def test_crash_loops_and_refused_signatures_stop_at_once() -> None:
    devices = fleet()
    loop = replace(devices[0].current or Window(), crash_loop=True)
    refused = replace(devices[0].current or Window(), signature_failures=1)
    for current, count, stops in ((loop, 1, False), (loop, 2, True), (refused, 1, True)):
        found = table(POLICY, changed(devices, range(count), current=current), now_s=1200.0)
        assert bool(hard_stop(POLICY, found)) is stops
    controls = table(POLICY, changed(devices, range(20, 30), current=loop), now_s=1200.0)
    assert not hard_stop(POLICY, controls)


def test_a_window_counts_each_envelope_once_in_any_order() -> None:
    envelopes = [
        Envelope(
            device="d",
            boot="b",
            sequence=sequence,
            start_unix_ms=0,
            end_unix_ms=1,
            device_class="rpi4",
            release="a" * 64,
            variant="v",
            histograms={"latency_ms": histogram_of([1.0 + sequence, 2.0])},
            counters={"requests": 2},
            crashes=1,
        )
        for sequence in range(3)
    ]
    whole = window_of(envelopes)
    assert whole.counters == {"requests": 6, "crashes": 3}
    assert whole.histograms["latency_ms"] == histogram_of([1.0, 2.0, 2.0, 2.0, 3.0, 2.0])
    assert window_of([*reversed(envelopes), *envelopes]) == whole


@pytest.mark.parametrize(("requests", "answer"), [(200, Answer.HOLD), (3, Answer.PROMOTE)])
def test_a_busy_canary_owes_its_figures_and_an_idle_one_does_not(requests: int, answer: Answer) -> None:
    current = Window(histograms={"latency_ms": histogram_of([5.0])}, counters={"requests": requests, "crashes": 0})
    assert judged(changed(fleet(), range(1), current=current)).answer is answer


def test_rates_need_no_more_than_their_counters() -> None:
    policy = GatePolicy(rates=(CRASH_RATE,), report_s=600)
    assert judged(fleet(), policy).answer is Answer.PROMOTE
