"""What one server process is told when it starts."""

from __future__ import annotations

from pathlib import Path

from edgewise.contracts.base import Value


class Settings(Value, kw_only=True):
    """The options of `edgewise fleet serve`."""

    database: str
    store: str
    host: str = "127.0.0.1"
    port: int = 8700
    poll_interval_s: int = 300
    """How often a device asks for an update."""
    poll_jitter: float = 1.0
    """Share of the interval over which the devices' polls are spread."""
    request_limit_bytes: int = 2 * 1024 * 1024
    """Largest body of a request, bundles aside; bodies that are compressed are also held to it when expanded."""
    bundle_limit_bytes: int = 4 * 1024**3
    poll_limit: int = 2000
    """So many polls are served at once; more are told to come back later."""
    inbox_limit: int = 20_000
    """So many envelopes wait to be written; more are told to come back later."""
    tick_s: float = 2.0
    """How often the leader's work is looked at."""
    envelope_days: int = 30
    """How long keys of merged envelopes are kept; older envelopes are refused, so that none is counted twice."""
    keys: Path | None = None
    """Folder of the server's own keys, with which rollouts are published to devices; None publishes nothing."""
    trusted_root: Path = Path("trusted-root.json")
    """Root of the image repository; the director's lies beside it."""
    otlp: str | None = None
    """Address of a collector's metrics, to which telemetry is sent on; None sends nothing."""
    trusted: Path | None = None
    """Folder of the public keys whose seals are accepted on releases; None accepts none."""
