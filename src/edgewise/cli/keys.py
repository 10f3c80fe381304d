"""`edgewise keys`: make and show keys. A passphrase comes from a file, the environment or a prompt, never an option."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import options
from edgewise.cli.console import clean, print_document
from edgewise.errors import ConfigError, KeyFileError

MODEL_SUFFIX = "-model"
"""NAME-model.pem stands beside NAME.pem: the key of model signatures beside that of the bundle."""

keys = typer.Typer(no_args_is_help=True, help="Make and show the keys that bundles and repositories are signed with.")

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Holds the passphrase; without it EDGEWISE_PASSPHRASE is taken, or you are asked."
    ),
]


class Kind(StrEnum):
    """What `keys generate` makes."""

    BOTH = "both"
    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"


@keys.command()
def generate(
    path: Annotated[Path, typer.Argument(metavar="NAME.pem", help="The private key; NAME.pub is written beside it.")],
    kind: Annotated[
        Kind,
        typer.Option(help="`both` also makes NAME-model.pem on P-256, for OpenSSF model signatures."),
    ] = Kind.BOTH,
    passphrase_file: PassphraseFile = None,
    unencrypted: Annotated[
        bool, typer.Option("--unencrypted", help="No passphrase: for a key whose disk is guarded otherwise.")
    ] = False,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Make a key pair; nothing is ever overwritten."""
    from edgewise.keys.files import save_pair  # noqa: PLC0415
    from edgewise.keys.pair import generate as make  # noqa: PLC0415
    from edgewise.keys.pair import public_of  # noqa: PLC0415

    if path.suffix != ".pem":
        raise ConfigError(f"the key {path}", required="a name that ends with .pem", next_step=f"write {path}.pem")
    wanted = [(path, kind)] if kind is not Kind.BOTH else [(path, Kind.ED25519), (model_key_of(path), Kind.ECDSA_P256)]
    for each, _ in wanted:
        for file in (each, each.with_suffix(".pub")):
            if os.path.lexists(file):
                raise ConfigError(f"{file} exists", required="a new name: a key is never overwritten")
    passphrase = None if unencrypted else _new_passphrase(passphrase_file)
    made = []
    for each, each_kind in wanted:
        private = make("ed25519" if each_kind is Kind.ED25519 else "ecdsa-p256")
        files = save_pair(private, each, passphrase=passphrase)
        made.append(
            {
                "kind": each_kind.value,
                "key_id": public_of(private).keyid,
                "private": str(files[0]),
                "public": str(files[1]),
            }
        )
    _print(made, json=json)
    return 0


@keys.command()
def show(
    paths: Annotated[list[Path], typer.Argument(metavar="NAME.pub...", help="Public keys.")],
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Show the kind and the id of public keys; a private key is never read."""
    from edgewise.bundle.seal import scheme_of  # noqa: PLC0415
    from edgewise.keys.files import load_public  # noqa: PLC0415

    found = []
    for path in paths:
        if path.suffix == ".pem" and path.with_suffix(".pub").exists():
            raise KeyFileError(
                f"{path} is a private key", required="the public half", next_step=f"name {path.with_suffix('.pub')}"
            )
        key = load_public(path)
        found.append({"kind": scheme_of(key).value, "key_id": key.keyid, "public": str(path)})
    _print(found, json=json)
    return 0


@keys.command("import")
def import_(
    reference: Annotated[str, typer.Argument(metavar="URI", help="hsm:2?label=TOKEN, awskms:ID or gcpkms:NAME.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="NAME.pub", help="The public key to write.")],
    passphrase_file: PassphraseFile = None,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Write the public half of a key in hardware or in a key service; the private half stays there.

    For hardware (PKCS#11) PYKCS11LIB names its library, and the PIN is asked for like a passphrase.
    """
    from edgewise.bundle.seal import scheme_of  # noqa: PLC0415
    from edgewise.keys.files import import_public  # noqa: PLC0415

    key = import_public(reference, output, pin=secret_for(reference, passphrase_file))
    _print([{"kind": scheme_of(key).value, "key_id": key.keyid, "public": str(output)}], json=json)
    return 0


def model_key_of(path: Path) -> Path:
    """Return where the key of model signatures stands beside a key.

    >>> str(model_key_of(Path("keys/seal.pem")))
    'keys/seal-model.pem'
    """
    return path.with_name(f"{path.stem}{MODEL_SUFFIX}{path.suffix}")


def passphrase_for(path: Path, file: Path | None) -> bytes | None:
    """Return the passphrase of a private key, None where it needs none."""
    from edgewise.keys.files import is_encrypted  # noqa: PLC0415
    from edgewise.keys.passphrase import read_passphrase  # noqa: PLC0415

    if not is_encrypted(path):
        return None
    return read_passphrase(file=file, environment=os.environ, ask=_prompt(f"Passphrase of {path}: "))


def secret_for(reference: str, file: Path | None) -> bytes | None:
    """Return the passphrase of a key in a file, or the PIN of one in hardware; None where it needs neither."""
    from edgewise.keys.files import asks_for_pin, is_uri  # noqa: PLC0415
    from edgewise.keys.passphrase import read_passphrase  # noqa: PLC0415

    if asks_for_pin(reference):
        return read_passphrase(file=file, environment=os.environ, ask=_prompt(f"PIN of {reference}: "))
    return None if is_uri(reference) else passphrase_for(Path(reference), file)


def _new_passphrase(file: Path | None) -> bytes:
    from edgewise.keys.passphrase import check_new, read_passphrase  # noqa: PLC0415

    def twice() -> str:
        first = getpass.getpass("New passphrase: ")
        if getpass.getpass("Again: ") != first:
            raise ConfigError("the two passphrases differ", required="the same twice", next_step="try again")
        return first

    found = read_passphrase(file=file, environment=os.environ, ask=twice if sys.stdin.isatty() else None)
    check_new(found)
    return found


def _prompt(words: str) -> Callable[[], str] | None:
    return (lambda: getpass.getpass(words)) if sys.stdin.isatty() else None


def _print(found: list[dict[str, str]], *, json: bool) -> None:
    if json:
        print_document(found)
        return
    for each in found:
        for key, value in each.items():
            print(f"{key.replace('_', ' '):<8} {clean(value)}")
