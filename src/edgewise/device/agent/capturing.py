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
from edgewise.errors import OutputError
from edgewise.keys.sealed import load_sealing
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

    def offer(self, inputs: Mapping[str, Array]) -> None:
        """Look at an inference, where one is due."""
        if self._capture is not None:
            self._capture.offer(inputs)
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
