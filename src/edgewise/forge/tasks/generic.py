"""The fallback where the outputs' meaning is unknown: no metric, only the distance to fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from edgewise.forge.tasks.base import Feeds, Outputs
from edgewise.forge.tasks.divergence import normalised_error


class Generic(msgspec.Struct, frozen=True, kw_only=True):
    """Any outputs. Nothing is kept of them: a prediction is None, and there are no flips."""

    kind: ClassVar[str] = "generic"
    metric: ClassVar[str] = "none"
    higher_is_better: ClassVar[bool] = True

    note: str = ""
    """Why no task with a metric was chosen, and how to get one; for the terminal and the report."""

    def predict(self, outputs: Outputs, feeds: Feeds) -> None:
        """Keep nothing."""

    def score(self, predictions: Sequence[Any], targets: Sequence[Any]) -> None:  # noqa: ARG002 - the protocol's
        """Return None: there is no metric."""
        return

    def flips(self, reference: Sequence[Any], candidate: Sequence[Any]) -> None:  # noqa: ARG002 - the protocol's
        """Return None: there is no top answer."""
        return

    def divergence(self, reference: Outputs, candidate: Outputs) -> float:
        """Return the mean over the outputs of their normalised squared error (see `normalised_error`)."""
        errors = [normalised_error(left, right) for left, right in zip(reference, candidate, strict=True)]
        return sum(errors) / len(errors) if errors else 0.0

    def answer(self, prediction: Any) -> str:  # noqa: ARG002 - the protocol's
        """Return nothing: there is no top answer."""
        return ""

    def margin(self, outputs: Outputs) -> float | None:  # noqa: ARG002 - the protocol's
        """Return None: there is no top answer."""
        return None
