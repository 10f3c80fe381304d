"""A pipeline that answers like a runtime: one call, one answer with its outcome, from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.contracts.histogram import Histogram
from edgewise.contracts.outcome import Outcome, OutcomeKind
from edgewise.contracts.task import TaskKind
from edgewise.contracts.telemetry import LATENCY_MS
from edgewise.device.fallback.cache import ExactCache, key_of
from edgewise.device.fallback.conservative import Conservative, fitted
from edgewise.device.meter import LatencyMeter
from edgewise.device.pipeline.core import End
from edgewise.device.pipeline.opened import BundlePipeline, OpenStage
from edgewise.device.pipeline.pipeline import FAILED, Ticket
from edgewise.device.runtime import NO_TIME, Answer
from edgewise.device.tally import Tally
from edgewise.device.worker import Limits
from edgewise.errors import ConfigError
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.audit.log import AuditLog

VARIANT = "pipeline"
"""What telemetry calls it: each stage has a variant of its own."""


class PipelineRuntime:
    """Answers with the stages of one bundle. Requests go side by side where the mailboxes let them."""

    def __init__(
        self,
        opened: BundlePipeline,
        *,
        conservative: Conservative | None = None,
        cache_bytes: int = 0,
        audit: AuditLog | None = None,
    ) -> None:
        """Answer with a bundle that is open.

        Raises ConfigError where the conservative answer does not fit it, or answers would be kept and a stage has a
        state.
        """
        forms = {each.name: (_known(each.shape), np.dtype(each.dtype)) for each in opened.manifest.outputs}
        self._opened = opened
        self._conservative = None if conservative is None else fitted(conservative, forms)
        self._audit = audit
        self._lock = threading.Lock()
        self._latency = LatencyMeter()
        self._tally = Tally()
        if cache_bytes and self.is_stateful:
            raise ConfigError(
                "a stage keeps a state, so that equal items have different answers",
                required="`cache_bytes` of 0 for a stream",
            )
        self._cache = ExactCache(cache_bytes, self._tally) if cache_bytes else None
        self._idle = threading.Condition()
        self._entered = 0
        self._reported: dict[str, tuple[int, int]] = {}

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        conservative: Conservative | None = None,
        cache_bytes: int = 0,
        audit: AuditLog | None = None,
        limits: Limits | None = None,
        isolated: bool = False,
        governed: bool = False,
    ) -> PipelineRuntime:
        """Open an extracted bundle's folder; raises as `BundlePipeline`, and ConfigError."""
        opened = BundlePipeline(folder, limits=limits, isolated=isolated, governed=governed)
        try:
            return cls(opened, conservative=conservative, cache_bytes=cache_bytes, audit=audit)
        except BaseException:
            opened.close()
            raise

    @property
    def variant(self) -> str:
        """What telemetry calls it."""
        return VARIANT

    @property
    def stages(self) -> list[OpenStage]:
        """The stages, in order."""
        return self._opened.stages

    @property
    def specs(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Type and shape of each value that an item brings, as the golden inputs have them."""
        (sample, *_) = self._opened.manifest.golden.samples
        return {each.name: (np.dtype(each.dtype.value), each.shape) for each in sample}

    @property
    def is_stateful(self) -> bool:
        """Whether an answer depends on the items before."""
        return any(each.described.state for each in self.stages)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs that hold scores of classes: those of stages that classify, if they have several."""
        kinds = {each.described.name: each.kind for each in self.stages}
        return tuple(
            each.name
            for each in self._opened.manifest.outputs
            if kinds[each.name.partition(".")[0]] == TaskKind.CLASSIFICATION and each.shape and each.shape[-1] != 1
        )

    def enter(self) -> None:
        """Say that an `infer` follows, which a `close` shall wait for."""
        with self._idle:
            self._entered += 1

    def leave(self) -> None:
        """Say that it is done."""
        with self._idle:
            self._entered -= 1
            self._idle.notify_all()

    def infer(self, inputs: Mapping[str, Array], *, deadline_ms: float | None = None, begins: bool = False) -> Answer:
        """Answer once, with arrays of the caller's own; `begins` sets all states to zeros first.

        Without a deadline the manifest's counts. An item that was dropped or failed is refused, or has the conservative
        answer that was declared; its reason says where and why.
        """
        if deadline_ms is not None and not deadline_ms > 0:
            return self._fallen(NO_TIME, None)
        begin = time.monotonic_ns()
        key = None if self._cache is None else key_of(self._identity(), inputs)
        if (kept := self._kept(key)) is not None:
            due_ms = self._opened.manifest.pipeline.deadline_ms if deadline_ms is None else deadline_ms
            return self._answer(kept, OutcomeKind.CACHED, "", due_ms - (time.monotonic_ns() - begin) / 1e6)
        ticket = self._opened.submit(inputs, deadline_ms=deadline_ms, begins=begins)
        ended = ticket.result()
        if ended.end is not End.OUT:
            where = f"{ended.stage}: " if ended.stage else ""
            return self._fallen(f"{where}{ended.reason}", ticket.left_ms())
        with self._lock:
            self._latency.record((time.monotonic_ns() - begin) / 1e6)
        kind, reason = _worst(ticket)
        outputs = self._opened.outputs_of(ticket)
        if self._cache is not None and key is not None and kind is OutcomeKind.LOCAL:
            with self._lock:
                self._cache.keep(key, outputs)
        return self._answer(outputs, kind, reason, ticket.left_ms())

    def drain(self) -> tuple[dict[str, Histogram], dict[str, int], dict[OutcomeKind, int]]:
        """Return histograms, counters and outcomes since the last call, those of stages as `stage.NAME.*`."""
        with self._lock:
            histograms = {LATENCY_MS: self._latency.drain()}
        outcomes, counters = self._tally.drain()
        for each in self.stages:
            name = f"stage.{each.described.name.replace('-', '_')}"
            histograms[f"{name}.{LATENCY_MS}"] = each.drain()
            now = (each.skipped, each.restarts)
            before = self._reported.get(name, (0, 0))
            self._reported[name] = now
            for report in each.governed():
                for counter, count in report.counters.items():
                    counters[counter] = counters.get(counter, 0) + count
            for word, new, old in zip(("skipped", "restarts"), now, before, strict=True):
                if new > old:
                    counters[f"{name}.{word}"] = new - old
        return {name: each for name, each in histograms.items() if each.count}, counters, outcomes

    def lost(self, stage: str) -> int:
        """Return how many items were dropped or failed at a stage."""
        return sum(count for (where, _), count in dict(self._opened.pipeline.lost).items() if where == stage)

    def close(self, wait_s: float = 5.0) -> None:
        """Wait for answers that were begun, `wait_s` at most, then end it."""
        with self._idle:
            self._idle.wait_for(lambda: not self._entered, wait_s)
        self._opened.close()

    def _identity(self) -> bytes:
        """Return what stands for the bundle and the variants that its stages answer with now."""
        return "\n".join((self._opened.digest, *(each.variant for each in self.stages))).encode()

    def _kept(self, key: bytes | None) -> Mapping[str, Array] | None:
        if self._cache is None or key is None:
            return None
        with self._lock:
            found = self._cache.find(key)
        return None if found is None else {name: array.copy() for name, array in found.items()}

    def _fallen(self, reason: str, slack_ms: float | None) -> Answer:
        if self._conservative is not None:
            return self._answer(self._conservative, OutcomeKind.CONSERVATIVE, reason, slack_ms)
        return self._answer({}, OutcomeKind.REFUSED, reason, slack_ms)

    def _answer(self, outputs: Mapping[str, Array], kind: OutcomeKind, reason: str, slack_ms: float | None) -> Answer:
        self._tally.outcome(kind)
        is_local = kind in {OutcomeKind.LOCAL, OutcomeKind.LOCAL_DEGRADED, OutcomeKind.CACHED}
        outcome = Outcome(
            kind=kind,
            reason=reason,
            slack_ms=slack_ms,
            variant=VARIANT if is_local else None,
            bundle=self._opened.digest if is_local else None,
        )
        if reason and self._audit is not None:
            self._audit.note(outcome)
        return Answer(outputs, outcome)


def _worst(ticket: Ticket) -> tuple[OutcomeKind, str]:
    """Return what the whole answer is: degraded where that of a stage is."""
    for name, outcome in ticket.outcomes.items():
        if outcome.kind is not OutcomeKind.LOCAL:
            return OutcomeKind.LOCAL_DEGRADED, f"{name}: {outcome.reason or FAILED}"
    return OutcomeKind.LOCAL, ""


def _known(shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else None
