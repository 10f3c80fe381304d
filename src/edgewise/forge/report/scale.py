"""From values to places on a drawing, and the round values that stand at its edge."""

from __future__ import annotations

import math

import msgspec


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """A linear or logarithmic axis from `low..high` to the pixels `start..end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value; values outside are drawn at the edge."""
        low, high, here = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, here = math.log10(low), math.log10(high), math.log10(here)
        share = (here - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round values inside the axis."""
        if self.is_log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first) / count))
            return [10.0**power for power in range(first, last + 1, step)]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        raw = span / count
        power = 10 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(step * each, 12) for each in range(first, math.floor(self.high / step + 1e-9) + 1)]


def log_scale(values: list[float], start: float, end: float) -> Scale:
    """Return a logarithmic scale around positive values, at least a decade wide."""
    low, high = min(values), max(values)
    return Scale(low=low / 1.6, high=max(high * 1.6, low * 10), start=start, end=end, is_log=True)


def linear_scale(values: list[float], start: float, end: float, *, room: float = 0.08) -> Scale:
    """Return a linear scale around values with some room on either side."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    return Scale(low=low - span * room, high=high + span * room, start=start, end=end)


def tick_text(value: float) -> str:
    """Return a tick's text.

    >>> tick_text(1e-05), tick_text(0.5), tick_text(1500.0)
    ('1e-5', '0.5', '1500')
    """
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:g}"
