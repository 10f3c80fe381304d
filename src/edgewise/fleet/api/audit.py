"""The audit log, to read."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from edgewise.contracts.base import Value
from edgewise.fleet.api.guard import OPERATOR_SECURITY, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.store import audit
from edgewise.fleet.store.audit import Entry

Sequence = Annotated[int, QueryParameter(ge=0, le=2**53)]
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


class Chain(Value, kw_only=True):
    """Whether each line of the log follows from the one before."""

    whole: bool
    broken_at: int | None
    """Sequence number of the first line that does not."""


@get("/api/v1/audit", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["audit"])
async def listed(
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    after: Sequence = 0,
    limit: Limit = 100,
    newest: FromQuery[bool] = False,  # noqa: FBT002 - a query parameter, given by name
) -> list[Entry]:
    """List lines after a sequence number, oldest first; with `newest`, the last ones, newest first."""
    products = operator_of(request).products
    async with services.database.read() as connection:
        return await audit.entries(connection, after=after, limit=limit, products=products, newest=newest)


@get("/api/v1/audit/chain", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["audit"])
async def chain(services: NamedDependency[Services]) -> Chain:
    """Check the whole chain."""
    async with services.database.read() as connection:
        broken = await audit.broken_at(connection)
    return Chain(whole=broken is None, broken_at=broken)


ROUTES = (listed, chain)
