"""`fleet.html`: the story as one page that loads nothing."""

from __future__ import annotations

from pathlib import Path

from edgewise.contracts.rollout import GateFigure
from edgewise.demo.loop.story import Ended, Story, figures
from edgewise.forge.cache import write_atomically
from edgewise.forge.report.markup import Html, table, tag
from edgewise.forge.report.page import document

MISSING = "unknown"


def write_page(story: Story, path: Path) -> None:
    """Write the page, whole or not at all. Raises OutputError where the disk refuses."""
    write_atomically(path, document("edgewise: a fleet of devices", _parts(story)).encode())


def _parts(story: Story) -> tuple[Html, ...]:
    said = "went as planned" if story.as_told else "did not go as planned"
    first = tag(
        "section",
        tag("h1", "Two rollouts over ", story.devices, " devices"),
        tag(
            "p",
            tag("span", said.capitalize(), class_="said"),
            f", in {story.seconds:.0f} s. Every device and the server",
        ),
        tag("p", "were real processes on this machine, signed and checked as a fleet's are."),
    )
    return (
        first,
        tag("section", tag("h2", "What happened"), _moments(story)),
        *(_rollout(each) for each in story.ended),
        tag("section", tag("h2", "What the applications got"), _answers(story)),
        tag("section", tag("h2", "The same by hand"), tag("pre", "\n".join(story.commands))),
    )


def _moments(story: Story) -> Html:
    return table(("second", "what"), ((f"{each.at_s:.0f}", each.words) for each in story.moments))


def _answers(story: Story) -> Html:
    return table(("outcome", "answers"), ((kind, count) for kind, count in sorted(story.answers.items())))


def _rollout(ended: Ended) -> Html:
    rollout = ended.rollout
    title = f"{rollout.from_release.version} to {rollout.to_release.version}: {rollout.state.value.replace('_', ' ')}"
    reason = rollout.last.reason if rollout.last is not None else ""
    rows = [_row(each) for each in figures(rollout)]
    head = ("gate", "margin", "found", "interval", "p of harm", "canaries", "controls", "verdict")
    return tag(
        "section",
        tag("h2", title),
        tag("p", f"The last gate: {reason}" if reason else "No gate was asked."),
        table(head, rows) if rows else None,
        table(("release", "devices"), sorted(ended.devices.items())),
    )


def _row(figure: GateFigure) -> tuple[str | int, ...]:
    verdict = "harm" if figure.harmed else "within" if figure.within else figure.reason or "undecided"
    interval = f"{_share(figure.low)} to {_share(figure.high)}"
    p = MISSING if figure.p_harm is None else f"{figure.p_harm:.2g}"
    margin = _share(figure.margin)
    return figure.gate, margin, _share(figure.effect), interval, p, figure.canaries, figure.controls, verdict


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.1%}"
