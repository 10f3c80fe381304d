"""From measured costs to the choice: border costs, the shortlist, what fits."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edgewise.contracts.budget import Budget
from edgewise.contracts.evidence import Candidate, Status
from edgewise.contracts.recipe import Format, Recipe, RegionRecipe
from edgewise.contracts.task import TaskKind
from edgewise.forge.costfit import with_measured
from edgewise.forge.judge import Judgement
from edgewise.forge.placement import Border, Costs, predicted_us
from edgewise.forge.regions import Kind, Region
from edgewise.forge.search.bench import Trial
from edgewise.forge.search.choose import advice, choose, closest, tolerance, unbeaten
from edgewise.forge.shortlist import front, layered, thinned, within

STATIC, FP32 = Format.INT8_STATIC, Format.FP32


def test_costs_of_borders_and_formats_are_recovered_from_measured_placements() -> None:
    regions = tuple(
        Region(
            name=f"r{at}",
            kind=Kind.CONV,
            op="Conv",
            nodes=(at,),
            inputs=("x" if at == 0 else f"r{at - 1}",),
            output=f"r{at}",
            raw_output=f"r{at}",
        )
        for at in range(8)
    )
    random = np.random.default_rng(0)
    elements = {"x": 5000} | {
        each.name: int(size) for each, size in zip(regions, random.integers(100, 60_000, 8), strict=True)
    }
    plain = Border(quantize_us=1.0, dequantize_us=2.0)
    costs = Costs(
        time_us={each.name: {FP32: 30.0, STATIC: 12.0} for each in regions},
        noise={},
        borders=dict.fromkeys(elements, plain),
    )

    def dearer(name: str) -> Border:
        added = 3.0 + 0.4 * elements[name] / 1000
        return Border(quantize_us=1.0 + added, dequantize_us=2.0 + added)

    truth = msgspec.structs.replace(
        costs,
        borders={name: dearer(name) for name in elements},
        time_us={each.name: {FP32: 30.0, STATIC: 12.0 * 1.3} for each in regions},
    )
    placements = [{each.name: STATIC if random.integers(2) else FP32 for each in regions} for _ in range(12)]
    measured = [predicted_us(regions, truth, each, ("r7",)) for each in placements]
    fitted = with_measured(regions, costs, ("r7",), elements, placements, measured)
    for name in elements:
        assert fitted.borders[name].quantize_us == pytest.approx(truth.borders[name].quantize_us, rel=0.05)
        assert fitted.borders[name].dequantize_us == pytest.approx(truth.borders[name].dequantize_us, rel=0.05)
    for name, times in fitted.time_us.items():
        assert times[FP32] == costs.time_us[name][FP32]
        assert times[STATIC] == pytest.approx(12.0 * 1.3, rel=0.05)
    # Borders never get cheaper than their own kernels, however fast the measurements were.
    lucky = with_measured(regions, costs, ("r7",), elements, placements, [1.0] * len(placements))
    assert all(lucky.borders[name].quantize_us >= 1.0 for name in elements)


def trial(name: str, divergence: float | None) -> Trial:
    judgement = None
    if divergence is not None:
        judgement = Judgement(
            samples=1,
            divergence=divergence,
            sqnr_db=None,
            cosine=None,
            score=None,
            metrics={},
            flip_rate=None,
            flipped=(),
        )
    return Trial(recipe=Recipe(name=name, regions=()), judgement=judgement, failure="")


def names(trials: list[Trial]) -> list[str]:
    return [each.recipe.name for each in trials]


def test_the_front_has_no_trial_that_another_beats() -> None:
    rows = [("slow", 9.0, 0.0), ("fast", 1.0, 0.5), ("beaten", 2.0, 0.6), ("middle", 4.0, 0.1), ("hardly", 5.0, 0.099)]
    trials = (*(trial(name, far) for name, _, far in rows), trial("failed", None), trial("unpriced", 0.0))
    times = (*(time for _, time, _ in rows), 0.1, None)
    assert names(front(trials, times)) == ["fast", "middle", "slow"]
    assert front((), ()) == []


def test_a_short_front_is_filled_up_with_other_placements_that_are_close() -> None:
    """What a prediction of a tenth too much has put behind the front is timed all the same."""

    def on(region: str, name: str, divergence: float) -> Trial:
        recipe = Recipe(name=name, regions=(RegionRecipe(region=region, format=Format.INT8_STATIC),))
        return msgspec.structs.replace(trial(name, divergence), recipe=recipe)

    trials = (on("a", "first", 0.1), on("a", "first bc", 0.2), on("b", "behind", 0.3), on("c", "far", 0.9))
    times = (1.0, 1.0, 1.1, 1.05)
    assert names(layered(trials, times, 4, most=0.5)) == ["first", "behind"]
    assert names(layered(trials, times, 1, most=0.5)) == ["first"]
    assert layered((), (), 4, most=0.5) == []


def test_thinning_keeps_the_fastest_that_are_close_and_the_next_faster_ones() -> None:
    line = [trial(str(far), float(far)) for far in (9, 8, 7, 6, 5, 4, 3, 2, 1)]  # fastest first
    assert names(thinned(line, 3, most=5.0)) == ["6", "5", "4"]
    assert names(thinned(line, 6, most=5.0)) == ["7", "6", "5", "4", "3", "2"]
    assert names(thinned(line, 3, most=float("inf"))) == ["9", "8", "7"]
    assert names(thinned(line, 3, most=0.5)) == ["3", "2", "1"]
    assert names(thinned(line[:2], 6, most=8.5)) == ["9", "8"]


def candidate(name: str, **figures: Any) -> Candidate:
    return Candidate(
        name=name,
        recipe=Recipe(name=name, regions=()),
        status=figures.pop("status", Status.MEASURED),
        path=None,
        runtime="onnxruntime",
        **figures,
    )


REFERENCE = candidate("fp32", speedup=1.0, divergence=0.0, score=0.9, latency_p50_ms=10.0, size_mib=4.0, flip_rate=0.0)


def test_a_limit_on_size_or_flips_leaves_what_holds_it_to_the_shortlist() -> None:
    sizes = {"large": 9, "small": 2, "smallest": 1}
    trials = tuple(msgspec.structs.replace(trial(name, 0.1), size_bytes=size << 20) for name, size in sizes.items())
    times = (1.0, 2.0, 3.0)
    kept, left = within(trials, times, budget=Budget(size_mib=2.5), reference=REFERENCE)
    assert (names(list(kept)), left) == (["small", "smallest"], (2.0, 3.0))
    assert within(trials, times, budget=Budget(size_mib=0.5), reference=REFERENCE) == (trials, times)
    judged = trials[0].judgement
    assert judged is not None
    flipping = msgspec.structs.replace(trials[0], judgement=msgspec.structs.replace(judged, flip_rate=0.5))
    kept, _ = within((flipping, trials[1]), times[:2], budget=Budget(flip_rate=0.1), reference=REFERENCE)
    assert names(list(kept)) == ["small"]


def pick(*others: Candidate, budget: Budget | None = None, most: float = 0.01) -> str | None:
    winner = choose([REFERENCE, *others], REFERENCE, budget or Budget(), most=most)
    return winner.name if winner else None


def test_the_fastest_that_is_close_wins() -> None:
    assert pick(candidate("a", speedup=2.0, divergence=0.009), candidate("b", speedup=3.0, divergence=0.02)) == "a"
    assert (
        pick(candidate("a", speedup=2.0, divergence=0.009), candidate("b", speedup=3.0, divergence=0.02), most=1) == "b"
    )


def test_only_what_no_other_beats_is_kept() -> None:
    fp32 = candidate("fp32", speedup=1.0, size_mib=4.0, divergence=0.0)
    fast = candidate("fast", speedup=3.0, size_mib=1.0, divergence=0.01)
    middle = candidate("middle", speedup=2.0, size_mib=2.0, divergence=0.001)
    small = candidate("small", speedup=1.5, size_mib=0.5, divergence=0.02)
    beaten = candidate("beaten", speedup=1.9, size_mib=2.0, divergence=0.001)
    unknown = candidate("unknown", speedup=1.9, divergence=0.001)
    kept = unbeaten([fp32, beaten, fast, unknown, middle, small])
    assert [each.name for each in kept] == ["fp32", "fast", "middle", "small"]


def test_nothing_slower_than_fp32_is_chosen() -> None:
    assert pick(candidate("a little slower", speedup=0.99, divergence=0.0)) == "fp32"
    assert pick(candidate("a", divergence=0.0)) == "fp32"


def test_something_slower_is_chosen_where_fp32_itself_does_not_fit() -> None:
    small = candidate("small", speedup=0.8, divergence=0.0, size_mib=1.0)
    assert pick(small) == "fp32"
    assert pick(small, budget=Budget(size_mib=2.0)) == "small"


def test_a_tie_in_time_goes_to_the_closest_then_to_the_name() -> None:
    assert pick(candidate("a", speedup=2.0, divergence=0.009), candidate("b", speedup=1.95, divergence=0.001)) == "b"
    assert pick(candidate("a", speedup=2.0, divergence=0.009), candidate("b", speedup=1.9, divergence=0.001)) == "a"
    assert pick(candidate("b", speedup=2.0, divergence=0.001), candidate("a", speedup=2.0, divergence=0.001)) == "a"


def test_what_fails_a_limit_or_failed_is_not_chosen() -> None:
    flips = candidate("flips", speedup=3.0, divergence=0.0, flip_rate=0.2)
    calm = candidate("calm", speedup=2.0, divergence=0.0, flip_rate=0.01)
    assert pick(flips, calm, budget=Budget(flip_rate=0.05)) == "calm"
    assert pick(candidate("gone", speedup=9.0, divergence=0.0, status=Status.FAILED), calm) == "calm"
    drop = candidate("drop", speedup=3.0, divergence=0.0, score=0.5)
    assert pick(drop, budget=Budget(accuracy_drop=0.01)) == "fp32"


def test_a_figure_that_is_unknown_does_not_fail_its_limit() -> None:
    assert pick(candidate("a", speedup=2.0, divergence=0.0), budget=Budget(energy_mj=1.0)) == "a"


def test_where_nothing_is_close_the_closest_that_fits_is_taken() -> None:
    far = candidate("far", speedup=4.0, divergence=0.5, size_mib=1.0)
    less = candidate("less", speedup=2.0, divergence=0.3, size_mib=1.0)
    assert pick(far, less, budget=Budget(size_mib=2.0)) == "less"


def test_nothing_fits_names_the_nearest_and_what_to_do() -> None:
    near = candidate("near", speedup=2.0, divergence=0.0, latency_p50_ms=5.0, size_mib=2.0)
    small = candidate("small", speedup=1.5, divergence=0.0, latency_p50_ms=7.0, size_mib=1.0)
    budget = Budget(latency_p50_ms=1.0, size_mib=0.5, energy_mj=1.0)
    assert pick(near, small, budget=budget) is None
    assert closest([REFERENCE, near, small], REFERENCE, budget) == {"latency_p50_ms": "near", "size_mib": "small"}
    lines = advice([REFERENCE, near, small], REFERENCE, budget)
    assert [line.split(";")[0] for line in lines] == [
        "latency_p50_ms <= 1: the best is 5 (near)",
        "size_mib <= 0.5: the best is 1 (small)",
        "energy_mj <= 1: it could not be measured",
    ]


def test_limits_held_apart_but_not_together_say_so() -> None:
    quick = candidate("quick", speedup=2.0, latency_p50_ms=5.0, size_mib=3.0)
    small = candidate("small", speedup=1.5, latency_p50_ms=7.0, size_mib=1.0)
    (line,) = advice([quick, small], REFERENCE, Budget(latency_p50_ms=6.0, size_mib=2.0))
    assert "none holds all" in line


def test_every_limit_has_advice() -> None:
    limits = dict.fromkeys(Budget.__struct_fields__, 1e-9)
    wrong = candidate("wrong", speedup=1.0, score=0.1, **{name: 1.0 for name in limits if name != "accuracy_drop"})
    assert len(advice([wrong], REFERENCE, Budget(**limits))) == len(limits)


def test_a_limit_on_accuracy_replaces_the_tolerance() -> None:
    assert tolerance(TaskKind.CLASSIFICATION, Budget(flip_rate=0.1)) == float("inf")
    assert tolerance(TaskKind.CLASSIFICATION, Budget(accuracy_drop=0.1)) == float("inf")
    assert 0 < tolerance(TaskKind.CLASSIFICATION, Budget(size_mib=1.0)) < 1
    assert 0 < tolerance("mine.py:Mine", Budget()) < 1
