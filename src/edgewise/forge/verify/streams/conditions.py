"""Make this machine worse for a while: as busy, hot, or short of power as a device gets.

A condition is imposed on all workers alike. One that cannot be imposed raises Unimposable with the reason.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from edgewise.forge.measure.environment import cores
from edgewise.forge.verify.streams.worker import Worker

HOT, LOW_BATTERY = 0.5, 0.33
"""Share of the time that a process may run: a processor that throttles to half its clock, or to a third."""
PRESSED = 0.9
"""Share of its memory that a process may keep under pressure."""
_GOVERNORS = "cpu[0-9]*/cpufreq/scaling_governor"
_PROCESSORS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_HOG = "while True: pass"


class Unimposable(Exception):  # noqa: N818 - it says what it is; it never leaves this package
    """This machine does not let a condition be imposed; the message says why."""


@contextmanager
def contention(_: Sequence[Worker]) -> Iterator[None]:
    """Keep every core that this process may use busy with a process that does nothing else."""
    hogs: list[subprocess.Popen[bytes]] = []
    try:
        hogs.extend(subprocess.Popen([sys.executable, "-I", "-S", "-c", _HOG]) for _ in range(cores()))
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


@contextmanager
def heat(workers: Sequence[Worker]) -> Iterator[None]:
    """Let the workers run half of the time, as a processor that throttles."""
    with _all_slowed(workers, HOT):
        yield


@contextmanager
def low_battery(workers: Sequence[Worker]) -> Iterator[None]:
    """Let the workers run a third of the time."""
    with _all_slowed(workers, LOW_BATTERY):
        yield


@contextmanager
def powersave(_: Sequence[Worker], *, processors: Path = _PROCESSORS) -> Iterator[None]:
    """Have all cores at their lowest clock, and as they were afterwards. Raises Unimposable."""
    files = sorted(processors.glob(_GOVERNORS))
    if not files:
        raise Unimposable("this machine does not show its clock governors (cpufreq)")
    before = [(file, file.read_text(encoding="ascii").strip()) for file in files]
    try:
        for file in files:
            file.write_text("powersave", encoding="ascii")
    except OSError as error:
        _restore(before)
        raise Unimposable(f"the clock governor cannot be set: {error.strerror}") from error
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def memory_reclaim(workers: Sequence[Worker], *, root: Path = _CGROUP) -> Iterator[None]:
    """Let each worker hold nine tenths of what it holds, so that the kernel takes pages away. Raises Unimposable.

    By memory.high of a cgroup (version 2) of its own: it slows a process down and does not kill it.
    """
    controllers = root / "cgroup.subtree_control"
    if not controllers.is_file():
        raise Unimposable("pages cannot be taken from a process: no cgroup v2 is mounted")
    if "memory" not in controllers.read_text(encoding="ascii").split():
        raise Unimposable("pages cannot be taken from a process: the memory controller is not handed down to us")
    made: list[Path] = []
    try:
        for worker in workers:
            group = root / f"edgewise-{worker.process}"
            group.mkdir()
            made.append(group)
            held = psutil.Process(worker.process).memory_info().rss
            (group / "memory.high").write_text(str(int(held * PRESSED)), encoding="ascii")
            (group / "cgroup.procs").write_text(str(worker.process), encoding="ascii")
    except OSError as error:
        _dissolve(made, workers, root)
        raise Unimposable(f"pages cannot be taken from a process: a cgroup is refused: {error.strerror}") from error
    try:
        yield
    finally:
        _dissolve(made, workers, root)


@contextmanager
def _all_slowed(workers: Sequence[Worker], awake: float) -> Iterator[None]:
    if sys.platform == "win32":
        raise Unimposable("this system cannot stop a process and wake it again")
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker.slowed(awake=awake))
        yield


def _dissolve(made: Sequence[Path], workers: Sequence[Worker], root: Path) -> None:
    for group, worker in zip(made, workers, strict=False):
        try:
            (root / "cgroup.procs").write_text(str(worker.process), encoding="ascii")
            group.rmdir()
        except OSError:  # the system takes an empty group away when it ends
            continue


def _restore(before: Sequence[tuple[Path, str]]) -> None:
    for file, governor in before:
        try:
            file.write_text(governor, encoding="ascii")
        except OSError:  # what could not be set need not be set back
            continue
