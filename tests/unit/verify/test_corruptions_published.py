"""The image corruptions beside an independent implementation, fed with the same random numbers.

`imagecorruptions` (Michaelis et al., 2019) is a rewrite of the published ImageNet-C code for any image size. Where it
departs from the publication (elastic transform, the crop of zooms) the published steps are written out here with
OpenCV and scipy.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from imagecorruptions import corrupt as independent
from imagecorruptions import corruptions as parts
from numpy.typing import NDArray
from scipy import ndimage

from edgewise.forge.verify.corruptions import blur, digital, noise, weather
from edgewise.forge.verify.corruptions.constants import PUBLISHED, SEVERITIES, ImageSet, constants
from edgewise.forge.verify.corruptions.images import IMAGENET_C, Pixels, corrupt

SIDE = 224


class Legacy:
    """numpy's global generator, as the published code draws from it, with the methods of a Generator."""

    def __init__(self, seed: int) -> None:
        self._draw = np.random.RandomState(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._draw, name)


class OneByOne(Legacy):
    """Draws pairs of integers one pair at a time."""

    def integers(self, low: int, high: int, size: tuple[int, int]) -> NDArray[Any]:
        return np.array([self.randint(low, high, size=(2,)) for _ in range(size[0])])


def photograph(side: int = SIDE, *, height: int | None = None) -> Pixels:
    """Return a picture with smooth parts, edges and colours."""
    draw = np.random.default_rng(7)
    coarse = ndimage.zoom(draw.random((8, 8, 3)), (side / 8, side / 8, 1), order=3)
    rows, columns = np.mgrid[:side, :side]
    disc = (rows - side * 0.4) ** 2 + (columns - side * 0.6) ** 2 < (side * 0.2) ** 2
    coarse[disc] = (0.9, 0.2, 0.1)
    coarse[side // 8 : side // 6] = 0.05
    return (np.clip(coarse, 0, 1) * 255).astype(np.uint8)[: height or side]


def difference(ours: Pixels, theirs: NDArray[Any]) -> NDArray[np.float64]:
    return np.abs(ours.astype(np.float64) - theirs.astype(np.float64))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "defocus_blur", "brightness", "contrast", "jpeg_compression", "fog"]
)
def test_equals_the_independent_implementation(name: str, severity: int) -> None:
    picture = photograph()
    np.random.seed(severity)  # noqa: NPY002 - what the other implementation draws from
    theirs = independent(picture, severity=severity, corruption_name=name)
    ours = corrupt(picture, name, severity, generator=Legacy(severity))  # type: ignore[arg-type] # same methods
    off = difference(ours, theirs)
    assert off.max() <= 1, "eight-bit rounding"
    assert off.mean() < 0.2


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_equals_the_independent_implementation_but_for_its_last_filter(severity: int) -> None:
    """Theirs enlarges with the nearest pixel, the publication with a box: equal where pixels divide evenly."""
    theirs = independent(photograph(), severity=severity, corruption_name="pixelate")
    ours = corrupt(photograph(), "pixelate", severity, generator=np.random.default_rng(0))
    assert difference(ours, theirs).mean() < 0.7


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_equals_the_independent_implementation(severity: int) -> None:
    theirs = parts.impulse_noise(photograph(), severity, seed=3)
    (share,) = constants("impulse_noise", ImageSet.IMAGENET, severity)
    ours = noise.impulse_noise(photograph() / 255, share, generator=np.random.default_rng(3)) * 255
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("angle", [-135, -60, -45, 0, 33.3, 45])
def test_motion_blur_equals_the_independent_implementation(angle: float) -> None:
    picture = photograph() / 255
    for radius, deviation in PUBLISHED["motion_blur"][ImageSet.IMAGENET]:
        theirs = parts._motion_blur(picture, radius=radius, sigma=deviation, angle=angle)
        np.testing.assert_allclose(blur.motion_blur(picture, radius, deviation, angle=angle), theirs, atol=1e-6)


@pytest.mark.parametrize(("radius", "smoothing"), [row for rows in PUBLISHED["defocus_blur"].values() for row in rows])
def test_the_disk_equals_the_independent_implementation(radius: float, smoothing: float) -> None:
    np.testing.assert_allclose(blur.disk(radius, smoothing), parts.disk(radius, smoothing), atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_equals_the_published_steps(severity: int) -> None:
    factors = [np.arange(1, 1.11, 0.01), np.arange(1, 1.16, 0.01), np.arange(1, 1.21, 0.02), np.arange(1, 1.26, 0.02),
               np.arange(1, 1.31, 0.03)][severity - 1]  # fmt: skip
    picture = photograph() / 255
    total = picture.copy()
    for factor in factors:
        kept = int(np.ceil(SIDE / factor))
        top = (SIDE - kept) // 2
        grown = ndimage.zoom(picture[top : top + kept, top : top + kept], (factor, factor, 1), order=1)
        trim = (grown.shape[0] - SIDE) // 2
        total += grown[trim : trim + SIDE, trim : trim + SIDE]
    ours = blur.zoom_blur(picture, *constants("zoom_blur", ImageSet.IMAGENET, severity))
    np.testing.assert_allclose(ours, total / (len(factors) + 1), atol=1e-9)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_blur_equals_the_independent_implementation(severity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as Python, not compiled, it copies pixels as the published loop does."""
    shuffle = parts._shuffle_pixels_njit_glass_blur.py_func
    monkeypatch.setattr(parts, "_shuffle_pixels_njit_glass_blur", shuffle)
    picture = photograph()[60:112, 30:80]
    ours = blur.glass_blur(
        picture / 255,
        *constants("glass_blur", ImageSet.IMAGENET, severity),
        generator=OneByOne(severity),  # type: ignore[arg-type] # same methods
    )
    theirs = parts.glass_blur(picture, severity, seed=severity)
    np.testing.assert_allclose(ours, theirs / 255, atol=1e-9)


def test_snow_whitens_and_falls_like_the_independent_implementation() -> None:
    """Theirs blurs flakes before eight-bit rounding and crops the zoom at a corner: the amount of snow agrees."""
    for severity in (1, 3, 5):
        ours, theirs = [], []
        for seed in range(2):
            np.random.seed(seed)  # noqa: NPY002 - what the other implementation draws from
            theirs.append(independent(photograph(), severity=severity, corruption_name="snow").mean())
            ours.append(corrupt(photograph(), "snow", severity, generator=Legacy(seed)).mean())  # type: ignore[arg-type] # same methods
        assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.05)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_transform_equals_the_published_steps(severity: int) -> None:
    picture = photograph() / 255
    strength, smoothness, corner = constants("elastic_transform", ImageSet.IMAGENET, severity)
    draw = np.random.RandomState(severity)
    centre, size = np.array([SIDE // 2, SIDE // 2], np.float32), SIDE // 3
    before = np.array([centre + size, [centre[0] + size, centre[1] - size], centre - size], np.float32)
    after = before + draw.uniform(-corner, corner, size=before.shape).astype(np.float32)
    warp = cv2.getAffineTransform(before, after)
    moved = cv2.warpAffine(picture, warp, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)
    shifts = [
        ndimage.gaussian_filter(draw.uniform(-1, 1, (SIDE, SIDE)), smoothness, mode="reflect", truncate=3) * strength
        for _ in range(2)
    ]
    rows, columns = np.mgrid[:SIDE, :SIDE]
    at = (rows + shifts[1], columns + shifts[0])
    expected = np.stack([ndimage.map_coordinates(moved[..., c], at, order=1, mode="reflect") for c in range(3)], -1)
    ours = digital.elastic_transform(
        picture,
        strength,
        smoothness,
        corner,
        generator=Legacy(severity),  # type: ignore[arg-type] # same methods
    )
    # OpenCV interpolates at 1/32 of a pixel.
    assert np.abs(ours - expected).mean() < 0.002


def test_the_frost_textures_are_as_bright_as_the_published_photographs() -> None:
    """Means of 71 to 214 and deviations of 23 to 44 (of 255) were measured on those."""
    for number in range(weather.TEXTURES):
        texture = weather.frost_texture(number, 448, 1.0) * 255
        assert 71 < texture.mean() < 214
        assert 23 < texture.std() < 44


def test_every_corruption_has_five_sets_of_constants_for_each_size() -> None:
    assert tuple(PUBLISHED) == IMAGENET_C
    assert len(IMAGENET_C) == 15
    for sets in PUBLISHED.values():
        assert set(sets) == set(ImageSet)
        assert all(len(rows) == 5 for rows in sets.values())
        assert len({len(row) for rows in sets.values() for row in rows}) == 1


@pytest.mark.parametrize(
    ("name", "images", "first", "last"),
    [  # read off make_cifar_c.py and make_tinyimagenet_c.py, which no installable package holds
        ("gaussian_noise", ImageSet.CIFAR, (0.04,), (0.10,)),
        ("gaussian_noise", ImageSet.TINY, (0.04,), (0.18,)),
        ("shot_noise", ImageSet.CIFAR, (500,), (50,)),
        ("impulse_noise", ImageSet.CIFAR, (0.01,), (0.07,)),
        ("defocus_blur", ImageSet.CIFAR, (0.3, 0.4), (1.5, 0.1)),
        ("glass_blur", ImageSet.CIFAR, (0.05, 1, 1), (0.4, 1, 2)),
        ("motion_blur", ImageSet.CIFAR, (6, 1), (9, 2.5)),
        ("zoom_blur", ImageSet.CIFAR, (7, 0.01), (26, 0.01)),
        ("snow", ImageSet.CIFAR, (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
        ("frost", ImageSet.CIFAR, (1, 0.2), (0.75, 0.45)),
        ("fog", ImageSet.CIFAR, (0.2, 3), (1.5, 1.75)),
        ("brightness", ImageSet.CIFAR, (0.05,), (0.3,)),
        ("contrast", ImageSet.CIFAR, (0.75,), (0.15,)),
        ("pixelate", ImageSet.TINY, (0.9,), (0.5,)),
        ("jpeg_compression", ImageSet.CIFAR, (80,), (40,)),
    ],
)
def test_small_images_take_the_constants_of_the_small_sets(
    name: str, images: ImageSet, first: tuple[float, ...], last: tuple[float, ...]
) -> None:
    assert constants(name, images, 1) == first
    assert constants(name, images, 5) == last
