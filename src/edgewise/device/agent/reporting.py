"""Telemetry of the agent: a thread that closes windows, stores and sends them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from edgewise.device.agent.enrolment import Enrolment
from edgewise.device.agent.status import Reporting
from edgewise.device.uplink.collector import Collector, Reporter, new_boot
from edgewise.device.uplink.dating import Dating
from edgewise.device.uplink.destinations import FleetServer
from edgewise.device.uplink.send import Progress, Uplink, report_until
from edgewise.device.uplink.spool import Spool

log = logging.getLogger("edgewise.agent")


class Reports:
    """Gathers what happens into windows, and sends them while it is entered."""

    def __init__(self, folder: Path, enrolment: Enrolment, *, window_s: float) -> None:
        """Open the spool. Raises OutputError."""
        identity, boot = enrolment.identity, new_boot()
        dating = Dating()
        self.collector = Collector(
            Reporter(device=identity.device, device_class=identity.device_class, boot=boot), dating
        )
        self._spool = Spool.open(folder)
        destination = FleetServer(identity.server, device=identity.device, sign=enrolment.key.sign)
        self._uplink = Uplink(self._spool, destination, dating, boot=boot, window_s=window_s)
        self._window_s = window_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.state = Reporting(waiting=None, sent=0, dropped=0, problem="")

    def begin(self, gather: Callable[[], None]) -> None:
        """Report from now on; `gather` brings what meters hold into the collector before each end of a window."""
        self._thread = threading.Thread(
            target=report_until,
            args=(self._stop, self.collector, self._uplink),
            kwargs={"gather": gather, "seen": self._seen, "window_s": self._window_s},
            name="reports",
            daemon=True,
        )
        self._thread.start()

    def end(self, wait_s: float) -> None:
        """Store the last window; what was not sent waits for the next start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(wait_s)
        if self._thread is None or not self._thread.is_alive():
            self._spool.close()

    def _seen(self, progress: Progress) -> None:
        if progress.problem and progress.problem != self.state.problem:
            log.warning("telemetry waits", extra={"reason": progress.problem})
        self.state = Reporting(
            waiting=self.state.waiting if progress.left is None else progress.left,
            sent=self.state.sent + progress.sent,
            dropped=self.state.dropped + progress.dropped,
            problem=progress.problem,
        )
