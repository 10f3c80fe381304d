"""What every route may use; made once per process."""

from __future__ import annotations

import msgspec
from securesystemslib.signer import Key

from edgewise.fleet.auth import Gatekeeper
from edgewise.fleet.clock import Clock
from edgewise.fleet.direct import Director
from edgewise.fleet.ingest import Inbox
from edgewise.fleet.metrics import Metrics
from edgewise.fleet.settings import Settings
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.objects import Objects


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a running server."""

    settings: Settings
    database: Database
    objects: Objects
    gatekeeper: Gatekeeper
    metrics: Metrics
    inbox: Inbox
    clock: Clock
    director: Director | None
    """Publishes rollouts to devices; None where the server has no keys."""
    trusted: tuple[Key, ...]
    """Keys whose seals are accepted on releases."""
