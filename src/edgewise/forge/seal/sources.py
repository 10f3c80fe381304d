"""What a run offers for sealing: its documents, its chosen variant and the fp32 model, each checked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from edgewise.contracts.evidence import Figures
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.run import Run
from edgewise.contracts.verification import Verification
from edgewise.errors import ConfigError, ModelError
from edgewise.forge.importing.sandbox import check_variant, import_model
from edgewise.forge.verify.baseline import DOCUMENT, FOLDER, read_baseline
from edgewise.forge.verify.given import EVIDENCE, Given, given_by_run

FP32 = "fp32"


class SourceVariant(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the run in one file, with its figures."""

    name: str
    file: Path
    digest: str
    recipe: Recipe
    figures: Figures


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The run, without the paths of the machine it was made on; `variants[0]` is the chosen one, the last is fp32."""

    run: Run
    given: Given
    variants: tuple[SourceVariant, ...]
    verification: Verification | None


def open_run(folder: Path, *, work: Path) -> Sources:
    """Read everything of a run that is sealed; what is written on the way goes to `work`. Raises InputError."""
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
        figures=Figures(**{name: getattr(run.chosen, name) for name in Figures.__struct_fields__} | {"path": None}),
    )
    fp32 = SourceVariant(
        name=FP32,
        file=imported.original,
        digest=_digest(imported.original),
        recipe=Recipe(name=FP32, regions=()),
        figures=msgspec.structs.replace(run.reference, path=None),
    )
    return Sources(
        run=_without_paths(run),
        given=given,
        variants=(fp32,) if chosen.name == FP32 else (chosen, fp32),
        verification=_verification(folder, chosen),
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
