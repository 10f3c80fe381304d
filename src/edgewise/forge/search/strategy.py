"""The search: screen uniform recipes, read costs, find what is sensitive, place, correct, judge.

Everything here works on the select split; the test split is not within reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from edgewise.contracts.recipe import Format, Recipe, Rounding
from edgewise.contracts.target import Probe
from edgewise.forge.costs import Profile, border_of
from edgewise.forge.placement import Costs, Placement, cut, milp, noise_of, predicted_us
from edgewise.forge.progress import Progress
from edgewise.forge.regions import Region
from edgewise.forge.search.bench import Bench, Trial
from edgewise.forge.search.options import STATIC, Style, formats_in, placed, uniform
from edgewise.forge.sensitivity import Sensitivity, alone, units

Offers = dict[str, tuple[Format, ...]]
# A format that takes this much longer than fp32 in a region is not offered there; a little more is
# tolerated because it may save a border.
_TOO_SLOW = 1.3
# Prices of noise tried in a sweep per placement asked for.
_PRICES = 4
# Neighbours of a sweep whose noise differs by more than this factor get placements between them,
# with these shares of what they differ in.
_GAP = 0.75
_SHARES = (0.3, 0.6, 0.85)
# Beyond this ratio of their times one of them is not what the other's user wants.
_NEAR = 1.5
# Differences of time below this are noise of the profile (microseconds).
_LEAST_US = 1.0
# The share of fp32's time a placement must stay below.
_WORTH_IT = 0.985
# What another rounding or bias correction may gain: a placement further behind a faster one is not worth them.
_STYLE_GAIN = 1.2
# So many placements, the fastest, are tried in every style.
_TAUGHT = 2
# A format this little slower than another, and closer to fp32, makes the other not worth offering.
_AS_FAST = 1.15


def screen(
    bench: Bench, offers: Offers, styles: Sequence[Style], positions: Sequence[int], progress: Progress
) -> tuple[dict[Format, Trial], list[Trial]]:
    """Judge every format everywhere it is offered, static ones in several styles, on some samples.

    Returns the best trial by format, and all trials.
    """
    forms = formats_in(offers)
    recipes: list[tuple[Format, Recipe]] = []
    for form in forms:
        for style in styles if form in STATIC else styles[:1]:
            label = f"{form} {style.range_method}" if form in STATIC else str(form)
            recipes.append((form, uniform(bench.regions, offers, form, style, name=f"all {label}")))
        if form is Format.INT8_DYNAMIC and styles[0].smooth and len(styles) > 1:  # the fast effort takes it on trust
            plain = msgspec.structs.replace(styles[0], smooth={})
            recipes.append((form, uniform(bench.regions, offers, form, plain, name=f"all {form} unsmoothed")))
    progress.start("screen formats and ranges", len(recipes))
    trials = bench.try_all([recipe for _, recipe in recipes], positions=positions, report=progress.advance)
    best: dict[Format, Trial] = {}
    for (form, _), trial in zip(recipes, trials, strict=True):
        if trial.judgement is not None and (form not in best or trial.divergence < best[form].divergence):
            best[form] = trial
    return best, trials


def useful(offers: Offers, regions: tuple[Region, ...], fp32: Profile, profiles: Mapping[Format, Profile]) -> Offers:
    """Drop formats where the profile shows them slower than fp32 by more than a border could win back."""
    kept: Offers = {}
    for region in regions:
        forms = []
        for form in offers.get(region.name, ()):
            if form not in profiles:
                continue
            limit = fp32.region_us[region.name] * _TOO_SLOW
            if region.weight is None or profiles[form].region_us[region.name] <= limit:
                forms.append(form)
        if forms:
            kept[region.name] = tuple(forms)
    return kept


def undominated(
    regions: tuple[Region, ...],
    offers: Offers,
    best: Mapping[Format, Trial],
    profiles: Mapping[Format, Profile],
) -> tuple[Format, ...]:
    """Return the formats that no other beats: closer to fp32 everywhere at once, and not slower.

    A format is only beaten by one that all its own regions with weights offer too, and their times are
    compared over these regions: one that covers a single layer says nothing about the others.
    """
    weighted = {
        form: {region.name for region in regions if region.weight and form in offers.get(region.name, ())}
        for form in profiles
    }

    def beats(one: Format, other: Format) -> bool:
        if one is other or not weighted[other] <= weighted[one] or best[one].divergence > best[other].divergence:
            return False
        times = [sum(profiles[form].region_us[name] for name in weighted[other]) for form in (one, other)]
        return times[0] <= times[1] * _AS_FAST

    return tuple(form for form in profiles if not any(beats(other, form) for other in profiles))


def scaled(rows: Sequence[Sensitivity], *, by: float, offers: Offers, form: Format) -> list[Sensitivity]:
    """Return the sensitivities of one format as a guess for another, `by` times as noisy everywhere."""
    return [
        msgspec.structs.replace(row, divergence=row.divergence * by, sqnr_db=None)
        for row in rows
        if form in offers.get(row.region, ())
    ]


def sensitivities(
    bench: Bench, offers: Offers, base: Mapping[Format, Recipe], positions: Sequence[int], progress: Progress
) -> dict[Format, list[Sensitivity]]:
    """Judge each unit quantized alone, in every format it is offered."""
    groups = [group for group in units(bench.graph, bench.regions) if group[0].name in offers]
    work = [(form, group) for form in base for group in groups if form in offers[group[0].name]]
    progress.start("sensitivity, region by region", len(work))
    trials = bench.try_all(
        [alone(base[form], group) for form, group in work], positions=positions, report=progress.advance
    )
    found: dict[Format, list[Sensitivity]] = {form: [] for form in base}
    for (form, group), trial in zip(work, trials, strict=True):
        found[form].append(
            Sensitivity(
                region=group[0].name,
                members=tuple(region.name for region in group),
                divergence=trial.divergence,
                sqnr_db=trial.judgement.sqnr_db if trial.judgement else None,
            )
        )
    return found


def costs_of(
    bench: Bench,
    offers: Offers,
    fp32: Profile,
    profiles: Mapping[Format, Profile],
    found: Mapping[Format, Sequence[Sensitivity]],
    probe: Probe,
    elements: Mapping[str, int],
) -> Costs:
    """Collect times, noise and borders in the form that placement takes."""
    time_us = {
        region.name: {Format.FP32: fp32.region_us[region.name]}
        | {form: profiles[form].region_us[region.name] for form in offers.get(region.name, ())}
        for region in bench.regions
    }
    noise: dict[str, dict[Format, float]] = {}
    for form, rows in found.items():
        for row in rows:
            # Shared among the members, so that a SiLU in integers behind a float convolution is not free.
            for name in row.members:
                noise.setdefault(name, {})[form] = row.divergence / len(row.members)
    return Costs(
        time_us=time_us, noise=noise, borders={name: border_of(probe, size) for name, size in elements.items()}
    )


def sweep(bench: Bench, costs: Costs, *, count: int) -> list[Placement]:
    """Walk the price of noise from nothing to everything; return the distinct placements, fastest first."""
    outputs = bench.graph.outputs
    forms = {form for times in costs.time_us.values() for form in times} - {Format.FP32}
    if not forms:
        return []
    noise = sum(max(each.values()) for each in costs.noise.values() if each) or 1.0
    time = sum(times[Format.FP32] for times in costs.time_us.values()) or 1.0
    prices = [0.0, *(time / noise * np.logspace(-3, 3, _PRICES * count))]
    static = forms & set(STATIC)
    found: dict[str, Placement] = {}
    for price in prices:
        if len(forms) == 1 and static:
            placement = cut(bench.regions, costs, outputs, integer=next(iter(static)), weight=price)
        else:
            placement = milp(bench.regions, costs, outputs, weight=price)
        if any(form is not Format.FP32 for form in placement.values()):
            found.setdefault(str(sorted(placement.items())), placement)

    def rank(placement: Placement) -> tuple[float, float]:
        return predicted_us(bench.regions, costs, placement, outputs), noise_of(costs, placement)

    ordered = sorted((each for each in found.values() if rank(each)[0] < time * _WORTH_IT), key=rank)
    kept = _spread(ordered, [rank(each)[1] for each in ordered], count)
    gaps = sorted(
        ((rank(other)[0] / rank(one)[0], one, other) for one, other in pairwise(kept) if _far(rank(one), rank(other))),
        key=lambda each: -each[0],
    )
    between = [_between(one, other, costs, share=share) for _, one, other in gaps[: count // 3] for share in _SHARES]
    return sorted([*kept, *(each for each in between if each not in kept)], key=rank)


def _far(fast: tuple[float, float], close: tuple[float, float]) -> bool:
    """Say whether two neighbours differ enough in noise for something between them, and may both be worth having."""
    return close[1] < _GAP * fast[1] and close[0] < _NEAR * fast[0]


def _between(fast: Placement, close: Placement, costs: Costs, *, share: float) -> Placement:
    """Return the fast placement with a share of what the closer one changes: what saves most noise for its time.

    A sweep finds the lower convex hull only; what lies inside it may be what a budget asks for.
    """

    def worth(name: str) -> float:
        forms = fast[name], close.get(name, Format.FP32)
        noise = [costs.noise.get(name, {}).get(form, 0.0) for form in forms]
        times = [costs.time_us[name].get(form, 0.0) for form in forms]
        return (noise[0] - noise[1]) / max(times[1] - times[0], _LEAST_US)

    changed = sorted((name for name in fast if fast[name] is not close.get(name, Format.FP32)), key=worth, reverse=True)
    taken = set(changed[: math.ceil(len(changed) * share)])
    return {name: close.get(name, Format.FP32) if name in taken else form for name, form in fast.items()}


def _spread(placements: list[Placement], noise: Sequence[float], count: int) -> list[Placement]:
    """Return at most `count` placements, fastest first, that each promise clearly less noise than the one before.

    "Clearly" is the smallest step, of those tried, that leaves no more than `count`.
    """
    kept = placements
    for step in (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.3):
        kept, last = [], float("inf")
        for placement, level in zip(placements, noise, strict=True):
            if level < last * step:
                kept.append(placement)
                last = level
        if len(kept) <= count:
            break
    return kept[:count]


def styles_of(base: Style, *, corrected: bool, direct: bool = False) -> list[tuple[str, Style]]:
    """Return the corrections to try on a placement, what is most often best first; `direct` only that: the rounding."""
    if not corrected:
        return [("", base)]
    if direct:
        return [("gptq", msgspec.structs.replace(base, rounding=Rounding.GPTQ))]
    return [
        (
            " ".join(filter(None, ("gptq" if rounding is Rounding.GPTQ else "", "bc" if bias else ""))),
            msgspec.structs.replace(base, rounding=rounding, bias_correction=bias),
        )
        for rounding, bias in ((Rounding.GPTQ, False), (Rounding.GPTQ, True), (Rounding.NEAREST, True))
    ]


def judge_placements(
    bench: Bench,
    placements: Sequence[tuple[str, Placement]],
    styles: Sequence[tuple[str, Style]],
    costs: Costs,
    progress: Progress,
) -> list[Trial]:
    """Judge each placement on the whole select split in the first style, and those worth it in better ones.

    Worth it is what no faster placement beats by more than a style could make good. The fastest of these are judged in
    all styles; a style that did better on them than the first is tried on the others.
    """
    first, *others = styles
    recipes = [placed(placement, first[1], name=f"{name} {first[0]}".strip()) for name, placement in placements]
    progress.start("place", len(recipes))
    trials = bench.try_all(recipes, report=progress.advance)
    worth = _worth_styles(bench, placements, trials, costs)
    tried, wanted = list(trials), others
    known = {name: trial.divergence for (name, _), trial in zip(placements, trials, strict=True)}
    for group in (worth[:_TAUGHT], worth[_TAUGHT:]):
        more = [
            placed(placement, style, name=f"{name} {label}".strip())
            for name, placement in group
            for label, style in wanted
        ]
        if not more:
            break
        progress.start("correct", len(more))
        found = bench.try_all(more, report=progress.advance)
        tried += found
        wanted = better_styles(wanted, found, than=sum(known[name] for name, _ in group))
    return tried


def better_styles(
    styles: Sequence[tuple[str, Style]], found: Sequence[Trial], *, than: float
) -> list[tuple[str, Style]]:
    """Return the style whose trials, which are one placement after the other, sum up to the least, if below `than`."""
    each = [sum(trial.divergence for trial in found[at :: len(styles)]) for at in range(len(styles))]
    return [styles[at] for at in range(len(styles)) if each[at] == min(each) and each[at] < than][:1]


def _worth_styles(
    bench: Bench, placements: Sequence[tuple[str, Placement]], trials: Sequence[Trial], costs: Costs
) -> list[tuple[str, Placement]]:
    outputs = bench.graph.outputs
    times = [predicted_us(bench.regions, costs, placement, outputs) for _, placement in placements]
    kept, best = [], math.inf
    for at in sorted(range(len(placements)), key=lambda each: (times[each], trials[each].divergence)):
        integers = any(form in (*STATIC, Format.INT8_DYNAMIC) for form in placements[at][1].values())
        if integers and trials[at].divergence < best * _STYLE_GAIN:
            kept.append(placements[at])
        best = min(best, trials[at].divergence)
    return kept
