"""Ranges of single tensors are narrowed and widened where the model's output gains by it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from onnx import numpy_helper

from edgewise.contracts.recipe import Format, Recipe
from edgewise.forge.judge import Judgement
from edgewise.forge.progress import Silent
from edgewise.forge.search.bench import Bench, Trial
from edgewise.forge.search.clipping import clip_ratios, noisiest
from edgewise.forge.search.options import Style
from tests.unit.forge.nets import Workshop, residual

Clip = Mapping[str, float]


class Said:
    """A bench that judges by the clipped tensors alone."""

    def __init__(self, shop: Workshop, divergence: Callable[[Clip], float | None]) -> None:
        self.graph, self.regions, self.calibration = shop.graph, shop.regions, shop.calibration
        self.corrections = shop.corrections
        self._divergence = divergence
        self.judged: list[Clip] = []

    def try_all(self, recipes: Sequence[Recipe], **_: Any) -> list[Trial]:
        self.judged += [each.clip or {} for each in recipes]
        return [trial(each, self._divergence(each.clip or {})) for each in recipes]


def trial(recipe: Recipe, divergence: float | None) -> Trial:
    if divergence is None:
        return Trial(recipe=recipe, judgement=None, failure="not run")
    judgement = Judgement(
        samples=1,
        divergence=divergence,
        sqnr_db=20.0,
        cosine=None,
        score=None,
        metrics={},
        flip_rate=None,
        flipped=(),
    )
    return Trial(recipe=recipe, judgement=judgement)


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(residual())


def everywhere(shop: Workshop) -> Recipe:
    return shop.recipe(shop.everywhere(Format.INT8_STATIC))


def ratios(
    shop: Workshop, divergence: Callable[[Clip], float | None], *, limit: int = 3
) -> tuple[dict[str, float], Said]:
    bench = Said(shop, divergence)
    found = clip_ratios(cast("Bench", bench), everywhere(shop), (0,), limit=limit, progress=Silent())
    return found, bench


def test_what_brings_the_output_closer_is_kept_and_the_next_tensor_is_tried_on_top_of_it(shop: Workshop) -> None:
    first, second, _ = noisiest(cast("Bench", Said(shop, lambda _: 1.0)), everywhere(shop))[:3]

    def divergence(clip: Clip) -> float:
        halved = clip.get(first) == 0.5
        return 1.0 - 0.5 * halved - 0.3 * (halved and clip.get(second) == 1.25)

    found, _ = ratios(shop, divergence)
    assert found == {first: 0.5, second: 1.25}


def test_gains_that_may_be_chance_and_candidates_that_fail_change_nothing(shop: Workshop) -> None:
    assert ratios(shop, lambda clip: 0.995 if clip else 1.0)[0] == {}
    assert ratios(shop, lambda clip: None if clip else 1.0)[0] == {}


def test_only_the_noisiest_tensors_are_tried(shop: Workshop) -> None:
    _, bench = ratios(shop, lambda _: 1.0, limit=2)
    tried = {name for clip in bench.judged for name in clip}
    assert tried == set(noisiest(cast("Bench", bench), everywhere(shop))[:2])


def test_a_heavy_tail_makes_a_tensor_the_noisiest() -> None:
    stretched = Workshop(residual())
    name = "sum_relu"
    stretched.calibration.histograms[name].update(np.array([900.0], np.float32))
    recipe = stretched.recipe(stretched.everywhere(Format.INT8_STATIC), Style())
    regions = tuple(msgspec.structs.replace(each, range_method="min_max") for each in recipe.regions)
    assert (
        noisiest(cast("Bench", Said(stretched, lambda _: 1.0)), msgspec.structs.replace(recipe, regions=regions))[0]
        == name
    )


def test_a_clipped_tensor_has_the_named_share_of_its_scale(shop: Workshop) -> None:
    recipe = everywhere(shop)

    def scale(clip: dict[str, float]) -> float:
        model = shop.lowered(msgspec.structs.replace(recipe, clip=clip))
        node = next(each for each in model.graph.node if each.op_type == "QuantizeLinear" and "sum_relu" in each.name)
        return float(numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == node.input[1])))

    assert scale({"sum_relu": 0.5}) == pytest.approx(0.5 * scale({}), rel=1e-6)
    assert scale({"stem_relu": 0.5}) == scale({})
