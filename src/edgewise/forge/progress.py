"""How long work tells the outside where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the phases of a run. The command line draws them; tests and libraries may ignore them."""

    def start(self, phase: str, total: int | None) -> None:
        """Begin a phase of `total` steps (None where nobody knows); this ends the one before."""
        ...

    def advance(self, done: int) -> None:
        """Say how many steps of the current phase are done."""
        ...

    def note(self, message: str) -> None:
        """Tell the user something worth a line."""
        ...


class Silent:
    """Ignores everything."""

    def start(self, phase: str, total: int | None) -> None:
        """Ignore a phase."""

    def advance(self, done: int) -> None:
        """Ignore a step."""

    def note(self, message: str) -> None:
        """Ignore a message."""
