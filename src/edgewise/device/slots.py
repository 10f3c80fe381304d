"""Two places for a bundle, and which of them is confirmed.

    slots/a/, slots/b/   `bundle.edgewise` as it was signed, and `files/`, what it holds
    state.json           what was confirmed, and with which digests; replaced by one rename
    state.newest         the number of the last one that was written

A bundle is written to the place that is not running and counts from the rename of `state.json` on. Whatever stops
the device before that, the next start finds the state of before; a half-written place is written anew. A state with a
lower number than the last one is an old copy, put back from a backup or by a disk that lost a rename: not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from enum import StrEnum
from pathlib import Path

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.manifest import version_numbers
from edgewise.contracts.pipeline import Sealed
from edgewise.contracts.rollout import Release
from edgewise.errors import DigestError, EdgewiseError, OutputError, RollbackError, SlotError

STATE_VERSION = 1
MOST_STARTS = 3
"""Starts in a row that may end before `healthy`; after so many the device goes back."""
MOST_GIVEN_UP = 16
BUNDLE, FILES, STATE, NEWEST = "bundle.edgewise", "files", "state.json", "state.newest"
_CHUNK = 1 << 20


class Place(StrEnum):
    """One of the two places."""

    A = "a"
    B = "b"


class Slot(Value, kw_only=True):
    """What a place holds: the release, and the SHA-256 (hex) of the bundle's file, as both were signed."""

    place: Place
    release: Release
    sha256: str


class State(Value, kw_only=True):
    """What was confirmed.

    `starts` counts starts of `running` that were not yet healthy; `given_up` names bundles (SHA-256) that crashed
    too often, so that they are not installed again.
    """

    format_version: int = STATE_VERSION
    sequence: int = 0
    """Counts what was written."""
    running: Slot | None = None
    previous: Slot | None = None
    shadow: Slot | None = None
    """In the other place too: scored beside what runs, not confirmed."""
    starts: int = 0
    given_up: tuple[str, ...] = ()


class Slots:
    """The two places below one folder. One process at a time works on them."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; nothing is read or written yet."""
        self._folder = folder

    def state(self) -> State:
        """Return what was confirmed. Raises SlotError where the file is there and cannot be read, or is an old copy."""
        path = self._folder / STATE
        newest = self._newest()  # before the state itself, which another thread may replace
        try:
            state = msgspec.json.decode(path.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SlotError(
                f"{path}: {error}",
                required="the state as this version writes it",
                next_step="none: slots with signed bundles are tried again, else the next update installs one",
            ) from error
        if state.sequence < newest:
            raise SlotError(
                f"{path} is an old copy, number {state.sequence}",
                required=f"the last one that was written here, number {newest}",
                next_step="none: slots with signed bundles are tried again, else the next update installs one",
            )
        return state

    def path(self, slot: Slot) -> Path:
        """Return the folder with a slot's files."""
        return self._folder / "slots" / slot.place / FILES

    def bundle(self, slot: Slot) -> Path:
        """Return a slot's bundle, which deltas go from."""
        return self.bundle_at(slot.place)

    def bundle_at(self, place: Place) -> Path:
        """Return where the bundle of a place lies, if there is one."""
        return self._folder / "slots" / place / BUNDLE

    def free(self, state: State) -> Place:
        """Return the place that does not run."""
        return Place.B if state.running is not None and state.running.place is Place.A else Place.A

    def fill(self, bundle: Path, release: Release, sha256: str) -> Slot:
        """Unpack a bundle into the place that does not run, and put all of it on the disk; not confirmed yet.

        `bundle` is moved there. Raises BundleError for what is no bundle, DigestError where it holds another release
        than was signed, OutputError.
        """
        from edgewise.bundle.read import Bundle  # noqa: PLC0415 - only an update needs it

        place = self.free(self.state())
        slot = Slot(place=place, release=release, sha256=sha256)
        folder = self._folder / "slots" / place
        with Bundle.open(bundle) as opened:
            _check_release(opened.sealed, opened.manifest_bytes, release)
            try:
                if folder.exists():
                    shutil.rmtree(folder)
                (folder / FILES).mkdir(parents=True)
            except OSError as error:
                raise _unwritable(folder, error) from error
            opened.extract(folder / FILES)
        try:
            bundle.replace(folder / BUNDLE)
            _sync_tree(self._folder / "slots")
        except OSError as error:
            raise _unwritable(folder, error) from error
        return slot

    def confirm(self, slot: Slot) -> None:
        """Make a filled slot the one that runs, by one rename. Raises OutputError; then nothing has changed."""
        before = self.state()
        self._write(msgspec.structs.replace(before, running=slot, previous=before.running, shadow=None, starts=0))

    def keep_shadow(self, slot: Slot | None) -> None:
        """Note what the other place holds beside what runs: a slot to score with, or none. Raises OutputError."""
        state = self.state()
        previous = state.previous if slot is None else None  # its place was taken
        self._write(msgspec.structs.replace(state, shadow=slot, previous=previous))

    def boot(self, *, floor: str) -> Slot:
        """Return the slot to run, checked file by file, and count the start.

        Goes back to the other slot, for good, where files of the running one are not those that were signed, or
        where it was started MOST_STARTS times without `healthy`. Never goes below the security floor. Raises
        SlotError where neither slot can run.
        """
        state = self.state()
        reasons = []
        for slot, is_running in ((state.running, True), (state.previous, False)):
            if slot is None:
                continue
            if is_running and state.starts >= MOST_STARTS:
                reasons.append(f"{slot.release.version}: {state.starts} starts without one that was healthy")
                continue
            try:
                self.check(slot, floor=floor)
            except EdgewiseError as error:
                reasons.append(f"{slot.release.version}: {error.found}")
                continue
            self._write(_started(state, slot, loops=bool(state.starts >= MOST_STARTS)))
            return slot
        raise SlotError(
            "; ".join(reasons) or "no bundle was installed yet",
            required="a slot whose files are those that were signed",
            next_step="connect the device: the next update installs a bundle",
        )

    def adopt(self, slot: Slot) -> None:
        """Count a start of a slot that the state did not know, or had left; from now on it is what runs.

        It must have been checked and tried. Raises OutputError.
        """
        state = self.state()
        self._write(_started(state, slot, loops=state.starts >= MOST_STARTS))

    def healthy(self) -> None:
        """Note that what runs works: the count of starts begins again. Raises OutputError."""
        state = self.state()
        if state.starts:
            self._write(msgspec.structs.replace(state, starts=0))

    def blame(self, sha256: str) -> None:
        """Let the next `boot` go back, as after MOST_STARTS starts, where this bundle runs and one was before it.

        Raises OutputError.
        """
        state = self.state()
        if state.running is not None and state.running.sha256 == sha256 and state.previous is not None:
            self._write(msgspec.structs.replace(state, starts=MOST_STARTS))

    def give_up(self, sha256: str) -> None:
        """Do not install a bundle again, and do not keep it as the shadow. Raises OutputError."""
        state = self.state()
        shadow = state.shadow if state.shadow is not None and state.shadow.sha256 != sha256 else None
        self._write(msgspec.structs.replace(state, shadow=shadow, given_up=_and(state.given_up, sha256)))

    def drop(self) -> None:
        """Forget what runs, because its files are damaged: the next update installs it anew. Raises OutputError."""
        state = self.state()
        self._write(msgspec.structs.replace(state, running=state.previous, previous=None, starts=0))

    def set_aside(self) -> None:
        """Put a state that cannot be read out of the way. Raises OutputError."""
        path = self._folder / STATE
        try:
            path.replace(path.with_name(f"{STATE}.damaged"))
        except OSError as error:
            raise _unwritable(path, error) from error

    def check(self, slot: Slot, *, floor: str) -> None:
        """Read every file of a slot. Raises DigestError, SlotError, RollbackError below the floor."""
        from edgewise.bundle.read import decode_sealed  # noqa: PLC0415 - zstandard and crypto stay out of inference

        if version_numbers(slot.release.version) < version_numbers(floor):
            raise RollbackError(
                f"{slot.release.product} {slot.release.version}",
                required=f"a version at or above the signed security floor {floor}",
                next_step="connect the device, so that it takes a newer release",
            )
        _compare(self.bundle(slot), slot.sha256)
        folder = self.path(slot)
        _compare(folder / "manifest.json", slot.release.digest)
        manifest = decode_sealed((folder / "manifest.json").read_bytes())
        for each in manifest.files:
            _compare(folder / each.path, each.digest)

    def _write(self, state: State) -> None:
        from edgewise.device.trust.writing import write_whole  # noqa: PLC0415 - keep the import of slots light

        sequence = max(state.sequence, self._newest()) + 1
        write_whole(self._folder / STATE, msgspec.json.encode(msgspec.structs.replace(state, sequence=sequence)))
        with contextlib.suppress(OutputError):  # it counts already; without its number an old copy is not told from it
            write_whole(self._folder / NEWEST, str(sequence).encode())

    def _newest(self) -> int:
        """Return the number of the last state that was written; 0 where that is not known."""
        with contextlib.suppress(OSError, ValueError):
            return int((self._folder / NEWEST).read_text("ascii"))
        return 0


def _started(state: State, slot: Slot, *, loops: bool) -> State:
    """Return the state after a start of `slot`; a slot that was left behind is no longer one to go back to."""
    if slot == state.running:
        return msgspec.structs.replace(state, starts=state.starts + 1)
    left = state.running if loops else None
    return State(running=slot, starts=1, given_up=_and(state.given_up, left.sha256) if left else state.given_up)


def _and(given_up: tuple[str, ...], sha256: str) -> tuple[str, ...]:
    return (*(each for each in given_up if each != sha256), sha256)[-MOST_GIVEN_UP:]


def _check_release(manifest: Sealed, encoded: bytes, release: Release) -> None:
    digest = hashlib.sha256(encoded).hexdigest()
    if (manifest.product, manifest.version, digest) != (release.product, release.version, release.digest):
        raise DigestError(
            f"the bundle holds {manifest.product} {manifest.version}, manifest {digest}",
            required=f"{release.product} {release.version}, manifest {release.digest}, as was signed",
            next_step="report it: the bundle is not the release that it was signed as",
        )


def _compare(path: Path, expected: str) -> None:
    """Raise DigestError unless a regular file has the SHA-256, SlotError where it cannot be read."""
    state = hashlib.sha256()
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123 - no link is followed
            while chunk := file.read(_CHUNK):
                state.update(chunk)
    except OSError as error:
        raise SlotError(
            f"{path}: {error.strerror or error}",
            required="the file as it was signed",
            next_step="the next update installs the bundle again",
        ) from error
    if state.hexdigest() != expected:
        raise DigestError(
            f"{path} has the SHA-256 {state.hexdigest()}",
            required=expected,
            next_step="check the disk; the next update installs the bundle again",
        )


def _sync_tree(folder: Path) -> None:
    from edgewise.device.trust.writing import sync_folder  # noqa: PLC0415 - as above

    sync_folder(folder.parent)
    sync_folder(folder)
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: {error.strerror or error}",
        required="a folder that can be written, with space left",
        next_step="free some space; the bundle that runs is untouched",
    )
