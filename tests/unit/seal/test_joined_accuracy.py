"""How often a pipeline as a whole is right: measured where items are given, and never passed over in silence."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from onnx import helper

from edgewise.bundle.read import Bundle
from edgewise.bundle.tensors import place_arrays
from edgewise.bundle.write import Source, sealed_file
from edgewise.contracts.budget import Verdict
from edgewise.contracts.manifest import GoldenOutput, GoldenOutputs
from edgewise.errors import ConfigError, DataError, EdgewiseError
from edgewise.forge.seal.joining import Joined, join
from edgewise.forge.seal.sealing import Label
from tests.unit.bundle import staged
from tests.unit.bundle.bundles import SIGNER, archive
from tests.unit.bundle.staged import LOUD, QUIET, listener, one, serialised, value

DATA = '\n[data]\nitems = "items.npz"\n\n[stages.listener]'
NEAR = np.full((1, 4), 0.52, np.float32)
"""Loud enough for fp32, and not for a variant whose level is a tenth lower."""


def deaf() -> bytes:
    """Return the listener with a level a tenth lower."""
    nodes = [
        helper.make_node("Add", ["x", "h_in"], ["h_out"]),
        helper.make_node("Identity", ["h_out"], ["features"]),
        helper.make_node("ReduceMax", ["h_out"], ["most"], axes=[1], keepdims=0),
        helper.make_node("Constant", [], ["factor"], value_float=0.9),
        helper.make_node("Mul", ["most", "factor"], ["level"]),
    ]
    outputs = [value("level", [1]), value("features", [1, 4]), value("h_out", [1, 4])]
    return serialised(nodes, [value("x", [1, 4]), value("h_in", [1, 4])], outputs)


def with_small(bundle: bytes, model: bytes, samples: list[dict[str, np.ndarray]]) -> bytes:
    """Return a bundle of one variant, fp32, with another one that is the chosen one."""
    with Bundle(io.BytesIO(bundle), name="b") as opened:
        manifest = opened.manifest
        content: dict[str, Source] = {each.path: opened.read(each.path, most=1 << 20) for each in manifest.files}
    session = onnxruntime.InferenceSession(model)
    names = [each.name for each in session.get_outputs()]
    found = [list(zip(names, session.run(None, each), strict=True)) for each in samples]
    outputs, outputs_file = place_arrays(pair for each in found for pair in each)
    content |= {"variants/small/model.onnx": model, "variants/small/golden.bin": outputs_file}
    golden = tuple(
        tuple(GoldenOutput(tensor=each, tolerance=1e-3) for each in outputs[at : at + len(names)])
        for at in range(0, len(outputs), len(names))
    )
    small = msgspec.structs.replace(
        manifest.variants[0],
        name="small",
        model="variants/small/model.onnx",
        golden=GoldenOutputs(path="variants/small/golden.bin", samples=golden),
    )
    listed = tuple(sealed_file(path, source) for path, source in sorted(content.items()))
    changed = msgspec.structs.replace(manifest, variants=(small, *manifest.variants), chosen="small", files=listed)
    return archive(changed, content)


def sealed(folder: Path, *, budget: str = "", **arrays: np.ndarray) -> tuple[Path, Joined]:
    """Seal the voice pipeline, its listener in a variant that is hard of hearing, with items to judge it on."""
    path = staged.stages(folder)
    zero = np.zeros((1, 4), np.float32)
    heard = [{"x": each, "h_in": zero} for each in (LOUD, QUIET)]
    (folder / "listener.edgewise").write_bytes(with_small(one("listener", listener(), heard), deaf(), heard))
    np.savez(folder / "items.npz", allow_pickle=False, **arrays)
    text = staged.DESCRIPTION.replace("latency_p50_ms = 20000", f"latency_p50_ms = 20000\n{budget}")
    path.write_text(text.replace("\n[stages.listener]", DATA))
    output = folder / "voice-1.0.0.edgewise"
    return output, join(path, output, label=Label(product="voice", version="1.0.0"), signer=SIGNER)


def test_a_gate_that_goes_the_other_way_is_counted_and_judged(tmp_path: Path) -> None:
    sound = np.concatenate([LOUD, NEAR, QUIET])
    labels = np.array([2, 2, -1])
    output, made = sealed(tmp_path, budget="flip_rate = 0.5\naccuracy_drop = 0.1", sound=sound, y=labels)
    found = made.evidence
    assert found is not None
    assert (found.output, found.items, found.flips, found.gated_otherwise) == ("head.scores", 3, 1, 1)
    assert (found.variants["listener"], found.fallbacks["listener"]) == ("small", "fp32")
    assert found.score == pytest.approx(2 / 3)
    assert found.fallback_score == 1.0
    assert {each.limit: each.verdict for each in found.verdicts} == {
        "accuracy_drop": Verdict.FAIL,
        "flip_rate": Verdict.PASS,
    }
    with Bundle.open(output) as bundle:
        document = json.loads(bundle.read("evidence.json", most=1 << 20))
        card = bundle.read("card.md", most=1 << 20).decode()
    assert document["flips"] == 1
    assert "On 3 items `head.scores` decides otherwise" in card
    assert "accuracy_drop: fail" in card


def test_items_of_one_stream_carry_the_states_on(tmp_path: Path) -> None:
    sound = np.full((2, 1, 4), 0.35, np.float32)  # 0.35, then 0.7: the state adds up
    alone = sealed(tmp_path / "a", sound=sound, y=np.array([-1, -1]))[1].evidence
    stream = sealed(tmp_path / "b", sound=sound, y=np.array([-1, 2]), begins=np.array([True, False]))[1].evidence
    assert alone is not None
    assert stream is not None
    assert (alone.score, stream.score) == (1.0, 1.0)
    assert stream.verdicts == ()


def test_a_decision_without_labels_has_no_score_and_its_limit_is_not_known(tmp_path: Path) -> None:
    found = sealed(tmp_path, budget="accuracy_drop = 0.1", sound=LOUD)[1].evidence
    assert found is not None
    assert found.score is None
    assert [each.verdict for each in found.verdicts] == [Verdict.UNKNOWN]


def test_a_limit_that_nothing_would_measure_is_refused(tmp_path: Path) -> None:
    change = ("latency_p50_ms = 20000", "flip_rate = 0.01")
    with pytest.raises(ConfigError, match="flip_rate"):
        staged.joined(tmp_path, changes=change)
    assert not list(tmp_path.glob("kws-*"))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"noise": LOUD}, "no sound"),
        ({"sound": LOUD[:0]}, "rows"),
        ({"sound": np.ones((2, 5), np.float32)}, "float32"),
        ({"sound": np.ones((2, 4))}, "float64"),
        ({"sound": LOUD, "y": np.array([1.0])}, "'y'"),
        ({"sound": LOUD, "y": np.array([1, 2])}, "'y'"),
        ({"sound": LOUD, "begins": np.array([True, False])}, "begins"),
        ({}, "npz"),
    ],
)
def test_items_that_do_not_fit_are_refused(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=words) as caught:
        sealed(tmp_path, **arrays) if words != "npz" else damaged(tmp_path)
    assert isinstance(caught.value, DataError)
    assert not list(tmp_path.glob("voice-*"))


def damaged(folder: Path) -> None:
    """Seal with items that are no npz."""
    path = staged.stages(folder)
    (folder / "items.npz").write_bytes(b"PK no npz")
    path.write_text(staged.DESCRIPTION.replace("\n[stages.listener]", DATA))
    join(path, folder / "voice-1.0.0.edgewise", label=Label(product="voice", version="1.0.0"), signer=SIGNER)
