"""`agent.toml`: what the owner of a device decides, read once at start. Wrong keys and values are refused."""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgewise.contracts.base import Value
from edgewise.device.audit.log import AuditOptions
from edgewise.device.fallback.options import FallbackOptions
from edgewise.device.trust.pace import Pace
from edgewise.errors import ConfigError

MIB = 1 << 20
MOST_SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux, without the byte that ends it (unix(7))."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Trial(Value, kw_only=True):
    """The `[trial]` section: limits of the process that tries a bundle before it counts."""

    memory_mib: Count = 4096
    timeout_s: Positive = 120.0


class Lab(Value, kw_only=True):
    """The `[lab]` section: with it, who has the token may measure models here."""

    token_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 of the token, in hexadecimal: the token itself is not on the device."""
    request_mib: Count = 1024
    """Largest request: models and samples together, also unpacked."""
    memory_mib: Count = 4096
    timeout_s: Positive = 300.0


class CaptureOptions(Value, kw_only=True):
    """The `[capture]` section: with it, inputs are sketched for the next calibration."""

    report_s: Annotated[float, msgspec.Meta(ge=1, le=7 * 86400)] = 3600.0
    epsilon: Positive | None = None
    """Noise that makes a report epsilon-differentially private for one inference; without it sketches are exact."""
    samples_key: str = ""
    """PEM of the operator's X25519 public key; with it, and with consent, samples are kept sealed."""
    samples_mib: Count = 64


class WorkerOptions(Value, kw_only=True):
    """The `[worker]` section: with it, models run in processes of their own."""

    memory_mib: Count = 4096
    start_s: Positive = 60.0
    """How long such a process may take to open its model."""
    hang_s: Positive = 30.0
    """An inference without a deadline is ended after so long, with its process."""


class Settings(Value, kw_only=True):
    """A whole agent.toml; every key may be left out."""

    listen: str = ""
    """`unix:PATH` or `127.0.0.1:PORT`; empty takes `agent.sock` in the agent's folder."""
    quota_mib: Count = 2048
    """What bundles may take on the disk, all copies together."""
    request_mib: Count = 32
    """Largest body of a local request."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    """So many local connections at once; more are turned away."""
    report_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 300.0
    """Length of a window of telemetry."""
    shadow_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    """Of the time, for scoring a new release beside the one that serves."""
    governor: bool = False
    """Another variant of the bundle answers while the device is late, hot, or short of battery or memory.

    All variants that join stay loaded; drift and energy are reported too.
    """
    trial: Trial = Trial()
    fallback: FallbackOptions = FallbackOptions()
    audit: AuditOptions = AuditOptions()
    """What answers where the model does not, or is unsure; consent to a cloud server is part of it."""
    transfer: Pace = Pace()
    """Limits of each transfer from the server."""
    worker: WorkerOptions | None = None
    lab: Lab | None = None
    capture: CaptureOptions | None = None


def read_settings(path: Path) -> Settings:
    """Return the settings in a file, or the defaults where there is none. Raises ConfigError."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: {error}", required="a file in TOML that can be read", next_step="correct it, or take it away"
        ) from error
    _check_keys(path, data, Settings, "")
    try:
        settings = msgspec.convert(data, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {error}", required="values as in docs/reference/agent", next_step="correct the value"
        ) from error
    if settings.listen:
        parse_listen(settings.listen)
    return settings


def _check_keys(path: Path, data: Mapping[str, Any], kind: type[msgspec.Struct], section: str) -> None:
    fields = {each.name: each.type for each in msgspec.structs.fields(kind)}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise ConfigError(
                f'{path}: {f"[{section}] " if section else ""}unknown key "{key[:60]}"',
                required=f"one of {', '.join(fields)}",
                next_step=f'did you mean "{near[0]}"?' if near else "remove it, or see docs/reference/agent",
            )
        inner = _section(fields[key])
        if isinstance(value, dict) and inner is not None:
            _check_keys(path, value, inner, f"{section}.{key}" if section else key)


def _section(kind: Any) -> type[msgspec.Struct] | None:
    """Return what a section decodes to, be it optional; None for a plain value."""
    for each in (kind, *typing.get_args(kind)):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return each
    return None


class Listen(Value, kw_only=True):
    """Where local applications are answered: at a path, or at a loopback address and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """Return it as it is written."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Return an address. Raises ConfigError for one that others could reach, or that is none.

    >>> str(parse_listen("127.0.0.1:9000"))
    '127.0.0.1:9000'
    """
    if text.startswith("unix:") and text != "unix:":
        path = text.removeprefix("unix:")
        if len(path.encode()) > MOST_SOCKET_BYTES or "\0" in path:
            raise ConfigError(
                f"the socket {path!r} has {len(path.encode())} bytes",
                required=f"a path of at most {MOST_SOCKET_BYTES} bytes",
                next_step="give a shorter --listen unix:PATH",
            )
        return Listen(path=path)
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigError(
            f"listen {text!r}",
            required="unix:PATH, or a loopback address with a port: 127.0.0.1:PORT",
            next_step="anybody on the network could use the model otherwise; put a proxy in front if that is wanted",
        )
    return Listen(host=host, port=int(port))
