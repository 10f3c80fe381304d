"""Run frames by a fixed schedule and note when each was due, begun and done.

A frame that comes late delays those behind it. So a latency counts from the moment its frame was *due*: measuring
only how long each run took would leave out the waiting (coordinated omission; Tene, "How NOT to measure latency",
2013). Clock, sleep and the look at memory come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.units import NS_PER_MS

NS_PER_S = 1_000_000_000
MEMORY_LOOKS = 400
"""How often memory is looked at in one stream, at most."""
_OVERTIME = 2
"""A stream that cannot keep up ends after so many times its length; frames that never ran are missed."""
_NEVER = -1


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the frames of one stream. Times in nanoseconds since it began."""

    period_ns: int
    begun_ns: NDArray[np.int64]
    """When each frame that ran was begun [frames that ran]."""
    done_ns: NDArray[np.int64]
    dropped: int
    """Frames at the end that never ran, because the stream was too far behind."""
    looked_ns: NDArray[np.int64]
    """When memory was looked at [looks]."""
    resident_bytes: NDArray[np.int64]

    @property
    def frames(self) -> int:
        """All frames of the schedule, also those that never ran."""
        return len(self.done_ns) + self.dropped

    @property
    def response_ms(self) -> NDArray[np.float64]:
        """From the moment a frame was due until it was done [frames that ran]."""
        return np.asarray((self.done_ns - np.arange(len(self.done_ns)) * self.period_ns) / NS_PER_MS)

    @property
    def service_ms(self) -> NDArray[np.float64]:
        """From the moment a frame was begun until it was done [frames that ran]."""
        return np.asarray((self.done_ns - self.begun_ns) / NS_PER_MS)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Whether a frame was done later than the next one was due [frames]; those that never ran were not done."""
        late = self.response_ms * NS_PER_MS > self.period_ns
        return np.concatenate([late, np.ones(self.dropped, np.bool_)])

    def windows(self, seconds: float) -> list[slice]:
        """Return the frames that were due in each window of so many seconds."""
        each = max(1, round(seconds * NS_PER_S / self.period_ns))
        return [slice(start, min(start + each, self.frames)) for start in range(0, self.frames, each)]


def pace(
    run: Callable[[int], object],
    *,
    period_ns: int,
    frames: int,
    clock: Callable[[], int],
    sleep: Callable[[float], None],
    resident: Callable[[], int],
) -> Stream:
    """Call `run(frame)` when each of `frames` frames is due, one every `period_ns`, never two at once."""
    # Written to before the first frame, so that keeping the record does not look like a leak.
    begun, done = np.full(frames, _NEVER, np.int64), np.full(frames, _NEVER, np.int64)
    every = max(1, -(-frames // MEMORY_LOOKS))
    looked, sizes = (np.full(-(-frames // every), _NEVER, np.int64) for _ in range(2))
    begin = clock()
    ran = 0
    while ran < frames:
        now = clock() - begin
        if now > _OVERTIME * frames * period_ns:
            break
        wait = ran * period_ns - now
        if wait > 0:
            sleep(wait / NS_PER_S)
        begun[ran] = clock() - begin
        run(ran)
        done[ran] = clock() - begin
        if ran % every == 0:
            looked[ran // every], sizes[ran // every] = done[ran], resident()
        ran += 1
    looks = -(-ran // every)
    return Stream(
        period_ns=period_ns,
        begun_ns=begun[:ran],
        done_ns=done[:ran],
        dropped=frames - ran,
        looked_ns=looked[:looks],
        resident_bytes=sizes[:looks],
    )
