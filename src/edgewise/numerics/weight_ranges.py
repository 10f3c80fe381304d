"""Clipping of weights, channel by channel, by least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_FACTORS = np.linspace(0.5, 1.0, 40, dtype=np.float32)
# Elements of the rows that are searched at once: three work arrays stay in the second-level cache.
_ELEMENTS_AT_ONCE = 1 << 16


def weight_mse(w: FloatArray, bits: int = 8) -> FloatArray:
    """Return the largest kept magnitude [channels] that minimises ||w - Q(w)||^2 for each row of `w` [channels, k].

    The best of 40 factors of the row's largest magnitude between 0.5 and 1, on the symmetric narrow
    grid of `weight_grid`. Without clipping is among them, so the error never grows.
    """
    return _search(w, None, bits)


def weight_mse_weighted(w: FloatArray, h_diag: FloatArray, bits: int = 8) -> FloatArray:
    """Return the same where an error of input j counts `h_diag` [k] times.

    With h_diag = E[x_j^2] this is the error of the layer's output under independent inputs.
    """
    return _search(w, np.asarray(h_diag, dtype=np.float32), bits)


def _search(w: FloatArray, importance: FloatArray | None, bits: int) -> FloatArray:
    rows = np.asarray(w, dtype=np.float32)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    best: FloatArray = largest.copy()
    levels = np.float32((1 << (bits - 1)) - 1)
    at_once = max(_ELEMENTS_AT_ONCE // max(rows.shape[1], 1), 1)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        limits = largest[start : start + at_once, None] * _FACTORS
        # A scale below the normal float32 numbers has no reciprocal: such a row is as good as zero.
        scales = np.where(limits >= levels * np.finfo(np.float32).tiny, limits / levels, np.float32(1.0))
        errors = np.empty(scales.shape, dtype=np.float32)
        work = np.empty_like(part)
        for k in range(_FACTORS.size):
            scale = scales[:, k, None]
            np.multiply(part, 1 / scale, out=work)
            np.rint(work, out=work)
            np.clip(work, -levels, levels, out=work)
            work *= scale
            work -= part
            errors[:, k] = _squares(work, importance)
        # Of equal factors the largest, so that the reverse of argmin's order decides.
        chosen = _FACTORS.size - 1 - np.argmin(errors[:, ::-1], axis=1)
        best[start : start + at_once] = np.take_along_axis(limits, chosen[:, None], axis=1)[:, 0]
    return best


def _squares(error: FloatArray, importance: FloatArray | None) -> FloatArray:
    if importance is None:
        return np.asarray(np.einsum("ck,ck->c", error, error))
    np.multiply(error, error, out=error)
    return np.asarray(error @ importance, dtype=np.float32)
