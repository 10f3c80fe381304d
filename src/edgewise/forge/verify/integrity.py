"""Whether a variant is what it says it is: fp32's weights rounded, in fp32's graph, and nothing else.

Rounding alone can carry a backdoor: each weight goes up or down within its own step, as rounding may. So without
its recipe a variant's rounding cannot be proved innocent, and that is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from edgewise.contracts.verification import Finding, Grade, Section, Table
from edgewise.errors import EdgewiseError
from edgewise.forge.graph import Graph
from edgewise.forge.progress import Progress
from edgewise.forge.verify.explain import Explained, How
from edgewise.forge.verify.match import Match, forms, load, match
from edgewise.forge.verify.rebuild import Rebuilt, rebuild
from edgewise.forge.verify.strangers import strange_constants, strange_nodes
from edgewise.forge.verify.subject import Subject
from edgewise.forge.verify.weights import bearers
from edgewise.forge.verify.where import explained
from edgewise.forge.verify.where_findings import words

SUITE = "integrity"
_TITLE = "Integrity"
# Where so large a part of the layers is not fp32's, it was retrained or rescaled, not tampered with.
_WHOLESALE = 0.5
_SHOWN = 8
_BUILD_AGAIN = "do not ship this file; build it again from its recipe"


def integrity(subject: Subject, progress: Progress) -> Section:
    """Trace every weight and node of the variant back to fp32."""
    started = time.monotonic()
    progress.start("trace the variant's weights back to fp32", None)
    try:
        found = match(subject.reference_path, subject.normalised_path, load(subject.variant_path))
        weights = explained(found, subject.kept)
        recipe = tuple(_recipe(subject, found.variant, weights))
        graph = tuple(_graph(subject, found))
    except EdgewiseError as error:
        finding = Finding(name="integrity.weights", grade=Grade.UNAVAILABLE, detail=str(error.found))
        return Section(suite=SUITE, title=_TITLE, findings=(finding,))
    return Section(
        suite=SUITE,
        title=_TITLE,
        findings=(*_weights(found, weights), *recipe, *graph),
        tables=(_table(weights),),
        seconds=round(time.monotonic() - started, 3),
    )


def _weights(found: Match, weights: dict[str, Explained]) -> Iterator[Finding]:
    changed = {name: each for name, each in weights.items() if each.changes}
    if found.rescaled:
        yield Finding(
            name="integrity.rescaled",
            grade=Grade.NOTED,
            detail=f"channels are rescaled between layers in {found.rescaled} places, as equalisation does it: what is "
            "divided where it is written is multiplied where it is read. Weights and values are compared with fp32 "
            "rescaled alike, which computes the same",
            value=found.rescaled,
        )
    missing = len(bearers(found.reference)) - len(weights)
    wholesale = len(weights) > 1 and len(_unlike(weights)) > _WHOLESALE * len(weights)
    if wholesale:
        yield Finding(
            name="integrity.weights",
            grade=Grade.UNKNOWN,
            detail=f"{len(_unlike(weights))} of {len(weights)} layers are not this reference's weights, rounded: "
            "the variant was retrained or rescaled, or made from another model",
            advice="verify against the fp32 model that was quantized",
        )
    else:
        for name, each in changed.items():
            yield Finding(
                name="integrity.weights",
                grade=Grade.FAIL,
                subject=name,
                detail=words(each),
                value=sum(change.beyond for change in each.changes),
                unit="weights",
                advice="find out what changed them; quantize again from fp32",
            )
    if missing:
        yield Finding(
            name="integrity.untraced",
            grade=Grade.UNKNOWN if not weights else Grade.NOTED,
            detail=f"{missing} of {missing + len(weights)} layers with weights could not be traced back to fp32",
            value=missing,
        )
    if weights and not changed:
        beyond = sum(each.beyond_step * each.elements for each in weights.values())
        total = sum(each.elements for each in weights.values())
        said = f"; {beyond / total:.3%} lie more than one step away, as error feedback leaves them" if beyond else ""
        yield Finding(
            name="integrity.weights",
            grade=Grade.PASS,
            detail=f"every weight of {len(weights)} layers is explained by its fp32 weight{said}",
            value=beyond / total,
            unit="%",
        )


def _unlike(weights: dict[str, Explained]) -> list[str]:
    """Return the layers of whose channels most are not fp32's."""
    return [name for name, each in weights.items() if 2 * len(each.changes) > each.rows]


def _recipe(subject: Subject, variant: Graph, weights: dict[str, Explained]) -> Iterator[Finding]:
    """Yield whether the file is what its recipe makes, as far as that can be said."""
    recipe = subject.recipe if subject.recipe is not None and subject.recipe.regions else None
    if recipe is None and weights and all(each.how is How.SAME and not each.changes for each in weights.values()):
        yield Finding(
            name="integrity.recipe", grade=Grade.PASS, detail="no weight is rounded: there is nothing that could hide"
        )
        return
    rescaled = recipe is not None and recipe.equalise and not subject.equalised
    rebuilt = None
    if recipe is not None and not rescaled:
        rebuilt = rebuild(load(subject.normalised_path), variant, recipe, subject.kept)
    if rebuilt is None:
        why = "it has no recipe" if recipe is None else "its recipe rescales weights by calibration data"
        yield _unshown(f"{why}: that single weights were not rounded with intent (a rounding-only backdoor)")
        return
    yield from _differences(rebuilt)
    if rebuilt.learned:
        yield _unshown(
            f"the rounding or bias of {rebuilt.learned} layers was chosen on calibration data and is taken as found: "
            "that it was not chosen with intent"
        )


def _differences(rebuilt: Rebuilt) -> Iterator[Finding]:
    for each in rebuilt.differences[:_SHOWN]:
        where = "".join(f"[{axis}]" for axis in each.index)
        yield Finding(
            name="integrity.recipe",
            grade=Grade.FAIL,
            subject=each.name,
            detail=f"{each.name}{where} is {each.found:.9g}, the recipe makes {each.expected:.9g}; "
            f"{each.count} elements differ"
            if each.count and each.found is not None and each.expected is not None
            else "the recipe makes no such node or constant, or another one",
            value=each.count,
            unit="elements",
            advice=_BUILD_AGAIN,
        )
    if rebuilt.differences:
        return
    if not rebuilt.is_same_file and not rebuilt.grids:
        yield Finding(
            name="integrity.recipe",
            grade=Grade.FAIL,
            detail="all constants and nodes are those that the recipe makes, and something else in the file is not: "
            "its inputs, outputs, shapes, versions or notes",
            advice=_BUILD_AGAIN,
        )
        return
    how = (
        f"{rebuilt.grids} activation grids are taken as found"
        if rebuilt.grids
        else "ranges, rounding and biases are those that the run kept of its calibration"
    )
    whole = "the whole file is the same" if rebuilt.is_same_file else "all nodes are the same"
    yield Finding(
        name="integrity.recipe",
        grade=Grade.PASS,
        detail=f"built again from its recipe, {rebuilt.constants} constants and {whole}, bit for bit; {how}",
        value=rebuilt.constants,
    )


def _unshown(why: str) -> Finding:
    return Finding(name="integrity.rounding", grade=Grade.NOTED, detail=f"{why} cannot be shown")


def _graph(subject: Subject, found: Match) -> Iterator[Finding]:
    references = forms(subject.reference_path, subject.normalised_path)
    strange = strange_nodes(references, found.variant)
    for op, names, foreign in strange:
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        yield Finding(
            name="integrity.graph",
            grade=Grade.FAIL if foreign else Grade.FLAG,
            subject=op,
            detail=f"{len(names)} {op} more than in fp32, and quantization does not need them: {shown}"
            if not foreign
            else f"operators of an unknown origin: {shown}",
            value=len(names),
            advice="find out what they compute before this variant runs anywhere",
        )
    constants = strange_constants(references, found)
    for name in constants[:_SHOWN]:
        yield Finding(
            name="integrity.constants",
            grade=Grade.FLAG,
            subject=name,
            detail="a constant that fp32 does not have, nor quantization needs"
            + (f"; {len(constants)} such in all" if len(constants) > _SHOWN else ""),
            advice="find out where it comes from",
        )
    if not strange and not constants:
        yield Finding(
            name="integrity.graph",
            grade=Grade.PASS,
            detail="every node and constant is fp32's or belongs to quantization",
        )


def _table(weights: dict[str, Explained]) -> Table:
    return Table(
        title="Where each layer's weights come from",
        columns=("layer", "weights", "how", "beyond one step", "channels changed"),
        rows=tuple(
            (name, each.elements, str(each.how), round(each.beyond_step, 5), len(each.changes))
            for name, each in weights.items()
        ),
    )
