"""Noise on the counts that leave a device, with exact probabilities: whole numbers only, no logarithm that is rounded.

Each inference adds 1 to at most one bin of each of D sketches, however extreme its values are: that is the clipping.
Another inference in its place moves at most one count in each sketch, an L1 distance of 2 D. With noise of the scale
b = ceil(2 D / epsilon) on each count, the probabilities of any report under the two differ by a factor of at most
exp(2 D / b) <= exp(epsilon): one report is epsilon-differentially private for one inference (Dwork et al., TCC 2006,
theorem 1). Counts below 0 become 0, which changes nothing about that but lifts small counts.

The noise is the discrete Laplace distribution of Ghosh, Roughgarden and Sundararajan, SIAM J. Comput. 41 (2012),
section 2, drawn by Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020,
algorithms 1 and 2. Noise drawn from rounded floats gives itself away by which values cannot occur (Mironov, CCS 2012).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence

Below = Callable[[int], int]
"""A whole number drawn evenly from 0 to n - 1, `secrets.randbelow` say."""


def scale_of(epsilon: float, *, sketches: int) -> int:
    """Return the scale b of the noise on each count of so many sketches; `epsilon` is above 0."""
    return max(1, math.ceil(2 * sketches / epsilon))


def noised(counts: Sequence[int], scale: int, below: Below = secrets.randbelow) -> tuple[int, ...]:
    """Return counts with noise on each; with a scale of 0, as they are. `below` has to be unpredictable."""
    if not scale:
        return tuple(counts)
    return tuple(max(0, count + discrete_laplace(scale, below)) for count in counts)


def discrete_laplace(scale: int, below: Below) -> int:
    """Return k with a probability in proportion to exp(-|k| / scale); scale >= 1."""
    while True:
        part = below(scale)
        if not _coin(part, scale, below):
            continue
        whole = 0
        while _coin(1, 1, below):
            whole += 1
        magnitude = part + scale * whole
        is_negative = below(2) == 1
        if is_negative and magnitude == 0:
            continue  # 0 would come twice as often
        return -magnitude if is_negative else magnitude


def _coin(numerator: int, denominator: int, below: Below) -> bool:
    """Return True with the probability exp(-numerator / denominator), for 0 <= numerator <= denominator."""
    k = 1
    while below(denominator * k) < numerator:
        k += 1
    return k % 2 == 1
