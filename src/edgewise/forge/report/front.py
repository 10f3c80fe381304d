"""The Pareto front: how fast each candidate is against how far it is from fp32."""

from __future__ import annotations

from edgewise.contracts.evidence import Candidate, Status
from edgewise.contracts.run import Run
from edgewise.forge.report.figures import REFERENCE, number, speedup
from edgewise.forge.report.markup import Html, tag
from edgewise.forge.report.scale import Scale, linear_scale, log_scale, tick_text

_WIDTH, _HEIGHT = 860, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 20, 96
_FP32_X = _LEFT + 14
_NOISE = 1e-7
"""Distances below this share of the largest are rounding of float32, as a folded model has: they count as none."""
_LINE, _LABEL, _MOST_CHARACTERS = 15, 160, 26
_STRIP = 26
"""Height of the strip below the plot for candidates that were judged and not timed."""


def front(run: Run) -> Html | None:
    """Return the plot, or None where no candidate was measured."""
    others = [each for each in run.candidates if each.name != REFERENCE and each.divergence is not None]
    placed = [each for each in others if each.status is Status.MEASURED and each.speedup is not None]
    screened = [each for each in others if each.status is Status.SCREENED]
    if not placed:
        return None
    far = [each.divergence for each in (*placed, *screened) if each.divergence]
    seen = [each for each in far if each > max(far) * _NOISE] or [1e-6, 1.0]
    across = log_scale(seen, _LEFT + 40, _WIDTH - _RIGHT)
    up = linear_scale([1.0, *(each.speedup for each in placed if each.speedup)], _HEIGHT - _BOTTOM, _TOP, room=0.12)
    best = _best(placed)
    parts = [
        _axes(across, up),
        _staircase(best, across, up),
        *(_screened(each, across) for each in screened),
        *(_point(each, across, up, _class(each, run, best)) for each in placed),
        _reference(up),
        *_labels([*(each for each in placed if _is_chosen(each, run) or each in best)], run, across, up),
    ]
    return tag(
        "div",
        tag(
            "svg",
            *parts,
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            class_="plot",
            aria_label="Speedup against distance to fp32",
        ),
        class_="scroll",
    )


def _x(each: Candidate, across: Scale) -> float:
    """Return where a candidate stands; one with the outputs of fp32 stands above it, left of the logarithms."""
    far = each.divergence or 0.0
    return across.at(far) if far >= across.low else _FP32_X


def _best(candidates: list[Candidate]) -> list[Candidate]:
    """Return those that no other, nor fp32, beats in both speed and distance, the closest to fp32 first."""
    found: list[Candidate] = []
    fastest = 1.0
    for each in sorted(candidates, key=lambda each: (each.divergence or 0.0, -(each.speedup or 0.0))):
        if (each.speedup or 0.0) > fastest:
            found.append(each)
            fastest = each.speedup or 0.0
    return found


def _axes(across: Scale, up: Scale) -> Html:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    strip = bottom + 12
    parts = []
    for value in up.ticks(6):
        y = up.at(value)
        parts.append(tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{value:g}x", x=_LEFT - 8, y=y + 4, class_="tick end"))
    for value in across.ticks(6):
        x = across.at(value)
        parts.append(tag("line", x1=x, x2=x, y1=_TOP, y2=strip + _STRIP, class_="grid"))
        parts.append(tag("text", tick_text(value), x=x, y=strip + _STRIP + 18, class_="tick middle"))
    parts.append(tag("rect", x=_LEFT, y=strip, width=right - _LEFT, height=_STRIP, class_="strip"))
    parts.append(tag("text", "not timed", x=_LEFT - 8, y=strip + _STRIP / 2 + 4, class_="tick end"))
    parts.append(
        tag(
            "text",
            "distance to fp32 on the select split (lower is closer)",
            x=(_LEFT + right) / 2,
            y=_HEIGHT - 12,
            class_="axis middle",
        )
    )
    middle = (_TOP + bottom) / 2
    parts.append(
        tag("text", "speed over fp32", x=16, y=middle, class_="axis middle", transform=f"rotate(-90 16 {middle:g})")
    )
    return tag("g", *parts)


def _reference(up: Scale) -> Html:
    y, x = up.at(1.0), _FP32_X
    return tag(
        "g",
        tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="fp32"),
        tag("path", tag("title", "fp32: distance 0, speed 1"), d=f"M{x} {y - 8}l8 8l-8 8l-8-8z", class_="fp32"),
        tag("text", "fp32", x=x + 12, y=round(y + 17, 1), class_="label"),
    )


def _staircase(best: list[Candidate], across: Scale, up: Scale) -> Html:
    """Return the front as steps: between two candidates nothing better was found."""
    points = [(_x(each, across), up.at(each.speedup or 0.0)) for each in best]
    path = f"M{_FP32_X} {up.at(1.0):g}" + "".join(f"H{x:g}V{y:g}" for x, y in points)
    return tag("path", d=path + f"H{_WIDTH - _RIGHT}", class_="front")


def _point(each: Candidate, across: Scale, up: Scale, kind: str) -> Html:
    x, y = _x(each, across), up.at(each.speedup or 0.0)
    shape = tag("circle", tag("title", _words(each)), cx=x, cy=y, r=8 if kind == "chosen" else 5, class_=f"dot {kind}")
    interval = each.speedup_interval
    if interval is None:
        return shape
    whisker = tag("line", x1=x, x2=x, y1=up.at(interval.low), y2=up.at(interval.high), class_=f"whisker {kind}")
    return tag("g", whisker, shape)


def _screened(each: Candidate, across: Scale) -> Html:
    x, y = _x(each, across), _HEIGHT - _BOTTOM + 12 + _STRIP / 2
    return tag("circle", tag("title", _words(each)), cx=x, cy=y, r=4, class_="dot screened")


def _labels(candidates: list[Candidate], run: Run, across: Scale, up: Scale) -> list[Html]:
    """Return names beside the points, pushed apart where they would cover each other."""
    placed: list[tuple[float, float]] = []
    found = []
    for each in sorted(candidates, key=lambda each: not _is_chosen(each, run)):
        x, y = _x(each, across), up.at(each.speedup or 0.0) - 9
        while any(abs(y - other_y) < _LINE and abs(x - other_x) < _LABEL for other_x, other_y in placed):
            y -= _LINE
        placed.append((x, y))
        is_right = x > _WIDTH - _RIGHT - _LABEL
        kind = ("label strong" if _is_chosen(each, run) else "label") + (" end" if is_right else "")
        x += -12 if is_right else 12
        found.append(tag("text", each.name[:_MOST_CHARACTERS], x=round(x, 1), y=round(y, 1), class_=kind))
    return found


def _is_chosen(each: Candidate, run: Run) -> bool:
    return run.chosen is not None and each.name == run.chosen.name


def _class(each: Candidate, run: Run, best: list[Candidate]) -> str:
    if _is_chosen(each, run):
        return "chosen"
    return "best" if each in best else "measured"


def _words(each: Candidate) -> str:
    return f"{each.name}: {speedup(each)}, distance {number(each.divergence)}, flips {number(each.flip_rate, '%')}"
