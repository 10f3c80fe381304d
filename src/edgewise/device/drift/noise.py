"""Counts that say less about one input: clipped contributions and discrete noise.

Each input adds 1 to one bin of each sketch and nothing else, however extreme its values are: that is the clipping.
Noise is the difference of two geometric variables (Ghosh, Roughgarden and Sundararajan, SIAM J. Comput. 41, 2012,
section 2): with alpha = exp(-epsilon / sketches), one report is epsilon-differentially private for one input. Counts
below 0 become 0, which changes nothing about that but lifts small counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from edgewise.contracts.telemetry import Sketch

_SYSTEM = random.SystemRandom()
Uniform = Callable[[], float]
"""Random numbers in [0, 1)."""


def noised(sketches: Mapping[str, Sketch], *, epsilon: float, uniform: Uniform = _SYSTEM.random) -> dict[str, Sketch]:
    """Return the sketches with noise on every count. `uniform` has to be unpredictable."""
    share = epsilon / max(len(sketches), 1)

    def geometric() -> int:
        return math.floor(math.log(1.0 - uniform()) / -share)

    return {
        name: Sketch(edges=each.edges, counts=tuple(max(count + geometric() - geometric(), 0) for count in each.counts))
        for name, each in sketches.items()
    }
