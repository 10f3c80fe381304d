"""What a workstation asks a device to measure, and what the device answers.

The request is a ZIP archive, stored or deflated, of `question.json`, `feeds.npz` (arrays by number, run by run) and one
`NAME.onnx` for each model of the question.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from edgewise.contracts.base import Value
from edgewise.contracts.target import RuntimeName

LAB_PATH = "/v1/lab"
QUESTION, FEEDS = "question.json", "feeds.npz"
MOST_MODELS = 64
MOST_FEEDS = 256

ModelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Measure(StrEnum):
    """What is measured."""

    ABOUT = "about"
    """Nothing: what device this is."""
    TIME = "time"
    """All models in turns, so that noise hits all alike."""
    PROFILE = "profile"
    """The kernels of the one model."""
    MEMORY = "memory"
    """Peak of loading and running the one model, in a process that did nothing else."""


class LabQuestion(Value, kw_only=True):
    """One measurement. `names` are the inputs of each run of `feeds.npz`."""

    measure: Measure
    runtime: RuntimeName = RuntimeName.ONNXRUNTIME
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    models: Annotated[tuple[ModelName, ...], msgspec.Meta(max_length=MOST_MODELS)] = ()
    """The first is the reference."""
    names: Annotated[tuple[tuple[str, ...], ...], msgspec.Meta(max_length=MOST_FEEDS)] = ()
    rounds: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    least: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    budget_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 10.0
    precision: float = 0.01
    seed: int = 0


class LabTimes(Value, kw_only=True):
    """Times of one model, `per_round` samples a round, milliseconds of one inference; see `runtimes.timing`."""

    samples_ms: tuple[float, ...]
    repeats: int
    busy_ms: tuple[float, ...] = ()
    """Processor time of the thread that ran it, round by round; empty where that is not all of the work."""
    per_round: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1


class LabKernel(Value, kw_only=True):
    """One kernel; see `runtimes.base.KernelTime`."""

    name: str
    kind: str
    time_us: float
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    runs_quantized: bool = False
    origins: tuple[str, ...] = ()


class LabAnswer(Value, kw_only=True):
    """What a device found. `problem` is empty where the measurement was made."""

    processor: str = ""
    versions: str = ""
    """Of edgewise and the runtime."""
    problem: str = ""
    times: dict[str, LabTimes] = {}
    failures: dict[str, str] = {}
    """Models that the runtime refuses, with its words."""
    kernels: tuple[LabKernel, ...] = ()
    peak_bytes: int | None = None
    """Above what the process held before the model."""
