"""Choose among measured candidates: what fits the budget, then what is fastest, then what is closest to fp32."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.contracts.budget import Budget, Verdict, judge
from edgewise.contracts.evidence import Candidate, Figures, Status

# Candidates this close in time are told apart by how close they are to fp32 instead.
_TIE = 0.05
# Without limits of its own a run accepts this much loss on the select split.
DEFAULT_ACCURACY_DROP = 0.01
DEFAULT_FLIP_RATE = 0.05


def guard(budget: Budget) -> Budget:
    """Return the budget the search holds candidates to: the user's, or a default for accuracy where it has none."""
    if budget.accuracy_drop is not None or budget.flip_rate is not None:
        return budget
    limits = budget.limits() | {"accuracy_drop": DEFAULT_ACCURACY_DROP, "flip_rate": DEFAULT_FLIP_RATE}
    return Budget(**limits)


def choose(candidates: Sequence[Candidate], reference: Candidate, budget: Budget) -> Candidate | None:
    """Return the best measured candidate that no limit fails, or None.

    fp32 is the `reference` and a candidate too. A candidate slower than it is never chosen, except
    where fp32 itself fails the budget and the slower one does not. Among those that fit, the fastest
    and all within 5 % of its time are taken, and of these the one that diverges least.
    """
    fitting = [each for each in candidates if each.status is Status.MEASURED and _fits(each, reference, budget)]
    if not fitting:
        return None
    if _fits(reference, reference, budget):
        fitting = [each for each in fitting if (each.speedup or 0.0) >= 1.0]
    fastest = max(each.speedup or 0.0 for each in fitting)
    near = [each for each in fitting if (each.speedup or 0.0) >= fastest * (1 - _TIE)]
    return min(near, key=lambda each: (each.divergence if each.divergence is not None else float("inf"), each.name))


def closest(candidates: Sequence[Candidate], reference: Figures, budget: Budget) -> dict[str, str]:
    """Return, for each limit, the measured candidate that comes nearest to it."""
    found: dict[str, tuple[float, str]] = {}
    for each in candidates:
        if each.status is not Status.MEASURED:
            continue
        for verdict in judge(budget, each, reference):
            if verdict.found is not None and (
                verdict.limit not in found or verdict.found < found[verdict.limit][0]
            ):
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
    "size_mib": "offer int4_weight or fp16 in the target's formats, or take a smaller model",
    "energy_mj": "give the target a power model, or measure on a machine with an energy counter",
    "accuracy_drop": "add calibration samples, try --effort thorough, or allow more time for fp32 regions",
    "flip_rate": "add calibration samples, try --effort thorough, or allow more time for fp32 regions",
}


def _fits(candidate: Candidate, reference: Candidate, budget: Budget) -> bool:
    return all(each.verdict is not Verdict.FAIL for each in judge(budget, candidate, reference))
