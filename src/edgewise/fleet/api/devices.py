"""Devices, as operators and as they themselves see them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.contracts.enrolment import Label
from edgewise.errors import NotFoundError
from edgewise.fleet.api.guard import DEVICE_SECURITY, OPERATOR_SECURITY, device_of, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access, Operator
from edgewise.fleet.store import audit, devices, tokens
from edgewise.fleet.store.devices import DeviceView
from edgewise.fleet.store.tokens import Kind

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


class Labels(Value, kw_only=True):
    """All labels of a device; those it had before are replaced."""

    labels: Annotated[tuple[Label, ...], msgspec.Meta(max_length=32)]


class DeviceToken(Value, kw_only=True):
    """The token's only appearance."""

    token: str


@get("/api/v1/devices", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["devices"])
async def listed(
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    after: FromQuery[str] = "",
    limit: Limit = 100,
) -> list[DeviceView]:
    """List devices by name; go on with `after` the last one."""
    async with services.database.read() as connection:
        products = operator_of(request).products
        found = await devices.listed(connection, products=products, after=after, limit=limit)
        return await devices.with_reports(connection, found)


@get("/api/v1/devices/{name:str}", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["devices"])
async def one(name: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]) -> DeviceView:
    """Show a device."""
    async with services.database.read() as connection:
        return (await devices.with_reports(connection, [await _seen(connection, name, operator_of(request))]))[0]


@put("/api/v1/devices/{name:str}/labels", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["devices"])
async def label(
    name: FromPath[str], data: JSONBody[Labels], request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> DeviceView:
    """Replace the labels of a device."""
    operator = operator_of(request)
    async with services.database.write() as connection:
        found = await _seen(connection, name, operator)
        await devices.set_labels(connection, name, data.labels)
        await _record(services, connection, operator, "device.label", found, {"labels": data.labels})
        return await _seen(connection, name, operator)


@post("/api/v1/devices/{name:str}/token", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["devices"])
async def token(
    name: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> DeviceToken:
    """Give a device a token, for clients that cannot sign; the one before is no longer valid."""
    operator, made = operator_of(request), tokens.new_secret(Kind.DEVICE)
    async with services.database.write() as connection:
        found = await _seen(connection, name, operator)
        await devices.set_token(connection, name, made)
        await _record(services, connection, operator, "device.token", found, {"token": made.id})
    services.gatekeeper.forget(name)
    return DeviceToken(token=made.text)


@delete("/api/v1/devices/{name:str}", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["devices"])
async def revoke(name: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]) -> None:
    """Shut a device out for good."""
    operator = operator_of(request)
    async with services.database.write() as connection:
        found = await _seen(connection, name, operator)
        if await devices.revoke(connection, name, now_ms=services.clock()):
            await _record(services, connection, operator, "device.revoke", found, None)
    services.gatekeeper.forget(name)


@get("/api/v1/device/{name:str}", opt={"access": Access.DEVICE}, security=DEVICE_SECURITY, tags=["for devices"])
async def own(name: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]) -> DeviceView:
    """Show a device to itself; another device's is not there for it."""
    if device_of(request).id != name:
        raise NotFoundError(f"there is no device {name}")
    async with services.database.read() as connection:
        found = await devices.get(connection, name)
    if found is None:
        raise NotFoundError(f"there is no device {name}")
    return found


async def _seen(connection: AsyncConnection, name: str, operator: Operator) -> DeviceView:
    found = await devices.get(connection, name)
    if found is None:
        raise NotFoundError(f"there is no device {name}")
    operator.sees(found.product, f"device {name}")
    return found


async def _record(
    services: Services, connection: AsyncConnection, operator: Operator, action: str, device: DeviceView, detail: object
) -> None:
    await audit.record(
        services.database,
        connection,
        at_ms=services.clock(),
        actor=operator.actor,
        action=action,
        subject=device.id,
        product=device.product,
        detail=detail,
    )


ROUTES = (listed, one, label, token, revoke, own)
