"""What others would decide on the same requests: three common rules, looking as often as the product does.

Each looks at latency alone, over the usual latency of the device's class, and says whether it rolls back at some look.
None of them knows devices.
"""

import numpy as np

from gate_fleet import LOOKS, Counts, Doubles, buckets

THRESHOLD = 1.10
"""The canaries' p95 of a look over the controls'."""
MANN_WHITNEY_LEVEL = 0.05
KAYENTA_TOLERANCE = 0.25
KAYENTA_LEVEL = 0.98
POINTS = 5
"""Points of the metric's series per look: every 60 requests of a device."""
_Z_98, _Z_95 = 2.3263, 1.6449


def fixed_threshold(canaries: Doubles, controls: Doubles) -> bool:
    """Return whether a pooled p95 of some look is over the threshold. Requests are [devices, looks, requests]."""
    ours, theirs = (np.quantile(_by_look(side), 0.95, axis=1) for side in (canaries, controls))
    return bool((ours > THRESHOLD * theirs).any())


def pooled_mann_whitney(canaries: Doubles, controls: Doubles) -> bool:
    """Return whether all requests of some look, taken as independent, are slower with p < 0.05, one-sided."""
    return any(
        _rank_z(ours, theirs) > _Z_95
        for ours, theirs in zip(buckets(_by_look(canaries)), buckets(_by_look(controls)), strict=True)
    )


def kayenta(canaries: Doubles, controls: Doubles) -> bool:
    """Return whether Kayenta's classifier says High at some look from the second on.

    The p95 of the group as a time series, all points so far; Hodges-Lehmann shift with its 98 % interval; High where
    the interval's lower end is above a quarter of the shift (NetflixACAJudge, MannWhitneyClassifier).
    """
    ours, theirs = _series(canaries), _series(controls)
    for look in range(2, LOOKS + 1):
        x, y = ours[: look * POINTS], theirs[: look * POINTS]
        shifts = np.sort((x[:, None] - y[None, :]).ravel())
        spread = np.sqrt(x.size * y.size * (x.size + y.size + 1) / 12)
        rank = int(x.size * y.size / 2 - _Z_98 * spread)
        if rank >= 0 and shifts[rank] > KAYENTA_TOLERANCE * abs(np.median(shifts)):
            return True
    return False


def _by_look(side: Doubles) -> Doubles:
    return side.transpose(1, 0, 2).reshape(LOOKS, -1)


def _series(side: Doubles) -> Doubles:
    devices = side.shape[0]
    points = side.reshape(devices, LOOKS * POINTS, -1).transpose(1, 0, 2).reshape(LOOKS * POINTS, -1)
    return np.asarray(np.quantile(points, 0.95, axis=1))


def _rank_z(ours: Counts, theirs: Counts) -> float:
    """Return z of the rank sum, by buckets, ties averaged."""
    low = min(ours.min(), theirs.min())
    size = int(max(ours.max(), theirs.max()) - low) + 1
    mine, others = np.bincount(ours - low, minlength=size), np.bincount(theirs - low, minlength=size)
    below = np.cumsum(others) - others / 2
    n, m, ties = ours.size, theirs.size, mine + others
    variance = n * m / 12 * (n + m + 1 - (ties.astype(np.float64) ** 3 - ties).sum() / ((n + m) * (n + m - 1)))
    return float((mine @ below - n * m / 2) / np.sqrt(variance))
