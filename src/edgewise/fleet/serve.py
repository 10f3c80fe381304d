"""Runs the server: one process, one event loop. More processes may run beside it on the same database and store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from edgewise.errors import ConfigError
from edgewise.fleet.api.app import Front, create_api
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Gatekeeper
from edgewise.fleet.clock import Clock, system_ms
from edgewise.fleet.direct import Director
from edgewise.fleet.ending import GRACE_S, others_ended
from edgewise.fleet.ingest import Inbox
from edgewise.fleet.leader import working
from edgewise.fleet.metrics import Metrics
from edgewise.fleet.publish import load_trusted
from edgewise.fleet.push import check_url
from edgewise.fleet.serve_files import Files
from edgewise.fleet.settings import Settings
from edgewise.fleet.store.database import open_database
from edgewise.fleet.store.objects import open_objects

log = logging.getLogger("edgewise.fleet")


def open_services(settings: Settings, clock: Clock = system_ms) -> Services:
    """Open what the routes use. Raises ConfigError."""
    if settings.otlp is not None:
        check_url(settings.otlp)
    database, metrics = open_database(settings.database), Metrics()
    database.on_statement(metrics.statements.inc)
    objects = open_objects(settings.store)
    director = None if settings.keys is None else Director(objects.store, settings.keys, settings.trusted_root)
    return Services(
        settings=settings,
        database=database,
        objects=objects,
        director=director,
        gatekeeper=Gatekeeper(database, clock),
        metrics=metrics,
        inbox=Inbox(database, metrics, limit=settings.inbox_limit),
        clock=clock,
        trusted=load_trusted(settings.trusted),
    )


def create_app(services: Services) -> Front:
    """Return the application: poll path, routes and the work in the background."""
    api = create_api(services, [_background(services)])
    return Front(api, Files(services.objects, services.settings, services.clock, services.metrics), services)


@contextlib.asynccontextmanager
async def _background(services: Services) -> AsyncIterator[None]:
    async with services.inbox.running(), working(services):
        yield


async def serve(settings: Settings) -> None:
    """Migrate the database and answer requests until told to stop. Raises ConfigError, StorageError."""
    services = open_services(settings)
    try:
        await services.database.migrate()
        await services.objects.check()
        await _answer(services)
    finally:
        await others_ended(GRACE_S)  # requests under way, before what they use is closed and the loop cancels them
        await services.database.close()
    log.info("stopped")


async def _answer(services: Services) -> None:
    settings = services.settings
    server = Server(
        create_app(services),
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        log_enabled=False,
        log_level=LogLevels.warning,
    )
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, server.stop)
    log.info("listening", extra={"host": settings.host, "port": settings.port})
    try:
        await server.serve()
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be listened on: {error}",
            required="an address of this machine and a free port",
            next_step="choose another --port",
        ) from error
