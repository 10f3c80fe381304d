"""A release in shadow: it is tried and scored, answers nobody, and is confirmed without another download."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgewise.contracts.telemetry import SHADOW_COMPARED, SHADOW_DISAGREED
from edgewise.device.agent.running import Agent
from edgewise.device.agent.settings import Settings
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import content, sample
from tests.faults.trust.fleet import PRODUCT, Fleet, served
from tests.unit.bundle.bundles import archive
from tests.unit.bundle.staged import LOUD, QUIET, STATELESS, joined


def scored(agent: Agent, inputs: dict[str, np.ndarray] | None = None, wait_s: float = 30) -> dict[str, int]:
    """Ask until the shadow has compared something; return what was counted."""
    until, found = time.monotonic() + wait_s, Counter[str]()
    while not found.get(SHADOW_COMPARED) and time.monotonic() < until:
        assert agent._serving.infer(inputs or {"x": sample()}).outcome.kind == "local"
        time.sleep(0.01)
        agent._serving.measure()
        for each in agent._reports.collector.drain():
            found.update(each.counters)
    return found


def test_a_release_in_shadow_is_scored_and_later_confirmed_from_its_slot(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        old = publish(fleet, "1.2.0")
        fleet.direct(old)
        with started(enrol(fleet, url), Settings(shadow_share=1.0)) as agent:
            assert agent.poll().result == "updated"
            answer = agent._serving.infer({"x": sample()}).outputs["y"]
            new = publish(fleet, "1.3.0", archive(*content("1.3.0", product=PRODUCT, is_wrong=True)))
            fleet.direct(old, offered=new, salt="salt", share=1.0, shadow=True)
            assert agent.poll().result == "up to date"
            assert (agent.status().release, agent.status().shadow) == ("1.2.0", "1.3.0")
            counters = scored(agent)
            assert counters[SHADOW_COMPARED] == counters[SHADOW_DISAGREED] > 0  # it takes one class for the other
            assert (agent._serving.infer({"x": sample()}).outputs["y"] == answer).all()

        folder, _, name = new.target.partition("/")
        (fleet.store / "repository" / "targets" / folder / f"{new.sha256}.{name}").unlink()
        with started(tmp_path / "gateway-17", Settings(shadow_share=1.0)) as agent:
            assert agent.poll().result == "up to date"
            assert agent.status().shadow == "1.3.0"  # after a start too
            fleet.direct(new)
            assert agent.poll().result == "updated"
            assert (agent.status().release, agent.status().shadow, agent.status().previous) == ("1.3.0", None, "1.2.0")


def test_a_shadow_that_is_called_off_leaves_the_old_one_serving(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        old = publish(fleet, "1.2.0")
        fleet.direct(old)
        with started(enrol(fleet, url)) as agent:
            agent.poll()
            fleet.direct(old, offered=publish(fleet, "1.3.0"), salt="salt", share=1.0, shadow=True)
            agent.poll()
            fleet.direct(old)
            assert agent.poll().result == "up to date"
            assert (agent.status().release, agent.status().shadow) == ("1.2.0", None)


@pytest.mark.parametrize(
    ("factor", "sound", "differs"),
    [(1.0, LOUD, False), (-1.0, LOUD, True), (-1.0, QUIET, False)],
    ids=["the same", "another class", "kept out by both"],
)
def test_a_pipeline_without_states_is_scored(factor: float, sound: np.ndarray, differs: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        old = publish(fleet, "1.0.0", joined(tmp_path / "a", changes=STATELESS)[0].read_bytes())
        fleet.direct(old)
        with started(enrol(fleet, url), Settings(shadow_share=1.0)) as agent:
            assert agent.poll().result == "updated"
            data = joined(tmp_path / "b", "1.1.0", factor=factor, changes=STATELESS)[0].read_bytes()
            fleet.direct(old, offered=publish(fleet, "1.1.0", data), salt="salt", share=1.0, shadow=True)
            assert agent.poll().result == "up to date"
            assert agent.status().shadow == "1.1.0"
            counters = scored(agent, {"sound": sound, "before": np.zeros((1, 4), np.float32)})
            assert counters[SHADOW_COMPARED] > 0
            assert counters[SHADOW_DISAGREED] == (counters[SHADOW_COMPARED] if differs else 0)


def test_a_pipeline_with_states_is_kept_and_not_scored(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        old = publish(fleet, "1.0.0", joined(tmp_path / "a")[0].read_bytes())
        fleet.direct(old)
        with started(enrol(fleet, url), Settings(shadow_share=1.0)) as agent:
            agent.poll()
            new = publish(fleet, "1.1.0", joined(tmp_path / "b", "1.1.0", factor=-1.0)[0].read_bytes())
            fleet.direct(old, offered=new, salt="salt", share=1.0, shadow=True)
            assert agent.poll().result == "up to date"
            assert agent.status().shadow == "1.1.0"
            assert SHADOW_COMPARED not in scored(agent, {"sound": LOUD}, wait_s=1.0)
