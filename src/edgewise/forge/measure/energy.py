"""Energy of one inference, with where the figure comes from.

Every meter that this machine has runs around the same loop of inferences, and the best one that
could tell is believed. What is metered is the whole board, package or battery: idle power and
neighbours included. Where nothing can tell, the figure is None, never 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from edgewise.contracts.evidence import EnergyProvenance
from edgewise.errors import DataError
from edgewise.meters.energy import EnergyMeter
from edgewise.runtimes.base import Array, Session

_MJ_PER_J = 1000.0
_LEAST_RUNS = 10


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one inference in millijoules; None where no meter could tell."""

    energy_mj: float | None
    provenance: EnergyProvenance


def measure_energy(
    session: Session,
    feeds: Sequence[Mapping[str, Array]],
    *,
    available: Sequence[EnergyMeter],
    seconds: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> Energy:
    """Run `session` over `feeds` for at least so many seconds, and ten times, between two readings.

    A battery gauge needs minutes to move; until then the next meter in `available` is used.
    """
    if not feeds:
        raise DataError("0 samples to measure energy with", required="at least one")
    if not available:
        return Energy(energy_mj=None, provenance=EnergyProvenance.UNAVAILABLE)
    session.run(feeds[0])
    runs = 0
    for meter in available:
        meter.start()
    begin = clock()
    while runs < _LEAST_RUNS or clock() - begin < seconds:
        session.run(feeds[runs % len(feeds)])
        runs += 1
    readings = [(meter.stop(), meter.provenance) for meter in available]
    for joules, provenance in readings:
        if joules is not None:
            return Energy(energy_mj=joules * _MJ_PER_J / runs, provenance=provenance)
    return Energy(energy_mj=None, provenance=EnergyProvenance.UNAVAILABLE)
