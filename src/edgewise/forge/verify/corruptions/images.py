"""The conditions of images: the 15 corruptions of ImageNet-C, and other ways to decode the same picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.forge.verify.corruptions import blur, decoding, digital, noise, weather
from edgewise.forge.verify.corruptions.constants import SEVERITIES, SIDES, ImageSet, constants, image_set
from edgewise.forge.verify.corruptions.digital import as_bytes
from edgewise.forge.verify.corruptions.noise import Picture

Pixels = NDArray[np.uint8]
"""`[height, width, channels]`, one channel or RGB."""

_Draw = np.random.Generator
_PUBLISHED: dict[str, Callable[[Picture, tuple[Any, ...], ImageSet, _Draw], Picture]] = {
    "gaussian_noise": lambda x, c, _, draw: noise.gaussian_noise(x, *c, generator=draw),
    "shot_noise": lambda x, c, _, draw: noise.shot_noise(x, *c, generator=draw),
    "impulse_noise": lambda x, c, _, draw: noise.impulse_noise(x, *c, generator=draw),
    "defocus_blur": lambda x, c, _, __: blur.defocus_blur(x, *c),
    "glass_blur": lambda x, c, _, draw: blur.glass_blur(x, *c, generator=draw),
    "motion_blur": lambda x, c, _, draw: blur.motion_blur(x, *c, angle=float(draw.uniform(-45, 45))),
    "zoom_blur": lambda x, c, _, __: blur.zoom_blur(x, *c),
    "snow": lambda x, c, _, draw: weather.snow(x, c, generator=draw),
    "frost": lambda x, c, like, draw: weather.frost(
        x, *c, scale=SIDES[like] / SIDES[ImageSet.IMAGENET], generator=draw
    ),
    "fog": lambda x, c, _, draw: weather.fog(x, *c, generator=draw),
    "brightness": lambda x, c, _, __: weather.brightness(x, *c),
    "contrast": lambda x, c, _, __: digital.contrast(x, *c),
    "elastic_transform": lambda x, c, _, draw: digital.elastic_transform(x, *c, generator=draw),
    "pixelate": lambda x, c, _, __: digital.pixelate(x, *c),
    "jpeg_compression": lambda x, c, _, __: digital.jpeg_compression(x, *c),
}
IMAGENET_C = tuple(_PUBLISHED)
"""Their names, in the order of the paper."""
RESIZE, DECODER, ORDER = "resize_filter", "jpeg_decoder", "colour_order"
QUICK = ("gaussian_noise", "defocus_blur", "brightness", "contrast", "jpeg_compression", RESIZE)
"""One of each kind, and cheap."""


def conditions_of(channels: int) -> dict[str, tuple[int, ...]]:
    """Return the severities of each condition that goes with this number of channels (1 or 3)."""
    every = dict.fromkeys((*IMAGENET_C, RESIZE, DECODER), SEVERITIES)
    if channels == 1:
        return {name: severities for name, severities in every.items() if name != DECODER}
    return every | {ORDER: (1,)}


def corrupt(pixels: Pixels, name: str, severity: int, *, generator: np.random.Generator) -> Pixels:
    """Return a corrupted picture of the same shape; the same generator state gives the same bytes."""
    x = pixels / 255.0
    if name == RESIZE:
        return as_bytes(decoding.resize_filter(x, decoding.FILTERS[severity - 1]))
    if name == DECODER:
        return np.round(decoding.jpeg_decoder(x, decoding.STEPS[severity - 1]) * 255).astype(np.uint8)
    if name == ORDER:
        return np.ascontiguousarray(pixels[..., ::-1])
    like = image_set(*pixels.shape[:2])
    return as_bytes(_PUBLISHED[name](x, constants(name, like, severity), like, generator))
