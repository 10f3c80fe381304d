from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from edgewise.errors import KeyFileError, OutputError, SignatureError
from edgewise.keys.files import (
    asks_for_pin,
    import_public,
    is_encrypted,
    is_uri,
    load_private,
    load_public,
    open_signer,
    save_pair,
)
from edgewise.keys.pair import KeyKind, generate, public_of, sign, signer_of, verify
from edgewise.keys.passphrase import VARIABLE, read_passphrase

PASSPHRASE = b"correct horse battery"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256"])
def test_what_a_saved_key_signs_its_public_file_verifies(tmp_path: Path, kind: KeyKind) -> None:
    private, public = save_pair(generate(kind), tmp_path / "root-1.pem", passphrase=PASSPHRASE)
    signature = sign(open_signer(str(private), passphrase=PASSPHRASE), b"a bundle")
    verify(load_public(public), b"a bundle", signature)
    for data, wrong in ((b"a bundlf", signature), (b"a bundle", signature[:-1] + bytes([signature[-1] ^ 1]))):
        with pytest.raises(SignatureError):
            verify(load_public(public), data, wrong)
    with pytest.raises(SignatureError):
        verify(public_of(generate(kind)), b"a bundle", signature)
    with pytest.raises(SignatureError):
        verify(load_public(public), b"a bundle", b"")


def test_a_private_key_is_only_its_owners_and_encrypted(tmp_path: Path) -> None:
    private, public = save_pair(generate(), tmp_path / "k.pem", passphrase=PASSPHRASE)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"ENCRYPTED PRIVATE KEY" in private.read_bytes()
    assert is_encrypted(private)
    assert b"PRIVATE" not in public.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["k.pem", "k.pub"]


def test_a_wrong_or_missing_passphrase_is_named(tmp_path: Path) -> None:
    private, _ = save_pair(generate(), tmp_path / "k.pem", passphrase=PASSPHRASE)
    with pytest.raises(KeyFileError, match="passphrase"):
        load_private(private, passphrase=b"wrong horse battery")
    with pytest.raises(KeyFileError, match="encrypted"):
        load_private(private)


def test_an_online_key_may_go_without(tmp_path: Path) -> None:
    private, public = save_pair(generate(), tmp_path / "k.pem", passphrase=None)
    assert not is_encrypted(private)
    assert public_of(load_private(private)).keyid == load_public(public).keyid
    assert public_of(load_private(private, passphrase=PASSPHRASE)).keyid == load_public(public).keyid


@pytest.mark.parametrize("taken", ["k.pem", "k.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("here first")
    with pytest.raises(OutputError):
        save_pair(generate(), tmp_path / "k.pem", passphrase=PASSPHRASE)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(taken, "here first")]


def test_a_short_passphrase_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="at least 8"):
        save_pair(generate(), tmp_path / "k.pem", passphrase=b"1234567")
    assert not list(tmp_path.iterdir())


def test_other_kinds_of_key_and_other_files_are_refused(tmp_path: Path) -> None:
    other = generate_private_key(65537, 2048)
    (tmp_path / "rsa.pem").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "rsa.pub").write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text").write_text("hello")
    for path in (tmp_path / "rsa.pem", tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(KeyFileError):
            load_private(path, passphrase=PASSPHRASE)
    for path in (tmp_path / "rsa.pub", tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(KeyFileError):
            load_public(path)


def test_a_signer_must_belong_to_the_public_key_that_is_named(tmp_path: Path) -> None:
    private, public = save_pair(generate(), tmp_path / "k.pem", passphrase=None)
    assert open_signer(str(private), public=load_public(public)).public_key.keyid == load_public(public).keyid
    with pytest.raises(KeyFileError, match="private half"):
        open_signer(str(private), public=signer_of(generate()).public_key)


def test_a_key_by_uri_needs_its_public_half_and_its_library(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no public half"):
        open_signer("hsm:0")
    with pytest.raises(KeyFileError, match="Private key not found"):
        open_signer(f"file2:{tmp_path / 'absent'}", public=public_of(generate()))


def test_a_passphrase_comes_from_the_first_place_that_has_one(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("from the file\n")
    environment = {VARIABLE: "from outside"}
    assert read_passphrase(file=file, environment=environment) == b"from the file"
    assert read_passphrase(file=None, environment=environment) == b"from outside"
    assert read_passphrase(file=None, environment={}, ask=lambda: "typed") == b"typed"
    for ask in (None, lambda: ""):
        with pytest.raises(KeyFileError):
            read_passphrase(file=None, environment={}, ask=ask)
    with pytest.raises(KeyFileError):
        read_passphrase(file=tmp_path / "absent", environment=environment)


def test_the_public_half_of_a_uri_is_written_only_where_it_is_found(tmp_path: Path) -> None:
    for reference, match in (("hsm:2", "hsm"), ("gpg:abc", "hsm:, awskms:, gcpkms:"), ("seal.pem", "hsm:")):
        with pytest.raises(KeyFileError, match=match):
            import_public(reference, tmp_path / "key.pub", pin=b"123456")
    assert list(tmp_path.iterdir()) == []


def test_what_hardware_raises_is_said_by_name_and_its_pin_is_not(tmp_path: Path) -> None:
    _, public = save_pair(generate("ecdsa-p256"), tmp_path / "hsm.pem", passphrase=None)
    with pytest.raises(KeyFileError, match=r"hsm:2\?label=token") as refused:  # by a library or a token that is missing
        open_signer("hsm:2?label=token", public=load_public(public), passphrase=b"secret-pin").sign(b"data")
    assert "secret-pin" not in str(refused.value)


def test_a_pin_is_asked_for_by_hardware_alone(tmp_path: Path) -> None:
    assert asks_for_pin("hsm:2")
    assert not asks_for_pin("awskms:abc")
    assert is_uri("awskms:abc")
    (tmp_path / "hsm:2").touch()
    assert not is_uri(str(tmp_path / "hsm:2"))
