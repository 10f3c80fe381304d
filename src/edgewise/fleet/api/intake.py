"""The hot path of telemetry: one request from the first byte to the acknowledgement, without the router.

Same checks, same answers as the route of the same address, which describes it in the OpenAPI; half of the time of a
request would be spent on finding that route.
"""

from __future__ import annotations

import msgspec
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from edgewise.errors import EdgewiseError, TelemetryError
from edgewise.fleet.api.problems import answer
from edgewise.fleet.api.services import Services
from edgewise.fleet.auth import Requested
from edgewise.fleet.ingest import received

PATH = "/api/v1/telemetry"


class Intake:
    """An ASGI application that takes envelopes in."""

    def __init__(self, services: Services) -> None:
        """Use these parts of the server."""
        self._services = services
        self._count = services.metrics.requests

    @staticmethod
    def wants(scope: Scope) -> bool:
        """Return whether a request is for it."""
        return scope["type"] == ScopeType.HTTP and scope["path"] == PATH and scope["method"] == "POST"

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        status, headers = 202, [(b"content-type", b"application/json")]
        try:
            body = await self._body(receive)
            if body is None:
                status, data = 413, b'{"kind":"RequestError","found":"the body is too large"}'
                headers.append((b"connection", b"close"))
            else:
                data = b'{"envelopes":%d}' % await self._take(scope, body)
        except EdgewiseError as error:
            status, problem, more = answer(error)
            data = msgspec.json.encode(problem)
            headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
        self._count.labels("POST", PATH, str(status)).inc()
        headers.append((b"content-length", str(len(data)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": False})

    async def _take(self, scope: HTTPScope, body: bytes) -> int:
        services = self._services
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        query = scope["query_string"]
        requested = Requested(
            method="POST",
            target=PATH + ("?" + query.decode("latin-1") if query else ""),
            body=body,
            authorization=authorization.decode("latin-1"),
        )
        device = await services.gatekeeper.device(requested, may_repeat=True)
        rows = received(body, device, now_ms=services.clock(), days=services.settings.envelope_days)
        if rows:
            await services.inbox.put(rows)
        return len(rows)

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, or None where it is too large."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise TelemetryError("the request ended before its body")
            parts.append(message["body"])
            size += len(parts[-1])
            if size > self._services.settings.request_limit_bytes:
                return None
            if not message["more_body"]:
                return b"".join(parts)
