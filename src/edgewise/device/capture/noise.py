"""Discrete Laplace noise with exact probabilities: whole numbers only, no logarithm that is rounded.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, algorithms 1 and 2.
Noise drawn from rounded floats gives itself away by which values cannot occur (Mironov, CCS 2012).
"""

from __future__ import annotations

from collections.abc import Callable

Below = Callable[[int], int]
"""A whole number drawn evenly from 0 to n - 1, `secrets.randbelow` say."""


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
