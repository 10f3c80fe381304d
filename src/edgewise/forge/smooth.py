"""SmoothQuant: move outliers of the activations into the weights, as far as the least error asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.parameters import FloatArray

ALPHAS = (0.0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_LEVELS = 127
_TINY = 1e-8
# Of the geometric mean. A channel that was quiet in calibration is not amplified further: the first input in which it
# is not would widen the range of all (MiniLM, 64 sentences seen: a cosine of 0.9974 to fp32 on others, 0.9938 without).
_LEAST, _MOST = 0.7, 1e3


def smoothing(
    rows: Sequence[FloatArray], largest: FloatArray, inputs: Sequence[FloatArray], *, alphas: Sequence[float] = ALPHAS
) -> tuple[float | None, FloatArray]:
    """Search SmoothQuant's alpha for the regions that read one tensor (arXiv 2211.10438, eq. 4).

    `rows` are the weights [out, k] of those regions, `largest` the calibrated channel maxima [k] of the
    input, `inputs` rows of the input [n, k], sample by sample. Returns the alpha and the divisors [k] with the least
    squared error of the products under dynamic int8, or (None, ones) where no smoothing is best.
    """
    starts = np.cumsum([0, *(len(each) for each in inputs[:-1])])
    columns = np.concatenate(inputs)
    peak = np.max([np.abs(each).max(axis=0) for each in rows], axis=0)
    exact = [columns @ each.T for each in rows]
    best_alpha, best = None, np.ones_like(largest)
    best_loss = _loss(rows, exact, columns, starts, best)
    for alpha in alphas:
        divisor = (np.maximum(largest, _TINY) ** alpha / np.maximum(peak, _TINY) ** (1 - alpha)).astype(np.float32)
        divisor = np.clip(divisor / np.exp(np.log(divisor).mean()), _LEAST, _MOST).astype(np.float32)
        loss = _loss(rows, exact, columns, starts, divisor)
        if loss < best_loss:
            best_alpha, best, best_loss = alpha, divisor, loss
    return best_alpha, best


def _loss(
    rows: Sequence[FloatArray],
    exact: Sequence[FloatArray],
    inputs: FloatArray,
    starts: NDArray[np.intp],
    divisor: FloatArray,
) -> float:
    smoothed = inputs / divisor
    # DynamicQuantizeLinear takes one range per call: one outlying token widens the step of all in its sample.
    lengths = np.diff(starts, append=len(inputs))
    low = np.repeat(np.minimum(np.minimum.reduceat(smoothed.min(axis=1), starts), 0), lengths)[:, None]
    high = np.repeat(np.maximum(np.maximum.reduceat(smoothed.max(axis=1), starts), 0), lengths)[:, None]
    step = np.maximum((high - low) / 255, _TINY)
    zero = np.rint(-low / step)
    quantized = ((np.clip(np.rint(smoothed / step) + zero, 0, 255) - zero) * step).astype(np.float32)
    total = 0.0
    for weight, target in zip(rows, exact, strict=True):
        scaled = weight * divisor
        scale = np.maximum(np.abs(scaled).max(axis=1, keepdims=True), _TINY) / _LEVELS
        total += float(((quantized @ (np.rint(scaled / scale) * scale).T - target) ** 2).sum())
    return total
