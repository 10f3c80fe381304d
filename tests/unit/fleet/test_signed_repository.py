"""The repository as its signers work on it: thresholds, staging, rotation, a planted store, a writer that stops."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from edgewise.cli.main import run
from edgewise.errors import InputError, MissingSignaturesError, RepositoryError, SignatureError
from edgewise.fleet.repository.edition import Edition
from edgewise.fleet.repository.files import Files
from edgewise.fleet.repository.image import RoleKeys, add_bundle, begin, delegate, renew, rotate, states
from edgewise.fleet.repository.online import keep_fresh
from edgewise.keys.files import save_pair
from edgewise.keys.pair import generate
from tests.faults.trust.fleet import PRODUCT, Fleet, keys, sealed
from tests.faults.trust.simulator import signer


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def published(fleet: Fleet) -> dict[str, bytes]:
    folder = fleet.store / "repository" / "metadata"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_change_waits_for_the_threshold_and_is_not_served_before(fleet: Fleet) -> None:
    second = signer(90)
    edition = fleet.edition()
    rotate(edition, PRODUCT, keys(fleet.kws, second, threshold=2))
    edition.publish([fleet.targets, fleet.kws, second, fleet.online])
    before = published(fleet)

    edition = fleet.edition()
    path = fleet.folder / "b.edgewise"
    path.write_bytes(sealed("1.3.0"))
    add_bundle(edition, fleet.images, path)
    with pytest.raises(MissingSignaturesError, match="1/2"):
        edition.publish([fleet.kws, fleet.online])
    assert published(fleet) == before
    with pytest.raises(MissingSignaturesError, match="snapshot"):
        fleet.edition().complete([second])  # the offline part is complete, the server's keys are elsewhere
    assert published(fleet) == before
    assert fleet.edition().complete([fleet.online]) == (PRODUCT,)
    assert "kws/kws-1.3.0.edgewise" in fleet.edition().read(PRODUCT, Targets).targets
    assert fleet.images.names("staged") == ()


def test_a_staged_change_is_void_once_another_was_published(fleet: Fleet) -> None:
    edition = fleet.edition()
    edition.change(PRODUCT, Targets)
    with pytest.raises(MissingSignaturesError):
        edition.publish([])
    staged = {name: fleet.images.read(f"staged/{name}") for name in fleet.images.names("staged")}
    fleet.add("1.2.0")
    for name, data in staged.items():
        fleet.images.write(f"staged/{name}", data)
    with pytest.raises(RepositoryError, match="staged kws"):
        fleet.edition().complete([fleet.kws, fleet.online])


def test_the_same_key_twice_is_one_signature(fleet: Fleet) -> None:
    with pytest.raises(InputError, match="different"):
        rotate(fleet.edition(), "targets", RoleKeys((fleet.targets.public_key, fleet.targets.public_key), 2))
    with pytest.raises(InputError):
        rotate(fleet.edition(), "targets", keys(fleet.targets, threshold=2))


def test_a_new_root_needs_the_keys_before_and_the_new_ones(fleet: Fleet) -> None:
    new = signer(91)
    for given in ([new], [fleet.root]):
        edition = fleet.edition()
        rotate(edition, "root", keys(new))
        with pytest.raises(MissingSignaturesError, match="root"):
            edition.publish([*given, fleet.online])
    assert "2.root.json" not in published(fleet)
    fleet.edition().complete([new, fleet.root, fleet.online])
    assert fleet.edition().read("root", Root).version == 2
    old = fleet.edition()
    renew(old, "root")
    with pytest.raises(MissingSignaturesError):
        old.publish([fleet.root, fleet.online])


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp", PRODUCT])
def test_every_role_can_get_other_keys(fleet: Fleet, role: str) -> None:
    new = signer(92)
    edition = fleet.edition()
    rotate(edition, role, keys(new))
    edition.publish([fleet.root, fleet.targets, fleet.kws, fleet.online, new])
    fleet.edition().read(PRODUCT, Targets)  # reads and verifies everything below it
    old = {"targets": fleet.targets, PRODUCT: fleet.kws}.get(role, fleet.online)
    edition = fleet.edition()
    renew(edition, role)
    others = [each for each in (fleet.root, fleet.targets, fleet.kws, fleet.online) if each is not old]
    with pytest.raises(MissingSignaturesError, match=role):
        edition.publish([*others, old])


def test_nobody_signs_what_was_planted_in_the_store(fleet: Fleet) -> None:
    """A thief of the server lists his file in a product's metadata and waits for the product's signer."""
    name = max(name for name in fleet.images.names("metadata") if name.endswith(f"{PRODUCT}.json"))
    planted: Metadata[Targets] = Metadata.from_bytes(fleet.images.read(f"metadata/{name}"))
    planted.signed.unrecognized_fields["x"] = "planted"
    fleet.images.write(f"metadata/{name}", planted.to_bytes())
    edition = fleet.edition()
    with pytest.raises(SignatureError, match="kws"):
        edition.change(PRODUCT, Targets)


def test_nobody_follows_a_root_that_was_planted_in_the_store(fleet: Fleet, tmp_path: Path) -> None:
    evil = Files(fleet.images._store, "evil")
    edition = Edition(evil, now=fleet.now, trusted_root=None)
    begin(edition, dict.fromkeys(("root", "targets", "snapshot", "timestamp"), keys(signer(93))))
    edition.publish([signer(93)])
    fleet.images.write("metadata/2.root.json", evil.read("metadata/1.root.json"))
    with pytest.raises(SignatureError, match="root"):
        fleet.edition()
    assert tmp_path.exists()


def test_a_writer_that_stops_anywhere_leaves_a_whole_repository(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after 0, 1, 2, ... writes: what a device reads verifies, old or new; then the change is made again."""

    class Stopped(Exception):  # noqa: N818 - a power cut is no error of ours
        pass

    write, seen = Files.write, set()
    for allowed in range(5):
        left = allowed

        def limited(self: Files, path: str, data: bytes | Path) -> None:
            nonlocal left
            if left == 0:
                raise Stopped
            left -= 1
            write(self, path, data)

        monkeypatch.setattr(Files, "write", limited)
        version = f"1.3.{allowed}"
        try:
            fleet.add(version)
            seen.add("done")
        except Stopped:
            seen.add("stopped")
        monkeypatch.setattr(Files, "write", write)
        before = fleet.edition().read(PRODUCT, Targets).targets
        fleet.add(version)
        assert len(fleet.edition().read(PRODUCT, Targets).targets) == allowed + 1
        assert set(before) <= set(fleet.edition().read(PRODUCT, Targets).targets)
    assert seen == {"done", "stopped"}


def test_no_versioned_name_is_ever_written_twice(fleet: Fleet) -> None:
    """Caches keep versioned files for ever, so a name that a stopped writer left behind is not taken again."""
    fleet.images.write("metadata/9.kws.json", b"left behind")
    fleet.add("1.3.0")
    assert fleet.images.read("metadata/9.kws.json") == b"left behind"
    assert fleet.edition().read(PRODUCT, Targets).version == 10


def test_a_version_is_published_once(fleet: Fleet) -> None:
    fleet.add("1.3.0")
    fleet.add("1.3.0")
    with pytest.raises(RepositoryError, match="other content"):
        fleet.add("1.3.0", floor="1.1.0")


def test_the_floor_only_rises(fleet: Fleet) -> None:
    fleet.add("1.3.0", floor="1.2.0")
    fleet.add("1.10.0", floor="1.9.0")
    with pytest.raises(RepositoryError, match="floor"):
        fleet.add("1.4.0")
    fleet.add("1.11.0", floor="1.0.0")
    floors = {target.custom["edgewise"]["floor"] for target in fleet.edition().read(PRODUCT, Targets).targets.values()}
    assert floors == {"1.9.0"}


def test_a_product_is_delegated_once_and_never_a_top_level_role(fleet: Fleet) -> None:
    for name in (PRODUCT, "targets", "root"):
        with pytest.raises(RepositoryError, match="role already"):
            delegate(fleet.edition(), name, keys(fleet.kws))


@pytest.mark.parametrize("name", ["", "../kws", "kws/small", "*", "a b"])
def test_a_product_is_named_as_bundles_are(fleet: Fleet, name: str) -> None:
    with pytest.raises(InputError, match="product"):
        delegate(fleet.edition(), name, keys(fleet.kws))


def test_the_server_signs_again_at_half_time(fleet: Fleet) -> None:
    assert not keep_fresh(fleet.edition(), [fleet.online], fleet.now)
    later = fleet.now + timedelta(days=1.1)
    assert keep_fresh(fleet.edition(now=later), [fleet.online], later)
    assert not keep_fresh(fleet.edition(now=later), [fleet.online], later)


def test_states_say_what_has_expired(fleet: Fleet) -> None:
    found = {each.role: each for each in states(fleet.edition(), fleet.later(3))}
    assert list(found) == ["root", "targets", "snapshot", "timestamp", PRODUCT]
    assert [each.role for each in found.values() if each.expired] == ["timestamp"]


def test_the_command_line_from_init_to_rotate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWISE_PASSPHRASE", "correct horse battery")
    for name in ("root-1", "root-2", "targets", "kws", "new"):
        save_pair(generate(), tmp_path / f"{name}.pem", passphrase=b"correct horse battery")
    (tmp_path / "b.edgewise").write_bytes(sealed("1.3.0"))

    def edgewise(*arguments: str) -> int:
        return run(["repo", *arguments])

    roots = ["--root-key", "root-1.pub", "--root-key", "root-2.pub", "--root-threshold", "2"]
    signed = ["--key", "root-1.pem", "--key", "root-2.pem", "--key", "targets.pem"]
    assert edgewise("init", *roots, "--targets-key", "targets.pub", *signed) == 0
    assert edgewise("init", *roots, "--targets-key", "targets.pub", *signed) == 2
    assert edgewise("delegate", "kws", "--product-key", "kws.pub", "--key", "targets.pem", "--key", "kws.pem") == 0
    assert edgewise("add", "b.edgewise", "--key", "new.pem") == 1
    assert edgewise("sign", "--key", "kws.pem") == 0
    assert edgewise("rotate", "root", "--to", "new.pub", "--key", "new.pem", "--key", "root-1.pem") == 1
    assert edgewise("sign", "--key", "root-2.pem") == 0
    capfd.readouterr()
    assert edgewise("expire", "--json") == 0
    found = json.loads(capfd.readouterr().out)["roles"]
    assert {each["role"]: (each["version"], each["threshold"]) for each in found}["root"] == (2, 1)
    assert edgewise("expire", "--director") == 0
    assert edgewise("expire", "--trusted-root", "nowhere.json") == 2
    assert (tmp_path / "fleet" / "keys" / "director.pem").stat().st_mode & 0o077 == 0
