"""Pipelines: stages joined by mailboxes, deadlines that are kept or given up early, and no item lost from sight."""

from edgewise.device.pipeline.core import Counts, End, Ended
from edgewise.device.pipeline.pipeline import Pipeline, Stage, Stopped, Ticket
from edgewise.device.pipeline.policy import block, latest, reject

__all__ = ["Counts", "End", "Ended", "Pipeline", "Stage", "Stopped", "Ticket", "block", "latest", "reject"]
