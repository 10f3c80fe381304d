"""Serves the console's files. They hold no data: everything shown is asked of the API, with a token."""

from __future__ import annotations

from pathlib import Path

from litestar import Response, get
from litestar.params import FromPath

from edgewise.errors import NotFoundError
from edgewise.fleet.auth import Access

FOLDER = Path(__file__).parent
MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript"}
FILES = ("index.html", "console.css", "app.js", "api.js", "charts.js", "dom.js", "rollouts.js", "views.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@get("/console", opt={"access": Access.PUBLIC}, tags=["console"], include_in_schema=False, sync_to_thread=True)
def page() -> Response[bytes]:
    """Give the console's page, for a browser; what it shows is asked with the visitor's token."""
    return _file("index.html")


@get(
    "/console/{file:str}", opt={"access": Access.PUBLIC}, tags=["console"], include_in_schema=False, sync_to_thread=True
)
def asset(file: FromPath[str]) -> Response[bytes]:
    """Give a style sheet or script of the console."""
    return _file(file)


def _file(name: str) -> Response[bytes]:
    if name not in FILES:
        raise NotFoundError(f"the console has no file {name[:60]}")
    path = FOLDER / name
    return Response(path.read_bytes(), media_type=MEDIA_TYPES[path.suffix], headers=HEADERS)


ROUTES = (page, asset)
