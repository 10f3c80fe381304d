"""Eclipse hawkBit's Direct Device Integration (DDI, version 1), so that SWUpdate, RAUC and Zephyr clients pull bundles.

Paths and fields are those of hawkBit's DDI interface: poll, deploymentBase, download, feedback, cancelAction. A client
carries its device's own token, as `Authorization: TargetToken TOKEN`. What it is asked to install follows from the
rollout, as for every device; an action is a note that this device was asked, and what it answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, PathParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.rollout import Release, in_cohort
from edgewise.errors import NotFoundError, UnauthenticatedError
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.conduct import serving
from edgewise.fleet.store import actions, devices, releases, rollouts
from edgewise.fleet.store.actions import CANCELLED, CANCELLING, FAILED, FINISHED, OPEN, Action
from edgewise.fleet.store.devices import DeviceView
from edgewise.fleet.store.releases import ReleaseView

BASE = "/{tenant:str}/controller/v1/{controller:str}"
MOST_DETAIL = 2000
Number = Annotated[int, PathParameter(ge=1, le=2**53)]
Json = dict[str, Any]


class Result(msgspec.Struct, kw_only=True):
    """How an action ended: success, failure or none."""

    finished: str = "none"


class Status(msgspec.Struct, kw_only=True):
    """Where a client is with an action; details are free text."""

    execution: str
    result: Result = msgspec.field(default_factory=Result)
    details: list[str] = []


class Feedback(msgspec.Struct, kw_only=True):
    """What a client says of an action; clients send more fields, which say nothing new."""

    status: Status


@get(BASE, opt={"access": Access.PUBLIC}, tags=["DDI"])
async def poll(
    tenant: FromPath[str],
    controller: FromPath[str],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> Json:
    """Tell a client when to come back and what there is to do."""
    await _authenticate(request, services, controller)
    here = f"{str(request.base_url).rstrip('/')}/{tenant}/controller/v1/{controller}"
    links: Json = {"configData": {"href": f"{here}/configData"}}
    now_ms = services.clock()
    async with services.database.write() as connection:
        device = await _device(connection, controller)
        await devices.report(connection, controller, release=None, now_ms=now_ms)
        asked = await _asked(connection, device, now_ms=now_ms)
    if asked is not None and asked.state == OPEN:
        links["deploymentBase"] = {"href": f"{here}/deploymentBase/{asked.id}"}
    if asked is not None and asked.state == CANCELLING:
        links["cancelAction"] = {"href": f"{here}/cancelAction/{asked.id}"}
    minutes, seconds = divmod(services.settings.poll_interval_s, 60)
    hours, minutes = divmod(minutes, 60)
    return {"config": {"polling": {"sleep": f"{hours:02}:{minutes:02}:{seconds:02}"}}, "_links": links}


@get(f"{BASE}/deploymentBase/{{number:int}}", opt={"access": Access.PUBLIC}, tags=["DDI"])
async def deployment(
    tenant: FromPath[str],
    controller: FromPath[str],
    number: Number,
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> Json:
    """Describe what to install: one bundle."""
    await _authenticate(request, services, controller)
    async with services.database.read() as connection:
        device, asked = await _device(connection, controller), await _action(connection, controller, number)
        release = await _release(connection, device.product, asked.version)
    here = f"{str(request.base_url).rstrip('/')}/{tenant}/controller/v1/{controller}"
    name = f"{release.product}-{release.version}.edgewise"
    href = {"href": f"{here}/softwaremodules/{number}/artifacts/{name}"}
    artifact = {
        "filename": name,
        "hashes": {"sha256": release.sha256},
        "size": release.size_bytes,
        "_links": {"download": href, "download-http": href},
    }
    chunk = {"part": "bApp", "version": release.version, "name": release.product, "artifacts": [artifact]}
    return {"id": str(number), "deployment": {"download": "forced", "update": "forced", "chunks": [chunk]}}


@get(f"{BASE}/softwaremodules/{{number:int}}/artifacts/{{filename:str}}", opt={"access": Access.PUBLIC}, tags=["DDI"])
async def download(
    tenant: FromPath[str],  # noqa: ARG001 - part of the path
    controller: FromPath[str],
    number: Number,
    filename: FromPath[str],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> Stream:
    """Give the bundle, or what is left of it from `Range: bytes=N-`."""
    await _authenticate(request, services, controller)
    async with services.database.read() as connection:
        device, asked = await _device(connection, controller), await _action(connection, controller, number)
        release = await _release(connection, device.product, asked.version)
    if filename != f"{release.product}-{release.version}.edgewise":
        raise NotFoundError("there is no such artifact")
    start = _start(request.headers.get("range", ""), release.size_bytes)
    headers = {"Content-Length": str(release.size_bytes - start), "Accept-Ranges": "bytes"}
    if start:
        headers["Content-Range"] = f"bytes {start}-{release.size_bytes - 1}/{release.size_bytes}"

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in services.objects.read_range(release.object, start, release.size_bytes):
            yield piece

    return Stream(pieces, status_code=206 if start else 200, headers=headers, media_type="application/octet-stream")


@post(f"{BASE}/deploymentBase/{{number:int}}/feedback", opt={"access": Access.PUBLIC}, tags=["DDI"], status_code=200)
async def feedback(
    tenant: FromPath[str],  # noqa: ARG001 - part of the path
    controller: FromPath[str],
    number: Number,
    data: JSONBody[Feedback],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> None:
    """Note how an installation goes; `closed` with success says that the device runs the release."""
    await _authenticate(request, services, controller)
    now_ms = services.clock()
    async with services.database.write() as connection:
        device, asked = await _device(connection, controller), await _action(connection, controller, number)
        release = await _release(connection, device.product, asked.version)
        if asked.state not in {OPEN, CANCELLING}:
            return
        state = asked.state
        if data.status.execution in {"canceled", "rejected"}:
            state = CANCELLED
        elif data.status.execution == "closed":
            failed = data.status.result.finished == "failure"  # `none` counts as success, as in hawkBit
            state = FAILED if failed else FINISHED
        if state == FINISHED:
            await devices.report(connection, controller, release=release.digest, now_ms=now_ms)
        detail = "; ".join([data.status.execution, *data.status.details])[:MOST_DETAIL]
        await actions.set_state(connection, asked.id, state, detail=detail, now_ms=now_ms)


@get(f"{BASE}/cancelAction/{{number:int}}", opt={"access": Access.PUBLIC}, tags=["DDI"])
async def cancel(
    tenant: FromPath[str],  # noqa: ARG001 - part of the path
    controller: FromPath[str],
    number: Number,
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> Json:
    """Name the action that is called off."""
    await _authenticate(request, services, controller)
    async with services.database.read() as connection:
        asked = await _action(connection, controller, number)
    if asked.state != CANCELLING:
        raise NotFoundError(f"action {number} is not called off")
    return {"id": str(number), "cancelAction": {"stopId": str(number)}}


@post(f"{BASE}/cancelAction/{{number:int}}/feedback", opt={"access": Access.PUBLIC}, tags=["DDI"], status_code=200)
async def cancelled(
    tenant: FromPath[str],  # noqa: ARG001 - part of the path
    controller: FromPath[str],
    number: Number,
    data: JSONBody[Feedback],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> None:
    """Note that an action was called off, or that it was too late."""
    await _authenticate(request, services, controller)
    async with services.database.write() as connection:
        asked = await _action(connection, controller, number)
        if asked.state == CANCELLING and data.status.execution in {"closed", "canceled", "rejected"}:
            too_late = data.status.execution == "rejected" or data.status.result.finished == "failure"
            state, detail = (FAILED if too_late else CANCELLED), "; ".join(data.status.details)[:MOST_DETAIL]
            await actions.set_state(connection, asked.id, state, detail=detail, now_ms=services.clock())


@put(f"{BASE}/configData", opt={"access": Access.PUBLIC}, tags=["DDI"], status_code=200)
async def configure(
    tenant: FromPath[str],  # noqa: ARG001 - part of the path
    controller: FromPath[str],
    data: JSONBody[Json],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> None:
    """Take a client's attributes; a device's class and labels are the operator's to set, so none is kept."""
    del data
    await _authenticate(request, services, controller)


async def _authenticate(request: Request[Any, Any, Any], services: Services, controller: str) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "targettoken":
        raise UnauthenticatedError("the request carries no token", required="Authorization: TargetToken TOKEN")
    await services.gatekeeper.device_with_token(controller, token.strip())


async def _device(connection: AsyncConnection, name: str) -> DeviceView:
    found = await devices.get(connection, name)
    if found is None:
        raise NotFoundError(f"there is no device {name}")
    return found


async def _action(connection: AsyncConnection, device_id: str, number: int) -> Action:
    found = await actions.get(connection, device_id, number)
    if found is None:
        raise NotFoundError(f"there is no action {number}")
    return found


async def _release(connection: AsyncConnection, product: str, version: str) -> ReleaseView:
    found = await releases.get(connection, product, version)
    if found is None:
        raise NotFoundError(f"there is no release {product} {version}")
    return found


async def _asked(connection: AsyncConnection, device: DeviceView, *, now_ms: int) -> Action | None:
    """Return what the device is asked now: the rollout's release if it does not run it, or to call off another."""
    found = await rollouts.listed(connection, product=device.product)
    rollout = serving([each.rollout for each in found])
    last = await actions.latest(connection, device.id)
    wanted: Release | None = None
    if rollout is not None and in_cohort(rollout, device.id, frozenset(device.labels)):
        wanted = rollout.to_release
    if last is not None and last.state in {OPEN, CANCELLING}:
        if (
            rollout is not None
            and wanted is not None
            and (last.rollout_id, last.version) == (rollout.id, wanted.version)
        ):
            return last
        if last.state == OPEN:
            await actions.set_state(connection, last.id, CANCELLING, detail="no longer wanted", now_ms=now_ms)
        return await actions.get(connection, device.id, last.id)
    if rollout is None or wanted is None or device.release == wanted.digest:
        return None
    return await actions.ensure(
        connection, device_id=device.id, rollout_id=rollout.id, version=wanted.version, now_ms=now_ms
    )


def _start(header: str, size: int) -> int:
    """Return where a download goes on: `bytes=N-`, the only range such clients ask for; else from the start."""
    first = header.removeprefix("bytes=").removesuffix("-")
    return int(first) if header.startswith("bytes=") and first.isdecimal() and int(first) < size else 0


ROUTES = (poll, deployment, download, feedback, cancel, cancelled, configure)
