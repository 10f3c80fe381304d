"""A release that a device cannot install: what the device reports of it, and what its rollout makes of that."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgewise.contracts.rollout import Answer, GatePolicy, RateGate, Rollout, Stage, State
from edgewise.contracts.telemetry import Envelope
from edgewise.device.agent.running import Agent
from edgewise.fleet.evidence import table
from edgewise.fleet.gates import decide
from edgewise.fleet.ingest_evidence import Kept, device_evidence
from edgewise.fleet.ingest_totals import totals_of
from edgewise.fleet.store.devices import DeviceView
from edgewise.fleet.store.telemetry import Cell, CellKey
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import GOLDEN, content, restated, sample
from tests.faults.trust.fleet import PRODUCT, Fleet, served
from tests.unit.bundle.bundles import archive

POLICY = GatePolicy(rates=(RateGate(events="crashes", trials="requests", margin=0.5),), report_s=600)
STAGE = Stage(name="canary", label="canary", bake_s=60, looks=1)


def of_other_outputs(version: str) -> bytes:
    """Return a bundle whose golden outputs are not its model's."""
    manifest, made = content(version, product=PRODUCT)
    golden = made[GOLDEN]
    assert isinstance(golden, bytes)
    made[GOLDEN] = bytes(len(golden))
    return archive(restated(manifest, made), made)


def reported(agent: Agent) -> list[Envelope]:
    agent._serving.measure()
    return agent._reports.collector.drain()


def kept(envelopes: list[Envelope], device: str) -> list[Kept]:
    """Return what the server keeps of them, as of a device of this name."""
    return [
        (CellKey(device, each.release, 1000 + at), Cell(PRODUCT, "pi5", 50_000, totals_of(each)))
        for at, each in enumerate(envelopes)
    ]


def test_a_release_of_other_outputs_is_an_explicit_failure_at_the_gate_until_it_is_installed(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        old = publish(fleet, "1.2.0")
        fleet.direct(old)
        with started(enrol(fleet, url)) as agent:
            agent.poll()
            (installed,) = reported(agent)
            assert installed.counters["installed"] == 1
            bad = publish(fleet, "1.3.0", of_other_outputs("1.3.0"))
            fleet.direct(bad)
            downloads = fleet.store / "repository" / "targets"
            assert agent.poll().result == "refused"
            downloads.rename(downloads.with_name("away"))
            last = agent.poll()  # tried again, and not fetched again
            assert last.problem is not None
            assert last.problem.kind == "GoldenError"
            assert agent._serving.infer({"x": sample()}).outcome.kind == "local"
            failed = reported(agent)
            (theirs,) = [each for each in failed if each.release == bad.release.digest]
            assert theirs.counters == {"install_failed.golden_error": 2}

    rollout = Rollout(
        id="r", salt="x" * 16, from_release=old.release, to_release=bad.release, stages=(STAGE,), policy=POLICY
    )
    rollout = msgspec.structs.replace(rollout, state=State.STAGED, start_s=0.5, stage_start_s=0.5)
    view = DeviceView(
        id="",
        product=PRODUCT,
        device_class="pi5",
        labels=("canary",),
        enrolled_ms=0,
        seen_ms=None,
        revoked_ms=None,
        release=None,
    )
    devices = [msgspec.structs.replace(view, id=f"d{number}") for number in range(10)]
    devices += [msgspec.structs.replace(view, id=f"c{number}", labels=()) for number in range(40)]

    def decision(envelopes: list[Envelope]) -> tuple[Answer, str, int]:
        control = [msgspec.structs.replace(each, counters={"requests": 9}) for each in failed[:1]]
        cells = [cell for each in devices for cell in kept(envelopes if each.labels else control, each.id)]
        evidence = device_evidence(rollout, devices, cells, {})
        found = decide(POLICY, STAGE, table(POLICY, evidence, now_s=60.5), (1.0,))
        return found.answer, found.reason, found.silent

    answer, reason, silent = decision(failed)
    assert (answer, silent) == (Answer.ROLLBACK, 0)
    assert reason.endswith("could not be installed: 10 golden_error")
    later = msgspec.structs.replace(installed, release=bad.release.digest)  # as where a busy device was too slow before
    answer, reason, _ = decision([*failed, later])
    assert answer is Answer.HOLD  # too few requests
    assert "could not be installed" not in reason
