"""Energy meters on machines drawn in a temporary folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.contracts.evidence import EnergyProvenance
from edgewise.contracts.target import PowerModel
from edgewise.errors import DataError
from edgewise.forge.measure.energy import Energy, measure_energy
from edgewise.meters.energy import BatteryGauge, Ina3221, PowerEstimate, Rapl, find_meters
from tests.unit.measure.clocks import FEEDS, Machine

Draw = Callable[..., Path]


def write(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n", encoding="ascii")
    return folder


class TestRapl:
    @staticmethod
    def zone(root: Path, name: str, label: str, energy: int, span: int = 1_000_000) -> Path:
        return write(root / name, name=label, energy_uj=energy, max_energy_range_uj=span)

    def test_adds_packages_and_neither_their_parts_nor_their_whole(self, tmp_path: Path) -> None:
        zones = [
            self.zone(tmp_path, "intel-rapl:0", "package-0", 100),
            self.zone(tmp_path, "intel-rapl:1", "package-1", 100),
            self.zone(tmp_path, "intel-rapl:0:0", "core", 100),
            self.zone(tmp_path, "intel-rapl:2", "psys", 100),
            self.zone(tmp_path, "intel-rapl-mmio:0", "package-0", 100),
        ]
        meter = Rapl.find(tmp_path)
        assert meter is not None
        meter.start()
        for zone, used in zip(zones, (2_000, 3_000, 70_000, 70_000, 2_000), strict=True):
            write(zone, energy_uj=100 + used)
        assert meter.stop() == pytest.approx(0.005)

    def test_a_counter_that_started_anew_is_followed(self, tmp_path: Path) -> None:
        zone = self.zone(tmp_path, "intel-rapl:0", "package-0", 999_000, span=1_000_000)
        meter = Rapl.find(tmp_path)
        assert meter is not None
        meter.start()
        write(zone, energy_uj=4_000)
        assert meter.stop() == pytest.approx(0.005)

    def test_a_counter_that_did_not_move_is_unknown(self, tmp_path: Path) -> None:
        self.zone(tmp_path, "intel-rapl:0", "package-0", 10)
        meter = Rapl.find(tmp_path)
        assert meter is not None
        meter.start()
        assert meter.stop() is None

    def test_a_counter_that_vanished_is_unknown(self, tmp_path: Path) -> None:
        zone = self.zone(tmp_path, "intel-rapl:0", "package-0", 10)
        meter = Rapl.find(tmp_path)
        assert meter is not None
        meter.start()
        (zone / "energy_uj").unlink()
        assert meter.stop() is None

    def test_no_package_is_no_meter(self, tmp_path: Path) -> None:
        assert Rapl.find(tmp_path / "missing") is None
        self.zone(tmp_path, "intel-rapl:2", "psys", 100)
        write(tmp_path / "intel-rapl:0", name="package-0", max_energy_range_uj=5)  # energy_uj is for root only
        assert Rapl.find(tmp_path) is None


class TestIna3221:
    @staticmethod
    def chip(root: Path, labels: tuple[str, ...]) -> None:
        write(root / "hwmon0", name="other", in1_input=5000, curr1_input=5000)
        rails: dict[str, object] = {}
        for index, label in enumerate(labels, start=1):
            rails |= {f"in{index}_label": label, f"in{index}_input": 5000, f"curr{index}_input": 400 * index}
        write(root / "hwmon1", name="ina3221", **rails)

    @staticmethod
    def watts(meter: Ina3221 | None) -> float:
        assert meter is not None
        meter.start()
        joules = meter.stop()
        assert joules is not None
        # The clock counts one second a sample, so n samples lie n - 1 seconds apart.
        return joules / (len(meter._samples) - 1)

    def test_the_rail_that_feeds_the_board_is_taken(self, tmp_path: Path) -> None:
        self.chip(tmp_path, ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"))
        seconds = itertools.count()
        assert self.watts(Ina3221.find(tmp_path, clock=lambda: next(seconds))) == pytest.approx(2.0)

    def test_rails_without_a_feeding_one_are_added(self, tmp_path: Path) -> None:
        self.chip(tmp_path, ("VDD_GPU", "VDD_CPU"))
        seconds = itertools.count()
        assert self.watts(Ina3221.find(tmp_path, clock=lambda: next(seconds))) == pytest.approx(6.0)

    def test_power_is_integrated_over_time(self, tmp_path: Path) -> None:
        self.chip(tmp_path, ("VDD_IN",))
        times = iter((0.0, 2.0, 3.0))
        meter = Ina3221.find(tmp_path, clock=lambda: next(times))
        assert meter is not None
        meter._sample()
        write(tmp_path / "hwmon1", curr1_input=800)
        meter._sample()
        assert meter.stop() == pytest.approx(3.0 * 2 + 4.0 * 1)

    def test_a_sensor_that_vanished_is_unknown(self, tmp_path: Path) -> None:
        self.chip(tmp_path, ("VDD_IN",))
        meter = Ina3221.find(tmp_path)
        assert meter is not None
        meter.start()
        (tmp_path / "hwmon1" / "in1_input").unlink()
        assert meter.stop() is None

    def test_other_chips_are_no_meter(self, tmp_path: Path) -> None:
        write(tmp_path / "hwmon0", name="coretemp", in1_input=5000, curr1_input=5000)
        assert Ina3221.find(tmp_path) is None


class TestBatteryGauge:
    def test_energy_is_what_the_gauge_lost(self, tmp_path: Path) -> None:
        battery = write(tmp_path / "BAT0", type="Battery", status="Discharging", energy_now=1_000_000)
        meter = BatteryGauge.find(tmp_path)
        assert meter is not None
        meter.start()
        write(battery, energy_now=990_000)  # 10 mWh
        assert meter.stop() == pytest.approx(36.0)

    def test_a_gauge_of_charge_is_turned_into_energy(self, tmp_path: Path) -> None:
        values = {"type": "Battery", "status": "Discharging", "charge_now": 500_000, "voltage_min_design": 4_000_000}
        battery = write(tmp_path / "BAT0", **values)
        meter = BatteryGauge.find(tmp_path)
        assert meter is not None
        meter.start()
        write(battery, charge_now=499_000)
        assert meter.stop() == pytest.approx(14.4)

    @pytest.mark.parametrize("after", [{}, {"status": "Charging", "energy_now": 990_000}, {"energy_now": 1_100_000}])
    def test_a_gauge_that_did_not_fall_is_unknown(self, tmp_path: Path, after: dict[str, object]) -> None:
        battery = write(tmp_path / "BAT0", type="Battery", status="Discharging", energy_now=1_000_000)
        meter = BatteryGauge.find(tmp_path)
        assert meter is not None
        meter.start()
        write(battery, **after)
        assert meter.stop() is None

    def test_a_mains_adapter_is_no_meter(self, tmp_path: Path) -> None:
        write(tmp_path / "AC", type="Mains", online=1, energy_now=5)
        assert BatteryGauge.find(tmp_path) is None


def test_a_power_model_counts_idle_time_and_busy_cores() -> None:
    wall, cpu = iter((10.0, 14.0)), iter((1.0, 7.0))
    meter = PowerEstimate(PowerModel(idle_w=2.0, active_w=3.0), clock=lambda: next(wall), cpu_clock=lambda: next(cpu))
    meter.start()
    assert meter.stop() == 2.0 * 4 + 3.0 * 6


class FixedMeter:
    def __init__(self, joules: float | None, provenance: EnergyProvenance) -> None:
        self._joules, self.provenance, self.settles_s = joules, provenance, 0.0
        self.started = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> float | None:
        return self._joules if self.started else None


class TestMeasureEnergy:
    @staticmethod
    def measured(*available: FixedMeter) -> Energy:
        machine = Machine()
        session = machine.session("a", lambda _: 50_000_000)
        return measure_energy(session, FEEDS, available=available, seconds=1.99, clock=lambda: machine.clock() / 1e9)

    def test_energy_is_that_of_one_inference(self) -> None:
        # Two seconds of 50 ms are 40 inferences; the first one before is not counted.
        found = self.measured(FixedMeter(8.0, EnergyProvenance.COUNTER))
        assert found == Energy(energy_mj=200.0, provenance=EnergyProvenance.COUNTER)

    def test_the_first_meter_that_can_tell_is_believed(self) -> None:
        found = self.measured(FixedMeter(None, EnergyProvenance.METERED), FixedMeter(4.0, EnergyProvenance.MODELLED))
        assert found == Energy(energy_mj=100.0, provenance=EnergyProvenance.MODELLED)

    @pytest.mark.parametrize("available", [(), (FixedMeter(None, EnergyProvenance.METERED),)])
    def test_without_a_meter_energy_is_unavailable_and_not_zero(self, available: tuple[FixedMeter, ...]) -> None:
        assert self.measured(*available) == Energy(energy_mj=None, provenance=EnergyProvenance.UNAVAILABLE)

    def test_no_samples_are_refused(self) -> None:
        with pytest.raises(DataError):
            measure_energy(Machine().session("a", lambda _: 1), [], available=())


def test_meters_are_found_below_the_given_root_the_most_trusted_first(tmp_path: Path) -> None:
    assert find_meters(sys=tmp_path) == ()
    TestRapl.zone(tmp_path / "class/powercap", "intel-rapl:0", "package-0", 1)
    TestIna3221.chip(tmp_path / "class/hwmon", ("VDD_IN",))
    write(tmp_path / "class/power_supply/BAT0", type="Battery", status="Discharging", energy_now=1)
    found = find_meters(sys=tmp_path, power=PowerModel(idle_w=1.0, active_w=1.0))
    assert [type(each) for each in found] == [Ina3221, Rapl, BatteryGauge, PowerEstimate]
