"""The reference page of the interface, from the routes themselves."""

from __future__ import annotations

from inspect import getdoc
from itertools import groupby

from litestar.handlers import HTTPRouteHandler

from edgewise.fleet.api.app import ROUTES

HEAD = """\
# Fleet API

The server describes itself in full, with every field, at `/api/v1/schema/openapi.json` (OpenAPI 3.1). This page is
written from the same routes by `scripts/write_fleet_api.py`.

Who may use a route: **public** anybody; **read** every token; **operate** tokens of operators; **sign** tokens of
signers; **device** a device's signature or its own token. Tokens are sent as `Authorization: Bearer TOKEN`, to the DDI
routes as `Authorization: TargetToken TOKEN`; what a device signs is in `edgewise.contracts.enrolment`.

An error is a JSON object with `kind`, `found`, `required` and `next_step`. 503 carries `Retry-After`, of another length
for each client. Beside these routes, `GET /repository/...` serves the files of the signed repository to everybody, with
ETag and ranges; `edgewise-poll-interval-s` and `edgewise-poll-jitter` say when to come back.
"""


def describe_api() -> str:
    """Return the page, in Markdown."""
    parts = [HEAD]
    ordered = sorted(ROUTES, key=lambda route: (_tag(route), min(route.paths)))
    for tag, routes in groupby(ordered, key=_tag):
        parts.append(f"\n## {tag[0].upper()}{tag[1:]}\n\n| route | who | does |\n|---|---|---|\n")
        parts += [_row(route) for route in routes]
    return "".join(parts)


def _row(route: HTTPRouteHandler) -> str:
    methods = ", ".join(sorted(str(method) for method in route.http_methods if method != "OPTIONS"))
    path = min(route.paths).replace(":str", "").replace(":int", "")
    words = " ".join((getdoc(route.fn) or "").split())
    return f"| `{methods} {path}` | {_who(route)} | {words} |\n"


def _who(route: HTTPRouteHandler) -> str:
    """Return who may use a route; those of the DDI ask for a device's token themselves, under their own scheme."""
    return "device" if "/controller/v1/" in min(route.paths) else str(route.opt["access"])


def _tag(route: HTTPRouteHandler) -> str:
    return str((route.tags or ("other",))[0])
