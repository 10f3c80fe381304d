"""What a manifest must say so that nobody behind this line has to ask again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from edgewise.bundle.names import BOM, CARD, EVIDENCE, MANIFEST, MODEL_SIGNATURE, MOST_CHARACTERS, VERIFICATION
from edgewise.bundle.tensors import check_place
from edgewise.contracts.manifest import (
    BUNDLE_VERSION,
    Golden,
    GoldenOutput,
    Manifest,
    TensorPlace,
    Variant,
    version_numbers,
)
from edgewise.contracts.pipeline import Sealed
from edgewise.errors import BundleError, UnsignedFileError

MOST_VARIANTS = 64
MOST_GOLDEN = 64
PRODUCT = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
DIGEST = re.compile(r"[0-9a-f]{64}")
ALWAYS = (BOM, CARD, EVIDENCE)
"""Documents that every bundle holds."""


def check_manifest(manifest: Manifest, sizes: Mapping[str, int]) -> None:
    """Raise BundleError unless a manifest agrees with itself and with the files, given as path to size."""
    check_label(manifest)
    check_files(manifest, sizes, always=ALWAYS)
    digests = [each for variant in manifest.variants for each in (variant.source_digest, variant.recipe_digest)]
    for digest in (*digests, manifest.model_digest):
        require(DIGEST.fullmatch(digest) is not None, f"{digest[:80]!r} where a SHA-256 is due")
    names = [each.name for each in manifest.variants]
    require(1 <= len(names) <= MOST_VARIANTS, f"{len(names)} variants")
    require(len(set(names)) == len(names), "two variants of one name")
    for role, name in (("chosen", manifest.chosen), ("fallback", manifest.fallback)):
        require(name in names, f"{role} variant {name[:80]!r}, which is not there")
    check_golden(manifest.golden, tuple(each.name for each in manifest.inputs), sizes)
    for variant in manifest.variants:
        _check_variant(variant, manifest, sizes)


def check_label(manifest: Sealed) -> None:
    """Raise BundleError for a product or a version that cannot be."""
    require(manifest.format_version == BUNDLE_VERSION, f"format version {manifest.format_version}")
    require(PRODUCT.fullmatch(manifest.product) is not None, f"the product {manifest.product[:80]!r}")
    try:
        version, floor = version_numbers(manifest.version), version_numbers(manifest.security_floor)
    except ValueError as error:
        raise _refused(str(error)) from None
    require(floor <= version, f"a security floor {manifest.security_floor} above version {manifest.version}")


def check_files(manifest: Sealed, sizes: Mapping[str, int], *, always: Iterable[str]) -> None:
    """Raise BundleError unless a manifest lists the files that are there, each as it should."""
    stated = {each.path: each.size for each in manifest.files}
    paths = [each.path for each in manifest.files]
    require(paths == sorted(stated), "files that are not in ascending order, each once")
    own = {MANIFEST} | ({MODEL_SIGNATURE} if manifest.model_signature_key is not None else set())
    require(not own & stated.keys(), "itself or the model signature among the files")
    found = {name: size for name, size in sizes.items() if name not in own}
    for name in sorted(found.keys() - stated.keys()):
        raise UnsignedFileError(
            f"the bundle holds {name[:MOST_CHARACTERS]!r}, which its manifest does not list",
            required="files that are listed with their digests, and no other",
            next_step="do not use this file: somebody has added to it",
        )
    for name in sorted(stated.keys() - found.keys()):
        raise _refused(f"{name!r}, which is missing")
    require(own <= sizes.keys(), f"{MODEL_SIGNATURE}, which is missing")
    for name, size in stated.items():
        require(found[name] == size, f"{size} bytes for {name!r}, which has {found[name]}")
    for name in always:
        require(name in stated, f"no {name}")
    for digest in (*(each.digest for each in manifest.files), *filter(None, (manifest.model_signature_key,))):
        require(DIGEST.fullmatch(digest) is not None, f"{digest[:80]!r} where a SHA-256 is due")


def check_golden(golden: Golden, names: tuple[str, ...], sizes: Mapping[str, int]) -> None:
    """Raise BundleError unless there are golden inputs of these names, inside their file."""
    require(1 <= len(golden.samples) <= MOST_GOLDEN, f"{len(golden.samples)} golden inputs")
    for sample in golden.samples:
        require(tuple(each.name for each in sample) == names, "a golden input that the model does not take")
        _check_places(sample, golden.path, sizes)


def check_golden_outputs(sample: Iterable[GoldenOutput], path: str, sizes: Mapping[str, int]) -> None:
    """Raise BundleError unless golden outputs lie inside their file, each with a tolerance."""
    sample = tuple(sample)
    require(all(math.isfinite(each.tolerance) and each.tolerance >= 0 for each in sample), "a tolerance below zero")
    _check_places([each.tensor for each in sample], path, sizes)


def _check_variant(variant: Variant, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    for path in filter(None, (variant.model, variant.weights)):
        require(path in sizes, f"{path[:120]!r} for variant {variant.name!r}, which is not there")
    require(variant.threads >= 1, f"{variant.threads} threads")
    require(bool(variant.weights) or not variant.tensors, f"tensors but no weights for {variant.name!r}")
    require(variant.verification is None or VERIFICATION in sizes, f"a verdict but no {VERIFICATION}")
    _check_places(variant.tensors, variant.weights or "", sizes)
    end = 0
    for each in variant.tensors:
        require(each.offset >= end, f"tensors of {variant.name!r} that overlap")
        end = each.offset + each.size
    require(len(variant.golden.samples) == len(manifest.golden.samples), "golden inputs without their outputs")
    ports = tuple(each.name for each in manifest.outputs)
    for sample in variant.golden.samples:
        require(tuple(each.tensor.name for each in sample) == ports, "a golden output that the model does not have")
        check_golden_outputs(sample, variant.golden.path, sizes)


def _check_places(places: Iterable[TensorPlace], path: str, sizes: Mapping[str, int]) -> None:
    for each in places:
        require(path in sizes, f"tensors in {path[:120]!r}, which is not there")
        check_place(each, size=sizes[path])


def require(holds: bool, found: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise BundleError about a manifest unless something holds."""
    if not holds:
        raise _refused(found)


def _refused(found: str) -> BundleError:
    return BundleError(
        f"the manifest has {found}",
        required="a manifest of format version 1 that agrees with the files beside it",
        next_step="do not use this file; seal it again, or get it again",
    )
