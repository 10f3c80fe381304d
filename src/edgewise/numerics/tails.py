"""Tail probabilities that gates decide on: Student's t, binomial, hypergeometric. Scalars, without scipy.

All rest on the regularised incomplete beta function I_x(a, b), which takes counts that are not whole too.
"""

from __future__ import annotations

import math

_ROUNDS = 500
_ENOUGH = 1e-15
_TINY = 1e-300
_HALVINGS = 200


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b) for a, b > 0 and x in [0, 1].

    Continued fraction, DLMF 8.17.22, by Lentz's method; converges fast for x < (a + 1) / (a + b + 2), and
    I_x(a, b) = 1 - I_{1-x}(b, a) (8.17.4) serves the rest.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a) - _log_beta(a, b)
    return min(math.exp(front) * _fraction(a, b, x), 1.0)


def beta_quantile(a: float, b: float, p: float) -> float:
    """Return x with I_x(a, b) = p, by Newton's method, halving the bracket where it leaves it."""
    if p <= 0 or p >= 1:
        return 0.0 if p <= 0 else 1.0
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(_HALVINGS):
        over = incomplete_beta(a, b, x) - p
        low, high = (low, x) if over > 0 else (x, high)
        slope = math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - _log_beta(a, b))
        following = x - over / slope if slope else low
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - x) <= 4e-16 * x or following in {0.0, 1.0}:
            return following
        x = following
    return x


def student_tail(t: float, degrees: float) -> float:
    """Return P(T >= t) of Student's t with so many degrees of freedom (DLMF 8.17.1 with x = df / (df + t^2)).

    Near 0 of the complement, with 1 - x = t^2 / (df + t^2): in x a small t is lost.
    """
    square = t * t
    if square < 1:  # farther out the difference from a half is lost instead
        between = incomplete_beta(0.5, degrees / 2, square / (degrees + square)) / 2
        return 0.5 - between if t >= 0 else 0.5 + between
    half = incomplete_beta(degrees / 2, 0.5, degrees / (degrees + square)) / 2
    return half if t >= 0 else 1 - half


def student_quantile(p: float, degrees: float) -> float:
    """Return t with P(T >= t) = p; inf for p = 0."""
    if p <= 0 or p >= 1:
        return math.inf if p <= 0 else -math.inf
    if p > 0.5:
        return -student_quantile(1 - p, degrees)
    x = beta_quantile(degrees / 2, 0.5, 2 * p)
    return math.sqrt(degrees * (1 - x) / x) if x else math.inf


def binomial_at_least(k: float, n: float, p: float) -> float:
    """Return P(X >= k) for X of n trials with probability p: I_p(k, n - k + 1)."""
    if k <= 0:
        return 1.0
    return incomplete_beta(k, n - k + 1, p) if k <= n else 0.0


def binomial_at_most(k: float, n: float, p: float) -> float:
    """Return P(X <= k) for X of n trials with probability p: I_{1-p}(n - k, k + 1)."""
    return incomplete_beta(n - k, k + 1, 1 - p) if k < n else 1.0


def share_below(k: float, n: float, level: float) -> float:
    """Return the one-sided exact lower bound of a share at this level (Clopper and Pearson, Biometrika 1934)."""
    return beta_quantile(k, n - k + 1, level) if k > 0 and n > 0 else 0.0


def share_above(k: float, n: float, level: float) -> float:
    """Return the one-sided exact upper bound of a share at this level (Clopper and Pearson, Biometrika 1934)."""
    return beta_quantile(k + 1, n - k, 1 - level) if k < n else 1.0


def fisher_more(hits: int, size: int, others: int, others_size: int) -> float:
    """Return the one-sided p-value of `hits` of `size` against `others` of `others_size` (Fisher's exact test).

    The chance of at least so many hits in the first group, given the hits in both.
    """
    total, drawn = hits + others, size
    whole = math.comb(size + others_size, drawn)
    most = min(total, drawn)
    ways = sum(math.comb(total, k) * math.comb(size + others_size - total, drawn - k) for k in range(hits, most + 1))
    return ways / whole


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _ROUNDS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1 / _apart(1 + term * d)
            c = _apart(1 + term / c)
            step = c * d
            value *= step
        if abs(step - 1) < _ENOUGH:
            break
    return value


def _apart(value: float) -> float:
    """Return `value`, or a tiny number in place of 0, which Lentz's method divides by."""
    return value if abs(value) > _TINY else _TINY
