"""Who sends a request, and what they may do.

Every route names its `Access`; a route without one is refused, so that forgetting it closes a door instead of opening
one. People and programs of the operator carry a bearer token with a role, devices sign (`contracts.enrolment`). Update
clients and exporters that cannot sign carry a device's own token.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from enum import StrEnum

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgewise.contracts.enrolment import REPLAY_WINDOW_S, Signed, read_header, to_sign
from edgewise.errors import ForbiddenError, NotFoundError, StorageError, UnauthenticatedError
from edgewise.fleet.clock import Clock
from edgewise.fleet.store import devices, tokens
from edgewise.fleet.store.database import Database
from edgewise.fleet.store.devices import Identity
from edgewise.fleet.store.tokens import Kind, Role, TokenView

KNOWN_DEVICES = 200_000
"""Keys kept in memory: about 100 MB at the most."""
MOST_ASKED = 500
"""Devices of one question to the database."""
KNOWN_FOR_MS = 30_000
"""A device that is revoked is shut out everywhere after this time, and at once by the process that revoked it."""


class Access(StrEnum):
    """Who may use a route."""

    PUBLIC = "public"
    READ = "read"
    OPERATE = "operate"
    SIGN = "sign"
    DEVICE = "device"


ROLES = {
    Role.VIEWER: frozenset({Access.READ}),
    Role.OPERATOR: frozenset({Access.READ, Access.OPERATE}),
    Role.SIGNER: frozenset({Access.READ, Access.SIGN}),
}


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was accepted."""

    token: TokenView

    @property
    def actor(self) -> str:
        """How the audit log names them."""
        return f"token:{self.token.id}"

    @property
    def products(self) -> tuple[str, ...]:
        """The products they may see; empty: all."""
        return self.token.products

    def sees(self, product: str | None, what: str) -> None:
        """Raise NotFoundError where the product is not theirs: they learn no more than if it were not there."""
        if self.products and product not in self.products:
            raise NotFoundError(f"there is no {what}")


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a request that a signature covers."""

    method: str
    target: str
    body: bytes
    authorization: str


class Gatekeeper:
    """Tells who sends a request; remembers the keys of devices for a while."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Start with no keys in memory."""
        self._database = database
        self._clock = clock
        self._known: OrderedDict[str, tuple[int, Identity, Ed25519PublicKey]] = OrderedDict()
        self._asking: dict[str, asyncio.Future[Identity | None]] = {}
        self._ask: asyncio.Task[None] | None = None

    async def operator(self, authorization: str, access: Access) -> Operator:
        """Return the owner of a bearer token. Raises UnauthenticatedError or ForbiddenError."""
        text = _bearer(authorization)
        async with self._database.read() as connection:
            token = await tokens.find(connection, text, now_ms=self._clock())
        if token is None:
            raise UnauthenticatedError(
                "the token is not known, has expired or was revoked", next_step="ask an operator for a new one"
            )
        if access not in ROLES[token.role]:
            raise ForbiddenError(
                f"a token of the role {token.role} may not do this",
                required=" or ".join(role for role, rights in ROLES.items() if access in rights) or "a device",
            )
        return Operator(token=token)

    async def device(self, request: Requested, *, may_repeat: bool = False) -> Identity:
        """Return the device that signed a request, or whose token it carries. Raises UnauthenticatedError.

        `may_repeat`: the request is idempotent by itself, and its nonce need not be kept.
        """
        if request.authorization[:7].lower() == "bearer ":
            return await self._device_of_token(_bearer(request.authorization))
        signed = read_header(request.authorization)
        if signed is None:
            raise UnauthenticatedError("the request is not signed", required="a signature of an enrolled device")
        self._check_time(signed)
        identity, key = await self._keys(signed.device)
        message = to_sign(
            device=signed.device,
            method=request.method,
            target=request.target,
            body=request.body,
            timestamp_s=signed.timestamp_s,
            nonce=signed.nonce,
        )
        try:
            key.verify(signed.signature, message)
        except InvalidSignature as error:
            raise UnauthenticatedError(
                f"the signature is not by {signed.device}, or the request was changed"
            ) from error
        if not may_repeat:
            await self._use_nonce(signed)
        return identity

    async def device_with_token(self, name: str, text: str) -> Identity:
        """Return the device of this name if the token is its own. Raises UnauthenticatedError."""
        identity = await self._device_of_token(text)
        if identity.id != name:
            raise UnauthenticatedError("the token is not of this device")
        return identity

    def forget(self, name: str) -> None:
        """Ask the database again about a device."""
        self._known.pop(name, None)

    def _check_time(self, signed: Signed) -> None:
        now_s = self._clock() / 1000
        if abs(now_s - signed.timestamp_s) > REPLAY_WINDOW_S:
            raise UnauthenticatedError(
                f"the request was signed at {signed.timestamp_s}, and it is {now_s:.0f} here",
                required=f"a difference of at most {REPLAY_WINDOW_S} seconds",
                next_step="set the device's clock",
            )

    async def _use_nonce(self, signed: Signed) -> None:
        expires_ms = (signed.timestamp_s + REPLAY_WINDOW_S) * 1000
        async with self._database.write() as connection:
            if not await devices.use_nonce(connection, signed.device, signed.nonce, expires_ms=expires_ms):
                raise UnauthenticatedError("the request was sent before", required="a new nonce for each request")

    async def _keys(self, name: str) -> tuple[Identity, Ed25519PublicKey]:
        now_ms = self._clock()
        known = self._known.get(name)
        if known is not None and now_ms - known[0] < KNOWN_FOR_MS:
            return known[1], known[2]
        identity = await self._asked(name)
        if identity is None:
            self.forget(name)
            raise UnauthenticatedError(f"no device {name} is enrolled", next_step="enrol it with a one-time token")
        key = Ed25519PublicKey.from_public_bytes(identity.public_key)
        self._known[name] = (now_ms, identity, key)
        self._known.move_to_end(name)
        while len(self._known) > KNOWN_DEVICES:
            self._known.popitem(last=False)
        return identity, key

    async def _asked(self, name: str) -> Identity | None:
        """Ask the database for a device; those who ask while a question is under way share the next one."""
        answer = self._asking.get(name)
        if answer is None:
            answer = self._asking[name] = asyncio.get_running_loop().create_future()
        if self._ask is None or self._ask.done():
            self._ask = asyncio.create_task(self._ask_all())
        return await asyncio.shield(answer)

    async def _ask_all(self) -> None:
        while self._asking:
            names = list(self._asking)[:MOST_ASKED]
            asked = {name: self._asking.pop(name) for name in names}
            try:
                async with self._database.read() as connection:
                    found = await devices.identities(connection, names)
            except StorageError as error:
                for answer in asked.values():
                    answer.set_exception(error)
                    answer.exception()  # whoever asked may have gone
            else:
                for name, answer in asked.items():
                    answer.set_result(found.get(name))

    async def _device_of_token(self, text: str) -> Identity:
        parts = tokens.split(text, Kind.DEVICE)
        identity = None
        if parts is not None:
            async with self._database.read() as connection:
                identity = await devices.identity_of_token(connection, parts[0])
        if parts is None or identity is None or not hmac.compare_digest(identity.token_sha256 or b"", parts[1]):
            raise UnauthenticatedError("the token is not of an enrolled device")
        return identity


def _bearer(authorization: str) -> str:
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise UnauthenticatedError("the request carries no token", required="Authorization: Bearer TOKEN")
    return text.strip()
