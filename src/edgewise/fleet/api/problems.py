"""How what goes wrong becomes an answer: the same three parts as on the command line, and a status."""

from __future__ import annotations

import logging
import random
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from edgewise.contracts.base import Value
from edgewise.errors import (
    BusyError,
    ConflictError,
    EdgewiseError,
    ForbiddenError,
    InputError,
    NotFoundError,
    OutputError,
    StorageError,
    TrustError,
    UnauthenticatedError,
)

log = logging.getLogger("edgewise.fleet")

STATUS: tuple[tuple[type[EdgewiseError], int], ...] = (
    (UnauthenticatedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (BusyError, 503),
    (StorageError, 503),
    (OutputError, 507),
    (TrustError, 422),
    (InputError, 400),
)
RETRY_S = 10
"""A client that is turned away comes back after 1 to this many seconds, each after a time of its own."""


class Problem(Value, kw_only=True):
    """What went wrong."""

    kind: str
    found: str
    required: str = ""
    next_step: str = ""


def answer(error: EdgewiseError) -> tuple[int, Problem, dict[str, str]]:
    """Return status, body and headers for an error raised on purpose."""
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
    if status == 500:
        log.error("unexpected", exc_info=error)
    problem = Problem(kind=type(error).__name__, found=error.found, required=error.required, next_step=error.next_step)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = str(random.randint(1, RETRY_S))  # noqa: S311 - spreads load, no secret
    return status, problem, headers


def of_edgewise(_request: Request[Any, Any, Any], error: EdgewiseError) -> Response[Problem]:
    """Answer an error raised on purpose."""
    status, problem, headers = answer(error)
    return Response(problem, status_code=status, headers=headers)


def of_http(_request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Answer what the framework refuses: no such route, a parameter or body that cannot be read."""
    found = error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        parts = [f"{each.get('key', '')}: {each.get('message', '')}" for each in error.extra if isinstance(each, dict)]
        found = "; ".join([found, *parts])
    problem = Problem(kind="RequestError", found=found)
    return Response(problem, status_code=error.status_code, headers=error.headers)


def of_decoding(_request: Request[Any, Any, Any], error: msgspec.DecodeError | UnicodeError) -> Response[Problem]:
    """Answer a body that is not what the route takes."""
    return Response(Problem(kind="RequestError", found=str(error)), status_code=400)


def of_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer a fault of the server: the log says more, the client learns no details."""
    log.error("unexpected", exc_info=error, extra={"path": request.scope.get("path_template", "")})
    return Response(
        Problem(kind="InternalError", found="the server failed", next_step="see the server's log"), status_code=500
    )


HANDLERS: Any = {
    EdgewiseError: of_edgewise,
    HTTPException: of_http,
    msgspec.DecodeError: of_decoding,
    UnicodeError: of_decoding,
    Exception: of_anything,
}
