"""From what the user gave to a `Subject`: everything is read and checked, and both models are run once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgewise.contracts.target import RuntimeName
from edgewise.contracts.verification import Depth
from edgewise.errors import ConfigError, DataError, EdgewiseError, ExecutionError, ModelError
from edgewise.forge.data.labels import Labelled, check_labels, has_integer_labels
from edgewise.forge.data.open import CALIBRATE, TEST, open_split
from edgewise.forge.data.split import Subset
from edgewise.forge.importing.sandbox import check_variant, import_model
from edgewise.forge.kept import Kept, read_kept
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.choose import choose_task
from edgewise.forge.tasks.classification import Classification
from edgewise.forge.tasks.embedding import Pair
from edgewise.forge.verify.bounds import affordable, processor_seconds
from edgewise.forge.verify.given import Given
from edgewise.forge.verify.groups import read_groups
from edgewise.forge.verify.pairs import pair
from edgewise.forge.verify.subject import Subject
from edgewise.numerics.distance import SqnrAccumulator
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Session, TensorSpec

QUICK_SAMPLES = 2048
"""So many test samples, seeded, are enough for a quick look; `full` takes all."""
# So close in so many samples is what scaling leaves, also beneath a Clip that cuts an outlier; int8 is far from it.
_ALIKE_DB, _ALIKE_SAMPLES = 35.0, 16
_SECONDS = {Depth.QUICK: 6.0, Depth.FULL: 120.0}
_PAIR_SECONDS = {Depth.QUICK: 12.0, Depth.FULL: 240.0}
"""For both models over the test split, and the fewest samples where a model is too slow for that."""
_FEWEST = 64


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """How the user wants it looked at."""

    depth: Depth = Depth.QUICK
    seed: int = 0
    groups: Path | None = None
    fps: float | None = None
    minutes: float | None = None


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The subject, and what the document says of where it came from."""

    subject: Subject
    variant_digest: str
    reference_digest: str
    warnings: tuple[str, ...]


def open_subject(given: Given, asked: Asked, *, work: Path, progress: Progress) -> Opened:
    """Read and check everything, and run both models over the test split. Raises InputError.

    Both files are parsed in the sandbox first; `work` receives what is written on the way.
    """
    kept_of_run = _kept(given)
    progress.start("import the reference", None)
    imported = import_model(given.reference.path, base=given.base, inputs=given.reference.inputs, work=work)
    progress.start("check the variant", None)
    checked = check_variant(given.variant, work=work)
    execute = runtime(RuntimeName(given.runtime))
    reference = execute.load(imported.original, threads=given.threads)
    variant = _loaded(given, checked)
    _check_alike(reference, variant, name=given.variant.name)
    test = open_split(TEST, config=given.task, inputs=reference.inputs, folder=given.base)
    if test is None:
        raise DataError(
            "no test split is given",
            required="a labelled test split: test.npz in the data folder, or [task] test",
            next_step="verification is about samples that the search has not seen: add some",
        )
    task = choose_task(
        given.task.kind,
        config=given.task,
        outputs=reference.outputs,
        inputs=reference.inputs,
        has_labels=test.targets is not None,
        folder=given.base,
        integer_labels=has_integer_labels(test),
    )
    if isinstance(task, Classification) and test.targets is not None:
        check_labels(test, classes=task.classes)
    calibrate, missing = calibration_pool(given, reference.inputs, task)
    groups = None if asked.groups is None else read_groups(asked.groups, samples=len(test))
    feeds = test[0].feeds if len(test) else None
    each = 0.0 if feeds is None else processor_seconds(lambda: (reference.run(feeds), variant.run(feeds)))
    looked, kept = _looked_at(test, asked, each=each)
    progress.start("fp32 and the variant on the test split", len(looked))
    pairs = pair(task, reference, variant, looked, report=progress.advance)
    equalised = _equalised(given, reference, looked, work=work)
    subject = Subject(
        task=task,
        test=looked,
        calibrate=calibrate,
        reference_path=imported.original,
        normalised_path=imported.normalised if equalised is None else equalised,
        variant_path=checked,
        reference=reference,
        variant=variant,
        runtime=execute,
        threads=given.threads,
        pairs=pairs,
        recipe=given.recipe,
        kept=kept_of_run,
        equalised=equalised is not None,
        groups=None if groups is None else tuple(groups[at] for at in kept),
        budget=given.budget,
        depth=asked.depth,
        seed=asked.seed,
        seconds=_SECONDS[asked.depth],
        fps=asked.fps,
        minutes=asked.minutes,
    )
    return Opened(
        subject=subject,
        variant_digest=_digest(checked),
        reference_digest=imported.digest,
        warnings=_warnings(given, imported.digest, task, test, looked, missing),
    )


def _loaded(given: Given, path: Path) -> Session:
    try:
        return runtime(given.runtime).load(path, threads=given.threads)
    except ExecutionError as error:
        raise ModelError(
            f"{given.variant.name}: {error.found}",
            required=f"a variant that {given.runtime} can load",
            next_step="check that it was made for this runtime",
        ) from error


def _kept(given: Given) -> Kept | None:
    """Return what the run kept; a damaged file is refused, for without it less would be shown than the run can show."""
    if given.kept is None:
        return None
    kept = read_kept(given.kept)
    if kept is None:
        raise ConfigError(
            f"{given.kept} cannot be read: it is damaged, or of another version",
            required="what the run kept of its calibration, from which its variant is built again bit for bit",
            next_step="run `edgewise optimize` into this folder again, or restore the file from where the run was made",
        )
    return kept


def _equalised(given: Given, reference: Session, test: Labelled, *, work: Path) -> Path | None:
    """Return the run's equalised model if it computes what fp32 computes, up to the order of its sums."""
    if given.equalised is None:
        return None
    try:
        path = check_variant(given.equalised, work=work / "equalised")
        session = runtime(given.runtime).load(path, threads=given.threads)
        _check_alike(session, reference, name=given.equalised.name)
        noise = SqnrAccumulator()
        for index in range(min(len(test), _ALIKE_SAMPLES)):
            feeds = test[index].feeds
            for want, have in zip(reference.run(feeds), session.run(feeds), strict=True):
                if np.issubdtype(want.dtype, np.floating):
                    noise.update(want, have)
    except EdgewiseError:
        return None
    return path if noise.db > _ALIKE_DB else None


def _check_alike(reference: Session, variant: Session, *, name: str) -> None:
    """Refuse a variant that cannot be fed like the reference, or whose outputs cannot stand beside fp32's."""
    mine, its = {each.name: each for each in variant.inputs}, {each.name: each for each in reference.inputs}
    if mine.keys() != its.keys() or not all(_fits(mine[key], its[key]) for key in its):
        raise ModelError(
            f"{name}: the inputs are {_shown(variant.inputs)}",
            required=f"{_shown(reference.inputs)}, those of the reference",
            next_step="check that the variant was made from this reference",
        )
    pairs = list(zip(variant.outputs, reference.outputs, strict=False))
    if len(variant.outputs) != len(reference.outputs) or not all(_fits(a, b) for a, b in pairs):
        raise ModelError(
            f"{name}: the outputs are {_shown(variant.outputs)}",
            required=f"{_shown(reference.outputs)}, those of the reference",
            next_step="check that the variant was made from this reference",
        )


def _fits(mine: TensorSpec, its: TensorSpec) -> bool:
    return (
        mine.dtype == its.dtype
        and len(mine.shape) == len(its.shape)
        and all(a is None or b is None or a == b for a, b in zip(mine.shape, its.shape, strict=True))
    )


def _shown(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(
        f"{each.name} {each.dtype}[{', '.join('any' if size is None else str(size) for size in each.shape)}]"
        for each in specs
    )


def calibration_pool(given: Given, inputs: tuple[TensorSpec, ...], task: Task) -> tuple[Labelled | None, str | None]:
    """Return the calibration pool, or None and why there is none."""
    try:
        pool = open_split(CALIBRATE, config=given.task, inputs=inputs, folder=given.base)
        if pool is not None and isinstance(task, Classification) and pool.targets is not None:
            check_labels(pool, classes=task.classes)
    except DataError as error:
        return None, f"no calibration data: {error.found}"
    return pool, None


def _looked_at(test: Labelled, asked: Asked, *, each: float) -> tuple[Labelled, Sequence[int]]:
    """Return the samples to look at and their numbers: all, or a seeded part where time does not allow for all.

    `each` is the processor time of both models on one sample, in seconds.
    """
    most = min(len(test), QUICK_SAMPLES) if asked.depth is Depth.QUICK else len(test)
    most = affordable(_PAIR_SECONDS[asked.depth], each, have=most, least=_FEWEST)
    return seeded_part(test, most, seed=asked.seed)


def seeded_part(test: Labelled, most: int, *, seed: int) -> tuple[Labelled, Sequence[int]]:
    """Return at most so many samples and their numbers; pairs stay together."""
    if most >= len(test):
        return test, range(len(test))
    whole = test.targets is not None and isinstance(test.targets[0], Pair)
    group = 2 if whole else 1
    order = np.random.default_rng(seed).permutation(len(test) // group)[: most // group]
    kept = [int(at) * group + offset for at in np.sort(order) for offset in range(group)]
    return Subset(test, kept), kept


def _warnings(
    given: Given, reference: str, task: Task, test: Labelled, looked: Labelled, missing: str | None
) -> tuple[str, ...]:
    changed = given.model_digest is not None and given.model_digest != reference
    return tuple(
        dict.fromkeys(
            filter(
                None,
                (
                    *given.warnings,
                    "the reference model is not the one that the run was made from" if changed else "",
                    getattr(task, "note", ""),
                    "the test split has no labels: only agreement with fp32 can be judged"
                    if test.targets is None
                    else "",
                    f"a look at {len(looked)} of {len(test)} test samples, a seeded part"
                    if len(looked) < len(test)
                    else "",
                    missing,
                    *test.warnings,
                ),
            )
        )
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
