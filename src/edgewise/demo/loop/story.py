"""What happens: a fleet takes its first release, a good one completes, and a slow one is stopped and goes back."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from edgewise.contracts.base import Value
from edgewise.contracts.rollout import Event, EventKind, GateFigure, Rollout, State
from edgewise.demo.loop.commands import Commands, stop
from edgewise.demo.loop.devices import Applications, Devices
from edgewise.demo.loop.releases import BAD, BEFORE, GOOD, write_runs
from edgewise.demo.loop.server import DATABASE, LOG, STORE, Server
from edgewise.errors import FleetError
from edgewise.forge.progress import Progress

BASELINE_S = 12.0
"""So long the applications ask before a rollout starts: what devices report then is what they are compared with."""
_SETTLE_S, _ROLLOUT_S = 300.0, 600.0
_LOOK_S = 0.5
FOLDER = "fleet"


class Moment(Value, kw_only=True):
    """Something that happened, `at_s` seconds after the story began."""

    at_s: float
    words: str


class Ended(Value, kw_only=True):
    """A rollout at its end, and how many devices then ran each release."""

    rollout: Rollout
    devices: dict[str, int]


class Story(Value, kw_only=True):
    """The whole of it."""

    devices: int
    seconds: float
    moments: tuple[Moment, ...]
    ended: tuple[Ended, ...]
    answers: dict[str, int]
    """Of the applications, by outcome."""
    commands: tuple[str, ...]
    reopen: str
    """Shows the console again."""
    as_told: bool
    """The good release completed, the slow one was rolled back, and every device went back."""


def tell(run: Path, *, devices: int, progress: Progress, clock: Callable[[], float] = time.monotonic) -> Story:
    """Live through the story below the folder of a run. Raises FleetError, WorkerError where a part fails."""
    folder = run.absolute() / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "devices").mkdir(parents=True)
    teller = _Teller(progress, clock)
    commands = Commands(folder, os.environ)
    server = Server(folder, commands)
    progress.start("seal three releases", None)
    bundles = server.prepare(write_runs(run.absolute(), folder / "runs"))
    teller.said(
        f"sealed and signed {BEFORE} (fp32), {GOOD} (the variant that was found) and {BAD} (made slow on purpose)"
    )
    progress.start("start the fleet server", None)
    process = server.serve(folder / LOG)
    try:
        teller.said(f"the fleet server answers; its console is {server.url}/console, sign in with {server.viewer()}")
        for version, bundle in bundles.items():
            server.publish(version, bundle)
        server.begin()
        with Devices(folder / "devices", commands, count=devices, canaries=max(devices // 4, 1)) as site:
            return _live(server, site, teller, commands)
    finally:
        server.close()
        stop([process])


def _live(server: Server, site: Devices, teller: _Teller, commands: Commands) -> Story:
    count = len(site.names)
    teller.progress.start(f"enrol {count} devices", None)
    site.enrol(server)
    teller.progress.start(f"start {count} agents", count)
    site.start()
    _settle(site, teller, Counter({BEFORE: count}))
    teller.said(f"{count} devices, each a process of its own, have joined, updated to {BEFORE} and confirmed it")
    applications = Applications(site)
    with applications.running():
        ended = [_rolled_out(server, site, teller, BEFORE, GOOD, expected={State.COMPLETED: GOOD})]
        if ended[0].rollout.state is State.COMPLETED:  # else nothing is there that the slow release could be held to
            ended.append(_rolled_out(server, site, teller, GOOD, BAD, expected={State.ROLLED_BACK: GOOD}))
    answers = applications.counts()
    as_told = [each.rollout.state for each in ended] == [State.COMPLETED, State.ROLLED_BACK]
    return Story(
        devices=count,
        seconds=round(teller.passed_s(), 1),
        moments=tuple(teller.moments),
        ended=tuple(ended),
        answers=answers,
        commands=tuple(commands.ran),
        reopen=f"cd {server.folder} && edgewise fleet serve --database {DATABASE} --store {STORE}",
        as_told=as_told and all(set(each.devices) == {GOOD} for each in ended),
    )


def _rolled_out(
    server: Server, site: Devices, teller: _Teller, before: str, after: str, *, expected: dict[State, str]
) -> Ended:
    """Roll a release out and wait for its end, and for the devices to follow it."""
    teller.wait(f"let {before} report", BASELINE_S)
    name = server.roll_out(before, after)
    teller.progress.start(f"roll out {after}", None)
    until, last = teller.passed_s() + _ROLLOUT_S, 0
    rollout = server.rollout(name).rollout
    while not rollout.state.terminal and teller.passed_s() < until:
        time.sleep(_LOOK_S)
        last = _told(server, teller, name, after, last)
        rollout = server.rollout(name).rollout
        if _undecided(rollout):  # the machine has other work, and latencies say little
            teller.said(f"{after}: the gate still holds, so the stage is watched anew: {_why(rollout)}")
            server.extend(name)
            rollout = server.rollout(name).rollout
    last = _told(server, teller, name, after, last)
    target = expected.get(rollout.state)
    if target is not None:
        teller.progress.start(f"let every device come to {target}", len(site.names))
        _settle(site, teller, Counter({target: len(site.names)}))
    devices = Counter(release or "none" for release in site.running().values())
    held = ", ".join(f"{count} on {release}" for release, count in sorted(devices.items()))
    if not rollout.state.terminal:
        teller.said(f"{after}: the gate still holds: {_why(rollout)}")
    teller.said(f"{after}: {rollout.state.value.replace('_', ' ')}; devices: {held}")
    return Ended(rollout=rollout, devices=dict(devices))


def _undecided(rollout: Rollout) -> bool:
    """Return whether a stage's last look has left it on hold: a person decides then."""
    return rollout.state is State.STAGED and rollout.fractions[-1:] == (1.0,)


def _why(rollout: Rollout) -> str:
    return "" if rollout.last is None else rollout.last.reason


def _told(server: Server, teller: _Teller, name: str, version: str, after: int) -> int:
    """Tell what happened to a rollout since event `after`; return the number of the last one."""
    for each in server.events(name, after):
        after = each.id
        words = _words(each.event)
        if words:
            teller.said(f"{version}: {words}")
    return after


def _words(event: Event) -> str:
    match event.kind:
        case EventKind.STAGE_STARTED:
            return f"stage {event.stage} starts"
        case EventKind.PROMOTED:
            return f"stage {event.stage} passed its gate"
        case EventKind.LOOKED if event.decision is not None and event.decision.answer.value != "hold":
            return f"the gate says {event.decision.answer.value}: {event.decision.reason}"
        case EventKind.HARD_STOP | EventKind.ROLLED_BACK | EventKind.ABORTED:
            return f"{event.kind.value.replace('_', ' ')}: {event.reason}"
    return ""


def _settle(site: Devices, teller: _Teller, wanted: Counter[str]) -> None:
    """Wait until the devices run what is wanted. Raises FleetError where they do not in time."""
    until = teller.passed_s() + _SETTLE_S
    while True:
        found = Counter(release or "none" for release in site.running().values())
        teller.progress.advance(sum((found & wanted).values()))
        if found == wanted:
            return
        dead = site.dead()
        if dead or teller.passed_s() > until:
            held = [f"{count} run {release}" for release, count in sorted(found.items())]
            raise FleetError(
                ", ".join([*held, *(f"the agent of {name} has ended" for name in dead)]),
                required=", ".join(f"{count} on {release}" for release, count in wanted.items()),
                next_step="look into fleet/devices/agents.log and fleet/server.jsonl in the output folder",
            )
        time.sleep(_LOOK_S)


def figures(rollout: Rollout) -> tuple[GateFigure, ...]:
    """Return what the last gate of a rollout looked at, over all devices."""
    return () if rollout.last is None else tuple(each for each in rollout.last.figures if each.group == "all")


class _Teller:
    """Notes what happens, with its time."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self.progress = progress
        self.moments: list[Moment] = []
        self._clock = clock
        self._began = clock()

    def passed_s(self) -> float:
        return self._clock() - self._began

    def said(self, words: str) -> None:
        self.moments.append(Moment(at_s=round(self.passed_s(), 1), words=words))
        self.progress.note(f"{self.passed_s():5.0f} s  {words}")

    def wait(self, phase: str, seconds: float) -> None:
        self.progress.start(phase, round(seconds))
        begin = self._clock()
        while (passed := self._clock() - begin) < seconds:
            self.progress.advance(int(passed))
            time.sleep(min(1.0, seconds - passed))
