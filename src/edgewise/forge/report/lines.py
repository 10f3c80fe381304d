"""Line charts: curves over one pair of axes, each with its band."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.contracts.verification import Chart, Line
from edgewise.forge.report.markup import Html, tag
from edgewise.forge.report.scale import Scale, linear_scale, tick_text

_WIDTH, _HEIGHT = 520, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 14, 46
_STYLES = 6
"""Curves are told apart by so many colours and dashes, then again from the first."""
_LONGEST = 32
"""Characters of a vertical axis's name that fit beside it; a longer one stands in the caption."""
_DOTTED = 24
"""Up to so many points of a curve are marked."""


def line_chart(chart: Chart) -> Html:
    """Return a chart as a figure; a curve without points is left out, a chart without curves says so."""
    lines = [each for each in chart.lines if each.x]
    if not lines:
        return tag("figure", tag("div", "no points", class_="text"), tag("figcaption", chart.title))
    across = linear_scale([x for each in lines for x in each.x], _LEFT, _WIDTH - _RIGHT, room=0.02)
    up = linear_scale([y for each in lines for y in (*each.y, *each.low, *each.high)], _HEIGHT - _BOTTOM, _TOP)
    drawing = tag(
        "svg",
        *_axes(chart, across, up),
        *(_band(each, at, across, up) for at, each in enumerate(lines) if each.low and each.high),
        *(_curve(each, at, across, up) for at, each in enumerate(lines)),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        class_="lines",
        aria_label=chart.title,
    )
    caption = tag("figcaption", chart.title, tag("span", chart.y_label, class_="small") if _is_long(chart) else None)
    return tag("figure", caption, drawing, _key(lines) if len(lines) > 1 else None)


def _is_long(chart: Chart) -> bool:
    return len(chart.y_label) > _LONGEST


def _axes(chart: Chart, across: Scale, up: Scale) -> list[Html]:
    parts = []
    for value in up.ticks(4):
        y = up.at(value)
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", tick_text(value), x=_LEFT - 6, y=y + 4, class_="end"))
    base = _HEIGHT - _BOTTOM
    parts += [tag("text", tick_text(each), x=across.at(each), y=base + 17, class_="middle") for each in across.ticks(6)]
    parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base, class_="base"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(tag("text", chart.x_label, x=middle, y=_HEIGHT - 8, class_="middle"))
    if not _is_long(chart):
        turned = f"translate(13 {(_TOP + base) / 2:g}) rotate(-90)"
        parts.append(tag("text", chart.y_label, transform=turned, class_="middle"))
    return parts


def _curve(line: Line, at: int, across: Scale, up: Scale) -> Html:
    places = [(across.at(x), up.at(y)) for x, y in zip(line.x, line.y, strict=True)]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
    marks = [tag("circle", cx=x, cy=y, r=2.6) for x, y in places] if len(places) <= _DOTTED else []
    return tag("g", tag("path", d=path), *marks, class_=f"curve c{at % _STYLES}")


def _band(line: Line, at: int, across: Scale, up: Scale) -> Html:
    upper = [f"{across.at(x):g},{up.at(y):g}" for x, y in zip(line.x, line.high, strict=True)]
    lower = [f"{across.at(x):g},{up.at(y):g}" for x, y in zip(line.x, line.low, strict=True)]
    return tag("polygon", points=" ".join([*upper, *reversed(lower)]), class_=f"band c{at % _STYLES}")


def _key(lines: Sequence[Line]) -> Html:
    names = [
        tag("span", tag("i", class_=f"swatch c{at % _STYLES}"), each.name, class_="entry")
        for at, each in enumerate(lines)
    ]
    return tag("div", *names, class_="small")
