"""`edgewise bundle`: look into a bundle, verify it, compare two, take one apart."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import options
from edgewise.cli.console import clean, print_document, stderr_console
from edgewise.contracts.manifest import Manifest
from edgewise.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from edgewise.bundle.read import Bundle
    from edgewise.contracts.manifest import Variant
    from edgewise.contracts.pipeline import PipelineManifest

bundle = typer.Typer(no_args_is_help=True, help="Look into bundles: show, verify, diff, extract.")

Subject = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `edgewise seal` wrote.")]
Keys = Annotated[
    list[Path] | None, typer.Option("--key", metavar="NAME.pub", help="A key that you trust; may be repeated.")
]


@bundle.command()
def show(
    path: Subject,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Show what a bundle says of itself. Its seal is NOT checked: use `edgewise bundle verify`."""
    from edgewise.bundle.read import Bundle  # noqa: PLC0415

    with Bundle.open(path) as found:
        if json:
            print_document({"digest": found.digest(), "key_id": found.seal.key_id, "manifest": found.sealed})
            return 0
        _print(found)
        if isinstance(found.sealed, Manifest):
            _print_model(found.sealed)
        else:
            _print_pipeline(found.sealed, found.stages)
        for name, entry in found.entries.items():
            print(f"file     {entry.size:>10}  {name}")
    return 0


@bundle.command()
def verify(
    path: Subject,
    key: Keys = None,
    model_key: Annotated[
        Path | None, typer.Option(metavar="NAME.pub", help="Also check the OpenSSF model signature with this key.")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Check the seal with keys you trust, and every file against its digest."""
    from edgewise.bundle.read import Bundle  # noqa: PLC0415
    from edgewise.keys.files import load_public  # noqa: PLC0415

    if not key:
        raise ConfigError(
            "no key to verify with",
            required="--key NAME.pub, the public key of whom you expect",
            next_step="get it from them by another way than the bundle; `edgewise bundle show` names its id",
        )
    trusted = [load_public(each) for each in key]
    model = load_public(model_key) if model_key is not None else None
    with Bundle.open(path) as found:
        digest = found.verify(trusted)
        if model is not None:
            found.verify_model_signature(model)
        key_id, manifest = found.seal.key_id, found.sealed
    if json:
        print_document({"verified": True, "digest": digest, "key_id": key_id, "model_signature": model is not None})
    else:
        print(f"{manifest.product} {manifest.version}: sealed by {key_id}, {len(manifest.files) + 1} files as sealed")
        print(f"sha256 {digest}")
    return 0


@bundle.command()
def extract(
    path: Subject,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
    key: Keys = None,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Write a bundle's files into a new folder, all or none; with --key only if its seal is by that key."""
    from edgewise.bundle.read import Bundle  # noqa: PLC0415
    from edgewise.keys.files import load_public  # noqa: PLC0415

    if os.path.lexists(folder):
        raise OutputError(f"{folder} exists", required="a folder that does not", next_step="choose another one")
    trusted = [load_public(each) for each in key or ()]
    with Bundle.open(path) as found:
        if trusted:
            found.verify(trusted)
        else:
            stderr_console().print("note: the seal is not checked without --key")
        try:
            folder.absolute().parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror}", next_step="choose another folder") from error
        try:
            count = len(found.extract(work / "whole"))
            (work / "whole").rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    print(f"{count} files in {folder}")
    return 0


@bundle.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A bundle.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.")],
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Compare two bundles: what changed in the manifest, the variants' figures, the files. Seals are not checked."""
    from edgewise.bundle.compare import compare  # noqa: PLC0415
    from edgewise.bundle.read import Bundle  # noqa: PLC0415

    with Bundle.open(old) as first, Bundle.open(new) as second:
        found = compare(first.sealed, second.sealed)
    if json:
        print_document(found)
        return 0
    for change in found.fields:
        print(f"{clean(change.name):<44} {clean(change.before)} -> {clean(change.after)}")
    for word, paths in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        for each in paths:
            print(f"{word:<8} {each.path}  {each.size} bytes")
    if not (found.fields or found.added or found.removed or found.changed):
        print("the same")
    return 0


@bundle.command()
def delta(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The bundle that a device has.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The bundle that it shall have.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The delta to write.")],
    json: options.Json = False,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Write the smallest delta between two bundles; none where the new bundle itself is not much more."""
    from edgewise.bundle.delta_make import FULL_ABOVE, make_delta  # noqa: PLC0415
    from edgewise.bundle.read import Bundle  # noqa: PLC0415
    from edgewise.bundle.replacing import replacing  # noqa: PLC0415

    for each in (old, new):
        with Bundle.open(each):
            pass
    after = new.read_bytes()
    found = make_delta(old.read_bytes(), after)
    if found is not None:
        with replacing(output) as out:
            out.write(found.data)
    size = len(found.data) if found is not None else None
    method = found.method.value if found is not None else "full"
    if json:
        print_document({"method": method, "delta_bytes": size, "bundle_bytes": len(after)})
    elif size is None:
        print(f"full: no delta is below {FULL_ABOVE:.0%} of {len(after)} bytes; nothing is written")
    else:
        print(f"{method}: {size} bytes, {size / len(after):.1%} of {len(after)}")
    return 0


@bundle.command()
def patch(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The bundle that is there.")],
    change: Annotated[Path, typer.Argument(metavar="DELTA", help="A file that `edgewise bundle delta` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="NEW", help="The bundle to write.")],
    key: Keys = None,
    digest: Annotated[
        str | None, typer.Option(metavar="SHA256", help="What the new bundle must be, as signed metadata says.")
    ] = None,
    debug: options.Debug = False,  # noqa: ARG001 - read by main before anything can go wrong
) -> int:
    """Make the new bundle from the old one and a delta; it must have the digest, or be sealed by a key you trust."""
    from edgewise.bundle.delta import read_header  # noqa: PLC0415
    from edgewise.bundle.delta_apply import apply_delta  # noqa: PLC0415
    from edgewise.bundle.read import Bundle  # noqa: PLC0415
    from edgewise.keys.files import load_public  # noqa: PLC0415

    if not key and digest is None:
        raise ConfigError(
            "neither a key nor a digest says what the new bundle must be",
            required="--key NAME.pub, or --digest SHA256 from signed metadata",
            next_step="add one: a delta is not signed itself",
        )
    trusted = [load_public(each) for each in key or ()]
    try:
        with change.open("rb") as file:
            wanted = digest if digest is not None else read_header(file).new_digest
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.absolute().parent))
    except OSError as error:
        raise OutputError(f"{error.filename}: {error.strerror}", next_step="check the path") from error
    try:
        made = work / "whole"
        apply_delta(old, change, made, digest=wanted)
        with Bundle.open(made) as found:
            if trusted:
                found.verify(trusted)
        try:
            made.replace(output)
        except OSError as error:
            raise OutputError(f"{output}: {error.strerror}", next_step="choose another --output") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"sha256 {wanted}")
    return 0


def _print(found: Bundle) -> None:
    manifest = found.sealed
    for word, text in (
        ("product", f"{manifest.product} {manifest.version} (floor {manifest.security_floor})"),
        ("sha256", found.digest()),
        ("key id", f"{found.seal.key_id} ({found.seal.scheme}; not checked here)"),
        ("golden", f"{len(manifest.golden.samples)} inputs of the {manifest.golden.split} split"),
    ):
        print(f"{word:<8} {clean(text)}")


def _print_model(manifest: Manifest) -> None:
    text = f"{manifest.task}, judged by {manifest.metric}, for the target {manifest.target}"
    print(f"task     {clean(text)}")
    for each in manifest.variants:
        print(f"variant  {clean(_variant(each, manifest))}")


def _print_pipeline(manifest: PipelineManifest, stages: Mapping[str, Manifest]) -> None:
    pipeline = manifest.pipeline
    print(f"outputs  {clean(', '.join(pipeline.outputs))}, within {pipeline.deadline_ms:g} ms")
    for each in pipeline.stages:
        its = stages[each.name]
        when = "" if each.when is None else f", when {each.when.value} >= {each.when.at_least:g}"
        text = f"{each.name}: {its.product} {its.version}, {each.mailbox}, {each.place}{when}"
        print(f"stage    {clean(text)}")
        for variant in its.variants:
            print(f"variant  {clean(_variant(variant, its))}")


def _variant(each: Variant, manifest: Manifest) -> str:
    role = {manifest.fallback: "fallback", manifest.chosen: "chosen"}.get(each.name, "")
    figures = each.figures
    parts = [f"{each.name} {role}: {each.precision} on {each.runtime}, budget {each.verdict}"]
    parts.append(f"verification {each.verification or 'unavailable'}")
    for name, value in (("score", figures.score), ("p50 ms", figures.latency_p50_ms), ("MiB", figures.size_mib)):
        parts.append(f"{name} {'unavailable' if value is None else f'{value:.4g}'}")
    return ", ".join(parts)
