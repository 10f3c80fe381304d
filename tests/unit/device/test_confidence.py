from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.contracts.verification import VariantCalibration
from edgewise.device import Runtime
from edgewise.device.confidence import Believer
from edgewise.numerics.probabilities import log_probabilities
from edgewise.numerics.statistics import log_softmax
from tests.unit.device.bundles import CALIBRATION, SURE, UNSURE, extracted

SCORES = st.lists(st.floats(-50.0, 50.0, width=32), min_size=1, max_size=12)


@given(scores=SCORES, temperature=st.floats(0.2, 5.0), threshold=st.floats(0.0, 1.0), stored=st.booleans())
def test_it_is_what_the_verification_fitted(
    *, scores: list[float], temperature: float, threshold: float, stored: bool
) -> None:
    """The same equations as on the workstation: log probabilities over the temperature, 1 - p within the threshold."""
    row = np.array([scores], np.float32)
    if stored:
        row = np.exp(log_softmax(row)).astype(np.float32)
    believer = Believer(
        VariantCalibration(temperature=temperature, conformal={"0.9": threshold}), output="y", stored=stored
    )
    found = believer.confidence({"y": row}, coverage=0.9)
    assert found is not None
    p = np.exp(log_softmax(log_probabilities(row, stored=stored) / temperature))[0]
    assert found.probability == pytest.approx(p.max(), rel=1e-9)
    clear = np.abs(1 - p - threshold) > 1e-9
    assert found.set_size is not None
    assert (
        int((1 - p <= threshold)[clear].sum())
        <= found.set_size
        <= int((1 - p <= threshold)[clear].sum() + (~clear).sum())
    )
    assert p[found.best] == p.max()


def test_sure_is_one_class_alone() -> None:
    believer = Believer(CALIBRATION, output="y", stored=False)
    for logits, size, is_sure in (
        ((9.0, 0.0, 0.0), 1, True),
        ((1.0, 1.0, -9.0), 0, False),
        ((1.0, 0.9, 0.0), 0, False),
    ):
        found = believer.confidence({"y": np.array([logits])}, coverage=0.9)
        assert found is not None
        assert (found.set_size, found.is_sure) == (size, is_sure)
    wide = msgspec.structs.replace(CALIBRATION, conformal={"0.9": 0.6})
    found = Believer(wide, output="y", stored=False).confidence({"y": np.array([(1.0, 1.0, -9.0)])}, coverage=0.9)
    assert found is not None
    assert (found.set_size, found.is_sure) == (2, False)


def test_what_is_not_known_is_none() -> None:
    believer = Believer(CALIBRATION, output="y", stored=False)
    assert believer.coverages == (0.9,)
    for bad in (np.nan, np.inf, -np.inf):
        assert believer.confidence({"y": np.array([1.0, bad, 0.0])}, coverage=0.9) is None
    found = believer.confidence({"y": np.array([1.0, 0.0])}, coverage=0.8)
    assert found is not None
    assert (found.set_size, found.is_sure) == (None, None)


def test_a_bundle_brings_its_own(tmp_path: Path) -> None:
    runtime = Runtime.open(extracted(tmp_path / "logits"))
    believer = runtime.ready.believer
    assert believer is not None
    surest, unsure = (believer.confidence(runtime.infer(each).outputs, coverage=0.9) for each in (SURE, UNSURE))
    assert (surest and surest.is_sure, unsure and unsure.is_sure) == (True, False)
    # Golden outputs that are probabilities: 0.9 is sure as it is, and would not be as a logit.
    softmax = Runtime.open(extracted(tmp_path / "softmax", stored=True)).ready.believer
    found = softmax and softmax.confidence({"y": np.array([0.9, 0.05, 0.05])}, coverage=0.9)
    assert found
    assert found.probability == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("task", ["embedding", "detection"])
def test_other_tasks_have_no_confidence(tmp_path: Path, task: str) -> None:
    assert Runtime.open(extracted(tmp_path, kind=task)).ready.believer is None
    assert Runtime.open(extracted(tmp_path, calibration=VariantCalibration())).ready.believer is None
