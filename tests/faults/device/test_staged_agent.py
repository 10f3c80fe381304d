"""A bundle of several stages through the agent: one update, one answer for all of them, and back where it is wrong."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise.bundle.read import Bundle
from edgewise.bundle.write import encode_manifest, sealed_file, write_archive
from edgewise.contracts.pipeline import PipelineManifest
from edgewise.device.agent.settings import Settings, WorkerOptions
from edgewise.device.fallback.conservative import Conservative
from edgewise.device.fallback.options import CloudOptions, FallbackOptions
from edgewise.errors import DigestError, SlotError
from tests.faults.device.agents import enrol, publish, started
from tests.faults.trust.fleet import Fleet, served
from tests.unit.bundle.bundles import SIGNER
from tests.unit.bundle.staged import LOUD, QUIET, STATELESS, joined

SUM = np.arange(12, dtype=np.float32).reshape(4, 3)


def wrong(data: bytes) -> bytes:
    """Return a bundle whose stages are right, each by itself, and whose end is another than was sealed."""
    with Bundle(io.BytesIO(data), name="right") as found:
        manifest = found.sealed
        assert isinstance(manifest, PipelineManifest)
        content = {each.path: found.read(each.path, most=1 << 20) for each in manifest.files}
    golden = bytearray(content[manifest.golden_outputs.path])
    golden[:4] = np.float32(9.0).tobytes()
    content[manifest.golden_outputs.path] = bytes(golden)
    listed = tuple(sealed_file(path, source) for path, source in sorted(content.items()))
    out = io.BytesIO()
    changed = encode_manifest(msgspec.structs.replace(manifest, files=listed))
    write_archive(out, {"manifest.json": changed, **content}, signer=SIGNER)
    return out.getvalue()


def test_stages_are_installed_served_and_left_again(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        good = publish(fleet, "1.0.0", joined(tmp_path / "a")[0].read_bytes())
        fleet.direct(good)
        folder = enrol(fleet, url)
        with started(folder) as agent:
            assert agent.poll().result == "updated"
            serving = agent._serving
            first = serving.infer({"sound": QUIET})
            assert first.outcome.kind == "local"
            assert first.outcome.bundle == good.release.digest
            assert list(first.outputs) == ["listener.level"]  # nothing was heard: the head did not run
            second = serving.infer({"sound": LOUD})
            assert np.allclose(second.outputs["listener.level"], 0.7)  # the state was kept
            assert np.allclose(second.outputs["head.scores"], (QUIET + LOUD) @ SUM, atol=1e-5)
            anew = serving.infer({"sound": QUIET}, begins=True)
            assert np.allclose(anew.outputs["listener.level"], 0.1)
            assert serving.infer({"sound": LOUD}, until_s=0.0).outcome.kind == "refused"
            status = agent.status()
            assert (status.release, status.variant) == ("1.0.0", "pipeline")
            assert [(each.name, each.variant, each.ran, each.skipped) for each in status.stages] == [
                ("listener", "fp32", 3, 0),
                ("head", "fp32", 1, 2),
            ]
            serving.measure()
            (told,) = agent._reports.collector.drain()
            assert (told.variant, told.histograms["latency_ms"].count) == ("pipeline", 3)
            assert told.histograms["stage.head.latency_ms"].count == 1
            assert told.counters["stage.head.skipped"] == 2

            fleet.direct(publish(fleet, "1.0.1", wrong(joined(tmp_path / "b", "1.0.1")[0].read_bytes())))
            refused = agent.poll()
            assert refused.problem is not None
            assert (refused.result, refused.problem.kind) == ("refused", "GoldenError")
            assert serving.infer({"sound": LOUD}).outcome.bundle == good.release.digest

            better = publish(fleet, "1.0.2", joined(tmp_path / "c", "1.0.2", factor=2.0)[0].read_bytes())
            fleet.direct(better)
            assert agent.poll().result == "updated"
            assert np.allclose(serving.infer({"sound": LOUD}).outputs["head.scores"], 2 * LOUD @ SUM, atol=1e-5)
        slots = agent._updater.slots
        running = slots.state().running
        assert running is not None
        for name in ("head/manifest.json", "head/variants/fp32/model.onnx", "golden/outputs.bin"):
            path = slots.path(running) / name
            kept = path.read_bytes()
            path.write_bytes(kept[:-1] + b"!")
            with pytest.raises((DigestError, SlotError)):
                slots.check(running, floor="0.0.0")
            path.write_bytes(kept)
        (slots.path(running) / "head" / "manifest.json").write_bytes(b"{}")
        with started(folder) as agent:  # the one before runs again
            assert agent.status().release == "1.0.0"
            assert agent._serving.infer({"sound": LOUD}).outcome.kind == "local"


def test_what_does_not_go_with_stages_is_refused_and_the_conservative_answer_does(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    cloud = FallbackOptions(cloud=CloudOptions(url="http://127.0.0.1:9/"))
    safe = Conservative(outputs={"listener.level": [0.0], "head.scores": [[0.0, 0.0, 1.0]]})
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.0.0", joined(tmp_path / "a")[0].read_bytes()))
        folder = enrol(fleet, url)
        with started(folder, Settings(fallback=cloud)) as agent:
            polled = agent.poll()
            assert polled.problem is not None
            assert (polled.problem.kind, agent._serving.model) == ("ConfigError", None)
        with started(folder, Settings(fallback=FallbackOptions(conservative=safe))) as agent:
            assert agent.status().release == "1.0.0"  # it lies there, signed, and passes its trial with these settings
            assert agent.poll().result == "up to date"
            answer = agent._serving.infer({"sound": LOUD}, until_s=0.0)
            assert answer.outcome.kind == "conservative"
            assert answer.outputs["head.scores"].tolist() == [[0.0, 0.0, 1.0]]
        with started(folder, Settings(governor=True)) as agent:
            assert agent._serving.infer({"sound": LOUD}).outcome.kind == "local"
            assert [each.variant for each in agent.status().stages] == ["fp32", "fp32"]
            agent._serving.measure()
            (told,) = agent._reports.collector.drain()
            assert told.outcomes == {"local": 1}


def test_answers_are_kept_where_no_stage_keeps_a_state(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    keeping = Settings(fallback=FallbackOptions(cache_bytes=1 << 20))
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.0.0", joined(tmp_path / "a", changes=STATELESS)[0].read_bytes()))
        with started(enrol(fleet, url), keeping) as agent:
            assert agent.poll().result == "updated"
            serving, before = agent._serving, np.zeros((1, 4), np.float32)
            found = [serving.infer({"sound": each, "before": before}) for each in (LOUD, QUIET, LOUD, QUIET)]
            assert [each.outcome.kind for each in found] == ["local", "local", "cached", "cached"]
            for first, again in zip(found[:2], found[2:], strict=True):
                assert first.outputs.keys() == again.outputs.keys()  # what a gate kept out is not there again
                assert all(np.array_equal(array, again.outputs[name]) for name, array in first.outputs.items())
                assert again.outcome.bundle == first.outcome.bundle
            found[2].outputs["head.scores"][:] = 0.0  # the caller's own
            assert np.array_equal(
                serving.infer({"sound": LOUD, "before": before}).outputs["head.scores"], found[0].outputs["head.scores"]
            )
            other = serving.infer({"sound": LOUD, "before": before + 1})
            assert other.outcome.kind == "local"
            serving.measure()
            (told,) = agent._reports.collector.drain()
            assert (told.counters["cache_hits"], told.counters["cache_misses"]) == (3, 3)

            fleet.direct(publish(fleet, "1.0.1", joined(tmp_path / "b", "1.0.1")[0].read_bytes()))
            refused = agent.poll()
            assert refused.problem is not None
            assert (refused.problem.kind, "state" in refused.problem.found) == ("ConfigError", True)


def test_what_executes_in_the_agents_process_is_watched_for_hangs(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        fleet.direct(publish(fleet, "1.0.0", joined(tmp_path / "a")[0].read_bytes()))
        folder = enrol(fleet, url)
        for settings, count in ((Settings(), 2), (Settings(governor=True), 2), (Settings(worker=WorkerOptions()), 0)):
            with started(folder, settings) as agent:
                agent.poll()
                assert agent._serving.model is not None
                assert len(agent._serving.model.sessions()) == count
