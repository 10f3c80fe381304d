"""Seal several bundles as one: each becomes a stage, with its own files as they were sealed, under one signature."""

from __future__ import annotations

import hashlib
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from securesystemslib.signer import Key, Signer

from edgewise import __version__
from edgewise.bundle.model_signature import key_digest, make_model_signature
from edgewise.bundle.names import BOM, CARD, EVIDENCE, MANIFEST, MODEL_SIGNATURE
from edgewise.bundle.read import Bundle
from edgewise.bundle.stage_rules import check_pipeline, ports_of
from edgewise.bundle.write import Source, encode_manifest, sealed_file, write_bundle
from edgewise.contracts.base import Value
from edgewise.contracts.budget import Budget
from edgewise.contracts.manifest import Manifest
from edgewise.contracts.pipeline import (
    RESERVED,
    STAGE_NAME,
    Description,
    Gap,
    Gate,
    ModelStage,
    PipelineManifest,
    Place,
)
from edgewise.errors import ConfigError
from edgewise.forge.seal.joined_accuracy import DataSection, WholeEvidence, check_budget, measure
from edgewise.forge.seal.joined_documents import bom, card
from edgewise.forge.seal.joined_golden import golden_of
from edgewise.forge.seal.sealing import Label


class StageSection(Value, kw_only=True):
    """`[stages.NAME]`: `bundle` is the path of a bundle, from the file's folder."""

    bundle: str
    variant: str | None = None
    inputs: dict[str, str]
    state: dict[str, str] = msgspec.field(default_factory=dict)
    when: Gate | None = None
    mailbox: str = "block(1)"
    gap: Gap = Gap.CARRY
    place: Place = Place.HERE


class PipelineFile(Value, kw_only=True):
    """A file that says what to join. `outputs` are by default all of the last stage."""

    deadline_ms: float
    outputs: tuple[str, ...] = ()
    budget: Budget = Budget()
    data: DataSection | None = None
    stages: dict[str, StageSection]


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `unreached` are stages that a gate kept every golden input out of."""

    manifest: PipelineManifest
    digest: str
    unreached: tuple[str, ...]
    evidence: WholeEvidence | None
    """Of the whole; None without items."""


def read_pipeline(path: Path) -> PipelineFile:
    """Return what a TOML file says. Raises ConfigError."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), PipelineFile)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"{path}: {error}", required="a pipeline as docs/reference/bundle-format shows it", next_step="correct it"
        ) from error


def join(
    path: Path,
    output: Path,
    *,
    label: Label,
    signer: Signer,
    model_signer: Signer | None = None,
    trusted: Iterable[Key] = (),
) -> Joined:
    """Seal the pipeline in a TOML file as the bundle `output`.

    Every stage's bundle must be sealed by the key that signs, or by one of the trusted ones. Raises EdgewiseError; then
    nothing is written.
    """
    asked = read_pipeline(path)
    check_budget(asked.budget, has_data=asked.data is not None)
    keys = (signer.public_key, *trusted)
    with tempfile.TemporaryDirectory(prefix="edgewise-join-") as work:
        folder = Path(work)
        files: dict[str, Source] = {}
        stages: list[ModelStage] = []
        manifests: dict[str, Manifest] = {}
        for name, section in asked.stages.items():
            _check_name(name)
            with Bundle.open(path.parent / section.bundle) as bundle:
                bundle.verify(keys)
                manifests[name] = bundle.manifest
                bundle.extract(folder / name)
                files |= {f"{name}/{each}": folder / name / each for each in bundle.entries}
                stages.append(_stage(name, section, bundle.manifest_bytes))
        description = _description(asked, tuple(stages), manifests)
        inputs, outputs = ports_of(description, manifests)
        golden = golden_of(description, manifests, folder)
        files |= golden.files
        evidence = None
        if asked.data is not None:
            evidence = measure(
                asked.data, path.parent, description, manifests, inputs=inputs, budget=asked.budget, stages=folder
            )
            files[EVIDENCE] = msgspec.json.format(msgspec.json.encode(evidence))
        manifest = PipelineManifest(
            product=label.product,
            version=label.version,
            security_floor=label.security_floor,
            sealed_with=f"edgewise {__version__}",
            pipeline=description,
            inputs=inputs,
            outputs=outputs,
            budget=asked.budget,
            golden=golden.inputs,
            golden_outputs=golden.outputs,
            model_signature_key=None if model_signer is None else key_digest(model_signer.public_key),
            files=tuple(sealed_file(name, source) for name, source in sorted(files.items())),
        )
        files |= {BOM: bom(manifest, manifests), CARD: card(manifest, manifests, evidence)}
        listed = tuple(sealed_file(name, source) for name, source in sorted(files.items()))
        manifest = msgspec.structs.replace(manifest, files=listed)
        files[MANIFEST] = encoded = encode_manifest(manifest)
        if model_signer is not None:
            digests = {each.path: each.digest for each in listed} | {MANIFEST: hashlib.sha256(encoded).hexdigest()}
            name = f"{label.product}-{label.version}"
            files[MODEL_SIGNATURE] = make_model_signature(model_signer, name=name, digests=digests)
        check_pipeline(manifest, manifests, {name: sealed_file(name, source).size for name, source in files.items()})
        digest = write_bundle(output, files, signer=signer)
    return Joined(manifest=manifest, digest=digest, unreached=golden.unreached, evidence=evidence)


def _check_name(name: str) -> None:
    if STAGE_NAME.fullmatch(name) is None or name in RESERVED:
        raise ConfigError(
            f"a stage {name[:80]!r}",
            required=f"at most 32 of a-z, 0-9, '_' and '-', a letter first, and not {', '.join(sorted(RESERVED))}",
            next_step="rename it",
        )


def _stage(name: str, section: StageSection, manifest: bytes) -> ModelStage:
    return ModelStage(
        name=name,
        bundle=hashlib.sha256(manifest).hexdigest(),
        variant=section.variant,
        inputs=section.inputs,
        state=tuple(section.state.items()),
        when=section.when,
        mailbox=section.mailbox,
        gap=section.gap,
        place=section.place,
    )


def _description(asked: PipelineFile, stages: tuple[ModelStage, ...], manifests: Mapping[str, Manifest]) -> Description:
    """Return what was asked for. Raises ConfigError where it contradicts itself or the models."""
    if not stages:
        raise ConfigError("the pipeline has no stages", required="a section [stages.NAME] for each")
    last = stages[-1].name
    outputs = asked.outputs or tuple(f"{last}.{each.name}" for each in manifests[last].outputs)
    description = Description(stages=stages, outputs=outputs, deadline_ms=asked.deadline_ms)
    problems = list(description.problems())
    for each in stages:
        its = manifests[each.name]
        taken, given = {port.name for port in its.inputs}, {*each.inputs, *(source for source, _ in each.state)}
        if taken != given:
            problems.append(f"{each.name} is given {', '.join(sorted(given))}; required: {', '.join(sorted(taken))}")
        if each.variant is not None and each.variant not in [variant.name for variant in its.variants]:
            problems.append(f"{each.name} has no variant {each.variant!r}")
    if problems:
        raise ConfigError(
            f"the pipeline does not fit: {problems[0]}", required="stages that fit together", next_step="correct it"
        )
    return description
