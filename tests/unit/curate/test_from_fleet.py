"""From what devices sketched of their inputs to a split that shows it, and a run that takes the split."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgewise.cli.main import run
from edgewise.contracts.capture import EDGES, REPORTS, FleetCapture
from edgewise.contracts.curation import CalibrationRequest
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig
from edgewise.contracts.telemetry import Envelope
from edgewise.demo import demo_folder
from edgewise.device.capture.sketches import Capture
from edgewise.errors import DataError
from edgewise.fleet.captures import captured
from edgewise.fleet.ingest_totals import Totals, add, totals_of
from edgewise.forge.curate.fleet_ import cells_of
from edgewise.forge.data.open import open_dataset
from edgewise.runtimes import runtime
from tests.unit.device.uplink.devices import RELEASE, window

MODEL = str(demo_folder() / "model.onnx")


def samples(name: str, count: int) -> NDArray[np.float32]:
    with np.load(demo_folder() / f"{name}.npz") as file:
        return np.asarray(file["x"][:count], np.float32)


def sketched(inputs: NDArray[np.float32], *, devices: int = 2, epsilon: float | None = None) -> FleetCapture:
    """Return what a server gives out after `devices` have seen these inputs, each a part."""
    totals = []
    for device in range(devices):
        now_s = [0.0]
        capture = Capture(
            {"x": inputs[:1]},
            epsilon=epsilon,
            clock=lambda: now_s[0],  # noqa: B023 - called before the loop goes on
            below=Random(device).randrange,  # noqa: S311 - a test's own
        )
        for each in inputs[device::devices]:
            now_s[0] += 1
            capture.offer({"x": each[None]}, 0.05)
        now_s[0] += 3600
        found = capture.report()
        assert found is not None
        envelope: Envelope = msgspec.structs.replace(
            window(0, device=f"d{device}"), sketches=found.sketches, counters=found.counters
        )
        totals.append(totals_of(envelope))
    assert reduce(add, totals, Totals()).counters[REPORTS] == devices
    return captured(totals, product="kws", release=RELEASE, start_ms=0, stop_ms=1)


def test_sketches_of_devices_add_up_to_that_of_all_inputs() -> None:
    inputs = samples("test", 40)
    found = sketched(inputs)
    values = inputs.reshape(len(inputs), -1)
    for side, extremes in (("low", values.min(axis=1)), ("high", values.max(axis=1))):
        expected = np.bincount(np.searchsorted(EDGES, extremes, side="right"), minlength=len(EDGES) + 1)
        assert found.sketches[f"capture.0.0.{side}"].counts == tuple(expected)


class TestCells:
    def test_without_noise_every_filled_bin_is_one_and_shares_add_up(self) -> None:
        cells = cells_of(sketched(samples("test", 40)))
        for is_high in (False, True):
            assert sum(each.share for each in cells if each.side.is_high == is_high) == pytest.approx(1)

    def test_noise_alone_shows_next_to_nothing(self) -> None:
        found = sketched(samples("test", 1), devices=30, epsilon=0.5)
        assert found.noise == 30 * 12
        assert len(cells_of(found)) <= 1  # of 200 bins, at four standard deviations

    def test_what_many_devices_saw_stands_above_their_noise(self) -> None:
        inputs = np.repeat(samples("test", 40), 60, axis=0)
        exact = {(each.side, each.bin) for each in cells_of(sketched(inputs, devices=8)) if each.share > 0.2}
        noised = {(each.side, each.bin) for each in cells_of(sketched(inputs, devices=8, epsilon=2.0))}
        assert exact <= noised
        assert len(noised) < 3 * len(exact) + 8


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Return a file of what a fleet saw: the test split, and now and then inputs four times as large."""
    inputs = samples("test", 200)
    inputs = np.concatenate([inputs, 4 * inputs[:10]])
    (tmp_path / "fleet.json").write_bytes(msgspec.json.encode(sketched(inputs)))
    return tmp_path / "fleet.json"


def selected(tmp_path: Path, fleet: Path, pool: NDArray[np.float32], *options: str) -> int:
    np.savez(tmp_path / "pool.npz", x=pool)
    command = ["data", "select", str(tmp_path / "pool.npz"), "--model", MODEL, "--samples", "12", *options]
    return run([*command, "--output", str(tmp_path / "calibrate.npz"), "--from-fleet", str(fleet)])


def test_what_the_pool_lacks_is_named_and_gone_once_it_is_collected(
    tmp_path: Path, fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = samples("calibrate", 100)
    assert selected(tmp_path, fleet, pool, "--json") == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=CalibrationRequest)
    largest = float(np.abs(samples("test", 200)).max())
    assert found.lacking
    assert all(abs(each.at_least or each.below or 0) >= largest for each in found.lacking)
    assert found.covered < 1
    assert (found.reports, found.noise_scale, found.low_margins) == (2, 0.0, 1.0)
    assert selected(tmp_path, fleet, np.concatenate([pool, 4 * samples("test", 10)])) == 0
    assert "no sample shows" not in capsys.readouterr().out.replace("\n", " ")
    with np.load(tmp_path / "calibrate.npz") as file:
        assert len(file["x"]) == 12
        assert np.abs(file["x"]).max() > largest, "the rare large ones are among the first dozen"

    a_run_takes_the_request_as_calibrate_and_a_changed_split_is_refused(tmp_path)


def a_run_takes_the_request_as_calibrate_and_a_changed_split_is_refused(tmp_path: Path) -> None:
    inputs = runtime(RuntimeName.ONNXRUNTIME).load(Path(MODEL), threads=1).inputs
    config = TaskConfig(calibrate="calibrate.json")
    assert len(open_dataset(tmp_path / "calibrate.json", config=config, inputs=inputs)) == 12
    np.savez(tmp_path / "calibrate.npz", x=samples("calibrate", 3))
    with pytest.raises(DataError, match="was changed since"):
        open_dataset(tmp_path / "calibrate.json", config=config, inputs=inputs)
    (tmp_path / "calibrate.npz").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(tmp_path / "calibrate.json", config=config, inputs=inputs)
    (tmp_path / "calibrate.json").write_text('{"format_version": 1}')
    with pytest.raises(DataError, match="no calibration request"):
        open_dataset(tmp_path / "calibrate.json", config=config, inputs=inputs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: b"{", "cannot be read"),
        (lambda _: b"\xff", "cannot be read"),
        (lambda found: msgspec.json.encode(found | {"sketches": {}}), "nothing beyond the noise"),
        (lambda found: msgspec.json.encode(found | {"reports": 10**6, "noise": 10**9}), "nothing beyond the noise"),
        (
            lambda found: msgspec.json.encode(
                found | {"sketches": {"capture.5.0.low": found["sketches"]["capture.0.0.low"]}}
            ),
            "the model that the release was made of",
        ),
    ],
)
def test_what_is_no_capture_of_this_model_is_refused_and_nothing_is_written(
    tmp_path: Path, fleet: Path, capsys: pytest.CaptureFixture[str], change: object, words: str
) -> None:
    assert callable(change)
    fleet.write_bytes(change(json.loads(fleet.read_text())))
    assert selected(tmp_path, fleet, samples("calibrate", 30)) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "calibrate.npz").exists()
    assert not (tmp_path / "calibrate.json").exists()


@pytest.mark.parametrize("options", [["--method", "random"], ["--from-fleet", "nowhere.json"]])
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, fleet: Path, options: list[str]) -> None:
    np.savez(tmp_path / "pool.npz", x=samples("calibrate", 5))
    command = ["data", "select", str(tmp_path / "pool.npz"), "--model", MODEL, "-o", str(tmp_path / "c.npz")]
    assert run([*command, "--from-fleet", str(fleet), *options]) == 2
