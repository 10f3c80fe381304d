"""SmoothQuant: move outliers of the activations into the weights, as far as the least error asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewise.forge.parameters import FloatArray

ALPHAS = (0.0, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_LEVELS = 127
_TINY = 1e-8


def smoothing(
    rows: Sequence[FloatArray], largest: FloatArray, inputs: FloatArray, *, alphas: Sequence[float] = ALPHAS
) -> tuple[float | None, FloatArray]:
    """Search SmoothQuant's alpha for the regions that read one tensor (arXiv 2211.10438, eq. 4).

    `rows` are the weights [out, k] of those regions, `largest` the calibrated channel maxima [k] of the
    input, `inputs` sampled input rows [n, k]. Returns the alpha and the divisors [k] with the least
    squared error of the products under dynamic int8, or (None, ones) where no smoothing is best.
    """
    peak = np.max([np.abs(each).max(axis=0) for each in rows], axis=0)
    exact = [inputs @ each.T for each in rows]
    best_alpha, best = None, np.ones_like(largest)
    best_loss = _loss(rows, exact, inputs, best)
    for alpha in alphas:
        divisor = (np.maximum(largest, _TINY) ** alpha / np.maximum(peak, _TINY) ** (1 - alpha)).astype(np.float32)
        divisor = np.clip(divisor / np.exp(np.log(divisor).mean()), 1e-3, 1e3).astype(np.float32)
        loss = _loss(rows, exact, inputs, divisor)
        if loss < best_loss:
            best_alpha, best, best_loss = alpha, divisor, loss
    return best_alpha, best


def _loss(rows: Sequence[FloatArray], exact: Sequence[FloatArray], inputs: FloatArray, divisor: FloatArray) -> float:
    smoothed = inputs / divisor
    # DynamicQuantizeLinear takes one range per call; a row is about what one short input holds.
    low = np.minimum(smoothed.min(axis=1, keepdims=True), 0)
    high = np.maximum(smoothed.max(axis=1, keepdims=True), 0)
    step = np.maximum((high - low) / 255, _TINY)
    zero = np.rint(-low / step)
    quantized = ((np.clip(np.rint(smoothed / step) + zero, 0, 255) - zero) * step).astype(np.float32)
    total = 0.0
    for weight, target in zip(rows, exact, strict=True):
        scaled = weight * divisor
        scale = np.maximum(np.abs(scaled).max(axis=1, keepdims=True), _TINY) / _LEVELS
        total += float(((quantized @ (np.rint(scaled / scale) * scale).T - target) ** 2).sum())
    return total
