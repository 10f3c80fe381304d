"""A simulated fleet, as columns: what its devices' histograms say at every look.

Requests are binned with the product's bucket rule at a fine scale, each device's histogram at each look is then brought
to the scale the product would choose, and quantiles come from those buckets: exactly what `edgewise.fleet.evidence`
reads from real histograms, which `gates.py` checks on a few devices before it counts anything.

The model, in log units unless said otherwise:

    latency     class (3, 8, 20 ms; 50, 30, 20 % of devices) + device N(0, 0.25) + device and period N(0, 0.04)
                + device and look N(0, 0.02) + time of day, common to all, 0.15 sin + request N(0, 0.25);
                3 % of requests meet an obstacle and take 1 + Pareto(2.5) times as long
    energy      class + device N(0, 0.2) + device and period N(0, 0.03) + request N(0, 0.08)
    crashes     per request 0.1 %, times a device's own Gamma(1): a few devices have most of them
    baseline    as many looks of the same devices before the rollout
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.histogram import MOST_BUCKETS
from edgewise.contracts.rollout import GatePolicy
from edgewise.fleet.evidence import Table

LOOKS = 12
REQUESTS = 300
CLASSES = ("gateway", "camera", "panel")
SHARES = (0.5, 0.3, 0.2)
CLASS_MS = np.array([3.0, 8.0, 20.0])
SCALE = 7
"""Bucket indices are taken at this scale; the product's are coarser for such long tails, which is checked."""

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Scenario:
    """What the new release does to its canaries."""

    name: str
    canaries: int = 10
    controls: int = 40
    slower: float = 1.0
    """Times the latency of every request."""
    tail: float = 1.0
    """Times the latency of the requests that meet an obstacle."""
    energy: float = 1.0
    crash_rate: float = 0.001
    uneven: float = 0.0
    """Standard deviation of a device's own, permanent reaction; 0 on average."""
    silent: float = 0.0
    """Share of canaries that never report."""
    without_energy: float = 0.0
    """Share of canaries that report no energy."""
    missing: bool = False
    repetitions: int = 100


@dataclass(frozen=True)
class Fleet:
    """One repetition. Requests are [devices, looks, requests]; canaries come first."""

    of: Counts
    before_ms: Doubles
    after_ms: Doubles
    before_mj: Doubles
    after_mj: Doubles
    crashes: Counts
    """[devices, looks]"""


def simulate(scenario: Scenario, generator: np.random.Generator) -> Fleet:
    """Return the requests of one repetition."""
    n = scenario.canaries + scenario.controls
    of = generator.choice(len(CLASSES), size=n, p=SHARES)
    device = np.log(CLASS_MS[of]) + generator.normal(0, 0.25, n)
    joules = np.log(CLASS_MS[of] * 2) + generator.normal(0, 0.2, n)
    canary = np.arange(n) < scenario.canaries
    reaction = np.where(canary, np.log(scenario.slower) + generator.normal(0, 1, n) * scenario.uneven, 0.0)
    tails = np.where(canary, scenario.tail, 1.0)
    more = np.where(canary, np.log(scenario.energy), 0.0)
    rates = np.where(canary, scenario.crash_rate, 0.001) * generator.gamma(1.0, 1.0, n)
    return Fleet(
        of=of,
        before_ms=_latency(device, np.ones(n), generator),
        after_ms=_latency(device + reaction, tails, generator),
        before_mj=_energy(joules, generator),
        after_mj=_energy(joules + more, generator),
        crashes=generator.binomial(REQUESTS, np.minimum(rates, 0.5)[:, None], (n, LOOKS)),
    )


def tables(scenario: Scenario, fleet: Fleet, policy: GatePolicy) -> list[Table]:
    """Return what the gate sees at each look."""
    n = fleet.of.size
    canary = np.arange(n) < scenario.canaries
    silent = np.arange(n) < round(scenario.silent * scenario.canaries)
    dumb = canary & (np.arange(n) >= scenario.canaries - round(scenario.without_energy * scenario.canaries))
    shares = (0.5, 0.99)
    before = np.log(quantiles(fleet.before_ms.reshape(n, 1, -1), shares))
    changes = np.log(quantiles(fleet.after_ms, shares)) - before
    energy = np.log(_means(fleet.after_mj)) - np.log(_means(fleet.before_mj.reshape(n, 1, -1)))
    energy[dumb] = np.nan
    crashes = fleet.crashes.cumsum(axis=1).astype(np.float64)
    found = []
    for look in range(LOOKS):
        columns = (changes[0][:, look], changes[1][:, look], energy[:, look])
        found.append(
            Table(
                classes=CLASSES,
                of=fleet.of,
                canary=canary,
                reported=~silent,
                silent=silent,
                crash_loop=np.zeros(n, dtype=np.bool_),
                not_installed=np.zeros(n, dtype=np.bool_),
                refusals={},
                refused_signature=np.zeros(n, dtype=np.bool_),
                changes={
                    gate.name: np.where(silent, np.nan, column)
                    for gate, column in zip(policy.metrics, columns, strict=True)
                },
                missing={gate.name: dumb & (gate.metric == "energy_mj") & ~silent for gate in policy.metrics}
                | {gate.name: np.zeros(n, dtype=np.bool_) for gate in policy.rates},
                events={gate.name: np.where(silent, 0.0, crashes[:, look]) for gate in policy.rates},
                trials={gate.name: np.where(silent, 0.0, REQUESTS * (look + 1.0)) for gate in policy.rates},
            )
        )
    return found


def buckets(values: Doubles) -> Counts:
    """Return bucket indices at `SCALE`: base**i < v <= base**(i + 1)."""
    return np.asarray(np.ceil(np.log2(values) * 2.0**SCALE) - 1, dtype=np.int64)


def quantiles(values: Doubles, shares: tuple[float, ...]) -> Doubles:
    """Return quantiles [shares, devices, looks] of each device's values up to each look, from its histogram."""
    devices, looks, _ = values.shape
    index = buckets(values)
    low = int(index.min()) >> MOST_SHIFT << MOST_SHIFT  # so that shifted runs of buckets line up
    size = ((int(index.max()) - low) >> MOST_SHIFT) + 1 << MOST_SHIFT
    flat = (np.arange(devices)[:, None, None] * looks + np.arange(looks)[None, :, None]) * size + index - low
    counts = np.bincount(flat.ravel(), minlength=devices * looks * size).reshape(devices, looks, size).cumsum(axis=1)
    least, most = np.minimum.accumulate(values.min(axis=2), axis=1), np.maximum.accumulate(values.max(axis=2), axis=1)
    first, last = buckets(least), buckets(most)
    found = np.empty((len(shares), devices, looks))
    shift = np.zeros((devices, looks), dtype=np.int64)
    while (over := (last >> shift) - (first >> shift) >= MOST_BUCKETS).any():
        shift += over
    if (((last - first) >> shift) * 2 + 2 < MOST_BUCKETS).any() and (shift == 0).any():
        raise ValueError("the product would choose a finer scale than this benchmark bins at")
    for each in np.unique(shift):
        at = shift == each
        cumulative = counts[at].reshape(-1, size >> each, 1 << each).sum(axis=2).cumsum(axis=1)
        total = cumulative[:, -1]
        rows = np.arange(total.size)
        for place, share in enumerate(shares):
            rank = np.maximum(np.ceil(share * total), 1)
            bucket = (cumulative < rank[:, None]).sum(axis=1)
            below = np.where(bucket > 0, cumulative[rows, bucket - 1], 0)
            inside = (rank - below - 0.5) / (cumulative[rows, bucket] - below)
            found[place][at] = np.exp2((bucket + (low >> each) + inside) / 2.0 ** (SCALE - each))
    return np.clip(found, least, most)


MOST_SHIFT = 5


def _latency(level: Doubles, tails: Doubles, generator: np.random.Generator) -> Doubles:
    n = level.size
    day = 0.15 * np.sin(2 * np.pi * (np.arange(LOOKS) / LOOKS + generator.random()))
    mean = level[:, None] + generator.normal(0, 0.04, (n, 1)) + generator.normal(0, 0.02, (n, LOOKS)) + day
    noise = generator.standard_normal((n, LOOKS, REQUESTS), dtype=np.float32) * np.float32(0.25)
    values = np.exp(mean[:, :, None] + noise)
    obstacle = generator.random(values.shape, dtype=np.float32) < 0.03
    where = np.nonzero(obstacle)
    values[where] *= (1 + generator.pareto(2.5, where[0].size)) * tails[where[0]]
    return np.asarray(values, dtype=np.float64)


def _energy(level: Doubles, generator: np.random.Generator) -> Doubles:
    n = level.size
    mean = level[:, None] + generator.normal(0, 0.03, (n, 1))
    noise = generator.standard_normal((n, LOOKS, REQUESTS), dtype=np.float32) * np.float32(0.08)
    return np.asarray(np.exp(mean[:, :, None] + noise), dtype=np.float64)


def _means(values: Doubles) -> Doubles:
    """Return the mean up to each look: the histogram's exact sum over its count."""
    requests = values.shape[2] * np.arange(1, values.shape[1] + 1)
    return np.asarray(values.sum(axis=2).cumsum(axis=1) / requests)
