"""What a run found, for people: figures as words, and one self-contained page."""

from __future__ import annotations

from edgewise.forge.report.page import write_report
from edgewise.forge.report.pictures import Picture

__all__ = ["Picture", "write_report"]
