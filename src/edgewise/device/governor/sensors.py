"""What the device says of itself. What it does not say is None, and why is said.

Linux: `thermal`, `power_supply` and cgroup files below a root that is given, scheduling statistics of this process,
and memory through psutil.
"""

from __future__ import annotations

import math
import threading
import weakref
from pathlib import Path
from typing import NamedTuple

SYS, PROC = Path("/sys"), Path("/proc/self")
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

    def __init__(self, root: Path = SYS, *, proc: Path = PROC, interval_s: float = INTERVAL_S) -> None:
        """Read nothing yet."""
        self._root = root
        self._proc = proc
        self._interval_s = interval_s
        self._clocks: tuple[int, int] | None = None
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
        """Return which share of the time since the last look this process wanted a processor and had to wait.

        From the kernel's scheduling statistics of all its threads (Documentation/scheduler/sched-stats.rst).
        """
        found = waited(self._proc)
        before, self._clocks = self._clocks, found
        if found is None:
            return None, "the kernel does not say how long threads wait for a processor"
        if before is None:
            return None, "no time has passed since the last look"
        ran, waits = (after - earlier for after, earlier in zip(found, before, strict=True))
        if ran < 0 or waits < 0 or not ran + waits:  # a thread has ended, or nothing ran
            return None, "nothing to tell since the last look"
        return waits / (ran + waits), ""


def waited(proc: Path) -> tuple[int, int] | None:
    """Return how long this process's threads ran, and waited while they could have run: nanoseconds; None unknown."""
    rows = [(_text(each) or "").split() for each in proc.glob("task/*/schedstat")]
    known = [(int(row[0]), int(row[1])) for row in rows if len(row) == 3 and all(each.isdecimal() for each in row)]
    return (sum(ran for ran, _ in known), sum(waits for _, waits in known)) if known else None


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
