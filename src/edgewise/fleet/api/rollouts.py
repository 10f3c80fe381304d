"""Rollouts: drafted, commanded and watched."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.contracts.enrolment import Name
from edgewise.contracts.rollout import MOST_STAGES, Command, GatePolicy, Release, Rollout, Stage, State
from edgewise.errors import ConflictError, NotFoundError, RolloutError
from edgewise.fleet import conduct
from edgewise.fleet.api.guard import OPERATOR_SECURITY, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access, Operator
from edgewise.fleet.store import releases, rollouts
from edgewise.fleet.store.releases import ReleaseView
from edgewise.fleet.store.rollouts import Kept, KeptEvent


class Draft(Value, kw_only=True):
    """A rollout to be: from one published release to another, in stages, judged by a policy."""

    product: Name
    from_version: Name
    to_version: Name
    stages: Annotated[tuple[Stage, ...], msgspec.Meta(min_length=1, max_length=MOST_STAGES)]
    policy: GatePolicy
    shadow: bool = False
    holdback: float = 0.05


class First(Value, kw_only=True):
    """A product's first release."""

    product: Name
    version: Name
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Order(Value, kw_only=True):
    """Why a command is given; with a revision, only if nothing has changed since."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    revision: int | None = None


@post("/api/v1/rollouts", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["rollouts"])
async def draft(data: JSONBody[Draft], request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Kept:
    """Draft a rollout; `start` sets it off."""
    operator, now_ms = operator_of(request), services.clock()
    operator.sees(data.product, f"product {data.product}")
    async with services.database.write() as connection:
        before = await _release(connection, data.product, data.from_version)
        after = await _release(connection, data.product, data.to_version)
        try:
            new = Rollout(
                id=conduct.new_id(),
                salt=conduct.new_salt(),
                from_release=before.contract,
                to_release=after.contract,
                stages=data.stages,
                policy=data.policy,
                shadow=data.shadow,
                holdback=data.holdback,
            )
        except ValueError as error:
            raise RolloutError(str(error)) from error
        return await conduct.add(services.database, connection, new, now_ms=now_ms, actor=operator.actor)


@post("/api/v1/rollouts/first", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["rollouts"])
async def first(data: JSONBody[First], request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Kept:
    """Give a product its first release: every device takes it. Later ones need a rollout."""
    operator = operator_of(request)
    operator.sees(data.product, f"product {data.product}")
    async with services.database.write() as connection:
        release = await _release(connection, data.product, data.version)
        await _check_published(services, release.contract)
        return await conduct.begin(
            services.database,
            connection,
            release.contract,
            now_ms=services.clock(),
            actor=operator.actor,
            reason=data.reason,
        )


@post(
    "/api/v1/rollouts/{name:str}/{asked:str}",
    opt={"access": Access.OPERATE},
    security=OPERATOR_SECURITY,
    tags=["rollouts"],
    status_code=200,
)
async def order(
    name: FromPath[str],
    asked: FromPath[Command],
    data: JSONBody[Order],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
) -> Kept:
    """Command a rollout: start, approve, pause, resume, extend, abort or roll back."""
    operator = operator_of(request)
    async with services.database.write() as connection:
        kept = await _seen(connection, name, operator)
        if data.revision is not None and data.revision != kept.revision:
            raise ConflictError(f"rollout {name} is at revision {kept.revision}", required=str(data.revision))
        if asked is Command.START and kept.rollout.state is State.DRAFT:
            await _check_published(services, kept.rollout.from_release, kept.rollout.to_release)
        return await conduct.obey(
            services.database,
            connection,
            kept,
            asked,
            now_ms=services.clock(),
            actor=operator.actor,
            reason=data.reason,
            awaits_deltas=services.director is not None,
        )


@get("/api/v1/rollouts", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["rollouts"])
async def listed(
    request: Request[Any, Any, Any], services: NamedDependency[Services], product: FromQuery[str | None] = None
) -> list[Kept]:
    """List rollouts, newest first."""
    async with services.database.read() as connection:
        return await rollouts.listed(connection, products=operator_of(request).products, product=product)


@get("/api/v1/rollouts/{name:str}", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["rollouts"])
async def one(name: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Kept:
    """Show a rollout; `last` is its last decision with every figure."""
    async with services.database.read() as connection:
        return await _seen(connection, name, operator_of(request))


@get("/api/v1/rollouts/{name:str}/events", opt={"access": Access.READ}, security=OPERATOR_SECURITY, tags=["rollouts"])
async def events(
    name: FromPath[str],
    request: Request[Any, Any, Any],
    services: NamedDependency[Services],
    after: Annotated[int, QueryParameter(ge=0, le=2**53)] = 0,
) -> list[KeptEvent]:
    """List what happened to a rollout after a number: ask again with the last one to watch it live."""
    async with services.database.read() as connection:
        await _seen(connection, name, operator_of(request))
        return await rollouts.events(connection, name, after=after)


async def _seen(connection: AsyncConnection, name: str, operator: Operator) -> Kept:
    found = await rollouts.get(connection, name)
    if found is None:
        raise NotFoundError(f"there is no rollout {name}")
    operator.sees(found.rollout.to_release.product, f"rollout {name}")
    return found


async def _check_published(services: Services, *found: Release) -> None:
    """Refuse what devices would not find; a server without keys publishes nothing to them."""
    if services.director is not None:
        now = datetime.fromtimestamp(services.clock() / 1000, UTC)
        await asyncio.to_thread(services.director.check, found, now)


async def _release(connection: AsyncConnection, product: str, version: str) -> ReleaseView:
    found = await releases.get(connection, product, version)
    if found is None:
        raise NotFoundError(f"there is no release {product} {version}", next_step="publish it first")
    return found


ROUTES = (draft, first, order, listed, one, events)
