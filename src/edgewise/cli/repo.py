"""`edgewise repo`: the signed repository that devices update from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import options
from edgewise.cli.console import print_document, stderr_console, stdout_console, stdout_kept
from edgewise.cli.keys import secret_for
from edgewise.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

    from edgewise.fleet.repository.edition import Edition
    from edgewise.fleet.repository.files import Files
    from edgewise.fleet.repository.image import RoleKeys

EPILOG = """\
[bold]Examples[/]

edgewise repo init --root-key root.pub --targets-key targets.pub --key root.pem --key targets.pem

edgewise repo delegate kws --product-key kws.pub --key targets.pem --key kws.pem

edgewise repo add kws-1.3.0.edgewise --key kws.pem
"""
PLACE = "repository"

repo = typer.Typer(
    help="Sign and publish the repository that devices update from.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Store = Annotated[
    str, typer.Option(metavar="URL", envvar="EDGEWISE_STORE", help="s3://, gs:// or az://..., or a path to a folder.")
]
Keys = Annotated[
    list[str] | None, typer.Option("--key", metavar="FILE", help="A private key to sign with, or its URI; repeat.")
]
PublicHalves = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="The public half of a key that a URI names; one for each URI, in their order."),
]
Online = Annotated[
    Path, typer.Option("--online", metavar="DIR", help="The server's keys; used where the folder is there.")
]
Passphrases = Annotated[
    Path | None, typer.Option("--passphrase-file", metavar="FILE", help="Default: EDGEWISE_PASSPHRASE, or a prompt.")
]
Trust = Annotated[
    Path, typer.Option("--trusted-root", metavar="FILE", help="Your own copy of the root, which init wrote.")
]
Publics = Annotated[list[Path], typer.Option(metavar="FILE", help="A public key; repeat for more.")]
Threshold = Annotated[int, typer.Option(metavar="N", min=1, max=32, help="How many of them must sign.")]
STORE, ONLINE, ROOT = "fleet/store", Path("fleet/keys"), Path("trusted-root.json")

Director = Annotated[bool, typer.Option("--director", help="The director's repository instead of the images'.")]


@repo.command()
def init(
    root_key: Publics,
    targets_key: Publics,
    root_threshold: Threshold = 1,
    targets_threshold: Threshold = 1,
    store: Store = STORE,
    key: Keys = None,
    online: Online = ONLINE,
    public: PublicHalves = None,
    passphrase_file: Passphrases = None,
    trusted_root: Trust = ROOT,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Start the image repository and the director's, and write the roots that devices are enrolled with.

    The server's own keys are made in the folder of --online; all others come from `edgewise keys generate`.
    """
    with stdout_kept():
        from edgewise.fleet.repository.director import PLACE as DIRECTOR  # noqa: PLC0415
        from edgewise.fleet.repository.edition import Edition  # noqa: PLC0415
        from edgewise.fleet.repository.files import open_files  # noqa: PLC0415
        from edgewise.fleet.repository.image import begin  # noqa: PLC0415
        from edgewise.fleet.repository.online import make_online_keys  # noqa: PLC0415

        roots, targets = _role(root_key, root_threshold), _role(targets_key, targets_threshold)
        signers = _signers(key, None, passphrase_file, public)
        servers = {name: _of(public) for name, public in make_online_keys(online, passphrase=None).items()}
        signers += _signers(None, online, passphrase_file)
        image = {"root": roots, "targets": targets, "snapshot": servers["snapshot"], "timestamp": servers["timestamp"]}
        direct = {"root": roots, **dict.fromkeys(("targets", "snapshot", "timestamp"), servers["director"])}
        for place, roles, path in (
            (PLACE, image, trusted_root),
            (f"{PLACE}/{DIRECTOR}", direct, _director_root(trusted_root)),
        ):
            files = open_files(store, place)
            edition = Edition(files, now=datetime.now(UTC), trusted_root=None)
            begin(edition, roles)
            edition.publish(signers)
            _write_root(path, files.read("metadata/1.root.json"))
    _said(f"enrol devices with {trusted_root} and {_director_root(trusted_root)}")
    return 0


@repo.command()
def delegate(
    product: Annotated[str, typer.Argument(metavar="PRODUCT")],
    product_key: Publics,
    threshold: Threshold = 1,
    store: Store = STORE,
    key: Keys = None,
    online: Online = ONLINE,
    public: PublicHalves = None,
    passphrase_file: Passphrases = None,
    trusted_root: Trust = ROOT,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Let keys sign the bundles of one product, and nothing else."""
    with stdout_kept():
        from edgewise.fleet.repository import image  # noqa: PLC0415

        edition, _ = _edition(store, trusted_root)
        image.delegate(edition, product, _role(product_key, threshold))
        edition.publish(_signers(key, online, passphrase_file, public))
    _said(f"{product} is delegated")
    return 0


@repo.command()
def add(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="As `edgewise seal` wrote it.")],
    store: Store = STORE,
    key: Keys = None,
    online: Online = ONLINE,
    public: PublicHalves = None,
    passphrase_file: Passphrases = None,
    trusted_root: Trust = ROOT,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Publish a sealed bundle: it can be rolled out from then on, and runs nowhere yet."""
    with stdout_kept():
        from edgewise.fleet.repository.image import add_bundle  # noqa: PLC0415

        edition, files = _edition(store, trusted_root)
        added = add_bundle(edition, files, bundle)
        edition.publish(_signers(key, online, passphrase_file, public))
    if json:
        print_document(added)
    else:
        _said(f"{added.target} is published")
    return 0


@repo.command()
def sign(
    store: Store = STORE,
    key: Keys = None,
    online: Online = ONLINE,
    public: PublicHalves = None,
    passphrase_file: Passphrases = None,
    trusted_root: Trust = ROOT,
    director: Director = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Sign the change that waits for signatures; the last one publishes it."""
    with stdout_kept():
        edition, _ = _edition(store, trusted_root, director=director)
        roles = edition.complete(_signers(key, online, passphrase_file, public))
    _said(f"published: {', '.join(roles)}")
    return 0


@repo.command()
def rotate(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="root, targets, snapshot, timestamp or a product.")],
    to: Publics,
    threshold: Threshold = 1,
    store: Store = STORE,
    key: Keys = None,
    online: Online = ONLINE,
    public: PublicHalves = None,
    passphrase_file: Passphrases = None,
    trusted_root: Trust = ROOT,
    director: Director = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Give a role other keys; a new root is signed by the keys before and by the new ones."""
    with stdout_kept():
        from edgewise.fleet.repository import image  # noqa: PLC0415

        edition, _ = _edition(store, trusted_root, director=director)
        image.rotate(edition, role, _role(to, threshold))
        edition.publish(_signers(key, online, passphrase_file, public))
    _said(f"{role} has other keys")
    return 0


@repo.command()
def expire(
    roles: Annotated[list[str] | None, typer.Argument(metavar="[ROLE]...", help="Sign these anew.")] = None,
    store: Store = STORE,
    key: Keys = None,
    online: Online = ONLINE,
    public: PublicHalves = None,
    passphrase_file: Passphrases = None,
    trusted_root: Trust = ROOT,
    director: Director = False,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """List when the signatures of each role expire, or give roles a new date."""
    with stdout_kept():
        from edgewise.fleet.repository import image  # noqa: PLC0415

        if roles:
            edition, _ = _edition(store, trusted_root, director=director)
            for role in roles:
                image.renew(edition, role)
            edition.publish(_signers(key, online, passphrase_file, public))
        edition, _ = _edition(store, trusted_root, director=director)
        states = image.states(edition, datetime.now(UTC))
    if json:
        print_document({"roles": states})
        return 0
    for each in states:
        left = "[red]expired[/]" if each.expired else "until"
        keys = f"{each.threshold} of {each.keys} key(s)"
        stdout_console().print(f"{each.role:<16} version {each.version:<6} {keys:<16} {left} {each.expires}")
    return 0


def _edition(store: str, trusted_root: Path, *, director: bool = False) -> tuple[Edition, Files]:
    from edgewise.fleet.repository.director import PLACE as DIRECTOR  # noqa: PLC0415
    from edgewise.fleet.repository.edition import Edition  # noqa: PLC0415
    from edgewise.fleet.repository.files import open_files  # noqa: PLC0415

    path = _director_root(trusted_root) if director else trusted_root
    try:
        root = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}",
            required="your own copy of the trusted root: what is in the store is checked against it before you sign",
            next_step="name it with --trusted-root; `edgewise repo init` wrote it",
        ) from error
    files = open_files(store, f"{PLACE}/{DIRECTOR}" if director else PLACE)
    return Edition(files, now=datetime.now(UTC), trusted_root=root), files


def _signers(
    keys: Sequence[str] | None,
    online: Path | None,
    passphrase_file: Path | None,
    publics: Sequence[Path] | None = None,
) -> list[Signer]:
    """Open the keys that are named, and the server's where they are there; ask for a passphrase where one is needed."""
    from edgewise.fleet.repository.online import online_signers  # noqa: PLC0415
    from edgewise.keys.files import is_uri, load_public, open_signer  # noqa: PLC0415

    halves = list(publics or ())
    count = sum(is_uri(each) for each in keys or ())
    if len(halves) != count:
        raise ConfigError(
            f"{count} key(s) named by a URI and {len(halves)} --public",
            required="the public half of each, in their order",
            next_step="edgewise keys import URI -o NAME.pub writes one",
        )
    signers: list[Signer] = []
    for each in keys or ():
        half = load_public(halves.pop(0)) if is_uri(each) else None
        signers.append(open_signer(each, public=half, passphrase=secret_for(each, passphrase_file)))
    if online is not None and online.is_dir():
        signers += online_signers(online, passphrase=None)
    return signers


def _role(paths: Sequence[Path], threshold: int) -> RoleKeys:
    from edgewise.fleet.repository.image import RoleKeys  # noqa: PLC0415
    from edgewise.keys.files import load_public  # noqa: PLC0415

    return RoleKeys(tuple(load_public(path) for path in paths), threshold)


def _of(public: Key) -> RoleKeys:
    from edgewise.fleet.repository.image import RoleKeys  # noqa: PLC0415

    return RoleKeys((public,))


def _director_root(path: Path) -> Path:
    return path.with_name(f"director-{path.name}")


def _write_root(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(
            f"{path}: {error.strerror}",
            required="a folder that can be written",
            next_step="copy metadata/1.root.json from the store to where you keep it",
        ) from error


def _said(text: str) -> None:
    stderr_console().print(text, soft_wrap=True)
