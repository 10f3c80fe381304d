"""`report.html`: one file that loads nothing, needs no scripts, and can be read, printed and mailed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edgewise.contracts.run import Run
from edgewise.forge.cache import write_atomically
from edgewise.forge.report import sections
from edgewise.forge.report.markup import Html, join, tag
from edgewise.forge.report.pictures import Picture

_STYLE = Path(__file__).with_name("page.css")
# Nothing may be loaded and no script may run, whatever a model's names hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(run: Run, *, path: Path, pictures: Sequence[Picture] = (), proof: Html | None = None) -> None:
    """Write the page, whole or not at all. Raises OutputError where the disk refuses."""
    write_atomically(path, page(run, pictures=pictures, proof=proof).encode())


def page(run: Run, *, pictures: Sequence[Picture] = (), proof: Html | None = None) -> str:
    """Return the whole page; `proof` is what a verification found, as a section."""
    parts = (
        sections.verdict(run),
        proof,
        sections.figures(run),
        sections.pareto(run),
        sections.accuracy(run),
        sections.time(run),
        sections.flips(run, pictures),
        sections.ranges(run),
        sections.agreement(run),
        sections.candidates(run),
        sections.provenance(run),
    )
    return document(f"edgewise: {run.model}", parts)


def document(title: str, parts: Iterable[Html | None]) -> str:
    """Return a page that loads nothing, with these sections."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    body = tag("body", tag("main", *parts))
    return join([Html("<!doctype html>\n"), tag("html", head, body, lang="en"), "\n"])
