"""From a model's normalised input back to pixels, and again to the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edgewise.contracts.task import ImageOptions
from edgewise.forge.tasks.base import Array
from edgewise.forge.verify.corruptions.images import Pixels

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SLACK = 1e-3


class PixelSpace(msgspec.Struct, frozen=True, kw_only=True):
    """What black and white are in the input, per channel: value = low + pixel / 255 * (high - low)."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    channels_first: bool
    words: str
    """How it is known."""
    is_known: bool = True

    def pixels(self, values: Array) -> Pixels:
        """Return `[height, width, channels]` of an input with a leading axis of 1 (or `[1, height, width]`)."""
        picture = values[0]
        if picture.ndim == 2:
            picture = picture[..., None]
        elif self.channels_first:
            picture = picture.transpose(1, 2, 0)
        low, high = np.asarray(self.low), np.asarray(self.high)
        levels = np.clip(np.round((picture - low) / (high - low) * 255), 0, 255)
        return np.asarray(levels, np.uint8)

    def values(self, pixels: Pixels, like: Array) -> Array:
        """Return the input of a picture, of the type and shape of `like`."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        picture = low + pixels / 255.0 * (high - low)
        if like.dtype.kind in "iu":
            picture = np.round(picture)
        if self.channels_first and like.ndim == 4:
            picture = picture.transpose(2, 0, 1)
        return np.ascontiguousarray(picture.reshape(like.shape).astype(like.dtype))

    @property
    def step(self) -> tuple[float, ...]:
        """One of 255 levels in the unit of the input, per channel."""
        return tuple((high - low) / 255 for low, high in zip(self.low, self.high, strict=True))


def space_of_options(options: ImageOptions, *, channels: int) -> PixelSpace:
    """Return the space of images that were decoded with these options."""
    mean, std = (np.broadcast_to(np.asarray(each), (channels,)) for each in (options.mean, options.std))
    low, high = -mean / std, (255 / options.scale - mean) / std
    return PixelSpace(
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        channels_first=options.layout == "nchw",
        words="the pixel range of [task.image]",
    )


def space_of_samples(samples: Sequence[Array], *, channels: int, channels_first: bool) -> PixelSpace:
    """Return the first usual range that holds all samples, else the range of the samples themselves.

    Bytes and 0..255, 0..1, -1..1, ImageNet's mean and deviation, in this order: one that spans much more than the
    samples do is not taken.
    """
    rows = np.concatenate([_by_channel(each, channels, channels_first=channels_first) for each in samples], axis=1)
    least, most = rows.min(axis=1), rows.max(axis=1)
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    usual: list[tuple[str, Any, Any]] = [("0..1", 0.0, 1.0), ("-1..1", -1.0, 1.0), ("0..255", 0.0, 255.0)]
    if channels == 3:
        usual.append(("ImageNet's mean and deviation", -mean / std, (1 - mean) / std))
    for words, low, high in usual:
        span = np.max(np.subtract(high, low))
        fits = (least >= low - _SLACK * span).all() and (most <= high + _SLACK * span).all()
        if fits and float((most - least).max()) > 0.3 * span:
            return _space(low, high, channels, f"the samples lie in {words}", channels_first=channels_first)
    low, high = least.min(), most.max()
    words = f"the range of the samples, {low:.4g} to {high:.4g}, is taken for black to white"
    return _space(low, max(high, low + 1e-6), channels, words, channels_first=channels_first, is_known=False)


def _space(
    low: Any, high: Any, channels: int, words: str, *, channels_first: bool, is_known: bool = True
) -> PixelSpace:
    lows, highs = (np.broadcast_to(np.asarray(each, np.float64), (channels,)) for each in (low, high))
    return PixelSpace(
        low=tuple(lows.tolist()),
        high=tuple(highs.tolist()),
        channels_first=channels_first,
        words=words,
        is_known=is_known,
    )


def _by_channel(values: Array, channels: int, *, channels_first: bool) -> Array:
    """Return `[channels, values]` of one input."""
    picture = values.reshape(values.shape[-2:])[None] if values.ndim == 3 else values[0]
    return np.moveaxis(picture, 0 if channels_first or values.ndim == 3 else -1, 0).reshape(channels, -1)
