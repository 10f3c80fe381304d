"""The channels of a sample, told from its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.contracts.capture import MOST_CHANNELS as MOST_CAPTURED
from edgewise.contracts.capture import Side

MOST_CHANNELS = 64


def channels_of(values: NDArray[Any]) -> NDArray[Any]:
    """Return one sample's input as [channels, values]; images by colour, a vector by its entries, else one channel.

    >>> channels_of(np.zeros((1, 8, 8, 3))).shape, channels_of(np.zeros((1, 40, 49, 10))).shape
    ((3, 64), (40, 490))
    """
    body = values[0] if values.ndim > 1 else values
    if body.ndim == 3 and body.shape[-1] <= 4 < body.shape[0]:
        body = np.moveaxis(body, -1, 0)
    if body.ndim < 2 and body.size > MOST_CHANNELS:
        return body.reshape(1, -1)
    rows = body.reshape(len(body) if body.ndim else 1, -1)
    return rows if len(rows) <= MOST_CHANNELS else rows.reshape(1, -1)


def captured_channels(inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return how many channels a device looks at of each input, by name in order.

    Whole numbers of more than 16 bits, token ids say, are left out, and so is what is beyond `contracts.capture`'s
    `MOST_CHANNELS`; an input with more channels than are left counts as one.
    """
    found: dict[str, int] = {}
    left = MOST_CAPTURED
    for name in sorted(inputs):
        array = inputs[name]
        if array.size and left and (array.dtype.kind == "f" or (array.dtype.kind in "iu" and array.itemsize <= 2)):
            count = len(channels_of(array))
            found[name] = count if count <= left else 1
            left -= found[name]
    return found


def extremes(inputs: Mapping[str, NDArray[Any]], channels: Mapping[str, int]) -> NDArray[np.float64]:
    """Return the least and the largest value of each channel of one sample [2, channels of all inputs]."""
    found = np.empty((2, sum(channels.values())))
    at = 0
    for name, count in channels.items():
        rows = channels_of(inputs[name])
        rows = rows if len(rows) == count else rows.reshape(1, -1)
        found[0, at : at + count], found[1, at : at + count] = rows.min(axis=1), rows.max(axis=1)
        at += count
    return found


def sides(channels: Mapping[str, int]) -> list[tuple[Side, Side]]:
    """Return the names of the two ends of every channel, in the order of `extremes`; inputs are numbered by name."""
    return [
        (Side(number, each, is_high=False), Side(number, each, is_high=True))
        for number, name in enumerate(sorted(channels))
        for each in range(channels[name])
    ]
