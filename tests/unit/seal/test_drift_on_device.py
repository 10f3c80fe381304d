from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec import UNSET

from edgewise.bundle.read import Bundle
from edgewise.contracts.manifest import Manifest
from edgewise.device.bundled import open_variant
from edgewise.device.drift.policy import DriftPolicy
from edgewise.device.drift.watch import BATCH, DriftWatch
from edgewise.device.governor.adaptive import AdaptiveRuntime
from edgewise.device.ready import Ready
from edgewise.runtimes.base import Array

SHARP = DriftPolicy(horizon_inputs=1000, chance=0.01)


@pytest.fixture
def slot(bundle: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    with Bundle.open(bundle) as opened:
        opened.extract(tmp_path / "slot")
        return tmp_path / "slot", opened.manifest


def stream(
    ready: Ready, count: int, *, seed: int, gain: float = 1.0
) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """Return inputs like those of the run's splits, and their outputs."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        feeds = {
            name: (gain * random.standard_normal(ready.session.inputs[name].shape)).astype(np.float32)
            for name in ready.session.given
        }
        found.append((feeds, {name: each.copy() for name, each in ready.session.run(feeds).items()}))
    return found


def test_a_sealed_bundle_knows_what_good_data_look_like(slot: tuple[Path, Manifest]) -> None:
    folder, manifest = slot
    for variant in manifest.variants:
        scores = {each.score: each for each in variant.drift}
        assert {"input0.c0.low", "input0.c2.high"} <= scores.keys()
        assert all(each.page_hinkley is not UNSET for each in scores.values())
    ready = open_variant(folder, None, state=())
    watch = DriftWatch(ready, policy=SHARP)
    assert set(watch.scores) == {each.score for each in manifest.variants[0].drift}
    assert watch.unwatched == ()
    for item in stream(ready, BATCH, seed=5):
        watch.record(*item)
    assert watch.alarms == []
    louder = stream(ready, BATCH, seed=6, gain=1.3)
    for item in louder[:-1]:
        watch.record(*item)
    assert watch.alarms == []  # it is looked for in batches
    watch.record(*louder[-1])
    assert {each.score for each in watch.alarms} >= {"input0.c0.low", "input0.c0.high"}
    assert all(each.last >= BATCH for each in watch.alarms)
    sketches = watch.drain()
    assert {sum(each.counts) for each in sketches.values()} == {2 * BATCH}
    assert {sum(each.counts) for each in watch.drain().values()} == {0}


def test_what_is_not_finite_is_left_out_and_counted(slot: tuple[Path, Manifest]) -> None:
    ready = open_variant(slot[0], None, state=())
    watch = DriftWatch(ready)
    (feeds, outputs), other = stream(ready, 2, seed=1)
    broken = {name: array * np.float32(np.nan) for name, array in feeds.items()}
    watch.record(broken, outputs)
    watch.record(*other)
    assert {sum(each.counts) for name, each in watch.drain().items() if name.startswith("input")} == {1}
    assert watch.take_not_finite() == 1
    assert watch.take_not_finite() == 0


def test_only_every_so_many_inference_is_looked_at(slot: tuple[Path, Manifest]) -> None:
    ready = open_variant(slot[0], None, state=())
    watch = DriftWatch(ready, policy=DriftPolicy(every=3, epsilon=None))
    for item in stream(ready, 8, seed=1):
        watch.record(*item)
    assert {sum(each.counts) for each in watch.drain().values()} == {2}


def test_the_governor_opens_a_bundle_and_says_who_did_not_join(slot: tuple[Path, Manifest]) -> None:
    folder, manifest = slot
    names = {each.name for each in manifest.variants}
    runtime = AdaptiveRuntime.open(folder, wanted=manifest.fallback, sys=folder / "no-sys")
    try:
        assert runtime.variant == manifest.fallback
        joined = {each.variant for each in runtime.joined.levels}
        assert joined | {each.variant for each in runtime.joined.declined} == names
        assert all(each.reason for each in runtime.joined.declined)
        assert {each.split(":")[0] for each in runtime.sensed.missing} >= {"temperature", "battery"}
        feeds, _ = stream(runtime.ready, 1, seed=0)[0]
        runtime.infer(feeds)
        report = runtime.report()[manifest.fallback]
        assert report.counters == {"energy.unavailable": 1}
        assert all(sum(each.counts) == 1 for each in report.sketches.values())
    finally:
        runtime.close()


def test_a_variant_that_is_wrong_here_does_not_join(slot: tuple[Path, Manifest]) -> None:
    folder, manifest = slot
    other = next(each for each in manifest.variants if each.name != manifest.chosen)
    data = np.frombuffer((folder / other.golden.path).read_bytes(), np.uint8).copy()
    place = other.golden.samples[0][0].tensor
    data[place.offset : place.offset + place.size] = np.full(place.size // 4, 1e6, "<f4").view(np.uint8)
    (folder / other.golden.path).write_bytes(data.tobytes())
    runtime = AdaptiveRuntime.open(folder, sys=folder / "no-sys")
    runtime.close()
    assert [each.variant for each in runtime.joined.levels] == [manifest.chosen]
    assert "golden" in dict(runtime.joined.declined)[other.name]
