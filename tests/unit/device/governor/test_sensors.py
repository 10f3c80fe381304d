from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest

from edgewise.device.governor.sensors import (
    PROC,
    Sensors,
    battery_left,
    free_memory_mib,
    hottest_c,
    trip_c,
    waited,
)


def drawn(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_the_hottest_zone_counts_and_nonsense_does_not(tmp_path: Path) -> None:
    zones = {
        "0/temp": "45000",
        "1/temp": "71500",
        "2/temp": "-274000",
        "3/temp": "",
        "4/temp": "1e9",
        "5/temp": "9999999",
    }
    drawn(tmp_path, {f"class/thermal/thermal_zone{name}": text for name, text in zones.items()})
    assert hottest_c(tmp_path) == (71.5, "")


def test_the_kernels_own_limit_is_the_lowest_passive_or_hot_trip(tmp_path: Path) -> None:
    zone = "class/thermal/thermal_zone0/trip_point_"
    trips = [("0", "critical", "60000"), ("1", "passive", "85000"), ("2", "hot", "95000"), ("3", "passive", "0")]
    drawn(
        tmp_path,
        {f"{zone}{at}_{key}": text for at, kind, temp in trips for key, text in (("type", kind), ("temp", temp))},
    )
    assert trip_c(tmp_path) == 85.0
    assert trip_c(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("supplies", "left", "why"),
    [
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/capacity": "18"}, 0.18, ""),
        ({"BAT0/type": "Battery", "BAT0/status": "Charging", "BAT0/capacity": "18"}, None, "on mains"),
        ({"AC/type": "Mains", "AC/online": "1"}, None, "no battery that can be read"),
        (
            {"BAT0/type": "Battery", "BAT0/status": "Discharging", "BAT0/capacity": "900"},
            None,
            "no battery that can be read",
        ),
        (
            {"m/type": "Battery", "m/scope": "Device", "m/status": "Discharging", "m/capacity": "3"},
            None,
            "no battery that can be read",
        ),
        ({}, None, "no battery that can be read"),
    ],
)
def test_only_a_battery_that_feeds_the_device_counts(
    tmp_path: Path, supplies: dict[str, str], left: float | None, why: str
) -> None:
    drawn(tmp_path, {f"class/power_supply/{name}": text for name, text in supplies.items()})
    assert battery_left(tmp_path) == (left, why)


def test_a_control_groups_limit_is_less_than_the_systems_memory(tmp_path: Path) -> None:
    drawn(tmp_path, {"fs/cgroup/memory.max": str(64 << 20), "fs/cgroup/memory.current": str(60 << 20)})
    assert free_memory_mib(tmp_path) == (4.0, "")
    drawn(tmp_path, {"fs/cgroup/memory.max": "max"})
    free, _ = free_memory_mib(tmp_path)
    assert free is not None
    assert free > 4.0


def test_what_a_device_does_not_say_is_none_with_its_reason(tmp_path: Path) -> None:
    found = Sensors(tmp_path, proc=tmp_path).read()
    assert (found.temperature_c, found.battery, found.load) == (None, None, None)
    assert [each.split(":")[0] for each in found.missing] == ["temperature", "battery", "load"]
    assert found.free_memory_mib is not None


def test_load_is_the_share_of_time_spent_waiting(tmp_path: Path) -> None:
    drawn(tmp_path, {"task/1/schedstat": "1000 500 7", "task/2/schedstat": "0 0 0", "task/3/schedstat": "no"})
    sensors = Sensors(tmp_path, proc=tmp_path)
    assert sensors.read().load is None
    drawn(tmp_path, {"task/1/schedstat": "4000 1000 9", "task/2/schedstat": "0 500 1"})
    assert sensors.read().load == 0.25
    drawn(tmp_path, {"task/1/schedstat": "10 1000 9"})
    found = sensors.read()
    assert found.load is None
    assert "load: nothing to tell since the last look" in found.missing


def test_this_kernel_says_how_long_threads_wait() -> None:
    before = waited(PROC)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    after = waited(PROC)
    if before is None or after is None:
        pytest.skip("no scheduling statistics here")
    assert after[0] > before[0]


def test_the_thread_ends_with_its_sensors(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path, interval_s=0.01)
    sensors.start()
    (thread,) = [each for each in threading.enumerate() if each.name == "edgewise-sensors"]
    del sensors
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
