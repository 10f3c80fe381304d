"""All devices of a gate are judged by what they did at the same time: since the stage began."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.rollout import Answer, Command, GatePolicy, Rollout, Stage, State
from edgewise.fleet.evidence import CRASHES, table
from edgewise.fleet.gates import decide
from edgewise.fleet.ingest_evidence import Kept, device_evidence
from edgewise.fleet.ingest_merge import place
from edgewise.fleet.ingest_totals import Totals
from edgewise.fleet.rollouts import command
from edgewise.fleet.store import rollouts, telemetry
from edgewise.fleet.store.database import open_database
from edgewise.fleet.store.devices import DeviceView
from edgewise.fleet.store.telemetry import Cell, CellKey, Received
from tests.conformance.fleet.envelopes import envelope
from tests.unit.fleet.devices import P50, STAGE, release, rollout

FIRST_S, SECOND_S = 1000.0, 5000.0
STAGES = (STAGE, Stage(name="everybody", share=1.0, bake_s=60))
STARTS = {STAGE.name: FIRST_S, "everybody": SECOND_S}


def second_stage() -> Rollout:
    return msgspec.structs.replace(
        rollout(*STAGES), state=State.STAGED, stage=1, promoted=1, start_s=FIRST_S, stage_start_s=SECOND_S, holdback=0.5
    )


def device(name: str) -> DeviceView:
    return DeviceView(
        id=name,
        product="kws",
        device_class="pi5",
        labels=(),
        release=None,
        enrolled_ms=0,
        seen_ms=None,
        revoked_ms=None,
    )


def cell(name: str, version: str, start_s: float, ms: float, *, crash_loops: int = 0) -> Kept:
    totals = Totals(histograms={"latency_ms": histogram_of([ms] * 20)}, counters={"requests": 20})
    totals = msgspec.structs.replace(totals, crash_loops=crash_loops)
    key = CellKey(name, release(version).digest, round(start_s * 1000))
    return key, Cell("kws", "pi5", round(start_s * 1000) + 60_000, totals)


@pytest.mark.parametrize("name", [f"d{number}" for number in range(8)])
def test_a_gate_sees_what_happened_since_its_stage_began(name: str) -> None:
    cells = [
        cell(name, version, at, ms) for version in "12" for at, ms in ((0.0, 1.0), (FIRST_S, 2.0), (SECOND_S, 8.0))
    ]
    (found,) = device_evidence(second_stage(), [device(name)], cells, STARTS)
    assert found.current is not None
    assert found.current.counters == {"requests": 20, CRASHES: 0}
    assert found.current.histograms["latency_ms"] == histogram_of([8.0] * 20)
    assert found.baseline is not None
    assert found.baseline.histograms["latency_ms"] == histogram_of([1.0] * 20)
    assert found.last_report_s == SECOND_S + 60


def test_a_device_that_has_not_reported_since_is_not_judged_by_what_was_before_and_its_crash_loop_is_remembered() -> (
    None
):
    cells = [cell("d0", version, FIRST_S, 2.0) for version in "12"]
    (found,) = device_evidence(second_stage(), [device("d0")], cells, STARTS)
    assert found.current is None
    assert found.last_report_s == FIRST_S + 60
    loops = [cell("d0", version, FIRST_S, 2.0, crash_loops=1) for version in "12"]
    (looping,) = device_evidence(second_stage(), [device("d0")], loops, STARTS)
    assert looping.current is not None
    assert looping.current.crash_loop
    assert looping.current.counters == {}


def test_what_is_kept_of_a_device_is_cut_where_a_stage_begins(tmp_path: Path) -> None:
    async def main() -> dict[str, list[int]]:
        database = open_database(str(tmp_path / "fleet.db"))
        try:
            await database.migrate()
            begun, events = command(rollout(*STAGES), Command.START, now_s=FIRST_S, actor="a")
            async with database.write() as connection:
                kept = await rollouts.add(connection, begun, events, now_ms=0)
            later = msgspec.structs.replace(begun, stage=1, promoted=1, stage_start_s=SECOND_S)
            async with database.write() as connection:
                await rollouts.save(connection, kept, later, (), now_ms=0)
            async with database.read() as connection:
                return await telemetry.cuts(connection)
        finally:
            await database.close()

    found = asyncio.run(main())
    assert found == {"kws": [1_000_000, 5_000_000]}
    sent = [envelope("d", number, start_unix_ms=at) for number, at in enumerate((4_999_999, 5_000_000))]
    places = [place(Received("d", "b", each.sequence, "kws", 6_000_000, b""), each, found["kws"]) for each in sent]
    assert [each.cell.start_ms for each in places] == [1_000_000, 5_000_000]


def test_a_busier_hour_is_not_the_fault_of_a_release_that_devices_got_in_it() -> None:
    """Latency doubles for everybody as the second stage begins, in which most canaries join."""
    names, cells = [f"d{number}" for number in range(40)], []
    for number, name in enumerate(names):
        usual, now = 1 + number / 40, (1 + number / 40) * (2 + number % 7 / 50)
        cells += [cell(name, "1", 0.0, usual), cell(name, "1", FIRST_S, usual)]
        cells += [cell(name, version, SECOND_S, now) for version in "12"]
    policy = GatePolicy(metrics=(P50,), report_s=600)
    evidence = device_evidence(second_stage(), [device(name) for name in names], cells, STARTS)
    found = decide(policy, STAGES[1], table(policy, evidence, now_s=SECOND_S + 60), (1.0,))
    assert 8 <= found.canaries <= 32
    assert found.answer is Answer.PROMOTE, found.reason
