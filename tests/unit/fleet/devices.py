"""Devices of a rollout, made up for tests: histograms of seeded values, so that gates see what a server would."""

from __future__ import annotations

import numpy as np

from edgewise.contracts.histogram import histogram_of
from edgewise.contracts.rollout import (
    GatePolicy,
    MetricGate,
    RateGate,
    Release,
    Rollout,
    Stage,
    Statistic,
)
from edgewise.fleet.evidence import DeviceEvidence, Window

P50 = MetricGate(metric="latency_ms", statistic=Statistic.P50, margin=0.1)
MEAN_ENERGY = MetricGate(metric="energy_mj", statistic=Statistic.MEAN, margin=0.1)
CRASH_RATE = RateGate(events="crashes", trials="requests", margin=0.005)
SHADOW = RateGate(events="shadow_disagreed", trials="shadow_compared", margin=0.02, against_controls=False)
POLICY = GatePolicy(metrics=(P50,), rates=(CRASH_RATE,), report_s=600)
STAGE = Stage(name="canary", share=0.2, bake_s=1200, looks=4, minimum_devices=3)
LAST = (0.25, 0.5, 0.75, 1.0)


def release(version: str) -> Release:
    return Release(product="kws", version=version, digest=version[0] * 64)


def rollout(*stages: Stage, policy: GatePolicy = POLICY) -> Rollout:
    return Rollout(
        id="r1",
        salt="salt of sixteen letters",
        from_release=release("1.0"),
        to_release=release("2.0"),
        stages=stages or (STAGE,),
        policy=policy,
    )


def window(
    generator: np.random.Generator, *, ms: float, requests: int = 200, crashes: int = 0, energy: float | None = None
) -> Window:
    histograms = {"latency_ms": histogram_of((ms * generator.lognormal(0, 0.3, requests)).tolist())}
    if energy is not None:
        histograms["energy_mj"] = histogram_of((energy * generator.lognormal(0, 0.05, requests)).tolist())
    return Window(histograms=histograms, counters={"requests": requests, "crashes": crashes})


def fleet(
    canaries: int = 10,
    controls: int = 40,
    *,
    slower: float = 1.0,
    crashes: int = 0,
    classes: tuple[str, ...] = ("rpi4",),
    seed: int = 0,
) -> list[DeviceEvidence]:
    """Return devices that reported at 1190 s; canaries' latency is `slower` times what it was."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(canaries + controls):
        canary = number < canaries
        ms = 5.0 * generator.lognormal(0, 0.3)
        wander = generator.normal(0, 0.03)
        now = ms * np.exp(wander) * (slower if canary else 1.0)
        found.append(
            DeviceEvidence(
                device=f"d{number}",
                device_class=classes[number % len(classes)],
                canary=canary,
                since_s=0.0,
                last_report_s=1190.0,
                baseline=window(generator, ms=ms),
                current=window(generator, ms=now, crashes=crashes if canary else 0),
            )
        )
    return found
