"""`state.json` is damaged while the device is offline: a slot that signed metadata speak for answers, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgewise.contracts.policy import Image
from edgewise.device.audit.reading import read_audit
from edgewise.device.slots import Slots
from edgewise.errors import SlotError
from tests.faults.device.agents import enrol, publish, started
from tests.faults.device.bundles import sample
from tests.faults.trust.fleet import PRODUCT, Fleet, served


class Offline:
    """A device that took some versions, one after the other, and has no network any more."""

    def __init__(self, tmp_path: Path, *versions: str) -> None:
        fleet = Fleet(tmp_path)
        self.images: list[Image] = []
        self.states: list[bytes] = []
        with served(fleet.store) as url:
            self.folder = enrol(fleet, url)
            with started(self.folder) as agent:
                for version in versions:
                    self.images.append(publish(fleet, version))
                    fleet.direct(self.images[-1])
                    assert agent.poll().result == "updated"
                    self.states.append(self.state.read_bytes())

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    def answers(self) -> tuple[str | None, str, list[str]]:
        """Start; return which version answers, what the status says of it, and the kinds of refusals."""
        with started(self.folder) as agent:
            status = agent.status()
            kind = agent._serving.infer({"x": sample()}).outcome.kind
            assert kind == ("local" if status.release else "refused")
            return status.release, status.recovered, sorted(status.refusals)

    def place(self, version: str) -> Path:
        for place in ("a", "b"):
            folder = self.folder / "slots" / place
            if msgspec.json.decode((folder / "files" / "manifest.json").read_bytes())["version"] == version:
                return folder
        raise AssertionError(version)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def other_version(data: bytes) -> bytes:
    return data.replace(b'"running"', b'"walking"')


@pytest.mark.parametrize(
    "damage", [half, other_version, lambda _: b"", lambda _: b"\0" * 600], ids=["half", "keys", "empty", "zeros"]
)
def test_what_was_assigned_answers_by_its_signed_metadata(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    device = Offline(tmp_path, "1.2.0", "1.3.0")
    device.state.write_bytes(damage(device.state.read_bytes()))
    release, why, refusals = device.answers()
    assert (release, refusals) == ("1.3.0", ["SlotError"])
    assert "signed metadata" in why
    told = read_audit(device.folder / "audit")
    assert [each.kind for each in told.entries if why in each.reason] == [None]
    assert device.answers() == ("1.3.0", "", [])  # the state says it again


def test_a_fleet_that_went_back_is_not_overruled_by_a_higher_version(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        folder = enrol(fleet, url)
        with started(folder) as agent:
            old = publish(fleet, "1.2.0")
            for image in (old, publish(fleet, "1.3.0"), old):
                fleet.direct(image)
                assert agent.poll().result == "updated"
    (folder / "state.json").unlink()
    with started(folder) as agent:
        assert agent.status().release == "1.2.0"


def test_one_changed_byte_makes_the_other_slot_answer_and_two_make_none(tmp_path: Path) -> None:
    device = Offline(tmp_path, "1.2.0", "1.3.0")
    for version, left in (("1.3.0", "1.2.0"), ("1.2.0", None)):
        path = device.place(version) / "files" / "variants" / "fp32" / "weights.bin"
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        device.state.write_bytes(b"{")
        assert device.answers()[0] == left


def test_the_security_floor_and_the_signatures_hold_without_a_state(tmp_path: Path) -> None:
    device = Offline(tmp_path, "1.2.0", "1.3.0")
    floor = device.folder / f"{PRODUCT}.floor"
    floor.write_text("1.3.0")
    bundle = device.place("1.3.0") / "bundle.edgewise"
    bundle.rename(bundle.with_name("away"))
    device.state.write_bytes(b"")
    assert device.answers()[0] is None  # 1.2.0 is whole, and below the floor
    assert floor.read_text() == "1.3.0"
    bundle.with_name("away").rename(bundle)
    metadata = device.folder / "images" / f"{PRODUCT}.json"
    signed = metadata.read_bytes()
    metadata.write_bytes(signed.replace(b"1.3.0", b"1.4.0"))
    device.state.write_bytes(b"")
    assert device.answers()[0] is None
    metadata.write_bytes(signed)
    assert device.answers()[0] == "1.3.0"


@pytest.mark.parametrize("copy", [0, 1], ids=["of a bundle that is gone", "of a bundle that is whole"])
def test_an_older_copy_of_the_state_does_not_bring_its_bundle_back(tmp_path: Path, copy: int) -> None:
    device = Offline(tmp_path, "1.2.0", "1.3.0", "1.4.0")
    device.state.write_bytes(device.states[copy])
    release, why, refusals = device.answers()
    assert (release, refusals) == ("1.4.0", ["SlotError"])
    assert "signed metadata" in why
    assert device.answers() == ("1.4.0", "", [])  # what is written from then on is the newest


def test_an_older_copy_is_told_by_its_number_alone(tmp_path: Path) -> None:
    device = Offline(tmp_path, "1.2.0", "1.3.0")
    newest = device.folder / "state.newest"
    number = int(newest.read_text())
    assert msgspec.json.decode(device.state.read_bytes())["sequence"] == number
    newest.write_text(str(number + 1))
    with pytest.raises(SlotError, match="old copy"):
        Slots(device.folder).state()
    for unknown in (b"", b"x", b"\xff", b"9" * 5000):  # then the state is all there is
        newest.write_bytes(unknown)
        assert Slots(device.folder).state().sequence == number
    newest.unlink()
    newest.mkdir()
    assert device.answers()[0] == "1.3.0"  # the number cannot be written: it is no condition


def test_a_slot_that_fails_its_trial_or_was_given_up_is_not_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Offline(tmp_path, "1.2.0", "1.3.0")
    slots = Slots(device.folder)
    for _ in range(4):  # the last of them went back, for good
        slots.boot(floor="0.0.0")
    place = device.place("1.2.0") / "files" / "manifest.json"
    place.write_bytes(place.read_bytes() + b" ")
    assert device.answers()[0] is None  # 1.3.0 is signed and whole, and crashed at every start
    monkeypatch.setattr("edgewise.device.agent.polling.try_bundle", _refuse)
    device.state.unlink()
    release, _, refusals = device.answers()
    assert (release, refusals) == (None, ["GoldenError"])


def _refuse(*_: object) -> None:
    from edgewise.errors import GoldenError  # noqa: PLC0415 - one test's

    raise GoldenError("other outputs than when it was sealed")
