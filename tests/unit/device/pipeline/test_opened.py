from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edgewise.bundle.read import Bundle
from edgewise.device import Runtime
from edgewise.device.pipeline import End
from edgewise.device.pipeline.answering import PipelineRuntime
from edgewise.device.pipeline.opened import BundlePipeline
from edgewise.errors import BundleError
from edgewise.forge.seal.joining import join
from edgewise.forge.seal.sealing import Label
from tests.unit.bundle.bundles import SIGNER
from tests.unit.bundle.staged import LOUD, QUIET, joined, one, serialised, value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("voice")
    with Bundle.open(
        joined(place, changes=('"listener.features" }', '"listener.features" }\nplace = "worker"'))[0]
    ) as found:
        found.extract(place / "files")
    return place / "files"


def test_stages_run_where_they_are_said_to_and_keep_their_states(folder: Path) -> None:
    with BundlePipeline(folder) as opened:
        assert [str(each.place) for each in opened.stages] == ["here", "worker"]
        levels = []
        for sound in (QUIET, LOUD, QUIET):
            ticket = opened.submit({"sound": sound})
            assert ticket.result().end is End.OUT
            levels.append(float(opened.outputs_of(ticket)["listener.level"][0]))
        assert np.allclose(levels, [0.1, 0.7, 0.8])
        assert opened.stages[1].ran == 2  # its gate was closed for the first
        assert opened.submit({}).result().reason == "listener misses sound"
        assert opened.stages[1].variant == "fp32"


def test_another_bundle_in_the_place_of_a_stage_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="one model"):
        BundlePipeline(folder / "head")
    path = folder / "head" / "manifest.json"
    kept = path.read_bytes()
    try:
        path.write_bytes((folder / "listener" / "manifest.json").read_bytes())
        with pytest.raises(BundleError, match="holds the bundle"):
            BundlePipeline(folder)
    finally:
        path.write_bytes(kept)


def test_closing_waits_for_answers_that_were_begun(folder: Path) -> None:
    runtime = PipelineRuntime.open(folder)
    runtime.enter()
    closer = threading.Thread(target=runtime.close, args=(60.0,))
    closer.start()
    try:
        assert runtime.infer({"sound": LOUD}).outcome.kind == "local"
        assert closer.is_alive()
    finally:
        runtime.leave()
        closer.join()
    assert runtime.infer({"sound": LOUD}).outcome.reason == "the pipeline is closed"


def test_a_degraded_stage_makes_the_whole_answer_degraded(folder: Path) -> None:
    runtime = PipelineRuntime.open(folder)
    listener = runtime.stages[0].opened
    assert isinstance(listener, Runtime)
    listener.use(listener.ready, degraded="hot")
    outcome = runtime.infer({"sound": LOUD}).outcome
    runtime.close()
    assert (outcome.kind, outcome.reason) == ("local_degraded", "listener: hot")


def test_a_state_that_grows_does_so_from_a_bundle_too(tmp_path: Path) -> None:
    model = serialised(
        [
            helper.make_node("Concat", ["past", "x"], ["present"], axis=1),
            helper.make_node("ReduceSum", ["present"], ["y"], keepdims=0),
        ],
        [value("x", [1, 1]), value("past", [1, "n"])],
        [value("y", []), value("present", [1, "m"])],
    )
    golden = {"x": np.ones((1, 1), np.float32), "past": np.ones((1, 3), np.float32)}
    (tmp_path / "cache.edgewise").write_bytes(one("cache", model, [golden], dynamic={"past": 1, "present": 1}))
    described = 'deadline_ms = 20000\noutputs = ["cache.y"]\n[stages.cache]\nbundle = "cache.edgewise"\n'
    (tmp_path / "p.toml").write_text(f'{described}inputs = {{ x = "x" }}\nstate = {{ past = "present" }}\n')
    path = tmp_path / "cached-1.0.0.edgewise"
    join(tmp_path / "p.toml", path, label=Label(product="cached", version="1.0.0"), signer=SIGNER)
    with Bundle.open(path) as found:
        found.extract(tmp_path / "files")
    with BundlePipeline(tmp_path / "files") as opened:
        sums = []
        for begins in (False, False, False, True):
            ticket = opened.submit({"x": golden["x"]}, begins=begins)
            assert ticket.result().end is End.OUT
            sums.append(float(opened.outputs_of(ticket)["cache.y"]))
    assert sums == [1.0, 2.0, 3.0, 1.0]
