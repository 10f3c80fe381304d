from __future__ import annotations

import asyncio

from edgewise.fleet.ending import ended, others_ended


def test_a_cancellation_that_a_library_loses_is_said_again() -> None:
    lost: list[str] = []

    async def works() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append("once")

    async def main() -> bool:
        task = asyncio.create_task(works())
        await asyncio.sleep(0)
        await asyncio.wait_for(ended([task]), 30)
        return task.cancelled()

    assert asyncio.run(main())
    assert lost


def test_what_is_under_way_may_end_and_what_does_not_is_ended() -> None:
    told: list[str] = []

    async def short() -> None:
        await asyncio.sleep(0)
        told.append("short")

    async def stuck() -> None:
        """Wait for what never comes, as a driver does that was cancelled while it closed a connection."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    async def main() -> int:
        kept = [asyncio.create_task(each()) for each in (short, stuck)]
        async with asyncio.timeout(30):  # wait_for would make the loop's own task one of the others
            await others_ended(0.01)
        return sum(each.done() for each in kept)

    assert asyncio.run(main()) == 2
    assert told == ["short"]
