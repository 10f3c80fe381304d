"""Is a rate worse among canaries than chance made them? The test knows one thing: which devices are canaries is random.

Events come in clusters that no counting law describes: a few devices have most of the crashes. So the devices' own
scores are taken as they are, and the sum over the canaries is set against its sums over all assignments that could have
been drawn, class by class (Fisher, The Design of Experiments, 1935, section 21; Pitman, JRSS Supplement 4, 1937,
119-130). All of them are counted, none is drawn: by the shift algorithm of Streitberg and Röhmel (Statistical Software
Newsletter 12, 1986, 10-17), which adds one device after another to the number of ways to reach each sum.
"""

from __future__ import annotations

import math
from itertools import zip_longest

import msgspec
import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BLOCK = 64
"""Devices of a class are exchanged within blocks of about this size, so that the work grows with their number alone."""
LEAST_P = 1e-30
"""Smaller chances are not told apart."""

_DAMPED = 2.0
_STEPS, _FEWER_STEPS = 64, 16
_NEVER = 1e-40


class _Law(msgspec.Struct, frozen=True):
    """Chances [width] of a sum of scores over the canaries less what was found, from `least` on."""

    least: int
    chances: DoubleArray

    def __add__(self, other: _Law) -> _Law:
        chances = np.convolve(self.chances, other.chances)
        kept = np.nonzero(chances > _NEVER)[0]
        return _Law(self.least + other.least + int(kept[0]), chances[kept[0] : kept[-1] + 1])

    def tail(self) -> float:
        """Return the chance of a sum at least as large as was found."""
        return float(self.chances[max(-self.least, 0) :].sum())


def scores(events: DoubleArray, trials: DoubleArray, margin: float, steps: int) -> IntArray:
    """Return how bad the devices [n] of one class are, in whole steps; `trials` are above 0.

    A rate counts in full as long as it is small beside c = 2 (margin + 1 / t0), t0 being the median of the trials, and
    only by its logarithm beyond: log2(1 + rate / c). A broken control would else hide ten bad canaries. A device's
    weight t / (t + t0) says how well its rate is known, and what is scored is the difference from the weighted mean of
    the class: devices that had less to do, as those have that joined late, do not score otherwise for that.
    """
    usual = float(np.median(trials))
    weights = trials / (trials + usual)
    damped = np.log2(1 + events / trials / (_DAMPED * (margin + 1 / usual)))
    mean = float(weights @ damped / weights.sum())
    found = np.rint(steps * weights * damped) - np.rint(steps * weights * mean)
    return np.asarray(found, dtype=np.int64)


def p_assigned(events: DoubleArray, trials: DoubleArray, canary: BoolArray, of: IntArray, margin: float) -> float:
    """Return the exact one-sided p-value against "which devices are canaries makes no difference to the rate".

    Events, trials, which are canaries and the class, each [n]; the margin is in events per trial. 1 where no class has
    both. It is no smaller than one over the number of assignments: however many events a single broken device has, it
    is a canary by chance. With the same trials everywhere, one more event of a canary never raises it.
    """
    laws: list[_Law] = []
    for number in np.unique(of[trials > 0]):
        members = (of == number) & (trials > 0)
        chosen, total = int((members & canary).sum()), int(members.sum())
        if 0 < chosen < total:
            steps = _STEPS if total <= BLOCK else _FEWER_STEPS
            found, ours = scores(events[members], trials[members], margin, steps), canary[members]
            laws += [_block(found[block], ours[block]) for block in _blocks(ours)]
    if not laws:
        return 1.0
    while len(laws) > 1:
        laws = [one if other is None else one + other for one, other in zip_longest(laws[::2], laws[1::2])]
    return min(max(laws[0].tail(), LEAST_P), 1.0)


def _blocks(canary: BoolArray) -> list[IntArray]:
    """Deal the devices of a class into blocks, canaries and controls each in an order that has nothing to do with them.

    Where devices are alike, so are those of a block, whichever they are: exchanging them within blocks is exact too.
    """
    size, chosen = canary.size, int(canary.sum())
    count = min(-(-size // BLOCK), chosen, size - chosen)
    if count == 1:
        return [np.arange(size)]
    order = np.random.default_rng(size).permutation(size)
    canaries, controls = order[canary[order]], order[~canary[order]]
    return [np.concatenate((canaries[first::count], controls[first::count])) for first in range(count)]


def _block(found: IntArray, canary: BoolArray) -> _Law:
    """Return the law of the canaries' sum, each of the equally likely choices of so many devices counted."""
    chosen = int(canary.sum())
    if 2 * chosen > found.size:  # the controls say the same and are fewer
        found, canary, chosen = -found, ~canary, found.size - chosen
    found = found - found.min()
    width = int(np.sort(found)[-chosen:].sum()) + 1
    ways = np.zeros((chosen + 1, width))
    ways[0, 0] = 1
    for score in found.tolist():
        ways[1:, score:] += ways[:-1, : width - score].copy()
    return _Law(-int(found[canary].sum()), ways[chosen] / math.comb(found.size, chosen))
