"""Whether calibration and test samples come from one distribution: their inputs, and what fp32 makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from edgewise.contracts.verification import Finding, Grade
from edgewise.forge.curate.profile import Profile
from edgewise.numerics.drift import MUCH, SOME, holm, stability_index

LEVEL = 0.001
FEWEST = 20
"""Samples on either side below which nothing can be said."""
_SHOWN = 3


def drift(one: Profile, other: Profile) -> list[Finding]:
    """Return how far `other` has moved from `one`: inputs and outputs, over all statistics of a sample.

    Each statistic is tested by Kolmogorov and Smirnov with Holm's correction; a significant one is graded by its
    population stability index, for with many samples the smallest shift is significant.
    """
    subject = f"{one.name} / {other.name}"
    return [
        _drift("data.input_drift", subject, one.inputs, other.inputs),
        _drift("data.output_drift", subject, one.outputs, other.outputs),
    ]


def constant_inputs(split: Profile) -> list[Finding]:
    """Return samples that hold one value only, and channels that are the same in all samples."""
    still = [
        name.removesuffix(" mean")
        for name, values in split.inputs.items()
        if name.endswith(" mean") and len(values) > 1 and np.ptp(values) == 0 and not _varies(split.inputs, name)
    ]
    first = ", ".join(map(str, split.constant[:_SHOWN])) + (", ..." if len(split.constant) > _SHOWN else "")
    return [
        Finding(
            name="data.constant_sample",
            subject=split.name,
            grade=Grade.FLAG if split.constant else Grade.PASS,
            value=float(len(split.constant)),
            detail=f"{len(split.constant)} of {len(split.indices)} samples of {split.name} hold one value only"
            + (f" (number {first})" if first else ""),
            advice="black images, silence or dead sensors: remove them unless the device sees such" if first else "",
        ),
        Finding(
            name="data.constant_channel",
            subject=split.name,
            grade=Grade.FLAG if still else Grade.PASS,
            value=float(len(still)),
            detail=f"{len(still)} input channels never change in {split.name}"
            + (f": {', '.join(still[:8])}" if still else ""),
            advice="look whether the preparation lost them: their range cannot be calibrated" if still else "",
        ),
    ]


def _varies(inputs: Mapping[str, NDArray[np.float64]], name: str) -> bool:
    spread = inputs.get(name.removesuffix("mean") + "std")
    return spread is not None and bool(spread.any())


def _drift(
    name: str, subject: str, one: Mapping[str, NDArray[np.float64]], other: Mapping[str, NDArray[np.float64]]
) -> Finding:
    both = [each for each in one if each in other and min(len(one[each]), len(other[each])) >= FEWEST]
    if not both:
        return Finding(
            name=name,
            subject=subject,
            grade=Grade.UNKNOWN,
            detail=f"fewer than {FEWEST} samples on one side: a shift cannot be told from chance",
            advice="add samples",
        )
    p = holm([float(ks_2samp(one[each], other[each], method="asymp").pvalue) for each in both])
    moved = {
        each: stability_index(one[each], other[each]) for each, value in zip(both, p, strict=True) if value < LEVEL
    }
    worst = sorted(moved, key=moved.__getitem__, reverse=True)[:_SHOWN]
    value = moved[worst[0]] if worst else 0.0
    words = "; ".join(
        f"{each} {moved[each]:.2f} (median {np.median(one[each]):.3g}, then {np.median(other[each]):.3g})"
        for each in worst
    )
    grade = Grade.FAIL if value >= MUCH else Grade.FLAG if value >= SOME else Grade.PASS
    return Finding(
        name=name,
        subject=subject,
        grade=grade,
        value=value,
        limit=MUCH,
        detail=f"{len(moved)} of {len(both)} statistics differ (KS, Holm, p < {LEVEL:g})"
        + (f"; stability index {words}" if worst else ""),
        advice="calibrate on samples like those the device will see" if grade is not Grade.PASS else "",
    )
