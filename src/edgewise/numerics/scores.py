"""Scores that are watched for drift; the forge and the device take them in the same way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.numerics.probabilities import log_probabilities

DoubleArray = NDArray[np.float64]
MARGIN, ENERGY_SCORE = "margin", "energy_score"
MOST_CHANNELS = 8
"""An input with more channels is watched as a whole."""


def margins(rows: NDArray[Any], *, stored: bool) -> DoubleArray:
    """Return the best class's probability less the second's, of rows `[n, classes]` of logits or probabilities."""
    top = np.partition(np.exp(log_probabilities(rows, stored=stored)), -2, axis=-1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def energies(logits: NDArray[Any]) -> DoubleArray:
    """Return log sum_k exp(f_k) of rows `[n, classes]` (Liu et al., NeurIPS 2020, equation 4, at T = 1).

    Of probabilities it would be the same for every input: they have lost it.
    """
    values = np.asarray(logits, np.float64)
    top = values.max(axis=-1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=-1)))


def channels(shape: tuple[int, ...], *, last: bool) -> int:
    """Return as how many channels an input `[1, ...]` is watched; the channel axis is the second, or the last one."""
    if len(shape) < 3:
        return 1
    count = shape[-1] if last else shape[1]
    return count if 1 <= count <= MOST_CHANNELS else 1


def extremes(array: NDArray[Any], count: int, *, last: bool) -> DoubleArray:
    """Return the least and the largest value of each of `count` channels of an input `[1, ...]`, as `[2 * count]`."""
    if count == 1:
        return np.array([array.min(), array.max()], np.float64)
    rows = array.reshape(-1, count) if last else array.reshape(count, -1)
    axis = 0 if last else 1
    return np.concatenate([rows.min(axis=axis), rows.max(axis=axis)], dtype=np.float64)


def range_names(index: int, count: int) -> tuple[str, ...]:
    """Return the names of the scores of one input, in the order of `extremes`.

    >>> range_names(0, 2)
    ('input0.c0.low', 'input0.c1.low', 'input0.c0.high', 'input0.c1.high')
    """
    places = [f"input{index}.c{channel}" if count > 1 else f"input{index}" for channel in range(count)]
    return tuple(f"{place}.{end}" for end in ("low", "high") for place in places)
