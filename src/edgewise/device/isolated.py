"""A session whose model is in a worker process: what hangs or crashes there ends that process, and no other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise.device.session import BoundSession
from edgewise.errors import ExecutionError, WorkerError
from edgewise.runtimes.base import Array

if TYPE_CHECKING:
    from edgewise.device.worker import Worker
    from edgewise.device.worker.frames import Layout


class IsolatedSession(BoundSession):
    """Executes in a worker, and is back in time whatever the model does; one thread at a time may use it.

    It keeps no states that could be set or handed on: a new process begins with zeros.
    """

    def __init__(
        self, worker: Worker, layout: Layout, *, hang_s: float, sample: Mapping[str, Array] | None = None
    ) -> None:
        """Take a worker that is ready, and inputs to time it on.

        An execution without a deadline is ended after `hang_s`.
        """
        self._worker = worker
        self._sample = sample
        self._hang_s = hang_s
        self.given = frozenset(each.name for each in layout.inputs)
        self.inputs = {each.name: np.broadcast_to(np.zeros((), each.dtype), each.shape or ()) for each in layout.inputs}
        self._forms = {each.name: (each.shape, np.dtype(each.dtype)) for each in layout.outputs}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; returns arrays of the caller's own. Raises ExecutionError."""
        return self.run_within(feeds, self._hang_s)

    def run_within(self, feeds: Mapping[str, Array], seconds: float) -> dict[str, Array]:
        """Execute once, in `seconds` and 100 ms at most. Raises ExecutionError, also where the process ended."""
        try:
            return self._worker.run(feeds, deadline_ns=time.monotonic_ns() + int(seconds * 1e9))
        except WorkerError as error:
            raise ExecutionError(error.found, required=error.required, next_step=error.next_step) from error

    def run_from(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once on the sample; others are refused: the worker ran the golden inputs when it opened its model."""
        if feeds or self._sample is None:
            raise _not_here(sorted(feeds))
        return self.run(self._sample)

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def set_state(self, values: Mapping[str, Array]) -> None:
        """Refuse: see the class."""
        raise _not_here(sorted(values))

    def take_state(self, other: BoundSession) -> bool:  # noqa: ARG002 - the base class's signature
        """Begin anew: nothing is handed over between processes."""
        self.reset()
        return False

    def reset(self) -> None:
        """Forget the stream. A process that is gone has forgotten it."""
        try:
            self._worker.reset()
        except WorkerError:
            return

    def stop(self) -> None:
        """Make an execution that is under way in another thread fail at the next operator."""
        self._worker.stop()

    def allow(self) -> None:
        """Do nothing: what was stopped was one execution."""

    @property
    def restarts(self) -> int:
        """How often the process was started anew."""
        return self._worker.counts().starts - 1

    @property
    def is_stateful(self) -> bool:
        """Whether an output depends on the runs before: never."""
        return False

    @property
    def outputs(self) -> Mapping[str, tuple[tuple[int, ...] | None, np.dtype[Any]]]:
        """Shape and type of each output that is returned; the shape is None where it depends on the input."""
        return self._forms


def _not_here(names: list[str]) -> ExecutionError:
    return ExecutionError(
        f"{', '.join(names)} given to a model in a worker process as a state", required="a model in this process"
    )
