"""Attacks within an L-infinity ball: FGSM and PGD, the differential attack, and the square attack without gradients.

The ball is `|x' - x| <= radius` per value, cut to `low..high`; all three are arrays that broadcast to the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np

from edgewise.forge.tasks.base import Array
from edgewise.forge.verify.adversarial_ops import Tensor
from edgewise.forge.verify.adversarial_surrogate import Surrogate

STEPS = 10
_FIRST_SQUARE = 0.8
_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries: where the share of pixels that a square covers is halved."""


class Ball(msgspec.Struct, frozen=True, kw_only=True):
    """What an attack may reach."""

    radius: Array
    low: Array
    high: Array

    def projected(self, x: Array, origin: Array) -> Array:
        """Return the closest point of the ball around `origin`, of the origin's type."""
        near = np.clip(x, origin - self.radius, origin + self.radius)
        inside = np.clip(near, np.minimum(self.low, origin), np.maximum(self.high, origin))
        return np.asarray(inside, origin.dtype)


Gradient = Callable[[Array], Array]
"""Of the loss that the attacker raises."""


def fgsm(x: Array, gradient: Gradient, ball: Ball) -> Array:
    """Return x + eps sign(grad): Goodfellow et al., ICLR 2015, section 4."""
    return ball.projected(x + ball.radius * np.sign(gradient(x)), x)


def pgd(x: Array, gradient: Gradient, ball: Ball, *, generator: np.random.Generator, steps: int = STEPS) -> Array:
    """Return the last of projected steps of 2.5 eps / steps from a random start: Madry et al., ICLR 2018, section 2."""
    at = ball.projected(x + ball.radius * generator.uniform(-1, 1, x.shape), x)
    for _ in range(steps):
        at = ball.projected(at + 2.5 / steps * ball.radius * np.sign(gradient(at)), x)
    return at


def cross_entropy(model: Surrogate, name: str, label: int) -> Gradient:
    """Return the gradient of -log p(label)."""

    def gradient(x: Array) -> Array:
        leaf = _leaf(model, x)
        loss = -model.log_probabilities(name, leaf)[0, label]
        return _gradient(model, loss, leaf)

    return gradient


def difference(reference: Surrogate, variant: Surrogate, name: str, label: int) -> Gradient:
    """Return the gradient of p_fp32(label) - p_variant(label): DIVA, Hao et al., MLSys 2022, equation 5 with c = 1."""

    def gradient(x: Array) -> Array:
        leaf = _leaf(reference, x)
        kept = reference.log_probabilities(name, leaf)[0, label].exp()
        lost = variant.log_probabilities(name, leaf)[0, label].exp()
        return _gradient(reference, kept - lost, leaf)

    return gradient


def square(
    x: Array, margin: Callable[[Array], float], ball: Ball, *, queries: int, rows: int, generator: np.random.Generator
) -> Array:
    """Return what random squares of +-eps reach: Andriushchenko et al., ECCV 2020, algorithms 1 and 2 (L-infinity).

    `margin` is the score of the label minus the best other one; the search ends below 0. `rows` is the axis of the
    picture's rows, the next one that of its columns; other axes are channels.
    """
    height, width = x.shape[rows], x.shape[rows + 1]
    per_channel = [1 if axis in (0, rows, rows + 1) else size for axis, size in enumerate(x.shape)]
    stripes = [1 if axis in (0, rows) else size for axis, size in enumerate(x.shape)]
    best = ball.projected(x + ball.radius * generator.choice([-1.0, 1.0], stripes), x)
    lowest = margin(best)
    for query in range(1, queries):
        if lowest < 0:
            break
        side = max(round(math.sqrt(_share(query, queries) * height * width)), 1)
        side = min(side, height, width)
        top, left = int(generator.integers(height - side + 1)), int(generator.integers(width - side + 1))
        part = [slice(None)] * x.ndim
        part[rows], part[rows + 1] = slice(top, top + side), slice(left, left + side)
        step = np.broadcast_to(ball.radius * generator.choice([-1.0, 1.0], per_channel), x.shape)
        tried = best.copy()
        tried[tuple(part)] = (x + step)[tuple(part)]
        tried = ball.projected(tried, x)
        found = margin(tried)
        if found < lowest:
            best, lowest = tried, found
    return best


def _share(query: int, queries: int) -> float:
    """Return the share of pixels that a square covers at this query."""
    of = query / queries * 10_000
    return math.ldexp(_FIRST_SQUARE, -sum(of > each for each in _HALVED_AT))


def _leaf(model: Surrogate, x: Array) -> Tensor:
    leaf = model.torch.from_numpy(np.ascontiguousarray(x, np.float32))
    leaf.requires_grad_(requires_grad=True)
    return leaf


def _gradient(model: Surrogate, loss: Tensor, leaf: Tensor) -> Array:
    (found,) = model.torch.autograd.grad(loss, leaf)
    return np.asarray(np.nan_to_num(found.numpy()))
