"""A token bucket: how many calls, repeats included, may be made. Pure: the state is a value and the clock is given.

Over any t seconds at most `burst + per_s * t` tokens are taken (Tanenbaum, Computer Networks, section 5.4.2).
"""

from __future__ import annotations

from edgewise.contracts.base import Value


class BucketRules(Value, kw_only=True):
    """`burst` tokens at most are kept; `per_s` come back each second."""

    burst: int = 10
    per_s: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError where no call would ever be made, or any number."""
        if not (self.burst >= 1 and 0 <= self.per_s < float("inf")):
            raise ValueError("burst must be 1 or more, and per_s 0 or more and finite")


class Bucket(Value, kw_only=True):
    """`tokens` at `at_s`."""

    tokens: float
    at_s: float


def full(rules: BucketRules, now_s: float) -> Bucket:
    """Return a bucket to start with."""
    return Bucket(tokens=rules.burst, at_s=now_s)


def has_one(bucket: Bucket, rules: BucketRules, now_s: float) -> bool:
    """Return whether a token can be taken."""
    return _tokens(bucket, rules, now_s) >= 1


def taken(bucket: Bucket, rules: BucketRules, now_s: float) -> Bucket | None:
    """Return the bucket with a token less, or None where it has none."""
    tokens = _tokens(bucket, rules, now_s)
    return Bucket(tokens=tokens - 1, at_s=max(now_s, bucket.at_s)) if tokens >= 1 else None


def _tokens(bucket: Bucket, rules: BucketRules, now_s: float) -> float:
    return min(rules.burst, bucket.tokens + rules.per_s * max(now_s - bucket.at_s, 0.0))
