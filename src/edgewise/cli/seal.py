"""`edgewise seal`: from a run to a signed bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import options
from edgewise.cli.console import clean, print_document, stderr_console, stdout_kept
from edgewise.cli.keys import PassphraseFile, model_key_of, passphrase_for, secret_for
from edgewise.contracts.budget import Verdict
from edgewise.contracts.manifest import Manifest, version_numbers
from edgewise.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from edgewise.forge.seal.sealing import Label

EPILOG = """\
[bold]Examples[/]

edgewise keys generate seal.pem

edgewise seal runs/kws -o kws-1.3.0.edgewise --key seal.pem

edgewise seal runs/kws -o kws-1.3.1.edgewise --key seal.pem --variant placed-3 --variant int8_static

edgewise seal runs/kws -o out.edgewise --product kws --version 1.3.0 --key hsm:2 --public hsm.pub --no-model-signature

edgewise seal voice.toml -o voice-1.0.0.edgewise --key seal.pem --trust colleague.pub

edgewise bundle verify kws-1.3.0.edgewise --key seal.pub --model-key seal-model.pub
"""

SUFFIX = ".edgewise"


def seal(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder of a run of `edgewise optimize`, or NAME.toml: bundles to join as stages."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PRODUCT-VERSION.edgewise", help="The bundle to write.")
    ],
    key: Annotated[
        str,
        typer.Option(
            metavar="KEY", help="Signs the bundle: NAME.pem, or a URI of hardware or a key service, with --public."
        ),
    ],
    public: Annotated[
        Path | None, typer.Option(metavar="NAME.pub", help="The public half of a key that a URI names.")
    ] = None,
    model_key: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY",
            help="Makes the OpenSSF model signature: a key on P-256. Without it, NAME-model.pem beside the key.",
        ),
    ] = None,
    no_model_signature: Annotated[
        bool, typer.Option("--no-model-signature", help="Leave out the OpenSSF model signature.")
    ] = False,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A variant of the run beside the chosen one and fp32; may be repeated. Without it, the fastest and "
            "the smallest of those that the run kept, where they are faster or smaller than the chosen one.",
        ),
    ] = None,
    only_chosen: Annotated[
        bool, typer.Option("--only-chosen", help="No other variant than the chosen one and fp32.")
    ] = False,
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="Leave out fp32: for devices that have no room for it.")
    ] = False,
    product: Annotated[
        str | None, typer.Option(metavar="NAME", help="Without it, taken from the output's name.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="1.2.3", help="Without it, taken from the output's name.")
    ] = None,
    security_floor: Annotated[
        str, typer.Option(metavar="1.2.3", help="The oldest version a device may run once it has seen this one.")
    ] = "0.0.0",
    trust: Annotated[
        list[Path] | None,
        typer.Option(metavar="NAME.pub", help="Stages may be sealed with this key too; may be repeated."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Put a run's chosen variant, others to switch to, fp32 as the last resort, and evidence into one signed file.

    The verification of the run is taken along where there is one; one that did not pass is sealed with a warning. The
    same run and key give the same bytes, but for the OpenSSF model signature, which is random.

    Given a TOML file instead, put several bundles into one, as the stages of a pipeline.
    """
    joins = run.suffix == ".toml" and not run.is_dir()
    if joins and (variant or only_chosen or no_fallback):
        raise ConfigError(
            "--variant, --only-chosen or --no-fallback together with a pipeline",
            required="those of its bundles, as they are",
            next_step="seal the bundle of that stage with it; `variant` of a stage says which one it begins with",
        )
    if trust and not joins:
        raise ConfigError("--trust without a pipeline", required="NAME.toml, whose stages are bundles")
    if only_chosen and variant:
        raise ConfigError("--variant together with --only-chosen", required="one or the other")
    if no_fallback and "fp32" in (variant or ()):
        raise ConfigError(
            "--variant fp32 together with --no-fallback, which leaves it out", required="one or the other"
        )
    named = label_of(output, product=product, version=version, security_floor=security_floor)
    _check_output(output)
    signers = _signers(key, public, model_key, without_model=no_model_signature, passphrase_file=passphrase_file)
    if joins:
        return _join(run, output, named, signers, trust or [], json=json)
    with stdout_kept():
        # What follows takes seconds to import: bad options and keys were refused before.
        from edgewise.cli.progress import drawn  # noqa: PLC0415
        from edgewise.forge.seal.sealing import seal as make  # noqa: PLC0415

        with drawn(stderr_console(), quiet=json) as progress:
            manifest, digest = make(
                run,
                output,
                label=named,
                signer=signers[0],
                model_signer=signers[1],
                wanted=() if only_chosen else tuple(variant) if variant else None,
                fallback=not no_fallback,
                progress=progress,
            )
    _warn(manifest, run)
    key_id = signers[0].public_key.keyid
    if json:
        print_document({"bundle": str(output), "digest": digest, "key_id": key_id, "manifest": manifest})
    else:
        variants = ", ".join(f"{each.name} ({each.precision})" for each in manifest.variants)
        for word, text in (("bundle", str(output)), ("sha256", digest), ("key id", key_id), ("variants", variants)):
            print(f"{word:<9} {clean(text)}")
    return 0


def _join(
    path: Path, output: Path, label: Label, signers: tuple[Signer, Signer | None], trust: list[Path], *, json: bool
) -> int:
    """Seal a pipeline and say what came of it."""
    from edgewise.forge.seal.joining import join  # noqa: PLC0415 - as above
    from edgewise.keys.files import load_public  # noqa: PLC0415

    trusted = [load_public(each) for each in trust]
    made = join(path, output, label=label, signer=signers[0], model_signer=signers[1], trusted=trusted)
    for each in made.unreached:
        stderr_console().print(
            f"warning: no golden input comes to the stage {each}: a device checks it by itself only", soft_wrap=True
        )
    for limit in () if made.evidence is None else made.evidence.verdicts:
        if limit.verdict is not Verdict.PASS:
            found = "not known" if limit.found is None else f"{limit.found:.4g}"
            text = f"{limit.limit} of the whole is {found}, at most {limit.required:g} is asked for"
            stderr_console().print(f"warning: {text}; it is sealed all the same", soft_wrap=True)
    key_id = signers[0].public_key.keyid
    if json:
        document = {"bundle": str(output), "digest": made.digest, "key_id": key_id, "manifest": made.manifest}
        print_document(document | {"evidence": made.evidence})
        return 0
    stages = ", ".join(each.name for each in made.manifest.pipeline.stages)
    for word, text in (("bundle", str(output)), ("sha256", made.digest), ("key id", key_id), ("stages", stages)):
        print(f"{word:<9} {clean(text)}")
    return 0


def _warn(manifest: Manifest, run: Path) -> None:
    """Tell where a verification that did not pass was sealed."""
    from rich.text import Text  # noqa: PLC0415

    chosen = next(each for each in manifest.variants if each.name == manifest.chosen)
    if chosen.verification in {Verdict.FAIL, Verdict.UNKNOWN}:
        found = "failed" if chosen.verification is Verdict.FAIL else "did not come to a verdict"
        text = f"the verification of {chosen.name} {found}; it is sealed all the same: see the report of {run}"
        stderr_console().print(Text.assemble(("warning: ", "bold red"), clean(text)), soft_wrap=True)


def label_of(output: Path, *, product: str | None, version: str | None, security_floor: str) -> Label:
    """Return what a bundle is called; raises ConfigError where neither options nor its name say so."""
    from edgewise.bundle.rules import PRODUCT  # noqa: PLC0415
    from edgewise.forge.seal.sealing import Label  # noqa: PLC0415

    found = re.fullmatch(r"(.+)-([0-9.]+)", output.name.removesuffix(SUFFIX))
    product = product or (found[1] if found else None)
    version = version or (found[2] if found else None)
    if product is None or version is None:
        raise ConfigError(
            f"--output {output.name} does not name product and version",
            required="PRODUCT-VERSION.edgewise, or --product and --version",
            next_step="write for example -o kws-1.3.0.edgewise",
        )
    if PRODUCT.fullmatch(product) is None:
        raise ConfigError(
            f"the product {product}",
            required="at most 64 of a-z, 0-9, '.', '_' and '-', a letter or digit at both ends",
            next_step="give such a name with --product",
        )
    for option, text in (("--version", version), ("--security-floor", security_floor)):
        try:
            version_numbers(text)
        except ValueError:
            raise ConfigError(
                f"{option} {text}",
                required="three or four whole numbers with points between them",
                next_step=f"write for example {option} 1.3.0",
            ) from None
    if version_numbers(security_floor) > version_numbers(version):
        raise ConfigError(f"--security-floor {security_floor}", required=f"at most the version {version}")
    return Label(product=product, version=version, security_floor=security_floor)


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise OutputError(f"{output} is a folder", required="a file", next_step=f"-o {output}/kws-1.3.0{SUFFIX}")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"the folder {output.parent} does not exist", next_step="make it, or choose another --output")


def _signers(
    key: str, public: Path | None, model_key: Path | None, *, without_model: bool, passphrase_file: Path | None
) -> tuple[Signer, Signer | None]:
    """Return what signs the bundle and what makes the model signature."""
    from edgewise.bundle.seal import Scheme, scheme_of  # noqa: PLC0415
    from edgewise.keys.files import is_uri, load_public, open_signer  # noqa: PLC0415

    is_file = not is_uri(key)
    if not is_file and public is None:
        raise ConfigError(
            f"--key {key} names no public half",
            required="--public NAME.pub, the public half of that key",
            next_step=f"edgewise keys import {key} -o NAME.pub",
        )
    passphrase = secret_for(key, passphrase_file)
    signer = open_signer(key, public=load_public(public) if public is not None else None, passphrase=passphrase)
    scheme = scheme_of(signer.public_key)
    if without_model:
        if model_key is not None:
            raise ConfigError("--model-key together with --no-model-signature", required="one or the other")
        return signer, None
    if model_key is None and scheme is Scheme.ECDSA_P256:
        return signer, signer
    beside = model_key if model_key is not None else (model_key_of(Path(key)) if is_file else None)
    if beside is None or (model_key is None and not beside.exists()):
        raise ConfigError(
            "there is no key for the OpenSSF model signature",
            required=f"--model-key KEY, a key on P-256, or {beside or 'NAME-model.pem'} beside the key",
            next_step=f"edgewise keys generate {beside or 'model.pem'} --kind ecdsa-p256; or add --no-model-signature",
        )
    if passphrase is None or not _opens(beside, passphrase):
        passphrase = passphrase_for(beside, passphrase_file)
    model_signer = open_signer(str(beside), passphrase=passphrase)
    if scheme_of(model_signer.public_key) is not Scheme.ECDSA_P256:
        raise ConfigError(f"--model-key {beside} is an Ed25519 key", required="a key on P-256")
    return signer, model_signer


def _opens(path: Path, passphrase: bytes) -> bool:
    """Return whether a passphrase opens a key too, so that nobody is asked twice for the same one."""
    from edgewise.errors import KeyFileError  # noqa: PLC0415
    from edgewise.keys.files import load_private  # noqa: PLC0415

    try:
        load_private(path, passphrase=passphrase)
    except KeyFileError:
        return False
    return True
