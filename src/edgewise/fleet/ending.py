"""Ends tasks for sure: a driver that is cancelled while it closes a connection may go on, or wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

GRACE_S = 5.0
"""So long what is under way may take to come to its end when the server stops."""

_AGAIN_S = 0.5


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """End tasks. A cancellation that comes while a library cleans up can be lost there, so it is said again."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_S)


async def let_end(tasks: Iterable[asyncio.Task[Any]], grace_s: float) -> None:
    """Let tasks come to their end for `grace_s` seconds, then end them."""
    pending = set(tasks)
    if pending:
        _, pending = await asyncio.wait(pending, timeout=grace_s)
    await ended(pending)


async def others_ended(grace_s: float) -> None:
    """Let all other tasks of the loop come to their end for `grace_s` seconds, then end them."""
    this = asyncio.current_task()
    await let_end(asyncio.all_tasks() - {this}, grace_s)
    while rest := asyncio.all_tasks() - {this}:  # ending a task may start another, which closes what it used
        await ended(rest)
