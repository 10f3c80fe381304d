"""The poll path: static, cacheable, in ranges, without a question to the database; over both pairs of servers."""

from __future__ import annotations

import asyncio
import re
import secrets
import time

import httpx
import pytest

from edgewise.fleet.store.objects import open_objects
from tests.conformance.fleet.backends import Backend
from tests.conformance.fleet.clients import Fleet

LARGE = 3 * 1024 * 1024


def put(backend: Backend, path: str, data: bytes) -> str:
    asyncio.run(open_objects(backend.store).write(f"repository/{path}", data))
    return f"/repository/{path}"


@pytest.fixture
def small(backend: Backend) -> tuple[str, bytes]:
    data = secrets.token_bytes(1000)
    return put(backend, f"metadata/{secrets.token_hex(4)}/timestamp.json", data), data


class TestPolls:
    def test_an_unchanged_file_is_304_and_a_changed_one_is_seen(
        self, fleet: Fleet, backend: Backend, small: tuple[str, bytes]
    ) -> None:
        path, data = small
        first = fleet.http.get(path)
        assert (first.status_code, first.content) == (200, data)
        assert first.headers["edgewise-poll-interval-s"] == "300"
        known = {"if-none-match": first.headers["etag"]}
        assert fleet.http.get(path, headers=known).status_code == 304
        assert fleet.http.get(path, headers={"if-none-match": f'"x", W/{first.headers["etag"]}'}).status_code == 304
        put(backend, path.removeprefix("/repository/"), data + b"!")
        until = time.monotonic() + 10
        while fleet.http.get(path, headers=known).status_code == 304 and time.monotonic() < until:
            time.sleep(0.1)
        assert fleet.http.get(path, headers=known).content == data + b"!"

    def test_polls_ask_the_database_nothing(self, fleet: Fleet, small: tuple[str, bytes]) -> None:
        path, _ = small
        etag = fleet.http.get(path).headers["etag"]

        def statements() -> float:
            found = re.search(
                r"^edgewise_database_statements_total (\S+)", fleet.http.get("/metrics").text, re.MULTILINE
            )
            assert found is not None
            return float(found[1])

        def during(count: int) -> float:
            before = statements()
            for _ in range(count):
                assert fleet.http.get(path, headers={"if-none-match": etag}).status_code == 304
            time.sleep(max(0.0, 1.0 - count / 1000))
            return statements() - before

        # The server's own work goes on meanwhile: 300 polls in a second must not add one statement each.
        assert during(300) < during(0) + 150

    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [("0-9", 0, 10), ("990-", 990, 1000), ("-10", 990, 1000), ("500-99999", 500, 1000), ("0-0", 0, 1)],
    )
    def test_a_range_is_given(self, fleet: Fleet, small: tuple[str, bytes], asked: str, start: int, stop: int) -> None:
        path, data = small
        found = fleet.http.get(path, headers={"range": f"bytes={asked}"})
        assert (found.status_code, found.content) == (206, data[start:stop])
        assert found.headers["content-range"] == f"bytes {start}-{stop - 1}/1000"

    @pytest.mark.parametrize("asked", ["1000-", "5000-6000", "-0"])
    def test_a_range_beyond_the_end_is_told(self, fleet: Fleet, small: tuple[str, bytes], asked: str) -> None:
        found = fleet.http.get(small[0], headers={"range": f"bytes={asked}"})
        assert (found.status_code, found.headers["content-range"]) == (416, "bytes */1000")

    @pytest.mark.parametrize("headers", [{"range": "bytes=9-1"}, {"range": "lines=1-2"}, {"range": "bytes=0-1,5-6"}])
    def test_a_range_that_says_nothing_gets_all(
        self, fleet: Fleet, small: tuple[str, bytes], headers: dict[str, str]
    ) -> None:
        assert fleet.http.get(small[0], headers=headers).content == small[1]

    def test_a_range_of_another_version_gets_all(self, fleet: Fleet, small: tuple[str, bytes]) -> None:
        headers = {"range": "bytes=5-", "if-range": '"of-before"'}
        assert fleet.http.get(small[0], headers=headers).content == small[1]

    def test_a_large_file_comes_whole_and_from_where_it_stopped(self, fleet: Fleet, backend: Backend) -> None:
        data = secrets.token_bytes(LARGE)
        path = put(backend, f"targets/{secrets.token_hex(32)}.bundle", data)
        found = fleet.http.get(path)
        assert found.content == data
        assert "immutable" in found.headers["cache-control"]
        assert fleet.http.get(path, headers={"range": "bytes=1500000-"}).content == data[1500000:]
        head = fleet.http.head(path)
        assert (head.headers["content-length"], head.content) == (str(LARGE), b"")

    @pytest.mark.parametrize(
        "path",
        [
            "nothing.json",
            "..%2ffleet.db",
            "../fleet.db",
            "%2e%2e/%2e%2e/etc/passwd",
            "a//b",
            ".hidden",
            "metadata/.git/config",
            "staged/kws.json",
            "director/staged/targets.json",
            "a%00b",
            "x" * 3000,
        ],
    )
    def test_what_is_not_of_the_repository_is_not_there(self, fleet: Fleet, backend: Backend, path: str) -> None:
        put(backend, "staged/kws.json", b"not signed yet")
        put(backend, "director/staged/targets.json", b"not signed yet")
        url = httpx.URL(fleet.url).copy_with(raw_path=f"/repository/{path}".encode())
        assert fleet.http.get(url).status_code in {400, 404, 414}

    def test_nothing_is_written(self, fleet: Fleet, small: tuple[str, bytes]) -> None:
        for method in ("PUT", "POST", "DELETE"):
            assert fleet.http.request(method, small[0], content=b"x").status_code == 405
