"""Alerts and the error budget they watch."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from edgewise.contracts.base import Value
from edgewise.fleet.alerts import Burn, burns
from edgewise.fleet.api.guard import OPERATOR_SECURITY, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.store import alerts
from edgewise.fleet.store.alerts import Alert
from edgewise.fleet.watch import OBJECTIVE, recent


class Spending(Value, kw_only=True):
    """How a product spends its error budget: `bad` of `total` requests in six hours had no answer of a model."""

    objective: float
    total: int
    bad: int
    spent: float | None
    """Burn rate over the six hours: 1 is what the budget allows. None where nothing was asked."""
    burns: tuple[Burn, ...]


@get("/api/v1/alerts", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["alerts"])
async def listed(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> list[Alert]:
    """List alerts, newest first; `closed_ms` is null while one is open."""
    async with services.database.read() as connection:
        return await alerts.listed(connection, products=operator_of(request).products)


@get("/api/v1/alerts/{product:str}", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["alerts"])
async def spending(
    product: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> Spending:
    """Show how fast a product spends its error budget now, by each rule."""
    operator_of(request).sees(product, f"product {product}")
    now_ms = services.clock()
    async with services.database.read() as connection:
        found = await recent(connection, product, now_ms=now_ms)
    total, bad = sum(each.total for each in found), sum(each.bad for each in found)
    return Spending(
        objective=OBJECTIVE,
        total=total,
        bad=bad,
        spent=bad / total / (1 - OBJECTIVE) if total else None,
        burns=burns(found, objective=OBJECTIVE, now_s=now_ms / 1000),
    )


ROUTES = (listed, spending)
