"""What a sealed variant is known by: its accuracy on the test split, and the calibration that is swapped with it.

The same samples are looked at whatever the machine is doing, so that sealing twice gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgewise.contracts.budget import Budget
from edgewise.contracts.evidence import Figures
from edgewise.contracts.verification import Depth, VariantCalibration
from edgewise.forge.data.labels import Labelled
from edgewise.forge.progress import Progress
from edgewise.forge.tasks.base import Task
from edgewise.forge.verify.beliefs import beliefs_of
from edgewise.forge.verify.calibration import calibration_findings
from edgewise.forge.verify.ood import own_cutoffs
from edgewise.forge.verify.open import QUICK_SAMPLES, seeded_part
from edgewise.forge.verify.pairs import pair
from edgewise.forge.verify.subject import Subject
from edgewise.forge.verify.verify import accuracies_of, calibration_of
from edgewise.runtimes.base import Runtime, Session


class Examiner(msgspec.Struct, frozen=True, kw_only=True):
    """fp32 and the data that every variant is held against. `test` may be labelled or not."""

    task: Task
    test: Labelled
    calibrate: Labelled | None
    reference_path: Path
    reference: Session
    runtime: Runtime
    threads: int
    seed: int
    progress: Progress

    def examine(self, path: Path, figures: Figures) -> tuple[Figures, VariantCalibration]:
        """Return a variant's figures, those of accuracy taken on the test split, and its own calibration."""
        variant = self.runtime.load(path, threads=self.threads)
        test, _ = seeded_part(self.test, QUICK_SAMPLES, seed=self.seed)
        self.progress.start(f"test split, {path.parent.name}", len(test))
        subject = Subject(
            task=self.task,
            test=test,
            calibrate=self.calibrate,
            reference_path=self.reference_path,
            normalised_path=self.reference_path,
            variant_path=path,
            reference=self.reference,
            variant=variant,
            runtime=self.runtime,
            threads=self.threads,
            pairs=pair(self.task, self.reference, variant, test, report=self.progress.advance),
            recipe=None,
            groups=None,
            budget=Budget(),
            depth=Depth.QUICK,
            seed=self.seed,
        )
        beliefs = beliefs_of(subject)
        found = calibration_of(calibration_findings(subject, beliefs) if beliefs is not None else ())
        # The cosine is of the run's select split; the pairs do not hold what it is made of.
        accuracy = accuracies_of(subject)[1] | {"cosine": None}
        return (
            msgspec.structs.replace(figures, **accuracy),
            msgspec.structs.replace(found, cutoffs=own_cutoffs(subject)),
        )
