"""Where a run is: a bar per phase on a terminal, a line per phase elsewhere, nothing under --json in a pipe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as Bars,
)
from rich.text import Text

from edgewise.cli.console import clean
from edgewise.forge.progress import Progress, Silent

_QUIET_S = 0.05
"""A phase without steps that took less is not worth a line of a log."""


@contextlib.contextmanager
def drawn(console: Console, *, quiet: bool) -> Iterator[Progress]:
    """Yield what draws the progress of a run on `console`; `quiet` draws only on a terminal."""
    if console.is_terminal:
        with Bars(
            SpinnerColumn(finished_text="[green]\N{CHECK MARK}[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Steps(),
            TimeElapsedColumn(),
            _Left(),
            console=console,
        ) as bars:
            phases = _Phases(bars)
            yield phases
            phases.finish()
    elif quiet:
        yield Silent()
    else:
        lines = _Lines(console)
        yield lines
        lines.finish()


class _Phases:
    """One bar per phase."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._current: TaskID | None = None

    def start(self, phase: str, total: int | None) -> None:
        self.finish()
        self._current = self._bars.add_task(Text(clean(phase)).markup, total=total)

    def advance(self, done: int) -> None:
        if self._current is not None:
            self._bars.update(self._current, completed=done)

    def note(self, message: str) -> None:
        self._bars.console.print(Text(clean(message)))

    def finish(self) -> None:
        if self._current is None:
            return
        total = self._bars.tasks[self._bars.task_ids.index(self._current)].total
        self._bars.update(self._current, total=total or 1, completed=total or 1)
        self._current = None


class _Lines:
    """One line where a phase begins, one where it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._since = 0.0

    def start(self, phase: str, total: int | None) -> None:
        self.finish()
        self._phase, self._since = clean(phase), time.monotonic()
        self._say(f"{self._phase} ..." if total is None else f"{self._phase} ({total}) ...")

    def advance(self, done: int) -> None:
        """Ignore a step: a log needs none."""

    def note(self, message: str) -> None:
        self._say(clean(message))

    def finish(self) -> None:
        if self._phase and (took := time.monotonic() - self._since) >= _QUIET_S:
            self._say(f"{self._phase}: done in {took:.1f} s")
        self._phase = ""

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


class _Steps(MofNCompleteColumn):
    """Steps done of all, for phases that have steps."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None or task.total <= 1 else super().render(task)


class _Left(ProgressColumn):
    """Time left, as far as it can be told from the steps that are done."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        if task.finished or left is None or task.total is None:
            return Text("")
        minutes, seconds = divmod(int(left), 60)
        return Text(f"{minutes}:{seconds:02} left", style="progress.remaining")
