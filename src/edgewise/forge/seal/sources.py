"""What a run offers for sealing: its documents, the variants that it kept and the fp32 model, each checked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from edgewise.contracts.budget import Verdict, judge
from edgewise.contracts.evidence import Candidate, Figures, Status, name_on
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.run import Chosen, Run
from edgewise.contracts.verification import Verification
from edgewise.errors import ConfigError, ModelError
from edgewise.forge.importing.sandbox import check_variant, import_model
from edgewise.forge.verify.baseline import DOCUMENT, FOLDER, read_baseline
from edgewise.forge.verify.given import EVIDENCE, VARIANTS, Given, given_by_run

FP32 = "fp32"
_BY = 0.04
"""A variant is faster or smaller than another one from this share on; less is the clock's noise."""


class SourceVariant(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the run in one file, with its figures."""

    name: str
    file: Path
    digest: str
    recipe: Recipe
    figures: Figures


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The run, without the paths of the machine it was made on; `variants[0]` is the chosen one."""

    run: Run
    given: Given
    variants: tuple[SourceVariant, ...]
    reference: SourceVariant
    """fp32, which is the last of the variants unless it was left out."""
    verification: Verification | None


def open_run(folder: Path, *, work: Path, wanted: tuple[str, ...] | None = None, fallback: bool = True) -> Sources:
    """Read everything of a run that is sealed; what is written on the way goes to `work`. Raises InputError.

    `wanted` names the variants beside the chosen one and fp32; None takes those of `alternatives`.
    """
    given = given_by_run(folder)
    run = msgspec.json.decode((folder / EVIDENCE).read_bytes(), type=Run)  # `given_by_run` has read it before
    if run.chosen is None:
        raise AssertionError("given_by_run refuses a run without a chosen variant")
    file = check_variant(given.variant, work=work / "chosen")
    imported = import_model(given.reference.path, base=given.base, inputs=given.reference.inputs, work=work / FP32)
    if imported.digest != run.model_digest:
        raise ModelError(
            f"the model {given.reference.path} is not the one that the run was made from",
            required=f"the model with the digest {run.model_digest[:16]}...",
            next_step="put that model back, or run `edgewise optimize` again",
        )
    chosen = SourceVariant(
        name=run.chosen.name,
        file=file,
        digest=_digest(file),
        recipe=run.chosen.recipe,
        figures=_figures(run.chosen),
    )
    fp32 = SourceVariant(
        name=FP32,
        file=imported.original,
        digest=_digest(imported.original),
        recipe=Recipe(name=FP32, regions=()),
        figures=_figures(_fp32_on(run, run.chosen)),
    )
    is_fp32 = chosen.name in _own_names(run.chosen)
    others = alternatives(run) if wanted is None else _named(run, wanted)
    beside = [_kept(folder, each, work=work) for each in others]
    return Sources(
        run=_without_paths(run),
        given=given,
        variants=(
            fp32 if is_fp32 else chosen,
            *beside,
            *([fp32] if fallback and not is_fp32 else []),
        ),
        reference=fp32,
        verification=_verification(folder, chosen),
    )


def alternatives(run: Run) -> tuple[Candidate, ...]:
    """Return what a device may switch to when it gets hot or late: at most two of the variants that a run kept.

    They are the fastest and the smallest of those that are measured faster or smaller than the chosen one, and whose
    accuracy breaks no limit of the budget.
    """
    chosen = run.chosen
    if chosen is None:
        return ()
    fit = [each for each in _offered(run) if _is_accurate(each, run)]
    found: list[Candidate] = []
    faster = [each for each in fit if (each.speedup or 0.0) > (chosen.speedup or 1.0) * (1 + _BY)]
    if faster:
        found.append(max(faster, key=lambda each: each.speedup or 0.0))
    least = min((each.size_mib for each in (chosen, *found) if each.size_mib is not None), default=None)
    if least is not None:
        smaller = [(each.size_mib, each) for each in fit if each.size_mib is not None]
        smaller = [row for row in smaller if row[0] < least * (1 - _BY)]
        found += [min(smaller, key=lambda row: (row[0], row[1].name))[1]] if smaller else []
    return tuple(found)


def _offered(run: Run) -> list[Candidate]:
    """Return the measured candidates whose files the run kept, without the chosen one and fp32.

    Only those of the chosen one's runtime: a device has one, and switches between variants while it runs.
    """
    chosen = run.chosen
    if chosen is None:
        return []
    return [
        each
        for each in run.candidates
        if each.status is Status.MEASURED
        and each.path is not None
        and each.runtime == chosen.runtime
        and each.name not in {chosen.name, *_own_names(chosen)}
    ]


def _own_names(chosen: Chosen) -> tuple[str, str]:
    """Return what the user's own model is called, on the first runtime and on that of the chosen variant."""
    return FP32, name_on(FP32, chosen.runtime)


def _fp32_on(run: Run, chosen: Chosen) -> Figures:
    """Return fp32's figures on the runtime that is sealed, which need not be the run's first."""
    if chosen.runtime == run.reference.runtime:
        return run.reference
    name = name_on(FP32, chosen.runtime)
    if chosen.name == name:
        return chosen
    return next((each for each in run.candidates if each.name == name), Figures(path=None, runtime=chosen.runtime))


def _figures(known: Figures) -> Figures:
    """Return the figures alone, without the path of the machine they were taken on."""
    return Figures(**{name: getattr(known, name) for name in Figures.__struct_fields__} | {"path": None})


def _is_accurate(candidate: Candidate, run: Run) -> bool:
    """Return whether a candidate holds the limits on accuracy, on the split that it was judged on."""
    fp32 = next((each for each in run.candidates if each.name == FP32), run.reference)
    accuracy = msgspec.structs.replace(
        run.budget.limits, latency_p50_ms=None, latency_p99_ms=None, peak_memory_mib=None, size_mib=None, energy_mj=None
    )
    return all(each.verdict is not Verdict.FAIL for each in judge(accuracy, candidate, fp32))


def _named(run: Run, wanted: tuple[str, ...]) -> tuple[Candidate, ...]:
    """Return the variants of these names, each once; the chosen one and fp32 are there anyway."""
    offered = {each.name: each for each in _offered(run)}
    given = {FP32, *([run.chosen.name] if run.chosen is not None else [])}
    for name in wanted:
        if name not in offered and name not in given:
            raise ConfigError(
                f"the run holds no file of a variant {name!r}",
                required=f"one of {', '.join(offered)}" if offered else "none: it kept no other than the chosen one",
                next_step="run `edgewise optimize` again to keep its front" if not offered else "name one of these",
            )
    return tuple(offered[name] for name in dict.fromkeys(wanted) if name in offered)


def _kept(folder: Path, candidate: Candidate, *, work: Path) -> SourceVariant:
    """Return a variant of the run's own folder, checked."""
    file = folder / VARIANTS / Path(candidate.path or "").name
    if not file.is_file():
        raise ModelError(
            f"{folder}: the variant {candidate.name} is not in {VARIANTS}/ any more",
            required="the whole folder of a run",
            next_step="run `edgewise optimize` again, or name other variants with --variant",
        )
    checked = check_variant(file, work=work / file.stem)
    return SourceVariant(
        name=candidate.name,
        file=checked,
        digest=_digest(checked),
        recipe=candidate.recipe,
        figures=_figures(candidate),
    )


def _verification(folder: Path, chosen: SourceVariant) -> Verification | None:
    """Return the run's verification, None without one; raises ConfigError where it is about another variant."""
    if not any((folder / each).is_file() for each in (DOCUMENT, Path(FOLDER) / DOCUMENT)):
        return None
    found = read_baseline(folder)
    if found.variant_digest != chosen.digest:
        raise ConfigError(
            f"the verification of {folder} is about another variant than the one that the run chose",
            required=f"a verification of {chosen.name}",
            next_step=f"edgewise verify {folder}",
        )
    named: dict[str, Any] = {"variant": chosen.name, "reference": FP32}
    for key in ("figures", "reference_figures"):
        named[key] = msgspec.structs.replace(getattr(found, key), path=None)
    return msgspec.structs.replace(found, **named)


def _without_paths(run: Run) -> Run:
    """Return a run that does not say where it was made."""
    clear = msgspec.structs.replace
    return clear(
        run,
        model=Path(run.model).name,
        reference=clear(run.reference, path=None),
        chosen=clear(run.chosen, path=None) if run.chosen is not None else None,
        candidates=tuple(clear(each, path=None) for each in run.candidates),
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
