"""Clipping is no fault where the run calibrated it; where it did not, or where it costs much, it is named."""

from __future__ import annotations

import numpy as np

from edgewise.contracts.recipe import RangeMethod
from edgewise.contracts.verification import Grade
from edgewise.forge.verify.causes import Cause, Diagnosis, diagnose
from edgewise.forge.verify.noise import Noise
from edgewise.forge.verify.points import Point
from edgewise.forge.verify.where_findings import regions, saturation
from edgewise.numerics.grid import Grid, dequantize, quantize

END = 1.5
METHOD = RangeMethod.PERCENTILE_9999


def clipped(*, reach: float, calibrated: tuple[float, float] | None, share: float = 1.0) -> Diagnosis:
    """Return what is found of a tensor in 0 .. 1.5 on a grid as wide, one sample of which reaches further."""
    scale = np.array(END / 255, np.float32)
    grid = Grid(scale=scale, zero_point=np.array(0, np.uint8))
    noise = Noise(Point(reference="y", variant="y", grid=grid, region=None))
    draw = np.random.default_rng(0)
    for at in range(16):
        values = draw.uniform(0, END, (1, 8, 8, 8)).astype(np.float32)
        if at == 3:
            values[0, 0, :2, :4] = reach
        noise.add(values, values, dequantize(quantize(values, grid), grid))
    return diagnose(noise, None, METHOD, calibrated, share)


def grade(each: Diagnosis) -> Grade:
    (found,) = saturation([each])
    return found.grade


def test_a_grid_that_the_run_calibrated_may_clip_a_few_inputs() -> None:
    assert grade(clipped(reach=6.0, calibrated=(0.0, END))) is Grade.PASS


def test_a_grid_of_which_nobody_knows_why_it_clips_is_named() -> None:
    assert grade(clipped(reach=6.0, calibrated=None)) is Grade.FLAG


def test_a_grid_that_is_not_the_one_that_was_calibrated_is_named() -> None:
    assert grade(clipped(reach=6.0, calibrated=(0.0, 2 * END))) is Grade.FLAG


def test_values_that_round_to_the_end_of_a_coarse_grid_are_not_clipped() -> None:
    """SiLU reaches down to -0.28, and a grid of 0 .. 170 has steps of 0.67: the nearest level is 0, its end."""
    grid = Grid(scale=np.array(170 / 255, np.float32), zero_point=np.array(0, np.uint8))
    noise = Noise(Point(reference="y", variant="y", grid=grid, region=None))
    before = np.random.default_rng(0).normal(0, 2, (16, 1, 8, 8, 8)).astype(np.float32)
    for values in before / (1 + np.exp(-before)):
        noise.add(values, values, dequantize(quantize(values, grid), grid))
    found = diagnose(noise, None, None)
    assert found.clipped == 0
    assert found.clipping_db == np.inf
    assert found.cause is not Cause.SATURATION
    assert grade(found) is Grade.PASS


def test_clipping_that_makes_a_region_noisy_is_named_though_it_was_calibrated() -> None:
    assert grade(clipped(reach=30.0, calibrated=(0.0, END))) is Grade.FLAG


def test_a_range_that_the_search_narrowed_is_not_named_and_the_same_one_without_its_word_is() -> None:
    """Half of what the method gives: the noise is no fault where the recipe says so."""
    narrowed, unasked = (clipped(reach=30.0, calibrated=(0.0, 20 * END), share=share) for share in (0.05, 1.0))
    assert narrowed.is_calibrated
    assert grade(narrowed) is Grade.PASS
    assert [each.grade for each in regions([narrowed])] == [Grade.PASS]
    assert grade(unasked) is Grade.FLAG
    assert [each.grade for each in regions([unasked])] == [Grade.FLAG]


def test_a_range_that_the_search_widened_is_as_wide_as_was_meant() -> None:
    asked, unasked = (clipped(reach=0.7 * END, calibrated=None, share=share) for share in (1.5, 1.0))
    assert asked.width is not None
    assert unasked.width is not None
    assert asked.width * 1.5 == unasked.width
