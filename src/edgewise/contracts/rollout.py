"""A rollout: a release on its way to the fleet, stage by stage, each closed by a gate.

    draft -> staged -> completed
               |  ^
               v  |
              paused        staged, paused -> aborted | rolled_back

A device finds its own place: `position(device, salt)` is a number in [0, 1), and a stage with the share 0.05 holds the
devices below 0.05. The salt is new for every rollout, so that the same devices are not always the first. Nobody keeps
a list, so a device that joins late falls in by its hash. The highest positions are held back as controls until the
rollout is completed: every gate, the last too, compares with devices that run the old release at the same time.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from itertools import pairwise

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.telemetry import check_digest, check_identifier, check_metric

MOST_STAGES = 32
MOST_LOOKS = 64
SALT_LETTERS = 16
"""The least length of a salt."""


class Release(Value, kw_only=True):
    """A published bundle; `digest` is the SHA-256 of its manifest."""

    product: str
    version: str
    digest: str

    def __post_init__(self) -> None:
        """Raise ValueError where a field is malformed."""
        check_identifier("product", self.product)
        check_identifier("version", self.version)
        check_digest("digest", self.digest)


class Stage(Value, kw_only=True):
    """One step: the devices below `share`, or those that carry `label`, in addition to the stages before.

    The gate looks `looks` times, evenly over `decide_s` seconds from the stage's start, and promotes no earlier than
    after `bake_s` and with `minimum_devices` canaries that reported.
    """

    name: str
    share: float | None = None
    label: str | None = None
    approval: bool = False
    """A person must approve before the stage starts."""
    bake_s: int
    decide_s: int | None = None
    """None is `bake_s`: one chance to promote, with all of the evidence."""
    looks: int = 12
    minimum_devices: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError where a field is malformed."""
        check_identifier("stage", self.name)
        if (self.share is None) is (self.label is None):
            raise ValueError(f"stage {self.name} has a share or a label, one of them")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share {self.share}, required above 0 and at most 1")
        if self.label is not None:
            check_label(self.label)
        if not 1 <= self.bake_s <= self.horizon_s:
            raise ValueError(f"bake_s {self.bake_s} and decide_s {self.decide_s}, required 1 <= bake_s <= decide_s")
        if not 1 <= self.looks <= MOST_LOOKS or self.minimum_devices < 1:
            raise ValueError(
                f"looks {self.looks} (1 to {MOST_LOOKS}), minimum_devices {self.minimum_devices} (1 or more)"
            )

    @property
    def horizon_s(self) -> int:
        """Seconds from the stage's start to its last look."""
        return self.bake_s if self.decide_s is None else self.decide_s


class Statistic(StrEnum):
    """What of a device's histogram is compared."""

    P50 = "p50"
    P95 = "p95"
    P99 = "p99"
    MEAN = "mean"


class MetricGate(Value, kw_only=True):
    """A figure per device that must not grow by more than the `margin`, a share: 0.1 is one tenth."""

    metric: str
    statistic: Statistic
    margin: float

    def __post_init__(self) -> None:
        """Raise ValueError where a field is malformed."""
        check_metric(self.metric)
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin {self.margin}, required from 0 to 1")

    @property
    def name(self) -> str:
        """The metric and its statistic, as decisions name it."""
        return f"{self.metric}.{self.statistic.value}"


class RateGate(Value, kw_only=True):
    """Events per trial, both counters: `crashes` per request, shadow disagreements per comparison.

    With `against_controls` the rate may exceed the controls' by at most `margin`; else it may be at most `margin`.
    """

    events: str
    trials: str
    margin: float
    against_controls: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError where a field is malformed."""
        check_metric(self.events)
        check_metric(self.trials)
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin {self.margin}, required from 0 to 1")

    @property
    def name(self) -> str:
        """The two counters, as decisions name it."""
        return f"{self.events}/{self.trials}"


class GatePolicy(Value, kw_only=True):
    """What every gate of a rollout asks.

    `alpha` is the chance that a stage of a harmless release is rolled back, over all its looks, metrics and classes;
    `promote_alpha` that a release exactly at a margin passes that metric's gate. Both are one-sided. A class with fewer
    canaries than `class_devices` cannot prove as much: its estimate must be within the margin, and no harm proven.
    """

    metrics: tuple[MetricGate, ...] = ()
    rates: tuple[RateGate, ...] = ()
    alpha: float = 0.025
    promote_alpha: float = 0.025
    class_devices: int = 8
    report_s: int
    """A device that is silent for so many seconds counts as failed."""
    silent_share: float = 0.05
    """More silent canaries than this share are never promoted."""
    crash_loops: int = 2
    """So many devices in a crash loop stop the rollout at once."""
    signature_failures: int = 1
    """So many devices that refused a signature stop the rollout at once."""

    def __post_init__(self) -> None:
        """Raise ValueError where a field is malformed or nothing is asked."""
        if not self.metrics and not self.rates:
            raise ValueError("a gate asks for at least one metric or rate")
        names = [each.name for each in self.metrics] + [each.name for each in self.rates]
        if len(set(names)) != len(names):
            raise ValueError(f"a gate is named twice: {', '.join(sorted(names))}")
        if not (0 < self.alpha < 0.5 and 0 < self.promote_alpha < 0.5):
            raise ValueError(f"alpha {self.alpha} and promote_alpha {self.promote_alpha}, required between 0 and 0.5")
        if self.report_s < 1 or not 0 <= self.silent_share < 1:
            raise ValueError(f"report_s {self.report_s} (1 or more), silent_share {self.silent_share} (0 to below 1)")
        if min(self.crash_loops, self.signature_failures, self.class_devices) < 1:
            raise ValueError("crash_loops, signature_failures and class_devices are 1 or more")


class State(StrEnum):
    """Where a rollout is. The last three are terminal."""

    DRAFT = "draft"
    STAGED = "staged"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"
    """Stopped; devices keep what they run."""
    ROLLED_BACK = "rolled_back"
    """Devices go back to the release before."""

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self in {State.COMPLETED, State.ABORTED, State.ROLLED_BACK}


class Answer(StrEnum):
    """What a gate says. HOLD is not a pass: it is said for too little and for missing data."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HOLD = "hold"


class GateFigure(Value, kw_only=True):
    """One gate over one group of devices at one look.

    `effect` is the relative change for a metric (0.05 is 5 % more than the controls), the difference of rates, or the
    rate, for a rate gate; `low` and `high` bound it at this look's level. `p_harm` and `p_within` are one-sided
    p-values of "worse" and of "within the margin"; each is proven where it is at or below its `level`. Figures are
    None where the data do not give them, and `reason` says why.
    """

    gate: str
    group: str
    """A device class, or `all`."""
    canaries: int
    controls: int
    margin: float
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p_harm: float | None = None
    level_harm: float | None = None
    p_within: float | None = None
    level_within: float | None = None
    harmed: bool = False
    within: bool = False
    reason: str = ""


class Decision(Value, kw_only=True):
    """What a gate said at one look, with everything it looked at.

    `fraction` is the share of the stage's horizon that had passed, in (0, 1].
    """

    answer: Answer
    reason: str
    look: int
    fraction: float
    canaries: int
    """In the cohort."""
    reported: int
    silent: int
    """Past the deadline: they count as failed."""
    controls: int
    figures: tuple[GateFigure, ...] = ()


class EventKind(StrEnum):
    """What can happen to a rollout."""

    CREATED = "created"
    STARTED = "started"
    AWAITING_DELTAS = "awaiting_deltas"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    STAGE_STARTED = "stage_started"
    LOOKED = "looked"
    HARD_STOP = "hard_stop"
    PROMOTED = "promoted"
    PAUSED = "paused"
    RESUMED = "resumed"
    EXTENDED = "extended"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled_back"
    COMPLETED = "completed"


class Event(Value, kw_only=True):
    """One line of a rollout's history. `actor` is empty where the rollout moved by itself."""

    kind: EventKind
    rollout: str
    at_s: float
    stage: str = ""
    actor: str = ""
    reason: str = ""
    decision: Decision | None = None


class Command(StrEnum):
    """What a person can ask of a rollout."""

    START = "start"
    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    EXTEND = "extend"
    """Watch a stage anew that its last look left undecided."""
    ROLL_BACK = "roll_back"


class Rollout(Value, kw_only=True):
    """A rollout and where it is. Times are seconds of the server's clock (Unix time).

    A product's first release is a rollout from itself to itself that was completed from the start: there is nothing to
    compare it with.

    `stage` is the current stage's place, and `promoted` how many stages passed their gate. `stage_start_s` is None
    until the stage has started: before approval, devices of the stage are not served. While paused, the stage's
    clock stands still.
    """

    id: str
    salt: str
    from_release: Release
    to_release: Release
    stages: tuple[Stage, ...]
    policy: GatePolicy
    shadow: bool = False
    """The old model serves, the new one scores along and its disagreement is a gate."""
    holdback: float = 0.05
    """This share of positions, from the top, stays on the old release until completion."""
    state: State = State.DRAFT
    stage: int = 0
    promoted: int = 0
    start_s: float | None = None
    """When it left the draft: what devices reported before is their baseline."""
    stage_start_s: float | None = None
    paused_at_s: float | None = None
    awaits_deltas: bool = False
    """Started, but no stage before what differs between the two bundles can be fetched."""
    fractions: tuple[float, ...] = ()
    """Of the stage's horizon, at each look so far."""
    last: Decision | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where a field is malformed or the fields contradict one another."""
        check_identifier("id", self.id)
        if len(self.salt) < SALT_LETTERS or "\0" in self.salt:
            raise ValueError(f"the salt has {len(self.salt)} letters, required {SALT_LETTERS} or more")
        if self.from_release.product != self.to_release.product:
            raise ValueError(f"from {self.from_release.product} to {self.to_release.product}, required one product")
        if self.from_release.digest == self.to_release.digest and self.state is not State.COMPLETED:
            raise ValueError("from and to are the same release")
        if not 1 <= len(self.stages) <= MOST_STAGES:
            raise ValueError(f"{len(self.stages)} stages, required 1 to {MOST_STAGES}")
        if len({stage.name for stage in self.stages}) != len(self.stages):
            raise ValueError("two stages have the same name")
        shares = [stage.share for stage in self.stages if stage.share is not None]
        if any(not low < high for low, high in pairwise(shares)):
            raise ValueError(f"shares {shares} must grow from stage to stage")
        if not 0 < self.holdback < 1:
            raise ValueError(f"holdback {self.holdback}, required between 0 and 1")
        if not 0 <= self.stage < len(self.stages) or not self.stage <= self.promoted <= self.stage + 1:
            raise ValueError(f"stage {self.stage} with {self.promoted} promoted of {len(self.stages)}")
        if (self.state is State.PAUSED) is (self.paused_at_s is None):
            raise ValueError("paused_at_s is there exactly while paused")

    @property
    def current(self) -> Stage:
        """The stage the rollout is in."""
        return self.stages[self.stage]


def position(device: str, salt: str) -> float:
    """Return where a device stands in [0, 1): the first 53 bits of SHA-256(salt, NUL, device), over 2**53.

    >>> 0 <= position("gateway-17", "a salt of a release") < 1
    True
    """
    digest = hashlib.sha256(f"{salt}\0{device}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def in_cohort(rollout: Rollout, device: str, labels: frozenset[str]) -> bool:
    """Return whether a device should run the new release now.

    A label may name devices that are held back by position: who labels a device a canary means it.
    """
    if rollout.state is State.COMPLETED:
        return True
    if rollout.state in {State.DRAFT, State.ROLLED_BACK}:
        return False
    place = position(device, rollout.salt)
    started = rollout.stages[: rollout.stage + (rollout.stage_start_s is not None)]
    return any(_holds(stage, place, labels, rollout.holdback) for stage in started)


def _holds(stage: Stage, place: float, labels: frozenset[str], holdback: float) -> bool:
    if stage.label is not None:
        return stage.label in labels
    return stage.share is not None and place < min(stage.share, 1 - holdback)


def check_label(value: str) -> None:
    """Raise ValueError unless `value` is `key` or `key=value`."""
    for part in value.split("=", 1):
        check_identifier("label", part)


def encode_rollout(rollout: Rollout) -> bytes:
    """Return a rollout as JSON."""
    return msgspec.json.encode(rollout)


def decode_rollout(data: bytes) -> Rollout:
    """Return the rollout in JSON text. Raises msgspec.ValidationError where it is none."""
    return msgspec.json.decode(data, type=Rollout)
