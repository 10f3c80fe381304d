"""Pick what is worth timing: the Pareto front of predicted time against divergence, thinned evenly."""

from __future__ import annotations

from pathlib import Path

from edgewise.forge.cache import digest, write_atomically
from edgewise.forge.evidence import candidate_of
from edgewise.forge.explore import Explored
from edgewise.forge.measured import Shortlisted
from edgewise.forge.prepare import Prepared
from edgewise.forge.search.bench import Trial

# A later point of the front must be this much closer to fp32 to be worth its time.
_BETTER = 0.95


def front(trials: tuple[Trial, ...], predicted_us: tuple[float | None, ...]) -> list[Trial]:
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


def thinned(trials: list[Trial], count: int) -> list[Trial]:
    """Return at most `count`, the fastest always among them, the others evenly spread."""
    if len(trials) <= count:
        return trials
    # The slow end of the front is fp32 all over again: prefer the fast two thirds.
    usable = trials[: max(count, 2 * len(trials) // 3)]
    picked = sorted({round(at * (len(usable) - 1) / max(count - 1, 1)) for at in range(count)})
    return [usable[at] for at in picked]


def shortlisted(explored: Explored, prepared: Prepared, *, folder: Path, count: int) -> list[Shortlisted]:
    """Write the shortlist's models into `folder` and return them as candidates."""
    made = []
    seen: set[str] = set()
    for trial in thinned(front(explored.trials, explored.predicted_us), count):
        model = trial.model
        if model is None or trial.recipe.name in seen:
            continue
        seen.add(trial.recipe.name)
        name = digest(model)
        file = folder / f"{name[:24]}.onnx"
        write_atomically(file, model)
        candidate = candidate_of(
            trial,
            runtime=prepared.runtime.name,
            higher_is_better=prepared.task.higher_is_better,
            size_mib=len(model) / 2**20,
        )
        made.append(Shortlisted(candidate=candidate, file=file, digest=name))
    return made
