"""The agent's process: a thin shell around the schedule. The main thread polls, threads answer local applications."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgewise.device.agent import ending, labels
from edgewise.device.agent import schedule as due
from edgewise.device.agent import status as statuses
from edgewise.device.agent.capturing import Capturing
from edgewise.device.agent.counts import Counts
from edgewise.device.agent.enrolment import Enrolment, Identity, client, keep_labels
from edgewise.device.agent.enrolment import load as load_enrolment
from edgewise.device.agent.folder import AUDIT, SOCKET, alone
from edgewise.device.agent.hangs import HangWatch
from edgewise.device.agent.http_ import LocalServer
from edgewise.device.agent.lab import Bench
from edgewise.device.agent.polling import Installer, poll
from edgewise.device.agent.reporting import Reports
from edgewise.device.agent.schedule import Action, Pace
from edgewise.device.agent.serving import Serving
from edgewise.device.agent.settings import MIB, Settings, parse_listen
from edgewise.device.agent.starting import start
from edgewise.device.agent.status import LastPoll, Problem, Status
from edgewise.device.audit.log import AuditLog
from edgewise.device.slots import Slots
from edgewise.device.trust.director import known_floor
from edgewise.device.trust.transport import Transport
from edgewise.device.update import Source, Updater
from edgewise.errors import EdgewiseError

GRACE_S = 5.0
"""How long inferences that were begun are waited for when the process is told to stop."""

log = logging.getLogger("edgewise.agent")


class Stopped(BaseException):
    """The process was told to stop. Whatever it interrupts is safe to be interrupted by a power cut."""


def run(folder: Path, settings: Settings, *, listen: str = "") -> None:
    """Answer and update until told to stop (SIGTERM, SIGINT). Raises AgentError, ConfigError, OutputError."""
    with alone(folder):
        agent = Agent(folder, load_enrolment(folder), settings, listen=listen or settings.listen)
        agent.start()
        with _signals(), contextlib.suppress(Stopped):
            agent.run()
        agent.stop()


class Agent:
    """One device's agent."""

    def __init__(self, folder: Path, enrolment: Enrolment, settings: Settings, *, listen: str) -> None:
        """Put the parts together; nothing is read from the slots yet."""
        identity = enrolment.identity
        self._folder = folder
        self._identity = identity
        self._settings = settings
        self._listen = parse_listen(listen or f"unix:{folder.resolve() / SOCKET}")
        self._enrolment = enrolment
        self._reports = Reports(folder, enrolment, window_s=settings.report_s)
        self._counts = Counts(self._reports.collector)
        capture = None if settings.capture is None else Capturing(folder, settings.capture)
        self._serving = Serving(self._counts, capturing=capture)
        self._transport = Transport(settings.transfer)
        self._director = client(folder, identity.server, enrolment.roots, self._transport, director=True)
        self._audit: AuditLog | None = None
        self._installer = Installer(Slots(folder), settings)
        self._updater = Updater(
            folder,
            _source(identity),
            director=self._director,
            images=client(folder, identity.server, enrolment.roots, self._transport),
            transport=self._transport,
            quota_bytes=settings.quota_mib * MIB,
            trial=self._installer,
        )
        self._pace = Pace(interval_s=identity.poll_interval_s, jitter=identity.poll_jitter)
        self._schedule = due.begun(self._pace, now=time.monotonic(), uniform=0.0, installed=False)
        before = statuses.kept(folder)
        self._last_poll = before.last_poll if before else None
        self._last_success = before.last_success_unix_s if before else None
        self._last_refusal: Problem | None = before.last_refusal if before else None
        self._hangs = HangWatch(folder, self._serving, most_s=settings.trial.timeout_s)
        self._started = int(time.time())
        self._recovered = ""

    def start(self) -> None:
        """Let what was confirmed answer. Raises OutputError, and ConfigError where a declared fallback does not fit."""
        self._audit = self._installer.audit = self._serving.audit = AuditLog(self._folder / AUDIT, self._settings.audit)
        try:
            self._boot()
        except EdgewiseError:
            self._audit.close()
            raise

    def _boot(self) -> None:
        if ending.begun(self._folder):
            self._counts.crashed()
        hung = ending.take_hung(self._folder)
        found = start(self._updater, self._installer, self._serving, self._counts, floor=self._floor(), hung=hung)
        for problem in found.problems:
            self._last_refusal = Problem.of(problem, int(time.time()))
            log.warning("refused", extra={"kind": self._last_refusal.kind, "reason": problem.found})
        if hung is not None and self._audit is not None:
            self._audit.tell(f"{hung.reason}; the agent ended itself")
        self._recovered = found.recovered
        if found.recovered and self._audit is not None:
            self._audit.tell("; ".join([*(each.found for each in found.problems[:1]), found.recovered]))
            log.warning("recovered", extra={"reason": found.recovered})
        self._schedule = due.begun(
            self._pace, now=time.monotonic(), uniform=_uniform(), installed=self._serving.model is not None
        )

    def run(self) -> None:
        """Answer local applications and do what is due, until stopped. Raises ConfigError."""
        server = LocalServer(
            self._listen,
            self._serving,
            self.status,
            request_mib=self._settings.request_mib,
            connections=self._settings.connections,
            lab=None if self._settings.lab is None else Bench(self._folder, self._settings.lab),
        )
        self._listen = server.listen
        self._reports.begin(self._serving.gather)
        self._hangs.start()
        with server, contextlib.suppress(Stopped):
            log.info("serving", extra={"listen": str(server.listen), "device": self._identity.device})
            statuses.keep(self._folder, self.status())
            while True:
                self._step()

    def _step(self) -> None:
        schedule, now = self._schedule, time.monotonic()
        match due.due(schedule, now):
            case Action.POLL:
                self.poll()
                statuses.keep(self._folder, self.status())
            case Action.LABELS:
                self._ask_labels()
                self._schedule = due.labelled(schedule, now=time.monotonic(), uniform=_uniform())
            case Action.HEALTHY:
                self._updater.slots.healthy()
                self._schedule = due.healthy(schedule)
            case Action.WAIT:
                time.sleep(min(due.until(schedule, now), 3600.0))

    def poll(self) -> LastPoll:
        """Ask what to run, and run it; return how that ended."""
        done = poll(self._updater, self._installer, self._serving, self._counts, unix_s=time.time)
        self._last_poll = done.last
        if done.last.result == "refused":
            self._last_refusal = done.last.problem
        elif not done.failed:
            self._last_success = done.last.at_unix_s
        self._pace = due.paced(self._pace, *self._director.asked_pace)
        now = time.monotonic()
        self._schedule = due.polled(
            self._schedule,
            self._pace,
            now=now,
            uniform=_uniform(),
            failed=done.failed,
            retry_after_s=done.retry_after_s,
        )
        if done.last.result == "updated":
            self._schedule = due.swapped(self._schedule, now=now)
        return done.last

    def _ask_labels(self) -> None:
        """Take over labels that an operator has changed; where the server is not reached those known stay."""
        try:
            found = labels.ask(self._enrolment, self._transport)
        except EdgewiseError as error:
            log.warning("labels not asked", extra={"reason": error.found})
            return
        if found != self._identity.labels:
            self._identity = msgspec.structs.replace(self._identity, labels=found)
            self._updater.source = _source(self._identity)
            keep_labels(self._folder, self._identity)
            log.info("labelled", extra={"labels": list(found)})

    def _floor(self) -> str:
        return known_floor(self._folder, self._identity.product)

    def stop(self) -> None:
        """Let what was begun end, note that it worked, and write the last status."""
        self._hangs.close()
        self._serving.close(GRACE_S)
        if self._audit is not None:
            self._audit.close()
        self._reports.end(GRACE_S)
        if self._serving.model is not None:
            self._updater.slots.healthy()
        statuses.keep(self._folder, self.status())
        ending.ended(self._folder)
        log.info("stopped")

    def status(self) -> Status:
        """Return what the agent says of itself; any thread may ask."""
        self._serving.measure()
        identity, model, state = self._identity, self._serving.model, self._updater.slots.state()
        shadow = self._serving.shadow
        running = model.slot if model is not None else None
        previous = state.previous if running is None or state.previous != running else None
        return Status(
            device=identity.device,
            product=identity.product,
            device_class=identity.device_class,
            labels=identity.labels,
            server=identity.server,
            roots_on_first_use=identity.roots_on_first_use,
            listen=str(self._listen),
            started_unix_s=self._started,
            at_unix_s=int(time.time()),
            release=running.release.version if running else None,
            manifest_digest=running.release.digest if running else None,
            slot=running.place.value if running else None,
            variant=model.runtime.variant if model else None,
            stages=model.stages() if model else (),
            previous=previous.release.version if previous else None,
            recovered=self._recovered if running is not None and running == state.running else "",
            shadow=shadow.release.version if shadow else None,
            floor=self._floor(),
            last_poll=self._last_poll,
            last_success_unix_s=self._last_success,
            poll_failures=self._schedule.failures,
            next_poll_s=round(max(0.0, self._schedule.poll_s - time.monotonic()), 1),
            refusals=dict(self._counts.refusals),
            last_refusal=self._last_refusal,
            outcomes=dict(self._counts.outcomes),
            latency_ms=statuses.latency_of(self._counts.latency),
            reporting=self._reports.state,
        )


def _source(identity: Identity) -> Source:
    return Source(
        product=identity.product,
        device=identity.device,
        labels=frozenset(identity.labels),
        deltas_url=f"{identity.server}/repository/deltas/",
    )


def _uniform() -> float:
    return random.random()  # noqa: S311 - spreads polls, no secret


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise Stopped in the main thread at the first SIGTERM or SIGINT; later ones change nothing."""
    told = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        if not told.is_set():
            told.set()
            raise Stopped

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
