"""Text rows at their own length.

An npz holds rectangles, so short texts are padded to the longest one. Latency and calibration must
see real lengths: trailing columns that the attention mask leaves out are cut off again, from every
input that has the sequence axis, where the model takes any length.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgewise.errors import DataError
from edgewise.forge.tasks.base import Array
from edgewise.runtimes.base import TensorSpec

MASK = "attention_mask"
SEQUENCE_AXIS = 1


def trimmed_inputs(inputs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """Return the inputs with a dynamic sequence axis, if the mask is one of them; else nothing."""
    names = tuple(spec.name for spec in inputs if len(spec.shape) > SEQUENCE_AXIS and spec.shape[SEQUENCE_AXIS] is None)
    return names if MASK in names else ()


def trim_padding(feeds: Mapping[str, Array], names: tuple[str, ...], *, where: str) -> dict[str, Array]:
    """Return feeds without trailing padding; raises DataError for a sample whose mask has no token at all."""
    mask = feeds[MASK]
    tokens = np.flatnonzero(mask[0])
    if tokens.size == 0:
        raise DataError(f"{where}: {MASK} is all zero", required="at least one token", next_step="drop empty texts")
    padded, length = mask.shape[SEQUENCE_AXIS], int(tokens[-1]) + 1
    return {
        name: np.ascontiguousarray(values[:, :length])
        if name in names and values.shape[SEQUENCE_AXIS] == padded
        else values
        for name, values in feeds.items()
    }
