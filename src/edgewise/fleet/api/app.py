"""Puts the routes together."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import Message, Receive, Scope, Send

from edgewise import __version__
from edgewise.contracts.enrolment import SCHEME
from edgewise.fleet.api import (
    alerts,
    audit,
    captures,
    ddi,
    devices,
    enrolment,
    health,
    problems,
    releases,
    rollouts,
    telemetry,
    tokens,
)
from edgewise.fleet.api.guard import authorise
from edgewise.fleet.api.intake import Intake
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.console import pages
from edgewise.fleet.serve_files import PREFIX, Files

ROUTES = (
    *health.ROUTES,
    *enrolment.ROUTES,
    *devices.ROUTES,
    *tokens.ROUTES,
    *audit.ROUTES,
    *alerts.ROUTES,
    *telemetry.ROUTES,
    *captures.ROUTES,
    *releases.ROUTES,
    *rollouts.ROUTES,
    *ddi.ROUTES,
    *pages.ROUTES,
)


def create_api(services: Services, lifespan: list[AbstractAsyncContextManager[None]] | None = None) -> Litestar:
    """Return the application of all routes but the poll path."""

    def provide() -> Services:
        return services

    return Litestar(
        route_handlers=list(ROUTES),
        dependencies={"services": Provide(provide, sync_to_thread=False)},
        guards=[authorise],
        exception_handlers=problems.HANDLERS,
        state=State({"services": services}),
        request_max_body_size=services.settings.request_limit_bytes,
        openapi_config=openapi(),
        logging_config=None,
        lifespan=lifespan or [],
    )


def openapi() -> OpenAPIConfig:
    """Return what the description says beside the routes."""
    return OpenAPIConfig(
        title="edgewise fleet",
        version=__version__,
        render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        components=Components(
            security_schemes={
                "operator": SecurityScheme(type="http", scheme="Bearer", description="A token of `edgewise fleet`."),
                "device": SecurityScheme(
                    type="http", scheme=SCHEME, description="A signature by the device's key, or its own token."
                ),
            }
        ),
        openapi_router=Router(path="/api/v1/schema", route_handlers=[], opt={"access": Access.PUBLIC}),
    )


class Front:
    """What the server runs: the poll path and the intake of telemetry first, then the routes, each request counted."""

    def __init__(self, api: Litestar, files: Files, services: Services) -> None:
        """Join the two."""
        self._api = api
        self._files = files
        self._intake = Intake(services)
        self._metrics = services.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._api(scope, receive, send)
        elif scope["path"].startswith(PREFIX):
            await self._files(scope, receive, send)
        elif self._intake.wants(scope):
            await self._intake(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._api(scope, receive, noting)
        finally:
            fields: dict[str, Any] = dict(scope)
            route = fields.get("path_template") or "none"
            self._metrics.requests.labels(fields["method"], route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
