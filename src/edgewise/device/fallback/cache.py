"""Answers that are kept: the same input to the same variant of the same bundle gives the same bytes, without a run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from edgewise.contracts.telemetry import CACHE_HITS, CACHE_MISSES
from edgewise.device.tally import Tally
from edgewise.runtimes.base import Array

ENTRY_BYTES, OUTPUT_BYTES = 400, 300
"""About what Python takes for an entry and for each array in it, beside the values."""


class ExactCache:
    """The answers used last, as many as fit in `most_bytes`; for the thread that infers."""

    def __init__(self, most_bytes: int, tally: Tally) -> None:
        """Start empty."""
        self._most_bytes = most_bytes
        self._tally = tally
        self._kept: OrderedDict[bytes, tuple[dict[str, Array], int]] = OrderedDict()
        self.bytes = 0
        """Held now."""

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._kept)

    def find(self, key: bytes) -> Mapping[str, Array] | None:
        """Return the outputs under a key, None where there are none; counts a hit or a miss."""
        found = self._kept.get(key)
        if found is None:
            self._tally.event(CACHE_MISSES)
            return None
        self._kept.move_to_end(key)
        self._tally.event(CACHE_HITS)
        return found[0]

    def keep(self, key: bytes, outputs: Mapping[str, Array]) -> None:
        """Keep a copy, and let go of what was not used for longest. What is larger than all of it is not kept."""
        size = ENTRY_BYTES + sum(OUTPUT_BYTES + each.nbytes for each in outputs.values())
        if size > self._most_bytes or key in self._kept:
            return
        copies = {name: array.copy() for name, array in outputs.items()}
        for each in copies.values():
            each.flags.writeable = False
        while self.bytes + size > self._most_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed
        self._kept[key] = (copies, size)
        self.bytes += size


def key_of(identity: bytes, inputs: Mapping[str, Array]) -> bytes | None:
    """Return the SHA-256 of who answers and of every input's name, type, shape and values; None for objects.

    `identity` stands for the digests of bundle, variant and preprocessing. Values are compared as
    bytes: 0.0 and -0.0 differ.
    """
    from hashlib import sha256  # noqa: PLC0415 - a device without a cache need not load it

    state = sha256(identity)
    for name in sorted(inputs):
        array = inputs[name]
        if array.dtype.hasobject:
            return None
        state.update(repr((name, array.dtype.str, array.shape)).encode())
        state.update(np.ascontiguousarray(array).data)
    return state.digest()
