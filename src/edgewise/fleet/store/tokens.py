"""Tokens of operators, and one-time tokens for enrolment. Only digests of their secrets are kept.

A secret has 256 random bits, so a plain SHA-256 of it is as hard to turn back as a slow hash would be.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import sqlalchemy as sql
from sqlalchemy.ext.asyncio import AsyncConnection

from edgewise.contracts.base import Value
from edgewise.fleet.store.schema import enrolment, token

_FORM = re.compile(r"ew([oed])_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class Kind(StrEnum):
    """What a token is for; the letter stands in the token, so that one cannot be taken for another."""

    OPERATOR = "o"
    ENROLMENT = "e"
    DEVICE = "d"


class Role(StrEnum):
    """What the owner of a token may do beside reading: nothing, operate the fleet, or publish releases."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    SIGNER = "signer"


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A new token: its text is shown once and not kept."""

    id: str
    text: str
    sha256: bytes


class TokenView(Value, kw_only=True):
    """A token as it is shown: without anything one could use."""

    id: str
    role: Role
    products: tuple[str, ...]
    note: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class EnrolmentGrant(Value, kw_only=True):
    """What a device gets that enrols with a one-time token."""

    id: str
    product: str
    device_class: str
    labels: tuple[str, ...]


def new_secret(kind: Kind) -> Secret:
    """Return a token nobody has seen."""
    name, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    return Secret(id=name, text=f"ew{kind}_{name}_{secret}", sha256=_sha256(secret))


def split(text: str, kind: Kind) -> tuple[str, bytes] | None:
    """Return a token's id and the digest of its secret, or None where it is not a token of this kind."""
    found = _FORM.fullmatch(text)
    if found is None or found[1] != kind:
        return None
    return found[2], _sha256(found[3])


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def add(
    connection: AsyncConnection,
    *,
    role: Role,
    products: Sequence[str],
    note: str,
    now_ms: int,
    expires_ms: int | None = None,
) -> Secret:
    """Make an operator's token."""
    made = new_secret(Kind.OPERATOR)
    row = {
        "id": made.id,
        "role": role.value,
        "products": msgspec.json.encode(tuple(products)).decode(),
        "secret_sha256": made.sha256,
        "note": note,
        "created_ms": now_ms,
        "expires_ms": expires_ms,
    }
    await connection.execute(sql.insert(token).values(row))
    return made


async def find(connection: AsyncConnection, text: str, *, now_ms: int) -> TokenView | None:
    """Return the valid token of this text, or None."""
    parts = split(text, Kind.OPERATOR)
    if parts is None:
        return None
    row = (await connection.execute(sql.select(token).where(token.c.id == parts[0]))).first()
    if row is None or not hmac.compare_digest(row.secret_sha256, parts[1]):
        return None
    if row.revoked_ms is not None or (row.expires_ms is not None and row.expires_ms <= now_ms):
        return None
    return _view(row)


async def listed(connection: AsyncConnection) -> list[TokenView]:
    """Return all tokens, oldest first."""
    return [_view(row) for row in await connection.execute(sql.select(token).order_by(token.c.created_ms, token.c.id))]


async def revoke(connection: AsyncConnection, name: str, *, now_ms: int) -> bool:
    """End a token; False where there is none to end."""
    question = sql.update(token).where(token.c.id == name, token.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
    return (await connection.execute(question)).rowcount == 1


def _view(row: sql.Row[tuple[object, ...]]) -> TokenView:
    fields = {name: getattr(row, name) for name in TokenView.__struct_fields__}
    return TokenView(**{**fields, "role": Role(row.role), "products": tuple(msgspec.json.decode(row.products))})


async def add_enrolments(
    connection: AsyncConnection,
    *,
    product: str,
    device_class: str,
    labels: Sequence[str],
    count: int,
    now_ms: int,
    expires_ms: int,
) -> list[Secret]:
    """Make tokens that enrol one device each."""
    made = [new_secret(Kind.ENROLMENT) for _ in range(count)]
    shared = {
        "product": product,
        "device_class": device_class,
        "labels": msgspec.json.encode(tuple(labels)).decode(),
        "created_ms": now_ms,
        "expires_ms": expires_ms,
    }
    rows = [{"id": each.id, "secret_sha256": each.sha256, **shared} for each in made]
    await connection.execute(sql.insert(enrolment), rows)
    return made


async def use_enrolment(
    connection: AsyncConnection, text: str, *, device_id: str, now_ms: int
) -> EnrolmentGrant | None:
    """Take a one-time token, so that nobody else can, or return None where it is not valid (any more)."""
    parts = split(text, Kind.ENROLMENT)
    if parts is None:
        return None
    row = (await connection.execute(sql.select(enrolment).where(enrolment.c.id == parts[0]))).first()
    if row is None or not hmac.compare_digest(row.secret_sha256, parts[1]) or row.expires_ms <= now_ms:
        return None
    taken = sql.update(enrolment).where(enrolment.c.id == parts[0], enrolment.c.used_by.is_(None))
    if (await connection.execute(taken.values(used_by=device_id))).rowcount != 1:  # of two at once, one wins
        return None
    return EnrolmentGrant(
        id=row.id,
        product=row.product,
        device_class=row.device_class,
        labels=tuple(msgspec.json.decode(row.labels)),
    )
