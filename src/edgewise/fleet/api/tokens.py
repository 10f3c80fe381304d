"""Tokens of operators: listed, made and revoked."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from edgewise.contracts.base import Value
from edgewise.contracts.enrolment import Name
from edgewise.errors import ForbiddenError, NotFoundError
from edgewise.fleet.api.guard import OPERATOR_SECURITY, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access, Operator
from edgewise.fleet.store import audit, tokens
from edgewise.fleet.store.tokens import Role, TokenView

DAY_MS = 24 * 3_600_000


class TokenRequest(Value, kw_only=True):
    """What a new token may do, for which products (none named: all of its maker's), and for how long."""

    role: Role
    products: Annotated[tuple[Name, ...], msgspec.Meta(max_length=100)] = ()
    note: Annotated[str, msgspec.Meta(max_length=200)] = ""
    days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 90


class NewToken(Value, kw_only=True):
    """The token's only appearance."""

    id: str
    token: str
    expires_ms: int


@get("/api/v1/tokens", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["tokens"])
async def listed(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> list[TokenView]:
    """List tokens, without their secrets."""
    operator = operator_of(request)
    async with services.database.read() as connection:
        return [each for each in await tokens.listed(connection) if _within(each.products, operator)]


@post("/api/v1/tokens", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["tokens"])
async def make(
    data: JSONBody[TokenRequest], request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> NewToken:
    """Make a token for a viewer or operator. A signer's is made on the server itself, where no operator need be."""
    operator, now_ms = operator_of(request), services.clock()
    if data.role is Role.SIGNER:
        raise ForbiddenError(
            "an operator cannot make a token for signers",
            next_step="run `edgewise fleet token --role signer` on the server",
        )
    products = data.products or operator.products
    if not _within(products, operator):
        raise ForbiddenError("the products are not all yours", required=", ".join(operator.products))
    expires_ms = now_ms + data.days * DAY_MS
    async with services.database.write() as connection:
        made = await tokens.add(
            connection, role=data.role, products=products, note=data.note, now_ms=now_ms, expires_ms=expires_ms
        )
        await audit.record(
            services.database,
            connection,
            at_ms=now_ms,
            actor=operator.actor,
            action="token.make",
            subject=made.id,
            detail={"role": data.role, "products": products, "note": data.note},
        )
    return NewToken(id=made.id, token=made.text, expires_ms=expires_ms)


@delete("/api/v1/tokens/{token_id:str}", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["tokens"])
async def revoke(token_id: FromPath[str], request: Request[Any, Any, Any], services: NamedDependency[Services]) -> None:
    """End a token at once."""
    operator, now_ms = operator_of(request), services.clock()
    async with services.database.write() as connection:
        found = [each for each in await tokens.listed(connection) if each.id == token_id]
        if not found or not _within(found[0].products, operator):
            raise NotFoundError(f"there is no token {token_id}")
        if await tokens.revoke(connection, token_id, now_ms=now_ms):
            await audit.record(
                services.database,
                connection,
                at_ms=now_ms,
                actor=operator.actor,
                action="token.revoke",
                subject=token_id,
            )


def _within(products: tuple[str, ...], operator: Operator) -> bool:
    """Whether an operator may see a token: they see those of their own products only."""
    return not operator.products or (bool(products) and set(products) <= set(operator.products))


ROUTES = (listed, make, revoke)
