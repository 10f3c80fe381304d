"""The gate of a stage: promote, roll back, or hold, with every figure it rests on.

* ROLLBACK where harm is proven and harmlessness within the margin is not. Many tests, one error: Holm over metrics,
  rates and groups, and over the looks by spending.
* PROMOTE where every figure of all devices, and of every class that has devices enough, is proven to be within its
  margin, and that of a smaller class is estimated to be. All must pass, so no test is forgiven for their number (an
  intersection-union test).
* HOLD otherwise: too few devices, too early, data that are missing, or a difference neither proven nor excluded.

A group is all devices, stratified by class, or one class. What the statistics are, and how often they err, is in
docs/explanation/gates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import numpy as np

from edgewise.contracts.rollout import Answer, Decision, GateFigure, GatePolicy, MetricGate, RateGate, Stage
from edgewise.fleet.evidence import BoolArray, Table
from edgewise.numerics.device_assignments import p_assigned
from edgewise.numerics.device_effects import Spread, effect, spread
from edgewise.numerics.device_rates import difference_bounds, shares
from edgewise.numerics.sequential import holm, nominal_levels
from edgewise.numerics.tails import fisher_more

ALL = "all"
REPORTING = "reporting"
"""The gate of devices that failed: silent past the deadline, in a crash loop, or unable to install the release."""

ESTIMATE_LEVEL = 0.5
"""At this level a bound is the estimate itself: what a class of few devices is let through with."""


class _Group(msgspec.Struct, frozen=True):
    """A group's devices [n], and the level at which it is proven to be within a margin."""

    name: str
    members: BoolArray
    level_within: float


def decide(policy: GatePolicy, stage: Stage, found: Table, fractions: tuple[float, ...]) -> Decision:
    """Return the gate's decision at the last of `fractions`, the shares of the stage's horizon at its looks so far."""
    figures = _with_harm(policy, list(_figures(policy, found, fractions)), fractions)
    harmed = [each for each in figures if each.harmed and not (each.within and each.level_within != ESTIMATE_LEVEL)]
    if harmed:
        answer, reason = Answer.ROLLBACK, "; ".join([*(_harm(each) for each in harmed), *_refusals(found)])
    else:
        reason = "; ".join(_obstacles(policy, stage, found, figures, fractions[-1]))
        answer = Answer.HOLD if reason else Answer.PROMOTE
        reason = reason or "every figure of every group is within its margin"
    return Decision(
        answer=answer,
        reason=reason,
        look=len(fractions),
        fraction=fractions[-1],
        canaries=int(found.canary.sum()),
        reported=int((found.canary & found.reported).sum()),
        silent=int((found.canary & found.silent).sum()),
        controls=int((~found.canary & found.reported).sum()),
        figures=tuple(figures),
    )


def hard_stop(policy: GatePolicy, found: Table) -> str:
    """Return why a rollout must stop at once, without statistics; empty where nothing stops it."""
    loops = int((found.canary & found.crash_loop).sum())
    if loops >= policy.crash_loops:
        return f"{loops} devices are in a crash loop (limit {policy.crash_loops})"
    refused = int((found.canary & found.refused_signature).sum())
    if refused >= policy.signature_failures:
        return f"{refused} devices refused a signature (limit {policy.signature_failures})"
    return ""


def _figures(policy: GatePolicy, found: Table, fractions: tuple[float, ...]) -> Iterator[GateFigure]:
    groups = _groups(policy, found, fractions)
    for metric in policy.metrics:
        usable = np.isfinite(found.changes[metric.name]) & found.reported
        varies = _spread(found, metric.name, usable)
        for group in groups:
            yield _metric_figure(metric, group, found, group.members & usable, varies)
    for rate in policy.rates:
        for group in groups:
            yield _rate_figure(rate, group, found)
    for group in groups:
        yield _reporting_figure(policy, group, found)


def _groups(policy: GatePolicy, found: Table, fractions: tuple[float, ...]) -> list[_Group]:
    everybody = np.ones(found.of.size, dtype=np.bool_)
    groups = [_Group(ALL, everybody, nominal_levels(fractions, policy.promote_alpha)[-1])]
    present = sorted(set(found.of[found.canary].tolist()))
    if len(present) > 1:
        for number in present:
            members = found.of == number
            small = (members & found.canary).sum() < policy.class_devices
            groups.append(_Group(found.classes[number], members, ESTIMATE_LEVEL if small else groups[0].level_within))
    return groups


def _spread(found: Table, name: str, usable: BoolArray) -> Spread | None:
    changes, canary = found.changes[name], found.canary
    one, other = usable & canary, usable & ~canary
    return spread(changes[one], found.of[one], changes[other], found.of[other])


def _metric_figure(
    gate: MetricGate, group: _Group, found: Table, usable: BoolArray, varies: Spread | None
) -> GateFigure:
    one, other = usable & found.canary, usable & ~found.canary
    figure = GateFigure(
        gate=gate.name, group=group.name, canaries=int(one.sum()), controls=int(other.sum()), margin=gate.margin
    )
    reason = _lacking(found, group, gate.name, figure)
    changes = found.changes[gate.name]
    change = effect(changes[one], found.of[one], changes[other], found.of[other], varies) if varies else None
    if change is None:
        return msgspec.structs.replace(figure, reason=reason or "too few devices to tell how much they vary")
    low, high = change.bounds(group.level_within)
    p_within = change.p_below(math.log1p(gate.margin))
    return msgspec.structs.replace(
        figure,
        effect=math.expm1(change.estimate),
        low=_finite(low),
        high=_finite(high),
        p_harm=change.p_above(0.0),
        p_within=p_within,
        level_within=group.level_within,
        within=not reason and p_within <= group.level_within,
        reason=reason,
    )


def _rate_figure(gate: RateGate, group: _Group, found: Table) -> GateFigure:
    events, trials = found.events[gate.name], found.trials[gate.name]
    usable = group.members & found.reported & (trials > 0)
    one, other = usable & found.canary, usable & ~found.canary
    ours, theirs = shares(events[one], trials[one], events[other], trials[other])
    figure = GateFigure(
        gate=gate.name,
        group=group.name,
        canaries=int(one.sum()),
        controls=int(other.sum()) if gate.against_controls else 0,
        margin=gate.margin,
        level_within=group.level_within,
    )
    reason = _lacking(found, group, gate.name, figure, against_controls=gate.against_controls)
    if reason and not (figure.canaries and (figure.controls or not gate.against_controls)):
        return msgspec.structs.replace(figure, reason=reason)
    if gate.against_controls:
        low, high = difference_bounds(ours, theirs, group.level_within)
        return msgspec.structs.replace(
            figure,
            effect=ours.rate - theirs.rate,
            low=low,
            high=high,
            p_harm=p_assigned(events[usable], trials[usable], found.canary[usable], found.of[usable], gate.margin),
            within=not reason and high <= gate.margin,
            reason=reason,
        )
    low, high = ours.bounds(group.level_within)
    p_within = ours.p_below(gate.margin)
    return msgspec.structs.replace(
        figure,
        effect=ours.rate,
        low=low,
        high=high,
        p_harm=ours.p_above(gate.margin),
        p_within=p_within,
        within=not reason and p_within <= group.level_within,
        reason=reason,
    )


def _reporting_figure(policy: GatePolicy, group: _Group, found: Table) -> GateFigure:
    failed = _failed(found)
    one, other = group.members & found.canary, group.members & ~found.canary
    hits, size, others, others_size = (int(each.sum()) for each in (one & failed, one, other & failed, other))
    return GateFigure(
        gate=REPORTING,
        group=group.name,
        canaries=size,
        controls=others_size,
        margin=policy.silent_share,
        effect=hits / size if size else None,
        p_harm=fisher_more(hits, size, others, others_size) if size and others_size else None,
        within=bool(size) and hits / size <= policy.silent_share,
        reason="" if size else "no canaries",
    )


def _with_harm(policy: GatePolicy, figures: list[GateFigure], fractions: tuple[float, ...]) -> list[GateFigure]:
    """Mark the figures whose harm is proven, in Holm's order at this look.

    All devices together have as much of the error as all classes: most harm is harm to every class, and with few
    canaries only the whole can prove it.
    """

    def level(share: float) -> float:
        return nominal_levels(fractions, policy.alpha * round(share, 12))[-1]

    classes = max(sum(each.group != ALL for each in figures), 1)
    wholes = sum(each.group == ALL for each in figures)
    weights = [1 / wholes if each.group == ALL else 1 / classes for each in figures]
    p_values = [math.inf if each.p_harm is None else each.p_harm for each in figures]
    return [
        msgspec.structs.replace(each, harmed=mark, level_harm=level(weight / sum(weights)))
        for each, mark, weight in zip(figures, holm(p_values, weights, level), weights, strict=True)
    ]


def _lacking(found: Table, group: _Group, name: str, figure: GateFigure, *, against_controls: bool = True) -> str:
    """Return what is missing for a figure to prove anything; empty where nothing is."""
    owed = int((group.members & found.canary & found.missing[name]).sum())
    if owed:
        return f"{owed} canaries report without this figure"
    if not figure.canaries:
        return "no canary has reported enough"
    if against_controls and not figure.controls:
        return "no control has reported enough"
    return ""


def _obstacles(
    policy: GatePolicy, stage: Stage, found: Table, figures: list[GateFigure], fraction: float
) -> Iterator[str]:
    if fraction * stage.horizon_s < stage.bake_s:
        yield f"{fraction * stage.horizon_s:.0f} s of {stage.bake_s} s are over"
    failed = int((found.canary & _failed(found)).sum())
    if failed > policy.silent_share * int(found.canary.sum()):
        yield f"{failed} of {int(found.canary.sum())} canaries are silent, in a crash loop or without the release"
        yield from _refusals(found)
    reported = int((found.canary & found.reported & ~found.silent).sum())
    if reported < stage.minimum_devices:
        yield f"{reported} canaries have reported, required {stage.minimum_devices}"
    fewest = min((each.canaries for each in figures if each.group == ALL), default=0)
    if stage.minimum_devices <= reported and fewest < stage.minimum_devices:
        yield f"{fewest} canaries can be compared, required {stage.minimum_devices}"
    for each in figures:
        if not each.within and each.gate != REPORTING:
            yield f"{each.gate} of {each.group} is {each.reason or 'not proven to be within its margin'}"


def _failed(found: Table) -> BoolArray:
    return found.silent | found.crash_loop | found.not_installed


def _refusals(found: Table) -> list[str]:
    """Say what kept the release from canaries."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.refusals.items()))
    return [f"could not be installed: {kinds}"] if kinds else []


def _harm(figure: GateFigure) -> str:
    effect = 0.0 if figure.effect is None else figure.effect
    return (
        f"{figure.gate} of {figure.group} is worse: {effect:+.2%} (margin {figure.margin:.2%}, p = {figure.p_harm:.2g})"
    )


def _finite(log_value: float) -> float | None:
    return math.expm1(log_value) if math.isfinite(log_value) and log_value < 700 else None
