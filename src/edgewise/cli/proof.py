"""One verification from the command line: claim the folder, draw the progress, write the page, print the result."""

from __future__ import annotations

from pathlib import Path

from edgewise.cli.console import print_document, stderr_console, stdout_console, stdout_kept
from edgewise.cli.output import PROOF, STATE, claim
from edgewise.cli.progress import drawn
from edgewise.cli.verdict import print_verification
from edgewise.contracts.budget import Verdict
from edgewise.contracts.verification import Verification
from edgewise.errors import InputError, MissingExtraError
from edgewise.forge.progress import Progress
from edgewise.forge.report.verification import write_verification
from edgewise.forge.verify.baseline import DOCUMENT
from edgewise.forge.verify.given import Given
from edgewise.forge.verify.open import Asked
from edgewise.forge.verify.verify import verify, write_document

CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNKNOWN: 3}


def prove(
    given: Given, asked: Asked, *, output: Path, baseline: tuple[str, Verification] | None = None, json: bool
) -> int:
    """Verify, write document and page, print table or document; return the exit code."""
    claimed = claim(output, mark=DOCUMENT)
    try:
        with stdout_kept(), drawn(stderr_console(), quiet=json) as progress:
            found = proved(given, asked, output=output, baseline=baseline, progress=progress)
    except (InputError, MissingExtraError):
        claimed.release()
        raise
    if json:
        print_document(found)
    else:
        places = [("report", output / PROOF), ("evidence", output / DOCUMENT)]
        print_verification(found, stdout_console(), places=places)
    return CODES[found.verdict]


def proved(
    given: Given,
    asked: Asked,
    *,
    output: Path,
    baseline: tuple[str, Verification] | None = None,
    progress: Progress,
) -> Verification:
    """Verify and write document and page into a folder that may be written."""
    found = verify(given, asked, work=output / STATE / "model", baseline=baseline, progress=progress)
    progress.start("verification report", None)
    write_document(found.document, output)
    write_verification(found.document, path=output / PROOF, pictures=found.pictures)
    return found.document
