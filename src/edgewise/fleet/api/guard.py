"""Asks at every route who is there. A route that does not say who may use it is used by nobody."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from edgewise.errors import ForbiddenError
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access, Operator, Requested
from edgewise.fleet.store.devices import Identity

OPERATOR_SECURITY = [{"operator": list[str]()}]
DEVICE_SECURITY = [{"device": list[str]()}]


async def authorise(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Put the caller into `scope["user"]`. Raises UnauthenticatedError or ForbiddenError."""
    access = handler.opt.get("access")
    if access is Access.PUBLIC:
        return
    services: Services = connection.app.state.services
    authorization = connection.headers.get("authorization", "")
    if access is Access.DEVICE:
        connection.scope["user"] = await services.gatekeeper.device(
            await requested(_request(connection)), may_repeat=handler.opt.get("may_repeat", False)
        )
    elif isinstance(access, Access):
        connection.scope["user"] = await services.gatekeeper.operator(authorization, access)
    else:
        raise ForbiddenError("the route does not say who may use it")


def _request(connection: ASGIConnection[Any, Any, Any, Any]) -> Request[Any, Any, Any]:
    if not isinstance(connection, Request):
        raise ForbiddenError("devices send requests, nothing else")
    return connection


async def requested(request: Request[Any, Any, Any]) -> Requested:
    """Return the parts of a request that a signature covers."""
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    query = request.scope["query_string"]
    return Requested(
        method=request.method,
        target=(raw.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1"),
        body=await request.body(),
        authorization=request.headers.get("authorization", ""),
    )


def operator_of(request: Request[Any, Any, Any]) -> Operator:
    """Return the operator whom the guard let in."""
    caller = request.scope["user"]
    if not isinstance(caller, Operator):
        raise ForbiddenError("this is for operators")
    return caller


def device_of(request: Request[Any, Any, Any]) -> Identity:
    """Return the device whom the guard let in."""
    caller = request.scope["user"]
    if not isinstance(caller, Identity):
        raise ForbiddenError("this is for devices")
    return caller
