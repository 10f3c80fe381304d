"""Sketches of inputs out, for whoever calibrates next."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from edgewise.contracts.capture import FleetCapture
from edgewise.errors import NotFoundError
from edgewise.fleet.api.guard import OPERATOR_SECURITY, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.captures import captured
from edgewise.fleet.store import telemetry

DAY_MS = 24 * 3_600_000
MOST_DAYS = 31


@get(
    "/api/v1/captures/{product:str}/{release:str}",
    opt={"access": Access.READ},
    security=OPERATOR_SECURITY,
    tags=["telemetry"],
)
async def capture(
    product: FromPath[str],
    release: FromPath[str],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    days: Annotated[int, QueryParameter(ge=1, le=MOST_DAYS)] = 7,
) -> FleetCapture:
    """Show what devices with a release (digest of its manifest) told of their inputs in the last days, added up."""
    operator_of(request).sees(product, f"product {product}")
    stop_ms = services.clock()
    start_ms = stop_ms - days * DAY_MS
    async with services.database.read() as connection:
        rows = await telemetry.series_of_release(connection, product, release, start_ms=start_ms, stop_ms=stop_ms)
    found = captured(rows, product=product, release=release, start_ms=start_ms, stop_ms=stop_ms)
    if not found.reports:
        raise NotFoundError(
            f"no device told of its inputs with the release {release[:64]} of {product} in {days} days",
            required="devices that capture, and a release by the SHA-256 of its manifest",
            next_step="turn capture on in agent.toml; a report comes once an hour",
        )
    return found


ROUTES = (capture,)
