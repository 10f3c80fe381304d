"""Whether the variant bears a condition as fp32 does: paired statistics of what each loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.evidence import Interval
from edgewise.forge.tasks.base import Task
from edgewise.forge.tasks.embedding import Pair
from edgewise.numerics.bootstrap import bca_interval

Values = NDArray[np.float64]
_FLIPS = 4999
_RESAMPLES = 1000


class Excess(msgspec.Struct, frozen=True, kw_only=True):
    """How much more the variant loses than fp32, per unit of the test data, averaged; positive is worse."""

    mean: float
    interval: Interval | None
    p: float
    """One-sided, of "the variant loses no more than fp32"."""
    units: int


def qualities(task: Task, predictions: Sequence[Any], targets: Sequence[Any]) -> Values | None:
    """Return how good each unit's answer is, higher is better, nan where it has no label; None without any score.

    A unit is a sample, or a pair of samples where the label belongs to two. Where the task scores single samples
    (right or wrong, the average precision of an image, the error rate of an utterance) that is the quality. A metric
    that needs many (a rank correlation) gives its jackknife pseudo-values n s - (n - 1) s_(-i) (Tukey 1958), whose
    mean is the metric without its first-order bias.
    """
    sign = 1.0 if task.higher_is_better else -1.0
    size = unit_size(targets)
    count = len(targets) // size
    single = [task.score([p], [t]) for p, t in zip(predictions, targets, strict=True)] if size == 1 else []
    if any(each is not None for each in single):
        return np.array([np.nan if each is None else sign * each.value for each in single])
    whole = task.score(predictions, targets)
    if whole is None:
        return None
    left_out = []
    for unit in range(count):
        keep = [at for at in range(count * size) if at // size != unit]
        part = task.score([predictions[at] for at in keep], [targets[at] for at in keep])
        left_out.append(np.nan if part is None else part.value)
    return sign * (count * whole.value - (count - 1) * np.array(left_out))


def unit_size(targets: Sequence[Any]) -> int:
    """Return how many consecutive samples belong together: 2 for pairs of sentences."""
    return 2 if targets and isinstance(targets[0], Pair) else 1


def excess(losses: Values, *, generator: np.random.Generator) -> Excess:
    """Return the mean of per-unit excess losses `[units]` with its interval and a sign-flip test.

    Under the hypothesis that both models lose alike, each unit's excess is as likely to have the other sign
    (Fisher's randomisation test); zero-only differences have p = 1. nan units are left out. Raises ValueError
    without a unit.
    """
    known = losses[np.isfinite(losses)]
    if not known.size:
        raise ValueError("no unit has a known loss")
    total = float(known.sum())
    signs = generator.integers(0, 2, size=(_FLIPS, known.size)).astype(np.float64) * 2 - 1
    as_far = int((signs @ known >= total - 1e-12).sum())
    interval = bca_interval(
        lambda drawn: float(known[drawn].mean()), known.size, generator=generator, resamples=_RESAMPLES
    )
    return Excess(mean=total / known.size, interval=interval, p=(1 + as_far) / (1 + _FLIPS), units=known.size)
