"""The constants of the 15 image corruptions, one per severity, as their authors published them.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019;
code: github.com/hendrycks/robustness, ImageNet-C/create_c: make_imagenet_c.py (224 pixels), make_tinyimagenet_c.py
(64) and make_cifar_c.py (32). Lengths are in pixels, intensities are shares of the range 0..1.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

SEVERITIES = (1, 2, 3, 4, 5)


class ImageSet(StrEnum):
    """Which of the published sets an image's size is closest to."""

    CIFAR = "CIFAR-10-C"
    TINY = "Tiny ImageNet-C"
    IMAGENET = "ImageNet-C"


SIDES = {ImageSet.CIFAR: 32, ImageSet.TINY: 64, ImageSet.IMAGENET: 224}
"""The side in pixels that each set was made for."""


def image_set(height: int, width: int) -> ImageSet:
    """Return the set whose side is closest to the image's shorter one, on a logarithmic scale.

    >>> image_set(96, 96), image_set(416, 416)
    (<ImageSet.TINY: 'Tiny ImageNet-C'>, <ImageSet.IMAGENET: 'ImageNet-C'>)
    """
    side = min(height, width)
    return min(SIDES, key=lambda each: abs(math.log(side / SIDES[each])))


def constants(name: str, images: ImageSet, severity: int) -> tuple[Any, ...]:
    """Return the constants of one corruption at one severity (1 to 5)."""
    return PUBLISHED[name][images][severity - 1]


def _each(*values: float) -> tuple[tuple[float, ...], ...]:
    return tuple((value,) for value in values)


def _scaled(side: int, *factors: tuple[float, float, float]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(side * factor for factor in row) for row in factors)


_SNOW_OF_SMALL = ((0.1, 0.2, 1, 0.6, 8, 3), (0.1, 0.2, 1, 0.5, 10, 4), (0.15, 0.3, 1.75, 0.55, 10, 4),
                  (0.25, 0.3, 2.25, 0.6, 12, 6), (0.3, 0.3, 1.25, 0.65, 14, 12))  # fmt: skip
_ZOOM_OF_SMALL = ((7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01))


def _snow_of_small(*shares: float) -> tuple[tuple[float, ...], ...]:
    return tuple((*row, share) for row, share in zip(_SNOW_OF_SMALL, shares, strict=True))


PUBLISHED: dict[str, dict[ImageSet, tuple[tuple[Any, ...], ...]]] = {
    "gaussian_noise": {  # standard deviation
        ImageSet.IMAGENET: _each(0.08, 0.12, 0.18, 0.26, 0.38),
        ImageSet.TINY: _each(0.04, 0.08, 0.12, 0.15, 0.18),
        ImageSet.CIFAR: _each(0.04, 0.06, 0.08, 0.09, 0.10),
    },
    "shot_noise": {  # photons at full brightness
        ImageSet.IMAGENET: _each(60, 25, 12, 5, 3),
        ImageSet.TINY: _each(250, 100, 50, 30, 15),
        ImageSet.CIFAR: _each(500, 250, 100, 75, 50),
    },
    "impulse_noise": {  # share of values that become 0 or 1
        ImageSet.IMAGENET: _each(0.03, 0.06, 0.09, 0.17, 0.27),
        ImageSet.TINY: _each(0.01, 0.02, 0.05, 0.08, 0.14),
        ImageSet.CIFAR: _each(0.01, 0.02, 0.03, 0.05, 0.07),
    },
    "defocus_blur": {  # radius of the disk, standard deviation that smooths its edge
        ImageSet.IMAGENET: ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ImageSet.TINY: ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        ImageSet.CIFAR: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
    "glass_blur": {  # standard deviation of the blur, furthest shift, rounds
        ImageSet.IMAGENET: ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        ImageSet.TINY: ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        ImageSet.CIFAR: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    },
    "motion_blur": {  # radius, standard deviation
        ImageSet.IMAGENET: ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ImageSet.TINY: ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        ImageSet.CIFAR: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    },
    "zoom_blur": {  # number of zooms from 1 on, as numpy.arange rounds it; step between them
        ImageSet.IMAGENET: ((12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)),
        ImageSet.TINY: _ZOOM_OF_SMALL,
        ImageSet.CIFAR: _ZOOM_OF_SMALL,
    },
    "snow": {  # mean and deviation of flakes, zoom, threshold, radius and deviation of the fall, share that is kept
        ImageSet.IMAGENET: (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        ImageSet.TINY: _snow_of_small(0.8, 0.8, 0.7, 0.65, 0.6),
        ImageSet.CIFAR: _snow_of_small(0.95, 0.9, 0.9, 0.85, 0.8),
    },
    "frost": {  # weights of the image and of the frost
        ImageSet.IMAGENET: ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        ImageSet.TINY: ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        ImageSet.CIFAR: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    },
    "fog": {  # thickness, factor by which each finer octave is weaker
        ImageSet.IMAGENET: ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ImageSet.TINY: ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        ImageSet.CIFAR: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    },
    "brightness": {  # added to the value of HSV
        ImageSet.IMAGENET: _each(0.1, 0.2, 0.3, 0.4, 0.5),
        ImageSet.TINY: _each(0.1, 0.2, 0.3, 0.4, 0.5),
        ImageSet.CIFAR: _each(0.05, 0.1, 0.15, 0.2, 0.3),
    },
    "contrast": {  # factor of the distance to each channel's mean
        ImageSet.IMAGENET: _each(0.4, 0.3, 0.2, 0.1, 0.05),
        ImageSet.TINY: _each(0.4, 0.3, 0.2, 0.1, 0.05),
        ImageSet.CIFAR: _each(0.75, 0.5, 0.4, 0.3, 0.15),
    },
    "elastic_transform": {  # strength and smoothness of the displacement, furthest move of the affine map's corners
        # 244 is the authors' own slip for 224, and part of the definition.
        ImageSet.IMAGENET: _scaled(
            244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
        ),
        ImageSet.TINY: _scaled(
            64, (0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)
        ),
        ImageSet.CIFAR: _scaled(
            32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
        ),
    },
    "pixelate": {  # factor of the side
        ImageSet.IMAGENET: _each(0.6, 0.5, 0.4, 0.3, 0.25),
        ImageSet.TINY: _each(0.9, 0.8, 0.7, 0.6, 0.5),
        ImageSet.CIFAR: _each(0.95, 0.9, 0.85, 0.75, 0.65),
    },
    "jpeg_compression": {  # quality
        ImageSet.IMAGENET: _each(25, 18, 15, 10, 7),
        ImageSet.TINY: _each(65, 58, 50, 40, 25),
        ImageSet.CIFAR: _each(80, 65, 58, 50, 40),
    },
}
