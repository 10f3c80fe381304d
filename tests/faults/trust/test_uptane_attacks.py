"""The attacks that the Uptane Standard names, against both repositories as the product writes and serves them.

Reading of updates by others (eavesdropping) is not among what is refused: bundles are signed, not secret, and
TLS keeps them from bystanders. Slow retrieval is in test_transfers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.metadata import Targets

from edgewise.contracts.policy import Image
from edgewise.contracts.rollout import Release
from edgewise.errors import (
    DigestError,
    DisagreementError,
    EndlessDataError,
    ExpiredError,
    MixedMetadataError,
    RollbackError,
    SignatureError,
    TruncatedError,
    TrustError,
    UnreachableError,
)
from edgewise.fleet.repository.director import direct
from edgewise.fleet.repository.image import RoleKeys, rotate
from tests.faults.trust.fleet import PRODUCT, Device, Fleet, keys, served
from tests.faults.trust.simulator import signer


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    fleet = Fleet(tmp_path)
    with served(fleet.store) as url:
        device = Device(fleet, url)
        fleet.direct(fleet.add("1.2.0"))
        device.update()
        yield device


def refuses(device: Device, kind: type[Exception]) -> None:
    """Check the error, and that the bundle in the slot is the one from before."""
    before = device.bundle.read_bytes()
    with pytest.raises(kind) as caught:
        device.update()
    assert type(caught.value) is kind
    assert device.bundle.read_bytes() == before


def test_a_release_reaches_the_cohort_and_nobody_else(device: Device) -> None:
    fleet = device.fleet
    old, new = device.assigned().image, fleet.add("1.3.0")
    fleet.direct(old, offered=new, salt="a salt of sixteen", share=0.0, labels=("canary",))
    assert device.assigned().image == old
    assert device.assigned(labels=frozenset({"canary"})).image == new
    fleet.direct(old, offered=new, salt="a salt of sixteen", share=1.0)
    assert device.update().image == new
    assert device.bundle.read_bytes() == (fleet.folder / "1.3.0.edgewise").read_bytes()


def test_a_fleet_rollback_is_a_newer_policy_that_names_an_older_bundle(device: Device) -> None:
    fleet = device.fleet
    old, new = device.assigned().image, fleet.add("1.3.0")
    fleet.direct(new)
    assert device.update().image == new
    fleet.direct(old)
    assert device.update().image == old


def test_drop_request(device: Device) -> None:
    """Who cuts the device off keeps it on what it has, until the metadata expire and it says so."""
    device.fleet.direct(device.fleet.add("1.3.0"))
    hidden = device.fleet.store.rename(device.fleet.folder / "hidden")
    with pytest.raises(Exception, match="404"):
        device.update()
    hidden.rename(device.fleet.store)
    address, device.url = device.url, "http://127.0.0.1:9"
    refuses(device, UnreachableError)
    device.url = address
    assert device.update().release.version == "1.3.0"


def test_freeze_of_the_images(device: Device) -> None:
    fleet = device.fleet
    edition = fleet.edition(director=True, now=fleet.later(3))
    edition.publish([fleet.director])  # the director is alive, the images' timestamp is held back
    with pytest.raises(ExpiredError, match="timestamp"):
        device.assigned(now=fleet.later(3))


def test_freeze_of_the_director(device: Device) -> None:
    fleet = device.fleet
    fleet.edition(now=fleet.later(3)).publish([fleet.online])
    with pytest.raises(ExpiredError, match="timestamp"):
        device.assigned(now=fleet.later(3))


def test_partial_bundle_installation(device: Device) -> None:
    """A bundle is one file with one digest: half of it is nothing, and stays out of the slot."""
    fleet = device.fleet
    new = fleet.add("1.3.0")
    fleet.direct(new)
    path = bundle_at(fleet, new)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuses(device, TruncatedError)
    path.write_bytes(whole)
    assert device.update().image == new
    assert device.bundle.read_bytes() == whole


def test_rollback_below_the_security_floor(device: Device) -> None:
    """A stolen director may direct among signed bundles, but not below what was signed as the oldest safe one."""
    fleet = device.fleet
    old = device.assigned().image
    fleet.direct(fleet.add("1.3.0", floor="1.3.0"))
    device.update()
    fleet.direct(old)
    refuses(device, RollbackError)


def test_rollback_of_the_floor_itself(device: Device) -> None:
    """The floor that a device has seen stays, also when the product's keys sign a lower one."""
    fleet = device.fleet
    old = device.assigned().image
    fleet.direct(fleet.add("1.3.0", floor="1.3.0"))
    device.update()
    edition = fleet.edition()
    for target in edition.change(PRODUCT, Targets).targets.values():
        target.unrecognized_fields["custom"]["edgewise"]["floor"] = "1.0.0"
    edition.publish([fleet.kws, fleet.online])
    fleet.direct(old)
    refuses(device, RollbackError)


def test_rollback_of_the_directors_metadata(device: Device) -> None:
    """The director's old timestamp, replayed, does not bring its old policy back."""
    fleet = device.fleet
    place = fleet.store / "repository" / "director" / "metadata"
    old = (place / "timestamp.json").read_bytes()
    fleet.direct(fleet.add("1.3.0"))
    device.update()
    (place / "timestamp.json").write_bytes(old)
    refuses(device, RollbackError)


def bundle_at(fleet: Fleet, image: Image) -> Path:
    folder, _, name = image.target.rpartition("/")
    return fleet.store / "repository" / "targets" / folder / f"{image.sha256}.{name}"


def test_endless_data(device: Device) -> None:
    fleet = device.fleet
    new = fleet.add("1.3.0")
    fleet.direct(new)
    with bundle_at(fleet, new).open("ab") as out:
        out.write(b"\0" * 1_000_000)
    refuses(device, EndlessDataError)


def test_mixed_bundles(device: Device) -> None:
    """The director names one release's file and another's version: no such pair was ever signed."""
    fleet = device.fleet
    old, new = device.assigned().image, fleet.add("1.3.0")
    mixed = Image(release=new.release, target=old.target, length=old.length, sha256=old.sha256)
    fleet.direct(mixed)
    refuses(device, DisagreementError)


def test_mix_and_match_by_a_stolen_server(device: Device) -> None:
    """Without the offline keys, metadata of two states do not go together."""
    fleet = device.fleet
    metadata = fleet.store / "repository" / "metadata"
    first = max(metadata.glob("*.kws.json")).read_bytes()
    fleet.direct(fleet.add("1.3.0"))
    max(metadata.glob("*.kws.json")).write_bytes(first)
    refuses(device, MixedMetadataError)


def test_arbitrary_software_by_a_stolen_director(device: Device) -> None:
    """Director and web server are the attacker's; the image repository never signed this file."""
    fleet = device.fleet
    evil = b"of an attacker"
    good = device.assigned().image
    for name in ("kws/evil.edgewise", good.target):
        image = Image(
            release=Release(product=PRODUCT, version="1.2.0", digest=good.release.digest),
            target=name,
            length=len(evil),
            sha256="0" * 64,
        )
        fleet.direct(image)
        refuses(device, DisagreementError)


def test_arbitrary_software_in_place_of_a_signed_file(device: Device) -> None:
    fleet = device.fleet
    new = fleet.add("1.3.0")
    fleet.direct(new)
    path = bundle_at(fleet, new)
    path.write_bytes(b"\0" * new.length)
    refuses(device, DigestError)


def test_arbitrary_software_by_one_products_signer_for_another(device: Device) -> None:
    """The delegation to one product's keys does not reach another product's names."""
    fleet = device.fleet
    thief = signer(80)
    edition = fleet.edition()
    targets = edition.change(PRODUCT, Targets)
    targets.targets["vision/x.edgewise"] = targets.targets["kws/kws-1.2.0.edgewise"]
    edition.publish([fleet.kws, fleet.online])
    good = device.assigned().image
    fleet.direct(Image(release=good.release, target="vision/x.edgewise", length=good.length, sha256=good.sha256))
    refuses(device, DisagreementError)
    assert thief.public_key.keyid not in str(fleet.roots)


def test_a_stolen_server_has_no_key_that_signs_bundles(device: Device) -> None:
    """All online keys together sign a new state of the product's role: refused by the writer and by the device."""
    fleet = device.fleet
    edition = fleet.edition()
    edition.change(PRODUCT, Targets)
    with pytest.raises(Exception, match="signed by 0/1 keys"):
        edition.publish([fleet.online, fleet.director])
    edition._changed[PRODUCT].sign(fleet.online)
    data = edition._changed[PRODUCT].to_bytes()
    metadata = fleet.store / "repository" / "metadata"
    max(metadata.glob("*.kws.json")).write_bytes(data)
    shutil.rmtree(device.folder / "images")
    with pytest.raises(TrustError) as caught:
        device.assigned()
    assert type(caught.value) in {MixedMetadataError, SignatureError, EndlessDataError}


def test_the_offline_root_takes_the_directors_stolen_key_away(device: Device) -> None:
    fleet = device.fleet
    stolen, fleet.director = fleet.director, signer(81)
    edition = fleet.edition(director=True)
    for role in ("targets", "snapshot", "timestamp"):
        rotate(edition, role, RoleKeys((fleet.director.public_key,)))
    edition.publish([fleet.root, fleet.director])
    device.update()
    fleet.direct(fleet.add("1.3.0"))
    assert device.update().release.version == "1.3.0"
    thief = fleet.edition(director=True)
    thief.change("targets", Targets)
    with pytest.raises(Exception, match="signed by 0/1 keys"):
        thief.publish([stolen])
    assert keys(stolen).threshold == 1
    assert not direct(fleet.edition(director=True), fleet.directions, [], [stolen])
