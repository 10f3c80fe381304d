"""Sends what the spool holds: in batches, oldest first, with patience.

Whatever goes wrong, the answer is a wait and a reason, never an exception of the network: reporting must not stop a
device. What no server takes is dropped by itself, not with the batch around it, and counted.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

from edgewise.contracts.base import Value
from edgewise.contracts.telemetry import Envelope
from edgewise.device.trust.pace import Pace
from edgewise.device.trust.transport import Reply, Sent, Transport
from edgewise.device.uplink.collector import Collector
from edgewise.device.uplink.dating import Dating
from edgewise.device.uplink.destinations import Destination, Judged, Verdict
from edgewise.device.uplink.spool import Claimed, Spool
from edgewise.device.waiting import wait_s
from edgewise.errors import EndlessDataError, OutputError, TransferError, TrustError

PACE = Pace(grace_s=120.0, idle_s=60.0, total_s=600.0)
"""Of one batch: enough to send `MOST_BATCH_BYTES` at 8 kB a second."""
MOST_BATCH = 100
MOST_BATCH_BYTES = 512 * 1024
MOST_BATCHES = 20
"""Of one call of `send`."""
MOST_ANSWER_BYTES = 64 * 1024
MOST_AGE_MS = 28 * 24 * 3600 * 1000
"""The server takes windows of the last 30 days unless told otherwise; older ones are dropped here."""
WINDOW_S = 300.0
JITTER = 0.5
MOST_DOUBLINGS = 4
"""Of the wait: a device that was away for weeks tries again every hour or two."""


class Progress(Value, kw_only=True):
    """What came of a call of `send`. `problem` is empty where nothing went wrong."""

    sent: int = 0
    dropped: int = 0
    left: int | None = None
    """Envelopes in the spool; None where it cannot be read."""
    wait_s: float = 0.0
    """When to call again at the earliest."""
    problem: str = ""


class Uplink:
    """The way of a device's envelopes to one destination. `send` is for one thread at a time, `store` for any."""

    def __init__(
        self,
        spool: Spool,
        destination: Destination,
        dating: Dating,
        *,
        boot: str,
        transport: Transport | None = None,
        window_s: float = WINDOW_S,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Take the parts. `boot` is that of the reporter: its windows are moved where the clock was wrong."""
        self._spool, self._destination, self._dating, self._boot = spool, destination, dating, boot
        self._transport = transport or Transport(PACE)
        self._window_s, self._uniform = window_s, uniform
        self._failures = 0
        self._most = MOST_BATCH
        self._singly = 0
        """So many envelopes go one by one: one of them was refused."""

    def store(self, envelopes: Sequence[Envelope]) -> None:
        """Put envelopes on the disk. Raises OutputError; they are counted as lost then."""
        self._move()
        self._spool.put(envelopes)

    def send(self) -> Progress:
        """Send until the spool is empty, something is in the way, or enough was done for once."""
        sent = dropped = 0
        problem = ""
        for _ in range(MOST_BATCHES):
            try:
                if self._dating.is_told:
                    dropped += self._spool.drop_ended_before(self._dating.now_ms() - MOST_AGE_MS)
                if not self._spool.held().envelopes:
                    break
                batch, judged, retry_after_s = self._send_batch()
                lost = self._settle(batch, judged)
            except (TransferError, TrustError, OutputError) as error:
                return self._waiting(str(error), None, sent, dropped)
            problem = judged.said or problem
            dropped += lost
            if judged.verdict is Verdict.TAKEN:
                sent += len(batch)
            elif judged.verdict is Verdict.LATER or (judged.verdict is Verdict.NOT_NOW and not self._move()):
                return self._waiting(judged.said, retry_after_s, sent, dropped)
        self._failures = 0
        return Progress(sent=sent, dropped=dropped, left=self._left(), problem=problem)

    def _send_batch(self) -> tuple[list[Claimed], Judged, float | None]:
        batch: list[Claimed] = []

        def make(target: str) -> Sent:
            batch.extend(self._spool.claim(most=1 if self._singly else self._most, most_bytes=MOST_BATCH_BYTES))
            return self._destination.sent(target, [each.document for each in batch], self._dating.now_ms() // 1000)

        with self._transport.post(self._destination.url, make) as reply:
            body = _limited(reply)
            self._dating.told(reply.headers.get("date", ""))
            return batch, self._destination.judge(reply.status, body, len(batch)), reply.retry_after_s

    def _settle(self, batch: Sequence[Claimed], judged: Judged) -> int:
        """Act on an answer; return how many envelopes were dropped."""
        numbers = [each.number for each in batch]
        if judged.verdict is Verdict.TAKEN:
            self._failures = 0
            self._singly = max(0, self._singly - 1)
            self._spool.acknowledged(numbers)
            return 0
        if judged.verdict is Verdict.LATER:
            return 0
        if judged.verdict is not Verdict.NOT_NOW and len(batch) == 1:
            self._singly = max(0, self._singly - 1)
            self._spool.drop(numbers)
            return 1
        self._spool.not_received(numbers)
        if judged.verdict is Verdict.TOO_LARGE:
            self._most = max(1, len(batch) // 2)
        elif judged.verdict is Verdict.REFUSED:
            self._singly = len(batch)
        return 0

    def _move(self) -> bool:
        """Move what is not yet sent of this boot to where the time is now known to be; return whether it was wrong."""
        moved = self._dating.moved_ms()
        if moved:
            self._spool.shift(self._boot, moved)
        return moved != 0

    def _waiting(self, problem: str, retry_after_s: float | None, sent: int, dropped: int) -> Progress:
        failures, self._failures = self._failures, min(self._failures + 1, MOST_DOUBLINGS)
        wait = wait_s(failures, retry_after_s, interval_s=self._window_s, jitter=JITTER, uniform=self._uniform())
        return Progress(sent=sent, dropped=dropped, left=self._left(), wait_s=wait, problem=problem)

    def _left(self) -> int | None:
        try:
            return self._spool.held().envelopes
        except OutputError:
            return None


def report_until(
    stop: threading.Event,
    collector: Collector,
    uplink: Uplink,
    *,
    gather: Callable[[], None],
    seen: Callable[[Progress], None],
    window_s: float = WINDOW_S,
) -> None:
    """Close a window every `window_s` seconds, store it and send, until `stop` is set; the last window is stored too.

    `gather` brings what meters hold into the collector before each end of a window, `seen` gets what came of each
    try. The first window is shorter by a random share, so that devices that started together do not report together.
    """
    window_at = time.monotonic() + window_s * random.random()  # noqa: S311 - spreads load, no secret
    send_at = 0.0
    while True:
        is_over = stop.wait(max(0.0, min(window_at, send_at) - time.monotonic()))
        if is_over or time.monotonic() >= window_at:
            gather()
            try:
                uplink.store(collector.drain())
            except OutputError as error:  # counted as lost
                seen(Progress(problem=str(error)))
            window_at += window_s
        if is_over:
            return
        if time.monotonic() >= send_at:
            progress = uplink.send()
            seen(progress)
            send_at = time.monotonic() + progress.wait_s if progress.left else window_at


def _limited(reply: Reply) -> bytes:
    body = bytearray()
    for chunk in reply.chunks():
        body += chunk
        if len(body) > MOST_ANSWER_BYTES:
            raise EndlessDataError(f"{reply.url}: an answer of more than {MOST_ANSWER_BYTES} bytes")
    return bytes(body)
