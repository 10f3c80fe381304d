"""Energy of inferences on machines drawn in a temporary folder, as their kernels draw them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewise.contracts.evidence import EnergyProvenance
from edgewise.contracts.histogram import quantile
from edgewise.device.energy import WINDOW_S, EnergyWindows
from edgewise.meters.energy import find_meters


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def write(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n", encoding="ascii")
    return folder


def count(windows: EnergyWindows, inferences: int) -> None:
    for _ in range(inferences):
        windows.count()


def test_a_counter_that_wraps_is_shared_among_the_inferences(tmp_path: Path) -> None:
    clock = Clock()
    zone = write(
        tmp_path / "class/powercap/intel-rapl:0", name="package-0", energy_uj=9_900_000, max_energy_range_uj=10_000_000
    )
    windows = EnergyWindows(find_meters(sys=tmp_path), clock=clock)
    assert windows.provenance is EnergyProvenance.COUNTER
    count(windows, 50)
    windows.look()  # too early to read
    clock.now_s += WINDOW_S
    write(zone, energy_uj=400_000)  # 0.1 J to the end of its range, 0.4 J from there
    windows.look()
    count(windows, 10)
    write(zone, energy_uj=600_000)
    histogram, counters = windows.drain()
    assert histogram.count == 60
    assert histogram.minimum == pytest.approx(10.0)  # 500 mJ over 50
    assert histogram.maximum == pytest.approx(20.0)  # 200 mJ over 10
    assert quantile(histogram, 0.5).value == pytest.approx(10.0, rel=1e-2)
    assert counters == {"energy.counter": 60}
    assert windows.drain() == (type(histogram)(), {})


def test_without_a_meter_energy_is_unavailable_and_never_zero(tmp_path: Path) -> None:
    windows = EnergyWindows(find_meters(sys=tmp_path), clock=Clock())
    count(windows, 7)
    histogram, counters = windows.drain()
    assert histogram.count == 0
    assert counters == {"energy.unavailable": 7}


def test_a_counter_that_does_not_move_is_unavailable(tmp_path: Path) -> None:
    write(tmp_path / "class/powercap/intel-rapl:0", name="package-0", energy_uj=5, max_energy_range_uj=100)
    windows = EnergyWindows(find_meters(sys=tmp_path), clock=Clock())
    count(windows, 3)
    histogram, counters = windows.drain()
    assert (histogram.count, counters) == (0, {"energy.unavailable": 3})


def test_a_gauge_is_waited_for(tmp_path: Path) -> None:
    clock = Clock()
    battery = write(tmp_path / "class/power_supply/BAT0", type="Battery", status="Discharging", energy_now=50_000)
    windows = EnergyWindows(find_meters(sys=tmp_path), clock=clock)
    count(windows, 90)
    clock.now_s += 300
    assert windows.drain()[1] == {}  # it has not moved: these are in a later report
    count(windows, 90)
    write(battery, energy_now=49_990)  # 10 mWh/1000 = 0.036 J
    histogram, counters = windows.drain()
    assert counters == {"energy.metered": 180}
    assert histogram.maximum == pytest.approx(0.2)
    count(windows, 5)
    clock.now_s += 900
    assert windows.drain()[1] == {"energy.unavailable": 5}


def test_another_variant_does_not_inherit_a_window(tmp_path: Path) -> None:
    write(tmp_path / "class/power_supply/BAT0", type="Battery", status="Discharging", energy_now=50_000)
    windows = EnergyWindows(find_meters(sys=tmp_path), clock=Clock())
    count(windows, 4)
    assert windows.close()[1] == {"energy.unavailable": 4}
    assert windows.drain()[1] == {}


def test_a_board_sensor_is_read(tmp_path: Path) -> None:
    write(tmp_path / "class/hwmon/hwmon1", name="ina3221", in1_label="VDD_IN", in1_input=5000, curr1_input=400)
    windows = EnergyWindows(find_meters(sys=tmp_path))
    count(windows, 2)
    histogram, counters = windows.drain()
    assert counters == {"energy.metered": 2}
    assert histogram.minimum is not None
    assert histogram.minimum > 0
    windows.close()
