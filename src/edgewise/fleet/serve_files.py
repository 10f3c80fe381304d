"""The poll path: files of the repository as they lie in the store, with ETag and Range.

Everything a device needs to find an update is in these files, signed and the same for everyone, so any cache may stand
in front. No database is asked and no device is looked up. What was read is kept in memory and compared with the store
once a second, for all devices together.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from collections.abc import Mapping

import msgspec
from litestar.types import HTTPScope, Receive, Send

from edgewise.errors import NotFoundError, StorageError
from edgewise.fleet.clock import Clock
from edgewise.fleet.metrics import Metrics
from edgewise.fleet.settings import Settings
from edgewise.fleet.store.objects import Head, Objects

PREFIX = "/repository/"
FRESH_MS = 1000
UNSERVED = "staged"
"""Folders of this name hold what still lacks signatures."""
SMALL_BYTES = 1024 * 1024
KEPT_BYTES = 64 * 1024 * 1024
KEPT_FILES = 10_000

_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*(/[A-Za-z0-9_][A-Za-z0-9._@+-]*)*")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_VERSIONED = re.compile(r"(^|/)([0-9]+|[0-9a-f]{64})\.[^/]+$")

Headers = list[tuple[bytes, bytes]]


class Kept(msgspec.Struct, kw_only=True):
    """A file in memory, or that there is none."""

    checked_ms: int
    head: Head | None
    body: bytes | None
    """None where it is large, or not there."""


class Files:
    """An ASGI application that reads files below `PREFIX`."""

    def __init__(self, objects: Objects, settings: Settings, clock: Clock, metrics: Metrics) -> None:
        """Keep nothing yet."""
        self._objects = objects
        self._settings = settings
        self._clock = clock
        self._count = {status: metrics.polls.labels(status) for status in (200, 206, 304, 404, 405, 416, 503)}
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._kept_bytes = 0
        self._under_way = 0
        self._pace = [
            (b"edgewise-poll-interval-s", str(settings.poll_interval_s).encode()),
            (b"edgewise-poll-jitter", f"{settings.poll_jitter:g}".encode()),
        ]

    async def __call__(self, scope: HTTPScope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._under_way >= self._settings.poll_limit:
            wait_s = 1 + int(random.uniform(0, self._settings.poll_interval_s))  # noqa: S311 - spreads load, no secret
            await self._short(send, 503, [(b"retry-after", str(wait_s).encode())])
            return
        self._under_way += 1
        try:
            await self._answer(scope, send)
        except NotFoundError:
            await self._short(send, 404, [(b"cache-control", b"public, max-age=1")])
        except StorageError:
            await self._short(send, 503, [(b"retry-after", b"5")])
        finally:
            self._under_way -= 1

    async def _answer(self, scope: HTTPScope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            await self._short(send, 405, [(b"allow", b"GET, HEAD")])
            return
        path = scope["path"].removeprefix(PREFIX)
        if len(path) > 512 or _PATH.fullmatch(path) is None or UNSERVED in path.split("/"):
            raise NotFoundError("no such name")
        kept = await self._look_up(path)
        if kept.head is None:
            raise NotFoundError("no such file")
        asked = dict(scope["headers"])
        etag = f'"{kept.head.etag}"'.encode()
        headers: Headers = [(b"etag", etag), (b"cache-control", self._lifetime(path)), *self._pace]
        if _matches(asked.get(b"if-none-match"), etag):
            await self._short(send, 304, headers)
            return
        span = _span(asked, etag, kept.head.size_bytes)
        headers.append((b"accept-ranges", b"bytes"))
        if span is None:
            size = f"bytes */{kept.head.size_bytes}".encode()
            await self._short(send, 416, [*headers, (b"content-range", size)])
            return
        await self._send(scope, send, path, kept, headers, span)

    async def _send(
        self, scope: HTTPScope, send: Send, path: str, kept: Kept, headers: Headers, span: tuple[int, int]
    ) -> None:
        start, stop = span
        total = kept.head.size_bytes if kept.head else 0
        status = 200 if stop - start == total else 206
        if status == 206:
            headers.append((b"content-range", f"bytes {start}-{stop - 1}/{total}".encode()))
        headers.append((b"content-length", str(stop - start).encode()))
        kind = b"application/json" if path.endswith(".json") else b"application/octet-stream"
        headers.append((b"content-type", kind))
        self._count[status].inc()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif kept.body is not None:
            await send({"type": "http.response.body", "body": kept.body[start:stop], "more_body": False})
        else:
            async for piece in self._objects.read_range(path_in_store(path), start, stop):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _short(self, send: Send, status: int, headers: Headers) -> None:
        self._count[status].inc()
        await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _lifetime(self, path: str) -> bytes:
        if _VERSIONED.search(path):  # TUF's consistent snapshots: a name is never given twice
            return b"public, max-age=31536000, immutable"
        return b"public, max-age=1, stale-if-error=60"

    async def _look_up(self, path: str) -> Kept:
        now_ms = self._clock()
        kept = self._kept.get(path)
        if kept is not None and now_ms - kept.checked_ms < FRESH_MS:
            return kept
        if kept is not None:
            kept.checked_ms = now_ms  # one request asks the store, the others go on with what is known
        try:
            head = await self._objects.head(path_in_store(path))
        except NotFoundError:
            return self._keep(path, Kept(checked_ms=now_ms, head=None, body=None))
        if kept is not None and kept.head == head:
            return kept
        body = await self._objects.read(path_in_store(path)) if head.size_bytes <= SMALL_BYTES else None
        if body is not None and len(body) != head.size_bytes:  # written anew meanwhile: ask again
            return await self._look_up(path) if kept is None else kept
        return self._keep(path, Kept(checked_ms=now_ms, head=head, body=body))

    def _keep(self, path: str, kept: Kept) -> Kept:
        old = self._kept.pop(path, None)
        self._kept_bytes += len(kept.body or b"") - len((old and old.body) or b"")
        self._kept[path] = kept
        while self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_FILES:
            _, gone = self._kept.popitem(last=False)
            self._kept_bytes -= len(gone.body or b"")
        return kept


def path_in_store(path: str) -> str:
    """Return where a file of the repository lies in the store."""
    return PREFIX[1:] + path


def _matches(asked: bytes | None, etag: bytes) -> bool:
    """Compare weakly, RFC 9110 section 13.1.2."""
    if asked is None:
        return False
    return asked.strip() == b"*" or etag in {each.strip().removeprefix(b"W/") for each in asked.split(b",")}


def _span(asked: Mapping[bytes, bytes], etag: bytes, size: int) -> tuple[int, int] | None:
    """Return the bytes [start, stop) to send, or None where none of those asked for are there (RFC 9110, 14.2)."""
    found = _RANGE.fullmatch(asked.get(b"range", b"").decode("latin-1").strip())
    if found is None or not (found[1] or found[2]) or asked.get(b"if-range", etag) != etag:
        return 0, size  # no range, several, or one of an older file: the whole file is a right answer
    if not found[1]:
        length = min(int(found[2]), size)
        return (size - length, size) if length else None
    start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    if found[2] and int(found[2]) < int(found[1]):
        return 0, size
    return (start, stop) if start < size else None
