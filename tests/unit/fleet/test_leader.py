from __future__ import annotations

import asyncio

from edgewise.fleet.leader import ended


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
