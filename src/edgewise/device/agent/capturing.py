"""Capture in the agent: sketches of what the model is given, and with consent a sealed sample a window."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgewise.device.agent.settings import MIB, CaptureOptions
from edgewise.device.agent.tensors import Specs
from edgewise.device.capture.samples import Samples
from edgewise.device.capture.sketches import Capture, Report
from edgewise.device.ready import Ready
from edgewise.errors import OutputError
from edgewise.keys.sealed import load_sealing
from edgewise.numerics.scores import margins
from edgewise.runtimes.base import Array

FOLDER = "samples"

log = logging.getLogger("edgewise.agent")


class Capturing:
    """What one agent captures; `offer` is for the thread that infers, `report` for the one that closes windows."""

    def __init__(self, folder: Path, options: CaptureOptions) -> None:
        """Begin with nothing. Raises KeyFileError, OutputError where samples are asked for and cannot be kept."""
        self._options = options
        self._capture: Capture | None = None
        self._wanted = False
        self._pending: dict[str, Array] | None = None
        self._samples = (
            Samples(folder / FOLDER, load_sealing(Path(options.samples_key)), limit_bytes=options.samples_mib * MIB)
            if options.samples_key
            else None
        )

    def running(self, specs: Specs) -> None:
        """Sketch the inputs of another model from now on."""
        arrays = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, (dtype, shape) in specs.items()}
        self._capture = Capture(arrays, report_s=self._options.report_s, epsilon=self._options.epsilon)

    def offer(self, inputs: Mapping[str, Array], ready: Ready | None, outputs: Mapping[str, Array]) -> None:
        """Look at an inference, where one is due: its inputs, and what a model has answered; empty where none has.

        `ready` is None where several models answer together: their margins are not told.
        """
        if self._capture is not None and self._capture.is_due:
            self._capture.offer(inputs, _margin(ready, outputs))
        if self._wanted:
            self._pending, self._wanted = {name: np.array(each) for name, each in inputs.items()}, False

    def ended(self) -> Report | None:
        """Return what the model that ran was given and was not yet reported."""
        return self._capture.report(last=True) if self._capture is not None else None

    def report(self) -> Report | None:
        """Write the sample that was taken, and return the sketches where a report is due."""
        if self._samples is not None:
            try:
                taken, self._pending = self._pending, None
                if taken is not None:
                    self._samples.keep(taken)
                self._wanted = self._samples.has_consent_or_forgets()
            except OutputError as error:
                log.warning("no sample is kept", extra={"reason": error.found})
        return self._capture.report() if self._capture is not None else None


def _margin(ready: Ready | None, outputs: Mapping[str, Array]) -> float | None:
    """Return a classifier's top-1 less top-2 probability; None for another task, one class, or no output."""
    if ready is None or ready.stored is None or ready.manifest is None:
        return None
    scores = outputs.get(ready.manifest.outputs[0].name)
    if scores is None or scores.size < 2:
        return None
    with np.errstate(invalid="ignore"):  # what is no number is left out afterwards
        return float(margins(scores.reshape(1, -1).astype(np.float64), stored=ready.stored)[0])
