"""What an application may declare about fallbacks. Everything is off until it is declared."""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from edgewise.contracts.base import Value
from edgewise.device.fallback.breaker import BreakerRules
from edgewise.device.fallback.bucket import BucketRules
from edgewise.device.fallback.conservative import Conservative

RESERVE_SHARE = 0.1
MIB = 1 << 20


class CloudProtocol(StrEnum):
    """What a server speaks; docs/reference/cloud-protocol.md."""

    OPENAI = "openai"
    """Chat completions, as OpenAI's API and many servers have them."""
    JSON = "json"
    """The model's tensors, in and out."""


class CloudOptions(Value, kw_only=True):
    """A server to ask where the local classifier is unsure.

    `reserve_ms` before the deadline the local answer is returned, whatever the server does. A call is made only where
    `least_ms` are left until then, and waits `timeout_s` at most.
    """

    url: str
    """`openai`: the base, to which `/chat/completions` is added. https, or http to this machine."""
    protocol: CloudProtocol = CloudProtocol.OPENAI
    model: str = ""
    """For `openai`: the name of the model."""
    parameters: dict[str, float | int | str | bool] = msgspec.field(
        default_factory=lambda: {"temperature": 0, "max_tokens": 64}
    )
    """For `openai`: further keys of the request."""
    key_file: str = ""
    key_env: str = ""
    """Where the API key stands: a file, or a variable of the environment. Neither: none is sent."""
    ca_file: str = ""
    """Certificates that are trusted instead of the system's."""
    consent: bool = False
    """Whether inputs may leave the device; can be given and withdrawn later."""
    coverage: float = 0.9
    """Which of the variant's conformal thresholds decides."""
    reserve_ms: float = 20.0
    least_ms: float = 50.0
    timeout_s: float = 10.0
    attempts: int = 2
    """Calls for one inference: the first, and repeats where the server was not reached or failed at once."""
    most_sent_bytes: int = 8 * MIB
    most_received_bytes: int = MIB
    """Beyond what the outputs themselves take."""
    breaker: BreakerRules = BreakerRules()
    budget: BucketRules = BucketRules()

    def __post_init__(self) -> None:
        """Raise ValueError for a figure that cannot be."""
        times = (self.reserve_ms, self.least_ms, self.timeout_s)
        if not all(math.isfinite(each) and each >= 0 for each in times) or self.timeout_s == 0:
            raise ValueError("reserve_ms, least_ms and timeout_s must be finite, not negative, timeout_s above 0")
        if self.attempts < 1 or self.most_sent_bytes < 1 or self.most_received_bytes < 1:
            raise ValueError("attempts, most_sent_bytes and most_received_bytes must be 1 or more")
        if self.key_file and self.key_env:
            raise ValueError("the API key stands in key_file or in key_env, not in both")


class FallbackOptions(Value, kw_only=True):
    """The rungs of one runtime.

    `reserve_ms` of the deadline, at most a tenth of it, are kept for the rung that answers after a local execution
    that was cut.
    """

    reserve_ms: float = 1.0
    cache_bytes: int = 0
    """For answers that are kept; 0 keeps none."""
    conservative: Conservative | None = None
    cloud: CloudOptions | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a figure that cannot be."""
        if not (math.isfinite(self.reserve_ms) and self.reserve_ms >= 0):
            raise ValueError("reserve_ms must be finite and not negative")
        if self.cache_bytes < 0:
            raise ValueError("cache_bytes must not be negative")

    def reserved_ms(self, deadline_ms: float) -> float:
        """Return what is kept of a deadline."""
        return min(self.reserve_ms, RESERVE_SHARE * deadline_ms)
