"""Telemetry in, and what it adds up to."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from edgewise.contracts.base import Value
from edgewise.fleet import ingest_otlp
from edgewise.fleet.api.guard import DEVICE_SECURITY, OPERATOR_SECURITY, device_of, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.ingest import received
from edgewise.fleet.ingest_totals import Totals
from edgewise.fleet.push import request_of
from edgewise.fleet.store import telemetry
from edgewise.fleet.store.telemetry import SeriesKey

HOUR_MS = 3_600_000
LATEST_MS = 2**53
Time = Annotated[int | None, QueryParameter(ge=0, le=LATEST_MS)]


class Accepted(Value, kw_only=True):
    """The envelopes are durable; those whose key was known already are counted too."""

    envelopes: int


class Point(Value, kw_only=True):
    """What all devices of a class reported of one variant in five minutes."""

    start_ms: int
    release: str
    variant: str
    device_class: str
    totals: Totals


@post(
    "/api/v1/telemetry",
    opt={"access": Access.DEVICE, "may_repeat": True},
    security=DEVICE_SECURITY,
    tags=["for devices"],
    status_code=202,
)
async def take(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Accepted:
    """Take an envelope, or a list of them, in; the answer comes when they are durable."""
    device, settings = device_of(request), services.settings
    rows = received(await request.body(), device, now_ms=services.clock(), days=settings.envelope_days)
    if rows:
        await services.inbox.put(rows)
    return Accepted(envelopes=len(rows))


@get("/api/v1/telemetry/{product:str}", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["telemetry"])
async def points(
    product: FromPath[str],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    start_ms: Time = None,
    stop_ms: Time = None,
) -> list[Point]:
    """Show a product's totals by five minutes; without times, of the last hour. At most a week at once."""
    operator_of(request).sees(product, f"product {product}")
    rows = await _rows(services, product, start_ms, stop_ms)
    return [
        Point(
            start_ms=key.start_ms,
            release=key.release,
            variant=key.variant,
            device_class=key.device_class,
            totals=totals,
        )
        for key, totals in rows
    ]


@post(
    "/v1/metrics",
    opt={"access": Access.DEVICE, "may_repeat": True},
    security=DEVICE_SECURITY,
    tags=["for devices"],
    status_code=200,
)
async def take_otlp(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Response[bytes]:
    """Take OTLP/HTTP metrics in, protobuf or JSON; what cannot be taken exactly is rejected in the answer."""
    device, settings = device_of(request), services.settings
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "").strip().lower()
    body = ingest_otlp.expanded(await request.body(), encoding, limit_bytes=settings.request_limit_bytes)
    found = ingest_otlp.taken(ingest_otlp.parsed(body, media_type), device, body=body)
    rows = received(msgspec.json.encode(found.envelopes), device, now_ms=services.clock(), days=settings.envelope_days)
    if rows:
        await services.inbox.put(rows)
    answer_type = ingest_otlp.JSON if media_type == ingest_otlp.JSON else ingest_otlp.PROTOBUF
    return Response(ingest_otlp.answered(found, answer_type), media_type=answer_type)


@get(
    "/api/v1/telemetry/{product:str}/otlp",
    opt={"access": Access.READ},
    security=OPERATOR_SECURITY,
    tags=["telemetry"],
    media_type=ingest_otlp.PROTOBUF,
)
async def give_otlp(
    product: FromPath[str],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    start_ms: Time = None,
    stop_ms: Time = None,
) -> Response[bytes]:
    """Give a product's totals as an OTLP metrics request, to be sent on to a collector; times as for the totals."""
    operator_of(request).sees(product, f"product {product}")
    rows = await _rows(services, product, start_ms, stop_ms)
    data = request_of(rows)
    return Response(data, media_type=ingest_otlp.PROTOBUF)


async def _rows(
    services: Services, product: str, start_ms: int | None, stop_ms: int | None
) -> list[tuple[SeriesKey, Totals]]:
    stop = services.clock() if stop_ms is None else stop_ms
    start = stop - HOUR_MS if start_ms is None else max(start_ms, stop - 7 * 24 * HOUR_MS)
    async with services.database.read() as connection:
        return await telemetry.series_between(connection, product, start_ms=start, stop_ms=stop)


ROUTES = (take, points, take_otlp, give_otlp)
