"""Calibration histograms, with the range that was chosen for each tensor."""

from __future__ import annotations

import math

from edgewise.contracts.evidence import HistogramEvidence
from edgewise.forge.report.bars import name
from edgewise.forge.report.markup import Html, tag
from edgewise.forge.report.scale import Scale, tick_text

_WIDTH, _HEIGHT = 280, 110
_BASE = 90


def histogram(each: HistogramEvidence) -> Html:
    """Return one histogram; counts are logarithmic, for tails are what a range cuts off."""
    low, high = min(each.low, each.range_low), max(each.high, each.range_high)
    if not (math.isfinite(low) and math.isfinite(high) and high > low and each.counts):
        return tag("figure", tag("div", "unavailable", class_="text"), tag("figcaption", name(each.tensor)))
    across = Scale(low=low, high=high, start=4, end=_WIDTH - 4)
    left, right = across.at(each.range_low), across.at(each.range_high)
    parts = [tag("rect", x=left, y=4, width=round(right - left, 1), height=_BASE - 4, class_="range")]
    parts.append(tag("path", d=_outline(each, across), class_="counts"))
    parts += [tag("line", x1=x, x2=x, y1=4, y2=_BASE, class_="edge") for x in (left, right)]
    parts.append(tag("line", x1=4, x2=_WIDTH - 4, y1=_BASE, y2=_BASE, class_="base"))
    for value, anchor, x in ((low, "", 4), (high, "end", _WIDTH - 4)):
        parts.append(tag("text", tick_text(float(f"{value:.3g}")), x=x, y=_BASE + 15, class_=f"tick {anchor}"))
    words = f"range {each.range_low:.4g} to {each.range_high:.4g}"
    parts.append(tag("text", words, x=_WIDTH / 2, y=_BASE + 15, class_="tick middle"))
    picture = tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"histogram, {words}")
    return tag("figure", picture, tag("figcaption", name(each.tensor)))


def _outline(each: HistogramEvidence, across: Scale) -> str:
    most = math.log1p(max(each.counts)) or 1.0
    width = (each.high - each.low) / len(each.counts)
    path = [f"M{across.at(each.low):g} {_BASE}"]
    for at, count in enumerate(each.counts):
        y = round(_BASE - math.log1p(max(count, 0)) / most * (_BASE - 10), 1)
        path.append(f"V{y:g}H{across.at(each.low + (at + 1) * width):g}")
    return "".join(path) + f"V{_BASE}Z"
