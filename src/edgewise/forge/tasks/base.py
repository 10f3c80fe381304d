"""What the search and the final evidence need of a task and of its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = Mapping[str, Array]
"""Model inputs by name, each with a leading batch axis of length 1."""
Outputs = tuple[Array, ...]
"""Model outputs in graph order, each with a leading batch axis of length 1."""


class Sample(msgspec.Struct, frozen=True):
    """One sample: the model's inputs and its target (None where there is no label)."""

    feeds: Feeds
    target: Any = None


class Dataset(Protocol):
    """A split. Samples are read one at a time: memory does not grow with their number."""

    @property
    def name(self) -> str:
        """A short name for messages, the file or folder it comes from."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample."""
        ...

    def digest(self) -> str:
        """Return the SHA-256 (hex) of everything the split holds."""
        ...


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """A task's metric over a split, with any further figures by name."""

    value: float
    metrics: dict[str, float]


class Task(Protocol):
    """A metric over predictions, and a distance between two outputs of one sample.

    A *prediction* is whatever the task keeps of one sample's outputs (a label, boxes, a vector): it
    should be small, because those of a whole split are held in memory.
    """

    @property
    def kind(self) -> str:
        """The task's kind, as in the config."""
        ...

    @property
    def metric(self) -> str:
        """The name of the metric."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger metric is a better one."""
        ...

    def predict(self, outputs: Outputs, feeds: Feeds) -> Any:
        """Return what is kept of one sample's outputs."""
        ...

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Score | None:
        """Return the metric, or None where the targets are missing (all None)."""
        ...

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> NDArray[np.bool_] | None:
        """Return per sample (or per decision) whether the top answer differs; None if there is none."""
        ...

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return the task's distance of one sample's outputs to fp32's: 0 for equal, smooth, lower is closer."""
        ...

    def answer(self, prediction: Any) -> str:
        """Return a prediction's top answer as text, for reports."""
        ...

    def margin(self, outputs: Outputs) -> float | None:
        """Return how sure the outputs are (top-1 minus top-2 probability), or None."""
        ...


def iterate(dataset: Dataset, indices: Sequence[int] | None = None) -> Iterator[Sample]:
    """Yield samples in order, those of `indices` or all."""
    for index in range(len(dataset)) if indices is None else indices:
        yield dataset[index]
