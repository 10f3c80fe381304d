"""The main job: from a trained model, data, a target and a budget to the chosen variant and its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.contracts.project import Project
from edgewise.contracts.run import Run
from edgewise.forge.importing.sandbox import importing
from edgewise.forge.progress import Progress, Silent

if TYPE_CHECKING:
    from edgewise.forge.measure.agent_lab import AgentLab


def optimize(
    project: Project,
    *,
    base: Path,
    output: Path,
    progress: Progress | None = None,
    cluster: str | None = None,
    lab: AgentLab | None = None,
    fresh: bool = False,
) -> Run:
    """Find, measure and write the variant that fits; return everything that was found.

    Paths in `project` are relative to `base`. `output` receives `variants/`, `evidence.json`,
    `project.json` (what was asked for) and `.edgewise/` (what a killed run goes on from). `cluster` judges candidates
    on the Ray cluster at that address. `lab` measures on a device, and the search stays here. `fresh` measures again
    what is known of this machine. Raises EdgewiseError.
    """
    model = project.model
    with importing(model.path, base=base, inputs=model.inputs, work=output / ".edgewise" / "model") as imported:
        # All that a search needs takes as long to load as a small model takes to be read, by a process of its own.
        from edgewise.forge.job import Job  # noqa: PLC0415

        job = Job(
            project, base=base, output=output, progress=progress or Silent(), cluster=cluster, fresh=fresh, lab=lab
        )
        prepared = job.prepare(imported)
    return job.run(prepared)
