from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgewise.fleet.api.services import Services
from edgewise.fleet.leader import working
from edgewise.fleet.serve import open_services
from edgewise.fleet.settings import Settings

LONG_S = 3600.0


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return open_services(Settings(database=f"sqlite:///{tmp_path}/fleet.db", store=str(tmp_path), tick_s=LONG_S))


def test_a_round_under_way_comes_to_its_end_and_no_other_begins(services: Services) -> None:
    told: list[str] = []

    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def work(_: Services) -> bool:
            told.append("begun")
            begun.set()
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise
            told.append("finished")
            return True

        async with asyncio.timeout(60):
            async with working(services, {"work": work}, grace_s=LONG_S):
                await begun.wait()
                asyncio.get_running_loop().call_later(0.05, go_on.set)  # by then the block has ended

    asyncio.run(main())
    assert told == ["begun", "finished"]


def test_a_round_that_does_not_end_is_cancelled_after_the_grace(services: Services) -> None:
    told: list[str] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def work(_: Services) -> bool:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                told.append("cancelled")
            return False

        async with asyncio.timeout(60):
            async with working(services, {"work": work}, grace_s=0.01):
                await begun.wait()

    asyncio.run(main())
    assert told == ["cancelled"]


def test_what_waits_for_its_next_round_ends_at_once(services: Services) -> None:
    done: list[str] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def work(_: Services) -> bool:
            done.append("round")
            begun.set()
            return False

        async with asyncio.timeout(60):
            async with working(services, {"work": work}, grace_s=LONG_S):
                await begun.wait()
                await asyncio.sleep(0.01)  # by then it waits

    asyncio.run(main())
    assert done == ["round"]
