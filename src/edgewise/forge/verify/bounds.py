"""How many samples fit into the time that a part of the verification may take.

Time is processor time of this process: on a busy machine the same samples are looked at as on an idle one.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call; the first of two calls allocates and loads, so the second counts."""
    work()
    begin = time.process_time()
    work()
    return time.process_time() - begin


def affordable(seconds: float, each: float, *, have: int, least: int) -> int:
    """Return how many of `have` samples fit into `seconds` at `each` seconds a sample, but `least` where there are.

    All, or a step of 1, 1.5, 2, 3, 4, 6, 8 ...: so a slightly slower processor looks at the same samples.
    """
    fit = int(seconds / max(each, 1e-9))
    if fit >= have:
        return have
    step = 1
    while step * 2 <= fit:
        step *= 2
    if step * 3 // 2 <= fit:
        step = step * 3 // 2
    return min(max(step, least), have)
