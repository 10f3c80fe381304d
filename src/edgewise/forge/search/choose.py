"""Choose among measured candidates: what fits the budget, then what is fastest, then what is closest to fp32."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.contracts.budget import Budget, Verdict, judge
from edgewise.contracts.evidence import Candidate, Figures, Status
from edgewise.contracts.task import TaskKind

# Candidates this close in time are told apart by how close they are to fp32 instead.
_TIE = 0.04
# The divergence (the task's own distance) up to which a variant counts as good as fp32 where the user
# sets no limit on accuracy: measured on the models of docs/explanation/evidence.md.
_TOLERANCE = {
    TaskKind.CLASSIFICATION: 0.010,
    TaskKind.DETECTION: 0.08,
    TaskKind.EMBEDDING: 0.0024,
    TaskKind.SPEECH: 0.01,
    TaskKind.ANOMALY: 0.001,
    TaskKind.LANGUAGE: 0.01,
}
_OTHER_TOLERANCE = 0.001


def tolerance(task_kind: str, budget: Budget) -> float:
    """Return the largest divergence to accept: any, where the budget itself limits accuracy."""
    if budget.accuracy_drop is not None or budget.flip_rate is not None:
        return float("inf")
    return next((value for kind, value in _TOLERANCE.items() if kind == task_kind), _OTHER_TOLERANCE)


def choose(candidates: Sequence[Candidate], reference: Candidate, budget: Budget, *, most: float) -> Candidate | None:
    """Return the best measured candidate that no limit fails, or None.

    fp32 is the `reference` and a candidate too; nothing slower than it is chosen, except where fp32
    itself fails the budget. Of what fits and diverges by at most `most`, the fastest and all within 4 %
    of its time are taken, and of these the one that diverges least. Where nothing is that close to fp32,
    the closest that fits is taken.
    """
    fitting = [each for each in candidates if each.status is Status.MEASURED and _fits(each, reference, budget)]
    if _fits(reference, reference, budget):
        fitting = [each for each in fitting if (each.speedup or 0.0) >= 1.0]
    if not fitting:
        return None
    close = [each for each in fitting if _divergence(each) <= most]
    if not close:
        return min(fitting, key=lambda each: (_divergence(each), each.name))
    fastest = max(each.speedup or 0.0 for each in close)
    near = [each for each in close if (each.speedup or 0.0) >= fastest * (1 - _TIE)]
    return min(near, key=lambda each: (_divergence(each), each.name))


def unbeaten(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the measured candidates that no other beats, in their order.

    One beats another where it is as good in time, size and divergence, and better in one of them.
    """
    points = [(each, _point(each)) for each in candidates if each.status is Status.MEASURED]
    return tuple(
        each
        for each, mine in points
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for _, other in points)
    )


def _point(candidate: Candidate) -> tuple[float, float, float]:
    """Return relative time, size and divergence, where less is better; a figure that is not known is the worst."""
    far = float("inf")
    return (
        1 / candidate.speedup if candidate.speedup else far,
        far if candidate.size_mib is None else candidate.size_mib,
        _divergence(candidate),
    )


def _divergence(candidate: Candidate) -> float:
    return float("inf") if candidate.divergence is None else candidate.divergence


def closest(candidates: Sequence[Candidate], reference: Figures, budget: Budget) -> dict[str, str]:
    """Return, for each limit, the measured candidate that comes nearest to it."""
    found: dict[str, tuple[float, str]] = {}
    for each in candidates:
        if each.status is not Status.MEASURED:
            continue
        for verdict in judge(budget, each, reference):
            if verdict.found is not None and (verdict.limit not in found or verdict.found < found[verdict.limit][0]):
                found[verdict.limit] = (verdict.found, each.name)
    return {limit: name for limit, (_, name) in found.items()}


def advice(candidates: Sequence[Candidate], reference: Candidate, budget: Budget) -> tuple[str, ...]:
    """Return what to try next where nothing fits, one line per limit that no candidate holds."""
    lines = []
    nearest = closest(candidates, reference, budget)
    for limit, required in budget.limits().items():
        verdicts = [
            verdict
            for each in candidates
            if each.status is Status.MEASURED
            for verdict in judge(budget, each, reference)
            if verdict.limit == limit
        ]
        if any(each.verdict is Verdict.PASS for each in verdicts):
            continue
        found = min((each.found for each in verdicts if each.found is not None), default=None)
        have = "it could not be measured" if found is None else f"the best is {found:.4g} ({nearest[limit]})"
        lines.append(f"{limit} <= {required:g}: {have}; {_NEXT[limit]}")
    if not lines:
        lines.append("every limit is held by some candidate, but none holds all: relax the one that matters least")
    return tuple(lines)


_NEXT = {
    "latency_p50_ms": "try --effort thorough, more threads, or a smaller model",
    "latency_p99_ms": "try --effort thorough, more threads, a quieter machine, or a smaller model",
    "peak_memory_mib": "try a smaller input or model: most of the peak is the runtime and the activations",
    "size_mib": "offer int4_weight in the target's formats, or take a smaller model: floats are stored as fp16 already",
    "energy_mj": "give the target a power model, or measure on a machine with an energy counter",
    "accuracy_drop": "add calibration samples, try --effort thorough, or allow more time for fp32 regions",
    "flip_rate": "add calibration samples, try --effort thorough, or allow more time for fp32 regions",
}


def _fits(candidate: Candidate, reference: Candidate, budget: Budget) -> bool:
    return all(each.verdict is not Verdict.FAIL for each in judge(budget, candidate, reference))
