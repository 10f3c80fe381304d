"""One run from the command line: claim the folder, draw the progress, write the report, print the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.cli.console import print_document, stderr_console, stdout_console, stdout_kept
from edgewise.cli.output import EVIDENCE, PROOF, REPORT, claim
from edgewise.contracts.project import Project
from edgewise.contracts.verification import Verification
from edgewise.errors import InputError, MissingExtraError, TransferError
from edgewise.forge.progress import Progress

if TYPE_CHECKING:
    from edgewise.forge.report.markup import Html

FITS, NOTHING_FITS = 0, 3


def carry_out(
    project: Project,
    *,
    base: Path,
    output: Path,
    json: bool,
    cluster: str | None = None,
    fresh: bool = False,
    proof: bool = False,
    on: str | None = None,
) -> int:
    """Optimize, write the report beside the evidence, print table or document; return the exit code.

    `on` is the address of an agent whose device measures. `proof` also verifies what was chosen, quickly, and shows
    that in the report.
    """
    claimed = claim(output)
    try:
        with stdout_kept():
            # What follows takes seconds to import: bad options and folders were refused before.
            from edgewise.cli.progress import drawn  # noqa: PLC0415
            from edgewise.forge.optimize import optimize  # noqa: PLC0415

            lab = None
            if on is not None:
                from edgewise.forge.measure.agent_lab import AgentLab  # noqa: PLC0415

                lab = AgentLab(on, os.environ.get("EDGEWISE_LAB_TOKEN", ""))
            with drawn(stderr_console(), quiet=json) as progress:
                run = optimize(
                    project, base=base, output=output, progress=progress, cluster=cluster, lab=lab, fresh=fresh
                )
                verified = (
                    _verified(output, seed=project.search.seed, progress=progress) if proof and run.chosen else None
                )
                progress.start("report", None)
                from edgewise.forge.report import write_report  # noqa: PLC0415 - the run has loaded most of it
                from edgewise.forge.report.exemplars import exemplars  # noqa: PLC0415

                pictures = exemplars(run, config=project.task, base=base, note=progress.note)
                proven = _proven(verified) if verified is not None else None
                write_report(run, path=output / REPORT, pictures=pictures, proof=proven)
    except (InputError, MissingExtraError, TransferError):
        claimed.release()
        raise
    if json:
        print_document(run)
    else:
        from edgewise.cli.table import print_run  # noqa: PLC0415

        places = [("report", output / REPORT), ("evidence", output / EVIDENCE)]
        if run.chosen is not None and run.chosen.path is not None:
            places.insert(0, ("variant", Path(run.chosen.path)))
        print_run(run, stdout_console(), places=places)
        if verified is not None:
            _print_proof(verified, output)
    return FITS if run.chosen is not None else NOTHING_FITS


# What verification needs takes longer to import than a fast search takes: only a run that proves pays for it.
def _verified(output: Path, *, seed: int, progress: Progress) -> Verification:
    """Verify what a run chose, quickly, into the folder of the run."""
    from edgewise.cli.proof import proved  # noqa: PLC0415
    from edgewise.forge.verify.baseline import FOLDER  # noqa: PLC0415
    from edgewise.forge.verify.given import given_by_run  # noqa: PLC0415
    from edgewise.forge.verify.open import Asked  # noqa: PLC0415

    return proved(given_by_run(output), Asked(seed=seed), output=output / FOLDER, progress=progress)


def _proven(verified: Verification) -> Html:
    """Return the verification's verdict as a section of the run's report."""
    from edgewise.forge.report.verification import summary  # noqa: PLC0415
    from edgewise.forge.verify.baseline import FOLDER  # noqa: PLC0415

    return summary(verified, link=f"{FOLDER}/{PROOF}")


def _print_proof(verified: Verification, output: Path) -> None:
    """Show the verification under the run's table."""
    from edgewise.cli.verdict import print_verification  # noqa: PLC0415
    from edgewise.forge.verify.baseline import FOLDER  # noqa: PLC0415

    print_verification(verified, stdout_console(), places=[("proof", output / FOLDER / PROOF)])
