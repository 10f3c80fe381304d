"""Seal a run: gather what a device and a reviewer need, describe it in the manifest, sign it."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from securesystemslib.signer import Signer

from edgewise import __version__
from edgewise.bundle.model_signature import key_digest, make_model_signature
from edgewise.bundle.names import BOM, CARD, EVIDENCE, MANIFEST, MODEL_SIGNATURE, VERIFICATION
from edgewise.bundle.rules import check_manifest
from edgewise.bundle.tensors import read_tensor
from edgewise.bundle.write import Source, encode_manifest, sealed_file, write_bundle
from edgewise.contracts.budget import judge
from edgewise.contracts.manifest import (
    GoldenOutputs,
    Manifest,
    Port,
    Postprocessing,
    Preprocessing,
    Variant,
)
from edgewise.contracts.recipe import Format, Recipe
from edgewise.contracts.target import RuntimeName
from edgewise.contracts.task import TaskConfig, TaskKind
from edgewise.contracts.verification import VariantCalibration
from edgewise.errors import DataError
from edgewise.forge.data.files import FileDataset
from edgewise.forge.data.labels import Labelled, has_integer_labels
from edgewise.forge.data.open import CALIBRATE, TEST, open_split
from edgewise.forge.progress import Progress, Silent
from edgewise.forge.seal.bom import bom
from edgewise.forge.seal.card import card
from edgewise.forge.seal.drift import references
from edgewise.forge.seal.examine import Examiner
from edgewise.forge.seal.golden import choose_inputs, golden_inputs, golden_outputs, tells_apart
from edgewise.forge.seal.sources import FP32, Sources, SourceVariant, open_run
from edgewise.forge.seal.weights import GRAPH, WEIGHTS, part, write_parts
from edgewise.forge.tasks.base import Feeds, Task
from edgewise.forge.tasks.choose import choose_task
from edgewise.forge.tasks.user import is_user_task
from edgewise.forge.verify.given import Given
from edgewise.forge.verify.open import calibration_pool
from edgewise.forge.verify.verdict import concluded
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Session, TensorSpec

TOKENIZER = "pre/tokenizer.json"


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is called, and which versions it puts an end to."""

    product: str
    version: str
    security_floor: str = "0.0.0"


def seal(
    folder: Path,
    output: Path,
    *,
    label: Label,
    signer: Signer,
    model_signer: Signer | None = None,
    wanted: tuple[str, ...] | None = None,
    fallback: bool = True,
    progress: Progress | None = None,
) -> tuple[Manifest, str]:
    """Seal the run in `folder` as the bundle `output`; return its manifest and its SHA-256 (hex).

    `model_signer` makes `model.sig`; without it there is none. `wanted` names variants beside the chosen one and fp32;
    without it they are those of `sources.alternatives`. Without `fallback` fp32 is left out.
    Raises EdgewiseError; then nothing is written.
    """
    told = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="edgewise-seal-") as work:
        told.start("read the run", None)
        sources = open_run(folder, work=Path(work), wanted=wanted, fallback=fallback)
        manifest, files = _gather(sources, label, work=Path(work), progress=told)
        if model_signer is not None:
            manifest = msgspec.structs.replace(manifest, model_signature_key=key_digest(model_signer.public_key))
        encoded = encode_manifest(manifest)
        files[MANIFEST] = encoded
        if model_signer is not None:
            digests = {each.path: each.digest for each in manifest.files} | {MANIFEST: _sha256(encoded)}
            name = f"{label.product}-{label.version}"
            files[MODEL_SIGNATURE] = make_model_signature(model_signer, name=name, digests=digests)
        check_manifest(manifest, {path: sealed_file(path, source).size for path, source in files.items()})
        told.start("write the bundle", None)
        return manifest, write_bundle(output, files, signer=signer)


def _gather(sources: Sources, label: Label, *, work: Path, progress: Progress) -> tuple[Manifest, dict[str, Source]]:
    """Return the manifest and every file but itself and the model signature."""
    given, run = sources.given, sources.run
    reference = runtime(given.runtime).load(sources.reference.file, threads=given.threads)
    split, origin = _split(given, reference)
    feeds = choose_inputs(split)
    golden, inputs_file = golden_inputs(feeds, [each.name for each in reference.inputs], split=origin)
    files: dict[str, Source] = {golden.path: inputs_file, EVIDENCE: msgspec.json.encode(run)}
    if sources.verification is not None:
        files[VERIFICATION] = msgspec.json.encode(sources.verification)
    task = choose_task(
        given.task.kind,
        config=given.task,
        outputs=reference.outputs,
        inputs=reference.inputs,
        has_labels=split.targets is not None,
        folder=given.base,
        integer_labels=has_integer_labels(split),
    )
    examiner = None
    if origin == TEST:
        calibrate, _ = calibration_pool(given, reference.inputs, task)
        examiner = Examiner(
            task=task,
            test=split,
            calibrate=calibrate,
            reference_path=sources.reference.file,
            reference=reference,
            runtime=runtime(given.runtime),
            threads=given.threads,
            seed=given.seed,
            progress=progress,
        )
    variants: list[Variant] = []
    for each in sources.variants:
        progress.start(f"golden outputs of {each.name}", None)
        name = unique_slug(each.name, [other.name for other in variants])
        variant, parts = _variant(
            each,
            sources,
            name=name,
            feeds=feeds,
            split=split,
            examiner=examiner,
            task=task,
            work=work,
        )
        variants.append(variant)
        files |= parts
    preprocessing = _preprocessing(given, split, files)
    stated = tuple(variants)
    listed = tuple(sealed_file(path, source) for path, source in sorted(files.items()))
    files[BOM] = bom(product=label.product, version=label.version, run=run, variants=stated, files=listed)
    files[CARD] = card(
        product=label.product, version=label.version, run=run, variants=stated, verification=sources.verification
    )
    manifest = Manifest(
        product=label.product,
        version=label.version,
        security_floor=label.security_floor,
        sealed_with=f"edgewise {__version__}",
        task=run.task,
        metric=run.metric,
        target=run.target,
        model_digest=run.model_digest,
        inputs=_ports(reference.inputs),
        outputs=_ports(reference.outputs),
        preprocessing=preprocessing,
        postprocessing=Postprocessing(
            kind=run.task, detection=given.task.detection if run.task == TaskKind.DETECTION else None
        ),
        budget=run.budget.limits,
        chosen=stated[0].name,
        fallback=stated[-1].name if sources.variants[-1] is sources.reference else stated[0].name,
        variants=stated,
        golden=golden,
        files=tuple(sealed_file(path, source) for path, source in sorted(files.items())),
    )
    return manifest, files


def _variant(
    each: SourceVariant,
    sources: Sources,
    *,
    name: str,
    feeds: Sequence[Feeds],
    split: Labelled,
    examiner: Examiner | None,
    task: Task,
    work: Path,
) -> tuple[Variant, dict[str, Source]]:
    """Return one variant and its files."""
    given, run = sources.given, sources.run
    execute = runtime(given.runtime)
    folder = f"variants/{name}"
    parted = part(each.file)
    graph = write_parts(parted, work / folder)
    outputs, outputs_file = golden_outputs(
        graph, feeds, path=f"{folder}/golden.bin", runtime=execute, threads=given.threads, source=each.file
    )
    _check_tells_apart(outputs, outputs_file, name=each.name)
    files: dict[str, Source] = {f"{folder}/{GRAPH}": parted.graph, outputs.path: outputs_file}
    if parted.weights:
        files[f"{folder}/{WEIGHTS}"] = parted.weights
    session = execute.load(graph, threads=given.threads)
    reference = execute.load(sources.reference.file, threads=given.threads)
    is_last = given.task.image.layout != "nchw" and isinstance(split, FileDataset)
    drift = references(task, session, reference, split, last=is_last, seed=given.seed)
    is_chosen = each is sources.variants[0]
    verified = sources.verification if is_chosen else None
    figures, calibration = each.figures, VariantCalibration()
    if verified is not None:
        calibration = verified.calibration
    elif examiner is not None:
        found, calibration = examiner.examine(graph, figures)
        # Those of the chosen one, and of fp32 on the run's first runtime, are of the whole test split already.
        is_first = each is sources.reference and figures.runtime == run.reference.runtime
        figures = figures if is_chosen or is_first else found
    verdicts = judge(run.budget.limits, figures, run.reference)
    recipe = msgspec.json.encode(each.recipe, order="deterministic")
    variant = Variant(
        name=name,
        runtime=RuntimeName(given.runtime),
        precision=precision(each.recipe),
        device_class=run.target,
        threads=given.threads,
        model=f"{folder}/{GRAPH}",
        weights=f"{folder}/{WEIGHTS}" if parted.weights else None,
        tensors=parted.tensors,
        source_digest=each.digest,
        recipe=each.recipe,
        recipe_digest=_sha256(recipe),
        figures=figures,
        verdicts=verdicts,
        verdict=concluded(verdicts, ()),
        verification=verified.verdict if verified is not None else None,
        calibration=calibration,
        golden=outputs,
        drift=drift,
    )
    return variant, files


def _split(given: Given, reference: Session) -> tuple[Labelled, str]:
    """Return the samples that golden inputs are drawn from: the test split, else the calibration pool."""
    for name in (TEST, CALIBRATE):
        found = open_split(name, config=given.task, inputs=reference.inputs, folder=given.base)
        if found is not None and len(found):
            return found, name
    raise DataError(
        "the run's data is gone: neither a test nor a calibrate split is there",
        required="the data that the run was made with, for golden inputs",
        next_step=f"put it back below {given.base}",
    )


def _preprocessing(given: Given, split: Labelled, files: dict[str, Source]) -> Preprocessing:
    """Return how a sample became inputs in this run, and put a tokenizer among the files."""
    config: TaskConfig = given.task
    if config.kind is not None and is_user_task(config.kind):
        return Preprocessing(code=config.kind.rpartition("/")[2])
    if isinstance(split, FileDataset):
        return Preprocessing(image=config.image) if split.are_images else Preprocessing(audio=config.audio)
    if config.text.tokenizer is None:
        return Preprocessing()
    files[TOKENIZER] = given.base / config.text.tokenizer
    return Preprocessing(text=msgspec.structs.replace(config.text, tokenizer=TOKENIZER))


def _check_tells_apart(outputs: GoldenOutputs, data: bytes, *, name: str) -> None:
    arrays = [tuple(read_tensor(data, each.tensor) for each in sample) for sample in outputs.samples]
    tolerances = [each.tolerance for each in outputs.samples[0]]
    if len(arrays) > 1 and not tells_apart(arrays, tolerances):
        raise DataError(
            f"the golden inputs cannot tell a right device from a wrong one: {name} gives the same for all of them",
            required="samples with different outputs in the test split",
            next_step="look at the data of the run: it may hold one sample many times",
        )


def _ports(specs: Sequence[TensorSpec]) -> tuple[Port, ...]:
    return tuple(Port(name=each.name, dtype=each.dtype, shape=each.shape) for each in specs)


def precision(recipe: Recipe) -> str:
    """Return the format most regions have, with `mixed:` before it where some have another.

    >>> precision(Recipe(name="fp32", regions=()))
    'fp32'
    """
    counts = Counter(each.format for each in recipe.regions if each.format is not Format.FP32)
    if not counts:
        return FP32
    most = counts.most_common(1)[0][0]
    return str(most) if len(counts) == 1 else f"mixed:{most}"


def slug(name: str) -> str:
    """Return a name that a path may have.

    >>> slug("Placed 1 / GPTQ")
    'placed-1-gptq'
    """
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")[:64] or "variant"


def unique_slug(name: str, taken: Sequence[str]) -> str:
    """Return a slug that no other variant of the bundle has.

    >>> unique_slug("Placed 1", ["placed-1"])
    'placed-1-2'
    """
    short = slug(name)
    return next(each for each in (short, *(f"{short[:60]}-{count}" for count in range(2, 100))) if each not in taken)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
