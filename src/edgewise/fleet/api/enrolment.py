"""One-time tokens, and the devices that join with them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from edgewise.contracts.base import Value
from edgewise.contracts.enrolment import Enrolled, EnrolRequest, Label, Name
from edgewise.errors import UnauthenticatedError
from edgewise.fleet.api.guard import OPERATOR_SECURITY, operator_of
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Access
from edgewise.fleet.store import audit, devices, tokens

MOST_AT_ONCE = 10_000
HOUR_MS = 3_600_000


class EnrolmentRequest(Value, kw_only=True):
    """Which devices may join: each token enrols one."""

    product: Name
    device_class: Name
    labels: Annotated[tuple[Label, ...], msgspec.Meta(max_length=32)] = ()
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST_AT_ONCE)] = 1
    hours: Annotated[int, msgspec.Meta(ge=1, le=24 * 90)] = 24


class EnrolmentTokens(Value, kw_only=True):
    """The tokens' only appearance."""

    tokens: tuple[str, ...]
    expires_ms: int


@post("/api/v1/enrolments", opt={"access": Access.OPERATE}, security=OPERATOR_SECURITY, tags=["devices"])
async def grant(
    data: JSONBody[EnrolmentRequest], request: Request[Any, Any, Any], services: NamedDependency[Services]
) -> EnrolmentTokens:
    """Make one-time tokens; they are shown once and not kept."""
    operator, now_ms = operator_of(request), services.clock()
    operator.sees(data.product, f"product {data.product}")
    expires_ms = now_ms + data.hours * HOUR_MS
    async with services.database.write() as connection:
        made = await tokens.add_enrolments(
            connection,
            product=data.product,
            device_class=data.device_class,
            labels=data.labels,
            count=data.count,
            now_ms=now_ms,
            expires_ms=expires_ms,
        )
        await audit.record(
            services.database,
            connection,
            at_ms=now_ms,
            actor=operator.actor,
            action="enrolment.grant",
            subject=data.device_class,
            product=data.product,
            detail={"count": data.count, "labels": data.labels, "hours": data.hours},
        )
    return EnrolmentTokens(tokens=tuple(each.text for each in made), expires_ms=expires_ms)


@post("/api/v1/enrol", opt={"access": Access.PUBLIC}, tags=["devices"])
async def enrol(data: JSONBody[EnrolRequest], services: NamedDependency[Services]) -> Enrolled:
    """Join with a one-time token and the public half of the device's key."""
    now_ms = services.clock()
    Ed25519PublicKey.from_public_bytes(data.public_key)
    async with services.database.write() as connection:
        granted = await tokens.use_enrolment(connection, data.token, device_id=data.device, now_ms=now_ms)
        if granted is None:
            raise UnauthenticatedError(
                "the enrolment token is not known, was used or has expired", next_step="ask an operator for a new one"
            )
        await devices.enrol(connection, name=data.device, public_key=data.public_key, grant=granted, now_ms=now_ms)
        await audit.record(
            services.database,
            connection,
            at_ms=now_ms,
            actor=f"device:{data.device}",
            action="device.enrol",
            subject=data.device,
            product=granted.product,
            detail={"token": granted.id, "device_class": granted.device_class},
        )
    return Enrolled(
        device=data.device,
        product=granted.product,
        device_class=granted.device_class,
        labels=granted.labels,
        poll_interval_s=services.settings.poll_interval_s,
        poll_jitter=services.settings.poll_jitter,
        server_time_s=now_ms // 1000,
    )


ROUTES = (grant, enrol)
