"""The demo's releases are what they are said to be, and its page tells how the rollouts ended."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx

from edgewise.contracts.rollout import Answer, Decision, GateFigure, Release, Rollout, State
from edgewise.contracts.run import Run
from edgewise.demo import demo_folder
from edgewise.demo.loop.detour import write_detour
from edgewise.demo.loop.page import write_page
from edgewise.demo.loop.releases import BAD, BEFORE, GOOD, write_runs
from edgewise.demo.loop.server import POLICY, STAGES
from edgewise.demo.loop.story import Ended, Moment, Story
from edgewise.runtimes.onnxruntime_ import OnnxRuntime
from tests.unit.report import runs


def test_a_detour_changes_no_answer(tmp_path: Path) -> None:
    model, longer = demo_folder() / "model.onnx", tmp_path / "detour.onnx"
    write_detour(model, longer, rounds=2)
    image = np.random.default_rng(0).uniform(0, 255, (1, 1, 28, 28)).astype(np.float32)
    short, long = (OnnxRuntime().load(each).run({"image": image})[0] for each in (model, longer))
    np.testing.assert_array_equal(short, long)
    added = {node.name for node in onnx.load(longer).graph.node} - {node.name for node in onnx.load(model).graph.node}
    assert {"detour.0", "detour.1", "detour.end"} <= added


def test_three_runs_are_written_and_nothing_is_claimed_of_the_slow_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "variants").mkdir(parents=True)
    (run / "variants" / "chosen.onnx").write_bytes((demo_folder() / "model.onnx").read_bytes())
    made = runs.run()
    assert made.chosen is not None
    made = msgspec.structs.replace(made, chosen=msgspec.structs.replace(made.chosen, path="variants/chosen.onnx"))
    (run / "evidence.json").write_bytes(msgspec.json.encode(made))
    folders = write_runs(run, tmp_path / "runs")
    assert folders[GOOD] == run
    documents = {
        version: msgspec.json.decode((folder / "evidence.json").read_bytes(), type=Run)
        for version, folder in folders.items()
    }
    before, bad = documents[BEFORE].chosen, documents[BAD].chosen
    assert before is not None
    assert bad is not None
    assert (before.name, before.speedup) == ("fp32", 1.0)
    assert bad.latency_p50_ms is bad.score is bad.size_mib is None
    for version in (BEFORE, BAD):
        assert (folders[version] / "variants" / "chosen.onnx").is_file()


def test_the_page_tells_the_gate_and_escapes_what_it_shows(tmp_path: Path) -> None:
    releases = [
        Release(product="p", version=version, digest=letter * 64)
        for version, letter in (("1.1.0", "a"), ("1.2.0", "b"))
    ]
    figure = GateFigure(
        gate="latency_ms.p50",
        group="all",
        canaries=5,
        controls=15,
        margin=0.25,
        effect=0.93,
        low=0.8,
        p_harm=1e-9,
        harmed=True,
    )
    last = Decision(
        answer=Answer.ROLLBACK,
        reason="latency <b>worse</b>",
        look=2,
        fraction=0.2,
        canaries=5,
        reported=5,
        silent=0,
        controls=15,
        figures=(figure, msgspec.structs.replace(figure, group="gateway", canaries=4)),
    )
    rollout = Rollout(
        id="r",
        salt="0" * 16,
        from_release=releases[0],
        to_release=releases[1],
        stages=STAGES,
        policy=POLICY,
        state=State.ROLLED_BACK,
        last=last,
    )
    story = Story(
        devices=20,
        seconds=130.0,
        moments=(Moment(at_s=1.0, words="sealed"),),
        ended=(Ended(rollout=rollout, devices={"1.1.0": 20}),),
        answers={"local": 8000},
        commands=("edgewise fleet serve &",),
        reopen="edgewise fleet serve",
        as_told=False,
    )
    write_page(story, tmp_path / "fleet.html")
    page = (tmp_path / "fleet.html").read_text()
    for each in ("1.1.0 to 1.2.0: rolled back", "+93.0%", "+80.0% to unknown", "harm", "did not go as planned"):
        assert each.lower() in page.lower()
    assert "latency &lt;b&gt;worse" in page
    assert page.count("latency_ms.p50") == 1
