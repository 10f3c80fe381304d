"""What the agent says of itself, to `edgewise agent status` and to local applications."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.histogram import Histogram, quantile
from edgewise.contracts.outcome import OutcomeKind
from edgewise.contracts.pipeline import Place
from edgewise.device.agent.folder import STATUS
from edgewise.errors import EdgewiseError

if TYPE_CHECKING:
    from edgewise.device.pipeline.answering import PipelineRuntime


class Problem(Value, kw_only=True):
    """An error, as it is told."""

    kind: str
    found: str
    required: str = ""
    next_step: str = ""
    at_unix_s: int

    @classmethod
    def of(cls, error: EdgewiseError, at_unix_s: int) -> Problem:
        """Return an error as a value."""
        return cls(
            kind=type(error).__name__,
            found=error.found,
            required=error.required,
            next_step=error.next_step,
            at_unix_s=at_unix_s,
        )


class LastPoll(Value, kw_only=True):
    """The last poll. `result` is `updated`, `up to date`, `unreachable` or `refused`."""

    at_unix_s: int
    result: str
    problem: Problem | None = None


class Reporting(Value, kw_only=True):
    """Telemetry: windows that wait to be sent (None where the disk cannot be read), and what is in the way."""

    waiting: int | None
    sent: int
    dropped: int
    problem: str


class Latency(Value, kw_only=True):
    """Milliseconds of the inferences since the agent began; None while there are none."""

    count: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class StageStatus(Value, kw_only=True):
    """One stage of a pipeline, since it was opened."""

    name: str
    bundle: str
    """SHA-256 of its manifest."""
    variant: str
    place: Place
    ran: int
    skipped: int
    """Items that went on without it, by its gate or an earlier one's."""
    lost: int
    """Items that were dropped or failed there."""
    restarts: int
    """Of its worker process."""


class Status(Value, kw_only=True):
    """A whole status."""

    device: str
    product: str
    device_class: str
    labels: tuple[str, ...]
    server: str
    roots_on_first_use: bool
    listen: str
    started_unix_s: int
    at_unix_s: int
    release: str | None
    """Version of what answers; None before the first bundle."""
    manifest_digest: str | None
    slot: str | None
    variant: str | None
    stages: tuple[StageStatus, ...] = ()
    """Of a bundle of several; none for one of one model."""
    previous: str | None
    """Version in the other slot, to go back to."""
    shadow: str | None
    """Version that is scored beside it, and answers nobody."""
    recovered: str = ""
    """Why what answers is a slot that the state on the disk did not name, since the start; empty where it did."""
    floor: str
    last_poll: LastPoll | None
    last_success_unix_s: int | None
    """When both repositories were last reached and believed; this process or one before."""
    poll_failures: int
    next_poll_s: float
    refusals: dict[str, int]
    last_refusal: Problem | None
    outcomes: dict[OutcomeKind, int]
    latency_ms: Latency
    reporting: Reporting


def stages_of(runtime: PipelineRuntime) -> tuple[StageStatus, ...]:
    """Return what the stages of a pipeline say of themselves."""
    return tuple(
        StageStatus(
            name=each.described.name,
            bundle=each.described.bundle,
            variant=each.variant,
            place=each.place,
            ran=each.ran,
            skipped=each.skipped,
            lost=runtime.lost(each.described.name),
            restarts=each.restarts,
        )
        for each in runtime.stages
    )


def latency_of(histogram: Histogram) -> Latency:
    """Return the quantiles of a histogram of milliseconds."""
    if not histogram.count:
        return Latency(count=0)
    p50, p95, p99 = (quantile(histogram, share).value for share in (0.5, 0.95, 0.99))
    return Latency(count=histogram.count, p50=p50, p95=p95, p99=p99)


def keep(folder: Path, status: Status) -> None:
    """Write the status for when the agent does not run. A disk that takes nothing is no reason to stop serving."""
    path = folder / STATUS
    partial = path.with_name(f".{STATUS}.partial")
    with contextlib.suppress(OSError):
        partial.write_bytes(msgspec.json.encode(status))
        partial.replace(path)  # not flushed: nothing depends on it


def kept(folder: Path) -> Status | None:
    """Return what was written last, or None."""
    try:
        return msgspec.json.decode((folder / STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def metrics(status: Status) -> str:
    """Return a status in Prometheus' text format."""
    named = {name: getattr(status, name) or "" for name in ("device", "product", "release", "variant")}
    lines = [
        "# TYPE edgewise_info gauge",
        "edgewise_info{" + ",".join(f'{name}="{value}"' for name, value in named.items()) + "} 1",
        "# TYPE edgewise_outcomes_total counter",
        *(f'edgewise_outcomes_total{{kind="{kind}"}} {count}' for kind, count in sorted(status.outcomes.items())),
        "# TYPE edgewise_refusals_total counter",
        *(f'edgewise_refusals_total{{kind="{kind}"}} {count}' for kind, count in sorted(status.refusals.items())),
        "# TYPE edgewise_poll_failures gauge",
        f"edgewise_poll_failures {status.poll_failures}",
        "# TYPE edgewise_latency_ms summary",
    ]
    for share, value in ((0.5, status.latency_ms.p50), (0.95, status.latency_ms.p95), (0.99, status.latency_ms.p99)):
        if value is not None:
            lines.append(f'edgewise_latency_ms{{quantile="{share}"}} {value:.6g}')
    lines.append(f"edgewise_latency_ms_count {status.latency_ms.count}")
    if status.last_success_unix_s is not None:
        lines += [
            "# TYPE edgewise_last_success_timestamp_seconds gauge",
            f"edgewise_last_success_timestamp_seconds {status.last_success_unix_s}",
        ]
    return "\n".join(lines) + "\n"
