"""Where the error of a variant comes from: region by region, measured in the variant itself.

SQNR = 10 log10(sum y^2 / sum (y - y_q)^2), y being fp32's values. What a region adds of its own is told from what
came in with its inputs (see `noise`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec
import numpy as np

from edgewise.contracts.recipe import RangeMethod
from edgewise.contracts.verification import Depth, Finding, Grade, Section
from edgewise.errors import EdgewiseError
from edgewise.forge.kept import Kept
from edgewise.forge.parameters import WeightValues
from edgewise.forge.progress import Progress
from edgewise.forge.ranges import shared_grids
from edgewise.forge.tasks.base import Dataset
from edgewise.forge.verify import where_findings as say
from edgewise.forge.verify.bounds import affordable, processor_seconds
from edgewise.forge.verify.causes import Diagnosis, diagnose
from edgewise.forge.verify.explain import Explained, explain
from edgewise.forge.verify.match import Match, load, match
from edgewise.forge.verify.noise import Noise, Observer, measure, share_extremes, widen
from edgewise.forge.verify.subject import Subject
from edgewise.forge.verify.weights import Weight, paired, read
from edgewise.forge.weights import range_methods
from edgewise.runtimes.base import Array

SUITE = "where"
# Codes times scales, computed twice, differ by less of a step.
_SAME_STEPS = 0.01

_SAMPLES = {Depth.QUICK: 32, Depth.FULL: 256}
_FURTHER = {Depth.QUICK: 256, Depth.FULL: 1024}
# Elements of all compared tensors, over all samples: what bounds the time.
_ELEMENTS = {Depth.QUICK: 1 << 28, Depth.FULL: 1 << 31}
_LEAST, _LEAST_FURTHER = 8, 96


def where(subject: Subject, progress: Progress) -> Section:
    """Compare the variant with fp32 tensor by tensor."""
    started = time.monotonic()
    progress.start("match the variant's tensors with fp32's", None)
    try:
        found = match(subject.reference_path, subject.normalised_path, load(subject.variant_path))
        if not found.points:
            return _unavailable("no tensor of the variant could be tied to one of fp32, by name")
        observer = Observer(
            found.reference, found.variant, found.points, runtime=subject.runtime, threads=subject.threads
        )
        samples = _samples(subject, observer)
        progress.start("fp32 and the variant, tensor by tensor", len(samples))
        noises = measure(observer, (subject.test[at].feeds for at in samples), report=progress.advance)
        layers = explained(found, subject.kept)
        share_extremes(noises)
        methods, shares = _methods(subject, found), _shares(subject, found)
        diagnoses = _diagnoses(noises, layers, methods, shares, subject.kept)
        suspects = [each.noise for each in diagnoses if say.suspected(each)]
        if suspects:
            _second_look(subject, found, suspects, set(samples), progress)
            share_extremes(noises)
            diagnoses = _diagnoses(noises, layers, methods, shares, subject.kept)
    except EdgewiseError as error:
        return _unavailable(f"the models' inner tensors could not be observed: {error.found}")
    findings = (
        say.matched(found, diagnoses, len(samples)),
        *say.regions(diagnoses),
        *say.saturation(diagnoses),
        *say.ranges(diagnoses),
        *say.scales(diagnoses),
        *say.grids(found),
        *say.weights(layers),
        *say.calibration(diagnoses),
    )
    return Section(
        suite=SUITE,
        title="Where the error comes from",
        findings=findings,
        tables=(say.table(diagnoses),),
        seconds=round(time.monotonic() - started, 3),
    )


def explained(found: Match, kept: Kept | None) -> dict[str, Explained]:
    """Return what became of the weights, by the tensor of fp32 that their operator writes.

    Where a run kept the divisors of smoothing, fp32's columns are multiplied by them first; where it kept codes
    of GPTQ the layer is one of error feedback, and a row that holds the very codes was not changed since, however far
    the feedback took it.
    """
    smooth = kept.corrections.smooth if kept is not None else {}
    learned = {**kept.corrections.rounded, **kept.corrections.rounded_dynamic} if kept is not None else {}
    names = {region.raw_output: region.name for region in found.regions}
    result = {}
    for mine, its in paired(found.reference, found.variant):
        output = found.reference.nodes[mine.index].output[0]
        before = read(found.reference, mine)
        after = read(found.variant, its) if its is not None else None
        if before is None or after is None or before.rows.shape != after.rows.shape:
            continue
        name = names.get(output, "")
        divisor = smooth.get(name)
        if divisor is not None and divisor.size == before.rows.shape[1]:
            before = msgspec.structs.replace(before, rows=before.rows * divisor)
        layer = explain(before, after, is_rescaled=bool(found.rescaled), is_learned=name in learned)
        if layer.changes and name in learned:
            layer = _without_kept(layer, after, learned[name])
        result[output] = layer
    return result


def _without_kept(layer: Explained, after: Weight, kept: WeightValues) -> Explained:
    rows = kept.values.astype(np.float32) * kept.scale[:, None]
    if rows.shape != after.rows.shape:
        return layer
    same = np.abs(after.rows - rows).max(axis=1) <= _SAME_STEPS * kept.scale
    return msgspec.structs.replace(layer, changes=tuple(each for each in layer.changes if not same[each.row]))


def _diagnoses(
    noises: Sequence[Noise],
    layers: Mapping[str, Explained],
    methods: Mapping[str, RangeMethod],
    shares: Mapping[str, float],
    kept: Kept | None,
) -> list[Diagnosis]:
    ranges = {(tensor, method): ends for (tensor, method, _, _), ends in kept.ranges.items()} if kept else {}
    found = []
    for noise in noises:
        method = methods.get(noise.point.reference)
        calibrated = ranges.get((noise.point.reference, method)) if method is not None else None
        layer = layers.get(getattr(noise.point.region, "raw_output", ""))
        found.append(diagnose(noise, layer, method, calibrated, shares.get(noise.point.reference, 1.0)))
    return found


def _methods(subject: Subject, found: Match) -> dict[str, RangeMethod]:
    """Return how ranges were taken, by tensor, where a recipe says so."""
    if subject.recipe is None:
        return {}
    return range_methods(found.regions, {each.region: each for each in subject.recipe.regions})


def _shares(subject: Subject, found: Match) -> dict[str, float]:
    """Return how much of its range each tensor was given on purpose, where a recipe says so."""
    clip = (subject.recipe.clip if subject.recipe is not None else {}) or {}
    roots = shared_grids(found.regions)
    names = {name for region in found.regions for name in (*region.inputs, region.output)}
    return {name: clip[roots.get(name, name)] for name in names if roots.get(name, name) in clip}


def _second_look(
    subject: Subject, found: Match, suspects: Sequence[Noise], seen: AbstractSet[int], progress: Progress
) -> None:
    """Widen the extremes of some tensors by many more samples, of the test split and of the calibration data."""
    each = processor_seconds(lambda: subject.reference.run(subject.test[0].feeds))
    limit = affordable(subject.seconds / 2, 2 * each, have=_FURTHER[subject.depth], least=_LEAST_FURTHER)
    rest = [at for at in range(len(subject.test)) if at not in seen]
    further: list[tuple[Dataset, int]] = [(subject.test, rest[at]) for at in _spread(len(rest), limit)]
    pool = subject.calibrate
    further += [(pool, at) for at in _spread(len(pool), limit)] if pool is not None else []
    progress.start("a second look at ranges", len(further))
    widen(
        found.reference,
        suspects,
        ((dataset[at].feeds, dataset is pool) for dataset, at in further),
        runtime=subject.runtime,
        threads=subject.threads,
        report=progress.advance,
    )


def _unavailable(reason: str) -> Section:
    finding = Finding(name="where.matched", grade=Grade.UNAVAILABLE, detail=reason)
    return Section(suite=SUITE, title="Where the error comes from", findings=(finding,))


def _samples(subject: Subject, observer: Observer) -> list[int]:
    """Return the numbers of the samples to compare on, spread over the test split."""
    values: dict[str, Array] = observer.values(subject.test[0].feeds)
    elements = sum(values[point.reference].size for point in observer.points)
    affordable = max(_LEAST, _ELEMENTS[subject.depth] // max(elements, 1))
    return _spread(len(subject.test), min(_SAMPLES[subject.depth], affordable))


def _spread(have: int, count: int) -> list[int]:
    count = min(have, count)
    return np.linspace(0, have - 1, count).round().astype(int).tolist() if count else []
