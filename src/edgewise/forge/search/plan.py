"""How far each effort looks."""

from __future__ import annotations

from edgewise.contracts.base import Value
from edgewise.contracts.project import Effort
from edgewise.contracts.recipe import RangeMethod


class SearchPlan(Value, kw_only=True):
    """Limits of one search."""

    calibration_samples: int
    """At most so many samples are calibrated on, spread over those there are."""
    range_methods: tuple[RangeMethod, ...]
    sensitivity_samples: int
    """Samples of the select split each region alone is judged on; 0 leaves sensitivity out."""
    clipped_tensors: int
    """How many of the noisiest tensors are tried with narrower and wider ranges."""
    moment_samples: int
    """Calibration samples behind weight reconstruction and bias correction; 0 leaves both out."""
    placements: int
    profile_rounds: int
    shortlist: int
    """Candidates that are timed end to end, fp32 besides."""
    measure_seconds: float
    timed_samples: int = 16
    """Inputs that times are measured on."""
    precision: float = 0.01
    """A speed-up known to this share is not measured longer."""
    corrections: int
    """How often measured times correct the cost model and the sweep is repeated."""
    tolerance: float
    """How many times the task's own tolerance a variant may diverge where the budget limits no accuracy."""
    select_samples: int = 256
    """Candidates are judged on at most so many samples."""
    judged_samples: int = 192
    """A smaller select split that edgewise set aside itself is filled up to so many from the rest of the pool."""
    direct: bool = False
    """Look at one integer format for each region and one correction only, unless the budget limits the size."""
    test_samples: int | None = None
    """The final evidence is of at most so many samples, spread over the test split; None takes all of it."""


PLANS = {
    Effort.FAST: SearchPlan(
        calibration_samples=48,
        range_methods=(RangeMethod.MSE,),
        sensitivity_samples=0,
        clipped_tensors=0,
        moment_samples=16,
        placements=2,
        profile_rounds=8,
        shortlist=2,
        timed_samples=8,
        measure_seconds=0.08,
        precision=0.02,
        corrections=0,
        tolerance=8.0,
        select_samples=32,
        judged_samples=32,
        direct=True,
        test_samples=64,
    ),
    Effort.DEFAULT: SearchPlan(
        calibration_samples=512,
        range_methods=(
            RangeMethod.MSE,
            RangeMethod.PERCENTILE_9999,
            RangeMethod.PERCENTILE_99999,
            RangeMethod.MIN_MAX,
        ),
        sensitivity_samples=12,
        clipped_tensors=16,
        moment_samples=128,
        placements=12,
        profile_rounds=24,
        shortlist=7,
        measure_seconds=8.0,
        corrections=1,
        tolerance=1.0,
    ),
    Effort.THOROUGH: SearchPlan(
        calibration_samples=2048,
        range_methods=tuple(RangeMethod),
        sensitivity_samples=32,
        clipped_tensors=64,
        moment_samples=512,
        placements=24,
        profile_rounds=60,
        shortlist=10,
        measure_seconds=30.0,
        corrections=2,
        tolerance=1.0,
    ),
}
