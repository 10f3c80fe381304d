from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgewise.contracts.capture import MARGIN, MARGIN_EDGES, REPORTS
from edgewise.device.agent.capturing import FOLDER, Capturing
from edgewise.device.agent.settings import CaptureOptions
from edgewise.device.capture.samples import CONSENT
from edgewise.errors import KeyFileError

NO_BUNDLE: Any = SimpleNamespace(stored=None, manifest=None)
LOGITS: Any = SimpleNamespace(stored=False, manifest=SimpleNamespace(outputs=(SimpleNamespace(name="y"),)))
SPECS = {"x": (np.dtype(np.float32), (1, 4))}
INPUTS = {"x": np.ones((1, 4), np.float32)}


def test_the_last_report_of_a_model_tells_what_it_was_given(tmp_path: Path) -> None:
    capturing = Capturing(tmp_path, CaptureOptions())
    capturing.offer(INPUTS, NO_BUNDLE, {})  # no model yet
    assert capturing.ended() is None
    capturing.running(SPECS)
    capturing.offer(INPUTS, NO_BUNDLE, {})
    assert capturing.report() is None  # not due
    found = capturing.ended()
    assert found is not None
    assert found.counters[REPORTS] == 1
    assert sum(found.sketches["capture.0.0.high"].counts) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ready", "scores", "margin"),
    [
        (LOGITS, [0.0, np.log(3.0)], 0.5),
        (LOGITS, [0.0], None),
        (LOGITS, [np.nan, 0.0], None),
        (LOGITS, None, None),
        (NO_BUNDLE, [0.0, 1.0], None),
    ],
)
def test_a_classifiers_margin_is_told(
    tmp_path: Path, ready: Any, scores: list[float] | None, margin: float | None
) -> None:
    capturing = Capturing(tmp_path, CaptureOptions())
    capturing.running(SPECS)
    outputs = {} if scores is None else {"y": np.array([scores], np.float32)}
    capturing.offer(INPUTS, ready, outputs)
    found = capturing.ended()
    assert found is not None
    counts = np.array(found.sketches[MARGIN].counts)
    expected = np.zeros_like(counts)
    if margin is not None:
        expected[np.searchsorted(MARGIN_EDGES, margin, side="right")] = 1
    assert counts.tolist() == expected.tolist()


def test_a_sample_a_window_is_kept_while_there_is_consent(tmp_path: Path) -> None:
    key = tmp_path / "capture.pub"
    key.write_bytes(
        X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    folder = tmp_path / "agent"
    capturing = Capturing(folder, CaptureOptions(samples_key=str(key)))
    capturing.running(SPECS)

    def windows(count: int) -> int:
        for _ in range(count):
            for _ in range(3):
                capturing.offer(INPUTS, NO_BUNDLE, {})
            capturing.report()
        return len(list((folder / FOLDER).glob("*.sample")))

    assert windows(3) == 0
    (folder / FOLDER / CONSENT).write_text("the owner agreed")
    assert windows(4) == 3  # consent is seen at the end of the first
    (folder / FOLDER / CONSENT).unlink()
    assert windows(1) == 0
    with pytest.raises(KeyFileError):
        Capturing(folder, CaptureOptions(samples_key=str(tmp_path / "none")))
