"""Whether the server lives, is ready, and what it counts."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency

from edgewise import __version__
from edgewise.contracts.base import Value
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.metrics import CONTENT_TYPE


class Health(Value, kw_only=True):
    """The server answers."""

    version: str


@get("/health/live", opt={"access": Access.PUBLIC}, tags=["health"])
async def live() -> Health:
    """Say that the process lives."""
    return Health(version=__version__)


@get("/health/ready", opt={"access": Access.PUBLIC}, tags=["health"])
async def ready(services: NamedDependency[Services]) -> Health:
    """Say that database and store answer; 503 where one does not."""
    async with services.database.read() as connection:
        await connection.exec_driver_sql("SELECT 1")
    await services.objects.check()
    return Health(version=__version__)


@get("/metrics", opt={"access": Access.PUBLIC}, tags=["health"], media_type="text/plain")
async def metrics(services: NamedDependency[Services]) -> Response[bytes]:
    """Give the process's figures in Prometheus' text format."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE)


ROUTES = (live, ready, metrics)
