"""The process of an update is killed at every write, fsync, rename, unlink and mkdir; none is left out."""

from __future__ import annotations

import io
import mmap
import multiprocessing
import os
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from edgewise.bundle.delta_make import candidates
from edgewise.device.slots import Slots
from edgewise.device.trust.director import known_floor
from edgewise.device.trust.pace import Pace
from edgewise.device.trust.transport import Transport
from edgewise.device.update import Source, Updater
from edgewise.errors import SlotError
from tests.faults.trust.fleet import PRODUCT, Device, Fleet, served

NEVER = 1 << 30
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it


class Power:
    """Counts steps in memory that outlives the process, and kills it at one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.memory = at, mmap.mmap(-1, 8)

    @property
    def steps(self) -> int:
        return int(struct.unpack("q", self.memory[:8])[0])

    def is_cut(self) -> bool:
        self.memory[:8] = struct.pack("q", self.steps + 1)
        return self.steps == self.at

    def guard(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            if self.is_cut():
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return guarded

    def open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            file = real(path, mode, *arguments, **named)
            return Written(file, self) if set(mode) & set("wa+x") else file

        return opened


class Written:
    """A file whose writes are steps; the one that is cut leaves half of its bytes."""

    def __init__(self, file: Any, power: Power) -> None:
        self.file, self.power = file, power

    def write(self, data: bytes) -> Any:
        if self.power.is_cut():
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def updater(device: Device, *, deltas: bool) -> Updater:
    images, director = device.fleet.roots
    return Updater(
        device.folder,
        Source(product=PRODUCT, device=device.name, deltas_url=f"{device.url}/deltas/" if deltas else ""),
        director=device.client("repository/director", director),
        images=device.client("repository", images),
        transport=Transport(Pace()),
        quota_bytes=1 << 30,
        trial=lambda _slot: None,
    )


def run(device: Device, power: Power, *, deltas: bool) -> int:
    """Update in a child; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            for name in ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
                setattr(os, name, power.guard(getattr(os, name)))
            io.open = power.open(io.open)
            updater(device, deltas=deltas).update()
        except BaseException:  # noqa: BLE001 - the parent sees the status
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one: hundreds of updates wait for hundreds of disks otherwise."""
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="edgewise-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("deltas", [False, True], ids=["full", "delta"])
def test_a_power_cut_at_every_step_boots_a_confirmed_bundle_and_the_new_one_comes_later(
    memory: Path, *, deltas: bool
) -> None:
    # This process holds all that the tests have imported, which makes each of some hundred forks a slow one.
    small = multiprocessing.get_context("spawn").Process(
        target=cut_at_every_step, args=(memory,), kwargs={"deltas": deltas}
    )
    small.start()
    small.join()
    assert small.exitcode == 0


def cut_at_every_step(memory: Path, *, deltas: bool) -> None:
    fleet = Fleet(memory)
    with served(fleet.store) as url:
        old = fleet.add("1.2.0")
        fleet.direct(old)
        begun = Device(fleet, url, name="begun")
        updater(begun, deltas=deltas).update()
        new = fleet.add("1.3.0")
        fleet.direct(new)
        if deltas:
            folder = fleet.store / "deltas"
            folder.mkdir()
            made = candidates(*((memory / f"{each}.edgewise").read_bytes() for each in ("1.2.0", "1.3.0")))
            (folder / f"{old.sha256}-{new.sha256}.delta").write_bytes(made[0].data)
        at = 0
        while True:
            at += 1
            device = Device(fleet, url, name=f"cut-{at}")
            os.system(f"cp -a {begun.folder}/. {device.folder}/")  # noqa: S605 - paths of this test
            power = Power(at)
            status = run(device, power, deltas=deltas)
            slots = Slots(device.folder)
            booted = slots.boot(floor=known_floor(device.folder, PRODUCT))
            assert booted.sha256 in {old.sha256, new.sha256}, at
            assert run(device, Power(NEVER), deltas=deltas) == 0, at
            assert slots.boot(floor="0.0.0").sha256 == new.sha256, at
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL, at
    assert at > 40  # an update has so many steps at least: the counter counts


def test_any_changed_file_of_a_slot_is_refused_and_the_other_slot_runs(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        device = Device(fleet, url)
        fleet.direct(fleet.add("1.2.0"))
        updater(device, deltas=False).update()
        fleet.direct(fleet.add("1.3.0"))
        slot = updater(device, deltas=False).update()
    slots, state = Slots(device.folder), (device.folder / "state.json").read_bytes()
    files = [slots.bundle(slot), *(path for path in slots.path(slot).rglob("*") if path.is_file())]
    assert len(files) > 5
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert slots.boot(floor="0.0.0").release.version == "1.2.0", path
        path.write_bytes(whole)
        (device.folder / "state.json").write_bytes(state)
        (device.folder / "state.newest").unlink()  # else it were an old copy
    with pytest.raises(SlotError):
        slots.boot(floor="9.0.0")


def test_a_crash_loop_goes_back_and_the_bundle_is_given_up(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        device = Device(fleet, url)
        for version in ("1.2.0", "1.3.0"):
            fleet.direct(fleet.add(version))
            updater(device, deltas=False).update()
        slots = Slots(device.folder)
        found = [slots.boot(floor="0.0.0").release.version for _ in range(4)]
    assert found == ["1.3.0", "1.3.0", "1.3.0", "1.2.0"]
