"""What holds for every condition of images, whatever its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from edgewise.forge.verify.corruptions.images import DECODER, IMAGENET_C, ORDER, QUICK, RESIZE, Pixels, conditions_of
from edgewise.forge.verify.corruptions.images import corrupt as corrupt_image

# At 224 pixels the published constants of these do not grow steadily worse pixel by pixel: glass blur trades its
# reach for rounds, elastic transform passes from a wide warp to fine ripples, snow and frost change their texture.
UNEVEN = {"glass_blur", "elastic_transform", "snow", "frost", DECODER}


def corrupt(pixels: Pixels, name: str, severity: int, seed: int = 0) -> Pixels:
    return corrupt_image(pixels, name, severity, generator=np.random.default_rng(seed))


def picture(height: int = 224, width: int = 224, channels: int = 3) -> Pixels:
    draw = np.random.default_rng(11)
    smooth = ndimage.zoom(draw.random((9, 9, channels)), (height / 9, width / 9, 1), order=3)
    fine = ndimage.gaussian_filter(draw.standard_normal((height, width, channels)), (1, 1, 0)) * 0.15
    return (np.clip(smooth + fine, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (73, 47, 3), (28, 28, 1)])
def test_shape_type_and_range_are_kept_at_any_size(height: int, width: int, channels: int) -> None:
    before = picture(height, width, channels)
    kept = before.copy()
    for name, severities in conditions_of(channels).items():
        for severity in severities:
            after = corrupt(before, name, severity)
            assert after.shape == before.shape, name
            assert after.dtype == np.uint8, name
    assert (before == kept).all(), "the input is left alone"


@pytest.mark.parametrize("name", [*IMAGENET_C, RESIZE, DECODER])
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    before = picture(96, 96)
    assert (corrupt(before, name, 3) == corrupt(before, name, 3)).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow",
                                  "frost", "fog", "elastic_transform"])  # fmt: skip
def test_another_seed_gives_another_picture(name: str) -> None:
    before = picture(96, 96)
    assert (corrupt(before, name, 3, seed=1) != corrupt(before, name, 3, seed=2)).any()


@pytest.mark.parametrize("name", [name for name in (*IMAGENET_C, RESIZE) if name not in UNEVEN])
def test_a_higher_severity_is_further_from_the_picture(name: str) -> None:
    before = picture(160, 160)
    away = [np.abs(corrupt(before, name, severity) - before.astype(np.float64)).mean() for severity in range(1, 6)]
    assert away == sorted(away)
    assert away[0] > 0


@pytest.mark.parametrize("name", sorted(UNEVEN))
def test_every_severity_changes_the_picture(name: str) -> None:
    before = picture(72, 72)
    for severity in range(1, 6):
        assert (corrupt(before, name, severity) != before).any()


def test_another_decoder_changes_little() -> None:
    before = picture().astype(np.float64)
    for name in (RESIZE, DECODER):
        assert np.abs(corrupt(picture(), name, 5) - before).mean() < 8


def test_repeated_chroma_differs_from_interpolated_chroma_only_in_colour() -> None:
    grey = np.repeat(picture(channels=1), 3, axis=2)
    interpolated, repeated = corrupt(grey, DECODER, 3), corrupt(grey, DECODER, 4)
    assert np.abs(interpolated.astype(int) - repeated).max() <= 2
    colour = picture()
    assert np.abs(corrupt(colour, DECODER, 3).astype(int) - corrupt(colour, DECODER, 4)).max() > 2


def test_colour_order_swaps_red_and_blue() -> None:
    assert (corrupt(picture(), ORDER, 1)[..., 0] == picture()[..., 2]).all()
    assert (corrupt(corrupt(picture(), ORDER, 1), ORDER, 1) == picture()).all()


def test_quick_takes_conditions_that_every_image_has() -> None:
    assert set(QUICK) <= set(conditions_of(1))
