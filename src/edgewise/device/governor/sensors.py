"""What the device says of itself. What it does not say is None, and why is said.

Linux: `thermal`, `power_supply` and cgroup files below a root that is given; processor time and memory through psutil.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from pathlib import Path
from typing import NamedTuple

SYS = Path("/sys")
INTERVAL_S = 1.0
_TRIPS = frozenset({"passive", "hot"})
_ABSOLUTE_ZERO_C, _HOTTEST_C = -273.0, 500.0
_MIB = 1 << 20


class Sensed(NamedTuple):
    """One look. `missing` says of each sensor that is None why."""

    temperature_c: float | None = None
    battery: float | None = None
    free_memory_mib: float | None = None
    load: float | None = None
    missing: tuple[str, ...] = ("the sensors were not read yet",)


class Sensors:
    """Reads on demand, or once a second in a thread of its own: no inference waits for a sensor."""

    def __init__(self, root: Path = SYS, *, interval_s: float = INTERVAL_S) -> None:
        """Read nothing yet."""
        self._root = root
        self._interval_s = interval_s
        self._clocks: tuple[float, float, float] | None = None
        self.latest = Sensed()
        """What the thread saw last."""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.close = weakref.finalize(self, self._ended.set)
        """Ends the thread; also done when this is garbage."""

    def start(self) -> None:
        """Read now, and every second from now on."""
        if self._thread is None:
            self.latest = self.read()
            self._thread = threading.Thread(
                target=_read_until_ended,
                args=(weakref.ref(self), self._ended, self._interval_s),
                name="edgewise-sensors",
                daemon=True,
            )
            self._thread.start()

    def read(self) -> Sensed:
        """Look once. The load is that since the look before, so the first one has none."""
        found = {
            "temperature": hottest_c(self._root),
            "battery": battery_left(self._root),
            "memory": free_memory_mib(self._root),
            "load": self._load(),
        }
        missing = tuple(f"{name}: {why}" for name, (value, why) in found.items() if value is None)
        values = [value for value, _ in found.values()]
        return Sensed(values[0], values[1], values[2], values[3], missing)

    def _load(self) -> tuple[float | None, str]:
        """Return the share of all processors that others used since the last look.

        Niced processes are left out: they give way.
        """
        import psutil  # noqa: PLC0415 - a device that does not govern does not load it

        try:
            times = psutil.cpu_times()
        except (OSError, psutil.Error) as error:
            return None, f"processor times cannot be read: {error}"
        idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "nice", 0.0)
        # What guests use is counted within user time already.
        whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        own = sum(os.times()[:2])
        before, self._clocks = self._clocks, (whole, idle, own)
        if before is None or whole <= before[0]:
            return None, "no time has passed since the last look"
        passed = whole - before[0]
        return min(max((passed - (idle - before[1]) - (own - before[2])) / passed, 0.0), 1.0), ""


def hottest_c(root: Path = SYS) -> tuple[float | None, str]:
    """Return the temperature of the hottest thermal zone, or None and why."""
    found = [_number(zone / "temp") for zone in root.glob("class/thermal/thermal_zone*")]
    degrees = [each / 1000 for each in found if each is not None]
    sane = [each for each in degrees if _ABSOLUTE_ZERO_C < each < _HOTTEST_C]
    return (max(sane), "") if sane else (None, "no thermal zone that can be read")


def trip_c(root: Path = SYS) -> float | None:
    """Return the lowest temperature at which the kernel itself slows the device down; None where it says none."""
    found = []
    for kind in root.glob("class/thermal/thermal_zone*/trip_point_*_type"):
        degrees = _number(kind.with_name(kind.name.replace("_type", "_temp")))
        if _text(kind) in _TRIPS and degrees is not None and degrees > 0:
            found.append(degrees / 1000)
    return min(found, default=None)


def battery_left(root: Path = SYS) -> tuple[float | None, str]:
    """Return what is left of the emptiest battery that feeds the device, or None and why."""
    found: list[float] = []
    charging = False
    for supply in sorted(root.glob("class/power_supply/*")):
        if _text(supply / "type") != "Battery" or _text(supply / "scope") == "Device":  # a mouse's, say
            continue
        left = _number(supply / "capacity")
        if left is None or not 0 <= left <= 100:
            continue
        if _text(supply / "status") == "Discharging":
            found.append(left / 100)
        else:
            charging = True
    if found:
        return min(found), ""
    return None, "on mains" if charging else "no battery that can be read"


def free_memory_mib(root: Path = SYS) -> tuple[float | None, str]:
    """Return how much memory this process could still take: of the system, or of its control group, or None and why."""
    import psutil  # noqa: PLC0415 - a device that does not govern does not load it

    try:
        free = psutil.virtual_memory().available / _MIB
    except (OSError, psutil.Error) as error:
        return None, f"memory cannot be read: {error}"
    most, used = (_number(root / "fs/cgroup" / f"memory.{name}") for name in ("max", "current"))
    return min(free, max(most - used, 0) / _MIB if most is not None and used is not None else math.inf), ""


def memory_mib() -> float | None:
    """Return the memory of the device; None where it cannot be read."""
    import psutil  # noqa: PLC0415 - a device that does not govern does not load it

    try:
        return float(psutil.virtual_memory().total) / _MIB
    except (OSError, psutil.Error):
        return None


def _read_until_ended(sensors: weakref.ref[Sensors], ended: threading.Event, interval_s: float) -> None:
    while not ended.wait(interval_s):
        mine = sensors()
        if mine is None:
            return
        mine.latest = mine.read()
        del mine  # it may go while this thread waits


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.removeprefix("-").isdecimal() and text.isascii() else None
