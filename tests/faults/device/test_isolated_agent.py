"""The agent with its model in a worker process: what hangs or crashes there costs one answer, and never the agent."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from edgewise.device.agent.settings import Settings, WorkerOptions, read_settings
from edgewise.device.governor.adaptive import AdaptiveRuntime
from edgewise.device.isolated import IsolatedSession
from edgewise.device.pipeline.answering import PipelineRuntime
from edgewise.device.worker import Worker
from edgewise.errors import ConfigError
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import sample
from tests.faults.device.test_governed import of_two_variants
from tests.faults.trust.fleet import Fleet, served
from tests.unit.bundle.staged import LOUD, joined

HANG_S = 60.0
"""What ends an inference without a deadline; one with a deadline must not wait for it."""
IN_WORKER = Settings(worker=WorkerOptions(hang_s=HANG_S))


def worker_of(session: object) -> Worker:
    assert isinstance(session, IsolatedSession)
    return session._worker


def test_a_model_that_hangs_is_ended_in_time_and_the_agent_goes_on(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.0.0"))
        with started(enrol(fleet, url), IN_WORKER) as agent:
            assert agent.poll().result == "updated"
            model = agent._serving.model
            assert model is not None
            worker = worker_of(model.runtime.session)  # type: ignore[union-attr]  # one model
            right = agent._serving.infer({"x": sample()}, until_s=time.monotonic() + 60)
            assert right.outcome.kind == "local"
            first = worker.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)  # as an operator that never comes back
            late = agent._serving.infer({"x": sample()}, until_s=time.monotonic() + 0.05)
            assert late.outcome.kind == "refused"
            assert (late.outcome.slack_ms or 0.0) > -1000 * HANG_S / 2
            assert worker.counts().hangs == 1
            assert worker.pid != first
            again = agent._serving.infer({"x": sample()}, until_s=time.monotonic() + 60)
            assert np.array_equal(again.outputs["y"], right.outputs["y"])
            second = worker.pid
            assert second is not None
            os.kill(second, signal.SIGSEGV)
            crashed = agent._serving.infer({"x": sample()}, until_s=time.monotonic() + 60)
            assert crashed.outcome.kind == "refused"
            agent._serving.measure()
            (told,) = agent._reports.collector.drain()
            assert told.crashes == 2
        assert worker.pid is None


def test_every_stage_gets_a_process_where_the_owner_wants_it(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.0.0", joined(tmp_path / "a")[0].read_bytes()))
        folder = enrol(fleet, url)
        with started(folder, IN_WORKER) as agent:
            assert agent.poll().result == "updated"
            assert [str(each.place) for each in agent.status().stages] == ["worker", "worker"]
            runtime = agent._serving.model.runtime  # type: ignore[union-attr]  # it was installed
            assert isinstance(runtime, PipelineRuntime)
            head = runtime.stages[1].opened
            assert isinstance(head, Worker)
            assert head.pid is not None
            os.kill(head.pid, signal.SIGSTOP)
            hung = agent._serving.infer({"sound": LOUD}, until_s=time.monotonic() + 1.0)
            assert hung.outcome.reason.startswith("head: ")
            assert agent._serving.infer({"sound": LOUD}).outcome.kind == "local"
            assert agent.status().stages[1].restarts == 1


def test_each_variant_that_the_governor_may_choose_has_a_process(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.2.0", of_two_variants("1.2.0")))
        with started(enrol(fleet, url), Settings(worker=WorkerOptions(), governor=True)) as agent:
            assert agent.poll().result == "updated"
            model = agent._serving.model
            assert model is not None
            assert isinstance(model.runtime, AdaptiveRuntime)
            workers = [worker_of(each.session) for each in model.runtime.members]
            assert len({each.pid for each in workers} - {None, os.getpid()}) == 2
            assert all((each.memory_mib or 0) > 10 for each in model.runtime.joined.levels)  # of the process
            assert model.sessions() == []
            right = agent._serving.infer({"x": sample()}, until_s=time.monotonic() + 60)
            assert right.outcome.kind == "local"
            first = workers[0].pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)  # as an operator that never comes back
            assert agent._serving.infer({"x": sample()}, until_s=time.monotonic() + 0.05).outcome.kind == "refused"
            again = agent._serving.infer({"x": sample()}, until_s=time.monotonic() + 60)
            assert np.array_equal(again.outputs["y"], right.outputs["y"])
            assert model.restarts() == 1
        assert [each.pid for each in workers] == [None, None]


def test_a_variant_that_does_not_join_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Worker] = []
    real = Worker.__init__

    def noted(worker: Worker, *arguments: object, **named: object) -> None:
        seen.append(worker)
        real(worker, *arguments, **named)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(Worker, "__init__", noted)
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.2.0", of_two_variants("1.2.0", slow="fast")))
        with started(enrol(fleet, url), Settings(worker=WorkerOptions(), governor=True)) as agent:
            assert agent.poll().result == "updated"
            assert isinstance(agent._serving.model.runtime, AdaptiveRuntime)  # type: ignore[union-attr]  # it was installed
            assert [each.pid is None for each in seen] == [False, True]


def test_a_worker_and_the_governor_do_not_go_together_for_stages(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.0.0", joined(tmp_path / "a")[0].read_bytes()))
        with started(enrol(fleet, url), Settings(worker=WorkerOptions(), governor=True)) as agent:
            problem = agent.poll().problem
    assert problem is not None
    assert problem.kind == ConfigError.__name__
    assert "governor" in problem.found


@pytest.mark.parametrize("text", ["[worker]\nhang_s = 0", "[worker]\nmemory = 1"])
def test_wrong_settings_of_the_worker_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(ConfigError):
        read_settings(tmp_path / "agent.toml")
