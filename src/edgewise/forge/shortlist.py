"""Pick what is worth timing: the Pareto front of predicted time against divergence, thinned evenly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewise.contracts.budget import Budget, Verdict, judge
from edgewise.contracts.evidence import Candidate
from edgewise.forge.cache import digest, write_atomically
from edgewise.forge.evidence import candidate_of
from edgewise.forge.explore import Explored
from edgewise.forge.measured import Shortlisted
from edgewise.forge.search.bench import Trial

# A later point of the front must be this much closer to fp32 to be worth its time.
_BETTER = 0.95


def front(trials: Sequence[Trial], predicted_us: Sequence[float | None]) -> list[Trial]:
    """Return the trials that no other beats in both predicted time and divergence, fastest first."""
    ordered = sorted(
        (
            (time, trial.divergence, trial.recipe.name, trial)
            for trial, time in zip(trials, predicted_us, strict=True)
            if time is not None and trial.judgement is not None
        ),
        key=lambda row: row[:3],
    )
    kept: list[Trial] = []
    best = float("inf")
    for _, divergence, _, trial in ordered:
        if divergence < best * _BETTER:
            kept.append(trial)
            best = divergence
    return kept


def thinned(trials: list[Trial], count: int, *, most: float) -> list[Trial]:
    """Return at most `count` of a front, fastest first.

    Two thirds are the fastest of those that diverge by at most `most`, which is where the choice will
    fall; the others are the next faster ones, should the budget allow more.
    """
    close = [trial for trial in trials if trial.divergence <= most]
    beyond = [trial for trial in trials if trial.divergence > most]
    inside = close[: max(count - len(beyond), -(-2 * count // 3))]
    outside = beyond[max(len(beyond) - (count - len(inside)), 0) :]
    return [*outside, *inside]


def layered(trials: Sequence[Trial], predicted_us: Sequence[float | None], count: int, *, most: float) -> list[Trial]:
    """Return at most `count` trials: of the front, and where that is short, of what lies behind it.

    Predictions of a small model miss by a tenth, so what seems beaten may be the fastest: the next layers are the
    fronts of other placements among those that diverge by at most `most`.
    """
    kept = thinned(front(trials, predicted_us), count, most=most)
    while len(kept) < count:
        known = {_placement(each) for each in kept}
        left = [
            (trial, time)
            for trial, time in zip(trials, predicted_us, strict=True)
            if _placement(trial) not in known and trial.divergence <= most
        ]
        layer = front([trial for trial, _ in left], [time for _, time in left])[: count - len(kept)]
        if not layer:
            break
        kept += layer
    return kept


def _placement(trial: Trial) -> frozenset[tuple[str, str]]:
    return frozenset((each.region, each.format) for each in trial.recipe.regions)


def within(
    trials: tuple[Trial, ...],
    predicted_us: tuple[float | None, ...],
    *,
    budget: Budget,
    reference: Candidate,
) -> tuple[tuple[Trial, ...], tuple[float | None, ...]]:
    """Return the trials, with their times, that no limit on size or accuracy rules out; all where none is left."""
    left = [
        (trial, time)
        for trial, time in zip(trials, predicted_us, strict=True)
        if all(each.verdict is not Verdict.FAIL for each in judge(budget, _figures(trial, reference), reference))
    ]
    if not left:
        return trials, predicted_us
    return tuple(trial for trial, _ in left), tuple(time for _, time in left)


def _figures(trial: Trial, reference: Candidate) -> Candidate:
    size = None if trial.size_bytes is None else trial.size_bytes / 2**20
    return candidate_of(trial, runtime=reference.runtime, higher_is_better=reference.higher_is_better, size_mib=size)


def shortlisted(
    explored: Explored,
    *,
    folder: Path,
    count: int,
    most: float,
    budget: Budget,
    reference: Candidate,
) -> list[Shortlisted]:
    """Write the shortlist's models into `folder` and return them as candidates."""
    made = []
    seen: set[str] = set()
    trials, times = within(explored.trials, explored.predicted_us, budget=budget, reference=reference)
    for trial in layered(trials, times, count, most=most):
        if trial.recipe.name in seen:
            continue
        seen.add(trial.recipe.name)
        model = explored.bench.build(trial.recipe)
        name = digest(model)
        file = folder / f"{name[:24]}.onnx"
        write_atomically(file, model)
        made.append(Shortlisted(candidate=_figures(trial, reference), file=file, digest=name))
    return made
