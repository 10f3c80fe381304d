"""Where candidates are timed: on this machine, or on a device through its agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from edgewise.contracts.evidence import EnergyProvenance
from edgewise.contracts.target import PowerModel, RuntimeName
from edgewise.errors import EdgewiseError
from edgewise.forge.measure.energy import Energy, measure_energy
from edgewise.forge.measure.memory import measure_memory
from edgewise.meters.energy import find_meters
from edgewise.runtimes import runtime
from edgewise.runtimes.base import Array, Session
from edgewise.runtimes.timing import Plan, Progress, Timings, busy_clock, interleave

_ENERGY_SECONDS = 0.5
Model = tuple[RuntimeName, Path | bytes]
"""What to run, and on which runtime."""
Feeds = Mapping[str, Array]


class Timed(NamedTuple):
    """Times of the models that ran, and the reasons of those that their runtime refused."""

    times: dict[str, Timings]
    failures: dict[str, str]


class Lab(Protocol):
    """A place that measures. The first model is the reference that others are timed beside."""

    def time(
        self,
        models: Mapping[str, Model],
        feeds: Sequence[Feeds],
        *,
        threads: int,
        plan: Plan,
        progress: Progress | None = None,
    ) -> Timed:
        """Time all models in turns. Raises EdgewiseError where the reference cannot be run."""
        ...

    def peak_mib(self, model: Model, feeds: Sequence[Feeds], *, threads: int) -> float:
        """Return the peak memory of loading and running one model. Raises EdgewiseError."""
        ...

    def energy(self, session: Session, feeds: Sequence[Feeds], *, power: PowerModel | None) -> Energy:
        """Return the energy of one inference; unavailable where the place cannot tell."""
        ...


class Here:
    """This machine."""

    def time(
        self,
        models: Mapping[str, Model],
        feeds: Sequence[Feeds],
        *,
        threads: int,
        plan: Plan,
        progress: Progress | None = None,
    ) -> Timed:
        """Time all models in turns in this process."""
        sessions: dict[str, Session] = {}
        failures: dict[str, str] = {}
        for name, (where, model) in models.items():
            try:
                sessions[name] = runtime(where).load(model, threads=threads)
            except EdgewiseError as error:
                if not sessions and not failures:
                    raise
                failures[name] = str(error).splitlines()[0]
        clocks = [busy_clock(where, threads=threads) for where, _ in models.values()]
        busy = clocks[0] if all(clocks) else None
        return Timed(interleave(sessions, list(feeds), plan=plan, progress=progress, busy=busy), failures)

    def peak_mib(self, model: Model, feeds: Sequence[Feeds], *, threads: int) -> float:
        """Measure in a fresh process."""
        where, file = model
        if not isinstance(file, Path):
            raise TypeError("the memory of a model is measured from its file")
        return measure_memory(file, feeds, runtime=where, threads=threads).peak_mib

    def energy(self, session: Session, feeds: Sequence[Feeds], *, power: PowerModel | None) -> Energy:
        """Measure with the meters that are here."""
        available = find_meters(power=power)
        if not available:
            return Energy(energy_mj=None, provenance=EnergyProvenance.UNAVAILABLE)
        return measure_energy(session, list(feeds), available=available, seconds=_ENERGY_SECONDS)
