"""What every suite is given: the variant beside fp32 on the shipped runtime, the task and its data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgewise.contracts.budget import Budget
from edgewise.contracts.recipe import Recipe
from edgewise.contracts.verification import Depth, Section
from edgewise.forge.data.labels import Labelled
from edgewise.forge.kept import Kept
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Feeds, Outputs, Task
from edgewise.forge.verify.beside import Beside
from edgewise.runtimes.base import Runtime, Session


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """Both models on the test split, once: what most suites read instead of running again.

    `outputs` are held only up to a bound (`held` samples from the first on); predictions of all samples are.
    """

    reference_predictions: tuple[Any, ...]
    variant_predictions: tuple[Any, ...]
    targets: tuple[Any, ...]
    reference_outputs: tuple[Outputs, ...]
    variant_outputs: tuple[Outputs, ...]
    reference_margins: tuple[float | None, ...]
    divergences: tuple[float, ...]
    """The task's own distance of the variant's outputs to fp32's, per sample."""

    @property
    def held(self) -> int:
        """The number of leading samples whose outputs are kept."""
        return len(self.reference_outputs)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A variant under examination.

    `test` is the labelled split that the verdict is about; `calibrate` is the pool the ranges came from (None
    without one). `recipe` is None where only the file is known. Random parts draw from
    `numpy.random.default_rng((seed, number of the suite))`.
    """

    task: Task
    test: Labelled
    calibrate: Labelled | None
    reference_path: Path
    """The fp32 model as given by the user."""
    normalised_path: Path
    """The fp32 model after import, which recipes speak about: with its channels equalised, where the recipe's are."""
    variant_path: Path
    reference: Session
    variant: Session
    runtime: Runtime
    threads: int
    pairs: Pairs
    recipe: Recipe | None
    groups: tuple[str, ...] | None
    """The user's subgroup of every test sample, or None."""
    budget: Budget
    depth: Depth
    seed: int
    kept: Kept | None = None
    """What calibration data determined of the variant; with `recipe` and fp32 it makes every bit of it."""
    equalised: bool = False
    """Whether `normalised_path` is equalised, and was found to compute what fp32 does."""
    seconds: float = 8.0
    """Processor time that one suite may take, about: with more to look at than that, it looks at a seeded part."""
    fps: float | None = None
    """The rate of a soak, in inferences per second, where the user gave one."""
    minutes: float | None = None
    """The length of a soak, where the user gave one."""
    beside: Beside = msgspec.field(default_factory=Beside)

    def run_both(self, feeds: Feeds) -> tuple[Outputs, Outputs]:
        """Return fp32's and the variant's outputs for one sample."""
        return self.beside.both(lambda: self.reference.run(feeds), lambda: self.variant.run(feeds))


Suite = Callable[[Subject, Progress], Section]
"""A suite reports its own progress (`progress.start(phase, total)`), and never raises for what it cannot
do here: that is a finding graded `unavailable`."""
