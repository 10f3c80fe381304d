"""Bars: how much each limit is used, what each region costs in accuracy, and in time."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.contracts.budget import LimitVerdict, Verdict
from edgewise.contracts.evidence import RegionEvidence
from edgewise.forge.report.figures import decibels, limit_name, limit_value, margin, number
from edgewise.forge.report.markup import Child, Html, join, tag

MOST_ROWS = 14
"""Regions that are in sight; the rest is to unfold."""
_MOST_CHARACTERS = 42
_WORDS = {Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.UNKNOWN: "unknown"}
_FULL = 1.5
"""A gauge ends at so many times its limit."""


def gauge(verdict: LimitVerdict, *, by: str = "") -> Html:
    """Return one limit as a card: what was found (`by` a candidate), on a bar that marks the limit."""
    found = verdict.found
    used = None if found is None or verdict.required <= 0 else max(0.0, min(found / verdict.required, _FULL))
    bar: Child = None
    if used is not None:
        bar = tag(
            "div",
            tag("i", style=f"width:{used / _FULL:.1%}"),
            tag("b", style=f"left:{1 / _FULL:.1%}"),
            class_="gauge",
        )
    return tag(
        "div",
        tag("div", tag("span", limit_name(verdict.limit)), chip(verdict.verdict), class_="top"),
        tag("div", limit_value(verdict.limit, found), class_="found"),
        bar,
        tag(
            "div",
            f"at most {limit_value(verdict.limit, verdict.required)}",
            tag("span", f"margin {margin(verdict)}" if verdict.margin is not None else ""),
            class_="top small",
        ),
        tag("div", f"closest: {by}", class_="small") if by else None,
        class_=f"card {_WORDS[verdict.verdict]}",
    )


def chip(verdict: Verdict) -> Html:
    """Return a verdict as a coloured word; the word says it too, for who cannot tell the colours."""
    return tag("span", _WORDS[verdict], class_=f"chip {_WORDS[verdict]}")


def sensitivity(regions: Sequence[RegionEvidence]) -> Html:
    """Return the regions that cost most accuracy first, each quantized alone."""
    known = [each for each in regions if each.divergence is not None]
    worst = sorted(known, key=lambda each: -(each.divergence or 0.0))
    most = max((each.divergence or 0.0 for each in worst), default=0.0) or 1.0
    rows = [
        tag(
            "tr",
            tag("th", name(each.region), scope="row"),
            tag("td", each.kind),
            tag("td", form(each.format)),
            tag("td", bar(each.divergence, most, "noise"), class_="bars"),
            tag("td", number(each.divergence), class_="number"),
            tag("td", decibels(each.sqnr_db), class_="number"),
            tag("td", each.cause),
        )
        for each in worst
    ]
    return _table(
        ("region", "op", "now runs as", "distance to fp32, quantized alone", "", "SQNR", "likely cause"), rows
    )


def times(regions: Sequence[RegionEvidence]) -> Html:
    """Return the regions that take most time first: fp32 above, the variant below."""
    known = [each for each in regions if each.time_fp32_us or each.time_variant_us]
    longest = sorted(known, key=lambda each: -max(each.time_fp32_us or 0.0, each.time_variant_us or 0.0))
    most = max((max(each.time_fp32_us or 0.0, each.time_variant_us or 0.0) for each in longest), default=0.0) or 1.0
    rows = [
        tag(
            "tr",
            tag("th", name(each.region), scope="row"),
            tag("td", each.kind),
            tag("td", form(each.format)),
            tag(
                "td",
                bar(each.time_fp32_us, most, "before"),
                bar(each.time_variant_us, most, "after"),
                class_="bars",
            ),
            tag("td", number(each.time_fp32_us, "µs"), class_="number"),
            tag("td", number(each.time_variant_us, "µs"), class_="number"),
            tag("td", kernel(each)),
        )
        for each in longest
    ]
    return _table(("region", "op", "now runs as", "time", "fp32", "variant", "kernel that ran"), rows)


def kernel(region: RegionEvidence) -> Html:
    """Return the kernel that ran a region; one in float where integers were asked for is pointed out."""
    if region.kernel is None:
        return tag("span", "unknown", class_="small")
    broken = region.runs_quantized is False and region.format.startswith("int8")
    return tag("span", region.kernel, tag("span", " in float", class_="chip fail") if broken else None)


def name(region: str) -> Html:
    """Return a region's name, long ones cut at their front: their ends tell them apart."""
    shown = region if len(region) <= _MOST_CHARACTERS else "\N{HORIZONTAL ELLIPSIS}" + region[-_MOST_CHARACTERS + 1 :]
    return tag("code", shown, title=region)


def form(text: str) -> Html:
    """Return a number format as a coloured word."""
    return tag("span", text, class_="form" + ("" if text.startswith("fp") else " quantized"))


def bar(value: float | None, most: float, kind: str) -> Html | None:
    """Return a bar of a value where `most` is the full width; what is unknown has none."""
    if value is None:
        return None
    return tag("div", class_=f"bar {kind}", style=f"width:{max(0.0, min(value / most, 1.0)):.1%}")


def _align(head: str) -> str | None:
    return "number" if head in {"fp32", "variant", "SQNR"} else None


def _table(head: Sequence[str], rows: Sequence[Html]) -> Html:
    shown, rest = rows[:MOST_ROWS], rows[MOST_ROWS:]
    heads = tag("thead", tag("tr", *(tag("th", each, scope="col", class_=_align(each)) for each in head)))
    first = tag("div", tag("table", heads, tag("tbody", *shown), class_="regions"), class_="scroll")
    if not rest:
        return first
    more = tag("div", tag("table", heads, tag("tbody", *rest), class_="regions"), class_="scroll")
    return join([first, tag("details", tag("summary", f"{len(rest)} more"), more)])
