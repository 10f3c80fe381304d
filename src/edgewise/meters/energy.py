"""Energy meters behind one protocol: board sensors, processor counters, a battery, a power model.

Each reads sysfs below a root that is given, so that tests can draw a machine they do not have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from edgewise.contracts.evidence import EnergyProvenance
from edgewise.contracts.target import PowerModel

Seconds = Callable[[], float]
"""A clock in seconds."""

_SAMPLE_S = 0.01


class EnergyMeter(Protocol):
    """Tells the energy that was used between two moments."""

    @property
    def provenance(self) -> EnergyProvenance:
        """Where its figures come from."""
        ...

    @property
    def settles_s(self) -> float:
        """Seconds after which it can tell, where it could not before; 0 where waiting does not help."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> float | None:
        """Return the joules used since `start`; None where they could not be told."""
        ...


def find_meters(*, sys: Path = Path("/sys"), power: PowerModel | None = None) -> tuple[EnergyMeter, ...]:
    """Return the meters that can be read here, the most trusted first.

    Board sensors and counters come before the battery gauge, whose steps are coarse; the power
    model of the target comes last. `sys` is where sysfs is mounted.
    """
    found = (
        Ina3221.find(sys / "class/hwmon"),
        Rapl.find(sys / "class/powercap"),
        BatteryGauge.find(sys / "class/power_supply"),
        PowerEstimate(power) if power is not None else None,
    )
    return tuple(meter for meter in found if meter is not None)


class Rapl:
    """Intel's and AMD's running average power limit: a counter of microjoules per package.

    See the kernel's Documentation/power/powercap. Only packages (and no subzones, which they
    contain, nor `psys`, which contains them) are added. A counter starts anew after
    `max_energy_range_uj`, which takes about an hour at full load: one wrap per reading is told.
    """

    provenance = EnergyProvenance.COUNTER
    settles_s = 0.0

    def __init__(self, zones: tuple[Path, ...]) -> None:
        """Meter these zones; see `find`."""
        self._zones = zones
        self._begin: tuple[int | None, ...] = ()

    @classmethod
    def find(cls, root: Path) -> Self | None:
        """Return a meter of the packages below a powercap folder that this user may read."""
        by_name: dict[str, Path] = {}
        for zone in sorted(root.glob("*rapl*:*")):
            name = _text(zone / "name") or ""
            readable = _number(zone / "energy_uj") is not None and _number(zone / "max_energy_range_uj")
            if name.startswith("package") and readable:
                # intel-rapl-mmio counts the same package once more.
                by_name[name] = zone
        return cls(tuple(by_name.values())) if by_name else None

    def start(self) -> None:
        """Begin."""
        self._begin = self._read()

    def stop(self) -> float | None:
        """Return the joules of all packages since `start`."""
        microjoules = 0
        for zone, begin, end in zip(self._zones, self._begin, self._read(), strict=True):
            span = _number(zone / "max_energy_range_uj")
            if begin is None or end is None or span is None:
                return None
            microjoules += end - begin if end >= begin else span - begin + end
        # The counters move about every millisecond: no move is not knowing, rather than no energy.
        return microjoules / 1e6 if microjoules else None

    def _read(self) -> tuple[int | None, ...]:
        return tuple(_number(zone / "energy_uj") for zone in self._zones)


class Ina3221:
    """The three-channel power sensor of Jetson boards, by its hwmon driver.

    Voltage and current are sampled every 10 ms by a thread and integrated over time. The rail that
    feeds the board (`VDD_IN`, `5V_IN`) is taken where the board names one, else all rails are added.
    """

    provenance = EnergyProvenance.METERED
    settles_s = 0.0

    def __init__(self, rails: tuple[tuple[Path, Path], ...], *, clock: Seconds = time.monotonic) -> None:
        """Meter these rails, each a file of millivolts and one of milliamperes; see `find`."""
        self._rails = rails
        self._clock = clock
        self._samples: list[tuple[float, float]] = []
        self._broken = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def find(cls, root: Path, *, clock: Seconds = time.monotonic) -> Self | None:
        """Return a meter of the INA3221 chips below a hwmon folder."""
        rails: list[tuple[Path, Path]] = []
        feeding: list[tuple[Path, Path]] = []
        for chip in sorted(root.glob("hwmon*")):
            if _text(chip / "name") != "ina3221":
                continue
            for channel in range(1, 4):
                rail = chip / f"in{channel}_input", chip / f"curr{channel}_input"
                if _number(rail[0]) is None or _number(rail[1]) is None:
                    continue
                rails.append(rail)
                if (_text(chip / f"in{channel}_label") or "").upper().endswith(("VDD_IN", "5V_IN")):
                    feeding.append(rail)
        chosen = tuple(feeding or rails)
        return cls(chosen, clock=clock) if chosen else None

    def start(self) -> None:
        """Begin sampling."""
        self._samples, self._broken = [], False
        self._ended.clear()
        self._sample()
        self._thread = threading.Thread(target=self._sample_until_ended, daemon=True, name="edgewise-ina3221")
        self._thread.start()

    def stop(self) -> float | None:
        """Return the joules since `start`, the power between two samples taken as a straight line."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._sample()
        if self._broken:
            return None
        pairs = zip(self._samples, self._samples[1:], strict=False)
        return sum((then[1] + now[1]) / 2 * (now[0] - then[0]) for then, now in pairs)

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        watts = 0.0
        for volts, amperes in self._rails:
            millivolts, milliamperes = _number(volts), _number(amperes)
            if millivolts is None or milliamperes is None:
                self._broken = True
                return
            watts += millivolts * milliamperes / 1e6
        self._samples.append((self._clock(), watts))


class BatteryGauge:
    """A battery's own gauge while it is discharging: what is left before minus what is left after.

    The gauge moves in steps of joules; a reading that did not move is None.
    """

    provenance = EnergyProvenance.METERED
    settles_s = 900.0

    def __init__(self, battery: Path) -> None:
        """Meter this battery; see `find`."""
        self._battery = battery
        self._begin: float | None = None

    @classmethod
    def find(cls, root: Path) -> Self | None:
        """Return a meter of the first battery below a power_supply folder that tells its charge."""
        for supply in sorted(root.glob("*")):
            meter = cls(supply)
            if _text(supply / "type") == "Battery" and meter._joules_left() is not None:
                return meter
        return None

    def start(self) -> None:
        """Begin."""
        self._begin = self._joules_left() if self._discharging() else None

    def stop(self) -> float | None:
        """Return the joules since `start`; None on mains, or before the gauge has moved."""
        end = self._joules_left()
        if self._begin is None or end is None or not self._discharging() or end >= self._begin:
            return None
        return self._begin - end

    def _discharging(self) -> bool:
        return _text(self._battery / "status") == "Discharging"

    def _joules_left(self) -> float | None:
        """Microwatt-hours, or else microampere-hours times the nominal voltage in microvolts."""
        energy = _number(self._battery / "energy_now")
        if energy is not None:
            return energy * 3600 / 1e6
        charge = _number(self._battery / "charge_now")
        # The voltage of the moment sags under load and would turn into energy; the design's does not.
        volts = _number(self._battery / "voltage_min_design") or _number(self._battery / "voltage_now")
        return charge * 3600 / 1e6 * volts / 1e6 if charge is not None and volts is not None else None


class PowerEstimate:
    """A target's power model over the time of this process: `idle_w * seconds + active_w * cpu seconds`."""

    provenance = EnergyProvenance.MODELLED
    settles_s = 0.0

    def __init__(
        self, power: PowerModel, *, clock: Seconds = time.monotonic, cpu_clock: Seconds = time.process_time
    ) -> None:
        """Estimate with this model; `cpu_clock` counts the seconds of all threads."""
        self._power = power
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._begin = 0.0
        self._cpu_begin = 0.0

    def start(self) -> None:
        """Begin."""
        self._begin, self._cpu_begin = self._clock(), self._cpu_clock()

    def stop(self) -> float | None:
        """Return the joules since `start`, as the model says."""
        elapsed, busy = self._clock() - self._begin, self._cpu_clock() - self._cpu_begin
        return self._power.idle_w * elapsed + self._power.active_w * busy


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.removeprefix("-").isdigit() else None
